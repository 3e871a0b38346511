"""Numbers and names both ways: leaves of every callee, statuses of every component, errno.

The names are read from where the components declare them (the module's leaves, P-SEAMLDR's ABI, the kernel's header);
nothing is listed a second time here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache

from seamref.host.abi import TDX_SEAMCALL_VMFAILINVALID, TDX_SW_ERROR
from seamref.host.abi import Leaf as HostLeaf
from seamref.pseamldr.api import Leaf as LoaderLeaf
from seamref.pseamldr.api import Status as LoaderStatus
from seamref.tdxmodule.status import Operand
from seamref.tdxmodule.status import Status as ModuleStatus

MODULE, LOADER, NP_LOADER = "TDX module", "P-SEAMLDR", "NP-SEAMLDR"
KERNEL, CPU = "Linux (software-defined)", "the processor"
BIT63 = 1 << 63
M64 = (1 << 64) - 1
LEAF_NUMBER, LEAF_VERSION = 0xFFFF, 0xFF
VERSION_SHIFT = 16


@lru_cache(maxsize=1)
def module_leaves() -> dict[int, str]:
    """Every host-side leaf of the TDX module: those that are modelled, those that are only named, Linux's own."""
    from seamref.tdxmodule.core import LEAVES
    from seamref.tdxmodule.program import UNMODELLED

    named = {int(leaf): leaf.title for leaf in HostLeaf if not leaf & BIT63}
    gaps = {n: gap.name for n, gap in UNMODELLED.items()}
    return dict(sorted({**named, **gaps, **{n: leaf.name for n, leaf in LEAVES.items()}}.items()))


@lru_cache(maxsize=1)
def loader_leaves() -> dict[int, str]:
    """P-SEAMLDR's leaves, bit 63 included."""
    return {int(leaf): f"SEAMLDR.{leaf.name}" for leaf in LoaderLeaf}


@lru_cache(maxsize=1)
def guest_leaves() -> dict[int, str]:
    """Leaves that a TD calls with TDCALL, as far as they are modelled."""
    from seamref.tdxmodule.run import GUEST_LEAVES

    return {number: leaf.name for number, leaf in GUEST_LEAVES.items()}


@dataclass(frozen=True, slots=True)
class LeafName:
    """RAX of a SEAMCALL taken apart: the leaf's number (bit 63 kept), its version, its name ("" when none is known)."""

    number: int
    version: int
    name: str

    @property
    def loader(self) -> bool:
        """Bit 63: P-SEAMLDR is called."""
        return bool(self.number & BIT63)

    def __str__(self) -> str:
        number = f"0x{self.number:X}"
        text = f"{self.name} (leaf {number})" if self.name else f"leaf {number}"
        return text + (f" version {self.version}" if self.version else "")


def leaf_of(rax: int) -> LeafName | None:
    """The leaf a RAX names; ``None`` when reserved bits are set.  P-SEAMLDR compares all 64 bits, the module 16."""
    if rax & BIT63:
        return LeafName(rax, 0, loader_leaves()[rax]) if rax in loader_leaves() else None
    if rax >> (VERSION_SHIFT + 8):
        return None
    number = rax & LEAF_NUMBER
    return LeafName(number, rax >> VERSION_SHIFT & LEAF_VERSION, module_leaves().get(number, ""))


LEAF_WORD = re.compile(r"\b(?:TD[HG]|SEAMLDR)[._][A-Z][A-Z0-9]*(?:[._][A-Z0-9]+)*\b", re.IGNORECASE)


def leaf_by_name(word: str) -> int | None:
    """The number of TDH.MNG.INIT, tdh_mng_init or SEAMLDR_INSTALL; guest leaves are not SEAMCALLs: ``None``."""
    return _by_leaf_name().get(word.upper().replace("_", "."))


@lru_cache(maxsize=1)
def _by_leaf_name() -> dict[str, int]:
    return {name: number for leaves in (module_leaves(), loader_leaves()) for number, name in leaves.items()}


# --- statuses -----------------------------------------------------------------------------------------------

STATUS_WORD = re.compile(r"\bTDX?_[A-Z0-9_]{3,60}\b")
LOADER_WORDS = {status.name for status in LoaderStatus} - {"SUCCESS", "ENOMEM"}
"""Names that only P-SEAMLDR has; SUCCESS is everybody's word and ENOMEM an errno."""


def module_status(value: int) -> ModuleStatus | None:
    """The module's status whose code a word carries; only codes that are declared, with bits 60 and 61 as they are."""
    from seamref.tdxmodule.status import decode

    return decode(value).status


def is_software_status(value: int) -> bool:
    """TDX_SW_ERROR with a vector, or the kernel's VMfailInvalid; other words with these bits are addresses."""
    if value == TDX_SEAMCALL_VMFAILINVALID:
        return True
    return value >> 32 == TDX_SW_ERROR >> 32 and value & 0xFFFFFFFF < 32


def is_error_status(value: int) -> bool:
    """Whether a word found in a line can only be meant as an error status: bit 63 or 62, and a declared code."""
    if is_software_status(value) or (value in LoaderStatus._value2member_map_ and value):
        return True
    if not value >> 62:
        return False
    found = module_status(value)
    return found is not None and found is not ModuleStatus.TDX_SUCCESS and _details_fit(value, found)


def _details_fit(value: int, status: ModuleStatus) -> bool:
    """Operand ids are declared numbers; a low half that is none belongs to an address, not to a status."""
    from seamref.tdxmodule.status import Details, details_of

    low = value & 0xFFFFFFFF
    match details_of(status):
        case Details.OPERAND:
            return low == 0 or low in Operand._value2member_map_ or low < 0x100
        case _:
            return True


# --- errno --------------------------------------------------------------------------------------------------

LINUX_ERRNO: dict[int, tuple[str, str]] = {
    1: ("EPERM", "Operation not permitted"), 2: ("ENOENT", "No such file or directory"),
    5: ("EIO", "Input/output error"), 6: ("ENXIO", "No such device or address"),
    7: ("E2BIG", "Argument list too long"), 9: ("EBADF", "Bad file descriptor"),
    11: ("EAGAIN", "Resource temporarily unavailable"), 12: ("ENOMEM", "Cannot allocate memory"),
    13: ("EACCES", "Permission denied"), 14: ("EFAULT", "Bad address"), 16: ("EBUSY", "Device or resource busy"),
    17: ("EEXIST", "File exists"), 19: ("ENODEV", "No such device"), 22: ("EINVAL", "Invalid argument"),
    25: ("ENOTTY", "Inappropriate ioctl for device"), 27: ("EFBIG", "File too large"),
    28: ("ENOSPC", "No space left on device"), 32: ("EPIPE", "Broken pipe"),
    34: ("ERANGE", "Numerical result out of range"), 38: ("ENOSYS", "Function not implemented"),
    95: ("EOPNOTSUPP", "Operation not supported"), 110: ("ETIMEDOUT", "Connection timed out"),
    125: ("ECANCELED", "Operation canceled"),
}
"""x86 Linux numbers with the text of the C library, whatever system this runs on."""
ERRNO_NUMBER = {name: number for number, (name, _) in LINUX_ERRNO.items()}
ERRNO_BY_TEXT = {text: number for number, (_, text) in LINUX_ERRNO.items()}
ERRNO_TEXTS = "|".join(sorted(map(re.escape, ERRNO_BY_TEXT), key=len, reverse=True))


def errno_name(number: int) -> str:
    """-5 as "-EIO (-5)"; a number without a name stays one."""
    found = LINUX_ERRNO.get(abs(number))
    return f"-{found[0]} (-{abs(number)})" if found else f"-{abs(number)}"
