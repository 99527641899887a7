"""``apportion attribute``: the command and its flags."""

from __future__ import annotations

import contextlib
import sys

from apportion.cli import flags
from apportion.cli.job import Job, job_of
from apportion.cli.listing import print_json

__all__ = ["EXAMPLES", "attribute"]

EXAMPLES = r"""
Examples:

apportion attribute "Dave is a lawyer. He likes" --target " golf"

apportion attribute --template "{name} is a {job}. {pronoun} likes" \
  --value name=Dave --value job=lawyer --value pronoun=He \
  --baseline name=Sarah --baseline job=doctor --baseline pronoun=She \
  --group name,pronoun --save dave.json --plot dave.png

apportion attribute "Where is Dave?" --document a.txt --document b.txt --by sentences
"""


def attribute(
    prompt: flags.Prompt = None,
    model: flags.Model = "smollm2",
    backend: flags.Backend = "auto",
    device: flags.Device = None,
    dtype: flags.Dtype = None,
    memory_budget: flags.MemoryBudget = None,
    backend_option: flags.BackendOption = None,
    no_share_prefixes: flags.NoSharePrefixes = False,
    cache: flags.Cache = False,
    prompt_file: flags.PromptFile = None,
    input: flags.Input = None,
    input_option: flags.InputOption = None,
    by: flags.By = None,
    text_baseline: flags.TextBaseline = None,
    baseline_id: flags.BaselineId = None,
    keep: flags.Keep = None,
    keep_index: flags.KeepIndex = None,
    template: flags.Template = None,
    value: flags.Value = None,
    baseline: flags.Baseline = None,
    group: flags.Group = None,
    draws: flags.Draws = None,
    chat: flags.Chat = None,
    document: flags.Document = None,
    layout: flags.Layout = None,
    as_chat: flags.AsChat = False,
    target: flags.Target = None,
    target_ids: flags.TargetIds = None,
    target_fn: flags.TargetFn = "log_prob",
    contrast: flags.Contrast = None,
    contrast_ids: flags.ContrastIds = None,
    target_option: flags.TargetOption = None,
    max_new_tokens: flags.MaxNewTokens = None,
    generate: flags.Generate = None,
    method: flags.Method = "auto",
    option: flags.MethodOption = None,
    budget: flags.Budget = None,
    until: flags.Until = None,
    seed: flags.Seed = 0,
    as_json: flags.AsJson = False,
    save: flags.Save = None,
    plot: flags.Plot = None,
    view: flags.View = None,
    view_option: flags.ViewOption = None,
    run_log: flags.RunLog = None,
    no_progress: flags.NoProgress = False,
    dry_run: flags.DryRun = False,
) -> None:
    """Score the parts of a prompt by how much they made the model say the target."""
    job = job_of(locals())
    if dry_run:
        _deliver_cost(job, as_json=as_json)
        return
    # What plugins print while they work does not belong between the results.
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
