"""Other public implementations of SEAM beside silicon: where they differ, who would notice, what they leave out.

Each is a value over this machine's own check tables (seamref.arch.peers), read in its public source at the commit that
is printed; the machine executes SEAMCALL, SEAMRET, SEAMOPS and TDCALL in every state.  Without a name, they are listed.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from seamref.arch.peers import Peer
    from seamref.experiments.processor.peers import Compared

HELP = "OpenTDX and Cornelius: in which states they differ from silicon, and which client notices"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    from seamref.commands._answer import add_json

    add_json(parser)
    parser.add_argument("name", nargs="?", help="OpenTDX, Cornelius, or a revision; without it, they are listed")
    parser.add_argument("--with", dest="other", default="silicon", metavar="NAME", help="compared with (silicon)")
    parser.add_argument("--instruction", metavar="NAME", help="only SEAMCALL, SEAMRET, SEAMOPS or TDCALL")
    parser.add_argument("--rows", action="store_true", help="the rows of each check table that it asks and leaves out")
    parser.add_argument("--effects", action="store_true", help="the differences that no list of checks shows")
    parser.add_argument("--unreachable", action="store_true", help="states that no processor can be in, too")


def run(args: argparse.Namespace) -> int:
    """Compare."""
    from seamref.arch.peers import PEERS, Peer, get_implementation
    from seamref.arch.spaces import SPACES, get_space
    from seamref.commands._answer import Rows
    from seamref.errors import SeamrefError
    from seamref.experiments.processor.peers import compare

    if args.name is None:
        if args.instruction or args.rows or args.effects or args.other != "silicon" or args.unreachable:
            raise SeamrefError("without a name, the implementations are listed: options need one")
        listed = Rows(args, "peers", "peers")
        for held in PEERS.values():
            listed.add(f"{held.name:10} {held.title}\n{'':10} {held.repository} {held.commit[:12]}, {held.date}",
                       **_identity(held))
        return listed.end()
    one, other = get_implementation(args.name), get_implementation(args.other)
    if args.rows or args.effects:
        if not isinstance(one, Peer):
            raise SeamrefError(f"{one.name} is a revision: --rows and --effects are for {' and '.join(PEERS)}")
        return _rows(args, one) if args.rows else _effects(args, one)
    spaces = [get_space(args.instruction)] if args.instruction else list(SPACES.values())
    rows = Rows(args, "peer-difference", "instructions")
    if isinstance(one, Peer):
        rows.say(f"{one.name}: {one.repository} {one.commit[:12]}, {one.date}")
    found = [compare(one, other, space, reachable=not args.unreachable) for space in spaces]
    for made in found:
        rows.add(_in_words(made), instruction=made.instruction, states=made.states, differing=made.differing,
                 absent=made.absent, groups=made.groups)
    differing = sum(made.differing for made in found)
    rows.say(f"{differing} states differ: {one.name}, {other.name}")
    return rows.end(names=[one.name, other.name], reachable=not args.unreachable, differing=differing,
                    peer=_identity(one) if isinstance(one, Peer) else None)


def _identity(peer: Peer) -> dict[str, object]:
    return {"name": peer.name, "title": peer.title, "repository": peer.repository, "commit": peer.commit,
            "date": peer.date, "files": [peer.url(file) for file in peer.files]}


def _in_words(made: Compared) -> str:
    """One instruction: how many states, then a paragraph for each way to differ."""
    absent = f", {made.absent} that one of the two has not" if made.absent else ""
    lines = [f"{made.instruction}: {made.states} states compared{absent}; {made.differing} differ"]
    for group in made.groups:
        lines += [f"  {group.states:4} {group.in_words}",
                  f"       {made.one}: {group.one} ({', '.join(group.deciding[0])})",
                  f"       {made.other}: {group.other} ({', '.join(group.deciding[1])})",
                  *(f"       {noticed}" for noticed in group.noticed)]
    return "\n".join(lines)


def _rows(args: argparse.Namespace, peer: Peer) -> int:
    from seamref.commands._answer import Rows
    from seamref.experiments.processor.peers import row_notes, tables_of

    tables = [name for name in tables_of(peer) if not args.instruction or name.upper() == args.instruction.upper()]
    rows = Rows(args, "peer-rows", "rows")
    for name in tables:
        rows.say(f"{name}:")
        for place, id, says, note in row_notes(peer, name):
            rows.add(f"  {place:8} {id:30} {says}" + (f" [{note}]" if note else ""), table=name, place=place, clause=id,
                     says=says, note=note)
    return rows.end(peer=_identity(peer))


def _effects(args: argparse.Namespace, peer: Peer) -> int:
    from seamref.commands._answer import Rows

    rows = Rows(args, "peer-effects", "effects")
    for effect in peer.effects:
        rows.add(f"{effect.topic}\n    silicon: {effect.silicon}\n    {peer.name}: {effect.peer}\n"
                 f"    noticed by: {effect.notices}\n    read in: {effect.file}"
                 + (f" (knob {effect.knob})" if effect.knob else ""), topic=effect.topic, silicon=effect.silicon,
                 does=effect.peer, notices=effect.notices, file=peer.url(effect.file), knob=effect.knob)
    return rows.end(peer=_identity(peer))
