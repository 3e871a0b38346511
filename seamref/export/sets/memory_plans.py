"""Memory plans of INSTALL: where everything of a new module lies, from counts, processors and a random number."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields
from itertools import product
from typing import Any

from seamref.export.form import Answer, Case, Count, Flag, Group, Hex, Item, Maybe, OneOf, VectorSet, hexed, number
from seamref.pseamldr.api import Status
from seamref.pseamldr.memory_constants import (
    INSTALL_MEMORY,
    MemoryConstants,
    MemoryState,
    ModuleShape,
    addressable_lps,
    aslr_bits,
    compute_memory_constants,
)

SHAPE = tuple(field.name for field in fields(ModuleShape))
USUAL = ModuleShape(8, 3, 0, 127, 15, 15, 1, 0x1000, 0x2160)
"""Counts like those of the released modules."""
SEAMRR_BASE, LIMIT = 0x7C000000, 0x7FC00000
_DERIVED = ("pml4_physbase", "first_table", "data_region_end", "minimum_size")
_COUNTS = ("num_addressable_lps",)


def _case(id: str, comment: str, shape: ModuleShape = USUAL, *, per_socket: int = 2, sockets: int = 1,
          random: int = 0x1234, carry: int = 1, base: int = SEAMRR_BASE, limit: int = LIMIT) -> Case:
    return Case(f"plan-{id}", comment, {
        **{name: hexed(value) if name.endswith("_offset") else value for name, value in asdict(shape).items()},
        "lps_per_socket": per_socket, "sockets": sockets, "rdrand_cf": carry, "rdrand": hexed(random),
        "seamrr_base": hexed(base), "module_limit": hexed(limit),
    })


def _shape(**changes: int) -> ModuleShape:
    return ModuleShape(**{**asdict(USUAL), **changes})


def _cases() -> Iterator[Case]:
    yield _case("usual", "counts like those of a released module, two processors")
    for per_socket, sockets in product((1, 2, 3, 56, 64, 112, 128), (1, 2, 4, 8)):
        yield _case(f"lps-{per_socket}-{sockets}", f"{sockets} sockets of {per_socket} addressable processors",
                    per_socket=per_socket, sockets=sockets, limit=SEAMRR_BASE + (256 << 20))
    for name, values in {
        "num_module_pages": (0, 1, 8, 33, 496), "num_stack_pages": (0, 1, 9, 255), "num_tls_pages": (0, 5, 255),
        "num_keyhole_pages": (0, 1, 127, 511, 512, 65535), "num_global_data_pages": (0, 1, 511, 512, 4096, 65535),
        "num_handoff_pages": (0, 1, 15, 65535), "seam_major_svn": (0, 1, 255),
    }.items():
        for value in values:
            yield _case(f"{name}-{value}", f"{name} = {value}", _shape(**{name: value}))
    for gdt, wrapper in ((0, 0), (0x1000, 0x2160), (0x7000, 0x7E00), (0, 0x2160)):
        yield _case(f"idt-{gdt:x}-{wrapper:x}", f"gdt_idt_offset = {gdt:#x}, fault_wrapper_offset = {wrapper:#x}",
                    _shape(gdt_idt_offset=gdt, fault_wrapper_offset=wrapper))
    for random in (0, 3, 0x7FFC, 0x7FFF, (1 << 64) - 1, *(1 << bit for bit in range(2, 16))):
        yield _case(f"aslr-{random:x}", f"the random number 0x{random:X}", random=random)
    yield _case("no-entropy", "RDRAND gives CF = 0", carry=0, random=0)
    least = _minimum(USUAL)
    for pages in (-1, 0, 1):
        yield _case(f"room-{pages + 1}", f"the module range has {pages} pages more than the formula demands",
                    limit=SEAMRR_BASE + least + pages * 4096)


def _minimum(shape: ModuleShape) -> int:
    return compute_memory_constants(shape, 2, 0, SEAMRR_BASE, LIMIT).minimum_size


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    shape = ModuleShape(**{name: number(given[name]) if name.endswith("_offset") else given[name] for name in SHAPE})
    lps = addressable_lps(given["lps_per_socket"], given["sockets"])
    plan = compute_memory_constants(shape, lps, aslr_bits(number(given["rdrand"])), number(given["seamrr_base"]),
                                    number(given["module_limit"]), revision)
    row = INSTALL_MEMORY.decide(MemoryState(given["rdrand_cf"], plan), revision)
    output: dict[str, Any] = {"status": Status.SUCCESS.name if row is None else row.result.name, "plan": None}
    if row is None or row.result is Status.ENOMEM:
        output["plan"] = {name: _shown(name, getattr(plan, name)) for name in _names()}
    return Answer(output, ("MEMORY_CONSTANTS.compute", "MEMORY_CONSTANTS.lps", "MEMORY_CONSTANTS.aslr",
                           *(() if row is None else (row.id,))))


def _names() -> tuple[str, ...]:
    return (*(field.name for field in fields(MemoryConstants)), *_DERIVED)


def _shown(name: str, value: Any) -> Any:
    if value is None or isinstance(value, bool) or name in _COUNTS:
        return value
    return hexed(value & (1 << 64) - 1)


def _item(name: str) -> Item:
    if name == "td_preserving_supported":
        return Item(name, Flag(), "there is handoff data")
    if name in _COUNTS:
        return Item(name, Count(), "addressable processors")
    if name == "fault_wrapper_linbase":
        return Item(name, Maybe(Hex()), "linear base, null without GDT and IDT")
    what = "bytes" if name.endswith("size") else "linear base" if name.endswith("linbase") else "physical address"
    return Item(name, Hex(), what)


SET = VectorSet(
    "memory-plans", "Memory plans of INSTALL",
    ("What P-SEAMLDR computes from the sigstruct's page counts, the number of image pages, the addressable processors "
     "and "
     "one random number: sizes and bases of every region of the module range, and whether the size formula lets the "
     "module "
     "in.  The counts are \"minus 1\" where SEAM_SIGSTRUCT says so.",
     "Addresses that would lie below 0 are given modulo 2^64."),
    (*(Item(name, Hex(32) if name.endswith("_offset") else Count(0, 0xFFFFFFFF), "of SEAM_SIGSTRUCT"
            if name != "num_module_pages" else "pages of the image") for name in SHAPE),
     Item("lps_per_socket", Count(1), "addressable processors of a socket: CPUID.4.3:EAX[25:14] + 1"),
     Item("sockets", Count(1, 8), "sockets"), Item("rdrand_cf", Count(0, 1), "CF of RDRAND"),
     Item("rdrand", Hex(), "what it gave"), Item("seamrr_base", Hex(), "SEAMRR: base"),
     Item("module_limit", Hex(), "base of P_SEAMLDR_RANGE: first byte behind the module range")),
    (Item("status", OneOf((Status.SUCCESS.name, Status.ENOENTROPY.name, Status.ENOMEM.name)), "what INSTALL goes on "
                                                                                              "with"),
     Item("plan", Maybe(Group(tuple(_item(name) for name in _names()))), "the memory constants; null without entropy")),
    {"1.5": "P-SEAMLDR 1.5", "1.0": "P-SEAMLDR 1.0: no handoff data, no GDT and IDT"}, _cases, _answer, small=12,
)
