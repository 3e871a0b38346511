"""The state areas in words, and what a caller of SEAM finds again behind a call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from seamref.arch import lab
from seamref.arch.areas import GUEST, HOST, SEGMENTS
from seamref.arch.lp import GPRS, Lp
from seamref.arch.outcome import Entered
from seamref.arch.seam import seamcall
from seamref.arch.software import run
from seamref.arch.vmcs import BY_NAME

EXIT_CONTROLS = {
    2: "save debug controls", 12: "load PERF_GLOBAL_CTRL", 18: "save PAT", 19: "load PAT", 20: "save EFER",
    21: "load EFER", 23: "clear BNDCFGS", 25: "clear RTIT_CTL", 26: "clear LBR_CTL", 27: "clear UINV",
    28: "load CET state", 29: "load PKRS", 30: "save PERF_GLOBAL_CTRL",
}
ENTRY_CONTROLS = {
    2: "load debug controls", 13: "load PERF_GLOBAL_CTRL", 14: "load PAT", 15: "load EFER", 16: "load BNDCFGS",
    18: "load RTIT_CTL", 19: "load UINV", 20: "load CET state", 21: "load LBR_CTL", 22: "load PKRS",
}
"""Controls that the rows name, by bit."""


@dataclass(frozen=True, slots=True)
class Area:
    """One line of an area's table: the processor's part, the VMCS field and its encoding, when it moves."""

    part: str
    field: str
    encoding: int | None
    first: str
    second: str
    section: str


def _when(controls: dict[int, str], bit: int | None) -> str:
    return "always" if bit is None else f"{controls[bit]} (bit {bit})"


def guest_area() -> list[Area]:
    """The guest-state area: ``first`` says when an exit saves, ``second`` when an entry loads."""
    return [
        Area(row.lp, row.field, row.vmcs.encoding, _when(EXIT_CONTROLS, row.save), _when(ENTRY_CONTROLS, row.load),
             row.section)
        for row in GUEST
    ]


def host_area() -> list[Area]:
    """What an exit sets: ``first`` says to what (empty: to the field), ``second`` when."""
    return [
        Area(row.lp, row.field, BY_NAME[row.field].encoding if row.field else None,
             "" if row.field else f"{int(row.value):#x}", _when(EXIT_CONTROLS, row.load), row.section)
        for row in HOST
    ]


GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("RIP", ("rip",)),
    ("RAX", ("rax",)),
    ("the other general registers", tuple(name for name in GPRS if name not in ("rax", "rsp"))),
    ("RSP, SSP", ("rsp", "ssp")),
    ("RFLAGS", ("rflags",)),
    ("CR0, CR3, CR4", ("cr0", "cr3", "cr4")),
    ("CR2, CR8", ("cr2", "cr8")),
    ("selectors", tuple(f"{name}_selector" for name in SEGMENTS)),
    ("bases, limits and access rights", tuple(f"{s}_{part}" for s in SEGMENTS for part in ("base", "limit", "ar"))),
    ("GDTR, IDTR", ("gdtr_base", "gdtr_limit", "idtr_base", "idtr_limit")),
    ("DR7, IA32_DEBUGCTL", ("dr7", "debugctl")),
    ("IA32_SYSENTER_CS, _ESP, _EIP", ("sysenter_cs", "sysenter_esp", "sysenter_eip")),
    ("IA32_PAT, IA32_EFER", ("pat", "efer")),
    ("IA32_PERF_GLOBAL_CTRL, IA32_RTIT_CTL, IA32_LBR_CTL", ("perf_global_ctrl", "rtit_ctl", "lbr_ctl")),
    ("IA32_S_CET, IA32_INTERRUPT_SSP_TABLE_ADDR", ("s_cet", "interrupt_ssp_table")),
    ("IA32_PKRS, UINV, IA32_BNDCFGS", ("pkrs", "uinv", "bndcfgs")),
    ("blocking by STI", ("sti_blocking",)),
    ("SMI and NMI inhibits", ("smi_inhibit", "nmi_inhibit")),
    ("address-range monitoring", ("monitor_armed",)),
    ("current-VMCS pointer", ("current_vmcs",)),
)
"""Everything that a VMM could miss behind a call, in words."""


APART: Mapping[str, int] = {
    "rip": 0xFFFFFFFF81234560, "cr3": 0x7654000, "rflags": 0xAD7, "pat": 0x0007050100070501, "debugctl": 0x1C1,
    "perf_global_ctrl": 3, "s_cet": 5, "bndcfgs": 0x5003, "uinv": 0xE7, "es_ar": 0x40F3, "ds_ar": 0x40F1,
    "fs_ar": 0x40F7, "gs_ar": 0x40F5, "ldtr_ar": 0x82, "tr_ar": 0x8B,
}
"""Values that the architecture restricts; limits below 1 MiB go with access rights whose G is 0."""


def set_apart(lp: Lp) -> None:
    """Give every part of the caller's context a value of its own, as far as a VMM may have it."""
    fixed = {"cr0", "cr4", "efer", "cs_ar", "cs_limit", "ss_ar", "ss_limit", "pending_debug"}
    for number, row in enumerate(GUEST, 1):
        if row.lp not in fixed:
            setattr(lp, row.lp, (0x1008 if row.vmcs.size == 2 else 0x1000) + number * 8)
    for number, name in enumerate((*GPRS, "cr2", "cr8"), 1):
        if name not in ("rax", "rsp"):
            setattr(lp, name, 0xABC000 + number)
    for name, value in APART.items():
        setattr(lp, name, value)
    lp.sti_blocking = lp.monitor_armed = True


@dataclass(frozen=True, slots=True)
class Found:
    """What became of one group: which parts differ in SEAM, and which differ behind the call."""

    group: str
    in_SEAM: tuple[str, ...]
    behind: tuple[str, ...]


def call_and_compare(rax: int, *, keeps_vmcs: bool = False) -> list[Found]:
    """One completed call on the prepared platform: each group before it, in SEAM, and behind SEAMRET."""
    platform = lab.platform(keeps_vmcs=keeps_vmcs)
    lp = platform.lp(0)
    set_apart(lp)
    lp.rax = rax | 0x25

    def look() -> dict[str, Any]:
        return {name: getattr(lp, name) for _, names in GROUPS for name in names}

    before = look()
    entered = seamcall(platform, 0)
    assert isinstance(entered, Entered), entered
    inside = look()
    run(platform, 0)
    behind = look()
    return [
        Found(
            group,
            tuple(name for name in names if inside[name] != before[name]),
            tuple(name for name in names if behind[name] != before[name]),
        )
        for group, names in GROUPS
    ]


WHY = {
    "RIP": "software in SEAM moves it past SEAMCALL",
    "RAX": "the status",
    "RFLAGS": "SEAMCALL clears the arithmetic flags before it saves",
    "blocking by STI": "software in SEAM ends it with the instruction",
    "address-range monitoring": "exits and entries disarm it",
    "current-VMCS pointer": "lost behind P-SEAMLDR while IA32_VMX_BASIC[60] = 0",
}
"""Why a group is not as before."""

__all__ = ["Area", "Found", "GROUPS", "WHY", "call_and_compare", "guest_area", "host_area", "set_apart"]
