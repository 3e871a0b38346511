"""Every reading of a 64-bit number: P-SEAMLDR's, NP-SEAMLDR's and the module's statuses, the kernel's own, leaves.

Status names, classes and check rows are read from where the components declare them; only causes and advice for people
stand here.  A number alone can have several readings (P-SEAMLDR and NP-SEAMLDR share values, and a leaf number looks
like a status): all of them are given.  What a call in a log means is :mod:`seamref.diagnose.calls`.
"""

from __future__ import annotations

from importlib import import_module

from seamref.diagnose.names import (
    BIT63,
    CPU,
    KERNEL,
    LOADER,
    M64,
    MODULE,
    NP_LOADER,
    is_software_status,
    leaf_of,
)
from seamref.diagnose.reading import Explanation, Stated
from seamref.errors import SeamrefError
from seamref.host.abi import TDX_SEAMCALL_GP, TDX_SEAMCALL_UD, TDX_SEAMCALL_VMFAILINVALID
from seamref.spec import TABLES

__all__ = ["CPU", "explain_leaf", "explain_module", "explain_np_seamldr", "explain_pseamldr", "explain_value"]

# --- what people want to know of each P-SEAMLDR status -------------------------------------------------------

_AFTER = ("INSTALL's RDX says it: 0, the module that was loaded is as it was; 1, none is loaded. Linux has shut the "
          "old module down before it calls, so for Linux every failed INSTALL ends in a reboot")
_PSEAMLDR: dict[str, tuple[tuple[str, ...], str, str]] = {
    "SUCCESS": ((), "", "nothing"),
    "EBADPARAM": (
        ("unknown leaf", "RCX not aligned, not below MAXPA, inside SEAMRR, or with a TDX KeyID",
         "a field of SEAMLDR_PARAMS", "UPDATE while no module is ready (RDX = 0)",
         "ELF header or relocation of the image, after memory was wiped (RDX = 1)"),
        _AFTER, "check SEAMLDR_PARAMS and the image; after RDX = 1 only LOAD can follow"),
    "EBADCALL": (
        ("INSTALL twice on one processor in a session", "a SHUTDOWN of P-SEAMLDR has begun",
         "UPDATE to another major SVN", "UPDATE with num_remaining_updates = 0 (a reset restores it)",
         "last SHUTDOWN call on the wrong processor"),
        "yes (RDX = 0): nothing was changed", "read SEAMLDR.INFO; compare major SVNs; finish or restart the session"),
    "EBADHANDOFF": (
        ("the old module left no valid handoff data", "its handoff version is not in the new module's range",
         "its data are larger than the handoff pages"),
        "yes (RDX = 0) for P-SEAMLDR; the old module is shut down all the same",
        "another module may still take the data over; Linux does not try, reboot"),
    "ENOMEM": (
        ("the module's regions do not fit into SEAMRR (RDX = 0)", "page tables ran into the data region (RDX = 1)"),
        _AFTER, "a larger SEAMRR (BIOS), fewer processors, or a smaller module"),
    "EUNSPECERR": (
        ("RDRAND gave nothing for the stack canary (RDX unchanged)", "x2APIC id of 1024 or more"),
        "yes: nothing was changed", "call again; with such an id the platform is not supported"),
    "EUNSUPCPU": (
        ("a package's CPUID.1:EAX is not in the sigstruct's table (steppings are ignored)",),
        "yes (RDX = 0)", "take a module for this processor: python -m seamref plan"),
    "EBADSIG": (
        ("a field of the sigstruct", "the signing key is not the one compiled in", "a debug module on a locked part",
         "minor SVN lower than the running module's", "the RSA signature itself"),
        "yes (RDX = 0)", "python -m seamref verify names the row"),
    "EBADHASH": (
        ("SHA-384 over the image in SEAM memory is not SEAMHASH",),
        "no (RDX = 1): the old module's memory is gone", "LOAD a good image; Linux: reboot"),
    "EINTERRUPT": (("defined, returned by no published version",), "yes", "call again"),
    "ENOENTROPY": (
        ("RDRAND failed while the address layout was drawn (RDX = 0)",
         "SEAMDB insertion found no entropy five times (RDX = 1)"),
        "RDX = 0: call again; RDX = 1: the new module is complete but not ready",
        "merged Linux does not retry this status (v1 to v3 did): reboot"),
}

_NP: dict[str, str] = {
    "EBADPARAM": "number of sockets, embedded image larger than its region, or relocation",
    "EMODBUSY": "wrong processor for a reload, or P-SEAMLDR or a module is still ready",
    "ELDRINPROG": "another NP-SEAMLDR runs",
    "EBADRANGE": "SEAMRR not valid or larger than 1 GiB",
    "EBADPLATF": "packages differ in family and model, or P_SYS_INFO_TABLE has another version",
    "ENOMEM": "page tables or P_SEAMLDR_RANGE too small",
    "EUNSPECERR": "RDSEED gave nothing",
}


_MODULE_ADVICE: dict[str, tuple[tuple[str, ...], str]] = {
    "TDX_SYS_BUSY": (("another processor is in a call that excludes this one",
                      "SHUTDOWN while a processor is inside the module, a running TD included"), "call again"),
    "TDX_RND_NO_ENTROPY": (("RDRAND gave nothing",), "Linux has called 10 times already; call again later"),
    "TDX_SYS_SHUTDOWN": (("TDH.SYS.SHUTDOWN was done and no update followed",),
                         "install a module; Linux: reboot"),
    "TDX_SYS_NOT_READY": (("from a leaf that brings a module up, such as TDH.SYS.RD: this module does not have it "
                           "(too old)", "from any other leaf: the module was not initialised to the end"),
                          "give the whole line: the leaf decides"),
    "TDX_SYS_STATE_INCORRECT": (("TDH.SYS.UPDATE before every processor did LP.INIT (an offline CPU)", ),
                                "bring every CPU online and start again from a reset"),
    "TDX_SYS_INVALID_HANDOFF": (("the handoff data are not valid, or of a version the new module does not read",),
                                "another module may read them; Linux: reboot"),
    "TDX_UPDATE_COMPAT_SENSITIVE": (("a TD is being built or migrated",), "finish or abandon that, then retry"),
    "TDX_SYS_INCOMPATIBLE_SIGSTRUCT": (("handoff fields of the sigstruct disagree with the module's build",),
                                       "the file was put together from two releases"),
    "TDX_INCONSISTENT_MSR": (("an MSR differs between processors",), "BIOS settings or microcode differ: fix them"),
    "TDX_INCORRECT_MSR_VALUE": (("an MSR has a value the module refuses",),
                                "whose MSR it is decides whether BIOS, microcode or the kernel must change"),
    "TDX_SYS_INIT_NOT_PENDING": (("TDH.SYS.INIT was done already",), "nothing"),
    "TDX_OPERAND_INVALID": (("an operand; operand RAX: no such leaf or version",
                             "TDH.SYS.SHUTDOWN, operand RCX: handoff version out of range, or flag bit 16 on a module "
                             "without TDX_FEATURES0 bit 47"), "correct the operand"),
}



def _rows(status: object, prefix: str) -> tuple[str, ...]:
    """Ids of the check rows of a component that result in a status."""
    found: list[str] = []
    for table in TABLES.values():
        for row in table:
            result = getattr(row.result, "status", row.result)
            if type(result) is type(status) and result == status and type(result).__module__.startswith(prefix):
                found.append(row.id)
    return tuple(found)


def _np_status(value: int) -> str | None:
    """The name NP-SEAMLDR gives a value; all its errors have bit 63 and none of bits 62:32."""
    if value >> 32 != 1 << 31:
        return None
    from seamref.firmware.np_seamldr import NpStatus

    return NpStatus(value).name if value in NpStatus._value2member_map_ else None


def _load(*modules: str) -> None:
    """Import what declares the check rows."""
    for name in modules:
        import_module(name)


def explain_pseamldr(value: int) -> list[Explanation]:
    """P-SEAMLDR's reading of a status: what it says of its own state, not what the host makes of it."""
    from seamref.pseamldr.api import Status

    if value not in Status._value2member_map_:
        return []
    status = Status(value)
    _load("seamref.pseamldr.program", "seamref.pseamldr.install")
    causes, recoverable, advice = _PSEAMLDR[status.name]
    kind = f" (class {int(status) >> 16 & 0xFFFF}: {status.error_class.meaning})" if status.error_class else ""
    return [Explanation(f"0x{value:016X}  {status.name}{kind}", LOADER, _rows(status, "seamref.pseamldr"),
                        causes, recoverable, advice, stated=_status(value))]


def explain_np_seamldr(value: int) -> list[Explanation]:
    """NP-SEAMLDR's reading of a status (EAX/RDX after ENTERACCS, never from SEAMCALL)."""
    name = _np_status(value)
    if name is None or value == 0:
        return []
    return [Explanation(f"0x{value:016X}  {name}", NP_LOADER, (), (_NP.get(name, ""),),
                        "P-SEAMLDR is not loaded", "only BIOS or a loader before the kernel can launch it again",
                        stated=_status(value))]


RECOVER = {0: "success, possibly with a note", 1: "no: the vCPU or TD cannot run again",
           2: "yes: retry later, or after some action", 3: "no: the same call in this state cannot succeed"}
"""Bits 63:62 of a module's status."""


def explain_module(value: int) -> list[Explanation]:
    """The TDX module's reading of a status, whoever called."""
    from seamref.tdxmodule.status import decode

    read = decode(value)
    if read.status is None:
        return []
    _load("seamref.tdxmodule.program", "seamref.tdxmodule.system")
    causes, advice = _MODULE_ADVICE.get(read.status.name, ((read.status.means,), ""))
    return [Explanation(f"0x{value:016X}  {read}", f"{MODULE}, class {read.class_name}",
                        _rows(read.status, "seamref.tdxmodule"), causes, RECOVER[value >> 62], advice,
                        stated=_status(value))]


def _status(value: int) -> tuple[Stated, ...]:
    return (Stated("status", value, f"{value:x}"),)


_SOFTWARE: dict[int, Explanation] = {
    TDX_SEAMCALL_VMFAILINVALID: Explanation(
        f"0x{TDX_SEAMCALL_VMFAILINVALID:016X}  TDX_SEAMCALL_VMFAILINVALID", KERNEL,
        ("LNX.stub.cf", "SEAMCALL.module_not_ready", "SEAMCALL.p_seamldr_busy", "SEAMCALL.p_seamldr_not_ready"),
        ("the TDX module is not loaded, or was disabled", "P-SEAMLDR is not loaded, or was shut down",
         "P-SEAMLDR is busy with another processor's call"),
        "busy: yes; not loaded: not by the same call", "the caller cannot tell which: errno is -ENODEV, silently"),
    TDX_SEAMCALL_GP: Explanation(
        f"0x{TDX_SEAMCALL_GP:016X}  TDX_SEAMCALL_GP", KERNEL,
        ("LNX.stub.fixup", "SEAMCALL.seamrr", "SEAMCALL.cpl", "SEAMCALL.mov_ss"),
        ("SEAMRR is not enabled: TDX is off in BIOS",), "no", "enable TDX in BIOS; errno is -EOPNOTSUPP, silently"),
    TDX_SEAMCALL_UD: Explanation(
        f"0x{TDX_SEAMCALL_UD:016X}  TDX_SEAMCALL_UD", KERNEL,
        ("LNX.stub.fixup", "SEAMCALL.vmx", "SEAMCALL.no_SEAM"),
        ("this CPU has not executed VMXON", "the CPU has no SEAM, or this is a guest whose hypervisor injects #UD"),
        "yes, after VMXON", "call from a CPU in VMX operation; errno is -EACCES, silently"),
}


def explain_software(value: int) -> list[Explanation]:
    """Results that the kernel's stub makes of VMfailInvalid and of an exception on SEAMCALL."""
    if not is_software_status(value):
        return []
    known = _SOFTWARE.get(value)
    if known is not None:
        return [known]
    return [Explanation(f"0x{value:016X}  TDX_SW_ERROR | vector {value & 0xFF}", KERNEL, ("LNX.stub.fixup",),
                        ("an exception on SEAMCALL other than #UD and #GP",), stated=_status(value))]


def explain_leaf(value: int) -> list[Explanation]:
    """A leaf number; after VMfailInvalid RAX still holds it."""
    leaf = leaf_of(value)
    if leaf is None or (not leaf.name and leaf.version):
        return []
    who = LOADER if value & BIT63 else MODULE
    left = ("as a result: RAX is unchanged by VMfailInvalid, so a caller that does not look at CF sees the leaf "
            "number (the UEFI loader does that)",) if value & BIT63 else ()
    stated = (Stated("leaf", value, f"{value:x}"),)
    if not leaf.name:
        return []
    version = f" version {leaf.version}" if leaf.version else ""
    return [Explanation(f"0x{value:X}  leaf {leaf.name}{version}", f"a call of {who}", (), left, stated=stated)]


def explain_value(value: int) -> list[Explanation]:
    """Every reading of a 64-bit number; empty when there is none."""
    if not 0 <= value <= M64:
        raise SeamrefError(f"value of {value.bit_length()} bits: must have 64 bits at most")
    if is_software_status(value):
        return explain_software(value)
    found = explain_pseamldr(value) + explain_np_seamldr(value)
    if value == 0 or value >> 32 not in (0, 0x80000000):
        found += explain_module(value)
    return found + explain_leaf(value)
