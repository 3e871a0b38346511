"""NP-SEAMLDR: every step, every row both ways, the order of every pair, and what each failure leaves."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from itertools import combinations

import pytest

from seamref import mint
from seamref.arch import msr, paging
from seamref.arch.lp import CR0_PE, CR0_PG, CR0_WP, CR4_LA57, CR4_PAE, CR4_PGE, CR4_SMXE
from seamref.arch.memory import Agent
from seamref.arch.outcome import Fault, TxtShutdown, Vector
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.revision import SILICON
from seamref.arch.smx import EnteredAc, ExitedAc, step_acm
from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.arch.trace import Step
from seamref.arch.vmcs import get
from seamref.bootchain import Boot, boot, default_acm, make_boot, run_boot
from seamref.errors import SeamrefError
from seamref.firmware import np_seamldr
from seamref.firmware.acm import P_SEAMLDR_CONSTS, parse_acm
from seamref.firmware.launcher import launch
from seamref.firmware.np_seamldr import STEPS, TABLES, Np, NpState, NpStatus, Returned, needed_size, step_index
from seamref.mint.elf import Relocation

E = 0x80000000
SYSINFO = E - 0x1000
RANGE = 0x7FC00000


def entered(
    b: Boot | None = None, *, acm: bytes | None = None, sockets: int = 1, before: Callable[[Boot], None] | None = None,
    config: PlatformConfig | None = None, revision: object = SILICON, **registers: int,
) -> Platform:
    """A platform whose bootstrap processor has just entered NP-SEAMLDR."""
    if b is None:
        b = make_boot(Topology(sockets, 2), acm=acm, config=config, revision=revision)  # type: ignore[arg-type]
    b.registers.update(registers)
    run_boot(b, until="place")
    if before is not None:
        before(b)
    run_boot(b, start="enteraccs", until="enteraccs")
    assert b.platform.lp(0).ACMODEFLAG
    return b.platform


def step_to(platform: Platform, name: str, lp: int = 0) -> None:
    """Run up to, not including, a step."""
    while True:
        state: NpState | None = platform.lp(lp).program_state
        if (state.next if state is not None else 0) == step_index(name):
            return
        outcome = step_acm(platform, lp)
        assert not isinstance(outcome, TxtShutdown | ExitedAc), outcome


def run(platform: Platform, lp: int = 0) -> Returned | TxtShutdown:
    return np_seamldr.run(platform, lp)


def table(platform: Platform, path: str) -> int:
    kind, at = P_SYS_INFO_TABLE.resolve(path)
    return int.from_bytes(platform.load(Agent.CPU, SYSINFO + at, kind.size), "little")  # type: ignore[arg-type]


def put_table(platform: Platform, path: str, value: int) -> None:
    kind, at = P_SYS_INFO_TABLE.resolve(path)
    platform.store(Agent.CPU, SYSINFO + at, value.to_bytes(kind.size, "little"))


def edit(**state: object) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        lp = platform.lp(0)
        lp.program_state = replace(lp.program_state, **state)

    return act


def set_ready(name: str) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        register = bytearray(platform.SEAMEXTEND)
        SEAMEXTEND.poke(register, name, 1)
        platform.SEAMEXTEND = bytes(register)

    return act


def put(*fields: tuple[str, int]) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        for path, value in fields:
            put_table(platform, path, value)

    return act


def mask_of(size: int) -> Callable[[Platform], None]:
    def act(platform: Platform) -> None:
        held = platform.msr_value(platform.lp(0), msr.SEAMRR_MASK)
        field = (1 << 52) - 1 & ~(size - 1)
        platform.set_msr(platform.lp(0), msr.SEAMRR_MASK, held & 0xC00 | field)

    return act


# a clause -> (the step before which it is prepared, what is prepared, the status); in the order of the main flow
CASES: dict[str, tuple[str, Callable[[Platform], None], NpStatus]] = {
    "NP_SEAMLDR.valid": ("keep MSRs", lambda p: p.set_msr(p.lp(0), msr.SEAMRR_MASK, 0x0FFFFC000400),
                         NpStatus.EBADRANGE),
    "NP_SEAMLDR.map_sysinfo": ("map SEAMRR", edit(maps_4k=512), NpStatus.ENOMEM),
    "NP_SEAMLDR.size": ("keep MSRs", mask_of(1 << 31), NpStatus.EBADRANGE),
    "NP_SEAMLDR.map_seamrr": ("map SEAMRR", edit(maps_2m=500), NpStatus.ENOMEM),
    "NP_SEAMLDR.sockets": ("keep MSRs", put(("tot_num_sockets", 9)), NpStatus.EBADPARAM),
    "NP_SEAMLDR.same_model": ("keep MSRs", put(("tot_num_sockets", 2), ("socket_cpuid_table[1]", 0x806F8)),
                              NpStatus.EBADPLATF),
    "NP_SEAMLDR.version": ("keep MSRs", put(("version", 1)), NpStatus.EBADPLATF),
    "NP_SEAMLDR.mutex": ("keep MSRs", put(("np_seamldr_mutex", 1)), NpStatus.ELDRINPROG),
    "NP_SEAMLDR.same_lp": ("keep MSRs", put(("acm_x2apicid", 1), ("acm_x2apicid_valid", 1)), NpStatus.EMODBUSY),
    "NP_SEAMLDR.p_seamldr_ready": ("keep MSRs", set_ready("p_seamldr_ready"), NpStatus.EMODBUSY),
    "NP_SEAMLDR.seam_ready": ("keep MSRs", set_ready("seam_ready"), NpStatus.EMODBUSY),
    "NP_SEAMLDR.aslr": ("keep MSRs", lambda p: p.inject("rdseed", (0, 0)), NpStatus.EUNSPECERR),
    "NP_SEAMLDR.range_size": ("keep MSRs", put(("p_seamldr_range_size", 0x10000)), NpStatus.ENOMEM),
}
CLASH = {
    ("NP_SEAMLDR.sockets", "NP_SEAMLDR.same_model"),  # both set the number of sockets
    ("NP_SEAMLDR.valid", "NP_SEAMLDR.size"),  # both set the mask
}


@pytest.mark.parametrize("clause", CASES)
def test_main_flow__each_row_alone_gives_its_status_in_R9(clause: str) -> None:
    before, prepare, status = CASES[clause]
    platform = entered()
    step_to(platform, before)
    prepare(platform)
    assert run(platform) == Returned(status, clause)
    assert platform.lp(0).r9 == int(status)


@pytest.mark.parametrize("pair", [p for p in combinations(CASES, 2) if p not in CLASH],
                         ids=lambda pair: "-".join(name.split(".")[1] for name in pair))
def test_main_flow__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    platform = entered()
    for clause in sorted(pair, key=lambda c: step_index(CASES[c][0])):
        before, prepare, _ = CASES[clause]
        if clause in ("NP_SEAMLDR.map_sysinfo", "NP_SEAMLDR.map_seamrr") and "NP_SEAMLDR.valid" in pair:
            continue  # SEAMRR is never opened, let alone mapped
        step_to(platform, before)
        prepare(platform)
    outcome = run(platform)
    assert isinstance(outcome, Returned) and outcome.clause == pair[0]


def test_TABLES__every_row_of_the_main_flow_has_a_case() -> None:
    rows = {row.id for table_ in TABLES for row in table_}
    fatal = {"NP_SEAMLDR.eax", "NP_SEAMLDR.bios_done", "NP_SEAMLDR.private_space", "NP_SEAMLDR.cookie",
             "NP_SEAMLDR.resume_rip"}
    later = {"NP_SEAMLDR.image_size", "NP_SEAMLDR.image_wraps", "NP_SEAMLDR.image_overlaps", "NP_SEAMLDR.relocation",
             *(f"NP_SEAMLDR.tables_for_{name}" for name, *_ in STAGES)}
    leaving = {"NP_SEAMLDR.cs_null", "NP_SEAMLDR.ss_is_cs"}
    assert rows == {*CASES, *fatal, *later, *leaving}


# --- before the main flow: UD2


def _eax(platform: Platform) -> None:
    platform.lp(0).rax = 3


FATAL: dict[str, tuple[str | None, Callable[[Platform], None], str]] = {
    "NP_SEAMLDR.eax": (None, _eax, "EAX"),
    "NP_SEAMLDR.bios_done": (None, lambda p: p.set_msr(p.lp(0), msr.BIOS_DONE, 0), "BIOS_DONE"),
    "NP_SEAMLDR.private_space": (None, lambda p: p.txt.pop("PRIVATE_SPACE") and None, "private space"),
    "NP_SEAMLDR.cookie": (None, lambda p: p.inject("rdseed", *[(0, 0)] * 10), "cookie"),
    "NP_SEAMLDR.resume_rip": (None, lambda p: setattr(p.lp(0), "r10", 1 << 47), "resume RIP"),
}


@pytest.mark.parametrize("clause", FATAL)
def test_entry__each_row_alone_is_a_reset_without_a_status(clause: str) -> None:
    platform = entered()
    FATAL[clause][1](platform)
    outcome = run(platform)
    assert isinstance(outcome, TxtShutdown) and clause in outcome.cause and FATAL[clause][2] in outcome.cause
    assert platform.seamrr() is None and not platform.P_SEAMLDR_READY
    assert platform.txt["ERRORCODE"] == 1 << 31


@pytest.mark.parametrize("pair", combinations(FATAL, 2), ids=lambda pair: "-".join(n.split(".")[1] for n in pair))
def test_entry__the_earlier_of_two_rows_decides(pair: tuple[str, str]) -> None:
    platform = entered()
    for clause in pair:
        FATAL[clause][1](platform)
    outcome = run(platform)
    assert isinstance(outcome, TxtShutdown) and pair[0] in outcome.cause


def test_NP_SEAMLDR_cookie__nine_failures_are_survived_a_zero_is_not() -> None:
    platform = entered()
    platform.inject("rdseed", *[(0, 0)] * 9)
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    platform = entered()
    platform.inject("rdseed", (1, 0))
    assert isinstance(run(platform), TxtShutdown)


def test_NP_SEAMLDR_cookie__the_second_cookie_counts_too() -> None:
    platform = entered()
    platform.inject("rdseed", (1, 1), *[(0, 0)] * 10)
    outcome = run(platform)
    assert isinstance(outcome, TxtShutdown) and "NP_SEAMLDR.cookie" in outcome.cause


def test_NP_SEAMLDR_resume_rip__57_bits_with_LA57() -> None:
    platform = entered(before=lambda b: setattr(b.lp, "cr4", b.lp.cr4 | CR4_LA57), r10=1 << 50)
    assert isinstance(run(platform), Returned)


def test_NP_SEAMLDR_se_svn__written_before_any_check_and_only_its_byte() -> None:
    platform = entered(acm=default_acm(0x104))
    platform.bios_se_svn = 0x11_2233_4455_6600
    step_to(platform, "check BIOS_DONE")
    assert platform.bios_se_svn == 4 << 56 | 0x00_1122_3344_5566_00 & 0x00FFFFFFFFFFFF00
    platform.set_msr(platform.lp(0), msr.SEAMRR_MASK, 0)
    assert run(platform) == Returned(NpStatus.EBADRANGE, "NP_SEAMLDR.valid")
    assert platform.bios_se_svn >> 56 == 4


def test_NP_SEAMLDR_se_svn__locked_is_ignored_or_by_revision_a_reset() -> None:
    platform = entered()
    platform.svn_locked = True
    assert isinstance(run(platform), Returned) and platform.bios_se_svn == 0
    platform = entered(revision=replace(SILICON, name="test", locked_se_svn_write_gp=True))
    platform.svn_locked = True
    outcome = run(platform)
    assert isinstance(outcome, TxtShutdown) and "WRMSR 0x302" in outcome.cause


# --- what success leaves


@lru_cache(maxsize=1)
def built() -> Platform:
    platform = entered()
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    return platform


def test_NP_SEAMLDR_run__steps_are_taken_in_the_listed_order() -> None:
    platform = entered()
    seen: list[str] = []
    platform.listeners.append(lambda e: seen.append(e.name) if isinstance(e, Step) else None)
    run(platform)
    assert seen == [step.name for step in STEPS]


def test_NP_SEAMLDR_fill_table__regions_at_their_linear_bases_with_one_ASLR() -> None:
    platform = built()
    consts = parse_acm(default_acm()).build.consts  # type: ignore[union-attr]
    aslr = table(platform, "code_rgn_base") & 0x7FFC00000000
    assert aslr
    for name, base, size in (
        ("code", 0xFFFF800000000000, consts.CCodeRgnSize), ("data", 0xFFFF800300000000, 0x6000),
        ("stack", 0xFFFF800100000000, 0x4000), ("keyhole", 0xFFFF800200000000, 0x200000),
        ("keyhole_edit", 0x100000000, 0x1000),
    ):
        assert table(platform, f"{name}_rgn_base") == base | aslr
        assert table(platform, f"{name}_rgn_size") == size
    assert table(platform, "module_region_base") == 0x200000000 | aslr
    assert (table(platform, "acm_x2apicid"), table(platform, "acm_x2apicid_valid")) == (0, 1)
    assert table(platform, "np_seamldr_mutex") == 0
    assert table(platform, "tot_num_lps") == 2 and table(platform, "p_seamldr_range_base") == RANGE


def test_NP_SEAMLDR_draw_aslr__bits_34_to_46_of_one_16_bit_draw() -> None:
    platform = entered()
    platform.inject("rdseed", (1, 1), (1, 1), (1, 0xABCDFFFF))
    run(platform)
    assert table(platform, "code_rgn_base") == 0xFFFF800000000000 | 0x7FFC << 32
    platform = entered()
    platform.inject("rdseed", (1, 1), (1, 1), (1, 0x8003))
    run(platform)
    assert table(platform, "code_rgn_base") == 0xFFFF800000000000


def test_NP_SEAMLDR_tables__every_leaf_is_what_the_table_of_regions_says() -> None:
    platform = built()
    aslr = table(platform, "code_rgn_base") & 0x7FFC00000000
    code, xd = E - 0x1000 - 0x12000, 1 << 63
    expected: dict[int, int] = {}
    for at in range(0, 0x12000, 0x1000):
        expected[0xFFFF800000000000 | aslr | at] = code + at | 0x21
    for at in range(0, 0x3000, 0x1000):
        expected[(0xFFFF800100000000 | aslr) + at] = code - 0x4000 + at | 0x63 | xd
    expected[(0xFFFF800100000000 | aslr) + 0x3000] = code - 0x1000 | 0x61 | xd
    for at in range(0, 0x6000, 0x1000):
        expected[(0xFFFF800300000000 | aslr) + at] = code - 0xA000 + at | 0x63 | xd
    expected[0xFFFF8003FFFF0000 | aslr] = SYSINFO | 0x21 | xd
    for at in range(0, 0x4000000 - 0x400000, 0x200000):
        expected[(0x200000000 | aslr) + at] = 0x7C000000 + at | 0xE3 | xd
    leaves = {linear: entry for linear, entry, _ in paging.leaves(platform, RANGE + 0x2000)}
    edit_at = 0x100000000 | aslr
    keyhole_table = leaves.pop(edit_at)
    assert leaves == expected
    assert keyhole_table & 0xFFF | keyhole_table & xd == 0x67 | xd
    at = keyhole_table & 0xFFFFFFFFF000
    assert RANGE + 0x3000 <= at < code - 0xA000 and platform.load(Agent.CPU, at, 4096) == bytes(4096)


def test_NP_SEAMLDR_map_keyholes__the_entry_above_the_keyhole_table_is_XD_the_others_are_not() -> None:
    platform = built()
    keyholes = table(platform, "keyhole_rgn_base")
    entries = []
    at = RANGE + 0x2000
    for level in (39, 30, 21):
        entry = int.from_bytes(platform.bytes_at(Agent.CPU, at + (keyholes >> level & 0x1FF) * 8, 8), "little")
        entries.append(entry & 0xFFF | entry & 1 << 63)
        at = entry & 0xFFFFFFFFF000
    assert entries == [0x27, 0x27, 0x27 | 1 << 63]


def test_NP_SEAMLDR_paging__64_bit_code_by_the_module_s_own_selector() -> None:
    platform = entered()
    step_to(platform, "64-bit prologue")
    lp = platform.lp(0)
    assert (lp.cs_selector, lp.cs_l, lp.is_64bit()) == (0x18, True, True)


def test_NP_SEAMLDR_map_keyholes__all_512_leaves_are_written_as_0() -> None:
    platform = entered()
    step_to(platform, "map keyholes")
    leaves_at = platform.lp(0).program_state.next_table + 0x1000  # behind the page directory that comes first
    platform.store(Agent.CPU, leaves_at, b"\xaa" * 4096)
    step_to(platform, "map data")
    assert platform.bytes_at(Agent.CPU, leaves_at, 4096) == bytes(4096)


def test_NP_SEAMLDR_vmcs__fields_where_the_processor_looks_for_them() -> None:
    platform = built()
    data = platform.bytes_at(Agent.CPU, RANGE + 0x1000, 4096)
    stack, code = table(platform, "stack_rgn_base"), table(platform, "code_rgn_base")
    consts = parse_acm(default_acm()).build.consts  # type: ignore[union-attr]
    expected = {
        "revision_id": 0x13, "guest_rip": 0x1000000000000000, "host_cr0": 0x80010031, "host_cr3": RANGE + 0x2000,
        "host_cr4": 0xB526A8, "host_cs_selector": 8, "host_ss_selector": 0x10, "host_fs_selector": 0x18,
        "host_gs_selector": 0x18, "host_tr_selector": 0x20, "host_ia32_pat": 0x0006060606060606,
        "host_ia32_s_cet": 0x15, "host_ia32_efer": 0xD00, "host_rip": code + consts.CEntryPointOffset,
        "host_fs_base": 0xFFFF8003FFFF0000 | code & 0x7FFC00000000, "host_rsp": stack + 0x3000 - 8,
        "host_ssp": stack + 0x4000 - 8, "host_gs_base": table(platform, "data_rgn_base"), "host_idtr_base": 0,
        "host_gdtr_base": 0, "pin_based": 0x16, "proc_based": 0x04006172,
        "exit_ctls": (0x00036DFB | 0x573C1204) & 0x7FFFFF, "entry_ctls": (0x000011FB | 0x7EE004) & 0x7FFFFF,
    }
    low, high = platform.config.vmx_msrs[0x48F] & 0xFFFFFFFF, platform.config.vmx_msrs[0x48F] >> 32
    expected["exit_ctls"] = (low | 0x573C1204) & high
    low, high = platform.config.vmx_msrs[0x490] & 0xFFFFFFFF, platform.config.vmx_msrs[0x490] >> 32
    expected["entry_ctls"] = (low | 0x7EE004) & high
    assert {name: get(data, name) for name in expected} == expected


@pytest.mark.parametrize("unlocked", [False, True])
def test_NP_SEAMLDR_make_ready__all_zero_but_two_flags(unlocked: bool) -> None:
    platform = entered(config=PlatformConfig(debug_unlocked=unlocked))
    run(platform)
    record = SEAMEXTEND.decode(platform.SEAMEXTEND)
    assert record == SEAMEXTEND.new(p_seamldr_ready=1, system_under_debug=int(unlocked))


def test_NP_SEAMLDR_relocate__pointers_hold_linear_addresses() -> None:
    platform = built()
    code, image = E - 0x1000 - 0x12000, parse_acm(default_acm()).image
    loaded = platform.bytes_at(Agent.CPU, code, len(image))
    changed = [at for at in range(0, len(image), 8) if loaded[at : at + 8] != image[at : at + 8]]
    assert len(changed) == 8
    for at in changed:
        assert int.from_bytes(loaded[at : at + 8], "little") & ~0xFFFFF == table(platform, "code_rgn_base")


def test_NP_SEAMLDR_wipe__old_contents_go_MCHECKs_half_and_the_module_range_stay() -> None:
    platform = entered()
    platform.store(Agent.CPU, RANGE, b"\xaa" * 64)
    platform.store(Agent.CPU, RANGE - 64, b"\xbb" * 64)
    platform.store(Agent.CPU, SYSINFO + 4000, b"\xcc" * 8)
    before = platform.load(Agent.CPU, SYSINFO, 2048)
    run(platform)
    assert platform.load(Agent.CPU, RANGE, 0x1000) == bytes(0x1000)
    assert platform.load(Agent.CPU, RANGE - 64, 64) == b"\xbb" * 64
    assert platform.load(Agent.CPU, SYSINFO + 4000, 8) == bytes(8)
    assert platform.load(Agent.CPU, SYSINFO, 2048) == before


def test_NP_SEAMLDR_unlock__only_between_open_and_close_and_only_for_this_processor() -> None:
    platform = entered(sockets=2)
    held: list[bool] = []
    while True:
        held.append(platform.seamrr(platform.lp(0)) is not None)
        assert platform.seamrr(platform.lp(2)) is not None
        assert platform.load(Agent.HOST, RANGE, 8, platform.lp(2)) == b"\xff" * 8
        if isinstance(step_acm(platform, 0), ExitedAc):
            break
    first, last = step_index("open SEAMRR") + 1, step_index("restore and close SEAMRR")
    assert [i for i, on in enumerate(held) if not on] == list(range(first, last + 1))


# --- registers on the way out


def test_NP_SEAMLDR_epilogue__one_register_says_something() -> None:
    platform = entered(r9=0xFFFF_8880_0000_1000, r10=0xFFFFFFFF81001234, r11=0x55000, r12=0xFFFF_8880_0000_2000)
    lp = platform.lp(0)
    for name in ("rsi", "rdi", "rsp", "r13", "r14", "r15"):
        setattr(lp, name, 0x1111)
    lp.idtr_limit = 0x7FF
    assert isinstance(run(platform), Returned)
    assert (lp.r9, lp.rip, lp.cr3, lp.r8) == (0, 0xFFFFFFFF81001234, 0x55000, 0x55000)
    assert (lp.rax, lp.rbx, lp.rdx) == (3, 0xFFFFFFFF81001234, 0)
    assert not any(getattr(lp, n) for n in ("rcx", "rsi", "rdi", "rbp", "rsp", *(f"r{i}" for i in range(10, 16))))
    assert lp.rflags == 2 and lp.cr4 == CR4_PGE | CR4_SMXE | CR4_PAE
    assert lp.cr0 & (CR0_PE | CR0_PG) and not lp.cr0 & CR0_WP
    assert (lp.gdtr_base, lp.gdtr_limit) == (0xFFFF_8880_0000_1000, 0xFFFF)
    assert (lp.idtr_base, lp.idtr_limit) == (0xFFFF_8880_0000_2000, 0x7FF)
    assert lp.pat == 0x0007040600070406 and lp.efer & 0x900 == 0x900
    assert (lp.cs_selector, lp.ds_selector, lp.ss_selector) == (0x10, 0x18, 0x18)


@pytest.mark.parametrize("bit", [22])
def test_NP_SEAMLDR_restore__MSRs_come_back_on_success_and_on_failure(bit: int) -> None:
    for fail in (False, True):
        platform = entered()
        lp = platform.lp(0)
        platform.set_msr(lp, msr.MISC_ENABLE, 0x80 | 1 << bit)
        platform.set_msr(lp, 0x8B, 0x2B00_0000_0000_0000)
        if fail:
            put_table(platform, "version", 1)
        step_to(platform, "read SEAMRR")
        assert not platform.msr_value(lp, msr.MISC_ENABLE) >> bit & 1
        run(platform)
        assert platform.msr_value(lp, msr.MISC_ENABLE) == 0x80 | 1 << bit
        assert platform.msr_value(lp, 0x8B) == 0x2B00_0000_0000_0000


def test_NP_SEAMLDR_prologue__TXT_space_is_closed_unless_after_SENTER() -> None:
    platform = entered()
    run(platform)
    assert "PRIVATE_SPACE" not in platform.txt and "LOCALITY3" not in platform.txt and "LOCALITY2" not in platform.txt
    platform = entered()
    platform.txt["STS"] = 1
    run(platform)
    assert platform.txt["PRIVATE_SPACE"] and platform.txt["LOCALITY2"]


# --- what failures leave (the sheet of what is left behind)


@pytest.mark.parametrize("clause", [c for c in CASES if c not in ("NP_SEAMLDR.valid", "NP_SEAMLDR.size")])
def test_failures_before_the_wipe__leave_the_table_closed_and_the_mutex_as_said(clause: str) -> None:
    before, prepare, _ = CASES[clause]
    platform = entered()
    step_to(platform, before)
    prepare(platform)
    held = platform.load(Agent.CPU, RANGE, 0x400000)
    register = platform.SEAMEXTEND
    run(platform)
    assert platform.load(Agent.CPU, RANGE, 0x400000) == held
    assert platform.seamrr() is not None
    assert table(platform, "np_seamldr_mutex") == (1 if clause == "NP_SEAMLDR.mutex" else 0)
    assert register == platform.SEAMEXTEND


def test_failure_at_valid__nothing_changed_but_the_SVN() -> None:
    platform = entered()
    platform.set_msr(platform.lp(0), msr.SEAMRR_MASK, 0x0FFFFC000400)
    store = platform.store_.fingerprint()
    run(platform)
    assert platform.store_.fingerprint() == store and platform.bios_se_svn >> 56 == 4
    assert platform.msr_value(platform.lp(0), msr.SEAMRR_MASK) == 0x0FFFFC000400


def test_failure_at_size__SEAMRR_was_open_and_is_closed_again() -> None:
    platform = entered()
    step_to(platform, "keep MSRs")
    mask_of(1 << 31)(platform)
    step_to(platform, "map SEAMRR")
    assert platform.seamrr() is None
    run(platform)
    seamrr = platform.seamrr()
    assert seamrr is not None and seamrr.size == 1 << 31


AFTER_WIPE: dict[str, tuple[bytes, NpStatus]] = {
    "NP_SEAMLDR.image_size": (mint.acm(mint.pseamldr_image(), consts=mint.pseamldr_consts(
        mint.pseamldr_image(), CCodeRgnSize=0x11000)), NpStatus.EBADPARAM),
    "NP_SEAMLDR.relocation": (mint.acm(mint.pseamldr_image(relocations=[Relocation(0x1000, 0x10, info=0x100000008)])),
                              NpStatus.EBADPARAM),
}


@pytest.mark.parametrize("clause", AFTER_WIPE)
def test_failures_after_the_wipe__range_wiped_id_forgotten_not_callable_and_a_retry_works(clause: str) -> None:
    acm, status = AFTER_WIPE[clause]
    b = make_boot(Topology(1, 2), acm=acm)
    platform = entered(b)
    put_table(platform, "acm_x2apicid_valid", 1)
    assert run(platform) == Returned(status, clause)
    assert not platform.P_SEAMLDR_READY and platform.seamrr() is not None
    assert table(platform, "acm_x2apicid_valid") == 0 and table(platform, "np_seamldr_mutex") == 0
    assert table(platform, "code_rgn_base") == 0
    b.acm = default_acm()
    result = run_boot(b, start="park", until="park")
    result = run_boot(b, start="place")
    assert result.stopped_at is None


def test_NP_SEAMLDR_relocation__entry_size_0_is_refused_by_1_5_and_divides_in_1_0() -> None:
    image = bytearray(mint.pseamldr_image())
    shoff, size = int.from_bytes(image[40:48], "little"), int.from_bytes(image[58:60], "little")
    for index in range(int.from_bytes(image[60:62], "little")):
        at = shoff + index * size
        if image[at + 4] == 4:
            image[at + 56 : at + 64] = bytes(8)
    assert run(entered(acm=mint.acm(image))) == Returned(NpStatus.EBADPARAM, "NP_SEAMLDR.relocation")

    def of_that_chipset(b: Boot) -> None:
        b.platform.txt["DEVICE_ID"] = 0xB00A

    outcome = run(entered(acm=mint.acm(image, revision=(1, 0)), before=of_that_chipset))
    assert isinstance(outcome, TxtShutdown) and outcome.vector is Vector.DE


def test_NP_SEAMLDR_relocate__no_bounds_check_but_the_map_ends() -> None:
    outcome = run(entered(acm=mint.acm(mint.pseamldr_image(relocations=[Relocation(1 << 40, 0x10)]))))
    assert isinstance(outcome, TxtShutdown) and outcome.vector is Vector.PF


def test_NP_SEAMLDR_copy__rows_that_no_signed_module_reaches() -> None:
    platform = entered()
    step_to(platform, "copy the image")
    lp = platform.lp(0)
    np = Np(platform, lp, lp.program_state)
    assert np_seamldr.NP_COPY.decide(np) is None
    np.consts.CCodeRgnSize = 1 << 40
    row = np_seamldr.NP_COPY.decide(np)
    assert row is not None and row.id == "NP_SEAMLDR.image_wraps"
    np.consts.CCodeRgnSize = 0x12000
    lp.acram_base = np.code - int(np.build.image_offset) + 0x1000
    row = np_seamldr.NP_COPY.decide(np)
    assert row is not None and row.id == "NP_SEAMLDR.image_overlaps"


STAGES = [("code", 0), ("code", 2), ("stacks", 3), ("stacks", 4), ("keyholes", 5), ("keyholes", 9), ("data", 10),
          ("data", 11), ("sysinfo", 12), ("sysinfo", 13), ("module", 14)]


@pytest.mark.parametrize(("name", "room"), STAGES)
def test_NP_SEAMLDR_tables__allocator_stops_at_the_data_region(name: str, room: int) -> None:
    """A table that places P_SEAMLDR_RANGE.base just below the data region, though its size is large enough."""
    platform = entered()
    data = E - 0x1000 - 0x12000 - 0x1000 - 0x3000 - 0x6000
    put_table(platform, "p_seamldr_range_base", data - 0x3000 - room * 0x1000)
    assert run(platform) == Returned(NpStatus.ENOMEM, f"NP_SEAMLDR.tables_for_{name}")
    assert not platform.P_SEAMLDR_READY and table(platform, "acm_x2apicid_valid") == 0


def test_NP_SEAMLDR_wipe__a_range_outside_SEAMRR_faults_in_the_modules_map() -> None:
    for base in (0x1000000, E):
        platform = entered()
        put_table(platform, "p_seamldr_range_base", base)
        outcome = run(platform)
        assert isinstance(outcome, TxtShutdown) and outcome.vector is Vector.PF


# --- the size formula


def consts(code: int = 0x12000) -> bytes:
    return P_SEAMLDR_CONSTS.encode({
        "CDataStackSize": 0x3000, "CCodeRgnSize": code, "CDataRgnSize": 0x6000, "CKeyholeRgnSize": 0x200000,
        "CKeyholeEditRgnSize": 0x1000, "CEntryPointOffset": 0,
    })


@pytest.mark.parametrize(("seamrr", "held", "least"), [(32 << 20, 2 << 20, 0x37000), (128 << 20, 4 << 20, 0x66000)])
def test_NP_SEAMLDR_size_formula__worked_examples(seamrr: int, held: int, least: int) -> None:
    platform = entered()
    step_to(platform, "check P_SEAMLDR_RANGE")
    lp = platform.lp(0)
    np = Np(platform, lp, replace(lp.program_state, size=seamrr, base=E - seamrr))
    np.consts = P_SEAMLDR_CONSTS.decode(consts())
    put_table(platform, "p_seamldr_range_size", held)
    assert needed_size(np) == least


def test_NP_SEAMLDR_range_size__exactly_the_least_size_is_enough_and_one_page_less_is_not() -> None:
    least = 0x4A000
    while True:  # the formula depends on the size itself; find the least that holds
        b = make_boot(Topology(1, 2), p_seamldr_range_size=least)
        outcome = run(entered(b))
        if isinstance(outcome, Returned) and outcome.status is NpStatus.SUCCESS:
            break
        assert isinstance(outcome, Returned) and outcome.clause == "NP_SEAMLDR.range_size"
        least += 0x1000
    assert 0x30000 < least < 0x60000
    assert boot(Topology(1, 2), p_seamldr_range_size=least).P_SEAMLDR_READY


def test_NP_SEAMLDR_map_module__4_KiB_pages_where_2_MiB_pages_do_not_end_below_the_range() -> None:
    platform = boot(Topology(1, 1), p_seamldr_range_size=0x300000)
    linear = table(platform, "module_region_base")
    leaves = paging.leaves(platform, E - 0x300000 + 0x2000)
    sizes = [size for at, _, size in leaves if linear <= at < linear + (64 << 20)]
    assert sizes == [1 << 21] * 30 + [1 << 12] * 256


@pytest.mark.parametrize("size", [1 << 25, 1 << 26, 1 << 28, 1 << 30])
def test_NP_SEAMLDR_size__every_allowed_size_boots(size: int) -> None:
    base = 0x40000000 if size == 1 << 30 else E - size
    platform = boot(Topology(1, 1), seamrr_base=base, seamrr_size=size)
    assert platform.P_SEAMLDR_READY


# --- 1.0


def test_NP_SEAMLDR_10__same_chain_other_exit_controls_and_registers() -> None:
    acm = mint.acm(mint.pseamldr_image(revision="1.0"), revision=(1, 0))
    b = make_boot(Topology(1, 2), acm=acm)
    b.platform.txt["DEVICE_ID"] = 0xB00A
    platform = entered(b)
    lp = platform.lp(0)
    lp.rsi, lp.rdi = 7, 8
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    assert (lp.rsi, lp.rdi) == (7, 8) and platform.bios_se_svn == 0
    data = platform.bytes_at(Agent.CPU, RANGE + 0x1000, 4096)
    new = built().bytes_at(Agent.CPU, RANGE + 0x1000, 4096)
    assert get(new, "exit_ctls") ^ get(data, "exit_ctls") == 1 << 12
    assert run_boot(b, start="resume").stopped_at is None


def test_NP_SEAMLDR_size_10__a_mask_with_a_hole_means_another_size() -> None:
    for revision, size in (((1, 5), 1 << 26), ((1, 0), (1 << 26) + (1 << 40))):
        b = make_boot(Topology(1, 2), acm=mint.acm(mint.pseamldr_image(), revision=revision))
        b.platform.txt["DEVICE_ID"] = 0 if revision == (1, 5) else 0xB00A
        platform = entered(b)
        lp = platform.lp(0)
        platform.set_msr(lp, msr.SEAMRR_MASK, platform.msr_value(lp, msr.SEAMRR_MASK) & ~(1 << 40))
        step_to(platform, "open SEAMRR")
        assert lp.program_state.size == size


# --- two at once


def two_launchers(first_before: str) -> Platform:
    """Processor 0 is in NP-SEAMLDR just before a step, processor 2 of another package enters it too.

    IA32_APIC_BASE.BSP is writable, so that two processors may execute ENTERACCS.
    """
    b = make_boot(Topology(2, 2))
    platform = entered(b)
    step_to(platform, first_before)
    msr.wrmsr(platform, 2, 0x1B, 0xFEE00D00)
    assert isinstance(launch(platform, 2, len(b.acm)), EnteredAc)
    return platform


def test_NP_SEAMLDR_mutex__the_second_launcher_is_refused_while_the_first_has_not_wiped() -> None:
    platform = two_launchers("wipe P_SEAMLDR_RANGE")
    assert run(platform, 2) == Returned(NpStatus.ELDRINPROG, "NP_SEAMLDR.mutex")
    assert table(platform, "np_seamldr_mutex") == 1
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")


def test_NP_SEAMLDR_wipe__clears_the_mutex_that_this_very_run_holds() -> None:
    platform = two_launchers("copy the image")
    assert table(platform, "np_seamldr_mutex") == 0
    assert run(platform, 2) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    assert platform.P_SEAMLDR_READY


def test_step_index__an_unknown_step_is_an_error_that_lists_the_known_ones() -> None:
    with pytest.raises(SeamrefError, match="save the IDT"):
        step_index("dance")


def test_NP_SEAMLDR_wipe__two_that_run_at_once_build_over_each_other() -> None:
    """Processor 2 finishes while processor 0 is between two mappings: its tables are overwritten."""
    platform = two_launchers("map keyholes")
    assert run(platform, 2) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    assert run(platform) == Returned(NpStatus.SUCCESS, "NP_SEAMLDR.run")
    code = table(platform, "code_rgn_base")
    found = paging.walk(platform, RANGE + 0x2000, code, agent=Agent.CPU)
    assert isinstance(found, Fault)
