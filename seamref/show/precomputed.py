"""Answers of explorers, computed beforehand: every setting that the explorer offers, run on the real machine.

A page from a folder has no Python, and its browser lets it fetch nothing.  So the answers stand in a script beside the
page that assigns one object.  Different settings often have the same answer, and different answers mostly the same
rows: an answer is a list of pieces, and each piece is held once.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

from seamref.errors import SeamrefError
from seamref.show.explorers import Explorer, html_of

EXPLORERS: Mapping[str, str] = {
    "seamcall": "seamref.show.processor:seamcall_explorer",
    "boot": "seamref.show.boot:break_explorer",
    "sigstruct": "seamref.show.loader:sigstruct_explorer",
    "memory": "seamref.show.loader:memory_explorer",
    "refusals": "seamref.show.tdx:refusal_explorer",
    "update": "seamref.show.host:update_explorer",
}
"""The book's explorers: key -> the function that declares it."""

PIECE = re.compile(r"(?=<(?:tr|rect|text|path|circle|polygon|svg|defs|table|p)\b|</(?:tbody|svg)>)")


def explorer_named(key: str) -> Explorer:
    """One of the book's explorers, by its key."""
    if key not in EXPLORERS:
        raise SeamrefError(f"no explorer {key!r}; there are {', '.join(EXPLORERS)}")
    module, _, function = EXPLORERS[key].partition(":")
    made: Explorer = getattr(import_module(module), function)()
    return made


@dataclass(frozen=True, slots=True)
class Turns:
    """Every answer of an explorer.

    ``sizes``   how many choices each control has, the last control turns fastest
    ``number``  setting -> which answer
    ``answers`` the different answers, as HTML
    """

    key: str
    sizes: tuple[int, ...]
    number: tuple[int, ...]
    answers: tuple[str, ...]

    def answer(self, *choices: int) -> str:
        """The answer for one choice of each control, by number."""
        place = 0
        for size, choice in zip(self.sizes, choices, strict=True):
            place = place * size + choice
        return self.answers[self.number[place]]


def turns_of(explorer: Explorer) -> Turns:
    """Run every setting."""
    known: dict[str, int] = {}
    number = [known.setdefault(html_of(explorer.function(**one)), len(known)) for one in explorer.settings()]
    sizes = tuple(len(choices) for choices in explorer.options.values())
    return Turns(explorer.key, sizes, tuple(number), tuple(known))


def script(turns: Turns, dress: Callable[[str], str] = str) -> str:
    """The script that assigns them.  ``dress`` is what the page does to its own HTML (links to clauses)."""
    pieces: dict[str, int] = {}
    answers = [
        [pieces.setdefault(piece, len(pieces)) for piece in PIECE.split(dress(answer)) if piece]
        for answer in turns.answers
    ]
    held = {"sizes": turns.sizes, "number": turns.number, "answers": answers, "pieces": list(pieces)}
    data = json.dumps(held, separators=(",", ":"), ensure_ascii=False)
    # U+2028 and U+2029 end a line in old readings of a script; "</" would end it where it stands in a page.
    data = data.replace("\u2028", "\\u2028").replace("\u2029", "\\u2029").replace("</", "<\\/")
    place = "window.seambook=window.seambook||{};seambook.turns=seambook.turns||{}"
    return f"{place};seambook.turns[{json.dumps(turns.key)}]={data};\n"


def answer(key: str, marks: Mapping[str, Any]) -> str:
    """An answer that was not computed beforehand, for what a page sends (:meth:`Explorer.chosen`)."""
    made = _declared(key)
    return made.html_at(**made.chosen(marks))


@cache
def _declared(key: str) -> Explorer:
    return explorer_named(key)


__all__ = ["EXPLORERS", "Turns", "answer", "explorer_named", "script", "turns_of"]
