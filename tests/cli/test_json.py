"""Every command whose answer a program could use has ``--json``: a format id, the version, and the text's exit code."""

from __future__ import annotations

import argparse
import json
import shlex
import sys
from pathlib import Path

import pytest

import seamref
from seamref.cli import command_names, command_parser, main
from seamref.commands import EXAMPLES, WITHOUT_JSON
from seamref.commands._answer import format_id

ROOT = Path(__file__).resolve().parents[2]

LINES = {
    "blob": "blob check {blob}",
    "campaign": "campaign --list --scenarios update",
    "conform": "conform --only 'tables*' {vectors}",
    "consume": "consume --set tdcall --restarts 0 -- {python} -S -c pass",
    "doctor": "doctor {log}",
    "explore": "explore",
    "export": "export --list",
    "failures": "failures --series v10",
    "inspect": "inspect {blob}",
    "module-update": 'module-update "TD runs"',
    "plan": "plan --running 1.5.05 --seamldr 1.5.00 --cpu 0x806F8",
    "seamcall-table": "seamcall-table --revision silicon",
    "verify": "verify {blob} --signer test",
}
"""How a command is asked here, where its first example needs a file, time, or another program."""

WITH_JSON = [name for name in command_names() if name not in WITHOUT_JSON]


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files that lines name."""
    folder = tmp_path_factory.mktemp("files")
    assert main(["blob", "mint", str(folder / "module.blob")]) == 0
    (folder / "dmesg.txt").write_text("[ 0.1] virt/tdx: BIOS enabled: private KeyID range [32, 64)\n")
    return {"blob": str(folder / "module.blob"), "log": str(folder / "dmesg.txt"), "python": sys.executable,
            "vectors": str(ROOT / "tests" / "conformance" / "vectors" / "npseamldr")}


@pytest.mark.parametrize("name", command_names())
def test_every_command_has_json_or_a_reason(name: str) -> None:
    parser = command_parser(name)[0]
    below = {f"{name} {verb}": p for action in parser._actions if isinstance(action, argparse._SubParsersAction)
             for verb, p in action.choices.items()}
    for said, asked in (below or {name: parser}).items():
        assert any("--json" in a.option_strings for a in asked._actions) is (said not in WITHOUT_JSON), said
    assert {said.split()[0] for said in WITHOUT_JSON} <= set(command_names()) and all(WITHOUT_JSON.values())


@pytest.mark.parametrize("name", WITH_JSON)
def test_json_has_a_format_id_and_the_version_and_the_exit_code_of_the_text(
    name: str, places: dict[str, str], capsys: pytest.CaptureFixture[str],
) -> None:
    words = shlex.split(LINES.get(name, EXAMPLES[name][0]).format(**places))
    at = words.index("--") if "--" in words and name == "consume" else len(words)
    capsys.readouterr()
    code = main([*words[:at], "--json", *words[at:]])
    out, err = capsys.readouterr()
    assert code in (0, 1) and not err, (code, err)
    held = json.loads(out)
    kind, _, version = held["format"].removeprefix("seamref-").partition("/")
    assert held["format"] == format_id(kind, int(version)) and held["seamref"] == seamref.__version__
    assert len(held) > 2


def test_msr_says_to_programs_what_it_says_to_readers(capsys: pytest.CaptureFixture[str]) -> None:
    def asked(*words: str) -> tuple[int, dict[str, object]]:
        code = main(["msr", *words, "--json"])
        return code, json.loads(capsys.readouterr().out)

    code, held = asked("0x1401", "--value", "3ffff8000c00", "--base", "3ff8000008")
    assert code == 0 and held["format"] == "seamref-msr/1" and held["name"] == "IA32_SEAMRR_PHYS_MASK"
    assert [(bit["name"], bit["value"]) for bit in held["bits"]] == [  # type: ignore[attr-defined]
        ("mask", "0x1FFFFC"), ("valid", "0x1"), ("lock", "0x1")]
    assert held["follows"][1] == "size 0x8000000 bytes (128 MiB)"  # type: ignore[index]
    code, held = asked("0x1402", "--write", "0x10")
    assert (code, held["outcome"], held["fault"], held["clause"]) == (1, "#GP(0)", True, "WRMSR.mode")
    code, held = asked("0x1402", "--gate", "all")
    assert code == 0 and held["format"] == "seamref-msr-gates/1" and len(held["gates"]) == 6  # type: ignore[arg-type]
    code, held = asked()
    assert {m["modelled"] for m in held["msrs"]} == {True, False}  # type: ignore[attr-defined]
    code, held = asked("0x1401", "--value", "1", "-f", "11:11")
    assert held["given"] == "11:11" and [b["name"] for b in held["bits"]] == ["valid"]  # type: ignore[attr-defined]


def test_msr_with_the_field_63_to_0_says_each_bit_once(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["msr", "0x1401", "--value", "3ffff8000c00", "-f", "63:0"]) == 0
    out = capsys.readouterr().out
    assert out.count("  valid  ") == 1 and "only bits" not in out


def test_upload_says_to_programs_what_it_says_to_readers(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["upload", "--json", "--states"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert held["format"] == "seamref-upload/1" and held["updated"] and held["module_initialized"]
    assert held["tds"] == [{"before": 1, "after": 2}] and held["error"] is None and held["log"]
    assert {"command": "cat status", "answer": ["idle"]} in held["session"]
    assert held["states"]["CPU_INSTALL"] == {"SEAMLDR.INSTALL": [0, 1]}
    assert main(["upload", "--json", "--fail", "leaf=SEAMLDR.INSTALL,outcome=vmfailinvalid"]) == 1
    held = json.loads(capsys.readouterr().out)
    assert not held["updated"] and held["error"]
