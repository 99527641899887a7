"""A check that the value of a token does not depend on later tokens, so that these get 0 for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError
from apportion.protocols.targets import Needs, Scores

if TYPE_CHECKING:
    from apportion.scoring.readout import Readout

__all__ = ["require_causal"]


def require_causal(readout: Readout, name: str, device: str) -> None:
    """Reject a target function in which tokens depend on later ones, checked on random scores.

    Whatever looks ahead by some number of tokens looks at the last token from some other one. So it is enough to change
    the scores of the last one, of the target and of its contrast.

    Args:
        readout: readout with the target function.
        name: name of the target function.
        device: the session's device, on which such a function may expect its scores.

    Raises:
        InputError: the value of a token depends on the scores of the last one.
    """
    draw = torch.Generator().manual_seed(0)
    logits, place = readout.needs is Needs.LOGITS, _device(device)

    def drawn(tokens: int) -> Tensor:
        """Random scores of some tokens: logits, or log-probabilities."""
        shape = (1, tokens, readout.vocabulary) if logits else (1, tokens)
        found = torch.randn(shape, generator=draw).to(place)
        return found if logits else -found.abs()

    def values(parts: Sequence[Tensor]) -> Float[Tensor, " K"]:
        scores = [Scores(logits=part) if logits else Scores(log_probs=part) for part in parts]
        return readout.applied(*scores, reference=reference)[0]

    parts = [drawn(len(ids)) for ids in readout.targets]
    first = Scores(logits=parts[0] / 2) if logits else Scores(log_probs=parts[0] / 2)
    reference = first if readout.has_reference else None
    before = values(parts)
    for which, part in enumerate(parts):
        changed = torch.cat([part[:, :-1], drawn(1)], dim=1)
        after = values([*parts[:which], changed, *parts[which + 1 :]])
        earlier = slice(1, part.shape[1])
        if not torch.allclose(before[earlier], after[earlier], equal_nan=True):
            raise InputError(
                f"The target function {name!r} lets the value of a token depend on tokens after it, so that it cannot "
                "be said what the tokens before it contribute. Leave attribute_generated out, or use another target "
                "function, such as 'log_prob'."
            )


def _device(name: str) -> torch.device:
    """The device of this name; the CPU if it is the name of something else, such as a server."""
    try:
        return torch.device(name)
    except RuntimeError:
        return torch.device("cpu")
