"""P-SEAMLDR's persistent data, byte for byte, in the data region of P_SEAMLDR_RANGE.

One area serves all logical processors.  Nothing of P-SEAMLDR lives anywhere else between two calls.
"""

from __future__ import annotations

from struct import Struct
from typing import TYPE_CHECKING

from seamref.arch.lp import GPRS, Lp
from seamref.arch.msr import SEAMEXTEND_MSR, rdmsr, wrmsr
from seamref.arch.outcome import Done, Fault
from seamref.arch.seamops import SeamopsLeaf, seamops
from seamref.arch.software import MemoryFault, Port, Ud2
from seamref.arch.structures import P_SYS_INFO_TABLE, SEAMEXTEND
from seamref.arch.trace import Computed, Step
from seamref.arch.vmx import vmread, vmwrite
from seamref.errors import SeamrefError
from seamref.layout import Array, Field, Layout, Raw, reserved, u8, u32, u64
from seamref.pseamldr.api import COMPONENT
from seamref.pseamldr.build import Build
from seamref.spec import MEASURED, implements

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

SYSTEM_INFO = Layout(
    "SYSTEM_INFO",
    (
        Field("initialized", u8, "1: the values below are computed", 0),
        Field("max_pa", u64, "physical-address width", 1),
        Field("seamrr_base", u64, "", 9),
        Field("seamrr_size", u64, "bytes", 17),
        Field("hkid_mask", u64, "KeyID bits of a physical address", 25),
        Field("private_hkid_min", u64, "first KeyID that is not shared", 33),
    ),
    size=41,
    source="PSL src/common/data_structures/pseamldr_data.h",
    doc="System values, computed on the first call.",
)

P_SEAMLDR_DATA = Layout(
    "P_SEAMLDR_DATA",
    (
        reserved("reserved_0", 40, 0, checked=False),
        Field("canary", u64, "stack protector; 0: not drawn yet", 40),
        Field("gprs", Array(u64, 16), "caller's RAX, RCX, RDX, RBX, RSP, RBP, RSI, RDI, R8..R15", 48),
        Field("spec_ctrl", u64, "caller's IA32_SPEC_CTRL", 176),
        Field("system_info", SYSTEM_INFO, "", 184),
        reserved("reserved_1", 1823, 225, checked=False),
        Field("seam_sigstruct_snapshot", Raw(2048), "sigstruct of the last INSTALL that came so far", 2048),
        Field("seamextend_snapshot", SEAMEXTEND, "the register when the session began", 4096),
        reserved("reserved_2", 120, 4232, checked=False),
        Field("seamextend_buffer", SEAMEXTEND, "what IA32_SEAMEXTEND copies to and from; 256-byte aligned", 4352),
        Field("update_bitmap", Raw(128), "processors that called INSTALL in this session", 4488),
        Field("lps_in_update", u32, "how many", 4616),
        Field("shutdown_bitmap", Raw(128), "processors that called SHUTDOWN", 4620),
        Field("lps_in_shutdown", u32, "how many", 4748),
        Field("last_interrupted_lp", u32, "not used", 4752),
        reserved("reserved_3", 4, 4756, checked=False),
        Field("module_range_initialized", u8, "1: this loader has set up the module range", 4760),
        reserved("reserved_4", 3, 4761, checked=False),
        Field("num_remaining_updates", u32, "entries left in SEAMDB as far as known", 4764),
        Field("keyhole_state", Raw(9732), "cache of P-SEAMLDR's own keyholes; no leaf's result depends on it, and it "
              "is not modelled", 4768),
        reserved("reserved_5", 4, 14500, checked=False),
        Field("data_pointer", u64, "linear address of this area; 0 before the first call", 14504),
        Field("sysinfo_pointer", u64, "linear address of P_SYS_INFO_TABLE", 14512),
        Field("rsa_scratch", Raw(8192), "scratch of the crypto library; its contents are not modelled", 14520),
        reserved("reserved_6", 1864, 22712, checked=False),
    ),
    size=0x6000,
    source="PSL src/common/data_structures/pseamldr_data.h",
    doc="All persistent state of P-SEAMLDR, at GSBASE.",
)

_INT = {1: Struct("<B"), 2: Struct("<H"), 4: Struct("<I"), 8: Struct("<Q")}
_AT = {field.name: (P_SEAMLDR_DATA.offset_of(field.name), field.type.size) for field in P_SEAMLDR_DATA.fields}
_GPRS = Struct("<16Q")
_GPR_AT = {name: _AT["gprs"][0] + 8 * index for index, name in enumerate(GPRS)}
_SYSTEM = Struct("<B5Q")
_READY = SEAMEXTEND.offset_of("seam_ready")
_PSI = {
    name: (P_SYS_INFO_TABLE.offset_of(name), P_SYS_INFO_TABLE.field(name).type.size)
    for name in (
        "tot_num_lps", "tot_num_sockets", "p_seamldr_range_base", "p_seamldr_range_size", "code_rgn_size",
        "data_rgn_size",
        "stack_rgn_size", "module_region_base", "acm_x2apicid",
    )
}
SOCKET_CPUID_TABLE = P_SYS_INFO_TABLE.offset_of("socket_cpuid_table")


@implements("DATA.physical", "data VA to PA: P_SEAMLDR_RANGE end - (4096 + code + stack + data region) + offset",
            "PSL src/common/helpers/helpers.c", MEASURED)
def data_physical(sysinfo: SysInfo) -> int:
    """DATA.physical: physical address of the data area."""
    size = 4096 + sysinfo["code_rgn_size"] + sysinfo["stack_rgn_size"] + sysinfo["data_rgn_size"]
    return sysinfo["p_seamldr_range_base"] + sysinfo["p_seamldr_range_size"] - size


class SysInfo:
    """P_SYS_INFO_TABLE as P-SEAMLDR reads it; it maps the page read-only."""

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data

    def __getitem__(self, name: str) -> int:
        at, size = _PSI[name]
        return int.from_bytes(self.data[at : at + size], "little")

    def socket_cpuid(self, socket: int) -> int:
        """Entry of socket_cpuid_table; the index is not bounded to the table's 8."""
        at = SOCKET_CPUID_TABLE + 4 * socket
        return int.from_bytes(self.data[at : at + 4], "little")

    def socket_cpuids(self) -> tuple[int, ...]:
        """The entries of all tot_num_sockets sockets."""
        count = min(self["tot_num_sockets"], (len(self.data) - SOCKET_CPUID_TABLE) // 4)
        return tuple(self.socket_cpuid(i) for i in range(count))


class Call(Port):
    """One stay in P-SEAMLDR: memory as its agent sees it, the processor it runs on, the build, and its data area.

    Integer fields of the data area are read and written by name; every access goes through the platform's physical
    memory.  What hardware refuses to software in SEAM is fatal there.
    """

    __slots__ = ("_base", "_sysinfo", "build")

    def __init__(self, platform: Platform, lp: Lp, build: Build) -> None:
        super().__init__(platform, lp)
        self.build = build
        self._sysinfo: SysInfo | None = None
        self._base = 0

    @property
    def sysinfo(self) -> SysInfo:
        """P_SYS_INFO_TABLE: the last page of P_SEAMLDR_RANGE."""
        if self._sysinfo is None:
            held = self.platform.p_seamldr_range
            if held is None:
                raise SeamrefError("P-SEAMLDR runs on a platform without P_SEAMLDR_RANGE")
            self._sysinfo = SysInfo(self.read(held.end - P_SYS_INFO_TABLE.size, P_SYS_INFO_TABLE.size))
        return self._sysinfo

    @property
    def base(self) -> int:
        """Physical address of the data area."""
        if not self._base:
            self._base = data_physical(self.sysinfo)
        return self._base

    # --- what it tells whoever watches

    def did(self, step: str) -> None:
        """A step was taken."""
        if self.platform.listeners:
            self.platform.emit(Step(self.lp.id, COMPONENT, step))

    def computed(self, name: str, value: object) -> None:
        """A value was found that lies in no register and no memory."""
        if self.platform.listeners:
            self.platform.emit(Computed(self.lp.id, COMPONENT, name, value))

    # --- fields of the data area

    def get(self, name: str) -> int:
        """An integer field of P_SEAMLDR_DATA."""
        at, size = _AT[name]
        return int.from_bytes(self.read(self.base + at, size), "little")

    def put(self, name: str, value: int) -> None:
        """Replace an integer field."""
        at, size = _AT[name]
        self.write(self.base + at, value.to_bytes(size, "little"))

    def get_bytes(self, name: str) -> bytes:
        """A field of P_SEAMLDR_DATA as bytes."""
        at, size = _AT[name]
        return self.read(self.base + at, size)

    def put_bytes(self, name: str, data: bytes | bytearray) -> None:
        """Replace a field."""
        at, size = _AT[name]
        assert len(data) == size
        self.write(self.base + at, data)

    def test_and_set(self, bitmap: str, bit: int) -> bool:
        """BTS: set a bit of a bitmap field; whether it was set before."""
        at = self.base + _AT[bitmap][0] + bit // 8
        byte = self.read(at, 1)[0]
        self.write(at, bytes((byte | 1 << bit % 8,)))
        return bool(byte >> bit % 8 & 1)

    def save_gprs(self) -> None:
        """Keep the caller's registers, then zero all but RSP."""
        lp = self.lp
        self.write(self.base + _AT["gprs"][0], _GPRS.pack(*(getattr(lp, name) for name in GPRS)))
        for name in GPRS:
            if name != "rsp":
                setattr(lp, name, 0)

    def load_gprs(self) -> None:
        """Reload all 16 registers."""
        for name, value in zip(GPRS, _GPRS.unpack(self.get_bytes("gprs")), strict=True):
            setattr(self.lp, name, value)

    def saved(self, register: str) -> int:
        """A register of the caller."""
        return self.read_int(self.base + _GPR_AT[register])

    def give(self, register: str, value: int) -> None:
        """What the caller will find in a register."""
        self.write_int(self.base + _GPR_AT[register], value)

    # --- the SEAMEXTEND register

    def read_SEAMEXTEND(self) -> bytes:
        """The register, by way of the buffer."""
        at = self.base + _AT["seamextend_buffer"][0]
        self.wrmsr(SEAMEXTEND_MSR, at | 1)
        return self.read(at, SEAMEXTEND.size)

    def write_SEAMEXTEND(self, value: bytes | bytearray) -> None:
        """Replace the register, by way of the buffer."""
        at = self.base + _AT["seamextend_buffer"][0]
        self.write(at, value)
        self.wrmsr(SEAMEXTEND_MSR, at)

    def block_module(self) -> None:
        """Keep the register in the snapshot and clear its seam_ready: no SEAMCALL enters the module any more."""
        register = self.read_SEAMEXTEND()
        self.put_bytes("seamextend_snapshot", register)
        self.write_SEAMEXTEND(register[:_READY] + b"\0" + register[_READY + 1 :])

    # --- instructions whose failure is fatal here

    def rdmsr(self, address: int) -> int:
        """RDMSR."""
        value = rdmsr(self.platform, self.lp.id, address)
        if isinstance(value, Fault):
            raise MemoryFault(value, address, False)
        return value

    def wrmsr(self, address: int, value: int) -> None:
        """WRMSR."""
        outcome = wrmsr(self.platform, self.lp.id, address, value)
        if isinstance(outcome, Fault):
            raise MemoryFault(outcome, address, True)

    def vmread(self, encoding: int) -> int:
        """VMREAD of the transfer VMCS; a failure is fatal (source F006H, code: the encoding)."""
        value = vmread(self.platform, self.lp.id, encoding)
        if not isinstance(value, int):
            raise Ud2(f"VMREAD of 0x{encoding:X}: {value}")
        return value

    def vmwrite(self, encoding: int, value: int) -> None:
        """VMWRITE to the transfer VMCS; a failure is fatal."""
        outcome = vmwrite(self.platform, self.lp.id, encoding, value)
        if not isinstance(outcome, Done):
            raise Ud2(f"VMWRITE of 0x{encoding:X}: {outcome}")

    def seamops(self, leaf: SeamopsLeaf) -> int:
        """SEAMOPS with a leaf; its status in RAX."""
        self.lp.rax = int(leaf)
        outcome = seamops(self.platform, self.lp.id)
        if isinstance(outcome, Fault):
            raise MemoryFault(outcome, 0, False)
        return self.lp.rax

    def system_info(self) -> tuple[int, int, int, int, int, int]:
        """initialized, max_pa, seamrr_base, seamrr_size, hkid_mask, private_hkid_min."""
        found: tuple[int, int, int, int, int, int] = _SYSTEM.unpack(self.get_bytes("system_info"))
        return found

    def put_system_info(self, *values: int) -> None:
        """Store the six values of SYSTEM_INFO."""
        self.put_bytes("system_info", _SYSTEM.pack(*values))
