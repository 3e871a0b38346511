"""Where documents disagree, run both: one small experiment for each knob, on either side of it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from seamref.arch import lab, msr, smx
from seamref.arch.acm import ACM_HEADER
from seamref.arch.errata import BY_NUMBER, Erratum
from seamref.arch.events import EventKind, raise_event
from seamref.arch.lp import Activity
from seamref.arch.outcome import Fault
from seamref.arch.pconfig import pconfig
from seamref.arch.platform import Platform
from seamref.arch.revision import SILICON, Revision, SeamextendGate, SeamretVmcs
from seamref.arch.seam import seamcall
from seamref.arch.seamops import SeamopsLeaf, make_report, seamops
from seamref.arch.sgx import everifyreport2
from seamref.arch.software import call
from seamref.arch.structures import MKTME_KEY_PROGRAM, SEAMEXTEND
from seamref.arch.vmcs import get
from seamref.arch.vmx import current

LOADER = 1 << 63


@dataclass(frozen=True, slots=True)
class Demonstration:
    """An experiment whose answer depends on one knob: ``what`` is done, and the knob's value for the other reading."""

    number: int
    what: str
    other: Any
    run: Callable[[Revision], str]

    @property
    def erratum(self) -> Erratum:
        """The disagreement it shows."""
        return BY_NUMBER[self.number]

    def answers(self, base: Revision = SILICON) -> tuple[str, str]:
        """What happens by default, and with the other reading."""
        turned = replace(base, name=f"{base.name}, turned", **{self.erratum.knob: self.other})
        return self.run(base), self.run(turned)


def _said(outcome: Any) -> str:
    clause = getattr(outcome, "clause", "")
    return f"{outcome} ({clause})" if clause else str(outcome)


def _in_SEAM(revision: Revision, rax: int = 0) -> Platform:
    platform = lab.platform(revision=revision)
    platform.lp(0).rax = rax
    seamcall(platform, 0)
    return platform


def _guest_user(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.non_root, lp.cpl = True, 3
    return _said(seamcall(platform, 0))


def _td(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.inSEAM = lp.non_root = True
    return _said(seamcall(platform, 0))


def _p_seamldr_call(revision: Revision) -> str:
    return str(call(lab.platform(revision=revision), 0, rax=LOADER))


def _cached_after_module_call(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    call(platform, 0, rax=0)
    where = lab.SEAMRR.base + 0x1000
    return "transfer VMCS still cached" if where in platform.lp(0).vmcs_cache else "transfer VMCS written back"


def _mutex_after_failure(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lab.set_ready(platform, p_seamldr=False)
    platform.lp(0).rax = LOADER
    outcome = seamcall(platform, 0)
    held = platform.P_SEAMLDR_MUTEX
    return f"{outcome}, mutex {'free' if held is None else 'held for ever'}"


def _acm_toggles_valid(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    lp = platform.lp(0)
    lp.ACMODEFLAG = True
    return _said(msr.wrmsr(platform, 0, msr.SEAMRR_MASK, platform.msr_value(lp, msr.SEAMRR_MASK) & ~(1 << 11)))


def _unlocked(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    platform.lp(0).msrs[msr.SEAMRR_MASK] &= ~(1 << 10)
    return _said(seamcall(platform, 0))


def _bit3(revision: Revision) -> str:
    platform = Platform(revision=revision)
    return _said(msr.wrmsr(platform, 0, msr.SEAMRR_BASE, lab.SEAMRR.base | 8))


def _capabilities(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    platform.lp(0).rax = int(SeamopsLeaf.CAPABILITIES)
    seamops(platform, 0)
    return f"RAX = 0x{platform.lp(0).rax:X}"


def _wide_leaf(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    platform.lp(0).rax = 1 << 32 | int(SeamopsLeaf.CAPABILITIES)
    return _said(seamops(platform, 0))


def _report_version(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    report = make_report(platform, bytes(SEAMEXTEND.size), 0x81 | 1 << 16, bytes(48), bytes(64))
    status = everifyreport2(platform, 0, report)
    return _said(status) if isinstance(status, Fault) else status.name


def _pconfig(keyid: int) -> Callable[[Revision], str]:
    def run(revision: Revision) -> str:
        platform = lab.platform(revision=revision)
        platform.lp(0).rax = 0
        program = MKTME_KEY_PROGRAM.encode({"keyid": keyid, "keyid_ctrl": 1 | 1 << 8})
        status = pconfig(platform, 0, program)
        return _said(status) if isinstance(status, Fault) else f"{status.name}, RAX = {platform.lp(0).rax}"

    return run


def _tme_again(revision: Revision) -> str:
    return _said(msr.wrmsr(lab.platform(revision=revision), 0, msr.TME_ACTIVATE, 3))


def _late_acm(revision: Revision) -> str:
    platform = lab.platform(revision=revision)
    platform.bios_se_svn, platform.svn_locked = 5 << 56, True
    image = bytearray(ACM_HEADER.size)
    ACM_HEADER.poke(image, "SeSvn", 5)
    stale = smx.AcmState(platform, platform.lp(0), 0, bytes(image)).has_stale_svn()
    return "TXT shutdown (ENTERACCS.svn)" if stale else "the SVN rule lets it launch"


def _buffer_anywhere(revision: Revision) -> str:
    platform = _in_SEAM(revision, LOADER)
    return _said(msr.wrmsr(platform, 0, msr.SEAMEXTEND_MSR, 0x200000 | 1))


def _nmi_uninhibited(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    lp = platform.lp(0)
    lp.nmi_inhibit, lp.idtr_base = False, lab.CODE + 0x1000
    return str(raise_event(platform, 0, EventKind.NMI))


def _nmi_from_td(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    lp = platform.lp(0)
    lp.non_root, lp.nmi_inhibit = True, False
    outcome = raise_event(platform, 0, EventKind.NMI)
    return f"{outcome}, NMIs then {'blocked' if lp.nmi_inhibit else 'not blocked'}"


def _exit_word(revision: Revision) -> str:
    platform = _in_SEAM(revision)
    return f"exit reason 0x{get(current(platform.lp(0)).data, 'exit_reason'):X}"


def _enteraccs_without_seamrr(revision: Revision) -> str:
    platform = lab.platform(revision=revision, vmx=False)
    for id in platform.lps[1:]:
        platform.lp(id).activity = Activity.WAIT_FOR_SIPI
    platform.lp(0).msrs[msr.SEAMRR_MASK] = 0
    row = smx.ENTERACCS_FAULTS.decide(smx.EnteraccsState(platform, _with_module(platform)), revision)
    return "goes on; NP-SEAMLDR itself will refuse" if row is None else f"{row.result} ({row.id})"


def _with_module(platform: Platform) -> Any:
    lp = platform.lp(0)
    lp.rbx, lp.rcx = 0x100000, smx.SMALLEST + -smx.SMALLEST % 64
    return lp


def _command_buffer(revision: Revision) -> str:
    platform = _in_SEAM(revision, LOADER)
    return _said(msr.wrmsr(platform, 0, msr.SEAMEXTEND_MSR, lab.P_SEAMLDR_RANGE.base + 0x10000 | 1))


DEMONSTRATIONS: tuple[Demonstration, ...] = (
    Demonstration(1, "a legacy guest's user mode executes SEAMCALL", False, _guest_user),
    Demonstration(2, "a TD's kernel executes SEAMCALL", False, _td),
    Demonstration(3, "a call of P-SEAMLDR by a host with a current VMCS", SeamretVmcs.NEVER, _p_seamldr_call),
    Demonstration(4, "the processor's VMCS cache after a call of the module", True, _cached_after_module_call),
    Demonstration(5, "SEAMCALL to a P-SEAMLDR that is not loaded", False, _mutex_after_failure),
    Demonstration(7, "an ACM clears VALID while LOCK = 1", False, _acm_toggles_valid),
    Demonstration(8, "SEAMCALL with LOCK = 0, VALID = 1", True, _unlocked),
    Demonstration(9, "BIOS writes SEAMRR base with bit 3 set", False, _bit3),
    Demonstration(11, "SEAMOPS CAPABILITIES", 0x3, _capabilities),
    Demonstration(12, "SEAMOPS with RAX = 0x100000000", 32, _wide_leaf),
    Demonstration(15, "EVERIFYREPORT2 of a report with VERSION 1", (0,), _report_version),
    Demonstration(16, "PCONFIG of a private KeyID outside SEAM", False, _pconfig(33)),
    Demonstration(17, "WRMSR IA32_TME_ACTIVATE after the lock", True, _tme_again),
    Demonstration(18, "a late ACM whose SE SVN equals the reported one", False, _late_acm),
    Demonstration(22, "P-SEAMLDR gives a SEAMEXTEND buffer in host memory", True, _buffer_anywhere),
    Demonstration(23, "NMI in SEAM root, inhibit cleared by software", True, _nmi_uninhibited),
    Demonstration(24, "NMI while a TD runs", True, _nmi_from_td),
    Demonstration(27, "exit reason that software in SEAM finds", False, _exit_word),
    Demonstration(28, "GETSEC[ENTERACCS] while SEAMRR is disabled", True, _enteraccs_without_seamrr),
    Demonstration(30, "PCONFIG of a shared KeyID outside SEAM", True, _pconfig(1)),
    Demonstration(34, "P-SEAMLDR's WRMSR of MSR 0x1402", SeamextendGate.PHYSBASE, _command_buffer),
)
"""Exactly the errata that have a knob, in order."""
