"""The rows that score a target after an input, more than one if the model does not read all of the target.

A token is predicted from the prompt and from what the model reads of the tokens before it. As long as that is the
target itself, one row scores one token after the other. After a token that is absent, a new row begins.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import chain, pairwise

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.row import ModelInput, Row
from apportion.scoring.prefix_tree import common_prefix

__all__ = ["Part", "beside", "distinct_rows", "parts_of"]

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Part:
    """Some neighbouring tokens of a target, scored by one row.

    Attributes:
        row: the row.
        start: number of tokens of the target before them.
        stop: number of tokens of the target before the first that is not among them.
        skip: number of scores of the row that come before theirs, and are of no use.
    """

    row: Row
    start: int
    stop: int
    skip: int = 0

    def of(self, scores: Float[Tensor, " C"]) -> Float[Tensor, " N"]:
        """Their scores, of all scores of the row."""
        return scores[self.skip : self.skip + self.stop - self.start]


def parts_of(item: ModelInput, target: Ids, *, joint: bool, single: bool = False) -> list[Part]:
    """The parts of a target, in order.

    Args:
        item: the input; its answer is that of this target.
        target: token ids of the target.
        joint: prompt and target are read as one sequence. If they are read apart, what the model reads of the target
            before a part is the beginning of its row's target.
        single: one part for each token.
    """
    answer = item.answer
    if answer is None and not single:
        return [Part(Row(item.ids, target, item.media), 0, len(target))]
    answer = answer or tuple((token,) for token in target[:-1])
    after = range(1, len(target))
    starts = [0, *(i for i in after if single or answer[i - 1] != target[i - 1 : i]), len(target)]
    found = []
    for start, stop in pairwise(starts):
        read, scored = tuple(chain.from_iterable(answer[:start])), target[start:stop]
        if joint:
            found.append(Part(Row(item.ids + read, scored, item.media), start, stop))
        else:
            found.append(Part(Row(item.ids, read + scored, item.media), start, stop, len(read)))
    return found


def beside(item: ModelInput, target: Ids, other: Ids) -> ModelInput:
    """The input before another target, such as a contrast: tokens with which both begin are absent from both.

    Args:
        item: the input; its answer is that of ``target``.
        target: token ids of the target.
        other: token ids of the other target.
    """
    if item.answer is None:
        return item
    shared = common_prefix(target, other)
    read = tuple(item.answer[i] if i < min(shared, len(item.answer)) else (other[i],) for i in range(len(other) - 1))
    own = tuple((token,) for token in other[:-1])
    return ModelInput(item.ids, item.media, None if read == own else read)


def distinct_rows(parts: Iterable[Sequence[Part]]) -> list[Row]:
    """The distinct rows of the parts of some inputs, in order."""
    return list(dict.fromkeys(part.row for some in parts for part in some))
