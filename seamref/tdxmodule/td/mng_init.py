"""TDH.MNG.INIT (leaf 21): TD_PARAMS judged, the TD initialised (TDXM tdh_mng_init.c)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from seamref.arch.cpuid import Cpuid, cpuid
from seamref.arch.msr import BY_NAME
from seamref.arch.software import Ud2
from seamref.errors import NotModelled
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.cpuid_config import (
    ARCH_CAPABILITIES_CONFIG,
    TOPOLOGY_AT,
    configurable,
    fms_allowed,
    in_lookup_order,
    levels_wrong,
)
from seamref.tdxmodule.sha384 import Sha384
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import (
    ATTRIBUTES_DEBUG,
    ATTRIBUTES_FIXED1,
    ATTRIBUTES_MIGRATABLE,
    ATTRIBUTES_PERFMON,
    CONFIG_FLAGS_FIXED0,
    CONFIG_FLAGS_FIXED1,
    CONFIG_GPAW,
    MAX_VCPUS_PER_TD,
    TD_PARAMS,
    TDCS_PAGES,
    XFAM_AVX,
    XFAM_AVX512,
    XFAM_FIXED1,
    XFAM_SAME,
    OpState,
    PageType,
)
from seamref.tdxmodule.system.common import first, msr_of, ref
from seamref.tdxmodule.system.info import attributes_fixed0, platform_fms, xfam_fixed0
from seamref.tdxmodule.system.platform import later
from seamref.tdxmodule.system.shutdown import can_avoid
from seamref.tdxmodule.td.checks import RCX_TDR, S, page, td_state, tsc_adjust_differs
from seamref.tdxmodule.td.measurement import put_hash
from seamref.tdxmodule.td.sept import sept_root

_I = ref("tdh_mng_init.c")


def _params(c: Call) -> Any:
    return TD_PARAMS.decode(c.port.read(c.rdx, TD_PARAMS.size))


def _attributes_wrong(c: Call) -> bool:
    asked = _params(c).attributes
    both = asked & ATTRIBUTES_MIGRATABLE and asked & (ATTRIBUTES_DEBUG | ATTRIBUTES_PERFMON)
    return bool(asked & ~attributes_fixed0(c) or ATTRIBUTES_FIXED1 & ~asked or both)


def _xfam_wrong(c: Call) -> bool:
    asked = _params(c).xfam
    torn = any(asked & group not in (0, group) for group in XFAM_SAME)
    alone = asked & XFAM_AVX512 and not asked & XFAM_AVX
    return bool(asked & ~xfam_fixed0(c) or XFAM_FIXED1 & ~asked or torn or alone)


def _max_vcpus_wrong(c: Call) -> bool:
    asked = _params(c).max_vcpus
    return asked == 0 or (later(c) and asked > MAX_VCPUS_PER_TD)


def _reserved(name: str) -> Callable[[Call], bool]:
    """Whether a reserved range of TD_PARAMS is not 0."""
    return lambda c: any(TD_PARAMS.peek(c.port.read(c.rdx, TD_PARAMS.size), name))


def _config_flags_wrong(c: Call) -> bool:
    return bool(_params(c).config_flags & ~CONFIG_FLAGS_FIXED0 or CONFIG_FLAGS_FIXED1 & ~_params(c).config_flags)


EPTP_4_LEVELS = 0x1E


def _eptp_wrong(c: Call) -> bool:
    """Write-back with 4 levels (5 are not modelled, and IA32_VMX_EPT_VPID_CAP[7] is 0); GPAW needs 5 levels."""
    return _params(c).eptp_controls != EPTP_4_LEVELS or bool(_params(c).config_flags & CONFIG_GPAW)


def _values(entry: Any) -> Cpuid:
    return Cpuid(entry["eax"], entry["ebx"], entry["ecx"], entry["edx"])


TSX_LEAF = (7, 0)
HLE, RTM = 4, 11
"""CPUID.7.0:EBX."""
ARCH_CAPABILITIES = BY_NAME["IA32_ARCH_CAPABILITIES"].address
TSX_CTRL = 7
"""IA32_ARCH_CAPABILITIES: IA32_TSX_CTRL is there."""


def _tsx(c: Call) -> tuple[int, int]:
    """HLE and RTM as the TD would see them."""
    row, entry = next((row, entry) for row, entry in zip(configurable(later(c)), _params(c).cpuid_config, strict=False)
                      if (row.leaf, row.subleaf) == TSX_LEAF)
    seen = cpuid(c.platform, c.lp, row.leaf, row.subleaf).ebx & (_values(entry).ebx | ~row.allow.ebx)
    return seen >> HLE & 1, seen >> RTM & 1


def _fms_wrong(c: Call, asked: int) -> bool:
    """0 is the platform's; a migratable TD may ask for an older one."""
    own = platform_fms(c)
    if not asked or not _params(c).attributes & ATTRIBUTES_MIGRATABLE:
        return asked not in (0, own)
    allowed = fms_allowed(own, asked)
    if allowed is None:
        raise Ud2(f"CPUID.1:EAX 0x{own:X} is no model that this module knows")
    return not allowed


def _bits_wrong(c: Call, behind: bool) -> bool:
    """Bits that are not configurable, or another FMS, in leaves up to 7.0 or ``behind`` it; RCX = the first leaf."""
    entries = _params(c).cpuid_config
    order = in_lookup_order(later(c))
    tsx = next(i for i, (_, row) in enumerate(order) if (row.leaf, row.subleaf) == TSX_LEAF)
    for at, row in order[tsx + 1 :] if behind else order[: tsx + 1]:
        asked = _values(entries[at])
        bad = any(a & ~(d | w) for a, d, w in zip(asked, row.direct, row.allow, strict=True))
        if bad or (row.leaf == 1 and _fms_wrong(c, asked.eax)):
            c.out(rcx=row.id)
            return True
    return False


def _topology_config_wrong(c: Call) -> bool:
    entries = _params(c).cpuid_config
    return later(c) and levels_wrong(tuple(_values(e) for e in entries[TOPOLOGY_AT : len(configurable(True))]))


def _behind_config(c: Call) -> bool:
    entries = _params(c).cpuid_config
    return any(any(_values(entry)) for entry in entries[len(configurable(later(c))) :])


def _arch_capabilities_wrong(c: Call) -> bool:
    """A value without MSR_CONFIG_CTLS bit 0, or with bits that cannot be configured."""
    value = _params(c).ia32_arch_capabilities_config
    return bool(value and (not _params(c).msr_config_ctls & 1 or value & ~ARCH_CAPABILITIES_CONFIG))


MNG_INIT_FIRST: CheckTable[Call, Answer] = CheckTable("TDH.MNG.INIT CPUID limit", (
    Check("MNG.INIT.limit_cpuid", "IA32_MISC_ENABLE limits CPUID", lambda c: bool(msr_of(c, 0x1A0) >> 22 & 1),
          Answer(S.TDX_LIMIT_CPUID_MAXVAL_SET), _I),
), "TDH.MNG.INIT (leaf 21): the first condition.")
MNG_INIT: CheckTable[Call, Answer] = CheckTable("TDH.MNG.INIT", (
    Check("MNG.INIT.rdx", "RDX not 1 KiB aligned or not a shared address", lambda c: not c.is_shared(c.rdx, 1024),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.attributes", "an ATTRIBUTES bit that may not be 1, or must be 1; MIGRATABLE with DEBUG or PERFMON",
          _attributes_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.ATTRIBUTES), _I),
    Check("MNG.INIT.xfam", "an XFAM bit that may not be 1, or must be 1; parts of AVX-512, CET, AMX; AVX-512 alone",
          _xfam_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.XFAM), _I),
    Check("MNG.INIT.max_vcpus", "MAX_VCPUS is 0, or (1.5.05) above 576", _max_vcpus_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.MAX_VCPUS), _I),
    Check("MNG.INIT.l2", "more than 3 L2 VMs", lambda c: _params(c).num_l2_vms > 3,
          Answer(S.TDX_OPERAND_INVALID, Operand.NUM_L2_VMS), _I),
    Check("MNG.INIT.tdcs", "TDCS pages for the L2 VMs are missing",
          lambda c: RCX_TDR(c).num("num_tdcx") < TDCS_PAGES + _params(c).num_l2_vms, Answer(S.TDX_TDCS_NOT_ALLOCATED),
          _I),
    Check("MNG.INIT.reserved", "TD_PARAMS bytes 20 to 23 are not 0", _reserved("reserved_0"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.config_flags", "CONFIG_FLAGS that this module does not have", _config_flags_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.EXEC_CONTROLS), _I),
    Check("MNG.INIT.eptp", "EPTP_CONTROLS are not write-back with 4 levels, or GPAW asks for 5", _eptp_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.EPTP_CONTROLS), _I),
    Check("MNG.INIT.tsc_frequency", "TSC_FREQUENCY not in 4..400", lambda c: not 4 <= _params(c).tsc_frequency <= 400,
          Answer(S.TDX_OPERAND_INVALID, Operand.TSC_FREQUENCY), _I),
    Check("MNG.INIT.tsc_adjust", "IA32_TSC_ADJUST is not what TDH.SYS.INIT saw", tsc_adjust_differs,
          Answer(S.TDX_INCONSISTENT_MSR, found=True), _I),
    Check("MNG.INIT.reserved_1", "reserved bytes behind TSC_FREQUENCY are not 0", _reserved("reserved_1"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.msr_config", "a reserved bit of MSR_CONFIG_CTLS is not 0", lambda c: _params(c).msr_config_ctls > 1,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.reserved_2", "reserved bytes behind IA32_ARCH_CAPABILITIES_CONFIG are not 0",
          _reserved("reserved_2"),
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.cpuid", "CPUID configuration up to leaf 7: bits that are not configurable, an FMS that is not "
          "allowed; RCX = the leaf", lambda c: _bits_wrong(c, False),
          Answer(S.TDX_OPERAND_INVALID, Operand.CPUID_CONFIG), _I),
    Check("MNG.INIT.tsx", "the TD would see HLE without RTM or RTM without HLE", lambda c: _tsx(c)[0] != _tsx(c)[1],
          Answer(S.TDX_OPERAND_INVALID, Operand.CPUID_CONFIG), _I),
    Check("MNG.INIT.tsx_ctrl", "the TD would see TSX and IA32_ARCH_CAPABILITIES has no TSX_CTRL",
          lambda c: first(c, None if not _tsx(c)[0] or msr_of(c, ARCH_CAPABILITIES) >> TSX_CTRL & 1 else
                          ARCH_CAPABILITIES), Answer(S.TDX_INCORRECT_MSR_VALUE, found=True), _I),
    Check("MNG.INIT.cpuid_behind", "CPUID configuration behind leaf 7: bits that are not configurable; RCX = the leaf",
          lambda c: _bits_wrong(c, True), Answer(S.TDX_OPERAND_INVALID, Operand.CPUID_CONFIG), _I),
    Check("MNG.INIT.topology", "1.5.05: the configured leaf 1FH is not understood", _topology_config_wrong,
          Answer(S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED), _I),
    Check("MNG.INIT.reserved_3", "bytes behind the configurable CPUID leaves are not 0", _behind_config,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _I),
    Check("MNG.INIT.arch_capabilities",
          "IA32_ARCH_CAPABILITIES_CONFIG unasked (MSR_CONFIG_CTLS), or bits not configurable",
          _arch_capabilities_wrong,
          Answer(S.TDX_OPERAND_INVALID, Operand.IA32_ARCH_CAPABILITIES_CONFIG), _I),
), "TDH.MNG.INIT: conditions in order, behind TDR page and TD state.")


@implements("MNG.INIT.effect", "parameters kept, TD_EPOCH = 1, SHA-384 started, RTMRs 0; OP_STATE = INITIALIZED", _I)
def _mng_init(c: Call) -> Result:
    """MNG.INIT.effect: the TD is being built from here to TDH.MR.FINALIZE, which is update-sensitive."""
    params, tdr = _params(c), RCX_TDR(c)
    if params.num_l2_vms:
        raise NotModelled("TD partitioning (L2 VMs)", "MNG.INIT.effect")
    tdcs = c.tdcs(tdr)
    for name in ("attributes", "xfam", "max_vcpus", "tsc_frequency", "mrconfigid", "mrowner", "mrownerconfig"):
        tdcs.set(name, params[name])
    tdcs.set("eptp", sept_root(c, tdr) | params.eptp_controls)
    tdcs.set("td_epoch", 1)
    put_hash(c, tdcs, Sha384())
    if can_avoid(c):
        tdcs.set("counted", 1)
        c.glob.set("num_sensitive", c.glob.num("num_sensitive") + 1)
    tdcs.set("op_state", OpState.INITIALIZED)
    return SUCCESS


leaf(21, "TDH.MNG.INIT", "the TD's parameters",
     stages=(MNG_INIT_FIRST, page("rcx", PageType.TDR, "x"), td_state(RCX_TDR, OpState.UNINITIALIZED, kind="x"),
     MNG_INIT),
     effects=(_mng_init,), outputs=("rcx",), inputs="RCX TDR, RDX TD_PARAMS")
