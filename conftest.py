"""How a run is shared out: whole files to each worker, those that took longest first.

What each file took is kept in pytest's cache and, for a first run, in tests/durations.json (seconds; files that nobody
has timed count as a second).  ``SEAMREF_WRITE_DURATIONS=1`` stores what a run measured.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

ROOT = Path(__file__).parent
SEEDS = ROOT / "tests" / "durations.json"
KEPT = "seamref/durations"
_took: dict[str, float] = {}


QUICK = 4.0
"""Seconds of a file that ``--quick`` still runs."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """``--quick``: only test files that are known to be short, so that all of them take a minute."""
    parser.addoption("--quick", action="store_true", help="only files that take less than four seconds")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A file that takes long is not even collected by a quick run."""
    if not config.getoption("quick") or collection_path.is_dir():
        return None
    file = collection_path.relative_to(ROOT).as_posix() if collection_path.is_relative_to(ROOT) else ""
    return True if _seeds().get(file, 0.0) >= QUICK else None


def _seeds() -> dict[str, float]:
    held: dict[str, float] = json.loads(SEEDS.read_text(encoding="utf-8")) if SEEDS.exists() else {}
    return held


def pytest_configure(config: pytest.Config) -> None:
    """Files are handed out in the order in which they were collected, which is by time."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def _durations(config: pytest.Config) -> dict[str, float]:
    seeds = _seeds()
    cache = getattr(config, "cache", None)
    return {**seeds, **(cache.get(KEPT, {}) if cache is not None else {})}


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Longest file first where several workers share the run; every worker sees the same order.

    The book is being built meanwhile: before files that wait for it each worker has another long one.
    """
    if not hasattr(config, "workerinput"):
        return
    took = _durations(config)
    first: dict[str, int] = {}
    wait = set()
    for index, item in enumerate(items):
        first.setdefault(file := item.nodeid.partition("::")[0], index)
        if "built_book" in getattr(item, "fixturenames", ()):
            wait.add(file)
    order = sorted(first, key=lambda file: (-took.get(file, 1.0), first[file]))
    ahead = [file for file in order if file not in wait][:config.workerinput["workercount"]]
    place = {file: at for at, file in enumerate([*ahead, *(file for file in order if file not in ahead)])}
    items.sort(key=lambda item: place[item.nodeid.partition("::")[0]])


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Count what each file takes."""
    file = report.nodeid.partition("::")[0]
    _took[file] = _took.get(file, 0.0) + report.duration


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Keep it; a file of which only some tests ran counts no less than before."""
    config = session.config
    cache = getattr(config, "cache", None)
    if hasattr(config, "workerinput") or cache is None or not _took:
        return
    before = cache.get(KEPT, {})
    cache.set(KEPT, {**before, **{f: round(max(s, before.get(f, 0.0) * 0.9), 1) for f, s in _took.items()}})
    if os.environ.get("SEAMREF_WRITE_DURATIONS"):
        long = {file: round(seconds) for file, seconds in sorted(_took.items()) if seconds >= 3}
        SEEDS.write_text(json.dumps(long, indent=1) + "\n", encoding="utf-8")
