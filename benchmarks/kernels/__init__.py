"""Benchmarks of kernels and whole runs on a GPU, compared with alternatives."""
