"""Where everything of a new module will lie: the memory constants.

A pure function of the sigstruct's page counts, the number of image pages, the number of addressable processors, the
random number and the limits of the module range.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from seamref.pseamldr.api import CODE_REGION, PAGE, Status
from seamref.pseamldr.build import R10
from seamref.spec import MEASURED, Check, CheckTable, implements

_SRC = "PSL src/pseamldr_dispatcher/api_calls/seamldr_install.c"

ASLR_MASK = 0x7FFC
ASLR_SHIFT = 32
"""Bits 14:2 of the random number become address bits 46:34 (16 GiB granularity)."""

CODE_LINEAR = 0xFFFF800000000000
STACK_LINEAR = 0xFFFF800100000000
KEYHOLE_LINEAR = 0xFFFF800200000000
DATA_LINEAR = 0xFFFF800300000000
SYSINFO_LINEAR = 0xFFFF8003FFFF0000
KEYEDIT_LINEAR = 0x0000000100000000


@dataclass(frozen=True, slots=True)
class ModuleShape:
    """What of a sigstruct and SEAMLDR_PARAMS decides about memory.  The sigstruct's counts are "minus 1"."""

    num_module_pages: int
    num_stack_pages: int
    num_tls_pages: int
    num_keyhole_pages: int
    num_global_data_pages: int
    num_handoff_pages: int = 0
    seam_major_svn: int = 0
    gdt_idt_offset: int = 0
    fault_wrapper_offset: int = 0


@dataclass(frozen=True, slots=True)
class MemoryConstants:
    """Sizes in bytes, linear and physical bases; ``fault_wrapper_linbase`` is ``None`` without GDT and IDT."""

    num_addressable_lps: int
    module_physlimit: int
    seamrr_base: int
    seamcfg_region_size: int
    vmcs_region_size: int
    sysinfo_table_linbase: int
    code_region_size: int
    code_region_linbase: int
    code_region_physbase: int
    local_data_size: int
    global_data_size: int
    handoff_data_size: int
    data_region_size: int
    data_region_linbase: int
    data_region_physbase: int
    data_stack_size: int
    shadow_stack_size: int
    lp_stack_size: int
    stack_region_size: int
    stack_region_linbase: int
    stack_region_physbase: int
    keyhole_region_size: int
    keyhole_region_linbase: int
    keyedit_region_size: int
    keyedit_region_linbase: int
    paging_structure_size: int
    idt_linbase: int
    gdt_linbase: int
    fault_wrapper_linbase: int | None
    td_preserving_supported: bool

    @property
    def pml4_physbase(self) -> int:
        """The PML4 lies directly below the stacks."""
        return self.stack_region_physbase - PAGE

    @property
    def first_table(self) -> int:
        """The first page-table page to be taken; the others follow downward."""
        return self.stack_region_physbase - 2 * PAGE

    @property
    def data_region_end(self) -> int:
        """First byte behind the data region: page tables may not come here."""
        return self.data_region_physbase + self.data_region_size

    @property
    def minimum_size(self) -> int:
        """Bytes that the size formula demands of the module range; the code counts 2 MiB."""
        return (
            self.seamcfg_region_size + self.vmcs_region_size + self.stack_region_size + self.data_region_size
            + self.paging_structure_size + CODE_REGION
        )


def shape_of(sigstruct: Mapping[str, Any], num_module_pages: int) -> ModuleShape:
    """The shape of a decoded sigstruct (1.5 or 1.0 layout) with an image of ``num_module_pages`` pages."""
    return ModuleShape(
        num_module_pages, sigstruct["num_stack_pages"], sigstruct["num_tls_pages"], sigstruct["num_keyhole_pages"],
        sigstruct["num_global_data_pages"], sigstruct.get("num_handoff_pages", 0), sigstruct.get("seam_major_svn", 0),
        sigstruct.get("gdt_idt_offset", 0), sigstruct.get("fault_wrapper_offset", 0),
    )


def ceil_div(value: int, by: int) -> int:
    """``value`` / ``by``, rounded up."""
    return -(-value // by)


@implements("MEMORY_CONSTANTS.lps", "addressable processors: CPUID(4,3).EAX[25:14] + 1 rounded up to a power of two, "
            "times sockets; tot_num_lps does not count", _SRC, MEASURED)
def addressable_lps(per_socket: int, sockets: int) -> int:
    """MEMORY_CONSTANTS.lps: N, from the addressable processors of one socket and the number of sockets."""
    return (1 << (per_socket - 1).bit_length()) * sockets


@implements("MEMORY_CONSTANTS.tables", "page tables of one region: 8 bytes for each 4 KiB page, and for each whole 2 "
            "MiB and 1 GiB, in pages", _SRC, MEASURED)
def table_pages(size: int) -> int:
    """MEMORY_CONSTANTS.tables: T(size), the estimate in pages; it is too low for small regions."""
    per_4k = ceil_div(size // PAGE * 8, PAGE)
    per_2m = ceil_div((size >> 21) * 8, PAGE)
    per_1g = ceil_div((size >> 30) * 8, PAGE)
    return per_4k + per_2m + per_1g


@implements("MEMORY_CONSTANTS.aslr", "address bits 46:34 of every linear base are random", _SRC, MEASURED)
def aslr_bits(random: int) -> int:
    """MEMORY_CONSTANTS.aslr: what to OR into every linear base."""
    return (random & ASLR_MASK) << ASLR_SHIFT


@implements("MEMORY_CONSTANTS.compute", "sizes and bases of all regions of the module range", _SRC, MEASURED)
@lru_cache(maxsize=1024)
def compute_memory_constants(
    shape: ModuleShape, lps: int, aslr: int, seamrr_base: int, physlimit: int, revision: str = "1.5"
) -> MemoryConstants:
    """MEMORY_CONSTANTS.compute.

    ``lps`` is N of :func:`addressable_lps`, ``aslr`` the bits of :func:`aslr_bits`, ``physlimit`` the base of
    P_SEAMLDR_RANGE.  Revision 1.0 knows no handoff data and no GDT and IDT.
    """
    preserving = revision != R10 and shape.seam_major_svn != 0
    code_linear, code_physical = CODE_LINEAR | aslr, physlimit - CODE_REGION
    code_size = shape.num_module_pages * PAGE
    vmcs_size = PAGE * lps
    local_size = (shape.num_tls_pages + 1) * PAGE
    global_size = (shape.num_global_data_pages + 1) * PAGE
    handoff_size = (shape.num_handoff_pages + 1) * PAGE if preserving else 0
    data_size = local_size * lps + global_size + handoff_size
    data_stack_size = (shape.num_stack_pages + 1) * PAGE
    lp_stack_size = data_stack_size + PAGE
    stack_size = lp_stack_size * lps
    keyhole_size = (shape.num_keyhole_pages + 1) * PAGE * lps
    keyedit_size = ceil_div(keyhole_size // PAGE * 8, PAGE) * PAGE
    regions = (PAGE, stack_size, data_size, keyhole_size, keyedit_size, code_size)
    has_idt = revision != R10 and shape.gdt_idt_offset != 0
    idt = code_linear + shape.gdt_idt_offset if has_idt else 0
    return MemoryConstants(
        num_addressable_lps=lps,
        module_physlimit=physlimit,
        seamrr_base=seamrr_base,
        seamcfg_region_size=PAGE,
        vmcs_region_size=vmcs_size,
        sysinfo_table_linbase=SYSINFO_LINEAR | aslr,
        code_region_size=code_size,
        code_region_linbase=code_linear,
        code_region_physbase=code_physical,
        local_data_size=local_size,
        global_data_size=global_size,
        handoff_data_size=handoff_size,
        data_region_size=data_size,
        data_region_linbase=DATA_LINEAR | aslr,
        data_region_physbase=seamrr_base + PAGE + vmcs_size,
        data_stack_size=data_stack_size,
        shadow_stack_size=PAGE,
        lp_stack_size=lp_stack_size,
        stack_region_size=stack_size,
        stack_region_linbase=STACK_LINEAR | aslr,
        stack_region_physbase=code_physical - stack_size,
        keyhole_region_size=keyhole_size,
        keyhole_region_linbase=KEYHOLE_LINEAR | aslr,
        keyedit_region_size=keyedit_size,
        keyedit_region_linbase=KEYEDIT_LINEAR | aslr,
        paging_structure_size=PAGE * (sum(table_pages(size) for size in regions) + 1),
        idt_linbase=idt,
        gdt_linbase=idt + 2048 if has_idt else 0,
        fault_wrapper_linbase=code_linear + shape.fault_wrapper_offset if has_idt else None,
        td_preserving_supported=preserving,
    )


@dataclass(frozen=True, slots=True)
class MemoryState:
    """What the checks of this step look at: RDRAND's carry flag, then the plan made with its number."""

    carry: int
    constants: MemoryConstants


INSTALL_MEMORY: CheckTable[MemoryState, Status] = CheckTable("INSTALL.memory", (
    Check("INSTALL.memory.entropy", "the one RDRAND for the address layout has no entropy", lambda c: not c.carry,
          Status.ENOENTROPY, _SRC, MEASURED),
    Check("INSTALL.memory.size", "the module range is smaller than the size formula demands",
          lambda c: c.constants.module_physlimit - c.constants.seamrr_base < c.constants.minimum_size,
          Status.ENOMEM, _SRC, MEASURED),
), "Memory constants: nothing has changed yet, the old module still runs (RDX = 0).")
