"""BIOS, as far as SEAM needs it: memory encryption, SEAMRR on every core, BIOS_DONE.

Everything goes through WRMSR on the processor that it is for, so that a mistake gets the processor's answer: #GP(0)
for reserved bits and for what is locked.  What no WRMSR refuses, MCHECK has to find.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from seamref.arch import msr
from seamref.arch.outcome import Done, Fault
from seamref.arch.smx import park_others
from seamref.arch.trace import Step
from seamref.errors import SeamrefError
from seamref.firmware.mcheck import CONFIGURED, FIELD, LOCK, P_SEAMLDR_RANGE_SIZE
from seamref.spec import CHOSEN, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

COMPONENT = "BIOS"
MIB32 = 0x2000000
TME_LOCK, TME_ENABLE, TME_ALGORITHMS = 1, 2, 0b11 << 48
"""IA32_TME_ACTIVATE: BIOS activates AES-XTS-128 without and with integrity; a TDX module asks for one with integrity
(without, where access control protects memory alone)."""
SEAMRR_DEFAULT_BASE, SEAMRR_DEFAULT_SIZE = 0x7C000000, 0x4000000
SMRR_DEFAULT_BASE, SMRR_DEFAULT_SIZE = 0x80000000, 0x800000
SMRR_WB, SMRR_LOCK_VALID = 6, 0xC00


@dataclass(frozen=True, slots=True)
class Setup:
    """What the BIOS of one platform is set up to do.

    ``seamrr_base``, ``seamrr_size``   bytes
    ``keyid_bits``, ``tdx_keyid_bits`` k and p of IA32_TME_ACTIVATE
    ``lock``, ``configured``           whether BIOS sets these bits; ``valid``: whether it sets VALID itself
    ``mask``                           the mask field, where it should not be the one that belongs to the size
    ``packages``                       package -> (base MSR, mask MSR), where one is to be programmed differently
    ``p_seamldr_range_size``           bytes
    ``bios_done``                      whether BIOS_DONE is set in the end
    ``smrr_base``, ``smrr_size``       bytes, outside every CMR; size 0: BIOS leaves SMRR alone
    """

    seamrr_base: int = SEAMRR_DEFAULT_BASE
    seamrr_size: int = SEAMRR_DEFAULT_SIZE
    keyid_bits: int = 6
    tdx_keyid_bits: int = 1
    lock: bool = True
    configured: bool = True
    valid: bool = False
    mask: int | None = None
    packages: Mapping[int, tuple[int, int]] = field(default_factory=dict)
    p_seamldr_range_size: int = P_SEAMLDR_RANGE_SIZE
    bios_done: bool = True
    smrr_base: int = SMRR_DEFAULT_BASE
    smrr_size: int = SMRR_DEFAULT_SIZE

    def seamrr_msrs(self, platform: Platform, package: int = 0) -> tuple[int, int]:
        """Values for IA32_SEAMRR_PHYS_BASE and IA32_SEAMRR_PHYS_MASK."""
        if package in self.packages:
            return self.packages[package]
        if self.seamrr_size <= 0 or self.seamrr_size & (self.seamrr_size - 1):
            raise SeamrefError(f"Setup.seamrr_size: 0x{self.seamrr_size:X}, a mask can only describe a power of two")
        mask = self.mask
        if mask is None:
            mask = ((1 << platform.config.maxpa) - 1) & ~(self.seamrr_size - 1) & FIELD
        configured = CONFIGURED if self.configured and platform.revision.base_bit3_configured else 0
        return self.seamrr_base | configured, mask | self.lock * LOCK | self.valid << 11


@implements("BIOS.park", "all processors but the bootstrap processor wait for a SIPI", "SDM vol. 3A ch. 10")
def park_processors(platform: Platform, setup: Setup) -> Done:
    """BIOS.park: INIT to all others."""
    park_others(platform, platform.lps[0])
    return Done("BIOS.park")


@implements("BIOS.tme", "WRMSR IA32_TME_ACTIVATE in each package: enable, k KeyID bits, p of them for TDX; it locks",
            "TME section 4")
def activate_memory_encryption(platform: Platform, setup: Setup) -> Done | Fault:
    """BIOS.tme: the first fault ends it."""
    value = TME_LOCK | TME_ENABLE | setup.keyid_bits << 32 | setup.tdx_keyid_bits << 36 | TME_ALGORITHMS
    seen: set[int] = set()
    for id in platform.lps:
        package = platform.peek_lp(id).package
        if package not in seen:
            seen.add(package)
            outcome = msr.wrmsr(platform, id, msr.TME_ACTIVATE, value)
            if isinstance(outcome, Fault):
                return outcome
    return Done("BIOS.tme")


@implements("BIOS.smrr", "IA32_SMRR_PHYSBASE and PHYSMASK, VALID and LOCK, on every core; TDH.SYS.INIT insists on it",
            "SDM vol. 3C ch. 32; TDXM tdh_sys_init.c")
def lock_smrr(platform: Platform, setup: Setup) -> Done | Fault:
    """BIOS.smrr: the first fault ends it."""
    if setup.smrr_size == 0:
        return Done("BIOS.smrr")
    mask = ((1 << 32) - setup.smrr_size) | SMRR_LOCK_VALID
    for id in platform.lps:
        for address, value in ((msr.SMRR_BASE, setup.smrr_base | SMRR_WB), (msr.SMRR_MASK, mask)):
            outcome = msr.wrmsr(platform, id, address, value)
            if isinstance(outcome, Fault):
                return outcome
    return Done("BIOS.smrr")


@implements("BIOS.seamrr", "WRMSR base with CONFIGURED, mask with LOCK on every core alike", "X2 SEAMRR")
def program_seamrr(platform: Platform, setup: Setup) -> Done | Fault:
    """BIOS.seamrr: the first fault ends it; VALID is left to MCHECK."""
    for id in platform.lps:
        base, mask = setup.seamrr_msrs(platform, platform.peek_lp(id).package)
        for address, value in ((msr.SEAMRR_BASE, base), (msr.SEAMRR_MASK, mask)):
            outcome = msr.wrmsr(platform, id, address, value)
            if isinstance(outcome, Fault):
                return outcome
    return Done("BIOS.seamrr")


@implements("BIOS.done", "BIOS_DONE[0] := 1 when BIOS has nothing left to protect; that the bit gates NP-SEAMLDR is "
            "measured, that BIOS is who sets it is chosen", "NPS CodeStart.nasm", CHOSEN)
def say_bios_done(platform: Platform, setup: Setup) -> Done | Fault:
    """BIOS.done: NP-SEAMLDR refuses to run before it."""
    if not setup.bios_done:
        return Done("BIOS.done")
    return msr.wrmsr(platform, platform.lps[0], msr.BIOS_DONE, 1)


def tell(platform: Platform, name: str, detail: str = "") -> None:
    """Tell the listeners what BIOS does."""
    if platform.listeners:
        platform.emit(Step(platform.lps[0], COMPONENT, name, detail))
