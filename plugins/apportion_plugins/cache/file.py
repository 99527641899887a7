"""The cache file: created, validated, and moved aside when damaged; safe for several processes."""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

__all__ = ["CacheFile", "DamagedError", "UnavailableError", "translated"]

APPLICATION_ID = 0x6170706F  # "appo"
LAYOUT = 1
"""Version of the table layout, stored as SQLite's ``user_version``."""
TIMEOUT = 5.0
"""Seconds to wait for another process."""
ROOM = 2**20
"""Free bytes above which the disk does not count as full."""
MAGIC = b"SQLite format 3\0"

DAMAGE = frozenset(
    {
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_ERROR,  # missing tables or columns
        sqlite3.SQLITE_CONSTRAINT,  # an index that contradicts its table
        sqlite3.SQLITE_MISMATCH,
        sqlite3.SQLITE_TOOBIG,
    }
)
"""SQLite errors that mean a damaged file; all others are problems of the disk, or temporary."""


class DamagedError(Exception):
    """The file is not a readable cache; the message says why.

    Attributes:
        ours: the file was created by apportion.
    """

    def __init__(self, why: str, *, ours: bool) -> None:
        super().__init__(why)
        self.ours = ours


class UnavailableError(Exception):
    """The file cannot be used at the moment (locked, disk full, no permission); the message says why."""


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Translate errors of SQLite and the operating system.

    Raises:
        DamagedError: the file, opened as a cache of apportion, is damaged.
        UnavailableError: any other error.
    """
    try:
        yield
    except sqlite3.Error as error:
        if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & 0xFF in DAMAGE:
            raise DamagedError(str(error), ours=True) from error
        raise UnavailableError(str(error)) from error
    except OSError as error:
        raise UnavailableError(str(error)) from error


class CacheFile:
    """One SQLite file, with a lock file next to it that guards its creation and replacement.

    Args:
        path: the cache file.
        owned: any file at ``path`` may be moved aside; otherwise only a cache of apportion may.
        report: receives messages for the user.
    """

    def __init__(self, path: Path, *, owned: bool, report: Callable[[str], None]) -> None:
        # SQLite keeps -wal and -shm next to the target of a symbolic link.
        self.path = Path(os.path.realpath(path))
        self._owned = owned
        self._report = report
        self._identity: tuple[int, int] | None = None

    def check(self) -> None:
        """Check the file, if there is one.

        Raises:
            DamagedError: it is not a readable cache.
            UnavailableError: it cannot be opened at the moment.
        """
        with translated():
            if self.path.exists():
                with contextlib.closing(self._connected()) as database:
                    self._inspect(database)

    def open(self) -> sqlite3.Connection:
        """Open a connection to a readable cache, created if needed.

        Raises:
            DamagedError: the file is not a readable cache and must not be moved aside.
            UnavailableError: the file cannot be used at the moment.
        """
        with translated():
            if self._owned:
                self._make_folder()
            with self._locked():
                try:
                    with translated():
                        database = self._ready()
                except DamagedError as error:
                    if not (self._owned or error.ours):
                        raise
                    self._move_aside(str(error))
                    database = self._ready()
                self._identity = self._present()
                return database

    def log_bytes(self) -> int:
        """Size of SQLite's write-ahead log."""
        return _size(self._beside("-wal"))

    def is_to_blame(self, database: sqlite3.Connection, error: sqlite3.Error) -> bool:
        """True if an error that blames the disk is caused by a damaged file; SQLite reports both alike."""
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_READONLY:
            return all(os.access(place, os.W_OK) for place in (self.path, self.path.parent))
        if code == sqlite3.SQLITE_FULL and shutil.disk_usage(self.path.parent).free > ROOM:
            return bool(database.execute("PRAGMA quick_check(1)").fetchone() != (b"ok",))
        return False

    def set_aside(self, why: str) -> None:
        """Move the file aside, unless another process has replaced it since ``open``; close connections first.

        Raises:
            UnavailableError: the file cannot be renamed.
        """
        with translated(), self._locked():
            if self._identity is not None and self._present() == self._identity:
                self._move_aside(why)

    def _ready(self) -> sqlite3.Connection:
        database = self._connected()
        try:
            if not self._inspect(database):
                _create(database)
            database.execute("PRAGMA journal_mode = WAL")
            database.execute("PRAGMA synchronous = NORMAL")
        except BaseException:
            database.close()
            raise
        return database

    def _make_folder(self) -> None:
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileExistsError as error:
            raise UnavailableError(f"{folder} is not a folder") from error

    def _connected(self) -> sqlite3.Connection:
        # Sessions with several lanes score batches from several threads, one at a time.
        database = sqlite3.connect(self.path, timeout=TIMEOUT, isolation_level=None, check_same_thread=False)
        database.text_factory = bytes  # only damaged files contain text
        return database

    def _inspect(self, database: sqlite3.Connection) -> bool:
        """True for a cache of apportion, ``False`` for an empty file.

        Raises:
            DamagedError: anything else.
        """
        try:
            if not _number(database, "PRAGMA page_count"):
                return False
            application = _number(database, "PRAGMA application_id")
            layout = _number(database, "PRAGMA user_version")
            tables = _number(database, "SELECT count(*) FROM sqlite_master WHERE name = 'evaluations'")
        except sqlite3.DatabaseError as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF not in DAMAGE:
                raise
            raise DamagedError(str(error), ours=self._was_ours()) from error
        if application != APPLICATION_ID:
            raise DamagedError("it is a database of another application", ours=False)
        if layout != LAYOUT:
            raise DamagedError(f"it has layout {layout}, and this apportion has layout {LAYOUT}", ours=True)
        if not tables:
            raise DamagedError("it has no table of evaluations", ours=True)
        # Another process may be shrinking the file at this moment, but hardly three times in a row.
        if all(self._is_short(database) for _ in range(3)):
            raise DamagedError("it is shorter than it should be", ours=True)
        return True

    def _is_short(self, database: sqlite3.Connection) -> bool:
        """True if the file has fewer bytes than its pages need; on writing, SQLite would report a full disk."""
        wanted = _number(database, "PRAGMA page_count") * _number(database, "PRAGMA page_size")
        # In this order: pages that leave the log are already in the file.
        return wanted > self.log_bytes() + _size(self.path)

    def _beside(self, suffix: str) -> Path:
        return Path(f"{self.path}{suffix}")

    def _was_ours(self) -> bool:
        """True if the damaged header still identifies a cache of apportion."""
        with self.path.open("rb") as file:
            header = file.read(72)
        return header.startswith(MAGIC) and header[68:] == APPLICATION_ID.to_bytes(4, "big")

    def _present(self) -> tuple[int, int] | None:
        """Identity of the file at the path; ``None`` if there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _move_aside(self, why: str) -> None:
        aside = _free_name(self.path)
        for suffix in ("-wal", "-shm", "-journal", ""):
            part = self._beside(suffix)
            if part.exists():
                part.rename(f"{aside}{suffix}")
        self._report(
            f"The evaluation cache {self.path} cannot be read: {why}. It was moved to {aside} and a new one was "
            "started. Delete the old file if you do not need it."
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Admit one process at a time; the lock is released when its process dies."""
        lock = FileLock(f"{self.path}.lock", timeout=TIMEOUT)
        try:
            lock.acquire()
        except (OSError, Timeout) as error:
            raise UnavailableError(f"{error} ({self.path}.lock)") from error
        try:
            yield
        finally:
            lock.release()


def _create(database: sqlite3.Connection) -> None:
    # Must be set before the first page is written, so that the file can shrink.
    database.execute("PRAGMA auto_vacuum = INCREMENTAL")
    # One transaction: a process that dies here leaves an empty file.
    database.executescript(
        f"""
        BEGIN IMMEDIATE;
        PRAGMA application_id = {APPLICATION_ID};
        PRAGMA user_version = {LAYOUT};
        CREATE TABLE evaluations (key BLOB PRIMARY KEY, value BLOB NOT NULL, used INTEGER NOT NULL) WITHOUT ROWID;
        CREATE INDEX evaluations_by_use ON evaluations (used);
        COMMIT;
        """
    )


def _free_name(path: Path) -> Path:
    stamp = f"{datetime.now(UTC):%Y%m%dT%H%M%SZ}"
    names = (f"{path.name}.set-aside-{stamp}{'' if i == 0 else f'-{i}'}" for i in range(10**6))
    return next(found for name in names if not (found := path.with_name(name)).exists())


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _number(database: sqlite3.Connection, query: str) -> int:
    return int(database.execute(query).fetchone()[0])
