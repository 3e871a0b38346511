"""P_SEAMLDR_RANGE wiped, the embedded image copied and relocated."""

from __future__ import annotations

from seamref.arch.software import Ud2
from seamref.firmware.np_seamldr.checks import NP_COPY, NP_RELOCATION, ask
from seamref.firmware.np_seamldr.state import CORE, ELF, MASK64, Np
from seamref.pseamldr.memory_constants import CODE_LINEAR
from seamref.spec import MEASURED, implements


@implements("NP_SEAMLDR.wipe",
            "zero from P_SEAMLDR_RANGE.base to the table, and the table's last 2 KiB; MCHECK's 2 KiB "
            "stay.  This clears the very mutex that this run holds, and acm_x2apicid", CORE, MEASURED)
def wipe(np: Np) -> None:
    """NP_SEAMLDR.wipe: row 17."""
    start = np.range.base
    if not np.state.base <= start <= np.sysinfo:
        raise Ud2(f"page fault at 0x{start:X}: outside the module's map of SEAMRR")
    np.port.zero(start, np.sysinfo - start)
    np.port.zero(np.sysinfo + 2048, 2048)


@implements("NP_SEAMLDR.copy_image", "the embedded image to SEAMRR end - 4 KiB - CCodeRgnSize", CORE, MEASURED)
def copy_image(np: Np) -> None:
    """NP_SEAMLDR.copy_image: row 18."""
    ask(np, NP_COPY)
    np.port.write(np.code, np.port.read(np.image_source, int(np.build.image_size)))


@implements("NP_SEAMLDR.relocate",
            "each RELA section: 64-bit store of linear base + r_addend at r_offset", ELF, MEASURED)
def relocate(np: Np) -> None:
    """NP_SEAMLDR.relocate: row 19, in place; the tables are read from the memory that is being patched."""
    np.set(failed=not _relocate_sections(np))
    ask(np, NP_RELOCATION)


def _relocate_sections(np: Np) -> bool:
    base = np.linear(CODE_LINEAR)
    e_shoff, e_shentsize, e_shnum = _image(np, 40, 8), _image(np, 58, 2), _image(np, 60, 2)
    for i in range(e_shnum):
        header = e_shoff + i * e_shentsize
        if _image(np, header + 4, 4) != 4:
            continue
        addr, size, entsize = _image(np, header + 16, 8), _image(np, header + 32, 8), _image(np, header + 56, 8)
        if entsize == 0:
            if np.is_10:
                raise Ud2("division by the section's entry size 0 (1.0)")
            return False
        for k in range(size // entsize):
            entry = addr + k * entsize
            if _image(np, entry + 8, 8) != 8:
                return False
            at, addend = _image(np, entry, 8), _image(np, entry + 16, 8)
            np.port.write_int(_image_address(np, at, 8), base + addend & MASK64)
    return True


def _image(np: Np, offset: int, size: int) -> int:
    return np.port.read_int(_image_address(np, offset, size), size)


def _image_address(np: Np, offset: int, size: int) -> int:
    """Where an offset of the image is; the module's map ends with SEAMRR, behind it is a page fault."""
    at = np.code + offset & MASK64
    if not np.state.base <= at <= np.end - size:
        raise Ud2(f"page fault at 0x{at:X}: outside the module's map of SEAMRR")
    return at
