"""System values that P-SEAMLDR computes on its first call."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.memory import decode_seamrr
from seamref.arch.msr import KEYID_PARTITIONING, MISC_ENABLE, SEAMRR_BASE, SEAMRR_MASK, TME_ACTIVATE, bits
from seamref.pseamldr.build import R10
from seamref.pseamldr.data import Call
from seamref.spec import MEASURED, implements

TME_CAPABILITY = 0x981
LIMIT_CPUID_MAXVAL = 1 << 22


@dataclass(frozen=True, slots=True)
class SystemValues:
    """``max_pa`` bits; SEAMRR; ``hkid_mask`` KeyID bits of an address; ``private_hkid_min`` first refused KeyID."""

    max_pa: int
    seamrr_base: int
    seamrr_size: int
    hkid_mask: int
    private_hkid_min: int

    @property
    def hkid_shift(self) -> int:
        """Lowest KeyID bit (0 when there is none)."""
        return (self.hkid_mask & -self.hkid_mask).bit_length() - 1 if self.hkid_mask else 0


_SRC = "PSL src/common/helpers/helpers.c"


@implements("SYSVALUES.cpuid", "CPUID with a leaf above 2 runs with IA32_MISC_ENABLE[22] cleared, which is then put "
            "back",
            _SRC, MEASURED)
def run_cpuid(call: Call, leaf: int, subleaf: int = 0) -> Cpuid:
    """SYSVALUES.cpuid: CPUID as P-SEAMLDR runs it."""
    enable = call.rdmsr(MISC_ENABLE)
    if leaf > 2 and enable & LIMIT_CPUID_MAXVAL:
        call.wrmsr(MISC_ENABLE, enable & ~LIMIT_CPUID_MAXVAL)
        answer = cpuid(call.platform, call.lp, leaf, subleaf)
        call.wrmsr(MISC_ENABLE, enable)
        return answer
    return cpuid(call.platform, call.lp, leaf, subleaf)


@implements("SYSVALUES.x2apic_id", "the calling processor is CPUID(1FH, 0).EDX", _SRC, MEASURED)
def get_lpid(call: Call) -> int:
    """SYSVALUES.x2apic_id: x2APIC id of the processor that runs."""
    return run_cpuid(call, 0x1F).edx


def hkid_mask(max_pa: int, keyid_bits: int) -> int:
    """Bits max_pa-1 .. max_pa-keyid_bits; 0 when there are no KeyID bits."""
    return ((1 << keyid_bits) - 1) << max(max_pa - keyid_bits, 0)


@implements("SYSVALUES.compute", "MAXPA from CPUID, SEAMRR from its MSRs, KeyID bits from IA32_TME_ACTIVATE[35:32], "
            "first private KeyID from IA32_MKTME_KEYID_PARTITIONING[31:0] + 1", _SRC, MEASURED)
def compute_system_values(call: Call) -> SystemValues:
    """SYSVALUES.compute: the five values.  1.0 takes its KeyID limit from IA32_TME_CAPABILITY and _ACTIVATE."""
    max_pa = run_cpuid(call, 0x80000008).eax & 0xFF
    seamrr = decode_seamrr(call.rdmsr(SEAMRR_BASE), call.rdmsr(SEAMRR_MASK))
    activate = call.rdmsr(TME_ACTIVATE)
    keyid_bits = bits(TME_ACTIVATE, "keyid_bits").get(activate)
    if call.build.revision == R10:
        usable = 1 << max(keyid_bits - bits(TME_ACTIVATE, "tdx_reserved_keyid_bits").get(activate), 0)
        limit = min(bits(TME_CAPABILITY, "max_keys").get(call.rdmsr(TME_CAPABILITY)), usable)
    else:
        limit = (call.rdmsr(KEYID_PARTITIONING) & 0xFFFFFFFF) + 1
    return SystemValues(max_pa, seamrr.base, seamrr.size, hkid_mask(max_pa, keyid_bits), limit)


@implements("SYSVALUES.lazy", "computed once per load of P-SEAMLDR, on the first call that gets so far", _SRC, MEASURED)
def get_system_values(call: Call) -> SystemValues:
    """SYSVALUES.lazy: the values in the data area, computed first if they are not there."""
    initialized, *values = call.system_info()
    if initialized:
        return SystemValues(*values)
    found = compute_system_values(call)
    call.put_system_info(
        1, found.max_pa, found.seamrr_base, found.seamrr_size, found.hkid_mask, found.private_hkid_min
    )
    return found
