"""Whether a value is a vector of the Linux host set: every kind, key by key, and bounded before anything runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seamref.conformance import reading
from seamref.conformance.reading import (
    M64,
    FormatError,
    array,
    digest,
    elements,
    flag,
    hex_bytes,
    mapping,
    one_of,
    shown,
    text,
)
from seamref.host.abi import ARGS, Errno
from seamref.host.script import Ends

FORMAT, VERSION = "seamref-linux-host-vectors", 1
INFO_SIZE = 256


def integer(value: Any, path: str, least: int = 0, most: int = M64) -> int:
    """A JSON integer: this format writes no number as text."""
    if isinstance(value, str):
        raise FormatError(path, f"{shown(value)}, must be a number")
    return reading.integer(value, path, least, most)


def u64(value: Any, path: str) -> int:
    """A number of 64 bits."""
    return integer(value, path)


def u32(value: Any, path: str) -> int:
    """A number of 32 bits."""
    return integer(value, path, 0, (1 << 32) - 1)


def u16(value: Any, path: str) -> int:
    """A number of 16 bits."""
    return integer(value, path, 0, (1 << 16) - 1)


def fields(value: Any, path: str, known: tuple[str, ...]) -> None:
    """An object of 64-bit numbers under known names."""
    for name, inner in mapping(value, path, (), known).items():
        u64(inner, f"{path}.{name}")


MAX_CPUS = 64
MAX_SWEEP = 1 << 17
MAX_FILE = 8 << 20
"""Bytes of one write to ``data``."""
MAX_LIST = 4096
SIX = ARGS[:6]
WRAPS = ("seamcall", "seamcall_ret", "seamcall_saved_ret", "seamcall_prerr", "seamcall_prerr_ret", "seamldr_call")
SWEPT = {"size": u32, "version": u16, "checksum": u16, "sigstruct_nr_pages": u32, "module_nr_pages": u32}
"""Swept fields other than ``byteN`` and ``reserved``, and their types."""
POINTER = "physical address of the structure"
EVENTS = {"state": 1, "failed": 1, "lock": 1, "unlock": 1, "call": 0, "ack": 0, "return": 1}
"""Events of a schedule, and how many values stand behind each."""
LOCKS = ("seamldr_lock", "sysinit_lock")
READABLE = ("status", "error", "remaining_size", "loading", "version")
FEATURES = ("tdx_host_platform", "xsave", "movdir64b", "selfsnoop")


def _errno(value: Any, path: str) -> int:
    return integer(value, path, -4095, 0)


def _own_errno(value: Any, path: str) -> None:
    if _errno(value, path) not in Errno._value2member_map_:
        raise FormatError(path, f"{value}: no errno that this kernel knows")


def _lines(value: Any, path: str) -> None:
    for where, line in elements(value, path, 0, MAX_LIST):
        text(line, where, 1000)


def _header(value: Any, path: str) -> None:
    hex_bytes(value, path, most=4096)


def _cpu(value: Any, path: str, cpus: int) -> int:
    return integer(value, path, 0, cpus - 1)


def _cpus(value: Any, path: str, cpus: int) -> None:
    found = [_cpu(one, where, cpus) for where, one in elements(value, path, 0, cpus)]
    if len(set(found)) != len(found):
        raise FormatError(path, "a CPU stands twice")


def _flags(value: Any, path: str, cpus: int) -> None:
    for where, one in elements(value, path, cpus, cpus):
        flag(one, where)


def check_rules(value: Any, path: str) -> None:
    """The scripted SEAM side."""
    for where, one in elements(value, path, 0, MAX_LIST):
        rule = mapping(one, where, ("leaf",), ("cpu", "rdx", "nth", "nth_to", "outcome", "rax", "vector", "out"))
        for name in ("leaf", "rdx", "rax"):
            if name in rule:
                u64(rule[name], f"{where}.{name}")
        for name in ("cpu", "nth"):
            if name in rule:
                integer(rule[name], f"{where}.{name}", 0, MAX_LIST)
        if rule.get("nth_to") is not None:
            integer(rule["nth_to"], f"{where}.nth_to", integer(rule.get("nth", 0), where), MAX_LIST)
        outcome = one_of(rule.get("outcome", Ends.COMPLETED.value), f"{where}.outcome", [e.value for e in Ends])
        if (outcome == Ends.FAULT.value) != ("vector" in rule):
            raise FormatError(f"{where}.vector", "belongs to a fault, and a fault has one")
        if "vector" in rule:
            integer(rule["vector"], f"{where}.vector", 0, 255)
        fields(rule.get("out", {}), f"{where}.out", ARGS)


# --- the kinds


def _image(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "header", "size", "expect"), ("no_memory",))
    _header(v["header"], f"{path}.header")
    u32(v["size"], f"{path}.size")
    flag(v.get("no_memory", False), f"{path}.no_memory")
    at = f"{path}.expect"
    expect = mapping(v["expect"], at, ("ret", "seamcalls", "prints"), ("params",))
    _errno(expect["ret"], f"{at}.ret")
    u32(expect["seamcalls"], f"{at}.seamcalls")
    _lines(expect["prints"], f"{at}.prints")
    hex_bytes(expect.get("params", ""), f"{at}.params", most=4096)


def _sweep(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "field", "range", "header", "size", "expect"), ("value", "size_follows"))
    _header(v["header"], f"{path}.header")
    u32(v["size"], f"{path}.size")
    flag(v.get("size_follows", False), f"{path}.size_follows")
    name = text(v["field"], f"{path}.field", 40)
    is_byte = name.startswith("byte") and name[4:].isascii() and name[4:].isdigit() and len(name) <= 8
    if is_byte:
        integer(int(name[4:]), f"{path}.field", 0, 4095)
    elif name != "reserved" and name not in SWEPT:
        raise FormatError(f"{path}.field", f"{shown(name)} is no field that is swept")
    if ("value" in v) != (name == "reserved"):
        raise FormatError(f"{path}.value", "belongs to the field reserved, which has one")
    integer(v.get("value", 0), f"{path}.value", 0, 255)
    bounds = array(v["range"], f"{path}.range", 2, 2)
    most = 4095 if name == "reserved" else 255 if is_byte else (1 << 16) - 1 if SWEPT[name] is u16 else (1 << 32) - 1
    first = integer(bounds[0], f"{path}.range[0]", 0, most)
    last = integer(bounds[1], f"{path}.range[1]", first, most)
    if last - first >= MAX_SWEEP:
        raise FormatError(f"{path}.range", f"{last - first + 1} values, must be at most {MAX_SWEEP}")
    at = f"{path}.expect"
    mapping(v["expect"], at, ("runs",))
    for where, run in elements(v["expect"]["runs"], f"{at}.runs", 1, MAX_SWEEP):
        array(run, where, 3, 3)
        integer(run[0], f"{where}[0]", 0, most)
        integer(run[1], f"{where}[1]", 0, most)
        _errno(run[2], f"{where}[2]")


def _module_state(value: Any, path: str) -> None:
    array(value, path, 3, 3)
    for index in (0, 1):
        integer(value[index], f"{path}[{index}]", 0, 1)
    _own_errno(value[2], f"{path}[2]")


def _update(v: dict[str, Any], path: str) -> None:
    optional = ("s", "m", "online", "hv", "ver", "state", "lp_uninit", "bug", "no_memory", "repeat", "policy", "seed")
    mapping(v, path, ("id", "kind", "cpus", "rules", "expect"), optional)
    cpus = integer(v["cpus"], f"{path}.cpus", 1, MAX_CPUS)
    check_rules(v["rules"], f"{path}.rules")
    integer(v.get("s", 1), f"{path}.s", 0, 1)
    integer(v.get("m", 2), f"{path}.m", 0, 496)
    _cpus(v.get("online", [0]), f"{path}.online", cpus)
    if 0 not in v.get("online", [0]):
        raise FormatError(f"{path}.online", "CPU 0 is always online")
    _cpus(v.get("lp_uninit", []), f"{path}.lp_uninit", cpus)
    u64(v.get("hv", 3), f"{path}.hv")
    for where, number in elements(v.get("ver", [0, 0, 0]), f"{path}.ver", 3, 3):
        u64(number, where)
    _module_state(v.get("state", [1, 1, 0]), f"{path}.state")
    for name in ("bug", "no_memory"):
        flag(v.get(name, False), f"{path}.{name}")
    repeat = integer(v.get("repeat", 1), f"{path}.repeat", 1, 16)
    text(v.get("policy", ""), f"{path}.policy", 40)
    u64(v.get("seed", 0), f"{path}.seed")
    mapping(v["expect"], f"{path}.expect", ("rounds",))
    for where, one in elements(v["expect"]["rounds"], f"{path}.expect.rounds", repeat, repeat):
        _round(one, where, cpus)


def _round(r: Any, path: str, cpus: int) -> None:
    mapping(r, path, ("ret", "calls", "prints", "state", "cpus", "final_update_state", "held_hotplug",
                      "leaked_allocations"), ("ret_possible", "results", "schedule", "params"))
    _errno(r["ret"], f"{path}.ret")
    for where, ret in elements(r.get("ret_possible", [0]), f"{path}.ret_possible", 1, MAX_CPUS):
        _errno(ret, where)
    results = mapping(r.get("results", {}), f"{path}.results", (), [str(cpu) for cpu in range(cpus)])
    for name, ret in results.items():
        _errno(ret, f"{path}.results.{name}")
    for where, call in elements(r["calls"], f"{path}.calls", 0, MAX_LIST):
        mapping(call, where, ("cpu", "leaf", *SIX), ("params_sha256",))
        _cpu(call["cpu"], f"{where}.cpu", cpus)
        for name in ("leaf", *SIX):
            if name != "rcx" or call["rcx"] != POINTER:
                u64(call[name], f"{where}.{name}")
        if "params_sha256" in call:
            digest(call["params_sha256"], f"{where}.params_sha256")
    hex_bytes(r.get("params", ""), f"{path}.params", most=4096)
    _lines(r["prints"], f"{path}.prints")
    _state_after(r["state"], f"{path}.state")
    for where, one in elements(r["cpus"], f"{path}.cpus", cpus, cpus):
        mapping(one, where, ("cache_state_incoherent", "lp_initialized"))
        for name, value in one.items():
            flag(value, f"{where}.{name}")
    for name in ("final_update_state", "held_hotplug", "leaked_allocations"):
        u32(r[name], f"{path}.{name}")
    for where, event in elements(r.get("schedule", []), f"{path}.schedule", 0, MAX_LIST):
        _event(event, where, cpus)


def _event(event: Any, path: str, cpus: int) -> None:
    array(event, path, 2, 3)
    _cpu(event[0], f"{path}[0]", cpus)
    name = one_of(event[1], f"{path}[1]", tuple(EVENTS))
    array(event, path, 2 + EVENTS[name], 2 + EVENTS[name])
    match name:
        case "state" | "failed":
            u32(event[2], f"{path}[2]")
        case "lock" | "unlock":
            one_of(event[2], f"{path}[2]", LOCKS)
        case "return":
            _errno(event[2], f"{path}[2]")


def _state_after(value: Any, path: str) -> None:
    mapping(value, path, ("initialized", "sysinit_done", "sysinit_ret", "version"))
    flag(value["initialized"], f"{path}.initialized")
    flag(value["sysinit_done"], f"{path}.sysinit_done")
    _errno(value["sysinit_ret"], f"{path}.sysinit_ret")
    for where, number in elements(value["version"], f"{path}.version", 3, 3):
        u64(number, where)


def _wrap(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "wrap", "fn", "args", "rules", "expect"), ("bug",))
    wrap = one_of(v["wrap"], f"{path}.wrap", WRAPS)
    u64(v["fn"], f"{path}.fn")
    fields(v["args"], f"{path}.args", ARGS)
    check_rules(v["rules"], f"{path}.rules")
    flag(v.get("bug", False), f"{path}.bug")
    at = f"{path}.expect"
    expect = mapping(v["expect"], at, ("ret", "args", "attempts", "cache_state_incoherent", "prints"),
                     ("fn", "loaded", "zeroed"))
    if wrap in WRAPS[:3]:
        u64(expect["ret"], f"{at}.ret")
    else:
        _errno(expect["ret"], f"{at}.ret")
    fields(expect["args"], f"{at}.args", ARGS)
    u32(expect["attempts"], f"{at}.attempts")
    flag(expect["cache_state_incoherent"], f"{at}.cache_state_incoherent")
    _lines(expect["prints"], f"{at}.prints")
    u64(expect.get("fn", 0), f"{at}.fn")
    for where, one in elements(expect.get("loaded", []), f"{at}.loaded", 0, 64):
        fields(one, where, ARGS)
    for name, value in mapping(expect.get("zeroed", {}), f"{at}.zeroed", (), ARGS).items():
        flag(value, f"{at}.zeroed.{name}")


def _operation(op: Any, path: str) -> str:
    array(op, path, 1, 3)
    name: str = one_of(op[0], f"{path}[0]", ("loading", "cancel", "data", "read_data", "read", "work"))
    wanted = {"loading": 2, "cancel": 2, "data": 3, "read_data": 1, "read": 2, "work": 1}[name]
    array(op, path, wanted, wanted)
    match name:
        case "loading" | "cancel":
            text(op[1], f"{path}[1]", 4096)
        case "read":
            one_of(op[1], f"{path}[1]", READABLE)
        case "data":
            integer(op[1], f"{path}[1]", 0, MAX_FILE)
            mapping(op[2], f"{path}[2]", ("header", "size"))
            _header(op[2]["header"], f"{path}[2].header")
            integer(op[2]["size"], f"{path}[2].size", 0, MAX_FILE)
    return name


def _sysfs(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "ops", "rules", "expect"))
    check_rules(v["rules"], f"{path}.rules")
    ops = [_operation(op, where) for where, op in elements(v["ops"], f"{path}.ops", 1, 1000)]
    if sum(op[2]["size"] + op[1] for op in v["ops"] if op[0] == "data") > 64 << 20:
        raise FormatError(f"{path}.ops", "writes more than 64 MiB")
    at = f"{path}.expect.ops"
    mapping(v["expect"], f"{path}.expect", ("ops",))
    for (where, one), name in zip(elements(v["expect"]["ops"], at, len(ops), len(ops)), ops, strict=True):
        result = mapping(one, where, () if name == "work" else ("ret",),
                         ("prints", "seamcalls", *(("text",) if name == "read" else ()),
                          *(("length", "sha256") if name == "read_data" else ())))
        _answer(result, where)


def _answer(result: dict[str, Any], path: str) -> None:
    """``ret``, ``text``, ``prints``, ``seamcalls``, ``length``, ``sha256``, as far as they are there."""
    if "ret" in result:
        _errno(result["ret"], f"{path}.ret")
    if "text" in result:
        text(result["text"], f"{path}.text", 4096)
    if "sha256" in result:
        digest(result["sha256"], f"{path}.sha256")
    u32(result.get("length", 0), f"{path}.length")
    _lines(result.get("prints", []), f"{path}.prints")
    calls = result.get("seamcalls", [])
    if isinstance(calls, list):
        for where, leaf in elements(calls, f"{path}.seamcalls", 0, MAX_LIST):
            u64(leaf, where)
    else:
        u32(calls, f"{path}.seamcalls")


def _attr(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "features0", "initialized", "info", "expect"), ("bug", "host_platform", "rules"))
    u64(v["features0"], f"{path}.features0")
    flag(v["initialized"], f"{path}.initialized")
    hex_bytes(v["info"], f"{path}.info", INFO_SIZE)
    for name in ("bug", "host_platform"):
        flag(v.get(name, False), f"{path}.{name}")
    check_rules(v.get("rules", []), f"{path}.rules")
    at = f"{path}.expect"
    names = ("version", "seamldr_version", "num_remaining_updates")
    expect = mapping(v["expect"], at, ("init", "updates_supported", *names))
    _errno(expect["init"], f"{at}.init")
    flag(expect["updates_supported"], f"{at}.updates_supported")
    for name in names:
        _answer(mapping(expect[name], f"{at}.{name}", ("ret", "seamcalls"), ("text", "prints")), f"{at}.{name}")


def _boot(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "expect"), ("keyid_partitioning", "msr_fault", "vmx_basic", "hibernation"))
    u64(v.get("keyid_partitioning", 0), f"{path}.keyid_partitioning")
    u64(v.get("vmx_basic", 0), f"{path}.vmx_basic")
    for name in ("msr_fault", "hibernation"):
        flag(v.get(name, False), f"{path}.{name}")
    at = f"{path}.expect"
    expect = mapping(v["expect"], at, ("tdx_host_platform", "seamret_invd_vmcs", "prints"))
    flag(expect["tdx_host_platform"], f"{at}.tdx_host_platform")
    flag(expect["seamret_invd_vmcs"], f"{at}.seamret_invd_vmcs")
    _lines(expect["prints"], f"{at}.prints")


def _enable(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "missing", "expect"))
    for where, one in elements(v["missing"], f"{path}.missing", 0, len(FEATURES)):
        one_of(one, where, FEATURES)
    _ended(v["expect"], f"{path}.expect")


def _ended(value: Any, path: str, *more: str) -> None:
    mapping(value, path, ("ret", "prints", *more))
    _errno(value["ret"], f"{path}.ret")
    _lines(value["prints"], f"{path}.prints")


def _metadata(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "rules", "expect"))
    check_rules(v["rules"], f"{path}.rules")
    _ended(v["expect"], f"{path}.expect", "fields")
    for where, id in elements(v["expect"]["fields"], f"{path}.expect.fields", 0, MAX_LIST):
        u64(id, where)


def _hotplug(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "cpus", "lp", "state", "packages", "rules", "ops", "expect"),
            ("online", "tds", "vmxon_err"))
    cpus = integer(v["cpus"], f"{path}.cpus", 1, MAX_CPUS)
    for name in ("online", "lp"):
        _cpus(v.get(name, []), f"{path}.{name}", cpus)
    _module_state(v["state"], f"{path}.state")
    for where, package in elements(v["packages"], f"{path}.packages", cpus, cpus):
        integer(package, where, 0, 7)
    flag(v.get("tds", False), f"{path}.tds")
    if v.get("vmxon_err") is not None and not isinstance(v["vmxon_err"], bool):
        _own_errno(-abs(integer(v["vmxon_err"], f"{path}.vmxon_err", -4095, 4095)), f"{path}.vmxon_err")
    check_rules(v["rules"], f"{path}.rules")
    ops = array(v["ops"], f"{path}.ops", 1, 1000)
    for where, op in elements(ops, f"{path}.ops"):
        array(op, where, 2, 2)
        one_of(op[0], f"{where}[0]", ("online", "offline"))
        _cpu(op[1], f"{where}[1]", cpus)
    at = f"{path}.expect"
    mapping(v["expect"], at, ("ops", "state"))
    _state_after(v["expect"]["state"], f"{at}.state")
    for where, one in elements(v["expect"]["ops"], f"{at}.ops", len(ops), len(ops)):
        if one is None:
            continue
        mapping(one, where, ("ret", "prints", "calls", "online", "vmx_refs", "lp_initialized", "incoherent"))
        _errno(one["ret"], f"{where}.ret")
        _lines(one["prints"], f"{where}.prints")
        for inner, call in elements(one["calls"], f"{where}.calls", 0, MAX_LIST):
            array(call, inner, 2, 2)
            _cpu(call[0], f"{inner}[0]", cpus)
            u64(call[1], f"{inner}[1]")
        for name in ("online", "lp_initialized", "incoherent"):
            _flags(one[name], f"{where}.{name}", cpus)
        for inner, refs in elements(one["vmx_refs"], f"{where}.vmx_refs", cpus, cpus):
            u32(refs, inner)


def _disable(v: dict[str, Any], path: str) -> None:
    mapping(v, path, ("id", "kind", "rules", "expect"))
    check_rules(v["rules"], f"{path}.rules")
    at = f"{path}.expect"
    mapping(v["expect"], at, ("calls", "leaf", "prints"))
    u32(v["expect"]["calls"], f"{at}.calls")
    u64(v["expect"]["leaf"], f"{at}.leaf")
    _lines(v["expect"]["prints"], f"{at}.prints")


KINDS: dict[str, Callable[[dict[str, Any], str], None]] = {
    "image": _image, "sweep": _sweep, "update": _update, "wrap": _wrap, "sysfs": _sysfs, "attr": _attr, "boot": _boot,
    "enable": _enable, "metadata": _metadata, "hotplug": _hotplug, "disable": _disable,
}
"""Kind -> the check of its values."""
