"""TDH.SYS.*: bringing the module up, shutting it down, taking over from the module before (TDXM tdh_sys_*.c).

Each function has the same beats: inputs, checks (a table, in order), effect, result.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.memory import Range
from seamref.arch.msr import MISC_ENABLE, SMRR2_BASE, SMRR2_MASK, SMRR_BASE, SMRR_MASK, rdmsr
from seamref.arch.outcome import Done, Fault
from seamref.arch.pconfig import RANDOM, PconfigStatus, pconfig
from seamref.arch.seamops import SeamopsLeaf, SeamopsStatus, seamops
from seamref.arch.software import Ud2
from seamref.arch.structures import MKTME_KEY_PROGRAM, P_SYS_INFO_TABLE
from seamref.arch.trace import Step
from seamref.arch.vmcs import BY_NAME
from seamref.arch.vmx import vmread
from seamref.spec import CHOSEN, Check, CheckTable, implements
from seamref.tdxmodule.build import (
    CHECKS_MISC_ENABLE,
    DISABLE,
    UPDATE_COMPATIBILITY,
    VERSION_1_INIT,
)
from seamref.tdxmodule.core import Answer, Call, View, leaf, ok
from seamref.tdxmodule.cpuid_config import Configurable, configurable
from seamref.tdxmodule.demands import (
    ALGORITHMS,
    ALGORITHMS_INTEGRITY,
    ARCH_CAPABILITIES_ONES,
    ARCH_CAPABILITIES_ZEROS,
    BASIC,
    CPUID_DEMANDS,
    CPUID_SAME,
    CR0_ANY,
    CR0_L2,
    CR0_ONES,
    CR3_TARGETS,
    CR4_ONES,
    ENCLV_CONTROL,
    ENTRY,
    EPT_VPID,
    EXIT,
    FB_CLEAR_CTRL,
    FREEZE_WHILE_SMM,
    FULL_WRITE,
    LEVEL_TYPES,
    ONLY_1_5_05,
    PERFMON_VERSION,
    PIN,
    PROC,
    PROC2,
    PROC2_L2,
    PROC3,
    PROC3_L2,
    PROC_L2,
    SPEC_CTRL_VIRT,
    TSC_FREQUENCY_MIN,
    VMX_MISC,
    WAITPKG_CONTROL,
    WHOLE,
    Controls,
)
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status, pack
from seamref.tdxmodule.structures import (
    ATTRIBUTES_FIXED0,
    ATTRIBUTES_FIXED1,
    ATTRIBUTES_LASS,
    CANARY_PAGE,
    HANDOFF,
    HOST_FIELDS,
    INIT_MSRS,
    MAX_CMRS,
    MAX_CPUID_SAMPLES,
    MAX_HKIDS,
    MAX_PKGS,
    MAX_RESERVED,
    MAX_TDMRS,
    PAGE,
    PAMT_ENTRY,
    TDCS_PAGES,
    TDMR_ENTRY,
    TDMR_INFO,
    TDSYSINFO,
    TDVPS_PAGES,
    XFAM_FIXED0,
    XFAM_FIXED1,
    Hkid,
    PageType,
    SysState,
)

S = Status
GIB = 1 << 30


def ref(path: str) -> str:
    """Source of a TDH.SYS function."""
    return f"TDXM src/vmm_dispatcher/api_calls/{path}"


def msr_of(c: Call, address: int) -> int:
    """RDMSR that must not fault."""
    value = rdmsr(c.platform, c.lp.id, address)
    if isinstance(value, Fault):
        raise Ud2(f"RDMSR 0x{address:X}: {value}")
    return value


def first(c: Call, details: int | None) -> bool:
    """Remember what a check found."""
    if details is None:
        return False
    c.found = details
    return True


def global_exclusive(c: Call) -> bool:
    """Whether GLOBAL_LOCK could *not* be taken exclusively."""
    return not c.lock("x", c.glob.address("global_lock"))


def global_shared(c: Call) -> bool:
    """Whether GLOBAL_LOCK could *not* be taken shared."""
    return not c.lock("s", c.glob.address("global_lock"))


def mcheck(c: Call) -> View:
    """The low half of SYS_INFO_TABLE, with the field names of MCHECK's table."""
    return View(P_SYS_INFO_TABLE, c.linear, c.table.base)


# --- TDH.SYS.INIT (33) ------------------------------------------------------------------------------------------

def _is_not(address: int, wrong: bool) -> int | None:
    return address if wrong else None


def _limit_cpuid(c: Call) -> bool:
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


def _cpuid_out(c: Call, number: int, subleaf: int, mask: Cpuid, want: Cpuid | None = None) -> bool:
    """Which leaf and what was wanted, in the output registers."""
    c.out(rcx=number | subleaf << 32, rdx=mask.eax | mask.ebx << 32, r8=mask.ecx | mask.edx << 32)
    if want is not None:
        c.out(r9=want.eax | want.ebx << 32, r10=want.ecx | want.edx << 32)
    return True


def _cpuid_wrong(c: Call) -> bool:
    for demand in CPUID_DEMANDS:
        got = leaf_cpuid(c, demand.leaf, demand.subleaf)
        if any(g & m != w for g, m, w in zip(got, demand.mask, demand.value, strict=True)):
            return _cpuid_out(c, *demand)
    return False


def _perfmon_wrong(c: Call) -> bool:
    return cpuid(c.platform, c.lp, 0xA).eax & 0xFF < PERFMON_VERSION and _cpuid_out(
        c, 0xA, WHOLE, Cpuid(0xFF, 0, 0, 0), Cpuid(PERFMON_VERSION, 0, 0, 0))


def _linear_width_wrong(c: Call) -> bool:
    """57 bits with 5-level paging (CPUID.7.0:ECX[16]), 48 without."""
    want = 57 if cpuid(c.platform, c.lp, 7).ecx >> 16 & 1 else 48
    return cpuid(c.platform, c.lp, 0x80000008).eax >> 8 & 0xFF != want and _cpuid_out(
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


def _topology_wrong(c: Call) -> bool:
    levels = _levels(c)
    return any(b <= a or b >= LEVEL_TYPES for a, b in pairwise([0, *levels]))


def _no_core_level(c: Call) -> bool:
    return 2 not in _levels(c)


def _l3_wrong(c: Call) -> bool:
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


def _proc2(c: Call, controls: Controls) -> bool:
    """Secondary controls: ENCLV exiting is set only where there is such a control."""
    if not msr_of(c, controls.msr) >> 32 & ENCLV_CONTROL:
        return allowed(c, controls, ENCLV_CONTROL)
    if cpuid(c.platform, c.lp, 7).ecx >> 5 & 1:
        return allowed(c, controls._replace(ones=controls.ones | WAITPKG_CONTROL))
    return allowed(c, controls)


def _proc3(c: Call, level_2: bool) -> bool:
    """Tertiary controls; virtual IA32_SPEC_CTRL is needed in 1.5.01, later where the processor has DDPD_U."""
    value, need = msr_of(c, 0x492), PROC3_L2 if level_2 else PROC3
    if not later(c) or cpuid(c.platform, c.lp, 7, 2).edx >> 3 & 1:
        need |= SPEC_CTRL_VIRT
    return value & need == need


def _misc_ok(c: Call) -> bool:
    value = msr_of(c, 0x485)
    return value & VMX_MISC == VMX_MISC and value >> 16 & 0x1FF >= CR3_TARGETS


def _tme_wrong(c: Call) -> int | None:
    """The MSR to blame: activation is locked, and both name an algorithm of the platform's kind."""
    wanted = ALGORITHMS if mcheck(c).num("tdx_ac") else ALGORITHMS_INTEGRITY
    if not msr_of(c, 0x982) & 1:
        return 0x982
    if not msr_of(c, 0x981) & wanted:
        return 0x981
    return _is_not(0x982, not msr_of(c, 0x982) >> 48 & wanted)


def _hkid_range(c: Call) -> tuple[int, int]:
    value = msr_of(c, 0x87)
    low = (value & 0xFFFFFFFF) + 1
    return low, low + (value >> 32) - 1


def _cmrs(c: Call) -> list[Range]:
    """Non-empty convertible memory ranges."""
    table = mcheck(c)
    found = [Range(table.num(f"cmr[{i}].base"), table.num(f"cmr[{i}].size")) for i in range(MAX_CMRS)]
    return [r for r in found if r.size]


def _cmrs_wrong(c: Call) -> bool:
    last = 0
    for base, size in _cmrs(c):
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


def _smrr_unlocked(c: Call) -> int | None:
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


def _smrr_is(c: Call, status: Status) -> int | None:
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


def _arch_ok(c: Call) -> bool:
    return msr_of(c, 0x10A) & (ARCH_CAPABILITIES_ONES | _zeros(c)) == ARCH_CAPABILITIES_ONES


def _perf(c: Call) -> int:
    return FULL_WRITE | (FREEZE_WHILE_SMM if later(c) else 0)


def _basic_ok(c: Call) -> bool:
    value = msr_of(c, 0x480)
    return value & BASIC == BASIC and value >> 32 & 0x1FFF <= PAGE


_I = ref("tdh_sys_init.c")
INIT: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INIT", (
    Check("SYS.INIT.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _I),
    Check("SYS.INIT.rcx", "RCX is not 0", lambda c: c.rcx != 0 and c.version == 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _I),
    Check("SYS.INIT.state", "state is not SYSINIT_PENDING", lambda c: c.state != SysState.SYSINIT_PENDING,
          Answer(S.TDX_SYS_INIT_NOT_PENDING), _I),
    Check("SYS.INIT.arch_capabilities", "IA32_ARCH_CAPABILITIES lacks a needed bit, or has one that must not be",
          lambda c: first(c, _is_not(0x10A, not _arch_ok(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.xapic", "IA32_XAPIC_DISABLE_STATUS is not 1",
          lambda c: first(c, _is_not(0xBD, msr_of(c, 0xBD) != 1)), Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.energy_filtering", "energy filtering is not enabled in IA32_MISC_PACKAGE_CTLS",
          lambda c: first(c, _is_not(0xBC, not msr_of(c, 0xBC) & 1)), Answer(S.TDX_INCORRECT_MSR_VALUE, found=True),
          _I),
    Check("SYS.INIT.perf_capabilities", "IA32_PERF_CAPABILITIES without full-width writes; 1.5.05: or freeze while SMM",
          lambda c: first(c, _is_not(0x345, msr_of(c, 0x345) & _perf(c) != _perf(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", _limit_cpuid, Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET),
          _I),
    Check("SYS.INIT.misc_enable", "1.5.05: performance monitoring or BTS is not available in IA32_MISC_ENABLE",
          lambda c: c.has(CHECKS_MISC_ENABLE) and first(c, _is_not(0x1A0, msr_of(c, 0x1A0) & 0x880 != 0x80)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), "TDXN tdh_sys_init.c"),
    Check("SYS.INIT.cpuid_leaf", "highest basic leaf below 1FH, or extended below 80000008H",
          lambda c: first(c, _is_not(0x1F, cpuid(c.platform, c.lp, 0).eax < 0x1F)
                          or _is_not(0x80000008, cpuid(c.platform, c.lp, 0x80000000).eax < 0x80000008)),
          Answer(S.TDX_CPUID_LEAF_NOT_SUPPORTED, found=True), _I),
    Check("SYS.INIT.cpuid_value", "a CPUID value under its mask differs (CPUID_DEMANDS)",
          _cpuid_wrong,
          Answer(S.TDX_INCORRECT_CPUID_VALUE), _I),
    Check("SYS.INIT.perfmon", "CPUID.0AH: performance monitoring below version 5",
          _perfmon_wrong,
          Answer(S.TDX_INCORRECT_CPUID_VALUE), _I),
    Check("SYS.INIT.linear_width", "CPUID.80000008H: linear addresses of neither 57 bits with LA57 nor 48 without",
          _linear_width_wrong,
          Answer(S.TDX_INCORRECT_CPUID_VALUE), _I),
    Check("SYS.INIT.tsc_leaf", "CPUID.15H does not give the TSC frequency",
          lambda c: first(c, _is_not(0x15, leaf_cpuid(c, 0x15, WHOLE).ebx == 0)) or stop_if_slow(c),
          Answer(S.TDX_CPUID_LEAF_NOT_SUPPORTED, found=True), _I),
    Check("SYS.INIT.cpuid_1f", "levels of leaf 1FH are not ascending, or unknown",
          _topology_wrong,
          Answer(S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED), _I),
    Check("SYS.INIT.core_level", "leaf 1FH has no core level",
          _no_core_level,
          Answer(S.TDX_CPUID_LEAF_NOT_SUPPORTED, Operand.RAX), _I),
    Check("SYS.INIT.wbinvd_scope", "the last-level cache is not package wide",
          _l3_wrong,
          Answer(S.TDX_INVALID_WBINVD_SCOPE), _I),
    Check("SYS.INIT.vmx_basic", "IA32_VMX_BASIC: VMCS above 4 KiB, no information for INS and OUTS, no TRUE controls",
          lambda c: first(c, _is_not(0x480, not _basic_ok(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_pin", "pin-based controls",
          lambda c: first(c, _is_not(0x48D, not allowed(c, PIN))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_proc", "processor-based controls",
          lambda c: first(c, _is_not(0x48E, not allowed(c, PROC))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_proc2", "secondary controls",
          lambda c: first(c, _is_not(0x48B, not _proc2(c, PROC2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_proc3", "tertiary controls: GPAW; virtual IA32_SPEC_CTRL",
          lambda c: first(c, _is_not(0x492, not _proc3(c, False))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_exit", "exit controls",
          lambda c: first(c, _is_not(0x48F, not allowed(c, EXIT))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_entry", "entry controls",
          lambda c: first(c, _is_not(0x490, not allowed(c, ENTRY))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_misc", "IA32_VMX_MISC: activity states, unrestricted guest, PT, VMWRITE to all, CR3 targets",
          lambda c: first(c, _is_not(0x485, not _misc_ok(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_ept", "EPT and VPID capabilities",
          lambda c: first(c, _is_not(0x48C, msr_of(c, 0x48C) & EPT_VPID != EPT_VPID)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr0_fixed0", "a CR0 bit must be 1 that TDs have 0",
          lambda c: first(c, _is_not(0x486, bool(msr_of(c, 0x486) & ~(CR0_ONES | CR0_ANY)))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr0_fixed1", "a CR0 bit must be 0 that TDs have 1",
          lambda c: first(c, _is_not(0x487, msr_of(c, 0x487) & CR0_ONES != CR0_ONES)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr4_fixed0", "a CR4 bit must be 1 that TDs have 0",
          lambda c: first(c, _is_not(0x488, bool(msr_of(c, 0x488) & ~CR4_ONES))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr4_fixed1", "a CR4 bit must be 0 that TDs have 1",
          lambda c: first(c, _is_not(0x489, msr_of(c, 0x489) & CR4_ONES != CR4_ONES)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_proc", "processor-based controls that L2 VMs change",
          lambda c: first(c, _is_not(0x48E, not allowed(c, PROC_L2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_proc2", "secondary controls that L2 VMs change",
          lambda c: first(c, _is_not(0x48B, not _proc2(c, PROC2_L2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_proc3", "tertiary controls that L2 VMs change",
          lambda c: first(c, _is_not(0x492, not _proc3(c, True))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_cr0", "a CR0 bit that L2 VMs change is fixed to 0 (the MSR named is FIXED0)",
          lambda c: first(c, _is_not(0x486, bool(~msr_of(c, 0x487) & CR0_L2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.tme", "IA32_TME_ACTIVATE not locked, or no algorithm of the kind that MCHECK says",
          lambda c: first(c, _tme_wrong(c)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.hkids", "a private KeyID of 2048 or above",
          lambda c: first(c, _is_not(MAX_HKIDS, _hkid_range(c)[1] >= MAX_HKIDS)),
          Answer(S.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, found=True), _I),
    Check("SYS.INIT.cache_blocks", "MSR_WBINVDP and MSR_WBNOINVDP count differently",
          lambda c: first(c, _is_not(0x99, msr_of(c, 0x98) != msr_of(c, 0x99))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.cmrs", "the CMR list is malformed", _cmrs_wrong, Answer(S.TDX_CMR_LIST_INVALID), _I),
    Check("SYS.INIT.smrr", "no SMRR", lambda c: not msr_of(c, 0xFE) >> 11 & 1, Answer(S.TDX_SMRR_NOT_SUPPORTED), _I),
    Check("SYS.INIT.smrr_lock", "SMRR cannot be locked", lambda c: not msr_of(c, 0xFE) >> 14 & 1,
          Answer(S.TDX_SMRR_LOCK_NOT_SUPPORTED), _I),
    Check("SYS.INIT.smrr_locked", "SMRR or SMRR2 is not locked",
          lambda c: first(c, _smrr_unlocked(c)),
          Answer(S.TDX_SMRR_NOT_LOCKED, found=True), _I),
    Check("SYS.INIT.smrr_shape", "SMRR or SMRR2 mask not contiguous, or base not aligned to it",
          lambda c: first(c, _smrr_is(c, S.TDX_INVALID_SMRR_CONFIGURATION)),
          Answer(S.TDX_INVALID_SMRR_CONFIGURATION, found=True), _I),
    Check("SYS.INIT.smrr_cmr", "SMRR or SMRR2 overlaps a CMR",
          lambda c: first(c, _smrr_is(c, S.TDX_SMRR_OVERLAPS_CMR)),
          Answer(S.TDX_SMRR_OVERLAPS_CMR, found=True), _I),
    Check("SYS.INIT.capabilities", "SEAMOPS lacks SEAMDB_GETREF or SEAMDB_REPORT",
          lambda c: capabilities(c) & 0x30 != 0x30, Answer(S.TDX_INCOMPATIBLE_SEAM_CAPABILITIES), _I),
    Check("SYS.INIT.module_hv", "SYS_INFO_TABLE.MODULE_HV is not the build's",
          lambda c: c.table.num("module_hv") != c.build.module_hv, Answer(S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT), _I),
    Check("SYS.INIT.min_update_hv", "SYS_INFO_TABLE.MIN_UPDATE_HV is below the build's",
          lambda c: c.table.num("min_update_hv") < c.build.min_update_hv, Answer(S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT), _I),
    Check("SYS.INIT.no_downgrade", "the build says NO_DOWNGRADE and SYS_INFO_TABLE does not",
          lambda c: bool(c.build.no_downgrade) and not c.table.num("no_downgrade"),
          Answer(S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT), _I),
    Check("SYS.INIT.handoff_pages", "fewer handoff pages than the handoff data need",
          lambda c: (c.table.num("num_handoff_pages") + 1) * PAGE < HANDOFF[min(c.build.module_hv, 1)].size,
          Answer(S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT), _I),
), "TDH.SYS.INIT (leaf 33): conditions in order; any failure leaves SYSINIT_PENDING.")
INIT_ENTROPY: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INIT entropy", (
    Check("SYS.INIT.entropy", "RDRAND for the stack canary fails", lambda c: not _canary(c),
          Answer(S.TDX_RND_NO_ENTROPY), _I),
), "TDH.SYS.INIT: the last condition, behind SEAMOPS[SEAMDB_GETREF].")


def canary_page(c: Call) -> View:
    """The last page of the data region."""
    end = c.table.num("data_rgn_base") + c.table.num("data_rgn_size")
    return View(CANARY_PAGE, c.linear, end - PAGE)


def _canary(c: Call) -> bool:
    carry, value = c.platform.rdrand()
    if carry:
        page = c.linear.read(c.table.base, PAGE)
        c.linear.write(canary_page(c).base, page)
        canary_page(c).set("canary", value)
    return bool(carry)


@implements("SYS.INIT.seamdb", "the newest SEAMDB entry becomes the module's identity; failure is fatal", _I)
def _getref(c: Call) -> Result | None:
    """SYS.INIT.seamdb: SEAMOPS[SEAMDB_GETREF] into global data."""
    c.lp.rax = SeamopsLeaf.SEAMDB_GETREF
    seamops(c.platform, c.lp.id)
    if c.lp.rax != int(SeamopsStatus.SUCCESS):
        raise Ud2("SEAMOPS[SEAMDB_GETREF] failed")
    c.glob.set("seamdb_index", c.lp.r10)
    c.glob.set("seamdb_nonce", b"".join(getattr(c.lp, r).to_bytes(8, "little") for r in ("r11", "r12", "r13", "r14")))
    return None


def compared(c: Call) -> list[tuple[int, int, Cpuid]]:
    """The CPUID leaves that must be the same on every processor."""
    return [row for row in CPUID_SAME if later(c) or row[0] not in ONLY_1_5_05]


def masked(c: Call, number: int, subleaf: int, mask: Cpuid) -> bytes:
    """What CPUID says under a mask, as it is kept in global data."""
    return b"".join((v & m).to_bytes(4, "little") for v, m in zip(leaf_cpuid(c, number, subleaf), mask, strict=True))


@implements("SYS.INIT.effect", "platform sampled, counters zero, handoff parameters copied; state = SYSINIT_DONE", _I)
def _init(c: Call) -> Result:
    """SYS.INIT.effect.  The calling processor is not initialised by it: it still needs TDH.SYS.LP.INIT."""
    g, table = c.glob, mcheck(c)
    for i, address in enumerate(INIT_MSRS):
        g.set(f"msr_sample[{i}]", msr_of(c, address))
    sample = b"".join(masked(c, *row) for row in compared(c))
    g.set("cpuid_sample", sample.ljust(16 * MAX_CPUID_SAMPLES, b"\0"))
    g.set("seam_capabilities", capabilities(c))
    g.set("num_lps", table.num("tot_num_lps"))
    g.set("num_pkgs", table.num("tot_num_sockets"))
    for name in ("num_init_lps", "num_init_pkgs", "pkg_config_bitmap"):
        g.set(name, 0)
    for name in ("module_hv", "min_update_hv", "no_downgrade"):
        g.set(name, c.table.num(name))
    seamrr = c.platform.seamrr(c.lp)
    assert seamrr is not None
    g.set("seamrr_base", seamrr.base)
    g.set("seamrr_size", seamrr.size)
    low, high = _hkid_range(c)
    g.set("private_hkid_min", low)
    g.set("private_hkid_max", high)
    g.set("sys_state", SysState.SYSINIT_DONE)
    return SUCCESS


leaf(33, "TDH.SYS.INIT", "initialise the module, once", stages=(INIT, _getref, INIT_ENTROPY), effects=(_init,),
     outputs=("rcx", "rdx", "r8", "r9", "r10"), before_ready=True, versions=((1, VERSION_1_INIT),), inputs="RCX 0")

# --- TDH.SYS.LP.INIT (35) ---------------------------------------------------------------------------------------


def _differs(c: Call, addresses: tuple[int, ...]) -> int | None:
    for address in addresses:
        if msr_of(c, address) != c.glob.num(f"msr_sample[{INIT_MSRS.index(address)}]"):
            return address
    return None


def _cpuid_differs(c: Call) -> bool:
    sample = c.glob.raw("cpuid_sample")
    for i, (number, subleaf, mask) in enumerate(compared(c)):
        now = masked(c, number, subleaf, mask)
        if now != sample[len(now) * i : len(now) * (i + 1)]:
            return _cpuid_out(c, number, subleaf, mask)
    return False


def _seed(c: Call) -> bool:
    carry, value = c.platform.rdrand()
    if carry:
        c.local.set("stepping_seed", value)
    return bool(carry)


FIRST_MSRS = (0xCF, 0x10A, 0xBC, 0xBD)


def _other_msrs(c: Call) -> tuple[int, ...]:
    """The rest, SMRR2 only where it is judged."""
    second = () if len(smrrs(c)) > 1 else (SMRR2_BASE, SMRR2_MASK)
    return tuple(m for m in INIT_MSRS if m not in (*FIRST_MSRS, 0x3B, *second))


_L = ref("tdh_sys_lp_init.c")
LP_INIT: CheckTable[Call, Answer] = CheckTable("TDH.SYS.LP.INIT", (
    Check("SYS.LP.INIT.lock", "GLOBAL_LOCK cannot be taken shared", global_shared, Answer(S.TDX_SYS_BUSY), _L),
    Check("SYS.LP.INIT.state", "state is not SYSINIT_DONE", lambda c: c.state != SysState.SYSINIT_DONE,
          Answer(S.TDX_SYS_LP_INIT_NOT_PENDING), _L),
    Check("SYS.LP.INIT.done", "this processor is initialised already", lambda c: c.local.num("initialised") != 0,
          Answer(S.TDX_SYS_LP_INIT_DONE), _L),
    Check("SYS.LP.INIT.entropy", "RDRAND for the stepping defence fails", lambda c: not _seed(c),
          Answer(S.TDX_RND_NO_ENTROPY), _L),
), "TDH.SYS.LP.INIT (leaf 35): the first conditions; then a global INVEPT.")
LP_INIT_THEN: CheckTable[Call, Answer] = CheckTable("TDH.SYS.LP.INIT platform", (
    Check("SYS.LP.INIT.capabilities", "SEAMOPS capabilities differ from TDH.SYS.INIT's",
          lambda c: capabilities(c) != c.glob.num("seam_capabilities"), Answer(S.TDX_INCOMPATIBLE_SEAM_CAPABILITIES),
          _L),
    Check("SYS.LP.INIT.msr", "core, architecture, package or xAPIC MSR differs from TDH.SYS.INIT's",
          lambda c: first(c, _differs(c, FIRST_MSRS)), Answer(S.TDX_INCONSISTENT_MSR, found=True), _L),
    Check("SYS.LP.INIT.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", _limit_cpuid,
          Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET),
          _L),
    Check("SYS.LP.INIT.cpuid", "CPUID differs from TDH.SYS.INIT's", _cpuid_differs,
          Answer(S.TDX_INCONSISTENT_CPUID_FIELD), _L),
    Check("SYS.LP.INIT.package", "package number 8 or above",
          lambda c: first(c, c.package if c.package >= MAX_PKGS else None), Answer(S.TDX_INVALID_PKG_ID, found=True),
          _L),
    Check("SYS.LP.INIT.tsc_adjust", "IA32_TSC_ADJUST differs", lambda c: first(c, _differs(c, (0x3B,))),
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _L),
    Check("SYS.LP.INIT.other_msr", "MTRRCAP, SMRR, VMX, PERF, TME, KeyID or cache MSR differs",
          lambda c: first(c, _differs(c, _other_msrs(c))),
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _L),
), "TDH.SYS.LP.INIT: this processor against what TDH.SYS.INIT saw, in order.")


@implements("SYS.LP.INIT.invept", "a global INVEPT: mappings of the module before must not survive an update", _L)
def _lp_invept(c: Call) -> Result | None:
    """SYS.LP.INIT.invept: cached translations are not modelled, so listeners are all who notice."""
    if c.platform.listeners:
        c.platform.emit(Step(c.lp.id, "TDX module", "INVEPT", "global"))
    return None


@implements("SYS.LP.INIT.effect", "host state sampled, processor initialised, NUM_INIT_LPS + 1", _L)
def _lp_init(c: Call) -> Result:
    """SYS.LP.INIT.effect."""
    for i, name in enumerate(HOST_FIELDS):
        value = vmread(c.platform, c.lp.id, BY_NAME[name].encoding)
        if not isinstance(value, int):
            raise Ud2(f"VMREAD {name}: {value}")
        c.local.set(f"host_state[{i}]", value)
    c.local.set("initialised", 1)
    c.glob.set("num_init_lps", c.glob.num("num_init_lps") + 1)
    return SUCCESS


leaf(35, "TDH.SYS.LP.INIT", "initialise the module on one processor", stages=(LP_INIT, _lp_invept, LP_INIT_THEN),
     effects=(_lp_init,),
     outputs=("rcx", "rdx", "r8"), before_ready=True, inputs="none")

# --- TDH.SYS.CONFIG (45) ----------------------------------------------------------------------------------------

_C = ref("tdh_sys_config.c")
CONFIG: CheckTable[Call, Answer] = CheckTable("TDH.SYS.CONFIG", (
    Check("SYS.CONFIG.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _C),
    Check("SYS.CONFIG.state", "state is not SYSINIT_DONE", lambda c: c.state != SysState.SYSINIT_DONE,
          Answer(S.TDX_SYS_CONFIG_NOT_PENDING), _C),
    Check("SYS.CONFIG.lps", "a processor of TOT_NUM_LPS is not initialised",
          lambda c: c.glob.num("num_init_lps") < c.glob.num("num_lps"), Answer(S.TDX_SYS_CONFIG_NOT_PENDING), _C),
    Check("SYS.CONFIG.rcx", "RCX not 512-byte aligned, too wide, inside SEAMRR, or with a private KeyID",
          lambda c: not c.is_shared(c.rcx, 512), Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _C),
    Check("SYS.CONFIG.rdx", "RDX is 0 or above 64", lambda c: not 1 <= c.rdx <= MAX_TDMRS,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _C),
    Check("SYS.CONFIG.r8", "R8 bits 63:16 are not 0, or the KeyID is not private",
          lambda c: c.r8 >> 16 != 0 or not c.is_private_hkid(c.r8), Answer(S.TDX_OPERAND_INVALID, Operand.R8), _C),
), "TDH.SYS.CONFIG (leaf 45): operand conditions in order; then each TDMR is judged by SYS.CONFIG.TDMR.")


@implements("SYS.CONFIG.hkid", "the KeyID is reserved before TDMRs are judged: a failed call burns it", _C)
def _config_hkid(c: Call) -> Result | None:
    """SYS.CONFIG.hkid."""
    c.glob.set(f"kot[{c.r8}].state", Hkid.RESERVED)
    c.glob.set("hkid", c.r8)
    return None


class TdmrCheck:
    """One TDMR_INFO among those before it."""

    __slots__ = ("before", "call", "cmrs", "found", "i", "info")

    def __init__(self, call: Call, i: int, info: dict[str, Any], before: list[dict[str, Any]],
                 cmrs: list[Range]) -> None:
        self.call = call
        self.i = i
        self.info = info
        self.before = before
        self.cmrs = cmrs
        self.found = 0

    def stops(self, details: int | None) -> bool:
        """Remember the details."""
        if details is None:
            return False
        self.found = details
        return True

    def is_wide(self, base: int, size: int) -> bool:
        """Beyond max PA, or KeyID bits."""
        limit = 1 << self.call.platform.config.maxpa
        split = self.call.platform.split
        return base + size > limit or bool(split(base)[0] or split(base + size - 1)[0])

    def reserved(self) -> list[tuple[int, int]]:
        """(offset, size) of the reserved areas, up to the first null one."""
        return [(a["offset"], a["size"]) for a in self.info["reserved_areas"] if a["size"]]

    def usable(self) -> list[Range]:
        """Parts of the TDMR that are not reserved."""
        return usable_parts(self.info)

    def pamts(self) -> list[Range]:
        """PAMT areas 4K, 2M, 1G."""
        return [Range(self.info[f"pamt_{n}_base"], self.info[f"pamt_{n}_size"]) for n in ("4k", "2m", "1g")]


def usable_parts(info: dict[str, Any]) -> list[Range]:
    """Parts of a TDMR that are not reserved."""
    parts, at = [], info["base"]
    for area in info["reserved_areas"]:
        if not area["size"]:
            break
        if info["base"] + area["offset"] > at:
            parts.append(Range(at, info["base"] + area["offset"] - at))
        at = info["base"] + area["offset"] + area["size"]
    if at < info["base"] + info["size"]:
        parts.append(Range(at, info["base"] + info["size"] - at))
    return parts


def covered(cmrs: list[Range], part: Range) -> bool:
    """Whether a range lies inside the CMRs, adjacent ones counting as one."""
    start = end = 0
    for cmr in cmrs:
        if cmr.base != end:
            start = cmr.base
        end = cmr.end
        if start <= part.base and part.end <= end:
            return True
    return False


PAMT_LEVELS = ((12, "4k"), (21, "2m"), (30, "1g"))


def _reserved(c: TdmrCheck) -> tuple[Status, int] | None:
    """Area by area, all rules for one before the next: the first fault found, and which area it is.

    A null area must be followed by null ones; one that is not is the null area's fault.
    """
    areas, end = c.info["reserved_areas"], 0
    for j, area in enumerate(areas):
        offset, size = area["offset"], area["size"]
        if size == 0:
            if j + 1 < len(areas) and areas[j + 1]["size"]:
                return S.TDX_NON_ORDERED_RESERVED_IN_TDMR, j
            continue
        if offset + size >= 1 << 64:
            return S.TDX_INVALID_RESERVED_IN_TDMR, j
        if j and offset < end:
            return S.TDX_NON_ORDERED_RESERVED_IN_TDMR, j
        if (offset | size) % PAGE or offset + size > c.info["size"]:
            return S.TDX_INVALID_RESERVED_IN_TDMR, j
        end = offset + size
    return None


def _reserved_is(c: TdmrCheck, status: Status) -> int | None:
    found = _reserved(c)
    return pack(c.i, found[1]) if found is not None and found[0] is status else None


def _pamt_shape(c: TdmrCheck) -> int | None:
    for level in (2, 1, 0):
        shift, name = PAMT_LEVELS[level]
        base, size = c.info[f"pamt_{name}_base"], c.info[f"pamt_{name}_size"]
        small = size < (c.info["size"] >> shift) * PAMT_ENTRY.size
        if (base | size) % PAGE or c.is_wide(base, size) or small:
            return pack(c.i, level)
    return None


def _pamt_overlap(c: TdmrCheck) -> int | None:
    """PAMT against PAMTs of earlier TDMRs, against its own, then against usable memory, each also the other way."""
    mine = c.pamts()
    others = [TdmrCheck(c.call, j, info, [], c.cmrs) for j, info in enumerate(c.before)]
    for other in others:
        for level, area in enumerate(mine):
            if any(area.overlaps(*pamt) for pamt in other.pamts()):
                return pack(c.i, level, other.i)
    for level, area in enumerate(mine):
        if any(area.overlaps(*pamt) for pamt in mine[level + 1 :]):
            return pack(c.i, level, c.i)
    for other in (*others, c):
        for level, area in enumerate(mine):
            if any(area.overlaps(*part) for part in other.usable()):
                return pack(c.i, level, other.i)
        for level, area in enumerate(other.pamts()):
            if any(area.overlaps(*part) for part in c.usable()):
                return pack(other.i, level, c.i)
    return None


def _pamt_outside(c: TdmrCheck) -> int | None:
    pamts = c.pamts()
    return next((pack(c.i, level) for level in (2, 1, 0) if not covered(c.cmrs, pamts[level])), None)


def _tdmr_shape(c: TdmrCheck) -> bool:
    base, size = c.info["base"], c.info["size"]
    return base % GIB != 0 or size % GIB != 0 or size == 0 or c.is_wide(base, size)


SYS_CONFIG_TDMR: CheckTable[TdmrCheck, Answer] = CheckTable("TDH.SYS.CONFIG TDMR", (
    Check("SYS.CONFIG.TDMR.overflow", "base + size overflows",
          lambda c: c.info["base"] + c.info["size"] >= 1 << 64 and c.stops(c.i), Answer(S.TDX_INVALID_TDMR,
          found=True), _C),
    Check("SYS.CONFIG.TDMR.order", "not ascending, or overlaps the one before",
          lambda c: bool(c.before) and c.info["base"] < c.before[-1]["base"] + c.before[-1]["size"] and c.stops(c.i),
          Answer(S.TDX_NON_ORDERED_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.shape", "not 1 GiB multiples, empty, beyond max PA, or KeyID bits",
          lambda c: _tdmr_shape(c) and c.stops(c.i), Answer(S.TDX_INVALID_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.reserved_order", "reserved areas: one behind a null one, not ascending, or overlapping",
          lambda c: c.stops(_reserved_is(c, S.TDX_NON_ORDERED_RESERVED_IN_TDMR)),
          Answer(S.TDX_NON_ORDERED_RESERVED_IN_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.reserved", "a reserved area is not 4 KiB aligned or leaves the TDMR (area by area, with the "
          "row before)", lambda c: c.stops(_reserved_is(c, S.TDX_INVALID_RESERVED_IN_TDMR)),
          Answer(S.TDX_INVALID_RESERVED_IN_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.pamt", "a PAMT area is not aligned, beyond max PA, or too small",
          lambda c: c.stops(_pamt_shape(c)), Answer(S.TDX_INVALID_PAMT, found=True), _C),
    Check("SYS.CONFIG.TDMR.pamt_overlap", "a PAMT area overlaps another, or TDMR memory that is not reserved",
          lambda c: c.stops(_pamt_overlap(c)), Answer(S.TDX_PAMT_OVERLAP, found=True), _C),
    Check("SYS.CONFIG.TDMR.pamt_outside", "a PAMT area is not inside the CMRs", lambda c: c.stops(_pamt_outside(c)),
          Answer(S.TDX_PAMT_OUTSIDE_CMRS, found=True), _C),
    Check("SYS.CONFIG.TDMR.outside", "TDMR memory that is not reserved is not inside the CMRs",
          lambda c: any(not covered(c.cmrs, part) for part in c.usable()) and c.stops(c.i),
          Answer(S.TDX_TDMR_OUTSIDE_CMRS, found=True), _C),
), "Each TDMR of TDH.SYS.CONFIG, in order; details: TDMR, reserved area or PAMT level (4K 0, 2M 1, 1G 2).")


@implements("SYS.CONFIG.pointers", "each TDMR_INFO pointer is 512-byte aligned and shared; a TDMR that passes is "
            "stored at once, and stays in the table when a later one fails", _C)
def _config_tdmrs(c: Call) -> Result | None:
    """SYS.CONFIG.pointers: read and judge every TDMR_INFO; the copy in global data is what is used afterwards."""
    infos: list[dict[str, Any]] = []
    cmrs = _cmrs(c)
    for i in range(c.rdx):
        pa = c.port.read_int(c.rcx + 8 * i)
        if not c.is_shared(pa, 512):
            return Result(S.TDX_OPERAND_INVALID, int(Operand.RCX))
        data = c.port.read(pa, TDMR_INFO.size)
        c.glob.set(f"tdmr_info[{i}]", data)
        info = dict(TDMR_INFO.decode(data))
        check = TdmrCheck(c, i, info, infos, cmrs)
        row = SYS_CONFIG_TDMR.decide(check)
        if row is not None:
            return Result(row.result.status, check.found)
        c.glob.set(f"tdmrs[{i}]", accepted(info))
        infos.append(info)
    return None


def accepted(info: dict[str, Any]) -> bytes:
    """The table entry of a TDMR that passed; areas behind the first null one are not kept."""
    areas = []
    for area in info["reserved_areas"]:
        areas.append({"offset": area["offset"], "size": area["size"]})
        if not area["size"]:
            break
    used = sum(1 for area in areas if area["size"])
    areas += [{"offset": 0, "size": 0}] * (MAX_RESERVED - len(areas))
    return TDMR_ENTRY.encode({
        "base": info["base"], "size": info["size"], "next_to_init": info["base"],
        "pamt_1g_base": info["pamt_1g_base"], "pamt_2m_base": info["pamt_2m_base"],
        "pamt_4k_base": info["pamt_4k_base"], "pamt_blocks": info["size"] // GIB, "num_reserved": used,
        "reserved_areas": areas,
    })


@implements("SYS.CONFIG.effect", "NUM_TDMRS stored, PKG_CONFIG_BITMAP = 0; state = SYSCONFIG_DONE", _C)
def _config(c: Call) -> Result:
    """SYS.CONFIG.effect."""
    c.glob.set("num_tdmrs", c.rdx)
    c.glob.set("cpuid_complete", 1)
    c.glob.set("pkg_config_bitmap", 0)
    c.glob.set("sys_state", SysState.SYSCONFIG_DONE)
    return SUCCESS


leaf(45, "TDH.SYS.CONFIG", "TDMRs, PAMT and the global KeyID", stages=(CONFIG,),
     effects=(_config_hkid, _config_tdmrs, _config), before_ready=True,
     inputs="RCX array of TDMR_INFO addresses, RDX count, R8 global private KeyID")

# --- TDH.SYS.KEY.CONFIG (31) ------------------------------------------------------------------------------------

_K = ref("tdh_sys_key_config.c")
KEY_CONFIG: CheckTable[Call, Answer] = CheckTable("TDH.SYS.KEY.CONFIG", (
    Check("SYS.KEY.CONFIG.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY),
          _K),
    Check("SYS.KEY.CONFIG.state", "state is not SYSCONFIG_DONE", lambda c: c.state != SysState.SYSCONFIG_DONE,
          Answer(S.TDX_SYS_KEY_CONFIG_NOT_PENDING), _K),
    Check("SYS.KEY.CONFIG.configured", "this package has the key already",
          lambda c: bool(c.glob.num("pkg_config_bitmap") >> c.package & 1), Answer(S.TDX_KEY_CONFIGURED), _K),
), "TDH.SYS.KEY.CONFIG (leaf 31): conditions in order.")

KEYGEN: CheckTable[Call, Answer] = CheckTable("KEYGEN", (
    Check("KEYGEN.busy", "PCONFIG: the key table is busy", lambda c: c.found == PconfigStatus.DEVICE_BUSY,
          Answer(S.TDX_OPERAND_BUSY, Operand.KET), _K),
    Check("KEYGEN.entropy", "PCONFIG: no entropy", lambda c: c.found == PconfigStatus.ENTROPY_ERROR,
          Answer(S.TDX_KEY_GENERATION_FAILED), _K),
), "What PCONFIG answered when a random key was asked for; anything else is fatal.")


def random_key(c: Call, hkid: int) -> Result | None:
    """PCONFIG of a random key for a KeyID on this package: ``None`` is success."""
    c.lp.rax = c.lp.rbx = 0
    program = MKTME_KEY_PROGRAM.encode({"keyid": hkid, "keyid_ctrl": RANDOM | 1 << 8})
    answer: Fault | int | None = c.platform.take_injected("key_table")  # what a scenario makes PCONFIG answer
    if answer is None:
        answer = pconfig(c.platform, c.lp.id, program, busy=c.platform.take_injected("key_table_busy") is not None)
    if isinstance(answer, Fault):
        raise Ud2(f"PCONFIG: {answer}")
    c.found = int(answer)
    row = KEYGEN.decide(c)
    if row is None and answer != PconfigStatus.SUCCESS:
        raise Ud2(f"PCONFIG: status {int(answer)}")
    return None if row is None else row.result.result(c)


@implements("SYS.KEY.CONFIG.effect", "random key on this package; on the last package state = SYS_READY", _K)
def _key_config(c: Call) -> Result:
    """SYS.KEY.CONFIG.effect.  A failed PCONFIG leaves this package's bit clear: call again."""
    failed = random_key(c, c.glob.num("hkid"))
    if failed is not None:
        return failed
    c.glob.set("pkg_config_bitmap", c.glob.num("pkg_config_bitmap") | 1 << c.package)
    done = c.glob.num("num_init_pkgs") + 1
    c.glob.set("num_init_pkgs", done)
    if done == c.glob.num("num_pkgs"):
        c.glob.set("sys_state", SysState.SYS_READY)
    return SUCCESS


leaf(31, "TDH.SYS.KEY.CONFIG", "the global key on one package", stages=(KEY_CONFIG,), effects=(_key_config,),
     before_ready=True, inputs="none")

# --- TDH.SYS.TDMR.INIT (36) -------------------------------------------------------------------------------------

INIT_STEP = 1024
"""4 KiB pages that one TDH.SYS.TDMR.INIT initialises."""
_T = ref("tdh_sys_tdmr_init.c")


def _tdmr(c: Call) -> int | None:
    return next((i for i in range(c.glob.num("num_tdmrs")) if c.glob.num(f"tdmrs[{i}].base") == c.rcx), None)


def _tdmr_done(c: Call) -> bool:
    i = _tdmr(c)
    return c.glob.num(f"tdmrs[{i}].next_to_init") >= c.glob.num(f"tdmrs[{i}].base") + c.glob.num(f"tdmrs[{i}].size")


TDMR_INIT: CheckTable[Call, Answer] = CheckTable("TDH.SYS.TDMR.INIT", (
    Check("SYS.TDMR.INIT.rcx", "RCX not 1 GiB aligned, too wide, or with KeyID bits",
          lambda c: c.rcx % GIB != 0 or c.rcx >> c.platform.config.maxpa != 0 or c.platform.split(c.rcx)[0] != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _T),
    Check("SYS.TDMR.INIT.unknown", "no TDMR has this base", lambda c: _tdmr(c) is None,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _T),
    Check("SYS.TDMR.INIT.mutex", "another processor initialises this TDMR",
          lambda c: not c.lock("m", c.glob.address(f"tdmrs[{_tdmr(c)}].mutex")),
          Answer(S.TDX_OPERAND_BUSY, Operand.RCX), _T),
    Check("SYS.TDMR.INIT.complete", "the TDMR is initialised to its end", _tdmr_done,
          Answer(S.TDX_TDMR_ALREADY_INITIALIZED), _T),
), "TDH.SYS.TDMR.INIT (leaf 36): conditions in order.")


@implements("SYS.TDMR.INIT.effect", "1024 PAMT entries and those above them; RDX = next address, down to 1 GiB", _T)
def _tdmr_init(c: Call) -> Result:
    """SYS.TDMR.INIT.effect: pages are usable below the rounded-down mark only."""
    i = _tdmr(c)
    entry = TDMR_ENTRY.decode(c.glob.raw(f"tdmrs[{i}]"))
    at, hkid = entry.next_to_init, c.glob.num("hkid")
    end = at + INIT_STEP * PAGE
    nda = PAMT_ENTRY.encode({"type": PageType.NDA})
    rsvd = PAMT_ENTRY.encode({"type": PageType.RSVD})
    out = bytearray(nda * INIT_STEP)
    for area in entry.reserved_areas[: entry.num_reserved]:
        low = max(at, entry.base + area.offset)
        high = min(end, entry.base + area.offset + area.size)
        for page in range(low, high, PAGE):
            where = (page - at >> 12) * len(rsvd)
            out[where : where + len(rsvd)] = rsvd
    for shift, name, data in ((12, "4k", bytes(out)), (21, "2m", nda * 2), (30, "1g", nda)):
        index = at - entry.base >> shift
        where = entry[f"pamt_{name}_base"] + index * len(nda)
        c.port.write(c.with_hkid(where, hkid), data)
    c.glob.set(f"tdmrs[{i}].next_to_init", end)
    c.out(rdx=end & ~(GIB - 1))
    return SUCCESS


leaf(36, "TDH.SYS.TDMR.INIT", "initialise PAMT, 4 MiB of a TDMR at a time", stages=(TDMR_INIT,), effects=(_tdmr_init,),
     outputs=("rdx",), inputs="RCX TDMR base")

# --- TDH.SYS.INFO (32) and TDH.SYS.LP.SHUTDOWN (44) -------------------------------------------------------------

_N = ref("tdh_sys_info.c")
INFO_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INFO", (
    Check("SYS.INFO.lp", "this processor is not initialised", lambda c: not c.local.num("initialised"),
          Answer(S.TDX_SYS_LP_INIT_NOT_DONE), _N),
    Check("SYS.INFO.rcx", "RCX not 1 KiB aligned or not a shared address", lambda c: not c.is_shared(c.rcx, 1024),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _N),
    Check("SYS.INFO.rdx", "RDX below 1024", lambda c: c.rdx < TDSYSINFO.size, Answer(S.TDX_OPERAND_INVALID,
          Operand.RDX), _N),
), "TDH.SYS.INFO (leaf 32): conditions in order; the buffer is zeroed behind these.")
INFO_THEN: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INFO CMRs", (
    Check("SYS.INFO.r8", "R8 not 512-byte aligned or not a shared address", lambda c: not c.is_shared(c.r8, 512),
          Answer(S.TDX_OPERAND_INVALID, Operand.R8), _N),
    Check("SYS.INFO.r9", "R9 below 32", lambda c: c.r9 < MAX_CMRS, Answer(S.TDX_OPERAND_INVALID, Operand.R9), _N),
), "TDH.SYS.INFO: conditions on the CMR array, when the first buffer is zeroed already.")


@implements("SYS.INFO.zero", "the caller's buffer is zeroed before R8 and R9 are judged", _N)
def _info_zero(c: Call) -> Result | None:
    """SYS.INFO.zero."""
    c.port.write(c.rcx, bytes(TDSYSINFO.size))
    return None


def platform_fms(c: Call) -> int:
    """Family, model, stepping of package 0, with the lowest stepping of all packages."""
    table = mcheck(c)
    all_of = [table.num(f"socket_cpuid_table[{i}]") for i in range(c.glob.num("num_pkgs"))]
    return all_of[0] & ~0xF | min(fms & 0xF for fms in all_of)


MAX_CPUID_CONFIGS = 37
_NO_CONFIG = {"leaf": 0, "subleaf": 0, "values": [0] * 4}


def has_lass(c: Call) -> bool:
    """Linear address space separation: from 1.5.05 on, where CPUID.7.1:EAX[6] says so."""
    return later(c) and bool(cpuid(c.platform, c.lp, 7, 1).eax >> 6 & 1)


def attributes_fixed0(c: Call) -> int:
    """ATTRIBUTES bits that may be 1 on this platform."""
    return ATTRIBUTES_FIXED0 | (ATTRIBUTES_LASS if has_lass(c) else 0)


def xfam_fixed0(c: Call) -> int:
    """XFAM bits that may be 1: those that the processor has in XCR0 and IA32_XSS (CPUID leaf 0DH)."""
    main, more = cpuid(c.platform, c.lp, 0xD, 0), cpuid(c.platform, c.lp, 0xD, 1)
    return XFAM_FIXED0 & (main.eax | more.ecx)


def config_values(c: Call, row: Configurable) -> Cpuid:
    """Bits of a CPUID leaf that a TD's configuration may set: given ones, and those of the processor it may clear."""
    native = leaf_cpuid(c, row.leaf, row.subleaf)
    return Cpuid(*(d | a & n for d, a, n in zip(row.direct, row.allow, native, strict=True)))


@implements("SYS.INFO.effect", "TDSYSINFO_STRUCT and 32 CMRs to the caller; RDX = 1024, R9 = 32", _N)
def _info(c: Call) -> Result:
    """SYS.INFO.effect."""
    b, configs = c.build, configurable(later(c))
    c.port.write(c.rcx, TDSYSINFO.encode({
        "vendor_id": 0x8086, "build_date": b.build_date, "build_num": b.build_num, "minor_version": b.minor,
        "major_version": b.major, "sys_rd": 1, "max_tdmrs": MAX_TDMRS, "max_reserved_per_tdmr": MAX_RESERVED,
        "pamt_entry_size": PAMT_ENTRY.size, "tdcs_base_size": TDCS_PAGES * PAGE, "tdvps_base_size": TDVPS_PAGES * PAGE,
        "attributes_fixed0": attributes_fixed0(c), "attributes_fixed1": ATTRIBUTES_FIXED1,
        "xfam_fixed0": xfam_fixed0(c), "xfam_fixed1": XFAM_FIXED1, "num_cpuid_config": len(configs),
        "cpuid_configs": [{"leaf": row.leaf, "subleaf": row.subleaf, "values": list(config_values(c, row))}
                          for row in configs] + [_NO_CONFIG] * (MAX_CPUID_CONFIGS - len(configs)),
    }))
    c.port.write(c.r8, c.linear.read(c.table.base + P_SYS_INFO_TABLE.offset_of("cmr"), 16 * MAX_CMRS))
    c.out(rdx=TDSYSINFO.size, r9=MAX_CMRS)
    return SUCCESS


leaf(32, "TDH.SYS.INFO", "what the module is", stages=(INFO_FIRST, _info_zero, INFO_THEN), effects=(_info,),
     outputs=("rdx", "r9"), before_ready=True, inputs="RCX buffer, RDX size, R8 CMR array, R9 entries")
leaf(44, "TDH.SYS.LP.SHUTDOWN", "deprecated: always succeeds, does nothing", stages=(), effects=(ok,),
     before_ready=True,
     inputs="none")

# --- TDH.SYS.SHUTDOWN (52) --------------------------------------------------------------------------------------

AVOID_COMPAT_SENSITIVE = 1 << 16
"""RCX bit 16 of TDH.SYS.SHUTDOWN in modules with UPDATE_COMPATIBILITY."""
_H = ref("tdh_sys_shutdown.c")


def can_avoid(c: Call) -> bool:
    """TDX_FEATURES0.UPDATE_COMPATIBILITY."""
    return bool(c.build.tdx_features0 & UPDATE_COMPATIBILITY)


def handoff_version(c: Call) -> int:
    """The handoff version in RCX: all 64 bits, but for bit 16 where the module knows the flag."""
    return c.rcx & ~AVOID_COMPAT_SENSITIVE if can_avoid(c) else c.rcx


SHUTDOWN: CheckTable[Call, Answer] = CheckTable("TDH.SYS.SHUTDOWN", (
    Check("SYS.SHUTDOWN.old", "RCX below MIN_UPDATE_HV", lambda c: handoff_version(c) < c.glob.num("min_update_hv"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _H),
    Check("SYS.SHUTDOWN.new", "RCX above MODULE_HV, compared in 64 bits (an unknown flag looks like a large version)",
          lambda c: handoff_version(c) > c.glob.num("module_hv"), Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _H),
    Check("SYS.SHUTDOWN.no_downgrade", "NO_DOWNGRADE, and RCX is not MODULE_HV",
          lambda c: bool(c.glob.num("no_downgrade")) and handoff_version(c) != c.glob.num("module_hv"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _H),
    Check("SYS.SHUTDOWN.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _H),
    Check("SYS.SHUTDOWN.sensitive", "RCX bit 16, and a TD is in an update-sensitive state",
          lambda c: can_avoid(c) and bool(c.rcx & AVOID_COMPAT_SENSITIVE) and c.glob.num("num_sensitive") > 0,
          Answer(S.TDX_UPDATE_COMPAT_SENSITIVE), "LNX series v10; BASE table 4.4", CHOSEN),
), "TDH.SYS.SHUTDOWN (leaf 52): conditions in order; the handoff version is judged before any lock.")
SHUTDOWN_BUSY: CheckTable[Call, Answer] = CheckTable("TDH.SYS.SHUTDOWN busy", (
    Check("SYS.SHUTDOWN.busy", "another processor is in the module, or in a TD (state back to SYS_READY)",
          lambda c: sum(c.local_of(i).num("busy") for i in range(c.num_addressable)) > 1, Answer(S.TDX_SYS_BUSY), _H),
), "TDH.SYS.SHUTDOWN: asked after the state was set; entering processors set busy first, then look at the state.")


@implements("SYS.SHUTDOWN.state", "state = SYS_SHUTDOWN, then a fence", _H)
def _shutdown_state(c: Call) -> Result | None:
    """SYS.SHUTDOWN.state.  Another processor may be told TDX_SYS_SHUTDOWN from here on, even if this call fails."""
    if c.state != SysState.SYS_READY:
        raise Ud2("TDH.SYS.SHUTDOWN outside SYS_READY")
    c.glob.set("sys_state", SysState.SYS_SHUTDOWN)
    return None


def _shutdown_busy(c: Call) -> Result | None:
    row = SHUTDOWN_BUSY.decide(c)
    if row is None:
        return None
    c.glob.set("sys_state", SysState.SYS_READY)
    return row.result.result(c)


@implements("SYS.SHUTDOWN.handoff", "handoff data at the start of the data region: valid, version, size, fields", _H)
def _shutdown_handoff(c: Call) -> Result:
    """SYS.SHUTDOWN.handoff."""
    hv = handoff_version(c)
    layout = HANDOFF[hv]
    g, at = c.glob, c.handoff.base
    for name in layout.fields[1:]:
        data = g.raw(name.name)
        c.linear.write(at + layout.offset_of(name.name), data)
    c.handoff.set("hv", hv)
    c.handoff.set("size", layout.size - c.handoff.layout.size)
    c.handoff.set("valid", 1)
    return SUCCESS


leaf(52, "TDH.SYS.SHUTDOWN", "stop for an update: write handoff data", stages=(SHUTDOWN,),
     effects=(_shutdown_state, _shutdown_busy, _shutdown_handoff), inputs="RCX handoff version (bit 16: see text)")

# --- TDH.SYS.UPDATE (53) ----------------------------------------------------------------------------------------

_U = ref("tdh_sys_update.c")
UPDATE: CheckTable[Call, Answer] = CheckTable("TDH.SYS.UPDATE", (
    Check("SYS.UPDATE.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _U),
    Check("SYS.UPDATE.state", "state is not SYSINIT_DONE", lambda c: c.state != SysState.SYSINIT_DONE,
          Answer(S.TDX_SYS_STATE_INCORRECT), _U),
    Check("SYS.UPDATE.lps", "a processor of TOT_NUM_LPS is not initialised",
          lambda c: c.glob.num("num_init_lps") < c.glob.num("num_lps"), Answer(S.TDX_SYS_STATE_INCORRECT), _U),
    Check("SYS.UPDATE.valid", "no valid handoff data", lambda c: c.handoff.num("valid") == 0,
          Answer(S.TDX_SYS_INVALID_HANDOFF), _U),
    Check("SYS.UPDATE.old", "handoff version below MIN_UPDATE_HV",
          lambda c: c.handoff.num("hv") < c.glob.num("min_update_hv"), Answer(S.TDX_SYS_INVALID_HANDOFF), _U),
    Check("SYS.UPDATE.new", "handoff version above MODULE_HV", lambda c: c.handoff.num("hv") > c.glob.num("module_hv"),
          Answer(S.TDX_SYS_INVALID_HANDOFF), _U),
), "TDH.SYS.UPDATE (leaf 53): conditions in order; a refused call changed nothing, the handoff data stay valid.")


@implements("SYS.UPDATE.size", "a size that cannot be is fatal, not an error status", _U)
def _update_size(c: Call) -> Result | None:
    """SYS.UPDATE.size."""
    size, room = c.handoff.num("size"), (c.table.num("num_handoff_pages") + 1) * PAGE - c.handoff.layout.size
    if size == 0 or size > room or size < HANDOFF[c.handoff.num("hv")].size - c.handoff.layout.size:
        raise Ud2(f"TDH.SYS.UPDATE: handoff size {size}")
    return None


@implements("SYS.UPDATE.effect", "fields copied back, CPUID table completed, header cleared; state = SYS_READY", _U)
def _update(c: Call) -> Result:
    """SYS.UPDATE.effect.  NUM_INIT_PKGS stays 0 and SYSCONFIG_DONE never occurs; the header's version stays."""
    layout, at = HANDOFF[c.handoff.num("hv")], c.handoff.base
    for name in layout.fields[1:]:
        c.glob.set(name.name, c.linear.read(at + layout.offset_of(name.name), name.type.size))
    c.glob.set("cpuid_complete", 1)
    c.handoff.set("valid", 0)
    c.handoff.set("size", 0)
    c.glob.set("sys_state", SysState.SYS_READY)
    return SUCCESS


leaf(53, "TDH.SYS.UPDATE", "take over from the module before", stages=(UPDATE,), effects=(_update_size, _update),
     before_ready=True, inputs="none")

# --- TDH.SYS.DISABLE (69) ---------------------------------------------------------------------------------------

_Z = "LNX series \"Fuller TDX kexec support\""
SYS_DISABLE: CheckTable[Call, Answer] = CheckTable("TDH.SYS.DISABLE", (
    Check("SYS.DISABLE.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _Z),
    Check("SYS.DISABLE.busy", "another processor is in the module, or in a TD",
          lambda c: sum(c.local_of(i).num("busy") for i in range(c.num_addressable)) > 1, Answer(S.TDX_SYS_BUSY), _Z,
          CHOSEN),
), "TDH.SYS.DISABLE (leaf 69, newer modules): for kexec, not for updates.")


@implements("SYS.DISABLE.reclaim",
            "TDMR by TDMR all memory is written with KeyID 0, which clears poison; a pending event "
            "interrupts, and the next call goes on", _Z)
def _disable_reclaim(c: Call) -> Result | None:
    """SYS.DISABLE.reclaim: TDs are gone from the first TDMR on."""
    done, count = c.glob.num("disabled_tdmrs"), c.glob.num("num_tdmrs")
    while done < count:
        entry = TDMR_ENTRY.decode(c.glob.raw(f"tdmrs[{done}]"))
        for base, size in ((entry.base, entry.size), *((entry[f"pamt_{name}_base"],
        (entry.size >> shift) * PAMT_ENTRY.size)
                                                       for shift, name in PAMT_LEVELS)):
            c.port.zero(base, size)
        done += 1
        c.glob.set("disabled_tdmrs", done)
        if done < count and msr_of(c, 0x9A):
            return Result(S.TDX_INTERRUPTED_RESUMABLE)
    return None


@implements("SYS.DISABLE.effect", "everything is forgotten, on every processor; state = SYSINIT_PENDING", _Z)
def _disable(c: Call) -> Result:
    """SYS.DISABLE.effect: nothing works any more until TDH.SYS.INIT and all that follows it."""
    for i in range(c.num_addressable):
        c.local_of(i).set("initialised", 0)
    c.linear.write(c.handoff.base, bytes(c.handoff.layout.size))
    c.held.clear()  # the lock goes with the rest of global data
    c.linear.write(c.glob.base, bytes(c.glob.layout.size))
    return SUCCESS


leaf(69, "TDH.SYS.DISABLE", "forget everything, give all memory back", stages=(SYS_DISABLE,),
     effects=(_disable_reclaim, _disable), before_ready=True, knob=DISABLE, inputs="none")
