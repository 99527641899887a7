"""Check of model inputs before they are read."""

from __future__ import annotations

from collections.abc import Sequence

from apportion.errors import CapabilityError, InputError, counted, listing
from apportion.protocols.backend import Session, media_kinds
from apportion.protocols.row import ModelInput, Row

__all__ = ["check_inputs"]


def check_inputs(session: Session, inputs: Sequence[ModelInput], rows: Sequence[Row]) -> None:
    """Reject inputs that a session cannot read.

    Args:
        session: the session.
        inputs: the inputs.
        rows: what is read of them, each with its target.

    Raises:
        InputError: an input and the target exceed the model's context length, or a token id its vocabulary.
        CapabilityError: the session does not accept the media of an input.
    """
    info = session.info
    prompts, targets = [row.prompt for row in rows], [row.target for row in rows]
    for texts, vocabulary in ((prompts, info.vocabulary), (targets, info.written_vocabulary)):
        largest = max(map(max, texts))
        if vocabulary is not None and largest >= vocabulary:
            raise InputError(
                f"The tokenizer returned the token id {largest}, but the model's vocabulary has {vocabulary} "
                "tokens. Use the model's own tokenizer, or resize the model's embedding for added tokens."
            )
    _check_lengths(session, rows)
    kinds, read = {one.kind for item in inputs for one in item.media}, media_kinds(session)
    if not kinds <= read:
        names = sorted("pictures" if kind == "image" else f"media of the kind {kind!r}" for kind in kinds - read)
        why = getattr(session, "media_refusal", "")
        raise CapabilityError(
            f"The prompt contains {listing(names)}, but the backend {info.backend!r} reads only "
            f"{listing(['text', *sorted(read)])} with this model{f': {why}' if why else ''}."
        )


def _check_lengths(session: Session, rows: Sequence[Row]) -> None:
    """Reject rows that are longer than what the model reads."""
    info = session.info
    limit, longest_target = info.context_length, info.longest_target
    if session.layout.joint:
        prompt, target = max(((len(row.prompt), len(row.target)) for row in rows), key=sum)
        if limit is not None and prompt + target > limit:
            raise InputError(
                f"A prompt of {counted(prompt, 'token')} and a target of {target} exceed the model's context "
                f"length of {limit} tokens. Shorten the prompt, its baselines or the target."
            )
        return
    prompt, target = max(len(row.prompt) for row in rows), max(len(row.target) for row in rows)
    if limit is not None and prompt > limit:
        raise InputError(
            f"A prompt of {counted(prompt, 'token')} exceeds the {limit} tokens that the model's encoder reads. "
            "Shorten the prompt or its baselines."
        )
    if longest_target is not None and target > longest_target:
        raise InputError(
            f"A target of {counted(target, 'token')} exceeds the {longest_target} tokens that the model's decoder "
            "reads. Shorten the target."
        )
