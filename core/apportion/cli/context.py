"""``apportion context``: which output tokens depend on the context, and on what in it."""

from __future__ import annotations

import contextlib
import json
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from apportion.cli.job import Job, job_with_prompt, job_without_prompt
from apportion.cli.listing import stdout_is_unicode
from apportion.cli.options.command import Without, in_panel
from apportion.cli.options.context import ContextOptions
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.output import OUTPUT, OutputOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.cli.outputs import check_writable, in_words_of_the_shell, write_file
from apportion.cli.parse import usage_error
from apportion.cli.prompting import plain_text
from apportion.hooks.manager import installed_plugins

if TYPE_CHECKING:
    from apportion.results.context_reliance import ContextReliance

__all__ = ["EXAMPLES", "context", "saved_reliance", "show_reliance"]

EXAMPLES = r"""
Examples:

apportion context "His colleagues asked him" --context "George was sick yesterday."

apportion context "Where is Dave?" --document a.txt --document b.txt --features sentences --as-chat --html dave.html
"""


@dataclass(frozen=True, slots=True)
class PageOptions:
    """The page."""

    html: Annotated[
        Path | None,
        in_panel(OUTPUT)(metavar="FILE.html", help="Write an HTML page that links each token with its cues."),
    ] = None


def context(
    model: ModelOptions,
    prompt: PromptOptions,
    context: ContextOptions,
    target: Annotated[
        TargetOptions, Without("target_fn", "contrast", "contrast_ids", "step_score", "step_score_option")
    ],
    method: Annotated[MethodOptions, Without("method")],
    output: Annotated[OutputOptions, Without("plot", "view", "view_option")],
    page: PageOptions,
) -> None:
    """Find the output tokens that depend on the context, and the parts of it that each of them relies on.

    The output is read with the context and without; tokens whose predictions differ most are attributed to the context
    (PECoRe, arXiv 2310.01188).
    """
    if page.html is not None:
        if page.html.suffix.lower() != ".html":
            usage_error("--html", f"a page is HTML; {page.html} should end in .html.")
        check_writable(page.html)
    job, call = _job(model, prompt, context, target, method, output)
    with contextlib.redirect_stdout(sys.stderr), job.opened(check=lambda: None) as explainer:
        found = explainer.context_reliance(**call, **job.method_options)
    if job.outputs.save is not None:
        write_file(job.outputs.save, found.to_json().encode())
    show_reliance(found, html=page.html, as_json=output.as_json)


def _job(
    model: ModelOptions,
    prompt: PromptOptions,
    context: ContextOptions,
    target: TargetOptions,
    method: MethodOptions,
    output: OutputOptions,
) -> tuple[Job, dict[str, Any]]:
    """The checked command line, and the arguments of ``Explainer.context_reliance``."""
    plugins = installed_plugins()
    for name in (context.metric, context.target_fn):
        plugins["targets"].get(name)
    text, named = context.text(), context.arguments()
    method = replace(method, method=context.method or "auto")
    if text is None:
        if context.context_template != ContextOptions.__dataclass_fields__["context_template"].default:
            usage_error("--context-template", "there is no --context that goes into it.")
        job = job_with_prompt(model, prompt, target, method, output)
        own: dict[str, Any] = {"prompt": job.call["prompt"]}
    else:
        inputs = [*prompt.files, *context.files]
        job = job_without_prompt(model, target, method, output, inputs=inputs)
        own = {"prompt": plain_text(prompt, "--context"), "context": text, "template": context.context_template}
        own["features"] = prompt.features
    shared = ("target", "target_options", "generate", "budget", "until", "seed")
    return job, {**own, **{name: job.call[name] for name in shared}, **named}


def saved_reliance(path: Path) -> ContextReliance | None:
    """The context reliance in a file; ``None`` if the file holds something else.

    Raises:
        ResultError: it is damaged.
    """
    from apportion.results.context_reliance import SCHEMA, ContextReliance

    try:
        data = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return ContextReliance.load(path) if isinstance(data, dict) and data.get("schema") == SCHEMA else None


def show_reliance(found: ContextReliance, *, html: Path | None, as_json: bool) -> None:
    """Write the page, and print the result as JSON or as a view.

    Raises:
        InputError: the page cannot be written.
    """
    shown = replace(found, attribution=in_words_of_the_shell(found.attribution))
    if html is not None:
        write_file(html, shown.to_html().encode())
    if as_json:
        print(found.to_json(ascii_only=not stdout_is_unicode()))  # noqa: T201
    else:
        shown.show()
