"""What VM entry demands of the guest-state and host-state areas, as rows.

SDM vol. 3C sections 27.2.2 to 27.2.4 and 27.3.1.  VMLAUNCH, VMRESUME and SEAMRET ask the host-state rows, then the
guest-state rows; SEAMCALL is an exit and asks none
(X2).  The SDM lets a processor ask in any order, since every row of an area has the same consequence; here they stand
in the order in which the SDM prints them.  A field's own demand (canonical, width, memory types) is declared with the
field in :mod:`seamref.arch.areas`; its row is the first of each table.

Left out: PDPTEs (PAE paging is not modelled), reserved bits of IA32_RTIT_CTL and IA32_LBR_CTL (their CPUID leaves are
not), event injection (no field for it), and two rules that X2 cannot mean for SEAMRET: the VMCS link pointer names
the VMM's active VMCS, and SMI may be blocked outside SMM.
"""

from __future__ import annotations

from operator import itemgetter
from typing import TYPE_CHECKING, NamedTuple

from seamref.arch.areas import (
    ENTRY_BNDCFGS,
    ENTRY_CET,
    ENTRY_DEBUG,
    ENTRY_EFER,
    ENTRY_PERF,
    ENTRY_UINV,
    HOST_64,
    IA32E_GUEST,
    LOAD_CET,
    LOAD_EFER,
    LOAD_PERF,
    UNUSABLE,
    bad_guest_field,
    bad_host_field,
    is_canonical,
)
from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.lp import CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_SMXE, CR4_VMXE, EFER_LMA, EFER_LME, TF, Activity
from seamref.arch.lp import IF as INTERRUPT_FLAG
from seamref.arch.vmcs import BY_NAME, get
from seamref.spec import Check, CheckTable

if TYPE_CHECKING:
    from seamref.arch.lp import Lp
    from seamref.arch.platform import Platform

CR4_PCIDE, CR4_CET = 1 << 17, 1 << 23
RFLAGS_VM = 1 << 17
EFER_RESERVED = ~0xD01
"""All but SCE, LME, LMA and NXE."""
DEBUGCTL_RESERVED, DEBUGCTL_BTF = ~0xFFC7, 1 << 1
"""All but LBR, BTF, bus-lock detection (2:0) and TR to RTM (15:6)."""
PENDING_RESERVED, PENDING_BS = ~0x1580F, 1 << 14
"""Pending debug exceptions: all but B3 to B0, bus lock (11), enabled breakpoint (12), BS (14) and RTM (16)."""
S_CET_RESERVED, S_CET_BOTH = 0xF << 6, 3 << 10
"""IA32_S_CET bits 9:6; SUPPRESS and TRACKER."""
BNDCFGS_RESERVED = 0xFFC
AR_S, AR_P, AR_L, AR_D, AR_G = 1 << 4, 1 << 7, 1 << 13, 1 << 14, 1 << 15
AR_RESERVED = 0xF << 8 | 0x7FFF << 17
"""Access rights: bits 11:8 and 31:17."""
V86_AR, V86_LIMIT = 0xF3, 0xFFFF
DATA = ("ds", "es", "fs", "gs")
CODE_OR_DATA = ("cs", "ss", *DATA)
CR_FIXED = (0x486, 0x487, 0x488, 0x489)
"""IA32_VMX_CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1.  CR4.SMXE is not judged by the last: the platforms of the
recordings, which launched NP-SEAMLDR with GETSEC, show it as fixed to 0."""
ACTIVITIES = (Activity.ACTIVE, Activity.HLT, Activity.SHUTDOWN, Activity.WAIT_FOR_SIPI)
"""Activity states by their number in the VMCS (section 25.4.2)."""


class Entry(NamedTuple):
    """A VM entry that is judged: the VMCS, and what of the processor the rows ask for.

    ``fixed``  IA32_VMX_CR0_FIXED0, CR0_FIXED1, CR4_FIXED0, CR4_FIXED1;  ``pmu``  CPUID leaf 0AH;  ``long_mode``
    EFER.LMA of whoever enters
    """

    data: bytes | bytearray
    fixed: tuple[int, int, int, int]
    maxpa: int
    pmu: Cpuid
    long_mode: bool

    def guest(self, name: str) -> int:
        return get(self.data, f"guest_{name}")

    def host(self, name: str) -> int:
        return get(self.data, f"host_{name}")

    def loads(self, bit: int) -> bool:
        """A VM-entry control."""
        return bool(get(self.data, "entry_ctls") >> bit & 1)

    def exits_with(self, bit: int) -> bool:
        """A VM-exit control."""
        return bool(get(self.data, "exit_ctls") >> bit & 1)

    @property
    def unrestricted(self) -> bool:
        """The "unrestricted guest" control, with the secondary controls active."""
        return bool(get(self.data, "proc_based") >> 31 & get(self.data, "secondary_proc_based") >> 7 & 1)

    @property
    def v86(self) -> bool:
        return bool(self.guest("rflags") & RFLAGS_VM)

    def ar(self, register: str) -> int:
        return self.guest(f"{register}_ar")

    def type(self, register: str) -> int:
        return self.ar(register) & 0xF

    def dpl(self, register: str) -> int:
        return self.ar(register) >> 5 & 3

    def rpl(self, register: str) -> int:
        return self.guest(f"{register}_selector") & 3

    def is_usable(self, register: str) -> bool:
        return not self.ar(register) & UNUSABLE

    def judged(self, registers: tuple[str, ...] = CODE_OR_DATA) -> list[str]:
        """Of code and data segments outside virtual-8086 mode those whose access rights count: CS, and usable ones."""
        return [] if self.v86 else [name for name in registers if name == "cs" or self.is_usable(name)]

    def bad_granularity(self, register: str) -> bool:
        """Limit bits 11:0 not all 1 need G = 0, limit bits 31:20 not all 0 need G = 1."""
        limit, g = self.guest(f"{register}_limit"), self.ar(register) & AR_G
        return bool((limit & 0xFFF != 0xFFF and g) or (limit >> 20 and not g))

    @property
    def counters(self) -> int:
        """Bits of IA32_PERF_GLOBAL_CTRL that exist: general-purpose counters, and fixed ones from bit 32."""
        general, _, bitmap, fixed = self.pmu
        return (1 << (general >> 8 & 0xFF)) - 1 | ((1 << (fixed & 0x1F)) - 1 | bitmap) << 32

    @property
    def activity(self) -> Activity | None:
        number = self.guest("activity_state")
        return ACTIVITIES[number] if number < len(ACTIVITIES) else None


def _not_fixed(value: int, fixed0: int, fixed1: int, free: int = 0) -> bool:
    """A bit that VMX operation demands is 0, or one that it forbids is 1; ``free`` bits are not judged."""
    return bool((fixed0 & ~value | value & ~fixed1) & ~free)


def _bad_s_cet(value: int) -> bool:
    return bool(value & S_CET_RESERVED or value & S_CET_BOTH == S_CET_BOTH or not is_canonical(value))


def _guest_cr0(c: Entry) -> bool:
    free = (CR0_PE | CR0_PG) if c.unrestricted else 0
    return _not_fixed(c.guest("cr0"), c.fixed[0], c.fixed[1], free)


def _guest_cet_wp(c: Entry) -> bool:
    return bool(c.guest("cr4") & CR4_CET and not c.guest("cr0") & CR0_WP)


def _efer_lma(c: Entry) -> bool:
    return c.loads(ENTRY_EFER) and bool(c.guest("ia32_efer") & EFER_LMA) is not c.loads(IA32E_GUEST)


def _efer_lme(c: Entry) -> bool:
    efer = c.guest("ia32_efer")
    return c.loads(ENTRY_EFER) and bool(c.guest("cr0") & CR0_PG and bool(efer & EFER_LMA) is not bool(efer & EFER_LME))


def _bndcfgs(c: Entry) -> bool:
    value = c.guest("bndcfgs")
    return c.loads(ENTRY_BNDCFGS) and (bool(value & BNDCFGS_RESERVED) or not is_canonical(value & ~0xFFF))


def _selectors(c: Entry) -> bool:
    return any(c.guest(f"{name}_selector") & 4 for name in ("tr", "ldtr") if name == "tr" or c.is_usable(name))


def _v86_base(c: Entry) -> bool:
    return c.v86 and any(c.guest(f"{n}_base") != c.guest(f"{n}_selector") << 4 for n in CODE_OR_DATA)


def _base_high(c: Entry) -> bool:
    return any(c.guest(f"{n}_base") >> 32 for n in ("cs", "ss", "ds", "es") if n == "cs" or c.is_usable(n))


def _cs_type(c: Entry) -> bool:
    return not c.v86 and c.type("cs") not in ((3, 9, 11, 13, 15) if c.unrestricted else (9, 11, 13, 15))


def _data_type(c: Entry) -> bool:
    types = [c.type(name) for name in c.judged(DATA)]
    return any(not kind & 1 or kind & 0b1010 == 0b1000 for kind in types)


def _cs_dpl(c: Entry) -> bool:
    if c.v86:
        return False
    match c.type("cs"):
        case 3:
            return c.dpl("cs") != 0
        case 9 | 11:
            return c.dpl("cs") != c.dpl("ss")
        case _:
            return c.dpl("cs") > c.dpl("ss")


def _ss_dpl(c: Entry) -> bool:
    if c.v86:
        return False
    zero = c.type("cs") == 3 or not c.guest("cr0") & CR0_PE
    return bool((not c.unrestricted and c.dpl("ss") != c.rpl("ss")) or (zero and c.dpl("ss")))


def _data_dpl(c: Entry) -> bool:
    return not c.unrestricted and any(c.type(n) < 12 and c.dpl(n) < c.rpl(n) for n in c.judged(DATA))


def _cs_db(c: Entry) -> bool:
    return not c.v86 and c.loads(IA32E_GUEST) and c.ar("cs") & (AR_L | AR_D) == AR_L | AR_D


def _tr_type(c: Entry) -> bool:
    return c.type("tr") not in ((11,) if c.loads(IA32E_GUEST) else (3, 11))


def _bad_system(c: Entry, register: str) -> bool:
    """A system segment that S = 1 makes none, that is not present, or with reserved bits."""
    return c.ar(register) & (AR_S | AR_P | AR_RESERVED) != AR_P


def _not_64bit(c: Entry) -> bool:
    return not (c.loads(IA32E_GUEST) and c.ar("cs") & AR_L)


def _rflags_vm(c: Entry) -> bool:
    return c.v86 and (c.loads(IA32E_GUEST) or not c.guest("cr0") & CR0_PE)


def _ssp(c: Entry) -> bool:
    ssp = c.guest("ssp")
    wide = bool(ssp >> 32) if _not_64bit(c) else not is_canonical(ssp)
    return c.loads(ENTRY_CET) and (bool(ssp & 3) or wide)


def _blocked(c: Entry) -> int:
    """Blocking by STI (bit 0) and by MOV-SS (bit 1)."""
    return c.guest("interruptibility") & 3


def _pending_bs(c: Entry) -> bool:
    """Where a single step could be held back, BS says whether one is due."""
    if not _blocked(c) and c.activity is not Activity.HLT:
        return False
    due = bool(c.guest("rflags") & TF) and not c.guest("debugctl") & DEBUGCTL_BTF
    return bool(c.guest("pending_debug") & PENDING_BS) is not due


_A, _B, _C, _D, _E = (f"SDM vol. 3C 27.3.1.{i}" for i in range(1, 6))
GUEST_STATE: CheckTable[Entry, None] = CheckTable("VM entry: guest state", (
    Check("ENTRY.guest.field", "a field's own demand: canonical, width, memory types, RFLAGS",
          lambda c: bad_guest_field(c.data) is not None, None, "SDM vol. 3C 27.3.1"),
    Check("ENTRY.guest.cr0", "CR0 has a bit that VMX operation does not allow so (unrestricted: PE and PG aside)",
          _guest_cr0, None, _A),
    Check("ENTRY.guest.cr0_pg", "CR0.PG = 1 and CR0.PE = 0",
          lambda c: c.guest("cr0") & (CR0_PG | CR0_PE) == CR0_PG, None, _A),
    Check("ENTRY.guest.cr4", "CR4 has a bit that VMX operation does not allow so",
          lambda c: _not_fixed(c.guest("cr4"), *c.fixed[2:], CR4_SMXE), None, _A),
    Check("ENTRY.guest.cet_wp", "CR4.CET = 1 and CR0.WP = 0", _guest_cet_wp, None, _A),
    Check("ENTRY.guest.debugctl", "\"load debug controls\" and reserved bits of IA32_DEBUGCTL",
          lambda c: c.loads(ENTRY_DEBUG) and bool(c.guest("debugctl") & DEBUGCTL_RESERVED), None, _A),
    Check("ENTRY.guest.ia32e", "\"IA-32e mode guest\" with CR0.PG = 0 or CR4.PAE = 0",
          lambda c: c.loads(IA32E_GUEST) and not (c.guest("cr0") & CR0_PG and c.guest("cr4") & CR4_PAE), None, _A),
    Check("ENTRY.guest.pcide", "no \"IA-32e mode guest\", and CR4.PCIDE = 1",
          lambda c: not c.loads(IA32E_GUEST) and bool(c.guest("cr4") & CR4_PCIDE), None, _A),
    Check("ENTRY.guest.cr3", "CR3 beyond MAXPA", lambda c: c.guest("cr3") >> c.maxpa != 0, None, _A),
    Check("ENTRY.guest.perf", "\"load IA32_PERF_GLOBAL_CTRL\" and a counter that is not there",
          lambda c: c.loads(ENTRY_PERF) and bool(c.guest("perf_global_ctrl") & ~c.counters), None, _A),
    Check("ENTRY.guest.efer", "\"load IA32_EFER\" and reserved bits",
          lambda c: c.loads(ENTRY_EFER) and bool(c.guest("ia32_efer") & EFER_RESERVED), None, _A),
    Check("ENTRY.guest.efer_lma", "\"load IA32_EFER\", and EFER.LMA is not what \"IA-32e mode guest\" says", _efer_lma,
          None, _A),
    Check("ENTRY.guest.efer_lme", "\"load IA32_EFER\" with CR0.PG = 1, and EFER.LMA is not EFER.LME", _efer_lme, None,
          _A),
    Check("ENTRY.guest.bndcfgs", "\"load IA32_BNDCFGS\" and reserved bits, or a base that is not canonical", _bndcfgs,
          None, _A),
    Check("ENTRY.guest.uinv", "\"load UINV\" and bits 15:8",
          lambda c: c.loads(ENTRY_UINV) and c.guest("uinv") >> 8 != 0, None, _A),
    Check("ENTRY.guest.s_cet", "\"load CET state\" and IA32_S_CET: reserved bits, SUPPRESS with TRACKER, a bitmap base "
          "that is not canonical", lambda c: c.loads(ENTRY_CET) and _bad_s_cet(c.guest("ia32_s_cet")), None, _A),
    Check("ENTRY.guest.ti", "the selector of TR, or of a usable LDTR, names the LDT (TI = 1)", _selectors, None, _B),
    Check("ENTRY.guest.ss_rpl", "the RPL of SS is not that of CS (restricted, not virtual-8086)",
          lambda c: not c.v86 and not c.unrestricted and c.rpl("ss") != c.rpl("cs"), None, _B),
    Check("ENTRY.guest.v86_base", "virtual-8086: a base is not selector * 16", _v86_base, None, _B),
    Check("ENTRY.guest.ldtr_base", "the base of a usable LDTR is not canonical",
          lambda c: c.is_usable("ldtr") and not is_canonical(c.guest("ldtr_base")), None, _B),
    Check("ENTRY.guest.base_high", "CS, or a usable SS, DS or ES, has a base above 4 GiB", _base_high, None, _B),
    Check("ENTRY.guest.v86_limit", "virtual-8086: a limit is not FFFFH",
          lambda c: c.v86 and any(c.guest(f"{n}_limit") != V86_LIMIT for n in CODE_OR_DATA), None, _B),
    Check("ENTRY.guest.v86_ar", "virtual-8086: access rights are not F3H",
          lambda c: c.v86 and any(c.ar(n) != V86_AR for n in CODE_OR_DATA), None, _B),
    Check("ENTRY.guest.cs_type", "CS is no accessed code segment (unrestricted: nor a read/write data segment)",
          _cs_type, None, _B),
    Check("ENTRY.guest.ss_type", "a usable SS is no read/write, accessed data segment",
          lambda c: any(c.type(n) not in (3, 7) for n in c.judged(("ss",))), None, _B),
    Check("ENTRY.guest.data_type", "a usable DS, ES, FS or GS is not accessed, or is code that cannot be read",
          _data_type, None, _B),
    Check("ENTRY.guest.s", "CS or a usable data segment with S = 0",
          lambda c: any(not c.ar(n) & AR_S for n in c.judged()), None, _B),
    Check("ENTRY.guest.cs_dpl", "the DPL of CS: not that of SS (conforming: above it; data segment: not 0)", _cs_dpl,
          None, _B),
    Check("ENTRY.guest.ss_dpl", "the DPL of SS is not its RPL (restricted), or not 0 where CS is data or CR0.PE = 0",
          _ss_dpl, None, _B),
    Check("ENTRY.guest.data_dpl", "the DPL of a usable DS, ES, FS or GS is below its RPL (restricted)", _data_dpl, None,
          _B),
    Check("ENTRY.guest.p", "CS or a usable data segment is not present",
          lambda c: any(not c.ar(n) & AR_P for n in c.judged()), None, _B),
    Check("ENTRY.guest.ar_reserved", "CS or a usable data segment with access rights 11:8 or 31:17",
          lambda c: any(c.ar(n) & AR_RESERVED for n in c.judged()), None, _B),
    Check("ENTRY.guest.cs_db", "IA-32e mode: CS with L and D", _cs_db, None, _B),
    Check("ENTRY.guest.g", "CS or a usable data segment whose limit and granularity disagree",
          lambda c: any(c.bad_granularity(n) for n in c.judged()), None, _B),
    Check("ENTRY.guest.tr_usable", "TR is not usable", lambda c: not c.is_usable("tr"), None, _B),
    Check("ENTRY.guest.tr_type", "TR is no busy TSS of the mode", _tr_type, None, _B),
    Check("ENTRY.guest.tr_ar", "TR: S = 1, not present, or reserved bits", lambda c: _bad_system(c, "tr"), None, _B),
    Check("ENTRY.guest.tr_g", "TR: limit and granularity disagree", lambda c: c.bad_granularity("tr"), None, _B),
    Check("ENTRY.guest.ldtr_ar", "a usable LDTR: no LDT, S = 1, not present, or reserved bits",
          lambda c: c.is_usable("ldtr") and (c.type("ldtr") != 2 or _bad_system(c, "ldtr")), None, _B),
    Check("ENTRY.guest.ldtr_g", "a usable LDTR: limit and granularity disagree",
          lambda c: c.is_usable("ldtr") and c.bad_granularity("ldtr"), None, _B),
    Check("ENTRY.guest.rip", "RIP above 4 GiB outside 64-bit mode",
          lambda c: _not_64bit(c) and c.guest("rip") >> 32 != 0, None, _D),
    Check("ENTRY.guest.vm", "RFLAGS.VM = 1 in IA-32e mode or with CR0.PE = 0", _rflags_vm, None, _D),
    Check("ENTRY.guest.ssp", "\"load CET state\", and SSP is not a multiple of 4 or too wide for the mode", _ssp, None,
          _D),
    Check("ENTRY.guest.activity", "an activity state that there is not", lambda c: c.activity is None, None, _E),
    Check("ENTRY.guest.hlt", "HLT, and the DPL of SS is not 0",
          lambda c: c.activity is Activity.HLT and c.dpl("ss") != 0, None, _E),
    Check("ENTRY.guest.idle_blocked", "not active, and blocking by STI or MOV-SS",
          lambda c: c.activity is not Activity.ACTIVE and _blocked(c) != 0, None, _E),
    Check("ENTRY.guest.interruptibility", "reserved bits of the interruptibility state (31:5)",
          lambda c: c.guest("interruptibility") >> 5 != 0, None, _E),
    Check("ENTRY.guest.both", "blocking by STI and by MOV-SS", lambda c: _blocked(c) == 3, None, _E),
    Check("ENTRY.guest.sti", "blocking by STI with RFLAGS.IF = 0",
          lambda c: bool(_blocked(c) & 1) and not c.guest("rflags") & INTERRUPT_FLAG, None, _E),
    Check("ENTRY.guest.pending", "reserved bits of the pending debug exceptions",
          lambda c: bool(c.guest("pending_debug") & PENDING_RESERVED), None, _E),
    Check("ENTRY.guest.pending_bs", "blocking by STI or MOV-SS, or HLT: BS is not RFLAGS.TF without "
          "IA32_DEBUGCTL.BTF", _pending_bs, None, _E),
), "VMLAUNCH, VMRESUME, SEAMRET: the guest-state area; a row that stops is VM-entry failure 33.")


def _host_efer(c: Entry) -> bool:
    """Reserved bits, and LMA and LME both as "host address-space size" says."""
    efer, wide = c.host("ia32_efer"), (EFER_LMA | EFER_LME) * c.exits_with(HOST_64)
    return c.exits_with(LOAD_EFER) and bool(efer & EFER_RESERVED or efer & (EFER_LMA | EFER_LME) != wide)


_H, _I, _J = (f"SDM vol. 3C 27.2.{i}" for i in range(2, 5))
HOST_STATE: CheckTable[Entry, None] = CheckTable("VM entry: host state", (
    Check("ENTRY.host.field", "a field's own demand: canonical, memory types, TI and RPL of selectors",
          lambda c: bad_host_field(c.data) is not None, None, "SDM vol. 3C 27.2"),
    Check("ENTRY.host.cr0", "CR0 has a bit that VMX operation does not allow so",
          lambda c: _not_fixed(c.host("cr0"), *c.fixed[:2]), None, _H),
    Check("ENTRY.host.cr4", "CR4 has a bit that VMX operation does not allow so",
          lambda c: _not_fixed(c.host("cr4"), c.fixed[2] | CR4_VMXE, c.fixed[3], CR4_SMXE), None, _H),
    Check("ENTRY.host.cet_wp", "CR4.CET = 1 and CR0.WP = 0",
          lambda c: bool(c.host("cr4") & CR4_CET and not c.host("cr0") & CR0_WP), None, _H),
    Check("ENTRY.host.cr3", "CR3 beyond MAXPA", lambda c: c.host("cr3") >> c.maxpa != 0, None, _H),
    Check("ENTRY.host.perf", "\"load IA32_PERF_GLOBAL_CTRL\" and a counter that is not there",
          lambda c: c.exits_with(LOAD_PERF) and bool(c.host("perf_global_ctrl") & ~c.counters), None, _H),
    Check("ENTRY.host.efer", "\"load IA32_EFER\": reserved bits, or LMA or LME is not \"host address-space size\"",
          _host_efer, None, _H),
    Check("ENTRY.host.s_cet", "\"load CET state\" and IA32_S_CET: reserved bits, SUPPRESS with TRACKER, a bitmap base "
          "that is not canonical", lambda c: c.exits_with(LOAD_CET) and _bad_s_cet(c.host("ia32_s_cet")), None, _H),
    Check("ENTRY.host.ssp", "\"load CET state\" and SSP is not a multiple of 4, or not canonical",
          lambda c: c.exits_with(LOAD_CET) and (bool(c.host("ssp") & 3) or not is_canonical(c.host("ssp"))), None, _H),
    Check("ENTRY.host.null", "the selector of CS or TR is null, or that of SS for a 32-bit host",
          lambda c: not (c.host("cs_selector") and c.host("tr_selector")
                         and (c.host("ss_selector") or c.exits_with(HOST_64))), None, _I),
    Check("ENTRY.host.size", "\"host address-space size\" is not the EFER.LMA of whoever enters",
          lambda c: c.exits_with(HOST_64) is not c.long_mode, None, _J),
    Check("ENTRY.host.guest_size", "\"IA-32e mode guest\" for a 32-bit host",
          lambda c: c.loads(IA32E_GUEST) and not c.exits_with(HOST_64), None, _J),
    Check("ENTRY.host.pae", "CR4.PAE = 0 for a 64-bit host",
          lambda c: c.exits_with(HOST_64) and not c.host("cr4") & CR4_PAE, None, _J),
), "VMLAUNCH, VMRESUME, SEAMRET: the host-state area; a row that stops is VMfail with error 8.")


# --- asked at every entry, answered once for each content

_FROM, _END = BY_NAME["host_es_selector"].offset, max(field.offset + field.size for field in BY_NAME.values())
"""The part of a region that a row can read."""
_RIP, _BEHIND = BY_NAME["guest_rip"].offset, BY_NAME["guest_rip"].offset + BY_NAME["guest_rip"].size
_KEPT = 256
_sound: dict[tuple[object, ...], None] = {}


def entry_of(platform: Platform, lp: Lp, data: bytes | bytearray) -> Entry:
    """A VM entry of a processor through a VMCS with these data."""
    fixed = itemgetter(*CR_FIXED)(platform.config.vmx_msrs)
    return Entry(data, fixed, platform.config.maxpa, cpuid(platform, lp, 0xA), bool(lp.efer & EFER_LMA))


def refuses(table: CheckTable[Entry, None], entry: Entry) -> Check[Entry, None] | None:
    """The row that refuses an entry.  What was found sound is remembered by its content: most entries are alike."""
    if table.observers:
        return table.decide(entry)
    data, *asked = entry
    rip = get(data, "guest_rip")  # another one at every call; the rows ask of it only these two things
    key = table.name, bytes(data[_FROM:_RIP]), bytes(data[_BEHIND:_END]), is_canonical(rip), rip >> 32 != 0, *asked
    if key in _sound:
        return None
    row = table.decide(entry)
    if row is None:
        if len(_sound) >= _KEPT:
            _sound.clear()
        _sound[key] = None
    return row
