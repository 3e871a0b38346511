"""Global metadata: TDH.SYS.RD, TDH.SYS.RDALL, and the field ids they know (TDXM global_sys_fields_lookup.h)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, View, leaf
from seamref.tdxmodule.cpuid_config import ARCH_CAPABILITIES_CONFIG, configurable
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status
from seamref.tdxmodule.structures import (
    ATTRIBUTES_FIXED1,
    CONFIG_FLAGS_FIXED0,
    CONFIG_FLAGS_FIXED1,
    MAX_CMRS,
    MAX_RESERVED,
    MAX_TDMRS,
    MAX_VCPUS_PER_TD,
    PAGE,
    PAMT_ENTRY,
    TDCS_PAGES,
    TDVPS_PAGES,
    XFAM_FIXED1,
)
from seamref.tdxmodule.system.info import attributes_fixed0, config_values, platform_fms, xfam_fixed0
from seamref.tdxmodule.system.platform import later

S = Status
KNOWN_FMS = (0xD06D0, 0xA06E0, 0xA06D0, 0xA06F3, 0xC06F2, 0x806F8)
"""Parts that 1.5.05 knows, the newest first, each in its latest stepping (1.5.01: A06F0H)."""
L2_CTLS, L2_DEBUG_CTLS = 0b11, 0b111
NONE = (1 << 64) - 1
CONTEXT = 7 << 52
"""Field id bits 54:52: 0 system, 1 TD, 2 vCPU."""
LAST_ELEMENT, LAST_FIELD = 34, 38
RESERVED_BITS = 0xF << LAST_ELEMENT | 0x1FF << LAST_FIELD | 7 << 47 | 1 << 55 | 1 << 62 | 0xFF << 24
"""Last element 37:34, last field 46:38, and bits no field id has.  Size 33:32, increment 50, write mask 51 and the
non-architectural bit 63 are ignored where a single field is asked for."""


def key_of(id: int) -> tuple[int, int]:
    """What names a field: its class (61:56) and its code (23:0)."""
    return id >> 56 & 0x3F, id & 0xFFFFFF


def no_vmcs_field(id: int) -> bool:
    """A field id of class 0 of a vCPU, where TD VMCS fields are, whose code is no VMCS encoding (15 bits)."""
    kind, code = key_of(id)
    return kind == 0 and code >> 15 != 0


@dataclass(frozen=True, slots=True)
class SysField:
    """``count`` fields of ``elements`` elements each, with consecutive ids; ``value`` reads an element by its index."""

    id: int
    name: str
    value: Callable[[Call, int], int]
    count: int = 1
    guest: bool = False
    elements: int = 1
    late: bool = False
    """Since 1.5.05."""

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


def _config_leaf(c: Call, i: int) -> int:
    """Leaf and subleaf that TD_PARAMS entry ``i`` configures; all ones behind the last."""
    rows = configurable(later(c))
    return rows[i].id if i < len(rows) else NONE


def _config_value(c: Call, i: int) -> int:
    """EAX and EBX, or ECX and EDX, of the bits that entry ``i // 2`` may set."""
    rows = configurable(later(c))
    if i // 2 >= len(rows):
        return 0
    values = config_values(c, rows[i // 2])
    low, high = (values.ecx, values.edx) if i % 2 else (values.eax, values.ebx)
    return low | high << 32


def _allowed_fms(c: Call) -> tuple[int, ...]:
    """The platform's family, model and stepping, and the older parts behind it that a migrated TD may claim."""
    fms = platform_fms(c)
    at = next((i for i, known in enumerate(KNOWN_FMS) if known & ~0xF == fms & ~0xF), len(KNOWN_FMS))
    known = [part if later(c) or part & ~0xF != 0xA06F0 else 0xA06F0 for part in KNOWN_FMS]
    return (fms, *known[at + 1 :])


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
    SysField(0x9800000100000101, "TDCS_SIZE_PER_L2_VM", _const(PAGE)),
    SysField(0x9800000100000200, "TDVPS_BASE_SIZE", _const(TDVPS_PAGES * PAGE)),
    SysField(0x9800000100000201, "TDVPS_SIZE_PER_L2_VM", _const(3 * PAGE)),
    SysField(0x1900000300000000, "ATTRIBUTES_FIXED0", lambda c, i: attributes_fixed0(c), guest=True),
    SysField(0x1900000300000001, "ATTRIBUTES_FIXED1", _const(ATTRIBUTES_FIXED1), guest=True),
    SysField(0x1900000300000002, "XFAM_FIXED0", lambda c, i: xfam_fixed0(c), guest=True),
    SysField(0x1900000300000003, "XFAM_FIXED1", _const(XFAM_FIXED1), guest=True),
    SysField(0x9900000100000004, "NUM_CPUID_CONFIG", lambda c, i: len(configurable(later(c)))),
    SysField(0x9900000300000006, "CONFIG_FLAGS_FIXED0", _const(CONFIG_FLAGS_FIXED0)),
    SysField(0x9900000300000007, "CONFIG_FLAGS_FIXED1", _const(CONFIG_FLAGS_FIXED1)),
    SysField(0x9900000100000008, "MAX_VCPUS_PER_TD", _const(MAX_VCPUS_PER_TD), late=True),
    SysField(0x9900000300000400, "CPUID_CONFIG_LEAVES", _config_leaf, 32),
    SysField(0x9900000300000500, "CPUID_CONFIG_VALUES", _config_value, 32, elements=2),
    SysField(0x9900000300000600, "IA32_ARCH_CAPABILITIES_CONFIG_MASK", _const(ARCH_CAPABILITIES_CONFIG)),
    SysField(0x9900000100000800, "NUM_ALLOWED_FMS", lambda c, i: len(_allowed_fms(c))),
    SysField(0x9900000100000801, "NUM_DISALLOWED_FMS", _const(0)),
    SysField(0x9900000300000810, "ALLOWED_FMS", lambda c, i: (*_allowed_fms(c), *[0] * 64)[i], 64),
    SysField(0x9900000300000850, "DISALLOWED_FMS", _const(0), 64),
    SysField(0xA000000300000000, "MIG_ATTRIBUTES", _const(0)),
    SysField(0x2000000100000001, "MIN_EXPORT_VERSION", _const(0), guest=True),
    SysField(0x2000000100000002, "MAX_EXPORT_VERSION", _const(0), guest=True),
    SysField(0x2000000100000003, "MIN_IMPORT_VERSION", _const(0), guest=True),
    SysField(0x2000000100000004, "MAX_IMPORT_VERSION", _const(0), guest=True),
    SysField(0xA000000100000010, "MAX_MIGS", _const(512)),
    SysField(0xA000000000000020, "NUM_IMMUTABLE_STATE_PAGES", _const(4)),
    SysField(0xA000000000000021, "NUM_TD_STATE_PAGES", _const(2)),
    SysField(0xA000000000000022, "NUM_VP_STATE_PAGES", _const(5)),
    SysField(0xA100000100000000, "MAX_SERV_TDS", _const(1)),
    SysField(0xA100000300000001, "SERVTD_ATTR_FIXED0", _const(0x000007FF00000001)),
    SysField(0xA100000300000002, "SERVTD_ATTR_FIXED1", _const(0)),
    SysField(0xA200000100000000, "GUEST_L2_GPA_ATTR_MASK", _const(0x807F)),
    SysField(0xA200000300000001, "VM_CTLS_FIXED0", _const(1)),
    SysField(0xA200000300000002, "VM_CTLS_FIXED1", _const(0)),
    SysField(0xA200000300000003, "VCPU_L2_CTLS_FIXED0", _const(L2_CTLS)),
    SysField(0xA200000300000004, "VCPU_L2_CTLS_FIXED1", _const(0)),
    SysField(0xA200000300000005, "VCPU_L2_DEBUG_CTLS_FIXED0", _const(L2_DEBUG_CTLS)),
    SysField(0xA200000300000006, "VCPU_L2_DEBUG_CTLS_FIXED1", _const(0)),
)
"""System metadata in the order of TDH.SYS.RD.  MODULE_HV, MIN_UPDATE_HV and NO_DOWNGRADE are the build's constants;
what SHUTDOWN and UPDATE enforce is the sigstruct's, which may be stricter."""

FIELD_BY_NAME: dict[str, SysField] = {field.name: field for field in FIELDS}
_Element: TypeAlias = tuple[int, SysField, int]


def _chain(late: bool) -> tuple[_Element, ...]:
    return tuple((f.id + i, f, i) for f in FIELDS if late or not f.late for i in range(f.count * f.elements))


_CHAINS = {late: _chain(late) for late in (False, True)}
_INDEXES = {late: {key_of(id): at for at, (id, _, _) in enumerate(chain)} for late, chain in _CHAINS.items()}


def chain_of(c: Call) -> tuple[tuple[int, SysField, int], ...]:
    """Every element id that this build reads, with its field and its index in it: 354 in 1.5.01, 355 in 1.5.05."""
    return _CHAINS[later(c)]


def index_of(c: Call, id: int) -> int | None:
    """Where in the chain an id stands."""
    return _INDEXES[later(c)].get(key_of(id))


def field_id(name: str, index: int = 0) -> int:
    """The id of a system field by name."""
    return FIELD_BY_NAME[name].id + index


def following(c: Call, id: int) -> int:
    """The next readable id, or all ones."""
    at, chain = index_of(c, id), chain_of(c)
    assert at is not None
    return chain[at + 1][0] if at + 1 < len(chain) else NONE


def read_field(c: Call, id: int) -> int:
    """The value of a known field."""
    at = index_of(c, id)
    assert at is not None
    _, field, index = chain_of(c)[at]
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
    Check("SYS.RD.unknown", "no such field", lambda c: index_of(c, _asked(c)) is None,
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
    c.out(r8=read_field(c, id), rdx=following(c, id))
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
    Check("SYS.RDALL.unknown", "no field starts with the id in R8", lambda c: _no_field(c),
          Answer(S.TDX_METADATA_FIELD_ID_INCORRECT), _A),
), "TDH.SYS.RDALL (leaf 37): conditions in order.")


def _no_field(c: Call) -> bool:
    """A list starts with the first element of a field, named exactly: size and increment bits count here."""
    at = index_of(c, _start(c))
    if at is None:
        return True
    id, field, index = chain_of(c)[at]
    return index % field.elements != 0 or id != _start(c)


LIST_HEADER, ELEMENT = 8, 8
"""Bytes of a list's header {u16 size, u16 sequences, u32 0}, and of a sequence header or an element."""


def sequence_header(id: int, elements: int, fields: int) -> int:
    """The id of the first field, with the last element and the last field of the sequence."""
    return id | elements - 1 << LAST_ELEMENT | fields - 1 << LAST_FIELD


def _run(chain: tuple[_Element, ...], at: int, room: int) -> int:
    """How many fields from ``at`` on form one sequence of at most ``room`` bytes: ids follow, same shape."""
    id, first, _ = chain[at]
    step, fields = first.elements, 0
    while at + fields * step < len(chain) and (fields + 1) * step * ELEMENT <= room:
        next_id, field, _ = chain[at + fields * step]
        if key_of(next_id) != key_of(id + fields * step) or (field.elements, field.size) != (step, first.size):
            break
        fields += 1
    return fields


@implements("SYS.RDALL.effect", "a metadata list of as many fields as fit a page; R8 = where to go on", _A)
def _rdall(c: Call) -> Result:
    """SYS.RDALL.effect: a header, then sequences of consecutive fields: {header, value, value, ...}."""
    out, count, chain = bytearray(LIST_HEADER), 0, chain_of(c)
    at = index_of(c, _start(c))
    assert at is not None
    while at < len(chain):
        id, first, _ = chain[at]
        fields = _run(chain, at, PAGE - len(out) - ELEMENT)
        if fields == 0:
            break
        out += sequence_header(id, first.elements, fields).to_bytes(ELEMENT, "little")
        for _, field, index in chain[at : at + fields * first.elements]:
            out += field.value(c, index).to_bytes(ELEMENT, "little")
        count += 1
        at += fields * first.elements
    c.port.write(c.rdx, len(out).to_bytes(2, "little") + count.to_bytes(2, "little") + bytes(4) + out[LIST_HEADER:])
    c.out(r8=chain[at][0] if at < len(chain) else NONE)
    return SUCCESS if at == len(chain) else Result(S.TDX_METADATA_LIST_OVERFLOW)


leaf(37, "TDH.SYS.RDALL", "all metadata fields", stages=(RDALL,), effects=(_rdall,), ones=("r8",), before_ready=True,
     inputs="RDX buffer, R8 first field id")
