"""C and Rust headers: structures with offset assertions, MSRs, status codes, leaves, VMCS fields, the SEAMCALL tables.

Every name begins with a prefix (C) or stands in a module (Rust), and what a revision decides has the revision in its
name, so that headers of two revisions, or of two kits with different prefixes, can be included side by side.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator

from seamref.arch import exhaustive
from seamref.arch.exhaustive import INPUTS, STATES, Answer, seamcall_table
from seamref.arch.revision import REVISIONS
from seamref.export.declared import layouts
from seamref.export.tables import table
from seamref.layout import Array, Bits, FieldType, Int, Layout, Raw

PREFIX = "seamref"
_RUST_WORDS = {"type", "ref", "move", "use", "mod", "fn", "impl", "match", "in", "where", "as", "const"}
_C_WORDS = {"class", "default", "register", "int", "long", "short", "signed", "union", "struct", "enum", "auto"}


def word(text: str) -> str:
    """An identifier: what is no letter or digit becomes one underscore."""
    return "_".join(re.findall(r"[A-Za-z0-9]+", text))


def _lines_of(text: str) -> str:
    return " ".join(text.replace("*/", "* /").split())


# --- C


def c_header(prefix: str = PREFIX, made_by: str = "") -> str:
    """Structures, MSRs, status codes, leaves and VMCS fields for C11 and C++11."""
    p, big = prefix.lower(), prefix.upper()
    lines = [
        f"/* {made_by}. Structures and numbers of Intel TDX's SEAM loading chain. */",
        f"#ifndef {big}_H", f"#define {big}_H", "", "#include <stddef.h>", "#include <stdint.h>", "",
        "#if defined(__cplusplus)", f"#define {big}_ASSERT(what, says) static_assert(what, says)", "#else",
        f"#define {big}_ASSERT(what, says) _Static_assert(what, says)", "#endif", "", "#pragma pack(push, 1)", "",
    ]
    for layout in _ordered():
        lines += _c_struct(layout, p, big)
    lines += ["#pragma pack(pop)", ""]
    for title, rows in _numbers():
        lines += [f"/* {title} */", *(f"#define {big}_{name} {value}" + (f" /* {_lines_of(says)} */" if says else "")
                                      for name, value, says in _c_values(rows)), ""]
    return "\n".join([*lines, f"#endif /* {big}_H */", ""])


def _ordered() -> list[Layout]:
    """Every structure behind those that it holds."""
    known = layouts()
    done: dict[str, Layout] = {}

    def visit(layout: Layout) -> None:
        for field in layout.fields:
            kind: FieldType = field.type
            while isinstance(kind, Array):
                kind = kind.of
            if isinstance(kind, Layout):
                visit(known[kind.name])
        done.setdefault(layout.name, layout)

    for held in known.values():
        visit(held)
    return list(done.values())


def _c_struct(layout: Layout, p: str, big: str) -> list[str]:
    name = f"{p}_{word(layout.name).lower()}"
    lines = [f"/* {_lines_of(layout.name + (': ' + layout.doc if layout.doc else ''))} [{layout.source}] */",
             f"struct {name} {{"]
    for field in layout.fields:
        at = layout.offset_of(field.name)
        says = f" {_lines_of(field.meaning)}" if field.meaning else ""
        lines.append(f"\t{_c_field(field.type, _c_name(field.name), p)}; /* 0x{at:X}{says} */")
    lines += ["};", f'{big}_ASSERT(sizeof(struct {name}) == {layout.size}, "size of {layout.name}");']
    for field in layout.fields:
        at = layout.offset_of(field.name)
        lines.append(f"{big}_ASSERT(offsetof(struct {name}, {_c_name(field.name)}) == {at}, "
                     f'"{layout.name}.{field.name}");')
    whole = f"{big}_{word(layout.name).upper()}"
    for field in layout.fields:
        kind: FieldType = field.type
        if field.must_be and isinstance(kind, Int | Bits):
            lines.append(f"#define {whole}_{word(field.name)}_MUST_BE {_c_number(field.must_be)}")
        if isinstance(kind, Bits):
            for bit in kind.bits:
                lines.append(f"#define {whole}_{word(field.name)}_{word(bit.name)}_MASK {_c_number(bit.mask)}")
                lines.append(f"#define {whole}_{word(field.name)}_{word(bit.name)}_SHIFT {bit.low}")
    return [*lines, ""]


def _c_name(name: str) -> str:
    made = word(name)
    return f"{made}_" if made in _C_WORDS else made


def _c_field(kind: FieldType, name: str, p: str) -> str:
    match kind:
        case Int(size=size) | Bits(size=size):
            return f"uint{8 * size}_t {name}"
        case Raw(size=size):
            return f"uint8_t {name}[{size}]"
        case Array(of=of, count=count):
            return f"{_c_field(of, name, p)}[{count}]" if not isinstance(of, Array | Raw) else \
                _c_field(of, f"{name}[{count}]", p)
        case _:
            return f"struct {p}_{word(kind.name).lower()} {name}"


def _c_number(value: int) -> str:
    return f"0x{value:X}ULL" if value >> 32 else f"0x{value:X}U"


def _c_values(rows: Callable[[], Iterator[tuple[str, int, str, bool]]]) -> Iterator[tuple[str, str, str]]:
    for name, value, says, wide in rows():
        yield name.replace("::", "_"), f"0x{value:X}ULL" if wide else _c_number(value), says


# --- numbers, for both languages: module::NAME, value, meaning, whether a register of 64 bits holds it


def _numbers() -> tuple[tuple[str, Callable[[], Iterator[tuple[str, int, str, bool]]]], ...]:
    return (("MSRs", _msrs), ("status codes", _statuses), ("leaf numbers", _leaves), ("VMCS fields", _vmcs),
            ("numbers of outcomes", _outcomes))


def _msrs() -> Iterator[tuple[str, int, str, bool]]:
    for row in table("msrs").rows():
        name = f"MSR::{word(row['name'])}"
        yield name, int(row["address"], 16), row["meaning"], False
        for bit in row["bits"]:
            mask = (1 << bit["high"] - bit["low"] + 1) - 1 << bit["low"]
            yield f"{name}_{word(bit['name']).upper()}", mask, bit["meaning"], True


_SHORT = {"P-SEAMLDR": "SEAMLDR", "NP-SEAMLDR": "NP_SEAMLDR", "TDX module": "MODULE", "SEAMOPS": "SEAMOPS",
          "Linux": "LINUX", "TDX module, host side": "SEAMCALL", "TDX module, guest side": "TDCALL", "GETSEC": "GETSEC"}


def _statuses() -> Iterator[tuple[str, int, str, bool]]:
    for row in table("status-codes").rows():
        yield f"{_SHORT[row['component']]}_STATUS::{word(row['name'])}", int(row["value"], 16), row["meaning"], True


def _leaves() -> Iterator[tuple[str, int, str, bool]]:
    for row in table("leaves").rows():
        yield f"{_SHORT[row['component']]}_LEAF::{word(row['name'])}", int(row["number"], 16), row["meaning"], True


def _vmcs() -> Iterator[tuple[str, int, str, bool]]:
    for row in table("vmcs-fields").rows():
        if row["encoding"] is not None:
            yield f"VMCS::{row['name'].upper()}", int(row["encoding"], 16), "", False


_KINDS = {"exception vector": "VECTOR", "exit reason": "EXIT_REASON", "VM-instruction error": "VMX_ERROR",
          "TXT.ERRORCODE type": "TXT_ERROR", "errno": "ERRNO"}


def _outcomes() -> Iterator[tuple[str, int, str, bool]]:
    for row in table("numbers").rows():
        yield f"{_KINDS[row['kind']]}::{word(row['name'])}", row["value"], "", False


# --- SEAMCALL in every state, a header for each revision


def c_seamcall(revision: str, prefix: str = PREFIX) -> str:
    """What SEAMCALL does in each state, as a table for C (also ``seamcall-table --c``); every name has the revision."""
    return exhaustive.c_header(REVISIONS[revision], f"{prefix}_seamcall_{word(revision)}".lower())


def _seamcall(revision: str) -> tuple[list[Answer], list[str], list[str]]:
    answers = seamcall_table(REVISIONS[revision])
    return answers, sorted({a.outcome for a in answers}), sorted({a.clause for a in answers})


# --- Rust


def rust_header(made_by: str = "") -> str:
    """The same for Rust: one file to be included as a module, without dependencies and without std."""
    lines = [
        f"//! {made_by}. Structures and numbers of Intel TDX's SEAM loading chain.",
        "#![allow(dead_code, non_camel_case_types, non_snake_case, non_upper_case_globals, clippy::all)]", "",
    ]
    for layout in _ordered():
        lines += _rust_struct(layout)
    for _, rows in _numbers():
        modules: dict[str, list[str]] = {}
        for name, value, says, wide in rows():
            place, _, rest = name.partition("::")
            doc = f"    /// {_lines_of(says)}\n" if says else ""
            kind = "u64" if wide else "u32"
            modules.setdefault(place, []).append(f"{doc}    pub const {_rust_const(rest)}: {kind} = 0x{value:X};")
        for place, held in modules.items():
            lines += [f"pub mod {place.lower()} {{", *held, "}", ""]
    for revision in REVISIONS:
        lines += _rust_seamcall(revision)
    return "\n".join(lines)


def _rust_const(name: str) -> str:
    return f"_{name}" if name[:1].isdigit() else name


def _rust_struct(layout: Layout) -> list[str]:
    name = word(layout.name)
    lines = [f"/// {_lines_of(layout.doc or layout.name)} [{layout.source}]", "#[repr(C, packed)]",
             "#[derive(Clone, Copy)]", f"pub struct {name} {{"]
    for field in layout.fields:
        if field.meaning:
            lines.append(f"    /// {_lines_of(field.meaning)}")
        lines.append(f"    pub {_rust_name(field.name)}: {_rust_type(field.type)},")
    lines += ["}", f"const _: () = assert!(core::mem::size_of::<{name}>() == {layout.size});"]
    for field in layout.fields:
        at = layout.offset_of(field.name)
        lines.append(f"const _: () = assert!(core::mem::offset_of!({name}, {_rust_name(field.name)}) == {at});")
    consts = []
    for field in layout.fields:
        kind: FieldType = field.type
        if field.must_be and isinstance(kind, Int | Bits):
            consts.append(f"    pub const {word(field.name)}_MUST_BE: u{8 * kind.size} = 0x{field.must_be:X};")
        if isinstance(kind, Bits):
            for bit in kind.bits:
                consts.append(f"    pub const {word(field.name)}_{word(bit.name)}_MASK: u{8 * kind.size} = "
                              f"0x{bit.mask:X};")
    if consts:
        lines += [f"impl {name} {{", *consts, "}"]
    return [*lines, ""]


def _rust_name(name: str) -> str:
    made = word(name)
    return f"r#{made}" if made in _RUST_WORDS else made


def _rust_type(kind: FieldType) -> str:
    match kind:
        case Int(size=size) | Bits(size=size):
            return f"u{8 * size}"
        case Raw(size=size):
            return f"[u8; {size}]"
        case Array(of=of, count=count):
            return f"[{_rust_type(of)}; {count}]"
        case _:
            return word(kind.name)


def _rust_seamcall(revision: str) -> list[str]:
    answers, outcomes, clauses = _seamcall(revision)
    lines = [
        f"/// SEAMCALL in each state, revision {revision}.", f"pub mod seamcall_{word(revision).lower()} {{",
        *(f"    /// {given.meaning}\n    pub const IN_{word(given.name).upper()}: usize = {1 << given.bit:#x};"
          for given in INPUTS),
        f"    pub const STATES: usize = {STATES};",
        f"    pub const OUTCOMES: [&str; {len(outcomes)}] = [" + ", ".join(f'"{o}"' for o in outcomes) + "];",
        f"    pub const CLAUSES: [&str; {len(clauses)}] = [" + ", ".join(f'"{c}"' for c in clauses) + "];",
        "    /// Index into OUTCOMES and into CLAUSES of each state.", "    pub static TABLE: [(u8, u8); STATES] = [",
    ]
    for first in range(0, STATES, 16):
        row = (f"({outcomes.index(a.outcome)},{clauses.index(a.clause)})" for a in answers[first : first + 16])
        lines.append("        " + ",".join(row) + ",")
    return [*lines, "    ];", "}", ""]
