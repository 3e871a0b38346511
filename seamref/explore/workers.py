"""Processes that work on cases: each in turn, within its bounds, whatever becomes of it.

A worker that runs over its time or memory is stopped from outside and another takes its place; one that dies on its own
is noticed, and its case is tried once more before it counts as lost.  Where no process can be started (a browser's
Python) the cases run here, one after another.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from seamref.explore.campaign import Bounds, Case, Outcome, Told, Verdict, resident, run_case
from seamref.explore.parallel import can_fork

TRIES = 2
"""How often a case is begun whose worker dies on its own."""
GRACE = 5.0
"""Seconds over its bound after which a worker is stopped from outside (it looks at the bound itself before)."""


def processors() -> int:
    """How many processors this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:
        return os.cpu_count() or 1


def _serve(pipe: Any, bounds: Bounds, parent: int) -> None:
    """A worker: cases in, outcomes out, as long as there is somebody to give and take them."""
    _die_with_parent()
    with suppress(EOFError, KeyboardInterrupt, OSError):
        while os.getppid() == parent:
            if pipe.poll(1.0):
                pipe.send(run_case(pipe.recv(), bounds))


def _die_with_parent() -> None:
    """Linux stops a worker whose parent is killed; elsewhere it ends its case first."""
    if sys.platform == "linux":
        with suppress(OSError, AttributeError, ImportError):
            import ctypes

            ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(signal.SIGKILL))


PR_SET_PDEATHSIG = 1


@dataclass(slots=True)
class _Worker:
    process: Any
    pipe: Any
    case: Case | None = None
    since: float = 0.0


def run_cases(wanted: Sequence[Case], jobs: int, bounds: Bounds, told: Told) -> None:
    """Work on every case with so many processes; ``told`` gets each outcome once, in the order they come.

    An interrupt stops the workers and is raised.
    """
    context = _context()
    if context is None:
        for case in wanted:
            told(run_case(case, bounds))
        return
    waiting, tries = deque(wanted), dict.fromkeys((case.key for case in wanted), 0)
    workers: list[_Worker] = []
    try:
        while waiting or any(worker.case is not None for worker in workers):
            while waiting and len(workers) < jobs:
                workers.append(_start(context, bounds))
            for worker in workers:
                if worker.case is None and waiting:
                    _give(worker, waiting.popleft(), tries)
            _wait([worker for worker in workers if worker.case is not None])
            for worker in list(workers):
                outcome = _look(worker, bounds, tries, waiting)
                if outcome is not None:
                    told(outcome)
                # One that died a moment ago may still hold a case: the next look says what becomes of it.
                if worker.case is None and not worker.process.is_alive():
                    _stop(worker)
                    workers.remove(worker)
    finally:
        for worker in workers:
            _stop(worker)


def _context() -> Any:
    """How processes are made: split off where that is possible (booted machines are inherited), else started anew."""
    try:
        import multiprocessing
        import multiprocessing.synchronize
    except ImportError:
        return None
    if sys.platform == "emscripten":
        return None
    return multiprocessing.get_context("fork" if can_fork() else "spawn")


def _start(context: Any, bounds: Bounds) -> _Worker:
    ours, theirs = context.Pipe()
    process = context.Process(target=_serve, args=(theirs, bounds, os.getpid()), daemon=True)
    process.start()
    theirs.close()
    return _Worker(process, ours)


def _give(worker: _Worker, case: Case, tries: dict[str, int]) -> None:
    tries[case.key] += 1
    worker.case, worker.since = case, time.monotonic()
    with suppress(BrokenPipeError, OSError):  # it is dead: noticed when it is looked at
        worker.pipe.send(case)


def _wait(busy: list[_Worker]) -> None:
    from multiprocessing.connection import wait

    wait([part for worker in busy for part in (worker.pipe, worker.process.sentinel)], timeout=0.25)


def _look(worker: _Worker, bounds: Bounds, tries: dict[str, int], waiting: deque[Case]) -> Outcome | None:
    """What became of a worker's case, if anything did."""
    case = worker.case
    if case is None:
        return None
    with suppress(EOFError, OSError):
        if worker.pipe.poll():
            outcome: Outcome = worker.pipe.recv()
            worker.case = None
            return outcome
    if not worker.process.is_alive():
        worker.case = None
        if tries[case.key] < TRIES:
            waiting.appendleft(case)
            return None
        return Outcome(case, Verdict.LOST, why=f"its process ended {TRIES} times, last with {worker.process.exitcode}")
    spent = time.monotonic() - worker.since
    if spent > bounds.seconds + GRACE:
        return _killed(worker, case, Verdict.TIMEOUT, f"{bounds.seconds:g} s", spent)
    if resident(worker.process.pid) > bounds.memory * 5 // 4:
        return _killed(worker, case, Verdict.MEMORY, f"more than {bounds.memory} MiB", spent)
    return None


def _killed(worker: _Worker, case: Case, verdict: Verdict, why: str, spent: float) -> Outcome:
    worker.case = None
    worker.process.kill()
    worker.process.join()
    return Outcome(case, verdict, why=f"{why}; its process was stopped", seconds=round(spent, 3))


def _stop(worker: _Worker) -> None:
    with suppress(OSError):
        worker.pipe.close()
    if worker.process.is_alive():
        worker.process.kill()
    worker.process.join()


__all__ = ["processors", "run_cases"]
