"""``seamldr_call``: how Linux calls P-SEAMLDR, in every version of the series.

The merged wrapper takes a raw spinlock around each call.  Hardware has a mutex of its own, but a caller that finds it
taken gets VMfailInvalid, which reads -ENODEV: "no device", for what was only "wait a moment".
"""

from __future__ import annotations

from seamref.arch.memory import Agent
from seamref.arch.outcome import Done
from seamref.arch.vmcs import NONE
from seamref.arch.vmx import vmptrld, vmptrst
from seamref.host import log
from seamref.host.abi import SEAMLDR_INFO, SEAMLDR_RND_NO_ENTROPY, TDX_RND_NO_ENTROPY, Args, Errno, Leaf
from seamref.host.kernel import PAGE, Host
from seamref.host.log import SEAMLDR_PREFIX
from seamref.host.records import Call, Stub, Task, Wrap
from seamref.host.records import having as replace
from seamref.host.series import Lock, Vmcs
from seamref.host.tasks import Next, handler, local, may_wait, run
from seamref.layout import Record
from seamref.spec import CHOSEN, implements


def seamldr_task(leaf: int, rcx: int, then: str = "seamldr.return", **fields: int) -> Task:
    """A task (or the next part of one) that calls P-SEAMLDR and continues at ``then`` with ``ret``."""
    return Task("seamldr.enter", then, data=int(leaf), saved=rcx, **fields)  # type: ignore[arg-type]


def _call(host: Host, task: Task) -> Call:
    retry: tuple[int, ...] = (TDX_RND_NO_ENTROPY,)
    if host.series.retries_seamldr_entropy:
        retry += (SEAMLDR_RND_NO_ENTROPY,)
    return Call(task.data, Args(rcx=task.saved), Stub.SEAMCALL, Wrap.PRERR, SEAMLDR_PREFIX, retry)


def _wants_lock(host: Host, task: Task) -> bool:
    match host.series.lock:
        case Lock.NONE:
            return False
        case Lock.INSTALL_ONLY:
            return task.data == Leaf.SEAMLDR_INSTALL
        case Lock.RAW_IRQSAVE | Lock.RAW | Lock.SPINLOCK:
            return True


@local("seamldr.enter")
@implements("LNX.seamldr_call.erratum", "on a CPU with X86_BUG_SEAMRET_INVD_VMCS: WARN and -EINVAL", "LNX seamldr.c")
def _enter(host: Host, cpu: int, task: Task) -> Next:
    """LNX.seamldr_call.erratum: sysfs hides the interface there, so this should not be reachable."""
    if host.series.vmcs is Vmcs.HIDDEN_WARN and "seamret_invd_vmcs" in host.state.bugs:
        host.warn(log.WARN_INVD_VMCS)
        return Next("seamldr_call: WARN, -EINVAL", _continue(host, cpu, replace(task, ret=Errno.EINVAL)))
    if host.series.lock in (Lock.NONE, Lock.INSTALL_ONLY, Lock.RAW_IRQSAVE):
        _irqs_off(host, cpu)
        return Next("interrupts off", replace(task, pc="seamldr.lock"))
    return Next("", replace(task, pc="seamldr.lock"))


def _irqs_off(host: Host, cpu: int) -> None:
    host.set_cpu(cpu, irqs_off=True)


def _lock_waits(host: Host, cpu: int, task: Task) -> str:
    if host.state.seamldr_lock is None or not _wants_lock(host, task):
        return ""
    return f"spins on seamldr_lock, held by CPU {host.state.seamldr_lock}"


@may_wait("seamldr.lock", _lock_waits)
@implements("LNX.seamldr_call.lock", "one CPU at a time: seamldr_lock is held around the SEAMCALL", "LNX seamldr.c")
def _lock(host: Host, cpu: int, task: Task) -> Next:
    """LNX.seamldr_call.lock: raw, because stop_machine calls with interrupts off, where PREEMPT_RT may not sleep."""
    if not _wants_lock(host, task):
        return Next("no lock", replace(task, pc="seamldr.vmptrst"))
    if host.series.lock is Lock.SPINLOCK and host.state.preempt_rt and host.cpu(cpu).irqs_off:
        host.log(log.SLEEPING_BUG)
    host.set(seamldr_lock=cpu)
    return Next("takes seamldr_lock", replace(task, pc="seamldr.vmptrst"))


@local("seamldr.vmptrst")
@implements("LNX.seamldr_call.vmcs", "v1-v3: VMPTRST before the call, VMPTRLD after it if there was a current VMCS",
            "LNX v3 seamldr.c")
def _vmptrst(host: Host, cpu: int, task: Task) -> Next:
    """LNX.seamldr_call.vmcs: between the two an NMI or machine-check handler finds no current VMCS."""
    saved = NONE
    if host.series.vmcs is Vmcs.SAVE_RESTORE:
        value = vmptrst(host.platform, host.cpu(cpu).apicid)
        if isinstance(value, int):
            saved = value
    call = _call(host, task)
    return Next("VMPTRST" if host.series.vmcs is Vmcs.SAVE_RESTORE else "",
                replace(task, pc="seamldr.returned", call=call, saved=saved))


@local("seamldr.returned")
def _returned(host: Host, cpu: int, task: Task) -> Next:
    """Behind the SEAMCALL: where the version saved a VMCS, that is the next thing."""
    restores = host.series.vmcs is Vmcs.SAVE_RESTORE and task.saved != NONE
    return Next("", replace(task, pc="seamldr.vmptrld" if restores else "seamldr.unlock"))


@handler("seamldr.vmptrld")
def _vmptrld(host: Host, cpu: int, task: Task) -> Next:
    """The VMCS back; an error here is -EIO and a warning."""
    ret = task.ret
    if not isinstance(vmptrld(host.platform, host.cpu(cpu).apicid, task.saved), Done):
        host.warn(log.WARN_VMPTRLD)
        ret = Errno.EIO
    return Next("VMPTRLD", replace(task, pc="seamldr.unlock", ret=ret))


@handler("seamldr.unlock")
def _unlock(host: Host, cpu: int, task: Task) -> Next:
    """Release the lock, then restore interrupts where the version had them off."""
    did = "no lock to release"
    if host.state.seamldr_lock == cpu and _wants_lock(host, task):
        host.set(seamldr_lock=None)
        did = "releases seamldr_lock"
    return Next(did, _continue(host, cpu, task))


def _continue(host: Host, cpu: int, task: Task) -> Task:
    in_stop_machine = host.state.update is not None and cpu in host.state.update.cpus
    if not in_stop_machine:
        host.set_cpu(cpu, irqs_off=False)
    return replace(task, pc=task.then, saved=0)


@local("seamldr.return")
def _return(host: Host, cpu: int, task: Task) -> Next:
    """A task that did nothing but this call."""
    return Next(f"returns {task.ret}", None, task.ret)


def seamldr_call(host: Host, cpu: int, leaf: int, rcx: int) -> Errno:
    """``seamldr_call`` on one CPU, all at once.

    0; -ENODEV: busy, not loaded or disabled; -EIO with a message; -EINVAL on the erratum.
    """
    return run(host, cpu, seamldr_task(leaf, rcx))


@implements("LNX.seamldr_get_info", "SEAMLDR.INFO into a 256-byte aligned structure, by physical address",
            "LNX seamldr.c", CHOSEN)
def seamldr_get_info(host: Host, cpu: int = 0) -> tuple[Errno, Record | None]:
    """LNX.seamldr_get_info: the errno, and the structure when it is 0."""
    at = host.alloc(PAGE)
    if not at:
        return Errno.ENOMEM, None
    ret = seamldr_call(host, cpu, Leaf.SEAMLDR_INFO, at)
    data = host.platform.bytes_at(Agent.HOST, at, SEAMLDR_INFO.size)
    host.free(at)
    return ret, SEAMLDR_INFO.decode(data) if ret is Errno.OK else None
