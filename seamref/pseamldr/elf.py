"""The ELF image of a TDX module as P-SEAMLDR sees it: four identification bytes, and relocations.

What the loader does not look at (type, machine, entry point, program headers) is declared here all the same, so that
images can be made and shown.  Relocation works on the image in place, after it was hashed: a refusal half way leaves
behind what was already written.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TypeAlias

from seamref.errors import SeamrefError
from seamref.layout import Buffer, Field, Layout, Raw, u8, u16, u32, u64
from seamref.spec import CHOSEN, Check, CheckTable, implements

PAGE = 4096
M64 = (1 << 64) - 1

MAGIC = b"\x7fELF"
CLASS_64, DATA_LSB, VERSION_CURRENT = 2, 1, 1
ET_DYN, EM_X86_64 = 3, 62
PT_LOAD = 1
SHT_RELA = 4
R_X86_64_RELATIVE = 8

ELF64_EHDR = Layout(
    "ELF64_EHDR",
    (
        Field("magic", Raw(4), "7F 45 4C 46", 0),
        Field("class", u8, "2: 64 bits", 4, CLASS_64),
        Field("data", u8, "1: little-endian", 5, DATA_LSB),
        Field("ident_version", u8, "1", 6, VERSION_CURRENT),
        Field("ident_rest", Raw(9), "not looked at", 7),
        Field("e_type", u16, "3: shared object; not looked at", 16),
        Field("e_machine", u16, "62: x86-64; not looked at", 18),
        Field("e_version", u32, "not looked at", 20),
        Field("e_entry", u64, "entry point; not looked at, rip_offset of the sigstruct decides", 24),
        Field("e_phoff", u64, "not looked at", 32),
        Field("e_shoff", u64, "offset of the section headers", 40),
        Field("e_flags", u32, "not looked at", 48),
        Field("e_ehsize", u16, "not looked at", 52),
        Field("e_phentsize", u16, "not looked at", 54),
        Field("e_phnum", u16, "not looked at", 56),
        Field("e_shentsize", u16, "distance of section headers in bytes; may be 0", 58),
        Field("e_shnum", u16, "number of section headers", 60),
        Field("e_shstrndx", u16, "not looked at", 62),
    ),
    size=64,
    source="PSL src/common/helpers/elf.c",
    doc="Header of an ELF image.",
)

ELF64_SHDR = Layout(
    "ELF64_SHDR",
    (
        Field("sh_name", u32, "not looked at", 0),
        Field("sh_type", u32, "4: relocations with addend; others are skipped", 4),
        Field("sh_flags", u64, "not looked at", 8),
        Field("sh_addr", u64, "where the relocations are (not sh_offset)", 16),
        Field("sh_offset", u64, "not looked at", 24),
        Field("sh_size", u64, "bytes", 32),
        Field("sh_link", u32, "not looked at", 40),
        Field("sh_info", u32, "not looked at", 44),
        Field("sh_addralign", u64, "not looked at", 48),
        Field("sh_entsize", u64, "distance of relocations in bytes; not 0", 56),
    ),
    size=64,
    source="PSL src/common/helpers/elf.c",
    doc="Section header of an ELF image.",
)

ELF64_PHDR = Layout(
    "ELF64_PHDR",
    (
        Field("p_type", u32, "1: loadable", 0),
        Field("p_flags", u32, "7: RWX", 4),
        Field("p_offset", u64, "", 8),
        Field("p_vaddr", u64, "", 16),
        Field("p_paddr", u64, "", 24),
        Field("p_filesz", u64, "bytes in the file", 32),
        Field("p_memsz", u64, "bytes in memory", 40),
        Field("p_align", u64, "", 48),
    ),
    size=56,
    source="BIN 11 releases",
    doc="Program header of an ELF image; no loader in SEAM looks at it.",
)

ELF64_RELA = Layout(
    "ELF64_RELA",
    (
        Field("r_offset", u64, "where in the image to store", 0),
        Field("r_info", u64, "8: R_X86_64_RELATIVE, symbol 0", 8, R_X86_64_RELATIVE),
        Field("r_addend", u64, "unsigned; load address + addend is stored", 16),
    ),
    size=24,
    source="PSL src/common/helpers/elf.c",
    doc="One relocation.",
)


class ElfError(Enum):
    """Which part of an image was refused; P-SEAMLDR answers EBADPARAM to all of them."""

    HEADER = "ELF header"
    SECTION = "section header"
    RELOCATION = "relocation"


@dataclass(frozen=True, slots=True)
class ElfHeader:
    """What the header rows look at: the first 16 bytes."""

    ident: bytes


@dataclass(frozen=True, slots=True)
class ElfSection:
    """What the section row looks at: ``offset`` of a section header in an image of ``size`` bytes."""

    size: int
    offset: int


@dataclass(frozen=True, slots=True)
class ElfRelocation:
    """What the relocation rows look at; a row looks only at what the rows before it have let through."""

    image: Buffer
    at: int
    entsize: int

    def field(self, name: str) -> int:
        """A field of the relocation at ``at``."""
        value: int = ELF64_RELA.peek(self.image, name, self.at)
        return value


_SRC = "PSL src/common/helpers/elf.c"

ELF_HEADER: CheckTable[ElfHeader, ElfError] = CheckTable("ELF_HEADER", (
    Check("ELF.magic", "e_ident[0..3] is not 7F 45 4C 46", lambda c: c.ident[:4] != MAGIC, ElfError.HEADER, _SRC),
    Check("ELF.class", "e_ident[4] is not 2 (64 bits)", lambda c: c.ident[4] != CLASS_64, ElfError.HEADER, _SRC),
    Check("ELF.data", "e_ident[5] is not 1 (little-endian)", lambda c: c.ident[5] != DATA_LSB, ElfError.HEADER, _SRC),
    Check("ELF.version", "e_ident[6] is not 1", lambda c: c.ident[6] != VERSION_CURRENT, ElfError.HEADER, _SRC),
), "Header of the image: nothing else in it is checked.")

ELF_SECTION: CheckTable[ElfSection, ElfError] = CheckTable("ELF_SECTION", (
    Check("ELF.section", "the section header does not lie inside the image",
          lambda c: c.offset > c.size - ELF64_SHDR.size, ElfError.SECTION, _SRC),
), "For each of e_shnum section headers.")

ELF_RELA_SECTION: CheckTable[int, ElfError] = CheckTable("ELF_RELA_SECTION", (
    Check("ELF.entsize", "sh_entsize of a section of relocations is 0", lambda entsize: entsize == 0, ElfError.SECTION,
          _SRC),
), "For each section of type RELA.")

ELF_RELOCATION: CheckTable[ElfRelocation, ElfError] = CheckTable("ELF_RELOCATION", (
    Check("ELF.rela", "the relocation does not lie inside the image",
          lambda c: c.at > len(c.image) - ELF64_RELA.size, ElfError.RELOCATION, _SRC),
    Check("ELF.r_info", "r_info is not 8 (R_X86_64_RELATIVE without symbol)",
          lambda c: c.field("r_info") != R_X86_64_RELATIVE, ElfError.RELOCATION, _SRC),
    Check("ELF.r_offset", "the 8 bytes to store do not lie inside the image",
          lambda c: c.field("r_offset") > len(c.image) - 8, ElfError.RELOCATION, _SRC),
    Check("ELF.r_addend", "r_addend is not below the size of the image",
          lambda c: c.field("r_addend") >= len(c.image), ElfError.RELOCATION, _SRC),
), "For each relocation, just before it is applied.")


@dataclass(frozen=True, slots=True)
class Relocated:
    """All relocations are applied; ``count`` of them."""

    count: int


@dataclass(frozen=True, slots=True)
class ElfRefused:
    """Refused by the row ``clause``; ``at`` is the offset looked at, ``count`` relocations were applied before."""

    error: ElfError
    clause: str
    at: int
    count: int


@dataclass(frozen=True, slots=True)
class ElfFatal:
    """A relocation set sh_entsize of its own section header (at ``at``) to 0: the loader divides by it, #DE."""

    at: int
    count: int


ElfOutcome: TypeAlias = Relocated | ElfRefused | ElfFatal


def peek_section(image: Buffer, name: str, at: int) -> int:
    """A field of the section header at ``at``, as it is in memory now."""
    where, size = _SHDR_AT[name]
    return int.from_bytes(image[at + where : at + where + size], "little")


_SHDR_AT = {field.name: (ELF64_SHDR.offset_of(field.name), field.type.size) for field in ELF64_SHDR.fields}


@implements("ELF.relocate", "header, then section headers in order, then each one's relocations in order: each is "
            "checked and applied before the next is read; 64-bit sums wrap", _SRC)
def relocate(image: bytearray, load_address: int) -> ElfOutcome:
    """ELF.relocate: patch an image of whole pages in place for ``load_address`` (bytes).

    An image without pages has no header: ELF.magic.  Header, section headers and relocations are read, field by
    field and each time they are needed, from the memory that is being patched: a relocation that hits them changes
    what follows (PSLV), with no second look at what was checked before.
    """
    size = len(image)
    if size % PAGE:
        raise SeamrefError(f"ELF image: {size} bytes, must be whole pages of {PAGE}")
    refused = ELF_HEADER.decide(ElfHeader(bytes(image[:16]).ljust(16, b"\0")))
    if refused is not None:
        return ElfRefused(refused.result, refused.id, 0, 0)
    count = 0
    i = 0
    while i < ELF64_EHDR.peek(image, "e_shnum"):
        entry_size = ELF64_EHDR.peek(image, "e_shentsize")
        at = (ELF64_EHDR.peek(image, "e_shoff") + i * entry_size) & M64
        outside = ELF_SECTION.decide(ElfSection(size, at))
        if outside is not None:
            return ElfRefused(outside.result, outside.id, at, count)
        i += 1
        if peek_section(image, "sh_type", at) != SHT_RELA:
            continue
        before = bytes(image) if entry_size == 0 else b""
        done = _relocate_section(image, load_address, at)
        count += done.count
        if isinstance(done, ElfRefused):
            return ElfRefused(done.error, done.clause, done.at, count)
        if isinstance(done, ElfFatal):
            return ElfFatal(done.at, count)
        if entry_size == 0 and image == before:
            # The same header again, and a pass that changed nothing: so will each of the passes that are left.
            count += (ELF64_EHDR.peek(image, "e_shnum") - i) * done.count
            break
    return Relocated(count)


def _relocate_section(image: bytearray, load: int, at: int) -> ElfOutcome:
    """The relocations of the section whose header is at ``at``, until one is refused."""
    refused = ELF_RELA_SECTION.decide(peek_section(image, "sh_entsize", at))
    if refused is not None:
        return ElfRefused(refused.result, refused.id, at, 0)
    k = 0
    while entsize := peek_section(image, "sh_entsize", at):
        if k >= peek_section(image, "sh_size", at) // entsize:
            return Relocated(k)
        relocation = ElfRelocation(image, (peek_section(image, "sh_addr", at) + k * entsize) & M64, entsize)
        bad = ELF_RELOCATION.decide(relocation)
        if bad is not None:
            return ElfRefused(bad.result, bad.id, relocation.at, k)
        offset = relocation.field("r_offset")
        image[offset : offset + 8] = ((load + relocation.field("r_addend")) & M64).to_bytes(8, "little")
        k += 1
    return divide_by_zero(at, k)


@implements("ELF.divide", "the number of relocations is computed anew before each: a zero sh_entsize is a divide error",
            _SRC, CHOSEN)
def divide_by_zero(at: int, count: int) -> ElfFatal:
    """ELF.divide: #DE in SEAM root, without an IDT a shutdown."""
    return ElfFatal(at, count)
