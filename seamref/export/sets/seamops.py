"""SEAMOPS: its conditions, every leaf, SEAMDB as it fills, and SEAMREPORT with its MAC."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from typing import Any

from seamref.arch import lab
from seamref.arch.memory import Agent
from seamref.arch.platform import Platform, SeamdbEntry
from seamref.arch.seam import seamcall
from seamref.arch.seamops import SeamopsLeaf, report_key, seamops
from seamref.arch.structures import REPORTMACSTRUCT, SEAMEXTEND, SEAMREPORT
from seamref.errors import SeamrefError
from seamref.export.form import (
    Answer,
    Case,
    Count,
    Flag,
    Group,
    Hex,
    Item,
    ListOf,
    Octets,
    VectorSet,
    hexed,
    number,
)
from seamref.export.outcomes import outcome_json, outcome_type
from seamref.export.sets.machine import INSTRUCTION_SET, base, every, said, state_number

FACTS: tuple[tuple[str, str], ...] = (
    ("inSEAM", "inSEAM = 1"),
    ("64bit", "EFER.LMA = 1 and CS.L = 1"),
    ("non_root", "in VMX non-root operation"),
    ("lock", "a LOCK prefix"),
    ("user", "CPL = 3 (0: CPL = 0)"),
)
_GOOD = {"inSEAM": True, "64bit": True, "non_root": False, "lock": False, "user": False}
PAGE = lab.P_SEAMLDR_RANGE.base - 0x40000
LINEAR = lab.CODE + 0x1000
"""A data page of the module, and the linear address at which the tests map it."""
INPUTS = ("rcx", "rdx", "rbx", "r8", "r9", "r10", "r11", "r12", "r13", "r14")
OUTPUTS = ("rax", "r10", "r11", "r12", "r13", "r14", "r15")
REPORT, HASH, DATA = LINEAR, LINEAR + 0x800, LINEAR + 0x840
TD = 0x81
"""REPORTTYPE of a TDX report."""


@lru_cache(maxsize=8)
def _in_module(revision: str) -> Platform:
    """SEAM root, with one writable data page mapped at LINEAR."""
    platform = base(revision).fork()
    tables = lab.P_SEAMLDR_RANGE.base - 0x10000
    platform.store(Agent.CPU, tables + 0x3000 + 8, (PAGE | 1 << 63 | 0x63).to_bytes(8, "little"))
    seamcall(platform, 0)
    return platform


def _identity(minor: int, fill: int) -> bytes:
    record = SEAMEXTEND.decode(bytes(SEAMEXTEND.size))
    record.valid, record.mrseam, record.attributes = 0x1FF, bytes([fill]) * 48, 0
    record.tee_tcb_svn.seam_minor_svn, record.tee_tcb_svn.seam_major_svn = minor, 1
    record.seam_ready = record.p_seamldr_ready = 1
    return record.encode()


IDENTITIES = tuple(_identity(minor, 0x11 * (minor + 1)) for minor in range(4))


def _common() -> dict[str, Any]:
    platform = base("silicon")
    return {
        "report_key": report_key(platform).hex(),
        "cpusvn": platform.config.cpusvn.hex(),
        "mapped": hexed(LINEAR),
        "page": bytes(4096).hex(),
    }


def _case(
    id: str,
    comment: str,
    leaf: int,
    *,
    facts: Mapping[str, bool] = _GOOD,
    entries: int = 0,
    size: int = 16,
    writes: tuple[tuple[int, bytes], ...] = (),
    **registers: int,
) -> Case:
    values = {name: hexed(registers.get(name, 0)) for name in INPUTS}
    return Case(
        id,
        comment,
        {
            **facts,
            "rax": hexed(leaf),
            **values,
            "seamextend": IDENTITIES[0].hex(),
            "seamdb_size": size,
            "seamdb": [{"identity": IDENTITIES[1 + i % 3].hex(), "nonce": _nonce(i).hex()} for i in range(entries)],
            "writes": [{"offset": at, "bytes": data.hex()} for at, data in writes],
        },
    )


def _nonce(index: int) -> bytes:
    return bytes((index * 37 + i) & 0xFF for i in range(32))


def _words(nonce: bytes) -> dict[str, Any]:
    return {f"r{11 + i}": int.from_bytes(nonce[8 * i : 8 * i + 8], "little") for i in range(4)}


def _cases() -> Iterator[Case]:
    for facts in every(*(name for name, _ in FACTS)):
        yield _case(f"seamops-state-{state_number(facts):02x}", said(facts), 0, facts=facts)
    for leaf in (*range(9), 63, 64, 1 << 32, 1 << 32 | 1, 1 << 63):
        name = SeamopsLeaf(leaf).name if leaf in set(SeamopsLeaf) else "no leaf"
        yield _case(f"seamops-leaf-{leaf:x}", f"RAX = {hexed(leaf)}: {name}", leaf, rdx=TD, **_report_at())
    for entries in (0, 1, 2, 15, 16):
        for leaf in (SeamopsLeaf.SEAMDB_CLEAR, SeamopsLeaf.SEAMDB_INSERT, SeamopsLeaf.SEAMDB_GETREF):
            yield _case(
                f"seamops-{leaf.name.lower()}-{entries}",
                f"{leaf.name}, {entries} of 16 entries",
                leaf,
                entries=entries,
            )
    for size in (0, 1):
        yield _case(f"seamops-seamdb_insert-size-{size}", f"SEAMDB_INSERT into a database of {size}", 3, size=size)
    yield from _reports()
    yield from _verifications()


def _report_at() -> dict[str, Any]:
    return {"rcx": REPORT, "r9": HASH, "r8": DATA}


def _reports() -> Iterator[Case]:
    places = ((HASH - LINEAR, bytes(range(48))), (DATA - LINEAR, bytes(range(64, 128))))
    for version in (0, 1):
        for subtype in (0, 1):
            kind = TD | subtype << 8 | version << 16
            yield _case(
                f"seamops-report-{kind:06x}",
                f"SEAMREPORT of type {hexed(kind)}",
                1,
                rdx=kind,
                writes=places,
                **_report_at(),
            )
    for name, registers in {
        "rcx": {"rcx": REPORT + 512},
        "r9": {"r9": HASH + 32},
        "r8": {"r8": DATA + 8},
        "type": {"rdx": 0},
        "type-high": {"rdx": TD | 1 << 24},
        "rcx-unmapped": {"rcx": LINEAR + 0x1000},
        "r9-unmapped": {"r9": LINEAR + 0x1000},
        "r8-not-canonical": {"r8": 1 << 60},
        "rcx-code": {"rcx": lab.CODE},
    }.items():
        yield _case(
            f"seamops-report-{name}",
            f"SEAMREPORT: {name}",
            1,
            writes=places,
            **{"rdx": TD, **_report_at(), **registers},
        )
    for first, second in (("rcx", "r9"), ("r9", "r8"), ("rcx", "type"), ("r8", "type")):
        bad = {"rcx": {"rcx": REPORT + 512}, "r9": {"r9": HASH + 32}, "r8": {"r8": DATA + 8}, "type": {"rdx": 0}}
        yield _case(
            f"seamops-report-{first}-and-{second}",
            f"SEAMREPORT: {first} and {second} are both bad",
            1,
            writes=places,
            **{"rdx": TD, **_report_at(), **bad[first], **bad[second]},
        )
    for index in range(4):
        yield _case(
            f"seamops-dbreport-{index}",
            f"SEAMDB_REPORT of entry {index} of 3",
            5,
            entries=3,
            writes=places,
            rdx=TD,
            r10=index,
            **_report_at(),
            **_words(_nonce(index)),
        )
    yield _case(
        "seamops-dbreport-nonce",
        "SEAMDB_REPORT with the nonce of another entry",
        5,
        entries=3,
        writes=places,
        rdx=TD,
        r10=1,
        **_report_at(),
        **_words(_nonce(2)),
    )


def _verifications() -> Iterator[Case]:
    """SEAMVERIFYREPORT of a report that this processor made, and of changed ones."""
    platform = _in_module("silicon").fork()
    platform.SEAMEXTEND = IDENTITIES[0]
    lp = platform.lp(0)
    lp.rax, lp.rdx, lp.rcx, lp.r9, lp.r8 = 1, TD, REPORT, HASH, DATA
    seamops(platform, 0)
    made = platform.bytes_at(Agent.MODULE, PAGE, REPORTMACSTRUCT.size)
    for name, where in (
        ("good", None),
        ("reportdata", "reportdata"),
        ("cpusvn", "cpusvn"),
        ("mac", "mac"),
        ("reserved", "reserved_1"),
    ):
        changed = bytearray(made)
        if where is not None:
            changed[REPORTMACSTRUCT.offset_of(where)] ^= 1
        comment = "as made" if where is None else f"one bit of {where} changed"
        yield _case(
            f"seamops-verify-{name}", f"SEAMVERIFYREPORT: {comment}", 6, rbx=LINEAR, writes=((0, bytes(changed)),)
        )
    yield _case("seamops-verify-unmapped", "SEAMVERIFYREPORT: RBX not mapped", 6, rbx=LINEAR + 0x1000)


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = _in_module(revision).fork()
    if report_key(platform).hex() != given["report_key"] or platform.config.cpusvn.hex() != given["cpusvn"]:
        raise SeamrefError("seamops: report_key and cpusvn are those of one processor, and cannot be chosen")
    if given["seamdb_size"] != platform.config.seamdb_size:
        platform.config = _with_seamdb(platform, given["seamdb_size"])
    lp = platform.lp(0)
    lp.inSEAM, lp.cs_l, lp.non_root = given["inSEAM"], given["64bit"], given["non_root"]
    lp.cpl = 3 if given["user"] else 0
    for name in ("rax", *INPUTS):
        setattr(lp, name, number(given[name]))
    platform.SEAMEXTEND = bytes.fromhex(given["seamextend"])
    platform.seamdb = tuple(
        SeamdbEntry(bytes.fromhex(e["identity"]), bytes.fromhex(e["nonce"])) for e in given["seamdb"]
    )
    page = bytearray.fromhex(given["page"])
    for write in given["writes"]:
        data = bytes.fromhex(write["bytes"])
        page[write["offset"] : write["offset"] + len(data)] = data
    platform.store(Agent.CPU, PAGE, page)
    outcome = seamops(platform, 0, lock_prefix=given["lock"])
    lp = platform.lp(0)
    output: dict[str, Any] = {
        "outcome": outcome_json(outcome),
        "rflags": hexed(lp.rflags),
        **{name: hexed(getattr(lp, name)) for name in OUTPUTS},
        "svn_locked": platform.svn_locked,
        "seamdb_identities": [entry.identity.hex() for entry in platform.seamdb],
    }
    inserted = len(platform.seamdb) > len(given["seamdb"])
    if inserted:
        output["nonce_is_fresh"] = platform.seamdb[-1].nonce not in {
            bytes.fromhex(e["nonce"]) for e in given["seamdb"]
        }
    after = platform.bytes_at(Agent.CPU, PAGE, 4096)
    if after != bytes(page):
        output["report"] = after[number(given["rcx"]) - LINEAR :][: SEAMREPORT.size].hex()
    return Answer(output, (outcome.clause,))


def _with_seamdb(platform: Platform, size: int) -> Any:
    from dataclasses import replace

    return replace(platform.config, seamdb_size=size)


_ENTRY = Group(
    (
        Item("identity", Octets(SEAMEXTEND.size), "IA32_SEAMEXTEND when it was inserted"),
        Item("nonce", Octets(32), "its nonce"),
    )
)

SET = VectorSet(
    "seamops",
    "SEAMOPS and its reports",
    (
        "SEAMOPS in every state, every leaf number, the SEAM database from empty to full, SEAMREPORT and "
        "SEAMDB_REPORT with "
        "the whole 495 bytes that they store, SEAMVERIFYREPORT of good and of changed reports.",
        "The MAC is HMAC-SHA-256 with `report_key` over the first 224 bytes.  `report_key` and `cpusvn` are those of "
        "one "
        "processor: an implementation under test must be given them, or compare everything but the MAC.",
        "The nonce of an inserted entry is random; `nonce_is_fresh` says that it is none of those that were there.  "
        "Registers that are in no list are unchanged.",
    ),
    (
        *(Item(name, Flag(), says) for name, says in FACTS),
        Item("rax", Hex(), "RAX: the leaf"),
        *(Item(name, Hex(), name.upper()) for name in INPUTS),
        Item("seamextend", Octets(SEAMEXTEND.size), "IA32_SEAMEXTEND"),
        Item("seamdb_size", Count(0, 1 << 16), "entries that the database has room for"),
        Item("seamdb", ListOf(_ENTRY), "its entries, the oldest first"),
        Item(
            "writes",
            ListOf(
                Group(
                    (Item("offset", Count(0, 4095), "offset in the page"), Item("bytes", Octets(), "what is there"))
                )
            ),
            "what differs in the page",
        ),
        Item("report_key", Octets(32), "CR_REPORT_KEY2"),
        Item("cpusvn", Octets(16), "CRPL_CPUSVN"),
        Item("mapped", Hex(), "linear address of the one data page that is mapped, writable and not executable"),
        Item("page", Octets(4096), "what the page holds but for `writes`"),
    ),
    (
        Item("outcome", outcome_type("fault", "done"), "what SEAMOPS ended in"),
        Item("rflags", Hex(), "RFLAGS: ZF tells failure"),
        *(Item(name, Hex(), f"{name.upper()} afterwards") for name in OUTPUTS),
        Item("svn_locked", Flag(), "CRPL_CPUSVN and BIOS_SE_SVN are locked"),
        Item("seamdb_identities", ListOf(Octets(SEAMEXTEND.size)), "the entries of the database afterwards"),
        Item(
            "nonce_is_fresh",
            Flag(),
            "the new entry's nonce is none of the old ones; only where one was inserted",
            True,
        ),
        Item("report", Octets(SEAMREPORT.size), "what was stored at RCX; only where something was", True),
    ),
    INSTRUCTION_SET,
    _cases,
    _answer,
    _common,
    small=16,
)
