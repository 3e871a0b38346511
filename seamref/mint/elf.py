"""Makes ELF images that the machine can run: headers, relocations, an entry stub, build constants, an IDT page.

What a compiler would have produced is filled with SHAKE-128 of a seed, so that the image of one build is the same
everywhere and every byte of it counts in its hash.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from hashlib import shake_128

from seamref.arch.software import STUB, make_stub
from seamref.arch.structures import IDT_GATE
from seamref.errors import SeamrefError
from seamref.layout import Buffer
from seamref.pseamldr.elf import (
    ELF64_EHDR,
    ELF64_PHDR,
    ELF64_RELA,
    ELF64_SHDR,
    EM_X86_64,
    ET_DYN,
    MAGIC,
    PAGE,
    PT_LOAD,
    R_X86_64_RELATIVE,
    SHT_RELA,
)

GDT_OFFSET = 2048
"""GDT behind the IDT, in the same page."""
WRAPPERS = 32 * 16
"""Bytes of the fault wrapper: one handler of 16 bytes for each of 32 vectors."""
WRAPPER_DISTANCE = 0x160
"""Bytes from the entry point to the fault wrapper in all released modules (BIN)."""

_STRINGS = b"\0.text\0.rela.dyn\0.shstrtab\0.gdt_idt\0.fault_wrapper\0"
_SHT_PROGBITS, _SHT_STRTAB = 1, 3
_SHOFF, _RELA_AT = 0x100, 0x300


@dataclass(frozen=True, slots=True)
class Relocation:
    """``addend`` plus the load address goes to ``offset`` (bytes from the start of the image)."""

    offset: int
    addend: int
    info: int = R_X86_64_RELATIVE


def filler(seed: bytes, size: int) -> bytes:
    """``size`` bytes of deterministic "code": page p is SHAKE-128 of seed and p."""
    pages = (shake_128(seed + p.to_bytes(8, "little")).digest(PAGE) for p in range(-(-size // PAGE)))
    return b"".join(pages)[:size]


def gdt_idt_page() -> bytes:
    """A page with 32 interrupt gates whose offsets the loader fills in, and behind them a flat GDT."""
    gate = IDT_GATE.encode({"selector": 8, "type": 0x8E})
    gdt = b"".join(entry.to_bytes(8, "little") for entry in (
        0, 0x00AF9B000000FFFF, 0x00CF93000000FFFF, 0x00CF93000000FFFF, 0x00008B0000000067, 0,
    ))
    return (gate * 32).ljust(GDT_OFFSET, b"\0") + gdt.ljust(PAGE - GDT_OFFSET, b"\0")


def image(
    *,
    program: bytes,
    build: bytes = b"",
    pages: int = 8,
    size: int | None = None,
    entry: int | None = None,
    relocations: Iterable[Relocation] | None = None,
    gdt_idt: int | bool = True,
    fault_wrapper: int | None = None,
    parameters: bytes = b"",
    header: Mapping[str, int] | None = None,
    seed: bytes | None = None,
) -> bytes:
    """A shared object of ``pages`` pages (or ``size`` bytes).

    ``program``       id for the stub at the entry point; ``parameters`` are the stub's
    ``build``         constants directly behind the stub
    ``entry``         offset of the stub; by default in the middle, behind the tables
    ``relocations``   by default eight pointers behind the tables
    ``gdt_idt``       offset of the page with IDT and GDT, ``True``: chosen here, ``False``: neither it nor wrapper
    ``fault_wrapper`` offset of the handlers, by default 0x160 behind the entry point as in released modules
    ``header``        fields of ELF64_EHDR to override
    ``seed``          of the filler, by default the build constants

    A part that does not fit, or that would overwrite another, is a SeamrefError that names both.
    """
    total = pages * PAGE if size is None else size
    out = bytearray(filler(build if seed is None else seed, total))
    taken: list[tuple[int, int, str]] = []

    def put(at: int, data: bytes, what: str) -> None:
        if at < 0 or at + len(data) > total:
            raise SeamrefError(f"ELF image: {what} at 0x{at:X}, {len(data)} bytes, leaves an image of 0x{total:X}")
        for start, end, other in taken:
            if at < end and start < at + len(data):
                raise SeamrefError(f"ELF image: {what} at 0x{at:X} overwrites {other} at 0x{start:X}")
        taken.append((at, at + len(data), what))
        out[at : at + len(data)] = data

    whole_pages = total // PAGE
    count = 8 if relocations is None else len(relocations := list(relocations))
    tables_end = -(-(_RELA_AT + count * ELF64_RELA.size) // 64) * 64
    middle = whole_pages // 2 * PAGE if whole_pages > 2 else 0
    at_entry = entry if entry is not None else max(tables_end + 64, middle)
    behind = at_entry + STUB.size + len(build)
    wrapper = -(-max(at_entry + WRAPPER_DISTANCE, behind) // 16) * 16 if fault_wrapper is None else fault_wrapper
    if gdt_idt is True:
        gdt_idt = whole_pages * 3 // 4 * PAGE if whole_pages > 2 else PAGE
    if relocations is None:
        relocations = [Relocation(tables_end + 8 * i, at_entry + 16 * i) for i in range(count)]
        put(tables_end, bytes(8 * count), "pointers")

    put(at_entry, make_stub(program, parameters) + build, "entry stub and build constants")
    sections = [
        {},
        {"sh_name": _STRINGS.index(b".text"), "sh_type": _SHT_PROGBITS, "sh_addr": at_entry, "sh_offset": at_entry,
         "sh_size": STUB.size + len(build)},
        {"sh_name": _STRINGS.index(b".rela.dyn"), "sh_type": SHT_RELA, "sh_addr": _RELA_AT, "sh_offset": _RELA_AT,
         "sh_size": count * ELF64_RELA.size, "sh_entsize": ELF64_RELA.size},
        {"sh_name": _STRINGS.index(b".shstrtab"), "sh_type": _SHT_STRTAB, "sh_offset": _RELA_AT - len(_STRINGS),
         "sh_size": len(_STRINGS)},
    ]
    if gdt_idt is not False:
        put(gdt_idt, gdt_idt_page(), "page of IDT and GDT")
        put(wrapper, (bytes.fromhex("f30f1efa" "0f0b") + b"\xcc" * 10) * 32, "fault wrapper")
        sections += [
            {"sh_name": _STRINGS.index(b".gdt_idt"), "sh_type": _SHT_PROGBITS, "sh_addr": gdt_idt,
             "sh_offset": gdt_idt, "sh_size": PAGE},
            {"sh_name": _STRINGS.index(b".fault_wrapper"), "sh_type": _SHT_PROGBITS, "sh_addr": wrapper,
             "sh_offset": wrapper, "sh_size": WRAPPERS},
        ]
    ehdr = ELF64_EHDR.new(magic=MAGIC, **{
        "e_type": ET_DYN, "e_machine": EM_X86_64, "e_version": 1, "e_entry": at_entry, "e_phoff": ELF64_EHDR.size,
        "e_shoff": _SHOFF, "e_ehsize": ELF64_EHDR.size, "e_phentsize": ELF64_PHDR.size, "e_phnum": 1,
        "e_shentsize": ELF64_SHDR.size, "e_shnum": len(sections), "e_shstrndx": 3, **(header or {}),
    })
    load = ELF64_PHDR.encode({"p_type": PT_LOAD, "p_flags": 7, "p_filesz": total, "p_memsz": total,
                              "p_align": 0x200000})
    front = ehdr.encode() + load
    put(0, front.ljust(_SHOFF, b"\0"), "ELF header")
    put(_SHOFF, b"".join(ELF64_SHDR.encode(s) for s in sections).ljust(_RELA_AT - _SHOFF - len(_STRINGS), b"\0")
        + _STRINGS, "section headers")
    put(_RELA_AT, b"".join(
        ELF64_RELA.encode({"r_offset": r.offset, "r_info": r.info, "r_addend": r.addend}) for r in relocations
    ), "relocations")
    return bytes(out)


def find_section(data: Buffer, name: str) -> tuple[int, int] | None:
    """(offset, size) of a named section; ``None`` when the image is no ELF image or has no such section."""
    if len(data) < ELF64_EHDR.size or bytes(data[:4]) != MAGIC:
        return None
    ehdr = ELF64_EHDR.decode(data)
    headers = [ehdr.e_shoff + i * ehdr.e_shentsize for i in range(ehdr.e_shnum)]
    if ehdr.e_shstrndx >= len(headers) or any(at + ELF64_SHDR.size > len(data) for at in headers):
        return None
    names = ELF64_SHDR.decode(data, headers[ehdr.e_shstrndx]).sh_offset
    for at in headers:
        section = ELF64_SHDR.decode(data, at)
        start = names + section.sh_name
        end = bytes(data[start : start + 256]).find(b"\0")
        if bytes(data[start : start + end]) == name.encode():
            return section.sh_offset, section.sh_size
    return None


def entry_of(data: Buffer) -> int:
    """e_entry of an ELF image, 0 for anything else."""
    if len(data) < ELF64_EHDR.size or bytes(data[:4]) != MAGIC:
        return 0
    entry: int = ELF64_EHDR.peek(data, "e_entry")
    return entry


def stub_of(data: Buffer) -> bytes | None:
    """Id of the program that an image's entry point stands for, ``None`` when there is no stub."""
    at = entry_of(data)
    if at + STUB.size > len(data):
        return None
    stub = STUB.decode(data, at)
    return bytes(stub.program) if bytes(stub.code) == make_stub(stub.program)[:6] else None


def build_of(data: Buffer, size: int) -> bytes:
    """``size`` bytes of build constants behind the stub."""
    at = entry_of(data) + STUB.size
    return bytes(data[at : at + size])


__all__ = [
    "Relocation", "build_of", "entry_of", "filler", "find_section", "gdt_idt_page", "image", "stub_of",
]
