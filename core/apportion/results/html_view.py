"""HTML that is a page in a file and an output in a notebook."""

from __future__ import annotations

from html import escape
from pathlib import Path

from apportion.errors import ResultError, counted
from apportion.files import write_atomically
from apportion.phrases import quoted

__all__ = ["HtmlView"]

_PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>body {{ margin: 0; }}</style>
</head>
<body>
{body}
</body>
</html>
"""


class HtmlView(str):
    """HTML that notebooks display. As a string, and in files, it is a whole page.

    Args:
        fragment: HTML of the body, escaped and complete in itself, with its own styles.
        title: plain text for the title of the page.

    Attributes:
        fragment: the HTML of the body, to embed in another page.
    """

    fragment: str
    _title: str

    def __new__(cls, fragment: str, title: str = "apportion") -> HtmlView:
        """Make the page."""
        view = super().__new__(cls, _PAGE.format(title=escape(title), body=fragment))
        view.fragment, view._title = fragment, title
        return view

    def __reduce__(self) -> tuple[type[HtmlView], tuple[str, str]]:
        return type(self), (self.fragment, self._title)

    def save(self, path: str | Path) -> Path:
        """Write the page to a file in UTF-8, atomically.

        Raises:
            ResultError: the file cannot be written.
        """
        path = Path(path)
        try:
            write_atomically(path, self.encode())
        except OSError as error:
            raise ResultError(f"Cannot write {path}: {error.strerror or error}.") from error
        return path

    def __repr__(self) -> str:
        return f"HtmlView({quoted(self._title)}, {counted(len(self), 'character')})"

    def _repr_html_(self) -> str:
        return self.fragment
