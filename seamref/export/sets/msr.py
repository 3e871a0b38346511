"""RDMSR and WRMSR of every MSR, in every mode, with values that each rule refuses."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from seamref.arch import lab
from seamref.arch.msr import (
    APIC_BASE,
    BIOS_SE_SVN,
    MSRS,
    PRMRR_BASE,
    PRMRR_MASK,
    SEAMEXTEND_MSR,
    SEAMRR_BASE,
    SEAMRR_MASK,
    TME_ACTIVATE,
    rdmsr,
    wrmsr,
)
from seamref.arch.outcome import Fault
from seamref.arch.platform import Platform
from seamref.arch.structures import SEAMEXTEND
from seamref.export.form import Answer, Case, Flag, Hex, Item, MapOf, Maybe, Octets, OneOf, VectorSet, hexed, number
from seamref.export.outcomes import outcome_json, outcome_type
from seamref.export.sets.machine import base, revisions

MODES = {
    "host": "legacy VMX root operation",
    "guest": "legacy VMX non-root operation (the access was not intercepted)",
    "acm": "authenticated code mode",
    "module": "SEAM root, the TDX module",
    "p-seamldr": "SEAM root, P-SEAMLDR",
    "td": "SEAM non-root (the access was not intercepted)",
}
ALL_ONES = (1 << 64) - 1
UNKNOWN = 0xC0FFEE
"""An address at which no MSR is."""
BUFFER = lab.P_SEAMLDR_RANGE.base + 0x20000
LIST_ONLY = (0x98, 0x99)
TOUCHED = (SEAMRR_BASE, SEAMRR_MASK, TME_ACTIVATE, BIOS_SE_SVN, PRMRR_BASE, PRMRR_MASK)
"""MSRs whose values decide about writes of others, or of themselves."""


def _common() -> dict[str, Any]:
    platform = base("silicon")
    lp = platform.peek_lp(0)
    return {
        "msrs": {hexed(at): hexed(platform.msr_value(lp, at)) for at in MSRS},
        "p_seamldr_range_base": hexed(lab.P_SEAMLDR_RANGE.base),
        "p_seamldr_range_size": hexed(lab.P_SEAMLDR_RANGE.size),
        "maxpa": hexed(platform.config.maxpa),
        "seamextend": platform.SEAMEXTEND.hex(),
    }


def _case(
    id: str,
    comment: str,
    address: int,
    mode: str = "host",
    value: int | None = None,
    *,
    user: bool = False,
    listed: bool = False,
    svn_locked: bool = False,
    memory: bytes = b"",
    **held: int,
) -> Case:
    return Case(
        id,
        comment,
        {
            "operation": "RDMSR" if value is None else "WRMSR",
            "mode": mode,
            "user": user,
            "vmx_list": listed,
            "address": hexed(address),
            "value": None if value is None else hexed(value),
            "changed": {name.replace("x", "0x", 1): hexed(v) for name, v in held.items()},
            "svn_locked": svn_locked,
            "memory": {hexed(BUFFER): memory.hex()} if memory else {},
        },
    )


def _held(values: Mapping[int, int]) -> dict[str, Any]:
    return {f"x{address:X}": value for address, value in values.items()}


def _cases() -> Iterator[Case]:
    platform = base("silicon")
    for address in (*MSRS, UNKNOWN):
        name = MSRS[address].name if address in MSRS else "no such MSR"
        held = platform.msr_value(platform.peek_lp(0), address) if address in MSRS else 0
        for mode in MODES:
            yield _case(f"msr-{address:x}-{mode}-read", f"RDMSR {name} by {mode}", address, mode)
            for what, value in {
                "same": held,
                "zero": 0,
                "ones": ALL_ONES,
                "bit63": held ^ 1 << 63,
                "bit0": held ^ 1,
            }.items():
                yield _case(
                    f"msr-{address:x}-{mode}-write-{what}",
                    f"WRMSR {name} := {hexed(value)} by {mode}",
                    address,
                    mode,
                    value,
                )
        yield _case(f"msr-{address:x}-user-read", f"RDMSR {name} with CPL 3", address, user=True)
        yield _case(f"msr-{address:x}-user-write", f"WRMSR {name} with CPL 3", address, value=0, user=True)
    yield from _bits()
    yield from _rules()


def _bits() -> Iterator[Case]:
    """Each single bit of the registers that have a list of reserved ones."""
    for address in (
        SEAMRR_BASE,
        SEAMRR_MASK,
        TME_ACTIVATE,
        BIOS_SE_SVN,
        0xC0000080,
        0x48,
        0x49,
        0x1F5,
        0x2A0,
        APIC_BASE,
    ):
        for bit in range(64):
            yield _case(
                f"msr-{address:x}-bit-{bit:02}",
                f"WRMSR {MSRS[address].name}: bit {bit} alone",
                address,
                value=1 << bit,
                **_held({SEAMRR_BASE: 0, SEAMRR_MASK: 0, TME_ACTIVATE: 0}),
            )


def _rules() -> Iterator[Case]:
    platform = base("silicon")
    mask = platform.msr_value(platform.peek_lp(0), SEAMRR_MASK)
    for mode in MODES:
        for what, value in {
            "valid-off": mask & ~(1 << 11),
            "lock-off": mask & ~(1 << 10),
            "both-off": mask & ~0xC00,
            "size": mask ^ 1 << 26,
        }.items():
            yield _case(
                f"msr-seamrr-locked-{mode}-{what}",
                f"locked SEAMRR, {mode} writes the mask with {what}",
                SEAMRR_MASK,
                mode,
                value,
            )
    for k, p, enable in ((6, 0, 1), (6, 6, 1), (6, 7, 1), (7, 1, 1), (1, 0, 0), (0, 0, 0), (0, 1, 1)):
        yield _case(
            f"msr-tme-{k}-{p}-{enable}",
            f"IA32_TME_ACTIVATE: k = {k}, p = {p}, enable = {enable}",
            TME_ACTIVATE,
            value=k << 32 | p << 36 | enable << 1,
            **_held({TME_ACTIVATE: 0}),
        )
    for locked in (False, True):
        for what, value in {"svn": 5 << 56, "patch": 5 << 56 | 1}.items():
            yield _case(
                f"msr-se-svn-{what}-{int(locked)}",
                f"BIOS_SE_SVN := {hexed(value)}, " + ("locked" if locked else "not locked"),
                BIOS_SE_SVN,
                value=value,
                svn_locked=locked,
            )
    for address in LIST_ONLY:
        for value in (0, 3, 4):
            yield _case(f"msr-{address:x}-index-{value}", f"cache sub-block {value} of 4", address, "module", value)
        yield _case(f"msr-{address:x}-list-read", "through a VMX MSR list", address, "module", listed=True)
        yield _case(f"msr-{address:x}-list-write", "through a VMX MSR list", address, "module", 0, listed=True)
    yield from _seamextend()


def _seamextend() -> Iterator[Case]:
    """IA32_SEAMEXTEND: the gate, the buffer, both directions."""
    buffer = SEAMEXTEND.new(valid=0x1FF, mrseam=bytes(range(48)), seam_ready=1, p_seamldr_ready=1).encode()
    end = lab.P_SEAMLDR_RANGE.base + lab.P_SEAMLDR_RANGE.size
    valid = 1 << 11
    for mode in ("p-seamldr", "module", "acm", "host"):
        for mask in (0, valid):
            for gate in (0, valid):
                for copy_out in (0, 1):
                    yield _case(
                        f"msr-1402-{mode}-{mask >> 11}{gate >> 11}{copy_out}",
                        f"IA32_SEAMEXTEND by {mode}, PRMRR mask valid {mask >> 11}, base bit 11 {gate >> 11}, "
                        f"copy {'out' if copy_out else 'in'}",
                        SEAMEXTEND_MSR,
                        mode,
                        BUFFER | copy_out,
                        memory=buffer,
                        **_held({PRMRR_MASK: mask, PRMRR_BASE: gate}),
                    )
    for what, at in {
        "below": lab.P_SEAMLDR_RANGE.base - 0x100,
        "first": lab.P_SEAMLDR_RANGE.base,
        "last": end - 0x100,
        "behind": end,
        "module": lab.SEAMRR.base,
        "unaligned": BUFFER + 0x80,
    }.items():
        yield _case(
            f"msr-1402-buffer-{what}",
            f"IA32_SEAMEXTEND, buffer at {hexed(at)}",
            SEAMEXTEND_MSR,
            "p-seamldr",
            at | 1,
            **_held({PRMRR_MASK: valid, PRMRR_BASE: valid}),
        )


def _put_mode(platform: Platform, mode: str, user: bool) -> None:
    lp = platform.lp(0)
    lp.non_root = mode in ("guest", "td")
    lp.inSEAM = mode in ("module", "p-seamldr", "td")
    lp.inP_SEAMLDR = mode == "p-seamldr"
    lp.ACMODEFLAG = mode == "acm"
    lp.cpl = 3 if user else 0


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = base(revision).fork()
    lp = platform.lp(0)
    for address, value in given["changed"].items():
        if number(address) == BIOS_SE_SVN:
            platform.bios_se_svn = number(value)
        else:
            platform.set_msr(lp, number(address), number(value))
    platform.keyid_layout_changed()
    platform.svn_locked = given["svn_locked"]
    platform.SEAMEXTEND = bytes.fromhex(given["seamextend"])
    _put_mode(platform, given["mode"], given["user"])
    for at, data in given["memory"].items():
        platform.store_.write(number(at), bytes.fromhex(data))
    address = number(given["address"])
    output: dict[str, Any]
    if given["operation"] == "RDMSR":
        found = rdmsr(platform, 0, address, from_vmx_list=given["vmx_list"])
        if isinstance(found, Fault):
            return Answer({"outcome": outcome_json(found), "value": None}, (found.clause,))
        return Answer({"outcome": {"kind": "done"}, "value": hexed(found)}, ("RDMSR.value",))
    before = {at: platform.msr_value(platform.peek_lp(0), at) for at in MSRS}
    held = platform.SEAMEXTEND
    memory = (
        platform.store_.read(number(given["value"]) & ~0xFF, SEAMEXTEND.size) if address == SEAMEXTEND_MSR else b""
    )
    outcome = wrmsr(platform, 0, address, number(given["value"]), from_vmx_list=given["vmx_list"])
    after = {at: platform.msr_value(platform.peek_lp(0), at) for at in MSRS}
    output = {
        "outcome": outcome_json(outcome),
        "value": None,
        "changed": {hexed(at): hexed(value) for at, value in after.items() if value != before[at]},
    }
    if held != platform.SEAMEXTEND:
        output["seamextend"] = platform.SEAMEXTEND.hex()
    if memory:
        now = platform.store_.read(number(given["value"]) & ~0xFF, SEAMEXTEND.size)
        if now != memory:
            output["buffer"] = now.hex()
    return Answer(output, (outcome.clause,))


SET = VectorSet(
    "msr",
    "MSR reads and writes",
    (
        "RDMSR and WRMSR of every MSR of the loading chain, by everybody who can execute them: the value as it is, "
        "zero, all "
        "ones, one bit flipped; each single bit where bits are reserved; locks, IA32_TME_ACTIVATE's rules, and "
        "IA32_SEAMEXTEND with its gate, its buffer and both directions.",
        "`msrs` are the values before; `changed` in the input are those that differ in a test.  In a guest or a TD "
        "the test "
        "is about an access that the monitor lets through.  Everything that is not said to be changed is as it was.",
    ),
    (
        Item("operation", OneOf(("RDMSR", "WRMSR")), "the instruction"),
        Item("mode", OneOf(tuple(MODES)), "; ".join(f"{name}: {says}" for name, says in MODES.items())),
        Item("user", Flag(), "CPL = 3 (0: CPL = 0)"),
        Item("vmx_list", Flag(), "not the instruction, but an entry of a VMX MSR-load or MSR-store list"),
        Item("address", Hex(32), "ECX"),
        Item("value", Maybe(Hex()), "EDX:EAX of WRMSR"),
        Item("changed", MapOf(Hex(), "MSR addresses"), "MSRs that do not have the value in `msrs`"),
        Item("svn_locked", Flag(), "the first SEAMOPS was executed: CRPL_CPUSVN and BIOS_SE_SVN are locked"),
        Item("memory", MapOf(Octets(), "physical addresses"), "memory that is not zero"),
        Item("msrs", MapOf(Hex(), "MSR addresses"), "value of every MSR before"),
        Item("p_seamldr_range_base", Hex(), "P_SEAMLDR_RANGE: base"),
        Item("p_seamldr_range_size", Hex(), "P_SEAMLDR_RANGE: size in bytes"),
        Item("maxpa", Hex(8), "physical-address bits"),
        Item("seamextend", Octets(SEAMEXTEND.size), "the register behind IA32_SEAMEXTEND"),
    ),
    (
        Item("outcome", outcome_type("fault", "done"), "what the instruction ended in"),
        Item("value", Maybe(Hex()), "EDX:EAX of RDMSR"),
        Item(
            "changed", MapOf(Hex(), "MSR addresses"), "MSRs that have another value afterwards; of WRMSR only", True
        ),
        Item("seamextend", Octets(SEAMEXTEND.size), "the register behind IA32_SEAMEXTEND, where it changed", True),
        Item("buffer", Octets(SEAMEXTEND.size), "the buffer of IA32_SEAMEXTEND, where it changed", True),
    ),
    revisions("343754-003"),
    _cases,
    _answer,
    _common,
    small=12,
)
