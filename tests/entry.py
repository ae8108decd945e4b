"""Inner kernels as Python can call them."""

import numba


def entry(kernel):
    """A kernel made by `vslam.kernels.inner`, with an entry from Python."""

    @numba.njit(error_model="numpy")
    def call(*args):
        return kernel(*args)

    return call
