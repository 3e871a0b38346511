"""TDH.SYS.*: bringing the module up, shutting it down, taking over from the module before (TDXM tdh_sys_*.c).

A module for each leaf, with the same beats: inputs, checks (a table, in order), effect, result; ``platform`` is what
the first two find out about the processor.
"""

# The leaves register themselves as they are imported: this order is the order of the table of leaves.
# isort: off
from seamref.tdxmodule.system import (
    init,
    lp_init,
    config,
    key_config,
    tdmr_init,
    info,
    shutdown,
    update,
    disable,
    common,
    platform,
)
# isort: on
from seamref.tdxmodule.system.config import CONFIG, SYS_CONFIG_TDMR
from seamref.tdxmodule.system.disable import SYS_DISABLE
from seamref.tdxmodule.system.info import INFO_FIRST, INFO_THEN
from seamref.tdxmodule.system.init import INIT, INIT_ENTROPY
from seamref.tdxmodule.system.key_config import KEY_CONFIG, KEYGEN
from seamref.tdxmodule.system.lp_init import LP_INIT, LP_INIT_THEN
from seamref.tdxmodule.system.shutdown import SHUTDOWN, SHUTDOWN_BUSY
from seamref.tdxmodule.system.tdmr_init import TDMR_INIT
from seamref.tdxmodule.system.update import UPDATE

__all__ = [
    "CONFIG", "INFO_FIRST", "INFO_THEN", "INIT", "INIT_ENTROPY", "KEYGEN", "KEY_CONFIG", "LP_INIT", "LP_INIT_THEN",
    "SHUTDOWN", "SHUTDOWN_BUSY", "SYS_CONFIG_TDMR", "SYS_DISABLE", "TDMR_INIT", "UPDATE", "common", "config",
    "disable", "info", "init", "key_config", "lp_init", "platform", "shutdown", "tdmr_init", "update",
]
