"""An update recorded: each step with its CPU, the global state and what kind of step it was."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.host.abi import Errno
from seamref.host.install import prepare, release
from seamref.host.kernel import Host
from seamref.host.records import UpdateState
from seamref.host.scenarios import Failed, Trouble, fail, stage
from seamref.host.series import KernelSeries
from seamref.host.tasks import Stuck
from seamref.host.update import Finish, Schedule, begin, control, finish, in_order, round_robin, steps


@dataclass(frozen=True, slots=True)
class Piece:
    """One step of a run: when (its number), which CPU, in which state, what."""

    at: int
    cpu: int
    state: UpdateState
    kind: str
    words: str


def record(host: Host, data: bytes, schedule: Schedule = in_order) -> tuple[list[Piece], str]:
    """Run an update on this host and note every step; also how it ended."""
    prepared = prepare(host, data)
    if isinstance(prepared, Errno):
        return [], str(prepared)
    begin(host, prepared.params)
    pieces: list[Piece] = []
    running = iter(steps(host, schedule))
    while True:
        state = min(control(host).state, UpdateState.DONE)
        try:
            done = next(running)
        except StopIteration:
            break
        except Stuck:
            return pieces, Finish.HUNG.value
        pieces.append(Piece(len(pieces), done.cpu, state, _kind(done.did), done.did))
    ret = finish(host)
    release(host, prepared)
    return pieces, str(ret)


def enters(piece: Piece) -> bool:
    """The SEAMCALL instruction itself, as it entered SEAM."""
    return piece.words.endswith((": entered TDX module", ": entered P-SEAMLDR"))


def _kind(did: str) -> str:
    if "fails" in did or ("acknowledges" in did and " with " in did):
        return "bad"
    if "acknowledges" in did:
        return "ack"
    if "seamldr_lock" in did or "sysinit_lock" in did:
        return "lock"
    if "SEAMLDR." in did:
        return "loader"
    if "TDH." in did and ":" in did:
        return "module"
    return "other"


@dataclass(frozen=True, slots=True)
class Troubled:
    """An update in which something goes wrong: its steps, how it ended, and what the user is left with."""

    pieces: list[Piece]
    ended: str
    left: Failed


def record_trouble(trouble: Trouble, series: KernelSeries, cpus: int) -> Troubled:
    """Record an update of one series on a machine of so many CPUs (two packages where there are more than two)."""
    sockets = 2 if cpus > 2 else 1
    staged = stage(trouble, series, cpus, sockets, round_robin())
    pieces, ended = record(staged.host, staged.image, staged.schedule)
    return Troubled(pieces, ended, fail(trouble, series, cpus, sockets))
