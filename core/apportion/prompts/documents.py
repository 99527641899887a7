"""A question about documents, as in retrieval-augmented generation."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from apportion.errors import InputError, listing, suggestion
from apportion.prompts.chat import check_chat_options
from apportion.prompts.common import CHATML, PIECES, Keep, Splitter, check_baseline, check_by, check_keep
from apportion.prompts.template import placeholders

__all__ = ["LAYOUT", "Documents"]

CUTS = ("documents", *PIECES)
LAYOUT = "Context: {context}\n\nQuery: {question}"
"""ContextCite's."""


@dataclass(frozen=True)
class Documents:
    """A question and the documents to answer it from; the documents, or pieces of them, are features.

    The question is always present. An absent document is gone with the separator before it, and one whose
    pieces are all absent is gone too. The layout, and sentences as features, are those of ContextCite
    (Cohen-Wang et al. 2024).

    Args:
        question: what is asked.
        documents: the texts, in a list, or in a dict by their names.
        by: ``"documents"`` (default), ``"sentences"``, ``"paragraphs"``, ``"words"``, or a function from a text to
            its pieces.
        template: the prompt as a format string with ``{context}`` for the documents and ``{question}``.
        document: one document in the context, as a format string with ``{text}``, and ``{name}`` if it is to be read.
        separator: what stands between documents.
        baseline: the text that replaces an absent document or piece; ``None`` removes it.
        keep: what is always present and gets no score: texts of features, names or texts of whole documents,
            indices, or a function that says so of a text.
        chat: send the prompt as a user's message, in the model's chat template.
        chat_template: a Jinja template, or the name of one of several that the tokenizer has; its default one
            unless given. For ``chat=True``, as the following ones.
        template_options: further variables of the chat template.
        allow_control_tokens: as for ``Chat``.

    Raises:
        InputError: no question, no documents, an empty document, a layout without its placeholders, an unknown
            ``by``, chat options without ``chat=True``.
    """

    question: str
    documents: Sequence[str] | Mapping[str, str]
    by: str | Splitter = "documents"
    template: str = LAYOUT
    document: str = "{text}"
    separator: str = "\n\n"
    baseline: str | None = None
    keep: Keep = ()
    chat: bool = False
    chat_template: str | None = None
    template_options: Mapping[str, object] = field(default_factory=dict)
    allow_control_tokens: bool = False
    names: tuple[str, ...] = field(init=False, repr=False)
    texts: tuple[str, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.question, str) or not self.question.strip():
            raise InputError(f"The question must be a text with something in it; it is {self.question!r:.80}.")
        if isinstance(self.documents, str) or not isinstance(self.documents, Mapping | Sequence):
            raise InputError(f"documents={self.documents!r:.80} is neither a list of texts nor a dict of them by name.")
        if not self.documents:
            raise InputError("There are no documents; there is nothing to attribute to.")
        named = isinstance(self.documents, Mapping)
        names = self.documents if named else [f"document {i}" for i in range(1, len(self.documents) + 1)]
        object.__setattr__(self, "names", tuple(map(str, names)))
        texts = self.documents.values() if isinstance(self.documents, Mapping) else self.documents
        object.__setattr__(self, "texts", tuple(texts))
        for name, text in zip(self.names, self.texts, strict=True):
            if not isinstance(text, str) or not text.strip():
                raise InputError(f"{name!r} must be a text with something in it; it is {text!r:.80}. Leave it out.")
        check_by(self.by, CUTS)
        _check_layout("template", self.template, needed=("context", "question"))
        _check_layout("document", self.document, needed=("text",), optional=("name",))
        if not isinstance(self.separator, str):
            raise InputError(f"separator={self.separator!r} must be a text.")
        check_baseline(self.baseline)
        check_keep(self.keep)
        check_chat_options(self.chat_template, self.template_options)
        for name in ("chat", "allow_control_tokens"):
            if not isinstance(getattr(self, name), bool):
                raise InputError(f"{name}={getattr(self, name)!r} must be True or False.")
        if not self.chat and (self.chat_template is not None or self.template_options or self.allow_control_tokens):
            raise InputError(
                "chat_template, template_options and allow_control_tokens are about chats; add chat=True, or leave "
                "them out."
            )

    @classmethod
    def example(cls) -> Documents:
        """A small one, for trying things out (``apportion plugins check``)."""
        return cls("Where is Dave?", ["Dave left.", "He is in Rome."], chat=True, chat_template=CHATML)


def _check_layout(name: str, layout: object, *, needed: tuple[str, ...], optional: tuple[str, ...] = ()) -> None:
    if not isinstance(layout, str):
        raise InputError(f"{name}={layout!r:.80} must be a format string.")
    known = (*needed, *optional)
    found = placeholders(layout)
    for slot in found:
        if slot not in known:
            raise InputError(
                f"{name}={layout!r:.80} has the placeholder {{{slot}}}. {suggestion(slot, known)}There are: "
                f"{listing(f'{{{each}}}' for each in known)}."
            )
    missing = [slot for slot in needed if slot not in found]
    if missing:
        raise InputError(f"{name}={layout!r:.80} has no {{{missing[0]}}}; say where it stands.")
    if any(spec or conversion for _, slot, spec, conversion in string.Formatter().parse(layout) if slot):
        raise InputError(f"{name}={layout!r:.80} formats a placeholder; write it plainly, such as {{{needed[0]}}}.")
