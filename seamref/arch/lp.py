"""One logical processor: registers, mode bits, VMX state, event inhibits, active VMCSs."""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from operator import attrgetter
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
    "interrupt_ssp_table": 0,
    "sysenter_cs": 0,
    "sysenter_esp": 0,
    "sysenter_eip": 0,
    "perf_global_ctrl": 0,
    "bndcfgs": 0,
    "rtit_ctl": 0,
    "lbr_ctl": 0,
    "pkrs": 0,
    "uinv": 0,
    "gdtr_base": 0,
    "gdtr_limit": 0xFFFF,
    "idtr_base": 0,
    "idtr_limit": 0xFFFF,
    "es_selector": 0x18, "es_base": 0, "es_limit": 0xFFFFFFFF, "es_ar": 0xC093,
    "cs_selector": 0x10, "cs_base": 0, "cs_limit": 0xFFFFFFFF, "cs_ar": 0xA09B,
    "ss_selector": 0x18, "ss_base": 0, "ss_limit": 0xFFFFFFFF, "ss_ar": 0xC093,
    "ds_selector": 0x18, "ds_base": 0, "ds_limit": 0xFFFFFFFF, "ds_ar": 0xC093,
    "fs_selector": 0, "fs_base": 0, "fs_limit": 0xFFFFFFFF, "fs_ar": 0x10000,
    "gs_selector": 0, "gs_base": 0, "gs_limit": 0xFFFFFFFF, "gs_ar": 0x10000,
    "ldtr_selector": 0, "ldtr_base": 0, "ldtr_limit": 0, "ldtr_ar": 0x10000,
    "tr_selector": 0x40, "tr_base": 0, "tr_limit": 0x4087, "tr_ar": 0x8B,
    "pending_debug": 0,
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


_VALUES = attrgetter(*(name for name in _DEFAULTS if name not in ("activity", "program_state")))


def _make_copier() -> Callable[[Any, Any], None]:
    """A function that copies every register, written out: a loop over names takes five times as long."""
    lines = "".join(f"    there.{name} = here.{name}\n" for name in _DEFAULTS)
    made: dict[str, Any] = {}
    exec(f"def copy(here, there):\n{lines}", made)
    copier: Callable[[Any, Any], None] = made["copy"]
    return copier


_copy_fields = _make_copier()


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
    interrupt_ssp_table: int
    sysenter_cs: int
    sysenter_esp: int
    sysenter_eip: int
    perf_global_ctrl: int
    bndcfgs: int
    rtit_ctl: int
    lbr_ctl: int
    pkrs: int
    uinv: int
    gdtr_base: int
    gdtr_limit: int
    idtr_base: int
    idtr_limit: int
    es_selector: int
    es_base: int
    es_limit: int
    es_ar: int
    cs_selector: int
    cs_base: int
    cs_limit: int
    cs_ar: int
    ss_selector: int
    ss_base: int
    ss_limit: int
    ss_ar: int
    ds_selector: int
    ds_base: int
    ds_limit: int
    ds_ar: int
    fs_selector: int
    fs_base: int
    fs_limit: int
    fs_ar: int
    gs_selector: int
    gs_base: int
    gs_limit: int
    gs_ar: int
    ldtr_selector: int
    ldtr_base: int
    ldtr_limit: int
    ldtr_ar: int
    tr_selector: int
    tr_base: int
    tr_limit: int
    tr_ar: int
    pending_debug: int
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
        _copy_fields(self, other)
        return other

    # --- two bits of the access rights that software looks at (SDM vol. 3A sections 3.4.5 and 5.5)

    @property
    def cs_l(self) -> bool:
        """CS.L: 64-bit code while EFER.LMA is 1.  Setting it makes CS.D the opposite."""
        return bool(self.cs_ar & 1 << 13)

    @cs_l.setter
    def cs_l(self, on: bool) -> None:
        self.cs_ar = self.cs_ar & ~(3 << 13) | (1 << 13 if on else 1 << 14)

    @property
    def cpl(self) -> int:
        """Current privilege level: the DPL of SS."""
        return self.ss_ar >> 5 & 3

    @cpl.setter
    def cpl(self, level: int) -> None:
        self.ss_ar = self.ss_ar & ~(3 << 5) | level << 5

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
        return (
            self.id,
            self.is_bsp,
            self.activity.value,
            *_VALUES(self),
            repr(self.program_state),
            tuple(sorted(self.msrs.items())),
            tuple((at, v.launched, v.in_SEAM, bytes(v.data)) for at, v in sorted(self.vmcs_cache.items())),
        )


_FLAG = {"cf": CF, "pf": PF, "af": AF, "zf": ZF, "sf": SF, "of": OF}
