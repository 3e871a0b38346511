"""What VM entry demands of guest state and host state: every row from a sound VMCS, changed in what the row names."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref.arch import lab
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
)
from seamref.arch.entry_checks import GUEST_STATE, HOST_STATE, Entry, entry_of, refuses
from seamref.arch.outcome import Entered, EntryFailed, ExitReason, Guest, Left, Target, VmFailValid, VmxError
from seamref.arch.seam import seamcall, seamret
from seamref.arch.vmcs import BY_NAME, get, put
from seamref.arch.vmx import current, vmlaunch
from seamref.spec import CheckTable

Changes = Mapping[str, int]
SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
ENTRY_LOADS = sum(1 << bit for bit in (ENTRY_DEBUG, ENTRY_PERF, ENTRY_EFER, ENTRY_BNDCFGS, ENTRY_UINV, ENTRY_CET))
LONG: Changes = {"entry_ctls": ENTRY_LOADS | 1 << IA32E_GUEST}
"""A 64-bit VMM, all of whose state an entry loads."""
LEGACY: Changes = {"entry_ctls": ENTRY_LOADS, "guest_ia32_efer": 0, "guest_cs_ar": 0xC09B, "guest_rip": 0x1000}
"""32-bit protected mode."""
V86: Changes = {
    **LEGACY, "guest_rflags": 2 | 1 << 17, **{f"guest_{name}_ar": 0xF3 for name in SEGMENTS},
    **{f"guest_{name}_limit": 0xFFFF for name in SEGMENTS}, **{f"guest_{name}_selector": 0x123 for name in SEGMENTS},
    **{f"guest_{name}_base": 0x1230 for name in SEGMENTS},
}
"""Virtual-8086 mode."""
UNRESTRICTED: Changes = {"proc_based": 1 << 31, "secondary_proc_based": 1 << 7}
REAL: Changes = {
    **LEGACY, **UNRESTRICTED, "guest_cr0": 0x30, "guest_cs_ar": 0x93, "guest_cs_limit": 0xFFFF, "guest_rip": 0xFFF0,
}
"""Real-address mode, which only an unrestricted guest can be in."""
HOST_32: Changes = {"entry_ctls": ENTRY_LOADS, "guest_ia32_efer": 0, "exit_ctls": 0, "host_cs_selector": 8}
SOUND: dict[str, Changes] = {
    "long": LONG, "legacy": LEGACY, "v86": V86, "real": REAL,
    "long, LDT": {**LONG, "guest_ldtr_ar": 0x82, "guest_ldtr_selector": 0x50, "guest_ldtr_limit": 0xFFFF},
    "user": {**LONG, "guest_cs_ar": 0xA0FB, "guest_cs_selector": 0x33, "guest_ss_ar": 0xC0F3,
             "guest_ss_selector": 0x2B},
    "conforming": {**LONG, "guest_cs_ar": 0xA09F}, "expand-down": {**LEGACY, "guest_ss_ar": 0xC097},
    "16-bit TSS": {**LEGACY, "guest_tr_ar": 0x83}, "null SS": {**LONG, "guest_ss_ar": 0x10000, "guest_ss_selector": 0},
    "code in DS": {**LONG, "guest_ds_ar": 0xC09B}, "small segment": {**LONG, "guest_fs_ar": 0x93, "guest_fs_limit": 5},
    "halted": {**LONG, "guest_activity_state": 1}, "STI": {**LONG, "guest_interruptibility": 1, "guest_rflags": 0x202},
    "MOV-SS": {**LONG, "guest_interruptibility": 2},
    "step due": {**LONG, "guest_interruptibility": 2, "guest_rflags": 0x102, "guest_pending_debug": 1 << 14},
    "branch step": {**LONG, "guest_interruptibility": 2, "guest_rflags": 0x102, "guest_debugctl": 2},
    "CET": {**LONG, "guest_cr4": 0x802060, "guest_ia32_s_cet": 0x15, "guest_ssp": 0xFFFF888800001008},
    "not loaded": {"entry_ctls": 1 << IA32E_GUEST, "guest_ia32_efer": 0xFF0000, "guest_debugctl": 8, "guest_uinv": 256,
                   "guest_bndcfgs": 4, "guest_ia32_s_cet": 64, "guest_ssp": 1, "guest_perf_global_ctrl": 1 << 60},
}
"""Entries that no row of the guest-state area stops."""

_AR = {"data_type": 0xC090, "s": 0xC083, "p": 0xC013, "ar_reserved": 0xC193}
GUEST: dict[str, tuple[Changes, ...]] = {
    "field": ({**LONG, "guest_rflags": 0},),
    "cr0": ({**LONG, "guest_cr0": 0x80010011}, {**LONG, "guest_cr0": 1 << 32 | 0x80010031},
            {**LEGACY, "guest_cr0": 0x30}),
    "cr0_pg": ({**REAL, "guest_cr0": 0x80000030},),
    "cr4": ({**LONG, "guest_cr4": 0x60}, {**LONG, "guest_cr4": 0x2060 | 1 << 32}),
    "cet_wp": ({**LONG, "guest_cr4": 0x802060, "guest_cr0": 0x80000031},),
    "debugctl": ({**LONG, "guest_debugctl": 8}, {**LONG, "guest_debugctl": 1 << 16}),
    "ia32e": ({**LONG, "guest_cr4": 0x2000}, {**LONG, **UNRESTRICTED, "guest_cr0": 0x10031}),
    "pcide": ({**LEGACY, "guest_cr4": 0x22060},),
    "cr3": ({**LONG, "guest_cr3": 1 << 52},),
    "perf": ({**LONG, "guest_perf_global_ctrl": 1 << 8}, {**LONG, "guest_perf_global_ctrl": 1 << 35}),
    "efer": ({**LONG, "guest_ia32_efer": 0x502}, {**LONG, "guest_ia32_efer": 0x500 | 1 << 63}),
    "efer_lma": ({**LONG, "guest_ia32_efer": 0x100}, {**LEGACY, "guest_ia32_efer": 0x500}),
    "efer_lme": ({**LONG, "guest_ia32_efer": 0x400}, {**LEGACY, "guest_ia32_efer": 0x100}),
    "bndcfgs": ({**LONG, "guest_bndcfgs": 4}, {**LONG, "guest_bndcfgs": 1 << 60}),
    "uinv": ({**LONG, "guest_uinv": 0x100},),
    "s_cet": ({**LONG, "guest_ia32_s_cet": 1 << 6}, {**LONG, "guest_ia32_s_cet": 3 << 10},
              {**LONG, "guest_ia32_s_cet": 1 << 60}),
    "ti": ({**LONG, "guest_tr_selector": 0x44}, {**LONG, "guest_ldtr_ar": 0x82, "guest_ldtr_selector": 4}),
    "ss_rpl": ({**LONG, "guest_ss_selector": 0x1B},),
    "v86_base": ({**V86, "guest_gs_base": 0x1234},),
    "ldtr_base": ({**LONG, "guest_ldtr_ar": 0x82, "guest_ldtr_base": 1 << 60},),
    "base_high": tuple({**LONG, f"guest_{name}_base": 1 << 32} for name in ("cs", "ss", "ds", "es")),
    "v86_limit": ({**V86, "guest_cs_limit": 0xFFFE},),
    "v86_ar": ({**V86, "guest_ss_ar": 0x93},),
    "cs_type": ({**LONG, "guest_cs_ar": 0xA09A}, {**LONG, "guest_cs_ar": 0xC093}),
    "ss_type": ({**LONG, "guest_ss_ar": 0xC091}, {**LONG, "guest_ss_ar": 0xC09B}),
    "data_type": ({**LONG, "guest_fs_ar": 0xC092}, {**LONG, "guest_ds_ar": 0xC099}),
    "s": ({**LONG, "guest_cs_ar": 0xA08B}, {**LONG, "guest_es_ar": 0xC083}),
    "cs_dpl": ({**LONG, "guest_cs_ar": 0xA0FB}, {**LONG, "guest_cs_ar": 0xA0FF}, {**REAL, "guest_cs_ar": 0xF3}),
    "ss_dpl": ({**LONG, "guest_cs_ar": 0xA0FB, "guest_ss_ar": 0xC0F3},
               {**REAL, "guest_ss_ar": 0xC0F3}),
    "data_dpl": ({**LONG, "guest_ds_selector": 0x1B},),
    "p": ({**LONG, "guest_cs_ar": 0xA01B}, {**LONG, "guest_gs_ar": 0xC013}),
    "ar_reserved": ({**LONG, "guest_cs_ar": 0xA19B}, {**LONG, "guest_ds_ar": 0x2C093}),
    "cs_db": ({**LONG, "guest_cs_ar": 0xE09B},),
    "g": ({**LONG, "guest_cs_ar": 0x209B}, {**LONG, "guest_ds_limit": 0xFFFFFFFE}),
    "tr_usable": ({**LONG, "guest_tr_ar": 0x1008B},),
    "tr_type": ({**LONG, "guest_tr_ar": 0x83}, {**LEGACY, "guest_tr_ar": 0x89}),
    "tr_ar": ({**LONG, "guest_tr_ar": 0x9B}, {**LONG, "guest_tr_ar": 0x0B}, {**LONG, "guest_tr_ar": 0x18B}),
    "tr_g": ({**LONG, "guest_tr_ar": 0x808B},),
    "ldtr_ar": ({**LONG, "guest_ldtr_ar": 0x83}, {**LONG, "guest_ldtr_ar": 0x92}, {**LONG, "guest_ldtr_ar": 0x02}),
    "ldtr_g": ({**LONG, "guest_ldtr_ar": 0x82, "guest_ldtr_limit": 0x100000},),
    "rip": ({**LEGACY, "guest_rip": 1 << 32}, {**LONG, "guest_cs_ar": 0xC09B}),
    "vm": ({**V86, "entry_ctls": ENTRY_LOADS & ~(1 << ENTRY_EFER) | 1 << IA32E_GUEST},
           {**V86, **UNRESTRICTED, "guest_cr0": 0x30}),
    "ssp": ({**LONG, "guest_ssp": 2}, {**LONG, "guest_ssp": 1 << 60}, {**LEGACY, "guest_ssp": 1 << 32}),
    "activity": ({**LONG, "guest_activity_state": 4},),
    "hlt": ({**SOUND["user"], "guest_activity_state": 1},),
    "idle_blocked": ({**LONG, "guest_activity_state": 2, "guest_interruptibility": 2},),
    "interruptibility": ({**LONG, "guest_interruptibility": 1 << 5},),
    "both": ({**LONG, "guest_interruptibility": 3, "guest_rflags": 0x202},),
    "sti": ({**LONG, "guest_interruptibility": 1},),
    "pending": ({**LONG, "guest_pending_debug": 1 << 4}, {**LONG, "guest_pending_debug": 1 << 17}),
    "pending_bs": ({**LONG, "guest_interruptibility": 2, "guest_pending_debug": 1 << 14},
                   {**LONG, "guest_activity_state": 1, "guest_rflags": 0x102}),
}
"""Row -> VMCSs that it is the first to stop."""

HOST: dict[str, tuple[Changes, ...]] = {
    "field": ({"host_cs_selector": 0xB},),
    "cr0": ({"host_cr0": 0x80010011},),
    "cr4": ({"host_cr4": 0xB506A8}, {"host_cr4": 0xB526A8 | 1 << 32}),
    "cet_wp": ({"host_cr0": 0x80000031},),
    "cr3": ({"host_cr3": 1 << 52},),
    "perf": ({"exit_ctls": 1 << LOAD_PERF | 1 << HOST_64, "host_perf_global_ctrl": 1 << 8},),
    "efer": ({"host_ia32_efer": 0xD02}, {"host_ia32_efer": 0x900}, {"host_ia32_efer": 0xC00},
             {"exit_ctls": 1 << LOAD_EFER}),
    "s_cet": ({"host_ia32_s_cet": 1 << 6},),
    "ssp": ({"host_ssp": 2}, {"host_ssp": 1 << 60}),
    "null": ({"host_cs_selector": 0}, {"host_tr_selector": 0}, {"exit_ctls": 0, "host_ss_selector": 0}),
    "size": ({"exit_ctls": 0},),
    "guest_size": (),
    "pae": ({"host_cr4": 0xB52688},),
}


def entry(changes: Changes, *, long_mode: bool = True) -> Entry:
    """The transfer VMCS of processor 0 behind a SEAMCALL, changed."""
    platform = lab.platform()
    assert isinstance(seamcall(platform, 0), Entered)
    data = bytearray(current(platform.lp(0)).data)
    for name, value in changes.items():
        assert value >> 8 * BY_NAME[name].size == 0
        put(data, name, value)
    return entry_of(platform, platform.lp(0), data)._replace(long_mode=long_mode)


def first(table: CheckTable[Entry, None], judged: Entry) -> str | None:
    row = table.decide(judged)
    return None if row is None else row.id


@pytest.mark.parametrize("name", SOUND)
def test_ENTRY_guest__a_sound_state_is_entered(name: str) -> None:
    assert [row.id for row in GUEST_STATE.all_stopping(entry(SOUND[name]))] == []


@pytest.mark.parametrize("name", GUEST)
def test_ENTRY_guest__each_row_stops_what_it_names(name: str) -> None:
    for changes in GUEST[name]:
        judged = entry(changes)
        assert first(GUEST_STATE, judged) == f"ENTRY.guest.{name}", changes
        found = refuses(GUEST_STATE, judged)
        assert found is not None and found.id == f"ENTRY.guest.{name}"


@pytest.mark.parametrize("name", HOST)
def test_ENTRY_host__each_row_stops_what_it_names(name: str) -> None:
    assert first(HOST_STATE, entry({})) is None
    for changes in HOST[name]:
        assert first(HOST_STATE, entry(changes)) == f"ENTRY.host.{name}", changes


@given(st.lists(st.tuples(
    st.sampled_from(sorted(SOUND)), st.one_of(st.integers(0, 2**64 - 1), st.sampled_from((0, 2**32 - 1, 2**32, 2**47))),
), min_size=2, max_size=6))
def test_ENTRY__what_was_found_sound_is_remembered_for_what_the_rows_ask(asked: list[tuple[str, int]]) -> None:
    """Another RIP may be another answer, and is none where the rows say the same."""
    for name, rip in asked:
        judged = entry({**SOUND[name], "guest_rip": rip})
        for table in (HOST_STATE, GUEST_STATE):
            assert refuses(table, judged) is table.decide(judged)


def test_ENTRY_host__a_32_bit_host_cannot_have_a_64_bit_guest() -> None:
    """ENTRY.host.guest_size, and both sides of ENTRY.host.size and ENTRY.host.null."""
    assert first(HOST_STATE, entry(HOST_32, long_mode=False)) is None
    wide = {**HOST_32, "entry_ctls": 1 << IA32E_GUEST}
    assert first(HOST_STATE, entry(wide, long_mode=False)) == "ENTRY.host.guest_size"
    assert first(HOST_STATE, entry({}, long_mode=False)) == "ENTRY.host.size"
    assert first(HOST_STATE, entry({"host_ss_selector": 0})) is None
    assert first(HOST_STATE, entry({"exit_ctls": 1 << HOST_64, "host_ia32_s_cet": 64, "host_ssp": 1})) is None
    assert first(HOST_STATE, entry({"exit_ctls": 1 << LOAD_CET | 1 << HOST_64, "host_ssp": 1})) == "ENTRY.host.ssp"


def test_ENTRY__tables_and_tests_name_the_same_rows() -> None:
    assert [row.id for row in GUEST_STATE] == [f"ENTRY.guest.{name}" for name in GUEST]
    assert [row.id for row in HOST_STATE] == [f"ENTRY.host.{name}" for name in HOST]


def test_SEAMRET_guest__a_state_that_cannot_be_is_entry_failure_33() -> None:
    """SEAMRET.guest: a module that spoils the VMM's SS stays in SEAM, at its own host RIP."""
    platform = lab.platform()
    seamcall(platform, 0)
    data = current(platform.lp(0)).data
    put(data, "guest_ss_ar", get(data, "guest_ss_ar") | 3 << 5)
    assert seamret(platform, 0) == EntryFailed(ExitReason.ENTRY_FAILURE_GUEST_STATE, "SEAMRET.guest")
    assert platform.lp(0).inSEAM and platform.lp(0).rip == get(data, "host_rip")


def test_SEAMRET_host__a_host_area_that_cannot_be_is_error_8_and_SEAMCALL_asks_for_nothing() -> None:
    """SEAMCALL is an exit: it loads what the transfer VMCS says; the SEAMRET behind it judges it."""
    platform = lab.platform()
    region = lab.SEAMRR.base + 0x1000
    data = bytearray(platform.bytes_at(lab.Agent.CPU, region, 4096))
    put(data, "host_ia32_efer", 0x900)
    platform.store(lab.Agent.CPU, region, data)
    assert isinstance(seamcall(platform, 0), Entered)
    platform.lp(0).efer = 0xD00
    assert seamret(platform, 0) == VmFailValid(VmxError.ENTRY_INVALID_HOST_STATE, "SEAMRET.host")


def test_VMX_entry__a_guest_is_judged_as_a_VMM_is() -> None:
    """VMX.entry: the same rows for VMLAUNCH, before and behind a change of one field."""
    platform = lab.platform()
    data = current(platform.lp(0)).data
    put(data, "guest_tr_ar", 0x10000)
    assert isinstance(vmlaunch(platform, 0), EntryFailed)
    platform = lab.platform()
    assert vmlaunch(platform, 0) == Guest("VMLAUNCH.host")


def test_SEAMRET_leave__a_32_bit_context_cannot_have_made_the_call() -> None:
    """ENTRY.guest.efer_lma: "IA-32e mode guest" is what SEAMCALL saved, so a changed EFER does not fit it."""
    platform = lab.platform()
    seamcall(platform, 0)
    put(current(platform.lp(0)).data, "guest_ia32_efer", 0)
    assert isinstance(seamret(platform, 0), EntryFailed)
    platform = lab.platform()
    seamcall(platform, 0)
    assert seamret(platform, 0) == Left(Target.MODULE, False, "SEAMRET.leave")
