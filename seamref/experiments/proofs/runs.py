"""Counterexamples told step by step: neighbouring steps of one actor joined, what went wrong marked."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.explore.engine import Counterexample
from seamref.explore.text import condensed

WRONG = ("VMfail", "fails", "lost", "shutdown in SEAM", " with -", "status 0x")
"""What a step that went wrong says."""


@dataclass(frozen=True, slots=True)
class Told:
    """One line of a run: who, what the fault did to it before (or ""), what it did, whether that went wrong."""

    actor: int
    name: str
    fault: str
    text: str
    wrong: bool
    enters: bool


def told(found: Counterexample) -> list[Told]:
    """A counterexample, line by line."""
    return [
        Told(did.actor, did.name, did.fault, did.text, any(word in did.text for word in WRONG), "entered" in did.text)
        for did in condensed(found.steps)
    ]
