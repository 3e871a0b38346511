"""Sets in the formats of the recordings: the same documents that ``conform`` replays, made by this machine.

A :class:`RecordedSet` gives a whole document of its format.  What its fields are is declared as rows of
:mod:`seamref.export.form`, from which schema and page come; the clauses that its cases are about are explained in a
file beside it, because the formats leave no room for them.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from seamref.export.form import Item, ListOf, OneOf, Text
from seamref.spec import CLAUSES

CLAUSES_FORMAT = "seamref-clauses/1"


@dataclass(frozen=True)
class RecordedSet:
    """A set in a format of recordings.

    ``format``    the format's id
    ``document``  the fields of the document
    ``made``      small or not -> the document, and the clauses that each case is about, by its id
    ``count``     the number of cases, without running them
    """

    name: str
    title: str
    about: tuple[str, ...]
    format: str
    document: tuple[Item, ...]
    made: Callable[[bool], tuple[dict[str, Any], dict[str, tuple[str, ...]]]]
    count: Callable[[], int]


CLAUSE_ROW: tuple[Item, ...] = (
    Item("says", Text(), "what the clause demands"), Item("source", Text(), "where that is said, by tags"),
    Item("mark", OneOf(("stated", "measured", "chosen")), "how well it is known"),
    Item("cases", ListOf(Text()), "ids of the cases that are about it"),
)


def clauses_document(flags: Mapping[str, Sequence[str]]) -> dict[str, Any]:
    """The clauses that cases are about, each explained, with the cases of each."""
    found: dict[str, dict[str, Any]] = {}
    for case, ids in flags.items():
        for id in ids:
            held = CLAUSES[id]
            known = found.setdefault(id, {
                "says": held.says, "source": held.source, "mark": held.mark.value, "cases": []})
            known["cases"].append(case)
    return dict(sorted(found.items()))


def shown(value: Any) -> Any:
    """Numbers above 32 bits as "0x...", as the formats write them: JSON readers may round them."""
    if isinstance(value, bool) or value is None or isinstance(value, str):
        return value
    if isinstance(value, int):
        return hex(value) if value >> 32 else value
    if isinstance(value, Mapping):
        return {name: shown(held) for name, held in value.items()}
    return [shown(held) for held in value]


def runs(data: bytes, under: bytes, gap: int = 32) -> list[tuple[int, bytes]]:
    """Where ``data`` differs from ``under``: (offset, bytes), differences less than ``gap`` bytes apart as one."""
    found: list[tuple[int, int]] = []
    for page in range(0, len(data), 4096):
        if data[page : page + 4096] == under[page : page + 4096]:
            continue
        for at in range(page, min(page + 4096, len(data))):
            if data[at] != under[at]:
                if found and at - found[-1][1] < gap:
                    found[-1] = (found[-1][0], at + 1)
                else:
                    found.append((at, at + 1))
    return [(start, data[start:end]) for start, end in found]


def plain(document: Any) -> Any:
    """As JSON holds it."""
    return json.loads(json.dumps(document))
