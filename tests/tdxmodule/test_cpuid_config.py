"""TDH.MNG.INIT's CPUID configuration: the order of faults, and which family, model and stepping a TD may ask for."""

from __future__ import annotations

import pytest
from tdxmodule.test_rows import configs, params, uninitialised

from seamref.tdxmodule.cpuid_config import ALLOWED_FMS, configurable, fms_allowed, in_lookup_order
from seamref.tdxmodule.status import Status
from seamref.tdxmodule.structures import ATTRIBUTES_MIGRATABLE


@pytest.mark.parametrize("later", [False, True])
def test_MNG_INIT_cpuid__the_modules_order_is_another_than_TD_PARAMS(later: bool) -> None:
    order = [at for at, _ in in_lookup_order(later)]
    assert (sorted(order) == list(range(len(configurable(later)))) and order != sorted(order)) or not later


def test_MNG_INIT_cpuid__of_two_faults_the_first_in_the_modules_order_is_named() -> None:
    at = {(row.leaf, row.subleaf): i for i, row in enumerate(configurable(True))}
    wrong = {at[0x23, 0]: {"edx": 1}, at[0x1F, 0]: {"edx": 1}}
    answer = params(cpuid_config=configs(wrong))()
    assert answer.decoded.status is Status.TDX_OPERAND_INVALID and answer.regs["rcx"] == 0x1F, "not 23H"


@pytest.mark.parametrize(("asked", "migratable", "taken"), [
    (0, False, True), (0xC06F2, False, True), (0x806F8, False, False), (0x806F8, True, True), (0x806F9, True, False),
    (0xC06F1, True, True), (0xC06F3, True, False), (0xA06F0, True, False), (0x906F0, True, False),
])
def test_MNG_INIT_cpuid__a_migratable_TD_may_have_an_older_family_and_model(asked: int, migratable: bool,
                                                                         taken: bool) -> None:
    world = uninitialised()
    answer = world.param(cpuid_config=configs({0: {"eax": asked}}), attributes=ATTRIBUTES_MIGRATABLE * migratable)
    if taken:
        assert answer.ok
    else:
        assert (answer.decoded.status, answer.regs["rcx"]) == (Status.TDX_OPERAND_INVALID, 0xFFFFFFFF00000001)


def test_MNG_INIT_cpuid__the_table_of_models_by_hand() -> None:
    assert fms_allowed(0x806F8, 0xC06F0) is False, "a newer one"
    assert fms_allowed(0xD06D0, 0x806F8) is True and fms_allowed(0x906A0, 0x806F8) is None
    assert all(fms_allowed(fms, fms) for fms in ALLOWED_FMS)
