"""MSRs as declared data, and the RDMSR/WRMSR rules that follow from it.

Each MSR says its scope, who may read and write it, its bit ranges and its reset value.  RDMSR and WRMSR walk one
ordered check table each; what a successful write does besides storing is a small function per MSR.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

from seamref.arch.lp import Lp
from seamref.arch.outcome import Done, Fault, Vector
from seamref.arch.revision import SeamextendGate
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.trace import MsrWritten
from seamref.layout import Bit
from seamref.spec import CHOSEN, MEASURED, STATED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class Scope(Enum):
    """Which processors share one instance of an MSR."""

    CORE = "logical processor"
    PACKAGE = "package"
    PLATFORM = "platform"


class Access(Enum):
    """Who may read or write an MSR."""

    ANY = "any mode"
    SEAM = "SEAM only"
    LOADER = "P-SEAMLDR or ACM"
    NEVER = "#GP(0)"


@dataclass(frozen=True, slots=True)
class Msr:
    """One MSR.  ``reset`` is the value before anybody writes, or a function of the platform and the processor."""

    address: int
    name: str
    scope: Scope
    read: Access
    write: Access
    meaning: str
    source: str
    bits: tuple[Bit, ...] = ()
    reset: int | Callable[[Platform, Lp], int] = 0
    reserved: int | Callable[[Platform], int] = 0

    def bit(self, name: str) -> Bit:
        """A named bit range."""
        return next(bit for bit in self.bits if bit.name == name)


def _vmx(address: int) -> Callable[[Platform, Lp], int]:
    return lambda platform, lp: platform.config.vmx_msrs.get(address, 0)


def _above_maxpa(platform: Platform) -> int:
    return ~((1 << platform.config.maxpa) - 1) & ((1 << 64) - 1)


def _base_reserved(platform: Platform) -> int:
    low = 0x1FFFFFF & ~(8 if platform.revision.base_bit3_configured else 0)
    return _above_maxpa(platform) | low


def _mask_reserved(platform: Platform) -> int:
    return _above_maxpa(platform) | (0x1FFFFFF & ~0xC00)


def _partitioning(platform: Platform, lp: Lp) -> int:
    """NUM_MKTME_KIDS = 2**(k-p) - 1 and the private KeyIDs above (HWL), once TME is activated."""
    k, p = platform.keyid_bits, platform.tdx_keyid_bits
    if k == 0:
        return 0
    shared = 1 << (k - p)
    return (shared - 1) | ((1 << k) - shared) << 32


def _tme_capability(platform: Platform, lp: Lp) -> int:
    k = platform.config.max_keyid_bits
    return 0b1 | 0b10 | 1 << 31 | k << 32 | ((1 << k) - 1) << 36


def _intr_pending(platform: Platform, lp: Lp) -> int:
    return lp.intr_pending | lp.nmi_pending << 1 | lp.smi_pending << 2


def _sgx_svn_status(platform: Platform, lp: Lp) -> int:
    svn = platform.bios_se_svn
    return int(platform.svn_locked) | ((svn >> 16 & 0xFF) << 16) | ((svn >> 56) << 56)


def _mtrrcap(platform: Platform, lp: Lp) -> int:
    return 0x0A | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14 | (1 << 15 if platform.config.has_SEAM else 0)


C, K, Z = Scope.CORE, Scope.PACKAGE, Scope.PLATFORM
ANY, SEAM, LOADER, NEVER = Access.ANY, Access.SEAM, Access.LOADER, Access.NEVER

DECLARED: tuple[Msr, ...] = (
    Msr(0x1B, "IA32_APIC_BASE", C, ANY, ANY, "bit 8: bootstrap processor; software may write it", "SDM vol. 4", (
        Bit("bsp", 8, 8), Bit("x2apic", 10, 10), Bit("enable", 11, 11), Bit("base", 51, 12)),
        lambda p, lp: 0xFEE00C00 | lp.is_bsp << 8, 0xFF),
    Msr(0x3A, "IA32_FEATURE_CONTROL", C, ANY, ANY, "enables VMX and SMX", "SDM vol. 4", (
        Bit("lock", 0, 0), Bit("vmx_in_smx", 1, 1), Bit("vmx_outside_smx", 2, 2), Bit("senter", 14, 8),
        Bit("senter_global", 15, 15), Bit("sgx", 18, 18)), 0x4FF07),
    Msr(0x3B, "IA32_TSC_ADJUST", C, ANY, ANY, "TSC offset", "SDM vol. 4"),
    Msr(0x48, "IA32_SPEC_CTRL", C, ANY, ANY, "speculation control", "SDM vol. 4", (
        Bit("ibrs", 0, 0), Bit("stibp", 1, 1), Bit("ssbd", 2, 2)), 0, ~0x7FF & (1 << 64) - 1),
    Msr(0x49, "IA32_PRED_CMD", C, NEVER, ANY, "bit 0: indirect branch prediction barrier", "SDM vol. 4",
        (Bit("ibpb", 0, 0),), 0, ~0x81 & (1 << 64) - 1),
    Msr(0x87, "IA32_MKTME_KEYID_PARTITIONING", Z, ANY, NEVER, "number of shared and of TDX private KeyIDs",
        "SDM vol. 4", (Bit("num_mktme_kids", 31, 0), Bit("num_tdx_priv_kids", 63, 32)), _partitioning),
    Msr(0x8B, "IA32_BIOS_SIGN_ID", C, ANY, ANY, "microcode update signature", "SDM vol. 4"),
    Msr(0x98, "MSR_WBINVDP", K, SEAM, SEAM, "read: number of cache sub-blocks; write: write back and invalidate one",
        "X2 MSRs", (), lambda p, lp: p.config.cache_sub_blocks),
    Msr(0x99, "MSR_WBNOINVDP", K, SEAM, SEAM, "as MSR_WBINVDP, write back only", "X2 MSRs", (),
        lambda p, lp: p.config.cache_sub_blocks),
    Msr(0x9A, "MSR_INTR_PENDING", C, SEAM, NEVER, "pending events, whatever blocks them", "X2 MSRs", (
        Bit("intr", 0, 0), Bit("nmi", 1, 1), Bit("smi", 2, 2), Bit("other", 63, 3)), _intr_pending),
    Msr(0xBC, "IA32_MISC_PACKAGE_CTLS", K, ANY, ANY, "energy filtering", "SDM vol. 4", (
        Bit("energy_filtering_enable", 0, 0),), 1),
    Msr(0xBD, "IA32_XAPIC_DISABLE_STATUS", K, ANY, NEVER, "xAPIC legacy mode", "SDM vol. 4", (
        Bit("legacy_xapic_disabled", 0, 0),), 1),
    Msr(0xCF, "IA32_CORE_CAPABILITIES", C, ANY, NEVER, "core capabilities", "SDM vol. 4"),
    Msr(0xFE, "IA32_MTRRCAP", C, ANY, NEVER, "bit 15: SEAMRR present", "SDM vol. 4", (
        Bit("vcnt", 7, 0), Bit("fix", 8, 8), Bit("wc", 10, 10), Bit("smrr", 11, 11), Bit("prmrr", 12, 12),
        Bit("smrr2", 13, 13), Bit("smrr_lock", 14, 14), Bit("seamrr", 15, 15)), _mtrrcap),
    Msr(0x10A, "IA32_ARCH_CAPABILITIES", C, ANY, NEVER, "speculation properties", "SDM vol. 4", (), 0x20FD6B),
    Msr(0x151, "BIOS_DONE", Z, ANY, ANY, "bit 0: BIOS trusts nothing any more; NP-SEAMLDR waits for it",
        "NPS CodeStart.nasm", (Bit("enable_ia_untrusted", 0, 0),)),
    Msr(0x179, "IA32_MCG_CAP", C, ANY, NEVER, "machine check capabilities", "MCE", (
        Bit("count", 7, 0), Bit("seam_nr", 12, 12)), 0x101C1C),
    Msr(0x17A, "IA32_MCG_STATUS", C, ANY, ANY, "machine check status", "MCE", (
        Bit("ripv", 0, 0), Bit("eipv", 1, 1), Bit("mcip", 2, 2), Bit("seam_nr", 12, 12))),
    Msr(0x1A0, "IA32_MISC_ENABLE", C, ANY, ANY, "bit 22: limit CPUID maxval", "SDM vol. 4", (
        Bit("perfmon_available", 7, 7), Bit("bts_unavailable", 11, 11), Bit("limit_cpuid_maxval", 22, 22)), 0x80),
    Msr(0x1D9, "IA32_DEBUGCTL", C, ANY, ANY, "debug control", "SDM vol. 4", (Bit("btf", 1, 1),),
        lambda p, lp: lp.debugctl),
    Msr(0x1F2, "IA32_SMRR_PHYSBASE", C, ANY, ANY, "SMM range base", "SDM vol. 4"),
    Msr(0x1F3, "IA32_SMRR_PHYSMASK", C, ANY, ANY, "SMM range mask", "SDM vol. 4", (
        Bit("lock", 10, 10), Bit("valid", 11, 11))),
    Msr(0x1F6, "IA32_SMRR2_PHYSBASE", C, ANY, ANY, "second SMM range base, where MTRRCAP bit 13 is 1", "SDM vol. 4"),
    Msr(0x1F7, "IA32_SMRR2_PHYSMASK", C, ANY, ANY, "second SMM range mask", "SDM vol. 4", (
        Bit("lock", 10, 10), Bit("valid", 11, 11), Bit("mask", 31, 12))),
    Msr(0x1F5, "IA32_PRMRR_PHYS_MASK", C, ANY, ANY, "mask of processor reserved memory (set by BIOS)", "SDM vol. 4", (
        Bit("lock", 10, 10), Bit("valid", 11, 11), Bit("mask", 51, 12)), 0xC00, lambda p: _above_maxpa(p) | 0x3FF),
    Msr(0x277, "IA32_PAT", C, ANY, ANY, "page attribute table", "SDM vol. 4", (), lambda p, lp: lp.pat),
    Msr(0x2A0, "IA32_PRMRR_PHYS_BASE_0", C, ANY, ANY, "base of processor reserved memory (set by BIOS)", "SDM vol. 4", (
        Bit("configured", 3, 3), Bit("base", 51, 12)), 0, lambda p: _above_maxpa(p) | 0xFF0),
    Msr(0x302, "BIOS_SE_SVN", Z, ANY, ANY, "SE SVNs that BIOS and ACMs set until locked", "NPS CodeStart.nasm", (
        Bit("patch_at_reset", 7, 0), Bit("sinit", 23, 16), Bit("bios_acm", 31, 24), Bit("btg", 39, 32),
        Bit("bios_guard", 47, 40), Bit("seamldr", 63, 56)), lambda p, lp: p.bios_se_svn),
    Msr(0x345, "IA32_PERF_CAPABILITIES", C, ANY, NEVER, "bit 13: full-width counter writes", "SDM vol. 4", (
        Bit("freeze_while_smm", 12, 12), Bit("full_write", 13, 13)), 0x3000),
    Msr(0x480, "IA32_VMX_BASIC", C, ANY, NEVER, "VMCS revision, region size; bit 60: SEAMRET keeps the VMM's VMCS",
        "SDM vol. 4; SR4", (Bit("revision", 30, 0), Bit("region_size", 44, 32), Bit("no_seamret_invd_vmcs", 60, 60)),
        _vmx(0x480)),
    *(Msr(at, name, C, ANY, NEVER, "VMX capability", "SDM vol. 4", (), _vmx(at)) for at, name in (
        (0x481, "IA32_VMX_PINBASED_CTLS"), (0x482, "IA32_VMX_PROCBASED_CTLS"), (0x483, "IA32_VMX_EXIT_CTLS"),
        (0x484, "IA32_VMX_ENTRY_CTLS"), (0x485, "IA32_VMX_MISC"), (0x486, "IA32_VMX_CR0_FIXED0"),
        (0x487, "IA32_VMX_CR0_FIXED1"), (0x488, "IA32_VMX_CR4_FIXED0"), (0x489, "IA32_VMX_CR4_FIXED1"),
        (0x48B, "IA32_VMX_PROCBASED_CTLS2"), (0x48C, "IA32_VMX_EPT_VPID_CAP"),
        (0x48D, "IA32_VMX_TRUE_PINBASED_CTLS"), (0x48E, "IA32_VMX_TRUE_PROCBASED_CTLS"),
        (0x48F, "IA32_VMX_TRUE_EXIT_CTLS"), (0x490, "IA32_VMX_TRUE_ENTRY_CTLS"))),
    Msr(0x492, "IA32_VMX_PROCBASED_CTLS3", C, ANY, NEVER, "bit 5: GPAW, and with it Shared-EPTP and TD-KeyID",
        "X2 VMCS", (Bit("gpaw", 5, 5), Bit("virtual_spec_ctrl", 7, 7)), _vmx(0x492)),
    Msr(0x500, "IA32_SGX_SVN_STATUS", Z, ANY, NEVER, "lock and SVNs that decide which ACM may launch", "SDM vol. 4", (
        Bit("lock", 0, 0), Bit("sgx_svn_sinit", 23, 16), Bit("seamldr_svn", 63, 56)), _sgx_svn_status),
    Msr(0x401, "IA32_MC0_STATUS", C, ANY, ANY, "machine check bank 0", "SDM vol. 4", (
        Bit("uc", 61, 61, "uncorrected"), Bit("val", 63, 63, "valid"))),
    Msr(0x503, "SGX_DEBUG_MODE", Z, ANY, NEVER, "bit 1: debug unlocked", "PSL msr_defs.h", (
        Bit("npk_request", 0, 0), Bit("debug_unlock", 1, 1)), lambda p, lp: int(p.config.debug_unlocked) << 1),
    Msr(0x981, "IA32_TME_CAPABILITY", K, ANY, NEVER, "memory encryption capabilities", "TME section 4", (
        Bit("aes_xts_128", 0, 0), Bit("aes_xts_128_integrity", 1, 1), Bit("aes_xts_256", 2, 2), Bit("bypass", 31, 31),
        Bit("max_keyid_bits", 35, 32), Bit("max_keys", 50, 36)), _tme_capability),
    Msr(0x982, "IA32_TME_ACTIVATE", K, ANY, ANY, "activates TME and splits the KeyIDs", "TME section 4", (
        Bit("lock", 0, 0), Bit("enable", 1, 1), Bit("key_select", 2, 2), Bit("save_key", 3, 3), Bit("policy", 7, 4),
        Bit("bypass_enable", 31, 31), Bit("keyid_bits", 35, 32, "k"), Bit("tdx_reserved_keyid_bits", 39, 36, "p"),
        Bit("algorithms", 63, 48)), 0, 0x0000FF007FFFFE00),
    Msr(0x983, "IA32_TME_EXCLUDE_MASK", K, ANY, ANY, "range not encrypted", "TME section 4"),
    Msr(0x984, "IA32_TME_EXCLUDE_BASE", K, ANY, ANY, "range not encrypted", "TME section 4"),
    Msr(0x1400, "IA32_SEAMRR_PHYS_BASE", C, ANY, ANY, "base of SEAM memory", "X2 SEAMRR", (
        Bit("configured", 3, 3, "BIOS configured the range"),
        Bit("base", 51, 25, "32 MiB aligned")), 0, _base_reserved),
    Msr(0x1401, "IA32_SEAMRR_PHYS_MASK", C, ANY, ANY, "mask of SEAM memory", "X2 SEAMRR", (
        Bit("lock", 10, 10, "neither register can be written any more"),
        Bit("valid", 11, 11, "the range exists; SEAMCALL looks at this bit"),
        Bit("mask", 51, 25, "its lowest 1 is the size")), 0, _mask_reserved),
    Msr(0x1402, "IA32_SEAMEXTEND", Z, NEVER, LOADER,
        "command: physical address of a SEAMEXTEND buffer; bit 0 = 1 copies the register out, 0 copies it in",
        "PSL helpers.c", (Bit("copy_out", 0, 0, "1: register to memory, 0: memory to register"),
                          Bit("buffer", 51, 8, "physical address of 136 bytes")), 0,
        lambda p: _above_maxpa(p) | 0xFE),
    Msr(0xC0000080, "IA32_EFER", C, ANY, ANY, "extended features", "SDM vol. 4", (
        Bit("sce", 0, 0), Bit("lme", 8, 8), Bit("lma", 10, 10), Bit("nxe", 11, 11)), lambda p, lp: lp.efer,
        ~0xD01 & (1 << 64) - 1),
)
MSRS: dict[int, Msr] = {msr.address: msr for msr in DECLARED}
BY_NAME: dict[str, Msr] = {msr.name: msr for msr in DECLARED}


def bits(address: int, name: str) -> Bit:
    """A named bit range of an MSR, to take it out of a value or put it in."""
    return MSRS[address].bit(name)


SEAMRR_BASE, SEAMRR_MASK, SEAMEXTEND_MSR, TME_ACTIVATE = 0x1400, 0x1401, 0x1402, 0x982
SEAMRR_LOCK, SEAMRR_VALID = bits(SEAMRR_MASK, "lock").mask, bits(SEAMRR_MASK, "valid").mask
SMRR_BASE, SMRR_MASK, SMRR2_BASE, SMRR2_MASK = 0x1F2, 0x1F3, 0x1F6, 0x1F7
BIOS_SE_SVN, BIOS_DONE, VMX_BASIC, MCG_STATUS = 0x302, 0x151, 0x480, 0x17A
SPEC_CTRL, PRED_CMD, MISC_ENABLE, KEYID_PARTITIONING, SGX_DEBUG_MODE = 0x48, 0x49, 0x1A0, 0x87, 0x503

PRMRR_BASE, PRMRR_MASK = 0x2A0, 0x1F5
PAT, EFER, BIOS_SIGN_ID = 0x277, 0xC0000080, 0x8B
APIC_BASE, MTRRCAP = 0x1B, 0xFE

GP0 = Fault(Vector.GP, 0, "")


@dataclass(frozen=True, slots=True)
class MsrAccess:
    """What the RDMSR and WRMSR checks look at."""

    platform: Platform
    lp: Lp
    address: int
    value: int
    msr: Msr | None
    from_vmx_list: bool

    @property
    def known(self) -> Msr:
        """The declaration; rows behind the one for unknown MSRs may ask for it."""
        assert self.msr is not None
        return self.msr


def _may(access: Access, lp: Lp) -> bool:
    match access:
        case Access.ANY:
            return True
        case Access.SEAM:
            return lp.inSEAM
        case Access.LOADER:
            return (lp.is_SEAM_root() and lp.inP_SEAMLDR) or lp.ACMODEFLAG
        case Access.NEVER:
            return False


def _reserved(c: MsrAccess) -> bool:
    reserved = c.known.reserved
    mask = reserved if isinstance(reserved, int) else reserved(c.platform)
    return bool(c.value & mask)


def _seamrr_locked(c: MsrAccess) -> bool:
    """LOCK=1 refuses, but for VALID toggled by an ACM (NPS; errata 7)."""
    if c.address not in (SEAMRR_BASE, SEAMRR_MASK):
        return False
    mask = c.platform.msr_value(c.lp, SEAMRR_MASK)
    if not mask & 1 << 10:
        return False
    toggles_valid = c.address == SEAMRR_MASK and not (c.value ^ mask) & ~(1 << 11)
    return not (toggles_valid and c.lp.ACMODEFLAG and c.platform.revision.seamrr_ac_unlock)


def _seamextend_buffer(c: MsrAccess) -> bool:
    """P-SEAMLDR's buffer lies in P_SEAMLDR_RANGE (COR); an ACM's in ACRAM, so only P-SEAMLDR's is judged."""
    if c.address != SEAMEXTEND_MSR or c.platform.revision.seamextend_anywhere or c.lp.ACMODEFLAG:
        return False
    at = c.value & ~0xFF
    held = c.platform.p_seamldr_range
    return held is None or not held[0] <= at <= held[0] + held[1] - SEAMEXTEND.size


def _tme_value(c: MsrAccess) -> bool:
    """p > k, k above the capability, or k > 0 with enable = 0 (TME)."""
    if c.address != TME_ACTIVATE:
        return False
    k, p = c.value >> 32 & 0xF, c.value >> 36 & 0xF
    return p > k or k > c.platform.config.max_keyid_bits or (k > 0 and not c.value & 2)


def _tme_locked(c: MsrAccess) -> bool:
    return (
        c.address == TME_ACTIVATE
        and c.platform.revision.tme_locked_write_gp
        and bool(c.platform.msr_value(c.lp, TME_ACTIVATE) & 1)
    )


RDMSR: CheckTable[MsrAccess, Fault] = CheckTable("RDMSR", (
    Check("RDMSR.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, GP0, "SDM vol. 2B RDMSR"),
    Check("RDMSR.unknown", "no such MSR", lambda c: c.msr is None, GP0, "SDM vol. 2B RDMSR"),
    Check("RDMSR.vmx_list", "MSR_WBINVDP, MSR_WBNOINVDP through a VMX MSR list",
          lambda c: c.from_vmx_list and c.address in (0x98, 0x99), GP0, "X2 MSRs"),
    Check("RDMSR.mode", "MSR may not be read in this mode", lambda c: not _may(c.known.read, c.lp), GP0, "X2 MSRs"),
), "RDMSR: conditions in order; every result is #GP(0).")

WRMSR: CheckTable[MsrAccess, Fault] = CheckTable("WRMSR", (
    Check("WRMSR.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, GP0, "SDM vol. 2B WRMSR"),
    Check("WRMSR.unknown", "no such MSR", lambda c: c.msr is None, GP0, "SDM vol. 2B WRMSR"),
    Check("WRMSR.vmx_list", "MSR_WBINVDP, MSR_WBNOINVDP through a VMX MSR list",
          lambda c: c.from_vmx_list and c.address in (0x98, 0x99), GP0, "X2 MSRs"),
    Check("WRMSR.mode", "MSR may not be written in this mode", lambda c: not _may(c.known.write, c.lp), GP0, "X2 MSRs"),
    Check("WRMSR.reserved", "a reserved bit is 1", _reserved, GP0, "SDM vol. 2B WRMSR"),
    Check("WRMSR.sub_block", "cache sub-block index not below the count",
          lambda c: c.address in (0x98, 0x99) and c.value >= c.platform.config.cache_sub_blocks, GP0, "X2 MSRs"),
    Check("WRMSR.seamrr_lock", "SEAMRR is locked", _seamrr_locked, GP0, "X2 SEAMRR; NPS SeamldrCore64.c"),
    Check("WRMSR.seamextend_prmrr", "IA32_SEAMEXTEND while IA32_PRMRR_PHYS_MASK.VALID = 0",
          lambda c: c.address == SEAMEXTEND_MSR and not c.platform.msr_value(c.lp, PRMRR_MASK) & 1 << 11, GP0,
          "ISS29; X3 MSRs as corrected there",
          applies=lambda r: r is None or r.seamextend_gate is SeamextendGate.PHYSMASK),
    Check("WRMSR.seamextend_prmrr_base", "IA32_SEAMEXTEND while IA32_PRMRR_PHYS_BASE_0[11] = 0, as printed",
          lambda c: c.address == SEAMEXTEND_MSR and not c.platform.msr_value(c.lp, PRMRR_BASE) & 1 << 11, GP0,
          "X3 MSRs; ISS29", applies=lambda r: r is not None and r.seamextend_gate is SeamextendGate.PHYSBASE),
    Check("WRMSR.seamextend_buffer", "SEAMEXTEND buffer outside P_SEAMLDR_RANGE", _seamextend_buffer, GP0,
          "COR seam.c", CHOSEN),
    Check("WRMSR.tme_locked", "IA32_TME_ACTIVATE is locked", _tme_locked, GP0, "TME table 4-3",
          applies=lambda r: r is None or r.tme_locked_write_gp),
    Check("WRMSR.tme_value", "p > k, k > maximum, or k > 0 with enable = 0", _tme_value, GP0, "TME section 4"),
    Check("WRMSR.se_svn_patch", "BIOS_SE_SVN: patch-at-reset not 0",
          lambda c: c.address == BIOS_SE_SVN and bool(c.value & 0xFF), GP0, "NPS CodeStart.nasm", MEASURED),
    Check("WRMSR.se_svn_locked", "BIOS_SE_SVN is locked",
          lambda c: c.address == BIOS_SE_SVN and c.platform.svn_locked, GP0, "SEAMREF errata", CHOSEN,
          applies=lambda r: r is not None and r.locked_se_svn_write_gp),
), "WRMSR: conditions in order; every result is #GP(0).")


def _gp(row: Check[MsrAccess, Fault]) -> Fault:
    return Fault(row.result.vector, row.result.code, row.id)


@implements("RDMSR.value", "EDX:EAX := the MSR", "SDM vol. 2B RDMSR")
def rdmsr(platform: Platform, lp_id: int, address: int, *, from_vmx_list: bool = False) -> int | Fault:
    """RDMSR.value: the value of an MSR on a processor, or #GP(0)."""
    lp = platform.lp(lp_id)
    access = MsrAccess(platform, lp, address, 0, MSRS.get(address), from_vmx_list)
    if (row := RDMSR.decide(access, platform.revision)) is not None:
        return _gp(row)
    return platform.msr_value(lp, address)


@implements("WRMSR.effect", "the MSR takes the value, or does what its value commands", "SDM vol. 2B WRMSR")
def wrmsr(platform: Platform, lp_id: int, address: int, value: int, *, from_vmx_list: bool = False) -> Done | Fault:
    """WRMSR.effect: write an MSR; #GP(0) by the WRMSR table, else the effect of the MSR."""
    lp = platform.lp(lp_id)
    access = MsrAccess(platform, lp, address, value, MSRS.get(address), from_vmx_list)
    if (row := WRMSR.decide(access, platform.revision)) is not None:
        return _gp(row)
    effect = _EFFECTS.get(address)
    if effect is None:
        platform.set_msr(lp, address, value)
    else:
        effect(platform, lp, value)
    if platform.listeners:
        platform.emit(MsrWritten(lp_id, address, value))
    return Done("WRMSR.effect")


clause("WRMSR.seamextend", "bit 0 = 1: register to memory; bit 0 = 0: memory to register, all 136 bytes",
       "PSL helpers.c", MEASURED)
clause("WRMSR.se_svn_ignored", "after the lock a write of BIOS_SE_SVN has no effect", "SEAMREF errata", CHOSEN)
clause("WRMSR.tme_ignored", "after the lock a write of IA32_TME_ACTIVATE has no effect", "SDM vol. 4", STATED)


@implements("WRMSR.seamextend")
def _seamextend(platform: Platform, lp: Lp, value: int) -> None:
    from seamref.arch.memory import Agent

    at = value & ~1
    if lp.acram is not None and lp.acram_base <= at <= lp.acram_base + len(lp.acram) - SEAMEXTEND.size:
        inside = at - lp.acram_base  # an ACM's buffer is in the processor's own memory
        if value & 1:
            lp.acram = lp.acram[:inside] + platform.SEAMEXTEND + lp.acram[inside + SEAMEXTEND.size :]
        else:
            platform.set_SEAMEXTEND(lp, lp.acram[inside : inside + SEAMEXTEND.size])
    elif value & 1:
        platform.store(Agent.CPU, at, platform.SEAMEXTEND, lp=lp)
    else:
        platform.set_SEAMEXTEND(lp, platform.bytes_at(Agent.CPU, at, SEAMEXTEND.size, lp=lp))


@implements("WRMSR.tme_ignored")
def _tme_activate(platform: Platform, lp: Lp, value: int) -> None:
    if not platform.msr_value(lp, TME_ACTIVATE) & 1:
        platform.set_msr(lp, TME_ACTIVATE, value | 1)  # the first successful write locks (TME section 4)
        platform.keyid_layout_changed()


@implements("WRMSR.se_svn_ignored")
def _bios_se_svn(platform: Platform, lp: Lp, value: int) -> None:
    if not platform.svn_locked:
        platform.bios_se_svn = value


def _flush(platform: Platform, lp: Lp, value: int) -> None:
    platform.flushed_sub_blocks = platform.flushed_sub_blocks | {(lp.package, value)}


def _lp_register(name: str) -> Callable[[Platform, Lp, int], None]:
    def write(platform: Platform, lp: Lp, value: int) -> None:
        setattr(lp, name, value)

    return write


def _apic_base(platform: Platform, lp: Lp, value: int) -> None:
    lp.is_bsp = bool(value & 1 << 8)


def _pred_cmd(platform: Platform, lp: Lp, value: int) -> None:
    if value & 1:
        lp.ibrs_barriers += 1


_EFFECTS: dict[int, Callable[[Platform, Lp, int], None]] = {
    SEAMEXTEND_MSR: _seamextend,
    TME_ACTIVATE: _tme_activate,
    BIOS_SE_SVN: _bios_se_svn,
    0x98: _flush,
    0x99: _flush,
    0x1B: _apic_base,
    0x1D9: _lp_register("debugctl"),
    0x277: _lp_register("pat"),
    0xC0000080: _lp_register("efer"),
    PRED_CMD: _pred_cmd,
}
