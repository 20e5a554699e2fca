"""Text of others in the terminal and in Markdown: it is shown, and is never markup or a control code."""

from __future__ import annotations

import html

from rich.markup import escape

from unremember.errors import printable

_ENTITIES = {ord(character): f"&#{ord(character)};" for character in "|`["}


def terminal_text(text: str) -> str:
    """Return text for a table or title of rich: brackets are no styles, control codes are visible."""
    return escape(printable(text))


def markdown_text(text: str) -> str:
    """Return text for a cell or heading of Markdown, on one line: no cell, link, code or HTML comes of it."""
    return html.escape(printable(text), quote=False).translate(_ENTITIES)


def code_span(text: str) -> str:
    """Return text as code in Markdown, on one line."""
    return f"`{printable(text).replace('`', chr(39))}`"
