"""One TD's life as the host drives it: build, keys, vCPUs, teardown (TDXM tdh_{mng,vp,mem,mr,phymem}_*.c).

A module for each leaf.  Shared sub-checks are tables of their own in ``checks``: PAGE for every operand that names a
page, OWNER for the TD behind a vCPU, TD for "is this TD in a state for it".  All of it takes page and KOT locks, never
GLOBAL_LOCK.
"""

# The leaves register themselves as they are imported: this order is the order of the table of leaves.
# isort: off
from seamref.tdxmodule.td import (
    create,
    mng_key_config,
    mng_addcx,
    mng_init,
    sept_add,
    page_add,
    mr,
    vp_create,
    vp_init,
    vp_flush,
    vp_wr,
    mem_track,
    vpflushdone,
    cache_wb,
    key_freeid,
    reclaim,
    checks,
    measurement,
    sept,
)
# isort: on
from seamref.tdxmodule.td.cache_wb import CACHE_WB
from seamref.tdxmodule.td.checks import OWNER, PAGE_CHECK, TD_CHECK
from seamref.tdxmodule.td.create import CREATE, CREATE_HKID
from seamref.tdxmodule.td.key_freeid import FREEID
from seamref.tdxmodule.td.measurement import INTERRUPTED
from seamref.tdxmodule.td.mem_track import MEM_TRACK
from seamref.tdxmodule.td.mng_addcx import ADDCX_LAST, MNG_ADDCX
from seamref.tdxmodule.td.mng_init import MNG_INIT, MNG_INIT_FIRST
from seamref.tdxmodule.td.mng_key_config import MNG_KEY_CONFIG
from seamref.tdxmodule.td.mr import MR_EXTEND, MR_FINALIZE
from seamref.tdxmodule.td.page_add import PAGE_ADD
from seamref.tdxmodule.td.reclaim import RECLAIM
from seamref.tdxmodule.td.sept_add import SEPT_ADD, SEPT_ADD_FIRST, SEPT_ADD_L2, SEPT_ADD_VERSION
from seamref.tdxmodule.td.vp_create import VP_ADDCX
from seamref.tdxmodule.td.vp_flush import VP_FLUSH
from seamref.tdxmodule.td.vp_init import VP_INIT, VP_INIT_FIRST
from seamref.tdxmodule.td.vp_wr import VP_WR
from seamref.tdxmodule.td.vpflushdone import VPFLUSHDONE

__all__ = [
    "ADDCX_LAST", "CACHE_WB", "CREATE", "CREATE_HKID", "FREEID", "INTERRUPTED", "MEM_TRACK", "MNG_ADDCX",
    "MNG_INIT", "MNG_INIT_FIRST", "MNG_KEY_CONFIG", "MR_EXTEND", "MR_FINALIZE", "OWNER", "PAGE_ADD", "PAGE_CHECK",
    "RECLAIM", "SEPT_ADD", "SEPT_ADD_FIRST", "SEPT_ADD_L2", "SEPT_ADD_VERSION", "TD_CHECK", "VPFLUSHDONE",
    "VP_ADDCX", "VP_FLUSH", "VP_INIT", "VP_INIT_FIRST", "VP_WR", "cache_wb", "checks", "create", "key_freeid",
    "measurement", "mem_track", "mng_addcx", "mng_init", "mng_key_config", "mr", "page_add", "reclaim", "sept",
    "sept_add", "vp_create", "vp_flush", "vp_init", "vp_wr", "vpflushdone",
]
