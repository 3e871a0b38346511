"""Coverage-guided fuzzing of everything that takes bytes from outside.

    python tools/fuzz.py                 every target for 20 s each
    python tools/fuzz.py elf 300         one target for 300 s
    python tools/fuzz.py --store [TARGET] [SECONDS]   the figures go to the page of the book
    python tools/fuzz.py --add [TARGET] [SECONDS]     the same; seconds, inputs and findings are added to those stored

Recorded vectors have a mutator of their own that needs no atheris: tools/mutate_vectors.py.

A target must give every input a status; only a SeamrefError may be raised, and only where a caller could have known
better (a file that is cut, a length that is wrong).  Anything else is a finding, and the tool exits with 1.  Needs
atheris (`pip install atheris`); without it, it says so and exits with 2.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

SECONDS, LONGEST = 20, 1 << 16
ROOT = Path(__file__).resolve().parents[1]
VECTORS = ROOT / "tests" / "conformance" / "vectors"
STORED = ROOT / "book" / "appendices" / "fuzzing.json"


LINES = (
    "virt/tdx: SEAMCALL (0x0000000000000021) failed: 0xc000090000000000", "virt/tdx: module initialization failed (-5)",
    "[    3.000000] virt/tdx: BIOS enabled: private KeyID range [64, 128)", "rdmsr 0x1401", "fffff8000c00",
    "seamldr: SEAMCALL (0x8000000000000001) failed: 0x8000000000020000", "IA32_SEAMRR_PHYS_MASK[11] = 1",
    "   0x00000007 0x00: eax=0x00000002 ebx=0xf3bfbfff ecx=0xfbc15f5e edx=0xffdd4432", "TDX_OPERAND_BUSY | TDR",
    "0xc0000b0200000000", "transferring:firmware-invalid", "cat: version: No such device or address",
)


def small_recording() -> bytes:
    """One case of the recordings of NP-SEAMLDR, with what it needs."""
    import gzip

    document = json.loads(gzip.decompress((VECTORS / "npseamldr" / "sample.json.gz").read_bytes()))
    document["cases"] = document["cases"][:1]
    return json.dumps(document).encode()


def samples() -> dict[str, list[bytes]]:
    """Good inputs to start from."""
    from seamref import mint
    from seamref.host.image import V2, build

    image, small = mint.module_image(pages=2), mint.module_image(pages=1, gdt_idt=False)
    sigstruct = mint.sigstruct(image)
    params = mint.params_page(0x1000_0000, [0x2000_0000, 0x2000_1000])
    return {
        "sigstruct": [sigstruct], "elf": [image, small], "params": [params],
        "blob": [build(sigstruct, image), build(sigstruct, image, V2)],
        "acm": [mint.acm(mint.pseamldr_image(size=8000))],
        "mapping": [b'{"tdx_module_releases": [{"version": "1.5.05", "min_module_version_for_td_preserving": "1.5.01", '
                    b'"min_seamldr_versions": ["1.5.00"], "tdx_feature0": "0x1"}]}'],
        "install": [sigstruct + params],
        "explain": [line.encode() for line in LINES], "doctor": ["\n".join(LINES).encode()],
        "conform": [small_recording()],
    }


def fuzz_sigstruct(data: bytes) -> None:
    """Layout, inspection and P-SEAMLDR's manifest rows over 2048 bytes."""
    from seamref.host.inspection import inspect_sigstruct
    from seamref.pseamldr.manifest import INSTALL_MANIFEST, ManifestState
    from seamref.pseamldr.sigstruct import key_hash

    held = data[:2048].ljust(2048, b"\0")
    for scenario in (0, 1):
        for revision in ("1.0", "1.5"):
            state = ManifestState(held, scenario, 2, 5, 1, False, (0xC06F2,), key_hash(held[128:512]), revision)
            INSTALL_MANIFEST.decide(state, revision)
    inspect_sigstruct(held)


def fuzz_params(data: bytes) -> None:
    """P-SEAMLDR's rows over SEAMLDR_PARAMS."""
    from seamref.pseamldr.manifest import INSTALL_PARAMS, ParamsState
    from seamref.pseamldr.sysvalues import SystemValues, hkid_mask

    values = SystemValues(52, 0x8000_0000, 1 << 26, hkid_mask(52, 6), 32)
    for ready in (0, 1):
        INSTALL_PARAMS.decide(ParamsState(data[:4096].ljust(4096, b"\0"), values, ready))


def fuzz_elf(data: bytes) -> None:
    """Relocation, and looking into an image."""
    from seamref.mint.elf import find_section, stub_of
    from seamref.pseamldr.elf import ElfFatal, ElfRefused, Relocated, relocate

    image = bytearray(data[:8192].ljust(-(-min(len(data), 8192) // 4096) * 4096, b"\0"))
    find_section(image, ".text")
    stub_of(image)
    size = len(image)
    assert isinstance(relocate(image, 0xFFFF800000000000), Relocated | ElfRefused | ElfFatal)
    assert len(image) == size


def fuzz_blob(data: bytes) -> None:
    """Both formats, and every kernel."""
    from seamref.errors import SeamrefError
    from seamref.host.image import KERNEL_VERSIONS, V1, V2, check_image, convert, format_problems, parse

    for version in KERNEL_VERSIONS:
        check_image(data, version)
    format_problems(data)
    with contextlib.suppress(SeamrefError):
        blob = parse(data, ignore_checksum=True)
        for version in (V1, V2):
            again = parse(convert(data, version, ignore_checksum=True))
            assert (again.area, again.module) == (blob.area, blob.module)


def fuzz_acm(data: bytes) -> None:
    """ACM header, tables and lists."""
    from seamref.errors import SeamrefError
    from seamref.host.inspection import inspect_acm

    with contextlib.suppress(SeamrefError):
        inspect_acm(data)


def fuzz_mapping(data: bytes) -> None:
    """A mapping file."""
    from seamref.errors import SeamrefError
    from seamref.host.select import make_situation, parse_mapping, plan

    with contextlib.suppress(SeamrefError):
        releases = tuple(parse_mapping(data.decode("utf-8", "replace")).values())
        plan(make_situation("1.5.05", "1.5.00", [0x806F8], releases=releases))


_machine: list[object] = []


def fuzz_install(data: bytes) -> None:
    """SEAMLDR.INSTALL itself on a booted platform: sigstruct, then SEAMLDR_PARAMS, then image pages."""
    import seamref
    from seamref import mint
    from seamref.arch.memory import Agent
    from seamref.arch.outcome import Left, Shutdown
    from seamref.bootchain import seamldr_call
    from seamref.pseamldr.api import Leaf, Status

    if not _machine:
        _machine.extend((seamref.boot(lps=1, module=True), mint.module_image(pages=2)))
    platform, image = _machine[0].fork(), bytearray(_machine[1])  # type: ignore[attr-defined, call-overload]
    tail = data[2048 + 4096 :][:8192]
    image[: len(tail)] = tail
    for at, what in ((0x1000_0000, data[:2048].ljust(2048, b"\0")), (0x2000_0000, bytes(image)),
                     (0x3000_0000, data[2048 : 2048 + 4096].ljust(4096, b"\0"))):
        platform.store(Agent.HOST, at, what)
    called = seamldr_call(platform, 0, Leaf.INSTALL, 0x3000_0000)
    assert isinstance(called.run, Left | Shutdown), called
    if isinstance(called.run, Left):
        assert called.rax in set(Status), hex(called.rax)
        assert platform.lp(0).rdx in (0, 1)


def fuzz_explain(data: bytes) -> None:
    """Lines that people paste."""
    from seamref.diagnose.explain import explain
    from seamref.errors import SeamrefError

    text = data[:4096].decode("utf-8", "replace")
    with contextlib.suppress(SeamrefError):
        for said in explain(text):
            assert said.text() and said.to_json()


def fuzz_doctor(data: bytes) -> None:
    """Whole pastes: log lines, registers, CPUID, values of sysfs."""
    from seamref.diagnose.doctor import diagnose
    from seamref.diagnose.evidence import gather

    found = diagnose(gather(data[:8192].decode("utf-8", "replace").splitlines()))
    assert found.sentence and found.text()
    assert not (found.well and found.first)


def fuzz_conform(data: bytes) -> None:
    """A file of recordings: parsed, recognised, judged case by case and replayed."""
    from seamref.conformance.frame import replay_document
    from seamref.conformance.reading import FormatError, parse_document

    with contextlib.suppress(FormatError):
        report = replay_document(parse_document(data), sparse=True)
        assert report.code in (0, 1, 2)


TARGETS: dict[str, Callable[[bytes], None]] = {
    "sigstruct": fuzz_sigstruct, "params": fuzz_params, "elf": fuzz_elf, "blob": fuzz_blob, "acm": fuzz_acm,
    "mapping": fuzz_mapping, "install": fuzz_install, "explain": fuzz_explain, "doctor": fuzz_doctor,
    "conform": fuzz_conform,
}


def fuzz(name: str, seconds: int, corpus: str) -> None:
    """Fuzz one target in this process; libFuzzer ends the process."""
    import atheris

    with atheris.instrument_imports(include=["seamref"]):
        import seamref.conformance.npseamldr
        import seamref.conformance.pseamldr
        import seamref.diagnose.doctor
        import seamref.diagnose.evidence
        import seamref.firmware.acm
        import seamref.host.image
        import seamref.host.inspection
        import seamref.host.select  # noqa: F401

    TARGETS[name](samples()[name][0])
    arguments = [sys.argv[0], f"-max_total_time={seconds}", f"-max_len={LONGEST}", "-timeout=60", "-verbosity=1",
                 corpus]
    atheris.Setup(arguments, TARGETS[name])
    atheris.Fuzz()


def added(before: dict[str, Any], now: dict[str, Any]) -> dict[str, Any]:
    """Two campaigns of one target as one: both start from the good inputs, so what they reach is the larger."""
    summed = {name: before[name] + now[name] for name in ("seconds", "inputs", "findings")}
    return {**now, **summed, **{name: max(before[name], now[name]) for name in ("edges", "features", "kept")}}


def campaign(names: list[str], seconds: int, store: str) -> int:
    """Each target in a process of its own, with the good inputs as corpus; a table of what was done."""
    failed = 0
    figures: dict[str, dict[str, Any]] = {}
    print(f"{'target':<10} {'seconds':>7} {'inputs':>9} {'edges':>6} {'features':>8} {'kept':>5}  findings")
    for name in names:
        with tempfile.TemporaryDirectory() as corpus:
            for i, sample in enumerate(samples()[name]):
                Path(corpus, f"good{i}").write_bytes(sample)
            env = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
            command = [sys.executable, str(Path(__file__).resolve()), "--child", name, str(seconds), corpus]
            done = subprocess.run(command, cwd=corpus, env=env, capture_output=True, text=True, errors="replace",
                                  check=False)
            log = done.stderr + done.stdout
            runs = re.findall(r"Done (\d+) runs|stat::number_of_executed_units: *(\d+)", log)
            last = re.findall(r"#(\d+)\s.*?cov: (\d+) ft: (\d+) corp: (\d+)", log)
            inputs = "".join(runs[-1]) if runs else last[-1][0] if last else "0"
            edges, features, kept = last[-1][1:] if last else ("0", "0", "0")
            bad = done.returncode != 0
            failed += bad
            verdict = "FOUND" if bad else "none"
            print(f"{name:<10} {seconds:>7} {inputs:>9} {edges:>6} {features:>8} {kept:>5}  {verdict}", flush=True)
            figures[name] = {
                "what": (TARGETS[name].__doc__ or "").strip(), "seconds": seconds, "inputs": int(inputs),
                "edges": int(edges), "features": int(features), "kept": int(kept), "findings": int(bad),
            }
            if bad:
                print("\n".join(log.splitlines()[-40:]))
    if store:
        held = json.loads(STORED.read_text(encoding="utf-8")) if STORED.exists() else {}
        if store == "--add":
            figures = {name: added(held[name], row) if name in held else row for name, row in figures.items()}
        kept_figures = {name: figures.get(name, held.get(name)) for name in TARGETS if name in figures or name in held}
        STORED.write_text(json.dumps(kept_figures, indent=1) + "\n", encoding="utf-8")
    return 1 if failed else 0


def main(args: list[str]) -> int:
    """Parse the little there is."""
    if args[:1] == ["--child"]:
        fuzz(args[1], int(args[2]), args[3])
        return 0
    try:
        import atheris  # noqa: F401
    except ImportError:
        print("fuzz: atheris is not installed (pip install atheris)", file=sys.stderr)
        return 2
    store = args[0] if args and args[0] in ("--store", "--add") else ""
    args = args[1:] if store else args
    if args and args[0] not in TARGETS and not (store and args[0].isdigit()):
        print(f"fuzz: no target {args[0]!r}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    if args and args[0].isdigit():
        return campaign(list(TARGETS), int(args[0]), store)
    return campaign(args[:1] or list(TARGETS), int(args[1]) if len(args) > 1 else SECONDS, store)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    sys.exit(main(sys.argv[1:]))
