"""Who may touch which physical address.

Every access says who makes it.  The SEAMRR, P_SEAMLDR_RANGE and private-KeyID rules are one ordered table; what
is let through then meets the memory-integrity rules (HWL) of the KeyID the line was written with.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, NamedTuple

from seamref.arch.lp import Lp
from seamref.arch.outcome import Fault, Vector
from seamref.arch.revision import Denied, Integrity
from seamref.spec import CHOSEN, STATED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class Agent(Enum):
    """Who makes an access."""

    HOST = "legacy VMX root, or outside VMX"
    GUEST = "legacy VMX non-root"
    SMM = "system management mode"
    DMA = "a device"
    MODULE = "TDX module (SEAM root, inP_SEAMLDR=0)"
    P_SEAMLDR = "P-SEAMLDR (SEAM root, inP_SEAMLDR=1)"
    TD = "TD (SEAM non-root)"
    ACM = "authenticated code module"
    CPU = "the processor itself (transfer VMCS, SEAMEXTEND buffer)"


def get_agent(lp: Lp) -> Agent:
    """Who a processor's data accesses are, by its mode."""
    if lp.in_smm:
        return Agent.SMM
    if lp.ACMODEFLAG:
        return Agent.ACM
    if lp.inSEAM:
        if lp.non_root:
            return Agent.TD
        return Agent.P_SEAMLDR if lp.inP_SEAMLDR else Agent.MODULE
    return Agent.GUEST if lp.non_root else Agent.HOST


class Range(NamedTuple):
    """[base, base + size) in bytes."""

    base: int
    size: int

    @property
    def end(self) -> int:
        return self.base + self.size

    def overlaps(self, at: int, size: int) -> bool:
        """Whether any byte of [at, at + size) is inside."""
        return at < self.base + self.size and at + size > self.base


class Verdict(Enum):
    """What becomes of an access."""

    ALLOWED = "allowed"
    ABORTED = "aborted: reads all ones, writes dropped"
    RESERVED_BIT = "reserved physical-address bit"
    DENIED = "inside SEAM memory"


SEAM_AGENTS = frozenset({Agent.MODULE, Agent.P_SEAMLDR, Agent.TD})
_LEGACY_SOFTWARE = (Agent.HOST, Agent.GUEST, Agent.SMM, Agent.ACM)


@dataclass(slots=True, eq=False)  # not frozen: one is made for each access
class Access:
    """What the memory checks look at: ``address`` with its KeyID bits, ``plain`` without."""

    platform: Platform
    agent: Agent
    lp: Lp
    address: int
    plain: int
    keyid: int
    size: int
    write: bool

    @property
    def private(self) -> bool:
        """Whether the KeyID is a TDX private one."""
        return self.platform.is_private(self.keyid)

    @property
    def seamrr(self) -> Range | None:
        """SEAMRR as the accessing core sees it, ``None`` while VALID is 0; for a device see MEMORY.dma_range."""
        if self.agent is Agent.DMA and self.platform.p_seamldr_range is not None:
            return _dma_range(self.lp)
        return self.platform.seamrr(self.lp)

    def in_p_seamldr_range(self) -> bool:
        """Whether the access touches P_SEAMLDR_RANGE (and SEAMRR is on)."""
        held = self.platform.p_seamldr_range
        return self.seamrr is not None and held is not None and held.overlaps(self.plain, self.size)

    def in_seamrr(self) -> bool:
        """Whether the access touches SEAMRR."""
        seamrr = self.seamrr
        return seamrr is not None and seamrr.overlaps(self.plain, self.size)


MEMORY: CheckTable[Access, Verdict] = CheckTable("MEMORY", (
    Check("MEMORY.width", "address bits at or above MAXPA",
          lambda c: c.address + c.size > 1 << c.platform.config.maxpa, Verdict.RESERVED_BIT, "SDM vol. 3A ch. 4"),
    Check("MEMORY.private_keyid", "private KeyID used by software outside SEAM",
          lambda c: c.agent in _LEGACY_SOFTWARE and c.private, Verdict.RESERVED_BIT, "X2 KeyIDs; HWL"),
    Check("MEMORY.private_keyid_dma", "private KeyID used by a device",
          lambda c: c.agent is Agent.DMA and c.private, Verdict.ABORTED, "HWL"),
    Check("MEMORY.p_seamldr_range", "P_SEAMLDR_RANGE touched by anybody but P-SEAMLDR or the processor",
          lambda c: c.agent not in (Agent.P_SEAMLDR, Agent.CPU) and c.in_p_seamldr_range(), Verdict.DENIED,
          "X2 SEAMRR; ISS25"),
    Check("MEMORY.module_range", "SEAMRR touched by anybody but the TDX module, P-SEAMLDR or the processor",
          lambda c: c.agent not in (Agent.MODULE, Agent.P_SEAMLDR, Agent.CPU) and c.in_seamrr(), Verdict.DENIED,
          "X2 SEAMRR; ISS25"),
), "Physical accesses: conditions in order; silent means allowed.")

clause("MEMORY.dma_range", "a device meets the range that MCHECK approved, also while an ACM has VALID = 0 on its core",
       "SEAMREF errata", CHOSEN)
clause("MEMORY.denied", "outside SEAM, SEAMRR memory is an abort page: reads all ones, writes dropped", "ISS25", STATED)
clause("MEMORY.integrity", "a private line read with its TD-owner bit 0, or a TD-owned line read with a shared KeyID",
       "HWL memory integrity", STATED)

PATTERN = bytes(64)
"""The fixed pattern of a line that fails the TD-owner test.  Its value is not public; zero is *chosen*."""

POISON = Fault(Vector.MC, None, "MEMORY.integrity")


def decode_seamrr(base: int, mask: int) -> Range:
    """Base and size from the two MSR values; the size is the lowest set bit of MASK[51:25] (PSL, NPS, TDXM)."""
    bits = mask & 0xFFFFFFFE000000
    return Range(base & 0xFFFFFFFE000000, bits & -bits)


@implements("MEMORY.dma_range")
def _dma_range(lp: Lp) -> Range:
    """MEMORY.dma_range: VALID of a core's register does not matter to the memory controller."""
    return decode_seamrr(lp.msrs.get(0x1400, 0), lp.msrs.get(0x1401, 0))


def judge_read(integrity: Integrity, private: bool, owned: bool) -> tuple[bool, bool]:
    """(data readable, poison) by the TD-owner table of HWL; ``owned`` is the line's TD-owner bit."""
    if private:
        return (True, False) if owned else (False, True)
    if not owned:
        return True, False
    return False, integrity is Integrity.CI


def fault_of(verdict: Verdict, denied: Denied, write: bool, clause: str) -> Fault | None:
    """The fault of a refused access, ``None`` where the access is aborted quietly."""
    match verdict:
        case Verdict.RESERVED_BIT:
            return Fault(Vector.PF, 0b1001 | write << 1, clause)  # P and RSVD
        case Verdict.DENIED if denied is Denied.FAULT:
            return Fault(Vector.GP, 0, clause)
        case _:
            return None
