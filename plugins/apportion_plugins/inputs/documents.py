"""Questions about documents, whose features are documents or pieces of them."""

from __future__ import annotations

import string
from collections.abc import Mapping, Sequence

from jaxtyping import Bool
from torch import Tensor

from apportion.prompts.documents import Documents
from apportion.protocols.row import ModelInput
from apportion.rendering.context import AdaptContext
from apportion_plugins.inputs.chat_template import ChatWriter
from apportion_plugins.inputs.control_tokens import check_control_tokens
from apportion_plugins.inputs.levels import Grouping, nested
from apportion_plugins.inputs.marks import segments, unmarked
from apportion_plugins.inputs.naming import kept_indices
from apportion_plugins.inputs.sections import Sections
from apportion_plugins.inputs.units import Units

__all__ = ["DocumentsAdapter"]


class DocumentsAdapter:
    """Fills the layout with the documents of a coalition, and renders it with the chat template if requested."""

    def __init__(self, prompt: Documents, context: AdaptContext) -> None:
        self._prompt = prompt
        self._context = context
        self._layout, self._document = _parsed(prompt.layout), _parsed(prompt.document)
        whole = prompt.by == "documents"
        self._sections = Sections(prompt.texts, (lambda text: [text.strip()]) if whole else prompt.by)
        self._writer: ChatWriter | None = None
        self.notes: tuple[str, ...] = ()
        if prompt.as_chat:
            layouts = (prompt.layout, prompt.document, prompt.separator, prompt.baseline)
            given = (prompt.question, *prompt.texts, *layouts)
            self.notes = check_control_tokens(context.tokenizer, given, allowed=prompt.allow_control_tokens)
            self._writer = ChatWriter(
                context.tokenizer, chat_template=prompt.chat_template, options=prompt.template_options
            )
        units = self._sections.units
        everything = [True] * len(units)
        full = self._text(everything)
        self._units = Units(
            units,
            kept_indices(prompt.keep, units, self._wider()),
            baseline=prompt.baseline or "",
            labels=prompt.names if whole else None,
        )
        self.features = self._units.features
        spans = unmarked(self._text(everything, marks=True), full, units)
        self.segments = segments(full, spans, self._units.feature_of)
        documents = Grouping("documents", range(len(prompt.names)), prompt.names)
        self.levels = nested(self._sections.groupings(documents, self._units.firsts), len(self.features))

    def render(self, mask: Bool[Tensor, "S F"]) -> list[ModelInput]:
        """Render the prompt of each coalition."""
        texts = [self._text(row) for row in self._units.present(mask).tolist()]
        return self._context.prompts(texts, special_tokens=self._writer is None)

    def _wider(self) -> dict[str, list[int]]:
        """Units of whole documents, by name and by text."""
        of_document: dict[int, list[int]] = {}
        for unit, section in enumerate(self._sections.section_of):
            of_document.setdefault(section, []).append(unit)
        by_text = {self._prompt.texts[section].strip(): units for section, units in of_document.items()}
        return by_text | {self._prompt.names[section]: units for section, units in of_document.items()}

    def _text(self, present: Sequence[bool], *, marks: bool = False) -> str:
        prompt = self._prompt
        there = {
            section
            for section, here in zip(self._sections.section_of, present, strict=True)
            if here or prompt.baseline is not None
        }
        texts = self._sections.join(present, prompt.baseline, marks=marks)
        shown = [_filled(self._document, {"text": texts[i], "name": prompt.names[i]}) for i in sorted(there)]
        context = prompt.separator.join(shown)
        text = _filled(self._layout, {"context": context, "question": prompt.question})
        return text if self._writer is None else self._writer.write([{"role": "user", "content": text}])


def _parsed(layout: str) -> list[tuple[str, str | None]]:
    """Literal texts, each with the placeholder that follows it."""
    return [(literal, name) for literal, name, _, _ in string.Formatter().parse(layout)]


def _filled(layout: Sequence[tuple[str, str | None]], values: Mapping[str, str]) -> str:
    return "".join([literal + (values[name] if name else "") for literal, name in layout])
