"""Properties of the kernel's own books: what it took it gave back, and what it says of the module is true."""

from __future__ import annotations

from seamref.explore.probe import read_versions
from seamref.explore.property import declare
from seamref.explore.world import Did, World
from seamref.host.abi import Errno


def _balanced(world: World) -> str | None:
    """At an end in which everybody is done; an end in which somebody waits is ``no-deadlock``'s."""
    if not all(world.is_done(actor) for actor in world.actors):
        return None
    state = world.host.state
    if state.hotplug_readers:
        return f"CPU hotplug is still held off ({state.hotplug_readers} readers)"
    for name, holder in (("seamldr_lock", state.seamldr_lock), ("sysinit_lock", state.sysinit_lock)):
        if holder is not None:
            return f"{name} is still held by CPU {holder}"
    if state.update is not None:
        return "the update's control block is still there"
    masked = [cpu for cpu, record in enumerate(state.cpus) if record.irqs_off and record.online and not record.dead]
    if masked:
        return f"interrupts are still off on CPUs {masked}"
    known = {at for record in state.cpus for at in (record.vmxon_region, record.vmcs)}
    lost = [block for block in state.heap if block[0] not in known | world.setting.data.get("held", frozenset())]
    return f"{lost[0][1]} bytes at 0x{lost[0][0]:X} were never freed" if lost else None


declare("kernel-balanced", "when everybody is done no lock, no hold on CPU hotplug, no page and no masked interrupt is "
        "left over", "UPDATE.finish", "LNX seamldr.c seamldr_install_module", final=_balanced)


def _version(world: World) -> str | None:
    info = world.host.state.sysinfo
    if world.remembered("update") is not Errno.OK or info is None:
        return None
    told = read_versions(world.host)
    if told is None or told == (info.major, info.minor, info.update):
        return None
    return f"the kernel says {info.version}, the module {told[0]}.{told[1]}.{told[2]:02}"


declare("version-true", "behind a successful update the kernel shows the version that TDH.SYS.RD answers",
        "UPDATE.run_update", "LNX tdx.c tdx_module_run_update", final=_version)


def _marked(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus:
        return None
    task = before.task(did.actor)
    if task is None or task.call is None or task.call.inside:
        return None
    record = after.host.state.cpus[did.actor]
    if record.cache_state_incoherent or not record.online:
        return None
    return f"CPU {did.actor} executed SEAMCALL, and kexec would not write its caches back"


declare("caches-marked", "a CPU that executed SEAMCALL is marked: its caches are written back before kexec",
        "LNX.attempt", "LNX seamcall_internal.h", step=_marked)
