"""Replays recorded P-SEAMLDR behaviour (format ``pseamldr-vectors/1``) on this P-SEAMLDR and compares everything.

Each case gets a platform of its own, in the state that NP-SEAMLDR leaves: P_SEAMLDR_RANGE with its VMCS and
P_SYS_INFO_TABLE, the data area zero.  Calls go through the processor's entry and the very program that SEAMCALL
runs.  What the recording does not have is left out: the processor's "P-SEAMLDR is ready" check before entry (the
recording made its calls also where p_seamldr_ready was 0), and the processor's own answer to a fatal error.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import lru_cache
from hashlib import sha256, sha384, shake_128
from itertools import chain
from pathlib import Path
from struct import Struct, pack
from struct import error as StructError
from typing import Any

from seamref.arch.lp import GPRS, Lp
from seamref.arch.memory import Range
from seamref.arch.msr import KEYID_PARTITIONING, MISC_ENABLE, SPEC_CTRL
from seamref.arch.outcome import Left
from seamref.arch.paging import ADDRESS
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.seam import BIT63, _enter_SEAM, _leave_SEAM
from seamref.arch.software import MemoryFault, Ud2
from seamref.arch.structures import SYS_INFO_TABLE
from seamref.arch.trace import Computed, Event
from seamref.arch.vmcs import get, put
from seamref.arch.vmx import current
from seamref.errors import SeamrefError
from seamref.pseamldr.api import COMPONENT, PAGE, SEAMLDR_PARAMS, Leaf
from seamref.pseamldr.build import Build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.elf import ELF64_EHDR, ELF64_RELA, ELF64_SHDR
from seamref.pseamldr.lab import data_base, load_p_seamldr, set_up_seamrr
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.pseamldr.program import Stage, advance
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT

FORMAT = "pseamldr-vectors/1"
M64 = (1 << 64) - 1
_ZERO_PAGE = bytes(PAGE)
_WORDS = Struct("<512Q")


class FormatError(SeamrefError):
    """A file that is not of the vector format; the message says what and where."""


def integer(value: int | str) -> int:
    """A number of the format: a JSON number or a ``0x`` string."""
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise FormatError(f"{value!r} is no number")
    return value if isinstance(value, int) else int(value, 16)


# --- recipes


@lru_cache(maxsize=256)
def shake(seed: int, size: int) -> bytes:
    """SHAKE(seed, size) of the format."""
    return shake_128(seed.to_bytes(8, "little")).digest(size)


def build_image(recipe: dict[str, Any]) -> bytes:
    """A module image from its recipe."""
    pages = recipe["pages"]
    kind, *more = recipe["fill"]
    image = bytearray(pages * PAGE)
    if kind == "shake":
        seed = integer(more[0]).to_bytes(8, "little")
        for p in range(pages):
            image[p * PAGE : (p + 1) * PAGE] = shake_128(seed + p.to_bytes(8, "little")).digest(PAGE)
    elif kind != "zero":
        raise FormatError(f"image fill {kind!r} is neither zero nor shake")
    for write in recipe["writes"]:
        at, data = integer(write[1]), _WRITES[write[0]](*write[2:])
        data = data[: max(len(image) - at, 0)]
        image[at : at + len(data)] = data
    return bytes(image)


def _ehdr(fields: dict[str, Any]) -> bytes:
    ident = bytes.fromhex(fields.get("e_ident", "7f454c46020101" + "00" * 9))
    defaults = {"e_type": 3, "e_machine": 62, "e_version": 1, "e_ehsize": 64, "e_phentsize": 56, "e_shentsize": 64}
    numbers = {name: integer(value) for name, value in fields.items() if name != "e_ident"}
    return ident + ELF64_EHDR.encode({**defaults, **numbers})[16:]


def _shdr(fields: dict[str, Any]) -> bytes:
    return ELF64_SHDR.encode({name: integer(value) for name, value in fields.items()})


def _rela(entries: list[list[Any]]) -> bytes:
    return b"".join(pack("<3Q", *(integer(v) & M64 for v in entry)) for entry in entries)


def _relaseq(parameters: list[Any]) -> bytes:
    n, o, os, info, a, step = (integer(v) for v in parameters)
    return b"".join(pack("<3Q", (o + i * os) & M64, info & M64, (a + i * step) & M64) for i in range(n))


assert ELF64_RELA.size == 24
_WRITES: dict[str, Callable[..., bytes]] = {
    "hex": bytes.fromhex, "ehdr": _ehdr, "shdr": _shdr, "rela": _rela, "relaseq": _relaseq,
}


def build_sigstruct(recipe: dict[str, Any], defaults: dict[str, Any], keys: dict[str, str]) -> bytes:
    """A sigstruct from its recipe."""
    out = bytearray(SEAM_SIGSTRUCT.size)
    for name, value in {**defaults, **recipe.get("set", {})}.items():
        if name == "cpuid_table":
            continue
        SEAM_SIGSTRUCT.poke(out, name, integer(value))
    table = recipe.get("cpuid_table", recipe.get("set", {}).get("cpuid_table", defaults.get("cpuid_table", [])))
    for index, entry in enumerate(table):
        out[1028 + 4 * index : 1032 + 4 * index] = integer(entry).to_bytes(4, "little")
    out[900:948] = bytes.fromhex(recipe["seamhash"])
    out[128:512] = bytes.fromhex(keys[recipe.get("signer", "k0")])
    _patch(out, recipe.get("pre", []))
    out[516:900] = bytes.fromhex(recipe["signature"])
    _patch(out, recipe.get("post", []))
    return bytes(out)


def _patch(data: bytearray, patches: Iterable[list[Any]]) -> None:
    for at, text in patches:
        part = bytes.fromhex(text)
        data[integer(at) : integer(at) + len(part)] = part


def build_params(recipe: dict[str, Any]) -> bytes:
    """A SEAMLDR_PARAMS page from its recipe."""
    out = bytearray(SEAMLDR_PARAMS.size)
    for name in ("version", "scenario", "sigstruct_pa", "num_module_pages"):
        SEAMLDR_PARAMS.poke(out, name, integer(recipe.get(name, 0)))
    for index, pa, count in recipe.get("pages", []):
        for i in range(count):
            at = 128 + 8 * (index + i)
            out[at : at + 8] = ((integer(pa) + PAGE * i) & M64).to_bytes(8, "little")
    _patch(out, recipe.get("patch", []))
    return bytes(out)


class Recipes:
    """What the cases of one file share: sigstructs and images, built when first needed, and digests of whole ranges."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._sigstructs: dict[str, bytes] = {}
        self._images: dict[str, bytes] = {}
        self._document = document
        self.range_digests: dict[tuple[int, str], str] = {}

    def sigstruct(self, id: str) -> bytes:
        """The 2048 bytes; they must have the digest that the file gives."""
        if id not in self._sigstructs:
            recipe = self._document["sigstructs"][id]
            made = build_sigstruct(recipe, self._document["sigstruct_default"], self._document["keys"])
            if sha256(made).hexdigest() != recipe["sha256"]:
                raise FormatError(f"sigstruct {id}: SHA-256 is not what the file says")
            self._sigstructs[id] = made
        return self._sigstructs[id]

    def image(self, id: str) -> bytes:
        """The image's pages; they must have the digest that the file gives."""
        if id not in self._images:
            recipe = self._document["images"][id]
            made = build_image(recipe)
            if sha384(made).hexdigest() != recipe["sha384"]:
                raise FormatError(f"image {id}: SHA-384 is not what the file says")
            self._images[id] = made
        return self._images[id]


# --- the platform of a case


def _sysinfo(p: dict[str, Any]) -> dict[str, Any]:
    """The low half of P_SYS_INFO_TABLE as MCHECK wrote it, and who launched NP-SEAMLDR."""
    seed = p.get("reserved_seed")
    reserved = bytes(1470) if seed is None else shake(integer(seed), 1470)
    return {
        "version": integer(p["sysinfo_version"]),
        "tot_num_lps": integer(p["tot_num_lps"]),
        "tot_num_sockets": integer(p["num_sockets"]),
        "socket_cpuid_table": [integer(v) for v in p["fms"]],
        "skip_smrr2_check": integer(p["skip_smrr2_check"]),
        "tdx_ac": integer(p["tdx_ac"]),
        "reserved_0": reserved[:62],
        "cmr": [{"base": integer(base), "size": integer(size)} for base, size in p["cmrs"]],
        "reserved_1": reserved[62:],
        "acm_x2apicid": integer(p["acm_x2apicid"]),
    }


def _ids(ranges: list[list[int]]) -> Iterator[int]:
    """x2APIC ids of ``[first, count]`` ranges."""
    return (id for first, count in ranges for id in range(integer(first), integer(first) + integer(count)))


def _callers(step: dict[str, Any]) -> list[int]:
    """The processors a step calls on, in order."""
    return list(_ids(step["lps"])) if "lps" in step else [integer(step["lp"])]


def make_platform(case: dict[str, Any], build: Build) -> Platform:
    """The platform that a case describes, with a freshly loaded P-SEAMLDR."""
    p = case["platform"]
    seamrr = Range(integer(p["seamrr_base"]), integer(p["seamrr_size"]))
    size = integer(p["p_seamldr_range_size"])
    k = integer(p["hkid_bits"])
    ids = tuple(sorted({*_ids(p["lps"]), *chain.from_iterable(_callers(step) for step in case["steps"])}))
    platform = Platform(PlatformConfig(
        topology=Topology(
            sockets=min(max(integer(p["num_sockets"]), 1), 8),
            addressable=integer(p["cpuid4_max_lps_minus1"]) + 1,
            ids=ids,
        ),
        maxpa=integer(p["max_pa"]), max_keyid_bits=k, fms=tuple(integer(v) for v in p["fms"]) or (0,),
        seamdb_size=integer(case["seamdb"]["size"]), debug_unlocked=bool(integer(p["debug_unlocked"])),
        vmx_msrs={integer(address): integer(value) for address, value in p["vmx_msrs"].items()}, keyid_separate=True,
    ))
    platform.SEAMEXTEND = bytes.fromhex(case["seamextend"])
    set_up_seamrr(platform, seamrr, Range(seamrr.end - size, size), k)
    for id in ids:
        lp = platform.lp(id)
        platform.set_msr(lp, KEYID_PARTITIONING, integer(p["num_mktme_kids"]))
        platform.set_msr(lp, MISC_ENABLE, integer(p.get("misc_enable", 0)))
        platform.set_msr(lp, SPEC_CTRL, integer(p.get("spec_ctrl", 0)) & 0x7FF)  # a processor has no other bits
    load_p_seamldr(platform, build, _sysinfo(p))
    return platform


# --- observing


class Watch:
    """Listens to what P-SEAMLDR computes and memory does not hold."""

    __slots__ = ("next_table", "plan", "vmclear")

    def __init__(self) -> None:
        self.vmclear: list[int] = []
        self.plan: MemoryConstants | None = None
        self.next_table: int | None = None

    def __call__(self, event: Event) -> None:
        if isinstance(event, Computed) and event.component == COMPONENT:
            match event.name:
                case "VMCLEAR":
                    self.vmclear.append(event.value)
                case "memory_constants":
                    self.plan = event.value
                case "current_pt_physbase":
                    self.next_table = event.value


@dataclass(frozen=True, slots=True)
class Difference:
    """The first field of a step that differs: its path, what was recorded, what came out here."""

    step: int
    path: str
    recorded: Any
    here: Any

    def __str__(self) -> str:
        return f"step {self.step}: {self.path}: recorded {_shown(self.recorded)}, here {_shown(self.here)}"


def _shown(value: Any) -> str:
    text = hex(value) if isinstance(value, int) and not isinstance(value, bool) else str(value)
    return text if len(text) <= 100 else text[:100] + "..."


class _Differs(Exception):
    def __init__(self, path: str, recorded: Any, here: Any) -> None:
        self.path = path
        self.recorded = recorded
        self.here = here


def _same(path: str, recorded: Any, here: Any) -> None:
    """Compare one value; numbers in either spelling."""
    if isinstance(here, int) and not isinstance(here, bool) and isinstance(recorded, int | str):
        if integer(recorded) != here:
            raise _Differs(path, recorded, here)
    elif recorded != here:
        raise _Differs(path, recorded, here)


def page_digests(platform: Platform, module: Range, vmcs_end: int) -> dict[str, Any]:
    """The sparse digests of the module range; ``vmcs_end`` is the offset behind the VMCSs."""
    sparse, no_vmcs, count = sha256(), sha256(), 0
    for address, data in platform.store_.pages(module.base, module.end):
        offset = address - module.base
        record = offset.to_bytes(8, "little") + data
        sparse.update(record)
        if not PAGE <= offset < vmcs_end:
            no_vmcs.update(record)
        count += 1
    return {"nonzero_pages": count, "sparse_sha256": sparse.hexdigest(), "sparse_no_vmcs_sha256": no_vmcs.hexdigest()}


_GAP = bytes(1 << 20)


def range_digest(platform: Platform, module: Range) -> str:
    """SHA-256 of every byte of the module range."""
    dense, at = sha256(), module.base
    for address, data in chain(platform.store_.pages(module.base, module.end), ((module.end, b""),)):
        while at < address:
            part = min(address - at, len(_GAP))
            dense.update(_GAP[:part])
            at += part
        dense.update(data)
        at += len(data)
    return dense.hexdigest()


class Walk:
    """The new module's page tables, walked from their PML4 as the format does."""

    def __init__(self, platform: Platform, root: int, seamrr: Range) -> None:
        self._platform = platform
        self._seamrr = seamrr
        self._digest = sha256()
        self.leaves = self.tables = 0
        self.broken = self.broken_leaf = False
        self._runs: list[list[int]] = []
        self._walk(root, 39, 0)

    def _entries(self, at: int) -> tuple[int, ...] | None:
        self.tables += 1
        data = self._platform.store_.read(at, PAGE)
        return None if data == _ZERO_PAGE else _WORDS.unpack(data)

    def _outside(self, at: int) -> bool:
        return not self._seamrr.base <= at <= self._seamrr.end - PAGE

    def _walk(self, table: int, shift: int, linear: int) -> None:
        entries = self._entries(table)
        if entries is None:
            return
        if shift == 12:
            self._leaves(entries, linear)
            return
        for index, entry in enumerate(entries):
            if not entry:
                continue
            below = linear | index << shift
            if shift == 39 and index >= 256:
                below |= 0xFFFF << 48
            if self._outside(entry & ADDRESS):
                self.broken = True
            else:
                self._walk(entry & ADDRESS, shift - 9, below)

    def _leaves(self, entries: tuple[int, ...], linear: int) -> None:
        count = len(entries) - entries.count(0)
        if count == len(entries):
            addresses: Iterable[int] = range(linear, linear + (512 << 12), PAGE)
            kept: Iterable[int] = entries
        else:
            used = [index for index, entry in enumerate(entries) if entry]
            addresses = [linear | index << 12 for index in used]
            kept = [entries[index] for index in used]
        self.leaves += count
        self._digest.update(pack(f"<{2 * count}Q", *chain.from_iterable(zip(addresses, kept, strict=True))))
        runs = self._runs
        for address, entry in zip(addresses, kept, strict=True):
            if runs and address == runs[-1][0] + runs[-1][2] * PAGE and entry == runs[-1][1] + runs[-1][2] * PAGE:
                runs[-1][2] += 1
            else:
                runs.append([address, entry, 1])
                if self._outside(entry & ADDRESS):
                    self.broken_leaf = True

    def found(self, names: Iterable[str]) -> dict[str, Any]:
        """The fields of ``mapping``."""
        whole = {
            "sha256": self._digest.hexdigest(), "leaves": self.leaves, "tables": self.tables,
            "runs": self._runs, "broken": self.broken or self.broken_leaf,
        }
        return {name: whole[name] for name in names if name in whole}


_PER_LP = ("host_rsp", "host_ssp", "host_gs_base")


def read_vmcss(platform: Platform, base: int, count: int, expected: dict[str, Any]) -> dict[str, Any]:
    """The ``vmcs`` observation of ``count`` VMCSs from ``base`` on."""
    pages = [platform.store_.read(base + i * PAGE, PAGE) for i in range(count)]
    common = {name: get(pages[0], name) for name in expected["common"]} if pages else {}
    found: dict[str, Any] = {"common": common, "count": count}
    lists = {name: [get(page, name) for page in pages] for name in _PER_LP}
    if "per_lp" in expected:
        found["per_lp"] = lists
    if "per_lp_first_last" in expected:
        found["per_lp_first_last"] = {name: [values[0], values[1], values[-1]] for name, values in lists.items()}
        found["per_lp_sha256"] = {
            name: sha256(pack(f"<{count}Q", *values)).hexdigest() for name, values in lists.items()
        }
    differences = sorted(
        [i, name, value]
        for i, page in enumerate(pages)
        for name in common
        if (value := get(page, name)) != common[name]
    )
    if differences or "differences" in expected:
        found["differences"] = differences
    return found


def _compare(path: str, recorded: Any, here: Any) -> None:
    """Compare nested data: objects by the recorded keys, lists element by element."""
    if isinstance(recorded, dict):
        for name, value in recorded.items():
            if name not in here:
                raise _Differs(f"{path}.{name}", value, None)
            _compare(f"{path}.{name}", value, here[name])
        for name in here:
            if name not in recorded:
                raise _Differs(f"{path}.{name}", None, here[name])
    elif isinstance(recorded, list):
        if len(recorded) != len(here):
            raise _Differs(f"{path}.length", len(recorded), len(here))
        for index, (a, b) in enumerate(zip(recorded, here, strict=True)):
            _compare(f"{path}[{index}]", a, b)
    else:
        _same(path, recorded, here)


# --- a case


_SYS_INFO_FIELDS = tuple(
    name.name for name in SYS_INFO_TABLE.fields if name.name != "mcheck" and not name.name.startswith("reserved")
)
_NOT_STORED = ("pml4_physbase", "current_pt_physbase")
"""Memory constants that the loader has not stored yet when mapping is fatal: the recording holds what happened to lie
in those places of its stack (values of an earlier case, or no address at all), so they say nothing."""
_SPARE = 8
"""Answers behind the recorded ones, by which a draw too many is seen."""


class Replay:
    """One case on its platform; ``run`` stops at the first difference."""

    def __init__(self, case: dict[str, Any], recipes: Recipes, build: Build, whole: bool = True) -> None:
        self.case = case
        self.recipes = recipes
        self.build = build
        self.whole = whole
        self.platform = make_platform(case, build)
        held = self.platform.p_seamldr_range
        seamrr = self.platform.seamrr()
        assert held is not None and seamrr is not None
        self.seamrr = seamrr
        self.held = held
        self.module = Range(self.seamrr.base, held.base - self.seamrr.base)
        self.data = data_base(held)
        self.calls = 0
        for write in case.get("initial_module_range", []):
            self._seam_write(write)

    def run(self) -> Difference | None:
        """Replay every step."""
        for number, step in enumerate(self.case["steps"]):
            try:
                self._step(step)
            except _Differs as differs:
                return Difference(number, differs.path, differs.recorded, differs.here)
        return None

    def _seam_write(self, write: dict[str, Any]) -> None:
        data = bytes.fromhex(write["hex"]) if "hex" in write else shake(*(integer(v) for v in write["shake"]))
        self.platform.store_.write(self.module.base + integer(write["off"]), data)

    def _memory(self, write: dict[str, Any]) -> None:
        if "image" in write:
            image = self.recipes.image(write["image"])
            for pa, first, count in write["at"]:
                self._host_write(integer(pa), image[first * PAGE : (first + count) * PAGE])
        elif "params" in write:
            self._host_write(integer(write["pa"]), build_params(write["params"]))
        elif "sigstruct" in write:
            self._host_write(integer(write["pa"]), self.recipes.sigstruct(write["sigstruct"]))
        else:
            self._host_write(integer(write["pa"]), bytes.fromhex(write["hex"]))

    def _host_write(self, pa: int, data: bytes) -> None:
        """The caller's store: what falls into SEAMRR is dropped."""
        done = 0
        while done < len(data):
            part = min(len(data) - done, PAGE - (pa + done) % PAGE)
            if not self.seamrr.overlaps(pa + done, part):
                self.platform.store_.write(pa + done, data[done : done + part])
            done += part

    def _step(self, step: dict[str, Any]) -> None:
        for write in step.get("mem", ()):
            self._memory(write)
        for write in step.get("seam_writes", ()):
            self._seam_write(write)
        expect = step["expect"]
        watch = Watch()
        self.platform.listeners = [watch]
        for id in _callers(step):
            self._call(id, step, expect)
            self.calls += 1
        _compare("vmclear", [integer(at) for at in expect.get("vmclear", [])], watch.vmclear)
        for name in ("num_remaining_updates", "lps_in_update", "lps_in_shutdown"):
            at = self.data + P_SEAMLDR_DATA.offset_of(name)
            _same(name, expect[name], int.from_bytes(self.platform.store_.read(at, 4), "little"))
        self._observe(expect, watch)

    # --- one call

    def _call(self, id: int, step: dict[str, Any], expect: dict[str, Any]) -> None:
        platform = self.platform
        leaf = step["leaf"]
        lp = platform.lp(id)
        for index, name in enumerate(GPRS):
            setattr(lp, name, 0x1111111111111111 * index)
        lp.rax = int(Leaf[leaf]) if leaf in Leaf.__members__ else integer(leaf)
        lp.rcx, lp.rdx = integer(step["rcx"]), integer(step["rdx"])
        before = {name: getattr(lp, name) for name in GPRS}
        near = self._near(lp.rcx) if "fatal" not in expect and leaf != "INSTALL" else None
        self._inject(step)
        lp.rax = BIT63  # the recording's calls with RAX[63] = 0 reach P-SEAMLDR too
        _enter_SEAM(platform, lp)
        lp.rax = before["rax"]
        if "guest" in step:
            self._set_guest(lp, step["guest"])
        try:
            fatal = self._run(lp)
        except SeamrefError as error:
            raise _Differs("seamops", step.get("seamops"), str(error)) from None
        self._all_drawn(step)
        _same("fatal", expect.get("fatal"), fatal)
        _same("seamextend", expect["seamextend"], platform.SEAMEXTEND.hex())
        if fatal is not None:
            return
        _same("rax", expect["rax"], lp.rax)
        _same("rdx", expect["rdx"], lp.rdx)
        if "guest" in expect:
            self._same_guest(lp, expect["guest"])
        self._leave(lp, before)
        if near is not None:
            self._same_memory(near, expect.get("written"))

    def _inject(self, step: dict[str, Any]) -> None:
        self.platform.injected = {
            "rdrand": (*((integer(cf), integer(value)) for cf, value in step.get("rdrand", ())), *((0, 0),) * _SPARE),
            "seamdb": (
                *((name, *(integer(v) & M64 for v in more)) for name, *more in step.get("seamops", ())), ("end", 0)
            ),
        }

    def _all_drawn(self, step: dict[str, Any]) -> None:
        """Exactly the recorded RDRANDs and SEAMOPS were executed."""
        recorded = len(step.get("rdrand", ()))
        _same("rdrand.count", recorded, recorded + _SPARE - len(self.platform.injected.get("rdrand", ())))
        left = len(self.platform.injected.get("seamdb", ())) - 1
        _same("seamops.count", len(step.get("seamops", ())), len(step.get("seamops", ())) - left)
        self.platform.injected = {}

    def _run(self, lp: Lp) -> str | None:
        """Step P-SEAMLDR up to its SEAMRET: ``None``, or how the recording calls its end."""
        try:
            while lp.program_state is not Stage.LEAVE:
                advance(self.platform, lp, self.build)
        except Ud2:
            return "shutdown"
        except MemoryFault:
            return "fault"
        return None

    def _leave(self, lp: Lp, before: dict[str, int]) -> None:
        """SEAMRET; the recording's never fails, whatever guest state it was given."""
        try:
            left = isinstance(advance(self.platform, lp, self.build), Left)
        except Ud2:
            left = False
        if not left:
            _leave_SEAM(self.platform, lp)
        for name in GPRS:
            if name not in ("rax", "rdx"):
                _same(name, before[name], getattr(lp, name))

    @staticmethod
    def _set_guest(lp: Lp, guest: dict[str, Any]) -> None:
        data = current(lp).data
        for name, field_name in (
            ("rip", "guest_rip"), ("instruction_length", "exit_instruction_length"), ("rflags", "guest_rflags"),
            ("interruptibility", "guest_interruptibility"), ("debugctl", "guest_debugctl"),
            ("pending_dbg", "guest_pending_debug"),
        ):
            put(data, field_name, integer(guest[name]))

    @staticmethod
    def _same_guest(lp: Lp, recorded: dict[str, Any]) -> None:
        data = current(lp).data
        _compare("guest", recorded, {
            "rip": get(data, "guest_rip"), "interruptibility": get(data, "guest_interruptibility"),
            "pending_dbg": get(data, "guest_pending_debug"),
        })

    # --- the caller's memory

    def _near(self, rcx: int) -> tuple[int, bytes] | None:
        """Memory around RCX before the call; ``None`` where P-SEAMLDR's own memory is, which any call changes."""
        at = rcx & ~(PAGE - 1)
        return None if self.held.overlaps(at, 2 * PAGE) else (at, self.platform.store_.read(at, 2 * PAGE))

    def _same_memory(self, near: tuple[int, bytes], written: dict[str, Any] | None) -> None:
        at, before = near
        wanted = bytearray(before)
        if written is not None:
            start, size = integer(written["pa"]), integer(written["len"])
            here = self.platform.store_.read(start, size)
            if "sha256" in written:
                _same("written.sha256", written["sha256"], sha256(here).hexdigest())
            if "hex" in written:
                full = bytes.fromhex(written["hex"]).ljust(size, b"\0")
                if here != full:
                    first = next(i for i in range(size) if here[i] != full[i])
                    part = slice(first, first + 8)
                    raise _Differs(f"written.hex at 0x{first:X}", full[part].hex(), here[part].hex())
            wanted[start - at : start - at + size] = here
        _same("memory around RCX", sha256(wanted).hexdigest(),
              sha256(self.platform.store_.read(at, 2 * PAGE)).hexdigest())

    # --- the module range

    def _observe(self, expect: dict[str, Any], watch: Watch) -> None:
        platform, plan = self.platform, watch.plan
        if "range" in expect:
            recorded = expect["range"]
            here = page_digests(platform, self.module, PAGE * (1 + self._lps()))
            _compare("range", {name: value for name, value in recorded.items() if name != "sha256"}, here)
            if self.whole and "sha256" in recorded:
                same = (self.module.size, here["sparse_sha256"])  # equal sparse digests: equal bytes
                if same not in self.recipes.range_digests:
                    self.recipes.range_digests[same] = range_digest(platform, self.module)
                _same("range.sha256", recorded["sha256"], self.recipes.range_digests[same])
        if "memory" in expect:
            self._same_plan(expect["memory"], plan, watch.next_table, "fatal" in expect)
        if "mapping" in expect:
            self._same_mapping(expect["mapping"], plan)
        if "sys_info_table" in expect:
            table = platform.store_.read(self.seamrr.base, SYS_INFO_TABLE.size)
            fields = {name: SYS_INFO_TABLE.peek(table, name) for name in _SYS_INFO_FIELDS}
            fields["mcheck_sha256"] = sha256(table[:2048]).hexdigest()
            _compare("sys_info_table", expect["sys_info_table"], fields)
        if "vmcs" in expect:
            vmcs = expect["vmcs"]
            here = read_vmcss(platform, self.seamrr.base + PAGE, self._lps(), vmcs)
            if "differences" in vmcs:
                recorded = sorted([i, name, integer(value)] for i, name, value in vmcs["differences"])
                vmcs = {**vmcs, "differences": recorded}
            _compare("vmcs", vmcs, here)
        if "code_region_sha256" in expect:
            assert plan is not None
            code = platform.store_.read(plan.code_region_physbase, plan.code_region_size)
            _same("code_region_sha256", expect["code_region_sha256"], sha256(code).hexdigest())
        if "page_table_pages_used" in expect:
            assert plan is not None and watch.next_table is not None
            used = (plan.first_table - watch.next_table) // PAGE
            _same("page_table_pages_used", expect["page_table_pages_used"], used)

    def _lps(self) -> int:
        """Addressable processors, as the recording's digests use them."""
        p = self.case["platform"]
        return int(1 << integer(p["cpuid4_max_lps_minus1"]).bit_length()) * integer(p["num_sockets"])

    @staticmethod
    def _same_plan(
        recorded: dict[str, Any], plan: MemoryConstants | None, next_table: int | None, fatal: bool
    ) -> None:
        if plan is None:
            raise _Differs("memory", recorded, None)
        here = {name: getattr(plan, name) for name in recorded if name != "current_pt_physbase"}
        if fatal:
            recorded = {name: value for name, value in recorded.items() if name not in _NOT_STORED}
            here = {name: value for name, value in here.items() if name not in _NOT_STORED}
        elif "current_pt_physbase" in recorded:
            here["current_pt_physbase"] = next_table
        _compare("memory", recorded, here)

    def _same_mapping(self, recorded: dict[str, Any], plan: MemoryConstants | None) -> None:
        if plan is None:
            raise _Differs("mapping", recorded, None)
        walk = Walk(self.platform, plan.pml4_physbase, self.seamrr)
        if recorded.get("broken"):  # digests of a walk through garbage are not defined; ``range`` has every byte
            _same("mapping.broken", True, walk.broken or walk.broken_leaf)
            return
        _same("mapping.broken", False, walk.broken)
        _compare("mapping", recorded, walk.found(recorded))


# --- files


@dataclass(slots=True)
class Report:
    """What a replay found: agreements and cases by group, calls, and each disagreement in words."""

    agreed: Counter[str] = field(default_factory=Counter)
    cases: Counter[str] = field(default_factory=Counter)
    calls: int = 0
    disagreements: list[tuple[str, Difference]] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether every case agreed, and there was one."""
        return bool(self.cases) and not self.disagreements


def vector_files(path: Path) -> list[Path]:
    """The file itself; of a folder, the .json and .json.gz files in it, by name."""
    if not path.is_dir():
        return [path]
    return sorted(file for file in path.iterdir() if file.name.endswith((".json", ".json.gz")))


def load(path: Path) -> dict[str, Any]:
    """A vector file, plain or gzipped; a :class:`FormatError` that says what is wrong if it is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise FormatError(f"{path}: {error.strerror or error}") from None
    try:
        if raw[:2] == b"\x1f\x8b":
            raw = gzip.decompress(raw)
        document = json.loads(raw.decode("utf-8"))
    except (OSError, EOFError, zlib.error, UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise FormatError(f"{path}: not a JSON file, plain or gzipped: {error}") from None
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        found = document.get("format") if isinstance(document, dict) else type(document).__name__
        raise FormatError(f"{path}: format is {found!r}, must be {FORMAT!r}")
    for key, kind in (("pseamldr_info", dict), ("keys", dict), ("signer_key_sha384", str), ("sigstruct_default", dict),
                      ("sigstructs", dict), ("images", dict), ("cases", list)):
        if not isinstance(document.get(key), kind):
            raise FormatError(f"{path}: {key} is missing or no {kind.__name__}")
    return document


def build_of(document: dict[str, Any]) -> Build:
    """The build constants of the recorded P-SEAMLDR."""
    info = {name: integer(value) for name, value in document["pseamldr_info"].items()}
    return replace(Build(signer_key_hash=bytes.fromhex(document["signer_key_sha384"])), **info)  # type: ignore[arg-type]


def replay(document: dict[str, Any], *, whole: bool = True, report: Report | None = None) -> Report:
    """Replay every case of a document.  Without ``whole``, what needs a hash of every byte of the module range is left
    out; the sparse digest determines it."""
    report = report if report is not None else Report()
    recipes, build = Recipes(document), build_of(document)
    for index, case in enumerate(document["cases"]):
        name = f"case {index}"
        try:
            name = case["id"]
            replayed = Replay(case, recipes, build, whole)
            difference = replayed.run()
            report.calls += replayed.calls
        except FormatError as error:
            raise FormatError(f"{name}: {error}") from None
        except SeamrefError as error:  # a platform that cannot be made here, or something that is not modelled
            difference = Difference(0, "replay", "a behaviour", str(error))
        except (KeyError, TypeError, AttributeError, IndexError, ValueError, StructError) as error:
            raise FormatError(f"{name}: not of the format: {type(error).__name__} {error}") from error
        group = case.get("group", "")
        report.cases[group] += 1
        if difference is None:
            report.agreed[group] += 1
        else:
            report.disagreements.append((name, difference))
    return report


def replay_files(paths: Iterable[Path], *, whole: bool = True) -> Report:
    """Replay vector files, one report for all."""
    report = Report()
    for path in chain.from_iterable(map(vector_files, paths)):
        replay(load(path), whole=whole, report=report)
    return report


def lines(report: Report) -> Iterator[str]:
    """The report in words: disagreements, a count for each group, the sum."""
    for name, difference in report.disagreements:
        yield f"{name}: {difference}"
    width = max((len(group) for group in report.cases), default=0)
    for group in sorted(report.cases):
        yield f"{group:{width}}  {report.agreed[group]:6} of {report.cases[group]:6} agree"
    cases, agreed = sum(report.cases.values()), sum(report.agreed.values())
    yield f"{'all':{width}}  {agreed:6} of {cases:6} agree, {report.calls} calls"


__all__ = [
    "FORMAT", "Difference", "FormatError", "Recipes", "Replay", "Report", "Walk", "build_image", "build_of",
    "build_params", "build_sigstruct", "lines", "load", "make_platform", "replay", "replay_files", "vector_files",
]
