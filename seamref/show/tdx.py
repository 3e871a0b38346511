"""Pictures and tables of the TDX module across an update, all made by running it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from seamref.arch import trace
from seamref.arch.platform import Platform
from seamref.arch.structures import SEAMEXTEND
from seamref.experiments.module.memory import data_parts, filled
from seamref.experiments.module.states import answers, sys_transitions, td_transitions
from seamref.experiments.module.updates import Tried, tried
from seamref.experiments.module.verifier import reference_values, svn, verifier_says
from seamref.host import vmm
from seamref.host.tdx_updates import SCENARIOS, Scenario
from seamref.layout import Record
from seamref.show.explorers import Explorer
from seamref.show.html import Hex, Html, stack
from seamref.show.maps import Region, memory_map
from seamref.show.sequences import Act, Note, Span, sequence
from seamref.show.states import State, Transition, state_machine
from seamref.show.tables import Table
from seamref.tdxmodule.core import LEAVES, View
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.status import Recoverability
from seamref.tdxmodule.structures import HANDOFF, HANDOFF_HEADER, SysState

# --- lifecycles: states from the code's enumerations, arrows from what the code does ------------------------------


def who_may_when() -> Table:
    """Every function of the start-up in every SYS state: what it answers, on a fork of a platform in that state."""
    rows = []
    for name, said in answers().items():
        rows.append((f"`{name}`", *("runs" if a.ok and not a.word else str(a).removeprefix("TDX_") for a in said)))
    return Table(("function", *(f"{state.value} {state.name}" for state in SysState)), rows,
                 "What each function answers in each state, TDX_ left out")


def sys_machine(current: str = "") -> Html:
    """The global state machine: an arrow for each call that was seen to change the state."""
    places: Mapping[str, tuple[float, float]] = {
        "SYSINIT_PENDING": (0, 0), "SYSINIT_DONE": (0, 1), "SYSCONFIG_DONE": (1, 1), "SYS_READY": (1, 2),
        "SYS_SHUTDOWN": (0, 2),
    }
    boxes = [State(s.name, at=places[s.name], detail=f"{s.value}",
                   tone={"SYS_READY": "teal", "SYS_SHUTDOWN": "red"}.get(s.name, "quiet")) for s in SysState]
    arrows = [Transition(a, b, text, tone="violet" if text == "SYS.UPDATE" else "quiet")
              for a, text, b in sys_transitions()]
    return state_machine(boxes, arrows, title="States of the TDX module; each arrow is a call that was made",
                         current=current, cell=(345, 108), box=(222, 54))


def td_machine(what: str) -> Html:
    """One of a TD's state machines (lifecycle, OP_STATE, vCPU, KeyID), its states in the order they were reached."""
    arrows = td_transitions()[what]
    names = list(dict.fromkeys(name for source, _, target in arrows for name in (source, target)))
    returns = any(names.index(a) - names.index(b) > 1 for a, _, b in arrows)
    boxes = [State(name, at=(1, 0.5) if returns and i == 2 else (0, i), tone="teal" if name in _ALIVE else "quiet")
             for i, name in enumerate(names)]
    made = [Transition(a, b, text.removeprefix("TDH.")) for a, text, b in arrows]
    return state_machine(boxes, made, title=f"{what} of a TD; each arrow is a call that was made", cell=(320, 96),
                         box=(200, 46) if returns else (270, 46))


_ALIVE = ("RUNNABLE", "READY", "KEYS_CONFIGURED", "ASSIGNED")


# --- memory -----------------------------------------------------------------------------------------------------


def data_region(platform: Platform, title: str = "The data region") -> Html:
    """The data region drawn, low addresses at the bottom; each part says how many of its bytes are not zero."""
    tones = {"handoff": "violet", "global data": "blue", "canary page": "quiet"}
    regions = [Region(name, base, size, tones.get(name, "teal"), f"{filled(platform, base, size)} bytes not zero")
               for name, base, size in data_parts(platform)]
    return memory_map(regions, title=title, height=360)


def data_changes(before: Platform, after: Platform) -> Table:
    """Each part of the data region on two platforms: bytes in use, and whether it is the same."""
    rows = []
    for name, base, size in data_parts(before):
        old, new = (Look(p).dram.read(base, size) for p in (before, after))
        rows.append((name, Hex(size), size - old.count(0), size - new.count(0),
                     "the same" if old == new else "wiped" if not any(new) else "different"))
    return Table(("part", "size", "not zero before", "not zero now", "now"), rows, "The data region, part by part")


def handoff_bytes(platform: Platform) -> Table:
    """The handoff data of a platform as bytes: header, then the first bytes of each field that are not zero."""
    look = Look(platform)
    data = look.dram.read(look.data, look.handoff_size)
    layout = HANDOFF[look.handoff.num("hv")]
    rows: list[tuple[Any, ...]] = [
        (Hex(HANDOFF_HEADER.offset_of(name)), f"`{name.upper()}`", data[HANDOFF_HEADER.span(name)].hex(" "), says)
        for name, says in (("valid", "1: there is something to take"), ("hv", f"version {look.handoff.num('hv')}"),
                           ("size", f"{look.handoff.num('size')} bytes follow"))
    ]
    for field in layout.fields[1:]:
        at = layout.offset_of(field.name)
        value = data[at : at + field.type.size]
        first = next((i for i, byte in enumerate(value) if byte), None)
        if first is None:
            rows.append((Hex(at), f"`{field.name}`", "all zero", field.meaning))
            continue
        start = at + first // 8 * 8 if field.type.size > 8 else at
        shown = data[start : start + min(16, at + field.type.size - start)]
        rows.append((Hex(start), f"`{field.name}`", shown.hex(" "), field.meaning))
    return Table(("offset", "field", "bytes", "what it says"), rows, "Handoff data as they lie in SEAM memory")


# --- an update, step by step --------------------------------------------------------------------------------------


def update_picture(platform: Platform, module: str = "1.5.06", title: str = "An update, step by step") -> Html:
    """Run an update on the platform and draw who did what."""
    done = vmm.update(platform, module)
    steps: list[Any] = []
    last = ""
    notes = {
        "TDH.SYS.SHUTDOWN": "the old module: state SYS_SHUTDOWN, handoff data written",
        "SEAMLDR.INSTALL": "P-SEAMLDR: the last processor checks, wipes, copies; SEAM_READY is 0 meanwhile",
        "TDH.SYS.INIT": "the new module: nothing but zeros and handoff data",
        "TDH.SYS.LP.INIT": "every processor of the platform, offline ones included",
        "TDH.SYS.UPDATE": "handoff data consumed: SYS_READY",
    }
    for name, lp, answer in done.steps:
        if name != last:
            steps.append(Note(notes[name]))
            tone = {"TDH.SYS.SHUTDOWN": "blue", "SEAMLDR.INSTALL": "violet"}.get(name, "teal")
            steps += [Span(id, tone) for id in platform.lps]
            last = name
        steps.append(Act(lp, name, answer, "" if "SUCCESS" in answer else "red"))
    return sequence(steps, lanes=list(platform.lps), title=title, width=560)


def survivors(before: dict[str, Any], after: dict[str, Any]) -> Table:
    """Facts of a TD (see ``td_facts``) on two platforms, one row for each fact."""
    rows = []
    for name, value in before.items():
        same = "the same" if after.get(name) == value else "CHANGED"
        rows.append((f"`{name}`", _short(name, value), same))
    return Table(("fact", "value before", "after the update"), rows, "What a TD is, before and after")


def _short(name: str, value: Any) -> str:
    match value:
        case bytes():
            return f"{value[:6].hex()}... ({len(value)} bytes)" if any(value) else f"{len(value)} zero bytes"
        case dict():
            return f"{len(value)} pages"
        case list() if name == "rtmr":
            return ", ".join("0" if not any(v) else v[:3].hex() + "..." for v in value)
        case list():
            return f"{len(value)} keys"
        case tuple():
            return ", ".join(_short("", v) for v in value)
        case _:
            return str(value)


def refusals(names: Iterable[str] = SCENARIOS) -> Table:
    """Scenarios played: who refused, what is left, what helps."""
    return _refusal_table(tried(names))


def _refusal_table(played: Iterable[Tried]) -> Table:
    rows = []
    for made in played:
        scenario, verdict = made.scenario, made.verdict
        td = verdict.td.removeprefix("not entered: ").removeprefix("TDX_")
        rows.append((
            scenario.says,
            f"{verdict.step or 'all of it'}: {verdict.answer.removeprefix('TDX_')}; {_brief(verdict.recoverability)}",
            f"module {verdict.module.removeprefix('TDX_')}; TD {td}",
            verdict.then.replace("TDX_", ""),
        ))
    return Table(("attempt", "ended at, with", "what is left", "and then"), rows,
                 "Updates that were tried (TDX_ left out)")


def _brief(said: str) -> str:
    """What the answer says about trying again, for a narrow column."""
    brief = {Recoverability.SUCCESS.value: "success", Recoverability.RETRY.value: "bits 63:62 = 10, retry",
             Recoverability.FINAL.value: "bits 63:62 = 11, not this call"}
    return brief.get(said, said)


def refusal_explorer() -> Explorer:
    """Pick a scenario and see how it goes."""
    def shown(scenario: Scenario) -> Html:
        (made,) = tried([scenario.name])
        ended = f"{made.verdict.step or 'every step done'}: `{made.verdict.answer}`"
        return stack(f"{scenario.says}. {ended}; the TD: {made.verdict.td}.", _refusal_table([made]))

    return Explorer(shown, {"scenario": {s.says: s for s in SCENARIOS.values()}}, title="Try an update", key="refusals",
                    labels={"scenario": "what is tried"},
                    defaults={"scenario": SCENARIOS["handoff too old"]}, also=({"scenario": SCENARIOS["TD runs"]},))


# --- attestation --------------------------------------------------------------------------------------------------


def verifier_table(**reports: Record) -> Table:
    """The verifier's view of several reports side by side."""
    columns = {name.replace("_", " "): verifier_says(report) for name, report in reports.items()}
    first = next(iter(columns.values()))
    rows = [(what, *(view[i][1] for view in columns.values())) for i, (what, _) in enumerate(first)]
    return Table(("the verifier concludes", *columns), rows)


def loaded_module(platform: Platform) -> Table:
    """IA32_SEAMEXTEND's identity against the named builds."""
    register = SEAMEXTEND.decode(platform.SEAMEXTEND)
    return Table(("what", "value"), [
        ("MRSEAM", register.mrseam[:8].hex() + "..."),
        ("is", reference_values().get(register.mrseam, "unknown")),
        ("TEE_TCB_SVN", svn(register.tee_tcb_svn)),
    ])


# --- odds and ends --------------------------------------------------------------------------------------------------


def leaf_table(numbers: Sequence[int] | None = None) -> Table:
    """Functions of the module: number, name, inputs, what for."""
    rows = [(n, f"`{leaf.name}`", leaf.inputs, leaf.says) for n, leaf in sorted(LEAVES.items())
            if numbers is None or n in numbers]
    return Table(("leaf", "name", "inputs", "what for"), rows)


def global_table(platform: Platform, *fields: str) -> Table:
    """Fields of the module's global data as they lie in memory."""
    glob = Look(platform).glob
    return Table(("field", "value"), [(f"`{name}`", Hex(glob.num(name))) for name in fields])


def module_steps(events: Iterable[trace.Event]) -> Table:
    """What the module told about itself while events were recorded."""
    rows = [(e.lp, e.name, e.detail) for e in events if isinstance(e, trace.Step) and e.component == "TDX module"]
    return Table(("LP", "step", "answer"), rows)


def view_table(view: View, *fields: str) -> Table:
    """Fields of any structure in memory."""
    return Table(("field", "value"), [(f"`{name}`", Hex(view.num(name))) for name in fields], view.layout.name)
