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

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import Enum
from functools import wraps
from typing import Any, Generic, ParamSpec, TypeVar

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
    public location: a document number, a repository path or a Message-ID.
    """

    tag: str
    title: str
    where: str


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


def source(tag: str, title: str, where: str) -> Source:
    """Register a public source under its tag."""
    if tag in SOURCES:
        raise SeamrefError(f"source {tag!r} is declared twice")
    SOURCES[tag] = made = Source(tag, title, where)
    return made


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


class CheckTable(Generic[C, R]):
    """Conditions in the order a document gives them.

    ``decide`` walks the rows and returns the first that stops, or ``None`` when all are silent.  Rows whose
    ``applies`` refuses the revision are skipped and not counted.
    """

    __slots__ = ("_counted", "doc", "name", "observers", "rows")

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
        TABLES[name] = self

    def decide(self, context: C, revision: object = None) -> Check[C, R] | None:
        """The first row that stops, in order; ``None`` when every row is silent."""
        observers = self.observers
        for row, stops, count, applies in self._counted:
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
        return [
            row
            for row in self.rows
            if (row.applies is None or row.applies(revision)) and row.stops(context)
        ]

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
source("SMI", "KVM: TDX: Handle EXIT_REASON_OTHER_SMI", "series \"TDX interrupts v2\" (linux-kvm)")
source("LNX", "Linux host support for TDX", "torvalds/linux arch/x86/virt/vmx/tdx/")
source("PSL", "P-SEAMLDR 1.5 source as published", "sslab-gatech/seam-loader seam-loader-main-1.5/p-seam-loader/")
source("PSL10", "P-SEAMLDR 1.0 source as published", "qizhangz/seam-loader p-seam-loader/")
source("PSLV", "P-SEAMLDR 1.5 source, recorded while running", "test vectors, format pseamldr-vectors/1")
source("NPS", "NP-SEAMLDR 1.5 source as published", "sslab-gatech/seam-loader seam-loader-main-1.5/np-seam-loader/")
source("NPS10", "NP-SEAMLDR 1.0 source as published", "qizhangz/seam-loader np-seam-loader/")
source("TDXM", "Intel TDX module source", "intel/tdx-module tag TDX_1.5.01")
source("TDXN", "Intel TDX module source, later releases", "niooss-ledger/tdx-module")
source("OTX", "OpenTDX: KVM emulation of SEAM and ENTERACCS", "sslab-gatech/tdx-linux arch/x86/kvm/vmx/seam.c")
source("COR", "Microsoft Cornelius TDX firmware emulator", "seam.c, vm.c, emulate.c")
source("HWL", "A. Bityutskiy, TDX Hardware Layers v0.5", "2026-06-03")
source("TME", "Intel 336907, Memory Encryption Technologies", "Intel document 336907-005/-007")
source("MLE", "Intel 315168, TXT MLE developer's guide", "Intel document 315168-017")
source("BIN", "Released TDX modules and their tools", "intel/tdx-module-binaries")
source("UEFI", "UEFI TDX module loader", "intel/tdx-module-loader")
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
