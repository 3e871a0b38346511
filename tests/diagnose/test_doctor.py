"""doctor: whole logs in the form of public ones, each with its first cause; the same with other prefixes and noise."""

from __future__ import annotations

import json
import random
import re
from importlib import import_module
from pathlib import Path

import pytest

from seamref.cli import main
from seamref.diagnose.collect import collect, scrub
from seamref.diagnose.doctor import ORDER, Diagnosis, Verdict, diagnose
from seamref.diagnose.evidence import Evidence, gather
from seamref.diagnose.lines import Link
from seamref.diagnose.machine import run_mcheck, run_partitioning, run_seamcall
from seamref.spec import CLAUSES

import_module("seamref.host.machine")  # declares the clauses of the host

LOGS = Path(__file__).parent / "logs"
EXPECTED: dict[str, tuple[Link, str] | None] = {
    "good_6_8": None, "good_merged": None, "good_6_19_report": None, "good_5_10_seam": None, "good_5_19": None,
    "two_boots_second_good": None,
    "bios_tme_off": (Link.BIOS, "EVIDENCE.tme"), "bios_no_keyids_merged": (Link.BIOS, "LOG.no_host_platform"),
    "bios_few_keyids": (Link.BIOS, "LOG.few_keyids"), "bios_kvm_no_keyids_6_16": (Link.BIOS, "LOG.no_keyids"),
    "bios_split_zero": (Link.BIOS, "EVIDENCE.keyids"), "vm_not_bare_metal": (Link.BIOS, "EVIDENCE.virtual"),
    "cpuid_vm_decoded": (Link.BIOS, "EVIDENCE.virtual"), "cpuid_inside_td": (Link.BIOS, "EVIDENCE.virtual"),
    "cpuid_no_tme_raw": (Link.BIOS, "EVIDENCE.no_feature"), "cpuid_module_demand": (Link.MODULE, "CALL.cpuid"),
    "mcheck_error": (Link.MCHECK, "EVIDENCE.mcheck"),
    "seamrr_gp_6_5": (Link.SEAMRR, "LOG.not_enabled"), "seamrr_firmware_bug": (Link.SEAMRR, "LOG.not_enabled"),
    "seamrr_silent_msr": (Link.SEAMRR, "EVIDENCE.seamrr"),
    "pseamldr_not_loaded_5_19": (Link.P_SEAMLDR, "LOG.no_seamldr"),
    "module_not_loaded": (Link.MODULE, "LOG.not_loaded"), "module_too_old": (Link.MODULE, "CALL.too_old"),
    "module_too_old_no_version": (Link.MODULE, "CALL.too_old"), "module_rbp": (Link.MODULE, "LOG.rbp"),
    "module_older_than_kernel_field": (Link.MODULE, "CALL.field"), "module_refuses_cpuid": (Link.MODULE, "CALL.cpuid"),
    "module_refuses_tsx_ctrl": (Link.MODULE, "CALL.msr_os"), "journal_prefix": (Link.MODULE, "CALL.msr_bios"),
    "module_lp_init_inconsistent": (Link.MODULE, "CALL.msr_differs"),
    "module_init_twice_kexec": (Link.MODULE, "CALL.init_twice"),
    "kernel_reserved_areas": (Link.KERNEL, "LOG.reserved"), "kernel_hibernation": (Link.KERNEL, "LOG.hibernation"),
    "kernel_pamt_memory": (Link.KERNEL, "LOG.init_failed"), "kernel_tdmrs": (Link.KERNEL, "LOG.tdmrs"),
    "kernel_config_refused": (Link.KERNEL, "CALL.memory"),
    "kvm_option_missing": (Link.KVM, "EVIDENCE.cmdline"), "kvm_param_N": (Link.KVM, "EVIDENCE.kvm_param"),
    "kvm_virt_at_load": (Link.KVM, "LOG.kvm_virt_at_load"), "kvm_td_cpuid": (Link.KVM, "CALL.cpuid_config"),
    "update_badsig": (Link.UPDATE, "CALL.install"), "update_handoff": (Link.UPDATE, "CALL.update"),
    "update_offline_cpu": (Link.UPDATE, "LOG.not_loaded"),
}
"""Log -> link and form of the first cause; None: all is well."""
NOISE = ("usb 3-3: new high-speed USB device number 34 using xhci_hcd",
         "EXT4-fs (dm-0): mounted filesystem 0c000000-22",
         "kvm: Nested Virtualization enabled", "perf: interrupt took too long (2512 > 2500)",
         "x86/fpu: Supporting XSAVE",
         "nvme nvme0: 128/0/0 default/read/poll queues", "ACPI: 16 ACPI AML tables successfully acquired and loaded")


def read(name: str) -> list[str]:
    return (LOGS / f"{name}.log").read_text(encoding="utf-8").splitlines()


def judge(lines: list[str]) -> Diagnosis:
    return diagnose(gather(lines))


def check(name: str, found: Diagnosis) -> None:
    expected = EXPECTED[name]
    if expected is None:
        assert found.well and found.first is None and found.sentence.startswith("all is well"), found.text()
        return
    assert found.first is not None, found.text()
    assert (found.first.link, found.first.form) == expected, found.text()
    assert found.first.why and found.first.now and found.first.by and not found.well
    at = [f.link for f in found.findings].index(found.first.link)
    assert all(f.verdict is not Verdict.WRONG for f in found.findings[at + 1 :])
    assert found.first.by not in found.consequences


def test_logs__there_are_at_least_25_and_each_has_an_expectation() -> None:
    names = {path.stem for path in LOGS.glob("*.log")}
    assert names == set(EXPECTED) | {"not_shown"} and len(names) >= 25


@pytest.mark.parametrize("name", EXPECTED)
def test_doctor__the_first_cause_of_every_log(name: str) -> None:
    found = judge(read(name))
    check(name, found)
    assert tuple(f.link for f in found.findings) == ORDER[: len(found.findings)]
    for finding in found.findings:
        assert set(finding.clauses) <= set(CLAUSES), finding


def _prefixed(line: str, style: str, n: int) -> str:
    found = re.match(r"\[ *(\d+)\.(\d+)\] (.*)", line)
    if found is None:
        return line
    second, text = int(found[1]) % 60, found[3]
    return {"journal": f"Jul {1 + n % 9:02} 09:10:{second:02} host-{n % 7} kernel: {text}",
            "iso": f"2025-07-08T09:10:{second:02}.000001+02:00 host kernel: {text}",
            "date": f"[Tue Jul  8 09:10:{second:02} 2025] {text}", "level": f"<{n % 8}>[{second:5}.000034] {text}",
            "facility": f"kern  :warn  : [{second:5}.000034] {text}", "bare": text, "quoted": f"> {line}"}[style]


@pytest.mark.parametrize("style", ["journal", "iso", "date", "level", "facility", "bare", "quoted"])
@pytest.mark.parametrize("name", EXPECTED)
def test_doctor__the_same_cause_behind_any_prefix_and_among_other_lines(name: str, style: str) -> None:
    rng = random.Random(name + style)
    lines = []
    for n, line in enumerate(read(name)):
        lines.append(_prefixed(line, style, n))
        if line.startswith("[") and rng.random() < 0.4:
            lines.append(_prefixed(f"[{n:5}.000034] {rng.choice(NOISE)}", style, n))
    if style == "quoted" and name == "good_merged":
        lines = read(name)
    check(name, judge(lines))


NUMBERS = {"0x0000000000000022) failed: 0xc000050500000000": "0x22) failed: 0xc000050500000000",
           "[32, 64)": "[1, 128)", "(-5)": "(-5)", "CPU 94": "CPU 3", "1050636 KB": "8396820 KB",
           "0x40000000, 0x80000000":
           "0x0, 0x80000000", "virt/tdx: SEAMCALL (0x0000000000000021) failed: 0x": "tdx: SEAMCALL failed: leaf 33, "
           "error 0x"}


@pytest.mark.parametrize("name", EXPECTED)
def test_doctor__the_same_cause_with_other_numbers_and_wordings(name: str) -> None:
    text = "\n".join(read(name))
    for old, new in NUMBERS.items():
        text = text.replace(old, new)
    check(name, judge(text.splitlines()))


def test_doctor__a_log_that_just_ends_is_not_known_and_says_what_to_ask() -> None:
    found = judge(read("not_shown"))
    assert not found.well and found.first is None and "rdmsr 0x1401" in found.sentence
    assert judge([]).sentence.startswith("not known") and not judge(["hello", "0x22", "-5"]).well


@pytest.mark.parametrize("line", ["[    0.000000] tdx: Guest detected", "Hypervisor vendor:                   KVM",
                                  "      hypervisor guest status                 = true", "flags : fpu hypervisor",
                                  "Memory Encryption Features active: Intel TDX"])
def test_doctor__a_virtual_machine_is_no_host(line: str) -> None:
    found = judge([line, "[    1.0] x86/tme: not enabled by BIOS"])
    assert found.first is not None and found.first.form == "EVIDENCE.virtual"


def test_read__what_never_ends_is_refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("seamref.diagnose.read.MOST", 1 << 20)
    for command in ("doctor", "explain"):
        assert main([command, "/dev/zero"]) == 2
        assert "which no log has" in capsys.readouterr().err


def test_doctor__several_files_add_up() -> None:
    evidence = Evidence()
    gather(read("not_shown"), evidence)
    gather(["# rdmsr -a -f 11:11 0x1401", "1", "1", "0", "1"], evidence)
    found = diagnose(evidence)
    assert found.first is not None and found.first.link is Link.SEAMRR, "one core without the range is enough"


@pytest.mark.parametrize(("lines", "address", "high", "low", "value"), [
    (["$ sudo rdmsr 0x1401 -f 11:11", "1"], 0x1401, 11, 11, 1), (["rdmsr -f 63:32 0x87", "20"], 0x87, 63, 32, 0x20),
    (["root@h:~# rdmsr -p 3 0x982", "1600000003"], 0x982, 35, 32, 6), (["rdmsr -x 0x982", "0x1600000003"], 0x982, 39,
                                                                       36, 1),
    (["rdmsr -u -f 63:32 0x87", "32"], 0x87, 63, 32, 32), (["rdmsr 0x1401: 3ffff8000c00"], 0x1401, 11, 10, 3),
    (["0x1401: 0x3ffff8000c00"], 0x1401, 11, 11, 1), (["MSR 0x1401 bit 11 (TDX enabled): 1"], 0x1401, 11, 11, 1),
    (["IA32_SEAMRR_PHYS_MASK = 3ffff8000c00"], 0x1401, 11, 11, 1), (["MSR 0x1400: 0x3ffe000008"], 0x1400, 3, 3, 1),
    (["- MSR 0x1401[11] = 0"], 0x1401, 11, 11, 0), (["NUM_TDX_PRIV_KEYS: 20"], 0x87, 63, 32, 0x20),
    (["0xa0: 0"], 0xA0, 63, 0, 0)])
def test_evidence__readings_in_every_form(lines: list[str], address: int, high: int, low: int, value: int) -> None:
    found = gather(lines).bits(address, high, low)
    assert found is not None and found[0] == value


def test_evidence__no_value_without_a_question() -> None:
    for lines in (["1"], ["0x22: 1"], ["rdmsr 0x1401", "hello", "1"], ["rdmsr -f 11:11 0x1401", "2"], ["0x1401"],
                  ["IA32_NOTHING = 1"], ["cat /proc/cpuinfo", "1"]):
        assert gather(lines).msrs == [], lines


def test_machine__SEAMCALL_stops_where_the_registers_say() -> None:
    assert run_seamcall(False).clause == "SEAMCALL.seamrr" and run_seamcall(False).stopped
    assert not run_seamcall(True).stopped
    assert run_mcheck(0x3FFE000008, 0x3FFFFE000400, 1) is not None
    unlocked = run_mcheck(0x3FF8000008, 0x3FFFF8000000, 1)
    assert unlocked is not None and unlocked.clause == "MCHECK.lock"
    assert run_mcheck(0, 0, None) is None


@pytest.mark.parametrize(("value", "expected"), [
    (0x1600000003, (31, 32)), (0x6600000003, (0, 63)), (0x600000003, (63, 0)), (0x7600000003, None), (0, (0, 0))])
def test_machine__KeyIDs_follow_from_IA32_TME_ACTIVATE(value: int, expected: tuple[int, int] | None) -> None:
    assert run_partitioning(value) == expected


def test_doctor__readings_that_contradict_each_other_are_told() -> None:
    found = judge(["rdmsr 0x982", "1600000003", "rdmsr 0x87", "3f00000000"])
    assert any("do not belong together" in note for note in found.findings[0].notes)
    wrong = judge(["rdmsr 0x982", "7600000003"])
    assert wrong.first is not None and wrong.first.clauses == ("WRMSR.tme_value",)


def test_doctor_command__exit_codes_json_and_images(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    from seamref.host.machine import blob

    assert main(["doctor", str(LOGS / "good_6_8.log")]) == 0
    assert "all is well" in capsys.readouterr().out
    image = tmp_path / "x.blob"
    image.write_bytes(blob("1.5.16"))
    assert main(["doctor", "--json", str(LOGS / "module_too_old.log"), str(image)]) == 1
    said = json.loads(capsys.readouterr().out)
    assert said["format"] == "seamref-doctor/1" and said["first"]["form"] == "CALL.too_old"
    assert said["consequences"] == ["virt/tdx: module initialization failed (-5)",
                                    "kvm_intel: Failed to initialize TDX module."]
    assert any("x.blob" in note for note in said["notes"])
    assert main(["doctor", str(tmp_path / "none")]) == 2


def _tree(root: Path) -> None:
    files = {
        "proc/sys/kernel/hostname": "secret-box\n", "proc/sys/kernel/osrelease": "6.8.0-1013-intel\n",
        "proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=6a84a5bb-9267-4451-96ce-3975d9af10f6 kvm_intel.tdx=1 "
                        "hostname=secret-box ip=10.1.2.3\n",
        "proc/cpuinfo": "processor\t: 0\nmodel name\t: INTEL(R) XEON(R) GOLD 6530\nflags\t\t: fpu vmx "
        "tdx_host_platform\n",
        "proc/modules": "kvm_intel 417792 0 - Live 0x0\nkvm 1 1 kvm_intel, Live 0x0\n",
        "sys/module/kvm_intel/parameters/tdx": "Y\n",
        "dev/kmsg": "6,1,1810945,-;virt/tdx: BIOS enabled: private KeyID range [32, 64)\n SUBSYSTEM=x\n"
                    "6,2,1910945,-;usb 1-1: SerialNumber: 12345\n"
                    "6,3,2910945,-;virt/tdx: module initialized on secret-box\n"
                    "6,4,3910945,-;virt/tdx: module initialized\n"}
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def test_collect__one_text_without_names_that_the_doctor_reads(tmp_path: Path) -> None:
    _tree(tmp_path)
    bundle = list(collect(tmp_path))
    text = "\n".join(bundle)
    for private in ("secret-box", "6a84a5bb", "10.1.2.3", "12345"):
        assert private not in text, text
    assert "kvm_intel.tdx=1" in text
    found = judge(bundle)
    assert found.well and next(f for f in found.findings if f.link is Link.KVM).by.endswith("Y")
    assert list(collect(tmp_path / "nothing")) == [bundle[0]], "what cannot be read is left out"
    assert scrub("Service Tag: 4J18R24") == "Service Tag REMOVED"


def test_doctor_command__collect(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    out = tmp_path / "bundle.txt"
    assert main(["doctor", "--collect", str(out)]) == 0 and out.read_text().startswith("# what this machine says")
    assert main(["doctor", "--collect", str(out), "x"]) == 2
    capsys.readouterr()
    assert main(["doctor"]) in (0, 1) and "BIOS" in capsys.readouterr().out
