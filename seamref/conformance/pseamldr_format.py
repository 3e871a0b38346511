"""The format ``pseamldr-vectors/1``: whether a case is one, and the bytes that its recipes stand for.

Everything that a case may say is judged here, value by value, before a platform is made for it; what is judged is
also bounded: processors, pages, bytes.  The format is described in words in tests/conformance/vectors/pseamldr.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields as dataclass_fields
from hashlib import sha256, sha384
from itertools import chain
from typing import Any

from seamref.arch.structures import SEAMEXTEND, SYS_INFO_TABLE
from seamref.arch.vmcs import TRANSFER_MSRS
from seamref.conformance import recipes
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
from seamref.conformance.recipes import layout_numbers, poke, read_shake
from seamref.layout import Array
from seamref.pseamldr.api import PAGE, SEAMLDR_PARAMS, Leaf
from seamref.pseamldr.build import Build
from seamref.pseamldr.lab import LEAST_RANGE_SIZE
from seamref.pseamldr.memory_constants import MemoryConstants
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT

MIB = 1 << 20
MAX_LPS = 4096
"""Processors of a platform, and callers of a step."""
MAX_IMAGE_PAGES = 4096
MAX_SEAMRR = 1 << 30
LIST_LIMIT = 4096
KEPT_IMAGES = 256 * MIB
"""Bytes of built images that one file's cases share."""

INFO_FIELDS = {"version": u32, "attributes": u32, "vendor_id": u32, "build_date": u32, "build_num": u16, "minor": u16,
               "major": u16}
GUEST = ("rip", "instruction_length", "interruptibility", "rflags", "debugctl", "pending_dbg")
GUEST_AFTER = ("rip", "interruptibility", "pending_dbg")
COUNTERS = ("num_remaining_updates", "lps_in_update", "lps_in_shutdown")
PLAN = (*(field.name for field in dataclass_fields(MemoryConstants) if field.name != "seamrr_base"), "pml4_physbase",
        "current_pt_physbase")
SYS_INFO = tuple(
    field.name for field in SYS_INFO_TABLE.fields if field.name != "mcheck" and not field.name.startswith("reserved"))
VMCS_COMMON = (
    "entry_ctls", "exit_ctls", "guest_rip", "host_cr0", "host_cr3", "host_cr4", "host_cs_selector", "host_fs_base",
    "host_fs_selector", "host_gdtr_base", "host_gs_selector", "host_ia32_efer", "host_ia32_pat", "host_ia32_s_cet",
    "host_idtr_base", "host_rip", "host_ss_selector", "host_tr_selector", "pin_based", "proc_based", "revision_id",
)
VMCS_PER_LP = ("host_rsp", "host_ssp", "host_gs_base")
_RANGE = {"sparse_sha256", "sparse_no_vmcs_sha256", "nonzero_pages"}
_PLATFORM = (
    "num_sockets", "tot_num_lps", "cpuid4_max_lps_minus1", "lps", "fms", "max_pa", "hkid_bits", "num_mktme_kids",
    "private_hkid_min", "seamrr_base", "seamrr_size", "p_seamldr_range_size", "debug_unlocked", "acm_x2apicid",
    "sysinfo_version", "skip_smrr2_check", "tdx_ac", "cmrs", "reserved_seed", "vmx_msrs",
)
_OF_SIGSTRUCT = tuple(
    field.name for field in SEAM_SIGSTRUCT.fields
    if field.name not in ("modulus", "signature", "seamhash") and not field.name.startswith("reserved"))
_CPUID_TABLE = SEAM_SIGSTRUCT.resolve("cpuid_table")
assert isinstance(_CPUID_TABLE[0], Array)
CPUID_ENTRIES = _CPUID_TABLE[0].size // 4


# --- what the cases of a file share


def build_of(document: dict[str, Any]) -> Build:
    """The build constants of the recorded P-SEAMLDR."""
    info = mapping(document["pseamldr_info"], "pseamldr_info", INFO_FIELDS)
    read = {name: reader(info[name], f"pseamldr_info.{name}") for name, reader in INFO_FIELDS.items()}
    signer = hex_bytes(document["signer_key_sha384"], "signer_key_sha384", 48)
    return Build(signer_key_hash=signer, **read)  # type: ignore[arg-type]


def build_sigstruct(recipe: dict[str, Any], path: str, defaults: dict[str, Any], keys: dict[str, bytes]) -> bytes:
    """A sigstruct from its recipe."""
    mapping(recipe, path, ("seamhash", "signature"),
            ("set", "cpuid_table", "signer", "pre", "post", "sha256", "signature_given"))
    if "signature_given" in recipe:
        flag(recipe["signature_given"], f"{path}.signature_given")
    out = bytearray(SEAM_SIGSTRUCT.size)
    given = mapping(recipe.get("set", {}), f"{path}.set", (), _OF_SIGSTRUCT)
    for where, values in (("sigstruct_default", defaults), (f"{path}.set", given)):
        for name, value in values.items():
            if name != "cpuid_table":
                poke(SEAM_SIGSTRUCT, out, name, value, f"{where}.{name}")
    table, where = defaults.get("cpuid_table", []), "sigstruct_default.cpuid_table"
    if "cpuid_table" in given:
        table, where = given["cpuid_table"], f"{path}.set.cpuid_table"
    if "cpuid_table" in recipe:
        table, where = recipe["cpuid_table"], f"{path}.cpuid_table"
    entries = b"".join(u32(v, at).to_bytes(4, "little") for at, v in elements(table, where, 0, CPUID_ENTRIES))
    out[_CPUID_TABLE[1] : _CPUID_TABLE[1] + len(entries)] = entries
    SEAM_SIGSTRUCT.poke(out, "seamhash", hex_bytes(recipe["seamhash"], f"{path}.seamhash", 48))
    signer = one_of(recipe.get("signer", "k0"), f"{path}.signer", keys)
    SEAM_SIGSTRUCT.poke(out, "modulus", keys[signer])
    recipes.patch(out, recipe.get("pre", []), f"{path}.pre")
    SEAM_SIGSTRUCT.poke(out, "signature", hex_bytes(recipe["signature"], f"{path}.signature", 384))
    recipes.patch(out, recipe.get("post", []), f"{path}.post")
    return bytes(out)


def build_image(recipe: dict[str, Any], path: str) -> bytes:
    """A module image from its recipe."""
    mapping(recipe, path, ("pages", "fill", "writes"), ("sha384",))
    pages = integer(recipe["pages"], f"{path}.pages", 1, MAX_IMAGE_PAGES)
    return recipes.build_image(recipe, path, pages * PAGE, ("zero", "shake"))


class Recipes:
    """Sigstructs and images of one file, built and checked when a case first names them; digests of whole ranges."""

    def __init__(self, document: dict[str, Any]) -> None:
        mapping(document, "", ("format", "pseamldr_info", "keys", "signer_key_sha384", "sigstruct_default",
                               "sigstructs", "images", "cases"))
        array(document["cases"], "cases")
        self.build = build_of(document)
        self._sigstruct_recipes = any_mapping(document["sigstructs"], "sigstructs")
        self._image_recipes = any_mapping(document["images"], "images")
        self._defaults = mapping(document["sigstruct_default"], "sigstruct_default", (), _OF_SIGSTRUCT)
        keys = mapping(document["keys"], "keys", ("k0",), ("k1",))
        self._keys = {name: hex_bytes(value, f"keys.{name}", 384) for name, value in keys.items()}
        build_sigstruct({"seamhash": "00" * 48, "signature": "00" * 384}, "sigstruct_default", self._defaults,
                        self._keys)
        self._sigstructs: dict[str, bytes] = {}
        self._images: dict[str, bytes] = {}
        self._held = 0
        self.range_digests: dict[tuple[int, str], str] = {}

    def sigstruct(self, id: Any, path: str = "") -> bytes:
        """The 2048 bytes; they must have the digest that the file gives.  ``path`` is where the id stands."""
        made = self._sigstructs.get(text(id, path))
        if made is None:
            recipe, where = self._recipe(self._sigstruct_recipes, "sigstructs", id, path)
            made = build_sigstruct(recipe, where, self._defaults, self._keys)
            if "sha256" not in recipe or sha256(made).hexdigest() != digest(recipe["sha256"], f"{where}.sha256"):
                raise FormatError(f"{where}.sha256", f"{shown(recipe.get('sha256'))} is not the SHA-256 of the recipe")
            self._sigstructs[id] = made
        return made

    def image(self, id: Any, path: str = "") -> bytes:
        """The image's pages; they must have the digest that the file gives.  ``path`` is where the id stands."""
        made = self._images.get(text(id, path))
        if made is None:
            recipe, where = self._recipe(self._image_recipes, "images", id, path)
            made = build_image(recipe, where)
            if "sha384" not in recipe or sha384(made).hexdigest() != digest(recipe["sha384"], f"{where}.sha384", 384):
                raise FormatError(f"{where}.sha384", f"{shown(recipe.get('sha384'))} is not the SHA-384 of the recipe")
            self._held += len(made)
            while self._held > KEPT_IMAGES and self._images:
                self._held -= len(self._images.pop(next(iter(self._images))))
            self._images[id] = made
        return made

    @staticmethod
    def _recipe(known: dict[str, Any], what: str, id: Any, path: str) -> tuple[dict[str, Any], str]:
        if id not in known:
            raise FormatError(path, f"{shown(id)} is not among {what}")
        where = f"{what}.{id}" if id.isidentifier() else f"{what}[{shown(id)}]"
        return any_mapping(known[id], where), where


# --- a case


def lp_ranges(value: Any, path: str) -> list[tuple[int, int]]:
    """``[[first x2APIC id, count], ...]``: at most MAX_LPS processors in all."""
    found, total = [], 0
    for where, item in elements(value, path, 1, LIST_LIMIT):
        first, count = array(item, where, 2, 2)
        first, count = u32(first, f"{where}[0]"), integer(count, f"{where}[1]", 1, MAX_LPS)
        if first + count > 1 << 32:
            raise FormatError(where, "an x2APIC id has 32 bits")
        total += count
        if total > MAX_LPS:
            raise FormatError(path, f"more than {MAX_LPS} processors")
        found.append((first, count))
    return found


def ids_of(value: list[list[Any]]) -> Iterator[int]:
    """x2APIC ids of checked ranges."""
    return chain.from_iterable(range(number(first), number(first) + number(count)) for first, count in value)


def number(value: Any) -> int:
    """A number that was checked, in either spelling."""
    return value if isinstance(value, int) else int(value, 16)


def check_case(case: dict[str, Any], path: str, shared: Recipes) -> None:
    """A whole case."""
    mapping(case, path, ("id", "group", "platform", "seamextend", "seamdb", "steps"),
            ("note", "mutations", "initial_module_range"))
    if "note" in case:
        text(case["note"], f"{path}.note")
    for where, item in elements(case.get("mutations", []), f"{path}.mutations"):
        text(item, where)
    module = _check_platform(case["platform"], f"{path}.platform")
    hex_bytes(case["seamextend"], f"{path}.seamextend", SEAMEXTEND.size)
    seamdb = mapping(case["seamdb"], f"{path}.seamdb", ("size", "last"))
    size = integer(seamdb["size"], f"{path}.seamdb.size", 0, 1 << 16)
    integer(seamdb["last"], f"{path}.seamdb.last", -1, max(size - 1, -1))
    for where, write in elements(case.get("initial_module_range", []), f"{path}.initial_module_range"):
        _check_seam_write(write, where, module)
    steps = array(case["steps"], f"{path}.steps", 1)
    for index, step in enumerate(steps):
        where = f"{path}.steps[{index}]"
        _check_step(step, where, module, shared)
        if "fatal" in step["expect"] and index + 1 < len(steps):
            raise FormatError(f"{path}.steps[{index + 1}]", "a step behind a fatal one")


def _check_platform(value: Any, path: str) -> int:
    """The platform; the size of its module range."""
    p = mapping(value, path, _PLATFORM, ("misc_enable", "spec_ctrl"))
    at = {name: f"{path}.{name}" for name in p}
    integer(p["num_sockets"], at["num_sockets"], 0, 8)
    integer(p["cpuid4_max_lps_minus1"], at["cpuid4_max_lps_minus1"], 0, 0xFFF)
    lp_ranges(p["lps"], at["lps"])
    for name in ("tot_num_lps", "acm_x2apicid"):
        u32(p[name], at[name])
    for where, item in elements(p["fms"], at["fms"], 0, 8):
        u32(item, where)
    max_pa = integer(p["max_pa"], at["max_pa"], 36, 52)
    integer(p["hkid_bits"], at["hkid_bits"], 0, 15)
    keyids = u32(p["num_mktme_kids"], at["num_mktme_kids"])
    if u64(p["private_hkid_min"], at["private_hkid_min"]) != keyids + 1:
        raise FormatError(at["private_hkid_min"], f"{shown(p['private_hkid_min'])}, must be num_mktme_kids + 1")
    base = u64(p["seamrr_base"], at["seamrr_base"])
    size = integer(p["seamrr_size"], at["seamrr_size"], 32 * MIB, MAX_SEAMRR)
    if size & size - 1:
        raise FormatError(at["seamrr_size"], f"{shown(size)}, must be a power of two")
    if base % size or base + size > 1 << max_pa:
        raise FormatError(at["seamrr_base"], f"{shown(base)}, must be a multiple of the size below 2^max_pa")
    held = integer(p["p_seamldr_range_size"], at["p_seamldr_range_size"], LEAST_RANGE_SIZE, size - PAGE)
    if held % PAGE:
        raise FormatError(at["p_seamldr_range_size"], f"{shown(held)}, must be whole pages")
    bit(p["debug_unlocked"], at["debug_unlocked"])
    u64(p["sysinfo_version"], at["sysinfo_version"])
    for name in ("skip_smrr2_check", "tdx_ac"):
        u8(p[name], at[name])
    for where, item in elements(p["cmrs"], at["cmrs"], 0, 32):
        numbers(item, where, 2)
    if p["reserved_seed"] is not None:
        u64(p["reserved_seed"], at["reserved_seed"])
    msrs = any_mapping(p["vmx_msrs"], at["vmx_msrs"])
    addresses = [hex_key(name, at["vmx_msrs"]) for name in msrs]
    if sorted(addresses) != sorted(TRANSFER_MSRS):
        raise FormatError(at["vmx_msrs"], "must be the MSRs " + ", ".join(f"0x{a:x}" for a in sorted(TRANSFER_MSRS)))
    for name, item in msrs.items():
        u64(item, f"{at['vmx_msrs']}.{name}")
    for name in ("misc_enable", "spec_ctrl"):
        if name in p:
            u64(p[name], at[name])
    return size - held


def _check_seam_write(value: Any, path: str, module: int) -> None:
    write = mapping(value, path, ("off",), ("hex", "shake"))
    if ("hex" in write) == ("shake" in write):
        raise FormatError(path, "must have hex or shake")
    size = len(hex_bytes(write["hex"], f"{path}.hex")) if "hex" in write else \
        read_shake(write["shake"], f"{path}.shake")[1]
    off = u64(write["off"], f"{path}.off")
    if off + size > module:
        raise FormatError(f"{path}.off", f"{shown(off)}, behind it {size} bytes leave the module range")


def _check_step(value: Any, path: str, module: int, shared: Recipes) -> None:
    step = mapping(value, path, ("leaf", "rcx", "rdx", "expect"),
                   ("lp", "lps", "mem", "seam_writes", "rdrand", "seamops", "guest"))
    if ("lp" in step) == ("lps" in step):
        raise FormatError(path, "must have lp or lps")
    if "lp" in step:
        u32(step["lp"], f"{path}.lp")
    else:
        lp_ranges(step["lps"], f"{path}.lps")
    leaf = text(step["leaf"], f"{path}.leaf")
    if leaf not in Leaf.__members__:
        if not leaf.startswith("0x"):
            raise FormatError(f"{path}.leaf", f'{shown(leaf)}, must be {", ".join(Leaf.__members__)} or "0x..."')
        u64(leaf, f"{path}.leaf")
    u64(step["rcx"], f"{path}.rcx")
    u64(step["rdx"], f"{path}.rdx")
    for where, write in elements(step.get("mem", []), f"{path}.mem", 0, LIST_LIMIT):
        _check_memory(write, where, shared)
    for where, write in elements(step.get("seam_writes", []), f"{path}.seam_writes", 0, LIST_LIMIT):
        _check_seam_write(write, where, module)
    for where, draw in elements(step.get("rdrand", []), f"{path}.rdrand", 0, LIST_LIMIT):
        carry, drawn = array(draw, where, 2, 2)
        bit(carry, f"{where}[0]")
        u64(drawn, f"{where}[1]")
    for where, operation in elements(step.get("seamops", []), f"{path}.seamops", 0, LIST_LIMIT):
        name, *results = array(operation, where, 2, 4)
        one_of(name, f"{where}[0]", ("CLEAR", "INSERT", "GETREF"))
        for index, result in enumerate(array(results, where, *((3, 3) if name == "GETREF" else (1, 1))), 1):
            u64(result, f"{where}[{index}]")
    if "guest" in step:
        _check_numbers(step["guest"], f"{path}.guest", GUEST)
    _check_expect(step["expect"], f"{path}.expect", "guest" in step)
    _check_told(step["expect"], f"{path}.expect", Leaf[leaf] if leaf in Leaf.__members__ else int(leaf, 16))


def _check_numbers(value: Any, path: str, names: tuple[str, ...]) -> None:
    for name, item in mapping(value, path, names).items():
        u64(item, f"{path}.{name}")


def _check_memory(value: Any, path: str, shared: Recipes) -> None:
    write = any_mapping(value, path)
    if "image" in write:
        mapping(write, path, ("image", "at"))
        image = shared.image(write["image"], f"{path}.image")
        for where, item in elements(write["at"], f"{path}.at", 0, LIST_LIMIT):
            pa, first, count = numbers(item, where, 3)
            if first + count > len(image) // PAGE:
                raise FormatError(where, f"pages {first} to {first + count} of an image of {len(image) // PAGE}")
            _in_memory(pa, count * PAGE, where)
        return
    mapping(write, path, ("pa",), ("params", "sigstruct", "hex"))
    if len(write) != 2:
        raise FormatError(path, "must have params, sigstruct or hex beside pa")
    if "params" in write:
        size = len(build_params(write["params"], f"{path}.params"))
    elif "sigstruct" in write:
        size = len(shared.sigstruct(write["sigstruct"], f"{path}.sigstruct"))
    else:
        size = len(hex_bytes(write["hex"], f"{path}.hex"))
    _in_memory(u64(write["pa"], f"{path}.pa"), size, f"{path}.pa")


def _in_memory(pa: int, size: int, path: str) -> None:
    if pa + size > M64 + 1:
        raise FormatError(path, f"{shown(pa)}, behind it {size} bytes leave the address space")


_PAGE_LIST = SEAMLDR_PARAMS.offset_of("mod_pages_pa_list")
_PAGES = (SEAMLDR_PARAMS.size - _PAGE_LIST) // 8


def build_params(value: Any, path: str = "params") -> bytes:
    """A SEAMLDR_PARAMS page from its recipe."""
    heads = ("version", "scenario", "sigstruct_pa", "num_module_pages")
    recipe = mapping(value, path, (), (*heads, "pages", "patch"))
    out = bytearray(layout_numbers(
        SEAMLDR_PARAMS, {name: recipe[name] for name in heads if name in recipe}, path, heads))
    for where, item in elements(recipe.get("pages", []), f"{path}.pages", 0, LIST_LIMIT):
        index, pa, count = numbers(item, where, 3)
        if index + count > _PAGES:
            raise FormatError(where, f"entries {index} to {index + count} of a list of {_PAGES}")
        at = _PAGE_LIST + 8 * index
        out[at : at + 8 * count] = b"".join((pa + PAGE * i & M64).to_bytes(8, "little") for i in range(count))
    recipes.patch(out, recipe.get("patch", []), f"{path}.patch")
    return bytes(out)


# --- what is expected


def _check_expect(value: Any, path: str, guest: bool) -> None:
    expect = mapping(
        value, path, ("seamextend", *COUNTERS),
        ("rax", "rdx", "fatal", "vmclear", "written", "guest", "range", "memory", "mapping", "sys_info_table", "vmcs",
         "code_region_sha256", "page_table_pages_used"))
    if "fatal" in expect:
        one_of(expect["fatal"], f"{path}.fatal", ("shutdown", "fault"))
        for name in ("rax", "rdx", "guest"):
            if name in expect:
                raise FormatError(f"{path}.{name}", "nothing is returned by a fatal call")
    else:
        for name in ("rax", "rdx"):
            if name not in expect:
                raise FormatError(path, f"{name} is missing")
            u64(expect[name], f"{path}.{name}")
        if guest != ("guest" in expect):
            raise FormatError(path, "guest must be expected where, and only where, the step has it")
    hex_bytes(expect["seamextend"], f"{path}.seamextend", SEAMEXTEND.size)
    for name in COUNTERS:
        u32(expect[name], f"{path}.{name}")
    if "vmclear" in expect:
        numbers(expect["vmclear"], f"{path}.vmclear", most=1 << 20)
    if "guest" in expect:
        _check_numbers(expect["guest"], f"{path}.guest", GUEST_AFTER)
    if "written" in expect:
        _check_written(expect["written"], f"{path}.written")
    if "range" in expect:
        _check_digests(mapping(expect["range"], f"{path}.range", _RANGE, ("sha256",)), f"{path}.range")
    if "memory" in expect:
        _check_plan(expect["memory"], f"{path}.memory")
    if "mapping" in expect:
        _check_mapping(expect["mapping"], f"{path}.mapping")
    if "sys_info_table" in expect:
        table = mapping(expect["sys_info_table"], f"{path}.sys_info_table", (*SYS_INFO, "mcheck_sha256"))
        _check_digests(table, f"{path}.sys_info_table")
    if "vmcs" in expect:
        _check_vmcs(expect["vmcs"], f"{path}.vmcs")
    if "code_region_sha256" in expect:
        digest(expect["code_region_sha256"], f"{path}.code_region_sha256")
    if "page_table_pages_used" in expect:
        u32(expect["page_table_pages_used"], f"{path}.page_table_pages_used")


_INSTALLED = ("memory", "mapping", "sys_info_table", "vmcs", "code_region_sha256", "page_table_pages_used")
"""What is told of a module that was installed; digests of the range may be left out of vectors made by hand."""
_ABOUT_MODULE = frozenset((*_INSTALLED, "range"))


def _check_told(expect: dict[str, Any], path: str, leaf: int) -> None:
    """What a recording must tell, and must not, by leaf and status."""
    told = _ABOUT_MODULE & expect.keys()
    success = "fatal" not in expect and number(expect["rax"]) == 0
    if leaf != Leaf.INSTALL:
        if told:
            raise FormatError(path, f"{min(told)} is told of INSTALL only")
    elif "fatal" not in expect and number(expect["lps_in_update"]) == 0:
        for name in _INSTALLED if success else ():
            if name not in expect:
                raise FormatError(path, f"{name} is missing")
    if ("written" in expect) != (success and leaf in (Leaf.INFO, Leaf.SEAMINFO)):
        raise FormatError(path, "written must be told of INFO and SEAMINFO that succeed, and of nothing else")


def _check_digests(values: dict[str, Any], path: str) -> None:
    for name, item in values.items():
        (digest if name.endswith("sha256") else u64)(item, f"{path}.{name}")


def _check_written(value: Any, path: str) -> None:
    written = mapping(value, path, ("pa", "len"), ("hex", "sha256"))
    if "hex" not in written and "sha256" not in written:
        raise FormatError(path, "must have hex or sha256")
    size = integer(written["len"], f"{path}.len", 1, PAGE)
    _in_memory(u64(written["pa"], f"{path}.pa"), size, f"{path}.pa")
    if "hex" in written:
        hex_bytes(written["hex"], f"{path}.hex", most=size)
    if "sha256" in written:
        digest(written["sha256"], f"{path}.sha256")


def _check_plan(value: Any, path: str) -> None:
    for name, item in mapping(value, path, PLAN).items():
        if name == "td_preserving_supported":
            flag(item, f"{path}.{name}")
        elif item is not None or name != "fault_wrapper_linbase":
            u64(item, f"{path}.{name}")


def _check_mapping(value: Any, path: str) -> None:
    found = mapping(value, path, (), ("sha256", "leaves", "tables", "runs", "broken"))
    if "broken" in found:
        flag(found["broken"], f"{path}.broken")
    for name in ("sha256", "leaves", "tables"):
        if name in found:
            (digest if name == "sha256" else u32)(found[name], f"{path}.{name}")
        elif not found.get("broken"):
            raise FormatError(path, f"{name} is missing")
    for where, item in elements(found.get("runs", []), f"{path}.runs"):
        numbers(item, where, 3)


def _check_vmcs(value: Any, path: str) -> None:
    vmcs = mapping(value, path, ("common", "count"),
                   ("per_lp", "per_lp_first_last", "per_lp_sha256", "differences"))
    _check_numbers(vmcs["common"], f"{path}.common", VMCS_COMMON)
    integer(vmcs["count"], f"{path}.count", 0, 1 << 16)
    if "per_lp" in vmcs:
        for name, item in mapping(vmcs["per_lp"], f"{path}.per_lp", VMCS_PER_LP).items():
            numbers(item, f"{path}.per_lp.{name}", most=1 << 16)
    if ("per_lp_first_last" in vmcs) != ("per_lp_sha256" in vmcs) or ("per_lp" in vmcs) == ("per_lp_sha256" in vmcs):
        raise FormatError(path, "must have per_lp, or per_lp_first_last and per_lp_sha256")
    if "per_lp_sha256" in vmcs:
        for name, item in mapping(vmcs["per_lp_first_last"], f"{path}.per_lp_first_last", VMCS_PER_LP).items():
            numbers(item, f"{path}.per_lp_first_last.{name}", 3)
        _check_digests({f"{name}_sha256": item for name, item in mapping(
            vmcs["per_lp_sha256"], f"{path}.per_lp_sha256", VMCS_PER_LP).items()}, f"{path}.per_lp_sha256")
    for where, item in elements(vmcs.get("differences", []), f"{path}.differences"):
        index, name, found = array(item, where, 3, 3)
        integer(index, f"{where}[0]", 1, 1 << 16)
        one_of(name, f"{where}[1]", VMCS_COMMON)
        u64(found, f"{where}[2]")
