"""A question about documents, as in retrieval-augmented generation (RAG)."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import InitVar, dataclass, field

from apportion.errors import InputError, listing, shown, suggestion
from apportion.options import true_or_false
from apportion.prompts.chat import check_chat_options
from apportion.prompts.common import CHATML, PIECES, Keep, Splitter, check_baseline, check_by, check_keep
from apportion.prompts.template import placeholders

__all__ = ["LAYOUT", "Documents"]

CUTS = ("documents", *PIECES)
LAYOUT = "Context: {context}\n\nQuery: {question}"
"""ContextCite's layout."""


@dataclass(frozen=True)
class Documents:
    """A question and the documents to answer it from; the documents, or pieces of them, are features.

    The question is always present. An absent document is removed together with the separator before it, and so is a
    document whose pieces are all absent. The layout, and sentences as features, are those of ContextCite
    (Cohen-Wang et al. 2024).

    Args:
        question: the question.
        documents: the texts, in a list, or in a dict by name.
        by: ``"documents"`` (default), ``"paragraphs"``, ``"lines"``, ``"sentences"``, ``"words"``, or a function from a
            text to its pieces.
        layout: the prompt as a format string with ``{context}`` for the documents and ``{question}``.
        document: one document in the context, as a format string with ``{text}`` and optionally ``{name}``.
        separator: text between documents.
        baseline: the text that replaces an absent document or piece; ``None`` removes it.
        keep: parts that are always present and get no score: texts of features, names or texts of whole documents,
            indices, or a function from a text to ``True`` or ``False``.
        as_chat: send the prompt as a user's message, in the model's chat template.
        chat_template: a Jinja template, or the name of one of the tokenizer's templates; ``None`` for its default.
            This and the next two arguments require ``as_chat=True``.
        template_options: further variables of the chat template.
        allow_control_tokens: as for ``Chat``.
        template: alias of ``layout``; give only one of them.
        chat: alias of ``as_chat``.

    Raises:
        InputError: the question or a document is empty, there are no documents, a layout lacks a placeholder,
            ``by`` is unknown, or chat options are given without ``as_chat=True``.
    """

    question: str
    documents: Sequence[str] | Mapping[str, str]
    by: str | Splitter = "documents"
    layout: str = LAYOUT
    document: str = "{text}"
    separator: str = "\n\n"
    baseline: str | None = None
    keep: Keep = ()
    as_chat: bool = False
    chat_template: str | None = None
    template_options: Mapping[str, object] = field(default_factory=dict)
    allow_control_tokens: bool = False
    names: tuple[str, ...] = field(init=False, repr=False)
    texts: tuple[str, ...] = field(init=False, repr=False)
    template: InitVar[str | None] = field(default=None, kw_only=True)
    chat: InitVar[bool | None] = field(default=None, kw_only=True)

    def __post_init__(self, template: str | None, chat: bool | None) -> None:
        self._take_alias("layout", LAYOUT, "template", template)
        self._take_alias("as_chat", False, "chat", chat)
        if not isinstance(self.question, str) or not self.question.strip():
            raise InputError(f"The question must be a string and must not be empty; it is {shown(self.question)}.")
        if isinstance(self.documents, str) or not isinstance(self.documents, Mapping | Sequence):
            raise InputError(f"documents={shown(self.documents)} must be a list of strings, or a dict of them by name.")
        if not self.documents:
            raise InputError("documents must not be empty.")
        named = isinstance(self.documents, Mapping)
        names = self.documents if named else [f"document {i}" for i in range(1, len(self.documents) + 1)]
        object.__setattr__(self, "names", tuple(map(str, names)))
        texts = self.documents.values() if isinstance(self.documents, Mapping) else self.documents
        object.__setattr__(self, "texts", tuple(texts))
        for name, text in zip(self.names, self.texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                hint = " Omit it." if isinstance(text, str) else ""
                raise InputError(f"{name!r} must be a string and must not be empty; it is {shown(text)}.{hint}")
        check_by(self.by, CUTS)
        _check_layout("layout", self.layout, needed=("context", "question"))
        _check_layout("document", self.document, needed=("text",), optional=("name",))
        if not isinstance(self.separator, str):
            raise InputError(f"separator={shown(self.separator)} must be a string.")
        check_baseline(self.baseline)
        check_keep(self.keep)
        check_chat_options(self.chat_template, self.template_options)
        for name in ("as_chat", "allow_control_tokens"):
            true_or_false(name, getattr(self, name))
        if not self.as_chat and (self.chat_template is not None or self.template_options or self.allow_control_tokens):
            raise InputError(
                "chat_template, template_options and allow_control_tokens apply to chats only; add as_chat=True, or "
                "omit them."
            )

    def _take_alias(self, name: str, default: object, alias: str, given: object) -> None:
        if given is None:
            return
        if getattr(self, name) != default:
            raise InputError(f"{alias}= is an alias of {name}=; give only one of them.")
        object.__setattr__(self, name, given)

    @classmethod
    def example(cls) -> Documents:
        """A small example, for trying things out (``apportion plugins check``)."""
        return cls("Where is Dave?", ["Dave left.", "He is in Rome."], as_chat=True, chat_template=CHATML)


def _check_layout(name: str, layout: object, *, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    if not isinstance(layout, str):
        raise InputError(f"{name}={layout!r:.80} must be a format string.")
    known = (*needed, *optional)
    found = placeholders(layout)
    for slot in found:
        if slot not in known:
            raise InputError(
                f"{name}={layout!r:.80} has an unknown placeholder {{{slot}}}. {suggestion(slot, known)}Available: "
                f"{listing(f'{{{each}}}' for each in known)}."
            )
    missing = [slot for slot in needed if slot not in found]
    if missing:
        raise InputError(f"{name}={layout!r:.80} must contain the placeholder {{{missing[0]}}}.")
    if any(spec or conversion for _, slot, spec, conversion in string.Formatter().parse(layout) if slot):
        raise InputError(
            f"{name}={layout!r:.80} has a placeholder with a format or conversion; write {{{needed[0]}}} alone."
        )
