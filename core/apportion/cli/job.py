"""One run from the flags to the result, everything that can be checked first being checked first."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli.loading import loading
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.output import OutputOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.cli.outputs import Outputs, check_outputs
from apportion.cli.parse import usage_error
from apportion.cli.prompting import build_prompt
from apportion.files import file_to_write
from apportion.hooks.manager import installed_plugins
from apportion.options import check_options

if TYPE_CHECKING:
    from apportion.explainer import Explainer

__all__ = ["Job", "job_about", "job_without_prompt"]


@dataclass(frozen=True, slots=True)
class Job:
    """A command line that makes sense: everything that can be checked without a model is checked."""

    explainer: Mapping[str, Any]
    call: Mapping[str, Any]
    method_options: Mapping[str, Any]
    outputs: Outputs

    def with_cache(self, cache: bool | Path) -> Job:
        """The same with scores remembered in a certain file, or in the user's cache folder."""
        return replace(self, explainer={**self.explainer, "cache": cache})

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


def job_about(
    model: ModelOptions, prompt: PromptOptions, target: TargetOptions, method: MethodOptions, output: OutputOptions
) -> Job:
    """The job of a command that is about one prompt.

    Raises:
        typer.BadParameter: options that make no sense.
        ApportionError: a prompt, name or file that cannot be used.
    """
    job = job_without_prompt(model, target, method, output, inputs=prompt.files)
    return replace(job, call={"prompt": build_prompt(prompt), **job.call})


def job_without_prompt(
    model: ModelOptions, target: TargetOptions, method: MethodOptions, output: OutputOptions, inputs: Sequence[Path]
) -> Job:
    """Everything but the prompt, which may come from elsewhere.

    Args:
        model: what was typed about the model,
        target: about the target,
        method: about the method,
        output: and about the output.
        inputs: files that are read, which no output may replace.

    Raises:
        typer.BadParameter: options that make no sense.
        ApportionError: a name or file that cannot be used.
    """
    outputs = check_outputs(output, inputs=inputs)
    if output.run_log is not None:
        file_to_write("--run-log", output.run_log)
    explainer = {**model.settings(), "progress": not output.no_progress, "run_log": output.run_log}
    job = Job(explainer, {**target.arguments(), **method.arguments()}, method.own_arguments(), outputs)
    _check_names(job)
    return job


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
