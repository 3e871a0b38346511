"""SEAMLDR.SEAMINFO: what MCHECK found out about the platform."""

from __future__ import annotations

from seamref.pseamldr.api import Status
from seamref.pseamldr.data import Call
from seamref.pseamldr.hpa import is_shared_hpa
from seamref.pseamldr.info import BufferState
from seamref.pseamldr.sysvalues import SystemValues
from seamref.spec import MEASURED, Check, CheckTable, implements

_SRC = "PSL src/pseamldr_dispatcher/api_calls/seamldr_seaminfo.c"

SEAMINFO_SIZE = 2048
"""Bytes: the half of P_SYS_INFO_TABLE that MCHECK wrote."""

SEAMINFO: CheckTable[BufferState, Status] = CheckTable("SEAMLDR.SEAMINFO", (
    Check("SEAMINFO.rcx", "RCX is no shared HPA aligned to 2048",
          lambda c: not is_shared_hpa(c.rcx, SEAMINFO_SIZE, c.values), Status.EBADPARAM, _SRC, MEASURED),
), "SEAMLDR.SEAMINFO: the buffer is not touched when this stops.")


@implements("SEAMINFO.leaf", "bytes 0..2047 of P_SYS_INFO_TABLE at RCX", _SRC, MEASURED)
def seamldr_seaminfo(call: Call, values: SystemValues) -> Status:
    """SEAMINFO.leaf.  Input: RCX, shared HPA of 2048 bytes."""
    rcx = call.saved("rcx")
    row = SEAMINFO.decide(BufferState(rcx, values), call.build.revision)
    if row is not None:
        return row.result
    call.write(rcx, call.sysinfo.data[:SEAMINFO_SIZE])
    return Status.SUCCESS
