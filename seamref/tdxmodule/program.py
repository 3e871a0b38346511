"""The TDX module as a program: entered by SEAMCALL with RAX[63] = 0 and by TD exits, left by SEAMRET and VM entry.

Steps of a call, each separable so that another processor can act in between::

    enter     registers saved in local data, busy = 1
    dispatch  RAX, version, state (table DISPATCH)
    checks    the leaf's own checks; locks are taken on the way
    effect    one or more pieces of work; locks released behind the last
    leave     busy = 0, registers and RIP for the caller, SEAMRET
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seamref.arch.lp import GPRS, Lp
from seamref.arch.msr import SPEC_CTRL, wrmsr
from seamref.arch.outcome import ExitReason, Guest
from seamref.arch.seam import seam_cvp, seamret
from seamref.arch.software import (
    TDX_MODULE_PROGRAM,
    Port,
    Running,
    StepOutcome,
    Ud2,
    register_program,
)
from seamref.arch.structures import SYS_INFO_TABLE
from seamref.errors import NotModelled
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule import metadata, run, system, td
from seamref.tdxmodule.build import read_build
from seamref.tdxmodule.core import (
    LEAVES,
    Answer,
    At,
    Call,
    Leaf,
    Linear,
    View,
    advance_rip,
    finish,
    handoff_bytes,
    keep_inputs,
    region_lps,
    restore_inputs,
    run_stage,
    vmcs_field,
)
from seamref.tdxmodule.status import Operand, Result, Status
from seamref.tdxmodule.structures import GLOBAL_DATA, LOCAL_DATA, PAGE, OpState, PageType, SysState
from seamref.tdxmodule.td import checks, sept

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

S = Status
_D = "TDXM src/vmm_dispatcher/tdx_vmm_dispatcher.c"


@dataclass(frozen=True, slots=True)
class Gap:
    """A leaf of the published interface that this book does not cover beyond its first operand.

    ``operand`` the register that names the page judged first, ``type`` of which type it must be (``None``: not judged
    here); ``outputs`` zeroed and (version 1) ``ones`` set to all ones before; ``late``: the
    handler judges versions above 0; ``levels``: the levels that RCX may name, where it is judged here; ``other``: a
    register that must not name the same page
    """

    name: str
    operand: str
    type: PageType | None = PageType.TDR
    outputs: tuple[str, ...] = ("rcx", "rdx")
    ones: tuple[str, ...] = ()
    late: bool = False
    levels: range | None = None
    other: str = ""


_R_OUT: dict[str, Any] = {"outputs": ("r8",), "ones": ("rdx",)}
_PLAIN: dict[str, Any] = {"outputs": ()}
_RDX: dict[str, Any] = {"outputs": ("rdx",)}
_R8: dict[str, Any] = {"outputs": ("rcx", "rdx", "r8")}
_RDMD: dict[str, Any] = {"outputs": ("rcx", "rdx", "r8", "r9", "r10", "r11")}
UNMODELLED: dict[int, Gap] = {
    5: Gap("TDH.MEM.PAGE.RELOCATE", "rdx"), 6: Gap("TDH.MEM.PAGE.AUG", "rdx"), 7: Gap("TDH.MEM.RANGE.BLOCK", "rdx"),
    11: Gap("TDH.MNG.RD", "rcx", late=True, **_R_OUT), 12: Gap("TDH.MEM.RD", "rdx", **_R8),
    13: Gap("TDH.MNG.WR", "rcx", outputs=("r8",)),
    14: Gap("TDH.MEM.WR", "rdx", **_R8), 15: Gap("TDH.MEM.PAGE.DEMOTE", "rdx"),
    23: Gap("TDH.MEM.PAGE.PROMOTE", "rdx", late=True, levels=range(1, 4)),
    24: Gap("TDH.PHYMEM.PAGE.RDMD", "rcx", None, **_RDMD),
    25: Gap("TDH.MEM.SEPT.RD", "rdx"),
    26: Gap("TDH.VP.RD", "rcx", PageType.TDVPR, late=True, **_R_OUT),
    29: Gap("TDH.MEM.PAGE.REMOVE", "rdx"),
    30: Gap("TDH.MEM.SEPT.REMOVE", "rdx", late=True, levels=range(1, 4)),
    39: Gap("TDH.MEM.RANGE.UNBLOCK", "rdx"), 41: Gap("TDH.PHYMEM.PAGE.WBINVD", "rcx", None, **_PLAIN),
    48: Gap("TDH.SERVTD.BIND", "rcx", outputs=("rcx", "r10", "r11"), other="rdx"),
    49: Gap("TDH.SERVTD.PREBIND", "rcx", **_PLAIN),
    64: Gap("TDH.EXPORT.ABORT", "rcx", **_PLAIN), 65: Gap("TDH.EXPORT.BLOCKW", "rdx", **_PLAIN),
    66: Gap("TDH.EXPORT.RESTORE", "rdx", **_PLAIN), 68: Gap("TDH.EXPORT.MEM", "rdx", **_PLAIN),
    70: Gap("TDH.EXPORT.PAUSE", "rcx", **_PLAIN), 71: Gap("TDH.EXPORT.TRACK", "rcx", **_PLAIN),
    72: Gap("TDH.EXPORT.STATE.IMMUTABLE", "rcx", **_RDX), 73: Gap("TDH.EXPORT.STATE.TD", "rcx", **_RDX),
    74: Gap("TDH.EXPORT.STATE.VP", "rcx", None, **_RDX), 75: Gap("TDH.EXPORT.UNBLOCKW", "rdx"),
    80: Gap("TDH.IMPORT.ABORT", "rcx", **_PLAIN), 81: Gap("TDH.IMPORT.END", "rcx", **_PLAIN),
    82: Gap("TDH.IMPORT.COMMIT", "rcx", **_PLAIN), 83: Gap("TDH.IMPORT.MEM", "rdx", **_PLAIN),
    84: Gap("TDH.IMPORT.TRACK", "rcx", **_PLAIN), 85: Gap("TDH.IMPORT.STATE.IMMUTABLE", "rcx"),
    86: Gap("TDH.IMPORT.STATE.TD", "rcx"), 87: Gap("TDH.IMPORT.STATE.VP", "rcx", None),
    96: Gap("TDH.MIG.STREAM.CREATE", "rdx", **_PLAIN),
}
"""Leaves of the published interface that this book does not cover: asking for one names the gap."""
_EVERY_TYPE, VP_RD = tuple(PageType), 26


def _late(c: Call) -> bool:
    """Whether the leaf's handler judges the version, and the dispatcher lets any pass."""
    gap, found = UNMODELLED.get(c.leaf), LEAVES.get(c.leaf)
    if gap is not None:
        return gap.late
    return found is not None and found.late


def _bad_version(c: Call) -> bool:
    if c.version == 0 or _late(c):
        return False
    found = LEAVES.get(c.leaf)
    return not (found is not None and any(c.version <= version and c.has(knob) for version, knob in found.versions))


def first_operand(c: Call, gap: Gap) -> Result | None:
    """What a leaf that is not covered says to a version or a page that cannot be; ``None``: it would go on."""
    for name in (*gap.outputs, *gap.ones):
        c.reg(name)
    c.reg(gap.operand)
    c.out(**dict.fromkeys(gap.outputs, 0))
    if c.version:
        c.out(**dict.fromkeys(gap.ones, (1 << 64) - 1))
    if gap.late and c.version and gap.outputs == ("rcx", "rdx"):
        c.out(r9=(1 << 64) - 1, r10=(1 << 64) - 1, r11=(1 << 64) - 1)
    if gap.late and c.version > 1:
        return Result(S.TDX_OPERAND_INVALID, int(Operand.RAX))
    if gap.other and c.reg(gap.other) == c.reg(gap.operand):
        return Result(S.TDX_OPERAND_INVALID, int(Operand[gap.other.upper()]))
    judge = checks.page(gap.operand, _EVERY_TYPE if gap.type is None else gap.type, "s")
    assert not isinstance(judge, CheckTable)
    refused = judge(c)
    if refused is None and c.leaf == VP_RD and metadata.no_vmcs_field(c.reg("rdx")):
        return Result(S.TDX_METADATA_FIELD_ID_INCORRECT)
    if refused is not None or gap.levels is None:
        return refused
    state = checks.td_state(checks.tdr_in("rdx"), OpState.INITIALIZED, OpState.RUNNABLE)
    assert not isinstance(state, CheckTable)
    refused = state(c)
    if refused is not None or not sept.gpa_wrong(c, gap.levels):
        return refused
    return Result(S.TDX_OPERAND_INVALID, int(Operand.RCX))


def _is_there(c: Call) -> bool:
    found = LEAVES.get(c.leaf)
    return found is not None and (not found.knob or c.has(found.knob))


def _early(c: Call) -> bool:
    return _is_there(c) and LEAVES[c.leaf].before_ready


DISPATCH: CheckTable[Call, Answer] = CheckTable("TDX module dispatcher", (
    Check("DISPATCH.reserved", "RAX[63:24] is not 0", lambda c: c.reg("rax") >> 24 != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _D),
    Check("DISPATCH.version", "RAX[23:16] is a version the leaf does not have", _bad_version,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _D),
    Check("DISPATCH.shutdown", "state SYS_SHUTDOWN, and the leaf is not TDH.SYS.LP.SHUTDOWN",
          lambda c: c.state == SysState.SYS_SHUTDOWN and c.leaf != 44, Answer(S.TDX_SYS_SHUTDOWN), _D),
    Check("DISPATCH.not_ready", "state is not SYS_READY, and the leaf is none of those that bring the module up",
          lambda c: c.state != SysState.SYS_READY and not _early(c), Answer(S.TDX_SYS_NOT_READY), _D),
    Check("DISPATCH.leaf", "no such leaf", lambda c: not _is_there(c) and c.leaf not in UNMODELLED,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), _D),
), "What the dispatcher looks at before any leaf, in order; registers other than RAX keep the caller's values.")


class TdxModule:
    """The behaviour of a TDX module image; everything it knows lies in the platform's memory."""

    id = TDX_MODULE_PROGRAM
    name = "TDX module"

    def step(self, platform: Platform, lp: Lp, parameters: bytes) -> StepOutcome:
        """One step: which one follows from ``lp.program_state``, and right after entry from the current VMCS."""
        at = lp.program_state
        if at is None:
            return self._enter(platform, lp) if lp.current_vmcs == seam_cvp(platform, lp) else run.td_exit(platform, lp)
        assert isinstance(at, At)
        call = Call(platform, lp)
        call.held = list(at.held)
        match at.phase:
            case "dispatch":
                return self._dispatch(call)
            case "checks":
                return self._checks(call, _leaf(call))
            case "effect":
                return self._effect(call, _leaf(call), at.effect)
            case "leave":
                return self._leave(call)
            case "tdcall":
                return run.tdcall(call)
            case "resume":
                return run.resume(call)
            case "exit_td":
                return run.exit_td(call)
            case _:
                raise NotModelled(f"phase {at.phase!r} of the TDX module")

    @implements("MODULE.enter", "all registers saved in local data and zeroed, pointers computed once, busy = 1",
                "TDXM tdx_seamcall_entry_point.S, tdx_vmm_dispatcher.c")
    def _enter(self, platform: Platform, lp: Lp) -> StepOutcome:
        """MODULE.enter."""
        linear = Linear(Port(platform, lp))
        local = View(LOCAL_DATA, linear, lp.gs_base)
        local.set("gprs", b"".join(getattr(lp, r).to_bytes(8, "little") for r in GPRS))
        for name in GPRS:
            if name != "rsp":
                setattr(lp, name, 0)
        if local.num("sysinfo") == 0:
            find_data(platform, lp, linear, local)
        if vmcs_field(platform, lp, "exit_reason") & 0xFFFF != ExitReason.SEAMCALL:
            raise Ud2("entered for another reason than SEAMCALL")
        local.set("busy", 1)
        local.set("spec_ctrl", platform.msr_value(lp, SPEC_CTRL))
        wrmsr(platform, lp.id, SPEC_CTRL, 1)
        lp.program_state = At("dispatch")
        return Running("entered")

    def _dispatch(self, call: Call) -> StepOutcome:
        row = DISPATCH.decide(call)
        if row is not None:
            return finish(call, row.result.result(call))
        gap = UNMODELLED.get(call.leaf)
        if gap is not None:
            refused = first_operand(call, gap)
            if refused is None:
                raise NotModelled(f"{gap.name} (leaf {call.leaf})", "DISPATCH.leaf")
            return finish(call, refused)
        found = _leaf(call)
        for name in found.outputs:
            call.fixed[name] = call.reg(name)
        call.lp.program_state = At("checks")
        return Running(found.name)

    def _checks(self, call: Call, leaf: Leaf) -> StepOutcome:
        inputs = {name: call.reg(name) for name in (*leaf.outputs, *leaf.ones)}
        for name in leaf.outputs:
            call.out(**{name: 0})
        for name in leaf.ones:
            call.out(**{name: (1 << 64) - 1})
        call.fixed.update(inputs)
        for stage in leaf.stages:
            result = run_stage(stage, call)
            if result is not None:
                return finish(call, result)
        keep_inputs(call, leaf)
        call.lp.program_state = At("effect", 0, tuple(call.held))
        return Running(f"{leaf.name} checks passed")

    def _effect(self, call: Call, leaf: Leaf, index: int) -> StepOutcome:
        restore_inputs(call, leaf)
        outcome = leaf.effects[index](call)
        if isinstance(outcome, Guest):
            return outcome
        if outcome is not None:
            return finish(call, outcome)
        keep_inputs(call, leaf)
        call.lp.program_state = At("effect", index + 1, tuple(call.held))
        return Running(f"{leaf.name} effect {index + 1}")

    @implements("MODULE.leave", "guest RIP behind SEAMCALL, busy = 0, registers from the saved area, SEAMRET",
                "TDXM tdx_seamret_to_vmm.S")
    def _leave(self, call: Call) -> StepOutcome:
        """MODULE.leave."""
        platform, lp = call.platform, call.lp
        advance_rip(platform, lp)
        wrmsr(platform, lp.id, SPEC_CTRL, call.local.num("spec_ctrl"))
        call.local.set("busy", 0)
        for name, value in zip(GPRS, call.local.get("gprs"), strict=True):
            if name != "rsp":  # SEAMRET takes it from the transfer VMCS
                setattr(lp, name, value)
        return seamret(platform, lp.id)


def _leaf(call: Call) -> Leaf:
    return LEAVES[call.leaf]


@implements("MODULE.find_data", "first entry on a processor: local data from GS base, table from FS base, global data "
            "behind the N processor blocks", "TDXM tdx_vmm_dispatcher.c")
def find_data(platform: Platform, lp: Lp, linear: Linear, local: View) -> None:
    """MODULE.find_data: pointers computed once and cached in local data."""
    table = View(SYS_INFO_TABLE, linear, lp.fs_base)
    build = read_build(platform, linear.read, lp.rip)
    first = table.num("data_rgn_base") + handoff_bytes(table, build)
    size = (table.num("num_tls_pages") + 1) * PAGE
    local.set("lp_id", (lp.gs_base - first) // size & 0xFFFFFFFF)
    local.set("global", first + region_lps(table) * size)
    local.set("sysinfo", lp.fs_base)
    if local.num("global") + GLOBAL_DATA.size > table.num("data_rgn_base") + table.num("data_rgn_size") - PAGE:
        raise Ud2("the data region is too small for global data")


PROGRAM = register_program(TdxModule())

__all__ = ["DISPATCH", "PROGRAM", "UNMODELLED", "TdxModule", "metadata", "system", "td"]
