"""The question behind a result, in a form that a file can hold, so that it can be asked again."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from apportion.errors import ApportionError, InputError, listing
from apportion.prompts.text import Text

if TYPE_CHECKING:
    from apportion.hooks.registry import Registry
    from apportion.protocols.inputs import PromptRenderer
    from apportion.protocols.request import Request
    from apportion.protocols.targets import Target

__all__ = [
    "CONTEXT_RELIANCE",
    "METHOD",
    "PROMPT",
    "TARGET_FN",
    "Recipe",
    "as_prompt",
    "decoded_options",
    "digest_of",
    "prompt_of",
    "recipe_of",
    "recipe_of_dict",
    "target_of",
]

PROMPT, TARGET_FN, METHOD = "prompt", "target_fn", "method"

CONTEXT_RELIANCE = (
    "the attribution of a context reliance, which compares tokens with predictions that a file does not hold; run "
    "context_reliance() again, and evaluate its .attribution"
)
"""Why the target function of a context reliance is missing."""


@dataclass(frozen=True)
class Recipe:
    """The arguments of the call that made a result, as JSON values; see ``docs/reference/result-file.md``.

    Attributes:
        prompt: the prompt's type, as plugins register it, and its arguments.
        digest: hash of what the model read for the full prompt: token ids and media; and of media without any feature.
        target: the target: its token ids, their texts, and its notes.
        contrast: the target that it was compared with; ``None`` if there was none.
        target_fn: name of the target function.
        target_options: its options.
        method: name of the method, or ``"auto"``.
        options: the method's options, as given.
        scorers: name and distribution of each plugin that scored batches.
        notes: notes on the question, which a run that goes on does not find out again.
        missing: what a file cannot hold, such as functions: names of arguments, each with the reason.
    """

    prompt: Mapping[str, Any] | None
    digest: str
    target: Mapping[str, Any]
    contrast: Mapping[str, Any] | None = None
    target_fn: str | None = "log_prob"
    target_options: Any = field(default_factory=dict)
    method: str | None = "auto"
    options: Any = field(default_factory=dict)
    scorers: Sequence[Sequence[str]] = ()
    notes: Sequence[str] = ()
    missing: Mapping[str, str] = field(default_factory=dict)

    def require(self, *needed: str) -> None:
        """Check that a file could hold these arguments.

        Args:
            needed: names of arguments of ``attribute``.

        Raises:
            InputError: one of them is missing; the message says why.
        """
        lacking = [f"{name} ({self.missing[name]})" for name in needed if name in self.missing]
        if CONTEXT_RELIANCE in (self.missing.get(name) for name in needed):
            raise InputError(f"The result cannot be evaluated or refined after it was read: it is {CONTEXT_RELIANCE}.")
        if lacking:
            raise InputError(
                f"The result lacks arguments that a file cannot hold: {listing(lacking)}. Run attribute() again; with "
                "Explainer(cache=True) nothing is scored twice."
            )


def recipe_of(request: Request, inputs: Registry, notes: Sequence[str]) -> Recipe:
    """Record the arguments of a request.

    Args:
        request: the request, with its target.
        inputs: names of the types of prompts.
        notes: notes of the run.
    """
    missing: dict[str, str] = {}
    given = request.given
    prompt = _kept(PROMPT, lambda: _prompt(as_prompt(request.prompt, given.get("features")), inputs), missing)
    return Recipe(
        prompt=prompt,
        digest=digest_of(request.renderer),
        target=_target(request.target),
        contrast=None if request.target.contrast is None else _target(request.target.contrast),
        target_fn=_kept(TARGET_FN, lambda: _name(given.get("target_fn")), missing),
        target_options=_kept(TARGET_FN, lambda: _encoded(request.target_options, "target_options"), missing),
        method=_kept(METHOD, lambda: _name(given.get("method")), missing),
        options=_kept(METHOD, lambda: _encoded(request.given_options, "options"), missing),
        scorers=[list(pair) for pair in request.scorers],
        notes=list(notes),
        missing=missing,
    )


def recipe_of_dict(data: object) -> Recipe:
    """Read a recipe from the values of a file.

    Raises:
        TypeError, KeyError, ValueError: fields are missing, unknown or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise TypeError(f"the recipe is {data!r:.40}")
    recipe = Recipe(**data)
    if not isinstance(recipe.missing, Mapping):
        raise TypeError(f"the missing arguments are {recipe.missing!r:.40}")
    if PROMPT not in recipe.missing:
        prompt = recipe.prompt
        if (
            not isinstance(prompt, Mapping)
            or set(prompt) != {"type", "arguments"}
            or not isinstance(prompt["type"], str)
        ):
            raise TypeError(f"the prompt is {prompt!r:.60}")
        if not _is_options(_decoded(prompt["arguments"])):
            raise TypeError(f"the arguments of the prompt are {prompt['arguments']!r:.60}")
    for name, options in ((METHOD, recipe.options), (TARGET_FN, recipe.target_options)):
        if name not in recipe.missing and not _is_options(_decoded(options)):
            raise TypeError(f"options are {options!r:.40}")
    for target in (recipe.target, *(() if recipe.contrast is None else (recipe.contrast,))):
        ids, tokens = _decoded(target["ids"]), _decoded(target["tokens"])
        if not ids or not all(type(i) is int for i in ids) or len(tokens) != len(ids):
            raise TypeError(f"the target has the token ids {ids!r:.60} and the tokens {tokens!r:.60}")
    texts = [
        recipe.digest,
        *recipe.missing,
        *recipe.missing.values(),
        *(text for pair in recipe.scorers for text in pair),
        *recipe.notes,
    ]
    texts += [name for name in (recipe.target_fn, recipe.method) if name is not None]
    if not all(isinstance(text, str) for text in texts):
        raise TypeError("the recipe holds something else where a string is expected")
    return recipe


def _is_options(value: object) -> bool:
    return isinstance(value, Mapping) and all(isinstance(name, str) for name in value)


def as_prompt(prompt: object, features: object) -> object:
    """A plain string as the ``Text`` that it stands for; other prompts as they are."""
    if not isinstance(prompt, str):
        return prompt
    return Text(prompt) if features is None else Text(prompt, by=features)  # type: ignore[arg-type]


def prompt_of(recipe: Recipe, inputs: Registry) -> object:
    """Make the prompt again.

    Raises:
        InputError: the prompt's type is unknown, or does not take these arguments any more.
    """
    recipe.require(PROMPT)
    assert recipe.prompt is not None
    kind = inputs.get(str(recipe.prompt["type"])).load()
    try:
        return kind(**_decoded(recipe.prompt["arguments"]))
    except ApportionError:
        raise
    except Exception as error:  # types of plugins may have changed in any way
        raise InputError(
            f"The saved {recipe.prompt['type']} cannot be made again: {type(error).__name__}: {error}. Run attribute() "
            "again."
        ) from error


def target_of(data: Mapping[str, Any]) -> Target:
    """Make a saved target again, without its contrast, which is saved apart.

    Raises:
        InputError: it has other fields than targets have now.
    """
    # Imported here: results are shown without torch.
    from apportion.protocols.targets import Target

    try:
        return Target(**{name: _decoded(value) for name, value in data.items()})
    except TypeError as error:
        raise InputError(
            f"The saved target cannot be made again: {error}. Run attribute() again with this version."
        ) from error


def decoded_options(options: Any) -> dict[str, Any]:
    """Options as they were given."""
    found: dict[str, Any] = _decoded(options)
    return found


def digest_of(renderer: PromptRenderer) -> str:
    """Hash of the token ids and media that a model reads for the full prompt.

    If there are media, it covers those without any feature, too: what fills them may come from a file.
    """
    full = renderer.full()
    media = (*full.media, *(renderer.empty().media if full.media else ()))
    text = repr((full.ids, tuple((one.kind, one.digest) for one in media)))
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


class _UnsavableError(Exception):
    """A value that JSON cannot hold without loss; the message names it."""


def _kept(name: str, make: Any, missing: dict[str, str]) -> Any:
    try:
        return make()
    except _UnsavableError as error:
        missing.setdefault(name, str(error))
        return None


def _name(given: object) -> str:
    if not isinstance(given, str):
        if (why := getattr(given, "unsavable", None)) is not None:
            raise _UnsavableError(why)
        raise _UnsavableError(f"an object of the class {type(given).__name__}, not a name")
    return given


def _target(target: Target) -> dict[str, Any]:
    values = {f.name: getattr(target, f.name) for f in fields(target) if f.name != "contrast"}
    return {name: _encoded(value, name) for name, value in values.items()}


def _prompt(prompt: object, inputs: Registry) -> dict[str, Any]:
    kind = type(prompt)
    name = next((entry.name for entry in inputs if entry.load() is kind), None)
    if name is None or not is_dataclass(prompt):
        raise _UnsavableError(
            f"prompts of the class {kind.__name__}: a class whose prompts are saved and made again must be registered "
            "as an input, and be a dataclass"
        )
    arguments = {f.name: getattr(prompt, f.name) for f in fields(prompt) if f.init}
    return {"type": name, "arguments": _encoded(arguments, kind.__name__)}


def _encoded(value: object, place: str) -> Any:
    """A value as JSON, from which exactly the same value can be made: lists are not tuples, nor keys always strings.

    Raises:
        _UnsavableError: there is no such JSON.
    """
    if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
        return value
    if isinstance(value, list):
        return [_encoded(part, f"{place}[{i}]") for i, part in enumerate(value)]
    if isinstance(value, tuple):
        return {"tuple": [_encoded(part, f"{place}[{i}]") for i, part in enumerate(value)]}
    if isinstance(value, range):
        return {"range": [value.start, value.stop, value.step]}
    if isinstance(value, Mapping):
        if all(type(key) is str for key in value):
            return {"dict": {key: _encoded(part, f"{place}.{key}") for key, part in value.items()}}
        return {"pairs": [[_encoded(k, place), _encoded(v, f"{place}[{k!r}]")] for k, v in value.items()]}
    what = "a function" if callable(value) else f"an object of the class {type(value).__name__}"
    if isinstance(value, float) and not math.isfinite(value):
        what = "not a finite number"
    raise _UnsavableError(f"{place} is {what}")


def _decoded(value: Any) -> Any:
    if isinstance(value, list):
        return [_decoded(part) for part in value]
    if not isinstance(value, Mapping):
        return value
    ((kind, held),) = value.items()
    if kind == "tuple":
        return tuple(_decoded(part) for part in held)
    if kind == "range":
        return range(*held)
    if kind == "dict":
        return {key: _decoded(part) for key, part in held.items()}
    if kind == "pairs":
        return {_decoded(key): _decoded(part) for key, part in held}
    raise TypeError(f"{kind!r} is neither 'tuple', 'range', 'dict' nor 'pairs'")
