"""The request behind a result that was read from a file, copied, or made by another explainer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from apportion.errors import InputError, listing, shown
from apportion.game.game import Game
from apportion.protocols.backend import Capability
from apportion.protocols.likeness import Likeness, differ
from apportion.protocols.methods import Estimate
from apportion.rendering.chat_hint import chat_hint
from apportion.results.attribution import Attribution
from apportion.results.context_reliance import ContextReliance
from apportion.results.recipe import METHOD, PROMPT, TARGET_FN, Recipe, decoded_options, digest_of, prompt_of, target_of

if TYPE_CHECKING:
    from apportion.hooks.registry import Registry
    from apportion.protocols.backend import Session
    from apportion.protocols.request import Request
    from apportion.runs.resolver import Resolver

__all__ = [
    "UnsavedMethod",
    "check_same_model",
    "may_be_mixed",
    "recipe_in",
    "request_again",
    "require_method",
    "require_texts",
]

DECISIVE = ("apportion", "torch", "transformers", "tokenizers")
"""Packages whose versions decide scores and random draws."""


class UnsavedMethod:
    """Stands for a method that a file cannot hold: the result can be evaluated, but not refined."""

    requires: frozenset[Capability] = frozenset()

    def __init__(self, estimand: str) -> None:
        self.estimand = estimand

    def run(self, game: Game, *, budget: int | None, rng: object) -> Estimate:
        """Refuse.

        Raises:
            InputError: always.
        """
        raise InputError("The method of this result was not saved.")


def recipe_in(result: Attribution) -> Recipe:
    """The arguments of the call that made a result.

    Raises:
        InputError: it is something else, it was changed in its file, or it is an older result, or one that was made by
            hand, and holds none.
    """
    if isinstance(result, ContextReliance):
        raise InputError("The result must be an Attribution, and this is a ContextReliance: take its .attribution.")
    if not isinstance(result, Attribution):
        raise InputError(f"The result must be an Attribution, not {type(result).__name__}: {shown(result)}.")
    if result.changed:
        raise InputError(
            "The result was changed after it was saved, so its values and its arguments may not belong together. Read "
            "the file as it was saved, or run attribute() again; with Explainer(cache=True) nothing is scored twice."
        )
    if result.recipe is None:
        raise InputError(
            "The result does not hold the arguments of the call that made it: it was saved by an earlier version, or "
            "made by hand. Run attribute() again; with Explainer(cache=True) nothing is scored twice."
        )
    return result.recipe


def check_same_model(result: Attribution, session: Session, fingerprint: str, versions: Mapping[str, str]) -> None:
    """Refuse a result of another model, or of other versions of what decides its scores.

    Args:
        result: the result.
        session: the explainer's session.
        fingerprint: of its model.
        versions: of the packages in this process.

    Raises:
        InputError: something differs; the message names it.
    """
    made = result.provenance
    if made.fingerprint != fingerprint:
        raise InputError(
            f"The result was made with another model, {made.model or 'unnamed'} (fingerprint {made.fingerprint}); this "
            f"is {session.info.model} ({fingerprint}). Open that model, or run attribute() again."
        )
    likeness: Likeness | None = getattr(session, "likeness", None)
    if likeness is not None and made.likeness:
        tolerance = max(likeness.tolerance, made.likeness["tolerance"])
        if differ(likeness.log_probs, made.likeness["log_probs"], tolerance):
            raise InputError(
                f"The result was made with other weights than those that {session.info.device} has now under the name "
                f"{session.info.model!r}. Run attribute() again."
            )
    others = [
        f"{name} {made.versions[name]}, and this is {versions[name]}"
        for name in DECISIVE
        if name in made.versions and name in versions and made.versions[name] != versions[name]
    ]
    if others:
        raise InputError(
            f"The result was made with {'; '.join(others)}. Scores and random draws may differ between versions; run "
            "attribute() again."
        )


def require_texts(result: Attribution) -> None:
    """Refuse a result that holds no texts.

    Raises:
        InputError: its target function reads none, or it is not a result.
    """
    recipe_in(result)
    if not result.provenance.samples:
        raise InputError(
            f"The target function {result.provenance.target_fn!r} reads no texts. Give a result of one that does, such "
            "as 'chrf'."
        )


def may_be_mixed(result: Attribution, session: Session) -> bool:
    """True if the texts of a result from a file may be used beside new ones: the model is known to be the same."""
    if getattr(session, "likeness", None) is not None:
        return bool(result.provenance.likeness)
    return bool(getattr(session, "steady_texts", True))


def require_method(result: Attribution, request: Request) -> None:
    """Refuse to continue a run whose method was not saved.

    Raises:
        InputError: the method, or one of its options, is an object that a file cannot hold.
    """
    if isinstance(request.method, UnsavedMethod):
        recipe_in(result).require(METHOD)


def request_again(
    result: Attribution,
    request_id: str,
    resolver: Resolver,
    inputs: Registry,
    rescored_by: tuple[object, object] | None = None,
) -> Request:
    """Make the request of a result again, with exactly its prompt and target.

    Args:
        result: the result.
        request_id: id of the new run.
        resolver: resolves names.
        inputs: types of prompts.
        rescored_by: another target function and its options, in place of the saved ones.

    Raises:
        InputError: the arguments were not saved, or they now describe another prompt.
    """
    recipe = recipe_in(result)
    recipe.require(PROMPT, *(() if rescored_by else (TARGET_FN,)))
    saved = METHOD not in recipe.missing
    target = target_of(recipe.target)
    contrast = None if recipe.contrast is None else target_of(recipe.contrast)
    arguments: dict[str, Any] = {
        "prompt": prompt_of(recipe, inputs),
        "target": list(target.ids),
        "contrast": None if contrast is None else list(contrast.ids),
        "target_fn": rescored_by[0] if rescored_by else recipe.target_fn,
        "target_options": rescored_by[1] if rescored_by else decoded_options(recipe.target_options),
        "method": recipe.method if saved else UnsavedMethod(result.estimand),
        "budget": result.provenance.budget,
        "until": result.provenance.until,
        "seed": result.provenance.seed,
        "attribute_generated": bool(result.generated_features),
        **(_writing(result) if result.provenance.samples else {}),
        **(decoded_options(recipe.options) if saved else {}),
    }
    draft = resolver.draft(request_id, **arguments)
    request = replace(draft, contrast=contrast).request(target)
    # The target is given now, but perhaps the model wrote it then.
    draft.parts["renderer"].note(chat_hint(request.prompt, draft.prompt, generated=target.generated))
    if request.adapter.features != result.features or digest_of(request.renderer) != recipe.digest:
        raise InputError(
            "The prompt reads otherwise than when the result was made: the tokenizer, its chat template, the "
            "plugin that splits the prompt, or the file of a picture or of its fill has changed. Run attribute() again."
        )
    now, then = ([": ".join(pair) for pair in scorers] for scorers in (request.scorers, recipe.scorers))
    if now != then:
        raise InputError(
            f"Other plugins scored this result: {listing(then)}; those of this explainer are {listing(now)}. Use the "
            "same plugins, or run attribute() again."
        )
    return replace(request, generation=dict(result.provenance.generation or {}))


def _writing(result: Attribution) -> dict[str, Any]:
    """The arguments of texts that are written after each prompt."""
    made = result.provenance
    return {"samples": made.samples, "generate": {"stop": None, **(made.generation or {})}}
