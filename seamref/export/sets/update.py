"""The kernel's update: which CPU does what in which order, what fails where, and what is left behind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import lru_cache
from itertools import product
from typing import Any

from seamref.arch import lab
from seamref.arch.platform import Platform, Topology
from seamref.export.form import (
    Answer,
    Case,
    Count,
    Flag,
    Group,
    Hex,
    Item,
    ListOf,
    Maybe,
    OneOf,
    Text,
    VectorSet,
    number,
)
from seamref.export.form import hexed as _hexed
from seamref.host.abi import (
    ARGS,
    FIELD_MAJOR_VERSION,
    FIELD_MINOR_VERSION,
    FIELD_MODULE_HV,
    FIELD_UPDATE_VERSION,
    TDX_INTERRUPTED_RESUMABLE,
    TDX_RND_NO_ENTROPY,
    TDX_SYS_BUSY,
    TDX_UPDATE_COMPAT_SENSITIVE,
    Errno,
    Leaf,
)
from seamref.host.image import PAGE
from seamref.host.kernel import Host
from seamref.host.records import ModuleState, Sysinfo, UpdateState
from seamref.host.script import COMPLETES, Ends, Rule, Script
from seamref.host.series import SERIES
from seamref.host.tasks import Stuck, step
from seamref.host.update import begin, control, finish, is_finished, may_return

FEATURES0 = 1 << 18 | 1 << 1
PARAMS = 0x200000
PLACES = {"update.observe": "state", "update.check": "failed", "update.ack": "ack", "seamldr.lock": "lock",
          "seamldr.unlock": "unlock", "enable.lock": "lock", "enable.unlock": "unlock"}
LOCKS = {"seamldr": "seamldr_lock", "enable": "sysinit_lock"}
FLAGS = ("UPDATE.states", "UPDATE.observe", "UPDATE.work", "UPDATE.ack", "UPDATE.loop", "UPDATE.result")
POLICIES = {
    "lowest": "the lowest-numbered CPU that can get on does",
    "highest": "the highest-numbered one does",
    "turns": "the CPUs take turns, one event each",
}
BAD = 0x8000000000000000
FAILS: dict[str, tuple[Leaf, int]] = {
    "shutdown": (Leaf.TDH_SYS_SHUTDOWN, 0xC000050900000000), "shutdown-busy": (Leaf.TDH_SYS_SHUTDOWN, TDX_SYS_BUSY),
    "shutdown-sensitive": (Leaf.TDH_SYS_SHUTDOWN, TDX_UPDATE_COMPAT_SENSITIVE),
    "install": (Leaf.SEAMLDR_INSTALL, BAD), "install-signature": (Leaf.SEAMLDR_INSTALL, 0x8000000000020000),
    "init": (Leaf.TDH_SYS_INIT, 0xC000050000000000), "lp-init": (Leaf.TDH_SYS_LP_INIT, 0xC000050300000000),
    "update": (Leaf.TDH_SYS_UPDATE, 0xC000050F00000000),
    "update-interrupted": (Leaf.TDH_SYS_UPDATE, TDX_INTERRUPTED_RESUMABLE),
    "read": (Leaf.TDH_SYS_RD, 0xC000010000000001),
}
"""What a SEAMCALL can answer where something goes wrong."""


@lru_cache(maxsize=8)
def _platform(cpus: int) -> Platform:
    return lab.platform(topology=Topology(1, cpus), keeps_vmcs=True)


def _case(id: str, comment: str, cpus: int, policy: str, *rules: Rule, offline: tuple[int, ...] = ()) -> Case:
    return Case(f"update-{id}", comment, {
        "cpus": cpus, "online": [n for n in range(cpus) if n not in offline], "policy": policy,
        "rules": [_rule_json(rule) for rule in rules],
    })


def _rule_json(rule: Rule) -> dict[str, Any]:
    return {"leaf": None if rule.leaf is None else _hexed(rule.leaf), "cpu": rule.cpu, "first": rule.nth,
            "last": rule.nth_to, "outcome": rule.outcome.value, "rax": _hexed(rule.rax), "vector": rule.vector}


def _rule(value: Mapping[str, Any]) -> Rule:
    leaf = value["leaf"]
    return Rule(leaf=None if leaf is None else number(leaf), cpu=value["cpu"], nth=value["first"], nth_to=value["last"],
                outcome=Ends(value["outcome"]), rax=number(value["rax"]), vector=value["vector"])


def _cases() -> Iterator[Case]:
    for cpus, policy in product((1, 2, 3, 4), POLICIES):
        if cpus > 1 or policy == "lowest":
            yield _case(f"good-{cpus}-{policy}", f"nothing fails, {cpus} CPUs", cpus, policy)
    for name, (leaf, rax) in FAILS.items():
        for policy in POLICIES:
            yield _case(f"fails-{name}-{policy}", f"{name} on every CPU", 3, policy, Rule(leaf=leaf, rax=rax))
            for cpu in range(3):
                yield _case(f"fails-{name}-{policy}-cpu{cpu}", f"{name} on CPU {cpu}", 3, policy,
                            Rule(leaf=leaf, cpu=cpu, rax=rax))
    for leaf in (Leaf.TDH_SYS_SHUTDOWN, Leaf.SEAMLDR_INSTALL, Leaf.TDH_SYS_LP_INIT, Leaf.TDH_SYS_UPDATE):
        short = leaf.name.lower().replace("_", "-")
        for cpu in range(2):
            yield _case(f"vmfail-{short}-cpu{cpu}", f"VMfailInvalid of {leaf.name} on CPU {cpu}", 2, "lowest",
                        Rule(leaf=leaf, cpu=cpu, outcome=Ends.VMFAILINVALID))
            for vector in (6, 13):
                yield _case(f"fault-{short}-cpu{cpu}-{vector}", f"exception {vector} at {leaf.name} on CPU {cpu}", 2,
                            "lowest", Rule(leaf=leaf, cpu=cpu, outcome=Ends.FAULT, vector=vector))
        for times in (1, 9, 10, 20):
            yield _case(f"entropy-{short}-{times}", f"{leaf.name} has no entropy {times} times", 2, "lowest",
                        Rule(leaf=leaf, nth_to=times - 1, rax=TDX_RND_NO_ENTROPY))
    for offline in ((1,), (2,), (1, 2)):
        for policy in POLICIES:
            yield _case(f"offline-{'-'.join(map(str, offline))}-{policy}", f"CPUs {offline} are offline", 3, policy,
                        offline=offline)


def _host(given: Mapping[str, Any], revision: str) -> Host:
    host = Host(_platform(given["cpus"]).fork(), SERIES[revision])
    values = {FIELD_MODULE_HV: 3, FIELD_MINOR_VERSION: 5, FIELD_MAJOR_VERSION: 1, FIELD_UPDATE_VERSION: 16}
    fields = tuple(Rule(leaf=Leaf.TDH_SYS_RD, rdx=field, out=(("r8", value),)) for field, value in values.items())
    rules = (*map(_rule, given["rules"]), *fields, COMPLETES)
    online = given["online"]
    host.set(
        cpus=tuple(replace(c, online=n in online, lp_initialized=n in online) for n, c in enumerate(host.state.cpus)),
        module=ModuleState(True, True, Errno.OK), sysinfo=Sysinfo(1, 5, 5, FEATURES0, 3),
        features=frozenset({"tdx_host_platform"}), bugs=frozenset(), dmesg=(), script=Script(rules),
    )
    return host


def _answer(given: Mapping[str, Any], revision: str) -> Answer:
    host = _host(given, revision)
    params = host.alloc(PAGE)
    begin(host, params)
    schedule, hung = _follow(host, given["policy"])
    shared = control(host)
    output: dict[str, Any] = {
        "schedule": schedule, "hung": hung, "final_state": UpdateState(shared.state).name,
        "results": [{"cpu": cpu, "ret": _errno(ret)} for cpu, ret in sorted(shared.rets)],
        "may_return": [] if hung else [_errno(ret) for ret in may_return(host)],
    }
    ret = None if hung else finish(host)
    module, info = host.state.module, host.state.sysinfo
    assert info is not None and host.state.script is not None
    output |= {
        "ret": None if ret is None else _errno(ret),
        "calls": [{"cpu": one.cpu, "leaf": _hexed(one.leaf), **_loaded(one.registers, params)}
                  for one in host.state.script.asked],
        "initialized": module.initialized, "sysinit_done": module.sysinit_done,
        "version": f"{info.major}.{info.minor}.{info.update:02}",
        "lp_initialized": [cpu.lp_initialized for cpu in host.state.cpus],
        "prints": [line.partition("\n")[0] for line in host.state.dmesg],
    }
    return Answer(output, FLAGS)


def _loaded(registers: tuple[tuple[str, int], ...], params: int) -> dict[str, str]:
    """Registers that are not 0; the parameter page by its name, for where it lies is the kernel's matter."""
    return {name: "params" if value == params else _hexed(value) for name, value in registers if value and name in ARGS}


def _errno(ret: Errno) -> str:
    return "0" if ret is Errno.OK else f"-{ret.name}"


def _follow(host: Host, policy: str) -> tuple[list[list[Any]], bool]:
    """Let the workers run: the events in order, and whether nobody can get on any more."""
    events: list[list[Any]] = []
    last = -1
    while not is_finished(host):
        cpus = [cpu for cpu in control(host).cpus if host.cpu(cpu).tasks]
        if policy == "highest":
            cpus = cpus[::-1]
        elif policy == "turns":
            cpus = [c for c in cpus if c > last] + [c for c in cpus if c <= last]
        for cpu in cpus:
            event = _event(host, cpu)
            before = host.state.update
            try:
                blocked = step(host, cpu).blocked
            except Stuck:
                blocked = True
            if not blocked:
                last = cpu
                if event is not None:
                    events.append(event)
                done = dict(control(host).rets)
                if cpu in done and before is not None and cpu not in dict(before.rets):
                    events.append([cpu, "return", _errno(done[cpu])])
                break
        else:
            return events, True
    return events, False


def _event(host: Host, cpu: int) -> list[Any] | None:
    """What a CPU is about to do, if others can see it."""
    task, shared = host.cpu(cpu).tasks[-1], control(host)
    if task.call is not None:
        return [cpu, "call", _hexed(task.call.fn)]
    match PLACES.get(task.pc):
        case None:
            return None
        case "state":
            return [cpu, "state", UpdateState(shared.state).name]
        case "failed":
            return [cpu, "failed", str(shared.failures)]
        case "ack":
            return [cpu, "ack", ""]
        case word:
            return [cpu, word, LOCKS[task.pc.partition(".")[0]]]


from seamref.export.form import Row  # noqa: E402

_EVENTS = OneOf(("state", "call", "ack", "failed", "lock", "unlock", "return"))
_ERRNOS = OneOf(("0", *(f"-{e.name}" for e in Errno if e is not Errno.OK)))

SET = VectorSet(
    "update", "Schedules of the kernel's update",
    ("stop_machine runs one worker on every online CPU.  A test says what SEAMCALL answers and in which order the "
     "CPUs get "
     "on; the output is every event that another CPU can see, in order, every SEAMCALL with the registers that are "
     "not 0, "
     "what each worker and stop_machine return, and what the kernel believes afterwards.",
     "Events: `state` reads the global state, `call` executes a SEAMCALL, `ack` acknowledges, `failed` reads the "
     "number of "
     "failures, `lock` and `unlock` a lock, `return` leaves the worker.  A CPU that would wait is passed over.  The "
     "first "
     "rule that fits CPU, leaf and number of the call (counted for each CPU and leaf) decides; where none fits the "
     "call "
     "completes with RAX = 0, and TDH.SYS.RD gives version 1.5.16 and handoff version 3 in R8.",
     "`may_return` lists what stop_machine may give where several workers failed: which of them, nobody promises."),
    (Item("cpus", Count(1, 64), "CPUs"), Item("online", ListOf(Count()), "those that are online"),
     Item("policy", OneOf(tuple(POLICIES)), "; ".join(f"{name}: {says}" for name, says in POLICIES.items())),
     Item("rules", ListOf(Group((
         Item("leaf", Maybe(Hex()), "RAX at the instruction, null: any"), Item("cpu", Maybe(Count()), "CPU, null: any"),
         Item("first", Count(), "first call it fits"), Item("last", Maybe(Count()), "last one, null: no end"),
         Item("outcome", OneOf(tuple(e.value for e in Ends)), "; ".join(f"{e.value}: {e.says}" for e in Ends)),
         Item("rax", Hex(), "status of a completed call"), Item("vector", Maybe(Count(0, 255)), "of a fault")))),
          "what SEAMCALL answers")),
    (Item("schedule", ListOf(Row(((Count(), "CPU"), (_EVENTS, "event"), (Text(), "what was read or called")))),
          "the events in order"),
     Item("hung", Flag(), "nobody can get on any more: stop_machine never returns"),
     Item("final_state", OneOf(tuple(s.name for s in UpdateState)), "the global state at the end"),
     Item("results", ListOf(Group((Item("cpu", Count(), "CPU"), Item("ret", _ERRNOS, "what its worker returns")))),
          "the workers that returned"),
     Item("may_return", ListOf(_ERRNOS), "what stop_machine may give"),
     Item("ret", Maybe(_ERRNOS), "what it gives here: that of the worker that returned last, of those"),
     Item("calls", ListOf(Group((Item("cpu", Count(), "CPU"), Item("leaf", Hex(), "RAX"),
                                 *(Item(name, Text(), f"{name.upper()}, or `params`", True) for name in ARGS)))),
          "every SEAMCALL in order"),
     Item("initialized", Flag(), "the module counts as initialised"),
     Item("sysinit_done", Flag(), "TDH.SYS.INIT was made"),
     Item("version", Text(), "the version that the kernel knows"),
     Item("lp_initialized", ListOf(Flag()), "CPUs that count as initialised"),
     Item("prints", ListOf(Text()), "first lines of what was printed")),
    {name: f"version {name} of the series" if name != "merged" else "the merged kernel" for name in SERIES},
    _cases, _answer, small=2,
)
