"""TDH.VP.INIT (leaf 22): index, VMCS and association of a vCPU (TDXM tdh_vp_init.c)."""

from __future__ import annotations

from seamref.arch.areas import FLAT_64, IA32E_GUEST
from seamref.arch.outcome import Done
from seamref.arch.software import Ud2
from seamref.arch.vmcs import CONTROL_MSRS, default_controls, make_vmcs
from seamref.arch.vmx import vmclear, vmptrld
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.build import VERSION_1_VP_INIT
from seamref.tdxmodule.core import Answer, Call, View, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import MAX_X2APIC, TDVPS_PAGES, OpState, PageType, VcpuState
from seamref.tdxmodule.system.common import first, msr_of, ref
from seamref.tdxmodule.td.checks import RCX_OWNER, S, owner, page, td_state, tsc_adjust_differs

_N = ref("tdh_vp_init.c")


def rcx_tdvps(c: Call) -> View:
    """The vCPU in RCX."""
    return c.tdvps(c.rcx, RCX_OWNER(c))


def take_index(c: Call) -> int:
    """The next vCPU index: taken for good, whatever becomes of the call."""
    if "vcpu" not in c.fixed:
        tdcs = c.tdcs(RCX_OWNER(c))
        c.fixed["vcpu"] = tdcs.num("num_vcpus")
        tdcs.set("num_vcpus", c.fixed["vcpu"] + 1)
    return c.fixed["vcpu"]


def _no_index(c: Call) -> bool:
    tdcs = c.tdcs(RCX_OWNER(c))
    if tdcs.num("num_vcpus") >= tdcs.num("max_vcpus"):
        return True
    rcx_tdvps(c).set("index", take_index(c))
    return False


def _used_id(c: Call) -> int | None:
    """The x2APIC id in R8, if a vCPU of the TD has it."""
    tdcs, index = c.tdcs(RCX_OWNER(c)), take_index(c)
    used = c.version > 0 and any(tdcs.num(f"x2apic_ids[{i}]") == c.r8 for i in range(min(index, MAX_X2APIC)))
    return c.r8 if used else None


VP_INIT_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.VP.INIT version", (
    Check("VP.INIT.version", "1.5.05: RAX[23:16] above 1", lambda c: c.version > 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RAX), "TDXN tdh_vp_init.c"),
), "TDH.VP.INIT (leaf 22): the version, before any operand.")
VP_INIT: CheckTable[Call, Answer] = CheckTable("TDH.VP.INIT", (
    Check("VP.INIT.pages", "pages of the vCPU are missing", lambda c: rcx_tdvps(c).num("num_tdcx") < TDVPS_PAGES - 1,
          Answer(S.TDX_TDCX_NUM_INCORRECT), _N),
    Check("VP.INIT.state", "the vCPU is initialised", lambda c: rcx_tdvps(c).num("state") != VcpuState.UNINITIALIZED,
          Answer(S.TDX_VCPU_STATE_INCORRECT), _N),
    Check("VP.INIT.max", "MAX_VCPUS are there; else the next index is taken, also if the call fails below", _no_index,
          Answer(S.TDX_MAX_VCPUS_EXCEEDED), _N),
    Check("VP.INIT.x2apic", "version 1: R8 does not fit 32 bits", lambda c: c.version > 0 and c.r8 >> 32 != 0,
          Answer(S.TDX_OPERAND_INVALID, Operand.R8), "TDXN tdh_vp_init.c"),
    Check("VP.INIT.unique", "version 1: a vCPU of the TD has this x2APIC id", lambda c: first(c, _used_id(c)),
          Answer(S.TDX_X2APIC_ID_NOT_UNIQUE, found=True), "TDXN tdh_vp_init.c"),
    Check("VP.INIT.tsc_adjust", "IA32_TSC_ADJUST is not what TDH.SYS.INIT saw", tsc_adjust_differs,
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _N),
), "TDH.VP.INIT: conditions in order, behind TDVPR, TDR and TD state.")


def td_vmcs(c: Call, tdvps: View, tdr: View) -> int:
    """Address of a vCPU's TD VMCS, with KeyID: the second page of its TDVPS."""
    return c.with_hkid(tdvps.num("tdcx_pa[0]"), tdr.num("hkid"))


def load_vmcs(c: Call, pointer: int) -> None:
    """VMPTRLD that must succeed."""
    outcome = vmptrld(c.platform, c.lp.id, pointer)
    if not isinstance(outcome, Done):
        raise Ud2(f"VMPTRLD 0x{pointer:X}: {outcome}")


def clear_vmcs(c: Call, pointer: int) -> None:
    """VMCLEAR that must succeed."""
    outcome = vmclear(c.platform, c.lp.id, pointer)
    if not isinstance(outcome, Done):
        raise Ud2(f"VMCLEAR 0x{pointer:X}: {outcome}")


RESET_VECTOR = 0xFFFFFFF0


@implements("VP.INIT.vmcs", "controls at default1 with EPT, guest at the reset vector, RCX and R8 = the operand", _N)
def _build_vmcs(c: Call, tdr: View, tdcs: View) -> bytes:
    """VP.INIT.vmcs: 64-bit from the start and GPA = linear address (*chosen*: guest paging is not modelled)."""
    controls = default_controls({at: msr_of(c, at) for at in CONTROL_MSRS})
    return make_vmcs({
        "revision_id": msr_of(c, 0x480) & 0x7FFFFFFF,
        **controls, "proc_based": controls["proc_based"] | 1 << 31,
        "entry_ctls": controls["entry_ctls"] | 1 << IA32E_GUEST, **FLAT_64,
        "secondary_proc_based": 2,
        "eptp": tdcs.num("eptp"), "td_keyid": tdr.num("hkid"), "vmcs_link_pointer": (1 << 64) - 1,
        "guest_rip": RESET_VECTOR, "guest_rflags": 2, "guest_cr0": 0x80010031, "guest_cr4": 0x2040 | 0x20,
        "guest_ia32_efer": 0xD00, "guest_dr7": 0x400,
        "guest_ia32_pat": 0x0007040600070406,
    })


@implements("VP.INIT.effect", "VMCS built, associated with this processor, LAST_SEAMDB_INDEX = the module's; READY", _N)
def _vp_init(c: Call) -> Result:
    """VP.INIT.effect."""
    tdr = RCX_OWNER(c)
    tdcs, tdvps = c.tdcs(tdr), rcx_tdvps(c)
    index = tdvps.num("index")
    if index < MAX_X2APIC:
        tdcs.set(f"x2apic_ids[{index}]", c.r8 if c.version else 0xFFFFFFFF)
    clear_vmcs(c, td_vmcs(c, tdvps, tdr))  # a copy cached under this address must not come back over the new one
    c.port.write(td_vmcs(c, tdvps, tdr), _build_vmcs(c, tdr, tdcs))
    tdvps.set("gprs[1]", c.rdx)
    tdvps.set("gprs[8]", c.rdx)
    tdvps.set("last_seamdb_index", c.glob.num("seamdb_index"))
    associate(c, tdcs, tdvps)
    tdvps.set("state", VcpuState.READY)
    return SUCCESS


def associate(c: Call, tdcs: View, tdvps: View) -> None:
    """Bind a vCPU to this processor: its processor-dependent host state is to be set anew."""
    tdvps.set("assoc_lpid", c.local.num("lp_id"))
    tdvps.set("lp_state_valid", 0)
    tdcs.set("num_assoc_vcpus", tdcs.num("num_assoc_vcpus") + 1)


leaf(22, "TDH.VP.INIT", "a vCPU's initial state",
     stages=(VP_INIT_FIRST, page("rcx", PageType.TDVPR, "x"), owner("rcx"),
             td_state(RCX_OWNER, OpState.INITIALIZED), VP_INIT),
     effects=(_vp_init,), versions=((0xFF, VERSION_1_VP_INIT),),
     inputs="RCX TDVPR, RDX initial RCX and R8 of the guest, version 1: R8 x2APIC id")
