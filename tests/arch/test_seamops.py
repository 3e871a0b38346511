"""SEAMOPS, the SEAMDB, reports, EVERIFYREPORT2 and PCONFIG."""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import replace

import pytest

from seamref.arch import lab, msr
from seamref.arch.lp import ZF
from seamref.arch.memory import Agent
from seamref.arch.outcome import Done, Entered, Fault, Vector
from seamref.arch.pconfig import PCONFIG, PconfigStatus, pconfig
from seamref.arch.platform import Platform
from seamref.arch.revision import REV_343754_002, SILICON
from seamref.arch.seam import seamcall
from seamref.arch.seamops import SEAMOPS, SEAMREPORT, SeamopsLeaf, SeamopsStatus, make_report, report_key, seamops
from seamref.arch.sgx import EVERIFYREPORT2, VerifyStatus, everifyreport2
from seamref.arch.structures import MKTME_KEY_PROGRAM, REPORTMACSTRUCT, SEAMEXTEND, TEE_TCB_INFO
from seamref.arch.structures import SEAMREPORT as REPORT
from seamref.errors import LayoutError

UD, GP = Vector.UD, Vector.GP
PAGE = lab.P_SEAMLDR_RANGE.base - 0x40000  # a data page of the module, mapped below
LINEAR = 0xFFFF800000001000


def in_module(revision: object = SILICON) -> Platform:
    """SEAM root, with one writable data page mapped."""
    platform = lab.platform(revision=revision)  # type: ignore[arg-type]
    tables = lab.P_SEAMLDR_RANGE.base - 0x10000
    platform.store(Agent.CPU, tables + 0x3000 + 8, (PAGE | 1 << 63 | 0x63).to_bytes(8, "little"))
    assert isinstance(seamcall(platform, 0), Entered)
    return platform


def leaf(platform: Platform, number: int, **registers: int) -> Done | Fault:
    lp = platform.lp(0)
    lp.rax = number
    for name, value in registers.items():
        setattr(lp, name, value)
    return seamops(platform, 0)


def identity(platform: Platform, byte: int) -> None:
    record = SEAMEXTEND.decode(platform.SEAMEXTEND)
    record.valid, record.mrseam = 0x1FF, bytes([byte]) * 48
    record.tee_tcb_svn.seam_minor_svn = byte
    platform.SEAMEXTEND = record.encode()


@pytest.mark.parametrize(
    ("row", "spoil", "expected"),
    [
        ("SEAMOPS.inSEAM", {"inSEAM": False}, (UD, None)),
        ("SEAMOPS.64bit", {"cs_l": False}, (UD, None)),
        ("SEAMOPS.non_root", {"non_root": True}, (UD, None)),
        ("SEAMOPS.cpl", {"cpl": 3}, (GP, 0)),
    ],
)
def test_SEAMOPS__rows(row: str, spoil: dict[str, object], expected: tuple[Vector, int | None]) -> None:
    platform = in_module()
    for name, value in spoil.items():
        setattr(platform.lp(0), name, value)
    assert leaf(platform, 0) == Fault(*expected, row)
    assert not platform.svn_locked


def test_SEAMOPS_lock__prefix() -> None:
    platform = in_module()
    assert seamops(platform, 0, lock_prefix=True) == Fault(UD, None, "SEAMOPS.lock")
    assert {row.id for row in SEAMOPS} == {f"SEAMOPS.{x}" for x in ("inSEAM", "64bit", "non_root", "lock", "cpl")}


def test_SEAMOPS_svn_lock__any_leaf_even_an_unsupported_one() -> None:
    platform = in_module()
    assert leaf(platform, 9) == Fault(GP, 0, "SEAMOPS.leaf")
    assert platform.svn_locked
    without = in_module(replace(SILICON, capabilities=1))
    assert leaf(without, 0) == Done("SEAMOPS.capabilities") and not without.svn_locked
    assert leaf(without, 1) == Fault(GP, 0, "SEAMOPS.leaf")


def test_SEAMOPS_capabilities__and_the_width_of_the_leaf() -> None:
    platform = in_module()
    assert leaf(platform, 0) == Done("SEAMOPS.capabilities") and platform.lp(0).rax == 0x7F
    assert leaf(platform, 1 << 32) == Fault(GP, 0, "SEAMOPS.leaf")
    platform.revision = replace(SILICON, seamops_leaf_bits=32)
    assert leaf(platform, 1 << 32) == Done("SEAMOPS.capabilities")
    old = in_module(REV_343754_002)
    leaf(old, 0)
    assert old.lp(0).rax == 3


def test_SEAMDB__clear_insert_getref() -> None:
    platform = in_module()
    lp = platform.lp(0)
    leaf(platform, SeamopsLeaf.SEAMDB_GETREF)
    assert (lp.rax, lp.r15, lp.rflags & ZF) == (3, 16, ZF)  # empty: an error, and R15 is valid all the same
    for k in range(16):
        identity(platform, k)
        leaf(platform, SeamopsLeaf.SEAMDB_INSERT)
        assert (lp.rax, lp.rflags & ZF) == (0, 0)
        leaf(platform, SeamopsLeaf.SEAMDB_GETREF)
        assert (lp.rax, lp.r10, lp.r15) == (0, k, 16)
    assert len({entry.nonce for entry in platform.seamdb}) == 16
    leaf(platform, SeamopsLeaf.SEAMDB_INSERT)
    assert lp.rax == SeamopsStatus.DATABASE_ERROR and len(platform.seamdb) == 16
    leaf(platform, SeamopsLeaf.SEAMDB_CLEAR)
    assert lp.rax == 0 and platform.seamdb == ()


def test_SEAMDB__injected_answers() -> None:
    platform = in_module()
    lp = platform.lp(0)
    platform.inject("seamdb", ("CLEAR", 1), ("INSERT", 2), ("INSERT", 0), ("GETREF", 0, 7, 32))
    leaf(platform, SeamopsLeaf.SEAMDB_CLEAR)
    assert lp.rax == 1
    leaf(platform, SeamopsLeaf.SEAMDB_INSERT)
    assert lp.rax == 2 and platform.seamdb == ()
    leaf(platform, SeamopsLeaf.SEAMDB_INSERT)
    assert lp.rax == 0 and len(platform.seamdb) == 1
    leaf(platform, SeamopsLeaf.SEAMDB_GETREF)
    assert (lp.rax, lp.r10, lp.r15) == (0, 7, 32)
    platform.inject("seamdb_entropy", (0, 0))
    leaf(platform, SeamopsLeaf.SEAMDB_INSERT)
    assert lp.rax == SeamopsStatus.ENTROPY_ERROR


def report_registers(**changes: int) -> dict[str, int]:
    return {"rcx": LINEAR + 0x400, "rdx": 0x81, "r8": LINEAR, "r9": LINEAR + 0x40, **changes}


def test_SEAMREPORT__contents_and_mac() -> None:
    platform = in_module()
    identity(platform, 5)
    platform.store(Agent.MODULE, PAGE, bytes(range(64)) + b"\xaa" * 48, platform.lp(0))
    assert leaf(platform, SeamopsLeaf.SEAMREPORT, **report_registers()) == Done("SEAMOPS.seamreport")
    raw = platform.bytes_at(Agent.MODULE, PAGE + 0x400, REPORT.size, platform.lp(0))
    report = REPORT.decode(raw)
    mac, info = report.reportmacstruct, report.tee_tcb_info
    assert mac.reportdata == bytes(range(64)) and mac.tee_info_hash == b"\xaa" * 48
    assert mac.reporttype.type == 0x81 and mac.cpusvn == platform.config.cpusvn
    assert mac.tee_tcb_info_hash == hashlib.sha384(raw[256:]).digest() and len(raw[256:]) == 239
    assert mac.mac == hmac.digest(report_key(platform), raw[:224], "sha256")
    assert info.mrseam == b"\5" * 48 and info.valid == 0x301FF
    assert info.tee_tcb_svn == info.tee_tcb_svn2
    assert everifyreport2(platform, 0, raw) is VerifyStatus.SUCCESS
    old = make_report(in_module(REV_343754_002), platform.SEAMEXTEND, 0x81, bytes(48), bytes(64))
    assert TEE_TCB_INFO.decode(old, 256).valid == 0x1FF


@pytest.mark.parametrize(
    ("changes", "row", "vector"),
    [
        ({"rcx": LINEAR + 8}, "SEAMREPORT.rcx", GP),
        ({"r9": LINEAR + 8}, "SEAMREPORT.r9", GP),
        ({"r8": LINEAR + 8}, "SEAMREPORT.r8", GP),
        ({"rdx": 0x81 | 1 << 24}, "SEAMREPORT.type", None),
        ({"rdx": 0x01}, "SEAMREPORT.type", None),
        ({"rcx": LINEAR + 0x100000}, "PAGING.walk", Vector.PF),
        ({"r9": LINEAR + 0x100000}, "PAGING.walk", Vector.PF),
        ({"rcx": lab.CODE}, "PAGING.walk", Vector.PF),  # not writable
    ],
)
def test_SEAMREPORT__operands(changes: dict[str, int], row: str, vector: Vector | None) -> None:
    platform = in_module()
    outcome = leaf(platform, SeamopsLeaf.SEAMREPORT, **report_registers(**changes))
    assert outcome.clause == row
    if vector is None:
        assert platform.lp(0).rax == SeamopsStatus.INPUT_ERROR and platform.lp(0).rflags & ZF
    else:
        assert isinstance(outcome, Fault) and outcome.vector is vector
    assert {row.id for row in SEAMREPORT} == {f"SEAMREPORT.{x}" for x in ("rcx", "r9", "r8", "type")}


def test_SEAMDB_REPORT__names_the_module_of_the_entry_and_the_one_that_runs() -> None:
    platform = in_module()
    lp = platform.lp(0)
    for byte in (1, 2):
        identity(platform, byte)
        leaf(platform, SeamopsLeaf.SEAMDB_INSERT)
    nonce = platform.seamdb[0].nonce
    parts = {f"r{11 + i}": int.from_bytes(nonce[8 * i : 8 * i + 8], "little") for i in range(4)}
    assert leaf(platform, 5, r10=0, **parts, **report_registers()) == Done("SEAMOPS.seamdb_report")
    info = TEE_TCB_INFO.decode(platform.bytes_at(Agent.MODULE, PAGE + 0x500, 239, lp))
    assert info.mrseam == b"\1" * 48 and info.tee_tcb_svn.seam_minor_svn == 1 and info.tee_tcb_svn2.seam_minor_svn == 2
    for wrong in ({"r10": 1}, {"r10": 2}, {"r10": 0, "r14": 0}):
        leaf(platform, 5, **{**parts, **report_registers(), **wrong})
        assert lp.rax == SeamopsStatus.DATABASE_ERROR


def test_SEAMVERIFYREPORT__success_and_both_failures() -> None:
    platform = in_module()
    lp = platform.lp(0)
    good = make_report(platform, platform.SEAMEXTEND, 0x81, bytes(48), bytes(64))
    cases = {0: good, 4: good[:16] + b"x" + good[17:], 5: good[:130] + b"x" + good[131:]}
    for status, report in cases.items():
        platform.store(Agent.MODULE, PAGE, report, lp)
        assert leaf(platform, 6, rbx=LINEAR) == Done("SEAMOPS.seamverifyreport")
        assert lp.rax == status
    assert isinstance(leaf(platform, 6, rbx=LINEAR + 0x100000), Fault)


def spoiled(report: bytes, at: int, value: int) -> bytes:
    return report[:at] + bytes([value]) + report[at + 1 :]


@pytest.mark.parametrize(
    ("row", "change", "expected"),
    [
        ("align", {"rbx": 8}, Fault(GP, 0, "EVERIFYREPORT2.align")),
        ("elrange", {"in_elrange": False}, Fault(GP, 0, "EVERIFYREPORT2.elrange")),
        ("page", {"readable": False}, Fault(Vector.PF, 0, "EVERIFYREPORT2.page")),
        ("type", {"at": 0, "value": 0}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
        ("subtype", {"at": 1, "value": 1}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
        ("version", {"at": 2, "value": 2}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
        ("reserved", {"at": 3, "value": 2}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
        ("reserved", {"at": 200, "value": 2}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
        ("cpusvn", {"at": 16, "value": 99}, VerifyStatus.SGX_INVALID_CPUSVN),
        ("mac", {"at": 224, "value": 99}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
        ("mac", {"at": 60, "value": 99}, VerifyStatus.SGX_INVALID_REPORTMACSTRUCT),
    ],
)
def test_EVERIFYREPORT2__rows(row: str, change: dict[str, int], expected: object) -> None:
    platform = lab.platform()
    report = make_report(platform, platform.SEAMEXTEND, 0x81, bytes(48), bytes(64))
    if "at" in change:
        report = spoiled(report, change["at"], change["value"])
    platform.lp(0).rbx = change.get("rbx", 0)
    keywords = {name: bool(value) for name, value in change.items() if name in ("in_elrange", "readable")}
    from seamref.arch.sgx import VerifyState

    state = VerifyState(platform, platform.lp(0), report, **{"in_elrange": True, "readable": True, **keywords})
    decided = EVERIFYREPORT2.decide(state, platform.revision)
    assert decided is not None and decided.id == f"EVERIFYREPORT2.{row}"
    assert everifyreport2(platform, 0, report, **keywords) == expected


def test_EVERIFYREPORT2_version__one_is_accepted_on_1_5_parts_only() -> None:
    bad = VerifyStatus.SGX_INVALID_REPORTMACSTRUCT
    for revision, expected in ((SILICON, VerifyStatus.SUCCESS), (REV_343754_002, bad)):
        platform = lab.platform(revision=revision)
        report = make_report(platform, platform.SEAMEXTEND, 0x10081, bytes(48), bytes(64))
        assert REPORTMACSTRUCT.decode(report).reporttype.version == 1
        assert everifyreport2(platform, 0, report) is expected
    with pytest.raises(LayoutError, match=r"REPORTMACSTRUCT\.mac"):
        everifyreport2(lab.platform(), 0, b"short")


def program(keyid: int = 1, command: int = 0, algorithm: int = 1, **fields: object) -> bytes:
    control = command | algorithm << 8
    return MKTME_KEY_PROGRAM.new(keyid=keyid, keyid_ctrl=control, **fields).encode()


@pytest.mark.parametrize(
    ("row", "registers", "structure", "outcome"),
    [
        ("cpl", {"cpl": 3}, program(), (UD, None)),
        ("leaf", {"rax": 1}, program(), (GP, 0)),
        ("align", {"rbx": 8}, program(), (GP, 0)),
        ("structure", {}, program(keyid=0), (GP, 0)),
        ("structure", {}, program(keyid=64), (GP, 0)),
        ("structure", {}, program(command=4), (GP, 0)),
        ("structure", {}, program(reserved_0=b"\1" + bytes(57)), (GP, 0)),
        ("private", {}, program(keyid=32), (GP, 0)),
        ("algorithm", {}, program(algorithm=3), (GP, 0)),
        ("algorithm", {}, program(algorithm=0), (GP, 0)),
    ],
)
def test_PCONFIG__faults(row: str, registers: dict[str, int], structure: bytes, outcome: tuple[Vector, int]) -> None:
    platform = lab.platform()
    for name, value in registers.items():
        setattr(platform.lp(0), name, value)
    assert pconfig(platform, 0, structure) == Fault(*outcome, f"PCONFIG.{row}")


def test_PCONFIG_tme__needs_an_activated_TME() -> None:
    assert pconfig(Platform(), 0, program()) == Fault(GP, 0, "PCONFIG.tme")


def test_PCONFIG__private_keyids_by_revision_and_mode() -> None:
    outside = lab.platform(revision=REV_343754_002)
    assert pconfig(outside, 0, program(keyid=32)) is PconfigStatus.INVALID_KEYID
    assert outside.lp(0).rflags & ZF and outside.lp(0).rax == 3
    outside.lp(0).rax = 0
    assert pconfig(outside, 0, program(keyid=31)) is PconfigStatus.SUCCESS
    inside = in_module()
    inside.lp(0).rax = 0
    assert pconfig(inside, 0, program(keyid=32)) is PconfigStatus.SUCCESS
    assert (0, 32) in inside.key_table
    strict = lab.platform(revision=replace(SILICON, pconfig_needs_seam=True))
    assert pconfig(strict, 0, program()) == Fault(GP, 0, "PCONFIG.outside_SEAM")
    strict_inside = in_module(replace(SILICON, pconfig_needs_seam=True))
    assert pconfig(strict_inside, 0, program()) is PconfigStatus.SUCCESS


def test_PCONFIG__commands_and_statuses() -> None:
    platform = lab.platform()
    key = bytes(range(64))
    assert pconfig(platform, 0, program(key_field_1=key)) is PconfigStatus.SUCCESS
    assert platform.key_table[(0, 1)] == key + bytes(64) and not platform.lp(0).rflags & ZF
    assert pconfig(platform, 0, program(command=1)) is PconfigStatus.SUCCESS
    assert platform.key_table[(0, 1)] not in (key + bytes(64), b"TME")
    platform.inject("pconfig", (0, 0))
    assert pconfig(platform, 0, program(command=1)) is PconfigStatus.ENTROPY_ERROR
    platform.lp(0).rax = 0
    assert pconfig(platform, 0, program(), busy=True) is PconfigStatus.DEVICE_BUSY
    for command, held in ((2, b"TME"), (3, b"plain")):
        platform.lp(0).rax = 0
        pconfig(platform, 0, program(command=command))
        assert platform.key_table[(0, 1)] == held
    with pytest.raises(LayoutError, match="MKTME_KEY_PROGRAM_STRUCT"):
        pconfig(platform, 0, b"cut")
    assert msr.TME_ACTIVATE == 0x982 and len(PCONFIG) == 10
