"""Where documents disagree, run both: one small experiment for each knob, on either side of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

from seamref.arch import lab, msr, smx
from seamref.arch.acm import ACM_HEADER
from seamref.arch.errata import BY_NUMBER, ERRATA, Erratum
from seamref.arch.events import EventKind, raise_event
from seamref.arch.exhaustive import INPUTS, facts_of, is_reachable, seamcall_table
from seamref.arch.lp import Activity
from seamref.arch.outcome import Fault
from seamref.arch.pconfig import pconfig
from seamref.arch.platform import Platform
from seamref.arch.revision import SILICON, Revision, SeamextendGate, SeamretVmcs
from seamref.arch.seam import seamcall
from seamref.arch.seamops import SeamopsLeaf, make_report, seamops
from seamref.arch.sgx import everifyreport2
from seamref.arch.software import call
from seamref.arch.structures import MKTME_KEY_PROGRAM, SEAMEXTEND
from seamref.arch.vmcs import get
from seamref.arch.vmx import current
from seamref.show.html import Html, Id, marked_up, scrolling
from seamref.show.processor import compressed, fact_words
from seamref.show.tables import Table

LOADER = 1 << 63


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An experiment whose answer depends on one knob: ``what`` is done, and the knob's value for the other reading."""

    number: int
    what: str
    other: Any
    run: Callable[[Revision], str]

    @property
    def erratum(self) -> Erratum:
        """The disagreement it shows."""
        return BY_NUMBER[self.number]

    def answers(self, base: Revision = SILICON) -> tuple[str, str]:
        """What happens by default, and with the other reading."""
        turned = replace(base, name=f"{base.name}, turned", **{self.erratum.knob: self.other})
        return self.run(base), self.run(turned)


def _said(outcome: Any) -> str:
    clause = getattr(outcome, "clause", "")
    return f"{outcome} ({clause})" if clause else str(outcome)


def _in_SEAM(revision: Revision, rax: int = 0) -> Platform:
    platform = lab.platform(revision=revision)
    platform.lp(0).rax = rax
    seamcall(platform, 0)
    return platform


def _guest_user(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.non_root, lp.cpl = True, 3
    return _said(seamcall(platform, 0))


def _td(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.inSEAM = lp.non_root = True
    return _said(seamcall(platform, 0))


def _p_seamldr_call(revision: Revision) -> str:
    return str(call(lab.platform(revision=revision), 0, rax=LOADER))


def _cached_after_module_call(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    call(platform, 0, rax=0)
    where = lab.SEAMRR.base + 0x1000
    return "transfer VMCS still cached" if where in platform.lp(0).vmcs_cache else "transfer VMCS written back"


def _mutex_after_failure(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lab.set_ready(platform, p_seamldr=False)
    platform.lp(0).rax = LOADER
    outcome = seamcall(platform, 0)
    held = platform.P_SEAMLDR_MUTEX
    return f"{outcome}, mutex {'free' if held is None else 'held for ever'}"


def _acm_toggles_valid(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.ACMODEFLAG = True
    return _said(msr.wrmsr(platform, 0, msr.SEAMRR_MASK, platform.msr_value(lp, msr.SEAMRR_MASK) & ~(1 << 11)))


def _unlocked(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    platform.lp(0).msrs[msr.SEAMRR_MASK] &= ~(1 << 10)
    return _said(seamcall(platform, 0))


def _bit3(revision: Revision) -> str:
    platform = Platform(revision=revision)
    return _said(msr.wrmsr(platform, 0, msr.SEAMRR_BASE, lab.SEAMRR.base | 8))


def _capabilities(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    platform.lp(0).rax = int(SeamopsLeaf.CAPABILITIES)
    seamops(platform, 0)
    return f"RAX = 0x{platform.lp(0).rax:X}"


def _wide_leaf(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    platform.lp(0).rax = 1 << 32 | int(SeamopsLeaf.CAPABILITIES)
    return _said(seamops(platform, 0))


def _report_version(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    report = make_report(platform, bytes(SEAMEXTEND.size), 0x81 | 1 << 16, bytes(48), bytes(64))
    status = everifyreport2(platform, 0, report)
    return _said(status) if isinstance(status, Fault) else status.name


def _pconfig(keyid: int) -> Callable[[Revision], str]:
    def run(revision: Revision) -> str:
        platform = lab.platform(revision=revision)
        platform.lp(0).rax = 0
        program = MKTME_KEY_PROGRAM.encode({"keyid": keyid, "keyid_ctrl": 1 | 1 << 8})
        status = pconfig(platform, 0, program)
        return _said(status) if isinstance(status, Fault) else f"{status.name}, RAX = {platform.lp(0).rax}"

    return run


def _tme_again(revision: Revision) -> str:
    return _said(msr.wrmsr(lab.platform(revision=revision), 0, msr.TME_ACTIVATE, 3))


def _late_acm(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    platform.bios_se_svn, platform.svn_locked = 5 << 56, True
    image = bytearray(ACM_HEADER.size)
    ACM_HEADER.poke(image, "SeSvn", 5)
    stale = smx.AcmState(platform, platform.lp(0), 0, bytes(image)).has_stale_svn()
    return "TXT shutdown (ENTERACCS.svn)" if stale else "the SVN rule lets it launch"


def _buffer_anywhere(revision: Revision) -> str:
    platform = _in_SEAM(revision, LOADER)
    return _said(msr.wrmsr(platform, 0, msr.SEAMEXTEND_MSR, 0x200000 | 1))


def _nmi_uninhibited(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    lp = platform.lp(0)
    lp.nmi_inhibit, lp.idtr_base = False, lab.CODE + 0x1000
    return str(raise_event(platform, 0, EventKind.NMI))


def _nmi_from_td(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    lp = platform.lp(0)
    lp.non_root, lp.nmi_inhibit = True, False
    outcome = raise_event(platform, 0, EventKind.NMI)
    return f"{outcome}, NMIs then {'blocked' if lp.nmi_inhibit else 'not blocked'}"


def _exit_word(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    return f"exit reason 0x{get(current(platform.lp(0)).data, 'exit_reason'):X}"


def _enteraccs_without_seamrr(revision: Revision) -> str:
    platform = lab.platform(revision=revision, vmx=False)
    for id in platform.lps[1:]:
        platform.lp(id).activity = Activity.WAIT_FOR_SIPI
    platform.lp(0).msrs[msr.SEAMRR_MASK] = 0
    row = smx.ENTERACCS_FAULTS.decide(smx.EnteraccsState(platform, _with_module(platform)), revision)
    return "goes on; NP-SEAMLDR itself will refuse" if row is None else f"{row.result} ({row.id})"


def _with_module(platform: Platform) -> Any:
    lp = platform.lp(0)
    lp.rbx, lp.rcx = 0x100000, smx.SMALLEST + -smx.SMALLEST % 64
    return lp


def _command_buffer(revision: Revision) -> str:
    platform = _in_SEAM(revision, LOADER)
    return _said(msr.wrmsr(platform, 0, msr.SEAMEXTEND_MSR, lab.P_SEAMLDR_RANGE.base + 0x10000 | 1))


DEMONSTRATIONS: tuple[Demonstration, ...] = (
    Demonstration(1, "a legacy guest's user mode executes SEAMCALL", False, _guest_user),
    Demonstration(2, "a TD's kernel executes SEAMCALL", False, _td),
    Demonstration(3, "a call of P-SEAMLDR by a host with a current VMCS", SeamretVmcs.NEVER, _p_seamldr_call),
    Demonstration(4, "the processor's VMCS cache after a call of the module", True, _cached_after_module_call),
    Demonstration(5, "SEAMCALL to a P-SEAMLDR that is not loaded", False, _mutex_after_failure),
    Demonstration(7, "an ACM clears VALID while LOCK = 1", False, _acm_toggles_valid),
    Demonstration(8, "SEAMCALL with LOCK = 0, VALID = 1", True, _unlocked),
    Demonstration(9, "BIOS writes SEAMRR base with bit 3 set", False, _bit3),
    Demonstration(11, "SEAMOPS CAPABILITIES", 0x3, _capabilities),
    Demonstration(12, "SEAMOPS with RAX = 0x100000000", 32, _wide_leaf),
    Demonstration(15, "EVERIFYREPORT2 of a report with VERSION 1", (0,), _report_version),
    Demonstration(16, "PCONFIG of a private KeyID outside SEAM", False, _pconfig(33)),
    Demonstration(17, "WRMSR IA32_TME_ACTIVATE after the lock", True, _tme_again),
    Demonstration(18, "a late ACM whose SE SVN equals the reported one", False, _late_acm),
    Demonstration(22, "P-SEAMLDR gives a SEAMEXTEND buffer in host memory", True, _buffer_anywhere),
    Demonstration(23, "NMI in SEAM root, inhibit cleared by software", True, _nmi_uninhibited),
    Demonstration(24, "NMI while a TD runs", True, _nmi_from_td),
    Demonstration(27, "exit reason that software in SEAM finds", False, _exit_word),
    Demonstration(28, "GETSEC[ENTERACCS] while SEAMRR is disabled", True, _enteraccs_without_seamrr),
    Demonstration(30, "PCONFIG of a shared KeyID outside SEAM", True, _pconfig(1)),
    Demonstration(34, "P-SEAMLDR's WRMSR of MSR 0x1402", SeamextendGate.PHYSBASE, _command_buffer),
)
"""Exactly the errata that have a knob, in order."""


def errata_table(base: Revision = SILICON) -> Html:
    """Every disagreement: its sides, the decision, and either the experiment on both sides or the reason for none."""
    shown = {demo.number: demo for demo in DEMONSTRATIONS}
    rows, said = [], []
    for row in ERRATA:
        sides = "<br>".join(marked_up(side) for side in row.sides)
        if row.number in shown:
            demo = shown[row.number]
            ours, theirs = demo.answers(base)
            run = (
                f"<div>{marked_up(demo.what)}</div><div>→ <b>{marked_up(ours)}</b></div>"
                f"<div>→ other reading: <b>{marked_up(theirs)}</b></div><div><code>{row.knob}</code></div>"
            )
            text = f"{demo.what}: {ours} / {theirs}"
        else:
            run = f"<div>no knob: {marked_up(row.reason)}</div>"
            text = f"no knob: {row.reason}"
        rows.append(
            f'<tr id="erratum-{row.number}"><td>{row.number}</td><td><b>{marked_up(row.topic)}</b><br>{sides}</td>'
            f"<td><div>this machine: {marked_up(row.decision)}</div>{run}</td></tr>"
        )
        said.append(f"{row.number:2} {row.topic} | {'; '.join(row.sides)} | {row.decision} | {text}")
    head = "".join(f'<th scope="col">{n}</th>' for n in ("#", "topic and sides", "this machine, and both readings run"))
    inner = (
        f'<table class="dataframe seam-table"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    )
    return Html(scrolling(inner, "Errata"), "\n".join(said))


def knob_table(numbers: Iterable[int], base: Revision = SILICON) -> Table:
    """The experiments of some errata, both answers side by side."""
    wanted = set(numbers)
    rows = [(d.number, d.what, *d.answers(base), f"`{d.erratum.knob}`") for d in DEMONSTRATIONS if d.number in wanted]
    return Table(("#", "experiment", base.name, "the other reading", "knob"), rows)


def difference_rows(a: Revision, b: Revision, reachable: bool = True) -> Table:
    """The states in which two revisions answer SEAMCALL differently, as few lines as describe them exactly.

    Facts that do not matter within a line stand as "any".  With ``reachable``, states that no processor can be in are
    left out, and used only to shorten the description.
    """
    one, other = seamcall_table(a), seamcall_table(b)
    free = [s for s in range(len(one)) if reachable and not is_reachable(s)]
    groups: dict[tuple[str, str], list[int]] = {}
    for state, (x, y) in enumerate(zip(one, other, strict=True)):
        if x.outcome != y.outcome and (is_reachable(state) or not reachable):
            groups.setdefault((x.outcome, y.outcome), []).append(state)
    rows: list[tuple[Any, ...]] = []
    for (x_said, y_said), states in sorted(groups.items()):
        for cube in compressed(states, free):
            count = sum(all(v is None or facts_of(s)[n] == v for n, v in cube.items()) for s in states)
            words = ", ".join(f"{n} = {int(v)}" for n, v in cube.items() if v is not None)
            rows.append((words, count, x_said, y_said))
    caption = f"{sum(len(g) for g in groups.values())} {'reachable ' if reachable else ''}states differ"
    return Table(("states (facts not named: any)", "states", a.name, b.name), rows, caption)


def every_difference(a: Revision, b: Revision) -> Table:
    """Every reachable state in which two revisions differ, one line each, with the deciding clauses."""
    one, other = seamcall_table(a), seamcall_table(b)
    rows = [
        (state, fact_words(state), ", ".join(n for n, on in facts_of(state).items() if on), x.outcome, y.outcome,
         Id(x.clause), Id(y.clause))
        for state, (x, y) in enumerate(zip(one, other, strict=True))
        if x.outcome != y.outcome and is_reachable(state)
    ]
    return Table(("state", "where", "facts that are 1", a.name, b.name, f"clause, {a.name}", f"clause, {b.name}"), rows)


def inputs_table() -> Table:
    """The facts SEAMCALL looks at, with their bit in a state number."""
    return Table(("bit", "name", "1 means"), [(i.bit, f"`{i.name}`", i.meaning) for i in INPUTS])


def grid(a: Revision, b: Revision) -> Html:
    """All 4096 states as a square: white where two revisions agree, coloured where they differ.

    Rows are the six mode facts, columns the six readiness facts; unreachable states are hatched out.
    """
    from seamref.show.svg import Board

    one, other = seamcall_table(a), seamcall_table(b)
    cell, left, top, pitch = 6.4, 232.0, 24.0, 15.0
    modes = [m for m in range(64) if any(is_reachable(_state(m, r)) for r in range(64))]
    board = Board(left + 64 * cell + 6, top + len(modes) * pitch + 30)
    names = [i.name for i in INPUTS]
    said: list[str] = []
    board.text(4, 15, "mode facts that are 1", size=11.5, fill="quiet")
    board.text(left, 15, "one column for each combination of the six others", size=11.5, fill="quiet")
    for index, mode in enumerate(modes):
        y = top + index * pitch
        words = ", ".join(n for b_, n in enumerate(names[:6]) if mode >> b_ & 1) or "none"
        board.text(left - 8, y + 10, words, size=11.5, anchor="end")
        differing = 0
        for rest in range(64):
            state = _state(mode, rest)
            differs = one[state].outcome != other[state].outcome
            differing += differs and is_reachable(state)
            tint = ("red" if differs else "quiet") if is_reachable(state) else ""
            if tint:
                board.rect(left + rest * cell, y, cell - 1, pitch - 3, fill=tint, opacity=0.85 if differs else 0.16,
                           stroke="", r=0)
        if differing:
            said.append(f"{words}: {differing} of 64 states differ")
    y = top + len(modes) * pitch + 18
    board.rect(left, y - 9, 12, 10, fill="red", opacity=0.85, stroke="", r=0)
    board.text(left + 18, y, f"{a.name} and {b.name} differ", size=11.5)
    return board.html(f"Where {a.name} and {b.name} differ over all states", "\n".join(said) or "nowhere")


def _state(mode: int, rest: int) -> int:
    return mode | rest << 6


__all__ = [
    "DEMONSTRATIONS", "Demonstration", "difference_rows", "errata_table",
    "every_difference", "grid", "inputs_table", "knob_table",
]
