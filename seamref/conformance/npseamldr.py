"""Replays recorded launches of NP-SEAMLDR (format ``npseamldr-vectors/1``) on this NP-SEAMLDR and compares everything.

Each case gets a platform with one processor, in authenticated code mode at the module's entry point: GETSEC itself is
not in the recordings.  The module is minted around the case's image and runs step by step as it does after ENTERACCS.
IA32_EFER's WRMSR is left out of the recording's list; here it must follow that of IA32_PAT, with LME and NXE added.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from hashlib import sha256
from itertools import pairwise
from struct import Struct, pack
from typing import Any

from seamref import mint
from seamref.arch.lp import Lp
from seamref.arch.msr import BIOS_SE_SVN, EFER, PAT, SEAMEXTEND_MSR, SEAMRR_BASE, SEAMRR_MASK
from seamref.arch.outcome import TxtShutdown, Vector
from seamref.arch.paging import ADDRESS
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.smx import enter_at
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.arch.trace import Event, MsrWritten
from seamref.arch.vmcs import BY_NAME, get
from seamref.conformance.npseamldr_format import (
    AFTER_MSRS,
    MSRS,
    STATE_MSRS,
    Recipes,
    check_case,
    msr_values,
    writes,
)
from seamref.conformance.pseamldr_format import number
from seamref.conformance.reading import text
from seamref.conformance.vectorset import Case, Difference, VectorSet
from seamref.firmware import np_seamldr
from seamref.firmware.acm import P_SEAMLDR_CONSTS
from seamref.pseamldr.api import PAGE

_SPARE = 16
_WORDS = Struct("<512Q")
_ZERO_PAGE = bytes(PAGE)
_LARGE = 1 << 7
_FIELD = 0xFFFFFFFFFE000000
_CR0_BITS = 0x80010021
_TABLE_HALF = P_SYS_INFO_TABLE.offset_of("np_seamldr_mutex")
_VMCS_AT = PAGE
_NAMES = {Vector.UD: "ud2", Vector.PF: "page_fault", Vector.GP: "general_protection", Vector.DE: "divide_error"}
_REGISTERS = {
    "rax": "rax", "rbx": "rbx", "r8": "r8", "r9": "r9", "rdx": "rdx", "cr4": "cr4", "rflags": "rflags",
    "cs": "cs_selector", "ds": "ds_selector", "es": "es_selector", "fs": "fs_selector", "gs": "gs_selector",
    "ss": "ss_selector", "gdtr_limit": "gdtr_limit", "gdtr_base": "gdtr_base", "idtr_limit": "idtr_limit",
    "idtr_base": "idtr_base", "rip": "rip", "cr3": "cr3",
}
_OTHERS = ("rcx", "rsi", "rdi", "rbp", "rsp", "r10", "r11", "r12", "r13", "r14", "r15")


class Launch:
    """One case: the platform before, the run, and what is seen afterwards."""

    def __init__(self, case: dict[str, Any], recipes: Recipes) -> None:
        self.case = case
        msrs = msr_values(case["msrs"], "msrs", MSRS)
        self.base = msrs[SEAMRR_BASE] & _FIELD
        mask = msrs[SEAMRR_MASK] & _FIELD
        self.size = mask & -mask
        self.end = self.base + self.size
        id = number(case["cpu"]["x2apic_id"])
        self.platform = platform = Platform(PlatformConfig(
            topology=Topology(ids=(id,)), maxpa=number(case["cpu"]["maxpa"]), keyid_separate=True,
            vmx_msrs={address: value for address, value in msrs.items() if address not in STATE_MSRS},
        ))
        self.lp = lp = platform.lp(id)
        for address, value in msrs.items():
            if address == BIOS_SE_SVN:
                platform.bios_se_svn = value
            else:
                platform.set_msr(lp, address, value)
        platform.SEAMEXTEND = bytes.fromhex(case["seamextend"])
        status = number(case["txt_sts"])
        platform.txt.update({"PRIVATE_STUCK": 1} if status == 0xFFFFFFFF else {"STS": status})
        for at, data in writes(case["memory"], "memory"):
            platform.store_.write(at, data)
        acm = case["acm"]
        consts = P_SEAMLDR_CONSTS.new(**{name: number(value) for name, value in acm["consts"].items()})
        module = mint.acm(recipes.image(acm["image"]), consts=consts.encode(), sign=False, SeSvn=number(acm["se_svn"]))
        self._enter(lp, module, number(acm["base"]))
        self.draws = [(number(carry), number(value)) for carry, value in case["rdseed"]]
        platform.injected = {"rdseed": (*((carry, value if carry else 0) for carry, value in self.draws),
                                        *((0, 0),) * _SPARE)}
        self.before = dict(platform.store_.pages())
        self.wrmsr: list[tuple[int, int]] = []
        platform.listeners = [self._watch]

    def _enter(self, lp: Lp, module: bytes, base: int) -> None:
        """Registers as GETSEC[ENTERACCS] leaves them at the module's entry point."""
        caller = {name: number(value) for name, value in self.case["caller"].items()}
        for name in ("es", "fs", "gs", "ss"):
            setattr(lp, f"{name}_selector", caller[name])
        lp.gdtr_limit, lp.idtr_limit, lp.idtr_base = caller["gdtr_limit"], caller["idtr_limit"], caller["idtr_base"]
        lp.cr4, lp.cr3 = caller["cr4"], caller["cr3"]
        lp.r9, lp.r10, lp.r11, lp.r12 = caller["gdtr_base"], caller["rip"], caller["cr3"], caller["idtr_base"]
        enter_at(self.platform, lp, module, base)
        lp.rax = caller.get("eax", 2)
        lp.rcx = caller["gdtr_limit"] << 16 | caller["cs"]

    def _watch(self, event: Event) -> None:
        if isinstance(event, MsrWritten):
            self.wrmsr.append((event.address, event.value))

    def run(self) -> list[tuple[str, Any, Any]]:
        """(field, ours, recorded) of each field that differs."""
        expect = self.case["expect"]
        outcome = np_seamldr.run(self.platform, self.lp.id)
        found = list(self._events(expect))
        fatal = None
        if isinstance(outcome, TxtShutdown):
            fatal = "triple fault" if outcome.vector is None else _NAMES[outcome.vector]
        if fatal is not None or "fatal" in expect:
            return [*_differ("fatal", fatal, expect.get("fatal")), *found]
        found += _differ("status", self.lp.r9, number(expect["status"]))
        found += self._registers(expect["registers"])
        found += _differ("seamextend", self.platform.SEAMEXTEND.hex(), expect["seamextend"])
        recorded = msr_values(expect["msrs_after"], "msrs_after", AFTER_MSRS)
        for address, value in recorded.items():
            found += _differ(f"msrs_after.0x{address:x}", self.platform.msr_value(self.lp, address), value)
        return [*found, *self._memory(expect["memory"])]

    def _events(self, expect: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        ours: list[list[Any]] = []
        for index, (address, value) in enumerate(self.wrmsr):
            if address == EFER:
                yield from _differ("wrmsr.efer", index > 0 and self.wrmsr[index - 1][0] == PAT, True)
            else:
                ours.append([address, ("out" if value & 1 else "in") if address == SEAMEXTEND_MSR else value])
        recorded = [[number(address), value if value in ("in", "out") else number(value)]
                    for address, value in expect["wrmsr"]]
        yield from _differ("wrmsr", ours, recorded)
        left = len(self.platform.injected.get("rdseed", ()))
        used = len(self.draws) + _SPARE - left
        yield from _differ("rdseed_used", used, number(expect["rdseed_used"]))

    def _registers(self, recorded: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        lp = self.lp
        for name, attribute in _REGISTERS.items():
            yield from _differ(f"registers.{name}", getattr(lp, attribute), number(recorded[name]))
        yield from _differ("registers.cr0_bits", lp.cr0 & _CR0_BITS, number(recorded["cr0_bits"]))
        zero = all(getattr(lp, name) == 0 for name in _OTHERS)
        yield from _differ("registers.others_zero", zero, recorded["others_zero"])

    # --- memory

    def _pages(self, start: int, end: int) -> Iterator[tuple[int, bytes]]:
        """Pages in [start, end) that are not all zero."""
        if start < end:
            yield from ((at, data) for at, data in self.platform.store_.pages(start, end) if data != _ZERO_PAGE)

    def _sparse(self, start: int, end: int) -> dict[str, Any]:
        digest, count = sha256(), 0
        for at, data in self._pages(start, end):
            digest.update(pack("<Q", at - self.base) + data)
            count += 1
        return {"sparse_sha256": digest.hexdigest(), "nonzero_pages": count}

    def _changed(self) -> set[int]:
        after = dict(self.platform.store_.pages())
        return {at for at in after.keys() | self.before.keys()
                if after.get(at, _ZERO_PAGE) != self.before.get(at, _ZERO_PAGE)}

    def _memory(self, recorded: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        table = self.end - PAGE
        changed = self._changed()
        outside = sorted(at for at in changed if not self.base <= at < self.end and at != table)
        yield from _differ("memory.outside_changed", outside,
                           sorted(map(number, recorded["outside_changed"])))
        held = self.platform.store_.read(table, PAGE)
        low = held[:_TABLE_HALF] != self.before.get(table, _ZERO_PAGE)[:_TABLE_HALF]
        yield from _differ("memory.sysinfo_low_changed", low, recorded["sysinfo_low_changed"])
        yield from _differ("memory.sysinfo_high", held[_TABLE_HALF:].rstrip(b"\0").hex(), recorded["sysinfo_high"])
        inside = any(self.base <= at < self.end and at != table for at in changed)
        yield from _differ("memory.seamrr_changed", inside, recorded["seamrr_changed"])
        if not recorded["seamrr_changed"]:
            return
        limits = self._limits()
        ordered = self._in_order(limits)
        yield from _differ("memory.regions", ordered, "regions" in recorded)
        yield from _differ("memory.mapping", ordered, "mapping" in recorded)
        if ordered:
            yield from self._mapping(recorded["mapping"]) if "mapping" in recorded else ()
            yield from self._vmcs(recorded.get("vmcs"))
            for name, region in recorded.get("regions", {}).items():
                ours = self._sparse(*limits[name])
                for field, value in ours.items():
                    yield from _differ(f"memory.regions.{name}.{field}", value, region[field])
        whole = self._sparse(self.base, self.end)
        yield from _differ("memory.seamrr_sparse_sha256", whole["sparse_sha256"], recorded["seamrr_sparse_sha256"])
        yield from _differ("memory.seamrr_nonzero_pages", whole["nonzero_pages"],
                           number(recorded["seamrr_nonzero_pages"]))

    @property
    def _range(self) -> int:
        """P_SEAMLDR_RANGE.base as MCHECK's half of the table states it."""
        return int(P_SYS_INFO_TABLE.peek(self.platform.store_.read(self.end - PAGE, PAGE), "p_seamldr_range_base"))

    def _limits(self) -> dict[str, tuple[int, int]]:
        consts = {name: number(value) for name, value in self.case["acm"]["consts"].items()}
        table, held = self.end - PAGE, self._range
        code = table - consts["CCodeRgnSize"]
        shadow = code - PAGE
        stack = shadow - consts["CDataStackSize"]
        data = stack - consts["CDataRgnSize"]
        return {
            "code": (code, table), "shadow_stack": (shadow, code), "stack": (stack, shadow), "data": (data, stack),
            "page_tables": (held + 2 * PAGE, data), "vmcs": (held + PAGE, held + 2 * PAGE),
            "first_page": (held, held + PAGE), "below_range": (self.base, held), "sysinfo": (table, self.end),
        }

    def _in_order(self, limits: dict[str, tuple[int, int]]) -> bool:
        """Whether the regions follow each other in whole pages: only then the recording tells of them."""
        order = ("below_range", "first_page", "vmcs", "page_tables", "data", "stack", "shadow_stack", "code", "sysinfo")
        edges = [limits[order[0]][0], *(limits[name][1] for name in order)]
        return all(a <= b for a, b in pairwise(edges)) and not any(at % PAGE for at in edges)

    def _vmcs(self, recorded: dict[str, Any] | None) -> Iterator[tuple[str, Any, Any]]:
        page = self.platform.store_.read(self._range + _VMCS_AT, PAGE)
        yield from _differ("memory.vmcs", page != _ZERO_PAGE, recorded is not None)
        if recorded is None or page == _ZERO_PAGE:
            return
        rest = bytearray(page)
        for name, value in recorded.items():
            if name != "other_bytes_zero":
                yield from _differ(f"memory.vmcs.{name}", get(page, name), number(value))
                field = BY_NAME[name]
                rest[field.offset : field.offset + field.size] = bytes(field.size)
        yield from _differ("memory.vmcs.other_bytes_zero", not any(rest), recorded["other_bytes_zero"])

    def _mapping(self, recorded: dict[str, Any]) -> Iterator[tuple[str, Any, Any]]:
        root = self._range + 2 * PAGE
        yield from _differ("memory.mapping.pml4", root, number(recorded["pml4"]))
        walk = Walk(self.platform, root, self.base, self.end)
        ours = {"leaves": walk.leaves, "tables": walk.tables, "sha256": walk.digest.hexdigest(),
                "broken": walk.broken, "runs": walk.runs[:40]}
        if recorded["broken"] and walk.broken:
            return
        for name, value in ours.items():
            theirs = recorded[name]
            if name == "runs":
                theirs = [[number(v) for v in run] for run in theirs]
            elif name in ("leaves", "tables"):
                theirs = number(theirs)
            yield from _differ(f"memory.mapping.{name}", value, theirs)


class Walk:
    """P-SEAMLDR's page tables with pages of 4 KiB and 2 MiB, walked as the format does."""

    def __init__(self, platform: Platform, root: int, base: int, end: int) -> None:
        self._platform = platform
        self._base, self._end = base, end
        self.digest = sha256()
        self.leaves = self.tables = 0
        self.broken = False
        self.runs: list[list[int]] = []
        self._size = 0
        self._walk(root, 39, 0)

    def _walk(self, table: int, shift: int, linear: int) -> None:
        self.tables += 1
        data = self._platform.store_.read(table, PAGE)
        if data == _ZERO_PAGE:
            return
        for index, entry in enumerate(_WORDS.unpack(data)):
            if not entry:
                continue
            below = linear | index << shift
            if shift == 39 and index >= 256:
                below |= 0xFFFF << 48
            if shift == 12 or (shift == 21 and entry & _LARGE):
                self._leaf(below, entry, 1 << shift)
            elif not self._base <= entry & ADDRESS <= self._end - PAGE:
                self.broken = True
            else:
                self._walk(entry & ADDRESS, shift - 9, below)

    def _leaf(self, linear: int, entry: int, size: int) -> None:
        self.leaves += 1
        self.digest.update(pack("<QQ", linear, entry))
        last = self.runs[-1] if self.runs else None
        if last is not None and size == self._size and linear == last[0] + last[2] * size \
                and entry == last[1] + last[2] * size:
            last[2] += 1
        else:
            self.runs.append([linear, entry, 1])
            self._size = size


def _differ(field: str, ours: Any, recorded: Any) -> Iterable[tuple[str, Any, Any]]:
    if ours == recorded:
        return ()
    if isinstance(ours, list) and isinstance(recorded, list):
        for index, (a, b) in enumerate(zip(ours, recorded, strict=False)):
            if a != b:
                return ((f"{field}[{index}]", a, b),)
        return ((f"{field}.length", len(ours), len(recorded)),)
    return ((field, ours, recorded),)


class NpSeamldrVectors(VectorSet[Recipes]):
    """``npseamldr-vectors/1``."""

    def prepare(self, document: dict[str, Any], sparse: bool) -> Recipes:
        """Images are built when a case names them."""
        return Recipes(document)

    def label(self, value: dict[str, Any], path: str) -> tuple[str, str]:
        """``id`` and ``group``."""
        return text(value["id"], f"{path}.id"), text(value["group"], f"{path}.group")

    def check(self, case: Case, shared: Recipes) -> None:
        """Every value of the case, and the image it names."""
        check_case(case.value, case.path, shared)

    def replay(self, case: Case, shared: Recipes) -> list[Difference]:
        """Every field that differs."""
        return [Difference(case.id, None, field, ours, recorded)
                for field, ours, recorded in Launch(case.value, shared).run()]


VECTORS = NpSeamldrVectors()

__all__ = ["VECTORS", "Launch", "NpSeamldrVectors", "Walk"]
