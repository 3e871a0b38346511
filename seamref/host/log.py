"""The lines of the kernel's log, declared once: the kernel here prints them, and ``seamref.diagnose`` reads them.

A line is said by name with its values (``host.log(PAMT, kb=4096)``); what reads it is the form of the same id in
``seamref.diagnose.lines``, which takes clauses and source from here.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum

TDX_PREFIX = "virt/tdx: "
SEAMLDR_PREFIX = "seamldr: "


class Level(Enum):
    """How loud a line is, where a public source says so."""

    ERR = "err"
    WARNING = "warning"
    INFO = "info"
    UNKNOWN = "no public source at hand says"


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line.

    ``id``      the form that reads it; wordings of one meaning share it
    ``text``    the message, with its values in braces as :meth:`str.format` takes them
    ``prefix``  what stands before it; a caller's own where a line serves several
    ``clauses`` which clauses print it, or say what stands behind it
    """

    id: str
    text: str
    level: Level
    source: str
    clauses: tuple[str, ...] = ()
    prefix: str = TDX_PREFIX

    def __str__(self) -> str:
        return self.text

    @property
    def where(self) -> str:
        """The function that a WARN() names."""
        return self.prefix.removeprefix("WARNING: ").removesuffix(": ")

    def says(self, prefix: str | None = None, **values: object) -> str:
        """The whole line, without a time."""
        return (self.prefix if prefix is None else prefix) + self.text.format(**values)


LINES: list[LogLine] = []
"""Every line, in the order of declaration."""


def _line(id: str, text: str, level: Level, source: str, *clauses: str, prefix: str = TDX_PREFIX) -> LogLine:
    made = LogLine(id, text, level, source, clauses, prefix)
    LINES.append(made)
    return made


_TDX, _SELDR, _SER = "LNX tdx.c", "LNX seamldr.c", "LNX v1-v7 seamldr.c"
_CALL = "LNX seamcall_internal.h"

# --- a SEAMCALL failed

SEAMCALL_FAILED = _line("LOG.seamcall_failed", "SEAMCALL (0x{leaf:016x}) failed: 0x{status:016x}", Level.ERR, _CALL,
                        "PRERR.other")
REGISTERS = _line("LOG.registers", "RCX 0x{rcx:016x} RDX 0x{rdx:016x} R08 0x{r8:016x}", Level.ERR, _CALL, "PRERR.other")
REGISTERS_2 = _line("LOG.registers_2", "R09 0x{r9:016x} R10 0x{r10:016x} R11 0x{r11:016x}", Level.ERR, _CALL,
                    "PRERR.other")

# --- early boot

KEYIDS = _line("LOG.keyids", "BIOS enabled: private KeyID range [{first}, {end})", Level.INFO, _TDX, "LNX.tdx_init")
FEW_KEYIDS = _line("LOG.few_keyids", "initialization failed: too few private KeyIDs available.", Level.ERR, _TDX,
                   "LNX.tdx_init", "TDX_INIT.few")
HIBERNATION = _line("LOG.hibernation", "initialization failed: Hibernation support is enabled", Level.ERR, _TDX,
                    "LNX.tdx_init", "TDX_INIT.hibernation")
ACPI_S3 = _line("LOG.acpi_s3", "Disable ACPI S3. Turn off TDX in the BIOS to use ACPI S3.", Level.INFO, _TDX,
                "LNX.tdx_init")

# --- tdx_enable

NO_PLATFORM = _line("LOG.no_host_platform", "TDX not supported by the host platform", Level.ERR, _TDX,
                    "TDX_ENABLE.platform")
NO_XSAVE = _line("LOG.required_kernel", "XSAVE is required for TDX", Level.ERR, _TDX, "TDX_ENABLE.xsave")
NO_MOVDIR64B = _line("LOG.required_kernel", "MOVDIR64B is required for TDX", Level.ERR, _TDX, "TDX_ENABLE.movdir64b")
NO_SELFSNOOP = _line("LOG.selfsnoop", "Self-snoop is required for TDX", Level.ERR, _TDX, "TDX_ENABLE.selfsnoop")
NOT_LOADED = _line("LOG.not_loaded", "module not loaded", Level.ERR, _TDX, "LNX.sysinit_once",
                   "SEAMCALL.module_not_ready")
VERSION = _line("LOG.module_version", "Module version: {major}.{minor}.{update:02}", Level.INFO,
                "LNX tdx_global_metadata.c", "LNX.sysinfo")
RBP = _line("LOG.rbp", "frame pointer (RBP) clobber bug present, upgrade TDX module", Level.ERR, _TDX, "LNX.no_rbp_mod")
PAMT = _line("LOG.pamt", "{kb} KB allocated for PAMT", Level.INFO, _TDX, "LNX.tdmr")
DYNAMIC_PAMT = _line("LOG.dynamic_pamt", "Enable Dynamic PAMT", Level.UNKNOWN, "LNX tip x86/tdx", "POSTED.config")
EXTENSIONS = _line("LOG.extensions", "{kb} KB consumed for TDX module extensions", Level.UNKNOWN,
                   "LNX posted 2026-06-18, v2", "POSTED.ext.boot")
INIT_FAILED = _line("LOG.init_failed", "TDX-Module initialization failed ({errno})", Level.ERR, _TDX, "TDX_ENABLE")
INITIALIZED = _line("LOG.initialized", "TDX-Module initialized", Level.INFO, _TDX, "TDX_ENABLE")

# --- later

LAST_OF_PACKAGE = _line("LOG.keyids_in_use", "TDX requires all packages to have an online CPU. "
                        "Delete all TDs in order to offline all CPUs of a package.", Level.UNKNOWN, _TDX,
                        "LNX.cpu_offline")
DISABLE_FAILED = _line("LOG.leaf_failed", "TDH.SYS.DISABLE failed: 0x{status:016x}", Level.UNKNOWN, _TDX,
                       "LNX.sys_disable")
SLEEPING_BUG = _line("LOG.sleeping", "BUG: sleeping function called from invalid context at "
                     "kernel/locking/spinlock_rt.c", Level.ERR, "LNX seamldr.c", "LNX.seamldr_call.lock", prefix="")

# --- updates

OFFLINE = _line("LOG.update_offline", "Cannot update TDX module if any CPU is offline", Level.UNKNOWN, _SER,
                "INSTALL_MODULE.gate", prefix=SEAMLDR_PREFIX)
BLOB_VERSION = _line("LOG.blob_version", "unsupported blob version: {version}", Level.UNKNOWN, _SER, "IMAGE1.version",
                     prefix=SEAMLDR_PREFIX)
BLOB_VERSION_HEX = _line("LOG.blob_version", "unsupported blob version: {version:x}", Level.UNKNOWN, _SER,
                         "IMAGE1.version", prefix=SEAMLDR_PREFIX)
BLOB_RESERVED = _line("LOG.blob_header", "non-zero reserved fields", Level.UNKNOWN, _SER, "IMAGE1.reserved",
                      prefix=SEAMLDR_PREFIX)
BLOB_SIGNATURE = _line("LOG.blob_header", "invalid signature", Level.UNKNOWN, _SER, "IMAGE1.signature",
                       prefix=SEAMLDR_PREFIX)
BLOB_CHECKSUM = _line("LOG.blob_header", "invalid checksum", Level.UNKNOWN, _SER, "IMAGE1.checksum",
                      prefix=SEAMLDR_PREFIX)
UPDATE_FAILED = _line("LOG.update_failed", "update failed, SEAMCALLs will report failure until TDs killed",
                      Level.UNKNOWN, _SER, "UPDATE.result", prefix=SEAMLDR_PREFIX)
UPDATED = _line("LOG.updated", "module updated: {old} -> {new}", Level.UNKNOWN, "LNX v2-v8 tdx.c",
                "UPDATE.refresh_outside")
UPLOAD_VALUE = _line("LOG.upload_value", "firmware {name}: firmware_loading_store: unexpected value ({number})",
                     Level.ERR, "LNX sysfs_upload.c", prefix="")

# --- WARN(): "WARNING: where: why"


def _warning(id: str, where: str, why: str, source: str, *clauses: str) -> LogLine:
    return _line(id, why, Level.WARNING, source, *clauses, prefix=f"WARNING: {where}: ")


WARN_INVD_VMCS = _warning("LOG.warn_seamldr", "seamldr_call", "this CPU has seamret_invd_vmcs", _SELDR,
                          "LNX.seamldr_call.erratum", "SEAMRET.vmcs")
WARN_VMPTRLD = _warning("LOG.warn_seamldr", "seamldr_call", "VMPTRLD of the saved VMCS failed", _SELDR,
                        "LNX.seamldr_call.erratum", "SEAMRET.vmcs")
WARN_HANDOFF = _warning("LOG.warn_shutdown", "tdx_module_shutdown", "reading MODULE_HV failed", _TDX,
                        "UPDATE.handoff_version")
WARN_VERSION = _warning("LOG.warn_update", "tdx_module_run_update", "reading the version failed", _TDX,
                        "UPDATE.run_update")
WARN_FEATURES = _warning("LOG.warn_update", "tdx_module_run_update",
                         "TDX_FEATURES0 changed: 0x{old:X} -> 0x{new:X}", _TDX, "UPDATE.refresh_outside")
WARN_QUOTING = _warning("LOG.warn_quoting", "init_tdx_quoting_extension", "TDH.QUOTE.INIT failed",
                        "LNX posted 2026-06-18, v2", "POSTED.ext.boot")
WARN_EXTENSIONS = _warning("LOG.warn_extensions", "tdx_ext_mem_setup",
                           "TDX module rejected ({errno}) memory for extensions", "LNX posted 2026-06-18, v2",
                           "POSTED.ext.boot")
