"""Which steps commute, and what an actor may still touch: what partial-order reduction stands on.

:func:`next_accesses` says what an actor's next step may touch.  :func:`ahead` says what an actor may touch, now or
later, *as long as one other actor does not move*.  If nothing that anybody else may do before p moves conflicts with
p's next step, then it does not matter when p takes it: exploring that step alone reaches every final state and every
step at which something goes wrong (a persistent set; the state graph has no cycles, because worlds count steps).

Both functions are declarations beside the machine, and declarations can be wrong.  The tests therefore walk every
reachable state of small configurations and check, at each of them, that independent steps really commute and that
``ahead`` never grows along any other actor's step (:mod:`seamref.explore.audit`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from seamref.arch.lp import Lp
from seamref.errors import SeamrefError
from seamref.explore.access import EVERYTHING, NOTHING, Accesses, touch, union
from seamref.explore.world import FAULTS, World
from seamref.host.abi import Errno, Leaf
from seamref.host.records import Call, Control, Task, UpdateState
from seamref.host.series import Failure, Lock


@dataclass(frozen=True, slots=True)
class Assume:
    """What a reduced exploration takes for granted; it starts again without it when it meets the contrary.

    Sound: up to the first step that contradicts, every declaration holds, so the reduced exploration meets such a step
    if any run has one.
    """

    nobody_fails: bool = True
    nobody_dies: bool = True


CAUTIOUS = Assume(False, False)

# --- calls --------------------------------------------------------------------------------------------------------

_DIES = touch(writes="ready")
_SEAMLDR_ENTER = touch(reads="ready", writes="p_seamldr")
_SEAMLDR_INSIDE = touch(writes="p_seamldr")
_SEAMLDR_LEAF: dict[int, Accesses] = {
    Leaf.SEAMLDR_INFO: touch(reads="ready seamdb module", writes="p_seamldr"),
    Leaf.SEAMLDR_INSTALL: touch(reads="image", writes="p_seamldr ready seamdb module", adds="entropy"),
    Leaf.SEAMLDR_SHUTDOWN: touch(writes="p_seamldr ready"),
}
_MODULE_ENTER = touch(reads="ready", adds="module.busy")
_MODULE_LEAF: dict[tuple[int, str], Accesses] = {
    (Leaf.TDH_SYS_LP_INIT, "dispatch"): touch(reads="module.state"),
    (Leaf.TDH_SYS_LP_INIT, "checks"): touch(reads="module.state", adds="module.lock entropy"),
    (Leaf.TDH_SYS_LP_INIT, "effect"): touch(adds="module.lock module.lps"),
    (Leaf.TDH_SYS_LP_INIT, "leave"): touch(adds="module.busy"),
    (Leaf.TDH_SYS_RD, "dispatch"): touch(reads="module.state"),
    (Leaf.TDH_SYS_RD, "leave"): touch(adds="module.busy"),
}
_MODULE_ANY = touch(writes="module tds seamdb", adds="entropy")

AFTER: dict[str, Accesses] = {
    "shutdown.read": NOTHING,
    "shutdown.returned": touch(writes="kernel kernel.cpus"),
    "seamldr.returned": NOTHING,
    "enable.sysinit_done": touch(writes="kernel"),
    "enable.done": NOTHING,
    "run_update.updated": touch(writes="kernel"),
    "run_update.read": touch(writes="kernel"),
}
"""What the kernel touches behind a returned call, before its next separable step."""


def _whole_call(leaf: int) -> Accesses:
    """All that a call may touch from SEAMCALL to SEAMRET."""
    if leaf >> 63:
        return union(_SEAMLDR_ENTER, _SEAMLDR_LEAF.get(leaf, EVERYTHING), touch(adds="entropy"))
    if leaf == Leaf.TDH_SYS_LP_INIT:
        return union(_MODULE_ENTER, *(a for (of, _), a in _MODULE_LEAF.items() if of == leaf))
    return union(_MODULE_ENTER, _MODULE_ANY)


def _call_step(call: Call, lp: Lp, pc: str, assume: Assume) -> Accesses:
    after = AFTER.get(pc, EVERYTHING)
    to_seamldr = call.fn >> 63
    if not call.inside:
        return (_SEAMLDR_ENTER if to_seamldr else touch(reads="ready")) | after
    dies = NOTHING if assume.nobody_dies else _DIES
    if to_seamldr:
        stage = getattr(lp.program_state, "name", "")
        if stage == "LEAF" or hasattr(lp.program_state, "phase"):
            return _SEAMLDR_LEAF.get(call.fn, EVERYTHING) | dies
        return union(_SEAMLDR_INSIDE, dies, after if stage == "LEAVE" else NOTHING,
                     touch(adds="entropy") if lp.program_state is None else NOTHING)
    at = lp.program_state
    if at is None:
        return touch(adds="module.busy") | dies
    phase = getattr(at, "phase", "")
    return union(_MODULE_LEAF.get((call.fn, phase), touch(adds="module.busy") if phase == "leave" else _MODULE_ANY),
                 dies, after if phase == "leave" else NOTHING)


# --- the next step ------------------------------------------------------------------------------------------------

JOB_ACCESSES: dict[str, Accesses] = {}
"""All that a job may touch, by name (default: everything)."""
STEP_ACCESSES: dict[str, Callable[[World, int, Task], Accesses]] = {}
"""Accesses of the step at a program counter, for handlers that a scenario brings."""


def next_accesses(world: World, actor: int, assume: Assume = CAUTIOUS) -> Accesses:
    """What the next step of an actor may touch."""
    armed = _armed(world, actor)
    if actor >= world.cpus:
        index = actor - world.cpus
        return world.setting.extras[index].accesses(world, world.rest.extras[index]) | armed
    task = world.task(actor)
    if task is None:
        return touch(reads="update hotplug") | union(*(_job(name) for name in world.rest.scripts[actor][:1])) | armed
    host = world.host
    if task.call is not None:
        return _call_step(task.call, host.platform.peek_lp(host.state.cpus[actor].apicid), task.pc, assume) | armed
    return _pc_step(world, actor, task, assume) | armed


def _job(name: str) -> Accesses:
    return JOB_ACCESSES.get(name.partition(":")[0], EVERYTHING)


def _armed(world: World, actor: int) -> Accesses:
    return union(*(FAULTS[armed.kind].accesses for armed in world.rest.faults if armed.actor == actor))


_OBSERVE = touch(reads="update.state update.failed kernel.cpus")


def _pc_step(world: World, cpu: int, task: Task, assume: Assume) -> Accesses:
    match task.pc:
        case "update.observe":
            return _OBSERVE
        case "update.ack":
            return _ack(_control(world), task, assume)
        case "update.check":
            return touch(reads="update.failed")
        case "seamldr.vmptrld":
            return NOTHING
        case "update.leave":
            return _leave(task)
        case "seamldr.lock" | "seamldr.enter":
            return touch(writes="seamldr_lock") if _wants_lock(world, task) else NOTHING
        case "seamldr.unlock":
            return (touch(writes="seamldr_lock") if _wants_lock(world, task) else NOTHING) | (
                AFTER.get(task.then, NOTHING))
        case "enable.lock" | "enable.start":
            return touch(reads="kernel kernel.cpus", writes="sysinit_lock")
        case "enable.unlock":
            return touch(writes="sysinit_lock")
        case _:
            found = STEP_ACCESSES.get(task.pc)
            return EVERYTHING if found is None else found(world, cpu, task)


def _control(world: World) -> Control:
    shared = world.host.state.update
    assert isinstance(shared, Control)
    return shared


def _ack(shared: Control, task: Task, assume: Assume) -> Accesses:
    found = touch(adds="update.acks")
    if task.ret is not Errno.OK:
        found |= touch(writes="update.failed")
    if shared.acks + 1 >= len(shared.cpus):
        found |= touch(reads="update.failed", writes="update.state")
    return found


def _leave(task: Task) -> Accesses:
    """Only errors are read in the order in which they were recorded."""
    fine = task.ret is Errno.OK and task.worst is Errno.OK
    return touch(adds="update.results") if fine else touch(writes="update.results")


def _wants_lock(world: World, task: Task) -> bool:
    match world.host.series.lock:
        case Lock.NONE:
            return False
        case Lock.INSTALL_ONLY:
            return task.data == Leaf.SEAMLDR_INSTALL
        case _:
            return True


# --- what may still come ------------------------------------------------------------------------------------------


def ahead(world: World, actor: int, frozen: int, assume: Assume = CAUTIOUS) -> Accesses:
    """What ``actor`` may touch, now or later, before ``frozen`` takes its next step."""
    armed = _armed(world, actor)
    if actor >= world.cpus:
        index = actor - world.cpus
        return world.setting.extras[index].ahead(world, world.rest.extras[index], frozen) | armed
    record = world.host.state.cpus[actor]
    if record.dead:
        return NOTHING
    found = armed
    for task in reversed(record.tasks):
        part, stays = _task_ahead(world, actor, task, frozen, assume)
        found |= part
        if stays:
            return found
    jobs = world.rest.scripts[actor]
    if jobs:
        found = union(found, touch(reads="update hotplug"), *(_job(name) for name in jobs),
                      NOTHING if assume.nobody_dies else _DIES)
    return found


def _task_ahead(world: World, cpu: int, task: Task, frozen: int, assume: Assume) -> tuple[Accesses, bool]:
    """What a task may touch, and whether it certainly cannot end before ``frozen`` moves."""
    shared = world.host.state.update
    if isinstance(shared, Control) and cpu in shared.cpus and _is_worker(task):
        return _worker_ahead(world, shared, cpu, task, frozen, assume)
    if task.pc.startswith("seamldr.") and task.then == "seamldr.return":
        return _seamldr_ahead(world, task, frozen, assume)
    if task.pc == "seamldr.return":
        return NOTHING, False
    running = world.rest.running[cpu]
    if running and len(world.host.state.cpus[cpu].tasks) == 1:
        return _job(running) | (NOTHING if assume.nobody_dies else _DIES), False
    return EVERYTHING, False


def _is_worker(task: Task) -> bool:
    return task.pc.startswith("update.") or task.cur > 0


def _seamldr_ahead(world: World, task: Task, frozen: int, assume: Assume) -> tuple[Accesses, bool]:
    """A locked call of P-SEAMLDR from where it is to its end."""
    lock = touch(writes="seamldr_lock") if _wants_lock(world, task) else NOTHING
    if task.pc in ("seamldr.enter", "seamldr.lock"):
        if lock != NOTHING and world.host.state.seamldr_lock == frozen:
            return NOTHING, True
        return union(lock, _whole_call(task.data), NOTHING if assume.nobody_dies else _DIES), False
    if task.pc == "seamldr.unlock":
        return lock, False
    leaf = task.call.fn if task.call is not None else task.data
    return union(lock, _whole_call(leaf), NOTHING if assume.nobody_dies else _DIES), False


def _worker_ahead(
    world: World, shared: Control, cpu: int, task: Task, frozen: int, assume: Assume
) -> tuple[Accesses, bool]:
    """A worker of stop_machine: the phases it can get to before ``frozen`` acknowledges one that it has not."""
    if task.pc == "update.leave":
        return _leave(task), False
    acked = task.pc in ("update.check", "update.observe")
    limit = _held_by(world, shared, frozen)
    found = _OBSERVE if task.cur < limit else touch(reads="update.failed")
    may_fail = not assume.nobody_fails
    current = UpdateState(task.cur)
    if not acked:
        part, stays = _phase_rest(world, cpu, task, frozen, assume)
        found |= part
        if stays:
            return found, True
        found |= _acks(current, limit, may_fail)
    for state in UpdateState:
        if current < state <= min(limit, UpdateState.DONE):
            found |= _phase(world, shared, cpu, state, frozen, assume) | _acks(state, limit, may_fail)
    leaves = may_fail or shared.failures > 0 or limit >= UpdateState.DONE
    if leaves:
        wrong = may_fail or shared.failures or task.ret is not Errno.OK or task.worst is not Errno.OK
        found |= touch(writes="update.results") if wrong else touch(adds="update.results")
    return found, not leaves


def _held_by(world: World, shared: Control, frozen: int) -> int:
    """The last state that workers can be in before ``frozen`` moves: the one it has not acknowledged."""
    task = world.task(frozen) if frozen < world.cpus else None
    if task is None or frozen not in shared.cpus or not _is_worker(task) or task.pc == "update.leave":
        return UpdateState.DONE + 1
    return task.cur + 1 if task.pc in ("update.check", "update.observe") else task.cur


def _acks(state: int, limit: int, may_fail: bool) -> Accesses:
    """Acknowledging ``state``; the state can only move on if ``frozen`` has acknowledged it."""
    found = touch(adds="update.acks")
    if state < limit:
        found |= touch(reads="update.failed", writes="update.state")
    if may_fail:
        found |= touch(writes="update.failed")
    return found


_INSTALL = union(_SEAMLDR_ENTER, _SEAMLDR_LEAF[Leaf.SEAMLDR_INSTALL], touch(adds="entropy"))
_LP_INIT = _whole_call(Leaf.TDH_SYS_LP_INIT)
_SYS_INIT = union(_whole_call(Leaf.TDH_SYS_INIT), touch(writes="kernel"))
_SYSINIT_LOCK = touch(writes="sysinit_lock", reads="kernel kernel.cpus")


def _phase(world: World, shared: Control, cpu: int, state: UpdateState, frozen: int, assume: Assume) -> Accesses:
    """All that a worker may touch in a state before it acknowledges it."""
    leads = cpu == shared.lead
    dies = NOTHING if assume.nobody_dies else _DIES
    host = world.host.state
    match state:
        case UpdateState.SHUTDOWN | UpdateState.RUN_UPDATE if leads:
            return union(_whole_call(Leaf.TDH_SYS_SHUTDOWN), touch(writes="kernel kernel.cpus"), dies)
        case UpdateState.CPU_INSTALL:
            if host.series.lock is Lock.NONE:
                return _INSTALL | dies
            return NOTHING if host.seamldr_lock == frozen else union(_INSTALL, touch(writes="seamldr_lock"), dies)
        case UpdateState.CPU_INIT:
            if host.sysinit_lock == frozen:
                return NOTHING
            init = NOTHING if _inited(world) else _SYS_INIT
            return union(_SYSINIT_LOCK, init, _LP_INIT, dies)
        case _:
            return NOTHING


def _inited(world: World) -> bool:
    """Whether TDH.SYS.INIT is behind us: remembered since the last SHUTDOWN."""
    shared = world.host.state.update
    return world.host.state.module.sysinit_done and isinstance(shared, Control) and shared.state >= UpdateState.CPU_INIT


def _phase_rest(world: World, cpu: int, task: Task, frozen: int, assume: Assume) -> tuple[Accesses, bool]:
    """What is left of the state that a worker is in."""
    dies = NOTHING if assume.nobody_dies else _DIES
    if task.pc == "update.ack":
        return NOTHING, False
    match UpdateState(task.cur):
        case UpdateState.CPU_INSTALL:
            return _seamldr_ahead(world, task, frozen, assume)
        case UpdateState.CPU_INIT:
            match task.pc:
                case "enable.start" | "enable.lock":
                    if world.host.state.sysinit_lock == frozen:
                        return NOTHING, True
                    return union(_SYSINIT_LOCK, NOTHING if _inited(world) else _SYS_INIT, _LP_INIT, dies), False
                case "enable.sysinit" | "enable.sysinit_done":
                    return union(_SYSINIT_LOCK, _SYS_INIT, _LP_INIT, dies), False
                case "enable.unlock":
                    return union(_SYSINIT_LOCK, _LP_INIT, dies), False
                case "enable.done":
                    return _LP_INIT | dies, False
    return union(_whole_call(Leaf.TDH_SYS_SHUTDOWN), touch(writes="kernel kernel.cpus"), dies), False


def persistent(
    world: World, enabled: list[int], assume: Assume, widened: Collection[str] = frozenset()
) -> list[int]:
    """One actor whose step should not matter to anybody before it is taken, or all of them.

    ``widened``: where an actor may not stand to be chosen, because what it really touched once mattered.
    """
    if len(enabled) == 1:
        return enabled
    living = [actor for actor in world.actors if not world.is_done(actor)]
    for actor in enabled:
        mine = next_accesses(world, actor, assume)
        if mine == EVERYTHING or (widened and world.site(actor) in widened):
            continue
        if not any(other != actor and mine.conflicts(ahead(world, other, actor, assume)) for other in living):
            return [actor]
    return enabled


__all__ = ["AFTER", "CAUTIOUS", "JOB_ACCESSES", "STEP_ACCESSES", "Assume", "Failure", "SeamrefError", "ahead",
           "next_accesses", "persistent"]
