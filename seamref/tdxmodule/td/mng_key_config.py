"""TDH.MNG.KEY.CONFIG (leaf 8): a random key on each package (TDXM tdh_mng_key_config.c)."""

from __future__ import annotations

from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Result
from seamref.tdxmodule.structures import Lifecycle, PageType
from seamref.tdxmodule.system.common import ref
from seamref.tdxmodule.system.key_config import random_key
from seamref.tdxmodule.td.checks import RCX_TDR, S, page

_K = ref("tdh_mng_key_config.c")
MNG_KEY_CONFIG: CheckTable[Call, Answer] = CheckTable("TDH.MNG.KEY.CONFIG", (
    Check("MNG.KEY.CONFIG.fatal", "the TD is fatally broken", lambda c: RCX_TDR(c).num("fatal") != 0,
          Answer(S.TDX_TD_FATAL), _K),
    Check("MNG.KEY.CONFIG.lifecycle", "lifecycle is not TD_HKID_ASSIGNED",
          lambda c: RCX_TDR(c).num("lifecycle") != Lifecycle.HKID_ASSIGNED, Answer(S.TDX_LIFECYCLE_STATE_INCORRECT),
          _K),
    Check("MNG.KEY.CONFIG.configured", "this package has the key already",
          lambda c: bool(RCX_TDR(c).num("pkg_config_bitmap") >> c.package & 1), Answer(S.TDX_KEY_CONFIGURED), _K),
), "TDH.MNG.KEY.CONFIG (leaf 8): conditions in order, behind the TDR page.")


@implements("MNG.KEY.CONFIG.effect", "random key on this package; all of PKG_CONFIG_BITMAP: TD_KEYS_CONFIGURED", _K)
def _mng_key_config(c: Call) -> Result:
    """MNG.KEY.CONFIG.effect: compared with the *global* bitmap, which is why that is handed off."""
    tdr = RCX_TDR(c)
    failed = random_key(c, tdr.num("hkid"))
    if failed is not None:
        return failed
    bitmap = tdr.num("pkg_config_bitmap") | 1 << c.package
    tdr.set("pkg_config_bitmap", bitmap)
    if bitmap == c.glob.num("pkg_config_bitmap"):
        tdr.set("lifecycle", Lifecycle.KEYS_CONFIGURED)
    return SUCCESS


leaf(8, "TDH.MNG.KEY.CONFIG", "the TD's key on one package", stages=(page("rcx", PageType.TDR, "x"), MNG_KEY_CONFIG),
     effects=(_mng_key_config,), inputs="RCX TDR")
