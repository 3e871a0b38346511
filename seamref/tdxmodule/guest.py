"""What runs inside a TD here: a small program in the TD's private memory, executed by the processor in SEAM non-root.

A real TD runs x86 code.  This one runs 16-byte instructions of a made-up machine (:data:`GUEST_INSTRUCTION`) that lie
in its encrypted memory, so that running, counting and going on behind an update are real: the program is fetched
through the secure EPT under the TD's KeyID, its registers are the processor's, TDCALL is the processor's TDCALL.
Guest paging is not modelled: linear addresses are guest physical addresses.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import TYPE_CHECKING, TypeAlias

from seamref.arch.lp import GPRS, Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import ExitReason, Fault, VmExit
from seamref.arch.seam import seamcall, tdcall
from seamref.arch.software import Running
from seamref.arch.vmcs import get, put
from seamref.arch.vmx import current, vm_exit
from seamref.errors import NotModelled, SeamrefError
from seamref.layout import Field, Layout, reserved, u8, u64
from seamref.spec import CHOSEN, clause, implements
from seamref.tdxmodule.td.checks import SEPT_PRESENT, SHARED_GPA
from seamref.tdxmodule.td.vp_init import RESET_VECTOR

if TYPE_CHECKING:
    from seamref.arch.platform import Platform


class Op(IntEnum):
    """Instructions of the scripted guest; ``imm`` is the 64-bit operand."""

    UD = 0
    NOP = 1
    MOV = 2
    LOAD = 3
    STORE = 4
    ADD = 5
    JMP = 6
    JEQ = 7
    TDCALL = 8
    SEAMCALL = 9
    COPY = 10
    RDRAND = 11


GUEST_INSTRUCTION = Layout(
    "GUEST_INSTRUCTION",
    (
        Field("op", u8, "0 UD, 1 NOP, 2 MOV, 3 LOAD, 4 STORE, 5 ADD, 6 JMP, 7 JEQ, 8 TDCALL, 9 SEAMCALL, 10 COPY, "
              "11 RDRAND", 0),
        Field("reg", u8, "register in encoding order", 1),
        Field("value", u8, "JEQ: what the register is compared with", 2),
        reserved("reserved", 5, 3, checked=False),
        Field("imm", u64, "MOV and ADD: constant; LOAD and STORE: address; jumps: target; COPY: bytes from RSI to RDI",
        8),
    ),
    size=16,
    source="SEAMREF",
    doc="One instruction of a scripted guest.",
)

Line: TypeAlias = tuple[Op] | tuple[Op, int] | tuple[Op, str, int] | tuple[Op, str, int, int]
"""``(op)``, ``(op, imm)``, ``(op, register, imm)``, ``(op, register, imm, value)``."""


def assemble(lines: Sequence[Line]) -> bytes:
    """The bytes of a program."""
    out = b""
    for line in lines:
        op, *rest = line
        register = rest.pop(0) if rest and isinstance(rest[0], str) else "rax"
        imm = rest.pop(0) if rest else 0
        value = rest.pop(0) if rest else 0
        if register not in GPRS:
            raise SeamrefError(f"guest program: no register {register!r}")
        out += GUEST_INSTRUCTION.encode({"op": op, "reg": GPRS.index(str(register)), "imm": imm, "value": value})
    return out


CODE_GPA = RESET_VECTOR & ~0xFFF
DATA_GPA = 0xFFFFE000
WINDOW_GPA = SHARED_GPA | 0xFFFFD000
"""A page the host can see."""
COUNT, SECRET, SEED, STATUS, REPORT = 0x000, 0x008, 0x040, 0x100, 0x400
"""Offsets in the data page: run counter, a secret drawn inside, 64 bytes of REPORTDATA, last status, TDREPORT."""
GO_ON, TELL_REPORT, EXTEND_RTMR = 0, 1, 2
"""What the host may answer in R13."""
_MASK = 1 << 12 | 1 << 13
_LOOP = CODE_GPA + 0x20


def _at(index: int) -> int:
    return CODE_GPA + 16 * index


COUNTER: tuple[Line, ...] = (
    (Op.RDRAND, "rbx", 0),                     # 0: a secret nobody outside ever gets
    (Op.STORE, "rbx", DATA_GPA + SECRET),      # 1
    (Op.LOAD, "r12", DATA_GPA + COUNT),        # 2: loop: count, tell the host, do what it says
    (Op.ADD, "r12", 1),                        # 3
    (Op.STORE, "r12", DATA_GPA + COUNT),       # 4
    (Op.MOV, "rcx", _MASK),                    # 5
    (Op.MOV, "rax", 0),                        # 6: TDG.VP.VMCALL with R12 and R13
    (Op.TDCALL,),                              # 7
    (Op.JEQ, "r13", _at(11), TELL_REPORT),     # 8
    (Op.JEQ, "r13", _at(21), EXTEND_RTMR),     # 9
    (Op.JMP, _LOOP),                           # 10
    (Op.MOV, "rcx", DATA_GPA + REPORT),        # 11: TDG.MR.REPORT
    (Op.MOV, "rdx", DATA_GPA + SEED),          # 12
    (Op.MOV, "r8", 0),                         # 13
    (Op.MOV, "rax", 4),                        # 14
    (Op.TDCALL,),                              # 15
    (Op.STORE, "rax", DATA_GPA + STATUS),      # 16
    (Op.MOV, "rsi", DATA_GPA + REPORT),        # 17: and copy it out
    (Op.MOV, "rdi", WINDOW_GPA),               # 18
    (Op.COPY, 1024),                           # 19
    (Op.JMP, _LOOP),                           # 20
    (Op.MOV, "rcx", DATA_GPA + SEED),          # 21: TDG.MR.RTMR.EXTEND of RTMR 2
    (Op.MOV, "rdx", 2),                        # 22
    (Op.MOV, "rax", 2),                        # 23
    (Op.TDCALL,),                              # 24
    (Op.STORE, "rax", DATA_GPA + STATUS),      # 25
    (Op.JMP, _LOOP),                           # 26
)
"""A TD that draws a secret, counts, and answers the host's wishes."""


def code_page(program: Sequence[Line]) -> bytes:
    """The page at the reset vector: the program from its start, and a jump to it at the vector."""
    vector = RESET_VECTOR - CODE_GPA
    return assemble(program).ljust(vector, b"\0") + assemble([(Op.JMP, CODE_GPA)])


# --- the processor running it -----------------------------------------------------------------------------------

clause("TD.memory", "private GPAs through EPTP under the TD's KeyID, shared ones through Shared-EPTP; fetch from a "
       "shared page faults", "X2 SEAM non-root; HWL")
GuestStep: TypeAlias = Running | VmExit


class Violation(Exception):
    """A guest access that no EPT entry serves."""

    def __init__(self, gpa: int, write: bool) -> None:
        self.gpa = gpa
        self.write = write
        super().__init__(hex(gpa))


@implements("TD.memory")
def physical(platform: Platform, lp: Lp, gpa: int, *, write: bool = False, fetch: bool = False) -> int:
    """TD.memory: physical address, with KeyID, of a GPA on a processor that runs a TD; raises :class:`Violation`."""
    vmcs = current(lp).data
    shared = bool(gpa & SHARED_GPA)
    if shared and fetch:
        raise Violation(gpa, write)
    keyid = 0 if shared else get(vmcs, "td_keyid")
    table = get(vmcs, "shared_eptp" if shared else "eptp") & 0x000FFFFFFFFFF000
    plain = gpa & ~SHARED_GPA
    if gpa >> 48 or (shared and not table):
        raise Violation(gpa, write)
    for shift in (39, 30, 21, 12):
        at = platform.with_keyid(table, keyid) + (plain >> shift & 0x1FF) * 8
        entry = int.from_bytes(platform.bytes_at(Agent.CPU, at, 8, lp), "little")
        if not entry & SEPT_PRESENT:
            raise Violation(gpa, write)
        table = entry & 0x000FFFFFFFFFF000
    return (table if shared else platform.with_keyid(table, keyid)) | gpa & 0xFFF


def load(platform: Platform, lp: Lp, gpa: int, size: int, *, fetch: bool = False) -> bytes:
    """A guest load inside one page."""
    data = platform.load(Agent.TD, physical(platform, lp, gpa, fetch=fetch), size, lp)
    if isinstance(data, Fault):
        raise NotModelled(f"{data} on a TD's own memory access at GPA 0x{gpa:X}", "TD.memory")
    return data


def store(platform: Platform, lp: Lp, gpa: int, data: bytes) -> None:
    """A guest store inside one page."""
    fault = platform.store(Agent.TD, physical(platform, lp, gpa, write=True), data, lp)
    if fault is not None:
        raise NotModelled(f"{fault} on a TD's own memory access at GPA 0x{gpa:X}", "TD.memory")


@implements("TD.step", "one instruction of a scripted guest", "SEAMREF", CHOSEN)
def guest_step(platform: Platform, lp_id: int) -> GuestStep:
    """TD.step: fetch and execute one instruction; a VM exit ends the TD's stay."""
    lp = platform.lp(lp_id)
    if not lp.is_SEAM_non_root():
        raise SeamrefError(f"processor {lp_id} is in {lp.mode.value}: no TD to step")
    try:
        return _execute(platform, lp)
    except Violation as missing:
        put(current(lp).data, "guest_physical_address", missing.gpa)
        qualification = 2 if missing.write else 1
        return vm_exit(platform, lp, VmExit(ExitReason.EPT_VIOLATION, qualification, False, "TD.memory"))


def _execute(platform: Platform, lp: Lp) -> GuestStep:
    line = GUEST_INSTRUCTION.decode(load(platform, lp, lp.rip, GUEST_INSTRUCTION.size, fetch=True))
    register, imm, following = GPRS[line.reg & 15], line.imm, lp.rip + GUEST_INSTRUCTION.size & (1 << 64) - 1
    match line.op:
        case Op.NOP:
            pass
        case Op.MOV:
            setattr(lp, register, imm)
        case Op.LOAD:
            setattr(lp, register, int.from_bytes(load(platform, lp, imm, 8), "little"))
        case Op.STORE:
            store(platform, lp, imm, getattr(lp, register).to_bytes(8, "little"))
        case Op.ADD:
            setattr(lp, register, getattr(lp, register) + imm & (1 << 64) - 1)
        case Op.JMP:
            following = imm
        case Op.JEQ:
            following = imm if getattr(lp, register) == line.value else following
        case Op.COPY:
            store(platform, lp, lp.rdi, load(platform, lp, lp.rsi, imm))
        case Op.RDRAND:
            setattr(lp, register, platform.rdrand("guest_rdrand")[1])
        case Op.TDCALL:
            return _exited(tdcall(platform, lp.id), lp, platform)
        case Op.SEAMCALL:
            return _exited(seamcall(platform, lp.id), lp, platform)
        case _:
            return vm_exit(platform, lp, VmExit(ExitReason.TRIPLE_FAULT, 0, False, "TD.step"))
    lp.rip = following
    return Running(Op(line.op).name)




def _exited(outcome: object, lp: Lp, platform: Platform) -> VmExit:
    if not isinstance(outcome, VmExit):
        raise SeamrefError(f"a TD's TDCALL or SEAMCALL gave {outcome}")
    data = current(lp).data
    put(data, "exit_instruction_length", GUEST_INSTRUCTION.size)
    return outcome


def run_guest(platform: Platform, lp_id: int, limit: int = 1000) -> VmExit | None:
    """Step a TD until it exits; ``None`` when ``limit`` instructions were executed and it still runs."""
    for _ in range(limit):
        outcome = guest_step(platform, lp_id)
        if isinstance(outcome, VmExit):
            return outcome
    return None
