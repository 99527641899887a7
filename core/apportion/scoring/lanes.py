"""Work in several threads at once, for sessions with lanes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import TypeVar

from apportion.protocols.backend import Session

__all__ = ["in_lanes"]

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_lanes(
    session: Session, take: Callable[[], Item | None], work: Callable[[Item], Result]
) -> Iterator[tuple[Item, Future[Result]]]:
    """Work on as many items at once as a session has lanes; yield each with its future, as soon as it has ended.

    Once closed, or after an error or Ctrl-C, no more items are taken, and those under way are waited for.

    Args:
        session: says how many lanes there are, and is told of Ctrl-C.
        take: returns the next item; ``None`` if there is none for now. There may be more once others have ended.
        work: called with each item, in a thread of its own.
    """
    lanes, under_way = session.layout.lanes, dict[Future[Result], Item]()
    pool = ThreadPoolExecutor(lanes, thread_name_prefix="apportion-lane")
    try:
        while True:
            while len(under_way) < lanes and (item := take()) is not None:
                under_way[pool.submit(work, item)] = item
            if not under_way:
                return
            for future in wait(under_way, return_when=FIRST_COMPLETED).done:
                yield under_way.pop(future), future
    except KeyboardInterrupt:
        interrupt = getattr(session, "interrupt", None)
        if callable(interrupt):
            interrupt()
        raise
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
