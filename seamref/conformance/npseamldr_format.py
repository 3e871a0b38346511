"""The format ``npseamldr-vectors/1``: whether a case is one, and the bytes that its recipes stand for.

The format is described in words in tests/conformance/vectors/npseamldr.  Sizes are bounded here: SEAMRR, the pages of
memory, the embedded image, the draws.
"""

from __future__ import annotations

from typing import Any

from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.arch.vmcs import TRANSFER_MSRS
from seamref.conformance import recipes
from seamref.conformance.pseamldr_format import VMCS_COMMON, VMCS_PER_LP
from seamref.conformance.reading import (
    M64,
    FormatError,
    any_mapping,
    array,
    bit,
    digest,
    elements,
    flag,
    hex_bytes,
    hex_key,
    integer,
    mapping,
    numbers,
    one_of,
    shown,
    text,
    u8,
    u16,
    u32,
    u64,
)
from seamref.firmware.acm import P_SEAMLDR_CONSTS
from seamref.pseamldr.api import PAGE

MAX_IMAGE = 1 << 20
MAX_PAGES = 1 << 18
"""Pages that a case may write before the launch (1 GiB)."""
LIST_LIMIT = 4096

CALLER = {"cs": u16, "es": u16, "fs": u16, "gs": u16, "ss": u16, "gdtr_limit": u16, "idtr_limit": u16, "cr4": u64,
          "gdtr_base": u64, "rip": u64, "cr3": u64, "idtr_base": u64}
CONSTS = tuple(name for name in ("CDataStackSize", "CCodeRgnSize", "CDataRgnSize", "CKeyholeRgnSize",
                                 "CKeyholeEditRgnSize", "CEntryPointOffset"))
assert all(P_SEAMLDR_CONSTS.resolve(name) for name in CONSTS)
STATE_MSRS = (0x8B, 0x1A0, 0x151, 0x302, 0x503, 0x1400, 0x1401)
MSRS = (*STATE_MSRS, *TRANSFER_MSRS)
AFTER_MSRS = (0x8B, 0x1A0, 0x151, 0x302, 0x1400, 0x1401)
REGISTERS = ("rax", "rbx", "r8", "r9", "rdx", "cr4", "rflags", "cs", "ds", "es", "fs", "gs", "ss", "gdtr_limit",
             "gdtr_base", "idtr_limit", "idtr_base", "cr0_bits", "rip", "cr3")
FATAL = ("ud2", "page_fault", "general_protection", "divide_error")
REGIONS = ("below_range", "first_page", "vmcs", "page_tables", "data", "stack", "shadow_stack", "code", "sysinfo")
_SYSINFO = {
    "version": "version", "tot_num_lps": "tot_num_lps", "tot_num_sockets": "tot_num_sockets",
    "range_base": "p_seamldr_range_base", "range_size": "p_seamldr_range_size", "skip_smrr2_check": "skip_smrr2_check",
    "tdx_ac": "tdx_ac", "np_seamldr_mutex": "np_seamldr_mutex", "acm_x2apicid": "acm_x2apicid",
    "acm_x2apicid_valid": "acm_x2apicid_valid",
}
_RESERVED = P_SYS_INFO_TABLE.resolve("reserved_0")[0].size
_RESERVED_ALL = _RESERVED + P_SYS_INFO_TABLE.resolve("reserved_1")[0].size
"""Bytes of the reserved part behind tdx_ac; the rest of the 1470 lies behind the CMRs."""


class Recipes:
    """Embedded images of one file, built and checked when a case first names them."""

    def __init__(self, document: dict[str, Any]) -> None:
        mapping(document, "", ("format", "np_seamldr", "images", "cases"))
        one_of(document["np_seamldr"], "np_seamldr", ("1.5",))
        array(document["cases"], "cases")
        self._recipes = any_mapping(document["images"], "images")
        self._images: dict[str, bytes] = {}

    def image(self, id: Any, path: str = "") -> bytes:
        """An image's bytes; ``path`` is where the id stands."""
        if text(id, path) not in self._images:
            if id not in self._recipes:
                raise FormatError(path, f"{shown(id)} is not among images")
            where = f"images.{id}"
            recipe = mapping(self._recipes[id], where, ("size", "fill", "writes"))
            size = integer(recipe["size"], f"{where}.size", 0, MAX_IMAGE)
            if len(self._images) >= 64:
                self._images.pop(next(iter(self._images)))
            self._images[id] = recipes.build_image(recipe, where, size, ("zero", "byte", "shake"))
        return self._images[id]


def build_sysinfo(value: Any, path: str) -> bytes:
    """A P_SYS_INFO_TABLE from its recipe; a field takes what fits into it."""
    table = mapping(value, path, (), (*_SYSINFO, "socket_cpuid", "cmrs", "reserved_seed", "patch"))
    out = bytearray(P_SYS_INFO_TABLE.size)
    if "reserved_seed" in table:
        z = recipes.shake(u64(table["reserved_seed"], f"{path}.reserved_seed"), _RESERVED_ALL)
        for name, part in (("reserved_0", z[:_RESERVED]), ("reserved_1", z[_RESERVED:])):
            P_SYS_INFO_TABLE.poke(out, name, part)
    for name, field in _SYSINFO.items():
        if name in table:
            kind, at = P_SYS_INFO_TABLE.resolve(field)
            number = u64(table[name], f"{path}.{name}") & (1 << 8 * kind.size) - 1  # "truncated to their size"
            out[at : at + kind.size] = number.to_bytes(kind.size, "little")
    for index, (where, item) in enumerate(elements(table.get("socket_cpuid", []), f"{path}.socket_cpuid", 0, 8)):
        P_SYS_INFO_TABLE.poke(out, f"socket_cpuid_table[{index}]", u32(item, where))
    for index, (where, item) in enumerate(elements(table.get("cmrs", []), f"{path}.cmrs", 0, 32)):
        base, size = numbers(item, where, 2)
        P_SYS_INFO_TABLE.poke(out, f"cmr[{index}].base", base)
        P_SYS_INFO_TABLE.poke(out, f"cmr[{index}].size", size)
    recipes.patch(out, table.get("patch", []), f"{path}.patch")
    return bytes(out)


def writes(value: list[Any], path: str) -> list[tuple[int, bytes]]:
    """The memory before the launch: (address, bytes) in order, whole pages of SHAKE one by one."""
    found, pages = [], 0
    for where, item in elements(value, path, 0, LIST_LIMIT):
        write = mapping(item, where, ("pa",), ("sysinfo", "shake", "hex"))
        if len(write) != 2:
            raise FormatError(where, "must have sysinfo, shake or hex beside pa")
        pa = u64(write["pa"], f"{where}.pa")
        if "shake" in write:
            seed, count = array(write["shake"], f"{where}.shake", 2, 2)
            seed, count = u64(seed, f"{where}.shake[0]"), integer(count, f"{where}.shake[1]", 0, MAX_PAGES)
            pages += count
            if pages > MAX_PAGES:
                raise FormatError(where, f"more than {MAX_PAGES} pages")
            if pa + count * PAGE > M64 + 1:
                raise FormatError(f"{where}.pa", f"{shown(pa)}, behind it {count} pages leave the address space")
            found += [(pa + PAGE * p, recipes.kept_page(seed, p)) for p in range(count)]
        else:
            data = build_sysinfo(write["sysinfo"], f"{where}.sysinfo") if "sysinfo" in write else \
                hex_bytes(write["hex"], f"{where}.hex")
            if pa + len(data) > M64 + 1:
                raise FormatError(f"{where}.pa", f"{shown(pa)}, behind it {len(data)} bytes leave the address space")
            found.append((pa, data))
    return found


def msr_values(value: Any, path: str, addresses: tuple[int, ...]) -> dict[int, int]:
    """An object of MSRs: exactly these addresses, each a value."""
    held = any_mapping(value, path)
    found = {hex_key(name, path): u64(item, f"{path}.{name}") for name, item in held.items()}
    if sorted(found) != sorted(addresses) or len(found) != len(held):
        raise FormatError(path, "must be the MSRs " + ", ".join(f"0x{a:x}" for a in sorted(addresses)))
    return found


def check_case(case: dict[str, Any], path: str, shared: Recipes) -> None:
    """A whole case."""
    mapping(case, path, ("id", "group", "note", "cpu", "msrs", "txt_sts", "rdseed", "seamextend", "caller", "acm",
                         "memory", "expect"))
    text(case["note"], f"{path}.note")
    cpu = mapping(case["cpu"], f"{path}.cpu", ("x2apic_id", "maxpa"))
    u32(cpu["x2apic_id"], f"{path}.cpu.x2apic_id")
    integer(cpu["maxpa"], f"{path}.cpu.maxpa", 36, 52)
    msr_values(case["msrs"], f"{path}.msrs", MSRS)
    u32(case["txt_sts"], f"{path}.txt_sts")
    for where, draw in elements(case["rdseed"], f"{path}.rdseed", 0, LIST_LIMIT):
        carry, drawn = array(draw, where, 2, 2)
        bit(carry, f"{where}[0]")
        u64(drawn, f"{where}[1]")
    hex_bytes(case["seamextend"], f"{path}.seamextend", SEAMEXTEND.size)
    caller = mapping(case["caller"], f"{path}.caller", CALLER, ("eax",))
    for name, reader in CALLER.items():
        reader(caller[name], f"{path}.caller.{name}")
    u64(caller.get("eax", 2), f"{path}.caller.eax")
    acm = mapping(case["acm"], f"{path}.acm", ("base", "se_svn", "image", "consts"))
    integer(acm["base"], f"{path}.acm.base", 0, (1 << 32) - 1)
    u8(acm["se_svn"], f"{path}.acm.se_svn")
    shared.image(acm["image"], f"{path}.acm.image")
    for name, item in mapping(acm["consts"], f"{path}.acm.consts", CONSTS).items():
        u64(item, f"{path}.acm.consts.{name}")
    writes(case["memory"], f"{path}.memory")
    _check_expect(case["expect"], f"{path}.expect")


def _check_expect(value: Any, path: str) -> None:
    fatal = "fatal" in any_mapping(value, path)
    expect = mapping(value, path, ("wrmsr", "rdseed_used", "fatal") if fatal else (
        "wrmsr", "rdseed_used", "status", "registers", "seamextend", "msrs_after", "memory"))
    for where, write in elements(expect["wrmsr"], f"{path}.wrmsr", 0, LIST_LIMIT):
        address, written = array(write, where, 2, 2)
        if u32(address, f"{where}[0]") == 0x1402:
            one_of(written, f"{where}[1]", ("out", "in"))
        else:
            u64(written, f"{where}[1]")
    u32(expect["rdseed_used"], f"{path}.rdseed_used")
    if fatal:
        one_of(expect["fatal"], f"{path}.fatal", FATAL)
        return
    u64(expect["status"], f"{path}.status")
    registers = mapping(expect["registers"], f"{path}.registers", (*REGISTERS, "others_zero"))
    for name in REGISTERS:
        u64(registers[name], f"{path}.registers.{name}")
    flag(registers["others_zero"], f"{path}.registers.others_zero")
    hex_bytes(expect["seamextend"], f"{path}.seamextend", SEAMEXTEND.size)
    msr_values(expect["msrs_after"], f"{path}.msrs_after", AFTER_MSRS)
    _check_memory(expect["memory"], f"{path}.memory")


def _check_memory(value: Any, path: str) -> None:
    memory = mapping(value, path, ("outside_changed", "sysinfo_low_changed", "sysinfo_high", "seamrr_changed"),
                     ("seamrr_sparse_sha256", "seamrr_nonzero_pages", "regions", "vmcs", "mapping"))
    numbers(memory["outside_changed"], f"{path}.outside_changed", most=LIST_LIMIT)
    flag(memory["sysinfo_low_changed"], f"{path}.sysinfo_low_changed")
    hex_bytes(memory["sysinfo_high"], f"{path}.sysinfo_high", most=2048)
    changed = flag(memory["seamrr_changed"], f"{path}.seamrr_changed")
    if changed != ("seamrr_sparse_sha256" in memory) or changed != ("seamrr_nonzero_pages" in memory):
        raise FormatError(path, "SEAMRR's digests stand where, and only where, seamrr_changed is true")
    if not changed:
        if len(memory) != 4:
            raise FormatError(path, "nothing of SEAMRR is told where seamrr_changed is false")
        return
    digest(memory["seamrr_sparse_sha256"], f"{path}.seamrr_sparse_sha256")
    u32(memory["seamrr_nonzero_pages"], f"{path}.seamrr_nonzero_pages")
    if "regions" in memory:
        for name, region in any_mapping(memory["regions"], f"{path}.regions").items():
            where = f"{path}.regions.{name}"
            one_of(name, where, REGIONS)
            mapping(region, where, ("sparse_sha256", "nonzero_pages"))
            digest(region["sparse_sha256"], f"{where}.sparse_sha256")
            u32(region["nonzero_pages"], f"{where}.nonzero_pages")
        if set(memory["regions"]) != set(REGIONS):
            raise FormatError(f"{path}.regions", "must be " + ", ".join(REGIONS))
    if "vmcs" in memory:
        names = (*VMCS_COMMON, *VMCS_PER_LP)
        vmcs = mapping(memory["vmcs"], f"{path}.vmcs", (*names, "other_bytes_zero"))
        for name in names:
            u64(vmcs[name], f"{path}.vmcs.{name}")
        flag(vmcs["other_bytes_zero"], f"{path}.vmcs.other_bytes_zero")
    if "mapping" in memory:
        found = mapping(memory["mapping"], f"{path}.mapping", ("pml4", "leaves", "tables", "sha256", "broken", "runs"))
        u64(found["pml4"], f"{path}.mapping.pml4")
        for name in ("leaves", "tables"):
            u32(found[name], f"{path}.mapping.{name}")
        digest(found["sha256"], f"{path}.mapping.sha256")
        flag(found["broken"], f"{path}.mapping.broken")
        for where, item in elements(found["runs"], f"{path}.mapping.runs", 0, 40):
            numbers(item, where, 3)
