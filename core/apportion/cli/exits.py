"""Exit codes, and the interrupt that leaves something behind."""

from __future__ import annotations

__all__ = ["FAILED", "INTERRUPTED", "InterruptedDeliveryError"]

FAILED = 1
INTERRUPTED = 130


class InterruptedDeliveryError(Exception):
    """Ctrl-C after part of the results had been written; the message says which part."""
