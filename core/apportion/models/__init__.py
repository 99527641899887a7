"""Naming and opening a model, and choosing the backend that runs it."""
