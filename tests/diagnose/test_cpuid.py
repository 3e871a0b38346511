"""CPUID as the cpuid tool and kcpuid print it, and registers in lists: read as what they state, never as more."""

from __future__ import annotations

import re
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from seamref.arch import lab
from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.msr import MSRS
from seamref.diagnose.collect import CPUID_READ, collect
from seamref.diagnose.cpuid import DECODED, M32, REGISTERS, CpuidReader, Named, unmet
from seamref.diagnose.doctor import Verdict, diagnose
from seamref.diagnose.evidence import gather
from seamref.diagnose.explain import explain
from seamref.diagnose.lines import Link
from seamref.diagnose.msrs import UNMODELLED, msr_line
from seamref.tdxmodule.demands import CPUID_DEMANDS, WHOLE

U32 = st.integers(0, M32)


def raw(leaf: int, subleaf: int, values: Cpuid) -> str:
    shown = " ".join(f"{name}=0x{value:08x}" for name, value in zip(REGISTERS, values, strict=True))
    return f"   0x{leaf:08x} 0x{subleaf:02x}: {shown}"


@given(st.integers(0, M32), st.integers(0, 255), st.builds(Cpuid, U32, U32, U32, U32))
def test_cpuid_raw__every_register_comes_back(leaf: int, subleaf: int, values: Cpuid) -> None:
    (reading,) = CpuidReader().line(raw(leaf, subleaf, values))
    assert (reading.leaf, reading.subleaf, reading.values) == (leaf, subleaf, values)
    above = CpuidReader()
    assert above.line(f"0x{leaf:08x}: subleafs:") == []
    k = ", ".join(f"{n.upper()}=0x{v:08x}" for n, v in zip(REGISTERS, values, strict=True))
    (under,) = above.line(f" {subleaf % 100:2}: {k}")
    assert (under.leaf, under.subleaf, under.values) == (leaf, subleaf % 100, values)
    assert CpuidReader().line(f" {subleaf % 100:2}: {k}") == [], "a subleaf without its leaf states nothing"


@pytest.mark.parametrize("named", DECODED, ids=lambda n: f"{n.leaf:x}.{n.register}.{n.high}")
def test_cpuid_decoded__one_field_and_no_other(named: Named) -> None:
    words = re.sub(r"\(\?:[^)]*\)\?", "", named.words)
    (reading,) = CpuidReader().line(f"      {words}       = true")
    assert reading.bits(named.register, named.high, named.low) == 1
    assert sum(bin(known).count("1") for known in reading.known) == named.high - named.low + 1
    assert CpuidReader().line(f"{words} maybe = true") == []


def test_cpuid_demands__the_default_platform_meets_every_one() -> None:
    platform = lab.platform()
    lp = platform.lp(0)
    asked = [(d.leaf, 0 if d.subleaf == WHOLE else d.subleaf) for d in CPUID_DEMANDS]
    lines = [raw(leaf, subleaf, cpuid(platform, lp, leaf, subleaf)) for leaf, subleaf in asked]
    assert unmet(r for line in lines for r in CpuidReader().line(line)) == []


@pytest.mark.parametrize("at", range(len(CPUID_DEMANDS)))
def test_cpuid_demands__one_wrong_bit_is_named_and_only_that(at: int) -> None:
    demand = CPUID_DEMANDS[at]
    subleaf = 0 if demand.subleaf == WHOLE else demand.subleaf
    register = next(i for i in range(4) if demand.mask[i])
    bit = demand.mask[register] & -demand.mask[register]
    wrong = Cpuid(*(value ^ (bit if i == register else 0) for i, value in enumerate(demand.value)))
    good, bad = raw(demand.leaf, subleaf, demand.value), raw(demand.leaf, subleaf, wrong)
    assert unmet(CpuidReader().line(good)) == []
    (found,) = unmet(CpuidReader().line(bad))
    assert found.demand is demand and REGISTERS[register].upper() in str(found)
    seen = diagnose(gather([bad, good]))
    module = next(f for f in seen.findings if f.link is Link.MODULE)
    assert module.verdict in (Verdict.NOT_SHOWN, Verdict.SKIPPED)
    assert module.verdict is Verdict.SKIPPED or any(f"{demand.leaf:X}H" in note for note in module.notes)


def test_doctor_collect__cpuid_of_the_driver_is_read_by_leaf_and_subleaf(tmp_path: Path) -> None:
    node = tmp_path / "dev/cpu/0/cpuid"
    node.parent.mkdir(parents=True)
    with node.open("wb") as stream:  # the driver's position is leaf and subleaf; a sparse file takes most of them
        for leaf, subleaf in CPUID_READ:
            if leaf < 0x1000 and not subleaf:
                stream.seek(leaf)
                stream.write(struct.pack("<4I", leaf, 1, 2, 3))
    read = [r for line in collect(tmp_path) for r in CpuidReader().line(line)]
    assert {(r.leaf, r.subleaf) for r in read} <= set(CPUID_READ) and read
    assert (3, 0) not in CPUID_READ, "a processor's serial number is not read"


@given(st.sampled_from([*MSRS, *UNMODELLED]), st.integers(0, (1 << 64) - 1))
def test_explain__a_listed_msr_states_its_number_and_its_value(address: int, value: int) -> None:
    (said,) = explain(f"0x{address:x}: {value:x}")
    assert f"= 0x{value:X}" in said.what and [(s.what, s.value) for s in said.stated] == [("msr", address)]
    assert not said.causes, "a register's value is no cause"


@pytest.mark.parametrize("line", ["0x1401: 1ffffffffffffffff", "0x99999: 1", "0x1401[11:10] = 7", "IA32_NOTHING = 1",
                                  "0x1401[64] = 1", "0x1401[3:9] = 1"])
def test_explain__a_line_that_is_no_reading_of_a_known_msr_states_none(line: str) -> None:
    assert msr_line(line) is None
    assert not any(s.what == "msr" for said in explain(line) for s in said.stated)
