"""The conditions of NP-SEAMLDR, in the order in which a launch meets them."""

from __future__ import annotations

from typing import Any

from seamref.arch import msr
from seamref.arch.areas import is_canonical
from seamref.arch.lp import CR4_LA57
from seamref.arch.outcome import Vector
from seamref.arch.smx import txt_sts
from seamref.arch.software import SoftwareFault
from seamref.firmware.np_seamldr.space import is_too_small
from seamref.firmware.np_seamldr.state import (
    CORE,
    ELF,
    GIB,
    MASK64,
    MAX_MAPS,
    MAX_SOCKETS,
    MIB2,
    PAGING,
    SEAMLDR64,
    START,
    Fatal,
    Np,
    NpStatus,
)
from seamref.spec import MEASURED, Check, CheckTable

NP_ENTRY: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.entry", (
    Check("NP_SEAMLDR.eax", "EAX at the entry point is not 2 (ENTERACCS)", lambda c: c.lp.rax & 0xFFFFFFFF != 2,
          Fatal("EAX is not ENTERACCS"), START, MEASURED),
), "32-bit entry: UD2.")

NP_BIOS_DONE: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.bios", (
    Check("NP_SEAMLDR.bios_done", "BIOS_DONE (MSR 151H) bit 0 is 0", lambda c: not c.rdmsr(msr.BIOS_DONE) & 1,
          Fatal("BIOS_DONE is 0"), START, MEASURED),
), "32-bit entry, after BIOS_SE_SVN was written: UD2.")

NP_PRIVATE_SPACE: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.txt", (
    Check("NP_SEAMLDR.private_space", "TXT.STS (FED20000H) reads FFFFFFFFH 80000000H times",
          lambda c: txt_sts(c.platform) == 0xFFFFFFFF, Fatal("TXT private space never opens"), START, MEASURED),
), "32-bit entry: UD2.")

NP_COOKIE: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.cookies", (
    Check("NP_SEAMLDR.cookie", "no RDSEED in 10 tries, or it gave 0: no stack cookie",
          lambda c: not c.state.cookie[0] or c.state.cookie[1] == 0, Fatal("no stack cookie"),
          "NPS Core/Common/GsSupport.c", MEASURED),
), "Twice: 32-bit entry and 64-bit prologue: UD2.")

NP_RESUME: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.resume", (
    Check("NP_SEAMLDR.resume_rip", "resume RIP (R10) is not canonical for the caller's paging",
          lambda c: not is_canonical(c.lp.r10, 57 if c.state.cr4 & CR4_LA57 else 48),
          Fatal("resume RIP is not canonical"), SEAMLDR64, MEASURED),
), "64-bit prologue: UD2.")

NP_VALID: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.seamrr", (
    Check("NP_SEAMLDR.valid", "IA32_SEAMRR_PHYS_MASK.VALID = 0",
          lambda c: not c.rdmsr(msr.SEAMRR_MASK) & msr.SEAMRR_VALID,
          NpStatus.EBADRANGE, CORE, MEASURED),
), "Before SEAMRR is opened.")

NP_MAP_TABLE: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.own_4k", (
    Check("NP_SEAMLDR.map_sysinfo", "no entry left in the module's own page table for P_SYS_INFO_TABLE",
          lambda c: c.state.maps_4k >= MAX_MAPS, NpStatus.ENOMEM, CORE, MEASURED),
), "SEAMRR is open from here on.")

NP_SIZE: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.range", (
    Check("NP_SEAMLDR.size", "SEAMRR is larger than 1 GiB", lambda c: c.state.size > GIB, NpStatus.EBADRANGE, CORE,
          MEASURED),
    Check("NP_SEAMLDR.map_seamrr", "no room in the module's own page directory for SEAMRR in 2 MiB pages",
          lambda c: c.state.maps_2m + c.state.size // MIB2 > MAX_MAPS, NpStatus.ENOMEM, CORE, MEASURED),
), "The size is judged after SEAMRR was opened.")


def _other_model(c: Np) -> bool:
    first = c.table("socket_cpuid_table[0]") & 0xFFFFFFF0
    return any(
        c.table(f"socket_cpuid_table[{i}]") & 0xFFFFFFF0 != first for i in range(1, c.table("tot_num_sockets"))
    )


NP_PLATFORM: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.platform", (
    Check("NP_SEAMLDR.sockets", "tot_num_sockets is 0 or above 8",
          lambda c: not 1 <= c.table("tot_num_sockets") <= MAX_SOCKETS, NpStatus.EBADPARAM, CORE, MEASURED),
    Check("NP_SEAMLDR.same_model", "a socket's CPUID.1:EAX[31:4] differs from socket 0's", _other_model,
          NpStatus.EBADPLATF, CORE, MEASURED),
    Check("NP_SEAMLDR.version", "P_SYS_INFO_TABLE.version is not 0", lambda c: c.table("version") != 0,
          NpStatus.EBADPLATF, CORE, MEASURED),
), "What MCHECK wrote.")

NP_MUTEX: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.mutexes", (
    Check("NP_SEAMLDR.mutex", "the low byte of np_seamldr_mutex was not 0 (atomic compare-exchange)",
          lambda c: c.state.failed, NpStatus.ELDRINPROG, CORE, MEASURED),
), "The exchange is the check.")

NP_SAME_LP: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.lp", (
    Check("NP_SEAMLDR.same_lp", "acm_x2apicid_valid is 1 and acm_x2apicid is another processor",
          lambda c: c.table("acm_x2apicid_valid") == 1 and c.table("acm_x2apicid") != c.x2apic_id(),
          NpStatus.EMODBUSY, CORE, MEASURED),
), "A second launch must come from the processor of the first.")

NP_LOADED: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.loaded", (
    Check("NP_SEAMLDR.p_seamldr_ready", "SEAMEXTEND.P_SEAMLDR_READY is not 0: P-SEAMLDR was not shut down",
          lambda c: bool(c.seamextend().p_seamldr_ready), NpStatus.EMODBUSY, CORE, MEASURED),
    Check("NP_SEAMLDR.seam_ready", "SEAMEXTEND.SEAM_READY is not 0: a TDX module is loaded",
          lambda c: bool(c.seamextend().seam_ready), NpStatus.EMODBUSY, CORE, MEASURED),
), "After the register was copied out: only after SEAMLDR.SHUTDOWN.")

NP_ENTROPY: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.entropy", (
    Check("NP_SEAMLDR.aslr", "one try of RDSEED for ASLR fails", lambda c: not c.state.seed[0], NpStatus.EUNSPECERR,
          CORE, MEASURED),
), "A single try, unlike the cookie's ten.")

NP_SPACE: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.space", (
    Check("NP_SEAMLDR.range_size",
          "P_SEAMLDR_RANGE is smaller than code, stacks, VMCS area, table, data and paging need",
          lambda c: is_too_small(c), NpStatus.ENOMEM, CORE, MEASURED),
), "The last check before P_SEAMLDR_RANGE is wiped.")


def _copies_onto_itself(c: Np) -> bool:
    size, room = int(c.build.image_size), int(c.consts.CCodeRgnSize)
    source, target = c.image_source, c.code
    return source < target + room and target < source + size


NP_COPY: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.copy", (
    Check("NP_SEAMLDR.image_size", "CCodeRgnSize is smaller than the embedded image",
          lambda c: c.consts.CCodeRgnSize < c.build.image_size, NpStatus.EBADPARAM, CORE, MEASURED),
    Check("NP_SEAMLDR.image_wraps", "source or destination wraps the address space",
          lambda c: max(c.code + int(c.consts.CCodeRgnSize), c.image_source + int(c.build.image_size)) > MASK64,
          NpStatus.EBADPARAM, CORE, MEASURED),
    Check("NP_SEAMLDR.image_overlaps", "source and destination overlap", _copies_onto_itself, NpStatus.EBADPARAM,
          CORE, MEASURED),
), "From here on a failure leaves P_SEAMLDR_RANGE wiped.")

NP_RELOCATION: CheckTable[Np, NpStatus] = CheckTable("NP_SEAMLDR.elf", (
    Check("NP_SEAMLDR.relocation", "a relocation section with entry size 0, or an entry whose r_info is not 8",
          lambda c: c.state.failed, NpStatus.EBADPARAM, ELF, MEASURED),
), "No header or bounds checks: the ACM's signature covers the image.")

_MAPS = (
    ("code", "code"), ("stacks", "data stack and shadow stack"), ("keyholes", "keyholes and key-edit"),
    ("data", "data"), ("sysinfo", "P_SYS_INFO_TABLE"), ("module", "module region"),
)


def _map_table(name: str, what: str) -> CheckTable[Np, NpStatus]:
    return CheckTable(f"NP_SEAMLDR.tables_{name}", (
        Check(f"NP_SEAMLDR.tables_for_{name}", f"mapping the {what}: the page-table allocator meets the data region",
              lambda c: c.state.failed, NpStatus.ENOMEM, PAGING, MEASURED),
    ), "Page tables grow up from P_SEAMLDR_RANGE.base + 12 KiB.")


NP_TEMP_GDT: CheckTable[Np, Fatal] = CheckTable("NP_SEAMLDR.exit_gdt", (
    Check("NP_SEAMLDR.cs_null", "bits 11:3 of the caller's CS are 0: the null descriptor cannot be code",
          lambda c: not c.is_10 and c.state.selectors[0] == 0, Fatal("CS is null", Vector.GP), SEAMLDR64, MEASURED),
    Check("NP_SEAMLDR.ss_is_cs", "bits 11:3 of the caller's SS are not 0 and equal to those of CS: the code "
          "descriptor was written over the stack's, and SS is loaded from it",
          lambda c: not c.is_10 and c.state.selectors[4] not in (0, ) and c.state.selectors[4] == c.state.selectors[0],
          Fatal("SS names the code descriptor", Vector.GP), SEAMLDR64, MEASURED),
), "64-bit epilogue: the temporary GDT has one slot for each of the caller's selectors, CS's is written last: #GP.")

NP_TABLES: dict[str, CheckTable[Np, NpStatus]] = {name: _map_table(name, what) for name, what in _MAPS}

TABLES: tuple[CheckTable[Np, Any], ...] = (
    NP_ENTRY, NP_BIOS_DONE, NP_PRIVATE_SPACE, NP_COOKIE, NP_RESUME, NP_VALID, NP_MAP_TABLE, NP_SIZE, NP_PLATFORM,
    NP_MUTEX, NP_SAME_LP, NP_LOADED, NP_ENTROPY, NP_SPACE, NP_COPY, NP_RELOCATION, *NP_TABLES.values(), NP_TEMP_GDT,
)
"""All conditions of NP-SEAMLDR in the order in which a launch meets them."""


class Refused(Exception):
    """A status is decided; control goes to the exit."""

    def __init__(self, status: NpStatus, clause: str) -> None:
        self.status = status
        self.clause = clause
        super().__init__(f"{status.name} ({clause})")


def ask(np: Np, table: CheckTable[Np, NpStatus]) -> None:
    row = table.decide(np, np.platform.revision)
    if row is not None:
        raise Refused(row.result, row.id)


def demand(np: Np, table: CheckTable[Np, Fatal]) -> None:
    row = table.decide(np, np.platform.revision)
    if row is not None:
        raise SoftwareFault(row.result.vector, f"{row.result.cause} ({row.id})")
