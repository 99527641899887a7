"""Inputs: plain text and templates."""

from __future__ import annotations

from typing import TYPE_CHECKING

from apportion.hookspecs import hookimpl
from apportion.prompts import Template, Text
from apportion.registry import Register

if TYPE_CHECKING:
    from apportion.inputs import AdaptContext, InputAdapter


@hookimpl
def apportion_register_inputs(register: Register) -> None:
    """Register the prompt types of this package."""
    register("text", Text, summary="a text cut into words, tokens, sentences, paragraphs or your own pieces")
    register("template", Template, summary="a text with slots, baselines for them, and groups of slots")


@hookimpl
def apportion_adapt_input(prompt: object, context: AdaptContext) -> InputAdapter | None:
    """Adapt ``str``, ``Text`` and ``Template``."""
    if isinstance(prompt, Text):
        from apportion_plugins.inputs.text import text_adapter

        return text_adapter(prompt, context)
    if isinstance(prompt, Template):
        from apportion_plugins.inputs.template import TemplateAdapter

        return TemplateAdapter(prompt, context)
    return None
