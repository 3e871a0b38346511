"""SEAMDB and num_remaining_updates: the story of a platform on which updates run out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from seamref import mint
from seamref.arch.platform import Platform
from seamref.bootchain import UpdateRecord, default_acm, update_loader
from seamref.experiments.loader.lab import (
    PARAMS,
    Session,
    get_info,
    hand_off,
    install,
    loader_data,
    platform,
)
from seamref.pseamldr.api import Scenario


@dataclass(frozen=True, slots=True)
class Moment:
    """After a step: P-SEAMLDR's own count, what INFO then says, and SEAMDB."""

    step: str
    answer: str
    counted: int
    info: int | None
    entries: int
    capacity: int


def bring(made: Platform, build: str, scenario: Scenario = Scenario.LOAD, minor: int | None = None) -> Session:
    """INSTALL a build; before an UPDATE the old module's handoff data is put in place."""
    if scenario is Scenario.UPDATE and made.SEAM_READY:
        hand_off(made)
    image = mint.module_image(build)
    fields: dict[str, Any] = {} if minor is None else {"seam_minor_svn": minor}
    mint.place(made, image, mint.sigstruct(image, **fields), scenario=int(scenario), at=PARAMS)
    return install(made)


def reload_pseamldr(made: Platform) -> list[UpdateRecord]:
    """SHUTDOWN on every processor, then NP-SEAMLDR once more: a new P-SEAMLDR, no module, SEAMDB as it was."""
    return update_loader(made, default_acm())


def moment(made: Platform, step: str, answer: str = "", ask: bool = False) -> Moment:
    """Look; ``ask`` calls SEAMLDR.INFO afterwards, which may change the count."""
    counted = loader_data(made).num_remaining_updates
    said = int(get_info(made).num_remaining_updates) if ask else None
    return Moment(step, answer, counted, said, len(made.seamdb), made.config.seamdb_size)


def story(capacity: int = 4) -> Iterator[Moment]:
    """LOAD, UPDATE until nothing remains, the ways out."""
    made = platform(seamdb=capacity)
    yield moment(made, "P-SEAMLDR was just loaded")
    yield moment(made, "SEAMLDR.INFO", "SUCCESS", True)
    yield moment(made, "LOAD 1.5.05", bring(made, "1.5.05").last.answer)
    for number in range(1, capacity + 1):
        done = bring(made, "1.5.06", Scenario.UPDATE)
        yield moment(made, f"UPDATE {number} to 1.5.06", done.last.answer)
    yield moment(made, "SEAMLDR.INFO asks SEAMDB again", "SUCCESS", True)
    failed = made.fork()
    bad = mint.module_image("1.5.06")
    mint.place(failed, bad, mint.sigstruct(bad, seamhash=bytes(48)), at=PARAMS)
    yield moment(failed, "a LOAD that fails late (on a copy of the machine)", install(failed).last.answer)
    yield moment(made, "LOAD 1.5.06: everything begins again", bring(made, "1.5.06").last.answer)
    reload_pseamldr(made)
    yield moment(made, "SHUTDOWN everywhere, P-SEAMLDR loaded again")
    yield moment(made, "SEAMLDR.INFO", "SUCCESS", True)
    early = made.fork()
    yield moment(early, "UPDATE (on a copy): there is no module", bring(early, "1.5.06", Scenario.UPDATE).last.answer)
    yield moment(made, "LOAD 1.5.06", bring(made, "1.5.06").last.answer)


def step_through(steps: list[tuple[str, Callable[[Platform], str]]], made: Platform) -> list[Moment]:
    """A story of your own: names and functions that change the platform and return the answer."""
    return [moment(made, name, act(made)) for name, act in steps]


__all__ = ["Moment", "bring", "moment", "reload_pseamldr", "step_through", "story"]
