"""Global metadata of the module, as Linux reads them with TDH.SYS.RD.

The kernel keeps each field in a C type of its own; a value that does not fit is cut off silently.
"""

from __future__ import annotations

from dataclasses import dataclass

from seamref.host import log
from seamref.host.abi import (
    FEATURES0_DYNAMIC_PAMT,
    FEATURES0_EXT,
    FEATURES0_TD_PRESERVING,
    FIELD_ATTRIBUTES_FIXED0,
    FIELD_ATTRIBUTES_FIXED1,
    FIELD_CPUID_CONFIG_LEAVES,
    FIELD_CPUID_CONFIG_VALUES,
    FIELD_EXT_REQUIRED,
    FIELD_EXT_REQUIRED_PAGES,
    FIELD_MAJOR_VERSION,
    FIELD_MAX_RESERVED_PER_TDMR,
    FIELD_MAX_TDMRS,
    FIELD_MAX_VCPUS_PER_TD,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_NUM_CPUID_CONFIG,
    FIELD_PAMT_1G_ENTRY_SIZE,
    FIELD_PAMT_2M_ENTRY_SIZE,
    FIELD_PAMT_4K_ENTRY_SIZE,
    FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS,
    FIELD_TDCS_BASE_SIZE,
    FIELD_TDR_BASE_SIZE,
    FIELD_TDVPS_BASE_SIZE,
    FIELD_TDX_FEATURES0,
    FIELD_UPDATE_VERSION,
    FIELD_XFAM_FIXED0,
    FIELD_XFAM_FIXED1,
    NR_CPUID_CONFIGS,
    Args,
    Errno,
    Leaf,
)
from seamref.host.kernel import Host
from seamref.host.records import Sysinfo, TdConfig
from seamref.host.seamcall import seamcall_prerr_ret
from seamref.host.series import Handoff
from seamref.spec import MEASURED, implements

M8, M16, M32, M64 = (1 << 8) - 1, (1 << 16) - 1, (1 << 32) - 1, (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Group:
    """One ``get_tdx_sys_info_*`` function: the fields that it reads in order, and what their C type keeps."""

    name: str
    fields: tuple[int, ...]
    keeps: int = M16


VERSION = Group("version", (FIELD_MINOR_VERSION, FIELD_MAJOR_VERSION, FIELD_UPDATE_VERSION))
GROUPS = (
    VERSION,
    Group("features", (FIELD_TDX_FEATURES0,), M64),
    Group("tdmr", (FIELD_MAX_TDMRS, FIELD_MAX_RESERVED_PER_TDMR, FIELD_PAMT_4K_ENTRY_SIZE, FIELD_PAMT_2M_ENTRY_SIZE,
                   FIELD_PAMT_1G_ENTRY_SIZE)),
    Group("td_ctrl", (FIELD_TDR_BASE_SIZE, FIELD_TDCS_BASE_SIZE, FIELD_TDVPS_BASE_SIZE)),
    Group("td_conf", (FIELD_ATTRIBUTES_FIXED0, FIELD_ATTRIBUTES_FIXED1, FIELD_XFAM_FIXED0, FIELD_XFAM_FIXED1), M64),
    Group("td_conf", (FIELD_NUM_CPUID_CONFIG, FIELD_MAX_VCPUS_PER_TD)),
)
"""What is read at boot, in this order; the first error ends it.  Behind them the CPUID entries: all leaves, then two
values for each."""


@implements("LNX.read_sysinfo", "one TDH.SYS.RD for each field: RDX = id, R8 = value", "LNX tdx_global_metadata.c")
def read_sysinfo_field(host: Host, cpu: int, field: int) -> tuple[Errno, int]:
    """LNX.read_sysinfo: errno and value (0 on an error)."""
    ret, args = seamcall_prerr_ret(host, cpu, Leaf.TDH_SYS_RD, Args(rdx=field))
    return ret, args.r8 if ret is Errno.OK else 0


def _read(host: Host, cpu: int, fields: tuple[int, ...], keeps: int, values: dict[int, int]) -> Errno:
    for field in fields:
        ret, value = read_sysinfo_field(host, cpu, field)
        if ret is not Errno.OK:
            return ret
        values[field] = value & keeps
    return Errno.OK


@implements("LNX.sysinfo", "version (minor, major, update), features, TDMR and TD limits are read once at boot; the "
            "version is printed whether it could be read or not, what was not read as 0", "LNX tdx_global_metadata.c",
            MEASURED)
def read_sysinfo(host: Host, cpu: int = 0) -> Errno:
    """LNX.sysinfo: fills ``sysinfo``; the handoff version only where the version of the series caches it."""
    values: dict[int, int] = {}
    ret = _read(host, cpu, VERSION.fields, VERSION.keeps, values)
    minor, major, update = (values.get(field, 0) for field in VERSION.fields)
    host.log(log.VERSION, major=major, minor=minor, update=update)
    for group in GROUPS[1:]:
        if ret is Errno.OK:
            ret = _read(host, cpu, group.fields, group.keeps, values)
        if ret is Errno.OK and group.name == "tdmr" and dynamic_pamt(host, values[FIELD_TDX_FEATURES0]):
            ret = _read(host, cpu, (FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS,), M8, values)
    if ret is Errno.OK:
        ret = _read_cpuid_config(host, cpu, values)
    if ret is Errno.OK:
        ret = _read_cached_handoff(host, cpu, values)
    if ret is Errno.OK:
        host.set(sysinfo=_sysinfo(values))
    return ret


@implements("LNX.sysinfo.cpuid", "more CPUID entries than Linux has room for (128) end the boot with -EINVAL",
            "LNX tdx_global_metadata.c", MEASURED)
def _read_cpuid_config(host: Host, cpu: int, values: dict[int, int]) -> Errno:
    """LNX.sysinfo.cpuid: the count is a 16-bit number, as every other."""
    count = values[FIELD_NUM_CPUID_CONFIG]
    if count > NR_CPUID_CONFIGS:
        return Errno.EINVAL
    leaves = tuple(FIELD_CPUID_CONFIG_LEAVES + i for i in range(count))
    pairs = tuple(FIELD_CPUID_CONFIG_VALUES + i for i in range(2 * count))
    return _read(host, cpu, leaves + pairs, M64, values)


def _read_cached_handoff(host: Host, cpu: int, values: dict[int, int]) -> Errno:
    supports = bool(values[FIELD_TDX_FEATURES0] & FEATURES0_TD_PRESERVING)
    if host.series.handoff is Handoff.CACHED or (host.series.handoff is Handoff.CACHED_IF_SUPPORTED and supports):
        return _read(host, cpu, (FIELD_MODULE_HV,), M16, values)
    return Errno.OK


def _sysinfo(values: dict[int, int]) -> Sysinfo:
    v = values.__getitem__
    return Sysinfo(
        v(FIELD_MAJOR_VERSION), v(FIELD_MINOR_VERSION), v(FIELD_UPDATE_VERSION), v(FIELD_TDX_FEATURES0),
        values.get(FIELD_MODULE_HV, 0), v(FIELD_MAX_TDMRS), v(FIELD_MAX_RESERVED_PER_TDMR),
        (v(FIELD_PAMT_4K_ENTRY_SIZE), v(FIELD_PAMT_2M_ENTRY_SIZE), v(FIELD_PAMT_1G_ENTRY_SIZE)),
        (v(FIELD_TDR_BASE_SIZE), v(FIELD_TDCS_BASE_SIZE), v(FIELD_TDVPS_BASE_SIZE)),
        values.get(FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS, 0),
        TdConfig(
            v(FIELD_ATTRIBUTES_FIXED0), v(FIELD_ATTRIBUTES_FIXED1), v(FIELD_XFAM_FIXED0), v(FIELD_XFAM_FIXED1),
            v(FIELD_MAX_VCPUS_PER_TD),
            tuple((v(FIELD_CPUID_CONFIG_LEAVES + i), v(FIELD_CPUID_CONFIG_VALUES + 2 * i),
                   v(FIELD_CPUID_CONFIG_VALUES + 2 * i + 1)) for i in range(v(FIELD_NUM_CPUID_CONFIG))),
        ),
    )


# --- what is posted and not merged ----------------------------------------------------------------------------


@implements("POSTED.dpamt", "Dynamic PAMT is asked for when TDX_FEATURES0 bit 36 was set as the features were read at "
            "boot; an update reads them no more", "LNX tip x86/tdx 01a43c55ae5f..e61c837817ac")
def dynamic_pamt(host: Host, features0: int) -> bool:
    """POSTED.dpamt."""
    return host.series.dynamic_pamt and bool(features0 & FEATURES0_DYNAMIC_PAMT)


EXT_FIELDS = ((FIELD_EXT_REQUIRED_PAGES, M32), (FIELD_EXT_REQUIRED, 1))
"""What is read when extensions may be initialised: pages that they need, and whether any feature needs them."""


@implements("POSTED.ext", "module extensions are looked at when TDX_FEATURES0 bit 39 was set at boot; an update asks "
            "by the same value", "LNX posted 2026-06-18, v2 03/17 and 06/17")
def may_need_extensions(host: Host) -> bool:
    """POSTED.ext."""
    info = host.state.sysinfo
    return host.series.extensions and info is not None and bool(info.features0 & FEATURES0_EXT)
