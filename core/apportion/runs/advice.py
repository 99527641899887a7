"""Advice on arguments that ``attribute`` does not have, but that users of other tools or other arguments may expect."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from apportion.errors import InputError, suggestion

__all__ = ["advice_on_prompt", "check_arguments"]

_INSTEAD: Mapping[str, tuple[str, ...]] = {
    "Write features=, such as features='sentences'.": ("by", "feature", "granularity", "level", "unit", "units"),
    "Write budget=, the maximum number of distinct evaluations.": (
        "max_evals", "max_evaluations", "n_evals", "n_evaluations", "n_samples", "nsamples", "num_evals",
        "num_evaluations", "num_samples",
    ),
    "Write seed=.": ("random_seed", "random_state", "rng"),
    "Write until=, the largest standard error allowed.": ("max_error", "std_error", "tolerance"),
    "Write target=, a text or token ids.": (
        "answer", "completion", "generated_texts", "output", "response", "target_ids", "target_text", "target_texts",
        "target_tokens",
    ),
    "Write target_fn=.": ("attributed_fn", "function", "objective", "score_fn"),
    "Write contrast=, a text or token ids.": ("contrast_ids", "contrast_target", "contrast_targets", "contrast_text"),
    "Write attribute_generated=True.": ("attribute_prefix", "attribute_target", "attribute_targets"),
    "Write method=.": ("algorithm", "attribution_method", "method_name"),
    "Write prompt=, or give the prompt first.": ("input_text", "input_texts", "inputs", "query", "text", "texts"),
    "Use attribute_many, which takes an iterable of prompts.": ("prompts",),
    "Write generate={'stop': …}, a text or a list of texts before which the target ends.": (
        "stop", "stop_sequences", "stop_strings", "until_text",
    ),
    "Write generate={…}, with options of the generation such as {'max_new_tokens': 40}.": (
        "do_sample", "gen_kwargs", "generate_kwargs", "generation", "generation_args", "max_new_tokens", "max_tokens",
        "temperature",
    ),
    "An absent feature is removed, or replaced by what the prompt names: ap.Text(…, baseline='…'), or "
    "ap.Template(…, baselines={…}).": ("baseline", "baselines", "reference", "references"),
    "Parts to keep are named by the prompt: ap.Text(…, keep=[…]).": ("keep",),
    "Features are defined by the prompt: ap.Text(…, by=a function), or ap.Template(…, groups=[…]).": (
        "feature_mask", "groups",
    ),
    "Pass ap.Chat(messages) as the prompt.": ("chat", "messages"),
    "Pass ap.Documents(question, documents) as the prompt.": ("as_chat", "documents", "layout"),
    "Batches are planned from the memory that they may use: Explainer(…, memory_budget=…).": (
        "batch_size", "internal_batch_size", "perturbations_per_eval",
    ),
    "It is an argument of Explainer: Explainer(model, …).": (
        "backend", "cache", "device", "dtype", "memory_budget", "plugins", "progress", "run_log", "show_progress",
        "tokenizer",
    ),
}  # fmt: skip
"""Advice, and the names that get it."""

_ADVICE = {name: advice for advice, names in _INSTEAD.items() for name in names}


def check_arguments(given: Iterable[str], arguments: Sequence[str], options: Iterable[str]) -> None:
    """Refuse a name that is neither an argument of ``attribute`` nor an option of the method, if there is advice on it.

    Args:
        given: names that ``attribute`` was called with, besides its own arguments.
        arguments: its own arguments.
        options: options of the method.

    Raises:
        InputError: the name is known from other tools, or is a misspelt argument.
    """
    known = list(options)
    for name in given:
        if name in known:
            continue
        if name in _ADVICE:
            raise InputError(f"attribute() has no argument {name!r}. {_ADVICE[name]}")
        meant = suggestion(name, [*known, *arguments])
        if meant and meant == suggestion(name, arguments):
            raise InputError(f"attribute() has no argument {name!r}. {meant}".rstrip())


def advice_on_prompt(prompt: object) -> str:
    """Advice on an object that no input takes, such as a list of messages; empty if there is none."""
    if hasattr(prompt, "getexif") or (
        getattr(prompt, "ndim", 0) in (2, 3) and str(getattr(prompt, "dtype", "")) == "uint8"
    ):
        return "For a picture, pass ap.ImageText(picture, text)."
    if isinstance(prompt, Mapping):
        if "messages" in prompt or "role" in prompt:
            return "A conversation is an ap.Chat: ap.Chat([{'role': 'user', 'content': '…'}])."
        return (
            "Arguments for one of several prompts go to attribute_many([{'prompt': …}])." if "prompt" in prompt else ""
        )
    if not isinstance(prompt, Sequence) or not prompt or isinstance(prompt, bytes):
        return ""
    if all(isinstance(item, Mapping) and "role" in item for item in prompt):
        return "A conversation is an ap.Chat: pass ap.Chat(messages)."
    if all(isinstance(item, str) for item in prompt):
        return "For several prompts, use attribute_many([…]); for one prompt with pieces of your own, ap.Text(…, by=…)."
    return ""
