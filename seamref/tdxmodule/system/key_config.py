"""TDH.SYS.KEY.CONFIG (leaf 31): a random key on each package (TDXM tdh_sys_key_config.c)."""

from __future__ import annotations

from seamref.arch.outcome import Fault
from seamref.arch.pconfig import RANDOM, PconfigStatus, pconfig
from seamref.arch.software import Ud2
from seamref.arch.structures import MKTME_KEY_PROGRAM
from seamref.spec import Check, CheckTable, implements
from seamref.tdxmodule.core import Answer, Call, leaf
from seamref.tdxmodule.status import SUCCESS, Operand, Result
from seamref.tdxmodule.structures import SysState
from seamref.tdxmodule.system.common import S, global_exclusive, ref

# --- TDH.SYS.KEY.CONFIG (31) ------------------------------------------------------------------------------------

_K = ref("tdh_sys_key_config.c")
KEY_CONFIG: CheckTable[Call, Answer] = CheckTable("TDH.SYS.KEY.CONFIG", (
    Check("SYS.KEY.CONFIG.lock", "GLOBAL_LOCK cannot be taken exclusively", global_exclusive, Answer(S.TDX_SYS_BUSY),
          _K),
    Check("SYS.KEY.CONFIG.state", "state is not SYSCONFIG_DONE", lambda c: c.state != SysState.SYSCONFIG_DONE,
          Answer(S.TDX_SYS_KEY_CONFIG_NOT_PENDING), _K),
    Check("SYS.KEY.CONFIG.configured", "this package has the key already",
          lambda c: bool(c.glob.num("pkg_config_bitmap") >> c.package & 1), Answer(S.TDX_KEY_CONFIGURED), _K),
), "TDH.SYS.KEY.CONFIG (leaf 31): conditions in order.")

KEYGEN: CheckTable[Call, Answer] = CheckTable("KEYGEN", (
    Check("KEYGEN.busy", "PCONFIG: the key table is busy", lambda c: c.found == PconfigStatus.DEVICE_BUSY,
          Answer(S.TDX_OPERAND_BUSY, Operand.KET), _K),
    Check("KEYGEN.entropy", "PCONFIG: no entropy", lambda c: c.found == PconfigStatus.ENTROPY_ERROR,
          Answer(S.TDX_KEY_GENERATION_FAILED), _K),
), "What PCONFIG answered when a random key was asked for; anything else is fatal.")


def random_key(c: Call, hkid: int) -> Result | None:
    """PCONFIG of a random key for a KeyID on this package: ``None`` is success."""
    c.lp.rax = c.lp.rbx = 0
    program = MKTME_KEY_PROGRAM.encode({"keyid": hkid, "keyid_ctrl": RANDOM | 1 << 8})
    answer: Fault | int | None = c.platform.take_injected("key_table")  # what a scenario makes PCONFIG answer
    if answer is None:
        answer = pconfig(c.platform, c.lp.id, program, busy=c.platform.take_injected("key_table_busy") is not None)
    if isinstance(answer, Fault):
        raise Ud2(f"PCONFIG: {answer}")
    c.found = int(answer)
    row = KEYGEN.decide(c)
    if row is None and answer != PconfigStatus.SUCCESS:
        raise Ud2(f"PCONFIG: status {int(answer)}")
    return None if row is None else row.result.result(c)


@implements("SYS.KEY.CONFIG.effect", "random key on this package; on the last package state = SYS_READY", _K)
def _key_config(c: Call) -> Result:
    """SYS.KEY.CONFIG.effect.  A failed PCONFIG leaves this package's bit clear: call again."""
    failed = random_key(c, c.glob.num("hkid"))
    if failed is not None:
        return failed
    c.glob.set("pkg_config_bitmap", c.glob.num("pkg_config_bitmap") | 1 << c.package)
    done = c.glob.num("num_init_pkgs") + 1
    c.glob.set("num_init_pkgs", done)
    if done == c.glob.num("num_pkgs"):
        c.glob.set("sys_state", SysState.SYS_READY)
    return SUCCESS


leaf(31, "TDH.SYS.KEY.CONFIG", "the global key on one package", stages=(KEY_CONFIG,), effects=(_key_config,),
     before_ready=True, inputs="none")
