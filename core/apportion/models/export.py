"""Export of a model, by a backend that can."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from apportion.errors import BackendError, InputError, listing, shown
from apportion.files import checked_path
from apportion.hooks.manager import load_plugins
from apportion.models.select_backend import availability_of
from apportion.models.spec import model_spec
from apportion.protocols.backend import Unavailable
from apportion.protocols.exports import Export, ExportBackend

__all__ = ["export"]


def export(
    model: object,
    out: str | Path,
    *,
    precision: str = "fp32",
    tokenizer: object = None,
    backend: str = "onnxruntime",
    allow_missing: bool = False,
    say: Callable[[str], None] | None = None,
) -> Export:
    """Export a model to a folder that ``Explainer`` opens without PyTorch's code of the model.

    Args:
        model: a name, hub id, folder or file, or a ``(model, tokenizer)`` pair, as for ``Explainer``.
        out: folder that is empty or does not exist.
        precision: ``"fp32"``, or ``"int8"`` for weights and activations of 8 bits, whose fidelity is measured.
        tokenizer: the tokenizer, if it does not come with the model.
        backend: name of the backend that the export is for.
        allow_missing: export a model whose files lack some of its weights, filled with random numbers.
        say: called with a sentence at the beginning of each step; ``print``, for example.

    Returns:
        The folder, its size, and how much the exported model differs.

    Raises:
        ModelError: the model cannot be opened or exported, or its export gives other numbers.
        BackendError: the backend cannot export, or is not available.
        InputError: the folder holds something, or the precision is unknown.
        UnknownNameError: no backend has this name.
    """
    folder = checked_path("export", out).expanduser()
    if say is not None and not callable(say):
        raise InputError(f"say={shown(say)} must be a function of a sentence, such as print.")
    backends = load_plugins()["backends"]
    chosen = backends.get(backend).make()
    if not isinstance(chosen, ExportBackend):
        able = [entry.name for entry in backends if isinstance(entry.make(), ExportBackend)]
        raise BackendError(f"The backend {backend!r} does not export models. Those that do: {listing(able) or 'none'}.")
    state = availability_of(chosen)
    if isinstance(state, Unavailable):
        raise BackendError(f"The backend {backend!r} is not available: {state.reason}. {state.hint}".rstrip())
    spec = model_spec(model, tokenizer, allow_missing=allow_missing)
    return chosen.export(spec, folder, say=say or _silent, precision=precision)


def _silent(_: str) -> None: ...
