"""Benchmarks of campaigns: what a process of its own costs a case, and what a second worker gains.

``benchmarks()`` is for ``tools/bench.py``.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

SCENARIOS = ("info-callers", "uefi-together", "loader-reload-any-order", "update-bad-signature")


def benchmarks() -> Iterator[object]:
    """Cases in this process, with one worker, with two; per case."""
    from bench import Bench

    from seamref.explore.campaign import Bounds, Case, cases, run_case
    from seamref.explore.workers import processors, run_cases

    tiny = [Case("uefi-disabled", cpus=n) for n in range(2, 18)]
    whole = [case for case in cases(SCENARIOS, faults=((), ("mc",), ("rdrand",)))]
    for case in (*tiny, *whole):
        run_case(case)  # boots what the workers inherit
    bounds = Bounds()

    def here(wanted: list[Case]) -> None:
        for case in wanted:
            run_case(case, bounds)

    def there(wanted: list[Case], jobs: int) -> None:
        run_cases(wanted, jobs, bounds, lambda outcome: None)

    yield f"{processors()} processors may be used"
    one, two = "campaign: cases, 1 worker", "campaign: cases, 2 workers"
    yield Bench("campaign: tiny cases, in this process", partial(here, tiny), len(tiny), "case")
    yield Bench("campaign: tiny cases, 1 worker", partial(there, tiny, 1), len(tiny), "case",
                against="campaign: tiny cases, in this process")
    yield Bench(one, partial(there, whole, 1), len(whole), "case", repeat=1)
    yield Bench(two, partial(there, whole, 2), len(whole), "case", against=one, repeat=1)
