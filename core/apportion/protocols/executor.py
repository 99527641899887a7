"""Executors, which attribute many prompts in other processes or on other machines."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

__all__ = ["Executor"]


@runtime_checkable
class Executor(Protocol):
    """Attributes prompts elsewhere, for ``attribute_many(…, executor=…)``."""

    def outcomes(
        self, settings: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], *, at_once: int
    ) -> Generator[tuple[int, object], None, None]:
        """Yield the number of each call, and its ``Attribution`` or error, as soon as it ends; each number once.

        Closing the generator ends all work.

        Args:
            settings: arguments of ``Explainer``, with which each worker opens the model.
            calls: arguments of ``attribute`` for each prompt.
            at_once: the most runs that a worker has in progress.

        Raises:
            ServerError: workers were lost as often as they may be, or a server of a worker is gone.
            InputError: something cannot be sent to a worker.
        """
        ...
