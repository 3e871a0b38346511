"""A scripted SEAM side: which rule decides, what the kernel sees, how rules are written."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab

from seamref.errors import SeamrefError
from seamref.host import abi
from seamref.host.abi import Args, Errno, Leaf
from seamref.host.kernel import Host
from seamref.host.machine import blob, machine
from seamref.host.records import Stub
from seamref.host.script import COMPLETES, Ends, Rule, Script, parse_rule, parse_rules
from seamref.host.seamcall import ZEROED, seamcall, seamcall_prerr


def scripted(*rules: Rule, cpus: int = 2) -> Host:
    host = lab.host(cpus)
    host.set(script=Script((*rules, COMPLETES)))
    return host


def test_SCRIPT_rule__the_first_that_fits_decides() -> None:
    host = scripted(Rule(leaf=34, cpu=1, rax=1), Rule(leaf=34, rdx=7, rax=2), Rule(leaf=34, rax=3))
    assert seamcall(host, 1, 34, Args(rdx=7)).rax == 1
    assert seamcall(host, 0, 34, Args(rdx=7)).rax == 2
    assert seamcall(host, 0, 34).rax == 3 and seamcall(host, 0, 35).rax == 0


def test_SCRIPT_nth__counts_for_each_CPU_and_leaf_whatever_its_version() -> None:
    host = scripted(Rule(leaf=0x10022, nth=1, nth_to=1, rax=5))
    assert [seamcall(host, 0, fn).rax for fn in (0x22, 0x10022, 0x10022)] == [0, 5, 0]  # bits 7:0 are counted as one
    assert [seamcall(host, 1, 0x10022).rax for _ in range(3)] == [0, 5, 0]
    assert seamcall(host, 0, 1 << 63 | 0x22).rax == 0


def test_SCRIPT_outcome__each_as_the_stub_sees_it() -> None:
    block = Args(rcx=1, rdx=2, r8=3, r12=4)
    for ends, expected in ((Ends.VMFAILINVALID, abi.TDX_SEAMCALL_VMFAILINVALID), (Ends.ZF, 34)):
        host = scripted(Rule(leaf=34, outcome=ends))
        returned = seamcall(host, 0, 34, block, Stub.SAVED_RET)
        assert returned.rax == expected and returned.args == block
    host = scripted(Rule(leaf=34, outcome=Ends.ZF))
    seamcall(host, 0, 34, block, Stub.SAVED_RET)
    assert all(getattr(host.lp(0), name) == 0 for name in ZEROED)  # CF = 0: the stub goes its normal way
    host = scripted(Rule(leaf=34, outcome=Ends.FAULT, vector=14))
    assert seamcall(host, 0, 34, block).rax == abi.TDX_SW_ERROR | 14
    host = scripted(Rule(leaf=34, rax=1 << 63, out=(("r8", 9), ("r12", 8))))
    assert seamcall(host, 0, 34, block, Stub.RET).args == Args(rcx=1, rdx=2, r8=9, r12=4)


def test_SCRIPT_outcome__a_completed_INFO_stores_bytes_where_RCX_points() -> None:
    from seamref.host.seamldr import seamldr_get_info

    page = abi.SEAMLDR_INFO.new(num_remaining_updates=7).encode()
    host = scripted(Rule(leaf=Leaf.SEAMLDR_INFO, store=page))
    ret, info = seamldr_get_info(host)
    assert ret is Errno.OK and info is not None and info.num_remaining_updates == 7


def test_SCRIPT__what_no_rule_decides_the_real_software_answers() -> None:
    host = machine(2)
    host.set(script=Script((Rule(leaf=Leaf.SEAMLDR_INSTALL, cpu=1, rax=0x8000000000030001),)))
    from seamref.host.install import seamldr_install_module

    assert seamldr_install_module(host, blob("1.5.16")) is Errno.EIO
    assert "seamldr: SEAMCALL (0x8000000000000001) failed: 0x8000000000030001" in host.state.dmesg
    assert host.state.script is not None
    assert [(a.cpu, a.rule is None) for a in host.state.script.asked if a.leaf == Leaf.SEAMLDR_INSTALL] == [
        (0, True), (1, False)]


def test_SCRIPT__forks_and_fingerprints_with_the_kernel() -> None:
    host = scripted(Rule(leaf=34, nth=0, nth_to=0, rax=1))
    other = host.fork()
    assert seamcall(host, 0, 34).rax == 1 and seamcall(other, 0, 34).rax == 1
    assert host.fingerprint() == other.fingerprint()


def test_LNX_retry_block__an_attempt_is_repeated_with_what_the_failed_one_stored() -> None:
    fails = Rule(leaf=21, nth=0, nth_to=0, rax=abi.TDX_RND_NO_ENTROPY, out=(("rcx", 0), ("r8", 9)))
    for stub, second in ((Stub.SEAMCALL, (7, 3)), (Stub.RET, (0, 9)), (Stub.SAVED_RET, (0, 9))):
        host = scripted(fails)
        seamcall(host, 0, 21, Args(rcx=7, r8=3), stub)
        assert host.state.script is not None
        first, again = host.state.script.asked
        assert (first["rcx"], first["r8"]) == (7, 3) and (again["rcx"], again["r8"]) == second


def test_parse_rule__reads_what_str_writes() -> None:
    for text in ("cpu=3,leaf=TDH.SYS.LP.INIT,rax=TDX_RND_NO_ENTROPY", "leaf=SEAMLDR.INSTALL,outcome=vmfailinvalid",
                 "leaf=0x10035,nth=1,nth_to=2,outcome=fault,vector=13", "rdx=0x7,rax=0x5,out.r8=0xFF"):
        assert str(parse_rule(text)) == text
    assert parse_rule("leaf=seamldr_install, rax=ebadsig").rax == 0x8000000000020000
    assert parse_rule("leaf=53,vector=#UD") == Rule(leaf=53, outcome=Ends.FAULT, vector=6)
    assert parse_rules(["leaf=1,rax=1; leaf=2,rax=2", "leaf=3,rax=3"])[2].leaf == 3


@pytest.mark.parametrize(("text", "says"), [
    ("", "empty"), ("leaf", "KEY=VALUE"), ("leaf=", "KEY=VALUE"), ("leaf=TDH.SYS.INITT", "did you mean TDH.SYS.INIT"),
    ("lef=3", "no key 'lef'"), ("leaf=3,leaf=4", "given twice"), ("leaf=3,out.r8=1,out.r8=1", "given twice"),
    ("leaf=3,out.rax=1", "no register"), ("leaf=3,outcome=boom", "there are completed"), ("leaf=3,cpu=-1", "negative"),
    ("leaf=3,outcome=fault", "a fault needs one"), ("leaf=3,vector=300", "0 to 255"),
    ("leaf=3,rax=TDX_NOPE", "no 'TDX_NOPE'"),
    ("leaf=3,nth=4,nth_to=2", "before nth"), ("leaf=3,rax=0x1ffffffffffffffff", "2^64"), ("leaf=3,cpu=x", "no number"),
])
def test_parse_rule__says_what_is_wrong(text: str, says: str) -> None:
    with pytest.raises(SeamrefError, match=says.replace("^", r"\^").replace("(", r"\(")):
        parse_rule(text)


def test_LNX_seamcall_prerr__a_scripted_status_is_printed_like_a_real_one() -> None:
    host = scripted(Rule(leaf=53, rax=1))
    assert seamcall_prerr(host, 0, 53) is Errno.EIO
    assert host.state.dmesg[-1] == "virt/tdx: SEAMCALL (0x0000000000000035) failed: 0x0000000000000001"
