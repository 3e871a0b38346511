"""The doctor: walk the chain BIOS, MCHECK, SEAMRR, NP-SEAMLDR, P-SEAMLDR, module, kernel, KVM over the evidence.

Each link is shown to be right (by which line), shown to be wrong (by which line, why, what now), or not shown (with
the one command that would show it); a link behind one that failed is skipped, and what it printed is a consequence.
The first link that is wrong is the first cause.  Where registers were read, the machine itself is asked what it does
with them (:mod:`seamref.diagnose.machine`).
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import Any

from seamref.arch import msr
from seamref.diagnose.calls import status_text
from seamref.diagnose.cpuid import inside_a_td, unmet
from seamref.diagnose.evidence import Evidence
from seamref.diagnose.explain import Answer
from seamref.diagnose.lines import BY_ID, Link, strip_prefix
from seamref.diagnose.machine import run_mcheck, run_partitioning, run_seamcall
from seamref.diagnose.msrs import seamrr, size_text
from seamref.diagnose.names import leaf_of
from seamref.diagnose.reading import Explanation, Kind

SGX_AND_MCHECK = 0xA0


class Verdict(Enum):
    """What the evidence says of a link."""

    RIGHT = "ok"
    WRONG = "wrong"
    NOT_SHOWN = "not shown"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """One link: the verdict, the line that shows it, why, what now; or the command that would show it."""

    link: Link
    verdict: Verdict
    by: str = ""
    why: str = ""
    now: str = ""
    show: str = ""
    clauses: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    form: str = ""

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"link": self.link.name, "verdict": self.verdict.value, "by": self.by or None, "why": self.why or None,
                "now": self.now or None, "show": self.show or None, "clauses": list(self.clauses),
                "notes": list(self.notes), "form": self.form or None}


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Every link in order, the first cause, the lines that only follow from it, and whether all is well."""

    findings: tuple[Finding, ...]
    consequences: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def first(self) -> Finding | None:
        """The first cause."""
        return next((f for f in self.findings if f.verdict is Verdict.WRONG), None)

    @property
    def well(self) -> bool:
        """Whether nothing is wrong and the kernel has the module up."""
        return self.first is None and any(
            f.link is Link.KERNEL and f.verdict is Verdict.RIGHT for f in self.findings)

    @property
    def sentence(self) -> str:
        """The answer in one line."""
        if self.first is not None:
            return f"first cause: {self.first.link.value}: {self.first.why}"
        if self.well:
            return "all is well: the module is up and nothing speaks against it"
        shown = [f for f in self.findings if f.verdict is Verdict.RIGHT]
        hidden = [f for f in self.findings if f.verdict is Verdict.NOT_SHOWN]
        after = f" after {shown[-1].link.name}" if shown else ""
        # Since 6.8 a #GP on SEAMCALL prints nothing, so SEAMRR is what to ask first.
        later = _behind(shown[-1].link) if shown else ORDER
        ask = min(hidden, key=lambda f: (f.link is not Link.SEAMRR, f.link not in later), default=None)
        return f"not known: nothing is shown to be wrong{after}" + (f"; ask: {ask.show}" if ask else "")

    def text(self) -> str:
        """The tree for a terminal."""
        out = []
        for f in self.findings:
            out.append(f"[{f.verdict.value:^9}] {f.link.value}")
            rows = (("by", f.by), ("why", f.why if f.verdict is Verdict.WRONG else ""), ("now", f.now),
                    ("clause", ", ".join(f.clauses)), ("would show", f.show if f.verdict is Verdict.NOT_SHOWN else ""))
            out += [f"              {name:<10} {text}" for name, text in rows if text]
            out += [f"              {'note':<10} {note}" for note in f.notes]
        out.append("")
        out.append(self.sentence)
        if self.first is not None and self.first.now:
            out.append(f"what now: {self.first.now}")
        if self.consequences:
            out.append("what follows from it:")
            out += [f"    {line}" for line in self.consequences]
        out += [f"note: {note}" for note in self.notes]
        return "\n".join(out)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"well": self.well, "first": None if self.first is None else self.first.to_json(),
                "sentence": self.sentence, "links": [f.to_json() for f in self.findings],
                "consequences": list(self.consequences), "notes": list(self.notes)}


ORDER = (Link.BIOS, Link.MCHECK, Link.SEAMRR, Link.NP_SEAMLDR, Link.P_SEAMLDR, Link.MODULE, Link.KERNEL, Link.KVM,
         Link.UPDATE)
SHOW = {
    Link.BIOS: "rdmsr 0x87; rdmsr 0x982; dmesg | grep -iE 'x86/tme|BIOS enabled'",
    Link.MCHECK: "rdmsr 0xa0",
    Link.SEAMRR: "rdmsr 0x1401",
    Link.NP_SEAMLDR: "cat /sys/devices/faux/tdx_host/seamldr_version",
    Link.P_SEAMLDR: "cat /sys/devices/faux/tdx_host/seamldr_version",
    Link.MODULE: "dmesg | grep -iE 'tdx.*(module|version)'",
    Link.KERNEL: "dmesg | grep -i tdx",
    Link.KVM: "cat /sys/module/kvm_intel/parameters/tdx",
    Link.UPDATE: "cat /sys/class/firmware/tdx_module/error; dmesg | grep -iE 'seamldr|tdx'",
}
"""The one command that would show a link."""


def _behind(link: Link) -> tuple[Link, ...]:
    return ORDER[ORDER.index(link) + 1 :]


# --- where a log line belongs -----------------------------------------------------------------------------------

CALL_LINK = {
    "CALL.install": Link.UPDATE, "CALL.update": Link.UPDATE, "CALL.init_in_update": Link.UPDATE,
    "CALL.sensitive": Link.UPDATE, "CALL.shutdown_version": Link.UPDATE, "CALL.shutdown_busy": Link.UPDATE,
    "CALL.info": Link.P_SEAMLDR, "CALL.memory": Link.KERNEL, "CALL.cpuid_config": Link.KVM, "CALL.td_params": Link.KVM,
}
LATE = frozenset({Link.KVM, Link.UPDATE})


@dataclass(frozen=True, slots=True)
class Point:
    """One reading of one log line, put to its link."""

    answer: Answer
    said: Explanation
    link: Link | None

    @property
    def line(self) -> str:
        """The message as it stands in the log."""
        return strip_prefix(self.answer.line)


def _link_of(said: Explanation) -> Link | None:
    if said.form in CALL_LINK:
        return CALL_LINK[said.form]
    if said.form.startswith("CALL.") or said.form.startswith(("LOG.seamcall", "LOG.leaf_failed")):
        leaf = next((leaf_of(s.value) for s in said.stated if s.what == "leaf"), None)
        if leaf is not None and leaf.loader:
            return Link.UPDATE
        return Link.MODULE if leaf is None or leaf.name.startswith("TDH.SYS.") else Link.KVM
    form = BY_ID.get(said.form)
    return None if form is None else form.link


@dataclass(slots=True)
class Case:
    """The evidence with its log lines put to links; lines behind "module initialized" belong to what came later."""

    e: Evidence
    points: list[Point] = field(default_factory=list)
    up: Point | None = None

    @classmethod
    def of(cls, evidence: Evidence) -> Case:
        """Sort the log."""
        case = cls(evidence)
        for answer in evidence.answers:
            for said in answer.readings[:1]:
                link = _link_of(said)
                point = Point(answer, said, link)
                if said.form == "LOG.initialized":
                    case.up = case.up or point
                elif case.up is not None and link is not None and link not in LATE and said.kind is Kind.CAUSE:
                    point = replace(point, link=Link.UPDATE)
                case.points.append(point)
        return case

    def first(self, link: Link, *kinds: Kind) -> Point | None:
        """The first line of a link that is of one of these kinds."""
        return next((p for p in self.points if p.link is link and p.said.kind in kinds), None)

    def form(self, *ids: str) -> Point | None:
        """The first line of a form."""
        return next((p for p in self.points if p.said.form in ids), None)

    @property
    def answered(self) -> Point | None:
        """A line that shows that the module answered a SEAMCALL with a status of its own."""
        return next((p for p in self.points if any(s.what == "leaf" and not s.value >> 63 for s in p.said.stated)
                     and "no status" not in "".join(r.what for r in p.answer.readings)), None)


def _right(link: Link, by: str, *clauses: str, notes: tuple[str, ...] = ()) -> Finding:
    return Finding(link, Verdict.RIGHT, by, clauses=clauses, notes=notes)


def _wrong(link: Link, point: Point) -> Finding:
    said = point.said
    called = said.form.startswith("CALL.") and said.causes
    why = f"{_answer(said)}: {said.causes[0]}" if called else said.what
    own = point.answer.readings[1].causes if said.form == "CALL.install" and len(point.answer.readings) > 1 else ()
    return Finding(link, Verdict.WRONG, point.line, why, said.advice, clauses=said.clauses,
                   notes=(*said.causes[1:], *own) if called else said.causes, form=said.form)


def _answer(said: Explanation) -> str:
    """Who answered what, by name."""
    values = {s.what: s.value for s in said.stated}
    leaf = leaf_of(values["leaf"])
    loader = bool(leaf and leaf.loader)
    return f"{leaf.name if leaf and leaf.name else 'a leaf'} answered {status_text(values['status'], loader)}"


def _hidden(link: Link, *notes: str) -> Finding:
    return Finding(link, Verdict.NOT_SHOWN, show=SHOW[link], notes=notes)


ABSENT = (
    (1, "ecx", 5, "the processor shows no VMX (CPUID.1:ECX[5] is 0): SEAMCALL would meet #UD"),
    (7, "ecx", 13, "the processor shows no TME (CPUID.7.0:ECX[13] is 0): IA32_TME_CAPABILITY and IA32_TME_ACTIVATE do "
                   "not exist"),
)
"""CPUID bits without which there is no TDX: leaf, register, bit, what is missing."""

# --- link by link -------------------------------------------------------------------------------------------------


def _bios(c: Case) -> Finding:
    """BIOS: IA32_TME_ACTIVATE, KeyIDs."""
    link, e = Link.BIOS, c.e
    if (e.virtual and e.virtual not in ("none",)) or "hypervisor" in e.flags:
        return Finding(link, Verdict.WRONG, f"a hypervisor: {e.virtual or 'cpuinfo flag hypervisor'}", "this is a "
                       "virtual "
                       "machine: SEAMCALL belongs to the host", "run it on bare metal", form="EVIDENCE.virtual")
    inside, within = c.form("LOG.td_guest"), inside_a_td(e.cpuid)
    if inside is not None or within is not None:
        by = inside.line if inside is not None else within.line if within is not None else ""
        return Finding(link, Verdict.WRONG, by, "this is the log of a TD, not of its host, where TDX works",
                       "take the host's log", form="EVIDENCE.virtual")
    if (vm := e.cpuid_bits(1, 0, "ecx", 31, 31)) is not None and vm[0]:
        return Finding(link, Verdict.WRONG, vm[1], "this is a virtual machine (CPUID.1:ECX[31]): SEAMCALL belongs to "
                       "the host", "run it on bare metal", form="EVIDENCE.virtual")
    for leaf, register, bit, what in ABSENT:
        held = e.cpuid_bits(leaf, 0, register, bit, bit)
        if held is not None and held[0] == 0:
            return Finding(link, Verdict.WRONG, held[1], what, "take a processor with TDX; look whether BIOS can "
                           "switch it on", form="EVIDENCE.no_feature")
    gave_up = c.form("LOG.hibernation")
    private, enabled = e.bits(msr.KEYID_PARTITIONING, 63, 32), e.bits(msr.TME_ACTIVATE, 1, 1)
    locked = e.bits(msr.TME_ACTIVATE, 0, 0)
    for state, what in ((enabled, "IA32_TME_ACTIVATE[1] is 0: memory encryption is not enabled"),
                        (locked, "IA32_TME_ACTIVATE[0] is 0: BIOS did not lock memory encryption")):
        if state is not None and state[0] == 0:
            return Finding(link, Verdict.WRONG, state[1], what, BY_ID["LOG.tme_off"].advice, form="EVIDENCE.tme")
    if private is not None and private[0] < 2:
        return Finding(link, Verdict.WRONG, private[1], f"BIOS gave TDX {private[0]} KeyIDs, two are needed",
                       BY_ID["LOG.few_keyids"].advice, clauses=("LNX.tdx_init",), form="EVIDENCE.keyids")
    notes: list[str] = []
    activate, split = e.whole(msr.TME_ACTIVATE), e.whole(msr.KEYID_PARTITIONING)
    if activate is not None:
        ran = run_partitioning(activate.value)
        if ran is None:
            return Finding(link, Verdict.WRONG, activate.line, "no processor takes this IA32_TME_ACTIVATE: one digit "
                           "is "
                           "wrong, or it was read with a field", "read it again: rdmsr 0x982",
                           clauses=("WRMSR.tme_value",),
                           form="EVIDENCE.tme")
        notes.append(f"the machine makes of IA32_TME_ACTIVATE {ran[0]} shared and {ran[1]} TDX private KeyIDs")
        if split is not None and (split.value & 0xFFFFFFFF, split.value >> 32) != ran:
            notes.append(f"but 0x87 says {split.value & 0xFFFFFFFF} and {split.value >> 32}: the two readings do not "
                         "belong together")
        elif ran[1] == 0:
            return Finding(link, Verdict.WRONG, activate.line, "the key split leaves TDX no KeyID (bits 39:36 are 0)",
                           BY_ID["LOG.few_keyids"].advice, form="EVIDENCE.keyids")
    point = c.first(link, Kind.CAUSE)
    if point is not None and not (gave_up and point.said.form in ("LOG.no_keyids", "LOG.no_host_platform")):
        return _wrong(link, point)
    good = c.form("LOG.keyids")
    if good is not None:
        return _right(link, good.line, "LNX.tdx_init", notes=tuple(notes))
    if private is not None:
        return _right(link, private[1], notes=(f"{private[0]} TDX KeyIDs", *notes))
    if "tdx_host_platform" in e.flags:
        return _right(link, "cpuinfo flag tdx_host_platform", "LNX.tdx_init", notes=tuple(notes))
    return _hidden(link, *notes)


def _mcheck(c: Case) -> Finding:
    """MCHECK: MSR 0xA0 as canonical/tdx's report reads it, or the CMRs that only MCHECK writes."""
    link, e = Link.MCHECK, c.e
    status = e.bits(SGX_AND_MCHECK, 63, 0)
    if status is not None and status[0]:
        return Finding(link, Verdict.WRONG, status[1], f"MCHECK or SGX activation left error 0x{status[0]:x} "
                       f"(expected 0): "
                       "the configuration was not accepted", "memory population as the vendor demands for SGX and "
                       "TDX; SGX "
                       "on in BIOS; update the BIOS", form="EVIDENCE.mcheck")
    if (cmr := c.form("LOG.cmr")) is not None:
        return _right(link, cmr.line, "MCHECK.table")
    if status is not None:
        return _right(link, status[1])
    return _hidden(link)


def _seamrr(c: Case) -> Finding:
    """SEAMRR: bit VALID decides what SEAMCALL does."""
    link, e = Link.SEAMRR, c.e
    valid = e.bits(msr.SEAMRR_MASK, 11, 11)
    base, mask = e.whole(msr.SEAMRR_BASE), e.whole(msr.SEAMRR_MASK)
    notes: list[str] = []
    if base is not None and mask is not None:
        notes += seamrr(base.value, mask.value).lines()
    elif mask is not None:
        notes.append(f"size {size_text(seamrr(None, mask.value).size or 0)}")
    point = c.first(link, Kind.CAUSE)
    if valid is not None and valid[0] == 0:
        ran = run_seamcall(False)
        checked = run_mcheck(base.value, mask.value, None) if base and mask else None
        if checked is not None and checked.stopped:
            notes.append(f"{checked.did} ({checked.clause}, this book's choice)")
        return Finding(link, Verdict.WRONG, valid[1], "IA32_SEAMRR_PHYS_MASK.VALID is 0: MCHECK did not make the range "
                       f"valid, and the machine says {ran.did}", BY_ID["LOG.not_enabled"].advice,
                       clauses=(ran.clause,), notes=tuple(notes), form="EVIDENCE.seamrr")
    if valid is not None and point is None:
        ran = run_seamcall(True)
        lock = e.bits(msr.SEAMRR_MASK, 10, 10)
        if lock is not None and lock[0] == 0:
            notes.append("LOCK (bit 10) is 0: this book's MCHECK would not have made the range valid (MCHECK.lock)")
        return _right(link, valid[1], ran.clause, notes=(f"the machine: {ran.did}", *notes))
    if point is not None:
        if valid is not None:
            notes.append(f"but VALID was read as 1 ({valid[1]}): SEAMRR is a register of each core, read all of them "
                         "(rdmsr -a -f 11:11 0x1401)")
        return replace(_wrong(link, point), notes=(*_wrong(link, point).notes, *notes))
    if msr.SEAMRR_MASK in e.unreadable:
        return Finding(link, Verdict.WRONG, e.unreadable[msr.SEAMRR_MASK], "RDMSR of IA32_SEAMRR_PHYS_MASK met #GP: "
                       "the "
                       "processor has no SEAM, or this is a virtual machine", "systemd-detect-virt; lscpu",
                       clauses=("RDMSR.unknown",), form="EVIDENCE.no_seamrr")
    passed = c.answered or c.form("LOG.not_loaded", "LOG.no_module", "LOG.seamldr_version")
    if passed is not None:
        return _right(link, passed.line, "SEAMCALL.seamrr", notes=("SEAMCALL got past #GP, so VALID is 1 there",
                                                                   *notes))
    return _hidden(link, *notes)


def _np(c: Case) -> Finding:
    """NP-SEAMLDR: nothing in Linux shows it; that P-SEAMLDR answers does."""
    loaded = _p_seamldr(c)
    if loaded.verdict is Verdict.RIGHT:
        return _right(Link.NP_SEAMLDR, loaded.by, notes=("P-SEAMLDR is there, and nobody else can load it",))
    return _hidden(Link.NP_SEAMLDR)


def _p_seamldr(c: Case) -> Finding:
    link = Link.P_SEAMLDR
    if (point := c.first(link, Kind.CAUSE)) is not None and c.answered is None:
        return _wrong(link, point)
    version = c.e.values.get("seamldr_version")
    if version is not None and re.match(r"\d+\.\d+", version[0]):
        return _right(link, version[1])
    if (point := c.form("LOG.seamldr_version", "LOG.seam_loaded")) is not None:
        return _right(link, point.line)
    if (point := c.answered or c.form("LOG.module_info", "LOG.module_version", "LOG.module_loaded")) is not None:
        return _right(link, point.line, notes=("a module answers, and only P-SEAMLDR can have installed it",))
    return _hidden(link)


def _module(c: Case) -> Finding:
    """The module: log lines; what CPUID says against TDH.SYS.INIT's demands stands beside them."""
    found = _module_by_log(c)
    against = unmet(c.e.cpuid) if found.verdict is not Verdict.RIGHT else []
    if not against:
        return found
    return replace(found, notes=(*found.notes, *(f"against a demand of module 1.5.05: {one}" for one in against[:4]),
                                 "TDH.SYS.INIT answers the first of them with TDX_INCORRECT_CPUID_VALUE"))


def _module_by_log(c: Case) -> Finding:
    link = Link.MODULE
    if (point := c.first(link, Kind.CAUSE)) is not None:
        return _wrong(link, point)
    if (point := c.form("LOG.module_version", "LOG.module_info")) is not None:
        if point.said.kind is Kind.WARNING and c.up is None:
            return Finding(link, Verdict.NOT_SHOWN, point.line, show=SHOW[link], notes=point.said.causes)
        return _right(link, point.line, notes=point.said.causes)
    version = c.e.values.get("tdx_host/version")
    if version is not None:
        if re.match(r"\d+\.\d+\.\d+", version[0]):
            return _right(link, version[1])
        if "No such device or address" in version[0]:
            return Finding(Link.MODULE, Verdict.NOT_SHOWN, version[1], show=SHOW[link])
    if c.answered is not None:
        return _right(link, c.answered.line, notes=("the module answered a SEAMCALL",))
    if (point := c.form("LOG.module_detected", "LOG.module_loaded")) is not None:
        return _right(link, point.line)
    return _hidden(link)


def _kernel(c: Case) -> Finding:
    link = Link.KERNEL
    if c.up is not None:
        return _right(link, c.up.line, "LNX.tdmr")
    if (point := c.first(link, Kind.CAUSE)) is not None:
        return _wrong(link, point)
    if (point := c.form("LOG.init_failed", "LOG.init_failed_old")) is not None:
        return _wrong(link, point)
    if "tdx_host/version" in c.e.values and re.match(r"\d", c.e.values["tdx_host/version"][0]):
        return _right(link, c.e.values["tdx_host/version"][1])
    if c.e.kvm_tdx is not None and c.e.kvm_tdx[0] in ("Y", "1"):
        return _right(link, c.e.kvm_tdx[1], notes=("KVM keeps that Y only when the module came up",))
    return _hidden(link)


_TDX_OPTION = re.compile(r"(?:^|\s)(\S*tdx\S*?)=(\S+)")
_ASKED = ("1", "on", "y", "Y", "yes", "true")


def _kvm(c: Case) -> Finding:
    link, e = Link.KVM, c.e
    if (point := c.first(link, Kind.CAUSE)) is not None:
        return _wrong(link, point)
    if e.kvm_tdx is not None:
        if e.kvm_tdx[0] in ("Y", "1"):
            return _right(link, e.kvm_tdx[1])
        return Finding(link, Verdict.WRONG, e.kvm_tdx[1], "kvm_intel has TDX switched off: it was not asked for, or "
                       "KVM gave "
                       "it up", "kvm_intel.tdx=1 on the kernel command line; dmesg says why KVM gave up",
                       form="EVIDENCE.kvm_param")
    if e.saw_lsmod and "kvm_intel" not in e.modules:
        return Finding(link, Verdict.WRONG, "lsmod", "kvm_intel is not loaded", "modprobe kvm_intel tdx=1",
                       form="EVIDENCE.lsmod")
    if e.cmdline and c.up is None and c.form("LOG.keyids") and not _failed(c):
        options = dict(_TDX_OPTION.findall(e.cmdline))
        if options.get("kvm_intel.tdx", options.get("kvm-intel.tdx", "")) not in _ASKED:
            odd = [name for name in options if name not in ("kvm_intel.tdx", "kvm-intel.tdx", "tdx", "tdx_host")]
            said = f"; it has {odd[0]}={options[odd[0]]}, which nobody reads" if odd else ""
            return Finding(link, Verdict.WRONG, e.cmdline_line, "kvm_intel.tdx=1 is not on the kernel command line, "
                           "and "
                           f"before the merged kernel only KVM brings the module up{said}", "boot with kvm_intel.tdx=1",
                           form="EVIDENCE.cmdline")
    if (point := c.first(link, Kind.CONSEQUENCE)) is not None:
        return replace(_wrong(link, point), notes=point.said.causes) if not _failed(c) else Finding(
            link, Verdict.SKIPPED, point.line)
    return _hidden(link)


def _failed(c: Case) -> bool:
    return any(p.said.kind is Kind.CAUSE and p.link not in (None, Link.KVM, Link.UPDATE) for p in c.points)


def _update(c: Case) -> Finding | None:
    """Only when something speaks of an update."""
    link = Link.UPDATE
    point = c.first(link, Kind.CAUSE)
    if point is not None and point.said.form in ("LOG.not_loaded", "LOG.no_module") and c.up is not None:
        return Finding(link, Verdict.WRONG, point.line, "after the module was up SEAMCALL met VMfailInvalid: an "
                       "update did "
                       "not complete, for example because a CPU was offline and did not call INSTALL", "reboot; bring "
                       "every "
                       "CPU online before the next update", clauses=point.said.clauses, form=point.said.form)
    if point is not None:
        return _wrong(link, point)
    error = c.e.values.get("tdx_module/error")
    if error is not None and ":" in error[0]:
        return Finding(link, Verdict.WRONG, error[1], f"the last upload ended with {error[0]}", "dmesg says which call "
                       "failed; cat version: \"No such device or address\" means reboot", form="EVIDENCE.upload",
                       clauses=("FW.error",))
    lost = c.e.values.get("tdx_host/version")
    if lost is not None and "No such device or address" in lost[0]:
        return Finding(link, Verdict.WRONG, lost[1], "an update failed after the old module was shut down", "reboot",
                       clauses=("UPDATE.forget",), form="EVIDENCE.version")
    if (point := c.form("LOG.updated")) is not None:
        return _right(link, point.line)
    return None


STEPS: tuple[Callable[[Case], Finding | None], ...] = (
    _bios, _mcheck, _seamrr, _np, _p_seamldr, _module, _kernel, _kvm, _update)


def diagnose(evidence: Evidence) -> Diagnosis:
    """Walk the chain."""
    case = Case.of(evidence)
    found = [finding for step in STEPS if (finding := step(case)) is not None]
    found = _settle(case, found)
    first = next((f for f in found if f.verdict is Verdict.WRONG), None)
    notes = []
    if evidence.boots > 1:
        notes.append(f"the log holds {evidence.boots} starts of a kernel; the last is judged")
    if evidence.log.left_out:
        notes.append(f"{evidence.log.left_out} lines were left out: too many different ones")
    notes += evidence.images
    return Diagnosis(tuple(found), tuple(_consequences(case, first)), tuple(notes))


def _settle(case: Case, found: list[Finding]) -> list[Finding]:
    """A module that came up shows every link before it; a link behind a wrong one is skipped."""
    out: list[Finding] = []
    failed: Finding | None = None
    up = next((f for f in found if f.link is Link.KERNEL and f.verdict is Verdict.RIGHT), None)
    for f in found:
        before_kernel = ORDER.index(f.link) < ORDER.index(Link.KERNEL)
        if up is not None and before_kernel and f.verdict is not Verdict.RIGHT:
            note = (f"though: {f.why}",) if f.verdict is Verdict.WRONG else ()
            f = _right(f.link, up.by, notes=("the module came up, which needs this link", *note, *f.notes))
        if failed is not None and f.verdict is not Verdict.RIGHT:
            f = Finding(f.link, Verdict.SKIPPED, f.by)
        elif f.verdict is Verdict.WRONG:
            failed = f
        out.append(f)
    return out


def _consequences(case: Case, first: Finding | None) -> list[str]:
    """Failing lines other than the one that names the cause."""
    if first is None:
        return []
    failing = [p.line for p in case.points if p.said.kind in (Kind.CAUSE, Kind.CONSEQUENCE) and p.link is not None]
    return [line for line in dict.fromkeys(failing) if line != first.by]
