"""The module's transfer VMCSs, one for each addressable processor, written with plain stores."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from seamref.arch.msr import VMX_BASIC, bits
from seamref.arch.vmcs import TRANSFER_MSRS, get, put, transfer_fields
from seamref.pseamldr.api import PAGE
from seamref.pseamldr.build import R10
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.pseamldr.memory_map import ModuleRegion
from seamref.spec import MEASURED, implements

_SRC = "PSL src/common/data_structures/seam_vmcs_setup.c"


@implements("VMCS.common", "controls and host state that do not depend on where the module lies", _SRC, MEASURED)
def common_fields(msrs: Mapping[int, int]) -> dict[str, int]:
    """VMCS.common: field values from the VMX capability MSRs (address -> value)."""
    return transfer_fields(msrs)


def module_fields(plan: MemoryConstants, rip_offset: int, revision: str) -> dict[str, int]:
    """The fields of the first processor's VMCS that depend on the plan."""
    fields = {
        "host_cr3": plan.pml4_physbase,
        "host_rip": (plan.code_region_linbase + rip_offset) & (1 << 64) - 1,
        "host_fs_base": plan.sysinfo_table_linbase,
        "host_rsp": plan.stack_region_linbase + plan.data_stack_size - 8,
        "host_ssp": plan.stack_region_linbase + plan.lp_stack_size - 8,
        "host_gs_base": plan.data_region_linbase + plan.handoff_data_size,
    }
    if revision != R10:
        fields["host_idtr_base"], fields["host_gdtr_base"] = plan.idt_linbase, plan.gdt_linbase
    return fields


@implements("VMCS.setup", "processor 0's VMCS field by field; the others are copies of its first "
            "IA32_VMX_BASIC[44:32] bytes, with their own RSP, SSP and GS base", _SRC, MEASURED)
def set_up_vmcss(
    region: ModuleRegion, plan: MemoryConstants, rip_offset: int, rdmsr: Callable[[int], int], revision: str
) -> None:
    """VMCS.setup: VMCSs at SEAMRR.BASE + 4096 + i * 4096 for i below the number of addressable processors.

    A region size that ends before a field loses it in every VMCS but the first.
    """
    msrs = {address: rdmsr(address) for address in TRANSFER_MSRS}
    base, count = plan.seamrr_base + PAGE, plan.num_addressable_lps
    size = bits(VMX_BASIC, "region_size").get(msrs[VMX_BASIC])
    beyond = max(size - PAGE, 0) if count > 1 else 0  # a region size above 4096 makes the last copy run over the area
    area = bytearray(region.read(base, max(plan.vmcs_region_size, PAGE) + beyond))
    first = area[:PAGE]
    for name, value in {**common_fields(msrs), **module_fields(plan, rip_offset, revision)}.items():
        put(first, name, value)
    area[:PAGE] = first
    rsp, ssp, gs = get(first, "host_rsp"), get(first, "host_ssp"), get(first, "host_gs_base")
    for i in range(1, count):
        at = i * PAGE
        for start in range(0, size, PAGE):  # ascending, as the copy goes
            end = min(start + PAGE, size)
            area[at + start : at + end] = area[start:end]
        page = area[at : at + PAGE]
        put(page, "host_rsp", rsp + i * plan.lp_stack_size)
        put(page, "host_ssp", ssp + i * plan.lp_stack_size)
        put(page, "host_gs_base", gs + i * plan.local_data_size)
        area[at : at + PAGE] = page
    region.write(base, area)
