"""SEAMCALL as Linux makes it: three assembly helpers, the entropy retry, and the mapping to errno.

A :class:`Call` is a SEAMCALL on its way; :func:`step_call` takes one separable piece of it (the instruction, a step of
the software inside SEAM, the retry), so that another CPU can act in between.  ``seamcall``, ``seamcall_prerr`` and
``seamcall_prerr_ret`` do all of it at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_never

from seamref.arch.events import shutdown
from seamref.arch.lp import ARITHMETIC, CF, ZF
from seamref.arch.outcome import Entered, EntryFailed, Fault, Guest, Left, Shutdown, VmExit, VmFailInvalid, VmFailValid
from seamref.arch.seam import seamcall as seamcall_instruction
from seamref.arch.software import Running
from seamref.arch.software import step as software_step
from seamref.errors import NotModelled
from seamref.host import log
from seamref.host.abi import (
    ARGS,
    RDRAND_RETRY_LOOPS,
    TDX_SEAMCALL_UD,
    TDX_SEAMCALL_VMFAILINVALID,
    TDX_SUCCESS,
    TDX_SW_ERROR,
    Args,
    Errno,
    Leaf,
    leaf_title,
)
from seamref.host.kernel import Host
from seamref.host.log import TDX_PREFIX
from seamref.host.records import NO_ARGS, Call, Returned, Stub, Wrap
from seamref.host.records import having as replace
from seamref.host.script import Ends, Rule
from seamref.spec import CHOSEN, MEASURED, Check, CheckTable, clause, implements

clause("LNX.stub", "what __seamcall, __seamcall_ret and __seamcall_saved_ret load and store",
       "LNX seamcall.S, tdxcall.S")
clause("LNX.stub.zeroing", "__seamcall_saved_ret zeroes RCX RDX R8-R15 RBX RDI after storing them", "LNX tdxcall.S")
clause("LNX.stub.cf", "the stub looks at CF only; CF = 1 becomes TDX_SEAMCALL_VMFAILINVALID, nothing is stored",
       "LNX tdxcall.S")
clause("LNX.stub.fixup", "a fault on SEAMCALL becomes TDX_SW_ERROR | vector, nothing is stored", "LNX tdxcall.S")
clause("LNX.attempt", "each attempt marks this CPU's caches as incoherent before the instruction",
       "LNX seamcall_internal.h")
clause("LNX.retry", "10 attempts in total while the whole of RAX equals TDX_RND_NO_ENTROPY", "LNX seamcall_internal.h")
clause("LNX.retry.block", "an attempt is repeated with the block as the failed one left it: what __seamcall_ret or "
       "__seamcall_saved_ret stored is loaded again", "LNX seamcall_internal.h, tdxcall.S", MEASURED)


STUB_RIP = {Stub.SEAMCALL: 0xFFFFFFFF82000000, Stub.RET: 0xFFFFFFFF82000100, Stub.SAVED_RET: 0xFFFFFFFF82000200}
"""Where this kernel's text has the three instructions (any canonical address would do)."""

ZEROED = (*ARGS[:10], "rbx", "rdi")
"""Registers that __seamcall_saved_ret clears against speculation; RSI is not among them."""


@dataclass(frozen=True, slots=True)
class CallStep:
    """One piece of a call: what was done, and either the call as it goes on, or what it returned.

    Neither: ``dead`` says that the processor went to shutdown in SEAM, else a TD runs and somebody must make it exit.
    """

    did: str
    call: Call | None = None
    returned: Returned | None = None
    dead: bool = False
    waits: bool = False


@implements("LNX.attempt")
def _begin(host: Host, cpu: int, call: Call) -> CallStep:
    """LNX.attempt: mark the caches, load the registers, execute SEAMCALL."""
    host.set_cpu(cpu, cache_state_incoherent=True)
    lp = host.lp(cpu)
    lp.rax = call.fn
    for name in call.stub.loads:
        setattr(lp, name, getattr(call.args, name))
    lp.rip = STUB_RIP[call.stub]
    call = replace(call, attempts=call.attempts + 1)
    rule = _scripted(host, cpu, call)
    if rule is not None:
        return _play(host, cpu, call, rule)
    outcome = seamcall_instruction(host.platform, lp.id)
    match outcome:
        case Entered():
            return CallStep(f"{leaf_title(call.fn)}: entered {outcome.target.value}", replace(call, inside=True))
        case VmFailInvalid():
            return _end(host, cpu, call, f"VMfailInvalid ({outcome.clause})")
        case Fault():
            return _fixup(host, cpu, call, outcome.vector, f"{outcome} ({outcome.clause})")
        case VmExit():
            raise NotModelled("a kernel in a VM: SEAMCALL exits to the hypervisor below", outcome.clause)
        case _ as never:
            assert_never(never)


def _scripted(host: Host, cpu: int, call: Call) -> Rule | None:
    """The rule that decides this SEAMCALL, when the SEAM side is scripted and a rule fits."""
    script = host.state.script
    if script is None:
        return None
    registers = tuple((name, getattr(call.args, name)) for name in call.stub.loads)
    script, rule = script.ask(cpu, call.fn, registers)
    host.set(script=script)
    return rule


@implements("SCRIPT.outcome", "a scripted SEAMCALL is one piece from entry to return; no software in SEAM runs",
            "SEAMREF recorded Linux vectors", CHOSEN)
def _play(host: Host, cpu: int, call: Call, rule: Rule) -> CallStep:
    """SCRIPT.outcome: what the rule says, seen from behind the instruction."""
    lp = host.lp(cpu)
    match rule.outcome:
        case Ends.FAULT:
            assert rule.vector is not None
            return _fixup(host, cpu, call, rule.vector, f"exception {rule.vector} (scripted)")
        case Ends.VMFAILINVALID:
            lp.rflags = lp.rflags & ~ARITHMETIC | CF
        case Ends.ZF:
            lp.rflags = lp.rflags & ~ARITHMETIC | ZF
        case Ends.COMPLETED:
            lp.rflags &= ~ARITHMETIC
            lp.rax = rule.rax
            for name, value in rule.out:
                setattr(lp, name, value)
            if rule.store and rule.rax == TDX_SUCCESS:
                host.write(call.args.rcx, rule.store)
        case _ as never:
            assert_never(never)
    return _end(host, cpu, call, f"{rule.outcome.value} (scripted)")


@implements("LNX.stub.fixup")
def _fixup(host: Host, cpu: int, call: Call, vector: int, did: str) -> CallStep:
    """LNX.stub.fixup: the exception handler puts the vector into RAX and continues behind the instruction."""
    lp = host.lp(cpu)
    lp.rip = STUB_RIP[call.stub] + 4
    return _again(call, Returned(TDX_SW_ERROR | int(vector), call.args), did)


@implements("LNX.stub.cf")
def _end(host: Host, cpu: int, call: Call, did: str) -> CallStep:
    """LNX.stub.cf: behind SEAMCALL; ZF is not looked at."""
    lp = host.lp(cpu)
    if lp.rflags & CF:
        return _again(call, Returned(TDX_SEAMCALL_VMFAILINVALID, call.args), did)
    return _again(call, Returned(lp.rax, _store(host, cpu, call)), f"{did}, RAX = 0x{lp.rax:X}")


@implements("LNX.stub")
def _store(host: Host, cpu: int, call: Call) -> Args:
    """LNX.stub: the block afterwards; outputs are stored whatever status came back."""
    lp = host.lp(cpu)
    stored = replace(call.args, **{name: getattr(lp, name) for name in call.stub.stores})
    if call.stub is Stub.SAVED_RET:
        _zero(host, cpu)
    return stored


@implements("LNX.stub.zeroing")
def _zero(host: Host, cpu: int) -> None:
    """LNX.stub.zeroing."""
    lp = host.lp(cpu)
    for name in ZEROED:
        setattr(lp, name, 0)


@implements("LNX.retry")
def _again(call: Call, returned: Returned, did: str) -> CallStep:
    """LNX.retry: preemption is on again between two attempts."""
    if returned.rax in call.retry_on and call.attempts < RDRAND_RETRY_LOOPS:
        return CallStep(f"{leaf_title(call.fn)}: {did}; attempt {call.attempts + 1}", _repeat(call, returned))
    return CallStep(f"{leaf_title(call.fn)}: {did}", None, returned)


@implements("LNX.retry.block")
def _repeat(call: Call, returned: Returned) -> Call:
    """LNX.retry.block: the loop passes the same block to the stub again."""
    return replace(call, args=returned.args, inside=False)


def step_call(host: Host, cpu: int, call: Call) -> CallStep:
    """One separable piece of a SEAMCALL: the instruction; a step of software in SEAM; SEAMRET with what follows it."""
    if not call.inside:
        return _begin(host, cpu, call)
    lp = host.platform.peek_lp(host.cpu(cpu).apicid)
    if lp.is_SEAM_non_root():
        return CallStep("a TD runs", call, waits=True)
    outcome = software_step(host.platform, lp.id)
    match outcome:
        case Running(did=did):
            return CallStep(f"{leaf_title(call.fn)}: {did}", call)
        case Left():
            return _end(host, cpu, call, "SEAMRET" + (", current VMCS lost" if outcome.vmcs_lost else ""))
        case Guest():
            return CallStep(f"{leaf_title(call.fn)}: the TD runs", call)
        case Shutdown(cause=cause):
            return CallStep(f"{leaf_title(call.fn)}: shutdown in SEAM: {cause}", dead=True)
        case Fault() | EntryFailed() | VmFailInvalid() | VmFailValid():
            shutdown(host.platform, lp.id, f"SEAMRET or VM entry failed: {outcome}")
            return CallStep(f"{leaf_title(call.fn)}: shutdown in SEAM: {outcome}", dead=True)
        case _ as never:
            assert_never(never)


def run_call(host: Host, cpu: int, call: Call) -> Returned:
    """All pieces at once.  A processor that dies inside raises :class:`CpuDied`: there is nobody to return to."""
    going: Call | None = call
    while going is not None:
        step = step_call(host, cpu, going)
        if step.dead:
            host.set_cpu(cpu, dead=True)
            raise CpuDied(cpu, step.did)
        if step.waits:
            raise NotModelled(f"waiting for the TD on CPU {cpu} to exit: step it", "LNX.stub")
        if step.returned is not None:
            return step.returned
        going = step.call
    raise AssertionError("a call that neither goes on nor returns")


class CpuDied(Exception):
    """The processor entered shutdown inside SEAM; the function that called never returns."""

    def __init__(self, cpu: int, why: str) -> None:
        self.cpu = cpu
        self.why = why
        super().__init__(f"CPU {cpu}: {why}")


# --- the mapping to errno -----------------------------------------------------------------------------------

PRERR: CheckTable[int, Errno] = CheckTable("seamcall_prerr", (
    Check("PRERR.success", "TDX_SUCCESS", lambda rax: rax == TDX_SUCCESS, Errno.OK, "LNX seamcall_internal.h"),
    Check("PRERR.vmfailinvalid", "TDX_SEAMCALL_VMFAILINVALID: nothing printed",
          lambda rax: rax == TDX_SEAMCALL_VMFAILINVALID, Errno.ENODEV, "LNX seamcall_internal.h"),
    Check("PRERR.gp", "TDX_SEAMCALL_GP: nothing printed", lambda rax: rax == TDX_SW_ERROR | 13, Errno.EOPNOTSUPP,
          "LNX seamcall_internal.h"),
    Check("PRERR.ud", "TDX_SEAMCALL_UD: nothing printed", lambda rax: rax == TDX_SEAMCALL_UD, Errno.EACCES,
          "LNX seamcall_internal.h"),
), "RAX to errno; silent means that the status is printed and the result is -EIO.")

clause("PRERR.other", "any other status is printed and becomes -EIO", "LNX seamcall_internal.h")


def prerr(host: Host, call: Call, returned: Returned) -> Errno:
    """What seamcall_prerr (and _ret) makes of a result, and what it prints.

    The message is "SEAMCALL (0x<leaf>) failed: 0x<status>"; the ``_ret`` form adds RCX RDX R08 and R09 R10 R11.
    """
    row = PRERR.decide(returned.rax)
    return _print_failed(host, call, returned) if row is None else row.result


@implements("PRERR.other")
def _print_failed(host: Host, call: Call, returned: Returned) -> Errno:
    """PRERR.other: leaf and status; the ``_ret`` form adds six registers."""
    host.log(log.SEAMCALL_FAILED, call.prefix, leaf=call.fn, status=returned.rax)
    if call.wrap is Wrap.PRERR_RET:
        a = returned.args
        host.log(log.REGISTERS, call.prefix, rcx=a.rcx, rdx=a.rdx, r8=a.r8)
        host.log(log.REGISTERS_2, call.prefix, r9=a.r9, r10=a.r10, r11=a.r11)
    return Errno.EIO


def seamcall(host: Host, cpu: int, fn: int | Leaf, args: Args = NO_ARGS, stub: Stub = Stub.SEAMCALL) -> Returned:
    """The retry around a stub, result as it is: RAX or a software-defined value, and the block."""
    return run_call(host, cpu, Call(int(fn), args, stub, Wrap.RAW))


def seamcall_prerr(
    host: Host, cpu: int, fn: int | Leaf, args: Args = NO_ARGS, prefix: str = TDX_PREFIX
) -> Errno:
    """``seamcall_prerr``: __seamcall with retry, errno, message; for calls without register output."""
    call = Call(int(fn), args, Stub.SEAMCALL, Wrap.PRERR, prefix)
    return prerr(host, call, run_call(host, cpu, call))


def seamcall_prerr_ret(
    host: Host, cpu: int, fn: int | Leaf, args: Args = NO_ARGS, prefix: str = TDX_PREFIX
) -> tuple[Errno, Args]:
    """``seamcall_prerr_ret``: __seamcall_ret with retry, errno, message with six registers; and the block."""
    call = Call(int(fn), args, Stub.RET, Wrap.PRERR_RET, prefix)
    returned = run_call(host, cpu, call)
    return prerr(host, call, returned), returned.args
