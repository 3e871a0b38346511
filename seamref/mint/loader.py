"""Makes P-SEAMLDR images and the authenticated code module that carries them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from seamref.arch.software import P_SEAMLDR_PROGRAM, make_stub
from seamref.firmware.acm import (
    ACM_HEADER,
    ACM_INFO_TABLE,
    ACM_UUID,
    CHIPSET_ID,
    NP_SEAMLDR_BUILD,
    NP_SEAMLDR_PROGRAM,
    P_SEAMLDR_CONSTS,
    PROCESSOR_ID,
    signed_bytes,
)
from seamref.layout import Buffer
from seamref.mint import elf
from seamref.mint.keys import KEY, TestKey
from seamref.pseamldr.build import Build, decode_build
from seamref.pseamldr.elf import PAGE

HLT = b"\xf4"
DATA_STACK, DATA, KEYHOLES, KEYHOLE_EDIT = 3 * PAGE, 6 * PAGE, 512 * PAGE, PAGE
"""Sizes in P_SEAMLDR_CONSTS of 1.5, in bytes (NPS)."""

FMS = ((0x806F0, 0x0FFF3FF0), (0xC06F0, 0x0FFF3FF0), (0xA06F0, 0x0FFF3FF0), (0xA06D0, 0x0FFF3FF0))
"""Processors a minted ACM is for: every part that a released module is for (chosen; a real one lists one)."""

_GDT = (0, 0x00CF9B000000FFFF, 0x00CF93000000FFFF, 0x00AF9B000000FFFF)
"""null; 32-bit code at 8; data at 16; 64-bit code at 24 (NPS)."""


def pad(image: bytes) -> bytes:
    """HLT up to the page boundary; an image that ends on one gets a whole page (NPS)."""
    return image + HLT * (PAGE - len(image) % PAGE)


def pseamldr_image(build: Build | bytes | None = None, *, size: int = 0x11A00,
                   relocations: Iterable[elf.Relocation] | None = None, **fields: Any) -> bytes:
    """A P-SEAMLDR image of ``size`` bytes, padded with HLT to whole pages.

    ``build`` is a Build or the bytes of P_SEAMLDR_BUILD, by default 1.5 that accepts modules signed with the test
    key; ``fields`` override single constants of it.
    """
    if build is None:
        build = Build(signer_key_hash=KEY.key_hash)
    if isinstance(build, bytes):
        build = decode_build(build)
    return pad(elf.image(program=P_SEAMLDR_PROGRAM, build=replace(build, **fields).encode(), size=size,
                         relocations=relocations, gdt_idt=False))


def pseamldr_consts(image: Buffer, **fields: int) -> bytes:
    """P_SEAMLDR_CONSTS for a padded image, as the build of 1.5 makes them."""
    return P_SEAMLDR_CONSTS.encode({
        "CDataStackSize": DATA_STACK, "CCodeRgnSize": len(image), "CDataRgnSize": DATA, "CKeyholeRgnSize": KEYHOLES,
        "CKeyholeEditRgnSize": KEYHOLE_EDIT, "CEntryPointOffset": elf.entry_of(image), **fields,
    })


def acm(image: Buffer, *, key: TestKey = KEY, resign: bool = True, sign: bool = True, consts: bytes | None = None,
        revision: tuple[int, int] = (1, 5), processors: Iterable[tuple[int, int]] = FMS, **header: Any) -> bytes:
    """The ACM of NP-SEAMLDR around a P-SEAMLDR image: header version 3, info table, lists, GDT, stub, image.

    ``consts``     P_SEAMLDR_CONSTS to embed, by default those that fit the image
    ``revision``   of NP-SEAMLDR; ``processors``: (FMS, mask) that the module says it is for
    ``header``     fields of ACM_HEADER to override; ``resign=False`` overrides them after signing;
                   ``sign=False`` leaves the signature zero (no processor would take the module)

    The result is a multiple of 64 bytes, as GETSEC[ENTERACCS] demands.
    """
    out = bytearray(ACM_HEADER.size)
    info_at = len(out)
    chipsets_at = info_at + ACM_INFO_TABLE.size
    device, kind, number = (0, 0, b"\x00\x04\x05") if revision >= (1, 5) else (0xB00A, 1, b"\x01\x07\x04")
    chipsets = (1).to_bytes(4, "little") + CHIPSET_ID.new(Flags=1, DeviceID=device, RevisionID=1).encode()
    listed = [PROCESSOR_ID.encode({"FMS": fms, "FMSMask": mask}) for fms, mask in processors]
    processors_at = chipsets_at + len(chipsets)
    out += ACM_INFO_TABLE.new(UUID=list(ACM_UUID), ChipsetACMType=kind, Length=ACM_INFO_TABLE.size,
                              ChipsetIDList=chipsets_at, AcmRevision=number, ProcessorIDList=processors_at).encode()
    out += chipsets + len(listed).to_bytes(4, "little") + b"".join(listed)
    gdt_at = _align(out, 16)
    out += b"".join(entry.to_bytes(8, "little") for entry in _GDT)
    entry_at = _align(out, 64)
    image_at = -(-(entry_at + 64 + NP_SEAMLDR_BUILD.size) // PAGE) * PAGE
    out += make_stub(NP_SEAMLDR_PROGRAM) + NP_SEAMLDR_BUILD.encode({
        "image_offset": image_at, "image_size": len(image), "revision_major": revision[0],
        "revision_minor": revision[1], "consts": pseamldr_consts(image) if consts is None else consts,
    })
    out += elf.filler(b"np-seamldr", image_at - len(out)) + image
    _align(out, 64)
    base = ACM_HEADER.new(Size=len(out) // 4, SeSvn=4 if revision >= (1, 5) else 0, Date=0x20240129, GDTLimit=32,
                          GDTBasePtr=gdt_at, SegSel=8, EntryPoint=entry_at, RSAPubKey=key.modulus_le)
    first = {**base, **(header if resign else {})}
    out[: ACM_HEADER.size] = ACM_HEADER.encode(first)
    signature = {"RSASig": key.sign(signed_bytes(out))} if sign and _can_sign(first, len(out)) else {}
    out[: ACM_HEADER.size] = ACM_HEADER.encode({**first, **signature, **header})
    return bytes(out)


def _can_sign(header: dict[str, Any], size: int) -> bool:
    """Whether Size, possibly overridden, leaves something that can be signed."""
    return ACM_HEADER.size <= 4 * int(header["Size"]) <= size


def _align(out: bytearray, to: int) -> int:
    """Zeros up to a multiple of ``to`` bytes; the offset reached."""
    out += bytes(-len(out) % to)
    return len(out)
