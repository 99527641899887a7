"""A function that asks and waits, as a generator of its questions."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Generator
from typing import Any, Generic, TypeVar

__all__ = ["questions_of"]

Question = TypeVar("Question")
Answer = TypeVar("Answer")
Result = TypeVar("Result")


class _EndedError(BaseException):
    """Nobody waits for the function any more; no ``except Exception`` of its own should keep it going."""


class _Line(Generic[Question, Answer, Result]):
    """What passes between the function's thread and its owner's; one of the two runs, and the other waits."""

    def __init__(self) -> None:
        self.owner, self.function = threading.Semaphore(0), threading.Semaphore(0)
        self.question: Question
        self.answer: Answer
        self.result: Result
        self.refusal: BaseException | None = None
        self.failure: BaseException | None = None
        self.over = self.abandoned = False
        # A function may ask from threads of its own: one after the other.
        self._one = threading.Lock()

    def ask(self, question: Question) -> Answer:
        """In the function's thread: hand over, and wait."""
        with self._one:
            if self.abandoned:
                raise _EndedError
            self.question = question
            self.owner.release()
            self.function.acquire()
            if self.abandoned:
                raise _EndedError
            refusal, self.refusal = self.refusal, None
            if refusal is not None:
                raise refusal
            return self.answer

    def run(self, function: Callable[[Callable[[Question], Answer]], Result]) -> None:
        """In the function's thread: all of it."""
        try:
            self.result = function(self.ask)
        except BaseException as error:
            self.failure = error
        self.over = True
        self.owner.release()


def questions_of(
    function: Callable[[Callable[[Question], Answer]], Result],
) -> Generator[Question, Answer, Result]:
    """A blocking function as a generator: it yields what the function asks, and is sent the answers.

    The function runs in a thread of its own, and only while the generator is being advanced, so that nothing ever
    runs at the same time. ``throw`` raises where the function asked; ``close`` ends it there, and waits for its end.

    Args:
        function: takes ``ask``; what it returns is the generator's value, what it raises the generator raises.
    """
    line: _Line[Question, Answer, Result] = _Line()
    context: Any = contextvars.copy_context()
    # A daemon: what a second Ctrl-C leaves behind must not keep the process alive.
    thread = threading.Thread(target=context.run, args=(line.run, function), name="apportion-run", daemon=True)
    try:
        # Within: a Ctrl-C while it starts must not leave it waiting for ever.
        thread.start()
        while True:
            line.owner.acquire()
            if line.over:
                break
            try:
                line.answer = yield line.question
            except Exception as error:
                line.refusal = error
            line.function.release()
    finally:
        line.abandoned = True
        line.function.release()
        if thread.ident is not None:
            thread.join()
    if line.failure is not None:
        raise line.failure
    return line.result
