"""Cases on a dask.distributed cluster: a worker is killed on the way, every case gets its verdict once."""

from __future__ import annotations

import os
import signal
from collections import Counter

import pytest

from seamref.errors import SeamrefError
from seamref.explore import cluster
from seamref.explore.campaign import Bounds, Case, Outcome, Verdict, cases, code_digest, run_case

distributed = pytest.importorskip("distributed", reason="dask.distributed is not installed (seamref[cluster])")


def test_cluster__one_of_two_workers_is_killed_and_every_case_has_its_verdict_once() -> None:
    wanted = list(cases(("info-callers", "info-callers-v3", "uefi-together", "loader-reload"), cpus=(2, 3)))
    found: list[Outcome] = []
    with distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None,
                                  host="127.0.0.1") as local:
        with distributed.Client(local, set_as_default=False) as client:
            pids = client.run(os.getpid)

        def told(outcome: Outcome) -> None:
            if not found:
                os.kill(sorted(pids.values())[0], signal.SIGKILL)
            found.append(outcome)

        cluster.run_on_cluster(local.scheduler_address, wanted, Bounds(), told)
    assert Counter(outcome.case.key for outcome in found) == Counter(case.key for case in wanted)
    here = {case.key: run_case(case) for case in wanted[:4]}
    for outcome in found:
        assert outcome.verdict in (Verdict.HOLDS, Verdict.BREAKS)
        if outcome.case.key in here:
            assert (outcome.verdict, outcome.broken) == (here[outcome.case.key].verdict, here[outcome.case.key].broken)


def test_cluster__no_scheduler_is_refused_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "CONNECT_SECONDS", 1)
    with pytest.raises(SeamrefError, match=r"--dask tcp://127\.0\.0\.1:9: no scheduler answers"):
        cluster.run_on_cluster("tcp://127.0.0.1:9", [Case("update")], Bounds(), lambda outcome: None)


def test_cluster__workers_with_other_code_are_refused() -> None:
    class Client:
        def run(self, function: object) -> dict[str, str]:
            assert function is code_digest
            return {"tcp://a": code_digest(), "tcp://b": "other"}

    with pytest.raises(SeamrefError, match="worker tcp://b has another state of the code"):
        cluster._same_code(Client(), "tcp://x")
