"""The main flow up to the last check that leaves everything as it was."""

from __future__ import annotations

from seamref.arch import msr
from seamref.arch.cpuid import cpuid
from seamref.arch.structures import P_SYS_INFO_TABLE
from seamref.firmware.np_seamldr.checks import (
    NP_ENTROPY,
    NP_LOADED,
    NP_MAP_TABLE,
    NP_MUTEX,
    NP_PLATFORM,
    NP_SAME_LP,
    NP_SIZE,
    NP_SPACE,
    NP_VALID,
    ask,
)
from seamref.firmware.np_seamldr.state import BUFFER, CORE, MASK64, MIB2, Np
from seamref.spec import MEASURED, implements


@implements("NP_SEAMLDR.keep_msrs",
            "BIOS_SIGN_ID kept before the first CPUID; IA32_MISC_ENABLE kept, its bit 22 cleared",
            CORE, MEASURED)
def keep_msrs(np: Np) -> None:
    """NP_SEAMLDR.keep_msrs."""
    np.set(bios_sign_id=np.rdmsr(msr.BIOS_SIGN_ID), misc_enable=np.rdmsr(msr.MISC_ENABLE))
    np.wrmsr(msr.MISC_ENABLE, np.state.misc_enable & ~msr.bits(msr.MISC_ENABLE, "limit_cpuid_maxval").mask)
    largest = cpuid(np.platform, np.lp, 0x80000000).eax
    width = cpuid(np.platform, np.lp, 0x80000008).eax & 0xFF if largest >= 0x80000008 else 36
    np.set(physmask=(1 << width) - 1)


@implements("NP_SEAMLDR.decode_seamrr",
            "base = MSR 1400H & FFFFFFFFFE000000H; size = lowest set bit of MSR 1401H under "
            "the same mask, 0 if none", CORE, MEASURED)
def read_seamrr(np: Np) -> None:
    """NP_SEAMLDR.decode_seamrr: no look at LOCK, CONFIGURED, alignment, or whether the mask is contiguous."""
    ask(np, NP_VALID)
    field = 0xFFFFFFFFFE000000
    mask = np.rdmsr(msr.SEAMRR_MASK)
    size = mask & field & -(mask & field)
    if np.is_10:
        size = _size_10(np, mask & field)
    np.set(base=np.rdmsr(msr.SEAMRR_BASE) & field, mask=mask, size=size)


@implements("NP_SEAMLDR.size_10", "1.0: size = ~(mask | private KeyID bits | ~physmask) + 1", "NPS10 SeamldrCore64.c",
            MEASURED)
def _size_10(np: Np, mask: int) -> int:
    """NP_SEAMLDR.size_10: 1.0 takes the complement of the mask."""
    k = msr.bits(msr.TME_ACTIVATE, "tdx_reserved_keyid_bits").get(np.rdmsr(msr.TME_ACTIVATE))
    width = np.state.physmask.bit_length()
    private = ((1 << k) - 1) << (width - k)
    return (~(mask | private | ~np.state.physmask) + 1) & MASK64


@implements("NP_SEAMLDR.unlock", "WRMSR 1401H with VALID = 0, the other bits as read: SEAMRR is open to the ACM", CORE,
            MEASURED)
def open_seamrr(np: Np) -> None:
    """NP_SEAMLDR.unlock: the write that LOCK=1 would refuse anybody but an ACM."""
    np.wrmsr(msr.SEAMRR_MASK, np.state.mask & ~msr.SEAMRR_VALID)
    np.set(unlocked=True)


@implements("NP_SEAMLDR.map_own",
            "P_SYS_INFO_TABLE by one 4 KiB page, SEAMRR by 2 MiB pages, in the module's own tables",
            CORE, MEASURED)
def map_seamrr(np: Np) -> None:
    """NP_SEAMLDR.map_own."""
    ask(np, NP_MAP_TABLE)
    np.set(maps_4k=np.state.maps_4k + 1)
    ask(np, NP_SIZE)
    np.set(maps_2m=np.state.maps_2m + np.state.size // MIB2)


@implements("NP_SEAMLDR.read_table",
            "number of sockets, same model in all, version 0: what MCHECK wrote is judged before "
            "the mutex", CORE, MEASURED)
def check_platform(np: Np) -> None:
    """NP_SEAMLDR.read_table."""
    ask(np, NP_PLATFORM)


@implements("NP_SEAMLDR.take_mutex", "compare-exchange of the low byte of np_seamldr_mutex, 0 -> 1", CORE, MEASURED)
def take_mutex(np: Np) -> None:
    """NP_SEAMLDR.take_mutex."""
    at = np.sysinfo + P_SYS_INFO_TABLE.offset_of("np_seamldr_mutex")
    np.set(failed=np.read_int(at, 1) != 0)
    ask(np, NP_MUTEX)
    np.write_int(at, 1, 1)
    np.set(mutex_taken=True)


@implements("NP_SEAMLDR.may_reload", "the processor of the first launch, and nothing loaded", CORE, MEASURED)
def check_reload(np: Np) -> None:
    """NP_SEAMLDR.may_reload."""
    ask(np, NP_SAME_LP)
    np.wrmsr(msr.SEAMEXTEND_MSR, np.lp.acram_base + BUFFER | 1)
    ask(np, NP_LOADED)


@implements("NP_SEAMLDR.draw_aslr", "ASLR = (16 bits of RDSEED & 7FFCH) << 32: address bits 34 to 46", CORE, MEASURED)
def draw_aslr(np: Np) -> None:
    """NP_SEAMLDR.draw_aslr."""
    carry, value = np.platform.rdrand("rdseed")
    np.set(seed=(carry, value & 0xFFFF))
    ask(np, NP_ENTROPY)
    np.set(aslr=(value & 0x7FFC) << 32)



@implements("NP_SEAMLDR.fits", "P_SEAMLDR_RANGE must hold everything, by the size formula", CORE, MEASURED)
def check_size(np: Np) -> None:
    """NP_SEAMLDR.fits: the last one that leaves everything as it was."""
    ask(np, NP_SPACE)
