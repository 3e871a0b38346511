"""What ties a line of code to a sentence of a document.

A :class:`Clause` is one demand of a public document with an id that is used everywhere: it is the first
reference of a docstring, the anchor in the book, the row of the coverage report and part of a test's name.
A :class:`Check` is a clause with a predicate and a result; a :class:`CheckTable` is the ordered list of
conditions that a document prints.  The same table is executed by the machine, rendered by the book, walked by
the command line and counted by the coverage report (design, principle 3).

Three marks say how well a clause is known: *stated* by a document, *measured* by somebody on silicon or on
published source, or *chosen* here because nobody says.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeAlias, TypeVar

from seamref.errors import SeamrefError

P = ParamSpec("P")
T = TypeVar("T")
C = TypeVar("C")
R = TypeVar("R")


class Mark(Enum):
    """How a clause is known."""

    STATED = "stated"
    MEASURED = "measured"
    CHOSEN = "chosen"


STATED, MEASURED, CHOSEN = Mark.STATED, Mark.MEASURED, Mark.CHOSEN


@dataclass(frozen=True, slots=True)
class Source:
    """A public document, repository or message.

    ``tag`` is the short name that clauses use, ``title`` what a library would file it under, ``where`` a
    public location: a document number, a repository path or a Message-ID.  ``files`` is the address below which
    the files of a repository stand, at a tag where there is one.
    """

    tag: str
    title: str
    where: str
    files: str = ""

    @property
    def url(self) -> str:
        """Where a reader finds it on the web; empty where it is in no public place of its own."""
        if self.files:
            return self.files.replace("/blob/", "/tree/", 1).rstrip("/")
        for pattern, address in ADDRESSES:
            found = pattern.search(self.where)
            if found:
                return address.format(*found.groups())
        return ""


ADDRESSES: tuple[tuple[re.Pattern[str], str], ...] = (
    (re.compile(r"Message-ID ([^\s,;]+@[^\s,;]+)"), "https://lore.kernel.org/all/{0}/"),
    (re.compile(r"torvalds/linux commit ([0-9a-f]{8,40})"), "https://git.kernel.org/torvalds/c/{0}"),
    (re.compile(r"(?:github\.com/)?\b([\w-]+/[\w.-]+) issues? (\d+)"), "https://github.com/{0}/issues/{1}"),
    (re.compile(r"RFC (\d+)"), "https://www.rfc-editor.org/rfc/rfc{0}"),
    (re.compile(r"Intel document 325462"), "https://www.intel.com/sdm"),
    (re.compile(r"also served as (\d{6})"), "https://cdrdv2.intel.com/v1/dl/getContent/{0}"),
    (re.compile(r"Intel document (\d{6})"), "https://www.intel.com/content/www/us/en/search.html?ws=text#q={0}"),
)
"""How the places that ``where`` names are addressed on the web, the more particular first."""

FILE = re.compile(r"[\w./-]+\.(?:c|h|S|nasm|py|txt|json)\b")


@dataclass(frozen=True, slots=True)
class Clause:
    """One demand of one document.  ``source`` is "TAG section" as printed in tables."""

    id: str
    says: str
    source: str
    mark: Mark = Mark.STATED


SOURCES: dict[str, Source] = {}
CLAUSES: dict[str, Clause] = {}
IMPLEMENTED_BY: dict[str, list[Callable[..., Any]]] = {}
"""clause id -> the functions that carry it, in the order of import."""
TABLES: dict[str, CheckTable[Any, Any]] = {}
"""table name -> table, in the order of import."""
COVERAGE: dict[str, list[int]] = {}
"""clause id -> [times silent, times decided] for rows; [0, times executed] for clauses of functions."""


FOLDERS: dict[str, dict[str, str]] = {
    "LNX": {
        **{name: f"arch/x86/virt/vmx/tdx/{name}" for name in (
            "seamldr.c", "tdx.c", "tdx_global_metadata.c", "seamcall_internal.h", "seamcall.S", "tdxcall.S", "tdx.h")},
        "shared/tdx.h": "arch/x86/include/asm/shared/tdx.h",
        "tdx-host.c": "drivers/virt/coco/tdx-host/tdx-host.c",
        "sysfs_upload.c": "drivers/base/firmware_loader/sysfs_upload.c",
        "vmx.c": "arch/x86/kvm/vmx/vmx.c",
    },
    "PSL": {"pseamldr_api_defs.h": "include/pseamldr_api_defs.h"},
    "TDXM": {
        "tdx_locks.h": "src/common/helpers/tdx_locks.h",
        "tdx_seamret_to_vmm.S": "src/vmm_dispatcher/tdx_seamret_to_vmm.S",
        "tdx_seamcall_entry_point.S": "src/vmm_dispatcher/tdx_seamcall_entry_point.S",
    },
    "COR": {"seam.c": "Lib/seam.c"},
    "NPS10": {"SeamldrCore64.c": "Core/CommonSeamLdr64/SeamldrCore.c"},
}
"""Paths of the files that clauses name by their short name, below ``Source.files``."""


def source(tag: str, title: str, where: str, files: str = "") -> Source:
    """Register a public source under its tag."""
    if tag in SOURCES:
        raise SeamrefError(f"source {tag!r} is declared twice")
    SOURCES[tag] = made = Source(tag, title, where, files)
    return made


def cited(text: str) -> list[tuple[str, Source | None]]:
    """The parts of a clause's source, "TAG section; TAG section", each with the source that it cites."""
    parts = [part.strip() for part in text.split(";") if part.strip()]
    return [(part, SOURCES.get(part.split()[0].rstrip(",;"))) for part in parts]


def address(part: str) -> str:
    """Where one cited part, "TAG section", is on the web: the file it names, or its source; "" where neither is.

    A file named without its folder is the one whose folder another clause of the same source states.
    """
    words = part.split()
    found = SOURCES.get(words[0].rstrip(",;")) if words else None
    if found is None:
        return ""
    for pattern, place in ADDRESSES:
        own = pattern.search(part)
        if own:
            return place.format(*own.groups())
    commit = re.search(r"\bcommit ([0-9a-f]{8,40})", part)
    if commit and found.tag == "LNX":
        return f"https://git.kernel.org/torvalds/c/{commit.group(1)}"
    named = FILE.search(part.partition(" ")[2])
    if named and found.files:
        path = named.group(0)
        if path in FOLDERS.get(found.tag, {}):
            path = FOLDERS[found.tag][path]
        elif "/" not in path:
            path = _folders(found.tag).get(path, "")
        return found.files + path
    return found.url


def _folders(tag: str) -> dict[str, str]:
    """File name -> path, from every clause of a source that states the whole path; a name of two places is left out."""
    known: dict[str, str] = {}
    for held in CLAUSES.values():
        for part, of in cited(held.source):
            for path in FILE.findall(part) if of is not None and of.tag == tag else ():
                name = path.rpartition("/")[2]
                if "/" in path:
                    known[name] = path if known.get(name, path) == path else ""
    return known


def clause(id: str, says: str, source: str, mark: Mark = Mark.STATED) -> Clause:
    """Register a clause; ids are unique over the whole package."""
    if id in CLAUSES:
        raise SeamrefError(f"clause {id!r} is declared twice")
    tag = source.split()[0].rstrip(",;") if source else ""
    if tag not in SOURCES:
        raise SeamrefError(f"clause {id!r} cites {tag!r}, which is no declared source")
    CLAUSES[id] = made = Clause(id, says, source, mark)
    COVERAGE[id] = [0, 0]
    return made


def implements(
    id: str, says: str = "", source: str = "", mark: Mark = Mark.STATED
) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """Say that a function carries a clause, and count its executions.

    With ``says`` and ``source`` the clause is declared here; without, it must be declared already.
    """
    if says:
        clause(id, says, source, mark)
    elif id not in CLAUSES:
        raise SeamrefError(f"clause {id!r} is not declared")
    count = COVERAGE[id]

    def tie(function: Callable[P, T]) -> Callable[P, T]:
        @wraps(function)
        def counted(*args: P.args, **kwargs: P.kwargs) -> T:
            count[1] += 1
            return function(*args, **kwargs)

        IMPLEMENTED_BY.setdefault(id, []).append(counted)
        clauses = (*getattr(function, "__clauses__", ()), id)
        counted.__clauses__ = clauses  # type: ignore[attr-defined]
        return counted

    return tie


@dataclass(frozen=True, slots=True)
class Check(Generic[C, R]):
    """One row of an ordered list of conditions.

    ``id``       clause id, e.g. ``SEAMCALL.cpl``
    ``says``     the condition that stops, in the document's terms
    ``stops``    predicate over the context: true means this row decides
    ``result``   what it then results in (an outcome, a status)
    ``source``   "TAG section"
    ``applies``  predicate over the revision; ``None``: in every revision
    """

    id: str
    says: str
    stops: Callable[[C], bool]
    result: R
    source: str
    mark: Mark = Mark.STATED
    applies: Callable[[Any], bool] | None = None


_Counted: TypeAlias = tuple[tuple[Check[C, R], Callable[[C], bool], list[int], Callable[[Any], bool] | None], ...]


class CheckTable(Generic[C, R]):
    """Conditions in the order a document gives them.

    ``decide`` walks the rows and returns the first that stops, or ``None`` when all are silent.  Rows whose
    ``applies`` refuses the revision are skipped and not counted.  A revision that names this table in ``orders`` (an
    implementation that leaves rows out, or asks them in another order) has exactly the rows named there.
    """

    __slots__ = ("_counted", "_orders", "doc", "name", "observers", "rows")

    def __init__(self, name: str, rows: tuple[Check[C, R], ...], doc: str = "") -> None:
        if name in TABLES:
            raise SeamrefError(f"check table {name!r} is declared twice")
        self.name = name
        self.doc = doc
        self.rows = rows
        self.observers: list[Callable[[Check[C, R], bool], None]] = []
        for row in rows:
            clause(row.id, row.says, row.source, row.mark)
            IMPLEMENTED_BY.setdefault(row.id, []).append(row.stops)
        self._counted = tuple((row, row.stops, COVERAGE[row.id], row.applies) for row in rows)
        self._orders: dict[tuple[str, ...], _Counted[C, R]] = {}
        TABLES[name] = self

    def _order_of(self, revision: object) -> _Counted[C, R]:
        """The rows as a revision has them, each with its predicate, its counter and whom it applies to."""
        for name, ids in getattr(revision, "orders", ()):
            if name == self.name:
                if ids not in self._orders:
                    self._orders[ids] = tuple((self[id], self[id].stops, COVERAGE[id], None) for id in ids)
                return self._orders[ids]
        return self._counted

    def in_force(self, revision: object = None) -> tuple[Check[C, R], ...]:
        """The rows that a revision has, in its order."""
        return tuple(row for row, _, _, applies in self._order_of(revision) if applies is None or applies(revision))

    def decide(self, context: C, revision: object = None) -> Check[C, R] | None:
        """The first row that stops, in order; ``None`` when every row is silent."""
        observers = self.observers
        for row, stops, count, applies in self._order_of(revision) if revision is not None else self._counted:
            if applies is not None and not applies(revision):
                continue
            decided = stops(context)
            count[decided] += 1
            if observers:
                for observer in observers:
                    observer(row, decided)
            if decided:
                return row
        return None

    def walk(self, context: C, revision: object = None) -> list[tuple[Check[C, R], bool]]:
        """The path through the rows as ``decide`` takes it: every row asked, with its answer."""
        path: list[tuple[Check[C, R], bool]] = []
        self.observers.append(lambda row, decided: path.append((row, decided)))
        try:
            self.decide(context, revision)
        finally:
            self.observers.pop()
        return path

    def all_stopping(self, context: C, revision: object = None) -> list[Check[C, R]]:
        """Every row whose condition holds, the deciding one first (for tests of the order)."""
        return [row for row in self.in_force(revision) if row.stops(context)]

    def __iter__(self) -> Iterator[Check[C, R]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, id: str) -> Check[C, R]:
        for row in self.rows:
            if row.id == id:
                return row
        raise SeamrefError(f"check table {self.name} has no row {id!r}")


@dataclass(frozen=True, slots=True)
class CoverageRow:
    """What a run exercised of one clause: rows need both ways, functions need one execution."""

    clause: Clause
    is_row: bool
    silent: int
    decided: int

    @property
    def complete(self) -> bool:
        """Whether nothing of this clause was left out."""
        return self.decided > 0 and (self.silent > 0 or not self.is_row)


def coverage_report() -> list[CoverageRow]:
    """Coverage of every clause that a function or a check row carries, sorted by id."""
    row_ids = {row.id for table in TABLES.values() for row in table}
    return [
        CoverageRow(CLAUSES[id], id in row_ids, *COVERAGE[id])
        for id in sorted(CLAUSES)
        if id in IMPLEMENTED_BY
    ]


# --- the public sources that clauses cite -----------------------------------------------------------------

source("X1", "Intel 343754-001, Trust Domain CPU Architectural Extensions (2020)", "Intel document 343754-001US")
source("X2", "Intel 343754-002, Trust Domain CPU Architectural Extensions (May 2021)",
       "Intel document 343754-002US, also served as 733582")
source("X3", "Intel 343754-003, Trust Domain CPU Architectural Extensions (August 2026)", "Intel document 343754-003US")
source("SDM", "Intel 64 and IA-32 Architectures Software Developer's Manual", "Intel document 325462")
source("SC1", "S. Christopherson: SEAMCALL/TDCALL measured on SPR and EMR",
       "Message-ID 20251014231042.1399849-1-seanjc@google.com")
source("SC2", "S. Christopherson: the meaning of inSEAM", "Message-ID aO-oIRBhSIZo9mef@google.com")
source("SC3", "S. Christopherson: SEAMCALL and SEAMRET in a TD", "Message-ID aO-fqYO_vmwtCn8l@google.com")
source("SR1", "S. Christopherson: SEAMRET and the current VMCS", "Message-ID aYTFZv9Mf_FqWM_k@google.com")
source("SR2", "D. Hansen: SEAMRET in 343754-001 (reply to SR1, 5 Feb 2026)",
       "Message-ID aYTFZv9Mf_FqWM_k@google.com, reply")
source("SR3", "C. Gao: why SEAMRET evicts VMCSs", "Message-ID aXywVcqbXodADg4a@intel.com")
source("SR4", "C. Gao: IA32_VMX_BASIC[60], PATCH v9 09/23", "Message-ID 20260513151045.1420990-1-chao.gao@intel.com")
source("NMI", "S. Christopherson: NMI blocking after a TD exit", "Message-ID Z0T_iPdmtpjrc14q@google.com")
source("MCE", "Linux commit 7911f145de5f: MCG_STATUS.SEAM_NR", "torvalds/linux commit 7911f145de5f")
source("SMI", "KVM: TDX: Handle EXIT_REASON_OTHER_SMI", "torvalds/linux commit 6c441e4d6e72")
source("LNX", "Linux host support for TDX", "torvalds/linux arch/x86/virt/vmx/tdx/",
       "https://github.com/torvalds/linux/blob/v7.2-rc1/")
source("LNXE", "Linux: the early series in which the kernel launched NP-SEAMLDR", "intel/tdx arch/x86/kvm/boot/seam/",
       "https://github.com/intel/tdx/blob/20e6065339af/")
source("PSL", "P-SEAMLDR 1.5 source as published", "sslab-gatech/seam-loader seam-loader-main-1.5/p-seam-loader/",
       "https://github.com/sslab-gatech/seam-loader/blob/c0d6f0792098/seam-loader-main-1.5/p-seam-loader/")
source("PSL10", "P-SEAMLDR 1.0 source as published", "qizhangz/seam-loader p-seam-loader/",
       "https://github.com/qizhangz/seam-loader/blob/eadff76d36d2/p-seam-loader/")
source("PSLV", "P-SEAMLDR 1.5 source, recorded while running", "test vectors, format pseamldr-vectors/1")
source("NPS", "NP-SEAMLDR 1.5 source as published", "sslab-gatech/seam-loader seam-loader-main-1.5/np-seam-loader/",
       "https://github.com/sslab-gatech/seam-loader/blob/c0d6f0792098/seam-loader-main-1.5/np-seam-loader/seamldr_src/")
source("NPS10", "NP-SEAMLDR 1.0 source as published", "qizhangz/seam-loader np-seam-loader/",
       "https://github.com/qizhangz/seam-loader/blob/eadff76d36d2/np-seam-loader/seamldr_src/")
source("TDXM", "Intel TDX module source", "intel/tdx-module tag TDX_1.5.01",
       "https://github.com/intel/tdx-module/blob/TDX_1.5.01/")
source("TDXN", "Intel TDX module source, later releases", "niooss-ledger/tdx-module",
       "https://github.com/niooss-ledger/tdx-module/blob/f99767b40bc3/")
source("OTX", "OpenTDX: KVM emulation of SEAM and ENTERACCS", "sslab-gatech/tdx-linux arch/x86/kvm/vmx/seam.c",
       "https://github.com/sslab-gatech/tdx-linux/blob/23eaa38d26fd/")
source("COR", "Microsoft Cornelius TDX firmware emulator", "microsoft/Cornelius Lib/",
       "https://github.com/microsoft/Cornelius/blob/0e3ebb6f5a3f/")
source("HWL", "A. Bityutskiy, TDX Hardware Layers v0.5", "2026-06-03")
source("TME", "Intel 336907, Memory Encryption Technologies", "Intel document 336907-005/-007")
source("MLE", "Intel 315168, TXT MLE developer's guide", "Intel document 315168-017")
source("BIN", "Released TDX modules and their tools", "intel/tdx-module-binaries",
       "https://github.com/intel/tdx-module-binaries/blob/28a4baabc268/")
source("UEFI", "UEFI TDX module loader", "intel/tdx-module-loader",
       "https://github.com/intel/tdx-module-loader/blob/f9bef537ce0d/")
source("BASE", "TDX module base architecture specification", "Intel document 348549")
source("ISS29", "TDX module issue 29: which range register governs MSR 0x1402",
       "github.com/intel/confidential-computing.tdx.tdx-module issue 29")
source("ISS3", "TDX module issue 3: where does one get seamldr?",
       "github.com/intel/confidential-computing.tdx.tdx-module issue 3")
source("ISS4", "TDX module issue 4: can an untrusted BIOS load its own P-SEAM loader?",
       "github.com/intel/confidential-computing.tdx.tdx-module issue 4")
source("ISS25", "TDX module issue 25: which key encrypts the SEAM range",
       "github.com/intel/confidential-computing.tdx.tdx-module issue 25")
source("RFC8017", "PKCS #1: RSA Cryptography Specifications 2.2", "RFC 8017")
source("SEAMREF", "A decision of this book, where no source says", "book/processor, errata chapter")


@contextmanager
def deciding(prefixes: str | tuple[str, ...]) -> Iterator[list[Check[Any, Any]]]:
    """The rows that decide while the block runs, of the tables whose names begin so; the innermost first."""
    found: list[Check[Any, Any]] = []

    def watch(row: Check[Any, Any], decided: bool) -> None:
        if decided:
            found.append(row)

    tables = [table for name, table in TABLES.items() if name.startswith(prefixes)]
    for table in tables:
        table.observers.append(watch)
    try:
        yield found
    finally:
        for table in tables:
            table.observers.remove(watch)
