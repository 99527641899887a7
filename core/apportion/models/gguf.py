"""GGUF files, converted once: reading one takes many times as long as reading safetensors.

A file is converted into the user's cache folder, filed under a hash of its content, and the conversion is used only if
it gives the logits and token ids of the file itself.
"""

from __future__ import annotations

import contextlib
import io
import shutil
import sys
import tempfile
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.errors import ModelError
from apportion.files import cache_dir, file_digest
from apportion.models.coverage import open_causal_model
from apportion.models.quiet import quiet_transformers

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

__all__ = ["convert", "converted", "require_packages", "settle"]

SAMPLE = "Dave's 3 cats – Ünïcödé, 中文, 🙂 – live in  Palm Coast;\n\tthey like <s>music</s>. "
MAGIC = b"GGUF"
LARGEST_DIFFERENCE = 1e-4
"""Largest difference allowed between the logits of both models, in units of their standard deviation."""


def converted(path: Path) -> Path | None:
    """Return the folder with the converted GGUF file, and convert it first if needed; ``None`` if that fails.

    Args:
        path: the GGUF file.

    Raises:
        ModelError: a package needed to read GGUF files is missing, or this is not one, or is damaged.
    """
    _check_magic(path)
    target = cache_dir() / "models" / f"gguf-{file_digest(path)}"
    if (target / "config.json").is_file():
        return target
    from rich.console import Console

    console = Console(file=sys.stderr)
    size = f"{path.stat().st_size / 2**20:,.0f} MB"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with (
            tempfile.TemporaryDirectory(dir=target.parent) as folder,
            # The bar of transformers would draw over ours.
            contextlib.redirect_stderr(io.StringIO()),
            console.status(f"Converting {path.name} once ({size}) into {target} …"),
        ):
            work = Path(folder) / "model"
            convert(path, work)
            settle(work, target)
    except ModelError:
        raise
    except _IncompleteError:  # whoever reads the file says what is missing, and decides
        return None
    except Exception as error:  # unusual models fail in many ways
        _check_readable(path)
        warnings.warn(
            f"{path.name} could not be converted, so it is read as it is, which takes longer "
            f"({type(error).__name__}: {error!s:.200}).",
            RuntimeWarning,
            stacklevel=2,
        )
        return None
    console.print(f"Converted {path.name} once ({size}); later starts read {target}.", highlight=False)
    return target


def _check_magic(path: Path) -> None:
    """Check the first bytes.

    Raises:
        ModelError: they are not those of a GGUF file.
    """
    try:
        with path.open("rb") as file:
            found = file.read(len(MAGIC))
    except OSError as error:
        raise ModelError(f"Cannot read {path}: {error.strerror or error}.") from error
    if found != MAGIC:
        what = f"it begins with {found!r} instead of {MAGIC!r}" if found else "it is empty"
        raise ModelError(f"{path} is not a GGUF file: {what}. Download it again, or give another file.")


def _check_readable(path: Path) -> None:
    """Check that the file can be read at all, after its conversion failed.

    Raises:
        ModelError: it is damaged or incomplete.
    """
    from gguf import GGUFReader

    try:
        GGUFReader(path)
    except Exception as error:  # damaged files fail in many ways
        raise ModelError(f"{path} is damaged or incomplete: {str(error).rstrip('.')}. Download it again.") from error


class _IncompleteError(ValueError):
    """A file that lacks weights of its model; random ones in their place must not be kept."""


def convert(source: Path, target: Path) -> None:
    """Write the model and tokenizer of a GGUF file as safetensors, dequantised to fp32.

    Raises:
        ModelError: a package is missing.
        ValueError: the file lacks weights of the model, or the converted model or tokenizer differs from the original.
    """
    require_packages(source.name)
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    options: dict[str, Any] = {"gguf_file": source.name}
    with quiet_transformers():
        tokenizer = AutoTokenizer.from_pretrained(source.parent, **options)
        loaded, coverage = open_causal_model(str(source.parent), dtype=torch.float32, **options)
        if not coverage.complete:
            raise _IncompleteError(str(coverage.error(source.name)))
        _without_quantization(loaded).save_pretrained(target)
        tokenizer.save_pretrained(target)
        _check_same(loaded, AutoModelForCausalLM.from_pretrained(target, dtype=torch.float32))
        _check_same_tokens(tokenizer, AutoTokenizer.from_pretrained(target))


def require_packages(name: str) -> None:
    """Check that the packages needed to read GGUF files are installed.

    Args:
        name: name of the model, for the message.

    Raises:
        ModelError: a package is missing; the message says what to install.
    """
    try:
        import accelerate  # noqa: F401
        import gguf  # noqa: F401
    except ImportError as error:
        raise ModelError(
            f'{name} needs the packages gguf and accelerate once: pip install "apportion[gguf]".'
        ) from error


def settle(work: Path, target: Path) -> None:
    """Move a finished folder to its place; an unfinished folder there is replaced."""
    if target.exists() and not (target / "config.json").is_file():
        shutil.rmtree(target, ignore_errors=True)
    try:
        work.rename(target)
    except OSError:
        # Another process was faster; its copy is the same.
        if not (target / "config.json").is_file():
            raise


def _without_quantization(loaded: PreTrainedModel) -> PreTrainedModel:
    """Copy the weights to a new model, because one loaded from GGUF refuses to be saved."""
    config = type(loaded.config)(**{k: v for k, v in loaded.config.to_dict().items() if k != "quantization_config"})
    plain = type(loaded)(config)
    plain.load_state_dict(loaded.state_dict())
    return plain


def _check_same(original: PreTrainedModel, other: PreTrainedModel) -> None:
    import torch

    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(0, original.config.get_text_config().vocab_size, (1, 12), generator=draw)
    with torch.inference_mode():
        ours, theirs = (model.eval()(ids, use_cache=False).logits for model in (other, original))
    worst, spread = float((ours - theirs).abs().max()), float(theirs.std())
    if not worst <= LARGEST_DIFFERENCE * spread:
        raise ValueError(f"the converted model's logits differ by {worst:.2g}")


def _check_same_tokens(original: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> None:
    for text in (SAMPLE, SAMPLE.strip(), f" {SAMPLE}"):
        if original(text)["input_ids"] != other(text)["input_ids"]:
            raise ValueError("the converted tokenizer gives other token ids")
