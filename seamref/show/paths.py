"""The way through a check table: which rows were silent, which one decided, which were never asked."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from seamref.show.html import Html, cell, clause_ref, marked_up, scrolling, tone
from seamref.show.tables import result_text
from seamref.spec import Check, CheckTable

ASKED, DECIDED, UNREACHED, ABSENT = "silent", "decides", "not reached", "not in this revision"
_SIGN = {ASKED: ("✓", "green"), DECIDED: ("■", "red"), UNREACHED: ("·", "quiet"), ABSENT: ("–", "quiet")}


@dataclass(frozen=True, slots=True)
class Decision:
    """A path through a check table and what came of it."""

    table: CheckTable[Any, Any]
    walk: tuple[tuple[Check[Any, Any], bool], ...]
    outcome: str
    revision: Any = None
    answers: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        asked = {row.id: decided for row, decided in self.walk}
        reached_end = not any(asked.values())
        for row in self.table:
            if row.id in asked:
                self.answers[row.id] = DECIDED if asked[row.id] else ASKED
            elif row.applies is not None and not row.applies(self.revision):
                self.answers[row.id] = ABSENT
            else:
                self.answers[row.id] = ASKED if reached_end else UNREACHED

    @property
    def deciding(self) -> Check[Any, Any] | None:
        """The row that decided, ``None`` when all were silent."""
        return next((row for row, decided in self.walk if decided), None)


def decision_path(
    table: CheckTable[Any, Any], walk: Iterable[tuple[Check[Any, Any], bool]], outcome: Any = None,
    revision: Any = None, caption: str = "",
) -> Html:
    """The way through a check table: which rows were silent, which one decided, which were never asked.

    ``walk`` is what ``CheckTable.walk`` returns; ``outcome`` what the instruction came to.
    """
    path = tuple(walk)
    deciding = next((row for row, decided in path if decided), None)
    result = str(outcome) if outcome is not None else result_text(deciding.result) if deciding else "no row stops"
    decision = Decision(table, path, result, revision)
    rows, said = [], []
    for number, row in enumerate(table, start=1):
        answer = decision.answers[row.id]
        sign, colour = _SIGN[answer]
        faded = answer in (UNREACHED, ABSENT)
        style = ' style="opacity:.62"' if faded else ""
        then = marked_up(f"→ {result}") if answer == DECIDED else ""
        rows.append(
            f'<tr{style}{" class=seam-decides" if answer == DECIDED else ""}><td>{number}</td>'
            f'<td style="color:{tone(colour)};font-weight:700" aria-hidden="true">{sign}</td>'
            f"<td>{clause_ref(row.id)}</td><td>{cell(row.says)}</td><td>{answer} <b>{then}</b></td></tr>"
        )
        said.append(f"{number:2} {sign} {row.id}: {row.says} -- {answer}{' -> ' + result if then else ''}")
    if deciding is None:
        rows.append(
            f'<tr class="seam-decides"><td></td><td style="color:{tone("green")};font-weight:700">▶</td>'
            f"<td colspan=3>every row silent: <b>{marked_up(result)}</b></td></tr>"
        )
        said.append(f"   every row silent -> {result}")
    head = "".join(f'<th scope="col">{name}</th>' for name in ("#", "", "clause", "stops when", "answer"))
    words = caption or f"{table.name}: {result}" + (f", decided by `{deciding.id}`" if deciding else "")
    inner = (
        f'<table class="dataframe seam-table seam-path"><caption>{marked_up(words)}</caption>'
        f'<thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return Html(scrolling(inner, words.replace("`", "")), "\n".join([words.replace("`", ""), *said]))


__all__ = ["Decision", "decision_path"]
