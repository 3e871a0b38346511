"""What is declared, listed without importing the rooms: an index, and the rooms themselves where it is of another time.

The index (``declared.json``) is written by ``tools/declared.py`` and held equal to the declarations by a test.  A
function that carries a clause is found by the text of the line where it begins; where one such line is not there any
more, the sources were changed since, and the rooms are imported and asked.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import seamref

FILE = Path(__file__).with_name("declared.json")
ROOT = Path(seamref.__path__[0]).parent

Clause: TypeAlias = dict[str, Any]
"""A clause as ``clause --json`` has it; in the index ``implemented_by`` is a list of :func:`carrier`."""


class OfAnotherTime(Exception):
    """The index and the sources were not written together."""


def place_of(function: Callable[..., Any]) -> str:
    """package/file.py:line of a function, and its name."""
    path, line, name = _begins(function)
    return f"{path}:{line}" + (f" {name}" if name else "") if line else name


def _begins(function: Callable[..., Any]) -> tuple[str, int, str]:
    """File, line and name; no line where a function has no text, no name where it is a lambda."""
    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    if code is None:
        return "", 0, f"{function.__module__}.{function.__qualname__}"
    path = Path(code.co_filename)
    where = path.relative_to(ROOT).as_posix() if path.is_relative_to(ROOT) else path.name
    name = getattr(function, "__qualname__", "")
    return where, code.co_firstlineno, "" if "<lambda>" in name else name


def carrier(function: Callable[..., Any]) -> list[Any]:
    """What the index says of a function: file, text of the line where it begins, which one of these, and its name."""
    path, line, name = _begins(function)
    if not line:
        return [path, "", 0, name]
    lines = _lines(path)
    text = lines[line - 1]
    return [path, text, lines[:line - 1].count(text), name]


@cache
def _lines(path: str) -> list[str]:
    try:
        return [line.strip() for line in (ROOT / path).read_text(encoding="utf-8").split("\n")]
    except OSError:
        raise OfAnotherTime(path) from None


@cache
def _at(path: str) -> dict[str, list[int]]:
    """Text -> the lines of a file that have it."""
    found: dict[str, list[int]] = {}
    for number, text in enumerate(_lines(path), 1):
        found.setdefault(text, []).append(number)
    return found


def _place(path: str, text: str, which: int, name: str) -> str:
    if not path:
        return name
    lines = _at(path).get(text, ())
    if which >= len(lines):
        raise OfAnotherTime(path)
    return f"{path}:{lines[which]}" + (f" {name}" if name else "")


def _row(id: str, says: str, source: str, mark: str, at: tuple[str, int] | None, by: list[Any]) -> Clause:
    table, row = at or (None, None)
    return {"id": id, "says": says, "source": source, "mark": mark, "table": table, "row": row, "implemented_by": by}


def clauses_of_rooms(tell: Callable[[Callable[..., Any]], Any] = place_of) -> list[Clause]:
    """Every clause that has been declared by now, in the order of ids; ``tell`` says what stands for a function."""
    from seamref.spec import CLAUSES, IMPLEMENTED_BY, TABLES

    rows = {row.id: (table.name, i) for table in TABLES.values() for i, row in enumerate(table, 1)}
    return [_row(id, c.says, c.source, c.mark.value, rows.get(id), [tell(f) for f in IMPLEMENTED_BY.get(id, ())])
            for id, c in sorted(CLAUSES.items())]


@cache
def index() -> dict[str, Any]:
    """The index as it is stored; empty where there is none."""
    try:
        found: dict[str, Any] = json.loads(FILE.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found


def clauses() -> list[Clause]:
    """Every clause, in the order of ids: from the index, or from the rooms."""
    try:
        if held := index().get("clauses"):
            return [{**row, "implemented_by": [_place(*by) for by in row["implemented_by"]]} for row in held]
    except OfAnotherTime:
        pass
    from seamref.commands._rooms import import_clauses

    import_clauses(None)
    return clauses_of_rooms()


def layouts_of_rooms() -> list[dict[str, Any]]:
    """Every structure as ``layout --json`` lists it, asked of the rooms."""
    from seamref.commands._rooms import layouts

    return [{"name": v.name, "size": v.size, "doc": v.doc, "source": v.source} for v in layouts().values()]


def layouts() -> list[dict[str, Any]]:
    """Every structure, in the order of names: from the index, or from the rooms."""
    held: list[dict[str, Any]] = index().get("layouts", [])
    return held or layouts_of_rooms()


def export_sets() -> dict[str, str]:
    """Name -> title of what `export` can have: from the index, or asked."""
    if held := index().get("export"):
        return dict(held)
    from seamref.export import kit

    return kit.titles()
