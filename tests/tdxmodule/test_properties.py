"""Over random histories: an update preserves every fact of every TD, and no secret is readable from outside SEAM."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tdxmodule.stages import staged

from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.host import vmm
from seamref.tdxmodule.guest import DATA_GPA, EXTEND_RTMR, GO_ON, SECRET
from seamref.tdxmodule.look import Look, td_facts, visible_to_host
from seamref.tdxmodule.structures import OpState, PageType

MODULES = ("1.5.05", "1.5.06", "1.5.16", "1.5.933")
ops = st.one_of(
    st.tuples(st.just("build"), st.integers(0, 2), st.sampled_from((1, 2, 4, 9, 14, 25, 60))),
    st.tuples(st.just("run"), st.integers(0, 2), st.sampled_from((1000, 1, 5, 9))),
    st.tuples(st.just("extend"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("flush"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("track"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("update"), st.just(0), st.just(0)),
)


class History:
    """One platform, up to three TDs on their way, modules that only get newer."""

    def __init__(self) -> None:
        self.p: Platform = staged("tdmr.init", lps=2).fork()
        self.tds = [vmm.new_td(i) for i in range(3)]
        self.steps = [vmm.build_steps(self.p, 0, td) for td in self.tds]
        self.started = [False] * 3
        self.generation = 0
        self.updates = 0

    def facts(self) -> list[dict[str, Any]]:
        return [td_facts(self.p, td.tdr) for td, started in zip(self.tds, self.started, strict=True) if started]

    def runnable(self, i: int) -> bool:
        if not self.started[i]:
            return False
        look = Look(self.p)
        tdr = look.tdr(self.tds[i].tdr)
        return tdr.num("num_tdcx") >= 6 and look.tdcs(self.tds[i].tdr).num("op_state") == OpState.RUNNABLE

    def do(self, what: str, i: int, more: int) -> None:
        td = self.tds[i]
        match what:
            case "build":
                for _ in range(more):
                    step = next(self.steps[i], None)
                    if step is not None:
                        step[1]()
                        self.started[i] = True
            case "run" if self.runnable(i):
                vmm.run_td(self.p, self.where(i), td, answer=GO_ON, limit=more)
            case "extend" if self.runnable(i):
                vmm.run_td(self.p, self.where(i), td, answer=EXTEND_RTMR)
            case "flush" if self.runnable(i):
                vmm.tdh(self.p, self.where(i), "TDH.VP.FLUSH", rcx=td.tdvprs[0])
            case "track" if self.runnable(i):
                vmm.must(self.p, 0, "TDH.MEM.TRACK", rcx=td.tdr)
            case "update":
                self.update()
            case _:
                pass

    def where(self, i: int) -> int:
        """Where the vCPU is associated, else the processor that fits its number."""
        assoc = Look(self.p).tdvps(self.tds[i].tdvprs[0], self.tds[i].tdr).num("assoc_lpid")
        return int(assoc) if assoc != 0xFFFFFFFF else i % 2

    def update(self) -> None:
        """Same or newer: same library format, so that unfinished builds may go on."""
        self.generation = min(self.generation + 1, len(MODULES) - 1)
        before = self.facts()
        done = vmm.update(self.p, MODULES[self.generation])
        assert done.ok, done.steps[-1]
        assert self.facts() == before
        self.updates += 1

    def secrets(self) -> list[bytes]:
        """What the TDs drew inside, as only they can know it."""
        found = []
        for i, td in enumerate(self.tds):
            if self.runnable(i):
                look = Look(self.p)
                hkid = look.tdr(td.tdr).num("hkid")
                for page in look.owned(td.tdr):
                    if look.pamt(page).num("type") == PageType.REG:
                        secret = look.dram.read(self.p.with_keyid(page, hkid) + SECRET, 8)
                        if any(secret) and secret[4:] != bytes(4):
                            found.append(secret)
        return found

    def check_secrets(self, quick: bool = False) -> None:
        for secret in self.secrets():
            assert visible_to_host(self.p, secret, quick=quick) == []


@settings(max_examples=12)
@given(st.lists(ops, min_size=4, max_size=14))
def test_property__facts_survive_and_secrets_stay_inside(history: list[tuple[str, int, int]]) -> None:
    world = History()
    world.do("build", 0, 60)
    world.do("run", 0, 1000)
    for what, i, more in history:
        world.do(what, i, more)
        world.check_secrets(quick=True)
    world.check_secrets()
    world.update()
    world.check_secrets()
    for i in range(3):
        if world.runnable(i):
            before = vmm.run_td(world.p, world.where(i), world.tds[i]).answer
            assert before.ok and before.word & 0xFFFF in (1, 77)


def test_property__no_step_of_an_update_lets_a_secret_out() -> None:
    """Between any two steps of an update the secret is unreadable by host and devices, with every KeyID of theirs."""
    world = History()
    world.do("build", 0, 60)
    world.do("run", 0, 1000)
    world.do("run", 0, 1000)
    secret = world.secrets()[0]
    seen: list[int] = []

    def look(event: object) -> None:
        seen.append(len(visible_to_host(world.p, secret)))

    real = vmm.tdh
    for name in vmm.UPDATE_STEPS:
        if name.startswith("TDH"):
            for id in world.p.lps if name == "TDH.SYS.LP.INIT" else world.p.lps[:1]:
                assert real(world.p, id, name).ok
                look(name)
        else:
            from seamref import bootchain, mint

            params = mint.place(world.p, vmm.image_of("1.5.06"), scenario=1)
            for id in world.p.lps:
                assert not bootchain.did_stop(bootchain.seamldr_call(world.p, id, bootchain.INSTALL, params))
                look(name)
    assert seen == [0] * 7
    for agent in (Agent.HOST, Agent.DMA, Agent.GUEST, Agent.SMM):
        assert visible_to_host(world.p, secret, (agent,)) == []
    assert vmm.run_td(world.p, 0, world.tds[0]).answer.ok


def test_property__the_secret_is_there_and_the_check_can_fail() -> None:
    """The search finds the same bytes when the host itself wrote them."""
    world = History()
    world.do("build", 0, 60)
    world.do("run", 0, 1000)
    (secret,) = world.secrets()
    vmm.poke(world.p, 0x2200_0000, secret)
    assert visible_to_host(world.p, secret) == [0x2200_0000]


def test_property__facts_notice_a_change() -> None:
    """What the property compares is sensitive to every part of it."""
    world = History()
    world.do("build", 0, 60)
    before = world.facts()
    for act in (
        lambda look, td: look.tdr(td.tdr).set("fatal", 1),
        lambda look, td: look.tdcs(td.tdr).set("rtmr[2]", bytes([1]) * 48),
        lambda look, td: look.tdvps(td.tdvprs[0], td.tdr).set("gprs[5]", 7),
        lambda look, td: look.glob.set(f"kot[{td.hkid}].state", 2),
    ):
        fork = History()
        fork.p, fork.started = world.p.fork(), world.started
        act(Look(fork.p), world.tds[0])
        assert fork.facts() != before


def test_property__wiping_the_module_kills_it_and_the_TD() -> None:
    """State is bytes: without them there is no module, and nobody can enter the TD."""
    world = History()
    world.do("build", 0, 60)
    look = Look(world.p)
    world.p.zero(Agent.CPU, look.data, look.table.num("data_rgn_size"))
    answer = vmm.enter(world.p, 0, world.tds[0])
    assert str(answer) == "TDX_SYS_NOT_READY", "the lifecycle state was among the bytes"
    world = History()
    world.do("build", 0, 60)
    look = Look(world.p)
    world.p.zero(Agent.CPU, look.data, look.table.num("data_rgn_size"))
    world.p.zero(Agent.CPU, look.table.base, 4096)
    assert "shutdown" in str(vmm.enter(world.p, 0, world.tds[0]))
    assert not world.p.SEAM_READY


@pytest.mark.parametrize("gpa", [DATA_GPA])
def test_property__the_data_page_is_private(gpa: int) -> None:
    """The host's own read of the TD's page gives a pattern, and its write destroys the line for everybody."""
    world = History()
    world.do("build", 0, 60)
    world.do("run", 0, 1000)
    look = Look(world.p)
    td = world.tds[0]
    page = next(p for p in look.owned(td.tdr) if look.pamt(p).num("type") == PageType.REG
                and any(look.dram.read(world.p.with_keyid(p, td.hkid) + SECRET, 8)) and gpa)
    assert not any(world.p.bytes_at(Agent.HOST, page, 64))
