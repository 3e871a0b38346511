"""What a failed SEAMCALL means: cause and advice from leaf, status, operand, module version and situation.

The same status means different things behind different leaves, and the same INSTALL failure means "nothing happened"
to P-SEAMLDR and "reboot" to Linux, which has shut the running module down before.  :data:`CALLS` is the ordered table
of what is known; the first row that fits gives the answer, and a call that fits none is answered by its status alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from seamref.diagnose.msrs import describe, owner_of
from seamref.diagnose.names import (
    BIT63,
    KERNEL,
    LOADER,
    MODULE,
    LeafName,
    leaf_of,
    module_status,
)
from seamref.diagnose.reading import Explanation, Kind, Stated
from seamref.diagnose.values import explain_module, explain_pseamldr, explain_software
from seamref.host.abi import Leaf
from seamref.pseamldr.api import Leaf as LoaderLeaf
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.tdxmodule.status import Operand
from seamref.tdxmodule.status import Status as S

Version = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Situation:
    """What earlier lines of the same log said.

    ``module`` version (major, minor[, update]) of the running module, ``None``: not said; ``module_text`` as the line
    named it.  ``updating``: a line of an update came before.  ``call``: the call whose registers may follow.
    """

    module: Version | None = None
    module_text: str = ""
    kernel: str = ""
    updating: bool = False
    call: FailedCall | None = None


@dataclass(frozen=True, slots=True)
class FailedCall:
    """A SEAMCALL that a line says has failed.

    ``rax`` the leaf as called, ``status`` RAX as returned.  ``cpu`` where the line names it.  ``linux``: a line of the
    Linux kernel, whose order of events is known.  ``registers`` RCX and so on, from lines that followed.
    """

    rax: int
    status: int
    cpu: int | None = None
    linux: bool = True
    said: str = "SEAMCALL failed"
    registers: tuple[tuple[str, int], ...] = ()

    @property
    def leaf(self) -> LeafName | None:
        """Which leaf."""
        return leaf_of(self.rax)

    @property
    def number(self) -> int:
        """The leaf's number without its version; -1 when RAX names none."""
        return -1 if self.leaf is None else self.leaf.number

    @property
    def code(self) -> S | None:
        """The module's status code; ``None`` for P-SEAMLDR's or an unknown one."""
        return None if self.rax & BIT63 else module_status(self.status)

    @property
    def details(self) -> int:
        """The low half of the status."""
        return self.status & 0xFFFFFFFF

    def register(self, name: str) -> int | None:
        """A register of the continuation lines."""
        return dict(self.registers).get(name)


@dataclass(frozen=True, slots=True)
class Advice:
    """One row of knowledge.  Unset conditions hold always; ``when`` looks at the call and the situation."""

    id: str
    cause: str
    advice: str
    recoverable: str
    leaves: frozenset[int] = frozenset()
    statuses: frozenset[int] = frozenset()
    when: Callable[[FailedCall, Situation], bool] = lambda call, at: True
    clauses: tuple[str, ...] = ()
    more: Callable[[FailedCall, Situation], str] = lambda call, at: ""

    def fits(self, call: FailedCall, at: Situation) -> bool:
        """Whether the row speaks about this call."""
        code = call.status if call.rax & BIT63 else (-1 if call.code is None else int(call.code))
        return ((not self.leaves or call.number in self.leaves) and (not self.statuses or code in self.statuses)
                and self.when(call, at))


# --- conditions ---------------------------------------------------------------------------------------------


def brings_up(call: FailedCall, at: Situation) -> bool:
    """A leaf that a module of line 1.5 serves before it is ready: "not ready" from it means that it is not there."""
    import seamref.tdxmodule.program  # noqa: F401  declares the leaves
    from seamref.tdxmodule.core import LEAVES

    found = LEAVES.get(call.number)
    return found is not None and found.before_ready and call.number in NOT_IN_1_0


NOT_IN_1_0 = frozenset({int(Leaf.TDH_SYS_RD), 37, int(Leaf.TDH_SYS_UPDATE), int(Leaf.TDH_SYS_SHUTDOWN)})
"""Leaves that came with line 1.5: TDH.SYS.RD, RDALL, UPDATE, SHUTDOWN."""
OLD_LINE: Version = (1, 4)


def _old_or_unsaid(call: FailedCall, at: Situation) -> bool:
    return brings_up(call, at) and (at.module is None or at.module[:2] <= OLD_LINE)


def _contradicted(call: FailedCall, at: Situation) -> bool:
    return brings_up(call, at) and at.module is not None and at.module[:2] > OLD_LINE


def _operand(operand: Operand) -> Callable[[FailedCall, Situation], bool]:
    return lambda call, at: call.details == operand


def _owner(*owners: str) -> Callable[[FailedCall, Situation], bool]:
    return lambda call, at: owner_of(call.details) in owners


def _in_update(call: FailedCall, at: Situation) -> bool:
    return call.linux and at.updating


def _linux(call: FailedCall, at: Situation) -> bool:
    return call.linux


def _module(call: FailedCall, at: Situation) -> str:
    return f"the log names the module: {at.module_text}" if at.module_text else ""


def _msr(call: FailedCall, at: Situation) -> str:
    return describe(call.details)


def _cpuid(call: FailedCall, at: Situation) -> str:
    rcx = call.register("rcx")
    if rcx is None:
        return "RCX is not in these lines: the kernel prints it where it calls with seamcall_ret"
    leaf, subleaf = rcx & 0xFFFFFFFF, rcx >> 32
    shown = "none" if subleaf == 0xFFFFFFFF else f"0x{subleaf:X}"
    return f"RCX 0x{rcx:x}: CPUID leaf 0x{leaf:X}, subleaf {shown}"


def _field(call: FailedCall, at: Situation) -> str:
    rdx = call.register("rdx")
    return "" if rdx is None else f"RDX 0x{rdx:016x} is the field that was asked for"


# --- the table ----------------------------------------------------------------------------------------------

_L = LoaderLeaf
INSTALL = frozenset({int(_L.INSTALL)})
BRING_UP = frozenset({int(Leaf.TDH_SYS_INIT), int(Leaf.TDH_SYS_LP_INIT)})
UPDATE = frozenset({int(Leaf.TDH_SYS_UPDATE)})
SHUTDOWN = frozenset({int(Leaf.TDH_SYS_SHUTDOWN)})
REBOOT = "no: Linux has shut the running module down before this call; TDs are lost, no second update can begin"


def _codes(*names: S) -> frozenset[int]:
    return frozenset(int(name) for name in names)


_HOST = ("the host's state decides here, not the status: tdx_module_shutdown() came before it",)

CALLS: tuple[Advice, ...] = (
    # An update as Linux does it: whatever P-SEAMLDR says of its own state, the old module was shut down before.
    Advice("CALL.install", "the update failed in SEAMLDR.INSTALL, after Linux had shut the running module down",
           "reboot; then correct the file or the platform (python -m seamref verify names the row) before the next "
           "update", REBOOT, INSTALL, when=_linux, clauses=("UPDATE.states", "UPDATE.forget")),
    Advice("CALL.update", "the new module is installed and did not take the old one's state over",
           "reboot; compare the handoff versions of both modules first", REBOOT, UPDATE, when=_linux,
           clauses=("UPDATE.run_update",)),
    Advice("CALL.init_in_update", "the new module was installed by the update and cannot be brought up", "reboot",
           REBOOT, BRING_UP, when=_in_update, clauses=("LNX.tdx_cpu_enable",)),
    Advice("CALL.sensitive", "a TD is being built or migrated: the module refuses to shut down", "let that finish, "
           "then upload again", "yes: the module still runs", SHUTDOWN, _codes(S.TDX_UPDATE_COMPAT_SENSITIVE)),
    Advice("CALL.shutdown_version", "the handoff version asked for is out of the module's range, or RCX[16] is set on "
           "a module without TDX_FEATURES0 bit 47", "take a kernel that asks by MODULE_HV", "yes: the module still "
           "runs",
           SHUTDOWN, _codes(S.TDX_OPERAND_INVALID), when=_operand(Operand.RCX)),
    Advice("CALL.shutdown_busy", "a processor is inside the module, a running TD included",
           "upload again", "yes: the module still runs", SHUTDOWN, _codes(S.TDX_SYS_BUSY)),
    Advice("CALL.info", "P-SEAMLDR refused SEAMLDR.INFO; the running module is not touched by it",
           "read the attribute again; a status other than busy is a kernel or loader error",
           "yes: nothing was changed", frozenset({int(_L.INFO)})),
    # The module is of another age than the kernel.
    Advice("CALL.too_old", "this module has no such leaf before it is ready: it is of line 1.0, too old for this "
           "kernel", "install a TDX module of line 1.5 or later (BIOS setting, or EFI/TDX on the EFI partition); "
           "nothing was updated, nothing is half done", "no: another module is needed", NOT_IN_1_0,
           _codes(S.TDX_SYS_NOT_READY), when=_old_or_unsaid, clauses=("DISPATCH.not_ready",), more=_module),
    Advice("CALL.not_ready_unclear", "a module of this line serves the leaf before it is ready, so the two lines "
           "contradict each other", "not known; check that both lines are of one boot", "not known", NOT_IN_1_0,
           _codes(S.TDX_SYS_NOT_READY), when=_contradicted, clauses=("DISPATCH.not_ready",), more=_module),
    Advice("CALL.not_ready", "the module was not initialised to the end: the first failure before this line says why",
           "look for the earlier line", "no, not by the same call", statuses=_codes(S.TDX_SYS_NOT_READY),
           clauses=("DISPATCH.not_ready",)),
    Advice("CALL.field", "the kernel asks for a field that this module does not have: the kernel is newer than the "
           "module", "take a newer module, or the kernel that belongs to this one", "no: another module or kernel",
           frozenset({int(Leaf.TDH_SYS_RD), 37}), _codes(S.TDX_METADATA_FIELD_ID_INCORRECT),
           more=lambda call, at: "; ".join(filter(None, (_field(call, at), _module(call, at))))),
    Advice("CALL.no_leaf", "operand RAX: this module has no such leaf, or not in that version", "take a module that "
           "has it: the caller is newer than the module", "no: another module", statuses=_codes(S.TDX_OPERAND_INVALID),
           when=_operand(Operand.RAX), clauses=("DISPATCH.leaf", "DISPATCH.version"), more=_module),
    Advice("CALL.was_shut_down", "the module was shut down (TDH.SYS.SHUTDOWN) and no update came to its end",
           "reboot", "no", statuses=_codes(S.TDX_SYS_SHUTDOWN), clauses=("DISPATCH.shutdown",)),
    Advice("CALL.init_twice", "the module was initialised before this kernel started: a kernel before it (kexec, "
           "kdump) did that", "boot through the firmware; a module with TDH.SYS.DISABLE lets a kernel give it back",
           "no: only a reset undoes TDH.SYS.INIT", frozenset({int(Leaf.TDH_SYS_INIT)}),
           _codes(S.TDX_SYS_INIT_NOT_PENDING)),
    # Platform checks of TDH.SYS.INIT and LP.INIT: whose register is it?
    Advice("CALL.msr_os", "an MSR that the operating system owns has a value the module refuses: no BIOS setting "
           "changes it", "look for what writes it (kernel command line, microcode, a tool with wrmsr)",
           "yes, once the MSR is as demanded", statuses=_codes(S.TDX_INCORRECT_MSR_VALUE), when=_owner("os"),
           more=_msr),
    Advice("CALL.msr_cpu", "a read-only MSR tells of a capability that the module demands: microcode or the part "
           "itself", "update BIOS and microcode, or take a module for this processor", "no, not by a retry",
           statuses=_codes(S.TDX_INCORRECT_MSR_VALUE), when=_owner("cpu"), more=_msr),
    Advice("CALL.msr_bios", "an MSR that BIOS sets has a value the module refuses", "change the BIOS setting that "
           "owns it, or update the BIOS", "no: a reset is needed", statuses=_codes(S.TDX_INCORRECT_MSR_VALUE),
           when=_owner("bios"), more=_msr),
    Advice("CALL.msr_unknown", "an MSR has a value the module refuses; who sets that MSR is not known here",
           "look the MSR up", "not known", statuses=_codes(S.TDX_INCORRECT_MSR_VALUE), more=_msr),
    Advice("CALL.msr_differs", "an MSR differs between this processor and the first: microcode, BIOS, or software "
           "wrote it on some processors only", "load the same microcode everywhere; do not write it by hand",
           "yes, once all agree", statuses=_codes(S.TDX_INCONSISTENT_MSR), more=_msr),
    Advice("CALL.cpuid", "CPUID of this processor is not as the module demands: BIOS or microcode is older than the "
           "module, or a feature is switched off in BIOS", "update the BIOS; set its options for TDX and SGX as the "
           "vendor says", "no: a reset is needed", BRING_UP, _codes(
               S.TDX_INCORRECT_CPUID_VALUE, S.TDX_INCONSISTENT_CPUID_FIELD, S.TDX_CPUID_LEAF_NOT_SUPPORTED,
               S.TDX_CPUID_MAX_SUBLEAVES_UNRECOGNIZED, S.TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED,
               S.TDX_LIMIT_CPUID_MAXVAL_SET)),
    Advice("CALL.smrr", "BIOS left SMRR in a state that the module refuses", "update the BIOS", "no: a reset is needed",
           BRING_UP, _codes(S.TDX_SMRR_NOT_LOCKED, S.TDX_INVALID_SMRR_CONFIGURATION, S.TDX_SMRR_OVERLAPS_CMR,
                            S.TDX_SMRR_LOCK_NOT_SUPPORTED, S.TDX_SMRR_NOT_SUPPORTED)),
    Advice("CALL.memory", "the memory map that the kernel hands over does not fit the CMRs that BIOS reported",
           "compare the CMR lines with e820; update kernel and BIOS", "no, not by a retry",
           frozenset({int(Leaf.TDH_SYS_CONFIG)}), _codes(
               S.TDX_INVALID_TDMR, S.TDX_NON_ORDERED_TDMR, S.TDX_TDMR_OUTSIDE_CMRS, S.TDX_INVALID_PAMT,
               S.TDX_PAMT_OUTSIDE_CMRS, S.TDX_PAMT_OVERLAP, S.TDX_INVALID_RESERVED_IN_TDMR,
               S.TDX_NON_ORDERED_RESERVED_IN_TDMR)),
    Advice("CALL.key", "no entropy for a memory key", "call again; if it stays, the part or its microcode is at fault",
           "yes", statuses=_codes(S.TDX_KEY_GENERATION_FAILED)),
    # TDs.
    Advice("CALL.cpuid_config", "a CPUID value of TD_PARAMS is not one the module lets a VMM choose: RCX names leaf "
           "and "
           "subleaf", "let the VMM (QEMU: -cpu) ask for what KVM_TDX_CAPABILITIES offers", "yes, with other values",
           frozenset({21}), _codes(S.TDX_OPERAND_INVALID), when=_operand(Operand.CPUID_CONFIG), more=_cpuid),
    Advice("CALL.td_params", "a field of TD_PARAMS is not acceptable to this module", "compare it with what the module "
           "reports (ATTRIBUTES, XFAM fixed bits, features)", "yes, with other values", frozenset({21}),
           _codes(S.TDX_OPERAND_INVALID)),
)


def advise(call: FailedCall, at: Situation) -> Advice | None:
    """The first row that fits."""
    return next((row for row in CALLS if row.fits(call, at)), None)


def explain_call(call: FailedCall, at: Situation) -> list[Explanation]:
    """Two readings: the call with what its caller makes of it, then the status as the callee means it."""
    leaf = call.leaf
    who = LOADER if call.rax & BIT63 else MODULE
    where = "" if call.cpu is None else f" on CPU {call.cpu}"
    what = f"{leaf or f'leaf 0x{call.rax:X} (not known)'} of {who}{where} returned 0x{call.status:016x}"
    if call.linux:
        what += "; the caller got -EIO"
    stated = [Stated("leaf", call.rax, ""), Stated("status", call.status, "")]
    own = explain_software(call.status) or (
        explain_pseamldr(call.status) if call.rax & BIT63 else explain_module(call.status))
    own = [_narrow(e, call) for e in own]
    row = advise(call, at)
    head = Explanation(what, KERNEL if call.linux else call.said, ("PRERR.other",) if call.linux else (),
                       kind=Kind.CAUSE, form="LOG.seamcall_failed", stated=tuple(stated))
    if row is not None:
        more = row.more(call, at)
        head = replace(head, clauses=(*head.clauses, *row.clauses), recoverable=row.recoverable, advice=row.advice,
                       causes=(row.cause, *((more,) if more else ())), form=row.id)
        if own and row.id.startswith(("CALL.install", "CALL.update", "CALL.init_in_update")):
            own = [replace(e, recoverable=f"for {who} alone: {e.recoverable}",
                           advice="the line above comes first: " + row.advice.split(";")[0]) for e in own]
        elif own:
            own = [replace(e, causes=(), advice="", recoverable="") for e in own]
    elif own:
        head = replace(head, recoverable=own[0].recoverable)
    unknown = Explanation(f"0x{call.status:016X}  no status that {who} is known to return", who)
    return [head, *(replace(e, stated=()) for e in own or [unknown])]


def _narrow(said: Explanation, call: FailedCall) -> Explanation:
    """Of the check rows that give a status, those of the leaf that was called, where it has any."""
    name = "" if call.leaf is None else call.leaf.name.removeprefix("TDH.").removeprefix("SEAMLDR.")
    mine = tuple(row for row in said.clauses if name and row.startswith(f"{name}."))
    return replace(said, clauses=mine) if mine else said


def names_leaf(call: FailedCall) -> str:
    """The leaf for a sentence."""
    return str(call.leaf) if call.leaf else f"leaf 0x{call.rax:X}"


def status_text(value: int, loader: bool) -> str:
    """A status by name, whoever's."""
    if loader:
        return LoaderStatus(value).name if value in LoaderStatus._value2member_map_ else f"0x{value:x}"
    found = module_status(value)
    return found.name if found is not None else f"0x{value:x}"


def registers_of(pairs: dict[str, Any]) -> tuple[tuple[str, int], ...]:
    """Names and numbers of a continuation line."""
    return tuple((name.lower().replace("r08", "r8").replace("r09", "r9"), int(value, 16))
                 for name, value in pairs.items())
