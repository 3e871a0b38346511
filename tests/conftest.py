"""What every test shares: reproducible property tests, and the book built once."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import settings

from built import BuiltBook

ROOT = Path(__file__).resolve().parents[1]

# A property that fails must fail again: no random seed, and no clock in a verdict.
settings.register_profile("house", derandomize=True, deadline=None, print_blob=True)
settings.load_profile("house")


@pytest.fixture(scope="session")
def built_book(tmp_path_factory: pytest.TempPathFactory) -> BuiltBook:
    """The book, built from scratch once for the whole run, also where several workers ask for it."""
    base = tmp_path_factory.getbasetemp()
    shared = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "book"
    shared.mkdir(exist_ok=True)
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
    return BuiltBook(shared / "_build" / "html", int(status.read_text()), log.read_text(encoding="utf-8"))
