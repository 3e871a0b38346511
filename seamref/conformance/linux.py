"""Replays recorded Linux host behaviour (format ``seamref-linux-host-vectors``) on this kernel and compares everything.

The recording's SEAM side is a list of rules; ours is the same list, played where this kernel executes SEAMCALL
(:mod:`seamref.host.script`).  Everything above that instruction is the code that the book runs: stubs, retry, messages,
the state machine stepped in the recorded order, sysfs, hotplug.  Nothing is put in the place of a name.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from hashlib import sha256
from typing import Any

from seamref.arch import lab
from seamref.arch.platform import Platform, Topology
from seamref.conformance.linux_format import FORMAT, INFO_SIZE, KINDS, POINTER, SIX, VERSION
from seamref.conformance.reading import integer, mapping, one_of, text
from seamref.conformance.vectorset import Case, Difference, VectorSet
from seamref.host import fw_upload
from seamref.host.abi import (
    ARGS,
    FIELD_MAJOR_VERSION,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_UPDATE_VERSION,
    SEAMLDR_PARAMS,
    Args,
    Errno,
    Leaf,
)
from seamref.host.image import PAGE, TDX_BLOB_V2, ImageRefused, check_image
from seamref.host.install import Prepared, prepare, release
from seamref.host.kernel import Early, Host, tdx_init, vmx_put
from seamref.host.records import Boot, Call, ModuleState, Stub, Sysinfo, UpdateState, Wrap
from seamref.host.script import COMPLETES, Asked, Ends, Rule, Script
from seamref.host.seamcall import ZEROED, prerr, run_call
from seamref.host.seamldr import seamldr_call
from seamref.host.tasks import step
from seamref.host.tdx import check_enable, kexec, read_metadata, tdx_offline_cpu, tdx_online_cpu
from seamref.host.update import begin, control, finish, may_return, steps

FILE_AT = 0x100000000
"""Where the recording has page 0 of the uploaded file."""
FEATURES0 = 1 << 18 | 1 << 1
"""NO_RBP_MOD and TD_PRESERVING, where a vector does not say."""


# --- a kernel for a case


@lru_cache(maxsize=32)
def _platform(packages: tuple[int, ...]) -> Platform:
    """Processors in VMX operation, CPU n in package packages[n]."""
    stride = 1 << (len(packages) - 1).bit_length()
    ids = tuple(stride * package + index for index, package in enumerate(packages))
    sockets = max(packages) + 1
    return lab.platform(topology=Topology(sockets, addressable=stride, ids=ids), keeps_vmcs=True)


def rule_of(value: dict[str, Any]) -> Rule:
    """A rule as the recording writes it."""
    return Rule(
        leaf=value["leaf"], cpu=value.get("cpu"), rdx=value.get("rdx"), nth=value.get("nth", 0),
        nth_to=value.get("nth_to"), outcome=Ends(value.get("outcome", Ends.COMPLETED.value)), rax=value.get("rax", 0),
        vector=value.get("vector"), out=tuple(value.get("out", {}).items()),
    )


def script_of(rules: list[dict[str, Any]], *more: Rule) -> Script:
    """The rules, more rules behind them, and behind all of them a SEAM side that answers 0 to anything."""
    return Script((*map(rule_of, rules), *more, COMPLETES))


def _metadata_rules(hv: int = 3, version: tuple[int, int, int] = (1, 5, 16)) -> tuple[Rule, ...]:
    major, minor, update = version
    values = {FIELD_MODULE_HV: hv, FIELD_MINOR_VERSION: minor, FIELD_MAJOR_VERSION: major,
              FIELD_UPDATE_VERSION: update}
    return tuple(Rule(leaf=Leaf.TDH_SYS_RD, rdx=field, out=(("r8", value),)) for field, value in values.items())


def make_host(
    script: Script, packages: tuple[int, ...] = (0,), *, state: list[int] | None = None, bug: bool = False,
    features0: int = FEATURES0, platform: bool = True, offline: tuple[int, ...] = (), lp: tuple[int, ...] | None = None,
) -> Host:
    """A kernel with this SEAM side: the module up in version 1.5.05 unless ``state`` says something else."""
    host = Host(_platform(packages).fork())
    initialized, done, ret = state or [1, 1, 0]
    for cpu in offline:
        vmx_put(host, cpu)
    flagged = [n for n in range(len(packages)) if n not in offline] if lp is None else lp
    host.set(
        cpus=tuple(replace(c, online=n not in offline, lp_initialized=n in flagged)
                   for n, c in enumerate(host.state.cpus)),
        module=ModuleState(bool(initialized), bool(done), Errno(ret)),
        sysinfo=Sysinfo(1, 5, 5, features0, 0),
        features=frozenset({"tdx_host_platform"}) if platform else frozenset(),
        bugs=frozenset({"seamret_invd_vmcs"}) if bug else frozenset(),
        dmesg=(), script=script,
    )
    return host


class Watch:
    """What a kernel printed and which SEAMCALLs it made since it was last asked."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._lines = len(host.state.dmesg)
        self._calls = len(self._script.asked)

    @property
    def _script(self) -> Script:
        assert self.host.state.script is not None
        return self.host.state.script

    def prints(self) -> list[str]:
        """Lines, a WARN as the name of its function."""
        new = self.host.state.dmesg[self._lines :]
        self._lines += len(new)
        return [re.sub(r"^(WARNING: \w+):.*", r"\1", line, flags=re.DOTALL) for line in new]

    def calls(self) -> tuple[Asked, ...]:
        """SEAMCALLs in order."""
        new = self._script.asked[self._calls :]
        self._calls += len(new)
        return new


class _Off(Exception):
    """The recorded schedule cannot be followed further."""

    def __init__(self, event: int, ours: Any, recorded: Any) -> None:
        self.event, self.ours, self.recorded = event, ours, recorded


Found = Iterator[tuple[int | None, str, Any, Any]]
"""Pairs to compare: step, field, ours, recorded."""


def _after(host: Host) -> dict[str, Any]:
    module, info = host.state.module, host.state.sysinfo
    assert info is not None
    return {"initialized": module.initialized, "sysinit_done": module.sysinit_done,
            "sysinit_ret": int(module.sysinit_ret), "version": [info.major, info.minor, info.update]}


# --- image, sweep


def _params(page: bytes, at: int) -> bytes:
    """A SEAMLDR_PARAMS page as if the file lay where the recording had it."""
    params = SEAMLDR_PARAMS.decode(page)

    def moved(address: int) -> int:
        return address - at + FILE_AT if address else 0

    return SEAMLDR_PARAMS.encode({
        "version": params.version, "scenario": params.scenario, "sigstruct_paddr": moved(params.sigstruct_paddr),
        "reserved": params.reserved, "num_module_pages": params.num_module_pages,
        "module_pages_pa_list": [moved(address) for address in params.module_pages_pa_list],
    })


def _image(v: dict[str, Any]) -> Found:
    header, no_memory = bytes.fromhex(v["header"]), v.get("no_memory", False)
    host = make_host(script_of([], *_metadata_rules()))
    watch = Watch(host)
    prepared = prepare(host, header[: v["size"]], no_memory=no_memory, length=v["size"])
    page = None
    if isinstance(prepared, Prepared):
        page = _params(host.read(prepared.params, PAGE), prepared.pages[1])
        ret = _finish(host, prepared)
    else:
        ret = prepared
    calls = watch.calls()
    reached = any(call.leaf == Leaf.SEAMLDR_INSTALL for call in calls)
    yield None, "ret", int(ret), v["expect"]["ret"]
    yield None, "seamcalls", len(calls), v["expect"]["seamcalls"]
    yield None, "prints", watch.prints(), v["expect"]["prints"]
    yield None, "params", page.rstrip(b"\0").hex() if page and reached else None, v["expect"].get("params")


def _finish(host: Host, prepared: Prepared) -> Errno:
    begin(host, prepared.params)
    for _ in steps(host):
        pass
    ret = finish(host)
    release(host, prepared)
    return ret


def _sweep(v: dict[str, Any]) -> Found:
    header = bytearray(bytes.fromhex(v["header"]).ljust(PAGE, b"\0"))
    kept = bytes(header)
    field, (first, last) = v["field"], v["range"]
    runs: list[list[int]] = []
    for value in range(first, last + 1):
        size = v["size"]
        if field == "size":
            size = value
        elif field == "reserved":
            header[:] = kept
            header[value] = v["value"]
        elif field.startswith("byte"):
            header[int(field[4:])] = value
        else:
            TDX_BLOB_V2.poke(header, field, value)
        if v.get("size_follows"):
            pages = TDX_BLOB_V2.peek(header, "sigstruct_nr_pages") + TDX_BLOB_V2.peek(header, "module_nr_pages")
            size = PAGE * (1 + pages) & 0xFFFFFFFF
        checked = check_image(bytes(header), length=size)
        ret = int(checked.errno) if isinstance(checked, ImageRefused) else 0
        if runs and runs[-1][2] == ret:
            runs[-1][1] = value
        else:
            runs.append([value, value, ret])
    yield None, "runs", runs, v["expect"]["runs"]


# --- update


def _good_header(v: dict[str, Any]) -> tuple[bytes, int]:
    s, m = v.get("s", 1), v.get("m", 2)
    return TDX_BLOB_V2.new(signature=b"TDX-BLOB", sigstruct_nr_pages=s, module_nr_pages=m).encode(), PAGE * (1 + s + m)


_PLACES = {
    "state": ("update.observe",), "failed": ("update.check",), "ack": ("update.ack",),
    "lock seamldr_lock": ("seamldr.lock",), "unlock seamldr_lock": ("seamldr.unlock",),
    "lock sysinit_lock": ("enable.lock",), "unlock sysinit_lock": ("enable.unlock",),
}
"""Event of a schedule -> where a worker stands that is about to do it."""


class Round:
    """One upload, its workers stepped in the recorded order."""

    def __init__(self, host: Host, v: dict[str, Any], last: int) -> None:
        self.host = host
        self.watch = Watch(host)
        self.held = len(host.state.heap)
        self.final = last
        self.pages: list[bytes] = []
        self.results: dict[str, int] = {}
        self.possible: list[int] = []
        header, length = _good_header(v)
        self.prepared = prepare(host, header, no_memory=v.get("no_memory", False), length=length)

    def run(self, schedule: list[list[Any]] | None) -> Errno:
        """Follow the schedule to its end; without one the lowest CPU runs as long as it can."""
        if not isinstance(self.prepared, Prepared):
            self.possible = [int(self.prepared)]
            return self.prepared
        begin(self.host, self.prepared.params)
        for index, event in enumerate(schedule or ()):
            self._take(index, *event)
        if schedule is None:
            for _ in steps(self.host, self._lowest):
                pass
        shared = control(self.host)
        if len(shared.rets) != len(shared.cpus):
            raise _Off(len(schedule or ()), "workers that still run", "the end")
        self.results = {str(cpu): int(ret) for cpu, ret in shared.rets}
        self.possible = [int(ret) for ret in may_return(self.host)]
        self.final = int(shared.state)
        ret = finish(self.host)
        release(self.host, self.prepared)
        return ret

    def _take(self, index: int, cpu: int, event: str, value: Any = None) -> None:
        host, shared = self.host, control(self.host)
        tasks = host.cpu(cpu).tasks
        if not tasks:
            raise _Off(index, f"CPU {cpu} runs no worker", event)
        task = tasks[-1]
        recorded = [cpu, event] if value is None else [cpu, event, value]
        match event:
            case "return":
                while host.cpu(cpu).tasks and host.cpu(cpu).tasks[-1].pc in ("update.check", "update.leave"):
                    step(host, cpu)
                done = dict(control(host).rets).get(cpu)
                if done is None or int(done) != value:
                    raise _Off(index, f"CPU {cpu} at {task.pc}" if done is None else f"returns {int(done)}", recorded)
                return
            case "call":
                if task.call is None:
                    raise _Off(index, f"CPU {cpu} at {task.pc}", recorded)
                self._look(task.call)
            case _:
                place = f"{event} {value}" if event in ("lock", "unlock") else event
                if task.call is not None or task.pc not in _PLACES[place]:
                    raise _Off(index, f"CPU {cpu} at {'a SEAMCALL' if task.call else task.pc}", recorded)
        if event == "state" and shared.state != value:
            raise _Off(index, int(shared.state), recorded)
        if event == "failed" and shared.failures != value:
            raise _Off(index, shared.failures, recorded)
        if step(host, cpu).blocked:
            raise _Off(index, f"CPU {cpu} waits", recorded)

    def _look(self, call: Call) -> None:
        """The parameter page at the moment of INSTALL."""
        if call.fn == Leaf.SEAMLDR_INSTALL:
            assert isinstance(self.prepared, Prepared)
            self.pages.append(_params(self.host.read(call.args.rcx, PAGE), self.prepared.pages[1]))

    def _lowest(self, host: Host, ready: tuple[int, ...]) -> int:
        call = host.cpu(ready[0]).tasks[-1].call
        if call is not None:
            self._look(call)
        return ready[0]

    def calls(self) -> list[dict[str, Any]]:
        """SEAMCALLs as the recording writes them."""
        pages = iter(self.pages)
        made = []
        for one in self.watch.calls():
            call: dict[str, Any] = {"cpu": one.cpu, "leaf": one.leaf, **{name: one[name] for name in SIX}}
            if one.leaf >> 63:
                call["rcx"] = POINTER
            if one.leaf == Leaf.SEAMLDR_INSTALL:
                call["params_sha256"] = sha256(next(pages)).hexdigest()
            made.append(call)
        return made


def _update(v: dict[str, Any]) -> Found:
    cpus = v["cpus"]
    online = v.get("online", list(range(cpus)))
    offline = tuple(cpu for cpu in range(cpus) if cpu not in online)
    lp = tuple(cpu for cpu in online if cpu not in v.get("lp_uninit", []))
    rules = _metadata_rules(v.get("hv", 3), tuple(v.get("ver", (1, 5, 16))))
    host = make_host(script_of(v["rules"], *rules), (0,) * cpus, state=v.get("state"), bug=v.get("bug", False),
                     offline=offline, lp=lp)
    last = int(UpdateState.START)
    for number, expect in enumerate(v["expect"]["rounds"]):
        one = Round(host, v, last)
        try:
            ret = one.run(expect.get("schedule"))
        except _Off as off:
            yield number, f"schedule[{off.event}]", off.ours, off.recorded
            return
        last = one.final
        calls = one.calls()
        yield number, "ret", int(ret), expect["ret"]
        if "ret_possible" in expect:
            yield number, "ret_possible", sorted(one.possible), sorted(expect["ret_possible"])
        if "results" in expect:
            yield number, "results", one.results, expect["results"]
        for index, (ours, theirs) in enumerate(zip(calls, expect["calls"], strict=False)):
            yield number, f"calls[{index}]", ours, theirs
        yield number, "calls", len(calls), len(expect["calls"])
        page = one.pages[-1].rstrip(b"\0").hex() if one.pages else None
        yield number, "params", page, expect.get("params")
        yield number, "prints", one.watch.prints(), expect["prints"]
        yield number, "state", _after(host), expect["state"]
        flags = [{"cache_state_incoherent": c.cache_state_incoherent, "lp_initialized": c.lp_initialized}
                 for c in host.state.cpus]
        yield number, "cpus", flags, expect["cpus"]
        yield number, "final_update_state", one.final, expect["final_update_state"]
        yield number, "held_hotplug", host.state.hotplug_readers, expect["held_hotplug"]
        yield number, "leaked_allocations", len(host.state.heap) - one.held, expect["leaked_allocations"]


# --- wrap

_STUBS = {"seamcall": (Stub.SEAMCALL, Wrap.RAW), "seamcall_ret": (Stub.RET, Wrap.RAW),
          "seamcall_saved_ret": (Stub.SAVED_RET, Wrap.RAW), "seamcall_prerr": (Stub.SEAMCALL, Wrap.PRERR),
          "seamcall_prerr_ret": (Stub.RET, Wrap.PRERR_RET)}


def _wrap(v: dict[str, Any]) -> Found:
    host = make_host(script_of(v["rules"]), bug=v.get("bug", False))
    watch, expect = Watch(host), v["expect"]
    args = Args(**v["args"])
    if v["wrap"] == "seamldr_call":
        ret = int(seamldr_call(host, 0, v["fn"], args.rcx))
        loads = Stub.SEAMCALL.loads
    else:
        stub, wrap = _STUBS[v["wrap"]]
        call = Call(v["fn"], args, stub, wrap)
        returned = run_call(host, 0, call)
        args, loads = returned.args, stub.loads
        ret = returned.rax if wrap is Wrap.RAW else int(prerr(host, call, returned))
    calls = watch.calls()
    yield None, "ret", ret, expect["ret"]
    yield None, "args", {name: getattr(args, name) for name in ARGS}, {**dict.fromkeys(ARGS, 0), **expect["args"]}
    yield None, "attempts", len(calls), expect["attempts"]
    yield None, "cache_state_incoherent", host.cpu(0).cache_state_incoherent, expect["cache_state_incoherent"]
    yield None, "prints", watch.prints(), expect["prints"]
    if "fn" in expect:
        yield None, "fn", sorted({call.leaf for call in calls}), [expect["fn"]]
    if "loaded" in expect:
        yield None, "loaded", [dict(call.registers) for call in calls], [
            {name: one.get(name, 0) for name in loads} for one in expect["loaded"]]
    if "zeroed" in expect:
        lp = host.lp(0)
        yield None, "zeroed", {name: getattr(lp, name) == 0 for name in ZEROED}, expect["zeroed"]


# --- sysfs, attr


def _sysfs(v: dict[str, Any]) -> Found:
    host = make_host(script_of(v["rules"], *_metadata_rules()), (0, 0))
    fw_upload.probe(host)
    watch = Watch(host)
    here = f"/sys/class/firmware/{fw_upload.upload(host).name}"
    for index, (op, expect) in enumerate(zip(v["ops"], v["expect"]["ops"], strict=True)):
        answer: dict[str, Any] = {}
        match op:
            case ["loading", written]:
                answer["ret"] = int(fw_upload.write_loading(host, written))
            case ["cancel", written]:
                answer["ret"] = int(fw_upload.write_cancel(host, written))
            case ["data", offset, {"header": header, "size": size}]:
                data = bytes.fromhex(header)[:size].ljust(size, b"\0")
                answer["ret"] = int(fw_upload.write_data(host, data, offset))
            case ["read_data"]:
                answer |= _read(fw_upload.read_data(host))
            case ["read", "version"]:
                answer |= _read(fw_upload.read_version(host))
            case ["read", name]:
                read = fw_upload.files(host)[f"{here}/{name}"].read
                assert read is not None
                answer |= _read(read(host))
            case _:
                fw_upload.work(host)
        prints, calls = watch.prints(), [call.leaf for call in watch.calls()]
        yield index, "result", answer, {k: x for k, x in expect.items() if k not in ("prints", "seamcalls")}
        yield index, "prints", prints, expect.get("prints", [])
        yield index, "seamcalls", calls, expect.get("seamcalls", [])


def _read(got: str | bytes | Errno) -> dict[str, Any]:
    if isinstance(got, Errno):
        return {"ret": int(got)}
    if isinstance(got, str):
        return {"ret": 0, "text": got}
    return {"ret": 0, "length": len(got), "sha256": sha256(got).hexdigest()}


def _attr(v: dict[str, Any]) -> Found:
    info = Rule(leaf=Leaf.SEAMLDR_INFO, store=bytes.fromhex(v["info"]))
    rules = [replace(rule_of(r), store=info.store) if r["leaf"] == Leaf.SEAMLDR_INFO else rule_of(r)
             for r in v.get("rules", [])]
    host = make_host(Script((*rules, info, COMPLETES)), state=[int(v["initialized"]), 1, 0], bug=v.get("bug", False),
                     features0=v["features0"], platform=v.get("host_platform", True))
    expect = v["expect"]
    yield None, "updates_supported", fw_upload.SUPPORTED.decide(host, host.series) is None, expect["updates_supported"]
    yield None, "init", int(fw_upload.probe(host)), expect["init"]
    watch = Watch(host)
    for name, read in (("version", fw_upload.read_version), ("seamldr_version", fw_upload.seamldr_file("version")),
                       ("num_remaining_updates", fw_upload.seamldr_file("num_remaining_updates"))):
        answer = {**_read(read(host)), "seamcalls": len(watch.calls())}
        prints = watch.prints()
        yield None, name, answer | ({"prints": prints} if prints else {}), expect[name]


# --- boot, enable, metadata, hotplug, disable


def _boot(v: dict[str, Any]) -> Found:
    host = make_host(script_of([]))
    watch = Watch(host)
    reading = None if v.get("msr_fault") else v.get("keyid_partitioning", 0)
    tdx_init(host, Early(reading, v.get("vmx_basic", 0), Boot(hibernation=v.get("hibernation", False))))
    found, expect = host.state, v["expect"]
    yield None, "tdx_host_platform", "tdx_host_platform" in found.features, expect["tdx_host_platform"]
    yield None, "seamret_invd_vmcs", "seamret_invd_vmcs" in found.bugs, expect["seamret_invd_vmcs"]
    yield None, "prints", watch.prints(), expect["prints"]


def _enable(v: dict[str, Any]) -> Found:
    missing = v["missing"]
    host = make_host(script_of([]), platform="tdx_host_platform" not in missing)
    host.set(lacks=frozenset(missing))
    watch = Watch(host)
    yield None, "ret", int(check_enable(host)), v["expect"]["ret"]
    yield None, "prints", watch.prints(), v["expect"]["prints"]


def _metadata(v: dict[str, Any]) -> Found:
    host = make_host(script_of(v["rules"]), state=[0, 1, 0])
    watch = Watch(host)
    yield None, "ret", int(read_metadata(host)), v["expect"]["ret"]
    yield None, "prints", watch.prints(), v["expect"]["prints"]
    yield None, "fields", [call["rdx"] for call in watch.calls()], v["expect"]["fields"]


def _hotplug(v: dict[str, Any]) -> Found:
    online = v.get("online", list(range(v["cpus"])))
    offline = tuple(cpu for cpu in range(v["cpus"]) if cpu not in online)
    script = script_of(v["rules"])
    if v.get("vmxon_err"):
        script = replace(script, vmxon=Errno.EIO if v["vmxon_err"] is True else Errno(-abs(v["vmxon_err"])))
    host = make_host(script, tuple(v["packages"]), state=v["state"], offline=offline, lp=tuple(v["lp"]))
    host.set(tds=((0, ()),) if v.get("tds") else ())
    watch = Watch(host)
    for index, ((op, cpu), expect) in enumerate(zip(v["ops"], v["expect"]["ops"], strict=True)):
        is_online = host.cpu(cpu).online
        if op == "offline" and not is_online:
            yield index, "left out", None, expect
            continue
        if op == "online":
            host.set_cpu(cpu, online=True)
            ret = tdx_online_cpu(host, cpu)
            host.set_cpu(cpu, online=ret is Errno.OK)
        else:
            ret = tdx_offline_cpu(host, cpu)
            host.set_cpu(cpu, online=ret is not Errno.OK)
        cpus = host.state.cpus
        yield index, "op", {
            "ret": int(ret), "prints": watch.prints(), "calls": [[call.cpu, call.leaf] for call in watch.calls()],
            "online": [c.online for c in cpus], "vmx_refs": [c.vmx_refs for c in cpus],
            "lp_initialized": [c.lp_initialized for c in cpus], "incoherent": [c.cache_state_incoherent for c in cpus],
        }, expect
    yield None, "state", _after(host), v["expect"]["state"]


def _disable(v: dict[str, Any]) -> Found:
    host = make_host(script_of(v["rules"]))
    watch = Watch(host)
    kexec(host)
    calls = watch.calls()
    yield None, "calls", len(calls), v["expect"]["calls"]
    yield None, "leaf", calls[0].leaf, v["expect"]["leaf"]
    yield None, "prints", watch.prints(), v["expect"]["prints"]


REPLAY: dict[str, Callable[[dict[str, Any]], Found]] = {
    "image": _image, "sweep": _sweep, "update": _update, "wrap": _wrap, "sysfs": _sysfs, "attr": _attr, "boot": _boot,
    "enable": _enable, "metadata": _metadata, "hotplug": _hotplug, "disable": _disable,
}
"""Kind -> the replay: pairs of what came out here and what was recorded."""


class LinuxVectors(VectorSet[None]):
    """The set of the Linux host; a case's group is its kind."""

    cases_key = "vectors"

    def prepare(self, document: dict[str, Any], sparse: bool) -> None:
        """Format, version and the kernel that was recorded."""
        mapping(document, "", ("format", "version", "kernel", "vectors"))
        one_of(document["format"], "format", (FORMAT,))
        integer(document["version"], "version", VERSION, VERSION)
        text(document["kernel"], "kernel", 1000)

    def label(self, value: dict[str, Any], path: str) -> tuple[str, str]:
        """``id`` and ``kind``."""
        return text(value["id"], f"{path}.id", 200), one_of(value["kind"], f"{path}.kind", tuple(KINDS))

    def check(self, case: Case, shared: None) -> None:
        """Every value of the kind."""
        KINDS[case.group](case.value, case.path)

    def replay(self, case: Case, shared: None) -> list[Difference]:
        """Every field that differs, up to the point where the two part."""
        return [Difference(case.id, at, field, ours, recorded)
                for at, field, ours, recorded in REPLAY[case.group](case.value) if ours != recorded]

    def calls(self, case: Case) -> int:
        """SEAMCALLs that the recorded code made, as far as the vector lists them; at least the one thing it did."""
        rounds = case.value["expect"].get("rounds", ())
        return sum(len(one["calls"]) for one in rounds) or len(case.value.get("ops", ())) or 1


VECTORS = LinuxVectors()

__all__ = ["INFO_SIZE", "REPLAY", "VECTORS", "LinuxVectors", "make_host", "rule_of", "script_of"]
