"""The parts below the leaves: hash, status words, builds, declared data, clauses of functions."""

from __future__ import annotations

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tdxmodule.stages import staged, with_td
from tdxmodule.test_rows import everything_goes_well

import seamref.tdxmodule.guest
from seamref.arch.lab import set_ready
from seamref.arch.memory import Agent
from seamref.errors import NotModelled, SeamrefError
from seamref.host import vmm
from seamref.spec import COVERAGE, IMPLEMENTED_BY, TABLES
from seamref.tdxmodule.build import BUILDS, TDX_MODULE_BUILD, decode_build, get_build
from seamref.tdxmodule.core import LEAVES
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.program import UNMODELLED
from seamref.tdxmodule.sha384 import Sha384
from seamref.tdxmodule.status import Details, Operand, Recoverability, Result, Status, decode, details_of, pack


@given(st.lists(st.binary(max_size=300), max_size=6), st.sampled_from((1, 2)))
def test_sha384__packed_and_unpacked_at_every_step_is_hashlib(parts: list[bytes], format: int) -> None:
    state, wanted = Sha384(), hashlib.sha384()
    for part in parts:
        state.update(part)
        wanted.update(part)
        state = Sha384.unpack(state.pack(format), format)
    assert state.digest() == wanted.digest()


def test_sha384__another_format_is_misread_without_any_error() -> None:
    state = Sha384()
    state.update(b"x" * 128)
    misread = Sha384.unpack(state.pack(1), 2)
    misread.update(b"y" * 128)
    state.update(b"y" * 128)
    assert misread.digest() != state.digest()


def test_sha384__bad_input_is_named() -> None:
    with pytest.raises(SeamrefError, match="packed hash format 3"):
        Sha384().pack(3)
    with pytest.raises(SeamrefError, match="packed hash format 0"):
        Sha384.unpack(bytes(256), 0)
    with pytest.raises(SeamrefError, match="255 bytes"):
        Sha384.unpack(bytes(255), 1)


@pytest.mark.parametrize(("word", "text", "kind"), [
    (0, "TDX_SUCCESS", Recoverability.SUCCESS),
    (0xC000010000000001, "TDX_OPERAND_INVALID (operand RCX)", Recoverability.FINAL),
    (0x80000200000000BA, "TDX_OPERAND_BUSY (operand KOT)", Recoverability.RETRY),
    (0x80000200000000FF, "TDX_OPERAND_BUSY (operand 255)", Recoverability.RETRY),
    (0xC00009210000010A, "TDX_INCORRECT_MSR_VALUE (MSR 0x10A)", Recoverability.FINAL),
    (0xC0000A1200010002, "TDX_PAMT_OVERLAP (details 2 0 1 0)", Recoverability.FINAL),
    (0x6000000A0000004D, "TDX_NON_RECOVERABLE_TD_CORRUPTED_MD (exit reason 77)", Recoverability.BROKEN),
    (0x4000000100000002, "TDX_NON_RECOVERABLE_VCPU (exit reason 2)", Recoverability.BROKEN),
    (0xC000062100000007, "TDX_X2APIC_ID_NOT_UNIQUE (0x7)", Recoverability.FINAL),
    (0xC000050500000003, "TDX_SYS_NOT_READY (details 0x3)", Recoverability.FINAL),
    (0x00000A0300000000, "TDX_TDMR_ALREADY_INITIALIZED", Recoverability.SUCCESS),
    (0x8000051200000000, "TDX_UPDATE_COMPAT_SENSITIVE", Recoverability.RETRY),
    (0x800000FF00000009, "0x800000FF00000000 (details 0x9)", Recoverability.RETRY),
])
def test_status__words_read_as_sentences(word: int, text: str, kind: Recoverability) -> None:
    read = decode(word)
    assert (str(read), read.recoverability) == (text, kind)


def test_status__every_code_reads_as_itself_and_details_stay() -> None:
    for status in Status:
        assert decode(int(status)).status is status
        assert decode(status | 5).details == 5
        assert status.means and isinstance(details_of(status), Details)
    assert len({int(status) for status in Status}) == len(Status) == 173
    assert decode(int(Status.TDX_SYS_BUSY)).class_name == "resource busy"
    assert decode(0xC000_4200_0000_0000).class_name == "class 0x42"
    assert decode(Status.TDX_TD_FATAL).fatal and decode(Status.TDX_SYS_SHUTDOWN).non_recoverable
    assert decode(0xD000_0100_0000_0002).status is Status.TDX_OPERAND_INVALID, "host recoverability hint set"


def test_status__bad_input_is_named() -> None:
    with pytest.raises(SeamrefError, match="64 bits"):
        decode(1 << 64)
    with pytest.raises(SeamrefError, match="four bytes"):
        pack(1, 2, 3, 4, 5)
    assert pack(1, 2, 3) == 0x030201
    assert str(Result(Status.TDX_OPERAND_BUSY, Operand.TDR)) == "TDX_OPERAND_BUSY (operand TDR)"
    assert Result(Status.TDX_KEY_CONFIGURED).ok and not Result(Status.TDX_SYS_BUSY).ok


def test_build__constants_follow_from_the_name() -> None:
    assert len({build.constants for build in BUILDS.values()}) == len(BUILDS)
    for build in BUILDS.values():
        assert len(build.constants) == TDX_MODULE_BUILD.size == 64
        assert decode_build(build.constants).update == build.update
        assert not TDX_MODULE_BUILD.problems(build.constants)
        assert build.sigstruct_fields["seamsvn"] == build.major_svn << 8 | build.minor_svn
    assert get_build("1.5.05").version == "1.5.05"
    with pytest.raises(SeamrefError, match=r"no TDX module build '9'"):
        get_build("9")


def test_build__published_features_as_released() -> None:
    """TDX_FEATURES0 of releases: TD_PRESERVING everywhere, UPDATE_COMPATIBILITY in none."""
    for name in ("1.5.01", "1.5.05", "1.5.06", "1.5.16", "2.0.05"):
        assert BUILDS[name].tdx_features0 & 2 and not BUILDS[name].tdx_features0 >> 47


def test_clauses__every_function_clause_of_the_module_is_executed() -> None:
    rows = {row.id for table in TABLES.values() for row in table}
    mine = [id for id, functions in IMPLEMENTED_BY.items() if id not in rows and any(
        f.__module__.startswith("seamref.tdxmodule") for f in functions)]
    assert len(mine) > 50 and "SYS.UPDATE.effect" in mine
    before = {id: COVERAGE[id][1] for id in mine}
    everything_goes_well()
    p, td = with_td(program=((seamref.tdxmodule.guest.Op.MOV, "rax", 1), (seamref.tdxmodule.guest.Op.TDCALL,)))
    vmm.run_td(p.fork(), 0, td.copy())
    assert not vmm.tdh(p.fork(), 0, "TDH.MEM.SEPT.ADD", rcx=3, rdx=td.tdr, r8=td.copy().take()).ok  # shows the entry
    assert [id for id in mine if COVERAGE[id][1] == before[id]] == []


def test_not_modelled__leaves_of_the_interface_say_their_name() -> None:
    assert not set(UNMODELLED) & set(LEAVES)
    from seamref.arch.software import call

    p, td = with_td()
    with pytest.raises(NotModelled, match=r"TDH.MEM.PAGE.AUG \(leaf 6\)"):
        call(p.fork(), 0, rax=6, rdx=td.tdr)


def test_not_modelled__their_first_operand_is_judged_all_the_same() -> None:
    from seamref.arch.software import call

    p = staged("tdmr.init").fork()
    for leaf, gap in UNMODELLED.items():
        call(p, 0, rax=leaf, rcx=0, rdx=1 << 12 if gap.other else 0)
        details = {"rcx": 1, "rdx": 2}[gap.operand]
        assert p.peek_lp(0).rax == 0xC000010100000000 | details, gap.name


def test_not_modelled__an_operand_that_must_be_another_is_judged_first() -> None:
    """TDH.SERVTD.BIND of a TD to itself."""
    from seamref.arch.software import call

    p = staged("tdmr.init").fork()
    others = {leaf: gap for leaf, gap in UNMODELLED.items() if gap.other}
    assert [gap.name for gap in others.values()] == ["TDH.SERVTD.BIND"]
    for leaf in others:
        call(p, 0, rax=leaf, rcx=0, rdx=0)
        assert p.peek_lp(0).rax == 0xC000010000000002


def test_not_modelled__L2_VMs() -> None:
    from seamref.tdxmodule.structures import TD_PARAMS

    p, td = with_td("TDH.MNG.ADDCX")
    p, td = p.fork(), td.copy()
    for _ in range(6):
        vmm.must(p, 0, "TDH.MNG.ADDCX", rcx=td.take(), rdx=td.tdr)
    vmm.poke(p, td.shared, TD_PARAMS.encode({
        "xfam": 3, "max_vcpus": 1, "num_l2_vms": 1, "eptp_controls": 0x1E, "tsc_frequency": 80}))
    with pytest.raises(NotModelled, match="TD partitioning"):
        vmm.tdh(p, 0, "TDH.MNG.INIT", rcx=td.tdr, rdx=td.shared)


def test_SYS_DISABLE__forgets_everything_and_a_cold_start_works_again() -> None:
    p, td = with_td(module="1.5.940")
    p, td = p.fork(), td.copy()
    vmm.run_td(p, 0, td)
    assert vmm.tdh(p, 0, "TDH.SYS.DISABLE").ok
    assert not vmm.enter(p, 0, td).ok and Look(p).state.name == "SYSINIT_PENDING"
    assert any(p.peek_lp(0).vmcs_cache), "the TD VMCS is still cached: VP.INIT of the next TD clears it"
    assert p.bytes_at(Agent.HOST, td.tdr, 64) == bytes(64)
    vmm.bring_up(p)
    again = vmm.build_td(p)
    assert vmm.run_td(p, 0, again).count == 1


def test_SYS_DISABLE__older_modules_have_no_such_leaf() -> None:
    p = staged("tdmr.init").fork()
    assert vmm.tdh(p, 0, "TDH.SYS.DISABLE").word == 0xC000010000000000


def test_SYS_DISABLE__an_event_interrupts_it_between_TDMRs() -> None:
    p = staged("tdmr.init", "1.5.940").fork()
    glob = Look(p).glob
    second = bytearray(glob.raw("tdmrs[0]"))
    second[0:8] = (0x1_8000_0000).to_bytes(8, "little")
    glob.set("tdmrs[1]", bytes(second))
    glob.set("num_tdmrs", 2)
    p.lp(0).intr_pending = True
    assert vmm.tdh(p, 0, "TDH.SYS.DISABLE").status is Status.TDX_INTERRUPTED_RESUMABLE
    assert Look(p).glob.num("disabled_tdmrs") == 1
    assert vmm.tdh(p, 0, "TDH.SYS.DISABLE").ok


def test_SEAM_READY__clear_means_VMfailInvalid_and_nothing_else() -> None:
    p = staged("tdmr.init").fork()
    set_ready(p, seam=False)
    before = p.fingerprint()
    answer = vmm.tdh(p, 0, "TDH.SYS.LP.SHUTDOWN")
    assert str(answer) == "VMfailInvalid" and p.peek_lp(0).rflags & 1
    assert p.fingerprint() != before, "the registers the caller set, and the flags"
    set_ready(p, seam=True)
    assert vmm.tdh(p, 0, "TDH.SYS.LP.SHUTDOWN").ok
