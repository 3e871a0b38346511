"""A stage for INSTALL: a base platform, a module, and faults that can be put in one by one or two at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from seamref import mint
from seamref.arch.memory import Agent
from seamref.arch.platform import Platform, Topology
from seamref.arch.software import SeamRun
from seamref.pseamldr import lab
from seamref.pseamldr.api import HANDOFF_DATA_HEADER, PAGE, SEAMLDR_PARAMS, Leaf, Status
from seamref.pseamldr.build import Build
from seamref.pseamldr.lab import Returned

BUILD = Build(signer_key_hash=mint.KEY.key_hash)
PARAMS = 0x10000000
OUT = 0x20000
HANDOFF = {"valid": 1, "hv": 0, "size": 40}


@cache
def image() -> bytes:
    """A module of eight pages with relocations, IDT and fault wrappers."""
    made: bytes = mint.module_image(pages=8)
    return made


def header_pa(platform: Platform) -> int:
    """Where handoff data lie: behind the VMCSs."""
    topology = platform.config.topology
    return lab.SEAMRR.base + PAGE + PAGE * topology.stride * topology.sockets


@cache
def _base(update: bool) -> Platform:
    platform = lab.platform(topology=Topology(1, 1), build=BUILD)
    answer = lab.ask(platform, 0, Leaf.INFO, OUT)  # the stack canary is drawn
    assert answer == Returned(Status.SUCCESS, 0)
    if update:
        assert lab.install(platform, mint.place(platform, image())) == Returned(Status.SUCCESS, 0)
    return platform


def base(update: bool = False) -> Platform:
    """A fork of a platform with a fresh P-SEAMLDR, or of one where a module runs that could be updated."""
    platform = _base(update).fork()
    if update:
        put_handoff(platform)
    return platform


def put_handoff(platform: Platform, **fields: int) -> None:
    """Handoff data as the old module would leave them."""
    header = HANDOFF_DATA_HEADER.encode({**HANDOFF, **fields})
    platform.store(Agent.MODULE, header_pa(platform), header + bytes(range(40)))


@dataclass
class Scene:
    """What a caller does, before anything is broken."""

    update: bool = False
    params: dict[str, Any] = field(default_factory=dict)
    sig: dict[str, Any] = field(default_factory=dict)
    handoff: dict[str, int] = field(default_factory=dict)
    image: bytes = b""
    rcx: int = PARAMS
    prepare: list[Callable[[Platform], None]] = field(default_factory=list)

    def platform(self) -> Platform:
        """The platform with everything in memory."""
        platform = base(self.update)
        data = self.image or image()
        signed = mint.sigstruct(data, **self.sig)
        mint.place(platform, data, signed, at=PARAMS)
        pages = [PARAMS + 2 * PAGE + i * PAGE for i in range(len(data) // PAGE)]
        params = SEAMLDR_PARAMS.encode({
            "scenario": int(self.update), "sigstruct_pa": PARAMS + PAGE, "num_module_pages": len(pages),
            "mod_pages_pa_list": pages, **self.params,
        })
        platform.store(Agent.HOST, PARAMS, params)
        if self.handoff:
            put_handoff(platform, **self.handoff)
        for step in self.prepare:
            step(platform)
        return platform

    def run(self) -> tuple[Platform, Returned | SeamRun]:
        """INSTALL on the one processor: the platform afterwards, and the answer."""
        platform = self.platform()
        return platform, lab.ask(platform, 0, Leaf.INSTALL, self.rcx, 0x5A5A)


@dataclass(frozen=True)
class Injected:
    """A fault: the row that must name it, what it touches (two that touch the same cannot be combined), its result."""

    row: str
    touches: str
    put: Callable[[Scene], None]
    status: Status
    rdx: int = 0
    update: bool | None = None

    def __repr__(self) -> str:
        return self.row


def _params(**fields: Any) -> Callable[[Scene], None]:
    return lambda scene: scene.params.update(fields)


def _sig(**fields: Any) -> Callable[[Scene], None]:
    return lambda scene: scene.sig.update(fields)


def _handoff(**fields: int) -> Callable[[Scene], None]:
    return lambda scene: scene.handoff.update(fields)


def _before(step: Callable[[Platform], None]) -> Callable[[Scene], None]:
    return lambda scene: scene.prepare.append(step)


def _misalign(scene: Scene) -> None:
    scene.rcx += 8


def _bad_page(scene: Scene) -> None:
    pages = [PARAMS + 2 * PAGE + i * PAGE for i in range(8)]
    pages[3] += 1
    scene.params["mod_pages_pa_list"] = pages


def _no_magic(scene: Scene) -> None:
    from seamref.pseamldr.sigstruct import image_hash

    broken = bytearray(image())
    broken[0] = 0x7E
    scene.image = bytes(broken)
    scene.sig.setdefault("seamhash", image_hash(broken))
    for name, value in mint.sigstruct_fields(image()).items():
        if name != "seamhash":
            scene.sig.setdefault(name, value)


def _nothing_left(platform: Platform) -> None:
    from seamref.pseamldr.data import P_SEAMLDR_DATA

    held = platform.p_seamldr_range
    assert held is not None
    at = lab.data_base(held) + P_SEAMLDR_DATA.offset_of("num_remaining_updates")
    platform.store(Agent.CPU, at, bytes(4))


EBADPARAM, EBADSIG, EBADHANDOFF = Status.EBADPARAM, Status.EBADSIG, Status.EBADHANDOFF
_M = "INSTALL.manifest."

FAULTS: tuple[Injected, ...] = (
    Injected("INSTALL.rcx.pa", "rcx", _misalign, EBADPARAM),
    Injected("INSTALL.params.version", "version", _params(version=1), EBADPARAM),
    Injected("INSTALL.params.reserved", "p.reserved", _params(reserved=1 << 800), EBADPARAM),
    Injected("INSTALL.params.scenario", "scenario", _params(scenario=2), EBADPARAM),
    Injected("INSTALL.params.num_module_pages", "pages", _params(num_module_pages=497), EBADPARAM),
    Injected("INSTALL.params.page_pa", "list", _bad_page, EBADPARAM),
    Injected("INSTALL.params.sigstruct_pa", "sigpa", _params(sigstruct_pa=PARAMS + PAGE + 2048), EBADPARAM),
    Injected("INSTALL.params.update_ready", "scenario", _params(scenario=1), EBADPARAM, update=False),
    *(Injected(_M + name, name, _sig(**{name: 1}), EBADSIG) for name in (
        "reserved0", "reserved1", "reserved2", "reserved3", "header_type", "header_length", "header_version",
        "key_size")),
    Injected(_M + "exponent_size", "exponent_size", _sig(exponent_size=2), EBADSIG),
    *(Injected(_M + name, name, _sig(**{name: 1}), EBADSIG) for name in ("modulus_size", "module_vendor")),
    Injected(_M + "module_type", "module_type", _sig(module_type=1), EBADSIG),
    Injected(_M + "attributes", "attributes", _sig(attributes=1 << 63), EBADSIG),
    Injected(_M + "size", "size", _sig(size=0x201), EBADSIG),
    Injected(_M + "cpuid_table_size", "cpuid", _sig(cpuid_table_size=256), EBADSIG),
    Injected(_M + "exponent", "exponent", _sig(exponent=3), EBADSIG),
    Injected(_M + "hv", "hv", _sig(module_hv=0, min_update_hv=1), EBADSIG),
    Injected(_M + "gdt_idt_alignment", "gdt", _sig(gdt_idt_offset=0x1008), EBADSIG),
    Injected(_M + "gdt_idt_pair", "wrapper", _sig(fault_wrapper_offset=0), EBADSIG),
    Injected(_M + "signer_key", "key", _sig(key=mint.OTHER_KEY), EBADSIG),
    Injected(_M + "debug", "module_type", _sig(module_type=1 << 31), EBADSIG),
    Injected(_M + "major_svn", "major", _sig(seam_major_svn=2), Status.EBADCALL, update=True),
    Injected(_M + "minor_svn", "minor", _sig(seam_minor_svn=0), EBADSIG, update=True),
    Injected(_M + "gdt_idt_bound", "gdt", _sig(gdt_idt_offset=8 * PAGE), EBADSIG),
    Injected(_M + "fault_wrapper_bound", "wrapper", _sig(fault_wrapper_offset=8 * PAGE - 511), EBADSIG),
    Injected(_M + "cpuid", "cpuid", _sig(cpuid_table=[0x90670]), Status.EUNSUPCPU),
    Injected(_M + "cpuid_mandatory", "cpuid", _sig(cpuid_table_size=0), EBADSIG),
    Injected(_M + "signature", "signature", _sig(signature=bytes(383) + b"\x01"), EBADSIG),
    Injected("INSTALL.memory.entropy", "rdrand", _before(lambda p: p.inject("rdrand", (0, 0))), Status.ENOENTROPY),
    Injected("INSTALL.memory.size", "memory", _sig(num_global_data_pages=65535), Status.ENOMEM),
    Injected("INSTALL.update.remaining", "remaining", _before(_nothing_left), Status.EBADCALL, update=True),
    Injected("INSTALL.update.handoff_valid", "h.valid", _handoff(valid=0), EBADHANDOFF, update=True),
    Injected("INSTALL.update.handoff_size", "h.size", _handoff(size=1 << 31), EBADHANDOFF, update=True),
    Injected("INSTALL.update.handoff_hv_high", "h.hv", _handoff(hv=0xFFFF), EBADHANDOFF, update=True),
    Injected("INSTALL.hash.seamhash", "seamhash", _sig(seamhash=bytes(48)), Status.EBADHASH, 1),
    Injected("INSTALL.relocation.elf", "image", _no_magic, EBADPARAM, 1),
    Injected("INSTALL.seamdb.entropy", "seamdb", _before(
        lambda p: p.inject("seamdb", *(() if p.SEAM_READY else (("CLEAR", 0), ("GETREF", 3, 0, 16))),
                           *(("INSERT", 2),) * 5)), Status.ENOENTROPY, 1),
)
"""In the order in which INSTALL comes to them."""


def combinable(first: Injected, second: Injected, update: bool) -> bool:
    """Whether two faults can be put in at once on this kind of platform."""
    return first.touches != second.touches and all(f.update in (None, update) for f in (first, second))
