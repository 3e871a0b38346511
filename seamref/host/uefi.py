"""Cold installation before the kernel: Intel's UEFI loader application, on the same platform.

The firmware has launched P-SEAMLDR; the application reads TDX-BLOB from a file system and calls SEAMLDR.INSTALL
(scenario 0, load) on every enabled processor, one after another, the boot processor last.  It never calls
SEAMLDR.INFO, never retries, and tells its caller EFI_SUCCESS whatever happened.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum

from seamref.arch import msr
from seamref.arch.lp import CR4_VMXE
from seamref.arch.memory import Agent
from seamref.arch.outcome import Done, Fault, Shutdown
from seamref.arch.platform import Platform
from seamref.arch.software import call
from seamref.arch.vmx import vmxoff, vmxon
from seamref.errors import SeamrefError
from seamref.host.abi import MODULE_MAX_PAGES, SCENARIO_LOAD, SEAMLDR_PARAMS, Leaf
from seamref.host.image import MAGIC, TDX_BLOB_V1, checksum
from seamref.spec import Check, CheckTable, clause, implements

PAGE = 4096
M64 = (1 << 64) - 1
POOL = 0x30000000
"""Where this firmware's page allocator begins."""
FILE_NAME = "TDX-BLOB"
_SRC = "UEFI UEFIReferenceAppPkg/TdxModuleLoader"


class Efi(Enum):
    """EFI_STATUS values that occur here."""

    SUCCESS = "EFI_SUCCESS"
    INVALID_PARAMETER = "EFI_INVALID_PARAMETER"
    NOT_STARTED = "EFI_NOT_STARTED"
    NOT_FOUND = "EFI_NOT_FOUND"
    DEVICE_ERROR = "EFI_DEVICE_ERROR"
    BAD_BUFFER_SIZE = "EFI_BAD_BUFFER_SIZE"
    TIMEOUT = "EFI_TIMEOUT"


@dataclass(frozen=True, slots=True)
class Firmware:
    """What UEFI offers the application.

    ``volumes``      simple file systems in the order of their handles: path -> bytes
    ``folder``       where the application was started from, on whichever volume
    ``disabled``     x2APIC ids of processors that firmware has disabled
    ``start_status`` what StartupThisAP answers for an id, where it is not success
    ``hypervisor``   CPUID.1:ECX[31]
    """

    volumes: tuple[Mapping[str, bytes], ...]
    folder: str = "\\EFI\\TDX"
    disabled: frozenset[int] = frozenset()
    start_status: Mapping[int, Efi] = field(default_factory=dict)
    hypervisor: bool = False


@dataclass(frozen=True, slots=True)
class ProcessorResult:
    """One processor's part: what it was asked, and what it left in its result slot (0: success)."""

    apicid: int
    did: str
    result: int


@dataclass(frozen=True, slots=True)
class LoaderRun:
    """What the application did.

    ``returned``   to its caller: always EFI_SUCCESS
    ``installed``  what it believes and prints
    ``crashed``    an exception that firmware's handler does not survive
    """

    returned: Efi
    installed: bool
    printed: tuple[str, ...]
    walk: tuple[ProcessorResult, ...] = ()
    crashed: str = ""


@dataclass(frozen=True, slots=True)
class UefiImage:
    """The file as the application reads it: sizes are unsigned and wrap."""

    data: bytes

    @property
    def offset(self) -> int:
        value: int = TDX_BLOB_V1.peek(self.data, "offset_of_module")
        return value

    @property
    def module_size(self) -> int:
        return (len(self.data) - self.offset) & M64

    @property
    def module_pages(self) -> int:
        return -(-self.module_size // PAGE)

    @property
    def sigstruct_size(self) -> int:
        return (self.offset - PAGE) & M64


UEFI_IMAGE: CheckTable[UefiImage, Efi] = CheckTable("UEFI_IMAGE", (
    Check("UEFI.length", "length is not the size of the file",
          lambda c: TDX_BLOB_V1.peek(c.data, "length") != len(c.data), Efi.INVALID_PARAMETER, _SRC),
    Check("UEFI.signature", "the signature is not TDX-BLOB",
          lambda c: c.data[TDX_BLOB_V1.span("signature")] != MAGIC, Efi.INVALID_PARAMETER, _SRC),
    Check("UEFI.module", "the module has no bytes", lambda c: c.module_size == 0, Efi.INVALID_PARAMETER, _SRC),
    Check("UEFI.module_pages", "more than 496 pages (an offset beyond the file wraps to this)",
          lambda c: c.module_size > MODULE_MAX_PAGES * PAGE, Efi.INVALID_PARAMETER, _SRC),
    Check("UEFI.sigstruct", "the sigstruct area is not exactly one page (an offset below 4096 wraps to this)",
          lambda c: c.sigstruct_size != PAGE, Efi.INVALID_PARAMETER, _SRC),
    Check("UEFI.checksum", "the 16-bit words do not sum to 0", lambda c: checksum(c.data) != 0,
          Efi.INVALID_PARAMETER, _SRC),
), "The application's checks of the file; version and reserved bytes are not looked at.")

clause("UEFI.walk", "APs one after another, the boot processor last; a failing one does not stop the walk", _SRC)
clause("UEFI.vmx", "CR0 and CR4 made to fit FIXED0 and FIXED1, VMXON, SEAMCALL, VMXOFF, CR4.VMXE cleared",
       _SRC)
clause("UEFI.rax", "RAX only is looked at; after VMfailInvalid it still holds the leaf, which is not zero", _SRC)


class _Crash(Exception):
    """An exception in firmware: its default handler halts."""


@implements("UEFI.find", "TDX-BLOB is looked for on every file system in order, not only on the boot volume", _SRC)
def find_file(firmware: Firmware) -> bytes | None:
    """UEFI.find: the first volume that has the path wins."""
    path = f"{firmware.folder}\\{FILE_NAME}"
    return next((volume[path] for volume in firmware.volumes if path in volume), None)


def run(platform: Platform, firmware: Firmware) -> LoaderRun:
    """The application from start to end."""
    printed: list[str] = []

    def ended(installed: bool, walk: tuple[ProcessorResult, ...] = (), crashed: str = "") -> LoaderRun:
        printed.append("TDX module installed" if installed else "TDX module not installed")
        return LoaderRun(Efi.SUCCESS, installed, tuple(printed), walk, crashed)

    if firmware.hypervisor:
        return LoaderRun(Efi.SUCCESS, False, ("running in a virtual machine: nothing to do",))
    data = find_file(firmware)
    if data is None:
        printed.append(f"{FILE_NAME}: {Efi.NOT_FOUND.value}")
        return ended(False)
    if len(data) < PAGE:
        printed.append(f"{FILE_NAME}: {len(data)} bytes, shorter than its header")
        return ended(False)
    row = UEFI_IMAGE.decide(UefiImage(data))
    if row is not None:
        printed.append(f"{FILE_NAME}: {row.says} ({row.result.value})")
        return ended(False)
    params = build_params(platform, data)
    try:
        walk, error = _walk(platform, firmware, params)
    except _Crash as crash:
        return LoaderRun(Efi.SUCCESS, False, (*printed, f"!!!! {crash} !!!!"), (), str(crash))
    printed += [f"processor {r.apicid}: {r.did}" for r in walk if r.result]
    if error is not Efi.SUCCESS:
        printed.append(f"the walk ended early: {error.value}")
    return ended(error is Efi.SUCCESS and not any(r.result for r in walk), walk)


@implements("UEFI.params", "version 0, scenario 0, addresses of the file's own pages (identity mapped)", _SRC)
def build_params(platform: Platform, data: bytes) -> int:
    """UEFI.params: the file at page-aligned memory, SEAMLDR_PARAMS behind it; its physical address."""
    padded = data + bytes(-len(data) % PAGE)
    image = UefiImage(data)
    listed = [POOL + image.offset + PAGE * i for i in range(image.module_pages)]
    page = SEAMLDR_PARAMS.encode({
        "scenario": SCENARIO_LOAD,
        "sigstruct_paddr": POOL + PAGE,
        "num_module_pages": image.module_pages,
        "module_pages_pa_list": listed + [0] * (MODULE_MAX_PAGES - len(listed)),
    })
    at = POOL + len(padded)
    for where, content in ((POOL, padded), (at, page)):
        if platform.store(Agent.HOST, where, content) is not None:
            raise SeamrefError(f"firmware memory at 0x{where:X} cannot be written")
    return at


@implements("UEFI.topology", "the enabled processors, application processors in order, the boot processor last", _SRC)
def order(platform: Platform, firmware: Firmware) -> tuple[int, ...]:
    """UEFI.topology: x2APIC ids in the order of the walk."""
    enabled = [lp for lp in platform.lps if lp not in firmware.disabled]
    boot = [lp for lp in enabled if platform.peek_lp(lp).is_bsp]
    return (*(lp for lp in enabled if lp not in boot), *boot)


@implements("UEFI.walk")
def _walk(platform: Platform, firmware: Firmware, params: int) -> tuple[tuple[ProcessorResult, ...], Efi]:
    """UEFI.walk: EFI_NOT_STARTED is skipped with result 0; any other start error ends the walk half way."""
    results: list[ProcessorResult] = []
    for lp in order(platform, firmware):
        status = firmware.start_status.get(lp, Efi.SUCCESS)
        if status is Efi.NOT_STARTED:
            results.append(ProcessorResult(lp, "not started: skipped, counts as success", 0))
            continue
        if status is not Efi.SUCCESS:
            return tuple(results), status
        results.append(_install_on(platform, lp, params))
    return tuple(results), Efi.SUCCESS


def _install_on(platform: Platform, lp_id: int, params: int) -> ProcessorResult:
    """One processor's part, all at once."""
    refused = enter_vmx(platform, lp_id)
    if refused is not None:
        return refused
    outcome = call(platform, lp_id, rax=int(Leaf.SEAMLDR_INSTALL), rcx=params)
    if isinstance(outcome, Fault | Shutdown):
        raise _Crash(f"{outcome} in SEAMCALL on processor {lp_id}")
    return leave_vmx(platform, lp_id)


@implements("UEFI.vmx")
def enter_vmx(platform: Platform, lp_id: int) -> ProcessorResult | None:
    """UEFI.vmx: CR0 and the other CR4 bits are not restored; IA32_FEATURE_CONTROL is not looked at."""
    lp = platform.lp(lp_id)
    region = POOL - PAGE * (1 + platform.lps.index(lp_id))
    platform.store(Agent.HOST, region, (platform.msr_value(lp, msr.VMX_BASIC) & 0x7FFFFFFF).to_bytes(4, "little"))
    lp.cr0 = (lp.cr0 | platform.msr_value(lp, 0x486)) & platform.msr_value(lp, 0x487)
    lp.cr4 = (lp.cr4 | platform.msr_value(lp, 0x488)) & platform.msr_value(lp, 0x489)
    started = vmxon(platform, lp_id, region)
    if isinstance(started, Fault):
        raise _Crash(f"X64 exception {started} in VMXON on processor {lp_id}")
    if not isinstance(started, Done):
        return ProcessorResult(lp_id, f"VMXON: {started}; reported as {Efi.INVALID_PARAMETER.value} OR-ed with it", 1)
    return None


def leave_vmx(platform: Platform, lp_id: int) -> ProcessorResult:
    """Behind the SEAMCALL: its result, and VMXOFF."""
    result = _result(platform, lp_id)
    vmxoff(platform, lp_id)
    platform.lp(lp_id).cr4 &= ~CR4_VMXE
    return ProcessorResult(lp_id, f"SEAMLDR.INSTALL {_name(result)}", result)


@implements("UEFI.rax")
def _result(platform: Platform, lp_id: int) -> int:
    """UEFI.rax."""
    return platform.lp(lp_id).rax


def _name(result: int) -> str:
    from seamref.pseamldr.api import Status

    if result == Leaf.SEAMLDR_INSTALL:
        return f"0x{result:016X} (no status: the leaf itself, CF was not looked at)"
    return Status(result).name if result in Status._value2member_map_ else f"0x{result:016X}"
