"""Other implementations beside silicon, or beside each other: where they differ and who would notice."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from seamref.arch.peers import Implementation, Peer, both_can_be, peer_differences
from seamref.arch.spaces import SPACES, Space
from seamref.conformance.clients import Noticed, executing, noticed_by


@dataclass(frozen=True, slots=True)
class Group:
    """States in which two implementations differ in the same way, for the same client.

    ``facts``: a fact's value, or ``None`` where it does not matter; ``states``: how many states; ``deciding``: the
    clauses that decide, of one and of the other.
    """

    instruction: str
    facts: dict[str, bool | None]
    states: int
    one: str
    other: str
    deciding: tuple[tuple[str, ...], tuple[str, ...]]
    noticed: tuple[Noticed, ...]

    @property
    def in_words(self) -> str:
        """The facts that matter, those that are 0 behind "not"."""
        return ", ".join(name if on else f"not {name}" for name, on in self.facts.items() if on is not None) or "always"


@dataclass(frozen=True, slots=True)
class Compared:
    """Two implementations over the states of one instruction.

    ``states``: how many both can be in, ``differing``: in how many they answer differently, ``absent``: how many states
    of the instruction one of them cannot be in.
    """

    instruction: str
    one: str
    other: str
    states: int
    differing: int
    absent: int
    groups: tuple[Group, ...]


def compare(a: Implementation, b: Implementation, space: Space, *, reachable: bool = True) -> Compared:
    """Two implementations over one instruction, differing states as few lines as describe them exactly.

    With ``reachable``, states that no processor can be in are left out, and used only to shorten the description.
    """
    can_be = [s for s in range(space.states) if not reachable or space.is_reachable(s)]
    both = set(both_can_be(a, b, space)) & set(can_be)
    found: dict[tuple[str, str, str], list[int]] = {}
    deciding: dict[tuple[str, str, str], tuple[set[str], set[str]]] = {}
    for state, one, other in peer_differences(a, b, space):
        if state in both:
            key = (one.outcome, other.outcome, executing(space.facts(state)))
            found.setdefault(key, []).append(state)
            clauses = deciding.setdefault(key, (set(), set()))
            clauses[0].add(one.clause)
            clauses[1].add(other.clause)
    outside = set(range(space.states)) - both
    groups = tuple(
        group for key, states in sorted(found.items(), key=lambda item: item[0][2])
        for group in _groups(space, key, states, outside, deciding[key])
    )
    differing = sum(map(len, found.values()))
    return Compared(space.name, a.name, b.name, len(both), differing, len(can_be) - len(both), groups)


def _groups(
    space: Space, key: tuple[str, str, str], states: Sequence[int], outside: set[int],
    deciding: tuple[set[str], set[str]],
) -> list[Group]:
    """One group for each cube that is needed to describe the states."""
    one, other, _ = key
    noticed = tuple(noticed_by(space.name, space.facts(states[0]), one, other))
    clauses = (tuple(sorted(deciding[0])), tuple(sorted(deciding[1])))
    left, made = set(states), []
    while left:
        fixed, members = max((_widened(space, min(left), order, left | outside, left) for order in _orders(space)),
                             key=lambda found: len(found[1]))
        left -= members
        facts = {given.name: bool(min(members) >> given.bit & 1) if given.bit in fixed else None
                 for given in space.inputs}
        made.append(Group(space.name, facts, len(members), one, other, clauses, noticed))
    return made


def _orders(space: Space) -> tuple[list[int], list[int]]:
    bits = [given.bit for given in space.inputs]
    return bits, bits[::-1]


def _widened(
    space: Space, state: int, order: Iterable[int], allowed: set[int], wanted: set[int]
) -> tuple[set[int], set[int]]:
    """The facts of a state that must be kept so that only allowed states remain, and the wanted states among them."""
    cube, fixed = {state}, {given.bit for given in space.inputs}
    for bit in order:
        wider = cube | {member ^ 1 << bit for member in cube}
        if wider <= allowed:
            cube = wider
            fixed.discard(bit)
    return fixed, cube & wanted


def compare_all(a: Implementation, b: Implementation, *, reachable: bool = True) -> list[Compared]:
    """Two implementations over every instruction whose states are listed."""
    return [compare(a, b, space, reachable=reachable) for space in SPACES.values()]


def row_notes(peer: Peer, table: str) -> list[tuple[str, str, str, str]]:
    """The rows of a table for one peer: asked (with its place) or left out, id, what it says, and the note."""
    asked = [(str(place), row.id, row.says, peer.notes.get(row.id, ""))
             for place, row in enumerate(peer.asks(table), 1)]
    return asked + [("left out", row.id, row.says, peer.notes.get(row.id, "")) for row in peer.leaves_out(table)]


def tables_of(peer: Peer) -> list[str]:
    """The check tables about which something is known."""
    return [name for name, _ in peer.revision.orders]
