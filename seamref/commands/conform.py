"""``conform``: replay recorded behaviour of the real code and say how much of it agrees."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import seamref

if TYPE_CHECKING:
    from seamref.conformance.frame import Report

HELP = "replay recorded vectors (P-SEAMLDR, NP-SEAMLDR, TDX module, Linux host): agreements and every difference"
OWN = Path(seamref.__file__).resolve().parents[1] / "tests" / "conformance" / "vectors"
"""The recordings that travel with the project's source."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from seamref.commands._answer import add_json

    parser.add_argument("paths", metavar="PATH", nargs="*", type=Path,
                        help="vector file (.json, .json.gz), folder with such files, or - for standard input "
                            "(default: the project's own recordings)")
    parser.add_argument("--only", metavar="PATTERN", default="",
                        help="replay only cases whose id or group fits a shell pattern")
    add_json(parser)
    parser.add_argument("--sparse", action="store_true",
                        help="do not hash every byte of large ranges; the digest of their non-zero pages "
                            "determines it")


def run(args: argparse.Namespace) -> int:
    """Exit code 0: everything agrees; 1: a disagreement; 2: something that is not of the format, or no case at all."""
    from seamref.commands._answer import print_json
    from seamref.commands._progress import at
    from seamref.conformance.frame import replay_files

    paths = args.paths or [OWN]
    if not args.paths and not OWN.is_dir():
        print("no recordings beside this package: name a PATH", file=sys.stderr)
        return 2
    report = replay_files(paths, only=args.only, sparse=args.sparse,
                          progress=lambda title, done, cases: at(f"{title}, {done} of {cases} cases"))
    if args.json:
        print_json("conform", as_json(report))
    else:
        for line in lines(report):
            print(line)
    for skipped in report.skipped:
        print(_printable(f"skipped {skipped}"), file=sys.stderr)
    for bad in report.malformed:
        print(_printable(str(bad)), file=sys.stderr)
    if not report.cases and not report.malformed:
        print(f"no case fits {args.only!r}" if args.only else "no cases", file=sys.stderr)
    return report.code


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in text)


def lines(report: Report) -> Iterator[str]:
    """The report in words: each difference, a count for each group of each set, the sums."""
    for one in report.disagreements:
        yield _printable(f"{one.set}: {one.difference.case}: {one.difference}")
    for one_set in report.sets.values():
        width = max((len(group) for group in one_set.cases), default=0)
        for group in sorted(one_set.cases):
            yield _printable(f"{one_set.title}  {group:{width}}  {one_set.agreed[group]:6} of "
                             f"{one_set.cases[group]:6} agree")
        cases, agreed = sum(one_set.cases.values()), sum(one_set.agreed.values())
        bad = f", {one_set.malformed} not of the format" if one_set.malformed else ""
        yield f"{one_set.title}  {'all':{width}}  {agreed:6} of {cases:6} agree, {one_set.calls} calls{bad}"


def as_json(report: Report) -> dict[str, Any]:
    """The report for a program."""
    return {
        "files": report.files,
        "cases": report.cases,
        "agreed": report.agreed,
        "sets": {
            title: {
                "calls": one.calls, "malformed": one.malformed,
                "groups": {group: {"cases": one.cases[group], "agreed": one.agreed[group]}
                           for group in sorted(one.cases)},
            }
            for title, one in report.sets.items()
        },
        "skipped": list(report.skipped),
        "disagreements": [
            {"set": one.set, "file": one.file, "case": one.difference.case, "step": one.difference.step,
             "field": one.difference.field, "ours": _value(one.difference.ours),
             "recorded": _value(one.difference.recorded)}
            for one in report.disagreements
        ],
        "malformed": [
            {"file": bad.file, "case": bad.case, "path": bad.path, "problem": bad.problem} for bad in report.malformed
        ],
    }


def _value(value: Any) -> Any:
    """A value as the formats write it: numbers that JSON readers may round as ``0x`` strings."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 1 << 53:
        return hex(value)
    if isinstance(value, list | tuple):
        return [_value(inner) for inner in value]
    if isinstance(value, dict):
        return {str(name): _value(inner) for name, inner in value.items()}
    return value if value is None or isinstance(value, str | int | bool) else str(value)
