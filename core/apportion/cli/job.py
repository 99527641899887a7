"""One run from the flags to the result, everything that can be checked first being checked first."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli.loading import loading
from apportion.cli.outputs import OutputFlags, Outputs, check_outputs
from apportion.cli.parse import json_pairs, memory_size, token_ids, usage_error
from apportion.cli.prompting import PromptFlags, build_prompt
from apportion.files import file_to_write
from apportion.hooks.manager import installed_plugins
from apportion.options import check_options

if TYPE_CHECKING:
    from apportion.explainer import Explainer

__all__ = [
    "Job",
    "MethodFlags",
    "ModelFlags",
    "TargetFlags",
    "check_job",
    "job_of",
    "job_without_prompt",
    "prompt_flags",
]


@dataclass(frozen=True, slots=True)
class ModelFlags:
    """What was typed about the model."""

    model: str
    backend: str
    device: str | None
    dtype: str | None
    memory_budget: str | None
    options: Sequence[str]
    share_prefixes: bool
    cache: bool
    progress: bool


@dataclass(frozen=True, slots=True)
class TargetFlags:
    """What was typed about the target."""

    text: str | None
    ids: str | None
    target_fn: str
    contrast: str | None
    contrast_ids: str | None
    options: Sequence[str]
    max_new_tokens: int | None
    generate: Sequence[str]


@dataclass(frozen=True, slots=True)
class MethodFlags:
    """What was typed about the method."""

    method: str
    options: Sequence[str]
    budget: int | None
    until: float | None
    seed: int


@dataclass(frozen=True, slots=True)
class Job:
    """A command line that makes sense: everything that can be checked without a model is checked."""

    explainer: Mapping[str, Any]
    call: Mapping[str, Any]
    method_options: Mapping[str, Any]
    outputs: Outputs

    @contextmanager
    def opened(self) -> Iterator[Explainer]:
        """The explainer, its model loaded."""
        with loading(self.explainer["model"], shown=self.explainer["progress"]):
            # Imported here: this takes seconds.
            from apportion.explainer import Explainer

            _check_options(self, inspect.signature(Explainer.attribute).parameters)
            explainer = Explainer(**self.explainer)
        with explainer:
            yield explainer


def job_of(t: Mapping[str, Any]) -> Job:
    """The job that the flags of ``apportion attribute`` describe, by the names of its parameters.

    Args:
        t: what was typed.

    Raises:
        typer.BadParameter: flags that make no sense.
        ApportionError: a prompt, name or file that cannot be used.
    """
    prompt = prompt_flags(t)
    job = job_without_prompt(t, prompt.files)
    return replace(job, call={"prompt": build_prompt(prompt), **job.call})


def prompt_flags(t: Mapping[str, Any]) -> PromptFlags:
    """What was typed about the prompt."""
    return PromptFlags(
        t["prompt"], t["prompt_file"], t["by"], t["text_baseline"], t["baseline_id"], t["keep"] or (),
        t["keep_index"] or (), t["template"], t["value"] or (), t["baseline"] or (), t["group"] or (), t["draws"],
        t["input"], t["input_option"] or (), t["chat"], t["document"] or (), t["layout"], t["as_chat"],
    )  # fmt: skip


def job_without_prompt(t: Mapping[str, Any], inputs: Sequence[Path] = ()) -> Job:
    """Everything but the prompt, which may come from elsewhere.

    Args:
        t: what was typed.
        inputs: files that are read, which no output may replace.

    Raises:
        typer.BadParameter: flags that make no sense.
        ApportionError: a name or file that cannot be used.
    """
    return check_job(
        ModelFlags(
            t["model"], t["backend"], t["device"], t["dtype"], t["memory_budget"], t["backend_option"] or (),
            not t["no_share_prefixes"], t["cache"], not t["no_progress"],
        ),
        TargetFlags(
            t["target"], t["target_ids"], t["target_fn"], t["contrast"], t["contrast_ids"], t["target_option"] or (),
            t["max_new_tokens"], t["generate"] or (),
        ),
        MethodFlags(t["method"], t["option"] or (), t["budget"], t["until"], t["seed"]),
        OutputFlags(t["as_json"], t["save"], t["plot"], t["view"], t["view_option"] or (), t["run_log"]),
        inputs,
    )  # fmt: skip


def check_job(
    model: ModelFlags, target: TargetFlags, method: MethodFlags, output: OutputFlags, inputs: Sequence[Path] = ()
) -> Job:
    """Refuse what cannot work before a model is loaded.

    Raises:
        typer.BadParameter: flags that make no sense.
        ApportionError: a name or file that cannot be used.
    """
    outputs = check_outputs(output, inputs=inputs)
    if output.run_log is not None:
        file_to_write("--run-log", output.run_log)
    explainer = {
        "model": model.model,
        "backend": model.backend,
        "device": model.device,
        "dtype": model.dtype,
        "memory_budget": None if model.memory_budget is None else memory_size("--memory-budget", model.memory_budget),
        "backend_options": json_pairs("--backend-option", model.options, "compile=true"),
        "share_prefixes": model.share_prefixes,
        "progress": model.progress,
        "cache": model.cache,
        "run_log": output.run_log,
    }
    call = {
        "target": _text_or_ids("--target", target.text, target.ids),
        "target_fn": target.target_fn,
        "contrast": _text_or_ids("--contrast", target.contrast, target.contrast_ids),
        "target_options": json_pairs("--target-option", target.options, "top_k=20"),
        "generate": _generation(target),
        "method": method.method,
        "budget": method.budget,
        "until": method.until,
        "seed": method.seed,
    }
    options = json_pairs("--option", method.options, "n_permutations=20")
    job = Job(explainer, call, options, outputs)
    _check_names(job)
    return job


def _text_or_ids(flag: str, text: str | None, ids: str | None) -> str | list[int] | None:
    if ids is None:
        return text
    if text is not None:
        usage_error(f"{flag}-ids", f"{flag} is given too; a run explains one target against one other at most.")
    return token_ids(f"{flag}-ids", ids)


def _generation(flags: TargetFlags) -> dict[str, Any] | None:
    options = json_pairs("--generate", flags.generate, "do_sample=true")
    if flags.max_new_tokens is not None:
        if "max_new_tokens" in options:
            usage_error("--max-new-tokens", "--generate max_new_tokens=… is given too; leave one of them out.")
        options["max_new_tokens"] = flags.max_new_tokens
    if options and (flags.text is not None or flags.ids is not None):
        flag = "--generate" if flags.generate else "--max-new-tokens"
        usage_error(flag, "this is about a target that the model writes, and the target is given.")
    return options or None


def _check_names(job: Job) -> None:
    """Refuse unknown names now: a typo should not cost the time that a model takes to load."""
    plugins = installed_plugins()
    plugins["targets"].get(job.call["target_fn"])
    for kind, name in (("backends", job.explainer["backend"]), ("methods", job.call["method"])):
        if name != "auto":
            plugins[kind].get(name)
    job.outputs.check_view()


def _check_options(job: Job, taken: Iterable[str]) -> None:
    """Refuse options that the method does not have, and those that have a flag of their own."""
    for name in job.method_options:
        if name in taken:
            usage_error("--option", f"{name!r} is set by a flag of its own; see `apportion attribute --help`.")
    method = job.call["method"]
    if method != "auto":
        entry = installed_plugins()["methods"].get(method)
        check_options(f"method {method!r}", entry.make().run, job.method_options)
