"""What a file is, field by field: sigstructs, module images, TDX-BLOBs and ACMs, with each field's rule and verdict.

Everything shown comes from the layouts and tables that the machine itself uses.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

from seamref.arch.acm import ACM_HEADER_V0
from seamref.arch.software import P_SEAMLDR_PROGRAM, TDX_MODULE_PROGRAM
from seamref.errors import LayoutError, SeamrefError
from seamref.firmware.acm import NP_SEAMLDR_BUILD, Acm, parse_acm, signed_bytes
from seamref.host.image import FORMATS, V1, ImageRefused, check_image, format_of, format_problems, parse
from seamref.host.releases import RELEASES, platform_name
from seamref.host.verify import LOADER_2, read_reserved3
from seamref.layout import Bits, Buffer, Layout, Record
from seamref.mint import elf as images
from seamref.mint.keys import KEY, OTHER_KEY
from seamref.pseamldr import rsa
from seamref.pseamldr.api import Scenario, Status
from seamref.pseamldr.build import P_SEAMLDR_BUILD
from seamref.pseamldr.elf import ELF64_EHDR, ELF64_SHDR, MAGIC, PAGE, SHT_RELA, ElfFatal, ElfRefused, relocate
from seamref.pseamldr.manifest import INSTALL_MANIFEST, ManifestState
from seamref.pseamldr.sigstruct import (
    FORMER_KEY_HASHES,
    PRODUCTION_KEY_HASH,
    SEAM_SIGSTRUCT,
    image_hash,
    key_hash,
)
from seamref.pseamldr.sigstruct import (
    signed_bytes as sigstruct_signed_bytes,
)
from seamref.spec import Check
from seamref.tdxmodule.build import TDX_MODULE_BUILD

OK, BAD = "ok", "BAD"
LOAD_ADDRESS = 0xFFFF800000000000

KEYS = {
    PRODUCTION_KEY_HASH: "Intel's production key for TDX modules",
    **{held: f"a former Intel key ({name})" for name, held in FORMER_KEY_HASHES.items()},
    KEY.key_hash: "this book's test key KEY",
    OTHER_KEY.key_hash: "this book's test key OTHER_KEY",
}


@dataclass(frozen=True, slots=True)
class Line:
    """One field: where it is, its value as bytes say it, what that means, its rule, "ok", "BAD" or ""."""

    offset: int
    size: int
    name: str
    value: str
    decoded: str
    rule: str
    verdict: str


@dataclass(frozen=True, slots=True)
class Finding:
    """A statement about the file as a whole; ``good`` is ``None`` for mere information."""

    text: str
    good: bool | None
    clause: str = ""


@dataclass(slots=True)
class Section:
    """One structure of the file."""

    title: str
    lines: list[Line] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Inspection:
    """A file taken apart."""

    kind: str
    sections: tuple[Section, ...]

    @property
    def good(self) -> bool:
        """Whether no rule is broken."""
        return not any(
            line.verdict == BAD for s in self.sections for line in s.lines
        ) and not any(f.good is False for s in self.sections for f in s.findings)

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "kind": self.kind,
            "good": self.good,
            "sections": [
                {
                    "title": s.title,
                    "fields": [{name: getattr(line, name) for name in Line.__dataclass_fields__} for line in s.lines],
                    "findings": [{"text": f.text, "good": f.good, "clause": f.clause} for f in s.findings],
                }
                for s in self.sections
            ],
        }


Decoder = Callable[[Record, Any], str]


def describe(layout: Layout, data: Buffer, base: int = 0, decoders: dict[str, Decoder] | None = None) -> Section:
    """Every field of a structure with its rule and verdict."""
    record = layout.decode(data, base)
    bad = {problem.field.partition(".")[0] for problem in layout.problems(data, base)}
    lines = []
    for item in layout.fields:
        at = layout.offset_of(item.name)
        value = record[item.name]
        decoder = (decoders or {}).get(item.name)
        rules = [] if item.must_be is None else [f"must be {_number(item.must_be)}"]
        if isinstance(item.type, Bits):
            rules += [f"{bit.name} must be {bit.must_be}" for bit in item.type.bits if bit.must_be is not None]
        verdict = "" if not rules else BAD if item.name in bad else OK
        decoded = decoder(record, value) if decoder else item.meaning
        lines.append(Line(base + at, item.type.size, item.name, _shown(value), decoded, "; ".join(rules), verdict))
    return Section(layout.name, lines)


def _number(value: int) -> str:
    return "0" if value == 0 else f"0x{value:X}"


def _shown(value: Any) -> str:
    if isinstance(value, int):
        return f"0x{value:X}"
    if isinstance(value, bytes):
        return f"{len(value)} zero bytes" if not any(value) else value.hex()
    if isinstance(value, list):
        while value and value[-1] == 0:
            value = value[:-1]
        return " ".join(_shown(v) for v in value) or "all 0"
    return str(value)


def read_bcd_date(value: int) -> str:
    """0x20240129 is 2024-01-29; anything that is no date is said to be none."""
    found = re.fullmatch(r"(\d{4})(0[1-9]|1[0-2])(0[1-9]|[12]\d|3[01])", f"{value:08X}")
    return "-".join(found.groups()) if found else "no BCD date"


def _cpuids(record: Record, table: list[int]) -> str:
    count = min(record.cpuid_table_size, 255)
    return ", ".join(f"0x{v:X} {platform_name(v)}".strip() for v in table[:count]) or "empty"


def _hash_name(value: bytes) -> str:
    known = (f"TDX module {r.version}" for r in RELEASES.values() if r.seamhash == value.hex())
    return next(known, "no measured release")


def _plus_one(record: Record, value: int) -> str:
    return f"{value + 1} pages"


_SIGSTRUCT: dict[str, Decoder] = {
    "module_type": lambda r, v: "debug-signed" if v >> 31 else "production-signed",
    "date": lambda r, v: read_bcd_date(v),
    "modulus": lambda r, v: f"SHA-384 {key_hash(v).hex()[:16]}..., {KEYS.get(key_hash(v), 'an unknown signer')}",
    "seamhash": lambda r, v: _hash_name(v),
    "num_stack_pages": _plus_one, "num_tls_pages": _plus_one, "num_keyhole_pages": _plus_one,
    "num_global_data_pages": _plus_one, "num_handoff_pages": _plus_one,
    "cpuid_table": _cpuids,
}


def inspect_sigstruct(data: Buffer, base: int = 0) -> Section:
    """SEAM_SIGSTRUCT, as P-SEAMLDR 1.5 reads it, and its signature."""
    section = describe(SEAM_SIGSTRUCT, data, base, _SIGSTRUCT)
    held = bytes(data[base : base + SEAM_SIGSTRUCT.size])
    record = SEAM_SIGSTRUCT.decode(held)
    reading = read_reserved3(held)
    if reading:
        section.findings.append(Finding(f"reserved3 seems to hold {reading}; a P-SEAMLDR 1.5 refuses it, a 2.0 not",
                                        None, "INSTALL.manifest.reserved3"))
        section.lines = [replace(line, verdict="", rule=f"{line.rule} for a P-SEAMLDR 1.5") if line.name == "reserved3"
                         else line for line in section.lines]
    section.findings += [Finding(row.says, False, row.id)
                         for row in manifest_problems(held) if not (row.id in LOADER_2 and reading)]
    message = sigstruct_signed_bytes(held)
    good = rsa.verify(record.modulus, record.signature, message, exponent=record.exponent)
    strict = good and rsa.verify(record.modulus, record.signature, message, exponent=record.exponent, strict=True)
    text = "the signature verifies" if good else "the signature does not verify"
    if good and not strict:
        text += ", though it is not below the modulus (strict PKCS#1 refuses it)"
    section.findings.append(Finding(text, good, "INSTALL.manifest.signature"))
    return section


def manifest_problems(sigstruct: bytes, pages: int = 496) -> list[Check[ManifestState, Status]]:
    """Rows of P-SEAMLDR's manifest table that stop on any platform: signer, debug, SVN and CPUs are left open."""
    signer = key_hash(SEAM_SIGSTRUCT.peek(sigstruct, "modulus"))
    state = ManifestState(sigstruct, Scenario.LOAD, pages, 0, 0, True, (), signer)
    stopping = INSTALL_MANIFEST.all_stopping(state, state.revision)
    return [row for row in stopping if row.id != "INSTALL.manifest.signature"]


def inspect_module(data: Buffer, base: int = 0) -> Section:
    """A module image: ELF header, relocations, hash, and what this book knows of it."""
    image = bytes(data[base:])
    section = describe(ELF64_EHDR, data, base) if len(image) >= ELF64_EHDR.size else Section("ELF64_EHDR")
    section.title = "TDX module image"
    whole = len(image) % PAGE == 0
    section.findings.append(Finding(f"{len(image)} bytes, {-(-len(image) // PAGE)} pages" + (
        "" if whole else ": not whole pages"), whole))
    padded = image.ljust(-(-len(image) // PAGE) * PAGE, b"\0")
    digest = image_hash(padded)
    section.findings.append(Finding(f"SHA-384 {digest.hex()}: {_hash_name(digest)}", None, "SIG.seamhash"))
    outcome = relocate(bytearray(padded), LOAD_ADDRESS)
    if isinstance(outcome, ElfRefused):
        section.findings.append(Finding(f"{outcome.error.value} at 0x{outcome.at:X} refused after {outcome.count} "
                                        "relocations", False, outcome.clause))
    elif isinstance(outcome, ElfFatal):
        text = f"section header at 0x{outcome.at:X} ends in a divide error"
        section.findings.append(Finding(text, False, "ELF.divide"))
    else:
        section.findings.append(Finding(f"{outcome.count} relocations apply{_rela_note(padded)}", True, "ELF.relocate"))
    section.findings += _minted(padded)
    return section


def _rela_note(image: bytes) -> str:
    header = ELF64_EHDR.decode(image)
    at = [header.e_shoff + i * header.e_shentsize for i in range(header.e_shnum)]
    sections = [ELF64_SHDR.decode(image, a) for a in at if a + ELF64_SHDR.size <= len(image)]
    return f", in {sum(s.sh_type == SHT_RELA for s in sections)} of {len(sections)} sections"


def _minted(image: bytes) -> list[Finding]:
    """Build constants of an image made by this book."""
    program = images.stub_of(image)
    layout = {TDX_MODULE_PROGRAM: TDX_MODULE_BUILD, P_SEAMLDR_PROGRAM: P_SEAMLDR_BUILD}.get(program or b"")
    if layout is None:
        return [Finding("its entry point is no stub of this book: the machine cannot run it", None, "SEAM.fetch")]
    held = images.build_of(image, layout.size)
    if len(held) < layout.size:
        return [Finding(f"{layout.name} is cut", False)]
    constants = layout.decode(held).items()
    shown = ", ".join(f"{name} {_shown(value)}" for name, value in constants if not name.startswith("reserved"))
    return [Finding(f"{layout.name}: {shown}", None)]


def compare(sigstruct: Buffer, image: Buffer) -> list[Finding]:
    """What a sigstruct says about an image, held against the image."""
    record = SEAM_SIGSTRUCT.decode(sigstruct)
    same = image_hash(image) == record.seamhash
    text = "seamhash is the SHA-384 of the image" if same else "seamhash is not the SHA-384 of the image"
    findings = [Finding(text, same, "INSTALL.hash.seamhash")]
    entry = images.entry_of(image)
    if bytes(image[:4]) == MAGIC:
        findings.append(Finding(f"rip_offset 0x{record.rip_offset:X}, ELF entry point 0x{entry:X}"
                                + ("" if entry == record.rip_offset else " (nobody checks that they agree)"), None))
    anyhow = {row.id for row in manifest_problems(bytes(sigstruct))}
    findings += [Finding(row.says, False, row.id) for row in manifest_problems(bytes(sigstruct), len(image) // PAGE)
                 if row.id not in anyhow]
    return findings


def inspect_blob(data: Buffer) -> list[Section]:
    """A TDX-BLOB: header, the rules of its format, then what is inside."""
    version = format_of(data)
    layout, table = FORMATS[V1 if version is None else version]
    head = describe(layout, bytes(data[:PAGE]).ljust(PAGE, b"\0"))
    broken = {row.id for row in format_problems(data)}
    head.findings += [Finding(row.says, False, row.id) for row in table if row.id in broken]
    head.findings.append(Finding(f"{len(table) - len(broken)} of {len(table)} rules of the format hold", not broken))
    for kernel in ("v8", "merged"):
        outcome = check_image(data, kernel)
        why = f"not ({outcome.clause}: {outcome.errno}) " if isinstance(outcome, ImageRefused) else ""
        head.findings.append(Finding(f"kernel {kernel} would {why}take it", None, "IMAGE.check"))
    sections = [head]
    try:
        blob = parse(data, ignore_checksum=True)
    except SeamrefError as error:
        head.findings.append(Finding(f"cannot be taken apart: {error}", False))
        return sections
    if len(blob.area) >= SEAM_SIGSTRUCT.size:
        inner = inspect_sigstruct(data, PAGE)
        inner.findings += compare(blob.sigstruct, blob.module)
        sections.append(inner)
    sections.append(inspect_module(data, len(data) - len(blob.module)))
    return sections


def inspect_acm(data: Buffer) -> list[Section]:
    """An ACM: header, information table, lists, signature."""
    acm = parse_acm(data)
    head = describe(acm.header.layout, data, 0, {"Date": lambda r, v: read_bcd_date(v)})
    sections = [head]
    head.findings.append(_acm_signature(acm, data))
    at = 4 * (acm.header.HeaderLen + acm.header.ScratchSize)
    sections.append(describe(acm.info.layout, data, at))
    for record in (*acm.chipsets, *acm.processors):
        sections.append(describe(record.layout, record.encode()))
    if acm.build is not None:
        sections.append(describe(NP_SEAMLDR_BUILD, acm.build.encode()))
        image = acm.image
        if image:
            inner = inspect_module(image)
            inner.title = "embedded P-SEAMLDR image"
            sections.append(inner)
    return sections


def _acm_signature(acm: Acm, data: Buffer) -> Finding:
    if acm.header.HeaderVersion != 0x30000:
        return Finding(f"signature of header version 0x{acm.header.HeaderVersion:X} is not modelled", None)
    try:
        message = signed_bytes(data)
    except LayoutError as error:
        return Finding(str(error), False, "ACM.signed")
    good = rsa.verify(acm.header.RSAPubKey, acm.header.RSASig, message, strict=True)
    who = KEYS.get(key_hash(acm.header.RSAPubKey), "an unknown signer")
    return Finding(f"the signature {'verifies' if good else 'does not verify'}, by {who} (which bytes are signed is "
                   "chosen: no public document says)", good, "ACM.signed")


KINDS = ("sigstruct", "module", "blob", "acm")


def kind_of(data: Buffer) -> str:
    """What a file is, by its contents; a file that is none of them is an error that says what it starts with."""
    if format_of(data) is not None:
        return "blob"
    if bytes(data[:4]) == MAGIC:
        return "module"
    if len(data) in (SEAM_SIGSTRUCT.size, PAGE) or int.from_bytes(data[:4], "little") == 6:
        return "sigstruct"
    if len(data) >= ACM_HEADER_V0.size and all(
            ACM_HEADER_V0.peek(data, name) == value for name, value in (("ModuleType", 2), ("ModuleVendor", 0x8086))):
        return "acm"
    start = f"file starts {bytes(data[:16]).hex()}" if data else "file is empty"
    raise SeamrefError(f"{start}: no SEAM_SIGSTRUCT (2048 bytes), ELF image, TDX-BLOB or ACM")


def inspect_file(data: Buffer, kind: str | None = None) -> Inspection:
    """Take a file apart; ``kind`` is one of KINDS, by default what the file looks like."""
    match kind or kind_of(data):
        case "sigstruct":
            return Inspection("sigstruct", (inspect_sigstruct(data),))
        case "module":
            return Inspection("module", (inspect_module(data),))
        case "blob":
            return Inspection("blob", tuple(inspect_blob(data)))
        case "acm":
            return Inspection("acm", tuple(inspect_acm(data)))
        case other:
            raise SeamrefError(f"no kind of file {other!r}; there are {', '.join(KINDS)}")
