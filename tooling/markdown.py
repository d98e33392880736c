"""What the generated pages have in common."""

import html


def code(text: str) -> str:
    """Return a text as code that may stand in a table."""
    if "|" in text:  # which ends a cell, also within backticks
        return f"<code>{html.escape(text, quote=False).replace('|', '&#124;')}</code>"
    return f"`{text}`" if text else ""
