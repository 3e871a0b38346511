"""VMCS fields: encoding, width and where this machine keeps them in the 4 KiB region.

The byte offsets of a VMCS region are implementation specific.  Those that the loaders write with plain stores
(PSL, NPS) are *measured* and kept; where no source gives an offset, one in an unused part is *chosen*.
"""

from __future__ import annotations

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
    ("vmcs_link_pointer", 0x2800, 8, 0x800),
    ("exit_reason", 0x4402, 4, 0x808),
    ("vm_instruction_error", 0x4400, 4, 0x80C),
    ("exit_qualification", 0x6400, 8, 0x810),
    ("exit_instruction_length", 0x440C, 4, 0x818),
    ("guest_interruptibility", 0x4824, 4, 0x81C),
    ("guest_rflags", 0x6820, 8, 0x820),
    ("guest_debugctl", 0x2802, 8, 0x828),
    ("guest_pending_debug", 0x6822, 8, 0x830),
    ("guest_rsp", 0x681C, 8, 0x838),
    ("guest_cr0", 0x6800, 8, 0x840),
    ("guest_cr3", 0x6802, 8, 0x848),
    ("guest_cr4", 0x6804, 8, 0x850),
    ("guest_dr7", 0x681A, 8, 0x858),
    ("guest_fs_base", 0x680E, 8, 0x860),
    ("guest_gs_base", 0x6810, 8, 0x868),
    ("guest_gdtr_base", 0x6816, 8, 0x870),
    ("guest_idtr_base", 0x6818, 8, 0x878),
    ("guest_ia32_pat", 0x2804, 8, 0x880),
    ("guest_ia32_efer", 0x2806, 8, 0x888),
    ("guest_cs_ar", 0x4816, 4, 0x890),
    ("guest_ss_ar", 0x4818, 4, 0x894),
    ("guest_ssp", 0x682A, 8, 0x898),
    ("guest_ia32_s_cet", 0x6828, 8, 0x8A0),
    ("secondary_proc_based", 0x401E, 4, 0x8A8),
    ("td_keyid", 0x4026, 4, 0x8AC),
    ("tertiary_proc_based", 0x2034, 8, 0x8B0),
    ("eptp", 0x201A, 8, 0x8B8),
    ("shared_eptp", 0x203C, 8, 0x8C0),
    ("vpid", 0x0000, 4, 0x8C8),
    ("entry_msr_load_count", 0x4014, 4, 0x8CC),
    ("entry_msr_load_address", 0x200A, 8, 0x8D0),
    ("guest_activity_state", 0x4826, 4, 0x8D8),
    ("guest_cs_selector", 0x0802, 4, 0x8DC),
    ("exit_interruption_info", 0x4404, 4, 0x8E0),
    ("guest_physical_address", 0x2400, 8, 0x8E8),
    ("guest_ss_selector", 0x0804, 4, 0x8F0),
    ("guest_fs_selector", 0x0808, 4, 0x8F4),
    ("guest_gs_selector", 0x080A, 4, 0x8F8),
)
FIELDS: tuple[VmcsField, ...] = tuple(VmcsField(*row, MEASURED) for row in _MEASURED) + tuple(
    VmcsField(*row, CHOSEN) for row in _CHOSEN
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
