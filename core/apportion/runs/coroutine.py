"""A blocking function that asks questions, converted to a generator of its questions."""

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
    """Ends an abandoned function; a ``BaseException``, so that no ``except Exception`` in the function catches it."""


class _Line(Generic[Question, Answer, Result]):
    """Channel between the function's thread and its owner's; one of the two runs while the other waits."""

    def __init__(self) -> None:
        self.owner, self.function = threading.Semaphore(0), threading.Semaphore(0)
        self.question: Question
        self.answer: Answer
        self.result: Result
        self.refusal: BaseException | None = None
        self.failure: BaseException | None = None
        self.over = self.abandoned = False
        # A function may ask from several threads, but only one at a time.
        self._one = threading.Lock()

    def ask(self, question: Question) -> Answer:
        """Send a question and wait for the answer; called in the function's thread."""
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
        """Run the whole function; called in its thread."""
        try:
            self.result = function(self.ask)
        except BaseException as error:
            self.failure = error
        self.over = True
        self.owner.release()


def questions_of(
    function: Callable[[Callable[[Question], Answer]], Result],
) -> Generator[Question, Answer, Result]:
    """Convert a blocking function to a generator that yields the function's questions and receives the answers.

    The function runs in its own thread, and only while the generator is being advanced, so that the two never run at
    the same time. ``throw`` raises an error where the function asked; ``close`` ends the function there, and waits for
    it.

    Args:
        function: takes ``ask``. Its return value is the generator's, and its errors are raised by the generator.
    """
    line: _Line[Question, Answer, Result] = _Line()
    context: Any = contextvars.copy_context()
    # A daemon, so that a thread left over after a second Ctrl-C does not keep the process alive.
    thread = threading.Thread(target=context.run, args=(line.run, function), name="apportion-run", daemon=True)
    try:
        # Inside the try block, so that a Ctrl-C during the start does not leave the thread waiting forever.
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
