"""What NP-SEAMLDR remembers between two steps, what it is built with, and how it ends."""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from seamref.arch import msr
from seamref.arch.acm import ACM_HEADER
from seamref.arch.cpuid import cpuid
from seamref.arch.lp import Lp
from seamref.arch.memory import Range
from seamref.arch.outcome import Fault, Vector
from seamref.arch.smx import AcPort
from seamref.arch.software import STUB, SoftwareFault
from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.firmware.acm import NP_SEAMLDR_BUILD
from seamref.layout import Record
from seamref.spec import MEASURED, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


COMPONENT = "NP-SEAMLDR"
PAGE, MIB2, GIB = 0x1000, 0x200000, 1 << 30
MASK64 = (1 << 64) - 1

CORE = "NPS Core/CommonSeamLdr64/SeamldrCore64.c"
START = "NPS Core/Common/CodeStart.nasm"
SEAMLDR64 = "NPS Projects/Server/Emr/Seamldr/seamldr64.c"
PAGING = "NPS Core/CommonSeamLdr64/SeamrrPaging64.c"
ELF = "NPS Core/CommonSeamLdr64/elf64.c"
VMCS = "NPS Core/CommonSeamLdr64/vmcs64.c"

PAT = 0x0007040600070406
SHADOW_STACK, VMCS_AREA = PAGE, 2 * PAGE
MAX_MAPS = 512
"""Entries of the module's own page table (4 KiB maps) and page directory (2 MiB maps)."""
COOKIE_TRIES = 10
MAX_SOCKETS = 8

MODULE_LINEAR = 0x0000000200000000
"""Linear bases of P-SEAMLDR's regions, before ASLR."""

XD = 1 << 63
TABLE_ENTRY, KEYHOLE_TABLE_ENTRY = 0x27, 0x27 | XD
LEAF_CODE, LEAF_RO, LEAF_RW, LEAF_RW_USER, LEAF_2M = 0x21, 0x21 | XD, 0x63 | XD, 0x67 | XD, 0xE3 | XD
LEAF_SHADOW = 0x61 | XD
ADDRESS = 0x000FFFFFFFFFF000

REVISION_10 = (1, 0)
EXIT_CONTROLS_10 = 0x573C0204
"""1.0 does not ask for "load IA32_PERF_GLOBAL_CTRL" on exit."""

BUFFER = 0x400
"""Offset in the module of the 256-aligned SEAMEXTEND buffer: in the scratch area (chosen; the real module has two, one
among its 64-bit data for the copy out, one on its stack for the copy in)."""


class NpStatus(IntEnum):
    """What NP-SEAMLDR returns in R9; bit 63 error, bits 31:16 class, bits 15:0 number."""

    SUCCESS = 0
    EBADPARAM = 0x8000000000000000
    EMODBUSY = 0x8000000000000001
    ELDRINPROG = 0x8000000000000002
    EBADRANGE = 0x8000000000010000
    EBADPLATF = 0x8000000000010001
    ENOMEM = 0x8000000000010002
    EUNSPECERR = 0x8000000000010003


@dataclass(frozen=True, slots=True)
class Returned:
    """NP-SEAMLDR came back with this status in R9; ``clause`` is what decided it."""

    status: NpStatus
    clause: str

    def __str__(self) -> str:
        return f"R9 = {self.status.name} (0x{int(self.status):X})"


@dataclass(frozen=True, slots=True)
class Fatal:
    """An exception with a null IDT: no status, the platform resets.  The module's own fatal errors are UD2."""

    cause: str
    vector: Vector = Vector.UD

    def __str__(self) -> str:
        return f"{'UD2' if self.vector is Vector.UD else self.vector.mnemonic}: reset"


@dataclass(frozen=True, slots=True)
class NpState:
    """What a run of NP-SEAMLDR remembers between two steps.

    ``next``         index in STEPS of the step that comes next
    ``status``       what R9 will be
    ``maps_4k``, ``maps_2m``   entries used of the module's own 512 + 512 mappings
    ``next_table``   physical address of the next free page table of P-SEAMLDR
    ``failed``       the step just taken could not do its work (rows that follow an action look at it)
    ``decided``      the clause that decided the status
    """

    next: int = 0
    status: int = 0
    idtr_limit: int = 0
    cr3: int = 0
    cr4: int = 0
    selectors: tuple[int, ...] = ()
    gdtr_limit: int = 0
    cookie: tuple[int, int] = (0, 0)
    post_senter: bool = False
    maps_4k: int = 0
    maps_2m: int = 0
    bios_sign_id: int = 0
    misc_enable: int = 0
    physmask: int = 0
    base: int = 0
    size: int = 0
    mask: int = 0
    unlocked: bool = False
    mutex_taken: bool = False
    seed: tuple[int, int] = (0, 0)
    aslr: int = 0
    next_table: int = 0
    failed: bool = False
    decided: str = "NP_SEAMLDR.run"


class Np:
    """One run on one processor: the platform, the state, and what the module's own bytes say."""

    __slots__ = ("build", "consts", "header_se_svn", "lp", "platform", "port", "state")

    def __init__(self, platform: Platform, lp: Lp, state: NpState) -> None:
        assert lp.acram is not None
        self.platform = platform
        self.lp = lp
        self.state = state
        self.port = AcPort(platform, lp)
        entry = ACM_HEADER.peek(lp.acram, "EntryPoint")
        self.build: Record = NP_SEAMLDR_BUILD.decode(lp.acram, entry + STUB.size)
        self.consts: Record = self.build.consts
        self.header_se_svn: int = ACM_HEADER.peek(lp.acram, "SeSvn")

    def set(self, **changes: Any) -> None:
        """Remember something."""
        self.state = replace(self.state, **changes)

    # --- what the facts are made of

    @property
    def is_10(self) -> bool:
        """Whether this is NP-SEAMLDR 1.0."""
        return (self.build.revision_major, self.build.revision_minor) <= REVISION_10

    @property
    def end(self) -> int:
        """E: the end of SEAMRR."""
        return self.state.base + self.state.size

    @property
    def sysinfo(self) -> int:
        """Physical address of P_SYS_INFO_TABLE."""
        return self.end - PAGE

    def table(self, path: str) -> int:
        """An integer field of P_SYS_INFO_TABLE."""
        kind, at = P_SYS_INFO_TABLE.resolve(path)
        return self.read_int(self.sysinfo + at, kind.size)

    def put_table(self, path: str, value: int) -> None:
        """Replace an integer field of P_SYS_INFO_TABLE."""
        kind, at = P_SYS_INFO_TABLE.resolve(path)
        self.write_int(self.sysinfo + at, value, kind.size)

    @property
    def range(self) -> Range:
        """P_SEAMLDR_RANGE as the table states it."""
        return Range(self.table("p_seamldr_range_base"), self.table("p_seamldr_range_size"))

    @property
    def image_source(self) -> int:
        """Physical address of the embedded image (in ACRAM)."""
        return self.lp.acram_base + int(self.build.image_offset)

    @property
    def code(self) -> int:
        """Physical address of P-SEAMLDR's code region."""
        return self.end - PAGE - int(self.consts.CCodeRgnSize) & MASK64

    @property
    def data(self) -> int:
        """Physical address of P-SEAMLDR's data region, the lowest of the four at the end of SEAMRR."""
        c = self.consts
        return self.code - SHADOW_STACK - int(c.CDataStackSize) - int(c.CDataRgnSize) & MASK64

    @property
    def stack(self) -> int:
        """Physical address of the data stack; the shadow stack's page is above it."""
        return self.code - SHADOW_STACK - int(self.consts.CDataStackSize) & MASK64

    @property
    def stack_pages(self) -> int:
        """Pages of the data stack as the module's loop counts them: the low 32 bits of CDataStackSize, rounded down."""
        return (int(self.consts.CDataStackSize) & 0xFFFFFFFF) // PAGE

    def linear(self, base: int) -> int:
        """A region's linear base with ASLR."""
        return base | self.state.aslr

    def x2apic_id(self) -> int:
        """CPUID 1FH, subleaf 1, EDX."""
        return cpuid(self.platform, self.lp, 0x1F, 1).edx

    # --- memory: the module's own page tables hold its ACM, SEAMRR and the page of P_SYS_INFO_TABLE, 1:1

    @implements("NP_SEAMLDR.own_tables", "every access goes through page tables of the module's own: its module, "
                "SEAMRR and the page of P_SYS_INFO_TABLE; anything else is #PF", PAGING, MEASURED)
    def _reach(self, at: int, size: int, write: bool) -> None:
        state, lp = self.state, self.lp
        if state.base <= at <= self.end - size or self.sysinfo <= at <= self.end - size:
            return
        if lp.acram is not None and lp.acram_base <= at <= lp.acram_base + len(lp.acram) - size:
            return
        raise SoftwareFault(Vector.PF, f"{'writing' if write else 'reading'} 0x{at:X}: not in the module's page tables")

    def read(self, at: int, size: int) -> bytes:
        """NP_SEAMLDR.own_tables: ``size`` bytes through the module's page tables."""
        self._reach(at, size, False)
        return self.port.read(at, size)

    def write(self, at: int, data: bytes | bytearray) -> None:
        """NP_SEAMLDR.own_tables: bytes through the module's page tables."""
        self._reach(at, len(data), True)
        self.port.write(at, data)

    def zero(self, at: int, size: int) -> None:
        """NP_SEAMLDR.own_tables: zeros through the module's page tables."""
        self._reach(at, size, True)
        self.port.zero(at, size)

    def read_int(self, at: int, size: int = 8) -> int:
        """A little-endian integer."""
        return int.from_bytes(self.read(at, size), "little")

    def write_int(self, at: int, value: int, size: int = 8) -> None:
        """A store of ``size`` bytes: what does not fit into them is lost, as in a register."""
        self.write(at, (value & (1 << 8 * size) - 1).to_bytes(size, "little"))

    def rdmsr(self, address: int) -> int:
        """RDMSR; a fault finds no IDT."""
        value = msr.rdmsr(self.platform, self.lp.id, address)
        if isinstance(value, Fault):
            raise SoftwareFault(value.vector, f"RDMSR 0x{address:X} ({value.clause})")
        return value

    def wrmsr(self, address: int, value: int) -> None:
        """WRMSR; a fault finds no IDT."""
        outcome = msr.wrmsr(self.platform, self.lp.id, address, value)
        if isinstance(outcome, Fault):
            raise SoftwareFault(outcome.vector, f"WRMSR 0x{address:X} ({outcome.clause})")

    def seamextend(self) -> Record:
        """The register as it was copied out to the buffer in the module."""
        return SEAMEXTEND.decode(self.read(self.lp.acram_base + BUFFER, SEAMEXTEND.size))
