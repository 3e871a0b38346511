"""The update: stop_machine on every online CPU, in step, each CPU a step machine.

START, SHUTDOWN, CPU_INSTALL, CPU_INIT, RUN_UPDATE, DONE.  Every CPU runs the same loop: wait until the global state
moves, do that state's work, acknowledge; the last acknowledgement moves the state on.  What happens on a failure, who
leads and what is forgotten and read again differs between the versions of the series and is asked of the record.

:func:`begin` starts it, :func:`seamref.host.tasks.step` takes one separable piece on one CPU, :func:`finish` collects.
:func:`run_update` does all three in a given schedule.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from enum import Enum

import seamref.host.enable  # noqa: F401  CPU_INIT is its handlers
from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import (
    AVOID_COMPAT_SENSITIVE,
    FEATURES0_UPDATE_COMPATIBILITY,
    FIELD_MAJOR_VERSION,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_TDX_FEATURES0,
    FIELD_UPDATE_VERSION,
    TDX_INTERRUPTED_RESUMABLE,
    TDX_SEAMCALL_STATUS_MASK,
    TDX_UPDATE_COMPAT_SENSITIVE,
    Args,
    Errno,
    Leaf,
    leaf_version,
)
from seamref.host.kernel import Host
from seamref.host.metadata import EXT_FIELDS, M16, may_need_extensions, read_sysinfo_field
from seamref.host.records import Call, Control, ModuleState, Stub, Task, UpdateState, Wrap
from seamref.host.records import having as replace
from seamref.host.seamcall import prerr
from seamref.host.seamldr import seamldr_task
from seamref.host.series import AfterShutdown, Compat, Failure, Handoff, Lead, Refresh
from seamref.host.tasks import Next, Stepped, Stuck, handler, is_blocked, local, may_wait, start, step
from seamref.spec import CHOSEN, MEASURED, clause, implements

clause("UPDATE.states", "START, SHUTDOWN, CPU_INSTALL, CPU_INIT, RUN_UPDATE, DONE", "LNX seamldr.c")
clause("UPDATE.stop_machine", "the worker runs on every online CPU with interrupts off, every vCPU out of its guest",
       "LNX seamldr.c")


def control(host: Host) -> Control:
    """The update under way."""
    return host.control()


def _set(host: Host, **changes: object) -> None:
    host.set_control(**changes)


# --- the worker's loop --------------------------------------------------------------------------------------


def _observe_waits(host: Host, cpu: int, task: Task) -> str:
    shared = control(host)
    if shared.state != task.cur or _leaves(host, task):
        return ""
    return f"waits for the others in {shared.state.name}"


@may_wait("update.observe", _observe_waits)
@implements("UPDATE.observe", "a worker acts when the global state differs from its own; else it relaxes and looks at "
            "the failures", "LNX seamldr.c")
def _observe(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.observe: single read of the state; `continue` still evaluates the loop condition."""
    shared = control(host)
    if shared.state == task.cur:
        return Next("sees the failure", replace(task, pc="update.leave"))
    return Next(f"sees {shared.state.name}", replace(task, cur=int(shared.state), ret=Errno.OK, pc="update.work"))


def _leaves(host: Host, task: Task) -> bool:
    if host.series.failure is Failure.JUMP_DONE:
        return task.cur == UpdateState.DONE
    return task.cur == UpdateState.DONE or control(host).failures > 0


@local("update.work")
@implements("UPDATE.work", "SHUTDOWN and RUN_UPDATE by the lead CPU; CPU_INSTALL and CPU_INIT by every CPU",
            "LNX seamldr.c")
def _work(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.work: which piece the state demands of this CPU."""
    state = UpdateState(task.cur)
    leads = cpu == control(host).lead
    match state:
        case UpdateState.SHUTDOWN if leads:
            return Next("", replace(task, pc="shutdown.start"))
        case UpdateState.CPU_INSTALL:
            call = seamldr_task(Leaf.SEAMLDR_INSTALL, control(host).params, "update.ack", cur=task.cur)
            return Next("", replace(call, worst=task.worst))
        case UpdateState.CPU_INIT:
            return Next("", replace(task, pc="enable.start", then="update.ack"))
        case UpdateState.RUN_UPDATE if leads:
            return Next("", replace(task, pc="run_update.updated", call=_update_call(host)))
        case _:
            return Next("nothing to do", replace(task, pc="update.ack"))


@handler("update.ack")
@implements("UPDATE.ack", "every CPU acknowledges every state, failed or not; the last one moves the state on unless "
            "anything failed", "LNX seamldr.c")
def _ack(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.ack: under the control's raw spinlock, so it is one piece."""
    shared = control(host)
    failed = task.ret is not Errno.OK
    worst = task.ret if failed else task.worst
    rule = host.series.failure
    mine = UpdateState(task.cur)
    did = f"acknowledges {mine.name}" + (f" with {task.ret}" if failed else "")
    if failed:
        _set(host, failures=shared.failures + 1)
    if failed and rule is Failure.NO_ACK:
        did = f"fails in {mine.name} with {task.ret}: no acknowledgement"
    elif host.arrive(len(shared.cpus)):
        shared = control(host)
        if rule is not Failure.ALL_ACK or shared.failures == 0:
            jump = rule is Failure.JUMP_DONE and shared.failures > 0
            state = UpdateState.DONE if jump else UpdateState(shared.state + 1)
            _set(host, acks=0, state=state)
            did += f": all did; {state.name}" if shared.state < state <= UpdateState.DONE else ": all did"
    return Next(did, replace(task, pc="update.check", worst=worst))


@handler("update.check")
@implements("UPDATE.loop", "a worker leaves in DONE, or as soon as anything failed", "LNX seamldr.c")
def _check(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.loop."""
    if _leaves(host, task):
        return Next("leaves the loop", replace(task, pc="update.leave"))
    return Next("loops on", replace(task, pc="update.observe"))


@handler("update.leave")
def _leave(host: Host, cpu: int, task: Task) -> Next:
    """The worker returns; v9 on: the result of its last state, before: the error it met."""
    ret = task.ret if host.series.failure is Failure.ALL_ACK else task.worst
    host.returned(cpu, ret)
    host.set_cpu(cpu, irqs_off=False)
    return Next(f"returns {ret}", None, ret)


# --- SHUTDOWN -----------------------------------------------------------------------------------------------


@local("shutdown.start")
@implements("UPDATE.handoff_version", "Linux asks for the highest handoff version the old module can write (MODULE_HV)",
            "LNX tdx.c tdx_module_shutdown")
def _shutdown_start(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.handoff_version: read now, or taken from what was read at boot."""
    info = host.state.sysinfo
    if host.series.handoff in (Handoff.CACHED, Handoff.CACHED_IF_SUPPORTED):
        if info is None:
            return Next("no system information", replace(task, pc="update.ack", ret=Errno.EIO))
        return Next(f"handoff version {info.module_hv}, cached",
                    replace(task, pc="shutdown.call", data=info.module_hv))
    call = Call(Leaf.TDH_SYS_RD, Args(rdx=FIELD_MODULE_HV), Stub.RET, Wrap.PRERR_RET)
    return Next("reads MODULE_HV", replace(task, pc="shutdown.read", call=call))


@local("shutdown.read")
def _shutdown_read(host: Host, cpu: int, task: Task) -> Next:
    """The handoff version arrived, or did not: abort (merged), or warn and ask for 0 (v9, v10)."""
    if task.ret is not Errno.OK:
        if host.series.handoff is Handoff.READ_WARN:
            host.warn(log.WARN_HANDOFF, once=True)
            return Next("no handoff version: warns", replace(task, pc="shutdown.call", data=0))
        return Next(f"no handoff version: {task.ret}", replace(task, pc="update.ack"))
    assert task.returned is not None
    hv = task.returned.args.r8 & M16
    return Next(f"handoff version {hv}", replace(task, pc="shutdown.call", data=hv))


@local("shutdown.call")
@implements("UPDATE.compat_flag", "RCX bit 16 asks the module to refuse while a TD is in a state that an update may "
            "spoil; merged Linux never sets it", "LNX v3-v10 tdx.c")
def _shutdown_call(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.compat_flag."""
    info = host.state.sysinfo
    supported = info is not None and bool(info.features0 & FEATURES0_UPDATE_COMPATIBILITY)
    flag = host.series.compat is Compat.ALWAYS or (host.series.compat is Compat.IF_SUPPORTED and supported)
    rcx = task.data | (AVOID_COMPAT_SENSITIVE if flag else 0)
    wrap = Wrap.PRERR if host.series.compat is Compat.ABSENT else Wrap.RAW
    call = Call(Leaf.TDH_SYS_SHUTDOWN, Args(rcx=rcx), wrap=wrap)
    return Next(f"TDH.SYS.SHUTDOWN(0x{rcx:X})", replace(task, pc="shutdown.returned", call=call))


@local("shutdown.returned")
def _shutdown_returned(host: Host, cpu: int, task: Task) -> Next:
    """Refused: nothing changed.  Done: forget that the module and its CPUs were initialised."""
    ret = task.ret
    if host.series.compat is not Compat.ABSENT:
        assert task.returned is not None
        if task.returned.rax & TDX_SEAMCALL_STATUS_MASK == TDX_UPDATE_COMPAT_SENSITIVE:
            return Next("a TD is in a sensitive state", replace(task, pc="update.ack", ret=Errno.EBUSY))
        ret = prerr(host, Call(Leaf.TDH_SYS_SHUTDOWN), task.returned)
    if ret is not Errno.OK:
        return Next(f"the module refuses: {ret}", replace(task, pc="update.ack", ret=ret))
    _forget(host)
    return Next("the old module is shut down", replace(task, pc="update.ack", ret=ret))


@implements("UPDATE.forget", "after SHUTDOWN the module state and the per-CPU flags of all possible CPUs are zeroed",
            "LNX tdx.c tdx_module_shutdown")
def _forget(host: Host) -> None:
    """UPDATE.forget: v1-v5 cleared the flags of online CPUs only."""
    status = "ERROR" if host.series.after_shutdown is AfterShutdown.ERROR else "UNINITIALIZED"
    host.set(module=ModuleState(status=status))
    for number in range(len(host.state.cpus)):
        if host.series.clears_possible or host.cpu(number).online:
            host.set_cpu(number, lp_initialized=False)


# --- RUN_UPDATE ---------------------------------------------------------------------------------------------

_VERSION_FIELDS = (FIELD_MINOR_VERSION, FIELD_MAJOR_VERSION, FIELD_UPDATE_VERSION)


@implements("POSTED.update", "TDH.SYS.UPDATE asks again for the add-on features of boot, in R9 of version 1",
            "LNX posted 2026-06-18, v2 02/17")
def _update_call(host: Host) -> Call:
    """POSTED.update: without any, and in the merged kernel, version 0 with all registers 0."""
    addon = host.state.addon_features
    if not addon:
        return Call(Leaf.TDH_SYS_UPDATE)
    return Call(leaf_version(Leaf.TDH_SYS_UPDATE, 1), Args(r9=addon))


@local("run_update.updated")
@implements("UPDATE.run_update", "TDH.SYS.UPDATE, then the three version fields are read again; nothing else is",
            "LNX tdx.c tdx_module_run_update")
def _updated(host: Host, cpu: int, task: Task) -> Next:
    """UPDATE.run_update: no CONFIG, KEY.CONFIG or TDMR.INIT; sysinfo is not refreshed beyond the version."""
    if task.ret is not Errno.OK:
        return Next(f"TDH.SYS.UPDATE: {task.ret}", replace(task, pc="update.ack"))
    if host.series.refresh is Refresh.VERSION_INSIDE:
        return Next("reads the version", _read(task, 0))
    return Next("initialised", _initialized(host, task))


def _read(task: Task, index: int) -> Task:
    call = Call(Leaf.TDH_SYS_RD, Args(rdx=_VERSION_FIELDS[index]), Stub.RET, Wrap.PRERR_RET)
    return replace(task, pc="run_update.read", call=call, data=index)


@local("run_update.read")
def _version_read(host: Host, cpu: int, task: Task) -> Next:
    """One of the three fields; a failure warns once, and the update counts as done all the same."""
    if task.ret is not Errno.OK:
        host.warn(log.WARN_VERSION, once=True)
        return Next("version not read: warns", _extensions(host, task))
    assert task.returned is not None
    _set_version(host, _VERSION_FIELDS[task.data], task.returned.args.r8 & M16)
    if task.data + 1 < len(_VERSION_FIELDS):
        return Next("version field", _read(task, task.data + 1))
    return Next("version refreshed, initialised", _extensions(host, task))


def _set_version(host: Host, field: int, value: int) -> None:
    name = {FIELD_MINOR_VERSION: "minor", FIELD_MAJOR_VERSION: "major", FIELD_UPDATE_VERSION: "update"}[field]
    assert host.state.sysinfo is not None
    host.set(sysinfo=replace(host.state.sysinfo, **{name: value}))


def _extensions(host: Host, task: Task) -> Task:
    """What is left behind the version: the extensions where they may be needed, then ``initialized``."""
    if not may_need_extensions(host):
        return _initialized(host, task)
    return _read_ext(task, 0)


def _read_ext(task: Task, index: int, pages: int = 0) -> Task:
    call = Call(Leaf.TDH_SYS_RD, Args(rdx=EXT_FIELDS[index][0]), Stub.RET, Wrap.PRERR_RET)
    return replace(task, pc="run_update.ext_pages" if index == 0 else "run_update.ext_required", call=call, data=pages)


@local("run_update.ext_pages")
def _ext_pages(host: Host, cpu: int, task: Task) -> Next:
    """How many pages the new module's extensions want."""
    if task.ret is not Errno.OK:
        return Next(f"extensions: {task.ret}", replace(task, pc="update.ack"))
    assert task.returned is not None
    pages = task.returned.args.r8 & EXT_FIELDS[0][1]
    return Next(f"extensions want {pages} pages", _read_ext(task, 1, pages))


@local("run_update.ext_required")
@implements("POSTED.ext.update", "stop_machine can allocate nothing: extensions that want pages end the update with "
            "-EFAULT, when the old module is long gone", "LNX posted 2026-06-18, v2 06/17")
def _ext_required(host: Host, cpu: int, task: Task) -> Next:
    """POSTED.ext.update: else TDH.EXT.INIT, again while it was interrupted."""
    if task.ret is not Errno.OK:
        return Next(f"extensions: {task.ret}", replace(task, pc="update.ack"))
    assert task.returned is not None
    if not task.returned.args.r8 & EXT_FIELDS[1][1]:
        return Next("no extension is needed", _initialized(host, task))
    if task.data:
        return Next(f"no memory for {task.data} pages here", replace(task, pc="update.ack", ret=Errno.EFAULT))
    return Next("TDH.EXT.INIT", _init_ext(task))


def _init_ext(task: Task) -> Task:
    return replace(task, pc="run_update.ext_inited", call=Call(Leaf.TDH_EXT_INIT, wrap=Wrap.RAW))


@local("run_update.ext_inited")
def _ext_inited(host: Host, cpu: int, task: Task) -> Next:
    """Again, done, or -EFAULT."""
    assert task.returned is not None
    match task.returned.rax:
        case 0:
            return Next("extensions initialised", _initialized(host, task))
        case rax if rax == TDX_INTERRUPTED_RESUMABLE:
            return Next("TDH.EXT.INIT again", _init_ext(task))
        case _:
            return Next("TDH.EXT.INIT failed", replace(task, pc="update.ack", ret=Errno.EFAULT))


def _initialized(host: Host, task: Task) -> Task:
    host.set(module=replace(host.state.module, initialized=True, status="INITIALIZED"))
    return replace(task, pc="update.ack", ret=Errno.OK)


# --- begin, run, finish ---------------------------------------------------------------------------------------


@implements("UPDATE.begin", "hotplug is held off, every online CPU enters the worker with interrupts off",
            "LNX seamldr.c seamldr_install_module")
def begin(host: Host, params: int) -> None:
    """UPDATE.begin: state = SHUTDOWN, acks and failures 0; ``params``: physical address of SEAMLDR_PARAMS."""
    if host.state.update is not None:
        raise SeamrefError("an update is under way already")
    cpus = host.online
    lead = 0 if host.series.lead is Lead.CPU0 else cpus[0]
    host.set(update=Control(params, cpus, lead), hotplug_readers=host.state.hotplug_readers + 1)
    for cpu in cpus:
        start(host, cpu, Task("update.observe"))
        host.set_cpu(cpu, irqs_off=True)


def is_finished(host: Host) -> bool:
    """Whether every worker returned."""
    return len(control(host).rets) == len(control(host).cpus)


@implements("UPDATE.result", "stop_machine returns one of the workers' non-zero results; which, nobody promises: its "
            "threads store them in no fixed order", "LNX kernel/stop_machine.c", MEASURED)
def may_return(host: Host) -> tuple[Errno, ...]:
    """UPDATE.result: every value that stop_machine may give, once all workers returned."""
    if not is_finished(host):
        raise SeamrefError("asked for the result before every worker returned")
    wrong = sorted({ret for _, ret in control(host).rets if ret is not Errno.OK}, reverse=True)
    return tuple(wrong) or (Errno.OK,)


@implements("UPDATE.finish", "of several results the one of the worker that returned last is taken here",
            "SEAMREF errata", CHOSEN)
def finish(host: Host) -> Errno:
    """UPDATE.finish: collect the workers, let hotplug go, and what some versions do afterwards."""
    allowed = may_return(host)
    shared = control(host)
    ret = next((ret for _, ret in reversed(shared.rets) if ret in allowed), Errno.OK)
    host.set(update=None, hotplug_readers=host.state.hotplug_readers - 1)
    if ret is Errno.OK:
        _refresh_outside(host)
    elif host.series.failure_message and "update_failed" not in host.state.printed_once \
            and not host.state.module.initialized:
        host.set(printed_once=host.state.printed_once | {"update_failed"})
        host.log(log.UPDATE_FAILED)
    return ret


@implements("UPDATE.refresh_outside", "v2-v8 read the version again after stop_machine and printed old -> new",
            "LNX v2-v8 tdx.c", CHOSEN)
def _refresh_outside(host: Host) -> None:
    """UPDATE.refresh_outside: the wording of the messages is ours."""
    rule = host.series.refresh
    old = host.state.sysinfo
    if rule in (Refresh.NOTHING, Refresh.VERSION_INSIDE) or old is None:
        return
    fields = _VERSION_FIELDS if rule is Refresh.VERSION_AND_HANDOFF else (FIELD_UPDATE_VERSION,)
    for field in fields:
        ret, value = read_sysinfo_field(host, 0, field)
        if ret is Errno.OK:
            _set_version(host, field, value)
    if rule is Refresh.VERSION_AND_HANDOFF:
        ret, value = read_sysinfo_field(host, 0, FIELD_MODULE_HV)
        if ret is Errno.OK:
            host.set(sysinfo=replace(host.state.sysinfo, module_hv=value))
    now = host.state.sysinfo
    assert now is not None
    host.log(log.UPDATED, old=old.version, new=now.version)
    if rule is not Refresh.UPDATE_VERSION_QUIET:
        ret, features = read_sysinfo_field(host, 0, FIELD_TDX_FEATURES0)
        if ret is Errno.OK and features != old.features0:
            host.warn(log.WARN_FEATURES, old=old.features0, new=features)


class Finish(Enum):
    """How an update ended that did not return an errno."""

    HUNG = "stop_machine never returns: a processor went to shutdown in SEAM, the others wait for it"


Schedule = Callable[[Host, tuple[int, ...]], int]
"""Chooses the CPU that steps next among those that would get on."""


def in_order(host: Host, ready: tuple[int, ...]) -> int:
    """The lowest-numbered CPU runs as long as it can."""
    return ready[0]


def round_robin() -> Schedule:
    """A schedule in which the CPUs take turns, one step each."""
    last = -1

    def choose(host: Host, ready: tuple[int, ...]) -> int:
        nonlocal last
        last = next((cpu for cpu in ready if cpu > last), ready[0])
        return last

    return choose


def steps(host: Host, schedule: Schedule = in_order) -> Iterator[Stepped]:
    """Step the workers until all returned, yielding what each step did; :class:`Stuck` when none can get on."""
    waiting: dict[int, str] = {}
    while not is_finished(host):
        ready = tuple(c for c in control(host).cpus if host.cpu(c).tasks and c not in waiting)
        if not ready:
            blocked = tuple(step(host, c) for c in control(host).cpus if host.cpu(c).tasks)
            if all(s.blocked for s in blocked):
                raise Stuck(blocked)
            waiting.clear()
            yield from (s for s in blocked if not s.blocked)
            continue
        cpu = schedule(host, ready)
        done = step(host, cpu)
        if done.blocked:
            waiting[cpu] = done.did
        else:
            waiting.clear()
            yield done


def run_update(host: Host, params: int, schedule: Schedule = in_order) -> Errno | Finish:
    """begin, every step in the order the schedule gives, finish."""
    begin(host, params)
    try:
        for _ in steps(host, schedule):
            pass
    except Stuck:
        return Finish.HUNG
    return finish(host)


__all__ = [
    "Finish", "begin", "control", "finish", "in_order", "is_blocked", "is_finished", "may_return",
    "round_robin", "run_update", "step", "steps",
]
