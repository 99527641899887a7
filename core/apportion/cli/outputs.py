"""Destinations of a result: files, which are checked before the run and written whole, and stdout."""

from __future__ import annotations

import inspect
import io
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli.exits import InterruptedDeliveryError
from apportion.cli.listing import stdout_is_unicode
from apportion.cli.options.output import OutputOptions
from apportion.cli.parse import json_pairs, usage_error
from apportion.cli.wording import in_shell_words
from apportion.errors import ApportionError, InputError, ResultError, listing
from apportion.files import write_atomically
from apportion.hooks.manager import installed_plugins
from apportion.options import check_options

if TYPE_CHECKING:
    from apportion.results.attribution import Attribution

__all__ = [
    "DOTS_PER_INCH",
    "PICTURES",
    "Outputs",
    "check_outputs",
    "check_writable",
    "in_words_of_the_shell",
    "write_file",
]

PICTURES = (".png", ".svg", ".pdf", ".eps")
PAGE = ".html"
TERMINAL = "terminal"
DOTS_PER_INCH = 200


@dataclass(slots=True)
class Outputs:
    """Checked destinations for ``deliver`` to fill. The view goes into ``plot`` if there is one, else to stdout."""

    as_json: bool
    save: Path | None
    plot: Path | None
    view: str
    view_options: Mapping[str, Any]
    written: list[str] = field(default_factory=list)

    def deliver(self, result: Attribution) -> None:
        """Save, draw and print. The first failure is reported after all steps have been tried.

        Raises:
            ApportionError: a step failed.
        """
        failures: list[ApportionError] = []
        try:
            for step in (self._save, self._draw, self._print):
                try:
                    step(result)
                except ApportionError as error:
                    failures.append(error)
        except KeyboardInterrupt as interrupt:
            if not self.written:
                raise
            raise InterruptedDeliveryError(f"written before that: {', '.join(self.written)}") from interrupt
        if failures:
            raise failures[0]

    def _save(self, result: Attribution) -> None:
        if self.save is not None:
            self._write(self.save, result.to_json().encode())

    def _draw(self, result: Attribution) -> None:
        if self.plot is not None:
            self._write(self.plot, self._picture(in_words_of_the_shell(result), self.plot))

    def _print(self, result: Attribution) -> None:
        if self.as_json:
            print(result.to_json(ascii_only=not stdout_is_unicode()))  # noqa: T201
        elif self.plot is not None:
            in_words_of_the_shell(result).show()
        else:
            self._print_view(in_words_of_the_shell(result))

    def _print_view(self, result: Attribution) -> None:
        shown = result.plot(self.view, **self.view_options)
        if isinstance(shown, str):
            print(shown)  # noqa: T201
        elif hasattr(shown, "savefig"):
            result.show()
            raise InputError(_needs_a_file(self.view))
        else:
            from rich.console import Console

            Console().print(shown)

    def _write(self, path: Path, content: bytes) -> None:
        write_file(path, content)
        self.written.append(str(path))
        if sys.stderr.isatty():
            print(f"wrote {path}", file=sys.stderr)  # noqa: T201

    def _picture(self, result: Attribution, path: Path) -> bytes:
        picture = result.plot(self.view, **self.view_options)
        if isinstance(picture, str) and _suffix(path) == PAGE:
            return picture.encode()
        if hasattr(picture, "savefig") and _suffix(path) in PICTURES:
            content = io.BytesIO()
            dpi = "figure" if "dpi" in self.view_options else DOTS_PER_INCH
            picture.savefig(content, format=_suffix(path)[1:], dpi=dpi)
            return content.getvalue()
        raise _misfit(self.view, path)

    def check_view(self) -> None:
        """Refuse a view that does not exist, cannot be made, lacks an option or does not fit the file.

        Raises:
            ApportionError: one of these, as far as can be told without a result.
            typer.BadParameter: the view is a picture, and there is no file for it.
        """
        render = installed_plugins()["visualizers"].get(self.view).make().render
        check_options(f"view {self.view!r}", render, self.view_options)
        returned = inspect.signature(render).return_annotation
        if returned is inspect.Signature.empty:
            return
        if self.plot is None and "Figure" in str(returned):
            usage_error("--view", _needs_a_file(self.view))
        if self.plot is not None and not _may_fit(returned, self.plot):
            raise _misfit(self.view, self.plot)


def check_outputs(options: OutputOptions, inputs: Sequence[Path | None] = (), *, pictures: bool = False) -> Outputs:
    """Refuse destinations that cannot work, before any time is spent.

    Args:
        options: options of the output.
        inputs: files to read, which no output may replace.
        pictures: the prompt has pictures.

    Raises:
        typer.BadParameter: a suffix is unknown, a file is named twice, or a view has no file.
        InputError: a folder does not exist, or a file cannot be written.
    """
    if options.save is not None and _suffix(options.save) != ".json":
        usage_error("--save", f"a result is saved as JSON; {options.save} should end in .json.")
    if options.plot is not None and _suffix(options.plot) not in (*PICTURES, PAGE):
        usage_error("--plot", f"the suffix of {options.plot} is not one of {listing((*PICTURES, PAGE))}.")
    if options.plot is None and options.as_json and options.view is not None:
        usage_error(
            "--view", f"{options.view!r} would go to stdout, where --json goes too; add --plot FILE for the view."
        )
    if options.plot is None and options.view is None and options.view_option:
        usage_error("--view-option", f"{options.view_option[0]!r} is for a view; add --view NAME or --plot FILE.")
    _check_distinct({"--save": options.save, "--plot": options.plot, "--run-log": options.run_log}, inputs)
    for path in (options.save, options.plot):
        if path is not None:
            check_writable(path)
    view = options.view or _default_view(options.plot, pictures=pictures)
    view_options = json_pairs("--view-option", options.view_option, "sort=true")
    return Outputs(options.as_json, options.save, options.plot, view, view_options)


def in_words_of_the_shell(result: Attribution) -> Attribution:
    """The result with notes that name flags, not arguments of the library; files and JSON keep the arguments."""
    provenance = result.provenance
    return replace(result, provenance=replace(provenance, notes=tuple(map(in_shell_words, provenance.notes))))


def _default_view(plot: Path | None, *, pictures: bool) -> str:
    if plot is None:
        return TERMINAL
    if _suffix(plot) == PAGE:
        return "html"
    return "image" if pictures else "heatmap"


def _check_distinct(outputs: Mapping[str, Path | None], inputs: Sequence[Path | None]) -> None:
    taken = {os.path.realpath(path): "is an input of this command" for path in inputs if path is not None}
    for flag, path in outputs.items():
        if path is None:
            continue
        real = os.path.realpath(path)
        if real in taken:
            usage_error(flag, f"{path} {taken[real]}; name another file.")
        taken[real] = f"is already what {flag} writes"


def write_file(path: Path, content: bytes) -> None:
    """Write a file whole or not at all, through links.

    Raises:
        ResultError: it cannot be written.
    """
    try:
        write_atomically(Path(os.path.realpath(path)), content)
    except OSError as error:
        raise ResultError(f"Cannot write {path}: {error.strerror or error}.") from error


def check_writable(path: Path) -> None:
    """Refuse a path that cannot be written to.

    Raises:
        InputError: it cannot; the message says why.
    """
    real = Path(os.path.realpath(path))
    if real.is_dir():
        raise InputError(f"Cannot write {path}: it is a folder. Name a file in it.")
    if not real.parent.is_dir():
        raise InputError(f"Cannot write {path}: there is no folder {path.parent}. Create it, or name another file.")
    if not os.access(real.parent, os.W_OK | os.X_OK):
        raise InputError(f"Cannot write {path}: no permission to write to the folder {path.parent}.")
    if real.exists() and not os.access(real, os.W_OK):
        raise InputError(f"Cannot write {path}: the file exists and is read-only.")


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _is_text(annotation: object) -> bool:
    """True for ``str`` and ``HtmlView``, also as names in postponed annotations."""
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", "")
    return name.rpartition(".")[2] in ("str", "HtmlView")


def _may_fit(annotation: object, path: Path) -> bool:
    """False if a view that returns this cannot be written to the file; what is neither text nor a picture cannot."""
    if _is_text(annotation):
        return _suffix(path) == PAGE
    name = annotation if isinstance(annotation, str) else getattr(annotation, "__name__", str(annotation))
    unknown = name.rpartition(".")[2] in ("Any", "object")
    return _suffix(path) in PICTURES and ("Figure" in name or unknown)


def _needs_a_file(view: str) -> str:
    return f"The view {view!r} is a picture; add --plot FILE, such as --plot result.png."


def _misfit(view: str, path: Path) -> InputError:
    return InputError(
        f"The view {view!r} does not fit {path}: HTML views go into {PAGE} files, pictures into {listing(PICTURES)}."
    )
