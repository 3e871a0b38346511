"""One logical processor: registers, mode bits, VMX state, event inhibits, active VMCSs."""

from __future__ import annotations

from enum import Enum
from typing import Any

from seamref.arch.vmcs import NONE, CachedVmcs

GPRS = ("rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))
"""The general registers in encoding order."""

RFLAGS_RESET = 0x2
CF, PF, AF, ZF, TF, SF, IF, OF = 1 << 0, 1 << 2, 1 << 4, 1 << 6, 1 << 8, 1 << 7, 1 << 9, 1 << 11
ARITHMETIC = CF | PF | AF | ZF | SF | OF
"""The six flags that SEAMCALL clears and VMsucceed/VMfail define."""

EFER_LME, EFER_LMA, EFER_NXE = 1 << 8, 1 << 10, 1 << 11
CR0_PE, CR0_NE, CR0_WP, CR0_PG, CR0_CD, CR0_NW = 1 << 0, 1 << 5, 1 << 16, 1 << 31, 1 << 30, 1 << 29
CR4_PAE, CR4_MCE, CR4_PGE, CR4_LA57, CR4_VMXE, CR4_SMXE = 1 << 5, 1 << 6, 1 << 7, 1 << 12, 1 << 13, 1 << 14


class Activity(Enum):
    """What a processor is doing when no instruction stream is looked at."""

    ACTIVE = "active"
    HLT = "HLT"
    SHUTDOWN = "shutdown"
    WAIT_FOR_SIPI = "wait-for-SIPI"
    SENTER_SLEEP = "SENTER sleep"


class Mode(Enum):
    """The five modes of the SEAM architecture."""

    OUTSIDE_VMX = "outside VMX"
    VMX_ROOT = "legacy VMX root"
    VMX_NON_ROOT = "legacy VMX non-root"
    SEAM_ROOT = "SEAM VMX root"
    SEAM_NON_ROOT = "SEAM VMX non-root"


_DEFAULTS: dict[str, Any] = {
    **dict.fromkeys(GPRS, 0),
    "rip": 0xFFFFFFFF81000000,
    "rflags": RFLAGS_RESET,
    "ssp": 0,
    "cr0": CR0_PE | 0x10 | CR0_NE | CR0_WP | CR0_PG,
    "cr2": 0,
    "cr3": 0x1000,
    "cr4": CR4_PAE | CR4_MCE | CR4_PGE,
    "cr8": 0,
    "dr7": 0x400,
    "debugctl": 0,
    "efer": EFER_LME | EFER_LMA | EFER_NXE,
    "pat": 0x0007040600070406,
    "s_cet": 0,
    "fs_base": 0,
    "gs_base": 0,
    "gdtr_base": 0,
    "gdtr_limit": 0xFFFF,
    "idtr_base": 0,
    "idtr_limit": 0xFFFF,
    "cs_selector": 0x10,
    "ds_selector": 0x18,
    "es_selector": 0x18,
    "ss_selector": 0x18,
    "fs_selector": 0,
    "gs_selector": 0,
    "cs_l": True,
    "cpl": 0,
    "in_smm": False,
    "activity": Activity.ACTIVE,
    "vmx_on": False,
    "vmxon_ptr": NONE,
    "non_root": False,
    "current_vmcs": NONE,
    "inSEAM": False,
    "inP_SEAMLDR": False,
    "smi_inhibit": False,
    "nmi_inhibit": False,
    "mov_ss_blocking": False,
    "sti_blocking": False,
    "smi_pending": False,
    "nmi_pending": False,
    "intr_pending": False,
    "init_pending": False,
    "senter_smi_inhibit": False,
    "ACMODEFLAG": False,
    "SENTERFLAG": False,
    "acram": None,
    "acram_base": 0,
    "ibrs_barriers": 0,
    "monitor_armed": False,
    "program": None,
    "program_state": None,
}


class Lp:
    """State of one logical processor.  Attribute names follow the documents.

    ``program`` and ``program_state`` belong to :mod:`seamref.arch.software`: which software runs in SEAM on this
    processor and where in it (frozen values only, so that a copy is a copy).
    """

    __slots__ = ("_digest", "_owner", "id", "is_bsp", "msrs", "package", "vmcs_cache", *_DEFAULTS)

    rax: int
    rcx: int
    rdx: int
    rbx: int
    rsp: int
    rbp: int
    rsi: int
    rdi: int
    r8: int
    r9: int
    r10: int
    r11: int
    r12: int
    r13: int
    r14: int
    r15: int
    rip: int
    rflags: int
    ssp: int
    cr0: int
    cr2: int
    cr3: int
    cr4: int
    cr8: int
    dr7: int
    debugctl: int
    efer: int
    pat: int
    s_cet: int
    fs_base: int
    gs_base: int
    gdtr_base: int
    gdtr_limit: int
    idtr_base: int
    idtr_limit: int
    cs_selector: int
    ds_selector: int
    es_selector: int
    ss_selector: int
    fs_selector: int
    gs_selector: int
    cs_l: bool
    cpl: int
    in_smm: bool
    activity: Activity
    vmx_on: bool
    vmxon_ptr: int
    non_root: bool
    current_vmcs: int
    inSEAM: bool
    inP_SEAMLDR: bool
    smi_inhibit: bool
    nmi_inhibit: bool
    mov_ss_blocking: bool
    sti_blocking: bool
    smi_pending: bool
    nmi_pending: bool
    intr_pending: bool
    init_pending: bool
    senter_smi_inhibit: bool
    ACMODEFLAG: bool
    SENTERFLAG: bool
    acram: bytes | None
    acram_base: int
    ibrs_barriers: int
    monitor_armed: bool
    program: str | None
    program_state: Any

    def __init__(self, id: int, package: int, is_bsp: bool) -> None:
        self.id = id
        self.package = package
        self.is_bsp = is_bsp
        self.msrs: dict[int, int] = {}
        self.vmcs_cache: dict[int, CachedVmcs] = {}
        self._owner: object = None
        self._digest: tuple[object, bytes] | None = None  # computed by whom, and what; forgotten on a new handle
        for name, value in _DEFAULTS.items():
            setattr(self, name, value)

    def copy(self) -> Lp:
        """An independent copy, owned by nobody yet."""
        other = object.__new__(Lp)
        other.id = self.id
        other.package = self.package
        other.is_bsp = self.is_bsp
        other.msrs = dict(self.msrs)
        other.vmcs_cache = {at: vmcs.copy() for at, vmcs in self.vmcs_cache.items()}
        other._owner = None
        other._digest = None
        for name in _DEFAULTS:
            setattr(other, name, getattr(self, name))
        return other

    # --- predicates in the documents' words

    def is_64bit(self) -> bool:
        """64-bit mode: EFER.LMA and CS.L."""
        return bool(self.efer & EFER_LMA) and self.cs_l

    def is_SEAM_root(self) -> bool:
        """SEAM VMX root operation (SC2: ``inSEAM`` spans both SEAM modes)."""
        return self.inSEAM and not self.non_root

    def is_SEAM_non_root(self) -> bool:
        """SEAM VMX non-root operation: a TD runs."""
        return self.inSEAM and self.non_root

    @property
    def mode(self) -> Mode:
        """Which of the five modes this processor is in."""
        if not self.vmx_on:
            return Mode.OUTSIDE_VMX
        if self.inSEAM:
            return Mode.SEAM_NON_ROOT if self.non_root else Mode.SEAM_ROOT
        return Mode.VMX_NON_ROOT if self.non_root else Mode.VMX_ROOT

    def flags(self, **bits: int) -> None:
        """Set the six arithmetic flags: those named to 1, the others to 0."""
        value = self.rflags & ~ARITHMETIC
        for name, bit in bits.items():
            if bit:
                value |= _FLAG[name]
        self.rflags = value

    def state(self) -> tuple[Any, ...]:
        """Everything that distinguishes two processors' states, in a canonical order."""
        values = [getattr(self, name) for name in _DEFAULTS if name not in ("activity", "program_state")]
        return (
            self.id,
            self.is_bsp,
            self.activity.value,
            *values,
            repr(self.program_state),
            tuple(sorted(self.msrs.items())),
            tuple((at, v.launched, v.in_SEAM, bytes(v.data)) for at, v in sorted(self.vmcs_cache.items())),
        )


_FLAG = {"cf": CF, "pf": PF, "af": AF, "zf": ZF, "sf": SF, "of": OF}
