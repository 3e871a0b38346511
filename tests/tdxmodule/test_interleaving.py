"""Steps of the module on two processors: what each sees of the other."""

from __future__ import annotations

from tdxmodule.stages import staged, with_td

from seamref.arch.events import EventKind, raise_event
from seamref.arch.outcome import Guest, Left
from seamref.arch.platform import Platform
from seamref.arch.seam import seamcall
from seamref.arch.software import Running, step
from seamref.host import vmm
from seamref.tdxmodule.guest import Op
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.status import Status
from seamref.tdxmodule.structures import OpState


def begin(platform: Platform, lp: int, name: str, **registers: int) -> None:
    """SEAMCALL, and nothing more."""
    values = {**dict.fromkeys(("rcx", "rdx", "r8", "r9", "r10"), 0), **registers, "rax": vmm.NUMBERS[name]}
    for register, value in values.items():
        setattr(platform.lp(lp), register, value)
    seamcall(platform, lp)


def finish(platform: Platform, lp: int) -> int:
    """Step until SEAMRET; RAX."""
    while isinstance(step(platform, lp), Running):
        pass
    return platform.peek_lp(lp).rax


def until(platform: Platform, lp: int, phase: str, effect: int = 0) -> None:
    """Step until the processor is about to take a step."""
    while (at := platform.peek_lp(lp).program_state) is None or (at.phase, at.effect) != (phase, effect):
        assert isinstance(step(platform, lp), Running)


def test_SYS_SHUTDOWN_busy__transient_SHUTDOWN_is_seen_although_the_module_stays_up() -> None:
    p = staged("tdmr.init").fork()
    begin(p, 0, "TDH.SYS.SHUTDOWN")
    until(p, 0, "effect", 1)  # state is SYS_SHUTDOWN, busy flags not looked at yet
    begin(p, 1, "TDH.SYS.RD")
    step(p, 1)
    step(p, 1)
    assert finish(p, 0) == Status.TDX_SYS_BUSY
    assert finish(p, 1) == Status.TDX_SYS_SHUTDOWN
    assert Look(p).state.name == "SYS_READY"
    assert vmm.sys_rd(p, "NUM_PKGS", 1) == 1


def test_SYS_SHUTDOWN_busy__a_processor_that_comes_behind_the_count_is_told_SHUTDOWN() -> None:
    p = staged("tdmr.init").fork()
    begin(p, 0, "TDH.SYS.SHUTDOWN")
    until(p, 0, "effect", 2)
    begin(p, 1, "TDH.SYS.RD")
    assert finish(p, 1) == Status.TDX_SYS_SHUTDOWN
    assert finish(p, 0) == 0


def test_LOCK__GLOBAL_LOCK_excludes_and_a_failed_reader_is_erased() -> None:
    p = staged("init").fork()
    begin(p, 0, "TDH.SYS.CONFIG")
    step(p, 0)
    step(p, 0)
    Look(p).glob.set("global_lock", 1)  # held exclusively, as by a call that is still in its checks
    begin(p, 1, "TDH.SYS.LP.INIT")
    assert finish(p, 1) == Status.TDX_SYS_BUSY
    assert Look(p).glob.num("global_lock") == 3, "the failed attempt left its reader behind"
    Look(p).glob.set("global_lock", 0)
    assert vmm.tdh(p, 1, "TDH.SYS.LP.INIT").ok


def test_LOCK__two_processors_do_LP_INIT_at_once() -> None:
    p = staged("init").fork()
    for lp in (0, 1):
        begin(p, lp, "TDH.SYS.LP.INIT")
        until(p, lp, "effect")
    assert Look(p).glob.num("global_lock") == 4
    assert [finish(p, lp) for lp in (0, 1)] == [0, 0]
    assert (Look(p).glob.num("global_lock"), Look(p).glob.num("num_init_lps")) == (0, 2)


def test_LOCK__KEY_CONFIG_on_two_packages_at_the_same_instant() -> None:
    p = staged("config", sockets=2, lps=1).fork()
    one, two = p.lps
    begin(p, one, "TDH.SYS.KEY.CONFIG")
    until(p, one, "effect")
    begin(p, two, "TDH.SYS.KEY.CONFIG")
    assert finish(p, two) == Status.TDX_SYS_BUSY
    assert finish(p, one) == 0
    assert vmm.tdh(p, two, "TDH.SYS.KEY.CONFIG").ok and Look(p).state.name == "SYS_READY"


def test_VP_ENTER__the_TD_and_its_vCPU_stay_locked_while_it_runs() -> None:
    p, td = with_td()
    p, td = p.fork(), td.copy()
    assert isinstance(vmm.enter(p, 0, td).run, Guest)
    assert (Look(p).pamt(td.tdr).num("lock"), Look(p).pamt(td.tdvprs[0]).num("lock")) == (4, 4), "one reader each"
    assert Look(p).tdcs(td.tdr).num("op_state_lock") == 0
    assert vmm.tdh(p, 1, "TDH.MNG.VPFLUSHDONE", rcx=td.tdr).word == Status.TDX_OPERAND_BUSY | 1
    assert vmm.tdh(p, 1, "TDH.VP.FLUSH", rcx=td.tdvprs[0]).word == Status.TDX_OPERAND_BUSY | 1
    vmm.leave(p, 0)
    left = (Look(p).pamt(td.tdr).num("lock"), Look(p).pamt(td.tdvprs[0]).num("lock"))
    assert left == (2, 2), "host priority, which the refused calls set, until the host takes the lock"
    vmm.must(p, 0, "TDH.VP.FLUSH", rcx=td.tdvprs[0])
    assert Look(p).pamt(td.tdvprs[0]).num("lock") == 0


def test_TD__an_interrupt_brings_the_host_back_and_the_TD_goes_on_where_it_was() -> None:
    p, td = with_td()
    p, td = p.fork(), td.copy()
    first = vmm.run_td(p, 0, td, limit=3)
    assert first.reason == 1, "external interrupt"
    assert vmm.run_td(p, 0, td).count == 1


def test_TD__SMI_and_NMI_exits_come_back_to_the_host() -> None:
    for kind, reason in ((EventKind.SMI, 6), (EventKind.NMI, 0)):
        p, td = with_td()
        p, td = p.fork(), td.copy()
        vmm.enter(p, 0, td)
        raise_event(p, 0, kind)
        ended = vmm.run(p, 0)
        assert isinstance(ended, Left) and p.peek_lp(0).rax == reason


def test_TD__a_page_that_is_not_there_is_an_EPT_violation() -> None:
    p, td = with_td(program=((Op.LOAD, "rax", 0x1000),))
    p, td = p.fork(), td.copy()
    exited = vmm.run_td(p, 0, td)
    assert exited.reason == 48 and exited.answer.regs["r8"] == 0x1000


def test_TD__a_report_to_a_page_that_is_not_there_is_an_EPT_violation_and_the_TDCALL_repeats() -> None:
    program = ((Op.MOV, "rcx", 0x1000), (Op.MOV, "rdx", 0x1000), (Op.MOV, "rax", 4), (Op.TDCALL,))
    p, td = with_td(program=program)
    p, td = p.fork(), td.copy()
    for _ in range(2):
        exited = vmm.run_td(p, 0, td)
        assert exited.reason == 48 and exited.answer.regs["r8"] == 0x1000


def test_TD__SEAMCALL_and_nonsense_end_the_vCPU() -> None:
    for program in (((Op.SEAMCALL,),), ((Op.UD,),)):
        p, td = with_td(program=program)
        p, td = p.fork(), td.copy()
        exited = vmm.run_td(p, 0, td)
        assert exited.answer.word == 0x4000000100000002
        assert vmm.enter(p, 0, td).status is Status.TDX_VCPU_STATE_INCORRECT


def test_TD__a_nonce_that_is_not_in_SEAMDB_ends_the_TD() -> None:
    p, td = with_td()
    p, td = p.fork(), td.copy()
    vmm.run_td(p, 0, td)
    Look(p).tdr(td.tdr).set("seamdb_nonce", bytes(32))
    exited = vmm.run_td(p, 0, td, answer=1)
    assert exited.answer.status is Status.TDX_NON_RECOVERABLE_TD_CORRUPTED_MD
    assert Look(p).tdr(td.tdr).num("fatal") == 1
    assert vmm.enter(p, 0, td).status is Status.TDX_TD_FATAL


def test_TD__VP_INFO_tells_the_vCPU() -> None:
    from tdxmodule.test_rows import tdcall_program

    p, td = with_td(program=tdcall_program(rax=1))
    p, td = p.fork(), td.copy()
    assert vmm.run_td(p, 0, td).count == 0
    assert Look(p).tdvps(td.tdvprs[0], td.tdr).num("gprs[1]") == 0 | 1 << 12


def test_VP_ENTER_replaced__stale_host_state_would_kill_the_processor() -> None:
    """The TD VMCS still names the old module's entry; the new module notices and sets all host state anew."""
    p, td = with_td()
    p, td = p.fork(), td.copy()
    vmm.run_td(p, 0, td)
    assert vmm.update(p, "1.5.06").ok
    look = Look(p)
    vcpu = look.tdvps(td.tdvprs[0], td.tdr)
    assert vcpu.num("last_seamdb_index") == 0 and look.glob.num("seamdb_index") == 1
    broken = p.fork()
    Look(broken).tdvps(td.tdvprs[0], td.tdr).set("last_seamdb_index", 1)  # as if the index had not moved
    entered = vmm.enter(broken, 0, td)
    assert isinstance(entered.run, Guest), "VM entry does not look where an exit would go"
    assert "shutdown" in str(vmm.leave(broken, 0)) and not broken.SEAM_READY
    assert vmm.run_td(p, 0, td).answer.ok
    assert Look(p).tdvps(td.tdvprs[0], td.tdr).num("last_seamdb_index") == 1


def test_MODULE__more_operations_on_a_TD_being_built_are_refused() -> None:
    p, td = with_td("TDH.MNG.INIT")
    assert Look(p).tdcs(td.tdr).num("op_state") == OpState.INITIALIZED
