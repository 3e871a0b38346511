"""SEAMCALL, SEAMRET, TDCALL: every row, both ways, in every revision that has it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref.arch import lab, software
from seamref.arch.exhaustive import (
    BITS,
    INPUTS,
    STATES,
    answer,
    differences,
    export,
    facts_of,
    is_reachable,
    put_state,
    seamcall_table,
    state_of,
)
from seamref.arch.lp import ARITHMETIC, CF, Mode
from seamref.arch.msr import SEAMRR_BASE, SEAMRR_MASK
from seamref.arch.outcome import Entered, ExitReason, Fault, Left, Target, Vector, VmExit, VmFailInvalid, VmFailValid
from seamref.arch.platform import Platform, Topology
from seamref.arch.revision import (
    REV_343754_001,
    REV_343754_002,
    REVISIONS,
    SDM,
    SILICON,
    Revision,
    get_revision,
)
from seamref.arch.seam import SEAMCALL, SEAMRET, TDCALL, SeamcallState, seamcall, seamret, tdcall
from seamref.arch.trace import InstructionEnded, ModeChanged, MutexChanged, VmcsFlushed
from seamref.arch.vmcs import NON_CANONICAL_RIP, NONE, get, put
from seamref.arch.vmx import current, vmlaunch, vmptrld, vmresume
from seamref.errors import SeamrefError

P = 1 << 63
READY = {"vmx": True, "b64": True, "seamrr": True, "seam_ready": True, "p_ready": True}

# facts that differ from READY, and the row that then decides, per revision family
ROWS = [
    ({}, "SEAMCALL.enter", "entered TDX module", (SILICON, REV_343754_002)),
    ({"rax63": True}, "SEAMCALL.enter", "entered P-SEAMLDR", (SILICON, REV_343754_002)),
    ({"vmx": False}, "SEAMCALL.vmx", "#UD", (SILICON, REV_343754_002)),
    ({"smm": True}, "SEAMCALL.smm", "#UD", (SILICON, REV_343754_002)),
    ({"inSEAM": True}, "SEAMCALL.inSEAM_root", "#UD", (SILICON,)),
    ({"inSEAM": True}, "SEAMCALL.inSEAM", "#UD", (REV_343754_002,)),
    ({"inSEAM": True, "non_root": True}, "SEAMCALL.non_root", "VM exit 76", (SILICON,)),
    ({"inSEAM": True, "non_root": True}, "SEAMCALL.inSEAM", "#UD", (REV_343754_002,)),
    ({"b64": False}, "SEAMCALL.64bit", "#UD", (SILICON, REV_343754_002)),
    ({"user": True}, "SEAMCALL.cpl", "#GP(0)", (SILICON,)),
    ({"user": True}, "SEAMCALL.cpl_late", "#GP(0)", (REV_343754_002,)),
    ({"user": True, "non_root": True}, "SEAMCALL.cpl", "#GP(0)", (SILICON, SDM)),
    ({"user": True, "non_root": True}, "SEAMCALL.non_root", "VM exit 76", (REV_343754_002, REV_343754_001)),
    ({"non_root": True, "seamrr": False}, "SEAMCALL.non_root", "VM exit 76", (SILICON, REV_343754_002)),
    ({"seamrr": False}, "SEAMCALL.seamrr", "#GP(0)", (SILICON, REV_343754_002)),
    ({"mov_ss": True}, "SEAMCALL.mov_ss", "#GP(0)", (SILICON, REV_343754_002)),
    ({"seam_ready": False}, "SEAMCALL.module_not_ready", "VMfailInvalid", (SILICON, REV_343754_002)),
    ({"rax63": True, "mutex": True}, "SEAMCALL.p_seamldr_busy", "VMfailInvalid", (SILICON, REV_343754_002)),
    ({"rax63": True, "mutex": True, "p_ready": False}, "SEAMCALL.p_seamldr_busy", "VMfailInvalid", (SILICON,)),
    ({"rax63": True, "p_ready": False}, "SEAMCALL.p_seamldr_not_ready", "VMfailInvalid", (SILICON, REV_343754_002)),
    ({"mutex": True}, "SEAMCALL.enter", "entered TDX module", (SILICON,)),
    ({"p_ready": False}, "SEAMCALL.enter", "entered TDX module", (SILICON,)),
    ({"rax63": True, "seam_ready": False}, "SEAMCALL.enter", "entered P-SEAMLDR", (SILICON,)),
]


@pytest.mark.parametrize(("facts", "clause", "outcome", "revisions"), ROWS)
def test_SEAMCALL__each_row_decides_where_it_is_first(
    facts: dict[str, bool], clause: str, outcome: str, revisions: tuple[Revision, ...]
) -> None:
    for revision in revisions:
        given_answer = answer(lab.platform(revision=revision), state_of(**{**READY, **facts}))
        assert (given_answer.clause, given_answer.outcome) == (clause, outcome), revision.name


def test_SEAMCALL_no_SEAM__a_processor_without_SEAM() -> None:
    platform = lab.platform()
    platform.config = replace(platform.config, has_SEAM=False)
    assert seamcall(platform, 0) == Fault(Vector.UD, None, "SEAMCALL.no_SEAM")


NEEDS_ALL = replace(SILICON, name="needs all", seamrr_needs_all=True)


@pytest.mark.parametrize(("revision", "mask", "base", "passes"), [
    *((SILICON, mask, base, bool(mask & 0x800)) for mask in (0, 0x400, 0x800, 0xC00, 0x7FF) for base in (0, 8)),
    *((NEEDS_ALL, mask, base, mask & 0xC00 == 0xC00 and bool(base & 8))
      for mask in (0, 0x400, 0x800, 0xC00, 0xFFF, 0x3FF) for base in (0, 8, 7, 15)),
    *((revision, None, 8, False) for revision in (SILICON, NEEDS_ALL)),
    (NEEDS_ALL, 0xC00, None, False),
])
def test_SEAMCALL_seamrr__VALID_alone_or_by_revision_CONFIGURED_and_LOCK_too(
    revision: Revision, mask: int | None, base: int | None, passes: bool
) -> None:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    for address, field, bits in ((SEAMRR_MASK, 0xFFFFFC000000, mask), (SEAMRR_BASE, 0x7C000000, base)):
        if bits is None:
            del lp.msrs[address]
        else:
            lp.msrs[address] = field | bits
    row = SEAMCALL.decide(SeamcallState(platform, lp), revision)
    assert (row.id if row else None) == (None if passes else "SEAMCALL.seamrr")


@pytest.mark.parametrize("cpl", [1, 2, 3])
def test_SEAMCALL_cpl__every_level_above_0_is_refused(cpl: int) -> None:
    for revision, clause in ((SILICON, "SEAMCALL.cpl"), (REV_343754_002, "SEAMCALL.cpl_late")):
        platform = lab.platform(revision=revision)
        platform.lp(0).cpl = cpl
        assert seamcall(platform, 0) == Fault(Vector.GP, 0, clause)
    platform = entered()
    platform.lp(0).cpl = cpl
    assert seamret(platform, 0) == Fault(Vector.GP, 0, "SEAMRET.cpl")
    platform = lab.platform()
    vmlaunch(platform, 0)
    platform.lp(0).cpl = cpl
    assert tdcall(platform, 0) == Fault(Vector.GP, 0, "TDCALL.cpl")


def test_SEAMCALL__the_table_of_rows_is_complete() -> None:
    tested = {clause for _, clause, _, _ in ROWS} | {"SEAMCALL.no_SEAM"}
    assert tested >= {row.id for row in SEAMCALL}


@given(st.integers(0, STATES - 1), st.sampled_from(list(REVISIONS.values())))
def test_SEAMCALL__row_i_decides_exactly_when_the_rows_before_it_are_silent(state: int, revision: Revision) -> None:
    platform = put_state(lab.platform(revision=revision), state)
    stopping = SEAMCALL.all_stopping(SeamcallState(platform, platform.lp(0)), revision)
    decided = SEAMCALL.decide(SeamcallState(platform, platform.lp(0)), revision)
    assert (decided is None) == (not stopping)
    if decided is not None:
        assert decided is stopping[0]
        path = SEAMCALL.walk(SeamcallState(platform, platform.lp(0)), revision)
        assert [hit for _, hit in path] == [False] * (len(path) - 1) + [True]


@given(st.integers(0, STATES - 1))
def test_SEAMCALL__a_refusal_changes_nothing_but_flags(state: int) -> None:
    platform = put_state(lab.platform(), state)
    before = platform.fork()
    outcome = seamcall(platform, 0)
    if isinstance(outcome, Fault):
        assert platform.fingerprint() == before.fingerprint()
    if isinstance(outcome, VmFailInvalid):
        lp = platform.lp(0)
        assert lp.rflags & ARITHMETIC == CF and lp.rax == before.lp(0).rax
        lp.rflags = before.lp(0).rflags
        assert platform.fingerprint() == before.fingerprint()


def test_SEAMCALL__the_two_documents_differ_in_exactly_these_states() -> None:
    found = {state: (a.outcome, b.outcome) for state, a, b in differences(SILICON, REV_343754_002)}
    expected: dict[int, tuple[str, str]] = {}
    for state in range(STATES):
        f = facts_of(state)
        if f["vmx"] and not f["smm"] and f["non_root"] and f["64bit"]:
            if f["inSEAM"]:
                expected[state] = ("#GP(0)" if f["user"] else "VM exit 76", "#UD")
            elif f["user"]:
                expected[state] = ("#GP(0)", "VM exit 76")
    assert found == expected and len(found) == 192
    assert not list(differences(SILICON, SDM))
    assert not list(differences(REV_343754_002, REV_343754_001))  # they differ in SEAMRET only


def test_SEAMCALL__the_exported_table_says_what_the_machine_does() -> None:
    data = export(["silicon"])
    assert data["format"] == "seamref-seamcall/1" and len(data["inputs"]) == len(INPUTS) == len(BITS)
    table = seamcall_table(SILICON)
    assert [data["outcomes"][i] for i, _ in data["revisions"]["silicon"]] == [entry.outcome for entry in table]
    assert all(is_reachable(state) == (state in set(data["reachable"])) for state in range(0, STATES, 7))
    assert not is_reachable(state_of(inSEAM=True)) and not is_reachable(state_of(vmx=True, inSEAM=True, smm=True))
    with pytest.raises(SeamrefError, match="looks at no"):
        state_of(cpl=True)
    with pytest.raises(SeamrefError, match="there are silicon"):
        get_revision("353754-002")


def test_SEAMCALL_enter__full_effect() -> None:
    platform = lab.platform()
    lp = platform.lp(1)
    vmm_vmcs = lp.current_vmcs
    lp.rax, lp.rcx, lp.rflags, lp.nmi_inhibit, lp.sti_blocking = P | 1, 77, 0x246 | CF, True, True
    rip, barriers = lp.rip, lp.ibrs_barriers
    seen: list[object] = []
    platform.listeners.append(seen.append)
    cvp = lab.P_SEAMLDR_RANGE.base + 0x1000
    assert seamcall(platform, 1) == Entered(Target.P_SEAMLDR, cvp, "SEAMCALL.enter")
    assert (lp.inSEAM, lp.inP_SEAMLDR, lp.mode, platform.P_SEAMLDR_MUTEX) == (True, True, Mode.SEAM_ROOT, 1)
    assert lp.current_vmcs == cvp and vmm_vmcs in lp.vmcs_cache
    data = current(lp).data
    assert get(data, "vmcs_link_pointer") == vmm_vmcs
    assert get(data, "guest_rip") == rip
    assert get(data, "guest_rflags") == 0x246 & ~ARITHMETIC
    assert get(data, "guest_interruptibility") == 0b1001
    assert get(data, "exit_reason") == 76 | 1 << 29
    assert get(data, "exit_instruction_length") == 4
    assert get(data, "exit_qualification") == 0
    assert (lp.smi_inhibit, lp.nmi_inhibit, lp.rflags, lp.cpl, lp.dr7) == (True, True, 2, 0, 0x400)
    assert (lp.rip, lp.rax, lp.rcx) == (lab.CODE, P | 1, 77)
    assert lp.ibrs_barriers == barriers + 1
    assert [type(event) for event in seen] == [MutexChanged, ModeChanged, InstructionEnded]
    assert seen[0] == MutexChanged(1, True)


def test_SEAMCALL_enter__bit29_follows_the_revision() -> None:
    platform = lab.platform(revision=replace(SILICON, exit_bit29=False))
    seamcall(platform, 0)
    assert get(current(platform.lp(0)).data, "exit_reason") == 76


def test_SEAM_CVP__one_transfer_vmcs_per_processor() -> None:
    platform = lab.platform(topology=Topology(1, 6))
    for id in (0, 5):
        outcome = seamcall(platform, id)
        assert isinstance(outcome, Entered) and outcome.vmcs == 0x7C001000 + id * 0x1000
    assert platform.P_SEAMLDR_MUTEX is None


def test_SEAMCALL_p_seamldr_busy__exactly_one_processor_is_inside() -> None:
    platform = lab.platform()
    platform.lp(0).rax = platform.lp(1).rax = P
    assert isinstance(seamcall(platform, 0), Entered)
    assert seamcall(platform, 1) == VmFailInvalid("SEAMCALL.p_seamldr_busy")
    assert isinstance(software.run(platform, 0), Left)
    assert isinstance(seamcall(platform, 1), Entered)


def test_SEAMCALL_mutex_leak__a_text_that_forgets_the_release_locks_everybody_out() -> None:
    platform = lab.platform(revision=replace(SILICON, mutex_released=False))
    lab.set_ready(platform, p_seamldr=False)
    platform.lp(0).rax = platform.lp(1).rax = P
    assert seamcall(platform, 0) == VmFailInvalid("SEAMCALL.p_seamldr_not_ready")
    lab.set_ready(platform, p_seamldr=True)
    assert seamcall(platform, 1) == VmFailInvalid("SEAMCALL.p_seamldr_busy")


def test_SEAMCALL_mutex_leak__only_that_failure_leaves_the_mutex_taken() -> None:
    platform = lab.platform(revision=replace(SILICON, mutex_released=False))
    lab.set_ready(platform, seam=False)
    assert seamcall(platform, 0) == VmFailInvalid("SEAMCALL.module_not_ready")
    assert platform.P_SEAMLDR_MUTEX is None
    platform.lp(0).rax = platform.lp(1).rax = P
    assert isinstance(seamcall(platform, 0), Entered)
    assert seamcall(platform, 1) == VmFailInvalid("SEAMCALL.p_seamldr_busy")
    assert platform.P_SEAMLDR_MUTEX == 0
    platform = lab.platform()
    lab.set_ready(platform, p_seamldr=False)
    platform.lp(0).rax = P
    assert seamcall(platform, 0) == VmFailInvalid("SEAMCALL.p_seamldr_not_ready")
    assert platform.P_SEAMLDR_MUTEX is None


def test_SEAMCALL_non_root__a_guest_exits_to_its_vmm() -> None:
    platform = lab.platform()
    vmlaunch(platform, 0)
    lp = platform.lp(0)
    assert lp.mode is Mode.VMX_NON_ROOT
    rip = lp.rip
    assert seamcall(platform, 0) == VmExit(ExitReason.SEAMCALL, 0, False, "SEAMCALL.non_root")
    data = current(lp).data
    assert (get(data, "exit_reason"), get(data, "exit_instruction_length"), get(data, "guest_rip")) == (76, 4, rip)
    assert lp.mode is Mode.VMX_ROOT


# --- SEAMRET


def entered(*, target: int = 0, **options: object) -> Platform:
    platform = lab.platform(**options)  # type: ignore[arg-type]
    platform.lp(0).rax = target
    assert isinstance(seamcall(platform, 0), Entered)
    put(current(platform.lp(0)).data, "guest_rip", 0x5000)
    return platform


SEAMRET_ROWS = {
    "SEAMRET.inSEAM": (lambda lp: setattr(lp, "inSEAM", False), Fault(Vector.UD, None, "SEAMRET.inSEAM")),
    "SEAMRET.64bit": (lambda lp: setattr(lp, "cs_l", False), Fault(Vector.UD, None, "SEAMRET.64bit")),
    "SEAMRET.non_root": (lambda lp: setattr(lp, "non_root", True), Fault(Vector.UD, None, "SEAMRET.non_root")),
    "SEAMRET.cpl": (lambda lp: setattr(lp, "cpl", 3), Fault(Vector.GP, 0, "SEAMRET.cpl")),
    "SEAMRET.current": (lambda lp: setattr(lp, "current_vmcs", NONE), VmFailInvalid("SEAMRET.current")),
    "SEAMRET.controls": (lambda lp: put(current(lp).data, "pin_based", 0), 7),
    "SEAMRET.host": (lambda lp: put(current(lp).data, "host_rip", 1 << 60), 8),
    "SEAMRET.guest": (lambda lp: put(current(lp).data, "guest_rip", NON_CANONICAL_RIP), 33),
    "SEAMRET.msr_load": (
        lambda lp: [put(current(lp).data, f"entry_msr_load_{field}", 8) for field in ("count", "address")],
        34,
    ),
}


@pytest.mark.parametrize("clause", SEAMRET_ROWS)
def test_SEAMRET__each_row_and_a_failure_leaves_SEAM_as_it_was(clause: str) -> None:
    spoil, expected = SEAMRET_ROWS[clause]
    platform = entered(target=P)
    lp = platform.lp(0)
    spoil(lp)  # type: ignore[no-untyped-call]
    in_seam = lp.inSEAM
    outcome = seamret(platform, 0)
    assert outcome.clause == clause
    match expected:
        case int() if expected < 30:
            assert isinstance(outcome, VmFailValid) and outcome.error == expected
            assert get(current(lp).data, "vm_instruction_error") == expected
        case int():
            assert get(current(lp).data, "exit_reason") == expected | 1 << 31
            assert lp.rip == lab.CODE
        case _:
            assert outcome == expected
    assert (lp.inSEAM, lp.inP_SEAMLDR, platform.P_SEAMLDR_MUTEX) == (in_seam, True, 0)


def test_SEAMRET__the_table_of_rows_is_complete() -> None:
    assert set(SEAMRET_ROWS) == {row.id for row in SEAMRET}


@pytest.mark.parametrize(("count", "address", "fails"), [
    (0, 1, False), (0, 15, False), (1, 0, False), (1, 16, False), *((1, at, True) for at in (1, 2, 4, 8, 15)),
    (512, 1, True),
])
def test_SEAMRET_msr_load__only_a_list_with_entries_has_an_address_and_that_is_16_byte_aligned(
    count: int, address: int, fails: bool
) -> None:
    platform = entered(target=P)
    data = current(platform.lp(0)).data
    put(data, "entry_msr_load_count", count)
    put(data, "entry_msr_load_address", address)
    assert seamret(platform, 0).clause == ("SEAMRET.msr_load" if fails else "SEAMRET.leave")


@pytest.mark.parametrize("target", [0, P])
def test_SEAMRET__what_a_listener_is_told(target: int) -> None:
    platform = entered(target=target)
    seen: list[object] = []
    platform.listeners.append(seen.append)
    seamret(platform, 0)
    told = [event for event in seen if not isinstance(event, VmcsFlushed)]
    freed = [MutexChanged(0, False)] if target else []
    assert told[:-2] == freed and isinstance(told[-2], ModeChanged)
    assert (told[-2].before, told[-2].after) == (Mode.SEAM_ROOT.value, Mode.VMX_ROOT.value)
    assert isinstance(told[-1], InstructionEnded) and told[-1].instruction == "SEAMRET"


def test_SEAMRET_guest__without_a_preceding_SEAMCALL_the_preset_rip_cannot_enter() -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    lp.inSEAM = True
    vmptrld(platform, 0, lab.P_SEAMLDR_RANGE.base + 0x1000)
    assert seamret(platform, 0).clause == "SEAMRET.guest"


@pytest.mark.parametrize(
    ("revision", "keeps", "target", "lost"),
    [
        (SILICON, False, P, True),
        (SILICON, True, P, False),
        (SILICON, False, 0, False),
        (REV_343754_002, False, P, True),
        (REV_343754_001, False, P, False),
    ],
)
def test_SEAMRET_vmcs__who_loses_the_current_vmcs(revision: Revision, keeps: bool, target: int, lost: bool) -> None:
    platform = lab.platform(revision=revision, keeps_vmcs=keeps)
    vmlaunch(platform, 0)
    platform.lp(0).cpl = 0
    seamcall(platform, 0)  # from the guest: exits, so the VMCS is launched and we are in root
    lp = platform.lp(0)
    vmm_vmcs = lp.current_vmcs
    lp.rax = target
    outcome = software.call(platform, 0)
    assert outcome == Left(Target.P_SEAMLDR if target else Target.MODULE, lost, "SEAMRET.leave")
    assert lp.mode is Mode.VMX_ROOT
    if lost:
        assert lp.current_vmcs == NONE and vmm_vmcs not in lp.vmcs_cache
        vmptrld(platform, 0, vmm_vmcs)
        assert vmresume(platform, 0).clause == "VMRESUME.launch_state"  # it is "clear" now
        assert vmlaunch(platform, 0).clause == "VMLAUNCH.host"
    else:
        assert lp.current_vmcs == vmm_vmcs and current(lp).launched
        assert vmresume(platform, 0).clause == "VMRESUME.host"


def test_SEAMRET_vmcs__nothing_is_lost_by_a_vmm_without_a_current_vmcs() -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    lp.current_vmcs = NONE
    assert software.call(platform, 0, rax=P) == Left(Target.P_SEAMLDR, False, "SEAMRET.leave")


def test_SEAMRET_evict__the_next_processor_reads_the_transfer_vmcs_from_memory() -> None:
    platform = lab.platform()
    seen: list[object] = []
    platform.listeners.append(seen.append)
    software.call(platform, 0, rax=P)
    cvp = lab.P_SEAMLDR_RANGE.base + 0x1000
    assert cvp not in platform.lp(0).vmcs_cache
    assert VmcsFlushed(0, cvp, "SEAMRET") in seen
    platform.lp(1).rax = P
    seamcall(platform, 1)
    assert get(current(platform.lp(1)).data, "vmcs_link_pointer") != NONE


def test_SEAMRET_leave__inhibits_and_flags_come_back() -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    lp.rflags, lp.nmi_inhibit, lp.mov_ss_blocking, lp.sti_blocking = 0x206 | CF, True, False, True
    rip, rsp = lp.rip, lp.rsp
    software.call(platform, 0, rax=P)
    assert (lp.rip, lp.rsp, lp.rflags) == (rip + 4, rsp, 0x202)  # CF = 0 tells success
    assert (lp.nmi_inhibit, lp.smi_inhibit, lp.sti_blocking) == (True, False, False)


def test_SEAMRET_leave__a_revision_clears_the_modules_transfer_vmcs() -> None:
    for clears in (True, False):
        platform = lab.platform(revision=replace(SILICON, seamret_clears_transfer=clears))
        software.call(platform, 0, rax=0)
        assert (0x7C001000 in platform.lp(0).vmcs_cache) is not clears


# --- TDCALL


def test_TDCALL__rows_and_exit() -> None:
    platform = lab.platform()
    assert tdcall(platform, 0) == Fault(Vector.UD, None, "TDCALL.non_root")
    vmlaunch(platform, 0)
    lp = platform.lp(0)
    lp.cpl = 3
    assert tdcall(platform, 0) == Fault(Vector.GP, 0, "TDCALL.cpl")
    lp.cpl, lp.cs_l = 0, False  # no 64-bit check
    assert tdcall(platform, 0) == VmExit(ExitReason.TDCALL, 0, False, "TDCALL.exit")
    assert get(current(lp).data, "exit_reason") == 77
    assert {row.id for row in TDCALL} == {"TDCALL.non_root", "TDCALL.cpl"}
