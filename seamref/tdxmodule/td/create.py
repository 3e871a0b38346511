"""TDH.MNG.CREATE (leaf 9): a TDR, and an HKID for it (TDXM tdh_mng_create.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import Hkid, Lifecycle, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.td.checks import S, page

# --- TDH.MNG.CREATE (9), KEY.CONFIG (8), ADDCX (1), INIT (21) ---------------------------------------------------

_C = ref("tdh_mng_create.c")
CREATE_HKID: CheckTable[Call, Answer] = CheckTable("TDH.MNG.CREATE", (
    Check("MNG.CREATE.rdx", "RDX[63:16] is not 0, or the KeyID is not private",
          lambda c: c.rdx >> 16 != 0 or not c.is_private_hkid(c.rdx), Answer(S.TDX_OPERAND_INVALID, Operand.RDX), _C),
), "TDH.MNG.CREATE (leaf 9): the KeyID operand; then the TDR page.")
CREATE: CheckTable[Call, Answer] = CheckTable("TDH.MNG.CREATE KOT", (
    Check("MNG.CREATE.kot", "the KOT is locked", lambda c: not c.lock("x", c.glob.address("kot_lock")),
          Answer(S.TDX_OPERAND_BUSY, Operand.KOT), _C),
    Check("MNG.CREATE.hkid", "the KeyID is not free", lambda c: c.glob.num(f"kot[{c.rdx}].state") != Hkid.FREE,
          Answer(S.TDX_HKID_NOT_FREE), _C),
    Check("MNG.CREATE.entropy", "no entropy for the TD's UUID", lambda c: not drawn(c), Answer(S.TDX_RND_NO_ENTROPY),
          _C),
), "TDH.MNG.CREATE: the KeyID's owner.")


def drawn(c: Call) -> bool:
    carry, c.found = c.platform.rdrand()
    return bool(carry)


@implements("MNG.CREATE.effect", "KOT ASSIGNED; SEAMDB index and nonce of the module that runs now go into the TDR", _C)
def _create(c: Call) -> Result:
    """MNG.CREATE.effect: from here on, which module created the TD is never rewritten."""
    c.give_page(c.rcx, PageType.TDR, 0, c.glob.num("hkid"))
    tdr = c.tdr(c.rcx)
    tdr.set("lifecycle", Lifecycle.HKID_ASSIGNED)
    tdr.set("td_uuid", c.platform.random_bytes(32))
    tdr.set("hkid", c.rdx)
    tdr.set("handoff_version", c.glob.num("module_hv"))
    tdr.set("seamdb_index", c.glob.num("seamdb_index"))
    tdr.set("seamdb_nonce", c.glob.raw("seamdb_nonce"))
    c.glob.set(f"kot[{c.rdx}].state", Hkid.ASSIGNED)
    return SUCCESS


leaf(9, "TDH.MNG.CREATE", "a TD: its root page and its KeyID", stages=(CREATE_HKID, page("rcx", PageType.NDA, "x"),
     CREATE),
     effects=(_create,), inputs="RCX TDR page, RDX KeyID")
