"""SEAMLDR.SHUTDOWN: every logical processor says so, then nobody can call P-SEAMLDR or the module any more."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.arch.structures import SEAMEXTEND
from seamref.pseamldr.api import MAX_LPS, Status
from seamref.pseamldr.data import Call
from seamref.pseamldr.sysvalues import SystemValues, get_lpid
from seamref.spec import MEASURED, Check, CheckTable, implements

_SRC = "PSL src/pseamldr_dispatcher/api_calls/seamldr_shutdown.c"


@dataclass(frozen=True, slots=True)
class ShutdownState:
    """The calling processor and the one that launched NP-SEAMLDR (x2APIC ids)."""

    lpid: int
    acm_x2apicid: int


SHUTDOWN: CheckTable[ShutdownState, Status] = CheckTable("SEAMLDR.SHUTDOWN", (
    Check("SHUTDOWN.x2apic_id", "x2APIC id is 1024 or more: no state changes", lambda c: c.lpid >= MAX_LPS,
          Status.EUNSPECERR, _SRC, MEASURED),
), "SEAMLDR.SHUTDOWN: before anything changes.")

SHUTDOWN_LAST: CheckTable[ShutdownState, Status] = CheckTable("SEAMLDR.SHUTDOWN.last", (
    Check("SHUTDOWN.acm_x2apicid", "all processors have called, but this call is not on the one that launched "
          "NP-SEAMLDR; it may still come", lambda c: c.lpid != c.acm_x2apicid, Status.EBADCALL, _SRC, MEASURED),
), "SEAMLDR.SHUTDOWN: once tot_num_lps processors have called.")


@implements("SHUTDOWN.leaf", "count the processor once; on the first block the module; when all have called, on the "
            "right processor, clear SEAMEXTEND", _SRC, MEASURED)
def seamldr_shutdown(call: Call, values: SystemValues) -> Status:
    """SHUTDOWN.leaf.  No operands.  There is no way back but NP-SEAMLDR, and no look at an open INSTALL session."""
    state = ShutdownState(get_lpid(call), call.sysinfo["acm_x2apicid"])
    row = SHUTDOWN.decide(state, call.build.revision)
    if row is not None:
        return row.result
    count = call.get("lps_in_shutdown")
    if not call.test_and_set("shutdown_bitmap", state.lpid):
        count += 1
        call.put("lps_in_shutdown", count)
    if count == 1:
        _block(call)
    if count < call.sysinfo["tot_num_lps"]:
        return Status.SUCCESS
    row = SHUTDOWN_LAST.decide(state, call.build.revision)
    if row is not None:
        return row.result
    call.put_bytes("seamextend_snapshot", bytes(SEAMEXTEND.size))
    call.write_SEAMEXTEND(bytes(SEAMEXTEND.size))
    return Status.SUCCESS


@implements("SHUTDOWN.block", "while one processor has called: snapshot and register get seam_ready = 0", _SRC,
            MEASURED)
def _block(call: Call) -> None:
    """SHUTDOWN.block: also overwrites the snapshot of an INSTALL session that is open."""
    register = bytearray(call.read_SEAMEXTEND())
    SEAMEXTEND.poke(register, "seam_ready", 0)
    call.put_bytes("seamextend_snapshot", register)
    call.write_SEAMEXTEND(register)
