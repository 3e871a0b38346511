"""The unfinished MRTD: a SHA-384 context that belongs to the library of the module that began it."""

from __future__ import annotations

from collections.abc import Callable

from seamref.spec import CHOSEN, Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, Stage, View
from seamref.tdxmodule.sha384 import Sha384
from seamref.tdxmodule.status import Result
from seamref.tdxmodule.td.checks import S

# --- the unfinished MRTD ----------------------------------------------------------------------------------------

INTERRUPTED: CheckTable[tuple[Call, View], Answer] = CheckTable("BUILD", (
    Check("BUILD.interrupted", "a module that detects it: the module was replaced since this build began",
          lambda c: c[0].detects and c[1].num("mrtd_context.seamdb_index") != c[0].glob.num("seamdb_index"),
          Answer(S.TDX_UPDATE_COMPAT_SENSITIVE), "BASE table 4.4", CHOSEN),
), "\"Detect after update\": what newer modules may do about a TD build that an update interrupted.")


def interrupted(find: Callable[[Call], View]) -> Stage:
    """The TD build must not have been interrupted, where the build of the module looks."""

    def stage(c: Call) -> Result | None:
        row = INTERRUPTED.decide((c, c.tdcs(find(c))))
        return None if row is None else row.result.result(c)

    return stage


def put_hash(c: Call, tdcs: View, state: Sha384) -> None:
    """Store the unfinished hash in this build's packed format, bound to this module's SEAMDB index."""
    tdcs.set("mrtd_context.packed", state.pack(c.build.hash_format))
    tdcs.set("mrtd_context.seamdb_index", c.glob.num("seamdb_index"))


@implements("BUILD.rebind", "a context bound to another SEAMDB index is bound to this module's library; its packed "
            "bytes are taken as they are", "TDXM src/common/crypto/sha384.c")
def get_hash(c: Call, tdcs: View) -> Sha384:
    """BUILD.rebind: bytes packed by a library of another format are misread without any error."""
    return Sha384.unpack(tdcs.raw("mrtd_context.packed"), c.build.hash_format)


def extend(c: Call, tdcs: View, *blocks: bytes) -> None:
    """Update the MRTD with 128-byte blocks."""
    state = get_hash(c, tdcs)
    for block in blocks:
        state.update(block)
    put_hash(c, tdcs, state)


def block(name: str, gpa: int) -> bytes:
    """A 128-byte block: the operation's name at 0, the GPA at 16."""
    return (name.encode().ljust(16, b"\0") + gpa.to_bytes(8, "little")).ljust(128, b"\0")
