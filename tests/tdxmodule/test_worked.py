"""Worked values: two packages, four processors, a freshly installed module; RAX behind each call."""

from __future__ import annotations

from seamref.arch.outcome import Guest
from seamref.host import vmm
from seamref.host.vmm import PLAN, tdh
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.metadata import FIELDS, field_id, key_of
from seamref.tdxmodule.structures import HANDOFF_V0, TDSYSINFO


def test_worked__every_call_from_install_to_an_updated_TD() -> None:
    p = vmm.boot(2, 2, "1.5.05")
    one, other = p.lps[2], p.lps[1]

    def state() -> int:
        return Look(p).glob.num("sys_state")

    def rax(name: str, lp: int = 0, **registers: int) -> int:
        return tdh(p, lp, name, **registers).word

    assert rax("TDH.SYS.RD") == 0xC000050200000000 and state() == 0
    assert rax("TDH.MNG.CREATE") == 0xC000050500000000
    assert rax("TDH.SYS.LP.INIT") == 0xC000050B00000000
    assert rax("TDH.SYS.INIT", rcx=1) == 0xC000010000000001 and state() == 0
    assert rax("TDH.SYS.INIT") == 0 and state() == 1
    assert rax("TDH.SYS.INIT") == 0xC000050000000000
    assert rax("TDH.SYS.INFO") == 0xC000050200000000, "INIT does not initialise its processor"
    assert rax("TDH.SYS.UPDATE") == 0xC000050800000000
    assert rax("TDH.SYS.LP.INIT") == 0
    assert rax("TDH.SYS.LP.INIT") == 0xC000050300000000
    assert [rax("TDH.SYS.LP.INIT", lp) for lp in p.lps[1:]] == [0, 0, 0]
    assert rax("TDH.SYS.UPDATE") == 0xC000050900000000 and state() == 1
    assert rax("TDH.SYS.KEY.CONFIG") == 0xC000050700000000
    assert vmm.config(p).word == 0 and state() == 2
    assert rax("TDH.SYS.KEY.CONFIG") == 0 and state() == 2
    assert rax("TDH.SYS.KEY.CONFIG") == 0x0000081500000000
    assert rax("TDH.SYS.KEY.CONFIG", one) == 0 and state() == 3
    assert rax("TDH.SYS.LP.INIT") == 0xC000050B00000000, "the state is tested before the processor"
    vmm.bring_up(p, start="tdmr.init")
    td = vmm.build_td(p)
    assert rax("TDH.SYS.SHUTDOWN", rcx=0x10000) == 0xC000010000000001 and state() == 3
    vmm.must(p, 0, "TDH.VP.FLUSH", rcx=td.tdvprs[0])
    assert isinstance(vmm.enter(p, other, td).run, Guest)
    assert rax("TDH.SYS.SHUTDOWN") == 0x8000020200000000 and state() == 3
    vmm.leave(p, other)
    assert rax("TDH.SYS.SHUTDOWN") == 0 and state() == 4
    header = Look(p).handoff
    assert [header.num(n) for n in ("valid", "reserved", "hv", "size")] == [1, 0, 0, 53386]
    for name in ("TDH.SYS.RD", "TDH.VP.ENTER", "TDH.VP.FLUSH", "TDH.SYS.SHUTDOWN"):
        assert rax(name) == 0xC000050600000000
    assert rax("TDH.SYS.LP.SHUTDOWN", one) == 0
    assert tdh(p, 0, "TDH.SYS.RD", 1).word == 0xC000010000000000, "version before state"
    half = vmm.update(p, "1.5.06", start="SEAMLDR.INSTALL", lps=(p.lps[0],))
    assert half.stopped_at == "TDH.SYS.UPDATE"
    assert rax("TDH.VP.ENTER", rcx=td.tdvprs[0]) == 0xC000050500000000
    assert [rax("TDH.SYS.LP.INIT", lp) for lp in p.lps[1:]] == [0, 0, 0]
    assert tdh(p, 0, "TDH.SYS.RD", rdx=field_id("HANDOFF_DATA_VALID")).regs["r8"] == 1
    assert rax("TDH.SYS.UPDATE") == 0 and state() == 3
    assert [Look(p).handoff.num(n) for n in ("valid", "hv", "size")] == [0, 0, 0]
    assert rax("TDH.VP.ENTER", one, rcx=td.tdvprs[0]) == 0x8000070100000000, "still associated where it was"
    assert vmm.run_td(p, other, td).count == 2, "it counted once before, when SHUTDOWN had to wait for it"


def test_worked__registers_that_a_call_changes() -> None:
    """Outputs are zeroed before a handler's checks; errors of the dispatcher leave them alone."""
    p = vmm.boot(1, 2, "1.5.05")
    given = {"rcx": 0, "rdx": 22, "r8": 33, "r9": 44, "r10": 55, "r11": 66, "rbx": 77}
    refused = tdh(p, 0, "TDH.MNG.CREATE", **given)
    assert {n: refused.regs[n] for n in given} == given
    done = tdh(p, 0, "TDH.SYS.INIT", **given)
    assert [done.regs[n] for n in ("rcx", "rdx", "r8", "r9", "r10")] == [0] * 5
    assert (done.regs["r11"], done.regs["rbx"]) == (66, 77)
    failed = tdh(p, 0, "TDH.SYS.INIT", **{**given, "rcx": 9})
    assert failed.word == 0xC000010000000001 and failed.regs["rcx"] == 0, "zeroed although it was refused"


def test_worked__RIP_is_behind_SEAMCALL_and_flags_say_success() -> None:
    p = vmm.boot(1, 2, "1.5.05")
    before = p.peek_lp(0).rip
    p.lp(0).sti_blocking = True
    tdh(p, 0, "TDH.SYS.LP.SHUTDOWN")
    assert p.peek_lp(0).rip == before + 4 and not p.peek_lp(0).sti_blocking
    assert not p.peek_lp(0).rflags & 1


def test_worked__INFO_RD_RDALL_agree() -> None:
    p = vmm.boot(1, 2, "1.5.05")
    vmm.bring_up(p, until="lp.init")
    vmm.poke(p, 0x2100_0000, b"\xAA" * 1024)
    assert tdh(p, 0, "TDH.SYS.INFO", rcx=0x2100_0000, rdx=1024, r8=8, r9=32).word == 0xC000010000000008
    from seamref.arch.memory import Agent

    assert not any(p.bytes_at(Agent.HOST, 0x2100_0000, 1024)), "zeroed before R8 was judged"
    answer = tdh(p, 0, "TDH.SYS.INFO", rcx=0x2100_0000, rdx=1024, r8=0x2100_1000, r9=32)
    info = TDSYSINFO.decode(p.bytes_at(Agent.HOST, 0x2100_0000, 1024))
    assert answer.regs["rdx"] == 1024 and info.vendor_id == 0x8086 and info.tdcs_base_size == 24576
    ids, id = [], field_id("NUM_PKGS")
    while id != (1 << 64) - 1:
        got = tdh(p, 0, "TDH.SYS.RD", rdx=id)
        ids.append((id, got.regs["r8"]))
        id = got.regs["rdx"]
    assert len(ids) == sum(field.count * field.elements for field in FIELDS)
    assert tdh(p, 0, "TDH.SYS.RDALL", rdx=0x2100_2000, r8=(1 << 64) - 1).regs["r8"] == (1 << 64) - 1
    data = p.bytes_at(Agent.HOST, 0x2100_2000, 4096)
    words = [int.from_bytes(data[at : at + 8], "little") for at in range(8, int.from_bytes(data[0:2], "little"), 8)]
    found: list[tuple[int, int]] = []
    for _ in range(int.from_bytes(data[2:4], "little")):
        header = words.pop(0)
        first = header & ~(0xF << 34 | 0x1FF << 38)
        for i in range(((header >> 34 & 0xF) + 1) * ((header >> 38 & 0x1FF) + 1)):
            found.append((first + i, words.pop(0)))
    assert [(key_of(id), value) for id, value in found] == [(key_of(id), value) for id, value in ids] and not words
    assert dict(ids)[field_id("BUILD_DATE")] == info.build_date == 20240129


def test_worked__handoff_layout() -> None:
    assert HANDOFF_V0.size == 53386 + 8
    assert [HANDOFF_V0.offset_of(n) for n in ("kot", "wbt", "tdmrs", "num_tdmrs", "hkid", "pkg_config_bitmap")] == [
        0x8, 0x4008, 0x8088, 0xD088, 0xD08C, 0xD08E]
    assert -(-53386 // 4096) == 14


def test_worked__failed_CONFIG_burns_a_KeyID() -> None:
    p = vmm.boot(1, 2, "1.5.05")
    vmm.bring_up(p, until="lp.init")
    vmm.poke(p, PLAN.scratch, (PLAN.scratch + 0x201).to_bytes(8, "little"))
    assert tdh(p, 0, "TDH.SYS.CONFIG", rcx=PLAN.scratch, rdx=1, r8=40).word == 0xC000010000000001
    assert Look(p).glob.num("kot[40].state") == 3
    vmm.bring_up(p, start="config")
    assert tdh(p, 0, "TDH.MNG.CREATE", rcx=PLAN.first_page, rdx=40).word == 0xC000082000000000


def test_worked__TDMR_INIT_takes_256_calls_for_a_GiB_and_memory_is_usable_behind_the_last() -> None:
    p = vmm.boot(1, 2, "1.5.05")
    vmm.bring_up(p, until="key.config")
    for call in range(255):
        assert vmm.must(p, 0, "TDH.SYS.TDMR.INIT", rcx=PLAN.tdmr_base).regs["rdx"] == PLAN.tdmr_base, call
    assert tdh(p, 0, "TDH.MNG.CREATE", rcx=PLAN.first_page, rdx=33).word == 0xC000010100000001
    assert vmm.must(p, 0, "TDH.SYS.TDMR.INIT", rcx=PLAN.tdmr_base).regs["rdx"] == PLAN.tdmr_base + PLAN.tdmr_size
    assert tdh(p, 0, "TDH.MNG.CREATE", rcx=PLAN.first_page, rdx=33).ok
    assert tdh(p, 0, "TDH.SYS.TDMR.INIT", rcx=PLAN.tdmr_base).word == 0x00000A0300000000
