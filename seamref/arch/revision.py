"""Where public sources disagree, the choice is a value.

A :class:`Revision` is a set of knobs with a name.  The named ones below follow one document or one measurement;
``SILICON`` (the default) is what shipped server parts do as far as anybody measured, else what the SDM and
343754-002 say.  ``dataclasses.replace`` turns one knob.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from seamref.errors import SeamrefError


class SeamretVmcs(Enum):
    """What SEAMRET from P-SEAMLDR does to the VMM's current VMCS (errata 3)."""

    NEVER = "keeps it"
    CLEARS = "flushes and clears it, the current-VMCS pointer becomes invalid"


class Integrity(Enum):
    """Memory integrity mode (HWL): logical, cryptographic, or access control only."""

    LI = "logical integrity"
    CI = "cryptographic integrity"
    AC = "access control"


class SeamextendGate(Enum):
    """Which register must say that processor reserved memory is protected before MSR 0x1402 works (errata 34)."""

    NONE = "no condition"
    PHYSMASK = "IA32_PRMRR_PHYS_MASK[11], VALID"
    PHYSBASE = "IA32_PRMRR_PHYS_BASE_0[11], a reserved bit"


class Denied(Enum):
    """What software outside SEAM gets from SEAMRR memory (an abort page says Intel in ISS25)."""

    ABORT_PAGE = "reads all ones, writes dropped"
    FAULT = "#GP(0)"


@dataclass(frozen=True, slots=True)
class Revision:
    """Knobs of the instruction set and the platform; the number is the row of the errata chapter.

    ``cpl_before_exit``         (1)  SEAMCALL and TDCALL test CPL before the VMX non-root exit
    ``inSEAM_means_root``       (2)  SEAMCALL's "#UD if inSEAM" means SEAM VMX *root* operation
    ``seamret_vmcs``            (3)  default for CPUs whose IA32_VMX_BASIC[60] is 0; bit 60 = 1 always keeps it
    ``seamret_clears_transfer`` (4)  SEAMRET from the module also VMCLEARs its transfer VMCS
    ``mutex_released``          (5)  SEAMRET and SEAMCALL's failure path release P_SEAMLDR_MUTEX
    ``seamrr_ac_unlock``        (7)  in authenticated-code mode WRMSR may toggle SEAMRR VALID though LOCK is 1
    ``seamrr_needs_all``        (8)  SEAMCALL wants CONFIGURED, LOCK and VALID instead of VALID alone
    ``base_bit3_configured``    (9)  bit 3 of IA32_SEAMRR_PHYS_BASE is CONFIGURED (else reserved)
    ``capabilities``           (11)  SEAMOPS CAPABILITIES bitmap
    ``seamops_leaf_bits``      (12)  bits of RAX that select the SEAMOPS leaf: 64 or 32
    ``svn2``                   (14)  SEAMREPORT carries TEE_TCB_SVN2 (TDX 1.5)
    ``verifyreport_versions``  (15)  REPORTTYPE versions that EVERIFYREPORT2 accepts
    ``pconfig_private_gp``     (16)  PCONFIG outside SEAM of a private KeyID is #GP(0) (else ZF=1, RAX=3)
    ``tme_locked_write_gp``    (17)  WRMSR IA32_TME_ACTIVATE after lock is #GP(0) (else ignored)
    ``svn_equal_allowed``      (18)  an ACM whose SE-SVN equals the reported one may launch after LOCK
    ``seamextend_anywhere``    (22)  IA32_SEAMEXTEND accepts buffers outside P_SEAMLDR_RANGE/ACRAM
    ``events_blocked``         (23)  SEAM root blocks every interrupt and software cannot un-inhibit
    ``nmi_blocked_after_td``   (24)  after an NMI exit from a TD the host finds NMIs still blocked
    ``exit_bit29``             (27)  SEAMCALL records bit 29 in the exit reason
    ``enteraccs_needs_seamrr`` (28)  ENTERACCS faults when SEAMRR is disabled
    ``pconfig_needs_seam``     (30)  PCONFIG cannot be executed outside SEAM at all
    ``seamextend_gate``        (34)  what must be set before IA32_SEAMEXTEND works
    ``integrity``                    Li, Ci or AC
    ``denied``                       what SEAMRR memory answers outside SEAM
    ``locked_se_svn_write_gp``       WRMSR BIOS_SE_SVN after lock is #GP(0) (else ignored)
    ``seamops_served``               bitmap of the SEAMOPS leaves that work, where it is not ``capabilities``
    ``seamret_needs_current``        SEAMRET works on the current VMCS (else on the one that SEAMCALL used)
    ``orders``                       check table -> ids of the rows that are asked, in that order, where an
                                     implementation leaves rows out or asks them in another order (see
                                     :mod:`seamref.arch.peers`); a table not named has its own rows
    """

    name: str
    cpl_before_exit: bool = True
    inSEAM_means_root: bool = True
    seamret_vmcs: SeamretVmcs = SeamretVmcs.CLEARS
    seamret_clears_transfer: bool = False
    mutex_released: bool = True
    seamrr_ac_unlock: bool = True
    seamrr_needs_all: bool = False
    base_bit3_configured: bool = True
    capabilities: int = 0x7F
    seamops_leaf_bits: int = 64
    svn2: bool = True
    verifyreport_versions: tuple[int, ...] = (0, 1)
    pconfig_private_gp: bool = True
    tme_locked_write_gp: bool = False
    svn_equal_allowed: bool = True
    seamextend_anywhere: bool = False
    events_blocked: bool = False
    nmi_blocked_after_td: bool = False
    exit_bit29: bool = True
    enteraccs_needs_seamrr: bool = False
    pconfig_needs_seam: bool = False
    seamextend_gate: SeamextendGate = SeamextendGate.PHYSMASK
    integrity: Integrity = Integrity.LI
    denied: Denied = Denied.ABORT_PAGE
    locked_se_svn_write_gp: bool = False
    seamops_served: int | None = None
    seamret_needs_current: bool = True
    orders: tuple[tuple[str, tuple[str, ...]], ...] = ()


SILICON = Revision("silicon")
"""Measured on SPR and EMR where somebody did, else SDM and 343754-002: the default."""

SDM = replace(SILICON, name="SDM")
"""The SDM's order of checks; it differs from silicon in nothing that SEAMCALL looks at."""

REV_343754_002 = replace(
    SILICON,
    name="343754-002",
    cpl_before_exit=False,
    inSEAM_means_root=False,
    capabilities=0x3,
    svn2=False,
    verifyreport_versions=(0,),
    pconfig_private_gp=False,
    seamrr_ac_unlock=False,
    seamextend_gate=SeamextendGate.NONE,
)
"""The pseudo-code of the May 2021 document as printed."""

REV_343754_001 = replace(REV_343754_002, name="343754-001", seamret_vmcs=SeamretVmcs.NEVER)
"""The 2020 document: as -002 here, but SEAMRET never touches the VMM's current VMCS."""

REVISIONS: dict[str, Revision] = {r.name: r for r in (SILICON, SDM, REV_343754_002, REV_343754_001)}


def get_revision(name: str) -> Revision:
    """A revision by name; an unknown name is an error that lists the known ones."""
    try:
        return REVISIONS[name]
    except KeyError:
        raise SeamrefError(f"no revision {name!r}; there are {', '.join(REVISIONS)}") from None
