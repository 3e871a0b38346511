"""What makes P-SEAMLDR callable: its half of P_SYS_INFO_TABLE, its transfer VMCS, SEAMEXTEND."""

from __future__ import annotations

from seamref.arch import msr
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.vmcs import BY_NAME, TRANSFER_MSRS
from seamref.firmware.np_seamldr.state import (
    BUFFER,
    CORE,
    EXIT_CONTROLS_10,
    MODULE_LINEAR,
    PAGE,
    SHADOW_STACK,
    VMCS,
    VMCS_AREA,
    Np,
)
from seamref.pseamldr.memory_constants import (
    CODE_LINEAR,
    DATA_LINEAR,
    KEYEDIT_LINEAR,
    KEYHOLE_LINEAR,
    STACK_LINEAR,
    SYSINFO_LINEAR,
)
from seamref.pseamldr.vmcs_setup import common_fields
from seamref.spec import MEASURED, implements


@implements("NP_SEAMLDR.fill_table",
            "regions' linear bases and sizes, module_region_base, acm_x2apicid and its valid flag",
            CORE, MEASURED)
def fill_table(np: Np) -> None:
    """NP_SEAMLDR.fill_table."""
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
            "P-SEAMLDR's one transfer VMCS at P_SEAMLDR_RANGE.base + 4 KiB, field by field with plain stores; IDTR "
            "and GDTR bases stay 0", VMCS, MEASURED)
def build_vmcs(np: Np) -> None:
    """NP_SEAMLDR.vmcs."""
    msrs = {address: np.rdmsr(address) for address in TRANSFER_MSRS}
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
    for name, value in fields.items():
        field = BY_NAME[name]
        np.write_int(np.range.base + PAGE + field.offset, value, field.size)


@implements("NP_SEAMLDR.make_ready", "SEAMEXTEND := all zero but system_under_debug (MSR 503H bit 1) and "
            "p_seamldr_ready = 1: P-SEAMLDR is callable", CORE, MEASURED)
def make_ready(np: Np) -> None:
    """NP_SEAMLDR.make_ready: P-SEAMLDR itself is not measured."""
    record = SEAMEXTEND.encode({
        "system_under_debug": msr.bits(msr.SGX_DEBUG_MODE, "debug_unlock").get(np.rdmsr(msr.SGX_DEBUG_MODE)),
        "p_seamldr_ready": 1,
    })
    at = np.lp.acram_base + BUFFER
    np.write(at, record)
    np.wrmsr(msr.SEAMEXTEND_MSR, at)
