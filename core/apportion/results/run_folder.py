"""A folder of results that grows line by line, and survives a crash of the process that writes it."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from apportion.errors import InputError, ResultError, shown
from apportion.files import decoded, read_text, write_atomically
from apportion.results.attribution import Attribution
from apportion.results.result_json import fields_of

__all__ = ["FAILED", "OK", "SHARD", "ResultsFolder", "load_results"]

SCHEMA = "apportion.results"
SCHEMA_VERSION = 1
MANIFEST, LINES, LOCK, EVALUATIONS = "run.json", "results.jsonl", ".lock", "evaluations.sqlite3"
OK, FAILED = "ok", "failed"
SHARD = "shard-"
"""Begin of the names of folders in a folder, which hold a part of its rows."""


def load_results(path: str | Path) -> Iterator[tuple[str, Attribution]]:
    """Read the results that ``apportion run`` wrote to a folder, with the ids of their rows; failed rows are omitted.

    The folder may still be in use by a run; an incomplete last line is ignored.

    Raises:
        InputError: ``path`` is not a path.
        ResultError: the folder does not exist, or (when that line is read) a line is damaged.
    """
    if not isinstance(path, str | Path):
        raise InputError(f"load_results takes the folder of a run, not {shown(path)}.")
    lines = Path(path) if Path(path).is_file() else Path(path) / LINES
    found = _lines(_opened(lines), lines)
    return (
        (str(line["id"]), Attribution(**fields_of(line["result"], f"line {n} of {lines}")))
        for n, line in found
        if line["status"] == OK
    )


class ResultsFolder:
    """The output of ``apportion run``: its arguments (``run.json``), and a line for each row that has ended.

    Args:
        path: path of the folder, which may not exist yet.
        whole: the folder of which this one holds a part. They share their scores, so that none is asked for again when
            parts are collected.
    """

    def __init__(self, path: Path, whole: Path | None = None) -> None:
        self.path = path
        self.lines = path / LINES
        self.evaluations = (whole or path) / EVALUATIONS

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Create the folder and lock it against other processes; the lock is released if the process dies.

        Raises:
            InputError: another process holds the lock, the path is not a folder, or the folder contains other files.
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
        """Read the arguments of the run that created the folder; ``None`` for a new folder.

        Raises:
            ResultError: the file cannot be read.
        """
        file = self.path / MANIFEST
        if not file.exists():
            return None
        try:
            found = json.loads(read_text(file))
        except InputError as error:
            raise ResultError(f"{error} Or name another --out, or add --restart.") from error
        except ValueError as error:
            raise ResultError(f"{file} is damaged: {error}. Name another --out, or add --restart.") from error
        if not isinstance(found, dict) or (found.get("schema"), found.get("version")) != (SCHEMA, SCHEMA_VERSION):
            raise ResultError(f"{file} was not written by this version of apportion. Name another --out.")
        return found

    def shards(self) -> list[ResultsFolder]:
        """The folders in this one that hold a part of its rows, by name."""
        found = sorted(path for path in self.path.glob(f"{SHARD}*") if (path / MANIFEST).exists())
        return [ResultsFolder(path, self.path) for path in found]

    def begin(self, facts: Mapping[str, Any]) -> None:
        """Write the arguments of the run, before the first result."""
        text = json.dumps({"schema": SCHEMA, "version": SCHEMA_VERSION, **facts}, ensure_ascii=False, indent=1)
        write_atomically(self.path / MANIFEST, text.encode("utf-8", "backslashreplace"))

    def clear(self) -> None:
        """Delete all results, also those of parts; cached scores are kept, because they do not depend on arguments."""
        for shard in self.shards():
            shard.clear()
        for name in (LINES, MANIFEST):
            (self.path / name).unlink(missing_ok=True)

    def repair(self) -> None:
        """Remove an incomplete last line; only the process that holds the lock may do that."""
        if not self.lines.exists():
            return
        whole = 0
        with self.lines.open("rb+") as file:
            for line in file:
                whole += len(line) if line.endswith(b"\n") else 0
            file.truncate(whole)

    def whole_lines(self) -> Iterator[dict[str, Any]]:
        """Read the complete lines, in the order in which rows ended; of a row with several, the last counts.

        Raises:
            ResultError: a line is damaged.
        """
        if self.lines.exists():
            yield from (line for _, line in _lines(_opened(self.lines), self.lines))

    def ended(self) -> dict[str, dict[str, Any]]:
        """Return the last line of each row that has ended, without its result.

        Raises:
            ResultError: a line is damaged.
        """
        facts = ("id", "row", "hash", "status", "error")
        return {str(line["id"]): {k: line[k] for k in facts if k in line} for line in self.whole_lines()}

    def add(self, line: Mapping[str, Any]) -> None:
        """Append a line, and sync it to disk.

        Raises:
            ResultError: the line contains something that JSON cannot represent, or cannot be written.
        """
        try:
            text = json.dumps(line, ensure_ascii=False, allow_nan=False)
        except (TypeError, ValueError) as error:
            raise ResultError(f"The result cannot be written as JSON: {error}.") from error
        try:
            with self.lines.open("ab") as file:
                file.write(text.encode("utf-8", "backslashreplace") + b"\n")
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise ResultError(f"Cannot write {self.lines}: {error.strerror or error}.") from error

    def _make(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except (FileExistsError, NotADirectoryError) as error:
            file = next(path for path in (self.path, *self.path.parents) if path.exists())
            raise InputError(f"--out {self.path} cannot be a folder: {file} is a file. Name a folder.") from error
        if (self.path / MANIFEST).exists() or (self.path / LOCK).exists():
            return
        ours = (SHARD, EVALUATIONS)
        others = sorted(file.name for file in self.path.iterdir() if not file.name.startswith(ours))
        if others:
            raise InputError(
                f"--out {self.path} is not empty, but has no results of `apportion run` (it contains {others[0]}). "
                "Name a new folder."
            )


def _opened(path: Path) -> BinaryIO:
    try:
        return path.open("rb")
    except OSError as error:
        raise ResultError(f"Cannot read {path}: {error.strerror or error}.") from error


def _lines(file: BinaryIO, path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Complete lines, with their numbers."""
    with file:
        for number, raw in enumerate(file, 1):
            if not raw.endswith(b"\n"):
                return
            try:
                line = json.loads(decoded(raw, "it", path))
                if not isinstance(line, dict) or "id" not in line or line.get("status") not in (OK, FAILED):
                    raise ValueError("it was not written by `apportion run`")
            except ValueError as error:
                why = error.msg if isinstance(error, json.JSONDecodeError) else str(error).removesuffix(".")
                raise ResultError(
                    f"Line {number} of {path} is damaged: {why}. Delete it; its row will then be attributed again."
                ) from error
            yield number, line
