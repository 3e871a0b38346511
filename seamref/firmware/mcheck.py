"""MCHECK: the microcode that looks at what BIOS programmed on every core, and only then makes SEAMRR valid.

Public documents say what MCHECK is for and which table it leaves; they do not list its checks.  The rows below are
what the architecture needs to hold, in a *chosen* order; that it is MCHECK which sets VALID is chosen by analogy with
SGX, where open-source firmware asks whether "MCHECK approved" the range by reading the VALID bit of PRMRR's mask.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from seamref.arch import msr
from seamref.arch.cpuid import cpuid
from seamref.arch.memory import Agent, Range
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.arch.trace import MsrWritten, Step
from seamref.spec import CHOSEN, Check, CheckTable, implements

if TYPE_CHECKING:
    from seamref.arch.lp import Lp
    from seamref.arch.platform import Platform

PAGE = 0x1000
P_SEAMLDR_RANGE_SIZE = 0x400000
"""Bytes of P_SEAMLDR_RANGE (chosen; public sources leave it to the platform)."""

FIELD = 0xFFFFFFFE000000
LOCK, VALID, CONFIGURED = 1 << 10, 1 << 11, 1 << 3
MAX_CMRS = 32
MCHECK_HALF = 2048
"""Bytes of P_SYS_INFO_TABLE that MCHECK owns."""


@dataclass(frozen=True, slots=True)
class McheckState:
    """What MCHECK looks at: every core's SEAMRR MSRs, every package's IA32_TME_ACTIVATE, the memory map."""

    platform: Platform
    p_seamldr_range_size: int

    def values(self, address: int) -> list[int]:
        """An MSR's value on every processor."""
        return [self.platform.msr_value(lp, address) for lp in self.platform.every_lp()]

    @property
    def base(self) -> int:
        """Base that the first processor's MSR holds."""
        return self.values(msr.SEAMRR_BASE)[0] & FIELD & self.address_bits

    @property
    def mask(self) -> int:
        """Mask field of the first processor's MSR."""
        return self.values(msr.SEAMRR_MASK)[0] & FIELD

    @property
    def address_bits(self) -> int:
        return (1 << self.platform.config.maxpa) - 1

    @property
    def size(self) -> int:
        """Lowest set bit of the mask."""
        return self.mask & -self.mask

    def is_contiguous(self) -> bool:
        """Whether the mask is ones from its lowest set bit up to MAXPHYADDR."""
        return self.size != 0 and self.mask == self.address_bits & ~(self.size - 1)


@dataclass(frozen=True, slots=True)
class Approved:
    """SEAMRR is valid on every core; the table is written."""

    seamrr: Range
    p_seamldr_range: Range
    clause: str = "MCHECK.approve"

    def __str__(self) -> str:
        return f"approved SEAMRR 0x{self.seamrr.base:X}, 0x{self.seamrr.size:X} bytes"


@dataclass(frozen=True, slots=True)
class NotApproved:
    """VALID stays 0 on every core."""

    why: str
    clause: str

    def __str__(self) -> str:
        return f"not approved: {self.why}"


def _uneven(c: McheckState, address: int) -> bool:
    return len(set(c.values(address))) > 1


_SRC = "SEAMREF errata"

MCHECK: CheckTable[McheckState, str] = CheckTable("MCHECK", (
    Check("MCHECK.seam", "the processor has no SEAMRR (IA32_MTRRCAP[15] = 0)",
          lambda c: not all(msr.bits(msr.MTRRCAP, "seamrr").get(v) for v in c.values(msr.MTRRCAP)), "no SEAM", _SRC,
          CHOSEN),
    Check("MCHECK.configured", "IA32_SEAMRR_PHYS_BASE.CONFIGURED is 0 on some core",
          lambda c: c.platform.revision.base_bit3_configured
          and not all(v & CONFIGURED for v in c.values(msr.SEAMRR_BASE)),
          "SEAMRR not configured on every core", _SRC, CHOSEN),
    Check("MCHECK.lock", "IA32_SEAMRR_PHYS_MASK.LOCK is 0 on some core",
          lambda c: not all(v & LOCK for v in c.values(msr.SEAMRR_MASK)), "SEAMRR not locked on every core", _SRC,
          CHOSEN),
    Check("MCHECK.same_base", "IA32_SEAMRR_PHYS_BASE differs between cores", lambda c: _uneven(c, msr.SEAMRR_BASE),
          "bases differ", "X2 SEAMRR", CHOSEN),
    Check("MCHECK.same_mask", "IA32_SEAMRR_PHYS_MASK differs between cores", lambda c: _uneven(c, msr.SEAMRR_MASK),
          "masks differ", "X2 SEAMRR", CHOSEN),
    Check("MCHECK.mask",
          "the mask is not ones up to MAXPHYADDR from its lowest set bit", lambda c: not c.is_contiguous(),
          "mask is not contiguous", _SRC, CHOSEN),
    Check("MCHECK.base", "the base is not a multiple of the size", lambda c: bool(c.base & (c.size - 1)),
          "base not aligned to size", _SRC, CHOSEN),
    Check("MCHECK.tme", "IA32_TME_ACTIVATE is not locked in some package, or differs between packages",
          lambda c: not all(v & 1 for v in c.values(msr.TME_ACTIVATE)) or _uneven(c, msr.TME_ACTIVATE),
          "memory encryption differs between packages", _SRC, CHOSEN),
    Check("MCHECK.range", "P_SEAMLDR_RANGE is no whole number of pages, or leaves no room in SEAMRR",
          lambda c: bool(c.p_seamldr_range_size % PAGE) or not 0 < c.p_seamldr_range_size < c.size,
          "P_SEAMLDR_RANGE does not fit", _SRC, CHOSEN),
    Check("MCHECK.cmrs", "more than 32 convertible memory ranges, or one that is no whole number of pages",
          lambda c: len(c.platform.config.cmrs) > MAX_CMRS
          or any(base % PAGE or size % PAGE for base, size in c.platform.config.cmrs),
          "convertible memory ranges", _SRC, CHOSEN),
), "MCHECK's consistency checks (chosen): what stops leaves VALID at 0 everywhere.")


def mcheck(platform: Platform, lp_id: int, p_seamldr_range_size: int = P_SEAMLDR_RANGE_SIZE) -> Approved | NotApproved:
    """MCHECK on behalf of the platform: check every core, then write the table and set VALID."""
    state = McheckState(platform, p_seamldr_range_size)
    row = MCHECK.decide(state, platform.revision)
    outcome: Approved | NotApproved
    outcome = NotApproved(row.result, row.id) if row is not None else _approve(platform, platform.lp(lp_id), state)
    if platform.listeners:
        platform.emit(Step(lp_id, "MCHECK", str(outcome), outcome.clause))
    return outcome


@implements("MCHECK.approve", "the low half of P_SYS_INFO_TABLE is written (the high half stays), the hardware learns "
            "P_SEAMLDR_RANGE, VALID := 1 on every core", "NPS NpSeamldrApi.h; OTX arch/x86/kvm/vmx/seam.c", CHOSEN)
def _approve(platform: Platform, lp: Lp, state: McheckState) -> Approved:
    """MCHECK.approve: P_SEAMLDR_RANGE is the top of SEAMRR."""
    seamrr = Range(state.base, state.size)
    held = Range(seamrr.end - state.p_seamldr_range_size, state.p_seamldr_range_size)
    platform.store(Agent.CPU, seamrr.end - PAGE, system_information(platform, held)[:MCHECK_HALF], lp)
    platform.p_seamldr_range = held
    for id in platform.lps:
        core = platform.lp(id)
        mask = platform.msr_value(core, msr.SEAMRR_MASK) | VALID
        platform.set_msr(core, msr.SEAMRR_MASK, mask)
        if platform.listeners:
            platform.emit(MsrWritten(id, msr.SEAMRR_MASK, mask))
    return Approved(seamrr, held)


@implements("MCHECK.table", "version 0, processors, sockets, CPUID.1:EAX of each, P_SEAMLDR_RANGE, convertible memory",
            "NPS NpSeamldrApi.h; PSL pseamldr_data_types.h")
def system_information(platform: Platform, p_seamldr_range: Range) -> bytes:
    """MCHECK.table: the 4096 bytes of P_SYS_INFO_TABLE with only MCHECK's half filled in."""
    config = platform.config
    first_of: dict[int, Lp] = {}
    for lp in platform.every_lp():
        first_of.setdefault(lp.package, lp)
    record = P_SYS_INFO_TABLE.new(
        tot_num_lps=len(platform.lps),
        tot_num_sockets=config.topology.sockets,
        socket_cpuid_table=[cpuid(platform, lp, 1).eax for lp in first_of.values()],
        p_seamldr_range_base=p_seamldr_range.base,
        p_seamldr_range_size=p_seamldr_range.size,
        tdx_ac=int(platform.revision.integrity.name == "AC"),
        cmr=[{"base": base, "size": size} for base, size in config.cmrs],
    )
    return record.encode()
