"""SEAMOPS: the leaves SEAM software calls (X2; leaves 2 to 6 as PSL, TDXM and COR use them)."""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from enum import IntEnum
from hashlib import sha256, sha384
from typing import TYPE_CHECKING

from seamref.arch.lp import Lp
from seamref.arch.memory import get_agent
from seamref.arch.outcome import Done, Fault, Vector
from seamref.arch.paging import translate
from seamref.arch.structures import REPORTMACSTRUCT, REPORTTYPE, SEAMEXTEND, TEE_TCB_INFO
from seamref.arch.trace import InstructionEnded
from seamref.errors import SeamrefError
from seamref.spec import MEASURED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class SeamopsLeaf(IntEnum):
    """SEAMOPS leaf numbers (RAX)."""

    CAPABILITIES = 0
    SEAMREPORT = 1
    SEAMDB_CLEAR = 2
    SEAMDB_INSERT = 3
    SEAMDB_GETREF = 4
    SEAMDB_REPORT = 5
    SEAMVERIFYREPORT = 6


class SeamopsStatus(IntEnum):
    """SEAMOPS results in RAX (TDXM, PSL vt_accessors.h)."""

    SUCCESS = 0
    INPUT_ERROR = 1
    ENTROPY_ERROR = 2
    DATABASE_ERROR = 3
    INVALID_CPUSVN = 4
    INVALID_REPORTMACSTRUCT = 5


VALID_INTEL = 0x1FF
VALID_INTEL_SVN2 = 0x301FF
"""TEE_TCB_INFO.VALID with TEE_TCB_SVN2: bits 16 and 17 cover bytes 128..143 (errata 13)."""
MACED = 224
"""Bytes of REPORTMACSTRUCT under the MAC."""

UD = Fault(Vector.UD, None, "")
GP0 = Fault(Vector.GP, 0, "")


@dataclass(frozen=True, slots=True)
class SeamopsState:
    """Everything SEAMOPS's first checks look at."""

    platform: Platform
    lp: Lp
    lock_prefix: bool

    @property
    def leaf(self) -> int:
        """The leaf number: RAX, or its low half in a revision that looks at EAX (errata 12)."""
        return self.lp.rax & ((1 << self.platform.revision.seamops_leaf_bits) - 1)


SEAMOPS: CheckTable[SeamopsState, Fault] = CheckTable("SEAMOPS", (
    Check("SEAMOPS.inSEAM", "inSEAM = 0", lambda c: not c.lp.inSEAM, UD, "X2 SEAMOPS"),
    Check("SEAMOPS.64bit", "not in 64-bit mode", lambda c: not c.lp.is_64bit(), UD, "X2 SEAMOPS"),
    Check("SEAMOPS.non_root", "in VMX non-root operation", lambda c: c.lp.non_root, UD, "X2 SEAMOPS"),
    Check("SEAMOPS.lock", "LOCK prefix", lambda c: c.lock_prefix, UD, "X2 SEAMOPS"),
    Check("SEAMOPS.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, GP0, "X2 SEAMOPS"),
), "SEAMOPS: conditions in order, before any leaf; silent means: lock the SVNs, then the leaf.")

SEAMREPORT: CheckTable[SeamopsState, Fault | SeamopsStatus] = CheckTable("SEAMREPORT", (
    Check("SEAMREPORT.rcx", "RCX not 1024-byte aligned", lambda c: bool(c.lp.rcx & 1023), GP0, "X2 SEAMREPORT"),
    Check("SEAMREPORT.r9", "R9 not 64-byte aligned", lambda c: bool(c.lp.r9 & 63), GP0, "X2 SEAMREPORT"),
    Check("SEAMREPORT.r8", "R8 not 64-byte aligned", lambda c: bool(c.lp.r8 & 63), GP0, "X2 SEAMREPORT"),
    Check("SEAMREPORT.type", "RDX[63:24] not 0, or bit 7 of the type is 0",
          lambda c: c.lp.rdx >> 24 != 0 or not c.lp.rdx & 0x80, SeamopsStatus.INPUT_ERROR, "X2 SEAMREPORT"),
), "SEAMOPS[SEAMREPORT] and [SEAMDB_REPORT]: operand conditions in order.")

clause("SEAMOPS.leaf", "RAX names no supported leaf: #GP(0)", "X2 SEAMOPS")
clause("SEAMOPS.svn_lock", "the first SEAMOPS, of whatever leaf, locks CRPL_CPUSVN and BIOS_SE_SVN", "X2 SEAMOPS")
clause("SEAMOPS.capabilities", "RAX := bitmap of supported leaves (errata 11)", "X2 SEAMOPS; TDXM")
clause("SEAMOPS.seamreport", "a MACed report of the module that runs, stored at RCX", "X2 SEAMREPORT")
clause("SEAMOPS.seamdb_clear", "the database is emptied", "PSL helpers.c", MEASURED)
clause("SEAMOPS.seamdb_insert", "the SEAMEXTEND identity becomes the last entry, with a fresh 256-bit nonce",
       "PSL helpers.c", MEASURED)
clause("SEAMOPS.seamdb_getref", "R10 last index, R11..R14 its nonce, R15 capacity; empty: status 3, R15 still valid",
       "PSL vt_accessors.h; COR", MEASURED)
clause("SEAMOPS.seamdb_report", "a report of entry R10 whose nonce is R11..R14", "TDXM", MEASURED)
clause("SEAMOPS.seamverifyreport", "RBX: REPORTMACSTRUCT to verify with CR_REPORT_KEY2", "TDXM", MEASURED)
clause("SEAMOPS.seamdb_full", "INSERT into a full database: status 3", "COR", MEASURED)


def report_key(platform: Platform) -> bytes:
    """CR_REPORT_KEY2: the 256-bit MAC key that SEAMREPORT and EVERIFYREPORT2 share."""
    return platform.derived_key("CR_REPORT_KEY2")


def seamops(platform: Platform, lp_id: int, *, lock_prefix: bool = False) -> Done | Fault:
    """SEAMOPS on one processor: RAX selects the leaf; RAX and the flags take its result."""
    lp = platform.lp(lp_id)
    outcome = _seamops(platform, lp, lock_prefix)
    if platform.listeners:
        platform.emit(InstructionEnded(lp_id, "SEAMOPS", str(outcome), outcome.clause))
    return outcome


def _seamops(platform: Platform, lp: Lp, lock_prefix: bool) -> Done | Fault:
    state = SeamopsState(platform, lp, lock_prefix)
    row = SEAMOPS.decide(state, platform.revision)
    if row is not None:
        return Fault(row.result.vector, row.result.code, row.id)
    if platform.revision.capabilities & 1 << SeamopsLeaf.SEAMREPORT:
        _lock_svn(platform)
    served = platform.revision.seamops_served
    if served is None:
        served = platform.revision.capabilities
    if state.leaf > 63 or not served >> state.leaf & 1:
        return _no_leaf()
    match SeamopsLeaf(state.leaf):
        case SeamopsLeaf.CAPABILITIES:
            return _capabilities(platform, lp)
        case SeamopsLeaf.SEAMREPORT:
            return _seamreport(platform, lp, state)
        case SeamopsLeaf.SEAMDB_CLEAR:
            return _seamdb_clear(platform, lp)
        case SeamopsLeaf.SEAMDB_INSERT:
            return _seamdb_insert(platform, lp)
        case SeamopsLeaf.SEAMDB_GETREF:
            return _seamdb_getref(platform, lp)
        case SeamopsLeaf.SEAMDB_REPORT:
            return _seamdb_report(platform, lp, state)
        case SeamopsLeaf.SEAMVERIFYREPORT:
            return _seamverifyreport(platform, lp)


def _end(lp: Lp, status: int, clause: str) -> Done:
    """RAX := status; ZF tells failure, the other arithmetic flags are 0."""
    lp.rax = int(status)
    lp.flags(zf=int(status != SeamopsStatus.SUCCESS))
    return Done(clause)


def _injected(platform: Platform, leaf: str) -> tuple[int, tuple[int, ...]] | None:
    """An answer injected for this leaf: (leaf, status) or (leaf, status, last index, capacity).  The status is any
    64-bit RAX: what the caller does with one that no document lists is the caller's."""
    answer = platform.take_injected("seamdb")
    if answer is None:
        return None
    name, status, *more = answer
    if name != leaf:
        raise SeamrefError(f"injected SEAMOPS answer is for {name}, but {leaf} was executed")
    return int(status), tuple(more)


@implements("SEAMOPS.leaf")
def _no_leaf() -> Fault:
    return Fault(Vector.GP, 0, "SEAMOPS.leaf")


@implements("SEAMOPS.svn_lock")
def _lock_svn(platform: Platform) -> None:
    platform.svn_locked = True


@implements("SEAMOPS.capabilities")
def _capabilities(platform: Platform, lp: Lp) -> Done:
    lp.rax = platform.revision.capabilities
    lp.flags()
    return Done("SEAMOPS.capabilities")


@implements("SEAMOPS.seamdb_clear")
def _seamdb_clear(platform: Platform, lp: Lp) -> Done:
    injected = _injected(platform, "CLEAR")
    if injected is not None and injected[0] != SeamopsStatus.SUCCESS:
        return _end(lp, injected[0], "SEAMOPS.seamdb_clear")
    platform.seamdb = ()
    return _end(lp, SeamopsStatus.SUCCESS, "SEAMOPS.seamdb_clear")


@implements("SEAMOPS.seamdb_insert")
def _seamdb_insert(platform: Platform, lp: Lp) -> Done:
    from seamref.arch.platform import SeamdbEntry

    injected = _injected(platform, "INSERT")
    if injected is not None and injected[0] != SeamopsStatus.SUCCESS:
        return _end(lp, injected[0], "SEAMOPS.seamdb_insert")
    if injected is None:
        if len(platform.seamdb) >= platform.config.seamdb_size:
            return _full(lp)
        carry, _ = platform.rdrand("seamdb_entropy")
        if not carry:
            return _end(lp, SeamopsStatus.ENTROPY_ERROR, "SEAMOPS.seamdb_insert")
    platform.seamdb = (*platform.seamdb, SeamdbEntry(platform.SEAMEXTEND, platform.random_bytes(32)))
    return _end(lp, SeamopsStatus.SUCCESS, "SEAMOPS.seamdb_insert")


@implements("SEAMOPS.seamdb_full")
def _full(lp: Lp) -> Done:
    return _end(lp, SeamopsStatus.DATABASE_ERROR, "SEAMOPS.seamdb_full")


@implements("SEAMOPS.seamdb_getref")
def _seamdb_getref(platform: Platform, lp: Lp) -> Done:
    injected = _injected(platform, "GETREF")
    if injected is not None:
        status, (last, capacity) = injected
        lp.r10, lp.r15 = last, capacity
        return _end(lp, status, "SEAMOPS.seamdb_getref")
    lp.r15 = platform.config.seamdb_size
    if not platform.seamdb:
        return _end(lp, SeamopsStatus.DATABASE_ERROR, "SEAMOPS.seamdb_getref")
    nonce = platform.seamdb[-1].nonce
    lp.r10 = len(platform.seamdb) - 1
    lp.r11, lp.r12, lp.r13, lp.r14 = (int.from_bytes(nonce[i : i + 8], "little") for i in range(0, 32, 8))
    return _end(lp, SeamopsStatus.SUCCESS, "SEAMOPS.seamdb_getref")


def tee_tcb_info(identity: bytes, running: bytes, svn2: bool) -> bytes:
    """TEE_TCB_INFO of the module ``identity`` (136 SEAMEXTEND bytes) while ``running`` is loaded (errata 13, 14)."""
    built, now = SEAMEXTEND.decode(identity), SEAMEXTEND.decode(running)
    values = {
        "valid": VALID_INTEL_SVN2 if svn2 and built.valid == VALID_INTEL else built.valid,
        "tee_tcb_svn": built.tee_tcb_svn,
        "mrseam": built.mrseam,
        "mrsignerseam": built.mrsigner,
        "attributes": built.attributes,
    }
    if svn2:
        values["tee_tcb_svn2"] = now.tee_tcb_svn
    return TEE_TCB_INFO.encode(values)


def make_report(
    platform: Platform, identity: bytes, report_type: int, tee_info_hash: bytes, reportdata: bytes
) -> bytes:
    """REPORTMACSTRUCT and TEE_TCB_INFO, 495 bytes, MACed with CR_REPORT_KEY2.

    ``report_type`` is RDX[23:0]: type, subtype, version.  ``tee_info_hash`` 48 bytes, ``reportdata`` 64.
    """
    info = tee_tcb_info(identity, platform.SEAMEXTEND, platform.revision.svn2)
    kind = REPORTTYPE.decode((report_type & 0xFFFFFF).to_bytes(4, "little"))
    body = REPORTMACSTRUCT.encode({
        "reporttype": kind,
        "cpusvn": platform.config.cpusvn,
        "tee_tcb_info_hash": sha384(info).digest(),
        "tee_info_hash": tee_info_hash,
        "reportdata": reportdata,
    })[:MACED]
    return body + hmac.digest(report_key(platform), body, sha256) + info


@implements("SEAMOPS.seamreport")
def _seamreport(platform: Platform, lp: Lp, state: SeamopsState) -> Done | Fault:
    return _report(platform, lp, state, platform.SEAMEXTEND, "SEAMOPS.seamreport")


@implements("SEAMOPS.seamdb_report")
def _seamdb_report(platform: Platform, lp: Lp, state: SeamopsState) -> Done | Fault:
    nonce = b"".join(part.to_bytes(8, "little") for part in (lp.r11, lp.r12, lp.r13, lp.r14))
    if lp.r10 >= len(platform.seamdb) or platform.seamdb[lp.r10].nonce != nonce:
        return _end(lp, SeamopsStatus.DATABASE_ERROR, "SEAMOPS.seamdb_report")
    return _report(platform, lp, state, platform.seamdb[lp.r10].identity, "SEAMOPS.seamdb_report")


def _report(platform: Platform, lp: Lp, state: SeamopsState, identity: bytes, clause: str) -> Done | Fault:
    row = SEAMREPORT.decide(state, platform.revision)
    if row is not None:
        if isinstance(row.result, Fault):
            return Fault(row.result.vector, row.result.code, row.id)
        return _end(lp, row.result, row.id)
    at: dict[str, int] = {}
    for name, linear, write in (("rcx", lp.rcx, True), ("r9", lp.r9, False), ("r8", lp.r8, False)):
        found = translate(platform, lp, linear, write=write)
        if isinstance(found, Fault):
            return found
        at[name] = found.physical
    agent = get_agent(lp)
    tee_info_hash = platform.load(agent, at["r9"], 48, lp)
    reportdata = platform.load(agent, at["r8"], 64, lp)
    if isinstance(tee_info_hash, Fault):
        return tee_info_hash
    if isinstance(reportdata, Fault):
        return reportdata
    report = make_report(platform, identity, lp.rdx, tee_info_hash, reportdata)
    fault = platform.store(agent, at["rcx"], report, lp)
    return fault if fault is not None else _end(lp, SeamopsStatus.SUCCESS, clause)


def verify_report(platform: Platform, report: bytes) -> SeamopsStatus:
    """Whether a REPORTMACSTRUCT was made on this platform: CPUSVN first, then the MAC."""
    if report[REPORTMACSTRUCT.span("cpusvn")] != platform.config.cpusvn:
        return SeamopsStatus.INVALID_CPUSVN
    mac = hmac.digest(report_key(platform), report[:MACED], sha256)
    ok = hmac.compare_digest(mac, report[MACED : MACED + 32])
    return SeamopsStatus.SUCCESS if ok else SeamopsStatus.INVALID_REPORTMACSTRUCT


@implements("SEAMOPS.seamverifyreport")
def _seamverifyreport(platform: Platform, lp: Lp) -> Done | Fault:
    found = translate(platform, lp, lp.rbx)
    if isinstance(found, Fault):
        return found
    data = platform.load(get_agent(lp), found.physical, REPORTMACSTRUCT.size, lp)
    if isinstance(data, Fault):
        return data
    return _end(lp, verify_report(platform, data), "SEAMOPS.seamverifyreport")


__all__ = [
    "SEAMOPS", "SEAMREPORT", "SeamopsLeaf", "SeamopsState", "SeamopsStatus", "make_report", "report_key", "seamops",
    "tee_tcb_info", "verify_report",
]
