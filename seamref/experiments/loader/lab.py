"""Experiments with P-SEAMLDR: a platform on which it is loaded, its leaves called through SEAMCALL, and the answers.

Nothing here decides anything.  Every answer is that of the processor and of P-SEAMLDR; this module prepares what they
are fed with and writes down registers, the rows that decided, the SEAMEXTEND register and memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from seamref import mint
from seamref.arch.lp import GPRS
from seamref.arch.memory import Agent, Range
from seamref.arch.msr import VMX_BASIC
from seamref.arch.outcome import Left, Shutdown
from seamref.arch.platform import NO_SEAMRET_INVD_VMCS, VMX_MSRS, Platform, PlatformConfig, Topology
from seamref.arch.software import SeamRun, call
from seamref.arch.structures import SEAMEXTEND, SYS_INFO_TABLE
from seamref.arch.trace import Computed, Event, Step
from seamref.bootchain import boot
from seamref.bootchain.chain import LOADER_TABLES
from seamref.errors import SeamrefError
from seamref.layout import Record
from seamref.pseamldr.api import (
    COMPONENT,
    HANDOFF_DATA_HEADER,
    PAGE,
    SEAMLDR_INFO,
    SEAMLDR_PARAMS,
    Leaf,
    Recoverability,
    Scenario,
    Status,
)
from seamref.pseamldr.build import Build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.spec import Check, deciding

RANGE_SIZE = 4 << 20
"""Bytes of P_SEAMLDR_RANGE (chosen; the published loader needs a part of it)."""
INFO_BUFFER, PARAMS = 0x0800_0000, 0x1000_0000
"""Where the host of these experiments has its INFO buffer, and its SEAMLDR_PARAMS with sigstruct and image behind."""


def platform(
    *, lps: int = 2, sockets: int = 1, addressable: int = 0, seamrr: int = 64 << 20, range_size: int = RANGE_SIZE,
    revision: str = "1.5", seamdb: int = 16, fms: Sequence[int] = (0xC06F2,), debug_unlocked: bool = False,
    ids: Sequence[int] = (), seed: int = 0, keeps_vmcs: bool = False,
) -> Platform:
    """A booted platform: P-SEAMLDR ready, no TDX module, VMX on everywhere; SEAMRR ends at 2 GiB.

    ``lps`` processors on each of ``sockets`` sockets (or x2APIC ``ids``), ``addressable`` ids for each socket;
    ``seamrr`` and ``range_size`` bytes; ``revision`` of P-SEAMLDR; ``seamdb`` entries of the database;
    ``keeps_vmcs``: a part with IA32_VMX_BASIC[60] = 1.
    """
    msrs = dict(VMX_MSRS)
    if keeps_vmcs:
        msrs[VMX_BASIC] |= NO_SEAMRET_INVD_VMCS
    config = PlatformConfig(
        topology=Topology(sockets, lps, addressable, tuple(ids)), fms=tuple(fms), seamdb_size=seamdb,
        debug_unlocked=debug_unlocked, seed=seed, vmx_msrs=msrs,
    )
    return boot(
        config=config, acm=_acm(revision), seamrr_base=(2 << 30) - seamrr, seamrr_size=seamrr,
        p_seamldr_range_size=range_size,
    )


@lru_cache(maxsize=4)
def _acm(revision: str) -> bytes:
    """NP-SEAMLDR with a P-SEAMLDR of this generation that accepts the test key."""
    return mint.acm(mint.pseamldr_image(Build(revision=revision, signer_key_hash=mint.KEY.key_hash)))


# --- looking at a platform


def data_base(made: Platform) -> int:
    """Physical address of P-SEAMLDR's data area."""
    from seamref.pseamldr.data import SysInfo, data_physical

    held = made.p_seamldr_range
    if held is None:
        raise SeamrefError("no P_SEAMLDR_RANGE on this platform")
    return data_physical(SysInfo(made.bytes_at(Agent.CPU, held.end - PAGE, PAGE)))


def loader_data(made: Platform) -> Record:
    """P-SEAMLDR's persistent data, decoded."""
    return P_SEAMLDR_DATA.decode(made.bytes_at(Agent.CPU, data_base(made), P_SEAMLDR_DATA.size))


def seamextend(made: Platform) -> Record:
    """The SEAMEXTEND register, decoded."""
    return SEAMEXTEND.decode(made.SEAMEXTEND)


def sys_info(made: Platform) -> Record:
    """SYS_INFO_TABLE, the first page of SEAMRR, decoded."""
    whole = made.seamrr()
    assert whole is not None
    return SYS_INFO_TABLE.decode(made.bytes_at(Agent.CPU, whole.base, SYS_INFO_TABLE.size))


def module_range(made: Platform) -> Range:
    """[SEAMRR base, P_SEAMLDR_RANGE base)."""
    whole, held = made.seamrr(), made.p_seamldr_range
    assert whole is not None and held is not None
    return Range(whole.base, held.base - whole.base)


def module_pages(made: Platform) -> dict[int, bytes]:
    """The non-zero pages of the module range, by physical address."""
    span = module_range(made)
    return {at: bytes(data) for at, data in made.store_.pages(span.base, span.end)}


# --- calling a leaf


@dataclass(frozen=True, slots=True)
class Called:
    """One SEAMCALL to P-SEAMLDR: on which processor, which leaf, how it ended, and what changed.

    ``rows`` are the check rows that decided, the innermost first; ``did`` the phases P-SEAMLDR announced;
    ``computed`` the values it came to; ``before`` and ``after`` the SEAMEXTEND register.
    """

    lp: int
    leaf: str
    outcome: SeamRun
    rax: int
    rdx: int
    rows: tuple[Check[Any, Any], ...]
    did: tuple[str, ...]
    computed: Mapping[str, Any]
    before: bytes
    after: bytes
    changed: tuple[str, ...] = ()

    @property
    def returned(self) -> bool:
        """P-SEAMLDR ran and came back."""
        return isinstance(self.outcome, Left)

    @property
    def status(self) -> Status | None:
        """RAX as a status; ``None`` when nothing came back or RAX is no status of P-SEAMLDR."""
        return Status(self.rax) if self.returned and self.rax in set(Status) else None

    @property
    def answer(self) -> str:
        """RAX by name, or how the call ended otherwise."""
        return self.status.name if self.status is not None else str(self.outcome)

    @property
    def row(self) -> Check[Any, Any] | None:
        """The row of the leaf's own tables that decided."""
        return self.rows[-1] if self.rows else None

    @property
    def row_ids(self) -> str:
        """Ids of the rows that decided, the leaf's own first."""
        return ", ".join(row.id for row in reversed(self.rows))

    def seamextend(self) -> str:
        """What the register says afterwards, in words."""
        return identity_text(self.after)


def call_leaf(made: Platform, lp_id: int, leaf: Leaf | int, rcx: int = 0, **registers: int) -> Called:
    """SEAMCALL with a leaf number on one processor, all the way there and back."""
    given = {name: 0x1111_1111_1111_1111 * i for i, name in enumerate(GPRS)}
    given |= {"rax": int(leaf), "rcx": rcx, **registers}
    before = made.SEAMEXTEND
    did: list[str] = []
    computed: dict[str, Any] = {}

    def listen(event: Event) -> None:
        if isinstance(event, Step) and event.component == COMPONENT:
            did.append(event.name)
        elif isinstance(event, Computed):
            computed[event.name] = event.value

    made.listeners.append(listen)
    try:
        with deciding(LOADER_TABLES) as rows:
            outcome = call(made, lp_id, **given)
    finally:
        made.listeners.remove(listen)
    lp = made.lp(lp_id)
    name = leaf.name if isinstance(leaf, Leaf) else f"0x{leaf:X}"
    changed = tuple(r for r in GPRS if getattr(lp, r) != given[r])
    now = made.SEAMEXTEND
    return Called(lp_id, name, outcome, lp.rax, lp.rdx, tuple(rows), tuple(did), computed, before, now, changed)


def get_info(made: Platform, lp_id: int | None = None) -> Record:
    """SEAMLDR.INFO, called and decoded."""
    called = call_leaf(made, made.lps[0] if lp_id is None else lp_id, Leaf.INFO, INFO_BUFFER)
    if called.status is not Status.SUCCESS:
        raise SeamrefError(f"SEAMLDR.INFO: {called.answer}")
    return SEAMLDR_INFO.decode(made.bytes_at(Agent.HOST, INFO_BUFFER, SEAMLDR_INFO.size))


def identity_text(register: bytes) -> str:
    """SEAMEXTEND in one line."""
    now = SEAMEXTEND.decode(register)
    if not any(now.mrseam) and not now.valid:
        who = "no module"
    else:
        who = f"SVN {now.tee_tcb_svn.seam_major_svn}.{now.tee_tcb_svn.seam_minor_svn}, MRSEAM {now.mrseam.hex()[:8]}..."
    return f"{who}, VALID {now.valid:X}H, SEAM_READY {now.seam_ready}, P_SEAMLDR_READY {now.p_seamldr_ready}"


# --- a session


@dataclass(frozen=True, slots=True)
class Session:
    """An INSTALL session: the calls in order.  ``pages_before`` are the module range's pages when it began."""

    calls: tuple[Called, ...]
    platform: Platform = field(repr=False)
    pages_before: Mapping[int, bytes] = field(repr=False)

    @property
    def last(self) -> Called:
        """The call that ended it, or the last one made."""
        return self.calls[-1]

    @property
    def plan(self) -> MemoryConstants | None:
        """The memory constants, when it came so far."""
        plan: MemoryConstants | None = self.last.computed.get("memory_constants")
        return plan

    @property
    def ok(self) -> bool:
        """SUCCESS on the last call."""
        return self.last.status is Status.SUCCESS

    @property
    def ready(self) -> bool:
        """SEAMCALL enters a module afterwards."""
        return self.platform.SEAM_READY

    @property
    def memory(self) -> str:
        """What became of the module range."""
        now = module_pages(self.platform)
        if now == self.pages_before:
            return "untouched"
        return f"{len(now)} pages hold data" if now else "all zero"

    @property
    def had_module(self) -> bool:
        """SEAMEXTEND named a module when the session began."""
        return bool(self.calls and SEAMEXTEND.peek(self.calls[0].before, "valid"))

    @property
    def survives(self) -> str:
        """What became of the module that was there before, in words."""
        if isinstance(self.last.outcome, Shutdown):
            return "no: the processor is down, and both modules are marked not loaded"
        if self.ok and not loader_data(self.platform).lps_in_update and self.ready:
            return "replaced" if self.had_module else "there was none; the new one is ready"
        if not self.had_module:
            return "there was none"
        if self.ready and self.memory == "untouched":
            return "yes"
        if loader_data(self.platform).lps_in_shutdown:
            return "blocked for good: a SHUTDOWN has begun"
        if loader_data(self.platform).lps_in_update:
            return "blocked: the session is still open"
        return "no"


def install(made: Platform, params: int = PARAMS, order: Iterable[int] | None = None) -> Session:
    """SEAMLDR.INSTALL on every processor, one after the other, until one shuts down."""
    before = module_pages(made)
    calls: list[Called] = []
    for id in made.lps if order is None else order:
        calls.append(call_leaf(made, id, Leaf.INSTALL, params))
        if not calls[-1].returned:
            break
    return Session(tuple(calls), made, before)


def hand_off(made: Platform, *, hv: int = 0, size: int = 64, valid: int = 1) -> int:
    """Handoff data as a module leaves it at the start of its data region; the physical address of the header."""
    info, span = sys_info(made), module_range(made)
    vmcss = made.config.topology.stride * made.config.topology.sockets
    assert info.data_rgn_size
    at = span.base + PAGE + vmcss * PAGE
    header = HANDOFF_DATA_HEADER.encode({"valid": valid, "hv": hv, "size": size})
    body = bytes(i % 251 for i in range(min(size, PAGE - len(header))))
    fault = made.store(Agent.MODULE, at, header + body)
    if fault is not None:
        raise SeamrefError(f"the module cannot store its handoff data at 0x{at:X}: {fault}")
    return at


# --- one attempt, described


@dataclass(frozen=True, slots=True)
class Attempt:
    """One INSTALL as a value: what runs, what is handed over, and what is wrong with it.

    ``old``        build that runs before, ``None``: no module; ``old_sig`` fields of its sigstruct to override
    ``scenario``   LOAD or UPDATE
    ``build``      of the new module; ``image`` further arguments of its image
    ``sig``        sigstruct fields to override; ``resign`` whether before signing; ``key`` the signer
    ``params``     SEAMLDR_PARAMS fields to override, also ``mod_pages_pa_list[5]``
    ``edit``       changes the image's bytes before it is hashed
    ``on``         arguments of the platform; ``prepare`` changes it before the session
    ``order``      the processors that call, by default each once
    """

    old: str | None = "1.5.05"
    old_sig: Mapping[str, Any] = field(default_factory=dict)
    scenario: Scenario = Scenario.LOAD
    build: str = "1.5.06"
    image: Mapping[str, Any] = field(default_factory=dict)
    sig: Mapping[str, Any] = field(default_factory=dict)
    resign: bool = True
    other_key: bool = False
    params: Mapping[str, Any] = field(default_factory=dict)
    edit: Callable[[bytearray], None] | None = None
    rcx: int = PARAMS
    on: Mapping[str, Any] = field(default_factory=dict)
    prepare: Callable[[Platform], None] | None = None
    order: tuple[int, ...] | None = None
    handoff: Mapping[str, int] = field(default_factory=dict)

    def make_image(self) -> bytes:
        """The new module's image."""
        made = bytearray(mint.module_image(self.build, **self.image))
        if self.edit is not None:
            self.edit(made)
        return bytes(made)

    def make_sigstruct(self, image: bytes) -> bytes:
        """Its sigstruct.  Overrides of an unknown field are an error that names it."""
        fields = dict(self.sig)
        if self.edit is not None:  # an image that is no ELF any more says nothing about its entry point
            plain = mint.sigstruct_fields(mint.module_image(self.build, **self.image))
            fields = {**{name: value for name, value in plain.items() if name != "seamhash"}, **fields}
        key = mint.OTHER_KEY if self.other_key else mint.KEY
        return mint.sigstruct(image, key=key, resign=self.resign, **fields)

    def platform(self) -> Platform:
        """The platform before the session, the old module running on it."""
        return running(self.old, self.old_sig, **self.on)

    def run(self) -> Session:
        """The platform, the old module's handoff data, everything placed in memory, and INSTALL on every processor."""
        made = self.platform()
        if self.old is not None and self.scenario == Scenario.UPDATE:
            hand_off(made, **self.handoff)
        image = self.make_image()
        mint.place(made, image, self.make_sigstruct(image), at=PARAMS)
        page = bytearray(made.bytes_at(Agent.HOST, PARAMS, SEAMLDR_PARAMS.size))
        for name, value in {"scenario": int(self.scenario), **self.params}.items():
            SEAMLDR_PARAMS.poke(page, name, value)
        made.store(Agent.HOST, PARAMS, page)
        if self.prepare is not None:
            self.prepare(made)
        return install(made, self.rcx, self.order)


_RUNNING: dict[str, Platform] = {}


def running(module: str | None, sig: Mapping[str, Any] | None = None, **on: Any) -> Platform:
    """A fork of a platform on which a module has been loaded with INSTALL (``None``: no module)."""
    key = repr((module, sorted((sig or {}).items()), sorted(on.items())))
    if key not in _RUNNING:
        made = platform(**on)
        if module is not None:
            load(made, module, **(sig or {}))
        _RUNNING[key] = made
    return _RUNNING[key].fork()


def load(made: Platform, build: str, scenario: Scenario = Scenario.LOAD, **sig: Any) -> Session:
    """INSTALL a named build, which must succeed."""
    image = mint.module_image(build)
    mint.place(made, image, mint.sigstruct(image, **sig), scenario=int(scenario), at=PARAMS)
    session = install(made)
    if not session.ok:
        raise SeamrefError(f"INSTALL of {build}: {session.last.answer} ({session.last.row_ids})")
    return session


def rdx_text(rdx: int) -> str:
    """RDX of INSTALL by name."""
    return f"{rdx} ({Recoverability(rdx).name.lower()})" if rdx in set(Recoverability) else f"0x{rdx:X}"


__all__ = [
    "Attempt", "Called", "INFO_BUFFER", "PARAMS", "Session", "call_leaf", "data_base", "deciding",
    "get_info", "hand_off", "identity_text", "install", "load", "loader_data", "module_pages", "module_range",
    "platform", "rdx_text", "running", "seamextend", "sys_info",
]
