"""Does every fair run come to an end?  Liveness, and the reason why looking at ends is enough for it.

A property of ends ("nobody waits for ever") speaks of the states in which nobody can take a step.  It says nothing of a
run that has no end.  Two things could go on for ever: a CPU that spins, and actors that go in circles.

* *Spinning* changes nothing: a CPU that waits for a lock or for a state is not enabled here, and its turn leaves the
  world as it is.  Under weak fairness (whoever could get on for ever gets a turn) a run that only spins from some point
  on has nobody who could get on: it stands in an end, and ends are looked at.
* *Circles* would be states that are met again.  The exploration goes by numbers of steps and terminates, so its longest
  run is finite: no run takes infinitely many steps.  (A reduced exploration is as good: a run of the whole graph is, in
  another order, at least as long in the reduced one.)

So "the search came to its end" and "no end has anybody waiting" are together liveness under weak fairness.
:func:`progress` does not take that argument on trust: it builds the whole graph of states without counting steps and
without reduction, takes every waiting CPU's turn, and looks for circles; of those that there are it asks whether a fair
run can stay in them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from seamref.errors import SeamrefError
from seamref.explore.canonical import Canon
from seamref.explore.memo import remembering
from seamref.explore.scenarios import Scenario, get_scenario
from seamref.explore.world import STRIKE, World
from seamref.host import tasks

MAX_STATES = 50_000


@dataclass(frozen=True, slots=True)
class Progress:
    """What the graph of states says about runs without end.

    ``states``, ``transitions``  of the whole graph, without any reduction
    ``spins``     turns of waiting CPUs that were taken; each left the world as it was
    ``longest``   steps of the longest run; ``None``: there are circles
    ``circles``   sets of states that runs can go round in
    ``fair``      a circle in which a fair run can stay for ever: what its actors do in it; empty: there is none
    ``waits``     names of actors that are left waiting in some end
    ``complete``  the whole graph was looked at
    """

    states: int
    transitions: int
    spins: int
    longest: int | None
    circles: int
    fair: tuple[str, ...]
    waits: tuple[str, ...]
    complete: bool

    @property
    def holds(self) -> bool:
        """Every weakly fair run comes to an end in which nobody waits."""
        return self.complete and not self.fair and not self.waits

    @property
    def says(self) -> str:
        """In words."""
        if not self.complete:
            return f"no answer: more than {self.states:,} states"
        if self.fair:
            return "a fair run can go on for ever: " + "; ".join(self.fair)
        if self.waits:
            return f"a fair run can end with {', '.join(self.waits)} waiting"
        if self.longest is None:
            return f"every fair run ends; {self.circles} circles, and in each somebody who could get on is kept from it"
        return f"every run ends after at most {self.longest} steps, and nobody waits"


def progress(
    scenario: Scenario | str, cpus: int = 2, faults: Sequence[str] = (), *, max_states: int = MAX_STATES
) -> Progress:
    """Build the graph of states of a scenario and look for runs without end.

    Errors: a waiting CPU whose turn changed the world (then "not enabled" would not mean "waits").
    """
    chosen = get_scenario(scenario) if isinstance(scenario, str) else scenario
    with remembering():
        return _graph(chosen.roots(cpus, faults), max_states)


def _graph(roots: list[World], max_states: int) -> Progress:
    first = roots[0]
    canon = Canon(first.setting, tuple(cpu.apicid for cpu in first.host.state.cpus), symmetry=False)
    keys: dict[bytes, int] = {}
    worlds: list[World] = []
    after: list[list[tuple[int, int]]] = []
    enabled: list[frozenset[int]] = []
    did: dict[tuple[int, int], str] = {}
    waits: set[str] = set()
    spins = transitions = 0

    def number(world: World) -> int:
        key = canon(world).key
        if key not in keys:
            keys[key] = len(worlds)
            worlds.append(world)
        return keys[key]

    for root in roots:
        number(root)
    at = 0
    while at < len(worlds):
        if at >= max_states:
            return Progress(at, transitions, spins, None, 0, (), (), False)
        world = worlds[at]
        spins += _take_waiting_turns(world, canon)
        chosen = world.enabled()
        enabled.append(frozenset(chosen))
        if not chosen:
            waits |= {world.name(actor) for actor in world.actors if not world.is_done(actor)
                      and not (actor < world.cpus and world.host.state.cpus[actor].dead)}
        edges = []
        for choice in (choice for actor in world.movable() for choice in world.choices(actor)):
            child = world.fork()
            done = child.take(choice)
            if done.pointless:
                continue
            transitions += 1
            target = number(child)
            edges.append((choice % STRIKE, target))
            did[at, target] = f"{done.name} {done.text}"
        after.append(edges)
        worlds[at] = first  # only its number is needed from here on
        at += 1
    circles = [part for part in _components(after) if len(part) > 1 or any(to in part for _, to in after[min(part)])]
    fair: tuple[str, ...] = ()
    for part in circles:
        if not fair and _is_fair(part, after, enabled):
            fair = tuple(dict.fromkeys(
                did[state, to] for state in sorted(part) for _, to in after[state] if to in part
            ))
    longest = None if circles else _longest(after)
    return Progress(len(keys), transitions, spins, longest, len(circles), fair, tuple(sorted(waits)), True)


def _take_waiting_turns(world: World, canon: Canon) -> int:
    """Give every waiting CPU its turn on a copy: it must leave the world as it is."""
    count = 0
    for cpu in range(world.cpus):
        record = world.host.state.cpus[cpu]
        if record.dead or not record.tasks or world.is_enabled(cpu):
            continue
        copy = world.fork()
        if tasks.step(copy.host, cpu).blocked and canon(copy).key == canon(world).key:
            count += 1
            continue
        raise SeamrefError(f"CPU {cpu} waits at {record.tasks[-1].pc}, and its turn changed the world")
    return count


def _components(after: list[list[tuple[int, int]]]) -> list[set[int]]:
    """Strongly connected components (Tarjan's algorithm, without recursion)."""
    index: list[int] = [-1] * len(after)
    low = [0] * len(after)
    on_stack = [False] * len(after)
    stack: list[int] = []
    found: list[set[int]] = []
    count = 0
    for root in range(len(after)):
        if index[root] >= 0:
            continue
        work = [(root, 0)]
        while work:
            state, edge = work.pop()
            if edge == 0:
                index[state] = low[state] = count
                count += 1
                stack.append(state)
                on_stack[state] = True
            else:
                low[state] = min(low[state], low[after[state][edge - 1][1]])
            for position in range(edge, len(after[state])):
                to = after[state][position][1]
                if index[to] < 0:
                    work += [(state, position + 1), (to, 0)]
                    break
                if on_stack[to]:
                    low[state] = min(low[state], index[to])
            else:
                if low[state] == index[state]:
                    part: set[int] = set()
                    while True:
                        member = stack.pop()
                        on_stack[member] = False
                        part.add(member)
                        if member == state:
                            break
                    found.append(part)
    return found


def _is_fair(part: set[int], after: list[list[tuple[int, int]]], enabled: list[frozenset[int]]) -> bool:
    """Whether a weakly fair run can stay: whoever is enabled all the time takes a step in it."""
    always = frozenset.intersection(*(enabled[state] for state in part))
    moving = {actor for state in part for actor, to in after[state] if to in part}
    return always <= moving


def _longest(after: list[list[tuple[int, int]]]) -> int:
    """Steps of the longest run of a graph without circles."""
    incoming = [0] * len(after)
    for edges in after:
        for _, to in edges:
            incoming[to] += 1
    depth = [0] * len(after)
    ready = [state for state, count in enumerate(incoming) if count == 0]
    while ready:
        state = ready.pop()
        for _, to in after[state]:
            depth[to] = max(depth[to], depth[state] + 1)
            incoming[to] -= 1
            if incoming[to] == 0:
                ready.append(to)
    return max(depth, default=0)


__all__ = ["MAX_STATES", "Progress", "progress"]
