"""Say what a number or a line of the kernel log means.

VALUE is a status, a leaf, a name (EBADHASH, TDX_SYS_BUSY, SEAMLDR.INSTALL), an errno (-ENODEV), an upload error
(transferring:firmware-invalid), or a whole line as dmesg shows it.  Without VALUE, lines are read from standard input.
"""

from __future__ import annotations

import argparse
import re
import sys

HELP = "which component said this number or log line, why, and what now"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    # "-19" and "-ENODEV" are values here, not options.
    parser._negative_number_matcher = re.compile(r"-(\d+|E[A-Z]+)$")
    parser.add_argument("value", nargs="*", metavar="VALUE", help="a number, a name, or a quoted line")


def run(args: argparse.Namespace) -> int:
    """Print every reading; 1 when something had none."""
    from seamref.diagnose.explain import explain

    given = args.value or [line for line in sys.stdin.read().splitlines() if line.strip()]
    unknown = 0
    for index, text in enumerate(given):
        if index:
            print()
        found = explain(text)
        if not found:
            unknown += 1
            print(f"{text}: nothing is known about this")
        print("\n\n".join(explanation.text() for explanation in found), end="\n" if found else "")
    return 1 if unknown else 0
