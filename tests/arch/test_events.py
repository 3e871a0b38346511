"""Events, shutdown, and software in SEAM as step machines."""

from __future__ import annotations

from dataclasses import replace

import pytest

from seamref.arch import lab, software
from seamref.arch.events import Delivered, Discarded, EventKind, Pending, deliver_pending, raise_event, shutdown
from seamref.arch.lp import Activity
from seamref.arch.memory import Agent
from seamref.arch.outcome import Entered, ExitReason, Fault, Left, Shutdown, Target, Vector, VmExit, VmFailInvalid
from seamref.arch.paging import Translation, leaves, translate, walk
from seamref.arch.platform import Platform
from seamref.arch.revision import SILICON
from seamref.arch.seam import seamcall
from seamref.arch.software import MemoryFault, Port, Running, Ud2, register_program
from seamref.arch.trace import WentDown
from seamref.arch.vmx import vmlaunch, vmread
from seamref.errors import NotModelled, SeamrefError

P = 1 << 63


def guest(*, td: bool = False, **options: object) -> Platform:
    platform = lab.platform(**options)  # type: ignore[arg-type]
    vmlaunch(platform, 0)
    platform.lp(0).inSEAM = td
    return platform


def in_seam(**options: object) -> Platform:
    platform = lab.platform(**options)  # type: ignore[arg-type]
    platform.lp(0).rax = P
    seamcall(platform, 0)
    return platform


def test_EVENT_smi__by_mode() -> None:
    assert raise_event(lab.platform(), 0, EventKind.SMI) == Delivered(EventKind.SMI, "EVENT.smi")
    platform = in_seam()
    assert raise_event(platform, 0, EventKind.SMI) == Pending(EventKind.SMI, "EVENT.smi")
    software.run(platform, 0)
    assert deliver_pending(platform, 0) == (Delivered(EventKind.SMI, "EVENT.smi"),)
    td = guest(td=True)
    assert raise_event(td, 0, EventKind.SMI) == VmExit(ExitReason.OTHER_SMI, 0, False, "EVENT.smi")
    assert td.lp(0).smi_pending and td.lp(0).inSEAM and not td.lp(0).non_root


def test_EVENT_smi__stays_inhibited_when_it_was_before_SEAMCALL() -> None:
    platform = lab.platform()
    platform.lp(0).smi_inhibit = True
    platform.lp(0).rax = P
    seamcall(platform, 0)
    raise_event(platform, 0, EventKind.SMI)
    software.run(platform, 0)
    assert deliver_pending(platform, 0) == ()


def test_EVENT_nmi__inhibited_in_SEAM_root_taken_after_SEAMRET() -> None:
    assert raise_event(lab.platform(), 0, EventKind.NMI) == Delivered(EventKind.NMI, "EVENT.nmi")
    platform = in_seam()
    assert raise_event(platform, 0, EventKind.NMI) == Pending(EventKind.NMI, "EVENT.nmi")
    software.run(platform, 0)
    assert deliver_pending(platform, 0) == (Delivered(EventKind.NMI, "EVENT.nmi"),)


def test_EVENT_nmi__software_may_un_inhibit_unless_the_revision_blocks_everything() -> None:
    platform = in_seam()
    platform.lp(0).nmi_inhibit = False
    platform.lp(0).idtr_base = 0xFFFF800000000000
    assert raise_event(platform, 0, EventKind.NMI) == Delivered(EventKind.NMI, "EVENT.nmi")
    platform.lp(0).idtr_base = 0
    assert isinstance(raise_event(platform, 0, EventKind.NMI), Shutdown)
    blocked = in_seam(revision=replace(SILICON, events_blocked=True))
    blocked.lp(0).nmi_inhibit = False
    blocked.lp(0).rflags |= 1 << 9
    assert raise_event(blocked, 0, EventKind.NMI) == Pending(EventKind.NMI, "EVENT.nmi")
    assert raise_event(blocked, 0, EventKind.INTR) == Pending(EventKind.INTR, "EVENT.intr")


def test_EVENT_nmi__a_TDs_exit_leaves_NMIs_unblocked_for_the_host() -> None:
    for blocked in (False, True):
        platform = guest(td=True, revision=replace(SILICON, nmi_blocked_after_td=blocked))
        assert raise_event(platform, 0, EventKind.NMI) == VmExit(ExitReason.EXCEPTION_OR_NMI, 0, False, "EVENT.nmi")
        assert platform.lp(0).nmi_inhibit is blocked


def test_EVENT_intr__by_IF_and_by_exit() -> None:
    platform = lab.platform()
    assert raise_event(platform, 0, EventKind.INTR) == Pending(EventKind.INTR, "EVENT.intr")
    platform.lp(0).rflags |= 1 << 9
    assert deliver_pending(platform, 0) == (Delivered(EventKind.INTR, "EVENT.intr"),)
    assert isinstance(raise_event(guest(), 0, EventKind.INTR), VmExit)
    seam = in_seam()
    seam.lp(0).rflags |= 1 << 9
    assert raise_event(seam, 0, EventKind.INTR) == Delivered(EventKind.INTR, "EVENT.intr")


def test_EVENT_mc__in_SEAM_root_takes_everybody_down() -> None:
    platform = in_seam()
    seen: list[object] = []
    platform.listeners.append(seen.append)
    outcome = raise_event(platform, 0, EventKind.MC)
    assert outcome == Shutdown("machine check with CR4.MCE = 0", True, "EVENT.shutdown_in_SEAM")
    assert seen[-1] == WentDown(0, True, "machine check with CR4.MCE = 0")
    platform.lp(1).rax = 0
    assert seamcall(platform, 1) == VmFailInvalid("SEAMCALL.module_not_ready")
    platform.lp(1).rax = P
    assert isinstance(seamcall(platform, 1), VmFailInvalid)
    assert platform.lp(0).inSEAM and platform.lp(0).activity is Activity.SHUTDOWN
    for kind in EventKind:
        assert raise_event(platform, 0, kind) == Discarded(kind, "EVENT.shutdown_in_SEAM")


def test_EVENT_mc__outside_SEAM_and_in_a_TD() -> None:
    platform = lab.platform()
    assert raise_event(platform, 0, EventKind.MC) == Delivered(EventKind.MC, "EVENT.mc")
    assert platform.msr_value(platform.lp(0), 0x17A) & 4
    td = guest(td=True)
    assert raise_event(td, 0, EventKind.MC) == VmExit(ExitReason.EXCEPTION_OR_NMI, 0, False, "EVENT.mc")
    assert vmread(td, 0, 0x4404) == 1 << 31 | 3 << 8 | 18
    assert td.msr_value(td.lp(0), 0x17A) == 1 << 12 | 1 << 2  # SEAM_NR
    legacy = guest()
    raise_event(legacy, 0, EventKind.MC)
    assert legacy.msr_value(legacy.lp(0), 0x17A) == 1 << 2


def test_EVENT_sipi__starts_only_a_processor_that_waits() -> None:
    platform = lab.platform(vmx=False)
    assert raise_event(platform, 0, EventKind.SIPI) == Discarded(EventKind.SIPI, "EVENT.sipi")
    raise_event(platform, 0, EventKind.INIT)
    assert raise_event(platform, 0, EventKind.SIPI) == Delivered(EventKind.SIPI, "EVENT.sipi")
    assert platform.lp(0).activity is Activity.ACTIVE
    assert raise_event(in_seam(), 0, EventKind.SIPI) == Discarded(EventKind.SIPI, "EVENT.sipi")
    assert raise_event(guest(td=True), 0, EventKind.SIPI) == VmExit(ExitReason.SIPI, 0, False, "EVENT.sipi")


def test_EVENT_triple_fault__a_TDs_exits_SEAM_roots_takes_both_modules_down() -> None:
    td = guest(td=True)
    assert raise_event(td, 0, EventKind.TRIPLE_FAULT) == VmExit(ExitReason.TRIPLE_FAULT, 0, False, "EVENT.triple_fault")
    assert td.SEAM_READY
    platform = in_seam()
    assert isinstance(raise_event(platform, 0, EventKind.TRIPLE_FAULT), Shutdown)
    assert not platform.SEAM_READY


def test_EVENT_shutdown__outside_SEAM_disables_nobody() -> None:
    platform = lab.platform()
    assert shutdown(platform, 0, "triple fault") == Shutdown("triple fault", False, "EVENT.shutdown_in_SEAM")
    assert platform.SEAM_READY and platform.P_SEAMLDR_READY
    td = guest(td=True)
    shutdown(td, 0, "triple fault")
    assert not td.SEAM_READY and not td.P_SEAMLDR_READY


def test_EVENT_init__blocked_in_vmx_root() -> None:
    assert raise_event(lab.platform(), 0, EventKind.INIT) == Pending(EventKind.INIT, "EVENT.init")
    outside = lab.platform(vmx=False)
    assert raise_event(outside, 0, EventKind.INIT) == Delivered(EventKind.INIT, "EVENT.init")
    assert outside.lp(0).activity is Activity.WAIT_FOR_SIPI
    assert raise_event(guest(), 0, EventKind.INIT) == VmExit(ExitReason.INIT, 0, False, "EVENT.init")


# --- software in SEAM


class Misbehaves:
    """Does what its parameters say: reads a forbidden address, executes UD2, or returns without a valid VMCS."""

    id = b"seamref.test.bad"
    name = "misbehaves"
    how = "read"

    def step(self, platform: Platform, lp: object, parameters: bytes) -> software.StepOutcome:
        from seamref.arch.lp import Lp
        from seamref.arch.seam import seamret

        assert isinstance(lp, Lp)
        match self.how:
            case "read":
                Port(platform, lp).read(1 << 52, 8)
            case "write":
                Port(platform, lp).write_int(1 << 52, 1)
            case "zero":
                Port(platform, lp).zero(1 << 52, 64)
            case "linear":
                Port(platform, lp).physical(0x1234000)
            case "ud2":
                raise Ud2("on purpose")
            case "fine":
                port = Port(platform, lp)
                port.write_int(lab.SEAMRR.base + 0x200000, 77)
                assert port.read_int(lab.SEAMRR.base + 0x200000) == 77
                assert port.physical(lab.CODE) == lab.P_SEAMLDR_RANGE.base - 0x8000
                lab.advance_rip(lp)
        return seamret(platform, lp.id)


BAD = Misbehaves()
register_program(BAD)


@pytest.mark.parametrize("how", ["read", "write", "zero", "linear", "ud2", "return"])
def test_SEAM_fault__misbehaving_software_shuts_the_processor_down(how: str) -> None:
    platform = lab.platform(program=BAD.id)
    BAD.how = how
    outcome = software.call(platform, 0, rax=0)
    if how == "return":  # SEAMRET with the RIP of SEAMCALL itself is a loop of the host's, not an error
        assert outcome == Left(Target.MODULE, False, "SEAMRET.leave")
        assert platform.lp(0).rip == lab.platform().lp(0).rip
        return
    assert isinstance(outcome, Shutdown) and not platform.SEAM_READY
    BAD.how = "fine"
    assert isinstance(software.call(lab.platform(program=BAD.id), 0, rax=0), Left)


def test_SEAM_fetch__an_unmapped_or_unknown_entry() -> None:
    platform = lab.platform()
    tables = lab.P_SEAMLDR_RANGE.base - 0x10000
    platform.store(Agent.CPU, tables + 0x3000, bytes(8))
    assert isinstance(software.call(platform, 0, rax=0), Shutdown)
    with pytest.raises(NotModelled, match=r"executing the code at RIP .* \(clause SEAM.fetch\)"):
        software.call(lab.platform(program=b"nobody knows me."), 0, rax=0)
    with pytest.raises(SeamrefError, match="no software in SEAM root"):
        software.step(lab.platform(), 0)
    with pytest.raises(SeamrefError, match="must be 16"):
        register_program(type("Bad", (), {"id": b"x", "name": "x", "step": None})())


def test_software__steps_are_separable_and_forkable() -> None:
    platform = lab.platform()
    platform.lp(0).rax = P
    assert isinstance(seamcall(platform, 0), Entered)
    assert software.step(platform, 0) == Running("answered")
    fork = platform.fork()
    assert isinstance(software.step(platform, 0), Left)
    assert fork.lp(0).inP_SEAMLDR and isinstance(software.step(fork, 0), Left)
    assert fork.fingerprint() == platform.fingerprint()


def test_PAGING_walk__faults_and_leaves() -> None:
    platform = lab.platform()
    root = lab.P_SEAMLDR_RANGE.base - 0x10000
    found = walk(platform, root, lab.CODE + 5, agent=Agent.CPU)
    assert isinstance(found, Translation) and found.physical == lab.P_SEAMLDR_RANGE.base - 0x8000 + 5
    assert found.executable and not found.writable and found.page_size == 4096
    assert walk(platform, root, 1 << 50, agent=Agent.CPU) == Fault(Vector.GP, 0, "PAGING.walk")
    assert walk(platform, root, 0x1000, agent=Agent.CPU, fetch=True) == Fault(Vector.PF, 1 << 4, "PAGING.walk")
    assert walk(platform, root, lab.CODE, agent=Agent.CPU, write=True) == Fault(Vector.PF, 3, "PAGING.walk")
    assert list(leaves(platform, root)) == [(lab.CODE, lab.P_SEAMLDR_RANGE.base - 0x8000 | 0x21, 4096)]
    # a 2 MiB leaf, not executable
    platform.store(Agent.CPU, root + 0x2000 + 8, (0x200000 | 1 << 63 | 0xE3).to_bytes(8, "little"))
    big = walk(platform, root, lab.CODE + 0x200000 + 0x12345, agent=Agent.CPU)
    assert isinstance(big, Translation) and big.physical == 0x212345 and big.page_size == 1 << 21
    assert walk(platform, root, lab.CODE + 0x200000, agent=Agent.CPU, fetch=True) == Fault(Vector.PF, 17, "PAGING.walk")
    assert len(list(leaves(platform, root))) == 2
    inside = in_seam()
    assert isinstance(translate(inside, inside.lp(0), lab.CODE, fetch=True), Translation)
    assert MemoryFault(Fault(Vector.PF, 0, "x"), 5, True).args == ("#PF(0) writing 0x5",)
