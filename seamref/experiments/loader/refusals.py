"""Every way INSTALL says no, each with an attempt that runs into exactly that row.

The rows come from P-SEAMLDR's check tables; an attempt is data.  :func:`refusals` runs them all, and a test asserts
that every row has an attempt and that the attempt is stopped by it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from seamref.arch.platform import Platform
from seamref.arch.structures import SEAMEXTEND
from seamref.experiments.loader.lab import PARAMS, Attempt, Session, call_leaf, loader_data, rdx_text
from seamref.experiments.loader.memory import largest_planned
from seamref.mint import elf
from seamref.pseamldr.api import PAGE, Leaf, Recoverability, Scenario
from seamref.pseamldr.elf import (
    ELF64_EHDR,
    ELF64_RELA,
    ELF64_SHDR,
    ELF_HEADER,
    ELF_RELA_SECTION,
    ELF_RELOCATION,
    ELF_SECTION,
)
from seamref.pseamldr.hpa import SHARED_HPA
from seamref.pseamldr.install import (
    INSTALL_HASH,
    INSTALL_LP,
    INSTALL_RCX,
    INSTALL_RELOCATION,
    INSTALL_SEAMDB,
    INSTALL_UPDATE,
)
from seamref.pseamldr.manifest import INSTALL_MANIFEST, INSTALL_PARAMS
from seamref.pseamldr.memory_constants import INSTALL_MEMORY
from seamref.pseamldr.memory_map import INSTALL_MAP
from seamref.pseamldr.program import DISPATCH_CANARY
from seamref.spec import Check, CheckTable

INSTALL_TABLES: tuple[CheckTable[Any, Any], ...] = (
    DISPATCH_CANARY, INSTALL_LP, INSTALL_RCX, SHARED_HPA, INSTALL_PARAMS, INSTALL_MANIFEST, INSTALL_MEMORY,
    INSTALL_UPDATE, INSTALL_MAP, INSTALL_HASH, INSTALL_RELOCATION, ELF_HEADER, ELF_SECTION, ELF_RELA_SECTION,
    ELF_RELOCATION, INSTALL_SEAMDB,
)
"""Everything that can refuse an INSTALL, in the order in which it is asked."""

SIZE = 8 * PAGE
"""Bytes of the minted image that the attempts bring."""
LOAD, UPDATE = Scenario.LOAD, Scenario.UPDATE
NOTHING_1_0: Mapping[str, Any] = {"gdt_idt_offset": 0, "fault_wrapper_offset": 0, "num_handoff_pages": 0}
"""A sigstruct whose 1.5 fields are zero, as P-SEAMLDR 1.0 demands of its reserved bytes."""


@dataclass(frozen=True, slots=True)
class Case:
    """An attempt that the row ``row`` stops; ``brings`` says in words what is wrong with it."""

    row: str
    brings: str
    attempt: Attempt


def _sig(**fields: Any) -> Attempt:
    return Attempt(sig=fields)


def _field(name: str, value: int, text: str = "") -> Case:
    return Case(f"INSTALL.manifest.{name}", text or f"{name} = 0x{value:X}", _sig(**{name: value}))


def _set(name: str, at: int, size: int, value: int) -> Attempt:
    """An image with a value at an offset, hashed and signed as it is."""

    def edit(image: bytearray) -> None:
        image[at : at + size] = value.to_bytes(size, "little")

    return Attempt(edit=edit)


def _in_header(field: str, value: int) -> Attempt:
    return Attempt(edit=lambda image: ELF64_EHDR.poke(image, field, value))


def _in_section(name: str, field: str, value: int) -> Attempt:
    def edit(image: bytearray) -> None:
        found = elf.find_section(image, name)
        assert found is not None
        header = ELF64_EHDR.decode(image)
        for i in range(header.e_shnum):
            at = header.e_shoff + i * header.e_shentsize
            section = ELF64_SHDR.decode(image, at)
            if (section.sh_offset, section.sh_size) == found:
                ELF64_SHDR.poke(image, field, value, at)

    return Attempt(edit=edit)


def _in_relocation(field: str, value: int, number: int = 3) -> Attempt:
    def edit(image: bytearray) -> None:
        found = elf.find_section(image, ".rela.dyn")
        assert found is not None
        ELF64_RELA.poke(image, field, value, found[0] + number * ELF64_RELA.size)

    return Attempt(edit=edit)


def _shutdown_begun(platform: Platform) -> None:
    call_leaf(platform, platform.lps[0], Leaf.SHUTDOWN)


def _no_entropy(source: str, times: int = 1) -> Any:
    def prepare(platform: Platform) -> None:
        platform.inject(source, *((0, 0),) * times)

    return prepare


def _tight() -> Attempt:
    """As many global data pages as the size formula lets pass: more than the page tables then leave room for."""
    return Attempt(sig={"num_global_data_pages": largest_planned()})


KEYID_33 = 33 << 46
"""A private KeyID on the platform of these attempts (52 address bits, 6 of them KeyID bits)."""


def cases() -> Iterator[Case]:
    """One attempt for each row of :data:`INSTALL_TABLES`, in their order."""
    yield Case("DISPATCH.canary.entropy", "P-SEAMLDR's first call since it was loaded, RDRAND without entropy",
               Attempt(old=None, prepare=_no_entropy("rdrand"), order=(0,)))
    yield Case("INSTALL.lp.x2apic_id", "a processor with x2APIC id 1024",
               Attempt(old=None, on={"ids": (0, 1024)}, order=(1024,)))
    yield Case("INSTALL.lp.shutdown", "SHUTDOWN was called on one processor", Attempt(prepare=_shutdown_begun))
    yield Case("INSTALL.lp.repeated", "the same processor twice", Attempt(order=(0, 0)))
    yield Case("INSTALL.rcx.pa", "RCX = 8", Attempt(rcx=8))
    yield Case("HPA.alignment", "RCX not aligned to 4 KiB", Attempt(rcx=PARAMS + 0x800))
    yield Case("HPA.width", "RCX = 2^52", Attempt(rcx=1 << 52))
    yield Case("HPA.seamrr", "RCX inside SEAMRR", Attempt(rcx=0x7C000000))
    yield Case("HPA.hkid", "RCX with a private KeyID", Attempt(rcx=PARAMS | KEYID_33))
    yield Case("INSTALL.params.version", "version = 1", Attempt(params={"version": 1}))
    yield Case("INSTALL.params.reserved", "the last reserved byte = 1",
               Attempt(params={"reserved": bytes(103) + b"\1"}))
    yield Case("INSTALL.params.scenario", "scenario = 2", Attempt(params={"scenario": 2}))
    yield Case("INSTALL.params.num_module_pages", "num_module_pages = 497", Attempt(params={"num_module_pages": 497}))
    yield Case("INSTALL.params.page_pa", "the sixth page lies in SEAMRR",
               Attempt(params={"mod_pages_pa_list[5]": 0x7C000000}))
    yield Case("INSTALL.params.sigstruct_pa", "sigstruct_pa aligned to 2 KiB only",
               Attempt(params={"sigstruct_pa": PARAMS + PAGE + 0x800}))
    yield Case("INSTALL.params.update_ready", "UPDATE, but no module was loaded", Attempt(old=None, scenario=UPDATE))
    yield from _manifest_cases()
    yield Case("INSTALL.memory.entropy", "RDRAND without entropy on the last processor",
               Attempt(prepare=_no_entropy("rdrand")))
    yield Case("INSTALL.memory.size", "num_global_data_pages = 0xFFFF: 256 MiB", _sig(num_global_data_pages=0xFFFF))
    yield from _update_cases()
    yield Case("INSTALL.map.tables", "as many global data pages as the size formula lets pass", _tight())
    yield Case("INSTALL.hash.seamhash", "seamhash of another image", _sig(seamhash=bytes(range(48))))
    yield Case("INSTALL.relocation.elf", "an image that is no ELF file", _in_header("magic", 0))
    yield from _elf_cases()
    yield Case("INSTALL.seamdb.entropy", "five times no entropy for SEAMDB's nonce",
               Attempt(prepare=_no_entropy("seamdb_entropy", 5)))


def _manifest_cases() -> Iterator[Case]:
    for name, size in (("reserved0", 88), ("reserved1", 6), ("reserved2", 1), ("reserved3", 24)):
        yield Case(f"INSTALL.manifest.{name}", f"the last byte of {name} = 1", _sig(**{name: bytes(size - 1) + b"\1"}))
    yield _field("header_type", 5)
    yield _field("header_length", 0xA1)
    yield _field("header_version", 0)
    yield _field("key_size", 0x40, "key_size = 64 dwords: RSA-2048")
    yield _field("exponent_size", 2)
    yield _field("modulus_size", 0x40)
    yield _field("module_vendor", 0x1022)
    yield _field("module_type", 1)
    yield _field("attributes", 1)
    yield _field("size", 0x1FF)
    yield _field("cpuid_table_size", 256)
    yield _field("exponent", 3)
    yield Case("INSTALL.manifest.hv", "module_hv = 0, min_update_hv = 1", _sig(module_hv=0, min_update_hv=1))
    yield Case("INSTALL.manifest.gdt_idt_alignment", "gdt_idt_offset = 0x1800", _sig(gdt_idt_offset=0x1800))
    yield Case("INSTALL.manifest.gdt_idt_pair", "gdt_idt_offset = 0, fault_wrapper_offset is not",
               _sig(gdt_idt_offset=0))
    yield Case("INSTALL.manifest.signer_key", "signed with a key that nobody knows", Attempt(other_key=True))
    yield Case("INSTALL.manifest.debug", "debug-signed", _sig(module_type=1 << 31))
    yield Case("INSTALL.manifest.major_svn", "UPDATE from SVN 1.5 to 2.5",
               Attempt(scenario=UPDATE, sig={"seam_major_svn": 2, "seam_minor_svn": 5}))
    yield Case("INSTALL.manifest.minor_svn", "UPDATE from SVN 1.5 to 1.4", Attempt(scenario=UPDATE, build="1.5.01"))
    yield Case("INSTALL.manifest.svn", "on P-SEAMLDR 1.0: UPDATE from SVN 1.5 to 1.4",
               Attempt(old_sig=NOTHING_1_0, scenario=UPDATE, build="1.5.01", on={"revision": "1.0"}, sig=NOTHING_1_0))
    yield Case("INSTALL.manifest.gdt_idt_bound", "gdt_idt_offset = size of the image", _sig(gdt_idt_offset=SIZE))
    yield Case("INSTALL.manifest.fault_wrapper_bound", "fault wrappers end one byte behind the image",
               _sig(fault_wrapper_offset=SIZE - 511))
    yield Case("INSTALL.manifest.cpuid", "for 0x806F0 only, on a 0xC06F2", _sig(cpuid_table=[0x806F0]))
    yield Case("INSTALL.manifest.cpuid_mandatory", "an empty CPUID table", _sig(cpuid_table=[]))
    yield Case("INSTALL.manifest.signature", "date changed after signing",
               Attempt(sig={"date": 0x20260101}, resign=False))


def _update_cases() -> Iterator[Case]:
    yield Case("INSTALL.update.remaining", "UPDATE where SEAMDB has room for one module only",
               Attempt(scenario=UPDATE, on={"seamdb": 1}))
    yield Case("INSTALL.update.handoff_valid", "UPDATE, the old module left no handoff data",
               Attempt(scenario=UPDATE, handoff={"valid": 0}))
    yield Case("INSTALL.update.handoff_size", "14 pages of handoff data, and 8 bytes of header",
               Attempt(scenario=UPDATE, handoff={"size": 14 * PAGE}))
    yield Case("INSTALL.update.handoff_hv_low", "data in version 0 for a module that reads 1 only",
               Attempt(scenario=UPDATE, build="1.5.931"))
    yield Case("INSTALL.update.handoff_hv_high", "data in version 1 for a module that reads 0 only",
               Attempt(scenario=UPDATE, handoff={"hv": 1}))


def _elf_cases() -> Iterator[Case]:
    yield Case("ELF.magic", "magic = 0", _in_header("magic", 0))
    yield Case("ELF.class", "class = 1: 32 bits", _in_header("class", 1))
    yield Case("ELF.data", "data = 2: big-endian", _in_header("data", 2))
    yield Case("ELF.version", "ident_version = 0", _in_header("ident_version", 0))
    yield Case("ELF.section", "e_shoff = size of the image", _in_header("e_shoff", SIZE))
    yield Case("ELF.entsize", "sh_entsize of .rela.dyn = 0", _in_section(".rela.dyn", "sh_entsize", 0))
    yield Case("ELF.rela", "sh_addr of .rela.dyn: 8 bytes before the end",
               _in_section(".rela.dyn", "sh_addr", SIZE - 8))
    yield Case("ELF.r_info", "r_info of the fourth relocation = 6", _in_relocation("r_info", 6))
    yield Case("ELF.r_offset", "r_offset of the fourth: 4 bytes before the end", _in_relocation("r_offset", SIZE - 4))
    yield Case("ELF.r_addend", "r_addend of the fourth = size of the image", _in_relocation("r_addend", SIZE))


def _seamdb_answers(*answers: tuple[Any, ...]) -> Any:
    def prepare(platform: Platform) -> None:
        platform.inject("seamdb", *answers)

    return prepare


def fatal_cases() -> Iterator[Case]:
    """Ends without a status: P-SEAMLDR executes UD2, or faults, and the processor shuts down."""
    yield Case("MAP.keyholes", "six global data pages fewer: tables for everything but the keyholes",
               Attempt(sig={"num_global_data_pages": largest_planned() - 6}))
    yield Case("INSTALL.load", "SEAMDB_CLEAR answers 3 (database error)",
               Attempt(prepare=_seamdb_answers(("CLEAR", 3))))
    yield Case("INSTALL.insert", "SEAMDB without a single entry: INSERT answers 3", Attempt(old=None, on={"seamdb": 0}))


@dataclass(frozen=True, slots=True)
class Refusal:
    """A case after it ran."""

    case: Case
    row: Check[Any, Any]
    table: str
    session: Session

    @property
    def remaining(self) -> int:
        """num_remaining_updates afterwards, read from P-SEAMLDR's data without asking it."""
        count: int = loader_data(self.session.platform).num_remaining_updates
        return count

    @property
    def rows(self) -> Mapping[str, Any]:
        """The columns that tables and the command line print."""
        last = self.session.last
        return {
            "clause": self.row.id, "says": self.row.says, "attempt": self.case.brings,
            "RAX": last.answer, "RDX": rdx_text(last.rdx) if last.rdx in set(Recoverability) else "unchanged",
            "SEAM_READY": SEAMEXTEND.peek(last.after, "seam_ready"), "module range": self.session.memory,
            "old module": self.session.survives,
        }


def held_rows() -> frozenset[str]:
    """Ids of the rows that have an attempt, and of the fatal ends."""
    return frozenset(case.row for case in (*cases(), *fatal_cases()))


def case_of(row: str) -> Case:
    """The attempt for a row, or for a fatal end."""
    return next(case for case in (*cases(), *fatal_cases()) if case.row == row)


def refusals(*tables: CheckTable[Any, Any]) -> list[Refusal]:
    """Run the attempts of these tables (default: all), in order."""
    chosen = tables or INSTALL_TABLES
    held = {case.row: case for case in cases()}
    return [
        Refusal(held[row.id], row, table.name, held[row.id].attempt.run())
        for table in chosen for row in table if row.id in held
    ]


def on_1_0(case: Case) -> Case | None:
    """The same attempt on P-SEAMLDR 1.0, with a sigstruct that it can read; ``None`` where it is for 1.0 already."""
    given = case.attempt
    if "revision" in given.on:
        return None
    older = replace(
        given, on={**given.on, "revision": "1.0"}, old_sig={**NOTHING_1_0, **given.old_sig},
        sig={**NOTHING_1_0, **given.sig},
    )
    return Case(case.row, case.brings, older)


@dataclass(frozen=True, slots=True)
class Difference:
    """An attempt that the two generations answer differently, or refuse with another row."""

    case: Case
    newer: Session
    older: Session


def differences() -> list[Difference]:
    """Every attempt on both generations of P-SEAMLDR; those that do not end alike."""
    found = []
    for case in cases():
        other = on_1_0(case)
        if other is None:
            continue
        newer, older = case.attempt.run(), other.attempt.run()
        if (newer.last.answer, newer.last.row_ids) != (older.last.answer, older.last.row_ids):
            found.append(Difference(case, newer, older))
    return found


__all__ = [
    "Difference", "differences", "on_1_0",
    "INSTALL_TABLES", "NOTHING_1_0", "Case", "Refusal", "case_of", "cases", "fatal_cases", "held_rows", "refusals",
]
