"""Opens a transformers model and its tokenizer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn

from apportion.errors import InputError, ModelError, listing, suggestion
from apportion.files import cache_dir
from apportion.models.coverage import (
    Coverage,
    continues_text,
    open_image_text_model,
    open_language_model,
    reads_apart,
    reads_pictures,
    undisturbed,
)
from apportion.models.dtypes import torch_dtype
from apportion.models.folder import check_folder, has_tokenizer
from apportion.models.hub import hub_options
from apportion.models.processor import is_processor, named_processor, open_processor
from apportion.models.quiet import quiet_transformers
from apportion.models.spec import ALIASES, files_of, is_url
from apportion.models.tokenizer import open_tokenizer
from apportion_backends.torch.adapter import Adapter, adapter_of
from apportion_backends.torch.encoder_decoder import is_encoder_decoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from apportion.protocols.model import ModelSpec

__all__ = ["OpenModel", "holds_encoder_decoder", "holds_pictures", "is_transformers_pair", "open_model"]

NOWHERE = "no-adapter"
"""Name of a subfolder that no model has."""
SAVE_TOKENIZER = "Save the tokenizer there, or name another one with tokenizer=."


@dataclass(frozen=True)
class OpenModel:
    """A causal or encoder–decoder language model, and its tokenizer.

    Attributes:
        model: a ``transformers`` model.
        tokenizer: the model's tokenizer.
        name: the name that results show.
        owned: apportion loaded it, so it may be moved or cast; a user's objects stay as they are unless the user names
            a device or dtype.
        notes: sentences for results, on weights that are random and weights of the checkpoint that are left out.
        processor: the model's processor, if it reads pictures.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str
    owned: bool
    notes: tuple[str, ...] = ()
    processor: Any = None


def is_transformers_pair(spec: ModelSpec) -> bool:
    """True if a spec holds a model of transformers, and a tokenizer or processor."""
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    text = isinstance(spec.tokenizer, PreTrainedTokenizerBase) or is_processor(spec.tokenizer)
    return isinstance(_without_wrapper(spec.objects), PreTrainedModel) and (text or is_processor(spec.processor))


def open_model(spec: ModelSpec, dtype: str | None = None, *, encoder_decoders: bool = False) -> OpenModel:
    """Load a model, or take the user's objects as they are.

    Args:
        spec: spec that names or holds the objects.
        dtype: dtype of the weights that are loaded; ``None`` for fp32.
        encoder_decoders: open encoder–decoder models too. They do not continue the prompt, so they are refused
            otherwise.

    Raises:
        ModelError: it does not exist, cannot be read, or is not a language model of this kind; or it lacks weights that
            its files should have, and the spec does not allow that.
        InputError: objects that are not of transformers.
    """
    if not encoder_decoders and holds_encoder_decoder(spec):
        raise ModelError(
            f"{spec.source} is an encoder–decoder model, which does not continue its prompt. This backend scores "
            "causal language models; use backend='torch'."
        )
    if spec.objects is None:
        return _from_pretrained(spec, dtype)
    if not is_transformers_pair(spec):
        raise InputError(
            "A pair of objects must be (model, tokenizer) or (model, processor) of transformers, in this order; these "
            f"are ({type(spec.objects).__name__}, {type(spec.tokenizer).__name__})."
        )
    _refuse_adapters(spec.objects)
    model: Any = _without_wrapper(spec.objects)
    processor = _processor_of_objects(spec)
    if processor is not None and is_encoder_decoder(model):
        raise ModelError(f"{type(model).__name__} is an encoder–decoder model, whose pictures cannot be explained yet.")
    tokenizer: Any = processor.tokenizer if spec.tokenizer is None or is_processor(spec.tokenizer) else spec.tokenizer
    return OpenModel(model, tokenizer, spec.source, owned=False, processor=processor)


def _processor_of_objects(spec: ModelSpec) -> Any:
    """The processor beside a model object; ``None`` if there is only a tokenizer."""
    if spec.processor is not None:
        return named_processor(spec.processor)
    return spec.tokenizer if is_processor(spec.tokenizer) else None


def holds_encoder_decoder(spec: ModelSpec) -> bool:
    """True if a spec holds or names an encoder–decoder model; false, too, if its files cannot be read."""
    if spec.objects is not None:
        model = _without_wrapper(spec.objects)
        return isinstance(model, nn.Module) and is_encoder_decoder(model)
    try:
        source, options = files_of(spec.source)
        adapter = adapter_of(source, local_files_only=bool(options.get("local_files_only")))
        return reads_apart(source if adapter is None else adapter.base, {**options, **spec.config})
    except Exception:  # loading says what is wrong with them
        return False


def holds_pictures(spec: ModelSpec) -> bool:
    """True if a spec holds or names a model that would be opened with its processor; false if files cannot be read."""
    if spec.objects is not None:
        return spec.processor is not None or is_processor(spec.tokenizer)
    try:
        source, options = files_of(spec.source)
        return reads_pictures(source, {**options, **spec.config})
    except Exception:  # loading says what is wrong with them
        return False


def _without_wrapper(model: object) -> object:
    """The transformers model, with its adapters, that a model of PEFT wraps; any other object as it is."""
    wraps = callable(getattr(model, "get_base_model", None)) and hasattr(model, "peft_config")
    return model.get_base_model() if wraps else model  # type: ignore[attr-defined]


def _refuse_adapters(model: object) -> None:
    """Check that a model of PEFT does nothing around the model that it wraps."""
    if any(getattr(one, "alora_invocation_tokens", None) for one in dict(getattr(model, "peft_config", {})).values()):
        raise ModelError(
            "Adapters of this model begin at invocation tokens (aLoRA), which only its wrapper looks for, and which "
            "perturbed prompts may lack. LoRA adapters without invocation tokens can be explained."
        )
    if getattr(getattr(model, "active_peft_config", None), "is_prompt_learning", False):
        raise ModelError(
            f"The adapters of this {type(model).__name__} are virtual tokens (prompt learning), which belong to no "
            "part of a prompt. Adapters inside the model, such as LoRA, can be explained."
        )


def _from_pretrained(spec: ModelSpec, dtype: str | None) -> OpenModel:
    from transformers import AutoTokenizer

    name = spec.source
    if is_url(name):
        raise ModelError(f"{name} is the address of a server; this backend loads models from files.")
    weights = torch_dtype(dtype or "float32")
    source, options = files_of(name)
    if spec.tokenizer is not None:
        tokenizer = open_tokenizer(spec)
    with _readable_errors(name, source):
        adapter = adapter_of(source, local_files_only=bool(options.get("local_files_only")))
        if adapter is not None and not adapter.usable and (adapter.apart or not spec.allow_missing):
            raise adapter.refusal(name)
        if adapter is None and "gguf_file" not in options and Path(source).exists():
            check_folder(name, Path(source))
        where = source if adapter is None else adapter.base
        processor = _processor_of_files(spec, where, options)
        if spec.tokenizer is None and processor is not None:
            tokenizer = processor.tokenizer
        elif spec.tokenizer is None:
            if "gguf_file" not in options:
                _check_tokenizer_files(name, Path(source))
            with _tokenizer_errors(name, source), quiet_transformers():
                tokenizer = AutoTokenizer.from_pretrained(source, **options)
        settings = dict(spec.config)
        if adapter is not None:
            # transformers would load it too, and report on the adapter instead of the model.
            settings["adapter_kwargs"] = {"subfolder": NOWHERE}
            options = {**options, **hub_options(where)}
        opening = open_language_model if processor is None else open_image_text_model
        model, coverage = opening(where, fill=spec.allow_missing, dtype=weights, **options, **settings)
    notes = _checked(coverage, name if where == source else where, allow_missing=spec.allow_missing)
    if adapter is not None:
        notes += _with_adapter(model, adapter, source, spec)
    return OpenModel(model.eval(), tokenizer, name, owned=True, notes=notes, processor=processor)


def _processor_of_files(spec: ModelSpec, source: str, options: Mapping[str, Any]) -> Any:
    """The processor of a model that reads pictures; ``None`` for models of text, and where files hold none.

    Raises:
        ModelError: one is named for a model of text; or the model reads nothing but text with pictures, and its files
            hold no processor.
    """
    if not reads_pictures(source, {**options, **spec.config}):
        if spec.processor is not None:
            raise ModelError(f"{spec.source} reads text only; leave processor= out.")
        return None
    if spec.processor is not None:
        return named_processor(spec.processor)
    try:
        return open_processor(source, options)
    except ModelError:
        if continues_text(source, {**options, **spec.config}):
            return None
        raise


def _checked(coverage: Coverage, name: str, *, allow_missing: bool) -> tuple[str, ...]:
    """Sentences for results.

    Raises:
        ModelError: the model is not the one in its files, and that is not allowed.
    """
    if not coverage.faithful and not allow_missing:
        raise coverage.error(name)
    return coverage.notes()


def _with_adapter(model: PreTrainedModel, adapter: Adapter, source: str, spec: ModelSpec) -> tuple[str, ...]:
    """Load the adapter into its model.

    Returns:
        Sentences for results.

    Raises:
        ModelError: the adapter cannot be read, or does not fit.
    """
    if not adapter.usable:
        return ("the adapter beside the model was left out, because peft is not installed",)
    with _readable_errors(spec.source, source), undisturbed(seeded=spec.allow_missing):
        report = model.load_adapter(source)
    found = Coverage.of(model, report.to_dict())
    return _checked(found, spec.source, allow_missing=spec.allow_missing)


@contextmanager
def _readable_errors(name: str, source: str) -> Iterator[None]:
    """Turn whatever transformers raises for files it cannot read into a ``ModelError``."""
    try:
        yield
    except ModelError:
        raise
    except ImportError as error:
        raise ModelError(f"The model {name!r} needs a package that is missing: {_first_line(error)}") from error
    except Exception as error:  # damaged files fail in many ways
        ours = Path(source).is_relative_to(cache_dir())
        if type(error).__name__ == "SafetensorError" and not ours:
            raise ModelError(
                f"A weights file (.safetensors) of the model {name!r} is damaged or incomplete: {_first_line(error)} "
                "Download it or save it again."
            ) from error
        what = f"The model {name!r} cannot be loaded: {_first_line(error)}"
        if ours:
            raise ModelError(f"{what} Delete {source} to make it again.") from error
        if Path(source).exists():  # what it needs is the repair of its files, not another name
            raise ModelError(what) from error
        raise ModelError(
            f"{what} {suggestion(name, ALIASES)}Give a folder or hub id of a language model, a .gguf file, a "
            f"(model, tokenizer) pair, or one of: {listing(ALIASES)}."
        ) from error


@contextmanager
def _tokenizer_errors(name: str, source: str) -> Iterator[None]:
    """Say that it is the tokenizer that cannot be loaded from a folder."""
    try:
        yield
    except Exception as error:  # damaged files fail in many ways
        if not Path(source).is_dir():
            raise
        raise ModelError(
            f"The tokenizer in {name!r} cannot be loaded: {_first_line(error)} {SAVE_TOKENIZER}"
        ) from error


def _check_tokenizer_files(name: str, folder: Path) -> None:
    """Refuse a folder without a tokenizer, for which some versions of transformers make one with an empty vocabulary.

    Raises:
        ModelError: no file of the folder belongs to a tokenizer.
    """
    if folder.is_dir() and not has_tokenizer(folder):
        raise ModelError(
            f"The folder {name!r} holds a model but no tokenizer (no tokenizer.json or the like). {SAVE_TOKENIZER}"
        )


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") + "." if lines else f"{type(error).__name__}."
