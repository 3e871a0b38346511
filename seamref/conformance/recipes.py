"""What vectors describe instead of spelling out: pseudo-random bytes, and ELF images with sections and relocations.

Two formats use them (P-SEAMLDR's and NP-SEAMLDR's).  Every function takes the path of the recipe and raises a
:class:`~seamref.conformance.reading.FormatError` for a value that is not of the format; nothing larger than the image
that the recipe asks for is made.
"""

from __future__ import annotations

from collections.abc import Collection
from functools import lru_cache
from hashlib import shake_128
from struct import pack
from typing import Any

from seamref.conformance.reading import (
    M64,
    FormatError,
    any_mapping,
    array,
    elements,
    hex_bytes,
    integer,
    mapping,
    numbers,
    one_of,
    shown,
    u8,
    u64,
)
from seamref.layout import Layout
from seamref.pseamldr.api import PAGE
from seamref.pseamldr.elf import ELF64_EHDR, ELF64_RELA, ELF64_SHDR

SHAKE_LIMIT = 128 << 20
"""Bytes of one SHAKE(seed, n)."""
_KEPT = 1 << 16


def shake(seed: int, size: int) -> bytes:
    """SHAKE(seed, size): the first ``size`` bytes of SHAKE128 of the seed in 8 bytes."""
    return _kept_shake(seed, size) if size <= _KEPT else _shake(seed, size)


def _shake(seed: int, size: int) -> bytes:
    return shake_128(seed.to_bytes(8, "little")).digest(size)


_kept_shake = lru_cache(maxsize=256)(_shake)


def shake_page(seed: int, page: int) -> bytes:
    """PAGE(seed, page): the first 4096 bytes of SHAKE128 of the seed and the page's number, 8 bytes each."""
    return shake_128(pack("<QQ", seed, page)).digest(PAGE)


kept_page = lru_cache(maxsize=16384)(shake_page)
"""The same, remembered: many cases lie over the same pseudo-random memory."""


def read_shake(value: Any, path: str) -> tuple[int, int]:
    """``[seed, size]``, checked; the bytes are not made."""
    seed, size = array(value, path, 2, 2)
    return u64(seed, f"{path}[0]"), integer(size, f"{path}[1]", 0, SHAKE_LIMIT)


def patch(data: bytearray, value: Any, path: str) -> None:
    """``[[offset, hex], ...]`` over bytes; each must lie inside."""
    for where, item in elements(value, path):
        at, text = array(item, where, 2, 2)
        part = hex_bytes(text, f"{where}[1]", most=len(data))
        at = integer(at, f"{where}[0]", 0, len(data) - len(part))
        data[at : at + len(part)] = part


def poke(layout: Layout, data: bytearray, name: str, value: Any, path: str) -> None:
    """An integer field of a layout, in its own width."""
    kind, at = layout.resolve(name)
    number = integer(value, path, 0, (1 << 8 * kind.size) - 1)
    data[at : at + kind.size] = number.to_bytes(kind.size, "little")


def layout_numbers(layout: Layout, value: Any, path: str, known: Collection[str]) -> bytes:
    """A whole structure from some of its integer fields, the others 0."""
    out = bytearray(layout.size)
    for name, number in mapping(value, path, (), known).items():
        poke(layout, out, name, number, f"{path}.{name}")
    return bytes(out)


_EHDR_NUMBERS = tuple(field.name for field in ELF64_EHDR.fields if field.name.startswith("e_"))
_SHDR_NUMBERS = tuple(field.name for field in ELF64_SHDR.fields)
_EHDR_DEFAULTS = {"e_type": 3, "e_machine": 62, "e_version": 1, "e_ehsize": 64, "e_phentsize": 56, "e_shentsize": 64}
_IDENT = bytes.fromhex("7f454c46020101").ljust(16, b"\0")
assert ELF64_EHDR.size == ELF64_SHDR.size == 64 and ELF64_RELA.size == 24


def _ehdr(value: Any, path: str) -> bytes:
    held = any_mapping(value, path)
    ident = hex_bytes(held["e_ident"], f"{path}.e_ident", 16) if "e_ident" in held else _IDENT
    numbers = {**_EHDR_DEFAULTS, **{name: v for name, v in held.items() if name != "e_ident"}}
    return ident + layout_numbers(ELF64_EHDR, numbers, path, _EHDR_NUMBERS)[len(ident):]


def _shdr(value: Any, path: str) -> bytes:
    return layout_numbers(ELF64_SHDR, value, path, _SHDR_NUMBERS)


def _rela(value: Any, path: str) -> bytes:
    return b"".join(pack("<3Q", *numbers(entry, where, 3)) for where, entry in elements(value, path))


def _relaseq(value: Any, path: str, room: int) -> bytes:
    n, offset, offset_step, info, addend, addend_step = numbers(value, path, 6)
    return b"".join(
        pack("<3Q", offset + i * offset_step & M64, info, addend + i * addend_step & M64)
        for i in range(min(n, -(-room // ELF64_RELA.size)))
    )


def build_image(recipe: dict[str, Any], path: str, size: int, fills: Collection[str]) -> bytes:
    """An image of ``size`` bytes: its ``fill`` (of the kinds that the format has), then its ``writes`` in order, each
    cut at the end of the image."""
    image = bytearray(size)
    fill = array(recipe["fill"], f"{path}.fill", 1, 2)
    kind = one_of(fill[0], f"{path}.fill[0]", fills)
    if len(fill) != (1 if kind == "zero" else 2):
        raise FormatError(f"{path}.fill", f"{len(fill)} elements for {shown(kind)}")
    if kind == "shake":
        seed = u64(fill[1], f"{path}.fill[1]")
        for p in range(-(-size // PAGE)):
            image[p * PAGE : (p + 1) * PAGE] = shake_page(seed, p)
        del image[size:]
    elif kind == "byte":
        image[:] = bytes([u8(fill[1], f"{path}.fill[1]")]) * size
    for where, write in elements(recipe["writes"], f"{path}.writes"):
        what, at, value = array(write, where, 3, 3)
        one_of(what, f"{where}[0]", ("hex", "ehdr", "shdr", "rela", "relaseq"))
        at = integer(at, f"{where}[1]")
        room = max(size - at, 0)
        inner = f"{where}[2]"
        match what:
            case "hex":
                data = hex_bytes(value, inner)
            case "ehdr":
                data = _ehdr(value, inner)
            case "shdr":
                data = _shdr(value, inner)
            case "rela":
                data = _rela(value, inner)
            case _:
                data = _relaseq(value, inner, room)
        data = data[:room]
        image[at : at + len(data)] = data
    return bytes(image)
