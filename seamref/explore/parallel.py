"""Work shared by several processes, in parts that are named by number and share nothing while they work."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

_WORK: Callable[[list[int]], Any] | None = None


def _share(numbers: list[int]) -> tuple[list[int], Any]:
    assert _WORK is not None  # inherited by fork
    return numbers, _WORK(numbers)


def can_fork() -> bool:
    """Whether a process can be split off here: not on Windows, not in a browser's Python."""
    if sys.platform == "emscripten":
        return False
    try:
        import multiprocessing.synchronize  # a Python without semaphores has no pool
    except ImportError:
        return False
    return "fork" in multiprocessing.get_all_start_methods()


def in_processes(work: Callable[[list[int]], Any], count: int, jobs: int) -> tuple[list[tuple[list[int], Any]], bool]:
    """Do ``work`` for the numbers below ``count``, dealt out to so many processes.

    ``work`` gets the numbers of one process and gives something that can be pickled; it may refer to anything that
    this process holds (it is inherited, not sent).  Where no process can be split off, this one does the same
    parts one after the other.  Gives what each process made, and whether it was interrupted.
    """
    global _WORK
    shares = [list(range(count))[n::jobs] for n in range(min(jobs, count))]
    if not can_fork():
        try:
            return [(share, work(share)) for share in shares], False
        except KeyboardInterrupt:
            return [], True
    import multiprocessing
    from concurrent.futures import ProcessPoolExecutor

    _WORK = work
    pool = ProcessPoolExecutor(jobs, mp_context=multiprocessing.get_context("fork"))
    try:
        return list(pool.map(_share, shares)), False
    except KeyboardInterrupt:
        return [], True
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        _WORK = None
