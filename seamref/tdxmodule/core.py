"""What every leaf of the TDX module stands on: its memory, its locks, the shape of a call.

The module keeps no state but bytes: global data, processor-local data and handoff data in its data region (reached
through FS base, GS base and the page tables P-SEAMLDR built), PAMT, TDR, TDCS, TDVPS and secure EPT in memory that
the host gave, under KeyIDs.  :class:`Call` is rebuilt from those bytes at every step.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeAlias

from seamref.arch.lp import GPRS, Lp
from seamref.arch.outcome import Guest
from seamref.arch.software import Port, Running, StepOutcome, Ud2
from seamref.arch.structures import SYS_INFO_TABLE
from seamref.arch.trace import Step
from seamref.arch.vmcs import BY_NAME
from seamref.arch.vmx import vmread, vmwrite
from seamref.errors import SeamrefError
from seamref.layout import Array, Bits, FieldType, Int, Layout, Raw, Record
from seamref.spec import CheckTable, implements
from seamref.tdxmodule.build import DETECT_AFTER_UPDATE, TD_PRESERVING, read_build
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status
from seamref.tdxmodule.structures import (
    GLOBAL_DATA,
    HANDOFF_HEADER,
    LOCAL_DATA,
    PAGE,
    PAMT_ENTRY,
    TDCS,
    TDR,
    TDVPS,
    PageType,
)

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


# --- memory ---------------------------------------------------------------------------------------------------


class Space(Protocol):
    """Bytes by address."""

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes."""
        ...

    def write(self, address: int, data: bytes) -> None:
        """Store bytes."""
        ...

    def add(self, address: int, value: int, size: int, tells: int = 0) -> int:
        """LOCK XADD within one page; of the old value only the bits ``tells``."""
        ...


class Linear:
    """Linear addresses of the processor, translated through its CR3; translations are kept for one step."""

    __slots__ = ("pages", "port")

    def __init__(self, port: Port) -> None:
        self.port = port
        self.pages: dict[tuple[int, bool], int] = {}

    def physical(self, address: int, write: bool) -> int:
        """Physical address; a fault of the walk is a :class:`MemoryFault`."""
        key = (address >> 12, write)
        found = self.pages.get(key)
        if found is None:
            found = self.pages[key] = self.port.physical(address, write=write) & ~0xFFF
        return found | address & 0xFFF

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a linear address."""
        out = b""
        while size:
            part = min(size, PAGE - address % PAGE)
            out += self.port.read(self.physical(address, False), part)
            address += part
            size -= part
        return out

    def write(self, address: int, data: bytes) -> None:
        """Bytes to a linear address."""
        done = 0
        while done < len(data):
            part = min(len(data) - done, PAGE - (address + done) % PAGE)
            self.port.write(self.physical(address + done, True), data[done : done + part])
            done += part

    def add(self, address: int, value: int, size: int, tells: int = 0) -> int:
        """LOCK XADD at a linear address (a field does not straddle pages)."""
        return self.port.add(self.physical(address, True), value, size, tells)


@lru_cache(maxsize=4096)
def _where(layout: Layout, path: str) -> tuple[FieldType, int]:
    return layout.resolve(path)


@dataclass(frozen=True, slots=True)
class View:
    """A structure in memory, read and written field by field."""

    layout: Layout
    space: Space
    base: int

    def get(self, path: str) -> Any:
        """A field's value."""
        kind, at = _where(self.layout, path)
        data = self.space.read(self.base + at, kind.size)
        match kind:
            case Int() | Bits():
                return int.from_bytes(data, "little")
            case Raw():
                return data
            case Array(of=Int(size=size), count=count):
                return [int.from_bytes(data[i * size : (i + 1) * size], "little") for i in range(count)]
            case Layout():
                return kind.decode(data)
            case _:
                raise SeamrefError(f"{self.layout.name}.{path}: read its elements one by one")

    def num(self, path: str) -> int:
        """An integer field."""
        kind, at = _where(self.layout, path)
        return int.from_bytes(self.space.read(self.base + at, kind.size), "little")

    def raw(self, path: str) -> bytes:
        """A field's bytes."""
        kind, at = _where(self.layout, path)
        return self.space.read(self.base + at, kind.size)

    def set(self, path: str, value: int | bytes) -> None:
        """Replace a field."""
        kind, at = _where(self.layout, path)
        data = value.to_bytes(kind.size, "little") if isinstance(value, int) else bytes(value)
        if len(data) != kind.size:
            raise SeamrefError(f"{self.layout.name}.{path}: {len(data)} bytes, the field has {kind.size}")
        self.space.write(self.base + at, data)

    def add(self, path: str, value: int) -> None:
        """Add to an integer field in one locked access that does not tell what was there."""
        kind, at = _where(self.layout, path)
        self.space.add(self.base + at, value, kind.size)

    def address(self, path: str) -> int:
        """Address of a field."""
        return self.base + _where(self.layout, path)[1]


# --- locks ----------------------------------------------------------------------------------------------------


class Lock(NamedTuple):
    """A lock held: kind ``s`` shared, ``x`` exclusive, ``m`` mutex, ``S`` and ``X`` of a page; where it lies."""

    kind: str
    linear: bool
    address: int


@implements("LOCK.exclusive", "exclusive: only from 0 to 1; never waits", "TDXM tdx_locks.h")
def _take_exclusive(space: Space, address: int) -> bool:
    if int.from_bytes(space.read(address, 2), "little"):
        return False
    space.write(address, b"\1\0")
    return True


@implements("LOCK.shared", "shared: adds a reader in bits 15:1; a failed attempt leaves its reader behind",
            "TDXM tdx_locks.h")
def _take_shared(space: Space, address: int) -> bool:
    return not space.add(address, 2, 2, tells=1)


HOST_PRIORITY, READER = 2, 4


@implements("LOCK.page", "a PAMT entry's lock: bit 0 exclusive, bit 1 host priority, which a host that waits sets "
            "and a host that comes takes away, readers from bit 2", "TDXM tdx_locks.h")
def _take_page(space: Space, address: int, kind: str) -> bool:
    """LOCK.page: guests give way while host priority is set."""
    value = int.from_bytes(space.read(address, 2), "little")
    if kind == "X":
        taken, after = not value & ~HOST_PRIORITY, 1
    else:
        taken, after = not value & 1, (value & ~HOST_PRIORITY) + READER
    space.write(address, ((after if taken else value | HOST_PRIORITY) & 0xFFFF).to_bytes(2, "little"))
    return taken


def _release_page(space: Space, address: int, kind: str) -> None:
    value = int.from_bytes(space.read(address, 2), "little")
    space.write(address, (value & HOST_PRIORITY if kind == "X" else value - READER & 0xFFFF).to_bytes(2, "little"))


@implements("LOCK.mutex", "8-bit mutex", "TDXM tdx_locks.h")
def _take_mutex(space: Space, address: int) -> bool:
    if space.read(address, 1) != b"\0":
        return False
    space.write(address, b"\1")
    return True


@implements("LOCK.release", "an exclusive holder stores 0, which erases leftovers; a reader subtracts itself",
            "TDXM tdx_locks.h")
def _release(space: Space, lock: Lock) -> None:
    match lock.kind:
        case "x":
            space.write(lock.address, b"\0\0")
        case "s":
            space.add(lock.address, -2, 2)
        case "m":
            space.write(lock.address, b"\0")
        case "X" | "S":
            _release_page(space, lock.address, lock.kind)
        case _:
            raise SeamrefError(f"lock kind {lock.kind!r}")


# --- results of checks ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """What a check row results in: a status, with an operand id, or with details that the check found."""

    status: Status
    operand: Operand | None = None
    found: bool = False

    def result(self, call: Call) -> Result:
        """The status word for this call."""
        if self.operand is not None:
            return Result(self.status, int(self.operand))
        return Result(self.status, call.found if self.found else 0)

    def __str__(self) -> str:
        more = f" + {self.operand.name}" if self.operand is not None else " + details" if self.found else ""
        return self.status.name + more


# --- one call ---------------------------------------------------------------------------------------------------


class Call:
    """One stay of a processor in the module: registers, memory, and what checks found on the way.

    ``found`` is the details value of the row that stops; ``held`` the locks taken and not yet released.
    """

    __slots__ = ("build", "fixed", "found", "glob", "held", "linear", "local", "lp", "platform", "port", "table")

    def __init__(self, platform: Platform, lp: Lp) -> None:
        self.platform = platform
        self.lp = lp
        self.port = Port(platform, lp)
        self.linear = Linear(self.port)
        self.local = View(LOCAL_DATA, self.linear, lp.gs_base)
        self.table = View(SYS_INFO_TABLE, self.linear, self.local.num("sysinfo"))
        self.glob = View(GLOBAL_DATA, self.linear, self.local.num("global"))
        self.build: Record = read_build(platform, self.linear.read, lp.rip)
        self.found = 0
        self.held: list[Lock] = []
        self.fixed: dict[str, int] = {}

    # --- registers (as saved at entry)

    def reg(self, name: str) -> int:
        """A register of the caller."""
        found = self.fixed.get(name)
        if found is None:
            found = self.fixed[name] = self.local.num(f"gprs[{GPRS.index(name)}]")
        return found

    def out(self, **values: int) -> None:
        """Set registers the caller sees on return."""
        for name, value in values.items():
            self.local.set(f"gprs[{GPRS.index(name)}]", value & (1 << 64) - 1)

    @property
    def rcx(self) -> int:
        """RCX at entry."""
        return self.reg("rcx")

    @property
    def rdx(self) -> int:
        """RDX at entry."""
        return self.reg("rdx")

    @property
    def r8(self) -> int:
        """R8 at entry."""
        return self.reg("r8")

    @property
    def r9(self) -> int:
        """R9 at entry."""
        return self.reg("r9")

    @property
    def leaf(self) -> int:
        """RAX[15:0]."""
        return self.reg("rax") & 0xFFFF

    @property
    def version(self) -> int:
        """RAX[23:16]."""
        return self.reg("rax") >> 16 & 0xFF

    def has(self, knob: int) -> bool:
        """Whether this build has a knob."""
        return bool(self.build.knobs & knob)

    @property
    def detects(self) -> bool:
        """Whether this build notices an update that interrupted a TD build."""
        return self.has(DETECT_AFTER_UPDATE)

    # --- the data region

    @property
    def state(self) -> int:
        """The global lifecycle state."""
        return self.glob.num("sys_state")

    @property
    def handoff(self) -> View:
        """The handoff header, first bytes of the data region."""
        return View(HANDOFF_HEADER, self.linear, self.table.num("data_rgn_base"))

    @property
    def num_addressable(self) -> int:
        """N: processors that have a block in the data region, from the size of the stack region."""
        return region_lps(self.table)

    @property
    def local_size(self) -> int:
        """Bytes of one processor's block."""
        return (self.table.num("num_tls_pages") + 1) * PAGE

    @property
    def locals_base(self) -> int:
        """Linear address of processor block 0."""
        return self.table.num("data_rgn_base") + handoff_bytes(self.table, self.build)

    def local_of(self, lp_id: int) -> View:
        """Another processor's local data."""
        return View(LOCAL_DATA, self.linear, self.locals_base + lp_id * self.local_size)

    @property
    def package(self) -> int:
        """Package number: x2APIC id >> package shift."""
        from seamref.arch.cpuid import cpuid

        return cpuid(self.platform, self.lp, 0x1F, 0).edx >> cpuid(self.platform, self.lp, 0x1F, 1).eax

    # --- locks

    def lock(self, kind: str, address: int, *, linear: bool = True) -> bool:
        """Try to take a lock; taken ones are released when the call ends, or by :meth:`unlock`."""
        space: Space = self.linear if linear else self.port
        if kind in ("X", "S"):
            taken = _take_page(space, address, kind)
        else:
            taken = {"x": _take_exclusive, "s": _take_shared, "m": _take_mutex}[kind](space, address)
        if taken:
            self.held.append(Lock(kind, linear, address))
        return taken

    def unlock(self) -> None:
        """Release every lock held, the last one first."""
        while self.held:
            lock = self.held.pop()
            _release(self.linear if lock.linear else self.port, lock)

    # --- TD memory

    def with_hkid(self, pa: int, hkid: int) -> int:
        """A physical address with KeyID bits."""
        return self.platform.with_keyid(pa, hkid)

    def is_shared(self, pa: int, align: int) -> bool:
        """A host buffer: aligned, below the limit, not inside SEAMRR, KeyID not private."""
        if pa & (align - 1) or pa >> min(self.platform.config.maxpa, 52):
            return False
        keyid, plain = self.platform.split(pa)
        base, size = self.glob.num("seamrr_base"), self.glob.num("seamrr_size")
        return not self.platform.is_private(keyid) and not base <= plain < base + size

    def is_private_hkid(self, hkid: int) -> bool:
        """A KeyID that IA32_MKTME_KEYID_PARTITIONING gives to TDX."""
        return self.glob.num("private_hkid_min") <= hkid <= self.glob.num("private_hkid_max")

    def tdmr_of(self, pa: int) -> int | None:
        """Index of the TDMR whose initialised, not reserved part holds a page."""
        for i in range(self.glob.num("num_tdmrs")):
            entry = View(self.glob.layout, self.linear, self.glob.base)
            base = entry.num(f"tdmrs[{i}].base")
            if base <= pa < base + entry.num(f"tdmrs[{i}].size"):
                usable = entry.num(f"tdmrs[{i}].next_to_init") & ~((1 << 30) - 1)
                return i if pa < usable else None
        return None

    def pamt(self, pa: int) -> View:
        """The PAMT entry of a 4 KiB page in an initialised TDMR, under the global KeyID."""
        index = self.tdmr_of(pa)
        if index is None:
            raise Ud2(f"no PAMT entry for 0x{pa:X}")
        first = self.glob.num(f"tdmrs[{index}].base")
        at = self.glob.num(f"tdmrs[{index}].pamt_4k_base") + (pa - first >> 12) * PAMT_ENTRY.size
        return View(PAMT_ENTRY, self.port, self.with_hkid(at, self.glob.num("hkid")))

    def tdr(self, pa: int) -> View:
        """A TDR page, under the global KeyID."""
        return View(TDR, self.port, self.with_hkid(pa, self.glob.num("hkid")))

    def tdcs(self, tdr: View) -> View:
        """A TD's control structure, under the TD's KeyID."""
        return View(TDCS, self.port, tdr.num("tdcx_pa[0]"))

    def tdvps(self, pa: int, tdr: View) -> View:
        """A vCPU, under the TD's KeyID."""
        return View(TDVPS, self.port, self.with_hkid(pa, tdr.num("hkid")))

    def give_page(self, pa: int, type: PageType, owner: int, hkid: int) -> None:
        """Take a free page into use: zeroed under its KeyID in whole lines, PAMT entry typed and owned."""
        self.port.write(self.with_hkid(pa, hkid), bytes(PAGE))
        entry = self.pamt(pa)
        entry.set("type", type)
        entry.set("owner", owner >> 12)


def region_lps(table: View) -> int:
    """Processors with a stack: region pages / (data stack pages + one shadow stack page)."""
    pages = table.num("stack_rgn_size") // PAGE
    return pages // (table.num("num_stack_pages") + 2)


def handoff_bytes(table: View, build: Record) -> int:
    """Bytes reserved for handoff data; none in a module that does not preserve TDs."""
    if not build.tdx_features0 & TD_PRESERVING:
        return 0
    return (table.num("num_handoff_pages") + 1) * PAGE


Stage: TypeAlias = "CheckTable[Call, Answer] | Callable[[Call], Result | None]"
"""A part of a leaf's checks: an ordered table, or a shared sub-check (a page, a TD's state)."""
Effect: TypeAlias = "Callable[[Call], Result | Guest | None]"
"""A separable piece of a leaf's work; ``None`` goes on to the next piece."""


@dataclass(frozen=True, slots=True)
class Leaf:
    """One function of the module: inputs, checks, effect, result.

    ``outputs``  registers zeroed before the checks (``ones`` of them set to all ones instead)
    ``states``   SYS states in which the dispatcher lets it through
    ``late``     the handler itself judges versions, and knows 0 and 1
    ``versions`` highest version of the leaf that a build takes (by knob), besides 0
    ``knob``     the build must have it, or there is no such leaf
    """

    number: int
    name: str
    says: str
    stages: tuple[Stage, ...]
    effects: tuple[Effect, ...]
    outputs: tuple[str, ...] = ()
    ones: tuple[str, ...] = ()
    before_ready: bool = False
    versions: tuple[tuple[int, int], ...] = ()
    late: bool = False
    inputs: str = ""
    knob: int = 0


LEAVES: dict[int, Leaf] = {}
"""Host-side functions by leaf number, in the order of import."""


def leaf(number: int, name: str, says: str, **more: Any) -> Leaf:
    """Declare a host-side function."""
    if number in LEAVES:
        raise SeamrefError(f"leaf {number} is declared twice: {LEAVES[number].name} and {name}")
    LEAVES[number] = made = Leaf(number, name, says, **more)
    return made


def run_stage(stage: Stage, call: Call) -> Result | None:
    """Walk one stage; the row or sub-check that stops gives the result."""
    if isinstance(stage, CheckTable):
        row = stage.decide(call)
        return None if row is None else row.result.result(call)
    return stage(call)


@dataclass(frozen=True, slots=True)
class At:
    """Where in a call a processor is (``lp.program_state``): plain values, so that a copy is a copy."""

    phase: str
    effect: int = 0
    held: tuple[Lock, ...] = field(default=())


def vmcs_field(platform: Platform, lp: Lp, name: str) -> int:
    """VMREAD of the current VMCS."""
    value = vmread(platform, lp.id, BY_NAME[name].encoding)
    if not isinstance(value, int):
        raise Ud2(f"VMREAD {name}: {value}")
    return value


def keep_inputs(call: Call, leaf: Leaf) -> None:
    """Put aside inputs of registers that are outputs too: on the stack, as the real handlers do."""
    names = (*leaf.outputs, *leaf.ones)
    if names:
        call.local.set("inputs", b"".join(call.reg(n).to_bytes(8, "little") for n in names).ljust(64, b"\0"))


def restore_inputs(call: Call, leaf: Leaf) -> None:
    """Take them back at the next step."""
    names = (*leaf.outputs, *leaf.ones)
    if names:
        data = call.local.raw("inputs")
        call.fixed.update({n: int.from_bytes(data[8 * i : 8 * i + 8], "little") for i, n in enumerate(names)})


@implements("MODULE.result", "locks released, RAX = status", "TDXM src/vmm_dispatcher/tdx_vmm_dispatcher.c")
def finish(call: Call, result: Result) -> StepOutcome:
    """MODULE.result: the end of a leaf, before the registers go back to the caller."""
    call.unlock()
    call.out(rax=result.rax)
    if call.platform.listeners:
        found = LEAVES.get(call.leaf)
        call.platform.emit(Step(call.lp.id, "TDX module", found.name if found else f"leaf {call.leaf}", str(result)))
    call.lp.program_state = At("leave")
    return Running(str(result))


@implements("MODULE.rip", "hardware saved the address of SEAMCALL: software adds the instruction length and ends "
            "STI and MOV-SS blocking", "TDXM tdx_seamret_to_vmm.S")
def advance_rip(platform: Platform, lp: Lp) -> None:
    """MODULE.rip: in the transfer VMCS, which is current."""
    rip = vmcs_field(platform, lp, "guest_rip") + vmcs_field(platform, lp, "exit_instruction_length")
    vmwrite(platform, lp.id, BY_NAME["guest_rip"].encoding, rip & (1 << 64) - 1)
    blocking = vmcs_field(platform, lp, "guest_interruptibility")
    vmwrite(platform, lp.id, BY_NAME["guest_interruptibility"].encoding, blocking & ~3)


def ok(call: Call) -> Result:
    """An effect that only ends the call well."""
    return SUCCESS


__all__ = ["LEAVES", "Answer", "At", "Call", "Effect", "Leaf", "Linear", "Lock", "Space", "Stage", "View", "leaf",
           "run_stage"]
