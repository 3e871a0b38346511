"""Which release is this?  An MRSEAM, a TEE_TCB_SVN, an SVN, a version, a build date or number, or a file.

The answer comes from the table of releases (:mod:`seamref.host.releases`, each row with its source) or is "not known":
a value that no row holds is never matched to the nearest one.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from seamref.errors import SeamrefError
from seamref.host.releases import PUBLISHED, RELEASES, Published, Release
from seamref.pseamldr.api import PAGE
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, image_hash

MRSEAM_DIGITS, TCB_SVN_DIGITS, SVN_LIMIT = 96, 32, 1 << 16
MEASURED_SOURCE = "measured: the published files"


@dataclass(frozen=True, slots=True)
class Match:
    """A release that fits what was given, with all that is known of it."""

    version: str
    measured: Release | None
    published: Published | None

    @property
    def seamsvn(self) -> int:
        """Major SVN in the high byte; 0 when not known."""
        return (self.measured.seamsvn if self.measured else 0) or (self.published.seamsvn if self.published else 0)

    @property
    def mrseam(self) -> str:
        """SHA-384 in hex; "" when not known."""
        return (self.measured.seamhash if self.measured else "") or (self.published.mrseam if self.published else "")

    @property
    def handoff(self) -> str:
        """Handoff versions, or that they are not known."""
        held = self.measured
        if held is None or not held.measured:
            return "not known"
        return f"{held.min_update_hv} to {held.module_hv}" + (", NO_DOWNGRADE" if held.no_downgrade else "")

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the figures are from."""
        return tuple(s for s in (MEASURED_SOURCE if self.measured else "", self.published.source if self.published
                                 else "") if s)

    def lines(self) -> list[str]:
        """For a terminal."""
        p = self.published
        svn = f"0x{self.seamsvn:04X} ({self.seamsvn >> 8}.{self.seamsvn & 255})" if self.seamsvn else "not known"
        date = str(p.build_date) if p and p.build_date else "not known"
        num = str(p.build_num) if p and p.build_num else "not known"
        rows = [("release", self.version), ("SEAMSVN", svn), ("build", f"date {date}, number {num}"),
                ("handoff", f"versions {self.handoff}" if self.handoff != "not known" else "versions not known"),
                ("MRSEAM", self.mrseam or "not known")]
        if p and p.platform:
            rows.append(("platforms", p.platform))
        rows += [("source", source) for source in self.sources]
        return [f"  {name:<10} {text}" for name, text in rows]

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        p = self.published
        return {"version": self.version, "seamsvn": f"0x{self.seamsvn:04x}" if self.seamsvn else None,
                "mrseam": self.mrseam or None, "handoff": None if self.handoff == "not known" else self.handoff,
                "build_date": (p.build_date or None) if p else None, "build_num": (p.build_num or None) if p else None,
                "platforms": (p.platform or None) if p else None, "sources": list(self.sources)}


@dataclass(frozen=True, slots=True)
class Identity:
    """What was given, as it was understood, and the releases that fit; none: not known."""

    given: str
    matches: tuple[Match, ...]
    notes: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether some release fits."""
        return bool(self.matches)

    @property
    def short(self) -> str:
        """A few words: the releases, or "not known"."""
        return " or ".join(m.version for m in self.matches) if self.matches else "not known"

    def text(self) -> str:
        """Several lines for a terminal."""
        head = f"{self.given}: {self.short}" + ("" if self.known else " (no release of the table has it)")
        return "\n".join([head, *(line for m in self.matches for line in m.lines()),
                          *(f"  note       {note}" for note in self.notes)])

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"given": self.given, "known": self.known, "matches": [m.to_json() for m in self.matches],
                "notes": list(self.notes)}


def match_of(version: str) -> Match:
    """Everything that is known of one release."""
    return Match(version, RELEASES.get(version), PUBLISHED.get(version))


def everything() -> list[Match]:
    """All releases, in the order of their versions."""
    versions = sorted({*RELEASES, *PUBLISHED}, key=lambda v: tuple(map(int, v.split("."))))
    return [match_of(version) for version in versions]


# --- what can be given ----------------------------------------------------------------------------------------


def by_mrseam(digest: str) -> Identity:
    """SHA-384 of the module, 96 hex digits."""
    found = tuple(m for m in everything() if m.mrseam == digest.lower())
    notes = () if found else ("a module that Intel has not published, a debug build, or a newer one than this table",)
    return Identity(f"MRSEAM {digest[:16].lower()}...", found, notes)


def by_svn(svn: int, given: str = "") -> Identity:
    """SEAMSVN: major SVN in the high byte.  Several releases can share one."""
    found = tuple(m for m in everything() if m.seamsvn == svn)
    shared = ("several releases have this SVN: it does not tell them apart",) if len(found) > 1 else ()
    return Identity(given or f"SEAMSVN 0x{svn:04X} ({svn >> 8}.{svn & 255})", found, shared)


def by_tcb_svn(data: bytes) -> Identity:
    """TEE_TCB_SVN, 16 bytes: minor SVN, major SVN, SEAM last patch SVN, then zeros."""
    minor, major, patch = data[:3]
    given = f"TEE_TCB_SVN: module SVN {major}.{minor}, last patch SVN {patch}"
    found = by_svn(major << 8 | minor, given)
    rest = ("bytes 3 to 15 are not 0: no TEE_TCB_SVN of a known generation has that",) if any(data[3:]) else ()
    return Identity(found.given, () if rest else found.matches, (*found.notes, *rest))


def by_version(text: str) -> Identity:
    """major.minor.update, with or without the build as a fourth part."""
    parts = [int(part) for part in text.split(".")]
    version = f"{parts[0]}.{parts[1]}.{parts[2]:02}"
    known = version in RELEASES or version in PUBLISHED
    notes = ("the fourth part is a build that the table does not have",) if len(parts) == 4 and parts[3] else ()
    return Identity(f"version {text}", (match_of(version),) if known else (), notes)


def by_build(date: int | None, num: int | None, major: int | None = None, minor: int | None = None) -> Identity:
    """Build date (decimal YYYYMMDD) and number as the module reports them; either may be missing.

    A number names one release; a date alone is taken from the notes or from the sigstruct.
    """
    given = ", ".join(filter(None, (None if date is None else f"build_date {date}",
                                    None if num is None else f"build_num {num}")))
    found = []
    for m in everything():
        dates = {m.published.build_date if m.published else 0, m.measured.date if m.measured else 0} - {0}
        number = m.published.build_num if m.published else 0
        if (num is not None and number and number != num) or (date is not None and dates and date not in dates):
            continue
        if (num is not None and number == num) or ((num is None or not number) and date is not None and date in dates):
            found.append(m)
    notes = []
    if not found and (major, minor) == (1, 0):
        notes.append("major 1, minor 0: a module of line 1.0, which the table does not list (too old for kernels since "
                     "6.5)")
    return Identity(given, tuple(found), tuple(notes))


def read_date(text: str) -> int:
    """A build date: decimal YYYYMMDD, or the same number in hexadecimal (0x134fed5, 0134fed5)."""
    if re.fullmatch(r"20\d{6}", text):
        return int(text)
    return int(text, 16)


def read_num(text: str) -> int:
    """A build number: decimal, or hexadecimal with 0x."""
    return int(text, 16) if text.lower().startswith("0x") else int(text)


_BUILD = re.compile(r"build[_ ]?(?:date|num(?:ber)?)", re.IGNORECASE)
_DATE = re.compile(r"build[_ ]date:?=? ?(0x[0-9a-f]{1,8}|[0-9a-f]{8})\b", re.IGNORECASE)
_NUM = re.compile(r"build[_ ]num(?:ber)?:?=? ?(0x[0-9a-f]{1,4}|\d{1,5})\b", re.IGNORECASE)
_MAJOR = re.compile(r"major(?:_version)?:?=? ?(0x[0-9a-f]{1,4}|\d{1,5})\b", re.IGNORECASE)
_MINOR = re.compile(r"minor(?:_version)?:?=? ?(0x[0-9a-f]{1,4}|\d{1,5})\b", re.IGNORECASE)
_VERSION = re.compile(r"(?:version |module )?v?(\d{1,3}\.\d{1,3}\.\d{1,3}(?:\.\d{1,5})?)\Z", re.IGNORECASE)
_LABEL = re.compile(r"(?:mr_?seam|seamhash|tee_?tcb_?svn|seamsvn|svn)\s*(?:\(hash\))?\s*[:=]?\s*", re.IGNORECASE)


def parse_build(text: str) -> Identity | None:
    """A line with build_date and build_num."""
    if not _BUILD.search(text):
        return None
    date, num, major, minor = (pattern.search(text) for pattern in (_DATE, _NUM, _MAJOR, _MINOR))
    if date is None and num is None:
        return None
    return by_build(read_date(date[1]) if date else None, read_num(num[1]) if num else None,
                    read_num(major[1]) if major else None, read_num(minor[1]) if minor else None)


def identify_text(text: str) -> Identity | None:
    """A value as people paste it; ``None`` when it is of no kind that can be identified."""
    text = text.strip()[:4096]
    if (found := parse_build(text)) is not None:
        return found
    if version := _VERSION.match(text):
        return by_version(version[1])
    label = _LABEL.match(text)
    bare = text[label.end():] if label else text
    digits = re.sub(r"[\s:_,]", "", bare).removeprefix("0x").removeprefix("0X")
    if re.fullmatch(r"[0-9a-fA-F]+", digits):
        if len(digits) == MRSEAM_DIGITS:
            return by_mrseam(digits)
        if len(digits) == TCB_SVN_DIGITS:
            return by_tcb_svn(bytes.fromhex(digits))
    if re.fullmatch(r"0[xX][0-9a-fA-F]{1,4}|\d{1,5}", bare) and int(bare,
                                                                    0 if bare[:2].lower() == "0x" else 10) < SVN_LIMIT:
        return by_svn(int(bare, 0 if bare[:2].lower() == "0x" else 10))
    if re.fullmatch(r"20\d{6}", bare):
        return by_build(int(bare), None)
    return None


def identify_bytes(data: bytes) -> Identity:
    """A file: TDX-BLOB, sigstruct or module image, by the hash that P-SEAMLDR measures."""
    from seamref.host import image as images
    from seamref.host.inspection import kind_of

    match kind_of(data):
        case "blob":
            blob = images.parse(data, ignore_checksum=True)
            return _sigstruct(blob.sigstruct, image_hash(_pages(blob.module)).hex())
        case "sigstruct":
            return _sigstruct(data, None)
        case "module":
            return by_mrseam(image_hash(_pages(data)).hex())
        case kind:
            raise SeamrefError(f"a file of kind {kind} has no module in it")


def _pages(data: bytes) -> bytes:
    return bytes(data).ljust(-(-len(data) // PAGE) * PAGE, b"\0")


def _sigstruct(data: bytes, measured: str | None) -> Identity:
    record = SEAM_SIGSTRUCT.decode(data)
    named: str = record.seamhash.hex()
    found = by_mrseam(measured or named)
    svn = record.seam_major_svn << 8 | record.seam_minor_svn
    notes = [f"the sigstruct says SEAMSVN 0x{svn:04X}, date {record.date:08X}, handoff versions "
             f"{record.min_update_hv} to {record.module_hv}"]
    if measured is not None and measured != named:
        notes.append("the image is not the one that the sigstruct was made for: seamhash differs")
    if measured is None:
        notes.append("by the seamhash that the sigstruct names; whether it is genuine: python -m seamref inspect")
    return Identity(found.given, found.matches, (*found.notes, *notes))
