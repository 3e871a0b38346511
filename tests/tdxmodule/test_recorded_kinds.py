"""Kinds of calls that the published source answers so: read off recordings of it, outside the sets that are given."""

from __future__ import annotations

import pytest
from tdxmodule.stages import with_td

from seamref.arch.outcome import Left
from seamref.arch.software import call
from seamref.host import vmm
from seamref.tdxmodule.program import UNMODELLED
from seamref.tdxmodule.td.sept_add import NO_PAGE, NOT_USED

ADD, SEPT = "TDH.MNG.ADDCX", "TDH.MEM.SEPT.ADD"
NO_L2 = {"r9": NO_PAGE, "r10": NO_PAGE, "r11": NO_PAGE}


@pytest.mark.parametrize("module", ["1.5.01", "1.5.05"])
def test_MNG_ADDCX_op_state__the_new_page_is_judged_before_the_TD(module: str) -> None:
    """A page that is in use: TDX_PAGE_METADATA_INCORRECT; a free one, of an initialised TD: OP_STATE_INCORRECT."""
    p, td = with_td("TDH.VP.CREATE", module)
    for page, status in ((td.tdvprs[0], 0xC000030000000001), (td.copy().take(), 0xC000060800000000)):
        assert vmm.tdh(p.fork(), 0, ADD, rcx=page, rdx=td.tdr).word == status


def test_MEM_SEPT_ADD_handle__ALLOW_EXISTING_is_no_reserved_bit_of_version_0() -> None:
    p, td = with_td("")
    page = td.copy().take()
    assert vmm.tdh(p.fork(), 0, SEPT, rcx=3, rdx=td.tdr | 2, r8=page).word == 0xC000010000000002
    assert vmm.tdh(p.fork(), 0, SEPT, rcx=3, rdx=1, r8=page).word == 0xC000010100000002
    assert vmm.tdh(p.fork(), 0, SEPT, rcx=3, rdx=td.tdr, r8=page).word == 0xC0000B0D00000001
    allowed = vmm.tdh(p.fork(), 0, SEPT, rcx=3, rdx=td.tdr | 1, r8=page)
    assert (allowed.word, allowed.regs["r8"]) == (0, page)
    assert vmm.tdh(p.fork(), 0, SEPT, rcx=3, rdx=td.tdr, r8=NO_PAGE).word == 0xC000010000000008


def test_MEM_SEPT_ADD_effect__version_1_says_in_R8_what_became_of_the_page() -> None:
    """Used: all ones; not needed: bit 63; on a refusal the page without that bit, whatever the caller had there."""
    p, td = with_td("")
    page = td.copy().take()

    def add(rcx: int, r8: int, flags: int = 0, r9: int = NO_PAGE) -> tuple[int, int]:
        made = vmm.tdh(p.fork(), 0, SEPT, version=1, rcx=rcx, rdx=td.tdr | flags, r8=r8, **{**NO_L2, "r9": r9})
        return made.word, made.regs["r8"]

    fresh = 1 << 39 | 3
    assert add(fresh, page) == add(fresh, page | NOT_USED) == (0, NO_PAGE)
    assert add(3, page, 1) == (0, page | NOT_USED)
    assert add(3, page | NOT_USED) == (0xC0000B0D00000001, page)
    assert add(3, page, 1, 0) == (0xC000010000000009, page | NOT_USED)
    assert add(fresh, page, 0, 0) == (0xC000010000000009, page)
    assert add(3, NO_PAGE) == (0, NO_PAGE)
    assert add(fresh, NO_PAGE)[0] == 0xC0000B0D00000001


def test_DISPATCH__SERVTD_BIND_asks_first_whether_both_operands_name_one_TD() -> None:
    p, td = with_td("")
    leaf = next(leaf for leaf, gap in UNMODELLED.items() if gap.name == "TDH.SERVTD.BIND")
    for rdx, status in ((0, 0xC000010000000002), (td.tdr, 0xC000010100000001)):
        went = p.fork()
        assert isinstance(call(went, 0, **dict.fromkeys(("rcx", "r8", "r9", "r10"), 0), rdx=rdx, rax=leaf), Left)
        assert went.lp(0).rax == status


GARBAGE = {"rcx": 0x11, "rdx": 0x12, "r8": 0x13, "r9": 0x14, "r10": 0x15, "r11": 0x16}
ZEROED = {
    "rcx rdx": (5, 6, 7, 15, 25, 29, 39, 75, 85, 86, 87), "rcx rdx r8": (12, 14), "r8": (11, 13, 26),
    "rcx rdx r8 r9 r10 r11": (24,), "rcx r10 r11": (48,), "rdx": (72, 73, 74),
    "": (41, 49, 64, 65, 66, 68, 70, 71, 80, 81, 82, 83, 84, 96),
}
"""Which registers the handlers of leaves that are not covered here have zeroed when they refuse the first operand."""


@pytest.mark.parametrize("names", ZEROED)
def test_DISPATCH__a_leaf_that_is_not_covered_zeroes_what_the_real_one_does(names: str) -> None:
    p, _ = with_td("")
    for leaf in ZEROED[names]:
        went = p.fork()
        assert isinstance(call(went, 0, **GARBAGE, rax=leaf), Left)
        assert went.lp(0).rax >> 32 in (0xC0000100, 0xC0000101)
        assert {name: getattr(went.lp(0), name) for name in GARBAGE} == {**GARBAGE, **dict.fromkeys(names.split(), 0)}
