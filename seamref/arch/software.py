"""Software in SEAM: something the platform runs, not something the processor knows.

A :class:`Program` is the behaviour of an image.  Which program runs is decided by the bytes that the processor would
fetch at the host RIP of the transfer VMCS, translated through the page tables in SEAM memory: images made by
``seamref.mint`` carry a :data:`STUB` at their entry point, and a loader that built wrong tables or a wrong RIP gets
the processor's answer to that (a fault without an IDT: shutdown).

A program is a step machine.  ``lp.program_state`` is ``None`` right after entry; each ``step`` does one separable
piece of work and leaves behind the state of the next, until it executes SEAMRET or enters a guest.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Protocol, TypeAlias

from seamref.arch.events import shutdown
from seamref.arch.lp import Lp
from seamref.arch.memory import Agent, get_agent
from seamref.arch.outcome import (
    Entered,
    EntryFailed,
    Fault,
    Guest,
    Left,
    SeamcallOutcome,
    Shutdown,
    Vector,
    VmFailInvalid,
    VmFailValid,
)
from seamref.arch.paging import translate
from seamref.arch.seam import seamcall
from seamref.errors import NotModelled, SeamrefError
from seamref.layout import Field, Layout, Raw
from seamref.spec import CHOSEN, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

ENDBR64_JMP = bytes.fromhex("f30f1efa" "eb3a")
"""ENDBR64, then a short jump over the rest of the stub."""

STUB = Layout(
    "PROGRAM_STUB",
    (
        Field("code", Raw(6), "ENDBR64; JMP +3AH", 0),
        Field("reserved", Raw(2), "", 6),
        Field("program", Raw(16), "id of the program that these bytes stand for", 8),
        Field("parameters", Raw(40), "the program's own", 24),
    ),
    size=64,
    source="SEAMREF",
    doc="Entry point of an image that this machine can run.",
)


P_SEAMLDR_PROGRAM = b"seamref.pseamldr"
TDX_MODULE_PROGRAM = b"seamref.tdxmodul"
"""Ids of the two programs that live in SEAM; a loader or a module registers itself under its id."""


def make_stub(program: bytes, parameters: bytes = b"") -> bytes:
    """The 64 bytes to put at an image's entry point."""
    return STUB.encode({"code": ENDBR64_JMP, "program": program, "parameters": parameters.ljust(40, b"\0")})


@dataclass(frozen=True, slots=True)
class Running:
    """The program has more to do; ``did`` names the step just taken."""

    did: str


@dataclass(frozen=True, slots=True)
class StandIn:
    """A program that runs in place of code that this machine cannot execute: a genuine image's.

    ``code`` the 64 bytes at the entry point by which that code is known; ``program`` the id of what runs instead, with
    its ``parameters``; ``constants`` what the program would have read behind the stub of its own image.
    """

    code: bytes
    program: bytes
    constants: bytes
    parameters: bytes = bytes(40)

    def __post_init__(self) -> None:
        if len(self.code) != STUB.size:
            raise SeamrefError(f"StandIn.code: {len(self.code)} bytes, must be {STUB.size}")


StepOutcome: TypeAlias = Running | Left | Guest | Shutdown | Fault | VmFailInvalid | VmFailValid | EntryFailed
"""A program's step.  Everything but ``Running`` ends its stay in SEAM root, or the processor."""

SeamRun: TypeAlias = SeamcallOutcome | Left | Guest | Shutdown
"""A whole call: not entered, or how the stay ended."""


class Program(Protocol):
    """The behaviour of an image."""

    id: bytes
    name: str

    def step(self, platform: Platform, lp: Lp, parameters: bytes) -> StepOutcome:
        """Take one step on ``lp`` from ``lp.program_state`` (``None``: just entered)."""
        ...


class MemoryFault(Exception):
    """A data access of software in SEAM faulted; delivery finds no IDT, so the processor shuts down."""

    def __init__(self, fault: Fault, address: int, write: bool) -> None:
        self.fault = fault
        self.address = address
        self.write = write
        super().__init__(f"{fault} {'writing' if write else 'reading'} 0x{address:X}")


class Ud2(Exception):
    """Software in SEAM executed UD2 on purpose: a fatal error.  ``cause`` is for people."""


class SoftwareFault(Exception):
    """An instruction of software faulted where no IDT is.  ``cause`` is for people."""

    def __init__(self, vector: Vector, cause: str) -> None:
        self.vector = vector
        self.cause = cause
        super().__init__(f"{vector.mnemonic}: {cause}")


PROGRAMS: dict[bytes, Program] = {}


def register_program(program: Program) -> Program:
    """Make a program runnable; its id is what an image's stub names."""
    if len(program.id) != 16:
        raise SeamrefError(f"program id {program.id!r}: {len(program.id)} bytes, must be 16")
    PROGRAMS[program.id] = program
    return program


clause("SEAM.fetch", "the first fetch in SEAM goes to the host RIP, through the tables of the host CR3", "X2 SEAMCALL")
clause("SEAM.fault", "a fault in SEAM root without a usable IDT is a triple fault: shutdown", "X2 events", CHOSEN)


@implements("SEAM.fetch")
def fetch_program(platform: Platform, lp: Lp) -> tuple[Program, bytes] | Fault:
    """SEAM.fetch: which program the bytes at RIP stand for, and its parameters; or the fault of the fetch."""
    found = translate(platform, lp, lp.rip, fetch=True)
    if isinstance(found, Fault):
        return found
    data = platform.load(get_agent(lp), found.physical, STUB.size, lp)
    if isinstance(data, Fault):
        return data
    is_stub, id, parameters = _stub_of(data)
    if not is_stub and (instead := stand_in(platform, data)) is not None:
        is_stub, id, parameters = True, instead.program, instead.parameters
    program = PROGRAMS.get(id)
    if not is_stub or program is None:
        raise NotModelled(
            f"executing the code at RIP 0x{lp.rip:X} (starts {data[:8].hex()}): only images of seamref.mint can run",
            "SEAM.fetch",
        )
    return program, parameters


def stand_in(platform: Platform, code: bytes) -> StandIn | None:
    """What was appointed to run in place of the code that starts with these 64 bytes; mostly nothing."""
    return next((instead for instead in platform.config.stand_ins if instead.code == code), None)


@lru_cache(maxsize=64)
def _stub_of(data: bytes) -> tuple[bool, bytes, bytes]:
    """Whether these bytes are a stub's, the program that they stand for, and its parameters."""
    stub = STUB.decode(data)
    return stub.code == ENDBR64_JMP, bytes(stub.program), bytes(stub.parameters)


def step(platform: Platform, lp_id: int) -> StepOutcome:
    """One step of the software in SEAM root on a processor."""
    lp = platform.lp(lp_id)
    if not lp.is_SEAM_root():
        raise SeamrefError(f"processor {lp_id} is in {lp.mode.value}: no software in SEAM root to step")
    try:
        fetched = fetch_program(platform, lp)
        if isinstance(fetched, Fault):
            return _fatal(platform, lp, f"{fetched} fetching the first instruction")
        program, parameters = fetched
        lp.program = program.name
        return program.step(platform, lp, parameters)
    except MemoryFault as error:
        return _fatal(platform, lp, str(error))
    except Ud2 as error:
        return _fatal(platform, lp, f"UD2: {error}")


@implements("SEAM.fault")
def _fatal(platform: Platform, lp: Lp, cause: str) -> Shutdown:
    """SEAM.fault."""
    return shutdown(platform, lp.id, cause)


def run(platform: Platform, lp_id: int) -> Left | Guest | Shutdown:
    """Step the software in SEAM root until the processor leaves it."""
    while True:
        outcome = step(platform, lp_id)
        match outcome:
            case Running():
                continue
            case Left() | Guest() | Shutdown():
                return outcome
            case Fault() | VmFailInvalid() | VmFailValid() | EntryFailed():
                return _fatal(platform, platform.lp(lp_id), f"SEAMRET or VM entry failed: {outcome}")


def call(platform: Platform, lp_id: int, **registers: int) -> SeamRun:
    """SEAMCALL with these registers, the software it enters, and the way back, all at once.

    Registers not named keep their values.  RIP is not moved by hardware; P-SEAMLDR and the module move it.
    """
    lp = platform.lp(lp_id)
    for name, value in registers.items():
        setattr(lp, name, value)
    outcome = seamcall(platform, lp_id)
    return run(platform, lp_id) if isinstance(outcome, Entered) else outcome


class Port:
    """Physical memory as the software on a processor sees it; a refused access is a :class:`MemoryFault`.

    What hardware aborts quietly (all ones, dropped) stays quiet here too.
    """

    __slots__ = ("agent", "lp", "platform")

    def __init__(self, platform: Platform, lp: Lp, agent: Agent | None = None) -> None:
        self.platform = platform
        self.lp = lp
        self.agent = agent if agent is not None else get_agent(lp)

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a physical address."""
        data = self.platform.load(self.agent, address, size, self.lp)
        if isinstance(data, Fault):
            raise MemoryFault(data, address, False)
        return data

    def write(self, address: int, data: bytes | bytearray) -> None:
        """Bytes to a physical address."""
        fault = self.platform.store(self.agent, address, data, self.lp)
        if fault is not None:
            raise MemoryFault(fault, address, True)

    def zero(self, address: int, size: int) -> None:
        """Zeros over a physical range."""
        fault = self.platform.zero(self.agent, address, size, self.lp)
        if fault is not None:
            raise MemoryFault(fault, address, True)

    def add(self, address: int, value: int, size: int, tells: int = 0) -> int:
        """LOCK XADD; of the old value only the bits ``tells``."""
        old = self.platform.add(self.agent, address, value, size, self.lp, tells=tells)
        if isinstance(old, Fault):
            raise MemoryFault(old, address, True)
        return old

    def read_int(self, address: int, size: int = 8) -> int:
        """A little-endian integer."""
        return int.from_bytes(self.read(address, size), "little")

    def write_int(self, address: int, value: int, size: int = 8) -> None:
        """A little-endian integer."""
        self.write(address, value.to_bytes(size, "little"))

    def physical(self, linear: int, *, write: bool = False) -> int:
        """Translate a linear address through the processor's CR3."""
        found = translate(self.platform, self.lp, linear, write=write)
        if isinstance(found, Fault):
            raise MemoryFault(found, linear, write)
        return found.physical
