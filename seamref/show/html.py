"""HTML that reads the same in the printed page, in light, in dark, and in JupyterLab.

Colours are never fixed: text is ``currentColor``, lines and tones are CSS variables.  The book defines them for
its two themes (``book/_static/custom.css``), JupyterLab has its own, and a middle tone stands behind both.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from html import escape
from typing import Any

from seamref.errors import SeamrefError
from seamref.layout import Record
from seamref.spec import CLAUSES, Clause

LINE = "var(--pst-color-border,var(--jp-border-color2,#8c8c8c))"
QUIET = "var(--pst-color-text-muted,var(--jp-ui-font-color2,#767676))"
PAPER = "var(--pst-color-background,var(--jp-layout-color0,Canvas))"

TONES: Mapping[str, str] = {
    "": "currentColor",
    "quiet": QUIET,
    "blue": "var(--seam-blue,#3b7dd8)",
    "green": "var(--seam-green,#2e9e5b)",
    "amber": "var(--seam-amber,#c98a1b)",
    "red": "var(--seam-red,#d6493f)",
    "violet": "var(--seam-violet,#8e62c9)",
    "teal": "var(--seam-teal,#1f97a0)",
}
"""Names of the colours a picture may ask for."""


def tone(name: str) -> str:
    """The CSS colour of a tone; an unknown name is an error that lists the known ones."""
    try:
        return TONES[name]
    except KeyError:
        raise SeamrefError(f"no tone {name!r}; there are {', '.join(filter(None, TONES))}") from None


class Html:
    """Something to look at: HTML for the page, ``text`` for a terminal and for readers without eyes."""

    def __init__(self, html: str, text: str) -> None:
        self.html = html
        self.text = text

    def _repr_html_(self) -> str:
        return self.html

    def __repr__(self) -> str:
        return self.text

    def __add__(self, other: Html) -> Html:
        return Html(self.html + other.html, f"{self.text}\n{other.text}")


def stack(*parts: Html | str) -> Html:
    """Several things below each other, as one output; a string is a line of text."""
    made = [part if isinstance(part, Html) else paragraph(part) for part in parts]
    return Html("".join(part.html for part in made), "\n".join(part.text for part in made))


def paragraph(text: str) -> Html:
    """A line of text; ``code`` in backticks."""
    return Html(f'<p style="margin:.4rem 0">{marked_up(text)}</p>', text.replace("`", ""))


def marked_up(text: str) -> str:
    """Escaped text in which ``code`` in backticks is set as code."""
    return re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text, quote=False))


def scrolling(inner: str, label: str) -> str:
    """A box that scrolls sideways when its content is wider than the page, reachable with the keyboard."""
    return (
        f'<div class="seam-scroll" role="region" aria-label="{escape(label)}" tabindex="0" '
        f'style="max-width:100%;overflow-x:auto">{inner}</div>'
    )


def slug(text: str) -> str:
    """A stable identifier from words."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def anchor(clause_id: str) -> str:
    """The place of a clause in the book's clause index."""
    return f"clause-{slug(clause_id)}"


CLAUSE_PAGE = "../appendices/clauses.html"
"""The clause index as a chapter of any part sees it."""


def clause_ref(clause_id: str, link: bool = True) -> str:
    """A clause id, linked to its place in the clause index."""
    text = f"<code>{escape(clause_id)}</code>"
    if link and clause_id in CLAUSES:
        return f'<a href="{CLAUSE_PAGE}#{anchor(clause_id)}">{text}</a>'
    return text


def mark_of(clause: Clause) -> str:
    """The clause's mark, as a small label."""
    return f'<span class="seam-mark seam-mark-{clause.mark.value}">{clause.mark.value}</span>'


class Id(str):
    """A clause id in a table: linked to the clause index."""

    __slots__ = ()


class Hex(int):
    """A number that is shown in hex."""


def plain(value: Any) -> str:
    """What a cell says, without markup."""
    match value:
        case None:
            return ""
        case Hex():
            return f"0x{int(value):X}"
        case bool():
            return "yes" if value else "no"
        case str():
            return value.replace("`", "")
        case Enum():
            return str(value.value)
        case bytes() | bytearray():
            if not any(value):
                return f"{len(value)} zero bytes" if value else ""
            return value[:16].hex() + ("..." if len(value) > 16 else "")
        case Record():
            return value.layout.name
        case list() | tuple() | set() | frozenset():
            return ", ".join(plain(part) for part in value)
        case _:
            return str(value)


def cell(value: Any) -> str:
    """What a cell says, as HTML."""
    match value:
        case Html():
            return value.html
        case Id():
            return clause_ref(str(value))
        case Hex() | bytes() | bytearray():
            text = plain(value)
            return f"<code>{text}</code>" if text else ""
        case str():
            return marked_up(value)
        case _:
            return escape(plain(value), quote=False)


def as_mapping(row: Any) -> Mapping[str, Any]:
    """A row as column -> value: mappings and dataclasses."""
    if isinstance(row, Mapping):
        return row
    if is_dataclass(row) and not isinstance(row, type):
        return {field.name: getattr(row, field.name) for field in fields(row)}
    raise SeamrefError(f"a row of a table is a mapping, a dataclass or a tuple, not {type(row).__name__}")
