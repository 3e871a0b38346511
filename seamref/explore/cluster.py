"""The cases of a campaign on machines of a dask.distributed cluster that is there already.

Only names travel: each worker boots its own machines, and keeps them for the cases that follow.  A case whose worker is
lost is given to another by the scheduler; after several losses it is a verdict of its own.  Workers need the same
state of the code, which is asked before the first case.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from seamref.errors import SeamrefError
from seamref.explore.campaign import Bounds, Case, Outcome, Told, Verdict, code_digest, run_case

CONNECT_SECONDS = 10


def distributed() -> Any:
    """The package; an error that says how to get it where it is not installed."""
    try:
        return import_module("distributed")
    except ImportError:
        raise SeamrefError("--dask needs dask.distributed: pip install 'seamref[cluster]'") from None


def run_on_cluster(address: str, wanted: Sequence[Case], bounds: Bounds, told: Told) -> None:
    """Work on every case on the cluster whose scheduler has this address; ``told`` gets each outcome once.

    Errors: no scheduler there; no worker; a worker with another state of the code.
    """
    package = distributed()
    try:
        client = package.Client(address, timeout=CONNECT_SECONDS, set_as_default=False)
    except (OSError, ValueError) as error:
        raise SeamrefError(f"--dask {address}: no scheduler answers ({type(error).__name__})") from None
    with client:
        _same_code(client, address)
        futures = {}
        for case in wanted:
            future = client.submit(run_case, case, bounds, key=f"seamref/{case.key}", pure=False, retries=0)
            futures[future] = case
        for future in package.as_completed(list(futures), loop=client.loop):
            case = futures.pop(future)
            told(_taken(future, case))
            future.release()


def _same_code(client: Any, address: str) -> None:
    found = client.run(code_digest)
    if not found:
        raise SeamrefError(f"--dask {address}: the cluster has no workers")
    mine = code_digest()
    for worker, theirs in sorted(found.items()):
        if theirs != mine:
            raise SeamrefError(f"--dask {address}: worker {worker} has another state of the code ({theirs}, this is "
                               f"{mine})")


def _taken(future: Any, case: Case) -> Outcome:
    if future.status == "finished":
        outcome: Outcome = future.result()
        return outcome
    error = future.exception() if future.status == "error" else None
    lost = error is None or type(error).__name__ == "KilledWorker"
    return Outcome(case, Verdict.LOST if lost else Verdict.ERROR, why=f"{type(error).__name__}: {error}")


__all__ = ["distributed", "run_on_cluster"]
