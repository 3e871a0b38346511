"""The series "Runtime TDX module update support", version by version, as values.

Each version is a record of behaviours; the code that runs asks the record, never the version's name.  What a version
says is in the cover letters and the discussion; Message-IDs are with each version.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum

from seamref.errors import SeamrefError
from seamref.spec import clause

clause("SERIES", "eleven versions of one series, each a record of behaviours", "LNX cover letters RFC v1 to v10, merge")


class Vmcs(Enum):
    """What the wrapper does about the VMM's current VMCS."""

    SAVE_RESTORE = "VMPTRST before, VMPTRLD after, interrupts off"
    ASSUMED = "assumed preserved (a test-only patch on the side)"
    HIDDEN = "erratum bit hides the whole interface"
    HIDDEN_WARN = "erratum bit hides the interface; the wrapper also WARNs and gives -EINVAL"


class Lock(Enum):
    """How calls of P-SEAMLDR are serialised."""

    NONE = "interrupts off, no lock (nobody posted this)"
    INSTALL_ONLY = "interrupts off; a lock around INSTALL only"
    RAW_IRQSAVE = "raw spinlock, interrupts saved and off, around every call"
    RAW = "raw spinlock around every call"
    SPINLOCK = "spinlock_t around every call (nobody posted this: it sleeps on PREEMPT_RT)"


class Hotplug(Enum):
    """Who holds CPU hotplug off during the update."""

    STOP_MACHINE = "stop_machine itself"
    READ_LOCK = "cpus_read_lock around all of it"


class Lead(Enum):
    """Which CPU does the steps that are done once."""

    FIRST_ONLINE = "lowest-numbered online CPU"
    CPU0 = "CPU 0"


class Failure(Enum):
    """What a failing CPU does, and what the others make of it."""

    JUMP_DONE = "counted and acknowledged; the last acknowledgement jumps to DONE"
    NO_ACK = "the failing CPU does not acknowledge, sets a flag, everybody leaves on the flag"
    ALL_ACK = "everybody acknowledges; a failure freezes the state and everybody leaves"


class AfterShutdown(Enum):
    """What Linux calls the module's state between SHUTDOWN and SYS.UPDATE."""

    UNINITIALIZED = "status TDX_MODULE_UNINITIALIZED"
    ERROR = "status TDX_MODULE_ERROR"
    BOOL = "initialized = false"
    ZEROED = "the whole state structure zeroed"


class Refresh(Enum):
    """What is read again after the update."""

    NOTHING = "nothing"
    VERSION_AND_HANDOFF = "version and handoff, outside stop_machine; old -> new printed, changed features warned"
    UPDATE_VERSION = "update_version only, outside stop_machine; old -> new printed, changed features warned"
    UPDATE_VERSION_QUIET = "update_version only, outside stop_machine; old -> new printed"
    VERSION_INSIDE = "the three version fields, inside stop_machine; nothing printed"


class Handoff(Enum):
    """Where the handoff version that SHUTDOWN asks for comes from."""

    CACHED = "cached at boot"
    CACHED_IF_SUPPORTED = "cached at boot if the module supports updates"
    READ = "read at shutdown"
    READ_WARN = "read at shutdown; a failure only warns"
    READ_ABORT = "read at shutdown; a failure aborts"


class Compat(Enum):
    """Whether SHUTDOWN asks the module to refuse while TDs are built (RCX bit 16)."""

    ABSENT = "never"
    IF_SUPPORTED = "if TDX_FEATURES0 bit 47"
    ALWAYS = "always"


class Blob(Enum):
    """Which image format the kernel takes."""

    V1_CHECKSUM = "1.0, checksum verified"
    V1_STRICT = "1.0, checksum, sizes and alignment"
    V1_LOOSE = "1.0, no checksum, some checks dropped"
    V1_LATE = "1.0, no checksum, file size against the header first"
    V2 = "2.0"


@dataclass(frozen=True, slots=True)
class KernelSeries:
    """SERIES: one version.  ``errors``: (errno, fw_upload error) pairs; ``otherwise`` serves every other errno.

    ``dynamic_pamt``  TDX_FEATURES0 bit 36 is asked for in TDH.SYS.CONFIG; the 4 KiB PAMT is then a bitmap
    ``extensions``    add-on features are asked for in R9 of TDH.SYS.CONFIG and TDH.SYS.UPDATE, extensions initialised
    ``based_on``      for what came after the merge: the version it changes
    """

    name: str
    date: str
    message_id: str
    patches: int
    vmcs: Vmcs
    lock: Lock
    retries_seamldr_entropy: bool
    blob: Blob
    refuses_offline: bool
    checks_remaining: bool
    hotplug: Hotplug
    lead: Lead
    failure: Failure
    after_shutdown: AfterShutdown
    clears_possible: bool
    failure_message: bool
    refresh: Refresh
    handoff: Handoff
    compat: Compat
    errors: tuple[tuple[str, str], ...]
    otherwise: str
    upload_name: str
    seamldr_dir: str
    seamldr_mode: int
    can_cancel: bool
    kconfig: str
    update_print: str = "%u.%u.%02u"
    hides_when_none_remain: bool = False
    dynamic_pamt: bool = False
    extensions: bool = False
    based_on: str = ""

    @property
    def image_rules(self) -> str:
        """The version whose image checks this one has."""
        return self.based_on or self.name

    def fw_error(self, errno_name: str) -> str:
        """The fw_upload error that an errno of the update becomes."""
        return dict(self.errors).get(errno_name, self.otherwise)


_ID = "@intel.com"
V1 = KernelSeries(
    name="v1", date="2025-05-23", message_id="20250523095322.88774-1-chao.gao" + _ID, patches=20,
    vmcs=Vmcs.SAVE_RESTORE, lock=Lock.INSTALL_ONLY, retries_seamldr_entropy=True, blob=Blob.V1_CHECKSUM,
    refuses_offline=False, checks_remaining=False, hotplug=Hotplug.STOP_MACHINE, lead=Lead.FIRST_ONLINE,
    failure=Failure.JUMP_DONE, after_shutdown=AfterShutdown.UNINITIALIZED, clears_possible=False,
    failure_message=True, refresh=Refresh.NOTHING, handoff=Handoff.CACHED, compat=Compat.ABSENT,
    errors=(("ECANCELED", "user-abort"),), otherwise="firmware-invalid", upload_name="seamldr_upload",
    seamldr_dir="/sys/devices/virtual/tdx/seamldr", seamldr_mode=0o444, can_cancel=True,
    kconfig="INTEL_TDX_MODULE_UPDATE", update_print="%u.%u.%u",
)
V2 = replace(
    V1, name="v2", date="2025-09-30", message_id="20251001025442.427697-1-chao.gao" + _ID, patches=21,
    blob=Blob.V1_STRICT, refuses_offline=True, checks_remaining=True, hotplug=Hotplug.READ_LOCK,
    refresh=Refresh.VERSION_AND_HANDOFF, seamldr_dir="/sys/devices/faux/tdx_host/seamldr",
    hides_when_none_remain=True,
)
V3 = replace(
    V2, name="v3", date="2026-01-23", message_id="20260123145645.90444-1-chao.gao" + _ID, patches=26,
    failure=Failure.NO_ACK, compat=Compat.IF_SUPPORTED,
    errors=(("ECANCELED", "user-abort"), ("EBUSY", "device-busy"), ("EIO", "hw-error"), ("ENOSPC", "flash-wearout"),
            ("ENOMEM", "read-write-error")),
    hides_when_none_remain=False,
)
V4 = replace(
    V3, name="v4", date="2026-02-12", message_id="20260212143606.534586-1-chao.gao" + _ID, patches=24,
    vmcs=Vmcs.ASSUMED, lock=Lock.RAW_IRQSAVE, retries_seamldr_entropy=False, blob=Blob.V1_LOOSE,
    handoff=Handoff.CACHED_IF_SUPPORTED, upload_name="tdx_module", seamldr_mode=0o400, can_cancel=False,
    errors=V3.errors[1:], kconfig="TDX_HOST_SERVICES",
)
V5 = replace(
    V4, name="v5", date="2026-03-15", message_id="20260315135920.354657-1-chao.gao" + _ID, patches=22,
    vmcs=Vmcs.HIDDEN, lock=Lock.RAW, refuses_offline=False, checks_remaining=False, hotplug=Hotplug.STOP_MACHINE,
)
V6 = replace(
    V5, name="v6", date="2026-03-26", message_id="20260326084448.29947-1-chao.gao" + _ID, patches=22,
    clears_possible=True,
    errors=(("EBUSY", "device-busy"), ("EIO", "hw-error"), ("ENOMEM", "read-write-error")),
)
V7 = replace(
    V6, name="v7", date="2026-03-31", message_id="20260331124214.117808-1-chao.gao" + _ID, patches=22,
    blob=Blob.V1_LATE, hotplug=Hotplug.READ_LOCK, after_shutdown=AfterShutdown.ERROR,
    refresh=Refresh.UPDATE_VERSION,
)
V8 = replace(
    V7, name="v8", date="2026-04-27", message_id="20260427152854.101171-1-chao.gao" + _ID, patches=21,
    after_shutdown=AfterShutdown.BOOL, failure_message=False, refresh=Refresh.UPDATE_VERSION_QUIET,
    handoff=Handoff.READ, compat=Compat.ALWAYS, errors=(("EBUSY", "device-busy"),),
    seamldr_dir="/sys/devices/faux/tdx_host", update_print="%u.%u.%02u",
)
V9 = replace(
    V8, name="v9", date="2026-05-13", message_id="20260513151045.1420990-1-chao.gao" + _ID, patches=23,
    blob=Blob.V2, lead=Lead.CPU0, failure=Failure.ALL_ACK, after_shutdown=AfterShutdown.ZEROED,
    refresh=Refresh.VERSION_INSIDE, handoff=Handoff.READ_WARN,
)
V10 = replace(V9, name="v10", date="2026-05-20", message_id="20260520133909.409394-1-chao.gao" + _ID, patches=25)
MERGED = replace(
    V10, name="merged", date="2026-06-16", message_id="torvalds/linux b0820861748f", vmcs=Vmcs.HIDDEN_WARN,
    handoff=Handoff.READ_ABORT, compat=Compat.ABSENT, errors=(),
)

SERIES: dict[str, KernelSeries] = {
    s.name: s for s in (V1, V2, V3, V4, V5, V6, V7, V8, V9, V10, MERGED)
}
"""In the order they were posted."""

DPAMT = replace(
    MERGED, name="dynamic-pamt", date="2026-09-04", message_id="20260526023515.288829-1-rick.p.edgecombe" + _ID,
    patches=10, dynamic_pamt=True, based_on="merged",
)
DICE = replace(
    MERGED, name="extensions-v2", date="2026-06-18", message_id="20260522034128.3144354-1-yilun.xu@linux.intel.com",
    patches=17, extensions=True, based_on="merged",
)
POSTED: dict[str, KernelSeries] = {s.name: s for s in (DICE, DPAMT)}
"""What came behind the merge and is in no release of Linux: "extensions-v2" is posted (the Message-ID is that of its
first version), "dynamic-pamt" is in the maintainers' tree for v7.4 (tip x86/tdx, 01a43c55ae5f to e61c837817ac; the
Message-ID is that of its sixth version)."""
ALL: dict[str, KernelSeries] = {**SERIES, **POSTED}


@dataclass(frozen=True, slots=True)
class Reason:
    """Why a version changed ``changed`` (fields of KernelSeries): what was said, by whom, and where.

    ``who`` is the name that the cover letter or the message itself gives; empty: the author's own, or nobody is named.
    """

    version: str
    changed: tuple[str, ...]
    why: str
    who: str
    source: str


_V2, _V3, _V4, _V8, _V9, _V10 = (s.message_id for s in (V2, V3, V4, V8, V9, V10))

WHY: tuple[Reason, ...] = (
    Reason("v2", ("seamldr_dir",), "no subsystem of its own: the tdx-host device has the attributes", "", _V2),
    Reason("v2", ("refuses_offline", "checks_remaining"), "two patches of their own: refuse while a CPU is offline, "
           "refuse when no slot for an update remains", "", _V2),
    Reason("v3", ("failure",), "how an update is aborted when something fails midway was reworked", "", _V3),
    Reason("v3", ("errors",), "errno values are mapped to the errors of an upload", "", _V3),
    Reason("v3", ("compat",), "updates at times when a TD is sensitive to them are handled", "", _V3),
    Reason("v4", ("vmcs",), "no saving and restoring around each call; microcode is to preserve the current VMCS",
           "Dave Hansen", _V4),
    Reason("v4", ("retries_seamldr_entropy",), "P-SEAMLDR's no-entropy status is not handled", "Dave Hansen", _V4),
    Reason("v4", ("seamldr_mode",), "the attributes of P-SEAMLDR are for root only", "Dave Hansen", _V4),
    Reason("v4", ("kconfig",), "no Kconfig option of its own", "Dave Hansen", _V4),
    Reason("v4", ("upload_name",), "the upload directory is called tdx_module", "Cedric", _V4),
    Reason("v4", ("can_cancel",), "canceling is not supported", "Yilun", _V4),
    Reason("v4", ("blob",), "the checksum is optional in the format, so it is not verified", "", _V4),
    Reason("v5", ("vmcs",), "saving and restoring leaves a moment in which an NMI or machine-check handler finds no "
           "current VMCS", "", "fedb3192-e68c-423c-93b2-a4dc2f964148@intel.com"),
    Reason("v5", ("vmcs",), "tracking the current VMCS outside KVM was turned down; what is left is to hide the "
           "interface where the VMCS would be lost", "", "aYIXFmT-676oN6j0@google.com"),
    Reason("v8", ("errors",), "pieces that a basic update does not need go: device-busy for a TD build, "
           "firmware-invalid for everything else", "Rick Edgecombe", _V8),
    Reason("v8", ("seamldr_dir",), "the attributes stand directly under tdx_host", "Rick Edgecombe", _V8),
    Reason("v9", ("blob",), "the image format that the maintainer suggested", "Dave Hansen", _V9),
    Reason("v9", ("refresh",), "versions are not printed during an update", "Dave Hansen", _V9),
    Reason("v9", ("failure",), "the loop of the workers reworked to read better", "Dave Hansen", _V9),
    Reason("merged", ("compat", "errors"), "the patch that asks the module to refuse was left out for the style of its "
           "code; with it went device-busy", "Dave Hansen", "reply to 22/25 of " + _V10 + ", 2026-05-20"),
)
"""What asked for the changes, as far as public messages say.  A change that is in no row has no message known here."""


def get_series(name: str) -> KernelSeries:
    """A version by name; an unknown name is an error that lists the known ones."""
    try:
        return ALL[name]
    except KeyError:
        raise SeamrefError(f"no version {name!r} of the series; there are {', '.join(ALL)}") from None
