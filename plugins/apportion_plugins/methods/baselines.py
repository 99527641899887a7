"""Baselines of gradient methods: the embedding from which the path to a token starts."""

from __future__ import annotations

import numbers
from collections.abc import Mapping

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from apportion.errors import InputError, counted, shown
from apportion.protocols.inside import Inside
from apportion_plugins.methods.points import Points

__all__ = ["Baseline", "check_baseline", "embedded_baseline", "is_token", "mean_embedding", "token_of"]

Baseline = str | int | Tensor | np.ndarray
"""``"zero"``, ``"mean"``, ``"pad"``, ``"unk"``, the text or the id of a token, or embeddings."""

AT_ONCE = 4096
"""Number of tokens whose embeddings are read at once."""

SPECIAL: Mapping[str, str] = {"pad": "padding token", "unk": "token for unknown text"}
CHOICES = (
    "'zero', 'mean' (the mean embedding of the vocabulary), 'pad', 'unk', the text or the id of a token, or embeddings"
)


def check_baseline(baseline: object, name: str = "baseline") -> None:
    """Check what can be checked without a model.

    Raises:
        InputError: it is neither a text, nor an id, nor an array of one or two dimensions.
    """
    if isinstance(baseline, str) and baseline:
        return
    if isinstance(baseline, numbers.Integral) and not isinstance(baseline, bool) and int(baseline) >= 0:
        return
    if isinstance(baseline, Tensor | np.ndarray) and baseline.ndim in (1, 2) and baseline.size:
        return
    raise InputError(f"{name}={shown(baseline)} must be {CHOICES}.")


def embedded_baseline(inside: Inside, points: Points, baseline: Baseline) -> Float[Tensor, "X D"]:
    """The baseline of each token that a method sets.

    Raises:
        InputError: the tokenizer has no such token, or the text is several tokens, or the embeddings do not fit.
    """
    own = points.own
    if isinstance(baseline, Tensor | np.ndarray):
        return _given(inside, points, torch.as_tensor(baseline).detach()).to(own)
    if is_token(baseline):
        one = inside.embeddings([token_of(inside, baseline)])[0]
    else:
        one = mean_embedding(inside) if baseline == "mean" else torch.zeros_like(own[0])
    return one.to(own).expand_as(own)


def is_token(baseline: Baseline) -> bool:
    """True for a baseline that has the embedding of a token."""
    return not isinstance(baseline, Tensor | np.ndarray) and baseline not in ("zero", "mean")


def token_of(inside: Inside, baseline: object) -> int:
    """The id of the token that a baseline names.

    Raises:
        InputError: the tokenizer has no such token, or the text is several tokens.
    """
    tokenizer = inside.tokenizer
    if isinstance(baseline, str) and baseline in SPECIAL:
        found = tokenizer.pad_token_id if baseline == "pad" else tokenizer.unk_token_id
        if found is None:
            raise InputError(f"baseline={baseline!r}: this tokenizer has no {SPECIAL[baseline]}. Use {CHOICES}.")
        return int(found)
    if isinstance(baseline, str):
        ids = tokenizer(baseline, add_special_tokens=False)["input_ids"]
        if len(ids) != 1:
            raise InputError(
                f"baseline={shown(baseline)} is {counted(len(ids), 'token')}, and must be one. Use {CHOICES}."
            )
        return int(ids[0])
    if not isinstance(baseline, numbers.Integral) or not 0 <= int(baseline) < inside.vocabulary:
        raise InputError(
            f"baseline={shown(baseline)} is not the id of a token; ids are from 0 to {inside.vocabulary - 1}."
        )
    return int(baseline)


def mean_embedding(inside: Inside) -> Float[Tensor, " D"]:
    """Mean embedding of all tokens of the vocabulary."""
    total: Tensor | None = None
    for start in range(0, inside.vocabulary, AT_ONCE):
        part = inside.embeddings(range(start, min(start + AT_ONCE, inside.vocabulary)))
        part = part.to(torch.promote_types(part.dtype, torch.float32)).sum(0)
        total = part if total is None else total + part
    assert total is not None, "a vocabulary is never empty"
    return total / inside.vocabulary


def _given(inside: Inside, points: Points, given: Tensor) -> Float[Tensor, "X D"]:
    """Embeddings that the user gave: one for all tokens, or one for each token of the prompt."""
    width, count = points.own.shape[1], len(inside.prompt_ids)
    if given.shape == (width,):
        return given.expand_as(points.own)
    if given.shape == (count, width) and not points.generates:
        return given[count - len(points.own) :]
    several = "" if points.generates else f", or {[count, width]} for one per token of the prompt"
    raise InputError(
        f"The baseline has the shape {list(given.shape)}. For this prompt and model, it may be {[width]}{several}."
    )
