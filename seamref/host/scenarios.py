"""Experiments on the whole machine that chapters, commands and tests share: who waits, who fails, what is left.

Each takes a version of the series (or a record changed in one point) and runs the real thing; none says what should
come out.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import lru_cache

from seamref.errors import SeamrefError
from seamref.host import log, vmm
from seamref.host.abi import (
    FEATURES0_NO_RBP_MOD,
    FEATURES0_TD_PRESERVING,
    FIELD_EXT_REQUIRED,
    FIELD_EXT_REQUIRED_PAGES,
    FIELD_MAJOR_VERSION,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_PAMT_1G_ENTRY_SIZE,
    FIELD_PAMT_2M_ENTRY_SIZE,
    FIELD_PAMT_4K_ENTRY_SIZE,
    FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS,
    FIELD_TDX_FEATURES0,
    FIELD_UPDATE_VERSION,
    SEAMLDR_INFO,
    TDX_OPERAND_INVALID_RAX,
    Errno,
    Leaf,
)
from seamref.host.fw_upload import Terminal, files, probe, upload
from seamref.host.kernel import Host, kvm_load, kvm_lost_vmcs
from seamref.host.machine import add_tds, blob, blob_for, cold, count_of, machine
from seamref.host.records import Task, UpdateState
from seamref.host.script import COMPLETES, Rule, Script
from seamref.host.seamldr import seamldr_task
from seamref.host.series import MERGED, Blob, Compat, KernelSeries, Vmcs
from seamref.host.tasks import interrupt, is_blocked, start, step
from seamref.host.tdx import GIB, TDMR_BASE, cpu_offline, pamt_get, tdx_enable
from seamref.host.update import Schedule, control, in_order

INFO_PAGES = 0x60000000
"""Where these experiments want SEAMLDR_INFO, one page for each CPU."""


def _info(cpu: int) -> Task:
    return seamldr_task(Leaf.SEAMLDR_INFO, INFO_PAGES + 0x1000 * cpu)


def _until(host: Host, cpu: int, words: str) -> None:
    while words not in step(host, cpu).did:
        if not host.cpu(cpu).tasks:
            raise SeamrefError(f"CPU {cpu} never did {words!r}")


@dataclass(frozen=True, slots=True)
class TwoCallers:
    """CPU 1 calls P-SEAMLDR while CPU 0 is inside.  ``log``: (CPU, what it did), in order."""

    first: Errno
    second: Errno
    waited: bool
    log: tuple[tuple[int, str], ...]


def two_callers(series: KernelSeries = MERGED) -> TwoCallers:
    """SEAMLDR.INFO on CPU 0; when it is inside P-SEAMLDR, SEAMLDR.INFO on CPU 1, as far as CPU 1 gets."""
    host = machine(2, series=series)
    log: list[tuple[int, str]] = []
    waited = False

    def one(cpu: int) -> bool:
        done = step(host, cpu)
        if done.did:
            log.append((cpu, done.did))
        return done.blocked

    start(host, 0, _info(0))
    while "entered P-SEAMLDR" not in (log[-1][1] if log else ""):
        one(0)
    start(host, 1, _info(1))
    while host.cpu(1).tasks and not waited:
        waited = one(1)
    while host.cpu(0).tasks:
        one(0)
    while host.cpu(1).tasks:
        one(1)
    first, second = host.cpu(0).finished, host.cpu(1).finished
    assert first is not None and second is not None
    return TwoCallers(first, second, waited, tuple(log))


def interrupt_caller(series: KernelSeries = MERGED) -> str:
    """While CPU 0 holds the lock, an interrupt handler on CPU 0 wants to call P-SEAMLDR too."""
    host = machine(2, series=series)
    start(host, 0, _info(0))
    while host.state.seamldr_lock != 0:
        step(host, 0)
        if not host.cpu(0).tasks:
            return "there is no lock"
    if not interrupt(host, 0, _info(1)):
        return "the interrupt waits until the lock is released"
    while host.cpu(0).tasks:
        done = step(host, 0)
        if done.blocked:
            return f"deadlock: CPU 0 {done.did}"
    return "both calls returned"


def sleeping_lock(series: KernelSeries) -> str:
    """A call with interrupts off, as stop_machine makes it, on a PREEMPT_RT kernel."""
    host = machine(2, series=series, preempt_rt=True)
    host.set_cpu(0, irqs_off=True)
    start(host, 0, _info(0))
    while host.cpu(0).tasks:
        step(host, 0)
    return next((line for line in host.state.dmesg if line == log.SLEEPING_BUG.text), "nothing to complain about")


def vmcs_after_call(series: KernelSeries, *, keeps_vmcs: bool) -> str:
    """KVM has a vCPU loaded on CPU 0 while the kernel calls P-SEAMLDR there."""
    host = machine(2, series=replace(series, vmcs=Vmcs.ASSUMED) if series.vmcs is Vmcs.HIDDEN else series,
                   keeps_vmcs=keeps_vmcs)
    kvm_load(host, 0)
    start(host, 0, _info(0))
    while host.cpu(0).tasks:
        step(host, 0)
    if host.cpu(0).finished is not Errno.OK:
        return f"not called: {host.cpu(0).finished}"
    return "KVM's VMCS is no longer current" if kvm_lost_vmcs(host, 0) else "KVM's VMCS is still current"


# --- failures of an update --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Failed:
    """One way an update can go wrong, as it went.

    ``state``  of the update when it stopped (empty: stop_machine was never entered)
    ``error``  what `cat error` says; ``version`` what `cat version` says
    ``module`` whether SEAMCALL can enter a TDX module; ``td`` what the TD that ran before answers now
    ``reboot`` a second upload of a good image fails as well
    """

    what: str
    state: str
    error: str
    version: str
    module: bool
    td: int | str
    reboot: bool
    said: str


def _entropy(host: Host, *answers: tuple[int, int]) -> None:
    host.platform.inject("rdrand", *answers)


@dataclass(frozen=True, slots=True)
class Trouble:
    """What is done to an update: the image, what happens before it, and what on entering a state."""

    what: str
    image: Callable[[KernelSeries], bytes]
    before: Callable[[Host], object] | None = None
    entering: UpdateState | None = None
    act: Callable[[Host], object] | None = None


def _stray_update(host: Host) -> None:
    vmm.tdh(host.platform, host.platform.lps[-1], "TDH.SYS.UPDATE")


def running(series: KernelSeries) -> str:
    """A build to run: v8 to v10 set a flag at SHUTDOWN that only builds with TDX_FEATURES0 bit 47 take."""
    return "1.5.920" if series.compat is Compat.ALWAYS else "1.5.05"


def newer(series: KernelSeries) -> str:
    """A build that may replace it."""
    return "1.5.930" if series.compat is Compat.ALWAYS else "1.5.16"


def _good(series: KernelSeries) -> bytes:
    return blob_for(series, newer(series))


def _bad(name: str = "", **signed: object) -> Callable[[KernelSeries], bytes]:
    return lambda s: blob(name or newer(s), version=0x200 if s.blob is Blob.V2 else 0x100, signed=signed or None)


def _use_up_updates(host: Host) -> None:
    from seamref.host.install import seamldr_install_module

    while seamldr_install_module(host, blob_for(host.series, running(host.series))) is Errno.OK:
        if _remaining(host) == 0:
            break


def _remaining(host: Host) -> int:
    from seamref.host.seamldr import seamldr_get_info

    _, info = seamldr_get_info(host)
    assert info is not None
    left: int = info.num_remaining_updates
    return left


TROUBLES: tuple[Trouble, ...] = (
    Trouble("nothing", _good),
    Trouble("the file is cut short", lambda s: _good(s)[:-4096]),
    Trouble("the file is a header only", lambda s: _header_only(s)),
    Trouble("signature wrong", _bad(signature=bytes(384))),
    Trouble("hash wrong", _bad(seamhash=bytes(48))),
    Trouble("other major SVN", _bad("2.0.05")),
    Trouble("lower minor SVN", _bad("1.5.01")),
    Trouble("new module cannot read the handoff", _bad(min_update_hv=2, module_hv=2)),
    Trouble("no update remains", _good, before=_use_up_updates),
    Trouble("RDRAND fails once in INSTALL", _good, entering=UpdateState.CPU_INSTALL, act=lambda h: _entropy(h, (0, 0))),
    Trouble("a CPU is offline", _good, before=lambda h: cpu_offline(h, len(h.state.cpus) - 1)),
    Trouble("RDRAND fails on and on in LP.INIT", _good, entering=UpdateState.CPU_INIT,
            act=lambda h: _entropy(h, *[(0, 0)] * 4000)),
    Trouble("somebody else calls TDH.SYS.UPDATE first", _good, entering=UpdateState.RUN_UPDATE, act=_stray_update),
)
"""What can go wrong, in the order in which it is found."""


def _header_only(series: KernelSeries) -> bytes:
    from seamref.host.image import TDX_BLOB_V2

    if series.blob is not Blob.V2:
        return _good(series)[:4096]
    header = bytearray(_good(series)[:4096])
    TDX_BLOB_V2.poke(header, "sigstruct_nr_pages", 0)
    TDX_BLOB_V2.poke(header, "module_nr_pages", 0)
    return bytes(header)


@dataclass(slots=True)
class Staged:
    """A machine with one running TD on which the trouble is about to happen; ``schedule`` makes it happen."""

    host: Host
    td: vmm.Td
    image: bytes
    schedule: Schedule
    seen: list[UpdateState]


@lru_cache(maxsize=4)
def _with_td(series: KernelSeries, cpus: int, sockets: int) -> tuple[Host, vmm.Td]:
    """A machine with one TD that has counted."""
    host = machine(cpus, sockets=sockets, module=running(series), series=series)
    (td,) = add_tds(host)
    count_of(host, td)
    return host, td


@lru_cache(maxsize=2)
def _before(trouble: Trouble, series: KernelSeries, cpus: int, sockets: int) -> tuple[Host, vmm.Td]:
    """The same, with what happens before the upload; to use up every update takes longer than all the rest."""
    host, td = _with_td(series, cpus, sockets)
    host, td = host.fork(), td.copy()
    if trouble.before is not None:
        trouble.before(host)
    return host, td


def stage(
    trouble: Trouble, series: KernelSeries = MERGED, cpus: int = 2, sockets: int = 1, order: Schedule = in_order
) -> Staged:
    """Everything before the upload; ``order`` says which CPU steps next."""
    host, td = _before(trouble, series, cpus, sockets)
    host, td = host.fork(), td.copy()
    seen: list[UpdateState] = []

    def watch(at: Host, ready: tuple[int, ...]) -> int:
        state = min(control(at).state, UpdateState.DONE)
        if state not in seen:
            seen.append(state)
            if trouble.act is not None and state is trouble.entering:
                trouble.act(at)
        return order(at, ready)

    return Staged(host, td, trouble.image(series), watch, seen)


def fail_scripted(
    rules: tuple[Rule, ...], series: KernelSeries = MERGED, cpus: int = 2, sockets: int = 1
) -> Failed:
    """Upload a good image while SEAMCALLs of this kernel end as the rules say; the second upload is not scripted."""
    what = "; ".join(map(str, rules))
    return fail(Trouble(what, _good, before=lambda h: h.set(script=Script(rules))), series, cpus, sockets)


def fail(trouble: Trouble, series: KernelSeries = MERGED, cpus: int = 2, sockets: int = 1) -> Failed:
    """Upload with this trouble on a machine with one running TD, and look at what is left."""
    staged = stage(trouble, series, cpus, sockets)
    host, td, seen = staged.host, staged.td, staged.seen
    logged = len(host.state.dmesg)
    error = _send(host, staged.image, staged.schedule)
    host.set(script=None)
    said = next((line for line in host.state.dmesg[logged:] if "failed: 0x" in line or "not loaded" in line), "")
    stopped = seen[-1].name if seen else ""
    version = Terminal(host).run(f"cat {_file(host, '/version')}").strip().rpartition(": ")[2]
    alive = count_of(host, td)
    ready = host.platform.SEAM_READY
    host.platform.injected.pop("rdrand", None)
    again = _send(host.fork(), _good(series), None) if error else ""
    return Failed(trouble.what, stopped, error, version, ready, alive, bool(again), said)


def _file(host: Host, ending: str) -> str:
    return next(path for path in files(host) if path.endswith(ending) and "seamldr" not in path.rpartition("/")[2]
                and "seamldr/" not in path)


def _send(host: Host, data: bytes, schedule: Callable[[Host, tuple[int, ...]], int] | None) -> str:
    shell = Terminal(host, {"image": data}) if schedule is None else Terminal(host, {"image": data}, schedule=schedule)
    shell.session(f"cd /sys/class/firmware/{upload(host).name}", "echo 1 > loading", "cat image > data",
                  "echo 0 > loading")
    return shell.run("cat error").strip()


# --- an update that changes TDX_FEATURES0 ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitChanged:
    """An update between two modules that differ in one bit of TDX_FEATURES0.

    ``booted``    what the boot asked of the module because of the bit (TDH.SYS.CONFIG: leaf, R8, R9)
    ``believes``  whether the kernel takes the bit for set behind the update
    ``lines``     what the update printed
    ``error``     what `cat error` says
    ``page``      what becomes of the next private page of a TD (TDH.PHYMEM.PAMT.ADD where it is asked for)
    """

    series: str
    before: bool
    after: bool
    booted: tuple[int, int, int]
    believes: bool
    lines: tuple[str, ...]
    error: str
    page: str


def bit_changes(
    series: KernelSeries, bit: int, before: bool, after: bool, *, pages: tuple[int, int] = (0, 0)
) -> BitChanged:
    """Boot and update on a scripted SEAM side whose features lose or gain a bit; no public module has these features.

    ``pages`` that the extensions of the old and of the new module ask for.  A module without the bit refuses the
    leaves that belong to it with TDX_OPERAND_INVALID.
    """
    platform = cold(2)
    features = FEATURES0_TD_PRESERVING | FEATURES0_NO_RBP_MOD
    old, new = (features | bit if is_set else features for is_set in (before, after))

    def field(id: int, value: int) -> Rule:
        return Rule(leaf=Leaf.TDH_SYS_RD, rdx=id, out=(("r8", value),))

    def rules(now: int, wants: int, is_set: bool, update: int) -> Script:
        refused = () if is_set else tuple(
            Rule(leaf=leaf, rax=TDX_OPERAND_INVALID_RAX) for leaf in (Leaf.TDH_PHYMEM_PAMT_ADD, Leaf.TDH_EXT_INIT))
        return Script((
            field(FIELD_MAJOR_VERSION, 1), field(FIELD_MINOR_VERSION, 5), field(FIELD_UPDATE_VERSION, update),
            field(FIELD_TDX_FEATURES0, now), field(FIELD_PAMT_PAGE_BITMAP_ENTRY_BITS, 1),
            field(FIELD_EXT_REQUIRED_PAGES, wants), field(FIELD_EXT_REQUIRED, int(is_set)), field(FIELD_MODULE_HV, 1),
            *(field(id, 16) for id in (FIELD_PAMT_4K_ENTRY_SIZE, FIELD_PAMT_2M_ENTRY_SIZE, FIELD_PAMT_1G_ENTRY_SIZE)),
            Rule(leaf=Leaf.TDH_SYS_TDMR_INIT, out=(("rdx", TDMR_BASE + GIB),)),
            Rule(leaf=Leaf.SEAMLDR_INFO, store=SEAMLDR_INFO.new(num_remaining_updates=3).encode()),
            *refused, COMPLETES))

    host = Host(platform, series)
    host.set(script=rules(old, pages[0], before, 5))
    ret = tdx_enable(host)
    if ret is not Errno.OK:
        raise SeamrefError(f"the scripted boot fails: {ret}")
    assert host.state.script is not None
    asked = next(one for one in host.state.script.asked if one.leaf & 0xFF == Leaf.TDH_SYS_CONFIG)
    probe(host)
    logged = len(host.state.dmesg)
    host.set(script=rules(new, pages[1], after, 16))
    error = _send(host, blob_for(series), None)
    info = host.state.sysinfo
    assert info is not None
    lines = host.state.dmesg[logged:]
    page = str(pamt_get(host, TDMR_BASE)) if host.state.module.initialized else "no module"
    return BitChanged(series.name, before, after, (asked.leaf, asked["r8"], asked["r9"]), bool(info.features0 & bit),
                      lines, error, page)


__all__ = [
    "TROUBLES", "BitChanged", "Failed", "Trouble", "TwoCallers", "bit_changes", "fail", "fail_scripted",
    "interrupt_caller", "is_blocked", "sleeping_lock", "two_callers", "vmcs_after_call",
]
