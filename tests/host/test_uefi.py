"""Cold installation from UEFI on a really booted platform, and its weaknesses."""

from __future__ import annotations

import struct

import pytest

from seamref.arch.lp import CR4_VMXE
from seamref.arch.platform import Platform
from seamref.host.image import TDX_BLOB_V1, V1, V2, build, checksum
from seamref.host.machine import blob, cold
from seamref.host.uefi import UEFI_IMAGE, Efi, Firmware, LoaderRun, UefiImage, find_file, order, run

PATH = "\\EFI\\TDX\\TDX-BLOB"
GOOD = blob("1.5.05", version=V1)


def fresh(cpus: int = 2, sockets: int = 1) -> Platform:
    return cold(cpus, sockets=sockets, module=None)


def install(platform: Platform, data: bytes = GOOD, **firmware: object) -> LoaderRun:
    return run(platform, Firmware(({PATH: data},), **firmware))  # type: ignore[arg-type]


def poke(data: bytes, field: str, value: object, *, fix: bool = True) -> bytes:
    out = bytearray(data)
    TDX_BLOB_V1.poke(out, field, value)
    if fix and field != "checksum":
        TDX_BLOB_V1.poke(out, "checksum", 0)
        TDX_BLOB_V1.poke(out, "checksum", -checksum(out) & 0xFFFF)
    return bytes(out)


@pytest.mark.parametrize(("cpus", "sockets"), [(1, 1), (2, 1), (8, 2), (16, 4)])
def test_UEFI_walk__APs_first_boot_processor_last_and_the_module_is_ready(cpus: int, sockets: int) -> None:
    platform = fresh(cpus, sockets)
    assert not platform.SEAM_READY
    done = install(platform)
    assert done.installed and done.returned is Efi.SUCCESS and platform.SEAM_READY
    walked = [r.apicid for r in done.walk]
    assert sorted(walked) == sorted(platform.lps) and platform.peek_lp(walked[-1]).is_bsp
    assert all(r.did == "SEAMLDR.INSTALL SUCCESS" for r in done.walk)


def test_UEFI_vmx__VMXOFF_and_VMXE_cleared_CR0_not_restored() -> None:
    platform = fresh()
    for id in platform.lps:
        platform.lp(id).cr0 &= ~0x20  # NE, which VMX operation wants
    install(platform)
    for id in platform.lps:
        lp = platform.lp(id)
        assert not lp.vmx_on and not lp.cr4 & CR4_VMXE and lp.cr0 & 0x20


def test_UEFI_find__any_volume_first_hit_wins() -> None:
    bad, firmware = b"other", Firmware(({}, {PATH: GOOD}, {PATH: b"later"}))
    assert find_file(firmware) == GOOD
    assert find_file(Firmware(({PATH: bad}, {PATH: GOOD}))) == bad
    nothing = run(fresh(), Firmware(({"\\TDX-BLOB": GOOD},)))
    assert not nothing.installed and "EFI_NOT_FOUND" in nothing.printed[0] and nothing.returned is Efi.SUCCESS


def test_UEFI__in_a_virtual_machine_it_does_nothing_and_says_success() -> None:
    platform = fresh()
    done = install(platform, hypervisor=True)
    assert done.returned is Efi.SUCCESS and not done.installed and not platform.SEAM_READY


IMAGES: dict[str, bytes] = {
    "UEFI.length": poke(GOOD, "length", len(GOOD) + 1),
    "UEFI.signature": poke(GOOD, "signature", b"TDX-BLOP"),
    "UEFI.module": poke(GOOD[:8192], "length", 8192),
    "UEFI.module_pages": poke(GOOD, "offset_of_module", len(GOOD) + 4096),
    "UEFI.sigstruct": poke(GOOD, "offset_of_module", 0),
    "UEFI.checksum": poke(GOOD, "checksum", 1),
}


@pytest.mark.parametrize("row", IMAGES)
def test_UEFI_IMAGE__each_row_decides_when_those_before_are_silent(row: str) -> None:
    decided = UEFI_IMAGE.decide(UefiImage(IMAGES[row]))
    assert decided is not None and decided.id == row
    done = install(fresh(), IMAGES[row])
    assert not done.installed and decided.says in done.printed[0] and done.walk == ()


def test_UEFI_IMAGE__every_row_is_silent_for_a_good_file_and_rows_are_covered() -> None:
    assert UEFI_IMAGE.decide(UefiImage(GOOD)) is None
    assert {row.id for row in UEFI_IMAGE} == set(IMAGES)
    assert not install(fresh(), GOOD[:100]).installed  # shorter than a header


def test_UEFI_IMAGE__version_and_reserved_bytes_are_not_looked_at() -> None:
    assert install(fresh(), poke(poke(GOOD, "version", 0x7777), "reserved0", b"abcd")).installed
    assert not install(fresh(), build(GOOD[4096:6144], GOOD[8192:], V2)).installed


def test_UEFI_walk__a_failing_processor_does_not_stop_the_walk() -> None:
    platform = fresh(4)
    bad = bytearray(GOOD)
    bad[-1] ^= 1
    done = install(platform, poke(bytes(bad), "reserved1", bytes(4072)))
    assert [r.did for r in done.walk][-1] == "SEAMLDR.INSTALL EBADHASH"
    assert not done.installed and len(done.walk) == 4 and done.returned is Efi.SUCCESS


def test_UEFI_walk__not_started_counts_as_success_and_the_session_stays_open() -> None:
    platform = fresh(4)
    last = order(platform, Firmware(()))[1]
    done = install(platform, start_status={last: Efi.NOT_STARTED})
    assert done.installed  # so it says
    assert not platform.SEAM_READY  # P-SEAMLDR still waits for that processor
    again = install(platform)
    assert not again.installed and any("EBADCALL" in line for line in again.printed)


def test_UEFI_walk__any_other_start_error_ends_it_half_way() -> None:
    platform = fresh(4)
    second = order(platform, Firmware(()))[1]
    done = install(platform, start_status={second: Efi.TIMEOUT})
    assert len(done.walk) == 1 and not done.installed and "EFI_TIMEOUT" in done.printed[-2]


def test_UEFI_topology__a_disabled_processor_is_never_called() -> None:
    platform = fresh(4)
    done = install(platform, disabled=frozenset({platform.lps[2]}))
    assert done.installed and not platform.SEAM_READY and len(done.walk) == 3


def test_UEFI_rax__VMfailInvalid_reads_as_the_leaf_number() -> None:
    from seamref.arch.lab import set_ready

    platform = fresh()
    set_ready(platform, p_seamldr=False)
    done = install(platform)
    assert not done.installed and done.walk[0].result == 0x8000000000000001
    assert "no status" in done.walk[0].did


def test_UEFI_vmx__a_feature_control_that_forbids_VMX_is_a_crash() -> None:
    platform = fresh()
    from seamref.arch.msr import MSRS

    assert 0x3A in MSRS
    for id in platform.lps:
        platform.set_msr(platform.lp(id), 0x3A, 1)
    done = install(platform)
    assert "#GP(0)" in done.crashed and not done.installed


def test_UEFI_params__nothing_retries_entropy() -> None:
    platform = fresh()
    platform.inject("rdrand", *[(0, 0)] * 20)
    done = install(platform)
    assert not done.installed and any("EUNSPECERR" in line or "ENOENTROPY" in line for line in done.printed)
    assert struct.calcsize("<Q") == 8
