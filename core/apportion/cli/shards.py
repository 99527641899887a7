"""Parts of a dataset for several processes: shards, which batch schedulers start, and engines, which start workers."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from apportion.cli.earlier import EarlierRuns, alike
from apportion.cli.items import Item
from apportion.cli.parse import usage_error
from apportion.errors import InputError
from apportion.results.run_folder import OK, SHARD, ResultsFolder

if TYPE_CHECKING:
    from apportion.protocols.executor import Executor

__all__ = ["Shard", "collect_shards", "executor_of", "with_shards"]


@dataclass(frozen=True, slots=True)
class Shard:
    """One of several parts of a dataset.

    Attributes:
        number: its number, from 1.
        count: number of parts.
    """

    number: int
    count: int

    @classmethod
    def of(cls, text: str) -> Shard:
        """Read ``I/N``.

        Raises:
            typer.BadParameter: it has another form, or I is not from 1 to N.
        """
        found = re.fullmatch(r"(\d+)/(\d+)", text)
        if found is None or not 1 <= int(found[1]) <= int(found[2]):
            usage_error("--shard", f"{text!r} is not a part; write 2/8 for the second of eight.")
        return cls(int(found[1]), int(found[2]))

    @property
    def folder(self) -> str:
        """The name of the folder of its results."""
        return f"{SHARD}{self.number}-of-{self.count}"

    def items(self, items: Sequence[Item]) -> list[Item]:
        """Its rows: neighbours in the order of the prompts, which begin alike, in the order of the dataset."""
        order = sorted(range(len(items)), key=lambda place: (str(items[place].arguments.get("prompt", "")), place))
        first, stop = (len(items) * part // self.count for part in (self.number - 1, self.number))
        return [items[place] for place in sorted(order[first:stop])]


def collect_shards(folder: ResultsFolder, arguments: Mapping[str, Any], items: Sequence[Item]) -> None:
    """Copy the rows of shards that ended into the folder that they are in.

    Args:
        folder: the folder, which this process has locked.
        arguments: options that decide the results.
        items: the rows of the dataset.

    Raises:
        InputError: a shard was started with other arguments, rows or another model.
    """
    shards = folder.shards()
    known = {row_id for row_id, line in folder.ended().items() if line["status"] == OK} if shards else set()
    for shard in shards:
        earlier = EarlierRuns.of(shard)
        earlier.check(arguments, items)
        assert earlier.manifest is not None
        ours = folder.manifest()
        if ours is None:
            folder.begin({name: value for name, value in earlier.manifest.items() if name not in ("schema", "version")})
        elif ours["fingerprint"] != earlier.manifest["fingerprint"] or not alike(ours, earlier.manifest):
            raise InputError(
                f"{shard.path} was started with another model, {earlier.manifest['model']}, than the rows in "
                f"{folder.path} ({ours['model']}). Delete one of them."
            )
        for line in shard.whole_lines():
            if line["status"] == OK and line["id"] not in known:
                folder.add(line)
                known.add(line["id"])


def with_shards(folder: ResultsFolder, earlier: EarlierRuns) -> EarlierRuns:
    """Earlier runs, with the rows of parts that collecting would copy."""
    done = {row_id: line for shard in folder.shards() for row_id, line in shard.ended().items() if line["status"] == OK}
    return replace(earlier, ended={**done, **earlier.ended})


def executor_of(engine: str, workers: int) -> Executor | None:
    """The executor that ``--engine`` names; ``None`` for this process.

    Raises:
        typer.BadParameter: there is no such engine.
    """
    if engine == "local":
        return None
    if engine != "ray" and not engine.startswith("ray://"):
        usage_error("--engine", f"{engine!r} is not an engine; write local, ray or ray://HOST:PORT.")
    from apportion.workers.ray import RayExecutor

    return RayExecutor(workers, address=None if engine == "ray" else engine)
