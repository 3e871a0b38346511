"""Would INSTALL take this file on that platform?  P-SEAMLDR's own tables, walked in its order over plain values.

The rows, the memory constants, the page-table builder, the hash and the relocation are the loader's; only the values
that a running platform would supply come from a description.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

from seamref.arch.memory import Agent
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.software import P_SEAMLDR_PROGRAM, MemoryFault, Port, Ud2, make_stub
from seamref.errors import SeamrefError
from seamref.host import image as images
from seamref.layout import Buffer
from seamref.pseamldr.api import PAGE, SEAMLDR_PARAMS, Recoverability, Scenario, Status
from seamref.pseamldr.build import BUILD_OFFSET, P_SEAMLDR_BUILD, R10, R15
from seamref.pseamldr.elf import ElfFatal, relocate
from seamref.pseamldr.install import (
    INSTALL_HASH,
    INSTALL_RELOCATION,
    INSTALL_UPDATE,
    HashState,
    UpdateState,
)
from seamref.pseamldr.limits import check_platform
from seamref.pseamldr.manifest import INSTALL_MANIFEST, INSTALL_PARAMS, ManifestState, ParamsState, sigstruct_layout
from seamref.pseamldr.memory_constants import (
    INSTALL_MEMORY,
    MemoryConstants,
    MemoryState,
    addressable_lps,
    compute_memory_constants,
    shape_of,
)
from seamref.pseamldr.memory_map import INSTALL_MAP, ModuleRegion, build_page_tables
from seamref.pseamldr.sigstruct import (
    PRODUCTION_KEY_HASH,
    RESERVED,
    RESERVED3_SEEN,
    SEAM_SIGSTRUCT,
    image_hash,
    key_hash,
)
from seamref.pseamldr.sysvalues import SystemValues, hkid_mask
from seamref.spec import CHOSEN, Check, CheckTable, implements

C = TypeVar("C")
MIB = 1 << 20
MAX_ADDRESSABLE = 4096
LOADERS = {"1.0": R10, "1.5": R15, "2.0": R15}
"""major.minor of P-SEAMLDR -> the rules this book has for it."""


@dataclass(frozen=True, slots=True)
class Target:
    """The platform a module is held against.

    ``addressable`` processors of a socket by CPUID(4,3) (0: as many as ``lps``); ``fms`` CPUID.1:EAX of each socket,
    the last one for the rest; ``seamrr_size`` and ``p_seamldr_range_size`` in bytes; ``seamldr`` version;
    ``running_svn`` (major, minor) of the module that runs, ``None``: none; ``remaining`` updates and ``running_hv``
    matter to UPDATE only; ``signer_key_hash`` of the accepted signer.
    """

    sockets: int = 2
    lps: int = 128
    addressable: int = 0
    fms: tuple[int, ...] = (0xC06F2,)
    debug_unlocked: bool = False
    seamrr_base: int = 0x8000_0000
    seamrr_size: int = 128 * MIB
    p_seamldr_range_size: int = 4 * MIB
    seamldr: str = "1.5.00"
    running_svn: tuple[int, int] | None = None
    scenario: Scenario = Scenario.LOAD
    remaining: int = 15
    running_hv: int = 0
    running_handoff_pages: int = 13
    signer_key_hash: bytes = PRODUCTION_KEY_HASH

    def __post_init__(self) -> None:
        check_platform(self.sockets, self.lps, self.addressable, seamrr=self.seamrr_size,
                       held=self.p_seamldr_range_size)
        Topology(self.sockets, self.lps, self.addressable)  # the rule that a platform itself is held to
        if self.addressable > MAX_ADDRESSABLE:
            raise SeamrefError(f"Target.addressable: {self.addressable} of a socket, must be {MAX_ADDRESSABLE} at most")
        if not 0 <= self.remaining < 1 << 32:
            raise SeamrefError(f"Target.remaining: {self.remaining}, must have 32 bits")
        if self.running_svn is not None and not all(0 <= part <= 255 for part in self.running_svn):
            raise SeamrefError(f"Target.running_svn: {self.running_svn[0]}.{self.running_svn[1]}, must be two bytes")
        if len(self.signer_key_hash) != len(PRODUCTION_KEY_HASH):
            raise SeamrefError(f"Target.signer_key_hash: {len(self.signer_key_hash)} bytes, must be "
                               f"{len(PRODUCTION_KEY_HASH)}")
        if not self.fms or not all(0 <= eax < 1 << 32 for eax in self.fms):
            raise SeamrefError(f"Target.fms: {', '.join(map(str, self.fms))}, must be CPUID.1:EAX, 32 bits each")
        if self.loader not in LOADERS:
            raise SeamrefError(f"Target.seamldr: {self.seamldr!r}, must be of {', '.join(LOADERS)}")

    @property
    def loader(self) -> str:
        """major.minor of P-SEAMLDR."""
        return ".".join(self.seamldr.split(".")[:2])

    @property
    def revision(self) -> str:
        """The generation of rules."""
        return LOADERS[self.loader]

    @property
    def socket_cpuids(self) -> tuple[int, ...]:
        """CPUID.1:EAX of every socket."""
        return tuple(self.fms[min(i, len(self.fms) - 1)] for i in range(self.sockets))

    @property
    def p_seamldr_range_base(self) -> int:
        """P_SEAMLDR_RANGE lies at the top of SEAMRR."""
        return self.seamrr_base + self.seamrr_size - self.p_seamldr_range_size


@dataclass(frozen=True, slots=True)
class Asked:
    """One row that was asked, and whether it stopped."""

    table: str
    id: str
    says: str
    stopped: bool


@dataclass(frozen=True, slots=True)
class Verification:
    """The path through the rows, and what INSTALL would answer.

    ``rdx`` 1: the module that was there before is gone.  ``plan`` from the moment it is known; ``tables`` page-table
    pages used, PML4 included.  ``notes`` are for people.  ``fatal``: P-SEAMLDR does not answer, the processor shuts
    down.
    """

    path: tuple[Asked, ...]
    status: Status
    rdx: Recoverability
    plan: MemoryConstants | None
    tables: int
    fatal: str
    notes: tuple[str, ...]

    @property
    def accepted(self) -> bool:
        """SUCCESS."""
        return self.status is Status.SUCCESS and not self.fatal

    @property
    def stopped(self) -> Asked | None:
        """The row that stopped."""
        return self.path[-1] if self.path and self.path[-1].stopped else None


class _Walk:
    def __init__(self, target: Target) -> None:
        self.target = target
        self.path: list[Asked] = []
        self.notes: list[str] = []
        self.plan: MemoryConstants | None = None
        self.tables = 0

    def ask(self, table: CheckTable[C, Status], context: C, skip: Iterable[str] = ()) -> Status | None:
        """Walk a table, leaving out rows; the status of the one that stops."""
        if not skip:
            for row, stopped in table.walk(context, self.target.revision):
                self.path.append(Asked(table.name, row.id, row.says, stopped))
                if stopped:
                    return row.result
            return None
        kept: tuple[Check[C, Status], ...] = tuple(row for row in table if row.id not in skip)
        for row in kept:
            if row.applies is not None and not row.applies(self.target.revision):
                continue
            stopped = row.stops(context)
            self.path.append(Asked(table.name, row.id, row.says, stopped))
            if stopped:
                return row.result
        return None

    def end(self, status: Status, rdx: Recoverability, fatal: str = "") -> Verification:
        """The result."""
        return Verification(tuple(self.path), status, rdx, self.plan, self.tables, fatal, tuple(self.notes))


KEPT, GONE = Recoverability.RECOVERABLE, Recoverability.UNRECOVERABLE
LOADER_2 = ("INSTALL.manifest.reserved3",)
"""Rows of a 1.5 loader that one of line 2.0 does not have."""


@implements("VERIFY.loader_2", "a 2.0 P-SEAMLDR is taken to follow the rules of 1.5, with bytes 1000 to 1023 of the "
            "sigstruct not reserved: its source is not published", "SEAMREF errata", CHOSEN)
def rows_left_out(target: Target) -> tuple[str, ...]:
    """VERIFY.loader_2: which rows a loader does not have."""
    return LOADER_2 if target.loader == "2.0" else ()


def verify(sigstruct: Buffer, image: Buffer, target: Target) -> Verification:
    """What the last processor's INSTALL would answer to these 2048 bytes and this image on ``target``."""
    walk = _Walk(target)
    pages = -(-len(image) // PAGE)
    if len(image) % PAGE:
        walk.notes.append(f"the image has {len(image)} bytes; its last page is filled up with zeros")
    data = bytes(image).ljust(pages * PAGE, b"\0")
    if len(sigstruct) != 2048:
        raise SeamrefError(f"SEAM_SIGSTRUCT: {len(sigstruct)} bytes, must be 2048")
    values = SystemValues(52, target.seamrr_base, target.seamrr_size, hkid_mask(52, 6), 32)
    first = 0x1000_0000
    params = SEAMLDR_PARAMS.encode({
        "scenario": target.scenario, "sigstruct_pa": first, "num_module_pages": pages,
        "mod_pages_pa_list": [first + PAGE * (i + 1) for i in range(min(pages, 496))],
    })
    ready = int(target.running_svn is not None)
    status = walk.ask(INSTALL_PARAMS, ParamsState(params, values, ready))
    if status is not None:
        return walk.end(status, KEPT)
    major, minor = target.running_svn or (0, 0)
    manifest = ManifestState(
        bytes(sigstruct), target.scenario, pages, minor, major, target.debug_unlocked, target.socket_cpuids,
        target.signer_key_hash, target.revision,
    )
    skipped = rows_left_out(target)
    if skipped:
        walk.notes.append("P-SEAMLDR 2.0 is not published: rules of 1.5 without the one on reserved3 (VERIFY.loader_2)")
    status = walk.ask(INSTALL_MANIFEST, manifest, skipped)
    if status is not None:
        walk.notes += explain_reserved(sigstruct, walk.path[-1].id)
        return walk.end(status, KEPT)
    return _memory(walk, target, bytes(sigstruct), data)


def _memory(walk: _Walk, target: Target, sigstruct: bytes, image: bytes) -> Verification:
    """Memory constants, the handoff, then everything after which the old module is gone."""
    fields = sigstruct_layout(target.revision).decode(sigstruct)
    lps = addressable_lps(target.addressable or target.lps, target.sockets)
    plan = walk.plan = compute_memory_constants(
        shape_of(fields, len(image) // PAGE), lps, 0, target.seamrr_base, target.p_seamldr_range_base, target.revision
    )
    status = walk.ask(INSTALL_MEMORY, MemoryState(1, plan))
    if status is not None:
        return walk.end(status, KEPT)
    if target.scenario is Scenario.UPDATE and plan.td_preserving_supported:
        state = UpdateState(target.remaining, 1, target.running_hv, 0, target.running_handoff_pages,
                            fields.module_hv, fields.min_update_hv)
        status = walk.ask(INSTALL_UPDATE, state)
        if status is not None:
            return walk.end(status, KEPT)
    platform = Platform(PlatformConfig())
    region = ModuleRegion(Port(platform, platform.lp(platform.lps[0]), Agent.P_SEAMLDR), target.seamrr_base,
                          target.p_seamldr_range_base)
    try:
        fitted, next_table = build_page_tables(region, plan, target.revision)
    except (Ud2, MemoryFault) as error:
        return walk.end(Status.ENOMEM, GONE, str(error))
    walk.tables = (plan.pml4_physbase - next_table) // PAGE
    status = walk.ask(INSTALL_MAP, fitted)
    if status is None:
        status = walk.ask(INSTALL_HASH, HashState(image_hash(image), fields.seamhash))
    if status is None and target.revision != R10:
        outcome = relocate(bytearray(image), plan.code_region_linbase)
        if isinstance(outcome, ElfFatal):
            return walk.end(Status.EBADPARAM, GONE, f"divide error relocating at 0x{outcome.at:X}")
        status = walk.ask(INSTALL_RELOCATION, outcome)
    return walk.end(Status.SUCCESS if status is None else status, KEPT if status is None else GONE)


@implements("VERIFY.trust", "a P-SEAMLDR whose compiled-in signer is another one, and nothing else", "SEAMREF errata",
            CHOSEN)
def trust_signer(platform: Platform, signer: bytes) -> None:
    """VERIFY.trust: the P-SEAMLDR that is loaded accepts modules of this signer from now on.

    ``signer`` SHA-384 of the modulus.  The constant is overwritten where the loaded image has it.
    """
    held = platform.p_seamldr_range
    lp = platform.lp(platform.lps[0])
    data = b"" if held is None else bytes(platform.bytes_at(Agent.CPU, held[0], held[1], lp=lp))
    at = data.find(make_stub(P_SEAMLDR_PROGRAM))
    if held is None or at < 0:
        raise SeamrefError("no P-SEAMLDR of this book is loaded")
    place = held[0] + at + BUILD_OFFSET + P_SEAMLDR_BUILD.offset_of("signer_key_hash")
    platform.store(Agent.CPU, place, signer, lp=lp)


def signer_of(data: Buffer) -> bytes:
    """Who signed a TDX-BLOB or a sigstruct: SHA-384 of the modulus, as P-SEAMLDR compares it."""
    sigstruct = images.parse(bytes(data),
                             ignore_checksum=True).sigstruct if images.format_of(data) is not None else data
    return key_hash(SEAM_SIGSTRUCT.peek(bytes(sigstruct)[: SEAM_SIGSTRUCT.size], "modulus"))


def read_reserved3(data: Buffer) -> str:
    """What the first bytes of reserved3 seem to hold in released 2.0 modules (inferred); "" when they are zero."""
    at = sigstruct_layout(R15).offset_of("reserved3")
    held = RESERVED3_SEEN.decode(bytes(data[at : at + RESERVED3_SEEN.size]))
    if not any(held.encode()):
        return ""
    extra = f", byte {at + RESERVED3_SEEN.offset_of('byte_6')} is 0x{held.byte_6:02X}" if held.byte_6 else ""
    rest = ", more follows" if any(held.rest) else ""
    return f"version {held.major}.{held.minor}.{held.update:02} build {held.build}{extra}{rest}"


def explain_reserved(data: Buffer, row: str) -> list[str]:
    """Which reserved bytes are not zero, what they seem to hold, and which loader is needed."""
    name = row.rpartition(".")[2]
    if name not in RESERVED:
        return []
    layout = sigstruct_layout(R15)
    start, end = layout.offset_of(name), layout.end_of(name)
    bad = [at for at in range(start, end) if data[at]]
    shown = ", ".join(f"{at}: {data[at]:02X}" for at in bad[:12]) + (" ..." if len(bad) > 12 else "")
    notes = [f"{name} is bytes {start} to {end - 1}; not zero are {shown}"]
    reading = read_reserved3(data) if name == "reserved3" else ""
    if reading:
        notes.append(f"they seem to hold {reading} (inferred from released files)")
        notes.append("released modules of line 2.0 look like this: a P-SEAMLDR 2.0 is required")
    return notes


def plan_lines(plan: MemoryConstants, tables: int) -> list[tuple[str, int, int, int | None]]:
    """The memory plan as (region, physical base, bytes, linear base), low to high."""
    top = plan.stack_region_physbase - tables * PAGE
    return [
        ("SYS_INFO_TABLE", plan.seamrr_base, PAGE, plan.sysinfo_table_linbase),
        (f"{plan.num_addressable_lps} VMCSs", plan.seamrr_base + PAGE, plan.vmcs_region_size, None),
        ("data: handoff, local, global", plan.data_region_physbase, plan.data_region_size, plan.data_region_linbase),
        ("free", plan.data_region_end, max(top - plan.data_region_end, 0), None),
        ("page tables and PML4", top, tables * PAGE, None),
        ("stacks", plan.stack_region_physbase, plan.stack_region_size, plan.stack_region_linbase),
        ("code", plan.code_region_physbase, plan.code_region_size, plan.code_region_linbase),
        ("P_SEAMLDR_RANGE", plan.module_physlimit, 0, None),
    ]

