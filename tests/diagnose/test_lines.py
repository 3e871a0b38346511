"""The grammar of lines: every kind with generated numbers, prefixes and wordings; what arbitrary text can never do."""

from __future__ import annotations

import random
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from seamref.diagnose.explain import explain, explain_log
from seamref.diagnose.lines import FORMS, match_form, strip_prefix
from seamref.diagnose.names import loader_leaves, module_leaves
from seamref.diagnose.reading import Explanation, Kind
from seamref.errors import SeamrefError
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.tdxmodule.status import Status as ModuleStatus

PREFIXES = (
    "", "[   12.345678] ", "[    0.000000] ", "[34567.890123] ", "[Tue Jul  8 09:10:11 2025] ", "[  +0.000034] ",
    "<3>[    5.000001] ", "<6>", "kern  :err   : [   14.000022] ", "[   12.345678] [T34] ", "[   12.345678][ T2021] ",
    "Jul 08 09:10:11 host kernel: ", "Jul  8 09:10:11 host-34 kernel: [   12.345678] ",
    "2025-07-08T09:10:11.123456+02:00 host kernel: ", "2025-07-08 09:10:11 host kernel: ", "> [    9.1] ",
    "2025-07-08T09:10:11,123456+0200 host kernel: ", "kernel: ", "\x1b[32m[   12.345678] \x1b[0m",
)
LINES: dict[str, tuple[str, str]] = {
    # form: (line, words that must come)
    "LOG.init_failed": ("virt/tdx: module initialization failed (-5)", "-EIO (-5)"),
    "LOG.acpi_s3": ("virt/tdx: Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.", "nothing is wrong"),
    "LOG.kvm_failed": ("kvm_intel: Failed to initialize TDX module.", "lines before say why"),
    "LOG.reserved": ("virt/tdx: initialization failed: TDMR [0x{a:x}, 0x{b:x}): reserved areas exhausted.", "holes"),
    "LOG.not_enabled": ("tdx: not enabled by BIOS.", "0x1401"),
    "LOG.cmr": ("virt/tdx: CMR: [0x{a:x}, 0x{b:x})", "convertible memory"),
    "LOG.pamt": ("virt/tdx: {n} KB allocated for PAMT", "{n} KB"),
    "LOG.initialized": ("virt/tdx: module initialized", "the module is up"),
    "LOG.keyids": ("virt/tdx: BIOS enabled: private KeyID range [32, 64)", "[32, 64)"),
    "LOG.few_keyids": ("virt/tdx: initialization failed: too few private KeyIDs available.", "not enough"),
    "LOG.hibernation": ("virt/tdx: initialization failed: Hibernation support is enabled", "nohibernate"),
    "LOG.not_loaded": ("virt/tdx: module not loaded", "VMfailInvalid"),
    "LOG.module_info": ("virt/tdx: TDX module: attributes 0x0, vendor_id 0x8086, major_version 1, minor_version 5, "
                        "build_date 20240725, build_num 784", "1.5.08"),
    "LOG.module_version": ("virt/tdx: TDX module version: 1.5.24", "1.5.24"),
    "LOG.tme_off": ("x86/tme: not enabled by BIOS", "no KeyIDs"),
    "LOG.mktme_keyids": ("x86/mktme: 127 KeyIDs available", "127"),
    "LOG.not_vmx": ("tdx: SEAMCALL failed: CPU 14 is not in VMX operation.", "VMXON"),
    "LOG.additional_output": ("tdx: additional output: rcx 0x0, rdx 0x0, r8 0x0, r9 0x0, r10 0x0, r11 0x0.",
                              "register"),
    "LOG.required_kernel": ("virt/tdx: MOVDIR64B is required for TDX", "MOVDIR64B"),
    "LOG.selfsnoop": ("virt/tdx: Self-snoop is required for TDX", "self-snoop"),
    "LOG.no_host_platform": ("virt/tdx: TDX not supported by the host platform", "processor without TDX"),
    "LOG.rbp": ("virt/tdx: frame pointer (RBP) clobber bug present, upgrade TDX module", "too old"),
    "LOG.td_ioctl": ("qemu-system-x86_64: KVM_TDX_INIT_VM failed: Invalid argument", "one TD"),
    "LOG.vm_type": ("qemu-system-x86_64: -accel kvm: vm-type X86_TDX_VM not supported by KVM", "kernel log"),
    "LOG.kvm_init": ("qemu-system-x86_64: -accel kvm: failed to initialize kvm: No such device", "KVM's own errno"),
    "LOG.seamldr_version": ("tdx: P-SEAMLDR: version 0x0, vendor_id: 0x8086, build_date: 20211209, build_num 160, "
                            "major 1, "
                            "minor 0", "P-SEAMLDR answers"),
    "LOG.seam_loading": ("seam: Loading TDX P-SEAMLDR intel-seam/np-seamldr.acm.", "NP-SEAMLDR"),
    "LOG.kvm_virt_at_load": ("kvm_intel: tdx: tdx requires kvm.enable_virt_at_load=1", "enable_virt_at_load"),
    "LOG.report_seamrr": ("SEAM_RR bit: 0 (expected value: 1)", "bit 11) was read as 0"),
    "LOG.report_keys": ("NUM_TDX_PRIV_KEYS: 20", "was read as 20, hexadecimal"),
    "LOG.report_tme": ("MK_TME_ENABLED bit: 1 (expected value: 1)", "0x982"),
    "LOG.report_mcheck": ("SGX_AND_MCHECK_STATUS: 0 (expected value: 0)", "0xA0"),
    "LOG.no_module": ("host: TDX module is not loaded.", "no TDX module"),
    "LOG.tdx_host_probe": ("tdx_host: probe of tdx_host failed with error -19", "no module that is up"),
    "LOG.linux": ("Linux version 6.8.0-1013-intel (buildd@lcy02-amd64-034) (gcc 13)", "6.8.0-1013-intel"),
    "LOG.init_failed_old": ("tdx: Failed to initialize TDX module. (-5)", "-EIO (-5)"),
    "LOG.rdmsr": ("rdmsr: CPU 3 cannot read MSR 0x00001401", "SEAMRR"),
}


@pytest.mark.parametrize("form", LINES)
@pytest.mark.parametrize("prefix", PREFIXES)
def test_FORMS__every_line_behind_every_prefix(form: str, prefix: str) -> None:
    rng = random.Random(form + prefix)
    numbers = {"a": rng.randrange(1, 1 << 20) << 20, "b": 1 << 44, "n": rng.randrange(1, 10**7)}
    line, expected = (text.format(**numbers) if "{" in text else text for text in LINES[form])
    (found,) = explain(prefix + line)
    assert found.form == form and expected in found.text()
    assert "SUCCESS" not in found.text() and not re.search(r"\bleaf \d", found.text())


def seamcall_lines() -> Iterator[tuple[str, int, int]]:
    """A failed SEAMCALL in every wording, with drawn leaves and statuses."""
    rng = random.Random(7)
    statuses = [s for s in ModuleStatus if int(s) >> 63]
    for leaf in module_leaves():
        status = int(rng.choice(statuses)) | rng.choice((0, 1, 0x981))
        cpu = rng.randrange(512)
        for text in (f"virt/tdx: SEAMCALL (0x{leaf:016x}) failed: 0x{status:016x}",
                     f"virt/tdx: SEAMCALL (0x{leaf:x}) failed: 0x{status:x}",
                     f"tdx: SEAMCALL failed: CPU {cpu}: leaf {leaf}, error 0x{status:x}.",
                     f"tdx: SEAMCALL failed: leaf {leaf}, error 0x{status:x}.",
                     f"{module_leaves()[leaf]} failed: 0x{status:x}",
                     f"{module_leaves()[leaf]} failed with status: 0x{status:x}",
                     f"{module_leaves()[leaf]}(0x{leaf:x}) failed: 0x{status:x}",
                     f"SEAMCALL_{module_leaves()[leaf].replace('.', '_')} failed, 0x{status:x}",
                     f"tdx: {module_leaves()[leaf]} returned 0x{status:x}",
                     f"kvm_intel: {module_leaves()[leaf].replace('.', '_')} failed: 0x{status:x}"):
            yield text, leaf, status
    for leaf in loader_leaves():
        status = int(rng.choice([s for s in LoaderStatus if s]))
        yield f"seamldr: SEAMCALL (0x{leaf:016x}) failed: 0x{status:016x}", leaf, status


def test_FORMS__every_wording_of_a_failed_SEAMCALL() -> None:
    for text, leaf, status in seamcall_lines():
        head, own = explain(f"[   14.0000{leaf & 0xFF:02}] {text}")
        assert f"0x{status:016x}" in head.what and (module_leaves() | loader_leaves())[leaf] in head.what, text
        name = LoaderStatus(status).name if leaf >> 63 else ModuleStatus(status >> 32 << 32).name
        assert name in own.what and "no status" not in own.what, text
        cpu = re.search(r"CPU (\d+)", text)
        assert cpu is None or f"on CPU {cpu[1]} " in head.what


@pytest.mark.parametrize("form", FORMS, ids=lambda f: f.id)
def test_FORMS__every_form_says_who_and_what(form: object) -> None:
    from seamref.diagnose.lines import LineForm

    assert isinstance(form, LineForm) and form.what and form.who and form.source
    assert form.kind is not Kind.CAUSE or form.causes or form.advice or form.link is None or "before" in form.what or (
        form.what.endswith(("failed", "hotplug ({errno})"))), form.id


# --- arbitrary text ---------------------------------------------------------------------------------------------

WORDS = st.sampled_from([
    "virt/tdx:", "tdx:", "SEAMCALL", "(0x22)", "failed:", "failed", "leaf", "error", "CPU", "7:", "34", "0x22", "-5",
    "(-28)",
    "0xc000050500000000", "c000010000000001", "0x8000000000020000", "RAX:", "TDH.SYS.RD", "EBADSIG", "module", "2021",
    "initialization", "KB", "TDX_SYS_BUSY", "[", "0.000000]", "status", "0xffffffff82000000", "RCX", "kvm_intel:",
    "status:"])
TEXT = st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=10).map(" ".join),
                 st.from_regex(r"\[ *[0-9]{1,5}\.[0-9]{6}\] [a-z/]{1,8}: [ -~]{0,60}", fullmatch=True))
STATUS_NAME = re.compile(r"\b(?:TDX?_[A-Z][A-Z0-9_]+|" + "|".join(s.name for s in LoaderStatus) + r")\b")


def states(text: str, value: int) -> bool:
    """Whether a text has the digits of a number, in either base."""
    low = text.lower().replace("_", "")
    return f"{value:x}" in low or str(value) in low


def named_in(text: str, said: Explanation) -> None:
    """Every status and leaf of a reading's first sentence is in the text, as a number or as a name."""
    upper = text.upper().replace("_", ".")
    claims = said.what.split(": read")[0]
    for stated in said.stated:
        names = {module_leaves().get(stated.value & 0xFFFF), loader_leaves().get(stated.value)} - {None}
        names |= {s.name for s in (*LoaderStatus, *ModuleStatus) if int(s) == stated.value}
        short = {n.removeprefix("TDX_") for n in names if n}
        assert stated.value < 0 or states(text, stated.value) or any(
            str(n).upper().replace("_", ".") in upper for n in names | short), (said.what, stated)
    for word in re.findall(r"0x([0-9A-Fa-f]{9,16})", claims):
        number = int(word, 16)
        names = {s.name for s in (*LoaderStatus, *ModuleStatus) if int(s) == number}  # the text may have the name alone
        if STATUS_NAME.search(claims):
            names |= set(STATUS_NAME.findall(claims))
        assert states(text, number) or any(
            name.upper().replace("_", ".") in upper or name.removeprefix("TDX_").replace("_", ".") in upper
            for name in names), said.what


@settings(max_examples=1500, deadline=None)
@given(TEXT)
@example("TDH.SYS.RD failed:TDX_SYS_BUSY")
def test_explain__never_claims_what_the_text_does_not_state(text: str) -> None:
    try:
        readings = explain(text)
    except SeamrefError:
        return
    for said in readings:
        named_in(text, said)


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400))
def test_explain__binary_garbage_is_read_without_a_traceback(data: bytes) -> None:
    explain_log(data.decode("utf-8", "replace").split("\n"))


@settings(max_examples=200, deadline=None)
@given(st.lists(TEXT, max_size=12))
def test_doctor__any_text_has_a_diagnosis_and_none_is_well_without_a_module(lines: list[str]) -> None:
    from seamref.diagnose.doctor import diagnose
    from seamref.diagnose.evidence import gather

    found = diagnose(gather(lines))
    assert found.text() and found.to_json()["links"]
    assert not found.well or any("initialized" in line.lower() or "Y" in line for line in lines)


@pytest.mark.parametrize("prefix", PREFIXES)
def test_strip_prefix__leaves_the_message(prefix: str) -> None:
    message = "virt/tdx: module not loaded"
    assert strip_prefix(prefix + message) == message and match_form(message) is not None


# --- bounds -----------------------------------------------------------------------------------------------------


def _run(source: Path, limit: int) -> tuple[subprocess.CompletedProcess[str], float]:
    code = (f"import resource, sys; resource.setrlimit(resource.RLIMIT_AS, ({limit}, {limit})); "
            "from seamref.cli import main; sys.exit(main(['explain', sys.argv[1]]))")
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, "-c", code, str(source)], capture_output=True, text=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, after.ru_utime - before.ru_utime  # not the clock: other work may share the machine


@pytest.mark.parametrize("kind", ["other", "distinct", "one line", "nul"])
def test_explain__large_input_is_bounded(kind: str, tmp_path: Path) -> None:
    """A twentieth of the bounds that are promised: 100 MB in 60 s and 200 MB."""
    source = tmp_path / "log"
    size = 5_000_000
    match kind:
        case "other":
            data = b"[    1.000000] usb 1-1: new high-speed USB device number 2 using xhci_hcd\n" * (size // 76)
        case "distinct":
            data = b"".join(b"[    1.000000] virt/tdx: unheard of %d %x\n" % (n, n * n) for n in range(size // 50))
        case "one line":
            data = b"virt/tdx: " + b"a" * size
        case _:
            data = b"\0" * size
    source.write_bytes(data + b"\nvirt/tdx: module not loaded\n")
    done, seconds = _run(source, 400 << 20)
    assert done.returncode in (0, 1) and "Traceback" not in done.stderr, done.stderr[-300:]
    assert seconds < 12 and ("VMfailInvalid" in done.stdout or kind == "distinct")
