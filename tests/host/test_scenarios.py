"""The experiments that chapters and commands share, on the whole machine."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seamref.cli import main
from seamref.host import log
from seamref.host.abi import Errno
from seamref.host.scenarios import (
    TROUBLES,
    fail,
    interrupt_caller,
    newer,
    running,
    sleeping_lock,
    two_callers,
    vmcs_after_call,
)
from seamref.host.series import MERGED, SERIES, V3, V4, V8, Lock
from seamref.tdxmodule.build import BUILDS


@pytest.mark.parametrize("name", SERIES)
def test_two_callers__the_real_P_SEAMLDR_is_busy(name: str) -> None:
    met = two_callers(SERIES[name])
    unlocked = name in ("v1", "v2", "v3")
    assert met.first is Errno.OK
    assert met.second is (Errno.ENODEV if unlocked else Errno.OK) and met.waited != unlocked
    assert unlocked == any("SEAMCALL.p_seamldr_busy" in did for _, did in met.log)


def test_interrupt_caller_and_sleeping_lock() -> None:
    assert interrupt_caller(MERGED).startswith("deadlock") and interrupt_caller(V4).startswith("the interrupt waits")
    assert interrupt_caller(V3) == "there is no lock"
    assert sleeping_lock(replace(MERGED, lock=Lock.SPINLOCK)) == log.SLEEPING_BUG.text != sleeping_lock(MERGED)


@pytest.mark.parametrize("name", SERIES)
def test_vmcs_after_call(name: str) -> None:
    assert vmcs_after_call(SERIES[name], keeps_vmcs=True) == "KVM's VMCS is still current"
    lost = vmcs_after_call(SERIES[name], keeps_vmcs=False)
    assert ("still current" in lost) == (name in ("v1", "v2", "v3"))
    assert ("not called" in lost) == (name == "merged")


def test_running_and_newer__v8_to_v10_need_a_build_with_bit_47() -> None:
    for series in SERIES.values():
        bit = BUILDS[running(series)].tdx_features0 >> 47 & 1
        assert bit == (series.name in ("v8", "v9", "v10")) and BUILDS[newer(series)]


STOPS = {
    "nothing": "DONE", "the file is cut short": "", "the file is a header only": "CPU_INSTALL",
    "a CPU is offline": "CPU_INIT", "RDRAND fails on and on in LP.INIT": "CPU_INIT",
    "somebody else calls TDH.SYS.UPDATE first": "RUN_UPDATE",
}


@pytest.mark.parametrize("trouble", TROUBLES, ids=lambda t: t.what)
def test_fail__where_each_stops_and_what_is_left(trouble: object) -> None:
    left = fail(trouble)  # type: ignore[arg-type]
    assert left.state == STOPS.get(left.what, "CPU_INSTALL")
    survives = left.what in ("nothing", "the file is cut short", "somebody else calls TDH.SYS.UPDATE first")
    assert isinstance(left.td, int) == survives
    assert left.reboot != survives
    assert left.error == ("" if left.what == "nothing" else "transferring:firmware-invalid")


def test_retry__v3_makes_an_entropy_shortage_in_INSTALL_worse() -> None:
    """The session ended with the failing call; the retry opens a new one that one processor has called."""
    shortage = next(t for t in TROUBLES if t.what == "RDRAND fails once in INSTALL")
    assert fail(shortage, V4).state == "CPU_INSTALL"
    left = fail(shortage, V3)
    assert left.state == "CPU_INIT" and left.said == "virt/tdx: module not loaded"


def test_commands__serialise_and_failures(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serialise", "--no-lock"]) == 0
    assert "CPU 0: 0, CPU 1: -ENODEV" in capsys.readouterr().out
    assert main(["serialise"]) == 0
    assert capsys.readouterr().out.count("deadlock") == 8
    assert main(["failures", "--series", V8.name]) == 0
    assert "fails: reboot" in capsys.readouterr().out
    assert main(["failures", "--series", "v0"]) == 2
