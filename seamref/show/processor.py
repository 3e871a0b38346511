"""What the processor part shows again and again: access matrices, the SEAMCALL explorer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from seamref.arch.exhaustive import state_of
from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.arch.revision import REVISIONS, Revision
from seamref.arch.seam import SEAMCALL
from seamref.experiments.processor.states import WHERE, refused_by, seamcall_in
from seamref.show.explorers import Explorer
from seamref.show.html import Html, Id, stack
from seamref.show.maps import Region, memory_map
from seamref.show.paths import decision_path
from seamref.show.sequences import MODE_TONES
from seamref.show.states import State, Transition, state_machine
from seamref.show.svg import Board
from seamref.show.tables import Table

AGENT_NAMES: Mapping[Agent, str] = {
    Agent.HOST: "host", Agent.GUEST: "legacy guest", Agent.SMM: "SMM", Agent.DMA: "a device", Agent.ACM: "ACM",
    Agent.TD: "TD", Agent.MODULE: "TDX module", Agent.P_SEAMLDR: "P-SEAMLDR", Agent.CPU: "the processor itself",
}
"""Who makes an access, in one or two words."""

MODES = (
    State("outside VMX", at=(0, 0), detail="OS, BIOS, ACM"),
    State("legacy VMX root", at=(1, 0), detail="VMM"),
    State("legacy VMX non-root", at=(1, 1), tone="teal", detail="legacy VM"),
    State("SEAM VMX root", at=(2, 0), tone="violet", detail="TDX module or P-SEAMLDR"),
    State("SEAM VMX non-root", at=(2, 1), tone="blue", detail="TD"),
)
"""The five modes as boxes; the tones are those of :data:`seamref.show.sequences.MODE_TONES`."""

EDGES = (
    Transition("outside VMX", "legacy VMX root", "VMXON"),
    Transition("legacy VMX root", "outside VMX", "VMXOFF"),
    Transition("legacy VMX root", "SEAM VMX root", "SEAMCALL", tone="violet"),
    Transition("SEAM VMX root", "legacy VMX root", "SEAMRET", tone="violet"),
    Transition("legacy VMX root", "legacy VMX non-root", "VM entry"),
    Transition("legacy VMX non-root", "legacy VMX root", "VM exit"),
    Transition("SEAM VMX root", "SEAM VMX non-root", "VM entry"),
    Transition("SEAM VMX non-root", "SEAM VMX root", "VM exit"),
)


STAGES = (
    ("BIOS, MCHECK", "reserve and check SEAMRR"),
    ("NP-SEAMLDR", "an ACM, run once by GETSEC[ENTERACCS]"),
    ("P-SEAMLDR", "stays; installs and updates the module"),
    ("TDX module", "stays; runs trust domains"),
    ("TDs", "guests that the host cannot read"),
)
"""The chain, in order, and what each link is for."""


def chain() -> Html:
    """The chain as a row of boxes that wraps where the page is narrow."""
    boxes = "".join(
        '<li style="flex:1 1 9rem;border:1px solid currentColor;border-radius:.5rem;padding:.6rem .75rem">'
        f'<strong>{number}. {name}</strong><br><span style="opacity:.8">{role}</span></li>'
        for number, (name, role) in enumerate(STAGES, start=1)
    )
    style = "list-style:none;margin:0;padding:0;display:flex;flex-wrap:wrap;gap:.5rem"
    said = "\n".join(f"{number}. {name}: {role}" for number, (name, role) in enumerate(STAGES, start=1))
    return Html(f'<ol style="{style}">{boxes}</ol>', said)


CAST = (
    State("cpu", "processor", at=(0, 0), tone="violet", detail="modes, ranges, keys"),
    State("mcheck", "MCHECK", at=(1, 0), tone="violet", detail="in the microcode update"),
    State("bios", "BIOS", at=(2, 0), detail="the board's vendor"),
    State("np", "NP-SEAMLDR", at=(1, 1), tone="amber", detail="ACM, runs once"),
    State("p", "P-SEAMLDR", at=(1, 2), tone="amber", detail="persistent loader"),
    State("host", "host: OS, VMM", at=(2, 2), detail="starts every step"),
    State("module", "TDX module", at=(1, 3), tone="blue", detail="runs TDs"),
    State("td", "TD", at=(1, 4), tone="green", detail="a guest"),
)
"""Who appears in the book; coloured: in the trust of a TD."""

_LEFT = 0.01  # words to the left of a downward arrow

TRUST = (
    Transition("cpu", "mcheck", "runs", tone="violet"),
    Transition("mcheck", "bios", "what it set", tone="violet"),
    Transition("cpu", "np", "signature", tone="violet"),
    Transition("mcheck", "np", "its table", tone="violet", bend=-_LEFT),
    Transition("np", "p", "digest", tone="amber", bend=_LEFT),
    Transition("p", "module", "signature, SVN, attributes", tone="amber", bend=_LEFT),
    Transition("module", "td", "measures, isolates", tone="blue", bend=_LEFT),
    Transition("host", "np", "ENTERACCS", dash=True),
    Transition("host", "p", "SEAMCALL", dash=True),
    Transition("host", "module", "SEAMCALL", dash=True),
)
"""Solid: checks, and by what.  Dashed: starts or calls, without being trusted for it."""


def cast_picture() -> Html:
    """Who checks whom, and who merely calls."""
    return state_machine(CAST, TRUST, title="Who checks whom, and who merely calls", cell=(262, 108))


def address_picture(platform: Platform) -> Html:
    """A physical address of a platform, bit range by bit range (not to scale)."""
    shift, maxpa, p = platform.keyid_shift, platform.config.maxpa, platform.tdx_keyid_bits
    parts = (
        ("reserved", 96, "quiet", 63, maxpa), ("TDX", 64, "violet", maxpa - 1, maxpa - p),
        ("KeyID", 120, "blue", maxpa - p - 1, shift), ("address", 352, "", shift - 1, 0),
    )
    board, x = Board(640, 92), 4
    drawn = [part for part in parts if part[3] >= part[4]]
    for name, width, colour, high, low in drawn:
        tint = colour or "quiet"
        board.rect(x, 28, width, 36, fill=tint, opacity=0.24 if colour else 0.05, stroke=tint, r=0)
        board.text(x + width / 2, 51, name, anchor="middle", bold=True)
        board.text(x + 3, 21, str(high), size=11.5, mono=True, fill="quiet")
        if high > low:
            board.text(x + width - 3, 82, str(low), size=11.5, mono=True, anchor="end", fill="quiet")
        x += width
    return board.html("A physical address", "; ".join(f"bits {high}:{low} {name}" for name, _, _, high, low in drawn))


def modes_picture(current: str = "") -> Html:
    """The five modes and every edge between them; ``current`` is drawn filled."""
    return state_machine(MODES, EDGES, title="The five modes and the edges between them", cell=(245, 150),
                         box=(166, 58), current=current)


def access_matrix(
    platform: Platform, places: Mapping[str, int], agents: Iterable[Agent] = AGENT_NAMES, size: int = 8,
    caption: str = "",
) -> Table:
    """Who gets through to which physical address: yes, or the clause that refuses.  The platform judges each cell."""
    rows = [
        (AGENT_NAMES[agent], *(Id(clause) if clause else "yes" for clause in answers.values()))
        for agent, answers in refused_by(platform, places, agents, size).items()
    ]
    return Table(("who", *places), rows, caption)


def platform_map(platform: Platform, title: str = "Physical memory and its SEAM range") -> Html:
    """SEAMRR of a platform in its surroundings, and the range enlarged."""
    seamrr, held = platform.seamrr(), platform.p_seamldr_range
    assert seamrr is not None and held is not None
    top = 1 << max(32, seamrr.end.bit_length())
    outside = [
        Region("memory", 0, seamrr.base, "quiet", "the host's"),
        Region("SEAMRR", seamrr.base, seamrr.size, "violet"),
        *([Region("memory, devices", seamrr.end, top - seamrr.end, "quiet")] if seamrr.end < top else []),
    ]
    inside = [
        Region("MODULE_RANGE", seamrr.base, held.base - seamrr.base, "blue", "the TDX module"),
        Region("P_SEAMLDR_RANGE", held.base, held.size, "amber", "only while inP_SEAMLDR = 1"),
        *([Region("rest", held.end, seamrr.end - held.end, "quiet")] if held.end < seamrr.end else []),
    ]
    return memory_map(outside, inside, title=title)


# --- SEAMCALL


def seamcall_at(state: int, revision: Revision) -> tuple[Html, str, str]:
    """SEAMCALL in one of the 4096 states: the path through the table, the outcome, the deciding clause."""
    walk, outcome = seamcall_in(state, revision)
    return decision_path(SEAMCALL, walk, outcome, revision), str(outcome), outcome.clause


def seamcall_explorer(**defaults: Any) -> Explorer:
    """Everything SEAMCALL looks at, as controls; the outcome, the deciding clause and the path."""

    def explore(where: str, CPL: int, CS_L: bool, VALID: bool, MOV_SS: bool, RAX: str, SEAM_READY: bool,
                P_SEAMLDR_READY: bool, mutex: bool, revision: str) -> Html:
        facts = dict(WHERE[where])
        facts.update(b64=facts.get("b64", False) and CS_L, user=CPL > 0, seamrr=VALID, mov_ss=MOV_SS,
                     rax63=RAX.endswith("P-SEAMLDR"), seam_ready=SEAM_READY, p_ready=P_SEAMLDR_READY, mutex=mutex)
        walk, outcome = seamcall_in(state_of(**facts), REVISIONS[revision])
        decided = f", decided by `{outcome.clause}`" if any(stops for _, stops in walk) else ": no row stops it"
        way = decision_path(SEAMCALL, walk, outcome, REVISIONS[revision], "The way through SEAMCALL's table")
        return stack(f"SEAMCALL: {outcome}{decided}.", way)

    return Explorer(
        explore,
        {
            "where": list(WHERE), "CPL": [0, 3], "CS_L": True, "VALID": True, "MOV_SS": False,
            "RAX": ["RAX[63] = 0: TDX module", "RAX[63] = 1: P-SEAMLDR"], "SEAM_READY": True, "P_SEAMLDR_READY": True,
            "mutex": False, "revision": list(REVISIONS),
        },
        title="SEAMCALL explorer",
        key="seamcall",
        labels={"where": "executed in", "CS_L": "CS.L = 1", "VALID": "SEAMRR VALID = 1", "MOV_SS": "blocking by MOV-SS",
                "SEAM_READY": "TDX module loaded", "P_SEAMLDR_READY": "P-SEAMLDR loaded",
                "mutex": "P_SEAMLDR_MUTEX held elsewhere"},
        defaults=defaults.pop("defaults", {"where": "legacy VM", "CPL": 3, "revision": "343754-002"}),
        also=defaults.pop("also", [{"revision": "silicon"}]),
    )


__all__ = [
    "AGENT_NAMES", "CAST", "EDGES", "MODES", "MODE_TONES", "access_matrix", "address_picture", "cast_picture", "chain",
    "modes_picture", "platform_map", "seamcall_at", "seamcall_explorer", "stack",
]
