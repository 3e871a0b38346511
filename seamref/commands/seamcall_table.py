"""Export what SEAMCALL does in every state it can tell apart.

--diff takes two revisions, or another implementation by name (python -m seamref peers lists them).
"""

from __future__ import annotations

import argparse
import json
import sys

HELP = "what SEAMCALL does in each of 4096 states, per revision"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--revision", action="append", metavar="NAME", help="only this revision (may be repeated)")
    parser.add_argument("--json", action="store_true", help="as JSON (format of the table: seamref.arch.exhaustive)")
    parser.add_argument("--c", action="store_true", help="the table of one revision as a C header")
    parser.add_argument("--reachable", action="store_true", help="only states that a processor can be in")
    parser.add_argument("--diff", nargs=2, metavar=("ONE", "OTHER"),
                        help="only states in which two revisions or implementations differ")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from seamref.arch.exhaustive import STATES, c_header, export, facts_of, is_reachable, seamcall_table
    from seamref.arch.peers import both_can_be, get_implementation, peer_differences
    from seamref.arch.revision import REVISIONS
    from seamref.arch.spaces import SEAMCALL
    from seamref.commands._answer import Rows, envelope
    from seamref.commands._names import pick
    from seamref.errors import SeamrefError

    if args.c and (args.json or args.reachable or args.diff or len(args.revision or ()) > 1):
        raise SeamrefError("--c is the whole table of one revision: without --json, --reachable, --diff, and with one "
                           "--revision at most")
    if args.diff and args.revision:
        raise SeamrefError("--diff names its two revisions itself: without --revision")
    names = [pick(name, REVISIONS, "revision") for name in args.revision or
             ["silicon", "SDM", "343754-002", "343754-001"]]
    revisions = [REVISIONS[name] for name in names]
    if args.json and not args.diff:
        made = envelope("seamcall", export(names))
        if args.reachable:
            made["states"] = made["reachable"]
            made["revisions"] = {name: [table[state] for state in made["reachable"]]
                                 for name, table in made["revisions"].items()}
        json.dump(made, sys.stdout, indent=None, separators=(",", ":"))
        print()
        return 0
    if args.c:
        print(c_header(revisions[0]), end="")
        return 0

    def say(state: int) -> str:
        return f"{state:4} {' '.join(name for name, on in facts_of(state).items() if on) or '-'}"

    if args.diff:
        one, other = (get_implementation(name) for name in args.diff)
        rows = Rows(args, "seamcall-difference", "states")
        differing = 0
        for state, a, b in peer_differences(one, other, SEAMCALL):
            if is_reachable(state) or not args.reachable:
                differing += 1
                rows.add(f"{say(state)}: {one.name} {a.outcome} ({a.clause}), {other.name} {b.outcome} ({b.clause})",
                         state=state, facts=[name for name, on in facts_of(state).items() if on],
                         outcomes=[a.outcome, b.outcome], clauses=[a.clause, b.clause])
        if not differing:
            rows.say(f"0 states differ: {one.name}, {other.name}")
        absent = STATES - len(both_can_be(one, other, SEAMCALL))
        if absent:
            rows.say(f"{absent} of {STATES} states are none of one of the two; they were not compared")
        return rows.end(revisions=[one.name, other.name], reachable=args.reachable,
                        not_compared=absent)
    tables = {revision.name: seamcall_table(revision) for revision in revisions}
    for state in range(STATES):
        if is_reachable(state) or not args.reachable:
            answers = (f"{name} {table[state].outcome} ({table[state].clause})" for name, table in tables.items())
            print(f"{say(state)}: " + ", ".join(answers))
    return 0
