"""A second enumerator, which shares nothing with the explorer but fork, choices and take, agrees with it.

Breadth first over whole states: every register of every processor, all of memory, the kernel's record without its log,
what is left to do.  No reduction, no canonical form, no levels.  Compared are the properties broken, and the
ends that can be told apart.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import replace
from hashlib import blake2b

import pytest

from seamref.explore.engine import Vacuous, explore, search
from seamref.explore.faults import FAULTS
from seamref.explore.memo import remembering
from seamref.explore.properties import get_property
from seamref.explore.scenarios import SCENARIOS, get_scenario
from seamref.explore.world import STRIKE, World

End = tuple[object, ...]


def whole(world: World) -> bytes:
    """A digest of everything that a future can depend on."""
    rest = world.rest
    left = (rest.scripts, rest.extras, rest.running, rest.faults, rest.results, rest.ghost, rest.notes)
    kernel = replace(world.host.state, dmesg=())
    return blake2b(world.host.platform.fingerprint() + repr((kernel, left)).encode(), digest_size=20).digest()


def end(world: World) -> End:
    """What can be told of an end, whichever of two like CPUs did what."""
    platform, state = world.host.platform, world.host.state
    cpus = sorted(
        repr((world.rest.results[n], record.online, record.dead, record.lp_initialized, record.finished,
              len(record.tasks), platform.peek_lp(record.apicid).activity, platform.peek_lp(record.apicid).mode))
        for n, record in enumerate(state.cpus)
    )
    return (
        platform.SEAMEXTEND, len(platform.seamdb), platform.P_SEAMLDR_MUTEX is None, state.seamldr_lock is None,
        state.sysinit_lock is None, state.module, state.hotplug_readers, repr(dict(world.rest.ghost).get("update")),
        *cpus,
    )


def enumerate_all(roots: Sequence[World], names: Sequence[str]) -> tuple[set[str], set[End], set[str]]:
    """Properties broken, ends, and the kinds of fault that struck."""
    checks = [get_property(name) for name in names]
    broken: set[str] = set()
    ends: set[End] = set()
    struck: set[str] = set()
    seen: set[bytes] = set()
    waiting = deque(root.fork() for root in roots)
    while waiting:
        world = waiting.popleft()
        key = whole(world)
        if key in seen:
            continue
        seen.add(key)
        if not world.enabled():
            ends.add(end(world))
            broken |= {c.name for c in checks if c.final is not None and c.final(world) is not None}
        for actor in world.actors:
            for choice in world.choices(actor):
                child = world.fork()
                did = child.take(choice)
                if did.pointless:
                    continue
                if choice >= STRIKE:
                    struck.add(world.rest.faults[choice // STRIKE - 1].kind)
                broken |= {c.name for c in checks if c.step is not None and c.step(world, child, did) is not None}
                waiting.append(child)
    return broken, ends, struck


def agree(name: str, cpus: int, faults: tuple[str, ...] = ()) -> None:
    scenario = get_scenario(name)
    roots = scenario.roots(cpus, faults)
    with remembering():
        broken, ends, struck = enumerate_all(roots, scenario.properties)
        met: set[End] = set()

        def watch(world: World, movable: list[int], chosen: list[int]) -> None:
            if not world.enabled():
                met.add(end(world))

        found = search(roots, scenario.properties, stop_first=False, watch=watch)
    assert found.why == ""
    assert set(found.broken) == broken
    assert met == ends
    assert {kind for kind, count in found.struck.items() if count} == struck


@pytest.mark.parametrize(("name", "faults"), [
    ("update", ()), ("info-callers-v3", ()), ("info-callers", ("mc",)), ("uefi-together", ("rdrand",)),
    ("loader-reload", ("nmi",)), ("entropy-retry", ()), ("update-two-sockets", ()),
])
def test_enumerator__agrees_on_two_CPUs(name: str, faults: tuple[str, ...]) -> None:
    agree(name, 2, faults)


@pytest.mark.parametrize("name", [
    "info-callers", "info-callers-v3", "uefi-together", "loader-reload", "loader-reload-any-order",
])
def test_enumerator__agrees_on_three_CPUs(name: str) -> None:
    agree(name, 3)


@pytest.mark.thorough
@pytest.mark.parametrize("fault", ["", *FAULTS])
@pytest.mark.parametrize("name", SCENARIOS)
def test_enumerator__agrees_on_every_scenario_with_every_fault(name: str, fault: str) -> None:
    agree(name, max(2, 3 if name == "hotplug-two" else 2), (fault,) if fault else ())


def test_fault__that_cannot_strike_is_refused_by_name() -> None:
    with pytest.raises(Vacuous, match=r"the fault 'image' .* can never strike"):
        explore("info-callers", 2, faults=["image"])


def test_fault__strikes_the_CPU_that_has_a_job() -> None:
    assert {c.broken for c in explore("info-callers", 4, faults=["mc"]).broken} == {"no-deadlock"}


def test_fault__two_in_one_run_each_strike_once() -> None:
    found = explore("info-callers", 2, faults=["nmi", "smi"], stop_first=False)
    alone = explore("info-callers", 2, faults=["nmi"], stop_first=False)
    assert found.complete and found.states > alone.states
    assert found.roots == 4, "two kinds on two CPUs"
