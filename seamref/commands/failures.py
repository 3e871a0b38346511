"""Everything that can go wrong in an update of the TDX module, each tried on a machine with a running TD.

For each trouble: the state in which the update stopped, what the user reads, whether the TD still runs, and whether a
second upload of a good image helps.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

HELP = "each failure of an update: where it stops, what the user sees, what is left, whether a reboot is the only way"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--series", default="merged", metavar="NAME",
                        help="kernel series: v1 to v10, merged, extensions-v2, dynamic-pamt")
    parser.add_argument("--cpus", type=int, default=2, metavar="N", help="logical processors of the machine")
    parser.add_argument("--sockets", type=int, default=1, metavar="N", help="packages they are on")
    parser.add_argument("--fail", action="append", default=[], metavar="RULE",
                        help="one trouble of your own instead of the list: what a SEAMCALL of the kernel does, as in "
                             "upload --fail")


def run(args: argparse.Namespace) -> int:
    """Print the table."""
    from seamref.commands._answer import Rows
    from seamref.commands._names import count, pick
    from seamref.commands._progress import at
    from seamref.errors import SeamrefError
    from seamref.host.scenarios import TROUBLES, Failed, fail, fail_scripted
    from seamref.host.script import parse_rules
    from seamref.host.series import ALL

    series = ALL[pick(args.series, ALL, "version")]
    count(args.cpus, "--cpus", 1, 64)
    count(args.sockets, "--sockets", 1, 8)
    if args.cpus % args.sockets:
        raise SeamrefError(f"--cpus {args.cpus}: cannot be dealt out evenly to {args.sockets} packages")
    rules = parse_rules(args.fail)
    rows = Rows(args, "failures", "failures")
    rows.say(f"{'trouble':42} {'stopped in':12} {'error':30} {'version':27} {'TD':18} second upload")

    def tried() -> Iterator[Failed]:
        if rules:
            yield fail_scripted(rules, series, args.cpus, args.sockets)
            return
        for number, trouble in enumerate(TROUBLES, 1):
            at(f"{number} of {len(TROUBLES)}")
            yield fail(trouble, series, args.cpus, args.sockets)

    for left in tried():
        td = "runs" if isinstance(left.td, int) else left.td
        again = "" if not left.error else "fails: reboot" if left.reboot else "succeeds"
        rows.add(f"{left.what:42} {left.state:12} {left.error:30} {left.version:27} {td:18} {again}"
                 + (f"\n    {left.said}" if left.said else ""), trouble=left.what, state=left.state, error=left.error,
                 version=left.version, dmesg=left.said, td=td, reboot=bool(left.error) and left.reboot)
    return rows.end(series=series.name, cpus=args.cpus, sockets=args.sockets)
