"""TDH.SYS.CONFIG (leaf 45): TDMRs, their PAMTs, the global private KeyID (TDXM tdh_sys_config.c)."""

from __future__ import annotations

from typing import Any

from seamref.arch.memory import Range
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result, Status, pack
from seamref.tdxmodule.structures import (
    MAX_RESERVED,
    MAX_TDMRS,
    PAGE,
    PAMT_ENTRY,
    TDMR_ENTRY,
    TDMR_INFO,
    Hkid,
    SysState,
)
from seamref.tdxmodule.system.common import GIB, S, global_exclusive, ref
from seamref.tdxmodule.system.platform import cmr_ranges

# --- TDH.SYS.CONFIG (45) ----------------------------------------------------------------------------------------

_C = ref("tdh_sys_config.c")
CONFIG: CheckTable[Call, Answer] = CheckTable("TDH.SYS.CONFIG", (
    Check("SYS.CONFIG.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY), _C),
    Check("SYS.CONFIG.state", "state is not SYSINIT_DONE", lambda c: c.state != SysState.SYSINIT_DONE,
          Answer(S.TDX_SYS_CONFIG_NOT_PENDING), _C),
    Check("SYS.CONFIG.lps", "a processor of TOT_NUM_LPS is not initialised",
          lambda c: c.glob.num("num_init_lps") < c.glob.num("num_lps"), Answer(S.TDX_SYS_CONFIG_NOT_PENDING), _C),
    Check("SYS.CONFIG.rcx", "RCX not 512-byte aligned, too wide, inside SEAMRR, or with a private KeyID",
          lambda c: not c.is_shared(c.rcx, 512), Answer(S.TDX_OPERAND_INVALID, Operand.RCX), _C),
    Check("SYS.CONFIG.rdx", "RDX is 0 or above 64", lambda c: not 1 <= c.rdx <= MAX_TDMRS,
          Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _C),
    Check("SYS.CONFIG.r8", "R8 bits 63:16 are not 0, or the KeyID is not private",
          lambda c: c.r8 >> 16 != 0 or not c.is_private_hkid(c.r8), Answer(S.TDX_OPERAND_INVALID, Operand.R8), _C),
), "TDH.SYS.CONFIG (leaf 45): operand conditions in order; then each TDMR is judged by SYS.CONFIG.TDMR.")


@implements("SYS.CONFIG.hkid", "the KeyID is reserved before TDMRs are judged: a failed call burns it", _C)
def _config_hkid(c: Call) -> Result | None:
    """SYS.CONFIG.hkid."""
    c.glob.set(f"kot[{c.r8}].state", Hkid.RESERVED)
    c.glob.set("hkid", c.r8)
    return None


class TdmrCheck:
    """One TDMR_INFO among those before it."""

    __slots__ = ("before", "call", "cmrs", "found", "i", "info")

    def __init__(self, call: Call, i: int, info: dict[str, Any], before: list[dict[str, Any]],
                 cmrs: list[Range]) -> None:
        self.call = call
        self.i = i
        self.info = info
        self.before = before
        self.cmrs = cmrs
        self.found = 0

    def stops(self, details: int | None) -> bool:
        """Remember the details."""
        if details is None:
            return False
        self.found = details
        return True

    def is_wide(self, base: int, size: int) -> bool:
        """Beyond max PA, or KeyID bits."""
        limit = 1 << self.call.platform.config.maxpa
        split = self.call.platform.split
        return base + size > limit or bool(split(base)[0] or split(base + size - 1)[0])

    def reserved(self) -> list[tuple[int, int]]:
        """(offset, size) of the reserved areas, up to the first null one."""
        return [(a["offset"], a["size"]) for a in self.info["reserved_areas"] if a["size"]]

    def usable(self) -> list[Range]:
        """Parts of the TDMR that are not reserved."""
        return usable_parts(self.info)

    def pamts(self) -> list[Range]:
        """PAMT areas 4K, 2M, 1G."""
        return [Range(self.info[f"pamt_{n}_base"], self.info[f"pamt_{n}_size"]) for n in ("4k", "2m", "1g")]


def usable_parts(info: dict[str, Any]) -> list[Range]:
    """Parts of a TDMR that are not reserved."""
    parts, at = [], info["base"]
    for area in info["reserved_areas"]:
        if not area["size"]:
            break
        if info["base"] + area["offset"] > at:
            parts.append(Range(at, info["base"] + area["offset"] - at))
        at = info["base"] + area["offset"] + area["size"]
    if at < info["base"] + info["size"]:
        parts.append(Range(at, info["base"] + info["size"] - at))
    return parts


def covered(cmrs: list[Range], part: Range) -> bool:
    """Whether a range lies inside the CMRs, adjacent ones counting as one."""
    start = end = 0
    for cmr in cmrs:
        if cmr.base != end:
            start = cmr.base
        end = cmr.end
        if start <= part.base and part.end <= end:
            return True
    return False


PAMT_LEVELS = ((12, "4k"), (21, "2m"), (30, "1g"))


def _reserved(c: TdmrCheck) -> tuple[Status, int] | None:
    """Area by area, all rules for one before the next: the first fault found, and which area it is.

    A null area must be followed by null ones; one that is not is the null area's fault.
    """
    areas, end = c.info["reserved_areas"], 0
    for j, area in enumerate(areas):
        offset, size = area["offset"], area["size"]
        if size == 0:
            if j + 1 < len(areas) and areas[j + 1]["size"]:
                return S.TDX_NON_ORDERED_RESERVED_IN_TDMR, j
            continue
        if offset + size >= 1 << 64:
            return S.TDX_INVALID_RESERVED_IN_TDMR, j
        if j and offset < end:
            return S.TDX_NON_ORDERED_RESERVED_IN_TDMR, j
        if (offset | size) % PAGE or offset + size > c.info["size"]:
            return S.TDX_INVALID_RESERVED_IN_TDMR, j
        end = offset + size
    return None


def _reserved_is(c: TdmrCheck, status: Status) -> int | None:
    found = _reserved(c)
    return pack(c.i, found[1]) if found is not None and found[0] is status else None


def _pamt_shape(c: TdmrCheck) -> int | None:
    for level in (2, 1, 0):
        shift, name = PAMT_LEVELS[level]
        base, size = c.info[f"pamt_{name}_base"], c.info[f"pamt_{name}_size"]
        small = size < (c.info["size"] >> shift) * PAMT_ENTRY.size
        if (base | size) % PAGE or c.is_wide(base, size) or small:
            return pack(c.i, level)
    return None


def _pamt_overlap(c: TdmrCheck) -> int | None:
    """PAMT against PAMTs of earlier TDMRs, against its own, then against usable memory, each also the other way."""
    mine = c.pamts()
    others = [TdmrCheck(c.call, j, info, [], c.cmrs) for j, info in enumerate(c.before)]
    for other in others:
        for level, area in enumerate(mine):
            if any(area.overlaps(*pamt) for pamt in other.pamts()):
                return pack(c.i, level, other.i)
    for level, area in enumerate(mine):
        if any(area.overlaps(*pamt) for pamt in mine[level + 1 :]):
            return pack(c.i, level, c.i)
    for other in (*others, c):
        for level, area in enumerate(mine):
            if any(area.overlaps(*part) for part in other.usable()):
                return pack(c.i, level, other.i)
        for level, area in enumerate(other.pamts()):
            if any(area.overlaps(*part) for part in c.usable()):
                return pack(other.i, level, c.i)
    return None


def _pamt_outside(c: TdmrCheck) -> int | None:
    pamts = c.pamts()
    return next((pack(c.i, level) for level in (2, 1, 0) if not covered(c.cmrs, pamts[level])), None)


def _tdmr_shape(c: TdmrCheck) -> bool:
    base, size = c.info["base"], c.info["size"]
    return base % GIB != 0 or size % GIB != 0 or size == 0 or c.is_wide(base, size)


SYS_CONFIG_TDMR: CheckTable[TdmrCheck, Answer] = CheckTable("TDH.SYS.CONFIG TDMR", (
    Check("SYS.CONFIG.TDMR.overflow", "base + size overflows",
          lambda c: c.info["base"] + c.info["size"] >= 1 << 64 and c.stops(c.i), Answer(S.TDX_INVALID_TDMR,
          found=True), _C),
    Check("SYS.CONFIG.TDMR.order", "not ascending, or overlaps the one before",
          lambda c: bool(c.before) and c.info["base"] < c.before[-1]["base"] + c.before[-1]["size"] and c.stops(c.i),
          Answer(S.TDX_NON_ORDERED_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.shape", "not 1 GiB multiples, empty, beyond max PA, or KeyID bits",
          lambda c: _tdmr_shape(c) and c.stops(c.i), Answer(S.TDX_INVALID_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.reserved_order", "reserved areas: one behind a null one, not ascending, or overlapping",
          lambda c: c.stops(_reserved_is(c, S.TDX_NON_ORDERED_RESERVED_IN_TDMR)),
          Answer(S.TDX_NON_ORDERED_RESERVED_IN_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.reserved", "a reserved area is not 4 KiB aligned or leaves the TDMR (area by area, with the "
          "row before)", lambda c: c.stops(_reserved_is(c, S.TDX_INVALID_RESERVED_IN_TDMR)),
          Answer(S.TDX_INVALID_RESERVED_IN_TDMR, found=True), _C),
    Check("SYS.CONFIG.TDMR.pamt", "a PAMT area is not aligned, beyond max PA, or too small",
          lambda c: c.stops(_pamt_shape(c)), Answer(S.TDX_INVALID_PAMT, found=True), _C),
    Check("SYS.CONFIG.TDMR.pamt_overlap", "a PAMT area overlaps another, or TDMR memory that is not reserved",
          lambda c: c.stops(_pamt_overlap(c)), Answer(S.TDX_PAMT_OVERLAP, found=True), _C),
    Check("SYS.CONFIG.TDMR.pamt_outside", "a PAMT area is not inside the CMRs", lambda c: c.stops(_pamt_outside(c)),
          Answer(S.TDX_PAMT_OUTSIDE_CMRS, found=True), _C),
    Check("SYS.CONFIG.TDMR.outside", "TDMR memory that is not reserved is not inside the CMRs",
          lambda c: any(not covered(c.cmrs, part) for part in c.usable()) and c.stops(c.i),
          Answer(S.TDX_TDMR_OUTSIDE_CMRS, found=True), _C),
), "Each TDMR of TDH.SYS.CONFIG, in order; details: TDMR, reserved area or PAMT level (4K 0, 2M 1, 1G 2).")


@implements("SYS.CONFIG.pointers", "each TDMR_INFO pointer is 512-byte aligned and shared; a TDMR that passes is "
            "stored at once, and stays in the table when a later one fails", _C)
def _config_tdmrs(c: Call) -> Result | None:
    """SYS.CONFIG.pointers: read and judge every TDMR_INFO; the copy in global data is what is used afterwards."""
    infos: list[dict[str, Any]] = []
    cmrs = cmr_ranges(c)
    for i in range(c.rdx):
        pa = c.port.read_int(c.rcx + 8 * i)
        if not c.is_shared(pa, 512):
            return Result(S.TDX_OPERAND_INVALID, int(Operand.RCX))
        data = c.port.read(pa, TDMR_INFO.size)
        c.glob.set(f"tdmr_info[{i}]", data)
        info = dict(TDMR_INFO.decode(data))
        check = TdmrCheck(c, i, info, infos, cmrs)
        row = SYS_CONFIG_TDMR.decide(check)
        if row is not None:
            return Result(row.result.status, check.found)
        c.glob.set(f"tdmrs[{i}]", accepted(info))
        infos.append(info)
    return None


def accepted(info: dict[str, Any]) -> bytes:
    """The table entry of a TDMR that passed; areas behind the first null one are not kept."""
    areas = []
    for area in info["reserved_areas"]:
        areas.append({"offset": area["offset"], "size": area["size"]})
        if not area["size"]:
            break
    used = sum(1 for area in areas if area["size"])
    areas += [{"offset": 0, "size": 0}] * (MAX_RESERVED - len(areas))
    return TDMR_ENTRY.encode({
        "base": info["base"], "size": info["size"], "next_to_init": info["base"],
        "pamt_1g_base": info["pamt_1g_base"], "pamt_2m_base": info["pamt_2m_base"],
        "pamt_4k_base": info["pamt_4k_base"], "pamt_blocks": info["size"] // GIB, "num_reserved": used,
        "reserved_areas": areas,
    })


@implements("SYS.CONFIG.effect", "NUM_TDMRS stored, PKG_CONFIG_BITMAP = 0; state = SYSCONFIG_DONE", _C)
def _config(c: Call) -> Result:
    """SYS.CONFIG.effect."""
    c.glob.set("num_tdmrs", c.rdx)
    c.glob.set("cpuid_complete", 1)
    c.glob.set("pkg_config_bitmap", 0)
    c.glob.set("sys_state", SysState.SYSCONFIG_DONE)
    return SUCCESS


leaf(45, "TDH.SYS.CONFIG", "TDMRs, PAMT and the global KeyID", stages=(CONFIG,),
     effects=(_config_hkid, _config_tdmrs, _config), before_ready=True,
     inputs="RCX array of TDMR_INFO addresses, RDX count, R8 global private KeyID")
