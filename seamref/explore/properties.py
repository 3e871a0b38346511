"""What is proved: every property, and which are checked when nobody says which.

The checks of a step and of an end are explained in :mod:`seamref.explore.property`; those that watch the border of
SEAM are in :mod:`seamref.explore.boundary`, those of the module's identity and life in
:mod:`seamref.explore.identity`, those of the kernel's own books in :mod:`seamref.explore.books`.
"""

from __future__ import annotations

import seamref.explore.books
import seamref.explore.boundary
import seamref.explore.identity  # noqa: F401  all three declare properties
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.vmcs import NONE
from seamref.explore.probe import ask_module, read_session, read_shutdown, td_troubles
from seamref.explore.property import PROPERTIES, Property, declare, get_property, lp_of
from seamref.explore.world import Did, World
from seamref.host.abi import Errno, Leaf
from seamref.host.update import Finish

# --- P-SEAMLDR ----------------------------------------------------------------------------------------------------


def _one_inside(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus or not lp_of(after, did.actor).inP_SEAMLDR or lp_of(before, did.actor).inP_SEAMLDR:
        return None
    inside = [cpu for cpu in range(after.cpus) if lp_of(after, cpu).inP_SEAMLDR]
    if len(inside) > 1:
        return f"CPUs {inside} are all in P-SEAMLDR, which has one stack and one data area"
    if lp_of(after, did.actor).id != after.host.platform.P_SEAMLDR_MUTEX:
        return f"CPU {did.actor} is in P-SEAMLDR without P_SEAMLDR_MUTEX"
    return None


declare("one-in-p-seamldr", "at most one processor is in P-SEAMLDR, and it holds P_SEAMLDR_MUTEX",
        "SEAMCALL.p_seamldr_busy", "X2 SEAMCALL", step=_one_inside)


def _never_turned_away(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.call is None or task.call.inside or not task.call.fn >> 63:
        return None
    if not before.host.platform.P_SEAMLDR_READY or lp_of(after, did.actor).inP_SEAMLDR:
        return None
    holder = before.host.platform.P_SEAMLDR_MUTEX
    if holder is None:
        return None
    return f"CPU {did.actor} called P-SEAMLDR while processor {holder} was in it: VMfailInvalid, that is -ENODEV"


declare("nobody-collides", 'no CPU calls P-SEAMLDR while another is in it (it would be told "no such device")',
        "LNX.seamldr_call.lock", "LNX seamldr.c: seamldr_lock", step=_never_turned_away)


def _session_closed(world: World) -> str | None:
    count, total = read_session(world.host.platform)
    if count and all(world.is_done(actor) for actor in world.actors):
        return f"{count} of {total} processors called INSTALL, nobody will complete the session"
    return None


declare("session-ends", "when everybody is done, no INSTALL session is left open", "INSTALL.leaf",
        "PSL seamldr_install.c: only the last processor's call ends a session", final=_session_closed)


# --- the module ---------------------------------------------------------------------------------------------------


def _not_when_blocked(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    was, now = lp_of(before, did.actor), lp_of(after, did.actor)
    if was.inSEAM or not now.inSEAM or now.inP_SEAMLDR or before.host.platform.SEAM_READY:
        return None
    return f"CPU {did.actor} entered the TDX module while SEAM_READY was 0"


declare("entered-only-when-ready", "the TDX module is never entered while SEAM_READY is 0",
        "SEAMCALL.module_not_ready", "X2 SEAMCALL", step=_not_when_blocked)


def _nobody_left_inside(before: World, after: World, did: Did) -> str | None:
    if before.host.platform.SEAMEXTEND == after.host.platform.SEAMEXTEND or not after.host.platform.SEAM_READY:
        return None
    identity = SEAMEXTEND.offset_of("mrseam")
    old, new = (w.host.platform.SEAMEXTEND[identity : identity + 48] for w in (before, after))
    if old == new and before.host.platform.SEAM_READY:
        return None
    for cpu in range(after.cpus):
        lp = lp_of(after, cpu)
        if lp.inSEAM and not lp.inP_SEAMLDR and not after.host.state.cpus[cpu].dead:
            return f"a module was made ready while CPU {cpu} was still inside the one before"
    return None


declare("nobody-left-behind", "no processor is still in the old module when a new one is made ready", "INSTALL.leaf",
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


declare("svn-never-falls", "the SVN of the module that answers never goes down", "INSTALL.manifest.minor_svn",
        "PSL seamldr_install.c manifest check 13 (UPDATE only; LOAD has none)", step=_svn_monotone)


# --- the current VMCS ---------------------------------------------------------------------------------------------


def _vmcs_kept(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.pc != "seamldr.unlock":
        return None
    believed = after.host.state.cpus[did.actor].vmcs
    current = lp_of(after, did.actor).current_vmcs
    if believed and current != believed:
        now = "none" if current == NONE else f"0x{current:X}"
        return f"behind seamldr_call on CPU {did.actor} KVM believes in VMCS 0x{believed:X}, current is {now}"
    return None


declare("vmcs-kept", "the VMCS that was current before seamldr_call is current behind it", "SEAMRET.vmcs",
        "LNX X86_BUG_SEAMRET_INVD_VMCS; X2 ch. 2.3", step=_vmcs_kept)


def _vmcs_window(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus or "delivered" not in did.fault:
        return None
    believed = before.host.state.cpus[did.actor].vmcs
    if believed and lp_of(before, did.actor).current_vmcs == NONE and not lp_of(before, did.actor).inSEAM:
        return f"an interrupt handler on CPU {did.actor} finds no current VMCS where KVM left 0x{believed:X}"
    return None


declare("vmcs-window", "no NMI or machine-check handler finds the current VMCS gone", "LNX.seamldr_call.vmcs",
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


declare("no-deadlock", "every run comes to an end: nobody waits for ever", "UPDATE.stop_machine", "LNX stop_machine",
        final=_no_deadlock)


def _one_identity(before: World, after: World, did: Did) -> str | None:
    if before.host.state.update is None and after.host.state.update is not None:
        after.remember(identities=len(before.host.platform.seamdb))
    elif before.remembered("update") is None and after.remembered("update") is Errno.OK:
        more = len(after.host.platform.seamdb) - after.remembered("identities", 0)
        if more != 1:
            return f"the update added {more} identities to SEAMDB"
    return None


declare("one-identity", "a successful update uses up exactly one entry of SEAMDB", "INSTALL.success",
        "LNX tdx-host num_remaining_updates: one less for each successful update", step=_one_identity)


def _updated(world: World) -> Errno | Finish | None:
    found = world.remembered("update")
    return found if isinstance(found, Errno | Finish) else None


def _no_false_success(world: World) -> str | None:
    if _updated(world) is not Errno.OK:
        return None
    rax = ask_module(world)
    return None if rax == 0 else f"the kernel reports a successful update; the module answers {_hex(rax)}"


declare("success-means-alive", "the host never reports success for a module that does not answer",
        "UPDATE.run_update", "LNX tdx.c: initialized = true only behind TDH.SYS.UPDATE", final=_no_false_success)


def _refused(before: World, after: World, did: Did) -> tuple[int, int, bool, int | None] | None:
    """An INSTALL that ended its session with a failure: RAX, RDX, whether the register is as before it, and what the
    old module answered then.

    The register, and what the module answers, are noted when a session begins: on one processor, where its only call
    begins and ends it, when that call enters P-SEAMLDR.
    """
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.call is None or task.call.fn != Leaf.SEAMLDR_INSTALL:
        return None
    (was, _), (now, _) = read_session(before.host.platform), read_session(after.host.platform)
    inside, out = lp_of(before, did.actor), lp_of(after, did.actor)
    opens = out.inP_SEAMLDR and not inside.inP_SEAMLDR if after.cpus == 1 else was == 0 and now == 1
    if opens and after.remembered("session") is before.remembered("session"):
        after.remember(session=(before.host.platform.SEAMEXTEND, ask_module(before)))
    if not inside.inP_SEAMLDR or out.inP_SEAMLDR or now or out.rax == 0 or not before.remembered("session"):
        return None
    register, answer = before.remembered("session")
    after.remember(session=None)
    return out.rax, out.rdx, register == after.host.platform.SEAMEXTEND, answer


def _untouched(before: World, after: World, did: Did) -> str | None:
    found = _refused(before, after, did)
    if found is None or found[1] != 0:
        return None
    rax, _, same, answer = found
    if not same:
        return f"INSTALL failed with 0x{rax:X} and RDX = 0 (recoverable), but SEAMEXTEND is not what it was"
    if (now := ask_module(after)) != answer:
        return f"INSTALL failed with 0x{rax:X} and RDX = 0, but the old module now answers {_hex(now)}"
    return None


def _touched(before: World, after: World, did: Did) -> str | None:
    found = _refused(before, after, did)
    if found is None or found[1] == 0 or not found[2] or ask_module(after) != found[3]:
        return None
    return f"INSTALL failed with 0x{found[0]:X} and RDX = {found[1]}, but register and module are as before the session"


def _hex(rax: int | None) -> str:
    return "nobody (none can ask it)" if rax is None else f"0x{rax:X}"


declare("recoverable-means-untouched", "an INSTALL that fails with RDX = 0 leaves the register, and the old "
        "module's answers, as before the session", "INSTALL.failure", "PSL seamldr_install.c epilogue",
        step=_untouched)
declare("unrecoverable-means-touched", "an INSTALL that fails with RDX = 1 has changed the register or the old module: "
        "a refusal that changed nothing says RDX = 0", "INSTALL.leaf", "PSL seamldr_install.c epilogue",
        step=_touched)


def _old_survives(world: World) -> str | None:
    if _updated(world) in (None, Errno.OK):
        return None
    rax = ask_module(world)
    if rax == 0:
        return None
    return f"the update ended with {_updated(world)}; the module answers {_hex(rax)}, and every TD is lost"


declare("old-module-survives", "after a failed update the old module answers as before", "INSTALL.failure",
        "what one would wish; Linux shuts the old module down before P-SEAMLDR has looked at anything",
        final=_old_survives)


def _tds_preserved(world: World) -> str | None:
    if _updated(world) is not Errno.OK:
        return None
    return td_troubles(world)


declare("tds-preserved", "a successful update preserves every TD: its measurement, and its vCPUs go on",
        "SYS.UPDATE.effect", "BASE TD-preserving update; LNX cover letters", final=_tds_preserved)


def _jobs_fine(world: World) -> str | None:
    for cpu, results in enumerate(world.rest.results):
        for name, ret in results:
            if ret is not Errno.OK:
                return f"{name} on CPU {cpu} returned {ret}"
    return None


declare("callers-succeed", "every caller that was only unlucky in its timing gets its answer",
        "LNX.seamldr_call.lock", "LNX seamldr.c: reading seamldr_version must not fail because somebody else reads "
        "it too", final=_jobs_fine)


def _update_succeeds(world: World) -> str | None:
    found = _updated(world)
    if found is None or found is Errno.OK:
        return None
    return f"the update ended with {found}"


declare("update-succeeds", "the update returns 0", "UPDATE.result", "what the administrator wanted",
        final=_update_succeeds)



def _module_ready(world: World) -> str | None:
    return None if world.host.platform.SEAM_READY else "nobody can call the TDX module: SEAM_READY is 0"


declare("module-ready", "in the end the TDX module can be called", "INSTALL.success", "what the installation is for",
        final=_module_ready)


def _loader_reloaded(world: World) -> str | None:
    platform = world.host.platform
    if not platform.P_SEAMLDR_READY:
        return "nobody can call P-SEAMLDR: P_SEAMLDR_READY is 0"
    if platform.SEAM_READY or read_session(platform)[0] or read_shutdown(platform):
        return "P-SEAMLDR was not launched anew: it still has a module, a session, or a shutdown under way"
    return None


declare("loader-reloaded", "in the end a fresh P-SEAMLDR can be called", "SHUTDOWN.leaf",
        "NPS: a launch leaves P_SEAMLDR_READY = 1", final=_loader_reloaded)

STANDARD = (
    "one-in-p-seamldr", "nobody-collides", "session-ends", "entered-only-when-ready", "nobody-left-behind",
    "svn-never-falls", "seam-memory-closed", "vmcs-kept", "no-deadlock", "success-means-alive",
    "recoverable-means-untouched", "one-identity", "tds-preserved", "callers-succeed", "registers-kept",
    "blocking-kept", "secrets-kept", "death-closes-seam", "measured-as-installed", "ready-means-intact",
    "only-signed-modules", "updates-counted", "unrecoverable-means-touched", "module-lifecycle", "kernel-balanced",
    "version-true", "caches-marked",
)
"""Properties that are checked when nobody says which."""

__all__ = ["PROPERTIES", "STANDARD", "Property", "get_property"]
