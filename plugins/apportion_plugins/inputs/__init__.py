"""Input adapters: plain text, templates, conversations, and questions about documents."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.hooks.hookspecs import hookimpl
from apportion.hooks.registry import Register
from apportion.prompts.chat import Chat
from apportion.prompts.documents import Documents
from apportion.prompts.image_text import ImageText
from apportion.prompts.template import Template
from apportion.prompts.text import Text

if TYPE_CHECKING:
    from apportion.protocols.inputs import InputAdapter
    from apportion.rendering.context import AdaptContext


@hookimpl
def apportion_register_inputs(register: Register) -> None:
    """Register the prompt types of this package."""
    register("text", Text, summary="a text split into words, tokens, sentences, lines, paragraphs or custom pieces")
    register("template", Template, summary="a text with slots, their baselines, and groups of slots")
    register("chat", Chat, summary="a conversation: turns, roles or pieces of messages, and tools")
    register("image_text", ImageText, summary="pictures with a text: regions of the pictures, and parts of the text")
    register("documents", Documents, summary="a question about documents: the documents or pieces of them")


@hookimpl
def apportion_adapt_input(prompt: object, context: AdaptContext) -> InputAdapter | None:
    """Adapt the prompt types of this package."""
    if isinstance(prompt, Text):
        from apportion_plugins.inputs.text import text_adapter

        return text_adapter(prompt, context)
    if isinstance(prompt, Template):
        from apportion_plugins.inputs.template import TemplateAdapter

        return TemplateAdapter(prompt, context)
    if isinstance(prompt, Chat):
        from apportion_plugins.inputs.chat import ChatAdapter

        return ChatAdapter(prompt, context)
    if isinstance(prompt, Documents):
        from apportion_plugins.inputs.documents import DocumentsAdapter

        return DocumentsAdapter(prompt, context)
    if isinstance(prompt, ImageText):
        from apportion_plugins.inputs.image_text import ImageTextAdapter

        return ImageTextAdapter(prompt, context)
    return None
