"""Results as JSON, with a versioned schema. Reading is strict, and writing is atomic."""

from __future__ import annotations

import json
import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np

from apportion.errors import InputError, ResultError, listing
from apportion.files import read_text, write_atomically
from apportion.protocols.features import Feature, Segment
from apportion.results.picture_json import picture_from_json, picture_to_json
from apportion.results.provenance import Provenance
from apportion.results.recipe import recipe_of_dict
from apportion.results.seal import SEAL, intact, seal_of

__all__ = ["SCHEMA", "SCHEMA_VERSION", "dumps", "fields_of", "plain", "read", "to_dict", "write"]

SCHEMA = "apportion.attribution"
SCHEMA_VERSION = 2
OTHERS = {
    "apportion.context_reliance": "a saved context reliance. Read it with ContextReliance.load; it holds an "
    "attribution, as its .attribution",
    "apportion.evaluation": "a saved evaluation, which holds no attribution. Read it with Evaluation.load",
}
"""Other files of apportion, by their schema."""
READABLE = (1, 2)
"""Versions that can be read; version 1 has no recipe."""

_ARRAYS = ("values", "token_values", "std_error", "token_std_error", "top_agreement")
_PLAIN = ("estimand", "base_value", "full_value", "target_text", "signed")


def to_dict(result: Any, *, pixels: bool = False) -> dict[str, Any]:
    """Convert an ``Attribution`` to plain values for JSON; NaN becomes ``None``.

    Args:
        result: the attribution.
        pixels: include the pixels of its pictures.
    """
    data: dict[str, Any] = {"schema": SCHEMA, "version": SCHEMA_VERSION}
    data |= {name: getattr(result, name) for name in _PLAIN}
    data["features"] = [_feature(feature) for feature in result.features]
    data["target_tokens"] = list(result.target_tokens)
    data |= {name: plain(getattr(result, name)) for name in _ARRAYS}
    data["segments"] = [[segment.text, segment.feature] for segment in result.segments]
    data["provenance"] = plain(asdict(result.provenance))
    data["step_scores"] = {name: plain(values) for name, values in result.step_scores.items()}
    data["extras"] = {str(key): plain(value) for key, value in result.extras.items()}
    data["recipe"] = None if result.recipe is None else asdict(result.recipe)
    if result.pictures:
        data["pictures"] = [picture_to_json(picture, pixels=pixels) for picture in result.pictures]
    # A file that was changed is not made whole by saving it again.
    data[SEAL] = "" if result.changed else seal_of(data)
    return data


def _feature(feature: Feature) -> dict[str, Any]:
    """A feature as plain values; those of a prompt are as earlier versions wrote them, and can read them."""
    data = asdict(feature)
    return data if feature.generated is not None else {name: data[name] for name in data if name != "generated"}


def dumps(data: Mapping[str, Any], *, ascii_only: bool = False) -> str:
    """Convert the output of ``to_dict`` to JSON.

    Raises:
        ResultError: ``extras`` or options contain something that JSON cannot represent.
    """
    try:
        return json.dumps(data, ensure_ascii=ascii_only, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ResultError(
            f"The result cannot be written as JSON: {error}. Its extras ({listing(data['extras'])}) and method options "
            "may contain only finite numbers, strings, lists, dicts and arrays."
        ) from error


def write(data: Mapping[str, Any], path: Path) -> Path:
    """Write the output of ``to_dict`` to a file; an existing file is replaced only once the new one is complete.

    Raises:
        ResultError: the data cannot be serialised, or the file cannot be written.
    """
    text = dumps(data)
    try:
        write_atomically(path, text.encode())
    except OSError as error:
        raise ResultError(f"Cannot write {path}: {error.strerror or error}.") from error
    return path


def read(path: Path) -> dict[str, Any]:
    """Read the fields of an ``Attribution`` from a file; unknown fields are rejected.

    Raises:
        ResultError: the file is missing, is not JSON in UTF-8, or has another schema or version, or fields are
            missing or unknown.
    """
    try:
        data = json.loads(read_text(path))
    except OSError as error:
        raise ResultError(f"Cannot read {path}: {error.strerror or error}.") from error
    except InputError as error:
        raise ResultError(str(error)) from error
    except (ValueError, RecursionError) as error:
        raise ResultError(f"{path} is not a saved attribution: it is not valid JSON ({error}).") from error
    return fields_of(data, str(path))


def fields_of(data: object, place: str) -> dict[str, Any]:
    """Convert plain values to the fields of an ``Attribution``; unknown fields are rejected.

    Args:
        data: output of ``to_dict``.
        place: source of the data, for messages.

    Warns:
        UserWarning: the data was changed after it was saved.

    Raises:
        ResultError: the schema or version is another one, or fields are missing or unknown.
    """
    if isinstance(data, dict) and data.get("schema") in OTHERS:
        raise ResultError(f"{place} is {OTHERS[data['schema']]}.")
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise ResultError(f'{place} is not a saved attribution: it has no "schema": "{SCHEMA}".')
    if data.get("version") not in READABLE or isinstance(data.get("version"), bool):
        raise ResultError(
            f"{place} has schema version {data.get('version')!r}; this version of apportion reads {READABLE[0]} "
            f"to {SCHEMA_VERSION}. "
            "Upgrade apportion, or save the result again with a version that can read it."
        )
    try:
        found = _fields(data)
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise ResultError(f"{place} is damaged: {type(error).__name__}: {error}.") from error
    # Files of version 1 hold no arguments, with which they could be evaluated.
    found["changed"] = data["version"] != 1 and not intact(data)
    if found["changed"]:
        warnings.warn(
            f"{place} was changed after it was saved. It can be shown, but not evaluated or refined.", stacklevel=4
        )
    return found


def _fields(data: dict[str, Any]) -> dict[str, Any]:
    # Files from older versions do not have these fields.
    data = {"top_agreement": None, "recipe": None, "signed": True, "step_scores": {}, "pictures": []} | data
    known = {"schema", "version", SEAL, "features", "target_tokens", "segments", "provenance", "extras", "recipe"}
    known |= {"step_scores", "pictures"}
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
        token_values=_required(shapes, "token_values", or_unknown=True),
        std_error=shapes["std_error"],
        token_std_error=shapes["token_std_error"],
        top_agreement=shapes["top_agreement"],
        segments=tuple(Segment(text, feature) for text, feature in data["segments"]),
        provenance=Provenance(**provenance),
        step_scores=_step_scores(data["step_scores"], len(data["target_tokens"])),
        extras=data["extras"],
        pictures=tuple(picture_from_json(picture, len(features)) for picture in data["pictures"]),
        recipe=None if data["recipe"] is None else recipe_of_dict(data["recipe"]),
        **{name: data[name] for name in _PLAIN},
    )
    _check_shapes(found)
    return found


def _check_types(data: Mapping[str, Any]) -> None:
    """Check the types that views rely on; the rest of the provenance is only displayed.

    Raises:
        TypeError: a field has the wrong type; the message names it.
    """
    n = len(data["features"])
    texts = [data["estimand"], data["target_text"], *data["target_tokens"], *data["provenance"]["notes"]]
    for feature in data["features"]:
        texts += [feature["name"], feature["text"], feature["baseline"], *feature["members"]]
    _check_generated([feature.get("generated") for feature in data["features"]], len(data["target_tokens"]))
    for text, feature in data["segments"]:
        texts.append(text)
        if feature is not None and (type(feature) is not int or not 0 <= feature < n):
            raise TypeError(f"segment {text!r} refers to feature {feature!r} of {n}")
    wrong = next((text for text in texts if not isinstance(text, str)), None)
    if wrong is not None:
        raise TypeError(f"{wrong!r} should be a string")
    for name in ("base_value", "full_value"):
        if data[name] is not None and (type(data[name]) not in (int, float) or not math.isfinite(data[name])):
            raise TypeError(f"{name} is {data[name]!r}, not a finite number")
    if type(data["signed"]) is not bool:
        raise TypeError(f"signed is {data['signed']!r:.40}, not true or false")
    _check_provenance(data["provenance"])
    if not isinstance(data["extras"], dict) or not n:
        raise TypeError("there are no features, or extras is not an object")


def _check_generated(places: Sequence[object], tokens: int) -> None:
    """Check that the features are those of the prompt, and then perhaps all tokens of the target but the last.

    Raises:
        ValueError: they are not.
    """
    own = [place for place in places if place is not None]
    if own and (places[-len(own) :] != list(range(tokens - 1)) or any(type(place) is not int for place in own)):
        raise ValueError(f"the features are the target tokens {own!r:.60} of {tokens}, not all but the last, in order")


def _check_provenance(provenance: Mapping[str, Any]) -> None:
    kinds = {
        "str": (str,),
        "int": (int,),
        "float": (int, float),
        "None": (type(None),),
        "tuple[str, ...]": (list,),
    }
    for one in fields(Provenance):
        if one.name not in provenance:
            continue
        value = provenance[one.name]
        allowed = tuple(kind for part in str(one.type).split(" | ") for kind in kinds.get(part, (dict,)))
        if type(value) not in allowed or (isinstance(value, float) and not math.isfinite(value)):
            raise TypeError(f"provenance.{one.name} is {value!r:.60}")


def _check_shapes(found: Mapping[str, Any]) -> None:
    wanted = (len(found["target_tokens"]), len(found["features"]))
    shapes = found["values"].shape, found["token_values"].shape
    if shapes != (wanted[1:], wanted):
        raise ValueError(f"shapes {shapes[0]} and {shapes[1]} do not fit {wanted}")
    if not found["signed"] and ((found["values"] < 0).any() or (found["token_values"] < 0).any()):
        raise ValueError("magnitudes (signed: false) are negative")
    shares = found["top_agreement"]
    if shares is not None and (shares.shape != wanted[1:] or not ((shares >= 0) & (shares <= 1)).all()):
        raise ValueError(f"top_agreement must be {wanted[1]} numbers between 0 and 1")
    for errors, shape in ((found["std_error"], wanted[1:]), (found["token_std_error"], wanted)):
        if errors is not None and errors.shape != shape:
            raise ValueError(f"standard errors of shape {errors.shape} do not fit {shape}")
        if errors is not None and (errors < 0).any():
            raise ValueError(f"a standard error is negative: {np.nanmin(errors):g}")


def _step_scores(data: Any, tokens: int) -> dict[str, np.ndarray]:
    """Step scores by name; null, for a value that is not finite, becomes NaN."""
    if not isinstance(data, dict):
        raise TypeError(f"the step scores are {data!r:.60}")
    found = {str(name): _array(values) for name, values in data.items()}
    for name, values in found.items():
        if values is None or values.shape != (tokens,):
            raise ValueError(f"the step score {name!r} must be {tokens} numbers")
    return {name: values for name, values in found.items() if values is not None}


def _refuse_unknown(what: str, data: Mapping[str, Any], known: set[str]) -> None:
    unknown = sorted(set(data) - known)
    if unknown:
        raise ValueError(f"unknown {what} {listing(unknown)}")


def _required(arrays: Mapping[str, np.ndarray | None], name: str, *, or_unknown: bool = False) -> np.ndarray:
    array = arrays[name]
    if array is None:
        raise ValueError(f"{name} is missing")
    if not np.isfinite(array).all() and not (or_unknown and np.isnan(array).all()):
        raise ValueError(f"{name} must be finite numbers, without null")
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
    """Convert arrays and tensors to nested lists, and NaN to ``None``; fp32 arrays in no more digits than they have."""
    if isinstance(value, np.ndarray) and value.dtype == np.float32:
        value = value.astype(str).astype(np.float64)
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    return None if isinstance(value, float) and math.isnan(value) else value
