"""MSRs as people read them: numbers as rdmsr prints them, bit fields, partial names, and registers without a model.

An MSR that exists on TDX machines but that this specification does not model is described here and said to be not
modelled; it never answers #GP, which would claim that the processor does not have it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from seamref.arch import msr as registers
from seamref.arch.msr import MSRS, Msr
from seamref.errors import SeamrefError
from seamref.layout import Bit

BIOS, OS, PART = "bios", "os", "cpu"
OWNERS = {BIOS: "set by BIOS", OS: "owned by the operating system", PART: "read-only: the part and its microcode"}


@dataclass(frozen=True, slots=True)
class Unmodelled:
    """An MSR that is known by name only."""

    address: int
    name: str
    owner: str
    meaning: str
    source: str
    bits: tuple[Bit, ...] = ()


_SDM = "SDM vol. 4"
UNMODELLED: dict[int, Unmodelled] = {m.address: m for m in (
    Unmodelled(0x10, "IA32_TIME_STAMP_COUNTER", OS, "time stamp counter", _SDM),
    Unmodelled(0x17, "IA32_PLATFORM_ID", PART, "platform id, for the choice of microcode", _SDM),
    Unmodelled(0x33, "MSR_MEMORY_CTRL", OS, "split lock detection and others", _SDM),
    Unmodelled(0x35, "MSR_CORE_THREAD_COUNT", PART, "enabled threads and cores of the package", _SDM, (
        Bit("thread_count", 15, 0), Bit("core_count", 31, 16))),
    Unmodelled(0x4F, "MSR_PPIN", PART, "protected processor inventory number (a serial number: do not publish)", _SDM),
    *(Unmodelled(0x8C + i, f"IA32_SGXLEPUBKEYHASH{i}", OS, "SGX launch key hash", _SDM) for i in range(4)),
    Unmodelled(0xA0, "SGX_AND_MCHECK_STATUS", PART, "what microcode's platform check (MCHECK) and SGX activation left: "
               "0 is no error", "canonical/tdx system-report.sh (the name is from there; expected value 0)"),
    Unmodelled(0xCE, "MSR_PLATFORM_INFO", PART, "ratios and features of the platform; bit 27 is read by "
               "canonical/tdx's report to tell production parts from others", _SDM, (
                   Bit("max_non_turbo_ratio", 15, 8), Bit("bit_27", 27, 27))),
    Unmodelled(0x122, "IA32_TSX_CTRL", OS, "switches TSX off", _SDM, (
        Bit("rtm_disable", 0, 0), Bit("tsx_cpuid_clear", 1, 1))),
    Unmodelled(0x13A, "MSR_BOOT_GUARD_SACM_INFO", PART, "what the startup ACM of Boot Guard did", _SDM),
    Unmodelled(0x1FB, "PRMRR_VALID_CONFIG", PART, "sizes that processor reserved memory may have", "SGX BIOS notes"),
    *(Unmodelled(0x2A0 + i, f"IA32_PRMRR_PHYS_BASE_{i}", BIOS, "base of a further range of processor reserved memory",
                 _SDM, (Bit("configured", 3, 3), Bit("base", 51, 12))) for i in range(1, 8)),
    Unmodelled(0x6A0, "IA32_U_CET", OS, "user mode CET", _SDM),
    Unmodelled(0x6A2, "IA32_S_CET", OS, "supervisor CET", _SDM),
    Unmodelled(0xDA0, "IA32_XSS", OS, "supervisor XSAVE states", _SDM),
    Unmodelled(0xC0000081, "IA32_STAR", OS, "system call target", _SDM),
    Unmodelled(0xC0000082, "IA32_LSTAR", OS, "system call target", _SDM),
    Unmodelled(0xC0000100, "IA32_FS_BASE", OS, "FS base", _SDM),
    Unmodelled(0xC0000101, "IA32_GS_BASE", OS, "GS base", _SDM),
    Unmodelled(0xC0000102, "IA32_KERNEL_GS_BASE", OS, "swapped GS base", _SDM),
    Unmodelled(0xC0000103, "IA32_TSC_AUX", OS, "what RDTSCP gives", _SDM),
)}

_OWNER: dict[int, str] = {
    **dict.fromkeys((0x3B, 0x48, 0x1A0, 0x1D9, 0x277, 0xC0000080), OS),
    **dict.fromkeys((0x3A, 0x1F2, 0x1F3, 0x1F5, 0x2A0, 0x982, 0x983, 0x984, 0x1400, 0x1401, 0x302, 0x151), BIOS),
    **dict.fromkeys((0x87, 0x8B, 0xBC, 0xBD, 0xCF, 0xFE, 0x10A, 0x179, 0x345, 0x500, 0x503, 0x981,
                     *range(0x480, 0x493)), PART),
}
"""Who decides the value of a modelled MSR."""


def owner_of(address: int) -> str:
    """ "bios", "os", "cpu", or "" when nobody is known."""
    held = UNMODELLED.get(address)
    return held.owner if held is not None else _OWNER.get(address, "")


def name_of(address: int) -> str:
    """The name, "" when none is known."""
    held = MSRS.get(address) or UNMODELLED.get(address)
    return "" if held is None else held.name


def describe(address: int) -> str:
    """One line for an advice: number, name, owner."""
    held = MSRS.get(address) or UNMODELLED.get(address)
    if held is None:
        return f"MSR 0x{address:X}: not known here"
    owner = OWNERS.get(owner_of(address), "")
    return f"MSR 0x{address:X} {held.name}: {held.meaning}" + (f"; {owner}" if owner else "")


# --- numbers ------------------------------------------------------------------------------------------------

_HEX = re.compile(r"(?:0[xX])?[0-9a-fA-F](?:_?[0-9a-fA-F])*\Z")
MAX_DIGITS = 20


def number(text: str, what: str = "value") -> int:
    """A register's value as rdmsr prints it: hexadecimal with or without 0x; more than 64 bits are an error."""
    text = text.strip()
    if not _HEX.match(text) or len(text) > MAX_DIGITS:
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise SeamrefError(f"{what}: {shown!r}, must be a hexadecimal number of at most 64 bits, as rdmsr prints it")
    value = int(text.replace("_", ""), 16)
    if value >> 64:
        raise SeamrefError(f"{what}: 0x{value:X} has {value.bit_length()} bits, must have 64 at most")
    return value


def field(text: str) -> tuple[int, int]:
    """ "63:32" as rdmsr -f takes it: (high, low)."""
    found = re.fullmatch(r"\s*(\d{1,2}):(\d{1,2})\s*", text)
    if not found or not 63 >= int(found[1]) >= int(found[2]):
        raise SeamrefError(f"bit field {text[:40]!r}: must be HIGH:LOW with 63 >= HIGH >= LOW, as rdmsr -f takes it")
    return int(found[1]), int(found[2])


def find(text: str) -> list[int]:
    """The addresses that a number, a name or a part of a name stands for; upper and lower case alike.

    A number is hexadecimal with 0x, or without it when it has a letter or names a known MSR only that way.
    """
    text = text.strip()
    everything: dict[int, Msr | Unmodelled] = {**UNMODELLED, **MSRS}
    wanted = text.upper().replace("-", "_")
    exact = [address for address, held in everything.items() if held.name == wanted]
    if exact:
        return exact
    if re.fullmatch(r"0[xX][0-9a-fA-F_]{1,16}", text):
        return [int(text, 16)]
    if re.fullmatch(r"\d{1,10}", text):
        return [int(text)]
    if re.fullmatch(r"[0-9a-fA-F]{1,8}", text) and int(text, 16) in everything:
        return [int(text, 16)]
    return sorted(a for a, held in everything.items() if len(wanted) >= 3 and wanted in held.name)


# --- what values mean ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BitLine:
    """One field of a value."""

    bit: Bit
    value: int

    def __str__(self) -> str:
        span = f"{self.bit.high}:{self.bit.low}" if self.bit.high != self.bit.low else f"{self.bit.low}"
        return f"  {span:>6}  {self.bit.name:24} 0x{self.value:X}  {self.bit.meaning}".rstrip()


def bits_of(address: int, value: int) -> list[BitLine]:
    """Every named field, highest first."""
    held = MSRS.get(address) or UNMODELLED.get(address)
    bits: Iterable[Bit] = () if held is None else held.bits
    return [BitLine(bit, bit.get(value)) for bit in sorted(bits, key=lambda b: -b.high)]


def size_text(size: int) -> str:
    """Bytes, and the same in binary units when that is whole."""
    for shift, unit in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if size and not size & ((1 << shift) - 1):
            return f"0x{size:X} bytes ({size >> shift} {unit})"
    return f"0x{size:X} bytes"


def range_size(mask: int) -> int:
    """Bytes of a base/mask range: the lowest 1 of the mask's address bits; 0 when there is none."""
    bits = mask & (1 << 52) - 1 & ~0xFFF
    return bits & -bits


@dataclass(frozen=True, slots=True)
class Span:
    """SEAMRR from its two registers; ``None`` where the register is not at hand."""

    base: int | None
    size: int | None
    valid: bool | None
    locked: bool | None

    def lines(self) -> list[str]:
        """Base, size and end in bytes."""
        out = []
        if self.base is not None:
            out.append(f"base {size_text(self.base) if self.base else '0'}".replace(" bytes", ""))
        if self.size is not None:
            out.append(f"size {size_text(self.size)}")
        if self.base is not None and self.size:
            out.append(f"end  0x{self.base + self.size - 1:X} (last byte)")
        return out


def seamrr(base: int | None, mask: int | None) -> Span:
    """SEAMRR as base, size and end."""
    address = MSRS[registers.SEAMRR_BASE].bit("base")
    return Span(
        None if base is None else address.get(base) << address.low,
        None if mask is None else range_size(mask),
        None if mask is None else bool(MSRS[registers.SEAMRR_MASK].bit("valid").get(mask)),
        None if mask is None else bool(MSRS[registers.SEAMRR_MASK].bit("lock").get(mask)),
    )


def derived(address: int, value: int) -> list[str]:
    """What follows from a value beyond its fields."""
    match address:
        case registers.SEAMRR_BASE:
            return seamrr(value, None).lines()
        case registers.SEAMRR_MASK | registers.PRMRR_MASK | registers.SMRR_MASK:
            return [f"size {size_text(range_size(value))}"] if range_size(value) else ["size 0: no range"]
        case registers.KEYID_PARTITIONING:
            shared, private = value & 0xFFFFFFFF, value >> 32
            return [f"private KeyIDs [{shared + 1}, {shared + 1 + private})" if private else "no TDX private KeyID"]
        case registers.TME_ACTIVATE:
            declared = MSRS[registers.TME_ACTIVATE]
            k, p = declared.bit("keyid_bits").get(value), declared.bit("tdx_reserved_keyid_bits").get(value)
            if not declared.bit("enable").get(value) or p > k:
                return ["TME is not enabled" if p <= k else f"p = {p} is more than k = {k}: no processor takes this"]
            return [f"KeyIDs: {(1 << (k - p)) - 1} shared, {(1 << k) - (1 << (k - p)) if p else 0} TDX private"]
        case _:
            return []


# --- lines that state a register --------------------------------------------------------------------------------

_MSR_LINE = re.compile(
    r"^(?:[-*] )?(?:MSR\s*)?\(?(?:0x(?P<address>[0-9a-fA-F]{2,8})|(?P<name>(?:IA32|MSR|SGX)_[A-Z0-9_]{3,40}))\)?"
    r"(?:\s*\(?0x[0-9a-fA-F]{2,8}\)?)?(?:\s+(?:IA32|MSR)_[A-Z0-9_]+)?"
    r"\s*(?:\[(?P<high>\d{1,2})(?::(?P<low>\d{1,2}))?\]|bits? (?P<bit>\d{1,2})(?:[:-](?P<bitlow>\d{1,2}))?)?"
    r"\s*(?:\([^)]{0,60}\))?\s*[:=]\s*(?P<x>0x)?(?P<value>[0-9a-fA-F]{1,16})\s*$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MsrLine:
    """``0x1401: 0xfffff8000c00``, ``IA32_SEAMRR_PHYS_MASK[11] = 1``: a register, and bits ``high:low`` of it."""

    address: int
    value: int
    high: int
    low: int


def msr_line(text: str) -> MsrLine | None:
    """A line that states a known MSR by number or name; ``None`` for any other, and for a value that does not fit."""
    found = _MSR_LINE.match(text)
    if found is None:
        return None
    if found["address"]:
        address = int(found["address"], 16)
    else:
        name = found["name"].upper()
        held = registers.BY_NAME.get(name)
        address = held.address if held else next((a for a, m in UNMODELLED.items() if m.name == name), -1)
    high = found["high"] or found["bit"]
    low = found["low"] or found["bitlow"] or high
    span = (int(high), int(low)) if high else (63, 0)
    value = int(found["value"], 16)
    if (address not in MSRS and address not in UNMODELLED) or not 63 >= span[0] >= span[1]:
        return None
    return None if value >> (span[0] - span[1] + 1) else MsrLine(address, value, *span)
