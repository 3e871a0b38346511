"""Explore every interleaving of a scenario, with faults if wanted, and print what was found.

Without a scenario: the list of them.  Exit code 3: the search stopped before its end (a bound, an interrupt), and
broke nothing so far.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamref.explore.engine import Result, Told

HELP = "every interleaving of a scenario: which properties hold, or a run that breaks one"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("scenario", nargs="?", help="which one (none: list scenarios, properties and faults)")
    parser.add_argument("--cpus", type=int, metavar="N", help="how many CPUs")
    parser.add_argument("--fault", action="append", default=[], metavar="KIND",
                        help="a fault, at any step of any CPU (given twice: two faults in one run)")
    parser.add_argument("--property", action="append", metavar="NAME", help="check this one only (may be repeated)")
    parser.add_argument("--no-symmetry", action="store_true", help="tell interchangeable CPUs apart")
    parser.add_argument("--no-por", action="store_true", help="take independent steps in every order")
    parser.add_argument("--no-memo", action="store_true", help="compute hashes and signatures each time")
    parser.add_argument("--all", action="store_true", help="do not stop at the first counterexample")
    parser.add_argument("--shortest", action="store_true",
                        help="prove that no interleaving breaks it in fewer steps (a search without partial order)")
    parser.add_argument("--whole", action="store_true", help="print every step of a counterexample")
    parser.add_argument("--jobs", type=int, default=1, metavar="N",
                        help="processes that share the placements of faults; without faults there is one")
    parser.add_argument("--max-states", type=int, default=None, metavar="N", help="stop when so many are stored")
    parser.add_argument("--max-memory", type=int, default=None, metavar="MIB", help="stop when so much is in use")


def run(args: argparse.Namespace) -> int:
    """Explore, or list."""
    from seamref.commands._answer import print_json
    from seamref.commands._names import count, pick
    from seamref.errors import SeamrefError
    from seamref.explore.engine import MAX_MEMORY, MAX_STATES, explore, to_stderr
    from seamref.explore.faults import FAULTS
    from seamref.explore.properties import PROPERTIES
    from seamref.explore.scenarios import SCENARIOS
    from seamref.explore.text import report

    if args.scenario is None:
        if args.cpus is not None or args.fault or args.property:
            raise SeamrefError("a scenario is missing; without options, they are listed")
        return _list(args)
    for name, value in (("--cpus", args.cpus), ("--jobs", args.jobs), ("--max-states", args.max_states),
                        ("--max-memory", args.max_memory)):
        if value is not None and value < 1:
            raise SeamrefError(f"{name} {value}: must be at least 1")
    count(args.cpus, "--cpus", 1, 64)
    count(args.jobs, "--jobs", 1, 256)
    args.scenario = pick(args.scenario, SCENARIOS, "scenario")
    args.fault = [pick(name, FAULTS, "fault") for name in args.fault]
    args.property = args.property and [pick(name, PROPERTIES, "property") for name in args.property]
    result = explore(
        args.scenario, args.cpus, faults=args.fault, properties=args.property, symmetry=not args.no_symmetry,
        por=not args.no_por, memo=not args.no_memo, shortest=args.shortest, stop_first=not args.all, jobs=args.jobs,
        max_states=args.max_states or MAX_STATES, max_memory=args.max_memory or MAX_MEMORY,
        progress=to_stderr if sys.stderr.isatty() else None,
        told=_teller() if args.all or args.shortest or sys.stderr.isatty() else None,
    )
    if sys.stderr.isatty():
        print(file=sys.stderr)
    if args.json:
        print_json("exploration", {
            **{name: getattr(result, name) for name in (
                "scenario", "cpus", "roots", "states", "worlds", "transitions", "depth", "ends", "complete", "why",
                "seconds", "reductions", "holds", "verdict", "widened", "notes")},
            "outcomes": dict(result.outcomes),
            "broken": [{"property": b.broken, "wrong": b.wrong, "began": b.began, "shortest": b.shortest,
                        "schedule": b.schedule,
                        "steps": [{"actor": d.actor, "name": d.name, "pc": d.pc, "did": d.text, "fault": d.fault}
                                  for d in b.steps]} for b in result.broken],
        })
        return _code(result)
    print(report(result, width=min(shutil.get_terminal_size((100, 24)).columns, 160), whole=args.whole))
    return _code(result)


def _teller() -> Told:
    """A line on standard error for each property, when it is first found broken; the whole run comes in the report."""
    known: set[str] = set()

    def told(name: str, wrong: str, depth: int) -> None:
        if name not in known:
            known.add(name)
            start = "\r\x1b[K" if sys.stderr.isatty() else ""
            print(f"{start}breaks {name} after {depth} steps: {wrong}", file=sys.stderr, flush=True)

    return told


def _code(result: Result) -> int:
    """0: all of it was looked at and every property holds; 1: one is broken; 3: the search stopped before its end."""
    return 1 if result.broken else 0 if result.complete else 3


def _list(args: argparse.Namespace) -> int:
    from seamref.commands._answer import print_json
    from seamref.explore.faults import FAULTS
    from seamref.explore.properties import PROPERTIES
    from seamref.explore.scenarios import SCENARIOS

    lists = (
        ("scenarios", {s.name: s.says + (f"; breaks {', '.join(s.expected)}" if s.expected else "")
                       for s in SCENARIOS.values()}),
        ("properties", {p.name: p.says for p in PROPERTIES.values()}),
        ("faults", {f.name: f.says for f in FAULTS.values()}),
    )
    if args.json:
        print_json("exploration-list", dict(lists))
        return 0
    for title, rows in lists:
        print(f"{title}:")
        for name, says in rows.items():
            print(f"  {name:28} {says}")
    return 0
