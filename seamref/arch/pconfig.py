"""PCONFIG leaf 0, MKTME_KEY_PROGRAM: who may give which KeyID a key (SDM vol. 2B; X2)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

from seamref.arch.lp import Lp
from seamref.arch.msr import TME_ACTIVATE
from seamref.arch.outcome import Fault, Vector
from seamref.arch.structures import MKTME_KEY_PROGRAM
from seamref.spec import Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class PconfigStatus(IntEnum):
    """Results in RAX; ZF is 1 for all but success."""

    SUCCESS = 0
    INVALID_PROG_CMD = 1
    ENTROPY_ERROR = 2
    INVALID_KEYID = 3
    INVALID_ENC_ALG = 4
    DEVICE_BUSY = 5


DIRECT, RANDOM, CLEAR, NO_ENCRYPT = range(4)
"""Commands of KEYID_CTRL."""


@dataclass(frozen=True, slots=True)
class PconfigState:
    """What PCONFIG's checks look at: the processor and the structure at RBX (host paging is not modelled)."""

    platform: Platform
    lp: Lp
    program: bytes
    busy: bool

    @property
    def keyid(self) -> int:
        """KEYID."""
        return int(MKTME_KEY_PROGRAM.peek(self.program, "keyid"))

    @property
    def control(self) -> int:
        """KEYID_CTRL."""
        return int(MKTME_KEY_PROGRAM.peek(self.program, "keyid_ctrl"))

    @property
    def command(self) -> int:
        """KEYID_CTRL bits 7:0."""
        return self.control & 0xFF

    def activate(self) -> int:
        """IA32_TME_ACTIVATE."""
        return self.platform.msr_value(self.lp, TME_ACTIVATE)


def _bad_structure(c: PconfigState) -> bool:
    """Reserved bits, command above 3, KeyID 0 or beyond the activated KeyID bits."""
    reserved = any(MKTME_KEY_PROGRAM.peek(c.program, "reserved_0")) or c.control >> 24
    return bool(reserved) or c.command > 3 or c.keyid == 0 or c.keyid >> c.platform.keyid_bits != 0


def _private_outside(c: PconfigState) -> bool:
    return not c.lp.inSEAM and c.platform.tdx_keyid_bits > 0 and c.platform.is_private(c.keyid)


def _bad_algorithm(c: PconfigState) -> bool:
    """ENC_ALG must name exactly one activated algorithm."""
    algorithm = c.control >> 8 & 0xFFFF
    activated = c.activate() >> 48 or 1  # AES-XTS-128 is there when nothing else was activated
    return algorithm.bit_count() != 1 or not algorithm & activated


UD = Fault(Vector.UD, None, "")
GP0 = Fault(Vector.GP, 0, "")

PCONFIG: CheckTable[PconfigState, Fault | PconfigStatus] = CheckTable("PCONFIG", (
    Check("PCONFIG.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, UD, "SDM vol. 2B PCONFIG"),
    Check("PCONFIG.outside_SEAM", "outside SEAM", lambda c: not c.lp.inSEAM, GP0, "HWL",
          applies=lambda r: r.pconfig_needs_seam),
    Check("PCONFIG.leaf", "EAX names no supported leaf", lambda c: c.lp.rax & 0xFFFFFFFF != 0, GP0,
          "SDM vol. 2B PCONFIG"),
    Check("PCONFIG.tme", "IA32_TME_ACTIVATE not locked or not enabled, or no KeyID bits",
          lambda c: c.activate() & 3 != 3 or c.platform.keyid_bits == 0, GP0, "SDM vol. 2B PCONFIG"),
    Check("PCONFIG.align", "RBX not 256-byte aligned", lambda c: bool(c.lp.rbx & 255), GP0, "SDM vol. 2B PCONFIG"),
    Check("PCONFIG.structure", "reserved bits, command, or KeyID not valid", _bad_structure, GP0,
          "SDM vol. 2B PCONFIG"),
    Check("PCONFIG.private", "TDX private KeyID outside SEAM", _private_outside, GP0, "SDM vol. 2B PCONFIG",
          applies=lambda r: r.pconfig_private_gp),
    Check("PCONFIG.private_code", "TDX private KeyID outside SEAM", _private_outside, PconfigStatus.INVALID_KEYID,
          "X2 PCONFIG", applies=lambda r: not r.pconfig_private_gp),
    Check("PCONFIG.algorithm", "ENC_ALG is not exactly one activated algorithm", _bad_algorithm, GP0,
          "SDM vol. 2B PCONFIG"),
    Check("PCONFIG.busy", "the key table is locked by another processor", lambda c: c.busy,
          PconfigStatus.DEVICE_BUSY, "SDM vol. 2B PCONFIG"),
), "PCONFIG[MKTME_KEY_PROGRAM]: conditions in order; silent means that the command is carried out.")

clause("PCONFIG.program", "direct key, random key, clear, or no encryption; this package's table only",
       "SDM vol. 2B PCONFIG")


@implements("PCONFIG.program")
def pconfig(platform: Platform, lp_id: int, program: bytes, *, busy: bool = False) -> PconfigStatus | Fault:
    """PCONFIG.program: EAX=0, RBX: MKTME_KEY_PROGRAM_STRUCT, whose 192 bytes are ``program``.

    Programs the key table of the processor's package.  RAX, ZF take the status; CF PF AF OF SF are cleared.
    """
    MKTME_KEY_PROGRAM.decode(program)  # a cut structure is the caller's mistake
    lp = platform.lp(lp_id)
    state = PconfigState(platform, lp, program, busy)
    row = PCONFIG.decide(state, platform.revision)
    if row is not None and isinstance(row.result, Fault):
        return Fault(row.result.vector, row.result.code, row.id)
    status = PconfigStatus.SUCCESS if row is None else PconfigStatus(row.result)  # type: ignore[arg-type]
    if row is None:
        status = _carry_out(platform, lp, state)
    lp.rax = int(status)
    lp.flags(zf=int(status is not PconfigStatus.SUCCESS))
    return status


def _carry_out(platform: Platform, lp: Lp, c: PconfigState) -> PconfigStatus:
    keys = MKTME_KEY_PROGRAM.peek(c.program, "key_field_1") + MKTME_KEY_PROGRAM.peek(c.program, "key_field_2")
    match c.command:
        case 1:
            carry, _ = platform.rdrand("pconfig")
            if not carry:
                return PconfigStatus.ENTROPY_ERROR
            keys = platform.random_bytes(64)
        case 2:
            keys = b"TME"  # "clear": back to the TME key
        case 3:
            keys = b"plain"
    platform.key_table[(lp.package, c.keyid)] = keys
    return PconfigStatus.SUCCESS
