"""``apportion attribute``: the command and its flags."""

from __future__ import annotations

import contextlib
import sys

from apportion.cli import flags
from apportion.cli.job import MethodFlags, ModelFlags, TargetFlags, check_job
from apportion.cli.outputs import OutputFlags
from apportion.cli.prompting import PromptFlags

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
) -> None:
    """Score the parts of a prompt by how much they made the model say the target."""
    prompt_flags = PromptFlags(
        prompt, prompt_file, by, text_baseline, baseline_id, keep or (), keep_index or (),
        template, value or (), baseline or (), group or (), draws,
        input, input_option or (),
        chat, document or (), layout, as_chat,
    )  # fmt: skip
    job = check_job(
        prompt_flags,
        ModelFlags(model, backend, device, dtype, memory_budget, not no_share_prefixes, cache, not no_progress),
        TargetFlags(
            target, target_ids, target_fn, contrast, contrast_ids, target_option or (), max_new_tokens, generate or ()
        ),
        MethodFlags(method, option or (), budget, until, seed),
        OutputFlags(as_json, save, plot, view, view_option or (), run_log),
    )
    # What plugins print while they work does not belong between the results.
    with contextlib.redirect_stdout(sys.stderr):
        result = job.run()
    job.outputs.deliver(result)
