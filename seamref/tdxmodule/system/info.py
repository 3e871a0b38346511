"""TDH.SYS.INFO (leaf 32) and TDH.SYS.LP.SHUTDOWN (leaf 44) (TDXM tdh_sys_info.c)."""

from __future__ import annotations

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf, ok
from seamref.tdxmodule.cpuid_config import Configurable, configurable
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import (
    ATTRIBUTES_FIXED0,
    ATTRIBUTES_FIXED1,
    ATTRIBUTES_LASS,
    MAX_CMRS,
    MAX_RESERVED,
    MAX_TDMRS,
    PAGE,
    PAMT_ENTRY,
    TDCS_PAGES,
    TDSYSINFO,
    TDVPS_PAGES,
    XFAM_FIXED0,
    XFAM_FIXED1,
)
from seamref.tdxmodule.system.common import S, mcheck, ref
from seamref.tdxmodule.system.platform import later, leaf_cpuid

# --- TDH.SYS.INFO (32) and TDH.SYS.LP.SHUTDOWN (44) -------------------------------------------------------------

_N = ref("tdh_sys_info.c")
INFO_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INFO", (
    Check("SYS.INFO.lp", "this processor is not initialised", lambda c: not c.local.num("initialised"),
          Answer(S.TDX_SYS_LP_INIT_NOT_DONE), _N),
    Check("SYS.INFO.rcx", "RCX not 1 KiB aligned or not a shared address", lambda c: not c.is_shared(c.rcx, 1024),
          Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _N),
    Check("SYS.INFO.rdx", "RDX below 1024", lambda c: c.rdx < TDSYSINFO.size, Answer(S.TDX_OPERAND_INVALID,
          Operand.RDX), _N),
), "TDH.SYS.INFO (leaf 32): conditions in order; the buffer is zeroed behind these.")
INFO_THEN: CheckTable[Call, Answer] = CheckTable("TDH.SYS.INFO CMRs", (
    Check("SYS.INFO.r8", "R8 not 512-byte aligned or not a shared address", lambda c: not c.is_shared(c.r8, 512),
          Answer(S.TDX_OPERAND_INVALID, Operand.R8), _N),
    Check("SYS.INFO.r9", "R9 below 32", lambda c: c.r9 < MAX_CMRS, Answer(S.TDX_OPERAND_INVALID, Operand.R9), _N),
), "TDH.SYS.INFO: conditions on the CMR array, when the first buffer is zeroed already.")


@implements("SYS.INFO.zero", "the caller's buffer is zeroed before R8 and R9 are judged", _N)
def _info_zero(c: Call) -> Result | None:
    """SYS.INFO.zero."""
    c.port.write(c.rcx, bytes(TDSYSINFO.size))
    return None


def platform_fms(c: Call) -> int:
    """Family, model, stepping of package 0, with the lowest stepping of all packages."""
    table = mcheck(c)
    all_of = [table.num(f"socket_cpuid_table[{i}]") for i in range(c.glob.num("num_pkgs"))]
    return all_of[0] & ~0xF | min(fms & 0xF for fms in all_of)


MAX_CPUID_CONFIGS = 37
_NO_CONFIG = {"leaf": 0, "subleaf": 0, "values": [0] * 4}


def has_lass(c: Call) -> bool:
    """Linear address space separation: from 1.5.05 on, where CPUID.7.1:EAX[6] says so."""
    return later(c) and bool(cpuid(c.platform, c.lp, 7, 1).eax >> 6 & 1)


def attributes_fixed0(c: Call) -> int:
    """ATTRIBUTES bits that may be 1 on this platform."""
    return ATTRIBUTES_FIXED0 | (ATTRIBUTES_LASS if has_lass(c) else 0)


def xfam_fixed0(c: Call) -> int:
    """XFAM bits that may be 1: those that the processor has in XCR0 and IA32_XSS (CPUID leaf 0DH)."""
    main, more = cpuid(c.platform, c.lp, 0xD, 0), cpuid(c.platform, c.lp, 0xD, 1)
    return XFAM_FIXED0 & (main.eax | more.ecx)


def config_values(c: Call, row: Configurable) -> Cpuid:
    """Bits of a CPUID leaf that a TD's configuration may set: given ones, and those of the processor it may clear."""
    native = leaf_cpuid(c, row.leaf, row.subleaf)
    return Cpuid(*(d | a & n for d, a, n in zip(row.direct, row.allow, native, strict=True)))


@implements("SYS.INFO.effect", "TDSYSINFO_STRUCT and 32 CMRs to the caller; RDX = 1024, R9 = 32", _N)
def _info(c: Call) -> Result:
    """SYS.INFO.effect."""
    b, configs = c.build, configurable(later(c))
    c.port.write(c.rcx, TDSYSINFO.encode({
        "vendor_id": 0x8086, "build_date": b.build_date, "build_num": b.build_num, "minor_version": b.minor,
        "major_version": b.major, "sys_rd": 1, "max_tdmrs": MAX_TDMRS, "max_reserved_per_tdmr": MAX_RESERVED,
        "pamt_entry_size": PAMT_ENTRY.size, "tdcs_base_size": TDCS_PAGES * PAGE, "tdvps_base_size": TDVPS_PAGES * PAGE,
        "attributes_fixed0": attributes_fixed0(c), "attributes_fixed1": ATTRIBUTES_FIXED1,
        "xfam_fixed0": xfam_fixed0(c), "xfam_fixed1": XFAM_FIXED1, "num_cpuid_config": len(configs),
        "cpuid_configs": [{"leaf": row.leaf, "subleaf": row.subleaf, "values": list(config_values(c, row))}
                          for row in configs] + [_NO_CONFIG] * (MAX_CPUID_CONFIGS - len(configs)),
    }))
    c.port.write(c.r8, c.linear.read(c.table.base + P_SYS_INFO_TABLE.offset_of("cmr"), 16 * MAX_CMRS))
    c.out(rdx=TDSYSINFO.size, r9=MAX_CMRS)
    return SUCCESS


leaf(32, "TDH.SYS.INFO", "what the module is", stages=(INFO_FIRST, _info_zero, INFO_THEN), effects=(_info,),
     outputs=("rdx", "r9"), before_ready=True, inputs="RCX buffer, RDX size, R8 CMR array, R9 entries")
leaf(44, "TDH.SYS.LP.SHUTDOWN", "deprecated: always succeeds, does nothing", stages=(), effects=(ok,),
     before_ready=True,
     inputs="none")
