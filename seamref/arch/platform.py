"""The platform record: one state that holds everything, forked cheaply, fingerprinted canonically.

All other functions of ``arch`` take a platform and a processor id to the next state.  ``fork`` copies nothing but
references: pages, chunks and processors are copied when either side first writes them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from hashlib import blake2b, shake_128
from typing import TYPE_CHECKING, Any

from seamref.arch import msr as msrs
from seamref.arch.lp import Lp
from seamref.arch.memory import (
    MEMORY,
    PATTERN,
    POISON,
    Access,
    Agent,
    Range,
    Verdict,
    decode_seamrr,
    fault_of,
    judge_read,
)
from seamref.arch.outcome import Fault
from seamref.arch.revision import SILICON, Revision
from seamref.arch.store import LINE, Store
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.trace import AccessDenied, Event, SeamextendWritten
from seamref.errors import SeamrefError, TopologyError
from seamref.spec import Check

if TYPE_CHECKING:
    from seamref.arch.software import StandIn

VMX_MSRS: Mapping[int, int] = {
    0x480: 0x00DA050000000013,
    0x481: 0xFF00000016, 0x482: 0xFFFBFFFE0401E172, 0x483: 0x7FFFFFFF00036DFF, 0x484: 0x7FFFFF000011FF,
    0x485: 0x7004C1E7, 0x486: 0x80000021, 0x487: 0xFFFFFFFF, 0x488: 0x2000, 0x489: 0x1FF2FFF,
    0x48B: 0xDF7DFFFF00000000, 0x48C: 0xF0106F34141,
    0x48D: 0xFF00000016, 0x48E: 0xFFFBFFFE04006172, 0x48F: 0x7FFFFFFF00036DFB, 0x490: 0x7FFFFF000011FB,
    0x492: 0xAE,
}
"""VMX capability MSRs of a server part of the SPR/EMR generation (IA32_VMX_BASIC[60] = 0)."""

NO_SEAMRET_INVD_VMCS = 1 << 60
"""IA32_VMX_BASIC[60]: SEAMRET from P-SEAMLDR keeps the VMM's current VMCS (SR4)."""

MAX_X2APIC_ID = 1 << 32


@dataclass(frozen=True, slots=True)
class Topology:
    """Which processors exist: ``sockets`` packages of ``lps_per_socket``, or explicit x2APIC ids.

    ``addressable`` is the number of ids each package can address (CPUID.4.3:EAX[25:14] + 1 before rounding);
    package = id // (addressable rounded up to a power of two).
    """

    sockets: int = 1
    lps_per_socket: int = 2
    addressable: int = 0
    ids: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if not 1 <= self.sockets <= 8:
            raise TopologyError(f"Topology.sockets: {self.sockets}, a SEAM platform has 1 to 8")
        if not self.ids and not 1 <= self.lps_per_socket <= 1024:
            raise TopologyError(f"Topology.lps_per_socket: {self.lps_per_socket}, must be 1 to 1024")
        if self.addressable and not self.ids and self.addressable < self.lps_per_socket:
            raise TopologyError(
                f"Topology.addressable: {self.addressable} ids cannot name {self.lps_per_socket} processors"
            )
        if len(set(self.ids)) != len(self.ids):
            raise TopologyError("Topology.ids: an x2APIC id is listed twice")
        if any(not 0 <= id < MAX_X2APIC_ID for id in self.ids):
            raise TopologyError("Topology.ids: an x2APIC id has 32 bits")

    @property
    def addressable_per_socket(self) -> int:
        """CPUID.4.3:EAX[25:14] + 1."""
        return self.addressable or self.lps_per_socket

    @property
    def stride(self) -> int:
        """Ids of one package: the addressable count rounded up to a power of two."""
        return 1 << (self.addressable_per_socket - 1).bit_length()

    def x2apic_ids(self) -> tuple[int, ...]:
        """Every processor's x2APIC id, ascending by package."""
        if self.ids:
            return self.ids
        return tuple(s * self.stride + i for s in range(self.sockets) for i in range(self.lps_per_socket))

    def package_of(self, id: int) -> int:
        """The package of an x2APIC id."""
        return min(id // self.stride, self.sockets - 1)


@dataclass(frozen=True, slots=True)
class PlatformConfig:
    """What is fixed by the parts and the board.

    ``maxpa`` bits of physical address; ``max_keyid_bits`` KeyID bits the part supports; ``fms`` CPUID.1:EAX of each
    socket; ``cmrs`` convertible memory (base, size); ``seamdb_size`` entries; ``keyid_separate``: addresses that
    differ in KeyID bits are different memory (how the recorded vectors see it) instead of one DRAM;
    ``steady_entropy``: every draw of one size gives the same bytes, so that states do not differ in who drew first;
    ``stand_ins`` programs that run in place of code that cannot be executed here;
    ``fine_steps``: software in SEAM that can stop inside a leaf does, so that others may act meanwhile.
    """

    topology: Topology = field(default_factory=Topology)
    maxpa: int = 52
    max_keyid_bits: int = 6
    fms: tuple[int, ...] = (0xC06F2,)
    has_SEAM: bool = True
    cmrs: tuple[tuple[int, int], ...] = ((0x100000, 0x7FF00000), (0x100000000, 0x780000000))
    seamdb_size: int = 16
    debug_unlocked: bool = False
    cache_sub_blocks: int = 4
    cpusvn: bytes = bytes.fromhex("0b0b0f0fffff00000000000000000000")
    vmx_msrs: Mapping[int, int] = field(default_factory=lambda: VMX_MSRS)
    keyid_separate: bool = False
    seed: int = 0
    steady_entropy: bool = False
    stand_ins: tuple[StandIn, ...] = ()
    fine_steps: bool = False

    def __post_init__(self) -> None:
        if not 36 <= self.maxpa <= 52:
            raise SeamrefError(f"PlatformConfig.maxpa: {self.maxpa}, must be 36 to 52")
        if not 0 <= self.max_keyid_bits <= 15:
            raise SeamrefError(f"PlatformConfig.max_keyid_bits: {self.max_keyid_bits}, must be 0 to 15")
        if len(self.cpusvn) != 16:
            raise SeamrefError(f"PlatformConfig.cpusvn: {len(self.cpusvn)} bytes, must be 16")

    def fms_of(self, socket: int) -> int:
        """CPUID.1:EAX of a socket (the last one given serves the sockets behind it)."""
        return self.fms[min(socket, len(self.fms) - 1)]


@dataclass(frozen=True, slots=True)
class SeamdbEntry:
    """One module identity the CPU remembers: the SEAMEXTEND bytes at insertion and a 256-bit nonce."""

    identity: bytes
    nonce: bytes


class Platform:
    """All state of one machine.

    Attributes spelled as the documents spell them: ``P_SEAMLDR_MUTEX`` is the holder's id or ``None``,
    ``SEAMEXTEND`` the 136 bytes of the register, ``p_seamldr_range`` what MCHECK told the hardware.
    """

    __slots__ = (
        "P_SEAMLDR_MUTEX", "SEAMEXTEND", "_k", "_lps", "_p", "_token", "bios_se_svn", "board", "config",
        "entropy_drawn", "flushed_sub_blocks", "injected", "key_table", "listeners", "msrs", "p_seamldr_range",
        "package_msrs", "revision", "seamdb", "store_", "svn_locked", "txt",
    )

    config: PlatformConfig
    revision: Revision
    store_: Store
    msrs: dict[int, int]
    package_msrs: dict[tuple[int, int], int]
    SEAMEXTEND: bytes
    P_SEAMLDR_MUTEX: int | None
    p_seamldr_range: Range | None
    seamdb: tuple[SeamdbEntry, ...]
    bios_se_svn: int
    svn_locked: bool
    key_table: dict[tuple[int, int], bytes]
    flushed_sub_blocks: frozenset[tuple[int, int]]
    entropy_drawn: int
    injected: dict[str, tuple[Any, ...]]
    txt: dict[str, int]
    board: dict[str, Any]
    listeners: list[Callable[[Event], None]]

    def __init__(self, config: PlatformConfig | None = None, revision: Revision = SILICON) -> None:
        self.config = config or PlatformConfig()
        self.revision = revision
        self._token = object()
        topology = self.config.topology
        self._lps = {
            id: Lp(id, topology.package_of(id), index == 0) for index, id in enumerate(topology.x2apic_ids())
        }
        self.store_ = Store()
        self.msrs: dict[int, int] = {}
        self.package_msrs: dict[tuple[int, int], int] = {}
        self._k = self._p = 0
        self.SEAMEXTEND = bytes(SEAMEXTEND.size)
        self.P_SEAMLDR_MUTEX: int | None = None
        self.p_seamldr_range: Range | None = None
        self.seamdb: tuple[SeamdbEntry, ...] = ()
        self.bios_se_svn = 0
        self.svn_locked = False
        self.key_table: dict[tuple[int, int], bytes] = {}
        self.flushed_sub_blocks: frozenset[tuple[int, int]] = frozenset()
        self.entropy_drawn = 0
        self.injected: dict[str, tuple[Any, ...]] = {}
        self.txt: dict[str, int] = {}
        self.board: dict[str, Any] = {}
        self.listeners: list[Callable[[Event], None]] = []

    # --- forking and comparing

    def fork(self) -> Platform:
        """An independent copy; nothing is copied until one side changes it.  Listeners stay behind."""
        other = object.__new__(type(self))
        other.config = self.config
        other.revision = self.revision
        other._lps = dict(self._lps)
        other._token = object()
        self._token = object()
        other.store_ = self.store_.fork()
        other.msrs = dict(self.msrs)
        other.package_msrs = dict(self.package_msrs)
        other._k, other._p = self._k, self._p
        other.SEAMEXTEND = self.SEAMEXTEND
        other.P_SEAMLDR_MUTEX = self.P_SEAMLDR_MUTEX
        other.p_seamldr_range = self.p_seamldr_range
        other.seamdb = self.seamdb
        other.bios_se_svn = self.bios_se_svn
        other.svn_locked = self.svn_locked
        other.key_table = dict(self.key_table)
        other.flushed_sub_blocks = self.flushed_sub_blocks
        other.entropy_drawn = self.entropy_drawn
        other.injected = dict(self.injected)
        other.txt = dict(self.txt)
        other.board = dict(self.board)
        other.listeners = []
        return other

    def fingerprint(self) -> bytes:
        """16 bytes, equal exactly when two platforms of one configuration are in the same state."""
        state = (
            self.SEAMEXTEND, self.P_SEAMLDR_MUTEX, self.p_seamldr_range, self.seamdb, self.bios_se_svn,
            self.svn_locked, sorted(self.key_table.items()), sorted(self.flushed_sub_blocks), self.entropy_drawn,
            sorted(self.injected.items()), sorted(self.txt.items()), sorted(self.board.items()),
            sorted(self.msrs.items()), sorted(self.package_msrs.items()), self.store_.fingerprint(),
            [lp.state() for lp in self._lps.values()],
        )
        return blake2b(repr(state).encode(), digest_size=16).digest()

    # --- processors

    @property
    def lps(self) -> tuple[int, ...]:
        """x2APIC ids of all processors."""
        return tuple(self._lps)

    def lp(self, id: int) -> Lp:
        """The processor with this x2APIC id, ready to be read and changed.

        The handle is good until the next ``fork``: from then on ask again, or you would change what both sides share.
        """
        try:
            lp = self._lps[id]
        except KeyError:
            raise SeamrefError(f"no logical processor has x2APIC id {id}") from None
        if lp._owner is not self._token:
            lp = self._lps[id] = lp.copy()
            lp._owner = self._token
        lp._digest = None
        return lp

    def peek_lp(self, id: int) -> Lp:
        """The processor for reading only (no copy is made after a fork)."""
        return self._lps[id]

    def every_lp(self) -> Iterable[Lp]:
        """Every processor for reading only."""
        return self._lps.values()

    # --- MSR values (rules are in seamref.arch.msr)

    def msr_value(self, lp: Lp, address: int) -> int:
        """The value an MSR holds for a processor, whoever asks."""
        msr = msrs.MSRS[address]
        match msr.scope:
            case msrs.Scope.CORE:
                held = lp.msrs.get(address)
            case msrs.Scope.PACKAGE:
                held = self.package_msrs.get((lp.package, address))
            case _:
                held = self.msrs.get(address)
        if held is not None:
            return held
        reset = msr.reset
        return reset if isinstance(reset, int) else reset(self, lp)

    def set_msr(self, lp: Lp, address: int, value: int) -> None:
        """Make an MSR hold a value, whoever asks (firmware, reset, tests of one rule)."""
        match msrs.MSRS[address].scope:
            case msrs.Scope.CORE:
                lp.msrs[address] = value
            case msrs.Scope.PACKAGE:
                self.package_msrs[(lp.package, address)] = value
            case _:
                self.msrs[address] = value

    # --- KeyIDs

    def keyid_layout_changed(self) -> None:
        """Read k and p again after IA32_TME_ACTIVATE was written."""
        value = self.msr_value(next(iter(self._lps.values())), msrs.TME_ACTIVATE)
        self._k, self._p = value >> 32 & 0xF, value >> 36 & 0xF

    @property
    def keyid_bits(self) -> int:
        """k: KeyID bits at the top of the physical address."""
        return self._k

    @property
    def tdx_keyid_bits(self) -> int:
        """p: top KeyID bits reserved for TDX."""
        return self._p

    @property
    def keyid_shift(self) -> int:
        """Lowest KeyID bit of a physical address."""
        return self.config.maxpa - self._k

    def split(self, address: int) -> tuple[int, int]:
        """(KeyID, address without KeyID bits)."""
        maxpa = self.config.maxpa
        k = self._k
        shift = maxpa - k
        return (address & ((1 << maxpa) - 1)) >> shift, address & ~(((1 << k) - 1) << shift)

    def with_keyid(self, address: int, keyid: int) -> int:
        """``address`` with KeyID bits put in."""
        if not 0 <= keyid < 1 << self._k and keyid:
            raise SeamrefError(f"KeyID {keyid}: this platform has {self._k} KeyID bits")
        return address | keyid << self.keyid_shift

    def is_private(self, keyid: int) -> bool:
        """A KeyID is TDX private iff any of its top p bits is 1 (X2)."""
        return keyid >> (self._k - self._p) != 0

    @property
    def legacy_width(self) -> int:
        """Physical-address width outside SEAM: MAXPA - p."""
        return self.config.maxpa - self._p

    # --- SEAMRR

    def seamrr(self, lp: Lp | None = None) -> Range | None:
        """SEAMRR as a core's MSRs describe it, ``None`` while VALID is 0 (default: the first processor's)."""
        if lp is None:
            lp = next(iter(self._lps.values()))
        mask = lp.msrs.get(msrs.SEAMRR_MASK, 0)
        if not mask & 1 << 11:
            return None
        return decode_seamrr(lp.msrs.get(msrs.SEAMRR_BASE, 0), mask)

    # --- memory

    def judge(self, agent: Agent, address: int, size: int, write: bool, lp: Lp | None = None) -> tuple[Verdict, str]:
        """What becomes of an access, and the clause that decides."""
        keyid, plain = self.split(address)
        row = self._judge(agent, address, plain, keyid, size, write, lp)
        return (Verdict.ALLOWED, "MEMORY") if row is None else (row.result, row.id)

    def _judge(
        self, agent: Agent, address: int, plain: int, keyid: int, size: int, write: bool, lp: Lp | None
    ) -> Check[Access, Verdict] | None:
        who = lp if lp is not None else next(iter(self._lps.values()))
        page = plain >> 12
        if plain + size - 1 >> 12 != page or MEMORY.observers:
            return MEMORY.decide(Access(self, agent, who, address, plain, keyid, size, write))
        # Within one page the answer depends on these alone; "allowed" is remembered.
        get = who.msrs.get
        key = (id(agent), page, keyid, self._k, self._p, self.config.maxpa, self.p_seamldr_range,
               get(msrs.SEAMRR_BASE, 0), get(msrs.SEAMRR_MASK, 0))
        allowed = _ALLOWED
        if allowed[0] is not MEMORY._counted:
            allowed[0], allowed[1] = MEMORY._counted, set()
        if key in allowed[1]:
            return None
        row = MEMORY.decide(Access(self, agent, who, address, plain, keyid, size, write))
        if row is None:
            if len(allowed[1]) > 100_000:
                allowed[1].clear()
            allowed[1].add(key)
        return row

    def _refused(
        self, row: Check[Access, Verdict], agent: Agent, address: int, size: int, write: bool
    ) -> Fault | None:
        """Tell the listeners; the fault, or ``None`` where the access is aborted quietly."""
        if self.listeners:
            self.emit(AccessDenied(agent.name, address, size, write, row.id))
        return fault_of(row.result, self.revision.denied, write, row.id)

    def load(self, agent: Agent, address: int, size: int, lp: Lp | None = None) -> bytes | Fault:
        """Read physical memory as ``agent``: bytes, or the fault.  A quiet abort reads all ones."""
        keyid, plain = self.split(address)
        row = self._judge(agent, address, plain, keyid, size, False, lp)
        if row is not None:
            return self._refused(row, agent, address, size, False) or b"\xff" * size
        if self.config.keyid_separate:
            return self.store_.read(address, size)
        held = self.store_.read_owned(plain, size, keyid)
        if held is not None:
            return held
        keys = self.store_.keys(plain, size)
        if keys == {keyid}:
            return self.store_.read(plain, size)
        return self._load_lines(plain, size, keyid)

    def walked(self, entries: tuple[int, ...]) -> None:
        """Told where the entries lie when page tables are walked again that were walked before, and not changed."""

    def _load_lines(self, plain: int, size: int, keyid: int) -> bytes | Fault:
        """Line by line, where some line was last written with another KeyID."""
        out = bytearray()
        private = self.is_private(keyid)
        while size:
            part = min(size, LINE - plain % LINE)
            written = next(iter(self.store_.keys(plain, part)))
            data = self.store_.read(plain, part)
            readable, poison = judge_read(self.revision.integrity, private, self.is_private(written))
            if poison:
                return POISON
            if not readable:
                data = PATTERN[:part]
            elif written != keyid:
                data = _other_key(data, plain, written, keyid)
            out += data
            plain += part
            size -= part
        return bytes(out)

    def store(self, agent: Agent, address: int, data: bytes | bytearray, lp: Lp | None = None) -> Fault | None:
        """Write physical memory as ``agent``; a fault, or ``None`` (done, or dropped by a quiet abort)."""
        keyid, plain = self.split(address)
        row = self._judge(agent, address, plain, keyid, len(data), True, lp)
        if row is not None:
            return self._refused(row, agent, address, len(data), True)
        if self.config.keyid_separate:
            self.store_.write(address, data)
        else:
            self.store_.write(plain, data, keyid)
        return None

    def add(
        self, agent: Agent, address: int, value: int, size: int, lp: Lp | None = None, *, tells: int = 0
    ) -> int | Fault:
        """LOCK XADD: one access that adds, modulo the size; of the old value only the bits ``tells`` come back.

        ``tells`` may name no bit that adding ``value`` can change, so two such additions commute.
        """
        if tells & -(value & -value):
            raise SeamrefError(f"adding {value}: the bits 0x{tells:X} of the old value depend on who comes first")
        held = self.load(agent, address, size, lp)
        if isinstance(held, Fault):
            return held
        old = int.from_bytes(held, "little")
        fault = self.store(agent, address, (old + value & (1 << 8 * size) - 1).to_bytes(size, "little"), lp)
        return old & tells if fault is None else fault

    def zero(self, agent: Agent, address: int, size: int, lp: Lp | None = None) -> Fault | None:
        """Write zeros over a range (sparse: whole pages are forgotten)."""
        if size <= 0:
            return None
        keyid, plain = self.split(address)
        row = self._judge(agent, address, plain, keyid, size, True, lp)
        if row is not None:
            return self._refused(row, agent, address, size, True)
        if self.config.keyid_separate:
            keyid, plain = 0, address
        if keyid:
            self.store_.write(plain, bytes(size), keyid)
        else:
            self.store_.zero(plain, size)
        return None

    def bytes_at(self, agent: Agent, address: int, size: int, lp: Lp | None = None) -> bytes:
        """``load`` where the agent is entitled to the range: a fault here is a mistake of the caller."""
        data = self.load(agent, address, size, lp)
        if isinstance(data, Fault):
            raise SeamrefError(f"{agent.name} reading {size} bytes at 0x{address:X}: {data} ({data.clause})")
        return data

    # --- SEAMEXTEND

    def set_SEAMEXTEND(self, lp: Lp, value: bytes) -> None:
        """Replace the register (only the WRMSR command and shutdown in SEAM do)."""
        self.SEAMEXTEND = value
        if self.listeners:
            self.emit(SeamextendWritten(lp.id, value))

    @property
    def SEAM_READY(self) -> bool:
        """The TDX module is loaded: SEAMCALL with RAX[63]=0 may enter."""
        return self.SEAMEXTEND[128] != 0

    @property
    def P_SEAMLDR_READY(self) -> bool:
        """P-SEAMLDR is loaded: SEAMCALL with RAX[63]=1 may enter."""
        return self.SEAMEXTEND[130] != 0

    # --- entropy: from the seed, unless a next answer is injected

    def inject(self, source: str, *answers: Any) -> None:
        """Give the next answers of a source: "rdrand"/"rdseed" take (CF, value), "seamdb" (leaf name, status)."""
        self.injected[source] = (*self.injected.get(source, ()), *answers)

    def take_injected(self, source: str) -> Any:
        """The next injected answer of a source, or ``None``."""
        queue = self.injected.get(source)
        if not queue:
            return None
        if len(queue) == 1:
            del self.injected[source]
        else:
            self.injected[source] = queue[1:]
        return queue[0]

    def random_bytes(self, size: int) -> bytes:
        """The platform's own entropy: SHAKE-128 of seed and draw count."""
        seed = f"seamref {self.config.seed} {self.entropy_drawn}".encode()
        if not self.config.steady_entropy:
            self.entropy_drawn += 1
        return shake_128(seed).digest(size)

    def rdrand(self, source: str = "rdrand") -> tuple[int, int]:
        """RDRAND or RDSEED: (CF, 64-bit value); CF=0 with value 0 is "no entropy"."""
        answer = self.take_injected(source)
        if answer is not None:
            carry, value = answer
            return int(carry), int(value)
        return 1, int.from_bytes(self.random_bytes(8), "little")

    def derived_key(self, purpose: str, size: int = 32) -> bytes:
        """A key the part holds inside, by purpose (CR_REPORT_KEY2 ...); constant for one seed."""
        return shake_128(f"seamref key {self.config.seed} {purpose}".encode()).digest(size)

    # --- watching

    def emit(self, event: Event) -> None:
        """Tell the listeners."""
        for listener in self.listeners:
            listener(event)


_ALLOWED: list[Any] = [None, set()]
"""The rows of MEMORY, and accesses that they allow."""


def _other_key(data: bytes, at: int, written: int, read: int) -> bytes:
    """What decryption of one line with another shared KeyID yields: not the data, but always the same."""
    pad = shake_128(f"line {at // LINE} {written} {read}".encode()).digest(LINE)
    offset = at % LINE
    return bytes(a ^ b for a, b in zip(data, pad[offset : offset + len(data)], strict=True))
