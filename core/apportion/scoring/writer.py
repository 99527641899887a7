"""Texts that a model writes after prompts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from inspect import signature
from typing import TYPE_CHECKING

from apportion.errors import CapabilityError
from apportion.protocols.backend import Capability, GenerateSession, Session, TextSession
from apportion.protocols.row import ModelInput
from apportion.rendering.context import tokenizer_of_targets
from apportion.rendering.token_texts import added_text, control_ids

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "Writer",
    "check_writes",
    "generated_ids",
    "identity_of_texts",
    "is_sampled",
    "room_after",
    "text_key",
]

SAMPLING = "do_sample"
"""Option of the generation without which texts are greedy."""


class Writer:
    """Writes texts after prompts, with one set of options.

    Args:
        session: the model.
        options: options of its generation.
        stop: texts before which a text ends.
        seed: seed of the run, from which that of each sampled text is made.
    """

    def __init__(self, session: Session, options: Mapping[str, object], stop: Sequence[str], seed: int) -> None:
        check_writes(session)
        self.session = session
        self.options, self.stop, self.seed = dict(options), tuple(stop), seed

    @property
    def sampled(self) -> bool:
        """True if texts are drawn at random, by the options or because the session never repeats itself."""
        return is_sampled(self.session, self.options)

    def seed_of(self, prompt: ModelInput, sample: int) -> int:
        """The seed of a sampled text: another one for each prompt, so that the noise of any two is independent."""
        text = f"{self.seed} {sample} {text_key(prompt)}"
        return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=4).digest()) >> 1

    def __call__(self, prompt: ModelInput, sample: int) -> str:
        """One text after a prompt, up to the first stop text; without control tokens.

        Args:
            prompt: the prompt.
            sample: number of the text.

        Raises:
            InputError: an option is unknown, or the prompt is refused.
            ServerError: a server does not answer.
        """
        seed = self.seed_of(prompt, sample) if self.sampled else self.seed
        session, room = self.session, room_after(self.session, prompt)
        if isinstance(session, TextSession) and Capability.TEXT in session.capabilities:
            text = session.write_text(prompt, self.options, seed, room, self.stop)
        else:
            ids = generated_ids(session, prompt, self.options, seed, self.stop)
            text = _decoded(tokenizer_of_targets(session), prompt.ids if session.layout.joint else (), ids)
        ends = [place for stop in self.stop if (place := text.find(stop)) >= 0]
        return text[: min(ends, default=len(text))]


def is_sampled(session: Session, options: Mapping[str, object]) -> bool:
    """True if texts are drawn at random, by the options or because the session does not repeat itself."""
    return bool(options.get(SAMPLING, False)) or not getattr(session, "steady_texts", True)


def text_key(prompt: ModelInput) -> str:
    """A hash of a prompt and its media, in hexadecimal."""
    content = repr((prompt.ids, tuple((media.kind, media.digest) for media in prompt.media)))
    return hashlib.blake2b(content.encode(), digest_size=16).hexdigest()


def identity_of_texts(session: Session) -> str:
    """A hash of what decides texts beside the model's scores: how it generates by itself, and its tokenizer."""
    tokenizer = tokenizer_of_targets(session)
    fast = getattr(tokenizer, "backend_tokenizer", None)
    words = fast.to_str() if fast is not None else repr(sorted(getattr(tokenizer, "get_vocab", dict)().items()))
    parts = (
        getattr(session, "writing_state", ""),
        f"{type(tokenizer).__module__}.{type(tokenizer).__qualname__}",
        sorted(control_ids(tokenizer)),
        words,
    )
    return hashlib.blake2b(repr(parts).encode("utf-8", "backslashreplace"), digest_size=16).hexdigest()


def check_writes(session: Session) -> None:
    """Refuse a session that writes nothing.

    Raises:
        CapabilityError: it does not.
    """
    if not {Capability.TEXT, Capability.GENERATE} & session.capabilities:
        raise CapabilityError(
            f"The backend {session.info.backend!r} cannot generate with this model, so there is no text for the target "
            "function."
        )


def room_after(session: Session, prompt: ModelInput) -> int | None:
    """Maximum number of tokens that fit into the context after a prompt; ``None`` if the model has no limit."""
    info = session.info
    if session.layout.joint and info.context_length is not None:
        return info.context_length - len(prompt.ids)
    return info.longest_target


def generated_ids(
    session: Session, prompt: ModelInput, options: Mapping[str, object], seed: int, stop: Sequence[str]
) -> tuple[int, ...]:
    """The tokens that a session generates, perhaps none; one that knows no stop texts writes on.

    Raises:
        CapabilityError: the session cannot generate.
    """
    if Capability.GENERATE not in session.capabilities or not isinstance(session, GenerateSession):
        raise CapabilityError(f"The backend {session.info.backend!r} cannot generate with this model; give a target.")
    room = room_after(session, prompt)
    if stop and "stop" in signature(session.generate).parameters:
        return session.generate(prompt, options, seed, room, stop)
    return session.generate(prompt, options, seed, room)


def _decoded(tokenizer: PreTrainedTokenizerBase, prompt: tuple[int, ...], ids: tuple[int, ...]) -> str:
    """The text that tokens add to a prompt, without control tokens."""
    control = control_ids(tokenizer)
    whole = (*prompt, *(token for token in ids if token not in control))
    return added_text(tokenizer, whole, len(prompt), len(whole))
