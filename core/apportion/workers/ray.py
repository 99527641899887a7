"""Workers of Ray, each with the model open, on this machine or on a cluster."""

from __future__ import annotations

import math
import pickle
import time
import warnings
from collections import deque
from collections.abc import Generator, Mapping, Sequence
from typing import Any

from apportion.errors import ApportionError, BackendError, InputError, ServerError, counted, shown
from apportion.options import whole_number

__all__ = ["RayExecutor"]

UNDER_WAY = 2
"""Chunks that a worker has at once: one that it works on, and one that waits for it."""
LIMITS = ("max_requests", "max_cost")
POLL_SECONDS = 0.5
"""Time after which Ctrl-C is heard."""

START_SECONDS = 60.0
"""Time after which a user hears that no worker has started."""

Call = tuple[int, Mapping[str, Any]]


class RayExecutor:
    """Attributes prompts with workers of Ray, for ``attribute_many(…, executor=…)``.

    Prompts go to workers in chunks that begin alike. A worker that dies is started again, and its chunk is attributed
    again. With a cache that all workers reach, what it had scored is not scored twice.

    Args:
        workers: number of workers, each with the model open.
        address: address of a cluster, such as ``"ray://head:10001"``, or ``"auto"`` for the one that this machine
            belongs to; ``None`` to start Ray on this machine, for as long as the work lasts.
        cpus: CPUs that each worker takes.
        gpus: GPUs that each worker takes; fractions share one.
        restarts: number of times that a worker may be started again.

    Raises:
        InputError: a number is out of range.
    """

    def __init__(
        self, workers: int = 2, *, address: str | None = None, cpus: float = 1, gpus: float = 0, restarts: int = 3
    ) -> None:
        self.workers = whole_number("workers", workers, least=1)
        self.restarts = whole_number("restarts", restarts, least=0)
        for name, value in (("cpus", cpus), ("gpus", gpus)):
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < float("inf"):
                raise InputError(f"{name}={shown(value)} must be a number of at least 0.")
        self.address, self.cpus, self.gpus = address, float(cpus), float(gpus)

    def outcomes(
        self, settings: Mapping[str, Any], calls: Sequence[Mapping[str, Any]], *, at_once: int
    ) -> Generator[tuple[int, object], None, None]:
        """Yield the outcome of each call, in any order.

        Raises:
            BackendError: Ray is not installed, or cannot be reached.
            InputError: a prompt or argument cannot be sent to a worker.
            ServerError: a worker died more often than it may, or a server of a worker is gone.
        """
        if not calls:
            return
        chunks = deque(_chunks(calls, at_once))
        _check_limits(settings)
        _check_sendable(settings, calls)
        ray, began = self._started()
        workers: list[Any] = []
        try:
            made = ray.remote(_Worker).options(
                num_cpus=self.cpus, num_gpus=self.gpus, max_restarts=self.restarts, max_task_retries=self.restarts
            )
            count = min(self.workers, len(chunks), self._room(ray.cluster_resources()))
            workers = [made.remote(dict(settings)) for _ in range(count)]
            yield from self._worked(ray, workers, chunks, at_once)
        finally:
            for worker in workers:
                ray.kill(worker)
            if began:
                ray.shutdown()

    def _worked(
        self, ray: Any, workers: Sequence[Any], chunks: deque[list[Call]], at_once: int
    ) -> Generator[tuple[int, object], None, None]:
        """Give each worker its next chunk when it has room for it."""
        under_way: dict[Any, Any] = {}

        def give(worker: Any) -> None:
            if chunks:
                under_way[worker.attribute.remote(chunks.popleft(), at_once)] = worker

        # Only workers that have started get chunks: on a busy cluster some may have to wait for a place.
        starting = {worker.ready.remote(): worker for worker in workers}
        asked, told = time.monotonic(), False
        while starting or under_way:
            if not chunks and not under_way:
                return
            done, _ = ray.wait([*starting, *under_way], num_returns=1, timeout=POLL_SECONDS)
            for one in done:
                if one in starting:
                    worker = starting.pop(one)
                    self._received(ray, one)
                    for _ in range(UNDER_WAY):
                        give(worker)
                    continue
                worker = under_way.pop(one)
                found, fatal = self._received(ray, one)
                yield from found
                if fatal is not None:
                    raise fatal
                give(worker)
            if not told and len(starting) == len(workers) and time.monotonic() - asked > START_SECONDS:
                told = True
                warnings.warn(
                    f"No worker of Ray has started for {START_SECONDS:g} s: the cluster has no place for one now. "
                    "Ctrl-C ends the wait.",
                    RuntimeWarning,
                    stacklevel=2,
                )

    def _received(self, ray: Any, reference: Any) -> tuple[list[tuple[int, object]], Exception | None]:
        """The outcomes of a chunk, and an error that ends everything.

        Raises:
            ServerError: the worker died.
        """
        try:
            found: tuple[list[tuple[int, object]], Exception | None] = ray.get(reference)
        except ray.exceptions.RayActorError as error:
            raise ServerError(
                f"A worker died, and was started again {counted(self.restarts, 'time')} in vain: "
                f"{' '.join(str(error).split()):.300}"
            ) from None
        except ray.exceptions.RayTaskError as error:
            raise error.as_instanceof_cause() from None
        return found

    def _room(self, resources: Mapping[str, float]) -> int:
        """Number of workers for which a cluster has CPUs and GPUs.

        Raises:
            BackendError: it has not even enough for one.
        """
        wanted = {"CPU": self.cpus, "GPU": self.gpus}
        room = [int(resources.get(name, 0.0) / each) for name, each in wanted.items() if each]
        if room and min(room) < 1:
            has = ", ".join(f"{resources.get(name, 0.0):g} {name}s" for name in wanted)
            raise BackendError(
                f"No worker fits: each takes {self.cpus:g} CPUs and {self.gpus:g} GPUs (cpus=, gpus=), and Ray has "
                f"{has}."
            )
        return min(room, default=self.workers)

    def _started(self) -> tuple[Any, bool]:
        """Ray, and whether it was started here.

        Raises:
            BackendError: it is not installed, or cannot be reached.
        """
        try:
            import ray
        except ImportError:
            raise BackendError("Ray is not installed. Install it: pip install 'apportion[ray]'") from None
        if ray.is_initialized():
            return ray, False
        options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
        if self.address is None:
            options |= {"include_dashboard": False, "num_cpus": max(1, math.ceil(self.workers * self.cpus))}
        try:
            ray.init(address=self.address, **options)
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            where = "Ray cannot start here" if self.address is None else f"Ray cannot reach {self.address}"
            raise BackendError(f"{where}: {' '.join(str(error).split()):.300}") from None
        return ray, True


class _Worker:
    """A worker: an explainer that is opened once.

    Args:
        settings: arguments of ``Explainer``.
    """

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self._settings = settings
        self._explainer: Any = None

    def ready(self) -> tuple[list[tuple[int, object]], Exception | None]:
        """Nothing, as soon as the worker has started."""
        return [], None

    def attribute(self, chunk: Sequence[Call], at_once: int) -> tuple[list[tuple[int, object]], Exception | None]:
        """The outcome of each call of a chunk, and an error that ends everything."""
        from apportion.explainer import Explainer

        found: list[tuple[int, object]] = []
        numbers = [number for number, _ in chunk]
        try:
            if self._explainer is None:
                self._explainer = Explainer(**self._settings)
            results = self._explainer.attribute_many(
                [call for _, call in chunk],
                at_once=at_once,
                on_error="return",
                on_finish=lambda i, outcome: found.append((numbers[i], outcome)),
            )
            for _ in results:
                pass
        except ApportionError as error:
            return found, error
        return found, None


def _chunks(calls: Sequence[Mapping[str, Any]], size: int) -> list[list[Call]]:
    """Calls in chunks, in the order of their prompts' texts, so that those of a chunk begin alike."""
    order = sorted(range(len(calls)), key=lambda number: (str(calls[number]["prompt"]), number))
    return [[(number, calls[number]) for number in order[i : i + size]] for i in range(0, len(order), size)]


def _check_limits(settings: Mapping[str, Any]) -> None:
    """Refuse limits that each worker would count for itself.

    Raises:
        InputError: there is one.
    """
    for name in LIMITS:
        if (settings.get("backend_options") or {}).get(name) is not None:
            raise InputError(
                f"{name}= is a limit of one process, and workers would each spend that much. Leave it out, or run "
                "without workers."
            )


def _check_sendable(settings: Mapping[str, Any], calls: Sequence[Mapping[str, Any]]) -> None:
    """Refuse what cannot be pickled, before Ray is started.

    Raises:
        InputError: an argument cannot be pickled.
    """
    whole = [("Explainer", settings), *((f"prompts[{i}]", call) for i, call in enumerate(calls))]
    for owner, arguments in whole:
        for name, value in arguments.items():
            try:
                pickle.dumps(value)
            except Exception as error:
                raise InputError(
                    f"{name}={shown(value)} of {owner} cannot be sent to another process ({error}). Use something that "
                    "can be pickled: a function of a module instead of a lambda, a name instead of an object."
                ) from None
