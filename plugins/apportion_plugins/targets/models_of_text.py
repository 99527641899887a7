"""Target functions of texts that another model or a function of the user's judges."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Callable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, shown
from apportion.functions import failures_of, wrong_answer
from apportion.protocols.targets import Needs, Scores, Target
from apportion.scoring.text_target import TextValue, as_numbers

__all__ = ["EmbeddingSimilarity", "Judge"]


PLACE = re.compile(r"[\w.]+:[\w.]+")
NO_FUNCTION = "needs a function of texts and a target, as its option 'function'"
NO_ENCODER = (
    "needs an encoder, as its option 'encoder': a model of sentence-transformers, or a function from texts to vectors"
)


class Judge:
    """The value that a function of yours gives each text: a judge, an NLI model, a classifier, a reward model.

    Args:
        function: maps a list of texts, and the target's text, to a number for each text. A function, or the place of
            one, such as ``"my_package.judges:entailment"``, which can be written in the shell, too.
        unit: unit of the numbers.

    Raises:
        InputError: the function cannot be found.
    """

    needs = Needs.TEXT
    label = "verdict of the judge"

    def __init__(self, *, function: Callable[..., Any] | str | None = None, unit: str = "verdict") -> None:
        self._value = None if function is None else TextValue(imported("function", function), unit=unit)
        self.unit = unit
        self.lacking = "" if function is not None else NO_FUNCTION

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S 1"]:
        """Values of S texts."""
        assert self._value is not None
        return self._value(scores, target)


class EmbeddingSimilarity:
    """Cosine similarity of the embeddings of the text and the target, −1 to 1.

    Args:
        encoder: a model of the package sentence-transformers, by its name or folder; or a function from a list of texts
            to embeddings ``Float[S, D]``, or the place of one, such as ``"my_package.models:embed"``.

    Raises:
        InputError: the function cannot be found, or sentence-transformers is not installed or cannot open the model.
    """

    needs = Needs.TEXT
    unit = "cosine"
    label = "similarity of meaning with the target"

    def __init__(self, *, encoder: Callable[[list[str]], Any] | str | None = None) -> None:
        self.lacking = ""
        self._encode: Callable[..., Any] = _nothing
        if encoder is None:
            self.lacking = NO_ENCODER
        elif isinstance(encoder, str) and not PLACE.fullmatch(encoder):
            self._encode = _sentence_transformer(encoder)
        else:
            self._encode = imported("encoder", encoder)

    def __call__(self, scores: Scores, target: Target) -> Float[Tensor, "S 1"]:
        """Similarities of S texts."""
        assert scores.texts is not None
        texts = [*scores.texts, target.text]
        with failures_of(self._encode, "encoder", lambda: f"{len(texts)} texts, the first of them {shown(texts[0])}"):
            found = self._encode(texts)
        vectors = as_numbers(found)
        if vectors is None or vectors.ndim != 2 or len(vectors) != len(texts):
            raise wrong_answer(self._encode, "encoder", f"vectors of the shape [{len(texts)}, D]", found)
        return torch.nn.functional.cosine_similarity(vectors[:-1], vectors[-1:], dim=1)[:, None]


def imported(name: str, given: Callable[..., Any] | str) -> Callable[..., Any]:
    """A function that was given as such, or as its place ``"module:name"``, perhaps in the working directory.

    Raises:
        InputError: there is no function there.
    """
    if not isinstance(given, str):
        if not callable(given):
            raise InputError(f"{name}={shown(given)} must be a function, or the place of one: 'module:name'.")
        return given
    module, _, attribute = given.partition(":")
    here = str(Path.cwd())
    added = here not in sys.path  # an installed command does not search the working directory, as `python` does
    if added:
        sys.path.append(here)
    try:
        found: Any = attrgetter(attribute)(importlib.import_module(module))
    except Exception as error:  # the module is the user's
        raise InputError(
            f"{name}={shown(given)} is not the place of a function, 'module:name': {type(error).__name__}: {error}."
        ) from error
    finally:
        if added:
            sys.path.remove(here)
    if not callable(found):
        raise InputError(f"{name}={shown(given)} is not a function.")
    function: Callable[..., Any] = found
    return function


def _nothing(texts: Sequence[str]) -> Any:
    return None


def _sentence_transformer(model: str) -> Callable[[Sequence[str]], Any]:
    try:
        from sentence_transformers import SentenceTransformer
    except ImportError as error:
        raise InputError(
            "Embeddings by name need sentence-transformers, which is not installed: pip install sentence-transformers. "
            "Or give encoder= a function."
        ) from error
    try:
        loaded = SentenceTransformer(model)
    except Exception as error:  # it raises many kinds
        raise InputError(f"sentence-transformers cannot open {model!r}: {type(error).__name__}: {error}") from error

    def encode(texts: Sequence[str]) -> Any:
        return loaded.encode(list(texts), show_progress_bar=False)

    return encode
