"""Specs of models from the arguments of ``Explainer``, and the files behind them. Nothing is loaded here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from apportion.errors import InputError, ModelError, shown
from apportion.protocols.model import ModelSpec

__all__ = ["ALIASES", "check_address", "files_of", "is_url", "model_spec"]

ALIASES = ("smollm2", "shapes")
"""Names of models that apportion fetches, or brings along."""


def model_spec(
    model: object, tokenizer: object = None, processor: object = None, *, allow_missing: bool = False
) -> ModelSpec:
    """Make the spec of a model that a user passed to ``Explainer``.

    Args:
        model: ``"smollm2"``, a hub id, a folder, a ``.gguf`` file, a URL, a ``(model, tokenizer)`` pair of objects, a
            model object together with ``tokenizer``, or a ``ModelSpec``.
        tokenizer: an object, or the name or folder of one; ``None`` for the model's own.
        processor: the same, for models that read more than text.
        allow_missing: open the model even if its files lack some of its weights.

    Raises:
        InputError: ``model`` is of another type.
    """
    if isinstance(model, ModelSpec):
        if not isinstance(model.source, str) or not model.source:
            raise InputError(f"The source of a ModelSpec must be a non-empty string, not {model.source!r:.60}.")
        check_address(model.source)
        for name, own, given in (
            ("tokenizer", model.tokenizer, tokenizer),
            ("processor", model.processor, processor),
        ):
            if own is not None and given is not None:
                raise InputError(f"The {name} is given twice: in the ModelSpec and as {name}=.")
        return replace(
            model,
            tokenizer=model.tokenizer if tokenizer is None else tokenizer,
            processor=model.processor if processor is None else processor,
            allow_missing=model.allow_missing or allow_missing,
        )
    if isinstance(model, tuple) and len(model) == 2:
        if tokenizer is not None:
            raise InputError("The tokenizer is given twice: in the (model, tokenizer) pair and as tokenizer=.")
        model, tokenizer = model
        if model is None or isinstance(model, int):
            raise InputError(
                f"The first of a pair (model, tokenizer) is a model object, and not {shown(model, 60)}. Write "
                "Explainer('smollm2') for the demo model, or Explainer(name, tokenizer=…)."
            )
        if tokenizer is None and _name_of(model) == type(model).__name__:
            raise InputError(
                "The tokenizer of the pair (model, tokenizer) is None, and the model has no name to find one by. Give "
                "a tokenizer, or its name."
            )
        return ModelSpec(_name_of(model), tokenizer, processor, objects=model)
    if isinstance(model, str | Path):
        check_address(str(model))
        if not str(model):
            raise InputError("The name of the model is an empty string. Write 'smollm2' for the demo model.")
        return ModelSpec(str(model), tokenizer, processor, allow_missing=allow_missing)
    if (tokenizer is not None or processor is not None) and model is not None:
        return ModelSpec(_name_of(model), tokenizer, processor, objects=model)
    what = "None" if model is None else f"this {type(model).__name__}: {' '.join(shown(model, 60).split())}"
    raise InputError(
        f"A model is a name, a path, a (model, tokenizer) pair, or an object with tokenizer=, and not {what}. "
        "Write Explainer('smollm2') for the demo model. Objects come in pairs: Explainer((model, tokenizer))."
    )


def is_url(source: str) -> bool:
    """True if a source is an address, such as that of a server, and not a name or file."""
    return "://" in source


def check_address(source: str) -> None:
    """Refuse an address with a password, which would appear in results; the message does not show it.

    Raises:
        InputError: it has one.
    """
    if not is_url(source):
        if re.fullmatch(r"[\w.-]+:\d+(/.*)?", source):
            raise InputError(f"{source!r} looks like the address of a server; write http://{source}.")
        return
    try:
        place = urlsplit(source).netloc
    except ValueError as error:
        raise InputError(f"{source!r} is not an address: {error}.") from None
    if "@" in place:
        raise InputError(
            "An address must not hold a name or password, because results show it. The backend 'openai' takes a key "
            "from the environment variable APPORTION_API_KEY, or from a file (key_file=)."
        )


def files_of(source: str) -> tuple[str, Mapping[str, Any]]:
    """The folder or hub id behind a source, and the options that ``from_pretrained`` needs for it.

    The demo model is fetched, and a GGUF file converted, if that was not done before.

    Raises:
        ModelError: there is no such file or folder, or the model cannot be fetched.
    """
    if source == "shapes":
        from apportion.models.shapes import shapes_model_path

        return str(shapes_model_path()), {}
    if source in ALIASES:
        from apportion.models.demo import demo_model_path

        return str(demo_model_path()), {}
    path = Path(source).expanduser()
    if path.suffix.lower() == ".gguf" and not path.is_dir():
        if not path.is_file():
            raise ModelError(f"There is no file {path}.")
        from apportion.models.gguf import converted

        folder = converted(path)
        return (str(path.parent), {"gguf_file": path.name}) if folder is None else (str(folder), {})
    if path.exists():
        return str(path), {}
    if path.is_absolute() or source.startswith((".", "~")):
        raise ModelError(f"There is no folder or file {path}.")
    from apportion.models.hub import hub_options

    return source, hub_options(source, ALIASES)


def _name_of(model: object) -> str:
    name = getattr(getattr(model, "config", None), "name_or_path", None)
    return name if isinstance(name, str) and name else type(model).__name__
