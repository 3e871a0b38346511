"""Structures of the TDX module, each declared once.

Those that cross a border (handoff data, TDMR_INFO, TDSYSINFO, TD_PARAMS, TDINFO, PAMT entries, TDR) have the offsets
of the documents.  Those that only one build of the module ever reads (global data, processor-local data, TDCS, TDVPS)
have offsets *chosen* here; which values they hold is stated.
"""

from __future__ import annotations

from enum import IntEnum

from seamref.arch.structures import REPORTMACSTRUCT, TEE_TCB_INFO
from seamref.layout import Array, Field, Layout, Raw, reserved, u8, u16, u32, u64

PAGE = 4096
MAX_HKIDS, MAX_PKGS, MAX_TDMRS, MAX_RESERVED, MAX_CMRS = 2048, 8, 64, 16, 32
MODULE_MAX_PA = 52
TDCS_PAGES, TDVPS_PAGES, MAX_TDCX, MAX_TDVPS_PAGES = 6, 6, 9, 15


class SysState(IntEnum):
    """The global lifecycle state, one byte of global data (TDXM tdx_global_data.h)."""

    SYSINIT_PENDING = 0
    SYSINIT_DONE = 1
    SYSCONFIG_DONE = 2
    SYS_READY = 3
    SYS_SHUTDOWN = 4


class PageType(IntEnum):
    """PAMT page types."""

    NDA = 0
    RSVD = 1
    REG = 3
    TDR = 4
    TDCX = 5
    TDVPR = 6
    EPT = 8


class Hkid(IntEnum):
    """States of a KeyID in the KeyID ownership table (KOT)."""

    FREE = 0
    ASSIGNED = 1
    FLUSHED = 2
    RESERVED = 3


class Lifecycle(IntEnum):
    """Lifecycle of a TD, in its TDR."""

    HKID_ASSIGNED = 0
    KEYS_CONFIGURED = 1
    BLOCKED = 2
    TEARDOWN = 3


class OpState(IntEnum):
    """Operation state of a TD, in its TDCS (the migration states are not entered here)."""

    UNINITIALIZED = 0
    INITIALIZED = 1
    RUNNABLE = 2


class VcpuState(IntEnum):
    """State of a vCPU, in its TDVPS."""

    UNINITIALIZED = 0
    READY = 2
    ACTIVE = 4
    DISABLED = 8


class LastExit(IntEnum):
    """How a vCPU left the TD last."""

    ASYNC_FAULT = 0
    ASYNC_TRAP = 1
    TDVMCALL = 2


NOT_ASSOCIATED = 0xFFFFFFFF

# --- handoff data -----------------------------------------------------------------------------------------

HANDOFF_HEADER = Layout(
    "HANDOFF_HEADER",
    (
        Field("valid", u8, "1: handoff data are there", 0),
        reserved("reserved", 1, 1, checked=False),
        Field("hv", u16, "handoff version the data are written in", 2),
        Field("size", u32, "bytes that follow this header", 4),
    ),
    size=8,
    source="TDXM loader_data.h; PSL",
    doc="First 8 bytes of the data region.",
)

KOT_ENTRY = Layout(
    "KOT_ENTRY",
    (
        Field("wbinvd_bitmap", u32, "packages whose caches were not written back yet", 0),
        Field("state", u8, "0 FREE, 1 ASSIGNED, 2 FLUSHED, 3 RESERVED", 4),
        reserved("pad", 3, 5, checked=False),
    ),
    size=8,
    source="TDXM tdx_global_data.h",
    doc="KeyID ownership.",
)

WBT_ENTRY = Layout(
    "WBT_ENTRY",
    (
        Field("interruption_point", u64, "next cache sub-block; 0: no cycle was interrupted", 0),
        Field("hkid_flushed", Raw(MAX_HKIDS), "KeyIDs that were FLUSHED when the cycle started", 8),
        Field("mutex", u8, "", 2056),
        reserved("pad", 7, 2057, checked=False),
    ),
    size=2064,
    source="TDXM tdx_global_data.h",
    doc="Cache write-back of one package.",
)

RESERVED_AREA = Layout(
    "RESERVED_AREA",
    (Field("offset", u64, "from the TDMR's base", 0), Field("size", u64, "0: none", 8)),
    size=16,
)

TDMR_ENTRY = Layout(
    "TDMR_ENTRY",
    (
        Field("base", u64, "", 0),
        Field("size", u64, "", 8),
        Field("next_to_init", u64, "first address not initialised", 16),
        Field("pamt_1g_base", u64, "", 24),
        Field("pamt_2m_base", u64, "", 32),
        Field("pamt_4k_base", u64, "", 40),
        Field("pamt_blocks", u32, "1 GiB blocks", 48),
        Field("num_reserved", u32, "reserved areas in use", 52),
        Field("reserved_areas", Array(RESERVED_AREA, MAX_RESERVED), "", 56),
        Field("mutex", u8, "", 312),
        reserved("pad", 7, 313, checked=False),
    ),
    size=320,
    source="TDXM tdx_global_data.h",
    doc="One trust domain memory region.",
)

_HANDOFF_FIELDS = (
    Field("header", HANDOFF_HEADER, "", 0),
    Field("kot", Array(KOT_ENTRY, MAX_HKIDS), "KeyID ownership; the KOT's lock is not handed off", 0x8),
    Field("wbt", Array(WBT_ENTRY, MAX_PKGS), "cache write-back progress of each package", 0x4008),
    Field("tdmrs", Array(TDMR_ENTRY, MAX_TDMRS), "TDMRs, with how far each is initialised", 0x8088),
    Field("num_tdmrs", u32, "TDMRs in use", 0xD088),
    Field("hkid", u16, "global private KeyID", 0xD08C),
    Field("pkg_config_bitmap", u32, "packages on which the global key is configured", 0xD08E),
)

HANDOFF_V0 = Layout(
    "HANDOFF_DATA version 0", _HANDOFF_FIELDS, size=0xD092, source="TDXM tdh_sys_shutdown.c",
    doc="What TDH.SYS.SHUTDOWN writes at the start of the data region: header, then fields back to back, unaligned.",
)

HANDOFF_V1 = Layout(
    "HANDOFF_DATA version 1",
    (*_HANDOFF_FIELDS, Field("num_sensitive", u32, "TDs between TDH.MNG.INIT and TDH.MR.FINALIZE", 0xD092)),
    size=0xD096,
    source="SEAMREF",
    doc="A later handoff version, chosen: version 0 and a count of TDs in an update-sensitive state.",
)

HANDOFF = {0: HANDOFF_V0, 1: HANDOFF_V1}
"""Layout of each handoff version (1 is *chosen*: published modules know version 0 only)."""

# --- the module's own data --------------------------------------------------------------------------------

INIT_MSRS = (0x10A, 0xBC, 0xBD, 0xCF, 0x3B, 0xFE, 0x1F2, 0x1F3, 0x1F6, 0x1F7,
             0x480, 0x485, 0x486, 0x487, 0x488, 0x489, 0x48B, 0x48C, 0x48D, 0x48E, 0x48F, 0x490, 0x492,
             0x345, 0x981, 0x982, 0x87, 0x98, 0x99)
"""MSRs that TDH.SYS.INIT samples, in the order of ``GLOBAL_DATA.msr_sample``."""

MAX_CPUID_SAMPLES = 64
"""CPUID leaves that TDH.SYS.INIT keeps at most."""
_CPUID_AT = 112 + 8 * len(INIT_MSRS)
_BEHIND_CPUID = _CPUID_AT + 16 * MAX_CPUID_SAMPLES

TDMR_INFO = Layout(
    "TDMR_INFO",
    (
        Field("base", u64, "1 GiB aligned", 0),
        Field("size", u64, "multiple of 1 GiB", 8),
        Field("pamt_1g_base", u64, "", 16),
        Field("pamt_1g_size", u64, "", 24),
        Field("pamt_2m_base", u64, "", 32),
        Field("pamt_2m_size", u64, "", 40),
        Field("pamt_4k_base", u64, "", 48),
        Field("pamt_4k_size", u64, "", 56),
        Field("reserved_areas", Array(RESERVED_AREA, MAX_RESERVED), "", 64),
    ),
    size=320,
    source="TDXM tdx_api_defs.h",
    doc="What the host asks TDH.SYS.CONFIG for.",
)

GLOBAL_DATA = Layout(
    "GLOBAL_DATA",
    (
        Field("sys_state", u8, "SYSINIT_PENDING .. SYS_SHUTDOWN", 0),
        reserved("pad_0", 1, 1, checked=False),
        Field("global_lock", u16, "shared/exclusive, never waits", 2),
        Field("kot_lock", u16, "shared/exclusive", 4),
        Field("hkid", u16, "global private KeyID", 6),
        Field("num_lps", u32, "from SYS_INFO_TABLE", 8),
        Field("num_pkgs", u32, "from SYS_INFO_TABLE", 12),
        Field("num_init_lps", u32, "processors that did TDH.SYS.LP.INIT", 16),
        Field("num_init_pkgs", u32, "packages that did TDH.SYS.KEY.CONFIG; stays 0 after an update", 20),
        Field("pkg_config_bitmap", u32, "packages with the global key", 24),
        Field("num_tdmrs", u32, "", 28),
        Field("seamdb_index", u64, "of the newest entry when TDH.SYS.INIT ran", 32),
        Field("seamdb_nonce", Raw(32), "", 40),
        Field("seam_capabilities", u64, "SEAMOPS leaves", 72),
        Field("seamrr_base", u64, "", 80),
        Field("seamrr_size", u64, "", 88),
        Field("module_hv", u16, "from SYS_INFO_TABLE, that is from the sigstruct", 96),
        Field("min_update_hv", u16, "", 98),
        Field("no_downgrade", u8, "", 100),
        Field("cpuid_complete", u8, "the CPUID table for TDs is ready (CONFIG or UPDATE)", 101),
        Field("private_hkid_min", u16, "", 102),
        Field("private_hkid_max", u16, "", 104),
        reserved("pad_1", 2, 106, checked=False),
        Field("num_sensitive", u32, "TDs being built (modules with UPDATE_COMPATIBILITY)", 108),
        Field("msr_sample", Array(u64, len(INIT_MSRS)), "what TDH.SYS.INIT read", 112),
        Field("cpuid_sample", Raw(16 * MAX_CPUID_SAMPLES), "leaves that must be the same everywhere", _CPUID_AT),
        Field("disabled_tdmrs", u32, "TDMRs that an interrupted TDH.SYS.DISABLE has reclaimed", _BEHIND_CPUID),
        reserved("pad_2", 0x1000 - 4 - _BEHIND_CPUID, 4 + _BEHIND_CPUID, checked=False),
        Field("kot", Array(KOT_ENTRY, MAX_HKIDS), "", 0x1000),
        Field("wbt", Array(WBT_ENTRY, MAX_PKGS), "", 0x5000),
        Field("tdmrs", Array(TDMR_ENTRY, MAX_TDMRS), "", 0x9080),
        Field("tdmr_info", Array(TDMR_INFO, MAX_TDMRS), "copy of the input, used during CONFIG only", 0xE080),
    ),
    size=0x13080,
    source="TDXM tdx_global_data.h",
    doc="Platform-wide state of the module, behind the processor-local blocks of the data region.",
)

HOST_FIELDS = (
    "host_cr0", "host_cr3", "host_cr4", "host_rip", "host_rsp", "host_ssp", "host_fs_base", "host_gs_base",
    "host_gdtr_base", "host_idtr_base", "host_ia32_pat", "host_ia32_efer", "host_ia32_s_cet", "host_cs_selector",
    "host_ss_selector", "host_fs_selector", "host_gs_selector", "host_tr_selector",
)
"""Host-state fields that TDH.SYS.LP.INIT samples from the transfer VMCS, in the order of ``LOCAL_DATA.host_state``."""

LOCAL_DATA = Layout(
    "LOCAL_DATA",
    (
        Field("gprs", Array(u64, 16), "the caller's registers in encoding order", 0),
        Field("spec_ctrl", u64, "the caller's IA32_SPEC_CTRL", 128),
        Field("sysinfo", u64, "cached pointer: SYS_INFO_TABLE", 136),
        Field("global", u64, "cached pointer: global data", 144),
        Field("lp_id", u32, "index of this processor's block, and of its transfer VMCS", 152),
        Field("initialised", u8, "TDH.SYS.LP.INIT was done here", 156),
        Field("busy", u8, "inside the module, or in a TD entered from here", 157),
        reserved("pad_0", 2, 158, checked=False),
        Field("stepping_seed", u64, "random seed of the single-stepping defence", 160),
        Field("last_tdvpr", u64, "vCPU that ran here last", 168),
        Field("tdvpr", u64, "vCPU that runs here now (0: none)", 176),
        Field("tdr", u64, "its TD", 184),
        Field("host_state", Array(u64, len(HOST_FIELDS)), "for TD VMCSs", 192),
        Field("inputs", Raw(64), "inputs in registers that are outputs too", 192 + 8 * len(HOST_FIELDS)),
        reserved("pad_1", 0x400 - 256 - 8 * len(HOST_FIELDS), 256 + 8 * len(HOST_FIELDS), checked=False),
        Field("report", Raw(1024), "SEAMOPS builds a report here", 0x400),
        Field("reportdata", Raw(64), "", 0x800),
        Field("tdinfo_hash", Raw(64), "", 0x840),
        reserved("pad_2", 0x1000 - 0x880, 0x880, checked=False),
    ),
    size=0x1000,
    source="TDXM tdx_local_data.h",
    doc="State of the module on one processor, found through GS base.",
)

CANARY_PAGE = Layout(
    "CANARY_PAGE",
    (
        Field("copy_0", Raw(0x28), "start of the copy of SYS_INFO_TABLE", 0),
        Field("canary", u64, "stack canary; overlays part of SOCKET_CPUID in the copy", 0x28),
        Field("copy_1", Raw(PAGE - 0x30), "rest of the copy", 0x30),
    ),
    size=PAGE,
    source="TDXM",
    doc="Last page of the data region.",
)

# --- memory the host gives --------------------------------------------------------------------------------

PAMT_ENTRY = Layout(
    "PAMT_ENTRY",
    (
        Field("lock", u16, "bit 0 exclusive, bit 1 host priority, readers from bit 2", 0),
        Field("type", u8, "page type", 2),
        Field("owner", Raw(5, number=True), "frame number of the owning TDR", 3),
        Field("bepoch", u64, "", 8),
    ),
    size=16,
    source="TDXM pamt_manager.h",
    doc="What the module knows of one physical page, kept in host-given memory under the global KeyID.",
)

TDR = Layout(
    "TDR",
    (
        Field("fatal", u8, "the TD is fatally broken", 0),
        reserved("pad_0", 3, 1, checked=False),
        Field("num_tdcx", u32, "TDCS pages added", 4),
        Field("chldcnt", u64, "pages that belong to the TD, this one excluded", 8),
        Field("lifecycle", u8, "HKID_ASSIGNED .. TEARDOWN", 16),
        reserved("pad_1", 7, 17, checked=False),
        Field("tdcx_pa", Array(u64, MAX_TDCX), "addresses, with the TD's KeyID", 24),
        Field("td_uuid", Raw(32), "", 96),
        reserved("pad_2", 128, 128, checked=False),
        Field("hkid", u16, "the TD's private KeyID", 256),
        reserved("pad_3", 6, 258, checked=False),
        Field("pkg_config_bitmap", u64, "packages on which the TD's key is configured", 264),
        reserved("pad_4", 48, 272, checked=False),
        Field("handoff_version", u16, "MODULE_HV of the module that created the TD", 320),
        reserved("pad_5", 6, 322, checked=False),
        Field("seamdb_index", u64, "which module created the TD", 328),
        Field("seamdb_nonce", Raw(32), "", 336),
        reserved("pad_6", PAGE - 368, 368, checked=False),
    ),
    size=PAGE,
    source="TDXM td_control_structures.h",
    doc="Root of a TD: under the global KeyID.  Nothing lists TDs: a TDR is found because the host names its page.",
)

HASH_STATE = Layout(
    "HASH_STATE",
    (
        Field("seamdb_index", u64, "module whose library the state was last bound to", 0),
        Field("packed", Raw(256), "the cryptographic library's packed SHA-384 state", 8),
    ),
    size=264,
    source="TDXM td_control_structures.h",
    doc="Unfinished MRTD.",
)

MAX_X2APIC = 576
TDCS = Layout(
    "TDCS",
    (
        Field("op_state_lock", u16, "", 0),
        Field("sept_lock", u16, "", 2),
        Field("epoch_lock", u16, "", 4),
        Field("rtmr_lock", u16, "", 6),
        Field("op_state", u32, "", 8),
        Field("max_vcpus", u32, "", 12),
        Field("num_vcpus", u32, "", 16),
        Field("num_assoc_vcpus", u32, "", 20),
        Field("td_epoch", u64, "", 24),
        Field("refcount", Array(u16, 2), "vCPUs inside the TD in even and odd epochs", 32),
        reserved("pad_0", 4, 36, checked=False),
        Field("attributes", u64, "", 40),
        Field("xfam", u64, "", 48),
        Field("eptp", u64, "", 56),
        Field("tsc_frequency", u64, "units of 25 MHz", 64),
        Field("counted", u8, "this TD counts as update-sensitive", 72),
        Field("spoilt", u8, "an update interrupted the build, and the module noticed", 73),
        reserved("pad_1", 6, 74, checked=False),
        Field("mrtd", Raw(48), "", 80),
        Field("mrconfigid", Raw(48), "", 128),
        Field("mrowner", Raw(48), "", 176),
        Field("mrownerconfig", Raw(48), "", 224),
        Field("rtmr", Array(Raw(48), 4), "", 272),
        Field("servtd_hash", Raw(48), "", 464),
        Field("mrtd_context", HASH_STATE, "", 512),
        Field("x2apic_ids", Array(u32, MAX_X2APIC), "of the vCPUs by index (1.5.05)", 776),
        reserved("pad_2", PAGE - 776 - 4 * MAX_X2APIC, 776 + 4 * MAX_X2APIC, checked=False),
    ),
    size=PAGE,
    source="TDXM td_control_structures.h",
    doc="First page of a TD's control structure, under the TD's KeyID; the second is the root of its secure EPT.",
)
SEPT_ROOT_PAGE = 1

TDVPS = Layout(
    "TDVPS",
    (
        Field("state", u8, "", 0),
        Field("launched", u8, "the TD VMCS was launched since its last VMCLEAR", 1),
        Field("last_exit", u8, "", 2),
        Field("module_state_valid", u8, "module-dependent host state of the TD VMCS is up to date", 3),
        Field("lp_state_valid", u8, "processor-dependent host state is up to date", 4),
        reserved("pad_0", 3, 5, checked=False),
        Field("assoc_lpid", u32, "processor id; FFFFFFFF: none", 8),
        Field("index", u32, "vCPU index", 12),
        Field("num_tdcx", u32, "TDVPS pages behind the TDVPR page", 16),
        reserved("pad_1", 4, 20, checked=False),
        Field("tdcx_pa", Array(u64, MAX_TDVPS_PAGES - 1), "", 24),
        Field("last_seamdb_index", u64, "module that last set the host state", 136),
        Field("vcpu_epoch", u64, "", 144),
        Field("last_exit_tsc", u64, "", 152),
        Field("vmcall_mask", u64, "registers that the last TDG.VP.VMCALL passed", 160),
        Field("gprs", Array(u64, 16), "the guest's registers in encoding order", 168),
        Field("shared_eptp", u64, "", 296),
        reserved("pad_2", PAGE - 304, 304, checked=False),
    ),
    size=PAGE,
    source="TDXM tdx_tdvps.h",
    doc="First page of a vCPU, under the TD's KeyID; the second is its TD VMCS.",
)

CPUID_VALUES = Layout("CPUID_VALUES", tuple(Field(name, u32, "", 4 * i) for i, name in enumerate(
    ("eax", "ebx", "ecx", "edx"))), size=16)

TD_PARAMS = Layout(
    "TD_PARAMS",
    (
        Field("attributes", u64, "", 0),
        Field("xfam", u64, "", 8),
        Field("max_vcpus", u16, "at least 1", 16),
        Field("num_l2_vms", u8, "", 18),
        Field("msr_config_ctls", u8, "", 19),
        reserved("reserved_0", 4, 20),
        Field("eptp_controls", u64, "bits 5:0 as in an EPTP", 24),
        Field("config_flags", u64, "bit 0: GPAW", 32),
        Field("tsc_frequency", u16, "units of 25 MHz, 4 to 400", 40),
        reserved("reserved_1", 38, 42),
        Field("mrconfigid", Raw(48), "", 80),
        Field("mrowner", Raw(48), "", 128),
        Field("mrownerconfig", Raw(48), "", 176),
        Field("ia32_arch_capabilities_config", u64, "", 224),
        reserved("reserved_2", 24, 232),
        Field("cpuid_config", Array(CPUID_VALUES, 48), "12 (1.5.05: 18) leaves; all behind them must be 0", 256),
    ),
    size=1024,
    source="TDXM tdx_api_defs.h",
    doc="What the host asks TDH.MNG.INIT for.",
)

TDINFO = Layout(
    "TDINFO",
    (
        Field("attributes", u64, "", 0),
        Field("xfam", u64, "", 8),
        Field("mrtd", Raw(48), "measurement of the initial contents", 16),
        Field("mrconfigid", Raw(48), "", 64),
        Field("mrowner", Raw(48), "", 112),
        Field("mrownerconfig", Raw(48), "", 160),
        Field("rtmr", Array(Raw(48), 4), "", 208),
        Field("servtd_hash", Raw(48), "", 400),
        reserved("reserved", 64, 448),
    ),
    size=512,
    source="TDXM tdx_api_defs.h",
    doc="What a report says about the TD itself.",
)

TDREPORT = Layout(
    "TDREPORT",
    (
        Field("reportmacstruct", REPORTMACSTRUCT, "", 0),
        Field("tee_tcb_info", TEE_TCB_INFO, "the TDX module", 256),
        reserved("reserved", 17, 495),
        Field("tdinfo", TDINFO, "the TD", 512),
    ),
    size=1024,
    source="TDXM tdx_api_defs.h",
    doc="What TDG.MR.REPORT gives a TD.",
)

CPUID_CONFIG = Layout(
    "CPUID_CONFIG",
    (Field("leaf", u32, "", 0), Field("subleaf", u32, "", 4), Field("values", Array(u32, 4), "EAX..EDX masks", 8)),
    size=24,
)

TDSYSINFO = Layout(
    "TDSYSINFO_STRUCT",
    (
        Field("attributes", u32, "", 0),
        Field("vendor_id", u32, "0x8086", 4),
        Field("build_date", u32, "", 8),
        Field("build_num", u16, "", 12),
        Field("minor_version", u16, "", 14),
        Field("major_version", u16, "", 16),
        Field("sys_rd", u8, "1: TDH.SYS.RD is there", 18),
        reserved("reserved_0", 13, 19),
        Field("max_tdmrs", u16, "", 32),
        Field("max_reserved_per_tdmr", u16, "", 34),
        Field("pamt_entry_size", u16, "", 36),
        reserved("reserved_1", 10, 38),
        Field("tdcs_base_size", u16, "", 48),
        reserved("reserved_2", 2, 50),
        Field("tdvps_base_size", u16, "", 52),
        Field("tdvps_xfam_dependent_size", u8, "", 54),
        reserved("reserved_3", 9, 55),
        Field("attributes_fixed0", u64, "", 64),
        Field("attributes_fixed1", u64, "", 72),
        Field("xfam_fixed0", u64, "", 80),
        Field("xfam_fixed1", u64, "", 88),
        reserved("reserved_4", 32, 96),
        Field("num_cpuid_config", u32, "", 128),
        Field("cpuid_configs", Array(CPUID_CONFIG, 37), "", 132),
        reserved("reserved_5", 4, 1020),
    ),
    size=1024,
    source="TDXM tdx_api_defs.h",
    doc="What TDH.SYS.INFO stores.",
)

ATTRIBUTES_FIXED0, ATTRIBUTES_FIXED1 = 0x8000_0000_7000_0001, 0
"""ATTRIBUTES bits that may be 1, that must be 1: DEBUG, SEPT_VE_DISABLE, MIGRATABLE, PKS, PERFMON."""
ATTRIBUTES_DEBUG, ATTRIBUTES_LASS, ATTRIBUTES_MIGRATABLE, ATTRIBUTES_PERFMON = 1, 1 << 27, 1 << 29, 1 << 63
"""LASS may be 1 from 1.5.05 on where the processor has it; a migratable TD has neither DEBUG nor PERFMON."""
XFAM_FIXED0, XFAM_FIXED1 = 0x0006_DBE7, 0x3
"""XFAM bits that may be 1 where the processor has them, that must be 1 (x87 and SSE)."""
XFAM_SAME = (0xE0, 0x1800, 0x60000)
"""XFAM bits that are 1 together or not at all: AVX-512, CET, AMX."""
XFAM_AVX, XFAM_AVX512 = 1 << 2, 0xE0
CONFIG_FLAGS_FIXED0, CONFIG_FLAGS_FIXED1, CONFIG_GPAW = 0b111, 0, 1
"""CONFIG_FLAGS bits that may be 1: GPAW, FLEXIBLE_PENDING_VE, NO_RBP_MOD."""
MAX_VCPUS_PER_TD = 576
"""Since 1.5.05; before, as many as the field holds."""
