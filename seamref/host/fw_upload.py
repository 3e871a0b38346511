"""What user space sees: the tdx-host device, its files, and the firmware-upload interface.

``Upload`` is the generic firmware loader's record, :class:`Sysfs` the tree of files with modes, contents and errors,
:class:`Terminal` a root shell that knows `echo`, `cat`, `ls` and `dmesg`.  The update runs in a worker, after the
writer of ``loading`` returned.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import Enum
from hashlib import sha256
from typing import assert_never

from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import ERRNO_TEXT, FEATURES0_TD_PRESERVING, Errno
from seamref.host.install import seamldr_install_module
from seamref.host.kernel import Host
from seamref.host.records import Device, FwError, FwState, Status, Upload
from seamref.host.seamldr import seamldr_get_info
from seamref.host.series import KernelSeries, Vmcs
from seamref.host.update import Finish, Schedule, in_order
from seamref.layout import Record
from seamref.spec import MEASURED, Check, CheckTable, clause, implements

M32, M64 = (1 << 32) - 1, (1 << 64) - 1

SUPPORTED: CheckTable[Host, bool] = CheckTable("tdx_host supported", (
    Check("SUPPORTED.sysinfo", "no system information: the module is not initialised",
          lambda h: h.state.sysinfo is None or not h.state.module.initialized, False, "LNX tdx-host.c"),
    Check("SUPPORTED.td_preserving", "TDX_FEATURES0 bit 1 (TD_PRESERVING) is 0",
          lambda h: h.state.sysinfo is not None and not h.state.sysinfo.features0 & FEATURES0_TD_PRESERVING, False,
          "LNX tdx-host.c"),
    Check("SUPPORTED.erratum", "SEAMRET invalidates the current VMCS on this CPU (seamret_invd_vmcs)",
          lambda h: "seamret_invd_vmcs" in h.state.bugs, False, "LNX tdx-host.c",
          applies=lambda s: s.vmcs in (Vmcs.HIDDEN, Vmcs.HIDDEN_WARN)),
), "Why no P-SEAMLDR attribute and no upload directory is there; asked once, when the device is created.")


PROBE: CheckTable[Host, Errno] = CheckTable("tdx_host probe", (
    Check("PROBE.feature", "the CPU has no TDX host platform", lambda h: "tdx_host_platform" not in h.state.features,
          Errno.ENODEV, "LNX tdx-host.c"),
    Check("PROBE.initialized", "the module is not initialised", lambda h: not h.state.module.initialized,
          Errno.ENODEV, "LNX tdx-host.c"),
), "Loading the tdx-host driver.")


def probe(host: Host) -> Errno:
    """Load the tdx-host driver: create the device, and the upload directory where updates are supported."""
    row = PROBE.decide(host)
    if row is not None:
        return row.result
    updates = SUPPORTED.decide(host, host.series) is None
    read_once: tuple[tuple[str, str], ...] = ()
    series = host.series
    if updates and series.name == "v1":
        ret, info = seamldr_get_info(host)
        if info is None:
            return ret
        read_once = (("version", _version(series, info)), ("num_remaining_updates", f"{info.num_remaining_updates}\n"))
    uploads = updates
    if updates and series.hides_when_none_remain:
        ret, info = seamldr_get_info(host)
        uploads = info is not None and info.num_remaining_updates > 0
    host.set(device=Device(updates, read_once), upload=Upload(series.upload_name) if uploads else None)
    return Errno.OK


def _version(series: KernelSeries, info: Record) -> str:
    update = f"{info.update_version:02}" if series.update_print.endswith("02u") else f"{info.update_version}"
    return f"{info.major_version}.{info.minor_version}.{update}\n"


# --- the upload directory -------------------------------------------------------------------------------------


def upload(host: Host) -> Upload:
    """The upload record."""
    held: Upload | None = host.state.upload
    if held is None:
        raise SeamrefError("no upload directory is registered")
    return held


def _set(host: Host, **changes: object) -> None:
    host.set(upload=replace(upload(host), **changes))  # type: ignore[arg-type]


_SYSFS = "LNX drivers/base/firmware_loader/sysfs.c"
_SYSFS_UPLOAD = "LNX drivers/base/firmware_loader/sysfs_upload.c"


class LoadingText(Enum):
    """How the text written to ``loading`` becomes a number."""

    STRTOL = "simple_strtol: a minus sign, then digits as far as they go; no digit reads as 0"
    KSTRTOINT = "kstrtoint: one sign, digits, at most one newline behind them; anything else is -EINVAL"


@implements("FW.loading.text", "`loading` takes a number; older kernels read what is none as 0, newer ones refuse it",
            _SYSFS, MEASURED)
def parse_loading(text: str, how: LoadingText = LoadingText.STRTOL) -> int | Errno:
    """FW.loading.text: the number as a 32-bit int; -EINVAL and -ERANGE with ``KSTRTOINT`` only."""
    text = text.partition("\0")[0]
    match how:
        case LoadingText.STRTOL:
            found = re.match(r"(-?)([0-9]*)", text)
            assert found is not None
            value = int(found[2] or "0") & M64
            value = (-value if found[1] else value) & M32
            return value - (1 << 32) if value >> 31 else value
        case LoadingText.KSTRTOINT:
            strict = re.fullmatch(r"([-+]?)([0-9]+)\n?", text)
            if strict is None:
                return Errno.EINVAL
            value = int(strict[1] + strict[2])
            return value if -(1 << 31) <= value < 1 << 31 else Errno.ERANGE
        case _ as never:
            assert_never(never)


@implements("FW.loading", "1 starts collecting, 0 ends it and starts the worker, -1 throws it away; any other number, "
            "and 0 when nothing is collected, is -1 with a message; while a worker has the data nothing happens at all",
            _SYSFS, MEASURED)
def write_loading(host: Host, text: str, how: LoadingText = LoadingText.STRTOL) -> Errno:
    """FW.loading: 0 in every case but FW.loading.text's and FW.loading.busy's."""
    up = upload(host)
    number = parse_loading(text, how)
    if isinstance(number, Errno):
        return number
    if up.state is FwState.DONE:
        return Errno.OK
    match number:
        case 1:
            _set(host, state=FwState.LOADING, buffer=b"")
            return Errno.OK
        case 0 if up.state is FwState.LOADING:
            return _start(host, up)
        case -1:
            pass
        case _:
            host.log(log.UPLOAD_VALUE, name=up.name, number=number)
    _set(host, state=FwState.INITIAL)
    return Errno.OK


@implements("FW.loading.busy", "-EBUSY only when the worker has given its data back but is not idle yet; the new data "
            "are then nobody's, and the directory takes no others", _SYSFS_UPLOAD)
def _start(host: Host, up: Upload) -> Errno:
    """FW.loading.busy: empty data start nothing."""
    if not up.buffer:
        _set(host, state=FwState.INITIAL)
        return Errno.OK
    if up.status is not Status.IDLE:
        _set(host, state=FwState.DONE)
        return Errno.EBUSY
    _set(host, state=FwState.DONE, status=Status.RECEIVING, error=None, remaining=len(up.buffer), canceled=False)
    return Errno.OK


@implements("FW.data", "`data` is a file: a write goes to its offset, a second `cat` starts at 0 again; it is taken "
            "with or without 1 in `loading`, which throws away what is there; -ENODEV while a worker has the data",
            _SYSFS, MEASURED)
def write_data(host: Host, data: bytes, offset: int = 0) -> Errno:
    """FW.data: the size is the largest end of any write; a gap reads as zeros (*chosen*: the pages are not cleared)."""
    up = upload(host)
    if up.state is FwState.DONE:
        return Errno.ENODEV
    held = up.buffer.ljust(offset, b"\0")
    _set(host, buffer=held[:offset] + data + held[offset + len(data) :])
    return Errno.OK


@implements("FW.data.read", "reading `data` gives back what was written, also behind -1; -ENODEV while a worker has it",
            _SYSFS, MEASURED)
def read_data(host: Host, offset: int = 0) -> bytes | Errno:
    """FW.data.read: from ``offset`` to the end; empty behind the end."""
    up = upload(host)
    return Errno.ENODEV if up.state is FwState.DONE else up.buffer[offset:]


_TRUE = re.compile(r"[yYtT1eE]|[oO][nN]")


@implements("FW.cancel", "a text that begins like a true value cancels; -EINVAL for anything else, -ENODEV when idle",
            _SYSFS_UPLOAD + " and kstrtobool", MEASURED)
def write_cancel(host: Host, text: str) -> Errno:
    """FW.cancel: merged Linux has nothing behind it, an update under way cannot be stopped.

    Only the first character counts (of "on" and "off" two): "12", "yolo" and "1 0" are true, " 1" is not.
    """
    if _TRUE.match(text) is None:
        return Errno.EINVAL
    if upload(host).status is Status.IDLE:
        return Errno.ENODEV
    if host.series.can_cancel:
        _set(host, canceled=True)
    return Errno.OK


@implements("FW.error", "empty, or the status at the failure and the error; -EBUSY unless idle", _SYSFS_UPLOAD,
            MEASURED)
def read_error(host: Host) -> str | Errno:
    """FW.error."""
    up = upload(host)
    if up.status is not Status.IDLE:
        return Errno.EBUSY
    return f"{up.error[0].value}:{up.error[1].value}\n" if up.error else ""


clause("FW.worker", "prepare, write, poll_complete; progress RECEIVING, PREPARING, TRANSFERRING, PROGRAMMING, idle",
       _SYSFS_UPLOAD, MEASURED)
clause("FW.worker.end", "at its end the worker gives the data back first and becomes idle after that", _SYSFS_UPLOAD)


def is_working(host: Host) -> bool:
    """Whether the worker has something to do and would get on with it."""
    up = host.state.upload
    return up is not None and up.status is not Status.IDLE and not up.hung


def work(host: Host, schedule: Schedule = in_order) -> Status:
    """The worker to its next change of ``status``; from TRANSFERRING that is the whole update."""
    before = upload(host).status
    while is_working(host) and upload(host).status is before:
        work_piece(host, schedule)
    return upload(host).status


@implements("FW.worker")
def work_piece(host: Host, schedule: Schedule = in_order) -> None:
    """FW.worker: one separable piece; user space can act between any two."""
    up = upload(host)
    match up.status:
        case _ if up.returned:
            _end(host)
        case Status.IDLE:
            pass
        case Status.RECEIVING:
            _set(host, status=Status.PREPARING)
        case Status.PREPARING:
            _set(host, status=Status.TRANSFERRING)
        case Status.TRANSFERRING if up.error is None:
            _transfer(host, up, schedule)
        case Status.TRANSFERRING | Status.PROGRAMMING:
            _set(host, state=FwState.INITIAL, buffer=b"", returned=True)
        case _ as never:
            assert_never(never)


@implements("FW.worker.end")
def _end(host: Host) -> None:
    """FW.worker.end: the other half of it."""
    _set(host, status=Status.IDLE, returned=False)


def _transfer(host: Host, up: Upload, schedule: Schedule) -> None:
    ret = Errno.ECANCELED if up.canceled else seamldr_install_module(host, up.buffer, schedule)
    if isinstance(ret, Finish):
        _set(host, hung=True)
    elif ret is Errno.OK:
        _set(host, status=Status.PROGRAMMING, remaining=0)
    else:
        failed = FwError(host.series.fw_error(ret.name))
        _set(host, error=(Status.TRANSFERRING, failed))


def work_to_end(host: Host, schedule: Schedule = in_order) -> None:
    """Run the worker until it is idle or hangs."""
    while is_working(host):
        work(host, schedule)


# --- the files ----------------------------------------------------------------------------------------------

Read = Callable[[Host], "str | bytes | Errno"]
Write = Callable[[Host, bytes], Errno]
FAUX = "/sys/devices/faux/tdx_host"


@dataclass(frozen=True, slots=True)
class File:
    """One attribute: permission bits, what reading gives, what writing does."""

    mode: int
    read: Read | None = None
    write: Write | None = None


def _text(function: Callable[[Host, str], Errno]) -> Write:
    return lambda host, data: function(host, data.decode("ascii", "replace"))


def read_version(host: Host) -> str | Errno:
    """``version``: the running module; ENXIO once an update left none."""
    if not host.state.module.initialized or host.state.sysinfo is None:
        return Errno.ENXIO
    return host.state.sysinfo.version + "\n"


def seamldr_file(name: str) -> Read:
    """How ``seamldr_version`` ("version") and ``num_remaining_updates`` are read: SEAMLDR.INFO, each time."""
    def read(host: Host) -> str | Errno:
        device = host.state.device
        for known, text in device.read_once if device is not None else ():
            if known == name:
                return text
        ret, info = seamldr_get_info(host)
        if info is None:
            return ret
        return _version(host.series, info) if name == "version" else f"{info.num_remaining_updates}\n"

    return read


def files(host: Host) -> dict[str, File]:
    """Every file that exists now, by path."""
    device: Device | None = host.state.device
    found: dict[str, File] = {}
    if device is None:
        return found
    root = FAUX if host.series.name != "v1" else "/sys/devices/virtual/tdx/tdx_tsm"
    found[f"{root}/version"] = File(0o444, read_version)
    if device.updates:
        where, mode = host.series.seamldr_dir, host.series.seamldr_mode
        prefix = "seamldr_" if where == FAUX else ""
        found[f"{where}/{prefix}version"] = File(mode, seamldr_file("version"))
        found[f"{where}/num_remaining_updates"] = File(mode, seamldr_file("num_remaining_updates"))
    up: Upload | None = host.state.upload
    if up is not None:
        for here in (f"/sys/class/firmware/{up.name}", f"{root}/firmware/{up.name}"):
            found |= _upload_files(here)
    return found


@implements("FW.directory", "the upload directory is a child of the device that registered it; /sys/class/firmware has "
            "a link to it", _SYSFS_UPLOAD)
def _upload_files(here: str) -> dict[str, File]:
    """FW.directory: the same files under either path."""
    return {
        f"{here}/loading": File(0o644, lambda h: f"{int(upload(h).loading)}\n", _text(write_loading)),
        f"{here}/data": File(0o644, read_data, write_data),
        f"{here}/status": File(0o444, lambda h: upload(h).status.value + "\n"),
        f"{here}/error": File(0o444, read_error),
        f"{here}/cancel": File(0o200, None, _text(write_cancel)),
        f"{here}/remaining_size": File(0o444, lambda h: f"{upload(h).remaining}\n"),
    }


# --- a shell --------------------------------------------------------------------------------------------------


class Terminal:
    """A shell on the host: ``run`` takes a command line and gives what it prints.

    Commands: ``echo WORD > FILE``, ``cat FILE...``, ``cat LOCAL... > FILE``, ``sha256sum FILE...``, ``wc -c FILE``,
    ``ls DIR``, ``cd DIR``, ``dmesg``.  ``local`` are files of the user (images); ``root=False`` is somebody else.
    The worker runs after each command, or stage by stage through ``work`` when ``hold`` is set.
    """

    def __init__(
        self, host: Host, local: dict[str, bytes] | None = None, *, root: bool = True, hold: bool = False,
        schedule: Schedule = in_order,
    ) -> None:
        self.host = host
        self.local = local or {}
        self.root = root
        self.hold = hold
        self.schedule = schedule
        self.cwd = "/root"
        self.read_log = len(host.state.dmesg)

    def session(self, *lines: str) -> str:
        """Several commands, with prompts, as a terminal shows them."""
        shown: list[str] = []
        for line in lines:
            shown.append(f"{'#' if self.root else '$'} {line}")
            output = self.run(line)
            if output:
                shown.append(output.rstrip("\n"))
        return "\n".join(shown)

    def run(self, line: str) -> str:
        """One command line, without prompt; ``;`` and ``&&`` are not known, ``#`` starts a comment."""
        words = line.split("#")[0].split()
        if not words:
            return ""
        output = self._command(words)
        if not self.hold:
            work_to_end(self.host, self.schedule)
        return output

    def _command(self, words: list[str]) -> str:
        match words:
            case ["cd", path]:
                self.cwd = self._path(path)
                return ""
            case ["ls", *paths]:
                return self._ls(self._path(paths[0]) if paths else self.cwd)
            case ["dmesg"]:
                return "\n".join(self.host.state.dmesg)
            case ["echo", *text, ">", path]:
                return self._write("bash: line 1: echo", path, (" ".join(text) + "\n").encode())
            case ["cat", source, *more, ">", path]:
                return self._copy([source, *more], path)
            case ["cat", *paths] if paths and ">" not in paths:
                return "".join(self._cat(path) for path in paths)
            case ["sha256sum", *paths] if paths:
                return "".join(self._of("sha256sum", path, lambda data: sha256(data).hexdigest()) for path in paths)
            case ["wc", "-c", path]:
                return self._of("wc", path, lambda data: str(len(data)))
            case _:
                return f"bash: {words[0]}: command not found"

    def _path(self, path: str) -> str:
        return path.rstrip("/") if path.startswith("/") else f"{self.cwd}/{path}"

    def _read(self, path: str) -> bytes | str:
        """The bytes of a file, or what a program says that cannot have them."""
        if path in self.local:
            return self.local[path]
        file = files(self.host).get(self._path(path))
        if file is None:
            return "No such file or directory"
        if file.read is None or (not self.root and not file.mode & 0o004):
            return ERRNO_TEXT[Errno.EACCES]
        got = file.read(self.host)
        if isinstance(got, Errno):
            return ERRNO_TEXT[got]
        return got.encode() if isinstance(got, str) else got

    def _cat(self, path: str) -> str:
        got = self._read(path)
        return f"cat: {path}: {got}\n" if isinstance(got, str) else got.decode("ascii", "replace")

    def _of(self, who: str, path: str, what: Callable[[bytes], str]) -> str:
        got = self._read(path)
        return f"{who}: {path}: {got}\n" if isinstance(got, str) else f"{what(got)}  {path}\n"

    def _copy(self, sources: list[str], path: str) -> str:
        data = b""
        for source in sources:
            got = self._read(source)
            if isinstance(got, str):
                return f"cat: {source}: {got}"
            data += got
        return self._write("cat", path, data)

    def _write(self, who: str, path: str, data: bytes) -> str:
        file = files(self.host).get(self._path(path))
        if file is None:
            return f"bash: {path}: No such file or directory"
        if not self.root and not file.mode & 0o002:
            return f"bash: {path}: {ERRNO_TEXT[Errno.EACCES]}"
        if file.write is None:
            return f"{who}: write error: {ERRNO_TEXT[Errno.EIO]}"
        ret = file.write(self.host, data)
        return "" if ret is Errno.OK else f"{who}: write error: {ERRNO_TEXT[ret]}"

    def _ls(self, path: str) -> str:
        names = sorted({
            known[len(path) + 1 :].split("/")[0] for known in files(self.host) if known.startswith(path + "/")
        })
        if not names:
            return f"ls: cannot access '{path}': No such file or directory"
        return "  ".join(names)
