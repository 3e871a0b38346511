"""What an answer is: one reading of what was given, who says it, and what the text itself states.

A reading never goes beyond the text: every status, leaf, errno or MSR number it names is listed in ``stated`` together
with the piece of text that says so, and a test holds the two together for arbitrary input.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Any


class Kind(Enum):
    """What a reading means for a machine that does not come up."""

    GOOD = "shows that something works"
    INFO = "information"
    WARNING = "worth knowing, stops nothing by itself"
    CAUSE = "a cause"
    CONSEQUENCE = "follows from an earlier line"
    VALUE = "a number or a name, without a line around it"
    FOREIGN = "somebody else's words; what they mean here is not known"


@dataclass(frozen=True, slots=True)
class Stated:
    """One thing the text states: ``what`` (status, leaf, errno, msr), its value, and the piece of text."""

    what: str
    value: int
    text: str


@dataclass(frozen=True, slots=True)
class Explanation:
    """One reading of what was given; ``fields``: of a register's value, part by part."""

    what: str
    component: str
    clauses: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    recoverable: str = ""
    advice: str = ""
    kind: Kind = Kind.VALUE
    form: str = ""
    kernels: str = ""
    stated: tuple[Stated, ...] = ()
    fields: tuple[str, ...] = ()

    @property
    def known(self) -> bool:
        """Whether the text is understood, not only recognised as somebody else's."""
        return self.kind is not Kind.FOREIGN

    def text(self) -> str:
        """Several lines for a terminal."""
        lines = [self.what, f"  said by      {self.component}" + (f" ({self.kernels})" if self.kernels else "")]
        if self.clauses:
            shown = self.clauses[:8]
            more = f" and {len(self.clauses) - 8} more" if len(self.clauses) > 8 else ""
            lines.append(f"  clause       {', '.join(shown)}{more}")
        lines += [f"  {'fields' if i == 0 else '':12} {line}" for i, line in enumerate(self.fields)]
        lines += [f"  {'likely cause' if i == 0 else '':12} {cause}" for i, cause in enumerate(self.causes)]
        if self.recoverable:
            lines.append(f"  recoverable  {self.recoverable}")
        if self.advice:
            lines.append(f"  what now     {self.advice}")
        return "\n".join(lines)

    def to_json(self) -> dict[str, Any]:
        """Plain data; 64-bit values as hexadecimal text."""
        return {
            "what": self.what, "component": self.component, "kind": self.kind.name.lower(), "known": self.known,
            "form": self.form or None, "kernels": self.kernels or None, "clauses": list(self.clauses),
            "fields": list(self.fields),
            "causes": list(self.causes), "recoverable": self.recoverable or None, "advice": self.advice or None,
            "stated": [{"what": s.what, "value": str(s.value) if s.value < 0 else f"0x{s.value:x}", "text": s.text}
                       for s in self.stated],
        }
