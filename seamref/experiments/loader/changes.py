"""What a reader can do to a sigstruct, each change tried in one INSTALL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from seamref import mint
from seamref.experiments.loader.lab import Attempt, Session, seamextend
from seamref.experiments.loader.refusals import cases
from seamref.pseamldr.api import PAGE, Scenario
from seamref.pseamldr.manifest import ManifestState

NO_CHANGE = "nothing"


def sigstruct_mutations() -> dict[str, Attempt]:
    """What a reader can do to a sigstruct, by a word for it: every attempt that the manifest rows have."""
    found: dict[str, Attempt] = {NO_CHANGE: Attempt()}
    for case in cases():
        if case.row.startswith("INSTALL.manifest.") and "revision" not in case.attempt.on:
            found[case.brings] = case.attempt
    found["seamhash of another image"] = Attempt(sig={"seamhash": bytes(range(48))})
    found["num_global_data_pages = 0xFFFF"] = Attempt(sig={"num_global_data_pages": 0xFFFF})
    found["max_tdmrs = 64 (nobody looks)"] = Attempt(sig={"max_tdmrs": 64})
    found["rip_offset = 0xFFFF0000 (not bounded)"] = Attempt(sig={"rip_offset": 0xFFFF0000})
    return found


def manifest_state(attempt: Attempt) -> ManifestState:
    """What the manifest rows look at for an attempt, as INSTALL would gather it."""
    image = attempt.make_image()
    now = seamextend(attempt.platform())
    return ManifestState(
        sigstruct=attempt.make_sigstruct(image), scenario=int(attempt.scenario), num_module_pages=len(image) // PAGE,
        seam_minor_svn=now.tee_tcb_svn.seam_minor_svn, seam_major_svn=now.tee_tcb_svn.seam_major_svn,
        debug_unlocked=bool(attempt.on.get("debug_unlocked")), socket_cpuids=tuple(attempt.on.get("fms", (0xC06F2,))),
        signer_key_hash=mint.KEY.key_hash,
    )


def changes_tried(
    scenarios: Sequence[Scenario] = (Scenario.LOAD, Scenario.UPDATE),
) -> Iterator[tuple[str, Scenario, Session]]:
    """Every change of :func:`sigstruct_mutations`, executed; one that is meant for an update is not tried as a load."""
    for name, attempt in sigstruct_mutations().items():
        for scenario in scenarios:
            if not (attempt.scenario is Scenario.UPDATE and scenario is Scenario.LOAD):
                yield name, scenario, replace(attempt, scenario=scenario).run()
