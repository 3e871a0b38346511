"""Each documented refusal of an update is executed: its status, its recoverability, what is left, what helps."""

from __future__ import annotations

import pytest

from seamref.host import vmm
from seamref.host.tdx_updates import SCENARIOS, play, running
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.status import Recoverability

UP, DOWN = "answers (SYS_READY)", "TDX_SYS_SHUTDOWN"
GOES_ON, BLOCKED = "goes on", "not entered: TDX_SYS_SHUTDOWN"
NOT_READY, CLOSED = "not entered: TDX_SYS_NOT_READY", "not entered: VMfailInvalid"
FINAL, RETRY = Recoverability.FINAL.value, Recoverability.RETRY.value
KEPT, GONE = "RDX = 0: the old module is as INSTALL found it", "RDX = 1: SEAM memory was overwritten, no module is left"
FINE = Recoverability.SUCCESS.value
SD, IN = "TDH.SYS.SHUTDOWN", "SEAMLDR.INSTALL"
EXPECTED = {
    "newer": ("", "TDX_SUCCESS", FINE, UP, GOES_ON),
    "same": ("", "TDX_SUCCESS", FINE, UP, GOES_ON),
    "older build of equal SVN": ("", "TDX_SUCCESS", FINE, UP, GOES_ON),
    "back with an old hv": ("", "TDX_SUCCESS", FINE, UP, GOES_ON),
    "lower SVN": (IN, "EBADSIG, RDX = 0", KEPT, DOWN, BLOCKED),
    "other major": (IN, "EBADCALL, RDX = 0", KEPT, DOWN, BLOCKED),
    "hv too new": (SD, "TDX_OPERAND_INVALID (operand RCX)", FINAL, UP, GOES_ON),
    "unknown flag": (SD, "TDX_OPERAND_INVALID (operand RCX)", FINAL, UP, GOES_ON),
    "TD runs": (SD, "TDX_SYS_BUSY", RETRY, UP, "not entered: TDX_VCPU_STATE_INCORRECT"),
    "TD build": (SD, "TDX_UPDATE_COMPAT_SENSITIVE", RETRY, UP, GOES_ON),
    "no downgrade": (SD, "TDX_OPERAND_INVALID (operand RCX)", FINAL, UP, GOES_ON),
    "hv too old": (SD, "TDX_OPERAND_INVALID (operand RCX)", FINAL, UP, GOES_ON),
    "no SHUTDOWN": (IN, "EBADHANDOFF, RDX = 0", KEPT, UP, GOES_ON),
    "handoff too old": (IN, "EBADHANDOFF, RDX = 0", KEPT, DOWN, BLOCKED),
    "handoff too new": (IN, "EBADHANDOFF, RDX = 0", KEPT, DOWN, BLOCKED),
    "wrong image": (IN, "EBADHASH, RDX = 1", GONE, "VMfailInvalid", CLOSED),
    "no entry left": (IN, "EBADCALL, RDX = 0", KEPT, DOWN, BLOCKED),
    "sigstruct against build": ("TDH.SYS.INIT", "TDX_SYS_INCOMPATIBLE_SIGSTRUCT", FINAL, "TDX_SYS_LP_INIT_NOT_DONE",
                                NOT_READY),
    "processor missing": ("TDH.SYS.UPDATE", "TDX_SYS_STATE_INCORRECT", FINAL, "answers (SYSINIT_DONE)", NOT_READY),
    "no handoff data": ("this call", "TDX_SYS_INVALID_HANDOFF", FINAL, "answers (SYSINIT_DONE)", NOT_READY),
    "handoff cut short": ("TDH.SYS.UPDATE", "shutdown in SEAM: UD2: TDH.SYS.UPDATE: handoff size 8",
                          "the processor is down, SEAM is closed everywhere", "VMfailInvalid", CLOSED),
    "second SHUTDOWN": ("this call", "TDX_SYS_SHUTDOWN", FINAL, DOWN, BLOCKED),
    "UPDATE twice": ("this call", "TDX_SYS_STATE_INCORRECT", FINAL, UP, GOES_ON),
}
KEEPS_THE_TD = "TDX_SUCCESS, TD goes on"
LOSES_THE_TD = "TDX_SUCCESS, TD not entered: TDX_PAGE_METADATA_INCORRECT (operand RCX)"


def test_updates__every_scenario_has_an_expectation() -> None:
    assert sorted(EXPECTED) == sorted(SCENARIOS)


@pytest.mark.parametrize("name", SCENARIOS)
def test_updates__outcome(name: str) -> None:
    scenario = SCENARIOS[name]
    verdict = play(scenario)
    assert (verdict.step, verdict.answer, verdict.recoverability, verdict.module, verdict.td) == EXPECTED[name]
    if scenario.remedy is not None:
        lost = name in ("wrong image", "no handoff data")
        assert verdict.then == f"{scenario.remedy_says}: {LOSES_THE_TD if lost else KEEPS_THE_TD}"


def test_updates__UPDATE_refused_keeps_the_handoff_data_for_a_third_module() -> None:
    platform, td = running()
    half = vmm.update(platform, "1.5.06", lps=platform.lps[:1])
    assert half.stopped_at == "TDH.SYS.UPDATE" and Look(platform).handoff.num("valid") == 1
    assert vmm.sys_rd(platform, "HANDOFF_DATA_VALID") == 1 and vmm.sys_rd(platform, "HANDOFF_DATA_SIZE") == 53386
    assert vmm.update(platform, "1.5.16", start="SEAMLDR.INSTALL").ok
    assert Look(platform).handoff.num("valid") == 0 == Look(platform).handoff.num("size")
    assert vmm.run_td(platform, 0, td).count == 2


def test_updates__cold_path_behind_a_refused_UPDATE_loses_the_TD_but_leaves_VALID() -> None:
    platform, td = running()
    vmm.update(platform, "1.5.06", lps=platform.lps[:1])
    vmm.must(platform, 1, "TDH.SYS.LP.INIT")
    vmm.bring_up(platform, start="config")
    assert Look(platform).handoff.num("valid") == 1, "CONFIG does not clear the header"
    assert not vmm.enter(platform, 0, td).ok


def test_updates__UPDATE_jumps_to_READY_without_SYSCONFIG_DONE() -> None:
    platform, _ = running()
    before = Look(platform).glob
    kot, bitmap = before.raw("kot"), before.num("pkg_config_bitmap")
    assert vmm.update(platform, "1.5.06").ok
    after = Look(platform).glob
    assert after.num("num_init_pkgs") == 0 and after.num("num_init_lps") == 2
    assert (after.raw("kot"), after.num("pkg_config_bitmap")) == (kot, bitmap)
    assert not any(after.raw("tdmr_info[0]")), "the copy of the input is lost"


def test_updates__half_initialised_TDMR_goes_on_in_the_new_module() -> None:
    platform = vmm.boot(1, 2, "1.5.05")
    vmm.bring_up(platform, until="key.config")
    for _ in range(100):
        vmm.must(platform, 0, "TDH.SYS.TDMR.INIT", rcx=vmm.PLAN.tdmr_base)
    assert vmm.update(platform, "1.5.06").ok
    calls = 0
    while vmm.must(platform, 0, "TDH.SYS.TDMR.INIT", rcx=vmm.PLAN.tdmr_base).regs["rdx"] == vmm.PLAN.tdmr_base:
        calls += 1
    assert calls == 256 - 100 - 1


def test_updates__interrupted_cache_write_back_is_resumed_by_the_new_module() -> None:
    platform, td = running()
    vmm.must(platform, 0, "TDH.VP.FLUSH", rcx=td.tdvprs[0])
    vmm.must(platform, 0, "TDH.MNG.VPFLUSHDONE", rcx=td.tdr)
    platform.lp(0).intr_pending = True
    platform.lp(0).rflags |= 1 << 9  # interrupts are on: a pending one counts
    assert vmm.tdh(platform, 0, "TDH.PHYMEM.CACHE.WB").word == 0x8000000300000000
    platform.lp(0).intr_pending = False
    assert vmm.update(platform, "1.5.06").ok
    assert vmm.tdh(platform, 0, "TDH.MNG.KEY.FREEID", rcx=td.tdr).word == 0x8000081700000000
    vmm.must(platform, 0, "TDH.PHYMEM.CACHE.WB", rcx=1)
    vmm.must(platform, 0, "TDH.MNG.KEY.FREEID", rcx=td.tdr)


@pytest.mark.parametrize(("module", "spoilt"), [("1.5.06", False), ("1.5.06-crypto", True)])
def test_updates__TD_build_across_an_update(module: str, spoilt: bool) -> None:
    """The same library packs alike and the MRTD is right; another one reads the state wrongly and nobody notices."""
    whole, _ = running()
    right = vmm.build_td(whole, number=1)
    vmm.run_td(whole, 0, right)
    wanted = vmm.report_of(whole, 0, right).tdinfo.mrtd
    platform, _ = running()
    td = vmm.new_td(1)
    steps = vmm.build_steps(platform, 0, td)
    vmm.go_on_building(steps, "TDH.MR.EXTEND")
    assert vmm.update(platform, module).ok
    vmm.go_on_building(steps)
    vmm.run_td(platform, 0, td)
    assert (vmm.report_of(platform, 0, td).tdinfo.mrtd != wanted) is spoilt


def test_updates__detect_after_update_fails_the_build_instead_of_spoiling_it() -> None:
    platform, _ = running()
    td = vmm.new_td(1)
    steps = vmm.build_steps(platform, 0, td)
    vmm.go_on_building(steps, "TDH.MR.EXTEND")
    assert vmm.update(platform, "1.5.06-detect").ok
    with pytest.raises(vmm.Refused) as refused:
        vmm.go_on_building(steps)
    assert refused.value.answer.word == 0x8000051200000000


def test_updates__avoid_does_not_cover_a_TD_that_an_older_module_initialised() -> None:
    platform, _ = running()
    td = vmm.new_td(1)
    steps = vmm.build_steps(platform, 0, td)
    vmm.go_on_building(steps, "TDH.MNG.INIT")
    assert vmm.update(platform, "1.5.920").ok, "1.5.05 does not know the flag, so no flag"
    assert Look(platform).glob.num("num_sensitive") == 0
    assert vmm.update(platform, "1.5.930", avoid=True).ok, "nobody counted it"


def test_updates__handoff_version_1_hands_the_count_off() -> None:
    platform, _ = running("1.5.930")
    vmm.build_td(platform, number=1, until="TDH.MNG.INIT")
    assert vmm.update(platform, "1.5.932").ok
    assert Look(platform).glob.num("num_sensitive") == 1
    assert vmm.update(platform, "1.5.931", avoid=True).answer.word == 0x8000051200000000  # type: ignore[union-attr]
