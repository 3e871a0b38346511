"""A platform on which P-SEAMLDR has just been loaded, prepared by hand.

What MCHECK and NP-SEAMLDR leave behind, as far as P-SEAMLDR and the processor look at it: P_SYS_INFO_TABLE, the
transfer VMCS, page tables for the loader's code page, zeroed data, IA32_SEAMEXTEND with p_seamldr_ready.  A really
booted platform comes from :func:`seamref.boot`; this one is quick, and any of its values can be chosen.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from seamref.arch.lab import set_ready, transfer_vmcs
from seamref.arch.lp import CR4_VMXE
from seamref.arch.memory import Agent, Range
from seamref.arch.msr import SEAMRR_BASE, SEAMRR_LOCK, SEAMRR_MASK, SEAMRR_VALID, TME_ACTIVATE
from seamref.arch.outcome import Left
from seamref.arch.platform import VMX_MSRS as SERVER_VMX_MSRS
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.software import P_SEAMLDR_PROGRAM, Port, SeamRun, call, make_stub
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.pseamldr.api import PAGE, Leaf, Recoverability, Status
from seamref.pseamldr.build import Build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.memory_map import CODE, ModuleRegion, Tables
from seamref.pseamldr.program import P_SEAMLDR

if TYPE_CHECKING:
    from seamref.arch.lp import Lp

CODE_SIZE, STACK_SIZE, DATA_SIZE = PAGE, 4 * PAGE, P_SEAMLDR_DATA.size
"""Sizes of P-SEAMLDR's own regions here; no result of a leaf depends on them."""
LINEAR = {"code": 0xFFFF800000000000, "stack": 0xFFFF800100000000, "data": 0xFFFF800300000000,
          "sysinfo": 0xFFFF8003FFFF0000, "module": 0x200000000}
"""Linear bases of P-SEAMLDR's regions, without address-space randomisation."""
TABLES = 16
"""Pages above the base of P_SEAMLDR_RANGE where the PML4 lies; the other tables follow downward."""

LEAST_RANGE_SIZE = (TABLES + 1) * PAGE + DATA_SIZE + STACK_SIZE + CODE_SIZE + PAGE
"""Bytes of the smallest P_SEAMLDR_RANGE that can be prepared here."""

SEAMRR = Range(0x7E000000, 0x2000000)
FMS = 0x806F8


def data_base(held: Range) -> int:
    """Physical address of the data area in a P_SEAMLDR_RANGE that was prepared here."""
    return held.end - PAGE - CODE_SIZE - STACK_SIZE - DATA_SIZE


def set_up_seamrr(
    platform: Platform, seamrr: Range, p_seamldr_range: Range, keyid_bits: int, tdx_keyid_bits: int = 0
) -> None:
    """Ranges and KeyIDs as BIOS and MCHECK set them; every processor in VMX root operation."""
    platform.p_seamldr_range = p_seamldr_range
    mask = -seamrr.size & (1 << platform.config.maxpa) - (1 << 25) | SEAMRR_LOCK | SEAMRR_VALID
    for id in platform.lps:
        lp = platform.lp(id)
        lp.vmx_on = True
        lp.cr4 |= CR4_VMXE
        platform.set_msr(lp, SEAMRR_BASE, seamrr.base | 8)
        platform.set_msr(lp, SEAMRR_MASK, mask)
        platform.set_msr(lp, TME_ACTIVATE, tdx_keyid_bits << 36 | keyid_bits << 32 | 3)
    platform.keyid_layout_changed()


def load_p_seamldr(platform: Platform, build: Build, sysinfo: Mapping[str, Any]) -> None:
    """Put P-SEAMLDR into P_SEAMLDR_RANGE.  ``sysinfo``: fields of MCHECK's half of P_SYS_INFO_TABLE."""
    held = platform.p_seamldr_range
    assert held is not None
    lp = platform.lp(platform.lps[0])
    port = Port(platform, lp, Agent.CPU)
    port.write(held.end - PAGE, P_SYS_INFO_TABLE.encode({
        "p_seamldr_range_base": held.base, "p_seamldr_range_size": held.size,
        "code_rgn_base": LINEAR["code"], "code_rgn_size": CODE_SIZE,
        "data_rgn_base": LINEAR["data"], "data_rgn_size": DATA_SIZE,
        "stack_rgn_base": LINEAR["stack"], "stack_rgn_size": STACK_SIZE,
        "module_region_base": LINEAR["module"], "acm_x2apicid_valid": 1, **sysinfo,
    }))
    code = held.end - PAGE - CODE_SIZE
    port.write(code, make_stub(P_SEAMLDR_PROGRAM) + build.encode())
    root = held.base + TABLES * PAGE
    tables = Tables(ModuleRegion(port, held.base, held.end), root, held.base + 2 * PAGE)
    tables.map(LINEAR["code"], code, CODE_SIZE // PAGE, CODE)
    tables.write_back()
    port.write(held.base + PAGE, _transfer_vmcs(platform, lp, root))


def _transfer_vmcs(platform: Platform, lp: Lp, root: int) -> bytes:
    return transfer_vmcs(
        platform, lp, root, LINEAR["code"], host_fs_base=LINEAR["sysinfo"], host_gs_base=LINEAR["data"],
        host_rsp=LINEAR["stack"] + STACK_SIZE - PAGE - 8, host_ssp=LINEAR["stack"] + STACK_SIZE - 8)


def platform(
    *,
    topology: Topology | None = None,
    build: Build | None = None,
    seamrr: Range = SEAMRR,
    p_seamldr_range_size: int = 0x200000,
    debug_unlocked: bool = False,
    fms: Sequence[int] = (FMS,),
    maxpa: int = 46,
    keyid_bits: int = 6,
    tdx_keyid_bits: int = 3,
    seamdb_size: int = 16,
    seed: int = 0,
    vmx_msrs: Mapping[int, int] | None = None,
    **sysinfo: Any,
) -> Platform:
    """A platform with a freshly loaded P-SEAMLDR; ``sysinfo`` overrides fields of P_SYS_INFO_TABLE."""
    topology = topology or Topology(1, 2)
    config = PlatformConfig(
        topology=topology, maxpa=maxpa, max_keyid_bits=keyid_bits, fms=tuple(fms), debug_unlocked=debug_unlocked,
        seamdb_size=seamdb_size, seed=seed, vmx_msrs=vmx_msrs or SERVER_VMX_MSRS,
    )
    made = Platform(config)
    held = Range(seamrr.end - p_seamldr_range_size, p_seamldr_range_size)
    set_up_seamrr(made, seamrr, held, keyid_bits, tdx_keyid_bits)
    table = [config.fms_of(socket) for socket in range(topology.sockets)]
    load_p_seamldr(made, build or Build(), {
        "tot_num_lps": len(made.lps), "tot_num_sockets": topology.sockets, "socket_cpuid_table": table, **sysinfo,
    })
    set_ready(made, p_seamldr=True)
    return made


@dataclass(frozen=True, slots=True)
class Returned:
    """What a call of P-SEAMLDR returned: the status in RAX, and RDX (recoverability after INSTALL, else unchanged)."""

    status: Status
    rdx: int

    @property
    def recoverability(self) -> Recoverability:
        """RDX of INSTALL."""
        return Recoverability(self.rdx)


def ask(platform: Platform, lp_id: int, leaf: int, rcx: int = 0, rdx: int = 0) -> Returned | SeamRun:
    """SEAMCALL a leaf on one processor: what it returned, or how the call ended otherwise."""
    outcome = call(platform, lp_id, rax=int(leaf), rcx=rcx, rdx=rdx)
    if not isinstance(outcome, Left):
        return outcome
    lp = platform.peek_lp(lp_id)
    return Returned(Status(lp.rax), lp.rdx)


def install(platform: Platform, params_pa: int, lps: Sequence[int] | None = None) -> Returned | SeamRun:
    """SEAMLDR.INSTALL on every processor in turn (or on ``lps``): the last answer, or the first that is no success."""
    answer: Returned | SeamRun = Returned(Status.SUCCESS, 0)
    for id in lps if lps is not None else platform.lps:
        answer = ask(platform, id, Leaf.INSTALL, params_pa)
        if not isinstance(answer, Returned) or answer.status is not Status.SUCCESS:
            break
    return answer


def data_field(platform: Platform, name: str) -> Any:
    """A field of P_SEAMLDR_DATA as it lies in memory."""
    held = platform.p_seamldr_range
    assert held is not None
    where = P_SEAMLDR_DATA.offset_of(name)
    kind = P_SEAMLDR_DATA.field(name).type
    table = platform.bytes_at(Agent.CPU, held.end - PAGE, PAGE)
    sizes = [P_SYS_INFO_TABLE.peek(table, f"{region}_rgn_size") for region in ("code", "stack", "data")]
    raw = platform.bytes_at(Agent.CPU, held.end - PAGE - sum(sizes) + where, kind.size)
    return P_SEAMLDR_DATA.peek(bytes(where) + raw, name)


__all__ = ["P_SEAMLDR", "Returned", "ask", "data_base", "data_field", "install", "load_p_seamldr", "platform"]
