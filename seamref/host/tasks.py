"""What a CPU is doing in the kernel, as a step machine over frozen values.

A :class:`Task` is a program counter, a few variables and possibly a SEAMCALL on its way.  :func:`step` takes one
separable piece on one CPU: observe a variable others write, take a lock, the SEAMCALL instruction, a step inside SEAM,
release a lock.  Between any two of them any other CPU may act.  Interrupts push a task on top of the interrupted one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from seamref.errors import SeamrefError
from seamref.host.abi import Errno
from seamref.host.kernel import Host
from seamref.host.records import Call, Task, Wrap
from seamref.host.records import having as replace
from seamref.host.seamcall import prerr, step_call
from seamref.spec import CHOSEN, implements


@dataclass(frozen=True, slots=True)
class Next:
    """A handler's answer: the task as it goes on (``None``: it returned ``ret``), and what was done."""

    did: str
    task: Task | None
    ret: Errno = Errno.OK


@dataclass(frozen=True, slots=True)
class Stepped:
    """What one step did.  ``blocked``: nothing changed, the CPU spins on ``did``."""

    cpu: int
    did: str
    pc: str
    blocked: bool = False


Handler = Callable[[Host, int, Task], "Next | str"]
"""Takes the next step, or answers with what it waits for."""

HANDLERS: dict[str, Handler] = {}


def handler(pc: str) -> Callable[[Handler], Handler]:
    """Register a handler under its program counter."""

    def tie(function: Handler) -> Handler:
        if pc in HANDLERS:
            raise SeamrefError(f"two handlers for {pc!r}")
        HANDLERS[pc] = function
        return function

    return tie


_LOCAL: set[str] = set()


def local(pc: str) -> Callable[[Handler], Handler]:
    """Register a handler that touches nothing another CPU could look at meanwhile; it joins the step before it."""
    _LOCAL.add(pc)
    return handler(pc)


def start(host: Host, cpu: int, task: Task) -> None:
    """Give an idle CPU something to do."""
    record = host.cpu(cpu)
    if not record.online or record.dead:
        raise SeamrefError(f"CPU {cpu} is {'dead' if record.dead else 'offline'} and runs nothing")
    if record.tasks:
        raise SeamrefError(f"CPU {cpu} already runs {record.tasks[-1].pc}")
    host.set_cpu(cpu, tasks=(task,), finished=None)


@implements("LNX.interrupt", "an interrupt handler runs on top of what it interrupted, unless interrupts are off",
            "SDM vol. 3A ch. 7", CHOSEN)
def interrupt(host: Host, cpu: int, task: Task) -> bool:
    """LNX.interrupt: run ``task`` as an interrupt handler; ``False``: interrupts are off (or the CPU is in SEAM)."""
    record = host.cpu(cpu)
    inside = bool(record.tasks) and record.tasks[-1].call is not None and record.tasks[-1].call.inside
    if record.irqs_off or inside or record.dead or not record.online:
        return False
    host.set_cpu(cpu, tasks=(*record.tasks, task), finished=None)
    return True


def is_idle(host: Host, cpu: int) -> bool:
    """Whether a CPU has nothing to do."""
    return not host.cpu(cpu).tasks


def step(host: Host, cpu: int) -> Stepped:
    """One separable piece of what ``cpu`` does."""
    first = _step_one(host, cpu)
    did = [first.did]
    while not first.blocked and not host.cpu(cpu).dead and host.cpu(cpu).tasks:
        task = host.cpu(cpu).tasks[-1]
        if task.call is not None or task.pc not in _LOCAL:
            break
        did.append(_step_one(host, cpu).did)
    return Stepped(cpu, "; ".join(filter(None, did)), first.pc, first.blocked)


def _step_one(host: Host, cpu: int) -> Stepped:
    record = host.cpu(cpu)
    if not record.tasks:
        raise SeamrefError(f"CPU {cpu} has nothing to do")
    if record.dead:
        return Stepped(cpu, "dead", record.tasks[-1].pc, True)
    task = record.tasks[-1]
    if task.call is not None:
        return _step_call(host, cpu, task, task.call)
    answer = HANDLERS[task.pc](host, cpu, task)
    if isinstance(answer, str):
        return Stepped(cpu, answer, task.pc, True)
    below = host.cpu(cpu).tasks[:-1]
    if answer.task is None:
        host.set_cpu(cpu, tasks=below, finished=answer.ret)
    else:
        host.set_cpu(cpu, tasks=(*below, answer.task))
    return Stepped(cpu, answer.did, task.pc)


def _step_call(host: Host, cpu: int, task: Task, call: Call) -> Stepped:
    piece = step_call(host, cpu, call)
    if piece.waits:
        return Stepped(cpu, piece.did, task.pc, True)
    below = host.cpu(cpu).tasks[:-1]
    if piece.dead:
        host.set_cpu(cpu, dead=True)
        return Stepped(cpu, piece.did, task.pc)
    if piece.returned is None:
        host.set_cpu(cpu, tasks=(*below, replace(task, call=piece.call)))
        return Stepped(cpu, piece.did, task.pc)
    ret = Errno.OK if call.wrap is Wrap.RAW else prerr(host, call, piece.returned)
    host.set_cpu(cpu, tasks=(*below, replace(task, call=None, returned=piece.returned, ret=ret)))
    return Stepped(cpu, piece.did, task.pc)


def is_blocked(host: Host, cpu: int) -> bool:
    """Whether a step of this CPU would change nothing (idle, spinning, or dead)."""
    if host.cpu(cpu).dead or not host.cpu(cpu).tasks:
        return True
    task = host.cpu(cpu).tasks[-1]
    if task.call is not None:
        return task.call.inside and host.platform.peek_lp(host.cpu(cpu).apicid).is_SEAM_non_root()
    waits = _WAITS.get(task.pc)
    return waits is not None and waits(host, cpu, task) != ""


Waits = Callable[[Host, int, Task], str]
"""What a CPU would wait for, empty when it would get on; changes nothing."""
_WAITS: dict[str, Waits] = {}


Entered = Callable[[Host, int, Task], Next]


def may_wait(pc: str, waits: Waits) -> Callable[[Entered], Entered]:
    """Register a handler that is entered only when ``waits`` says nothing."""

    def tie(function: Entered) -> Entered:
        _WAITS[pc] = waits
        handler(pc)(lambda host, cpu, task: waits(host, cpu, task) or function(host, cpu, task))
        return function

    return tie


def runnable(host: Host) -> tuple[int, ...]:
    """CPUs that have something to do and would get on with it."""
    return tuple(
        n for n, cpu in enumerate(host.state.cpus) if cpu.tasks and not is_blocked(host, n)
    )


class Stuck(Exception):
    """Every CPU that has something to do waits: a deadlock, or a wait for a processor that is dead."""

    def __init__(self, waits: tuple[Stepped, ...]) -> None:
        self.waits = waits
        super().__init__("; ".join(f"CPU {w.cpu} {w.did}" for w in waits))


def run(host: Host, cpu: int, task: Task) -> Errno:
    """Start a task on a CPU and step that CPU alone until it returns; :class:`Stuck` when it can only wait."""
    depth = len(host.cpu(cpu).tasks)
    if depth:
        raise SeamrefError(f"CPU {cpu} already runs {host.cpu(cpu).tasks[-1].pc}")
    start(host, cpu, task)
    while host.cpu(cpu).tasks:
        stepped = step(host, cpu)
        if stepped.blocked:
            raise Stuck((stepped,))
    finished = host.cpu(cpu).finished
    assert finished is not None
    return finished
