"""P-SEAMLDR where it really runs: behind BIOS, MCHECK, ENTERACCS and NP-SEAMLDR."""

from __future__ import annotations

import importlib

import pytest
from pseamldr.scene import OUT, image

from seamref import boot, mint
from seamref.arch import software
from seamref.arch.memory import Agent
from seamref.arch.outcome import Left, VmFailInvalid
from seamref.arch.paging import leaves
from seamref.arch.platform import Platform, Topology
from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.arch.vmx import vmptrld
from seamref.pseamldr import lab
from seamref.pseamldr.api import SEAMLDR_INFO, Leaf, Status
from seamref.pseamldr.lab import Returned

OK = Returned(Status.SUCCESS, 0)


@pytest.fixture(scope="module")
def _booted() -> Platform:
    return boot(Topology(2, 2))


@pytest.fixture
def platform(_booted: Platform) -> Platform:
    return _booted.fork()


def test_INFO_tells_the_build_and_who_launched_the_loader(platform: Platform) -> None:
    assert lab.ask(platform, platform.lps[1], Leaf.INFO, OUT) == OK
    info = SEAMLDR_INFO.decode(platform.bytes_at(Agent.HOST, OUT, 256))
    assert info.vendor_id == 0x8086 and info.acm_x2apic == platform.lps[0]
    assert info.seamextend.p_seamldr_ready == 1 and info.seamextend.seam_ready == 0


def test_INSTALL_from_the_state_that_NP_SEAMLDR_leaves(platform: Platform) -> None:
    assert lab.install(platform, mint.place(platform, image())) == OK
    register = SEAMEXTEND.decode(platform.SEAMEXTEND)
    assert register.seam_ready == 1 and register.mrseam == mint.sigstruct(image())[900:948]
    seamrr = platform.seamrr()
    assert seamrr is not None
    vmcs = platform.bytes_at(Agent.MODULE, seamrr.base + 0x1000, 4096)
    assert len(list(leaves(platform, int.from_bytes(vmcs[0x330:0x338], "little")))) > 8


def test_the_module_that_was_installed_is_what_SEAMCALL_then_enters(platform: Platform) -> None:
    importlib.import_module("seamref.tdxmodule.program")  # makes its images runnable
    assert isinstance(software.call(platform, 0, rax=0), VmFailInvalid)
    assert lab.install(platform, mint.place(platform, image())) == OK
    lp = platform.lp(0)
    before = lp.current_vmcs
    outcome = software.call(platform, 0, rax=33)
    assert isinstance(outcome, Left) and outcome.target.name == "MODULE"
    assert platform.lp(0).current_vmcs == before


def test_every_processor_s_call_costs_it_the_current_VMCS_but_a_VMPTRLD_brings_it_back(platform: Platform) -> None:
    lp = platform.lp(0)
    pointer = 0x300000
    revision = platform.msr_value(lp, 0x480) & 0x7FFFFFFF
    platform.store(Agent.HOST, pointer, revision.to_bytes(4, "little"))
    vmptrld(platform, 0, pointer)
    outcome = software.call(platform, 0, rax=int(Leaf.INFO), rcx=OUT)
    assert isinstance(outcome, Left) and outcome.vmcs_lost
    vmptrld(platform, 0, pointer)
    assert platform.lp(0).current_vmcs == pointer


def test_SHUTDOWN_then_nobody_gets_in(platform: Platform) -> None:
    launcher = platform.lps[0]
    for lp in (*platform.lps[1:], launcher):
        assert lab.ask(platform, lp, Leaf.SHUTDOWN) == OK
    assert isinstance(lab.ask(platform, launcher, Leaf.INFO, OUT), VmFailInvalid)


def test_the_data_area_is_where_the_size_formula_says(platform: Platform) -> None:
    lab.ask(platform, 0, Leaf.INFO, OUT)
    held = platform.p_seamldr_range
    assert held is not None
    table = P_SYS_INFO_TABLE.decode(platform.bytes_at(Agent.CPU, held.end - 4096, 4096))
    assert lab.data_field(platform, "data_pointer") == table.data_rgn_base
    linear = {linear: entry for linear, entry, _ in leaves(platform, held.base + 0x2000)}
    at = held.end - 4096 - table.code_rgn_size - table.stack_rgn_size - table.data_rgn_size
    assert linear[table.data_rgn_base] & 0xFFFFFFFFF000 == at
