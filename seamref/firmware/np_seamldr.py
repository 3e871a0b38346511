"""NP-SEAMLDR: the authenticated code that builds P-SEAMLDR's world and leaves.

An explicit step machine: every step is a function named for its clause, the list :data:`STEPS` is the order, and
:data:`TABLES` are the conditions that stop between them.  What a run knows is one frozen :class:`NpState`; everything
else is registers, MSRs and memory of the platform.  Another processor may act between any two steps.

All errors that are returned are returned in R9.  What goes wrong before the main flow is UD2: a TXT shutdown.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from seamref.arch import msr
from seamref.arch.acm import ACM_HEADER
from seamref.arch.cpuid import cpuid
from seamref.arch.lp import (
    CR0_NE,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_PAE,
    CR4_PGE,
    CR4_SMXE,
    EFER_LMA,
    EFER_LME,
    EFER_NXE,
    RFLAGS_RESET,
    Lp,
)
from seamref.arch.memory import Range
from seamref.arch.outcome import Fault, TxtShutdown
from seamref.arch.smx import AcPort, AcStep, ExitedAc, exitac, register_ac_program, step_acm, txt_sts
from seamref.arch.software import STUB, MemoryFault, Running, Ud2
from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.arch.trace import Step
from seamref.arch.vmcs import VMCS_SIZE, put
from seamref.arch.vmx import is_canonical
from seamref.errors import SeamrefError
from seamref.firmware.acm import NP_SEAMLDR_BUILD, NP_SEAMLDR_PROGRAM
from seamref.layout import Record
from seamref.pseamldr.memory_constants import (
    CODE_LINEAR,
    DATA_LINEAR,
    KEYEDIT_LINEAR,
    KEYHOLE_LINEAR,
    STACK_LINEAR,
    SYSINFO_LINEAR,
    table_pages,
)
from seamref.pseamldr.vmcs_setup import VMX_MSRS, common_fields
from seamref.spec import CHOSEN, MEASURED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

COMPONENT = "NP-SEAMLDR"
PAGE, MIB2, GIB = 0x1000, 0x200000, 1 << 30
MASK64 = (1 << 64) - 1

_CORE = "NPS Core/CommonSeamLdr64/SeamldrCore64.c"
_START = "NPS Core/Common/CodeStart.nasm"
_64 = "NPS Projects/Server/Emr/Seamldr/seamldr64.c"
_PAGING = "NPS Core/CommonSeamLdr64/SeamrrPaging64.c"
_ELF = "NPS Core/CommonSeamLdr64/elf64.c"
_VMCS = "NPS Core/CommonSeamLdr64/vmcs64.c"

PAT = 0x0007040600070406
SHADOW_STACK, VMCS_AREA = PAGE, 2 * PAGE
MAX_MAPS = 512
"""Entries of the module's own page table (4 KiB maps) and page directory (2 MiB maps)."""
COOKIE_TRIES = 10
MAX_SOCKETS = 8

MODULE_LINEAR = 0x0000000200000000
"""Linear bases of P-SEAMLDR's regions, before ASLR."""

_XD = 1 << 63
TABLE_ENTRY, KEYHOLE_TABLE_ENTRY = 0x27, 0x27 | _XD
LEAF_CODE, LEAF_RO, LEAF_RW, LEAF_RW_USER, LEAF_2M = 0x21, 0x21 | _XD, 0x63 | _XD, 0x67 | _XD, 0xE3 | _XD
LEAF_SHADOW = 0x61 | _XD
ADDRESS = 0x000FFFFFFFFFF000

REVISION_10 = (1, 0)
EXIT_CONTROLS_10 = 0x573C0204
"""1.0 does not ask for "load IA32_PERF_GLOBAL_CTRL" on exit."""

BUFFER = 0x400
"""Offset in the module of the 256-aligned SEAMEXTEND buffer: in the scratch area (chosen)."""


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
    """UD2 with a null IDT: no status, the platform resets."""

    cause: str

    def __str__(self) -> str:
        return "UD2: reset"


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
        return self.port.read_int(self.sysinfo + at, kind.size)

    def put_table(self, path: str, value: int) -> None:
        """Replace an integer field of P_SYS_INFO_TABLE."""
        kind, at = P_SYS_INFO_TABLE.resolve(path)
        self.port.write_int(self.sysinfo + at, value, kind.size)

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
        return self.end - PAGE - int(self.consts.CCodeRgnSize)

    @property
    def data(self) -> int:
        """Physical address of P-SEAMLDR's data region, the lowest of the four at the end of SEAMRR."""
        c = self.consts
        return self.code - SHADOW_STACK - int(c.CDataStackSize) - int(c.CDataRgnSize)

    @property
    def stack(self) -> int:
        """Physical address of the data stack; the shadow stack's page is above it."""
        return self.code - SHADOW_STACK - int(self.consts.CDataStackSize)

    def linear(self, base: int) -> int:
        """A region's linear base with ASLR."""
        return base | self.state.aslr

    def x2apic_id(self) -> int:
        """CPUID 1FH, subleaf 1, EDX."""
        return cpuid(self.platform, self.lp, 0x1F, 1).edx

    def rdmsr(self, address: int) -> int:
        """RDMSR; a fault finds no IDT."""
        value = msr.rdmsr(self.platform, self.lp.id, address)
        if isinstance(value, Fault):
            raise Ud2(f"RDMSR 0x{address:X}: {value} ({value.clause})")
        return value

    def wrmsr(self, address: int, value: int) -> None:
        """WRMSR; a fault finds no IDT."""
        outcome = msr.wrmsr(self.platform, self.lp.id, address, value)
        if isinstance(outcome, Fault):
            raise Ud2(f"WRMSR 0x{address:X}: {outcome} ({outcome.clause})")

    def seamextend(self) -> Record:
        """The register as it was copied out to the buffer in the module."""
        return SEAMEXTEND.decode(self.port.read(self.lp.acram_base + BUFFER, SEAMEXTEND.size))


# --- the conditions, in order

NP_ENTRY: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.entry", (
    Check("NP_SEAMLDR.eax", "EAX at the entry point is not 2 (ENTERACCS)", lambda c: c.lp.rax & 0xFFFFFFFF != 2,
          Fatal("EAX is not ENTERACCS"), _START, MEASURED),
), "32-bit entry: UD2.")

NP_BIOS_DONE: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.bios", (
    Check("NP_SEAMLDR.bios_done", "BIOS_DONE (MSR 151H) bit 0 is 0", lambda c: not c.rdmsr(msr.BIOS_DONE) & 1,
          Fatal("BIOS_DONE is 0"), _START, MEASURED),
), "32-bit entry, after BIOS_SE_SVN was written: UD2.")

NP_PRIVATE_SPACE: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.txt", (
    Check("NP_SEAMLDR.private_space", "TXT.STS (FED20000H) reads FFFFFFFFH 80000000H times",
          lambda c: txt_sts(c.platform) == 0xFFFFFFFF, Fatal("TXT private space never opens"), _START, MEASURED),
), "32-bit entry: UD2.")

NP_COOKIE: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.cookies", (
    Check("NP_SEAMLDR.cookie", "no RDSEED in 10 tries, or it gave 0: no stack cookie",
          lambda c: not c.state.cookie[0] or c.state.cookie[1] == 0, Fatal("no stack cookie"),
          "NPS Core/Common/GsSupport.c", MEASURED),
), "Twice: 32-bit entry and 64-bit prologue: UD2.")

NP_RESUME: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.resume", (
    Check("NP_SEAMLDR.resume_rip", "resume RIP (R10) is not canonical for the caller's paging",
          lambda c: not is_canonical(c.lp.r10, 57 if c.state.cr4 & CR4_LA57 else 48),
          Fatal("resume RIP is not canonical"), _64, MEASURED),
), "64-bit prologue: UD2.")

NP_VALID: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.seamrr", (
    Check("NP_SEAMLDR.valid", "IA32_SEAMRR_PHYS_MASK.VALID = 0", lambda c: not c.rdmsr(msr.SEAMRR_MASK) & 1 << 11,
          NpStatus.EBADRANGE, _CORE, MEASURED),
), "Before SEAMRR is opened.")

NP_MAP_TABLE: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.own_4k", (
    Check("NP_SEAMLDR.map_sysinfo", "no entry left in the module's own page table for P_SYS_INFO_TABLE",
          lambda c: c.state.maps_4k >= MAX_MAPS, NpStatus.ENOMEM, _CORE, MEASURED),
), "SEAMRR is open from here on.")

NP_SIZE: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.range", (
    Check("NP_SEAMLDR.size", "SEAMRR is larger than 1 GiB", lambda c: c.state.size > GIB, NpStatus.EBADRANGE, _CORE,
          MEASURED),
    Check("NP_SEAMLDR.map_seamrr", "no room in the module's own page directory for SEAMRR in 2 MiB pages",
          lambda c: c.state.maps_2m + c.state.size // MIB2 > MAX_MAPS, NpStatus.ENOMEM, _CORE, MEASURED),
), "The size is judged after SEAMRR was opened.")


def _other_model(c: Np) -> bool:
    first = c.table("socket_cpuid_table[0]") & 0xFFFFFFF0
    return any(
        c.table(f"socket_cpuid_table[{i}]") & 0xFFFFFFF0 != first for i in range(1, c.table("tot_num_sockets"))
    )


NP_PLATFORM: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.platform", (
    Check("NP_SEAMLDR.sockets", "tot_num_sockets is 0 or above 8",
          lambda c: not 1 <= c.table("tot_num_sockets") <= MAX_SOCKETS, NpStatus.EBADPARAM, _CORE, MEASURED),
    Check("NP_SEAMLDR.same_model", "a socket's CPUID.1:EAX[31:4] differs from socket 0's", _other_model,
          NpStatus.EBADPLATF, _CORE, MEASURED),
    Check("NP_SEAMLDR.version", "P_SYS_INFO_TABLE.version is not 0", lambda c: c.table("version") != 0,
          NpStatus.EBADPLATF, _CORE, MEASURED),
), "What MCHECK wrote.")

NP_MUTEX: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.mutexes", (
    Check("NP_SEAMLDR.mutex", "the low byte of np_seamldr_mutex was not 0 (atomic compare-exchange)",
          lambda c: c.state.failed, NpStatus.ELDRINPROG, _CORE, MEASURED),
), "The exchange is the check.")

NP_SAME_LP: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.lp", (
    Check("NP_SEAMLDR.same_lp", "acm_x2apicid_valid is 1 and acm_x2apicid is another processor",
          lambda c: c.table("acm_x2apicid_valid") == 1 and c.table("acm_x2apicid") != c.x2apic_id(),
          NpStatus.EMODBUSY, _CORE, MEASURED),
), "A second launch must come from the processor of the first.")

NP_LOADED: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.loaded", (
    Check("NP_SEAMLDR.p_seamldr_ready", "SEAMEXTEND.P_SEAMLDR_READY is not 0: P-SEAMLDR was not shut down",
          lambda c: bool(c.seamextend().p_seamldr_ready), NpStatus.EMODBUSY, _CORE, MEASURED),
    Check("NP_SEAMLDR.seam_ready", "SEAMEXTEND.SEAM_READY is not 0: a TDX module is loaded",
          lambda c: bool(c.seamextend().seam_ready), NpStatus.EMODBUSY, _CORE, MEASURED),
), "After the register was copied out: only after SEAMLDR.SHUTDOWN.")

NP_ENTROPY: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.entropy", (
    Check("NP_SEAMLDR.aslr", "one try of RDSEED for ASLR fails", lambda c: not c.state.seed[0], NpStatus.EUNSPECERR,
          _CORE, MEASURED),
), "A single try, unlike the cookie's ten.")

NP_SPACE: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.space", (
    Check("NP_SEAMLDR.range_size",
          "P_SEAMLDR_RANGE is smaller than code, stacks, VMCS area, table, data and paging need",
          lambda c: _is_too_small(c), NpStatus.ENOMEM, _CORE, MEASURED),
), "The last check before P_SEAMLDR_RANGE is wiped.")


def _copies_onto_itself(c: Np) -> bool:
    size, room = int(c.build.image_size), int(c.consts.CCodeRgnSize)
    source, target = c.image_source, c.code
    return source < target + room and target < source + size


NP_COPY: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.copy", (
    Check("NP_SEAMLDR.image_size", "CCodeRgnSize is smaller than the embedded image",
          lambda c: c.consts.CCodeRgnSize < c.build.image_size, NpStatus.EBADPARAM, _CORE, MEASURED),
    Check("NP_SEAMLDR.image_wraps", "source or destination wraps the address space",
          lambda c: c.code < 0 or c.image_source + int(c.build.image_size) > MASK64, NpStatus.EBADPARAM, _CORE,
          MEASURED),
    Check("NP_SEAMLDR.image_overlaps", "source and destination overlap", _copies_onto_itself, NpStatus.EBADPARAM,
          _CORE, MEASURED),
), "From here on a failure leaves P_SEAMLDR_RANGE wiped.")

NP_RELOCATION: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.elf", (
    Check("NP_SEAMLDR.relocation", "a relocation section with entry size 0, or an entry whose r_info is not 8",
          lambda c: c.state.failed, NpStatus.EBADPARAM, _ELF, MEASURED),
), "No header or bounds checks: the ACM's signature covers the image.")

_MAPS = (
    ("code", "code"), ("stacks", "data stack and shadow stack"), ("keyholes", "keyholes and key-edit"),
    ("data", "data"), ("sysinfo", "P_SYS_INFO_TABLE"), ("module", "module region"),
)


def _map_table(name: str, what: str) -> CheckTable[Np, NpStatus]:
    return CheckTable(f"NP_SEAMLDR.tables_{name}", (
        Check(f"NP_SEAMLDR.tables_for_{name}", f"mapping the {what}: the page-table allocator meets the data region",
              lambda c: c.state.failed, NpStatus.ENOMEM, _PAGING, MEASURED),
    ), "Page tables grow up from P_SEAMLDR_RANGE.base + 12 KiB.")


NP_TABLES: dict[str, CheckTable[Np, NpStatus]] = {name: _map_table(name, what) for name, what in _MAPS}

TABLES: tuple[CheckTable[Np, Any], ...] = (
    NP_ENTRY, NP_BIOS_DONE, NP_PRIVATE_SPACE, NP_COOKIE, NP_RESUME, NP_VALID, NP_MAP_TABLE, NP_SIZE, NP_PLATFORM,
    NP_MUTEX, NP_SAME_LP, NP_LOADED, NP_ENTROPY, NP_SPACE, NP_COPY, NP_RELOCATION, *NP_TABLES.values(),
)
"""All conditions of NP-SEAMLDR in the order in which a launch meets them."""


class Refused(Exception):
    """A status is decided; control goes to the exit."""

    def __init__(self, status: NpStatus, clause: str) -> None:
        self.status = status
        self.clause = clause
        super().__init__(f"{status.name} ({clause})")


def _ask(np: Np, table: CheckTable[Np, NpStatus]) -> None:
    row = table.decide(np, np.platform.revision)
    if row is not None:
        raise Refused(row.result, row.id)


def _demand(np: Np, table: CheckTable[Np, Fatal]) -> None:
    row = table.decide(np, np.platform.revision)
    if row is not None:
        raise Ud2(f"{row.result.cause} ({row.id})")


# --- 32-bit entry


@implements("NP_SEAMLDR.idt", "the caller's IDTR is kept, a null IDT is loaded: every fault is fatal", _START, MEASURED)
def save_idt(np: Np) -> None:
    """NP_SEAMLDR.idt; then EAX must still say ENTERACCS."""
    np.set(idtr_limit=np.lp.idtr_limit)
    np.lp.idtr_base = np.lp.idtr_limit = 0
    _demand(np, NP_ENTRY)


@implements("NP_SEAMLDR.se_svn", "BIOS_SE_SVN[63:56] := the header's SE SVN, [7:0] := 0; before any check that could "
            "refuse, and never undone", _START, MEASURED)
def write_se_svn(np: Np) -> None:
    """NP_SEAMLDR.se_svn: the only record of P-SEAMLDR's identity."""
    kept = np.rdmsr(msr.BIOS_SE_SVN) & 0x00FFFFFFFFFFFF00
    np.wrmsr(msr.BIOS_SE_SVN, kept | (np.header_se_svn & 0xFF) << 56)


@implements("NP_SEAMLDR.wait_for_bios", "BIOS must have said that it trusts nothing any more", _START, MEASURED)
def check_bios_done(np: Np) -> None:
    """NP_SEAMLDR.wait_for_bios."""
    _demand(np, NP_BIOS_DONE)


@implements("NP_SEAMLDR.save", "registers, CR3, CR4, selectors, limits: R8 to R12 stay in registers", _START, MEASURED)
def save_state(np: Np) -> None:
    """NP_SEAMLDR.save: after the module has relocated itself (a minted module has no 32-bit fix-ups)."""
    lp = np.lp
    cs, gdtr_limit = lp.rcx & 0xFFFF, lp.rcx >> 16 & 0xFFFF
    names = ("es_selector", "fs_selector", "gs_selector", "ss_selector")
    np.set(cr3=lp.cr3, cr4=lp.cr4, gdtr_limit=gdtr_limit,
           selectors=tuple(s & 0x0FF8 for s in (cs, *(getattr(lp, n) for n in names))))


@implements("NP_SEAMLDR.open_txt", "poll TXT.STS until the private space answers", _START, MEASURED)
def wait_for_txt(np: Np) -> None:
    """NP_SEAMLDR.open_txt."""
    _demand(np, NP_PRIVATE_SPACE)


@implements("NP_SEAMLDR.cookie_32", "up to 10 tries of RDSEED for the stack cookie", "NPS Core/Common/GsSupport.c",
            MEASURED)
def make_cookie(np: Np) -> None:
    """NP_SEAMLDR.cookie_32: the cookie of one of the two stacks."""
    for _ in range(COOKIE_TRIES):
        np.set(cookie=np.platform.rdrand("rdseed"))
        if np.state.cookie[0]:
            break
    _demand(np, NP_COOKIE)


@implements("NP_SEAMLDR.paging", "own page tables (the module 1:1), PAT, LME and NXE, PG and WP, 4 or 5 levels by "
            "the caller's CR4.LA57", "NPS Core/Common/AcmPaging.c", MEASURED)
def turn_on_paging(np: Np) -> None:
    """NP_SEAMLDR.paging: into 64-bit mode.  The module's own tables are counted, not kept as bytes."""
    lp = np.lp
    lp.cr4 |= CR4_PAE | CR4_SMXE
    lp.cr0 = CR0_PE | CR0_NE
    make_cookie(np)
    np.wrmsr(0x277, PAT)
    lp.cr3 = lp.acram_base
    lp.efer |= EFER_LME | EFER_NXE
    lp.cr0 |= CR0_PG | (0 if np.is_10 else CR0_WP)
    lp.efer |= EFER_LMA
    lp.cs_selector, lp.cs_l = 0x18, True


# --- 64-bit prologue


@implements("NP_SEAMLDR.prologue", "a new cookie; TPM locality 3 closed; TXT private space closed unless after SENTER",
            _64, MEASURED)
def enter_64bit(np: Np) -> None:
    """NP_SEAMLDR.prologue; then the resume RIP must be canonical."""
    make_cookie(np)
    txt = np.platform.txt
    np.set(maps_4k=np.state.maps_4k + 1)  # the MMIO page
    txt.pop("LOCALITY3", None)
    np.set(post_senter=bool(txt_sts(np.platform) & 1))
    if not np.state.post_senter:
        txt.pop("PRIVATE_SPACE", None)
    _demand(np, NP_RESUME)


# --- main flow


@implements("NP_SEAMLDR.keep_msrs",
            "BIOS_SIGN_ID kept before the first CPUID; IA32_MISC_ENABLE kept, its bit 22 cleared",
            _CORE, MEASURED)
def keep_msrs(np: Np) -> None:
    """NP_SEAMLDR.keep_msrs: rows 1 and 2 of the main flow."""
    np.set(bios_sign_id=np.rdmsr(0x8B), misc_enable=np.rdmsr(msr.MISC_ENABLE))
    np.wrmsr(msr.MISC_ENABLE, np.state.misc_enable & ~(1 << 22))
    largest = cpuid(np.platform, np.lp, 0x80000000).eax
    width = cpuid(np.platform, np.lp, 0x80000008).eax & 0xFF if largest >= 0x80000008 else 36
    np.set(physmask=(1 << width) - 1)


@implements("NP_SEAMLDR.decode_seamrr",
            "base = MSR 1400H & FFFFFFFFFE000000H; size = lowest set bit of MSR 1401H under "
            "the same mask, 0 if none", _CORE, MEASURED)
def read_seamrr(np: Np) -> None:
    """NP_SEAMLDR.decode_seamrr: no look at LOCK, CONFIGURED, alignment, or whether the mask is contiguous."""
    _ask(np, NP_VALID)
    field = 0xFFFFFFFFFE000000
    mask = np.rdmsr(msr.SEAMRR_MASK)
    size = mask & field & -(mask & field)
    if np.is_10:
        size = _size_10(np, mask & field)
    np.set(base=np.rdmsr(msr.SEAMRR_BASE) & field, mask=mask, size=size)


@implements("NP_SEAMLDR.size_10", "1.0: size = ~(mask | private KeyID bits | ~physmask) + 1", "NPS10 SeamldrCore64.c",
            MEASURED)
def _size_10(np: Np, mask: int) -> int:
    """NP_SEAMLDR.size_10: 1.0 takes the complement of the mask."""
    k = np.rdmsr(msr.TME_ACTIVATE) >> 36 & 0xF
    width = np.state.physmask.bit_length()
    private = ((1 << k) - 1) << (width - k)
    return (~(mask | private | ~np.state.physmask) + 1) & MASK64


@implements("NP_SEAMLDR.unlock", "WRMSR 1401H with VALID = 0, the other bits as read: SEAMRR is open to the ACM", _CORE,
            MEASURED)
def open_seamrr(np: Np) -> None:
    """NP_SEAMLDR.unlock: the write that LOCK=1 would refuse anybody but an ACM."""
    np.wrmsr(msr.SEAMRR_MASK, np.state.mask & ~(1 << 11))
    np.set(unlocked=True)


@implements("NP_SEAMLDR.map_own",
            "P_SYS_INFO_TABLE by one 4 KiB page, SEAMRR by 2 MiB pages, in the module's own tables",
            _CORE, MEASURED)
def map_seamrr(np: Np) -> None:
    """NP_SEAMLDR.map_own: rows 6 to 8."""
    _ask(np, NP_MAP_TABLE)
    np.set(maps_4k=np.state.maps_4k + 1)
    _ask(np, NP_SIZE)
    np.set(maps_2m=np.state.maps_2m + np.state.size // MIB2)


@implements("NP_SEAMLDR.read_table",
            "number of sockets, same model in all, version 0: what MCHECK wrote is judged before "
            "the mutex", _CORE, MEASURED)
def check_platform(np: Np) -> None:
    """NP_SEAMLDR.read_table: rows 9 to 11."""
    _ask(np, NP_PLATFORM)


@implements("NP_SEAMLDR.take_mutex", "compare-exchange of the low byte of np_seamldr_mutex, 0 -> 1", _CORE, MEASURED)
def take_mutex(np: Np) -> None:
    """NP_SEAMLDR.take_mutex: row 12."""
    at = np.sysinfo + P_SYS_INFO_TABLE.offset_of("np_seamldr_mutex")
    np.set(failed=np.port.read_int(at, 1) != 0)
    _ask(np, NP_MUTEX)
    np.port.write_int(at, 1, 1)
    np.set(mutex_taken=True)


@implements("NP_SEAMLDR.may_reload", "the processor of the first launch, and nothing loaded", _CORE, MEASURED)
def check_reload(np: Np) -> None:
    """NP_SEAMLDR.may_reload: rows 13 and 14."""
    _ask(np, NP_SAME_LP)
    np.wrmsr(msr.SEAMEXTEND_MSR, np.lp.acram_base + BUFFER | 1)
    _ask(np, NP_LOADED)


@implements("NP_SEAMLDR.draw_aslr", "ASLR = (16 bits of RDSEED & 7FFCH) << 32: address bits 34 to 46", _CORE, MEASURED)
def draw_aslr(np: Np) -> None:
    """NP_SEAMLDR.draw_aslr: row 15."""
    carry, value = np.platform.rdrand("rdseed")
    np.set(seed=(carry, value & 0xFFFF))
    _ask(np, NP_ENTROPY)
    np.set(aslr=(value & 0x7FFC) << 32)


@implements("NP_SEAMLDR.size_formula",
            "code + data stack + 4K + 8K + 4K + data + paging; the module region counts as if "
            "mapped by 4 KiB pages", _CORE, MEASURED)
def needed_size(np: Np) -> int:
    """NP_SEAMLDR.size_formula: bytes of P_SEAMLDR_RANGE that the layout needs."""
    c = np.consts
    stack = int(c.CDataStackSize) + SHADOW_STACK
    module = np.state.size - np.range.size & MASK64
    regions = (c.CDataRgnSize, c.CCodeRgnSize, stack, c.CKeyholeRgnSize, c.CKeyholeEditRgnSize, PAGE, module)
    paging = PAGE * (sum(table_pages(int(r)) for r in regions) + 1)
    return int(c.CCodeRgnSize) + stack + VMCS_AREA + PAGE + int(c.CDataRgnSize) + paging & MASK64


def _is_too_small(np: Np) -> bool:
    return np.range.size < needed_size(np)


@implements("NP_SEAMLDR.fits", "P_SEAMLDR_RANGE must hold everything, by the size formula", _CORE, MEASURED)
def check_size(np: Np) -> None:
    """NP_SEAMLDR.fits: row 16, the last one that leaves everything as it was."""
    _ask(np, NP_SPACE)


@implements("NP_SEAMLDR.wipe",
            "zero from P_SEAMLDR_RANGE.base to the table, and the table's last 2 KiB; MCHECK's 2 KiB "
            "stay.  This clears the very mutex that this run holds, and acm_x2apicid", _CORE, MEASURED)
def wipe(np: Np) -> None:
    """NP_SEAMLDR.wipe: row 17."""
    start = np.range.base
    if not np.state.base <= start <= np.sysinfo:
        raise Ud2(f"page fault at 0x{start:X}: outside the module's map of SEAMRR")
    np.port.zero(start, np.sysinfo - start)
    np.port.zero(np.sysinfo + 2048, 2048)


@implements("NP_SEAMLDR.copy_image", "the embedded image to SEAMRR end - 4 KiB - CCodeRgnSize", _CORE, MEASURED)
def copy_image(np: Np) -> None:
    """NP_SEAMLDR.copy_image: row 18."""
    _ask(np, NP_COPY)
    np.port.write(np.code, np.port.read(np.image_source, int(np.build.image_size)))


@implements("NP_SEAMLDR.relocate",
            "each RELA section: 64-bit store of linear base + r_addend at r_offset", _ELF, MEASURED)
def relocate(np: Np) -> None:
    """NP_SEAMLDR.relocate: row 19, in place; the tables are read from the memory that is being patched."""
    np.set(failed=not _relocate_sections(np))
    _ask(np, NP_RELOCATION)


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


# --- page tables of P-SEAMLDR


class NoTables(Exception):
    """The page-table allocator met the data region."""


def _entry_of(np: Np, linear: int, leaf_level: int, pd_entry: int) -> int:
    """Physical address of the entry for ``linear`` at ``leaf_level`` (12 or 21), building tables on the way."""
    table = np.range.base + VMCS_AREA
    for level in (39, 30, 21):
        at = table + (linear >> level & 0x1FF) * 8
        if level == leaf_level:
            return at
        entry = np.port.read_int(at)
        if entry == 0:
            if np.state.next_table >= np.data:
                raise NoTables
            entry = np.state.next_table | (pd_entry if level == 21 else TABLE_ENTRY)
            np.port.write_int(at, entry)
            np.set(next_table=np.state.next_table + PAGE)
        table = entry & ADDRESS
    return table + (linear >> 12 & 0x1FF) * 8


def _map(np: Np, linear: int, physical: int, size: int, leaf: int, pd_entry: int = TABLE_ENTRY) -> None:
    for at in range(0, size, PAGE):
        entry = _entry_of(np, linear + at, 12, pd_entry)
        np.port.write_int(entry, physical + at | leaf)


def _mapping(name: str, build: Callable[[Np], None]) -> Callable[[Np], None]:
    def step(np: Np) -> None:
        if np.state.next_table == 0:
            np.set(next_table=np.range.base + VMCS_AREA + PAGE)
        try:
            build(np)
            np.set(failed=False)
        except NoTables:
            np.set(failed=True)
        _ask(np, NP_TABLES[name])

    step.__name__, step.__doc__ = build.__name__, build.__doc__
    step.__wrapped__ = build  # type: ignore[attr-defined]
    return step


@implements("NP_SEAMLDR.map_code", "image pages, present and executable, read-only", _PAGING, MEASURED)
def map_code(np: Np) -> None:
    """NP_SEAMLDR.map_code: row 20; the image's size counts, not CCodeRgnSize."""
    _map(np, np.linear(CODE_LINEAR), np.code, int(np.build.image_size), LEAF_CODE)


@implements("NP_SEAMLDR.map_stacks", "data stack read-write, then the shadow stack's page", _PAGING, MEASURED)
def map_stacks(np: Np) -> None:
    """NP_SEAMLDR.map_stacks: row 21."""
    size = int(np.consts.CDataStackSize)
    _map(np, np.linear(STACK_LINEAR), np.stack, size, LEAF_RW)
    _map(np, np.linear(STACK_LINEAR) + size, np.stack + size, SHADOW_STACK, LEAF_SHADOW)


@implements("NP_SEAMLDR.map_keyholes", "tables for 512 pages whose leaves are 0; those tables are mapped as key-edit",
            _PAGING, MEASURED)
def map_keyholes(np: Np) -> None:
    """NP_SEAMLDR.map_keyholes: row 22; P-SEAMLDR maps a page by writing a leaf through the key-edit region."""
    edit, last = np.linear(KEYEDIT_LINEAR), None
    for at in range(0, int(np.consts.CKeyholeRgnSize), PAGE):
        entry = _entry_of(np, np.linear(KEYHOLE_LINEAR) + at, 12, KEYHOLE_TABLE_ENTRY)
        np.port.write_int(entry, 0)
        if entry & ADDRESS != last:
            last = entry & ADDRESS
            _map(np, edit, last, PAGE, LEAF_RW_USER)
            edit += PAGE


@implements("NP_SEAMLDR.map_data", "data region read-write", _PAGING, MEASURED)
def map_data(np: Np) -> None:
    """NP_SEAMLDR.map_data: row 23."""
    _map(np, np.linear(DATA_LINEAR), np.data, int(np.consts.CDataRgnSize), LEAF_RW)


@implements("NP_SEAMLDR.map_table", "P_SYS_INFO_TABLE read-only", _PAGING, MEASURED)
def map_table(np: Np) -> None:
    """NP_SEAMLDR.map_table: row 24."""
    _map(np, np.linear(SYSINFO_LINEAR), np.sysinfo, PAGE, LEAF_RO)


@implements("NP_SEAMLDR.map_module",
            "SEAMRR.base + (size - P_SEAMLDR_RANGE.size): 2 MiB pages while they end at or below "
            "P_SEAMLDR_RANGE, then 4 KiB pages", _PAGING, MEASURED)
def map_module(np: Np) -> None:
    """NP_SEAMLDR.map_module: row 25."""
    held = np.range
    at, size = 0, np.state.size - held.size
    while at < size:
        linear, physical = np.linear(MODULE_LINEAR) + at, np.state.base + at
        if physical + MIB2 <= held.base:
            np.port.write_int(_entry_of(np, linear, 21, TABLE_ENTRY), physical | LEAF_2M)
            at += MIB2
        else:
            np.port.write_int(_entry_of(np, linear, 12, TABLE_ENTRY), physical | LEAF_RW)
            at += PAGE


@implements("NP_SEAMLDR.fill_table",
            "regions' linear bases and sizes, module_region_base, acm_x2apicid and its valid flag",
            _CORE, MEASURED)
def fill_table(np: Np) -> None:
    """NP_SEAMLDR.fill_table: row 26."""
    c = np.consts
    regions = {
        "code": (CODE_LINEAR, c.CCodeRgnSize), "data": (DATA_LINEAR, c.CDataRgnSize),
        "stack": (STACK_LINEAR, int(c.CDataStackSize) + SHADOW_STACK), "keyhole": (KEYHOLE_LINEAR, c.CKeyholeRgnSize),
        "keyhole_edit": (KEYEDIT_LINEAR, c.CKeyholeEditRgnSize),
    }
    for name, (base, size) in regions.items():
        np.put_table(f"{name}_rgn_base", np.linear(base))
        np.put_table(f"{name}_rgn_size", int(size))
    np.put_table("module_region_base", np.linear(MODULE_LINEAR))
    np.put_table("acm_x2apicid", np.x2apic_id())
    np.put_table("acm_x2apicid_valid", 1)


@implements("NP_SEAMLDR.vmcs",
            "P-SEAMLDR's one transfer VMCS at P_SEAMLDR_RANGE.base + 4 KiB, by plain stores; IDTR and "
            "GDTR bases stay 0", _VMCS, MEASURED)
def build_vmcs(np: Np) -> None:
    """NP_SEAMLDR.vmcs: row 27."""
    msrs = {address: np.rdmsr(address) for address in VMX_MSRS}
    stack, size = np.linear(STACK_LINEAR), int(np.consts.CDataStackSize)
    fields = {
        **common_fields(msrs),
        "host_cr3": np.range.base + VMCS_AREA,
        "host_rip": np.linear(CODE_LINEAR) + int(np.consts.CEntryPointOffset),
        "host_fs_base": np.linear(SYSINFO_LINEAR),
        "host_rsp": stack + size - 8,
        "host_ssp": stack + size + SHADOW_STACK - 8,
        "host_gs_base": np.linear(DATA_LINEAR),
    }
    if np.is_10:
        fields["exit_ctls"] = (msrs[0x48F] & 0xFFFFFFFF | EXIT_CONTROLS_10) & msrs[0x48F] >> 32
    region = bytearray(VMCS_SIZE)
    for name, value in fields.items():
        put(region, name, value)
    np.port.write(np.range.base + PAGE, region)


@implements("NP_SEAMLDR.make_ready", "SEAMEXTEND := all zero but system_under_debug (MSR 503H bit 1) and "
            "p_seamldr_ready = 1: P-SEAMLDR is callable", _CORE, MEASURED)
def make_ready(np: Np) -> None:
    """NP_SEAMLDR.make_ready: row 28; P-SEAMLDR itself is not measured."""
    record = SEAMEXTEND.encode({
        "system_under_debug": np.rdmsr(msr.SGX_DEBUG_MODE) >> 1 & 1,
        "p_seamldr_ready": 1,
    })
    at = np.lp.acram_base + BUFFER
    np.port.write(at, record)
    np.wrmsr(msr.SEAMEXTEND_MSR, at)


# --- exit


@implements("NP_SEAMLDR.restore",
            "on every path: IA32_MISC_ENABLE back; if SEAMRR was opened: the mutex, if this run took "
            "it, := 0, then VALID := 1; BIOS_SIGN_ID back", _CORE, MEASURED)
def restore(np: Np) -> None:
    """NP_SEAMLDR.restore: what every path of the main flow ends with."""
    state = np.state
    np.wrmsr(msr.MISC_ENABLE, state.misc_enable)
    if state.unlocked:
        if state.mutex_taken:
            np.put_table("np_seamldr_mutex", 0)
        np.wrmsr(msr.SEAMRR_MASK, state.mask | 1 << 11)
    np.wrmsr(0x8B, state.bios_sign_id)


@implements("NP_SEAMLDR.epilogue",
            "locality 2 reopened after SENTER; R9 status, R8 the caller's CR3, RBX resume RIP, the "
            "other registers 0; of CR4 only LA57 and PGE of the caller's; EXITAC", _64, MEASURED)
def leave(np: Np) -> ExitedAc:
    """NP_SEAMLDR.epilogue: poor state, and one register that says something."""
    lp, state = np.lp, np.state
    if state.post_senter:
        np.platform.txt["LOCALITY2"] = 1
    lp.gdtr_base, lp.gdtr_limit = lp.r9, state.gdtr_limit
    lp.idtr_base, lp.idtr_limit = lp.r12, state.idtr_limit
    if not np.is_10:
        cs, es, fs, gs, ss = state.selectors
        lp.cs_selector, lp.ds_selector, lp.es_selector = cs, es, es
        lp.fs_selector, lp.gs_selector, lp.ss_selector = fs, gs, ss
        lp.cr0 &= ~CR0_WP
    lp.cr4 = state.cr4 & (CR4_LA57 | CR4_PGE) | CR4_SMXE | CR4_PAE
    lp.rflags = RFLAGS_RESET
    lp.rbx, lp.r8, lp.r9, lp.rdx = lp.r10, lp.r11, state.status, 0
    kept = ("rsi", "rdi") if np.is_10 else ()
    for name in ("rcx", "rsi", "rdi", "rbp", "rsp", "r10", "r11", "r12", "r13", "r14", "r15"):
        if name not in kept:
            setattr(lp, name, 0)
    outcome = exitac(np.platform, lp.id)
    if not isinstance(outcome, ExitedAc):
        raise Ud2(f"GETSEC[EXITAC] came back: {outcome}; the code jumps to itself for ever")
    return outcome


@dataclass(frozen=True, slots=True)
class NpStep:
    """One separable piece of work: ``phase`` entry, main or exit."""

    name: str
    phase: str
    run: Callable[[Np], ExitedAc | None]


STEPS: tuple[NpStep, ...] = (
    NpStep("save the IDT", "entry", save_idt),
    NpStep("write BIOS_SE_SVN", "entry", write_se_svn),
    NpStep("check BIOS_DONE", "entry", check_bios_done),
    NpStep("save registers", "entry", save_state),
    NpStep("wait for TXT private space", "entry", wait_for_txt),
    NpStep("turn on paging", "entry", turn_on_paging),
    NpStep("64-bit prologue", "entry", enter_64bit),
    NpStep("keep MSRs", "main", keep_msrs),
    NpStep("read SEAMRR", "main", read_seamrr),
    NpStep("open SEAMRR", "main", open_seamrr),
    NpStep("map SEAMRR", "main", map_seamrr),
    NpStep("check the platform", "main", check_platform),
    NpStep("take the mutex", "main", take_mutex),
    NpStep("check for a reload", "main", check_reload),
    NpStep("draw ASLR", "main", draw_aslr),
    NpStep("check P_SEAMLDR_RANGE", "main", check_size),
    NpStep("wipe P_SEAMLDR_RANGE", "main", wipe),
    NpStep("copy the image", "main", copy_image),
    NpStep("relocate the image", "main", relocate),
    NpStep("map code", "main", _mapping("code", map_code)),
    NpStep("map stacks", "main", _mapping("stacks", map_stacks)),
    NpStep("map keyholes", "main", _mapping("keyholes", map_keyholes)),
    NpStep("map data", "main", _mapping("data", map_data)),
    NpStep("map P_SYS_INFO_TABLE", "main", _mapping("sysinfo", map_table)),
    NpStep("map the module region", "main", _mapping("module", map_module)),
    NpStep("fill P_SYS_INFO_TABLE", "main", fill_table),
    NpStep("build the transfer VMCS", "main", build_vmcs),
    NpStep("make P-SEAMLDR ready", "main", make_ready),
    NpStep("restore and close SEAMRR", "exit", restore),
    NpStep("EXITAC", "exit", leave),
)
EXIT = next(i for i, step in enumerate(STEPS) if step.phase == "exit")
"""Index of the first exit step: where every returned error goes."""


def step_index(name: str) -> int:
    """Index of a step by its name; an unknown name is an error that lists the known ones."""
    for index, step in enumerate(STEPS):
        if step.name == name:
            return index
    raise SeamrefError(f"NP-SEAMLDR has no step {name!r}; there are: {', '.join(s.name for s in STEPS)}")


clause("NP_SEAMLDR.run", "steps in order; a decided status jumps to the exit, UD2 ends everything", _CORE, MEASURED)


class NpSeamldr:
    """The program that the stub at EntryPoint of NP-SEAMLDR's ACM stands for."""

    id = NP_SEAMLDR_PROGRAM
    name = COMPONENT

    def step(self, platform: Platform, lp: Lp) -> AcStep:
        """Take one step on ``lp``."""
        return advance(platform, lp)


@implements("NP_SEAMLDR.run")
def advance(platform: Platform, lp: Lp) -> AcStep:
    """NP_SEAMLDR.run: the step that ``lp.program_state`` names, and the state behind it."""
    state: NpState = lp.program_state or NpState()
    np = Np(platform, lp, state)
    step = STEPS[state.next]
    detail = ""
    try:
        left = step.run(np)
        following = state.next + 1
    except Refused as refused:
        np.set(status=int(refused.status), decided=refused.clause)
        left, following, detail = None, EXIT, str(refused)
    except MemoryFault as fault:
        raise Ud2(f"{step.name}: {fault}") from fault
    if platform.listeners:
        platform.emit(Step(lp.id, COMPONENT, step.name, detail))
    if left is not None:
        return left
    lp.program_state = replace(np.state, next=following)
    return Running(step.name)


NP_SEAMLDR = register_ac_program(NpSeamldr())


def run(platform: Platform, lp_id: int) -> Returned | TxtShutdown:
    """Every remaining step of a launch, to EXITAC or to the reset."""
    while True:
        state: NpState | None = platform.lp(lp_id).program_state
        outcome = step_acm(platform, lp_id)
        if isinstance(outcome, TxtShutdown):
            return outcome
        if isinstance(outcome, ExitedAc):
            return Returned(NpStatus(platform.lp(lp_id).r9), "NP_SEAMLDR.run" if state is None else state.decided)


clause("NP_SEAMLDR.not_callable",
       "NP-SEAMLDR is no target of SEAMCALL: it runs inside ENTERACCS and is gone with EXITAC",
       "X2 SEAMCALL", CHOSEN)
