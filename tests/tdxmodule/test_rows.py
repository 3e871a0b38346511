"""Every row of every check table of the TDX module decides once, and is silent once, in a call that is really made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from tdxmodule.stages import staged, with_td

from seamref.arch.cpuid import FIXED, Cpuid
from seamref.arch.events import EventKind, raise_event
from seamref.arch.outcome import Guest
from seamref.arch.platform import PlatformConfig, Topology
from seamref.arch.revision import SILICON
from seamref.arch.sgx import VerifyStatus, everifyreport2
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.conformance.tdxmodule import Machine
from seamref.host import vmm
from seamref.host.vmm import PLAN, tdh
from seamref.spec import CheckTable
from seamref.tdxmodule import metadata, program, run, system, td
from seamref.tdxmodule.core import View
from seamref.tdxmodule.guest import COUNTER, DATA_GPA, EXTEND_RTMR, STATUS, Line, Op
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.status import Status, decode
from seamref.tdxmodule.structures import TD_PARAMS, TDMR_INFO
from seamref.tdxmodule.td.vp_wr import SHARED_EPTP_FIELD

TABLES: list[CheckTable[Any, Any]] = list(dict.fromkeys(
    table for module in (system, td, run, metadata, program)
    for table in vars(module).values() if isinstance(table, CheckTable)
))
ROWS = [row.id for table in TABLES for row in table]
GIB = 1 << 30


@contextmanager
def watching(into: Callable[[str, bool], None]) -> Iterator[None]:
    """Listen to every table."""
    def listen(row: Any, decided: bool) -> None:
        into(row.id, decided)

    for table in TABLES:
        table.observers.append(listen)
    try:
        yield
    finally:
        for table in TABLES:
            table.observers.remove(listen)


class World:
    """A forked platform and what a case needs to disturb it."""

    def __init__(self, stage: str = "tdmr.init", module: str = "1.5.05", **topology: int) -> None:
        self.p = staged(stage, module, **topology).fork()
        self.td = vmm.new_td()

    @classmethod
    def with_td(cls, until: str = "", module: str = "1.5.05", **more: Any) -> World:
        made = cls("tdmr.init", module)
        platform, handle = with_td(until, module, **more)
        made.p, made.td = platform.fork(), handle.copy()
        return made

    @property
    def look(self) -> Look:
        return Look(self.p)

    @property
    def tdr(self) -> Any:
        return self.look.tdr(self.td.tdr)

    @property
    def tdcs(self) -> Any:
        return self.look.tdcs(self.td.tdr)

    @property
    def vcpu(self) -> Any:
        return self.look.tdvps(self.td.tdvprs[0], self.td.tdr)

    def msr(self, address: int, value: int, lp: int = 0) -> None:
        self.p.set_msr(self.p.lp(lp), address, value)

    def table(self, path: str, value: int) -> None:
        View(P_SYS_INFO_TABLE, self.look.dram, self.look.table.base).set(path, value)

    def ask(self, name: str, lp: int = 0, **registers: int) -> vmm.Answered:
        return tdh(self.p, lp, name, **registers)

    def param(self, **fields: Any) -> vmm.Answered:
        """TDH.MNG.INIT with other parameters."""
        good = {"xfam": 3, "max_vcpus": 1, "eptp_controls": 0x1E, "tsc_frequency": 80}
        vmm.poke(self.p, self.td.shared, TD_PARAMS.encode({**good, **fields}))
        return self.ask("TDH.MNG.INIT", rcx=self.td.tdr, rdx=self.td.shared)

    def config(self, *infos: dict[str, Any], **registers: int) -> vmm.Answered:
        """TDH.SYS.CONFIG with TDMRs that differ from the plan's."""
        base = dict(TDMR_INFO.decode(PLAN.tdmr_info()))
        for i, changes in enumerate(infos or ({},)):
            vmm.poke(self.p, PLAN.scratch + 8 * i, (PLAN.scratch + 0x200 * (i + 1)).to_bytes(8, "little"))
            vmm.poke(self.p, PLAN.scratch + 0x200 * (i + 1), TDMR_INFO.encode({**base, **changes}))
        return self.ask("TDH.SYS.CONFIG", **{"rcx": PLAN.scratch, "rdx": len(infos or ({},)), "r8": PLAN.hkid,
        **registers})

    def tdcall(self, **registers: int) -> int:
        """What a TDCALL with these guest registers answers in the guest's RAX."""
        made = World.with_td(program=tdcall_program(**registers))
        self.p, self.td = made.p, made.td
        self.before_run()
        return vmm.run_td(self.p, 0, self.td).count

    def before_run(self) -> None:
        """Disturb the TD before it runs."""


@lru_cache(maxsize=64)
def _program(registers: tuple[tuple[str, int], ...]) -> tuple[Line, ...]:
    return (
        *((Op.MOV, name, value) for name, value in registers), (Op.TDCALL,), (Op.STORE, "rax", DATA_GPA + STATUS),
        (Op.LOAD, "r12", DATA_GPA + STATUS), (Op.MOV, "rcx", 1 << 12), (Op.MOV, "rax", 0), (Op.TDCALL,),
    )


def tdcall_program(**registers: int) -> tuple[Line, ...]:
    """A guest that executes one TDCALL and tells the host its RAX in R12."""
    return _program(tuple(registers.items()))


Case = Callable[[], Any]
CASES: dict[str, tuple[int, Case]] = {}
S = Status


def row(id: str, status: int, details: int = 0) -> Callable[[Case], Case]:
    """A case in which the row decides: what RAX then is."""
    def register(case: Case) -> Case:
        assert id not in CASES, id
        CASES[id] = (int(status) | details, case)
        return case

    return register


def simple(id: str, status: int, details: int, case: Case) -> None:
    """A case in one line."""
    row(id, status, details)(case)


def disturbed(stage: str, act: Callable[[World], None], name: str, lp: int = 0, **registers: int) -> Case:
    """Bring up to a stage, disturb, ask."""
    def case() -> vmm.Answered:
        world = World(stage)
        act(world)
        return world.ask(name, lp, **registers)

    return case


def nothing(world: World) -> None:
    """Leave the platform as it is."""


def poke_global(field: str, value: int) -> Callable[[World], None]:
    return lambda w: w.look.glob.set(field, value)


# --- dispatcher

simple("DISPATCH.reserved", S.TDX_OPERAND_INVALID, 0, lambda: raw(World(), 34 | 1 << 24))
simple("DISPATCH.version", S.TDX_OPERAND_INVALID, 0, lambda: World().p and tdh(World().p, 0, "TDH.SYS.RD", 1))
simple("DISPATCH.leaf", S.TDX_OPERAND_INVALID, 0, lambda: raw(World(), 0x1234))
simple("DISPATCH.not_ready", S.TDX_SYS_NOT_READY, 0, disturbed("init", nothing, "TDH.MNG.CREATE"))
simple("DISPATCH.shutdown", S.TDX_SYS_SHUTDOWN, 0, disturbed("tdmr.init", poke_global("sys_state", 4), "TDH.SYS.RD"))


def raw(world: World, rax: int) -> vmm.Answered:
    """SEAMCALL with any RAX."""
    from seamref.arch.software import call

    ended = call(world.p, 0, rax=rax)
    return vmm.Answered(world.p.peek_lp(0).rax, {}, ended)


# --- TDH.SYS.INIT

def init(act: Callable[[World], None], **registers: int) -> Case:
    return disturbed("installed", act, "TDH.SYS.INIT", **registers)


def with_config(**fields: Any) -> Case:
    """TDH.SYS.INIT on a platform of other parts."""
    def case() -> vmm.Answered:
        config = PlatformConfig(topology=Topology(1, 2), **fields)
        knobs = {}
        if "max_keyid_bits" in fields:
            knobs = {"keyid_bits": fields["max_keyid_bits"]}
        platform = vmm.boot(module=None, config=config, **knobs)
        vmm.bootchain.install(platform, vmm.image_of("1.5.05"), _for_any_cpu(fields))
        return tdh(platform, 0, "TDH.SYS.INIT")

    return case


def _for_any_cpu(fields: dict[str, Any]) -> bytes:
    from seamref import mint

    return mint.sigstruct(vmm.image_of("1.5.05"), cpuid_table=[*fields.get("fms", ()), 0x806F8, 0xC06F2, 0xC06F0])


simple("SYS.INIT.lock", S.TDX_SYS_BUSY, 0, init(poke_global("global_lock", 1)))
simple("SYS.INIT.rcx", S.TDX_OPERAND_INVALID, 1, init(nothing, rcx=1))
simple("SYS.INIT.state", S.TDX_SYS_INIT_NOT_PENDING, 0, disturbed("init", nothing, "TDH.SYS.INIT"))
simple("SYS.INIT.arch_capabilities", S.TDX_INCORRECT_MSR_VALUE, 0x10A, init(lambda w: w.msr(0x10A, 0)))
simple("SYS.INIT.xapic", S.TDX_INCORRECT_MSR_VALUE, 0xBD, init(lambda w: w.msr(0xBD, 0)))
simple("SYS.INIT.energy_filtering", S.TDX_INCORRECT_MSR_VALUE, 0xBC, init(lambda w: w.msr(0xBC, 0)))
simple("SYS.INIT.perf_capabilities", S.TDX_INCORRECT_MSR_VALUE, 0x345, init(lambda w: w.msr(0x345, 0)))
simple("SYS.INIT.misc_enable", S.TDX_INCORRECT_MSR_VALUE, 0x1A0, init(lambda w: w.msr(0x1A0, 0x880)))
simple("SYS.INIT.limit_cpuid", S.TDX_LIMIT_CPUID_MAXVAL_SET, 0, init(lambda w: w.msr(0x1A0, 0x80 | 1 << 22)))


def without(address: int, *bits: int) -> Callable[[World], None]:
    """A processor whose capability MSR lacks bits (for controls: 32 and above may not be 1)."""
    def act(world: World) -> None:
        value = world.p.msr_value(world.p.lp(0), address)
        for bit in bits:
            value &= ~(1 << bit)
        world.msr(address, value)

    return act


def with_bits(address: int, *bits: int) -> Callable[[World], None]:
    """A processor whose capability MSR has more bits."""
    def act(world: World) -> None:
        value = world.p.msr_value(world.p.lp(0), address)
        for bit in bits:
            value |= 1 << bit
        world.msr(address, value)

    return act


VMX_CASES = {
    "vmx_basic": (0x480, without(0x480, 55)), "vmx_pin": (0x48D, without(0x48D, 32 + 3)),
    "vmx_proc": (0x48E, without(0x48E, 32 + 7)), "vmx_proc2": (0x48B, without(0x48B, 32 + 1)),
    "vmx_proc3": (0x492, without(0x492, 5)), "vmx_misc": (0x485, without(0x485, 29)),
    "vmx_ept": (0x48C, without(0x48C, 20)), "vmx_cr0_fixed0": (0x486, with_bits(0x486, 16)),
    "vmx_cr0_fixed1": (0x487, without(0x487, 5)), "vmx_cr4_fixed0": (0x488, with_bits(0x488, 5)),
    "vmx_cr4_fixed1": (0x489, without(0x489, 13)), "vmx_l2_proc": (0x48E, without(0x48E, 32 + 9)),
    "vmx_l2_proc2": (0x48B, without(0x48B, 32 + 2)), "vmx_l2_proc3": (0x492, without(0x492, 1)),
    "vmx_l2_cr0": (0x486, without(0x487, 16)),
}
for _name, (_msr, _act) in VMX_CASES.items():
    simple(f"SYS.INIT.{_name}", S.TDX_INCORRECT_MSR_VALUE, _msr, init(_act))


def seen_inside(address: int, bit: int) -> Case:
    """TDH.SYS.INIT where RDMSR shows a control that SEAMCALL and SEAMRET themselves use as not allowed."""
    def case() -> int:
        machine = Machine(World("installed").p)
        machine.act({"op": "msr_xor", "lp": 0, "msr": address, "mask": 1 << bit})
        rax = machine.act({"op": "call", "lp": 0, "regs": {"rax": 33}})
        assert isinstance(rax, int)
        return rax

    return case


simple("SYS.INIT.vmx_exit", S.TDX_INCORRECT_MSR_VALUE, 0x48F, seen_inside(0x48F, 32 + 9))
simple("SYS.INIT.vmx_entry", S.TDX_INCORRECT_MSR_VALUE, 0x490, seen_inside(0x490, 32 + 15))
simple("SYS.INIT.hkids", S.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED, 2048, with_config(max_keyid_bits=12))
simple("SYS.INIT.tme", S.TDX_INCORRECT_MSR_VALUE, 0x981, init(lambda w: w.msr(0x981, 1)))
simple("SYS.INIT.cache_blocks", S.TDX_INCORRECT_MSR_VALUE, 0x99, init(lambda w: w.msr(0x99, 7)))
simple("SYS.INIT.cmrs", S.TDX_CMR_LIST_INVALID, 0, init(lambda w: w.table("cmr[1].base", 0x1000)))
simple("SYS.INIT.smrr", S.TDX_SMRR_NOT_SUPPORTED, 0, init(lambda w: w.msr(0xFE, 1 << 15 | 1 << 14)))
simple("SYS.INIT.smrr_lock", S.TDX_SMRR_LOCK_NOT_SUPPORTED, 0, init(lambda w: w.msr(0xFE, 1 << 15 | 1 << 11)))
simple("SYS.INIT.smrr_locked", S.TDX_SMRR_NOT_LOCKED, 0, init(lambda w: w.msr(0x1F3, 0xFF800800)))
simple("SYS.INIT.smrr_shape", S.TDX_INVALID_SMRR_CONFIGURATION, 0, init(lambda w: w.msr(0x1F3, 0xF0800C00)))
simple("SYS.INIT.smrr_cmr", S.TDX_SMRR_OVERLAPS_CMR, 0, init(lambda w: w.msr(0x1F2, 0x10000006)))


@row("SYS.INIT.capabilities", S.TDX_INCOMPATIBLE_SEAM_CAPABILITIES)
def _capabilities() -> vmm.Answered:
    world = World("installed")
    world.p.revision = replace(SILICON, capabilities=0x0F)
    return world.ask("TDH.SYS.INIT")


def other_sigstruct(module: str, **fields: int) -> Case:
    """TDH.SYS.INIT of a module whose sigstruct says something else than its build."""
    def case() -> vmm.Answered:
        from seamref import mint

        platform = vmm.boot(module=None)
        image = vmm.image_of(module)
        vmm.bootchain.install(platform, image, mint.sigstruct(image, **fields))
        return tdh(platform, 0, "TDH.SYS.INIT")

    return case


simple("SYS.INIT.module_hv", S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT, 0, other_sigstruct("1.5.05", module_hv=1))
simple("SYS.INIT.min_update_hv", S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT, 0, other_sigstruct("1.5.931", min_update_hv=0))
simple("SYS.INIT.no_downgrade", S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT, 0, other_sigstruct("1.5.932", no_downgrade=0))
simple("SYS.INIT.handoff_pages", S.TDX_SYS_INCOMPATIBLE_SIGSTRUCT, 0, other_sigstruct("1.5.05", num_handoff_pages=12))
simple("SYS.INIT.entropy", S.TDX_RND_NO_ENTROPY, 0, init(lambda w: w.p.inject("rdrand", (0, 0))))


def cpuid_says(leaf: int, subleaf: int, answer: Cpuid, stage: str, name: str, lp: int = 0) -> Case:
    """A processor whose CPUID differs in one leaf."""
    def case() -> vmm.Answered:
        world = World(stage)
        real = system.platform.cpuid

        def other(platform: Any, processor: Any, number: int, sub: int = 0) -> Cpuid:
            return answer if (number, sub) == (leaf, subleaf) else real(platform, processor, number, sub)

        with pytest.MonkeyPatch.context() as patch:
            for room in (system.platform, system.init, system.info):
                patch.setattr(room, "cpuid", other)
            patch.setattr("seamref.arch.cpuid.cpuid", other)
            return world.ask(name, lp)

    return case


simple("SYS.INIT.cpuid_leaf", S.TDX_CPUID_LEAF_NOT_SUPPORTED, 0x1F,
       cpuid_says(0, 0, Cpuid(0x16, 0, 0, 0), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.cpuid_value", S.TDX_INCORRECT_CPUID_VALUE, 0,
       cpuid_says(1, 0, Cpuid(0xC05F2, 0, 0, 0), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.perfmon", S.TDX_INCORRECT_CPUID_VALUE, 0,
       cpuid_says(0xA, 0, Cpuid(0x07300804, 0, 0, 0x8603), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.linear_width", S.TDX_INCORRECT_CPUID_VALUE, 0,
       cpuid_says(0x80000008, 0, Cpuid(52 | 57 << 8, 1 << 9, 0, 0), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.tsc_leaf", S.TDX_CPUID_LEAF_NOT_SUPPORTED, 0x15,
       cpuid_says(0x15, 0, Cpuid(0, 0, 0, 0), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.cpuid_1f", S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED, 0,
       cpuid_says(0x1F, 1, Cpuid(1, 2, 6 << 8 | 1, 0), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.core_level", S.TDX_CPUID_LEAF_NOT_SUPPORTED, 0,
       cpuid_says(0x1F, 1, Cpuid(1, 2, 5 << 8 | 1, 0), "installed", "TDH.SYS.INIT"))
simple("SYS.INIT.wbinvd_scope", S.TDX_INVALID_WBINVD_SCOPE, 0,
       cpuid_says(4, 3, Cpuid(0x63 | 63 << 14, 63, 0, 0), "installed", "TDH.SYS.INIT"))

# --- TDH.SYS.LP.INIT

LP = "TDH.SYS.LP.INIT"
simple("SYS.LP.INIT.lock", S.TDX_SYS_BUSY, 0, disturbed("init", poke_global("global_lock", 1), LP))
simple("SYS.LP.INIT.state", S.TDX_SYS_LP_INIT_NOT_PENDING, 0, disturbed("installed", nothing, LP))
simple("SYS.LP.INIT.done", S.TDX_SYS_LP_INIT_DONE, 0, disturbed("lp.init", nothing, LP))
simple("SYS.LP.INIT.entropy", S.TDX_RND_NO_ENTROPY, 0, disturbed("init", lambda w: w.p.inject("rdrand", (0, 0)), LP))
simple("SYS.LP.INIT.capabilities", S.TDX_INCOMPATIBLE_SEAM_CAPABILITIES, 0,
       disturbed("init", poke_global("seam_capabilities", 0x33), LP))
simple("SYS.LP.INIT.msr", S.TDX_INCONSISTENT_MSR, 0x10A, disturbed("init", lambda w: w.msr(0x10A, 0x16B, 1), LP, 1))
simple("SYS.LP.INIT.limit_cpuid", S.TDX_LIMIT_CPUID_MAXVAL_SET, 0,
       disturbed("init", lambda w: w.msr(0x1A0, 0x80 | 1 << 22, 1), LP, 1))
simple("SYS.LP.INIT.cpuid", S.TDX_INCONSISTENT_CPUID_FIELD, 0, cpuid_says(7, 0, Cpuid(2, 0, 0, 1 << 18), "init", LP, 1))
simple("SYS.LP.INIT.package", S.TDX_INVALID_PKG_ID, 8, cpuid_says(0x1F, 0, Cpuid(0, 1, 0x100, 16), "init", LP, 1))
simple("SYS.LP.INIT.tsc_adjust", S.TDX_INCONSISTENT_MSR, 0x3B, disturbed("init", lambda w: w.msr(0x3B, 9, 1), LP, 1))
simple("SYS.LP.INIT.other_msr", S.TDX_INCONSISTENT_MSR, 0x345, disturbed("init", lambda w: w.msr(0x345, 0x6000, 1), LP,
1))

# --- TDH.SYS.CONFIG and its TDMRs

simple("SYS.CONFIG.lock", S.TDX_SYS_BUSY, 0, disturbed("lp.init", poke_global("global_lock", 2), "TDH.SYS.CONFIG"))
simple("SYS.CONFIG.state", S.TDX_SYS_CONFIG_NOT_PENDING, 0, lambda: World("config").config())
simple("SYS.CONFIG.lps", S.TDX_SYS_CONFIG_NOT_PENDING, 0, lambda: World("init").config())
simple("SYS.CONFIG.rcx", S.TDX_OPERAND_INVALID, 1, lambda: World("lp.init").config(rcx=PLAN.scratch + 8))
simple("SYS.CONFIG.rdx", S.TDX_OPERAND_INVALID, 2, lambda: World("lp.init").config(rdx=65))
simple("SYS.CONFIG.r8", S.TDX_OPERAND_INVALID, 8, lambda: World("lp.init").config(r8=5))
_AREA = {"offset": 0, "size": 0x1000}


def config(*infos: dict[str, Any]) -> Case:
    return lambda: World("lp.init").config(*infos)


simple("SYS.CONFIG.TDMR.overflow", S.TDX_INVALID_TDMR, 0, config({"base": (1 << 64) - GIB}))
simple("SYS.CONFIG.TDMR.order", S.TDX_NON_ORDERED_TDMR, 1, config({}, {}))
simple("SYS.CONFIG.TDMR.shape", S.TDX_INVALID_TDMR, 0, config({"size": 0x1000}))
simple("SYS.CONFIG.TDMR.reserved_order", S.TDX_NON_ORDERED_RESERVED_IN_TDMR, 1 << 8,
       config({"reserved_areas": [_AREA, {"offset": 0, "size": 0}, {"offset": 0x4000, "size": 0x1000}]}))
simple("SYS.CONFIG.TDMR.reserved", S.TDX_INVALID_RESERVED_IN_TDMR, 0,
       config({"reserved_areas": [{"offset": 0, "size": 0x1800}]}))
simple("SYS.CONFIG.TDMR.pamt", S.TDX_INVALID_PAMT, 1 << 8, config({"pamt_2m_size": 0x1000}))
simple("SYS.CONFIG.TDMR.pamt_overlap", S.TDX_PAMT_OVERLAP, 0, config({"pamt_4k_base": PLAN.tdmr_base}))
simple("SYS.CONFIG.TDMR.pamt_outside", S.TDX_PAMT_OUTSIDE_CMRS, 2 << 8, config({"pamt_1g_base": 0x80000000}))
simple("SYS.CONFIG.TDMR.outside", S.TDX_TDMR_OUTSIDE_CMRS, 0, config({"base": 0x40_0000_0000}))

# --- KEY.CONFIG, TDMR.INIT, INFO

KEY = "TDH.SYS.KEY.CONFIG"
simple("SYS.KEY.CONFIG.lock", S.TDX_SYS_BUSY, 0, disturbed("config", poke_global("global_lock", 1), KEY))
simple("SYS.KEY.CONFIG.state", S.TDX_SYS_KEY_CONFIG_NOT_PENDING, 0, disturbed("lp.init", nothing, KEY))


@row("SYS.KEY.CONFIG.configured", S.TDX_KEY_CONFIGURED)
def _configured() -> vmm.Answered:
    world = World("config", sockets=2, lps=1)
    assert world.ask(KEY).status is S.TDX_SUCCESS
    return world.ask(KEY)


simple("KEYGEN.busy", S.TDX_OPERAND_BUSY, 187, disturbed("config", lambda w: w.p.inject("key_table_busy", True), KEY))
simple("KEYGEN.entropy", S.TDX_KEY_GENERATION_FAILED, 0,
       disturbed("config", lambda w: w.p.inject("pconfig", (0, 0)), KEY))
TI = "TDH.SYS.TDMR.INIT"
simple("SYS.TDMR.INIT.rcx", S.TDX_OPERAND_INVALID, 1, disturbed("key.config", nothing, TI, rcx=0x1000))
simple("SYS.TDMR.INIT.unknown", S.TDX_OPERAND_INVALID, 1, disturbed("key.config", nothing, TI, rcx=GIB))
simple("SYS.TDMR.INIT.mutex", S.TDX_OPERAND_BUSY, 1,
       disturbed("key.config", poke_global("tdmrs[0].mutex", 1), TI, rcx=PLAN.tdmr_base))
simple("SYS.TDMR.INIT.complete", S.TDX_TDMR_ALREADY_INITIALIZED, 0, disturbed("tdmr.init", nothing, TI,
rcx=PLAN.tdmr_base))
INFO = "TDH.SYS.INFO"
GOOD_INFO = {"rcx": 0x2100_0000, "rdx": 1024, "r8": 0x2100_1000, "r9": 32}
for _id, _changes, _status, _operand in (
    ("SYS.INFO.rcx", {"rcx": 0x2100_0008}, S.TDX_OPERAND_INVALID, 1),
    ("SYS.INFO.rdx", {"rdx": 1023}, S.TDX_OPERAND_INVALID, 2),
    ("SYS.INFO.r8", {"r8": 0x2100_1008}, S.TDX_OPERAND_INVALID, 8),
    ("SYS.INFO.r9", {"r9": 31}, S.TDX_OPERAND_INVALID, 9),
):
    simple(_id, _status, _operand, disturbed("lp.init", nothing, INFO, **{**GOOD_INFO, **_changes}))
simple("SYS.INFO.lp", S.TDX_SYS_LP_INIT_NOT_DONE, 0, disturbed("init", nothing, INFO, **GOOD_INFO))
ONES = (1 << 64) - 1
simple("SYS.RD.lp", S.TDX_SYS_LP_INIT_NOT_DONE, 0, disturbed("init", nothing, "TDH.SYS.RD"))
simple("SYS.RD.first", S.TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT, 0, disturbed("lp.init", nothing, "TDH.SYS.RD",
rdx=ONES))
simple("SYS.RD.bits", S.TDX_METADATA_FIELD_ID_INCORRECT, 0, disturbed("lp.init", nothing, "TDH.SYS.RD", rdx=1 << 34))
simple("SYS.RD.unknown", S.TDX_METADATA_FIELD_ID_INCORRECT, 0, disturbed("lp.init", nothing, "TDH.SYS.RD", rdx=0x77))
simple("SYS.RDALL.lp", S.TDX_SYS_LP_INIT_NOT_DONE, 0, disturbed("init", nothing, "TDH.SYS.RDALL"))
simple("SYS.RDALL.rdx", S.TDX_OPERAND_INVALID, 2, disturbed("lp.init", nothing, "TDH.SYS.RDALL", rdx=0x800, r8=ONES))
simple("SYS.RDALL.unknown", S.TDX_METADATA_FIELD_ID_INCORRECT, 0,
       disturbed("lp.init", nothing, "TDH.SYS.RDALL", rdx=0x2100_0000, r8=0x77))

# --- SHUTDOWN, UPDATE

SD = "TDH.SYS.SHUTDOWN"
simple("SYS.SHUTDOWN.old", S.TDX_OPERAND_INVALID, 1, lambda: World("tdmr.init", "1.5.931").ask(SD, rcx=0))
simple("SYS.SHUTDOWN.new", S.TDX_OPERAND_INVALID, 1, lambda: World().ask(SD, rcx=1))
simple("SYS.SHUTDOWN.no_downgrade", S.TDX_OPERAND_INVALID, 1, lambda: World("tdmr.init", "1.5.932").ask(SD, rcx=0))
simple("SYS.SHUTDOWN.lock", S.TDX_SYS_BUSY, 0, disturbed("tdmr.init", poke_global("global_lock", 1), SD))
simple("SYS.SHUTDOWN.sensitive", S.TDX_UPDATE_COMPAT_SENSITIVE, 0,
       lambda: World.with_td("TDH.MNG.INIT", "1.5.920").ask(SD, rcx=1 << 16))


@row("SYS.SHUTDOWN.busy", S.TDX_SYS_BUSY)
def _busy() -> vmm.Answered:
    world = World.with_td()
    world.ask("TDH.VP.FLUSH", rcx=world.td.tdvprs[0])
    assert isinstance(vmm.enter(world.p, 1, world.td).run, Guest)
    answer = world.ask(SD)
    assert world.look.state.name == "SYS_READY"
    return answer


def updating(act: Callable[[World], None], module: str = "1.5.05", lps: int = 2) -> Case:
    """TDH.SYS.UPDATE in a module that was installed over another."""
    def case() -> vmm.Answered:
        world = World("tdmr.init")
        done = vmm.update(world.p, module, lps=world.p.lps[:lps])
        assert done.stopped_at in ("", "TDH.SYS.UPDATE")
        return done.answer

    def broken() -> vmm.Answered:
        world = World("lp.init", module)
        act(world)
        return world.ask("TDH.SYS.UPDATE")

    return case if lps < 2 else broken


def header(valid: int = 1, hv: int = 0, size: int = 53386) -> Callable[[World], None]:
    def act(world: World) -> None:
        for name, value in (("valid", valid), ("hv", hv), ("size", size)):
            world.look.handoff.set(name, value)

    return act


simple("SYS.UPDATE.lock", S.TDX_SYS_BUSY, 0, updating(poke_global("global_lock", 1)))
simple("SYS.UPDATE.state", S.TDX_SYS_STATE_INCORRECT, 0, lambda: World("config").ask("TDH.SYS.UPDATE"))
simple("SYS.UPDATE.lps", S.TDX_SYS_STATE_INCORRECT, 0, updating(nothing, lps=1))
simple("SYS.UPDATE.valid", S.TDX_SYS_INVALID_HANDOFF, 0, updating(nothing))
simple("SYS.UPDATE.old", S.TDX_SYS_INVALID_HANDOFF, 0, updating(header(hv=0), "1.5.931"))
simple("SYS.UPDATE.new", S.TDX_SYS_INVALID_HANDOFF, 0, updating(header(hv=1), "1.5.05"))

# --- DISABLE

DIS = "TDH.SYS.DISABLE"


def disabling(act: Callable[[World], None]) -> Case:
    def case() -> vmm.Answered:
        world = World("tdmr.init", "1.5.940")
        act(world)
        return world.ask(DIS)

    return case


simple("SYS.DISABLE.lock", S.TDX_SYS_BUSY, 0, disabling(poke_global("global_lock", 1)))
simple("SYS.DISABLE.busy", S.TDX_SYS_BUSY, 0, disabling(lambda w: w.look.local(1).set("busy", 1)))

# --- pages, owners, TDs

CREATE = "TDH.MNG.CREATE"


def create(act: Callable[[World], None] = nothing, **registers: int) -> Case:
    return disturbed("tdmr.init", act, CREATE, **{"rcx": PLAN.first_page, "rdx": PLAN.next_hkid, **registers})


simple("PAGE.align", S.TDX_OPERAND_INVALID, 1, create(rcx=PLAN.first_page + 8))
simple("PAGE.range", S.TDX_OPERAND_ADDR_RANGE_ERROR, 1, create(rcx=0x3000_0000))
simple("PAGE.lock", S.TDX_OPERAND_BUSY, 1, create(lambda w: w.look.pamt(PLAN.first_page).set("lock", 4)))
simple("PAGE.type", S.TDX_PAGE_METADATA_INCORRECT, 1, create(lambda w: w.look.pamt(PLAN.first_page).set("type", 1)))
simple("MNG.CREATE.rdx", S.TDX_OPERAND_INVALID, 2, create(rdx=5))
simple("MNG.CREATE.kot", S.TDX_OPERAND_BUSY, 186, create(poke_global("kot_lock", 1)))
simple("MNG.CREATE.hkid", S.TDX_HKID_NOT_FREE, 0, create(rdx=PLAN.hkid))
simple("MNG.CREATE.entropy", S.TDX_RND_NO_ENTROPY, 0, create(lambda w: w.p.inject("rdrand", (0, 0))))


def td_case(until: str, act: Callable[[World], None], name: str, lp: int = 0, module: str = "1.5.05", more: Any = None,
            **operands: Any) -> Case:
    """Build a TD until behind a step, disturb, ask; operands may be functions of the world."""
    def case() -> vmm.Answered:
        world = World.with_td(until, module, **(more or {}))
        act(world)
        return world.ask(name, lp, **{k: v(world) if callable(v) else v for k, v in operands.items()})

    return case


def TDR(w: World) -> int:
    return w.td.tdr


def VCPU(w: World) -> int:
    return w.td.tdvprs[0]


def FREE(w: World) -> int:
    return w.td.next_page


def poke_td(field: str, value: int) -> Callable[[World], None]:
    return lambda w: w.tdr.set(field, value)


def poke_tdcs(field: str, value: int) -> Callable[[World], None]:
    return lambda w: w.tdcs.set(field, value)


FIN, TRACK = "TDH.MR.FINALIZE", "TDH.MEM.TRACK"
simple("OWNER.lock", S.TDX_OPERAND_BUSY, 128,
       td_case("", lambda w: w.look.pamt(w.td.tdr).set("lock", 1), "TDH.VP.FLUSH", rcx=VCPU))
simple("TD.fatal", S.TDX_TD_FATAL, 0, td_case("", poke_td("fatal", 1), TRACK, rcx=TDR))
simple("TD.keys", S.TDX_TD_KEYS_NOT_CONFIGURED, 0, td_case(CREATE, nothing, TRACK, rcx=TDR))
simple("TD.tdcs", S.TDX_TDCS_NOT_ALLOCATED, 0, td_case("TDH.MNG.KEY.CONFIG", nothing, TRACK, rcx=TDR))
simple("TD.op_lock", S.TDX_OPERAND_BUSY, 172, td_case("", poke_tdcs("op_state_lock", 1), TRACK, rcx=TDR))
simple("TD.op_state", S.TDX_OP_STATE_INCORRECT, 0, td_case("", nothing, FIN, rcx=TDR))

MK, AD = "TDH.MNG.KEY.CONFIG", "TDH.MNG.ADDCX"
simple("MNG.KEY.CONFIG.fatal", S.TDX_TD_FATAL, 0, td_case(CREATE, poke_td("fatal", 1), MK, rcx=TDR))
simple("MNG.KEY.CONFIG.lifecycle", S.TDX_LIFECYCLE_STATE_INCORRECT, 0, td_case(MK, nothing, MK, rcx=TDR))
simple("MNG.KEY.CONFIG.configured", S.TDX_KEY_CONFIGURED, 0,
       td_case(CREATE, poke_td("pkg_config_bitmap", 1), MK, rcx=TDR))
simple("MNG.ADDCX.fatal", S.TDX_TD_FATAL, 0, td_case(MK, poke_td("fatal", 1), AD, rcx=FREE, rdx=TDR))
simple("MNG.ADDCX.keys", S.TDX_TD_KEYS_NOT_CONFIGURED, 0, td_case(CREATE, nothing, AD, rcx=FREE, rdx=TDR))
simple("MNG.ADDCX.number", S.TDX_TDCX_NUM_INCORRECT, 0, td_case(AD, poke_td("num_tdcx", 9), AD, rcx=FREE, rdx=TDR))
simple("MNG.ADDCX.op_state", S.TDX_OP_STATE_INCORRECT, 0, td_case("", nothing, AD, rcx=FREE, rdx=TDR))
simple("MNG.ADDCX.entropy", S.TDX_RND_NO_ENTROPY, 0, td_case(
    AD, lambda w: (w.tdr.set("num_tdcx", 5), w.p.inject("rdrand", (0, 0)))[0], AD, rcx=FREE, rdx=TDR))


def uninitialised() -> World:
    """A TD with all six TDCS pages, before TDH.MNG.INIT."""
    world = World.with_td(AD)
    for _ in range(5):
        world.ask(AD, rcx=world.td.take(), rdx=world.td.tdr)
    return world


def configs(entries: dict[int, dict[str, int]]) -> list[dict[str, int]]:
    """TD_PARAMS.CPUID_CONFIG with some entries not 0."""
    return [dict.fromkeys(("eax", "ebx", "ecx", "edx"), 0) | entries.get(i, {}) for i in range(48)]


def params(**fields: Any) -> Case:
    return lambda: uninitialised().param(**fields)


simple("MNG.INIT.limit_cpuid", S.TDX_LIMIT_CPUID_MAXVAL_SET, 0,
       td_case(AD, lambda w: w.msr(0x1A0, 0x80 | 1 << 22), "TDH.MNG.INIT", rcx=TDR))
simple("MNG.INIT.rdx", S.TDX_OPERAND_INVALID, 2, lambda: (w := uninitialised()).ask("TDH.MNG.INIT", rcx=w.td.tdr,
rdx=8))
simple("MNG.INIT.attributes", S.TDX_OPERAND_INVALID, 64, params(attributes=2))
simple("MNG.INIT.xfam", S.TDX_OPERAND_INVALID, 65, params(xfam=0))
simple("MNG.INIT.max_vcpus", S.TDX_OPERAND_INVALID, 68, params(max_vcpus=0))
simple("MNG.INIT.l2", S.TDX_OPERAND_INVALID, 71, params(num_l2_vms=4))
simple("MNG.INIT.tdcs", S.TDX_TDCS_NOT_ALLOCATED, 0, params(num_l2_vms=1))
simple("MNG.INIT.reserved", S.TDX_OPERAND_INVALID, 2, params(reserved_0=1))
simple("MNG.INIT.reserved_1", S.TDX_OPERAND_INVALID, 2, params(reserved_1=1))
simple("MNG.INIT.reserved_2", S.TDX_OPERAND_INVALID, 2, params(reserved_2=1))
simple("MNG.INIT.msr_config", S.TDX_OPERAND_INVALID, 2, params(msr_config_ctls=2))
simple("MNG.INIT.arch_capabilities", S.TDX_OPERAND_INVALID, 72, params(ia32_arch_capabilities_config=1 << 4))
simple("MNG.INIT.config_flags", S.TDX_OPERAND_INVALID, 66, params(config_flags=8))
simple("MNG.INIT.eptp", S.TDX_OPERAND_INVALID, 67, params(eptp_controls=0x26))
simple("MNG.INIT.tsc_frequency", S.TDX_OPERAND_INVALID, 70, params(tsc_frequency=3))
simple("MNG.INIT.cpuid", S.TDX_OPERAND_INVALID, 69, params(cpuid_config=configs({0: {"ecx": 1}})))
simple("MNG.INIT.cpuid_behind", S.TDX_OPERAND_INVALID, 69, params(cpuid_config=configs({10: {"edx": 1}})))


def tsx(ebx: int) -> Case:
    """A processor with these of HLE (bit 4) and RTM (bit 11), and a TD that asks for both."""
    def case() -> vmm.Answered:
        world = uninitialised()
        held = FIXED[7, 0]
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(FIXED, (7, 0), held._replace(ebx=held.ebx | ebx))
            return world.param(cpuid_config=configs({5: {"ebx": 1 << 4 | 1 << 11}}))

    return case


simple("MNG.INIT.tsx", S.TDX_OPERAND_INVALID, 69, tsx(1 << 4))
simple("MNG.INIT.tsx_ctrl", S.TDX_INCORRECT_MSR_VALUE, 0x10A, tsx(1 << 4 | 1 << 11))
simple("MNG.INIT.topology", S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED, 0,
       params(cpuid_config=configs({12: {"eax": 1}})))
simple("MNG.INIT.reserved_3", S.TDX_OPERAND_INVALID, 2, params(cpuid_config=configs({18: {"eax": 1}})))


@row("MNG.INIT.tsc_adjust", S.TDX_INCONSISTENT_MSR, 0x3B)
def _init_tsc() -> vmm.Answered:
    world = uninitialised()
    world.msr(0x3B, 1)
    return world.param()


SEPT, ADD, EXT = "TDH.MEM.SEPT.ADD", "TDH.MEM.PAGE.ADD", "TDH.MR.EXTEND"
simple("MEM.SEPT.ADD.version", S.TDX_OPERAND_INVALID, 0,
       td_case("", nothing, SEPT, version=2, rcx=3, rdx=TDR, r8=FREE))
simple("MEM.SEPT.ADD.handle", S.TDX_OPERAND_INVALID, 2,
       td_case("", nothing, SEPT, rcx=3, rdx=lambda w: w.td.tdr | 2, r8=FREE))
simple("MEM.SEPT.ADD.l2", S.TDX_OPERAND_INVALID, 9,
       td_case("", nothing, SEPT, version=1, rcx=3, rdx=lambda w: w.td.tdr | 1, r8=FREE))
simple("MEM.SEPT.ADD.rcx", S.TDX_OPERAND_INVALID, 1, td_case("", nothing, SEPT, rcx=0, rdx=TDR, r8=FREE))
simple("MEM.SEPT.ADD.lock", S.TDX_OPERAND_BUSY, 146,
       td_case("", poke_tdcs("sept_lock", 1), SEPT, rcx=2, rdx=TDR, r8=FREE))
simple("MEM.SEPT.ADD.walk", S.TDX_EPT_WALK_FAILED, 1, td_case("", nothing, SEPT, rcx=1, rdx=TDR, r8=FREE))
simple("MEM.SEPT.ADD.entry", S.TDX_EPT_ENTRY_STATE_INCORRECT, 1, td_case("", nothing, SEPT, rcx=3, rdx=TDR, r8=FREE))
_ADDED = {"rdx": TDR, "r8": FREE, "r9": lambda w: w.td.shared}
simple("MEM.PAGE.ADD.rcx", S.TDX_OPERAND_INVALID, 1, td_case(ADD, nothing, ADD, rcx=1 << 47, **_ADDED))
simple("MEM.PAGE.ADD.walk", S.TDX_EPT_WALK_FAILED, 1, td_case(ADD, nothing, ADD, rcx=0, **_ADDED))
simple("MEM.PAGE.ADD.entry", S.TDX_EPT_ENTRY_STATE_INCORRECT, 1, td_case(ADD, nothing, ADD, rcx=0xFFFFF000, **_ADDED))
simple("MEM.PAGE.ADD.r9", S.TDX_OPERAND_INVALID, 9,
       td_case(ADD, nothing, ADD, **{"rcx": 0xFFFFD000, **_ADDED, "r9": 0x2000_0008}))
simple("MR.EXTEND.rcx", S.TDX_OPERAND_INVALID, 1, td_case(ADD, nothing, EXT, rcx=0x80, rdx=TDR))
simple("MR.EXTEND.entry", S.TDX_EPT_ENTRY_NOT_PRESENT, 1, td_case(ADD, nothing, EXT, rcx=0xFFFFD000, rdx=TDR))
simple("MR.FINALIZE.vcpus", S.TDX_NO_VCPUS, 0, td_case("TDH.MNG.INIT", nothing, FIN, rcx=TDR))
simple("BUILD.interrupted", S.TDX_UPDATE_COMPAT_SENSITIVE, 0,
       td_case(EXT, poke_tdcs("mrtd_context.seamdb_index", 7), EXT, module="1.5.06-detect", rcx=0xFFFFF000, rdx=TDR))

AC, VI, VF = "TDH.VP.ADDCX", "TDH.VP.INIT", "TDH.VP.FLUSH"
simple("VP.ADDCX.state", S.TDX_VCPU_STATE_INCORRECT, 0, td_case(VI, nothing, AC, rcx=FREE, rdx=VCPU))


@row("VP.ADDCX.number", S.TDX_TDCX_NUM_INCORRECT)
def _addcx() -> vmm.Answered:
    world = World.with_td(AC)
    for _ in range(13):
        assert world.ask(AC, rcx=world.td.take(), rdx=VCPU(world)).ok
    return world.ask(AC, rcx=world.td.take(), rdx=VCPU(world))


simple("VP.INIT.version", S.TDX_OPERAND_INVALID, 0, td_case(AC, nothing, VI, version=2, rcx=VCPU))
simple("VP.INIT.x2apic", S.TDX_OPERAND_INVALID, 8, td_case(
    AC, lambda w: w.vcpu.set("num_tdcx", 5), VI, version=1, rcx=VCPU, r8=1 << 32))


def _one_vcpu_with_id_5(w: World) -> None:
    w.vcpu.set("num_tdcx", 5)
    w.tdcs.set("max_vcpus", 2)
    w.tdcs.set("num_vcpus", 1)
    w.tdcs.set("x2apic_ids[0]", 5)


simple("VP.INIT.unique", S.TDX_X2APIC_ID_NOT_UNIQUE, 5,
       td_case(AC, _one_vcpu_with_id_5, VI, version=1, rcx=VCPU, r8=5))
simple("VP.INIT.pages", S.TDX_TDCX_NUM_INCORRECT, 0, td_case(AC, nothing, VI, rcx=VCPU))
simple("VP.INIT.state", S.TDX_VCPU_STATE_INCORRECT, 0, td_case(VI, nothing, VI, rcx=VCPU))
simple("VP.INIT.max", S.TDX_MAX_VCPUS_EXCEEDED, 0, td_case(AC, lambda w: (
    w.vcpu.set("num_tdcx", 5), w.tdcs.set("num_vcpus", 1))[0], VI, rcx=VCPU))
simple("VP.INIT.tsc_adjust", S.TDX_INCONSISTENT_MSR, 0x3B, td_case(AC, lambda w: (
    w.vcpu.set("num_tdcx", 5), w.msr(0x3B, 5))[0], VI, rcx=VCPU))
simple("VP.FLUSH.keys", S.TDX_TD_KEYS_NOT_CONFIGURED, 0, td_case("", poke_td("lifecycle", 2), VF, rcx=VCPU))
simple("VP.FLUSH.pages", S.TDX_TDCX_NUM_INCORRECT, 0, td_case(AC, nothing, VF, rcx=VCPU))
simple("VP.FLUSH.associated", S.TDX_VCPU_NOT_ASSOCIATED, 0, td_case("", nothing, VF, 1, rcx=VCPU))
WR = "TDH.VP.WR"
simple("VP.WR.field", S.TDX_METADATA_FIELD_ID_INCORRECT, 0, td_case("", nothing, WR, rcx=VCPU, rdx=1))
simple("VP.WR.value", S.TDX_METADATA_FIELD_VALUE_NOT_VALID, 0,
       td_case("", nothing, WR, rcx=VCPU, rdx=SHARED_EPTP_FIELD, r8=0x7C00_0000))
simple("MEM.TRACK.lock", S.TDX_OPERAND_BUSY, 169, td_case("", poke_tdcs("epoch_lock", 2), TRACK, rcx=TDR))
simple("MEM.TRACK.previous", S.TDX_PREVIOUS_TLB_EPOCH_BUSY, 169, td_case("", poke_tdcs("refcount[0]", 1), TRACK,
rcx=TDR))

DONE, WB, FREEID, REC = "TDH.MNG.VPFLUSHDONE", "TDH.PHYMEM.CACHE.WB", "TDH.MNG.KEY.FREEID", "TDH.PHYMEM.PAGE.RECLAIM"
simple("MNG.VPFLUSHDONE.kot", S.TDX_OPERAND_BUSY, 186, td_case("", poke_global("kot_lock", 2), DONE, rcx=TDR))
simple("MNG.VPFLUSHDONE.lifecycle", S.TDX_LIFECYCLE_STATE_INCORRECT, 0, td_case("", poke_td("lifecycle", 2), DONE,
rcx=TDR))
simple("MNG.VPFLUSHDONE.vcpus", S.TDX_FLUSHVP_NOT_DONE, 0, td_case("", nothing, DONE, rcx=TDR))
simple("PHYMEM.CACHE.WB.rcx", S.TDX_OPERAND_INVALID, 1, lambda: World().ask(WB, rcx=2))
simple("PHYMEM.CACHE.WB.mutex", S.TDX_OPERAND_BUSY, 188, disturbed("tdmr.init", poke_global("wbt[0].mutex", 1), WB))
simple("PHYMEM.CACHE.WB.kot", S.TDX_OPERAND_BUSY, 186, disturbed("tdmr.init", poke_global("kot_lock", 1), WB))
simple("PHYMEM.CACHE.WB.none", S.TDX_NO_HKID_READY_TO_WBCACHE, 0, lambda: World().ask(WB))
simple("PHYMEM.CACHE.WB.resume", S.TDX_WBCACHE_RESUME_ERROR, 0, lambda: World().ask(WB, rcx=1))
simple("MNG.KEY.FREEID.lifecycle", S.TDX_LIFECYCLE_STATE_INCORRECT, 0, td_case("", nothing, FREEID, rcx=TDR))


def blocked(w: World) -> None:
    assert w.ask(VF, rcx=VCPU(w)).ok and w.ask(DONE, rcx=TDR(w)).ok


simple("MNG.KEY.FREEID.kot", S.TDX_OPERAND_BUSY, 186, td_case("", lambda w: (
    blocked(w), w.look.glob.set("kot_lock", 1))[0], FREEID, rcx=TDR))
simple("MNG.KEY.FREEID.wb", S.TDX_WBCACHE_NOT_COMPLETE, 0, td_case("", blocked, FREEID, rcx=TDR))
simple("PHYMEM.PAGE.RECLAIM.owner", S.TDX_OPERAND_BUSY, 128,
       td_case("", lambda w: w.look.pamt(w.td.tdr).set("lock", 1), REC, rcx=VCPU))
simple("PHYMEM.PAGE.RECLAIM.lifecycle", S.TDX_LIFECYCLE_STATE_INCORRECT, 0, td_case("", nothing, REC, rcx=TDR))
simple("PHYMEM.PAGE.RECLAIM.children", S.TDX_TD_ASSOCIATED_PAGES_EXIST, 0, td_case("", lambda w: (
    blocked(w), w.ask(WB), w.ask(FREEID, rcx=TDR(w)))[0], REC, rcx=TDR))

# --- TDH.VP.ENTER

EN = "TDH.VP.ENTER"
simple("VP.ENTER.limit_cpuid", S.TDX_LIMIT_CPUID_MAXVAL_SET, 0,
       td_case("", lambda w: w.msr(0x1A0, 0x80 | 1 << 22), EN, rcx=VCPU))
simple("VP.ENTER.rcx", S.TDX_OPERAND_INVALID, 1, td_case("", nothing, EN, rcx=lambda w: VCPU(w) | 1))
simple("VP.ENTER.pages", S.TDX_TDCX_NUM_INCORRECT, 0, td_case("", lambda w: w.vcpu.set("num_tdcx", 3), EN, rcx=VCPU))
simple("VP.ENTER.state", S.TDX_VCPU_STATE_INCORRECT, 0, td_case("", lambda w: w.vcpu.set("state", 8), EN, rcx=VCPU))
simple("VP.ENTER.associated", S.TDX_VCPU_ASSOCIATED, 0, td_case("", nothing, EN, 1, rcx=VCPU))
simple("VP.ENTER.flags", S.TDX_OPERAND_INVALID, 1, td_case("", nothing, EN, rcx=lambda w: VCPU(w) | 1 << 52))
simple("VP.ENTER.tsc_adjust", S.TDX_INCONSISTENT_MSR, 0x3B, td_case("", lambda w: w.msr(0x3B, 5), EN, rcx=VCPU))
simple("VP.ENTER.epoch", S.TDX_OPERAND_BUSY, 169, td_case("", poke_tdcs("epoch_lock", 1), EN, rcx=VCPU))

# --- what a TD calls


def tdcall(act: Callable[[World], None] = nothing, **registers: int) -> Case:
    """The guest's RAX behind one TDCALL."""
    def case() -> int:
        world = World.with_td(program=tdcall_program(**registers))
        act(world)
        return vmm.run_td(world.p, 0, world.td).count

    return case


simple("TDG.reserved", S.TDX_OPERAND_INVALID, 0, tdcall(rax=1 << 40 | 1))
simple("TDG.version", S.TDX_OPERAND_INVALID, 0, tdcall(rax=1 << 16 | 1))
simple("TDG.leaf", S.TDX_OPERAND_INVALID, 0, tdcall(rax=999))
simple("TDG.VP.VMCALL.rcx", S.TDX_OPERAND_INVALID, 1, tdcall(rax=0, rcx=2))
simple("TDG.MR.RTMR.EXTEND.rcx", S.TDX_OPERAND_INVALID, 1, tdcall(rax=2, rcx=DATA_GPA + 8))
simple("TDG.MR.RTMR.EXTEND.rdx", S.TDX_OPERAND_INVALID, 2, tdcall(rax=2, rcx=DATA_GPA, rdx=4))
simple("TDG.MR.RTMR.EXTEND.lock", S.TDX_OPERAND_BUSY, 168, tdcall(poke_tdcs("rtmr_lock", 1), rax=2, rcx=DATA_GPA,
rdx=0))
simple("TDG.MR.REPORT.rcx", S.TDX_OPERAND_INVALID, 1, tdcall(rax=4, rcx=DATA_GPA + 64))
simple("TDG.MR.REPORT.rdx", S.TDX_OPERAND_INVALID, 2, tdcall(rax=4, rcx=DATA_GPA, rdx=DATA_GPA + 8))
simple("TDG.MR.REPORT.r8", S.TDX_OPERAND_INVALID, 8, tdcall(rax=4, rcx=DATA_GPA, rdx=DATA_GPA, r8=1))
simple("TDG.MR.REPORT.lock", S.TDX_OPERAND_BUSY, 168,
       tdcall(poke_tdcs("rtmr_lock", 1), rax=4, rcx=DATA_GPA, rdx=DATA_GPA, r8=0))
simple("TDG.MR.VERIFYREPORT.capability", S.TDX_OPERAND_INVALID, 0,
       tdcall(poke_global("seam_capabilities", 0x3F), rax=22, rcx=DATA_GPA))
simple("TDG.MR.VERIFYREPORT.rcx", S.TDX_OPERAND_INVALID, 1, tdcall(rax=22, rcx=DATA_GPA + 64))
simple("TDG.MR.VERIFYREPORT.cpusvn", S.TDX_INVALID_CPUSVN, 0, tdcall(rax=22, rcx=DATA_GPA))


@row("TDG.MR.VERIFYREPORT.mac", S.TDX_INVALID_REPORTMACSTRUCT)
def _bad_mac() -> int:
    forged = bytes(16) + PlatformConfig().cpusvn
    world = World.with_td(program=tdcall_program(rax=22, rcx=DATA_GPA), data=forged)
    return vmm.run_td(world.p, 0, world.td).count


# --- the tests


@pytest.mark.parametrize("id", ROWS)
def test_rows__decides(id: str) -> None:
    """Each row decides in a call that is really made, and RAX is what the row says."""
    expected, case = CASES[id]
    decided: list[str] = []
    with watching(lambda row, stops: decided.append(row) if stops else None):
        answer = case()
    word = answer if isinstance(answer, int) else answer.word
    assert decided[-1:] == [id]
    assert word == expected, f"{decode(word)} instead of {decode(expected)}"


def test_rows__every_row_has_a_case_and_no_case_is_left_over() -> None:
    assert sorted(CASES) == sorted(ROWS)


@lru_cache(maxsize=1)
def silent_rows() -> frozenset[str]:
    """Rows that were silent while everything went well."""
    seen: set[str] = set()
    with watching(lambda row, stops: None if stops else seen.add(row)):
        everything_goes_well()
    return frozenset(seen)


def everything_goes_well() -> None:
    """A history without a refusal: bring up, read, build, run, measure, verify, update, take down."""
    p = vmm.boot(1, 2, "1.5.920")
    vmm.bring_up(p)
    assert tdh(p, 0, "TDH.SYS.INFO", **GOOD_INFO).ok
    assert tdh(p, 0, "TDH.SYS.RDALL", rdx=0x2100_0000, r8=ONES).ok
    handle = vmm.build_td(p, program=(*COUNTER,))
    assert vmm.must(p, 0, TRACK, rcx=handle.tdr)
    vmm.run_td(p, 0, handle)
    vmm.run_td(p, 0, handle, answer=EXTEND_RTMR)
    assert everifyreport2(p, 0, vmm.report_of(p, 0, handle).encode()) is VerifyStatus.SUCCESS
    verifier = vmm.build_td(p, number=1, program=tdcall_program(rax=22, rcx=DATA_GPA),
                            data=vmm.report_of(p, 0, handle).encode())
    assert vmm.run_td(p, 0, verifier).count == 0
    assert vmm.update(p, "1.5.930", avoid=True).ok
    late = vmm.build_td(p, number=2)
    for one in (handle, verifier, late):
        vmm.tear_down(p, 0, one)
    p.inject("pconfig", (1, 0))
    detecting = staged("tdmr.init", "1.5.06-detect").fork()
    vmm.build_td(detecting)
    assert tdh(staged("tdmr.init", "1.5.940").fork(), 0, DIS).ok


@pytest.mark.parametrize("id", ROWS)
def test_rows__silent(id: str) -> None:
    """Each row is silent in a history that goes well; those about PCONFIG's answer when it succeeds."""
    assert id in silent_rows()


def test_rows__the_interrupted_write_back_is_resumed() -> None:
    """TDH.PHYMEM.CACHE.WB: a pending event interrupts it, and resuming finishes what the start began."""
    world = World.with_td()
    blocked(world)
    raise_event(world.p, 0, EventKind.INTR)
    world.p.lp(0).intr_pending = True
    world.p.lp(0).rflags |= 1 << 9
    assert world.ask(WB).status is S.TDX_INTERRUPTED_RESUMABLE
    world.p.lp(0).intr_pending = False
    assert world.ask(FREEID, rcx=TDR(world)).status is S.TDX_WBCACHE_NOT_COMPLETE
    assert world.ask(WB, rcx=1).status is S.TDX_SUCCESS
    assert world.ask(FREEID, rcx=TDR(world)).ok


def test_EVENT_host__an_interrupt_does_not_interrupt_a_caller_with_IF_0() -> None:
    """Linux writes caches back from an IPI, with interrupts off: the call must end, or its loop never would."""
    world = World.with_td()
    blocked(world)
    world.p.lp(0).intr_pending = True
    world.p.lp(0).rflags &= ~(1 << 9)
    assert world.ask(WB).status is S.TDX_SUCCESS


def test_PHYMEM_CACHE_WB_effect__each_call_advances_while_an_event_stays_pending() -> None:
    world = World.with_td()
    blocked(world)
    world.p.lp(0).nmi_pending = True
    answers = [world.ask(WB, rcx=at).status for at in (0, 1, 1, 1)]
    assert answers == [S.TDX_INTERRUPTED_RESUMABLE] * 3 + [S.TDX_SUCCESS]


def test_VP_INIT_max__a_refused_call_burns_a_vcpu_index() -> None:
    world = World.with_td(AC)
    world.vcpu.set("num_tdcx", 5)
    world.msr(0x3B, 1)
    assert world.ask(VI, rcx=VCPU(world)).status is S.TDX_INCONSISTENT_MSR
    world.msr(0x3B, 0)
    assert world.ask(VI, rcx=VCPU(world)).status is S.TDX_MAX_VCPUS_EXCEEDED


def test_SYS_RDALL_effect__sequences_hold_every_field_of_the_chain() -> None:
    """1.5.01: 3128 bytes in 36 sequences, the first NUM_PKGS and 8 PKG_FMS; 354 elements, 355 in 1.5.05."""
    for module, size, elements in (("1.5.01", 3128, 354), ("1.5.05", None, 355)):
        world = World("tdmr.init", module)
        answer = world.ask("TDH.SYS.RDALL", rdx=0x2100_0000, r8=ONES)
        data = world.look.dram.read(0x2100_0000, 4096)
        total, sequences = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:4], "little")
        assert answer.ok and (total - 8) // 8 - sequences == elements
        assert size is None or (total, sequences) == (size, 36)
        assert int.from_bytes(data[8:16], "little") == 0x0000020200000000


def test_SYS_INIT_platform__the_default_platform_is_one_that_the_module_accepts() -> None:
    for module in ("1.5.01", "1.5.05"):
        assert World("installed", module).ask("TDH.SYS.INIT").ok
