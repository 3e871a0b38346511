"""What every test shares: reproducible property tests, and the book built once."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from built import BuiltBook

ROOT = Path(__file__).resolve().parents[1]

# A property that fails must fail again: no random seed, and no clock in a verdict.
settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.register_profile("thorough", parent=settings.get_profile("house"), max_examples=2000)
THOROUGH = bool(os.environ.get("SEAMREF_THOROUGH"))
settings.load_profile("thorough" if THOROUGH else "house")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """What is marked ``thorough`` is the whole of what another test samples: only `make thorough` runs it."""
    for item in items:
        if item.get_closest_marker("thorough") and not THOROUGH:
            item.add_marker(pytest.mark.skip(reason="the whole of what is sampled: make thorough"))


def _build(shared: Path) -> None:
    """Build the book from scratch below ``shared``, once for a run: whoever comes second waits for the first."""
    import fcntl  # not on Windows, where the core's tests run without the book

    shared.mkdir(parents=True, exist_ok=True)
    status, log = shared / "exit-status", shared / "log.txt"
    with (shared / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not status.exists():
            done = subprocess.run(
                [
                    str(Path(sys.executable).with_name("jupyter-book")),
                    "build",
                    ".",
                    "-W",
                    "--keep-going",
                    "--path-output",
                    str(shared),
                ],
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
                timeout=900,
                env={**os.environ, "NO_COLOR": "1"},
            )
            log.write_text(done.stdout, encoding="utf-8")
            status.write_text(str(done.returncode))


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory) -> BuiltBook:
    """The book as :func:`_build` leaves it, also where several workers ask for it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "book"
    _build(shared)
    status, log = shared / "exit-status", shared / "log.txt"
    return BuiltBook(shared / "_build" / "html", int(status.read_text()), log.read_text(encoding="utf-8"))


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A run that is shared by workers and will need the book begins to build it now, so that no worker waits for it."""
    config = session.config
    shares = not hasattr(config, "workerinput") and getattr(config.option, "tx", None)
    if shares and _everything_runs(config) and not config.option.collectonly:
        shared = config._tmp_path_factory.getbasetemp() / "book"  # type: ignore[attr-defined]
        threading.Thread(target=_build, args=(shared,), name="book", daemon=True).start()


# --- clause coverage: each check row must have been silent and have decided, each clause of a function executed

STORED = ROOT / "book" / "appendices" / "coverage.json"
KNOWN = ROOT / "tests" / "uncovered.json"
_workers: list[dict[str, list[int]]] = []


@pytest.fixture(autouse=True)
def _vectors_do_not_count(request: pytest.FixtureRequest) -> Iterator[None]:
    """The report must be the same where the recorded vectors are not at hand, so they do not count."""
    if "conformance" not in Path(str(request.node.fspath)).parts:
        yield
        return
    from seamref import spec

    before = {id: list(count) for id, count in spec.COVERAGE.items()}
    yield
    for id, count in spec.COVERAGE.items():
        count[:] = before.get(id, [0, 0])


def _everything_runs(config: pytest.Config) -> bool:
    chosen = config.getoption("keyword") or config.getoption("markexpr") or config.getoption("lf", False)
    return config.args_source is pytest.Config.ArgsSource.TESTPATHS and not chosen


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any, error: object) -> None:
    """A worker of pytest-xdist hands over what it counted."""
    _workers.append(getattr(node, "workeroutput", {}).get("clauses", {}))


def _counted() -> dict[str, list[int]]:
    from seamref import spec

    return {row.clause.id: [row.silent, row.decided, int(row.is_row)] for row in spec.coverage_report()}


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Compare the coverage of a whole run with the report that the book prints."""
    config = session.config
    if hasattr(config, "workeroutput"):
        config.workeroutput["clauses"] = _counted()
        return
    if not _everything_runs(config) or exitstatus not in (0, 1):
        return
    total: dict[str, list[int]] = {}
    for counts in _workers or [_counted()]:
        for id, (silent, decided, is_row) in counts.items():
            held = total.setdefault(id, [0, 0, is_row])
            held[0] += silent
            held[1] += decided
    report = {
        id: {"row": bool(is_row), "silent": silent > 0, "decided": decided > 0}
        for id, (silent, decided, is_row) in sorted(total.items())
    }
    missing = {
        id for id, row in report.items() if not row["decided"] or (row["row"] and not row["silent"])
    }
    known = set(json.loads(KNOWN.read_text(encoding="utf-8"))) if KNOWN.exists() else set()
    text = json.dumps(report, indent=0).replace("\n\"silent", " \"silent").replace("\n\"decided", " \"decided") + "\n"
    problems = []
    if missing - known:
        problems.append(f"clauses not exercised both ways: {', '.join(sorted(missing - known))}")
    if known - missing:
        problems.append(f"tests/uncovered.json lists what is covered: {', '.join(sorted(known - missing))}")
    if os.environ.get("SEAMREF_WRITE_COVERAGE"):
        STORED.parent.mkdir(parents=True, exist_ok=True)
        STORED.write_text(text, encoding="utf-8")
    elif not STORED.exists() or json.loads(STORED.read_text(encoding="utf-8")) != report:
        problems.append("book/appendices/coverage.json is not what this run counted; `make coverage` writes it")
    rows = sum(1 for row in report.values() if row["row"])
    print(f"\nclause coverage: {len(report)} clauses, {rows} check rows, {len(missing)} not exercised both ways")
    for problem in problems:
        print(f"clause coverage: {problem}")
    if problems:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
