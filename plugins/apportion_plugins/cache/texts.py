"""Keys and values of texts that a model wrote, each kept with its prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from apportion.protocols.row import ModelInput, Row
from apportion_plugins.cache.keys import row_keys

if TYPE_CHECKING:
    from apportion.protocols.request import Request

__all__ = ["pack_text", "text_keys", "unpack_text"]


def text_keys(
    scope: bytes, request: Request, identity: tuple[str, bool], prompts: Sequence[ModelInput], sample: int
) -> list[bytes]:
    """The key of the text of one number after each prompt.

    Texts depend on the options of the generation, and sampled ones on the seed of the run. Target and target function
    do not count, so that another function finds the same texts.

    Args:
        scope: from ``scope_of``.
        request: the run's request.
        identity: from ``identity_of_texts``, and whether texts are sampled.
        prompts: prompts.
        sample: number of the text.
    """
    writes, sampled = identity
    options = sorted(request.generation.items(), key=lambda option: option[0])
    content = repr(("text", writes, options, request.seed if sampled else None, sample)).encode()
    narrowed = hashlib.blake2b(content, digest_size=32, key=scope).digest()
    return row_keys(narrowed, [Row(prompt.ids, (), prompt.media) for prompt in prompts])


def pack_text(prompt: str, text: str) -> bytes:
    """Encode a text, with the prompt that it follows."""
    return json.dumps({"prompt": prompt, "text": text}).encode()


def unpack_text(stored: bytes | None) -> str | None:
    """Decode a text; ``None`` if there is none."""
    if stored is None:
        return None
    found = json.loads(stored)["text"]
    return found if isinstance(found, str) else None
