"""Seeded bugs in loader, module and kernel code, switched on one at a time from outside the shipped code.

Each mutation says what it breaks, where a scenario would show it, and how to switch it on: a function gets another
one in its place for the time of one exploration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import seamref.arch.seam as seam
import seamref.host.seamldr as seamldr
import seamref.host.tasks as tasks
import seamref.host.update as update
import seamref.pseamldr.data as data
import seamref.pseamldr.install as install
import seamref.pseamldr.program as loader
import seamref.tdxmodule.system as system
from seamref.explore.scenarios import BACK, MERGED, Scenario, get_scenario, update_world
from seamref.host.abi import Errno
from seamref.host.records import UpdateState
from seamref.host.series import Lock
from seamref.host.tasks import Next
from seamref.pseamldr.api import Status


@dataclass(frozen=True)
class Mutation:
    """A seeded bug.  ``survives``: no property is expected to see it, and why."""

    name: str
    says: str
    patch: Callable[[Patcher], None]
    scenario: str | Scenario = "update"
    cpus: int = 2
    faults: tuple[str, ...] = ()
    survives: str = ""


class Patcher:
    """Puts things in place of others and takes them out again."""

    def __init__(self) -> None:
        self._undo: list[Callable[[], None]] = []

    def attr(self, target: Any, name: str, value: Any) -> None:
        """Replace an attribute."""
        old = getattr(target, name)
        setattr(target, name, value)
        self._undo.append(lambda: setattr(target, name, old))

    def handler(self, pc: str, make: Callable[[Any], Any]) -> None:
        """Replace the kernel's handler at a program counter; ``make`` gets the old one."""
        old = tasks.HANDLERS[pc]
        tasks.HANDLERS[pc] = make(old)
        self._undo.append(lambda: tasks.HANDLERS.__setitem__(pc, old))

    def row(self, table: Any, id: str) -> None:
        """Take a row out of a check table."""
        counted = tuple(entry for entry in table._counted if entry[0].id != id)
        assert len(counted) == len(table._counted) - 1, id
        self.attr(table, "_counted", counted)

    def undo(self) -> None:
        """Everything as it was."""
        while self._undo:
            self._undo.pop()()


@contextmanager
def mutated(mutation: Mutation) -> Iterator[None]:
    """The bug is there while the block runs."""
    patcher = Patcher()
    try:
        mutation.patch(patcher)
        yield
    finally:
        patcher.undo()


# --- the kernel


def _kernel_no_lock(p: Patcher) -> None:
    p.attr(seamldr, "_wants_lock", lambda host, task: False)


def _kernel_unlock_early(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def vmptrst(host: Any, cpu: int, task: Any) -> Any:
            host.set(seamldr_lock=None)
            return old(host, cpu, task)
        return vmptrst
    p.handler("seamldr.vmptrst", make)


def _kernel_lock_not_tested(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def lock(host: Any, cpu: int, task: Any) -> Any:
            host.set(seamldr_lock=cpu)
            return Next("takes the lock without looking", replace(task, pc="seamldr.vmptrst"))
        return lock
    p.handler("seamldr.lock", make)
    waits = tasks._WAITS["seamldr.lock"]
    tasks._WAITS["seamldr.lock"] = lambda host, cpu, task: None
    p._undo.append(lambda: tasks._WAITS.__setitem__("seamldr.lock", waits))


def _kernel_never_unlocks(p: Patcher) -> None:
    def make(old: Any) -> Any:
        return lambda host, cpu, task: Next("forgets to unlock", seamldr._continue(host, cpu, task))
    p.handler("seamldr.unlock", make)


def _kernel_install_lead_only(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def work(host: Any, cpu: int, task: Any) -> Any:
            if task.cur == UpdateState.CPU_INSTALL and cpu != 0:
                return Next("leaves INSTALL to the lead", replace(task, pc="update.ack"))
            return old(host, cpu, task)
        return work
    p.handler("update.work", make)


def _kernel_forgets_last(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def work(host: Any, cpu: int, task: Any) -> Any:
            if task.cur == UpdateState.CPU_INSTALL and cpu == len(host.state.cpus) - 1:
                return Next("the last CPU does not INSTALL", replace(task, pc="update.ack"))
            return old(host, cpu, task)
        return work
    p.handler("update.work", make)


def _kernel_installs_twice(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def unlock(host: Any, cpu: int, task: Any) -> Any:
            answer = old(host, cpu, task)
            if task.cur == UpdateState.CPU_INSTALL and cpu == 0 and not task.worst and host.state.printed_once == set():
                host.set(printed_once=frozenset({"twice"}))
                again = replace(answer.task, pc="seamldr.enter", data=task.data, saved=update.control(host).params)
                return Next("calls INSTALL again", again)
            return answer
        return unlock
    p.handler("seamldr.unlock", make)


def _kernel_no_lp_init(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def unlock(host: Any, cpu: int, task: Any) -> Any:
            answer = old(host, cpu, task)
            if cpu == len(host.state.cpus) - 1:
                return Next("no TDH.SYS.LP.INIT here", replace(task, pc=task.then, call=None))
            return answer
        return unlock
    p.handler("enable.unlock", make)


def _kernel_no_sysinit_lock(p: Patcher) -> None:
    def make(old: Any) -> Any:
        return lambda host, cpu, task: Next("no sysinit_lock", replace(task, pc="enable.sysinit"))
    p.handler("enable.lock", make)


def _kernel_no_shutdown(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def start(host: Any, cpu: int, task: Any) -> Any:
            update._forget(host)
            return Next("no TDH.SYS.SHUTDOWN", replace(task, pc="update.ack", ret=Errno.OK))
        return start
    p.handler("shutdown.start", make)


def _kernel_no_forget(p: Patcher) -> None:
    p.attr(update, "_forget", lambda host: None)


def _kernel_forgets_online_flag(p: Patcher) -> None:
    def forget(host: Any) -> None:
        host.set(module=update.ModuleState(), cpus=(host.state.cpus[0], *(
            replace(c, lp_initialized=False) for c in host.state.cpus[1:])))
    p.attr(update, "_forget", forget)


def _kernel_no_update_call(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def work(host: Any, cpu: int, task: Any) -> Any:
            if task.cur == UpdateState.RUN_UPDATE and cpu == 0:
                return Next("no TDH.SYS.UPDATE", update._initialized(host, task))
            return old(host, cpu, task)
        return work
    p.handler("update.work", make)


def _kernel_ignores_install_error(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def unlock(host: Any, cpu: int, task: Any) -> Any:
            return old(host, cpu, replace(task, ret=Errno.OK))
        return unlock
    p.handler("seamldr.unlock", make)


def _kernel_ignores_all_errors(p: Patcher) -> None:
    def make(old: Any) -> Any:
        return lambda host, cpu, task: old(host, cpu, replace(task, ret=Errno.OK))
    p.handler("update.ack", make)


def _kernel_ack_twice(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def ack(host: Any, cpu: int, task: Any) -> Any:
            if cpu == 0 and task.cur == UpdateState.CPU_INSTALL:
                old(host, cpu, task)
            return old(host, cpu, task)
        return ack
    p.handler("update.ack", make)


def _kernel_no_ack(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def ack(host: Any, cpu: int, task: Any) -> Any:
            if cpu == 1 and task.cur == UpdateState.SHUTDOWN:
                return Next("forgets to acknowledge", replace(task, pc="update.check"))
            return old(host, cpu, task)
        return ack
    p.handler("update.ack", make)


def _kernel_runs_ahead(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def ack(host: Any, cpu: int, task: Any) -> Any:
            shared = update.control(host)
            if shared.state is UpdateState.SHUTDOWN:
                update._set(host, acks=0, state=UpdateState.CPU_INSTALL)
                return Next("moves the state on without waiting", replace(task, pc="update.check"))
            return old(host, cpu, task)
        return ack
    p.handler("update.ack", make)


def _kernel_loses_vmcs(p: Patcher) -> None:
    def make(old: Any) -> Any:
        def returned(host: Any, cpu: int, task: Any) -> Any:
            from seamref.arch.vmx import vmclear
            vmclear(host.platform, host.cpu(cpu).apicid, host.cpu(cpu).vmcs)
            return old(host, cpu, task)
        return returned
    p.handler("seamldr.returned", make)


# --- P-SEAMLDR


def _loader_last_too_early(p: Patcher) -> None:
    old = data.SysInfo.__getitem__
    p.attr(data.SysInfo, "__getitem__", lambda self, name: old(self, name) - (name == "tot_num_lps"))


def _loader_no_block(p: Patcher) -> None:
    def block(self: Any) -> None:
        self.put_bytes("seamextend_snapshot", self.read_SEAMEXTEND())
    p.attr(data.Call, "block_module", block)


def _loader_no_snapshot(p: Patcher) -> None:
    def block(self: Any) -> None:
        register = self.read_SEAMEXTEND()
        self.write_SEAMEXTEND(register[:128] + b"\0" + register[129:])
        self.put_bytes("seamextend_snapshot", self.read_SEAMEXTEND())
    p.attr(data.Call, "block_module", block)


def _loader_no_bitmap(p: Patcher) -> None:
    p.row(install.INSTALL_LP, "INSTALL.lp.repeated")


def _loader_no_vmclear(p: Patcher) -> None:
    p.attr(install, "_clear_transfer_vmcs", lambda call, values, lpid: None)


def _loader_session_stays(p: Patcher) -> None:
    old = install.Session.end

    def end(self: Any, status: Any) -> Any:
        bitmap, count = self.call.get_bytes("update_bitmap"), self.call.get("lps_in_update")
        answer = old(self, status)
        self.call.put_bytes("update_bitmap", bitmap)
        self.call.put("lps_in_update", count)
        return answer
    p.attr(install.Session, "end", end)


def _loader_no_ready(p: Patcher) -> None:
    old = install.Session._succeed

    def succeed(self: Any) -> Any:
        status = old(self)
        register = bytearray(self.call.read_SEAMEXTEND())
        register[128] = 0
        self.call.write_SEAMEXTEND(register)
        return status
    p.attr(install.Session, "_succeed", succeed)


def _loader_failure_keeps_blocked(p: Patcher) -> None:
    p.attr(install.Session, "_fail", lambda self: None)


def _loader_svn_unchecked(p: Patcher) -> None:
    from seamref.pseamldr.manifest import INSTALL_MANIFEST

    p.row(INSTALL_MANIFEST, next(r.id for r in INSTALL_MANIFEST.rows if "minor" in r.id))


def _loader_hash_unchecked(p: Patcher) -> None:
    p.row(install.INSTALL_HASH, "INSTALL.hash.seamhash")


def _loader_wipes_handoff(p: Patcher) -> None:
    old = install.Session._clear_for_update

    def clear(self: Any, plan: Any) -> Any:
        status = old(self, plan)
        if status is Status.SUCCESS:
            self.region.zero(plan.data_region_physbase, 4096)
        return status
    p.attr(install.Session, "_clear_for_update", clear)


def _loader_handoff_short(p: Patcher) -> None:
    old = install.Session._clear_for_update

    def clear(self: Any, plan: Any) -> Any:
        status = old(self, plan)
        if status is Status.SUCCESS:
            self.region.zero(plan.data_region_physbase + 0x1000, 0xC000)
        return status
    p.attr(install.Session, "_clear_for_update", clear)


def _loader_no_rip_advance(p: Patcher) -> None:
    old = loader.leave

    def leave(call: Any) -> None:
        rip = call.vmread(loader.GUEST_RIP)
        old(call)
        call.vmwrite(loader.GUEST_RIP, rip)
    p.attr(loader, "leave", leave)


def _loader_rdx_swapped(p: Patcher) -> None:
    from seamref.pseamldr.api import Recoverability

    old = install.Session.end

    def end(self: Any, status: Any) -> Any:
        answer = old(self, status)
        if answer is not Status.SUCCESS:
            self.call.give("rdx", Recoverability.RECOVERABLE)
        return answer
    p.attr(install.Session, "end", end)


# --- processor and module


def _cpu_no_mutex(p: Patcher) -> None:
    p.row(seam.SEAMCALL, "SEAMCALL.p_seamldr_busy")


def _cpu_ready_ignored(p: Patcher) -> None:
    p.row(seam.SEAMCALL, "SEAMCALL.module_not_ready")


def _cpu_open_memory(p: Patcher) -> None:
    from seamref.arch.memory import MEMORY

    p.row(MEMORY, "MEMORY.module_range")


def _module_lps_unchecked(p: Patcher) -> None:
    p.row(system.UPDATE, "SYS.UPDATE.lps")


def _module_kot_lost(p: Patcher) -> None:
    from seamref.tdxmodule.core import LEAVES

    leaf = LEAVES[53]

    def lose(call: Any) -> Any:
        result = leaf.effects[-1](call)
        call.glob.set("kot", bytes(0x4000))
        return result
    old = LEAVES[53]
    LEAVES[53] = replace(old, effects=(*old.effects[:-1], lose))
    p._undo.append(lambda: LEAVES.__setitem__(53, old))


def _module_tdmrs_lost(p: Patcher) -> None:
    from seamref.tdxmodule.core import LEAVES

    leaf = LEAVES[53]

    def lose(call: Any) -> Any:
        result = leaf.effects[-1](call)
        call.glob.set("num_tdmrs", 0)
        return result
    old = LEAVES[53]
    LEAVES[53] = replace(old, effects=(*old.effects[:-1], lose))
    p._undo.append(lambda: LEAVES.__setitem__(53, old))


_NO_LOCK = Scenario("no lock", "no kernel lock", lambda n: update_world(n, replace(MERGED, lock=Lock.NONE)),
                    ("one-in-p-seamldr",))
_WITHOUT_SUCCESS = get_scenario("update").properties[:-1]
_DOWN = Scenario("down", "an older image", lambda n: update_world(n, module=BACK), _WITHOUT_SUCCESS)
_BAD = Scenario("bad signature", "an image that is refused",
                get_scenario("update-bad-signature").make, _WITHOUT_SUCCESS)
_LENIENT = Scenario("image fault", "a page changes", get_scenario("update").make, _WITHOUT_SUCCESS)

MUTATIONS: tuple[Mutation, ...] = (
    Mutation("kernel: no lock", "seamldr_lock is not taken", _kernel_no_lock),
    Mutation("kernel: unlocks before SEAMCALL", "the lock covers nothing", _kernel_unlock_early),
    Mutation("kernel: takes the lock without looking", "a store, no compare-and-swap", _kernel_lock_not_tested),
    Mutation("kernel: never unlocks", "seamldr_lock is not released", _kernel_never_unlocks),
    Mutation("kernel: only the lead INSTALLs", "the others just acknowledge", _kernel_install_lead_only),
    Mutation("kernel: forgets the last CPU", "one CPU does not INSTALL", _kernel_forgets_last),
    Mutation("kernel: INSTALLs twice on CPU 0", "a retry nobody asked for", _kernel_installs_twice),
    Mutation("kernel: no LP.INIT on the last CPU", "its flag says otherwise", _kernel_no_lp_init),
    Mutation("kernel: no sysinit_lock", "TDH.SYS.INIT on two CPUs at once", _kernel_no_sysinit_lock),
    Mutation("kernel: no TDH.SYS.SHUTDOWN", "the old module writes no handoff data", _kernel_no_shutdown),
    Mutation("kernel: does not forget", "flags say the new module is initialised", _kernel_no_forget),
    Mutation("kernel: keeps CPU 0's flag", "no LP.INIT on CPU 0", _kernel_forgets_online_flag),
    Mutation("kernel: no TDH.SYS.UPDATE", "initialised = true all the same", _kernel_no_update_call),
    Mutation("kernel: INSTALL's error is lost", "on an image that is refused", _kernel_ignores_install_error, _BAD,
             survives="TDH.SYS.INIT then fails on the old module, which is shut down: it ends one state later"),
    Mutation("kernel: every error is lost", "on an image that is refused", _kernel_ignores_all_errors, _BAD),
    Mutation("kernel: CPU 0 acknowledges twice", "the state moves on too early", _kernel_ack_twice),
    Mutation("kernel: CPU 1 does not acknowledge", "nobody moves the state on", _kernel_no_ack),
    Mutation("kernel: does not wait for SHUTDOWN", "INSTALL while the old module is being shut down",
             _kernel_runs_ahead),
    Mutation("kernel: VMCLEARs the VMM's VMCS", "behind seamldr_call nothing is current", _kernel_loses_vmcs),
    Mutation("P-SEAMLDR: session ends one processor early", "tot_num_lps off by one", _loader_last_too_early),
    Mutation("P-SEAMLDR: does not block the module", "SEAM_READY stays 1 during the session", _loader_no_block, cpus=2,
             survives="stop_machine keeps every CPU out of the module during the session anyway"),
    Mutation("P-SEAMLDR: snapshot after blocking", "the old SEAM_READY is lost", _loader_no_snapshot),
    Mutation("P-SEAMLDR: repeated INSTALL counts", "and the kernel never repeats", _loader_no_bitmap,
             survives="merged Linux calls INSTALL once on each CPU; only a kernel that repeats would notice"),
    Mutation("P-SEAMLDR: no VMCLEAR", "a stale transfer VMCS stays active", _loader_no_vmclear),
    Mutation("P-SEAMLDR: the session stays open", "bitmap and counter are not cleared", _loader_session_stays),
    Mutation("P-SEAMLDR: SEAM_READY stays 0", "the new module cannot be called", _loader_no_ready),
    Mutation("P-SEAMLDR: a failure leaves the module blocked", "the snapshot is not written back",
             _loader_failure_keeps_blocked, _BAD),
    Mutation("P-SEAMLDR: any SVN goes", "check 13 left out", _loader_svn_unchecked, _DOWN),
    Mutation("P-SEAMLDR: hash not compared", "and a page changes between CPUs' calls", _loader_hash_unchecked, _LENIENT,
             faults=("image",),
             survives="the flipped bit lies in padding of the image: nothing that runs depends on it; MRSEAM lies"),
    Mutation("P-SEAMLDR: handoff data are wiped", "header and all", _loader_wipes_handoff),
    Mutation("P-SEAMLDR: keeps too little of the handoff data", "the header says more", _loader_handoff_short,
             "tds-during-update"),
    Mutation("P-SEAMLDR: RIP stays at SEAMCALL", "the caller would execute it again", _loader_no_rip_advance,
             survives="this kernel's stub takes the result and does not fetch from RIP"),
    Mutation("P-SEAMLDR: RDX = 0 whatever happened", "a wiped module is called recoverable", _loader_rdx_swapped,
             _LENIENT, faults=("image",)),
    Mutation("processor: P_SEAMLDR_MUTEX not tested", "two processors in P-SEAMLDR", _cpu_no_mutex, _NO_LOCK),
    Mutation("processor: SEAM_READY ignored", "on an update that is refused", _cpu_ready_ignored, "tds-during-update",
             faults=("image",)),
    Mutation("processor: SEAMRR open", "the host reads the module's range", _cpu_open_memory),
    Mutation("module: UPDATE before all LP.INITs", "and the kernel waits for all", _module_lps_unchecked,
             survives="the kernel's own barrier already waits for every LP.INIT"),
    Mutation("module: KeyID table not taken over", "TDs lose their KeyIDs", _module_kot_lost, "tds-during-update",
             survives="a TD that runs never looks at the table; taking it down would"),
    Mutation("module: TDMRs not taken over", "no page has a PAMT entry", _module_tdmrs_lost, "tds-during-update"),
)
"""Every seeded bug."""
