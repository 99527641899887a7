"""The evaluation cache: no prompt is scored twice with the same model and target, in any process."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from apportion.errors import CapabilityError, InputError, ServerError
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
    from apportion.protocols.row import ModelInput, Row

__all__ = ["EvaluationCache"]

FILE_NAME = "evaluations.sqlite3"
LEAST_BYTES = 64 * 2**10


@dataclass(slots=True)
class _Run:
    """State of one run, or of interleaved runs: the session, the scope of their keys, and the store.

    If ``scope`` is ``None``, the cache is disabled.
    """

    session: Session
    scorers: tuple[tuple[str, str], ...]
    scope: bytes | None
    store: Store
    _identity: str = ""

    def identity(self, request: Request) -> tuple[str, bool]:
        """Hash of what decides texts beside scores, computed once; and true if texts are sampled."""
        from apportion.scoring.writer import identity_of_texts, is_sampled

        self._identity = self._identity or identity_of_texts(self.session)
        return self._identity, is_sampled(self.session, request.generation)


class EvaluationCache:
    """Stores target log-probabilities and texts in a file: ``Explainer(cache=True)`` or ``cache="FILE"``.

    A row is reused only if the weights, code, device, dtype, versions, target and prompt are all the same. See
    the how-to guide "Cache scores and keep a log". Target functions that need logits are not cached. Texts are stored
    with their prompts, whatever the target and its function are.

    Args:
        path: the cache file; ``None`` for ``evaluations.sqlite3`` in the user's cache folder.
        max_bytes: maximum size of the file. Beyond it, the least recently used rows are deleted. At least 64 KiB.

    Raises:
        InputError: ``path`` cannot be a cache, because it is a folder or a file of another kind.
    """

    def __init__(self, path: str | Path | None = None, *, max_bytes: int = 2 * 2**30) -> None:
        self._max_bytes = whole_number("max_bytes", max_bytes, least=LEAST_BYTES)
        self._path = None if path is None else _checked(path)
        self._default = Path(FILE_NAME)
        self._said: set[str] = set()
        # Explainers in several threads may share this object, so the state of interleaved runs is kept per thread.
        self._local = threading.local()
        self._by_request: dict[str, _Run] = {}

    @hookimpl
    def apportion_configure(self, settings: Settings) -> None:
        """Take the user's cache folder from the settings."""
        self._default = settings.cache_dir / FILE_NAME

    @hookimpl
    def apportion_lookup(self, request: Request, session: Session, rows: Sequence[Row]) -> Float[Tensor, "N T"] | None:
        """Return cached rows, with NaN for the others."""
        from apportion_plugins.cache.keys import row_keys
        from apportion_plugins.cache.rows import unpack

        run = self._run(request, session)
        if run.scope is None:
            return None
        keys = row_keys(run.scope, rows)
        known = run.store.get(keys)
        return unpack([known.get(key) for key in keys], len(rows[0].target)) if known else None

    # Outermost wrapper, so that the stored scores are those that the run received.
    @hookimpl(wrapper=True, tryfirst=True)
    def apportion_score(
        self, session: Session, batch: ScoringBatch, request: Request, read: Read
    ) -> Generator[None, Tensor, Tensor]:
        """Store the log-probabilities of the batch if they are finite and have the right shape."""
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

    @hookimpl
    def apportion_lookup_texts(
        self, request: Request, session: Session, prompts: Sequence[ModelInput], samples: Sequence[int]
    ) -> list[list[str | None]] | None:
        """Return stored texts, with ``None`` for the others."""
        from apportion_plugins.cache.texts import text_keys, unpack_text

        run = self._run(request, session)
        if run.scope is None:
            return None
        identity = run.identity(request)
        keys = [text_keys(run.scope, request, identity, prompts, sample) for sample in samples]
        known = run.store.get([key for some in keys for key in some])
        return [[unpack_text(known.get(some[i])) for some in keys] for i in range(len(prompts))]

    @hookimpl
    def apportion_text_written(
        self, request: Request, session: Session, prompt: ModelInput, sample: int, text: str
    ) -> None:
        """Store a text with its prompt."""
        from apportion_plugins.cache.texts import pack_text, text_keys

        run = self._run(request, session)
        if run.scope is not None:
            (key,) = text_keys(run.scope, request, run.identity(request), [prompt], sample)
            # A server's tokenizer would have to be asked.
            known = hasattr(session.tokenizer, "get_vocab")
            shown = str(session.tokenizer.decode(list(prompt.ids))) if known else ""
            run.store.put({key: pack_text(shown, text)})

    # First, so that the file is closed even when another observer fails.
    @hookimpl(tryfirst=True)
    def apportion_on_progress(self, event: ProgressEvent) -> None:
        """Close the file at the end of a run, or of ``attribute_many``."""
        if event.stage in ("items", "close"):
            self._local.many = event.stage == "items"
        if event.stage == "end":
            self._by_request.pop(event.request_id, None)
        if event.stage == "close" or (event.stage == "end" and not getattr(self._local, "many", False)):
            self._close()

    def _run(self, request: Request, session: Session) -> _Run:
        """The run of a request. Its scope is computed on first use, before anything is scored."""
        # A batch may be scored in another thread than the one that looked up its rows.
        known = self._by_request.get(request.id)
        if known is not None and known.session is session:
            return known
        run: _Run | None = getattr(self._local, "run", None)
        if run is None or run.session is not session or run.scorers != request.scorers:
            self._close()
            file = CacheFile(self._path or self._default, owned=self._path is None, report=self._warn)
            scope = self._scope(request, session)
            store = Store(file, self._max_bytes, self._say_once)
            likeness = getattr(session, "likeness", None)
            if scope is not None and likeness is not None:
                from apportion_plugins.cache.likeness import scope_of_model

                scope = scope_of_model(scope, likeness, store)
            run = _Run(session, request.scorers, scope, store)
            self._local.run = run
        self._by_request[request.id] = run
        return run

    def _scope(self, request: Request, session: Session) -> bytes | None:
        from apportion_plugins.cache.keys import scope_of

        try:
            return scope_of(request, session)
        except ServerError:
            raise
        except CapabilityError as error:
            why = str(error)
        except Exception as error:  # checksums inspect third-party modules
            why = f"its checksum could not be computed ({type(error).__name__}: {error})"
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
    """Check a path given by the user. A file that is not a cache is left untouched."""
    found = file_to_write("cache", path)
    if found.exists() and not found.is_file():
        raise InputError(f"cache={str(path)!r} exists but is not a regular file. Name another file.")
    try:
        CacheFile(found, owned=False, report=_ignore).check()
    except DamagedError as error:
        if not error.ours:
            raise InputError(
                f"cache={str(path)!r} is not an apportion evaluation cache: {error}. It was left unchanged; name "
                "another file."
            ) from error
    except UnavailableError:
        pass  # the run warns if this is still the case
    return found


def _ignore(sentence: str) -> None: ...
