"""Which module replays which format, and how a document of it is known.

A row names a module of this package.  The module holds one object ``VECTORS``, a
:class:`~seamref.conformance.vectorset.VectorSet`; it is imported when a document of its format is met, not before.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from seamref.conformance.reading import FormatError, shown

if TYPE_CHECKING:
    from seamref.conformance.vectorset import VectorSet


@dataclass(frozen=True, slots=True)
class Format:
    """A vector format: the module that replays it, its ``format`` value (``None``: none is written), its keys.

    ``recorded``   what ran when the project's own recordings were made
    ``cases``      how many cases those have (tests/conformance counts them)
    ``uncovered``  what no case shows, in words
    """

    module: str
    title: str
    format: str | None
    keys: tuple[str, ...]
    recorded: str
    cases: int
    uncovered: tuple[str, ...]

    def knows(self, document: Mapping[str, Any]) -> bool:
        """Whether a document is of this format, by its ``format`` or, where it has none, by its keys."""
        if "format" in document or self.format is not None:
            return self.format is not None and document.get("format") == self.format
        return all(key in document for key in self.keys)

    @property
    def is_replayed(self) -> bool:
        """Whether the module is there."""
        return find_spec(f"seamref.conformance.{self.module}") is not None

    def vectors(self) -> VectorSet[Any]:
        """The module's VECTORS."""
        found: VectorSet[Any] = import_module(f"seamref.conformance.{self.module}").VECTORS
        return found


FORMATS = (
    Format("pseamldr", "P-SEAMLDR", "pseamldr-vectors/1", ("sigstructs", "images", "cases"),
           "the published P-SEAMLDR 1.5 source, with simulated privileged instructions", 1245, (
               "whether SEAMCALL enters at all: calls were recorded also where P-SEAMLDR was not ready",
               "what the processor does after a fatal error", "P-SEAMLDR 1.0",
           )),
    Format("npseamldr", "NP-SEAMLDR", "npseamldr-vectors/1", ("images", "cases"),
           "the published NP-SEAMLDR 1.5 source; its assembly entry and exit transcribed by hand", 362, (
               "GETSEC itself", "the module's relocation of itself", "TXT commands that never answer",
               "two modules at once", "NP-SEAMLDR 1.0",
           )),
    Format("tdxmodule", "TDX module", None, ("platform", "prefixes", "cases"),
           "the published TDX module sources 1.5.01 and 1.5.05, with simulated hardware", 1792, (
               "two processors inside at the same instant: contention was put there by hand",
               "host memory through a second shared KeyID", "TD_UUID, keys and other random values",
           )),
    Format("linux", "Linux host", "seamref-linux-host-vectors", ("vectors",),
           "the merged Linux host code (v7.2-rc1), with stubs for kernel services", 1536, (
               "the kernel's device core around the upload directory",
               "texts of `loading` that older and newer kernels read differently",
               "allocation of PAMT, memory hot-plug",
           )),
)


@dataclass(frozen=True, slots=True)
class Foreign:
    """Somebody else's vectors that lie beside recordings: known by their keys, and replayed by nobody here."""

    title: str
    keys: tuple[str, ...]
    why: str
    formats: tuple[str, ...] = ()

    def knows(self, document: Mapping[str, Any]) -> bool:
        """Whether a document is one of these."""
        if "format" in document:
            return document["format"] in self.formats
        return bool(self.keys) and all(key in document for key in self.keys)


FOREIGN = (
    Foreign("JSON Schema", ("$schema",), "what a set of the kit looks like, no recording"),
    Foreign("the kit of seamref export", (), "other sets, tables and clauses; consume asks another implementation",
            ("seamref-kit/1", "seamref-vectors/1", "seamref-table/1", "seamref-clauses/1")),
    Foreign("Wycheproof", ("algorithm", "numberOfTests", "testGroups"),
            "signatures for a verifier, no recording; tests/pseamldr/test_rsa.py tries the verifier with them"),
)


def foreign(document: Mapping[str, Any]) -> Foreign | None:
    """Whose vectors a document is, when it is known to be none of ours."""
    return next((row for row in FOREIGN if row.knows(document)), None)


def recognise(document: Mapping[str, Any]) -> Format:
    """The format of a document; an unknown one is an error that lists the known."""
    for row in FORMATS:
        if row.knows(document):
            return row
    known = ", ".join(row.format or f"keys {'/'.join(row.keys)}" for row in FORMATS)
    found = f"format {shown(document['format'])}" if "format" in document else "a document without format"
    raise FormatError("", f"{found} is none of the known: {known}")


def replayed() -> Iterator[Format]:
    """The formats whose modules are there."""
    return (row for row in FORMATS if row.is_replayed)
