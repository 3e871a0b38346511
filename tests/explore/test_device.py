"""A device that writes host memory while INSTALL reads it: a double fetch is found, between the phases of the leaf."""

from __future__ import annotations

from hashlib import sha384
from typing import Any

from seamref.explore.engine import explore
from seamref.explore.scenarios import get_scenario
from seamref.explore.seeding import Replaced, seeded
from seamref.pseamldr.install import INSTALL_HASH, PAGE, HashState, Phase, replace


def _measures_host_memory(old: Any) -> Any:
    """SEAMHASH is compared with the pages as they lie in host memory by now, not with the copy that will run."""
    def check(session: Any, at: Any) -> Any:
        image = b"".join(session.call.read(page, PAGE) for page in session._given(at).pages)
        seamhash = session.sigstruct[sha_at]
        hashed = INSTALL_HASH.decide(HashState(sha384(image).digest(), seamhash), session.revision)
        return at.ends(hashed.result) if hashed is not None else replace(at, phase=Phase.RELOCATION)

    from seamref.pseamldr.install import _SEAMHASH as sha_at

    return check


def test_INSTALL_hash__a_double_fetch_of_the_pages_is_found() -> None:
    scenario = get_scenario("device-module-page")
    scenario.make(2)
    with seeded(Replaced("pseamldr.install:Session._hash", _measures_host_memory)):
        found = explore(scenario, 2, properties=["ready-means-intact"])
    assert found.counterexample().broken == "ready-means-intact"
    acts = [did.pc for did in found.counterexample().steps if did.name == "device"]
    assert len(acts) == 2, "changed before the copy, changed back before the hash"
