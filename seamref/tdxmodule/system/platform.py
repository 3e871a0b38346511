"""What TDH.SYS.INIT and TDH.SYS.LP.INIT find out about the platform: CPUID, topology, VMX controls, SMRR, CMRs."""

from __future__ import annotations

from itertools import pairwise

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.memory import Range
from seamref.arch.msr import MISC_ENABLE, SMRR2_BASE, SMRR2_MASK, SMRR_BASE, SMRR_MASK
from seamref.arch.outcome import Done
from seamref.arch.seamops import SeamopsLeaf, seamops
from seamref.arch.software import Ud2
from seamref.spec import implements
from seamref.tdxmodule.build import CHECKS_MISC_ENABLE
from seamref.tdxmodule.core import Call
from seamref.tdxmodule.demands import (
    ALGORITHMS,
    ALGORITHMS_INTEGRITY,
    ARCH_CAPABILITIES_ONES,
    ARCH_CAPABILITIES_ZEROS,
    BASIC,
    CPUID_DEMANDS,
    CR3_TARGETS,
    ENCLV_CONTROL,
    FB_CLEAR_CTRL,
    FREEZE_WHILE_SMM,
    FULL_WRITE,
    LEVEL_TYPES,
    PERFMON_VERSION,
    PROC3,
    PROC3_L2,
    SPEC_CTRL_VIRT,
    TSC_FREQUENCY_MIN,
    VMX_MISC,
    WAITPKG_CONTROL,
    WHOLE,
    Controls,
)
from seamref.tdxmodule.status import Status, pack
from seamref.tdxmodule.structures import MAX_CMRS, PAGE
from seamref.tdxmodule.system.common import S, mcheck, msr_of, ref

# --- TDH.SYS.INIT (33) ------------------------------------------------------------------------------------------

def msr_if(address: int, wrong: bool) -> int | None:
    return address if wrong else None


def cpuid_limited(c: Call) -> bool:
    return bool(msr_of(c, MISC_ENABLE) >> 22 & 1)


def later(c: Call) -> bool:
    """A build that follows 1.5.05, not 1.5.01."""
    return c.has(CHECKS_MISC_ENABLE)


def leaf_cpuid(c: Call, number: int, subleaf: int) -> Cpuid:
    """CPUID as TDH.SYS.INIT asks for it: leaves above the highest one are 0."""
    highest = cpuid(c.platform, c.lp, number & 0x80000000).eax
    if number > highest:
        return Cpuid(0, 0, 0, 0)
    return cpuid(c.platform, c.lp, number, 0 if subleaf == WHOLE else subleaf)


def cpuid_out(c: Call, number: int, subleaf: int, mask: Cpuid, want: Cpuid | None = None) -> bool:
    """Which leaf and what was wanted, in the output registers."""
    c.out(rcx=number | subleaf << 32, rdx=mask.eax | mask.ebx << 32, r8=mask.ecx | mask.edx << 32)
    if want is not None:
        c.out(r9=want.eax | want.ebx << 32, r10=want.ecx | want.edx << 32)
    return True


def cpuid_wrong(c: Call) -> bool:
    for demand in CPUID_DEMANDS:
        got = leaf_cpuid(c, demand.leaf, demand.subleaf)
        if any(g & m != w for g, m, w in zip(got, demand.mask, demand.value, strict=True)):
            return cpuid_out(c, *demand)
    return False


def perfmon_wrong(c: Call) -> bool:
    return cpuid(c.platform, c.lp, 0xA).eax & 0xFF < PERFMON_VERSION and cpuid_out(
        c, 0xA, WHOLE, Cpuid(0xFF, 0, 0, 0), Cpuid(PERFMON_VERSION, 0, 0, 0))


def linear_width_wrong(c: Call) -> bool:
    """57 bits with 5-level paging (CPUID.7.0:ECX[16]), 48 without."""
    want = 57 if cpuid(c.platform, c.lp, 7).ecx >> 16 & 1 else 48
    return cpuid(c.platform, c.lp, 0x80000008).eax >> 8 & 0xFF != want and cpuid_out(
        c, 0x80000008, WHOLE, Cpuid(0xFF00, 0, 0, 0), Cpuid(want << 8, 0, 0, 0))


def _slow(c: Call) -> bool:
    """A TSC below the frequency that TDs are promised, or no last branch records: the module stops the platform."""
    eax, ebx, ecx, _ = leaf_cpuid(c, 0x15, WHOLE)
    return ecx * ebx // max(eax, 1) < TSC_FREQUENCY_MIN or not leaf_cpuid(c, 0x1C, WHOLE).eax & 0xFF


@implements("SYS.INIT.fatal", "a TSC below 152.6 kHz in CPUID.15H, or no LBR depth in CPUID.1CH: the module stops the "
            "platform", ref("tdh_sys_init.c"))
def stop_if_slow(c: Call) -> bool:
    """SYS.INIT.fatal: never returns true."""
    if _slow(c):
        raise Ud2("CPUID 15H or 1CH")
    return False


def _level(c: Call, subleaf: int) -> int:
    return cpuid(c.platform, c.lp, 0x1F, subleaf).ecx >> 8 & 0xFF


def _levels(c: Call) -> list[int]:
    """Level types of leaf 1FH, up to the first invalid one: 1 SMT, 2 core, ..."""
    found: list[int] = []
    for subleaf in range(6):
        level = _level(c, subleaf)
        if level == 0:
            break
        found.append(level)
    return found


def topology_wrong(c: Call) -> bool:
    levels = _levels(c)
    return any(b <= a or b >= LEVEL_TYPES for a, b in pairwise([0, *levels]))


def no_core_level(c: Call) -> bool:
    return 2 not in _levels(c)


def l3_wrong(c: Call) -> bool:
    """The processors that share the cache of leaf 4 subleaf 3 must fill the id bits of a package.

    A package of a single id has no bits to fill (no part has such packages): its cache counts as package wide.
    """
    shift = cpuid(c.platform, c.lp, 0x1F, len(_levels(c)) - 1).eax & 0x1F
    return shift > 0 and (cpuid(c.platform, c.lp, 4, 3).eax >> 14 & 0xFFF) >> shift - 1 != 1


def allowed(c: Call, controls: Controls, without: int = 0) -> bool:
    """Whether a capability MSR allows what the module does with its controls.  A contradictory MSR is fatal."""
    value = msr_of(c, controls.msr)
    fixed1, allowed1 = value & WHOLE, value >> 32
    if fixed1 & ~allowed1:
        raise Ud2(f"MSR 0x{controls.msr:X}: a control must be 1 and may not be 1")
    ones = controls.ones & ~without
    return not (fixed1 & ~(ones | controls.unknown) or ~allowed1 & ones
                or (fixed1 | ~allowed1) & controls.variable & WHOLE)


def proc2_allowed(c: Call, controls: Controls) -> bool:
    """Secondary controls: ENCLV exiting is set only where there is such a control."""
    if not msr_of(c, controls.msr) >> 32 & ENCLV_CONTROL:
        return allowed(c, controls, ENCLV_CONTROL)
    if cpuid(c.platform, c.lp, 7).ecx >> 5 & 1:
        return allowed(c, controls._replace(ones=controls.ones | WAITPKG_CONTROL))
    return allowed(c, controls)


def proc3_allowed(c: Call, level_2: bool) -> bool:
    """Tertiary controls; virtual IA32_SPEC_CTRL is needed in 1.5.01, later where the processor has DDPD_U."""
    value, need = msr_of(c, 0x492), PROC3_L2 if level_2 else PROC3
    if not later(c) or cpuid(c.platform, c.lp, 7, 2).edx >> 3 & 1:
        need |= SPEC_CTRL_VIRT
    return value & need == need


def misc_ok(c: Call) -> bool:
    value = msr_of(c, 0x485)
    return value & VMX_MISC == VMX_MISC and value >> 16 & 0x1FF >= CR3_TARGETS


def tme_wrong(c: Call) -> int | None:
    """The MSR to blame: activation is locked, and both name an algorithm of the platform's kind."""
    wanted = ALGORITHMS if mcheck(c).num("tdx_ac") else ALGORITHMS_INTEGRITY
    if not msr_of(c, 0x982) & 1:
        return 0x982
    if not msr_of(c, 0x981) & wanted:
        return 0x981
    return msr_if(0x982, not msr_of(c, 0x982) >> 48 & wanted)


def hkid_range(c: Call) -> tuple[int, int]:
    value = msr_of(c, 0x87)
    low = (value & 0xFFFFFFFF) + 1
    return low, low + (value >> 32) - 1


def cmr_ranges(c: Call) -> list[Range]:
    """Non-empty convertible memory ranges."""
    table = mcheck(c)
    found = [Range(table.num(f"cmr[{i}].base"), table.num(f"cmr[{i}].size")) for i in range(MAX_CMRS)]
    return [r for r in found if r.size]


def cmrs_wrong(c: Call) -> bool:
    last = 0
    for base, size in cmr_ranges(c):
        bad = base + size > 1 << 52 or (base | size) % PAGE or base < last or c.platform.split(base + size - 1)[0]
        if bad:
            return True
        last = base + size
    return False


def smrrs(c: Call) -> list[tuple[int, int]]:
    """Base and mask of SMRR, and of SMRR2 where the processor has it (IA32_MTRRCAP bit 13) and MCHECK knows of it."""
    second = not mcheck(c).num("skip_smrr2_check") and msr_of(c, 0xFE) >> 13 & 1
    pairs = ((SMRR_BASE, SMRR_MASK), (SMRR2_BASE, SMRR2_MASK))[: 2 if second else 1]
    return [(msr_of(c, base), msr_of(c, mask)) for base, mask in pairs]


SMRR_FIELD, SMRR_LOCKED, SMRR_VALID = 0xFFFFF000, 1 << 10, 1 << 11


def _smrr_size(mask: int) -> int:
    bits = mask & SMRR_FIELD
    return bits & -bits


def smrr_unlocked(c: Call) -> int | None:
    return next((i for i, (_, mask) in enumerate(smrrs(c)) if not mask & SMRR_LOCKED), None)


def _smrr_malformed(base: int, mask: int) -> bool:
    """Mask not contiguous up to bit 31 (or none), or base not aligned to the size."""
    size = _smrr_size(mask)
    return mask & SMRR_FIELD != 0x100000000 - size or bool(base & SMRR_FIELD & size - 1)


def _smrr_judged(c: Call) -> tuple[Status, int] | None:
    """Each valid SMRR in turn: its shape, then the CMRs, before the next one."""
    cmrs = mcheck(c)
    for i, (base, mask) in enumerate(smrrs(c)):
        if not mask & SMRR_VALID:
            continue
        if _smrr_malformed(base, mask):
            return S.TDX_INVALID_SMRR_CONFIGURATION, i
        for j in range(MAX_CMRS):
            cmr = Range(cmrs.num(f"cmr[{j}].base"), cmrs.num(f"cmr[{j}].size"))
            if cmr.size and cmr.overlaps(base & SMRR_FIELD, _smrr_size(mask)):
                return S.TDX_SMRR_OVERLAPS_CMR, pack(i, j)
    return None


def smrr_is(c: Call, status: Status) -> int | None:
    found = _smrr_judged(c)
    return found[1] if found is not None and found[0] is status else None


def capabilities(c: Call) -> int:
    """SEAMOPS[CAPABILITIES]."""
    c.lp.rax = SeamopsLeaf.CAPABILITIES
    if not isinstance(seamops(c.platform, c.lp.id), Done):
        raise Ud2("SEAMOPS[CAPABILITIES] faulted")
    return c.lp.rax


def _zeros(c: Call) -> int:
    return ARCH_CAPABILITIES_ZEROS | (FB_CLEAR_CTRL if later(c) else 0)


def arch_ok(c: Call) -> bool:
    return msr_of(c, 0x10A) & (ARCH_CAPABILITIES_ONES | _zeros(c)) == ARCH_CAPABILITIES_ONES


def perf_capabilities(c: Call) -> int:
    return FULL_WRITE | (FREEZE_WHILE_SMM if later(c) else 0)


def basic_ok(c: Call) -> bool:
    value = msr_of(c, 0x480)
    return value & BASIC == BASIC and value >> 32 & 0x1FFF <= PAGE
