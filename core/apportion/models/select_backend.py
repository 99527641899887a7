"""Choice of the backend: the one that was named, or the best that works."""

from __future__ import annotations

from collections.abc import Mapping

from apportion.errors import BackendError, InputError, ModelError, listing, shown
from apportion.hooks.manager import Plugins
from apportion.models.session_check import check_session
from apportion.models.spec import is_url
from apportion.options import PLACEMENT, check_instance, check_options
from apportion.protocols.backend import Available, Backend, Session, Unavailable
from apportion.protocols.model import ModelSpec

__all__ = ["availability_of", "check_memory_budget", "named_backend", "open_session"]


def named_backend(plugins: Plugins, backend: str | Backend, options: Mapping[str, object] | None) -> Backend | None:
    """Look up the backend that was named, and check that it works here; ``None`` for ``"auto"``. No model is opened.

    Options are those of the named backend: the keyword-only parameters of its ``load``.

    Raises:
        UnknownNameError: no backend has this name.
        BackendError: the backend is unavailable; the message gives the reason and says what to install.
        InputError: the backend does not have an option, or options are given without a name.
    """
    check_instance("backend", backend)
    if not isinstance(backend, str | Backend):
        raise InputError(f"backend={shown(backend)} is neither a name nor a Backend.")
    if options is not None and not (isinstance(options, Mapping) and all(isinstance(name, str) for name in options)):
        raise InputError(
            f"backend_options={shown(options)} must be a dict of options by name, such as {{'compile': True}}."
        )
    if backend != "auto":
        chosen = plugins["backends"].get(backend).make() if isinstance(backend, str) else backend
        check_options(f"backend {chosen.info.name!r}", chosen.load, options or {}, apart=PLACEMENT)
        state = availability_of(chosen)
        if isinstance(state, Unavailable):
            raise BackendError(
                f"The backend {chosen.info.name!r} is not available: {state.reason}. {state.hint}".rstrip()
            )
        return chosen
    if options:
        raise InputError(
            f"backend_options={shown(dict(options))} are options of one backend; name it: backend= one of "
            f"{listing(plugins['backends'].names())}."
        )
    return None


def open_session(
    plugins: Plugins,
    backend: Backend | None,
    spec: ModelSpec,
    *,
    device: str | None,
    dtype: str | None,
    memory_budget: int | None,
    options: Mapping[str, object] | None = None,
) -> tuple[Session, tuple[str, ...]]:
    """Let a backend open the model.

    Args:
        plugins: plugins with their backends.
        backend: the result of ``named_backend``. For ``None``, the available backend of highest priority that claims
            and can open the model is used; notes say which ones were passed over.
        spec: the model to open.
        device: device to run on; ``None`` leaves the choice to the backend.
        dtype: dtype of the weights.
        memory_budget: bytes that a batch may take.
        options: options of the backend.

    Returns:
        The session, and sentences about the choice for results.

    Raises:
        BackendError: no backend works here, or the device or dtype is not available.
        ModelError: the model cannot be opened or scored.
        InputError: no backend knows the object.
    """
    place = {"device": device, "dtype": dtype, "memory_budget": memory_budget}
    if backend is not None:
        opened = backend.load(spec, **place, **(options or {}))  # type: ignore[arg-type]
        return check_session(backend.info.name, opened), ()
    candidates: list[Backend] = [entry.make() for entry in plugins["backends"]]
    candidates.sort(key=lambda candidate: -candidate.info.priority)
    notes: list[str] = []
    failure: Exception | None = None
    claimed = False
    for candidate in candidates:
        try:
            claims = candidate.claims(spec)
        except Exception as error:  # a plugin's mistake, which must not keep other backends from running
            notes.append(f"backend {candidate.info.name!r} passed over: its claims() failed ({error!r})")
            continue
        if not claims:
            continue
        claimed = True
        state = availability_of(candidate)
        if isinstance(state, Unavailable):
            notes.append(f"backend {candidate.info.name!r} passed over: {state.reason}")
            continue
        try:
            session = candidate.load(spec, **place)  # type: ignore[arg-type]
        except (BackendError, ModelError) as error:
            notes.append(f"backend {candidate.info.name!r} passed over: {error}")
            failure = failure or error
            continue
        return check_session(candidate.info.name, session), tuple(notes)
    if failure is not None:
        raise failure
    if candidates and not claimed:
        raise _unclaimed(spec, [candidate.info.name for candidate in candidates], notes)
    raise BackendError(f"No backend works here. {' '.join(notes) or 'None is registered.'}")


def check_memory_budget(memory_budget: object) -> None:
    """Check a number of bytes.

    Raises:
        InputError: the budget is not a whole number of at least 1.
    """
    whole = isinstance(memory_budget, int) and not isinstance(memory_budget, bool) and memory_budget >= 1
    if memory_budget is not None and not whole:
        raise InputError(f"memory_budget={shown(memory_budget)} must be a whole number of bytes, such as 512 * 2**20.")


def availability_of(backend: Backend) -> Available | Unavailable:
    """The availability of a backend; one whose ``availability`` raises is unavailable."""
    try:
        return backend.availability()
    except Exception as error:  # a plugin's mistake, which must not keep other backends from running
        return Unavailable(f"its availability() failed ({type(error).__name__}: {error})", "")


def _unclaimed(spec: ModelSpec, backends: list[str], notes: list[str]) -> Exception:
    if spec.objects is not None:
        return InputError(
            "A pair of objects must be (model, tokenizer) of transformers, in this order; these are "
            f"({type(spec.objects).__name__}, {type(spec.tokenizer).__name__})."
        )
    what = "the address of a server" if is_url(spec.source) else "a model of this kind"
    said = "".join(f" ({note})" for note in notes)
    return ModelError(f"No installed backend opens {what}: {spec.source}. Installed: {listing(backends)}.{said}")
