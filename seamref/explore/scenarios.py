"""What can be explored: machines that really booted, with jobs on their CPUs, and what is known to come of it.

A scenario's *expected* says which properties it breaks (none: it holds); known-bad scenarios are as much part of the
proof as the others, because an explorer that cannot find a known bug proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from itertools import product
from typing import Any

from seamref.arch.memory import Agent
from seamref.arch.platform import Platform, Topology
from seamref.arch.structures import SYS_INFO_TABLE
from seamref.arch.vmcs import FIELDS
from seamref.errors import SeamrefError
from seamref.explore.faults import FAULTS
from seamref.explore.jobs import INFO_BUFFERS, Device, GuestRuns, Hotplug, NextKernel, NmiCaller, Relaunch, Upload
from seamref.explore.probe import loader_data
from seamref.explore.properties import STANDARD
from seamref.explore.world import Armed, Extra, Setting, World
from seamref.host.abi import Errno, Leaf
from seamref.host.install import prepare
from seamref.host.kernel import Host, kvm_load
from seamref.host.series import MERGED, SERIES, Compat, KernelSeries, Lock, Refresh
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.tdxmodule.structures import LOCAL_DATA

PAGE = 4096
OLD, NEW, BACK = "1.5.05", "1.5.06", "1.5.01"
"""The module that runs, the one that replaces it, and one with a lower SVN."""


# --- machines -----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _cold(cpus: int, keeps_vmcs: bool, module: str | None, sockets: int = 1) -> Platform:
    """Reset to P-SEAMLDR, and the UEFI loader's installation; entropy that does not tell draws apart."""
    import seamref.tdxmodule.program  # noqa: F401  makes the module's images runnable
    from seamref import bootchain
    from seamref.host import uefi
    from seamref.host.image import V1
    from seamref.host.machine import blob, config

    made = config(Topology(sockets, cpus // sockets), keeps_vmcs=keeps_vmcs, steady_entropy=True)
    platform = bootchain.boot(config=made, vmx=False)
    if module is not None:
        # Another place for the first module than for the ones behind it, so that nothing stale fits by accident.
        platform.inject("rdrand", (1, 0x5EA1), (1, OTHER_ASLR))
        done = uefi.run(platform, uefi.Firmware(({"\\EFI\\TDX\\TDX-BLOB": blob(module, version=V1, pages=PAGES)},)))
        if not done.installed:
            raise SeamrefError(f"cold installation: {'; '.join(done.printed)}")
    return platform


OTHER_ASLR = 0x1234
"""RDRAND's answer for the place of the first module's linear ranges (bits 14:2 count)."""
PAGES = 4
"""Pages of the modules here: enough for a stub, relocations, an IDT, and small enough to be copied often."""


@lru_cache(maxsize=64)
def _booted(cpus: int, series: KernelSeries, keeps_vmcs: bool, module: str, sockets: int = 1) -> Host:
    from seamref.host.tdx import tdx_enable

    host = Host(_cold(cpus, keeps_vmcs, module, sockets).fork(), series)
    ret = tdx_enable(host)
    if ret is not Errno.OK:
        raise SeamrefError(f"tdx_enable: {ret}; {host.state.dmesg[-1]}")
    return host


def booted(cpus: int, series: KernelSeries = MERGED, *, keeps_vmcs: bool = True, module: str = OLD,
           vcpus: bool = True, sockets: int = 1) -> Host:
    """A kernel whose module is up; on every CPU KVM has loaded a vCPU of an ordinary VM (``vcpus``)."""
    host = _booted(cpus, series, keeps_vmcs, module, sockets).fork()
    if vcpus:
        for cpu in range(cpus):
            kvm_load(host, cpu)
    return host


@lru_cache(maxsize=32)
def _image(series: KernelSeries, name: str, fields: tuple[tuple[str, Any], ...] = ()) -> bytes:
    from seamref import mint
    from seamref.host.image import V1, V2, build
    from seamref.host.series import Blob

    module = mint.module_image(name, pages=PAGES)
    return build(mint.sigstruct(module, **dict(fields)), module, V2 if series.blob is Blob.V2 else V1)


def setting_of(
    host: Host, extras: tuple[Extra, ...] = (), special: Sequence[int] = (0,),
    regions: Sequence[tuple[int, int]] = (), layout: Platform | None = None,
    scripts: Mapping[int, tuple[str, ...]] | None = None, **data: Any,
) -> Setting:
    """Which CPUs are interchangeable (all but the ``special`` ones, by what their ``scripts`` are), and what in memory
    belongs to which.

    ``layout``   a platform with a module in place, where this one has none yet
    ``regions``  further pages of each CPU: (address of CPU 0's, distance to the next CPU's)
    """
    platform = host.platform
    seamrr = platform.seamrr()
    if seamrr is None:
        raise SeamrefError("SEAMRR is not valid: nothing to explore")
    own: dict[int, tuple[int, int]] = {}
    moves: list[tuple[int, int, int, str]] = []
    table = SYS_INFO_TABLE.decode((layout or platform).bytes_at(Agent.CPU, seamrr.base, PAGE))
    local, lp_stack = (table.num_tls_pages + 1) * PAGE, (table.num_stack_pages + 2) * PAGE
    lps = table.stack_rgn_size // lp_stack
    handoff = (table.num_handoff_pages + 1) * PAGE
    held = platform.p_seamldr_range
    top = held.base - 0x200000 if held is not None else 0
    for cpu, record in enumerate(host.state.cpus):
        id = record.apicid
        places = [seamrr.base + PAGE + id * PAGE]
        if lps:
            places += range(*_span(seamrr.base + PAGE + lps * PAGE + handoff + id * local, local))
            places += range(*_span(top - lps * lp_stack + id * lp_stack, lp_stack))
            for aslr in _places(platform, table.data_rgn_base):
                moves += [(table.data_rgn_base - aslr + handoff + id * local, local, cpu, "local"),
                          (table.stack_rgn_base - aslr + id * lp_stack, lp_stack, cpu, "stack")]
        others = [INFO_BUFFERS + PAGE * cpu, *(at + distance * cpu for at, distance in regions)]
        for which, at in enumerate((*places, record.vmxon_region, record.vmcs, *others)):
            if at:
                own[at // PAGE] = cpu, which
    data_at = loader_data(platform)
    bitmaps = tuple((data_at + P_SEAMLDR_DATA.offset_of(name), 128) for name in ("update_bitmap", "shutdown_bitmap"))
    pointers = [data_at + P_SEAMLDR_DATA.offset_of("gprs") + 8 * i for i in range(16)]
    saved = [f for f in FIELDS if f.size == 8 and (f.name == "vmcs_link_pointer" or f.name.startswith("guest_"))]
    stale = frozenset(held.base + PAGE + f.offset for f in saved) if held is not None else frozenset()
    alike: dict[tuple[Any, ...], list[int]] = {}
    for cpu, record in enumerate(host.state.cpus):
        if cpu not in special:
            package = platform.config.topology.package_of(record.apicid)
            alike.setdefault((package, *(scripts or {}).get(cpu, ())), []).append(cpu)
    same = tuple(tuple(group) for group in alike.values() if len(group) > 1)
    return Setting(extras, same, own, tuple(moves), bitmaps, tuple(pointers), stale,
                   ((1, LOCAL_DATA.offset_of("lp_id")),) if lps else (), data)


def _places(platform: Platform, base: int) -> tuple[int, int]:
    """What to subtract from a linear base for this module (0), and for one that steady entropy places."""
    from seamref.pseamldr.memory_constants import aslr_bits

    draw = int.from_bytes(platform.fork().random_bytes(8), "little")
    mask = 0x7FFC << 32
    return 0, (base & mask) - aslr_bits(draw)


def _span(start: int, size: int) -> tuple[int, int, int]:
    return start, start + size, PAGE


# --- scenarios ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Scenario:
    """Something to explore.

    ``make``      the world it starts from, for a number of CPUs
    ``says``      what happens in it
    ``properties`` what is checked unless somebody says otherwise
    ``expected``  the properties that it breaks, known before
    ``why``       what the verdict means
    """

    name: str
    says: str
    make: Callable[[int], World]
    properties: tuple[str, ...] = STANDARD
    expected: tuple[str, ...] = ()
    cpus: int = 2
    why: str = ""

    def roots(self, cpus: int, faults: Sequence[str] = ()) -> list[World]:
        """The world, or one world for every placement of the named faults on actors that may suffer them.

        Each fault strikes once in a run, all of them in one; of interchangeable CPUs one suffers (and a second one,
        where two faults strike).
        """
        world = self.make(cpus)
        for name in faults:
            if name not in FAULTS:
                raise SeamrefError(f"no fault {name!r}; there are {', '.join(FAULTS)}")
        roots = []
        seen = set()
        for actors in product(targets(world, len(faults)), repeat=len(faults)):
            armed = tuple(sorted(Armed(name, actor) for name, actor in zip(faults, actors, strict=True)))
            if armed in seen or not _is_first(world, armed):
                continue
            seen.add(armed)
            root = world.fork()
            root.set(faults=armed)
            roots.append(root)
        return roots


def targets(world: World, each: int = 1) -> tuple[int, ...]:
    """CPUs that a fault is placed on: every special one, and of interchangeable ones the first (the first ``each``)."""
    chosen = {cpu for group in world.setting.same for cpu in group[:each]}
    grouped = {cpu for group in world.setting.same for cpu in group}
    return tuple(cpu for cpu in range(world.cpus) if cpu in chosen or cpu not in grouped)


def _is_first(world: World, armed: Sequence[Armed]) -> bool:
    """Of placements that differ in which interchangeable CPU suffers, one is enough: the lowest numbers, in order."""
    for group in world.setting.same:
        used = [fault.actor for fault in armed if fault.actor in group]
        distinct = list(dict.fromkeys(used))
        if distinct != list(group[: len(distinct)]):
            return False
    return True


SCENARIOS: dict[str, Scenario] = {}


def _scenario(name: str, says: str, make: Callable[[int], World], **more: Any) -> None:
    SCENARIOS[name] = Scenario(name, says, make, **more)


def get_scenario(name: str) -> Scenario:
    """A scenario by name; an unknown name is an error that lists the known ones."""
    try:
        return SCENARIOS[name]
    except KeyError:
        raise SeamrefError(f"no scenario {name!r}; there are {', '.join(SCENARIOS)}") from None


# --- the update


def update_world(
    cpus: int, series: KernelSeries = MERGED, *, keeps_vmcs: bool = True, vcpus: bool = True, module: str = NEW,
    scripts: Mapping[int, tuple[str, ...]] | None = None, others: tuple[Extra, ...] = (), states: tuple[Any, ...] = (),
    special: Sequence[int] = (0,), validate: bool = False, host: Host | None = None, data: dict[str, Any] | None = None,
    fields: tuple[tuple[str, Any], ...] = (),
) -> World:
    """An update of the TDX module by a version of the kernel series, with whatever else goes on.

    ``validate``: the kernel's checks of the file are part of the run, not done before it.
    """
    made = host if host is not None else booted(cpus, series, keeps_vmcs=keeps_vmcs, vcpus=vcpus)
    blob = _image(series, module, fields)
    state: tuple[Any, Any] = ("validate", None)
    held = frozenset(at for at, _ in made.state.heap)
    if not validate:
        prepared = prepare(made, blob)
        if isinstance(prepared, Errno):
            raise SeamrefError(f"the kernel refuses the image before anything interleaves: {prepared}")
        state = ("begin", prepared)
    extras = (Upload(blob), *others)
    setting = setting_of(made, extras, special, scripts=scripts, **{**(data or {}), "held": held})
    return World(made, setting, scripts=scripts, extras=(state, *states))


_UPDATE = (*STANDARD, "update-succeeds")

_scenario("update", "merged Linux replaces the TDX module on every CPU", update_world, properties=_UPDATE,
          why="whatever the order in which CPUs get the lock and the instructions of different CPUs fall, "
              "the update succeeds and the new module answers")

_NO_LOCK = replace(MERGED, lock=Lock.NONE)
_scenario("update-without-lock", "the same without seamldr_lock", partial(update_world, series=_NO_LOCK),
          properties=_UPDATE,
          expected=("nobody-collides", "session-ends", "update-succeeds"),
          why="two CPUs call INSTALL at the same time, one is told VMfailInvalid, that is -ENODEV; the old module is "
              "gone by then")

for _series in SERIES.values():
    if _series is not MERGED:
        _refused = _series.compat is Compat.ALWAYS
        _stale = _series.refresh is Refresh.NOTHING
        _scenario(
            f"update-{_series.name}", f"version {_series.name} of the series ({_series.date})",
            partial(update_world, series=_series), properties=_UPDATE,
            expected=("update-succeeds",) if _refused else ("version-true",) if _stale else (),
            why="always sets RCX bit 16 of TDH.SYS.SHUTDOWN; module 1.5.05 does not know the bit, takes the handoff "
                "version for a huge one, and refuses: nothing is lost" if _refused else
                "never reads the version again: the kernel shows the one of the module that is gone" if _stale else "",
        )

_scenario("update-erratum", "v4, which only hoped that SEAMRET keeps the current VMCS, on a CPU with the erratum",
          partial(update_world, series=SERIES["v4"], keeps_vmcs=False), properties=_UPDATE, expected=("vmcs-kept",),
          why="IA32_VMX_BASIC[60] = 0: SEAMRET from P-SEAMLDR leaves no current VMCS behind")
_scenario("update-erratum-v3", "v3, which saves and restores the current VMCS, on a CPU with the erratum",
          partial(update_world, series=SERIES["v3"], keeps_vmcs=False), properties=_UPDATE,
          why="VMPTRLD behind the call repairs it (but see what an NMI finds in between: --fault nmi --property "
              "vmcs-window)")
_scenario("update-erratum-merged", "merged Linux on a CPU with the erratum, as if sysfs did not hide the interface",
          partial(update_world, keeps_vmcs=False), properties=_UPDATE,
          expected=("update-succeeds",),
          why="seamldr_call warns and refuses, after the old module was shut down: the check in sysfs is what protects")
_scenario("update-downgrade", "an image with a lower SVN", partial(update_world, module=BACK), properties=_UPDATE,
          expected=("update-succeeds",),
          why="P-SEAMLDR refuses it on the last processor and the register comes back; the kernel has shut the old "
              "module down already")

_BAD_SIGNATURE = (("signature", b"\1" * 384),)
_scenario("update-bad-signature", "an image with a wrong signature", partial(update_world, fields=_BAD_SIGNATURE),
          properties=(*STANDARD, "old-module-survives"), expected=("old-module-survives",),
          why="recoverable for P-SEAMLDR, not for Linux: SHUTDOWN came first")


# --- callers besides the update


def _info_callers(cpus: int, series: KernelSeries = MERGED, update: bool = True) -> World:
    scripts = {cpu: ("info",) for cpu in range(max(0, cpus - 2), cpus)}
    if update:
        return update_world(cpus, series, scripts=scripts)
    host = booted(cpus, series)
    return World(host, setting_of(host, scripts=scripts), scripts=scripts)


_scenario("info-callers", "two users read num_remaining_updates at the same time", partial(_info_callers, update=False),
          why="seamldr_lock makes the second wait")
_scenario("info-callers-v3", "the same in v3, where the lock was around INSTALL only",
          partial(_info_callers, series=SERIES["v3"], update=False), expected=("nobody-collides", "callers-succeed"),
          why="INFO without a lock: one of two readers is told -ENODEV")
_scenario("info-during-update", "two users read num_remaining_updates while the module is replaced", _info_callers,
          properties=_UPDATE, cpus=3,
          why="stop_machine waits for a CPU that holds the lock, so nobody calls P-SEAMLDR between two workers")


# --- a caller that stop_machine does not stop


def _nmi_caller(cpus: int) -> World:
    return update_world(cpus, others=(NmiCaller(cpus - 1),), states=(0,), special=(0, cpus - 1))


_scenario("nmi-caller", "an NMI handler on one CPU calls SEAMLDR.INFO without the lock, at any time", _nmi_caller,
          properties=_UPDATE, expected=("nobody-collides", "session-ends", "update-succeeds"),
          why="seamldr_lock protects only against callers that take it, and NMIs come in stop_machine too")


# --- hotplug


def _hotplug(cpus: int, series: KernelSeries = MERGED, steps: tuple[str, ...] = ("offline", "online")) -> World:
    return update_world(
        cpus, series, others=(Hotplug(cpus - 1, steps),), states=(0,), special=(0, cpus - 1), validate=True,
    )


_scenario("hotplug-during-update", "a CPU goes offline and comes back at any time around an update", _hotplug,
          properties=_UPDATE, cpus=3,
          expected=("session-ends", "update-succeeds"),
          why="the merged kernel no longer looks whether all CPUs are online: P-SEAMLDR waits for a call that never "
              "comes, and the old module is gone")
_scenario("hotplug-v4", "the same in v4, which refuses while a CPU is offline", partial(_hotplug, series=SERIES["v4"]),
          properties=STANDARD, cpus=3,
          why="-EBUSY before anything is shut down; the update may be refused, but nothing breaks")
_scenario("late-cpu", "a CPU that was offline during the whole update comes online behind it",
          partial(_hotplug, steps=("offline",)), properties=_UPDATE, cpus=3,
          expected=("session-ends", "update-succeeds"),
          why="one CPU forgotten is enough")


# --- TDs


@lru_cache(maxsize=16)
def _with_tds(
    cpus: int, number: int, series: KernelSeries, module: str = OLD
) -> tuple[Host, tuple[tuple[Any, bytes, int], ...]]:
    from seamref.host import vmm

    host = booted(cpus, series, vcpus=False, module=module)
    platform = host.platform
    plan = vmm.Plan(hkid=host.state.keyids[0], next_hkid=host.state.keyids[0] + 1)
    tds = []
    for n in range(number):
        td = vmm.build_td(platform, platform.lps[0], n, plan=plan)
        count = vmm.run_td(platform, platform.lps[0], td).count
        vmm.must(platform, platform.lps[0], "TDH.VP.FLUSH", rcx=td.tdvprs[0])
        seen = platform.fork()
        tds.append((td, vmm.report_of(seen, seen.lps[0], td).tdinfo.mrtd, count))
    return host, tuple(tds)


def _tds_during_update(cpus: int, series: KernelSeries = MERGED, runs: int = 2) -> World:
    host, tds = _with_tds(cpus, 1, series)
    host = host.fork()
    on = cpus - 1
    return update_world(
        cpus, series, host=host, scripts={on: ("td.run",) * runs}, others=(GuestRuns(on),), states=(None,),
        special=(0, on), data={"tds": tds},
    )


_scenario("tds-during-update", "KVM runs a TD again and again while the module is replaced under it",
          _tds_during_update, properties=_UPDATE,
          why="the TD goes on where it was, with the same measurement, under the new module")


@lru_cache(maxsize=16)
def _half_built(
    cpus: int, series: KernelSeries, left: int, old: str
) -> tuple[Host, Any, tuple[Any, ...], bytes]:
    """A TD whose build has ``left`` more SEAMCALLs to go, those calls, and what it would measure."""
    from seamref.host import vmm

    host = booted(cpus, series, vcpus=False, module=old)
    plan = vmm.Plan(hkid=host.state.keyids[0], next_hkid=host.state.keyids[0] + 1)
    dry = host.fork()
    whole = vmm.new_td(0, plan)
    taken = []
    steps = vmm.build_steps(dry.platform, dry.platform.lps[0], whole)
    before = _host_memory(dry.platform, whole.shared)
    for name, do in steps:
        now = _host_memory(dry.platform, whole.shared)
        writes = tuple((at, page) for at, page in now.items() if before.get(at) != page)
        before = now
        leaf = vmm.NUMBERS[name]
        taken.append((leaf, dict(do.keywords), writes))  # type: ignore[attr-defined]
        do()
    vmm.run_td(dry.platform, dry.platform.lps[0], whole)
    expected: bytes = vmm.report_of(dry.platform, dry.platform.lps[0], whole).tdinfo.mrtd
    for leaf, registers, writes in taken[:-left]:
        for at, page in writes:
            host.write(at, page)
        name = next(name for name, number in vmm.NUMBERS.items() if number == leaf)
        vmm.must(host.platform, host.platform.lps[0], name, **registers)
    return host, whole, tuple(taken[-left:]), expected


def _host_memory(platform: Platform, shared: int) -> dict[int, bytes]:
    return dict(platform.store_.pages(shared, shared + 0x10000))


BUILD_LEFT = 4
"""SEAMCALLs of the build that interleave with the update: MR.EXTEND, PAGE.ADD, MR.FINALIZE, VP.WR."""


def _build_during_update(
    cpus: int, series: KernelSeries = MERGED, module: str = NEW, old: str = OLD
) -> World:
    host, td, left, mrtd = _half_built(cpus, series, BUILD_LEFT, old)
    host = host.fork()
    on = cpus - 1
    return update_world(
        cpus, series, host=host, scripts={on: tuple(f"td.build:{i}" for i in range(len(left)))}, special=(0, on),
        data={"build": left, "tds": ((td, mrtd, 0),)}, module=module,
    )


_scenario("build-during-update", "the module is replaced while a TD is being built", _build_during_update,
          properties=_UPDATE, why="lucky: the new module's library reads the unfinished hash state of the old one")
_scenario("build-during-update-crypto", "the same, and the new module packs unfinished hash states differently",
          partial(_build_during_update, module="1.5.06-crypto"), properties=_UPDATE, expected=("tds-preserved",),
          why="every call succeeds, and the TD measures something else: merged Linux has no protection against it")
_scenario("build-during-update-detect", "the same, and the new module notices",
          partial(_build_during_update, module="1.5.06-detect"), properties=_UPDATE,
          expected=("callers-succeed", "tds-preserved"),
          why="detection: the build fails, so nobody trusts a wrong measurement; the TD has to be built again")
_scenario("build-during-update-v10", "v10, which asks a module that can to refuse while a TD is being built",
          partial(_build_during_update, series=SERIES["v10"], module="1.5.933", old="1.5.920"), properties=STANDARD,
          why="avoidance: -EBUSY until the build is done; nothing is lost, the user tries again")


# --- twice, together, and with whom one does not expect


def _twice(cpus: int) -> World:
    blob = _image(MERGED, NEW)
    return update_world(cpus, others=(Upload(blob, "second upload", 0),), states=(("validate", None),))


_scenario("update-twice", "the module is replaced, and then replaced again", _twice, properties=_UPDATE,
          why="the second update begins where the first one ended: session, locks, flags and handoff data are as new")


def _two_sockets(cpus: int) -> World:
    if cpus % 2:
        raise SeamrefError(f"two sockets have an even number of CPUs, not {cpus}")
    return update_world(cpus, host=booted(cpus, sockets=2))


_scenario("update-two-sockets", "the update on two packages, each with state of its own", _two_sockets,
          properties=_UPDATE, why="nothing in the update is per package: the last processor of both completes it")


def _hotplug_two(cpus: int) -> World:
    last = (cpus - 1, cpus - 2)
    others = tuple(Hotplug(cpu, ("offline",), f"hotplug of CPU {cpu}") for cpu in last)
    return update_world(cpus, others=others, states=(0, 0), special=(0, *last))


_scenario("hotplug-two", "two CPUs go offline, at any time that hotplug is not held off", _hotplug_two,
          properties=_UPDATE, cpus=3, expected=("session-ends", "update-succeeds"),
          why="as with one; with both offline P-SEAMLDR waits for two calls that never come")


def _module_caller(cpus: int) -> World:
    return update_world(cpus, others=(NmiCaller(cpus - 1, leaf=int(Leaf.TDH_SYS_RD)),), states=(0,),
                        special=(0, cpus - 1))


_scenario("module-caller", "an NMI handler on one CPU enters the TDX module, at any time, also inside a session",
          _module_caller, properties=_UPDATE, expected=("update-succeeds",),
          why="while the module is blocked the processor refuses; a handler that is in the module when the lead shuts "
              "it down makes SHUTDOWN answer TDX_SYS_BUSY")


# --- kexec, and a module that can be disabled

ABLE = "1.5.940"
"""The one build that has TDH.SYS.DISABLE."""
_REBOOTED = tuple(name for name in STANDARD if name != "callers-succeed")  # who is stopped gets no answer
_KEXEC = (*_REBOOTED, "tdx-behind-kexec", "kexec-hands-over", "memory-given-back")


def _kexec(cpus: int, old: str = ABLE, new: str = ABLE) -> World:
    host, tds = _with_tds(cpus, 1, MERGED, old)
    return update_world(cpus, host=host.fork(), module=new, scripts={0: ("kexec",)}, others=(NextKernel(),),
                        states=(0,), special=range(cpus), data={"tds": tds})


_scenario("kexec-around-update", "somebody reboots by kexec, before an update or behind it; both modules can be "
          "disabled, and there is a TD", _kexec, properties=_KEXEC,
          why="stop_machine and the syscore shutdown keep each other out; TDH.SYS.DISABLE leaves a module that the "
              "next kernel initialises as at any boot")
_scenario("kexec-left-over", "the same, and neither module has TDH.SYS.DISABLE", partial(_kexec, old=OLD, new=NEW),
          properties=_KEXEC, expected=("memory-given-back", "tdx-behind-kexec"),
          why="the leaf is refused, the kernel goes on rebooting, TDH.SYS.INIT of the next one meets a module that is "
              "initialised already, and TDX memory keeps its KeyIDs")


def _kexec_under_td(cpus: int) -> World:
    host, tds = _with_tds(cpus, 1, MERGED, ABLE)
    on = cpus - 1
    scripts = {0: ("kexec",), on: ("td.run",)} if on else {0: ("td.run", "kexec")}
    setting = setting_of(host, (GuestRuns(on), NextKernel()), range(cpus), scripts=scripts, tds=tds)
    return World(host.fork(), setting, scripts=scripts, extras=(None, 0))


_scenario("kexec-under-td", "somebody reboots by kexec while KVM runs a TD on another CPU", _kexec_under_td,
          properties=_KEXEC, expected=("memory-given-back",),
          why="TDH.SYS.DISABLE says TDX_SYS_BUSY until the TD's processor is out of SEAM, and is called again; but "
              "nobody has flushed the vCPU (TDH.VP.FLUSH), so VMXOFF writes its VMCS back behind that, under the TD's "
              "KeyID")


def _disable_during_update(cpus: int) -> World:
    return update_world(cpus, host=booted(cpus, module=ABLE), module=ABLE,
                        others=(NmiCaller(cpus - 1, leaf=int(Leaf.TDH_SYS_DISABLE)),), states=(0,),
                        special=(0, cpus - 1))


_scenario("disable-during-update", "an NMI handler on one CPU calls TDH.SYS.DISABLE, at any time, also inside a "
          "session", _disable_during_update, properties=_UPDATE, expected=("success-means-alive", "update-succeeds"),
          why="the leaf works in every state but SYS_SHUTDOWN: before SHUTDOWN and behind INSTALL it takes the module "
              "and its handoff data away, and behind TDH.SYS.UPDATE the kernel reports a success that is none")


def _panic(cpus: int) -> World:
    return update_world(cpus, host=booted(cpus, module=ABLE), module=ABLE, others=(NextKernel(panic=True),),
                        states=(0,), special=range(cpus))


_scenario("panic-during-update", "the kernel panics at any time around an update, and another one is started by kexec",
          _panic, properties=(*_REBOOTED, "tdx-behind-kexec"), expected=("session-ends", "tdx-behind-kexec"),
          why="a panic asks nobody: the next kernel meets a module that is up, shut down, or half replaced, and only "
              "the one that P-SEAMLDR has just loaded can be initialised; a session that is open stays open")


def _entropy_retry(cpus: int) -> World:
    world = update_world(cpus, SERIES["v3"])
    world.host.platform.inject("rdrand", (0, 0))
    return world


_scenario("entropy-retry", "v3, which tries P-SEAMLDR's call again when there was no entropy, and there was none once",
          _entropy_retry, properties=_UPDATE, expected=("session-ends", "update-succeeds"),
          why="the registers of the second attempt are right, the session is not: without entropy the last processor's "
              "INSTALL ended it, and its second call opens another, for which nobody else will call")


_DEVICE = {"params": "SEAMLDR_PARAMS", "sigstruct": "the sigstruct", "module page": "a module page"}


def _device(cpus: int, what: str) -> World:
    world = update_world(cpus, others=(Device(what, 2),), states=(0,))
    world.host.platform.config = replace(world.host.platform.config, fine_steps=True)
    return world


for _what, _says in _DEVICE.items():
    _scenario(f"device-{_what.replace(' ', '-')}", f"a device changes {_says} and changes it back, at any time, also "
              "between two phases of INSTALL", partial(_device, what=_what),
              properties=(*STANDARD, "old-module-survives"), expected=("old-module-survives",),
              why="P-SEAMLDR reads everything once and judges its copy: what was changed when it was read is refused, "
                  "and the old module is gone then; a changed module never runs")


def _reload_install(cpus: int) -> World:
    from seamref.arch.lab import VMXON_REGION
    from seamref.bootchain import default_acm
    from seamref.host.image import V1
    from seamref.host.machine import blob
    from seamref.host.uefi import build_params

    host = booted(cpus, vcpus=False)
    params = build_params(host.platform, blob(NEW, version=V1, pages=PAGES))
    scripts = {cpu: ("loader.shutdown", "loader.install") for cpu in range(1, cpus)}
    scripts[0] = ("loader.shutdown.last", "loader.install")
    regions = ((VMXON_REGION, 0x2000), (VMXON_REGION + PAGE, 0x2000))
    special = range(cpus)  # they install one after the other
    setting = setting_of(host, (Relaunch(default_acm()),), special, regions, params=params)
    return World(host, setting, scripts=scripts, extras=(0,))


# --- before Linux, and beside it


def _uefi(cpus: int, together: bool = False, forget: bool = False) -> World:
    from seamref.host.image import V1
    from seamref.host.machine import blob
    from seamref.host.uefi import POOL, build_params

    platform = _cold(cpus, True, None).fork()
    params = build_params(platform, blob(OLD, version=V1, pages=PAGES))
    host = Host(platform)
    walk = (*range(1, cpus), 0)
    called = walk[1:] if forget else walk
    scripts = {cpu: ("uefi.install" if together else "uefi.next",) for cpu in called}
    setting = setting_of(host, (), (0,), ((POOL - PAGE, -PAGE),), _cold(cpus, True, OLD), params=params, walk=called)
    return World(host, setting, scripts=scripts)


_COLD = ("one-in-p-seamldr", "nobody-collides", "session-ends", "entered-only-when-ready", "seam-memory-closed",
         "no-deadlock", "callers-succeed", "module-ready")
_scenario("uefi-cold", "the UEFI loader application installs a module, one processor after another", _uefi,
          properties=_COLD, cpus=3, why="one order only: nothing can interleave")
_scenario("uefi-together", "the same with all processors started at once", partial(_uefi, together=True),
          properties=_COLD, cpus=3, expected=("nobody-collides", "callers-succeed", "session-ends", "module-ready"),
          why="firmware has no lock: processors collide")
_scenario("uefi-disabled", "firmware has disabled one processor", partial(_uefi, forget=True), properties=_COLD, cpus=3,
          expected=("session-ends", "module-ready"), why="P-SEAMLDR counts it all the same")


def _reload(cpus: int, ordered: bool = True) -> World:
    from seamref.arch.lab import VMXON_REGION
    from seamref.bootchain import default_acm

    host = booted(cpus, vcpus=False)
    scripts = {cpu: ("loader.shutdown",) for cpu in range(1, cpus)}
    scripts[0] = ("loader.shutdown.last",) if ordered else ("loader.shutdown",)
    regions = ((VMXON_REGION, 0x2000), (VMXON_REGION + PAGE, 0x2000))  # where the relaunch enters VMX operation again
    return World(host, setting_of(host, (Relaunch(default_acm()),), (0,), regions), scripts=scripts, extras=(0,))


_RELOAD = ("one-in-p-seamldr", "nobody-collides", "entered-only-when-ready", "seam-memory-closed", "no-deadlock",
           "callers-succeed", "loader-reloaded")
_scenario("loader-reload", "P-SEAMLDR is shut down on every CPU, the boot processor last, and launched again",
          _reload, properties=_RELOAD, cpus=3, why="SHUTDOWN ends on the processor that launched NP-SEAMLDR")
_scenario("loader-reload-any-order", "the same, with SHUTDOWN in whatever order the CPUs come",
          partial(_reload, ordered=False), properties=_RELOAD, cpus=3, expected=("callers-succeed", "loader-reloaded"),
          why="the last one is told EBADCALL unless it is the boot processor, and nobody tries again")

_scenario("loader-reload-install", "P-SEAMLDR is replaced by a new one, and that installs a module", _reload_install,
          properties=(*_RELOAD[:-1], "session-ends", "module-ready", "ready-means-intact"), cpus=2,
          why="a new P-SEAMLDR knows nothing of the module before it, and loads one on an empty SEAMDB")

__all__ = ["BACK", "NEW", "OLD", "SCENARIOS", "Scenario", "booted", "get_scenario", "setting_of", "update_world"]
