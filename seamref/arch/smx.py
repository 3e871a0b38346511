"""Safer mode extensions, as far as an authenticated code module (ACM) needs them (SDM vol. 2D, chapter 7).

GETSEC[CAPABILITIES], [PARAMETERS], [ENTERACCS], [EXITAC]; the platform reset that a TXT shutdown is.  The code of an
ACM is something the platform *runs*: an :class:`AcProgram` is found by the bytes at the entry point inside the
authenticated code RAM (ACRAM), a copy in the processor that nobody outside can change any more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha384
from typing import TYPE_CHECKING, Protocol, TypeAlias, assert_never

from seamref.arch import msr
from seamref.arch.acm import ACM_HEADER, HEADERS, signed_bytes
from seamref.arch.areas import is_canonical
from seamref.arch.events import Delivered, Discarded, EventKind, raise_event
from seamref.arch.lp import (
    CR0_CD,
    CR0_NE,
    CR0_NW,
    CR0_PE,
    CR0_PG,
    CR0_WP,
    CR4_LA57,
    CR4_MCE,
    CR4_SMXE,
    EFER_LMA,
    RFLAGS_RESET,
    Activity,
    Lp,
)
from seamref.arch.memory import Agent
from seamref.arch.outcome import ExitReason, Fault, TxtShutdown, Vector, VmExit
from seamref.arch.rsa import is_signed
from seamref.arch.software import ENDBR64_JMP, STUB, MemoryFault, Port, Running, SoftwareFault, Ud2
from seamref.arch.store import Store
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.trace import InstructionEnded, WentDown
from seamref.arch.vmx import vm_exit
from seamref.errors import LayoutError, NotModelled, SeamrefError
from seamref.spec import CHOSEN, MEASURED, STATED, Check, CheckTable, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

CAPABILITIES, ENTERACCS, EXITAC, PARAMETERS = 0, 2, 3, 6
"""GETSEC leaves in EAX."""

ACRAM_CAPACITY = 0x80000
"""Bytes of the authenticated code RAM (chosen; parts differ)."""
SUPPORTED_VERSION = 0x30000
"""The header version this processor authenticates (chosen; parts differ)."""
SMALLEST = ACM_HEADER.size
"""Bytes below which ENTERACCS refuses (chosen: the header with its scratch area)."""

CR0_AM, CR4_PCIDE, CR4_CET = 1 << 18, 1 << 17, 1 << 23

UD = Fault(Vector.UD, None, "")
GP0 = Fault(Vector.GP, 0, "")


@dataclass(frozen=True, slots=True)
class TxtCause:
    """A reason for a TXT shutdown: mnemonic and the type that TXT.ERRORCODE keeps."""

    mnemonic: str
    code: int

    def __str__(self) -> str:
        return f"TXT shutdown {self.mnemonic} ({self.code})"


LEGACY_SHUTDOWN = TxtCause("legacy shutdown", 0)
BAD_ACMM_TYPE = TxtCause("#BadACMMType", 5)
UNSUPPORTED_ACM = TxtCause("#UnsupportedACM", 6)
AUTHENTICATE_FAIL = TxtCause("#AuthenticateFail", 7)
BAD_ACM_FORMAT = TxtCause("#BadACMFormat", 8)
UNEXPECTED_HITM = TxtCause("#UnexpectedHITM", 9)

CAUSES: tuple[TxtCause, ...] = (
    LEGACY_SHUTDOWN, BAD_ACMM_TYPE, UNSUPPORTED_ACM, AUTHENTICATE_FAIL, BAD_ACM_FORMAT, UNEXPECTED_HITM,
)


@dataclass(frozen=True, slots=True)
class EnteredAc:
    """ENTERACCS entered authenticated code mode at this address."""

    entry: int
    clause: str

    def __str__(self) -> str:
        return f"entered authenticated code at 0x{self.entry:X}"


@dataclass(frozen=True, slots=True)
class ExitedAc:
    """EXITAC left authenticated code mode to this address."""

    target: int
    clause: str

    def __str__(self) -> str:
        return "left authenticated code mode"


@dataclass(frozen=True, slots=True)
class Registers:
    """What a GETSEC leaf leaves in EAX, EBX and ECX."""

    eax: int
    ebx: int
    ecx: int
    clause: str


EnteraccsOutcome: TypeAlias = Fault | VmExit | TxtShutdown | EnteredAc
ExitacOutcome: TypeAlias = Fault | VmExit | ExitedAc
AcStep: TypeAlias = Running | ExitedAc | TxtShutdown
"""A step of an ACM."""
AcRun: TypeAlias = Fault | VmExit | TxtShutdown | ExitedAc
"""A whole launch: refused, or how the stay in authenticated code mode ended."""


# --- the chipset's TXT registers


def has_txt(platform: Platform) -> bool:
    """Whether a TXT-capable chipset is there."""
    return bool(platform.txt.get("CHIPSET", 1))


def txt_sts(platform: Platform) -> int:
    """TXT.STS, the dword at FED20000H: all ones while the private space is closed; bit 0: SENTER was done."""
    return platform.txt.get("STS", 0) if platform.txt.get("PRIVATE_SPACE") else 0xFFFFFFFF


def key_hash(modulus: bytes) -> int:
    """What TXT.PUBLIC.KEY holds of a key: SHA-384 of the modulus bytes, as a little-endian number (chosen)."""
    return int.from_bytes(sha384(modulus).digest(), "little")


# --- GETSEC[CAPABILITIES] and [PARAMETERS]


@dataclass(frozen=True, slots=True)
class GetsecState:
    """What every GETSEC leaf looks at first."""

    platform: Platform
    lp: Lp


_EXIT = VmExit(ExitReason.GETSEC, 0, False, "")

GETSEC: CheckTable[GetsecState, Fault | VmExit] = CheckTable("GETSEC", (
    Check("GETSEC.smxe", "CR4.SMXE = 0", lambda c: not c.lp.cr4 & CR4_SMXE, UD, "SDM vol. 2D GETSEC"),
    Check("GETSEC.non_root", "in VMX non-root operation", lambda c: c.lp.non_root, _EXIT, "SDM vol. 2D GETSEC"),
    Check("GETSEC.leaf", "the leaf is not one that GETSEC[CAPABILITIES] reports",
          lambda c: c.lp.rax & 0xFFFFFFFF not in _supported(c.platform), UD, "SDM vol. 2D GETSEC"),
), "Every GETSEC leaf, before its own conditions.")


def _supported(platform: Platform) -> frozenset[int]:
    """Leaves that may be executed: CAPABILITIES and PARAMETERS always, the others with a TXT chipset."""
    leaves = {CAPABILITIES, PARAMETERS}
    return frozenset(leaves | {ENTERACCS, EXITAC} if has_txt(platform) else leaves)


def _decide(platform: Platform, lp: Lp, leaf: int) -> Fault | VmExit | None:
    lp.rax = leaf
    row = GETSEC.decide(GetsecState(platform, lp), platform.revision)
    if row is None:
        return None
    match row.result:
        case Fault(vector=vector, code=code):
            return Fault(vector, code, row.id)
        case VmExit(reason=reason):
            return vm_exit(platform, lp, VmExit(reason, 0, False, row.id), 2)
        case _ as never:
            assert_never(never)


@implements("GETSEC.capabilities", "EAX: bit 0 TXT chipset, bit i: leaf i", "SDM vol. 2D GETSEC[CAPABILITIES]")
def getsec_capabilities(platform: Platform, lp_id: int) -> Registers | Fault | VmExit:
    """GETSEC.capabilities: GETSEC with EAX=0, EBX=0.  SENTER, SEXIT, SMCTRL and WAKEUP are not modelled: bits 0."""
    lp = platform.lp(lp_id)
    refused = _decide(platform, lp, CAPABILITIES)
    if refused is not None:
        return refused
    bits = sum(1 << leaf for leaf in _supported(platform) if leaf) | int(has_txt(platform))
    lp.rax = bits
    return Registers(bits, 0, 0, "GETSEC.capabilities")


def _parameters(platform: Platform) -> tuple[tuple[int, int, int], ...]:
    """EAX, EBX, ECX for each index, the terminator last."""
    return (
        (1, 0xFFFFFFFF, SUPPORTED_VERSION),
        (2 | (ACRAM_CAPACITY // 32) << 5, 0, 0),
        (3 | 1 << 12, 0, 0),
        (5 | platform.txt.get("MC_HANDLED", 0) << 6, 0, 0),
        (0, 0, 0),
    )


@implements("GETSEC.parameters", "EAX[4:0] type of the EBX-th parameter: 1 header versions (mask, version), 2 ACRAM "
            "capacity (EAX[31:5] * 32 bytes), 3 memory types, 5 extensions (bit 6: machine checks handled), 0 end",
            "SDM vol. 2D GETSEC[PARAMETERS]")
def getsec_parameters(platform: Platform, lp_id: int, index: int) -> Registers | Fault | VmExit:
    """GETSEC.parameters: GETSEC with EAX=6, EBX=``index``."""
    lp = platform.lp(lp_id)
    refused = _decide(platform, lp, PARAMETERS)
    if refused is not None:
        return refused
    listed = _parameters(platform)
    lp.rax, lp.rbx, lp.rcx = listed[min(index, len(listed) - 1)]
    return Registers(lp.rax, lp.rbx, lp.rcx, "GETSEC.parameters")


def machine_checks_handled(platform: Platform) -> bool:
    """GETSEC[PARAMETERS] type 5 bit 6: the ACM deals with machine checks itself."""
    return any(eax & 0x1F == 5 and eax & 1 << 6 for eax, _, _ in _parameters(platform))


# --- GETSEC[ENTERACCS]: before anything changes


@dataclass(frozen=True, slots=True)
class EnteraccsState:
    """What ENTERACCS's faults look at: EBX is the module's physical base, ECX its size in bytes."""

    platform: Platform
    lp: Lp

    @property
    def base(self) -> int:
        return self.lp.rbx & 0xFFFFFFFF

    @property
    def size(self) -> int:
        return self.lp.rcx & 0xFFFFFFFF

    def siblings(self) -> list[Lp]:
        """The other processors of this package."""
        return [lp for lp in self.platform.every_lp() if lp.package == self.lp.package and lp.id != self.lp.id]


def _uncorrected(c: EnteraccsState) -> bool:
    status = c.lp.msrs.get(0x401, 0)
    return bool(status >> 63 & 1 and status >> 61 & 1) and not machine_checks_handled(c.platform)


def _seamrr_off(c: EnteraccsState) -> bool:
    return not c.lp.msrs.get(msr.SEAMRR_MASK, 0) & msr.SEAMRR_VALID


_S = "SDM vol. 2D GETSEC[ENTERACCS]"

ENTERACCS_FAULTS: CheckTable[EnteraccsState, Fault] = CheckTable("ENTERACCS.faults", (
    Check("ENTERACCS.vmx", "in VMX operation", lambda c: c.lp.vmx_on, GP0, _S),
    Check("ENTERACCS.cr0_pe", "CR0.PE = 0", lambda c: not c.lp.cr0 & CR0_PE, GP0, _S),
    Check("ENTERACCS.cr0_cd", "CR0.CD = 1", lambda c: bool(c.lp.cr0 & CR0_CD), GP0, _S),
    Check("ENTERACCS.cr0_nw", "CR0.NW = 1", lambda c: bool(c.lp.cr0 & CR0_NW), GP0, _S),
    Check("ENTERACCS.cr0_ne", "CR0.NE = 0", lambda c: not c.lp.cr0 & CR0_NE, GP0, _S),
    Check("ENTERACCS.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, GP0, _S),
    Check("ENTERACCS.vm86", "RFLAGS.VM = 1", lambda c: bool(c.lp.rflags & 1 << 17), GP0, _S),
    Check("ENTERACCS.bsp", "not the bootstrap processor (IA32_APIC_BASE.BSP = 0)", lambda c: not c.lp.is_bsp, GP0, _S),
    Check("ENTERACCS.acmode", "already in authenticated code mode", lambda c: c.lp.ACMODEFLAG, GP0, _S),
    Check("ENTERACCS.smm", "in SMM", lambda c: c.lp.in_smm, GP0, _S),
    Check("ENTERACCS.seamrr", "SEAMRR is disabled", _seamrr_off, GP0, "OTX arch/x86/kvm/vmx/smx.c", MEASURED,
          applies=lambda r: r is not None and r.enteraccs_needs_seamrr),
    Check("ENTERACCS.mci_status", "an uncorrected error in a machine-check bank (unless PARAMETERS type 5 bit 6)",
          _uncorrected, GP0, _S),
    Check("ENTERACCS.mcip", "IA32_MCG_STATUS.MCIP = 1, or IERR",
          lambda c: bool(c.lp.msrs.get(0x17A, 0) & 4 or c.platform.txt.get("IERR")), GP0, _S),
    Check("ENTERACCS.base_aligned", "base not a multiple of 4096", lambda c: bool(c.base % 4096), GP0, _S),
    Check("ENTERACCS.size_aligned", "size not a multiple of 64", lambda c: bool(c.size % 64), GP0, _S),
    Check("ENTERACCS.size_least", "size below the smallest module", lambda c: c.size < SMALLEST, GP0, _S),
    Check("ENTERACCS.size_most", "size above the ACRAM's capacity", lambda c: c.size > ACRAM_CAPACITY, GP0, _S),
    Check("ENTERACCS.below_4g", "base + size above 2^32 - 1", lambda c: c.base + c.size > 0xFFFFFFFF, GP0, _S),
    Check("ENTERACCS.sibling_cd", "another processor of the package has CR0.CD = 1",
          lambda c: any(lp.cr0 & CR0_CD for lp in c.siblings()), GP0, _S),
    Check("ENTERACCS.sibling_idle", "another processor of the package is neither in wait-for-SIPI nor in SENTER sleep",
          lambda c: any(lp.activity not in (Activity.WAIT_FOR_SIPI, Activity.SENTER_SLEEP) for lp in c.siblings()),
          GP0, _S),
), "GETSEC[ENTERACCS]: faults, in order; nothing has changed when one is taken.")


# --- GETSEC[ENTERACCS]: the module is loaded and judged


@dataclass(frozen=True, slots=True)
class AcmState:
    """What ENTERACCS judges after it has loaded the module into ACRAM: ``acram`` is ``size`` bytes from ``base``."""

    platform: Platform
    lp: Lp
    base: int
    acram: bytes

    def header(self, name: str) -> int:
        """An integer of the header, read as version 3."""
        value: int = ACM_HEADER.peek(self.acram, name)
        return value

    @property
    def code_from(self) -> int:
        """First byte behind header and scratch area, as the header itself states it."""
        return 4 * (self.header("HeaderLen") + self.header("ScratchSize"))

    @property
    def snoop_hit(self) -> bool:
        """A modified line of another agent was hit while loading."""
        return bool(self.platform.txt.get("SNOOP_HIT"))

    def is_authentic(self) -> bool:
        """The key is the one the chipset knows, and the signature is that key's over the signed bytes."""
        modulus = ACM_HEADER.peek(self.acram, "RSAPubKey")
        if key_hash(modulus) != self.platform.txt.get("PUBLIC_KEY"):
            return False
        try:
            return is_signed(modulus, ACM_HEADER.peek(self.acram, "RSASig"), signed_bytes(self.acram))
        except LayoutError:
            return False

    def has_stale_svn(self) -> bool:
        """SGX SVN rule: after the lock a module's SE SVN must not be below the one in BIOS_SE_SVN."""
        if not self.platform.svn_locked:
            return False
        floor = self.platform.bios_se_svn >> 56
        svn = self.header("SeSvn") & 0xFF
        return svn < floor or (svn == floor and not self.platform.revision.svn_equal_allowed)

    def has_bad_segment(self) -> bool:
        """SegSel below 8, above GDTLimit - 15, or with TI or RPL bits."""
        selector = self.header("SegSel")
        return selector < 8 or selector > self.header("GDTLimit") - 15 or bool(selector & 7)


def _not_wb(c: AcmState) -> bool:
    ranges: tuple[tuple[int, int], ...] = c.platform.board.get("not_write_back", ())
    return any(c.base < at + size and at < c.base + len(c.acram) for at, size in ranges)


ENTERACCS_MODULE: CheckTable[AcmState, TxtCause] = CheckTable("ENTERACCS.module", (
    Check("ENTERACCS.memory_type", "the module's memory is not write-back", _not_wb, BAD_ACMM_TYPE, _S),
    Check("ENTERACCS.version", "header version not supported", lambda c: c.header("HeaderVersion") != SUPPORTED_VERSION,
          UNSUPPORTED_ACM, _S),
    Check("ENTERACCS.type", "ModuleType is not 2", lambda c: c.header("ModuleType") != 2, UNSUPPORTED_ACM, _S),
    Check("ENTERACCS.authenticate",
          "the key's hash is not TXT.PUBLIC.KEY, or the signature is not that key's over the module",
          lambda c: not c.is_authentic(), AUTHENTICATE_FAIL, _S),
    Check("ENTERACCS.svn", "IA32_SGX_SVN_STATUS.LOCK = 1 and the header's SE SVN is below BIOS_SE_SVN",
          lambda c: c.has_stale_svn(), UNSUPPORTED_ACM, "X2 IA32_SGX_SVN_STATUS", CHOSEN),
    Check("ENTERACCS.hitm", "CodeControl[1:0] = 10b and a modified line was hit while loading",
          lambda c: c.header("CodeControl") & 3 == 2 and c.snoop_hit, UNEXPECTED_HITM, _S),
    Check("ENTERACCS.code_control", "CodeControl has a reserved bit", lambda c: bool(c.header("CodeControl") & ~3),
          BAD_ACM_FORMAT, _S, CHOSEN),
    Check("ENTERACCS.gdt_base", "GDTBasePtr inside header or scratch area",
          lambda c: c.header("GDTBasePtr") < c.code_from, BAD_ACM_FORMAT, _S),
    Check("ENTERACCS.gdt_end", "GDTBasePtr + GDTLimit at or behind the module's end",
          lambda c: c.header("GDTBasePtr") + c.header("GDTLimit") >= len(c.acram), BAD_ACM_FORMAT, _S),
    Check("ENTERACCS.entry", "EntryPoint inside header or scratch area, or behind the module's end",
          lambda c: not c.code_from <= c.header("EntryPoint") < len(c.acram), BAD_ACM_FORMAT, _S),
    Check("ENTERACCS.gdt_limit", "GDTLimit above FFFFH", lambda c: c.header("GDTLimit") > 0xFFFF, BAD_ACM_FORMAT, _S),
    Check("ENTERACCS.segsel", "SegSel below 8, above GDTLimit - 15, or with TI or RPL set",
          lambda c: c.has_bad_segment(), BAD_ACM_FORMAT, _S),
), "GETSEC[ENTERACCS] after the module was loaded into ACRAM: each row is a TXT shutdown.")

clause("ENTERACCS.effect", "mask SMI, NMI, INIT; TLB flush; authenticated code mode; load ACRAM; flat 32-bit code at "
       "base + EntryPoint", _S)
clause("ENTERACCS.error_entry", "CodeControl[1:0] = 11b and a modified line was hit: entry is ErrorEntryPoint", _S)


def enteraccs(platform: Platform, lp_id: int, base: int | None = None, size: int | None = None) -> EnteraccsOutcome:
    """GETSEC[ENTERACCS] on one processor.  Input: EBX physical base, ECX size in bytes of the module.

    Faults change nothing.  Once the module is being loaded, every refusal is a TXT shutdown: the platform resets and
    TXT.ERRORCODE keeps the cause.
    """
    lp = platform.lp(lp_id)
    if base is not None:
        lp.rbx = base
    if size is not None:
        lp.rcx = size
    outcome: EnteraccsOutcome | None = _decide(platform, lp, ENTERACCS)
    if outcome is None:
        asked = EnteraccsState(platform, lp)
        row = ENTERACCS_FAULTS.decide(asked, platform.revision)
        if row is not None:
            outcome = Fault(row.result.vector, row.result.code, row.id)
        else:
            outcome = _enter(platform, lp, asked.base, asked.size)
    if platform.listeners:
        platform.emit(InstructionEnded(lp_id, "GETSEC[ENTERACCS]", str(outcome), outcome.clause))
    return outcome


@implements("ENTERACCS.effect")
def _enter(platform: Platform, lp: Lp, base: int, size: int) -> TxtShutdown | EnteredAc:
    """ENTERACCS.effect: the processor's state as the module finds it (SDM table 7-4)."""
    acram = platform.load(Agent.HOST, base, size, lp)
    if isinstance(acram, Fault):
        acram = b"\xff" * size  # nothing readable there: it will not authenticate
    judged = AcmState(platform, lp, base, acram)
    row = ENTERACCS_MODULE.decide(judged, platform.revision)
    if row is not None:
        return txt_shutdown(platform, lp.id, row.result, row.id)
    entry = judged.header("EntryPoint")
    if judged.header("CodeControl") & 3 == 3 and judged.snoop_hit:
        entry = _error_entry(judged)
    return enter_at(platform, lp, acram, base, entry)


def enter_at(platform: Platform, lp: Lp, acram: bytes, base: int, entry: int | None = None) -> EnteredAc:
    """ENTERACCS.effect: ``lp`` in authenticated code mode with ``acram`` from ``base``, at ``entry`` (default: the
    header's EntryPoint).  What was judged before is not judged here."""
    header = ACM_HEADER.decode(acram)
    lp.acram, lp.acram_base = acram, base
    lp.ACMODEFLAG = lp.smi_inhibit = lp.nmi_inhibit = True
    if not platform.txt.get("PRIVATE_STUCK"):
        platform.txt["PRIVATE_SPACE"] = platform.txt["LOCALITY3"] = 1
    lp.rbx = lp.rip + 2 & 0xFFFFFFFF
    lp.rcx = lp.gdtr_limit << 16 | lp.cs_selector
    lp.rdx = lp.gdtr_base & 0xFFFFFFFF
    lp.rbp = base
    lp.rflags = RFLAGS_RESET
    lp.cr0 &= ~(CR0_PG | CR0_AM | CR0_WP)
    lp.cr4 &= ~(CR4_MCE | CR4_CET | CR4_PCIDE)
    lp.efer = 0
    lp.dr7, lp.debugctl = 0x400, 0
    lp.gdtr_base, lp.gdtr_limit = base + int(header.GDTBasePtr), int(header.GDTLimit)
    lp.cs_selector = int(header.SegSel)
    lp.ds_selector = lp.cs_selector + 8
    lp.cs_l = False
    lp.rip = base + (int(header.EntryPoint) if entry is None else entry)
    lp.program = lp.program_state = None
    return EnteredAc(lp.rip, "ENTERACCS.effect")


@implements("ENTERACCS.error_entry")
def _error_entry(judged: AcmState) -> int:
    """ENTERACCS.error_entry."""
    return judged.header("ErrorEntryPoint")


# --- GETSEC[EXITAC]


_X = "SDM vol. 2D GETSEC[EXITAC]"

EXITAC_FAULTS: CheckTable[GetsecState, Fault] = CheckTable("EXITAC", (
    Check("EXITAC.vmx", "in VMX operation", lambda c: c.lp.vmx_on, GP0, _X),
    Check("EXITAC.canonical", "64-bit mode and RBX not canonical",
          lambda c: c.lp.is_64bit() and not is_canonical(c.lp.rbx, 57 if c.lp.cr4 & CR4_LA57 else 48), GP0, _X),
    Check("EXITAC.cr0_pe", "CR0.PE = 0", lambda c: not c.lp.cr0 & CR0_PE, GP0, _X),
    Check("EXITAC.cpl", "CPL > 0", lambda c: c.lp.cpl > 0, GP0, _X),
    Check("EXITAC.vm86", "RFLAGS.VM = 1", lambda c: bool(c.lp.rflags & 1 << 17), GP0, _X),
    Check("EXITAC.acmode", "not in authenticated code mode", lambda c: not c.lp.ACMODEFLAG, GP0, _X),
    Check("EXITAC.smm", "in SMM", lambda c: c.lp.in_smm, GP0, _X),
    Check("EXITAC.edx", "EDX is not 0", lambda c: bool(c.lp.rdx & 0xFFFFFFFF), GP0, _X),
    Check("EXITAC.cs_limit", "outside 64-bit mode: EBX beyond the code segment's limit of 4 GiB",
          lambda c: not c.lp.is_64bit() and c.lp.rbx > 0xFFFFFFFF, GP0, _X),
), "GETSEC[EXITAC]: conditions in order; silent means that authenticated code mode is left.")


@implements("EXITAC.effect", "ACRAM and TLB invalid, locality 3 closed, INIT, SMI and NMI unmasked; in IA-32e mode "
            "CR3 := R8; execution goes on at RBX", _X)
def _exit(platform: Platform, lp: Lp) -> ExitedAc:
    """EXITAC.effect: leave authenticated code mode (errata 21: CR3 := R8 is in the pseudo-code only)."""
    lp.acram, lp.acram_base = None, 0
    lp.ACMODEFLAG = False
    platform.txt.pop("LOCALITY3", None)
    if not lp.SENTERFLAG:
        lp.smi_inhibit = lp.nmi_inhibit = False
    if lp.efer & EFER_LMA:
        lp.cr3 = lp.r8
    lp.rip = lp.rbx
    lp.program = lp.program_state = None
    return ExitedAc(lp.rip, "EXITAC.effect")


def exitac(platform: Platform, lp_id: int) -> ExitacOutcome:
    """GETSEC[EXITAC] on one processor.  Input: RBX target, R8 CR3 to load, EDX = 0."""
    lp = platform.lp(lp_id)
    outcome: ExitacOutcome | None = _decide(platform, lp, EXITAC)
    if outcome is None:
        row = EXITAC_FAULTS.decide(GetsecState(platform, lp), platform.revision)
        outcome = _exit(platform, lp) if row is None else Fault(row.result.vector, row.result.code, row.id)
    if platform.listeners:
        platform.emit(InstructionEnded(lp_id, "GETSEC[EXITAC]", str(outcome), outcome.clause))
    return outcome


# --- the module's code


class AcProgram(Protocol):
    """The behaviour of an ACM's code: a step machine over ``lp.program_state``, as :class:`software.Program`."""

    id: bytes
    name: str

    def step(self, platform: Platform, lp: Lp) -> AcStep:
        """Take one step on ``lp`` (``lp.program_state`` is ``None`` right after ENTERACCS)."""
        ...


AC_PROGRAMS: dict[bytes, AcProgram] = {}


def register_ac_program(program: AcProgram) -> AcProgram:
    """Make an ACM's code runnable; its id is what the stub at EntryPoint names."""
    if len(program.id) != 16:
        raise SeamrefError(f"program id {program.id!r}: {len(program.id)} bytes, must be 16")
    AC_PROGRAMS[program.id] = program
    return program


clause("SMX.fetch", "authenticated code is fetched from ACRAM, wherever it lay in memory", _S)


@implements("SMX.fetch")
def fetch_ac_program(lp: Lp) -> AcProgram:
    """SMX.fetch: which program the bytes at EntryPoint in ACRAM stand for."""
    assert lp.acram is not None
    at = ACM_HEADER.peek(lp.acram, "EntryPoint")
    data = lp.acram[at : at + STUB.size]
    if len(data) == STUB.size:
        stub = STUB.decode(data)
        program = AC_PROGRAMS.get(stub.program)
        if stub.code == ENDBR64_JMP and program is not None:
            return program
    raise NotModelled(f"executing an ACM whose entry starts {data[:8].hex()}: only minted ones can run", "SMX.fetch")


def step_acm(platform: Platform, lp_id: int) -> AcStep:
    """One step of the authenticated code on a processor; a fault finds no IDT: TXT shutdown."""
    lp = platform.lp(lp_id)
    if not lp.ACMODEFLAG:
        raise SeamrefError(f"processor {lp_id} is not in authenticated code mode")
    program = fetch_ac_program(lp)
    lp.program = program.name
    try:
        return program.step(platform, lp)
    except Ud2 as error:
        return _fatal(platform, lp, Vector.UD, str(error))
    except SoftwareFault as error:
        return _fatal(platform, lp, error.vector, str(error))
    except MemoryFault as error:
        return _fatal(platform, lp, error.fault.vector, str(error))


@implements("SMX.fatal", "a fault or UD2 in authenticated code finds a null IDT: triple fault, which in this mode is a "
            "TXT shutdown; the module's own word for its fatal errors is UD2",
            "NPS Common64.h, Entry64.nasm; MLE TXT.ERRORCODE", STATED)
def _fatal(platform: Platform, lp: Lp, vector: Vector, cause: str) -> TxtShutdown:
    """SMX.fatal: ``vector`` is the exception that found no IDT."""
    return replace(txt_shutdown(platform, lp.id, TxtCause(cause, LEGACY_SHUTDOWN.code), "SMX.fatal"), vector=vector)


def run_acm(platform: Platform, lp_id: int) -> ExitedAc | TxtShutdown:
    """Step the authenticated code until it leaves the mode or resets the platform."""
    while True:
        outcome = step_acm(platform, lp_id)
        if not isinstance(outcome, Running):
            return outcome


class AcPort(Port):
    """Memory as authenticated code sees it: its own module is in ACRAM, everything else outside."""

    __slots__ = ()

    def __init__(self, platform: Platform, lp: Lp) -> None:
        super().__init__(platform, lp, Agent.ACM)

    def _inside(self, address: int, size: int) -> int | None:
        lp = self.lp
        if lp.acram is None or not lp.acram_base <= address <= lp.acram_base + len(lp.acram) - size:
            return None
        return address - lp.acram_base

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a physical address, from ACRAM where the module is."""
        at = self._inside(address, size)
        if at is None:
            return super().read(address, size)
        assert self.lp.acram is not None
        return self.lp.acram[at : at + size]

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Bytes to a physical address, into ACRAM where the module is."""
        at = self._inside(address, len(data))
        if at is None:
            super().write(address, data)
        else:
            assert self.lp.acram is not None
            self.lp.acram = self.lp.acram[:at] + bytes(data) + self.lp.acram[at + len(data) :]


# --- shutdown, reset, and waking the others


@implements("TXT.shutdown",
            "TXT.ERRORCODE := valid, processor-reported, type; the platform resets", "MLE TXT.ERRORCODE",
            CHOSEN)
def txt_shutdown(platform: Platform, lp_id: int, cause: TxtCause, clause: str) -> TxtShutdown:
    """TXT.shutdown: what SDM calls TXT-shutdown and others LT-shutdown."""
    platform.emit(WentDown(lp_id, False, f"TXT shutdown: {cause.mnemonic}"))
    platform.txt["ERRORCODE"] = 1 << 31 | cause.code
    reset(platform)
    return TxtShutdown(cause.mnemonic, cause.code, clause)


SURVIVES_RESET = ("ERRORCODE", "PUBLIC_KEY", "CHIPSET", "MC_HANDLED", "DEVICE_ID", "REVISION_ID",
                  "PLATFORM_ID")
"""TXT registers and fuses that a reset keeps."""


@implements("PLATFORM.reset", "a reset clears every lock, SEAMRR, SEAMEXTEND, SEAMDB and keys; TXT.ERRORCODE and fuses "
            "stay; what DRAM held is lost, because TME makes a new key", "SEAMREF errata", CHOSEN)
def reset(platform: Platform) -> None:
    """PLATFORM.reset: the platform as at power-on, but for what :data:`SURVIVES_RESET` lists."""
    for id in platform.lps:
        lp = platform.lp(id)
        fresh = Lp(id, lp.package, id == platform.lps[0])
        fresh._owner = lp._owner
        platform._lps[id] = fresh
    platform.store_ = Store()
    platform.msrs, platform.package_msrs = {}, {}
    platform.keyid_layout_changed()
    platform.SEAMEXTEND = bytes(SEAMEXTEND.size)
    platform.P_SEAMLDR_MUTEX = None
    platform.p_seamldr_range = None
    platform.seamdb = ()
    platform.bios_se_svn, platform.svn_locked = 0, False
    platform.key_table = {}
    platform.flushed_sub_blocks = frozenset()
    platform.txt = {name: value for name, value in platform.txt.items() if name in SURVIVES_RESET}


def park_others(platform: Platform, lp_id: int) -> tuple[int, ...]:
    """INIT to every other processor, as a launcher does before ENTERACCS; those that did not get to wait-for-SIPI."""
    stubborn = []
    for id in platform.lps:
        if id != lp_id:
            raise_event(platform, id, EventKind.INIT)
            if platform.lp(id).activity is not Activity.WAIT_FOR_SIPI:
                stubborn.append(id)
    return tuple(stubborn)


@implements("SMX.sipi", "a SIPI starts a processor that waits for one; elsewhere it is discarded", "SDM vol. 3A ch. 10")
def send_sipi(platform: Platform, lp_id: int) -> Delivered | Discarded:
    """SMX.sipi: start-up IPI to one processor."""
    lp = platform.lp(lp_id)
    if lp.activity is not Activity.WAIT_FOR_SIPI:
        return Discarded(EventKind.INIT, "SMX.sipi")
    lp.activity = Activity.ACTIVE
    return Delivered(EventKind.INIT, "SMX.sipi")


__all__ = [
    "ACRAM_CAPACITY", "AC_PROGRAMS", "AcPort", "AcProgram", "AcRun", "AcStep", "AcmState", "CAUSES", "ENTERACCS_FAULTS",
    "ENTERACCS_MODULE", "EXITAC_FAULTS", "EnteraccsState", "EnteredAc", "ExitedAc", "GETSEC", "GetsecState", "HEADERS",
    "Registers", "SUPPORTED_VERSION", "TxtCause", "enter_at", "enteraccs",
    "exitac", "fetch_ac_program", "getsec_capabilities",
    "getsec_parameters", "has_txt", "key_hash", "park_others", "register_ac_program", "reset", "run_acm", "send_sipi",
    "step_acm", "txt_shutdown", "txt_sts",
]
