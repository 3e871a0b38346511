"""Everything one has, in one paste or several files, sorted: log lines, MSR readings, CPU flags, parameters, values.

Nothing is guessed: a value counts as an MSR's only behind the rdmsr command that asked for it, behind the register's
number or name, or in a line of a report whose wording is known; CPUID as the cpuid tool prints it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from seamref.diagnose.cpuid import CpuidReader, CpuidReading
from seamref.diagnose.explain import Answer, LogReport, explain_log
from seamref.diagnose.lines import MAX_LINE, strip_prefix
from seamref.diagnose.msrs import msr_line

MAX_READINGS = 4096
M64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class MsrReading:
    """A value that was read: which bits of it are known (``mask``), on which CPU, by which line."""

    address: int
    value: int
    mask: int
    cpu: int | None
    line: str

    def bits(self, high: int, low: int) -> int | None:
        """A field; ``None`` when some of it was not read."""
        wanted = (1 << (high - low + 1)) - 1 << low
        return None if wanted & ~self.mask else (self.value & wanted) >> low


@dataclass(slots=True)
class Evidence:
    """What was given.  ``boots`` how often a kernel started in the log; only the last is kept."""

    log: LogReport = field(default_factory=LogReport)
    msrs: list[MsrReading] = field(default_factory=list)
    cpuid: list[CpuidReading] = field(default_factory=list)
    unreadable: dict[int, str] = field(default_factory=dict)
    cmdline: str = ""
    cmdline_line: str = ""
    flags: frozenset[str] = frozenset()
    bugs: frozenset[str] = frozenset()
    model: str = ""
    kvm_tdx: tuple[str, str] | None = None
    values: dict[str, tuple[str, str]] = field(default_factory=dict)
    modules: set[str] = field(default_factory=set)
    saw_lsmod: bool = False
    virtual: str = ""
    kernel: str = ""
    boots: int = 0
    images: list[str] = field(default_factory=list)
    lines: int = 0

    def msr(self, address: int) -> list[MsrReading]:
        """All readings of one register."""
        return [r for r in self.msrs if r.address == address]

    def bits(self, address: int, high: int, low: int) -> tuple[int, str] | None:
        """A field's value and the line that shows it; of several processors the lowest value, which is the worst."""
        found = [(value, r.line) for r in self.msr(address) if (value := r.bits(high, low)) is not None]
        return min(found, default=None)

    def cpuid_bits(self, leaf: int, subleaf: int, register: str, high: int, low: int) -> tuple[int, str] | None:
        """A field of a CPUID register and the line that shows it; of several processors the lowest value."""
        found = [(value, r.line) for r in self.cpuid if (r.leaf, r.subleaf) == (leaf, subleaf)
                 and (value := r.bits(register, high, low)) is not None]
        return min(found, default=None)

    def whole(self, address: int) -> MsrReading | None:
        """A reading of the whole register."""
        return next((r for r in self.msr(address) if r.mask == M64), None)

    @property
    def answers(self) -> list[Answer]:
        """Log lines with their meaning."""
        return self.log.answers


# --- patterns ---------------------------------------------------------------------------------------------------

_RDMSR = re.compile(r"^(?:[\w.@:~/-]*[$#>%] ?)?(?:sudo )?rdmsr((?: +-[a-zA-Z0-9]+(?: *\d{1,2}:\d{1,2})?| +\d{1,4}(?= "
                    r"+(?:-|0x))|"
                    r" +0x[0-9a-fA-F]{1,8})+)(?:\s*(?:[:=]|->|=>)\s*(\S+))?\s*$")
_ADDRESS = re.compile(r"(?<![\w:])0x([0-9a-fA-F]{1,8})\b")
_FIELD = re.compile(r"(?:-f *)(\d{1,2}):(\d{1,2})")
_CPU = re.compile(r"-p *(\d{1,4})")
_VALUE = re.compile(r"^(?:0x)?([0-9a-fA-F]{1,16})$")
_REPORT: tuple[tuple[re.Pattern[str], int, int, int], ...] = tuple(
    (re.compile(rf"^{name}(?: bit)?:\s*(?:0x)?([0-9a-fA-F]{{1,16}})\b", re.IGNORECASE), address, high, low)
    for name, address, high, low in (
        ("(?:MK_TME_ENABLED?|HW_ENCRYPT_ENABLE)", 0x982, 1, 1), ("(?:SEAM_RR|TDX_STATUS)", 0x1401, 11, 11),
        ("(?:- )?SEAMRR lock", 0x1401, 10, 10),
        ("NUM_TDX_PRIV_KEYS", 0x87, 63, 32), ("SGX_AND_MCHECK_STATUS", 0xA0, 63, 0)))
"""Lines of canonical/tdx's system-report: register and field that each one shows, as rdmsr prints it."""
_NO_MSR = re.compile(r"^rdmsr: CPU \d+ cannot read MSR 0x([0-9a-fA-F]+)")
_CMDLINE = re.compile(r"^(?:Kernel command line|Command line): (.*)$|^(BOOT_IMAGE=.*)$")
_VERSION = re.compile(r"^Linux version (\S+)")
_FLAGS = re.compile(r"^\s*(?:flags|Flags)\s*:\s*(.+)$")
_BUGS = re.compile(r"^\s*bugs\s*:\s*(.*)$")
_MODEL = re.compile(r"^\s*(?:model name|Model name)\s*:\s*(.+)$")
_KVM_TDX = re.compile(r"^(?:\S*/)?(?:kvm_intel/parameters/tdx|kvm_intel\.tdx)\s*[:=]?\s*([YN01])\s*$")
_CAT = re.compile(r"^(?:[\w.@:~/-]*[$#>%] ?)?(?:sudo )?cat (\S+)\s*$")
_HEADER = re.compile(r"^(?:==> (\S+) <==|### (\S+))\s*$")
_PATHS = re.compile(r"(?:^|/)(kvm_intel/parameters/tdx|seamldr_version|num_remaining_updates|tdx_host/version|cmdline|"
                    r"tdx_module/error|tdx_module/status|firmware/tdx_module)$")
_GREP = re.compile(r"^(?:\S*/)?(seamldr_version|num_remaining_updates|tdx_host/version|tdx_module/error|"
                   r"tdx_module/status): ?(.*)$")
_LSMOD = re.compile(r"^(kvm_intel|kvm|tdx_host|msr|tdx_guest)\s+\d+\s+-?\d+")
_VIRTUAL = re.compile(r"^(?:Hypervisor detected: (\w+)|Hypervisor vendor: +(\w+)|systemd-detect-virt: (\w+)|"
                      r"\s*(hypervisor) guest status\s*=\s*true)")


class _Reader:
    """Takes one line after another, sorts what is evidence, hands all of them on to the log."""

    def __init__(self, evidence: Evidence) -> None:
        self.e = evidence
        self.asked: tuple[int, int, int, int | None, str] | None = None
        self.decimal = False
        self.file = ""
        self.cpuid = CpuidReader()

    def lines(self, lines: Iterable[str]) -> Iterator[str]:
        """Pass lines through."""
        for line in lines:
            self.e.lines += 1
            text = strip_prefix(line[:MAX_LINE])
            if text:
                self.take(text, line)
            yield line

    def take(self, text: str, line: str) -> None:
        """Sort one line."""
        if self._values(text):
            return
        self.asked = None
        if (found := _RDMSR.match(text)) is not None:
            self._command(found, text)
        elif (found := _CAT.match(text)) is not None:
            self.file = found[1]
            return
        elif (found := _HEADER.match(text)) is not None:
            self.file = found[1] or found[2]
            return
        elif self._report(text) or self._msr_line(text) or self._cpuid_line(text):
            pass
        elif (found := _NO_MSR.match(text)) is not None:
            self.e.unreadable.setdefault(int(found[1], 16), text)
        else:
            self._other(text)
        self.file = ""

    def _command(self, found: re.Match[str], text: str) -> None:
        options = found[1]
        address = _ADDRESS.search(options)
        if address is None:
            return
        bits, cpu = _FIELD.search(options), _CPU.search(options)
        high, low = (int(bits[1]), int(bits[2])) if bits else (63, 0)
        if not 63 >= high >= low:
            return
        self.decimal = bool(re.search(r" -[a-zA-Z0-9]*[du]\b", options))
        self.asked = (int(address[1], 16), high, low, None if cpu is None else int(cpu[1]), text)
        if found[2] is not None:
            self._values(found[2])

    def _values(self, text: str) -> bool:
        """A line that is only a value, behind an rdmsr or a cat."""
        if self.asked is not None and (found := _VALUE.match(text)) is not None:
            address, high, low, cpu, line = self.asked
            base = 10 if self.decimal and found[1].isdigit() else 16
            self._add(address, int(found[1], base), high, low, cpu, f"{line} -> {text}")
            return True
        if self.file and (path := _PATHS.search(self.file)) is not None:
            self._value(path[1], text, f"{self.file}: {text}")
            self.file = ""
            return True
        return False

    def _value(self, name: str, text: str, line: str) -> None:
        if name == "cmdline":
            self._command_line(text, line)
        elif name == "kvm_intel/parameters/tdx":
            self.e.kvm_tdx = (text.strip(), line)
        else:
            self.e.values[name] = (text.strip(), line)

    def _add(self, address: int, value: int, high: int, low: int, cpu: int | None, line: str) -> None:
        width = high - low + 1
        if value >> width or len(self.e.msrs) >= MAX_READINGS:
            return
        self.e.msrs.append(MsrReading(address, value << low, (1 << width) - 1 << low, cpu, line[:160]))

    def _report(self, text: str) -> bool:
        for pattern, address, high, low in _REPORT:
            if (found := pattern.match(text)) is not None:
                self._add(address, int(found[1], 16), high, low, None, text)
                return True
        return False

    def _msr_line(self, text: str) -> bool:
        found = msr_line(text)
        if found is None:
            return False
        self._add(found.address, found.value, found.high, found.low, None, text)
        return True

    def _cpuid_line(self, text: str) -> bool:
        found = self.cpuid.line(text)
        self.e.cpuid += found[: MAX_READINGS - len(self.e.cpuid)]
        return bool(found)

    def _command_line(self, text: str, line: str) -> None:
        self.e.cmdline, self.e.cmdline_line = text, line[:200]

    def _other(self, text: str) -> None:
        e = self.e
        if (found := _CMDLINE.match(text)) is not None:
            self._command_line(found[1] or found[2], text)
        elif (found := _VERSION.match(text)) is not None:
            e.kernel = found[1][:64]
        elif (found := _FLAGS.match(text)) is not None:
            e.flags |= frozenset(found[1].split())
        elif (found := _BUGS.match(text)) is not None:
            e.bugs |= frozenset(found[1].split())
        elif (found := _MODEL.match(text)) is not None:
            e.model = found[1][:80]
        elif (found := _KVM_TDX.match(text)) is not None:
            e.kvm_tdx = (found[1], text)
        elif (found := _GREP.match(text)) is not None:
            e.values[found[1]] = (found[2].strip(), text)
        elif (found := _LSMOD.match(text)) is not None:
            e.modules.add(found[1])
        elif text.startswith("Module ") and "Used by" in text:
            e.saw_lsmod = True
        elif (found := _VIRTUAL.match(text)) is not None:
            e.virtual = next(filter(None, found.groups()))


def gather(lines: Iterable[str], evidence: Evidence | None = None) -> Evidence:
    """Read one text; readings add up, and of the log the last boot counts."""
    e = evidence or Evidence()
    report = explain_log(_Reader(e).lines(lines), everything=False, last_boot=True)
    e.boots += report.boots
    report.answers = [*e.log.answers, *report.answers]
    e.log = report
    return e
