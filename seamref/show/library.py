"""The library's page: what each public name takes, gives and raises, in units, with its sources and a running example.

What a name is, its docstring says; what the docstring of code cannot hold without hiding the code, the parameters with
units, the errors and an example, stands here.  The tests hold both to the signatures, and run every example.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from inspect import Parameter, getdoc, isclass, signature
from typing import Any

import seamref
from seamref.show.html import Html, Id, paragraph, stack
from seamref.show.tables import table
from seamref.spec import CLAUSES

LP = "x2APIC id of the processor that executes it; `platform.lps` lists them"
PLATFORM = "the machine; it is changed"


@dataclass(frozen=True)
class Entry:
    """One public name.

    ``parameters``  name -> meaning with unit; ``gives`` the result; ``raises`` error -> when; ``example`` code that
    runs, and asserts what must come
    """

    name: str
    parameters: Mapping[str, str] = field(default_factory=dict)
    gives: str = ""
    raises: Mapping[str, str] = field(default_factory=dict)
    example: str = ""

    @property
    def thing(self) -> Any:
        """What the name stands for."""
        return getattr(seamref, self.name)

    @property
    def sources(self) -> tuple[str, ...]:
        """Ids of the clauses that it carries, each with its source."""
        return tuple(f"{id} ({CLAUSES[id].source})" for id in getattr(self.thing, "__clauses__", ()))


GROUPS: dict[str, tuple[Entry, ...]] = {
    "A platform": (
        Entry(
            "boot",
            {
                "topology": "a Topology; instead of it sockets and lps",
                "sockets": "packages, 1 to 8",
                "lps": "logical processors of each package",
                "module": "image of a TDX module (bytes), the name of a build, or True for a minted one; installed",
                "vmx": "whether every processor is left in VMX operation",
                "knobs": "config (PlatformConfig), revision (Revision), acm (bytes in flash), acm_key (384 bytes), "
                "setup, or fields of BIOS's Setup by name: seamrr_base, seamrr_size, p_seamldr_range_size, smrr_base, "
                "smrr_size (bytes), keyid_bits, tdx_keyid_bits (bits), lock, valid, configured, bios_done, mask, "
                "packages",
            },
            "a Platform on which P-SEAMLDR can be called",
            {
                "SeamrefError": "an argument that cannot be meant, by its name; a refused INSTALL, by status and row",
                "TopologyError": "processors that no platform has",
                "BootStopped": "the chain stopped; the message names step, status and deciding row",
            },
            """\
platform = seamref.boot(sockets=1, lps=4)
assert platform.P_SEAMLDR_READY and not platform.SEAM_READY
try:
    seamref.boot(keyid_bits=99)
except seamref.BootStopped as stopped:
    said = str(stopped)
assert said == "boot stopped at tme (BIOS): #GP(0) (WRMSR.tme_value)"
len(platform.lps), said""",
        ),
        Entry("BootStopped", raises={}, example=""),
        Entry("Topology"),
        Entry("PlatformConfig"),
        Entry(
            "Platform",
            {"config": "what is fixed by parts and board", "revision": "which reading of the documents it obeys"},
            "a machine before power-on; `fork()` copies it cheaply, `lp(id)` is one processor",
            {},
            """\
platform = seamref.boot()
fork = platform.fork()
assert isinstance(fork, seamref.Platform)
fork.lp(fork.lps[0]).rax = 1
assert platform.lp(platform.lps[0]).rax != 1
[str(platform.lp(id).mode.name) for id in platform.lps]""",
        ),
        Entry("Revision"),
        Entry("REVISIONS"),
        Entry(
            "get_revision",
            {"name": "of a document or measurement: silicon, SDM, 343754-002, 343754-001"},
            "the Revision",
            {"SeamrefError": "no such name; the message lists them"},
            """\
printed = seamref.get_revision("343754-002")
assert not printed.cpl_before_exit
sorted(seamref.REVISIONS)""",
        ),
    ),
    "Instructions": (
        Entry(
            "seamcall",
            {"platform": PLATFORM, "lp_id": LP},
            "Fault, VmExit, VmFailInvalid or Entered; `clause` names the deciding row",
            {"NotModelled": "a processor id that does not exist is a SeamrefError; what is not modelled is named"},
            """\
platform = seamref.boot()
lp = platform.lp(platform.lps[0])
lp.rax, lp.cpl = 1 << 63, 3
outcome = seamref.seamcall(platform, lp.id)
assert isinstance(outcome, seamref.Fault) and outcome.clause == "SEAMCALL.cpl"
str(outcome), outcome.clause""",
        ),
        Entry(
            "seamret",
            {"platform": PLATFORM, "lp_id": LP},
            "Fault, VmFailInvalid, VmFailValid, a VM-entry failure, or Left",
            {},
            """\
platform = seamref.boot()
outcome = seamref.seamret(platform, platform.lps[0])
assert outcome.clause == "SEAMRET.inSEAM"
str(outcome)""",
        ),
        Entry(
            "seamops",
            {"platform": PLATFORM, "lp_id": LP, "lock_prefix": "whether the instruction has a LOCK prefix"},
            "Fault or Done; RAX, RFLAGS and R10 to R15 of the processor hold the result",
            {},
            """\
platform = seamref.boot()
lp = platform.lp(platform.lps[0])
lp.rax = 1 << 63
assert isinstance(seamref.seamcall(platform, lp.id), seamref.Entered)
lp.rax = 0
assert isinstance(seamref.seamops(platform, lp.id), seamref.Done)
hex(lp.rax)""",
        ),
        Entry(
            "tdcall",
            {"platform": PLATFORM, "lp_id": LP},
            "Fault or VmExit",
            {},
            """\
platform = seamref.boot()
outcome = seamref.tdcall(platform, platform.lps[0])
assert outcome.clause == "TDCALL.non_root"
str(outcome)""",
        ),
        *(Entry(name) for name in ("Fault", "VmExit", "VmFailInvalid", "VmFailValid", "Entered", "Left", "Done")),
    ),
    "P-SEAMLDR": (
        Entry(
            "seamldr_call",
            {
                "platform": PLATFORM,
                "lp_id": LP,
                "leaf": "RAX: 0x8000000000000000 INFO, ...1 INSTALL, ...2 SHUTDOWN, ...3 SEAMINFO",
                "rcx": "RCX: physical address in bytes",
            },
            "a Called: `run` (how it ended), `rax`, `clause`",
            {},
            """\
platform = seamref.boot()
called = seamref.seamldr_call(platform, platform.lps[0], 0x8000000000000000, rcx=0x3000001)
assert called.rax == 0x8000000000000000  # EBADPARAM: the buffer is not aligned
str(called)""",
        ),
        Entry(
            "read_info",
            {"platform": PLATFORM, "lp_id": LP + "; None: the first", "at": "physical address of the buffer, in bytes"},
            "a record SEAMLDR_INFO with its fields by name",
            {"SeamrefError": "the call did not succeed; the message names the outcome and the row"},
            """\
info = seamref.read_info(seamref.boot())
assert (info.major, info.minor) == (1, 5)
info.num_remaining_updates""",
        ),
        Entry(
            "install",
            {
                "platform": PLATFORM,
                "image": "the module's ELF file, whole pages (bytes); None: a minted one",
                "sigstruct": "2048 bytes; None: one signed by the test key, which this machine's P-SEAMLDR trusts",
                "scenario": "of SEAMLDR_PARAMS: 0 LOAD, 1 UPDATE",
            },
            "nothing: it worked on every processor",
            {"SeamrefError": "a call did not succeed; the message names processor, status, RDX and the deciding row"},
            """\
platform = seamref.boot()
seamref.install(platform)
assert platform.SEAM_READY
try:
    seamref.install(platform, scenario=7)
except seamref.SeamrefError as refused:
    said = str(refused)
assert "EBADPARAM" in said and "INSTALL.params.scenario" in said
said""",
        ),
    ),
    "A kernel": (
        Entry(
            "machine",
            {
                "cpus": "logical processors",
                "sockets": "packages that they are on",
                "module": "the name of a build, or a TDX-BLOB of format 1.0 (bytes), that UEFI installs",
                "series": "which version of the Linux series",
                "keeps_vmcs": "IA32_VMX_BASIC[60]: SEAMRET keeps the VMM's current VMCS",
                "preempt_rt": "a kernel with PREEMPT_RT",
                "seed": "of the platform's entropy",
            },
            "a Host: a kernel with the module initialised and the tdx-host driver loaded",
            {"SeamrefError": "something on the way did not work; the message says what the kernel printed"},
            """\
host = seamref.machine(4)
assert host.state.module.initialized
host.state.dmesg[-1]""",
        ),
        Entry(
            "Terminal",
            {
                "host": "the kernel",
                "local": "file name -> bytes: the user's images",
                "root": "whose shell it is",
                "hold": "the upload's worker waits for `work`",
                "schedule": "which CPU takes the next step",
            },
            "a shell; `run` takes one command, `session` several",
            {},
            """\
shell = seamref.Terminal(seamref.machine(2))
answer = shell.run("cat /sys/devices/faux/tdx_host/version")
assert answer.strip() == "1.5.05"
answer.strip()""",
        ),
        Entry("Script"),
        Entry(
            "parse_rules",
            {
                "texts": "rules KEY=VALUE,...: cpu, leaf, rdx, nth, nth_to, outcome (completed, vmfailinvalid, fault, "
                "zf), rax, vector, out.REGISTER"
            },
            "Rules for a Script: what a SEAMCALL of the kernel does instead of entering SEAM",
            {"SeamrefError": "a rule that cannot be meant, by key and value"},
            """\
rules = seamref.parse_rules(["cpu=3,leaf=SEAMLDR.INSTALL,outcome=vmfailinvalid"])
assert len(rules) == 1
rules[0].cpu""",
        ),
    ),
    "Clauses and errors": (
        Entry("CLAUSES"),
        Entry("TABLES"),
        Entry("SeamrefError"),
        Entry("LayoutError"),
        Entry("TopologyError"),
        Entry("NotModelled"),
    ),
}
"""What is public, by what one wants to do."""

VALUES: dict[str, str] = {
    "REVISIONS": "Name -> Revision: the documents and the measurement that are implemented.",
    "CLAUSES": "Clause id -> Clause, with `says`, `source` and `mark`; of the rooms imported so far.",
    "TABLES": "Name -> check table, whose rows are the conditions in order; of the rooms imported so far.",
}
"""Public names that are no functions and no classes, in words."""

ENTRIES: dict[str, Entry] = {entry.name: entry for entries in GROUPS.values() for entry in entries}


def call_of(entry: Entry) -> str:
    """The name as one writes it: functions with their parameters, short defaults included."""
    if not callable(entry.thing) or (isclass(entry.thing) and issubclass(entry.thing, Exception)):
        return entry.name
    parts, star = [], False
    for parameter in signature(entry.thing).parameters.values():
        if parameter.kind is Parameter.KEYWORD_ONLY and not star:
            parts.append("*")
            star = True
        default = "" if parameter.default is Parameter.empty else repr(parameter.default)
        short = f"={default}" if default and len(default) <= 12 else "=..." if default else ""
        parts.append(("**" if parameter.kind is Parameter.VAR_KEYWORD else "") + parameter.name + short)
    if isclass(entry.thing) and len(parts) > 6:
        parts = [*parts[:3], "..."]
    return f"{entry.name}({', '.join(parts)})"


def words_of(entry: Entry) -> list[str]:
    """The docstring's paragraphs, as text with ``code`` in single backticks."""
    text = VALUES.get(entry.name) or getdoc(entry.thing) or ""
    text = re.sub(r":\w+:`~?([^`]+)`", r"`\1`", text).replace("``", "`")
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return parts[:1] if entry.name == "Revision" else parts


def documented(name: str) -> Html:
    """What a public name takes, gives and raises, and where that is said."""
    entry = ENTRIES[name]
    parts: list[Html | str] = [paragraph(f"`{call_of(entry)}`"), *(paragraph(text) for text in words_of(entry))]
    if entry.parameters:
        parts.append(table([(Id(key), said) for key, said in entry.parameters.items()], "parameter | meaning and unit"))
    elif is_dataclass(entry.thing) and isclass(entry.thing) and name != "Revision":
        parts.append(paragraph("Fields: " + ", ".join(f"`{f.name}`" for f in fields(entry.thing)) + "."))
    if entry.gives:
        parts.append(paragraph(f"Gives {entry.gives}."))
    if entry.raises:
        parts.append(table([(Id(key), said) for key, said in entry.raises.items()], "raises | when"))
    if entry.sources:
        parts.append(paragraph("Sources: " + "; ".join(entry.sources) + "."))
    return stack(*parts)
