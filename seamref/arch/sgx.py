"""ENCLU[EVERIFYREPORT2]: an enclave verifies a TD's report with the key only the processor knows (X2).

Enclaves themselves are not modelled: the caller says whether the operand lies in the enclave and on a readable
regular page, and hands over the 256 bytes that the enclave would read there.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from seamref.arch.lp import Lp
from seamref.arch.outcome import Fault, Vector
from seamref.arch.seamops import SeamopsStatus, verify_report
from seamref.arch.structures import REPORTMACSTRUCT
from seamref.errors import LayoutError
from seamref.spec import CHOSEN, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class VerifyStatus(Enum):
    """Results of EVERIFYREPORT2 in RAX.  The numbers are SGX error codes; X2 names them only (*chosen*)."""

    SUCCESS = 0
    SGX_INVALID_CPUSVN = 32
    SGX_INVALID_REPORTMACSTRUCT = 28


@dataclass(frozen=True, slots=True)
class VerifyState:
    """Everything EVERIFYREPORT2's checks look at."""

    platform: Platform
    lp: Lp
    report: bytes
    in_elrange: bool
    readable: bool


PF = Fault(Vector.PF, 0, "")
GP0 = Fault(Vector.GP, 0, "")
_BAD = VerifyStatus.SGX_INVALID_REPORTMACSTRUCT


def _reserved(c: VerifyState) -> bool:
    return any(REPORTMACSTRUCT.peek(c.report, name).strip(b"\0") for name in ("reserved_0", "reserved_1"))


EVERIFYREPORT2: CheckTable[VerifyState, Fault | VerifyStatus] = CheckTable("EVERIFYREPORT2", (
    Check("EVERIFYREPORT2.align", "RBX not 256-byte aligned", lambda c: bool(c.lp.rbx & 255), GP0, "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.elrange", "RBX outside ELRANGE", lambda c: not c.in_elrange, GP0, "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.page", "not a readable regular EPC page of this enclave", lambda c: not c.readable, PF,
          "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.type", "TYPE is not 0x81", lambda c: c.report[0] != 0x81, _BAD, "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.subtype", "SUBTYPE is not 0", lambda c: c.report[1] != 0, _BAD, "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.version", "VERSION is not one that this part accepts (errata 15)",
          lambda c: c.report[2] not in c.platform.revision.verifyreport_versions, _BAD, "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.reserved", "a reserved byte is not 0", lambda c: c.report[3] != 0 or _reserved(c), _BAD,
          "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.cpusvn", "CPUSVN not supported",
          lambda c: verify_report(c.platform, c.report) is SeamopsStatus.INVALID_CPUSVN,
          VerifyStatus.SGX_INVALID_CPUSVN, "X2 EVERIFYREPORT2"),
    Check("EVERIFYREPORT2.mac", "MAC with CR_REPORT_KEY2 over bytes 0..223 differs",
          lambda c: verify_report(c.platform, c.report) is not SeamopsStatus.SUCCESS, _BAD, "X2 EVERIFYREPORT2"),
), "ENCLU[EVERIFYREPORT2]: conditions in order; silent means that the report was made on this platform.")

clause("EVERIFYREPORT2.success", "RAX := 0, ZF := 0", "X2 EVERIFYREPORT2")
clause("EVERIFYREPORT2.enclave", "enclave mode is the caller's word", "SEAMREF errata", CHOSEN)


@implements("EVERIFYREPORT2.success")
def everifyreport2(
    platform: Platform, lp_id: int, report: bytes, *, in_elrange: bool = True, readable: bool = True
) -> VerifyStatus | Fault:
    """EVERIFYREPORT2.success: verify 256 bytes of REPORTMACSTRUCT; RAX and ZF take the result.

    ``report`` longer than 256 bytes (a whole TDREPORT) is looked at from its beginning.
    """
    if len(report) < REPORTMACSTRUCT.size:
        raise LayoutError("REPORTMACSTRUCT", "mac", len(report), f"{len(report)} bytes, needs {REPORTMACSTRUCT.size}")
    lp = platform.lp(lp_id)
    row = EVERIFYREPORT2.decide(VerifyState(platform, lp, report, in_elrange, readable), platform.revision)
    if row is None:
        status = VerifyStatus.SUCCESS
    elif isinstance(row.result, Fault):
        return Fault(row.result.vector, row.result.code, row.id)
    else:
        status = row.result
    lp.rax = status.value
    lp.flags(zf=int(status is not VerifyStatus.SUCCESS))
    return status


__all__ = ["EVERIFYREPORT2", "VerifyState", "VerifyStatus", "everifyreport2"]
