"""Structures that the processor, the loaders and the module exchange, each declared once."""

from __future__ import annotations

from seamref.layout import Array, Bit, Bits, Field, Layout, Raw, reserved, u8, u16, u32, u64

# --- SEAMEXTEND -----------------------------------------------------------------------------------------

SVN_FIELDS = (
    Field("seam_minor_svn", u8, "minor SVN of the TDX module", 0),
    Field("seam_major_svn", u8, "major SVN; 0 means a module that hands nothing off", 1),
    Field("last_patch_se_svn", u8, "SE SVN of the last microcode patch", 2),
    Field("reserved", Raw(13), "written by no loader", 3),
)
TEE_TCB_SVN = Layout("TEE_TCB_SVN", SVN_FIELDS, size=16, source="PSL include/pseamldr_api_defs.h",
                     doc="Security version of the loaded TDX module (errata 14).")

SEAMEXTEND = Layout(
    "SEAMEXTEND",
    (
        Field("valid", u64, "0x1FF: Intel module, 0xFFFF: other, 0: none", 0),
        Field("tee_tcb_svn", TEE_TCB_SVN, "security version", 8),
        Field("mrseam", Raw(48), "SHA-384 of the module image as loaded", 24),
        Field("mrsigner", Raw(48), "signer of the module; zero for Intel's", 72),
        Field("attributes", u64, "module attributes", 120),
        Field("seam_ready", u8, "1: SEAMCALL enters the TDX module", 128),
        Field("system_under_debug", u8, "1: SGX_DEBUG_MODE was debug-unlocked at boot", 129),
        Field("p_seamldr_ready", u8, "1: SEAMCALL enters P-SEAMLDR", 130),
        reserved("reserved", 5, 131, checked=False),
    ),
    size=136,
    source="PSL include/pseamldr_api_defs.h; NPS NpSeamldrApi.h",
    doc="The CPU register behind IA32_SEAMEXTEND: identity of the loaded module and the two ready flags.",
)

# --- interrupts -----------------------------------------------------------------------------------------

IDT_GATE = Layout(
    "IDT_GATE",
    (
        Field("offset_15_0", u16, "of the handler", 0),
        Field("selector", u16, "code segment", 2),
        Field("ist", u8, "interrupt stack table, bits 2:0", 4),
        Field("type", u8, "8E: present, DPL 0, interrupt gate", 5),
        Field("offset_31_16", u16, "of the handler", 6),
        Field("offset_63_32", u32, "of the handler", 8),
        reserved("reserved", 4, 12, checked=False),
    ),
    size=16,
    source="SDM vol. 3A section 6.14.1",
    doc="An interrupt gate of 64-bit mode.",
)


def point_gate(idt: bytearray, at: int, handler: int) -> None:
    """Let the gate at ``idt[at]`` lead to a handler (linear address); all else of the gate stays."""
    IDT_GATE.poke(idt, "offset_15_0", handler & 0xFFFF, at)
    IDT_GATE.poke(idt, "offset_31_16", handler >> 16 & 0xFFFF, at)
    IDT_GATE.poke(idt, "offset_63_32", handler >> 32 & 0xFFFFFFFF, at)


# --- what MCHECK and the loaders tell each other ----------------------------------------------------------

CMR = Layout("CMR", (Field("base", u64, "4 KiB aligned", 0), Field("size", u64, "bytes; 0 = null", 8)), size=16,
             doc="Convertible memory range.")

MCHECK_FIELDS = (
    Field("version", u64, "table version", 0, 0, "NP-SEAMLDR refuses others"),
    Field("tot_num_lps", u32, "logical processors of the platform", 8),
    Field("tot_num_sockets", u32, "1..8", 12),
    Field("socket_cpuid_table", Array(u32, 8), "CPUID.1.EAX of each socket", 16),
    Field("p_seamldr_range_base", u64, "physical", 48),
    Field("p_seamldr_range_size", u64, "bytes", 56),
    Field("skip_smrr2_check", u8, "1: platform has no SMRR2 to check", 64),
    Field("tdx_ac", u8, "1: memory protected by access control only", 65),
    reserved("reserved_0", 62, 66, checked=False),
    Field("cmr", Array(CMR, 32), "convertible memory ranges", 128),
    reserved("reserved_1", 1408, 640, checked=False),
)

P_SYS_INFO_TABLE = Layout(
    "P_SYS_INFO_TABLE",
    (
        *MCHECK_FIELDS,
        Field("np_seamldr_mutex", u64, "low byte: NP-SEAMLDR runs", 2048),
        Field("code_rgn_base", u64, "linear", 2056),
        Field("code_rgn_size", u64, "bytes", 2064),
        Field("data_rgn_base", u64, "linear", 2072),
        Field("data_rgn_size", u64, "bytes", 2080),
        Field("stack_rgn_base", u64, "linear", 2088),
        Field("stack_rgn_size", u64, "bytes, data stack and 4 KiB shadow stack", 2096),
        Field("keyhole_rgn_base", u64, "linear", 2104),
        Field("keyhole_rgn_size", u64, "bytes", 2112),
        Field("keyhole_edit_rgn_base", u64, "linear", 2120),
        Field("keyhole_edit_rgn_size", u64, "bytes", 2128),
        Field("module_region_base", u64, "P-SEAMLDR's linear alias of SEAMRR.BASE", 2136),
        Field("acm_x2apicid", u32, "processor that launched NP-SEAMLDR", 2144),
        Field("acm_x2apicid_valid", u32, "1 after a launch", 2148),
        reserved("reserved_2", 1944, 2152, checked=False),
    ),
    size=4096,
    source="NPS NpSeamldrApi.h; PSL pseamldr_data_types.h",
    doc="Last 4 KiB of SEAMRR: low half written by MCHECK, high half by NP-SEAMLDR.",
)

SYS_INFO_TABLE = Layout(
    "SYS_INFO_TABLE",
    (
        Field("mcheck", Raw(2048), "byte copy of P_SYS_INFO_TABLE[0..2047]", 0),
        reserved("reserved_0", 8, 2048, "old SEAM status"),
        Field("code_rgn_base", u64, "linear", 2056),
        Field("code_rgn_size", u64, "num_module_pages * 4096", 2064),
        Field("data_rgn_base", u64, "linear", 2072),
        Field("data_rgn_size", u64, "bytes", 2080),
        Field("stack_rgn_base", u64, "linear", 2088),
        Field("stack_rgn_size", u64, "bytes", 2096),
        Field("keyhole_rgn_base", u64, "linear", 2104),
        Field("keyhole_rgn_size", u64, "bytes", 2112),
        Field("keyhole_edit_rgn_base", u64, "linear", 2120),
        Field("keyhole_edit_rgn_size", u64, "bytes", 2128),
        Field("num_stack_pages", u64, "data stack pages of one processor, minus 1", 2136),
        Field("num_tls_pages", u64, "local data pages of one processor, minus 1", 2144),
        Field("module_hv", u16, "handoff version the module writes", 2152),
        Field("min_update_hv", u16, "oldest handoff version it reads", 2154),
        Field("no_downgrade", u8, "1: refuses to hand off to an older version", 2156),
        reserved("reserved_1", 1, 2157),
        Field("num_handoff_pages", u16, "handoff pages minus 1", 2158),
        reserved("reserved_2", 1936, 2160),
    ),
    size=4096,
    source="PSL pseamldr_data_types.h",
    doc="First 4 KiB of SEAMRR: what P-SEAMLDR tells the TDX module.",
)

# --- reports --------------------------------------------------------------------------------------------

REPORTTYPE = Layout(
    "REPORTTYPE",
    (
        Field("type", u8, "0x00 SGX, 0x81 TDX; bit 7: implemented by SEAM", 0),
        Field("subtype", u8, "", 1),
        Field("version", u8, "", 2),
        reserved("reserved", 1, 3),
    ),
    size=4,
    source="X2 SEAMREPORT",
)

REPORTMACSTRUCT = Layout(
    "REPORTMACSTRUCT",
    (
        Field("reporttype", REPORTTYPE, "", 0),
        reserved("reserved_0", 12, 4),
        Field("cpusvn", Raw(16), "CRPL_CPUSVN", 16),
        Field("tee_tcb_info_hash", Raw(48), "SHA-384 of TEE_TCB_INFO (239 bytes)", 32),
        Field("tee_info_hash", Raw(48), "SHA-384 of the TEE's own information; zero without TEE", 80),
        Field("reportdata", Raw(64), "caller's data", 128),
        reserved("reserved_1", 32, 192),
        Field("mac", Raw(32), "HMAC-SHA-256 with CR_REPORT_KEY2 over bytes 0..223", 224),
    ),
    size=256,
    source="X2 SEAMREPORT",
    doc="The part of a report that another processor mode of the same platform can verify.",
)

TEE_TCB_INFO = Layout(
    "TEE_TCB_INFO",
    (
        Field("valid", u64, "bit i: bytes 8i..8i+7 are valid (errata 13)", 0),
        Field("tee_tcb_svn", TEE_TCB_SVN, "module under which the report's subject was built", 8),
        Field("mrseam", Raw(48), "", 24),
        Field("mrsignerseam", Raw(48), "", 72),
        Field("attributes", u64, "", 120),
        Field("tee_tcb_svn2", TEE_TCB_SVN, "module that runs now (TDX 1.5)", 128),
        reserved("reserved", 95, 144),
    ),
    size=239,
    source="X2 SEAMREPORT; TDXM",
    doc="Identity of the TDX module in a report.",
)

SEAMREPORT = Layout(
    "SEAMREPORT",
    (Field("reportmacstruct", REPORTMACSTRUCT, "", 0), Field("tee_tcb_info", TEE_TCB_INFO, "", 256)),
    size=495,
    source="X2 SEAMREPORT",
    doc="What SEAMOPS[SEAMREPORT] stores: 256 + 239 bytes.",
)

MKTME_KEY_PROGRAM = Layout(
    "MKTME_KEY_PROGRAM_STRUCT",
    (
        Field("keyid", u16, "KeyID to program", 0),
        Field("keyid_ctrl", Bits(4, (
            Bit("command", 7, 0, "0 direct, 1 random, 2 clear, 3 no encryption"),
            Bit("enc_alg", 23, 8, "exactly one activated algorithm"),
            Bit("reserved", 31, 24, "reserved", 0),
        )), "", 2),
        reserved("reserved_0", 58, 6),
        Field("key_field_1", Raw(64), "data key or entropy", 64),
        Field("key_field_2", Raw(64), "tweak key or entropy", 128),
    ),
    size=192,
    source="SDM vol. 2B PCONFIG",
)
