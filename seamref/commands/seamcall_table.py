"""Export what SEAMCALL does in every state it can tell apart."""

from __future__ import annotations

import argparse
import json
import sys

HELP = "what SEAMCALL does in each of 4096 states, per revision"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--revision", action="append", metavar="NAME", help="only this revision (may be repeated)")
    parser.add_argument("--json", action="store_true", help="the whole table (format: seamref.arch.exhaustive)")
    parser.add_argument("--c", action="store_true", help="the table of one revision as a C header")
    parser.add_argument("--reachable", action="store_true", help="only states that a processor can be in")
    parser.add_argument("--diff", nargs=2, metavar="REVISION", help="only states in which two revisions differ")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from seamref.arch.exhaustive import STATES, c_header, differences, export, facts_of, is_reachable, seamcall_table
    from seamref.arch.revision import get_revision

    names = args.revision or ["silicon", "SDM", "343754-002", "343754-001"]
    revisions = [get_revision(name) for name in names]
    if args.json:
        json.dump(export(names), sys.stdout, indent=None, separators=(",", ":"))
        print()
        return 0
    if args.c:
        print(c_header(revisions[0]), end="")
        return 0

    def say(state: int) -> str:
        return f"{state:4} {' '.join(name for name, on in facts_of(state).items() if on) or '-'}"

    if args.diff:
        one, other = (get_revision(name) for name in args.diff)
        for state, a, b in differences(one, other):
            if is_reachable(state) or not args.reachable:
                print(f"{say(state)}: {one.name} {a.outcome} ({a.clause}), {other.name} {b.outcome} ({b.clause})")
        return 0
    tables = {revision.name: seamcall_table(revision) for revision in revisions}
    for state in range(STATES):
        if is_reachable(state) or not args.reachable:
            answers = (f"{name} {table[state].outcome} ({table[state].clause})" for name, table in tables.items())
            print(f"{say(state)}: " + ", ".join(answers))
    return 0
