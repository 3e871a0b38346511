"""Decode an MSR, and read or write it from some mode.

    python -m seamref msr 0x1401 --value 0x3FFFFC000C00       what the bits mean
    python -m seamref msr 0x1402 --write 0x7FC10001 --mode p-seamldr
    python -m seamref msr 0x1402 --gate all                   P-SEAMLDR writes it, under each reading of the document
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamref.arch.revision import Revision

HELP = "an MSR's bits, and what RDMSR or WRMSR does in each mode"
MODES = ("host", "guest", "acm", "module", "p-seamldr", "td")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("msr", nargs="?", help="number or name; without it, all are listed")
    parser.add_argument("--value", help="decode this value instead of the one it holds")
    parser.add_argument("--write", metavar="VALUE", help="WRMSR this value")
    parser.add_argument("--mode", choices=MODES, default="host", help="who executes it, default host")
    parser.add_argument("--revision", default="silicon", metavar="NAME", help="default silicon")
    parser.add_argument("--gate", choices=["NONE", "PHYSMASK", "PHYSBASE", "all"],
                        help="what 0x1402 waits for (errata 34); all: each of them, with PRMRR valid and not")


def run(args: argparse.Namespace) -> int:
    """Say it."""
    from dataclasses import replace

    from seamref.arch import lab
    from seamref.arch.msr import BY_NAME, MSRS, rdmsr, wrmsr
    from seamref.arch.outcome import Fault
    from seamref.arch.revision import SeamextendGate, get_revision
    from seamref.errors import SeamrefError

    if args.msr is None:
        for msr in MSRS.values():
            access = f"RDMSR {msr.read.value:18} WRMSR {msr.write.value:18}"
            print(f"0x{msr.address:08X}  {msr.name:34} {access} {msr.meaning}")
        return 0

    def number(text: str) -> int:
        try:
            return int(text, 0)
        except ValueError:
            raise SeamrefError(f"{text!r} is no number") from None

    named = BY_NAME.get(args.msr)
    address = named.address if named else number(args.msr)
    revision = get_revision(args.revision)
    if args.gate == "all":
        return _every_gate(address, number(args.write or "0x7FC10001"), revision)
    if args.gate:
        revision = replace(revision, seamextend_gate=SeamextendGate[args.gate])
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.non_root = args.mode in ("guest", "td")
    lp.inSEAM = args.mode in ("module", "p-seamldr", "td")
    lp.inP_SEAMLDR = args.mode == "p-seamldr"
    lp.ACMODEFLAG = args.mode == "acm"
    if args.write is not None:
        outcome = wrmsr(platform, 0, address, number(args.write))
        print(f"WRMSR 0x{address:X} := 0x{number(args.write):X} by {args.mode}: {outcome}, decided by {outcome.clause}")
        return 1 if isinstance(outcome, Fault) else 0
    if args.value is None:
        value = rdmsr(platform, 0, address)
        if isinstance(value, Fault):
            print(f"RDMSR 0x{address:X} by {args.mode}: {value}, decided by {value.clause}")
            return 1
    else:
        value = number(args.value)
    declared = MSRS.get(address)
    if declared is None:
        raise SeamrefError(f"no MSR 0x{address:X} is declared")
    print(f"0x{address:X} {declared.name} = 0x{value:X}: {declared.meaning}")
    for bit in sorted(declared.bits, key=lambda b: -b.high):
        span = f"{bit.high}:{bit.low}" if bit.high != bit.low else f"{bit.low}"
        print(f"  {span:>6}  {bit.name:24} 0x{bit.get(value):X}  {bit.meaning}".rstrip())
    return 0


def _every_gate(address: int, value: int, revision: Revision) -> int:
    """P-SEAMLDR's WRMSR under each reading, with processor reserved memory valid and not."""
    from dataclasses import replace

    from seamref.arch import lab
    from seamref.arch.msr import PRMRR_MASK, wrmsr
    from seamref.arch.revision import SeamextendGate

    for gate in SeamextendGate:
        for valid in (True, False):
            platform = lab.platform(revision=replace(revision, seamextend_gate=gate))
            lp = platform.lp(0)
            lp.inSEAM = lp.inP_SEAMLDR = True
            platform.set_msr(lp, PRMRR_MASK, 0xC00 if valid else 0)
            outcome = wrmsr(platform, 0, address, value)
            print(f"waits for {gate.value:43} PRMRR_PHYS_MASK.VALID={int(valid)}: {outcome!s:7} {outcome.clause}")
    return 0
