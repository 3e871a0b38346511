"""What a set of recorded vectors is.

A format's module subclasses :class:`VectorSet` and says five things: where a document's cases are, what a case is
called, what all cases share (checked once), whether one case is of the format (checked whole, before anything runs),
and how it is replayed.  Everything else is :mod:`~seamref.conformance.frame`'s:
reading files, ``--only``, counting, going on after a bad case.

Two errors are kept apart.  A :class:`~seamref.conformance.reading.FormatError` says that the *recording* is not one:
the case is counted as malformed, by the path of the bad value.  A :class:`Difference` says that *we* differ: which
step, which field, what came out here and what was recorded.  A question about something that is not modelled
(any other :class:`~seamref.errors.SeamrefError`) is a difference in the field ``modelled``.

To add a format: a module with a subclass, ``VECTORS = TheSubclass()``, and its row in ``registry``.  Skeleton::

    class Recorded(VectorSet[Shared]):
        cases_key = "cases"
        def label(self, value, path): return text(value["id"], f"{path}.id"), text(value["group"], f"{path}.group")
        def prepare(self, document, sparse): mapping(document, "", {"format", "cases"}); return Shared(...)
        def check(self, case, shared): c = mapping(case.value, case.path, {...}); u32(c["lp"], f"{case.path}.lp"); ...
        def replay(self, case, shared): return [Difference(case.id, 0, "rax", ours, recorded), ...]   # [] agrees

``check`` raises for the first value that is not of the format, and must leave nothing for ``replay`` to trip over:
``replay`` may raise a FormatError only for what needs work to find (a digest of a recipe), never a KeyError.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypeVar

from seamref.conformance.reading import shown

S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Difference:
    """One field that differs: case id, step (``None``: the case has none), the field's path, our value, theirs."""

    case: str
    step: int | None
    field: str
    ours: Any
    recorded: Any

    def __str__(self) -> str:
        where = "" if self.step is None else f"step {self.step}: "
        return f"{where}{self.field}: recorded {plain(self.recorded)}, ours {plain(self.ours)}"


def plain(value: Any) -> str:
    """A value of a difference in at most 100 characters."""
    if isinstance(value, str):
        made = value if value.isprintable() else repr(value)
        return made if len(made) <= 100 else made[:100] + "..."
    if isinstance(value, list | tuple | dict):
        made = repr(value)
        return made if len(made) <= 100 else made[:100] + "..."
    return shown(value, 100)


@dataclass(frozen=True, slots=True)
class Case:
    """One case of a document: its path (``cases[3]``), id, group, and what stands there."""

    path: str
    id: str
    group: str
    value: dict[str, Any]


class VectorSet(ABC, Generic[S]):
    """A format.  ``S`` is what the cases of one document share, made by ``prepare``."""

    cases_key: ClassVar[str] = "cases"

    @abstractmethod
    def prepare(self, document: dict[str, Any], sparse: bool) -> S:
        """Check everything of a document but its cases; what they share.  A FormatError here is about the whole file.
        ``sparse``: leave out hashes of every byte of large ranges where another digest decides the same."""

    @abstractmethod
    def label(self, value: dict[str, Any], path: str) -> tuple[str, str]:
        """Id (no two cases have the same) and group of the case that stands at ``path``."""

    @abstractmethod
    def check(self, case: Case, shared: S) -> None:
        """Whether every value of a case is of the format: a :class:`FormatError` with the path of the first that is
        not.  Also bounds what a case may ask for (processors, pages, bytes) before ``replay`` takes memory."""

    @abstractmethod
    def replay(self, case: Case, shared: S) -> list[Difference]:
        """Run a checked case on our machine: every difference found, or the first; none: it agrees."""

    def calls(self, case: Case) -> int:
        """How many calls of the recorded code a case makes, for the figures."""
        steps = case.value.get("steps")
        return len(steps) if isinstance(steps, list) else 1


__all__ = ["Case", "Difference", "VectorSet", "plain"]
