"""Numbers at the edge between Linux and SEAM: errno, software-defined results, leaves, Linux's own structures.

Linux keeps its own headers of what P-SEAMLDR and the TDX module define; so does this file.  That both sides mean the
same bytes is a test, not an assumption.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum

from seamref.layout import Array, Field, Layout, Raw, u8, u16, u32, u64
from seamref.spec import clause


class Errno(IntEnum):
    """What a kernel function returns: 0, or minus the error number."""

    OK = 0
    EPERM = -1
    EIO = -5
    ENXIO = -6
    ENOMEM = -12
    EACCES = -13
    EFAULT = -14
    EBUSY = -16
    ENODEV = -19
    EINVAL = -22
    ENOSPC = -28
    ERANGE = -34
    ECANCELED = -125
    EOPNOTSUPP = -95

    def __str__(self) -> str:
        return "0" if self is Errno.OK else f"-{self.name}"


ERRNO_TEXT: dict[Errno, str] = {
    Errno.EPERM: "Operation not permitted",
    Errno.EIO: "Input/output error",
    Errno.ENXIO: "No such device or address",
    Errno.ENOMEM: "Cannot allocate memory",
    Errno.EACCES: "Permission denied",
    Errno.EFAULT: "Bad address",
    Errno.EBUSY: "Device or resource busy",
    Errno.ENODEV: "No such device",
    Errno.EINVAL: "Invalid argument",
    Errno.ENOSPC: "No space left on device",
    Errno.ERANGE: "Numerical result out of range",
    Errno.ECANCELED: "Operation canceled",
    Errno.EOPNOTSUPP: "Operation not supported",
}
"""What a shell prints for an errno."""

# --- results that only software makes ---------------------------------------------------------------------

TDX_ERROR = 1 << 63
TDX_SW_ERROR = TDX_ERROR | 0xFF << 40
TDX_SEAMCALL_VMFAILINVALID = TDX_SW_ERROR | 0xFFFF0000
TDX_SEAMCALL_GP = TDX_SW_ERROR | 13
TDX_SEAMCALL_UD = TDX_SW_ERROR | 6
TDX_SEAMCALL_STATUS_MASK = 0xFFFFFFFF00000000

# --- statuses that Linux knows by name ----------------------------------------------------------------------

TDX_SUCCESS = 0
TDX_RND_NO_ENTROPY = 0x8000020300000000
TDX_SYS_BUSY = 0x8000020200000000
TDX_INTERRUPTED_RESUMABLE = 0x8000000300000000
TDX_OPERAND_INVALID_RAX = 0xC000010000000000
TDX_UPDATE_COMPAT_SENSITIVE = 0x8000051200000000
SEAMLDR_RND_NO_ENTROPY = 0x8000000000030001

RDRAND_RETRY_LOOPS = 10
"""Attempts in total, the first included."""


class Leaf(IntEnum):
    """SEAMCALL leaves that Linux and the UEFI loader use (RAX; bit 63 selects P-SEAMLDR)."""

    SEAMLDR_INFO = 0x8000000000000000
    SEAMLDR_INSTALL = 0x8000000000000001
    SEAMLDR_SHUTDOWN = 0x8000000000000002
    SEAMLDR_SEAMINFO = 0x8000000000000003
    TDH_VP_ENTER = 0
    TDH_VP_FLUSH = 18
    TDH_SYS_KEY_CONFIG = 31
    TDH_SYS_INIT = 33
    TDH_SYS_RD = 34
    TDH_SYS_LP_INIT = 35
    TDH_SYS_TDMR_INIT = 36
    TDH_SYS_CONFIG = 45
    TDH_SYS_SHUTDOWN = 52
    TDH_SYS_UPDATE = 53
    TDH_PHYMEM_PAMT_ADD = 58
    TDH_EXT_INIT = 60
    TDH_EXT_MEM_ADD = 61
    TDH_SYS_DISABLE = 69
    TDH_QUOTE_INIT = 100

    @property
    def title(self) -> str:
        """As the documents write it: TDH.SYS.INIT, SEAMLDR.INSTALL."""
        first, _, rest = self.name.partition("_")
        return f"{first}.{rest.replace('_', '.')}"


def leaf_title(fn: int) -> str:
    """The name of a leaf, with its version if that is not 0, or its number."""
    try:
        return Leaf(fn).title
    except ValueError:
        version = fn >> 16
        if 0 < version < 256 and fn & 0xFFFF in Leaf._value2member_map_:
            return f"{Leaf(fn & 0xFFFF).title} version {version}"
        return f"leaf 0x{fn:X}"


def leaf_version(leaf: Leaf, version: int) -> int:
    """RAX of a leaf of the module in a version: bits 15:0 the leaf, bits 23:16 the version."""
    return int(leaf) | version << 16


AVOID_COMPAT_SENSITIVE = 1 << 16
"""RCX bit 16 of TDH.SYS.SHUTDOWN on modules that report TDX_FEATURES0 bit 47."""

# --- global metadata fields that Linux reads (TDH.SYS.RD: RDX = id, R8 = value) -----------------------------

FIELD_MINOR_VERSION = 0x0800000100000003
FIELD_MAJOR_VERSION = 0x0800000100000004
FIELD_UPDATE_VERSION = 0x0800000100000005
FIELD_TDX_FEATURES0 = 0x0A00000300000008
FIELD_MODULE_HV = 0x8900000100000000
FIELD_MAX_TDMRS = 0x9100000100000008
FIELD_MAX_RESERVED_PER_TDMR = 0x9100000100000009
FIELD_PAMT_4K_ENTRY_SIZE = 0x9100000100000010
FIELD_PAMT_2M_ENTRY_SIZE = 0x9100000100000011
FIELD_PAMT_1G_ENTRY_SIZE = 0x9100000100000012
FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS = 0x9100000100000013
FIELD_EXT_REQUIRED_PAGES = 0x3100000200000000
FIELD_EXT_REQUIRED = 0x3100000000000001
FIELD_TDR_BASE_SIZE = 0x9800000100000000
FIELD_TDCS_BASE_SIZE = 0x9800000100000100
FIELD_TDVPS_BASE_SIZE = 0x9800000100000200
FIELD_ATTRIBUTES_FIXED0 = 0x1900000300000000
FIELD_ATTRIBUTES_FIXED1 = 0x1900000300000001
FIELD_XFAM_FIXED0 = 0x1900000300000002
FIELD_XFAM_FIXED1 = 0x1900000300000003
FIELD_NUM_CPUID_CONFIG = 0x9900000100000004
FIELD_MAX_VCPUS_PER_TD = 0x9900000100000008
FIELD_CPUID_CONFIG_LEAVES = 0x9900000300000400
FIELD_CPUID_CONFIG_VALUES = 0x9900000300000500

NR_CPUID_CONFIGS = 128
"""Entries that Linux has room for."""

FEATURES0_TD_PRESERVING = 1 << 1
FEATURES0_NO_RBP_MOD = 1 << 18
FEATURES0_DYNAMIC_PAMT = 1 << 36
FEATURES0_EXT = 1 << 39
FEATURES0_UPDATE_COMPATIBILITY = 1 << 47
FEATURES0_QUOTE = 1 << 50

CONFIG_DYNAMIC_PAMT = 1 << 16
"""R8 bit 16 of TDH.SYS.CONFIG, beside the global KeyID."""

# --- Linux's structures -------------------------------------------------------------------------------------

SEAMLDR_INFO = Layout(
    "struct seamldr_info",
    (
        Field("version", u32, "structure version", 0),
        Field("attributes", u32, "bit 31: debug build", 4),
        Field("vendor_id", u32, "", 8),
        Field("build_date", u32, "", 12),
        Field("build_num", u16, "", 16),
        Field("minor_version", u16, "P-SEAMLDR minor", 18),
        Field("major_version", u16, "P-SEAMLDR major", 20),
        Field("update_version", u16, "P-SEAMLDR update", 22),
        Field("acm_x2apicid", u32, "processor that launched NP-SEAMLDR", 24),
        Field("num_remaining_updates", u32, "", 28),
        Field("seam_info", Raw(128), "first 128 bytes of SEAMEXTEND", 32),
        Field("seam_ready", u8, "", 160),
        Field("seam_debug", u8, "", 161),
        Field("p_seam_ready", u8, "", 162),
        Field("reserved", Raw(93), "", 163),
    ),
    size=256,
    source="LNX seamldr.c",
    doc="What SEAMLDR.INFO stores, as Linux declares it (256-byte aligned).",
)

SEAMLDR_PARAMS = Layout(
    "struct seamldr_params",
    (
        Field("version", u32, "0", 0),
        Field("scenario", u32, "1 = update; 0 = load, which Linux never uses", 4),
        Field("sigstruct_paddr", u64, "4 KiB aligned", 8),
        Field("reserved", Raw(104), "0", 16, 0),
        Field("num_module_pages", u64, "0..496", 120),
        Field("module_pages_pa_list", Array(u64, 496), "unused entries 0", 128),
    ),
    size=4096,
    source="LNX seamldr.c",
    doc="What SEAMLDR.INSTALL takes, as Linux fills it: one page.",
)

SCENARIO_LOAD, SCENARIO_UPDATE = 0, 1
MODULE_MAX_PAGES = 496

ARGS = ("rcx", "rdx", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15", "rbx", "rdi", "rsi")
"""Members of ``struct tdx_module_args`` in its order."""

clause("LNX.args", "the argument block: 13 u64, RCX RDX R8..R15 RBX RDI RSI, 104 bytes", "LNX shared/tdx.h")

TDX_MODULE_ARGS = Layout(
    "struct tdx_module_args",
    tuple(Field(name, u64, name.upper(), 8 * index) for index, name in enumerate(ARGS)),
    size=104,
    source="LNX shared/tdx.h",
    doc="Software only: what the assembly helpers load before and store after SEAMCALL.",
)


@dataclass(frozen=True, slots=True)
class Args:
    """LNX.args: ``struct tdx_module_args`` as a value."""

    rcx: int = 0
    rdx: int = 0
    r8: int = 0
    r9: int = 0
    r10: int = 0
    r11: int = 0
    r12: int = field(default=0, kw_only=True)
    r13: int = field(default=0, kw_only=True)
    r14: int = field(default=0, kw_only=True)
    r15: int = field(default=0, kw_only=True)
    rbx: int = field(default=0, kw_only=True)
    rdi: int = field(default=0, kw_only=True)
    rsi: int = field(default=0, kw_only=True)
