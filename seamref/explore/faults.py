"""Faults that strike one actor just before one of its steps, each as the platform or the host would suffer it.

A fault is armed for one actor; at each of that actor's steps it strikes or waits, and both are explored.  Where
striking turns out to change nothing (no entropy before a step that draws none) that branch is not followed.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from seamref.arch.events import EventKind, deliver_pending, raise_event, shutdown
from seamref.arch.lp import Activity
from seamref.arch.memory import Agent
from seamref.arch.outcome import Shutdown
from seamref.arch.seamops import SeamopsStatus
from seamref.explore.access import EVERYTHING, NOTHING, touch
from seamref.explore.probe import read_session
from seamref.explore.world import FAULTS, Fault, World
from seamref.host.abi import SEAMLDR_PARAMS, Leaf
from seamref.host.records import Control


def _event(kind: EventKind) -> Callable[[World, int], str]:
    def strike(world: World, actor: int) -> str:
        host = world.host
        outcome = raise_event(host.platform, host.cpu(actor).apicid, kind)
        if isinstance(outcome, Shutdown):
            host.set_cpu(actor, dead=True)
        return f"{kind.value}: {outcome}"

    return strike


def _shutdown(world: World, actor: int) -> str:
    host = world.host
    outcome = shutdown(host.platform, host.cpu(actor).apicid, "triple fault")
    host.set_cpu(actor, dead=True)
    return str(outcome)


def _no_entropy(world: World, actor: int) -> str:
    world.host.platform.inject("rdrand", (0, 0))
    return "RDRAND gives nothing"


def _no_entropy_ever(world: World, actor: int) -> str:
    world.host.platform.inject("rdrand", *[(0, 0)] * 12)
    return "RDRAND gives nothing, twelve times"


def _seamdb(status: SeamopsStatus, times: int) -> Callable[[World, int], str]:
    def strike(world: World, actor: int) -> str:
        if not _installs_next(world, actor):
            return ""
        world.host.platform.inject("seamdb", *[("INSERT", int(status))] * times)
        return f"SEAMDB_INSERT will answer {status.name}" + (f", {times} times" if times > 1 else "")

    return strike


def _installs_next(world: World, actor: int) -> bool:
    """Whether this CPU's next step is the last processor's INSTALL."""
    task = world.task(actor) if actor < world.cpus else None
    if task is None or task.call is None or not task.call.inside or task.call.fn != Leaf.SEAMLDR_INSTALL:
        return False
    lp = world.host.platform.peek_lp(world.host.state.cpus[actor].apicid)
    done, total = read_session(world.host.platform)
    return getattr(lp.program_state, "name", "") == "LEAF" and done == total - 1


def _update_params(world: World) -> int:
    shared = world.host.state.update
    return shared.params if isinstance(shared, Control) else int(world.remembered("params", 0))


def _corrupt(name: str) -> Callable[[World, int], str]:
    return lambda world, actor: flip(world, name)


def flip(world: World, name: str) -> str:
    """A device flips a bit of SEAMLDR_PARAMS ("params"), of the sigstruct or of the first module page; nothing where
    no update is under way."""
    at = _update_params(world)
    if not at:
        return ""
    if name != "params":
        params = SEAMLDR_PARAMS.decode(world.host.read(at, SEAMLDR_PARAMS.size))
        at = params.sigstruct_paddr if name == "sigstruct" else params.module_pages_pa_list[0]
        at += 900 if name == "sigstruct" else 0x80
    byte = world.host.read(at, 1)[0]
    world.host.platform.store(Agent.DMA, at, bytes((byte ^ 1,)))
    return f"a device flips a bit of the {name}"


def _skip_lock(world: World, actor: int) -> str:
    """The next seamldr_call of this CPU does not take the lock (a caller outside the wrapper)."""
    task = world.task(actor)
    if task is None or task.pc != "seamldr.lock" or task.call is not None:
        return ""
    record = world.host.cpu(actor)
    world.host.set_cpu(actor, tasks=(*record.tasks[:-1], replace(task, pc="seamldr.vmptrst")))
    return "goes on without seamldr_lock"


_IMAGE = touch(writes="image")
FAULTS.update((f.name, f) for f in (
    Fault("rdrand", "RDRAND fails once", NOTHING, _no_entropy),
    Fault("rdrand-dry", "RDRAND fails twelve times in a row", EVERYTHING, _no_entropy_ever),
    Fault("seamdb-entropy", "SEAMDB_INSERT has no entropy, once", touch(writes="seamdb"),
          _seamdb(SeamopsStatus.ENTROPY_ERROR, 1)),
    Fault("seamdb-dry", "SEAMDB_INSERT has no entropy, five times", touch(writes="seamdb"),
          _seamdb(SeamopsStatus.ENTROPY_ERROR, 5)),
    Fault("seamdb-full", "SEAMDB_INSERT fails with a database error", touch(writes="seamdb"),
          _seamdb(SeamopsStatus.DATABASE_ERROR, 1)),
    Fault("nmi", "an NMI arrives", touch(writes="ready"), _event(EventKind.NMI), waiting=True),
    Fault("smi", "an SMI arrives", NOTHING, _event(EventKind.SMI), waiting=True),
    Fault("mc", "a machine check arrives", touch(writes="ready"), _event(EventKind.MC), waiting=True),
    Fault("shutdown", "the processor enters shutdown", touch(writes="ready"), _shutdown,
          waiting=True),
    Fault("image", "a device flips a bit of the first module page", _IMAGE, _corrupt("module page")),
    Fault("sigstruct", "a device flips a bit of the sigstruct", _IMAGE, _corrupt("sigstruct")),
    Fault("params", "a device flips a bit of SEAMLDR_PARAMS", _IMAGE, _corrupt("params")),
    Fault("skip-lock", "a caller of P-SEAMLDR skips the lock", touch(writes="seamldr_lock p_seamldr"), _skip_lock),
))
# The VMCS bug, a TD build in flight, an offline or late CPU are scenarios, not faults of a moment.

__all__ = ["FAULTS", "Activity", "Fault", "deliver_pending"]
