"""What a number or a log line means: who said it, under which clause, why, and what now.

Status names, classes and check rows are read from where the components declare them; only causes and advice for people
stand here.  A number alone can have several readings (P-SEAMLDR and NP-SEAMLDR share values, and a leaf number looks
like a status): all of them are given, and a whole log line decides between them.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from importlib import import_module

from seamref.errors import SeamrefError
from seamref.host.abi import (
    TDX_SEAMCALL_GP,
    TDX_SEAMCALL_UD,
    TDX_SEAMCALL_VMFAILINVALID,
    TDX_SW_ERROR,
    Errno,
    Leaf,
    leaf_title,
)
from seamref.spec import TABLES

MODULE, LOADER, NP_LOADER = "TDX module", "P-SEAMLDR", "NP-SEAMLDR"
KERNEL, CPU = "Linux (software-defined)", "the processor"
BIT63 = 1 << 63
M64 = (1 << 64) - 1


@dataclass(frozen=True, slots=True)
class Explanation:
    """One reading of what was given."""

    what: str
    component: str
    clauses: tuple[str, ...] = ()
    causes: tuple[str, ...] = ()
    recoverable: str = ""
    advice: str = ""

    def text(self) -> str:
        """Several lines for a terminal."""
        lines = [self.what, f"  said by      {self.component}"]
        if self.clauses:
            shown = self.clauses[:8]
            more = f" and {len(self.clauses) - 8} more" if len(self.clauses) > 8 else ""
            lines.append(f"  clause       {', '.join(shown)}{more}")
        lines += [f"  {'likely cause' if i == 0 else '':12} {cause}" for i, cause in enumerate(self.causes)]
        if self.recoverable:
            lines.append(f"  recoverable  {self.recoverable}")
        if self.advice:
            lines.append(f"  what now     {self.advice}")
        return "\n".join(lines)


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


def _np_status(value: int) -> str | None:
    """The name NP-SEAMLDR gives a value."""
    from seamref.firmware.np_seamldr import NpStatus

    return NpStatus(value).name if value in NpStatus._value2member_map_ else None


_MODULE_ADVICE: dict[str, tuple[tuple[str, ...], str]] = {
    "TDX_SYS_BUSY": (("another processor is in a call that excludes this one",
                      "SHUTDOWN while a processor is inside the module, a running TD included"), "call again"),
    "TDX_RND_NO_ENTROPY": (("RDRAND gave nothing",), "Linux has called 10 times already; call again later"),
    "TDX_SYS_SHUTDOWN": (("TDH.SYS.SHUTDOWN was done and no update followed",),
                         "install a module; Linux: reboot"),
    "TDX_SYS_NOT_READY": (("the module was loaded and not initialised to the end, or an update stopped half way",),
                          "finish the initialisation; after a failed update: reboot"),
    "TDX_SYS_STATE_INCORRECT": (("TDH.SYS.UPDATE before every processor did LP.INIT (an offline CPU)", ),
                                "bring every CPU online and start again from a reset"),
    "TDX_SYS_INVALID_HANDOFF": (("the handoff data are not valid, or of a version the new module does not read",),
                                "another module may read them; Linux: reboot"),
    "TDX_UPDATE_COMPAT_SENSITIVE": (("a TD is being built or migrated",), "finish or abandon that, then retry"),
    "TDX_SYS_INCOMPATIBLE_SIGSTRUCT": (("handoff fields of the sigstruct disagree with the module's build",),
                                       "the file was put together from two releases"),
    "TDX_INCONSISTENT_MSR": (("an MSR differs between processors",), "BIOS settings or microcode differ: fix them"),
    "TDX_INCORRECT_MSR_VALUE": (("an MSR has a value the module refuses",), "BIOS setting"),
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


def _load(*modules: str) -> None:
    """Import what declares the check rows."""
    for name in modules:
        import_module(name)


def explain_pseamldr(value: int) -> list[Explanation]:
    """P-SEAMLDR's reading of a status, and NP-SEAMLDR's beside it."""
    from seamref.pseamldr.api import Status

    found: list[Explanation] = []
    if value in Status._value2member_map_:
        status = Status(value)
        _load("seamref.pseamldr.program", "seamref.pseamldr.install")
        causes, recoverable, advice = _PSEAMLDR[status.name]
        kind = f" (class {int(status) >> 16 & 0xFFFF}: {status.error_class.meaning})" if status.error_class else ""
        found.append(Explanation(f"0x{value:016X}  {status.name}{kind}", LOADER, _rows(status, "seamref.pseamldr"),
                                 causes, recoverable, advice))
    return found


def explain_np_seamldr(value: int) -> list[Explanation]:
    """NP-SEAMLDR's reading of a status (EAX/RDX after ENTERACCS, never from SEAMCALL)."""
    name = _np_status(value)
    if name is None or value == 0:
        return []
    return [Explanation(f"0x{value:016X}  {name}", NP_LOADER, (), (_NP.get(name, ""),),
                        "P-SEAMLDR is not loaded", "only BIOS or a loader before the kernel can launch it again")]


def explain_module(value: int) -> list[Explanation]:
    """The TDX module's reading of a status."""
    from seamref.tdxmodule.status import decode

    read = decode(value)
    if read.status is None:
        return []
    _load("seamref.tdxmodule.program", "seamref.tdxmodule.system")
    causes, advice = _MODULE_ADVICE.get(read.status.name, ((read.status.means,), ""))
    ended = {0: "success, possibly with a note", 1: "no: the vCPU or TD cannot run again",
             2: "yes: retry later, or after some action", 3: "no: the same call in this state cannot succeed"}
    return [Explanation(f"0x{value:016X}  {read}", f"{MODULE}, class {read.class_name}",
                        _rows(read.status, "seamref.tdxmodule"), causes, ended[value >> 62], advice)]


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


def explain_leaf(value: int) -> list[Explanation]:
    """A leaf number; after VMfailInvalid RAX still holds it."""
    try:
        leaf = Leaf(value)
    except ValueError:
        if value >> 16 or value & BIT63:
            return []
        return [Explanation(f"0x{value:X}  leaf {value} of the TDX module", MODULE)]
    who = LOADER if value & BIT63 else MODULE
    left = ("as a result: RAX is unchanged by VMfailInvalid, so a caller that does not look at CF sees the leaf "
            "number (the UEFI loader does that)",) if value & BIT63 else ()
    return [Explanation(f"0x{value:X}  leaf {leaf.title}", f"a call of {who}", (), left)]


def explain_value(value: int) -> list[Explanation]:
    """Every reading of a 64-bit number."""
    if not 0 <= value <= M64:
        raise SeamrefError(f"value 0x{value:X}: must have 64 bits")
    if value & TDX_SW_ERROR == TDX_SW_ERROR:
        known = _SOFTWARE.get(value)
        if known is not None:
            return [known]
        return [Explanation(f"0x{value:016X}  TDX_SW_ERROR | vector {value & 0xFF}", KERNEL, ("LNX.stub.fixup",),
                            ("an exception on SEAMCALL other than #UD and #GP",))]
    found = explain_pseamldr(value) + explain_np_seamldr(value)
    if value == 0 or value >> 32 not in (0, 0x80000000):
        found += explain_module(value)
    found += explain_leaf(value)
    return found


# --- errno and lines ----------------------------------------------------------------------------------------

_ERRNO: dict[Errno, Explanation] = {
    Errno.ENODEV: Explanation(
        "-ENODEV (-19) from a SEAMCALL", KERNEL, ("PRERR.vmfailinvalid",),
        ("VMfailInvalid: target not loaded, disabled, or P-SEAMLDR busy", "nothing is printed by the wrapper"),
        "busy: yes", "serialise the calls; look for \"module not loaded\""),
    Errno.EOPNOTSUPP: Explanation("-EOPNOTSUPP (-95) from a SEAMCALL", KERNEL, ("PRERR.gp",),
                                  ("#GP: SEAMRR not enabled",), "no", "enable TDX in BIOS"),
    Errno.EACCES: Explanation("-EACCES (-13) from a SEAMCALL", KERNEL, ("PRERR.ud",),
                              ("#UD: the CPU is not in VMX operation",), "yes", "VMXON first"),
    Errno.EIO: Explanation("-EIO (-5) from a SEAMCALL", KERNEL, ("PRERR.other",),
                           ("any other status; the line \"SEAMCALL (0x...) failed: 0x...\" before it says which",),
                           "depends on the status", "explain that line"),
    Errno.EINVAL: Explanation("-EINVAL (-22) from the update", KERNEL, ("IMAGE.check", "LNX.seamldr_call.erratum"),
                              ("the file is not a TDX-BLOB 2.0 as the kernel checks it",
                               "the CPU has seamret_invd_vmcs"), "yes", "python -m seamref blob check FILE"),
    Errno.ENOMEM: Explanation("-ENOMEM (-12) from the update", KERNEL, ("IMAGE2.memory",),
                              ("no page for SEAMLDR_PARAMS",), "yes", "retry"),
    Errno.EBUSY: Explanation(
        "-EBUSY (-16)", KERNEL, ("FW.loading", "FW.error", "INSTALL_MODULE.gate", "UPDATE.compat_flag"),
        ("writing loading or reading error while an upload runs", "v2-v4: a CPU is offline",
         "v3-v10: a TD is in a sensitive state"), "yes", "wait for status idle"),
    Errno.ENXIO: Explanation("-ENXIO (-6) reading version", KERNEL, ("UPDATE.forget",),
                             ("an update failed after the old module was shut down",), "no", "reboot"),
    Errno.ENOSPC: Explanation("-ENOSPC (-28) from the update", KERNEL, ("INSTALL_MODULE.gate",),
                              ("v2-v4: num_remaining_updates is 0",), "after a reset", "reboot"),
    Errno.ECANCELED: Explanation("-ECANCELED (-125) from the update", KERNEL, ("FW.cancel",),
                                 ("v1-v3: somebody wrote 1 to cancel",), "yes", "start again"),
}

_FW_ERRORS: dict[str, tuple[str, str]] = {
    "firmware-invalid": (
        "merged kernel: every failure of the update; only dmesg and `version` tell whether the old module still runs",
        "cat version: a version, the old module runs, correct the file; \"No such device or address\", reboot"),
    "device-busy": ("v3-v10: a TD is in a sensitive state, or (v3, v4) a CPU is offline; merged: never", "retry"),
    "hw-error": ("v3-v7: -EIO", "see dmesg"),
    "user-abort": ("v1-v3: canceled", "start again"),
    "flash-wearout": ("v3-v5: no update remains (-ENOSPC)", "reboot"),
    "read-write-error": ("v3-v7: -ENOMEM", "retry"),
    "timeout": ("not given by this driver", ""),
    "invalid-file-size": ("not given by this driver", ""),
}

_LINES: tuple[tuple[str, Explanation], ...] = (
    (r"virt/tdx: module not loaded", Explanation(
        "TDH.SYS.INIT met VMfailInvalid", KERNEL, ("LNX.sysinit_once", "SEAMCALL.module_not_ready"),
        ("BIOS or a loader did not install a TDX module",
         "during an update: P-SEAMLDR did not complete the session, for example because a CPU is offline"),
        "no", "install a module before the kernel; after an update: reboot")),
    (r"virt/tdx: TDX-Module initialization failed", Explanation(
        "the module could not be initialised", KERNEL, ("LNX.tdmr",), ("the line before it says which call failed",),
        "no", "explain that line")),
    (r"virt/tdx: TDX-Module initialized", Explanation("the module is up", KERNEL, ("LNX.tdmr",))),
    (r"virt/tdx: Module version:", Explanation("the version of the module as read at boot; updates do not print it",
                                               KERNEL, ("LNX.sysinfo",))),
    (r"virt/tdx: BIOS enabled: private KeyID range", Explanation(
        "the platform has TDX KeyIDs; the first is the global one", KERNEL, ("LNX.tdx_init",))),
    (r"too few private KeyIDs", Explanation("one TDX KeyID is not enough: the first is the module's own", KERNEL,
                                            ("LNX.tdx_init",), ("BIOS setting",), "no", "give TDX more in BIOS")),
    (r"RBP\) clobber|RBP_MOD", Explanation("TDX_FEATURES0 bit 18 (NO_RBP_MOD) is 0", KERNEL, ("LNX.tdmr",),
                                           ("the module is too old",), "no", "take a newer module")),
    (r"Cannot update TDX module if any CPU is offline", Explanation(
        "v2-v4 refuse an update unless every present CPU is online; later versions leave it to user space", KERNEL,
        ("INSTALL_MODULE.gate",), ("a CPU is offline",), "yes", "bring it online")),
    (r"update failed, SEAMCALLs will report failure until TDs killed", Explanation(
        "v2-v7: the update failed after the old module was shut down", KERNEL, ("UPDATE.result",), (), "no", "reboot")),
    (r"unsupported blob version", Explanation("v2-v7: the file's version is not 1.0", KERNEL, ("IMAGE1.version",),
                                              (), "yes", "python -m seamref blob convert")),
    (r"sleeping function called from invalid context", Explanation(
        "a sleeping lock was taken with interrupts off", KERNEL, ("LNX.seamldr_call.lock",),
        ("a spinlock_t around P-SEAMLDR calls on PREEMPT_RT",), "no", "make it a raw_spinlock_t")),
    (r"WARNING.*seamldr_call", Explanation(
        "P-SEAMLDR was called on a CPU whose SEAMRET invalidates the current VMCS", KERNEL,
        ("LNX.seamldr_call.erratum", "SEAMRET.vmcs"), ("IA32_VMX_BASIC[60] is 0",), "no", "newer microcode")),
    (r"WARNING.*tdx_module_shutdown", Explanation("v9, v10: MODULE_HV could not be read; the shutdown goes on", KERNEL,
                                                  ("UPDATE.handoff_version",))),
    (r"WARNING.*tdx_module_run_update", Explanation(
        "the version could not be read after the update, or a feature changed; the update counts as done", KERNEL,
        ("UPDATE.run_update",))),
    (r"TDX private KeyIDs in use", Explanation(
        "the last online CPU of a package stays while TDs have KeyIDs", KERNEL, ("LNX.cpu_offline",), (), "yes",
        "end the TDs first")),
    (r"TDH\.SYS\.DISABLE failed", Explanation("kexec could not disable the module", MODULE, ("LNX.sys_disable",),
                                              ("a module without that leaf",))),
    (r"non-zero reserved fields|invalid signature|invalid checksum", Explanation(
        "v1-v7: the file's header", KERNEL, ("IMAGE1.reserved", "IMAGE1.signature", "IMAGE1.checksum"), (), "yes",
        "python -m seamref blob check FILE")),
)

_FAILED = re.compile(r"SEAMCALL \((?:leaf )?(0x[0-9a-fA-F]+|\d+)\) failed:? (0x[0-9a-fA-F]+)")
_NUMBER = re.compile(r"0[xX][0-9a-fA-F_]+|\b\d+\b")


def explain(text: str) -> list[Explanation]:
    """Everything known about a number, a name, an errno or a line; empty when nothing is."""
    text = text.strip()
    failed = _FAILED.search(text)
    if failed:
        return _explain_failed(int(failed[1], 0), int(failed[2], 16))
    for pattern, known in _LINES:
        if re.search(pattern, text):
            return [known]
    fw = re.search(r"(?:(idle|receiving|preparing|transferring|programming):)?(" + "|".join(_FW_ERRORS) + r")\b", text)
    if fw:
        cause, advice = _FW_ERRORS[fw[2]]
        while_ = f" while {fw[1]}" if fw[1] else ""
        what = f"fw_upload error {fw[2]}{while_}"
        return [Explanation(what, KERNEL, ("FW.worker", "FW.error"), (cause,), "", advice)]
    named = _explain_name(text) + _explain_errno(text)
    if named:
        return named
    number = _NUMBER.search(text)
    return explain_value(int(number[0].replace("_", ""), 0)) if number else []


def _explain_failed(leaf: int, status: int) -> list[Explanation]:
    who = LOADER if leaf & BIT63 else MODULE
    head = Explanation(f"{leaf_title(leaf)} (leaf 0x{leaf:X}) of {who} returned 0x{status:016X}; the caller got -EIO",
                       KERNEL, ("PRERR.other",))
    readings = explain_pseamldr(status) if leaf & BIT63 else explain_module(status)
    return [head, *(readings or [Explanation(f"0x{status:016X}  no status that {who} is known to return", who)])]


def _explain_errno(text: str) -> list[Explanation]:
    from seamref.host.abi import ERRNO_TEXT

    by_length = sorted(_ERRNO, key=lambda errno: -len(ERRNO_TEXT[errno]))  # "No such device or address" first
    for errno in by_length:
        if re.search(rf"\b{errno.name}\b", text) or ERRNO_TEXT[errno] in text or text == str(int(errno)):
            return [_ERRNO[errno]]
    return []


def _explain_name(text: str) -> list[Explanation]:
    from seamref.pseamldr.api import Status as LoaderStatus
    from seamref.tdxmodule.status import Status as ModuleStatus

    word = text.split()[0].upper() if text else ""
    if word in LoaderStatus.__members__:
        return explain_pseamldr(int(LoaderStatus[word]))
    if word in ModuleStatus.__members__:
        return explain_module(int(ModuleStatus[word]))
    by_title = {leaf.title: leaf for leaf in Leaf}
    if word in by_title:
        return explain_leaf(int(by_title[word]))
    plain = {"VMFAILINVALID": TDX_SEAMCALL_VMFAILINVALID, "#GP": TDX_SEAMCALL_GP, "#GP(0)": TDX_SEAMCALL_GP,
             "#UD": TDX_SEAMCALL_UD}
    return [e for v, e in _SOFTWARE.items() if e.what.endswith("  " + word) or plain.get(word) == v]
