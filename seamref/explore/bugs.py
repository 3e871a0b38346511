"""Seeded bugs: wrong kernels, loaders, modules and processors, each as a value, and the property that notices it.

A property that nothing can break proves nothing.  Each bug here is one plausible mistake: what is changed, the clause
it violates, where it shows, and which property the default command reports.  Bugs that no property reports
(``survives``) say why: they cannot be told from the outside, or no scenario goes there.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import seamref.tdxmodule.program  # noqa: F401  declares the module's leaves
from seamref.arch.lp import IF
from seamref.arch.memory import Agent
from seamref.arch.structures import SEAMEXTEND, SYS_INFO_TABLE
from seamref.arch.vmx import vmclear
from seamref.errors import SeamrefError
from seamref.explore.engine import explore
from seamref.explore.progress import progress
from seamref.explore.scenarios import get_scenario
from seamref.explore.seeding import Change, Effect, Handler, Judged, LeftOut, Replaced, seeded
from seamref.host.abi import SEAMLDR_INFO, Errno, Leaf
from seamref.host.records import Call as HostCall
from seamref.host.records import UpdateState
from seamref.host.tasks import Next
from seamref.pseamldr.api import Recoverability, Status
from seamref.tdxmodule.structures import SysState


@dataclass(frozen=True, slots=True)
class Bug:
    """A seeded bug.

    ``name``      "ROOM: what is wrong"
    ``changes``   what stands where in its place
    ``clause``    the clause that it violates
    ``noticed_by``  what the default command reports first; "liveness": a fair run without end; "" for a survivor
    ``scenario``, ``cpus``, ``faults``  where it shows
    ``aside``     properties that this scenario breaks without the bug (they are not asked)
    ``alone``     no other property notices it
    ``survives``  why nothing notices it
    """

    name: str
    changes: tuple[Change, ...]
    clause: str
    noticed_by: str = ""
    scenario: str = "update"
    cpus: int = 2
    faults: tuple[str, ...] = ()
    aside: tuple[str, ...] = ()
    alone: bool = False
    survives: str = ""

    @property
    def room(self) -> str:
        """Whose bug it is: kernel, P-SEAMLDR, module, processor."""
        return self.name.partition(":")[0]


LIVENESS = "liveness"
"""Noticed not by a property of steps or ends, but by :func:`seamref.explore.progress.progress`."""
BUGS: dict[str, Bug] = {}


def _bug(name: str, clause: str, noticed_by: str, *changes: Change, **more: Any) -> None:
    if name in BUGS:
        raise SeamrefError(f"two bugs are called {name!r}")
    BUGS[name] = Bug(name, changes, clause, noticed_by, **more)


def _equivalent(name: str, clause: str, why: str, *changes: Change, **more: Any) -> None:
    _bug(name, clause, "", *changes, survives=why, **more)


def get_bug(name: str) -> Bug:
    """A bug by name; an unknown name is an error that lists the known ones."""
    try:
        return BUGS[name]
    except KeyError:
        raise SeamrefError(f"no seeded bug {name!r}; there are {', '.join(BUGS)}") from None


# --- kernel: the lock around P-SEAMLDR ----------------------------------------------------------------------------


def _then(pc: str, did: str, **fields: Any) -> Any:
    """A handler that only goes on at another program counter."""
    return lambda old: lambda host, cpu, task: Next(did, replace(task, pc=pc, **fields))


def _frees_lock_first(old: Any) -> Any:
    def step(host: Any, cpu: int, task: Any) -> Any:
        host.set(seamldr_lock=None)
        return old(host, cpu, task)

    return step


def _takes_lock_blindly(old: Any) -> Any:
    def step(host: Any, cpu: int, task: Any) -> Any:
        host.set(seamldr_lock=cpu)
        return Next("takes the lock without looking", replace(task, pc="seamldr.vmptrst"))

    return step


def _keeps_lock(old: Any) -> Any:
    return lambda host, cpu, task: Next("forgets to unlock", replace(task, pc=task.then, saved=0))


_bug("kernel: no seamldr_lock", "LNX.seamldr_call.lock", "nobody-collides",
     Replaced("host.seamldr:_wants_lock", lambda old: lambda host, task: False))
_bug("kernel: unlocks before SEAMCALL", "LNX.seamldr_call.lock", "nobody-collides",
     Handler("seamldr.vmptrst", _frees_lock_first))
_bug("kernel: takes the lock without looking", "LNX.seamldr_call.lock", "nobody-collides",
     Handler("seamldr.lock", _takes_lock_blindly, never_waits=True))
_bug("kernel: never unlocks", "LNX.seamldr_call.lock", "no-deadlock", Handler("seamldr.unlock", _keeps_lock))
_bug("kernel: INFO needs no lock", "LNX.seamldr_call.lock", "nobody-collides",
     Replaced("host.seamldr:_wants_lock", lambda old: lambda host, task: task.data == Leaf.SEAMLDR_INSTALL),
     scenario="info-callers")
_bug("kernel: VMCLEARs KVM's VMCS behind the call", "SEAMRET.vmcs", "vmcs-kept", Handler(
    "seamldr.returned", lambda old: lambda host, cpu, task: (
        vmclear(host.platform, host.cpu(cpu).apicid, host.cpu(cpu).vmcs), old(host, cpu, task))[1]))
_bug("kernel: v3 does not load the saved VMCS", "LNX.seamldr_call.vmcs", "vmcs-kept",
     Handler("seamldr.returned", _then("seamldr.unlock", "forgets VMPTRLD")), scenario="update-erratum-v3")

# --- kernel: the workers ------------------------------------------------------------------------------------------


def _works(wrong: Any) -> Any:
    """The worker's choice of work, but for what ``wrong`` decides (it answers ``None`` for the rest)."""
    return lambda old: lambda host, cpu, task: wrong(host, cpu, task) or old(host, cpu, task)


def _install_by_lead_only(host: Any, cpu: int, task: Any) -> Any:
    if task.cur == UpdateState.CPU_INSTALL and cpu != 0:
        return Next("leaves INSTALL to the lead", replace(task, pc="update.ack"))
    return None


def _last_forgotten(host: Any, cpu: int, task: Any) -> Any:
    if task.cur == UpdateState.CPU_INSTALL and cpu == len(host.state.cpus) - 1:
        return Next("the last CPU does not INSTALL", replace(task, pc="update.ack"))
    return None


def _init_by_lead_only(host: Any, cpu: int, task: Any) -> Any:
    if task.cur == UpdateState.CPU_INIT and cpu != 0:
        return Next("leaves TDH.SYS.LP.INIT to the lead", replace(task, pc="update.ack"))
    return None


def _everybody_shuts_down(host: Any, cpu: int, task: Any) -> Any:
    return Next("", replace(task, pc="shutdown.start")) if task.cur == UpdateState.SHUTDOWN else None


def _no_update_call(host: Any, cpu: int, task: Any) -> Any:
    from seamref.host.update import _initialized

    if task.cur == UpdateState.RUN_UPDATE and cpu == 0:
        return Next("no TDH.SYS.UPDATE", _initialized(host, task))
    return None


def _others_pass_no_params(old: Any) -> Any:
    def work(host: Any, cpu: int, task: Any) -> Any:
        answer = old(host, cpu, task)
        if task.cur == UpdateState.CPU_INSTALL and cpu != 0:
            return Next(answer.did, replace(answer.task, saved=0))
        return answer

    return work


def _wrong_params(old: Any) -> Any:
    def work(host: Any, cpu: int, task: Any) -> Any:
        answer = old(host, cpu, task)
        if task.cur == UpdateState.CPU_INSTALL:
            return Next(answer.did, replace(answer.task, saved=answer.task.saved + 0x800))
        return answer

    return work


def _installs_twice(old: Any) -> Any:
    def unlock(host: Any, cpu: int, task: Any) -> Any:
        from seamref.host.update import control

        answer = old(host, cpu, task)
        if task.cur == UpdateState.CPU_INSTALL and cpu == 0 and not host.state.printed_once:
            host.set(printed_once=frozenset({"twice"}))
            again = replace(answer.task, pc="seamldr.enter", data=task.data, saved=control(host).params)
            return Next("calls INSTALL again", again)
        return answer

    return unlock


def _acks(change: Any) -> Any:
    """The acknowledgement, with the control block changed behind it."""

    def make(old: Any) -> Any:
        def ack(host: Any, cpu: int, task: Any) -> Any:
            from seamref.host.update import control

            was = control(host)
            answer = old(host, cpu, task)
            host.set(update=change(was, control(host), task) or control(host))
            return answer

        return ack

    return make


def _early(of: UpdateState) -> Any:
    """One acknowledgement too few moves the state on."""

    def change(was: Any, now: Any, task: Any) -> Any:
        if was.state is of and now.state is of and now.acks == len(now.cpus) - 1 and not now.failures:
            return replace(now, acks=0, state=UpdateState(of + 1))
        return None

    return change


def _acks_twice(old: Any) -> Any:
    def ack(host: Any, cpu: int, task: Any) -> Any:
        if cpu == 0 and task.cur == UpdateState.CPU_INSTALL:
            old(host, cpu, task)
        return old(host, cpu, task)

    return ack


def _forgets_ack(old: Any) -> Any:
    def ack(host: Any, cpu: int, task: Any) -> Any:
        if cpu == 1 and task.cur == UpdateState.SHUTDOWN:
            return Next("forgets to acknowledge", replace(task, pc="update.check"))
        return old(host, cpu, task)

    return ack


def _runs_ahead(old: Any) -> Any:
    def ack(host: Any, cpu: int, task: Any) -> Any:
        from seamref.host.update import control

        shared = control(host)
        if shared.state is UpdateState.SHUTDOWN:
            host.set(update=replace(shared, acks=0, state=UpdateState.CPU_INSTALL))
            return Next("moves the state on without waiting", replace(task, pc="update.check"))
        return old(host, cpu, task)

    return ack


def _tries_for_ever(old: Any) -> Any:
    def ack(host: Any, cpu: int, task: Any) -> Any:
        if task.ret is not Errno.OK:
            return Next(f"tries {UpdateState(task.cur).name} again", replace(task, pc="update.work", ret=Errno.OK))
        return old(host, cpu, task)

    return ack


_bug("kernel: only the lead INSTALLs", "UPDATE.work", "session-ends", Handler("update.work",
     _works(_install_by_lead_only)))
_bug("kernel: the last CPU does not INSTALL", "UPDATE.work", "session-ends", Handler("update.work",
     _works(_last_forgotten)))
_bug("kernel: only the lead initialises its processor", "UPDATE.work", "update-succeeds", Handler("update.work",
     _works(_init_by_lead_only)))
_bug("kernel: every worker shuts the module down", "UPDATE.work", "update-succeeds", Handler("update.work",
     _works(_everybody_shuts_down)))
_bug("kernel: no TDH.SYS.UPDATE", "UPDATE.run_update", "version-true", Handler("update.work", _works(_no_update_call)))
_bug("kernel: only the lead passes SEAMLDR_PARAMS", "INSTALL_MODULE.params", "update-succeeds", Handler("update.work",
     _others_pass_no_params))
_bug("kernel: SEAMLDR_PARAMS is not page aligned", "INSTALL_MODULE.params", "update-succeeds", Handler("update.work",
     _wrong_params))
_bug("kernel: INSTALLs twice on CPU 0", "UPDATE.work", "update-succeeds", Handler("seamldr.unlock", _installs_twice))
_bug("kernel: CPU_INSTALL ends one acknowledgement early", "UPDATE.ack", "update-succeeds",
     Handler("update.ack", _acks(_early(UpdateState.CPU_INSTALL))))
_bug("kernel: CPU_INIT ends one acknowledgement early", "UPDATE.ack", "update-succeeds",
     Handler("update.ack", _acks(_early(UpdateState.CPU_INIT))))
_bug("kernel: SHUTDOWN ends one acknowledgement early", "UPDATE.ack", "update-succeeds",
     Handler("update.ack", _acks(_early(UpdateState.SHUTDOWN))))
_bug("kernel: acknowledgements are not counted anew", "UPDATE.ack", "no-deadlock", Handler("update.ack", _acks(
     lambda was, now, task: replace(now, acks=was.acks + 1) if now.state > was.state else None)))
_bug("kernel: CPU_INIT is skipped", "UPDATE.states", "update-succeeds", Handler("update.ack", _acks(
     lambda was, now, task: replace(now, state=UpdateState.RUN_UPDATE) if now.state is UpdateState.CPU_INIT else None)))
_bug("kernel: CPU 0 acknowledges twice", "UPDATE.ack", "update-succeeds", Handler("update.ack", _acks_twice))
_bug("kernel: CPU 1 does not acknowledge", "UPDATE.ack", "no-deadlock", Handler("update.ack", _forgets_ack))
_bug("kernel: does not wait for SHUTDOWN", "UPDATE.ack", "update-succeeds", Handler("update.ack", _runs_ahead))
_bug("kernel: tries a failed state again for ever", "UPDATE.loop", LIVENESS, Handler("update.ack", _tries_for_ever),
     scenario="update-downgrade", aside=("update-succeeds",))
_equivalent("kernel: the highest CPU leads", "UPDATE.work", "the module does not care which processor shuts it down",
            Replaced("host.update:begin", lambda old: lambda host, params: (
                old(host, params), host.set(update=replace(host.state.update, lead=max(host.state.update.cpus))))[0]))

# --- kernel: what it knows of the module --------------------------------------------------------------------------


def _forgets_all_but_cpu_0(old: Any) -> Any:
    def forget(host: Any) -> None:
        kept = host.state.cpus[0].lp_initialized
        old(host)
        host.set_cpu(0, lp_initialized=kept)

    return forget


def _no_shutdown(old: Any) -> Any:
    def start(host: Any, cpu: int, task: Any) -> Any:
        from seamref.host.update import _forget

        _forget(host)
        return Next("no TDH.SYS.SHUTDOWN", replace(task, pc="update.ack", ret=Errno.OK))

    return start


def _last_not_initialised(old: Any) -> Any:
    def unlock(host: Any, cpu: int, task: Any) -> Any:
        answer = old(host, cpu, task)
        if cpu == len(host.state.cpus) - 1:
            return Next("no TDH.SYS.LP.INIT here", replace(task, pc=task.then, call=None))
        return answer

    return unlock


def _hv_one_more(old: Any) -> Any:
    return lambda host, cpu, task: old(host, cpu, replace(task, data=task.data + 1))


def _error_is_lost(old: Any) -> Any:
    return lambda host, cpu, task: old(host, cpu, replace(task, ret=Errno.OK))


def _keeps_sysinit_lock(old: Any) -> Any:
    def unlock(host: Any, cpu: int, task: Any) -> Any:
        answer = old(host, cpu, task)
        host.set(sysinit_lock=cpu)
        return answer

    return unlock


def _remembers_early(old: Any) -> Any:
    def sysinit(host: Any, cpu: int, task: Any) -> Any:
        answer = old(host, cpu, task)
        host.set(module=replace(host.state.module, sysinit_done=True))
        return answer

    return sysinit


_IMAGE_REFUSED: dict[str, Any] = {"scenario": "update-bad-signature", "aside": ("old-module-survives",)}
_bug("kernel: no TDH.SYS.SHUTDOWN", "UPDATE.states", "update-succeeds", Handler("shutdown.start", _no_shutdown))
_bug("kernel: asks for one handoff version more", "UPDATE.handoff_version", "update-succeeds",
     Handler("shutdown.call", _hv_one_more))
_bug("kernel: forgets nothing", "UPDATE.forget", "update-succeeds",
     Replaced("host.update:_forget", lambda old: lambda host: None))
_bug("kernel: keeps CPU 0's flag", "UPDATE.forget", "update-succeeds",
     Replaced("host.update:_forget", _forgets_all_but_cpu_0))
_bug("kernel: no TDH.SYS.LP.INIT on the last CPU", "LNX.tdx_cpu_enable", "update-succeeds",
     Handler("enable.unlock", _last_not_initialised))
_bug("kernel: no sysinit_lock", "LNX.sysinit_once", "update-succeeds",
     Handler("enable.lock", _then("enable.sysinit", "no sysinit_lock"), never_waits=True))
_bug("kernel: sysinit_lock is not released", "LNX.tdx_cpu_enable", "no-deadlock",
     Handler("enable.unlock", _keeps_sysinit_lock))
_equivalent("kernel: remembers TDH.SYS.INIT before it is done", "LNX.sysinit_once",
            "whoever would read it waits for sysinit_lock until it is done", Handler("enable.sysinit",
            _remembers_early))
_bug("kernel: every error is lost", "UPDATE.ack", "one-identity", Handler("update.ack", _error_is_lost),
     **_IMAGE_REFUSED)
_equivalent("kernel: INSTALL's error is lost", "UPDATE.ack",
            "TDH.SYS.INIT then fails on the old module, which is shut down: it ends one state later",
            Handler("seamldr.unlock", _error_is_lost), **_IMAGE_REFUSED)
_bug("kernel: the update returns 0 whatever the workers returned", "UPDATE.finish", "one-identity",
     Replaced("explore.jobs:finish", lambda old: lambda host: (old(host), Errno.OK)[1]), **_IMAGE_REFUSED)
_bug("kernel: the version is not read again", "UPDATE.run_update", "version-true", Replaced(
    "host.update:_read", lambda old: lambda task, index: replace(task, pc="update.ack", ret=Errno.OK)), alone=True)

# --- kernel: its books --------------------------------------------------------------------------------------------


def _hotplug_stays_off(old: Any) -> Any:
    def finish(host: Any) -> Any:
        ret = old(host)
        host.set(hotplug_readers=host.state.hotplug_readers + 1)
        return ret

    return finish


def _hotplug_not_held(old: Any) -> Any:
    def begin(host: Any, params: int) -> None:
        old(host, params)
        host.set(hotplug_readers=host.state.hotplug_readers - 1)

    return begin


def _frees_params_only(old: Any) -> Any:
    return lambda host, prepared: host.free(prepared.params)


def _stays_masked(old: Any) -> Any:
    def leave(host: Any, cpu: int, task: Any) -> Any:
        answer = old(host, cpu, task)
        host.set_cpu(cpu, irqs_off=True)
        return answer

    return leave


def _caches_unmarked(old: Any) -> Any:
    def begin(host: Any, cpu: int, call: HostCall) -> Any:
        marked = host.cpu(cpu).cache_state_incoherent
        step = old(host, cpu, call)
        host.set_cpu(cpu, cache_state_incoherent=marked)
        return step

    return begin


_bug("kernel: CPU hotplug stays held off", "UPDATE.finish", "kernel-balanced",
     Replaced("explore.jobs:finish", _hotplug_stays_off), alone=True)
_bug("kernel: CPU hotplug is not held off", "UPDATE.begin", "kernel-balanced",
     Replaced("explore.jobs:begin", _hotplug_not_held), alone=True)
_bug("kernel: the file's pages are never freed", "INSTALL_MODULE", "kernel-balanced",
     Replaced("explore.jobs:release", _frees_params_only), alone=True)
_bug("kernel: workers return with interrupts off", "UPDATE.stop_machine", "kernel-balanced",
     Handler("update.leave", _stays_masked), alone=True)
_bug("kernel: SEAMCALL does not mark the caches", "LNX.attempt", "caches-marked",
     Replaced("host.seamcall:_begin", _caches_unmarked), scenario="hotplug-v4", alone=True)
_bug("kernel: v4 does not look for offline CPUs", "INSTALL_MODULE.gate", "session-ends",
     Replaced("host.install:check_gate", lambda old: lambda host: Errno.OK), scenario="hotplug-v4")

# --- P-SEAMLDR: the session ---------------------------------------------------------------------------------------


def _one_lp_less(old: Any) -> Any:
    return lambda self, name: old(self, name) - (name == "tot_num_lps")


def _snapshot_only(old: Any) -> Any:
    return lambda self: self.put_bytes("seamextend_snapshot", self.read_SEAMEXTEND())


def _snapshot_late(old: Any) -> Any:
    def block(self: Any) -> None:
        register = bytearray(self.read_SEAMEXTEND())
        SEAMEXTEND.poke(register, "seam_ready", 0)
        self.write_SEAMEXTEND(register)
        self.put_bytes("seamextend_snapshot", register)

    return block


def _session_stays(old: Any) -> Any:
    def end(self: Any, status: Any) -> Any:
        bitmap, count = self.call.get_bytes("update_bitmap"), self.call.get("lps_in_update")
        answer = old(self, status)
        self.call.put_bytes("update_bitmap", bitmap)
        self.call.put("lps_in_update", count)
        return answer

    return end


def _bitmap_stays(old: Any) -> Any:
    def end(self: Any, status: Any) -> Any:
        bitmap = self.call.get_bytes("update_bitmap")
        answer = old(self, status)
        self.call.put_bytes("update_bitmap", bitmap)
        return answer

    return end


def _gives_rdx(value: Recoverability) -> Any:
    def make(old: Any) -> Any:
        def end(self: Any, status: Any) -> Any:
            answer = old(self, status)
            if answer is not Status.SUCCESS:
                self.call.give("rdx", value)
            return answer

        return end

    return make


def _wipes_identity(old: Any) -> Any:
    def fail(self: Any) -> None:
        recoverability = self.recoverability
        self.recoverability = Recoverability.UNRECOVERABLE
        old(self)
        self.recoverability = recoverability

    return fail


_IMAGE_FAULT: dict[str, Any] = {"faults": ("image",), "aside": ("update-succeeds",)}
_bug("P-SEAMLDR: the session ends one processor early", "INSTALL.leaf", "one-identity",
     Replaced("pseamldr.data:SysInfo.__getitem__", _one_lp_less))
_equivalent("P-SEAMLDR: does not block the module", "INSTALL.leaf",
            "stop_machine keeps every CPU out of the module during the session anyway",
            Replaced("pseamldr.data:Call.block_module", _snapshot_only))
_bug("P-SEAMLDR: the snapshot is taken behind blocking", "INSTALL.leaf", "recoverable-means-untouched",
     Replaced("pseamldr.data:Call.block_module", _snapshot_late), **_IMAGE_REFUSED)
_equivalent("P-SEAMLDR: a repeated INSTALL counts", "INSTALL.lp.repeated",
            "merged Linux calls INSTALL once on each CPU; only a kernel that repeats would notice",
            LeftOut("INSTALL.lp", "INSTALL.lp.repeated"))
_bug("P-SEAMLDR: no VMCLEAR of the transfer VMCS", "INSTALL.vmclear", "no-deadlock",
     Replaced("pseamldr.install:_clear_transfer_vmcs", lambda old: lambda call, values, lpid: None))
_bug("P-SEAMLDR: the session stays open", "INSTALL.leaf", "session-ends",
     Replaced("pseamldr.install:Session.end", _session_stays))
_equivalent("P-SEAMLDR: the bitmap is not cleared", "INSTALL.leaf", "a second update would notice, and here is one",
            Replaced("pseamldr.install:Session.end", _bitmap_stays))
_bug("P-SEAMLDR: a failure leaves the module blocked", "INSTALL.failure", "recoverable-means-untouched",
     Replaced("pseamldr.install:Session._fail", lambda old: lambda self: None), **_IMAGE_REFUSED)
_bug("P-SEAMLDR: a failure always wipes the identity", "INSTALL.failure", "recoverable-means-untouched",
     Replaced("pseamldr.install:Session._fail", _wipes_identity), **_IMAGE_REFUSED)
_bug("P-SEAMLDR: RDX = 0 whatever happened", "INSTALL.failure", "recoverable-means-untouched",
     Replaced("pseamldr.install:Session.end", _gives_rdx(Recoverability.RECOVERABLE)), **_IMAGE_FAULT)
_bug("P-SEAMLDR: RDX = 1 for a refusal that changed nothing", "INSTALL.leaf", "unrecoverable-means-touched",
     Replaced("pseamldr.install:Session.end", _gives_rdx(Recoverability.UNRECOVERABLE)), alone=True, **_IMAGE_REFUSED)

# --- P-SEAMLDR: what it installs ----------------------------------------------------------------------------------


def _identity_keeps(*fields: str) -> Any:
    """The identity with some fields as in the snapshot."""

    def make(old: Any) -> Any:
        def identity(self: Any) -> bytearray:
            made = old(self)
            snapshot = self.call.get_bytes("seamextend_snapshot")
            for name in fields:
                made[SEAMEXTEND.span(name)] = snapshot[SEAMEXTEND.span(name)]
            return bytearray(made)

        return identity

    return make


def _identity_says(name: str, value: int) -> Any:
    def make(old: Any) -> Any:
        def identity(self: Any) -> bytearray:
            made = bytearray(old(self))
            SEAMEXTEND.poke(made, name, value)
            return made

        return identity

    return make


def _ready_first(old: Any) -> Any:
    def succeed(self: Any) -> Any:
        identity = self._identity()
        SEAMEXTEND.poke(identity, "seam_ready", 1)
        self.call.write_SEAMEXTEND(identity)
        kept = type(self)._identity
        try:
            type(self)._identity = lambda session: bytearray(identity)
            return old(self)
        finally:
            type(self)._identity = kept

    return succeed


def _never_ready(old: Any) -> Any:
    def succeed(self: Any) -> Any:
        status = old(self)
        register = bytearray(self.call.read_SEAMEXTEND())
        SEAMEXTEND.poke(register, "seam_ready", 0)
        self.call.write_SEAMEXTEND(register)
        return status

    return succeed


def _remaining_less(by: int) -> Any:
    def make(old: Any) -> Any:
        def succeed(self: Any) -> Any:
            status = old(self)
            if status is Status.SUCCESS:
                self.call.put("num_remaining_updates", self.call.get("num_remaining_updates") - by)
            return status

        return succeed

    return make


def _no_handoff_fields(old: Any) -> Any:
    def succeed(self: Any) -> Any:
        status = old(self)
        if status is Status.SUCCESS:
            at = self.region.base + SYS_INFO_TABLE.offset_of("module_hv")
            self.region.write(at, b"\xff\xff")
        return status

    return succeed


def _wipes(offset: int, size: int) -> Any:
    """UPDATE also clears some bytes of the handoff data."""

    def make(old: Any) -> Any:
        def clear(self: Any, plan: Any) -> Any:
            status = old(self, plan)
            if status is Status.SUCCESS:
                self.region.zero(plan.data_region_physbase + offset, size)
            return status

        return clear

    return make


def _loads_always(old: Any) -> Any:
    def clear(self: Any, plan: Any, scenario: int) -> Any:
        self._clear_for_load()
        return Status.SUCCESS

    return clear


def _last_vmcs_blank(old: Any) -> Any:
    def set_up(region: Any, plan: Any, rip_offset: int, rdmsr: Any, revision: str) -> None:
        old(region, plan, rip_offset, rdmsr, revision)
        region.zero(plan.seamrr_base + 0x1000 * plan.num_addressable_lps, 0x1000)

    return set_up


def _one_gs_base(old: Any) -> Any:
    def set_up(region: Any, plan: Any, rip_offset: int, rdmsr: Any, revision: str) -> None:
        old(region, replace(plan, local_data_size=0), rip_offset, rdmsr, revision)

    return set_up


_bug("P-SEAMLDR: MRSEAM stays the old module's", "INSTALL.identity", "measured-as-installed",
     Replaced("pseamldr.install:Session._identity", _identity_keeps("mrseam")), alone=True)
_bug("P-SEAMLDR: the SVN stays the old module's", "INSTALL.identity", "measured-as-installed",
     Replaced("pseamldr.install:Session._identity", _identity_keeps("tee_tcb_svn")), alone=True)
_bug("P-SEAMLDR: valid says another vendor's module", "INSTALL.identity", "measured-as-installed",
     Replaced("pseamldr.install:Session._identity", _identity_says("valid", 0xFFFF)), alone=True)
_bug("P-SEAMLDR: attributes are not cleared", "INSTALL.identity", "measured-as-installed",
     Replaced("pseamldr.install:Session._identity", _identity_says("attributes", 1)), alone=True)
_bug("P-SEAMLDR: ready before SEAMDB took the module", "INSTALL.success", "ready-means-intact",
     Replaced("pseamldr.install:Session._succeed", _ready_first), faults=("seamdb-dry",), aside=("update-succeeds",),
     alone=True)
_bug("P-SEAMLDR: SEAM_READY stays 0", "INSTALL.success", "update-succeeds",
     Replaced("pseamldr.install:Session._succeed", _never_ready))
_bug("P-SEAMLDR: num_remaining_updates falls by two", "INSTALL.success", "updates-counted",
     Replaced("pseamldr.install:Session._succeed", _remaining_less(1)), alone=True)
_bug("P-SEAMLDR: num_remaining_updates does not fall", "INSTALL.success", "updates-counted",
     Replaced("pseamldr.install:Session._succeed", _remaining_less(-1)), alone=True)
_bug("P-SEAMLDR: the handoff fields are not written", "INSTALL.success", "update-succeeds",
     Replaced("pseamldr.install:Session._succeed", _no_handoff_fields))
_bug("P-SEAMLDR: any SVN goes", "INSTALL.manifest.minor_svn", "svn-never-falls",
     LeftOut("INSTALL.manifest", "INSTALL.manifest.minor_svn"), scenario="update-downgrade",
     aside=("update-succeeds",))
_bug("P-SEAMLDR: any signature goes", "INSTALL.manifest.signature", "only-signed-modules",
     LeftOut("INSTALL.manifest", "INSTALL.manifest.signature"), scenario="update-bad-signature", alone=True)
_bug("P-SEAMLDR: the hash is not compared", "INSTALL.hash.seamhash", "ready-means-intact",
     LeftOut("INSTALL.hash", "INSTALL.hash.seamhash"), alone=True, **_IMAGE_FAULT)
_bug("P-SEAMLDR: relocated to another address", "ELF.relocate", "ready-means-intact",
     Replaced("pseamldr.install:relocate", lambda old: lambda image, load: old(image, load + 0x1000)))
_bug("P-SEAMLDR: the IDT is not fixed up", "INSTALL.idt", "ready-means-intact",
     Replaced("pseamldr.install:fix_up_idt", lambda old: lambda image, offset, wrapper: None), alone=True)
_bug("P-SEAMLDR: the handoff header is wiped", "INSTALL.preserve", "update-succeeds",
     Replaced("pseamldr.install:Session._clear_for_update", _wipes(0, 0x1000)))
_bug("P-SEAMLDR: keeps too little of the handoff data", "INSTALL.preserve", "tds-preserved",
     Replaced("pseamldr.install:Session._clear_for_update", _wipes(0x1000, 0xC000)), scenario="tds-during-update")
_bug("P-SEAMLDR: UPDATE works as LOAD", "INSTALL.load", "update-succeeds",
     Replaced("pseamldr.install:Session._clear_range", _loads_always))
_bug("P-SEAMLDR: the last transfer VMCS is blank", "VMCS.setup", "no-deadlock",
     Replaced("pseamldr.install:set_up_vmcss", _last_vmcs_blank))
_bug("P-SEAMLDR: all processors get one local data area", "VMCS.setup", "update-succeeds",
     Replaced("pseamldr.install:set_up_vmcss", _one_gs_base))

# --- P-SEAMLDR: its exit ------------------------------------------------------------------------------------------

GUEST_RFLAGS, GUEST_RIP = 0x6820, 0x681E


def _exit(wrong: Any) -> Any:
    """The loader's exit, and something behind it."""

    def make(old: Any) -> Any:
        def leave(call: Any) -> None:
            old(call)
            wrong(call)

        return leave

    return make


def _rip_stays(old: Any) -> Any:
    def leave(call: Any) -> None:
        rip = call.vmread(GUEST_RIP)
        old(call)
        call.vmwrite(GUEST_RIP, rip)

    return leave


def _info_tells(old: Any) -> Any:
    def info(call: Any, values: Any) -> Any:
        status = old(call, values)
        if status is Status.SUCCESS:
            at = call.saved("rcx") + SEAMLDR_INFO.size - 8
            call.write(at, call.get("canary").to_bytes(8, "little"))
        return status

    return info


def _leaves_table(change: Any) -> Any:
    def make(old: Any) -> Any:
        return {leaf: change(function) if leaf.name == "INFO" else function for leaf, function in old.items()}

    return make


_bug("P-SEAMLDR: the stack canary leaks in R11", "DISPATCH.exit", "registers-kept", Replaced(
    "pseamldr.program:leave", _exit(lambda call: setattr(call.lp, "r11", call.get("canary")))))
_bug("P-SEAMLDR: R15 comes back as 0", "DISPATCH.exit", "registers-kept", Replaced(
    "pseamldr.program:leave", _exit(lambda call: setattr(call.lp, "r15", 1))), alone=True)
_bug("P-SEAMLDR: IA32_SPEC_CTRL is not restored", "DISPATCH.exit", "registers-kept", Replaced(
    "pseamldr.program:leave", _exit(lambda call: call.wrmsr(0x48, 4))), alone=True)
_bug("P-SEAMLDR: RIP stays at SEAMCALL", "DISPATCH.exit", "registers-kept",
     Replaced("pseamldr.program:leave", _rip_stays), alone=True)
_bug("P-SEAMLDR: comes back with interrupts on", "DISPATCH.exit", "blocking-kept", Replaced(
    "pseamldr.program:leave", _exit(lambda call: call.vmwrite(GUEST_RFLAGS, call.vmread(GUEST_RFLAGS) | IF))),
    alone=True)
_bug("P-SEAMLDR: SEAMLDR_INFO ends with the stack canary", "INFO.leaf", "secrets-kept",
     Replaced("pseamldr.program:_LEAVES", _leaves_table(_info_tells)), scenario="info-callers", alone=True)
_equivalent("P-SEAMLDR: INFO never asks SEAMDB again", "INFO.refresh", "num_remaining_updates is known since the first "
            "installation; only an INFO before it would tell", Replaced(
                "pseamldr.info:refresh_remaining_updates", lambda old: lambda call: call.get("num_remaining_updates")),
            scenario="info-callers")
_equivalent("P-SEAMLDR: SHUTDOWN does not block the module", "SHUTDOWN.block",
            "nobody calls the module between the first SHUTDOWN and the last, which clears the register",
            Replaced("pseamldr.shutdown:_block", lambda old: lambda call: None), scenario="loader-reload", cpus=3)
_bug("P-SEAMLDR: SHUTDOWN does not clear the register", "SHUTDOWN.leaf", "loader-reloaded", Replaced(
    "pseamldr.program:_LEAVES", lambda old: {
        leaf: (lambda call, values: Status.SUCCESS) if leaf.name == "SHUTDOWN" else function
        for leaf, function in old.items()}), scenario="loader-reload", cpus=3)

# --- processor ----------------------------------------------------------------------------------------------------


def _behind_SEAMRET(wrong: Any) -> Any:
    def make(old: Any) -> Any:
        def leave(platform: Any, lp: Any) -> Any:
            left = old(platform, lp)
            wrong(platform, lp)
            return left

        return leave

    return make


def _flags_survive(old: Any) -> Any:
    def die(platform: Any, lp_id: int, cause: str) -> Any:
        register = platform.SEAMEXTEND
        outcome = old(platform, lp_id, cause)
        platform.set_SEAMEXTEND(platform.lp(lp_id), register)
        return outcome

    return die


def _no_link(old: Any) -> Any:
    def enter(platform: Any, lp: Any) -> Any:
        from seamref.arch.vmcs import NONE, put
        from seamref.arch.vmx import current

        entered = old(platform, lp)
        put(current(lp).data, "vmcs_link_pointer", NONE)
        return entered

    return enter


def _not_loaded(register: str) -> Any:
    def make(old: Any) -> Any:
        def load(lp: Any, data: Any) -> None:
            kept = getattr(lp, register)
            old(lp, data)
            setattr(lp, register, kept)

        return load

    return make


def _stays(name: str) -> Any:
    """The instruction does its work, and this attribute of the platform is as it was."""
    def make(old: Any) -> Any:
        def does(platform: Any, lp: Any) -> Any:
            kept = getattr(platform, name)
            done = old(platform, lp)
            setattr(platform, name, kept)
            return done

        return does

    return make


def _inserts_twice(old: Any) -> Any:
    def insert(platform: Any, lp: Any) -> Any:
        count = len(platform.seamdb)
        done = old(platform, lp)
        if len(platform.seamdb) > count:
            platform.seamdb = (*platform.seamdb, platform.seamdb[-1])
        return done

    return insert


_bug("processor: P_SEAMLDR_MUTEX is not tested", "SEAMCALL.p_seamldr_busy", "one-in-p-seamldr",
     LeftOut("SEAMCALL", "SEAMCALL.p_seamldr_busy"), scenario="update-without-lock",
     aside=("nobody-collides", "session-ends", "update-succeeds"))
_bug("processor: SEAM_READY is ignored", "SEAMCALL.module_not_ready", "entered-only-when-ready",
     LeftOut("SEAMCALL", "SEAMCALL.module_not_ready"), scenario="tds-during-update", **_IMAGE_FAULT)
_bug("processor: SEAMRR is open to everybody", "MEMORY.module_range", "seam-memory-closed",
     LeftOut("MEMORY", "MEMORY.module_range"), alone=True)
_bug("processor: devices can write the module's range", "MEMORY.module_range", "seam-memory-closed", Judged(
    "MEMORY", "MEMORY.module_range",
    lambda old: lambda c: old(c) and not (c.agent is Agent.DMA and c.write and not c.in_p_seamldr_range())),
    alone=True)
_bug("processor: SEAMRR is open to the host during a session", "MEMORY.module_range", "seam-memory-closed", Judged(
    "MEMORY", "MEMORY.module_range",
    lambda old: lambda c: old(c) and not (c.agent is Agent.HOST and not c.platform.SEAM_READY)), alone=True)
_bug("processor: SMM writes P_SEAMLDR_RANGE while P-SEAMLDR runs", "MEMORY.p_seamldr_range", "seam-memory-closed",
     Judged("MEMORY", "MEMORY.p_seamldr_range", lambda old: lambda c: old(c) and not (
         c.agent is Agent.SMM and c.write and c.platform.P_SEAMLDR_MUTEX is not None)),
     Judged("MEMORY", "MEMORY.module_range", lambda old: lambda c: old(c) and not (
         c.agent is Agent.SMM and c.write and c.platform.P_SEAMLDR_MUTEX is not None and c.in_p_seamldr_range())),
     alone=True)
_bug("processor: shutdown in SEAM keeps the ready flags", "EVENT.shutdown_in_SEAM", "death-closes-seam",
     Replaced("arch.events:shutdown", _flags_survive), Replaced("host.seamcall:shutdown", _flags_survive),
     Replaced("explore.faults:shutdown", _flags_survive), faults=("shutdown",), aside=("no-deadlock",), alone=True)
_bug("processor: SEAMRET leaves NMIs inhibited", "SEAMRET.leave", "blocking-kept", Replaced(
    "arch.seam:_leave_SEAM", _behind_SEAMRET(lambda platform, lp: setattr(lp, "nmi_inhibit", True))), alone=True)
_bug("processor: SEAMRET leaves SMIs inhibited", "SEAMRET.leave", "blocking-kept", Replaced(
    "arch.seam:_leave_SEAM", _behind_SEAMRET(lambda platform, lp: setattr(lp, "smi_inhibit", True))), alone=True)
_bug("processor: SEAMRET keeps SEAM's GS base", "SEAMRET.leave", "registers-kept",
     Replaced("arch.seam:load_guest_state", _not_loaded("gs_base")), alone=True)
_bug("processor: SEAMRET keeps SEAM's CR3", "SEAMRET.leave", "registers-kept",
     Replaced("arch.seam:load_guest_state", _not_loaded("cr3")), alone=True)
_bug("processor: SEAMCALL does not link the current VMCS", "SEAMCALL.enter", "vmcs-kept",
     Replaced("arch.seam:_enter_SEAM", _no_link))
_bug("processor: SEAMRET does not release P_SEAMLDR_MUTEX", "SEAMRET.leave", "nobody-collides",
     Replaced("arch.seam:_leave_SEAM", _stays("P_SEAMLDR_MUTEX")))
_equivalent("processor: P-SEAMLDR's transfer VMCS is not evicted", "SEAMRET.evict",
            "what P-SEAMLDR keeps in it was written at its first call; SEAMCALL writes the rest anew", Replaced(
                "arch.seam:_evict_transfer", lambda old: lambda platform, lp, cvp: None))
_bug("processor: SEAMDB_INSERT takes two entries", "SEAMOPS.seamdb_insert", "updates-counted",
     Replaced("arch.seamops:_seamdb_insert", _inserts_twice))
_bug("processor: SEAMDB_INSERT records nothing", "SEAMOPS.seamdb_insert", "ready-means-intact",
     Replaced("arch.seamops:_seamdb_insert", _stays("seamdb")))

# --- module -------------------------------------------------------------------------------------------------------


def _also(wrong: Any) -> Any:
    """A leaf's effect, and something behind it."""

    def make(old: Any) -> Any:
        def effect(call: Any) -> Any:
            result = old(call)
            wrong(call)
            return result

        return effect

    return make


def _tells_canary(call: Any) -> None:
    from seamref.tdxmodule.system.init import canary_page

    call.out(rdx=canary_page(call).num("canary"))


def _lp_init_exclusive(old: Any) -> Any:
    from seamref.tdxmodule.system.common import global_exclusive

    return global_exclusive


def _keeps_lock_behind(old: Any) -> Any:
    def finish(call: Any, result: Any) -> Any:
        if call.leaf == 35:
            call.held.clear()
        return old(call, result)

    return finish


def _rbx_lost(old: Any) -> Any:
    def leave(self: Any, call: Any) -> Any:
        call.out(rbx=1)
        return old(self, call)

    return leave


_SYS_INIT, _LP_INIT, _SHUTDOWN, _UPDATE = 33, 35, 52, 53
_bug("module: TDH.SYS.UPDATE leaves the handoff data valid", "SYS.UPDATE.effect", "module-lifecycle",
     Effect(_UPDATE, _also(lambda call: call.handoff.set("valid", 1))), alone=True)
_bug("module: TDH.SYS.INIT is ready at once", "SYS.INIT.effect", "module-lifecycle",
     Effect(_SYS_INIT, _also(lambda call: call.glob.set("sys_state", SysState.SYS_READY))))
_bug("module: TDH.SYS.UPDATE stops short of SYS_READY", "SYS.UPDATE.effect", "module-lifecycle",
     Effect(_UPDATE, _also(lambda call: call.glob.set("sys_state", SysState.SYSCONFIG_DONE))))
_equivalent("module: UPDATE before all LP.INITs", "SYS.UPDATE.lps",
            "the kernel's own barrier already waits for every LP.INIT",
            LeftOut("TDH.SYS.UPDATE", "SYS.UPDATE.lps"))
_equivalent("module: UPDATE takes invalid handoff data", "SYS.UPDATE.valid",
            "P-SEAMLDR has looked at the same byte, and nobody writes it in between",
            LeftOut("TDH.SYS.UPDATE", "SYS.UPDATE.valid"))
_bug("module: LP.INIT does not count", "SYS.LP.INIT.effect", "update-succeeds", Effect(_LP_INIT, _also(
    lambda call: call.glob.set("num_init_lps", call.glob.num("num_init_lps") - 1))))
_equivalent("module: LP.INIT counts twice", "SYS.LP.INIT.effect",
            "the kernel's own barrier already waits for every LP.INIT", Effect(_LP_INIT, _also(
                lambda call: call.glob.set("num_init_lps", call.glob.num("num_init_lps") + 1))))
_bug("module: LP.INIT takes GLOBAL_LOCK exclusively", "SYS.LP.INIT.lock", "update-succeeds",
     Judged("TDH.SYS.LP.INIT", "SYS.LP.INIT.lock", _lp_init_exclusive))
_bug("module: LP.INIT keeps GLOBAL_LOCK", "MODULE.result", "update-succeeds",
     Replaced("tdxmodule.program:finish", _keeps_lock_behind))
_bug("module: SHUTDOWN writes another handoff version", "SYS.SHUTDOWN.handoff", "update-succeeds",
     Effect(_SHUTDOWN, _also(lambda call: call.handoff.set("hv", 7))))
_bug("module: SHUTDOWN says that the handoff data are empty", "SYS.SHUTDOWN.handoff", "no-deadlock",
     Effect(_SHUTDOWN, _also(lambda call: call.handoff.set("size", 0))))
_equivalent("module: SHUTDOWN does not look for processors inside", "SYS.SHUTDOWN.busy",
            "stop_machine has every CPU out of the module", LeftOut("TDH.SYS.SHUTDOWN busy", "SYS.SHUTDOWN.busy"),
            scenario="tds-during-update")
_bug("module: lets everything through in SYS_SHUTDOWN", "DISPATCH.shutdown", "module-lifecycle",
     LeftOut("TDX module dispatcher", "DISPATCH.shutdown"), scenario="module-caller", aside=("update-succeeds",))
_equivalent("module: the KeyID table is not taken over", "SYS.UPDATE.effect",
            "a TD that runs never looks at the table; taking it down would",
            Effect(_UPDATE, _also(lambda call: call.glob.set("kot", bytes(0x4000)))), scenario="tds-during-update")
_bug("module: the TDMRs are not taken over", "SYS.UPDATE.effect", "tds-preserved",
     Effect(_UPDATE, _also(lambda call: call.glob.set("num_tdmrs", 0))), scenario="tds-during-update")
_bug("module: the global KeyID is not taken over", "SYS.UPDATE.effect", "tds-preserved",
     Effect(_UPDATE, _also(lambda call: call.glob.set("hkid", 0))), scenario="tds-during-update")
_bug("module: a TD's host state is not set anew", "VP.ENTER.replaced", "tds-preserved",
     Replaced("tdxmodule.run:_notice_update", lambda old: lambda call, tdvps: None), scenario="tds-during-update")
_bug("module: the stack canary leaks in RDX of LP.INIT", "SYS.INIT.entropy", "secrets-kept",
     Effect(_LP_INIT, _also(_tells_canary)), alone=True)
_bug("module: RBX comes back changed", "MODULE.leave", "registers-kept",
     Replaced("tdxmodule.program:TdxModule._leave", _rbx_lost), alone=True)

# --- kexec --------------------------------------------------------------------------------------------------------

_DISABLE = 69


def _leaves_others_in_vmx(old: Any) -> Any:
    def leave(host: Any, *, write_back: bool = True) -> None:
        refs = {cpu: host.cpu(cpu).vmx_refs for cpu in host.online if cpu}
        for cpu in refs:
            host.set_cpu(cpu, vmx_refs=0)
        old(host, write_back=write_back)

    return leave


def _knows_the_others(call: Any) -> None:
    for number in range(call.num_addressable):
        if number != call.lp.id:
            call.local_of(number).set("initialised", 1)


_KEXEC: dict[str, Any] = {"scenario": "kexec-around-update"}
_bug("kernel: kexec leaves the module as it is", "LNX.sys_disable", "tdx-behind-kexec",
     Handler("kexec.start", _then("kexec.leave", "no TDH.SYS.DISABLE")), **_KEXEC)
_bug("kernel: kexec takes TDX_SYS_BUSY for the last word", "LNX.sys_disable", "tdx-behind-kexec",
     Replaced("host.tdx:_AGAIN", lambda old: old[:1]), scenario="kexec-under-td",
     aside=("memory-given-back",))
_bug("kernel: kexec writes no cache back", "LNX.sys_disable", "kexec-hands-over",
     Replaced("host.tdx:_wbinvd", lambda old: lambda host, cpu: False), alone=True, **_KEXEC)
_bug("kernel: kexec leaves the other CPUs in VMX operation", "LNX.sys_disable", "kexec-hands-over",
     Replaced("host.tdx:leave_vmx", _leaves_others_in_vmx), alone=True, **_KEXEC)
_bug("module: DISABLE remembers which other processors were initialised", "SYS.DISABLE.effect", "tdx-behind-kexec",
     Effect(_DISABLE, _also(_knows_the_others)), alone=True, **_KEXEC)
_bug("module: DISABLE gives no memory back", "SYS.DISABLE.reclaim", "memory-given-back",
     Effect(_DISABLE, lambda old: lambda call: None, index=0), alone=True, **_KEXEC)


# --- hunting ------------------------------------------------------------------------------------------------------


def hunt(bug: Bug, *, whole: bool = False) -> tuple[str, ...]:
    """What is noticed of a bug: names of the properties that the default command breaks while the bug is there.

    ``whole``: not only the first of them, but all.  The machine is booted before the bug is put in, so that it strikes
    only what the scenario does.  A bug that makes runs without end is noticed by :mod:`seamref.explore.progress`.
    Errors: a search that stopped before its end and broke nothing is no answer.
    """
    scenario = get_scenario(bug.scenario)
    scenario.make(bug.cpus)
    names = tuple(name for name in scenario.properties if name not in bug.aside)
    with seeded(*bug.changes):
        if bug.noticed_by == LIVENESS:
            return () if progress(scenario, bug.cpus, bug.faults).holds else (LIVENESS,)
        result = explore(scenario, bug.cpus, faults=bug.faults, properties=names, shortest=False, stop_first=not whole)
    if not result.broken and not result.complete:
        raise SeamrefError(f"{bug.name}: {result.verdict}")
    return tuple(found.broken for found in result.broken)


__all__ = ["BUGS", "LIVENESS", "Bug", "get_bug", "hunt"]
