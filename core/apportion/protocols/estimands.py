"""Estimands with a property that apportion relies on. This module imports no tensors, so that results load fast."""

from __future__ import annotations

__all__ = ["EFFICIENT"]

EFFICIENT = ("Shapley value", "Owen value")
"""Estimands whose values add up to the difference between the full and the empty prompt."""
