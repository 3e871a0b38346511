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
    parser.add_argument("--changed-bit", choices=("dynamic-pamt", "extensions"), metavar="BIT",
                        help="instead: an update between modules that differ in this bit of TDX_FEATURES0 "
                             "(dynamic-pamt, extensions), under every version")


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
    if args.changed_bit:
        return _changed_bit(args)
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


def _changed_bit(args: argparse.Namespace) -> int:
    """What each version notices of a bit that an update changes."""
    from seamref.commands._answer import Rows
    from seamref.host.abi import FEATURES0_DYNAMIC_PAMT, FEATURES0_EXT, FEATURES0_QUOTE
    from seamref.host.scenarios import bit_changes
    from seamref.host.series import ALL

    bit = FEATURES0_DYNAMIC_PAMT if args.changed_bit == "dynamic-pamt" else FEATURES0_EXT | FEATURES0_QUOTE
    rows = Rows(args, "failures", "changes")
    rows.say(f"{'version':14} {'the bit':12} {'kernel believes':16} {'next private page':18} {'error':30} printed")
    for series in ALL.values():
        for before, after in ((True, False), (False, True)):
            seen = bit_changes(series, bit, before, after)
            printed = "; ".join(seen.lines) or "nothing"
            rows.add(f"{series.name:14} {int(before)} -> {int(after):<7} {'set' if seen.believes else 'not set':16} "
                     f"{seen.page:18} {seen.error or 'none':30} {printed}", version=series.name, before=before,
                     after=after, believes=seen.believes, page=seen.page, error=seen.error, printed=list(seen.lines))
    return rows.end(bit=args.changed_bit)
