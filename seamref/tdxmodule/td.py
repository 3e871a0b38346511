"""One TD's life as the host drives it: build, keys, vCPUs, teardown (TDXM tdh_{mng,vp,mem,mr,phymem}_*.c).

Shared sub-checks are tables of their own: PAGE for every operand that names a page, OWNER for the TD behind a vCPU,
TD for "is this TD in a state for it".  All of it takes page and KOT locks, never GLOBAL_LOCK.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.memory import get_agent
from seamref.arch.msr import wrmsr
from seamref.arch.outcome import Done
from seamref.arch.software import Ud2
from seamref.arch.trace import Step
from seamref.arch.vmcs import CONTROL_MSRS, default_controls, make_vmcs
from seamref.arch.vmx import vmclear, vmptrld
from seamref.errors import NotModelled
from seamref.spec import CHOSEN, Check, CheckTable, implements
from seamref.tdxmodule.build import VERSION_1_VP_INIT
from seamref.tdxmodule.core import Answer, Call, Stage, View, leaf, ok, vmcs_field
from seamref.tdxmodule.cpuid_config import (
    ARCH_CAPABILITIES_CONFIG,
    TOPOLOGY_AT,
    Configurable,
    configurable,
    levels_wrong,
)
from seamref.tdxmodule.sha384 import Sha384
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status
from seamref.tdxmodule.structures import (
    ATTRIBUTES_DEBUG,
    ATTRIBUTES_FIXED1,
    ATTRIBUTES_MIGRATABLE,
    ATTRIBUTES_PERFMON,
    CONFIG_FLAGS_FIXED0,
    CONFIG_FLAGS_FIXED1,
    CONFIG_GPAW,
    INIT_MSRS,
    KOT_ENTRY,
    MAX_TDCX,
    MAX_TDVPS_PAGES,
    MAX_VCPUS_PER_TD,
    MAX_X2APIC,
    NOT_ASSOCIATED,
    PAGE,
    SEPT_ROOT_PAGE,
    TD_PARAMS,
    TDCS_PAGES,
    TDVPS_PAGES,
    XFAM_AVX,
    XFAM_AVX512,
    XFAM_FIXED1,
    XFAM_SAME,
    Hkid,
    Lifecycle,
    OpState,
    PageType,
    VcpuState,
)
from seamref.tdxmodule.system import (
    attributes_fixed0,
    can_avoid,
    first,
    later,
    msr_of,
    platform_fms,
    random_key,
    ref,
    xfam_fixed0,
)

S = Status
SHARED_GPA = 1 << 47
"""SHARED bit of a guest physical address (GPAW = 0)."""
SEPT_FREE = 1 << 63
"""A free secure-EPT entry: nothing but "suppress #VE" (the bits are *chosen*)."""
SEPT_PRESENT = 7


# --- shared sub-checks ------------------------------------------------------------------------------------------


class PageCheck:
    """An operand that names a page: register, expected types, how its PAMT entry is locked."""

    __slots__ = ("call", "kind", "pa", "types")

    def __init__(self, call: Call, pa: int, types: tuple[PageType, ...], kind: str) -> None:
        self.call = call
        self.pa = pa
        self.types = types
        self.kind = kind

    def malformed(self) -> bool:
        """Not 4 KiB aligned, beyond max PA, or with KeyID bits."""
        platform = self.call.platform
        return bool(self.pa & 0xFFF) or self.pa >> platform.config.maxpa != 0 or platform.split(self.pa)[0] != 0


_P = "TDXM src/common/memory_handlers/pamt_manager.h"
PAGE_CHECK: CheckTable[PageCheck, Status] = CheckTable("PAGE", (
    Check("PAGE.align", "not 4 KiB aligned, beyond max PA, or with KeyID bits", lambda c: c.malformed(),
          S.TDX_OPERAND_INVALID, _P),
    Check("PAGE.range", "not in an initialised block of a TDMR", lambda c: c.call.tdmr_of(c.pa) is None,
          S.TDX_OPERAND_ADDR_RANGE_ERROR, _P),
    Check("PAGE.lock", "another processor holds the page's PAMT entry",
          lambda c: not c.call.lock(c.kind.upper(), c.call.pamt(c.pa).address("lock"), linear=False),
          S.TDX_OPERAND_BUSY, _P),
    Check("PAGE.type", "the page is of another type", lambda c: c.call.pamt(c.pa).num("type") not in c.types,
          S.TDX_PAGE_METADATA_INCORRECT, _P),
), "A page operand: conditions in order; each status carries the operand's id.")


def page(register: str, types: PageType | tuple[PageType, ...], kind: str, mask: int = (1 << 64) - 1) -> Stage:
    """A page operand in ``register``, of one of ``types``, locked exclusive (x) or shared (s)."""
    wanted = types if isinstance(types, tuple) else (types,)

    def stage(c: Call) -> Result | None:
        row = PAGE_CHECK.decide(PageCheck(c, c.reg(register) & mask, wanted, kind))
        return None if row is None else Result(row.result, int(Operand[register.upper()]))

    return stage


def owner_of(c: Call, pa: int) -> int:
    """Address of the TDR that owns a page."""
    return c.pamt(pa).num("owner") << 12


VP_INIT_LEAF = 22
OWNER: CheckTable[tuple[Call, int, str], Answer] = CheckTable("OWNER", (
    Check("OWNER.lock", "another processor holds the owning TDR",
          lambda c: not c[0].lock(c[2], c[0].pamt(owner_of(*c[:2])).address("lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.TDR), _P),
), "The TDR that owns a vCPU or page, locked shared.")


def owner(register: str, mask: int = (1 << 64) - 1) -> Stage:
    """Lock the owning TDR of the page in ``register``: shared, exclusive for TDH.VP.INIT version 1."""

    def stage(c: Call) -> Result | None:
        kind = "X" if c.leaf == VP_INIT_LEAF and c.version else "S"
        row = OWNER.decide((c, c.reg(register) & mask, kind))
        return None if row is None else row.result.result(c)

    return stage


@dataclass(frozen=True, slots=True)
class TdCheck:
    """A TD that must be in a state for something."""

    call: Call
    tdr: View
    states: tuple[OpState, ...]
    kind: str

    @property
    def tdcs(self) -> View:
        """Its control structure; asked for behind the row that says it is there."""
        return self.call.tdcs(self.tdr)


_B = "TDXM src/common/helpers/helpers.c"
TD_CHECK: CheckTable[TdCheck, Answer] = CheckTable("TD", (
    Check("TD.fatal", "the TD is fatally broken", lambda c: c.tdr.num("fatal") != 0, Answer(S.TDX_TD_FATAL), _B),
    Check("TD.keys", "lifecycle is not TD_KEYS_CONFIGURED",
          lambda c: c.tdr.num("lifecycle") != Lifecycle.KEYS_CONFIGURED,
          Answer(S.TDX_TD_KEYS_NOT_CONFIGURED), _B),
    Check("TD.tdcs", "fewer than 6 TDCS pages", lambda c: c.tdr.num("num_tdcx") < TDCS_PAGES,
          Answer(S.TDX_TDCS_NOT_ALLOCATED), _B),
    Check("TD.op_lock", "another processor changes OP_STATE",
          lambda c: not c.call.lock(c.kind, c.tdcs.address("op_state_lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.OP_STATE), _B),
    Check("TD.op_state", "OP_STATE does not allow this", lambda c: c.tdcs.num("op_state") not in c.states,
          Answer(S.TDX_OP_STATE_INCORRECT), _B),
), "A TD's state, in order.")


def td_state(find: Callable[[Call], View], *states: OpState, kind: str = "s") -> Stage:
    """The TD must be in one of the OP states; OP_STATE is locked shared, or exclusive where it changes."""

    def stage(c: Call) -> Result | None:
        row = TD_CHECK.decide(TdCheck(c, find(c), states, kind))
        return None if row is None else row.result.result(c)

    return stage


def tdr_in(register: str, mask: int = (1 << 64) - 1) -> Callable[[Call], View]:
    """The TDR that a register names."""
    return lambda c: c.tdr(c.reg(register) & mask)


def tdr_behind(register: str, mask: int = (1 << 64) - 1) -> Callable[[Call], View]:
    """The TDR that owns the page a register names."""
    return lambda c: c.tdr(owner_of(c, c.reg(register) & mask))


def tsc_adjust_differs(c: Call) -> bool:
    """IA32_TSC_ADJUST against what TDH.SYS.INIT sampled."""
    now, then = msr_of(c, 0x3B), c.glob.num(f"msr_sample[{INIT_MSRS.index(0x3B)}]")
    return first(c, 0x3B if now != then else None)


def add_child(tdr: View, count: int = 1) -> None:
    """A page more (or less) belongs to the TD."""
    tdr.set("chldcnt", tdr.num("chldcnt") + count)


RCX_TDR = tdr_in("rcx")

# --- TDH.MNG.CREATE (9), KEY.CONFIG (8), ADDCX (1), INIT (21) ---------------------------------------------------

_C = ref("tdh_mng_create.c")
CREATE_HKID: CheckTable[Call, Answer] = CheckTable("TDH.MNG.CREATE", (
    Check("MNG.CREATE.rdx", "RDX[63:16] is not 0, or the KeyID is not private",
          lambda c: c.rdx >> 16 != 0 or not c.is_private_hkid(c.rdx), Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _C),
), "TDH.MNG.CREATE (leaf 9): the KeyID operand; then the TDR page.")
CREATE: CheckTable[Call, Answer] = CheckTable("TDH.MNG.CREATE KOT", (
    Check("MNG.CREATE.kot", "the KOT is locked", lambda c: not c.lock("x", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _C),
    Check("MNG.CREATE.hkid", "the KeyID is not free", lambda c: c.glob.num(f"kot[{c.rdx}].state") != Hkid.FREE,
          Answer(S.TDX_HKID_NOT_FREE), _C),
    Check("MNG.CREATE.entropy", "no entropy for the TD's UUID", lambda c: not _rdrand(c), Answer(S.TDX_RND_NO_ENTROPY),
          _C),
), "TDH.MNG.CREATE: the KeyID's owner.")


def _rdrand(c: Call) -> bool:
    carry, c.found = c.platform.rdrand()
    return bool(carry)


@implements("MNG.CREATE.effect", "KOT ASSIGNED; SEAMDB index and nonce of the module that runs now go into the TDR", _C)
def _create(c: Call) -> Result:
    """MNG.CREATE.effect: from here on, which module created the TD is never rewritten."""
    c.give_page(c.rcx, PageType.TDR, 0, c.glob.num("hkid"))
    tdr = c.tdr(c.rcx)
    tdr.set("lifecycle", Lifecycle.HKID_ASSIGNED)
    tdr.set("td_uuid", c.platform.random_bytes(32))
    tdr.set("hkid", c.rdx)
    tdr.set("handoff_version", c.glob.num("module_hv"))
    tdr.set("seamdb_index", c.glob.num("seamdb_index"))
    tdr.set("seamdb_nonce", c.glob.raw("seamdb_nonce"))
    c.glob.set(f"kot[{c.rdx}].state", Hkid.ASSIGNED)
    return SUCCESS


leaf(9, "TDH.MNG.CREATE", "a TD: its root page and its KeyID", stages=(CREATE_HKID, page("rcx", PageType.NDA, "x"),
     CREATE),
     effects=(_create,), inputs="RCX TDR page, RDX KeyID")

_K = ref("tdh_mng_key_config.c")
MNG_KEY_CONFIG: CheckTable[Call, Answer] = CheckTable("TDH.MNG.KEY.CONFIG", (
    Check("MNG.KEY.CONFIG.fatal", "the TD is fatally broken", lambda c: RCX_TDR(c).num("fatal") != 0,
          Answer(S.TDX_TD_FATAL), _K),
    Check("MNG.KEY.CONFIG.lifecycle", "lifecycle is not TD_HKID_ASSIGNED",
          lambda c: RCX_TDR(c).num("lifecycle") != Lifecycle.HKID_ASSIGNED, Answer(S.TDX_LIFECYCLE_STATE_INCORRECT),
          _K),
    Check("MNG.KEY.CONFIG.configured", "this package has the key already",
          lambda c: bool(RCX_TDR(c).num("pkg_config_bitmap") >> c.package & 1), Answer(S.TDX_KEY_CONFIGURED), _K),
), "TDH.MNG.KEY.CONFIG (leaf 8): conditions in order, behind the TDR page.")


@implements("MNG.KEY.CONFIG.effect", "random key on this package; all of PKG_CONFIG_BITMAP: TD_KEYS_CONFIGURED", _K)
def _mng_key_config(c: Call) -> Result:
    """MNG.KEY.CONFIG.effect: compared with the *global* bitmap, which is why that is handed off."""
    tdr = RCX_TDR(c)
    failed = random_key(c, tdr.num("hkid"))
    if failed is not None:
        return failed
    bitmap = tdr.num("pkg_config_bitmap") | 1 << c.package
    tdr.set("pkg_config_bitmap", bitmap)
    if bitmap == c.glob.num("pkg_config_bitmap"):
        tdr.set("lifecycle", Lifecycle.KEYS_CONFIGURED)
    return SUCCESS


leaf(8, "TDH.MNG.KEY.CONFIG", "the TD's key on one package", stages=(page("rcx", PageType.TDR, "x"), MNG_KEY_CONFIG),
     effects=(_mng_key_config,), inputs="RCX TDR")

_X = ref("tdh_mng_addcx.c")
_RDX_TDR = tdr_in("rdx")
MNG_ADDCX: CheckTable[Call, Answer] = CheckTable("TDH.MNG.ADDCX", (
    Check("MNG.ADDCX.fatal", "the TD is fatally broken", lambda c: _RDX_TDR(c).num("fatal") != 0,
          Answer(S.TDX_TD_FATAL), _X),
    Check("MNG.ADDCX.keys", "lifecycle is not TD_KEYS_CONFIGURED",
          lambda c: _RDX_TDR(c).num("lifecycle") != Lifecycle.KEYS_CONFIGURED, Answer(S.TDX_TD_KEYS_NOT_CONFIGURED),
          _X),
    Check("MNG.ADDCX.number", "9 TDCS pages are there", lambda c: _RDX_TDR(c).num("num_tdcx") == MAX_TDCX,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _X),
    Check("MNG.ADDCX.op_state", "the TD is initialised",
          lambda c: _RDX_TDR(c).num("num_tdcx") >= TDCS_PAGES
          and c.tdcs(_RDX_TDR(c)).num("op_state") != OpState.UNINITIALIZED, Answer(S.TDX_OP_STATE_INCORRECT), _X),
), "TDH.MNG.ADDCX (leaf 1): conditions in order, behind the TDR page; then the new page.")
ADDCX_ENTROPY: CheckTable[Call, Answer] = CheckTable("TDH.MNG.ADDCX entropy", (
    Check("MNG.ADDCX.entropy", "sixth page: no entropy for a migration key",
          lambda c: _RDX_TDR(c).num("num_tdcx") == TDCS_PAGES - 1 and not _rdrand(c), Answer(S.TDX_RND_NO_ENTROPY), _X),
), "TDH.MNG.ADDCX: the page that completes the TDCS.")


@implements("MNG.ADDCX.effect", "the page becomes part of the TDCS; the secure EPT root gets its initial entries", _X)
def _mng_addcx(c: Call) -> Result:
    """MNG.ADDCX.effect."""
    tdr = _RDX_TDR(c)
    number = tdr.num("num_tdcx")
    c.give_page(c.rcx, PageType.TDCX, c.rdx, tdr.num("hkid"))
    if number == SEPT_ROOT_PAGE:
        free_entries(c, c.rcx, tdr.num("hkid"))
    tdr.set(f"tdcx_pa[{number}]", c.with_hkid(c.rcx, tdr.num("hkid")))
    tdr.set("num_tdcx", number + 1)
    add_child(tdr)
    return SUCCESS


leaf(1, "TDH.MNG.ADDCX", "a page for the TD's control structure",
     stages=(page("rdx", PageType.TDR, "x"), MNG_ADDCX, page("rcx", PageType.NDA, "x"), ADDCX_ENTROPY),
     effects=(_mng_addcx,), inputs="RCX page, RDX TDR")

_I = ref("tdh_mng_init.c")


def _params(c: Call) -> Any:
    return TD_PARAMS.decode(c.port.read(c.rdx, TD_PARAMS.size))


def _attributes_wrong(c: Call) -> bool:
    asked = _params(c).attributes
    both = asked & ATTRIBUTES_MIGRATABLE and asked & (ATTRIBUTES_DEBUG | ATTRIBUTES_PERFMON)
    return bool(asked & ~attributes_fixed0(c) or ATTRIBUTES_FIXED1 & ~asked or both)


def _xfam_wrong(c: Call) -> bool:
    asked = _params(c).xfam
    torn = any(asked & group not in (0, group) for group in XFAM_SAME)
    alone = asked & XFAM_AVX512 and not asked & XFAM_AVX
    return bool(asked & ~xfam_fixed0(c) or XFAM_FIXED1 & ~asked or torn or alone)


def _max_vcpus_wrong(c: Call) -> bool:
    asked = _params(c).max_vcpus
    return asked == 0 or (later(c) and asked > MAX_VCPUS_PER_TD)


def _reserved(name: str) -> Callable[[Call], bool]:
    """Whether a reserved range of TD_PARAMS is not 0."""
    return lambda c: any(TD_PARAMS.peek(c.port.read(c.rdx, TD_PARAMS.size), name))


def _config_flags_wrong(c: Call) -> bool:
    return bool(_params(c).config_flags & ~CONFIG_FLAGS_FIXED0 or CONFIG_FLAGS_FIXED1 & ~_params(c).config_flags)


EPTP_4_LEVELS = 0x1E


def _eptp_wrong(c: Call) -> bool:
    """Write-back with 4 levels (5 are not modelled, and IA32_VMX_EPT_VPID_CAP[7] is 0); GPAW needs 5 levels."""
    return _params(c).eptp_controls != EPTP_4_LEVELS or bool(_params(c).config_flags & CONFIG_GPAW)


def _values(entry: Any) -> Cpuid:
    return Cpuid(entry["eax"], entry["ebx"], entry["ecx"], entry["edx"])


def _hle_without_rtm(c: Call, row: Configurable, asked: Cpuid) -> bool:
    """CPUID.7.0:EBX bits 4 and 11 as the TD would see them."""
    seen = cpuid(c.platform, c.lp, row.leaf, row.subleaf).ebx & (asked.ebx | ~row.allow.ebx)
    return seen >> 4 & 1 != seen >> 11 & 1


def _cpuid_config_wrong(c: Call) -> bool:
    """Entry by entry: bits that are not configurable, another FMS than the platform's, HLE without RTM; RCX = leaf."""
    params = _params(c)
    for row, entry in zip(configurable(later(c)), params.cpuid_config, strict=False):
        asked = _values(entry)
        bad = any(a & ~(d | w) for a, d, w in zip(asked, row.direct, row.allow, strict=True))
        if row.leaf == 1:
            bad = bad or asked.eax not in (0, platform_fms(c))
        if (row.leaf, row.subleaf) == (7, 0):
            bad = bad or _hle_without_rtm(c, row, asked)
        if bad:
            c.out(rcx=row.id)
            return True
    return False


def _topology_config_wrong(c: Call) -> bool:
    entries = _params(c).cpuid_config
    return later(c) and levels_wrong(tuple(_values(e) for e in entries[TOPOLOGY_AT : len(configurable(True))]))


def _behind_config(c: Call) -> bool:
    entries = _params(c).cpuid_config
    return any(any(_values(entry)) for entry in entries[len(configurable(later(c))) :])


def _arch_capabilities_wrong(c: Call) -> bool:
    """A value without MSR_CONFIG_CTLS bit 0, or with bits that cannot be configured."""
    value = _params(c).ia32_arch_capabilities_config
    return bool(value and (not _params(c).msr_config_ctls & 1 or value & ~ARCH_CAPABILITIES_CONFIG))


MNG_INIT_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.MNG.INIT CPUID limit", (
    Check("MNG.INIT.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", lambda c: bool(msr_of(c, 0x1A0) >> 22 & 1),
          Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET), _I),
), "TDH.MNG.INIT (leaf 21): the first condition.")
MNG_INIT: CheckTable[Call, Answer] = CheckTable("TDH.MNG.INIT", (
    Check("MNG.INIT.rdx", "RDX not 1 KiB aligned or not a shared address", lambda c: not c.is_shared(c.rdx, 1024),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.attributes", "an ATTRIBUTES bit that may not be 1, or must be 1; MIGRATABLE with DEBUG or PERFMON",
          _attributes_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.ATTRIBUTES), _I),
    Check("MNG.INIT.xfam", "an XFAM bit that may not be 1, or must be 1; parts of AVX-512, CET, AMX; AVX-512 alone",
          _xfam_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.XFAM), _I),
    Check("MNG.INIT.max_vcpus", "MAX_VCPUS is 0, or (1.5.05) above 576", _max_vcpus_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.MAX_VCPUS), _I),
    Check("MNG.INIT.l2", "more than 3 L2 VMs", lambda c: _params(c).num_l2_vms > 3,
          Answer(S.TDX_OPERAND_INVALID, Operand.NUM_L2_VMS), _I),
    Check("MNG.INIT.tdcs", "TDCS pages for the L2 VMs are missing",
          lambda c: RCX_TDR(c).num("num_tdcx") < TDCS_PAGES + _params(c).num_l2_vms, Answer(S.TDX_TDCS_NOT_ALLOCATED),
          _I),
    Check("MNG.INIT.reserved", "TD_PARAMS bytes 20 to 23 are not 0", _reserved("reserved_0"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.config_flags", "CONFIG_FLAGS that this module does not have", _config_flags_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.EXEC_CONTROLS), _I),
    Check("MNG.INIT.eptp", "EPTP_CONTROLS are not write-back with 4 levels, or GPAW asks for 5", _eptp_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.EPTP_CONTROLS), _I),
    Check("MNG.INIT.tsc_frequency", "TSC_FREQUENCY not in 4..400", lambda c: not 4 <= _params(c).tsc_frequency <= 400,
          Answer(S.TDX_OPERAND_INVALID, Operand.TSC_FREQUENCY), _I),
    Check("MNG.INIT.tsc_adjust", "IA32_TSC_ADJUST is not what TDH.SYS.INIT saw", tsc_adjust_differs,
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _I),
    Check("MNG.INIT.reserved_1", "reserved bytes behind TSC_FREQUENCY are not 0", _reserved("reserved_1"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.msr_config", "a reserved bit of MSR_CONFIG_CTLS is not 0", lambda c: _params(c).msr_config_ctls > 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.reserved_2", "reserved bytes behind IA32_ARCH_CAPABILITIES_CONFIG are not 0",
          _reserved("reserved_2"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.cpuid", "CPUID configuration: bits that are not configurable, another FMS, HLE without RTM",
          _cpuid_config_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.CPUID_CONFIG), _I),
    Check("MNG.INIT.topology", "1.5.05: the configured leaf 1FH is not understood", _topology_config_wrong,
          Answer(S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED), _I),
    Check("MNG.INIT.reserved_3", "bytes behind the configurable CPUID leaves are not 0", _behind_config,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.arch_capabilities",
          "IA32_ARCH_CAPABILITIES_CONFIG unasked (MSR_CONFIG_CTLS), or bits not configurable",
          _arch_capabilities_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.IA32_ARCH_CAPABILITIES_CONFIG), _I),
), "TDH.MNG.INIT: conditions in order, behind TDR page and TD state.")


@implements("MNG.INIT.effect", "parameters kept, TD_EPOCH = 1, SHA-384 started, RTMRs 0; OP_STATE = INITIALIZED", _I)
def _mng_init(c: Call) -> Result:
    """MNG.INIT.effect: the TD is being built from here to TDH.MR.FINALIZE, which is update-sensitive."""
    params, tdr = _params(c), RCX_TDR(c)
    if params.num_l2_vms:
        raise NotModelled("TD partitioning (L2 VMs)", "MNG.INIT.effect")
    tdcs = c.tdcs(tdr)
    for name in ("attributes", "xfam", "max_vcpus", "tsc_frequency", "mrconfigid", "mrowner", "mrownerconfig"):
        tdcs.set(name, params[name])
    tdcs.set("eptp", sept_root(c, tdr) | params.eptp_controls)
    tdcs.set("td_epoch", 1)
    put_hash(c, tdcs, Sha384())
    if can_avoid(c):
        tdcs.set("counted", 1)
        c.glob.set("num_sensitive", c.glob.num("num_sensitive") + 1)
    tdcs.set("op_state", OpState.INITIALIZED)
    return SUCCESS


leaf(21, "TDH.MNG.INIT", "the TD's parameters",
     stages=(MNG_INIT_FIRST, page("rcx", PageType.TDR, "x"), td_state(RCX_TDR, OpState.UNINITIALIZED, kind="x"),
     MNG_INIT),
     effects=(_mng_init,), outputs=("rcx",), inputs="RCX TDR, RDX TD_PARAMS")

# --- the unfinished MRTD ----------------------------------------------------------------------------------------

INTERRUPTED: CheckTable[tuple[Call, View], Answer] = CheckTable("BUILD", (
    Check("BUILD.interrupted", "a module that detects it: the module was replaced since this build began",
          lambda c: c[0].detects and c[1].num("mrtd_context.seamdb_index") != c[0].glob.num("seamdb_index"),
          Answer(S.TDX_UPDATE_COMPAT_SENSITIVE), "BASE table 4.4", CHOSEN),
), "\"Detect after update\": what newer modules may do about a TD build that an update interrupted.")


def interrupted(find: Callable[[Call], View]) -> Stage:
    """The TD build must not have been interrupted, where the build of the module looks."""

    def stage(c: Call) -> Result | None:
        row = INTERRUPTED.decide((c, c.tdcs(find(c))))
        return None if row is None else row.result.result(c)

    return stage


def put_hash(c: Call, tdcs: View, state: Sha384) -> None:
    """Store the unfinished hash in this build's packed format, bound to this module's SEAMDB index."""
    tdcs.set("mrtd_context.packed", state.pack(c.build.hash_format))
    tdcs.set("mrtd_context.seamdb_index", c.glob.num("seamdb_index"))


@implements("BUILD.rebind", "a context bound to another SEAMDB index is bound to this module's library; its packed "
            "bytes are taken as they are", "TDXM src/common/crypto/sha384.c")
def get_hash(c: Call, tdcs: View) -> Sha384:
    """BUILD.rebind: bytes packed by a library of another format are misread without any error."""
    return Sha384.unpack(tdcs.raw("mrtd_context.packed"), c.build.hash_format)


def extend(c: Call, tdcs: View, *blocks: bytes) -> None:
    """Update the MRTD with 128-byte blocks."""
    state = get_hash(c, tdcs)
    for block in blocks:
        state.update(block)
    put_hash(c, tdcs, state)


def block(name: str, gpa: int) -> bytes:
    """A 128-byte block: the operation's name at 0, the GPA at 16."""
    return (name.encode().ljust(16, b"\0") + gpa.to_bytes(8, "little")).ljust(128, b"\0")


# --- secure EPT -------------------------------------------------------------------------------------------------


def free_entries(c: Call, pa: int, hkid: int) -> None:
    """Fill a secure-EPT page with free entries."""
    c.port.write(c.with_hkid(pa, hkid), SEPT_FREE.to_bytes(8, "little") * 512)


def sept_root(c: Call, tdr: View) -> int:
    """Address of the secure EPT's root, without KeyID."""
    return c.platform.split(tdr.num(f"tdcx_pa[{SEPT_ROOT_PAGE}]"))[1]


@dataclass(frozen=True, slots=True)
class Walk:
    """Where a walk of the secure EPT ended: the entry's address (with KeyID), its value and level (0 = 4 KiB)."""

    address: int
    entry: int
    level: int


@implements("SEPT.walk", "from the root in the TDCS down to a level, through entries under the TD's KeyID",
            "TDXM src/common/memory_handlers/sept_manager.h")
def sept_walk(c: Call, tdr: View, gpa: int, level: int) -> Walk:
    """SEPT.walk: stops early at an entry that is not present."""
    hkid, table = tdr.num("hkid"), sept_root(c, tdr)
    for at in (3, 2, 1, 0):
        address = c.with_hkid(table + (gpa >> 12 + 9 * at & 0x1FF) * 8, hkid)
        entry = c.port.read_int(address)
        if at == level or not entry & SEPT_PRESENT:
            return Walk(address, entry, at)
        table = entry & 0x000FFFFFFFFFF000
    raise AssertionError("level 0 returns")


def gpa_of(c: Call) -> int:
    """GPA in RCX, without the level bits."""
    return c.rcx & ~0xFFF


def gpa_wrong(c: Call, levels: range) -> bool:
    """Level not possible, reserved bits, or a GPA that is shared, too wide, or not aligned to the level."""
    level = c.rcx & 7
    if level not in levels or c.rcx & 0xFF8 or c.rcx >> 47:
        return True
    return bool(gpa_of(c) & (1 << 12 + 9 * level) - 1)


def _sept_locked(register: str, mask: int) -> Callable[[Call], bool]:
    find = tdr_in(register, mask)
    return lambda c: not c.lock("x", c.tdcs(find(c)).address("sept_lock"), linear=False)


TDR_MASK = ~0xFFF & (1 << 52) - 1
_FLAG_TDR = tdr_in("rdx", TDR_MASK)
LEVEL, MAPPED, NON_LEAF = 7, 4, 0x84
SEPT_LEAF_SHOWN, SEPT_TABLE_SHOWN, SEPT_LEAF_TYPE = 0x800FFFFFFFFFF0F7, 7, 0xF0
"""Bits of a leaf entry, of an entry that names a table, that the host is shown in RCX; a leaf is
write-back with the guest's PAT ignored."""


@implements("SEPT.shown", "RCX = the entry's architectural bits, RDX = level | state << 8: 0 free, 4 mapped, "
            "84H a table",
            "TDXM src/common/memory_handlers/sept_manager.c")
def show_entry(c: Call, walk: Walk) -> None:
    """SEPT.shown."""
    if not walk.entry & SEPT_PRESENT:
        c.out(rcx=SEPT_FREE, rdx=walk.level)
    elif walk.level:
        c.out(rcx=walk.entry & SEPT_TABLE_SHOWN, rdx=walk.level | NON_LEAF << 8)
    else:
        c.out(rcx=(walk.entry | SEPT_LEAF_TYPE) & SEPT_LEAF_SHOWN, rdx=MAPPED << 8)


def shows(c: Call, walk: Walk, wrong: bool) -> bool:
    """A condition on an entry: where it decides, the entry is shown."""
    if wrong:
        show_entry(c, walk)
    return wrong


TDR_MASK = ~0xFFF & (1 << 52) - 1
ALLOW_EXISTING = 1
_FLAG_TDR = tdr_in("rdx", TDR_MASK)
NO_PAGE = (1 << 64) - 1
"""An operand that names no page."""


def _handle_wrong(c: Call) -> bool:
    """Bits of RDX that are neither the TDR's address nor, in version 1, ALLOW_EXISTING."""
    return bool(c.rdx & ~TDR_MASK & ~(ALLOW_EXISTING if c.version else 0) & (1 << 64) - 1)


def _add_walk(c: Call) -> Walk:
    return sept_walk(c, _FLAG_TDR(c), gpa_of(c), c.rcx & LEVEL)


def _add_entry(c: Call) -> bool:
    """The entry is in use; version 1 may name a page for nothing (ALLOW_EXISTING), or none where a table is."""
    walk = _add_walk(c)
    free = walk.entry == SEPT_FREE
    if c.version and c.r8 == NO_PAGE:
        return shows(c, walk, free)
    return shows(c, walk, not free and not (c.version and c.rdx & ALLOW_EXISTING))


def _l2_page(c: Call) -> int | None:
    """Details of the first L2 page (R9 to R11) for a VM that the TD does not have: its operand id."""
    if not c.version:
        return None
    return next((int(Operand[name.upper()]) for name in ("r9", "r10", "r11") if c.reg(name) != NO_PAGE), None)


def sept_add_page(c: Call) -> Result | None:
    """The new page, where one is used."""
    if c.version and (c.r8 == NO_PAGE or _add_walk(c).entry != SEPT_FREE):
        return None
    return page("r8", PageType.NDA, "x")(c)  # type: ignore[operator]


_A = ref("tdh_mem_sept_add.c")
SEPT_ADD_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD handle", (
    Check("MEM.SEPT.ADD.version", "RAX[23:16] above 1", lambda c: c.version > 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _A),
    Check("MEM.SEPT.ADD.handle", "reserved bits of RDX (bit 0, ALLOW_EXISTING, is one in version 0)", _handle_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _A),
), "TDH.MEM.SEPT.ADD (leaf 3): conditions in order before the TDR is looked at.")
SEPT_ADD: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD", (
    Check("MEM.SEPT.ADD.rcx", "level not 1..3, or GPA not private or not aligned to it", lambda c: gpa_wrong(c,
          range(1, 4)),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _A),
    Check("MEM.SEPT.ADD.lock", "another processor holds the secure EPT", _sept_locked("rdx", TDR_MASK),
          Answer(S.TDX_OPERAND_BUSY, Operand.SEPT_TREE), _A),
    Check("MEM.SEPT.ADD.walk", "the entry's table is not there",
          lambda c: shows(c, _add_walk(c), _add_walk(c).level != c.rcx & LEVEL),
          Answer(S.TDX_EPT_WALK_FAILED, Operand.RCX), _A),
    Check("MEM.SEPT.ADD.entry", "the entry is not free, and version 1 does not allow that", _add_entry,
          Answer(S.TDX_EPT_ENTRY_STATE_INCORRECT, Operand.RCX), _A),
), "TDH.MEM.SEPT.ADD: conditions in order, behind TDR and TD state; then the page.")
SEPT_ADD_L2: CheckTable[Call, Answer] = CheckTable("TDH.MEM.SEPT.ADD L2", (
    Check("MEM.SEPT.ADD.l2", "version 1: a page for an L2 VM that the TD does not have (all ones: none)",
          lambda c: first(c, _l2_page(c)), Answer(S.TDX_OPERAND_INVALID, found=True), _A),
), "TDH.MEM.SEPT.ADD: the pages of L2 VMs, behind the page in R8.")


@implements("MEM.SEPT.ADD.effect", "the page holds free entries, the entry points to it; PAMT type EPT", _A)
def _sept_add(c: Call) -> Result:
    """MEM.SEPT.ADD.effect."""
    tdr = _FLAG_TDR(c)
    if c.version and (c.r8 == NO_PAGE or _add_walk(c).entry != SEPT_FREE):
        return SUCCESS
    c.give_page(c.r8, PageType.EPT, c.rdx & TDR_MASK, tdr.num("hkid"))
    free_entries(c, c.r8, tdr.num("hkid"))
    walk = sept_walk(c, tdr, gpa_of(c), c.rcx & 7)
    c.port.write_int(walk.address, c.r8 | SEPT_PRESENT | SEPT_FREE)
    add_child(tdr)
    return SUCCESS


leaf(3, "TDH.MEM.SEPT.ADD", "a page of the secure EPT",
     stages=(SEPT_ADD_FIRST, page("rdx", PageType.TDR, "s", TDR_MASK),
             td_state(_FLAG_TDR, OpState.INITIALIZED, OpState.RUNNABLE), SEPT_ADD, sept_add_page, SEPT_ADD_L2),
     effects=(_sept_add,), outputs=("rcx", "rdx"), late=True,
     inputs="RCX GPA and level, RDX TDR (version 1: bit 0 ALLOW_EXISTING), R8 page, version 1: R9 to R11 L2 pages")

def _page_walk(c: Call) -> Walk:
    return sept_walk(c, _RDX_TDR(c), gpa_of(c), 0)


_G = ref("tdh_mem_page_add.c")
PAGE_ADD: CheckTable[Call, Answer] = CheckTable("TDH.MEM.PAGE.ADD", (
    Check("MEM.PAGE.ADD.rcx", "level is not 0, or GPA not private", lambda c: gpa_wrong(c, range(1)),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _G),
    Check("MEM.PAGE.ADD.walk", "no page of the secure EPT for this GPA",
          lambda c: shows(c, _page_walk(c), _page_walk(c).level != 0), Answer(S.TDX_EPT_WALK_FAILED, Operand.RCX),
          _G),
    Check("MEM.PAGE.ADD.entry", "the entry is not free",
          lambda c: shows(c, _page_walk(c), _page_walk(c).entry != SEPT_FREE),
          Answer(S.TDX_EPT_ENTRY_STATE_INCORRECT, Operand.RCX), _G),
    Check("MEM.PAGE.ADD.r9", "source not 4 KiB aligned or not a shared address", lambda c: not c.is_shared(c.r9, PAGE),
          Answer(S.TDX_OPERAND_INVALID, Operand.R9), _G),
), "TDH.MEM.PAGE.ADD (leaf 2): conditions in order, behind TDR and TD state; then the target page.")


@implements("MEM.PAGE.ADD.effect", "copied and encrypted, mapped, and its GPA measured", _G)
def _page_add(c: Call) -> Result:
    """MEM.PAGE.ADD.effect: the contents are not measured, TDH.MR.EXTEND does that."""
    tdr = _RDX_TDR(c)
    data = c.port.read(c.r9, PAGE)
    c.give_page(c.r8, PageType.REG, c.rdx, tdr.num("hkid"))
    c.port.write(c.with_hkid(c.r8, tdr.num("hkid")), data)
    c.port.write_int(sept_walk(c, tdr, gpa_of(c), 0).address, c.r8 | SEPT_PRESENT | SEPT_FREE)
    extend(c, c.tdcs(tdr), block("MEM.PAGE.ADD", gpa_of(c)))
    add_child(tdr)
    return SUCCESS


leaf(2, "TDH.MEM.PAGE.ADD", "a page of initial contents",
     stages=(page("rdx", PageType.TDR, "x"), td_state(_RDX_TDR, OpState.INITIALIZED), PAGE_ADD, interrupted(_RDX_TDR),
             page("r8", PageType.NDA, "x")),
     effects=(_page_add,), outputs=("rcx", "rdx"), inputs="RCX GPA, RDX TDR, R8 target page, R9 source page")

_E = ref("tdh_mr_extend.c")
CHUNK = 256
MR_EXTEND: CheckTable[Call, Answer] = CheckTable("TDH.MR.EXTEND", (
    Check("MR.EXTEND.rcx", "GPA not 256-byte aligned, or not private", lambda c: c.rcx % CHUNK != 0 or c.rcx >> 47 != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _E),
    Check("MR.EXTEND.entry", "no page is mapped there",
          lambda c: shows(c, _page_walk(c), not _page_walk(c).entry & SEPT_PRESENT),
          Answer(S.TDX_EPT_ENTRY_NOT_PRESENT, Operand.RCX), _E),
), "TDH.MR.EXTEND (leaf 16): conditions in order, behind TDR and TD state.")


@implements("MR.EXTEND.effect", "the GPA and the 256 bytes there are measured: three blocks", _E)
def _mr_extend(c: Call) -> Result:
    """MR.EXTEND.effect."""
    tdr = _RDX_TDR(c)
    entry = sept_walk(c, tdr, c.rcx, 0).entry
    data = c.port.read(c.with_hkid(entry & 0x000FFFFFFFFFF000 | c.rcx & 0xFFF, tdr.num("hkid")), CHUNK)
    extend(c, c.tdcs(tdr), block("MR.EXTEND", c.rcx), data[: CHUNK // 2], data[CHUNK // 2 :])
    return SUCCESS


leaf(16, "TDH.MR.EXTEND", "measure 256 bytes",
     stages=(page("rdx", PageType.TDR, "x"), td_state(_RDX_TDR, OpState.INITIALIZED), MR_EXTEND, interrupted(_RDX_TDR)),
     effects=(_mr_extend,), outputs=("rcx", "rdx"), inputs="RCX GPA, RDX TDR")

_F = ref("tdh_mr_finalize.c")
MR_FINALIZE: CheckTable[Call, Answer] = CheckTable("TDH.MR.FINALIZE", (
    Check("MR.FINALIZE.vcpus", "the TD has no vCPU", lambda c: c.tdcs(RCX_TDR(c)).num("num_vcpus") == 0,
          Answer(S.TDX_NO_VCPUS), _F),
), "TDH.MR.FINALIZE (leaf 17): conditions in order, behind TDR and TD state.")


@implements("MR.FINALIZE.effect", "MRTD is the finished hash; OP_STATE = RUNNABLE", _F)
def _mr_finalize(c: Call) -> Result:
    """MR.FINALIZE.effect."""
    tdcs = c.tdcs(RCX_TDR(c))
    tdcs.set("mrtd", get_hash(c, tdcs).digest())
    no_longer_sensitive(c, tdcs)
    tdcs.set("op_state", OpState.RUNNABLE)
    return SUCCESS


def no_longer_sensitive(c: Call, tdcs: View) -> None:
    """A TD that counted as update-sensitive does not any more."""
    if tdcs.num("counted"):
        tdcs.set("counted", 0)
        c.glob.set("num_sensitive", max(0, c.glob.num("num_sensitive") - 1))


leaf(17, "TDH.MR.FINALIZE", "the measurement is final, the TD may run",
     stages=(page("rcx", PageType.TDR, "x"), td_state(RCX_TDR, OpState.INITIALIZED, kind="x"), interrupted(RCX_TDR),
             MR_FINALIZE),
     effects=(_mr_finalize,), inputs="RCX TDR")

# --- vCPUs ------------------------------------------------------------------------------------------------------

_V = ref("tdh_vp_create.c")


@implements("VP.CREATE.effect", "the page becomes a vCPU's root; associated with no processor", _V)
def _vp_create(c: Call) -> Result:
    """VP.CREATE.effect."""
    tdr = _RDX_TDR(c)
    c.give_page(c.rcx, PageType.TDVPR, c.rdx, tdr.num("hkid"))
    c.tdvps(c.rcx, tdr).set("assoc_lpid", NOT_ASSOCIATED)
    add_child(tdr)
    return SUCCESS


leaf(10, "TDH.VP.CREATE", "a vCPU's root page",
     stages=(page("rdx", PageType.TDR, "s"), td_state(_RDX_TDR, OpState.INITIALIZED), page("rcx", PageType.NDA, "x")),
     effects=(_vp_create,), inputs="RCX page, RDX TDR")

_W = ref("tdh_vp_addcx.c")
_RDX_OWNER = tdr_behind("rdx")
VP_ADDCX: CheckTable[Call, Answer] = CheckTable("TDH.VP.ADDCX", (
    Check("VP.ADDCX.state", "the vCPU is initialised",
          lambda c: c.tdvps(c.rdx, _RDX_OWNER(c)).num("state") != VcpuState.UNINITIALIZED,
          Answer(S.TDX_VCPU_STATE_INCORRECT), _W),
    Check("VP.ADDCX.number", "the vCPU has 15 pages, for as many L2 VMs as a TD can have",
          lambda c: c.tdvps(c.rdx, _RDX_OWNER(c)).num("num_tdcx") == MAX_TDVPS_PAGES - 1,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _W),
), "TDH.VP.ADDCX (leaf 4): conditions in order, behind TDVPR, TDR and TD state; then the page.")


@implements("VP.ADDCX.effect", "the page becomes part of the vCPU", _W)
def _vp_addcx(c: Call) -> Result:
    """VP.ADDCX.effect."""
    tdr_pa = owner_of(c, c.rdx)
    tdr = c.tdr(tdr_pa)
    tdvps = c.tdvps(c.rdx, tdr)
    number = tdvps.num("num_tdcx")
    c.give_page(c.rcx, PageType.TDCX, tdr_pa, tdr.num("hkid"))
    tdvps.set(f"tdcx_pa[{number}]", c.rcx)
    tdvps.set("num_tdcx", number + 1)
    add_child(tdr)
    return SUCCESS


leaf(4, "TDH.VP.ADDCX", "a page for a vCPU",
     stages=(page("rdx", PageType.TDVPR, "x"), owner("rdx"), td_state(_RDX_OWNER, OpState.INITIALIZED), VP_ADDCX,
             page("rcx", PageType.NDA, "x")),
     effects=(_vp_addcx,), inputs="RCX page, RDX TDVPR")

_N = ref("tdh_vp_init.c")
_RCX_OWNER = tdr_behind("rcx")


def rcx_tdvps(c: Call) -> View:
    """The vCPU in RCX."""
    return c.tdvps(c.rcx, _RCX_OWNER(c))


def take_index(c: Call) -> int:
    """The next vCPU index: taken for good, whatever becomes of the call."""
    if "vcpu" not in c.fixed:
        tdcs = c.tdcs(_RCX_OWNER(c))
        c.fixed["vcpu"] = tdcs.num("num_vcpus")
        tdcs.set("num_vcpus", c.fixed["vcpu"] + 1)
    return c.fixed["vcpu"]


def _no_index(c: Call) -> bool:
    tdcs = c.tdcs(_RCX_OWNER(c))
    if tdcs.num("num_vcpus") >= tdcs.num("max_vcpus"):
        return True
    rcx_tdvps(c).set("index", take_index(c))
    return False


def _used_id(c: Call) -> int | None:
    """The x2APIC id in R8, if a vCPU of the TD has it."""
    tdcs, index = c.tdcs(_RCX_OWNER(c)), take_index(c)
    used = c.version > 0 and any(tdcs.num(f"x2apic_ids[{i}]") == c.r8 for i in range(min(index, MAX_X2APIC)))
    return c.r8 if used else None


VP_INIT_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.VP.INIT version", (
    Check("VP.INIT.version", "1.5.05: RAX[23:16] above 1", lambda c: c.version > 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), "TDXN tdh_vp_init.c"),
), "TDH.VP.INIT (leaf 22): the version, before any operand.")
VP_INIT: CheckTable[Call, Answer] = CheckTable("TDH.VP.INIT", (
    Check("VP.INIT.pages", "pages of the vCPU are missing", lambda c: rcx_tdvps(c).num("num_tdcx") < TDVPS_PAGES - 1,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _N),
    Check("VP.INIT.state", "the vCPU is initialised", lambda c: rcx_tdvps(c).num("state") != VcpuState.UNINITIALIZED,
          Answer(S.TDX_VCPU_STATE_INCORRECT), _N),
    Check("VP.INIT.max", "MAX_VCPUS are there; else the next index is taken, also if the call fails below", _no_index,
          Answer(S.TDX_MAX_VCPUS_EXCEEDED), _N),
    Check("VP.INIT.x2apic", "version 1: R8 does not fit 32 bits", lambda c: c.version > 0 and c.r8 >> 32 != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.R8), "TDXN tdh_vp_init.c"),
    Check("VP.INIT.unique", "version 1: a vCPU of the TD has this x2APIC id", lambda c: first(c, _used_id(c)),
          Answer(S.TDX_X2APIC_ID_NOT_UNIQUE, found=True), "TDXN tdh_vp_init.c"),
    Check("VP.INIT.tsc_adjust", "IA32_TSC_ADJUST is not what TDH.SYS.INIT saw", tsc_adjust_differs,
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _N),
), "TDH.VP.INIT: conditions in order, behind TDVPR, TDR and TD state.")


def td_vmcs(c: Call, tdvps: View, tdr: View) -> int:
    """Address of a vCPU's TD VMCS, with KeyID: the second page of its TDVPS."""
    return c.with_hkid(tdvps.num("tdcx_pa[0]"), tdr.num("hkid"))


def load_vmcs(c: Call, pointer: int) -> None:
    """VMPTRLD that must succeed."""
    outcome = vmptrld(c.platform, c.lp.id, pointer)
    if not isinstance(outcome, Done):
        raise Ud2(f"VMPTRLD 0x{pointer:X}: {outcome}")


def clear_vmcs(c: Call, pointer: int) -> None:
    """VMCLEAR that must succeed."""
    outcome = vmclear(c.platform, c.lp.id, pointer)
    if not isinstance(outcome, Done):
        raise Ud2(f"VMCLEAR 0x{pointer:X}: {outcome}")


RESET_VECTOR = 0xFFFFFFF0


@implements("VP.INIT.vmcs", "controls at default1 with EPT, guest at the reset vector, RCX and R8 = the operand", _N)
def _build_vmcs(c: Call, tdr: View, tdcs: View) -> bytes:
    """VP.INIT.vmcs: 64-bit from the start and GPA = linear address (*chosen*: guest paging is not modelled)."""
    controls = default_controls({at: msr_of(c, at) for at in CONTROL_MSRS})
    return make_vmcs({
        "revision_id": msr_of(c, 0x480) & 0x7FFFFFFF,
        **controls, "proc_based": controls["proc_based"] | 1 << 31,
        "secondary_proc_based": 2,
        "eptp": tdcs.num("eptp"), "td_keyid": tdr.num("hkid"), "vmcs_link_pointer": (1 << 64) - 1,
        "guest_rip": RESET_VECTOR, "guest_rflags": 2, "guest_cr0": 0x80010031, "guest_cr4": 0x2040 | 0x20,
        "guest_ia32_efer": 0xD00, "guest_cs_ar": 0xA09B, "guest_ss_ar": 0xC093, "guest_dr7": 0x400,
        "guest_ia32_pat": 0x0007040600070406,
    })


@implements("VP.INIT.effect", "VMCS built, associated with this processor, LAST_SEAMDB_INDEX = the module's; READY", _N)
def _vp_init(c: Call) -> Result:
    """VP.INIT.effect."""
    tdr = _RCX_OWNER(c)
    tdcs, tdvps = c.tdcs(tdr), rcx_tdvps(c)
    index = tdvps.num("index")
    if index < MAX_X2APIC:
        tdcs.set(f"x2apic_ids[{index}]", c.r8 if c.version else 0xFFFFFFFF)
    clear_vmcs(c, td_vmcs(c, tdvps, tdr))  # a copy cached under this address must not come back over the new one
    c.port.write(td_vmcs(c, tdvps, tdr), _build_vmcs(c, tdr, tdcs))
    tdvps.set("gprs[1]", c.rdx)
    tdvps.set("gprs[8]", c.rdx)
    tdvps.set("last_seamdb_index", c.glob.num("seamdb_index"))
    associate(c, tdcs, tdvps)
    tdvps.set("state", VcpuState.READY)
    return SUCCESS


def associate(c: Call, tdcs: View, tdvps: View) -> None:
    """Bind a vCPU to this processor: its processor-dependent host state is to be set anew."""
    tdvps.set("assoc_lpid", c.local.num("lp_id"))
    tdvps.set("lp_state_valid", 0)
    tdcs.set("num_assoc_vcpus", tdcs.num("num_assoc_vcpus") + 1)


leaf(22, "TDH.VP.INIT", "a vCPU's initial state",
     stages=(VP_INIT_FIRST, page("rcx", PageType.TDVPR, "x"), owner("rcx"),
             td_state(_RCX_OWNER, OpState.INITIALIZED), VP_INIT),
     effects=(_vp_init,), versions=((0xFF, VERSION_1_VP_INIT),),
     inputs="RCX TDVPR, RDX initial RCX and R8 of the guest, version 1: R8 x2APIC id")

_S = ref("tdh_vp_flush.c")
VP_FLUSH: CheckTable[Call, Answer] = CheckTable("TDH.VP.FLUSH", (
    Check("VP.FLUSH.keys", "lifecycle is not TD_KEYS_CONFIGURED",
          lambda c: _RCX_OWNER(c).num("lifecycle") != Lifecycle.KEYS_CONFIGURED, Answer(S.TDX_TD_KEYS_NOT_CONFIGURED),
          _S),
    Check("VP.FLUSH.associated", "the vCPU is not associated with this processor",
          lambda c: rcx_tdvps(c).num("assoc_lpid") != c.local.num("lp_id"), Answer(S.TDX_VCPU_NOT_ASSOCIATED), _S),
), "TDH.VP.FLUSH (leaf 18): conditions in order, behind TDVPR and TDR.")


@implements("VP.FLUSH.effect", "INVEPT, VMCLEAR of the vCPU's VMCS, associated with no processor", _S)
def _vp_flush(c: Call) -> Result:
    """VP.FLUSH.effect."""
    tdr = _RCX_OWNER(c)
    tdcs, tdvps = c.tdcs(tdr), rcx_tdvps(c)
    if c.platform.listeners:
        c.platform.emit(Step(c.lp.id, "TDX module", "INVEPT", "the TD's"))
    clear_vmcs(c, td_vmcs(c, tdvps, tdr))
    tdvps.set("launched", 0)
    tdvps.set("assoc_lpid", NOT_ASSOCIATED)
    tdcs.set("num_assoc_vcpus", tdcs.num("num_assoc_vcpus") - 1)
    return SUCCESS


leaf(18, "TDH.VP.FLUSH", "take a vCPU off this processor", stages=(page("rcx", PageType.TDVPR, "x"), owner("rcx"),
     VP_FLUSH),
     effects=(_vp_flush,), inputs="RCX TDVPR")

_Q = ref("tdh_vp_wr.c")
SHARED_EPTP_FIELD = 0x002000030000203C
"""Metadata field id of a TD VMCS's Shared-EPTP: context 2 (vCPU), 8 bytes, the VMCS encoding."""
VP_WR: CheckTable[Call, Answer] = CheckTable("TDH.VP.WR", (
    Check("VP.WR.field", "no such field", lambda c: c.rdx != SHARED_EPTP_FIELD,
          Answer(S.TDX_METADATA_FIELD_ID_INCORRECT),
          _Q, CHOSEN),
    Check("VP.WR.value", "Shared-EPTP with reserved bits, or inside SEAM's or private memory",
          lambda c: not c.is_shared(c.r8, PAGE), Answer(S.TDX_METADATA_FIELD_VALUE_NOT_VALID), _Q),
), "TDH.VP.WR (leaf 43): of all vCPU fields, Shared-EPTP only.")


@implements("VP.WR.effect", "the vCPU's Shared-EPTP; reaches the TD VMCS at the next entry", _Q)
def _vp_wr(c: Call) -> Result:
    """VP.WR.effect."""
    rcx_tdvps(c).set("shared_eptp", c.r8)
    return SUCCESS


leaf(43, "TDH.VP.WR", "the vCPU's shared EPT", stages=(
    page("rcx", PageType.TDVPR, "x"), owner("rcx"), td_state(_RCX_OWNER, OpState.INITIALIZED, OpState.RUNNABLE), VP_WR),
     effects=(_vp_wr,), inputs="RCX TDVPR, RDX field id, R8 value, R9 mask")

_Y = ref("tdh_mem_track.c")
MEM_TRACK: CheckTable[Call, Answer] = CheckTable("TDH.MEM.TRACK", (
    Check("MEM.TRACK.lock", "another processor holds TD_EPOCH",
          lambda c: not c.lock("x", c.tdcs(RCX_TDR(c)).address("epoch_lock"), linear=False),
          Answer(S.TDX_OPERAND_BUSY, Operand.TD_EPOCH), _Y),
    Check("MEM.TRACK.previous", "a vCPU entered in the previous epoch still runs",
          lambda c: c.tdcs(RCX_TDR(c)).num(f"refcount[{c.tdcs(RCX_TDR(c)).num('td_epoch') - 1 & 1}]") != 0,
          Answer(S.TDX_PREVIOUS_TLB_EPOCH_BUSY, Operand.TD_EPOCH), _Y),
), "TDH.MEM.TRACK (leaf 38): conditions in order, behind TDR and TD state.")


@implements("MEM.TRACK.effect", "TD_EPOCH + 1", _Y)
def _mem_track(c: Call) -> Result:
    """MEM.TRACK.effect."""
    tdcs = c.tdcs(RCX_TDR(c))
    tdcs.set("td_epoch", tdcs.num("td_epoch") + 1)
    return SUCCESS


leaf(38, "TDH.MEM.TRACK", "a new TLB epoch", stages=(
    page("rcx", PageType.TDR, "s"), td_state(RCX_TDR, OpState.INITIALIZED, OpState.RUNNABLE), MEM_TRACK),
     effects=(_mem_track,), inputs="RCX TDR")

# --- teardown ---------------------------------------------------------------------------------------------------

_Z = ref("tdh_mng_vpflushdone.c")
VPFLUSHDONE: CheckTable[Call, Answer] = CheckTable("TDH.MNG.VPFLUSHDONE", (
    Check("MNG.VPFLUSHDONE.kot", "the KOT is locked", lambda c: not c.lock("x", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _Z),
    Check("MNG.VPFLUSHDONE.lifecycle", "lifecycle is neither TD_HKID_ASSIGNED nor TD_KEYS_CONFIGURED",
          lambda c: RCX_TDR(c).num("lifecycle") not in (Lifecycle.HKID_ASSIGNED, Lifecycle.KEYS_CONFIGURED),
          Answer(S.TDX_LIFECYCLE_STATE_INCORRECT), _Z),
    Check("MNG.VPFLUSHDONE.vcpus", "a vCPU is still associated with a processor",
          lambda c: RCX_TDR(c).num("num_tdcx") > 0 and c.tdcs(RCX_TDR(c)).num("num_assoc_vcpus") != 0,
          Answer(S.TDX_FLUSHVP_NOT_DONE), _Z),
), "TDH.MNG.VPFLUSHDONE (leaf 19): conditions in order, behind the TDR page.")


@implements("MNG.VPFLUSHDONE.effect",
            "lifecycle BLOCKED; KOT FLUSHED, every package of PKG_CONFIG_BITMAP to write back", _Z)
def _vpflushdone(c: Call) -> Result:
    """MNG.VPFLUSHDONE.effect."""
    tdr = RCX_TDR(c)
    if tdr.num("num_tdcx") > 0:
        no_longer_sensitive(c, c.tdcs(tdr))
    tdr.set("lifecycle", Lifecycle.BLOCKED)
    hkid = tdr.num("hkid")
    c.glob.set(f"kot[{hkid}].state", Hkid.FLUSHED)
    c.glob.set(f"kot[{hkid}].wbinvd_bitmap", c.glob.num("pkg_config_bitmap"))
    return SUCCESS


leaf(19, "TDH.MNG.VPFLUSHDONE", "no vCPU is associated any more", stages=(page("rcx", PageType.TDR, "x"), VPFLUSHDONE),
     effects=(_vpflushdone,), inputs="RCX TDR")

_M = ref("tdh_phymem_cache_wb.c")


def _flushed(c: Call) -> bytes:
    """One byte for each KeyID: 1 where it is FLUSHED."""
    kot = c.glob.raw("kot")
    states = kot[KOT_ENTRY.offset_of("state") :: KOT_ENTRY.size]
    return bytes(state == Hkid.FLUSHED for state in states)


CACHE_WB: CheckTable[Call, Answer] = CheckTable("TDH.PHYMEM.CACHE.WB", (
    Check("PHYMEM.CACHE.WB.rcx", "RCX above 1", lambda c: c.rcx > 1, Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _M),
    Check("PHYMEM.CACHE.WB.mutex", "another processor of the package writes caches back",
          lambda c: not c.lock("m", c.glob.address(f"wbt[{c.package}].mutex")),
          Answer(S.TDX_OPERAND_BUSY, Operand.WBCACHE), _M),
    Check("PHYMEM.CACHE.WB.kot", "the KOT is locked", lambda c: not c.lock("s", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _M),
    Check("PHYMEM.CACHE.WB.none", "start, and no KeyID is FLUSHED", lambda c: c.rcx == 0 and not any(_flushed(c)),
          Answer(S.TDX_NO_HKID_READY_TO_WBCACHE), _M),
    Check("PHYMEM.CACHE.WB.resume", "resume, and no cycle was interrupted",
          lambda c: c.rcx == 1 and c.glob.num(f"wbt[{c.package}].interruption_point") == 0,
          Answer(S.TDX_WBCACHE_RESUME_ERROR), _M),
), "TDH.PHYMEM.CACHE.WB (leaf 40): conditions in order.")


WBNOINVDP, INTR_PENDING = 0x99, 0x9A


@implements("EVENT.host", "a pending interrupt (bit 0 of MSR_INTR_PENDING) counts only where the caller had "
            "RFLAGS.IF = 1; NMI, SMI and others always", "TDXM src/common/helpers/helpers.c")
def event_pending(c: Call) -> bool:
    """EVENT.host."""
    enabled = vmcs_field(c.platform, c.lp, "guest_rflags") >> 9 & 1
    return bool(msr_of(c, INTR_PENDING) & ~(0 if enabled else 1))


@implements("PHYMEM.CACHE.WB.effect",
            "sub-block by sub-block, at least one in each call; then this package's bit of the KeyIDs that were "
            "FLUSHED at the start is cleared; a pending event interrupts", _M)
def _cache_wb(c: Call) -> Result:
    """PHYMEM.CACHE.WB.effect: the interruption point lives in the WBT, so another module can resume the cycle."""
    g, p = c.glob, c.package
    if c.rcx == 0:
        g.set(f"wbt[{p}].hkid_flushed", _flushed(c))
        g.set(f"wbt[{p}].interruption_point", 0)
    blocks = c.platform.config.cache_sub_blocks
    for at in range(g.num(f"wbt[{p}].interruption_point"), blocks):
        wrmsr(c.platform, c.lp.id, WBNOINVDP, at)
        if at + 1 < blocks and event_pending(c):
            g.set(f"wbt[{p}].interruption_point", at + 1)
            return Result(S.TDX_INTERRUPTED_RESUMABLE)
    g.set(f"wbt[{p}].interruption_point", 0)
    for hkid, flushed in enumerate(g.raw(f"wbt[{p}].hkid_flushed")):
        if flushed:
            g.set(f"kot[{hkid}].wbinvd_bitmap", g.num(f"kot[{hkid}].wbinvd_bitmap") & ~(1 << p))
    return SUCCESS


leaf(40, "TDH.PHYMEM.CACHE.WB", "write this package's caches back", stages=(CACHE_WB,), effects=(_cache_wb,),
     inputs="RCX 0 start, 1 resume")

_J = ref("tdh_mng_key_freeid.c")
FREEID: CheckTable[Call, Answer] = CheckTable("TDH.MNG.KEY.FREEID", (
    Check("MNG.KEY.FREEID.lifecycle", "lifecycle is not TD_BLOCKED",
          lambda c: RCX_TDR(c).num("lifecycle") != Lifecycle.BLOCKED, Answer(S.TDX_LIFECYCLE_STATE_INCORRECT), _J),
    Check("MNG.KEY.FREEID.kot", "the KOT is locked", lambda c: not c.lock("x", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _J),
    Check("MNG.KEY.FREEID.wb", "a package's caches were not written back",
          lambda c: c.glob.num(f"kot[{RCX_TDR(c).num('hkid')}].wbinvd_bitmap") != 0,
          Answer(S.TDX_WBCACHE_NOT_COMPLETE), _J),
), "TDH.MNG.KEY.FREEID (leaf 20): conditions in order, behind the TDR page.")


@implements("MNG.KEY.FREEID.effect", "KOT FREE; lifecycle TEARDOWN", _J)
def _freeid(c: Call) -> Result:
    """MNG.KEY.FREEID.effect."""
    tdr = RCX_TDR(c)
    c.glob.set(f"kot[{tdr.num('hkid')}].state", Hkid.FREE)
    tdr.set("lifecycle", Lifecycle.TEARDOWN)
    return SUCCESS


leaf(20, "TDH.MNG.KEY.FREEID", "give the KeyID back", stages=(page("rcx", PageType.TDR, "x"), FREEID),
     effects=(_freeid,),
     inputs="RCX TDR")
leaf(27, "TDH.MNG.KEY.RECLAIMID", "no effect, always succeeds", stages=(), effects=(ok,), inputs="RCX TDR")

_O = ref("tdh_phymem_page_reclaim.c")
_USED = tuple(t for t in PageType if t not in (PageType.NDA, PageType.RSVD))


def _reclaim_tdr(c: Call) -> View:
    """The TDR concerned: the page itself, or its owner."""
    entry = c.pamt(c.rcx)
    return c.tdr(c.rcx if entry.num("type") == PageType.TDR else entry.num("owner") << 12)


def _show_page(c: Call) -> Result | None:
    """Type, owner and size of the page are told from here on, also where the call fails."""
    entry = c.pamt(c.rcx)
    c.out(rcx=entry.num("type"), rdx=entry.num("owner") << 12, r8=0)
    return None


def _owner_held(c: Call) -> bool:
    entry = c.pamt(c.rcx)
    tdr = entry.num("owner") << 12
    return entry.num("type") != PageType.TDR and not c.lock("S", c.pamt(tdr).address("lock"), linear=False)


RECLAIM: CheckTable[Call, Answer] = CheckTable("TDH.PHYMEM.PAGE.RECLAIM", (
    Check("PHYMEM.PAGE.RECLAIM.owner", "another processor holds the owning TDR exclusively", _owner_held,
          Answer(S.TDX_OPERAND_BUSY, Operand.TDR), _O),
    Check("PHYMEM.PAGE.RECLAIM.lifecycle", "the TD's lifecycle is not TD_TEARDOWN",
          lambda c: _reclaim_tdr(c).num("lifecycle") != Lifecycle.TEARDOWN, Answer(S.TDX_LIFECYCLE_STATE_INCORRECT),
          _O),
    Check("PHYMEM.PAGE.RECLAIM.children", "a TDR whose TD still has pages",
          lambda c: c.pamt(c.rcx).num("type") == PageType.TDR and c.tdr(c.rcx).num("chldcnt") != 0,
          Answer(S.TDX_TD_ASSOCIATED_PAGES_EXIST), _O),
), "TDH.PHYMEM.PAGE.RECLAIM (leaf 28): conditions in order, behind the page.")


@implements("PHYMEM.PAGE.RECLAIM.effect", "PAMT NDA, its owner field stays; RCX page type, RDX owner, R8 size", _O)
def _reclaim(c: Call) -> Result:
    """PHYMEM.PAGE.RECLAIM.effect."""
    entry = c.pamt(c.rcx)
    kind, tdr_pa = entry.num("type"), entry.num("owner") << 12
    if kind != PageType.TDR:
        add_child(c.tdr(tdr_pa), -1)
    entry.set("type", PageType.NDA)
    return SUCCESS


leaf(28, "TDH.PHYMEM.PAGE.RECLAIM", "take a page back",
     stages=(page("rcx", _USED, "x"), _show_page, RECLAIM), effects=(_reclaim,),
     outputs=("rcx", "rdx", "r8", "r9", "r10", "r11"), inputs="RCX page")

__all__ = ["TDR_MASK", "Walk", "get_agent", "load_vmcs", "owner", "owner_of", "page", "sept_walk", "td_state",
"td_vmcs"]
