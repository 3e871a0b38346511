"""GETSEC[ENTERACCS]: each condition alone, each pair of conditions, and what the module finds when it is entered."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import combinations
from typing import Any

from seamref import mint
from seamref.arch import smx
from seamref.arch.acm import ACM_HEADER
from seamref.arch.lp import CR0_CD, CR0_NE, CR0_NW, CR0_PE, CR4_SMXE, Activity
from seamref.arch.memory import Agent
from seamref.arch.msr import MCG_STATUS, SEAMRR_MASK
from seamref.arch.outcome import Fault, TxtShutdown, VmExit
from seamref.arch.platform import Platform, Topology
from seamref.arch.smx import EnteredAc
from seamref.bootchain import make_boot, run_boot
from seamref.export.form import (
    Answer,
    Case,
    Count,
    Flag,
    Group,
    Hex,
    Item,
    ListOf,
    Octets,
    OneOf,
    VectorSet,
    hexed,
    number,
)
from seamref.export.outcomes import outcome_json, outcome_type
from seamref.export.sets.machine import revision_of, revisions
from seamref.firmware.launcher import ACM_ADDRESS

MC0_STATUS = 0x401
REGISTERS = (
    "rax",
    "rbx",
    "rcx",
    "rdx",
    "rbp",
    "rip",
    "rflags",
    "cr0",
    "cr4",
    "efer",
    "dr7",
    "debugctl",
    "gdtr_base",
    "gdtr_limit",
    "cs_selector",
    "ds_selector",
)
IMAGE_SIZE = 0x11A00
"""Bytes of the P-SEAMLDR image in the test module: ENTERACCS does not look at it."""


@lru_cache(maxsize=1)
def _image() -> bytes:
    return mint.pseamldr_image(size=IMAGE_SIZE)


@lru_cache(maxsize=64)
def _acm(*header: tuple[str, int]) -> bytes:
    """A module whose header has these values, signed with them."""
    fields: dict[str, Any] = dict(header)
    return mint.acm(_image(), **fields)


@lru_cache(maxsize=8)
def _placed(revision: str) -> Platform:
    """Two packages of two processors, started up to where the module is launched."""
    b = make_boot(Topology(2, 2), revision=revision_of(revision))
    made = run_boot(b, until="bios-done").platform
    made.lp(0).cr4 |= CR4_SMXE
    return made


def _common() -> dict[str, Any]:
    platform = _placed("silicon")
    lp = platform.peek_lp(0)
    return {
        "acm": _acm().hex(),
        "acram_capacity": hexed(smx.ACRAM_CAPACITY),
        "header_version": hexed(smx.SUPPORTED_VERSION),
        "smallest": hexed(smx.SMALLEST),
        "rip": hexed(lp.rip),
        "gdtr_base": hexed(lp.gdtr_base),
        "gdtr_limit": hexed(lp.gdtr_limit),
        "cs_selector": hexed(lp.cs_selector),
        "efer": hexed(lp.efer),
    }


def _start() -> dict[str, Any]:
    """The input on which the module is entered."""
    platform = _placed("silicon")
    lp = platform.peek_lp(0)
    return {
        "rbx": hexed(ACM_ADDRESS),
        "rcx": hexed(len(_acm())),
        "rflags": hexed(lp.rflags),
        "cr0": hexed(lp.cr0),
        "cr4": hexed(lp.cr4),
        "cpl": 0,
        "vmx": False,
        "non_root": False,
        "smm": False,
        "bsp": True,
        "acmode": False,
        "mc0_status": hexed(0),
        "mcg_status": hexed(0),
        "ierr": False,
        "machine_checks_handled": False,
        "txt_chipset": True,
        "seamrr_valid": True,
        "sibling": {"cr0_cd": False, "activity": Activity.WAIT_FOR_SIPI.value},
        "write_back": True,
        "snoop_hit": False,
        "public_key": f"0x{_key(mint.KEY):X}",
        "svn_locked": False,
        "bios_se_svn": hexed(0),
        "acm_changes": [],
    }


def _key(key: mint.TestKey) -> int:
    return smx.key_hash(key.modulus_le)


def _bits(name: str, *, clear: int = 0, put: int = 0) -> dict[str, Any]:
    return {name: hexed(number(_start()[name]) & ~clear | put)}


def _faults() -> dict[str, dict[str, Any]]:
    """Clause -> what the input must have to meet it."""
    size = len(_acm())
    return {
        "GETSEC.smxe": _bits("cr4", clear=CR4_SMXE),
        "GETSEC.leaf": {"txt_chipset": False},
        "ENTERACCS.vmx": {"vmx": True},
        "ENTERACCS.cr0_pe": _bits("cr0", clear=CR0_PE),
        "ENTERACCS.cr0_cd": _bits("cr0", put=CR0_CD),
        "ENTERACCS.cr0_nw": _bits("cr0", put=CR0_NW),
        "ENTERACCS.cr0_ne": _bits("cr0", clear=CR0_NE),
        "ENTERACCS.cpl": {"cpl": 3},
        "ENTERACCS.vm86": _bits("rflags", put=1 << 17),
        "ENTERACCS.bsp": {"bsp": False},
        "ENTERACCS.acmode": {"acmode": True},
        "ENTERACCS.smm": {"smm": True},
        "ENTERACCS.seamrr": {"seamrr_valid": False},
        "ENTERACCS.mci_status": {"mc0_status": hexed(1 << 63 | 1 << 61)},
        "ENTERACCS.mcip": {"mcg_status": hexed(4)},
        "ENTERACCS.base_aligned": {"rbx": hexed(ACM_ADDRESS + 64)},
        "ENTERACCS.size_aligned": {"rcx": hexed(size + 4)},
        "ENTERACCS.size_least": {"rcx": hexed(smx.SMALLEST - 64)},
        "ENTERACCS.size_most": {"rcx": hexed(smx.ACRAM_CAPACITY + 64)},
        "ENTERACCS.below_4g": {"rbx": hexed(0xFFFFF000)},
        "ENTERACCS.sibling_cd": {"sibling": {"cr0_cd": True, "activity": Activity.WAIT_FOR_SIPI.value}},
        "ENTERACCS.sibling_idle": {"sibling": {"cr0_cd": False, "activity": Activity.ACTIVE.value}},
    }


HEADER: dict[str, tuple[tuple[str, int], ...]] = {
    "ENTERACCS.version": (("HeaderVersion", 0),),
    "ENTERACCS.type": (("ModuleType", 3),),
    "ENTERACCS.svn": (("SeSvn", 3),),
    "ENTERACCS.hitm": (("CodeControl", 2),),
    "ENTERACCS.code_control": (("CodeControl", 4),),
    "ENTERACCS.gdt_base": (("GDTBasePtr", 1700),),
    "ENTERACCS.gdt_end": (("GDTBasePtr", 0x7FFF0),),
    "ENTERACCS.entry": (("EntryPoint", 1700),),
    "ENTERACCS.gdt_limit": (("GDTLimit", 0x10000),),
    "ENTERACCS.segsel": (("SegSel", 9),),
}
"""Clause -> header fields that break it; the module is signed with them."""


def _module() -> dict[str, dict[str, Any]]:
    """Clause -> what the platform must have to meet a condition on the module."""
    return {
        "ENTERACCS.memory_type": {"write_back": False},
        "ENTERACCS.version": {},
        "ENTERACCS.type": {},
        "ENTERACCS.authenticate": {"public_key": f"0x{_key(mint.OTHER_KEY):X}"},
        "ENTERACCS.svn": {"svn_locked": True, "bios_se_svn": hexed(4 << 56)},
        "ENTERACCS.hitm": {"snoop_hit": True},
        "ENTERACCS.code_control": {},
        "ENTERACCS.gdt_base": {},
        "ENTERACCS.gdt_end": {},
        "ENTERACCS.entry": {},
        "ENTERACCS.gdt_limit": {},
        "ENTERACCS.segsel": {},
    }


def _changes(data: bytes) -> list[dict[str, Any]]:
    """Where a module differs from the one in `acm`."""
    found: list[dict[str, Any]] = []
    for start, end in _runs(_acm(), data):
        found.append({"offset": start, "bytes": data[start:end].hex()})
    return found


def _runs(one: bytes, other: bytes) -> Iterator[tuple[int, int]]:
    """Ranges of bytes that differ, those less than 16 bytes apart as one."""
    begin = last = -1
    for at, (a, b) in enumerate(zip(one, other, strict=True)):
        if a != b:
            if begin >= 0 and at - last > 16:
                yield begin, last + 1
                begin = at
            elif begin < 0:
                begin = at
            last = at
    if begin >= 0:
        yield begin, last + 1


def _cases() -> Iterator[Case]:
    start, faults, module = _start(), _faults(), _module()

    def case(name: str, comment: str, **fields: Any) -> Case:
        return Case(f"enteraccs-{name}", comment, {**start, **fields})

    yield case("good", "the module is entered")
    yield case("guest", "in VMX non-root operation", vmx=True, non_root=True)
    for id, fields in faults.items():
        yield case(_short(id), f"meets {id}", **fields)
    for one, other in combinations(faults, 2):
        if not set(faults[one]) & set(faults[other]):
            yield case(
                f"{_short(one)}-and-{_short(other)}", f"meets {one} and {other}", **{**faults[one], **faults[other]}
            )
    for id, fields in module.items():
        yield case(f"module-{_short(id)}", f"meets {id}", **fields, acm_changes=_changes(_acm(*HEADER.get(id, ()))))
    for one, other in combinations(module, 2):
        header = {**dict(HEADER.get(one, ())), **dict(HEADER.get(other, ()))}
        if len(header) == len(HEADER.get(one, ())) + len(HEADER.get(other, ())):
            yield case(
                f"module-{_short(one)}-and-{_short(other)}",
                f"meets {one} and {other}",
                **{**module[one], **module[other]},
                acm_changes=_changes(_acm(*header.items())),
            )
    others: dict[str, dict[str, Any]] = {
        "corrected-error": {"mc0_status": hexed(1 << 63)},
        "module-handles-machine-checks": {"mc0_status": hexed(1 << 63 | 1 << 61), "machine_checks_handled": True},
        "ierr": {"ierr": True},
        "sibling-sleeps": {"sibling": {"cr0_cd": False, "activity": Activity.SENTER_SLEEP.value}},
        "in-seam-memory": {"rbx": hexed(0x7C000000)},
    }
    for name, fields in others.items():
        yield case(name, name.replace("-", " "), **fields)
    for svn in (3, 4, 5):
        for locked in (False, True):
            yield case(
                f"svn-{svn}-{'locked' if locked else 'open'}",
                f"SeSvn {svn}, BIOS_SE_SVN 4, " + ("locked" if locked else "not locked"),
                svn_locked=locked,
                bios_se_svn=hexed(4 << 56),
                acm_changes=_changes(_acm(("SeSvn", svn))),
            )
    for name, control in {"none": 0, "shutdown": 2, "error-entry": 3}.items():
        for hit in (False, True):
            yield case(
                f"snoop-{name}-{int(hit)}",
                f"CodeControl = {control}, " + ("a" if hit else "no") + " modified line",
                snoop_hit=hit,
                acm_changes=_changes(_acm(("CodeControl", control), ("ErrorEntryPoint", len(_acm()) - 64))),
            )
    yield from _flipped(case)


def _flipped(case: Any) -> Iterator[Case]:
    """One byte changed after signing, in each part of the module."""
    for name, at in {
        "size": 0x1A,
        "key": ACM_HEADER.offset_of("RSAPubKey") + 8,
        "signature": ACM_HEADER.offset_of("RSASig") + 8,
        "scratch": ACM_HEADER.offset_of("Scratch"),
        "info-table": ACM_HEADER.size,
        "last": len(_acm()) - 1,
    }.items():
        changed = bytearray(_acm())
        changed[at] ^= 1
        yield case(
            f"flip-{name}", f"bit 0 of byte 0x{at:X} changed after signing", acm_changes=_changes(bytes(changed))
        )


def _short(id: str) -> str:
    return id.partition(".")[2].replace("_", "-")


def _put(platform: Platform, given: Mapping[str, Any]) -> None:
    lp = platform.lp(0)
    acm = bytearray.fromhex(given["acm"])
    for change in given["acm_changes"]:
        data = bytes.fromhex(change["bytes"])
        acm[change["offset"] : change["offset"] + len(data)] = data
    platform.store(Agent.HOST, ACM_ADDRESS, acm)
    lp.rflags, lp.cr0, lp.cr4, lp.efer = (number(given[name]) for name in ("rflags", "cr0", "cr4", "efer"))
    lp.rip, lp.cpl = number(given["rip"]), given["cpl"]
    lp.gdtr_base, lp.gdtr_limit = number(given["gdtr_base"]), number(given["gdtr_limit"])
    lp.cs_selector = number(given["cs_selector"])
    lp.in_smm, lp.is_bsp, lp.ACMODEFLAG = given["smm"], given["bsp"], given["acmode"]
    if given["vmx"]:
        from seamref.arch import lab

        lab.start_vmx(platform, 0)
        lp.cr4 = number(given["cr4"]) | 1 << 13
        lp.non_root = given["non_root"]
    platform.set_msr(lp, MC0_STATUS, number(given["mc0_status"]))
    platform.set_msr(lp, MCG_STATUS, number(given["mcg_status"]))
    if not given["seamrr_valid"]:
        platform.set_msr(lp, SEAMRR_MASK, platform.msr_value(lp, SEAMRR_MASK) & ~(1 << 11))
    sibling = platform.lp(1)
    sibling.activity = Activity(given["sibling"]["activity"])
    sibling.cr0 = sibling.cr0 | CR0_CD if given["sibling"]["cr0_cd"] else sibling.cr0 & ~CR0_CD
    platform.txt.update(CHIPSET=int(given["txt_chipset"]), PUBLIC_KEY=number(given["public_key"]))
    for name, on in (
        ("IERR", given["ierr"]),
        ("MC_HANDLED", given["machine_checks_handled"]),
        ("SNOOP_HIT", given["snoop_hit"]),
    ):
        if on:
            platform.txt[name] = 1
    if not given["write_back"]:
        platform.board["not_write_back"] = ((ACM_ADDRESS + 0x1000, 0x1000),)
    platform.svn_locked, platform.bios_se_svn = given["svn_locked"], number(given["bios_se_svn"])


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    platform = _placed(revision).fork()
    _put(platform, given)
    outcome = smx.enteraccs(platform, 0, number(given["rbx"]), number(given["rcx"]))
    lp = platform.lp(0)
    output: dict[str, Any]
    match outcome:
        case EnteredAc(entry=entry):
            output = {
                "outcome": {"kind": "entered", "entry": hexed(entry)},
                "acmode": True,
                "registers": {name: hexed(getattr(lp, name)) for name in REGISTERS},
                "smi_inhibit": lp.smi_inhibit,
                "nmi_inhibit": lp.nmi_inhibit,
                "private_space_open": bool(platform.txt.get("PRIVATE_SPACE")),
            }
        case Fault() | VmExit() | TxtShutdown():
            output = {"outcome": outcome_json(outcome), "acmode": lp.ACMODEFLAG}
            if isinstance(outcome, TxtShutdown):
                output["txt_errorcode"] = hexed(platform.txt["ERRORCODE"])
    signed = outcome.clause in ("ENTERACCS.authenticate", "ENTERACCS.effect")
    return Answer(output, (outcome.clause, *(("ACM.signed",) if signed else ())))


_ENTERED = Group(
    (
        Item(
            "kind",
            OneOf(("fault", "vm_exit", "txt_shutdown", "entered")),
            "fault: nothing has changed; vm_exit: to the VMM; txt_shutdown: the platform resets; entered: "
            "authenticated code "
            "mode",
        ),
        *(item for item in outcome_type("fault", "vm_exit", "txt_shutdown").items if item.name != "kind"),
        Item("entry", Hex(32), "where execution goes on", True),
    )
)

SET = VectorSet(
    "enteraccs",
    "GETSEC[ENTERACCS]",
    (
        "The bootstrap processor of the first package launches an authenticated code module.  The tests meet each "
        "condition "
        "alone and each pair of them that one input can meet, so that their order shows; they change the module "
        "before and "
        "after signing; and they say what the module finds when it is entered.",
        "The key that signs is the project's test key: `public_key` is what the chipset knows of it.  No document "
        "says byte "
        "by byte what the signature of a version 3 header covers, or how the key is hashed: where an outcome hangs on "
        "that, "
        "the flag ACM.signed says so.",
    ),
    (
        Item("rbx", Hex(32), "EBX: physical base of the module"),
        Item("rcx", Hex(32), "ECX: its size in bytes"),
        Item("rflags", Hex(), "RFLAGS"),
        Item("cr0", Hex(), "CR0"),
        Item("cr4", Hex(), "CR4"),
        Item("cpl", Count(0, 3), "CPL"),
        Item("vmx", Flag(), "in VMX operation"),
        Item("non_root", Flag(), "in VMX non-root operation"),
        Item("smm", Flag(), "in SMM"),
        Item("bsp", Flag(), "IA32_APIC_BASE.BSP"),
        Item("acmode", Flag(), "already in authenticated code mode"),
        Item("mc0_status", Hex(), "IA32_MC0_STATUS"),
        Item("mcg_status", Hex(), "IA32_MCG_STATUS"),
        Item("ierr", Flag(), "IERR is signalled"),
        Item("machine_checks_handled", Flag(), "GETSEC[PARAMETERS] type 5, bit 6"),
        Item("txt_chipset", Flag(), "GETSEC[CAPABILITIES] bit 0"),
        Item("seamrr_valid", Flag(), "IA32_SEAMRR_PHYS_MASK.VALID"),
        Item(
            "sibling",
            Group(
                (
                    Item("cr0_cd", Flag(), "CR0.CD"),
                    Item("activity", OneOf(tuple(a.value for a in Activity)), "what it does"),
                )
            ),
            "the other processor of the package",
        ),
        Item("write_back", Flag(), "the module's memory is write-back everywhere"),
        Item("snoop_hit", Flag(), "a modified line of another agent is hit while loading"),
        Item("public_key", Hex(384), "TXT.PUBLIC.KEY: SHA-384 of the modulus, as a little-endian number"),
        Item("svn_locked", Flag(), "IA32_SGX_SVN_STATUS.LOCK"),
        Item("bios_se_svn", Hex(), "BIOS_SE_SVN"),
        Item(
            "acm_changes",
            ListOf(
                Group(
                    (
                        Item("offset", Count(), "offset in the module"),
                        Item("bytes", Octets(), "what is there instead"),
                    )
                )
            ),
            "where the module in memory differs from `acm`",
        ),
        Item("acm", Octets(), "the module"),
        Item("acram_capacity", Hex(32), "bytes of authenticated code RAM"),
        Item("header_version", Hex(32), "the header version that the processor takes"),
        Item("smallest", Hex(32), "bytes below which it refuses"),
        Item("rip", Hex(), "RIP"),
        Item("gdtr_base", Hex(), "GDTR.base"),
        Item("gdtr_limit", Hex(16), "GDTR.limit"),
        Item("cs_selector", Hex(16), "CS"),
        Item("efer", Hex(), "IA32_EFER"),
    ),
    (
        Item("outcome", _ENTERED, "what GETSEC ended in"),
        Item("acmode", Flag(), "in authenticated code mode afterwards"),
        Item(
            "registers",
            Group(tuple(Item(name, Hex(), name.upper()) for name in REGISTERS)),
            "what the module finds; only where it is entered",
            True,
        ),
        Item("smi_inhibit", Flag(), "SMIs are masked; only where it is entered", True),
        Item("nmi_inhibit", Flag(), "NMIs are masked; only where it is entered", True),
        Item("private_space_open", Flag(), "TXT private space is open; only where it is entered", True),
        Item("txt_errorcode", Hex(32), "TXT.ERRORCODE after the reset; only of a TXT shutdown", True),
    ),
    revisions("enteraccs-needs-SEAMRR"),
    _cases,
    _answer,
    _common,
    small=2,
)
