"""The expected cost of a whole dataset, from estimates of some of its rows."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Mapping, Sequence, Set
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from apportion.cli.items import Item
from apportion.cli.listing import print_facts
from apportion.errors import ApportionError
from apportion.phrases import duration, memory_line

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.runs.cost import Cost

__all__ = ["NOTHING", "DatasetCost", "cost_of_rows", "rows_to_estimate"]

SAMPLE = 8
"""Rows that are estimated; each takes a calibration, and so about as long as scoring a few prompts."""


NARROW = 0.01
"""A range that is narrower, as a share of the expected value, is not shown."""


@dataclass(frozen=True, slots=True)
class Total:
    """A sum over all rows, and its range if every row costs as much as one of its neighbours in the sample."""

    expected: float
    least: float
    most: float


@dataclass(frozen=True, slots=True)
class DatasetCost:
    """Expected cost of a dataset.

    Attributes:
        rows: number of rows to attribute.
        estimated: number of rows that were estimated; the cost of the others is interpolated by the prompt's length.
        failing: errors of rows that would fail, by the row's id: those that cannot be attributed, which are not among
            ``rows``, and those that were estimated in vain.
        evaluations: distinct model inputs to score, cached ones included.
        forwarded_tokens: number of tokens that the model would read.
        seconds: duration in seconds, of rows one by one; rows at once share batches, and take less.
        batch_bytes: upper estimate of the memory of the largest batch of a row, in bytes; ``None`` if unknown.
        model_bytes: memory of the weights in bytes; ``None`` if unknown.
        requests: number of requests to a server; 0 for a model on this machine.
        price: price of the tokens to forward; ``None`` if it is not known.
        at_most: true if evaluations depend on values found during the run. They are then a maximum, and tokens and time
            those of a run that may well cost as much.
    """

    rows: int
    estimated: int
    failing: Mapping[str, str]
    evaluations: Total
    forwarded_tokens: Total
    seconds: Total
    batch_bytes: int | None
    model_bytes: int | None
    at_most: bool
    requests: Total = Total(0, 0, 0)
    price: Total | None = None

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python values; counts are whole numbers."""
        counts = {
            name: {key: round(value) for key, value in asdict(getattr(self, name)).items()}
            for name in ("evaluations", "forwarded_tokens", "requests")
        }
        return {**asdict(self), **counts}

    def show(self) -> None:
        """Print the cost in the terminal."""
        print_facts(self.lines())

    def lines(self) -> list[tuple[str, str]]:
        """Labels and formatted values."""
        failing = [("would fail", f"{_row(row)}: {why}") for row, why in list(self.failing.items())[:SAMPLE]]
        if len(self.failing) > SAMPLE:
            failing.append(("", f"and {len(self.failing) - SAMPLE:,} more rows"))
        if not self.rows:
            return [("rows", "none left to attribute"), *failing]
        every = self.estimated == self.rows
        how = "" if every else f", of which {self.estimated}, from the shortest to the longest, were estimated"
        return [
            ("rows", f"{self.rows:,} to attribute{how}"),
            *failing,
            ("evaluations", self._text(self.evaluations, "{:,.0f}".format, "at most") + " distinct prompts"),
            *([("requests", self._text(self.requests, "{:,.0f}".format))] if self.requests.most else []),
            ("tokens", self._text(self.forwarded_tokens, "{:,.0f}".format) + " to forward"),
            *([("price", self._text(self.price, "{:.4g}".format))] if self.price is not None else []),
            (
                "time",
                self._text(self.seconds, duration) + " for one row after the other; less where rows share batches",
            ),
            *memory_line(self.model_bytes, self.batch_bytes, "the largest batch of a row"),
        ]

    def _text(self, total: Total, form: Callable[[float], str], bound: str = "up to about") -> str:
        if self.at_most:
            return f"{bound} {form(total.most)}"
        least, expected, most = form(total.least), form(total.expected), form(total.most)
        narrow = total.most - total.least <= NARROW * total.expected
        return f"about {expected}" if narrow or least == most else f"about {expected} (between {least} and {most})"


def _row(row_id: str) -> str:
    """A row by its id, or as ``line 7`` if it has none."""
    return row_id if row_id.startswith(("line ", "row ")) else f"row {row_id}"


NOTHING = DatasetCost(0, 0, {}, Total(0, 0, 0), Total(0, 0, 0), Total(0, 0, 0), 0, None, False)
"""The cost where no row is left."""


def rows_to_estimate(items: Sequence[Item]) -> list[int]:
    """Positions of the rows to estimate in a list that is sorted by length: all of a few, else evenly spaced ones."""
    last = len(items) - 1
    return sorted({round(i * last / (SAMPLE - 1)) for i in range(SAMPLE)}) if last >= SAMPLE else list(range(last + 1))


def cost_of_rows(
    explainer: Explainer, items: Sequence[Item], shared: Mapping[str, Any], tick: Callable[[str], None]
) -> DatasetCost:
    """Estimate the cost of rows, one by one, without scoring them.

    Args:
        explainer: would attribute them.
        items: the rows, sorted by length.
        shared: arguments of ``attribute`` for rows that do not have their own.
        tick: called after each estimate.

    Raises:
        ApportionError: every row that was estimated would fail; the error is that of the first.
    """
    chosen = rows_to_estimate(items)
    costs: dict[int, Cost] = {}
    failing: dict[str, str] = {}
    failed: set[int] = set()
    first: ApportionError | None = None
    for place in chosen:
        try:
            costs[place] = explainer.estimate(**{**shared, **items[place].arguments})
        except ApportionError as error:
            first = first or error
            failed.add(place)
            failing[items[place].id] = " ".join(str(error).split())
        tick("estimating")
    if first is not None and not costs:
        raise first

    def total(name: str) -> Total:
        # Rows that fail cost nothing; the others of the sample stand for their neighbours.
        return _total({place: float(getattr(cost, name)) for place, cost in costs.items()}, len(items), failed)

    batches = [cost.batch_bytes for cost in costs.values()]
    known = [batch for batch in batches if batch is not None]
    return DatasetCost(
        rows=len(items),
        estimated=len(chosen),
        failing=failing,
        evaluations=total("evaluations"),
        forwarded_tokens=total("forwarded_tokens"),
        seconds=total("seconds"),
        batch_bytes=max(known) if len(known) == len(batches) else None,
        model_bytes=next(iter(costs.values())).model_bytes,
        at_most=any(cost.at_most for cost in costs.values()),
        requests=total("requests"),
        price=None if any(cost.price is None for cost in costs.values()) else total("price"),
    )


def _total(known: Mapping[int, float], rows: int, failed: Set[int]) -> Total:
    """Add up numbers of which only some are known; the others lie between those at the next places.

    Args:
        known: the numbers that are known, by their places.
        rows: number of places.
        failed: places that do not count.
    """
    places = sorted(known)
    expected = least = most = 0.0
    for row in sorted(set(range(rows)) - failed):
        at = bisect_left(places, row)
        left, right = places[max(0, at - 1)], places[min(at, len(places) - 1)]
        if right == row:
            left = row
        before, after = known[left], known[right]
        weight = min(1.0, max(0.0, (row - left) / (right - left))) if right > left else 0.0
        expected += before + (after - before) * weight
        least += min(before, after)
        most += max(before, after)
    return Total(expected, least, most)
