"""Scoring of model inputs: plans, batches, and the values read from them."""
