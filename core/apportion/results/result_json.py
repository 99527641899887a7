"""Results as JSON: a schema with a version, read strictly, written atomically."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from apportion.errors import ResultError, listing
from apportion.files import write_atomically
from apportion.protocols.features import Feature, Segment
from apportion.results.provenance import Provenance

__all__ = ["SCHEMA", "SCHEMA_VERSION", "dumps", "fields_of", "plain", "read", "to_dict", "write"]

SCHEMA = "apportion.attribution"
SCHEMA_VERSION = 1

_ARRAYS = ("values", "token_values", "std_error", "token_std_error", "top_agreement")
_PLAIN = ("estimand", "base_value", "full_value", "target_text")


def to_dict(result: Any) -> dict[str, Any]:
    """Plain values of an ``Attribution`` for JSON; NaN becomes ``None``."""
    data: dict[str, Any] = {"schema": SCHEMA, "version": SCHEMA_VERSION}
    data |= {name: getattr(result, name) for name in _PLAIN}
    data["features"] = [asdict(feature) for feature in result.features]
    data["target_tokens"] = list(result.target_tokens)
    data |= {name: plain(getattr(result, name)) for name in _ARRAYS}
    data["segments"] = [[segment.text, segment.feature] for segment in result.segments]
    data["provenance"] = asdict(result.provenance)
    data["extras"] = {str(key): plain(value) for key, value in result.extras.items()}
    return data


def dumps(data: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """The text of a result's file, from what ``to_dict`` gave.

    Raises:
        ResultError: ``extras`` or options hold something that JSON cannot.
    """
    try:
        return json.dumps(data, ensure_ascii=ascii_only, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultError(
            f"The result cannot be written as JSON: {error}. Its extras ({listing(data['extras'])}) and method options "
            "may hold finite numbers, texts, lists, dicts and arrays only."
        ) from error


def write(data: Mapping[str, Any], path: Path) -> Path:
    """Write what ``to_dict`` gave; a file that was there stays as it was unless the whole new one is written.

    Raises:
        ResultError: not serialisable, or not writable.
    """
    text = dumps(data)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ResultError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path


def read(path: Path) -> dict[str, Any]:
    """The fields of the ``Attribution`` in a file, refusing what this version does not know.

    Raises:
        ResultError: missing, not JSON, another schema or version, missing or unknown fields.
    """
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ResultError(f"Cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is not a saved attribution: it is not valid JSON ({error}).") from error
    return fields_of(data, str(path))


def fields_of(data: object, place: str) -> dict[str, Any]:
    """The fields of the ``Attribution`` that plain values hold, refusing what this version does not know.

    Args:
        data: what ``to_dict`` gave.
        place: where they were found, for messages.

    Raises:
        ResultError: another schema or version, missing or unknown fields.
    """
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ResultError(f'{place} is not a saved attribution: it has no "schema": "{SCHEMA}".')
    if data.get("version") != SCHEMA_VERSION:
        raise ResultError(
            f"{place} has schema version {data.get('version')!r}; this apportion reads version {SCHEMA_VERSION}. "
            "Upgrade apportion, or save the result again with a version that can read it."
        )
    try:
        return _fields(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ResultError(f"{place} is damaged: {type(error).__name__}: {error}.") from error


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    # Files from before it was kept do not have it.
    data = {"top_agreement": None} | data
    known = {"schema", "version", "features", "target_tokens", "segments", "provenance", "extras"}
    _refuse_unknown("fields", data, known | set(_ARRAYS) | set(_PLAIN))
    _refuse_unknown("provenance fields", data["provenance"], {f.name for f in fields(Provenance)})
    _check_types(data)
    provenance = data["provenance"] | {"notes": tuple(data["provenance"]["notes"])}
    features = tuple(Feature(**(f | {"members": tuple(f["members"])})) for f in data["features"])
    shapes = {name: _array(data[name]) for name in _ARRAYS}
    found = dict(
        features=features,
        target_tokens=tuple(data["target_tokens"]),
        values=_required(shapes, "values"),
        token_values=_required(shapes, "token_values"),
        std_error=shapes["std_error"],
        token_std_error=shapes["token_std_error"],
        top_agreement=shapes["top_agreement"],
        segments=tuple(Segment(text, feature) for text, feature in data["segments"]),
        provenance=Provenance(**provenance),
        extras=data["extras"],
        **{name: data[name] for name in _PLAIN},
    )
    _check_shapes(found)
    return found


def _check_types(data: Mapping[str, Any]) -> None:
    """What views rely on; the rest of the provenance is only shown.

    Raises:
        TypeError: naming the field.
    """
    n = len(data["features"])
    texts = [data["estimand"], data["target_text"], *data["target_tokens"], *data["provenance"]["notes"]]
    for feature in data["features"]:
        texts += [feature["name"], feature["text"], feature["baseline"], *feature["members"]]
    for text, feature in data["segments"]:
        texts.append(text)
        if feature is not None and (type(feature) is not int or not 0 <= feature < n):
            raise TypeError(f"segment {text!r} names the feature {feature!r} of {n}")
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise TypeError(f"{wrong!r} should be a text")
    for name in ("base_value", "full_value"):
        if data[name] is not None and type(data[name]) not in (int, float):
            raise TypeError(f"{name} is {data[name]!r}")
    if not isinstance(data["extras"], dict) or not n:
        raise TypeError("there are no features, or extras are no object")


def _check_shapes(found: Mapping[str, Any]) -> None:
    wanted = (len(found["target_tokens"]), len(found["features"]))
    shapes = found["values"].shape, found["token_values"].shape
    if shapes != (wanted[1:], wanted):
        raise ValueError(f"shapes {shapes[0]} and {shapes[1]} do not fit {wanted}")
    shares = found["top_agreement"]
    if shares is not None and (shares.shape != wanted[1:] or not ((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(f"top_agreement of shape {shares.shape} does not fit {wanted[1:]}, or is no share")
    for errors, shape in ((found["std_error"], wanted[1:]), (found["token_std_error"], wanted)):
        if errors is not None and (errors.shape != shape or (errors < 0).any()):
            raise ValueError(f"standard errors of shape {errors.shape} do not fit {shape}, or are negative")


def _refuse_unknown(what: str, data: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"unknown {what} {listing(unknown)}")


def _required(arrays: Mapping[str, np.ndarray | None], name: str) -> np.ndarray:
    array = arrays[name]
    if array is None:
        raise ValueError(f"{name} is missing")
    return array


def _array(value: Any) -> np.ndarray | None:
    if value is None:
        return None
    array = np.array(value, dtype=object)
    if any(type(number) not in (int, float, type(None)) for number in array.flat):
        raise TypeError(f"numbers are expected, not {value!r:.60}")
    found = array.astype(np.float64)
    if np.isinf(found).any():
        raise ValueError("a number is infinite")
    return found


def plain(value: Any) -> Any:
    """Arrays and tensors to nested lists, NaN to ``None``."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
