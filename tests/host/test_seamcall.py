"""Linux's SEAMCALL helpers: registers, software-defined results, retry, errno and messages."""

from __future__ import annotations

import sys
from dataclasses import fields, replace
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import lab

from seamref.arch import lab as arch_lab
from seamref.arch.msr import SEAMRR_MASK
from seamref.errors import NotModelled
from seamref.host import abi
from seamref.host.abi import Args, Errno, Leaf
from seamref.host.log import SEAMLDR_PREFIX
from seamref.host.records import Call, Stub
from seamref.host.seamcall import PRERR, ZEROED, CpuDied, run_call, seamcall, seamcall_prerr, seamcall_prerr_ret
from seamref.host.seamldr import seamldr_call

ALL = {name: 0x1000 + index for index, name in enumerate(abi.ARGS)}
OUT = {name: 0xA000 + index for index, name in enumerate(abi.ARGS)}


def test_LNX_args__thirteen_words_in_the_kernels_order() -> None:
    assert tuple(f.name for f in fields(Args)) == abi.ARGS
    assert abi.TDX_MODULE_ARGS.size == 104


@pytest.mark.parametrize("stub", list(Stub))
def test_LNX_stub__loads_its_registers_and_no_others(stub: Stub) -> None:
    host = lab.host()
    lp = host.lp(0)
    for name in abi.ARGS:
        setattr(lp, name, 0xDEAD)
    seen: dict[str, int] = {}

    class Spy:
        id, name = b"seamref.test.spy", "spy"

        def step(self, platform, at, parameters):  # type: ignore[no-untyped-def]
            seen.update({n: getattr(at, n) for n in ("rax", *abi.ARGS)})
            arch_lab.advance_rip(at)
            return arch_lab.seamret(platform, at.id)

    from seamref.arch.software import register_program

    register_program(Spy())  # type: ignore[arg-type]
    spied = arch_lab.platform(keeps_vmcs=True, program=Spy.id)
    host.platform = spied
    for name in abi.ARGS:
        setattr(host.lp(0), name, 0xDEAD)
    seamcall(host, 0, 34, Args(**ALL), stub)
    assert seen["rax"] == 34
    for name in abi.ARGS:
        assert seen[name] == (ALL[name] if name in stub.loads else 0xDEAD), name


@pytest.mark.parametrize("stub", list(Stub))
@pytest.mark.parametrize("rax", [0, 0xC000010000000001])
def test_LNX_stub__outputs_are_stored_even_with_an_error_status(stub: Stub, rax: int) -> None:
    host = lab.host()
    lab.answer(host, 40, rax, **OUT)
    returned = seamcall(host, 0, 40, Args(**ALL), stub)
    assert returned.rax == rax
    for name in abi.ARGS:
        assert getattr(returned.args, name) == (OUT[name] if name in stub.stores else ALL[name]), name


def test_LNX_stub_zeroing__saved_ret_clears_all_outputs_but_rsi() -> None:
    host = lab.host()
    lab.answer(host, 0, 0, **OUT)
    seamcall(host, 0, Leaf.TDH_VP_ENTER, Args(**ALL), Stub.SAVED_RET)
    assert all(getattr(host.lp(0), name) == 0 for name in ZEROED)
    assert host.lp(0).rsi == OUT["rsi"]
    seamcall(host, 0, 40, Args(**ALL), Stub.RET)
    assert host.lp(0).rcx == ALL["rcx"]


@pytest.mark.parametrize("stub", list(Stub))
def test_LNX_stub_cf__vmfailinvalid_leaves_the_block_and_the_registers(stub: Stub) -> None:
    host = lab.host()
    arch_lab.set_ready(host.platform, seam=False)
    returned = seamcall(host, 0, 34, Args(**ALL), stub)
    assert returned.rax == abi.TDX_SEAMCALL_VMFAILINVALID
    assert returned.args == Args(**ALL)
    assert host.lp(0).rcx == ALL["rcx"]  # the zeroing step is skipped too


def test_LNX_stub_fixup__ud_outside_vmx_and_gp_without_seamrr() -> None:
    host = lab.host()
    host.lp(0).vmx_on = False
    assert seamcall(host, 0, 34, Args(**ALL), Stub.SAVED_RET) == type(seamcall(host, 0, 34, Args(**ALL)))(
        abi.TDX_SEAMCALL_UD, Args(**ALL)
    )
    host = lab.host()
    host.lp(1).msrs[SEAMRR_MASK] &= ~(1 << 11)
    assert seamcall(host, 1, 34).rax == abi.TDX_SEAMCALL_GP
    assert abi.TDX_SEAMCALL_GP == 0x8000FF000000000D and abi.TDX_SEAMCALL_UD == 0x8000FF0000000006


def test_LNX_attempt__marks_the_cpu_before_the_instruction_even_when_it_fails() -> None:
    host = lab.host()
    arch_lab.set_ready(host.platform, seam=False)
    assert not host.cpu(0).cache_state_incoherent
    seamcall(host, 0, 34)
    assert host.cpu(0).cache_state_incoherent and not host.cpu(1).cache_state_incoherent


@pytest.mark.parametrize("refusals", [0, 1, 9, 10])
def test_LNX_retry__ten_attempts_in_total(refusals: int) -> None:
    host = lab.host()
    lab.answers(host, Leaf.TDH_SYS_LP_INIT, *[abi.TDX_RND_NO_ENTROPY] * refusals, 0)
    expected = 0 if refusals < 10 else abi.TDX_RND_NO_ENTROPY
    assert seamcall(host, 0, Leaf.TDH_SYS_LP_INIT).rax == expected


def test_LNX_retry__details_in_the_low_half_defeat_it() -> None:
    host = lab.host()
    lab.answers(host, 35, abi.TDX_RND_NO_ENTROPY | 1, 0)
    assert seamcall(host, 0, 35).rax == abi.TDX_RND_NO_ENTROPY | 1


def test_LNX_retry__P_SEAMLDRs_status_is_not_retried_by_the_merged_kernel() -> None:
    from seamref.host.series import V3, V4

    for series, expected in ((V3, Errno.OK), (V4, Errno.EIO), (lab.MERGED, Errno.EIO)):
        host = lab.host(series=series)
        lab.answers(host, Leaf.SEAMLDR_INSTALL, abi.SEAMLDR_RND_NO_ENTROPY, 0)
        assert seamldr_call(host, 0, Leaf.SEAMLDR_INSTALL, 0x1000) is expected, series.name


CASES = {
    "PRERR.success": (abi.TDX_SUCCESS, Errno.OK, 0),
    "PRERR.vmfailinvalid": (abi.TDX_SEAMCALL_VMFAILINVALID, Errno.ENODEV, 0),
    "PRERR.gp": (abi.TDX_SEAMCALL_GP, Errno.EOPNOTSUPP, 0),
    "PRERR.ud": (abi.TDX_SEAMCALL_UD, Errno.EACCES, 0),
    "PRERR.other": (0xC000010000000001, Errno.EIO, 1),
}


@pytest.mark.parametrize("row", CASES)
def test_PRERR__each_row_decides_when_those_before_are_silent(row: str) -> None:
    rax, errno, _ = CASES[row]
    decided = PRERR.decide(rax)
    if row == "PRERR.other":
        assert decided is None
    else:
        assert decided is not None and decided.id == row and decided.result is errno
    assert [r.id for r, stops in PRERR.walk(rax) if not stops] == list(CASES)[: list(CASES).index(row)]
    assert int(errno) == {"PRERR.success": 0, "PRERR.vmfailinvalid": -19, "PRERR.gp": -95, "PRERR.ud": -13,
                          "PRERR.other": -5}[row]


def test_seamcall_prerr__prints_leaf_and_status_only_for_the_last_row() -> None:
    host = lab.host()
    before = len(host.state.dmesg)
    lab.answer(host, 52, 0xC000010000000001)
    assert seamcall_prerr(host, 0, 52) is Errno.EIO
    assert host.state.dmesg[before:] == ("virt/tdx: SEAMCALL (0x0000000000000034) failed: 0xc000010000000001",)
    arch_lab.set_ready(host.platform, seam=False)
    assert seamcall_prerr(host, 0, 52) is Errno.ENODEV
    host.lp(0).vmx_on = False
    assert seamcall_prerr(host, 0, 52) is Errno.EACCES
    host = lab.host()
    host.lp(0).msrs[SEAMRR_MASK] &= ~(1 << 11)
    assert seamcall_prerr(host, 0, 52) is Errno.EOPNOTSUPP
    assert len(host.state.dmesg) == before


def test_seamcall_prerr_ret__adds_six_registers() -> None:
    host = lab.host()
    before = len(host.state.dmesg)
    lab.answer(host, 34, 0xC0000C0000000000, rcx=1, rdx=2, r8=3, r9=4, r10=5, r11=0xF)
    ret, args = seamcall_prerr_ret(host, 0, 34, Args(rdx=7), SEAMLDR_PREFIX)
    assert ret is Errno.EIO and args.rdx == 2
    assert host.state.dmesg[before:] == (
        "seamldr: SEAMCALL (0x0000000000000022) failed: 0xc0000c0000000000",
        "seamldr: RCX 0x0000000000000001 RDX 0x0000000000000002 R08 0x0000000000000003",
        "seamldr: R09 0x0000000000000004 R10 0x0000000000000005 R11 0x000000000000000f",
    )


def test_LNX_stub__a_processor_that_dies_inside_never_returns() -> None:
    host = lab.host()
    host.platform.store(arch_lab.Agent.CPU, arch_lab.P_SEAMLDR_RANGE.base - 0x10000, bytes(4096))
    with pytest.raises(CpuDied):
        run_call(host, 0, Call(34))
    assert host.cpu(0).dead and not host.platform.SEAM_READY


def test_LNX_stub__a_kernel_in_a_vm_is_not_modelled_and_says_so() -> None:
    host = lab.host()
    host.lp(0).non_root = True
    with pytest.raises(NotModelled, match="VM"):
        seamcall(host, 0, 34)


def test_host__forks_are_independent_and_fingerprints_see_both_halves() -> None:
    host = lab.host()
    other = host.fork()
    assert other.fingerprint() == host.fingerprint()
    other.printk("x: ", "y")
    assert other.fingerprint() != host.fingerprint() and other.fingerprint(log=False) == host.fingerprint(log=False)
    other.set_cpu(0, online=False)
    assert other.fingerprint(log=False) != host.fingerprint(log=False) and host.cpu(0).online
    third = host.fork()
    third.lp(0).rcx = 99
    assert third.fingerprint() != host.fingerprint()
    assert replace(host.state) == host.state
