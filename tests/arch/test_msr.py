"""RDMSR and WRMSR: every row of both tables, both ways, and what each write does."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seamref.arch import lab, msr
from seamref.arch.lp import EFER_LMA
from seamref.arch.memory import Agent, decode_seamrr
from seamref.arch.msr import BY_NAME, DECLARED, MSRS, PRMRR_MASK, SEAMEXTEND_MSR, Access, rdmsr, wrmsr
from seamref.arch.outcome import Done, Fault, Vector
from seamref.arch.platform import Platform, PlatformConfig
from seamref.arch.revision import SILICON
from seamref.arch.trace import MsrWritten, SeamextendWritten

GP = Vector.GP


def gp(clause: str) -> Fault:
    return Fault(GP, 0, clause)


def in_seam(platform: Platform, *, p_seamldr: bool = False) -> Platform:
    lp = platform.lp(0)
    lp.inSEAM, lp.inP_SEAMLDR = True, p_seamldr
    return platform


def test_msr__declarations_are_consistent() -> None:
    assert len(MSRS) == len(DECLARED) == len(BY_NAME)
    for declared in DECLARED:
        seen = 0
        for bit in declared.bits:
            assert bit.high < 64 and not seen & bit.mask, (declared.name, bit.name)
            seen |= bit.mask
        if isinstance(declared.reserved, int):
            assert not declared.reserved & seen, declared.name


@pytest.mark.parametrize("declared", DECLARED, ids=lambda m: m.name)
def test_RDMSR_mode__each_msr_answers_by_its_declared_access(declared: msr.Msr) -> None:
    outside = rdmsr(lab.platform(), 0, declared.address)
    inside = rdmsr(in_seam(lab.platform()), 0, declared.address)
    assert isinstance(outside, int) == (declared.read is Access.ANY)
    assert isinstance(inside, int) == (declared.read in (Access.ANY, Access.SEAM))


def test_RDMSR__rows_in_order() -> None:
    platform = lab.platform()
    platform.lp(0).cpl = 3
    assert rdmsr(platform, 0, 0x12345) == gp("RDMSR.cpl")
    platform.lp(0).cpl = 0
    assert rdmsr(platform, 0, 0x12345) == gp("RDMSR.unknown")
    assert rdmsr(platform, 0, 0x98, from_vmx_list=True) == gp("RDMSR.vmx_list")
    assert rdmsr(platform, 0, 0x98) == gp("RDMSR.mode")
    assert rdmsr(in_seam(platform), 0, 0x98) == 4


def test_RDMSR__values_that_follow_from_state() -> None:
    platform = lab.platform()
    assert rdmsr(platform, 0, 0x87) == 31 | 32 << 32
    assert rdmsr(platform, 0, 0xFE) == 0x850A | 1 << 8 | 1 << 10 | 1 << 11 | 1 << 12 | 1 << 14  # bit 15: SEAMRR
    assert rdmsr(Platform(PlatformConfig(has_SEAM=False)), 0, 0xFE) != rdmsr(platform, 0, 0xFE)
    assert rdmsr(Platform(), 0, 0x87) == 0  # TME not activated: no KeyIDs
    platform.lp(0).nmi_pending = platform.lp(0).smi_pending = True
    assert rdmsr(in_seam(platform), 0, 0x9A) == 0b110
    assert rdmsr(Platform(PlatformConfig(debug_unlocked=True)), 0, 0x503) == 2
    platform.bios_se_svn, platform.svn_locked = 0x07 << 56 | 0x33 << 16, True
    assert rdmsr(platform, 0, 0x500) == 0x07 << 56 | 0x33 << 16 | 1
    assert rdmsr(platform, 0, 0x302) == platform.bios_se_svn
    assert rdmsr(platform, 0, 0xC0000080) == platform.lp(0).efer


@pytest.mark.parametrize(
    ("address", "value", "clause"),
    [
        (0x12345, 0, "WRMSR.unknown"),
        (0x98, 0, "WRMSR.mode"),
        (0x87, 0, "WRMSR.mode"),
        (0x480, 0, "WRMSR.mode"),
        (0x1402, 0x7FC01000, "WRMSR.mode"),
        (0x48, 1 << 40, "WRMSR.reserved"),
        (0x1400, 1, "WRMSR.reserved"),
        (0x1401, 1 << 12, "WRMSR.reserved"),
        (0x1400, 0x7C000008, "WRMSR.seamrr_lock"),
        (0x1401, 0, "WRMSR.seamrr_lock"),
        (0x982, 3 | 1 << 32 | 2 << 36, "WRMSR.tme_value"),
        (0x982, 3 | 7 << 32, "WRMSR.tme_value"),
        (0x982, 1 << 32, "WRMSR.tme_value"),
        (0x302, 5, "WRMSR.se_svn_patch"),
    ],
)
def test_WRMSR__each_refusal_names_its_row(address: int, value: int, clause: str) -> None:
    platform = lab.platform()
    before = platform.fingerprint()
    assert wrmsr(platform, 0, address, value) == gp(clause)
    assert platform.fingerprint() == before


def test_WRMSR_cpl__user_mode_writes_nothing() -> None:
    platform = lab.platform()
    platform.lp(0).cpl = 3
    assert wrmsr(platform, 0, 0x12345, 0) == gp("WRMSR.cpl")


def test_WRMSR_sub_block__index_is_below_the_count() -> None:
    platform = in_seam(lab.platform())
    assert wrmsr(platform, 0, 0x98, 4) == gp("WRMSR.sub_block")
    assert wrmsr(platform, 0, 0x99, 3) == Done("WRMSR.effect")
    assert platform.flushed_sub_blocks == {(0, 3)}
    assert wrmsr(platform, 0, 0x98, 0, from_vmx_list=True) == gp("WRMSR.vmx_list")


def test_WRMSR_seamrr_lock__an_ACM_may_toggle_VALID_and_nothing_else() -> None:
    platform = lab.platform()
    platform.lp(0).ACMODEFLAG = True
    mask = platform.lp(0).msrs[msr.SEAMRR_MASK]
    assert wrmsr(platform, 0, 0x1401, mask & ~(1 << 11)) == Done("WRMSR.effect")
    assert platform.seamrr(platform.lp(0)) is None
    assert wrmsr(platform, 0, 0x1401, mask & ~(1 << 10)) == gp("WRMSR.seamrr_lock")
    assert wrmsr(platform, 0, 0x1401, mask) == Done("WRMSR.effect")
    assert platform.seamrr(platform.lp(0)) == lab.SEAMRR
    platform.revision = replace(SILICON, seamrr_ac_unlock=False)
    assert wrmsr(platform, 0, 0x1401, mask & ~(1 << 11)) == gp("WRMSR.seamrr_lock")


def test_WRMSR_reserved__bit3_of_the_base_follows_the_revision() -> None:
    for configured in (True, False):
        platform = Platform(revision=replace(SILICON, base_bit3_configured=configured))
        outcome = wrmsr(platform, 0, 0x1400, 0x7C000008)
        assert outcome == (Done("WRMSR.effect") if configured else gp("WRMSR.reserved"))


@pytest.mark.parametrize("mode", ["acm", "p-seamldr"])
def test_WRMSR_reserved__a_SEAMEXTEND_buffer_lies_below_MAXPA(mode: str) -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    lp.ACMODEFLAG = mode == "acm"
    lp.inSEAM = lp.inP_SEAMLDR = mode != "acm"
    platform.set_msr(lp, PRMRR_MASK, 0xC00)
    inside = lab.P_SEAMLDR_RANGE.base + 0x9000
    assert wrmsr(platform, 0, SEAMEXTEND_MSR, inside | 1) == Done("WRMSR.effect")
    assert wrmsr(platform, 0, SEAMEXTEND_MSR, inside | 1 | 1 << platform.config.maxpa) == gp("WRMSR.reserved")


def test_SEAMRR__worked_values() -> None:
    seamrr = decode_seamrr(0x7C000008, 0x3FFFFC000C00)
    assert (seamrr.base, seamrr.size, seamrr.end) == (0x7C000000, 0x4000000, 0x80000000)


def test_WRMSR_seamextend__copies_out_and_in() -> None:
    platform = in_seam(lab.platform(), p_seamldr=True)
    seen: list[object] = []
    platform.listeners.append(seen.append)
    at = lab.P_SEAMLDR_RANGE.base + 0x20000
    assert wrmsr(platform, 0, 0x1402, at | 1) == Done("WRMSR.effect")
    assert platform.load(Agent.CPU, at, 136) == platform.SEAMEXTEND
    platform.store(Agent.P_SEAMLDR, at, bytes(range(136)))
    assert wrmsr(platform, 0, 0x1402, at) == Done("WRMSR.effect")
    assert bytes(range(136)) == platform.SEAMEXTEND
    assert [type(event) for event in seen] == [MsrWritten, SeamextendWritten, MsrWritten]


def test_WRMSR_seamextend_buffer__lies_in_P_SEAMLDR_RANGE_unless_an_ACM_or_a_revision_says_otherwise() -> None:
    outside = 0x200000
    platform = in_seam(lab.platform(), p_seamldr=True)
    assert wrmsr(platform, 0, 0x1402, outside | 1) == gp("WRMSR.seamextend_buffer")
    assert wrmsr(platform, 0, 0x1402, lab.P_SEAMLDR_RANGE.end - 128) == gp("WRMSR.reserved")
    assert wrmsr(platform, 0, 0x1402, lab.P_SEAMLDR_RANGE.end) == gp("WRMSR.seamextend_buffer")
    platform.revision = replace(SILICON, seamextend_anywhere=True)
    assert wrmsr(platform, 0, 0x1402, outside | 1) == Done("WRMSR.effect")
    acm = lab.platform()
    acm.lp(0).ACMODEFLAG = True
    assert wrmsr(acm, 0, 0x1402, outside | 1) == Done("WRMSR.effect")
    assert wrmsr(in_seam(lab.platform()), 0, 0x1402, outside) == gp("WRMSR.mode")  # the module may not


def test_WRMSR_tme__first_write_locks_later_ones_are_ignored_or_fault() -> None:
    platform = Platform()
    assert wrmsr(platform, 0, 0x982, 3 | 6 << 32 | 1 << 36) == Done("WRMSR.effect")
    assert (platform.keyid_bits, platform.tdx_keyid_bits, platform.legacy_width) == (6, 1, 51)
    assert wrmsr(platform, 0, 0x982, 3 | 4 << 32) == Done("WRMSR.effect")
    assert platform.keyid_bits == 6
    platform.revision = replace(SILICON, tme_locked_write_gp=True)
    assert wrmsr(platform, 0, 0x982, 3 | 4 << 32) == gp("WRMSR.tme_locked")
    fresh = Platform(revision=platform.revision)
    assert wrmsr(fresh, 0, 0x982, 3 | 4 << 32) == Done("WRMSR.effect")


def test_WRMSR_se_svn__written_until_locked() -> None:
    platform = Platform()
    assert wrmsr(platform, 0, 0x302, 4 << 56) == Done("WRMSR.effect")
    platform.svn_locked = True
    assert wrmsr(platform, 0, 0x302, 9 << 56) == Done("WRMSR.effect")
    assert platform.bios_se_svn == 4 << 56
    platform.revision = replace(SILICON, locked_se_svn_write_gp=True)
    assert wrmsr(platform, 0, 0x302, 9 << 56) == gp("WRMSR.se_svn_locked")
    platform.svn_locked = False
    assert wrmsr(platform, 0, 0x302, 9 << 56) == Done("WRMSR.effect")


def test_WRMSR__registers_behind_msrs_and_the_barrier() -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    assert wrmsr(platform, 0, 0xC0000080, 0xD01 & ~EFER_LMA) == Done("WRMSR.effect")
    assert not lp.is_64bit()
    for address, name, value in ((0x1D9, "debugctl", 2), (0x277, "pat", 0x0606)):
        wrmsr(platform, 0, address, value)
        assert getattr(lp, name) == value == rdmsr(platform, 0, address)
    barriers = lp.ibrs_barriers
    wrmsr(platform, 0, 0x49, 0)
    wrmsr(platform, 0, 0x49, 1)
    assert lp.ibrs_barriers == barriers + 1
    wrmsr(platform, 0, 0x48, 4)
    assert (rdmsr(platform, 0, 0x48), rdmsr(platform, 1, 0x48)) == (4, 0)  # core scope
    wrmsr(platform, 0, 0x151, 1)
    assert rdmsr(platform, 1, 0x151) == 1  # platform scope
