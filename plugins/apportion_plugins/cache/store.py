"""A key-value store in a file that several processes may share, with a size limit and checksummed rows."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TypeVar

from apportion_plugins.cache.file import CacheFile, DamagedError, UnavailableError, translated

__all__ = ["Store"]

CHUNK = 500
"""Keys per query."""
MOST_DELETED, BYTES_A_DELETION = 5000, 40_000
"""Limits on rows deleted per transaction: few in a small file, and few enough not to keep others waiting."""
PAGES_GIVEN_UP = 5000
"""Pages returned to the disk per transaction."""
CHECK_BYTES = 8
STALE_SECONDS = 3600
"""Resolution of a row's last use; coarse, so that reads seldom write."""
LONGEST_LOG = 16 * 2**20
"""Maximum size of SQLite's write-ahead log in bytes."""
KEPT = 0.9
"""Share of ``max_bytes`` that remains after old rows are deleted."""

Result = TypeVar("Result")


class Store:
    """Stores values by key. If the file cannot be used, the run continues and reads find nothing.

    Args:
        file: the file to use.
        max_bytes: maximum size of the file. Beyond it, the least recently used rows are deleted.
        report: receives a message when the file cannot be used.
        clock: returns seconds since 1970.
    """

    def __init__(
        self,
        file: CacheFile,
        max_bytes: int,
        report: Callable[[str], None],
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._file = file
        self._max_bytes = max_bytes
        self._report = report
        self._clock = clock
        self._database: sqlite3.Connection | None = None
        self._given_up = False

    def get(self, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        """Return the values of those keys that are stored and intact."""
        return self._attempt(lambda database: self._read(database, keys)) or {}

    def put(self, rows: Mapping[bytes, bytes]) -> None:
        """Store values in one transaction."""
        if rows:
            self._attempt(lambda database: self._write(database, rows))

    def first(self, key: bytes, value: bytes) -> bytes:
        """Store a value unless there is one, also of another process; returns the one that is stored."""
        return self._attempt(lambda database: self._add(database, key, value)) or value

    def close(self) -> None:
        """Shrink the file to its limit and close it; idempotent."""
        if self._database is not None and not self._given_up:
            self._attempt(self._clear)
        self._disconnect()

    def _attempt(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        """Run an operation on the file, on a new file if it is damaged, or not at all."""
        try:
            try:
                return self._done(work)
            except DamagedError as error:
                self._disconnect()
                self._file.set_aside(str(error))
                return self._done(work)
        except (DamagedError, UnavailableError) as error:
            self._disconnect()
            self._given_up = True
            self._report(
                f"The evaluation cache {self._file.path} cannot be used: {error}. This run continues without it."
            )
            return None

    def _done(self, work: Callable[[sqlite3.Connection], Result]) -> Result | None:
        if self._given_up:
            return None
        if self._database is None:
            self._database = self._file.open()
        with translated():
            try:
                return work(self._database)
            except sqlite3.Error as error:
                if self._file.is_to_blame(self._database, error):
                    raise DamagedError(str(error), ours=True) from error
                raise

    def _disconnect(self) -> None:
        if self._database is not None:
            with contextlib.suppress(sqlite3.Error):
                self._database.close()
            self._database = None

    def _read(self, database: sqlite3.Connection, keys: Sequence[bytes]) -> dict[bytes, bytes]:
        found: dict[bytes, bytes] = {}
        stale: list[bytes] = []
        now = int(self._clock())
        for chunk in _chunks(keys, CHUNK):
            marks = ",".join("?" * len(chunk))
            query = f"SELECT key, value, used FROM evaluations WHERE key IN ({marks})"
            for key, value, used in database.execute(query, chunk):
                if _is_sound(key, value):
                    found[key] = value[CHECK_BYTES:]
                    if not isinstance(used, int) or used < now - STALE_SECONDS:
                        stale.append(key)
        self._touch(database, stale, now)
        return found

    def _touch(self, database: sqlite3.Connection, keys: Sequence[bytes], now: int) -> None:
        # A failure here is harmless: the values were read correctly.
        with contextlib.suppress(UnavailableError), translated():
            for chunk in _chunks(keys, CHUNK):
                marks = ",".join("?" * len(chunk))
                database.execute(f"UPDATE evaluations SET used = ? WHERE key IN ({marks})", [now, *chunk])

    def _add(self, database: sqlite3.Connection, key: bytes, value: bytes) -> bytes:
        found = self._read(database, [key])
        if key not in found:
            row = (key, _check(key, value) + value, int(self._clock()))
            with _transaction(database):
                database.execute("INSERT OR IGNORE INTO evaluations VALUES (?, ?, ?)", row)
            found = self._read(database, [key])
        return found.get(key, value)

    def _write(self, database: sqlite3.Connection, rows: Mapping[bytes, bytes]) -> None:
        now = int(self._clock())
        with _transaction(database):
            database.executemany(
                "INSERT OR REPLACE INTO evaluations VALUES (?, ?, ?)",
                ((key, _check(key, value) + value, now) for key, value in rows.items()),
            )
        self._clear(database)
        if self._file.log_bytes() > min(LONGEST_LOG, self._max_bytes):
            # SQLite restarts its log only when there are no readers, which may be never; this waits briefly.
            database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def _clear(self, database: sqlite3.Connection) -> None:
        """Delete the least recently used rows until the file is below its limit."""
        if _bytes(database, free=True) <= self._max_bytes:
            return
        count = min(MOST_DELETED, 1 + self._max_bytes // BYTES_A_DELETION)
        while _bytes(database, free=False) > KEPT * self._max_bytes:
            with _transaction(database):
                # In index order: rows that were used together are adjacent, so whole pages become free.
                oldest = "SELECT key FROM evaluations ORDER BY used, key LIMIT ?"
                deleted = database.execute(f"DELETE FROM evaluations WHERE key IN ({oldest})", [count]).rowcount
            if deleted < 1:
                break
        while free := _number(database, "freelist_count"):
            # As a script: a single statement would free one page only, because its rows have no columns.
            database.executescript(f"PRAGMA incremental_vacuum({PAGES_GIVEN_UP})")
            if _number(database, "freelist_count") >= free:
                break  # another process fills pages just as fast
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection) -> Iterator[None]:
    database.execute("BEGIN IMMEDIATE")
    try:
        yield
        database.execute("COMMIT")
    except BaseException:
        with contextlib.suppress(sqlite3.Error):
            database.execute("ROLLBACK")
        raise


def _bytes(database: sqlite3.Connection, *, free: bool) -> int:
    """Size of the file, with or without its free pages."""
    unused = 0 if free else _number(database, "freelist_count")
    return (_number(database, "page_count") - unused) * _number(database, "page_size")


def _number(database: sqlite3.Connection, pragma: str) -> int:
    return int(database.execute(f"PRAGMA {pragma}").fetchone()[0])


def _check(key: bytes, value: bytes) -> bytes:
    return hashlib.blake2b(key + value, digest_size=CHECK_BYTES).digest()


def _is_sound(key: object, value: object) -> bool:
    if not (isinstance(key, bytes) and isinstance(value, bytes)):
        return False
    return value[:CHECK_BYTES] == _check(key, value[CHECK_BYTES:])


def _chunks(items: Sequence[bytes], size: int) -> Iterator[list[bytes]]:
    rest = iter(items)
    while chunk := list(itertools.islice(rest, size)):
        yield chunk
