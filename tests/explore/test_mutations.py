"""Seeded bugs: each is caught by a property, or listed as a survivor with the reason."""

from __future__ import annotations

import pytest
from explore.mutations import MUTATIONS, Mutation, mutated

from seamref.explore.engine import Result, explore


def hunt(mutation: Mutation) -> Result:
    """Explore with the bug; again in all orders if nothing was seen (the bug may make declared accesses wrong)."""
    with mutated(mutation):
        result = explore(mutation.scenario, mutation.cpus, faults=mutation.faults, shortest=False)
        if not result.broken:
            result = explore(mutation.scenario, mutation.cpus, faults=mutation.faults, shortest=False, por=False)
    return result


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.name)
def test_mutation__is_caught_or_listed_as_a_survivor(mutation: Mutation) -> None:
    result = hunt(mutation)
    if mutation.survives:
        assert not result.broken, "caught after all: take it off the list of survivors"
        assert result.complete
    else:
        assert result.broken


def test_mutations__enough_of_them_are_caught() -> None:
    caught = [m for m in MUTATIONS if not m.survives]
    assert len(caught) >= 25
    assert len({m.name for m in MUTATIONS}) == len(MUTATIONS)


def test_mutations__nothing_is_left_behind() -> None:
    assert not explore("update", 2).broken
