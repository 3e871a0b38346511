"""From the entry point to the main flow: 32-bit start, paging, 64-bit prologue."""

from __future__ import annotations

from seamref.arch import msr
from seamref.arch.lp import CR0_NE, CR0_PE, CR0_PG, CR0_WP, CR4_PAE, CR4_SMXE, EFER_LMA, EFER_LME, EFER_NXE
from seamref.arch.smx import txt_sts
from seamref.firmware.np_seamldr.checks import NP_BIOS_DONE, NP_COOKIE, NP_ENTRY, NP_PRIVATE_SPACE, NP_RESUME, demand
from seamref.firmware.np_seamldr.state import COOKIE_TRIES, PAT, SEAMLDR64, START, Np
from seamref.spec import MEASURED, implements


@implements("NP_SEAMLDR.idt", "the caller's IDTR is kept, a null IDT is loaded: every fault is fatal", START, MEASURED)
def save_idt(np: Np) -> None:
    """NP_SEAMLDR.idt; then EAX must still say ENTERACCS."""
    np.set(idtr_limit=np.lp.idtr_limit)
    np.lp.idtr_base = np.lp.idtr_limit = 0
    demand(np, NP_ENTRY)


@implements("NP_SEAMLDR.se_svn", "BIOS_SE_SVN[63:56] := the header's SE SVN, [7:0] := 0; before any check that could "
            "refuse, and never undone", START, MEASURED)
def write_se_svn(np: Np) -> None:
    """NP_SEAMLDR.se_svn: the only record of P-SEAMLDR's identity."""
    kept = np.rdmsr(msr.BIOS_SE_SVN) & 0x00FFFFFFFFFFFF00
    np.wrmsr(msr.BIOS_SE_SVN, kept | (np.header_se_svn & 0xFF) << 56)


@implements("NP_SEAMLDR.wait_for_bios", "BIOS must have said that it trusts nothing any more", START, MEASURED)
def check_bios_done(np: Np) -> None:
    """NP_SEAMLDR.wait_for_bios."""
    demand(np, NP_BIOS_DONE)


@implements("NP_SEAMLDR.save", "registers, CR3, CR4, selectors, limits: R8 to R12 stay in registers", START, MEASURED)
def save_state(np: Np) -> None:
    """NP_SEAMLDR.save: after the module has relocated itself (a minted module has no 32-bit fix-ups)."""
    lp = np.lp
    cs, gdtr_limit = lp.rcx & 0xFFFF, lp.rcx >> 16 & 0xFFFF
    names = ("es_selector", "fs_selector", "gs_selector", "ss_selector")
    np.set(cr3=lp.cr3, cr4=lp.cr4, gdtr_limit=gdtr_limit,
           selectors=tuple(s & 0x0FF8 for s in (cs, *(getattr(lp, n) for n in names))))


@implements("NP_SEAMLDR.open_txt", "poll TXT.STS until the private space answers", START, MEASURED)
def wait_for_txt(np: Np) -> None:
    """NP_SEAMLDR.open_txt."""
    demand(np, NP_PRIVATE_SPACE)


@implements("NP_SEAMLDR.cookie_32", "up to 10 tries of RDSEED for the stack cookie", "NPS Core/Common/GsSupport.c",
            MEASURED)
def make_cookie(np: Np, bits: int) -> None:
    """NP_SEAMLDR.cookie_32: the cookie of one of the two stacks, of 32 or 64 bits: RDSEED's operand is as wide."""
    for _ in range(COOKIE_TRIES):
        carry, value = np.platform.rdrand("rdseed")
        np.set(cookie=(carry, value & (1 << bits) - 1))
        if np.state.cookie[0]:
            break
    demand(np, NP_COOKIE)


@implements("NP_SEAMLDR.paging", "own page tables (the module 1:1), PAT, LME and NXE, PG and WP, 4 or 5 levels by "
            "the caller's CR4.LA57", "NPS Core/Common/AcmPaging.c", MEASURED)
def turn_on_paging(np: Np) -> None:
    """NP_SEAMLDR.paging: into 64-bit mode.  The module's own tables are counted, not kept as bytes."""
    lp = np.lp
    lp.cr4 |= CR4_PAE | CR4_SMXE
    lp.cr0 = CR0_PE | CR0_NE
    make_cookie(np, 32)
    np.wrmsr(msr.PAT, PAT)
    lp.cr3 = lp.acram_base
    np.wrmsr(msr.EFER, lp.efer | EFER_LME | EFER_NXE)
    lp.cr0 |= CR0_PG | (0 if np.is_10 else CR0_WP)
    lp.efer |= EFER_LMA
    lp.cs_selector, lp.cs_l = 0x18, True


# --- 64-bit prologue


@implements("NP_SEAMLDR.prologue", "a new cookie; TPM locality 3 closed; TXT private space closed unless after SENTER",
            SEAMLDR64, MEASURED)
def enter_64bit(np: Np) -> None:
    """NP_SEAMLDR.prologue; then the resume RIP must be canonical."""
    make_cookie(np, 64)
    txt = np.platform.txt
    np.set(maps_4k=np.state.maps_4k + 1)  # the MMIO page
    txt.pop("LOCALITY3", None)
    np.set(post_senter=bool(txt_sts(np.platform) & 1))
    if not np.state.post_senter:
        txt.pop("PRIVATE_SPACE", None)
    demand(np, NP_RESUME)
