"""What a clause demands, where that is said, how well it is known, and which functions carry it.

Without an id every clause is listed; with one, or a part of one, those that match.  --mark keeps those that are known
in one way: *stated* (a document or a published source says it), *measured* (somebody ran silicon or the published
code), *chosen* (nobody says, and this project decided).
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any

from seamref.spec import Mark

HELP = "a clause: what it says, its public source, who implements it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("id", metavar="ID", nargs="?", help="such as SEAMCALL.cpl, or a part such as INSTALL.params")
    parser.add_argument("--mark", choices=[mark.value for mark in Mark], help="only those that are known in this way")
    parser.add_argument("--json", action="store_true", help="as JSON")


def place_of(function: Callable[..., Any]) -> str:
    """package/file.py:line of a function."""
    import seamref

    while hasattr(function, "__wrapped__"):
        function = function.__wrapped__
    code = getattr(function, "__code__", None)
    if code is None:
        return f"{function.__module__}.{function.__qualname__}"
    root = Path(seamref.__path__[0]).parent
    path = Path(code.co_filename)
    where = path.relative_to(root).as_posix() if path.is_relative_to(root) else path.name
    name = getattr(function, "__qualname__", "")
    return f"{where}:{code.co_firstlineno}" + ("" if "<lambda>" in name else f" {name}")


def run(args: argparse.Namespace) -> int:
    """Print the clauses."""
    from seamref.commands._answer import print_json
    from seamref.commands._rooms import import_clauses
    from seamref.errors import SeamrefError
    from seamref.spec import CLAUSES, IMPLEMENTED_BY, SOURCES, TABLES

    import_clauses(args.id)
    if args.id is None:
        chosen = sorted(CLAUSES)
    elif args.id in CLAUSES:
        chosen = [args.id]
    else:
        chosen = [id for id in sorted(CLAUSES) if args.id.lower() in id.lower()]
    if chosen and args.mark is not None:
        found, chosen = chosen, [id for id in chosen if CLAUSES[id].mark.value == args.mark]
        if not chosen:
            marks = sorted({CLAUSES[id].mark.value for id in found})
            what = f"clause {found[0]} is" if len(found) == 1 else f"the {len(found)} clauses found are"
            raise SeamrefError(f"none is {args.mark}: {what} {' or '.join(marks)}")
    if not chosen:
        raise SeamrefError(f"no clause {args.id!r} (without an id, all are listed)")
    rows = {row.id: (table.name, i) for table in TABLES.values() for i, row in enumerate(table, 1)}
    if args.json:
        print_json("clauses", {"clauses": [
            {"id": id, "says": CLAUSES[id].says, "source": CLAUSES[id].source, "mark": CLAUSES[id].mark.value,
             "table": rows[id][0] if id in rows else None, "row": rows[id][1] if id in rows else None,
             "implemented_by": [place_of(f) for f in IMPLEMENTED_BY.get(id, ())]}
            for id in chosen
        ]})
    elif len(chosen) > 1:
        width = max(map(len, chosen))
        for id in chosen:
            print(f"{id:<{width}}  {CLAUSES[id].says}")
    else:
        clause = CLAUSES[chosen[0]]
        print(f"{clause.id}: {clause.says}")
        print(f"  source: {clause.source} ({clause.mark.value})")
        tag = SOURCES.get(clause.source.split()[0].rstrip(",;"))
        if tag is not None:
            print(f"    {tag.tag}: {tag.title}; {tag.where}")
        if clause.id in rows:
            print("  row {1} of check table {0}".format(*rows[clause.id]))
        for function in IMPLEMENTED_BY.get(clause.id, ()):
            print(f"  implemented by {place_of(function)}")
    return 0 if len(chosen) > 1 or IMPLEMENTED_BY.get(chosen[0]) else 1
