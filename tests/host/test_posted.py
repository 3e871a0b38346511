"""What came behind the merge: Dynamic PAMT, module extensions; and a bit of TDX_FEATURES0 that an update changes."""

from __future__ import annotations

import pytest

from seamref.host import abi
from seamref.host.abi import Errno, Leaf
from seamref.host.install import seamldr_install_module
from seamref.host.kernel import Host
from seamref.host.machine import add_tds, blob_for, cold, count_of, machine
from seamref.host.scenarios import bit_changes
from seamref.host.script import COMPLETES, Rule, Script
from seamref.host.series import ALL, DICE, DPAMT, MERGED, POSTED, SERIES, get_series
from seamref.host.tdx import GIB, TDMR_BASE, pamt_get, tdx_enable

EXT = abi.FEATURES0_EXT | abi.FEATURES0_QUOTE


def test_POSTED__is_behind_the_merge_and_not_in_the_series() -> None:
    assert set(POSTED) & set(SERIES) == set() and list(ALL)[-2:] == ["extensions-v2", "dynamic-pamt"]
    assert all(s.based_on == "merged" and s.image_rules == "merged" for s in POSTED.values())
    assert get_series("dynamic-pamt") is DPAMT


@pytest.mark.parametrize("series", POSTED.values(), ids=lambda s: s.name)
def test_POSTED__with_a_module_of_today_nothing_changes(series: object) -> None:
    host = machine(2, series=series)  # type: ignore[arg-type]
    (td,) = add_tds(host)
    assert count_of(host, td) == 1
    host.set(script=Script())
    assert seamldr_install_module(host, blob_for(host.series)) is Errno.OK
    assert count_of(host, td) == 2 and host.state.script is not None
    assert [one.leaf for one in host.state.script.asked if one.leaf & 0xFF == Leaf.TDH_SYS_UPDATE] == [53]


def test_POSTED_config__Dynamic_PAMT_is_R8_bit_16_and_a_bitmap() -> None:
    bit = abi.FEATURES0_DYNAMIC_PAMT
    asked = bit_changes(DPAMT, bit, True, True)
    assert asked.booted == (45, 1 << 16 | 32, 0) and asked.page == "0"
    assert bit_changes(DPAMT, bit, False, False).booted == (45, 32, 0)
    assert bit_changes(MERGED, bit, True, True).booted == (45, 32, 0)
    host = boot(DPAMT, bit)
    assert "virt/tdx: Enable Dynamic PAMT" in host.state.dmesg
    assert "virt/tdx: 44 KB allocated for PAMT" in host.state.dmesg  # 4108 KB without: one bit for 16 bytes
    assert "virt/tdx: 4108 KB allocated for PAMT" in boot(DPAMT, 0).state.dmesg


def boot(series: object, bits: int, *rules: Rule) -> Host:
    host = Host(cold(2), series)  # type: ignore[arg-type]

    def field(id: int, value: int) -> Rule:
        return Rule(leaf=34, rdx=id, out=(("r8", value),))

    host.set(script=Script((
        *rules, field(abi.FIELD_TDX_FEATURES0, abi.FEATURES0_NO_RBP_MOD | abi.FEATURES0_TD_PRESERVING | bits),
        field(abi.FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS, 1),
        *(field(id, 16) for id in (0x9100000100000010, 0x9100000100000011, 0x9100000100000012)),
        Rule(leaf=36, out=(("rdx", TDMR_BASE + GIB),)), COMPLETES)))
    assert tdx_enable(host) is Errno.OK
    return host


def leaves(host: Host) -> list[int]:
    assert host.state.script is not None
    return [one.leaf for one in host.state.script.asked]


def test_POSTED_dpamt_get__two_pages_for_a_region_and_EIO_when_refused() -> None:
    host = boot(DPAMT, abi.FEATURES0_DYNAMIC_PAMT)
    held = len(host.state.heap)
    assert pamt_get(host, TDMR_BASE + 0x201000) is Errno.OK and len(host.state.heap) == held + 1
    assert host.state.script is not None
    call = host.state.script.asked[-1]
    assert call.leaf == 58 and call["rcx"] == TDMR_BASE + 0x200001 and call["r8"] == call["rdx"] + 4096
    host.set(script=Script((Rule(leaf=58, rax=abi.TDX_OPERAND_INVALID_RAX),)))
    assert pamt_get(host, TDMR_BASE) is Errno.EIO and len(host.state.heap) == held + 1
    assert pamt_get(boot(DPAMT, 0), TDMR_BASE) is Errno.OK  # not asked for


def test_POSTED_ext_boot__pages_then_INIT_again_while_interrupted() -> None:
    wants = (Rule(leaf=34, rdx=abi.FIELD_EXT_REQUIRED_PAGES, out=(("r8", 600),)),
             Rule(leaf=34, rdx=abi.FIELD_EXT_REQUIRED, out=(("r8", 1),)))
    again = Rule(leaf=60, nth_to=1, rax=abi.TDX_INTERRUPTED_RESUMABLE)
    part = Rule(leaf=61, nth_to=0, rax=abi.TDX_INTERRUPTED_RESUMABLE, out=(("rcx", 0x1234),))
    host = boot(DICE, EXT, *wants, again, part)
    made = leaves(host)
    assert made.count(61) == 3 and made.count(60) == 3 and made.count(100) == 1  # 512 and 88 pages, one interrupted
    assert host.state.script is not None
    lists = [one["rcx"] for one in host.state.script.asked if one.leaf == 61]
    assert lists[0] >> 55 == 511 and lists[1] == 0x1234 and lists[2] >> 55 == 87  # the block as it came back
    assert "virt/tdx: 2400 KB consumed for TDX module extensions" in host.state.dmesg
    quote = boot(DICE, EXT, *wants, Rule(leaf=100, rax=1))
    assert any("init_tdx_quoting_extension" in line for line in quote.state.dmesg)  # warns, and TDX comes up
    assert 60 not in leaves(boot(DICE, EXT))  # nothing requires them


def test_POSTED_ext_boot__a_refusal_fails_the_boot_with_EFAULT() -> None:
    wants = (Rule(leaf=34, rdx=abi.FIELD_EXT_REQUIRED_PAGES, out=(("r8", 1),)),
             Rule(leaf=34, rdx=abi.FIELD_EXT_REQUIRED, out=(("r8", 1),)))
    for leaf in (60, 61):
        with pytest.raises(AssertionError):
            boot(DICE, EXT, *wants, Rule(leaf=leaf, rax=1))


def test_POSTED_ext_update__pages_behind_the_point_of_no_return_are_EFAULT() -> None:
    assert bit_changes(DICE, EXT, True, True, pages=(10, 0)).error == ""
    refused = bit_changes(DICE, EXT, True, True, pages=(10, 1))
    assert refused.error == "transferring:firmware-invalid" and refused.page == "no module"
    assert bit_changes(DICE, EXT, True, True).booted == (0x1002D, 32, abi.FEATURES0_QUOTE)


@pytest.mark.parametrize("name", ALL)
def test_UPDATE_features__what_a_running_kernel_notices_of_a_changed_bit(name: str) -> None:
    """Versions v2 to v7 warned; from v8 on nothing reads the features again."""
    series = ALL[name]
    for before, after in ((True, False), (False, True)):
        seen = bit_changes(series, abi.FEATURES0_DYNAMIC_PAMT, before, after)
        assert seen.believes is before and seen.error == ""
        warned = any("TDX_FEATURES0 changed" in line for line in seen.lines)
        assert warned == (name in ("v2", "v3", "v4", "v5", "v6", "v7")), name
        assert seen.page == ("-EIO" if name == "dynamic-pamt" and before else "0")


def test_WHY__each_reason_names_fields_that_this_version_changed_and_a_message() -> None:
    from seamref.host.series import WHY

    versions = list(SERIES)
    for reason in WHY:
        before = SERIES[versions[versions.index(reason.version) - 1]]
        for name in reason.changed:
            assert getattr(before, name) != getattr(SERIES[reason.version], name), (reason.version, name)
        assert "@" in reason.source and reason.why
