"""A log of runs: one line of JSON for each, appended to a file that several processes may share."""

from __future__ import annotations

import json
import math
import os
import time
import warnings
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.files import file_to_write
from apportion.hooks.hookspecs import hookimpl
from apportion.protocols.progress import ProgressEvent
from apportion.results.provenance import versions

if TYPE_CHECKING:
    from apportion.protocols.backend import Session, SessionInfo
    from apportion.protocols.inputs import InputAdapter
    from apportion.protocols.request import Request
    from apportion.rendering.context import AdaptContext
    from apportion.results.attribution import Attribution

__all__ = ["SCHEMA", "SCHEMA_VERSION", "RunLog"]

SCHEMA = "apportion.run"
SCHEMA_VERSION = 1
WRITING_SECONDS = 0.05
"""What another process may take between the beginning of a line and its end."""


@dataclass(slots=True)
class _Run:
    """What is known of a run so far."""

    prompt: object = None
    adapter: InputAdapter | None = None
    request: Request | None = None
    session: SessionInfo | None = None
    attribution: Attribution | None = None
    evaluations: int = 0
    batches: int = 0
    stage: str = ""
    since: float = 0.0
    generating: float = 0.0
    scoring: float = 0.0

    def turn(self, stage: str) -> None:
        """From here on, time belongs to another stage."""
        now = time.perf_counter()
        if self.stage == "generate":
            self.generating += now - self.since
        elif self.stage == "score":
            self.scoring += now - self.since
        self.stage, self.since = stage, now


class RunLog:
    """Appends a line of JSON about each run: ``Explainer(run_log="runs.jsonl")``.

    A run that fails or is interrupted is logged too, with what is known of it; what is not known is ``null``.
    A line that cannot be written warns and never ends a run. The line holds the prompt and the target.

    Args:
        path: of the file, which is made if need be, in a folder that exists.

    Raises:
        InputError: a path that cannot be a file: a folder, or in a folder that does not exist.
    """

    def __init__(self, path: str | Path) -> None:
        self._path = file_to_write("run_log", path)
        self._runs: dict[str, _Run] = {}

    @hookimpl(wrapper=True, tryfirst=True)
    def apportion_adapt_input(
        self, prompt: object, context: AdaptContext
    ) -> Generator[None, InputAdapter | None, InputAdapter | None]:
        """The first that is known of a run is its prompt, the second its features."""
        run = self._run(context.request_id)
        run.prompt = prompt
        run.adapter = yield
        return run.adapter

    @hookimpl(tryfirst=True)
    def apportion_before_run(self, request: Request) -> None:
        """Everything is resolved; a target has been generated."""
        run = self._run(request.id)
        run.turn("")
        run.request, run.adapter = request, request.adapter

    @hookimpl(tryfirst=True)
    def apportion_lookup(self, request: Request, session: Session) -> None:
        """See where the run takes place; nothing is known."""
        self._run(request.id).session = session.info

    @hookimpl(tryfirst=True)
    def apportion_after_run(self, request: Request, attribution: Attribution) -> None:
        """Keep the result's provenance."""
        self._run(request.id).attribution = attribution

    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Count batches and time; write the line at the end."""
        if event.stage in ("items", "close"):
            return
        run = self._run(event.request_id)
        if event.stage != "end":
            run.evaluations = max(run.evaluations, event.evaluations)
            run.batches += event.stage == "score" and event.done > 0
            run.turn("" if event.stage == "score" and event.done >= event.total else event.stage)
            return
        run.turn("")
        run.request = run.request or event.request
        self._runs.pop(event.request_id, None)
        try:
            _append(self._path, _line(_record(run, event)))
        except OSError as error:
            warnings.warn(
                f"The run log {self._path} cannot be written: {error.strerror or error}. The run is not in it.",
                RuntimeWarning,
                stacklevel=2,
            )

    def _run(self, request_id: str) -> _Run:
        """The facts of a run that is under way."""
        return self._runs.setdefault(request_id, _Run())


def _record(run: _Run, end: ProgressEvent) -> dict[str, Any]:
    """The facts of a run, in the order of a line."""
    provenance = run.attribution.provenance if run.attribution else None
    where = provenance or run.session
    return {
        "schema": SCHEMA,
        "version": SCHEMA_VERSION,
        "status": _status(end.error),
        "error": None if end.error is None else {"type": type(end.error).__name__, "message": str(end.error)},
        "started": (datetime.now(UTC) - timedelta(seconds=end.seconds)).isoformat(timespec="milliseconds"),
        "request": _request(run),
        "evaluations": run.evaluations,
        "cached": provenance.cached if provenance else None,
        "forwarded_tokens": provenance.forwarded_tokens if provenance else None,
        "batches": run.batches,
        "seconds": _seconds(run, end.seconds),
        "model": run.request.model if run.request else None,
        "fingerprint": provenance.fingerprint if provenance else None,
        "backend": where.backend if where else None,
        "device": where.device if where else None,
        "dtype": where.dtype if where else None,
        "versions": versions(),
        "notes": list(provenance.notes) if provenance else None,
    }


def _status(error: BaseException | None) -> str:
    if error is None:
        return "ok"
    # attribute_many may end before all of its runs.
    return "interrupted" if isinstance(error, KeyboardInterrupt | GeneratorExit) else "failed"


def _request(run: _Run) -> dict[str, Any]:
    """What was asked for, as far as it was resolved."""
    request = run.request
    target = request.target if request else None
    return {
        "prompt": _prompt(run),
        "features": [feature.name for feature in run.adapter.features] if run.adapter else None,
        "target": target and {"text": target.text, "ids": target.ids, "generated": target.generated},
        "method": request and request.method_name,
        "options": request and request.all_options,
        "target_fn": request and request.target_fn_name,
        "budget": request and request.budget,
        "seed": request and request.seed,
    }


def _prompt(run: _Run) -> dict[str, Any] | None:
    """The prompt's type and full text, or its length where the adapter shows no text."""
    if run.prompt is None:
        return None
    segments = getattr(run.adapter, "segments", ()) if run.adapter else ()
    text = "".join(segment.text for segment in segments) if segments else None
    tokens = len(run.request.renderer.full().ids) if run.request and text is None else None
    return {"type": type(run.prompt).__name__, "text": text, "tokens": tokens}


def _seconds(run: _Run, total: float) -> dict[str, float]:
    other = max(0.0, total - run.generating - run.scoring)
    spent = {"total": total, "generating": run.generating, "scoring": run.scoring, "other": other}
    return {name: round(seconds, 4) for name, seconds in spent.items()}


def _line(record: Mapping[str, Any]) -> bytes:
    """One line of JSON. What some readers take for line breaks is escaped, and so is what is not Unicode."""
    text = json.dumps(_plain(record), ensure_ascii=False, allow_nan=False)
    for character in "\x85\u2028\u2029":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return text.encode("utf-8", "backslashreplace") + b"\n"


def _plain(value: Any) -> Any:
    """What JSON can hold; anything else as its ``repr``."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str | bytes):
        return [_plain(item) for item in value]
    return repr(value)


def _append(path: Path, line: bytes) -> None:
    """Write a line at the end in one piece, after a line break if the last line was cut off.

    Raises:
        OSError: it cannot be written, or not whole.
    """
    if _is_cut(path):
        line = b"\n" + line
    # Without waiting: a pipe that nobody reads must not hold up a run.
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, flags, 0o666)
    try:
        written = os.write(handle, line)
    finally:
        os.close(handle)
    if written < len(line):
        raise OSError(f"only {written} of {len(line)} bytes were written; is the disk full?")


def _is_cut(path: Path) -> bool:
    """Whether the last line has no end, and nobody is about to write it."""
    end = _end(path)
    if end is None or end[1] == b"\n":
        return False
    time.sleep(WRITING_SECONDS)
    return _end(path) == end


def _end(path: Path) -> tuple[int, bytes] | None:
    """The length and the last byte of a file that is not empty."""
    if not path.is_file() or not path.stat().st_size:
        return None
    with path.open("rb") as file:
        length = file.seek(-1, os.SEEK_END)
        return length, file.read(1)
