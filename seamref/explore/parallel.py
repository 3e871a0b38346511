"""Exploration by several processes: every actor that a fault may strike, and every kind of fault, is a root of its own.

Processes get whole roots and share nothing while they work; the counts are sums over the roots.  A scenario without
faults has one root, and with its reductions few states: it is explored in one process whatever was asked for.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from seamref.explore.world import World

if TYPE_CHECKING:
    from seamref.explore.engine import Result, Search

_ROOTS: Sequence[World] = ()
_NAMES: Sequence[str] = ()
_KNOBS: dict[str, Any] = {}


def _part(indices: list[int]) -> tuple[list[int], Any]:
    """One process's share: the roots with these numbers."""
    from seamref.explore.engine import search

    found = search([_ROOTS[i] for i in indices], _NAMES, **{**_KNOBS, "progress": None})
    return indices, _portable(found)


def _portable(found: Search) -> dict[str, Any]:
    schedules = {
        name: (wrong, *found.schedule_to(depth, index)) for name, (wrong, depth, index) in found.broken.items()
    }
    return {
        "states": found.states, "worlds": found.worlds, "transitions": found.transitions, "ends": found.ends,
        "depth": len(found.widths) - 1, "why": found.why, "broken": schedules, "outcomes": dict(found.outcomes),
        "assume": found.assume,
    }


def search_parallel(
    scenario: str, cpus: int, roots: Sequence[World], names: Sequence[str], jobs: int, began: float, shortest: bool,
    knobs: dict[str, Any],
) -> Result:
    """Explore roots (placements of faults) in several processes; counts are sums over the roots' explorations."""
    global _ROOTS, _NAMES, _KNOBS
    from seamref.explore.engine import Result, _counterexample
    from seamref.explore.independence import Assume

    _ROOTS, _NAMES, _KNOBS = roots, names, knobs
    shares = [list(range(len(roots)))[n::jobs] for n in range(min(jobs, len(roots)))]
    parts: list[tuple[list[int], dict[str, Any]]] = []
    why = ""
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))
    try:
        parts = list(pool.map(_part, shares))
    except KeyboardInterrupt:
        why = "interrupted"
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
    total = {key: sum(part[key] for _, part in parts) for key in ("states", "worlds", "transitions", "ends")}
    outcomes: dict[str, int] = {}
    first: dict[str, tuple[int, tuple[int, ...]]] = {}
    for indices, part in parts:
        why = why or part["why"]
        for name, count in part["outcomes"].items():
            outcomes[name] = outcomes.get(name, 0) + count
        for name, (_, root, schedule) in part["broken"].items():
            if name not in first or len(schedule) < len(first[name][1]):
                first[name] = indices[root], schedule
    broken = tuple(
        _counterexample(name, roots, root, schedule, shortest, knobs)
        for name, (root, schedule) in sorted(first.items())
    )
    assume = Assume(all(p["assume"].nobody_fails for _, p in parts), all(p["assume"].nobody_dies for _, p in parts))
    reductions = tuple(w for w, on in (("symmetry", knobs["symmetry"]), ("partial order", knobs["por"])) if on)
    return Result(
        scenario, cpus, len(roots), total["states"], total["worlds"], total["transitions"],
        max((part["depth"] for _, part in parts), default=0), total["ends"], time.perf_counter() - began, why == "",
        why, broken, tuple(names), (), reductions, assume, tuple(sorted(outcomes.items())),
    )
