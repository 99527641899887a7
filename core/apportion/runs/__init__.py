"""Runs, single or concurrent, from the arguments of a call to its result."""
