"""Jobs: command lines that have been checked as far as possible without a model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
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
from apportion.cli.row_checks import check_contrast
from apportion.files import file_to_write
from apportion.hooks.manager import installed_plugins
from apportion.models.spec import check_address
from apportion.options import check_options

if TYPE_CHECKING:
    from apportion.explainer import Explainer

__all__ = ["Job", "job_with_prompt", "job_without_prompt"]


@dataclass(frozen=True, slots=True)
class Job:
    """A checked command line.

    Attributes:
        explainer: arguments of ``Explainer``.
        call: arguments of ``Explainer.attribute``.
        method_options: further arguments that only this method takes.
        outputs: destinations of the result.
    """

    explainer: Mapping[str, Any]
    call: Mapping[str, Any]
    method_options: Mapping[str, Any]
    outputs: Outputs

    def with_cache(self, cache: bool | Path) -> Job:
        """The same job with another cache: a file, or (``True``) the user's cache folder."""
        return replace(self, explainer={**self.explainer, "cache": cache})

    @contextmanager
    def opened(self, *, check: Callable[[], None] | None = None, quiet: bool = False) -> Iterator[Explainer]:
        """The explainer, with its model loaded.

        Args:
            check: further checks, which import torch and come before the model.
            quiet: show no progress of single runs.
        """
        with loading(self.explainer["model"], progress=self.explainer["progress"]):
            # Imported here: this takes seconds.
            from apportion.explainer import Explainer

            _check_options(self, inspect.signature(Explainer.attribute).parameters)
            (check or partial(check_contrast, self.call))()
            explainer = Explainer(**{**self.explainer, **({"progress": False} if quiet else {})})
        with explainer:
            yield explainer


def job_with_prompt(
    model: ModelOptions, prompt: PromptOptions, target: TargetOptions, method: MethodOptions, output: OutputOptions
) -> Job:
    """The job of a command that attributes one prompt.

    Raises:
        typer.BadParameter: options that cannot be read or do not go together.
        ApportionError: a prompt, name or file that cannot be used.
    """
    job = job_without_prompt(model, target, method, output, inputs=prompt.files, pictures=bool(prompt.image))
    return replace(job, call={"prompt": build_prompt(prompt), **job.call})


def job_without_prompt(
    model: ModelOptions,
    target: TargetOptions,
    method: MethodOptions,
    output: OutputOptions,
    inputs: Sequence[Path],
    *,
    pictures: bool = False,
) -> Job:
    """The job of a command whose prompts come from elsewhere.

    Args:
        model: options of the model.
        target: options of the target.
        method: options of the method.
        output: options of the output.
        inputs: files to read, which no output may replace.
        pictures: the prompt has pictures.

    Raises:
        typer.BadParameter: options that cannot be read or do not go together.
        ApportionError: a name or file that cannot be used.
    """
    outputs = check_outputs(output, inputs=inputs, pictures=pictures)
    if output.run_log is not None:
        file_to_write("run_log", output.run_log)
    explainer = {**model.settings(), "progress": output.shown, "run_log": output.run_log}
    job = Job(explainer, {**target.arguments(), **method.arguments()}, method.method_options(), outputs)
    _check_names(job)
    return job


def _check_names(job: Job) -> None:
    """Refuse unknown names before a model is loaded: a typo should not cost that time."""
    check_address(job.explainer["model"])
    plugins = installed_plugins()
    for function in (job.call["target_fn"], *(name for name, _ in job.call["step_scores"] or ())):
        plugins["targets"].get(function)
    for kind, name in (("backends", job.explainer["backend"]), ("methods", job.call["method"])):
        if name != "auto":
            plugins[kind].get(name)
    job.outputs.check_view()


def _check_options(job: Job, taken: Iterable[str]) -> None:
    """Refuse options that the method does not have, and those that have a flag of their own."""
    for name in job.method_options:
        if name in taken:
            usage_error("--option", f"{name!r} has a flag of its own; see `apportion attribute --help`.")
    method = job.call["method"]
    if method != "auto":
        entry = installed_plugins()["methods"].get(method)
        check_options(f"method {method!r}", entry.make().run, job.method_options)
