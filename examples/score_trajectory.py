"""Score a trajectory in Python: python examples/score_trajectory.py ESTIMATE TRUTH."""

import sys

from vslam.datasets.trajectory import read_trajectory
from vslam.evaluation import metrics

estimate, truth = map(read_trajectory, sys.argv[1:3])
pairs = metrics.align(metrics.associate(estimate, truth, max_gap=0.02), "se3")
drift = metrics.rpe(pairs, metrics.Delta.parse("1s"), max_gap=0.02)
print(f"ATE {metrics.rmse(metrics.ate(pairs)) * 1000:.1f} mm over {len(pairs)} poses")
print(f"RPE {metrics.rmse(drift.trans_m) * 1000:.1f} mm and {metrics.rmse(drift.rot_deg):.2f} deg per second")
