"""Updates that were tried: how far each came, what is left of module and TD, what helps then."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from seamref.host.tdx_updates import SCENARIOS, Scenario, Verdict, play


@dataclass(frozen=True, slots=True)
class Tried:
    """A scenario and how it went."""

    scenario: Scenario
    verdict: Verdict


def tried(names: Iterable[str] = SCENARIOS) -> list[Tried]:
    """Play scenarios, by name."""
    return [Tried(SCENARIOS[name], play(SCENARIOS[name])) for name in names]
