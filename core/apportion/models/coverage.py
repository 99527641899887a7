"""Check that a checkpoint has every weight of the model that it is opened as.

transformers fills gaps with random numbers. An explanation of such a model would be meaningless.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from apportion.errors import ModelError, listing
from apportion.models.quiet import quiet_transformers, without_load_report

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = [
    "Coverage",
    "continues_text",
    "open_causal_model",
    "open_image_text_model",
    "open_language_model",
    "reads_apart",
    "reads_pictures",
    "undisturbed",
]

SEED = 0
"""Seed of the random numbers that fill gaps, so that two starts give equal scores."""

FILE_OPTIONS = ("revision", "subfolder", "cache_dir", "token", "local_files_only", "trust_remote_code", "code_revision")
"""Options of ``from_pretrained`` on where the files are."""

WRAPPERS: Mapping[str, tuple[str, str]] = {
    "module.": ("torch.nn.DataParallel", "model.module.save_pretrained(…)"),
    "_orig_mod.": ("torch.compile", "model._orig_mod.save_pretrained(…)"),
    "base_model.model.": ("PEFT", "model.merge_and_unload().save_pretrained(…)"),
}
"""Wrappers that put a prefix before the name of every weight, and how to save the model without it."""

ADAPTER = re.compile(r"(^|\.)(lora_\w+|base_layer|ia3_l|modules_to_save|prompt_embeddings|vera_lambda_\w+)(\.|$)")
"""Names of weights that an adapter adds to a model, or renames."""


@dataclass(frozen=True, slots=True)
class Coverage:
    """Comparison of the weights of a checkpoint and of the model opened from it.

    Attributes:
        missing: weights of the model that the checkpoint lacks.
        mismatched: weights that have another shape in the checkpoint, with both shapes.
        unused: weights of the checkpoint that the model has no place for.
        saved_as: class that the checkpoint was saved from, as its configuration says.
        opened_as: class of the model.
        weights: number of weights of the model.
    """

    missing: tuple[str, ...]
    mismatched: tuple[str, ...]
    unused: tuple[str, ...]
    saved_as: str
    opened_as: str
    weights: int

    @classmethod
    def of(cls, model: PreTrainedModel, info: Mapping[str, Any]) -> Coverage:
        """The coverage that transformers reports of a model it has opened.

        Tied weights, buffers that are not saved, and what a class declares as dispensable do not count as gaps there.
        """
        shapes = (
            f"{name}: {_shape(found)} instead of {_shape(expected)}"
            for name, found, expected in info["mismatched_keys"]
        )
        architectures = getattr(model.config, "architectures", None) or ("",)
        return cls(
            missing=_in_order(info["missing_keys"]),
            mismatched=_in_order(shapes),
            unused=_in_order(info["unexpected_keys"]),
            saved_as=str(architectures[0]),
            opened_as=type(model).__name__,
            weights=len(model.state_dict()),
        )

    @property
    def complete(self) -> bool:
        """True if every weight came from the checkpoint."""
        return not self.missing and not self.mismatched

    @property
    def faithful(self) -> bool:
        """True if every weight came from the checkpoint, and no adapter was left out."""
        return self.complete and not self._adapter()

    def error(self, name: str) -> ModelError:
        """The error for a model that is not the one in its checkpoint.

        Args:
            name: name of the model, as the user gave it.
        """
        total = f"of the {self.weights} weights of {self.opened_as}"
        parts = []
        if self.missing:
            parts.append(f"lacks {len(self.missing)} {total} ({listing(self.missing, 4)})")
        if self.mismatched:
            parts.append(f"has {len(self.mismatched)} {total} in another shape ({listing(self.mismatched, 4)})")
        if not parts:
            parts.append(f"has weights of an adapter that {self.opened_as} would leave out")
        random = "" if self.complete else ", which would be filled with random numbers"
        return ModelError(
            f"The checkpoint of {name!r} {' and '.join(parts)}{random}. {self._reason(name)} "
            "To open it as it is, pass allow_missing=True (--allow-missing in the shell)."
        )

    def notes(self) -> tuple[str, ...]:
        """Sentences for results, on weights that are random and weights of the checkpoint that are left out."""
        notes = []
        if self.missing:
            notes.append(
                f"random numbers fill {len(self.missing)} of {self.weights} weights that the checkpoint lacks: "
                f"{listing(self.missing, 4)}"
            )
        if self.mismatched:
            notes.append(
                f"random numbers fill {len(self.mismatched)} of {self.weights} weights that have another shape in the "
                f"checkpoint: {listing(self.mismatched, 4)}"
            )
        if self.unused:
            other = f", saved from {self.saved_as}," if self._other_class() else ""
            notes.append(
                f"the checkpoint{other} has weights that {self.opened_as} leaves out ({len(self.unused)}): "
                f"{listing(self.unused, 4)}"
            )
        return tuple(notes)

    def _reason(self, name: str) -> str:
        """Say what the checkpoint probably is, and what to do."""
        prefix = self._prefix()
        if prefix:
            writer, remedy = WRAPPERS.get(prefix, ("another program", "the model alone"))
            mapping = {f"^{re.escape(prefix)}": ""}
            return (
                f"Names in the checkpoint begin with {prefix!r}, as {writer} writes them. Save it again ({remedy}), or "
                f"drop the prefix: Explainer(ModelSpec({name!r}, config={{'key_mapping': {mapping!r}}}))."
            )
        adapter = self._adapter()
        if adapter:
            return (
                f"{listing(adapter, 4)} are of an adapter. Merge it into the model, and save that: "
                "model.merge_and_unload().save_pretrained(…)."
            )
        if self._other_class():
            rest = f"; {listing(self.unused, 4)} would be left out" if self.unused else ""
            return (
                f"It was saved from {self.saved_as}, so its output layer is another one, or none{rest}. "
                f"Give a checkpoint that was saved from {self.opened_as}."
            )
        return "Its config.json is that of another model, or weights were lost when it was saved."

    def _other_class(self) -> bool:
        return self.saved_as not in ("", self.opened_as)

    def _adapter(self) -> tuple[str, ...]:
        return tuple(name for name in self.unused if ADAPTER.search(name))

    def _prefix(self) -> str:
        """A prefix without which most names of the checkpoint would be those that are missing; empty if there is none.

        A base model's names also lack the prefix that its causal model has, so what is known is looked for too.
        """
        missing, found = set(self.missing), Counter[str]()
        for name in self.unused:
            ends = (dot.end() for dot in re.finditer(r"\.", name))
            found.update([name[:end] for end in ends if name[end:] in missing][:1])
        for prefix, count in found.most_common(1):
            if 2 * count > len(missing):
                return prefix
        wraps = (prefix for prefix in WRAPPERS if self.unused and all(name.startswith(prefix) for name in self.unused))
        return next(wraps, "") if missing else ""


def open_causal_model(source: str, *, fill: bool = False, **options: Any) -> tuple[PreTrainedModel, Coverage]:
    """Open a causal language model, and compare it with its checkpoint.

    Args:
        source: folder or hub id.
        fill: gaps are meant to be filled, with the same random numbers in every start.
        **options: options of ``from_pretrained``.

    Raises:
        Exception: whatever transformers raises for files that cannot be read.
    """
    from transformers import AutoModelForCausalLM

    return _opened(AutoModelForCausalLM, source, fill, options)


def open_image_text_model(source: str, *, fill: bool = False, **options: Any) -> tuple[PreTrainedModel, Coverage]:
    """Open a model that continues text with pictures, and compare it with its checkpoint.

    Args:
        source: folder or hub id.
        fill: gaps are meant to be filled, with the same random numbers in every start.
        **options: options of ``from_pretrained``.

    Raises:
        Exception: whatever transformers raises for files that cannot be read.
    """
    from transformers import AutoModelForImageTextToText

    return _opened(AutoModelForImageTextToText, source, fill, options)


def open_language_model(source: str, *, fill: bool = False, **options: Any) -> tuple[PreTrainedModel, Coverage]:
    """Open a causal or encoder–decoder language model, as its configuration says, and compare it with its checkpoint.

    Args:
        source: folder or hub id.
        fill: gaps are meant to be filled, with the same random numbers in every start.
        **options: options of ``from_pretrained``.

    Raises:
        ModelError: the files hold a model of another kind.
        Exception: whatever transformers raises for files that cannot be read.
    """
    from transformers import AutoModelForSeq2SeqLM

    try:
        if not reads_apart(source, options):
            return open_causal_model(source, fill=fill, **options)
        return _opened(AutoModelForSeq2SeqLM, source, fill, options)
    except ValueError as error:
        if "Unrecognized configuration class" not in str(error):
            raise
        saved_as = listing(getattr(_config(source, options), "architectures", None) or ("model of another kind",))
        raise ModelError(
            f"{source!r} holds a {saved_as}, which does not continue a text or write one of its own. Give a causal "
            "language model, or an encoder–decoder model such as T5ForConditionalGeneration."
        ) from error


def reads_apart(source: str, options: Mapping[str, Any]) -> bool:
    """True if a folder or hub id holds an encoder–decoder model, as its configuration says.

    Args:
        source: folder or hub id.
        options: options of ``from_pretrained``.

    Raises:
        Exception: whatever transformers raises for a configuration that cannot be read.
    """
    if "gguf_file" in options:  # these are converted as causal models
        return False
    return bool(getattr(_config(source, options), "is_encoder_decoder", False))


def reads_pictures(source: str, options: Mapping[str, Any]) -> bool:
    """True if a folder or hub id holds a model that continues text with pictures, as its configuration says.

    Args:
        source: folder or hub id.
        options: options of ``from_pretrained``.

    Raises:
        Exception: whatever transformers raises for a configuration that cannot be read.
    """
    from transformers import AutoModelForImageTextToText

    if reads_apart(source, options) or "gguf_file" in options:
        return False
    return type(_config(source, options)) in AutoModelForImageTextToText._model_mapping


def continues_text(source: str, options: Mapping[str, Any]) -> bool:
    """True if a folder or hub id holds a model that can be opened as a causal language model of text.

    Args:
        source: folder or hub id.
        options: options of ``from_pretrained``.

    Raises:
        Exception: whatever transformers raises for a configuration that cannot be read.
    """
    from transformers import AutoModelForCausalLM

    return type(_config(source, options)) in AutoModelForCausalLM._model_mapping


def _config(source: str, options: Mapping[str, Any]) -> Any:
    from transformers import AutoConfig

    known = {name: options[name] for name in FILE_OPTIONS if name in options}
    return options.get("config") or AutoConfig.from_pretrained(source, **known)


def _opened(kind: Any, source: str, fill: bool, options: Mapping[str, Any]) -> tuple[PreTrainedModel, Coverage]:
    # Weights of another shape are reported then, as missing ones are, and not raised without their names.
    asked: dict[str, Any] = {**options, "ignore_mismatched_sizes": True, "output_loading_info": True}
    with undisturbed(seeded=fill):
        opened: Any = kind.from_pretrained(source, **asked)
    model, info = opened
    return model, Coverage.of(model, info)


@contextmanager
def undisturbed(*, seeded: bool) -> Iterator[None]:
    """Let transformers load weights without a bar, a table or a change of the caller's random numbers.

    Args:
        seeded: gaps are meant to be filled: start from ``SEED``, on all devices.
    """
    # Asking a GPU for its state starts it, which a model that is only read should not do.
    devices = list(range(torch.cuda.device_count())) if seeded and torch.cuda.is_available() else []
    with quiet_transformers(), without_load_report(), torch.random.fork_rng(devices):
        if seeded:
            torch.manual_seed(SEED)
        yield


def _in_order(names: Any) -> tuple[str, ...]:
    """Names by number where they have numbers: layer 2 before layer 10."""
    return tuple(sorted(names, key=lambda name: [part.zfill(8) for part in re.split(r"(\d+)", name)]))


def _shape(sizes: Any) -> str:
    return " × ".join(str(size) for size in sizes)
