"""Plans that divide rows into batches, and the cost of these plans. Independent of models and devices.

There are three strategies, and the cheapest is chosen:

- **plain**: whole rows, sorted by length to minimise padding; in prefix order if there is no padding.
- **grouped**: groups of rows with a common prefix, which is encoded once per group (``prefix_groups.py``).
- **packed**: rows in the order of their prefix tree; each distinct token is read once (``prefix_tree.py``).

Each strategy yields batches that keep the device busy and fit the memory budget.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field, replace

from apportion.errors import counted
from apportion.protocols.backend import Layout
from apportion.protocols.batch import ScoringBatch
from apportion.protocols.row import ModelInput, Row
from apportion.scoring.media import windows
from apportion.scoring.prefix_groups import nested_groups
from apportion.scoring.prefix_tree import common_prefix, in_tree_order, reused_tokens

__all__ = ["Batch", "Plan", "RowBytes", "Way", "plan", "read_again"]

RowBytes = Callable[[int, int, int], int]


@dataclass(frozen=True, slots=True)
class Batch:
    """Numbers of the rows that are scored together.

    Attributes:
        rows: numbers of the rows, in the order in which they are read.
        prefix: number of leading tokens in the common prefix, which is encoded beforehand.
        packed: each distinct token is read once.
    """

    rows: tuple[int, ...]
    prefix: int = 0
    packed: bool = False

    @property
    def independent(self) -> bool:
        """True if the batch can be read at any time, because it does not continue from another batch."""
        return not (self.packed or self.prefix)

    def part(self, start: int, stop: int) -> Batch:
        """A batch with some of the rows and the same layout."""
        return Batch(self.rows[start:stop], self.prefix, self.packed)


@dataclass(frozen=True, slots=True)
class Way:
    """A strategy that was considered, and its cost.

    Attributes:
        name: ``"plain"``, ``"grouped"`` or ``"packed"``.
        tokens: number of tokens that the model reads, padding included.
        forwards: number of forward passes, over batches and over prefixes.
        price: cost of both, in tokens of a plain batch.
    """

    name: str
    tokens: int
    forwards: int
    price: float


@dataclass(frozen=True, slots=True)
class Plan:
    """Batches of rows, and the order in which they are scored.

    Attributes:
        rows: distinct prompts and targets.
        batches: the batches, in order.
        costs: number of tokens that the model reads for each row, padding included; a prefix is charged to the first
            row that it is encoded for.
        ways: the strategies that were considered, with the chosen one first.
        layout: the session's layout when the plan was made.
        kept: tokens that the session keeps afterwards.
    """

    rows: Sequence[Row]
    batches: tuple[Batch, ...]
    costs: tuple[int, ...]
    ways: tuple[Way, ...]
    layout: Layout
    kept: ModelInput | None = None

    @property
    def forwarded_tokens(self) -> int:
        """Number of tokens that the model reads under this plan, padding included."""
        return sum(self.costs)

    @property
    def whole_tokens(self) -> int:
        """Number of tokens that the model would read in plain batches."""
        return next(way.tokens for way in self.ways if way.name == "plain")

    def read(self, batch: Batch) -> int:
        """Number of tokens that the model reads for a batch, including a prefix that it is the first to need."""
        return sum(self.costs[row] for row in batch.rows)

    def scoring_batch(self, batch: Batch) -> ScoringBatch:
        """The batch in the form that the session takes."""
        return ScoringBatch(tuple(self.rows[row] for row in batch.rows), batch.prefix, batch.packed)

    def bytes(self, batch: Batch, row_bytes: RowBytes) -> int:
        """Upper estimate of the memory that a batch takes, in bytes."""
        members = [self.rows[i] for i in batch.rows]
        if batch.packed:
            return sum(
                _packed_bytes(row, len(row.read) - self.costs[i], row_bytes)
                for i, row in zip(batch.rows, members, strict=True)
            )
        suffix = max(len(row.prompt) for row in members) - batch.prefix
        return len(members) * row_bytes(batch.prefix, suffix, max(len(row.target) for row in members))

    @property
    def reason(self) -> str:
        """A sentence that compares the chosen strategy with the others."""
        taken, *others = self.ways
        sizes = [f"{way.name} {_cost(way)}" for way in others]
        return f"{taken.name}: {_cost(taken)}" + (f" (instead of {'; '.join(sizes)})" if sizes else "")


def _cost(way: Way) -> str:
    return f"{counted(way.tokens, 'token')} in {counted(way.forwards, 'forward pass', 'forward passes')}"


def plan(
    rows: Sequence[Row], layout: Layout, row_bytes: RowBytes, memory_budget: int, kept: ModelInput | None = None
) -> Plan:
    """Divide distinct rows into batches, by the cheapest strategy that the session allows.

    Args:
        rows: prompts and targets.
        layout: layout of rows that the session accepts.
        row_bytes: memory of one row, given the lengths ``(prefix, suffix, target)``.
        memory_budget: bytes that a batch may use; a single row is always allowed.
        kept: tokens that the session keeps from before.
    """
    room = _Room(rows, layout, row_bytes, memory_budget)
    if layout.ragged:
        plain = _ragged_batches(rows, layout)
    else:
        plain = _padded_batches(rows, [(list(range(len(rows))), 0)], room)
    candidates = [("plain", plain)]
    limit = layout.packing_limit
    if not layout.joint:
        pass  # the encoder reads the prompt whole, so nothing is shared
    elif layout.packing and (limit is None or all(len(row.read) <= limit for row in rows)):
        candidates.insert(0, ("packed", _packed_batches(rows, room, kept)))
    elif layout.prefix_sharing and len(rows) > 1:
        candidates.insert(0, ("grouped", _padded_batches(rows, nested_groups(rows, layout.batch_overhead), room)))
    weighed = []
    for name, batches in candidates:
        costs, forwards, after = _costs(rows, batches, kept, layout)
        overhead = 1 + layout.packing_overhead if name == "packed" else 1.0
        price = overhead * sum(costs) + layout.batch_overhead * forwards
        weighed.append((Way(name, sum(costs), forwards, price), batches, costs, after))
    weighed.sort(key=lambda found: found[0].price)
    _, batches, costs, after = weighed[0]
    return Plan(rows, tuple(batches), tuple(costs), tuple(way for way, *_ in weighed), layout, after)


def read_again(schedule: Plan, others: Sequence[Sequence[Row]], kept: ModelInput | None) -> Plan:
    """Extend a plan so that each batch is read again with other targets, before the next batch.

    Args:
        schedule: plan of the first rows.
        others: rows with the same prompts, in the same order.
        kept: tokens that the session keeps from before, as when the plan was made.
    """
    rows = [*schedule.rows, *(row for part in others for row in part)]
    n = len(schedule.rows)
    shifts = range(0, len(rows), n)
    batches = [
        Batch(tuple(i + shift for i in batch.rows), batch.prefix, batch.packed)
        for batch in schedule.batches
        for shift in shifts
    ]
    costs, _, after = _costs(rows, batches, kept, schedule.layout)
    return replace(schedule, costs=tuple(sum(costs[i::n]) for i in range(n)), kept=after)


@dataclass(frozen=True, slots=True)
class _Room:
    """Capacity of a batch."""

    rows: Sequence[Row]
    layout: Layout
    row_bytes: RowBytes
    memory_budget: int
    firsts: dict[ModelInput, int] = field(init=False)
    """The first row with each prompt, if rows share the encoding of their prompts."""
    windows: list[int] = field(init=False)
    """The window of each row, in which the media of its rows are kept."""

    def __post_init__(self) -> None:
        sources = [row.source for row in self.rows] if self.layout.source_sharing else []
        object.__setattr__(self, "firsts", {source: i for i, source in reversed(list(enumerate(sources)))})
        most = self.layout.kept_media
        object.__setattr__(self, "windows", [0] * len(self.rows) if most is None else windows(self.rows, most))

    def order(self, i: int) -> tuple[int, ...]:
        """The place of a row in the order of batches: longest first, and rows that share an encoding together."""
        row, layout = self.rows[i], self.layout
        together = (self.firsts[row.source],) if layout.source_sharing and layout.padding else ()
        return (self.windows[i], -len(row.prompt), *together, -len(row.target), i)

    def padded(self, longest: Row, targets: int, prefix: int) -> int:
        """Maximum number of rows in a batch with this longest prompt and target."""
        suffix = len(longest.prompt) - prefix
        by_memory = self.memory_budget // max(1, self.row_bytes(prefix, suffix, targets))
        rows = min(by_memory, self.layout.batch_tokens // (suffix + targets))
        if prefix and self.layout.prefix_rows is not None:
            rows = min(rows, self.layout.prefix_rows)
        if self.layout.batch_rows is not None:
            rows = min(rows, self.layout.batch_rows)
        return max(1, rows)


def _padded_batches(rows: Sequence[Row], groups: Iterable[tuple[list[int], int]], room: _Room) -> list[Batch]:
    """Batches of each group's rows, longest first; a new batch begins when one is full.

    Without padding, a new batch also begins when a length changes.
    """
    found: list[Batch] = []
    for members, prefix in groups:
        current: list[int] = []
        targets = max(len(rows[i].target) for i in members)
        for i in sorted(members, key=room.order):
            # The first row of a batch sets its width.
            first = rows[current[0]] if current else rows[i]
            other = not room.layout.padding and (
                len(rows[i].prompt) != len(first.prompt) or len(rows[i].target) != len(first.target)
            )
            if current and (other or len(current) >= room.padded(first, targets, prefix)):
                found.append(Batch(tuple(current), prefix))
                current = []
            current.append(i)
        if current:
            found.append(Batch(tuple(current), prefix))
    return found


def _ragged_batches(rows: Sequence[Row], layout: Layout) -> list[Batch]:
    """Batches of about equal size, of rows in the order of their prefix tree; a new batch begins when one is full."""
    most = layout.batch_rows or len(rows)
    even = -(-len(rows) // max(1, -(-len(rows) // most)))
    found: list[Batch] = []
    current: list[int] = []
    tokens = 0
    for i in in_tree_order(rows):
        new = len(rows[i].read)
        if current and (len(current) >= even or tokens + new > layout.batch_tokens):
            found.append(Batch(tuple(current)))
            current, tokens = [], 0
        current.append(i)
        tokens += new
    return [*found, Batch(tuple(current))] if current else found


def _packed_batches(rows: Sequence[Row], room: _Room, kept: ModelInput | None) -> list[Batch]:
    """Batches of rows in the order of their prefix tree; a new batch begins when one is full."""
    order = in_tree_order(rows)
    found: list[Batch] = []
    current: list[int] = []
    tokens = held = 0
    depths = reused_tokens((rows[i] for i in order), kept)
    total = sum(len(rows[i].read) - reused for i, reused in zip(order, depths, strict=True))
    # Batches of about equal size: a small last one would read all weights for a few tokens.
    even = total / max(1, -(-total // room.layout.batch_tokens))
    for i, reused in zip(order, depths, strict=True):
        row = rows[i]
        new = len(row.read) - reused
        memory = _packed_bytes(row, reused, room.row_bytes)
        if current and (tokens + new / 2 > even or held + memory > room.memory_budget):
            found.append(Batch(tuple(current), packed=True))
            current, tokens, held = [], 0, 0
        current.append(i)
        tokens, held = tokens + new, held + memory
    return [*found, Batch(tuple(current), packed=True)] if current else found


def _packed_bytes(row: Row, reused: int, row_bytes: RowBytes) -> int:
    prefix = min(reused, len(row.prompt) - 1)
    return row_bytes(prefix, len(row.prompt) - prefix, len(row.target))


def _costs(
    rows: Sequence[Row], batches: Sequence[Batch], kept: ModelInput | None, layout: Layout
) -> tuple[list[int], int, ModelInput | None]:
    """Tokens read for each row, number of forward passes, and tokens that the session keeps afterwards."""
    if not layout.joint:
        return _costs_apart(rows, batches, kept, shared=layout.source_sharing), len(batches), None
    costs = [0] * len(rows)
    forwards = len(batches)
    for batch in batches:
        members = [rows[i] for i in batch.rows]
        if batch.packed:
            for i, row, reused in zip(batch.rows, members, reused_tokens(members, kept), strict=True):
                costs[i] = len(row.read) - reused
            kept = ModelInput(members[-1].read, members[-1].media)
            continue
        width = max(len(row.read) for row in members) - batch.prefix
        for i, row in zip(batch.rows, members, strict=True):
            costs[i] = len(row.read) if layout.ragged else width
        prefix = ModelInput(members[0].prompt[: batch.prefix], members[0].media)
        # A session keeps its prefix while that covers the next one, and otherwise continues from where they diverge.
        known = common_prefix(kept.ids, prefix.ids) if kept is not None and kept.media == prefix.media else 0
        if known < len(prefix.ids):
            costs[batch.rows[0]] += len(prefix.ids) - known
            forwards += 1
            kept = prefix
    return costs, forwards, kept


def _costs_apart(rows: Sequence[Row], batches: Sequence[Batch], kept: ModelInput | None, *, shared: bool) -> list[int]:
    """Tokens read for each row by an encoder and a decoder.

    The target follows a start token, and its last token is not read. A shared prompt is charged to the first row of the
    batch that has it.
    """
    costs = [0] * len(rows)
    encoded = frozenset(() if kept is None else (kept,))
    for batch in batches:
        members = {i: rows[i].source for i in batch.rows}
        sources = frozenset(members.values())
        # A prompt that is alone in its batch is encoded alone.
        known = encoded if len(sources) > 1 or len(encoded) == 1 else frozenset()
        new = {source: i for i, source in reversed(members.items()) if source not in known}
        readers = set(new.values() if shared else members)
        width = max((len(rows[i].prompt) for i in readers), default=0)
        target = max(len(rows[i].target) for i in members)
        for i in members:
            costs[i] = target + (width if i in readers else 0)
        encoded = sources
    return costs
