"""AttnLRP: relevance of input tokens, propagated back through a transformer layer by layer."""

from __future__ import annotations

import apportion as ap
from apportion_attnlrp.method import AttnLRP

__all__ = ["AttnLRP"]

APPORTION_API_VERSION = 1


@ap.hookimpl
def apportion_register_methods(register: ap.Register) -> None:
    """Register the method."""
    register("attnlrp", AttnLRP, summary="layer-wise relevance propagation (Achtibat et al., 2024)")
