"""What TDH.SYS.INIT demands of the platform, as data: MSRs, VMX capabilities, CPUID, and what is the same everywhere.

Facts of TDXN tdh_sys_init.c and include/auto_gen (1.5.05); where 1.5.01 differs, the row says so.  The checks
that read them are rows of :data:`seamref.tdxmodule.system.INIT`.
"""

from __future__ import annotations

from typing import NamedTuple

from seamref.arch.cpuid import Cpuid

ARCH_CAPABILITIES_ONES = 0x20FD6B
"""IA32_ARCH_CAPABILITIES bits that must be 1: 0, 1, 3, 5, 6, 8, 10 to 15, 21."""
ARCH_CAPABILITIES_ZEROS, FB_CLEAR_CTRL = 1 << 2, 1 << 18
"""Bits that must be 0: RSBA; since 1.5.05 FB_CLEAR_CTRL too."""
FULL_WRITE, FREEZE_WHILE_SMM = 1 << 13, 1 << 12
"""IA32_PERF_CAPABILITIES bits that must be 1; the second since 1.5.05."""


class Controls(NamedTuple):
    """What the module does with a set of VMX controls.

    ``ones``      controls it sets: allowed-1 must have them
    ``variable``  controls it changes from TD to TD: both values must be allowed
    ``unknown``   controls it does not know: it takes the value that must be
    """

    msr: int
    ones: int
    variable: int
    unknown: int


PIN = Controls(0x48D, 0x29, 0x80, 0xFFFFFF16)
PROC = Controls(0x48E, 0x91220088, 0x20400C00, 0x04046173)
PROC2 = Controls(0x48B, 0x133CB3FA, 0xCC000400, 0)
EXIT = Controls(0x48F, 0x1F3C8204, 0x40001000, 0x00036DFB)
ENTRY = Controls(0x490, 0x003EC004, 0x00402200, 0xFF8011FB)
PROC_L2 = Controls(0x48E, 0x91220088, 0x68D81E04, 0x04046173)
PROC2_L2 = Controls(0x48B, 0x1338B3FA, 0x0C513E0C, 0)
"""Pin, exit and entry controls of L2 VMs ask for no more than those of L1."""
WAITPKG_CONTROL, ENCLV_CONTROL = 1 << 26, 1 << 28
"""Secondary controls that are set only where the processor has WAITPKG, has ENCLV exiting."""
PROC3, PROC3_L2, SPEC_CTRL_VIRT = 0x20, 0x2E, 1 << 7
"""Tertiary controls that must be allowed: GPAW; in 1.5.01 virtual IA32_SPEC_CTRL too; for L2 VMs bits 1 to 3 too."""
CR0_ONES, CR0_ANY, CR0_L2 = 0x21, 0x80000001, 0x8005001F
"""CR0: PE and NE are set, PE and PG may be fixed; bits that L2 VMs change must not be fixed to 0."""
CR4_ONES = 0x2040
"""CR4: MCE and VMXE."""
EPT_VPID = 0x10106334041
"""IA32_VMX_EPT_VPID_CAP bits that must be 1."""
VMX_MISC, CR3_TARGETS = 0x200040E0, 4
"""IA32_VMX_MISC bits 5, 6, 7, 14 and 29 must be 1; at least four CR3-target values."""
BASIC = 3 << 54
"""IA32_VMX_BASIC: exit information for INS and OUTS; the TRUE control MSRs are there."""
ALGORITHMS, ALGORITHMS_INTEGRITY = 0b0101, 0b1010
"""Memory encryption without and with integrity: bits of IA32_TME_CAPABILITY, and 63:48 of IA32_TME_ACTIVATE."""

PERFMON_VERSION, LEVEL_TYPES, TSC_FREQUENCY_MIN = 5, 6, 0x2540C
"""CPUID.0AH version, level types of CPUID.1FH that exist (below), hertz."""
WHOLE = 0xFFFFFFFF
"""Subleaf of a CPUID leaf that has none, in tables and in RCX."""


class CpuidDemand(NamedTuple):
    """CPUID under ``mask`` must be ``value``."""

    leaf: int
    subleaf: int
    mask: Cpuid
    value: Cpuid


CPUID_DEMANDS: tuple[CpuidDemand, ...] = (
    CpuidDemand(0x1, WHOLE, Cpuid(0, 0xFF00, 0x47FAA217, 0x1FA9FBFF), Cpuid(0, 0x800, 0x47FAA217, 0x1FA9FBFF)),
    CpuidDemand(0x4, 0, Cpuid(0, 0xFFF, 0, 0), Cpuid(0, 0x3F, 0, 0)),
    CpuidDemand(0x4, 1, Cpuid(0, 0xFFF, 0, 0), Cpuid(0, 0x3F, 0, 0)),
    CpuidDemand(0x4, 2, Cpuid(0, 0xFFF, 0, 0), Cpuid(0, 0x3F, 0, 0)),
    CpuidDemand(0x4, 3, Cpuid(0xE0, 0xFFF, 0, 0x1), Cpuid(0x60, 0x3F, 0, 0)),
    CpuidDemand(0x7, 0, Cpuid(0xFFFFFFFF, 0x219424C3, 0x99000000, 0xFC082600),
                Cpuid(0x2, 0x219424C3, 0x99000000, 0xFC080400)),
    CpuidDemand(0xA, WHOLE, Cpuid(0xFF00, 0, 0xFFFFFFF0, 0x8000), Cpuid(0x800, 0, 0, 0x8000)),
    CpuidDemand(0x80000008, WHOLE, Cpuid(0xFF, 0x200, 0, 0), Cpuid(0x34, 0x200, 0, 0)),
    CpuidDemand(0x0, WHOLE, Cpuid(0, 0xFFFFFFFF, 0xFFFFFFFF, 0xFFFFFFFF), Cpuid(0, 0x756E6547, 0x6C65746E, 0x49656E69)),
    CpuidDemand(0x4, 4, Cpuid(0x1F, 0, 0, 0), Cpuid(0, 0, 0, 0)),
    CpuidDemand(0x6, WHOLE, Cpuid(0x800000, 0, 0, 0), Cpuid(0, 0, 0, 0)),
    CpuidDemand(0x7, 2, Cpuid(0, 0, 0, 0x17), Cpuid(0, 0, 0, 0x17)),
    CpuidDemand(0xD, 0, Cpuid(0x3, 0, 0, 0), Cpuid(0x3, 0, 0, 0)),
    CpuidDemand(0xD, 1, Cpuid(0xF, 0, 0x1800, 0), Cpuid(0xF, 0, 0x1800, 0)),
    CpuidDemand(0x14, 0, Cpuid(0xFFFFFFFF, 0, 0, 0), Cpuid(0x1, 0, 0, 0)),
    CpuidDemand(0x1F, 5, Cpuid(0, 0, 0xFF00, 0), Cpuid(0, 0, 0, 0)),
    CpuidDemand(0x80000001, WHOLE, Cpuid(0, 0, 0x121, 0x2C100800), Cpuid(0, 0, 0x121, 0x2C100800)),
    CpuidDemand(0x80000006, WHOLE, Cpuid(0, 0, 0xFF, 0), Cpuid(0, 0, 0x40, 0)),
    CpuidDemand(0x80000007, WHOLE, Cpuid(0, 0, 0, 0x100), Cpuid(0, 0, 0, 0x100)),
    CpuidDemand(0x23, 1, Cpuid(0xFFFFFF00, 0xFFFFFFF0, 0, 0), Cpuid(0, 0, 0, 0)),
)
"""In the order in which they are asked."""

_ALL = Cpuid(WHOLE, WHOLE, WHOLE, WHOLE)
_NOT_EDX = Cpuid(WHOLE, WHOLE, WHOLE, 0)
CPUID_SAME: tuple[tuple[int, int, Cpuid], ...] = (
    (0x1, WHOLE, Cpuid(0xF000C000, 0xFFFF, 0xF7FFFF9F, 0xFFFFFFFF)),
    (0x4, 0, _ALL),
    (0x4, 1, _ALL),
    (0x4, 2, _ALL),
    (0x4, 3, _ALL),
    (0x7, 0, Cpuid(0xFFFFFFFF, 0xFFFFFFFB, 0xBFC1FF6F, 0xFFEBFFFF)),
    (0x7, 1, _ALL),
    (0xA, WHOLE, _ALL),
    (0x1C, WHOLE, _ALL),
    (0x80000008, WHOLE, _ALL),
    (0x0, WHOLE, _ALL),
    (0x4, 4, _ALL),
    (0x6, WHOLE, Cpuid(0x800000, 0, 0, 0)),
    (0x7, 2, _ALL),
    (0xD, 0, Cpuid(0xFFFFFFFF, 0, 0xFFFFFFFF, 0xFFFFFFFF)),
    (0xD, 1, Cpuid(0xFFFFFFFF, 0, 0xFFFFFFFF, 0xFFFFFFFF)),
    (0xD, 2, _ALL),
    (0xD, 3, _ALL),
    (0xD, 4, _ALL),
    (0xD, 5, _ALL),
    (0xD, 6, _ALL),
    (0xD, 7, _ALL),
    (0xD, 8, _ALL),
    (0xD, 9, _ALL),
    (0xD, 10, _ALL),
    (0xD, 11, _ALL),
    (0xD, 12, _ALL),
    (0xD, 13, _ALL),
    (0xD, 14, _ALL),
    (0xD, 15, _ALL),
    (0xD, 16, _ALL),
    (0xD, 17, _ALL),
    (0xD, 18, _ALL),
    (0x14, 0, _ALL),
    (0x14, 1, _ALL),
    (0x15, WHOLE, _ALL),
    (0x19, WHOLE, Cpuid(0xFFFFFFFF, 0xFFFFFFFE, 0xFFFFFFFF, 0xFFFFFFFF)),
    (0x1D, 0, _ALL),
    (0x1D, 1, _ALL),
    (0x1E, WHOLE, _ALL),
    (0x1F, 0, _NOT_EDX),
    (0x1F, 1, _NOT_EDX),
    (0x1F, 2, _NOT_EDX),
    (0x1F, 3, _NOT_EDX),
    (0x1F, 4, _NOT_EDX),
    (0x1F, 5, _NOT_EDX),
    (0x80000000, WHOLE, _ALL),
    (0x80000001, WHOLE, _ALL),
    (0x80000006, WHOLE, Cpuid(0, 0, 0xFF, 0)),
    (0x80000007, WHOLE, Cpuid(0, 0, 0, 0x100)),
    (0x23, 0, _ALL),
    (0x23, 1, _ALL),
    (0x23, 2, _ALL),
    (0x23, 3, _ALL),
    (0x5, WHOLE, _ALL),
    (0x1A, WHOLE, _ALL),
)
"""Leaf, subleaf and mask of what must be the same on every processor."""
ONLY_1_5_05 = frozenset({0x1A})
"""Leaves of CPUID_SAME that 1.5.01 does not compare."""
