"""Other implementations as values: which rows they ask, and in which states they differ from the same machine."""

from __future__ import annotations

import re
from dataclasses import fields, replace

import pytest

from seamref.arch import exhaustive, lab
from seamref.arch.peers import CORNELIUS, OPENTDX, PEERS, answers, both_can_be, get_implementation, peer_differences
from seamref.arch.revision import REV_343754_002, REVISIONS, SILICON, Revision
from seamref.arch.seam import SEAMCALL as SEAMCALL_ROWS
from seamref.arch.seam import SeamcallState, seamcall
from seamref.arch.spaces import SEAMCALL, SEAMOPS, SEAMRET, SPACES, TDCALL, get_space
from seamref.errors import SeamrefError
from seamref.spec import CLAUSES, TABLES

HOST = {"vmx": True, "64bit": True, "seamrr": True, "seam_ready": True, "p_ready": True}


def said(name: str, **facts: bool) -> str | None:
    """What an implementation answers to SEAMCALL in a state given by what differs from the host's usual one."""
    state = SEAMCALL.state({**HOST, **facts})
    answer = answers(get_implementation(name), SEAMCALL)[state]
    return answer and answer.outcome


# --- the states


def test_SEAMCALL_space_is_the_exhaustive_table() -> None:
    for revision in (SILICON, REV_343754_002):
        assert [a.outcome for a in answers(revision, SEAMCALL) if a] == [
            a.outcome for a in exhaustive.seamcall_table(revision)]
    assert all(SEAMCALL.is_reachable(s) == exhaustive.is_reachable(s) for s in range(SEAMCALL.states))


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_every_row_that_a_state_can_reach_decides_somewhere(space: object) -> None:
    assert space in SPACES.values()
    name = space.name  # type: ignore[attr-defined]
    decided = {a.clause for a in answers(SILICON, SPACES[name]) if a}
    unreached = {row.id for row in TABLES[name].in_force(SILICON)} - decided
    assert unreached <= {"SEAMCALL.no_SEAM"}, unreached


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_usual_facts_are_facts_and_a_state_has_its_number(space: object) -> None:
    held = next(s for s in SPACES.values() if s is space)
    assert held.usual <= {given.name for given in held.inputs}
    for state in (0, 1, held.states // 3, held.states - 1):
        assert held.state(held.facts(state)) == state
    assert held.is_reachable(held.state({name: True for name in held.usual}))


def test_a_fact_or_an_instruction_that_is_unknown_is_named() -> None:
    with pytest.raises(SeamrefError, match="SEAMRET looks at no 'color'; it looks at inSEAM"):
        SEAMRET.state({"color": True})
    with pytest.raises(SeamrefError, match="there are those of SEAMCALL, SEAMRET, SEAMOPS, TDCALL"):
        get_space("VMCALL")
    assert get_space("seamret") is SEAMRET


# --- orders


def test_a_revision_with_an_order_asks_exactly_those_rows() -> None:
    turned = replace(SILICON, name="turned", orders=(("SEAMCALL", ("SEAMCALL.cpl", "SEAMCALL.vmx")),))
    assert [row.id for row in SEAMCALL_ROWS.in_force(turned)] == ["SEAMCALL.cpl", "SEAMCALL.vmx"]
    platform = lab.platform(revision=turned)
    lp = platform.lp(0)
    lp.vmx_on, lp.cpl = False, 3
    walk = SEAMCALL_ROWS.walk(SeamcallState(platform, lp), turned)
    assert [(row.id, on) for row, on in walk] == [("SEAMCALL.cpl", True)]
    assert seamcall(platform, 0).clause == "SEAMCALL.cpl"
    assert [row.id for row in SEAMCALL_ROWS.all_stopping(SeamcallState(platform, lp), turned)] == [
        "SEAMCALL.cpl", "SEAMCALL.vmx"]


def test_an_order_with_a_row_that_is_none_is_refused() -> None:
    wrong = replace(SILICON, name="wrong", orders=(("SEAMCALL", ("SEAMCALL.nothing",)),))
    with pytest.raises(SeamrefError, match=r"SEAMCALL has no row 'SEAMCALL\.nothing'"):
        SEAMCALL_ROWS.in_force(wrong)


def test_the_revisions_of_documents_name_no_order() -> None:
    assert all(not revision.orders for revision in REVISIONS.values())


# --- peers are values


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_a_peer_says_where_it_was_read_and_names_only_rows_and_knobs_that_exist(peer: object) -> None:
    held = next(p for p in PEERS.values() if p is peer)
    assert re.fullmatch("[0-9a-f]{40}", held.commit)
    assert held.url(held.files[0]).startswith(f"https://github.com/{held.repository}/blob/{held.commit}/")
    assert set(held.notes) <= set(CLAUSES) and set(held.instead) <= set(CLAUSES)
    assert set(held.exists) <= set(SPACES)
    knobs = {f.name for f in fields(Revision)}
    assert {e.knob for e in held.effects if e.knob} <= knobs
    assert all(getattr(held.revision, e.knob) != getattr(SILICON, e.knob) for e in held.effects if e.knob)


def test_an_unknown_implementation_is_named_with_those_there_are() -> None:
    assert get_implementation("opentdx") is OPENTDX and get_implementation("SILICON") is SILICON
    with pytest.raises(SeamrefError, match=r"no implementation 'bochs'; there are silicon, .*OpenTDX, Cornelius"):
        get_implementation("bochs")


# --- OpenTDX


def test_SEAMCALL_cpl_late__OpenTDX_exits_before_it_looks_at_CPL() -> None:
    assert said("OpenTDX", non_root=True, user=True) == "VM exit 76"
    assert said("silicon", non_root=True, user=True) == "#GP(0)"
    assert said("343754-002", non_root=True, user=True) == "VM exit 76"


def test_SEAMCALL_inSEAM__OpenTDX_refuses_a_TD() -> None:
    td = {"inSEAM": True, "non_root": True}
    assert (said("OpenTDX", **td), said("silicon", **td)) == ("#UD", "VM exit 76")


def test_SEAMCALL_smm__OpenTDX_has_no_row_and_the_same_answer() -> None:
    assert said("OpenTDX", smm=True) == said("silicon", smm=True) == "#UD"


def test_SEAMCALL_mov_ss__OpenTDX_enters() -> None:
    assert (said("OpenTDX", mov_ss=True), said("silicon", mov_ss=True)) == ("entered TDX module", "#GP(0)")


def test_SEAMCALL_p_seamldr_not_ready__OpenTDX_enters_what_was_never_loaded() -> None:
    facts = {"rax63": True, "p_ready": False}
    assert (said("OpenTDX", **facts), said("silicon", **facts)) == ("entered P-SEAMLDR", "VMfailInvalid")


def test_SEAMCALL__OpenTDX_differs_from_silicon_in_210_reachable_states() -> None:
    differing = [s for s, _, _ in peer_differences(OPENTDX, SILICON, SEAMCALL) if SEAMCALL.is_reachable(s)]
    assert len(differing) == 210
    order_only = [s for s, _, _ in peer_differences(REV_343754_002, SILICON, SEAMCALL) if SEAMCALL.is_reachable(s)]
    assert len(order_only) == 192 and set(order_only) <= set(differing)
    for state in set(differing) - set(order_only):  # the rest is MOV-SS, or P-SEAMLDR that is not there
        facts = SEAMCALL.facts(state)
        assert facts["mov_ss"] or (facts["rax63"] and not facts["p_ready"])


def test_SEAMRET__OpenTDX_leaves_whatever_the_VMCS_says() -> None:
    usual = {name: True for name in SEAMRET.usual}
    for spoiled in ("current", "controls", "host", "guest", "msr_load"):
        state = SEAMRET.state({**usual, spoiled: False})
        theirs, ours = answers(OPENTDX, SEAMRET)[state], answers(SILICON, SEAMRET)[state]
        assert theirs is not None and ours is not None
        assert theirs.outcome == "left TDX module" and ours.clause == f"SEAMRET.{spoiled}"


def test_SEAMRET_vmcs__OpenTDX_loses_no_VMCS() -> None:
    state = SEAMRET.state({**{name: True for name in SEAMRET.usual}, "p_seamldr": True})
    pair = answers(OPENTDX, SEAMRET)[state], answers(SILICON, SEAMRET)[state]
    assert [a and a.outcome for a in pair] == ["left P-SEAMLDR", "left P-SEAMLDR, current VMCS lost"]


@pytest.mark.parametrize(("leaf", "theirs"), [
    (0, "done, RAX = 0x3D"), (1, "done, RAX = 0x0, no report is written"), (2, "done, RAX = 0x0"),
    (3, "done, RAX = 0x0"), (4, "done, RAX = 0x0, R10 to R15 are 0"), (5, "#GP(0)"), (6, "#GP(0)"),
])
@pytest.mark.parametrize("high", [False, True])
def test_SEAMOPS_leaf__OpenTDX_looks_at_EAX(leaf: int, theirs: str, high: bool) -> None:
    facts = {"inSEAM": True, "64bit": True, "rax32": high, **{f"leaf{i}": bool(leaf >> i & 1) for i in range(3)}}
    answer = answers(OPENTDX, SEAMOPS)[SEAMOPS.state(facts)]
    assert answer is not None and answer.outcome == theirs
    ours = answers(SILICON, SEAMOPS)[SEAMOPS.state(facts)]
    assert ours is not None and (ours.outcome == "#GP(0)") is high


def test_TDCALL__OpenTDX_agrees_everywhere() -> None:
    assert peer_differences(OPENTDX, SILICON, TDCALL) == []


def test_OpenTDX_leaves_out_these_rows() -> None:
    left = {table: [row.id.partition(".")[2] for row in OPENTDX.leaves_out(table)]
            for table in ("SEAMCALL", "SEAMRET", "SEAMOPS", "TDCALL")}
    assert left == {"SEAMCALL": ["mov_ss", "p_seamldr_not_ready"],
                    "SEAMRET": ["current", "controls", "host", "guest", "msr_load"], "SEAMOPS": [], "TDCALL": []}
    assert "ENTERACCS.authenticate" in [row.id for row in OPENTDX.leaves_out("ENTERACCS.module")]


# --- Cornelius


def test_Cornelius_has_eight_states_of_SEAMCALL_and_no_TDCALL() -> None:
    assert len(both_can_be(CORNELIUS, SILICON, SEAMCALL)) == 8
    assert both_can_be(CORNELIUS, SILICON, TDCALL) == []
    assert said("Cornelius", user=True) is None and said("Cornelius", vmx=False) is None
    assert said("Cornelius") == "entered TDX module" and said("Cornelius", rax63=True) == "entered P-SEAMLDR"


def test_Cornelius_waits_where_silicon_says_busy() -> None:
    assert said("Cornelius", rax63=True, mutex=True) == "waits until the other call has returned"
    assert said("Cornelius", seam_ready=False) == "the API answers SeamNotReady"
    assert said("silicon", rax63=True, mutex=True) == said("silicon", seam_ready=False) == "VMfailInvalid"


def test_Cornelius_returns_through_any_transfer_VMCS() -> None:
    assert len(both_can_be(CORNELIUS, SILICON, SEAMRET)) == 2
    assert peer_differences(CORNELIUS, SILICON, SEAMRET) == []


def test_Cornelius_ends_the_run_at_a_leaf_that_it_has_not() -> None:
    outcomes = {facts["leaf0"] | facts["leaf1"] << 1 | facts["leaf2"] << 2: answer.outcome
                for state, answer in enumerate(answers(CORNELIUS, SEAMOPS)) if answer is not None
                for facts in [SEAMOPS.facts(state)] if not facts["rax32"]}
    ends = "the run ends: EmulationError"
    assert outcomes == {0: "done, RAX = 0x30", 1: ends, 2: "done, RAX = 0x0", 3: "done, RAX = 0x0",
                        4: "done, RAX = 0x3", 5: ends, 6: ends, 7: ends}
