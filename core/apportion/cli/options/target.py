"""The output that is explained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from apportion.cli.options.command import NO_VALUE, in_panel
from apportion.cli.parse import json_pairs, json_pairs_by_owner, token_ids, usage_error
from apportion.cli.texts import reads_texts

__all__ = ["TargetOptions"]

_option = in_panel("Target")


@dataclass(frozen=True, slots=True)
class TargetOptions:
    """The target, its target function, and the generation of a target."""

    target: Annotated[
        str | None,
        _option(
            "--target",
            "-t",
            metavar="TEXT",
            show_default="the model's own continuation",
            help="Output to explain, with its leading space: ' playing golf'.",
        ),
    ] = None
    target_ids: Annotated[str | None, _option(metavar="ID,ID", help="The same, as token ids: 504,2471.")] = None
    target_fn: Annotated[
        str,
        _option(
            metavar="NAME",
            help="Property of the output to explain: log_prob (nats), prob, entropy, …; see `apportion targets`.",
        ),
    ] = "log_prob"
    contrast: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            help="Text to compare the target with, for contrastive target functions such as contrast_prob_diff.",
        ),
    ] = None
    contrast_ids: Annotated[str | None, _option(metavar="ID,ID", help="The same, as token ids: 504,2471.")] = None
    target_option: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME=VALUE",
            help="Option of the target function: top_k=20. Repeatable; see `apportion targets show NAME`.",
        ),
    ] = ()
    attribute_generated: Annotated[
        bool,
        _option(
            "--attribute-generated",
            metavar=NO_VALUE,
            help="Also score the target's own tokens, by what they do for the tokens after them.",
        ),
    ] = False
    step_score: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME",
            help="Target function to record for each target token, beside the attributions: prob, entropy, … "
            "Repeatable; see `apportion targets`.",
        ),
    ] = ()
    step_score_option: Annotated[
        tuple[str, ...],
        _option(
            metavar="NAME.OPTION=VALUE",
            help="Option of a step score: kl_divergence.reference=empty. Repeatable.",
        ),
    ] = ()
    max_new_tokens: Annotated[
        int | None,
        _option(
            metavar="N", min=1, show_default="25", help="Maximum number of tokens of the model's own continuation."
        ),
    ] = None
    stop: Annotated[
        tuple[str, ...],
        _option(
            metavar="TEXT",
            show_default="a line break, if the prompt has answers of one line",
            help=r"Text before which the model's own continuation ends; \n is a line break, and '' lets it go on. "
            "Repeatable.",
        ),
    ] = ()
    generate: Annotated[
        tuple[str, ...],
        _option(
            metavar="KEY=VALUE",
            show_default="greedy",
            help="Option of the generation: do_sample=true. Repeatable.",
        ),
    ] = ()

    samples: Annotated[
        int | None,
        _option(
            metavar="N",
            min=1,
            show_default="1",
            help="Texts that the model writes after each prompt, for target functions that read texts; their noise is "
            "part of the standard errors.",
        ),
    ] = None

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``Explainer.attribute``.

        Raises:
            typer.BadParameter: options that cannot be read or do not go together.
        """
        return {
            "target": _text_or_ids("--target", self.target, self.target_ids),
            "target_fn": self.target_fn,
            "contrast": _text_or_ids("--contrast", self.contrast, self.contrast_ids),
            "target_options": json_pairs("--target-option", self.target_option, "top_k=20"),
            "generate": self._generation(),
            "samples": self.samples,
            "attribute_generated": self.attribute_generated,
            "step_scores": self._step_scores(),
        }

    def _step_scores(self) -> list[tuple[str, dict[str, Any]]] | None:
        options = json_pairs_by_owner("--step-score-option", self.step_score_option, "kl_divergence.reference=empty")
        for name in options:
            if name not in self.step_score:
                usage_error("--step-score-option", f"{name!r} is not among the step scores; add --step-score {name}.")
        twice = next((name for name in self.step_score if self.step_score.count(name) > 1), None)
        if twice is not None:
            usage_error("--step-score", f"{twice!r} is given twice.")
        return [(name, options.get(name, {})) for name in self.step_score] or None

    def _generation(self) -> dict[str, Any] | None:
        options = json_pairs("--generate", self.generate, "do_sample=true")
        if self.max_new_tokens is not None:
            if "max_new_tokens" in options:
                usage_error("--max-new-tokens", "--generate max_new_tokens=… is given too; leave one of them out.")
            options["max_new_tokens"] = self.max_new_tokens
        if self.stop:
            if "stop" in options:
                usage_error("--stop", "--generate stop=… is given too; leave one of them out.")
            options["stop"] = _stop_texts(self.stop)
        given = self.target is not None or self.target_ids is not None
        if options and given and not reads_texts(self.target_fn):
            flag = "--generate" if self.generate else "--stop" if self.stop else "--max-new-tokens"
            usage_error(flag, "this is for a target that the model generates, and the target is given.")
        return options or None


def _stop_texts(texts: tuple[str, ...]) -> list[str]:
    """The stop texts, with the escapes that a shell leaves alone; one empty text stands for none."""
    if texts == ("",):
        return []
    if "" in texts:
        usage_error("--stop", "an empty text means that nothing ends the continuation; leave it or the others out.")
    return [text.replace(r"\n", "\n").replace(r"\t", "\t") for text in texts]


def _text_or_ids(flag: str, text: str | None, ids: str | None) -> str | list[int] | None:
    if text == "":
        usage_error(flag, "the text is empty; give at least one character, or leave it out.")
    if ids is None:
        return text
    if text is not None:
        usage_error(f"{flag}-ids", f"{flag} is given too; leave one of them out.")
    return token_ids(f"{flag}-ids", ids)
