"""Where the TDX module's judgements of the platform and of TDMRs begin: both sides of every edge, without a boot.

The functions are asked with the facts themselves (CPUID, MSRs, MCHECK's table, a TDMR_INFO) in place of a call that
finds them; calls that are really made are in the other files of this folder.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from seamref.arch import lab
from seamref.arch.cpuid import Cpuid
from seamref.arch.memory import Range
from seamref.arch.software import Ud2
from seamref.tdxmodule.demands import PIN, PROC, PROC2, Controls
from seamref.tdxmodule.status import Status, pack
from seamref.tdxmodule.structures import MAX_CMRS, TDMR_ENTRY
from seamref.tdxmodule.system import config, platform
from seamref.tdxmodule.system.config import SYS_CONFIG_TDMR, TdmrCheck, accepted, covered, usable_parts

GIB, PAGE = 1 << 30, 4096
S = Status


class Facts:
    """A processor that is nothing but what the functions ask about."""

    def __init__(self, patch: pytest.MonkeyPatch, cpuid: dict[tuple[int, int], Cpuid] | None = None,
                 msrs: dict[int, int] | None = None, table: dict[str, int] | None = None, later: bool = True) -> None:
        self.platform, self.lp, self.said = PLATFORM, PLATFORM.lp(0), {}  # type: ignore[var-annotated]
        self.new = later
        leaves, values, names = cpuid or {}, msrs or {}, table or {}
        patch.setattr(platform, "cpuid", lambda p, lp, leaf, sub=0: leaves.get((leaf, sub), Cpuid(0, 0, 0, 0)))
        patch.setattr(platform, "msr_of", lambda c, address: values.get(address, 0))
        patch.setattr(platform, "mcheck", lambda c: SimpleNamespace(num=lambda name: names.get(name, 0)))

    def has(self, knob: object) -> bool:
        return self.new

    def out(self, **registers: int) -> None:
        self.said.update(registers)


PLATFORM = lab.platform()


def leaf(eax: int = 0, ebx: int = 0, ecx: int = 0, edx: int = 0) -> Cpuid:
    return Cpuid(eax, ebx, ecx, edx)


# --- CPUID


@pytest.mark.parametrize(("number", "highest", "asked"), [
    (0x15, 0x14, False), (0x15, 0x15, True), (0x15, 0x16, True), (0x80000008, 0x80000007, False),
    (0x80000008, 0x80000008, True),
])
def test_SYS_INIT_cpuid_value__a_leaf_above_the_highest_is_0(
    monkeypatch: pytest.MonkeyPatch, number: int, highest: int, asked: bool
) -> None:
    top = number & 0x80000000
    facts = Facts(monkeypatch, {(top, 0): leaf(highest), (number, 0): leaf(1, 2, 3, 4), (number, 3): leaf(5)})
    assert platform.leaf_cpuid(facts, number, platform.WHOLE) == (leaf(1, 2, 3, 4) if asked else leaf())
    assert platform.leaf_cpuid(facts, number, 3) == (leaf(5) if asked else leaf())


def test_SYS_INIT_cpuid_value__what_the_output_registers_say(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts(monkeypatch)
    assert platform.cpuid_out(facts, 7, 2, leaf(1, 2, 3, 4))
    assert facts.said == {"rcx": 7 | 2 << 32, "rdx": 1 | 2 << 32, "r8": 3 | 4 << 32}
    assert platform.cpuid_out(facts, 7, 2, leaf(1, 2, 3, 4), leaf(5, 6, 7, 8))
    assert (facts.said["r9"], facts.said["r10"]) == (5 | 6 << 32, 7 | 8 << 32)


@pytest.mark.parametrize(("version", "wrong"), [(0, True), (4, True), (5, False), (6, False), (0x104, True)])
def test_SYS_INIT_perfmon__version_5_in_the_low_byte(
    monkeypatch: pytest.MonkeyPatch, version: int, wrong: bool
) -> None:
    facts = Facts(monkeypatch, {(0xA, 0): leaf(version)})
    assert platform.perfmon_wrong(facts) is wrong
    assert facts.said == ({"rcx": 0xA | 0xFFFFFFFF << 32, "rdx": 0xFF, "r8": 0, "r9": 5, "r10": 0} if wrong else {})


@pytest.mark.parametrize(("la57", "width", "wrong"), [
    (0, 48, False), (0, 47, True), (0, 49, True), (0, 57, True), (1, 57, False), (1, 56, True), (1, 58, True),
    (1, 48, True),
])
def test_SYS_INIT_linear_width__57_with_LA57_48_without(
    monkeypatch: pytest.MonkeyPatch, la57: int, width: int, wrong: bool
) -> None:
    facts = Facts(monkeypatch, {(7, 0): leaf(ecx=la57 << 16), (0x80000008, 0): leaf(width << 8 | 0x34)})
    assert platform.linear_width_wrong(facts) is wrong
    want = 57 if la57 else 48
    assert facts.said == ({"rcx": 0x80000008 | 0xFFFFFFFF << 32, "rdx": 0xFF00, "r8": 0, "r9": want << 8, "r10": 0}
                          if wrong else {})


@pytest.mark.parametrize(("crystal", "eax", "ebx", "depth", "stops"), [
    (152588, 1, 1, 1, False), (152587, 1, 1, 1, True), (152588, 0, 1, 1, False), (152588, 2, 2, 1, False),
    (152588, 2, 1, 1, True), (76294, 1, 2, 1, False), (0, 1, 1, 1, True), (152588, 1, 1, 0, True),
    (152588, 1, 1, 0x80, False), (152588, 1, 1, 0x100, True),
])
def test_SYS_INIT_fatal__a_slow_TSC_or_no_last_branch_records_stop_the_platform(
    monkeypatch: pytest.MonkeyPatch, crystal: int, eax: int, ebx: int, depth: int, stops: bool
) -> None:
    facts = Facts(monkeypatch, {(0, 0): leaf(0x23), (0x15, 0): leaf(eax, ebx, crystal), (0x1C, 0): leaf(depth)})
    if stops:
        with pytest.raises(Ud2):
            platform.stop_if_slow(facts)
    else:
        assert platform.stop_if_slow(facts) is False


@pytest.mark.parametrize(("levels", "wrong", "no_core"), [
    ([1, 2], False, False), ([2], False, False), ([1, 3], False, True), ([1], False, True), ([], False, True),
    ([2, 1], True, False), ([1, 1, 2], True, False), ([1, 2, 5], False, False), ([1, 2, 6], True, False),
    ([1, 2, 0, 5, 4], False, False), ([1, 2, 3, 4, 5], False, False),
])
def test_SYS_INIT_cpuid_1f__levels_ascend_below_6_up_to_the_first_0(
    monkeypatch: pytest.MonkeyPatch, levels: list[int], wrong: bool, no_core: bool
) -> None:
    facts = Facts(monkeypatch, {(0x1F, i): leaf(ecx=level << 8 | i) for i, level in enumerate(levels)})
    assert (platform.topology_wrong(facts), platform.no_core_level(facts)) == (wrong, no_core)


def test_SYS_INIT_cpuid_1f__six_levels_are_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts(monkeypatch, {(0x1F, i): leaf(ecx=1 << 8) for i in range(9)})
    assert platform._levels(facts) == [1] * 6


@pytest.mark.parametrize(("shift", "sharing", "wrong"), [
    (0, 0, False), (0, 0xFFF, False), (1, 1, False), (1, 0, True), (4, 15, False), (4, 8, False), (4, 7, True),
    (4, 16, True), (7, 127, False), (7, 63, True), (7, 128, True),
])
def test_SYS_INIT_wbinvd_scope__the_cache_of_a_package_fills_its_id_bits(
    monkeypatch: pytest.MonkeyPatch, shift: int, sharing: int, wrong: bool
) -> None:
    facts = Facts(monkeypatch, {(0x1F, 0): leaf(9, ecx=0x100), (0x1F, 1): leaf(shift | 0x20, ecx=0x200),
                                (4, 3): leaf(sharing << 14 | 0x3FFF)})
    assert platform.l3_wrong(facts) is wrong


# --- MSRs


ONES = Controls(0x48D, 0b0011, 0b0100, 0b1000)


@pytest.mark.parametrize(("fixed1", "allowed1", "fits"), [
    (0, 0b0111, True), (0, 0b1111, True), (0b1000, 0b1111, True), (0b0001, 0b0111, True), (0b0011, 0b0111, True),
    (0, 0b0110, False), (0, 0b0101, False), (0, 0b0011, False), (0b0100, 0b0111, False), (0b10000, 0b11111, False),
])
def test_SYS_INIT_vmx_pin__ones_are_allowed_variable_ones_both_ways_others_may_be_0(
    monkeypatch: pytest.MonkeyPatch, fixed1: int, allowed1: int, fits: bool
) -> None:
    assert platform.allowed(Facts(monkeypatch, msrs={0x48D: allowed1 << 32 | fixed1}), ONES) is fits


def test_SYS_INIT_vmx_pin__a_control_that_must_and_may_not_be_1_is_fatal(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Ud2):
        platform.allowed(Facts(monkeypatch, msrs={0x48D: 0b0111 << 32 | 0b1000}), ONES)


@pytest.mark.parametrize("controls", [PIN, PROC])
def test_SYS_INIT_vmx_proc__each_control_that_is_set_or_changed_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, controls: Controls
) -> None:
    full = controls.ones | controls.variable | controls.unknown
    assert platform.allowed(Facts(monkeypatch, msrs={controls.msr: full << 32}), controls)
    for bit in range(32):
        lacks = Facts(monkeypatch, msrs={controls.msr: (full & ~(1 << bit)) << 32})
        assert platform.allowed(lacks, controls) is not bool((controls.ones | controls.variable) >> bit & 1)


@pytest.mark.parametrize(("enclv", "waitpkg", "bit26", "fits"), [
    (1, 0, 0, True), (1, 1, 0, False), (1, 1, 1, True), (0, 0, 0, True), (0, 1, 0, True),
])
def test_SYS_INIT_vmx_proc2__ENCLV_and_WAITPKG_count_where_the_processor_has_them(
    monkeypatch: pytest.MonkeyPatch, enclv: int, waitpkg: int, bit26: int, fits: bool
) -> None:
    controls = PROC2._replace(variable=0)
    allowed1 = controls.ones & ~(1 << 28) & ~(1 << 26) | enclv << 28 | bit26 << 26
    facts = Facts(monkeypatch, {(7, 0): leaf(ecx=waitpkg << 5)}, {0x48B: allowed1 << 32})
    assert platform.proc2_allowed(facts, controls) is fits


@pytest.mark.parametrize(("value", "level_2", "later", "ddpd", "fits"), [
    (0x20, False, True, 0, True), (0, False, True, 0, False), (0x20, False, True, 1, False),
    (0xA0, False, True, 1, True), (0x20, False, False, 0, False), (0xA0, False, False, 0, True),
    (0x20, True, True, 0, False), (0x2E, True, True, 0, True), (0x2C, True, True, 0, False),
    (0x80, False, False, 0, False),
])
def test_SYS_INIT_vmx_proc3__virtual_SPEC_CTRL_in_1_5_01_or_where_DDPD_U_is(
    monkeypatch: pytest.MonkeyPatch, value: int, level_2: bool, later: bool, ddpd: int, fits: bool
) -> None:
    facts = Facts(monkeypatch, {(7, 2): leaf(edx=ddpd << 3)}, {0x492: value}, later=later)
    assert platform.proc3_allowed(facts, level_2) is fits


@pytest.mark.parametrize(("address", "value", "function", "fits"), [
    (0x485, 0x200040E0 | 4 << 16, platform.misc_ok, True), (0x485, 0x200040E0 | 3 << 16, platform.misc_ok, False),
    (0x485, 0x200040E0 | 5 << 16, platform.misc_ok, True), (0x485, 0x200040C0 | 4 << 16, platform.misc_ok, False),
    (0x485, 0x200040E0 | 0x100 << 16, platform.misc_ok, True),
    (0x485, 0x204 << 16 | 0x200040E0, platform.misc_ok, True),
    (0x480, 3 << 54 | 4096 << 32, platform.basic_ok, True), (0x480, 3 << 54 | 4097 << 32, platform.basic_ok, False),
    (0x480, 3 << 54 | 4095 << 32, platform.basic_ok, True), (0x480, 1 << 54 | 4096 << 32, platform.basic_ok, False),
    (0x480, 2 << 54 | 4096 << 32, platform.basic_ok, False),
    (0x480, 3 << 54 | (1 << 45) | 4096 << 32, platform.basic_ok, True),
    (0x10A, 0x20FD6B, platform.arch_ok, True), (0x10A, 0x20FD6B | 1 << 2, platform.arch_ok, False),
    (0x10A, 0x20FD6B | 1 << 18, platform.arch_ok, False), (0x10A, 0x20FD6B | 1 << 4, platform.arch_ok, True),
    (0x10A, 0x20FD6A, platform.arch_ok, False),
    (0x1A0, 1 << 22, platform.cpuid_limited, True), (0x1A0, ~(1 << 22), platform.cpuid_limited, False),
])
def test_SYS_INIT__capability_MSRs_bit_by_bit(
    monkeypatch: pytest.MonkeyPatch, address: int, value: int, function: Any, fits: bool
) -> None:
    assert function(Facts(monkeypatch, msrs={address: value})) is fits


def test_SYS_INIT__what_1_5_01_does_not_ask_for(monkeypatch: pytest.MonkeyPatch) -> None:
    old = Facts(monkeypatch, msrs={0x10A: 0x20FD6B | 1 << 18}, later=False)
    assert platform.arch_ok(old) and platform.perf_capabilities(old) == 1 << 13 and not platform.later(old)
    new = Facts(monkeypatch, msrs={0x10A: 0x20FD6B | 1 << 18})
    assert not platform.arch_ok(new) and platform.perf_capabilities(new) == 3 << 12 and platform.later(new)


@pytest.mark.parametrize(("activate", "capability", "access_control", "blamed"), [
    (1 | 1 << 48, 1, 1, None), (1 | 4 << 48, 4, 1, None), (1 | 2 << 48, 2, 0, None), (1 | 8 << 48, 8, 0, None),
    (1 << 48, 1, 1, 0x982), (0xFFFE | 1 << 48, 1, 1, 0x982), (1 | 1 << 48, 2, 1, 0x981), (1 | 2 << 48, 1, 0, 0x981),
    (1 | 2 << 48, 1, 1, 0x982), (1 | 1 << 48, 2, 0, 0x982), (1, 1, 1, 0x982), (0, 0, 0, 0x982),
])
def test_SYS_INIT_tme__locked_and_an_algorithm_of_the_platform_s_kind(
    monkeypatch: pytest.MonkeyPatch, activate: int, capability: int, access_control: int, blamed: int | None
) -> None:
    facts = Facts(monkeypatch, msrs={0x982: activate, 0x981: capability}, table={"tdx_ac": access_control})
    assert platform.tme_wrong(facts) == blamed


@pytest.mark.parametrize(("value", "low", "high"), [
    (63 | 64 << 32, 64, 127), (0 | 1 << 32, 1, 1), (0xFFFFFFFF | 2 << 32, 1 << 32, (1 << 32) + 1),
])
def test_SYS_INIT_hkids__private_ones_follow_the_others(
    monkeypatch: pytest.MonkeyPatch, value: int, low: int, high: int
) -> None:
    assert platform.hkid_range(Facts(monkeypatch, msrs={0x87: value})) == (low, high)


# --- CMRs and SMRR


def table_of(*ranges: tuple[int, int]) -> dict[str, int]:
    return {f"cmr[{i}].{name}": value for i, pair in enumerate(ranges)
            for name, value in zip(("base", "size"), pair, strict=True)}


TOP = 1 << PLATFORM.config.maxpa - PLATFORM._k
"""The first address with a KeyID."""


@pytest.mark.parametrize(("ranges", "wrong"), [
    ([], False), ([(0, PAGE)], False), ([(0, PAGE), (PAGE, PAGE)], False), ([(0, 2 * PAGE), (PAGE, PAGE)], True),
    ([(0, 2 * PAGE), (2 * PAGE - 1, PAGE)], True), ([(PAGE, PAGE), (0, PAGE)], True), ([(1, PAGE)], True),
    ([(0, PAGE + 1)], True), ([(0, PAGE - 1)], True), ([(0, PAGE), (1, 0), (PAGE, PAGE)], False),
    ([(TOP - PAGE, PAGE)], False), ([(TOP - PAGE, 2 * PAGE)], True), ([(1 << 52, PAGE)], True),
    ([((1 << 52) - PAGE, PAGE)], True),
])
def test_SYS_INIT_cmrs__pages_ascending_apart_and_without_KeyID(
    monkeypatch: pytest.MonkeyPatch, ranges: list[tuple[int, int]], wrong: bool
) -> None:
    facts = Facts(monkeypatch, table=table_of(*ranges))
    assert platform.cmrs_wrong(facts) is wrong
    assert platform.cmr_ranges(facts) == [Range(*pair) for pair in ranges if pair[1]]


def test_SYS_INIT_cmrs__32_entries_are_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    facts = Facts(monkeypatch, table=table_of(*((i * PAGE, PAGE) for i in range(MAX_CMRS + 1))))
    assert len(platform.cmr_ranges(facts)) == MAX_CMRS == 32


VALID, LOCKED = 1 << 11, 1 << 10
EIGHT = 0xFF800000 | VALID | LOCKED
"""The mask of 8 MiB."""


def smrr(monkeypatch: pytest.MonkeyPatch, first: tuple[int, int], second: tuple[int, int] = (0, 0), cap: int = 0,
         skip: int = 0, cmrs: tuple[tuple[int, int], ...] = ()) -> Facts:
    values = dict(zip((0x1F2, 0x1F3), first, strict=True)) | {platform.SMRR2_BASE: second[0],
                                                              platform.SMRR2_MASK: second[1], 0xFE: cap}
    assert (platform.SMRR_BASE, platform.SMRR_MASK) == (0x1F2, 0x1F3)
    return Facts(monkeypatch, msrs=values, table={"skip_smrr2_check": skip, **table_of(*cmrs)})


@pytest.mark.parametrize(("cap", "skip", "count"), [(0, 0, 1), (1 << 13, 0, 2), (1 << 13, 1, 1), (~(1 << 13), 0, 1)])
def test_SYS_INIT_smrr__the_second_one_counts_where_it_is_and_MCHECK_knows_it(
    monkeypatch: pytest.MonkeyPatch, cap: int, skip: int, count: int
) -> None:
    facts = smrr(monkeypatch, (1, 2), (3, 4), cap, skip)
    assert platform.smrrs(facts) == [(1, 2), (3, 4)][:count]


@pytest.mark.parametrize(("first", "second", "unlocked"), [
    (EIGHT, EIGHT, None), (EIGHT & ~LOCKED, EIGHT, 0), (EIGHT, EIGHT & ~LOCKED, 1), (0, 0, 0), (LOCKED, LOCKED, None),
])
def test_SYS_INIT_smrr_locked__which_one_is_not(
    monkeypatch: pytest.MonkeyPatch, first: int, second: int, unlocked: int | None
) -> None:
    assert platform.smrr_unlocked(smrr(monkeypatch, (0, first), (0, second), 1 << 13)) == unlocked


@pytest.mark.parametrize(("base", "mask", "malformed"), [
    (0x7B000000, EIGHT, False), (0x7B000006, EIGHT, False), (0x7B400000, EIGHT, True), (0x7B001000, EIGHT, True),
    (0x7B000000, EIGHT & ~(1 << 30), True), (0x7B000000, EIGHT & ~(1 << 31), True),
    (0x7B000000, 0xFFFFF000 | VALID, False),
    (0x7B001000, 0xFFFFF000 | VALID, False), (0, VALID, True), (0x7B000000, EIGHT | 0x3FF, False),
    (0x80000000, 0x80000000 | VALID, False), (0x40000000, 0x80000000 | VALID, True),
])
def test_SYS_INIT_smrr_shape__mask_contiguous_to_bit_31_and_base_aligned_to_it(
    monkeypatch: pytest.MonkeyPatch, base: int, mask: int, malformed: bool
) -> None:
    facts = smrr(monkeypatch, (base, mask))
    assert platform.smrr_is(facts, S.TDX_INVALID_SMRR_CONFIGURATION) == (0 if malformed else None)
    assert platform.smrr_is(smrr(monkeypatch, (base, mask & ~VALID)), S.TDX_INVALID_SMRR_CONFIGURATION) is None
    both = smrr(monkeypatch, (0x7B000000, EIGHT), (base, mask), 1 << 13)
    assert platform.smrr_is(both, S.TDX_INVALID_SMRR_CONFIGURATION) == (1 if malformed else None)


@pytest.mark.parametrize(("cmrs", "details"), [
    (((0, 0x7B000000),), None), (((0, 0x7B001000),), pack(0, 0)), (((0x7B7FF000, PAGE),), pack(0, 0)),
    (((0x7B800000, PAGE),), None), (((0, PAGE), (0x7B000000, PAGE)), pack(0, 1)), (((0x7B000000, 0),), None),
])
def test_SYS_INIT_smrr_cmr__overlap_to_the_byte(
    monkeypatch: pytest.MonkeyPatch, cmrs: tuple[tuple[int, int], ...], details: int | None
) -> None:
    assert platform.smrr_is(smrr(monkeypatch, (0x7B000006, EIGHT), cmrs=cmrs), S.TDX_SMRR_OVERLAPS_CMR) == details
    second = smrr(monkeypatch, (0x10000000000 >> 8, EIGHT & ~VALID), (0x7B000006, EIGHT), 1 << 13, cmrs=cmrs)
    assert platform.smrr_is(second, S.TDX_SMRR_OVERLAPS_CMR) == (None if details is None else details + 1)


# --- TDMRs


def tdmr(base: int = GIB, size: int = GIB, areas: tuple[tuple[int, int], ...] = (), **fields: int) -> dict[str, Any]:
    """A TDMR_INFO whose PAMT lies 64 GiB above it, each level on its own GiB."""
    at = base + 64 * GIB
    found: dict[str, Any] = {"base": base, "size": size}
    for i, (name, shift) in enumerate((("4k", 12), ("2m", 21), ("1g", 30))):
        need = (size >> shift) * 16
        found |= {f"pamt_{name}_base": at + i * GIB, f"pamt_{name}_size": -(-need // PAGE) * PAGE}
    found["reserved_areas"] = [{"offset": o, "size": s} for o, s in (*areas, *[(0, 0)] * (16 - len(areas)))]
    return found | fields


MEMORY = [Range(0, 256 * GIB)]


def judged(info: dict[str, Any], before: tuple[dict[str, Any], ...] = (), cmrs: list[Range] | None = None) -> Any:
    """(clause, details) of the row that decides on a TDMR, None where it passes."""
    call: Any = SimpleNamespace(platform=PLATFORM)
    check = TdmrCheck(call, len(before), info, list(before), MEMORY if cmrs is None else cmrs)
    row = SYS_CONFIG_TDMR.decide(check)
    return None if row is None else (row.id.removeprefix("SYS.CONFIG.TDMR."), check.found)


@pytest.mark.parametrize(("info", "expected"), [
    (tdmr(), None), (tdmr(0), None), (tdmr(GIB + PAGE), ("shape", 0)), (tdmr(size=GIB + PAGE), ("shape", 0)),
    (tdmr(size=0), ("shape", 0)), (tdmr(base=(1 << 64) - GIB), ("overflow", 0)),
    (tdmr(base=(1 << 64) - 2 * GIB), ("shape", 0)), (tdmr(base=TOP - GIB, pamt_4k_base=0, pamt_2m_base=GIB,
                                                          pamt_1g_base=2 * GIB), ("outside", 0)),
    (tdmr(base=TOP - GIB, size=2 * GIB), ("shape", 0)), (tdmr(base=TOP), ("shape", 0)), (tdmr(base=1 << 52),
    ("shape", 0)),
])
def test_SYS_CONFIG_TDMR_shape__GiB_multiples_below_the_KeyIDs(info: dict[str, Any], expected: Any) -> None:
    assert judged(info) == expected


@pytest.mark.parametrize(("base", "expected"), [(2, None), (1, ("order", 1)), (0, ("order", 1)), (3, None)])
def test_SYS_CONFIG_TDMR_order__behind_the_end_of_the_one_before(base: int, expected: Any) -> None:
    assert judged(tdmr(base * GIB, pamt_4k_base=80 * GIB, pamt_2m_base=81 * GIB, pamt_1g_base=82 * GIB),
                  (tdmr(GIB),)) == expected


HALF = GIB // 2


@pytest.mark.parametrize(("areas", "expected"), [
    (((0, PAGE),), None), (((0, GIB),), None), (((GIB - PAGE, PAGE),), None), (((GIB - PAGE, 2 * PAGE),),
    ("reserved", 0)),
    (((GIB, PAGE),), ("reserved", 0)), (((1, PAGE),), ("reserved", 0)), (((0, PAGE + 1),), ("reserved", 0)),
    (((0, PAGE), (PAGE, PAGE)), None), (((0, 2 * PAGE), (PAGE, PAGE)), ("reserved_order", 1)),
    (((0, 2 * PAGE), (2 * PAGE - 1, PAGE)), ("reserved_order", 1)), (((PAGE, PAGE), (0, PAGE)), ("reserved_order", 1)),
    (((0, 0), (0, PAGE)), ("reserved_order", 0)), (((0, PAGE), (9, 0), (HALF, PAGE)), ("reserved_order", 1)),
    (((0, PAGE), (0, (1 << 64) - 1)), ("reserved_order", 1)), (((0, PAGE), (PAGE - 1, (1 << 64) - PAGE)),
    ("reserved_order", 1)),
    (((PAGE, PAGE), (PAGE, (1 << 64) - PAGE)), ("reserved", 1)),
    (tuple((i * 2 * PAGE, PAGE) for i in range(16)), None),
    ((*((i * 2 * PAGE, PAGE) for i in range(15)), (0, PAGE)), ("reserved_order", 15)),
])
def test_SYS_CONFIG_TDMR_reserved__area_by_area(areas: tuple[tuple[int, int], ...], expected: Any) -> None:
    found = judged(tdmr(areas=areas))
    assert found == (None if expected is None else (expected[0], pack(0, expected[1])))


@pytest.mark.parametrize(("fields", "level"), [
    *(({f"pamt_{name}_size": need - PAGE}, level) for level, (name, need) in enumerate(
        (("4k", 4 << 20), ("2m", 8192), ("1g", PAGE)))),
    *(({f"pamt_{name}_base": 100 * GIB + 1}, level) for level, name in enumerate(("4k", "2m", "1g"))),
    *(({f"pamt_{name}_size": (4 << 20) + 1}, level) for level, name in enumerate(("4k", "2m", "1g"))),
    *(({f"pamt_{name}_base": TOP - PAGE, f"pamt_{name}_size": 8 << 20}, level)
      for level, name in enumerate(("4k", "2m", "1g"))),
    ({"pamt_4k_base": 1, "pamt_2m_base": 1, "pamt_1g_base": 1}, 2), ({"pamt_4k_base": 1, "pamt_2m_base": 1}, 1),
])
def test_SYS_CONFIG_TDMR_pamt__16_bytes_for_each_page_the_largest_level_first(
    fields: dict[str, int], level: int
) -> None:
    assert judged(tdmr(), cmrs=[Range(0, TOP)]) is None
    assert judged(tdmr(**fields), cmrs=[Range(0, TOP)]) == ("pamt", pack(0, level))


IN = 16 * GIB
"""Where the TDMR before lies; its PAMT is 64 GiB above."""


@pytest.mark.parametrize(("fields", "details"), [
    ({"pamt_2m_base": 65 * GIB + (4 << 20) - PAGE}, pack(1, 0, 1)), ({"pamt_2m_base": 65 * GIB + (4 << 20)}, None),
    ({"pamt_1g_base": 66 * GIB}, pack(1, 1, 1)),
    ({"pamt_4k_base": IN + 64 * GIB}, pack(1, 0, 0)), ({"pamt_1g_base": IN + 66 * GIB}, pack(1, 2, 0)),
    ({"pamt_1g_base": IN + 66 * GIB + PAGE}, None), ({"pamt_1g_base": IN + 66 * GIB - PAGE}, None),
    ({"pamt_2m_base": IN}, pack(1, 1, 0)), ({"pamt_2m_base": IN + GIB}, None), ({"pamt_2m_base": IN - 2 * PAGE}, None),
    ({"pamt_2m_base": IN - PAGE}, pack(1, 1, 0)), ({"pamt_4k_base": 20 * GIB}, pack(1, 0, 1)),
])
def test_SYS_CONFIG_TDMR_pamt_overlap__with_whose_area(fields: dict[str, int], details: int | None) -> None:
    info = tdmr(20 * GIB, **{"pamt_4k_base": 65 * GIB, "pamt_2m_base": 66 * GIB, "pamt_1g_base": 67 * GIB, **fields})
    assert judged(info, (tdmr(IN),)) == (None if details is None else ("pamt_overlap", details))


def test_SYS_CONFIG_TDMR_pamt_overlap__an_earlier_PAMT_in_this_TDMR_and_reserved_memory_does_not_count() -> None:
    earlier = tdmr(IN, pamt_2m_base=20 * GIB)
    assert judged(tdmr(20 * GIB), (earlier,)) == ("pamt_overlap", pack(0, 1, 1))
    assert judged(tdmr(20 * GIB, areas=((0, 2 * PAGE),)), (earlier,)) is None
    assert judged(tdmr(20 * GIB, areas=((0, PAGE),)), (earlier,)) == ("pamt_overlap", pack(0, 1, 1))
    own = tdmr(20 * GIB, areas=((HALF, 4 << 20),), pamt_4k_base=20 * GIB + HALF)
    assert judged(own) is None


@pytest.mark.parametrize(("cmrs", "expected"), [
    ([Range(GIB, GIB), Range(65 * GIB, 3 * GIB)], None),
    ([Range(GIB, GIB), Range(65 * GIB, 2 * GIB)], ("pamt_outside", pack(0, 2))),
    ([Range(GIB, GIB), Range(66 * GIB, 2 * GIB)], ("pamt_outside", pack(0, 0))),
    ([Range(GIB, GIB), Range(65 * GIB, GIB), Range(67 * GIB, GIB)], ("pamt_outside", pack(0, 1))),
    ([Range(GIB, GIB - PAGE), Range(65 * GIB, 3 * GIB)], ("outside", 0)),
    ([Range(GIB + PAGE, GIB - PAGE), Range(65 * GIB, 3 * GIB)], ("outside", 0)),
    ([Range(GIB, HALF), Range(GIB + HALF, HALF), Range(65 * GIB, 3 * GIB)], None),
    ([Range(GIB, HALF), Range(GIB + HALF + PAGE, HALF), Range(65 * GIB, 3 * GIB)], ("outside", 0)),
    ([], ("pamt_outside", pack(0, 2))),
])
def test_SYS_CONFIG_TDMR_outside__adjacent_CMRs_count_as_one(cmrs: list[Range], expected: Any) -> None:
    assert judged(tdmr(), cmrs=cmrs) == expected


@pytest.mark.parametrize(("areas", "parts"), [
    ((), [(0, GIB)]), (((0, GIB),), []), (((0, PAGE),), [(PAGE, GIB - PAGE)]),
    (((GIB - PAGE, PAGE),), [(0, GIB - PAGE)]),
    (((PAGE, PAGE), (2 * PAGE, PAGE)), [(0, PAGE), (3 * PAGE, GIB - 3 * PAGE)]),
    (((PAGE, PAGE), (4 * PAGE, PAGE)), [(0, PAGE), (2 * PAGE, 2 * PAGE), (5 * PAGE, GIB - 5 * PAGE)]),
    (((0, 0), (PAGE, PAGE)), [(0, GIB)]),
])
def test_usable_parts__what_is_between_the_reserved_areas(
    areas: tuple[tuple[int, int], ...], parts: list[tuple[int, int]]
) -> None:
    assert usable_parts(tdmr(areas=areas)) == [Range(GIB + at, size) for at, size in parts]


def test_covered__to_the_byte() -> None:
    cmrs = [Range(0, PAGE), Range(PAGE, PAGE), Range(4 * PAGE, PAGE)]
    for part, inside in (((0, 2 * PAGE), True), ((0, 2 * PAGE + 1), False), ((1, PAGE), True),
                         ((2 * PAGE, PAGE), False),
                         ((4 * PAGE, PAGE), True), ((4 * PAGE - 1, PAGE), False), ((3 * PAGE, 2 * PAGE), False)):
        assert covered(cmrs, Range(*part)) is inside, part


def test_SYS_CONFIG_pointers__what_is_kept_of_a_TDMR() -> None:
    info = tdmr(GIB, 2 * GIB, ((PAGE, PAGE), (4 * PAGE, PAGE)))
    entry = TDMR_ENTRY.decode(accepted(info))
    assert (entry.base, entry.size, entry.next_to_init, entry.pamt_blocks, entry.num_reserved) == (
        GIB, 2 * GIB, GIB, 2, 2)
    assert [(a.offset, a.size) for a in entry.reserved_areas] == [(PAGE, PAGE), (4 * PAGE, PAGE), *[(0, 0)] * 14]
    assert [entry[f"pamt_{name}_base"] for name in ("4k", "2m", "1g")] == [65 * GIB, 66 * GIB, 67 * GIB]
    full = TDMR_ENTRY.decode(accepted(tdmr(areas=tuple((i * 2 * PAGE, PAGE) for i in range(16)))))
    assert full.num_reserved == 16 and full.reserved_areas[15].offset == 30 * PAGE
    early = TDMR_ENTRY.decode(accepted(tdmr(areas=((0, PAGE), (7, 0)))))
    assert early.num_reserved == 1 and config.MAX_RESERVED == 16
