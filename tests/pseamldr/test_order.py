"""INSTALL from SEAMCALL to SEAMRET: one fault at a time, and any two at once."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pseamldr.scene import FAULTS, Injected, Scene, combinable, header_pa, put_handoff

from seamref.arch.memory import Agent
from seamref.arch.structures import SEAMEXTEND
from seamref.pseamldr import lab
from seamref.pseamldr.api import Leaf, Status
from seamref.pseamldr.lab import Returned

CASES = [(fault, update) for fault in FAULTS for update in (False, True) if fault.update in (None, update)]


def _names(value: object) -> str:
    return "UPDATE" if value is True else "LOAD" if value is False else repr(value)


def test_nothing_broken_succeeds() -> None:
    for update in (False, True):
        platform, answer = Scene(update=update).run()
        assert answer == Returned(Status.SUCCESS, 0)
        assert platform.SEAM_READY and platform.P_SEAMLDR_READY


@pytest.mark.parametrize(("fault", "update"), CASES, ids=_names)
def test_INSTALL__one_fault_gives_its_status_and_the_state_that_belongs_to_it(fault: Injected, update: bool) -> None:
    scene = Scene(update=update)
    fault.put(scene)
    before = scene.platform()
    platform = before.fork()
    answer = lab.ask(platform, 0, Leaf.INSTALL, scene.rcx, 0x5A5A)
    assert answer == Returned(fault.status, fault.rdx)
    assert lab.data_field(platform, "lps_in_update") == 0 and not any(lab.data_field(platform, "update_bitmap"))
    seamrr = lab.SEAMRR
    module = (seamrr.base, seamrr.end - 0x200000)
    if fault.rdx == 0:
        assert platform.SEAMEXTEND == before.SEAMEXTEND
        assert list(platform.store_.pages(*module)) == list(before.store_.pages(*module))
        assert platform.seamdb == before.seamdb
        return
    register = SEAMEXTEND.decode(platform.SEAMEXTEND)
    assert register.seam_ready == 0 and register.p_seamldr_ready == 1
    identity = register.valid, register.mrseam != bytes(48)
    assert identity == ((0x1FF, True) if fault.row == "INSTALL.seamdb.entropy" else (0, False))
    again = lab.ask(platform, 0, Leaf.INSTALL, scene.rcx)
    assert isinstance(again, Returned)
    if update:
        assert again.status is Status.EBADPARAM, "after an unrecoverable failure only LOAD can be tried"


@given(data=st.data())
@settings(max_examples=400, suppress_health_check=[HealthCheck.filter_too_much])
def test_INSTALL__of_two_faults_the_earlier_row_decides(data: st.DataObject) -> None:
    update = data.draw(st.booleans())
    pair = st.lists(st.sampled_from(range(len(FAULTS))), min_size=2, max_size=2, unique=True)
    first, second = sorted(data.draw(pair))
    one, two = FAULTS[first], FAULTS[second]
    assume(combinable(one, two, update))
    scene = Scene(update=update)
    two.put(scene)
    one.put(scene)
    _, answer = scene.run()
    assert answer == Returned(one.status, one.rdx)


def test_INSTALL_update__handoff_version_below_the_new_module_s_range() -> None:
    _, answer = Scene(update=True, sig={"module_hv": 3, "min_update_hv": 2}, handoff={"hv": 1}).run()
    assert answer == Returned(Status.EBADHANDOFF, 0)


def test_INSTALL_preserve__exactly_the_handoff_data_survive() -> None:
    scene = Scene(update=True)
    platform, answer = scene.run()
    assert answer == Returned(Status.SUCCESS, 0)
    at = header_pa(platform)
    assert platform.bytes_at(Agent.MODULE, at, 8) == bytes([1, 0, 0, 0, 40, 0, 0, 0])
    assert platform.bytes_at(Agent.MODULE, at + 8, 40) == bytes(range(40))
    assert platform.bytes_at(Agent.MODULE, at + 48, 0x1000 - 48) == bytes(0x1000 - 48)
    put_handoff(platform, valid=0)
    assert lab.ask(platform, 0, Leaf.INSTALL, scene.rcx) == Returned(Status.EBADHANDOFF, 0)
