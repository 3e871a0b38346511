"""The kernel's own state beside the platform: one frozen record, replaced as a whole.

A :class:`Host` is a platform and that record.  ``fork`` and ``fingerprint`` work as on the platform, so that whoever
explores interleavings can treat both as one state.  CPU numbers are Linux's: the boot processor is CPU 0, the others
follow in the order of the topology.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import blake2b
from typing import Any

from seamref.arch import msr
from seamref.arch.lp import CR4_VMXE, Lp
from seamref.arch.memory import Agent
from seamref.arch.outcome import Done, Fault
from seamref.arch.platform import NO_SEAMRET_INVD_VMCS, Platform
from seamref.arch.vmx import vmxoff, vmxon
from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import Errno
from seamref.host.log import LogLine
from seamref.host.records import Boot, Control, Cpu, HostState, having
from seamref.host.series import MERGED, KernelSeries
from seamref.spec import CHOSEN, MEASURED, Check, CheckTable, implements

PAGE = 4096
M32 = (1 << 32) - 1
HEAP_BASE, HEAP_END = 0x50000000, 0x7C000000
"""Where this kernel takes physical memory for its own objects (first fit, SEAMRR left out)."""


def has_tdx(host: Host) -> bool:
    """Whether this platform has TDX at all (X86_FEATURE_TDX_HOST_PLATFORM)."""
    return "tdx_host_platform" in host.state.features


class Host:
    """A platform and the kernel on it."""

    __slots__ = ("platform", "state")

    platform: Platform
    state: HostState

    def __init__(
        self, platform: Platform, series: KernelSeries = MERGED, *, preempt_rt: bool = False, boot: Boot | None = None
    ) -> None:
        ids = sorted(platform.lps, key=lambda id: (not platform.peek_lp(id).is_bsp, platform.lps.index(id)))
        cpus = tuple(
            Cpu(id, vmx_refs=int(platform.peek_lp(id).vmx_on), vmxon_region=_pointer(platform.peek_lp(id)))
            for id in ids
        )
        self.platform = platform
        self.state = HostState(series, cpus, preempt_rt=preempt_rt, boot=boot or Boot())
        tdx_init(self)

    # --- forking and comparing

    def fork(self) -> Host:
        """An independent copy of both."""
        other = object.__new__(type(self))
        other.platform = self.platform.fork()
        other.state = self.state
        return other

    def fingerprint(self, *, log: bool = True) -> bytes:
        """16 bytes, equal exactly when platform and kernel are in the same state (``log``: including dmesg)."""
        state = self.state if log else replace(self.state, dmesg=())
        return blake2b(self.platform.fingerprint() + repr(state).encode(), digest_size=16).digest()

    # --- changing the record

    def set(self, **changes: Any) -> None:
        """Replace fields of the record."""
        self.state = having(self.state, **changes)

    def cpu(self, number: int) -> Cpu:
        """One CPU's record."""
        try:
            return self.state.cpus[number]
        except IndexError:
            raise SeamrefError(f"no CPU {number}; this machine has {len(self.state.cpus)}") from None

    def set_cpu(self, number: int, **changes: Any) -> None:
        """Replace fields of one CPU's record."""
        cpus = self.state.cpus
        self.state = having(self.state, cpus=(*cpus[:number], having(cpus[number], **changes), *cpus[number + 1 :]))

    # --- the update under way: its lock-protected counters, each with the one thing that is done to it

    def control(self) -> Control:
        """What the workers of the update share."""
        held = self.state.update
        if held is None:
            raise SeamrefError("no update is under way")
        return held

    def set_control(self, **changes: Any) -> None:
        """Replace fields of it."""
        self.state = having(self.state, update=having(self.control(), **changes))

    def arrive(self, count: int) -> bool:
        """Acknowledge at a barrier for ``count`` workers; whether everybody has: which worker is the last to learn it
        is all that depends on the order."""
        acks = self.control().acks + 1
        self.set_control(acks=acks)
        return acks == count

    def returned(self, number: int, ret: Errno) -> None:
        """A worker's result."""
        self.set_control(rets=(*self.control().rets, (number, ret)))

    def lp(self, number: int) -> Lp:
        """The processor behind a CPU number."""
        return self.platform.lp(self.cpu(number).apicid)

    @property
    def series(self) -> KernelSeries:
        """Which version of the series this kernel carries."""
        return self.state.series

    @property
    def online(self) -> tuple[int, ...]:
        """cpu_online_mask as numbers."""
        return tuple(n for n, cpu in enumerate(self.state.cpus) if cpu.online)

    # --- the log

    def printk(self, prefix: str, text: str) -> None:
        """One line of the kernel log, without a time."""
        self.set(dmesg=(*self.state.dmesg, prefix + text))

    def log(self, line: LogLine, prefix: str | None = None, **values: object) -> None:
        """One of the declared lines, with its values; ``prefix``: the caller's own."""
        self.printk("", line.says(prefix, **values))

    def warn(self, line: LogLine, *, once: bool = False, **values: object) -> None:
        """WARN(): a line that starts WARNING, naming the function (the register dump is left out)."""
        if once and line.where in self.state.printed_once:
            return
        self.set(printed_once=self.state.printed_once | {line.where})
        self.printk("", line.says(None, **values))

    # --- memory

    def alloc(self, size: int) -> int:
        """Zeroed physical pages, page aligned; 0 when there is no room (an allocation failure)."""
        size = -(-size // PAGE) * PAGE
        seamrr = self.platform.seamrr()
        at = HEAP_BASE
        taken = sorted((*self.state.heap, *((tuple(seamrr),) if seamrr is not None else ())))
        for base, length in taken:
            if base + length <= at:
                continue
            if at + size <= base:
                break
            at = base + length
        if at + size > HEAP_END:
            return 0
        self.set(heap=tuple(sorted((*self.state.heap, (at, size)))))
        self.platform.zero(Agent.HOST, at, size)
        return at

    def free(self, at: int) -> None:
        """Give pages back."""
        kept = tuple(block for block in self.state.heap if block[0] != at)
        if len(kept) == len(self.state.heap):
            raise SeamrefError(f"free of 0x{at:X}, which is not allocated")
        self.set(heap=kept)

    def write(self, at: int, data: bytes | bytearray) -> None:
        """Store as the kernel."""
        fault = self.platform.store(Agent.HOST, at, data)
        if fault is not None:
            raise SeamrefError(f"the kernel storing at 0x{at:X}: {fault}")

    def read(self, at: int, size: int) -> bytes:
        """Load as the kernel."""
        data = self.platform.load(Agent.HOST, at, size)
        if isinstance(data, Fault):
            raise SeamrefError(f"the kernel loading at 0x{at:X}: {data}")
        return data


def _pointer(lp: Lp) -> int:
    return lp.vmxon_ptr if lp.vmx_on else 0


@dataclass(frozen=True, slots=True)
class Early:
    """What tdx_init looks at: MSR 87H (``None``: reading it faults), MSR 480H, and how the kernel was built."""

    keyid_partitioning: int | None
    vmx_basic: int
    boot: Boot

    @property
    def keyids(self) -> tuple[int, int]:
        """First TDX KeyID and how many there are: 32-bit numbers; MSR 87H counts MKTME's in its low half."""
        value = self.keyid_partitioning or 0
        return (value & M32) + 1 & M32, value >> 32


_TDX_INIT = "LNX tdx.c tdx_init"

TDX_INIT: CheckTable[Early, LogLine | None] = CheckTable("tdx_init", (
    Check("TDX_INIT.msr", "MSR 87H cannot be read: no TDX, nothing printed", lambda e: e.keyid_partitioning is None,
          None, _TDX_INIT, MEASURED),
    Check("TDX_INIT.none", "there is no TDX KeyID: no TDX, nothing printed", lambda e: e.keyids[1] == 0,
          None, _TDX_INIT, MEASURED),
    Check("TDX_INIT.few", "there is one TDX KeyID: it would be the global one, none is left for a TD",
          lambda e: e.keyids[1] < 2, log.FEW_KEYIDS, _TDX_INIT, MEASURED),
    Check("TDX_INIT.hibernation", "hibernation is available: it would not save the memory of TDs",
          lambda e: e.boot.hibernation, log.HIBERNATION, _TDX_INIT, MEASURED),
), "Why a kernel has no TDX at all, asked at early boot; the result is the line that says so.")


@implements("LNX.tdx_init", "KeyID partitioning says whether the platform has TDX; ACPI S3 goes; IA32_VMX_BASIC[60] = "
            "0 sets the bug bit, at the very end", _TDX_INIT, MEASURED)
def tdx_init(host: Host, early: Early | None = None) -> None:
    """LNX.tdx_init: feature and bug bits, and the lines; ``early``: readings other than this machine's."""
    if early is None:
        first = host.platform.peek_lp(host.state.cpus[0].apicid)
        early = Early(host.platform.msr_value(first, msr.KEYID_PARTITIONING),
                      host.platform.msr_value(first, msr.VMX_BASIC), host.state.boot)
    start, count = early.keyids
    row = TDX_INIT.decide(early)
    if count:
        host.log(log.KEYIDS, first=start, end=start + count & M32)
    host.set(features=frozenset(), bugs=frozenset(), keyids=(start, count))
    if row is not None:
        if row.result:
            host.log(row.result)
        return
    if early.boot.acpi_s3:
        host.log(log.ACPI_S3)
    host.set(
        features=frozenset({"tdx_host_platform"}),
        bugs=frozenset() if early.vmx_basic & NO_SEAMRET_INVD_VMCS else frozenset({"seamret_invd_vmcs"}),
    )


# --- VMX operation ------------------------------------------------------------------------------------------


@implements("LNX.vmx_get", "the first user of VMX on a CPU executes VMXON", "LNX tdx.c CPU online callback")
def vmx_get(host: Host, cpu: int) -> Errno:
    """LNX.vmx_get: take a VMX reference; VMXON when it is the first.  -EIO when VMXON is refused."""
    record = host.cpu(cpu)
    if record.vmx_refs == 0 and host.state.script is not None and host.state.script.vmxon is not None:
        return host.state.script.vmxon
    if record.vmx_refs == 0:
        lp = host.lp(cpu)
        region = record.vmxon_region or host.alloc(PAGE)
        host.write(region, (host.platform.msr_value(lp, msr.VMX_BASIC) & 0x7FFFFFFF).to_bytes(4, "little"))
        lp.cr4 |= CR4_VMXE
        if not isinstance(vmxon(host.platform, lp.id, region), Done):
            return Errno.EIO
        host.set_cpu(cpu, vmxon_region=region)
    host.set_cpu(cpu, vmx_refs=host.cpu(cpu).vmx_refs + 1)
    return Errno.OK


@implements("LNX.vmx_put", "the last user of VMX on a CPU executes VMXOFF", "LNX tdx.c CPU offline callback")
def vmx_put(host: Host, cpu: int) -> None:
    """LNX.vmx_put: drop a VMX reference; VMXOFF when it was the last."""
    refs = host.cpu(cpu).vmx_refs
    if refs == 0:
        raise SeamrefError(f"CPU {cpu} has no VMX reference to drop")
    if refs == 1:
        vmxoff(host.platform, host.cpu(cpu).apicid)
        host.lp(cpu).cr4 &= ~CR4_VMXE
        host.set_cpu(cpu, vmcs=0)
    host.set_cpu(cpu, vmx_refs=refs - 1)


@implements("LNX.kvm_vmcs", "KVM keeps a VMCS current while a vCPU is loaded and remembers which", "LNX kvm vmx.c",
            CHOSEN)
def kvm_load(host: Host, cpu: int) -> None:
    """LNX.kvm_vmcs: make a vCPU's VMCS current on a CPU, as KVM does when it loads a vCPU."""
    from seamref.arch.vmx import vmclear, vmptrld

    lp = host.lp(cpu)
    at = host.cpu(cpu).vmcs or host.alloc(PAGE)
    host.write(at, (host.platform.msr_value(lp, msr.VMX_BASIC) & 0x7FFFFFFF).to_bytes(4, "little"))
    vmclear(host.platform, lp.id, at)
    if not isinstance(vmptrld(host.platform, lp.id, at), Done):
        raise SeamrefError(f"CPU {cpu}: VMPTRLD of 0x{at:X} refused; is it in VMX operation?")
    host.set_cpu(cpu, vmcs=at)


def kvm_lost_vmcs(host: Host, cpu: int) -> bool:
    """Whether KVM believes in a current VMCS that the processor no longer has."""
    return host.cpu(cpu).vmcs != 0 and host.lp(cpu).current_vmcs != host.cpu(cpu).vmcs
