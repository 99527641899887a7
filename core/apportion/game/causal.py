"""A check that the value of a token does not depend on later tokens, so that these get 0 for it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError

if TYPE_CHECKING:
    from apportion.scoring.readout import Readout

__all__ = ["require_causal"]


def require_causal(readout: Readout, name: str) -> None:
    """Reject a target function in which tokens depend on later ones, checked on random scores.

    Whatever looks ahead by some number of tokens looks at the last token from some other one. So it is enough to change
    the scores of the last one, of the target and of its contrast.

    Args:
        readout: readout with the target function.
        name: name of the target function.

    Raises:
        InputError: the value of a token depends on the scores of the last one.
    """
    draw = torch.Generator().manual_seed(0)
    wide = readout.vocabulary
    logits = [torch.randn(1, len(ids), wide, generator=draw) for ids in readout.targets]
    reference = readout.scores_of(logits[0].flip(2), readout.targets[0]) if readout.has_reference else None

    def values(parts: Sequence[Float[Tensor, "1 T V"]]) -> Float[Tensor, " K"]:
        scores = [readout.scores_of(part, ids) for part, ids in zip(parts, readout.targets, strict=True)]
        return readout.applied(*scores, reference=reference)[0]

    before = values(logits)
    for which, part in enumerate(logits):
        other = 2 * torch.randn(1, 1, wide, generator=draw)
        changed = torch.cat([part[:, :-1], other], dim=1)
        after = values([*logits[:which], changed, *logits[which + 1 :]])
        earlier = slice(1, part.shape[1])
        if not torch.allclose(before[earlier], after[earlier], equal_nan=True):
            raise InputError(
                f"The target function {name!r} lets the value of a token depend on tokens after it, so that it cannot "
                "be said what the tokens before it contribute. Leave attribute_generated out, or use another target "
                "function, such as 'log_prob'."
            )
