"""Status words of the TDX module: every code, its class, and what a caller may do about it.

RAX on return from the TDX module (TDXM include/auto_gen/tdx_error_codes_defs.h)::

    63 ERROR  62 NON_RECOVERABLE  61 FATAL  60 host recoverability hint  47:40 class  39:32 code  31:0 details

A :class:`Status` is a code without details; :class:`Result` is a code with details, the 64-bit word of the ABI;
:func:`decode` reads such a word.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum
from functools import lru_cache

from seamref.errors import SeamrefError


class Status(IntEnum):
    """Status codes, details zero.  ``means`` is for people, ``since`` the release that brought it (empty: 1.5.01)."""

    means: str
    since: str

    def __new__(cls, value: int, means: str, since: str = "") -> Status:
        """A member with its text."""
        made = int.__new__(cls, value)
        made._value_ = value
        made.means = means
        made.since = since
        return made

    TDX_SUCCESS = 0x00000000_00000000, "done"
    TDX_NON_RECOVERABLE_VCPU = 0x40000001_00000000, "the vCPU cannot run again; the TD may"
    TDX_NON_RECOVERABLE_TD = 0x60000002_00000000, "the TD cannot run again"
    TDX_INTERRUPTED_RESUMABLE = 0x80000003_00000000, "an event is pending: call again to go on"
    TDX_INTERRUPTED_RESTARTABLE = 0x80000004_00000000, "an event is pending: call again from the beginning"
    TDX_NON_RECOVERABLE_TD_NON_ACCESSIBLE = (
        0x60000005_00000000,
        "the TD cannot run again and its memory must not be touched",
    )
    TDX_INVALID_RESUMPTION = 0xC0000006_00000000, "a resumed call differs from the interrupted one"
    TDX_NON_RECOVERABLE_TD_WRONG_APIC_MODE = 0xE0000007_00000000, "the TD left x2APIC mode"
    TDX_CROSS_TD_FAULT = 0x80000008_00000000, "a fault concerning another TD"
    TDX_CROSS_TD_TRAP = 0x90000009_00000000, "a trap concerning another TD"
    TDX_NON_RECOVERABLE_TD_CORRUPTED_MD = (
        0x6000000A_00000000,
        "the TD's metadata do not match (for example its SEAMDB nonce): the TD is fatally broken",
    )
    TDX_OPERAND_INVALID = 0xC0000100_00000000, "an operand is not valid; operand RAX (0): no such leaf, version or flag"
    TDX_OPERAND_ADDR_RANGE_ERROR = 0xC0000101_00000000, "an address is not in an initialised TDMR block"
    TDX_OPERAND_BUSY = 0x80000200_00000000, "a lock on the operand is held by another processor"
    TDX_PREVIOUS_TLB_EPOCH_BUSY = 0x80000201_00000000, "a vCPU still runs in the previous TLB epoch"
    TDX_SYS_BUSY = 0x80000202_00000000, "another processor is in a call that excludes this one, or a TD runs"
    TDX_RND_NO_ENTROPY = 0x80000203_00000000, "RDRAND gave nothing"
    TDX_OPERAND_BUSY_HOST_PRIORITY = 0x80000204_00000000, "the lock is held by the guest; the host has priority next"
    TDX_HOST_PRIORITY_BUSY_TIMEOUT = 0x90000205_00000000, "the guest waited too long for a lock with host priority"
    TDX_PAGE_METADATA_INCORRECT = 0xC0000300_00000000, "the page's PAMT entry has another type or size"
    TDX_PAGE_ALREADY_FREE = 0x00000301_00000000, "the page is free"
    TDX_PAGE_NOT_OWNED_BY_TD = 0xC0000302_00000000, "the page belongs to another TD"
    TDX_PAGE_NOT_FREE = 0xC0000303_00000000, "the page is in use"
    TDX_TD_ASSOCIATED_PAGES_EXIST = 0xC0000400_00000000, "pages of the TD are still there"
    TDX_SYS_INIT_NOT_PENDING = 0xC0000500_00000000, "TDH.SYS.INIT was done already"
    TDX_SYS_LP_INIT_NOT_DONE = 0xC0000502_00000000, "TDH.SYS.LP.INIT was not done on this processor"
    TDX_SYS_LP_INIT_DONE = 0xC0000503_00000000, "TDH.SYS.LP.INIT was done on this processor already"
    TDX_SYS_NOT_READY = 0xC0000505_00000000, "the module is not (yet) in SYS_READY"
    TDX_SYS_SHUTDOWN = 0xC0000506_00000000, "the module was shut down: only P-SEAMLDR gets the platform out of it"
    TDX_SYS_KEY_CONFIG_NOT_PENDING = 0xC0000507_00000000, "TDH.SYS.KEY.CONFIG is not what comes next"
    TDX_SYS_STATE_INCORRECT = (
        0xC0000508_00000000,
        "the lifecycle state does not allow this, or processors are not initialised",
    )
    TDX_SYS_INVALID_HANDOFF = 0xC0000509_00000000, "no handoff data, or of a version this module does not read"
    TDX_SYS_INCOMPATIBLE_SIGSTRUCT = 0xC000050A_00000000, "the sigstruct's handoff fields do not fit the build"
    TDX_SYS_LP_INIT_NOT_PENDING = 0xC000050B_00000000, "TDH.SYS.LP.INIT is not what comes next"
    TDX_SYS_CONFIG_NOT_PENDING = (
        0xC000050C_00000000,
        "TDH.SYS.CONFIG is not what comes next, or processors are not initialised",
    )
    TDX_INCOMPATIBLE_SEAM_CAPABILITIES = 0xC000050D_00000000, "SEAMOPS lacks a leaf, or differs between processors"
    TDX_TD_FATAL = 0xE0000604_00000000, "the TD was marked fatally broken"
    TDX_TD_NON_DEBUG = 0xC0000605_00000000, "the TD is not debuggable"
    TDX_TDCS_NOT_ALLOCATED = 0xC0000606_00000000, "TDCS pages are missing"
    TDX_LIFECYCLE_STATE_INCORRECT = 0xC0000607_00000000, "the TD's lifecycle state does not allow this"
    TDX_OP_STATE_INCORRECT = 0xC0000608_00000000, "the TD's operation state does not allow this"
    TDX_NO_VCPUS = 0xC0000609_00000000, "the TD has no vCPU"
    TDX_TDCX_NUM_INCORRECT = 0xC0000610_00000000, "wrong number of TDCX pages"
    TDX_VCPU_STATE_INCORRECT = 0xC0000700_00000000, "the vCPU's state does not allow this"
    TDX_VCPU_ASSOCIATED = 0x80000701_00000000, "the vCPU is associated with another processor"
    TDX_VCPU_NOT_ASSOCIATED = 0x80000702_00000000, "the vCPU is not associated with this processor"
    TDX_NO_VALID_VE_INFO = 0xC0000704_00000000, "there is no #VE information"
    TDX_MAX_VCPUS_EXCEEDED = 0xC0000705_00000000, "the TD's parameters allow fewer vCPUs"
    TDX_TSC_ROLLBACK = 0xC0000706_00000000, "TSC went back since the last TD exit"
    TDX_TD_VMCS_FIELD_NOT_INITIALIZED = 0xC0000730_00000000, "a TD VMCS field is not initialised"
    TD_VMCS_FIELD_ERROR = 0xC0000731_00000000, "a TD VMCS field is wrong"
    TDX_KEY_GENERATION_FAILED = 0x80000800_00000000, "no entropy for a memory key: call again"
    TDX_TD_KEYS_NOT_CONFIGURED = 0x80000810_00000000, "the TD's key is not configured on every package"
    TDX_KEY_STATE_INCORRECT = 0xC0000811_00000000, "the KeyID's state does not allow this"
    TDX_KEY_CONFIGURED = 0x00000815_00000000, "the key is configured on this package already"
    TDX_WBCACHE_NOT_COMPLETE = 0x80000817_00000000, "caches were not written back on every package"
    TDX_HKID_NOT_FREE = 0xC0000820_00000000, "the KeyID is in use"
    TDX_NO_HKID_READY_TO_WBCACHE = 0x00000821_00000000, "no KeyID waits for a cache write-back"
    TDX_WBCACHE_RESUME_ERROR = 0xC0000823_00000000, "there is no interrupted cache write-back to resume"
    TDX_FLUSHVP_NOT_DONE = 0x80000824_00000000, "a vCPU is still associated with a processor"
    TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED = 0xC0000825_00000000, "more KeyIDs than the module can count"
    TDX_INCORRECT_CPUID_VALUE = 0xC0000900_00000000, "a CPUID value is not acceptable"
    TDX_LIMIT_CPUID_MAXVAL_SET = 0xC0000901_00000000, "IA32_MISC_ENABLE limits CPUID"
    TDX_INCONSISTENT_CPUID_FIELD = 0xC0000902_00000000, "CPUID differs between processors"
    TDX_CPUID_MAX_SUBLEAVES_UNRECOGNIZED = 0xC0000903_00000000, "unknown number of CPUID subleaves"
    TDX_CPUID_LEAF_1F_FORMAT_UNRECOGNIZED = 0xC0000904_00000000, "CPUID leaf 1FH is not understood"
    TDX_INVALID_WBINVD_SCOPE = 0xC0000905_00000000, "a cache is not package wide"
    TDX_INVALID_PKG_ID = 0xC0000906_00000000, "package number 8 or above"
    TDX_ENABLE_MONITOR_FSM_NOT_SET = 0xC0000907_00000000, "MONITOR's state machine is off"
    TDX_CPUID_LEAF_NOT_SUPPORTED = 0xC0000908_00000000, "a CPUID leaf is missing"
    TDX_SMRR_NOT_LOCKED = 0xC0000910_00000000, "SMRR is not locked"
    TDX_INVALID_SMRR_CONFIGURATION = 0xC0000911_00000000, "SMRR base or mask is malformed"
    TDX_SMRR_OVERLAPS_CMR = 0xC0000912_00000000, "SMRR overlaps convertible memory"
    TDX_SMRR_LOCK_NOT_SUPPORTED = 0xC0000913_00000000, "SMRR cannot be locked"
    TDX_SMRR_NOT_SUPPORTED = 0xC0000914_00000000, "there is no SMRR"
    TDX_INCONSISTENT_MSR = 0xC0000920_00000000, "an MSR differs between processors"
    TDX_INCORRECT_MSR_VALUE = 0xC0000921_00000000, "an MSR has an unacceptable value"
    TDX_SEAMREPORT_NOT_AVAILABLE = 0xC0000930_00000000, "SEAMOPS[SEAMREPORT] is missing"
    TDX_SEAMDB_GETREF_NOT_AVAILABLE = 0xC0000931_00000000, "SEAMOPS[SEAMDB_GETREF] is missing"
    TDX_SEAMDB_REPORT_NOT_AVAILABLE = 0xC0000932_00000000, "SEAMOPS[SEAMDB_REPORT] is missing"
    TDX_SEAMVERIFYREPORT_NOT_AVAILABLE = 0xC0000933_00000000, "SEAMOPS[SEAMVERIFYREPORT] is missing"
    TDX_INVALID_TDMR = 0xC0000A00_00000000, "a TDMR's base or size is not acceptable"
    TDX_NON_ORDERED_TDMR = 0xC0000A01_00000000, "TDMRs are not ascending, or overlap"
    TDX_TDMR_OUTSIDE_CMRS = 0xC0000A02_00000000, "a TDMR is not convertible memory"
    TDX_TDMR_ALREADY_INITIALIZED = 0x00000A03_00000000, "the TDMR is initialised to its end"
    TDX_INVALID_PAMT = 0xC0000A10_00000000, "a PAMT area's base or size is not acceptable"
    TDX_PAMT_OUTSIDE_CMRS = 0xC0000A11_00000000, "a PAMT area is not convertible memory"
    TDX_PAMT_OVERLAP = 0xC0000A12_00000000, "a PAMT area overlaps another or usable TDMR memory"
    TDX_INVALID_RESERVED_IN_TDMR = 0xC0000A20_00000000, "a reserved area is not acceptable"
    TDX_NON_ORDERED_RESERVED_IN_TDMR = 0xC0000A21_00000000, "reserved areas are not ascending"
    TDX_CMR_LIST_INVALID = 0xC0000A22_00000000, "the CMR list is malformed"
    TDX_EPT_WALK_FAILED = 0xC0000B00_00000000, "the secure EPT has no entry at that level"
    TDX_EPT_ENTRY_FREE = 0xC0000B01_00000000, "the secure EPT entry is free"
    TDX_EPT_ENTRY_NOT_FREE = 0xC0000B02_00000000, "the secure EPT entry is in use"
    TDX_EPT_ENTRY_NOT_PRESENT = 0xC0000B03_00000000, "the secure EPT entry maps nothing"
    TDX_EPT_ENTRY_NOT_LEAF = 0xC0000B04_00000000, "the secure EPT entry is no leaf"
    TDX_EPT_ENTRY_LEAF = 0xC0000B05_00000000, "the secure EPT entry is a leaf"
    TDX_GPA_RANGE_NOT_BLOCKED = 0xC0000B06_00000000, "the range is not blocked"
    TDX_GPA_RANGE_ALREADY_BLOCKED = 0x00000B07_00000000, "the range is blocked already"
    TDX_TLB_TRACKING_NOT_DONE = 0xC0000B08_00000000, "TLBs may still hold the old mapping"
    TDX_EPT_INVALID_PROMOTE_CONDITIONS = 0xC0000B09_00000000, "EPT invalid promote conditions"
    TDX_PAGE_ALREADY_ACCEPTED = 0x00000B0A_00000000, "the page was accepted already"
    TDX_PAGE_SIZE_MISMATCH = 0xC0000B0B_00000000, "the mapping has another page size"
    TDX_GPA_RANGE_BLOCKED = 0xC0000B0C_00000000, "gpa range blocked"
    TDX_EPT_ENTRY_STATE_INCORRECT = 0xC0000B0D_00000000, "the secure EPT entry's state does not allow this"
    TDX_EPT_PAGE_NOT_FREE = 0xC0000B0E_00000000, "EPT page not free"
    TDX_L2_SEPT_WALK_FAILED = 0xC0000B0F_00000000, "L2 SEPT walk failed"
    TDX_L2_SEPT_ENTRY_NOT_FREE = 0xC0000B10_00000000, "L2 SEPT entry not free"
    TDX_PAGE_ATTR_INVALID = 0xC0000B11_00000000, "page attr invalid"
    TDX_L2_SEPT_PAGE_NOT_PROVIDED = 0xC0000B12_00000000, "L2 SEPT page not provided"
    TDX_METADATA_FIELD_ID_INCORRECT = 0xC0000C00_00000000, "no such metadata field"
    TDX_METADATA_FIELD_NOT_WRITABLE = 0xC0000C01_00000000, "the metadata field is read only"
    TDX_METADATA_FIELD_NOT_READABLE = 0xC0000C02_00000000, "the metadata field is not readable here"
    TDX_METADATA_FIELD_VALUE_NOT_VALID = 0xC0000C03_00000000, "metadata field value not valid"
    TDX_METADATA_LIST_OVERFLOW = 0xC0000C04_00000000, "the list does not fit: go on at the returned field"
    TDX_INVALID_METADATA_LIST_HEADER = 0xC0000C05_00000000, "invalid metadata list header"
    TDX_REQUIRED_METADATA_FIELD_MISSING = 0xC0000C06_00000000, "required metadata field missing"
    TDX_METADATA_ELEMENT_SIZE_INCORRECT = 0xC0000C07_00000000, "metadata element size incorrect"
    TDX_METADATA_LAST_ELEMENT_INCORRECT = 0xC0000C08_00000000, "metadata last element incorrect"
    TDX_METADATA_FIELD_CURRENTLY_NOT_WRITABLE = 0xC0000C09_00000000, "metadata field currently not writable"
    TDX_METADATA_WR_MASK_NOT_VALID = 0xC0000C0A_00000000, "metadata wr mask not valid"
    TDX_METADATA_FIRST_FIELD_ID_IN_CONTEXT = 0x00000C0B_00000000, "the first field id is returned"
    TDX_METADATA_FIELD_SKIP = 0x00000C0C_00000000, "metadata field skip"
    TDX_SERVTD_ALREADY_BOUND_FOR_TYPE = 0xC0000D00_00000000, "service TD already bound for type"
    TDX_SERVTD_TYPE_MISMATCH = 0xC0000D01_00000000, "service TD type mismatch"
    TDX_SERVTD_ATTR_MISMATCH = 0xC0000D02_00000000, "service TD attr mismatch"
    TDX_SERVTD_INFO_HASH_MISMATCH = 0xC0000D03_00000000, "service TD info hash mismatch"
    TDX_SERVTD_UUID_MISMATCH = 0xC0000D04_00000000, "service TD UUID mismatch"
    TDX_SERVTD_NOT_BOUND = 0xC0000D05_00000000, "no service TD is bound"
    TDX_SERVTD_BOUND = 0xC0000D06_00000000, "service TD bound"
    TDX_TARGET_UUID_MISMATCH = 0xC0000D07_00000000, "target UUID mismatch"
    TDX_TARGET_UUID_UPDATED = 0xC0000D08_00000000, "target UUID updated"
    TDX_INVALID_MBMD = 0xC0000E00_00000000, "invalid MBMD"
    TDX_INCORRECT_MBMD_MAC = 0xC0000E01_00000000, "incorrect MBMD MAC"
    TDX_NOT_WRITE_BLOCKED = 0xC0000E02_00000000, "not write blocked"
    TDX_ALREADY_WRITE_BLOCKED = 0x00000E03_00000000, "already write blocked"
    TDX_NOT_EXPORTED = 0xC0000E04_00000000, "not exported"
    TDX_MIGRATION_STREAM_STATE_INCORRECT = 0xC0000E05_00000000, "migration stream state incorrect"
    TDX_MAX_MIGS_NUM_EXCEEDED = 0xC0000E06_00000000, "max migs num exceeded"
    TDX_EXPORTED_DIRTY_PAGES_REMAIN = 0xC0000E07_00000000, "exported dirty pages remain"
    TDX_MIGRATION_DECRYPTION_KEY_NOT_SET = 0xC0000E08_00000000, "migration decryption key not set"
    TDX_TD_NOT_MIGRATABLE = 0xC0000E09_00000000, "TD not migratable"
    TDX_PREVIOUS_EXPORT_CLEANUP_INCOMPLETE = 0xC0000E0A_00000000, "previous export cleanup incomplete"
    TDX_NUM_MIGS_HIGHER_THAN_CREATED = 0xC0000E0B_00000000, "num migs higher than created"
    TDX_IMPORT_MISMATCH = 0xC0000E0C_00000000, "import mismatch"
    TDX_MIGRATION_EPOCH_OVERFLOW = 0xC0000E0D_00000000, "migration epoch overflow"
    TDX_MAX_EXPORTS_EXCEEDED = 0xC0000E0E_00000000, "max exports exceeded"
    TDX_INVALID_PAGE_MAC = 0xC0000E0F_00000000, "invalid page MAC"
    TDX_MIGRATED_IN_CURRENT_EPOCH = 0xC0000E10_00000000, "migrated in current epoch"
    TDX_DISALLOWED_IMPORT_OVER_REMOVED = 0xC0000E11_00000000, "disallowed import over removed"
    TDX_SOME_VCPUS_NOT_MIGRATED = 0xC0000E12_00000000, "some vCPUs not migrated"
    TDX_ALL_VCPUS_IMPORTED = 0xC0000E13_00000000, "all vCPUs imported"
    TDX_MIN_MIGS_NOT_CREATED = 0xC0000E14_00000000, "min migs not created"
    TDX_VCPU_ALREADY_EXPORTED = 0xC0000E15_00000000, "vcpu already exported"
    TDX_INVALID_MIGRATION_DECRYPTION_KEY = 0xC0000E16_00000000, "invalid migration decryption key"
    TDX_INVALID_CPUSVN = 0xC0001000_00000000, "the report's CPUSVN is not supported"
    TDX_INVALID_REPORTMACSTRUCT = 0xC0001001_00000000, "the report was not made on this platform"
    TDX_L2_EXIT_HOST_ROUTED_ASYNC = 0x00001100_00000000, "L2 exit host routed async"
    TDX_L2_EXIT_HOST_ROUTED_TDVMCALL = 0x00001101_00000000, "L2 exit host routed tdvmcall"
    TDX_L2_EXIT_PENDING_INTERRUPT = 0x00001102_00000000, "L2 exit pending interrupt"
    TDX_PENDING_INTERRUPT = 0x00001120_00000000, "pending interrupt"
    TDX_TD_EXIT_BEFORE_L2_ENTRY = 0x00001140_00000000, "TD exit before L2 entry"
    TDX_TD_EXIT_ON_L2_VM_EXIT = 0x00001141_00000000, "TD exit on L2 vm exit"
    TDX_TD_EXIT_ON_L2_TO_L1 = 0x00001142_00000000, "TD exit on L2 to L1"
    TDX_GLA_NOT_CANONICAL = 0xC0001160_00000000, "GLA not canonical"
    TDX_EVENT_FILTER_INVALID = 0xC0000102_00000000, "event filter invalid", "1.5.13/16"
    TDX_EVENT_FILTER_ORDER_INVALID = 0xC0000103_00000000, "event filter order invalid", "1.5.13/16"
    TDX_CRYPTO_SELF_TEST_FAILED = 0xC0000511_00000000, "the module's cryptography failed its self test", "1.5.13/16"
    TDX_UPDATE_COMPAT_SENSITIVE = (
        0x80000512_00000000,
        "a TD is being built or migrated: retry the update later", "UPDATE_COMPATIBILITY",
    )
    TDX_X2APIC_ID_NOT_UNIQUE = 0xC0000621_00000000, "another vCPU has this x2APIC id (low half: the id)", "1.5.05"
    TDX_INTERRUPTIBILITY_BLOCKED = 0xC0000707_00000000, "interruptibility blocked", "1.5.13/16"
    TDX_VIRTUAL_MSR_VALUE_NOT_VALID = 0xC0000C0D_00000000, "virtual MSR value not valid", "1.5.13/16"
    TDX_L2_VM_ENTRY_FAILED = 0x80001103_00000000, "L2 vm entry failed", "1.5.13/16"


class Operand(IntEnum):
    """Operand ids in the low half of "with operand id" statuses (TDXM)."""

    RAX = 0
    RCX = 1
    RDX = 2
    RBX = 3
    RBP = 5
    RSI = 6
    RDI = 7
    R8 = 8
    R9 = 9
    R10 = 10
    R11 = 11
    R12 = 12
    R13 = 13
    R14 = 14
    R15 = 15
    ATTRIBUTES = 64
    XFAM = 65
    EXEC_CONTROLS = 66
    EPTP_CONTROLS = 67
    MAX_VCPUS = 68
    CPUID_CONFIG = 69
    TSC_FREQUENCY = 70
    NUM_L2_VMS = 71
    IA32_ARCH_CAPABILITIES_CONFIG = 72
    PAGE = 95
    TDMR_INFO_PA = 96
    TDR = 128
    TDCX = 129
    TDVPR = 130
    REG_PAGE = 132
    TDCS = 144
    TDVPS = 145
    SEPT_TREE = 146
    SEPT_ENTRY = 147
    RTMR = 168
    TD_EPOCH = 169
    MIGSC = 171
    OP_STATE = 172
    SERVTD_BINDINGS = 174
    METADATA_FIELD = 176
    SYS = 184
    TDMR = 185
    KOT = 186
    KET = 187
    WBCACHE = 188


CLASSES: dict[int, str] = {
    0x00: "general or TD exit",
    0x01: "operand",
    0x02: "resource busy",
    0x03: "page metadata",
    0x04: "dependent resources",
    0x05: "system state",
    0x06: "TD state",
    0x07: "vCPU state",
    0x08: "keys",
    0x09: "platform",
    0x0A: "memory configuration",
    0x0B: "secure EPT",
    0x0C: "metadata",
    0x0D: "service TD",
    0x0E: "migration",
    0x10: "local attestation",
    0x11: "TD partitioning",
}
"""Class byte (47:40) in words."""


class Recoverability(Enum):
    """What bits 63:62 say to a caller."""

    SUCCESS = "success, possibly with a note"
    RETRY = "recoverable error: retry later, or after some action"
    FINAL = "error: the same call with the same operands in this state cannot succeed"
    BROKEN = "completed, but the vCPU or TD cannot run again"


class Details(Enum):
    """What the low half of a status word holds."""

    NONE = "none"
    OPERAND = "operand id"
    MSR = "MSR number"
    BYTES = "up to four packed bytes"
    NUMBER = "a number"
    EXIT_REASON = "VMX exit reason"


_MSR = {Status.TDX_INCORRECT_MSR_VALUE, Status.TDX_INCONSISTENT_MSR}
_OPERAND_CLASSES = {0x01, 0x02, 0x03, 0x0B}
_BYTES_CLASSES = {0x0A}
_NUMBER = {
    Status.TDX_CPUID_LEAF_NOT_SUPPORTED, Status.TDX_INVALID_PKG_ID, Status.TDX_NUM_ACTIVATED_HKIDS_NOT_SUPPORTED,
    Status.TDX_X2APIC_ID_NOT_UNIQUE, Status.TDX_SMRR_NOT_LOCKED, Status.TDX_INVALID_SMRR_CONFIGURATION,
}


def details_of(status: Status) -> Details:
    """What the low half means under this code."""
    kind = int(status) >> 40 & 0xFF
    if status in _MSR:
        return Details.MSR
    if status in _NUMBER:
        return Details.NUMBER
    notes = (Status.TDX_SYS_BUSY, Status.TDX_RND_NO_ENTROPY, Status.TDX_TDMR_ALREADY_INITIALIZED)
    if status in notes or status is Status.TDX_CMR_LIST_INVALID:
        return Details.NONE
    if status is Status.TDX_SMRR_OVERLAPS_CMR or kind in _BYTES_CLASSES:
        return Details.BYTES
    if kind in _OPERAND_CLASSES:
        return Details.OPERAND
    if kind == 0:
        return Details.EXIT_REASON
    return Details.NONE


def pack(*parts: int) -> int:
    """"Multi info" details: up to four bytes, the first lowest."""
    if len(parts) > 4 or any(not 0 <= part <= 0xFF for part in parts):
        raise SeamrefError(f"status details {parts}: at most four bytes")
    return sum(part << 8 * at for at, part in enumerate(parts))


@dataclass(frozen=True, slots=True)
class Result:
    """What a leaf answers in RAX: a status and its details."""

    status: Status
    details: int = 0

    @property
    def rax(self) -> int:
        """The word of the ABI."""
        return int(self.status) | self.details

    @property
    def ok(self) -> bool:
        """Bit 63 is 0: success, possibly with a note."""
        return not self.rax >> 63

    def __str__(self) -> str:
        return str(decode(self.rax))


SUCCESS = Result(Status.TDX_SUCCESS)
FATAL_BIT, NON_RECOVERABLE_BIT, ERROR_BIT = 1 << 61, 1 << 62, 1 << 63


@dataclass(frozen=True, slots=True)
class Decoded:
    """A status word read by its fields; ``status`` is ``None`` for a code no module of ours is known to return."""

    word: int
    status: Status | None

    @property
    def error(self) -> bool:
        """Bit 63."""
        return bool(self.word & ERROR_BIT)

    @property
    def non_recoverable(self) -> bool:
        """Bit 62."""
        return bool(self.word & NON_RECOVERABLE_BIT)

    @property
    def fatal(self) -> bool:
        """Bit 61: the TD is fatally broken."""
        return bool(self.word & FATAL_BIT)

    @property
    def recoverability(self) -> Recoverability:
        """Bits 63:62."""
        r = Recoverability
        return (r.SUCCESS, r.BROKEN, r.RETRY, r.FINAL)[self.word >> 62]

    @property
    def class_code(self) -> int:
        """Bits 47:40."""
        return self.word >> 40 & 0xFF

    @property
    def class_name(self) -> str:
        """The class in words."""
        return CLASSES.get(self.class_code, f"class 0x{self.class_code:02X}")

    @property
    def code(self) -> int:
        """Bits 39:32, the code inside its class."""
        return self.word >> 32 & 0xFF

    @property
    def details(self) -> int:
        """Bits 31:0."""
        return self.word & 0xFFFFFFFF

    @property
    def details_text(self) -> str:
        """The details in words; empty when there are none."""
        if self.status is None:
            return f"details 0x{self.details:X}" if self.details else ""
        match details_of(self.status):
            case Details.OPERAND:
                known = self.details in Operand._value2member_map_
                return f"operand {Operand(self.details).name}" if known else f"operand {self.details}"
            case Details.MSR:
                return f"MSR 0x{self.details:X}"
            case Details.BYTES:
                return "details " + " ".join(str(self.details >> s & 0xFF) for s in (0, 8, 16, 24))
            case Details.NUMBER:
                return f"0x{self.details:X}"
            case Details.EXIT_REASON:
                return f"exit reason {self.details & 0xFFFF}" if self.details else ""
            case Details.NONE:
                return f"details 0x{self.details:X}" if self.details else ""

    def __str__(self) -> str:
        name = self.status.name if self.status is not None else f"0x{self.word >> 32 << 32:016X}"
        text = self.details_text
        return name + (f" ({text})" if text else "")


@lru_cache(maxsize=1)
def _by_code() -> dict[int, Status]:
    return {int(status): status for status in Status}


def decode(word: int) -> Decoded:
    """Read a status word.  Bit 60 and bit 61 modify codes, so an exact match is tried before one without them."""
    if not 0 <= word < 1 << 64:
        raise SeamrefError(f"status word 0x{word:X}: must have 64 bits")
    base = word >> 32 << 32
    for candidate in (base, base & ~FATAL_BIT, base & ~(1 << 60), base & ~(FATAL_BIT | 1 << 60)):
        if (found := _by_code().get(candidate)) is not None:
            return Decoded(word, found)
    return Decoded(word, None)
