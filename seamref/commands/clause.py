"""What a clause demands, where that is said, how well it is known, and which functions carry it.

Without an id every clause is listed; with one, or a part of one, those that match.  --mark keeps those that are known
in one way: *stated* (a document or a published source says it), *measured* (somebody ran silicon or the published
code), *chosen* (nobody says, and this project decided).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from seamref.spec import Mark

if TYPE_CHECKING:
    from seamref.commands._declared import Clause

HELP = "a clause: what it says, its public source, who implements it"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("id", metavar="ID", nargs="?", help="such as SEAMCALL.cpl, or a part such as INSTALL.params")
    parser.add_argument("--mark", choices=[mark.value for mark in Mark], help="only those that are known in this way")
    parser.add_argument("--json", action="store_true", help="as JSON")


def run(args: argparse.Namespace) -> int:
    """Print the clauses."""
    from seamref.commands._answer import print_json
    from seamref.errors import SeamrefError

    chosen = _chosen(args.id)
    if chosen and args.mark is not None:
        found, chosen = chosen, [row for row in chosen if row["mark"] == args.mark]
        if not chosen:
            marks = sorted({row["mark"] for row in found})
            what = f"clause {found[0]['id']} is" if len(found) == 1 else f"the {len(found)} clauses found are"
            raise SeamrefError(f"none is {args.mark}: {what} {' or '.join(marks)}")
    if not chosen:
        raise SeamrefError(f"no clause {args.id!r} (without an id, all are listed)")
    if args.json:
        print_json("clauses", {"clauses": chosen})
    elif len(chosen) > 1:
        width = max(len(row["id"]) for row in chosen)
        for row in chosen:
            print(f"{row['id']:<{width}}  {row['says']}")
    else:
        _print(chosen[0])
    return 0 if len(chosen) > 1 or chosen[0]["implemented_by"] else 1


def _chosen(id: str | None) -> list[Clause]:
    """The clauses meant: the one of this id, or all whose ids have it as a part."""
    from seamref.commands._declared import clauses, clauses_of_rooms
    from seamref.commands._rooms import import_clauses

    listed = clauses()
    if id is None:
        return listed
    found = [] if any(row["id"] == id for row in listed) else _with(id, listed)
    if not found:  # one clause, or one declared since the index was written: the rooms themselves are asked
        import_clauses(id)
        known = clauses_of_rooms()
        found = [row for row in known if row["id"] == id] or _with(id, known)
    return found


def _with(part: str, rows: list[Clause]) -> list[Clause]:
    return [row for row in rows if part.lower() in row["id"].lower()]


def _print(row: Clause) -> None:
    from seamref.spec import SOURCES

    print(f"{row['id']}: {row['says']}")
    print(f"  source: {row['source']} ({row['mark']})")
    tag = SOURCES.get(row["source"].split()[0].rstrip(",;"))
    if tag is not None:
        print(f"    {tag.tag}: {tag.title}; {tag.where}")
    if row["table"] is not None:
        print(f"  row {row['row']} of check table {row['table']}")
    for place in row["implemented_by"]:
        print(f"  implemented by {place}")
