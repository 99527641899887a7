"""The model ``shapes``, which comes with apportion: it answers questions about pictures of coloured shapes.

A LLaVA of 0.6 million parameters, trained by ``benchmarks/models/shapes_vlm.py``. It is known which cell of a picture
decides each answer (``apportion.testing.shapes``), so that attributions can be checked.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from apportion.errors import ModelError

__all__ = ["shapes_model_path"]

FOLDER = Path(__file__).parent / "shapes_vlm"
SHA256 = "55a6d06e70055db37793fc070aa50eabd3b5922eb5e53e708b9690206bc3632e"


def shapes_model_path() -> Path:
    """The folder with the model.

    Raises:
        ModelError: its weights are missing or are not those that apportion came with.
    """
    weights = FOLDER / "model.safetensors"
    if not weights.is_file():
        raise ModelError(f"The weights of the model 'shapes' are missing from {FOLDER}. Install apportion again.")
    found = hashlib.sha256(weights.read_bytes()).hexdigest()
    if found != SHA256:
        raise ModelError(
            f"The weights of the model 'shapes' have the hash {found}, not {SHA256}. Install apportion again."
        )
    return FOLDER
