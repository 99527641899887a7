"""A graph that a session holds until it is closed, and that one thread at a time runs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from apportion.errors import BackendError
from apportion_backends.onnxruntime.failures import translated

__all__ = ["OpenGraph"]

Graph = TypeVar("Graph")


class OpenGraph(Generic[Graph]):
    """A graph that can be closed.

    One batch continues from another, so no other thread may run the graph in between.

    Args:
        graph: the graph.
    """

    def __init__(self, graph: Graph) -> None:
        self._graph: Graph | None = graph
        self._lock = threading.Lock()

    @property
    def now(self) -> Graph | None:
        """The graph, for what it keeps and knows; ``None`` if it is closed."""
        return self._graph

    @contextmanager
    def running(self) -> Iterator[Graph]:
        """The graph, for one thread at a time; its errors in words of apportion.

        Raises:
            BackendError: it is closed.
            BatchTooLargeError: memory ran out.
            ScoreError: the graph fails.
        """
        graph = self._graph
        if graph is None:
            raise BackendError("This session is closed; make a new Explainer.")
        with self._lock, translated():
            yield graph

    def close(self) -> None:
        """Release the graph; idempotent."""
        self._graph = None
