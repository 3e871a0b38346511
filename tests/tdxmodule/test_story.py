"""The whole story: boot, install, two TDs, update under them, they go on, their reports verify."""

from __future__ import annotations

import pytest

from seamref import bootchain
from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.arch.sgx import VerifyStatus, everifyreport2
from seamref.arch.structures import SEAMEXTEND
from seamref.host import vmm
from seamref.tdxmodule.guest import EXTEND_RTMR
from seamref.tdxmodule.structures import TDREPORT


@pytest.mark.parametrize(("sockets", "lps"), [(1, 2), (2, 4), (4, 16)], ids=["2", "8", "64"])
def test_story__two_TDs_survive_an_update_on_n_processors(sockets: int, lps: int) -> None:
    platform = vmm.boot(sockets, lps, "1.5.05")
    first, last = platform.lps[0], platform.lps[-1]
    vmm.bring_up(platform)
    one = vmm.build_td(platform, first, 0)
    two = vmm.build_td(platform, first, 1, vcpus=2)
    assert [vmm.run_td(platform, first, one).count for _ in range(3)] == [1, 2, 3]
    assert vmm.run_td(platform, first, two, vcpu=1).count == 1
    vmm.must(platform, first, "TDH.VP.FLUSH", rcx=two.tdvprs[0])
    assert vmm.run_td(platform, last, two).count == 2
    before = vmm.report_of(platform, first, one)
    left = bootchain.read_info(platform).num_remaining_updates
    old_mrseam = SEAMEXTEND.decode(platform.SEAMEXTEND).mrseam

    updated = vmm.update(platform, "1.5.06")

    assert updated.ok and updated.steps[-1][0] == "TDH.SYS.UPDATE"
    assert bootchain.read_info(platform).num_remaining_updates == left - 1
    assert vmm.sys_rd(platform, "UPDATE_VERSION") == 6
    assert SEAMEXTEND.decode(platform.SEAMEXTEND).mrseam != old_mrseam
    assert vmm.run_td(platform, first, one).count == 5  # 4 was the one with the report
    assert vmm.run_td(platform, last, two).count == 3
    after = vmm.report_of(platform, first, one)
    for report in (before, after):
        assert everifyreport2(platform, first, report.encode()) is VerifyStatus.SUCCESS
    assert after.tdinfo == before.tdinfo
    assert after.tee_tcb_info.mrseam == before.tee_tcb_info.mrseam == old_mrseam
    assert after.tee_tcb_info.tee_tcb_svn == before.tee_tcb_info.tee_tcb_svn
    assert before.tee_tcb_info.tee_tcb_svn2.seam_minor_svn == 5
    assert after.tee_tcb_info.tee_tcb_svn2.seam_minor_svn == 6
    three = vmm.build_td(platform, first, 2)
    vmm.run_td(platform, first, three)
    young = vmm.report_of(platform, first, three)
    assert young.tee_tcb_info.mrseam == SEAMEXTEND.decode(platform.SEAMEXTEND).mrseam != old_mrseam
    assert young.tdinfo.mrtd == before.tdinfo.mrtd, "the same contents measure the same under either module"
    for td in (one, two, three):
        vmm.tear_down(platform, first, td)
    assert vmm.build_td(platform, first, 0).hkid == one.hkid, "KeyIDs and pages are free again"


def test_story__run_time_measurements_go_on_behind_an_update(platform_ready: Platform) -> None:
    platform = platform_ready
    td = vmm.build_td(platform)
    vmm.run_td(platform, 0, td)
    vmm.run_td(platform, 0, td, answer=EXTEND_RTMR)
    before = vmm.report_of(platform, 0, td)
    assert any(before.tdinfo.rtmr[2]) and not any(before.tdinfo.rtmr[1])
    assert vmm.update(platform, "1.5.16").ok
    assert vmm.report_of(platform, 0, td).tdinfo.rtmr == before.tdinfo.rtmr
    vmm.run_td(platform, 0, td, answer=EXTEND_RTMR)
    assert vmm.report_of(platform, 0, td).tdinfo.rtmr[2] != before.tdinfo.rtmr[2]


def test_story__several_updates_in_a_row_keep_the_TD(platform_ready: Platform) -> None:
    platform = platform_ready
    td = vmm.build_td(platform)
    count = vmm.run_td(platform, 0, td).count
    for name in ("1.5.06", "1.5.16", "1.5.920", "1.5.930"):
        assert vmm.update(platform, name).ok, name
        count += 1
        assert vmm.run_td(platform, 0, td).count == count
    report = platform.bytes_at(Agent.HOST, td.shared, TDREPORT.size)
    assert len(report) == 1024
