"""Global metadata: TDH.SYS.RD, TDH.SYS.RDALL, and the field ids they know (TDXM global_sys_fields_lookup.h)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, View, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status
from seamref.tdxmodule.structures import (
    ATTRIBUTES_FIXED0,
    ATTRIBUTES_FIXED1,
    MAX_CMRS,
    MAX_RESERVED,
    MAX_TDMRS,
    PAGE,
    PAMT_ENTRY,
    TDCS_PAGES,
    TDVPS_PAGES,
    XFAM_FIXED0,
    XFAM_FIXED1,
)

S = Status
NONE = (1 << 64) - 1
CONTEXT = 7 << 52
"""Field id bits 54:52: 0 system, 1 TD, 2 vCPU."""
RESERVED_BITS = 0xF << 34 | 0x1FF << 38 | 7 << 47 | 1 << 50 | 1 << 51 | 1 << 55 | 1 << 62 | 0xFF << 24
"""Last element 37:34, last field 46:38, and bits no system field id has."""


@dataclass(frozen=True, slots=True)
class SysField:
    """A field, or ``count`` fields with consecutive ids; ``value`` reads one by its index."""

    id: int
    name: str
    value: Callable[[Call, int], int]
    count: int = 1
    guest: bool = False

    @property
    def size(self) -> int:
        """Bytes of one element: 1 << id[33:32]."""
        return 1 << (self.id >> 32 & 3)


def _table(name: str) -> Callable[[Call, int], int]:
    return lambda c, i: View(P_SYS_INFO_TABLE, c.linear, c.table.base).num(name.format(i))


def _build(name: str) -> Callable[[Call, int], int]:
    return lambda c, i: int(c.build[name])


def _const(value: int) -> Callable[[Call, int], int]:
    return lambda c, i: value


def _header(name: str) -> Callable[[Call, int], int]:
    return lambda c, i: c.handoff.num(name)


FIELDS: tuple[SysField, ...] = (
    SysField(0x0000000200000000, "NUM_PKGS", _table("tot_num_sockets")),
    SysField(0x0000000200000001, "PKG_FMS", _table("socket_cpuid_table[{}]"), 8),
    SysField(0x0800000200000000, "VENDOR_ID", _const(0x8086), guest=True),
    SysField(0x8800000200000001, "BUILD_DATE", _build("build_date")),
    SysField(0x8800000100000002, "BUILD_NUM", _build("build_num")),
    SysField(0x0800000100000003, "MINOR_VERSION", _build("minor"), guest=True),
    SysField(0x0800000100000004, "MAJOR_VERSION", _build("major"), guest=True),
    SysField(0x0800000100000005, "UPDATE_VERSION", _build("update")),
    SysField(0x0800000100000006, "INTERNAL_VERSION", _build("internal")),
    SysField(0x8900000100000000, "MODULE_HV", _build("module_hv")),
    SysField(0x8900000100000001, "MIN_UPDATE_HV", _build("min_update_hv")),
    SysField(0x8900000000000002, "NO_DOWNGRADE", _build("no_downgrade")),
    SysField(0x8900000100000003, "NUM_HANDOFF_PAGES", lambda c, i: c.table.num("num_handoff_pages")),
    SysField(0x8900000000000004, "HANDOFF_DATA_VALID", _header("valid")),
    SysField(0x8900000100000005, "HANDOFF_DATA_HV", _header("hv")),
    SysField(0x8900000200000006, "HANDOFF_DATA_SIZE", _header("size")),
    SysField(0x0A00000200000000, "SYS_ATTRIBUTES", _const(0), guest=True),
    SysField(0x0A00000000000001, "NUM_TDX_FEATURES", _const(1), guest=True),
    SysField(0x0A00000300000008, "TDX_FEATURES0", _build("tdx_features0"), guest=True),
    SysField(0x9000000100000000, "NUM_CMRS", _const(MAX_CMRS)),
    SysField(0x9000000300000080, "CMR_BASE", _table("cmr[{}].base"), MAX_CMRS),
    SysField(0x9000000300000100, "CMR_SIZE", _table("cmr[{}].size"), MAX_CMRS),
    SysField(0x9100000100000008, "MAX_TDMRS", _const(MAX_TDMRS)),
    SysField(0x9100000100000009, "MAX_RESERVED_PER_TDMR", _const(MAX_RESERVED)),
    SysField(0x9100000100000010, "PAMT_4K_ENTRY_SIZE", _const(PAMT_ENTRY.size)),
    SysField(0x9100000100000011, "PAMT_2M_ENTRY_SIZE", _const(PAMT_ENTRY.size)),
    SysField(0x9100000100000012, "PAMT_1G_ENTRY_SIZE", _const(PAMT_ENTRY.size)),
    SysField(0x9800000100000000, "TDR_BASE_SIZE", _const(PAGE)),
    SysField(0x9800000100000100, "TDCS_BASE_SIZE", _const(TDCS_PAGES * PAGE)),
    SysField(0x9800000100000200, "TDVPS_BASE_SIZE", _const(TDVPS_PAGES * PAGE)),
    SysField(0x1900000300000000, "ATTRIBUTES_FIXED0", _const(ATTRIBUTES_FIXED0), guest=True),
    SysField(0x1900000300000001, "ATTRIBUTES_FIXED1", _const(ATTRIBUTES_FIXED1), guest=True),
    SysField(0x1900000300000002, "XFAM_FIXED0", _const(XFAM_FIXED0), guest=True),
    SysField(0x1900000300000003, "XFAM_FIXED1", _const(XFAM_FIXED1), guest=True),
    SysField(0x9900000100000004, "NUM_CPUID_CONFIG", _const(0)),
    SysField(0x9900000100000008, "MAX_VCPUS_PER_TD", _const(576)),
)
"""System metadata in the order of TDH.SYS.RD.  MODULE_HV, MIN_UPDATE_HV and NO_DOWNGRADE are the build's constants;
what SHUTDOWN and UPDATE enforce is the sigstruct's, which may be stricter."""

FIELD_BY_NAME: dict[str, SysField] = {field.name: field for field in FIELDS}
_ALL: tuple[tuple[int, SysField, int], ...] = tuple((f.id + i, f, i) for f in FIELDS for i in range(f.count))
_INDEX = {id: at for at, (id, _, _) in enumerate(_ALL)}


def field_id(name: str, index: int = 0) -> int:
    """The id of a system field by name."""
    return FIELD_BY_NAME[name].id + index


def following(id: int) -> int:
    """The next readable id, or all ones."""
    at = _INDEX[id] + 1
    return _ALL[at][0] if at < len(_ALL) else NONE


def read_field(c: Call, id: int) -> int:
    """The value of a known field."""
    _, field, index = _ALL[_INDEX[id]]
    return field.value(c, index)


def _asked(c: Call) -> int:
    return c.rdx & ~CONTEXT


_R = "TDXM src/vmm_dispatcher/api_calls/tdh_sys_rd.c"
RD: CheckTable[Call, Answer] = CheckTable("TDH.SYS.RD", (
    Check("SYS.RD.lp", "this processor is not initialised", lambda c: not c.local.num("initialised"),
          Answer(S.TDX_SYS_LP_INIT_NOT_DONE), _R),
    Check("SYS.RD.first", "field id all ones: RDX = first field id", lambda c: _first(c),
          Answer(S.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT), _R),
    Check("SYS.RD.bits", "reserved, last-element or last-field bits are not 0",
          lambda c: bool(_asked(c) & RESERVED_BITS),
          Answer(S.TDX_METADATA_FIELD_ID_INCORRECT), _R),
    Check("SYS.RD.unknown", "no such field", lambda c: _asked(c) not in _INDEX,
          Answer(S.TDX_METADATA_FIELD_ID_INCORRECT), _R),
), "TDH.SYS.RD (leaf 34): conditions in order; no lock.")


def _first(c: Call) -> bool:
    if _asked(c) != NONE & ~CONTEXT:
        return False
    c.out(rdx=FIELDS[0].id)
    return True


@implements("SYS.RD.effect", "R8 = value, RDX = next readable field id or all ones", _R)
def _rd(c: Call) -> Result:
    """SYS.RD.effect."""
    id = _asked(c)
    c.out(r8=read_field(c, id), rdx=following(id))
    return SUCCESS


leaf(34, "TDH.SYS.RD", "one metadata field", stages=(RD,), effects=(_rd,), outputs=("r8",), ones=("rdx",),
     before_ready=True, inputs="RDX field id")

_A = "TDXM src/vmm_dispatcher/api_calls/tdh_sys_rdall.c"


def _start(c: Call) -> int:
    """The field to start with: all ones means the first."""
    asked = c.r8 & ~CONTEXT
    return FIELDS[0].id if asked == NONE & ~CONTEXT else asked


RDALL: CheckTable[Call, Answer] = CheckTable("TDH.SYS.RDALL", (
    Check("SYS.RDALL.lp", "this processor is not initialised", lambda c: not c.local.num("initialised"),
          Answer(S.TDX_SYS_LP_INIT_NOT_DONE), _A),
    Check("SYS.RDALL.rdx", "RDX not 4 KiB aligned or not a shared address", lambda c: not c.is_shared(c.rdx, PAGE),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _A),
    Check("SYS.RDALL.unknown", "no field has the id in R8", lambda c: _start(c) not in _INDEX,
          Answer(S.TDX_METADATA_FIELD_ID_INCORRECT), _A),
), "TDH.SYS.RDALL (leaf 37): conditions in order.")


@implements("SYS.RDALL.effect", "a metadata list of as many fields as fit a page; R8 = where to go on", _A)
def _rdall(c: Call) -> Result:
    """SYS.RDALL.effect: header {u16 size, u16 sequences, u32 0}, then {id, value} sequences of one element each."""
    out = bytearray(8)
    count = 0
    id = _start(c)
    while id != NONE and len(out) + 16 <= PAGE:
        out += id.to_bytes(8, "little") + read_field(c, id).to_bytes(8, "little")
        count += 1
        id = following(id)
    out[0:4] = len(out).to_bytes(2, "little") + count.to_bytes(2, "little")
    c.port.write(c.rdx, out.ljust(PAGE, b"\0"))
    c.out(r8=id)
    return SUCCESS if id == NONE else Result(S.TDX_METADATA_LIST_OVERFLOW)


leaf(37, "TDH.SYS.RDALL", "all metadata fields", stages=(RDALL,), effects=(_rdall,), ones=("r8",), before_ready=True,
     inputs="RDX buffer, R8 first field id")
