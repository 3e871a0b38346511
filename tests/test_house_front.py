"""What the front pages promise: the commands, the names, the versions, and a light import."""

from __future__ import annotations

import importlib
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[1]
FRONT = ("README.md", "CONTRIBUTING.md")


def text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("name", FRONT)
def test_every_make_command_that_is_named_exists(name: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", text("Makefile"), re.MULTILINE))
    named = set(re.findall(r"(?:`|\$ )make ([a-z]+)", text(name)))
    assert named
    assert named <= targets


@pytest.mark.parametrize("name", FRONT)
def test_every_tool_that_is_named_exists(name: str) -> None:
    named = set(re.findall(r"\b((?:tools|tests|book|seamref)/[\w/]+\.(?:py|json|svg))\b", text(name)))
    assert named
    assert [path for path in sorted(named) if not (ROOT / path).exists()] == []


def test_the_names_that_contributors_are_told_exist() -> None:
    spec = importlib.import_module("seamref.spec")
    for name in ("Clause", "CheckTable"):
        assert f"`{name}`" in text("CONTRIBUTING.md")
        assert hasattr(spec, name)


def test_one_version_everywhere() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert importlib.import_module("seamref").__version__ == project["version"]
    assert yaml.safe_load(text("CITATION.cff"))["version"] == project["version"]


def test_one_licence_everywhere() -> None:
    project = tomllib.loads(text("pyproject.toml"))["project"]
    assert project["license"] == {"text": "Apache-2.0"}
    assert yaml.safe_load(text("CITATION.cff"))["license"] == "Apache-2.0"
    assert "Version 2.0, January 2004" in text("LICENSE")


def test_the_core_declares_no_dependency() -> None:
    assert tomllib.loads(text("pyproject.toml"))["project"]["dependencies"] == []


def test_what_the_package_extras_need_is_what_the_requirements_pin() -> None:
    def line(requirement: str) -> tuple[str, str]:
        name, bounds = re.fullmatch(r"([\w.-]+)(.*)", requirement.split("#")[0].strip()).groups()
        return name.lower(), bounds

    rows = (text("requirements.txt") + text("requirements-read.txt")).splitlines()
    pinned = dict(line(row) for row in rows if row and not row.startswith(("#", "-")))
    extras = tomllib.loads(text("pyproject.toml"))["project"]["optional-dependencies"]
    wanted = [line(row) for rows in extras.values() for row in rows if not row.startswith("seamref[")]
    assert wanted
    assert [(name, bounds) for name, bounds in wanted if pinned.get(name) != bounds] == []


def test_the_requirements_install_the_package_and_reading_needs_no_test_tool() -> None:
    assert "-r requirements-read.txt" in text("requirements.txt").splitlines()
    assert any(row.startswith("-e .") for row in text("requirements-read.txt").splitlines())
    assert not re.search(r"^(pytest|nbval|mypy|ruff|hypothesis|playwright)", text("requirements-read.txt"), re.M)
    assert "--dist loadfile" in text("pyproject.toml")  # notebooks are not torn apart by a plain -n 2


def test_the_templates_and_workflows_are_well_formed() -> None:
    for path in (ROOT / ".github").rglob("*.yml"):
        assert isinstance(yaml.safe_load(path.read_text(encoding="utf-8")), dict), path
    hooks = yaml.safe_load(text(".pre-commit-config.yaml"))["repos"][0]["hooks"]
    assert {hook["id"] for hook in hooks} >= {"ruff", "mypy", "imports"}
    jobs = yaml.safe_load(text(".github/workflows/tests.yml"))["jobs"]
    assert jobs["everything"]["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert set(jobs["core"]["strategy"]["matrix"]["os"]) == {"macos-latest", "windows-latest"}


def test_a_release_names_its_repository_and_no_link_is_relative() -> None:
    import release

    address = "https://example.org/who/what"
    made = release.with_urls(text("pyproject.toml"), address)
    urls = tomllib.loads(made)["project"]["urls"]
    assert urls["Source"] == address and urls["Issues"] == f"{address}/issues"
    assert release.with_urls(made, address) == made
    readme = release.with_absolute_links(text("README.md"), address)
    assert not re.search(r"\]\((?!https:|#)", readme) and f"{address}/raw/main/book/_static/chain.svg" in readme


def test_the_continuous_integration_runs_the_two_commands() -> None:
    script = ROOT / ".ci" / "run"
    assert os.access(script, os.X_OK)
    commands = re.findall(r"^make (\w+)$", script.read_text(encoding="utf-8"), re.MULTILINE)
    assert commands == ["test", "book"]


def test_importing_the_package_imports_no_room() -> None:
    """`import seamref` stays light because it loads nothing of its own; a room is loaded when it is named."""
    code = "import sys; sys.path.insert(0, sys.argv[1]); import seamref; print(*sorted(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(ROOT)],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    loaded = done.stdout.split()
    assert [name for name in loaded if name.startswith("seamref.")] == []
    assert not {"inspect", "importlib.resources", "dataclasses"} & set(loaded)
