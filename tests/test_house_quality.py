"""The gates: style, types, and which room may import which."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
BIN = Path(sys.executable).parent


def run(*command: str, cwd: Path = ROOT) -> str:
    """Run a tool; its whole report is the failure message."""
    done = subprocess.run(
        command,
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=600,
        env={**os.environ, "NO_COLOR": "1", "COLUMNS": "200"},
    )
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}"
    return done.stdout


def test_ruff_is_silent() -> None:
    run(sys.executable, "-m", "ruff", "check", ".")


def test_mypy_strict_is_silent() -> None:
    assert "no issues found" in run(sys.executable, "-m", "mypy", "--strict")


def test_imports_go_one_way() -> None:
    assert "0 broken" in run(str(BIN / "lint-imports"), "--no-cache")


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    command = [str(BIN / "lint-imports"), "--no-cache"]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=120)


@pytest.mark.parametrize(
    ("room", "line", "contract"),
    [
        ("arch", "import seamref.pseamldr", "imports go one way"),
        ("pseamldr", "import seamref.host", "imports go one way"),
        ("spec", "import seamref.arch", "imports go one way"),
        ("host", "import pandas", "the standard library only"),
        ("pseamldr", "from cryptography import x509", "the standard library only"),
    ],
)
def test_the_import_contract_notices(tmp_path: Path, room: str, line: str, contract: str) -> None:
    """The contract is not vacuous: each forbidden arrow, drawn in a package of this shape, is reported."""
    (tmp_path / "pyproject.toml").write_text((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    for name in ("", "arch", "pseamldr", "host", "spec", "layout", "show"):
        folder = tmp_path / "seamref" / name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "__init__.py").write_text("")
    (tmp_path / "seamref" / "show" / "__init__.py").write_text("import pandas\nimport IPython.display\n")
    clean = lint(tmp_path)
    assert clean.returncode == 0, clean.stdout
    (tmp_path / "seamref" / room / "__init__.py").write_text(line + "\n")
    broken = lint(tmp_path)
    assert broken.returncode == 1
    text = " ".join(broken.stdout.split())
    assert "1 broken" in text
    assert contract in text.partition("Broken contracts")[2]


CORE_WALK = """
import importlib, json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import seamref
names = [m.name for m in pkgutil.walk_packages(seamref.__path__, "seamref.", onerror=lambda name: None)
         if m.name.split(".")[1] not in ("mint", "show", "__main__")]
for name in names:
    importlib.import_module(name)
print(json.dumps(names))
"""


def test_every_core_module_imports_without_site_packages() -> None:
    """The core runs on a bare interpreter: nothing that is installed can be reached here."""
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", CORE_WALK, str(ROOT)],
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert {"seamref.spec", "seamref.layout"} <= set(json.loads(done.stdout))


def test_the_package_is_typed_for_its_users() -> None:
    assert (ROOT / "seamref" / "py.typed").exists()
