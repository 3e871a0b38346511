"""Properties of the kernel's own books: what it took it gave back, and what it says of the module is true."""

from __future__ import annotations

from seamref.explore.probe import read_versions
from seamref.explore.property import declare, lp_of
from seamref.explore.world import Did, World
from seamref.host.abi import Errno
from seamref.host.kernel import PAGE
from seamref.host.tdx import GIB, TDMR_BASE


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


def _next_kernel(world: World) -> str | None:
    ret = world.remembered("next_kernel")
    return None if ret in (None, Errno.OK) else f"the next kernel has no TDX: tdx_enable gives {ret}"


declare("tdx-behind-kexec", "the kernel that kexec starts can use TDX", "LNX.sys_disable",
        "LNX tdx.c, commit 5b25f249be32", final=_next_kernel)


def _handed_over(before: World, after: World, did: Did) -> str | None:
    if before.remembered("next_kernel") is not None or after.remembered("next_kernel") is None:
        return None
    for cpu, record in enumerate(before.host.state.cpus):
        if record.dead:
            continue
        if record.cache_state_incoherent:
            return f"the next kernel starts, and CPU {cpu} still has to write its caches back"
        if lp_of(before, cpu).vmx_on:
            return f"the next kernel starts, and CPU {cpu} is in VMX operation"
    return None


def _given_back(before: World, after: World, did: Did) -> str | None:
    if before.remembered("next_kernel") is not None or after.remembered("next_kernel") is None:
        return None
    store = before.host.platform.store_
    for at, _ in store.pages(TDMR_BASE, TDMR_BASE + 2 * GIB):
        if keyids := store.keys(at, PAGE) - {0}:
            return f"the next kernel starts, and memory at 0x{at:X} was last written with KeyID {min(keyids)}"
    return None


declare("memory-given-back", "when the next kernel starts no line of the TDX memory was last written with a TDX "
        "KeyID: reading it with KeyID 0 raises no machine check", "SYS.DISABLE.reclaim",
        'LNX series "Fuller TDX kexec support"', step=_given_back)
declare("kexec-hands-over", "when the next kernel starts no CPU is in VMX operation, and none has caches left to write "
        "back", "LNX.sys_disable", "LNX tdx.c, commit 5b25f249be32", step=_handed_over)
