"""What INSTALL demands of SEAMLDR_PARAMS and of the sigstruct: two ordered tables over plain values.

Nothing here touches a platform, so that a tool can walk the same rows over files.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from seamref.layout import Buffer, Layout
from seamref.pseamldr.api import MAX_CPUIDS, MAX_MODULE_PAGES, PAGE, SEAMLDR_PARAMS, Scenario, Status
from seamref.pseamldr.build import R10, R15
from seamref.pseamldr.hpa import is_shared_hpa
from seamref.pseamldr.rsa import verify
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, SEAM_SIGSTRUCT_1_0, key_hash, signed_bytes
from seamref.pseamldr.sysvalues import SystemValues
from seamref.spec import MEASURED, Check, CheckTable

_SRC = "PSL src/pseamldr_dispatcher/api_calls/seamldr_install.c"
_SRC10 = "PSL10 src/pseamldr_dispatcher/api_calls/seamldr_install.c"

M32, M64 = (1 << 32) - 1, (1 << 64) - 1
DEBUG_SIGNED = 1 << 31
STEPPING = 0xF
FAULT_WRAPPER_SIZE = 512
"""32 vectors of 16 bytes."""


class _Fields:
    """Top-level fields of a structure in bytes, read when asked for."""

    __slots__ = ("_held", "data", "layout")

    def __init__(self, layout: Layout, data: Buffer) -> None:
        self.layout = layout
        self.data = data
        self._held: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._held:
            self._held[name] = self.layout.peek(self.data, name)
        return self._held[name]

    def get(self, name: str, default: Any = None) -> Any:
        """A field, or ``default`` where this layout has none of that name."""
        try:
            self.layout.field(name)
        except ValueError:
            return default
        return self[name]


# --- SEAMLDR_PARAMS


@dataclass(frozen=True, slots=True)
class ParamsState:
    """P-SEAMLDR's copy of SEAMLDR_PARAMS (4096 bytes), the platform's values, and whether a module was ready."""

    params: Buffer
    values: SystemValues
    seam_ready: int
    fields: _Fields = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _Fields(SEAMLDR_PARAMS, self.params))

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def pages(self) -> list[int]:
        """The listed addresses of the image's pages."""
        count = min(self["num_module_pages"], MAX_MODULE_PAGES)
        pages: list[int] = self["mod_pages_pa_list"][:count]
        return pages


def _bad_page(c: ParamsState) -> bool:
    return not all(is_shared_hpa(page, PAGE, c.values) for page in c.pages)


INSTALL_PARAMS: CheckTable[ParamsState, Status] = CheckTable("INSTALL.params", (
    Check("INSTALL.params.version", "version is not 0", lambda c: c["version"] != 0, Status.EBADPARAM, _SRC, MEASURED),
    Check("INSTALL.params.reserved", "a reserved byte is not 0", lambda c: any(c["reserved"]), Status.EBADPARAM, _SRC,
          MEASURED),
    Check("INSTALL.params.scenario", "scenario is neither LOAD (0) nor UPDATE (1)", lambda c: c["scenario"] > 1,
          Status.EBADPARAM, _SRC, MEASURED),
    Check("INSTALL.params.num_module_pages", "more than 496 pages (0 is let through)",
          lambda c: c["num_module_pages"] > MAX_MODULE_PAGES, Status.EBADPARAM, _SRC, MEASURED),
    Check("INSTALL.params.page_pa", "a listed page is no shared HPA aligned to 4096", _bad_page, Status.EBADPARAM, _SRC,
          MEASURED),
    Check("INSTALL.params.sigstruct_pa", "sigstruct_pa is no shared HPA aligned to 4096",
          lambda c: not is_shared_hpa(c["sigstruct_pa"], PAGE, c.values), Status.EBADPARAM, _SRC, MEASURED),
    Check("INSTALL.params.update_ready", "UPDATE, but no module was ready when the session began",
          lambda c: c["scenario"] == Scenario.UPDATE and c.seam_ready == 0, Status.EBADPARAM, _SRC, MEASURED),
), "SEAMLDR_PARAMS of the last processor's call: the old module still runs afterwards (RDX = 0).")


# --- SEAM_SIGSTRUCT


def sigstruct_layout(revision: str) -> Layout:
    """The layout by which a generation of P-SEAMLDR reads a sigstruct."""
    return SEAM_SIGSTRUCT_1_0 if revision == R10 else SEAM_SIGSTRUCT


@dataclass(frozen=True, slots=True)
class ManifestState:
    """What the manifest checks look at.

    ``sigstruct`` 2048 bytes; ``scenario`` and ``num_module_pages`` from SEAMLDR_PARAMS; ``seam_minor_svn`` and
    ``seam_major_svn`` of the module that runs (SEAMEXTEND snapshot); ``debug_unlocked`` SGX_DEBUG_MODE bit 1;
    ``socket_cpuids`` CPUID.1:EAX of every socket; ``signer_key_hash`` of the only accepted signer.
    """

    sigstruct: Buffer
    scenario: int
    num_module_pages: int
    seam_minor_svn: int
    seam_major_svn: int
    debug_unlocked: bool
    socket_cpuids: tuple[int, ...]
    signer_key_hash: bytes
    revision: str = R15
    fields: _Fields = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "fields", _Fields(sigstruct_layout(self.revision), self.sigstruct))

    def __getitem__(self, name: str) -> Any:
        return self.fields[name]

    @property
    def module_size(self) -> int:
        """Bytes of the image."""
        return self.num_module_pages * PAGE

    @property
    def debug_signed(self) -> bool:
        """module_type bit 31."""
        return bool(self["module_type"] & DEBUG_SIGNED)

    @property
    def is_update(self) -> bool:
        """Scenario UPDATE."""
        return self.scenario == Scenario.UPDATE


def _gdt_idt_bound(c: ManifestState) -> bool:
    """64-bit arithmetic: for an image without pages the bound wraps to the top and lets everything pass."""
    offset: int = c["gdt_idt_offset"]
    return offset != 0 and offset > (c.module_size - PAGE) & M64


def _fault_wrapper_bound(c: ManifestState) -> bool:
    """32-bit arithmetic: the same wrap, in 32 bits."""
    offset: int = c["fault_wrapper_offset"]
    return offset != 0 and offset > (c.module_size - FAULT_WRAPPER_SIZE) & M32


def _cpuid(c: ManifestState) -> bool:
    """Stepping is ignored on both sides.  A table longer than the field was refused before."""
    table = {entry & ~STEPPING for entry in c["cpuid_table"][: c["cpuid_table_size"]]}
    return c["cpuid_table_size"] > 0 and any(cpuid & ~STEPPING not in table for cpuid in c.socket_cpuids)


def _svn_1_0(c: ManifestState) -> bool:
    return c.is_update and c["seamsvn"] < (c.seam_major_svn << 8 | c.seam_minor_svn)


def _signature(c: ManifestState) -> bool:
    return not verify(c["modulus"], c["signature"], signed_bytes(c.sigstruct), exponent=c["exponent"])


def _not_1_0(revision: object) -> bool:
    return revision != R10


def _only_1_0(revision: object) -> bool:
    return revision == R10


def _must_be(name: str, value: int, says: str) -> Check[ManifestState, Status]:
    return Check(f"INSTALL.manifest.{name}", says, lambda c: c[name] != value, Status.EBADSIG, _SRC, MEASURED)


def _reserved(name: str, revisions: bool) -> Check[ManifestState, Status]:
    return Check(f"INSTALL.manifest.{name}", f"a byte of {name} is not 0", lambda c: any(c[name]), Status.EBADSIG, _SRC,
                 MEASURED, _not_1_0 if revisions else None)


INSTALL_MANIFEST: CheckTable[ManifestState, Status] = CheckTable("INSTALL.manifest", (
    _reserved("reserved0", False),
    _reserved("reserved1", False),
    _reserved("reserved2", True),
    _reserved("reserved3", True),
    _must_be("header_type", 6, "header_type is not 6"),
    _must_be("header_length", 0xE1, "header_length is not 225 dwords"),
    _must_be("header_version", 0x10000, "header_version is not 0x10000"),
    _must_be("key_size", 0x60, "key_size is not 96 dwords"),
    _must_be("exponent_size", 1, "exponent_size is not 1 dword"),
    _must_be("modulus_size", 0x60, "modulus_size is not 96 dwords"),
    _must_be("module_vendor", 0x8086, "module_vendor is not 0x8086"),
    Check("INSTALL.manifest.module_type", "module_type bits 30:0 are not 0",
          lambda c: bool(c["module_type"] & ~DEBUG_SIGNED), Status.EBADSIG, _SRC, MEASURED),
    _must_be("attributes", 0, "attributes are not 0"),
    _must_be("size", 0x200, "size is not 512 dwords"),
    Check("INSTALL.manifest.cpuid_table_size", "cpuid_table_size is above 255",
          lambda c: c["cpuid_table_size"] > MAX_CPUIDS, Status.EBADSIG, _SRC, MEASURED),
    _must_be("exponent", 0x10001, "exponent is not 65537"),
    Check("INSTALL.manifest.hv", "min_update_hv is above module_hv", lambda c: c["min_update_hv"] > c["module_hv"],
          Status.EBADSIG, _SRC, MEASURED, _not_1_0),
    Check("INSTALL.manifest.gdt_idt_alignment", "gdt_idt_offset is no multiple of 4096",
          lambda c: c["gdt_idt_offset"] % PAGE != 0, Status.EBADSIG, _SRC, MEASURED, _not_1_0),
    Check("INSTALL.manifest.gdt_idt_pair", "one of gdt_idt_offset and fault_wrapper_offset is 0, the other not",
          lambda c: (c["gdt_idt_offset"] == 0) != (c["fault_wrapper_offset"] == 0), Status.EBADSIG, _SRC, MEASURED,
          _not_1_0),
    Check("INSTALL.manifest.signer_key", "SHA-384 of the modulus is not the accepted signer's",
          lambda c: key_hash(c["modulus"]) != c.signer_key_hash, Status.EBADSIG, _SRC, MEASURED),
    Check("INSTALL.manifest.debug", "debug-signed, but the part is not debug-unlocked",
          lambda c: c.debug_signed and not c.debug_unlocked, Status.EBADSIG, _SRC, MEASURED),
    Check("INSTALL.manifest.major_svn", "UPDATE to another major SVN",
          lambda c: c.is_update and c["seam_major_svn"] != c.seam_major_svn, Status.EBADCALL, _SRC, MEASURED, _not_1_0),
    Check("INSTALL.manifest.minor_svn", "UPDATE to a lower minor SVN",
          lambda c: c.is_update and c["seam_minor_svn"] < c.seam_minor_svn, Status.EBADSIG, _SRC, MEASURED, _not_1_0),
    Check("INSTALL.manifest.svn", "UPDATE to a lower SVN (one 16-bit number)", _svn_1_0, Status.EBADSIG, _SRC10,
          MEASURED,
          _only_1_0),
    Check("INSTALL.manifest.gdt_idt_bound", "GDT and IDT reach beyond the image", _gdt_idt_bound, Status.EBADSIG, _SRC,
          MEASURED, _not_1_0),
    Check("INSTALL.manifest.fault_wrapper_bound", "the fault wrappers reach beyond the image", _fault_wrapper_bound,
          Status.EBADSIG, _SRC, MEASURED, _not_1_0),
    Check("INSTALL.manifest.cpuid", "the CPUID table is not empty and misses a socket's CPUID (stepping ignored)",
          _cpuid,
          Status.EUNSUPCPU, _SRC, MEASURED),
    Check("INSTALL.manifest.cpuid_mandatory", "production-signed without CPUID table",
          lambda c: not c.debug_signed and c["cpuid_table_size"] == 0, Status.EBADSIG, _SRC, MEASURED, _not_1_0),
    Check("INSTALL.manifest.signature", "the RSA-3072 signature does not verify", _signature, Status.EBADSIG, _SRC,
          MEASURED),
), "SEAM_SIGSTRUCT, the signature last: the old module still runs afterwards (RDX = 0).")
