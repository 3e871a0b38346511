"""The command `peers`, what each client sees, and `seamcall-table --diff` with an implementation."""

from __future__ import annotations

import json

import pytest

from seamref.arch.peers import CORNELIUS, OPENTDX, PEERS, answers
from seamref.arch.revision import SILICON
from seamref.arch.spaces import SEAMCALL, SPACES, TDCALL
from seamref.cli import main
from seamref.conformance.clients import executing, noticed_by
from seamref.experiments.processor.peers import compare, compare_all


def run(capsys: pytest.CaptureFixture[str], *args: str) -> str:
    assert main(args) == 0, capsys.readouterr().err
    return capsys.readouterr().out


# --- groups


@pytest.mark.parametrize("peer", PEERS.values(), ids=PEERS)
def test_groups_describe_the_differing_states_exactly(peer: object) -> None:
    held = next(p for p in PEERS.values() if p is peer)
    for made in compare_all(held, SILICON):
        space = SPACES[made.instruction]
        ones, others = answers(held, space), answers(SILICON, space)
        described: set[int] = set()
        for group in made.groups:
            cube = {s for s in range(space.states) if space.is_reachable(s) and ones[s] is not None
                    and all(on is None or space.facts(s)[name] == on for name, on in group.facts.items())}
            assert cube, group
            for state in cube:
                one, other = ones[state], others[state]
                assert one is not None and other is not None
                assert (one.outcome, other.outcome) == (group.one, group.other)
            described |= cube
        assert len(described) == made.differing == sum(group.states for group in made.groups)


def test_compare_of_a_thing_with_itself_is_empty() -> None:
    assert all(not made.groups and not made.differing for made in compare_all(OPENTDX, OPENTDX))


# --- clients


@pytest.mark.parametrize(("facts", "who"), [
    ({}, "host kernel"), ({"user": True}, "host user process"), ({"non_root": True}, "guest's kernel"),
    ({"non_root": True, "user": True}, "guest's user process"), ({"inSEAM": True}, "software in SEAM root"),
    ({"inSEAM": True, "non_root": True}, "TD's kernel"), ({"smm": True}, "SMM handler"),
])
def test_who_executes(facts: dict[str, bool], who: str) -> None:
    assert executing(facts) == who


def test_a_guest_kernel_cannot_tell_an_exit_that_KVM_answers_from_UD() -> None:
    seen = noticed_by("SEAMCALL", {"non_root": True}, "VM exit 76", "#UD")
    assert [(n.who, n.differs) for n in seen] == [("guest's kernel", False), ("hypervisor", True)]
    assert str(seen[1]) == "hypervisor: VM exit 76, not nothing" and str(seen[0]).endswith("#UD either way")


def test_a_user_process_gets_signals_and_the_host_kernel_statuses() -> None:
    assert str(noticed_by("SEAMCALL", {"non_root": True, "user": True}, "VM exit 76", "#GP(0)")[0]) == (
        "guest's user process: SIGILL, not SIGSEGV")
    seen = noticed_by("SEAMCALL", {}, "VMfailInvalid", "#GP(0)")
    assert [str(n) for n in seen] == ["host kernel: RAX = 0x8000FF00FFFF0000, not RAX = 0x8000FF000000000D"]
    assert noticed_by("SEAMRET", {"inSEAM": True}, "left P-SEAMLDR", "left P-SEAMLDR, current VMCS lost")[1].differs
    assert noticed_by("TDCALL", {"inSEAM": True, "non_root": True}, "VM exit 77", "#UD")[0].one == (
        "a call of the TDX module")


# --- the commands


def test_peers__lists_them_with_commit(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "peers")
    assert all(p.name in out and p.commit[:12] in out for p in PEERS.values())
    listed = json.loads(run(capsys, "peers", "--json"))
    assert listed["format"] == "seamref-peers/1"
    assert [p["commit"] for p in listed["peers"]] == [p.commit for p in PEERS.values()]


def test_peers__says_states_clauses_and_clients(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "peers", "OpenTDX", "--instruction", "SEAMCALL")
    assert "SEAMCALL: 1856 states compared; 210 differ" in out
    assert "OpenTDX: VM exit 76 (SEAMCALL.non_root)" in out and "silicon: #GP(0) (SEAMCALL.cpl)" in out
    assert "guest's user process: SIGILL, not SIGSEGV" in out
    made = json.loads(run(capsys, "peers", "opentdx", "--instruction", "seamcall", "--json"))
    assert made["format"] == "seamref-peer-difference/1" and made["differing"] == 210
    assert made["instructions"][0]["groups"][0]["noticed"][0]["who"]
    assert compare(OPENTDX, SILICON, SEAMCALL).differing == 210


def test_peers__two_peers_and_two_revisions(capsys: pytest.CaptureFixture[str]) -> None:
    assert "1848 that one of the two has not; 4 differ" in run(
        capsys, "peers", "Cornelius", "--with", "OpenTDX", "--instruction", "SEAMCALL")
    assert "0 states differ: SDM, silicon" in run(capsys, "peers", "SDM", "--instruction", "TDCALL")
    assert compare(CORNELIUS, SILICON, TDCALL).absent == 13


def test_peers__rows_and_effects(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "peers", "OpenTDX", "--rows")
    assert "left out SEAMCALL.mov_ss" in out and "[marked to do]" in out
    rows = json.loads(run(capsys, "peers", "OpenTDX", "--rows", "--instruction", "SEAMRET", "--json"))["rows"]
    assert [r["place"] for r in rows] == ["1", "2", "3", "4"] + ["left out"] * 5
    effects = json.loads(run(capsys, "peers", "Cornelius", "--effects", "--json"))
    assert {e["topic"] for e in effects["effects"]} == {e.topic for e in CORNELIUS.effects}
    assert all(CORNELIUS.commit in e["file"] for e in effects["effects"])


@pytest.mark.parametrize(("line", "says"), [
    (["peers", "bochs"], "no implementation 'bochs'; there are silicon"),
    (["peers", "--rows"], "without a name, the implementations are listed"),
    (["peers", "silicon", "--rows"], "silicon is a revision: --rows and --effects are for OpenTDX and Cornelius"),
    (["peers", "OpenTDX", "--instruction", "HLT"], "no states of 'HLT' are listed"),
    (["seamcall-table", "--diff", "bochs", "silicon"], "no implementation 'bochs'"),
])
def test_peers__bad_input_is_one_line(line: list[str], says: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(line) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and says in err


def test_seamcall_table__diff_of_an_implementation(capsys: pytest.CaptureFixture[str]) -> None:
    out = run(capsys, "seamcall-table", "--diff", "OpenTDX", "silicon", "--reachable")
    assert out.count("\n") == 210 and "OpenTDX VM exit 76 (SEAMCALL.non_root), silicon #GP(0) (SEAMCALL.cpl)" in out
    made = json.loads(run(capsys, "seamcall-table", "--diff", "Cornelius", "silicon", "--json"))
    assert made["not_compared"] == 4088 and len(made["states"]) == 4
