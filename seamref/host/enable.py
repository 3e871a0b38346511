"""``tdx_cpu_enable``: one CPU made ready for the module, at boot, on hotplug and in an update.

TDH.SYS.INIT once for all, under a lock and with its result remembered; TDH.SYS.LP.INIT on each CPU, in parallel.
"""

from __future__ import annotations

from seamref.host import log
from seamref.host.abi import Errno, Leaf
from seamref.host.kernel import Host
from seamref.host.records import Call, Task
from seamref.host.records import having as replace
from seamref.host.tasks import Next, handler, local, may_wait, run
from seamref.spec import implements


@local("enable.start")
@implements("LNX.tdx_cpu_enable", "TDH.SYS.INIT once, then TDH.SYS.LP.INIT on each CPU; VMXON is somebody else's",
            "LNX tdx.c tdx_cpu_enable")
def _enable(host: Host, cpu: int, task: Task) -> Next:
    """LNX.tdx_cpu_enable: nothing to do where the CPU's flag is set."""
    if host.cpu(cpu).lp_initialized:
        return Next("already initialised", replace(task, pc=task.then, ret=Errno.OK))
    return Next("", replace(task, pc="enable.lock"))


def _enable_waits(host: Host, cpu: int, task: Task) -> str:
    holder = host.state.sysinit_lock
    return "" if holder is None else f"spins on sysinit_lock, held by CPU {holder}"


@may_wait("enable.lock", _enable_waits)
def _enable_lock(host: Host, cpu: int, task: Task) -> Next:
    """sysinit_lock, raw."""
    host.set(sysinit_lock=cpu)
    return Next("takes sysinit_lock", replace(task, pc="enable.sysinit"))


@local("enable.sysinit")
@implements("LNX.sysinit_once", "TDH.SYS.INIT is called once; later callers get its cached result", "LNX tdx.c")
def _sysinit(host: Host, cpu: int, task: Task) -> Next:
    """LNX.sysinit_once."""
    module = host.state.module
    if module.sysinit_done:
        return Next(f"TDH.SYS.INIT was done: {module.sysinit_ret}",
                    replace(task, pc="enable.unlock", ret=module.sysinit_ret))
    return Next("", replace(task, pc="enable.sysinit_done", call=Call(Leaf.TDH_SYS_INIT)))


@local("enable.sysinit_done")
def _sysinit_done(host: Host, cpu: int, task: Task) -> Next:
    """Cache the result; -ENODEV is the one result that is explained."""
    if task.ret is Errno.ENODEV:
        host.log(log.NOT_LOADED)
    host.set(module=replace(host.state.module, sysinit_done=True, sysinit_ret=task.ret))
    return Next(f"remembers {task.ret}", replace(task, pc="enable.unlock"))


@handler("enable.unlock")
def _enable_unlock(host: Host, cpu: int, task: Task) -> Next:
    """Release sysinit_lock; LP.INIT runs in parallel."""
    host.set(sysinit_lock=None)
    if task.ret is not Errno.OK:
        return Next("releases sysinit_lock", replace(task, pc=task.then))
    return Next("releases sysinit_lock", replace(task, pc="enable.done", call=Call(Leaf.TDH_SYS_LP_INIT)))


@local("enable.done")
def _enable_done(host: Host, cpu: int, task: Task) -> Next:
    """The CPU's flag is set when LP.INIT succeeded."""
    if task.ret is Errno.OK:
        host.set_cpu(cpu, lp_initialized=True)
    return Next(f"LP.INIT: {task.ret}", replace(task, pc=task.then))


@local("enable.return")
def _enable_return(host: Host, cpu: int, task: Task) -> Next:
    """A task that only enables its CPU."""
    return Next(f"returns {task.ret}", None, task.ret)


def tdx_cpu_enable(host: Host, cpu: int) -> Errno:
    """``tdx_cpu_enable`` on one CPU, all at once."""
    return run(host, cpu, Task("enable.start", "enable.return"))
