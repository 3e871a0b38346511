"""What P-SEAMLDR makes of a SEAM_SIGSTRUCT: each demand alone, pairs of them, and what the platform adds."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Any

from seamref import mint
from seamref.experiments.loader import refusals
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
    OneOf,
    VectorSet,
    hexed,
    number,
)
from seamref.export.recording import runs
from seamref.layout import Bits, Int
from seamref.pseamldr.api import Scenario, Status
from seamref.pseamldr.manifest import INSTALL_MANIFEST, ManifestState
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT

PAGES = 8
FMS = 0xC06F2


@lru_cache(maxsize=1)
def _image() -> bytes:
    return mint.module_image("1.5.06", pages=PAGES)


@lru_cache(maxsize=1)
def _good() -> bytes:
    return mint.sigstruct(_image())


def _common() -> dict[str, Any]:
    return {"sigstruct": _good().hex(), "signer_key_hash": mint.KEY.key_hash.hex()}


def _case(id: str, comment: str, data: bytes, **fields: Any) -> Case:
    given = {
        "scenario": int(Scenario.LOAD), "num_module_pages": PAGES, "running_minor_svn": 5, "running_major_svn": 1,
        "debug_unlocked": False, "socket_cpuids": [hexed(FMS)], **fields,
    }
    changes = [{"offset": at, "bytes": part.hex()} for at, part in runs(data, _good(), 8)]
    return Case(f"sigstruct-{id}", comment, {**given, "changes": changes})


def _cases() -> Iterator[Case]:
    yield _case("good", "a good sigstruct", _good())
    yield _case("good-1-0", "a good sigstruct without the fields that 1.0 reserves",
                mint.sigstruct(_image(), **refusals.NOTHING_1_0))
    attempts = {case.row: case for case in refusals.cases() if case.row in {row.id for row in INSTALL_MANIFEST}}
    for row, case in attempts.items():
        attempt = case.attempt
        key = mint.OTHER_KEY if attempt.other_key else mint.KEY
        data = mint.sigstruct(_image(), key=key, resign=attempt.resign, **dict(attempt.sig))
        yield _case(_short(row), case.brings, data, scenario=int(attempt.scenario), **_running(row))
        older = mint.sigstruct(_image(), key=key, resign=attempt.resign, **{**refusals.NOTHING_1_0, **attempt.sig})
        yield _case(f"{_short(row)}-1-0", f"{case.brings}; the fields that 1.0 reserves are 0", older,
                    scenario=int(attempt.scenario), **_running(row))
    for one, other in combinations(attempts, 2):
        first, second = attempts[one].attempt, attempts[other].attempt
        if set(first.sig) & set(second.sig) or not (first.sig and second.sig):
            continue
        data = mint.sigstruct(_image(), resign=False, **{**first.sig, **second.sig})
        yield _case(f"{_short(one)}-and-{_short(other)}", f"{attempts[one].brings}; {attempts[other].brings}", data,
                    scenario=max(int(first.scenario), int(second.scenario)))
    yield from _fields()
    yield from _platforms()


def _running(row: str) -> dict[str, Any]:
    """What runs where an UPDATE to a lower SVN is refused."""
    return {"running_minor_svn": 9} if row.endswith((".minor_svn", ".svn")) else {}


def _short(row: str) -> str:
    return row.rpartition(".")[2].replace("_", "-")


def _fields() -> Iterator[Case]:
    """Each integer field one up, one down, zero and at its greatest, signed; each reserved byte."""
    record = SEAM_SIGSTRUCT.decode(_good())
    for field in SEAM_SIGSTRUCT.fields:
        if isinstance(field.type, Int | Bits):
            held, most = record[field.name], (1 << 8 * field.type.size) - 1
            for value in dict.fromkeys((0, held - 1 & most, held + 1 & most, most)):
                if value != held:
                    data = mint.sigstruct(_image(), **{field.name: value})
                    yield _case(f"field-{field.name}-{value:x}", f"{field.name} = 0x{value:X}, signed", data)
        elif field.name.startswith("reserved"):
            for at in dict.fromkeys((0, field.type.size - 1)):
                spoilt: dict[str, Any] = {field.name: bytes(at) + b"\x80" + bytes(field.type.size - 1 - at)}
                data = mint.sigstruct(_image(), **spoilt)
                yield _case(f"reserved-{field.name}-{at}", f"byte {at} of {field.name} = 80H, signed", data)
    for at in range(0, SEAM_SIGSTRUCT.size, 64):
        changed = bytearray(_good())
        changed[at] ^= 1
        yield _case(f"flip-{at:x}", f"bit 0 of byte 0x{at:X} changed after signing", bytes(changed))


def _platforms() -> Iterator[Case]:
    update = int(Scenario.UPDATE)
    for major, minor in ((1, 5), (1, 6), (1, 7), (0, 6), (2, 0), (2, 6), (0, 0)):
        yield _case(f"svn-{major}-{minor}", f"UPDATE, the running module's SVN is {major}.{minor}", _good(),
                    scenario=update, running_major_svn=major, running_minor_svn=minor)
        yield _case(f"load-svn-{major}-{minor}", f"LOAD, the running module's SVN is {major}.{minor}", _good(),
                    running_major_svn=major, running_minor_svn=minor)
    debug = mint.sigstruct(_image(), module_type=1 << 31)
    without = mint.sigstruct(_image(), module_type=1 << 31, cpuid_table=[])
    for unlocked in (False, True):
        yield _case(f"debug-{int(unlocked)}", f"debug-signed, debug-unlocked = "
                                              f"{unlocked}", debug, debug_unlocked=unlocked)
        yield _case(f"debug-no-table-{int(unlocked)}", "debug-signed without CPUID table", without,
                    debug_unlocked=unlocked)
    for name, cpuids in {
        "stepping": (0xC06F0,), "two": (0xC06F2, 0x806F8), "one-missing": (0xC06F2, 0x606A6), "none": (0x606A6,),
        "eight": (0xC06F2,) * 8, "no-socket": (),
    }.items():
        yield _case(f"cpuid-{name}", f"sockets {[hex(c) for c in cpuids]}", _good(),
                    socket_cpuids=[hexed(cpuid) for cpuid in cpuids])
    for pages in (0, 1, 2, 3, 7, 8, 496):
        yield _case(f"pages-{pages}", f"an image of {pages} pages: bounds of GDT, IDT and fault wrappers", _good(),
                    num_module_pages=pages)


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    data = bytearray.fromhex(given["sigstruct"])
    for change in given["changes"]:
        part = bytes.fromhex(change["bytes"])
        data[change["offset"] : change["offset"] + len(part)] = part
    state = ManifestState(
        bytes(data), given["scenario"], given["num_module_pages"], given["running_minor_svn"],
        given["running_major_svn"], given["debug_unlocked"], tuple(number(c) for c in given["socket_cpuids"]),
        bytes.fromhex(given["signer_key_hash"]), revision,
    )
    row = INSTALL_MANIFEST.decide(state, revision)
    status = Status.SUCCESS if row is None else row.result
    flags = tuple(held.id for held in INSTALL_MANIFEST if held.applies is None or held.applies(revision))
    return Answer({"status": status.name, "rax": hexed(int(status))}, flags if row is None else (row.id,))


SET = VectorSet(
    "sigstruct", "SEAM_SIGSTRUCT decisions",
    ("Whether P-SEAMLDR accepts a sigstruct, and with which status it refuses one: each demand alone, pairs of demands "
     "(the earlier one decides), every integer field at other values, reserved bytes, a changed bit in each part, "
     "SVNs of "
     "what runs, CPUID tables, debug signatures.",
     "The 2048 bytes are `sigstruct` with `changes` over it.  The signer is a test key; its hash takes the place of "
     "the one "
     "that a loader has built in.  The flags of a sigstruct that is accepted are all the rows that were asked."),
    (Item("changes", ListOf(Group((Item("offset", Count(0, 2047), "offset"),
                                   Item("bytes", Octets(), "what is there")))),
          "where the bytes differ from `sigstruct`"),
     Item("scenario", Count(0, 1), "SEAMLDR_PARAMS.scenario: 0 LOAD, 1 UPDATE"),
     Item("num_module_pages", Count(), "SEAMLDR_PARAMS.num_module_pages"),
     Item("running_minor_svn", Count(0, 255), "minor SVN of the module that runs"),
     Item("running_major_svn", Count(0, 255), "its major SVN"),
     Item("debug_unlocked", Flag(), "SGX_DEBUG_MODE bit 1"),
     Item("socket_cpuids", ListOf(Hex(32)), "CPUID.1:EAX of each socket"),
     Item("sigstruct", Octets(SEAM_SIGSTRUCT.size), "a good SEAM_SIGSTRUCT"),
     Item("signer_key_hash", Octets(48), "SHA-384 of the only accepted modulus")),
    (Item("status", OneOf(tuple(s.name for s in (Status.SUCCESS, Status.EBADSIG, Status.EBADCALL, Status.EUNSUPCPU))),
          "SUCCESS: INSTALL goes on"), Item("rax", Hex(), "the status as RAX has it")),
    {"1.5": "P-SEAMLDR 1.5", "1.0": "P-SEAMLDR 1.0: reads its own layout, knows fewer "
                                    "demands"}, _cases, _answer, _common,
    small=4,
)
