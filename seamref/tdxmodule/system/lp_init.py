"""TDH.SYS.LP.INIT (leaf 35): every processor is held against the sample (TDXM tdh_sys_lp_init.c)."""

from __future__ import annotations

from seamref.arch.msr import SMRR2_BASE, SMRR2_MASK
from seamref.arch.software import Ud2
from seamref.arch.trace import Step
from seamref.arch.vmcs import BY_NAME
from seamref.arch.vmx import vmread
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import HOST_FIELDS, INIT_MSRS, MAX_PKGS, SysState
from seamref.tdxmodule.system.common import S, first, global_shared, msr_of, ref
from seamref.tdxmodule.system.init import compared, masked
from seamref.tdxmodule.system.platform import capabilities, cpuid_limited, cpuid_out, smrrs

# --- TDH.SYS.LP.INIT (35) ---------------------------------------------------------------------------------------


def _differs(c: Call, addresses: tuple[int, ...]) -> int | None:
    for address in addresses:
        if msr_of(c, address) != c.glob.num(f"msr_sample[{INIT_MSRS.index(address)}]"):
            return address
    return None


def _cpuid_differs(c: Call) -> bool:
    sample = c.glob.raw("cpuid_sample")
    for i, (number, subleaf, mask) in enumerate(compared(c)):
        now = masked(c, number, subleaf, mask)
        if now != sample[len(now) * i : len(now) * (i + 1)]:
            return cpuid_out(c, number, subleaf, mask)
    return False


def _seed(c: Call) -> bool:
    carry, value = c.platform.rdrand()
    if carry:
        c.local.set("stepping_seed", value)
    return bool(carry)


FIRST_MSRS = (0xCF, 0x10A, 0xBC, 0xBD)


def _other_msrs(c: Call) -> tuple[int, ...]:
    """The rest, SMRR2 only where it is judged."""
    second = () if len(smrrs(c)) > 1 else (SMRR2_BASE, SMRR2_MASK)
    return tuple(m for m in INIT_MSRS if m not in (*FIRST_MSRS, 0x3B, *second))


_L = ref("tdh_sys_lp_init.c")
LP_INIT: CheckTable[Call, Answer] = CheckTable("TDH.SYS.LP.INIT", (
    Check("SYS.LP.INIT.lock", "GLOBAL_LOCK cannot be taken shared", global_shared, Answer(S.TDX_SYS_BUSY), _L),
    Check("SYS.LP.INIT.state", "state is not SYSINIT_DONE", lambda c: c.state != SysState.SYSINIT_DONE,
          Answer(S.TDX_SYS_LP_INIT_NOT_PENDING), _L),
    Check("SYS.LP.INIT.done", "this processor is initialised already", lambda c: c.local.num("initialised") != 0,
          Answer(S.TDX_SYS_LP_INIT_DONE), _L),
    Check("SYS.LP.INIT.entropy", "RDRAND for the stepping defence fails", lambda c: not _seed(c),
          Answer(S.TDX_RND_NO_ENTROPY), _L),
), "TDH.SYS.LP.INIT (leaf 35): the first conditions; then a global INVEPT.")
LP_INIT_THEN: CheckTable[Call, Answer] = CheckTable("TDH.SYS.LP.INIT platform", (
    Check("SYS.LP.INIT.capabilities", "SEAMOPS capabilities differ from TDH.SYS.INIT's",
          lambda c: capabilities(c) != c.glob.num("seam_capabilities"), Answer(S.TDX_INCOMPATIBLE_SEAM_CAPABILITIES),
          _L),
    Check("SYS.LP.INIT.msr", "core, architecture, package or xAPIC MSR differs from TDH.SYS.INIT's",
          lambda c: first(c, _differs(c, FIRST_MSRS)), Answer(S.TDX_INCONSISTENT_MSR, found=True), _L),
    Check("SYS.LP.INIT.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", cpuid_limited,
          Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET),
          _L),
    Check("SYS.LP.INIT.cpuid", "CPUID differs from TDH.SYS.INIT's", _cpuid_differs,
          Answer(S.TDX_INCONSISTENT_CPUID_FIELD), _L),
    Check("SYS.LP.INIT.package", "package number 8 or above",
          lambda c: first(c, c.package if c.package >= MAX_PKGS else None), Answer(S.TDX_INVALID_PKG_ID, found=True),
          _L),
    Check("SYS.LP.INIT.tsc_adjust", "IA32_TSC_ADJUST differs", lambda c: first(c, _differs(c, (0x3B,))),
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _L),
    Check("SYS.LP.INIT.other_msr", "MTRRCAP, SMRR, VMX, PERF, TME, KeyID or cache MSR differs",
          lambda c: first(c, _differs(c, _other_msrs(c))),
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _L),
), "TDH.SYS.LP.INIT: this processor against what TDH.SYS.INIT saw, in order.")


@implements("SYS.LP.INIT.invept", "a global INVEPT: mappings of the module before must not survive an update", _L)
def _lp_invept(c: Call) -> Result | None:
    """SYS.LP.INIT.invept: cached translations are not modelled, so listeners are all who notice."""
    if c.platform.listeners:
        c.platform.emit(Step(c.lp.id, "TDX module", "INVEPT", "global"))
    return None


@implements("SYS.LP.INIT.effect", "host state sampled, processor initialised, NUM_INIT_LPS + 1", _L)
def _lp_init(c: Call) -> Result:
    """SYS.LP.INIT.effect."""
    for i, name in enumerate(HOST_FIELDS):
        value = vmread(c.platform, c.lp.id, BY_NAME[name].encoding)
        if not isinstance(value, int):
            raise Ud2(f"VMREAD {name}: {value}")
        c.local.set(f"host_state[{i}]", value)
    c.local.set("initialised", 1)
    c.glob.add("num_init_lps", 1)
    return SUCCESS


leaf(35, "TDH.SYS.LP.INIT", "initialise the module on one processor", stages=(LP_INIT, _lp_invept, LP_INIT_THEN),
     effects=(_lp_init,),
     outputs=("rcx", "rdx", "r8"), before_ready=True, inputs="none")
