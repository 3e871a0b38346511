"""Pictures and tables of this part: what they say comes from running the module."""

from __future__ import annotations

from seamref.experiments.module import states, verifier
from seamref.host import tdx_updates, vmm
from seamref.show import tdx


def test_show__the_state_machine_is_what_calls_were_seen_to_do() -> None:
    assert states.sys_transitions() == [
        ("SYSINIT_PENDING", "SYS.INIT", "SYSINIT_DONE"),
        ("SYSINIT_DONE", "SYS.CONFIG", "SYSCONFIG_DONE"),
        ("SYSCONFIG_DONE", "SYS.KEY.CONFIG", "SYS_READY"),
        ("SYS_READY", "SYS.SHUTDOWN", "SYS_SHUTDOWN"),
        ("SYSINIT_DONE", "SYS.UPDATE", "SYS_READY"),
    ]
    assert "SYSINIT_DONE -> SYS_READY: SYS.UPDATE" in tdx.sys_machine().text


def test_show__a_whole_TD_life_is_watched() -> None:
    seen = states.td_transitions()
    assert [name for _, name, _ in seen["lifecycle"]] == [
        "TDH.MNG.KEY.CONFIG", "TDH.MNG.VPFLUSHDONE", "TDH.MNG.KEY.FREEID"]
    assert ("ACTIVE", "TD exit", "READY") in seen["vCPU"]
    assert seen["KeyID"][-1] == ("FLUSHED", "TDH.MNG.KEY.FREEID", "FREE")


def test_show__who_may_when_row_by_row() -> None:
    rows = {row[0]: row[1:] for row in tdx.who_may_when().rows}
    assert rows["`TDH.SYS.LP.SHUTDOWN`"] == ("runs",) * 5
    assert rows["`TDH.SYS.UPDATE`"] == (
        "SYS_STATE_INCORRECT", "SYS_INVALID_HANDOFF", "SYS_STATE_INCORRECT", "SYS_STATE_INCORRECT", "SYS_SHUTDOWN")
    assert [row[-1] for row in rows.values()].count("SYS_SHUTDOWN") == len(rows) - 1


def test_show__survivors_name_a_difference() -> None:
    platform, td = tdx_updates.running()
    before = verifier.preserved(platform, td)
    same = {row[2] for row in tdx.survivors(before, before).rows}
    assert same == {"the same"}
    changed = tdx.survivors(before, {**before, "fatal": 1})
    assert [row[0] for row in changed.rows if row[2] == "CHANGED"] == ["`fatal`"]


def test_show__the_verifier_knows_modules_by_their_MRSEAM() -> None:
    platform, td = tdx_updates.running()
    report = vmm.report_of(platform, 0, td)
    assert verifier.verifier_says(report)[0] == ("TD was created under", "1.5.05, SVN 1.5 (MRSEAM, TEE_TCB_SVN)")
    assert "TEE_TCB_SVN" in tdx.verifier_table(only=report).text
