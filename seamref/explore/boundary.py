"""Properties of the border of SEAM: what is as before behind a SEAMCALL, what never leaves, who never gets in.

What a processor's registers were when it entered is noted on that CPU until it leaves (``World.note``): the note is
part of the CPU's own state, so interchangeable CPUs stay interchangeable.
"""

from __future__ import annotations

from operator import attrgetter
from typing import Any

from seamref.arch.lp import ARITHMETIC, IF, Activity, Lp
from seamref.arch.memory import MEMORY, Access, Agent, decode_seamrr
from seamref.arch.msr import SEAMRR_BASE, SEAMRR_MASK
from seamref.arch.platform import Platform
from seamref.explore.probe import canaries
from seamref.explore.property import declare, lp_of
from seamref.explore.world import Did, World
from seamref.host.abi import SEAMLDR_INFO, Leaf
from seamref.host.records import Call, Stub
from seamref.host.seamcall import STUB_RIP
from seamref.tdxmodule.core import LEAVES

# --- registers and MSRs -------------------------------------------------------------------------------------------

UNLOADED = ("rbx", "rbp", "rsi", "rdi", "r12", "r13", "r14", "r15")
"""General registers that the stubs do not load (but for __seamcall_saved_ret, which loads all)."""
RESTORED = (
    "rsp", "ssp", "cr0", "cr3", "cr4", "dr7", "debugctl", "efer", "pat", "s_cet", "interrupt_ssp_table", "sysenter_cs",
    "sysenter_esp", "sysenter_eip", "perf_global_ctrl", "bndcfgs", "rtit_ctl", "lbr_ctl", "pkrs", "uinv", "gdtr_base",
    "gdtr_limit", "idtr_base", "idtr_limit",
    *(f"{segment}_{part}" for segment in ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
      for part in ("selector", "base", "limit", "ar")),
)
"""The VMM's state in the guest-state area of the transfer VMCS: SEAMCALL saves it, SEAMRET loads it."""
BLOCKING = ("smi_inhibit", "nmi_inhibit", "mov_ss_blocking")
"""What holds events off; SEAMCALL sets the first two, and SEAMRET takes both back from the transfer VMCS."""


_NAMES = (*UNLOADED, *RESTORED, *BLOCKING)
_VALUES = attrgetter(*_NAMES)


def _note(lp: Lp) -> tuple[object, ...]:
    """What has to be the same behind the call: registers, RFLAGS, MSRs of the core, what holds events off."""
    return _VALUES(lp), lp.rflags & ~ARITHMETIC, tuple(sorted(lp.msrs.items()))


def _named(note: Any) -> dict[str, int]:
    """A note by names."""
    values, rflags, msrs = note
    named = dict(zip(_NAMES, values, strict=True))
    return {**named, "rflags": rflags, **{f"MSR 0x{at:X}": value for at, value in msrs}}


def outputs(call: Call) -> tuple[str, ...]:
    """General registers in which the call's leaf documents an answer, RAX aside.

    P-SEAMLDR: RDX of INSTALL; the TDX module: what the leaf's declaration says; every register behind TDH.VP.ENTER.
    """
    if call.fn >> 63:
        return ("rdx",) if call.fn == Leaf.SEAMLDR_INSTALL else ()
    leaf = LEAVES.get(call.fn & 0xFFFF)
    if leaf is None or call.stub is Stub.SAVED_RET:
        return ("rcx", "rdx", "r8", "r9", "r10", "r11")
    return (*leaf.outputs, *leaf.ones)


def _returning(before: World, after: World, did: Did) -> Call | None:
    """The call that this step brought back from SEAM."""
    if did.actor >= after.cpus or not lp_of(before, did.actor).inSEAM or lp_of(after, did.actor).inSEAM:
        return None
    task = before.task(did.actor)
    return None if task is None else task.call


def _entering(before: World, after: World, did: Did) -> bool:
    """Whether this step took its CPU into SEAM."""
    return did.actor < after.cpus and lp_of(after, did.actor).inSEAM and not lp_of(before, did.actor).inSEAM


def _registers(before: World, after: World, did: Did) -> str | None:
    if _entering(before, after, did):
        after.note(did.actor, _note(lp_of(before, did.actor)))
        return None
    call = _returning(before, after, did)
    if call is None or not (noted := before.noted(did.actor)):
        return None
    lp = lp_of(after, did.actor)
    after.note(did.actor, ())
    everything = call.stub is Stub.SAVED_RET
    note = _note(lp)
    if note != noted:
        was, now = _named(noted), _named(note)
        for name, value in was.items():
            if name in BLOCKING or name == "rflags" or (everything and name in UNLOADED):
                continue
            if now.get(name, value) != value:
                return (f"behind {did.text.partition(':')[0]} on CPU {did.actor} {name} is 0x{now[name]:X}, "
                        f"not 0x{value:X}")
    kept = () if everything else (name for name in call.stub.loads if name not in outputs(call))
    for name in kept:
        held, given = getattr(lp, name), getattr(call.args, name)
        if held != given:
            return f"{name} is no output of the call, and is 0x{held:X} behind it, not 0x{given:X} (CPU {did.actor})"
    if lp.rip != STUB_RIP[call.stub] + 4:
        return f"RIP is 0x{lp.rip:X} behind SEAMCALL, not the instruction's end 0x{STUB_RIP[call.stub] + 4:X}"
    return None


declare("registers-kept", "behind a SEAMCALL every register and MSR of the VMM is as before, but for the documented "
        "outputs", "SEAMRET.leave", "X2 SEAMRET; PSL pseamldr_dispatcher.c; TDXM tdx_seamret_to_vmm.S",
        step=_registers)


def _blocking(before: World, after: World, did: Did) -> str | None:
    if _entering(before, after, did):
        after.note(did.actor, _note(lp_of(before, did.actor)))
        return None
    if _returning(before, after, did) is None or not (noted := before.noted(did.actor)):
        return None
    lp = lp_of(after, did.actor)
    after.note(did.actor, ())
    if _note(lp) == noted:
        return f"blocking by STI outlives SEAMCALL on CPU {did.actor}" if lp.sti_blocking else None
    was = _named(noted)
    for name in BLOCKING:
        if getattr(lp, name) != bool(was[name]):
            return f"behind the call on CPU {did.actor} {name} is {getattr(lp, name)}, it was {bool(was[name])}"
    if lp.rflags & IF != was["rflags"] & IF:
        return f"behind the call on CPU {did.actor} RFLAGS.IF is {bool(lp.rflags & IF)}, it was the opposite"
    return f"blocking by STI outlives SEAMCALL on CPU {did.actor}" if lp.sti_blocking else None


declare("blocking-kept", "NMI and SMI inhibition, MOV-SS blocking and RFLAGS.IF are behind a SEAMCALL as before it; "
        "blocking by STI is over", "SEAMRET.leave", "X2 SEAMRET; PSL pseamldr_dispatcher.c (DISPATCH.exit)",
        step=_blocking)


def _secrets(before: World, after: World, did: Did) -> str | None:
    call = _returning(before, after, did)
    if call is None:
        return None
    platform, lp = after.host.platform, lp_of(after, did.actor)
    secrets = canaries(platform, lp.id)
    for name in ("rcx", "rdx", *UNLOADED, "r8", "r9", "r10", "r11"):
        if getattr(lp, name) in secrets:
            return f"{name} of CPU {did.actor} holds {secrets[getattr(lp, name)]} behind the call"
    if call.fn == Leaf.SEAMLDR_INFO:
        told = platform.bytes_at(Agent.CPU, call.args.rcx, SEAMLDR_INFO.size)
        for secret, what in secrets.items():
            if secret.to_bytes(8, "little") in told:
                return f"SEAMLDR_INFO of CPU {did.actor} holds {what}"
    return None


declare("secrets-kept", "no stack canary and no stepping seed leaves SEAM, in a register or in SEAMLDR_INFO",
        "DISPATCH.exit", "PSL pseamldr_dispatcher.c: all registers are reloaded from the caller's", step=_secrets)

# --- who gets in --------------------------------------------------------------------------------------------------


def _after_death(before: World, after: World, did: Did) -> str | None:
    if not _entering(before, after, did):
        return None
    died = [cpu for cpu, record in enumerate(before.host.state.cpus)
            if record.dead and lp_of(before, cpu).activity is Activity.SHUTDOWN and lp_of(before, cpu).inSEAM]
    if not died:
        return None
    return f"CPU {did.actor} entered SEAM after CPUs {died} went to shutdown in it"


declare("death-closes-seam", "after a processor went to shutdown in SEAM nobody enters SEAM again",
        "EVENT.shutdown_in_SEAM", "X2 events", step=_after_death)

OUTSIDE = (Agent.HOST, Agent.GUEST, Agent.SMM, Agent.DMA, Agent.TD)
"""Agents that must not touch SEAMRR (a TD reaches its private memory, which lies elsewhere)."""


def _memory_closed(before: World, after: World, did: Did) -> str | None:
    """Every agent, reads and writes, in the state behind every step."""
    platform = after.host.platform
    lp = lp_of(after, did.actor if did.actor < after.cpus else 0)
    key = (
        tuple(entry[1] for entry in MEMORY._counted), platform.config.maxpa, platform.keyid_bits,
        platform.tdx_keyid_bits, platform.SEAMEXTEND, platform.P_SEAMLDR_MUTEX, platform.p_seamldr_range,
        lp.msrs.get(SEAMRR_BASE, 0), lp.msrs.get(SEAMRR_MASK, 0), lp.id, lp.inSEAM, lp.inP_SEAMLDR, lp.non_root,
        lp.in_smm, lp.vmx_on, lp.ACMODEFLAG, lp.cpl,
    )
    if key not in _CLOSED:
        if len(_CLOSED) > 10_000:
            _CLOSED.clear()
        _CLOSED[key] = open_memory(platform, lp)
    return _CLOSED[key]


_CLOSED: dict[tuple[object, ...], str | None] = {}
"""What was found for one setting of ranges, ready flags, mutex, and the processor's mode: an access is decided by them
(a test asks in every state of an update, without this memory)."""


def open_memory(platform: Platform, lp: Lp) -> str | None:
    """The first access from outside that the table of accesses allows to SEAM memory; ``None``: it allows none."""
    held, mask = platform.p_seamldr_range, lp.msrs.get(SEAMRR_MASK, 0)
    if not mask >> 11 & 1 or held is None:
        return "SEAMRR or P_SEAMLDR_RANGE is gone"
    base = decode_seamrr(lp.msrs.get(SEAMRR_BASE, 0), mask).base
    for at in (base, base + 0x1000, held.base, held.base + held.size - 0x40):
        for agent in OUTSIDE:
            for write in (False, True):
                if MEMORY.decide(Access(platform, agent, lp, at, at, 0, 64, write)) is None:
                    return f"{agent.name} {'writes' if write else 'reads'} SEAM memory at 0x{at:X}"
    return None


declare("seam-memory-closed", "SEAM memory is neither readable nor writable from outside, by anybody, at any time",
        "MEMORY.module_range", "X2 SEAMRR; ISS25", step=_memory_closed)

__all__ = ["BLOCKING", "OUTSIDE", "RESTORED", "UNLOADED", "open_memory", "outputs"]
