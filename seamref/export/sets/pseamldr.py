"""Calls of P-SEAMLDR and INSTALL sessions with minted images, recorded in the format ``pseamldr-vectors/1``.

The cases are the attempts of :mod:`seamref.experiments.loader.refusals`, one for every row that can refuse an INSTALL,
and sessions that succeed or are about the other leaves.  :class:`Recorder` runs them as ``conform`` replays a case, and
writes down what it sees instead of comparing it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256, sha384, shake_128
from typing import Any

from seamref import mint
from seamref.arch.lp import GPRS
from seamref.arch.platform import VMX_MSRS, Topology
from seamref.arch.seam import BIT63, _enter_SEAM
from seamref.arch.structures import SEAMEXTEND, SYS_INFO_TABLE
from seamref.arch.trace import Event, InstructionEnded
from seamref.arch.vmcs import TRANSFER_MSRS, get
from seamref.arch.vmx import current
from seamref.conformance.pseamldr import _WRITTEN, Replay, Walk, Watch, page_digests, read_vmcss
from seamref.conformance.pseamldr_format import (
    COUNTERS,
    GUEST,
    GUEST_AFTER,
    PLAN,
    SYS_INFO,
    VMCS_COMMON,
    VMCS_PER_LP,
    Recipes,
    number,
)
from seamref.conformance.recipes import shake_page
from seamref.errors import SeamrefError
from seamref.experiments.loader import refusals
from seamref.experiments.loader.lab import PARAMS, RANGE_SIZE, Attempt
from seamref.export.form import Any_, Count, Flag, Group, Item, ListOf, MapOf, Maybe, Number, Octets, OneOf, Row, Text
from seamref.export.recording import RecordedSet, runs, shown
from seamref.pseamldr.api import HANDOFF_DATA_HEADER, PAGE, SEAMLDR_PARAMS, Leaf, Scenario
from seamref.pseamldr.build import Build
from seamref.pseamldr.data import P_SEAMLDR_DATA
from seamref.pseamldr.rsa import verify
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, signed_bytes
from seamref.spec import CLAUSES, deciding

FORMAT = "pseamldr-vectors/1"
SEAMRR_END = 2 << 30
SPARE = 8
KEYS = {"k0": mint.KEY, "k1": mint.OTHER_KEY}
_ROWS = {row.id for table in refusals.INSTALL_TABLES for row in table}
_LEAF_OF = {"SEAMOPS.seamdb_clear": "CLEAR", "SEAMOPS.seamdb_insert": "INSERT", "SEAMOPS.seamdb_full": "INSERT",
            "SEAMOPS.seamdb_getref": "GETREF"}


# --- recipes


class Book:
    """The images and sigstructs that cases name, kept by their contents."""

    def __init__(self) -> None:
        self.images: dict[str, Any] = {}
        self.sigstructs: dict[str, Any] = {}
        self._ids: dict[bytes, str] = {}
        self.defaults = {name: value for name, value in _fields(mint.sigstruct(mint.module_image())).items()
                         if name != "cpuid_table"}
        self.defaults["cpuid_table"] = list(mint.module.CPUIDS)

    def image(self, data: bytes, seed: int) -> str:
        """The id of an image whose filler was made from ``seed``."""
        under = b"".join(shake_page(seed, page) for page in range(len(data) // PAGE))
        recipe = {"pages": len(data) // PAGE, "fill": ["shake", seed],
                  "writes": [["hex", at, part.hex()] for at, part in runs(data, under)],
                  "sha384": sha384(data).hexdigest()}
        return self._keep(self.images, "i", data, recipe)

    def sigstruct(self, data: bytes) -> str:
        """The id of a sigstruct."""
        modulus = SEAM_SIGSTRUCT.peek(data, "modulus")
        signer = next(name for name, key in KEYS.items() if key.modulus_le == modulus)
        fields = _fields(data)
        table = fields.pop("cpuid_table")
        recipe: dict[str, Any] = {
            "seamhash": SEAM_SIGSTRUCT.peek(data, "seamhash").hex(), "signer": signer,
            "set": {name: value for name, value in fields.items() if value != self.defaults[name]},
            "cpuid_table": table, "pre": _reserved(data), "signature": SEAM_SIGSTRUCT.peek(data, "signature").hex(),
            "sha256": sha256(data).hexdigest(),
        }
        if not verify(modulus, SEAM_SIGSTRUCT.peek(data, "signature"), signed_bytes(data)):
            recipe["signature_given"] = True
        return self._keep(self.sigstructs, "s", data, recipe)

    def _keep(self, place: dict[str, Any], letter: str, data: bytes, recipe: dict[str, Any]) -> str:
        if data not in self._ids:
            self._ids[data] = f"{letter}{len(place)}"
            place[self._ids[data]] = shown(recipe)
        return self._ids[data]


def _fields(data: bytes) -> dict[str, Any]:
    """Integer fields of a sigstruct, and its CPUID table without the zeros at its end."""
    record = SEAM_SIGSTRUCT.decode(data)
    fields = {name: value for name, value in record.items() if isinstance(value, int)}
    table = list(record.cpuid_table)
    while table and not table[-1]:
        table.pop()
    return {**fields, "cpuid_table": table}


def _reserved(data: bytes) -> list[list[Any]]:
    """Reserved bytes of a sigstruct that are not 0, as patches."""
    found = []
    for field in SEAM_SIGSTRUCT.fields:
        if field.name.startswith("reserved"):
            at = SEAM_SIGSTRUCT.offset_of(field.name)
            held = data[at : at + field.type.size]
            found += [[at + i, held[i : i + 1].hex()] for i in range(len(held)) if held[i]]
    return found


# --- what a case is, before it runs


@dataclass(frozen=True, slots=True)
class Script:
    """A case before it runs: its steps without what is expected, and what goes wrong on purpose in each."""

    id: str
    group: str
    flags: tuple[str, ...]
    note: str
    platform: Mapping[str, Any]
    seamdb: int
    steps: tuple[Step, ...]


@dataclass(frozen=True, slots=True)
class Step:
    """One call: processors, leaf, registers, memory; ``rdrand`` answers drawn first, ``no_insert`` times no entropy
    for SEAMDB's nonce, ``seamops`` answers of SEAMOPS instead of the database's own."""

    lps: tuple[int, ...]
    leaf: str
    rcx: int = 0
    rdx: int = 0x5A5A
    mem: tuple[Mapping[str, Any], ...] = ()
    handoff: Mapping[str, int] | None = None
    rdrand: tuple[tuple[int, int], ...] = ()
    no_insert: int = 0
    seamops: tuple[tuple[Any, ...], ...] = ()
    guest: Mapping[str, int] | None = None


def make_platform(
    *, lps: int = 2, sockets: int = 1, addressable: int = 0, seamrr: int = 64 << 20, range_size: int = RANGE_SIZE,
    seamdb: int = 16, fms: Sequence[int] = (0xC06F2,), debug_unlocked: bool = False, ids: Sequence[int] = (),
) -> tuple[dict[str, Any], int]:
    """A platform as the format writes it, and the entries of its SEAMDB."""
    topology = Topology(sockets, lps, addressable, tuple(ids))
    held = topology.x2apic_ids()
    keyids = 31
    return {
        "num_sockets": sockets, "tot_num_lps": len(held), "cpuid4_max_lps_minus1": topology.addressable_per_socket - 1,
        "lps": _ranges(held), "fms": [hex(fms[min(i, len(fms) - 1)]) for i in range(sockets)], "max_pa": 52,
        "hkid_bits": 6, "num_mktme_kids": keyids, "private_hkid_min": keyids + 1,
        "seamrr_base": hex(SEAMRR_END - seamrr), "seamrr_size": hex(seamrr), "p_seamldr_range_size": hex(range_size),
        "debug_unlocked": int(debug_unlocked), "acm_x2apicid": held[0], "sysinfo_version": 0, "skip_smrr2_check": 0,
        "tdx_ac": 0, "cmrs": [["0x100000", "0x7ff00000"], ["0x100000000", "0x780000000"]], "reserved_seed": None,
        "vmx_msrs": {hex(at): hex(VMX_MSRS[at]) for at in TRANSFER_MSRS},
    }, seamdb


def _ranges(ids: Sequence[int]) -> list[list[int]]:
    found: list[list[int]] = []
    for id in ids:
        if found and id == sum(found[-1]):
            found[-1][1] += 1
        else:
            found.append([id, 1])
    return found


class _Prepared:
    """Stands for a platform before a session: what an attempt's ``prepare`` asks of it is noted."""

    def __init__(self, lps: Sequence[int]) -> None:
        self.lps = tuple(lps)
        self.asked: dict[str, tuple[Any, ...]] = {}

    def inject(self, source: str, *answers: Any) -> None:
        """As :meth:`seamref.arch.platform.Platform.inject`."""
        self.asked[source] = (*self.asked.get(source, ()), *answers)


def _seed(what: str) -> int:
    """The 8-byte seed of an image's filler, from a name."""
    return int.from_bytes(shake_128(f"seamref kit {what}".encode()).digest(6), "little")


def _image(build: str, **more: Any) -> tuple[bytes, int]:
    seed = _seed(build)
    return mint.module_image(build, seed=seed.to_bytes(8, "little"), **more), seed


def _placed(book: Book, image: bytes, seed: int, sigstruct: bytes, scenario: int = 0,
            params: Mapping[str, Any] | None = None) -> tuple[Mapping[str, Any], ...]:
    """SEAMLDR_PARAMS, sigstruct and image in the caller's memory, from PARAMS on."""
    pages = len(image) // PAGE
    recipe = {"scenario": scenario, "sigstruct_pa": PARAMS + PAGE, "num_module_pages": pages,
              "pages": [[0, PARAMS + 2 * PAGE, pages]]}
    page = bytearray(mint.params_page(PARAMS + PAGE, [PARAMS + 2 * PAGE + PAGE * i for i in range(pages)],
                                      scenario=scenario))
    plain = bytes(page)
    for name, value in (params or {}).items():
        SEAMLDR_PARAMS.poke(page, name, value)
    patch = [[at, part.hex()] for at, part in runs(bytes(page), plain, 8)]
    if patch:
        recipe["patch"] = patch
    return (
        {"pa": PARAMS, "params": recipe}, {"pa": PARAMS + PAGE, "sigstruct": book.sigstruct(sigstruct)},
        {"image": book.image(image, seed), "at": [[PARAMS + 2 * PAGE, 0, pages]]},
    )


def _install(lps: Sequence[int], mem: tuple[Mapping[str, Any], ...], **first: Any) -> tuple[Step, ...]:
    """INSTALL on each processor in turn, memory written before the first call."""
    return tuple(Step((id,), "INSTALL", PARAMS, mem=mem if i == 0 else (), **(first if i == len(lps) - 1 else {}))
                 for i, id in enumerate(lps))


def _of_attempt(book: Book, case: refusals.Case) -> Script:
    """The script of an attempt that a row stops."""
    attempt: Attempt = case.attempt
    platform, seamdb = make_platform(**attempt.on)
    ids = [first + i for first, count in platform["lps"] for i in range(count)]
    steps: list[Step] = []
    if attempt.old is not None:
        old, seed = _image(attempt.old)
        steps += _install(ids, _placed(book, old, seed, mint.sigstruct(old, **attempt.old_sig)))
    seed = _seed(attempt.build)
    own = replace(attempt, image={**attempt.image, "seed": seed.to_bytes(8, "little")})
    image = own.make_image()
    mem = _placed(book, image, seed, own.make_sigstruct(image), int(attempt.scenario), attempt.params)
    prepared = _Prepared(ids)
    if case.row == "INSTALL.lp.shutdown":
        steps.append(Step((ids[0],), "SHUTDOWN"))
    elif attempt.prepare is not None:
        attempt.prepare(prepared)  # type: ignore[arg-type]
    hands = dict(attempt.handoff) if attempt.old is not None and attempt.scenario == Scenario.UPDATE else None
    order = attempt.order or tuple(ids)
    for i, id in enumerate(order):
        last = i == len(order) - 1
        steps.append(Step(
            (id,), "INSTALL", attempt.rcx, mem=mem if i == 0 else (), handoff=hands if i == 0 else None,
            rdrand=prepared.asked.get("rdrand", ()) if last else (),
            no_insert=len(prepared.asked.get("seamdb_entropy", ())) if last else 0,
            seamops=prepared.asked.get("seamdb", ()) if last else ()))
    return Script(f"row/{case.row}", "row", (case.row,), case.brings, platform, seamdb, tuple(steps))


def _scripts(book: Book) -> Iterator[Script]:
    yield from _sessions(book)
    yield from _leaves(book)
    for case in (*refusals.cases(), *refusals.fatal_cases()):
        if "revision" not in case.attempt.on and (case.row in CLAUSES):
            yield _of_attempt(book, case)


def _sessions(book: Book) -> Iterator[Script]:
    """Sessions that succeed."""
    done = ("INSTALL.leaf", "INSTALL.plan", "INSTALL.success", "INSTALL.insert")
    old, old_seed = _image("1.5.05")
    new, new_seed = _image("1.5.16")
    load = _placed(book, old, old_seed, mint.sigstruct(old))
    update = _placed(book, new, new_seed, mint.sigstruct(new), int(Scenario.UPDATE))
    shapes: dict[str, dict[str, Any]] = {
        "one": {"lps": 1}, "two": {}, "four": {"sockets": 2, "lps": 2},
        "odd": {"sockets": 2, "lps": 3, "addressable": 5},
        "eight-sockets": {"sockets": 8, "lps": 1}, "sparse": {"ids": (0, 3, 64, 65), "addressable": 64, "sockets": 2},
        "small-seamrr": {"seamrr": 32 << 20}, "large-range": {"range_size": 8 << 20}, "debug": {"debug_unlocked": True},
    }
    for name, on in shapes.items():
        platform, seamdb = make_platform(**on)
        ids = [first + i for first, count in platform["lps"] for i in range(count)]
        yield Script(f"load/{name}", "load", (*done, "INSTALL.load"), f"LOAD on a platform: {on or 'two processors'}",
                     platform, seamdb, _install(ids, load))
    platform, seamdb = make_platform()
    again = (*_install((0, 1), load), *_install((1, 0), load))
    yield Script("load/again", "load", (*done, "INSTALL.load"), "LOAD over a module that runs", platform, seamdb, again)
    yield Script("update/preserving", "update", (*done, "INSTALL.preserve"), "UPDATE with handoff "
                                                                             "data", platform, seamdb,
                 (*_install((0, 1), load), *_updated(update)))
    for size in (1, 2, 3):
        small, entries = make_platform(seamdb=size)
        steps = [*_install((0, 1), load)]
        for _ in range(3):
            steps += _updated(update)
            steps.append(Step((0,), "INFO", 0x8000000))
        yield Script(f"update/seamdb-{size}", "update", (*done, "INSTALL.update.remaining", "SEAMDB.remaining"),
                     f"three UPDATEs where SEAMDB has {size} entries", small, entries, tuple(steps))
    for failed in range(1, 5):
        yield Script(f"update/no-entropy-{failed}", "update", done, f"{failed} times no entropy for SEAMDB's nonce",
                     platform, seamdb, _install((0, 1), load, no_insert=failed))
    for pages in (1, 3, 33, 496):
        image, seed = _image("1.5.05", pages=pages) if pages > 2 else (None, 0)
        if image is not None:
            yield Script(f"image/{pages}-pages", "image", done, f"an image of {pages} pages", platform, seamdb,
                         _install((0, 1), _placed(book, image, seed, mint.sigstruct(image))))
    shaped: dict[str, dict[str, Any]] = {
        "stack": {"num_stack_pages": 9}, "tls": {"num_tls_pages": 5}, "keyholes": {"num_keyhole_pages": 600},
        "global": {"num_global_data_pages": 700}, "handoff": {"num_handoff_pages": 30}, "svn0": {"seamsvn": 0},
        "no-idt": {"gdt_idt_offset": 0, "fault_wrapper_offset": 0},
    }
    for name, fields in shaped.items():
        yield Script(f"shape/{name}", "shape", done, f"sigstruct with {fields}", platform, seamdb,
                     _install((0, 1), _placed(book, old, old_seed, mint.sigstruct(old, **fields))))
    for random in (0, 0x7FFC, 0xFFFFFFFFFFFFFFFF, 0x1234):
        yield Script(f"aslr/{random:x}", "aslr", (*done, "MEMORY_CONSTANTS.aslr"), "the random number of the layout",
                     platform, seamdb, _install((0, 1), load, rdrand=((1, random),)))


def _updated(update: tuple[Mapping[str, Any], ...]) -> tuple[Step, ...]:
    first, *rest = _install((0, 1), update)
    return (replace(first, handoff={}), *rest)


def _leaves(book: Book) -> Iterator[Script]:
    """The other leaves, and leaves that there are not."""
    platform, seamdb = make_platform()
    old, seed = _image("1.5.05")
    loaded = _install((0, 1), _placed(book, old, seed, mint.sigstruct(old)))
    for name, before in (("fresh", ()), ("loaded", loaded), ("session", loaded[:1])):
        for leaf, clause in (("INFO", "INFO.leaf"), ("SEAMINFO", "SEAMINFO.leaf")):
            yield Script(f"{leaf.lower()}/{name}", leaf.lower(), (clause,), f"{leaf}, {name}", platform, seamdb,
                         (*before, Step((1,), leaf, 0x8000000), Step((1,), leaf, 0x8000000)))
    for leaf, size in (("INFO", 256), ("SEAMINFO", 2048)):
        for name, rcx, row in (("unaligned", 0x8000000 + size // 2, "HPA.alignment"), ("wide", 1 << 52, "HPA.width"),
                               ("seamrr", SEAMRR_END - (64 << 20), "HPA.seamrr"),
                               ("private", 33 << 46 | 0x8000000, "HPA.hkid"), ("shared", 5 << 46 | 0x8000000, "")):
            clause = f"{leaf}.rcx" if row else f"{leaf}.leaf"
            yield Script(f"{leaf.lower()}/rcx-{name}", leaf.lower(), (clause, *((row,) if row else ())),
                         f"{leaf}: RCX = 0x{rcx:X}", platform, seamdb, (*loaded, Step((0,), leaf, rcx)))
    for name, order in (("right-order", (1, 0)), ("wrong-order", (0, 1)), ("again", (0, 0, 1, 0))):
        yield Script(f"shutdown/{name}", "shutdown", ("SHUTDOWN.leaf", "SHUTDOWN.block", "SHUTDOWN.acm_x2apicid"),
                     f"SHUTDOWN on {order}, NP-SEAMLDR was launched on 0", platform, seamdb,
                     (*loaded, *(Step((id,), "SHUTDOWN") for id in order), Step((1,), "INFO", 0x8000000)))
    for rax in (0x8000000000000004, 0x8000000000000010, 0xFFFFFFFFFFFFFFFF, 0x8000000100000001, 0):
        yield Script(f"leaf/{rax:x}", "leaf", ("DISPATCH.leaf.unknown",), f"RAX = 0x{rax:X}", platform, seamdb,
                     (Step((0,), hex(rax)),))
    for name, carry, value in (("none", 0, 0), ("zero", 1, 0)):
        yield Script(f"canary/{name}", "leaf", ("DISPATCH.canary.entropy",), f"the first RDRAND: CF = {carry}, 0",
                     platform, seamdb, (Step((0,), "INFO", 0x8000000, rdrand=((carry, value),)),
                                        Step((0,), "INFO", 0x8000000)))
    for name, changes in _GUESTS.items():
        guest = {"rip": 0xFFFFFFFF81000000, "instruction_length": 4, "interruptibility": 0, "rflags": 2, "debugctl": 0,
                 "pending_dbg": 0, **changes}
        yield Script(f"guest/{name}", "guest", ("DISPATCH.exit",),
                     f"the caller's state: {changes}", platform, seamdb, (Step((0,), "INFO", 0x8000000, guest=guest),))


_GUESTS: dict[str, dict[str, int]] = {
    "plain": {}, "sti": {"interruptibility": 1}, "mov-ss": {"interruptibility": 2}, "single-step": {"rflags": 0x102},
    "branch-step": {"rflags": 0x102, "debugctl": 2}, "pending": {"pending_dbg": 0x4000},
    "length-5": {"instruction_length": 5}, "top": {"rip": (1 << 64) - 2},
}


# --- recording


class _Listener(Watch):
    """Watch, and what SEAMOPS answered."""

    __slots__ = ("calls", "recorder")

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self.recorder = recorder

    def __call__(self, event: Event) -> None:
        super().__call__(event)
        if isinstance(event, InstructionEnded) and event.instruction == "SEAMOPS":
            lp = self.recorder.platform.peek_lp(event.lp)
            leaf = _LEAF_OF[event.clause]
            more = [lp.r10, lp.r15] if leaf == "GETREF" else []
            self.recorder.answered.append([leaf, lp.rax, *more])


class Recorder(Replay):
    """Runs a case as ``conform`` does, and writes down what is seen."""

    def __init__(self, case: dict[str, Any], recipes: Recipes, scripts: Sequence[Step]) -> None:
        super().__init__(case, recipes, whole=False)
        self.scripts = scripts
        self.answered: list[list[Any]] = []
        self.offered: list[tuple[int, int]] = []
        self.now: Step = scripts[0]
        self.count = 0

    def record(self) -> None:
        """Fill in every step."""
        for step, script in zip(self.case["steps"], self.scripts, strict=True):
            self.now = script
            if script.handoff is not None:
                step["seam_writes"] = [self._handoff(**script.handoff)]
            for write in step.get("mem", ()):
                self._memory(write)
            for write in step.get("seam_writes", ()):
                self._seam_write(write)
            self._recorded_call(step)

    def _handoff(self, *, hv: int = 0, size: int = 64, valid: int = 1) -> dict[str, Any]:
        """Handoff data as a module leaves it at the start of its data region."""
        header = HANDOFF_DATA_HEADER.encode({"valid": valid, "hv": hv, "size": size})
        body = bytes(i % 251 for i in range(min(size, PAGE - len(header))))
        return {"off": PAGE * (1 + self._lps()), "hex": (header + body).hex()}

    def _recorded_call(self, step: dict[str, Any]) -> None:
        watch = _Listener(self)
        platform = self.platform
        platform.listeners = [watch]
        self.answered = []
        expect: dict[str, Any] = {}
        fatal = self._enter(step, expect)
        drawn = len(self.offered) - len(platform.injected.get("rdrand", ()))
        if drawn:
            step["rdrand"] = [[carry, hex(value)] for carry, value in self.offered[:drawn]]
        if self.answered:
            step["seamops"] = shown(self.answered)
        platform.injected = {}
        for name in COUNTERS:
            at = self.data + P_SEAMLDR_DATA.offset_of(name)
            expect[name] = int.from_bytes(platform.store_.read(at, 4), "little")
        if watch.vmclear:
            expect["vmclear"] = shown(watch.vmclear)
        if step["leaf"] in ("INFO", "SEAMINFO") and not fatal and not expect["rax"]:
            size = _WRITTEN[Leaf[step["leaf"]]]
            held = platform.store_.read(number(step["rcx"]), size)
            expect["written"] = {"pa": step["rcx"], "len": size, "hex": held.rstrip(b"\0").hex(),
                                 "sha256": sha256(held).hexdigest()}
        if step["leaf"] == "INSTALL":
            self._see_module(expect, watch)
        step["expect"] = expect

    def _enter(self, step: dict[str, Any], expect: dict[str, Any]) -> bool:
        """The call itself, through the processor's entry; whether it was fatal."""
        leaf = step["leaf"]
        lp = self.platform.lp(self.now.lps[0])
        for index, name in enumerate(GPRS):
            setattr(lp, name, 0x1111111111111111 * index)
        lp.rax = int(Leaf[leaf]) if leaf in Leaf.__members__ else number(leaf)
        lp.rcx, lp.rdx = number(step["rcx"]), number(step["rdx"])
        before = {name: getattr(lp, name) for name in GPRS}
        self._inject(step)
        lp.rax = BIT63
        _enter_SEAM(self.platform, lp)
        lp.rax = before["rax"]
        if "guest" in step:
            self._set_guest(lp, step["guest"])
        fatal = self._run(lp)
        expect["seamextend"] = self.platform.SEAMEXTEND.hex()
        if fatal is not None:
            expect["fatal"] = fatal
            return True
        expect["rax"], expect["rdx"] = shown(lp.rax), shown(lp.rdx)
        if "guest" in step:
            data = current(lp).data
            held = (get(data, "guest_rip"), get(data, "guest_interruptibility"), get(data, "guest_pending_debug"))
            expect["guest"] = shown(dict(zip(GUEST_AFTER, held, strict=True)))
        self._leave(lp, before)
        return False

    def _inject(self, step: dict[str, Any]) -> None:
        kind = self.now
        stock = [(1, _random(self.case["id"], self.count + i)) for i in range(SPARE)]
        self.count += SPARE
        self.offered = [*kind.rdrand, *stock]
        self.platform.injected = {"rdrand": tuple(self.offered)}
        if kind.no_insert:
            self.platform.injected["seamdb_entropy"] = ((0, 0),) * kind.no_insert
        if kind.seamops:
            self.platform.injected["seamdb"] = tuple(kind.seamops)

    def _see_module(self, expect: dict[str, Any], watch: Watch) -> None:
        platform, plan = self.platform, watch.plan
        fatal = "fatal" in expect
        if expect["lps_in_update"] and not fatal:
            return
        expect["range"] = page_digests(platform, self.module, PAGE * (1 + self._lps()))
        began = watch.next_table is not None
        success = not fatal and expect["rax"] == 0
        if plan is not None and began and not fatal:
            walk = Walk(platform, plan.pml4_physbase, self.seamrr)
            if walk.broken or walk.broken_leaf:
                expect["mapping"] = {"broken": True}
            else:
                expect["mapping"] = shown(walk.found(("sha256", "leaves", "tables")))
                if walk.leaves <= 64:
                    expect["mapping"]["runs"] = shown(walk.found(("runs",))["runs"])
        if plan is None or not (success or (began and not fatal)):
            return
        held: dict[str, Any] = {name: getattr(plan, name) for name in PLAN if name != "current_pt_physbase"}
        expect["memory"] = shown({**held, "current_pt_physbase": watch.next_table})
        if not success:
            return
        table = platform.store_.read(self.seamrr.base, SYS_INFO_TABLE.size)
        expect["sys_info_table"] = {**shown({name: SYS_INFO_TABLE.peek(table, name) for name in SYS_INFO}),
                                    "mcheck_sha256": sha256(table[:2048]).hexdigest()}
        count = self._lps()
        wanted: dict[str, Any] = {"common": VMCS_COMMON}
        wanted |= {"per_lp": ()} if count <= 8 else {"per_lp_first_last": ()}
        expect["vmcs"] = shown(read_vmcss(platform, self.seamrr.base + PAGE, count, wanted))
        code = platform.store_.read(plan.code_region_physbase, plan.code_region_size)
        expect["code_region_sha256"] = sha256(code).hexdigest()
        assert watch.next_table is not None
        expect["page_table_pages_used"] = (plan.first_table - watch.next_table) // PAGE


def _random(id: str, index: int) -> int:
    return int.from_bytes(shake_128(f"seamref kit rdrand {id} {index}".encode()).digest(8), "little")


# --- the document


def _skeleton(script: Script) -> dict[str, Any]:
    """A case without what is expected."""
    register = bytearray(SEAMEXTEND.size)
    SEAMEXTEND.poke(register, "p_seamldr_ready", 1)
    steps = []
    for step in script.steps:
        made: dict[str, Any] = {"lp": step.lps[0], "leaf": step.leaf, "rcx": hex(step.rcx), "rdx": hex(step.rdx)}
        if step.mem:
            made["mem"] = shown(step.mem)
        if step.guest is not None:
            made["guest"] = {name: hex(value) for name, value in step.guest.items()}
        steps.append(made)
    return {
        "id": script.id, "group": script.group, "note": script.note, "mutations": list(script.flags),
        "platform": dict(script.platform), "seamextend": bytes(register).hex(),
        "seamdb": {"size": script.seamdb, "last": -1}, "steps": steps,
    }


def document(small: bool = False) -> tuple[dict[str, Any], dict[str, tuple[str, ...]]]:
    """The whole set, and the clauses that each case is about."""
    book = Book()
    scripts = list(_scripts(book))
    if small:
        kept: dict[str, int] = {}
        chosen = []
        for script in scripts:
            kept[script.group] = kept.get(script.group, 0) + 1
            if kept[script.group] <= (8 if script.group == "row" else 2):
                chosen.append(script)
        book, scripts = _only(book, chosen), chosen
    build = Build(signer_key_hash=mint.KEY.key_hash)
    made: dict[str, Any] = {
        "format": FORMAT,
        "pseamldr_info": {name: getattr(build, name) for name in (
            "version", "attributes", "vendor_id", "build_date", "build_num", "minor", "major")},
        "keys": {name: key.modulus_le.hex() for name, key in KEYS.items()},
        "signer_key_sha384": mint.KEY.key_hash.hex(), "sigstruct_default": shown(book.defaults),
        "sigstructs": book.sigstructs, "images": book.images,
        "cases": [_skeleton(script) for script in scripts],
    }
    recipes = Recipes(made)
    for case, script in zip(made["cases"], scripts, strict=True):
        try:
            with deciding("") as rows:
                Recorder(case, recipes, script.steps).record()
        except SeamrefError as error:
            raise SeamrefError(f"set pseamldr: case {script.id}: {error}") from None
        decided = {row.id for row in rows}
        missed = [id for id in script.flags if script.group == "row" and id in _ROWS and id not in decided]
        if missed:
            raise SeamrefError(f"set pseamldr: case {script.id}: {missed[0]} does not decide, but {sorted(decided)}")
    return made, {script.id: script.flags for script in scripts}


def _only(book: Book, scripts: Sequence[Script]) -> Book:
    """The recipes that these cases name."""
    named = {str(write[what]) for script in scripts for step in script.steps for write in step.mem
             for what in ("image", "sigstruct") if what in write}
    book.images = {id: recipe for id, recipe in book.images.items() if id in named}
    book.sigstructs = {id: recipe for id, recipe in book.sigstructs.items() if id in named}
    return book


_N = Number()
_PAGES = ListOf(Row(((_N, "address"), (_N, "first page"), (_N, "page count"))))
_MEMORY_WRITE = Group((
    Item("pa", _N, "full address with KeyID bits; addresses that differ in KeyID are different memory", True),
    Item("params", Group((
        Item("version", _N, "version", True), Item("scenario", _N, "0 LOAD, 1 UPDATE", True),
        Item("sigstruct_pa", _N, "address of the sigstruct", True), Item("num_module_pages", _N, "pages", True),
        Item("pages", ListOf(Row(((_N, "index"), (_N, "address"), (_N, "count")))),
             "entry index + i is address + 4096 * i", True),
        Item("patch", ListOf(Row(((_N, "offset"), (Octets(), "bytes")))), "over it, in order", True),
    )), "a SEAMLDR_PARAMS page", True),
    Item("sigstruct", Text(), "id of a sigstruct", True), Item("image", Text(), "id of an image", True),
    Item("at", _PAGES, "where the image's pages lie", True), Item("hex", Octets(), "bytes", True),
))
_PLATFORM: tuple[Item, ...] = (
    Item("num_sockets", _N, "sockets"), Item("tot_num_lps", _N, "processors"),
    Item("cpuid4_max_lps_minus1", _N, "CPUID.4.3:EAX[25:14]"),
    Item("lps", ListOf(Row(((_N, "first x2APIC id"), (_N, "count")))), "the processors"),
    Item("fms", ListOf(_N), "CPUID.1:EAX of each socket"), Item("max_pa", _N, "MAXPA"),
    Item("hkid_bits", _N, "KeyID bits at the top of an address"),
    Item("num_mktme_kids", _N, "IA32_MKTME_KEYID_PARTITIONING[31:0]"), Item("private_hkid_min", _N, "that plus 1"),
    Item("seamrr_base", _N, "SEAMRR"), Item("seamrr_size", _N, "SEAMRR"),
    Item("p_seamldr_range_size", _N, "P_SEAMLDR_RANGE, at the top of SEAMRR"),
    Item("debug_unlocked", Count(0, 1), "SGX_DEBUG_MODE bit 1"), Item("acm_x2apicid", _N, "who launched NP-SEAMLDR"),
    Item("sysinfo_version", _N, "P_SYS_INFO_TABLE.version"), Item("skip_smrr2_check", _N, "of P_SYS_INFO_TABLE"),
    Item("tdx_ac", _N, "of P_SYS_INFO_TABLE"), Item("cmrs", ListOf(Row(((_N, "base"), (_N, "size")))), "CMRs"),
    Item("reserved_seed", Maybe(_N), "null: reserved bytes of the table are 0"),
    Item("vmx_msrs", MapOf(_N, "MSR addresses"), "VMX capability MSRs"),
)
_DIGESTS = Group((
    Item("nonzero_pages", _N, "pages that are not all zero"),
    Item("sparse_sha256", Octets(32), "over each such page, ascending: 8 bytes of its offset, then the page"),
    Item("sparse_no_vmcs_sha256", Octets(32), "the same without the VMCS pages"),
))
_LISTS = Group(tuple(Item(name, ListOf(_N), "field of each VMCS") for name in VMCS_PER_LP))
_EXPECT: tuple[Item, ...] = (
    Item("rax", _N, "RAX on return", True), Item("rdx", _N, "RDX on return; all else comes back unchanged", True),
    Item("fatal", OneOf(("shutdown", "fault")), "instead: UD2, or an access outside the mapping", True),
    Item("seamextend", Octets(SEAMEXTEND.size), "the register afterwards"),
    *(Item(name, _N, "P-SEAMLDR's counter afterwards") for name in COUNTERS),
    Item("vmclear", ListOf(_N), "addresses given to VMCLEAR, in order", True),
    Item("written", Group((Item("pa", _N, "address"), Item("len", _N, "bytes"),
                           Item("hex", Octets(), "without trailing zeros"), Item("sha256", Octets(32), "of all"))),
         "what INFO or SEAMINFO stored", True),
    Item("guest", Group(tuple(Item(name, _N, "of the caller's state afterwards") for name in GUEST_AFTER)),
         "where the step gave the caller's state", True),
    Item("range", _DIGESTS, "the module range after an INSTALL that leaves no session open", True),
    Item("memory", Group(tuple(Item(name, Flag() if name == "td_preserving_supported" else Maybe(_N),
                                    "memory constant") for name in PLAN)), "where everything of the module lies", True),
    Item("mapping", Group((
        Item("sha256", Octets(32), "over linear address and entry of each leaf, 8 bytes each", True),
        Item("leaves", _N, "leaf entries", True), Item("tables", _N, "table pages", True),
        Item("runs", ListOf(Row(((_N, "linear"), (_N, "entry"), (_N, "pages")))), "consecutive pages", True),
        Item("broken", Flag(), "an entry points outside SEAMRR", True),
    )), "the module's page tables", True),
    Item("sys_info_table", Group((*(Item(name, _N, "of SYS_INFO_TABLE") for name in SYS_INFO),
                                  Item("mcheck_sha256", Octets(32), "of its low half"))), "SYS_INFO_TABLE", True),
    Item("vmcs", Group((
        Item("common", Group(tuple(Item(name, _N, "field") for name in VMCS_COMMON)), "as in the first VMCS"),
        Item("count", _N, "VMCSs"), Item("per_lp", _LISTS, "fields of each", True),
        Item("per_lp_first_last", _LISTS, "of the first, the second and the last", True),
        Item("per_lp_sha256", Group(tuple(Item(name, Octets(32), "over all values") for name in VMCS_PER_LP)),
             "over all of them, 8 bytes each", True),
        Item("differences", ListOf(Row(((_N, "index"), (Text(), "field"), (_N, "value")))),
             "where a later one differs from the first", True),
    )), "the transfer VMCSs of the module", True),
    Item("code_region_sha256", Octets(32), "of the relocated image", True),
    Item("page_table_pages_used", _N, "without the PML4", True),
)
_STEP: tuple[Item, ...] = (
    Item("lp", _N, "x2APIC id of the caller"), Item("leaf", Text(), "INFO, INSTALL, SHUTDOWN, SEAMINFO, or RAX"),
    Item("rcx", _N, "RCX"), Item("rdx", _N, "RDX"),
    Item("mem", ListOf(_MEMORY_WRITE), "memory written before the call", True),
    Item("seam_writes", ListOf(Group((Item("off", _N, "offset from SEAMRR"), Item("hex", Octets(), "bytes")))),
         "what the running module wrote before the call", True),
    Item("rdrand", ListOf(Row(((Count(0, 1), "CF"), (_N, "value")))), "the RDRANDs of the call, in order", True),
    Item("seamops", ListOf(Row(((OneOf(("CLEAR", "INSERT", "GETREF")), "leaf"), (_N, "RAX"), (_N, "R10"), (_N, "R15")),
                               2)), "the SEAMOPS of the call and what they returned", True),
    Item("guest", Group(tuple(Item(name, _N, "of the caller's state") for name in GUEST)), "the caller's state", True),
    Item("expect", Group(_EXPECT), "what is seen"),
)
DOCUMENT: tuple[Item, ...] = (
    Item("format", OneOf((FORMAT,)), "the format"),
    Item("pseamldr_info", MapOf(_N, "fields of SEAMLDR_INFO"), "what INFO answers"),
    Item("keys", MapOf(Octets(384), "k0, the accepted signer, and k1"), "moduli, least significant byte first"),
    Item("signer_key_sha384", Octets(48), "SHA-384 of k0"),
    Item("sigstruct_default", MapOf(Any_(), "fields of SEAM_SIGSTRUCT"), "what a sigstruct has where it says nothing"),
    Item("sigstructs", MapOf(Group((
        Item("seamhash", Octets(48), "seamhash"), Item("signer", Text(), "k0 or k1"),
        Item("set", MapOf(_N, "fields of SEAM_SIGSTRUCT"), "fields that differ from the default"),
        Item("cpuid_table", ListOf(_N), "its entries"), Item("pre", ListOf(Row(((_N, "offset"), (Octets(), "bytes")))),
             "bytes over it before the signature"),
        Item("signature", Octets(384), "least significant byte first"), Item("sha256", Octets(32), "of the 2048 bytes"),
        Item("signature_given", Flag(), "the signature is not that of the signer over these bytes", True),
    )), "ids"), "recipes of sigstructs"),
    Item("images", MapOf(Group((
        Item("pages", _N, "pages of 4096 bytes"),
        Item("fill", Row(((OneOf(("zero", "shake")), "kind"), (_N, "seed")), 1),
             "shake: page p is SHAKE-128 of seed and p, 8 bytes each, little-endian"),
        Item("writes", ListOf(Row(((OneOf(("hex",)), "kind"), (_N, "offset"), (Octets(), "bytes")))), "over it, in "
                                                                                                      "order"),
        Item("sha384", Octets(48), "of all pages"),
    )), "ids"), "recipes of module images"),
    Item("cases", ListOf(Group((
        Item("id", Text(), "id"), Item("group", Text(), "label"), Item("note", Text(), "for a reader"),
        Item("mutations", ListOf(Text()), "the clauses that the case is about"),
        Item("platform", Group(_PLATFORM), "the platform"), Item("seamextend", Octets(SEAMEXTEND.size), "at the start"),
        Item("seamdb", Group((Item("size", _N, "entries"), Item("last", Count(-1), "index of the last, -1: none"))),
             "SEAMDB"),
        Item("steps", ListOf(Group(_STEP)), "the calls, in order; state persists"),
    ))), "the cases"),
)

SET = RecordedSet(
    "pseamldr", "P-SEAMLDR calls and INSTALL sessions",
    ("Calls of P-SEAMLDR 1.5: every row that can refuse an INSTALL with an attempt that it stops, sessions that load "
     "and "
     "update on platforms of many shapes, SEAMDB as it runs out of entries and of entropy, INFO, SEAMINFO, SHUTDOWN, "
     "and "
     "leaves that there are not.",
     "Images and sigstructs are ours, described as recipes and signed with a test key (`k0`): a loader under test must "
     "accept that key.  A case starts with a freshly loaded P-SEAMLDR and an all-zero module range.  `python -m "
     "seamref "
     "conform` replays the file."),
    FORMAT, DOCUMENT, document, lambda: sum(1 for _ in _scripts(Book())),
)
