"""A kernel on the laboratory platform: software in SEAM that answers what a test tells it to.

The real loader and module have their own tests; here the kernel's half is looked at, answer by answer.
"""

from __future__ import annotations

from dataclasses import replace

from seamref.arch import lab
from seamref.arch.lp import Lp
from seamref.arch.platform import Platform, Topology
from seamref.arch.seam import seamret
from seamref.arch.software import Running, StepOutcome, register_program
from seamref.host.abi import FIELD_MODULE_HV
from seamref.host.kernel import Host
from seamref.host.records import ModuleState, Sysinfo
from seamref.host.series import MERGED, KernelSeries


class Script:
    """Answers by leaf from ``platform.board``: a tuple of (RAX, registers) per leaf, the last one for good."""

    id = b"seamref.test.scr"
    name = "script"

    def step(self, platform: Platform, lp: Lp, parameters: bytes) -> StepOutcome:
        if lp.program_state is None:
            answers = platform.board.get(lp.rax, ((0, ()),))
            rax, registers = answers[0]
            if len(answers) > 1:
                platform.board[lp.rax] = answers[1:]
            lp.rax = rax
            for name, value in registers:
                setattr(lp, name, value)
            lp.program_state = "answered"
            return Running("answered")
        lab.advance_rip(lp)
        return seamret(platform, lp.id)


register_program(Script())


def host(
    cpus: int = 2, series: KernelSeries = MERGED, *, keeps_vmcs: bool = True, preempt_rt: bool = False, **leaves: object
) -> Host:
    """A kernel whose module is up (as far as the kernel knows) and has handoff version 1."""
    platform = lab.platform(topology=Topology(1, cpus), keeps_vmcs=keeps_vmcs, program=Script.id)
    made = Host(platform, series, preempt_rt=preempt_rt)
    answer(made, 34, 0, r8=1)
    made.set(
        module=ModuleState(True, True, status="INITIALIZED"),
        sysinfo=Sysinfo(1, 5, 5, 0x61F0FBF, 1),
        cpus=tuple(replace(c, lp_initialized=True) for c in made.state.cpus),
    )
    return made


def answer(host: Host, leaf: int, rax: int, **registers: int) -> None:
    """From now on a leaf gives this."""
    host.platform.board[leaf] = ((rax, tuple(registers.items())),)


def answers(host: Host, leaf: int, *several: int) -> None:
    """A leaf's next answers; the last one for good."""
    host.platform.board[leaf] = tuple((rax, ()) for rax in several)


__all__ = ["FIELD_MODULE_HV", "answer", "answers", "host"]
