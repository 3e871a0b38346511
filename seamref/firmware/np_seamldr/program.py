"""The steps in order, and NP-SEAMLDR as the program that an ACM's entry stub stands for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from seamref.arch.lp import Lp
from seamref.arch.outcome import TxtShutdown
from seamref.arch.smx import AcStep, ExitedAc, register_ac_program, step_acm
from seamref.arch.software import MemoryFault, Running, SoftwareFault
from seamref.arch.trace import Step
from seamref.errors import SeamrefError
from seamref.firmware.acm import NP_SEAMLDR_PROGRAM
from seamref.firmware.np_seamldr.checks import Refused
from seamref.firmware.np_seamldr.entry import (
    check_bios_done,
    enter_64bit,
    save_idt,
    save_state,
    turn_on_paging,
    wait_for_txt,
    write_se_svn,
)
from seamref.firmware.np_seamldr.exit import leave, restore
from seamref.firmware.np_seamldr.finish import build_vmcs, fill_table, make_ready
from seamref.firmware.np_seamldr.image import copy_image, relocate, wipe
from seamref.firmware.np_seamldr.main import (
    check_platform,
    check_reload,
    check_size,
    draw_aslr,
    keep_msrs,
    map_seamrr,
    open_seamrr,
    read_seamrr,
    take_mutex,
)
from seamref.firmware.np_seamldr.mapping import (
    map_code,
    map_data,
    map_keyholes,
    map_module,
    map_stacks,
    map_table,
    mapping_step,
)
from seamref.firmware.np_seamldr.state import COMPONENT, CORE, Np, NpState, NpStatus, Returned
from seamref.spec import CHOSEN, MEASURED, clause, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


@dataclass(frozen=True, slots=True)
class NpStep:
    """One separable piece of work: ``phase`` entry, main or exit."""

    name: str
    phase: str
    run: Callable[[Np], ExitedAc | None]


STEPS: tuple[NpStep, ...] = (
    NpStep("save the IDT", "entry", save_idt),
    NpStep("write BIOS_SE_SVN", "entry", write_se_svn),
    NpStep("check BIOS_DONE", "entry", check_bios_done),
    NpStep("save registers", "entry", save_state),
    NpStep("wait for TXT private space", "entry", wait_for_txt),
    NpStep("turn on paging", "entry", turn_on_paging),
    NpStep("64-bit prologue", "entry", enter_64bit),
    NpStep("keep MSRs", "main", keep_msrs),
    NpStep("read SEAMRR", "main", read_seamrr),
    NpStep("open SEAMRR", "main", open_seamrr),
    NpStep("map SEAMRR", "main", map_seamrr),
    NpStep("check the platform", "main", check_platform),
    NpStep("take the mutex", "main", take_mutex),
    NpStep("check for a reload", "main", check_reload),
    NpStep("draw ASLR", "main", draw_aslr),
    NpStep("check P_SEAMLDR_RANGE", "main", check_size),
    NpStep("wipe P_SEAMLDR_RANGE", "main", wipe),
    NpStep("copy the image", "main", copy_image),
    NpStep("relocate the image", "main", relocate),
    NpStep("map code", "main", mapping_step("code", map_code)),
    NpStep("map stacks", "main", mapping_step("stacks", map_stacks)),
    NpStep("map keyholes", "main", mapping_step("keyholes", map_keyholes)),
    NpStep("map data", "main", mapping_step("data", map_data)),
    NpStep("map P_SYS_INFO_TABLE", "main", mapping_step("sysinfo", map_table)),
    NpStep("map the module region", "main", mapping_step("module", map_module)),
    NpStep("fill P_SYS_INFO_TABLE", "main", fill_table),
    NpStep("build the transfer VMCS", "main", build_vmcs),
    NpStep("make P-SEAMLDR ready", "main", make_ready),
    NpStep("restore and close SEAMRR", "exit", restore),
    NpStep("EXITAC", "exit", leave),
)
EXIT = next(i for i, step in enumerate(STEPS) if step.phase == "exit")
"""Index of the first exit step: where every returned error goes."""


def step_index(name: str) -> int:
    """Index of a step by its name; an unknown name is an error that lists the known ones."""
    for index, step in enumerate(STEPS):
        if step.name == name:
            return index
    raise SeamrefError(f"NP-SEAMLDR has no step {name!r}; there are: {', '.join(s.name for s in STEPS)}")


clause("NP_SEAMLDR.run", "steps in order; a decided status jumps to the exit, UD2 ends everything", CORE, MEASURED)


class NpSeamldr:
    """The program that the stub at EntryPoint of NP-SEAMLDR's ACM stands for."""

    id = NP_SEAMLDR_PROGRAM
    name = COMPONENT

    def step(self, platform: Platform, lp: Lp) -> AcStep:
        """Take one step on ``lp``."""
        return advance(platform, lp)


@implements("NP_SEAMLDR.run")
def advance(platform: Platform, lp: Lp) -> AcStep:
    """NP_SEAMLDR.run: the step that ``lp.program_state`` names, and the state behind it."""
    state: NpState = lp.program_state or NpState()
    np = Np(platform, lp, state)
    step = STEPS[state.next]
    detail = ""
    try:
        left = step.run(np)
        following = state.next + 1
    except Refused as refused:
        np.set(status=int(refused.status), decided=refused.clause)
        left, following, detail = None, EXIT, str(refused)
    except MemoryFault as fault:
        raise SoftwareFault(fault.fault.vector, f"{step.name}: {fault}") from fault
    if platform.listeners:
        platform.emit(Step(lp.id, COMPONENT, step.name, detail))
    if left is not None:
        return left
    lp.program_state = replace(np.state, next=following)
    return Running(step.name)


NP_SEAMLDR = register_ac_program(NpSeamldr())


def run(platform: Platform, lp_id: int) -> Returned | TxtShutdown:
    """Every remaining step of a launch, to EXITAC or to the reset."""
    while True:
        state: NpState | None = platform.lp(lp_id).program_state
        outcome = step_acm(platform, lp_id)
        if isinstance(outcome, TxtShutdown):
            return outcome
        if isinstance(outcome, ExitedAc):
            return Returned(NpStatus(platform.lp(lp_id).r9), "NP_SEAMLDR.run" if state is None else state.decided)


clause("NP_SEAMLDR.not_callable",
       "NP-SEAMLDR is no target of SEAMCALL: it runs inside ENTERACCS and is gone with EXITAC",
       "X2 SEAMCALL", CHOSEN)
