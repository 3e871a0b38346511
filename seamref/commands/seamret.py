"""Call the TDX module or P-SEAMLDR and look at the host's current VMCS afterwards."""

from __future__ import annotations

import argparse

HELP = "whether SEAMRET loses the hypervisor's current VMCS, by revision and IA32_VMX_BASIC[60]"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("--from", dest="origin", choices=["module", "p-seamldr"], help="only this one")
    parser.add_argument("--keeps-vmcs", action="store_true", help="only parts with IA32_VMX_BASIC[60] = 1")
    parser.add_argument("--revision", metavar="NAME", help="only this revision")


def run(args: argparse.Namespace) -> int:
    """Make the calls."""
    from seamref.arch import lab
    from seamref.arch.events import EventKind, raise_event
    from seamref.arch.revision import REVISIONS
    from seamref.arch.software import call
    from seamref.arch.vmcs import NONE
    from seamref.arch.vmx import vmlaunch, vmresume
    from seamref.commands._answer import Rows
    from seamref.commands._names import pick

    revisions = [REVISIONS[pick(args.revision, REVISIONS, "revision")]] if args.revision else list(REVISIONS.values())
    rows = Rows(args, "seamret", "calls")
    for origin in [args.origin] if args.origin else ["module", "p-seamldr"]:
        for keeps in [True] if args.keeps_vmcs else [False, True]:
            for revision in revisions:
                platform = lab.platform(revision=revision, keeps_vmcs=keeps)
                vmlaunch(platform, 0)
                raise_event(platform, 0, EventKind.INTR)  # the VMM's guest has run once
                outcome = call(platform, 0, rax=1 << 63 if origin == "p-seamldr" else 0)
                lp = platform.lp(0)
                current = "none" if lp.current_vmcs == NONE else f"0x{lp.current_vmcs:X}"
                resumed = str(vmresume(platform, 0))
                rows.add(f"{origin:10} IA32_VMX_BASIC[60]={int(keeps)}  {revision.name:12} {outcome!s:36} "
                         f"current VMCS {current:8} VMRESUME: {resumed}", origin=origin, keeps_vmcs=keeps,
                         revision=revision.name, outcome=str(outcome), current_vmcs=current, vmresume=resumed)
    return rows.end()
