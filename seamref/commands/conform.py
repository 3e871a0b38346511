"""``conform``: replay recorded P-SEAMLDR behaviour and say how much of it agrees."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

HELP = "replay vector files (.json, .json.gz) on P-SEAMLDR: agreements, first difference of each disagreement"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("paths", metavar="PATH", nargs="+", type=Path,
                        help="vector file of format pseamldr-vectors/1, or a folder with such files")
    parser.add_argument("--sparse", action="store_true",
                        help="do not hash every byte of the module range; the digest of its non-zero pages "
                            "determines it")


def run(args: argparse.Namespace) -> int:
    """Exit code 0: everything agrees; 1: a disagreement; 2: a file that is not of the format, or none with a case."""
    from seamref.conformance.pseamldr import FormatError, Report, lines, load, replay, vector_files

    report = Report()
    paths = [file for path in args.paths for file in vector_files(path)]
    for path in paths:
        try:
            replay(load(path), whole=not args.sparse, report=report)
        except FormatError as error:
            text = str(error)
            print(text if text.startswith(str(path)) else f"{path}: {text}", file=sys.stderr)
            return 2
    for line in lines(report):
        print(line)
    if not report.cases:
        print("no cases", file=sys.stderr)
        return 2
    return 0 if report.ok else 1
