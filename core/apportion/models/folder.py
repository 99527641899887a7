"""Checks of the folder of a model, before anything is loaded from it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from apportion.errors import ModelError, listing

__all__ = ["check_folder", "has_tokenizer"]

AGAIN = "Download the model or save it again."
TOKENIZER_FILES = ("token*", "vocab*", "merges*", "spiece*", "sentencepiece*", "*.model", "*.tiktoken", "tekken*")


def check_folder(name: str, path: Path) -> None:
    """Check that a folder holds a saved model, as far as its lists of files tell.

    Args:
        name: of the model, as the user gave it.
        path: of the folder.

    Raises:
        ModelError: it is a file, has no readable ``config.json``, or lacks files of weights.
    """
    if path.is_file():
        raise ModelError(f"{name!r} is a file and does not end in .gguf. Give the folder that it is in.")
    if not (path / "config.json").is_file():
        names = sorted(file.name for file in path.iterdir())
        held = listing(names, limit=6) if names else "nothing"
        if any(one.endswith(".onnx") for one in names):
            raise ModelError(
                f"The folder {name!r} holds an ONNX file and no model of transformers. Open it with "
                "backend='onnxruntime', or give the model that it was exported from."
            )
        raise ModelError(
            f"The folder {name!r} has no config.json, so it is not a saved model; it holds {held}. Give the folder to "
            "which save_pretrained() wrote."
        )
    config = _json(name, path / "config.json")
    if not isinstance(config, dict):
        raise ModelError(
            f"The config.json in {name!r} is damaged: it holds a {type(config).__name__} instead of an object. {AGAIN}"
        )
    _check_shards(name, path)


def has_tokenizer(path: Path) -> bool:
    """True if a folder has a file that belongs to a tokenizer."""
    return any(True for pattern in TOKENIZER_FILES for _ in path.glob(pattern))


def _check_shards(name: str, path: Path) -> None:
    """Check that all parts of the weights are there, in the format that transformers would read."""
    for whole in ("model.safetensors", "pytorch_model.bin"):
        index = path / f"{whole}.index.json"
        if (path / whole).is_file():
            return
        if index.is_file():
            listed = _json(name, index)
            weights = listed.get("weight_map") if isinstance(listed, dict) else None
            if not isinstance(weights, dict):
                raise ModelError(f"The {index.name} in {name!r} is damaged: it has no weight_map. {AGAIN}")
            files = sorted({str(file) for file in weights.values()})
            missing = [file for file in files if not (path / file).is_file()]
            if missing:
                raise ModelError(
                    f"{len(missing)} of the {len(files)} files of weights in {name!r} are missing: "
                    f"{listing(missing, limit=4)}. {AGAIN}"
                )
            return


def _json(name: str, file: Path) -> Any:
    try:
        return json.loads(file.read_bytes())
    except (ValueError, RecursionError) as error:
        raise ModelError(f"The {file.name} in {name!r} is damaged: it is not JSON ({error}). {AGAIN}") from error
    except OSError as error:
        raise ModelError(f"The {file.name} in {name!r} cannot be read: {error.strerror or error}.") from error
