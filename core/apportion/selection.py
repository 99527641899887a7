"""Which backend runs: the one that was named, or the best that works."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from apportion.backend import Available, Backend, Session, Unavailable, WhiteBox, WhiteBoxSession
from apportion.errors import BackendError, InputError, ModelError, listing
from apportion.models import LoadedModel
from apportion.options import PLACEMENT, check_options
from apportion.plugins import Plugins

__all__ = ["open_session", "white_box_of"]


def open_session(
    plugins: Plugins,
    backend: str | Backend,
    model: LoadedModel,
    *,
    device: str | None,
    dtype: str | None,
    memory_budget: int | None,
    options: Mapping[str, object] | None = None,
) -> tuple[Session, tuple[str, ...]]:
    """Load the model into a backend's session.

    A backend that is named must work. ``"auto"`` takes the available backend of highest priority that can
    load the model, and notes those it passed over. Options are of the backend that was named: the keyword-only
    parameters of its ``load``.

    Returns:
        The session, and sentences about the choice for results.

    Raises:
        UnknownNameError: no backend of that name.
        BackendError: it is unavailable; with the reason and what to install.
        ModelError: the model cannot be scored.
        InputError: an option that the backend does not have, or options and no name.
    """
    whole = isinstance(memory_budget, int) and not isinstance(memory_budget, bool) and memory_budget >= 1
    if memory_budget is not None and not whole:
        raise InputError(f"memory_budget={memory_budget!r} must be a whole number of bytes, such as 512 * 2**20.")
    if not isinstance(backend, str | Backend):
        raise InputError(f"backend={backend!r} is neither a name nor a Backend.")
    if options is not None and not (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
        raise InputError(
            f"backend_options={options!r:.80} must be a dict of options by name, such as {{'compile': True}}."
        )
    if backend != "auto":
        chosen = plugins["backends"].get(backend).make() if isinstance(backend, str) else backend
        check_options(f"backend {chosen.info.name!r}", chosen.load, options or {}, apart=PLACEMENT)
        _require_available(chosen)
        return chosen.load(model, device=device, dtype=dtype, memory_budget=memory_budget, **(options or {})), ()
    if options:
        raise InputError(
            f"backend_options={dict(options)!r} are of one backend; name it: "
            f"backend= one of {listing(plugins['backends'].names())}."
        )
    candidates: list[Backend] = [entry.make() for entry in plugins["backends"]]
    candidates.sort(key=lambda candidate: -candidate.info.priority)
    notes: list[str] = []
    failure: Exception | None = None
    for candidate in candidates:
        state = candidate.availability()
        if isinstance(state, Unavailable):
            notes.append(f"backend {candidate.info.name!r} passed over: {state.reason}")
            continue
        try:
            session = candidate.load(model, device=device, dtype=dtype, memory_budget=memory_budget)
        except (BackendError, ModelError) as error:
            notes.append(f"backend {candidate.info.name!r} passed over: {error}")
            failure = failure or error
            continue
        return session, tuple(notes)
    if failure is not None:
        raise failure
    raise BackendError(f"No backend works here. {' '.join(notes) or 'None is registered.'}")


def _require_available(backend: Backend) -> None:
    state = backend.availability()
    if not isinstance(state, Available):
        raise BackendError(f"The backend {backend.info.name!r} is not available: {state.reason}. {state.hint}".rstrip())


def white_box_of(session: Session) -> Callable[[], WhiteBox] | None:
    """How the game gets at the model's inside; ``None`` where the session does not give it."""
    return session.white_box if isinstance(session, WhiteBoxSession) else None
