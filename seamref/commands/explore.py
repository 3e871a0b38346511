"""Explore every interleaving of a scenario, with faults if wanted, and print what was found.

Without a scenario: the list of them.  Exit code 0 when every property holds, 1 when one is broken or the search
stopped before its end.
"""

from __future__ import annotations

import argparse
import shutil
import sys

HELP = "every interleaving of a scenario: which properties hold, or the shortest run that breaks one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("scenario", nargs="?", help="which one (none: list scenarios, properties and faults)")
    parser.add_argument("--cpus", type=int, metavar="N", help="how many CPUs")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND", help="a fault, at any step of any CPU")
    parser.add_argument("--property", action="append", metavar="NAME", help="check this one only (may be repeated)")
    parser.add_argument("--no-symmetry", action="store_true", help="tell interchangeable CPUs apart")
    parser.add_argument("--no-por", action="store_true", help="take independent steps in every order")
    parser.add_argument("--no-memo", action="store_true", help="compute hashes and signatures each time")
    parser.add_argument("--all", action="store_true", help="do not stop at the first counterexample")
    parser.add_argument("--whole", action="store_true", help="print every step of a counterexample")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes")
    parser.add_argument("--max-states", type=int, default=None, metavar="N", help="stop when so many are stored")
    parser.add_argument("--max-memory", type=int, default=None, metavar="MIB", help="stop when so much is in use")


def run(args: argparse.Namespace) -> int:
    """Explore, or list."""
    from seamref.errors import SeamrefError
    from seamref.explore.engine import MAX_MEMORY, MAX_STATES, explore, to_stderr
    from seamref.explore.text import report

    if args.scenario is None:
        _list()
        return 0
    for name, value in (("--cpus", args.cpus), ("--jobs", args.jobs), ("--max-states", args.max_states)):
        if value is not None and value < 1:
            raise SeamrefError(f"{name} {value}: must be at least 1")
    result = explore(
        args.scenario, args.cpus, faults=args.fault, properties=args.property, symmetry=not args.no_symmetry,
        por=not args.no_por, memo=not args.no_memo, stop_first=not args.all, jobs=args.jobs,
        max_states=args.max_states or MAX_STATES, max_memory=args.max_memory or MAX_MEMORY, progress=to_stderr,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    print(report(result, width=min(shutil.get_terminal_size((100, 24)).columns, 160), whole=args.whole))
    return 0 if result.holds else 1


def _list() -> None:
    from seamref.explore.faults import FAULTS
    from seamref.explore.properties import PROPERTIES
    from seamref.explore.scenarios import SCENARIOS

    for title, rows in (
        ("scenarios", {s.name: s.says + (f"; breaks {', '.join(s.expected)}" if s.expected else "")
                       for s in SCENARIOS.values()}),
        ("properties", {p.name: p.says for p in PROPERTIES.values()}),
        ("faults", {f.name: f.says for f in FAULTS.values()}),
    ):
        print(f"{title}:")
        for name, says in rows.items():
            print(f"  {name:28} {says}")
