"""VMCS fields: encoding, width and where this machine keeps them in the 4 KiB region.

The byte offsets of a VMCS region are implementation specific.  Those that the loaders write with plain stores
(PSL, NPS) are *measured* and kept; where no source gives an offset, one in an unused part is *chosen*.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from struct import Struct

from seamref.errors import NotModelled
from seamref.spec import CHOSEN, MEASURED, Mark

NONE = (1 << 64) - 1
"""The current-VMCS pointer when there is none, and the VMCS link pointer when it links nothing."""

VMCS_SIZE = 4096


@dataclass(frozen=True, slots=True)
class VmcsField:
    """``encoding`` as VMREAD takes it (0xFFFFFFFF: no encoding), ``size`` bytes at ``offset`` of the region."""

    name: str
    encoding: int
    size: int
    offset: int
    mark: Mark

    @property
    def read_only(self) -> bool:
        """VM-exit information fields (encoding bits 11:10 = 1) cannot be written."""
        return (self.encoding >> 10) & 3 == 1


_NO = 0xFFFFFFFF
_MEASURED = (
    # name, encoding, size, offset
    ("revision_id", _NO, 4, 0x000),
    ("host_cs_selector", 0x0C02, 2, 0x0C2),
    ("host_ss_selector", 0x0C04, 2, 0x0C4),
    ("host_fs_selector", 0x0C08, 2, 0x0C8),
    ("host_gs_selector", 0x0C0A, 2, 0x0CA),
    ("host_tr_selector", 0x0C0C, 2, 0x0CC),
    ("proc_based", 0x4002, 4, 0x120),
    ("pin_based", 0x4000, 4, 0x128),
    ("exit_ctls", 0x400C, 4, 0x15C),
    ("guest_rip", 0x681E, 8, 0x1D8),
    ("entry_ctls", 0x4012, 4, 0x2B8),
    ("host_rsp", 0x6C14, 8, 0x300),
    ("host_rip", 0x6C16, 8, 0x308),
    ("host_ia32_pat", 0x2C00, 8, 0x310),
    ("host_ia32_efer", 0x2C02, 8, 0x318),
    ("host_cr0", 0x6C00, 8, 0x328),
    ("host_cr3", 0x6C02, 8, 0x330),
    ("host_cr4", 0x6C04, 8, 0x338),
    ("host_idtr_base", 0x6C0E, 8, 0x340),
    ("host_gdtr_base", 0x6C0C, 8, 0x348),
    ("host_fs_base", 0x6C06, 8, 0x350),
    ("host_gs_base", 0x6C08, 8, 0x358),
    ("host_ia32_s_cet", 0x6C18, 8, 0x458),
    ("host_ssp", 0x6C1A, 8, 0x460),
)
_CHOSEN = (
    ("launch_state", _NO, 4, 0x008),
    ("host_es_selector", 0x0C00, 2, 0x0C0),
    ("host_ds_selector", 0x0C06, 2, 0x0C6),
    ("vmcs_link_pointer", 0x2800, 8, 0x800),
    ("exit_reason", 0x4402, 4, 0x808),
    ("vm_instruction_error", 0x4400, 4, 0x80C),
    ("exit_qualification", 0x6400, 8, 0x810),
    ("exit_instruction_length", 0x440C, 4, 0x818),
    ("secondary_proc_based", 0x401E, 4, 0x81C),
    ("tertiary_proc_based", 0x2034, 8, 0x820),
    ("eptp", 0x201A, 8, 0x828),
    ("shared_eptp", 0x203C, 8, 0x830),
    ("td_keyid", 0x4026, 4, 0x838),
    ("vpid", 0x0000, 4, 0x83C),
    ("entry_msr_load_address", 0x200A, 8, 0x840),
    ("entry_msr_load_count", 0x4014, 4, 0x848),
    ("exit_interruption_info", 0x4404, 4, 0x84C),
    ("guest_physical_address", 0x2400, 8, 0x850),
    ("host_perf_global_ctrl", 0x2C04, 8, 0x880),
    ("host_pkrs", 0x2C06, 8, 0x888),
    ("host_tr_base", 0x6C0A, 8, 0x890),
    ("host_sysenter_esp", 0x6C10, 8, 0x898),
    ("host_sysenter_eip", 0x6C12, 8, 0x8A0),
    ("host_interrupt_ssp_table", 0x6C1C, 8, 0x8A8),
    ("host_sysenter_cs", 0x4C00, 4, 0x8B0),
)
GUEST_AREA = 0x900
"""Offset of the guest-state area but for the RIP: what a VM exit saves lies in one piece (*chosen*)."""
_SEGMENTS = ("es", "cs", "ss", "ds", "fs", "gs", "ldtr", "tr")
_GUEST = (
    # name, encoding, size: 64-bit and natural-width fields first, so that every field is aligned
    ("guest_rsp", 0x681C, 8), ("guest_rflags", 0x6820, 8),
    ("guest_cr0", 0x6800, 8), ("guest_cr3", 0x6802, 8), ("guest_cr4", 0x6804, 8), ("guest_dr7", 0x681A, 8),
    *((f"guest_{name}_base", 0x6806 + 2 * i, 8) for i, name in enumerate(_SEGMENTS)),
    ("guest_gdtr_base", 0x6816, 8), ("guest_idtr_base", 0x6818, 8), ("guest_pending_debug", 0x6822, 8),
    ("guest_sysenter_esp", 0x6824, 8), ("guest_sysenter_eip", 0x6826, 8),
    ("guest_ia32_s_cet", 0x6828, 8), ("guest_ssp", 0x682A, 8), ("guest_interrupt_ssp_table", 0x682C, 8),
    ("guest_debugctl", 0x2802, 8), ("guest_ia32_pat", 0x2804, 8), ("guest_ia32_efer", 0x2806, 8),
    ("guest_perf_global_ctrl", 0x2808, 8), ("guest_bndcfgs", 0x2812, 8), ("guest_rtit_ctl", 0x2814, 8),
    ("guest_lbr_ctl", 0x2816, 8), ("guest_pkrs", 0x2818, 8),
    *((f"guest_{name}_limit", 0x4800 + 2 * i, 4) for i, name in enumerate(_SEGMENTS)),
    ("guest_gdtr_limit", 0x4810, 4), ("guest_idtr_limit", 0x4812, 4),
    *((f"guest_{name}_ar", 0x4814 + 2 * i, 4) for i, name in enumerate(_SEGMENTS)),
    ("guest_interruptibility", 0x4824, 4), ("guest_activity_state", 0x4826, 4), ("guest_sysenter_cs", 0x482A, 4),
    *((f"guest_{name}_selector", 0x0800 + 2 * i, 2) for i, name in enumerate(_SEGMENTS)),
    ("guest_uinv", 0x0814, 2),
)


def _in_one_piece(at: int) -> Iterator[tuple[str, int, int, int]]:
    for name, encoding, size in _GUEST:
        yield name, encoding, size, at
        at += size


FIELDS: tuple[VmcsField, ...] = tuple(VmcsField(*row, MEASURED) for row in _MEASURED) + tuple(
    VmcsField(*row, CHOSEN) for row in (*_CHOSEN, *_in_one_piece(GUEST_AREA))
)
BY_NAME = {field.name: field for field in FIELDS}
BY_ENCODING = {field.encoding: field for field in FIELDS if field.encoding != _NO}
_SLOT = {field.name: (Struct({2: "<H", 4: "<I", 8: "<Q"}[field.size]), field.offset) for field in FIELDS}


def get(region: bytes | bytearray, name: str) -> int:
    """A field of a VMCS region by its name here."""
    packed, offset = _SLOT[name]
    value: int = packed.unpack_from(region, offset)[0]
    return value


def put(region: bytearray, name: str, value: int) -> None:
    """Replace a field of a VMCS region; wider values are cut as a VMWRITE of a narrower field does."""
    packed, offset = _SLOT[name]
    packed.pack_into(region, offset, value & ((1 << 8 * packed.size) - 1))


# --- what the loaders preset in a transfer VMCS (PSL seam_vmcs_setup.c, NPS vmcs64.c)

NON_CANONICAL_RIP = 0x1000000000000000
"""Guest RIP preset in a transfer VMCS, so that SEAMRET without a preceding SEAMCALL cannot enter."""

HOST_CR0, HOST_CR4 = 0x80010031, 0xB526A8
EXIT_CONTROLS, ENTRY_CONTROLS = 0x573C1204, 0x007EE004
HOST_PAT, HOST_S_CET, HOST_EFER = 0x0006060606060606, 0x15, 0xD00
HOST_SELECTORS: Mapping[str, int] = {"cs": 0x08, "ss": 0x10, "fs": 0x18, "gs": 0x18, "tr": 0x20}

CONTROL_MSRS = (0x48D, 0x48E, 0x48F, 0x490)
TRANSFER_MSRS = (0x480, 0x486, 0x487, 0x488, 0x489, *CONTROL_MSRS)
"""The capability MSRs that the presets depend on, in the order in which the loaders read them."""


def default_controls(msrs: Mapping[int, int]) -> dict[str, int]:
    """Controls from the VMX capability MSRs (address -> value): default1 bits, and of the wanted ones those allowed."""
    low = 0xFFFFFFFF
    return {
        "exit_ctls": (msrs[0x48F] & low | EXIT_CONTROLS) & msrs[0x48F] >> 32,
        "entry_ctls": (msrs[0x490] & low | ENTRY_CONTROLS) & msrs[0x490] >> 32,
        "pin_based": msrs[0x48D] & low,
        "proc_based": msrs[0x48E] & low,
    }


def transfer_fields(msrs: Mapping[int, int]) -> dict[str, int]:
    """Fields of a transfer VMCS that do not depend on where its software lies; ``msrs``: TRANSFER_MSRS -> value."""
    return {
        "revision_id": msrs[0x480] & 0x7FFFFFFF,
        "guest_rip": NON_CANONICAL_RIP,
        "host_cr0": HOST_CR0 | (msrs[0x486] & msrs[0x487]),
        "host_cr4": HOST_CR4 | (msrs[0x488] & msrs[0x489]),
        **{f"host_{name}_selector": value for name, value in HOST_SELECTORS.items()},
        "host_ia32_pat": HOST_PAT,
        "host_ia32_s_cet": HOST_S_CET,
        "host_ia32_efer": HOST_EFER,
        **default_controls(msrs),
    }


def make_vmcs(fields: Mapping[str, int]) -> bytes:
    """A VMCS region with these fields, all else zero."""
    region = bytearray(VMCS_SIZE)
    for name, value in fields.items():
        put(region, name, value)
    return bytes(region)


def field_of(encoding: int) -> VmcsField:
    """The field with this encoding (bit 0, the "high" access of 64-bit fields, ignored)."""
    found = BY_ENCODING.get(encoding & ~1 if (encoding >> 13) & 3 == 1 else encoding)
    if found is None:
        raise NotModelled(f"VMCS field with encoding 0x{encoding:X}", "VMX.vmcs_fields")
    return found


class CachedVmcs:
    """A VMCS that is active on a processor: its data live in the processor, memory may be stale."""

    __slots__ = ("data", "in_SEAM", "launched")

    def __init__(self, data: bytearray, launched: bool, in_SEAM: bool) -> None:
        self.data = data
        self.launched = launched
        self.in_SEAM = in_SEAM

    def copy(self) -> CachedVmcs:
        return CachedVmcs(bytearray(self.data), self.launched, self.in_SEAM)
