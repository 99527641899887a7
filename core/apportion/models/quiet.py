"""Suppression of other libraries' progress bars and tables."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from apportion.errors import ModelError

__all__ = ["quiet_refusal", "quiet_transformers", "without_load_report"]


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """Context without the progress bars of transformers; they are restored afterwards."""
    from transformers.utils import logging as transformers_logging

    was_on = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if was_on:
            transformers_logging.enable_progress_bar()


@contextmanager
def quiet_refusal() -> Iterator[None]:
    """Context in which warnings of transformers about a model are held until it is accepted.

    After a ``ModelError``, which says what is wrong in plain words, they are dropped; otherwise they are logged.
    """
    from transformers.utils import logging as transformers_logging

    transformers_logging.get_verbosity()  # its handler is made when it is first needed
    handlers = logging.getLogger("transformers").handlers
    held: list[tuple[logging.Handler, logging.LogRecord]] = []

    def holder(handler: logging.Handler) -> Callable[[logging.LogRecord], bool]:
        def hold(record: logging.LogRecord) -> bool:
            held.append((handler, record))
            return False

        return hold

    filters = [(handler, holder(handler)) for handler in handlers]
    for handler, hold in filters:
        handler.addFilter(hold)
    refused = False
    try:
        yield
    except ModelError:
        refused = True
        raise
    finally:
        for handler, hold in filters:
            handler.removeFilter(hold)
        for handler, record in () if refused else held:
            handler.handle(record)


@contextmanager
def without_load_report() -> Iterator[None]:
    """Context without the table of missing weights that transformers logs; errors and notes have its content.

    If loading fails, the table is logged after all: transformers refers to it then.
    """
    loggers = [logging.getLogger(f"transformers.{name}") for name in ("modeling_utils", "integrations.peft")]
    held: list[logging.LogRecord] = []

    def hold(record: logging.LogRecord) -> bool:
        if "LOAD REPORT" not in record.getMessage():
            return True
        held.append(record)
        return False

    for logger in loggers:
        logger.addFilter(hold)
    failed = True
    try:
        yield
        failed = False
    finally:
        for logger in loggers:
            logger.removeFilter(hold)
        for record in held if failed else ():
            logging.getLogger(record.name).handle(record)
