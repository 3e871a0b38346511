"""Global metadata of the module, as Linux reads them with TDH.SYS.RD."""

from __future__ import annotations

from seamref.host.abi import (
    FEATURES0_TD_PRESERVING,
    FIELD_MAJOR_VERSION,
    FIELD_MAX_RESERVED_PER_TDMR,
    FIELD_MAX_TDMRS,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_PAMT_1G_ENTRY_SIZE,
    FIELD_PAMT_2M_ENTRY_SIZE,
    FIELD_PAMT_4K_ENTRY_SIZE,
    FIELD_TDX_FEATURES0,
    FIELD_UPDATE_VERSION,
    Args,
    Errno,
    Leaf,
)
from seamref.host.kernel import Host
from seamref.host.records import TDX_PREFIX, Sysinfo
from seamref.host.seamcall import seamcall_prerr_ret
from seamref.host.series import Handoff
from seamref.spec import implements


@implements("LNX.read_sysinfo", "one TDH.SYS.RD for each field: RDX = id, R8 = value", "LNX tdx_global_metadata.c")
def read_sysinfo_field(host: Host, cpu: int, field: int) -> tuple[Errno, int]:
    """LNX.read_sysinfo: errno and value (0 on an error)."""
    ret, args = seamcall_prerr_ret(host, cpu, Leaf.TDH_SYS_RD, Args(rdx=field))
    return ret, args.r8 if ret is Errno.OK else 0


@implements("LNX.sysinfo", "metadata are read once at boot; the version is printed", "LNX tdx_global_metadata.c")
def read_sysinfo(host: Host, cpu: int = 0) -> Errno:
    """LNX.sysinfo: fills ``sysinfo``; the handoff version only where the version of the series caches it."""
    values: dict[int, int] = {}
    for field in (FIELD_MAJOR_VERSION, FIELD_MINOR_VERSION, FIELD_UPDATE_VERSION):
        ret, values[field] = read_sysinfo_field(host, cpu, field)
        if ret is not Errno.OK:
            return ret
    version = f"{values[FIELD_MAJOR_VERSION]}.{values[FIELD_MINOR_VERSION]}.{values[FIELD_UPDATE_VERSION]:02}"
    host.printk(TDX_PREFIX, f"Module version: {version}")
    for field in (FIELD_TDX_FEATURES0, FIELD_MAX_TDMRS, FIELD_MAX_RESERVED_PER_TDMR, FIELD_PAMT_4K_ENTRY_SIZE,
                  FIELD_PAMT_2M_ENTRY_SIZE, FIELD_PAMT_1G_ENTRY_SIZE):
        ret, values[field] = read_sysinfo_field(host, cpu, field)
        if ret is not Errno.OK:
            return ret
    hv = 0
    supports = bool(values[FIELD_TDX_FEATURES0] & FEATURES0_TD_PRESERVING)
    if host.series.handoff is Handoff.CACHED or (host.series.handoff is Handoff.CACHED_IF_SUPPORTED and supports):
        ret, hv = read_sysinfo_field(host, cpu, FIELD_MODULE_HV)
        if ret is not Errno.OK:
            return ret
    host.set(sysinfo=Sysinfo(
        values[FIELD_MAJOR_VERSION], values[FIELD_MINOR_VERSION], values[FIELD_UPDATE_VERSION],
        values[FIELD_TDX_FEATURES0], hv, values[FIELD_MAX_TDMRS], values[FIELD_MAX_RESERVED_PER_TDMR],
        (values[FIELD_PAMT_4K_ENTRY_SIZE], values[FIELD_PAMT_2M_ENTRY_SIZE], values[FIELD_PAMT_1G_ENTRY_SIZE]),
    ))
    return Errno.OK
