"""A platform prepared by hand, for experiments with single instructions.

What BIOS, NP-SEAMLDR and P-SEAMLDR would leave behind, as little of it as the processor looks at: KeyIDs and SEAMRR
through real WRMSRs, P_SEAMLDR_RANGE, transfer VMCSs, page tables and one page of code, and the two ready flags.  The
code is a program that answers a call and returns; the real loaders are in :mod:`seamref.pseamldr` and
:mod:`seamref.tdxmodule`, a really booted platform comes from :func:`seamref.boot`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from seamref.arch import msr
from seamref.arch.areas import FLAT_64, IA32E_GUEST
from seamref.arch.lp import CR4_SMXE, CR4_VMXE, Lp
from seamref.arch.memory import Agent, Range
from seamref.arch.outcome import Fault
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.revision import SILICON, Revision
from seamref.arch.seam import seamret
from seamref.arch.software import Running, StepOutcome, make_stub, register_program
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.vmcs import TRANSFER_MSRS, get, make_vmcs, put, transfer_fields
from seamref.arch.vmx import current, vmptrld, vmxon
from seamref.errors import SeamrefError

if TYPE_CHECKING:
    from collections.abc import Mapping

SEAMRR = Range(0x7C000000, 0x4000000)
P_SEAMLDR_RANGE = Range(0x7FC00000, 0x400000)
CODE = 0xFFFF800000000000
"""Linear address of the one code page, for the module and for P-SEAMLDR."""
VMXON_REGION = 0x10000
"""Physical address of the VMXON region of processor 0; processor i has it + i * 8192, its VMCS 4096 behind."""


class Answer:
    """A program that takes two steps: set RAX to 0, then go behind SEAMCALL and return."""

    id = b"seamref.lab.call"
    name = "lab"

    def step(self, platform: Platform, lp: Lp, parameters: bytes) -> StepOutcome:
        if lp.program_state is None:
            lp.rax = 0
            lp.program_state = "answered"
            return Running("answered")
        advance_rip(lp)
        return seamret(platform, lp.id)


def advance_rip(lp: Lp) -> None:
    """Software's half of SEAMCALL: move the saved RIP by the instruction length, end STI and MOV-SS blocking."""
    data = current(lp).data
    put(data, "guest_rip", get(data, "guest_rip") + get(data, "exit_instruction_length"))
    put(data, "guest_interruptibility", get(data, "guest_interruptibility") & ~3)


register_program(Answer())


def transfer_vmcs(platform: Platform, lp: Lp, cr3: int, rip: int = CODE, **fields: int) -> bytes:
    """A transfer VMCS as the loaders fill it (default1 controls, 64-bit host, guest RIP not canonical)."""
    msrs = {address: platform.msr_value(lp, address) for address in TRANSFER_MSRS}
    return make_vmcs({**transfer_fields(msrs), "host_cr3": cr3, "host_rip": rip, **fields})


def vmm_vmcs(platform: Platform, lp: Lp) -> bytes:
    """A VMM's own VMCS: valid controls and host state, a guest that could run."""
    data = bytearray(transfer_vmcs(platform, lp, 0x1000, 0xFFFFFFFF81000100))
    guest = {**FLAT_64, "guest_rip": 0x1000, "guest_rflags": 2, "guest_ia32_efer": 0xD01, "guest_cr0": 0x80010031,
             "guest_cr4": 0x2020, "entry_ctls": get(data, "entry_ctls") | 1 << IA32E_GUEST}
    for name, value in guest.items():
        put(data, name, value)
    return bytes(data)


def _code(platform: Platform, tables: int, code: int, program: bytes) -> None:
    """Four tables and one code page: CODE -> ``code``."""
    for level in range(3):
        at = tables + level * 0x1000
        index = (CODE >> (39 - 9 * level)) & 0x1FF
        platform.store(Agent.CPU, at + index * 8, (at + 0x1000 | 0x27).to_bytes(8, "little"))
    platform.store(Agent.CPU, tables + 0x3000 + (CODE >> 12 & 0x1FF) * 8, (code | 0x21).to_bytes(8, "little"))
    platform.store(Agent.CPU, code, make_stub(program))


def _write(platform: Platform, lp: int, address: int, value: int) -> None:
    outcome = msr.wrmsr(platform, lp, address, value)
    if isinstance(outcome, Fault):
        raise SeamrefError(f"lab: WRMSR 0x{address:X} := 0x{value:X} gives {outcome} ({outcome.clause})")


def set_ready(platform: Platform, *, seam: bool | None = None, p_seamldr: bool | None = None) -> None:
    """Set the two ready flags of SEAMEXTEND."""
    register = bytearray(platform.SEAMEXTEND)
    for name, value in (("seam_ready", seam), ("p_seamldr_ready", p_seamldr)):
        if value is not None:
            SEAMEXTEND.poke(register, name, int(value))
    platform.SEAMEXTEND = bytes(register)


def platform(
    *,
    topology: Topology | None = None,
    revision: Revision = SILICON,
    vmx: bool = True,
    keeps_vmcs: bool = False,
    program: bytes = Answer.id,
    vmx_msrs: Mapping[int, int] | None = None,
) -> Platform:
    """A platform on which SEAMCALL enters.

    ``vmx``         every processor has executed VMXON and made a VMCS current
    ``keeps_vmcs``  parts with IA32_VMX_BASIC[60] = 1
    ``program``     what the code page in SEAM stands for
    """
    from seamref.arch.platform import NO_SEAMRET_INVD_VMCS, VMX_MSRS

    msrs = dict(vmx_msrs or VMX_MSRS)
    if keeps_vmcs:
        msrs[msr.VMX_BASIC] |= NO_SEAMRET_INVD_VMCS
    made = Platform(PlatformConfig(topology=topology or Topology(1, 2), vmx_msrs=msrs), revision)
    packages: set[int] = set()
    for id in made.lps:
        lp = made.lp(id)
        if lp.package not in packages:
            packages.add(lp.package)
            _write(made, id, msr.TME_ACTIVATE, 3 | 6 << 32 | 1 << 36)
        mask = ((1 << made.config.maxpa) - 1) & ~(SEAMRR.size - 1) & 0xFFFFFFFE000000
        _write(made, id, msr.SEAMRR_BASE, SEAMRR.base | (8 if revision.base_bit3_configured else 0))
        _write(made, id, msr.SEAMRR_MASK, mask | 0xC00)
        lp.cr4 |= CR4_SMXE
    made.p_seamldr_range = P_SEAMLDR_RANGE
    first = made.lp(made.lps[0])
    module_tables, module_code = P_SEAMLDR_RANGE.base - 0x10000, P_SEAMLDR_RANGE.base - 0x8000
    _code(made, module_tables, module_code, program)
    _code(made, P_SEAMLDR_RANGE.base + 0x2000, P_SEAMLDR_RANGE.base + 0x8000, program)
    made.store(Agent.CPU, P_SEAMLDR_RANGE.base + 0x1000, transfer_vmcs(made, first, P_SEAMLDR_RANGE.base + 0x2000))
    for id in made.lps:
        lp = made.lp(id)
        made.store(Agent.CPU, SEAMRR.base + 0x1000 + id * 0x1000, transfer_vmcs(made, lp, module_tables))
        if vmx:
            start_vmx(made, id)
    set_ready(made, seam=True, p_seamldr=True)
    return made


def start_vmx(platform: Platform, lp_id: int) -> None:
    """CR4.VMXE, VMXON, and a current VMCS, as a VMM does on each processor."""
    lp = platform.lp(lp_id)
    lp.cr4 |= CR4_VMXE
    at = VMXON_REGION + lp_id * 0x2000
    platform.store(Agent.HOST, at, (platform.msr_value(lp, msr.VMX_BASIC) & 0x7FFFFFFF).to_bytes(4, "little"))
    platform.store(Agent.HOST, at + 0x1000, vmm_vmcs(platform, lp))
    vmxon(platform, lp_id, at)
    vmptrld(platform, lp_id, at + 0x1000)
