"""The question what a VMM finds again behind a call, answered by running: only what has a reason differs."""

from __future__ import annotations

import pytest

from seamref.arch.areas import GUEST
from seamref.experiments.processor.areas import GROUPS, WHY, call_and_compare, guest_area, host_area


@pytest.mark.parametrize(("rax", "keeps", "lost"), [(0, False, False), (1 << 63, False, True), (1 << 63, True, False)])
def test_SEAMRET_leave__only_what_has_a_reason_differs_behind_a_call(rax: int, keeps: bool, lost: bool) -> None:
    differing = {found.group for found in call_and_compare(rax, keeps_vmcs=keeps) if found.behind}
    assert differing == {group for group in WHY if group != "current-VMCS pointer" or lost}


def test_SEAMCALL_enter__in_SEAM_the_callers_general_registers_are_still_there() -> None:
    inside = {found.group: found.in_SEAM for found in call_and_compare(0)}
    assert not inside["the other general registers"] and not inside["RAX"] and not inside["CR2, CR8"]
    assert inside["selectors"] and inside["GDTR, IDTR"] and inside["DR7, IA32_DEBUGCTL"]
    assert not inside["IA32_PKRS, UINV, IA32_BNDCFGS"]


def test_GROUPS__name_every_row_of_the_guest_area() -> None:
    named = {name for _, names in GROUPS for name in names}
    assert {row.lp for row in GUEST} - named == {"pending_debug"}
    assert len(guest_area()) == len(GUEST) and all(area.first for area in host_area() if not area.field)
