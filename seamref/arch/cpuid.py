"""CPUID leaves that the loading chain reads."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from seamref.arch.lp import Lp
from seamref.spec import CHOSEN, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class Cpuid(NamedTuple):
    """EAX, EBX, ECX, EDX."""

    eax: int
    ebx: int
    ecx: int
    edx: int


clause("CPUID.topology", "leaves 0BH and 1FH return the x2APIC id in EDX for every subleaf (errata 6)",
       "SDM vol. 2A CPUID", CHOSEN)


@implements("CPUID.topology")
def cpuid(platform: Platform, lp: Lp, leaf: int, subleaf: int = 0) -> Cpuid:
    """CPUID on a processor; leaves the loading chain does not read return zeros (as reserved leaves do)."""
    config = platform.config
    topology = config.topology
    match leaf:
        case 0:
            return Cpuid(0x20, 0x756E6547, 0x6C65746E, 0x49656E69)
        case 1:
            hypervisor = 0  # a bare-metal platform
            return Cpuid(config.fms_of(lp.package), 0, 1 << 5 | 1 << 6 | 1 << 30 | hypervisor, 0xBFEBFBFF)
        case 4 if subleaf == 3:
            return Cpuid(3 | 3 << 5 | (topology.addressable_per_socket - 1 & 0xFFF) << 14, 0, 0, 0)
        case 7 if subleaf == 0:
            return Cpuid(2, 1 << 2, 0, 1 << 18)  # SGX, PCONFIG
        case 0x0B | 0x1F:
            shift = topology.stride.bit_length() - 1
            return Cpuid(shift if subleaf else 0, topology.lps_per_socket if subleaf else 1,
                         subleaf | (2 if subleaf else 1) << 8, lp.id)
        case 0x12 if subleaf == 0:
            return Cpuid(1 | 1 << 7, 0, 0, 0)  # SGX1, EVERIFYREPORT2
        case 0x80000000:
            return Cpuid(0x80000008, 0, 0, 0)
        case 0x80000008:
            return Cpuid(config.maxpa | 57 << 8, 0, 0, 0)
        case _:
            return Cpuid(0, 0, 0, 0)
