"""Module updates that go well and that do not: one scenario for each documented outcome, executed.

Every scenario starts from a platform with a module and a finished, running TD, tries to replace the module, and says
what was refused, by whom, and what is left: does the old module still answer, does the TD go on, and what helps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from seamref import bootchain
from seamref.arch.lp import Activity
from seamref.arch.outcome import Guest, Left
from seamref.arch.platform import Platform
from seamref.errors import SeamrefError
from seamref.host import vmm
from seamref.host.vmm import Answered, Td, Updated
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.metadata import field_id
from seamref.tdxmodule.status import Recoverability


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an attempt came to.

    ``step`` that ended it (empty: all went well), ``answer`` in words, ``recoverability`` as the answer itself says,
    ``module`` what the module in SEAM answers now, ``td`` what became of the TD, ``then`` what the next step helped.
    """

    step: str
    answer: str
    recoverability: str
    module: str
    td: str
    then: str


@dataclass(frozen=True, slots=True)
class Scenario:
    """``running`` module, ``attempt`` to replace it, and ``remedy``: what to do about a refusal."""

    name: str
    says: str
    attempt: Callable[[Platform, Td], Updated | Answered]
    running: str = "1.5.05"
    remedy: Callable[[Platform, Td], Updated | Answered] | None = None
    remedy_says: str = ""


@lru_cache(maxsize=16)
def _running(module: str, sockets: int, lps: int) -> tuple[Platform, Td]:
    platform = vmm.boot(sockets, lps, module)
    vmm.bring_up(platform)
    td = vmm.build_td(platform)
    vmm.run_td(platform, platform.lps[0], td)
    return platform, td


def running(module: str = "1.5.05", sockets: int = 1, lps: int = 2) -> tuple[Platform, Td]:
    """A platform with a module that is up and a TD that has counted to one."""
    platform, td = _running(module, sockets, lps)
    return platform.fork(), td.copy()


def _alive(platform: Platform) -> int:
    return next(id for id in platform.lps if platform.peek_lp(id).activity is Activity.ACTIVE)


def module_says(platform: Platform) -> str:
    """What the module answers to TDH.SYS.RD of its version, on the first processor that is not down."""
    answer = vmm.tdh(platform, _alive(platform), "TDH.SYS.RD", rdx=field_id("UPDATE_VERSION"))
    if answer.ok:
        return f"answers ({Look(platform).state.name})"
    return str(answer)


def td_says(platform: Platform, td: Td) -> str:
    """What becomes of the TD when somebody tries to run it."""
    entered = vmm.enter(platform, _alive(platform), td)
    if not isinstance(entered.run, Guest):
        return f"not entered: {entered}"
    exited = vmm.TdExit(vmm.leave(platform, _alive(platform)))
    return "goes on" if exited.answer.ok else f"exits: {exited.answer}"


def recoverability_of(answer: Answered | bootchain.Called, platform: Platform) -> str:
    """What the answer itself says about trying again."""
    if isinstance(answer, bootchain.Called):
        if not isinstance(answer.run, Left):
            return "not entered"
        if LoaderStatus(answer.rax) is LoaderStatus.SUCCESS:
            return Recoverability.SUCCESS.value
        return "RDX = 0: the old module is as INSTALL found it" if platform.peek_lp(platform.lps[-1]).rdx == 0 else (
            "RDX = 1: SEAM memory was overwritten, no module is left")
    if not isinstance(answer.run, Left):
        return "the processor is down, SEAM is closed everywhere"
    return answer.recoverability.value


def _last(answer: Updated | Answered) -> tuple[str, str, Answered | bootchain.Called]:
    if isinstance(answer, Updated):
        return answer.stopped_at, answer.steps[-1][2], answer.answer
    return ("" if answer.ok else "this call"), str(answer), answer


def play(scenario: Scenario) -> Verdict:
    """Run a scenario to its end."""
    platform, td = running(scenario.running)
    step, words, answer = _last(scenario.attempt(platform, td))
    recoverability = recoverability_of(answer, platform)
    module, became = module_says(platform), td_says(platform, td)
    then = ""
    if scenario.remedy is not None:
        stopped, said, _ = _last(scenario.remedy(platform, td))
        then = f"{scenario.remedy_says}: {said}, TD {td_says(platform, td)}"
        if stopped:
            then = f"{scenario.remedy_says}: {stopped} {said}"
    return Verdict(step, words, recoverability, module, became, then)


def to(module: str, **how: object) -> Callable[[Platform, Td], Updated]:
    """An attempt: update to a named build."""
    return lambda platform, td: vmm.update(platform, module, **how)  # type: ignore[arg-type]


def again(module: str, start: str = "SEAMLDR.INSTALL", **how: object) -> Callable[[Platform, Td], Updated]:
    """A remedy: another INSTALL (or a later step) while handoff data are still there."""
    return lambda platform, td: vmm.update(platform, module, start=start, **how)  # type: ignore[arg-type]


def _while_running(platform: Platform, td: Td) -> Updated:
    """The TD runs on the other processor."""
    vmm.must(platform, platform.lps[0], "TDH.VP.FLUSH", rcx=td.tdvprs[0])
    entered = vmm.enter(platform, platform.lps[1], td)
    if not isinstance(entered.run, Guest):
        raise SeamrefError(f"the TD should run: {entered}")
    return vmm.update(platform, "1.5.06")


def _kick_and_retry(platform: Platform, td: Td) -> Updated:
    """Interrupt the TD, take the vCPU back, try again."""
    vmm.leave(platform, platform.lps[1])
    vmm.must(platform, platform.lps[1], "TDH.VP.FLUSH", rcx=td.tdvprs[0])
    return vmm.update(platform, "1.5.06")


def _second_td(avoid: bool, module: str) -> Callable[[Platform, Td], Updated]:
    """Another TD is being built meanwhile."""
    def attempt(platform: Platform, td: Td) -> Updated:
        vmm.build_td(platform, number=1, until="TDH.MNG.INIT")
        return vmm.update(platform, module, avoid=avoid)

    return attempt


def _give_up_build(platform: Platform, td: Td) -> Updated:
    """Take the unfinished TD down, then try again."""
    half = vmm.new_td(1)
    for _ in range(6):
        half.take()
    vmm.tear_down(platform, platform.lps[0], half)
    return vmm.update(platform, "1.5.930", avoid=True)


def _bad_image(platform: Platform, td: Td) -> Updated:
    """The image is not the one that was signed."""
    from seamref import mint

    image = vmm.image_of("1.5.06")
    return vmm.update(platform, image[:-1] + bytes([image[-1] ^ 1]), sigstruct=mint.sigstruct(image))


def _used_up(platform: Platform, td: Td) -> Updated:
    """Every entry of SEAMDB is used."""
    while bootchain.read_info(platform).num_remaining_updates:
        done = vmm.update(platform, "1.5.06")
        if not done.ok:
            raise SeamrefError(f"an update of many should work: {done.steps[-1]}")
    return vmm.update(platform, "1.5.06")


def _cold(platform: Platform, td: Td) -> Answered:
    """Load a module from scratch and bring it up."""
    bootchain.install(platform, vmm.image_of("1.5.06"))
    vmm.bring_up(platform)
    return vmm.tdh(platform, platform.lps[0], "TDH.SYS.RD", rdx=field_id("UPDATE_VERSION"))


def _no_handoff(platform: Platform, td: Td) -> Answered:
    """A LOAD, and then TDH.SYS.UPDATE as if there were handoff data."""
    bootchain.install(platform, vmm.image_of("1.5.06"))
    vmm.bring_up(platform, until="lp.init")
    return vmm.tdh(platform, platform.lps[0], "TDH.SYS.UPDATE")


def _finish_cold(platform: Platform, td: Td) -> Answered:
    """Go on with CONFIG."""
    vmm.bring_up(platform, start="config")
    return vmm.tdh(platform, platform.lps[0], "TDH.SYS.RD", rdx=field_id("UPDATE_VERSION"))


def _incompatible(platform: Platform, td: Td) -> Updated:
    """A sigstruct that says a higher MODULE_HV than the build has."""
    from seamref import mint

    image = vmm.image_of("1.5.06")
    return vmm.update(platform, image, sigstruct=mint.sigstruct(image, module_hv=1))


def _short(platform: Platform, td: Td) -> Updated:
    """A handoff size that P-SEAMLDR lets pass, as only a broken module could write it."""
    vmm.must(platform, platform.lps[0], "TDH.SYS.SHUTDOWN")
    Look(platform).handoff.set("size", 8)
    return vmm.update(platform, "1.5.06", start="SEAMLDR.INSTALL")


def _late(platform: Platform, td: Td) -> Updated:
    """The second processor never does TDH.SYS.LP.INIT."""
    return vmm.update(platform, "1.5.06", lps=platform.lps[:1])


def _complete(platform: Platform, td: Td) -> Answered:
    """It does it now."""
    vmm.must(platform, platform.lps[1], "TDH.SYS.LP.INIT")
    return vmm.tdh(platform, platform.lps[0], "TDH.SYS.UPDATE")


def _call(name: str, **registers: int) -> Callable[[Platform, Td], Answered]:
    return lambda platform, td: vmm.tdh(platform, platform.lps[0], name, **registers)


SCENARIOS: dict[str, Scenario] = {s.name: s for s in (
    Scenario("newer", "1.5.05 to 1.5.06, everything fits", to("1.5.06")),
    Scenario("same", "1.5.05 to 1.5.05", to("1.5.05")),
    Scenario("lower SVN", "1.5.06 back to 1.5.05", to("1.5.05"), running="1.5.06", remedy=again("1.5.16"),
             remedy_says="INSTALL 1.5.16 instead"),
    Scenario("older build of equal SVN", "an older build whose SVN is not lower", to("1.5.06"),
             running="1.5.06-detect"),
    Scenario("other major", "1.5.05 to a module of another major SVN", to("2.0.05"), remedy=again("1.5.06"),
             remedy_says="INSTALL 1.5.06 instead"),
    Scenario("hv too new", "SHUTDOWN asks for a handoff version the module cannot write", to("1.5.06", hv=1),
             remedy=to("1.5.06"), remedy_says="ask for MODULE_HV"),
    Scenario("unknown flag", "bit 16 of SHUTDOWN on a module without UPDATE_COMPATIBILITY", to("1.5.06", avoid=True),
             remedy=to("1.5.06"), remedy_says="without the flag"),
    Scenario("TD runs", "another processor is inside a TD", _while_running, remedy=_kick_and_retry,
             remedy_says="kick the vCPU and retry"),
    Scenario("TD build", "a TD is being built, and SHUTDOWN is to avoid that", _second_td(True, "1.5.930"),
             running="1.5.920", remedy=_give_up_build, remedy_says="take that TD down and retry"),
    Scenario("no downgrade", "NO_DOWNGRADE, and version 0 is asked for", to("1.5.932", hv=0), running="1.5.932",
             remedy=to("1.5.932"), remedy_says="ask for MODULE_HV"),
    Scenario("hv too old", "a module that writes version 1 only, and version 0 is asked for", to("1.5.931", hv=0),
             running="1.5.931", remedy=to("1.5.931"), remedy_says="ask for MODULE_HV"),
    Scenario("no SHUTDOWN", "INSTALL for an update, but nothing was handed off", again("1.5.06"), remedy=to("1.5.06"),
             remedy_says="with SHUTDOWN"),
    Scenario("handoff too old", "the new module reads version 1 only", to("1.5.931"), remedy=again("1.5.930"),
             remedy_says="INSTALL 1.5.930, which reads version 0"),
    Scenario("handoff too new", "handed off in version 1, the new module reads version 0 only", to("1.5.933"),
             running="1.5.930", remedy=again("1.5.930"), remedy_says="INSTALL 1.5.930 again"),
    Scenario("back with an old hv", "1.5.930 hands off in version 0 for the sake of an older module",
             to("1.5.933", hv=0), running="1.5.930"),
    Scenario("wrong image", "the image is not the signed one", _bad_image, remedy=_cold,
             remedy_says="LOAD from scratch"),
    Scenario("no entry left", "SEAMDB is full", _used_up),
    Scenario("sigstruct against build", "the sigstruct's MODULE_HV is not the build's", _incompatible,
             remedy=again("1.5.06"), remedy_says="INSTALL with a fitting sigstruct"),
    Scenario("processor missing", "one processor did not do TDH.SYS.LP.INIT", _late, remedy=_complete,
             remedy_says="do it and call UPDATE again"),
    Scenario("no handoff data", "UPDATE behind a LOAD", _no_handoff, remedy=_finish_cold,
             remedy_says="go on with CONFIG"),
    Scenario("handoff cut short", "handoff data shorter than their version", _short),
    Scenario("second SHUTDOWN", "a call to a module that was shut down", lambda platform, td: (
        vmm.must(platform, platform.lps[0], "TDH.SYS.SHUTDOWN"),
        vmm.tdh(platform, platform.lps[0], "TDH.SYS.SHUTDOWN"))[1], remedy=again("1.5.06"), remedy_says="INSTALL"),
    Scenario("UPDATE twice", "UPDATE in a module that is up", _call("TDH.SYS.UPDATE")),
)}
"""Scenarios by name."""


def get_scenario(name: str) -> Scenario:
    """A scenario by name; an unknown name is an error that lists the known ones."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise SeamrefError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}") from None


@dataclass(frozen=True, slots=True)
class InterruptedBuild:
    """An update between two steps of a TD build, and what came of both."""

    old: str
    new: str
    how: str
    update: str
    build: str


def interrupted_build(old: str, new: str, how: str = "", avoid: bool = False, at: str = "TDH.MR.EXTEND"
                      ) -> InterruptedBuild:
    """Begin to build a TD under ``old``, update to ``new`` behind step ``at``, go on building."""
    platform, _ = running(old)
    wanted = measured(old)
    td = vmm.new_td(1)
    steps = vmm.build_steps(platform, platform.lps[0], td)
    vmm.go_on_building(steps, at)
    done = vmm.update(platform, new, avoid=avoid)
    said = "done" if done.ok else done.steps[-1][2]
    try:
        vmm.go_on_building(steps)
    except vmm.Refused as refused:
        return InterruptedBuild(old, new, how, said, f"refused: {refused.answer}")
    vmm.run_td(platform, platform.lps[0], td)
    mrtd = vmm.report_of(platform, platform.lps[0], td).tdinfo.mrtd
    return InterruptedBuild(old, new, how, said, "MRTD right" if mrtd == wanted else "MRTD WRONG, and no error")


def measured(module: str) -> bytes:
    """The MRTD of the same TD when nothing interrupts its build."""
    platform, _ = running(module)
    td = vmm.build_td(platform, number=1)
    vmm.run_td(platform, platform.lps[0], td)
    mrtd: bytes = vmm.report_of(platform, platform.lps[0], td).tdinfo.mrtd
    return mrtd


def interrupted_builds() -> list[InterruptedBuild]:
    """Every way an update and a TD build can meet."""
    return [
        interrupted_build("1.5.05", "1.5.06", "same library format"),
        interrupted_build("1.5.05", "1.5.06-crypto", "other library format"),
        interrupted_build("1.5.05", "1.5.06-detect", "new module detects"),
        interrupted_build("1.5.920", "1.5.930", "bit 16: avoid", avoid=True),
        interrupted_build("1.5.920", "1.5.930", "flag not used"),
        interrupted_build("1.5.05", "1.5.06", "bit 16, flag not known", avoid=True),
    ]


__all__ = [
    "SCENARIOS", "InterruptedBuild", "Scenario", "Verdict", "get_scenario", "interrupted_build", "interrupted_builds",
    "measured", "module_says", "play", "running", "td_says",
]
