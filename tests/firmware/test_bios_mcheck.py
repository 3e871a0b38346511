"""BIOS and MCHECK: what a WRMSR refuses, what MCHECK finds, what nobody looks at."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import combinations
from typing import Any

import pytest

from seamref.arch import msr
from seamref.arch.memory import Agent, Range
from seamref.arch.outcome import Done, Fault
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.revision import SILICON, Integrity
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.arch.trace import MsrWritten, Step
from seamref.bootchain import make_boot, run_boot
from seamref.errors import SeamrefError
from seamref.firmware import bios
from seamref.firmware.bios import Setup
from seamref.firmware.mcheck import MCHECK, Approved, McheckState, NotApproved, mcheck

MASK_64M = ((1 << 52) - 1) & ~0x3FFFFFF & 0xFFFFFFFE000000


def programmed(config: PlatformConfig | None = None, revision: Any = SILICON, **setup: Any) -> Platform:
    """BIOS did its part on two packages; MCHECK comes next."""
    b = make_boot(config=config or PlatformConfig(topology=Topology(2, 2)), revision=revision, **setup)
    result = run_boot(b, until="seamrr")
    assert result.stopped_at is None
    return result.platform


def write(platform: Platform, lp: int, address: int, change: Callable[[int], int]) -> None:
    platform.set_msr(platform.lp(lp), address, change(platform.msr_value(platform.lp(lp), address)))


# clause -> what is wrong on the platform
WRONG: dict[str, Callable[[Platform], None]] = {
    "MCHECK.configured": lambda p: [write(p, i, 0x1400, lambda v: v & ~8) for i in p.lps] and None,
    "MCHECK.lock": lambda p: [write(p, i, 0x1401, lambda v: v & ~0x400) for i in p.lps] and None,
    "MCHECK.same_base": lambda p: write(p, 3, 0x1400, lambda v: v ^ 0x4000000),
    "MCHECK.same_mask": lambda p: write(p, 3, 0x1401, lambda v: v ^ 1 << 40),
    "MCHECK.mask": lambda p: [write(p, i, 0x1401, lambda v: v ^ 1 << 41) for i in p.lps] and None,
    "MCHECK.base": lambda p: [write(p, i, 0x1400, lambda v: v ^ 0x2000000) for i in p.lps] and None,
    "MCHECK.tme": lambda p: write(p, 2, 0x982, lambda v: v ^ 1 << 36),
}


@pytest.mark.parametrize("clause", WRONG)
def test_MCHECK__each_row_alone_leaves_VALID_0_everywhere(clause: str) -> None:
    platform = programmed()
    WRONG[clause](platform)
    memory = platform.store_.fingerprint()
    outcome = mcheck(platform, 0)
    assert isinstance(outcome, NotApproved) and outcome.clause == clause
    assert all(platform.seamrr(lp) is None for lp in platform.every_lp())
    assert platform.p_seamldr_range is None and platform.store_.fingerprint() == memory


@pytest.mark.parametrize("pair", combinations(WRONG, 2))
def test_MCHECK__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    platform = programmed()
    for clause in pair:
        WRONG[clause](platform)
    outcome = mcheck(platform, 0)
    assert isinstance(outcome, NotApproved) and outcome.clause == pair[0]


def test_MCHECK_tme__unlocked_in_one_package() -> None:
    platform = programmed()
    platform.package_msrs.pop((1, msr.TME_ACTIVATE))
    outcome = mcheck(platform, 0)
    assert isinstance(outcome, NotApproved) and outcome.clause == "MCHECK.tme"


@pytest.mark.parametrize("size", [0, 0x400800, 0x4000000, 0x8000000])
def test_MCHECK_range__whole_pages_inside_SEAMRR(size: int) -> None:
    outcome = mcheck(programmed(), 0, size)
    assert isinstance(outcome, NotApproved) and outcome.clause == "MCHECK.range"


@pytest.mark.parametrize("cmrs", [((0x100000, 0x1000),) * 33, ((0x100800, 0x1000),), ((0x100000, 0x1234),)])
def test_MCHECK_cmrs__at_most_32_and_whole_pages(cmrs: tuple[tuple[int, int], ...]) -> None:
    outcome = mcheck(programmed(PlatformConfig(topology=Topology(2, 2), cmrs=cmrs)), 0)
    assert isinstance(outcome, NotApproved) and outcome.clause == "MCHECK.cmrs"


def test_MCHECK_seam__without_SEAM() -> None:
    platform = Platform(PlatformConfig(has_SEAM=False))
    outcome = mcheck(platform, 0)
    assert isinstance(outcome, NotApproved) and outcome.clause == "MCHECK.seam"


def test_MCHECK__every_row_has_a_case() -> None:
    assert {row.id for row in MCHECK} == {*WRONG, "MCHECK.range", "MCHECK.cmrs", "MCHECK.seam"}


def test_MCHECK_configured__a_revision_without_the_bit_does_not_ask() -> None:
    revision = replace(SILICON, name="test", base_bit3_configured=False)
    platform = programmed(revision=revision)
    assert isinstance(mcheck(platform, 0), Approved)


def test_MCHECK_approve__range_at_the_top_VALID_on_every_core_and_everybody_is_told() -> None:
    platform = programmed()
    seen: list[object] = []
    platform.listeners.append(seen.append)
    outcome = mcheck(platform, 0)
    assert outcome == Approved(Range(0x7C000000, 0x4000000), Range(0x7FC00000, 0x400000))
    assert platform.p_seamldr_range == Range(0x7FC00000, 0x400000)
    assert all(platform.seamrr(lp) == Range(0x7C000000, 0x4000000) for lp in platform.every_lp())
    assert [e.lp for e in seen if isinstance(e, MsrWritten)] == [0, 1, 2, 3]
    assert [e.component for e in seen if isinstance(e, Step)] == ["MCHECK"]


def test_MCHECK_table__what_it_says_of_the_platform_and_that_the_high_half_is_not_its_business() -> None:
    config = PlatformConfig(topology=Topology(2, 3), fms=(0xC06F2, 0xC06F1),
                            cmrs=((0x100000, 0x1000), (1 << 32, 1 << 30)))
    platform = programmed(config, revision=replace(SILICON, name="test", integrity=Integrity.AC))
    platform.store(Agent.CPU, 0x7FFFF800, b"\x5a" * 16)
    mcheck(platform, 0)
    record = P_SYS_INFO_TABLE.decode(platform.bytes_at(Agent.CPU, 0x7FFFF000, 4096))
    assert (record.version, record.tot_num_lps, record.tot_num_sockets) == (0, 6, 2)
    assert record.socket_cpuid_table == [0xC06F2, 0xC06F1, 0, 0, 0, 0, 0, 0]
    assert (record.p_seamldr_range_base, record.p_seamldr_range_size) == (0x7FC00000, 0x400000)
    assert [(c.base, c.size) for c in record.cmr if c.size] == [(0x100000, 0x1000), (1 << 32, 1 << 30)]
    assert record.tdx_ac == 1 and platform.bytes_at(Agent.CPU, 0x7FFFF800, 16) == b"\x5a" * 16


def test_MCHECK__again_after_a_reload_changes_nothing() -> None:
    platform = programmed()
    mcheck(platform, 0)
    before = platform.fingerprint()
    assert isinstance(mcheck(platform, 0), Approved)
    assert platform.fingerprint() == before


def test_McheckState__contiguous_is_up_to_MAXPHYADDR() -> None:
    platform = programmed()
    assert McheckState(platform, 0x400000).mask == MASK_64M and McheckState(platform, 0x400000).is_contiguous()
    for i in platform.lps:
        write(platform, i, 0x1401, lambda v: v & 0xC00)
    assert not McheckState(platform, 0x400000).is_contiguous()


# --- what a WRMSR of BIOS refuses


@pytest.mark.parametrize(("setup", "step", "clause"), [
    ({"keyid_bits": 2, "tdx_keyid_bits": 3}, bios.activate_memory_encryption, "WRMSR.tme_value"),
    ({"keyid_bits": 7}, bios.activate_memory_encryption, "WRMSR.tme_value"),
    ({"seamrr_base": 0x7C100000}, bios.program_seamrr, "WRMSR.reserved"),
    ({"seamrr_base": 1 << 52}, bios.program_seamrr, "WRMSR.reserved"),
    ({"mask": 1 << 52}, bios.program_seamrr, "WRMSR.reserved"),
    ({"mask": 1 << 20}, bios.program_seamrr, "WRMSR.reserved"),
])
def test_BIOS__what_the_processor_refuses_is_GP0(
    setup: dict[str, int], step: Callable[[Platform, Setup], Done | Fault], clause: str
) -> None:
    platform = Platform(PlatformConfig(topology=Topology(2, 2)))
    outcome = step(platform, Setup(**setup))
    assert isinstance(outcome, Fault) and (str(outcome), outcome.clause) == ("#GP(0)", clause)


def test_BIOS_seamrr__after_the_lock_nothing_moves_until_reset() -> None:
    platform = programmed()
    for address in (0x1400, 0x1401):
        value = platform.msr_value(platform.lp(0), address)
        outcome = msr.wrmsr(platform, 0, address, value ^ 0x4000000)
        assert isinstance(outcome, Fault) and outcome.clause == "WRMSR.seamrr_lock"
    assert isinstance(bios.program_seamrr(platform, Setup()), Fault)


def test_BIOS_seamrr__a_base_that_is_a_multiple_of_32_MiB_passes_WRMSR_whatever_the_size() -> None:
    platform = Platform(PlatformConfig(topology=Topology(2, 2)))
    assert isinstance(bios.program_seamrr(platform, Setup(seamrr_base=0x7A000000)), Done)


def test_BIOS_tme__each_package_once_and_it_locks() -> None:
    platform = Platform(PlatformConfig(topology=Topology(4, 2)))
    assert bios.activate_memory_encryption(platform, Setup()) == Done("BIOS.tme")
    assert {p for p, address in platform.package_msrs if address == 0x982} == {0, 1, 2, 3}
    assert (platform.keyid_bits, platform.tdx_keyid_bits) == (6, 1)
    msr.wrmsr(platform, 0, 0x982, 3)
    assert platform.keyid_bits == 6


def test_BIOS_tme__no_private_keyids_is_legal() -> None:
    platform = Platform(PlatformConfig())
    assert bios.activate_memory_encryption(platform, Setup(tdx_keyid_bits=0)) == Done("BIOS.tme")
    assert not platform.is_private(63) and platform.legacy_width == 52


def test_Setup__a_size_that_no_mask_can_say() -> None:
    with pytest.raises(SeamrefError, match="power of two"):
        Setup(seamrr_size=0x6000000).seamrr_msrs(Platform(PlatformConfig()))


def test_Setup__worked_values_of_MAXPHYADDR_46() -> None:
    platform = Platform(PlatformConfig(maxpa=46))
    assert Setup().seamrr_msrs(platform) == (0x7C000008, 0x3FFFFC000400)


def test_BIOS_done__set_or_left() -> None:
    for done in (False, True):
        platform = Platform(PlatformConfig())
        bios.say_bios_done(platform, Setup(bios_done=done))
        assert platform.msr_value(platform.lp(0), msr.BIOS_DONE) == int(done)


def test_BIOS_park__everybody_but_the_bootstrap_processor_waits() -> None:
    platform = Platform(PlatformConfig(topology=Topology(2, 2)))
    seen: list[Step] = []
    platform.listeners.append(lambda e: seen.append(e) if isinstance(e, Step) else None)
    bios.park_processors(platform, Setup())
    assert [lp.activity.value for lp in platform.every_lp()] == ["active", *["wait-for-SIPI"] * 3]
    bios.tell(platform, "parked", "3 of 4")
    assert seen == [Step(0, "BIOS", "parked", "3 of 4")]
