"""Rows of earlier runs into the same folder, and what must not have changed since."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli.items import Item
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.errors import InputError
from apportion.results.run_folder import FAILED, OK, ResultsFolder

if TYPE_CHECKING:
    from apportion.explainer import Explainer

__all__ = ["Earlier", "asked"]


def asked(model: ModelOptions, prompt: PromptOptions, target: TargetOptions, method: MethodOptions) -> dict[str, Any]:
    """Options that decide the results of a dataset, by name and as JSON has them; files by their content.

    The model itself goes by its fingerprint, and prompts by the hashes of their rows.
    """
    placement = {name: getattr(model, name) for name in ("backend", "dtype", "backend_option")}
    options = {**placement, **asdict(prompt), **asdict(target), **asdict(method)}
    found = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items() if v not in (None, ())}
    if prompt.document:
        digests = {str(path): hashlib.sha256(path.read_bytes()).hexdigest()[:16] for path in prompt.document}
        found["document"] = [f"{path} ({digest})" for path, digest in digests.items()]
    return found


DEFAULTS = asked(ModelOptions(), PromptOptions(), TargetOptions(), MethodOptions())
"""For folders that were begun before an option existed."""


@dataclass(frozen=True, slots=True)
class Earlier:
    """The work of earlier runs.

    Attributes:
        path: of the folder.
        manifest: what the first of them was asked; ``None`` if there was none.
        ended: the last line of each row that has ended, by its id.
    """

    path: Path
    manifest: Mapping[str, Any] | None
    ended: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, folder: ResultsFolder) -> Earlier:
        """All that is in a folder.

        Raises:
            ResultError: it is damaged.
        """
        return cls(folder.path, folder.manifest(), folder.ended())

    def done_with(self, items: Sequence[Item], *, retry_failed: bool) -> dict[str, Mapping[str, Any]]:
        """Rows that are not attributed again. A failed one is, once it has been edited or taken out."""
        hashes = {item.id: item.hash for item in items}
        return {
            row_id: line
            for row_id, line in self.ended.items()
            if line["status"] == OK or (not retry_failed and hashes.get(row_id) == line["hash"])
        }

    def check(self, arguments: Mapping[str, Any], items: Sequence[Item]) -> None:
        """Refuse to mix results of other arguments or other rows.

        Raises:
            InputError: with what differs.
        """
        if self.manifest is not None:
            self._check_arguments(self.manifest["arguments"], arguments)
            self._check_rows(items)
        elif self.ended:
            raise InputError(f"{self.path} holds results and no run.json that says of what. {self._ways_out()}")

    def check_model(self, explainer: Explainer) -> None:
        """Refuse to mix results of two models.

        Raises:
            InputError: the folder was begun with another one.
        """
        if self.manifest is not None and self.manifest["fingerprint"] != explainer.model.fingerprint:
            raise InputError(
                f"{self.path} was begun with another model, {self.manifest['model']} (fingerprint "
                f"{self.manifest['fingerprint']}); this is {explainer.model.name} ({explainer.model.fingerprint}). "
                f"{self._ways_out()}"
            )

    def _check_arguments(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changes = [
            f"--{name.replace('_', '-')} was {_shown(before, name)} and is {_shown(now, name)}"
            for name in sorted({**before, **now})
            if before.get(name) != now.get(name)
        ]
        if changes:
            raise InputError(f"{self.path} was begun with other arguments: {'; '.join(changes)}. {self._ways_out()}")

    def _check_rows(self, items: Sequence[Item]) -> None:
        """Refuse a dataset whose finished rows are not what they were; rows may be added, and failed ones edited."""
        known = {item.id: item for item in items}
        for row_id, line in self.ended.items():
            if line["status"] == FAILED:
                continue
            if row_id not in known:
                raise InputError(
                    f"{self.path} has a row {row_id!r}, which the dataset does not have (any more). {self._ways_out()}"
                )
            if line["hash"] != known[row_id].hash:
                raise InputError(
                    f"The row {row_id!r} ({known[row_id].record.place}) is in {self.path} and has changed since. "
                    f"{self._ways_out()}"
                )

    def _ways_out(self) -> str:
        rows = len(self.ended)
        there = f"deletes the {rows} row{'' if rows == 1 else 's'} there and begins anew" if rows else "begins anew"
        return f"Go on with what it was begun with, name another --out, or add --restart, which {there}."


def _shown(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name, DEFAULTS.get(name))
    return "not given" if value is None else repr(value)
