"""The way out, on every path."""

from __future__ import annotations

from seamref.arch import msr
from seamref.arch.lp import CR0_WP, CR4_LA57, CR4_PAE, CR4_PGE, CR4_SMXE, RFLAGS_RESET
from seamref.arch.smx import ExitedAc, exitac
from seamref.arch.software import Ud2
from seamref.firmware.np_seamldr.checks import NP_TEMP_GDT, demand
from seamref.firmware.np_seamldr.state import CORE, SEAMLDR64, Np
from seamref.spec import MEASURED, implements


@implements("NP_SEAMLDR.restore",
            "on every path: IA32_MISC_ENABLE back; if SEAMRR was opened: the mutex, if this run took "
            "it, := 0, then VALID := 1; BIOS_SIGN_ID back", CORE, MEASURED)
def restore(np: Np) -> None:
    """NP_SEAMLDR.restore: what every path of the main flow ends with."""
    state = np.state
    np.wrmsr(msr.MISC_ENABLE, state.misc_enable)
    if state.unlocked:
        if state.mutex_taken:
            np.put_table("np_seamldr_mutex", 0)
        np.wrmsr(msr.SEAMRR_MASK, state.mask | msr.SEAMRR_VALID)
    np.wrmsr(msr.BIOS_SIGN_ID, state.bios_sign_id)


@implements("NP_SEAMLDR.epilogue",
            "locality 2 reopened after SENTER; R9 status, R8 the caller's CR3, RBX resume RIP, the "
            "other registers 0; of CR4 only LA57 and PGE of the caller's; EXITAC", SEAMLDR64, MEASURED)
def leave(np: Np) -> ExitedAc:
    """NP_SEAMLDR.epilogue: poor state, and one register that says something."""
    lp, state = np.lp, np.state
    demand(np, NP_TEMP_GDT)
    if state.post_senter:
        np.platform.txt["LOCALITY2"] = 1
    lp.gdtr_base, lp.gdtr_limit = lp.r9, state.gdtr_limit
    lp.idtr_base, lp.idtr_limit = lp.r12, state.idtr_limit
    if not np.is_10:
        cs, es, fs, gs, ss = state.selectors
        lp.cs_selector, lp.ds_selector, lp.es_selector = cs, es, es
        lp.fs_selector, lp.gs_selector, lp.ss_selector = fs, gs, ss
        lp.cr0 &= ~CR0_WP
    lp.cr4 = state.cr4 & (CR4_LA57 | CR4_PGE) | CR4_SMXE | CR4_PAE
    lp.rflags = RFLAGS_RESET
    lp.rbx, lp.r8, lp.r9, lp.rdx = lp.r10, lp.r11, state.status, 0
    kept = ("rsi", "rdi") if np.is_10 else ()
    for name in ("rcx", "rsi", "rdi", "rbp", "rsp", "r10", "r11", "r12", "r13", "r14", "r15"):
        if name not in kept:
            setattr(lp, name, 0)
    outcome = exitac(np.platform, lp.id)
    if not isinstance(outcome, ExitedAc):
        raise Ud2(f"GETSEC[EXITAC] came back: {outcome}; the code jumps to itself for ever")
    return outcome
