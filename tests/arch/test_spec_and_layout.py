"""Clauses, check tables and layouts: what everything else stands on."""

from __future__ import annotations

import copy
import pickle
from hashlib import shake_128
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref import spec
from seamref.arch import structures
from seamref.errors import LayoutError, SeamrefError
from seamref.layout import Array, Bit, Bits, Field, Layout, Raw, reserved, u8, u16, u32, u64
from seamref.spec import Check, CheckTable

LAYOUTS = [value for value in vars(structures).values() if isinstance(value, Layout)]

SMALL = Layout(
    "SMALL",
    (
        Field("magic", u32, "", 0, 0x1234),
        Field("flags", Bits(2, (Bit("low", 3, 0), Bit("rest", 15, 4, must_be=0))), "", 4),
        reserved("reserved", 2, 6),
        Field("list", Array(u16, 3), "", 8),
        Field("inner", structures.CMR, "", 14),
        Field("tail", Raw(5), "", 30),
    ),
    size=35,
)


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
@given(seed=st.binary(max_size=8))
def test_layout__encode_undoes_decode(layout: Layout, seed: bytes) -> None:
    raw = shake_128(seed).digest(layout.size)
    assert layout.decode(raw).encode() == raw


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_layout__table_covers_every_byte_once(layout: Layout) -> None:
    rows = [row for row in layout.table() if not row.type.startswith("bit")]
    assert rows[0].offset == 0
    for row, following in pairwise(rows):
        assert row.offset + row.size == following.offset
    assert rows[-1].offset + rows[-1].size == layout.size


def test_layout__wrong_stated_offset_fails_at_declaration() -> None:
    with pytest.raises(LayoutError, match=r"X\.b at 0x4: stated offset 0x8"):
        Layout("X", (Field("a", u32), Field("b", u32, "", 8)), size=8)
    with pytest.raises(LayoutError, match="stated size is 0x9"):
        Layout("X", (Field("a", u64),), size=9)
    with pytest.raises(LayoutError, match="declared twice"):
        Layout("X", (Field("a", u8), Field("a", u8)), size=2)
    with pytest.raises(SeamrefError, match="overlaps"):
        Bits(1, (Bit("a", 3, 0), Bit("b", 5, 3)))


@given(st.integers(0, 34))
def test_layout__truncated_bytes_name_the_field_that_is_cut(cut: int) -> None:
    with pytest.raises(LayoutError) as caught:
        SMALL.decode(bytes(cut))
    at, size = caught.value.offset, SMALL.resolve(caught.value.field)[0].size
    assert at <= cut < at + size
    assert f"SMALL.{caught.value.field} at 0x{at:X}" in str(caught.value)


def test_layout__values_that_do_not_fit_are_named() -> None:
    with pytest.raises(LayoutError, match=r"SMALL\.magic at 0x0: 0x100000000 does not fit in 32 bits"):
        SMALL.encode({"magic": 1 << 32})
    with pytest.raises(LayoutError, match=r"SMALL\.list\[1\] at 0xA"):
        SMALL.encode({"list": [1, 1 << 16, 3]})
    with pytest.raises(LayoutError, match=r"SMALL\.list at 0x8: 4 elements, room for 3"):
        SMALL.encode({"list": [1, 2, 3, 4]})
    with pytest.raises(LayoutError, match="is not 5 bytes"):
        SMALL.encode({"tail": b"123"})
    with pytest.raises(SeamrefError, match="no field 'nothing'"):
        SMALL.encode({"nothing": 1})


def test_layout__peek_and_poke_by_path() -> None:
    data = bytearray(SMALL.new(list=[1, 2, 3]).encode())
    assert SMALL.peek(data, "list[2]") == 3
    SMALL.poke(data, "inner.size", 0x55)
    assert SMALL.decode(data).inner.size == 0x55
    assert SMALL.offset_of("inner.size") == 22
    for path, message in (("list[3]", "no element 3"), ("none", "no field"), ("magic.x", "no parts")):
        with pytest.raises(SeamrefError, match=message):
            SMALL.resolve(path)
    with pytest.raises(LayoutError, match="needs 8 bytes, 0 left"):
        SMALL.peek(data, "inner.size", 30)


def test_layout__problems_name_field_offset_value_and_demand() -> None:
    assert SMALL.problems(SMALL.new().encode()) == []
    bad = SMALL.new(magic=7, flags=0x15, reserved=b"\1\0").encode()
    assert [str(problem) for problem in SMALL.problems(bad)] == [
        "SMALL.magic at 0x0: 0x7, must be 0x1234",
        "SMALL.flags.rest at 0x4: 0x1, must be 0",
        "SMALL.reserved at 0x6: 0100, must be 0",
    ]


def test_layout__records_are_values() -> None:
    record = SMALL.new(magic=1)
    assert copy.deepcopy(record) == record == pickle.loads(pickle.dumps(record))
    changed = copy.deepcopy(record)
    changed.magic = 2
    assert changed != record
    with pytest.raises(AttributeError, match="no field 'mgaic'"):
        changed.mgaic = 3
    assert record.to_json()["list"] == ["0x0", "0x0", "0x0"]
    assert dict(record)["magic"] == 1


def test_spec__every_clause_cites_a_declared_source() -> None:
    import seamref.arch.pconfig
    import seamref.arch.sgx  # noqa: F401

    for clause in spec.CLAUSES.values():
        assert clause.source.split()[0].rstrip(",;") in spec.SOURCES
    with pytest.raises(SeamrefError, match="no declared source"):
        spec.clause("TEST.nowhere", "x", "NOWHERE 1")
    with pytest.raises(SeamrefError, match="declared twice"):
        spec.clause("SEAMCALL.cpl", "x", "X2")
    with pytest.raises(SeamrefError, match="is not declared"):
        spec.implements("TEST.undeclared")


def test_spec__table_decides_by_the_first_row_and_skips_rows_of_other_revisions() -> None:
    table: CheckTable[int, str] = CheckTable("TEST.order", (
        Check("TEST.order.a", "over 10", lambda n: n > 10, "a", "X2"),
        Check("TEST.order.b", "over 5", lambda n: n > 5, "b", "X2", applies=lambda r: r != "old"),
        Check("TEST.order.c", "over 1", lambda n: n > 1, "c", "X2"),
    ))
    try:
        decided = [(n, r) for n in (0, 3, 7, 11) for r in ("new", "old") if table.decide(n, r)]
        assert len(decided) == 6
        assert [table.decide(7, r).result for r in ("new", "old")] == ["b", "c"]  # type: ignore[union-attr]
        assert [row.id for row, _ in table.walk(7, "new")] == ["TEST.order.a", "TEST.order.b"]
        assert [row.result for row in table.all_stopping(11, "new")] == ["a", "b", "c"]
        assert table["TEST.order.c"].says == "over 1"
        with pytest.raises(SeamrefError, match="no row"):
            table["TEST.order.z"]
        assert spec.COVERAGE["TEST.order.b"][1] > 0
        with pytest.raises(SeamrefError, match="twice"):
            CheckTable("TEST.order", ())
    finally:
        del spec.TABLES["TEST.order"]
        for id in "abc":
            for registry in (spec.CLAUSES, spec.COVERAGE, spec.IMPLEMENTED_BY):
                registry.pop(f"TEST.order.{id}")  # type: ignore[attr-defined]
