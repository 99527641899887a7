"""The evaluation cache: no prompt is scored twice with the same model and target, in whatever process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apportion.errors import CapabilityError, InputError
from apportion.files import file_to_write
from apportion.hooks.hookspecs import Settings, hookimpl
from apportion.options import whole_number
from apportion.protocols.progress import ProgressEvent
from apportion.protocols.targets import Needs
from apportion_plugins.cache.file import CacheFile, DamagedError, UnavailableError
from apportion_plugins.cache.store import Store

if TYPE_CHECKING:
    from jaxtyping import Float
    from torch import Tensor

    from apportion.protocols.backend import Session
    from apportion.protocols.batch import ScoringBatch
    from apportion.protocols.read import Read
    from apportion.protocols.request import Request
    from apportion.protocols.row import Row

__all__ = ["EvaluationCache"]

FILE_NAME = "evaluations.sqlite3"
LEAST_BYTES = 64 * 2**10


@dataclass(frozen=True, slots=True)
class _Run:
    """One run, or many that take turns: the part of all addresses that they share, and the connection.

    Without a scope there is no cache.
    """

    session: Session
    scorers: tuple[tuple[str, str], ...]
    scope: bytes | None
    store: Store


class EvaluationCache:
    """Remembers log-probabilities of targets in a file: ``Explainer(cache=True)`` or ``cache="FILE"``.

    A row is found again only with the same weights, code, device, dtype and versions, target and prompt; see
    the how-to guide "Cache scores and keep a log". Target functions that need logits are not cached.

    Args:
        path: of the file; ``None`` for ``evaluations.sqlite3`` in the user's cache folder.
        max_bytes: the file's size above which the least recently used rows go; at least 64 KiB.

    Raises:
        InputError: a path that cannot be a cache: a folder, a file of something else.
    """

    def __init__(self, path: str | Path | None = None, *, max_bytes: int = 2 * 2**30) -> None:
        self._max_bytes = whole_number("max_bytes", max_bytes, least=LEAST_BYTES)
        self._path = None if path is None else _checked(path)
        self._default = Path(FILE_NAME)
        self._said: set[str] = set()
        # An object may serve explainers in several threads: what runs that take turns share stays in theirs.
        self._local = threading.local()
        self._by_request: dict[str, _Run] = {}

    @hookimpl
    def apportion_configure(self, settings: Settings) -> None:
        """Learn where the user's cache folder is."""
        self._default = settings.cache_dir / FILE_NAME

    @hookimpl
    def apportion_lookup(self, request: Request, session: Session, rows: Sequence[Row]) -> Float[Tensor, "N T"] | None:
        """Rows that are known, NaN elsewhere."""
        from apportion_plugins.cache.keys import row_keys
        from apportion_plugins.cache.rows import unpack

        run = self._run(request, session)
        if run.scope is None:
            return None
        keys = row_keys(run.scope, rows)
        known = run.store.get(keys)
        return unpack([known.get(key) for key in keys], len(rows[0].target)) if known else None

    # Outside the other wrappers, so that what is remembered is what the run got.
    @hookimpl(wrapper=True, tryfirst=True)
    def apportion_score(
        self, session: Session, batch: ScoringBatch, request: Request, read: Read
    ) -> Generator[None, Tensor, Tensor]:
        """Remember log-probabilities that were scored, if they are finite and as many as they have to be."""
        from apportion_plugins.cache.keys import row_keys
        from apportion_plugins.cache.rows import pack

        scored = yield
        if read.needs is not Needs.LOG_PROBS or getattr(scored, "shape", None) != (batch.n_rows, batch.n_targets):
            return scored
        run = self._run(request, session)
        if run.scope is not None:
            packed = pack(scored, [len(row.target) for row in batch.rows])
            rows = zip(row_keys(run.scope, batch.rows), packed, strict=True)
            run.store.put({key: row for key, row in rows if row is not None})
        return scored

    # First, so that the file is closed even when another observer fails.
    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Close the file at the end of a run, or of all that take turns."""
        if event.stage in ("items", "close"):
            self._local.many = event.stage == "items"
        if event.stage == "end":
            self._by_request.pop(event.request_id, None)
        if event.stage == "close" or (event.stage == "end" and not getattr(self._local, "many", False)):
            self._close()

    def _run(self, request: Request, session: Session) -> _Run:
        """The run of a request; its scope is computed when it is first asked for, which is before scoring."""
        # A batch may come from another thread than the one that looked its rows up.
        known = self._by_request.get(request.id)
        if known is not None and known.session is session:
            return known
        run: _Run | None = getattr(self._local, "run", None)
        if run is None or run.session is not session or run.scorers != request.scorers:
            self._close()
            file = CacheFile(self._path or self._default, owned=self._path is None, report=self._warn)
            scope = self._scope(request, session)
            run = _Run(session, request.scorers, scope, Store(file, self._max_bytes, self._say_once))
            self._local.run = run
        self._by_request[request.id] = run
        return run

    def _scope(self, request: Request, session: Session) -> bytes | None:
        from apportion_plugins.cache.keys import scope_of

        try:
            return scope_of(request, session)
        except CapabilityError as error:
            why = str(error)
        except Exception as error:  # modules of any kind are asked for their settings
            why = f"a checksum of the model cannot be taken ({type(error).__name__}: {error})"
        self._say_once(
            "The evaluation cache is disabled for this run: the model may have changed in ways that a checksum cannot "
            f"see: {why}."
        )
        return None

    def _close(self) -> None:
        run: _Run | None = getattr(self._local, "run", None)
        self._local.run = None
        if run is not None:
            run.store.close()

    def _say_once(self, sentence: str) -> None:
        if sentence not in self._said:
            self._said.add(sentence)
            self._warn(sentence)

    def _warn(self, sentence: str) -> None:
        warnings.warn(sentence, RuntimeWarning, stacklevel=2)


def _checked(path: str | Path) -> Path:
    """A path that the user named: what lies there is a cache, or is not touched."""
    found = file_to_write("cache", path)
    if found.exists() and not found.is_file():
        raise InputError(f"cache={str(path)!r} is neither a file nor free. Name another file.")
    try:
        CacheFile(found, owned=False, report=_ignore).check()
    except DamagedError as error:
        if not error.ours:
            raise InputError(
                f"cache={str(path)!r} is not an evaluation cache of apportion: {error}. It was left as it is; name "
                "another file."
            ) from error
    except UnavailableError:
        pass  # a run says so, if it is still true then
    return found


def _ignore(sentence: str) -> None: ...
