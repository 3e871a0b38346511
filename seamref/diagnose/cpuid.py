"""CPUID as people bring it: what the cpuid tool prints decoded or raw (``cpuid -r``), and kcpuid raw.

A decoded line states one bit or field under the tool's own words, which are declared here; a raw line states four
registers.  What the real module demands of them is asked of :data:`seamref.tdxmodule.demands.CPUID_DEMANDS`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from seamref.arch.cpuid import Cpuid
from seamref.tdxmodule.demands import CPUID_DEMANDS, WHOLE, CpuidDemand

REGISTERS = Cpuid._fields
M32 = (1 << 32) - 1
NO_SUBLEAF = 0
"""Subleaf under which a leaf without any is held; tools print 0 for it."""


class Named(NamedTuple):
    """A field that the cpuid tool prints in words: ``words`` before the equals sign, and where CPUID holds it."""

    words: str
    leaf: int
    subleaf: int
    register: str
    high: int
    low: int


DECODED = (
    Named(r"VMX: virtual machine extensions", 1, 0, "ecx", 5, 5),
    Named(r"SMX: safer mode extensions", 1, 0, "ecx", 6, 6),
    Named(r"hypervisor guest status", 1, 0, "ecx", 31, 31),
    Named(r"SGX: Software Guard Extensions(?: supported)?", 7, 0, "ebx", 2, 2),
    Named(r"TME: Total Memory Encryption", 7, 0, "ecx", 13, 13),
    Named(r"PCONFIG(?: instruction)?", 7, 0, "edx", 18, 18),
    Named(r"maximum physical address bits", 0x80000008, 0, "eax", 7, 0),
)
"""CPUID.1, .7 and .80000008H as SDM vol. 2A names them, by the cpuid tool's words."""

_DECODED = tuple((re.compile(rf"^{named.words}\s*= (?:(true|false)|0x([0-9a-f]{{1,8}}) \(\d+\))$", re.IGNORECASE),
                  named) for named in DECODED)
_RAW = re.compile(r"^0x(?P<leaf>[0-9a-f]{8}) 0x(?P<sub>[0-9a-f]{2}): eax=0x(?P<eax>[0-9a-f]{8}) "
                  r"ebx=0x(?P<ebx>[0-9a-f]{8}) ecx=0x(?P<ecx>[0-9a-f]{8}) edx=0x(?P<edx>[0-9a-f]{8})$", re.IGNORECASE)
_KCPUID = re.compile(r"^0x(?P<leaf>[0-9a-f]{8}): EAX=0x(?P<eax>[0-9a-f]{8}), EBX=0x(?P<ebx>[0-9a-f]{8}), "
                     r"ECX=0x(?P<ecx>[0-9a-f]{8}), EDX=0x(?P<edx>[0-9a-f]{8})$", re.IGNORECASE)
_KCPUID_LEAF = re.compile(r"^0x(?P<leaf>[0-9a-f]{8}): subleafs:$", re.IGNORECASE)
_KCPUID_SUB = re.compile(r"^(?P<sub>\d{1,2}): EAX=0x(?P<eax>[0-9a-f]{8}), EBX=0x(?P<ebx>[0-9a-f]{8}), "
                         r"ECX=0x(?P<ecx>[0-9a-f]{8}), EDX=0x(?P<edx>[0-9a-f]{8})$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class CpuidReading:
    """What a line states of a leaf: ``values`` under ``known``, by the line."""

    leaf: int
    subleaf: int
    values: Cpuid
    known: Cpuid
    line: str

    def bits(self, register: str, high: int, low: int) -> int | None:
        """A field; ``None`` when some of it was not stated."""
        wanted = (1 << (high - low + 1)) - 1 << low
        held: int = getattr(self.values, register)
        known: int = getattr(self.known, register)
        return None if wanted & ~known else (held & wanted) >> low


class CpuidReader:
    """Reads lines one after another: kcpuid prints a leaf's number once, above its subleaves."""

    def __init__(self) -> None:
        self.leaf: int | None = None

    def line(self, text: str) -> list[CpuidReading]:
        """What a line states; nothing when it is not one of the tools'."""
        text = text.strip()
        if (above := _KCPUID_LEAF.match(text)) is not None:
            self.leaf = int(above["leaf"], 16)
            return []
        if (under := _KCPUID_SUB.match(text)) is not None and self.leaf is not None:
            return [_whole(self.leaf, int(under["sub"]), under, text)]
        self.leaf = None
        if (raw := _RAW.match(text)) is not None:
            return [_whole(int(raw["leaf"], 16), int(raw["sub"], 16), raw, text)]
        if (single := _KCPUID.match(text)) is not None:
            return [_whole(int(single["leaf"], 16), NO_SUBLEAF, single, text)]
        for pattern, named in _DECODED:
            if (found := pattern.match(text)) is not None:
                value = int(found[2], 16) if found[2] else int(found[1].lower() == "true")
                width = named.high - named.low + 1
                if value >> width:
                    return []
                mask = (1 << width) - 1 << named.low
                return [CpuidReading(named.leaf, named.subleaf, _one(named.register, value << named.low),
                                     _one(named.register, mask), text[:160])]
        return []


def _one(register: str, value: int) -> Cpuid:
    return Cpuid(*(value if name == register else 0 for name in REGISTERS))


def _whole(leaf: int, subleaf: int, found: re.Match[str], text: str) -> CpuidReading:
    return CpuidReading(leaf, subleaf, Cpuid(*(int(found[name], 16) for name in REGISTERS)),
                        Cpuid(M32, M32, M32, M32), text[:160])


class Unmet(NamedTuple):
    """A demand of TDH.SYS.INIT that a reading does not meet."""

    demand: CpuidDemand
    reading: CpuidReading

    def __str__(self) -> str:
        leaf, subleaf = self.demand.leaf, self.demand.subleaf
        name = f"CPUID.{leaf:X}H" + ("" if subleaf == WHOLE else f".{subleaf}")
        parts = [f"{register.upper()} & 0x{mask:X} is 0x{held & mask:X}, must be 0x{value:X}"
                 for register, mask, value, held, known in zip(
                     REGISTERS, self.demand.mask, self.demand.value, self.reading.values, self.reading.known,
                     strict=True) if (held ^ value) & mask & known]
        return f"{name}: {'; '.join(parts)}"


def unmet(readings: Iterable[CpuidReading]) -> list[Unmet]:
    """Demands of TDH.SYS.INIT (module 1.5.05, in its order) that what was read contradicts; unread bits count not."""
    held: dict[tuple[int, int], list[CpuidReading]] = {}
    for reading in readings:
        held.setdefault((reading.leaf, reading.subleaf), []).append(reading)
    out = []
    for demand in CPUID_DEMANDS:
        key = (demand.leaf, NO_SUBLEAF if demand.subleaf == WHOLE else demand.subleaf)
        against = next((r for r in held.get(key, ()) if any((a ^ b) & mask & known for a, b, mask, known in zip(
            r.values, demand.value, demand.mask, r.known, strict=True))), None)
        if against is not None:
            out.append(Unmet(demand, against))
    return out


TD_SIGNATURE = (0x21, b"IntelTDX    ")
"""Leaf and EBX, EDX, ECX of a TD guest's CPUID (SDM vol. 2A does not list it; GHCI and Linux's guest code read it)."""


def inside_a_td(readings: Iterable[CpuidReading]) -> CpuidReading | None:
    """The reading that only a TD sees."""
    leaf, signature = TD_SIGNATURE
    for r in readings:
        text = b"".join(value.to_bytes(4, "little") for value in (r.values.ebx, r.values.edx, r.values.ecx))
        if r.leaf == leaf and r.known == Cpuid(M32, M32, M32, M32) and text == signature:
            return r
    return None
