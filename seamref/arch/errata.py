"""Where public sources disagree: 34 rows, each a knob that the machine obeys or a reason why there is none."""

from __future__ import annotations

from dataclasses import dataclass, fields

from seamref.arch.revision import Revision
from seamref.errors import SeamrefError


@dataclass(frozen=True, slots=True)
class Erratum:
    """One disagreement.

    ``sides``     what each source says, "TAG: text"
    ``decision``  what this machine does by default
    ``knob``      attribute of :class:`~seamref.arch.revision.Revision` that chooses, or ""
    ``reason``    without a knob: why the machine needs none
    """

    number: int
    topic: str
    sides: tuple[str, ...]
    decision: str
    knob: str = ""
    reason: str = ""

    def __post_init__(self) -> None:
        if bool(self.knob) == bool(self.reason):
            raise SeamrefError(f"erratum {self.number} needs a knob or a reason")
        if self.knob and self.knob not in {field.name for field in fields(Revision)}:
            raise SeamrefError(f"erratum {self.number}: no knob {self.knob}")


ERRATA: tuple[Erratum, ...] = (
    Erratum(
        1,
        "SEAMCALL and CPL",
        ("X2: CPL is checked after the non-root exit", "SC1: before it, measured on SPR, EMR"),
        "before: user mode of a guest gets #GP(0)",
        "cpl_before_exit",
    ),
    Erratum(
        2,
        "which inSEAM",
        ("X2: #UD if inSEAM, which reads as either SEAM mode", "SC2: SEAM root; a TD's SEAMCALL exits"),
        "the flag spans both modes, #UD only in SEAM root",
        "inSEAM_means_root",
    ),
    Erratum(
        3,
        "SEAMRET from P-SEAMLDR and the VMM's VMCS",
        (
            "X1: untouched",
            "X2: flushed, launch state clear, pointer invalid",
            "SR4: untouched if IA32_VMX_BASIC[60] = 1",
            "SR3: every VMCS cached in SEAM is evicted",
        ),
        "X2 unless IA32_VMX_BASIC[60] = 1; the transfer VMCS is always evicted",
        "seamret_vmcs",
    ),
    Erratum(
        4,
        "SEAMRET from the module and its transfer VMCS",
        ("X2: nothing cleared", "COR: the transfer VMCS is cleared"),
        "nothing cleared",
        "seamret_clears_transfer",
    ),
    Erratum(
        5,
        "release of P_SEAMLDR_MUTEX",
        ("X2: by SEAMRET and on the failure path", "SR1: a quotation without it"),
        "released",
        "mutex_released",
    ),
    Erratum(
        6,
        "the LP id",
        ("X2: CPUID 0BH", "PSL: CPUID 1FH", "TDXM: a sequential index"),
        "the x2APIC id",
        reason="all three name the same number on real parts; both leaves return it",
    ),
    Erratum(
        7,
        "SEAMRR written after LOCK",
        ("X2: #GP(0) outside boot BIOS", "NPS: the ACM toggles VALID with LOCK = 1"),
        "allowed in authenticated-code mode",
        "seamrr_ac_unlock",
    ),
    Erratum(
        8,
        "SEAMRR enabled",
        ("X2, NPS: VALID", "LNX: CONFIGURED, LOCK and VALID"),
        "SEAMCALL looks at VALID only",
        "seamrr_needs_all",
    ),
    Erratum(
        9,
        "bit 3 of IA32_SEAMRR_PHYS_BASE",
        ("TDXM, LNX: CONFIGURED", "NPS: reserved"),
        "CONFIGURED",
        "base_bit3_configured",
    ),
    Erratum(
        10,
        "fetch outside SEAMRR",
        ("a translated note of X2: SEAM executes outside SEAMRR", "X2: it runs inside"),
        "inside",
        reason="a translation error; every program here is fetched from inside SEAMRR",
    ),
    Erratum(
        11,
        "SEAMOPS CAPABILITIES",
        ("X2: 0x1 or 0x3", "TDXM: bits 4 and 5 are needed, 6 optional", "COR: 0x30", "OTX: 0x1D, since 2025 0x3D"),
        "0x7F",
        "capabilities",
    ),
    Erratum(12, "width of the SEAMOPS leaf", ("X2: RAX", "OTX: EAX"), "RAX", "seamops_leaf_bits"),
    Erratum(
        13,
        "TEE_TCB_INFO.VALID",
        ("X2: bit i covers bytes 8i..8i+7", "TDXM: bit i, a field starts at 8i"),
        "X2",
        reason="only the reading differs: 0x1FF, the value both write, is inconsistent with the second",
    ),
    Erratum(
        14,
        "TEE_TCB_SVN",
        ("X2: a 16-bit SVN and 14 reserved bytes", "PSL: minor, major, last-patch SE SVN"),
        "PSL",
        reason="PSL writes these bytes; X2's 16-bit number reads as the same minor and major",
    ),
    Erratum(
        15,
        "report VERSION in EVERIFYREPORT2",
        ("X2: 0", "TDXM: 1 when service TDs are bound"),
        "0 and 1",
        "verifyreport_versions",
    ),
    Erratum(
        16,
        "PCONFIG of a private KeyID outside SEAM",
        ("X2: ZF = 1, RAX = 3", "SDM: #GP(0)"),
        "#GP(0)",
        "pconfig_private_gp",
    ),
    Erratum(
        17, "IA32_TME_ACTIVATE written when locked", ("SDM: ignored", "TME: #GP(0)"), "ignored", "tme_locked_write_gp"
    ),
    Erratum(
        18,
        "SVN rule of a late ACM launch",
        ("X2: launch if the header's SVN is greater", "X2, lock bit: shutdown if it is less"),
        "equality may launch",
        "svn_equal_allowed",
    ),
    Erratum(
        19,
        "layout of IA32_SGX_SVN_STATUS",
        ("SDM: bit 0 and 23:16", "SEAMLDR interface: 63:56 is the SEAMLDR SVN"),
        "both",
        reason="the fields do not overlap, so the machine has all of them",
    ),
    Erratum(
        20,
        "ENTERACCS entry-point check",
        ("SDM pseudo-code: base + entry against the size", "OTX: the entry offset"),
        "the offset",
        reason="with base added the comparison could never hold for a module not at address 0",
    ),
    Erratum(
        21,
        "EXITAC loads CR3",
        ("SDM pseudo-code: CR3 := R8 if EFER.LMA", "SDM prose: silent"),
        "yes",
        reason="NP-SEAMLDR returns the caller's CR3 this way and could not return otherwise",
    ),
    Erratum(
        22,
        "where a SEAMEXTEND buffer may lie",
        ("COR: P_SEAMLDR_RANGE only", "NPS: ACRAM", "OTX: anywhere"),
        "P_SEAMLDR_RANGE for P-SEAMLDR, anywhere for an ACM",
        "seamextend_anywhere",
    ),
    Erratum(
        23,
        "events in SEAM root",
        ("SMI: all interrupts are blocked", "X2: NMI and INTR can be un-inhibited"),
        "X2",
        "events_blocked",
    ),
    Erratum(
        24,
        "NMI after a TD's NMI exit",
        ("early KVM: still blocked in the host", "NMI: SEAMRET finds it unblocked"),
        "unblocked",
        "nmi_blocked_after_td",
    ),
    Erratum(
        25,
        "P_SEAMLDR_RANGE",
        ("OTX: the top 32 MiB", "NPS: what P_SYS_INFO_TABLE says"),
        "the table",
        reason="the fixed 32 MiB is one platform's choice and a value of MCHECK here",
    ),
    Erratum(
        26,
        "number of cache sub-blocks",
        ("X2: NUM_CACHE_SUB_BLOCKS and MAX_CACHE_SUB_BLOCKS",),
        "one value",
        reason="two names for the count that both MSRs return",
    ),
    Erratum(
        27,
        "bit 29 of the exit reason",
        ("X2: 1 for SEAMCALL from root", "OTX: not set", 'TDXM: named "parallel"'),
        "1",
        "exit_bit29",
    ),
    Erratum(
        28,
        "ENTERACCS with SEAMRR disabled",
        ("OTX: #GP(0)", "SDM: no such check; NPS returns EBADRANGE"),
        "EBADRANGE",
        "enteraccs_needs_seamrr",
    ),
    Erratum(
        29,
        "P_SYS_INFO_TABLE bytes 64 and 65",
        ("NPS: SkipSMRR2Check, TDX_AC", "OTX: smrr2_not_supported, tdx_without_integrity"),
        "NPS names",
        reason="two spellings of the same two bits",
    ),
    Erratum(
        30,
        "PCONFIG outside SEAM",
        ("HWL: cannot be executed", "SDM, X2: only private KeyIDs are refused"),
        "SDM",
        "pconfig_needs_seam",
    ),
    Erratum(
        31,
        "width of SEAMRR",
        ("TDXM comment: base and size are 32-bit", "MSR fields reach MAXPA-1"),
        "the MSR fields",
        reason="a comment about one generation's placement, not about the register",
    ),
    Erratum(
        32,
        "R8 at the launch of NP-SEAMLDR",
        ("LNX, early series: SEAMLDR_PARAMS", "NPS 1.5: unused"),
        "unused",
        reason="the module was loaded by the ACM before P-SEAMLDR existed; this machine has P-SEAMLDR",
    ),
    Erratum(
        33,
        "NP-SEAMLDR's mutex",
        ("NPS, table comment: held for the whole run", "NPS, code: zeroed while held"),
        "the code",
        reason="the machine runs the steps of the code; the boot part shows the window",
    ),
    Erratum(
        34,
        "what MSR 0x1402 waits for",
        ("X3: IA32_PRMRR_PHYSBASE[11] = 1", "ISS29: that bit is reserved; PHYSMASK[11], VALID, is meant",
         "X2, PSL, NPS: no condition"),
        "PHYSMASK[11]",
        "seamextend_gate",
    ),
)
BY_NUMBER = {row.number: row for row in ERRATA}
