"""``apportion attribute``: one prompt, one result."""

from __future__ import annotations

import contextlib
import sys
from functools import partial

from apportion.cli.costs import CostOptions, deliver_cost
from apportion.cli.job import job_with_prompt
from apportion.cli.options.method import MethodOptions
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

apportion attribute "What is the capital of France? Answer in one word." --as-chat --features sentences

apportion attribute "Where is Dave?" --document a.txt --document b.txt --features sentences --as-chat

apportion attribute -m llava-hf/llava-1.5-7b-hf --image photo.jpg "What is on the table?" \
  --segments slic:40 --fill blur --plot out.png
"""


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
    # Output that plugins print while they work does not belong among the results.
    with contextlib.redirect_stdout(sys.stderr), job.opened() as explainer:
        if cost.dry_run:
            cached = bool(job.explainer["cache"])
            expected = explainer.estimate(**job.call, **job.method_options)
            deliver = partial(deliver_cost, expected, output.as_json, cached=cached)
        else:
            deliver = partial(job.outputs.deliver, explainer.attribute(**job.call, **job.method_options))
    deliver()
