"""The guest-state and host-state areas of a VMCS, declared once.

Each row says which field of the VMCS holds which part of the processor, which VM-exit control lets an exit save it,
and which VM-entry control lets an entry load it (SDM vol. 3C sections 25.4, 25.5, 27.3.2, 28.3 and 28.5).  Saving,
loading, the checks, the book's table and the tests read these rows.  SEAMCALL and SEAMRET are an exit and an entry
by these rules (X2).

Not carried: SMBASE (the field is undefined but after SMM VM exits, section 28.3.4), the PDPTEs (PAE paging is not
modelled), guest interrupt status, PML index and the VMX-preemption timer (no processor state outside a guest).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from operator import attrgetter
from struct import Struct
from typing import TYPE_CHECKING, Any, TypeVar

from seamref.arch.vmcs import BY_NAME, VmcsField, get

if TYPE_CHECKING:
    from seamref.arch.lp import Lp


@dataclass(frozen=True, slots=True)
class GuestRow:
    """One field of the guest-state area.

    ``lp``     the processor's attribute
    ``save``   bit of the VM-exit controls that makes an exit save it, ``None``: every exit does
    ``load``   bit of the VM-entry controls that makes an entry load it, ``None``: every entry does
    ``check``  what VM entry demands of the value, see :data:`CHECKS`
    """

    field: str
    lp: str
    section: str
    save: int | None = None
    load: int | None = None
    check: str = ""

    @property
    def vmcs(self) -> VmcsField:
        return BY_NAME[self.field]


@dataclass(frozen=True, slots=True)
class HostRow:
    """One part of the processor that a VM exit sets.

    ``field``  the field of the host-state area that it comes from; empty: ``value`` whatever the VMCS says
    ``load``   bit of the VM-exit controls that makes an exit load it, ``None``: every exit does
    """

    lp: str
    section: str
    field: str = ""
    value: Any = 0
    load: int | None = None
    check: str = ""


SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
UNUSABLE = 1 << 16
"""Access rights of a segment register that was loaded with a null selector (bit 16, section 25.4.1)."""
CODE_64, CODE_32, DATA, BUSY_TSS = 0xA09B, 0xC09B, 0xC093, 0x008B
"""Access rights that a VM exit gives: CS by the host's size, the data segments, TR (section 28.5.2)."""
FLAT_64: Mapping[str, int] = {
    "guest_cs_ar": CODE_64, "guest_ldtr_ar": UNUSABLE, "guest_tr_ar": BUSY_TSS, "guest_tr_limit": 0x67,
    **{f"guest_{name}_ar": DATA for name in ("ss", "ds", "es", "fs", "gs")},
    **{f"guest_{name}_limit": 0xFFFFFFFF for name in ("cs", "ss", "ds", "es", "fs", "gs")},
}
"""Segments of a 64-bit guest whose segments are flat, for a VMCS that is filled by hand."""
LONG_MODE = 0x500
"""EFER.LME and EFER.LMA."""

SAVE_DEBUG, HOST_64, SAVE_PAT, LOAD_PAT, SAVE_EFER, LOAD_EFER = 2, 9, 18, 19, 20, 21
LOAD_PERF, CLEAR_BNDCFGS, CLEAR_RTIT, CLEAR_LBR, CLEAR_UINV, LOAD_CET, LOAD_PKRS, SAVE_PERF = (
    12, 23, 25, 26, 27, 28, 29, 30)
"""Bits of the VM-exit controls (section 25.7.1)."""
IA32E_GUEST = 9
ENTRY_DEBUG, ENTRY_PERF, ENTRY_PAT, ENTRY_EFER, ENTRY_BNDCFGS, ENTRY_RTIT, ENTRY_UINV, ENTRY_CET, ENTRY_LBR, \
    ENTRY_PKRS = 2, 13, 14, 15, 16, 18, 19, 20, 21, 22
"""Bits of the VM-entry controls (section 25.8.1)."""

_REG, _SEG, _TAB, _RIP, _NON = "28.3.1", "28.3.2", "28.3.2", "28.3.3", "28.3.4"

GUEST: tuple[GuestRow, ...] = (
    GuestRow("guest_rip", "rip", _RIP, check="canonical"),
    GuestRow("guest_rsp", "rsp", _RIP),
    GuestRow("guest_rflags", "rflags", _RIP, check="rflags"),
    GuestRow("guest_ssp", "ssp", _RIP, load=ENTRY_CET),
    GuestRow("guest_cr0", "cr0", _REG),
    GuestRow("guest_cr3", "cr3", _REG),
    GuestRow("guest_cr4", "cr4", _REG),
    GuestRow("guest_dr7", "dr7", _REG, SAVE_DEBUG, ENTRY_DEBUG, "low 32 bits"),
    GuestRow("guest_debugctl", "debugctl", _REG, SAVE_DEBUG, ENTRY_DEBUG),
    GuestRow("guest_sysenter_cs", "sysenter_cs", _REG),
    GuestRow("guest_sysenter_esp", "sysenter_esp", _REG, check="canonical"),
    GuestRow("guest_sysenter_eip", "sysenter_eip", _REG, check="canonical"),
    GuestRow("guest_perf_global_ctrl", "perf_global_ctrl", _REG, SAVE_PERF, ENTRY_PERF),
    GuestRow("guest_ia32_pat", "pat", _REG, SAVE_PAT, ENTRY_PAT, "memory types"),
    GuestRow("guest_ia32_efer", "efer", _REG, SAVE_EFER, ENTRY_EFER),
    GuestRow("guest_bndcfgs", "bndcfgs", _REG, load=ENTRY_BNDCFGS),
    GuestRow("guest_rtit_ctl", "rtit_ctl", _REG, load=ENTRY_RTIT),
    GuestRow("guest_ia32_s_cet", "s_cet", _REG, load=ENTRY_CET),
    GuestRow("guest_interrupt_ssp_table", "interrupt_ssp_table", _REG, load=ENTRY_CET, check="canonical"),
    GuestRow("guest_lbr_ctl", "lbr_ctl", _REG, load=ENTRY_LBR),
    GuestRow("guest_pkrs", "pkrs", _REG, load=ENTRY_PKRS, check="low 32 bits"),
    GuestRow("guest_uinv", "uinv", _REG, load=ENTRY_UINV),
    *(GuestRow(f"guest_{name}_{part}", f"{name}_{part}", _SEG,
               check="canonical" if part == "base" and name in ("fs", "gs", "tr") else "")
      for name in SEGMENTS for part in ("selector", "base", "limit", "ar")),
    GuestRow("guest_gdtr_base", "gdtr_base", _TAB, check="canonical"),
    GuestRow("guest_gdtr_limit", "gdtr_limit", _TAB, check="low 16 bits"),
    GuestRow("guest_idtr_base", "idtr_base", _TAB, check="canonical"),
    GuestRow("guest_idtr_limit", "idtr_limit", _TAB, check="low 16 bits"),
    GuestRow("guest_pending_debug", "pending_debug", _NON),
)
"""The guest-state area, but for activity state and interruptibility, which the processor keeps in other forms."""

HOST: tuple[HostRow, ...] = (
    HostRow("rip", "28.5.3", "host_rip", check="canonical"),
    HostRow("rsp", "28.5.3", "host_rsp"),
    HostRow("rflags", "28.5.3", value=2),
    HostRow("ssp", "28.5.3", "host_ssp", load=LOAD_CET),
    HostRow("cr3", "28.5.1", "host_cr3"),
    HostRow("cr4", "28.5.1", "host_cr4"),
    HostRow("dr7", "28.5.1", value=0x400),
    HostRow("debugctl", "28.5.1", value=0),
    HostRow("sysenter_cs", "28.5.1", "host_sysenter_cs"),
    HostRow("sysenter_esp", "28.5.1", "host_sysenter_esp", check="canonical"),
    HostRow("sysenter_eip", "28.5.1", "host_sysenter_eip", check="canonical"),
    HostRow("perf_global_ctrl", "28.5.1", "host_perf_global_ctrl", load=LOAD_PERF),
    HostRow("pat", "28.5.1", "host_ia32_pat", load=LOAD_PAT, check="memory types"),
    HostRow("efer", "28.5.1", "host_ia32_efer", load=LOAD_EFER),
    HostRow("bndcfgs", "28.5.1", value=0, load=CLEAR_BNDCFGS),
    HostRow("rtit_ctl", "28.5.1", value=0, load=CLEAR_RTIT),
    HostRow("s_cet", "28.5.1", "host_ia32_s_cet", load=LOAD_CET),
    HostRow("interrupt_ssp_table", "28.5.1", "host_interrupt_ssp_table", load=LOAD_CET, check="canonical"),
    HostRow("lbr_ctl", "28.5.1", value=0, load=CLEAR_LBR),
    HostRow("pkrs", "28.5.1", "host_pkrs", load=LOAD_PKRS),
    HostRow("uinv", "28.5.1", value=0, load=CLEAR_UINV),
    *(HostRow(f"{name}_selector", "28.5.2", f"host_{name}_selector", check="selector")
      for name in ("cs", "ss", "ds", "es", "fs", "gs", "tr")),
    *(HostRow(f"{name}_base", "28.5.2", value=0) for name in ("cs", "ss", "ds", "es")),
    HostRow("fs_base", "28.5.2", "host_fs_base", check="canonical"),
    HostRow("gs_base", "28.5.2", "host_gs_base", check="canonical"),
    HostRow("tr_base", "28.5.2", "host_tr_base", check="canonical"),
    *(HostRow(f"{name}_limit", "28.5.2", value=0xFFFFFFFF) for name in ("cs", "ss", "ds", "es", "fs", "gs")),
    HostRow("tr_limit", "28.5.2", value=0x67),
    HostRow("tr_ar", "28.5.2", value=BUSY_TSS),
    HostRow("ldtr_selector", "28.5.2", value=0),
    HostRow("ldtr_base", "28.5.2", value=0),
    HostRow("ldtr_limit", "28.5.2", value=0),
    HostRow("ldtr_ar", "28.5.2", value=UNUSABLE),
    HostRow("gdtr_base", "28.5.2", "host_gdtr_base", check="canonical"),
    HostRow("gdtr_limit", "28.5.2", value=0xFFFF),
    HostRow("idtr_base", "28.5.2", "host_idtr_base", check="canonical"),
    HostRow("idtr_limit", "28.5.2", value=0xFFFF),
    HostRow("pending_debug", "28.5.5", value=0),
    HostRow("mov_ss_blocking", "28.5.5", value=False),
    HostRow("sti_blocking", "28.5.5", value=False),
    HostRow("monitor_armed", "28.5.6", value=False),
)
"""What a VM exit makes of the processor.  CR0 and the access rights of CS, SS, DS, ES, FS, GS follow from the fields
by a rule, see :func:`load_host`.  The fields of an LDTR that is not usable are undefined; zero is *chosen*."""

CR0_KEPT = 0xFFFFFFFF_7FFAFFD0
"""Bits of CR0 that neither exit nor entry modifies: ET, NW, CD, and the reserved 15:6, 17, 28:19, 63:32."""


# --- the values that are demanded


def is_canonical(address: int, width: int = 48) -> bool:
    """Bits 63:width-1 all equal."""
    top = address >> (width - 1)
    return top in (0, (1 << (65 - width)) - 1)


def _memory_types(value: int) -> bool:
    return all(byte in (0, 1, 4, 5, 6, 7) for byte in value.to_bytes(8, "little"))


CHECKS: dict[str, Callable[[int], bool]] = {
    "canonical": is_canonical,
    "low 16 bits": lambda value: value >> 16 == 0,
    "low 32 bits": lambda value: value >> 32 == 0,
    "memory types": _memory_types,
    "rflags": lambda value: bool(value & 2) and not value & 0xFFFFFFFFFFC08028,
    "selector": lambda value: not value & 7,
}
"""Demands of VM entry on a value (sections 27.2.2, 27.2.3 and 27.3.1); a field that is not loaded is not judged."""


def _on(controls: int, bit: int | None) -> bool:
    return bit is None or bool(controls >> bit & 1)


def bad_guest_field(data: bytes | bytearray) -> GuestRow | None:
    """The first row of the guest-state area whose value VM entry refuses."""
    return _bad(_guest_asked(get(data, "entry_ctls") & _LOADS), data)


def bad_host_field(data: bytes | bytearray) -> HostRow | None:
    """The first row of the host-state area whose value VM entry refuses."""
    return _bad(_host_asked(get(data, "exit_ctls") & _HOST_LOADS), data)


# --- moving state.  What controls choose is worked out once for each value of them; then all fields move at once.

_LETTER = {2: "H", 4: "I", 8: "Q"}
_Row = TypeVar("_Row", GuestRow, HostRow)


def _by_offset(rows: Iterable[_Row]) -> list[_Row]:
    return sorted(rows, key=lambda row: BY_NAME[row.field].offset)


def _struct(rows: list[_Row], start: int = 0) -> Struct:
    """One format for fields that need not be neighbours, ascending; bytes between them are skipped."""
    at, parts = start, ["<"]
    for row in rows:
        field = BY_NAME[row.field]
        parts.append(f"{field.offset - at}x{_LETTER[field.size]}")
        at = field.offset + field.size
    return Struct("".join(parts))


def _runs(rows: list[GuestRow]) -> Iterator[list[GuestRow]]:
    """The rows as runs without a gap, so that packing writes nothing in between."""
    run: list[GuestRow] = []
    for row in rows:
        if run and run[-1].vmcs.offset + run[-1].vmcs.size != row.vmcs.offset:
            yield run
            run = []
        run.append(row)
    yield run


_SAVES = sum({1 << row.save for row in GUEST if row.save is not None})
_LOADS = sum({1 << row.load for row in GUEST if row.load is not None})
_HOST_LOADS = sum({1 << row.load for row in HOST if row.load is not None})


@cache
def _saved(controls: int) -> tuple[tuple[Struct, int, Callable[[Lp], tuple[int, ...]]], ...]:
    """(format, offset, the processor's values) of each run that an exit saves."""
    plan = []
    for run in _runs(_by_offset(row for row in GUEST if _on(controls, row.save))):
        start, names = run[0].vmcs.offset, [row.lp for row in run]
        values = attrgetter(*names) if len(names) > 1 else lambda lp, name=names[0]: (getattr(lp, name),)
        plan.append((_struct(run, start), start, values))
    return tuple(plan)


@cache
def _loaded(controls: int) -> tuple[Struct, tuple[str, ...]]:
    rows = _by_offset(row for row in GUEST if _on(controls, row.load))
    return _struct(rows), tuple(row.lp for row in rows)


@cache
def _host_loaded(controls: int) -> tuple[Struct, tuple[str, ...], tuple[tuple[str, Any], ...]]:
    """Fields and where they go, then what is set whatever the fields say."""
    rows = [row for row in HOST if _on(controls, row.load)]
    fields = _by_offset(row for row in rows if row.field)
    return _struct(fields), tuple(row.lp for row in fields), tuple((row.lp, row.value) for row in rows if not row.field)


_Asked = tuple[Struct, tuple[tuple[_Row, Callable[[int], bool]], ...]]


def _asked(rows: Iterable[_Row], controls: int) -> _Asked[_Row]:
    found = _by_offset(row for row in rows if row.field and row.check and _on(controls, row.load))
    return _struct(found), tuple((row, CHECKS[row.check]) for row in found)


@cache
def _guest_asked(controls: int) -> _Asked[GuestRow]:
    return _asked(GUEST, controls)


@cache
def _host_asked(controls: int) -> _Asked[HostRow]:
    return _asked(HOST, controls)


def _bad(asked: _Asked[_Row], data: bytes | bytearray) -> _Row | None:
    packed, rows = asked
    for (row, is_good), value in zip(rows, packed.unpack_from(data), strict=True):
        if (value or row.check == "rflags") and not is_good(value):  # zero satisfies every other demand
            return row
    return None


def save_guest(lp: Lp, data: bytearray) -> None:
    """Sections 28.3.1 to 28.3.3: store the interrupted context, as the VM-exit controls of this VMCS demand."""
    for packed, offset, values in _saved(get(data, "exit_ctls") & _SAVES):
        packed.pack_into(data, offset, *values(lp))


def load_guest(lp: Lp, data: bytes | bytearray) -> None:
    """Section 27.3.2: load what the VM-entry controls let an entry load."""
    controls = get(data, "entry_ctls")
    cr0 = lp.cr0
    packed, names = _loaded(controls & _LOADS)
    for name, value in zip(names, packed.unpack_from(data), strict=True):
        setattr(lp, name, value)
    lp.cr0 = lp.cr0 & ~CR0_KEPT | cr0 & CR0_KEPT
    if not controls >> ENTRY_EFER & 1:  # section 27.3.2.1: LMA and LME follow the control
        lp.efer = lp.efer & ~LONG_MODE | LONG_MODE * (controls >> IA32E_GUEST & 1)


def load_host(lp: Lp, data: bytes | bytearray) -> None:
    """Sections 28.5.1 to 28.5.6: what a VM exit makes of the processor."""
    controls = get(data, "exit_ctls")
    packed, names, fixed = _host_loaded(controls & _HOST_LOADS)
    for name, value in zip(names, packed.unpack_from(data), strict=True):
        setattr(lp, name, value)
    for name, value in fixed:
        setattr(lp, name, value)
    host_64 = controls >> HOST_64 & 1
    if not controls >> LOAD_EFER & 1:
        lp.efer = lp.efer & ~LONG_MODE | LONG_MODE * host_64
    lp.cr0 = get(data, "host_cr0") & ~CR0_KEPT | lp.cr0 & CR0_KEPT
    lp.cs_ar = CODE_64 if host_64 else CODE_32
    lp.ss_ar = DATA if lp.ss_selector else DATA | UNUSABLE
    lp.ds_ar = DATA if lp.ds_selector else UNUSABLE
    lp.es_ar = DATA if lp.es_selector else UNUSABLE
    lp.fs_ar = DATA if lp.fs_selector else UNUSABLE
    lp.gs_ar = DATA if lp.gs_selector else UNUSABLE
