"""IA32_SEAMEXTEND waits for processor reserved memory: which register says so (errata 34)."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seamref.arch import lab
from seamref.arch.memory import Agent
from seamref.arch.msr import PRMRR_BASE, PRMRR_MASK, SEAMEXTEND_MSR, wrmsr
from seamref.arch.outcome import Done, Fault, Vector
from seamref.arch.platform import Platform
from seamref.arch.revision import SILICON, SeamextendGate

BUFFER = lab.P_SEAMLDR_RANGE.base + 0x10000


def in_p_seamldr(gate: SeamextendGate) -> Platform:
    platform = lab.platform(revision=replace(SILICON, name=gate.name, seamextend_gate=gate))
    lp = platform.lp(0)
    lp.inSEAM = lp.inP_SEAMLDR = True
    return platform


def copies_out(platform: Platform) -> bool:
    outcome = wrmsr(platform, 0, SEAMEXTEND_MSR, BUFFER | 1)
    if isinstance(outcome, Fault):
        assert (outcome.vector, outcome.code) == (Vector.GP, 0)
        return False
    assert isinstance(outcome, Done)
    return platform.load(Agent.P_SEAMLDR, BUFFER, 136) == platform.SEAMEXTEND


def test_WRMSR_seamextend_prmrr__valid_mask_lets_the_register_be_read() -> None:
    assert copies_out(in_p_seamldr(SeamextendGate.PHYSMASK))


def test_WRMSR_seamextend_prmrr__invalid_mask_is_GP0() -> None:
    platform = in_p_seamldr(SeamextendGate.PHYSMASK)
    platform.set_msr(platform.lp(0), PRMRR_MASK, 0)
    outcome = wrmsr(platform, 0, SEAMEXTEND_MSR, BUFFER | 1)
    assert isinstance(outcome, Fault) and outcome.clause == "WRMSR.seamextend_prmrr"


def test_WRMSR_seamextend_prmrr_base__printed_text_can_never_be_satisfied_by_software() -> None:
    platform = in_p_seamldr(SeamextendGate.PHYSBASE)
    assert isinstance(wrmsr(platform, 0, PRMRR_BASE, 1 << 11), Fault)
    outcome = wrmsr(platform, 0, SEAMEXTEND_MSR, BUFFER | 1)
    assert isinstance(outcome, Fault) and outcome.clause == "WRMSR.seamextend_prmrr_base"


def test_WRMSR_seamextend_prmrr_base__silent_if_the_reserved_bit_were_one() -> None:
    platform = in_p_seamldr(SeamextendGate.PHYSBASE)
    platform.set_msr(platform.lp(0), PRMRR_BASE, 1 << 11)
    assert copies_out(platform)


@pytest.mark.parametrize("mask", [0, 0xC00])
def test_without_the_gate_the_mask_does_not_matter(mask: int) -> None:
    platform = in_p_seamldr(SeamextendGate.NONE)
    platform.set_msr(platform.lp(0), PRMRR_MASK, mask)
    assert copies_out(platform)
