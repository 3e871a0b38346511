"""From reset to a callable P-SEAMLDR: every step of the chain, separately, and all of them at once.

:func:`boot` gives a booted platform; :func:`run_boot` also says what every step answered and goes on until one stops.
:data:`BREAKS` breaks one thing at a time.  :func:`update_loader` reloads P-SEAMLDR at run time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from functools import lru_cache
from inspect import Parameter, signature
from typing import TYPE_CHECKING, Any, TypeAlias

from seamref.arch import msr
from seamref.arch.lp import Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Done, Fault, Left, TxtShutdown, VmExit
from seamref.arch.platform import Platform, PlatformConfig, Topology
from seamref.arch.revision import SILICON, Revision
from seamref.arch.smx import EnteredAc, ExitedAc, key_hash, park_others
from seamref.arch.software import SeamRun, call
from seamref.arch.trace import Event
from seamref.arch.vmx import vmxoff
from seamref.errors import SeamrefError
from seamref.firmware import bios, launcher, np_seamldr
from seamref.firmware.acm import ACM_HEADER, Misfit, fits, parse_acm
from seamref.firmware.bios import Setup
from seamref.firmware.mcheck import Approved, NotApproved, mcheck
from seamref.firmware.np_seamldr import NpStatus, Returned
from seamref.spec import CHOSEN, deciding, implements

if TYPE_CHECKING:
    from seamref.layout import Record

INFO, INSTALL, SHUTDOWN = 0x8000000000000000, 0x8000000000000001, 0x8000000000000002
INFO_BUFFER = 0x3000000
"""Physical address where the host here wants SEAMLDR_INFO."""
LOADER_TABLES = ("DISPATCH", "SEAMLDR", "INSTALL", "SHARED_HPA", "ELF")
"""What the names of P-SEAMLDR's check tables begin with."""
MODULE_ADDRESS = 0x10000000
"""Where the host here puts a TDX module, its sigstruct and SEAMLDR_PARAMS."""


@dataclass(frozen=True, slots=True)
class NotLaunched:
    """The launcher saw that the module is not for this platform."""

    misfit: Misfit
    clause: str = "ACM_MATCH"

    def __str__(self) -> str:
        return f"not launched: {self.misfit.value}"


@dataclass(frozen=True, slots=True)
class Called:
    """A SEAMCALL to P-SEAMLDR ended: not entered, or RAX on return."""

    run: SeamRun
    rax: int
    clause: str

    def __str__(self) -> str:
        return f"RAX = 0x{self.rax:X}" if isinstance(self.run, Left) else str(self.run)


StepAnswer: TypeAlias = (
    Done | Fault | VmExit | TxtShutdown | EnteredAc | Approved | NotApproved | Returned | NotLaunched | Called
)
"""How a boot step ended."""


@dataclass(slots=True)
class Boot:
    """A boot on its way: the platform, what BIOS is set up to do, the module in flash, and what happened so far."""

    platform: Platform
    setup: Setup
    acm: bytes
    acm_key: bytes
    vmx: bool = True
    skip_mcheck: bool = False
    smxe: bool = True
    registers: dict[str, int] = field(default_factory=dict)
    kept: launcher.Kept | None = None

    @property
    def bsp(self) -> int:
        """The bootstrap processor's id."""
        return self.platform.lps[0]

    @property
    def lp(self) -> Lp:
        """The bootstrap processor."""
        return self.platform.lp(self.bsp)


def _power_on(b: Boot) -> StepAnswer:
    """Fuses know the hash of one key; nothing else is there."""
    b.platform.txt.setdefault("PUBLIC_KEY", key_hash(b.acm_key))
    return Done("PLATFORM.reset")


def _park(b: Boot) -> StepAnswer:
    return bios.park_processors(b.platform, b.setup)


def _tme(b: Boot) -> StepAnswer:
    return bios.activate_memory_encryption(b.platform, b.setup)


def _smrr(b: Boot) -> StepAnswer:
    return bios.lock_smrr(b.platform, b.setup)


def _seamrr(b: Boot) -> StepAnswer:
    return bios.program_seamrr(b.platform, b.setup)


def _mcheck(b: Boot) -> StepAnswer:
    if b.skip_mcheck:
        return Done("BIOS.seamrr")
    return mcheck(b.platform, b.bsp, b.setup.p_seamldr_range_size)


def _bios_done(b: Boot) -> StepAnswer:
    return bios.say_bios_done(b.platform, b.setup)


def _place(b: Boot) -> StepAnswer:
    fault = launcher.place_module(b.platform, b.acm)
    if fault is not None:
        return fault
    misfit = fits(b.platform, parse_acm(b.acm))
    return Done("LAUNCH.enter") if misfit is None else NotLaunched(misfit)


def _enteraccs(b: Boot) -> StepAnswer:
    b.kept = launcher.keep_state(b.platform, b.lp)
    registers = dict(b.registers)
    if not b.smxe:
        return _without_smxe(b, registers)
    return launcher.launch(b.platform, b.bsp, len(b.acm), **registers)


def _without_smxe(b: Boot, registers: dict[str, int]) -> StepAnswer:
    from seamref.arch.smx import enteraccs

    for name, value in registers.items():
        setattr(b.lp, name, value)
    return enteraccs(b.platform, b.bsp, launcher.ACM_ADDRESS, len(b.acm))


def _np_seamldr(b: Boot) -> StepAnswer:
    return np_seamldr.run(b.platform, b.bsp)


def _resume(b: Boot) -> StepAnswer:
    assert b.kept is not None
    launcher.repair(b.platform, b.lp, b.kept)
    launcher.wake_others(b.platform)
    return Done("LAUNCH.repair")


def _vmxon(b: Boot) -> StepAnswer:
    from seamref.arch.lab import start_vmx

    if b.vmx:
        for id in b.platform.lps:
            start_vmx(b.platform, id)
    return Done("VMXON")


def _info(b: Boot) -> StepAnswer:
    return seamldr_info(b.platform, b.bsp)


def did_stop(answer: StepAnswer) -> bool:
    """Whether the chain ends here."""
    match answer:
        case Done() | Approved() | EnteredAc():
            return False
        case Returned(status=status):
            return status is not NpStatus.SUCCESS
        case Called(run=Left(), rax=rax):
            return rax != 0
        case _:
            return not isinstance(answer, ExitedAc)


@dataclass(frozen=True, slots=True)
class BootStep:
    """One step: who acts, what it does."""

    name: str
    who: str
    does: str
    run: Callable[[Boot], StepAnswer]


STEPS: tuple[BootStep, ...] = (
    BootStep("power-on", "hardware", "registers at reset, fuses, the module in flash", _power_on),
    BootStep("park", "BIOS", "INIT to all other processors", _park),
    BootStep("tme", "BIOS", "memory encryption and KeyID split in each package", _tme),
    BootStep("smrr", "BIOS", "SMM's range, locked, on every core", _smrr),
    BootStep("seamrr", "BIOS", "SEAMRR base and mask, locked, on every core", _seamrr),
    BootStep("mcheck", "MCHECK", "consistency; P_SYS_INFO_TABLE; VALID on every core", _mcheck),
    BootStep("bios-done", "BIOS", "BIOS_DONE", _bios_done),
    BootStep("place", "launcher", "the module into memory; is it for this platform?", _place),
    BootStep("enteraccs", "processor", "GETSEC[ENTERACCS]: load, authenticate, enter", _enteraccs),
    BootStep("np-seamldr", "NP-SEAMLDR", "build P-SEAMLDR in P_SEAMLDR_RANGE, make it callable", _np_seamldr),
    BootStep("resume", "launcher", "repair the processor, wake the others", _resume),
    BootStep("vmxon", "OS", "VMXON on every processor", _vmxon),
    BootStep("info", "P-SEAMLDR", "the first SEAMLDR.INFO", _info),
)
STEP_NAMES = tuple(step.name for step in STEPS)


@dataclass(frozen=True, slots=True)
class BootRecord:
    """What one step answered, and the events it caused."""

    step: BootStep
    answer: StepAnswer
    stopped: bool
    events: tuple[Event, ...] = ()


@dataclass(frozen=True, slots=True)
class BootResult:
    """A boot: the platform as it was left, and the answer of each step taken."""

    platform: Platform
    records: tuple[BootRecord, ...]

    @property
    def stopped_at(self) -> BootRecord | None:
        """The step that ended the chain, ``None`` when all were taken."""
        last = self.records[-1]
        return last if last.stopped else None

    @property
    def is_callable(self) -> bool:
        """Whether P-SEAMLDR is ready."""
        return self.platform.P_SEAMLDR_READY


# --- breaking one thing


@dataclass(frozen=True, slots=True)
class Break:
    """One thing that goes wrong: what it is, and what is changed just before which step."""

    name: str
    says: str
    before: str
    act: Callable[[Boot], None]


def _set_up(**changes: Any) -> Callable[[Boot], None]:
    def act(b: Boot) -> None:
        b.setup = replace(b.setup, **changes)

    return act


def _other_base(b: Boot) -> None:
    base, mask = b.setup.seamrr_msrs(b.platform)
    b.setup = replace(b.setup, packages={b.platform.peek_lp(b.platform.lps[-1]).package: (base + 0x4000000, mask)})


def _mask_hole(b: Boot) -> None:
    _, mask = b.setup.seamrr_msrs(b.platform)
    b.setup = replace(b.setup, mask=mask & ~(msr.SEAMRR_LOCK | msr.SEAMRR_VALID) & ~(1 << 40))


def _one_core(b: Boot) -> None:
    last = b.platform.lp(b.platform.lps[-1])
    b.platform.set_msr(last, msr.SEAMRR_BASE, b.platform.msr_value(last, msr.SEAMRR_BASE) + 0x4000000)


def _attr(name: str, value: Any) -> Callable[[Boot], None]:
    return lambda b: setattr(b, name, value)


def _flip(offset: int, bits: int = 1) -> Callable[[Boot], None]:
    def act(b: Boot) -> None:
        changed = bytearray(b.acm)
        changed[offset] ^= bits
        b.acm = bytes(changed)

    return act


def _remint(**fields: Any) -> Callable[[Boot], None]:
    """The same P-SEAMLDR in a module with other, properly signed contents."""

    def act(b: Boot) -> None:
        from seamref import mint

        b.acm = mint.acm(parse_acm(b.acm).image, **fields)

    return act


def _other_key(b: Boot) -> None:
    from seamref import mint

    b.acm = mint.acm(parse_acm(b.acm).image, key=mint.OTHER_KEY)


def _small_code_region(b: Boot) -> None:
    from seamref import mint

    image = parse_acm(b.acm).image
    b.acm = mint.acm(image, consts=mint.pseamldr_consts(image, CCodeRgnSize=len(image) - 0x1000))


def _bad_relocation(b: Boot) -> None:
    from seamref import mint
    from seamref.mint.elf import Relocation

    b.acm = mint.acm(mint.pseamldr_image(relocations=[Relocation(0x1000, 0x1000, info=1)]))


def _table(path: str, value: int) -> Callable[[Boot], None]:
    """A field of P_SYS_INFO_TABLE is something else than MCHECK wrote (as if MCHECK had written it)."""

    def act(b: Boot) -> None:
        from seamref.arch.structures import P_SYS_INFO_TABLE

        kind, at = P_SYS_INFO_TABLE.resolve(path)
        seamrr = b.platform.seamrr()
        assert seamrr is not None
        b.platform.store(Agent.CPU, seamrr.end - 0x1000 + at, value.to_bytes(kind.size, "little"))

    return act


def _both(one: Callable[[Boot], None], other: Callable[[Boot], None]) -> Callable[[Boot], None]:
    def act(b: Boot) -> None:
        one(b)
        other(b)

    return act


def _header_version(b: Boot) -> None:
    at = launcher.ACM_ADDRESS + ACM_HEADER.offset_of("HeaderVersion")
    b.platform.store(Agent.HOST, at, (0x40000).to_bytes(4, "little"))


def _lp_attr(**values: Any) -> Callable[[Boot], None]:
    def act(b: Boot) -> None:
        for name, value in values.items():
            setattr(b.lp, name, value)

    return act


def _wake(b: Boot) -> None:
    launcher.wake_others(b.platform)


def _rdseed(*answers: tuple[int, int]) -> Callable[[Boot], None]:
    return lambda b: b.platform.inject("rdseed", *answers)


def _txt(name: str, value: int) -> Callable[[Boot], None]:
    def act(b: Boot) -> None:
        b.platform.txt[name] = value

    return act


BREAKS: dict[str, Break] = {b.name: b for b in (
    Break("p-above-k", "more KeyID bits for TDX than there are", "tme", _set_up(keyid_bits=2, tdx_keyid_bits=3)),
    Break("no-private-keyids", "no KeyID bits for TDX", "tme", _set_up(tdx_keyid_bits=0)),
    Break("base-misaligned", "SEAMRR base not a multiple of 32 MiB", "seamrr", _set_up(seamrr_base=0x7C100000)),
    Break("base-not-natural", "SEAMRR base not a multiple of its size", "seamrr", _set_up(seamrr_base=0x7A000000)),
    Break("mask-hole", "a mask with a hole", "seamrr", _mask_hole),
    Break("unlocked", "SEAMRR left unlocked", "seamrr", _set_up(lock=False)),
    Break("not-configured", "CONFIGURED left 0", "seamrr", _set_up(configured=False)),
    Break("package-differs", "another base in the last package", "seamrr", _other_base),
    Break("core-differs", "another base on one core", "mcheck", _one_core),
    Break("no-mcheck", "MCHECK never runs", "mcheck", _attr("skip_mcheck", True)),
    Break("two-gib", "SEAMRR of 2 GiB", "seamrr", _set_up(seamrr_base=0x80000000, seamrr_size=0x80000000)),
    Break("range-too-small", "P_SEAMLDR_RANGE of 128 KiB", "mcheck", _set_up(p_seamldr_range_size=0x20000)),
    Break("no-bios-done", "BIOS_DONE left 0", "bios-done", _set_up(bios_done=False)),
    Break("no-txt", "a chipset without TXT", "enteraccs", _txt("CHIPSET", 0)),
    Break("no-smxe", "CR4.SMXE left 0", "enteraccs", _attr("smxe", False)),
    Break("vmx-on", "the launcher is in VMX operation", "enteraccs", _lp_attr(vmx_on=True)),
    Break("others-running", "the other processors run", "enteraccs", _wake),
    Break("other-signer", "a module signed with another key", "place", _other_key),
    Break("bit-flipped", "one bit of the embedded P-SEAMLDR flipped", "place", _flip(-0x1000)),
    Break("other-processor", "a module for another processor", "place", _remint(processors=[(0x50650, 0x0FFF3FF0)])),
    Break("bad-entry", "a signed header whose EntryPoint lies outside", "place", _remint(EntryPoint=0x7FFFFF00)),
    Break("header-version", "version 4 in the header's version field", "enteraccs", _header_version),
    Break("txt-closed", "the TXT private space never opens", "enteraccs", _txt("PRIVATE_STUCK", 1)),
    Break("no-cookie", "RDSEED gives nothing for the stack cookie", "np-seamldr", _rdseed(*[(0, 0)] * 10)),
    Break("resume-rip", "a resume address that is not canonical", "enteraccs",
          lambda b: b.registers.update(r10=0x8000_0000_0000_0000)),
    Break("no-sockets", "a table with 0 sockets", "enteraccs", _table("tot_num_sockets", 0)),
    Break("mixed-sockets", "a table with two models", "enteraccs",
          _both(_table("tot_num_sockets", 2), _table("socket_cpuid_table[1]", 0x806F8))),
    Break("table-version", "a table of version 1", "enteraccs", _table("version", 1)),
    Break("mutex-taken", "np_seamldr_mutex is taken", "enteraccs", _table("np_seamldr_mutex", 1)),
    Break("another-lp", "acm_x2apicid names another processor", "enteraccs",
          _both(_table("acm_x2apicid", 0xFF), _table("acm_x2apicid_valid", 1))),
    Break("no-aslr", "RDSEED gives nothing for ASLR", "np-seamldr", _rdseed((1, 5), (1, 6), (0, 0))),
    Break("image-too-large", "a code region smaller than the image", "place", _small_code_region),
    Break("relocation", "a relocation of another type", "place", _bad_relocation),
    Break("no-vmxon", "the OS does not enter VMX operation", "vmxon", _attr("vmx", False)),
)}
"""Ways to break the chain, in the order of the step that they touch."""


def get_break(name: str) -> Break:
    """A break by name; an unknown name is an error that lists the known ones."""
    try:
        return BREAKS[name]
    except KeyError:
        raise SeamrefError(f"no break {name!r}; there are {', '.join(BREAKS)}") from None


# --- running it


@lru_cache(maxsize=32)
def default_acm(se_svn: int = 4, np_revision: tuple[int, int] = (1, 5)) -> bytes:
    """A minted NP-SEAMLDR module that carries a minted P-SEAMLDR, signed with the test key."""
    from seamref import mint

    return mint.acm(mint.pseamldr_image(), revision=np_revision, SeSvn=se_svn)


def _load_programs() -> None:
    """Make the images that a boot runs runnable."""
    import seamref.pseamldr.program  # noqa: F401


def make_boot(
    topology: Topology | None = None, *, config: PlatformConfig | None = None, revision: Revision = SILICON,
    setup: Setup | None = None, acm: bytes | None = None, acm_key: bytes | None = None, vmx: bool = True,
    **fields: Any,
) -> Boot:
    """A platform before power-on.

    ``topology`` or a whole ``config``; ``setup`` of BIOS, or its ``fields`` by name; ``acm`` the module in flash, by
    default a minted one; ``acm_key`` the 384-byte modulus whose hash the chipset knows, by default the test key's.
    """
    from seamref.mint.keys import KEY

    _load_programs()
    if config is None:
        config = PlatformConfig(topology=topology or Topology())
    elif topology is not None:
        config = replace(config, topology=topology)
    made = Platform(config, revision)
    return Boot(made, replace(setup or Setup(), **fields), acm if acm is not None else default_acm(),
                acm_key or KEY.modulus_le, vmx)


def run_boot(
    b: Boot, *, breaks: Iterable[str] = (), until: str = "info", trace: bool = False, start: str = STEP_NAMES[0],
) -> BootResult:
    """Take the steps from ``start`` to ``until`` in order, until one stops.

    ``breaks`` names entries of BREAKS; ``trace`` keeps the events of every step.
    """
    for name in (until, start):
        if name not in STEP_NAMES:
            raise SeamrefError(f"no boot step {name!r}; there are {', '.join(STEP_NAMES)}")
    broken = [get_break(name) for name in breaks]
    records: list[BootRecord] = []
    for step in STEPS[STEP_NAMES.index(start) : STEP_NAMES.index(until) + 1]:
        for one in broken:
            if one.before == step.name:
                one.act(b)
        events: list[Event] = []
        if trace:
            b.platform.listeners.append(events.append)
        answer = step.run(b)
        if trace:
            b.platform.listeners.remove(events.append)
        records.append(BootRecord(step, answer, did_stop(answer), tuple(events)))
        if records[-1].stopped:
            break
    return BootResult(b.platform, tuple(records))


class BootStopped(SeamrefError):
    """A boot that was to succeed did not; ``result`` says where and why."""

    def __init__(self, result: BootResult) -> None:
        self.result = result
        last = result.records[-1]
        super().__init__(f"boot stopped at {last.step.name} ({last.step.who}): {last.answer} ({last.answer.clause})")


@implements("BOOT.chain",
            "BIOS, MCHECK, ENTERACCS, NP-SEAMLDR: each step starts from what the one before left", "NPS; X2",
            CHOSEN)
def boot(
    topology: Topology | None = None, *, sockets: int | None = None, lps: int | None = None, module: Any = None,
    vmx: bool = True, **knobs: Any,
) -> Platform:
    """BOOT.chain: a platform with a callable P-SEAMLDR, every processor in VMX operation (``vmx``).

    ``sockets`` packages with ``lps`` processors each, or a ``topology``; ``module``: a TDX module image (bytes), the
    name of a build (such as "1.5.06") or ``True`` for a minted one, installed by SEAMLDR.INSTALL on every processor;
    ``knobs`` as :func:`make_boot`.
    A chain that stops raises :class:`BootStopped`; an argument that cannot be meant is a SeamrefError that names it.
    """
    _check_knobs(topology, sockets, lps, module, {"vmx": vmx, **knobs})
    if topology is None and (sockets is not None or lps is not None):
        topology = Topology(1 if sockets is None else sockets, 2 if lps is None else lps)
    until = "vmxon" if vmx else "resume"
    result = run_boot(make_boot(topology, vmx=vmx, **knobs), until=until)
    if result.stopped_at is not None:
        raise BootStopped(result)
    if module is not None and module is not False:
        install(result.platform, None if module is True else _image(module))
    return result.platform


def _check_knobs(topology: object, sockets: object, lps: object, module: object, knobs: dict[str, Any]) -> None:
    """Refuse what :func:`boot` cannot mean, by the name it was given under."""
    known = {name: parameter for function in (make_boot, Setup) for name, parameter in
             signature(function).parameters.items() if parameter.kind is not Parameter.VAR_KEYWORD}
    for name in knobs:
        if name not in known:
            near = get_close_matches(name, [*known, "sockets", "lps", "module"], 1)
            raise SeamrefError(f"boot: no argument {name!r}" + (f"; did you mean {near[0]}?" if near else
                                                                f"; there are {', '.join(sorted(known))}"))
    for name, value in (("sockets", sockets), ("lps", lps)):
        if value is not None and (not isinstance(value, int) or isinstance(value, bool)):
            raise SeamrefError(f"boot: {name}: {value!r}, must be a whole number")
        if value is not None and topology is not None:
            raise SeamrefError(f"boot: {name} and topology: give one of them")
    if topology is not None and not isinstance(topology, Topology):
        raise SeamrefError(f"boot: topology: {topology!r}, must be a Topology")
    if not (module is None or isinstance(module, bool | str | bytes | bytearray)):
        raise SeamrefError(f"boot: module: {type(module).__name__}, must be bytes, the name of a build or True")
    for name, value in knobs.items():
        default = known[name].default
        kinds, words = _KINDS.get(name) or ((bool, "True or False") if isinstance(default, bool) else
                                            (int, "a whole number"))
        fits = isinstance(value, kinds) and not (kinds is int and isinstance(value, bool))
        if not fits and not (value is None and default is None):
            raise SeamrefError(f"boot: {name}: {value!r}, must be {words}"[:200])
    key = knobs.get("acm_key")
    if key is not None and len(key) != len(default_key()):
        raise SeamrefError(f"boot: acm_key: {len(key)} bytes, must be a modulus of {len(default_key())}")


_KINDS: dict[str, tuple[type | tuple[type, ...], str]] = {
    "config": (PlatformConfig, "a PlatformConfig"), "revision": (Revision, "a Revision, such as get_revision() gives"),
    "setup": (Setup, "a Setup"), "acm": ((bytes, bytearray), "bytes"), "acm_key": ((bytes, bytearray), "bytes"),
    "topology": (Topology, "a Topology"), "packages": (Mapping, "package -> (base MSR, mask MSR)"),
}
"""Arguments of :func:`boot` that are neither True or False nor a number: type, and its words."""


def default_key() -> bytes:
    """The modulus whose hash the chipset knows unless ``acm_key`` says otherwise."""
    from seamref.mint.keys import KEY

    return KEY.modulus_le


def _image(module: str | bytes) -> bytes:
    """An image as it is, or that of a named build."""
    from seamref import mint
    from seamref.tdxmodule.build import get_build

    return mint.module_image(get_build(module).name) if isinstance(module, str) else bytes(module)


# --- the host's calls into P-SEAMLDR


def seamldr_call(platform: Platform, lp_id: int, leaf: int, rcx: int = 0) -> Called:
    """SEAMCALL to P-SEAMLDR on one processor, and the way back."""
    run = call(platform, lp_id, rax=leaf, rcx=rcx)
    clause = run.clause if not isinstance(run, Left) else "SEAMRET.leave"
    return Called(run, platform.lp(lp_id).rax, clause)


def seamldr_info(platform: Platform, lp_id: int, at: int = INFO_BUFFER) -> Called:
    """SEAMLDR.INFO into 256 bytes at ``at``."""
    return seamldr_call(platform, lp_id, INFO, at)


def read_info(platform: Platform, lp_id: int | None = None, at: int = INFO_BUFFER) -> Record:
    """SEAMLDR.INFO, decoded; a call that does not succeed is a SeamrefError."""
    from seamref.pseamldr.api import SEAMLDR_INFO

    called = seamldr_info(platform, platform.lps[0] if lp_id is None else lp_id, at)
    if did_stop(called):
        raise SeamrefError(f"SEAMLDR.INFO: {called} ({called.clause})")
    return SEAMLDR_INFO.decode(platform.bytes_at(Agent.HOST, at, SEAMLDR_INFO.size))


def install(platform: Platform, image: bytes | None = None, sigstruct: bytes | None = None, scenario: int = 0) -> None:
    """SEAMLDR.INSTALL of a module on every processor.

    A call that does not succeed is a SeamrefError that names the status, RDX and the clause of the check that refused.
    """
    from seamref import mint
    from seamref.pseamldr.api import Status

    image = mint.module_image() if image is None else image
    params = mint.place(platform, image, sigstruct, scenario=scenario, at=MODULE_ADDRESS)
    for id in platform.lps:
        with deciding(LOADER_TABLES) as rows:
            called = seamldr_call(platform, id, INSTALL, params)
        if did_stop(called):
            said = str(called)
            if isinstance(called.run, Left) and called.rax in set(Status):
                said += f" {Status(called.rax).name}, RDX = {platform.lp(id).rdx}"
            raise SeamrefError(f"SEAMLDR.INSTALL on processor {id}: {said} ({rows[-1].id if rows else called.clause})")


# --- reloading P-SEAMLDR


@dataclass(frozen=True, slots=True)
class UpdateRecord:
    """One action of a P-SEAMLDR update and its answer."""

    lp: int
    action: str
    answer: StepAnswer


def shut_down_loader(platform: Platform, order: Iterable[int] | None = None) -> list[UpdateRecord]:
    """SEAMLDR.SHUTDOWN on every processor, the bootstrap processor last unless ``order`` says otherwise."""
    ids = [*platform.lps[1:], platform.lps[0]] if order is None else list(order)
    return [UpdateRecord(id, "SEAMLDR.SHUTDOWN", seamldr_call(platform, id, SHUTDOWN)) for id in ids]


def relaunch(platform: Platform, acm: bytes, lp_id: int | None = None, **registers: int) -> list[UpdateRecord]:
    """What an OS does to launch NP-SEAMLDR late: leave VMX, park the others, ENTERACCS, repair, wake, VMXON again.

    ``lp_id`` other than the bootstrap processor: the OS first moves IA32_APIC_BASE.BSP there.
    """
    from seamref.arch.lab import start_vmx

    id = platform.lps[0] if lp_id is None else lp_id
    records: list[UpdateRecord] = []
    in_vmx = [i for i in platform.lps if platform.peek_lp(i).vmx_on]
    for i in in_vmx:
        vmxoff(platform, i)
    _move_bsp(platform, id)
    park_others(platform, id)
    launcher.place_module(platform, acm)
    kept = launcher.keep_state(platform, platform.lp(id))
    entered = launcher.launch(platform, id, len(acm), **registers)
    records.append(UpdateRecord(id, "GETSEC[ENTERACCS]", entered))
    if isinstance(entered, EnteredAc):
        records.append(UpdateRecord(id, "NP-SEAMLDR", np_seamldr.run(platform, id)))
    if not isinstance(records[-1].answer, TxtShutdown):
        if isinstance(entered, EnteredAc):
            launcher.repair(platform, platform.lp(id), kept)
        launcher.wake_others(platform)
        for i in in_vmx:
            start_vmx(platform, i)
    return records


def _move_bsp(platform: Platform, id: int) -> None:
    """IA32_APIC_BASE.BSP is an ordinary bit that ring 0 can write."""
    for other in platform.lps:
        value = msr.bits(msr.APIC_BASE, "bsp").put(platform.msr_value(platform.lp(other), msr.APIC_BASE), other == id)
        msr.wrmsr(platform, other, msr.APIC_BASE, value)


def update_loader(platform: Platform, acm: bytes, lp_id: int | None = None) -> list[UpdateRecord]:
    """A whole P-SEAMLDR update: SHUTDOWN everywhere, then a relaunch."""
    return [*shut_down_loader(platform), *relaunch(platform, acm, lp_id)]


def failed(called: Called) -> bool:
    """VMfailInvalid: P-SEAMLDR is busy, not loaded, or disabled."""
    return not isinstance(called.run, Left)


__all__ = [
    "BREAKS", "Boot", "BootRecord", "BootResult", "BootStep", "BootStopped", "Break", "Called", "INFO",
    "INFO_BUFFER", "INSTALL", "MODULE_ADDRESS", "NotLaunched", "Returned", "SHUTDOWN", "STEPS", "STEP_NAMES",
    "StepAnswer", "UpdateRecord", "boot", "default_acm", "did_stop", "failed", "get_break", "install", "make_boot",
    "read_info", "relaunch", "run_boot", "seamldr_call", "seamldr_info", "shut_down_loader", "update_loader",
]
