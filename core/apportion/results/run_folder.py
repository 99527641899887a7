"""A folder of results that grows line by line, and survives whatever ends the process that writes it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from apportion.errors import InputError, ResultError
from apportion.files import write_atomically
from apportion.results.attribution import Attribution
from apportion.results.result_json import fields_of

__all__ = ["FAILED", "OK", "ResultsFolder", "load_results"]

SCHEMA = "apportion.results"
SCHEMA_VERSION = 1
MANIFEST, LINES, LOCK, EVALUATIONS = "run.json", "results.jsonl", ".lock", "evaluations.sqlite3"
OK, FAILED = "ok", "failed"


def load_results(path: str | Path) -> Iterator[tuple[str, Attribution]]:
    """The results that ``apportion run`` wrote into a folder, with the ids of their rows; failed rows are left out.

    A folder that is still being written can be read too; a line that is not whole yet is not there yet.

    Raises:
        InputError: ``path`` is no path.
        ResultError: there is no such folder, or (when it is read) a line of it is damaged.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"load_results takes the folder of a run, not {path!r:.80}.")
    lines = Path(path) if Path(path).is_file() else Path(path) / LINES
    found = _lines(_opened(lines), lines)
    return (
        (str(line["id"]), Attribution(**fields_of(line["result"], f"line {n} of {lines}")))
        for n, line in found
        if line["status"] == OK
    )


class ResultsFolder:
    """The output of ``apportion run``: what was asked (``run.json``), and a line for each row that has ended.

    Args:
        path: of the folder; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines = path / LINES
        self.evaluations = path / EVALUATIONS

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Make the folder, and keep other processes out; the lock of one that dies is gone with it.

        Raises:
            InputError: another process has it, it is no folder, or something else is in it.
        """
        self._make()
        lock = FileLock(self.path / LOCK)
        try:
            lock.acquire(blocking=False)
        except Timeout as error:
            raise InputError(
                f"Another process is writing to {self.path}. Wait for it, or name another --out."
            ) from error
        try:
            yield
        finally:
            lock.release()

    def manifest(self) -> dict[str, Any] | None:
        """What was asked when the folder was begun; ``None`` for a new one.

        Raises:
            ResultError: it cannot be read.
        """
        file = self.path / MANIFEST
        if not file.exists():
            return None
        try:
            found = json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ResultError(f"{file} is damaged: {error}. Name another --out, or add --restart.") from error
        if not isinstance(found, dict) or (found.get("schema"), found.get("version")) != (SCHEMA, SCHEMA_VERSION):
            raise ResultError(f"{file} was not written by this version of apportion. Name another --out.")
        return found

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Say what is asked, before the first result."""
        text = json.dumps({"schema": SCHEMA, "version": SCHEMA_VERSION, **facts}, ensure_ascii=False, indent=1)
        write_atomically(self.path / MANIFEST, text.encode("utf-8", "backslashreplace"))

    def clear(self) -> None:
        """Forget all results; what was scored stays known, because it is true whatever is asked."""
        for name in (LINES, MANIFEST):
            (self.path / name).unlink(missing_ok=True)

    def ended(self) -> dict[str, dict[str, Any]]:
        """The last line of each row that has ended, without its result; a line that was cut off is taken away.

        Raises:
            ResultError: a line is damaged.
        """
        if not self.lines.exists():
            return {}
        whole = 0
        with self.lines.open("rb+") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
            file.truncate(whole)
        facts = ("id", "row", "hash", "status", "error")
        return {
            str(line["id"]): {k: line[k] for k in facts if k in line}
            for _, line in _lines(_opened(self.lines), self.lines)
        }

    def add(self, line: Mapping[str, Any]) -> None:
        """Write a line, which is on the disk when this returns.

        Raises:
            ResultError: it holds something that JSON cannot.
        """
        try:
            text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResultError(f"The result cannot be written as JSON: {error}.") from error
        with self.lines.open("ab") as file:
            file.write(text.encode("utf-8", "backslashreplace") + b"\n")
            file.flush()
            os.fsync(file.fileno())

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            file = next(path for path in (self.path, *self.path.parents) if path.exists())
            raise InputError(f"--out {self.path} cannot be a folder: {file} is a file. Name a folder.") from error
        if (self.path / MANIFEST).exists() or (self.path / LOCK).exists():
            return
        others = sorted(file.name for file in self.path.iterdir())
        if others:
            raise InputError(
                f"--out {self.path} is not empty and holds no results of `apportion run` (it holds {others[0]}). "
                "Name a new folder."
            )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ResultError(f"Cannot read {path}: {error.strerror or error}.") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Whole lines with their numbers."""
    with file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(raw)
                if not isinstance(line, dict) or "id" not in line or line.get("status") not in (OK, FAILED):
                    raise ValueError("it is no line of `apportion run`")
            except ValueError as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else error
                raise ResultError(
                    f"Line {number} of {path} is damaged: {why}. Take it out; its row is attributed again then."
                ) from error
            yield number, line
