"""Replays recorded answers of the TDX module (1.5.01 and 1.5.05) on this module and compares everything.

Each case starts on a platform with the recording's MSRs, booted by the real chain, and a module of the recorded version
installed by P-SEAMLDR.  A ``call`` is a SEAMCALL of that processor; what is compared is RAX, RCX, RDX, R8 to R11, the
module's global state, and whatever the case reads of host memory, handoff data, key ownership and TDs.
"""

from __future__ import annotations

import json
from typing import Any

from seamref import bootchain, mint
from seamref.arch.memory import Agent
from seamref.arch.msr import MSRS, SEAMRR_BASE, SEAMRR_MASK
from seamref.arch.outcome import Entered, Left, Shutdown
from seamref.arch.pconfig import PconfigStatus
from seamref.arch.platform import Platform, PlatformConfig, SeamdbEntry, Topology
from seamref.arch.seam import seamcall
from seamref.arch.software import Running, SeamRun, StepOutcome, call, run
from seamref.arch.software import step as one_step
from seamref.conformance.reading import (
    FormatError,
    any_mapping,
    array,
    elements,
    hex_bytes,
    hex_key,
    integer,
    mapping,
    one_of,
    text,
)
from seamref.conformance.vectorset import Case, Difference, VectorSet
from seamref.tdxmodule import program  # makes the module's images runnable
from seamref.tdxmodule.core import View
from seamref.tdxmodule.look import Look
from seamref.tdxmodule.structures import HANDOFF_V0, PAGE, PAMT_ENTRY

VERSIONS = ("1.5.01", "1.5.05")
INPUTS = ("rax", "rcx", "rdx", "rbx", "rsi", "rdi", "r8", "r9", "r10", "r11", "r12", "r13", "r14", "r15")
OUTPUTS = ("rcx", "rdx", "r8", "r9", "r10", "r11")
STATE = ("sys_state", "num_init_lps", "num_init_pkgs", "pkg_config_bitmap", "hkid", "num_tdmrs", "global_lock")
NO_ENTROPY = ((0, 0),) * 64
KEY_TABLE = {"busy": PconfigStatus.DEVICE_BUSY, "entropy": PconfigStatus.ENTROPY_ERROR, "other": 3}
PLATFORM_KEYS = {"cmrs", "msrs", "seamrr", "seam_capabilities", "num_handoff_pages", "module_hv", "min_update_hv",
                 "no_downgrade"}
HELD = {"global_lock": "global_lock", "kot_lock": "kot_lock", "tdmr_lock": "tdmrs[{}].mutex",
        "wbt_lock": "wbt[{}].mutex"}
READ = {"kot": "kot[{}].state", "kot_wb": "kot[{}].wbinvd_bitmap", "next": "tdmrs[{}].next_to_init"}
TD_READ = {"lifecycle": "lifecycle", "chldcnt": "chldcnt", "num_tdcx": "num_tdcx", "fatal": "fatal",
           "pkg": "pkg_config_bitmap"}
TDCS_READ = {"op_state": "op_state", "num_vcpus": "num_vcpus", "num_assoc": "num_assoc_vcpus", "epoch": "td_epoch",
             "mrtd": "mrtd"}
HANDOFF_SIZE = HANDOFF_V0.size
MAX_LPS, MAX_READ, MAX_TIMES = 64, 1 << 20, 4096
BUILD = {"build_date": 20231008, "build_num": 481}
VMX_CONTROLS = (0x48D, 0x48E, 0x48F, 0x490)
BUILT: dict[str, dict[str, int]] = {"1.5.01": {"update": 1}, "1.5.05": {"update": 5, "tdx_features0": 0x1F_0FBF}}
"""What the published sources say of themselves; TDX_FEATURES0 of 1.5.05 has no bits 25 and 26 there."""
FMS = 0x806F8


# --- the format


def _pair(value: Any, path: str) -> tuple[int, int]:
    base, size = array(value, path, 2, 2)
    return integer(base, f"{path}[0]"), integer(size, f"{path}[1]")


def _image_of(value: Any, path: str) -> bytes:
    """``{"size": n, "nonzero": [[offset, hex], ..]}`` as bytes."""
    found = mapping(value, path, {"size", "nonzero"})
    out = bytearray(integer(found["size"], f"{path}.size", 0, MAX_READ))
    for at, pair in elements(found["nonzero"], f"{path}.nonzero"):
        offset, data = array(pair, at, 2, 2)
        start = integer(offset, f"{at}[0]", 0, len(out))
        content = hex_bytes(data, f"{at}[1]")
        if start + len(content) > len(out):
            raise FormatError(f"{at}[1]", f"{len(content)} bytes at {start} of {len(out)}")
        out[start : start + len(content)] = content
    return bytes(out)


def _modelled(address: int, path: str) -> int:
    """An MSR that this machine has; of any other it is said that it has not."""
    if address not in MSRS:
        raise FormatError(path, f"MSR 0x{address:X} is not modelled here")
    return address


def _check_expect(step: dict[str, Any], path: str) -> None:
    expect = any_mapping(step["expect"], path)
    if "fatal" in expect:
        mapping(expect, path, {"fatal"})
        one_of(expect["fatal"], f"{path}.fatal", (True,))
        return
    mapping(expect, path, {"rax", "regs", "state"})
    integer(expect["rax"], f"{path}.rax")
    for name, value in mapping(expect["regs"], f"{path}.regs", set(OUTPUTS)).items():
        integer(value, f"{path}.regs.{name}")
    for name, value in mapping(expect["state"], f"{path}.state", set(STATE)).items():
        integer(value, f"{path}.state.{name}", 0, (1 << 32) - 1)


def check_step(step: Any, path: str, lps: int, packages: int, *, in_prefix: bool = False) -> None:
    """One step: every key and value of its ``op``."""
    op = one_of(any_mapping(step, path).get("op"), f"{path}.op", (
        "call", "poke", "msr_xor", "hold", "pamt_lock", "table", "handoff_write", "replace", "peek", "handoff_read",
        "state", "td"))
    times = {"times"} if in_prefix else set()
    match op:
        case "call":
            mapping(step, path, {"op", "lp", "regs"} | (set() if in_prefix else {"expect"}), {"with"} | times)
            integer(step["lp"], f"{path}.lp", 0, lps - 1)
            for name, value in mapping(step["regs"], f"{path}.regs", {"rax"}, set(INPUTS)).items():
                integer(value, f"{path}.regs.{name}")
            if "with" in step:
                for name, value in mapping(step["with"], f"{path}.with", (), {"entropy", "key_table"}).items():
                    one_of(value, f"{path}.with.{name}", ("none",) if name == "entropy" else tuple(KEY_TABLE))
            if "expect" in step:
                _check_expect(step, f"{path}.expect")
        case "poke":
            mapping(step, path, {"op", "pa", "data"}, times)
            integer(step["pa"], f"{path}.pa", 0, (1 << 52) - 1)
            hex_bytes(step["data"], f"{path}.data")
        case "msr_xor":
            mapping(step, path, {"op", "lp", "msr", "mask"}, times)
            integer(step["lp"], f"{path}.lp", 0, lps - 1)
            _modelled(integer(step["msr"], f"{path}.msr", 0, (1 << 32) - 1), f"{path}.msr")
            integer(step["mask"], f"{path}.mask")
        case "hold":
            mapping(step, path, {"op", "what", "index", "value"}, times)
            what = one_of(step["what"], f"{path}.what", (*HELD, "busy"))
            most = {"busy": lps, "tdmr_lock": 64, "wbt_lock": packages}.get(what, 1) - 1
            integer(step["index"], f"{path}.index", 0, most)
            integer(step["value"], f"{path}.value", 0, 0xFFFF if what in ("global_lock", "kot_lock") else 0xFF)
        case "pamt_lock":
            mapping(step, path, {"op", "pa", "value"}, times)
            integer(step["pa"], f"{path}.pa", 0, (1 << 52) - 1)
            integer(step["value"], f"{path}.value", 0, 0xFFFF)
        case "table" | "handoff_write":
            mapping(step, path, {"op", "offset", "data"}, times)
            room = PAGE if op == "table" else HANDOFF_SIZE
            at = integer(step["offset"], f"{path}.offset", 0, room)
            integer(at + len(hex_bytes(step["data"], f"{path}.data")), f"{path}.data: end", 0, room)
        case "replace":
            mapping(step, path, {"op"}, times)
        case "peek":
            mapping(step, path, {"op", "pa", "size", "expect"}, times)
            integer(step["pa"], f"{path}.pa", 0, (1 << 52) - 1)
            integer(step["size"], f"{path}.size", 0, MAX_READ)
            _image_of(step["expect"], f"{path}.expect")
        case "handoff_read":
            mapping(step, path, {"op", "expect"}, times)
            _image_of(step["expect"], f"{path}.expect")
        case "state":
            mapping(step, path, {"op", "what", "index", "expect"}, times)
            what = one_of(step["what"], f"{path}.what", tuple(READ))
            integer(step["index"], f"{path}.index", 0, 63 if what == "next" else 2047)
            integer(mapping(step["expect"], f"{path}.expect", {"value"})["value"], f"{path}.expect.value")
        case "td":
            mapping(step, path, {"op", "what", "tdr", "expect"}, times)
            what = one_of(step["what"], f"{path}.what", (*TD_READ, *TDCS_READ))
            integer(step["tdr"], f"{path}.tdr", 0, (1 << 52) - 1)
            if what == "mrtd":
                _image_of(step["expect"], f"{path}.expect")
            else:
                integer(mapping(step["expect"], f"{path}.expect", {"value"})["value"], f"{path}.expect.value")
    if "times" in step:
        integer(step["times"], f"{path}.times", 1, MAX_TIMES)


# --- a platform for a case


KEPT_MACHINES = 64
_MADE: dict[tuple[str, str, int, int, str | None], Machine] = {}
"""Machines behind a prefix, by what made them: the same for every document that says the same."""


class Recorded:
    """What the cases of a document share: the platform's figures, and prefixes."""

    def __init__(self, document: dict[str, Any]) -> None:
        given = mapping(document["platform"], "platform", PLATFORM_KEYS)
        self.cmrs = tuple(_pair(v, at) for at, v in elements(given["cmrs"], "platform.cmrs", 1, 32))
        self.msrs = {_modelled(hex_key(name, f"platform.msrs.{name}"), f"platform.msrs.{name}"):
                     integer(value, f"platform.msrs.{name}")
                     for name, value in any_mapping(given["msrs"], "platform.msrs").items()}
        for address in (SEAMRR_BASE, SEAMRR_MASK):  # the boot programs these two
            self.msrs.pop(address, None)
        self.seamrr = _pair(given["seamrr"], "platform.seamrr")
        self.capabilities = integer(given["seam_capabilities"], "platform.seam_capabilities")
        self.signed = {name: integer(given[name], f"platform.{name}", 0, 0xFFFF)
                       for name in ("num_handoff_pages", "module_hv", "min_update_hv", "no_downgrade")}
        self.prefixes: dict[str, list[dict[str, Any]]] = {}
        for name, steps in any_mapping(document["prefixes"], "prefixes").items():
            for at, step in elements(steps, f"prefixes.{name}"):
                check_step(step, at, MAX_LPS, 8, in_prefix=True)
            self.prefixes[name] = steps
        self._fits: set[tuple[str, int, int]] = set()
        self._ground = json.dumps(given, sort_keys=True)

    def check_prefix(self, name: str, lps: int, packages: int) -> None:
        """A prefix on a platform of this size: a processor that is none of it is named by its path."""
        if (name, lps, packages) in self._fits:
            return
        for at, step in elements(self.prefixes[name], f"prefixes.{name}"):
            check_step(step, at, lps, packages, in_prefix=True)
        self._fits.add((name, lps, packages))

    def machine(self, case: dict[str, Any]) -> Machine:
        """A machine behind the case's prefix: a copy of one made once."""
        version, prefix = case["module"], case["prefix"]
        sockets, lps = integer(case["sockets"], ""), integer(case["lps_per_socket"], "")
        steps = None if prefix is None else json.dumps(self.prefixes[prefix])
        key = (self._ground, version, sockets, lps, steps)
        found = _MADE.get(key)
        if found is None:
            if prefix is None:
                found = Machine(self._boot(version, sockets, lps))
            else:
                found = self.machine({**case, "prefix": None})
                for index, step in enumerate(self.prefixes[prefix]):
                    for _ in range(integer(step.get("times", 1), "")):
                        rax = found.act(step)
                        if rax:
                            raise _Prefix(prefix, index, rax)
            if len(_MADE) >= KEPT_MACHINES:
                _MADE.clear()
            _MADE[key] = found
        return Machine(found.platform.fork())

    def _boot(self, version: str, sockets: int, lps: int) -> Platform:
        base, size = self.seamrr
        config = PlatformConfig(topology=Topology(sockets, lps), cmrs=self.cmrs, fms=(FMS,))
        platform = bootchain.boot(config=config, seamrr_base=base, seamrr_size=size)
        fields: dict[str, Any] = {**BUILD, **BUILT[version]}
        signed: dict[str, Any] = self.signed
        image = mint.module_image(version, **fields)
        bootchain.install(platform, image, mint.sigstruct(image, **signed))
        for id in platform.lps:
            for address, value in self.msrs.items():
                platform.set_msr(platform.lp(id), address, value)
        return platform


class _Prefix(Exception):
    """A prefix that must succeed did not."""

    def __init__(self, prefix: str, index: int, rax: int | str) -> None:
        self.prefix, self.index, self.rax = prefix, index, rax


class Machine:
    """One platform with a module, played step by step."""

    def __init__(self, platform: Platform) -> None:
        self.platform = platform
        self.look = Look(platform)
        self.flipped: list[tuple[int, int, int]] = []
        """(processor, MSR, mask) of VMX controls that RDMSR shows flipped: silicon itself goes on with the others."""

    def _lp(self, index: int) -> int:
        return self.platform.lps[index]

    def act(self, step: dict[str, Any]) -> int | str:
        """Do a step that is not a reading; RAX of a call (``fatal`` where the platform went down), else 0."""
        match step["op"]:
            case "call":
                return self._call(step)
            case "poke":
                self.platform.store(Agent.HOST, integer(step["pa"], ""), bytes.fromhex(step["data"]))
            case "msr_xor":
                flip = (self._lp(integer(step["lp"], "")), integer(step["msr"], ""), integer(step["mask"], ""))
                if flip[1] in VMX_CONTROLS:
                    self.flipped.append(flip)
                else:
                    self._flip(flip)
            case "hold":
                if step["what"] == "busy":
                    self.look.local(integer(step["index"], "")).set("busy", integer(step["value"], ""))
                else:
                    place = HELD[step["what"]].format(integer(step["index"], ""))
                    self.look.glob.set(place, integer(step["value"], ""))
            case "pamt_lock":
                self._pamt(integer(step["pa"], "")).set("lock", integer(step["value"], ""))
            case "table":
                self.look.dram.write(self.look.table.base + integer(step["offset"], ""), bytes.fromhex(step["data"]))
            case "handoff_write":
                self.look.dram.write(self.look.data + integer(step["offset"], ""), bytes.fromhex(step["data"]))
            case "replace":
                self._replace()
        return 0

    def _call(self, step: dict[str, Any]) -> int | str:
        given = {name: integer(value, "") for name, value in step["regs"].items()}
        answers = step.get("with", {})
        platform = self.platform
        if "entropy" in answers:
            platform.inject("rdrand", *NO_ENTROPY)
            platform.inject("rdseed", *NO_ENTROPY)
        if "key_table" in answers:
            platform.inject("key_table", int(KEY_TABLE[answers["key_table"]]))
        lp_id, registers = self._lp(integer(step["lp"], "")), {**dict.fromkeys(INPUTS, 0), **given}
        ended = self._run(lp_id, registers) if self.flipped else call(platform, lp_id, **registers)
        platform.injected.clear()
        if not isinstance(ended, Left):
            return "fatal" if isinstance(ended, Shutdown) else str(ended)
        return platform.peek_lp(self._lp(integer(step["lp"], ""))).rax

    def _flip(self, flip: tuple[int, int, int]) -> None:
        lp = self.platform.lp(flip[0])
        self.platform.set_msr(lp, flip[1], self.platform.msr_value(lp, flip[1]) ^ flip[2])

    def _run(self, lp_id: int, registers: dict[str, int]) -> SeamRun:
        """A call whose module sees other VMX controls than the transitions into and out of it use."""
        lp = self.platform.lp(lp_id)
        for name, value in registers.items():
            setattr(lp, name, value)
        entered = seamcall(self.platform, lp_id)
        if not isinstance(entered, Entered):
            return entered
        for flip in self.flipped:
            self._flip(flip)
        outcome: StepOutcome = Running("entered")
        while isinstance(outcome, Running) and getattr(lp.program_state, "phase", "") != "leave":
            outcome = one_step(self.platform, lp_id)
        for flip in self.flipped:
            self._flip(flip)
        return outcome if isinstance(outcome, Shutdown) else run(self.platform, lp_id)

    def _pamt(self, pa: int) -> View:
        glob = self.look.glob
        for i in range(glob.num("num_tdmrs")):
            base = glob.num(f"tdmrs[{i}].base")
            if base <= pa < base + glob.num(f"tdmrs[{i}].size"):
                at = glob.num(f"tdmrs[{i}].pamt_4k_base") + (pa - base) // PAGE * PAMT_ENTRY.size
                return View(PAMT_ENTRY, self.look.dram, self.platform.with_keyid(at, glob.num("hkid")))
        return View(PAMT_ENTRY, self.look.dram, 0)

    def _replace(self) -> None:
        """All module data 0 but the handoff pages; the next SEAMDB entry."""
        look, platform = self.look, self.platform
        start = look.data + look.handoff_size
        look.dram.write(start, bytes(look.table.num("data_rgn_size") - look.handoff_size))
        newest = platform.seamdb[-1]
        platform.seamdb = (*platform.seamdb, SeamdbEntry(newest.identity, platform.random_bytes(32)))

    def read(self, step: dict[str, Any]) -> int | bytes:
        """What a reading finds."""
        look = self.look
        match step["op"]:
            case "peek":
                return self.platform.bytes_at(Agent.CPU, integer(step["pa"], ""), integer(step["size"], ""))
            case "handoff_read":
                return look.dram.read(look.data, HANDOFF_SIZE)
            case "state":
                return look.glob.num(READ[step["what"]].format(integer(step["index"], "")))
        tdr, what = integer(step["tdr"], ""), step["what"]
        if what in TD_READ:
            return look.tdr(tdr).num(TD_READ[what])
        if what == "mrtd":
            return look.tdcs(tdr).raw("mrtd")
        return look.tdcs(tdr).num(TDCS_READ[what])


class TdxModuleVectors(VectorSet[Recorded]):
    """The format of the TDX module's recordings."""

    def label(self, value: dict[str, Any], path: str) -> tuple[str, str]:
        """The name and the module's version make a case."""
        version = one_of(value["module"], f"{path}.module", VERSIONS)
        return f"{text(value['name'], f'{path}.name')}@{version}", text(value["group"], f"{path}.group")

    def prepare(self, document: dict[str, Any], sparse: bool) -> Recorded:
        """The platform and the prefixes."""
        mapping(document, "", {"platform", "prefixes", "cases"})
        return Recorded(document)

    def check(self, case: Case, shared: Recorded) -> None:
        """Every step, before anything runs."""
        c = mapping(case.value, case.path, {
            "name", "group", "module", "sockets", "lps_per_socket", "prefix", "steps"})
        one_of(c["group"], f"{case.path}.group", ("system", "td"))
        sockets = integer(c["sockets"], f"{case.path}.sockets", 1, 8)
        lps = sockets * integer(c["lps_per_socket"], f"{case.path}.lps_per_socket", 1, MAX_LPS // sockets)
        if c["prefix"] is not None:
            shared.check_prefix(one_of(c["prefix"], f"{case.path}.prefix", tuple(shared.prefixes)), lps, sockets)
        for at, step in elements(c["steps"], f"{case.path}.steps", 1):
            check_step(step, at, lps, sockets)

    def replay(self, case: Case, shared: Recorded) -> list[Difference]:
        """The first step that differs, every field of it."""
        try:
            machine = shared.machine(case.value)
        except _Prefix as stopped:
            return [Difference(case.id, None, f"prefix {stopped.prefix}[{stopped.index}].rax", stopped.rax, 0)]
        for index, step in enumerate(case.value["steps"]):
            found = list(_step(machine, step, case.id, index))
            if found or step.get("expect", {}).get("fatal"):
                return found
        return []


def _step(machine: Machine, step: dict[str, Any], id: str, index: int) -> list[Difference]:
    expect: dict[str, Any] = step.get("expect", {})
    if step["op"] != "call":
        if not expect:
            machine.act(step)
            return []
        ours, want = machine.read(step), _image_of(expect, "") if "size" in expect else integer(expect["value"], "")
        if ours == want:
            return []
        if isinstance(ours, bytes) and isinstance(want, bytes):
            pairs = enumerate(zip(ours, want, strict=False))
            at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(want)))
            return [Difference(id, index, f"{step['op']}[{at}]", ours[at : at + 8].hex(), want[at : at + 8].hex())]
        return [Difference(id, index, f"{step['op']}.{step['what']}", ours, want)]
    rax = machine.act(step)
    if "fatal" in expect:
        return [] if rax == "fatal" else [Difference(id, index, "rax", rax, "fatal")]
    if isinstance(rax, str):
        return [Difference(id, index, "rax", rax, integer(expect["rax"], ""))]
    lp, glob = machine.platform.peek_lp(machine.platform.lps[integer(step["lp"], "")]), machine.look.glob
    found = [("rax", rax, expect["rax"]), *((f"regs.{n}", getattr(lp, n), v) for n, v in expect["regs"].items()),
             *((f"state.{n}", glob.num(n), v) for n, v in expect["state"].items())]
    return [Difference(id, index, name, ours, integer(want, "")) for name, ours, want in found
            if ours != integer(want, "")]


VECTORS = TdxModuleVectors()
__all__ = ["VECTORS", "Machine", "Recorded", "TdxModuleVectors", "program"]
