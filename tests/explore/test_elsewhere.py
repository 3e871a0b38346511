"""Where Python has fewer means: no ``resource`` (Windows), and neither that nor processes (a browser)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from seamref.explore import parallel
from seamref.explore.engine import explore

ROOT = Path(__file__).resolve().parents[2]

# Every module of the package is imported while these are not to be had.
WITHOUT = """
import pkgutil, sys
for name in {missing!r}:
    sys.modules[name] = None
import seamref
for found in pkgutil.walk_packages(seamref.__path__, "seamref."):
    if found.name != "seamref.__main__":
        __import__(found.name)
from seamref.explore.engine import explore
print(explore("update", 2, faults=["rdrand"], stop_first=False, shortest=False, jobs=2).states)
"""


@pytest.mark.parametrize("missing", [
    ["resource", "fcntl", "termios"],
    ["resource", "fcntl", "termios", "_multiprocessing", "_posixshmem", "_posixsubprocess", "ipywidgets", "pandas"],
], ids=["Windows", "browser"])
def test_every_module_imports_and_explores(missing: list[str]) -> None:
    """The same states come of it as here, in two processes."""
    done = subprocess.run([sys.executable, "-c", WITHOUT.format(missing=missing)], cwd=ROOT, text=True,
                          capture_output=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    here = explore("update", 2, faults=["rdrand"], stop_first=False, shortest=False, jobs=2)
    assert int(done.stdout) == here.states


def test_one_process_does_the_work_of_many(monkeypatch: pytest.MonkeyPatch) -> None:
    two = explore("update", 2, faults=["rdrand"], stop_first=False, shortest=False, jobs=2)
    monkeypatch.setattr(parallel, "can_fork", lambda: False)
    one = explore("update", 2, faults=["rdrand"], stop_first=False, shortest=False, jobs=2)
    for counted in ("states", "transitions", "ends", "outcomes"):
        assert getattr(one, counted) == getattr(two, counted)
