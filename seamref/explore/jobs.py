"""Jobs of CPUs, and actors that are not CPUs, for the scenarios: all of them over the host's own functions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from seamref.arch.events import EventKind, raise_event
from seamref.errors import SeamrefError
from seamref.explore.access import EVERYTHING, NOTHING, Accesses, touch, union
from seamref.explore.independence import AFTER, JOB_ACCESSES, STEP_ACCESSES
from seamref.explore.world import GATES, JOBS, World, job
from seamref.host.abi import FIELD_MODULE_HV, Args, Errno, Leaf
from seamref.host.install import Prepared, prepare, release
from seamref.host.kernel import Host, kvm_load
from seamref.host.records import Call, Control, Stub, Task, Wrap
from seamref.host.seamldr import seamldr_task
from seamref.host.tasks import HANDLERS, Next, handler, local
from seamref.host.tdx import KEXEC_JUMP, boot_again, cpu_offline, cpu_online, leave_vmx
from seamref.host.update import Finish, begin, control, finish, is_finished

INFO_BUFFERS = 0x1F000000
"""Where CPU n wants SEAMLDR_INFO: a page each, from here."""

_SEAMLDR = touch(reads="ready", writes="seamldr_lock p_seamldr", adds="entropy")


@job("info")
def _info(world: World, cpu: int, more: str) -> Task:
    """Somebody reads seamldr_version or num_remaining_updates in sysfs."""
    return seamldr_task(Leaf.SEAMLDR_INFO, INFO_BUFFERS + 0x1000 * cpu)


JOB_ACCESSES["info"] = _SEAMLDR | touch(reads="ready seamdb module")


@job("install")
def _install(world: World, cpu: int, more: str) -> Task:
    """SEAMLDR.INSTALL on this CPU, outside any update."""
    return seamldr_task(Leaf.SEAMLDR_INSTALL, int(world.setting.data["params"]))


JOB_ACCESSES["install"] = _SEAMLDR | touch(reads="image", writes="ready seamdb module", adds="entropy")


@job("loader.shutdown")
def _loader_shutdown(world: World, cpu: int, more: str) -> Task:
    """SEAMLDR.SHUTDOWN on this CPU."""
    return seamldr_task(Leaf.SEAMLDR_SHUTDOWN, 0)


@job("loader.shutdown.last")
def _loader_shutdown_last(world: World, cpu: int, more: str) -> Task:
    """SEAMLDR.SHUTDOWN on the boot processor, given out when every other CPU has done it."""
    return seamldr_task(Leaf.SEAMLDR_SHUTDOWN, 0)


GATES["loader.shutdown.last"] = lambda world, cpu: all(
    any(name == "loader.shutdown" for name, _ in results) for n, results in enumerate(world.rest.results) if n != cpu
)
JOB_ACCESSES["loader.shutdown"] = JOB_ACCESSES["loader.shutdown.last"] = _SEAMLDR | touch(writes="ready")


@job("kvm.load")
def _kvm_load(world: World, cpu: int, more: str) -> Task:
    """KVM loads a vCPU of an ordinary VM: a VMCS becomes current on this CPU."""
    return Task("kvm.load")


@handler("kvm.load")
def _kvm_load_step(host: Host, cpu: int, task: Task) -> Next:
    """VMPTRLD."""
    kvm_load(host, cpu)
    return Next("loads a vCPU: VMPTRLD", None)


JOB_ACCESSES["kvm.load"] = NOTHING
STEP_ACCESSES["kvm.load"] = lambda world, cpu, task: EVERYTHING

@job("kexec")
def _kexec(world: World, cpu: int, more: str) -> Task:
    """Somebody reboots by kexec: the syscore shutdown on this CPU, which is not preempted from here on."""
    return Task("kexec.start")


# --- TDs ----------------------------------------------------------------------------------------------------------


@job("td.run")
def _td_run(world: World, cpu: int, more: str) -> Task:
    """TDH.VP.ENTER of the TD with this number, once."""
    td = world.setting.data["tds"][int(more or 0)][0]
    call = Call(Leaf.TDH_VP_ENTER, Args(rcx=td.tdvprs[0], r13=1), Stub.SAVED_RET, Wrap.RAW)
    return Task("td.exited", call=call)


@local("td.exited")
def _td_exited(host: Host, cpu: int, task: Task) -> Next:
    """A TD exit, or a refusal: bit 63 of the status."""
    assert task.returned is not None
    word = task.returned.rax
    if word >> 63:
        return Next(f"TDH.VP.ENTER: 0x{word:X}", None, Errno.EIO)
    return Next(f"TD exit, reason {word & 0xFFFF}", None)


@job("td.build")
def _td_build(world: World, cpu: int, more: str) -> Task:
    """One SEAMCALL of a TD's build."""
    leaf, registers, writes = world.setting.data["build"][int(more)]
    for at, data in writes:
        world.host.write(at, data)
    return Task("td.built", call=Call(leaf, Args(**registers), Stub.RET, Wrap.RAW))


@local("td.built")
def _td_built(host: Host, cpu: int, task: Task) -> Next:
    """Success, or a status."""
    assert task.returned is not None
    word = task.returned.rax
    return Next("" if word == 0 else f"status 0x{word:X}", None, Errno.OK if word == 0 else Errno.EIO)


AFTER["td.exited"] = AFTER["td.built"] = NOTHING
JOB_ACCESSES["td.run"] = JOB_ACCESSES["td.build"] = touch(reads="ready", writes="module tds", adds="entropy")

# --- UEFI ---------------------------------------------------------------------------------------------------------


@job("uefi.install")
def _uefi_install(world: World, cpu: int, more: str) -> Task:
    """The loader application's procedure on one processor."""
    return Task("uefi.start", data=int(world.setting.data["params"]))


@handler("uefi.start")
def _uefi_start(host: Host, cpu: int, task: Task) -> Next:
    """VMXON, then SEAMLDR.INSTALL."""
    from seamref.host.uefi import enter_vmx

    refused = enter_vmx(host.platform, host.cpu(cpu).apicid)
    if refused is not None:
        return Next(refused.did, None, Errno.EIO)
    call = Call(Leaf.SEAMLDR_INSTALL, Args(rcx=task.data), Stub.SEAMCALL, Wrap.RAW, retry_on=())
    return Next("VMXON", replace(task, pc="uefi.end", call=call))


@local("uefi.end")
def _uefi_end(host: Host, cpu: int, task: Task) -> Next:
    """RAX only is looked at, then VMXOFF."""
    from seamref.host.uefi import leave_vmx

    result = leave_vmx(host.platform, host.cpu(cpu).apicid)
    return Next(f"{result.did}; VMXOFF", None, Errno.OK if result.result == 0 else Errno.EIO)


AFTER["uefi.end"] = NOTHING
STEP_ACCESSES["uefi.start"] = lambda world, cpu, task: NOTHING
JOB_ACCESSES["uefi.install"] = touch(reads="image ready", writes="p_seamldr ready seamdb module", adds="entropy")


@job("uefi.next")
def _uefi_next(world: World, cpu: int, more: str) -> Task:
    """The same, when the processors before it in the walk are done."""
    return _uefi_install(world, cpu, more)


def _walk_gate(world: World, cpu: int) -> bool:
    order = world.setting.data["walk"]
    return all(world.rest.results[other] for other in order[: order.index(cpu)])


GATES["uefi.next"] = _walk_gate
JOB_ACCESSES["uefi.next"] = JOB_ACCESSES["uefi.install"]


@job("loader.install")
def _loader_install(world: World, cpu: int, more: str) -> Task:
    """SEAMLDR.INSTALL under a new P-SEAMLDR, CPU after CPU; VMX operation is on."""
    call = Call(Leaf.SEAMLDR_INSTALL, Args(rcx=int(world.setting.data["params"])), Stub.SEAMCALL, Wrap.RAW, retry_on=())
    return Task("loader.installed", call=call)


@local("loader.installed")
def _loader_installed(host: Host, cpu: int, task: Task) -> Next:
    """RAX."""
    assert task.returned is not None
    rax = task.returned.rax
    return Next("" if rax == 0 else f"status 0x{rax:X}", None, Errno.OK if rax == 0 else Errno.EIO)


def _relaunched(world: World, cpu: int) -> bool:
    return bool(world.rest.extras[0]) and all(
        len(world.rest.results[other]) > 1 for other in range(cpu)
    )


GATES["loader.install"] = _relaunched
AFTER["loader.installed"] = NOTHING
JOB_ACCESSES["loader.install"] = JOB_ACCESSES["uefi.install"]


# --- actors that are not CPUs -------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Upload:
    """A user uploads an image: the worker thread validates, stops the machine, collects, frees.

    stop_machine gets a CPU as soon as it can be preempted, and every SEAMCALL and every holder of a raw spinlock runs
    with preemption off: so it begins when every online CPU is between two jobs.
    """

    blob: bytes
    name: str = "upload"
    behind: int | None = None
    """Which other upload has to be done before this one begins, by its place among the actors that are not CPUs."""

    def enabled(self, world: World, state: Any) -> bool:
        """See above; the end when every worker returned."""
        host = world.host
        if self.behind is not None and world.rest.extras[self.behind][0] != "done":
            world.remembered("update")  # what the other one leaves behind when it is done
            return False
        match state[0]:
            case "validate":
                return host.state.seamldr_lock is None and host.platform.P_SEAMLDR_MUTEX is None
            case "begin":
                return all(not cpu.tasks for cpu in host.state.cpus if cpu.online)
            case "running":
                return is_finished(host) and not host.state.cpus[0].tasks
        return False

    def done(self, world: World, state: Any) -> bool:
        """Whether the file's way has ended."""
        return bool(state[0] == "done")

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """Validate; begin; finish."""
        host = world.host
        match state[0]:
            case "validate":
                holds = host.series.refuses_offline  # those versions hold hotplug off from the check on
                prepared = prepare(host, self.blob)
                if not isinstance(prepared, Errno) and holds:
                    host.set(hotplug_readers=host.state.hotplug_readers + 1)
                    return ("begin", prepared, True), "the file passes the kernel's checks"
                if isinstance(prepared, Errno):
                    world.remember(update=prepared)
                    return ("done", None), f"the kernel refuses the file: {prepared}"
                return ("begin", prepared), "the file passes the kernel's checks"
            case "begin":
                begin(host, state[1].params)
                return ("running", *state[1:]), f"stop_machine on CPUs {list(control(host).cpus)}"
            case "running":
                ret = finish(host)
                release(host, state[1])
                if state[2:]:
                    host.set(hotplug_readers=host.state.hotplug_readers - 1)
                world.remember(update=ret)
                return ("done", None), f"the update ends with {ret}"
        raise SeamrefError(f"upload in state {state[0]!r}")

    def accesses(self, world: World, state: Any) -> Accesses:
        """Beginning and ending touch every CPU."""
        return EVERYTHING

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """Nothing while the frozen CPU keeps it from going on."""
        if state[0] == "done":
            return NOTHING
        busy = frozen < world.cpus and bool(world.host.state.cpus[frozen].tasks)
        if state[0] == "begin" and busy and world.host.state.cpus[frozen].online:
            return NOTHING
        shared = world.host.state.update
        if state[0] == "running" and busy and isinstance(shared, Control) and frozen in shared.cpus and not any(
            cpu == frozen for cpu, _ in shared.rets
        ):
            return NOTHING
        return EVERYTHING


@dataclass(frozen=True, slots=True)
class Hotplug:
    """Somebody takes a CPU offline and back online, at any time that hotplug is not held off."""

    cpu: int
    steps: tuple[str, ...] = ("offline", "online")
    name: str = "hotplug"

    def enabled(self, world: World, state: Any) -> bool:
        """cpus_write_lock waits for readers; a CPU goes offline between two jobs."""
        record = world.host.state.cpus[self.cpu]
        return state < len(self.steps) and not world.host.state.hotplug_readers and not record.tasks and (
            world.host.state.sysinit_lock is None)

    def done(self, world: World, state: Any) -> bool:
        """Whether both happened."""
        return bool(state >= len(self.steps))

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """One of the two callbacks."""
        what = self.steps[state]
        ret = (cpu_offline if what == "offline" else cpu_online)(world.host, self.cpu)
        return state + 1, f"CPU {self.cpu} {what}: {ret}"

    def accesses(self, world: World, state: Any) -> Accesses:
        """Its callbacks enter the module."""
        return EVERYTHING

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """Held off while the frozen CPU is in an update."""
        if self.done(world, state) or (world.host.state.hotplug_readers and _held(world, frozen)):
            return NOTHING
        return EVERYTHING


def _held(world: World, frozen: int) -> bool:
    shared = world.host.state.update
    return isinstance(shared, Control) and frozen in shared.cpus and frozen not in [cpu for cpu, _ in shared.rets]


@dataclass(frozen=True, slots=True)
class Device:
    """A device that writes host memory on its own, once, at any time: also between two phases of INSTALL.

    ``what``  which of SEAMLDR_PARAMS, sigstruct and module pages; it flips one bit, and back if it has a second step
    """

    what: str
    steps: int = 1
    name: str = "device"

    def enabled(self, world: World, state: Any) -> bool:
        """While stop_machine has the image in use."""
        return state < self.steps and world.host.state.update is not None

    def done(self, world: World, state: Any) -> bool:
        """When there is nothing left to change."""
        return state >= self.steps or world.host.state.update is None

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """One bit."""
        from seamref.explore.faults import flip

        return state + 1, flip(world, self.what)

    def accesses(self, world: World, state: Any) -> Accesses:
        """Host memory."""
        return touch(writes="image")

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """The same, until it is done."""
        return touch(writes="image") if state < self.steps else NOTHING


@dataclass(frozen=True, slots=True)
class GuestRuns:
    """The TD on a CPU runs until it calls its VMM, or until an interrupt comes."""

    cpu: int
    name: str = "TD"

    def enabled(self, world: World, state: Any) -> bool:
        """While the processor is in SEAM non-root."""
        return world.host.platform.peek_lp(world.host.state.cpus[self.cpu].apicid).is_SEAM_non_root()

    def done(self, world: World, state: Any) -> bool:
        """A TD has no end of its own: it is done whenever it does not run."""
        return not self.enabled(world, state)

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """Up to 100 instructions, or an interrupt behind them."""
        from seamref.tdxmodule.guest import run_guest

        platform, id = world.host.platform, world.host.state.cpus[self.cpu].apicid
        if run_guest(platform, id, 100) is None:
            raise_event(platform, id, EventKind.INTR)
            return state, "is interrupted: TD exit"
        return state, "runs, and calls its VMM: TD exit"

    def accesses(self, world: World, state: Any) -> Accesses:
        """Its own processor, and TD memory."""
        return touch(writes="tds")

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """The same, as long as jobs enter it."""
        return touch(writes="tds")


@dataclass(frozen=True, slots=True)
class NmiCaller:
    """An NMI comes to a CPU, whatever its kernel is at, and the handler calls SEAMLDR.INFO without any lock.

    Inside SEAM an NMI waits, so the handler runs only outside.
    """

    cpu: int
    name: str = "NMI"
    leaf: int = int(Leaf.SEAMLDR_INFO)

    def enabled(self, world: World, state: Any) -> bool:
        """Once, outside SEAM."""
        record = world.host.state.cpus[self.cpu]
        return state == 0 and not record.dead and not world.host.platform.peek_lp(record.apicid).inSEAM

    def done(self, world: World, state: Any) -> bool:
        """Whether it came."""
        return bool(state)

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """The handler on top of what it interrupted."""
        record = world.host.cpu(self.cpu)
        if self.leaf >> 63:
            args, wants = Args(rcx=INFO_BUFFERS + 0x1000 * self.cpu), "SEAMLDR_INFO"
        else:
            args, wants = Args(rdx=FIELD_MODULE_HV), "a field of the TDX module"
        call = Call(self.leaf, args, Stub.SEAMCALL, Wrap.PRERR)
        world.host.set_cpu(self.cpu, tasks=(*record.tasks, Task("nmi.info", call=call)))
        return 1, f"NMI on CPU {self.cpu}: its handler wants {wants}"

    def accesses(self, world: World, state: Any) -> Accesses:
        """It changes what its CPU does next."""
        return EVERYTHING

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """Nothing once it came."""
        return NOTHING if state else EVERYTHING


@local("nmi.info")
def _nmi_done(host: Host, cpu: int, task: Task) -> Next:
    """Whatever the answer, the handler returns."""
    return Next(f"the handler is told {task.ret}, IRET", None, task.ret)


@dataclass(frozen=True, slots=True)
class Relaunch:
    """NP-SEAMLDR again: when every CPU has left P-SEAMLDR for good, the OS launches a new one."""

    acm: bytes
    name: str = "relaunch"

    def enabled(self, world: World, state: Any) -> bool:
        """When no CPU has anything left to do before it."""
        for number in range(world.cpus):
            world.read_results(number)
        return state == 0 and all(
            not cpu.tasks and all(name.startswith("loader.install") for name in world.rest.scripts[n])
            for n, cpu in enumerate(world.host.state.cpus)
        )

    def done(self, world: World, state: Any) -> bool:
        """Whether it happened."""
        return bool(state)

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """GETSEC[ENTERACCS] and NP-SEAMLDR, at once: no other processor runs."""
        from seamref.bootchain import relaunch

        answers = relaunch(world.host.platform, self.acm)
        return 1, "; ".join(f"{record.action}: {record.answer}" for record in answers)

    def accesses(self, world: World, state: Any) -> Accesses:
        """All of it."""
        return EVERYTHING

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """Nothing while the frozen CPU has something to do."""
        if state or (frozen < world.cpus and not world.is_done(frozen)):
            return NOTHING
        return EVERYTHING


@dataclass(frozen=True, slots=True)
class NextKernel:
    """The kernel that kexec starts, when the one before it has stopped every CPU: it boots, and nobody else is there.

    With ``panic`` nobody asks the kernel before it: it stops where it is, at any time at which no CPU is in SEAM (one
    that is there takes the NMI that stops it when it comes out), disables nothing and writes no cache back.
    """

    panic: bool = False
    name: str = "next kernel"

    def enabled(self, world: World, state: Any) -> bool:
        """See above."""
        if self.panic:
            return state == 0 and not any(lp.inSEAM for lp in world.host.platform.every_lp())
        return state == 0 and any(
            task.pc == KEXEC_JUMP for cpu in world.host.state.cpus for task in cpu.tasks[-1:]
        )

    def done(self, world: World, state: Any) -> bool:
        """Whether it booted."""
        return bool(state)

    def step(self, world: World, state: Any) -> tuple[Any, str]:
        """All of its boot, at once: one CPU comes up after the other."""
        if self.panic:
            leave_vmx(world.host, write_back=False)
        ret = boot_again(world.host)
        gone = tuple(
            ("done", None) if isinstance(extra, Upload) else held
            for extra, held in zip(world.setting.extras, world.rest.extras, strict=True)
        )
        first, *others = world.rest.results
        world.set(scripts=((),) * world.cpus, running=("",) * world.cpus, extras=gone,
                  results=((*first, ("tdx_enable of the next kernel", ret)), *others))
        world.remember(next_kernel=ret, update=None)  # what the kernel before it reported is gone with it
        return 1, f"boots{' behind a panic' if self.panic else ''}: tdx_enable {ret}"

    def accesses(self, world: World, state: Any) -> Accesses:
        """All of it."""
        return EVERYTHING

    def ahead(self, world: World, state: Any, frozen: int) -> Accesses:
        """All of it until it is up."""
        return NOTHING if state else EVERYTHING


def update_of(host: Host) -> Control | None:
    """The update under way, if any."""
    shared = host.state.update
    return shared if isinstance(shared, Control) else None


__all__ = ["Finish", "GuestRuns", "HANDLERS", "Hotplug", "INFO_BUFFERS", "JOBS", "NextKernel", "NmiCaller", "Prepared",
           "Relaunch", "Sequence", "Upload", "union", "update_of"]
