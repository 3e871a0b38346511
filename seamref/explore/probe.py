"""Looking at a world from outside the machine, and asking the machine questions on a copy of it."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.arch.memory import Agent
from seamref.arch.outcome import Guest
from seamref.arch.platform import Platform
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.errors import SeamrefError
from seamref.explore.world import World
from seamref.host.abi import (
    FIELD_MAJOR_VERSION,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_UPDATE_VERSION,
    Args,
    Leaf,
)
from seamref.host.kernel import Host
from seamref.host.records import Stub
from seamref.host.seamcall import CpuDied, seamcall
from seamref.pseamldr.data import P_SEAMLDR_DATA, SysInfo, data_physical
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.status import Status
from seamref.tdxmodule.structures import CANARY_PAGE, GLOBAL_DATA, HANDOFF_HEADER, LOCAL_DATA


def loader_data(platform: Platform) -> int:
    """Physical address of P-SEAMLDR's data; 0 while there is none."""
    held = platform.p_seamldr_range
    if held is None:
        return 0
    table = SysInfo(platform.bytes_at(Agent.CPU, held.end - P_SYS_INFO_TABLE.size, P_SYS_INFO_TABLE.size))
    return data_physical(table) if table["data_rgn_size"] else 0


def read_session(platform: Platform) -> tuple[int, int]:
    """How many processors called INSTALL in the open session, and how many there are."""
    base = loader_data(platform)
    held = platform.p_seamldr_range
    if not base or held is None:
        return 0, 0
    count = platform.bytes_at(Agent.CPU, base + P_SEAMLDR_DATA.offset_of("lps_in_update"), 4)
    total = platform.bytes_at(Agent.CPU, held.end - 4096 + P_SYS_INFO_TABLE.offset_of("tot_num_lps"), 4)
    return int.from_bytes(count, "little"), int.from_bytes(total, "little")


def remaining_updates(platform: Platform) -> int:
    """num_remaining_updates as P-SEAMLDR keeps it; 0 also while it does not know."""
    base = loader_data(platform)
    at = base + P_SEAMLDR_DATA.offset_of("num_remaining_updates")
    return int.from_bytes(platform.bytes_at(Agent.CPU, at, 4), "little") if base else 0


def canaries(platform: Platform, lp_id: int) -> dict[int, str]:
    """The secrets that software in SEAM keeps: the value of each that was drawn already, and what it is."""
    found: dict[int, str] = {}
    base = loader_data(platform)
    if base:
        at = base + P_SEAMLDR_DATA.offset_of("canary")
        found[int.from_bytes(platform.bytes_at(Agent.CPU, at, 8), "little")] = "P-SEAMLDR's stack canary"
    places = places_of(platform)
    if places is not None:
        found[_number(platform, places.canary + CANARY_PAGE.offset_of("canary"), 8)] = "the TDX module's stack canary"
        at = places.local + lp_id * places.local_size + LOCAL_DATA.offset_of("stepping_seed")
        found[_number(platform, at, 8)] = "the seed of the module's stepping defence"
    found.pop(0, None)
    return found


@dataclass(frozen=True, slots=True)
class Places:
    """Physical addresses of what properties look at in the installed module, and the linear base of its code."""

    code: int
    linear: int
    handoff: int
    glob: int
    local: int
    local_size: int
    canary: int


_PLACES: dict[tuple[bytes, bytes], Places | None] = {}


def places_of(platform: Platform) -> Places | None:
    """Where the installed module's data lie; ``None``: SEAM memory holds no module."""
    seamrr = platform.seamrr()
    if seamrr is None or platform.p_seamldr_range is None:
        return None
    key = platform.store_.page_digest(seamrr.base // 4096), platform.SEAMEXTEND[:120]
    if key not in _PLACES:
        look = module_of(platform)
        if len(_PLACES) > 1000:
            _PLACES.clear()
        _PLACES[key] = None if look is None else Places(
            look.code, look.table.num("code_rgn_base"), look.data, look.glob.base, look.local(0).base, look.local_size,
            look.data + look.table.num("data_rgn_size") - CANARY_PAGE.size,
        )
    return _PLACES[key]


def _number(platform: Platform, at: int, size: int) -> int:
    return int.from_bytes(platform.bytes_at(Agent.CPU, at, size), "little")


def module_state(platform: Platform) -> int | None:
    """SYS_STATE of the installed module; ``None``: there is none."""
    places = places_of(platform)
    return None if places is None else _number(platform, places.glob + GLOBAL_DATA.offset_of("sys_state"), 1)


def handoff_valid(platform: Platform) -> bool:
    """Whether the installed module has handoff data in front of it that say they are valid."""
    places = places_of(platform)
    return places is not None and _number(platform, places.handoff + HANDOFF_HEADER.offset_of("valid"), 1) != 0


def module_of(platform: Platform) -> Look | None:
    """The module whose SYS_INFO_TABLE lies at SEAMRR's base; ``None``: there is none."""
    if platform.seamrr() is None or platform.p_seamldr_range is None:
        return None
    look = Look(platform)
    return look if look.table.num("stack_rgn_size") else None


def read_shutdown(platform: Platform) -> int:
    """How many processors called SHUTDOWN."""
    base = loader_data(platform)
    at = base + P_SEAMLDR_DATA.offset_of("lps_in_shutdown")
    return int.from_bytes(platform.bytes_at(Agent.CPU, at, 4), "little") if base else 0


def ask_module(world: World) -> int | None:
    """What the module answers on a copy, on some CPU that is free: 0 when it is ready; ``None``: nobody can ask."""
    return ask(world.host)


def ask(host: Host) -> int | None:
    """:func:`ask_module` of a host."""
    copy = host.fork()
    for cpu, record in enumerate(copy.state.cpus):
        lp = copy.platform.peek_lp(record.apicid)
        if record.online and not record.dead and not lp.inSEAM and lp.vmx_on:
            try:
                said = seamcall(copy, cpu, Leaf.TDH_SYS_RD, Args(rdx=FIELD_MODULE_HV), Stub.RET).rax
                if said == 0:  # that leaf answers early; one that needs SYS_READY, with an operand that cannot be
                    other = seamcall(copy, cpu, _MNG_RD, Args(), Stub.RET).rax
                    said = other if other & _STATUS in (Status.TDX_SYS_NOT_READY, Status.TDX_SYS_SHUTDOWN) else 0
                return said
            except CpuDied:
                return None
    return None


def read_versions(host: Host) -> tuple[int, int, int] | None:
    """Major, minor and update version as TDH.SYS.RD answers them on a copy; ``None``: nobody can ask, or a refusal."""
    copy = host.fork()
    for cpu, record in enumerate(copy.state.cpus):
        lp = copy.platform.peek_lp(record.apicid)
        if record.online and not record.dead and not lp.inSEAM and lp.vmx_on:
            told = []
            for field in (FIELD_MAJOR_VERSION, FIELD_MINOR_VERSION, FIELD_UPDATE_VERSION):
                returned = seamcall(copy, cpu, Leaf.TDH_SYS_RD, Args(rdx=field), Stub.RET)
                if returned.rax:
                    return None
                told.append(returned.args.r8 & 0xFFFF)
            return told[0], told[1], told[2]
    return None


_MNG_RD, _STATUS = 11, 0xFFFFFFFF_00000000


def td_troubles(world: World) -> str | None:
    """Run every finished TD once more on a copy: it must go on where it was, and measure as it did."""
    from seamref.host import vmm

    for td, mrtd, count in world.setting.data.get("tds", ()):
        copy = world.host.fork().platform
        free = [
            cpu.apicid for cpu in world.host.state.cpus
            if not cpu.dead and not copy.peek_lp(cpu.apicid).inSEAM and copy.peek_lp(cpu.apicid).vmx_on
        ]
        if not free:
            continue
        on = free[0]
        for lp in free:
            if vmm.tdh(copy, lp, "TDH.VP.FLUSH", rcx=td.tdvprs[0]).ok:
                break
        try:
            entered = vmm.enter(copy, on, td)
            if not isinstance(entered.run, Guest):
                return f"the TD at 0x{td.tdr:X} cannot be entered any more: {entered}"
            exited = vmm.TdExit(vmm.leave(copy, on))
            if exited.count <= count:
                return f"the TD at 0x{td.tdr:X} does not go on where it was: it counts {exited.count}"
            report = vmm.report_of(copy, on, td)
        except SeamrefError as error:
            return f"the TD at 0x{td.tdr:X}: {error}"
        if report.tdinfo.mrtd != mrtd:
            return f"the TD at 0x{td.tdr:X} measures {report.tdinfo.mrtd.hex()[:16]}.., not {mrtd.hex()[:16]}.."
    return None
