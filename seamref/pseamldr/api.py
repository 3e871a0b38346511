"""The ABI of P-SEAMLDR: leaves, status codes, and the structures that callers hand over or get back."""

from __future__ import annotations

from enum import Enum, IntEnum

from seamref.arch.structures import SEAMEXTEND
from seamref.layout import Array, Bit, Bits, Field, Layout, reserved, u8, u16, u32, u64
from seamref.spec import MEASURED, implements

COMPONENT = "P-SEAMLDR"
"""How trace events name this software."""

_API = "PSL include/pseamldr_api_defs.h"


class Leaf(IntEnum):
    """SEAMLDR leaf numbers; all 64 bits of RAX are compared."""

    INFO = 0x8000000000000000
    INSTALL = 0x8000000000000001
    SHUTDOWN = 0x8000000000000002
    SEAMINFO = 0x8000000000000003


class Status(IntEnum):
    """What a leaf returns in RAX: bit 63 error, bits 31:16 class, bits 15:0 number."""

    SUCCESS = 0
    EBADPARAM = 0x8000000000000000
    EBADCALL = 0x8000000000000003
    EBADHANDOFF = 0x8000000000000004
    ENOMEM = 0x8000000000010002
    EUNSPECERR = 0x8000000000010003
    EUNSUPCPU = 0x8000000000010004
    EBADSIG = 0x8000000000020000
    EBADHASH = 0x8000000000020001
    EINTERRUPT = 0x8000000000030000
    ENOENTROPY = 0x8000000000030001

    @property
    def error_class(self) -> ErrorClass | None:
        """Bits 31:16 of an error; ``None`` for SUCCESS."""
        return None if self is Status.SUCCESS else ErrorClass(self >> 16 & 0xFFFF)


class ErrorClass(Enum):
    """Bits 31:16 of an error status."""

    ECPARAM = 0
    EPLAT = 1
    MODULE = 2
    RETRY = 3

    @property
    def meaning(self) -> str:
        """Whose fault it is."""
        return {
            ErrorClass.ECPARAM: "the caller's parameters",
            ErrorClass.EPLAT: "the platform",
            ErrorClass.MODULE: "the module's image or signature",
            ErrorClass.RETRY: "try again",
        }[self]


class Recoverability(IntEnum):
    """INSTALL's RDX: whether the module that was there before still runs."""

    RECOVERABLE = 0
    UNRECOVERABLE = 1


class Scenario(IntEnum):
    """SEAMLDR_PARAMS.scenario."""

    LOAD = 0
    UPDATE = 1


PAGE = 4096
MAX_MODULE_PAGES = 496
MAX_LPS = 1024
"""Bits of the session bitmaps: x2APIC ids below this can take part."""
MAX_CPUIDS = 255
INSERT_TRIES = 5
CODE_REGION = 2 << 20
"""Bytes set aside for the module's code, whatever its size."""
VALID_INTEL = 0x1FF
"""SEAMEXTEND.valid after an installation."""

SEAMLDR_PARAMS = Layout(
    "SEAMLDR_PARAMS",
    (
        Field("version", u32, "of this structure", 0, 0),
        Field("scenario", u32, "0 LOAD, 1 UPDATE", 4),
        Field("sigstruct_pa", u64, "shared physical address of SEAM_SIGSTRUCT, 4 KiB aligned", 8),
        reserved("reserved", 104, 16),
        Field("num_module_pages", u64, "4 KiB pages of the image, at most 496", 120),
        Field("mod_pages_pa_list", Array(u64, MAX_MODULE_PAGES), "shared physical address of each, 4 KiB aligned", 128),
    ),
    size=4096,
    source=_API,
    doc="Operand of SEAMLDR.INSTALL; the last logical processor's copy counts.",
)

SEAMLDR_INFO = Layout(
    "SEAMLDR_INFO",
    (
        Field("version", u32, "of this structure", 0),
        Field("attributes", Bits(4, (Bit("reserved", 30, 0), Bit("debug", 31, 31, "1: debug build"))), "of the build",
            4),
        Field("vendor_id", u32, "0x8086", 8),
        Field("build_date", u32, "decimal YYYYMMDD", 12),
        Field("build_num", u16, "", 16),
        Field("minor", u16, "version", 18),
        Field("major", u16, "version", 20),
        reserved("reserved_0", 2, 22),
        Field("acm_x2apic", u32, "processor that launched NP-SEAMLDR; SHUTDOWN must end there", 24),
        Field("num_remaining_updates", u32, "1.0: reserved", 28),
        Field("seamextend", SEAMEXTEND, "the register as it is now", 32),
        reserved("reserved_1", 88, 168),
    ),
    size=256,
    source=_API,
    doc="What SEAMLDR.INFO stores.",
)

HANDOFF_DATA_HEADER = Layout(
    "HANDOFF_DATA_HEADER",
    (
        Field("valid", u8, "not 0: valid", 0),
        Field("reserved", u8, "not checked", 1),
        Field("hv", u16, "handoff version of the data", 2),
        Field("size", u32, "bytes behind this header", 4),
    ),
    size=8,
    source="PSL src/common/data_structures/pseamldr_data_types.h",
    doc="First bytes of the module's data region when the old module has prepared an update.",
)


@implements("ABI.leaf", "SEAMLDR leaves are 8000000000000000H to 8000000000000003H, compared in all 64 bits", _API,
            MEASURED)
def get_leaf(rax: int) -> Leaf | None:
    """ABI.leaf: which leaf RAX names; ``None`` for an unknown one."""
    return Leaf(rax) if rax in _LEAVES else None


_LEAVES = frozenset(int(leaf) for leaf in Leaf)
