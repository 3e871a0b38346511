"""What is proved: properties of steps, and properties of the states in which nobody can get on any more.

A step property looks at one step: the world before it, the world after it, and what was done.  Everything that it
looks at is among the things that the step touches, so that it does not matter to it what independent steps were taken
in between (that is what makes it safe under partial-order reduction).  A final property looks at a world in which no
actor can take a step.  Each answers with ``None`` or with a sentence that says what is wrong.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

from seamref.arch.lp import Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Fault as HardwareFault
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.vmcs import NONE
from seamref.errors import SeamrefError
from seamref.explore.probe import ask_module, read_session, read_shutdown, td_troubles
from seamref.explore.world import Did, World
from seamref.host.abi import Errno, Leaf
from seamref.host.update import Finish

StepCheck: TypeAlias = Callable[[World, World, Did], "str | None"]
FinalCheck: TypeAlias = Callable[[World], "str | None"]


@dataclass(frozen=True, slots=True)
class Property:
    """A named property: what it says, where that comes from, and the check of a step or of a final world."""

    name: str
    says: str
    source: str
    step: StepCheck | None = None
    final: FinalCheck | None = None


PROPERTIES: dict[str, Property] = {}


def _property(
    name: str, says: str, source: str, *, step: StepCheck | None = None, final: FinalCheck | None = None
) -> None:
    PROPERTIES[name] = Property(name, says, source, step, final)


def get_property(name: str) -> Property:
    """A property by name; an unknown name is an error that lists the known ones."""
    try:
        return PROPERTIES[name]
    except KeyError:
        raise SeamrefError(f"no property {name!r}; there are {', '.join(PROPERTIES)}") from None


def _lp(world: World, cpu: int) -> Lp:
    return world.host.platform.peek_lp(world.host.state.cpus[cpu].apicid)


# --- P-SEAMLDR ----------------------------------------------------------------------------------------------------


def _one_inside(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus or not _lp(after, did.actor).inP_SEAMLDR or _lp(before, did.actor).inP_SEAMLDR:
        return None
    inside = [cpu for cpu in range(after.cpus) if _lp(after, cpu).inP_SEAMLDR]
    if len(inside) > 1:
        return f"CPUs {inside} are all in P-SEAMLDR, which has one stack and one data area"
    if _lp(after, did.actor).id != after.host.platform.P_SEAMLDR_MUTEX:
        return f"CPU {did.actor} is in P-SEAMLDR without P_SEAMLDR_MUTEX"
    return None


_property("one-in-p-seamldr", "at most one processor is in P-SEAMLDR, and it holds P_SEAMLDR_MUTEX",
          "X2 SEAMCALL (SEAMCALL.p_seamldr_busy)", step=_one_inside)


def _never_turned_away(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.call is None or task.call.inside or not task.call.fn >> 63:
        return None
    if not before.host.platform.P_SEAMLDR_READY or _lp(after, did.actor).inP_SEAMLDR:
        return None
    holder = before.host.platform.P_SEAMLDR_MUTEX
    if holder is None:
        return None
    return f"CPU {did.actor} called P-SEAMLDR while processor {holder} was in it: VMfailInvalid, that is -ENODEV"


_property("nobody-collides", "no CPU calls P-SEAMLDR while another is in it (it would be told \"no such device\")",
          "LNX seamldr.c: seamldr_lock (LNX.seamldr_call.lock)", step=_never_turned_away)


def _session_closed(world: World) -> str | None:
    count, total = read_session(world.host.platform)
    if count and all(world.is_done(actor) for actor in world.actors):
        return f"{count} of {total} processors called INSTALL, nobody will complete the session"
    return None


_property("session-ends", "when everybody is done, no INSTALL session is left open",
          "PSL seamldr_install.c: only the last processor's call ends a session (INSTALL.leaf)", final=_session_closed)


# --- the module ---------------------------------------------------------------------------------------------------


def _not_when_blocked(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    was, now = _lp(before, did.actor), _lp(after, did.actor)
    if was.inSEAM or not now.inSEAM or now.inP_SEAMLDR or before.host.platform.SEAM_READY:
        return None
    return f"CPU {did.actor} entered the TDX module while SEAM_READY was 0"


_property("entered-only-when-ready", "the TDX module is never entered while SEAM_READY is 0",
          "X2 SEAMCALL (SEAMCALL.module_not_ready)", step=_not_when_blocked)


def _nobody_left_inside(before: World, after: World, did: Did) -> str | None:
    if before.host.platform.SEAMEXTEND == after.host.platform.SEAMEXTEND or not after.host.platform.SEAM_READY:
        return None
    identity = SEAMEXTEND.offset_of("mrseam")
    old, new = (w.host.platform.SEAMEXTEND[identity : identity + 48] for w in (before, after))
    if old == new and before.host.platform.SEAM_READY:
        return None
    for cpu in range(after.cpus):
        lp = _lp(after, cpu)
        if lp.inSEAM and not lp.inP_SEAMLDR and not after.host.state.cpus[cpu].dead:
            return f"a module was made ready while CPU {cpu} was still inside the one before"
    return None


_property("nobody-left-behind", "no processor is still in the old module when a new one is made ready",
          "PSL seamldr_install.c: serial calls on every processor prove it; INSTALL does not look",
          step=_nobody_left_inside)


def _svn(world: World) -> tuple[int, int]:
    at = SEAMEXTEND.offset_of("tee_tcb_svn")
    register = world.host.platform.SEAMEXTEND
    return register[at + 1], register[at]


def _svn_monotone(before: World, after: World, did: Did) -> str | None:
    if before.host.platform.SEAMEXTEND == after.host.platform.SEAMEXTEND:
        return None
    highest = max(after.remembered("svn", (0, 0)), _svn(before) if before.host.platform.SEAM_READY else (0, 0))
    if highest != after.remembered("svn", (0, 0)):
        after.remember(svn=highest)
    if after.host.platform.SEAM_READY and _svn(after) < highest:
        return f"SVN went from {highest[0]}.{highest[1]} to {_svn(after)[0]}.{_svn(after)[1]}"
    return None


_property("svn-never-falls", "the SVN of the module that answers never goes down",
          "PSL seamldr_install.c manifest check 13 (UPDATE only; LOAD has none)", step=_svn_monotone)


# --- SEAM memory --------------------------------------------------------------------------------------------------


def _memory_closed(before: World, after: World, did: Did) -> str | None:
    platform = after.host.platform
    if platform.p_seamldr_range == before.host.platform.p_seamldr_range and before.remembered("probed"):
        return None
    after.remember(probed=True)
    seamrr = platform.seamrr()
    if seamrr is None or platform.p_seamldr_range is None:
        return "SEAMRR or P_SEAMLDR_RANGE is gone"
    probe = platform.fork()
    places = (seamrr.base, seamrr.base + 0x1000, platform.p_seamldr_range.base, platform.p_seamldr_range.base + 0x1000,
              seamrr.end - 0x1000)
    for agent in (Agent.HOST, Agent.GUEST, Agent.SMM, Agent.DMA, Agent.TD):
        for at in places:
            data = probe.load(agent, at, 64)
            if not isinstance(data, HardwareFault) and data != b"\xff" * 64:
                return f"{agent.name} reads SEAM memory at 0x{at:X}: {data[:8].hex()}"
    return None


_property("seam-memory-closed", "SEAM memory is never readable from outside",
          "X2 SEAMRR (MEMORY.p_seamldr_range, MEMORY.module_range)", step=_memory_closed)


# --- the current VMCS ---------------------------------------------------------------------------------------------


def _vmcs_kept(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.pc != "seamldr.unlock":
        return None
    believed = after.host.state.cpus[did.actor].vmcs
    current = _lp(after, did.actor).current_vmcs
    if believed and current != believed:
        now = "none" if current == NONE else f"0x{current:X}"
        return f"behind seamldr_call on CPU {did.actor} KVM believes in VMCS 0x{believed:X}, current is {now}"
    return None


_property("vmcs-kept", "the VMCS that was current before seamldr_call is current behind it",
          "LNX X86_BUG_SEAMRET_INVD_VMCS; X2 ch. 2.3 (SEAMRET.vmcs)", step=_vmcs_kept)


def _vmcs_window(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus or "delivered" not in did.fault:
        return None
    believed = before.host.state.cpus[did.actor].vmcs
    if believed and _lp(before, did.actor).current_vmcs == NONE and not _lp(before, did.actor).inSEAM:
        return f"an interrupt handler on CPU {did.actor} finds no current VMCS where KVM left 0x{believed:X}"
    return None


_property("vmcs-window", "no NMI or machine-check handler finds the current VMCS gone",
          "LNX fedb3192-e68c-423c-93b2-a4dc2f964148@intel.com: why v1-v3's save and restore was given up",
          step=_vmcs_window)


# --- the end of a run ---------------------------------------------------------------------------------------------


def _no_deadlock(world: World) -> str | None:
    waiting = [actor for actor in world.actors if not world.is_done(actor)]
    if not waiting:
        return None
    dead = [cpu for cpu in range(world.cpus) if world.host.state.cpus[cpu].dead]
    names = ", ".join(world.name(actor) for actor in waiting if actor not in dead)
    if not names:
        return None
    return f"{names} can never get on" + (f": CPUs {dead} are in shutdown" if dead else "")


_property("no-deadlock", "every run comes to an end: nobody waits for ever", "LNX stop_machine", final=_no_deadlock)


def _one_identity(before: World, after: World, did: Did) -> str | None:
    if before.host.state.update is None and after.host.state.update is not None:
        after.remember(identities=len(before.host.platform.seamdb))
    elif before.remembered("update") is None and after.remembered("update") is Errno.OK:
        more = len(after.host.platform.seamdb) - after.remembered("identities", 0)
        if more != 1:
            return f"the update added {more} identities to SEAMDB"
    return None


_property("one-identity", "a successful update uses up exactly one entry of SEAMDB",
          "LNX tdx-host num_remaining_updates: one less for each successful update (INSTALL.success)",
          step=_one_identity)


def _updated(world: World) -> Errno | Finish | None:
    found = world.remembered("update")
    return found if isinstance(found, Errno | Finish) else None


def _no_false_success(world: World) -> str | None:
    if _updated(world) is not Errno.OK:
        return None
    rax = ask_module(world)
    return None if rax == 0 else f"the kernel reports a successful update; the module answers {_hex(rax)}"


_property("success-means-alive", "the host never reports success for a module that does not answer",
          "LNX tdx.c: initialized = true only behind TDH.SYS.UPDATE", final=_no_false_success)


def _watch_install(before: World, after: World, did: Did) -> str | None:
    """Remember the register, and what the module answers, when a session begins; compare when it fails with RDX = 0."""
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.call is None or task.call.fn != Leaf.SEAMLDR_INSTALL:
        return None
    (was, _), (now, _) = read_session(before.host.platform), read_session(after.host.platform)
    if was == 0 and now == 1:
        after.remember(session=(before.host.platform.SEAMEXTEND, ask_module(before)))
    inside, out = _lp(before, did.actor), _lp(after, did.actor)
    if not inside.inP_SEAMLDR or out.inP_SEAMLDR or now or out.rax == 0 or not after.remembered("session"):
        return None
    register, answer = after.remembered("session")
    after.remember(session=None, refused=(out.rax, out.rdx))
    if out.rdx != 0:
        return None
    if register != after.host.platform.SEAMEXTEND:
        return f"INSTALL failed with 0x{out.rax:X} and RDX = 0 (recoverable), but SEAMEXTEND is not what it was"
    if (found := ask_module(after)) != answer:
        return f"INSTALL failed with 0x{out.rax:X} and RDX = 0, but the old module now answers {_hex(found)}"
    return None


def _hex(rax: int | None) -> str:
    return "nobody (none can ask it)" if rax is None else f"0x{rax:X}"


_property("recoverable-means-untouched", "an INSTALL that fails with RDX = 0 leaves the register, and the old module's "
          "answers, as before the session", "PSL seamldr_install.c epilogue (INSTALL.failure)", step=_watch_install)


def _old_survives(world: World) -> str | None:
    if _updated(world) in (None, Errno.OK):
        return None
    rax = ask_module(world)
    if rax == 0:
        return None
    return f"the update ended with {_updated(world)}; the module answers {_hex(rax)}, and every TD is lost"


_property("old-module-survives", "after a failed update the old module answers as before",
          "what one would wish; Linux shuts the old module down before P-SEAMLDR has looked at anything",
          final=_old_survives)


def _tds_preserved(world: World) -> str | None:
    if _updated(world) is not Errno.OK:
        return None
    return td_troubles(world)


_property("tds-preserved", "a successful update preserves every TD: its measurement, and its vCPUs go on",
          "BASE TD-preserving update; LNX cover letters", final=_tds_preserved)


def _jobs_fine(world: World) -> str | None:
    for cpu, results in enumerate(world.rest.results):
        for name, ret in results:
            if ret is not Errno.OK:
                return f"{name} on CPU {cpu} returned {ret}"
    return None


_property("callers-succeed", "every caller that was only unlucky in its timing gets its answer",
          "LNX seamldr.c: reading seamldr_version must not fail because somebody else reads it too", final=_jobs_fine)


def _update_succeeds(world: World) -> str | None:
    found = _updated(world)
    if found is None or found is Errno.OK:
        return None
    return f"the update ended with {found}"


_property("update-succeeds", "the update returns 0", "what the administrator wanted", final=_update_succeeds)



def _module_ready(world: World) -> str | None:
    return None if world.host.platform.SEAM_READY else "nobody can call the TDX module: SEAM_READY is 0"


_property("module-ready", "in the end the TDX module can be called", "what the installation is for",
          final=_module_ready)


def _loader_reloaded(world: World) -> str | None:
    platform = world.host.platform
    if not platform.P_SEAMLDR_READY:
        return "nobody can call P-SEAMLDR: P_SEAMLDR_READY is 0"
    if platform.SEAM_READY or read_session(platform)[0] or read_shutdown(platform):
        return "P-SEAMLDR was not launched anew: it still has a module, a session, or a shutdown under way"
    return None


_property("loader-reloaded", "in the end a fresh P-SEAMLDR can be called", "NPS: a launch leaves P_SEAMLDR_READY = 1",
          final=_loader_reloaded)

STANDARD = (
    "one-in-p-seamldr", "nobody-collides", "session-ends", "entered-only-when-ready", "nobody-left-behind",
    "svn-never-falls", "seam-memory-closed", "vmcs-kept", "no-deadlock", "success-means-alive",
    "recoverable-means-untouched", "one-identity", "tds-preserved", "callers-succeed",
)
"""Properties that are checked when nobody says which."""

__all__ = ["PROPERTIES", "STANDARD", "Property", "get_property"]
