"""TDH.SYS.INIT (leaf 33): the platform is judged and sampled, once (TDXM tdh_sys_init.c)."""

from __future__ import annotations

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.seamops import SeamopsLeaf, SeamopsStatus, seamops
from seamref.arch.software import Ud2
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.build import CHECKS_MISC_ENABLE, VERSION_1_INIT
from seamref.tdxmodule.core import Answer, Call, View, leaf
from seamref.tdxmodule.demands import (
    CPUID_SAME,
    CR0_ANY,
    CR0_L2,
    CR0_ONES,
    CR4_ONES,
    ENTRY,
    EPT_VPID,
    EXIT,
    ONLY_1_5_05,
    PIN,
    PROC,
    PROC2,
    PROC2_L2,
    PROC_L2,
    WHOLE,
)
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import CANARY_PAGE, HANDOFF, INIT_MSRS, MAX_CPUID_SAMPLES, MAX_HKIDS, PAGE, SysState
from seamref.tdxmodule.system.common import S, first, global_exclusive, mcheck, msr_of, ref
from seamref.tdxmodule.system.platform import (
    allowed,
    arch_ok,
    basic_ok,
    capabilities,
    cmrs_wrong,
    cpuid_limited,
    cpuid_wrong,
    hkid_range,
    l3_wrong,
    later,
    leaf_cpuid,
    linear_width_wrong,
    misc_ok,
    msr_if,
    no_core_level,
    perf_capabilities,
    perfmon_wrong,
    proc2_allowed,
    proc3_allowed,
    smrr_is,
    smrr_unlocked,
    stop_if_slow,
    tme_wrong,
    topology_wrong,
)

_I = ref("tdh_sys_init.c")
INIT: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INIT", (
    Check("SYS.INIT.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _I),
    Check("SYS.INIT.rcx", "RCX is not 0", lambda c: c.rcx != 0 and c.version == 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _I),
    Check("SYS.INIT.state", "state is not SYSINIT_PENDING", lambda c: c.state != SysState.SYSINIT_PENDING,
          Answer(S.TDX_SYS_INIT_NOT_PENDING), _I),
    Check("SYS.INIT.arch_capabilities", "IA32_ARCH_CAPABILITIES lacks a needed bit, or has one that must not be",
          lambda c: first(c, msr_if(0x10A, not arch_ok(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.xapic", "IA32_XAPIC_DISABLE_STATUS is not 1",
          lambda c: first(c, msr_if(0xBD, msr_of(c, 0xBD) != 1)), Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.energy_filtering", "energy filtering is not enabled in IA32_MISC_PACKAGE_CTLS",
          lambda c: first(c, msr_if(0xBC, not msr_of(c, 0xBC) & 1)), Answer(S.TDX_INCORRECT_MSR_VALUE, found=True),
          _I),
    Check("SYS.INIT.perf_capabilities", "IA32_PERF_CAPABILITIES without full-width writes; 1.5.05: or freeze while SMM",
          lambda c: first(c, msr_if(0x345, msr_of(c, 0x345) & perf_capabilities(c) != perf_capabilities(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", cpuid_limited, Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET),
          _I),
    Check("SYS.INIT.misc_enable", "1.5.05: performance monitoring or BTS is not available in IA32_MISC_ENABLE",
          lambda c: c.has(CHECKS_MISC_ENABLE) and first(c, msr_if(0x1A0, msr_of(c, 0x1A0) & 0x880 != 0x80)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), "TDXN tdh_sys_init.c"),
    Check("SYS.INIT.cpuid_leaf", "highest basic leaf below 1FH, or extended below 80000008H",
          lambda c: first(c, msr_if(0x1F, cpuid(c.platform, c.lp, 0).eax < 0x1F)
                          or msr_if(0x80000008, cpuid(c.platform, c.lp, 0x80000000).eax < 0x80000008)),
          Answer(S.TDX_CPUID_LEAF_NOT_SUPPORTED, found=True), _I),
    Check("SYS.INIT.cpuid_value", "a CPUID value under its mask differs (CPUID_DEMANDS)",
          cpuid_wrong,
          Answer(S.TDX_INCORRECT_CPUID_VALUE), _I),
    Check("SYS.INIT.perfmon", "CPUID.0AH: performance monitoring below version 5",
          perfmon_wrong,
          Answer(S.TDX_INCORRECT_CPUID_VALUE), _I),
    Check("SYS.INIT.linear_width", "CPUID.80000008H: linear addresses of neither 57 bits with LA57 nor 48 without",
          linear_width_wrong,
          Answer(S.TDX_INCORRECT_CPUID_VALUE), _I),
    Check("SYS.INIT.tsc_leaf", "CPUID.15H does not give the TSC frequency",
          lambda c: first(c, msr_if(0x15, leaf_cpuid(c, 0x15, WHOLE).ebx == 0)) or stop_if_slow(c),
          Answer(S.TDX_CPUID_LEAF_NOT_SUPPORTED, found=True), _I),
    Check("SYS.INIT.cpuid_1f", "levels of leaf 1FH are not ascending, or unknown",
          topology_wrong,
          Answer(S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED), _I),
    Check("SYS.INIT.core_level", "leaf 1FH has no core level",
          no_core_level,
          Answer(S.TDX_CPUID_LEAF_NOT_SUPPORTED, Operand.RAX), _I),
    Check("SYS.INIT.wbinvd_scope", "the last-level cache is not package wide",
          l3_wrong,
          Answer(S.TDX_INVALID_WBINVD_SCOPE), _I),
    Check("SYS.INIT.vmx_basic", "IA32_VMX_BASIC: VMCS above 4 KiB, no information for INS and OUTS, no TRUE controls",
          lambda c: first(c, msr_if(0x480, not basic_ok(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_pin", "pin-based controls",
          lambda c: first(c, msr_if(0x48D, not allowed(c, PIN))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_proc", "processor-based controls",
          lambda c: first(c, msr_if(0x48E, not allowed(c, PROC))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_proc2", "secondary controls",
          lambda c: first(c, msr_if(0x48B, not proc2_allowed(c, PROC2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_proc3", "tertiary controls: GPAW; virtual IA32_SPEC_CTRL",
          lambda c: first(c, msr_if(0x492, not proc3_allowed(c, False))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_exit", "exit controls",
          lambda c: first(c, msr_if(0x48F, not allowed(c, EXIT))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_entry", "entry controls",
          lambda c: first(c, msr_if(0x490, not allowed(c, ENTRY))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_misc", "IA32_VMX_MISC: activity states, unrestricted guest, PT, VMWRITE to all, CR3 targets",
          lambda c: first(c, msr_if(0x485, not misc_ok(c))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_ept", "EPT and VPID capabilities",
          lambda c: first(c, msr_if(0x48C, msr_of(c, 0x48C) & EPT_VPID != EPT_VPID)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr0_fixed0", "a CR0 bit must be 1 that TDs have 0",
          lambda c: first(c, msr_if(0x486, bool(msr_of(c, 0x486) & ~(CR0_ONES | CR0_ANY)))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr0_fixed1", "a CR0 bit must be 0 that TDs have 1",
          lambda c: first(c, msr_if(0x487, msr_of(c, 0x487) & CR0_ONES != CR0_ONES)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr4_fixed0", "a CR4 bit must be 1 that TDs have 0",
          lambda c: first(c, msr_if(0x488, bool(msr_of(c, 0x488) & ~CR4_ONES))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_cr4_fixed1", "a CR4 bit must be 0 that TDs have 1",
          lambda c: first(c, msr_if(0x489, msr_of(c, 0x489) & CR4_ONES != CR4_ONES)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_proc", "processor-based controls that L2 VMs change",
          lambda c: first(c, msr_if(0x48E, not allowed(c, PROC_L2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_proc2", "secondary controls that L2 VMs change",
          lambda c: first(c, msr_if(0x48B, not proc2_allowed(c, PROC2_L2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_proc3", "tertiary controls that L2 VMs change",
          lambda c: first(c, msr_if(0x492, not proc3_allowed(c, True))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.vmx_l2_cr0", "a CR0 bit that L2 VMs change is fixed to 0 (the MSR named is FIXED0)",
          lambda c: first(c, msr_if(0x486, bool(~msr_of(c, 0x487) & CR0_L2))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.tme", "IA32_TME_ACTIVATE not locked, or no algorithm of the kind that MCHECK says",
          lambda c: first(c, tme_wrong(c)),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.hkids", "a private KeyID of 2048 or above",
          lambda c: first(c, msr_if(MAX_HKIDS, hkid_range(c)[1] >= MAX_HKIDS)),
          Answer(S.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, found=True), _I),
    Check("SYS.INIT.cache_blocks", "MSR_WBINVDP and MSR_WBNOINVDP count differently",
          lambda c: first(c, msr_if(0x99, msr_of(c, 0x98) != msr_of(c, 0x99))),
          Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("SYS.INIT.cmrs", "the CMR list is malformed", cmrs_wrong, Answer(S.TDX_CMR_LIST_INVALID), _I),
    Check("SYS.INIT.smrr", "no SMRR", lambda c: not msr_of(c, 0xFE) >> 11 & 1, Answer(S.TDX_SMRR_NOT_SUPPORTED), _I),
    Check("SYS.INIT.smrr_lock", "SMRR cannot be locked", lambda c: not msr_of(c, 0xFE) >> 14 & 1,
          Answer(S.TDX_SMRR_LOCK_NOT_SUPPORTED), _I),
    Check("SYS.INIT.smrr_locked", "SMRR or SMRR2 is not locked",
          lambda c: first(c, smrr_unlocked(c)),
          Answer(S.TDX_SMRR_NOT_LOCKED, found=True), _I),
    Check("SYS.INIT.smrr_shape", "SMRR or SMRR2 mask not contiguous, or base not aligned to it",
          lambda c: first(c, smrr_is(c, S.TDX_INVALID_SMRR_CONFIGURATION)),
          Answer(S.TDX_INVALID_SMRR_CONFIGURATION, found=True), _I),
    Check("SYS.INIT.smrr_cmr", "SMRR or SMRR2 overlaps a CMR",
          lambda c: first(c, smrr_is(c, S.TDX_SMRR_OVERLAPS_CMR)),
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
    low, high = hkid_range(c)
    g.set("private_hkid_min", low)
    g.set("private_hkid_max", high)
    g.set("sys_state", SysState.SYSINIT_DONE)
    return SUCCESS


leaf(33, "TDH.SYS.INIT", "initialise the module, once", stages=(INIT, _getref, INIT_ENTROPY), effects=(_init,),
     outputs=("rcx", "rdx", "r8", "r9", "r10"), before_ready=True, versions=((1, VERSION_1_INIT),), inputs="RCX 0")
