"""`export` into a folder: only its own files are replaced, nothing is left in halves."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from seamref.cli import main
from seamref.commands import _files
from seamref.errors import SeamrefError
from seamref.export import kit


def snapshot(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def export(folder: Path, *words: str) -> int:
    return main(["export", str(folder), *words])


def test_it_writes_what_the_kit_is_and_says_so(tmp_path, capsys):
    assert export(tmp_path / "kit", "--only", "tdcall", "--only", "msrs", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    made = snapshot(tmp_path / "kit")
    assert made == kit.kit(["tdcall", "msrs"])
    assert (said["format"], said["files"]) == ("seamref-export/1", len(made))
    assert said["bytes"] == sum(map(len, made.values()))
    if shutil.which("sha256sum"):
        subprocess.run(["sha256sum", "-c", "--quiet", kit.MANIFEST], cwd=tmp_path / "kit", check=True)


def test_another_kit_takes_the_place_of_an_earlier_one(tmp_path):
    assert export(tmp_path, "--only", "tdcall") == 0
    assert export(tmp_path, "--only", "msrs") == 0
    assert snapshot(tmp_path) == kit.kit(["msrs"])
    assert not (tmp_path / "tdcall").exists(), "a folder that this leaves empty goes too"


def test_files_of_others_stay(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / "tdcall").mkdir()
    (tmp_path / "tdcall" / "mine.txt").write_text("mine")
    assert export(tmp_path, "--only", "tdcall") == 0
    assert export(tmp_path, "--only", "msrs") == 0
    assert snapshot(tmp_path) == {**kit.kit(["msrs"]), "notes.txt": b"mine", "tdcall/mine.txt": b"mine"}


@pytest.mark.parametrize("name", ["README.md", "tdcall/vectors.json", "index.json", "SHA256SUMS"])
def test_a_file_that_is_no_kits_is_not_replaced_without_force(tmp_path, name, capsys):
    place = tmp_path / name
    place.parent.mkdir(exist_ok=True)
    place.write_text("mine\n")
    before = snapshot(tmp_path)
    assert export(tmp_path, "--only", "tdcall") == 2
    assert name in capsys.readouterr().err and snapshot(tmp_path) == before
    if name != "SHA256SUMS":
        assert export(tmp_path, "--only", "tdcall", "--force") == 0
        assert snapshot(tmp_path) == kit.kit(["tdcall"])


def test_a_file_that_somebody_changed_is_kept_without_force(tmp_path, capsys):
    assert export(tmp_path, "--only", "tdcall") == 0
    (tmp_path / "tdcall" / "README.md").write_text("changed")
    (tmp_path / "tdcall" / "schema.json").unlink()
    assert export(tmp_path, "--only", "tdcall") == 2
    assert "was changed" in capsys.readouterr().err
    assert export(tmp_path, "--only", "msrs") == 0, "it is in no place of this kit"
    assert (tmp_path / "tdcall" / "README.md").read_text() == "changed"


def test_a_link_in_a_place_is_not_followed(tmp_path, capsys):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "kit").mkdir()
    (tmp_path / "kit" / "tdcall").symlink_to(tmp_path / "elsewhere")
    assert export(tmp_path / "kit", "--only", "tdcall", "--force") == 2
    assert "link" in capsys.readouterr().err and not list((tmp_path / "elsewhere").iterdir())


def test_after_a_run_that_was_cut_off_between_two_files_the_next_one_goes_through(tmp_path):
    for path, data in list(kit.kit(["tdcall"]).items())[:3]:
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_bytes(data)
    assert export(tmp_path, "--only", "tdcall") == 0
    assert snapshot(tmp_path) == kit.kit(["tdcall"])


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_full_disk_or_an_interrupt_leaves_nothing_in_halves(tmp_path, monkeypatch, error, capsys):
    made = 0
    real = os.fsync

    def fsync(number: int) -> None:
        nonlocal made
        made += 1
        if made == 3:
            raise error
        real(number)

    monkeypatch.setattr(_files.os, "fsync", fsync)
    code = export(tmp_path / "kit", "--only", "tdcall")
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert not (tmp_path / "kit").exists()
    if code == 2:
        assert "No space left" in capsys.readouterr().err


def test_bad_words_are_refused_by_name(tmp_path, capsys):
    for words, said in (
        (["--only", "seamcal"], "seamcall"), (["--list", "--small"], "--list"), (["--prefix", "1"], "prefix"),
    ):
        place = [] if "--list" in words else [str(tmp_path / "kit")]
        assert main(["export", *place, *words]) == 2
        assert said in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert export(tmp_path / "file") == 2
    assert main(["export"]) == 2


def test_a_manifest_that_points_outside_is_refused(tmp_path, capsys):
    (tmp_path / "kit").mkdir()
    (tmp_path / "mine").write_text("")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    for path in ("../mine", str(tmp_path / "mine")):
        (tmp_path / "kit" / "SHA256SUMS").write_text(f"{empty}  {path}\n")
        assert export(tmp_path / "kit", "--only", "tdcall") == 2
        assert "SHA256SUMS" in capsys.readouterr().err and (tmp_path / "mine").exists()


VERSIONS = ("3.12", "3.13", "3.14")
PYTHONS = [path for version in VERSIONS for path in (
    shutil.which(f"python{version}"),
    *map(str, Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob(f"versions/{version}*/bin/python3")),
) if path]
SOME = ["seamcall", "seamops", "events", "npseamldr", "rsa", "layouts", "msrs", "headers"]


def digest_of(python: str, seed: str) -> str:
    code = ("import sys, hashlib; from seamref.export import kit; "
            "print(hashlib.sha256(kit.kit(sys.argv[1:], small=True)['SHA256SUMS']).hexdigest())")
    root = str(Path(kit.__file__).resolve().parents[2])
    return subprocess.run([python, "-c", code, *SOME], check=True, capture_output=True, text=True, cwd="/",
                          env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": root}).stdout


def test_the_same_bytes_whatever_the_order_of_hashing():
    assert digest_of(sys.executable, "1") == digest_of(sys.executable, "2")


def test_the_same_bytes_on_another_python():
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    others = [path for path in PYTHONS if f"/{own}" not in path and f"python{own}" not in path and subprocess.run(
        [path, "-c", "import hashlib, json"], capture_output=True, check=False).returncode == 0]
    if not others:
        pytest.skip("no other Python here")
    assert digest_of(others[0], "1") == digest_of(sys.executable, "2")


def test_an_error_in_a_set_writes_nothing(tmp_path, monkeypatch):
    def broken(*_: object, **__: object) -> dict[str, bytes]:
        raise SeamrefError("set x: test 'y' is there twice")

    monkeypatch.setattr(kit, "kit", broken)
    assert export(tmp_path / "kit") == 2 and not (tmp_path / "kit").exists()
