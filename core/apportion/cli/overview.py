"""The content of a folder that ``apportion run`` wrote, at a glance."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.text import Text

from apportion.cli.listing import console, print_facts, print_table, stdout_is_unicode
from apportion.cli.wording import in_shell_words, written_targets
from apportion.errors import ResultError
from apportion.phrases import one_line
from apportion.results.run_folder import FAILED, ResultsFolder

__all__ = ["Overview", "overview_of"]

TOP = 3
"""Features shown for each row."""
LONGEST = 24
"""Maximum length of a text in the table."""


@dataclass(frozen=True, slots=True)
class RowFacts:
    """One row: its target, its score and its top features, or its error."""

    id: str
    row: int
    status: str
    target: str = ""
    score: float | None = None
    unit: str = ""
    top: list[tuple[str, float]] = field(default_factory=list)
    evaluations: int = 0
    cached: int = 0
    forwarded_tokens: int = 0
    error: str = ""
    target_end: str | None = None


@dataclass(frozen=True, slots=True)
class Overview:
    """The rows of a folder that have ended, and their counts.

    Attributes:
        folder: its path.
        dataset: the file that the rows came from, if it is known.
        model: name of the model, if it is known.
        rows: number of rows in that file, if it is known.
        items: the rows, in the order of the file.
    """

    folder: str
    dataset: str | None
    model: str | None
    rows: int | None
    items: list[RowFacts]

    @property
    def failed(self) -> int:
        """Number of rows that failed."""
        return sum(item.status == FAILED for item in self.items)

    @property
    def left(self) -> int | None:
        """Number of rows that have not ended, if it is known."""
        return None if self.rows is None else max(0, self.rows - len(self.items))

    def to_dict(self) -> dict[str, Any]:
        """Convert to plain Python values."""
        counts = {"done": len(self.items) - self.failed, "failed": self.failed, "left": self.left}
        sums = {name: self._sum(name) for name in ("evaluations", "cached", "forwarded_tokens")}
        facts = {name: getattr(self, name) for name in ("folder", "dataset", "model", "rows")}
        return {**facts, **counts, **sums, "items": [asdict(item) for item in self.items]}

    def show(self) -> None:
        """Print the counts, and a table with a line for each row."""
        print_facts(self._facts())
        if self.items:
            console().print()
            self._show_rows()

    def _show_rows(self) -> None:
        units = {item.unit for item in self.items if item.unit}
        unit = units.pop() if len(units) == 1 else None
        score = "score" if unit is None else f"score ({unit})"
        header: tuple[str, ...] = ("row", "id", "target", score, "top features")
        rows = [_cells(item, with_unit=unit is None) for item in self.items]
        if all(item.id == str(item.row) for item in self.items):
            header, rows = header[:1] + header[2:], [cells[:1] + cells[2:] for cells in rows]
        print_table(header, rows)

    def _facts(self) -> list[tuple[str, str]]:
        left = "" if not self.left else f", {self.left:,} left"
        cached = self._sum("cached")
        return [
            *([("dataset", self.dataset)] if self.dataset else []),
            *([("model", self.model)] if self.model else []),
            ("rows", f"{len(self.items) - self.failed:,} done, {self.failed:,} failed{left}"),
            *self._targets(),
            ("evaluations", f"{self._sum('evaluations'):,}" + (f", and {cached:,} from the cache" if cached else "")),
            ("tokens", f"{self._sum('forwarded_tokens'):,}"),
        ]

    def _targets(self) -> list[tuple[str, str]]:
        ends = [item.target_end for item in self.items if item.target_end is not None]
        return [("targets", written_targets(len(ends), ends.count("limit")))] if ends else []

    def _sum(self, name: str) -> int:
        return sum(getattr(item, name) for item in self.items)


def overview_of(folder: ResultsFolder) -> Overview:
    """Read a folder, which may be in use by a run.

    Raises:
        ResultError: it is damaged.
    """
    manifest = folder.manifest() or {}
    items = {str(line["id"]): _facts_of(line, folder) for line in folder.whole_lines()}
    return Overview(
        folder=str(folder.path),
        dataset=manifest.get("dataset"),
        model=manifest.get("model"),
        rows=manifest.get("rows"),
        items=sorted(items.values(), key=lambda item: item.row),
    )


def _facts_of(line: Mapping[str, Any], folder: ResultsFolder) -> RowFacts:
    about = {"id": str(line["id"]), "row": int(line.get("row", 0)), "status": line["status"]}
    if line["status"] == FAILED:
        return RowFacts(**about, error=str(line["error"].get("message", "")))
    try:
        result, made = line["result"], line["result"]["provenance"]
        names = [feature["name"] for feature in result["features"]]
        values = [float(value) for value in result["values"]]
        order = sorted(range(len(values)), key=lambda i: -abs(values[i]))[:TOP]
        return RowFacts(
            **about,
            target=result["target_text"],
            target_end=made.get("target_end"),
            score=result["full_value"],
            unit=made.get("score_unit") or made["unit"],
            top=[(names[i], values[i]) for i in order],
            evaluations=made["evaluations"],
            cached=made["cached"],
            forwarded_tokens=made["forwarded_tokens"],
        )
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ResultError(f"Row {line['id']} in {folder.lines} is damaged: {type(error).__name__}: {error}.") from error


def _minus(number: str) -> str:
    """A number with the minus sign of the other views, where stdout can show it."""
    return number.replace("-", "−") if stdout_is_unicode() else number


def _cells(item: RowFacts, *, with_unit: bool) -> tuple[str | Text, ...]:
    if item.status == FAILED:
        return (
            str(item.row),
            one_line(item.id, LONGEST),
            Text("failed", "red"),
            "",
            one_line(in_shell_words(item.error), 3 * LONGEST),
        )
    score = "" if item.score is None else _minus(f"{item.score:#.4g}") + (f" {item.unit}" if with_unit else "")
    top = " · ".join(f"{one_line(name, LONGEST)} {_minus(f'{value:+#.3g}')}" for name, value in item.top)
    return (str(item.row), one_line(item.id, LONGEST), one_line(repr(item.target), LONGEST), score, top)
