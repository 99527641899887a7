"""A conversation, as chat models read it."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from apportion.errors import InputError, listing
from apportion.prompts.common import CHATML, PIECES, Keep, Splitter, check_baseline, check_by, check_keep

__all__ = ["CHAT_CUTS", "Chat", "check_chat_options"]

CHAT_CUTS = ("turns", "roles", *PIECES)
_RESERVED = (
    "add_generation_prompt", "chat_template", "continue_final_message", "conversation", "documents", "max_length",
    "messages", "padding", "return_assistant_tokens_mask", "return_dict", "return_tensors",
    "sanitize_control_tokens", "tokenize", "tokenizer_kwargs", "tools", "truncation",
)  # fmt: skip
"""What ``apply_chat_template`` takes that is not the template's own."""


@dataclass(frozen=True)
class Chat:
    """A conversation whose turns, or pieces of them, are features; each tool is one too.

    The model's own chat template writes the prompt of every coalition, so that roles, control tokens and the start
    token stand where the model knows them, and are never perturbed by themselves. With all features present
    the model reads exactly what ``tokenizer.apply_chat_template`` gives for the messages.

    Args:
        messages: dicts with ``"role"`` and ``"content"`` (a text, or a list of text parts), and whatever else the
            template reads, such as ``"tool_calls"``.
        by: ``"turns"`` (default: an absent turn is gone with its framing), ``"roles"`` (all turns of a role are one
            feature), or how the contents are cut while the framing of every turn stays: ``"sentences"``,
            ``"words"``, ``"paragraphs"``, or a function from a text to its pieces.
        baseline: the text that replaces an absent turn's content (the turn itself stays) or an absent piece.
            ``None`` removes them. Some templates demand that roles alternate; for them use ``baseline=""``.
        keep: what is always present and gets no score: texts of features or whole turns, roles, names of tools,
            indices (of turns or pieces, then tools), or a function that says so of a text. ``None`` keeps the
            last turn of the user by turns and roles, since without a question nothing is answered, and keeps
            nothing when contents are cut; ``()`` keeps nothing.
        tools: JSON schemas of tools, or documented functions with type hints; each is a feature, and an absent
            one is not shown to the template.
        chat_template: a Jinja template, or the name of one of several that the tokenizer has; its default one
            unless given.
        template_options: further variables of the template, such as ``{"enable_thinking": False}``.
        add_generation_prompt: begin the assistant's answer after the last turn. Where the last turn is the
            assistant's own, the target continues it instead. ``False`` ends with the last turn as it is.
        allow_control_tokens: take contents that hold control tokens, such as ``"<|im_end|>"``, and read them as
            control tokens, as ``apply_chat_template`` does; the result then says so. Otherwise they are refused,
            since they would pass for framing.

    Raises:
        InputError: no messages, a message without role or content, a content that is no text, a tool without name,
            an unknown ``by``, an option that is not the template's.
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
                f"{type(self.messages).__name__}: {self.messages!r:.80}."
            )
        if not self.messages:
            raise InputError("The list of messages is empty; there is nothing to attribute to.")
        for number, message in enumerate(self.messages):
            _check_message(number, message)
        if self.by == "tokens":
            raise InputError(f"A Chat is cut by {listing(CHAT_CUTS)} or a function, not by 'tokens'.")
        check_by(self.by, CHAT_CUTS)
        check_baseline(self.baseline)
        if self.keep is not None:
            check_keep(self.keep)
        if isinstance(self.tools, str | Mapping) or not isinstance(self.tools, Sequence):
            raise InputError(f"tools={self.tools!r:.80} must be a list of JSON schemas or functions.")
        names = [tool_name(tool) for tool in self.tools]
        twice = [name for i, name in enumerate(names) if name in names[:i]]
        if twice:
            raise InputError(f"Two tools are called {twice[0]!r}; give one of them another name.")
        check_chat_options(self.chat_template, self.template_options)
        for name in ("add_generation_prompt", "allow_control_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}={getattr(self, name)!r} must be True or False.")

    @classmethod
    def example(cls) -> Chat:
        """A small one, for trying things out (``apportion plugins check``)."""
        messages = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Name a city."}]
        return cls(messages, keep=(), chat_template=CHATML, baseline="")


def check_chat_options(chat_template: object, template_options: object) -> None:
    """Refuse what a chat template cannot be applied with.

    Raises:
        InputError: a template that is no text, options that are no dict or are not the template's own.
    """
    if not isinstance(chat_template, str | None) or chat_template == "":
        raise InputError(f"chat_template={chat_template!r} must be a Jinja template, or None for the tokenizer's own.")
    if not isinstance(template_options, Mapping) or not all(isinstance(name, str) for name in template_options):
        raise InputError(f"template_options={template_options!r} must be a dict of variables of the chat template.")
    for name in template_options:
        if name in _RESERVED:
            raise InputError(f"template_options cannot set {name!r}, which apportion sets; see the arguments of Chat.")


def tool_name(tool: object) -> str:
    """What a tool is called.

    Raises:
        InputError: neither a function nor a JSON schema with a name.
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
            f"The tool {tool!r:.80} has no name; a tool is a function, or a JSON schema such as "
            "{'type': 'function', 'function': {'name': 'get_time', 'parameters': {…}}}."
        )
    return name


def _check_message(number: int, message: object) -> None:
    what = f"Message {number}"
    if not isinstance(message, Mapping):
        raise InputError(f"{what} must be a dict with 'role' and 'content', not {message!r:.80}.")
    if "role" not in message:
        raise InputError(f"{what} has no 'role'. Its keys: {listing(map(repr, message))}.")
    role = message["role"]
    # A role is joined to control tokens by many templates; it must not be able to close them.
    if not isinstance(role, str) or not re.fullmatch(r"\w[\w .-]*", role):
        raise InputError(
            f"{what} has the role {role!r:.80}; a role is a word such as 'system', 'user', 'assistant' or 'tool'."
        )
    content = message.get("content")
    if content is None:
        if not message.get("tool_calls"):
            raise InputError(
                f"{what} ({role}) has no content; its keys: {listing(map(repr, message))}. Give a text, an empty one "
                "for nothing; only a message with 'tool_calls' goes without."
            )
    elif not isinstance(content, str):
        _check_parts(f"{what} ({role})", content)


def _check_parts(what: str, content: object) -> None:
    if isinstance(content, Mapping) or not isinstance(content, Sequence) or not content:
        raise InputError(f"{what} has a {type(content).__name__} for content: {content!r:.80}. Give a text.")
    for part in content:
        if not isinstance(part, Mapping) or part.get("type") != "text" or not isinstance(part.get("text"), str):
            raise InputError(
                f"{what} has a part that is no text: {part!r:.80}. A Chat takes texts and parts such as "
                "{'type': 'text', 'text': 'Hi'}; images and sounds are not for it."
            )
