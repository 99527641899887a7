"""The file of a decoder in a folder, and what the files beside it say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from apportion.errors import ModelError, listing

__all__ = ["DecoderFiles", "find_decoder", "may_hold_decoder"]

NAMES = ("model.onnx", "decoder_model.onnx", "decoder_with_past_model.onnx")
"""Names that exporters give; the first that is there is taken."""
PLACES = (".", "onnx")
SUFFIX = ".onnx"
GENAI = "genai_config.json"
TEXT = (".json", ".txt", ".md", ".jinja", ".model", ".safetensors", ".lock")
"""Endings of files that do not belong to a graph."""


class DecoderFiles:
    """A decoder, and the settings beside it.

    Args:
        graph: the ``.onnx`` file.
        folder: folder of the tokenizer and the settings.

    Raises:
        ModelError: a file of settings is damaged.
    """

    def __init__(self, graph: Path, folder: Path) -> None:
        self.graph, self.folder = graph, folder
        genai = _json(folder / GENAI).get("model")
        self._genai = genai if isinstance(genai, Mapping) else {}
        decoder = self._genai.get("decoder")
        self._decoder = decoder if isinstance(decoder, Mapping) else {}
        config = _json(folder / "config.json")
        text = config.get("text_config")
        self._config = text if isinstance(text, Mapping) else config
        self._generation = _json(folder / "generation_config.json")

    def size(self, *names: str) -> int | None:
        """The first of these settings that is a whole number; ``None`` if none is."""
        for name in names:
            for settings in (self._decoder, self._genai, self._config):
                found = settings.get(name)
                if isinstance(found, int) and not isinstance(found, bool) and found > 0:
                    return found
        return None

    @property
    def head_size(self) -> int | None:
        """Size of a key head."""
        size, heads = self.size("hidden_size", "n_embd"), self.size("num_attention_heads", "n_head")
        return self.size("head_size", "head_dim") or (size // heads if size and heads else None)

    @property
    def end_ids(self) -> tuple[int, ...]:
        """Tokens with which the model ends a generation."""
        for settings in (self._generation, self._genai, self._config):
            found = settings.get("eos_token_id")
            listed = found if isinstance(found, list) else [found]
            ids = tuple(token for token in listed if isinstance(token, int))
            if ids:
                return ids
        return ()

    def parts(self) -> Iterator[Path]:
        """The graph, and every file beside it that may hold its weights."""
        for path in sorted(self.graph.parent.iterdir()):
            if path.is_file() and (path == self.graph or path.suffix not in (*TEXT, SUFFIX)):
                yield path


def may_hold_decoder(source: str) -> bool:
    """True if a source is an ``.onnx`` file, or a folder with one and without weights of ``transformers``."""
    path = Path(source).expanduser()
    try:
        if path.suffix == SUFFIX:
            return path.is_file()
        if not path.is_dir() or any(path.glob("*.safetensors")) or any(path.glob("pytorch_model*.bin")):
            return False
        return any(True for place in PLACES for _ in (path / place).glob(f"*{SUFFIX}"))
    except OSError:  # no permission, or a name that no path can have
        return False


def find_decoder(source: str) -> DecoderFiles | None:
    """The decoder that a source names; ``None`` if it is neither an ``.onnx`` file nor a folder with one.

    Raises:
        ModelError: it is not clear which of several files is the decoder, or a file beside it is damaged.
    """
    path = Path(source).expanduser()
    if path.suffix == SUFFIX and path.is_file():
        folder = path.parent.parent if path.parent.name == "onnx" else path.parent
        return DecoderFiles(path, folder)
    if not path.is_dir():
        return None
    named = _json(path / GENAI)
    try:
        name = named["model"]["decoder"]["filename"]
    except (KeyError, TypeError):
        name = None
    if isinstance(name, str) and (path / name).is_file():
        return DecoderFiles(path / name, path)
    for place in PLACES:
        there = sorted((path / place).glob(f"*{SUFFIX}"))
        known = [path / place / name for name in NAMES if path / place / name in there]
        if known or len(there) == 1:
            return DecoderFiles((known or there)[0], path)
        if there:
            raise ModelError(
                f"The folder {source!r} holds {len(there)} .onnx files: {listing([one.name for one in there])}. Name "
                "the file of the decoder instead of the folder."
            )
    return None


def _json(path: Path) -> Mapping[str, Any]:
    """The object in a JSON file; empty if there is no file.

    Raises:
        ModelError: the file is damaged.
    """
    if not path.is_file():
        return {}
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{str(path)!r}, beside a model file, cannot be read as JSON: {error!s:.100}") from error
    if not isinstance(found, dict):
        raise ModelError(f"{str(path)!r}, beside a model file, holds a {type(found).__name__} instead of an object.")
    return found
