"""Who may touch which physical address, and what a refused or foreign access gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from seamref.arch import lab
from seamref.arch.memory import MEMORY, Agent, Verdict
from seamref.arch.outcome import Fault
from seamref.arch.platform import Platform
from seamref.arch.revision import SILICON, Denied, Integrity
from seamref.export.form import (
    Answer,
    Case,
    Count,
    Flag,
    Group,
    Hex,
    Item,
    Maybe,
    Octets,
    OneOf,
    VectorSet,
    hexed,
    number,
)
from seamref.export.outcomes import outcome_json, outcome_type

AGENTS = {agent.name.lower(): agent for agent in Agent}
DENIED = {"abort page": Denied.ABORT_PAGE, "#GP(0)": Denied.FAULT}
SHARED, OTHER_SHARED, PRIVATE, OTHER_PRIVATE = 0, 1, 33, 34
HOST_MEMORY = 0x200000
LINE = 64


@lru_cache(maxsize=8)
def _base(denied: str, integrity: str) -> Platform:
    return lab.platform(revision=replace(SILICON, denied=DENIED[denied], integrity=Integrity[integrity]))


def _common() -> dict[str, Any]:
    platform = _base("abort page", "LI")
    return {
        "seamrr_base": hexed(lab.SEAMRR.base),
        "seamrr_size": hexed(lab.SEAMRR.size),
        "p_seamldr_range_base": hexed(lab.P_SEAMLDR_RANGE.base),
        "p_seamldr_range_size": hexed(lab.P_SEAMLDR_RANGE.size),
        "maxpa": platform.config.maxpa,
        "keyid_bits": platform.keyid_bits,
        "tdx_keyid_bits": platform.tdx_keyid_bits,
    }


def _places() -> dict[str, tuple[int, int]]:
    """Name -> first byte and size of an access: inside, at and across each border."""
    seamrr, held = lab.SEAMRR, lab.P_SEAMLDR_RANGE
    return {
        "host": (HOST_MEMORY, 8),
        "below": (seamrr.base - 8, 8),
        "into": (seamrr.base - 4, 8),
        "module": (seamrr.base, 8),
        "module-last": (held.base - 8, 8),
        "across": (held.base - 4, 8),
        "p_seamldr": (held.base, 8),
        "p_seamldr-last": (held.end - 8, 8),
        "out-of": (held.end - 4, 8),
        "behind": (held.end, 8),
        "page": (seamrr.base, 4096),
        "byte": (seamrr.base, 1),
    }


def _cases() -> Iterator[Case]:
    for place, (at, size) in _places().items():
        for agent in AGENTS:
            for keyid in (SHARED, PRIVATE):
                for write in (False, True):
                    for denied in DENIED:
                        yield _case(
                            f"{place}-{agent}-{keyid}-{'w' if write else 'r'}-{'fault' if '#' in denied else 'abort'}",
                            agent,
                            at,
                            size,
                            keyid,
                            write,
                            denied,
                        )
    width = 1 << 52
    for name, at in {"last": width - 8, "across": width - 4, "at": width}.items():
        for agent in AGENTS:
            for write in (False, True):
                yield _case(
                    f"width-{name}-{agent}-{'w' if write else 'r'}", agent, at, 8, 0, write, "abort page", raw=True
                )
    for agent in AGENTS:
        for valid in (False, True):
            for place in ("module", "p_seamldr"):
                at, size = _places()[place]
                yield _case(
                    f"valid-{int(valid)}-{place}-{agent}", agent, at, size, 0, False, "abort page", valid=valid
                )
    for integrity in Integrity:
        for written in (SHARED, OTHER_SHARED, PRIVATE, OTHER_PRIVATE):
            for keyid in (SHARED, OTHER_SHARED, PRIVATE, OTHER_PRIVATE):
                for agent in ("host", "module"):
                    yield _case(
                        f"integrity-{integrity.name}-{written}-{keyid}-{agent}",
                        agent,
                        HOST_MEMORY,
                        8,
                        keyid,
                        False,
                        "abort page",
                        integrity=integrity.name,
                        written=written,
                    )


def _case(
    id: str,
    agent: str,
    at: int,
    size: int,
    keyid: int,
    write: bool,
    denied: str,
    *,
    integrity: str = "LI",
    written: int | None = None,
    valid: bool = True,
    raw: bool = False,
) -> Case:
    address = at if raw else _base("abort page", "LI").with_keyid(at, keyid)
    verb = "writes" if write else "reads"
    comment = f"{agent} {verb} {size} bytes at {hexed(at)}, KeyID {keyid}"
    line = None if written is None else {"keyid": written, "bytes": bytes(range(1, LINE + 1)).hex()}
    return Case(
        f"memory-{id}",
        comment,
        {
            "agent": agent,
            "address": hexed(address),
            "size": size,
            "write": write,
            "denied": denied,
            "integrity": integrity,
            "seamrr_valid": valid,
            "line": line,
        },
    )


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = _base(given["denied"], given["integrity"]).fork()
    agent, address, size = AGENTS[given["agent"]], number(given["address"]), given["size"]
    lp = platform.lp(0)
    if not given["seamrr_valid"]:
        lp.msrs[0x1401] &= ~(1 << 11)
    if given["line"] is not None:
        plain = platform.split(address)[1] & ~(LINE - 1)
        platform.store(
            Agent.MODULE, platform.with_keyid(plain, given["line"]["keyid"]), bytes.fromhex(given["line"]["bytes"])
        )
    verdict, clause = platform.judge(agent, address, size, given["write"], lp)
    allowed = verdict is Verdict.ALLOWED
    flags = [] if allowed else [clause]
    if verdict is Verdict.DENIED and given["denied"] == "abort page":
        flags.append("MEMORY.denied")
    if agent is Agent.DMA:
        flags.append("MEMORY.dma_range")
    output: dict[str, Any] = {"verdict": verdict.name.lower(), "fault": None, "data": None, "stored": None}
    if given["write"]:
        data = bytes([0xA5]) * size
        plain = platform.split(address)[1]
        before = platform.store_.read(plain, size)
        fault = platform.store(agent, address, data, lp)
        output["fault"] = None if fault is None else outcome_json(fault)
        output["stored"] = platform.store_.read(plain, size) != before
    else:
        found = platform.load(agent, address, size, lp)
        if isinstance(found, Fault):
            output["fault"] = outcome_json(found)
            if allowed:
                flags.append(found.clause)
        elif allowed and given["line"] is not None:
            output["data"] = _read(given, found)
            flags.append("MEMORY.integrity")
        elif not allowed:
            output["data"] = "all ones" if not found.strip(b"\xff") else "other"
        else:
            output["data"] = "as stored"
    return Answer(output, tuple(flags) or tuple(row.id for row in MEMORY))


def _read(given: Mapping[str, Any], found: bytes) -> str:
    """What a read of a line that was written before gives, without saying how a cipher scrambles it."""
    stored = bytes.fromhex(given["line"]["bytes"])[: len(found)]
    if found == stored:
        return "as stored"
    return "fixed pattern" if not any(found) else "scrambled"


SET = VectorSet(
    "memory-access",
    "Memory accesses",
    (
        "Every agent reads and writes host memory, both parts of SEAMRR and each border between them, with a shared "
        "and with "
        "a private KeyID; addresses at MAXPA; a core whose SEAMRR is not valid; and lines that were written with one "
        "KeyID and "
        "are read with another, in each mode of memory integrity.",
        "`denied` and `integrity` are properties of a platform: what SEAM memory answers outside SEAM, and how memory "
        "is "
        "protected.  The flags of an access that is let through are all the rows that were asked.  A read that gives "
        "`scrambled` is one through another key: what it gives is not said.",
    ),
    (
        Item("agent", OneOf(tuple(AGENTS)), "; ".join(f"{name}: {agent.value}" for name, agent in AGENTS.items())),
        Item("address", Hex(), "physical address with its KeyID bits"),
        Item("size", Count(1, 4096), "bytes"),
        Item("write", Flag(), "a write, of bytes A5 (false: a read)"),
        Item("denied", OneOf(tuple(DENIED)), "what SEAMRR memory answers outside SEAM"),
        Item(
            "integrity", OneOf(tuple(i.name for i in Integrity)), "; ".join(f"{i.name}: {i.value}" for i in Integrity)
        ),
        Item("seamrr_valid", Flag(), "IA32_SEAMRR_PHYS_MASK.VALID of the core that makes the access"),
        Item(
            "line",
            Maybe(
                Group(
                    (
                        Item("keyid", Count(), "the KeyID it was written with"),
                        Item("bytes", Octets(LINE), "what was written"),
                    )
                )
            ),
            "the line at this address, where something was written before",
        ),
        Item("seamrr_base", Hex(), "SEAMRR: base"),
        Item("seamrr_size", Hex(), "SEAMRR: size in bytes"),
        Item("p_seamldr_range_base", Hex(), "P_SEAMLDR_RANGE: base"),
        Item("p_seamldr_range_size", Hex(), "P_SEAMLDR_RANGE: size in bytes"),
        Item("maxpa", Count(36, 52), "physical-address bits"),
        Item("keyid_bits", Count(0, 15), "KeyID bits at the top of a physical address"),
        Item("tdx_keyid_bits", Count(0, 15), "how many of them, the top ones, make a KeyID private"),
    ),
    (
        Item(
            "verdict",
            OneOf(tuple(v.name.lower() for v in Verdict)),
            "; ".join(f"{v.name.lower()}: {v.value}" for v in Verdict),
        ),
        Item("fault", Maybe(outcome_type("fault")), "the exception, where there is one"),
        Item("data", Maybe(OneOf(("as stored", "all ones", "fixed pattern", "scrambled"))), "what a read gives"),
        Item("stored", Maybe(Flag()), "whether a write changed memory"),
    ),
    {"silicon": "X2, HWL and the answers of ISS25"},
    _cases,
    _answer,
    _common,
    small=8,
)
