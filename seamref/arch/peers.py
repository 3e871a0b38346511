"""Other public implementations of SEAM, as values over this machine's own check tables.

A :class:`Peer` says which rows of SEAMCALL, SEAMRET, SEAMOPS, TDCALL and GETSEC[ENTERACCS] an implementation asks, in
which order, which knobs of :class:`~seamref.arch.revision.Revision` it turns, in which states it cannot be at all, and
what it does where no outcome of the architecture fits.  The machine that runs is the same one.  Every statement was
read in the source at the commit named; what that source does not decide is not guessed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import lru_cache

from seamref.arch.exhaustive import Answer
from seamref.arch.revision import REVISIONS, SILICON, Revision, SeamextendGate, SeamretVmcs
from seamref.arch.smx import ENTERACCS_FAULTS, ENTERACCS_MODULE
from seamref.arch.spaces import Space
from seamref.errors import SeamrefError
from seamref.spec import SOURCES, TABLES, Check


@dataclass(frozen=True, slots=True)
class Effect:
    """A difference that no list of checks shows.

    ``topic``    what it is about, ``silicon`` what the processor does, ``peer`` what the implementation does
    ``notices``  who can tell
    ``knob``     the knob of the peer's revision that makes this machine do the same; "" where there is none
    """

    topic: str
    silicon: str
    peer: str
    notices: str
    file: str
    knob: str = ""


@dataclass(frozen=True, eq=False)
class Peer:
    """One implementation at one commit.

    ``exists``   instruction -> the facts that can be other than usual there; ``None``: it has no such instruction; an
                 instruction not named: every fact
    ``never``    facts that are never true there, usual or not
    ``instead``  deciding clause -> what happens where that clause decides, when it is no outcome of the architecture
    ``notes``    row -> why it is asked in this way, or not at all
    """

    name: str
    title: str
    source: str
    repository: str
    commit: str
    date: str
    files: tuple[str, ...]
    revision: Revision
    exists: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    never: frozenset[str] = frozenset()
    instead: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    effects: tuple[Effect, ...] = ()

    def __post_init__(self) -> None:
        if self.source not in SOURCES:
            raise SeamrefError(f"peer {self.name}: {self.source} is no declared source")
        for table, _ in self.revision.orders:
            self.asks(table)

    def url(self, file: str) -> str:
        """Where a file of it is on the web, at the commit that was read."""
        return f"https://github.com/{self.repository}/blob/{self.commit}/{file}"

    def asks(self, table: str) -> tuple[Check[object, object], ...]:
        """The rows of a table that it asks, in its order."""
        return TABLES[table].in_force(self.revision)

    def leaves_out(self, table: str) -> tuple[Check[object, object], ...]:
        """The rows that silicon asks and it does not; CPL asked later is not left out."""
        asked = {row.id for row in self.asks(table)} | {MOVED.get(row.id, row.id) for row in self.asks(table)}
        return tuple(row for row in TABLES[table].in_force(SILICON) if row.id not in asked)

    def has(self, space: Space, facts: Mapping[str, bool]) -> bool:
        """Whether it can be in a state: facts that do not exist there have their usual value."""
        if space.name not in self.exists:
            return True
        free = self.exists[space.name]
        usual = space.usual - self.never
        return free is not None and all(on == (name in usual) for name, on in facts.items() if name not in free)


MOVED = {"SEAMCALL.cpl_late": "SEAMCALL.cpl", "SEAMCALL.inSEAM": "SEAMCALL.inSEAM_root"}
"""A row of one document -> the row of silicon that asks the same elsewhere, or of fewer states."""

Implementation = Peer | Revision


@lru_cache(maxsize=64)
def answers(implementation: Implementation, space: Space) -> tuple[Answer | None, ...]:
    """What an implementation does in every state of an instruction; ``None`` where it cannot be in that state."""
    if isinstance(implementation, Revision):
        return tuple(space.table(implementation))
    return tuple(
        _answer(implementation, space, state) if implementation.has(space, space.facts(state)) else None
        for state in range(space.states)
    )


def _answer(peer: Peer, space: Space, state: int) -> Answer:
    did = space.answer(peer.revision, state)
    return Answer(peer.instead.get(did.clause, did.outcome), did.clause)


def peer_differences(a: Implementation, b: Implementation, space: Space) -> list[tuple[int, Answer, Answer]]:
    """The states that both can be in and in which they differ, with both answers."""
    pairs = zip(answers(a, space), answers(b, space), strict=True)
    return [(state, one, other) for state, (one, other) in enumerate(pairs)
            if one is not None and other is not None and one.outcome != other.outcome]


def both_can_be(a: Implementation, b: Implementation, space: Space) -> list[int]:
    """The states that both can be in."""
    pairs = zip(answers(a, space), answers(b, space), strict=True)
    return [state for state, pair in enumerate(pairs) if None not in pair]


# --- OpenTDX

_SEAM_C, _SMX_C, _VMX_C, _TD_C, _MKTME_C = (
    f"arch/x86/kvm/vmx/{name}.c" for name in ("seam", "smx", "vmx", "td", "mktme"))

OPENTDX = Peer(
    "OpenTDX",
    "OpenTDX: KVM emulates SEAM for a VM",
    "OTX",
    "sslab-gatech/tdx-linux",
    "23eaa38d26fd30d9126c61f96d9706d679f25b1c",
    "24 April 2025",
    (_SEAM_C, _SMX_C, _VMX_C, _TD_C, _MKTME_C),
    replace(
        SILICON,
        name="OpenTDX",
        cpl_before_exit=False,
        inSEAM_means_root=False,
        seamret_vmcs=SeamretVmcs.NEVER,
        seamrr_ac_unlock=False,
        capabilities=0x3D,
        seamops_served=0x1F,
        seamops_leaf_bits=32,
        pconfig_private_gp=False,
        tme_locked_write_gp=True,
        seamextend_anywhere=True,
        seamextend_gate=SeamextendGate.NONE,
        events_blocked=True,
        exit_bit29=False,
        enteraccs_needs_seamrr=True,
        seamret_needs_current=False,
        orders=(
            ("SEAMCALL", (
                "SEAMCALL.no_SEAM", "SEAMCALL.vmx", "SEAMCALL.smm", "SEAMCALL.inSEAM", "SEAMCALL.64bit",
                "SEAMCALL.non_root", "SEAMCALL.cpl_late", "SEAMCALL.seamrr", "SEAMCALL.p_seamldr_busy",
                "SEAMCALL.module_not_ready")),
            ("SEAMRET", ("SEAMRET.inSEAM", "SEAMRET.64bit", "SEAMRET.non_root", "SEAMRET.cpl")),
            ("SEAMOPS", ("SEAMOPS.lock", "SEAMOPS.inSEAM", "SEAMOPS.64bit", "SEAMOPS.non_root", "SEAMOPS.cpl")),
            ("SEAMREPORT", ()),
            ("TDCALL", ("TDCALL.non_root", "TDCALL.cpl")),
            (ENTERACCS_FAULTS.name, (
                "ENTERACCS.seamrr", "ENTERACCS.cr0_pe", "ENTERACCS.cpl", "ENTERACCS.vm86", "ENTERACCS.acmode",
                "ENTERACCS.smm", "ENTERACCS.vmx", "ENTERACCS.base_aligned", "ENTERACCS.size_aligned",
                "ENTERACCS.below_4g")),
            (ENTERACCS_MODULE.name, (
                "ENTERACCS.version", "ENTERACCS.type", "ENTERACCS.gdt_base", "ENTERACCS.gdt_end",
                "ENTERACCS.code_control", "ENTERACCS.entry", "ENTERACCS.gdt_limit", "ENTERACCS.segsel")),
        ),
    ),
    instead={
        "SEAMOPS.seamreport": "done, RAX = 0x0, no report is written",
        "SEAMOPS.seamdb_getref": "done, RAX = 0x0, R10 to R15 are 0",
    },
    notes={
        "SEAMCALL.no_SEAM": "the module parameter open_tdx",
        "SEAMCALL.smm": "no test of its own: on the way into SMM KVM clears the flag that the first test looks at",
        "SEAMCALL.inSEAM": "in either SEAM mode, as 343754-002 prints it",
        "SEAMCALL.cpl_late": "after the exit, as 343754-002 prints it",
        "SEAMCALL.seamrr": "one flag for the whole VM, and it is 1 before anybody wrote the MSR",
        "SEAMCALL.mov_ss": "marked to do",
        "SEAMCALL.p_seamldr_not_ready": "marked to do: whatever stands at P-SEAMLDR's transfer VMCS is entered",
        "SEAMRET.current": "marked as a question; the VMCS that SEAMCALL noted is used",
        "SEAMRET.controls": "marked to do: always accepted",
        "SEAMRET.host": "marked to do: always accepted",
        "SEAMRET.guest": "CR0, CR3, CR4, EFER and RFLAGS.VM are looked at; segments, tables and RIP are marked to do",
        "SEAMRET.msr_load": "not asked; no MSR list is loaded",
        "SEAMOPS.lock": "no test: bytes with a prefix are not recognised, so #UD stays #UD",
        "ENTERACCS.gdt_base": "the scratch area is taken in bytes, the header says it in doublewords",
        "ENTERACCS.entry": "the scratch area is taken in bytes, the header says it in doublewords",
        "ENTERACCS.authenticate": "always accepted",
        "ENTERACCS.code_control": "any bit at all is refused; the entry at ErrorEntryPoint is not there",
    },
    effects=(
        Effect("exit reason in the transfer VMCS", "76 with bit 29", "76 without bit 29",
               "nobody: P-SEAMLDR 1.5 looks at the basic reason only", _SEAM_C, "exit_bit29"),
        Effect("interrupts, NMIs and SMIs in SEAM root", "NMI and SMI are inhibited, RFLAGS.IF masks interrupts",
               "all three are held back while the flag says SEAM root; nothing is kept in the VMCS",
               "a module that clears the inhibits to take an NMI waits for ever", _VMX_C, "events_blocked"),
        Effect("the VMM's current VMCS", "becomes the link pointer; SEAMRET brings it back, or loses it (errata 3)",
               "a warning in KVM's log; there is no link pointer", "nobody: SEAMRET leaves it as it was", _SEAM_C,
               "seamret_vmcs"),
        Effect("transfer VMCS", "cached by the processor", "read from and written to memory at each transition",
               "software that reads the page while in SEAM", _SEAM_C),
        Effect("a SEAMRET whose guest state is refused", "VM-entry failure 33 at the host RIP",
               "the reason is put into a buffer that is not written back, and RIP stays: SEAMRET is executed again",
               "the virtual processor never leaves SEAM", _SEAM_C),
        Effect("indirect branch predictors", "a barrier at each entry", "no barrier", "nobody, in a VM", _SEAM_C),
        Effect("flags saved for the VMM", "the six arithmetic flags are 0", "SF keeps its value",
               "a caller that tests SF", _SEAM_C),
        Effect("SEAMDB", "an entry for each module, and no more than fit", "CLEAR and INSERT answer 0 and keep nothing",
               "P-SEAMLDR: num_remaining_updates never falls", _SEAM_C),
        Effect("SEAMOPS CAPABILITIES", "names the leaves that work", "names leaf 5, which is #GP(0), and not leaf 1, "
               "which answers 0", "the TDX module: its reports are empty pages", _SEAM_C, "seamops_served"),
        Effect("#GP(0) of a SEAMOPS leaf", "RIP is that of the instruction", "RIP is already behind it",
               "a handler that decodes the instruction", _SEAM_C),
        Effect("SEAMRR memory", "answers nobody outside SEAM", "ordinary memory of the VM: only VMPTRLD looks at the "
               "range", "any software of the VM that looks", _SEAM_C),
        Effect("IA32_SEAMEXTEND", "SEAM and authenticated-code mode, P_SEAMLDR_RANGE or ACRAM",
               "any software at CPL 0, any address", "whoever wants to forge SEAM_READY", _SEAM_C,
               "seamextend_anywhere"),
        Effect("GETSEC[ENTERACCS] of a bad module", "TXT shutdown", "#GP(0), and authenticated-code mode stays on",
               "the BIOS that retries: the next attempt is #GP(0) for the mode", _SMX_C),
        Effect("PCONFIG", "#GP(0) above CPL 0; a private KeyID outside SEAM is refused",
               "any CPL, any KeyID that has been activated", "a test that expects the refusal", _MKTME_C,
               "pconfig_private_gp"),
        Effect("MCHECK", "per package, by microcode",
               "runs inside the WRMSR that sets VALID of SEAMRR: one socket, one CMR from 64 KiB",
               "P-SEAMLDR and the module: every TDMR fits", _SEAM_C),
    ),
)
"""KVM with SEAM, MK-TME and ENTERACCS for a VM (read at its newest stored version)."""


# --- Cornelius

_LIB_VM, _LIB_SEAM, _LIB_EMULATOR, _LIB_COMMANDS = (f"Lib/{name}.c" for name in ("vm", "seam", "emulator", "commands"))
CORNELIUS = Peer(
    "Cornelius",
    "Cornelius: P-SEAMLDR and the TDX module in a Hyper-V VM",
    "COR",
    "microsoft/Cornelius",
    "0e3ebb6f5a3f207d600fc213333a1ee7fc3c8b8c",
    "5 August 2024",
    (_LIB_VM, _LIB_SEAM, _LIB_EMULATOR, _LIB_COMMANDS),
    replace(
        SILICON,
        name="Cornelius",
        seamret_clears_transfer=True,
        capabilities=0x30,
        seamops_served=0x1D,
        seamextend_gate=SeamextendGate.NONE,
        orders=(
            ("SEAMCALL", ("SEAMCALL.module_not_ready", "SEAMCALL.p_seamldr_busy")),
            ("SEAMRET", ()),
            ("SEAMOPS", ()),
        ),
    ),
    exists={
        "SEAMCALL": frozenset({"rax63", "seam_ready", "mutex"}),
        "SEAMRET": frozenset({"p_seamldr"}),
        "SEAMOPS": frozenset({"leaf0", "leaf1", "leaf2", "rax32"}),
        "TDCALL": None,
    },
    never=frozenset({"vmm_current"}),
    instead={
        "SEAMCALL.module_not_ready": "the API answers SeamNotReady",
        "SEAMCALL.p_seamldr_busy": "waits until the other call has returned",
        "SEAMOPS.leaf": "the run ends: EmulationError",
    },
    notes={
        "SEAMCALL.module_not_ready": "a result of the API; no flag of a processor is set",
        "SEAMCALL.p_seamldr_busy": "a lock of the operating system, without a limit",
        "SEAMCALL.vmx": "there is no SEAMCALL instruction: the caller is a program that calls a function",
    },
    effects=(
        Effect("where it begins", "GETSEC[ENTERACCS], NP-SEAMLDR", "P_SEAMLDR_RANGE is filled by the emulator",
               "nobody above P-SEAMLDR", _LIB_SEAM),
        Effect("memory of the module", "2 MiB pages", "4 KiB pages", "nobody: the loader only fills entries",
               _LIB_SEAM),
        Effect("linear addresses", "random at each load", "the same each time", "whoever tests the randomness",
               _LIB_SEAM),
        Effect("the processor that ran NP-SEAMLDR", "its x2APIC id and a valid bit", "never written: 0, not valid",
               "SEAMLDR.SHUTDOWN, which asks for it at the last processor", _LIB_SEAM),
        Effect("transfer VMCS at SEAMRET from the module", "stays cached (errata 4)",
               "is made inactive at each SEAMRET",
               "nobody: the next SEAMCALL loads it", _LIB_VM, "seamret_clears_transfer"),
        Effect("transfer VMCS while the processor has it", "memory keeps an old copy",
               "taken out of the VM's memory, so that an access is found", "a module that touches it by mistake",
               _LIB_SEAM),
        Effect("SEAMDB", "a fresh 256-bit nonce for each entry", "a counter; each nonce is 0",
               "whoever compares two nonces", _LIB_EMULATOR),
        Effect("SEAMREPORT and SEAMDB_REPORT", "a report with a MAC", "the run ends",
               "anything that asks for a TD report", _LIB_EMULATOR, "seamops_served"),
        Effect("a #GP, #PF or #UD that the firmware does not expect", "its handler runs, then shutdown",
               "the run ends and the call stack is printed", "the tester", _LIB_VM),
        Effect("signer's key, signature and hash of the module", "each is verified by P-SEAMLDR",
               "the sigstruct holds none of them, and the P-SEAMLDR that is run is patched to go on",
               "a test of the refusals", "TdxPatches/p-seamldr__1.5.01.02.diff"),
    ),
)
"""A tester's emulator: the caller is a program, not a kernel (read at its newest stored version)."""

PEERS: dict[str, Peer] = {peer.name: peer for peer in (OPENTDX, CORNELIUS)}


def get_implementation(name: str) -> Implementation:
    """A peer or a revision by name, whatever its case; an unknown name is an error that lists the known ones."""
    known: dict[str, Implementation] = {**REVISIONS, **PEERS}
    for held in known:
        if held.lower() == name.lower():
            return known[held]
    raise SeamrefError(f"no implementation {name!r}; there are {', '.join(known)}")
