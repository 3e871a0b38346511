"""Explore many cases: scenario x revision x fault x processor that suffers it x number of CPUs, on every core.

Outcomes are kept in a file: a campaign that was stopped or killed goes on where it was when it is started again with
the same --store; with --again what a bound cut short is tried once more.  Cases run in processes of their own, as many
as there are cores (--jobs), each within its bounds; with --dask they run on a dask.distributed cluster that is there
already.

    campaign --scenarios update,info-callers --faults none,mc --cpus 2-3
    campaign --scenarios all --faults none,all --store found.jsonl --html found.html --junit found.xml
    campaign --scenarios update --faults none,mc+rdrand --targets together
    campaign --report --store found.jsonl --json

Exit codes: 0, every case has an answer that was to be expected; 1, some answer was not (it breaks what its scenario
does not declare, or differs from --baseline); 3, some case has no answer (a bound was met, its worker was lost); 2 for
bad input; 130 when interrupted (what was found is kept).
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamref.explore.campaign import Bounds, Case, Ledger, Outcome

HELP = "explore scenarios with every fault on every core or on a cluster; resumable, with reports"
MAX_CASES = 100_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--scenarios", default="all", metavar="NAMES", help="separated by commas; default: all")
    parser.add_argument("--faults", default="none", metavar="KINDS",
                        help="separated by commas: none, all (each alone), a kind, or kinds that strike in one run "
                             "(mc+rdrand); default: none")
    parser.add_argument("--revisions", default="silicon", metavar="NAMES",
                        help="revisions of the processor, separated by commas, or all; default: silicon")
    parser.add_argument("--cpus", default="2", metavar="N", help="numbers and ranges: 2,4-6; default: 2")
    parser.add_argument("--targets", default="each", metavar="WHERE",
                        help="each placement of the faults is a case (each), all are one (together), or only those on "
                             "these actors (0,2); default: each")
    parser.add_argument("--jobs", type=int, metavar="N", help="processes; default: as many as there are cores")
    parser.add_argument("--dask", metavar="ADDRESS", help="on the cluster whose scheduler has this address instead")
    parser.add_argument("--store", type=Path, metavar="FILE", help="keep outcomes here, and go on from there")
    parser.add_argument("--again", action="store_true",
                        help="run the cases of --store once more that a bound cut short, with the bounds given now")
    parser.add_argument("--report", action="store_true", help="run nothing: report what is in --store")
    parser.add_argument("--list", action="store_true", help="run nothing: print the cases")
    parser.add_argument("--seconds", type=float, default=600, metavar="S", help="bound of time of a case; default: 600")
    parser.add_argument("--memory", type=int, default=1024, metavar="MIB", help="bound of memory; default: 1024")
    parser.add_argument("--states", type=int, default=500_000, metavar="N", help="bound of states; default: 500000")
    parser.add_argument("--baseline", type=Path, metavar="FILE", help="outcomes that are to be expected (a --store)")
    parser.add_argument("--html", metavar="FILE", help="write a page")
    parser.add_argument("--junit", metavar="FILE", help="write JUnit's XML")
    parser.add_argument("--force", action="store_true", help="replace a page or XML file that is there")
    parser.add_argument("--quiet", action="store_true", help="no progress on standard error, no line for each case")


def run(args: argparse.Namespace) -> int:
    """Plan, run what is left, report."""
    from seamref.errors import SeamrefError
    from seamref.explore.campaign import Bounds, Ledger

    _check(args)
    if args.report:
        if args.store is None:
            raise SeamrefError("--report: says what is in a file; give --store FILE")
        return _report(args, list(Ledger(args.store, read_only=True).outcomes.values()))
    wanted = _cases(args)
    if args.list:
        return _list(args, wanted)
    ledger = Ledger(args.store) if args.store is not None else _in_memory()
    bounds = Bounds(args.seconds, args.memory, args.states)
    try:
        _work(args, ledger, wanted, bounds)
    finally:
        ledger.close()
    return _report(args, [ledger.outcomes[case.key] for case in wanted])


def _in_memory() -> Ledger:
    from seamref.explore.campaign import Ledger

    ledger = object.__new__(Ledger)
    ledger.outcomes, ledger._file = {}, None
    return ledger


def _check(args: argparse.Namespace) -> None:
    from seamref.commands._names import count
    from seamref.errors import SeamrefError

    count(args.jobs, "--jobs", 1, 1024)
    count(args.memory, "--memory", 64, 1 << 24)
    count(args.states, "--states", 1, 1 << 40)
    if not 0 < args.seconds <= 1e7:
        raise SeamrefError(f"--seconds: {args.seconds:g}, must be above 0 and at most 10,000,000")
    if args.dask is not None and args.jobs is not None:
        raise SeamrefError("--jobs: with --dask the cluster's workers do the work; leave one of them out")


def _cases(args: argparse.Namespace) -> list[Case]:
    from seamref.arch.revision import REVISIONS
    from seamref.errors import SeamrefError
    from seamref.explore.campaign import cases
    from seamref.explore.scenarios import SCENARIOS

    scenarios = _names(args.scenarios, SCENARIOS, "--scenarios", "scenario")
    revisions = _names(args.revisions, REVISIONS, "--revisions", "revision")
    if args.targets not in ("each", "together") and not all(part.isdigit() for part in args.targets.split(",")):
        raise SeamrefError(f"--targets: {args.targets!r}, must be each, together, or numbers of actors (0,2)")
    wanted = []
    for case in cases(scenarios, revisions=revisions, faults=_faults(args.faults), cpus=_numbers(args.cpus),
                      targets=args.targets):
        wanted.append(case)
        if len(wanted) > MAX_CASES:
            raise SeamrefError(f"more than {MAX_CASES:,} cases: choose fewer scenarios, faults or numbers of CPUs")
    if not wanted:
        raise SeamrefError(f"--targets {args.targets}: no fault is placed there in these scenarios")
    return wanted


def _names(text: str, known: Mapping[str, object], option: str, what: str) -> list[str]:
    from seamref.commands._names import pick
    from seamref.errors import SeamrefError

    found = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part.lower() == "all":
            found += list(known)
            continue
        try:
            found.append(pick(part, known, what))
        except SeamrefError as error:
            raise SeamrefError(f"{option}: {error}") from None
    if not found:
        raise SeamrefError(f"{option}: {text!r} names none")
    return list(dict.fromkeys(found))


def _faults(text: str) -> list[tuple[str, ...]]:
    from seamref.commands._names import pick
    from seamref.errors import SeamrefError
    from seamref.explore.faults import FAULTS

    found: list[tuple[str, ...]] = []
    for part in filter(None, (part.strip() for part in text.split(","))):
        if part.lower() == "none":
            found.append(())
        elif part.lower() == "all":
            found += [(name,) for name in FAULTS]
        else:
            try:
                found.append(tuple(pick(name, FAULTS, "fault") for name in part.split("+")))
            except SeamrefError as error:
                raise SeamrefError(f"--faults: {error}") from None
    if not found:
        raise SeamrefError(f"--faults: {text!r} names none")
    return list(dict.fromkeys(found))


def _numbers(text: str) -> list[int]:
    from seamref.errors import SeamrefError

    found: list[int] = []
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not first.isdigit() or (dash and not last.isdigit()):
            raise SeamrefError(f"--cpus: {text!r}, must be numbers and ranges: 2,4-6")
        low, high = int(first), int(last or first)
        if not 1 <= low <= high <= 64:
            raise SeamrefError(f"--cpus: {part.strip()}, must be 1 to 64, the lower number first")
        found += range(low, high + 1)
    return list(dict.fromkeys(found))


def _work(args: argparse.Namespace, ledger: Ledger, wanted: list[Case], bounds: Bounds) -> None:
    from seamref.experiments.proofs.campaign import told
    from seamref.explore.campaign import to_stderr
    from seamref.explore.cluster import run_on_cluster
    from seamref.explore.workers import processors, run_cases

    left = ledger.left(wanted, again=args.again)
    total, began = len({case.key for case in wanted}), time.monotonic()
    had, todo = total - len(left), len(left)

    def keep(outcome: Outcome) -> None:
        nonlocal todo
        ledger.add(outcome)
        todo -= 1
        if not args.quiet:
            per = (time.monotonic() - began) / max(1, len(left) - todo)
            to_stderr(f"{total - todo}/{total} cases ({had} found before), about {per * todo / 60:.0f} min left; "
                      f"{outcome.case.key}: {told(outcome)}")

    if not left:
        return
    if args.dask is not None:
        run_on_cluster(args.dask, left, bounds, keep)
    else:
        run_cases(left, args.jobs or processors(), bounds, keep)
    if not args.quiet and sys.stderr.isatty():
        print(file=sys.stderr)


def _list(args: argparse.Namespace, wanted: list[Case]) -> int:
    from seamref.commands._answer import print_json

    if args.json:
        print_json("campaign-cases", {"cases": wanted})
    else:
        print("\n".join(case.key for case in wanted))
    return 0


def _report(args: argparse.Namespace, outcomes: list[Outcome]) -> int:
    from seamref.commands._answer import print_json
    from seamref.commands._files import write_all
    from seamref.experiments.proofs.campaign import lines, sums, surprise, to_html, to_junit
    from seamref.explore.campaign import Ledger, Verdict

    baseline = None if args.baseline is None else Ledger(args.baseline, read_only=True).outcomes
    pages = ((args.html, to_html), (args.junit, to_junit))
    write_all([(path, make(outcomes, baseline).encode()) for path, make in pages if path is not None],
              force=args.force, inputs=[str(path) for path in (args.store, args.baseline) if path is not None])
    surprises = {outcome.case.key: surprise(outcome, baseline) for outcome in outcomes}
    if args.json:
        print_json("campaign", {
            "sums": sums(outcomes),
            "cases": [{**outcome.to_json(), "key": outcome.case.key, "unexpected": surprises[outcome.case.key]}
                      for outcome in outcomes],
        })
    else:
        print("\n".join(lines(outcomes, baseline)) if not args.quiet else sums(outcomes))
    silent = [outcome for outcome in outcomes if not outcome.verdict.is_answer
              and outcome.verdict is not Verdict.REFUSED]
    if any(text for key, text in surprises.items() if key not in {outcome.case.key for outcome in silent}):
        return 1
    return 3 if silent else 0
