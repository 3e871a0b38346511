"""Fingerprints of worlds, and of worlds up to an exchange of interchangeable processors.

A world is cut into one part per CPU and a rest.  A CPU's part is everything that belongs to it: registers and active
VMCSs, its pages (transfer VMCS, stack, local data, VMXON region, the VMM's VMCS), the kernel's record, its bits in
bitmaps indexed by x2APIC id, the locks it holds, what it returned.  Addresses inside a CPU's own
pages and linear ranges are written as *which range, which offset*, so that two CPUs in the same situation have equal
parts.  The plain fingerprint lists the parts in the order of the CPUs; the canonical one sorts them within each group
of interchangeable CPUs.  How many worlds one canonical fingerprint stands for follows from how many parts are equal:
their sum over an exploration with symmetry must be the number of states without it, and a test compares.

What nobody will read is left out: the kernel's log, how many steps an actor took, the order in which workers returned
0, and the words that P-SEAMLDR's next entry overwrites.

Not recognising an address costs reduction, never soundness: the parts then merely differ.
"""

from __future__ import annotations

from collections import Counter
from hashlib import blake2b
from math import factorial
from typing import Any, NamedTuple

from seamref.arch.lp import _VALUES, Lp
from seamref.arch.store import CHUNK
from seamref.arch.vmcs import FIELDS
from seamref.explore.world import Setting, World
from seamref.host.abi import Args
from seamref.host.records import Call, Control, Cpu, Task, members

_WORDS = tuple(field.offset for field in FIELDS if field.size == 8)
_PAGE = 4096
_ADDRESSES = ("rcx", "rdx", "r8")


def _getters(kind: type[Any], *without: str) -> list[tuple[str, Any]]:
    return [(name, get) for name, get, _ in members(kind) if name not in without]


_PLAIN = [get for _, get in _getters(Cpu, "apicid", "vmxon_region", "vmcs", "tasks")]
_TASK = [get for _, get in _getters(Task, "call", "returned", "saved", "data")]
_CALL = [get for _, get in _getters(Call, "args")]
_CONTROL = [get for _, get in _getters(Control, "rets", "cpus")]
_ARGS = _getters(Args)
_LIMIT = 200_000


class Print(NamedTuple):
    """A fingerprint, how many worlds have it (1 without symmetry), and the parts of the CPUs in their order."""

    key: bytes
    worlds: int
    parts: tuple[bytes, ...] = ()


def _digest(data: bytes | bytearray) -> bytes:
    return blake2b(data, digest_size=16).digest()


def _as_text(item: tuple[Any, Any]) -> str:
    return str(item[0])


class _Names(dict[int, Any]):
    """What an address is called in one CPU's registers: itself, or a place in that CPU's own ranges."""

    def __init__(self, canon: Canon, cpu: int, linear: int) -> None:
        self.canon, self.cpu, self.linear = canon, cpu, bool(linear)

    def __missing__(self, value: int) -> Any:
        if len(self) > _LIMIT:
            self.clear()
        named = self[value] = self.canon._named(self.cpu, value, self.linear)
        return named


class Canon:
    """Computes fingerprints for one setting; remembers the parts of what did not change."""

    def __init__(self, setting: Setting, apicids: tuple[int, ...], symmetry: bool) -> None:
        self.setting = setting
        self.apicids = apicids
        self.number = {id: cpu for cpu, id in enumerate(apicids)}
        own = setting.own or {}
        self.pages: list[list[tuple[int, int]]] = [[] for _ in apicids]
        for page, (cpu, which) in own.items():
            self.pages[cpu].append((which, page))
        for pages in self.pages:
            pages.sort()
        self.bitmap_pages = {at // _PAGE for at, _ in setting.bitmaps}
        self.pointer_pages: dict[int, list[int]] = {}
        for at in (*setting.pointers, *setting.stale):
            self.pointer_pages.setdefault(at // _PAGE, []).append(at % _PAGE)
        self.left_out = frozenset(own) | self.bitmap_pages | set(self.pointer_pages)
        self.groups = setting.same if symmetry else ()
        self.alone = tuple(
            cpu for cpu in range(len(apicids)) if not any(cpu in group for group in self.groups)
        )
        self._cpu: dict[int, tuple[Cpu, bytes]] = {}
        self._page: dict[tuple[int, bytes], bytes] = {}
        self._shared: dict[bytes, tuple[bytes, tuple[tuple[int, str], ...]]] = {}
        self._where: dict[tuple[int, bool], tuple[int, str] | None] = {}
        self._names = {(cpu, linear): _Names(self, cpu, linear) for cpu in range(len(apicids)) for linear in (0, 1)}
        self._vmcs: dict[tuple[int, int, bytes], tuple[tuple[tuple[int, str], ...], bytes]] = {}
        self._frozen: dict[int, tuple[Any, bytes]] = {}
        self._whole: dict[tuple[Any, ...], bytes] = {}
        self._tables: dict[str, tuple[Any, bytes]] = {}
        self._places: dict[int, list[list[tuple[int, int, int]]]] = {}
        for cpu, pages in enumerate(self.pages):
            for which, page in pages:
                number, index = divmod(page, CHUNK)
                self._places.setdefault(number, [[] for _ in apicids])[cpu].append((which, page, index))
        self._unnoted: tuple[tuple[Any, ...], ...] = tuple(() for _ in apicids)
        self._empty = tuple(b"" for _ in apicids)

    # --- addresses

    def owner(self, value: int, linear: bool = False) -> tuple[int, str] | None:
        """Whose own range an address is in, and where in it; linear ones are the module's and mean it only there."""
        if value < _PAGE:
            return None
        try:
            return self._where[value, linear]
        except KeyError:
            found = None
            page = (self.setting.own or {}).get(value // _PAGE)
            if page is not None:
                found = page[0], f"{page[1]}+{value % _PAGE}"
            elif linear:
                for base, size, cpu, name in self.setting.moves:
                    if base <= value < base + size:
                        found = cpu, f"{name}+{value - base}"
                        break
            if len(self._where) > _LIMIT:
                self._where.clear()
            self._where[value, linear] = found
            return found

    def _named(self, cpu: int, value: Any, linear: bool = False) -> Any:
        if isinstance(value, int):
            found = self.owner(value, linear)
            if found is not None and found[0] == cpu:
                return found[1]
        return value

    def _words(
        self, cpu: int, data: bytearray, offsets: tuple[int, ...] | range, linear: bool
    ) -> list[tuple[int, str]]:
        """Take the 64-bit words that point into this CPU's ranges out of some bytes."""
        taken = []
        for at in offsets:
            found = self.owner(int.from_bytes(data[at : at + 8], "little"), linear)
            if found is not None and found[0] == cpu:
                taken.append((at, found[1]))
                data[at : at + 8] = bytes(8)
        return taken

    # --- one CPU

    def lp_part(self, cpu: int, lp: Lp) -> bytes:
        """The digest of a processor."""
        if lp._digest is None or lp._digest[0] is not self:
            names = self._names[cpu, lp.inSEAM and not lp.inP_SEAMLDR]
            values = [value if value.__class__ is not int or value < _PAGE else names[value] for value in _VALUES(lp)]
            vmcss = []
            for at, held in sorted(lp.vmcs_cache.items()):
                vmcss.append((self._named(cpu, at), held.launched, held.in_SEAM, self._vmcs_part(cpu, at, held.data)))
            state = (values, lp.activity.value, lp.program_state, sorted(lp.msrs.items()), vmcss)
            lp._digest = self, _digest(repr(state).encode())
        return lp._digest[1]

    def _vmcs_part(self, cpu: int, at: int, held: bytes | bytearray) -> tuple[tuple[tuple[int, str], ...], bytes]:
        """Words of an active VMCS that point into this CPU's ranges, and the digest of the rest."""
        key = cpu, at, bytes(held)
        found = self._vmcs.get(key)
        if found is None:
            data = bytearray(held)
            words = self._words(cpu, data, _WORDS, self._named(cpu, at) is not at)
            if len(self._vmcs) > _LIMIT // 100:
                self._vmcs.clear()
            found = self._vmcs[key] = tuple(words), _digest(data)
        return found

    def record_part(self, cpu: int, record: Cpu) -> bytes:
        """The digest of the kernel's record of a CPU."""
        known = self._cpu.get(id(record))
        if known is not None and known[0] is record:
            return known[1]
        named = self._named
        digest = _digest(repr((
            named(cpu, record.vmxon_region), named(cpu, record.vmcs), [self._task(cpu, task) for task in record.tasks],
            [get(record) for get in _PLAIN],
        )).encode())
        if len(self._cpu) > _LIMIT:
            self._cpu.clear()
        self._cpu[id(record)] = record, digest
        return digest

    def _task(self, cpu: int, task: Task) -> tuple[Any, ...]:
        named = self._named

        def plain(args: Args) -> list[Any]:
            return [named(cpu, get(args)) if name in _ADDRESSES else get(args) for name, get in _ARGS]

        call, returned = task.call, task.returned
        return (
            [get(task) for get in _TASK], named(cpu, task.saved), named(cpu, task.data),
            call if call is None else ([get(call) for get in _CALL], plain(call.args)),
            returned if returned is None else (returned.rax, plain(returned.args)),
        )

    def _table(self, name: str, value: Any) -> bytes:
        """The digest of a dictionary or set of the platform, remembered while it is equal to the last one."""
        known = self._tables.get(name)
        if known is not None and known[0] == value:
            return known[1]
        items = value.items() if isinstance(value, dict) else value
        digest = _digest(repr(sorted(items, key=_as_text) if name == "board" else sorted(items)).encode())
        self._tables[name] = value.copy(), digest
        return digest

    def _frozen_part(self, value: Any) -> bytes:
        """The digest of a value that never changes, remembered by which object it is."""
        known = self._frozen.get(id(value))
        if known is not None and known[0] is value:
            return known[1]
        digest = _digest(repr(value).encode())
        if len(self._frozen) > _LIMIT // 10:
            self._frozen.clear()
        self._frozen[id(value)] = value, digest
        return digest

    def _page_parts(self, world: World) -> list[tuple[bytes, ...]]:
        """The parts of each CPU's own pages: for every chunk that holds some, those of all CPUs."""
        chunks = world.host.platform.store_._chunks
        found = []
        for number, places in self._places.items():
            chunk = chunks.get(number)
            if chunk is None:
                found.append(self._empty)
                continue
            if chunk.parts is None or chunk.parts[0] is not self:
                parts = []
                for cpu, held in enumerate(places):
                    mine = []
                    for which, page, index in held:
                        at = chunk.pages.get(index)
                        raw = b"" if at is None else at.digest if at.digest is not None else at.fingerprint()
                        part = self._page.get((cpu, raw)) if raw else b"-"
                        mine.append(part if part is not None else self._page_part(world, cpu, which, page, raw))
                    parts.append(b"".join(mine))
                chunk.parts = self, tuple(parts)
            found.append(chunk.parts[1])
        return found

    def _page_part(self, world: World, cpu: int, which: int, page: int, raw: bytes) -> bytes:
        store = world.host.platform.store_
        known = self._page.get((cpu, raw))
        if known is None:
            data = bytearray(store.read(page * _PAGE, _PAGE))
            words = self._words(cpu, data, range(0, _PAGE, 8), True) + self._words(cpu, data, _WORDS, True)
            for of, at in self.setting.ids:
                if of == which and int.from_bytes(data[at : at + 4], "little") == self.apicids[cpu]:
                    words.append((at, "own id"))
                    data[at : at + 4] = bytes(4)
            # The line KeyIDs are in the raw digest only; these pages are never written with another KeyID.
            known = _digest(bytes(data) + repr(words).encode())
            if len(self._page) > _LIMIT:
                self._page.clear()
            self._page[(cpu, raw)] = known
        return known

    # --- pages that mention processors

    def _bits(self, world: World, mine: list[list[Any]], dead: bool) -> bytes:
        """Pages that hold bitmaps, without the processors' bits; each CPU's bits go to its part."""
        store = world.host.platform.store_
        parts = []
        for page in sorted(self.bitmap_pages):
            data = bytearray(store.read(page * _PAGE, _PAGE))
            for at, size in self.setting.bitmaps:
                if at // _PAGE != page:
                    continue
                offset = at % _PAGE
                for cpu, id in enumerate(self.apicids):
                    if id < size * 8:
                        byte = offset + id // 8
                        mine[cpu].append(data[byte] >> id % 8 & 1)
                        data[byte] &= ~(1 << id % 8) & 0xFF
            words = self._pointers(page, data, mine, dead)
            parts.append(bytes(data) + repr(words).encode())
        return _digest(b"".join(parts))

    def _pointers(self, page: int, data: bytearray, mine: list[list[Any]], dead: bool) -> list[int]:
        """Words that hold an address of some CPU's own range: moved to that CPU's part.

        Those that P-SEAMLDR's next entry overwrites before anybody reads them are only taken out: the saved registers
        while nobody is inside behind its entry (``dead``), and in memory always what SEAMCALL saves in the VMCS.
        """
        moved = []
        for offset in self.pointer_pages.get(page, ()):
            found = self.owner(int.from_bytes(data[offset : offset + 8], "little"))
            if found is not None:
                if not dead and page * _PAGE + offset not in self.setting.stale:
                    mine[found[0]].append((page, offset, found[1]))
                    moved.append(offset)
                data[offset : offset + 8] = bytes(8)
        return moved

    def _mentions(self, world: World, mine: list[list[Any]], dead: bool) -> bytes:
        """Other pages with pointers."""
        store = world.host.platform.store_
        parts = []
        for page in sorted(set(self.pointer_pages) - self.bitmap_pages):
            raw = store.page_digest(page)
            key = raw + page.to_bytes(8, "little") + bytes((dead,))
            known = self._shared.get(key)
            if known is None:
                data = bytearray(store.read(page * _PAGE, _PAGE))
                found: list[list[Any]] = [[] for _ in self.apicids]
                words = self._pointers(page, data, found, dead)
                who = tuple((cpu, repr(word)) for cpu, words_ in enumerate(found) for word in words_)
                known = _digest(bytes(data) + repr(words).encode()), who
                if len(self._shared) > _LIMIT:
                    self._shared.clear()
                self._shared[key] = known
            parts.append(known[0])
            for cpu, word in known[1]:
                mine[cpu].append(word)
        return b"".join(parts)

    # --- the whole

    def parts(self, world: World) -> tuple[bytes, list[bytes]]:
        """The rest, and one part per CPU."""
        host, rest = world.host, world.rest
        platform, state = host.platform, host.state
        mine: list[list[Any]] = [[] for _ in self.apicids]
        mutex = platform.P_SEAMLDR_MUTEX
        dead = mutex is None or platform.peek_lp(mutex).program_state is None
        bitmaps = self._bits(world, mine, dead)
        mentions = self._mentions(world, mine, dead)
        update, control = state.update, None
        if update is not None:
            wrong = 0
            for cpu, ret in update.rets:  # who returned 0 when is read by nobody; errors keep their order
                mine[cpu].append(("returned", int(ret), wrong if ret else 0))
                wrong += bool(ret)
            control = (len(update.cpus), [get(update) for get in _CONTROL])
        for name, holder in (("seamldr_lock", state.seamldr_lock), ("sysinit_lock", state.sysinit_lock)):
            if holder is not None:
                mine[holder].append(name)
        if mutex is not None:
            mine[self.number[mutex]].append("mutex")
        faults = []
        for number, armed in enumerate(rest.faults):
            if armed.actor < len(mine):
                mine[armed.actor].append((number, armed.kind))
            else:
                faults.append(armed)
        parts = []
        pages = self._page_parts(world)
        lps, cpus = platform._lps, state.cpus
        notes = rest.notes or self._unnoted
        for cpu, id in enumerate(self.apicids):
            lp = lps[id]
            digest = lp._digest
            key = (digest[1] if digest is not None and digest[0] is self else self.lp_part(cpu, lp),
                   self.record_part(cpu, cpus[cpu]), rest.scripts[cpu], rest.running[cpu], rest.results[cpu],
                   notes[cpu], *mine[cpu], *[chunk[cpu] for chunk in pages])
            part = self._whole.get(key)
            if part is None:
                if len(self._whole) > _LIMIT:
                    self._whole.clear()
                part = self._whole[key] = _digest(repr(key).encode())
            parts.append(part)
        frozen, table = self._frozen_part, self._table
        shared = (
            platform.SEAMEXTEND, platform.p_seamldr_range, frozen(platform.seamdb), platform.bios_se_svn,
            platform.svn_locked, table("key_table", platform.key_table),
            table("flushed_sub_blocks", platform.flushed_sub_blocks), platform.entropy_drawn,
            table("injected", platform.injected), table("txt", platform.txt), table("board", platform.board),
            table("msrs", platform.msrs), table("package_msrs", platform.package_msrs),
            frozen(state.module), frozen(state.sysinfo), table("features", state.features), table("bugs", state.bugs),
            state.hotplug_readers, control, frozen(state.upload), frozen(state.device), frozen(state.tds),
            frozen(state.heap), table("printed_once", state.printed_once), faults, frozen(rest.extras),
            frozen(rest.ghost),
        )
        memory = platform.store_.digest_without(self.left_out)
        return _digest(memory + bitmaps + mentions + repr(shared).encode()), parts

    def __call__(self, world: World) -> Print:
        """The fingerprint of a world."""
        rest, parts = self.parts(world)
        worlds = 1
        chosen = [parts[cpu] for cpu in self.alone]
        for group in self.groups:
            members = sorted(parts[cpu] for cpu in group)
            chosen += members
            worlds *= factorial(len(members))
            for count in Counter(members).values():
                worlds //= factorial(count)
        return Print(_digest(rest + b"".join(chosen)), worlds, tuple(parts))

    def order(self, one: tuple[bytes, ...], other: tuple[bytes, ...]) -> tuple[int, ...] | None:
        """How CPUs are exchanged between two worlds of one class: CPU n of the one is the other's ``order[n]``.

        ``None``: nothing is exchanged.
        """
        if one == other:
            return None
        found = list(range(len(one)))
        for group in self.groups:
            moved = [cpu for cpu in group if one[cpu] != other[cpu]]  # the others stay what they are
            ours = sorted(moved, key=lambda cpu: one[cpu])
            theirs = sorted(moved, key=lambda cpu: other[cpu])
            for cpu, of in zip(ours, theirs, strict=True):
                found[cpu] = of
        return tuple(found)
