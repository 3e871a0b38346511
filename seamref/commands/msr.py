"""Decode an MSR, and read or write it from some mode.

Values are hexadecimal, with or without 0x, as rdmsr prints them; -f HIGH:LOW says that a value is that field, as with
rdmsr -f.  An MSR is a number, a name or a part of one.  One that exists but is not modelled is described and said to be
not modelled.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from seamref.arch.revision import Revision
    from seamref.commands._answer import Rows

HELP = "an MSR's bits, and what RDMSR or WRMSR does in each mode"
MODES = ("host", "guest", "acm", "module", "p-seamldr", "td")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
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
    from seamref.commands._answer import Rows, hexed
    from seamref.diagnose.msrs import UNMODELLED, number
    from seamref.errors import SeamrefError

    if args.msr is None:
        listed = Rows(args, "msr-list", "msrs")
        for msr in MSRS.values():
            access = f"RDMSR {msr.read.value:18} WRMSR {msr.write.value:18}"
            listed.add(f"0x{msr.address:08X}  {msr.name:34} {access} {msr.meaning}", address=hexed(msr.address),
                       name=msr.name, modelled=True, read=msr.read.value, write=msr.write.value, meaning=msr.meaning)
        for other in UNMODELLED.values():
            listed.add(f"0x{other.address:08X}  {other.name:34} {'not modelled':50} {other.meaning}",
                       address=hexed(other.address), name=other.name, modelled=False, read=None, write=None,
                       meaning=other.meaning)
        return listed.end()
    address = _address(args.msr)
    value = None if args.value is None else number(args.value, "--value")
    if args.field is not None and value is None:
        raise SeamrefError("--field says which bits a --value is: give both")
    if address not in MSRS:
        return _unmodelled(address, value, args)
    revision = get_revision(args.revision)
    if args.gate == "all":
        return _every_gate(args, address, number(args.write or "0x7FC10001", "--write"), revision)
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
        return _executed(args, "WRMSR", address, written, str(outcome), outcome.clause, isinstance(outcome, Fault))
    if value is None:
        held = rdmsr(platform, 0, address)
        if isinstance(held, Fault):
            return _executed(args, "RDMSR", address, None, str(held), held.clause, True)
        value = held
    declared = MSRS[address]
    shown, more = _show(address, f"{declared.name} = 0x{value:X}: {declared.meaning}", value, args)
    return shown.end(address=hexed(address), name=declared.name, modelled=True, value=hexed(value),
                     meaning=declared.meaning, mode=args.mode, **more)


def _executed(
    args: argparse.Namespace, instruction: str, address: int, value: int | None, outcome: str, clause: str, fault: bool
) -> int:
    """What RDMSR or WRMSR ended in."""
    from seamref.commands._answer import hexed, print_json

    if args.json:
        print_json("msr-access", {
            "instruction": instruction, "address": hexed(address), "value": hexed(value), "mode": args.mode,
            "revision": args.revision, "outcome": outcome, "fault": fault, "clause": clause})
    else:
        what = f"0x{address:X}" + ("" if value is None else f" := 0x{value:X}")
        print(f"{instruction} {what} by {args.mode}: {outcome}, decided by {clause}")
    return int(fault)


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
    from seamref.commands._answer import hexed
    from seamref.diagnose.msrs import OWNERS, UNMODELLED
    from seamref.errors import NotModelled

    held = UNMODELLED.get(address)
    if held is None:
        raise NotModelled(f"MSR 0x{address:X}; whether a processor has it is not known here")
    if args.write is not None or args.gate:
        raise NotModelled(f"WRMSR of 0x{address:X} {held.name}")
    head = f"{held.name}" + ("" if value is None else f" = 0x{value:X}") + f": {held.meaning}"
    shown, more = _show(address, head, value, args)
    shown.say(f"  not modelled: it exists, {OWNERS[held.owner]}; this machine has no value for it [{held.source}]")
    return shown.end(address=hexed(address), name=held.name, modelled=False, value=hexed(value), meaning=held.meaning,
                     mode=args.mode, **more)


def _show(address: int, head: str, value: int | None, args: argparse.Namespace) -> tuple[Rows, dict[str, Any]]:
    """The fields of a value, or the one field that was given, and what follows from the whole."""
    from seamref.arch.msr import SEAMRR_MASK
    from seamref.commands._answer import Rows, hexed
    from seamref.diagnose.msrs import BitLine, bits_of, derived, field, number, seamrr
    from seamref.errors import SeamrefError

    rows = Rows(args, "msr", "bits")
    rows.say(f"0x{address:X} {head}")
    more: dict[str, Any] = {"given": None, "follows": []}
    if value is None:
        return rows, more

    def add(line: BitLine) -> None:
        rows.add(str(line), high=line.bit.high, low=line.bit.low, name=line.bit.name, value=hexed(line.value),
                 meaning=line.bit.meaning)

    if args.field is not None:
        high, low = field(args.field)
        if value >> (high - low + 1):
            raise SeamrefError(f"--value 0x{value:X}: does not fit bits {high}:{low}")
        more["given"] = f"{high}:{low}"
        if (high, low) != (63, 0):
            rows.say(f"  only bits {high}:{low} were given")
            for line in bits_of(address, value << low):
                if line.bit.low >= low and line.bit.high <= high:
                    add(line)
            return rows, more
    for line in bits_of(address, value):
        add(line)
    if address == SEAMRR_MASK and args.base is not None:
        more["follows"] = seamrr(number(args.base, "--base"), value).lines()
    else:
        more["follows"] = derived(address, value)
    for text in more["follows"]:
        rows.say(f"  {text}")
    return rows, more


def _every_gate(args: argparse.Namespace, address: int, value: int, revision: Revision) -> int:
    """P-SEAMLDR's WRMSR under each reading, with processor reserved memory valid and not."""
    from dataclasses import replace

    from seamref.arch import lab
    from seamref.arch.msr import PRMRR_MASK, wrmsr
    from seamref.arch.revision import SeamextendGate
    from seamref.commands._answer import Rows, hexed

    rows = Rows(args, "msr-gates", "gates")
    for gate in SeamextendGate:
        for valid in (True, False):
            platform = lab.platform(revision=replace(revision, seamextend_gate=gate))
            lp = platform.lp(0)
            lp.inSEAM = lp.inP_SEAMLDR = True
            platform.set_msr(lp, PRMRR_MASK, 0xC00 if valid else 0)
            outcome = wrmsr(platform, 0, address, value)
            rows.add(f"waits for {gate.value:43} PRMRR_PHYS_MASK.VALID={int(valid)}: {outcome!s:7} {outcome.clause}",
                     gate=gate.name, says=gate.value, prmrr_valid=valid, outcome=str(outcome), clause=outcome.clause)
    return rows.end(address=hexed(address), value=hexed(value))
