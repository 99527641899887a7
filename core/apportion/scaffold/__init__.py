"""Generates new plugins: working distributions whose tests pass."""
