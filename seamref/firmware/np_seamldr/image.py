"""P_SEAMLDR_RANGE wiped, the embedded image copied and relocated."""

from __future__ import annotations

from seamref.arch.outcome import Vector
from seamref.arch.software import SoftwareFault
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.errors import NotModelled
from seamref.firmware.np_seamldr.checks import NP_COPY, NP_RELOCATION, ask
from seamref.firmware.np_seamldr.state import CORE, ELF, MASK64, Np
from seamref.layout import Layout
from seamref.pseamldr.elf import ELF64_EHDR, ELF64_RELA, ELF64_SHDR, R_X86_64_RELATIVE, SHT_RELA
from seamref.pseamldr.memory_constants import CODE_LINEAR
from seamref.spec import MEASURED, implements

MAX_ENTRIES = 1 << 20
LINE = 64
"""Bytes that MOVDIR64B stores; its destination must be a multiple."""
TABLE_HALF = P_SYS_INFO_TABLE.offset_of("np_seamldr_mutex")
"""Where MCHECK's half of P_SYS_INFO_TABLE ends and NP-SEAMLDR's begins."""


@implements("NP_SEAMLDR.wipe",
            "zero from P_SEAMLDR_RANGE.base to the table by MOVDIR64B (#GP unless 64-byte aligned), and the "
            "table's last 2 KiB; MCHECK's 2 KiB stay.  This clears the very mutex that this run holds, "
            "and acm_x2apicid", CORE, MEASURED)
def wipe(np: Np) -> None:
    """NP_SEAMLDR.wipe."""
    start = np.range.base
    if start % LINE:
        raise SoftwareFault(Vector.GP, f"MOVDIR64B to 0x{start:X}: not a multiple of {LINE}")
    np.zero(start, LINE)
    np.zero(start, np.sysinfo - start & MASK64)
    np.zero(np.sysinfo + TABLE_HALF, P_SYS_INFO_TABLE.size - TABLE_HALF)


@implements("NP_SEAMLDR.copy_image", "the embedded image to SEAMRR end - 4 KiB - CCodeRgnSize", CORE, MEASURED)
def copy_image(np: Np) -> None:
    """NP_SEAMLDR.copy_image."""
    ask(np, NP_COPY)
    np.write(np.code, np.read(np.image_source, int(np.build.image_size)))


@implements("NP_SEAMLDR.relocate",
            "each RELA section: 64-bit store of linear base + r_addend at r_offset; every field of the "
            "tables is read again after every store", ELF, MEASURED)
def relocate(np: Np) -> None:
    """NP_SEAMLDR.relocate: in place; the tables are read from the memory that is being patched."""
    np.set(failed=not _relocate_sections(np))
    ask(np, NP_RELOCATION)


def _relocate_sections(np: Np) -> bool:
    """``False``: a row refuses.  Every field is read anew after every store, which may have changed it."""
    base = np.linear(CODE_LINEAR)
    i = 0
    while i < _ehdr(np, "e_shnum"):
        section = _ehdr(np, "e_shoff") + i * _ehdr(np, "e_shentsize")
        if _shdr(np, section, "sh_type") == SHT_RELA and not _relocate_section(np, section, base):
            return False
        i += 1
    return True


def _relocate_section(np: Np, section: int, base: int) -> bool:
    if _shdr(np, section, "sh_entsize") == 0 and not np.is_10:
        return False
    k = 0
    while k < _entries(np, section):
        if k > MAX_ENTRIES:
            raise NotModelled(f"a relocation section of more than {MAX_ENTRIES} entries", "NP_SEAMLDR.relocate")
        entry = _shdr(np, section, "sh_addr") + k * _shdr(np, section, "sh_entsize")
        if _rela(np, entry, "r_info") != R_X86_64_RELATIVE:
            return False
        at, addend = _rela(np, entry, "r_offset"), _rela(np, entry, "r_addend")
        np.write_int(np.code + at & MASK64, base + addend & MASK64)
        k += 1
    return True


def _entries(np: Np, section: int) -> int:
    size, one = _shdr(np, section, "sh_size"), _shdr(np, section, "sh_entsize")
    if one == 0:
        raise SoftwareFault(Vector.DE, "division by a relocation section's entry size 0")
    return size // one


def _field(np: Np, layout: Layout, offset: int, name: str) -> int:
    """A field of a structure at an offset of the image as it lies in P_SEAMLDR_RANGE."""
    kind, at = layout.resolve(name)
    return np.read_int(np.code + offset + at & MASK64, kind.size)


def _ehdr(np: Np, name: str) -> int:
    return _field(np, ELF64_EHDR, 0, name)


def _shdr(np: Np, section: int, name: str) -> int:
    return _field(np, ELF64_SHDR, section, name)


def _rela(np: Np, entry: int, name: str) -> int:
    return _field(np, ELF64_RELA, entry, name)
