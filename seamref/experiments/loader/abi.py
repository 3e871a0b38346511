"""What P-SEAMLDR's leaves give back, found by calling them with a mark in every register."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from seamref import mint
from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.experiments.loader.lab import INFO_BUFFER, PARAMS, Called, call_leaf, platform
from seamref.experiments.loader.refusals import NOTHING_1_0
from seamref.pseamldr.api import SEAMLDR_INFO, Leaf
from seamref.pseamldr.seaminfo import SEAMINFO_SIZE


@dataclass(frozen=True, slots=True)
class LeafCall:
    """A call and what it wrote to the host's memory."""

    title: str
    called: Called
    written: str


_BUFFER = 0x4000
"""Bytes of host memory around RCX that are compared."""


def _watched(made: Platform, title: str, lp: int, leaf: Leaf | int, rcx: int, size: int = 0) -> LeafCall:
    start = rcx & ~0xFFF
    made.store(Agent.HOST, INFO_BUFFER, b"\xaa" * _BUFFER)
    before = made.bytes_at(Agent.HOST, start, _BUFFER)
    called = call_leaf(made, lp, leaf, rcx)
    after = made.bytes_at(Agent.HOST, start, _BUFFER)
    spots = [] if before == after else [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
    inside = not spots or (size and rcx <= start + spots[0] and start + spots[-1] < rcx + size)
    written = "none" if not spots else f"{size} bytes at RCX" if inside else f"0x{start + spots[0]:X} and more"
    return LeafCall(title, called, written)


def leaf_calls(revision: str = "1.5") -> Iterator[LeafCall]:
    """Every leaf, well and badly called, on a platform of two processors."""
    fields: Mapping[str, Any] = NOTHING_1_0 if revision == "1.0" else {}
    made = platform(revision=revision)
    yield _watched(made, "SEAMLDR.INFO", 0, Leaf.INFO, INFO_BUFFER, SEAMLDR_INFO.size)
    yield _watched(made, "SEAMLDR.INFO, RCX not aligned", 0, Leaf.INFO, INFO_BUFFER + 8)
    yield _watched(made, "SEAMLDR.SEAMINFO", 0, Leaf.SEAMINFO, INFO_BUFFER, SEAMINFO_SIZE)
    image = mint.module_image()
    mint.place(made, image, mint.sigstruct(image, **fields), at=PARAMS)
    yield _watched(made, "SEAMLDR.INSTALL, first processor", 0, Leaf.INSTALL, PARAMS)
    yield _watched(made, "SEAMLDR.INSTALL, the same processor again", 0, Leaf.INSTALL, PARAMS)
    yield _watched(made, "SEAMLDR.INSTALL, last processor", 1, Leaf.INSTALL, PARAMS)
    mint.place(made, image, mint.sigstruct(image, **fields, seamhash=bytes(48)), at=PARAMS)
    call_leaf(made, 0, Leaf.INSTALL, PARAMS)
    yield _watched(made, "SEAMLDR.INSTALL, image of another hash", 1, Leaf.INSTALL, PARAMS)
    yield _watched(made, "leaf 4", 0, int(Leaf.INFO) + 4, INFO_BUFFER)
    yield _watched(made, "leaf FEH, debug trace", 0, int(Leaf.INFO) + 0xFE, INFO_BUFFER)
    yield _watched(made, "SEAMLDR.SHUTDOWN, first processor", 0, Leaf.SHUTDOWN, 0)
    yield _watched(made, "SEAMLDR.SHUTDOWN, last processor is the wrong one", 1, Leaf.SHUTDOWN, 0)
    yield _watched(made, "SEAMLDR.SHUTDOWN, the right one", 0, Leaf.SHUTDOWN, 0)
    yield _watched(made, "SEAMLDR.INFO, P-SEAMLDR is gone", 0, Leaf.INFO, INFO_BUFFER)


__all__ = ["LeafCall", "leaf_calls"]
