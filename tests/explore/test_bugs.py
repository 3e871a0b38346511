"""Seeded bugs: the default command notices each by the property it is declared for, or it is a survivor with a reason.

A sample runs each time; all of them in the thorough run.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

import seamref.__main__
import seamref.pseamldr.program
import seamref.tdxmodule.program  # noqa: F401  all clauses
from seamref.errors import SeamrefError
from seamref.explore.bugs import BUGS, LIVENESS, Bug, get_bug, hunt
from seamref.explore.engine import explore
from seamref.explore.properties import PROPERTIES
from seamref.explore.scenarios import SCENARIOS
from seamref.explore.seeding import Handler, LeftOut, Replaced, Swapped, seeded
from seamref.host import tasks, update
from seamref.spec import CLAUSES, TABLES

ALONE = [bug for bug in BUGS.values() if bug.alone]
SAMPLE = list(BUGS.values())[::7]


def check(bug: Bug) -> None:
    """What is noticed is what was declared."""
    noticed = hunt(bug, whole=bug.alone)
    if bug.survives:
        assert noticed == (), "noticed after all: take it off the list of survivors"
    elif bug.alone:
        assert set(noticed) == {bug.noticed_by}
    else:
        assert bug.noticed_by in noticed


@pytest.mark.parametrize("bug", SAMPLE, ids=lambda bug: bug.name)
def test_bug__of_the_sample_is_noticed_as_declared(bug: Bug) -> None:
    check(bug)


@pytest.mark.thorough
@pytest.mark.parametrize("bug", [bug for bug in BUGS.values() if bug not in SAMPLE], ids=lambda bug: bug.name)
def test_bug__is_noticed_as_declared(bug: Bug) -> None:
    check(bug)


KINDS = {
    "what is measured": "measured-as-installed", "what runs": "ready-means-intact",
    "what is counted": "updates-counted",
    "registers": "registers-kept", "secrets": "secrets-kept", "refusals": "unrecoverable-means-touched",
    "memory": "seam-memory-closed", "death": "death-closes-seam", "inhibits": "blocking-kept",
    "the module's states": "module-lifecycle", "the kernel's books": "kernel-balanced", "its version": "version-true",
    "its caches": "caches-marked", "signatures": "only-signed-modules",
}


@pytest.mark.parametrize("kind", KINDS)
def test_property__of_each_kind_has_a_bug_that_nothing_else_notices(kind: str) -> None:
    assert KINDS[kind] in PROPERTIES
    assert [bug for bug in ALONE if bug.noticed_by == KINDS[kind]], kind


def test_bugs__are_many_and_declared_whole() -> None:
    assert len(BUGS) >= 80
    assert sum(bool(bug.survives) for bug in BUGS.values()) <= len(BUGS) // 5
    for bug in BUGS.values():
        assert bug.clause in CLAUSES, bug.name
        assert bug.scenario in SCENARIOS and bug.changes
        assert bool(bug.survives) != bool(bug.noticed_by), bug.name
        assert not bug.noticed_by or bug.noticed_by == LIVENESS or bug.noticed_by in PROPERTIES, bug.name
        assert bug.room in ("kernel", "P-SEAMLDR", "processor", "module")
        assert all(str(change) for change in bug.changes)
    assert {bug.room for bug in BUGS.values()} == {"kernel", "P-SEAMLDR", "processor", "module"}


def test_property__a_refusal_is_judged_on_one_processor_too() -> None:
    """There the only call opens the session and ends it."""
    bug = replace(get_bug("P-SEAMLDR: RDX = 1 for a refusal that changed nothing"), cpus=1)
    assert hunt(bug, whole=True) == ("unrecoverable-means-touched",)


def test_seeding__everything_is_as_before_behind_it() -> None:
    table = TABLES["SEAMCALL"]
    rows, handler, forget = table._counted, tasks.HANDLERS["update.ack"], update._forget
    first, second = rows[0][0].id, rows[1][0].id
    with pytest.raises(ZeroDivisionError), seeded(
        LeftOut("SEAMCALL", first), LeftOut("SEAMCALL", second), Handler("update.ack", lambda old: None),
        Replaced("host.update:_forget", lambda old: None),
    ):
        assert len(table._counted) == len(rows) - 2
        assert tasks.HANDLERS["update.ack"] is None and update._forget is None
        raise ZeroDivisionError
    assert table._counted is rows and tasks.HANDLERS["update.ack"] is handler and update._forget is forget
    with seeded(Swapped("SEAMCALL", first, second)):
        assert [entry[0].id for entry in table._counted[:2]] == [second, first]


def test_seeding__names_that_are_not_there_are_refused() -> None:
    with pytest.raises(SeamrefError, match=r"no row 'SEAMCALL\.x'"), seeded(LeftOut("SEAMCALL", "SEAMCALL.x")):
        pass
    with pytest.raises(SeamrefError, match="no check table is called 'X'"), seeded(LeftOut("X", "SEAMCALL.x")):
        pass
    with pytest.raises(SeamrefError, match="no seeded bug 'x'"):
        get_bug("x")


def test_bugs__leave_nothing_behind() -> None:
    hunt(BUGS["kernel: no seamldr_lock"])
    assert not explore("update", 2).broken
