"""PEFT adapters: a few weights beside a model that is stored elsewhere."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from apportion.errors import ModelError

__all__ = ["Adapter", "adapter_of"]


@dataclass(frozen=True, slots=True)
class Adapter:
    """An adapter where a model was expected.

    Attributes:
        base: hub id or folder of the model that it changes; the adapter's own folder if that holds the model too.
        apart: the model is stored elsewhere.
        usable: the package ``peft`` is installed.
    """

    base: str
    apart: bool
    usable: bool

    def refusal(self, name: str) -> ModelError:
        """The error for an adapter that cannot be used.

        Args:
            name: name of the model, as the user gave it.
        """
        what = f"is a PEFT adapter of {self.base!r}" if self.apart else "holds a model and a PEFT adapter of it"
        anyway = "" if self.apart else " To leave the adapter out, pass allow_missing=True."
        return ModelError(
            f"{name!r} {what}, and the package peft is not installed: pip install peft. Or merge the adapter into the "
            f"model and save that: model.merge_and_unload().save_pretrained(…).{anyway}"
        )


def adapter_of(source: str) -> Adapter | None:
    """The adapter that a folder or hub id holds; ``None`` for an ordinary model.

    A hub id is looked up only if ``peft`` is installed, because transformers then does so too.

    Raises:
        ModelError: the adapter's configuration cannot be read.
    """
    from transformers.utils.import_utils import is_peft_available
    from transformers.utils.peft_utils import find_adapter_config_file

    usable = is_peft_available()
    folder = Path(source)
    if not (folder.is_dir() or (usable and not folder.exists())):
        return None
    path = find_adapter_config_file(source)
    if path is None:
        return None
    if (folder / "config.json").is_file():
        return Adapter(source, apart=False, usable=usable)
    try:
        base = json.loads(Path(path).read_bytes())["base_model_name_or_path"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ModelError(f"The adapter's configuration {path} cannot be read: {error!r}.") from error
    if not isinstance(base, str) or not base:
        raise ModelError(f"The adapter's configuration {path} names no model: base_model_name_or_path is {base!r}.")
    return Adapter(base, apart=True, usable=usable)
