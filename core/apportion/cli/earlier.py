"""Earlier runs into the same folder: their rows, and checks that nothing has changed since."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apportion.cli.items import Item, content_hash
from apportion.cli.options.method import MethodOptions
from apportion.cli.options.model import ModelOptions
from apportion.cli.options.prompt import PromptOptions
from apportion.cli.options.target import TargetOptions
from apportion.errors import InputError, counted
from apportion.protocols.likeness import differ
from apportion.results.run_folder import FAILED, OK, ResultsFolder

if TYPE_CHECKING:
    from apportion.explainer import Explainer
    from apportion.protocols.backend import Session
    from apportion.protocols.likeness import Likeness

__all__ = ["EarlierRuns", "alike", "decisive_arguments", "likeness_facts"]

OF_REQUESTS = frozenset({"lanes", "rows", "timeout", "patience", "key_variable"})
"""Options of a server's requests, which do not decide results."""


def decisive_arguments(
    model: ModelOptions, prompt: PromptOptions, target: TargetOptions, method: MethodOptions
) -> dict[str, Any]:
    """Options that decide the results of a dataset, as JSON values by name. Files count by their content.

    The model itself counts by its fingerprint, and prompts by the hashes of their rows.
    """
    placement = {name: getattr(model, name) for name in ("tokenizer", "backend", "dtype")}
    apart = OF_REQUESTS if model.at_server else frozenset()
    decisive = (text for text in model.backend_option if text.partition("=")[0].strip() not in apart)
    placement["backend_option"] = tuple(decisive)
    options = {**placement, **asdict(prompt), **asdict(target), **asdict(method)}
    found = {name: list(v) if isinstance(v, tuple) else v for name, v in options.items() if v not in (None, ())}
    for name, paths in (("document", prompt.document), ("image", prompt.image)):
        if paths:
            found[name] = [f"{path} ({content_hash(path)})" for path in paths]
    if prompt.fill is not None and Path(prompt.fill).expanduser().is_file():
        found["fill"] = f"{prompt.fill} ({content_hash(Path(prompt.fill).expanduser())})"
    return found


DEFAULTS = decisive_arguments(ModelOptions(), PromptOptions(), TargetOptions(), MethodOptions())
"""Values for folders that are older than an option."""


def likeness_facts(session: Session) -> dict[str, Any]:
    """Scores by which a model that cannot be hashed is known again, for the manifest; none for others."""
    found: Likeness | None = getattr(session, "likeness", None)
    return {} if found is None else {"likeness": list(found.log_probs), "tolerance": found.tolerance}


def alike(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """True if two models with the facts of ``likeness_facts`` may be the same."""
    ours, theirs = one.get("likeness", []), other.get("likeness", [])
    if not ours or not theirs:
        return True
    return not differ(ours, theirs, max(one["tolerance"], other["tolerance"]))


@dataclass(frozen=True, slots=True)
class EarlierRuns:
    """Earlier runs into one folder.

    Attributes:
        path: path of the folder.
        manifest: the arguments and the model of the first of them; ``None`` if there was none.
        ended: the last line of each row that has ended, by its id.
    """

    path: Path
    manifest: Mapping[str, Any] | None
    ended: Mapping[str, Mapping[str, Any]]

    @classmethod
    def of(cls, folder: ResultsFolder) -> EarlierRuns:
        """The content of a folder.

        Raises:
            ResultError: it is damaged.
        """
        return cls(folder.path, folder.manifest(), folder.ended())

    def rows_to_skip(self, items: Sequence[Item], *, retry_failed: bool) -> dict[str, Mapping[str, Any]]:
        """Rows that need no other attempt, by id: finished ones, and failed ones that are still the same."""
        hashes = {item.id: item.hash for item in items}
        return {
            row_id: line
            for row_id, line in self.ended.items()
            if line["status"] == OK or (not retry_failed and hashes.get(row_id) == line["hash"])
        }

    def check(self, arguments: Mapping[str, Any], items: Sequence[Item]) -> None:
        """Refuse to mix results of other arguments or other rows.

        Raises:
            InputError: arguments or rows differ; the message names them.
        """
        if self.manifest is not None:
            self._check_arguments(self.manifest["arguments"], arguments)
            self._check_rows(items)
        elif self.ended:
            raise InputError(f"{self.path} holds results but no run.json that describes them. {self._ways_out()}")

    def check_model(self, explainer: Explainer) -> None:
        """Refuse to mix results of two models.

        Raises:
            InputError: the folder belongs to another model.
        """
        if self.manifest is not None and self.manifest["fingerprint"] != explainer.session.fingerprint():
            raise InputError(
                f"{self.path} was started with another model, {self.manifest['model']} (fingerprint "
                f"{self.manifest['fingerprint']}); this is {explainer.session.info.model} "
                f"({explainer.session.fingerprint()}). {self._ways_out()}"
            )
        if self.manifest is not None and not alike(self.manifest, likeness_facts(explainer.session)):
            raise InputError(
                f"{self.path} was started with other weights under the name {self.manifest['model']}: a row that was "
                f"scored at its start now has other scores. {self._ways_out()}"
            )

    def _check_arguments(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changes = [
            f"--{name.replace('_', '-')} was {_shown(before, name)} and is now {_shown(now, name)}"
            for name in sorted({**before, **now})
            if before.get(name, DEFAULTS.get(name)) != now.get(name, DEFAULTS.get(name))
        ]
        if changes:
            raise InputError(f"{self.path} was started with other arguments: {'; '.join(changes)}. {self._ways_out()}")

    def _check_rows(self, items: Sequence[Item]) -> None:
        """Refuse a dataset whose finished rows have changed; rows may be added, and failed ones fixed."""
        known = {item.id: item for item in items}
        for row_id, line in self.ended.items():
            if line["status"] == FAILED:
                continue
            if row_id not in known:
                raise InputError(
                    f"{self.path} has a row {row_id!r} that is no longer in the dataset. {self._ways_out()}"
                )
            if line["hash"] != known[row_id].hash:
                raise InputError(
                    f"Row {row_id!r} ({known[row_id].record.place}) has changed since its result was written to "
                    f"{self.path}. {self._ways_out()}"
                )

    def _ways_out(self) -> str:
        rows = len(self.ended)
        there = f"deletes the {counted(rows, 'row')} there and starts again" if rows else "starts again"
        return f"Repeat the earlier command, name another --out, or add --restart, which {there}."


def _shown(arguments: Mapping[str, Any], name: str) -> str:
    value = arguments.get(name, DEFAULTS.get(name))
    return "not given" if value is None else repr(value)
