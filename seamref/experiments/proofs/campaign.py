"""What a campaign found, told as a table, as a picture's data, as HTML and as JUnit's XML.

An outcome is *expected* when it is what the scenario declares (no fault), or what an earlier campaign found (a
baseline); without either nothing is known to compare it with.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from typing import assert_never
from xml.sax.saxutils import escape as xml
from xml.sax.saxutils import quoteattr

from seamref.explore.campaign import SAYS, Outcome, Verdict
from seamref.explore.faults import FAULTS
from seamref.explore.scenarios import SCENARIOS


def surprise(outcome: Outcome, baseline: Mapping[str, Outcome] | None = None) -> str:
    """Why an outcome is not what was to be expected; "": it is, or nothing is known of it."""
    if not outcome.verdict.is_answer and outcome.verdict is not Verdict.REFUSED:
        return f"no answer: {outcome.verdict.value} ({outcome.why})"
    if baseline is not None:
        before = baseline.get(outcome.case.key)
        if before is None:
            return ""
        if (before.verdict, before.breaks) != (outcome.verdict, outcome.breaks):
            return f"was: {told(before)}"
        return ""
    if outcome.case.faults or outcome.case.scenario not in SCENARIOS or outcome.case.revision != "silicon":
        return ""
    declared = set(SCENARIOS[outcome.case.scenario].expected)
    found = set(outcome.breaks)
    # With another number of CPUs than the scenario's own a declared break need not be there.
    if found - declared:
        return f"breaks {', '.join(sorted(found - declared))}, which the scenario does not declare"
    return ""


def ordered(outcomes: Iterable[Outcome]) -> list[Outcome]:
    """By scenario and fault as they are declared, then by CPUs: processes finish in no order."""
    scenarios, faults = list(SCENARIOS), list(FAULTS)

    def place(outcome: Outcome) -> tuple[object, ...]:
        case = outcome.case
        known = case.scenario in SCENARIOS
        return (scenarios.index(case.scenario) if known else len(scenarios), case.cpus, case.revision,
                [faults.index(name) for name in case.faults if name in FAULTS], case.target)

    return sorted(outcomes, key=place)


def cost(outcomes: Iterable[Outcome]) -> dict[str, dict[str, tuple[str, ...]]]:
    """What each fault breaks that the same scenario does not break without it: by fault, by scenario and CPUs.

    Only where all of the scenario was looked at without the fault; and with it, unless something more was found.
    """
    every = list(outcomes)
    without = {(o.case.scenario, o.case.cpus): set(o.breaks) for o in every if not o.case.faults and not o.is_cut}
    found: dict[str, dict[str, tuple[str, ...]]] = {}
    for outcome in ordered(every):
        case = outcome.case
        if not case.faults or (case.scenario, case.cpus) not in without or not outcome.verdict.is_answer:
            continue
        more = tuple(name for name in outcome.breaks if name not in without[case.scenario, case.cpus])
        if outcome.is_cut and not more:
            continue
        found.setdefault("+".join(case.faults), {})[f"{case.scenario}, {case.cpus} CPUs"] = more
    return found


STANDING = ("cases", "hold", "break", "break, then cut", "vacuous", "no such world", "cut, nothing found",
            "lost or wrong", "not run")
"""What :func:`standing` counts."""


def standing(outcomes: Iterable[Outcome], cpus: int, faults: Sequence[str] | None = None) -> dict[str, int]:
    """How far the campaign over all scenarios has come with so many CPUs, under so many kinds of fault (default: all,
    and none): cases in all, and each kind of answer or lack of one."""
    kinds = ["", *FAULTS] if faults is None else list(faults)
    keys = {(name, fault) for name in SCENARIOS for fault in kinds}
    found = dict.fromkeys(STANDING, 0)
    found["cases"] = found["not run"] = len(keys)
    for outcome in outcomes:
        case = outcome.case
        if case.cpus != cpus or len(case.faults) > 1 or case.target or case.revision != "silicon" or (
                case.scenario, "".join(case.faults)) not in keys:
            continue
        found["not run"] -= 1
        match outcome.verdict:
            case Verdict.HOLDS:
                found["hold"] += 1
            case Verdict.BREAKS:
                found["break, then cut" if outcome.is_cut else "break"] += 1
            case Verdict.VACUOUS:
                found["vacuous"] += 1
            case Verdict.REFUSED:
                found["no such world"] += 1
            case Verdict.STATES | Verdict.TIMEOUT | Verdict.MEMORY:
                found["cut, nothing found"] += 1
            case Verdict.LIVELOCK | Verdict.ERROR | Verdict.LOST:
                found["lost or wrong"] += 1
            case _ as never:
                assert_never(never)
    return found


def told(outcome: Outcome) -> str:
    """An outcome in a few words."""
    return f"breaks {', '.join(outcome.breaks)}" if outcome.verdict is Verdict.BREAKS else outcome.verdict.value


def lines(outcomes: Sequence[Outcome], baseline: Mapping[str, Outcome] | None = None) -> list[str]:
    """The campaign as a table for a terminal: a line for each case, sums behind them."""
    shown = [("scenario", "revision", "fault", "where", "CPUs", "states", "CPU s", "verdict")]
    for outcome in outcomes:
        case = outcome.case
        verdict = told(outcome) + (f" ({outcome.why})" if not outcome.verdict.is_answer else "")
        unexpected = surprise(outcome, baseline)
        shown.append((case.scenario, case.revision, "+".join(case.faults) or "-", case.target or "-", str(case.cpus),
                      f"{outcome.states:,}", f"{outcome.seconds:.1f}", verdict + (f"  ! {unexpected}" if unexpected
                                                                                 else "")))
    widths = [max(len(row[column]) for row in shown) for column in range(7)]
    found = ["  ".join(cell.rjust(width) if 4 <= column <= 6 else cell.ljust(width)
                       for column, (cell, width) in enumerate(zip(row, widths, strict=False))) + f"  {row[7]}"
             for row in shown]
    return [*found, "", sums(outcomes)]


def sums(outcomes: Sequence[Outcome]) -> str:
    """How many cases, verdicts, states, and how much CPU time, in one line."""
    counts = Counter(outcome.verdict for outcome in outcomes)
    parts = ", ".join(f"{count} {verdict.value}" for verdict, count in
                      sorted(counts.items(), key=lambda item: list(Verdict).index(item[0])))
    states, seconds = sum(o.states for o in outcomes), sum(o.seconds for o in outcomes)
    return f"{len(outcomes)} cases: {parts or 'none'}; {states:,} states, {seconds:,.0f} CPU s"


def matrix(outcomes: Iterable[Outcome], cpus: int) -> dict[str, dict[str, tuple[Verdict, tuple[str, ...]]]]:
    """Scenario by fault: the gravest verdict over all placements, and everything that some placement breaks."""
    order = (Verdict.VACUOUS, Verdict.HOLDS, Verdict.BREAKS)
    found: dict[str, dict[str, tuple[Verdict, tuple[str, ...]]]] = {}
    for outcome in outcomes:
        if outcome.case.cpus != cpus:
            continue
        row = found.setdefault(outcome.case.scenario, {})
        fault = "+".join(outcome.case.faults) or "no fault"
        verdict, broken = row.get(fault, (Verdict.VACUOUS, ()))
        graver = [outcome.verdict] if not outcome.verdict.is_answer else []
        if not graver and verdict.is_answer:
            graver = [max(verdict, outcome.verdict, key=order.index)]
        row[fault] = (graver or [verdict])[0], tuple(sorted({*broken, *outcome.breaks}))
    return found


def to_html(outcomes: Sequence[Outcome], baseline: Mapping[str, Outcome] | None = None) -> str:
    """A page of its own: sums, what the verdicts mean, and every case; no script, no other file."""
    rows = []
    for outcome in outcomes:
        case, unexpected = outcome.case, surprise(outcome, baseline)
        cells = (case.scenario, case.revision, "+".join(case.faults) or "none", case.target or "everywhere", case.cpus,
                 f"{outcome.states:,}", outcome.depth, f"{outcome.seconds:.1f}", told(outcome),
                 "; ".join(f"{name} after {depth} steps: {wrong}" for name, depth, wrong in outcome.broken)
                 or outcome.why, unexpected)
        kind = "bad" if unexpected else outcome.verdict.value
        rows.append(f'<tr class="{kind}">' + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    heads = ("scenario", "revision", "fault", "where", "CPUs", "states", "depth", "CPU s", "verdict", "what is wrong",
             "not expected")
    means = "".join(f"<dt>{verdict.value}</dt><dd>{escape(says)}</dd>" for verdict, says in SAYS.items())
    return f"""<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>seamref campaign</title><style>
body {{ font: 14px/1.45 system-ui, sans-serif; margin: 2rem; color: #1b1f23; background: #fff }}
table {{ border-collapse: collapse }} th, td {{ border: 1px solid #c8ccd1; padding: .2rem .5rem; text-align: left;
vertical-align: top }} tr.holds td:nth-child(9) {{ background: #dff3e4 }}
tr.breaks td:nth-child(9) {{ background: #fde9c8 }}
tr.bad td {{ background: #fbd9d9 }} dt {{ font-weight: 600 }}
</style></head><body><h1>Campaign</h1><p>{escape(sums(outcomes))}</p>
<table><thead><tr>{"".join(f'<th scope="col">{head}</th>' for head in heads)}</tr></thead>
<tbody>{"".join(rows)}</tbody></table><h2>Verdicts</h2><dl>{means}</dl></body></html>
"""


def to_junit(outcomes: Sequence[Outcome], baseline: Mapping[str, Outcome] | None = None) -> str:
    """JUnit's XML for continuous integration: a suite for each scenario, a failure for what was not expected."""
    suites: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        suites.setdefault(outcome.case.scenario, []).append(outcome)
    parts = []
    for name, members in suites.items():
        tests = []
        bad = errors = skipped = 0
        for outcome in members:
            case, unexpected, inner = outcome.case, surprise(outcome, baseline), ""
            if outcome.verdict in (Verdict.ERROR, Verdict.LOST):
                errors += 1
                inner = f"<error message={quoteattr(_clean(unexpected))}/>"
            elif unexpected:
                bad += 1
                inner = f"<failure message={quoteattr(_clean(unexpected))}>{xml(_clean(told(outcome)))}</failure>"
            elif outcome.verdict in (Verdict.VACUOUS, Verdict.REFUSED):
                skipped += 1
                inner = f"<skipped message={quoteattr(_clean(outcome.why))}/>"
            title = case.key.partition("/")[2]
            tests.append(f"<testcase classname={quoteattr(name)} name={quoteattr(title)} "
                         f'time="{outcome.seconds:.3f}">{inner}<system-out>{xml(_clean(told(outcome)))}</system-out>'
                         "</testcase>")
        parts.append(f'<testsuite name={quoteattr(name)} tests="{len(members)}" failures="{bad}" errors="{errors}" '
                     f'skipped="{skipped}" time="{sum(o.seconds for o in members):.3f}">{"".join(tests)}</testsuite>')
    head = '<?xml version="1.0" encoding="UTF-8"?>\n<testsuites name="seamref campaign">'
    return f"{head}{''.join(parts)}</testsuites>\n"


def _clean(text: str) -> str:
    """Without the control characters that XML cannot hold."""
    return "".join(char if char >= " " or char in "\t\n" else "?" for char in text)


__all__ = ["STANDING", "cost", "lines", "matrix", "ordered", "standing", "sums", "surprise", "to_html", "to_junit",
           "told"]
