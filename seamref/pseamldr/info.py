"""SEAMLDR.INFO and SEAMLDR.SEAMINFO."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.arch.seamops import SeamopsLeaf, SeamopsStatus
from seamref.pseamldr.api import SEAMLDR_INFO, Status
from seamref.pseamldr.build import R10
from seamref.pseamldr.data import Call
from seamref.pseamldr.hpa import is_shared_hpa
from seamref.pseamldr.sysvalues import SystemValues
from seamref.spec import MEASURED, Check, CheckTable, implements

_SRC = "PSL src/pseamldr_dispatcher/api_calls/seamldr_info.c"


@dataclass(frozen=True, slots=True)
class BufferState:
    """What a leaf with a buffer looks at: RCX and the platform's values."""

    rcx: int
    values: SystemValues


INFO: CheckTable[BufferState, Status] = CheckTable("SEAMLDR.INFO", (
    Check("INFO.rcx", "RCX is no shared HPA aligned to 256",
          lambda c: not is_shared_hpa(c.rcx, SEAMLDR_INFO.size, c.values), Status.EBADPARAM, _SRC, MEASURED),
), "SEAMLDR.INFO: the buffer is not touched when this stops.")


@implements("SEAMDB.remaining", "GETREF answers 0: capacity - (last index + 1), else the capacity; 32 bits",
            "PSL src/common/helpers/helpers.c", MEASURED)
def query_remaining_updates(call: Call) -> int:
    """SEAMDB.remaining: how many more identities SEAMDB takes; any failure of GETREF counts as "empty"."""
    status = call.seamops(SeamopsLeaf.SEAMDB_GETREF)
    if status == SeamopsStatus.SUCCESS:
        return (call.lp.r15 - (call.lp.r10 + 1)) & 0xFFFFFFFF
    return call.lp.r15 & 0xFFFFFFFF


@implements("INFO.refresh", "INFO asks SEAMDB again when num_remaining_updates is 0, and keeps the answer", _SRC,
            MEASURED)
def refresh_remaining_updates(call: Call) -> int:
    """INFO.refresh: num_remaining_updates, which INFO changes as a side effect."""
    remaining = call.get("num_remaining_updates")
    if remaining == 0:
        remaining = query_remaining_updates(call)
        call.put("num_remaining_updates", remaining)
    return remaining


@implements("INFO.leaf", "256 bytes of SEAMLDR_INFO at RCX, at any time: also in the middle of a session", _SRC,
            MEASURED)
def seamldr_info(call: Call, values: SystemValues) -> Status:
    """INFO.leaf.  Input: RCX, shared HPA of 256 bytes.  1.0 leaves num_remaining_updates 0."""
    rcx = call.saved("rcx")
    row = INFO.decide(BufferState(rcx, values), call.build.revision)
    if row is not None:
        return row.result
    build = call.build
    info = {
        "version": build.version,
        "attributes": build.attributes,
        "vendor_id": build.vendor_id,
        "build_date": build.build_date,
        "build_num": build.build_num,
        "minor": build.minor,
        "major": build.major,
        "acm_x2apic": call.sysinfo["acm_x2apicid"],
        "seamextend": call.read_SEAMEXTEND(),
    }
    if build.revision != R10:
        info["num_remaining_updates"] = refresh_remaining_updates(call)
    call.write(rcx, SEAMLDR_INFO.encode(info))
    return Status.SUCCESS
