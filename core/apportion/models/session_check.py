"""Check of a session that a backend has opened, before it is used."""

from __future__ import annotations

from collections.abc import Iterator

from apportion.errors import PluginError
from apportion.protocols.backend import Capability, Layout, Session, SessionInfo, TextSession
from apportion.protocols.row import ModelInput

__all__ = ["check_session"]


def check_session(backend: str, session: object) -> Session:
    """Check a session against its protocol.

    Args:
        backend: name of the backend, for the message.
        session: the return value of ``Backend.load``.

    Raises:
        PluginError: the session lacks a part of the protocol, or a part has the wrong type.
    """
    if not isinstance(session, Session):
        missing = [name for name in _members() if not hasattr(session, name)]
        raise PluginError(
            f"The backend {backend!r} opened {session!r:.60}, which is not a session: it lacks {', '.join(missing)}."
        )
    for fault in _faults(session):
        raise PluginError(f"The backend {backend!r} opened a session whose {fault}.")
    return session


def _members() -> list[str]:
    return [name for name in vars(Session) if not name.startswith("_")]


def _faults(session: Session) -> Iterator[str]:
    info, layout, kept = session.info, session.layout, session.kept
    if not isinstance(info, SessionInfo):
        yield f"info is {info!r:.60}; it must be a SessionInfo"
    elif type(info.memory_budget) is not int or not isinstance(info.context_length, int | None):
        yield "info must have whole numbers for memory_budget and context_length (None for no limit)"
    if not isinstance(layout, Layout):
        yield f"layout is {layout!r:.60}; it must be a Layout"
    elif type(layout.lanes) is not int or layout.lanes < 1:
        yield f"layout has lanes={layout.lanes!r}; it must be a whole number of at least 1"
    elif layout.prefix_rows is not None and (type(layout.prefix_rows) is not int or layout.prefix_rows < 1):
        yield f"layout has prefix_rows={layout.prefix_rows!r}; it must be a whole number of at least 1, or None"
    elif not layout.joint and (layout.packing or layout.prefix_sharing):
        yield "layout shares prefixes of rows whose targets are read apart (joint=False)"
    elif layout.joint and layout.source_sharing:
        yield "layout shares the encodings of prompts that are read as one sequence with their targets (joint=True)"
    yield from _faults_of_capabilities(session)
    if not isinstance(kept, ModelInput | None):
        yield f"kept is {kept!r:.60}; it must be a ModelInput or None"
    if not callable(session.tokenizer):
        yield (
            f"tokenizer is {session.tokenizer!r:.60}; it must be a tokenizer object "
            "(apportion.models.tokenizer.open_tokenizer opens one by name)"
        )
    if type(session.row_bytes(0, 1, 1)) is not int:
        yield "row_bytes must return a whole number"


def _faults_of_capabilities(session: Session) -> Iterator[str]:
    gives = {Capability.LOG_PROBS, Capability.TEXT}
    if not isinstance(session.capabilities, frozenset | set) or not gives & session.capabilities:
        yield "capabilities include neither LOG_PROBS nor TEXT"
    elif Capability.TEXT in session.capabilities and not isinstance(session, TextSession):
        yield "capabilities include TEXT, but it has no write_text"
