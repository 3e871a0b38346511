"""Everything that can go wrong in an update of the TDX module, each tried on a machine with a running TD.

For each trouble: the state in which the update stopped, what the user reads, whether the TD still runs, and whether a
second upload of a good image helps.
"""

from __future__ import annotations

import argparse

HELP = "each failure of an update: where it stops, what the user sees, what is left, whether a reboot is the only way"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--series", default="merged", metavar="NAME", help="kernel series: v1 to v10, merged")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="logical processors of the machine")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="packages they are on")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from seamref.host.scenarios import TROUBLES, fail
    from seamref.host.series import get_series

    series = get_series(args.series)
    print(f"{'trouble':42} {'stopped in':12} {'error':30} {'version':27} {'TD':18} second upload")
    for trouble in TROUBLES:
        left = fail(trouble, series, args.cpus, args.sockets)
        td = "runs" if isinstance(left.td, int) else left.td
        again = "" if not left.error else "fails: reboot" if left.reboot else "succeeds"
        print(f"{left.what:42} {left.state:12} {left.error:30} {left.version:27} {td:18} {again}")
        if left.said:
            print(f"    {left.said}")
    return 0
