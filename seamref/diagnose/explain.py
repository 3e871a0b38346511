"""What a number, a name or a log line means: who said it, under which clause, why, and what now.

A line is read by the grammar of :mod:`seamref.diagnose.lines` after what tools put in front is taken off; a number is
read only when the whole argument is one, or when a known place of a known line holds it.  What fits nothing is not
known: no line is ever answered by a number that merely stands in it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace

from seamref.diagnose.calls import FailedCall, Situation, explain_call, registers_of
from seamref.diagnose.identity import Identity, identify_text, parse_build
from seamref.diagnose.lines import MAX_LINE, RELATED, LineForm, match_form, strip_prefix
from seamref.diagnose.msrs import bits_of, derived, describe, msr_line, name_of
from seamref.diagnose.names import (
    BIT63,
    ERRNO_BY_TEXT,
    ERRNO_NUMBER,
    ERRNO_TEXTS,
    KERNEL,
    LEAF_WORD,
    LINUX_ERRNO,
    LOADER_WORDS,
    MODULE,
    STATUS_WORD,
    errno_name,
    guest_leaves,
    is_error_status,
    leaf_by_name,
)
from seamref.diagnose.reading import Explanation, Kind, Stated
from seamref.diagnose.values import (
    explain_leaf,
    explain_module,
    explain_pseamldr,
    explain_software,
    explain_value,
)
from seamref.errors import SeamrefError
from seamref.host.abi import (
    TDX_SEAMCALL_GP,
    TDX_SEAMCALL_UD,
    TDX_SEAMCALL_VMFAILINVALID,
    Errno,
)
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.tdxmodule.status import Operand
from seamref.tdxmodule.status import Status as ModuleStatus

__all__ = ["Explanation", "LogReport", "explain", "explain_log", "explain_value", "read_line"]

# --- errno --------------------------------------------------------------------------------------------------

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
                               "the CPU has seamret_invd_vmcs", "at boot: XSAVE or MOVDIR64B is missing, or the module "
                               "is too old (NO_RBP_MOD)"), "yes", "python -m seamref blob check FILE"),
    Errno.ENOMEM: Explanation("-ENOMEM (-12) from the update", KERNEL, ("IMAGE2.memory",),
                              ("no page for SEAMLDR_PARAMS", "at boot: no contiguous memory for PAMT"), "yes", "retry"),
    Errno.EBUSY: Explanation(
        "-EBUSY (-16)", KERNEL, ("FW.loading", "FW.error", "INSTALL_MODULE.gate", "UPDATE.compat_flag"),
        ("writing loading or reading error while an upload runs", "v2-v4: a CPU is offline",
         "v3-v10: a TD is in a sensitive state"), "yes", "wait for status idle"),
    Errno.ENXIO: Explanation("-ENXIO (-6) reading version", KERNEL, ("UPDATE.forget",),
                             ("an update failed after the old module was shut down",), "no", "reboot"),
    Errno.ENOSPC: Explanation("-ENOSPC (-28) from the update, or at boot", KERNEL, ("INSTALL_MODULE.gate", "LNX.tdmr"),
                              ("at boot: the memory map needs more TDMRs or reserved areas than the module has",
                               "v2-v4: num_remaining_updates is 0"), "update: after a reset; boot: not on this kernel",
                              "the line around it says which"),
    Errno.EFAULT: Explanation("-EFAULT (-14) from the set-up of module extensions", KERNEL, (),
                              ("no memory for the module's extensions, or TDH.EXT.INIT failed (posted, not merged)",),
                              "not known", "dmesg"),
    Errno.ERANGE: Explanation("-ERANGE (-34) writing loading", KERNEL, ("FW.loading",),
                              ("the number written does not fit 32 bits",), "yes", "write 1, 0 or -1"),
    Errno.EPERM: Explanation("-EPERM (-1)", KERNEL, (), ("the caller is not root",), "yes", "run as root"),
    Errno.ECANCELED: Explanation("-ECANCELED (-125) from the update", KERNEL, ("FW.cancel",),
                                 ("v1-v3: somebody wrote 1 to cancel",), "yes", "start again"),
}

INIT_ERRNO: dict[int, tuple[tuple[str, ...], str]] = {
    -5: (("a SEAMCALL failed: the line above it says which, and why",), "explain that line"),
    -12: (("no contiguous memory for PAMT: memory is fragmented, or was when KVM was loaded late",),
          "load kvm_intel early (at boot); more free memory"),
    -13: (("SEAMCALL met #UD: a CPU was not in VMX operation",), "is VMX on in BIOS?"),
    -19: (("SEAMCALL met VMfailInvalid: no module is loaded, or the platform has no TDX",),
          "look for \"module not loaded\"; install a module before the kernel"),
    -22: (("the kernel refuses: a CPU feature is missing, or the module is too old (NO_RBP_MOD)",),
          "the line above it says which"),
    -28: (("the memory map needs more TDMRs or reserved areas than the module has; updates have nothing to do with "
           "it",),
          "the line above it says which"),
    -95: (("SEAMCALL met #GP: SEAMRR is not valid",), "rdmsr -f 11:11 0x1401"),
}
"""What "initialization failed (-N)" means at boot, by errno: the caller's view, not the update's."""

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
_FW_STAGES = "idle|receiving|preparing|transferring|programming"
_FW = re.compile(rf"(?:({_FW_STAGES}):)?({'|'.join(_FW_ERRORS)})")
_FW_IN_LINE = re.compile(rf"\b({_FW_STAGES}):({'|'.join(_FW_ERRORS)})\b")

# --- a whole argument -----------------------------------------------------------------------------------------

_DECIMAL = re.compile(r"\d(?:_?\d)*")
_HEXADECIMAL = re.compile(r"0[xX][0-9a-fA-F](?:_?[0-9a-fA-F])*")
_BARE_HEX = re.compile(r"(?=.*[a-fA-F])[0-9a-fA-F]{8,}|0[0-9a-fA-F]{7}|[0-9a-fA-F]{16}")
"""Hexadecimal without 0x: eight digits or more with a letter, or the zero-padded 8 or 16 digits of a dump."""
_PLAIN = {"VMFAILINVALID": TDX_SEAMCALL_VMFAILINVALID, "#GP": TDX_SEAMCALL_GP, "#GP(0)": TDX_SEAMCALL_GP,
          "#UD": TDX_SEAMCALL_UD, "TDX_SEAMCALL_VMFAILINVALID": TDX_SEAMCALL_VMFAILINVALID,
          "TDX_SEAMCALL_GP": TDX_SEAMCALL_GP, "TDX_SEAMCALL_UD": TDX_SEAMCALL_UD}
MAX_DIGITS = 24


def whole_number(text: str) -> int | None:
    """The number that the whole text is; ``None`` when it is none.  More than 64 bits are an error."""
    if _BARE_HEX.fullmatch(text):
        base, digits = 16, text
    elif _HEXADECIMAL.fullmatch(text):
        base, digits = 16, text[2:].replace("_", "")
    elif _DECIMAL.fullmatch(text):
        base, digits = 10, text.replace("_", "")
    else:
        return None
    if len(digits) > MAX_DIGITS or (value := int(digits, base)) >> 64:
        shown = text if len(text) <= 40 else f"{text[:37]}..."
        raise SeamrefError(f"value {shown} ({len(digits)} digits): must have 64 bits at most")
    return value


def _whole(text: str) -> list[Explanation] | None:
    """An argument that is one value: number, name, errno, upload error, identity; ``None`` when it is a line."""
    if re.fullmatch(r"-\d{1,4}", text):
        return _errno(-int(text))
    if (found := _FW.fullmatch(text)) is not None:
        return [_fw(found)]
    if " " not in text and (value := _identity_digits(text)) is not None:
        return [_identity(value)]
    if (number := whole_number(text)) is not None:
        return explain_value(number)
    return _name(text)


def _identity_digits(text: str) -> Identity | None:
    """MRSEAM, TEE_TCB_SVN, a dotted version: what explain leaves to identify."""
    digits = text.removeprefix("0x").removeprefix("0X")
    if (len(digits) in (96, 32) and re.fullmatch(r"[0-9a-fA-F]+", digits)) or re.fullmatch(r"\d+\.\d+\.\d+(\.\d+)?",
                                                                                         text):
        return identify_text(text)
    return None


def _identity(found: Identity) -> Explanation:
    kind = Kind.VALUE if found.known else Kind.FOREIGN
    return Explanation(f"{found.given}: {found.short}", "the table of releases", (),
                       tuple(line.strip() for m in found.matches for line in m.lines()[1:][:3]), "",
                       "python -m seamref identify says more", kind)


def _fw(found: re.Match[str]) -> Explanation:
    cause, advice = _FW_ERRORS[found[2]]
    while_ = f" while {found[1]}" if found[1] else ""
    return Explanation(f"fw_upload error {found[2]}{while_}", KERNEL, ("FW.worker", "FW.error"), (cause,), "", advice)


def _name(text: str) -> list[Explanation] | None:
    """Names of statuses, leaves, operands and errnos; several joined by | or + are read one after another."""
    parts = [part for part in re.split(r"\s*[|+]\s*", text.strip("() ")) if part]
    if len(parts) > 1 and all(re.fullmatch(r"[\w.#()-]+", part) for part in parts):
        if len(parts) == 2 and (joined := _with_operand(*parts)):
            return joined
        read = [_one_name(part) for part in parts]
        if all(read):
            return [e for found in read for e in found]
        return None
    return _one_name(text) or None


_OPERAND_ID = "TDX_OPERAND_ID_"
_OPERAND_ALIAS = {"SEPT": Operand.SEPT_TREE}
"""Linux's short names."""


def _operand(word: str) -> Operand | None:
    name = word.upper().removeprefix(_OPERAND_ID)
    if name == word.upper():
        return None
    return _OPERAND_ALIAS.get(name) or Operand.__members__.get(name)


def _with_operand(status: str, operand: str) -> list[Explanation]:
    """STATUS | TDX_OPERAND_ID_NAME: one word of the ABI."""
    held, which = ModuleStatus.__members__.get(status.upper()), _operand(operand)
    return [] if held is None or which is None else explain_module(int(held) | int(which))


def _named_status(status: ModuleStatus) -> list[Explanation]:
    """A status by its name, which states no operand."""
    (said,) = explain_module(int(status))
    return [replace(said, what=f"0x{int(status):016X}  {status.name}")]


def _one_name(text: str) -> list[Explanation]:
    word = text.strip().upper()
    if word in _PLAIN:
        return [replace(e, stated=()) for e in explain_software(_PLAIN[word])]
    if word in LoaderStatus.__members__:
        also = _errno(ERRNO_NUMBER[word]) if word in ERRNO_NUMBER else []  # ENOMEM is an errno's name too
        return explain_pseamldr(int(LoaderStatus[word])) + also
    if word in ModuleStatus.__members__:
        return _named_status(ModuleStatus[word])
    if f"TDX_{word}" in ModuleStatus.__members__ and word != "SUCCESS":
        return _named_status(ModuleStatus[f"TDX_{word}"])
    if word.startswith("-E") and word[1:] in ERRNO_NUMBER:
        return _errno(ERRNO_NUMBER[word[1:]])
    leaf = leaf_by_name(word)
    if leaf is not None:
        return [replace(e, stated=(Stated("leaf", leaf, text.strip()),)) for e in explain_leaf(leaf)]
    guest = {name: number for number, name in guest_leaves().items()}.get(word.replace("_", "."))
    if guest is not None:
        return [Explanation(f"{word.replace('_', '.')}: leaf {guest} of TDCALL, which a TD calls", MODULE)]
    if (operand := _operand(word)) is not None:
        return [Explanation(f"operand {operand.name} (0x{int(operand):X} in the low half of a status)", MODULE)]
    return []


def _errno(number: int) -> list[Explanation]:
    known = next((e for errno, e in _ERRNO.items() if -int(errno) == number), None)
    if known is not None:
        return [replace(known, stated=(Stated("errno", -number, ""),))]
    if number in LINUX_ERRNO:
        name, text = LINUX_ERRNO[number]
        return [Explanation(f"-{name} (-{number}), \"{text}\": no SEAMCALL wrapper and no step of the update returns "
                            f"it",
                            "an errno of Linux", kind=Kind.FOREIGN)]
    return []


# --- lines ----------------------------------------------------------------------------------------------------


def _numbers(found: re.Match[str]) -> dict[str, str]:
    return {name: value for name, value in found.groupdict().items() if value is not None}


def _leaf_number(text: str) -> int | None:
    return int(text, 16) if text.lower().startswith("0x") else int(text) if text.isdigit() else leaf_by_name(text)


def _call(form: LineForm, found: re.Match[str], message: str) -> FailedCall | None:
    """The call that a SEAMCALL-failed line speaks of."""
    fields = _numbers(found)
    leaf = _leaf_number(fields.get("leaf") or fields["name"])
    text = fields["status"]
    named = leaf is not None and bool(leaf & BIT63)
    if not text.lower().startswith("0x"):
        word = text.upper()
        if named and word in LoaderStatus.__members__:
            status: int | None = int(LoaderStatus[word])
        else:
            full = word if word in ModuleStatus.__members__ else f"TDX_{word}"
            status = int(ModuleStatus[full]) if full in ModuleStatus.__members__ and not named else None
    else:
        status = int(text, 16)
    if leaf is None or status is None:
        return None
    linux = (form.id != "LOG.leaf_failed" and form.id != "LOG.leaf_failed_name") or bool(
        re.match(r"(?:(?:virt/)?tdx|seamldr|kvm(?:_intel)?): ", message))
    return FailedCall(leaf, status, int(fields["cpu"]) if "cpu" in fields else None, linux,
                      KERNEL if linux else "the program that prints the line")


def _stated(fields: dict[str, str]) -> tuple[Stated, ...]:
    out = []
    if "errno" in fields:
        out.append(Stated("errno", int(fields["errno"]), fields["errno"]))
    if "msr" in fields:
        out.append(Stated("msr", int(fields["msr"], 16), fields["msr"]))
    return tuple(out)


def _form(form: LineForm, fields: dict[str, str]) -> Explanation:
    """A line whose meaning stands in the table."""
    shown = dict(fields)
    if "errno" in fields:
        shown["errno"] = errno_name(int(fields["errno"]))
    shown.setdefault("not", "")
    return Explanation(form.what.format(**shown), form.who, form.clauses, form.causes, form.recoverable, form.advice,
                       form.kind, form.id, form.kernels, _stated(fields))


def _init_failed(form: LineForm, fields: dict[str, str], at: Situation) -> Explanation:
    causes, advice = INIT_ERRNO.get(int(fields["errno"]), ((), form.advice))
    return replace(_form(form, fields), causes=causes, advice=advice)


def _version(form: LineForm, fields: dict[str, str], at: Situation, message: str) -> tuple[Explanation, Situation]:
    """A line that names module or loader: its release, if the table knows it."""
    known = parse_build(message) or (identify_text(fields["version"]) if form.id == "LOG.module_version" else None)
    said = _form(form, fields)
    if "version" in fields and form.id == "LOG.module_version":
        parts = tuple(int(part) for part in fields["version"].split("."))
        at = replace(at, module=parts[:3], module_text=fields["version"])
        if form.id == "LOG.module_version" and identify_text(fields["version"]) is not None:
            version = identify_text(fields["version"])
            known = version if known is None or not known.known else known
    if form.id == "LOG.module_info":
        major, minor = _part("major", message), _part("minor", message)
        if major is not None and minor is not None:
            release = f", release {known.short}" if known is not None and known.known else ""
            at = replace(at, module=(major, minor), module_text=f"{major}.{minor}, built {fields['date']}{release}")
    if known is not None:
        old = at.module is not None and at.module[:2] == (1, 0) and form.id == "LOG.module_info"
        note = "a module of line 1.0, too old for kernels since 6.5" if old else (
            f"the table of releases: {known.short}" if form.id != "LOG.seamldr_version" else "")
        said = replace(said, causes=(*said.causes, note) if note else said.causes,
                       kind=Kind.WARNING if old else said.kind)
    return said, at


def _part(name: str, message: str) -> int | None:
    found = re.search(rf"\b{name}(?:_version)?:? (0x[0-9a-f]{{1,4}}|\d{{1,5}})\b", message, re.IGNORECASE)
    return None if found is None else int(found[1], 0)


_RAX = re.compile(r"\bRAX[:=]?\s*(?:0x)?([0-9a-fA-F]{9,16})\b")
_HEX64 = re.compile(r"\b0x([0-9a-fA-F]{9,16})\b|\b([0-9a-fA-F]{16})\b")
_FILE = re.compile(rf"^(?:[\w./-]+: )*(?P<program>[\w./-]+): (?P<path>\S+): (?P<text>{ERRNO_TEXTS})\.?$")
_OURS = re.compile(r"(?:^|/)(?:tdx_host/|tdx_module/|seamldr_upload/|tdx_tsm/|seamldr/)?"
                   r"(?:version|seamldr_version|num_remaining_updates|loading|data|error|status|cancel|remaining_size)$")
_ANY_ERRNO = re.compile(rf"(?P<text>{ERRNO_TEXTS})(?![\w])")


def read_line(line: str, at: Situation | None = None) -> tuple[list[Explanation], Situation]:
    """Readings of one line of a log, and what is known after it."""
    at = at or Situation()
    message = strip_prefix(line)
    if not message:
        return [], at
    matched = match_form(message)
    if matched is None:
        return _unformed(message, at), replace(at, call=None)
    return _formed(message, at, *matched)


def _formed(message: str, at: Situation, form: LineForm, found: re.Match[str]) -> tuple[list[Explanation], Situation]:
    fields = _numbers(found)
    match form.id:
        case "LOG.seamcall_failed" | "LOG.seamcall_failed_cpu" | "LOG.leaf_failed" | "LOG.leaf_failed_name":
            call = _call(form, found, message)
            if call is None:
                return _unformed(message, at), at
            read = explain_call(call, at)
            installing = call.linux and call.rax & BIT63 != 0 and call.number & 0xF == 1
            return read, replace(at, call=call, updating=at.updating or installing)
        case "LOG.registers" | "LOG.registers_2" | "LOG.additional_output":
            return _registers(form, fields, at)
        case "LOG.init_failed" | "LOG.init_failed_old":
            return [_init_failed(form, fields, at)], replace(at, call=None)
        case "LOG.module_version" | "LOG.module_info" | "LOG.module_parts" | "LOG.seamldr_version":
            said, at = _version(form, fields, at, message)
            return [said], replace(at, call=None)
        case "LOG.rdmsr":
            said = _form(form, fields)
            return [replace(said, causes=(describe(int(fields["msr"], 16)), *said.causes))], at
        case _:
            updating = at.updating or (form.link is not None and form.link.name == "UPDATE")
            return [_form(form, fields)], replace(at, call=None, updating=updating)


def _registers(form: LineForm, fields: dict[str, str], at: Situation) -> tuple[list[Explanation], Situation]:
    """Registers behind a failed call; where the call's meaning needs them, it is read again with them."""
    values = registers_of(fields)
    said = _form(form, fields)
    if at.call is None:
        return [replace(said, what=f"{said.what}: that line is not here")], at
    call = replace(at.call, registers=(*at.call.registers, *values))
    again = explain_call(call, at)[0]
    before = explain_call(at.call, at)[0]
    more = tuple(cause for cause in again.causes if cause not in before.causes)
    leaf = call.leaf
    said = replace(said, what=f"{said.what}: {leaf or 'the call'} is what they belong to", causes=more)
    return [said], replace(at, call=call)


def _unformed(message: str, at: Situation) -> list[Explanation]:
    """A message that no form reads: a whole value, a register dump, names, a file error, a status that stands in it."""
    try:
        whole = _whole(message)
    except SeamrefError:
        return []
    if whole is not None:
        return whole
    if (register := _msr(message)) is not None:
        return [register]
    if (dump := _RAX.search(message)) is not None and is_error_status(value := int(dump[1], 16)):
        return [replace(e, what=f"RAX = {e.what}") for e in explain_value(value)]
    if (fw := _FW_IN_LINE.search(message)) is not None:
        return [_fw(fw)]
    if (ours := _file_error(message)) is not None:
        return ours
    if (named := _names_in(message)):
        return named
    if (status := _status_in(message)):
        return status
    return _foreign(message)


def _msr(message: str) -> Explanation | None:
    """``0x1401: value``, the form of register lists: the MSR's fields; of a part only the fields inside it."""
    found = msr_line(message)
    if found is None:
        return None
    part = "" if (found.high, found.low) == (63, 0) else f"[{found.high}:{found.low}]"
    value = found.value << found.low
    fields = [str(line).strip() for line in bits_of(found.address, value)
              if found.high >= line.bit.high and line.bit.low >= found.low]
    return Explanation(f"{name_of(found.address)}{part} (MSR 0x{found.address:X}) = 0x{found.value:X}", "the processor",
                       fields=(*fields, *(() if part else derived(found.address, found.value))), advice="python -m "
                       "seamref doctor reads all that were given, in order", kind=Kind.VALUE, stated=(
                           Stated("msr", found.address, message),))


def _names_in(message: str) -> list[Explanation]:
    """Leaf and status names that a line states in words, one reading each."""
    found: list[Explanation] = []
    seen: set[str] = set()
    joined = re.search(rf"(TDX_\w{{3,60}})\s*\|\s*({_OPERAND_ID}\w{{1,40}})", message)
    if joined is not None and (read := _with_operand(joined[1], joined[2])):
        return [replace(e, what=f"{e.what} (named in this line)") for e in read]
    for word in re.findall(r"[A-Za-z_#][\w.]{2,60}", message):
        word = word.strip(".")
        upper = word.upper()
        if upper in seen or not (LEAF_WORD.fullmatch(word) or STATUS_WORD.fullmatch(word) or word in LOADER_WORDS):
            continue
        seen.add(upper)
        found += [replace(e, what=f"{e.what} (named in this line)") for e in _one_name(word)]
        if len(seen) >= 8:
            break
    return found


def _status_in(message: str) -> list[Explanation]:
    """A 64-bit error status inside an unknown line: explained, with the words that it merely stands there."""
    out: list[Explanation] = []
    for match in list(_HEX64.finditer(message))[:4]:
        value = int(match[1] or match[2], 16)
        if is_error_status(value):
            out += [replace(e, what=f"{e.what} (a status in this line; the line itself is not known)")
                    for e in explain_value(value)]
    return out


def _file_error(message: str) -> list[Explanation] | None:
    """``cat: version: No such device or address``: a file of the TDX host's interface, by its name."""
    found = _FILE.match(message)
    if found is None:
        return None
    number = ERRNO_BY_TEXT[found["text"]]
    if not (found["program"].rpartition("/")[2] in _SHELL_PROGRAMS and _OURS.search(found["path"])):
        return None
    known = next((e for errno, e in _ERRNO.items() if -int(errno) == number), None)
    if known is None:
        return None
    return [replace(known, stated=(Stated("errno", -number, found["text"]),))]


_SHELL_PROGRAMS = {"cat", "echo", "bash", "sh", "tee", "dd", "cp", "head"}


def _foreign(message: str) -> list[Explanation]:
    """An errno in somebody's message: said to be that, and not taken for one of ours."""
    found = _ANY_ERRNO.search(message)
    if found is None or ":" not in message[: found.start()]:
        return []
    number = ERRNO_BY_TEXT[found["text"]]
    who = message.split(":")[0][:40]
    return [Explanation(
        f"an error of {who!r}: {errno_name(number)}; which interface of the kernel it came from is not in the line",
        f"{who} (not TDX's words)", causes=(), advice="if it wrote a file of /sys/class/firmware/tdx_module, give the "
        "path too", kind=Kind.FOREIGN, stated=(Stated("errno", -number, found["text"]),))]


def explain(text: str, at: Situation | None = None) -> list[Explanation]:
    """Everything known about a number, a name, an errno or a line; empty when nothing is.

    A whole argument of more than 64 bits is a :class:`SeamrefError`.
    """
    text = text.strip()
    if not text:
        return []
    if "\n" in text:
        return [e for answer in explain_log(text.splitlines()).answers for e in answer.readings]
    if len(text) <= MAX_LINE and (whole := _whole(text)) is not None:
        return whole
    if whole_number_is_too_long(text):
        raise SeamrefError(f"value of {len(text)} digits: must have 64 bits at most")
    return read_line(text, at)[0]


def whole_number_is_too_long(text: str) -> bool:
    """Thousands of digits: a number, though none that is read."""
    return len(text) > MAX_LINE and re.fullmatch(r"(?:0[xX])?[0-9a-fA-F_]+", text) is not None


# --- whole logs -----------------------------------------------------------------------------------------------

MAX_ANSWERS = 2000
MAX_SHAPES = 20_000
_DIGITS = str.maketrans("123456789", "000000000")


@dataclass(frozen=True, slots=True)
class Answer:
    """One line and what it means; ``number`` counts from 1, ``repeats`` how often the same line came again."""

    number: int
    line: str
    readings: tuple[Explanation, ...]

    @property
    def known(self) -> bool:
        """Whether some reading is."""
        return any(e.known for e in self.readings)


@dataclass(slots=True)
class LogReport:
    """A log read to its end.

    ``lines`` in all; ``related`` that have to do with TDX; ``answers`` in order, each distinct message once;
    ``unknown`` related lines that nothing is known about; ``left_out`` lines beyond the bounds; ``boots`` how often a
    kernel started.
    """

    lines: int = 0
    related: int = 0
    unknown: int = 0
    left_out: int = 0
    repeated: int = 0
    boots: int = 0
    answers: list[Answer] = field(default_factory=list)
    situation: Situation = field(default_factory=Situation)


_STARTS = re.compile(r"Linux version \d")


def explain_log(lines: Iterable[str], *, everything: bool = True, last_boot: bool = False,
                seen: Callable[[Answer], None] | None = None) -> LogReport:
    """Read lines one after another, each with what the lines before it said.

    ``everything``: answer every line that is not empty; otherwise only those that have to do with TDX.
    ``last_boot``: when a kernel starts, what the one before it said is dropped.  Bounds: the
    first 2,000 answers are kept, and of lines that nothing is known about 20,000 shapes are tried.
    """
    report = LogReport()
    messages: set[int] = set()
    unknown_shapes: set[int] = set()
    for number, line in enumerate(lines, 1):
        report.lines = number
        if not line or line.isspace():
            continue
        if "Linux version " in line[:MAX_LINE] and _STARTS.match(strip_prefix(line)):
            report.boots += 1
            report.situation = Situation()
            messages.clear()
            if last_boot:
                report.answers.clear()
        if not everything and not RELATED.search(line[:MAX_LINE].encode("utf-8", "replace")):
            continue
        report.related += 1
        message = strip_prefix(line)
        shape = hash(message.translate(_DIGITS))
        if shape in unknown_shapes:
            report.unknown += 1
            continue
        key = hash((message, report.situation.call))
        if key in messages:
            report.repeated += 1
            continue
        if len(unknown_shapes) >= MAX_SHAPES or len(report.answers) >= MAX_ANSWERS:
            report.left_out += 1
            continue
        readings, report.situation = read_line(line, report.situation)
        answer = Answer(number, line[:400], tuple(readings))
        if not answer.known:
            report.unknown += 1
            unknown_shapes.add(shape)
            if not everything and not readings:
                continue
        messages.add(key)
        report.answers.append(answer)
        if seen is not None:
            seen(answer)
    return report


def causes_of(report: LogReport) -> Iterator[Answer]:
    """Answers that name a cause, in order."""
    return (a for a in report.answers if any(e.kind is Kind.CAUSE for e in a.readings))
