"""What this machine says of itself, read-only: one plain text that the doctor reads here or elsewhere.

Nothing is written and nothing needs to be: what cannot be read without root is left out and counts as not shown.  Host
name, UUIDs, MAC and IP addresses are taken out; serial numbers (MSR_PPIN, DMI) are not read at all.
"""

from __future__ import annotations

import os
import re
import struct
from collections.abc import Iterator
from pathlib import Path

from seamref.diagnose.cpuid import REGISTERS
from seamref.diagnose.lines import RELATED
from seamref.tdxmodule.demands import CPUID_DEMANDS, WHOLE

MSRS_READ = (0x87, 0x981, 0x982, 0x1400, 0x1401, 0xA0, 0xFE, 0x480, 0x500, 0x503)
CPUID_READ = tuple(dict.fromkeys([(1, 0), (0x21, 0), *(
    (demand.leaf, 0 if demand.subleaf == WHOLE else demand.subleaf) for demand in CPUID_DEMANDS)]))
"""Leaves and subleaves: what the doctor reads, and what TDH.SYS.INIT has demands on."""
FILES = ("/sys/module/kvm_intel/parameters/tdx", "/sys/devices/faux/tdx_host/version",
         "/sys/devices/faux/tdx_host/seamldr_version", "/sys/devices/faux/tdx_host/num_remaining_updates",
         "/sys/class/firmware/tdx_module/status", "/sys/class/firmware/tdx_module/error")
CPUINFO = ("model name", "flags", "bugs")
MODULES = ("kvm", "kvm_intel", "tdx_host", "msr")
MAX_KMSG = 16 << 20
_PRIVATE = (
    (re.compile(r"\b[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}\b"), "UUID"),
    (re.compile(r"\b(?:[0-9a-fA-F]{2}:){5}[0-9a-fA-F]{2}\b"), "MAC"),
    (re.compile(r"\b(?:\d{1,3}\.){3}\d{1,3}(?=\b(?!\.\d))(?=[:/ ]|$)"), "ADDRESS"),
    (re.compile(r"(?i)\b(serial(?: number)?|service tag|asset tag|ppin)\b[:= ]+\S+"), r"\1 REMOVED"),
    (re.compile(r"(?i)\b(ip|nfsroot|hostname|systemd\.hostname|rd\.luks\.\w+|root|resume|cryptdevice)=\S+"),
     r"\1=REMOVED"),
)


def scrub(text: str, host: str = "") -> str:
    """A line without what names this machine or its owner."""
    for pattern, instead in _PRIVATE:
        text = pattern.sub(instead, text)
    return re.sub(rf"\b{re.escape(host)}\b", "HOST", text) if len(host) > 2 else text


def collect(root: Path = Path("/")) -> Iterator[str]:
    """Lines of the bundle.  ``root``: another tree, for tests."""
    host = _read(root / "proc/sys/kernel/hostname").strip()
    yield "# what this machine says of TDX; host name, UUIDs and addresses taken out"
    release = _read(root / "proc/sys/kernel/osrelease").strip()
    if release:
        yield f"Linux version {scrub(release, host)}"
    cmdline = _read(root / "proc/cmdline").strip()
    if cmdline:
        yield f"Kernel command line: {scrub(cmdline, host)}"
    seen: set[str] = set()
    for line in _read(root / "proc/cpuinfo").splitlines():
        name = line.partition(":")[0].strip()
        if name in CPUINFO and name not in seen:
            seen.add(name)
            yield line.replace("\t", " ")
    modules = [line.split()[:3] for line in _read(root / "proc/modules").splitlines()]
    if modules:
        yield "Module                  Size  Used by"
        yield from (" ".join(words) for words in modules if words and words[0] in MODULES)
    for path in FILES:
        held = _read(root / path.lstrip("/")).strip()
        if held:
            yield f"==> {path} <=="
            yield scrub(held.splitlines()[0], host)
    for leaf, subleaf in CPUID_READ:
        values = _cpuid(root / "dev/cpu/0/cpuid", leaf, subleaf)
        if values is not None:
            shown = " ".join(f"{name}=0x{value:08x}" for name, value in zip(REGISTERS, values, strict=True))
            yield f"0x{leaf:08x} 0x{subleaf:02x}: {shown}"
    for address in MSRS_READ:
        value = _msr(root / "dev/cpu/0/msr", address)
        if value is not None:
            yield f"rdmsr 0x{address:x}"
            yield f"{value:x}"
    for line in _kmsg(root / "dev/kmsg"):
        yield scrub(line, host)


def _read(path: Path) -> str:
    """A small file's text; "" when it is not there or may not be read."""
    try:
        with path.open("rb") as stream:
            return stream.read(1 << 20).decode("utf-8", "replace")
    except OSError:
        return ""


def _msr(path: Path, address: int) -> int | None:
    try:
        with path.open("rb", buffering=0) as stream:
            data = os.pread(stream.fileno(), 8, address)
    except OSError:
        return None
    return int.from_bytes(data, "little") if len(data) == 8 else None


def _cpuid(path: Path, leaf: int, subleaf: int) -> tuple[int, ...] | None:
    """Four registers from Linux's cpuid driver, whose file position is the leaf, and above bit 32 the subleaf."""
    try:
        with path.open("rb", buffering=0) as stream:
            data = os.pread(stream.fileno(), 16, leaf | subleaf << 32)
    except OSError:
        return None
    return struct.unpack("<4I", data) if len(data) == 16 else None


def _kmsg(path: Path) -> Iterator[str]:
    """The kernel log from /dev/kmsg: only lines that have to do with TDX, with their time."""
    try:
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
    except OSError:
        return
    total = 0
    try:
        while total < MAX_KMSG:
            try:
                record = os.read(handle, 8192)
            except BrokenPipeError:  # overwritten meanwhile: the next one follows
                continue
            except OSError:
                return
            if not record:
                return
            total += len(record)
            yield from _records(record)
    finally:
        os.close(handle)


def _records(data: bytes) -> Iterator[str]:
    for record in data.split(b"\n"):
        head, _, message = record.partition(b";")
        fields = head.split(b",")
        if len(fields) < 3 or not message or not RELATED.search(message):
            continue
        micro = int(fields[2]) if fields[2].isdigit() else 0
        yield f"[{micro // 10**6:5}.{micro % 10**6:06}] {message.decode('utf-8', 'replace')}"
