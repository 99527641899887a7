"""Values of inputs whose target is read in parts, if the target function needs logits.

Such a function takes the logits of a whole target at once, but with tokens absent each comes from another row. They are
collected for a few inputs at a time, as many as may be passed to the function at once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence

from jaxtyping import Float
from torch import Tensor

from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.protocols.targets import Scores
from apportion.scoring.batches import Batches
from apportion.scoring.parts import distinct_rows
from apportion.scoring.readout import LastLogits, Readout

__all__ = ["chunks", "values_of_altered"]

ScoreLogits = Callable[[ScoringBatch, LastLogits], Tensor]


def chunks(inputs: Mapping[int, ModelInput], size: int) -> Iterator[list[int]]:
    """Keys of inputs, a few at a time; prompts that begin alike are neighbours."""
    order = sorted(inputs, key=lambda i: (inputs[i].media, inputs[i].ids))
    for start in range(0, len(order), size):
        yield order[start : start + size]


def values_of_altered(
    inputs: Sequence[ModelInput],
    readout: Readout,
    batches: Batches,
    score: ScoreLogits,
    note: Callable[[str], None],
) -> tuple[Float[Tensor, "N K"], int]:
    """Values of a few inputs, and the number of tokens that the model read.

    Args:
        inputs: the inputs, at most ``readout.inputs_at_once``.
        readout: says which rows to read, and applies the target function.
        batches: plans and runs batches.
        score: scores a batch through the plugins' hooks.
        note: called with a message when memory runs out.

    Raises:
        BatchTooLargeError: not even one row fits into memory.
    """
    parts = readout.parts(inputs, single=True)
    places: dict[Row, list[tuple[int, int, int]]] = {}
    for which, some in enumerate(parts):
        for i, one in enumerate(some):
            for part in one:
                places.setdefault(part.row, []).append((which, i, part.start))
    rows = distinct_rows(one for some in parts for one in some)
    read = LastLogits(readout.inputs_at_once, batches.turns)
    tables: list[Tensor | None] = [None] * len(parts)
    tokens = 0
    for batch, found, costs in batches.run(rows, lambda batch: score(batch, read), note):
        tokens += sum(costs)
        for number, logits in zip(batch.rows, found, strict=True):
            for which, i, place in places[rows[number]]:
                table = tables[which]
                if table is None:
                    table = tables[which] = logits.new_empty(len(inputs), len(readout.targets[which]), len(logits))
                table[i, place] = logits
    scores = [Scores(logits=table) for table in tables if table is not None]
    return readout.applied(*scores), tokens
