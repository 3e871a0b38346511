"""What a step really read and wrote, said by the machine itself while it runs.

Partial-order reduction may only leave an order out when nobody could tell the difference.  So every access of a step
to anything that another actor could touch is noted where it happens: fields of the kernel's record, of the update
under way, of each CPU's record; registers and MSRs of a processor; SEAMEXTEND, SEAMDB, the mutex, entropy; every byte
of physical memory.  A write counts whether it changes the value or not.  What a property's check looked at counts as
read by the step that was checked, where the check could see that step: it changed something shared that the check looks
at, or the mode of its processor, or something was found wrong.

One kind of write is told apart: an *addition*, done by one primitive that does not tell what was there before
(``LOCK XADD`` of the platform, an arrival at the barrier of ``stop_machine``, a worker's result 0).  Additions to one
place commute.  Whoever does the same with a load and a store has read and written.

Memory has three granularities: accesses up to 1 KiB are noted by 16-bit word, up to 16 pages by page, longer ones by
2 MiB; :meth:`Recorder.places` says how they meet.

The classes here are the platform's and the kernel's own, with a note taken at each door; they change no behaviour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, NamedTuple

from seamref.arch import msr as msrs
from seamref.arch.lp import Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Fault
from seamref.arch.platform import Platform
from seamref.host.abi import Errno
from seamref.host.kernel import Host
from seamref.host.records import Control, Cpu, HostState, having, members

UPDATE = ("update", "update.state", "update.acks", "update.failures", "update.results")
HOST = ("module", "sysinfo", "seamldr_lock", "sysinit_lock", "hotplug_readers", "upload", "device", "tds", "heap",
        "printed_once", "script")
PLATFORM = ("SEAMEXTEND", "P_SEAMLDR_MUTEX", "p_seamldr_range", "seamdb", "bios_se_svn", "svn_locked",
            "flushed_sub_blocks", "entropy_drawn")
TABLES = ("injected", "key_table", "txt", "board", "msrs", "package_msrs")
"""Dictionaries of the platform: who takes one in hand may change it."""
NAMED = (*UPDATE, *HOST, "kernel, the rest", *PLATFORM, *TABLES)
CPU_PARTS: Mapping[str, tuple[str, ...]] = {
    "task": ("tasks", "finished", "irqs_off"),
    "record": ("online", "vmx_refs", "vmxon_region", "vmcs", "dead"),
    "lp_initialized": ("lp_initialized",),
    "cache_state": ("cache_state_incoherent",),
    "processor": (),
    "results": (),
    "notes": (),
}
"""What belongs to one CPU, each noted for itself: fields of the kernel's record; registers; what its jobs
returned; what properties keep."""
PARTS = tuple(CPU_PARTS)
PART_OF = {name: index for index, names in enumerate(CPU_PARTS.values()) for name in names}
PROCESSOR, RESULTS, NOTES = (PARTS.index(name) for name in ("processor", "results", "notes"))
BIT = {name: 1 << index for index, name in enumerate(NAMED)}
_REST = BIT["kernel, the rest"]
ACKS, STATE, FAILURES = BIT["update.acks"], BIT["update.state"], BIT["update.failures"]
_ALL_UPDATE = sum(BIT[name] for name in UPDATE)
_SKIPPED = frozenset({"series", "dmesg", "cpus", "update"})  # constant; read by nobody; noted field by field
SHORT, WORD = 1024, 1
"""Bytes of the longest access that is noted word by word; a word is two bytes (as a shift)."""
WIDE = 16
"""Pages from which on an access is noted by 2 MiB."""


class Seen(NamedTuple):
    """Sets of places: read, written, added to; ``joins``: whose additions, all of them, the last arrival waited for."""

    reads: int = 0
    writes: int = 0
    adds: int = 0
    joins: int = 0

    def conflicts(self, other: Seen) -> bool:
        """Whether the order of two such steps can matter."""
        ours, theirs = self.reads | self.adds, other.reads | other.adds
        return bool(
            self.writes & (theirs | other.writes) or other.writes & ours
            or self.adds & other.reads or other.adds & self.reads
        )

    def places(self, other: Seen) -> int:
        """Where two steps conflict."""
        ours, theirs = self.reads | self.adds, other.reads | other.adds
        return (self.writes & (theirs | other.writes) | other.writes & ours
                | self.adds & other.reads | other.adds & self.reads)


class _OfCpu(dict[int, tuple[int, ...]]):
    """Places by x2APIC id; a processor of no exploration has none."""

    def __missing__(self, id: int) -> tuple[int, ...]:
        return (0,) * len(PARTS)


RESERVED = 24
"""Words of a CPU's own pages that can be noted one by one."""
_FIRST = len(NAMED)
_DOORS = 3  # of an own page: the two of every page, and one for all words that are not told apart


class Recorder:
    """Notes of the step under way, and the numbering of places for one exploration.

    What belongs to one CPU has a block of numbers of its own, the same for all: its parts, the doors of its pages,
    words in them.  So an exchange of CPUs is an exchange of blocks.  Words of an own page are told apart only in pages
    that are ``opened``: while nobody but their CPU touches them, it does not matter which; :meth:`foreign` says where
    somebody did.
    """

    __slots__ = (
        "_memory",
        "_moves",
        "_names",
        "_open",
        "_pages_of",
        "_slots",
        "_stride",
        "arrived",
        "block",
        "chunks",
        "cpu",
        "last",
        "mine",
        "next",
        "notes",
        "noting",
        "opened",
        "own",
        "pages",
        "reads",
        "reserved",
        "rests",
        "saved",
        "tied",
        "walks",
        "words",
        "writes",
    )
    # "last": additions; kept short because it is touched at every access

    def __init__(self) -> None:
        self.begin((), None)

    def begin(self, apicids: Iterable[int], own: Mapping[int, tuple[int, int]] | None,
              opened: Iterable[int] = (), reserved: int = RESERVED) -> None:
        """Number the places of an exploration with these processors; ``own``: pages of one CPU each, ``opened``: which
        of a CPU's pages others touch word by word too."""
        self.reads = self.writes = self.last = 0
        self.arrived = False
        self.own = own or {}
        self.opened, self.reserved = frozenset(opened), reserved
        self.cpu = _OfCpu()
        ids = tuple(apicids)
        self._names: list[str] = []
        self._slots = 1 + max((slot for _, slot in self.own.values()), default=-1)
        self._pages_of = {held: page for page, held in self.own.items()}
        self._open: dict[tuple[int, int], int] = {}
        self._moves: dict[tuple[int, ...], list[tuple[int, int]]] = {}
        self._stride = len(PARTS) + _DOORS * self._slots + reserved
        whole, parts = (1 << self._stride) - 1, (1 << len(PARTS)) - 1
        self.block: list[int] = []
        self.mine: list[int] = []
        for number, id in enumerate(ids):
            at = _FIRST + number * self._stride
            self.cpu[id] = tuple(1 << at + part for part in range(len(PARTS)))
            self.block.append(whole << at)
            self.mine.append(parts << at)
        self.saved, self.tied = sum(self.mine), sum(self.block)
        rests = sum(1 << len(PARTS) + _DOORS * slot + 2 for slot in range(self._slots) if slot not in self.opened)
        self.rests = [
            sum(rests << _FIRST + other * self._stride for other in range(len(ids)) if other != number)
            for number in range(len(ids) + 1)
        ]
        self.next = 1 << _FIRST + len(ids) * self._stride
        self.pages: dict[int, int] = {}
        self.words: dict[int, int] = {}
        self.walks: dict[tuple[int, ...], int] = {}
        self.chunks: dict[int, int] = {}
        self.notes: dict[str, int] = {}
        self.noting = sum(bits[NOTES] for bits in self.cpu.values())
        self._memory: dict[tuple[int, int], tuple[int, int, int, int]] = {}

    def _new(self, name: str) -> int:
        bit, self.next = self.next, self.next << 1
        self._names.append(name)
        return bit

    def reset(self) -> None:
        """A new step begins."""
        self.reads = self.writes = self.last = 0
        self.arrived = False

    def taken(self, number: int) -> Seen:
        """What the step of a CPU touched (-1: of another actor); whoever arrived last may do nothing else."""
        if self.arrived:
            mine = self.mine[number] if number >= 0 else 0
            if (self.writes | self.last) & ~(mine | STATE | ACKS | FAILURES) or self.reads & ~(mine | _ALL_UPDATE):
                self.writes |= ACKS
                self.arrived = False
        return Seen(self.reads, self.writes, self.last, ACKS if self.arrived else 0)

    def foreign(self, number: int, places: int) -> frozenset[int]:
        """Which of a CPU's pages somebody else has touched word by word: CPU ``number`` (-1: who is no CPU) did."""
        found = places & self.rests[number]
        slots = set()
        while found:
            low = found & -found
            found ^= low
            slots.add(((low.bit_length() - 1 - _FIRST) % self._stride - len(PARTS)) // _DOORS)
        return frozenset(slots)

    def part(self, place: int) -> tuple[int, int]:
        """Which CPU a place belongs to, and which number it has there; (-1, 0): to none."""
        if not place & self.tied:
            return -1, 0
        return divmod(place.bit_length() - 1 - _FIRST, self._stride)

    def noted(self) -> int:
        """The notes of properties that were written since the last reset."""
        return self.writes & self.noting

    def looked(self) -> int:
        """Everything that was touched since the last reset, as one set."""
        return self.reads | self.writes | self.last

    # --- places in memory

    def places(self, at: int, size: int) -> tuple[int, int, int, int]:
        """What an access touches: places that a load reads; that a store writes; that it adds to; that an addition
        adds to.

        Pages, and chunks of pages, have two doors.  Whoever takes the whole of one reads it at the write door, and
        writes it at both; whoever takes a part reads at the read door and adds to the write door.  So the whole
        conflicts with its parts, and parts conflict by themselves.
        """
        found = self._memory.get((at, size))
        if found is None:
            found = self._memory[at, size] = self._find(at, size)
        return found

    def _find(self, at: int, size: int) -> tuple[int, int, int, int]:
        last = at + max(size, 1) - 1
        first_page, last_page = at >> 12, last >> 12
        chunk_r = chunk_w = page_r = page_w = words = 0
        for chunk in range(first_page >> 9, (last_page >> 9) + 1):
            chunk_r |= self._chunk(2 * chunk)
            chunk_w |= self._chunk(2 * chunk + 1)
        if last_page - first_page >= WIDE:
            return chunk_w, chunk_r | chunk_w, 0, 0
        for page in range(first_page, last_page + 1):
            page_r |= self._page(2 * page)
            page_w |= self._page(2 * page + 1)
        if size > SHORT:
            return page_w | chunk_r, page_r | page_w, chunk_w, 0
        for word in range(at >> WORD, (last >> WORD) + 1):
            words |= self._word(word)
        return words | page_r | chunk_r, words, page_w | chunk_w, words | page_w | chunk_w

    def _chunk(self, door: int) -> int:
        bit = self.chunks.get(door)
        if bit is None:
            bit = self.chunks[door] = self._new(f"the 2 MiB at 0x{door >> 1 << 21:X}")
        return bit

    def _page(self, door: int) -> int:
        bit = self.pages.get(door)
        if bit is None:
            held = self.own.get(door >> 1)
            bit = self.pages[door] = (
                self._new(f"the page at 0x{door >> 1 << 12:X}") if held is None
                else 1 << self._own(*held) + door % 2
            )
        return bit

    def _own(self, cpu: int, slot: int) -> int:
        return _FIRST + cpu * self._stride + len(PARTS) + _DOORS * slot

    def _word(self, word: int) -> int:
        bit = self.words.get(word)
        if bit is None:
            held = self.own.get(word >> 12 - WORD)
            if held is None:
                bit = self._new(f"memory at 0x{word << WORD:X}")
            else:
                cpu, slot = held
                bit = 1 << self._own(cpu, slot) + 2
                if slot in self.opened:
                    which = self._open.setdefault((slot, word & (1 << 12 - WORD) - 1), len(self._open))
                    if which < self.reserved:
                        bit = 1 << self._own(cpu, self._slots) + which
            self.words[word] = bit
        return bit

    def note(self, name: str) -> int:
        """A property's note."""
        bit = self.notes.get(name)
        if bit is None:
            bit = self.notes[name] = self._new(f"the note {name!r} of a property")
            self.noting |= bit
        return bit

    # --- for people, and for symmetry

    def words_of(self, places: int, most: int = 4) -> str:
        """Names of places."""
        names: list[str] = []
        while places and len(names) <= most:
            low = places & -places
            names.append(self._name(low))
            places ^= low
        return ", ".join(names[:most]) + (", ..." if len(names) > most else "")

    def _name(self, place: int) -> str:
        number = place.bit_length() - 1
        if number < _FIRST:
            return NAMED[number]
        if not place & self.tied:
            return self._names[number - _FIRST - len(self.block) * self._stride]
        cpu, which = self.part(place)
        if which < len(PARTS):
            return f"{PARTS[which]} of CPU {cpu}"
        slot, door = divmod(which - len(PARTS), _DOORS)
        if slot < self._slots:
            at = self._pages_of[cpu, slot] << 12
            return f"the page at 0x{at:X}" if door < 2 else f"memory in the page at 0x{at:X}"
        (slot, word), = (held for held, at in self._open.items() if at == which - len(PARTS) - _DOORS * self._slots)
        return f"memory at 0x{(self._pages_of[cpu, slot] << 12) + (word << WORD):X}"

    def permute(self, places: int, order: tuple[int, ...]) -> int:
        """The same places when CPU n is called ``order[n]``."""
        if not places & self.tied:
            return places
        moves = self._moves.get(order)
        if moves is None:
            moves = self._moves[order] = [
                (self.block[cpu], (other - cpu) * self._stride) for cpu, other in enumerate(order) if cpu != other]
        found = 0
        for block, by in moves:
            held = places & block
            if held:
                places ^= held
                found |= held << by if by > 0 else held >> -by
        return places | found


SAW = Recorder()
"""The notes of this process: explorations do not overlap in one."""


# --- the kernel ---------------------------------------------------------------------------------------------------


def _noted(getter: Callable[..., Any], putter: Callable[..., None], bit: int) -> property:
    def get(self: Any) -> Any:
        SAW.reads |= bit
        return getter(self)

    return property(get, lambda self, value: putter(self, value))


def _noted_cpu(getter: Callable[..., Any], putter: Callable[..., None], part: int, id: Callable[..., int]) -> property:
    def get(self: Any) -> Any:
        SAW.reads |= SAW.cpu[id(self)][part]
        return getter(self)

    return property(get, lambda self, value: putter(self, value))


_RAW_CPU = {name: (get, put) for name, get, put in members(Cpu)}
_RAW_CONTROL = {name: (get, put) for name, get, put in members(Control)}
_RAW_STATE = {name: (get, put) for name, get, put in members(HostState)}
_raw_cpus: Callable[[HostState], tuple[Cpu, ...]] = _RAW_STATE["cpus"][0]
_raw_update: Callable[[HostState], Control | None] = _RAW_STATE["update"][0]
_raw_id: Callable[[Cpu], int] = _RAW_CPU["apicid"][0]
_CONTROL_BIT = {"params": 0, "cpus": 0, "lead": 0, "state": STATE, "acks": ACKS, "failures": FAILURES,
                "rets": BIT["update.results"]}

SeenCpu: Any = type("SeenCpu", (Cpu,), {
    "__slots__": (), "__doc__": "A CPU's record that notes what is read of it.",
    **{name: _noted_cpu(get, put, PART_OF[name], _raw_id) for name, (get, put) in _RAW_CPU.items() if name != "apicid"},
})
SeenControl: Any = type("SeenControl", (Control,), {
    "__slots__": (), "__doc__": "An update under way that notes what is read of it.",
    **{name: _noted(get, put, _CONTROL_BIT[name]) for name, (get, put) in _RAW_CONTROL.items() if _CONTROL_BIT[name]},
})
SeenState: Any = type("SeenState", (HostState,), {
    "__slots__": (), "__doc__": "The kernel's record, noting what is read of it.",
    **{name: _noted(get, put, BIT.get(name, _REST)) for name, (get, put) in _RAW_STATE.items()
       if name not in _SKIPPED or name == "update"},
})


def _as(kind: Any, record: Any) -> Any:
    made = object.__new__(kind)
    for (_, get, _), (_, _, put) in zip(members(type(record)), members(kind), strict=True):
        put(made, get(record))
    return made


class SeenHost(Host):
    """A host that notes what is written, and by which primitive."""

    __slots__ = ()

    def set(self, **changes: Any) -> None:
        """Note the fields; records of CPUs and of the update become noting ones."""
        for name in changes:
            if name not in _SKIPPED:
                SAW.writes |= BIT.get(name, _REST)
        if "update" in changes:
            SAW.writes |= _ALL_UPDATE
            if type(changes["update"]) is Control:
                changes["update"] = _as(SeenControl, changes["update"])
        if "cpus" in changes:
            changes["cpus"] = tuple(
                self._replaced(old, new) for old, new in zip(_raw_cpus(self.state), changes["cpus"], strict=True)
            )
        self.state = having(self.state, **changes)

    def _replaced(self, old: Cpu, new: Cpu) -> Any:
        if new is old:
            return new
        SAW.writes |= sum(SAW.cpu[_raw_id(old)])
        return new if type(new) is SeenCpu else _as(SeenCpu, new)

    def set_cpu(self, number: int, **changes: Any) -> None:
        """Note the parts of the CPU's record."""
        cpus = _raw_cpus(self.state)
        bits = SAW.cpu[_raw_id(cpus[number])]
        for name in changes:
            SAW.writes |= bits[PART_OF[name]]
        self.state = having(self.state, cpus=(*cpus[:number], having(cpus[number], **changes), *cpus[number + 1 :]))

    def set_control(self, **changes: Any) -> None:
        """Note the fields; what the last to arrive does to the barrier is part of arriving."""
        held = _raw_update(self.state)
        if held is None:
            self.control()
            return
        for name, value in changes.items():
            if name == "acks" and SAW.arrived and value == 0:
                continue
            if name == "state" and SAW.arrived and value != _RAW_CONTROL["state"][0](held) + 1:
                SAW.writes |= ACKS
            SAW.writes |= _CONTROL_BIT[name] or _ALL_UPDATE
        self.state = having(self.state, update=having(held, **changes))

    def arrive(self, count: int) -> bool:
        """An addition, if it is for all workers."""
        held = _raw_update(self.state)
        if held is None:
            return super().arrive(count)
        SAW.reads |= BIT["update"]
        if count == len(held.cpus):
            SAW.last |= ACKS
        else:
            SAW.reads |= ACKS
            SAW.writes |= ACKS
        acks = _RAW_CONTROL["acks"][0](held) + 1
        self.state = having(self.state, update=having(held, acks=acks))
        SAW.arrived = SAW.arrived or acks == count
        return bool(acks == count)

    def returned(self, number: int, ret: Errno) -> None:
        """An addition, unless it is an error: those are read in their order."""
        held = _raw_update(self.state)
        if held is None:
            return super().returned(number, ret)
        SAW.reads |= BIT["update"]
        bit = BIT["update.results"]
        if ret is Errno.OK:
            SAW.last |= bit
        else:
            SAW.writes |= bit
        rets = (*_RAW_CONTROL["rets"][0](held), (number, ret))
        self.state = having(self.state, update=having(held, rets=rets))
        return None


# --- the platform -------------------------------------------------------------------------------------------------


def _door(name: str) -> property:
    slot: Any = Platform.__dict__[name]
    bit = BIT[name]

    def get(self: Any) -> Any:
        SAW.reads |= bit
        return slot.__get__(self)

    def put(self: Any, value: Any) -> None:
        if name == "svn_locked" and value:
            SAW.last |= bit  # SEAMOPS locks it whoever comes first: doing so twice is doing it once
        else:
            SAW.writes |= bit
        slot.__set__(self, value)

    return property(get, put)


def _table(name: str) -> property:
    slot: Any = Platform.__dict__[name]
    bit = BIT[name]

    def get(self: Any) -> Any:
        SAW.reads |= bit
        SAW.writes |= bit
        return slot.__get__(self)

    def put(self: Any, value: Any) -> None:
        SAW.writes |= bit
        slot.__set__(self, value)

    return property(get, put)


_raw_injected: Any = Platform.__dict__["injected"].__get__
_raw_range: Any = Platform.__dict__["p_seamldr_range"].__get__


class _Doors(Platform):
    """Memory, processors, entropy."""

    __slots__ = ()

    def fork(self) -> Platform:
        """Copying is no access."""
        kept = SAW.reads, SAW.writes, SAW.last
        other = super().fork()
        SAW.reads, SAW.writes, SAW.last = kept
        return other

    def lp(self, id: int) -> Lp:
        """A handle that may be written."""
        bits = SAW.cpu.get(id)
        if bits is not None:
            SAW.writes |= bits[PROCESSOR]
        return super().lp(id)

    def peek_lp(self, id: int) -> Lp:
        """A handle for reading."""
        bits = SAW.cpu.get(id)
        if bits is not None:
            SAW.reads |= bits[PROCESSOR]
        return super().peek_lp(id)

    def every_lp(self) -> Iterable[Lp]:
        """All of them, for reading."""
        for bits in SAW.cpu.values():
            SAW.reads |= bits[PROCESSOR]
        return super().every_lp()

    def msr_value(self, lp: Lp, address: int) -> int:
        """An MSR of a processor was noted with its handle; others are noted here."""
        match msrs.MSRS[address].scope:
            case msrs.Scope.CORE:
                return super().msr_value(lp, address)
            case msrs.Scope.PACKAGE:
                name = "package_msrs"
            case _:
                name = "msrs"
        kept = SAW.writes
        value = super().msr_value(lp, address)
        SAW.reads |= BIT[name]
        SAW.writes = kept
        return value

    def take_injected(self, source: str) -> Any:
        """Looking whether an answer was injected is a read; taking it a write."""
        if not _raw_injected(self).get(source):
            SAW.reads |= BIT["injected"]
            return None
        return super().take_injected(source)

    def load(self, agent: Agent, address: int, size: int, lp: Lp | None = None) -> bytes | Fault:
        """A read."""
        SAW.reads |= SAW.places(self.split(address)[1], size)[0]
        return super().load(agent, address, size, lp)

    def store(self, agent: Agent, address: int, data: bytes | bytearray, lp: Lp | None = None) -> Fault | None:
        """A write."""
        _, writes, adds, _ = SAW.places(self.split(address)[1], len(data))
        SAW.writes |= writes
        SAW.last |= adds
        return super().store(agent, address, data, lp)

    def zero(self, agent: Agent, address: int, size: int, lp: Lp | None = None) -> Fault | None:
        """A write of all pages."""
        _, writes, adds, _ = SAW.places(self.split(address)[1], max(size, SHORT + 1))
        SAW.writes |= writes
        SAW.last |= adds
        return super().zero(agent, address, size, lp)

    def walked(self, entries: tuple[int, ...]) -> None:
        """Page tables that were walked before are read again."""
        bits = SAW.walks.get(entries)
        if bits is None:
            bits = 0
            for at in entries:
                bits |= SAW.places(self.split(at)[1], 8)[0]
            SAW.walks[entries] = bits
        SAW.reads |= bits

    def add(
        self, agent: Agent, address: int, value: int, size: int, lp: Lp | None = None, *, tells: int = 0
    ) -> int | Fault:
        """An addition."""
        kept = SAW.reads | BIT["p_seamldr_range"], SAW.writes, SAW.last
        old = super().add(agent, address, value, size, lp, tells=tells)
        SAW.reads, SAW.writes, SAW.last = kept
        SAW.last |= SAW.places(self.split(address)[1], size)[3]
        return old


SeenPlatform: Any = type("SeenPlatform", (_Doors,), {
    "__slots__": (), "__doc__": "A platform that notes every access to what processors share.",
    **{name: _door(name) for name in PLATFORM}, **{name: _table(name) for name in TABLES},
})


def observed(host: Host) -> Host:
    """A copy of a host that notes what is done to it."""
    copy = host.fork()
    copy.platform.__class__ = SeenPlatform
    state = _as(SeenState, copy.state)
    cpus = tuple(_as(SeenCpu, record) for record in _raw_cpus(state))
    update = _raw_update(state)
    copy.state = having(state, cpus=cpus, update=update if update is None else _as(SeenControl, update))
    copy.__class__ = SeenHost
    return copy


def raw_cpus(host: Host) -> tuple[Cpu, ...]:
    """The CPUs' records, without a note."""
    return _raw_cpus(host.state)


def raw_state(host: Host, name: str) -> Any:
    """A field of the kernel's record, without a note."""
    return _RAW_STATE[name][0](host.state)


__all__ = ["NAMED", "SAW", "Recorder", "Seen", "SeenHost", "SeenPlatform", "observed", "raw_cpus", "raw_state"]
