"""What a malicious or broken BIOS or operating system tries, executed: every attempt runs on a platform of its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum

from seamref.arch import msr
from seamref.arch.lp import CR4_SMXE
from seamref.arch.memory import Agent
from seamref.arch.outcome import Done, Fault, Left, TxtShutdown
from seamref.arch.platform import Platform, Topology
from seamref.arch.smx import EnteredAc, enteraccs, send_sipi, step_acm
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.arch.vmx import vmxoff
from seamref.bootchain import (
    Called,
    boot,
    default_acm,
    did_stop,
    install,
    make_boot,
    read_info,
    relaunch,
    run_boot,
    seamldr_call,
    seamldr_info,
    shut_down_loader,
)
from seamref.errors import SeamrefError
from seamref.firmware import np_seamldr
from seamref.firmware.acm import parse_acm
from seamref.firmware.launcher import ACM_ADDRESS, launch
from seamref.firmware.mcheck import system_information
from seamref.firmware.np_seamldr import NpState, Returned, step_index

TWO = Topology(2, 2)


class Gain(Enum):
    """What the attacker has in the end."""

    NOTHING = "nothing"
    RESET = "a reset"
    DENIAL = "denial of service"
    VISIBLE = "an older loader, and everybody can see it"
    UNKNOWN = "public sources do not say what stops it"


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of an attack: the answer, the clause that gave it, what the attacker gained."""

    answer: str
    clause: str
    gain: Gain


@dataclass(frozen=True, slots=True)
class Attack:
    """Somebody tries something.  ``by`` is "BIOS" or "OS"."""

    name: str
    by: str
    tries: str
    run: Callable[[], Attempt]


def _chain(breaks: str) -> Attempt:
    result = run_boot(make_boot(TWO), breaks=[breaks])
    last = result.records[-1]
    gain = Gain.RESET if isinstance(last.answer, TxtShutdown) else Gain.NOTHING
    return Attempt(str(last.answer), last.answer.clause, gain)


def _ready_flag() -> Attempt:
    platform = run_boot(make_boot(TWO), until="seamrr").platform
    outcome = msr.wrmsr(platform, 0, msr.SEAMEXTEND_MSR, 0x100000)
    return _of(outcome, Gain.NOTHING if not platform.P_SEAMLDR_READY else Gain.UNKNOWN)


def _of(outcome: Done | Fault, gain: Gain) -> Attempt:
    return Attempt(str(outcome), outcome.clause, gain)


def _own_loader_in_memory() -> Attempt:
    """Before SEAMRR is valid it is ordinary memory: fill it, then let the chain go on."""
    b = make_boot(TWO)
    run_boot(b, until="tme")
    planted = b"\xeb\xfe" * 0x1000
    b.platform.store(Agent.HOST, 0x7FC00000, planted)
    result = run_boot(b, start="seamrr")
    left = b.platform.bytes_at(Agent.CPU, 0x7FC00000, len(planted))
    wiped = result.stopped_at is None and left[:4096] == bytes(4096) and planted[:64] not in left
    return Attempt("wiped by NP-SEAMLDR", "NP_SEAMLDR.wipe", Gain.NOTHING if wiped else Gain.UNKNOWN)


def _call_before_launch() -> Attempt:
    b = make_boot(TWO)
    run_boot(b, until="place")
    for id in b.platform.lps:
        send_sipi(b.platform, id)
    run_boot(b, start="vmxon", until="vmxon")
    called = seamldr_info(b.platform, 0)
    return Attempt(str(called), called.clause, Gain.NOTHING)


def _swap_after_load() -> Attempt:
    b = make_boot(TWO)
    run_boot(b, until="enteraccs")
    b.platform.store(Agent.DMA, ACM_ADDRESS, b"\xcc" * len(b.acm))
    result = run_boot(b, start="np-seamldr")
    held = b.platform.p_seamldr_range
    assert held is not None
    image = parse_acm(b.acm).image
    loaded = b.platform.load(Agent.CPU, held.end - 0x1000 - len(image), 64)
    genuine = result.stopped_at is None and loaded == image[:64]
    return Attempt("the copy in ACRAM runs", "SMX.fetch", Gain.NOTHING if genuine else Gain.UNKNOWN)


def _move_locked() -> Attempt:
    platform = boot(TWO)
    return _of(msr.wrmsr(platform, 0, msr.SEAMRR_BASE, 0x40000008), Gain.NOTHING)


def _open_locked() -> Attempt:
    platform = boot(TWO)
    mask = platform.msr_value(platform.lp(0), msr.SEAMRR_MASK)
    return _of(msr.wrmsr(platform, 0, msr.SEAMRR_MASK, mask & ~msr.SEAMRR_VALID), Gain.NOTHING)


def _forged_table() -> Attempt:
    """VALID by BIOS's own hand, and a table that MCHECK never saw."""
    from seamref.arch.memory import Range

    b = make_boot(TWO, valid=True)
    b.skip_mcheck = True
    run_boot(b, until="tme")
    forged = system_information(b.platform, Range(0x7FC00000, 0x400000))
    b.platform.store(Agent.HOST, 0x7FFFF000, forged)
    result = run_boot(b, start="seamrr", until="np-seamldr")
    return Attempt(str(result.records[-1].answer), "P_SEAMLDR_CVP", Gain.UNKNOWN)


def _stale_at_boot() -> Attempt:
    platform = boot(TWO, acm=default_acm(1))
    read_info(platform)
    status = msr.rdmsr(platform, 0, 0x500)
    return Attempt(f"boots; IA32_SGX_SVN_STATUS = {status:#x}", "NP_SEAMLDR.se_svn", Gain.VISIBLE)


def _never_launch() -> Attempt:
    attempt = _call_before_launch()
    return Attempt(f"SEAMLDR.INFO: {attempt.answer}", attempt.clause, Gain.DENIAL)


# --- the operating system


def _guess_leaf() -> Attempt:
    platform = boot(TWO)
    answers = {str(seamldr_call(platform, 0, 1 << 63 | 1 << i, 0x3000000)) for i in range(2, 63)}
    return Attempt("61 leaves: " + ", ".join(sorted(answers)), "NP_SEAMLDR.not_callable", Gain.NOTHING)


def _late_in_vmx() -> Attempt:
    platform = boot(TWO)
    platform.lp(0).cr4 |= CR4_SMXE
    return _entry(enteraccs(platform, 0, ACM_ADDRESS, len(default_acm())))


def _entry(outcome: object) -> Attempt:
    clause = getattr(outcome, "clause", "")
    return Attempt(str(outcome), clause, Gain.RESET if isinstance(outcome, TxtShutdown) else Gain.NOTHING)


def _late_others_run() -> Attempt:
    platform = boot(TWO)
    platform.lp(0).cr4 |= CR4_SMXE
    vmxoff(platform, 0)
    return _entry(enteraccs(platform, 0, ACM_ADDRESS, len(default_acm())))


def _late_ready() -> Attempt:
    return _entry(relaunch(boot(TWO, module=True), default_acm())[-1].answer)


def _other_lp() -> Attempt:
    platform = boot(TWO, module=True)
    shut_down_loader(platform)
    return _entry(relaunch(platform, default_acm(), lp_id=2)[-1].answer)


def _stale_late() -> Attempt:
    platform = boot(TWO, module=True)
    shut_down_loader(platform)
    return _entry(relaunch(platform, default_acm(3))[-1].answer)


def _read_seam() -> Attempt:
    platform = boot(TWO, module=True)
    seen = {
        agent: platform.load(agent, at, 64, platform.lp(0))
        for agent in (Agent.HOST, Agent.GUEST, Agent.SMM, Agent.DMA) for at in (0x7C000000, 0x7FC01000)
    }
    quiet = all(data == b"\xff" * 64 for data in seen.values())
    return Attempt("all ones" if quiet else "something else", "MEMORY.denied", Gain.NOTHING if quiet else Gain.UNKNOWN)


def _write_seam() -> Attempt:
    platform = boot(TWO, module=True)
    before = platform.load(Agent.CPU, 0x7FC01000, 64)
    platform.store(Agent.HOST, 0x7FC01000, b"\xcc" * 64)
    platform.store(Agent.DMA, 0x7FC01000, b"\xcc" * 64)
    kept = platform.load(Agent.CPU, 0x7FC01000, 64) == before
    return Attempt("writes dropped", "MEMORY.denied", Gain.NOTHING if kept else Gain.UNKNOWN)


def _private_alias() -> Attempt:
    platform = boot(TWO, module=True)
    outcome = platform.load(Agent.HOST, platform.with_keyid(0x7FC01000, 33), 64)
    if not isinstance(outcome, Fault):
        raise SeamrefError("a private KeyID outside SEAM was let through")
    return Attempt(str(outcome), outcome.clause, Gain.NOTHING)


def _dma_in_the_window() -> Attempt:
    """While NP-SEAMLDR has VALID = 0 on its core, a device reads P_SEAMLDR_RANGE."""
    b = make_boot(TWO)
    run_boot(b, until="enteraccs")
    _step_to(b.platform, 0, "map code")
    return _seen(b.platform.load(Agent.DMA, 0x7FFEC000, 64), "MEMORY.dma_range")


def _seen(data: bytes | Fault, clause: str) -> Attempt:
    quiet = data == b"\xff" * 64
    return Attempt("all ones" if quiet else "the image", clause, Gain.NOTHING if quiet else Gain.UNKNOWN)


def _other_core_in_the_window() -> Attempt:
    b = make_boot(TWO)
    run_boot(b, until="enteraccs")
    _step_to(b.platform, 0, "map code")
    other = b.platform.lp(2)
    data = b.platform.load(Agent.HOST, 0x7FFEC000, 64, other)
    _, clause = b.platform.judge(Agent.HOST, 0x7FFEC000, 64, False, other)
    return _seen(data, clause)


def _step_to(platform: Platform, lp_id: int, name: str) -> None:
    while True:
        state: NpState | None = platform.lp(lp_id).program_state
        if state is not None and state.next == step_index(name):
            return
        step_acm(platform, lp_id)


def _two_at_once() -> Attempt:
    """Two bootstrap processors by IA32_APIC_BASE, the second inside the window in which the mutex is already clear."""
    b = make_boot(TWO)
    run_boot(b, until="enteraccs")
    _step_to(b.platform, 0, "map keyholes")
    msr.wrmsr(b.platform, 2, 0x1B, msr.MSRS[0x1B].bit("bsp").mask | 0xFEE00C00)
    if not isinstance(launch(b.platform, 2, len(b.acm)), EnteredAc):
        raise SeamrefError("the second launcher did not enter")
    second, first = np_seamldr.run(b.platform, 2), np_seamldr.run(b.platform, 0)
    run_boot(b, start="resume", until="resume")
    platform = b.platform
    platform.lp(2).activity = platform.lp(0).activity
    from seamref.arch.lab import start_vmx

    start_vmx(platform, 0)
    called = seamldr_info(platform, 0)
    said = f"{_short(second)} and {_short(first)}; the first call: {called}"
    return Attempt(said, "NP_SEAMLDR.wipe", Gain.DENIAL if not isinstance(called.run, Left) else Gain.UNKNOWN)


def _short(outcome: Returned | TxtShutdown) -> str:
    return outcome.status.name if isinstance(outcome, Returned) else str(outcome)


def _only_shut_down() -> Attempt:
    platform = boot(TWO, module=True)
    answers = [r.answer for r in shut_down_loader(platform)]
    stopped = [a for a in answers if isinstance(a, Called) and did_stop(a)]
    after = seamldr_info(platform, 0)
    return Attempt(f"{len(answers) - len(stopped)} calls succeed; then {after}", after.clause, Gain.DENIAL)


def _reset_lp_identity() -> Attempt:
    """A launch that fails after the wipe forgets the processor; the next may come from anywhere."""
    from seamref import mint
    from seamref.mint.elf import Relocation

    platform = boot(TWO, module=True)
    shut_down_loader(platform)
    bad = mint.acm(mint.pseamldr_image(relocations=[Relocation(0x1000, 0x10, info=1)]))
    first = relaunch(platform, bad)[-1].answer
    second = relaunch(platform, default_acm(5), lp_id=2)[-1].answer
    info = read_info(platform, 2)
    install(platform)
    valid = P_SYS_INFO_TABLE.peek(platform.bytes_at(Agent.CPU, 0x7FFFF000, 4096), "acm_x2apicid_valid")
    said = f"{first}; then {second} on processor {info.acm_x2apic} (valid = {valid})"
    return Attempt(said, "NP_SEAMLDR.wipe", Gain.NOTHING)


ATTACKS: tuple[Attack, ...] = (
    Attack("own-signature", "BIOS", "a P-SEAMLDR of its own in a module that it signs itself",
           lambda: _chain("other-signer")),
    Attack("patched-image", "BIOS", "one bit of the genuine module's P-SEAMLDR changed", lambda: _chain("bit-flipped")),
    Attack("swap", "BIOS", "the module exchanged by DMA right after ENTERACCS", _swap_after_load),
    Attack("plant", "BIOS", "its own code in P_SEAMLDR_RANGE before SEAMRR is valid", _own_loader_in_memory),
    Attack("no-launch", "BIOS", "a SEAMCALL to what it planted, without any launch", _call_before_launch),
    Attack("ready-flag", "BIOS", "WRMSR IA32_SEAMEXTEND to declare P-SEAMLDR ready", _ready_flag),
    Attack("two-ranges", "BIOS", "another SEAMRR in the second package", lambda: _chain("package-differs")),
    Attack("left-unlocked", "BIOS", "SEAMRR left unlocked, to move it later", lambda: _chain("unlocked")),
    Attack("move", "BIOS", "SEAMRR moved after the lock", _move_locked),
    Attack("open", "BIOS", "VALID cleared after the lock", _open_locked),
    Attack("forged-table", "BIOS", "VALID set by itself, and a P_SYS_INFO_TABLE that MCHECK never saw", _forged_table),
    Attack("stale-at-boot", "BIOS", "an old, genuine module", _stale_at_boot),
    Attack("do-nothing", "BIOS", "no launch at all", _never_launch),
    Attack("leaves", "OS", "61 more SEAMCALL leaves with RAX[63] = 1, to find NP-SEAMLDR", _guess_leaf),
    Attack("late-in-vmx", "OS", "ENTERACCS as it is", _late_in_vmx),
    Attack("late-others-run", "OS", "ENTERACCS after VMXOFF on this processor only", _late_others_run),
    Attack("late-ready", "OS", "a proper launch while P-SEAMLDR is loaded", _late_ready),
    Attack("other-lp", "OS", "SHUTDOWN everywhere, then a launch on another processor", _other_lp),
    Attack("forget-lp", "OS", "a genuine module that fails after the wipe, then another processor", _reset_lp_identity),
    Attack("stale-late", "OS", "SHUTDOWN everywhere, then an older module", _stale_late),
    Attack("read", "OS", "reads of SEAM memory: host, guest, SMM, DMA", _read_seam),
    Attack("write", "OS", "writes to P-SEAMLDR's transfer VMCS: host, DMA", _write_seam),
    Attack("private-keyid", "OS", "the same memory under a private KeyID", _private_alias),
    Attack("window-core", "OS", "reads from another core while NP-SEAMLDR has SEAMRR open", _other_core_in_the_window),
    Attack("window-dma", "OS", "DMA while NP-SEAMLDR has SEAMRR open", _dma_in_the_window),
    Attack("two-at-once", "OS", "two launches at once, the second after the wipe", _two_at_once),
    Attack("shutdown", "OS", "SEAMLDR.SHUTDOWN on every processor, and nothing else", _only_shut_down),
)
"""The attempts, BIOS's first."""


def get_attack(name: str) -> Attack:
    """An attack by name; an unknown name is an error that lists the known ones."""
    for attack in ATTACKS:
        if attack.name == name:
            return attack
    raise SeamrefError(f"no attack {name!r}; there are {', '.join(a.name for a in ATTACKS)}")


__all__ = ["ATTACKS", "Attack", "Attempt", "Gain", "get_attack"]
