"""A bug in the machine makes the set fail: each row of each check table left out, and effects changed by hand.

The small kit is enough: what it keeps are the tests that decide first, for every list of clauses.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from functools import cache
from typing import Any

import pytest

from seamref.arch import events, msr, seam, seamops, smx
from seamref.arch.memory import MEMORY
from seamref.export import form, sets
from seamref.export.sets import rsa as rsa_set
from seamref.host import image, update
from seamref.host.abi import Errno
from seamref.pseamldr import memory_constants
from seamref.pseamldr.manifest import INSTALL_MANIFEST
from seamref.spec import CheckTable

TABLES: dict[str, tuple[CheckTable[Any, Any], ...]] = {
    "seamcall": (seam.SEAMCALL,), "seamret": (seam.SEAMRET,), "seamops": (seamops.SEAMOPS, seamops.SEAMREPORT),
    "tdcall": (seam.TDCALL,), "msr": (msr.RDMSR, msr.WRMSR), "memory-access": (MEMORY,),
    "enteraccs": (smx.GETSEC, smx.ENTERACCS_FAULTS, smx.ENTERACCS_MODULE),
    "memory-plans": (memory_constants.INSTALL_MEMORY,), "sigstruct": (INSTALL_MANIFEST,),
    "blob": (image.FORMAT_V1, image.FORMAT_V2, image.KERNEL_V1, image.KERNEL_V8, image.KERNEL_V2),
}
WITHOUT = {
    "SEAMCALL.no_SEAM": "every platform of the kit has SEAM",
    "WRMSR.tme_locked": "of a revision that the kit does not name", "WRMSR.se_svn_locked": "the same",
}
"""Rows that no test of their set decides by."""
SHADOWED = {
    "BLOB1.size": "a file that short breaks its length and its offset too",
    "BLOB2.size": "a file that short is not as long as its page counts say",
    "IMAGE8.header": "a module cannot begin inside such a file: -EINVAL again",
    "IMAGE2.header": "nor do its page counts fit: -EINVAL again",
}
"""Rows that only the clause tells from a later one: a black box cannot be caught there."""
ROWS = [(name, table.name, row.id) for name, tables in TABLES.items() for table in tables for row in table]


@cache
def small_kit(name: str) -> list[dict[str, Any]]:
    return json.loads(json.dumps(form.vectors_of(sets.load(name), small=True)))


def outputs_that_differ(name: str, tests: list[dict[str, Any]]) -> Iterator[str]:
    """Differences of outputs, not of flags; a machine that falls over differs too."""
    which = sets.load(name)
    for test in tests:
        try:
            yield from (line for line in form.differences(which, test) if ": flags: " not in line)
        except Exception as error:
            yield f"{test['id']}: {error!r}"


def decided_by(name: str, row: str) -> list[dict[str, Any]]:
    return [test for test in small_kit(name) if any(row in answer["flags"] for answer in test["answers"])]


@pytest.mark.parametrize(("name", "table", "row"), ROWS, ids=lambda value: value)
def test_a_row_left_out_is_noticed(monkeypatch, name, table, row):
    held = next(one for one in TABLES[name] if one.name == table)
    tests = decided_by(name, row)
    if row in WITHOUT:
        assert not tests, WITHOUT[row]
        return
    assert tests, f"no test of {name} is decided by {row}"
    monkeypatch.setattr(held, "_counted", tuple(one for one in held._counted if one[0].id != row))
    if name == "blob":
        monkeypatch.setattr(held, "rows", tuple(one for one in held.rows if one.id != row))
    if row in SHADOWED:
        assert not list(outputs_that_differ(name, tests)), SHADOWED[row]
        return
    assert next(outputs_that_differ(name, tests), None)


def all_notice(name: str) -> bool:
    return next(outputs_that_differ(name, small_kit(name)), None) is not None


def test_events__a_shutdown_in_SEAM_that_leaves_the_modules_ready(monkeypatch):
    assert not all_notice("events")
    real = events.shutdown
    monkeypatch.setattr("seamref.export.sets.events.shutdown",
                        lambda platform, lp, cause: _keeping(real, platform, lp, cause))
    assert all_notice("events")


def _keeping(real: Any, platform: Any, lp: int, cause: str) -> Any:
    register = platform.SEAMEXTEND
    outcome = real(platform, lp, cause)
    platform.SEAMEXTEND = register
    return outcome


def test_rsa__a_verifier_that_looks_at_the_hash_only(monkeypatch):
    assert not all_notice("rsa")
    monkeypatch.setattr(rsa_set, "verify", lambda n, s, m, exponent, strict=False: (
        bool(int.from_bytes(n, "little")) and pow(int.from_bytes(s, "little"), exponent, int.from_bytes(n, "little"))
        & (1 << 384) - 1 == int.from_bytes(rsa_set.encoded_message(m)[-48:], "big")))
    assert all_notice("rsa")


def test_memory_plans__a_plan_without_the_shadow_stack(monkeypatch):
    assert not all_notice("memory-plans")
    monkeypatch.setattr(memory_constants, "table_pages", lambda size: -(-size // (1 << 21)))
    memory_constants.compute_memory_constants.__wrapped__.cache_clear()
    try:
        assert all_notice("memory-plans")
    finally:
        monkeypatch.undo()
        memory_constants.compute_memory_constants.__wrapped__.cache_clear()


def test_update__a_worker_that_does_not_leave_when_another_failed(monkeypatch):
    some = small_kit("update")[:6]
    assert next(outputs_that_differ("update", some), None) is None
    monkeypatch.setattr(update, "may_return", lambda host: (Errno.OK,))
    monkeypatch.setattr("seamref.export.sets.update.may_return", lambda host: (Errno.EIO,))
    assert next(outputs_that_differ("update", some), None)


def test_seamret__a_transfer_VMCS_that_stays_active(monkeypatch):
    assert not all_notice("seamret")
    monkeypatch.setattr(seam, "_evict_transfer", lambda platform, lp, cvp: None)
    assert all_notice("seamret")


def test_seamops__a_report_without_its_second_SVN(monkeypatch):
    assert not all_notice("seamops")
    real = seamops.tee_tcb_info
    monkeypatch.setattr(seamops, "tee_tcb_info", lambda identity, running, svn2: real(identity, running, False))
    assert all_notice("seamops")
