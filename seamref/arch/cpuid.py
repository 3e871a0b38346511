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


FEATURES_1_ECX = 0x47FAA217 | 1 << 5 | 1 << 6 | 1 << 30
"""CPUID.1:ECX: what a TDX module asks for, with VMX and SMX; no hypervisor bit: a bare-metal platform."""
FEATURES_1_EDX = 0xBFEBFBFF
FIXED: dict[tuple[int, int | None], Cpuid] = {
    (0, None): Cpuid(0x23, 0x756E6547, 0x6C65746E, 0x49656E69),
    (7, 0): Cpuid(2, 0x219424C3 | 1 << 2, 0x99000000, 0xFC080400 | 1 << 18),  # SGX and PCONFIG among others
    (7, 2): Cpuid(0, 0, 0, 0x17),
    (0xA, None): Cpuid(0x07300805, 0, 0, 0x8603),  # architectural performance monitoring, version 5
    (0xD, 0): Cpuid(0x602E7, 0, 0, 0),
    (0xD, 1): Cpuid(0xF, 0, 0x11900, 0),
    (0xD, 8): Cpuid(0x80, 0, 1, 0), (0xD, 11): Cpuid(0x10, 0, 1, 0), (0xD, 12): Cpuid(0x18, 0, 1, 0),
    (0xD, 16): Cpuid(8, 0, 1, 0),
    (0x12, 0): Cpuid(1 | 1 << 7, 0, 0, 0),  # SGX1, EVERIFYREPORT2
    (0x14, 0): Cpuid(1, 0, 0, 0),
    (0x15, None): Cpuid(2, 160, 25_000_000, 0),  # 2 GHz
    (0x1C, None): Cpuid(0x4000000F, 7, 1, 0),  # last branch records, up to 32
    (0x80000000, None): Cpuid(0x80000008, 0, 0, 0),
    (0x80000001, None): Cpuid(0, 0, 0x121, 0x2C100800),
    (0x80000006, None): Cpuid(0, 0, 0x40, 0),
    (0x80000007, None): Cpuid(0, 0, 0, 0x100),
}
"""Leaves with the same values on every processor; ``None``: whatever the subleaf."""

clause("CPUID.topology", "leaves 0BH and 1FH return the x2APIC id in EDX for every subleaf (errata 6)",
       "SDM vol. 2A CPUID", CHOSEN)


@implements("CPUID.topology")
def cpuid(platform: Platform, lp: Lp, leaf: int, subleaf: int = 0) -> Cpuid:
    """CPUID on a processor; leaves the loading chain does not read return zeros (as reserved leaves do)."""
    config = platform.config
    topology = config.topology
    match leaf:
        case 1:
            return Cpuid(config.fms_of(lp.package), 8 << 8, FEATURES_1_ECX, FEATURES_1_EDX)
        case 4 if subleaf == 3:
            shared = topology.addressable_per_socket - 1 & 0xFFF
            return Cpuid(3 | 3 << 5 | shared << 14, 63, 0, 0)
        case 4 if subleaf < 3:
            return Cpuid((1, 2, 3)[subleaf] | (1, 1, 2)[subleaf] << 5, 63, 0, 0)
        case 0x0B | 0x1F:
            shift = topology.stride.bit_length() - 1
            if subleaf > 1:  # no more levels; the id is there all the same
                return Cpuid(0, 0, subleaf & 0xFF, lp.id)
            return Cpuid(shift if subleaf else 0, topology.lps_per_socket if subleaf else 1,
                         subleaf | (2 if subleaf else 1) << 8, lp.id)
        case 0x80000008:
            return Cpuid(config.maxpa | 48 << 8, 1 << 9, 0, 0)
        case _:
            return FIXED.get((leaf, subleaf)) or FIXED.get((leaf, None)) or Cpuid(0, 0, 0, 0)
