"""A plain VMM for TDs: bring the module up, build a TD, run it, replace the module under it, take the TD down.

No kernel is modelled here (that is :mod:`seamref.host.kernel`): only SEAMCALLs in an order that works, each through
:func:`seamref.arch.software.call`, and physical memory that the caller of them is free to choose.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from seamref import bootchain
from seamref.arch.events import EventKind, raise_event
from seamref.arch.memory import Agent
from seamref.arch.outcome import Guest, Left
from seamref.arch.platform import Platform, Topology
from seamref.arch.software import SeamRun, call, run
from seamref.arch.structures import SEAMEXTEND
from seamref.errors import SeamrefError
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.tdxmodule import program
from seamref.tdxmodule.core import LEAVES
from seamref.tdxmodule.guest import (
    CODE_GPA,
    COUNTER,
    DATA_GPA,
    GO_ON,
    TELL_REPORT,
    WINDOW_GPA,
    Line,
    code_page,
    run_guest,
)
from seamref.tdxmodule.metadata import field_id
from seamref.tdxmodule.status import Decoded, Recoverability, Status, decode
from seamref.tdxmodule.structures import PAGE, TD_PARAMS, TDCS_PAGES, TDMR_INFO, TDREPORT, TDVPS_PAGES
from seamref.tdxmodule.system.shutdown import AVOID_COMPAT_SENSITIVE
from seamref.tdxmodule.td.checks import SHARED_GPA
from seamref.tdxmodule.td.vp_wr import SHARED_EPTP_FIELD

if TYPE_CHECKING:
    from seamref.layout import Record

NUMBERS = {leaf.name: number for number, leaf in LEAVES.items()}
"""Leaf numbers by name."""
GIB = 1 << 30


@dataclass(frozen=True, slots=True)
class Plan:
    """Where this VMM keeps what it gives to the module: one TDMR of 1 GiB, its PAMT, the pages of TDs.

    ``free``  first page of the TDMR not given away yet; ``hkid`` the global KeyID, ``next_hkid`` the first free one.
    """

    tdmr_base: int = 0x1_0000_0000
    tdmr_size: int = GIB
    pamt: int = 0x4000_0000
    scratch: int = 0x2000_0000
    hkid: int = 32
    next_hkid: int = 33
    first_page: int = 0x1_0010_0000

    def tdmr_info(self) -> bytes:
        """The TDMR as TDH.SYS.CONFIG wants it."""
        at = self.pamt
        values: dict[str, int] = {"base": self.tdmr_base, "size": self.tdmr_size}
        for name, shift in (("4k", 12), ("2m", 21), ("1g", 30)):
            size = max(PAGE, (self.tdmr_size >> shift) * 16)
            values |= {f"pamt_{name}_base": at, f"pamt_{name}_size": size}
            at += size
        return TDMR_INFO.encode(values)


PLAN = Plan()


@dataclass(frozen=True, slots=True)
class Answered:
    """What a leaf answered: the status word, the registers, and how the call ended."""

    word: int
    regs: dict[str, int]
    run: SeamRun

    @property
    def decoded(self) -> Decoded:
        """The status word, read."""
        return decode(self.word)

    @property
    def status(self) -> Status | None:
        """The status without details."""
        return self.decoded.status

    @property
    def recoverability(self) -> Recoverability:
        """What the caller may do."""
        return self.decoded.recoverability

    @property
    def ok(self) -> bool:
        """The module was entered and answered with bit 63 = 0."""
        return isinstance(self.run, Left) and not self.decoded.error

    def __str__(self) -> str:
        return str(self.decoded) if isinstance(self.run, Left) else str(self.run)


_REGS = ("rax", "rcx", "rdx", "rbx", "rsi", "rdi", *(f"r{i}" for i in range(8, 16)))


def tdh(platform: Platform, lp_id: int, name: str, version: int = 0, **registers: int) -> Answered:
    """SEAMCALL a host-side function by name; registers not named are 0.  It may stay in a TD (``run`` is Guest)."""
    given = {**dict.fromkeys(_REGS, 0), **registers, "rax": NUMBERS[name] | version << 16}
    ended = call(platform, lp_id, **given)
    return _answered(platform, lp_id, ended)


def _answered(platform: Platform, lp_id: int, ended: SeamRun) -> Answered:
    lp = platform.peek_lp(lp_id)
    regs = {name: getattr(lp, name) for name in _REGS} if isinstance(ended, Left) else {}
    return Answered(regs.get("rax", 0), regs, ended)


class Refused(SeamrefError):
    """A call that was to succeed did not; ``answer`` says how."""

    def __init__(self, what: str, answer: Answered) -> None:
        self.answer = answer
        super().__init__(f"{what}: {answer}")


def must(platform: Platform, lp_id: int, name: str, version: int = 0, **registers: int) -> Answered:
    """:func:`tdh` that must succeed."""
    answer = tdh(platform, lp_id, name, version, **registers)
    if not answer.ok:
        raise Refused(f"{name} on processor {lp_id}", answer)
    return answer


# --- a platform, a module ---------------------------------------------------------------------------------------


def boot(sockets: int = 1, lps: int = 2, module: str | bytes | None = "1.5.05", **knobs: Any) -> Platform:
    """A booted platform, SMRR locked as BIOS does it, a module installed (a named build, an image, or ``None``)."""
    platform = bootchain.boot(Topology(sockets, lps), **knobs)
    if module is not None:
        bootchain.install(platform, image_of(module))
    return platform


def image_of(module: str | bytes, **fields: Any) -> bytes:
    """The image of a named build."""
    from seamref import mint

    return module if isinstance(module, bytes) else mint.module_image(module, **fields)


def packages(platform: Platform) -> list[int]:
    """One processor of every package."""
    found: dict[int, int] = {}
    for id in platform.lps:
        found.setdefault(platform.peek_lp(id).package, id)
    return list(found.values())


BRING_UP = ("init", "lp.init", "config", "key.config", "tdmr.init")
"""The cold path, step by step."""


def bring_up(platform: Platform, until: str = "tdmr.init", plan: Plan = PLAN, start: str = "init") -> None:
    """The cold path from a freshly installed module: everything from ``start`` to ``until`` (see BRING_UP)."""
    first = platform.lps[0]
    for step in BRING_UP[BRING_UP.index(start) : BRING_UP.index(until) + 1]:
        match step:
            case "init":
                must(platform, first, "TDH.SYS.INIT")
            case "lp.init":
                for id in platform.lps:
                    must(platform, id, "TDH.SYS.LP.INIT")
            case "config":
                config(platform, plan)
            case "key.config":
                for id in packages(platform):
                    must(platform, id, "TDH.SYS.KEY.CONFIG")
            case _:
                end = plan.tdmr_base + plan.tdmr_size
                while must(platform, first, "TDH.SYS.TDMR.INIT", rcx=plan.tdmr_base).regs["rdx"] < end:
                    pass


def config(platform: Platform, plan: Plan = PLAN) -> Answered:
    """TDH.SYS.CONFIG with the plan's TDMR."""
    poke(platform, plan.scratch, (plan.scratch + 0x200).to_bytes(8, "little"))
    poke(platform, plan.scratch + 0x200, plan.tdmr_info())
    return must(platform, platform.lps[0], "TDH.SYS.CONFIG", rcx=plan.scratch, rdx=1, r8=plan.hkid)


def poke(platform: Platform, at: int, data: bytes) -> None:
    """The host writes its own memory."""
    fault = platform.store(Agent.HOST, at, data)
    if fault is not None:
        raise SeamrefError(f"host store at 0x{at:X}: {fault}")


def sys_rd(platform: Platform, name: str, lp_id: int | None = None, index: int = 0) -> int:
    """A metadata field by name, with TDH.SYS.RD."""
    id = platform.lps[0] if lp_id is None else lp_id
    return must(platform, id, "TDH.SYS.RD", rdx=field_id(name, index)).regs["r8"]


# --- a TD -------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class Td:
    """What the VMM knows of one TD: physical pages and KeyID.  What happens in it, it does not know."""

    hkid: int
    tdr: int
    base: int
    next_page: int
    shared: int
    tdvprs: list[int] = field(default_factory=list)
    pages: list[int] = field(default_factory=list)

    def take(self) -> int:
        """The next free page of this TD's part of the TDMR."""
        page = self.next_page
        self.next_page += PAGE
        self.pages.append(page)
        return page

    def copy(self) -> Td:
        """An independent record (for a forked platform)."""
        return replace(self, tdvprs=list(self.tdvprs), pages=list(self.pages))


TD_SPACE = 0x10_0000
"""Bytes of the TDMR that this VMM sets aside for one TD."""


def new_td(number: int = 0, plan: Plan = PLAN) -> Td:
    """The record of a TD to be built: its KeyID and its part of the TDMR follow from its number."""
    base = plan.first_page + number * TD_SPACE
    td = Td(plan.next_hkid + number, base, base, base, plan.scratch + 0x10_0000 + number * 0x1_0000)
    td.take()
    return td


Step = tuple[str, Callable[[], Any]]


def build_steps(platform: Platform, lp_id: int, td: Td, *, vcpus: int = 1, program: tuple[Line, ...] = COUNTER,
                data: bytes = b"", max_vcpus: int = 0, attributes: int = 0) -> Iterator[Step]:
    """The SEAMCALLs that build a TD, one after another, each as (name, what to do).

    ``program`` runs at the reset vector; ``data`` is the initial content of the page behind :data:`DATA_GPA`.
    """
    def do(name: str, id: int | None = None, **registers: int) -> Step:
        return name, partial(must, platform, lp_id if id is None else id, name, **registers)

    yield do("TDH.MNG.CREATE", rcx=td.tdr, rdx=td.hkid)
    for id in packages(platform):
        yield do("TDH.MNG.KEY.CONFIG", id, rcx=td.tdr)
    for _ in range(TDCS_PAGES):
        yield do("TDH.MNG.ADDCX", rcx=td.take(), rdx=td.tdr)
    params = TD_PARAMS.encode({"attributes": attributes, "xfam": 3, "max_vcpus": max_vcpus or vcpus,
                               "eptp_controls": 0x1E, "tsc_frequency": 80})
    poke(platform, td.shared, params)
    yield do("TDH.MNG.INIT", rcx=td.tdr, rdx=td.shared)
    for _ in range(vcpus):
        tdvpr = td.take()
        td.tdvprs.append(tdvpr)
        yield do("TDH.VP.CREATE", rcx=tdvpr, rdx=td.tdr)
        for _ in range(TDVPS_PAGES - 1):
            yield do("TDH.VP.ADDCX", rcx=td.take(), rdx=tdvpr)
        yield do("TDH.VP.INIT", rcx=tdvpr)
    for level in (3, 2, 1):
        span = (1 << 12 + 9 * level) - 1
        yield do("TDH.MEM.SEPT.ADD", rcx=CODE_GPA & ~span | level, rdx=td.tdr, r8=td.take())
    for gpa, content in ((CODE_GPA, code_page(program)), (DATA_GPA, data.ljust(PAGE, b"\0"))):
        poke(platform, td.shared, content)
        yield do("TDH.MEM.PAGE.ADD", rcx=gpa, rdx=td.tdr, r8=td.take(), r9=td.shared)
        if gpa == CODE_GPA:
            for chunk in range(0, PAGE, 256):
                yield do("TDH.MR.EXTEND", rcx=gpa + chunk, rdx=td.tdr)
    yield do("TDH.MR.FINALIZE", rcx=td.tdr)
    window, table = td.shared + PAGE, td.shared + 2 * PAGE
    _shared_ept(platform, table, window)
    for tdvpr in td.tdvprs:
        yield do("TDH.VP.WR", rcx=tdvpr, rdx=SHARED_EPTP_FIELD, r8=table)


def _shared_ept(platform: Platform, table: int, window: int) -> None:
    """The host's own EPT for the TD's shared page."""
    plain = WINDOW_GPA & ~SHARED_GPA
    for level, shift in enumerate((39, 30, 21, 12)):
        at = table + level * PAGE
        leads = window if shift == 12 else at + PAGE
        poke(platform, at + (plain >> shift & 0x1FF) * 8, (leads | 7).to_bytes(8, "little"))


def build_td(platform: Platform, lp_id: int | None = None, number: int = 0, *, until: str = "", plan: Plan = PLAN,
             **more: Any) -> Td:
    """Build a TD; ``until`` stops behind the first step of that name.  ``more`` as :func:`build_steps`."""
    td = new_td(number, plan)
    go_on_building(build_steps(platform, platform.lps[0] if lp_id is None else lp_id, td, **more), until)
    return td


def go_on_building(steps: Iterator[Step], until: str = "") -> int:
    """Take steps of a build, to the end or until behind the first one with this name; how many were taken."""
    taken = 0
    for name, do in steps:
        do()
        taken += 1
        if name == until:
            break
    return taken


# --- running it -------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class TdExit:
    """A TD exit as the host sees it: the status word (exit reason in its low half) and registers."""

    answer: Answered

    @property
    def reason(self) -> int:
        """Basic exit reason."""
        return self.answer.word & 0xFFFF

    @property
    def count(self) -> int:
        """R12 of the scripted guest: how often it counted."""
        return self.answer.regs["r12"]


def enter(platform: Platform, lp_id: int, td: Td, vcpu: int = 0, **registers: int) -> Answered:
    """TDH.VP.ENTER; when the TD was entered, ``run`` is Guest and the processor is in SEAM non-root."""
    return tdh(platform, lp_id, "TDH.VP.ENTER", rcx=td.tdvprs[vcpu], **registers)


def leave(platform: Platform, lp_id: int, limit: int = 1000) -> Answered:
    """Let the TD on this processor run until it exits to the host; an interrupt comes after ``limit`` instructions."""
    while True:
        if run_guest(platform, lp_id, limit) is None:
            raise_event(platform, lp_id, EventKind.INTR)
        ended = run(platform, lp_id)
        if not isinstance(ended, Guest):
            platform.lp(lp_id).intr_pending = False
            return _answered(platform, lp_id, ended)


def run_td(platform: Platform, lp_id: int, td: Td, vcpu: int = 0, answer: int = GO_ON, limit: int = 1000) -> TdExit:
    """Enter a TD and run it to its next exit; ``answer`` is what R13 tells the guest about its last VMCALL."""
    entered = enter(platform, lp_id, td, vcpu, r13=answer)
    if not isinstance(entered.run, Guest):
        raise Refused("TDH.VP.ENTER", entered)
    return TdExit(leave(platform, lp_id, limit))


def report_of(platform: Platform, lp_id: int, td: Td, vcpu: int = 0) -> Record:
    """Ask the TD for a report: it executes TDG.MR.REPORT and copies the 1024 bytes to its shared page."""
    exited = run_td(platform, lp_id, td, vcpu, answer=TELL_REPORT)
    if not exited.answer.ok or exited.reason != 77:
        raise Refused("a TD asked for its report", exited.answer)
    return TDREPORT.decode(platform.bytes_at(Agent.HOST, td.shared + PAGE, TDREPORT.size))


def tear_down(platform: Platform, lp_id: int, td: Td) -> None:
    """Take a TD down: flush vCPUs where they are, write caches back, free the KeyID, reclaim every page."""
    for tdvpr in td.tdvprs:
        for id in platform.lps:
            if tdh(platform, id, "TDH.VP.FLUSH", rcx=tdvpr).ok:
                break
    must(platform, lp_id, "TDH.MNG.VPFLUSHDONE", rcx=td.tdr)
    for id in packages(platform):
        must(platform, id, "TDH.PHYMEM.CACHE.WB")
    must(platform, lp_id, "TDH.MNG.KEY.FREEID", rcx=td.tdr)
    for pa in (*td.pages[1:], td.tdr):
        must(platform, lp_id, "TDH.PHYMEM.PAGE.RECLAIM", rcx=pa)


# --- replacing the module ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Updated:
    """How an update went: each step taken and its answer; ``ok`` when the last one succeeded."""

    steps: tuple[tuple[str, int, str], ...]
    ok: bool
    answer: Answered | bootchain.Called

    @property
    def stopped_at(self) -> str:
        """The step that failed, empty when none did."""
        return "" if self.ok else self.steps[-1][0]


UPDATE_STEPS = ("TDH.SYS.SHUTDOWN", "SEAMLDR.INSTALL", "TDH.SYS.INIT", "TDH.SYS.LP.INIT", "TDH.SYS.UPDATE")


def update(platform: Platform, module: str | bytes, *, hv: int | None = None, avoid: bool = False,
           sigstruct: bytes | None = None, start: str = UPDATE_STEPS[0], lps: tuple[int, ...] | None = None,
           **fields: Any) -> Updated:
    """Replace the module under running TDs; stops at the first step that is refused.

    ``hv``     handoff version for TDH.SYS.SHUTDOWN, by default the running module's MODULE_HV
    ``avoid``  also bit 16: refuse while a TD is in an update-sensitive state
    ``start``  the step to start with (a second attempt begins with SEAMLDR.INSTALL)
    ``lps``    processors that do TDH.SYS.LP.INIT, by default all
    """
    from seamref import mint

    first = platform.lps[0]
    image = image_of(module, **fields)
    steps: list[tuple[str, int, str]] = []
    answer: Answered | bootchain.Called
    for name in UPDATE_STEPS[UPDATE_STEPS.index(start) :]:
        match name:
            case "TDH.SYS.SHUTDOWN":
                version = sys_rd(platform, "MODULE_HV") if hv is None else hv
                calls = [(first, {"rcx": version | (AVOID_COMPAT_SENSITIVE if avoid else 0)})]
            case "SEAMLDR.INSTALL":
                params = mint.place(platform, image, sigstruct, scenario=1, at=bootchain.MODULE_ADDRESS)
                for id in platform.lps:
                    called = bootchain.seamldr_call(platform, id, bootchain.INSTALL, params)
                    steps.append((name, id, _loader_said(platform, id, called)))
                    if bootchain.did_stop(called):
                        return Updated(tuple(steps), False, called)
                continue
            case "TDH.SYS.LP.INIT":
                calls = [(id, {}) for id in (platform.lps if lps is None else lps)]
            case _:
                calls = [(first, {})]
        for id, registers in calls:
            answer = tdh(platform, id, name, **registers)
            steps.append((name, id, str(answer)))
            if not answer.ok:
                return Updated(tuple(steps), False, answer)
    return Updated(tuple(steps), True, answer)


def _loader_said(platform: Platform, lp_id: int, called: bootchain.Called) -> str:
    if not isinstance(called.run, Left):
        return str(called.run)
    status = LoaderStatus(called.rax)
    return status.name if status is LoaderStatus.SUCCESS else f"{status.name}, RDX = {platform.peek_lp(lp_id).rdx}"


def module_svn(platform: Platform) -> tuple[int, int]:
    """(major, minor) SVN of the module that is loaded."""
    svn = SEAMEXTEND.decode(platform.SEAMEXTEND).tee_tcb_svn
    return svn.seam_major_svn, svn.seam_minor_svn


__all__ = [
    "BRING_UP", "PLAN", "UPDATE_STEPS", "Answered", "Plan", "Refused", "Td", "TdExit", "Updated", "boot", "bring_up",
    "build_steps", "build_td", "config", "enter", "go_on_building", "image_of", "leave", "module_svn", "must", "new_td",
    "packages", "poke", "program", "report_of", "run_td", "sys_rd", "tdh", "tear_down", "update",
]
