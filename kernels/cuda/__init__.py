"""CUDA kernels: sweeps that stay on the chip for a whole stretch of time."""
