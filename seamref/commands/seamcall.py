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
    from seamref.commands._answer import add_json

    add_json(parser)
    modes = ", ".join(f"{name} ({words})" for name, words in MODES.items())
    parser.add_argument("--mode", choices=list(MODES), help=f"where (host): {modes}")
    parser.add_argument("--cpl", type=int, choices=range(4), help="privilege level (0)")
    parser.add_argument("--to", choices=["module", "p-seamldr"], help="RAX[63] (module: 0)")
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
    from seamref.arch.revision import REVISIONS
    from seamref.commands._answer import Rows
    from seamref.commands._names import pick
    from seamref.errors import SeamrefError

    revision = REVISIONS[pick(args.revision, REVISIONS, "revision")]
    _refuse_together(args)
    args.mode, args.cpl, args.to = args.mode or "host", args.cpl or 0, args.to or "module"
    if args.mode == "seam" and args.cpl:
        raise SeamrefError(f"--mode seam --cpl {args.cpl}: SEAM VMX root runs at CPL 0 only")
    if args.vmfail:
        return _vmfail(args, revision.name)
    if args.all_revisions or args.everywhere:
        seats = [(m, c) for m in MODES for c in (0, 3) if not (m == "seam" and c)] if args.everywhere else [
            (args.mode, args.cpl)]
        chosen = list(REVISIONS) if args.all_revisions else [revision.name]
        rows = Rows(args, "seamcall-list", "states")
        for mode, cpl in seats:
            for name in chosen:
                outcome, clause, _ = _execute(args, mode, cpl, name)
                rows.add(f"{mode:12} CPL {cpl}  {name:12} {outcome:24} {clause}", mode=mode, cpl=cpl, revision=name,
                         outcome=outcome, clause=clause)
        return rows.end(to=args.to)
    outcome, clause, path = _execute(args, args.mode, args.cpl, revision.name)
    walk = Rows(args, "seamcall", "path")
    for id, says, answer in path:
        walk.add(f"  {answer:13} {id:29} {says}", clause=id, says=says, decides=answer == "decides")
    walk.say(f"{outcome}, decided by {clause} ({revision.name})")
    return walk.end(mode=args.mode, cpl=args.cpl, to=args.to, revision=revision.name, outcome=outcome, clause=clause)


def _refuse_together(args: argparse.Namespace) -> None:
    """Options that contradict each other."""
    from seamref.errors import SeamrefError

    def refuse(one: str, others: dict[str, object]) -> None:
        named = [name for name, value in others.items() if value]
        if named:
            raise SeamrefError(f"{one} does not go together with {', '.join(named)}")

    seat: dict[str, object] = {"--mode": args.mode is not None, "--cpl": args.cpl is not None}
    facts: dict[str, object] = {
        "--to": args.to, "--not-64bit": args.not_64bit, "--mov-ss": args.mov_ss, "--seamrr-off": args.seamrr_off,
        "--module-not-loaded": args.module_not_loaded, "--p-seamldr-not-loaded": args.p_seamldr_not_loaded,
        "--mutex-held": args.mutex_held,
    }
    if args.vmfail:
        refuse("--vmfail", {**seat, **facts, "--everywhere": args.everywhere, "--all-revisions": args.all_revisions})
    if args.everywhere:
        refuse("--everywhere", seat)
    if args.all_revisions and args.revision != "silicon":
        raise SeamrefError("--all-revisions does not go together with --revision")


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


def _vmfail(args: argparse.Namespace, name: str) -> int:
    """Module not loaded, P-SEAMLDR busy, P-SEAMLDR not loaded: everything the caller can see."""
    from seamref.arch import lab
    from seamref.arch.revision import get_revision
    from seamref.arch.seam import BIT63, seamcall
    from seamref.commands._answer import Rows

    rows = Rows(args, "seamcall-vmfail", "situations")
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
        rows.add(f"{why:21}  {outcome}  CF={lp.rflags & 1}  RAX {kept}  ({outcome.clause})", situation=why,
                 outcome=str(outcome), cf=lp.rflags & 1, rax_unchanged=lp.rax == asked, clause=outcome.clause)
    return rows.end(revision=name)
