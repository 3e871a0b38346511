"""KVM's answer to a guest's SEAMCALL and TDCALL."""

from __future__ import annotations

import pytest

from seamref.arch import lab
from seamref.arch.outcome import ExitReason, Fault, Vector
from seamref.arch.platform import Platform
from seamref.arch.vmx import vmlaunch
from seamref.errors import SeamrefError
from seamref.host.kvm import KVM_EXIT, Guest, GuestExit, Injected, NotKvms, ToUser, guest_executes, handle_exit


def in_guest(cpl: int = 0) -> Platform:
    """A processor that runs a guest of its VMM."""
    platform = lab.platform()
    vmlaunch(platform, platform.lps[0])
    lp = platform.lp(platform.lps[0])
    assert lp.non_root and not lp.inSEAM
    lp.cpl = cpl
    return platform


@pytest.mark.parametrize("instruction", ["SEAMCALL", "TDCALL"])
def test_KVM_ud__the_guests_kernel_gets_UD_its_user_GP_from_the_processor(instruction: str) -> None:
    platform = in_guest()
    rip = platform.lp(0).rip
    did = guest_executes(platform, 0, instruction)
    assert did == Injected(Vector.UD) and did.info == 0x80000306
    from seamref.arch.vmcs import get
    from seamref.arch.vmx import current

    assert get(current(platform.lp(0)).data, "guest_rip") == rip  # the fault is at the instruction
    user = guest_executes(in_guest(cpl=3), 0, instruction)
    assert isinstance(user, Fault) and user.vector is Vector.GP  # no exit at all: no VM is lost to its users


@pytest.mark.parametrize("reason", [ExitReason.SEAMCALL, ExitReason.TDCALL])
def test_KVM_EXIT__each_row(reason: ExitReason) -> None:
    assert handle_exit(GuestExit(reason, Guest.L2)) == Injected(Vector.UD)
    assert isinstance(handle_exit(GuestExit(reason, Guest.TD)), NotKvms)
    assert handle_exit(GuestExit(reason, Guest.VM, patched=False)) == ToUser(int(reason))
    assert handle_exit(GuestExit(reason, Guest.VM)) == Injected(Vector.UD)
    assert [r.id for r in KVM_EXIT.rows] == ["KVM.td", "KVM.unexpected", "KVM.l2"]
    assert str(ToUser(76)) == "KVM_EXIT_INTERNAL_ERROR: unexpected exit reason 0x4c"


def test_KVM_ud__other_exits_and_processors_without_a_guest_are_refused() -> None:
    with pytest.raises(SeamrefError, match="76 and 77"):
        handle_exit(GuestExit(ExitReason.VMCALL, Guest.VM))
    with pytest.raises(SeamrefError, match="runs no guest"):
        guest_executes(lab.platform(), 0, "SEAMCALL")
