"""Looking at the module's memory from outside the machine.

Nobody in the machine can do this: it reads and writes DRAM as the processor itself would, past every access rule.
Chapters print with it what a step left behind, tests check and break single bytes; the module never uses it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.arch.structures import SYS_INFO_TABLE
from seamref.errors import SeamrefError
from seamref.layout import Record
from seamref.tdxmodule.core import View, handoff_bytes, region_lps
from seamref.tdxmodule.structures import (
    GLOBAL_DATA,
    HANDOFF_HEADER,
    LOCAL_DATA,
    PAGE,
    PAMT_ENTRY,
    TDCS,
    TDR,
    TDVPS,
    Lifecycle,
    OpState,
    PageType,
    SysState,
    VcpuState,
)

if TYPE_CHECKING:
    from collections.abc import Iterator


class Dram:
    """Memory as the processor sees it, whatever the address rules say; KeyID bits count."""

    __slots__ = ("platform",)

    def __init__(self, platform: Platform) -> None:
        self.platform = platform

    def read(self, address: int, size: int) -> bytes:
        """``size`` bytes at a physical address."""
        return self.platform.bytes_at(Agent.CPU, address, size)

    def write(self, address: int, data: bytes) -> None:
        """Bytes to a physical address."""
        self.platform.store(Agent.CPU, address, data)

    def add(self, address: int, value: int, size: int, tells: int = 0) -> int:
        """LOCK XADD."""
        old = self.platform.add(Agent.CPU, address, value, size, tells=tells)
        if not isinstance(old, int):
            raise SeamrefError(f"adding at 0x{address:X}: {old}")
        return old


class Look:
    """The structures of the module that is installed on a platform, by physical address."""

    def __init__(self, platform: Platform) -> None:
        seamrr = platform.seamrr()
        if seamrr is None:
            raise SeamrefError("SEAMRR is not valid: there is no module to look at")
        self.platform = platform
        self.dram = Dram(platform)
        self.table = View(SYS_INFO_TABLE, self.dram, seamrr.base)
        self.n = region_lps(self.table)
        self.data = seamrr.base + PAGE + self.n * PAGE
        code = platform.p_seamldr_range.base - 0x200000 if platform.p_seamldr_range else 0
        self.code = code

    @property
    def build(self) -> Record:
        """Build constants of the installed image, found through the transfer VMCS's host RIP."""
        from seamref.arch.vmcs import get
        from seamref.tdxmodule.build import read_build

        vmcs = self.dram.read(self.table.base + PAGE, PAGE)
        at = self.code + get(vmcs, "host_rip") - self.table.num("code_rgn_base")
        return read_build(self.platform, self.dram.read, at)

    @property
    def handoff_size(self) -> int:
        """Bytes in front of the processor blocks."""
        return handoff_bytes(self.table, self.build)

    @property
    def handoff(self) -> View:
        """The handoff header."""
        return View(HANDOFF_HEADER, self.dram, self.data)

    @property
    def local_size(self) -> int:
        """Bytes of one processor's block."""
        return (self.table.num("num_tls_pages") + 1) * PAGE

    def local(self, lp_id: int) -> View:
        """A processor's local data."""
        return View(LOCAL_DATA, self.dram, self.data + self.handoff_size + lp_id * self.local_size)

    @property
    def glob(self) -> View:
        """Global data."""
        return View(GLOBAL_DATA, self.dram, self.data + self.handoff_size + self.n * self.local_size)

    @property
    def state(self) -> SysState:
        """The global lifecycle state."""
        return SysState(self.glob.num("sys_state"))

    def tdr(self, pa: int) -> View:
        """A TDR page."""
        return View(TDR, self.dram, self.platform.with_keyid(pa, self.glob.num("hkid")))

    def tdcs(self, tdr_pa: int) -> View:
        """A TD's control structure."""
        tdr = self.tdr(tdr_pa)
        return View(TDCS, self.dram, tdr.num("tdcx_pa[0]"))

    def tdvps(self, tdvpr: int, tdr_pa: int) -> View:
        """A vCPU."""
        return View(TDVPS, self.dram, self.platform.with_keyid(tdvpr, self.tdr(tdr_pa).num("hkid")))

    def pamt(self, pa: int) -> View:
        """The PAMT entry of a page in the first TDMR that holds it."""
        for i in range(self.glob.num("num_tdmrs")):
            base = self.glob.num(f"tdmrs[{i}].base")
            if base <= pa < base + self.glob.num(f"tdmrs[{i}].size"):
                at = self.glob.num(f"tdmrs[{i}].pamt_4k_base") + (pa - base >> 12) * PAMT_ENTRY.size
                return View(PAMT_ENTRY, self.dram, self.platform.with_keyid(at, self.glob.num("hkid")))
        raise SeamrefError(f"no TDMR holds 0x{pa:X}")

    def owned(self, tdr_pa: int) -> Iterator[int]:
        """Pages whose PAMT entry names this TDR, or that are it, ascending."""
        for i in range(self.glob.num("num_tdmrs")):
            base = self.glob.num(f"tdmrs[{i}].base")
            at = self.platform.with_keyid(self.glob.num(f"tdmrs[{i}].pamt_4k_base"), self.glob.num("hkid"))
            count = self.glob.num(f"tdmrs[{i}].size") >> 12
            for chunk in range(0, count, 256):
                data = self.dram.read(at + 16 * chunk, 16 * 256)
                if any(data):
                    for k in range(256):
                        entry = PAMT_ENTRY.decode(data, 16 * k)
                        page = base + (chunk + k << 12)
                        if entry.type not in (PageType.NDA, PageType.RSVD) and (
                            page == tdr_pa or int.from_bytes(entry.owner, "little") << 12 == tdr_pa
                        ):
                            yield page


def td_facts(platform: Platform, tdr_pa: int) -> dict[str, Any]:
    """Everything about a TD that an update has to preserve, as plain values (host state of TD VMCSs excepted)."""
    look = Look(platform)
    tdr = look.tdr(tdr_pa)
    hkid = tdr.num("hkid")
    facts: dict[str, Any] = {
        "lifecycle": Lifecycle(tdr.num("lifecycle")).name, "fatal": tdr.num("fatal"), "hkid": hkid,
        "tdr": tdr.space.read(tdr.base, PAGE),
        "kot": look.glob.raw(f"kot[{hkid}]"),
        "keys": sorted((k, v) for k, v in platform.key_table.items() if k[1] == hkid),
    }
    if tdr.num("num_tdcx"):
        tdcs = look.tdcs(tdr_pa)
        facts["op_state"] = OpState(tdcs.num("op_state")).name
        facts["mrtd"], facts["rtmr"] = tdcs.raw("mrtd"), [tdcs.raw(f"rtmr[{i}]") for i in range(4)]
    pages: dict[int, tuple[str, bytes]] = {}
    for page in look.owned(tdr_pa):
        kind = PageType(look.pamt(page).num("type"))
        if kind in (PageType.REG, PageType.EPT, PageType.TDCX):
            pages[page] = (kind.name, look.dram.read(platform.with_keyid(page, hkid), PAGE))
        elif kind is PageType.TDVPR:
            vcpu = look.tdvps(page, tdr_pa)
            facts[f"vcpu {vcpu.num('index')}"] = (
                VcpuState(vcpu.num("state")).name, vcpu.num("assoc_lpid"), vcpu.raw("gprs"), vcpu.num("launched"),
            )
            pages[page] = (kind.name, b"")
    facts["pages"] = pages
    return facts


def visible_to_host(
    platform: Platform, secret: bytes, agents: tuple[Agent, ...] = (Agent.HOST, Agent.DMA), quick: bool = False
) -> list[int]:
    """Physical addresses at which somebody outside SEAM reads ``secret``, with any KeyID it may use.

    ``quick`` looks only at pages whose decrypted bytes hold the secret at all.
    """
    found: set[int] = set()
    shared = 1 << platform.keyid_bits - platform.tdx_keyid_bits
    for at, decrypted in platform.store_.pages():
        if quick and secret not in decrypted:
            continue
        for agent in agents:
            for keyid in (0, 1, shared - 1):
                data = platform.load(agent, platform.with_keyid(at, keyid), PAGE)
                if isinstance(data, bytes) and secret in data:
                    found.add(at)
    return sorted(found)
