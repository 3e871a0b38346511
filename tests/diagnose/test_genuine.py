"""verify, inspect, upload and uefi on files that another key signed, other generations of loader, other names."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from seamref import mint
from seamref.cli import main
from seamref.errors import SeamrefError
from seamref.host.image import V1, V2, build
from seamref.host.inspection import inspect_file
from seamref.host.releases import RELEASES
from seamref.host.stand_in import stand_in_for
from seamref.host.verify import Target, signer_of
from seamref.pseamldr.sigstruct import image_hash
from seamref.tdxmodule.build import BUILDS

IMAGE = mint.module_image("1.5.16")
FOREIGN = mint.sigstruct(IMAGE, key=mint.OTHER_KEY)


def run(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str]:
    code = main(list(args))
    out, err = capsys.readouterr()
    assert "Traceback" not in err
    return code, out + err


@pytest.mark.parametrize("changed", [
    {"addressable": 1}, {"addressable": 127}, {"remaining": -1}, {"remaining": 10**20}, {"running_svn": (999, 999)},
    {"running_svn": (1, -5)}, {"signer_key_hash": b"\0"}, {"fms": (-1,)}, {"fms": (1 << 32,)}, {"fms": ()}, {"lps": 0},
    {"sockets": 0}, {"addressable": 1 << 20}])
def test_Target__a_platform_that_none_can_be_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(SeamrefError):
        Target(**changed)  # type: ignore[arg-type]
    assert Target(addressable=128) and Target(remaining=0)


@pytest.mark.parametrize(("image", "sigstruct", "named"), [
    ("TDX-SEAM.so", "TDX-SEAM.so.sigstruct", 0), ("TDX-SEAM.so", "TDX-SEAM.so.sigstruct", 1),
    ("tdx_module.bin", "tdx_module.sigstruct", 0), ("tdx_module.bin", "tdx_module.sigstruct", 1),
    ("TDX-SEAM.so", "TDX-SEAM.sigstruct", 0), ("TDX-SEAM.so", "TDX-SEAM.sigstruct", 1)])
def test_verify__finds_the_other_half(image: str, sigstruct: str, named: int, tmp_path: Path,
                                      capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / image).write_bytes(IMAGE)
    (tmp_path / sigstruct).write_bytes(mint.sigstruct(IMAGE))
    given = str(tmp_path / (image, sigstruct)[named])
    code, text = run(capsys, "verify", given, "--signer", "test", "--sockets", "1", "--lps", "2")
    assert code == 0 and "SUCCESS" in text


def test_verify__says_that_the_old_module_runs_only_when_one_ran(tmp_path: Path,
                                                                 capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "x.blob"
    file.write_bytes(build(FOREIGN, IMAGE, V2))
    code, text = run(capsys, "verify", str(file))
    assert code == 1 and "no module ran before" in text and "still runs" not in text
    code, text = run(capsys, "verify", str(file), "--running-svn", "1.5")
    assert code == 1 and "still runs" in text
    code, text = run(capsys, "verify", str(file), "--addressable", "1")
    assert code == 2


def test_inspect__what_only_another_generation_minds_is_not_bad() -> None:
    held = int.from_bytes(bytes.fromhex("080000027203"), "little")
    sigstruct = mint.sigstruct(IMAGE, reserved3=held)
    found = inspect_file(sigstruct)
    assert found.good, [f for s in found.sections for f in s.findings]
    assert any("a P-SEAMLDR 1.5 refuses it" in f.text for s in found.sections for f in s.findings)
    assert not inspect_file(mint.sigstruct(IMAGE, reserved1=1)).good, "what every loader minds stays bad"


def test_upload__says_whose_key_the_machine_trusts_and_can_trust_another(tmp_path: Path,
                                                                       capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "foreign.blob"
    file.write_bytes(build(FOREIGN, IMAGE, V2))
    assert signer_of(file.read_bytes()) == mint.OTHER_KEY.key_hash == signer_of(FOREIGN)
    code, text = run(capsys, "upload", str(file), "--tds", "0")
    assert code == 1 and "trusts a test key" in text and "--signer-of" in text
    code, text = run(capsys, "upload", str(file), "--tds", "0", "--signer-of", str(file))
    assert code == 0 and "1.5.16" in text and "trusts a test key" not in text


def test_upload__code_of_nobody_is_said_to_be_that(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A genuine image: P-SEAMLDR takes it when it trusts the signer; what it would do is not modelled."""
    at = int.from_bytes(IMAGE[24:32], "little")
    image = IMAGE[:at] + b"\x65\x48\x89\x04\x25" + IMAGE[at + 5 :]
    file = tmp_path / "genuine.blob"
    file.write_bytes(build(mint.sigstruct(image, key=mint.OTHER_KEY), image, V2))
    code, text = run(capsys, "upload", str(file), "--tds", "0", "--signer-of", str(file))
    assert code == 1 and "its own code cannot run on this machine" in text, text


def genuine(tmp_path: Path, **fields: int) -> tuple[Path, bytes]:
    """A file whose code this machine does not know, signed by another key."""
    at = int.from_bytes(IMAGE[24:32], "little")
    image = IMAGE[:at] + b"\x65\x48\x89\x04\x25" + IMAGE[at + 5 :]
    sigstruct = mint.sigstruct(image, key=mint.OTHER_KEY, rip_offset=at, **fields)
    file = tmp_path / "genuine.blob"
    file.write_bytes(build(sigstruct, image, V2))
    return file, image


def test_UPLOAD_stand_in__a_genuine_image_goes_through_the_whole_host_path(tmp_path: Path,
                                                                         capsys: pytest.CaptureFixture[str]) -> None:
    file, _ = genuine(tmp_path)
    code, text = run(capsys, "upload", str(file), "--signer-of", str(file), "--stands-for", "1.5.16")
    assert code == 0 and "1.5.16" in text and "model of build 1.5.16 runs in its place" in text, text
    assert "an image of no known release" in text and "TD 0: counted to" in text
    code, text = run(capsys, "upload", "1.5.16", "--stands-for", "1.5.16")
    assert code == 2 and "runs the code of 1.5.16 itself" in text
    code, text = run(capsys, "upload", str(file), "--signer-of", str(file), "--stands-for", "9.9")
    assert code == 2 and "no TDX module build" in text


def test_UPLOAD_stand_in__a_known_release_needs_no_word(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture[str]) -> None:
    file, image = genuine(tmp_path)
    known = replace(RELEASES["1.5.16"], seamhash=image_hash(image).hex())
    monkeypatch.setitem(RELEASES, "1.5.16", known)
    code, text = run(capsys, "upload", str(file), "--signer-of", str(file), "--tds", "0")
    assert code == 0 and "release 1.5.16: its own code cannot run" in text, text


def test_UPLOAD_stand_in__the_handoff_is_the_files_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A sigstruct that asks for another handoff version is refused, whatever build stands for its code."""
    file, _ = genuine(tmp_path, module_hv=3, min_update_hv=3)
    code, text = run(capsys, "upload", str(file), "--signer-of", str(file), "--stands-for", "1.5.16", "--tds", "1")
    assert code == 1, text
    assert stand_in_for(file.read_bytes(), "1.5.16").stand_in.constants != BUILDS["1.5.16"].constants  # type: ignore[union-attr]
    assert stand_in_for(build(mint.sigstruct(IMAGE), IMAGE, V2)) is None
    bad = build(mint.sigstruct(IMAGE, rip_offset=len(IMAGE) - 8), IMAGE, V2)
    with pytest.raises(SeamrefError, match="rip_offset"):
        stand_in_for(bad)


def test_uefi__says_whose_key_the_machine_trusts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "foreign.blob"
    file.write_bytes(build(FOREIGN, IMAGE, V1))
    code, text = run(capsys, "uefi", str(file))
    assert code == 1 and "trusts a test key" in text
    code, text = run(capsys, "uefi", str(file), "--signer-of", str(file))
    assert code == 0 and "SEAM_READY is 1" in text
