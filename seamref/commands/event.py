"""Let an event arrive at a processor and say what happens there and on the others."""

from __future__ import annotations

import argparse

HELP = "what NMI, SMI, machine check, interrupt, INIT or shutdown does in each mode, and to everybody else"
MODES = ("host", "guest", "seam", "td")
KINDS = ("smi", "nmi", "intr", "mc", "init", "shutdown")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--kind", choices=KINDS, help="only this event")
    parser.add_argument("--mode", choices=MODES, help="only in this mode")
    parser.add_argument("--revision", default="silicon", metavar="NAME", help="default silicon")


def run(args: argparse.Namespace) -> int:
    """Raise the events."""
    from seamref.arch import lab
    from seamref.arch.events import EventKind, EventOutcome, raise_event, shutdown
    from seamref.arch.revision import REVISIONS
    from seamref.arch.seam import seamcall
    from seamref.commands._answer import Rows
    from seamref.commands._names import pick

    revision = REVISIONS[pick(args.revision, REVISIONS, "revision")]
    rows = Rows(args, "event", "events")
    for mode in [args.mode] if args.mode else MODES:
        for kind in [args.kind] if args.kind else KINDS:
            platform = lab.platform(revision=revision)
            lp = platform.lp(0)
            lp.rflags |= 1 << 9
            if mode in ("seam", "td"):
                seamcall(platform, 0)
            if mode == "td":
                lp.smi_inhibit = lp.nmi_inhibit = False
            lp.non_root = mode in ("guest", "td")
            if kind == "shutdown":
                outcome: EventOutcome = shutdown(platform, 0, "asked for")
            else:
                outcome = raise_event(platform, 0, EventKind[kind.upper()])
            other = seamcall(platform, 1)
            rows.add(f"{kind:8} in {mode:5}: {outcome!s:52} SEAMCALL on another processor: {other}", kind=kind,
                     mode=mode, outcome=str(outcome), clause=getattr(outcome, "clause", None),
                     seamcall_elsewhere=str(other))
    return rows.end(revision=revision.name)
