"""States of the TDX module and of a TD, each reached by real calls, and every change that a call was seen to make."""

from __future__ import annotations

from functools import lru_cache

from seamref.arch.platform import Platform
from seamref.host import vmm
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.metadata import field_id
from seamref.tdxmodule.structures import Hkid, Lifecycle, OpState, SysState, VcpuState

SYS_LEAVES = ("TDH.SYS.INIT", "TDH.SYS.LP.INIT", "TDH.SYS.CONFIG", "TDH.SYS.KEY.CONFIG", "TDH.SYS.UPDATE",
              "TDH.SYS.INFO", "TDH.SYS.RD", "TDH.SYS.RDALL", "TDH.SYS.TDMR.INIT", "TDH.SYS.SHUTDOWN", "TDH.MNG.CREATE",
              "TDH.SYS.LP.SHUTDOWN")


@lru_cache(maxsize=8)
def at_state(state: SysState, module: str = "1.5.05") -> Platform:
    """A platform whose module is in this SYS state (fork it)."""
    if state is SysState.SYSINIT_PENDING:
        return vmm.boot(1, 2, module)
    before = at_state(SysState(state - 1), module).fork()
    match state:
        case SysState.SYSINIT_DONE:
            vmm.bring_up(before, until="lp.init")
        case SysState.SYSCONFIG_DONE:
            vmm.bring_up(before, until="config", start="config")
        case SysState.SYS_READY:
            vmm.bring_up(before, start="key.config")
        case _:
            vmm.must(before, 0, "TDH.SYS.SHUTDOWN", rcx=vmm.sys_rd(before, "MODULE_HV"))
    return before


def ask(platform: Platform, name: str) -> vmm.Answered:
    """Call a function with operands that are good."""
    plan = vmm.PLAN
    match name:
        case "TDH.SYS.CONFIG":
            vmm.poke(platform, plan.scratch, (plan.scratch + 0x200).to_bytes(8, "little"))
            vmm.poke(platform, plan.scratch + 0x200, plan.tdmr_info())
            return vmm.tdh(platform, 0, name, rcx=plan.scratch, rdx=1, r8=plan.hkid)
        case "TDH.SYS.INFO":
            return vmm.tdh(platform, 0, name, rcx=0x2100_0000, rdx=1024, r8=0x2100_1000, r9=32)
        case "TDH.SYS.RD":
            return vmm.tdh(platform, 0, name, rdx=field_id("NUM_PKGS"))
        case "TDH.SYS.RDALL":
            return vmm.tdh(platform, 0, name, rdx=0x2100_2000, r8=(1 << 64) - 1)
        case "TDH.SYS.TDMR.INIT":
            return vmm.tdh(platform, 0, name, rcx=plan.tdmr_base)
        case "TDH.MNG.CREATE":
            return vmm.tdh(platform, 0, name, rcx=plan.first_page, rdx=plan.next_hkid)
        case _:
            return vmm.tdh(platform, 0, name)


def answers() -> dict[str, tuple[vmm.Answered, ...]]:
    """Function of the start-up -> what it answers in every SYS state, on a fork of a platform in that state."""
    return {name: tuple(ask(at_state(state).fork(), name) for state in SysState) for name in SYS_LEAVES}


def sys_transitions() -> list[tuple[str, str, str]]:
    """(state, function, next state) for every call that changes the SYS state; UPDATE and its module included."""
    found: list[tuple[str, str, str]] = []
    for state in SysState:
        for name in SYS_LEAVES:
            platform = at_state(state).fork()
            ask(platform, name)
            after = Look(platform).state
            if after is not state:
                found.append((state.name, name.removeprefix("TDH."), after.name))
    updated = at_state(SysState.SYS_SHUTDOWN).fork()
    vmm.update(updated, "1.5.06", start="SEAMLDR.INSTALL", lps=updated.lps[:1])
    vmm.must(updated, 1, "TDH.SYS.LP.INIT")
    vmm.must(updated, 0, "TDH.SYS.UPDATE")
    found.append((SysState.SYSINIT_DONE.name, "SYS.UPDATE", Look(updated).state.name))
    return found


def td_transitions() -> dict[str, list[tuple[str, str, str]]]:
    """What each function changes in a TD's life: lifecycle, OP_STATE, vCPU and KeyID, watched over a whole life."""
    platform = at_state(SysState.SYS_READY).fork()
    td = vmm.new_td()
    seen: dict[str, list[tuple[str, str, str]]] = {"lifecycle": [], "OP_STATE": [], "vCPU": [], "KeyID": []}
    last: dict[str, str] = {}

    def look(name: str) -> None:
        now = _states(platform, td)
        for what, state in now.items():
            if what in last and last[what] != state and (last[what], name, state) not in seen[what]:
                seen[what].append((last[what], name, state))
        last.update(now)

    last.update(_states(platform, td))
    for name, do in vmm.build_steps(platform, 0, td):
        do()
        look(name)
    vmm.enter(platform, 0, td)
    look("TDH.VP.ENTER")
    vmm.leave(platform, 0)
    look("TD exit")
    for name, registers in (
        ("TDH.VP.FLUSH", {"rcx": td.tdvprs[0]}), ("TDH.MNG.VPFLUSHDONE", {"rcx": td.tdr}), ("TDH.PHYMEM.CACHE.WB", {}),
        ("TDH.MNG.KEY.FREEID", {"rcx": td.tdr}),
    ):
        vmm.must(platform, 0, name, **registers)
        look(name)
    return seen


def _states(platform: Platform, td: vmm.Td) -> dict[str, str]:
    look = Look(platform)
    now = {"KeyID": Hkid(look.glob.num(f"kot[{td.hkid}].state")).name}
    if look.pamt(td.tdr).num("type") == 0:
        return now
    tdr = look.tdr(td.tdr)
    now["lifecycle"] = Lifecycle(tdr.num("lifecycle")).name
    if tdr.num("num_tdcx") >= 6:
        now["OP_STATE"] = OpState(look.tdcs(td.tdr).num("op_state")).name
        if td.tdvprs and look.pamt(td.tdvprs[0]).num("type"):
            now["vCPU"] = VcpuState(look.tdvps(td.tdvprs[0], td.tdr).num("state")).name
    return now
