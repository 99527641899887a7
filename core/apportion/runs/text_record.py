"""The texts that a result was computed from, as the result keeps them."""

from __future__ import annotations

from collections.abc import Hashable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.errors import counted, shown
from apportion.protocols.row import ModelInput
from apportion.scoring.text_source import Archive
from apportion.scoring.writer import text_key

if TYPE_CHECKING:
    from apportion.game.game import Game
    from apportion.protocols.request import Request
    from apportion.results.attribution import Attribution
    from apportion.runs.run import Run

__all__ = ["TEXTS", "archive_of", "notes_on", "texts_of"]

LONGEST = 120
TEXTS = "texts"
"""Name of the texts among a result's ``extras``."""


def texts_of(run: Run, game: Game) -> list[dict[str, Any]]:
    """The texts after each prompt that the method asked about, in order of how many features are absent.

    Returns:
        For each prompt, ``present``, the places of its features; ``prompt``, its key; ``texts``; and their ``values``.
    """
    samples, known = range(run.resolved.samples), run.archive.texts
    found: dict[Hashable, dict[str, Any]] = {}
    for packed, inputs in run.memory.rendered.items():
        bits = np.unpackbits(np.frombuffer(packed, dtype=np.uint8), count=game.n_features)
        present = np.flatnonzero(bits).tolist()
        for item in inputs:
            assert isinstance(item, ModelInput)
            if item in game.asked and item not in found:
                texts = [known[text_key(item)][i] for i in samples]
                found[item] = {
                    "present": present,
                    "prompt": text_key(item),
                    "texts": texts,
                    "values": [run.text_values[text] for text in texts],
                }
    return sorted(found.values(), key=lambda one: (-len(one["present"]), one["present"]))


def notes_on(texts: Sequence[Mapping[str, Any]], request: Request) -> list[str]:
    """Notes on the text after the full prompt, unless that is the target, and on prompts in which no noise was seen.

    Args:
        texts: from ``texts_of``.
        request: the run's request.
    """
    notes: list[str] = []
    whole = next((one for one in texts if len(one["present"]) == len(request.adapter.features)), None)
    if whole is not None and request.target.text not in whole["texts"]:
        more = " among others" if request.samples > 1 else ""
        notes.append(f"after the full prompt, the model wrote {shown(whole['texts'][0], LONGEST)}{more}")
    alike = sum(len(set(one["values"])) == 1 for one in texts)
    if request.samples > 1 and alike:
        notes.append(
            f"the {request.samples} texts after {alike} of {counted(len(texts), 'prompt')} had the same value, so that "
            "no noise was seen there; more samples may show some"
        )
    return notes


def archive_of(result: Attribution) -> Archive:
    """The texts that a result holds."""
    kept = result.extras.get(TEXTS, ())
    listed = [one for one in kept if isinstance(one, Mapping)] if isinstance(kept, list) else []
    return Archive({one["prompt"]: dict(enumerate(one["texts"])) for one in listed})
