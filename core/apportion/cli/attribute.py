"""``apportion attribute``: one prompt, one result."""

from __future__ import annotations

import contextlib
import sys
from dataclasses import dataclass
from typing import Annotated

import typer

from apportion.cli.job import Job, job_with_prompt
from apportion.cli.listing import print_json
from apportion.cli.options.command import NO_VALUE
from apportion.cli.options.method import METHOD, MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.output import OutputOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions

__all__ = ["EXAMPLES", "attribute"]

EXAMPLES = r"""
Examples:

apportion attribute "Dave is a lawyer. He likes" --target " golf"

apportion attribute --template "{name} is a {job}. {pronoun} likes" \
  --value name=Dave --value job=lawyer --value pronoun=He \
  --baseline name=Sarah --baseline job=doctor --baseline pronoun=She \
  --group name,pronoun --save dave.json --plot dave.png

apportion attribute "What is the capital of France? Answer in one word." --as-chat --by sentences

apportion attribute "Where is Dave?" --document a.txt --document b.txt --by sentences --as-chat
"""


@dataclass(frozen=True, slots=True)
class CostOptions:
    """The cost of a run, instead of the run."""

    dry_run: Annotated[
        bool,
        typer.Option(
            "--dry-run",
            metavar=NO_VALUE,
            rich_help_panel=METHOD,
            help="Only report what the run would cost: evaluations, tokens, time and memory.",
        ),
    ] = False


def attribute(
    model: ModelOptions,
    prompt: PromptOptions,
    target: TargetOptions,
    method: MethodOptions,
    output: OutputOptions,
    cost: CostOptions,
) -> None:
    """Score the parts of a prompt by how much they made the model say the target."""
    job = job_with_prompt(model, prompt, target, method, output)
    if cost.dry_run:
        _deliver_cost(job, as_json=output.as_json)
        return
    # Output that plugins print while they work does not belong among the results.
    with contextlib.redirect_stdout(sys.stderr), job.opened() as explainer:
        result = explainer.attribute(**job.call, **job.method_options)
    job.outputs.deliver(result)


def _deliver_cost(job: Job, *, as_json: bool) -> None:
    with contextlib.redirect_stdout(sys.stderr), job.opened() as explainer:
        cost = explainer.estimate(**job.call, **job.method_options)
    if as_json:
        print_json(cost.to_dict())
    else:
        cost.show()
