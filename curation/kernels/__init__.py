"""Numba kernels over Arrow buffers: pure, single-threaded, no I/O."""
