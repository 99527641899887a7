"""Sample results of all kinds, made without a model, for testing visualizers and other readers of results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from apportion.protocols.features import Feature, Segment
from apportion.protocols.pictures import Picture
from apportion.results.attribution import Attribution
from apportion.results.provenance import Provenance
from apportion.testing.pictures import sample_pictures

__all__ = ["HOSTILE", "opposite", "sample_results", "with_a_picture"]

HOSTILE = (
    "<script>alert(1)</script>",
    "[bold red]markup[/]",
    "$\\frac{a}{b}$",
    "tab\there",
    "line\nbreak",
    "&amp; %s {0}",
)
"""Names that break views without escaping: HTML, rich markup, TeX, white space, format strings."""

_WORDS = ("Dave", "lives", "in", "Palm", "Coast", "and", "plays", "golf")


def sample_results() -> Mapping[str, Attribution]:
    """Sample results by name: exact and sampled, one feature and many, zeros and extremes, any language, hostile names,
    and magnitudes without signs.

    All have the ``extras`` of ``method="interactions"``, ``method="hierarchical"`` and methods at layers, which some
    views need.
    """
    draw = np.random.default_rng(0)
    many = [f"word{i}" for i in range(70)]
    return {
        "exact": _result(_WORDS[:5], (" golf", ","), draw),
        "sampled": _result(_WORDS, (" golf", " and", " tennis"), draw, errors="known"),
        "unknown-errors": _result(_WORDS[:4], (" golf",), draw, errors="unknown"),
        "one-feature-one-token": _result(("Dave",), (" x",), draw),
        "zeros": _result(_WORDS[:3], (" a", " b"), draw, scale=0.0),
        "huge": _result(_WORDS[:3], (" a",), draw, scale=1e9),
        "tiny": _result(_WORDS[:3], (" a",), draw, scale=1e-12),
        "many": _result(many, [f" t{i}" for i in range(30)], draw, errors="known"),
        "any-language": _result(("我爱北京", "مرحبا", "👩‍👩‍👧", "é"), ("你好", "🙂"), draw),
        "hostile": _result(HOSTILE, HOSTILE[:2], draw),
        "bare": _result(_WORDS[:3], (" a",), draw, bare=True),
        "magnitudes": _result(_WORDS, (" golf", " and"), draw, signed=False),
    }


def _result(
    names: Sequence[str],
    tokens: Sequence[str],
    draw: np.random.Generator,
    *,
    scale: float = 1.0,
    errors: str = "",
    bare: bool = False,
    signed: bool = True,
) -> Attribution:
    token_values = scale * draw.normal(size=(len(tokens), len(names)))
    token_values = token_values if signed else np.abs(token_values)
    spread = {"known": np.abs(token_values) / 5, "unknown": np.full_like(token_values, np.nan)}.get(errors)
    segments: list[Segment] = []
    for i, name in enumerate(names):
        segments += [Segment(name, i), Segment(" ")]
    values = token_values.sum(0)
    return Attribution(
        features=tuple(Feature(name, name, baseline="" if i % 2 else "someone") for i, name in enumerate(names)),
        target_tokens=tuple(tokens),
        values=values,
        token_values=token_values,
        estimand="Shapley value" if signed else "attention weight",
        signed=signed,
        provenance=Provenance(
            method="shapley" if signed else "attention",
            unit="nats" if signed else "weight",
            score_unit="" if signed else "nats",
            evaluations=2 ** min(len(names), 10),
            forwarded_tokens=1234,
            seconds=1.5,
            model="tiny",
            notes=() if bare else ("a note that a reader should see",),
        ),
        std_error=None if spread is None else spread.sum(0),
        token_std_error=spread,
        base_value=None if bare else -10.0,
        full_value=None if bare else -10.0 + float(values.sum()),
        segments=() if bare else tuple(segments),
        target_text="".join(tokens),
        extras=_interactions(token_values, scale, known=None if spread is None else errors == "known")
        | {"tree": _tree(names, token_values, spread)}
        | _modules(token_values),
    )


def with_a_picture(result: Attribution) -> Attribution:
    """A sample result whose first features are the halves of a picture, for views of pictures."""
    pixels = sample_pictures()["wide"]
    height, width = pixels.shape[:2]
    left = np.zeros((height, width), bool)
    left[:, : width // 2] = True
    regions = dict(zip(range(min(2, len(result.features))), (left, ~left), strict=False))
    segments = tuple(segment for segment in result.segments if segment.feature not in regions)
    return replace(result, pictures=(Picture("picture", width, height, regions, pixels, "mean"),), segments=segments)


def opposite(result: Attribution) -> Attribution:
    """A sample result with all signs reversed, including those in its ``extras``."""
    extras = dict(result.extras)
    for name in ("interactions", "token_interactions", "module_values", "module_token_values"):
        extras[name] = -extras[name]
    extras["tree"] = [
        row | {"value": -row["value"], "token_values": [-v for v in row["token_values"]]} for row in extras["tree"]
    ]
    changed = {"values": -result.values, "token_values": -result.token_values, "extras": extras}
    return Attribution(**(vars(result) | changed))


def _modules(token_values: np.ndarray) -> dict[str, Any]:
    """Values of two modules in each of three layers, and of the embeddings, which share those of the features."""
    names = ["model.embed_tokens"]
    names += [f"model.layers.{layer}.{part}" for layer in range(3) for part in ("self_attn.q_proj", "mlp")]
    shares = np.arange(1, len(names) + 1) / sum(range(1, len(names) + 1))
    each = shares[:, None, None] * token_values
    return {"modules": names, "module_values": each.sum(1), "module_token_values": each}


def _tree(names: Sequence[str], token_values: np.ndarray, spread: np.ndarray | None) -> list[dict[str, Any]]:
    """Groups of three neighbours; every second group is split into its members."""
    rows: list[dict[str, Any]] = []

    def add(members: Sequence[int], depth: int, parent: int | None) -> None:
        values = token_values[:, list(members)].sum(1)
        error = None if spread is None else spread[:, list(members)].sum(1)
        rows.append(
            {
                "text": " ".join(names[i] for i in members),
                "level": "" if len(members) == 1 else "groups",
                "depth": depth,
                "parent": parent,
                "members": list(members),
                "value": float(values.sum()),
                "std_error": None if error is None else float(error.sum()),
                "token_values": values.tolist(),
                "token_std_error": None if error is None else error.tolist(),
            }
        )

    for start in range(0, len(names), 3):
        members, parent = range(start, min(start + 3, len(names))), len(rows)
        add(members, 1, None)
        if start % 2 == 0 and len(members) > 1:
            for i in members:
                add([i], 2, parent)
    return rows


def _interactions(token_values: np.ndarray, scale: float, *, known: bool | None) -> dict[str, Any]:
    """Symmetric matrices for the target and each token; with known or NaN errors, or none if ``known`` is ``None``."""
    tokens, n = token_values.shape
    draw = np.random.default_rng(n)
    upper = np.triu(scale * draw.normal(size=(tokens, n, n)), 1)
    matrices = upper + upper.transpose(0, 2, 1)
    found = {"interactions": matrices.sum(0), "token_interactions": matrices}
    if known is not None:
        spread = np.abs(matrices) / 5 if known else np.full_like(matrices, np.nan)
        found |= {"interactions_std_error": spread.sum(0), "token_interactions_std_error": spread}
    return {"interaction_index": "Shapley interaction index", **found}
