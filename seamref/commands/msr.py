"""Decode an MSR, and read or write it from some mode.

Values are hexadecimal, with or without 0x, as rdmsr prints them; -f HIGH:LOW says that a value is that field, as with
rdmsr -f.  An MSR is a number, a name or a part of one.  One that exists but is not modelled is described and said to be
not modelled.
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
    parser.add_argument("msr", nargs="?", help="number, name or part of a name; without it, all are listed")
    parser.add_argument("--value", help="decode this value (hexadecimal) instead of the one it holds")
    parser.add_argument("-f", "--field", metavar="HIGH:LOW", help="the value is only this field, as rdmsr -f gives it")
    parser.add_argument("--base", metavar="VALUE", help="of SEAMRR, for base, size and end beside 0x1401")
    parser.add_argument("--write", metavar="VALUE", help="WRMSR this value")
    parser.add_argument("--mode", choices=MODES, default="host", help="who executes it, default host")
    parser.add_argument("--revision", default="silicon", metavar="NAME", help="default silicon")
    parser.add_argument("--gate", choices=["NONE", "PHYSMASK", "PHYSBASE", "all"],
                        help="what 0x1402 waits for (errata 34); all: each of them, with PRMRR valid and not")


def run(args: argparse.Namespace) -> int:
    """Say it."""
    from dataclasses import replace

    from seamref.arch import lab
    from seamref.arch.msr import MSRS, rdmsr, wrmsr
    from seamref.arch.outcome import Fault
    from seamref.arch.revision import SeamextendGate, get_revision
    from seamref.diagnose.msrs import UNMODELLED, number
    from seamref.errors import SeamrefError

    if args.msr is None:
        for msr in MSRS.values():
            access = f"RDMSR {msr.read.value:18} WRMSR {msr.write.value:18}"
            print(f"0x{msr.address:08X}  {msr.name:34} {access} {msr.meaning}")
        for other in UNMODELLED.values():
            print(f"0x{other.address:08X}  {other.name:34} {'not modelled':50} {other.meaning}")
        return 0
    address = _address(args.msr)
    value = None if args.value is None else number(args.value, "--value")
    if args.field is not None and value is None:
        raise SeamrefError("--field says which bits a --value is: give both")
    if address not in MSRS:
        return _unmodelled(address, value, args)
    revision = get_revision(args.revision)
    if args.gate == "all":
        return _every_gate(address, number(args.write or "0x7FC10001", "--write"), revision)
    if args.gate:
        revision = replace(revision, seamextend_gate=SeamextendGate[args.gate])
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.non_root = args.mode in ("guest", "td")
    lp.inSEAM = args.mode in ("module", "p-seamldr", "td")
    lp.inP_SEAMLDR = args.mode == "p-seamldr"
    lp.ACMODEFLAG = args.mode == "acm"
    if args.write is not None:
        written = number(args.write, "--write")
        outcome = wrmsr(platform, 0, address, written)
        print(f"WRMSR 0x{address:X} := 0x{written:X} by {args.mode}: {outcome}, decided by {outcome.clause}")
        return 1 if isinstance(outcome, Fault) else 0
    if value is None:
        held = rdmsr(platform, 0, address)
        if isinstance(held, Fault):
            print(f"RDMSR 0x{address:X} by {args.mode}: {held}, decided by {held.clause}")
            return 1
        value = held
    declared = MSRS[address]
    _show(address, f"{declared.name} = 0x{value:X}: {declared.meaning}", value, args)
    return 0


def _address(text: str) -> int:
    """The one MSR that is meant."""
    from seamref.arch.msr import BY_NAME
    from seamref.commands._names import guess
    from seamref.diagnose.msrs import UNMODELLED, find, name_of
    from seamref.errors import SeamrefError

    found = find(text)
    if len(found) > 1:
        listed = ", ".join(f"0x{a:X} {name_of(a)}" for a in found[:12])
        raise SeamrefError(f"{text!r} names {len(found)} MSRs: {listed}" + (" ..." if len(found) > 12 else ""))
    if not found:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        names = (*BY_NAME, *(m.name for m in UNMODELLED.values()))
        raise SeamrefError(f"{shown!r} is no number and no MSR's name" + guess(shown, names))
    return found[0]


def _unmodelled(address: int, value: int | None, args: argparse.Namespace) -> int:
    """An MSR without a model: what it is, and its fields; never #GP."""
    from seamref.diagnose.msrs import OWNERS, UNMODELLED
    from seamref.errors import NotModelled

    held = UNMODELLED.get(address)
    if held is None:
        raise NotModelled(f"MSR 0x{address:X}; whether a processor has it is not known here")
    if args.write is not None or args.gate:
        raise NotModelled(f"WRMSR of 0x{address:X} {held.name}")
    head = f"{held.name}" + ("" if value is None else f" = 0x{value:X}") + f": {held.meaning}"
    _show(address, head, value, args)
    print(f"  not modelled: it exists, {OWNERS[held.owner]}; this machine has no value for it [{held.source}]")
    return 0


def _show(address: int, head: str, value: int | None, args: argparse.Namespace) -> None:
    """The fields of a value, or the one field that was given, and what follows from the whole."""
    from seamref.arch.msr import SEAMRR_MASK
    from seamref.diagnose.msrs import bits_of, derived, field, number, seamrr
    from seamref.errors import SeamrefError

    print(f"0x{address:X} {head}")
    if value is None:
        return
    if args.field is not None:
        high, low = field(args.field)
        if value >> (high - low + 1):
            raise SeamrefError(f"--value 0x{value:X}: does not fit bits {high}:{low}")
        print(f"  only bits {high}:{low} were given")
        for line in bits_of(address, value << low):
            if line.bit.low >= low and line.bit.high <= high:
                print(line)
        if low == 0 and high == 63:
            args.field = None
        else:
            return
    for line in bits_of(address, value):
        print(line)
    if address == SEAMRR_MASK and args.base is not None:
        for text in seamrr(number(args.base, "--base"), value).lines():
            print(f"  {text}")
        return
    for text in derived(address, value):
        print(f"  {text}")


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
