"""INFO, SEAMINFO, SHUTDOWN, and INSTALL's session over several processors."""

from __future__ import annotations

import pytest
from pseamldr.scene import BUILD, OUT, image

from seamref import mint
from seamref.arch.memory import Agent
from seamref.arch.outcome import Shutdown, VmFailInvalid
from seamref.arch.platform import Platform, Topology
from seamref.arch.structures import SEAMEXTEND
from seamref.arch.trace import Computed
from seamref.layout import Record
from seamref.pseamldr import lab
from seamref.pseamldr.api import SEAMLDR_INFO, Leaf, Status
from seamref.pseamldr.build import Build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.lab import Returned

OK = Returned(Status.SUCCESS, 0)


@pytest.fixture
def platform() -> Platform:
    return lab.platform(topology=Topology(1, 3, 4), build=BUILD, acm_x2apicid=2)


def _info(platform: Platform, lp: int = 0) -> Record:
    assert lab.ask(platform, lp, Leaf.INFO, OUT) == OK
    return SEAMLDR_INFO.decode(platform.bytes_at(Agent.HOST, OUT, 256))


def test_INFO__build_constants_platform_and_register(platform: Platform) -> None:
    platform.store(Agent.HOST, OUT, b"\xff" * 300)
    info = _info(platform)
    assert (info.version, info.vendor_id, info.build_date, info.major, info.minor) == (0, 0x8086, 20240129, 1, 5)
    assert info.acm_x2apic == 2 and info.num_remaining_updates == 16
    assert info.seamextend.encode() == platform.SEAMEXTEND and info.reserved_1 == bytes(88)
    assert platform.bytes_at(Agent.HOST, OUT + 256, 44) == b"\xff" * 44


def test_INFO_refresh__it_changes_the_state_that_UPDATE_looks_at(platform: Platform) -> None:
    assert lab.data_field(platform, "num_remaining_updates") == 0
    _info(platform)
    assert lab.data_field(platform, "num_remaining_updates") == 16
    platform.inject("seamdb", ("GETREF", 0, 3, 16))
    _info(platform)
    assert "seamdb" in platform.injected, "not asked again while it is not 0"


@pytest.mark.parametrize(("answer", "remaining"), [
    (("GETREF", 0, 10, 14), 3), (("GETREF", 0, 0, 1), 0), (("GETREF", 0, 4, 4), 0xFFFFFFFF),
    (("GETREF", 3, 9, 16), 16)])
def test_SEAMDB_remaining__32_bits_and_no_guard(
    platform: Platform, answer: tuple[str, int, int, int], remaining: int
) -> None:
    platform.inject("seamdb", answer)
    assert _info(platform).num_remaining_updates == remaining


def test_INFO__revision_1_0_has_no_updates_to_count() -> None:
    platform = lab.platform(build=Build("1.0"))
    assert _info(platform).num_remaining_updates == 0


@pytest.mark.parametrize("leaf", [Leaf.INFO, Leaf.SEAMINFO])
@pytest.mark.parametrize("rcx", [OUT + 128, 1 << 46, lab.SEAMRR.base, lab.SEAMRR.end - 0x1000, 8 << 40])
def test_buffer_that_is_no_shared_memory_is_not_touched(platform: Platform, leaf: Leaf, rcx: int) -> None:
    lab.ask(platform, 0, Leaf.INFO, 0x8000)
    held = platform.p_seamldr_range
    assert held is not None
    before = [list(platform.store_.pages(*span)) for span in ((0, held.base), (held.end, 1 << 52))]
    table = platform.bytes_at(Agent.CPU, held.end - 4096, 4096)
    assert lab.ask(platform, 0, leaf, rcx, 9) == Returned(Status.EBADPARAM, 9)
    after = [list(platform.store_.pages(*span)) for span in ((0, held.base), (held.end, 1 << 52))]
    assert after == before
    assert platform.bytes_at(Agent.CPU, held.end - 4096, 4096) == table


def test_SEAMINFO__the_half_that_MCHECK_wrote(platform: Platform) -> None:
    assert lab.ask(platform, 1, Leaf.SEAMINFO, OUT) == OK
    held = platform.p_seamldr_range
    assert held is not None
    table = platform.bytes_at(Agent.CPU, held.end - 4096, 4096)
    assert platform.bytes_at(Agent.HOST, OUT, 4096) == table[:2048] + bytes(2048)


# --- SHUTDOWN


def test_SHUTDOWN__ends_on_the_processor_that_launched_the_loader(platform: Platform) -> None:
    assert [lab.ask(platform, lp, Leaf.SHUTDOWN, 0, 5) for lp in (2, 0)] == [Returned(Status.SUCCESS, 5)] * 2
    assert lab.ask(platform, 1, Leaf.SHUTDOWN) == Returned(Status.EBADCALL, 0)
    assert platform.P_SEAMLDR_READY
    assert lab.ask(platform, 2, Leaf.SHUTDOWN) == OK
    assert bytes(SEAMEXTEND.size) == platform.SEAMEXTEND
    assert isinstance(lab.ask(platform, 2, Leaf.INFO, OUT), VmFailInvalid)


def test_SHUTDOWN__repeats_do_not_count_and_INSTALL_is_refused_from_the_first_on(platform: Platform) -> None:
    assert [lab.ask(platform, 1, Leaf.SHUTDOWN) for _ in range(3)] == [OK] * 3
    assert lab.data_field(platform, "lps_in_shutdown") == 1
    assert lab.ask(platform, 0, Leaf.INSTALL, OUT, 9) == Returned(Status.EBADCALL, 0)
    assert not any(lab.data_field(platform, "update_bitmap"))


def test_SHUTDOWN_block__in_the_middle_of_a_session_it_blocks_the_session_for_good(platform: Platform) -> None:
    assert lab.ask(platform, 0, Leaf.INSTALL, OUT) == OK
    assert lab.ask(platform, 0, Leaf.SHUTDOWN) == OK
    assert lab.ask(platform, 1, Leaf.INSTALL, OUT) == Returned(Status.EBADCALL, 0)


def test_x2APIC_id_of_1024_or_more_is_refused_without_a_trace() -> None:
    platform = lab.platform(topology=Topology(1, ids=(0, 1024), addressable=2))
    assert lab.ask(platform, 1024, Leaf.SHUTDOWN, 0, 3) == Returned(Status.EUNSPECERR, 3)
    assert lab.ask(platform, 1024, Leaf.INSTALL, 0, 3) == Returned(Status.EUNSPECERR, 0)
    assert lab.data_field(platform, "lps_in_shutdown") == lab.data_field(platform, "lps_in_update") == 0


# --- the session


def test_INSTALL_lp__module_blocked_from_the_first_call_and_back_after_a_recoverable_failure(
    platform: Platform,
) -> None:
    assert lab.install(platform, mint.place(platform, image())) == OK
    register = platform.SEAMEXTEND
    assert platform.SEAM_READY
    assert lab.ask(platform, 1, Leaf.INSTALL, 0) == OK
    assert not platform.SEAM_READY
    assert lab.ask(platform, 1, Leaf.INSTALL, 0) == Returned(Status.EBADCALL, 0)
    assert lab.data_field(platform, "lps_in_update") == 1
    assert lab.ask(platform, 0, Leaf.INSTALL, 0) == OK
    last = lab.ask(platform, 2, Leaf.INSTALL, 8)
    assert last == Returned(Status.EBADPARAM, 0), "only the last processor's RCX counts"
    assert register == platform.SEAMEXTEND
    assert lab.data_field(platform, "lps_in_update") == 0


def test_INSTALL_vmclear__only_once_the_range_was_set_up(platform: Platform) -> None:
    cleared: list[int] = []
    platform.listeners.append(
        lambda event: cleared.append(event.value) if isinstance(event, Computed) and event.name == "VMCLEAR" else None)
    params = mint.place(platform, image())
    assert lab.install(platform, params) == OK
    assert cleared == []
    assert lab.install(platform, params) == OK
    assert cleared == [lab.SEAMRR.base + 0x1000 + 0x1000 * lp for lp in (0, 1, 2)]


def test_INSTALL__identity_snapshot_and_updates_left(platform: Platform) -> None:
    params = mint.place(platform, image())
    assert lab.install(platform, params) == OK
    register = SEAMEXTEND.decode(platform.SEAMEXTEND)
    signed = mint.sigstruct(image())
    assert (register.valid, register.seam_ready, register.mrseam) == (0x1FF, 1, signed[900:948])
    assert register.mrsigner == bytes(48) and register.attributes == 0
    assert lab.data_field(platform, "seam_sigstruct_snapshot") == signed
    assert lab.data_field(platform, "seamextend_snapshot").seam_ready == 0, "1.5 does not take the snapshot along"
    assert (lab.data_field(platform, "num_remaining_updates"), len(platform.seamdb)) == (15, 1)


def test_INSTALL_load__another_LOAD_may_go_back_in_version_and_empties_SEAMDB(platform: Platform) -> None:
    for minor in (9, 3):
        signed = mint.sigstruct(image(), seam_minor_svn=minor)
        assert lab.install(platform, mint.place(platform, image(), signed)) == OK
        assert len(platform.seamdb) == 1
    assert platform.SEAMEXTEND[8] == 3


def test_INSTALL_load__UPDATE_between_major_versions_0_is_a_LOAD(platform: Platform) -> None:
    signed = mint.sigstruct(image(), seam_major_svn=0)
    assert lab.install(platform, mint.place(platform, image(), signed)) == OK
    platform.inject("seamdb", ("CLEAR", 0), ("GETREF", 3, 0, 16), ("INSERT", 0))
    assert lab.install(platform, mint.place(platform, image(), signed, scenario=1)) == OK
    assert "seamdb" not in platform.injected


@pytest.mark.parametrize("answers", [
    (("CLEAR", 1),), (("CLEAR", 0), ("GETREF", 3, 0, 16), ("INSERT", 3)),
    (("CLEAR", 0), ("GETREF", 3, 0, 16), ("INSERT", 1))])
def test_SEAMDB_errors_other_than_entropy_are_fatal(platform: Platform, answers: tuple[tuple[str, int], ...]) -> None:
    params = mint.place(platform, image())
    platform.inject("seamdb", *answers)
    outcome = lab.install(platform, params)
    assert isinstance(outcome, Shutdown) and "SEAMDB" in outcome.cause
    assert not platform.P_SEAMLDR_READY and not platform.SEAM_READY


def test_INSTALL_insert__four_times_without_entropy_is_no_failure(platform: Platform) -> None:
    params = mint.place(platform, image())
    platform.inject("seamdb", ("CLEAR", 0), ("GETREF", 3, 0, 16), *(("INSERT", 2),) * 4, ("INSERT", 0))
    assert lab.install(platform, params) == OK


def test_INSTALL_params__only_the_copy_is_used_and_zero_pages_fail_late(platform: Platform) -> None:
    params = mint.place(platform, image(), num_module_pages=0)
    assert lab.install(platform, params) == Returned(Status.EBADHASH, 1)
    from hashlib import sha384

    signed = mint.sigstruct(image(), seamhash=sha384(b"").digest())
    params = mint.place(platform, image(), signed, num_module_pages=0)
    assert lab.install(platform, params) == Returned(Status.EBADPARAM, 1), "no ELF header"


# --- revision 1.0


@pytest.fixture
def old() -> Platform:
    return lab.platform(topology=Topology(1, 2), build=Build("1.0", signer_key_hash=mint.KEY.key_hash))


def _old_sigstruct(data: bytes, **fields: int | bytes) -> bytes:
    none = dict.fromkeys(("gdt_idt_offset", "fault_wrapper_offset", "num_handoff_pages", "module_hv", "min_update_hv",
                          "no_downgrade"), 0)
    return mint.sigstruct(data, **{**none, **fields})


def test_revision_1_0__installs_an_image_as_it_is(old: Platform) -> None:
    data = bytes(range(256)) * 32  # no ELF file
    assert lab.install(old, mint.place(old, data, _old_sigstruct(data))) == OK
    code = lab.SEAMRR.end - 0x200000 - 0x200000
    assert old.bytes_at(Agent.MODULE, code, len(data)) == data
    assert lab.data_field(old, "seamextend_snapshot").seam_ready == 1
    assert old.seamdb == () and lab.data_field(old, "num_remaining_updates") == 0


def test_revision_1_0__fields_of_1_5_are_reserved(old: Platform) -> None:
    assert lab.install(old, mint.place(old, image())) == Returned(Status.EBADSIG, 0)


def test_revision_1_0__UPDATE_compares_one_16_bit_SVN_and_wipes_everything(old: Platform) -> None:
    data = image()
    good = _old_sigstruct(data, seamsvn=0x0103)
    assert lab.install(old, mint.place(old, data, good)) == OK
    lower = _old_sigstruct(data, seamsvn=0x0102)
    assert lab.install(old, mint.place(old, data, lower, scenario=1)) == Returned(Status.EBADSIG, 0)
    higher = _old_sigstruct(data, seamsvn=0x0201)
    assert lab.install(old, mint.place(old, data, higher, scenario=1)) == OK


def test_revision_1_0__a_production_module_needs_no_CPUID_table(old: Platform) -> None:
    data = image()
    signed = _old_sigstruct(data, cpuid_table_size=0)
    assert lab.install(old, mint.place(old, data, signed)) == OK
    new = lab.platform(build=BUILD)
    assert lab.install(new, mint.place(new, data, signed)) == Returned(Status.EBADSIG, 0)


def test_data_layout_is_what_the_accessor_reads(platform: Platform) -> None:
    held = platform.p_seamldr_range
    assert held is not None
    platform.store(Agent.CPU, lab.data_base(held) + P_SEAMLDR_DATA.offset_of("lps_in_update"), b"\x07\0\0\0")
    assert lab.data_field(platform, "lps_in_update") == 7
