"""Launches of NP-SEAMLDR, recorded in the format ``npseamldr-vectors/1``.

:class:`Recorder` runs a launch as ``conform`` replays a case, and writes down what it sees instead of comparing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from seamref import mint
from seamref.arch.lp import CR4_LA57
from seamref.arch.msr import EFER, SEAMEXTEND_MSR
from seamref.arch.outcome import TxtShutdown
from seamref.arch.platform import VMX_MSRS
from seamref.arch.software import P_SEAMLDR_PROGRAM
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.vmcs import BY_NAME, TRANSFER_MSRS, get
from seamref.conformance.npseamldr import _CR0_BITS, _NAMES, _OTHERS, _REGISTERS, _TABLE_HALF, _ZERO_PAGE, Launch, Walk
from seamref.conformance.npseamldr_format import AFTER_MSRS, CALLER, CONSTS, FATAL, MSRS, REGISTERS, Recipes
from seamref.conformance.pseamldr_format import VMCS_COMMON, VMCS_PER_LP
from seamref.conformance.recipes import shake_page
from seamref.export.form import Any_, Count, Flag, Group, Item, ListOf, MapOf, Number, Octets, OneOf, Row, Text
from seamref.export.recording import RecordedSet, runs, shown
from seamref.firmware import np_seamldr
from seamref.firmware.acm import P_SEAMLDR_CONSTS
from seamref.mint import elf
from seamref.pseamldr.api import PAGE
from seamref.pseamldr.build import Build
from seamref.spec import deciding

FORMAT = "npseamldr-vectors/1"
SEED = 0x5EA3
SEAMRR_BASE, SEAMRR_SIZE, RANGE_SIZE = 0x7C000000, 0x4000000, 0x400000
ENDED = ("NP_SEAMLDR.fill_table", "NP_SEAMLDR.vmcs", "NP_SEAMLDR.make_ready", "NP_SEAMLDR.restore")
"""What a launch does that no row stops."""
MASKS = {size: ((1 << 52) - size | 0xC00) for size in (1 << bit for bit in range(25, 34))}


@lru_cache(maxsize=8)
def _image(name: str) -> bytes:
    """The embedded P-SEAMLDR images: the usual one, larger ones, and one with a relocation that nobody knows."""
    build = Build(signer_key_hash=mint.KEY.key_hash).encode()
    size = {"std": 0x4A00, "large": 0x1FA00, "relocation": 0x4A00}[name]
    relocations = None if name != "relocation" else [elf.Relocation(0x2000, 0x100), elf.Relocation(0x2008, 0x200, 1)]
    made = elf.image(program=P_SEAMLDR_PROGRAM, build=build, size=size, gdt_idt=False, relocations=relocations,
                     seed=SEED.to_bytes(8, "little"))
    return mint.loader.pad(made)


def _recipe(data: bytes) -> dict[str, Any]:
    under = b"".join(shake_page(SEED, page) for page in range(-(-len(data) // PAGE)))[: len(data)]
    return {"size": len(data), "fill": ["shake", SEED],
            "writes": [["hex", at, part.hex()] for at, part in runs(data, under)]}


def _base() -> dict[str, Any]:
    """A launch that succeeds."""
    consts = P_SEAMLDR_CONSTS.decode(mint.pseamldr_consts(_image("std")))
    state = {0x8B: 0x2B00050000000000, 0x1A0: 0x850089, 0x151: 1, 0x302: 0x0500040003020000, 0x503: 0,
             0x1400: SEAMRR_BASE | 8, 0x1401: MASKS[SEAMRR_SIZE]}
    return {
        "cpu": {"x2apic_id": 0, "maxpa": 52},
        "msrs": {hex(at): hex(state.get(at, VMX_MSRS.get(at, 0))) for at in MSRS},
        "txt_sts": 0, "rdseed": [[1, "0x1122334455667788"], [1, "0x99aabbccddeeff01"], [1, "0x4d5c"]],
        "seamextend": bytes(SEAMEXTEND.size).hex(),
        "caller": {"cs": 16, "es": 0, "fs": 0, "gs": 0, "ss": 24, "gdtr_base": "0xfffffe0000001000", "gdtr_limit": 127,
                   "idtr_base": "0xfffffe0000000000", "idtr_limit": 4095, "rip": "0xffffffff81234568",
                   "cr3": "0x12345000", "cr4": "0x3606f0"},
        "acm": {"base": "0x2000000", "se_svn": 4, "image": "std",
                "consts": {name: hex(consts[name]) for name in CONSTS}},
        "memory": [_table()],
    }


def _table(base: int = SEAMRR_BASE, size: int = SEAMRR_SIZE, range_size: int = RANGE_SIZE, **fields: Any,
           ) -> dict[str, Any]:
    end = base + size
    return {"pa": hex(end - PAGE), "sysinfo": {
        "version": 0, "tot_num_lps": 2, "tot_num_sockets": 1, "socket_cpuid": ["0xc06f2"],
        "range_base": hex(end - range_size), "range_size": hex(range_size), "tdx_ac": 1,
        "cmrs": [["0x100000", "0x7ff00000"], ["0x100000000", "0x780000000"]], **fields}}


@dataclass(frozen=True, slots=True)
class Change:
    """A case: what differs from the launch that succeeds, by path."""

    id: str
    group: str
    note: str
    fields: Mapping[str, Any]

    def case(self) -> dict[str, Any]:
        """The whole case without what is expected."""
        made = deepcopy(_base())
        for path, value in self.fields.items():
            *outer, last = path.split(".")
            place: Any = made
            for name in outer:
                place = place[name]
            place[last] = value
        return {"id": self.id, "group": self.group, "note": self.note, **made}


def _changes() -> Iterator[Change]:
    yield Change("good", "launch", "the launch succeeds", {})
    yield from _entry()
    yield from _platform()
    yield from _spaces()
    yield from _exits()


def _entry() -> Iterator[Change]:
    for eax in (0, 3, 1 << 32 | 2):
        yield Change(f"entry/eax-{eax:x}", "entry", f"EAX at the entry point: 0x{eax:X}", {"caller.eax": hex(eax)})
    yield Change("entry/bios-not-done", "entry", "BIOS_DONE = 0", {"msrs.0x151": "0x0"})
    yield Change("entry/private-space", "entry", "TXT.STS reads all ones", {"txt_sts": 0xFFFFFFFF})
    good = [[1, "0x1122334455667788"], [1, "0x99aabbccddeeff01"], [1, "0x4d5c"]]
    for tries in (1, 9, 10):
        yield Change(f"cookie/first-{tries}", "cookie", f"{tries} times no entropy for the first cookie",
                     {"rdseed": [[0, "0x0"]] * tries + good})
        yield Change(f"cookie/second-{tries}", "cookie", f"{tries} times no entropy for the second cookie",
                     {"rdseed": good[:1] + [[0, "0x0"]] * tries + good[1:]})
    yield Change("cookie/zero", "cookie", "the first cookie is 0", {"rdseed": [[1, "0x0"], *good[1:]]})
    yield Change("cookie/low-half-zero", "cookie", "32 bits of the draw are 0",
                 {"rdseed": [[1, hex(1 << 32)], *good[1:]]})
    for name, rip, la57 in (("high", 1 << 60, 0), ("57", 1 << 50, CR4_LA57), ("57-without", 1 << 50, 0),
                            ("low", 0x401000, 0)):
        yield Change(f"resume/{name}", "resume", f"resume RIP 0x{rip:X}, CR4.LA57 = {int(bool(la57))}",
                     {"caller.rip": hex(rip), "caller.cr4": hex(0x3606F0 | la57)})


def _platform() -> Iterator[Change]:
    yield Change("seamrr/not-valid", "seamrr", "IA32_SEAMRR_PHYS_MASK.VALID = 0",
                 {"msrs.0x1401": hex(MASKS[SEAMRR_SIZE] & ~(1 << 11))})
    for size in (1 << 25, 1 << 27, 1 << 30, 1 << 31):
        base = 1 << 32 if size >= 1 << 30 else 0x7C000000 if size <= 1 << 26 else 0x70000000
        yield Change(f"seamrr/size-{size >> 20}", "seamrr", f"SEAMRR of {size >> 20} MiB",
                     {"msrs.0x1400": hex(base | 8), "msrs.0x1401": hex(MASKS[size]), "memory": [_table(base, size)]})
    for sockets in (0, 1, 2, 8, 9):
        models = ["0xc06f2"] * min(sockets, 8)
        yield Change(f"table/sockets-{sockets}", "table", f"tot_num_sockets = {sockets}",
                     {"memory": [_table(tot_num_sockets=sockets, socket_cpuid=models)]})
    for name, other in (("stepping", "0xc06f1"), ("model", "0x806f2")):
        yield Change(f"table/other-{name}", "table", f"socket 1 has another {name}",
                     {"memory": [_table(tot_num_sockets=2, socket_cpuid=["0xc06f2", other])]})
    yield Change("table/version", "table", "P_SYS_INFO_TABLE.version = 1", {"memory": [_table(version=1)]})
    for value in (1, 0x100, 0xFF):
        yield Change(f"mutex/{value:x}", "mutex", f"np_seamldr_mutex = 0x{value:X}",
                     {"memory": [_table(np_seamldr_mutex=value)]})
    for valid in (0, 1, 2):
        for id in (0, 5):
            yield Change(f"lp/{valid}-{id}", "lp", f"acm_x2apicid_valid = {valid}, acm_x2apicid = {id}",
                         {"memory": [_table(acm_x2apicid_valid=valid, acm_x2apicid=id)]})
    for name in ("p_seamldr_ready", "seam_ready", "system_under_debug", "valid"):
        yield Change(f"seamextend/{name}", "seamextend", f"SEAMEXTEND.{name} = 1",
                     {"seamextend": SEAMEXTEND.new(**{name: 1}).encode().hex()})
    for debug in (1, 2, 3):
        yield Change(f"seamextend/debug-{debug}", "seamextend", f"SGX_DEBUG_MODE = {debug}", {"msrs.0x503": hex(debug)})
    for svn in (0, 4, 255):
        for locked in (0, 1):
            yield Change(f"svn/{svn}-{locked}", "svn", f"SeSvn = {svn}",
                         {"acm.se_svn": svn, "msrs.0x302": hex(0x0500040003020000 | locked << 63)})


def _spaces() -> Iterator[Change]:
    good = [[1, "0x1122334455667788"], [1, "0x99aabbccddeeff01"]]
    yield Change("aslr/none", "aslr", "no entropy for the layout", {"rdseed": [*good, [0, "0x0"]]})
    for value in (0, 0x7FFC, 0xFFFF, 3):
        yield Change(f"aslr/{value:x}", "aslr", f"the layout's random number 0x{value:X}",
                     {"rdseed": [*good, [1, hex(value)]]})
    for keyholes, first in ((0x200000, 54), (0x4000000, 86), (0x10000000, 182)):
        for pages in range(first, first + 8):
            yield Change(f"range/{keyholes >> 20}-{pages}", "range",
                         f"{keyholes >> 20} MiB of keyholes, P_SEAMLDR_RANGE of {pages} pages",
                         {"acm.consts.CKeyholeRgnSize": hex(keyholes), "memory": [_table(range_size=pages * PAGE)]})
    for name, room in (("smaller", 0x4000), ("larger", 0x8000), ("one-page", 0x1000)):
        yield Change(f"image/room-{name}", "image", f"CCodeRgnSize = 0x{room:X}",
                     {"acm.consts.CCodeRgnSize": hex(room)})
    yield Change("image/large", "image", "an image of 32 pages", {
        "acm.image": "large", "acm.consts.CCodeRgnSize": hex(len(_image("large")))})
    yield Change("image/relocation", "image", "a relocation with r_info = 1", {"acm.image": "relocation"})
    for name, values in {"CDataStackSize": (0x1000, 0x10000), "CDataRgnSize": (0x1000, 0x40000),
                         "CKeyholeRgnSize": (0x1000, 0x800000), "CKeyholeEditRgnSize": (0x2000, 0x10000),
                         "CEntryPointOffset": (0, 0x3000)}.items():
        for value in values:
            yield Change(f"consts/{name}-{value:x}", "consts", f"{name} = 0x{value:X}",
                         {f"acm.consts.{name}": hex(value)})
    yield Change("memory/used", "memory", "SEAMRR holds the bytes of an earlier session",
                 {"memory": [{"pa": hex(SEAMRR_BASE), "shake": [7, 64]},
                             {"pa": hex(SEAMRR_BASE + SEAMRR_SIZE - RANGE_SIZE), "shake": [9, 64]}, _table()]})
    yield Change("memory/reserved", "memory", "reserved bytes of the table are not 0",
                 {"memory": [_table(reserved_seed=11)]})


def _exits() -> Iterator[Change]:
    selectors: dict[str, dict[str, Any]] = {
        "cs-null": {"cs": 0}, "cs-rpl": {"cs": 19}, "cs-ti": {"cs": 20}, "ss-is-cs": {"ss": 16}, "ss-null": {"ss": 0},
        "es": {"es": 43, "fs": 51, "gs": 99}, "es-is-cs": {"es": 16},
    }
    for name, fields in selectors.items():
        yield Change(f"caller/{name}", "caller", f"the caller's selectors: {fields}",
                     {f"caller.{field}": value for field, value in fields.items()})
    others: dict[str, dict[str, Any]] = {"cr4": {"cr4": "0x6f0"}, "la57": {"cr4": hex(0x3606F0 | CR4_LA57)},
                         "limits": {"gdtr_limit": 0xFFFF, "idtr_limit": 0}, "cr3": {"cr3": "0xfffffffff000"}}
    for name, fields in others.items():
        yield Change(f"caller/{name}", "caller", f"the caller's state: {fields}",
                     {f"caller.{field}": value for field, value in fields.items()})
    for at, value in ((0x48F, 0x7FFFFF00036DFB), (0x490, 0x11FB), (0x486, 0x80000031), (0x488, 0x2020),
                      (0x480, 0x00DA050000000021)):
        yield Change(f"vmx/{at:x}", "vmx", f"MSR 0x{at:X} = 0x{value:X}", {f"msrs.0x{at:x}": hex(value)})
    assert set(TRANSFER_MSRS) >= {0x48F, 0x490, 0x486, 0x488, 0x480} and set(CALLER) >= {"cr4", "cr3", "gdtr_limit"}


# --- recording


class Recorder(Launch):
    """A launch whose every observation becomes what is expected."""

    def record(self) -> tuple[dict[str, Any], tuple[str, ...]]:
        """What is seen, and the rows that decided."""
        with deciding("NP_SEAMLDR") as rows:
            outcome = np_seamldr.run(self.platform, self.lp.id)
        flags = tuple(dict.fromkeys(row.id for row in rows))
        left = len(self.platform.injected.get("rdseed", ()))
        seen: dict[str, Any] = {
            "wrmsr": [[hex(at), ("out" if value & 1 else "in") if at == SEAMEXTEND_MSR else hex(value)]
                      for at, value in self.wrmsr if at != EFER],
            "rdseed_used": len(self.draws) + 16 - left,
        }
        if isinstance(outcome, TxtShutdown):
            assert outcome.vector is not None
            return {"fatal": _NAMES[outcome.vector], **seen}, flags
        lp = self.lp
        registers: dict[str, Any] = {name: hex(getattr(lp, attribute)) for name, attribute in _REGISTERS.items()}
        registers["cr0_bits"] = hex(lp.cr0 & _CR0_BITS)
        return {
            "status": hex(lp.r9), **seen,
            "registers": {**{name: registers[name] for name in REGISTERS},
                          "others_zero": all(getattr(lp, name) == 0 for name in _OTHERS)},
            "seamextend": self.platform.SEAMEXTEND.hex(),
            "msrs_after": {hex(at): hex(self.platform.msr_value(lp, at)) for at in AFTER_MSRS},
            "memory": self._seen_memory(),
        }, flags

    def _seen_memory(self) -> dict[str, Any]:
        table = self.end - PAGE
        changed = self._changed()
        held = self.platform.store_.read(table, PAGE)
        before = self.before.get(table, _ZERO_PAGE)
        inside = any(self.base <= at < self.end and at != table for at in changed)
        seen: dict[str, Any] = {
            "outside_changed": [hex(at) for at in sorted(changed) if not self.base <= at < self.end and at != table],
            "sysinfo_low_changed": held[:_TABLE_HALF] != before[:_TABLE_HALF],
            "sysinfo_high": held[_TABLE_HALF:].rstrip(b"\0").hex(), "seamrr_changed": inside,
        }
        if not inside:
            return seen
        whole = self._sparse(self.base, self.end)
        seen |= {"seamrr_sparse_sha256": whole["sparse_sha256"], "seamrr_nonzero_pages": whole["nonzero_pages"]}
        limits = self._limits()
        if self._in_order(limits):
            seen["regions"] = {name: self._sparse(*limit) for name, limit in limits.items()}
            seen["mapping"] = self._seen_mapping()
            page = self.platform.store_.read(self._range + PAGE, PAGE)
            if page != _ZERO_PAGE:
                seen["vmcs"] = _vmcs(page)
        return seen

    def _seen_mapping(self) -> dict[str, Any]:
        root = self._range + 2 * PAGE
        walk = Walk(self.platform, root, self.base, self.end)
        return {"pml4": hex(root), "leaves": walk.leaves, "tables": walk.tables, "sha256": walk.digest.hexdigest(),
                "broken": walk.broken, "runs": shown(walk.runs[:40])}


def _vmcs(page: bytes) -> dict[str, Any]:
    rest = bytearray(page)
    seen: dict[str, Any] = {}
    for name in (*VMCS_COMMON, *VMCS_PER_LP):
        seen[name] = hex(get(page, name))
        field = BY_NAME[name]
        rest[field.offset : field.offset + field.size] = bytes(field.size)
    return {**seen, "other_bytes_zero": not any(rest)}


def document(small: bool = False) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The whole set, and the clauses of each case."""
    made: dict[str, Any] = {"format": FORMAT, "np_seamldr": "1.5",
                            "images": {name: _recipe(_image(name)) for name in ("std", "large", "relocation")},
                            "cases": []}
    recipes = Recipes(made)
    flags: dict[str, tuple[str, ...]] = {}
    kept: dict[tuple[str, ...], int] = {}
    for change in _changes():
        case = change.case()
        case["expect"], rows = Recorder(case, recipes).record()
        rows = rows or ENDED
        kept[rows] = kept.get(rows, 0) + 1
        if small and kept[rows] > 2:
            continue
        made["cases"].append(case)
        flags[case["id"]] = rows
    return made, flags


_N = Number()
_IMAGE_WRITE = Row(((OneOf(("hex", "ehdr", "shdr", "rela", "relaseq")), "hex: bytes; ehdr, shdr, rela, relaseq: ELF "
                                                                        "parts"),
                    (_N, "offset"), (Text(), "the bytes as hex digits")))
_OBSERVED: tuple[Item, ...] = (
    Item("status", _N, "R9 after EXITAC", True),
    Item("fatal", OneOf(FATAL), "instead: which exception found the null IDT; a triple fault", True),
    Item("wrmsr", ListOf(Row(((_N, "MSR"), (Text(), "value, or `out` and `in` for 1402H")))),
         "the WRMSRs in order; C0000080H, LME and NXE added behind 277H, is left out"),
    Item("rdseed_used", _N, "RDSEEDs executed"),
    Item("registers", Group((*(Item(name, _N, name.upper()) for name in REGISTERS),
                             Item("others_zero", Flag(), "RCX, RSI, RDI, RBP, RSP, R10 to R15 are 0"))),
         "after EXITAC; `cr0_bits` is CR0 & 80010021H", True),
    Item("seamextend", Octets(SEAMEXTEND.size), "the register afterwards", True),
    Item("msrs_after", MapOf(_N, "MSR addresses"), "MSRs afterwards", True),
    Item("memory", Group((
        Item("outside_changed", ListOf(_N), "pages outside SEAMRR that changed"),
        Item("sysinfo_low_changed", Flag(), "MCHECK's half of P_SYS_INFO_TABLE changed"),
        Item("sysinfo_high", Octets(), "the other half, trailing zeros cut"),
        Item("seamrr_changed", Flag(), "another page of SEAMRR changed; only then the rest follows"),
        Item("seamrr_sparse_sha256", Octets(32), "over each page of SEAMRR that is not all zero, ascending: 8 bytes of "
             "its offset, then the page", True),
        Item("seamrr_nonzero_pages", _N, "their number", True),
        Item("regions", MapOf(Group((Item("sparse_sha256", Octets(32), "the same digest"),
                                     Item("nonzero_pages", _N, "pages that are not all zero"))), "regions"),
             "the parts of SEAMRR, from its end downwards: code, shadow_stack, stack, data, page_tables", True),
        Item("vmcs", Group((*(Item(name, _N, "field of the transfer VMCS") for name in (*VMCS_COMMON, *VMCS_PER_LP)),
                            Item("other_bytes_zero", Flag(), "all else is 0"))), "P-SEAMLDR's transfer VMCS", True),
        Item("mapping", Group((
            Item("pml4", _N, "root"), Item("leaves", _N, "leaf entries"), Item("tables", _N, "table pages"),
            Item("sha256", Octets(32), "over linear address and entry of each leaf, 8 bytes each"),
            Item("broken", Flag(), "an entry points outside SEAMRR"),
            Item("runs", ListOf(Row(((_N, "linear"), (_N, "entry"), (_N, "pages")))), "consecutive pages, at most 40"),
        )), "P-SEAMLDR's page tables", True),
    )), "memory afterwards", True),
)
_SYSINFO_ITEM = Item("sysinfo", MapOf(Any_(), "fields of P_SYS_INFO_TABLE"), "a P_SYS_INFO_TABLE: these fields, else 0",
                     True)
DOCUMENT: tuple[Item, ...] = (
    Item("format", OneOf((FORMAT,)), "the format"),
    Item("np_seamldr", OneOf(("1.5",)), "generation of NP-SEAMLDR"),
    Item("images", MapOf(Group((
        Item("size", _N, "bytes"), Item("fill", Row(((OneOf(("zero", "byte", "shake")), "kind"), (_N, "seed")), 1),
             "shake: page p is SHAKE-128 of seed and p, 8 bytes each, little-endian"),
        Item("writes", ListOf(_IMAGE_WRITE), "over it, in order"))), "ids"), "recipes of embedded P-SEAMLDR images"),
    Item("cases", ListOf(Group((
        Item("id", Text(), "id"), Item("group", Text(), "label"), Item("note", Text(), "for a reader"),
        Item("cpu", Group((Item("x2apic_id", _N, "of the processor that launches"), Item("maxpa", _N, "MAXPA"))), ""),
        Item("msrs", MapOf(_N, "MSR addresses"), "MSRs when the module starts"),
        Item("txt_sts", _N, "the dword at FED20000H"),
        Item("rdseed", ListOf(Row(((Count(0, 1), "CF"), (_N, "value")))), "the RDSEEDs in order"),
        Item("seamextend", Octets(SEAMEXTEND.size), "the register before"),
        Item("caller", Group((*(Item(name, _N, f"the caller's {name}") for name in CALLER),
                              Item("eax", _N, "EAX at the entry point, 2 where missing", True))), "who launches"),
        Item("acm", Group((Item("base", _N, "of the module"), Item("se_svn", _N, "SeSvn of its header"),
                           Item("image", Text(), "id"),
                           Item("consts", Group(tuple(Item(name, _N, "bytes") for name in CONSTS)),
                                "P_SEAMLDR_CONSTS"))), "the module"),
        Item("memory", ListOf(Group((
            Item("pa", _N, "address"), _SYSINFO_ITEM,
            Item("shake", Row(((_N, "seed"), (_N, "pages"))), "pages as `fill` makes them", True),
            Item("hex", Octets(), "bytes", True)))), "memory before, in order"),
        Item("expect", Group(_OBSERVED), "what is seen"),
    ))), "the launches"),
)

SET = RecordedSet(
    "npseamldr", "NP-SEAMLDR",
    ("Launches of NP-SEAMLDR 1.5 from its entry point in authenticated code mode to EXITAC: each condition that a "
     "launch "
     "can meet, platforms, ranges, constants and images of many kinds, and the whole state afterwards.",
     "The embedded image is one of ours; nothing observed depends on where in the module it lies.  `python -m seamref "
     "conform` replays the file."),
    FORMAT, DOCUMENT, document, lambda: sum(1 for _ in _changes()),
)
