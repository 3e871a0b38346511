"""Looking at a world from outside the machine, and asking the machine questions on a copy of it."""

from __future__ import annotations

from seamref.arch.memory import Agent
from seamref.arch.outcome import Guest
from seamref.arch.platform import Platform
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.errors import SeamrefError
from seamref.explore.world import World
from seamref.host.abi import FIELD_MODULE_HV, Args, Leaf
from seamref.host.kernel import Host
from seamref.host.records import Stub
from seamref.host.seamcall import CpuDied, seamcall
from seamref.pseamldr.data import P_SEAMLDR_DATA, SysInfo, data_physical
from seamref.tdxmodule.status import Status


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
