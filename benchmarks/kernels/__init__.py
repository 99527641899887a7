"""Kernels and whole runs on a GPU, beside what else does the same."""
