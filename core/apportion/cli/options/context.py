"""The context of a prompt, the metric, and the thresholds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from apportion.cli.options.command import in_panel
from apportion.cli.parse import json_or_text, json_pairs, usage_error
from apportion.cli.reading import check_named, read_text, without_last_line_break

__all__ = ["ContextOptions"]

_option = in_panel("Context")

NO_LIMIT = "none"


@dataclass(frozen=True, slots=True)
class ContextOptions:
    """The context, how it goes with the input, and what counts as sensitive and as a cue."""

    context: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            show_default="the features of the prompt",
            help="Context of the PROMPT. Leave it out for --document, --chat and --template, whose features are the "
            "context.",
        ),
    ] = None
    context_file: Annotated[
        Path | None,
        _option(metavar="FILE", help="Read the context from this UTF-8 file. A line break at the end is dropped."),
    ] = None
    context_template: Annotated[
        str, _option(metavar="TEXT", help="How context and prompt go together, with {context} and {input}.")
    ] = "{context} {input}"
    contextless: Annotated[
        str | None,
        _option(
            metavar="TEXT",
            show_default="{input}, or the prompt without its features",
            help="The prompt without its context, in which {input} stands for the PROMPT.",
        ),
    ] = None
    metric: Annotated[
        str,
        _option(
            metavar="NAME",
            help="Target function that compares the predictions with and without the context: kl_divergence, pcxmi or "
            "in_context_pvi.",
        ),
    ] = "kl_divergence"
    metric_option: Annotated[
        tuple[str, ...], _option(metavar="NAME=VALUE", help="Option of the metric: top_k=20. Repeatable.")
    ] = ()
    threshold: Annotated[
        str,
        _option(
            metavar="X",
            help="Standard deviations above the mean from which a token depends on the context; 'none' for no "
            "threshold.",
        ),
    ] = "1.0"
    top_tokens: Annotated[
        int | None, _option(metavar="N", min=1, show_default="no limit", help="Maximum number of such tokens.")
    ] = None
    cue_threshold: Annotated[str, _option(metavar="X", help="The same threshold for the cues of a token.")] = "1.0"
    top_cues: Annotated[
        int | None, _option(metavar="N", min=1, show_default="no limit", help="Maximum number of cues of a token.")
    ] = None
    target_fn: Annotated[
        str,
        _option(
            metavar="NAME",
            help="Target function that is attributed for each such token; contrastive ones compare it with the token "
            "that the model would say without the context.",
        ),
    ] = "contrast_prob_diff"
    method: Annotated[
        str | None,
        _option(
            metavar="NAME",
            show_default="saliency where the model allows it, else auto",
            help="Method that finds the cues; see `apportion methods`.",
        ),
    ] = None

    @property
    def files(self) -> list[Path]:
        """Files to read."""
        return [] if self.context_file is None else [self.context_file]

    def text(self) -> str | None:
        """The context; ``None`` if the prompt holds it.

        Raises:
            typer.BadParameter: two contexts are given.
            InputError: the file cannot be read.
        """
        if self.context_file is None:
            return self.context
        if self.context is not None:
            usage_error("--context-file", "--context is given too; leave one of them out.")
        check_named("--context-file", self.context_file)
        return without_last_line_break(read_text("context", self.context_file))

    def arguments(self) -> dict[str, Any]:
        """Arguments of ``Explainer.context_reliance``, but for the context.

        Raises:
            typer.BadParameter: an option cannot be read.
        """
        return {
            "contextless": self.contextless,
            "metric": self.metric,
            "metric_options": json_pairs("--metric-option", self.metric_option, "top_k=20"),
            "threshold": _deviations("--threshold", self.threshold),
            "top_tokens": self.top_tokens,
            "target_fn": self.target_fn,
            "method": self.method,
            "cue_threshold": _deviations("--cue-threshold", self.cue_threshold),
            "top_cues": self.top_cues,
        }


def _deviations(flag: str, text: str) -> float | None:
    if text.lower() == NO_LIMIT:
        return None
    found = json_or_text(flag, text)
    if isinstance(found, bool) or not isinstance(found, int | float):
        usage_error(flag, f"{text!r} is not a number of standard deviations, such as 1.0, nor 'none'.")
    return float(found)
