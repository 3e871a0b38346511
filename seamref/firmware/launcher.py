"""Whoever launches NP-SEAMLDR: BIOS at boot, an operating system for an update.  Untrusted by everything behind it.

The launcher brings the platform into the state that GETSEC[ENTERACCS] wants, gives the resume address in registers,
and afterwards repairs the processor, of which the module leaves little intact.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seamref.arch import msr
from seamref.arch.lp import CR4_SMXE, GPRS, Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Fault
from seamref.arch.smx import EnteraccsOutcome, enteraccs, send_sipi
from seamref.spec import MEASURED, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

ACM_ADDRESS = 0x2000000
"""Where launchers here put the module: 4 KiB aligned, below 4 GiB, outside SEAMRR."""

_KEPT = (
    *(r for r in GPRS if r != "r9"), "rip", "rflags", "cr0", "cr3", "cr4", "dr7", "debugctl", "efer", "pat", "cs_l",
    "gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit",
    "cs_selector", "ds_selector", "es_selector", "ss_selector", "fs_selector", "gs_selector",
)
_LNX = "LNXE arch/x86/kvm/boot/seam/seamldr.S"


@dataclass(frozen=True, slots=True)
class Kept:
    """What the launcher saved of its processor."""

    values: tuple[tuple[str, Any], ...]
    misc_enable: int


def place_module(platform: Platform, acm: bytes, at: int = ACM_ADDRESS) -> Fault | None:
    """Copy the module into memory, as any untrusted software does."""
    return platform.store(Agent.HOST, at, acm.ljust(-(-len(acm) // 64) * 64, b"\0"))


@implements("LAUNCH.enter",
            "EAX=2, EBX base, ECX size; R9 GDT base, R10 resume RIP, R11 CR3, R12 IDT base; CR4.SMXE", _LNX,
            MEASURED)
def launch(platform: Platform, lp_id: int, size: int, at: int = ACM_ADDRESS, **registers: int) -> EnteraccsOutcome:
    """LAUNCH.enter: GETSEC[ENTERACCS] with NP-SEAMLDR's register interface; ``registers`` override it."""
    lp = platform.lp(lp_id)
    lp.cr4 |= CR4_SMXE
    lp.rbx, lp.rcx, lp.r8 = at, -(-size // 64) * 64, 0
    lp.r9, lp.r10, lp.r11, lp.r12 = lp.gdtr_base, lp.rip + 2, lp.cr3, lp.idtr_base
    for name, value in registers.items():
        setattr(lp, name, value)
    return enteraccs(platform, lp_id)


def keep_state(platform: Platform, lp: Lp) -> Kept:
    """Save what the launch destroys."""
    return Kept(tuple((name, getattr(lp, name)) for name in _KEPT), platform.msr_value(lp, msr.MISC_ENABLE))


@implements("LAUNCH.repair",
            "CR0, CR4, EFER, PAT, DR7, DEBUGCTL, MISC_ENABLE, stack, segments and registers come back by "
            "hand; only R9 says something", _LNX, MEASURED)
def repair(platform: Platform, lp: Lp, kept: Kept) -> int:
    """LAUNCH.repair: restore the processor at the resume RIP; the status that R9 held."""
    status = lp.r9
    for name, value in kept.values:
        setattr(lp, name, value)
    platform.set_msr(lp, msr.MISC_ENABLE, kept.misc_enable)
    return status


def wake_others(platform: Platform) -> None:
    """SIPI to every processor that waits for one."""
    for id in platform.lps:
        send_sipi(platform, id)
