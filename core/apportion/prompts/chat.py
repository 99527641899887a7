"""A conversation for chat models."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from apportion.errors import InputError, listing, shown
from apportion.options import true_or_false
from apportion.prompts.common import CHATML, PIECES, Keep, Splitter, check_baseline, check_by, check_keep, repeated

__all__ = ["CHAT_CUTS", "Chat", "check_chat_options"]

CHAT_CUTS = ("turns", "roles", *PIECES)
_RESERVED = (
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length",
    "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors",
    "sanitize_control_tokens", "tokenize", "tokenizer_kwargs", "tools", "truncation",
)  # fmt: skip
"""Parameters of ``apply_chat_template`` that are not variables of the template."""


@dataclass(frozen=True)
class Chat:
    """A conversation whose turns, or pieces of them, are features; each tool is also a feature.

    The model's own chat template writes the prompt of every coalition. So roles, control tokens and the start token are
    where the model expects them, and are never perturbed on their own. With all features present, the model reads
    exactly the output of ``tokenizer.apply_chat_template`` for the messages.

    Args:
        messages: dicts with ``"role"`` and ``"content"`` (a string, or a list of text parts), and any other keys that
            the template reads, such as ``"tool_calls"``. Parts ``{"type": "image"}`` stand for the pictures of an
            ``ImageText``; they stay if their turn is absent, because their regions are features of their own.
        by: ``"turns"`` (default; an absent turn is removed together with its framing) or ``"roles"`` (all turns of a
            role are one feature). To split the contents and keep the framing of every turn, use ``"sentences"``,
            ``"words"``, ``"lines"``, ``"paragraphs"``, or a function from a text to its pieces.
        baseline: the text that replaces the content of an absent turn (the turn itself stays) or an absent piece.
            ``None`` removes them. Some templates require roles to alternate; use ``baseline=""`` with them.
        keep: parts that are always present and get no score: texts of features or whole turns, roles, names of tools,
            indices (of turns or pieces, then tools), or a function from a text to ``True`` or ``False``. With ``None``,
            the user's last turn is kept if ``by`` is ``"turns"`` or ``"roles"``, because there is nothing to answer
            without a question; nothing is kept if contents are split. ``()`` keeps nothing.
        tools: JSON schemas of tools, or documented functions with type hints; each is a feature, and an absent one is
            not passed to the template.
        chat_template: a Jinja template, or the name of one of the tokenizer's templates; ``None`` for its default.
        template_options: further variables of the template, such as ``{"enable_thinking": False}``.
        add_generation_prompt: begin the assistant's answer after the last turn. If the last turn is the assistant's,
            the target continues it instead. ``False`` ends the prompt with the last turn.
        allow_control_tokens: accept contents with control tokens, such as ``"<|im_end|>"``, and read them as control
            tokens, as ``apply_chat_template`` does; the result then says so. Otherwise they are rejected, because the
            model would take them for framing.

    Raises:
        InputError: there are no messages, a message has no role or content, a content is not text, a tool has no name,
            ``by`` is unknown, or an option is not a variable of the template.
    """

    messages: Sequence[Mapping[str, object]]
    by: str | Splitter = "turns"
    baseline: str | None = None
    keep: Keep | None = None
    tools: Sequence[Mapping[str, object] | Callable[..., object]] = ()
    chat_template: str | None = None
    template_options: Mapping[str, object] = field(default_factory=dict)
    add_generation_prompt: bool = True
    allow_control_tokens: bool = False

    def __post_init__(self) -> None:
        if isinstance(self.messages, str | Mapping) or not isinstance(self.messages, Sequence):
            raise InputError(
                f"Chat takes a list of messages such as [{{'role': 'user', 'content': 'Hi'}}], not a "
                f"{type(self.messages).__name__}: {shown(self.messages)}."
            )
        if not self.messages:
            raise InputError("The list of messages must not be empty.")
        for number, message in enumerate(self.messages):
            _check_message(number, message)
        if self.by == "tokens":
            raise InputError(f"A Chat is split by {listing(CHAT_CUTS)} or a function, not by 'tokens'.")
        check_by(self.by, CHAT_CUTS)
        check_baseline(self.baseline)
        if self.keep is not None:
            check_keep(self.keep)
        if isinstance(self.tools, str | Mapping) or not isinstance(self.tools, Sequence):
            raise InputError(f"tools={shown(self.tools)} must be a list of JSON schemas or functions.")
        twice = repeated(tool_name(tool) for tool in self.tools)
        if twice is not None:
            raise InputError(f"Two tools are called {twice!r}; rename one of them.")
        check_chat_options(self.chat_template, self.template_options)
        for name in ("add_generation_prompt", "allow_control_tokens"):
            true_or_false(name, getattr(self, name))

    @classmethod
    def example(cls) -> Chat:
        """A small example, for trying things out (``apportion plugins check``)."""
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a city."}]
        return cls(messages, keep=(), chat_template=CHATML, baseline="")

    @property
    def image_parts(self) -> int:
        """Number of parts that stand for pictures."""
        contents = (message.get("content") for message in self.messages)
        parts = (part for content in contents if isinstance(content, list | tuple) for part in content)
        return sum(part.get("type") == "image" for part in parts)


def check_chat_options(chat_template: object, template_options: object) -> None:
    """Reject a chat template or options that cannot be used.

    Raises:
        InputError: the template is not a string, or the options are not a dict of the template's variables.
    """
    if not isinstance(chat_template, str | None) or chat_template == "":
        raise InputError(f"chat_template={chat_template!r} must be a Jinja template, or None for the tokenizer's own.")
    if not isinstance(template_options, Mapping) or not all(isinstance(name, str) for name in template_options):
        raise InputError(f"template_options={template_options!r} must be a dict of variables of the chat template.")
    for name in template_options:
        if name in _RESERVED:
            raise InputError(f"template_options cannot set {name!r}: apportion sets it. See the arguments of Chat.")


def tool_name(tool: object) -> str:
    """Name of a tool.

    Raises:
        InputError: the tool is neither a function nor a JSON schema with a name.
    """
    if callable(tool):
        name: object = getattr(tool, "__name__", None)
    elif isinstance(tool, Mapping):
        inner = tool.get("function", tool)
        name = inner.get("name") if isinstance(inner, Mapping) else None
    else:
        name = None
    if not isinstance(name, str) or not name.strip():
        raise InputError(
            f"The tool {tool!r:.80} has no name. A tool is a function, or a JSON schema such as "
            "{'type': 'function', 'function': {'name': 'get_time', 'parameters': {…}}}."
        )
    return name


def _check_message(number: int, message: object) -> None:
    what = f"Message {number}"
    if not isinstance(message, Mapping):
        raise InputError(f"{what} must be a dict with 'role' and 'content', not {shown(message)}.")
    if "role" not in message:
        raise InputError(f"{what} has no 'role'. Its keys: {listing(map(repr, message))}.")
    role = message["role"]
    # Many templates put a role inside control tokens; it must not be able to close them.
    if not isinstance(role, str) or not re.fullmatch(r"\w[\w .-]*", role):
        raise InputError(
            f"{what} has the role {role!r:.80}. A role is a word such as 'system', 'user', 'assistant' or 'tool'."
        )
    content = message.get("content")
    if content is None:
        if not message.get("tool_calls"):
            raise InputError(
                f"{what} ({role}) has no content. Its keys: {listing(map(repr, message))}. Give a string, which may be "
                "empty; only a message with 'tool_calls' needs no content."
            )
    elif not isinstance(content, str):
        _check_parts(f"{what} ({role})", content)


def _check_parts(what: str, content: object) -> None:
    if isinstance(content, Mapping) or not isinstance(content, Sequence) or not content:
        raise InputError(f"{what} must have a string as its content, not {content!r:.80}.")
    for part in content:
        kind = part.get("type") if isinstance(part, Mapping) else None
        if kind == "image" and set(part) == {"type"}:
            continue
        if kind in ("image", "image_url"):
            raise InputError(
                f"{what} has a part with a picture of its own: {part!r:.80}. Write {{'type': 'image'}} in its place, "
                "and give the pictures in order: ap.ImageText(pictures, chat)."
            )
        if kind != "text" or not isinstance(part.get("text"), str):
            raise InputError(
                f"{what} has a part that is not text: {part!r:.80}. A Chat takes strings and parts such as "
                "{'type': 'text', 'text': 'Hi'} and {'type': 'image'}, but no audio."
            )
