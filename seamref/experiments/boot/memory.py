"""P_SEAMLDR_RANGE as NP-SEAMLDR fills it: its parts, read from memory, and the platform after each step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seamref.arch.memory import Agent
from seamref.arch.outcome import TxtShutdown
from seamref.arch.paging import ADDRESS
from seamref.arch.platform import Platform, Topology
from seamref.arch.smx import ExitedAc, step_acm
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.bootchain import Boot, make_boot, run_boot
from seamref.firmware.np_seamldr import STEPS as NP_STEPS
from seamref.firmware.np_seamldr import NpState

PAGE = 0x1000


def regions(platform: Platform) -> list[tuple[str, int, int, str]]:
    """(name, base, size, note) of everything in P_SEAMLDR_RANGE, from the table and the page tables in memory."""
    held = platform.p_seamldr_range
    assert held is not None
    info = P_SYS_INFO_TABLE.decode(platform.bytes_at(Agent.CPU, held.end - PAGE, PAGE))
    tables = _last_table(platform, held.base + 0x3000) - (held.base + 0x2000)
    code = held.end - PAGE - info.code_rgn_size
    shadow = code - PAGE
    stack_at = code - info.stack_rgn_size
    data = stack_at - info.data_rgn_size
    return [
        ("unused page", held.base, PAGE, ""),
        ("transfer VMCS", held.base + PAGE, PAGE, ""),
        ("page tables", held.base + 0x2000, tables, "PML4 first"),
        ("free", held.base + 0x2000 + tables, data - (held.base + 0x2000 + tables), ""),
        ("data", data, info.data_rgn_size, ""),
        ("data stack", stack_at, shadow - stack_at, ""),
        ("shadow stack", shadow, PAGE, ""),
        ("code", code, info.code_rgn_size, "P-SEAMLDR's image"),
        ("P_SYS_INFO_TABLE", held.end - PAGE, PAGE, ""),
    ]


def _last_table(platform: Platform, at: int) -> int:
    """End of the run of page tables: tables are allocated upward, and each is named by an entry below it."""
    root, end = at - PAGE, at
    todo = [(root, 4)]
    while todo:
        base, level = todo.pop()
        data = platform.bytes_at(Agent.CPU, base, PAGE)
        for i in range(0, PAGE, 8):
            entry = int.from_bytes(data[i : i + 8], "little")
            if entry and level > 1 and not (entry & 0x80 and level == 2):
                end = max(end, (entry & ADDRESS) + PAGE)
                if level > 2:
                    todo.append((entry & ADDRESS, level - 1))
    return end


@dataclass(frozen=True, slots=True)
class Frame:
    """The platform just after one step of NP-SEAMLDR, as far as the pictures look at it."""

    step: str
    valid: bool
    others_valid: bool
    mutex: int
    lp_valid: int
    ready: bool
    used: tuple[int, ...]


def frames(b: Boot | None = None) -> tuple[list[Frame], Platform]:
    """NP-SEAMLDR on a platform of two packages, one frame for each step; the pages of each region that are not zero."""
    boot = b or make_boot(Topology(2, 2))
    run_boot(boot, until="enteraccs")
    platform = boot.platform
    done = platform.fork()
    while not isinstance(step_acm(done, 0), ExitedAc | TxtShutdown):
        pass
    places = [(base, size) for _, base, size, _ in regions(done)]
    made: list[Frame] = []
    while True:
        state: NpState | None = platform.lp(0).program_state
        name = NP_STEPS[state.next if state is not None else 0].name
        outcome = step_acm(platform, 0)
        made.append(_frame(platform, name, places))
        if isinstance(outcome, ExitedAc | TxtShutdown):
            return made, platform


def _frame(platform: Platform, name: str, places: Sequence[tuple[int, int]]) -> Frame:
    held = platform.p_seamldr_range
    assert held is not None
    info = P_SYS_INFO_TABLE.decode(platform.bytes_at(Agent.CPU, held.end - PAGE, PAGE))
    used = tuple(
        sum(1 for at, _ in platform.store_.pages(base, base + size)) for base, size in places
    )
    return Frame(name, platform.seamrr(platform.lp(0)) is not None, platform.seamrr(platform.lp(2)) is not None,
                 int(info.np_seamldr_mutex), int(info.acm_x2apicid_valid), platform.P_SEAMLDR_READY, used)
