"""What the sets of instructions share: the revisions they answer for, and a prepared platform for each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

from seamref.arch import lab
from seamref.arch.platform import Platform
from seamref.arch.revision import REVISIONS, SILICON, Revision, SeamextendGate
from seamref.arch.vmcs import FIELDS, get, make_vmcs
from seamref.export.form import Hex, MapOf, hexed, number

INSTRUCTION_SET: dict[str, str] = {
    "silicon": "measured on server parts where somebody did, else SDM and 343754-002",
    "SDM": "the SDM's order of checks",
    "343754-002": "the pseudo-code of May 2021 as printed",
    "343754-001": "the document of 2020",
}
"""The documents that describe instructions, and what was measured."""

AS_PRINTED: dict[str, tuple[Revision, str]] = {
    "343754-003": (
        replace(SILICON, name="343754-003", seamextend_gate=SeamextendGate.PHYSBASE),
        "as silicon, but IA32_SEAMEXTEND waits for IA32_PRMRR_PHYS_BASE_0[11], as printed in August 2026",
    ),
    "events-blocked": (
        replace(SILICON, name="events-blocked", events_blocked=True),
        "as silicon, but SEAM root blocks every interrupt and software cannot un-inhibit",
    ),
    "nmi-blocked-after-td": (
        replace(SILICON, name="nmi-blocked-after-td", nmi_blocked_after_td=True),
        "as silicon, but behind an NMI exit from a TD the host finds NMIs still blocked",
    ),
    "enteraccs-needs-SEAMRR": (
        replace(SILICON, name="enteraccs-needs-SEAMRR", enteraccs_needs_seamrr=True),
        "as silicon, but GETSEC[ENTERACCS] faults when SEAMRR is disabled (errata 28); one peer has that row, and "
        "leaves out most others",
    ),
}
"""Readings of a document that no named revision of the machine holds."""


def revisions(*more: str) -> dict[str, str]:
    """The instruction set's revisions, and more of AS_PRINTED."""
    return {**INSTRUCTION_SET, **{name: AS_PRINTED[name][1] for name in more}}


def revision_of(name: str) -> Revision:
    """A revision by its name in the kit."""
    return AS_PRINTED[name][0] if name in AS_PRINTED else REVISIONS[name]


@lru_cache(maxsize=32)
def base(revision: str, keeps_vmcs: bool = False) -> Platform:
    """A platform on which SEAMCALL enters; fork it before changing it."""
    return lab.platform(revision=revision_of(revision), keeps_vmcs=keeps_vmcs)


def every(*names: str) -> Iterator[dict[str, bool]]:
    """Every combination of facts, the first one fastest."""
    for bits in product((False, True), repeat=len(names)):
        yield dict(zip(names, reversed(bits), strict=True))


def said(facts: Mapping[str, Any], none: str = "no fact holds") -> str:
    """The facts that hold, as a comment."""
    return " ".join(name for name, on in facts.items() if on is True) or none


def state_number(facts: Mapping[str, bool]) -> int:
    """The facts as a number, the first one bit 0."""
    return sum(on << bit for bit, on in enumerate(facts.values()))


VMCS = MapOf(Hex(), "VMCS field names (tables/vmcs-fields.json)")
"""A VMCS, or some fields of one."""


def vmcs_json(data: bytes | bytearray) -> dict[str, str]:
    """Every field of a VMCS region that is not 0."""
    return {field.name: hexed(get(data, field.name)) for field in FIELDS if get(data, field.name)}


def vmcs_bytes(*parts: Mapping[str, str]) -> bytearray:
    """A VMCS region from fields, later ones over earlier ones."""
    return bytearray(make_vmcs({name: number(value) for part in parts for name, value in part.items()}))
