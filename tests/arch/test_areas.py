"""The guest-state and host-state areas: what SEAMCALL, SEAMRET, VM exit and VM entry carry, field by field."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref.arch import areas, lab
from seamref.arch.areas import CHECKS, GUEST, HOST
from seamref.arch.lp import ARITHMETIC, EFER_LMA, EFER_LME, Activity, Lp
from seamref.arch.memory import Agent
from seamref.arch.msr import MSRS, SEAMRR_MASK
from seamref.arch.outcome import (
    Entered,
    EntryFailed,
    ExitReason,
    Fault,
    Guest,
    Left,
    Target,
    Vector,
    VmExit,
    VmFailInvalid,
)
from seamref.arch.platform import Platform
from seamref.arch.revision import REVISIONS, SILICON, Revision, SeamretVmcs
from seamref.arch.seam import seamcall, seamret, tdcall
from seamref.arch.software import call
from seamref.arch.vmcs import BY_NAME, NONE, get, put
from seamref.arch.vmx import current, vmlaunch, vmptrld, vmread, vmresume, vmwrite

WORD = st.integers(0, (1 << 64) - 1)
CANONICAL = st.one_of(st.integers(0, (1 << 47) - 16), st.integers((1 << 64) - (1 << 47), (1 << 64) - 16))
PAT = st.lists(st.sampled_from((0, 1, 4, 5, 6, 7)), min_size=8, max_size=8).map(bytes).map(
    lambda types: int.from_bytes(types, "little")
)
OTHERS = ("rcx", "rdx", "rbx", "rbp", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)), "cr2", "cr8")
"""Registers that no area holds and no instruction of SEAM touches."""


def _values(row: areas.GuestRow) -> st.SearchStrategy[int]:
    """What a VMM can have in one field: its width, the values that the architecture allows, 64-bit mode at CPL 0."""
    match row.lp:
        case "rflags":
            return st.integers(0, (1 << 22) - 1).map(lambda bits: bits & ~0xC28028 | 2)  # and no VM in 64-bit mode
        case "efer":
            return st.sampled_from((0x500, 0x501, 0xD00, 0xD01))
        case "cs_ar":
            return st.sampled_from((0xA09B, 0xA09F, 0xA099))
        case "ss_ar":
            return st.sampled_from((0xC093, 0x1C093, 0x10000, 0x4093))
        case "cr3":
            return st.integers(0, (1 << 46) - 1)
        case "pending_debug":
            return st.just(0)  # would be taken before the instruction
    match row.check:
        case "canonical":
            return CANONICAL
        case "memory types":
            return PAT
        case "low 16 bits":
            return st.integers(0, (1 << 16) - 1)
        case "low 32 bits":
            return st.integers(0, (1 << 32) - 1)
    return st.integers(0, (1 << 8 * row.vmcs.size) - 1)


def _segment(context: dict[str, Any], name: str, ar: int) -> None:
    """A limit that the granularity can mean, in a segment with these access rights."""
    limit = context[f"{name}_limit"]
    context[f"{name}_limit"] = limit | 0xFFF if limit >> 20 else limit
    context[f"{name}_ar"] = ar | bool(limit >> 20) << 15 if not ar >> 16 & 1 else ar


def _possible(context: dict[str, Any]) -> dict[str, Any]:
    """The nearest state that a VMM at CPL 0 in 64-bit mode can have: what no instruction can load is taken out
    (SDM vol. 3C section 27.3.1, see :mod:`seamref.arch.entry_checks`)."""
    def pick(name: str, *choices: int) -> int:
        return choices[context[f"{name}_ar"] % len(choices)]

    context["cr0"] = context["cr0"] & 0xFFFFFFFF | 0x80010031
    context["cr4"] = context["cr4"] & 0x1FF6FFF | 0x2060
    context["debugctl"] &= 0xFFC7
    context["perf_global_ctrl"] &= 0x7000000FF
    context["bndcfgs"] = context["bndcfgs"] & 3 | context["rip"] & ~0xFFF
    context["s_cet"] = context["s_cet"] & 0x43F | context["rsp"] >> 17 & ~0xFFF
    context["uinv"] &= 0xFF
    context["ssp"] = context["rip"] & ~3
    for name in ("cs", "ss", "ds", "es"):
        context[f"{name}_base"] &= 0xFFFFFFFF
    context["ldtr_base"] = context["rip"]
    for name in ("cs", "ss"):
        context[f"{name}_selector"] &= 0xFFFC
        _segment(context, name, context[f"{name}_ar"] & ~0x8000)
    for name in ("ds", "es", "fs", "gs"):
        _segment(context, name, pick(name, 0x40F3, 0x40F1, 0x40F7, 0x00FB, 0x10000, 0x100F3))
    context["tr_selector"] &= 0xFFFB
    _segment(context, "tr", 0x8B)
    ldt = pick("ldtr", 0x82, 0x10000, 0x10082)
    context["ldtr_selector"] &= 0xFFFB if ldt == 0x82 else 0xFFFF
    _segment(context, "ldtr", ldt)
    if context["sti_blocking"]:  # without IF there is none, and a step in its shadow is software's to make due
        context["rflags"] = context["rflags"] & ~0x100 | 0x200
    return context


CONTEXT = st.fixed_dictionaries({
    **{row.lp: _values(row) for row in GUEST}, **{name: WORD for name in OTHERS}, "sti_blocking": st.booleans(),
}).map(_possible)
REVISION = st.builds(
    lambda base, leaks, clears: replace(base, mutex_released=not leaks, seamret_clears_transfer=clears),
    st.sampled_from(list(REVISIONS.values())), st.booleans(), st.booleans(),
)


def put_context(lp: Lp, context: Mapping[str, Any]) -> None:
    for name, value in context.items():
        setattr(lp, name, value)


def context_of(lp: Lp) -> dict[str, Any]:
    """Everything of a processor, by name."""
    return {name: getattr(lp, name) for name in Lp.__slots__ if not name.startswith("_") and name != "vmcs_cache"}


@given(CONTEXT, REVISION, st.sampled_from(Target), st.booleans(), st.booleans())
def test_SEAMCALL_SEAMRET__the_vmm_has_everything_again_but_what_the_clauses_name(
    context: dict[str, Any], revision: Revision, target: Target, keeps: bool, smi_inhibited: bool
) -> None:
    """SEAMRET.leave: RIP and STI blocking are moved by software, RAX is its answer, RFLAGS' arithmetic bits are 0,
    the current VMCS is lost behind a call of P-SEAMLDR on a part that does so."""
    platform = lab.platform(revision=revision, keeps_vmcs=keeps)
    lp = platform.lp(0)
    put_context(lp, context)
    lp.smi_inhibit = smi_inhibited
    before = context_of(lp)
    vmm = lp.current_vmcs
    number = target is Target.P_SEAMLDR
    lost = number and not keeps and revision.seamret_vmcs is SeamretVmcs.CLEARS
    assert call(platform, 0, rax=number << 63) == Left(target, lost, "SEAMRET.leave")
    expected = {
        **before, "rax": 0, "rip": before["rip"] + 4, "rflags": before["rflags"] & ~ARITHMETIC, "sti_blocking": False,
        "current_vmcs": NONE if lost else vmm, "ibrs_barriers": before["ibrs_barriers"] + 1,
    }
    assert context_of(platform.lp(0)) == expected


@given(CONTEXT, REVISION, st.sampled_from(Target), st.data())
def test_SEAMCALL__a_failed_one_changes_nothing_but_rflags(
    context: dict[str, Any], revision: Revision, target: Target, data: st.DataObject
) -> None:
    """Each way to fail outside VMX non-root operation, over random contexts."""
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    way = data.draw(st.sampled_from(("mov_ss", "user", "not loaded", "busy", "not 64-bit", "SMM", "no SEAM", "VMX off",
                                     "SEAMRR off", "SEAM root")))
    if way == "SEAM root":
        assert isinstance(seamcall(platform, 0), Entered)
        lp = platform.lp(0)
    put_context(lp, context)
    lp.rax = (target is Target.P_SEAMLDR or way == "busy") << 63
    match way:
        case "mov_ss":
            lp.mov_ss_blocking = True
        case "user":
            lp.cpl = 3
        case "not loaded":
            lab.set_ready(platform, seam=False, p_seamldr=False)
        case "busy":
            platform.P_SEAMLDR_MUTEX = 1
        case "not 64-bit":
            lp.cs_l = False
        case "SMM":
            lp.in_smm = True
        case "no SEAM":
            platform.config = replace(platform.config, has_SEAM=False)
        case "VMX off":
            lp.vmx_on = False
        case "SEAMRR off":
            platform.set_msr(lp, SEAMRR_MASK, platform.msr_value(lp, SEAMRR_MASK) & ~SEAMRR_VALID)
    before, fork = context_of(lp), platform.fork()
    outcome = seamcall(platform, 0)
    after = context_of(platform.lp(0))
    if way in ("not loaded", "busy"):
        assert isinstance(outcome, VmFailInvalid)
        assert after == {**before, "rflags": before["rflags"] & ~ARITHMETIC | 1}
    else:
        assert isinstance(outcome, Fault)
        assert after == before
        assert platform.fingerprint() == fork.fingerprint()


TD_VMCS = lab.SEAMRR.base + 0x100000
SEAMRR_VALID = MSRS[SEAMRR_MASK].bit("valid").mask


def _monitor(td: bool, revision: Revision = SILICON) -> Platform:
    """Processor 0 in VMX root operation, or in SEAM root, with a VMCS that a guest can be entered through."""
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    if td:
        region = bytearray(lab.vmm_vmcs(platform, lp))
        put(region, "proc_based", get(region, "proc_based") | 1 << 31)
        put(region, "secondary_proc_based", 2)
        platform.store(Agent.CPU, TD_VMCS, region)
        assert isinstance(seamcall(platform, 0), Entered)
        vmptrld(platform, 0, TD_VMCS)
    return platform


@given(CONTEXT, REVISION, st.booleans(), st.sampled_from(Target), st.sampled_from((0, 3)))
def test_SEAMCALL_non_root__a_guest_that_tries_it_has_everything_again(
    context: dict[str, Any], revision: Revision, td: bool, target: Target, cpl: int
) -> None:
    """In a legacy guest and in a TD: a fault that changes nothing, or an exit behind which the guest goes on."""
    platform = _monitor(td, revision)
    assert vmlaunch(platform, 0) == Guest("VMLAUNCH.host")
    lp = platform.lp(0)
    put_context(lp, context)
    lp.rax, lp.cpl = (target is Target.P_SEAMLDR) << 63, cpl
    if cpl:
        lp.ss_ar, lp.cs_ar = lp.ss_ar | cpl << 5, lp.cs_ar | cpl << 5
        lp.ss_selector, lp.cs_selector = lp.ss_selector | cpl, lp.cs_selector | cpl
    before = context_of(lp)
    outcome = seamcall(platform, 0)
    if isinstance(outcome, VmExit):
        assert outcome.reason == ExitReason.SEAMCALL and not platform.lp(0).non_root
        assert not cpl or not revision.cpl_before_exit
        assert vmresume(platform, 0) == Guest("VMRESUME.host")
    else:
        assert isinstance(outcome, Fault)
        assert outcome.vector is (Vector.UD if td and not revision.inSEAM_means_root else Vector.GP)
    assert context_of(platform.lp(0)) == before


@given(CONTEXT, REVISION, st.booleans())
def test_VMX_exit__a_guest_goes_on_with_everything_that_it_had(context: dict[str, Any], revision: Revision,
                                                             td: bool) -> None:
    """VMX.exit and VMX.entry: RIP is not moved by hardware; for a TD (TDCALL in SEAM) and for a legacy guest."""
    platform = _monitor(td, revision)
    assert vmlaunch(platform, 0) == Guest("VMLAUNCH.host")
    lp = platform.lp(0)
    put_context(lp, context)
    before = context_of(lp)
    assert isinstance(tdcall(platform, 0), VmExit)
    assert platform.lp(0).is_SEAM_root() is td and not platform.lp(0).non_root
    assert vmresume(platform, 0) == Guest("VMRESUME.host")
    assert context_of(platform.lp(0)) == before


@given(CONTEXT, st.booleans(), st.sampled_from(Target))
def test_VMX_exit__host_state_is_what_the_table_says(context: dict[str, Any], exits: bool, target: Target) -> None:
    """Sections 28.5.1 to 28.5.6, whatever ran before: seen by a monitor behind an exit, and inside SEAM."""
    platform = _monitor(False)
    if exits:
        vmlaunch(platform, 0)
    lp = platform.lp(0)
    put_context(lp, context)
    lp.rax = (target is Target.P_SEAMLDR) << 63
    lp.activity, lp.monitor_armed = Activity.ACTIVE, True
    kept = {name: getattr(lp, name) for name in ("pkrs", "uinv", "bndcfgs")}
    assert isinstance(tdcall(platform, 0) if exits else seamcall(platform, 0), VmExit if exits else Entered)
    lp = platform.lp(0)
    data = current(lp).data
    controls = get(data, "exit_ctls")
    for row in HOST:
        if row.load is None or controls >> row.load & 1:
            assert getattr(lp, row.lp) == (get(data, row.field) if row.field else row.value), row
    assert {name: getattr(lp, name) for name in kept} == kept  # the loaders' controls neither load nor clear them
    assert (lp.cs_ar, lp.ss_ar, lp.fs_ar, lp.gs_ar) == (0xA09B, 0xC093, 0xC093, 0xC093)
    assert (lp.ds_ar, lp.es_ar, lp.ldtr_ar, lp.tr_ar, lp.tr_limit) == (0x10000, 0x10000, 0x10000, 0x8B, 0x67)
    assert (lp.gdtr_limit, lp.idtr_limit, lp.cpl, lp.cs_l) == (0xFFFF, 0xFFFF, 0, True)
    assert lp.cr0 & areas.CR0_KEPT == context["cr0"] & areas.CR0_KEPT
    assert lp.cr0 & ~areas.CR0_KEPT == get(data, "host_cr0") & ~areas.CR0_KEPT


@given(CONTEXT, CONTEXT, st.integers(0, (1 << 31) - 1), st.integers(0, (1 << 23) - 1))
def test_VMX_entry__controls_choose_what_is_saved_and_loaded(
    inside: dict[str, Any], outside: dict[str, Any], exit_ctls: int, entry_ctls: int
) -> None:
    """Row by row: with any controls, saved or not, loaded or not, as the row's control says."""
    lp = lab.platform().lp(0)
    data = bytearray(lab.vmm_vmcs(lab.platform(), lp))
    put(data, "exit_ctls", exit_ctls)
    put(data, "entry_ctls", entry_ctls)
    preset = bytes(data)
    put_context(lp, inside)
    areas.save_guest(lp, data)
    for row in GUEST:
        saved = row.save is None or exit_ctls >> row.save & 1
        assert get(data, row.field) == (inside[row.lp] if saved else get(preset, row.field)), row
    put_context(lp, outside)
    areas.load_guest(lp, data)
    for row in GUEST:
        if row.load is None or entry_ctls >> row.load & 1:
            if row.lp != "cr0":
                assert getattr(lp, row.lp) == get(data, row.field), row
        elif row.lp == "efer":
            long_mode = EFER_LMA | EFER_LME
            assert lp.efer & long_mode == (long_mode if entry_ctls >> areas.IA32E_GUEST & 1 else 0)
        else:
            assert getattr(lp, row.lp) == outside[row.lp], row
    kept = areas.CR0_KEPT
    assert lp.cr0 == get(data, "guest_cr0") & ~kept | outside["cr0"] & kept


def test_VMX_exit__an_event_keeps_pending_debug_exceptions_and_the_activity_state() -> None:
    """Sections 25.4.2 and 28.3.4: an instruction's exit saves them as clear; an idle guest stays idle."""
    from seamref.arch.events import EventKind, raise_event

    platform = _monitor(False)
    vmlaunch(platform, 0)
    lp = platform.lp(0)
    lp.pending_debug, lp.activity, lp.rflags = 1 << 14, Activity.HLT, 0x102  # a step that is due
    assert isinstance(raise_event(platform, 0, EventKind.INTR), VmExit)
    assert (vmread(platform, 0, 0x6822), vmread(platform, 0, 0x4826)) == (1 << 14, 1)
    assert (platform.lp(0).pending_debug, platform.lp(0).activity) == (0, Activity.ACTIVE)
    assert vmresume(platform, 0) == Guest("VMRESUME.host")
    assert (platform.lp(0).pending_debug, platform.lp(0).activity) == (1 << 14, Activity.HLT)
    platform.lp(0).activity = Activity.ACTIVE
    tdcall(platform, 0)
    assert vmread(platform, 0, 0x6822) == 0


BAD = {"canonical": 1 << 47, "low 16 bits": 1 << 16, "low 32 bits": 1 << 32, "memory types": 2, "rflags": 0,
       "selector": 4}


@pytest.mark.parametrize("row", [row for row in GUEST if row.check], ids=lambda row: row.field)
def test_SEAMRET_guest__each_demanded_field_refuses(row: areas.GuestRow) -> None:
    platform = lab.platform()
    seamcall(platform, 0)
    put(current(platform.lp(0)).data, row.field, BAD[row.check])
    assert isinstance(seamret(platform, 0), EntryFailed)


@pytest.mark.parametrize("row", [row for row in HOST if row.check], ids=lambda row: row.field)
def test_SEAMRET_host__each_demanded_field_refuses(row: areas.HostRow) -> None:
    platform = lab.platform()
    seamcall(platform, 0)
    put(current(platform.lp(0)).data, row.field, BAD[row.check])
    assert seamret(platform, 0).clause == "SEAMRET.host"


def test_VMX_vmcs_fields__every_row_has_a_field_with_an_encoding_of_its_area() -> None:
    """SDM vol. 3D appendix B: encoding bits 11:10 are 2 for guest state and 3 for host state."""
    for row in GUEST:
        assert BY_NAME[row.field].encoding >> 10 & 3 == 2, row
        assert row.check in (*CHECKS, "")
    for host in HOST:
        assert not host.field or BY_NAME[host.field].encoding >> 10 & 3 == 3, host
    names = [row.lp for row in GUEST]
    assert len(names) == len(set(names)) == 59 and set(names) <= set(Lp.__slots__)
    assert vmwrite(lab.platform(), 0, 0x0804, 0x18).clause == "VMWRITE.effect"
