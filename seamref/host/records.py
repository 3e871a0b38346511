"""What the kernel remembers, as frozen records; nothing here acts.

A SEAMCALL on its way, a task, a CPU, the update under way, the upload directory, and :class:`HostState`, which holds
them all.  Who changes which: :mod:`~seamref.host.seamcall` steps a :class:`Call`, :mod:`~seamref.host.tasks` a
:class:`Task`, :mod:`~seamref.host.update` the :class:`Control`, :mod:`~seamref.host.fw_upload` an :class:`Upload`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields
from enum import Enum, IntEnum
from typing import Any, TypeVar

from seamref.host.abi import ARGS, TDX_RND_NO_ENTROPY, Args, Errno
from seamref.host.log import TDX_PREFIX
from seamref.host.script import Script
from seamref.host.series import KernelSeries

Record = TypeVar("Record")


_MEMBERS: dict[type[Any], tuple[tuple[str, Callable[..., Any], Callable[..., None]], ...]] = {}


def members(kind: type[Any]) -> tuple[tuple[str, Callable[..., Any], Callable[..., None]], ...]:
    """Name, getter and setter of each slot of a record, as its class declares them."""
    if kind in _MEMBERS:
        return _MEMBERS[kind]
    found = []
    for held in fields(kind):
        home = next(base for base in reversed(kind.__mro__) if held.name in base.__dict__.get("__slots__", ()))
        slot = home.__dict__[held.name]
        found.append((held.name, slot.__get__, slot.__set__))
    _MEMBERS[kind] = tuple(found)
    return _MEMBERS[kind]


def having(record: Record, **changes: Any) -> Record:
    """``dataclasses.replace``, in a third of its time, for the slotted records here, which check nothing when made.

    A name that is no field is an error.
    """
    kind: type[Any] = type(record)
    made: Record = object.__new__(kind)
    held = _MEMBERS.get(kind) or members(kind)
    for _, get, put in held:
        put(made, get(record))
    if changes:
        left = len(changes)
        for name, _, put in held:
            if name in changes:
                put(made, changes[name])
                left -= 1
        if left:
            raise TypeError(f"{kind.__name__} has no field {', '.join(set(changes) - {name for name, _, _ in held})}")
    return made


# --- a SEAMCALL on its way ----------------------------------------------------------------------------------


class Stub(Enum):
    """The assembly entry points: name, registers loaded behind RAX, registers stored."""

    SEAMCALL = "__seamcall"
    RET = "__seamcall_ret"
    SAVED_RET = "__seamcall_saved_ret"

    @property
    def loads(self) -> tuple[str, ...]:
        """Registers loaded from the block before SEAMCALL."""
        return ARGS if self is Stub.SAVED_RET else ARGS[:6]

    @property
    def stores(self) -> tuple[str, ...]:
        """Registers stored into the block after a completed SEAMCALL."""
        return () if self is Stub.SEAMCALL else self.loads


class Wrap(Enum):
    """What stands around the stub: nothing, or the translation to errno with its messages."""

    RAW = "seamcall"
    PRERR = "seamcall_prerr"
    PRERR_RET = "seamcall_prerr_ret"


NO_ARGS = Args()


@dataclass(frozen=True, slots=True)
class Call:
    """A SEAMCALL on its way.

    ``retry_on``  statuses that are tried again (full 64-bit equality), up to 10 attempts in total
    ``inside``    SEAM was entered and not left yet
    """

    fn: int
    args: Args = NO_ARGS
    stub: Stub = Stub.SEAMCALL
    wrap: Wrap = Wrap.PRERR
    prefix: str = TDX_PREFIX
    retry_on: tuple[int, ...] = (TDX_RND_NO_ENTROPY,)
    attempts: int = 0
    inside: bool = False


@dataclass(frozen=True, slots=True)
class Returned:
    """What the helper returned: RAX (or a software-defined result) and the block."""

    rax: int
    args: Args


# --- what a CPU does ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Task:
    """One thread of control.

    ``pc``        names the handler of the next step
    ``then``      where a shared piece (a locked P-SEAMLDR call, tdx_cpu_enable) continues
    ``call``      a SEAMCALL on its way; its result arrives in ``ret`` (errno) and ``returned``
    ``cur``       the update state this CPU works on
    ``worst``     v1-v8: the error this CPU keeps to its end
    ``data``      one number the handlers pass on (a physical address, a handoff version)
    ``saved``     VMPTRST's value in the versions that save and restore
    """

    pc: str
    then: str = ""
    call: Call | None = None
    returned: Returned | None = None
    ret: Errno = Errno.OK
    cur: int = 0
    worst: Errno = Errno.OK
    data: int = 0
    saved: int = 0


@dataclass(frozen=True, slots=True)
class Cpu:
    """What the kernel knows of one CPU.

    ``lp_initialized``          TDH.SYS.LP.INIT was done since the module was last loaded
    ``cache_state_incoherent``  kexec and offlining must WBINVD
    ``vmx_refs``                users of VMX operation; VMXOFF when it falls to 0
    ``tasks``                   what runs, the interrupted ones below
    ``finished``                what the last task returned
    ``dead``                    the processor went to shutdown and will never run again
    """

    apicid: int
    online: bool = True
    lp_initialized: bool = False
    cache_state_incoherent: bool = False
    vmx_refs: int = 0
    vmxon_region: int = 0
    vmcs: int = 0
    irqs_off: bool = False
    tasks: tuple[Task, ...] = ()
    finished: Errno | None = None
    dead: bool = False


@dataclass(frozen=True, slots=True)
class Boot:
    """How this kernel was built and started, as far as TDX asks.

    ``hibernation``  hibernation is available: compiled in, and nothing else forbids it
    ``acpi_s3``      CONFIG_ACPI and CONFIG_SUSPEND: there is an ACPI S3 to be disabled
    """

    hibernation: bool = False
    acpi_s3: bool = True


@dataclass(frozen=True, slots=True)
class ModuleState:
    """``tdx_module_state``: what the kernel believes about the module.

    ``status`` exists for the versions that kept an enumeration instead of the boolean.
    """

    initialized: bool = False
    sysinit_done: bool = False
    sysinit_ret: Errno = Errno.OK
    status: str = "UNINITIALIZED"


@dataclass(frozen=True, slots=True)
class TdConfig:
    """``struct tdx_sys_info_td_conf``; ``cpuid``: (leaf, two values) for each entry."""

    attributes_fixed0: int = 0
    attributes_fixed1: int = 0
    xfam_fixed0: int = 0
    xfam_fixed1: int = 0
    max_vcpus_per_td: int = 0
    cpuid: tuple[tuple[int, int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Sysinfo:
    """Global metadata as read at boot; an update refreshes the version only.

    ``td_sizes`` of TDR, TDCS and TDVPS in bytes; ``td_config``: what a VMM may configure of a TD.
    """

    major: int
    minor: int
    update: int
    features0: int
    module_hv: int
    max_tdmrs: int = 0
    max_reserved: int = 0
    pamt_entry_sizes: tuple[int, int, int] = (0, 0, 0)
    td_sizes: tuple[int, int, int] = (0, 0, 0)
    pamt_page_bitmap_entry_bits: int = 0
    td_config: TdConfig = field(default_factory=lambda: TdConfig())

    @property
    def version(self) -> str:
        """As the kernel prints it: major.minor.update, the update with two digits."""
        return f"{self.major}.{self.minor}.{self.update:02}"


# --- the module, the update, the upload directory -----------------------------------------------------------


class UpdateState(IntEnum):
    """UPDATE.states: the global state; START is only the workers' initial value.

    The last acknowledgement of DONE counts on as well, to a value that nobody reads any more.
    """

    START = 0
    SHUTDOWN = 1
    CPU_INSTALL = 2
    CPU_INIT = 3
    RUN_UPDATE = 4
    DONE = 5
    BEHIND_DONE = 6


@dataclass(frozen=True, slots=True)
class Control:
    """UPDATE.stop_machine: what the workers share.

    ``cpus``    the CPUs that take part (online when it began)
    ``params``  physical address of SEAMLDR_PARAMS
    ``rets``    (CPU, result) in the order in which workers returned
    """

    params: int
    cpus: tuple[int, ...]
    lead: int
    state: UpdateState = UpdateState.SHUTDOWN
    acks: int = 0
    failures: int = 0
    rets: tuple[tuple[int, Errno], ...] = ()


class Status(Enum):
    """What ``status`` says."""

    IDLE = "idle"
    RECEIVING = "receiving"
    PREPARING = "preparing"
    TRANSFERRING = "transferring"
    PROGRAMMING = "programming"


class FwError(Enum):
    """What ``error`` says behind the colon."""

    HW_ERROR = "hw-error"
    TIMEOUT = "timeout"
    CANCELED = "user-abort"
    BUSY = "device-busy"
    INVALID_SIZE = "invalid-file-size"
    RW_ERROR = "read-write-error"
    WEAROUT = "flash-wearout"
    FW_INVALID = "firmware-invalid"


class FwState(Enum):
    """The generic loader's state of a buffer, beside the worker's progress."""

    INITIAL = "nothing is collected; what was written before may still be read"
    LOADING = "data are collected"
    DONE = "the data are the worker's"


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload directory.

    ``state``      of the buffer
    ``buffer``     what was written to ``data``; freed by the next 1 in ``loading``, or when the worker is done with it
    ``remaining``  bytes not yet transferred; left as it is by an error
    ``canceled``   somebody wrote 1 to ``cancel`` (v1-v3 look at it before they start)
    ``returned``   the worker has given the buffer back and is about to become idle
    ``hung``       the worker never came back
    """

    name: str
    state: FwState = FwState.INITIAL
    buffer: bytes = b""
    status: Status = Status.IDLE
    error: tuple[Status, FwError] | None = None
    remaining: int = 0
    canceled: bool = False
    returned: bool = False
    hung: bool = False

    @property
    def loading(self) -> bool:
        """What ``loading`` reads."""
        return self.state is FwState.LOADING


@dataclass(frozen=True, slots=True)
class Device:
    """``tdx_host``: whether updates were supported when it was created, and what v1 read once."""

    updates: bool
    read_once: tuple[tuple[str, str], ...] = ()


# --- all of it ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HostState:
    """Everything the kernel remembers.

    ``features``, ``bugs``  as /proc/cpuinfo spells them; ``lacks``: of XSAVE, MOVDIR64B and self-snoop, what is missing
    ``addon_features``      what TDH.SYS.CONFIG asked for in R9, and TDH.SYS.UPDATE asks for again
    ``script``              what SEAMCALL does instead of entering SEAM, where something was scripted
    """

    series: KernelSeries
    cpus: tuple[Cpu, ...]
    module: ModuleState = field(default_factory=ModuleState)
    sysinfo: Sysinfo | None = None
    features: frozenset[str] = frozenset()
    bugs: frozenset[str] = frozenset()
    addon_features: int = 0
    lacks: frozenset[str] = frozenset()
    boot: Boot = field(default_factory=lambda: Boot())
    script: Script | None = None
    keyids: tuple[int, int] = (0, 0)
    seamldr_lock: int | None = None
    sysinit_lock: int | None = None
    hotplug_readers: int = 0
    preempt_rt: bool = False
    update: Control | None = None
    upload: Upload | None = None
    device: Device | None = None
    tds: tuple[tuple[int, tuple[int, ...]], ...] = ()
    heap: tuple[tuple[int, int], ...] = ()
    dmesg: tuple[str, ...] = ()
    printed_once: frozenset[str] = frozenset()
