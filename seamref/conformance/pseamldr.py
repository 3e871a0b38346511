"""Replays recorded P-SEAMLDR behaviour (format ``pseamldr-vectors/1``) on this P-SEAMLDR and compares everything.

Each case gets a platform of its own, in the state that NP-SEAMLDR leaves: P_SEAMLDR_RANGE with its VMCS and
P_SYS_INFO_TABLE, the data area zero.  Calls go through the processor's entry and the very program that SEAMCALL
runs.  What the recording does not have is left out: the processor's "P-SEAMLDR is ready" check before entry (the
recording made its calls also where p_seamldr_ready was 0), and the processor's own answer to a fatal error.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from hashlib import sha256
from itertools import chain
from struct import pack, unpack_from
from typing import Any

from seamref.arch.lp import GPRS, Lp
from seamref.arch.memory import Range
from seamref.arch.msr import KEYID_PARTITIONING, MISC_ENABLE, SPEC_CTRL
from seamref.arch.outcome import Left
from seamref.arch.paging import ADDRESS
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.seam import BIT63, _enter_SEAM, _leave_SEAM
from seamref.arch.software import MemoryFault, Ud2
from seamref.arch.structures import P_SYS_INFO_TABLE, SYS_INFO_TABLE
from seamref.arch.trace import Computed, Event
from seamref.arch.vmcs import get, put
from seamref.arch.vmx import current
from seamref.conformance.pseamldr_format import (
    SYS_INFO,
    VMCS_PER_LP,
    Recipes,
    build_params,
    check_case,
    ids_of,
    number,
)
from seamref.conformance.reading import text
from seamref.conformance.recipes import shake
from seamref.conformance.vectorset import Case, Difference, VectorSet
from seamref.errors import SeamrefError
from seamref.pseamldr.api import COMPONENT, PAGE, SEAMLDR_INFO, Leaf
from seamref.pseamldr.build import Build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.lab import data_base, load_p_seamldr, set_up_seamrr
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.pseamldr.program import Stage, advance

_ZERO_PAGE = bytes(PAGE)


# --- the platform of a case

_RESERVED_0 = P_SYS_INFO_TABLE.resolve("reserved_0")[0].size
_RESERVED = _RESERVED_0 + P_SYS_INFO_TABLE.resolve("reserved_1")[0].size
"""Reserved bytes of MCHECK's half of the table: between the flags and the CMRs, and behind them."""


def _sysinfo(p: dict[str, Any]) -> dict[str, Any]:
    """The low half of P_SYS_INFO_TABLE as MCHECK wrote it, and who launched NP-SEAMLDR."""
    seed = p.get("reserved_seed")
    reserved = bytes(_RESERVED) if seed is None else shake(number(seed), _RESERVED)
    return {
        "version": number(p["sysinfo_version"]),
        "tot_num_lps": number(p["tot_num_lps"]),
        "tot_num_sockets": number(p["num_sockets"]),
        "socket_cpuid_table": [number(v) for v in p["fms"]],
        "skip_smrr2_check": number(p["skip_smrr2_check"]),
        "tdx_ac": number(p["tdx_ac"]),
        "reserved_0": reserved[:_RESERVED_0],
        "cmr": [{"base": number(base), "size": number(size)} for base, size in p["cmrs"]],
        "reserved_1": reserved[_RESERVED_0:],
        "acm_x2apicid": number(p["acm_x2apicid"]),
    }


def _callers(step: dict[str, Any]) -> list[int]:
    """The processors a step calls on, in order."""
    return list(ids_of(step["lps"])) if "lps" in step else [number(step["lp"])]


def make_platform(case: dict[str, Any], build: Build) -> Platform:
    """The platform that a case describes, with a freshly loaded P-SEAMLDR."""
    p = case["platform"]
    seamrr = Range(number(p["seamrr_base"]), number(p["seamrr_size"]))
    size = number(p["p_seamldr_range_size"])
    k = number(p["hkid_bits"])
    ids = tuple(sorted({*ids_of(p["lps"]), *chain.from_iterable(_callers(step) for step in case["steps"])}))
    platform = Platform(PlatformConfig(
        topology=Topology(
            sockets=min(max(number(p["num_sockets"]), 1), 8),
            addressable=number(p["cpuid4_max_lps_minus1"]) + 1,
            ids=ids,
        ),
        maxpa=number(p["max_pa"]), max_keyid_bits=k, fms=tuple(number(v) for v in p["fms"]) or (0,),
        seamdb_size=number(case["seamdb"]["size"]), debug_unlocked=bool(number(p["debug_unlocked"])),
        vmx_msrs={number(address): number(value) for address, value in p["vmx_msrs"].items()}, keyid_separate=True,
    ))
    platform.SEAMEXTEND = bytes.fromhex(case["seamextend"])
    set_up_seamrr(platform, seamrr, Range(seamrr.end - size, size), k)
    for id in ids:
        lp = platform.lp(id)
        platform.set_msr(lp, KEYID_PARTITIONING, number(p["num_mktme_kids"]))
        platform.set_msr(lp, MISC_ENABLE, number(p.get("misc_enable", 0)))
        platform.set_msr(lp, SPEC_CTRL, number(p.get("spec_ctrl", 0)) & 0x7FF)  # a processor has no other bits
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


class _Differs(Exception):
    def __init__(self, path: str, recorded: Any, ours: Any) -> None:
        self.path = path
        self.recorded = recorded
        self.ours = ours
        self.step: int | None = None


def _same(path: str, recorded: Any, here: Any) -> None:
    """Compare one value; numbers in either spelling."""
    if isinstance(here, int) and not isinstance(here, bool) and isinstance(recorded, int | str):
        if number(recorded) != here:
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

    def _entries(self, at: int) -> tuple[int, tuple[int, ...]]:
        """The table's entries between its first and its last that is not 0, and the index of the first."""
        self.tables += 1
        data = self._platform.store_.read(at, PAGE)
        if data == _ZERO_PAGE:
            return 0, ()
        first = (PAGE - len(data.lstrip(b"\0"))) // 8
        end = (len(data.rstrip(b"\0")) + 7) // 8
        return first, unpack_from(f"<{end - first}Q", data, 8 * first)

    def _outside(self, at: int) -> bool:
        return not self._seamrr.base <= at <= self._seamrr.end - PAGE

    def _walk(self, table: int, shift: int, linear: int) -> None:
        first, entries = self._entries(table)
        if shift == 12:
            self._leaves(entries, linear | first << 12)
            return
        for index, entry in enumerate(entries, first):
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
            addresses: Iterable[int] = range(linear, linear + count * PAGE, PAGE)
            kept: Iterable[int] = entries
        else:
            used = [index for index, entry in enumerate(entries) if entry]
            addresses = [linear + (index << 12) for index in used]
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


def read_vmcss(platform: Platform, base: int, count: int, expected: dict[str, Any]) -> dict[str, Any]:
    """The ``vmcs`` observation of ``count`` VMCSs from ``base`` on."""
    pages = [platform.store_.read(base + i * PAGE, PAGE) for i in range(count)]
    common = {name: get(pages[0], name) for name in expected["common"]} if pages else {}
    found: dict[str, Any] = {"common": common, "count": count}
    lists = {name: [get(page, name) for page in pages] for name in VMCS_PER_LP}
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


_NOT_STORED = ("pml4_physbase", "current_pt_physbase")
"""Memory constants that the loader has not stored yet when mapping is fatal: the recording holds what happened to lie
in those places of its stack (values of an earlier case, or no address at all), so they say nothing."""
_WRITTEN: dict[int, int] = {Leaf.INFO: SEAMLDR_INFO.size, Leaf.SEAMINFO: P_SYS_INFO_TABLE.offset_of("np_seamldr_mutex")}
"""Bytes that a leaf writes at RCX: SEAMLDR_INFO, and MCHECK's half of P_SYS_INFO_TABLE."""
_SPARE = 8
"""Answers behind the recorded ones, by which a draw too many is seen."""


class Replay:
    """One case on its platform; ``run`` stops at the first difference."""

    def __init__(self, case: dict[str, Any], recipes: Recipes, whole: bool = True) -> None:
        self.case = case
        self.recipes = recipes
        self.build = recipes.build
        self.whole = whole
        self.platform = make_platform(case, recipes.build)
        held = self.platform.p_seamldr_range
        seamrr = self.platform.seamrr()
        assert held is not None and seamrr is not None
        self.seamrr = seamrr
        self.held = held
        self.module = Range(self.seamrr.base, held.base - self.seamrr.base)
        self.data = data_base(held)
        for write in case.get("initial_module_range", []):
            self._seam_write(write)

    def run(self) -> _Differs | None:
        """Replay every step."""
        for index, step in enumerate(self.case["steps"]):
            try:
                self._step(step)
            except _Differs as differs:
                differs.step = index
                return differs
        return None

    def _seam_write(self, write: dict[str, Any]) -> None:
        data = bytes.fromhex(write["hex"]) if "hex" in write else shake(*(number(v) for v in write["shake"]))
        self.platform.store_.write(self.module.base + number(write["off"]), data)

    def _memory(self, write: dict[str, Any]) -> None:
        if "image" in write:
            image = self.recipes.image(write["image"])
            for pa, first, count in write["at"]:
                self._host_write(number(pa), image[first * PAGE : (first + count) * PAGE])
        elif "params" in write:
            self._host_write(number(write["pa"]), build_params(write["params"]))
        elif "sigstruct" in write:
            self._host_write(number(write["pa"]), self.recipes.sigstruct(write["sigstruct"]))
        else:
            self._host_write(number(write["pa"]), bytes.fromhex(write["hex"]))

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
        _compare("vmclear", [number(at) for at in expect.get("vmclear", [])], watch.vmclear)
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
        lp.rax = int(Leaf[leaf]) if leaf in Leaf.__members__ else number(leaf)
        lp.rcx, lp.rdx = number(step["rcx"]), number(step["rdx"])
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
            self._same_memory(before["rax"], near, expect.get("written"))

    def _inject(self, step: dict[str, Any]) -> None:
        self.platform.injected = {
            "rdrand": (*((number(cf), number(value)) for cf, value in step.get("rdrand", ())), *((0, 0),) * _SPARE),
            "seamdb": (
                *((name, *(number(v) for v in more)) for name, *more in step.get("seamops", ())), ("end", 0)
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
            put(data, field_name, number(guest[name]))

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

    def _same_memory(self, leaf: int, near: tuple[int, bytes], written: dict[str, Any] | None) -> None:
        at, before = near
        wanted = bytearray(before)
        if written is not None:
            start, size = number(written["pa"]), number(written["len"])
            if size != _WRITTEN[leaf]:
                raise _Differs("written.len", size, _WRITTEN[leaf])
            if not at <= start <= at + len(before) - size:
                raise _Differs("written.pa", start, f"memory around 0x{at:X} only")
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
        began = watch.next_table is not None and "fatal" not in expect
        if began != ("mapping" in expect):
            raise _Differs("mapping", "mapping" in expect, began)
        if "mapping" in expect:
            self._same_mapping(expect["mapping"], plan)
        if "sys_info_table" in expect:
            table = platform.store_.read(self.seamrr.base, SYS_INFO_TABLE.size)
            fields = {name: SYS_INFO_TABLE.peek(table, name) for name in SYS_INFO}
            fields["mcheck_sha256"] = sha256(table[:2048]).hexdigest()
            _compare("sys_info_table", expect["sys_info_table"], fields)
        if "vmcs" in expect:
            vmcs = expect["vmcs"]
            here = read_vmcss(platform, self.seamrr.base + PAGE, self._lps(), vmcs)
            if "differences" in vmcs:
                recorded = sorted([i, name, number(value)] for i, name, value in vmcs["differences"])
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
        return int(1 << number(p["cpuid4_max_lps_minus1"]).bit_length()) * number(p["num_sockets"])

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


# --- the set


@dataclass(frozen=True, slots=True)
class Shared:
    """What the cases of one file share: recipes and build constants, and whether whole ranges are hashed."""

    recipes: Recipes
    whole: bool


class PSeamldrVectors(VectorSet[Shared]):
    """``pseamldr-vectors/1``."""

    def prepare(self, document: dict[str, Any], sparse: bool) -> Shared:
        """Build constants and keys are checked here; sigstructs and images when a case names them."""
        return Shared(Recipes(document), not sparse)

    def label(self, value: dict[str, Any], path: str) -> tuple[str, str]:
        """``id`` and ``group``."""
        return text(value["id"], f"{path}.id"), text(value["group"], f"{path}.group")

    def check(self, case: Case, shared: Shared) -> None:
        """Every value of the case, and the recipes it names."""
        check_case(case.value, case.path, shared.recipes)

    def replay(self, case: Case, shared: Shared) -> list[Difference]:
        """The first difference, if any."""
        differs = Replay(case.value, shared.recipes, shared.whole).run()
        return [] if differs is None else [Difference(case.id, differs.step, differs.path, differs.ours,
                                                      differs.recorded)]

    def calls(self, case: Case) -> int:
        """A step on several processors is as many calls."""
        return sum(sum(number(count) for _, count in step["lps"]) if "lps" in step else 1
                   for step in case.value["steps"])


VECTORS = PSeamldrVectors()

__all__ = ["VECTORS", "PSeamldrVectors", "Recipes", "Replay", "Walk", "make_platform"]
