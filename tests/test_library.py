"""What is public: named, described with parameters, units and errors, and every example runs."""

from __future__ import annotations

import importlib
import re
import subprocess
import sys
from inspect import Parameter, isclass, signature
from pathlib import Path
from typing import Any

import pytest

import seamref
from seamref.show.library import ENTRIES, VALUES, call_of, documented, words_of

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tools"))
import library

ROOT = Path(__file__).resolve().parents[1]
FUNCTIONS = [name for name in ENTRIES if callable(getattr(seamref, name)) and not isclass(getattr(seamref, name))]
WITH_EXAMPLES = [name for name, entry in ENTRIES.items() if entry.example]


def run(code: str) -> dict[str, Any]:
    """Run an example; what it asserts must hold."""
    names: dict[str, Any] = {"seamref": seamref, "print": lambda *_: None}
    exec(compile(code, "example", "exec"), names)
    return names


# --- what is public


def test_all_says_what_is_public_and_every_name_is_described() -> None:
    assert {*seamref.PUBLIC, "__version__"} == set(seamref.__all__)
    assert len(seamref.__all__) == len(set(seamref.__all__))
    assert set(ENTRIES) == set(seamref.PUBLIC)
    assert set(seamref.PUBLIC) <= set(dir(seamref))
    for name, module in seamref.PUBLIC.items():
        assert getattr(seamref, name) is getattr(importlib.import_module(f"seamref.{module}"), name)
    with pytest.raises(AttributeError, match="has no attribute 'bot'"):
        seamref.bot  # noqa: B018


def test_the_package_alone_imports_none_of_its_rooms() -> None:
    code = "import sys, seamref; print(sorted(m for m in sys.modules if m.startswith('seamref.')))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("name", FUNCTIONS)
def test_the_parameters_are_those_of_the_signature_and_addresses_have_units(name: str) -> None:
    entry = ENTRIES[name]
    assert list(entry.parameters) == list(signature(entry.thing).parameters)
    assert entry.gives and entry.example
    for key, said in entry.parameters.items():
        assert not re.search(r"\b(address|size|buffer)\b", said) or "bytes" in said, (key, said)


@pytest.mark.parametrize("name", list(ENTRIES))
def test_every_entry_has_words_and_names_only_errors_that_are_public(name: str) -> None:
    entry = ENTRIES[name]
    assert words_of(entry)[0].rstrip(".") and "``" not in "".join(words_of(entry))
    for error in entry.raises:
        assert issubclass(getattr(seamref, error), seamref.SeamrefError)
    html = documented(name)
    assert call_of(entry).split("(")[0] in html.text and len(html.text) > len(name) + 10
    assert (name in VALUES) is not callable(entry.thing)
    unknown = [p for p in entry.parameters if callable(entry.thing) and p not in signature(entry.thing).parameters]
    assert not unknown


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_example_runs_and_asserts(name: str) -> None:
    assert "assert" in ENTRIES[name].example and f"seamref.{name}" in ENTRIES[name].example
    run(ENTRIES[name].example)


@pytest.mark.parametrize(("title", "code"), [(title, code) for title, _, code in library.COOKBOOK])
def test_the_recipe_runs_and_asserts(title: str, code: str) -> None:
    assert "assert" in code
    run(code)


def test_the_page_is_what_its_generator_says() -> None:
    assert library.problems() == []
    text = library.percent()
    assert all(f"### `{name}`" in text for name in ENTRIES) and "## Cookbook" in text


def test_the_changelog_says_what_is_public() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert "semantic versioning" in text and "`seamref.__all__`" in text


# --- errors


@pytest.mark.parametrize(("arguments", "says"), [
    ({"acm": 3}, "boot: acm: 3, must be bytes"),
    ({"acm_key": b"x"}, "boot: acm_key: 1 bytes, must be a modulus of 384"),
    ({"revision": "silicon"}, "boot: revision: 'silicon', must be a Revision"),
    ({"config": 3}, "boot: config: 3, must be a PlatformConfig"), ({"setup": 4}, "boot: setup: 4, must be a Setup"),
    ({"vmx": "no"}, "boot: vmx: 'no', must be True or False"), ({"lock": 1}, "boot: lock: 1, must be True or False"),
    ({"seamrr_size": "x"}, "boot: seamrr_size: 'x', must be a whole number"),
    ({"keyid_bits": True}, "boot: keyid_bits: True, must be a whole number"),
    ({"mask": "1"}, "boot: mask: '1', must be a whole number"), ({"packages": 1}, "boot: packages: 1, must be package"),
    ({"topology": 4}, "boot: topology: 4"), ({"sockets": 1.5}, "boot: sockets: 1.5, must be a whole number"),
    ({"lps": True}, "boot: lps: True"), ({"sockets": 0}, "Topology.sockets: 0, a SEAM platform has 1 to 8"),
    ({"module": 4}, "boot: module: int, must be bytes"), ({"module": "9.9"}, "no TDX module build '9.9'"),
    ({"module": b"x"}, "image of 1 bytes, must be whole pages"),
    ({"smrr": 1}, "boot: no argument 'smrr'; did you mean"),
    ({"acm": b"zz"}, "ACM_HEADER.HeaderVersion at 0x8"),
])
def test_boot_refuses_nonsense_by_name(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(seamref.SeamrefError) as refused:
        seamref.boot(**arguments)
    assert says in str(refused.value)


def test_boot_takes_what_it_says() -> None:
    made = seamref.boot(sockets=1, lps=2, revision=seamref.get_revision("SDM"), mask=None, acm=None, vmx=False)
    assert made.revision.name == "SDM" and not made.lp(made.lps[0]).vmx_on


def test_a_chain_that_stops_names_step_status_and_row() -> None:
    with pytest.raises(seamref.BootStopped, match=r"boot stopped at tme \(BIOS\): #GP\(0\) \(WRMSR\.tme_value\)"):
        seamref.boot(keyid_bits=99)


@pytest.mark.parametrize(("more", "status", "row"), [
    ({"scenario": 7}, "EBADPARAM", "INSTALL.params.scenario"),
    ({"image": bytes(4096)}, "EBADPARAM", "INSTALL.relocation.elf"),
    ({"scenario": 1}, "", "INSTALL."), ({"sigstruct": bytes(2048)}, "0x80000000", "INSTALL."),
])
def test_a_refused_install_names_processor_status_and_row(more: dict[str, Any], status: str, row: str) -> None:
    with pytest.raises(seamref.SeamrefError) as refused:
        seamref.install(seamref.boot(), **more)
    said = str(refused.value)
    assert said.startswith("SEAMLDR.INSTALL on processor ") and status in said and row in said


def test_signatures_are_short_on_the_page() -> None:
    for entry in ENTRIES.values():
        assert len(call_of(entry)) < 300
        if callable(entry.thing) and not isclass(entry.thing):
            kinds = {p.kind for p in signature(entry.thing).parameters.values()}
            assert ("**" in call_of(entry)) is (Parameter.VAR_KEYWORD in kinds)
