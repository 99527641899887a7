"""What a user writes to say which parts of a prompt are features.

These are plain descriptions, checked as far as that is possible without a model; the input adapters
in ``apportion_plugins.inputs`` give them their meaning.
"""

from __future__ import annotations

from apportion.prompts.chat import Chat
from apportion.prompts.documents import Documents
from apportion.prompts.template import Template
from apportion.prompts.text import Text

__all__ = ["Chat", "Documents", "Template", "Text"]
