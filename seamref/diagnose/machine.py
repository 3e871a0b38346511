"""The machine asked instead of a rule of thumb: a platform gets the registers that were read; where does it stop?"""

from __future__ import annotations

from dataclasses import dataclass, replace

from seamref.arch import lab, msr
from seamref.arch.outcome import Fault
from seamref.arch.seam import seamcall
from seamref.errors import SeamrefError
from seamref.firmware.mcheck import MCHECK, McheckState
from seamref.host.abi import Leaf

LOCK_AND_VALID = 0xC00
KEYID_LIMIT = 15


@dataclass(frozen=True, slots=True)
class Ran:
    """What the machine did, and the clause that decided."""

    did: str
    clause: str
    stopped: bool


def run_seamcall(valid: bool) -> Ran:
    """SEAMCALL[TDH.SYS.INIT] in VMX root on a processor whose IA32_SEAMRR_PHYS_MASK.VALID is as read."""
    platform = lab.platform()
    for id in platform.lps:
        lp = platform.lp(id)
        mask = platform.msr_value(lp, msr.SEAMRR_MASK) & ~(1 << 11) | int(valid) << 11
        platform.set_msr(lp, msr.SEAMRR_MASK, mask)
    first = platform.lp(platform.lps[0])
    first.rax = int(Leaf.TDH_SYS_INIT)
    outcome = seamcall(platform, first.id)
    if isinstance(outcome, Fault):
        return Ran(f"SEAMCALL: {outcome}", outcome.clause, True)
    return Ran("SEAMCALL passes the row on SEAMRR", "SEAMCALL.seamrr", False)


def run_mcheck(base: int, mask: int, tme: int | None) -> Ran | None:
    """MCHECK's rows over the SEAMRR registers as read; ``None`` when they are no range at all.

    The rows are this book's choice: Intel's are not public.
    """
    top = (base | mask).bit_length()
    if not 32 <= top <= 52:
        return None
    platform = lab.platform()
    platform.config = replace(platform.config, maxpa=top)
    for id in platform.lps:
        lp = platform.lp(id)
        platform.set_msr(lp, msr.SEAMRR_BASE, base)
        platform.set_msr(lp, msr.SEAMRR_MASK, mask & ~(1 << 11))
        if tme is not None:
            platform.set_msr(lp, msr.TME_ACTIVATE, tme)
    row = MCHECK.decide(McheckState(platform, lab.P_SEAMLDR_RANGE.size), platform.revision)
    return Ran("MCHECK approves these registers", "MCHECK.approve", False) if row is None else Ran(
        f"MCHECK: {row.says}", row.id, True)


def run_partitioning(activate: int) -> tuple[int, int] | None:
    """The KeyIDs (shared, TDX private) that a part with this IA32_TME_ACTIVATE reports; ``None``: no part takes it."""
    from seamref.arch.platform import Platform, PlatformConfig

    k = activate >> 32 & 0xF
    try:
        platform = Platform(PlatformConfig(max_keyid_bits=min(max(k, 1), KEYID_LIMIT)))
    except SeamrefError:
        return None
    outcome = msr.wrmsr(platform, platform.lps[0], msr.TME_ACTIVATE, activate & ~0x0000FF007FFFFE00 & (1 << 64) - 1)
    if isinstance(outcome, Fault):
        return None
    value = msr.rdmsr(platform, platform.lps[0], msr.KEYID_PARTITIONING)
    return None if isinstance(value, Fault) else (value & 0xFFFFFFFF, value >> 32)
