"""Makes TDX module images, their sigstructs, and the memory contents that SEAMLDR.INSTALL wants."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from seamref.arch.memory import Agent
from seamref.arch.software import TDX_MODULE_PROGRAM
from seamref.errors import SeamrefError
from seamref.layout import Buffer
from seamref.mint import elf
from seamref.mint.keys import KEY, TestKey
from seamref.pseamldr.api import MAX_MODULE_PAGES, PAGE, SEAMLDR_PARAMS
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, image_hash, signed_bytes
from seamref.tdxmodule.build import BUILDS, TDX_MODULE_BUILD, Build, get_build

if TYPE_CHECKING:
    from seamref.arch.platform import Platform

DEFAULT_BUILD = "1.5.05"
CPUIDS = (0x806F8, 0xC06F0, 0xA06F0)
"""CPUID table of the released 1.5.05 and later (BIN): Sapphire Rapids, Emerald Rapids, Sierra Forest."""


def module_image(build: str | Build | bytes = DEFAULT_BUILD, *, pages: int = 8, entry: int | None = None,
                 relocations: Iterable[elf.Relocation] | None = None, gdt_idt: int | bool = True,
                 fault_wrapper: int | None = None, seed: bytes | None = None, **fields: int) -> bytes:
    """The image of a TDX module of ``pages`` pages.

    ``build`` is a name of ``tdxmodule.build.BUILDS``, a Build, or the bytes of TDX_MODULE_BUILD; ``fields`` override
    single fields of it.  The rest is as in :func:`seamref.mint.elf.image`.
    """
    if isinstance(build, str):
        build = get_build(build)
    constants = build.constants if isinstance(build, Build) else bytes(build)
    if fields:
        constants = TDX_MODULE_BUILD.encode({**TDX_MODULE_BUILD.decode(constants), **fields})
    return elf.image(program=TDX_MODULE_PROGRAM, build=constants, pages=pages, entry=entry, relocations=relocations,
                     gdt_idt=gdt_idt, fault_wrapper=fault_wrapper, seed=seed)


def build_of(image: Buffer) -> bytes | None:
    """The TDX_MODULE_BUILD bytes of a minted module, ``None`` for any other image."""
    if elf.stub_of(image) != TDX_MODULE_PROGRAM:
        return None
    return elf.build_of(image, TDX_MODULE_BUILD.size)


def sigstruct_fields(image: Buffer) -> dict[str, Any]:
    """Fields of a sigstruct that follow from an image: hash, entry point, IDT, and what its build asks for.

    Sizes and security version of a build that ``tdxmodule.build`` does not name are those of the baseline.
    """
    fields: dict[str, Any] = {"seamhash": image_hash(image), "rip_offset": elf.entry_of(image) & 0xFFFFFFFF}
    idt, wrapper = elf.find_section(image, ".gdt_idt"), elf.find_section(image, ".fault_wrapper")
    if idt is not None and wrapper is not None:
        fields |= {"gdt_idt_offset": idt[0], "fault_wrapper_offset": wrapper[0]}
    constants = build_of(image)
    named = next((b for b in BUILDS.values() if b.constants == constants), BUILDS[DEFAULT_BUILD])
    fields |= _split_svn(named.sigstruct_fields)
    fields["date"] = int(str(named.build_date), 16)
    if constants is not None:
        own = TDX_MODULE_BUILD.decode(constants)
        fields |= {name: own[name] for name in ("module_hv", "min_update_hv", "no_downgrade", "num_handoff_pages")}
    return fields


def _split_svn(fields: Mapping[str, Any]) -> dict[str, Any]:
    """``seamsvn`` as one number becomes the two fields of SEAM_SIGSTRUCT."""
    out = dict(fields)
    if "seamsvn" in out:
        svn = out.pop("seamsvn")
        out |= {"seam_minor_svn": svn & 0xFF, "seam_major_svn": svn >> 8}
    return out


def sigstruct(image: Buffer, *, key: TestKey = KEY, resign: bool = True, **fields: Any) -> bytes:
    """A SEAM_SIGSTRUCT for an image, signed with ``key``; any field can be overridden.

    ``resign``     sign what the overrides made of it; ``False``: override after signing, so the signature is over
                   the fields as they would have been
    ``seamsvn``    may be given as one number, ``cpuid_table`` as a list (its size follows unless given)

    A ``signature`` given always stays as given.  An unknown field or a value that does not fit is a SeamrefError.
    """
    fields = _split_svn(fields)
    if "cpuid_table" in fields:
        fields.setdefault("cpuid_table_size", len(fields["cpuid_table"]))
    base = SEAM_SIGSTRUCT.new(modulus=key.modulus_le, cpuid_table=list(CPUIDS), cpuid_table_size=len(CPUIDS),
                              **sigstruct_fields(image))
    signed = {**base, **fields} if resign else dict(base)
    signature = key.sign(signed_bytes(SEAM_SIGSTRUCT.encode(signed)))
    return SEAM_SIGSTRUCT.encode({**signed, "signature": signature, **fields})


_sigstruct = sigstruct


def params_page(sigstruct_pa: int, page_pas: Sequence[int], **fields: Any) -> bytes:
    """A SEAMLDR_PARAMS page: physical addresses of the sigstruct and of each page of the module, in order."""
    given = list(page_pas)[:MAX_MODULE_PAGES]
    return SEAMLDR_PARAMS.encode({
        "sigstruct_pa": sigstruct_pa, "num_module_pages": len(page_pas), "mod_pages_pa_list": given, **fields,
    })


def place(platform: Platform, image: Buffer, sigstruct: Buffer | None = None, *, scenario: int = 0,
          at: int = 0x1000_0000, **params: Any) -> int:
    """Store an image, its sigstruct and SEAMLDR_PARAMS as the host would; the physical address of SEAMLDR_PARAMS.

    From ``at`` (bytes, 4 KiB aligned) upwards: params page, sigstruct page, image pages.  ``sigstruct`` defaults to a
    good one.  ``params`` override fields of SEAMLDR_PARAMS.
    """
    if at % PAGE:
        raise SeamrefError(f"place: at=0x{at:X}, must be 4 KiB aligned")
    data = bytes(image)
    if len(data) % PAGE:
        raise SeamrefError(f"place: image of {len(data)} bytes, must be whole pages of {PAGE}")
    signed = bytes(sigstruct) if sigstruct is not None else _sigstruct(image)
    pas = [at + 2 * PAGE + PAGE * i for i in range(len(data) // PAGE)]
    page = params_page(at + PAGE, pas, **{"scenario": scenario, **params})
    for address, what in ((at, page), (at + PAGE, signed.ljust(PAGE, b"\0")), (at + 2 * PAGE, data)):
        fault = platform.store(Agent.HOST, address, what)
        if fault is not None:
            raise SeamrefError(f"place: the host cannot store at 0x{address:X}: {fault}")
    return at
