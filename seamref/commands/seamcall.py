"""Execute SEAMCALL in a described state and say what happens, which clause decides, and by which path.

The platform is prepared for the experiment (seamref.arch.lab): SEAMRR on, both modules loaded, VMX on.  Options take
something away or change where the instruction is executed.
"""

from __future__ import annotations

import argparse

HELP = "what SEAMCALL does in a state that you describe, and which clause decides"

MODES = {
    "outside-vmx": "outside VMX operation",
    "host": "legacy VMX root",
    "guest": "legacy VMX non-root: a virtual machine",
    "seam": "SEAM VMX root: the TDX module or P-SEAMLDR",
    "td": "SEAM VMX non-root: a trust domain",
    "smm": "system management mode",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    modes = ", ".join(f"{name} ({words})" for name, words in MODES.items())
    parser.add_argument("--mode", choices=list(MODES), default="host", help=f"where: {modes}")
    parser.add_argument("--cpl", type=int, choices=range(4), default=0, help="privilege level, default 0")
    parser.add_argument("--to", choices=["module", "p-seamldr"], default="module", help="RAX[63], default 0")
    parser.add_argument("--revision", default="silicon", metavar="NAME", help="document or measurement")
    parser.add_argument("--not-64bit", action="store_true", help="CS.L = 0")
    parser.add_argument("--mov-ss", action="store_true", help="blocking by MOV-SS")
    parser.add_argument("--seamrr-off", action="store_true", help="IA32_SEAMRR_PHYS_MASK.VALID = 0")
    parser.add_argument("--module-not-loaded", action="store_true", help="SEAM_READY = 0")
    parser.add_argument("--p-seamldr-not-loaded", action="store_true", help="P_SEAMLDR_READY = 0")
    parser.add_argument("--mutex-held", action="store_true", help="another processor holds P_SEAMLDR_MUTEX")
    parser.add_argument("--all-revisions", action="store_true", help="one line for each revision instead of the path")
    parser.add_argument("--vmfail", action="store_true", help="the three situations that give VMfailInvalid")
    parser.add_argument("--everywhere", action="store_true", help="one line for each mode and privilege level")


def run(args: argparse.Namespace) -> int:
    """Execute it."""
    from seamref.arch.revision import REVISIONS, get_revision

    revision = get_revision(args.revision)
    if args.vmfail:
        return _vmfail(revision.name)
    if args.all_revisions or args.everywhere:
        seats = [(m, c) for m in MODES for c in (0, 3) if not (m == "seam" and c)] if args.everywhere else [
            (args.mode, args.cpl)]
        chosen = list(REVISIONS) if args.all_revisions else [revision.name]
        for mode, cpl in seats:
            for name in chosen:
                outcome, clause, _ = _execute(args, mode, cpl, name)
                print(f"{mode:12} CPL {cpl}  {name:12} {outcome:24} {clause}")
        return 0
    outcome, clause, path = _execute(args, args.mode, args.cpl, revision.name)
    for id, says, answer in path:
        print(f"  {answer:13} {id:29} {says}")
    print(f"{outcome}, decided by {clause} ({revision.name})")
    return 0


def _execute(args: argparse.Namespace, mode: str, cpl: int, name: str) -> tuple[str, str, list[tuple[str, str, str]]]:
    """SEAMCALL on a prepared platform: outcome, clause, and every row with its answer."""
    from seamref.arch import lab
    from seamref.arch.msr import SEAMRR_MASK
    from seamref.arch.revision import get_revision
    from seamref.arch.seam import BIT63, SEAMCALL, SeamcallState, seamcall

    revision = get_revision(name)
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.vmx_on = mode != "outside-vmx"
    lp.in_smm = mode == "smm"
    lp.inSEAM = mode in ("seam", "td")
    lp.non_root = mode in ("guest", "td")
    lp.cpl, lp.cs_l, lp.mov_ss_blocking = cpl, not args.not_64bit, args.mov_ss
    lp.rax = BIT63 if args.to == "p-seamldr" else 0
    if args.seamrr_off:
        lp.msrs[SEAMRR_MASK] &= ~(1 << 11)
    if args.mutex_held:
        platform.P_SEAMLDR_MUTEX = platform.lps[1]
    lab.set_ready(platform, seam=not args.module_not_loaded, p_seamldr=not args.p_seamldr_not_loaded)
    walk = SEAMCALL.walk(SeamcallState(platform, lp), revision)
    outcome = seamcall(platform, lp.id)
    path = [(row.id, row.says, "decides" if decided else "silent") for row, decided in walk]
    return str(outcome), outcome.clause, path


def _vmfail(name: str) -> int:
    """Module not loaded, P-SEAMLDR busy, P-SEAMLDR not loaded: everything the caller can see."""
    from seamref.arch import lab
    from seamref.arch.revision import get_revision
    from seamref.arch.seam import BIT63, seamcall

    for why in ("TDX module not loaded", "P-SEAMLDR busy", "P-SEAMLDR not loaded"):
        platform = lab.platform(revision=get_revision(name))
        lp = platform.lp(0)
        lp.rax = BIT63 if "P-SEAMLDR" in why else 0
        if why == "P-SEAMLDR busy":
            platform.P_SEAMLDR_MUTEX = platform.lps[1]
        else:
            lab.set_ready(platform, seam=False, p_seamldr=False)
        asked = lp.rax
        outcome = seamcall(platform, 0)
        kept = "unchanged" if lp.rax == asked else f"0x{lp.rax:X}"
        print(f"{why:21}  {outcome}  CF={lp.rflags & 1}  RAX {kept}  ({outcome.clause})")
    return 0
