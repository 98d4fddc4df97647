"""The Triton kernels behind `impl/triton.py`, one idea a file."""
