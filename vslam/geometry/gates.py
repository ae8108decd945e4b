"""When a residual is too large to be noise: 95 % quantiles of the chi-square distribution."""

MONO_GATE = 5.991
"""2 degrees of freedom (u, v)."""
STEREO_GATE = 7.815
"""3 degrees of freedom (u, v, disparity)."""
