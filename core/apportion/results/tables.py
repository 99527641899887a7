"""Tables, which need the optional dependency pandas."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from apportion.errors import ApportionError, ResultError, shown, unknown_name
from apportion.results.modules import module_values, place_of

if TYPE_CHECKING:
    import pandas as pd


__all__ = ["columns_of", "dataframe"]

Columns = Mapping[str, Any]


def dataframe(columns: Columns) -> pd.DataFrame:
    """Make a pandas ``DataFrame``.

    Raises:
        ApportionError: pandas is not installed.
    """
    try:
        import pandas as pd
    except ImportError as error:
        raise ApportionError(
            'to_dataframe needs pandas, which is not installed: pip install "apportion[pandas]".'
        ) from error
    return pd.DataFrame(columns)


def columns_of(result: Any, rows: str) -> Columns:
    """The columns of a result's table.

    Standard errors are 0 where the result is exact, and NaN where they are unknown.

    Args:
        result: the ``Attribution``, which imports this module.
        rows: ``"features"``, ``"tokens"``, ``"steps"``, ``"pairs"``, ``"groups"``, ``"modules"`` or ``"texts"``.

    Raises:
        UnknownNameError: there is no such table.
        ResultError: the result has no step scores, pairs, groups, modules or texts, or no values of tokens.
    """
    tables: Mapping[str, Callable[[Any], Columns]] = {
        "features": _of_features,
        "tokens": _of_tokens,
        "steps": _of_steps,
        "pairs": _of_pairs,
        "groups": _of_groups,
        "modules": _of_modules,
        "texts": _of_texts,
    }
    if not isinstance(rows, str) or rows not in tables:
        raise unknown_name("table of a result", rows if isinstance(rows, str) else shown(rows), tables)
    return tables[rows](result)


def _of_features(result: Any) -> Columns:
    return {
        "feature": result.feature_names,
        "text": [feature.text for feature in result.features],
        **_of_generated(result, 1),
        "attribution": result.values,
        "std_error": _errors(result, result.std_error, result.values.shape),
    }


def _of_tokens(result: Any) -> Columns:
    if not result.has_token_values:
        how = "" if result.provenance.samples else " Leave per_token=False out of the method's options."
        raise ResultError(
            f"This result of the method {result.provenance.method!r} has no table of tokens: only the whole target was "
            f"scored.{how}"
        )
    n, t = len(result.features), len(result.target_tokens)
    return {
        "position": np.repeat(np.arange(t), n),
        "token": np.repeat(np.array(result.target_tokens, dtype=object), n),
        "feature": list(result.feature_names) * t,
        **_of_generated(result, t),
        "attribution": result.token_values.ravel(),
        "std_error": _errors(result, result.token_std_error, result.token_values.shape).ravel(),
    }


def _of_generated(result: Any, times: int) -> Columns:
    """The position in the target of features that are its tokens, and ``None`` for others; no column without any."""
    places = [feature.generated for feature in result.features]
    return {"generated": places * times} if result.generated_features else {}


def _of_steps(result: Any) -> Columns:
    if not result.step_scores:
        raise ResultError(
            "This result has no step scores; attribute with step_scores=[…], such as ['prob', 'entropy']."
        )
    tokens = {"position": np.arange(len(result.target_tokens)), "token": list(result.target_tokens)}
    return tokens | {(f"{name} score" if name in tokens else name): v for name, v in result.step_scores.items()}


def _of_pairs(result: Any) -> Columns:
    if "interactions" not in result.extras:
        raise _without(result, "pairs", "interactions")
    first, second = np.triu_indices(len(result.features), 1)
    errors = result.extras.get("interactions_std_error")
    matrix = np.array(result.extras["interactions"], dtype=np.float64)
    spread = _errors(result, None if errors is None else np.array(errors, dtype=np.float64), matrix.shape)
    names = np.array(result.feature_names, dtype=object)
    return {
        "feature": names[first],
        "other": names[second],
        "interaction": matrix[first, second],
        "std_error": spread[first, second],
    }


def _of_groups(result: Any) -> Columns:
    if "tree" not in result.extras:
        raise _without(result, "groups", "hierarchical")
    tree = result.extras["tree"]
    errors = [0.0 if row["std_error"] is None else row["std_error"] for row in tree]
    return {
        "level": [row["level"] for row in tree],
        "depth": [row["depth"] for row in tree],
        "parent": [row["parent"] for row in tree],
        "text": [row["text"] for row in tree],
        "features": [[result.feature_names[i] for i in row["members"]] for row in tree],
        "attribution": np.array([row["value"] for row in tree], dtype=np.float64),
        "std_error": np.array(errors, dtype=np.float64),
    }


def _of_modules(result: Any) -> Columns:
    if "modules" not in result.extras:
        raise _without(result, "modules", "layer_integrated_gradients")
    places, n = [place_of(name) for name in result.extras["modules"]], len(result.features)
    return {
        "module": [place.name for place in places for _ in range(n)],
        "layer": [place.layer for place in places for _ in range(n)],
        "part": [place.part for place in places for _ in range(n)],
        "feature": list(result.feature_names) * len(places),
        "attribution": module_values(result.extras).ravel(),
    }


def _of_texts(result: Any) -> Columns:
    if "texts" not in result.extras:
        raise ResultError(
            "This result has no texts: its target function reads none. Those that do, such as 'chrf', keep them."
        )
    rows = [
        (one, text, value)
        for one in result.extras["texts"]
        for text, value in zip(one["texts"], one["values"], strict=True)
    ]
    names, everything = result.feature_names, range(len(result.features))
    return {
        "absent": [[names[i] for i in everything if i not in one["present"]] for one, _, _ in rows],
        "prompt": [one["prompt"] for one, _, _ in rows],
        "text": [text for _, text, _ in rows],
        "value": np.array([value for _, _, value in rows], dtype=np.float64),
    }


def _errors(result: Any, errors: np.ndarray | None, shape: tuple[int, ...]) -> np.ndarray:
    """Standard errors as numbers; without any, they are 0 only if those of the whole target say that all is exact."""
    if errors is not None:
        return errors
    return np.full(shape, 0.0 if result.std_error is None and result.token_std_error is None else np.nan)


def _without(result: Any, rows: str, method: str) -> ResultError:
    return ResultError(
        f"This result of the method {result.provenance.method!r} has no table of {rows}; they come with "
        f'method="{method}".'
    )
