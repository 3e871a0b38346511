"""Properties of the module's identity and life: what is measured, recorded and counted is what runs.

They are checked where P-SEAMLDR or the module does something, against the file that was uploaded, against SEAMDB, and
against the module's bytes in memory; nothing that INSTALL computed on the way is taken for granted.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import sha384

from seamref.arch.memory import Agent
from seamref.arch.platform import Platform
from seamref.arch.structures import SEAMEXTEND
from seamref.explore.jobs import Upload
from seamref.explore.probe import handoff_valid, module_state, places_of, remaining_updates
from seamref.explore.property import declare, lp_of
from seamref.explore.world import Did, World
from seamref.host.abi import Errno
from seamref.host.image import Blob, parse
from seamref.layout import Record
from seamref.pseamldr.elf import relocate
from seamref.pseamldr.install import fix_up_idt
from seamref.pseamldr.rsa import verify
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, signed_bytes
from seamref.tdxmodule.core import LEAVES, At
from seamref.tdxmodule.structures import SysState

# --- what was uploaded --------------------------------------------------------------------------------------------


@lru_cache(maxsize=64)
def _parsed(blob: bytes) -> Blob:
    return parse(blob)


def uploads(world: World) -> dict[bytes, Blob]:
    """The files that this world's users upload, by the SHA-384 of the module in them."""
    found = [_parsed(extra.blob) for extra in world.setting.extras if isinstance(extra, Upload)]
    return {_digest(blob.module): blob for blob in found}


@lru_cache(maxsize=64)
def _signed(sigstruct: bytes) -> Record:
    return SEAM_SIGSTRUCT.decode(sigstruct)


@lru_cache(maxsize=64)
def _digest(module: bytes) -> bytes:
    return sha384(module).digest()


def _measured(world: World) -> str | None:
    """The register at the end of a run whose update succeeded."""
    files = uploads(world)
    if world.remembered("update") is not Errno.OK or not files:
        return None
    register = SEAMEXTEND.decode(world.host.platform.SEAMEXTEND)
    blob = files.get(register.mrseam)
    if blob is None:
        return f"MRSEAM is {register.mrseam.hex()[:16]}.., which is no module that was uploaded"
    sigstruct = _signed(blob.sigstruct)
    svn = sigstruct["seam_major_svn"], sigstruct["seam_minor_svn"]
    held = register.tee_tcb_svn.seam_major_svn, register.tee_tcb_svn.seam_minor_svn
    if held != svn:
        return f"SEAMEXTEND says SVN {held[0]}.{held[1]}, the installed module has {svn[0]}.{svn[1]}"
    for name, want in (("valid", VALID_INTEL), ("attributes", 0), ("mrsigner", bytes(48))):
        if register[name] != want:
            return f"SEAMEXTEND.{name} is {register[name]!r} behind the update, not {want!r}"
    return None


VALID_INTEL = 0x1FF
"""SEAMEXTEND.valid of a module that Intel signed."""

declare("measured-as-installed", "behind a successful update SEAMEXTEND holds the installed image's hash and SVN, "
        "valid = 1FFH, MRSIGNER and attributes 0", "INSTALL.identity", "PSL seamldr_install.c epilogue",
        final=_measured)

# --- what runs ----------------------------------------------------------------------------------------------------


def _code(platform: Platform, pages: int) -> bytes:
    """The module's first bytes as it lies in SEAM memory."""
    places = places_of(platform)
    return b"" if places is None else platform.bytes_at(Agent.CPU, places.code, pages)


def _altered(module: bytes, code: bytes, base: int, idt: int, wrapper: int) -> int | None:
    """The first byte of ``code`` that is not the module relocated to ``base``; ``idt``, ``wrapper``: offsets, or 0."""
    expected = bytearray(module)
    relocate(expected, base)
    if idt:
        fix_up_idt(expected, idt, base + wrapper)
    if code == expected:
        return None
    return next(i for i, (a, b) in enumerate(zip(code, expected, strict=True)) if a != b)


_known_altered = lru_cache(maxsize=64)(_altered)


def _intact(before: World, after: World, did: Did) -> str | None:
    """When P-SEAMLDR makes a module callable: is it recorded, and is what lies in memory what was measured?"""
    if did.actor >= after.cpus or not lp_of(before, did.actor).inP_SEAMLDR:
        return None
    platform = after.host.platform
    if not platform.SEAM_READY or platform.SEAMEXTEND == before.host.platform.SEAMEXTEND:
        return None
    mrseam = platform.SEAMEXTEND[SEAMEXTEND.span("mrseam")]
    if not platform.seamdb or platform.seamdb[-1].identity[SEAMEXTEND.span("mrseam")] != mrseam:
        return "SEAM_READY became 1 for a module that SEAMDB has not recorded"
    blob = uploads(after).get(mrseam)
    places = places_of(platform)
    if blob is None or places is None:
        return None  # the module that ran before: recoverable-means-untouched asks it
    signed, code = _signed(blob.sigstruct), _code(platform, len(blob.module))
    wrong = _known_altered(blob.module, code, places.linear, signed["gdt_idt_offset"], signed["fault_wrapper_offset"])
    if wrong is None:
        return None
    return f"SEAM_READY became 1, and byte 0x{wrong:X} of the module in memory is not the measured image's"


declare("ready-means-intact", "SEAM_READY becomes 1 only for a module that SEAMDB has recorded and whose bytes in "
        "memory are the measured image, relocated", "INSTALL.success", "PSL seamldr_install.c steps J to O",
        step=_intact)


@lru_cache(maxsize=64)
def _is_signed(sigstruct: bytes) -> bool:
    signed = _signed(sigstruct)
    return verify(signed["modulus"], signed["signature"], signed_bytes(sigstruct), exponent=signed["exponent"])


def _only_signed(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus or not lp_of(before, did.actor).inP_SEAMLDR:
        return None
    platform = after.host.platform
    if not platform.SEAM_READY or platform.SEAMEXTEND == before.host.platform.SEAMEXTEND:
        return None
    blob = uploads(after).get(platform.SEAMEXTEND[SEAMEXTEND.span("mrseam")])
    if blob is None or _is_signed(blob.sigstruct):
        return None
    return "SEAM_READY became 1 for a module whose signature does not verify"


declare("only-signed-modules", "SEAM_READY becomes 1 only for a module whose SEAM_SIGSTRUCT verifies",
        "INSTALL.manifest.signature", "PSL seamldr_install.c manifest checks", step=_only_signed)


def _counted(before: World, after: World, did: Did) -> str | None:
    if did.actor >= after.cpus or not lp_of(before, did.actor).inP_SEAMLDR or lp_of(after, did.actor).inP_SEAMLDR:
        return None
    platform = after.host.platform
    remaining, left = remaining_updates(platform), platform.config.seamdb_size - len(platform.seamdb)
    if remaining in (0, left):  # 0 also where it was not asked yet: INFO then asks SEAMDB
        return None
    return f"num_remaining_updates is {remaining}, SEAMDB has room for {left}"


declare("updates-counted", "num_remaining_updates is SEAMDB's capacity less its entries whenever P-SEAMLDR is left "
        "(or 0: not asked yet)", "SEAMDB.remaining", "PSL helpers.c, seamldr_install.c", step=_counted)

# --- the module's life --------------------------------------------------------------------------------------------

LIFECYCLE: dict[tuple[SysState, SysState], tuple[str, ...]] = {
    (SysState.SYSINIT_PENDING, SysState.SYSINIT_DONE): ("TDH.SYS.INIT",),
    (SysState.SYSINIT_DONE, SysState.SYSCONFIG_DONE): ("TDH.SYS.CONFIG",),
    (SysState.SYSCONFIG_DONE, SysState.SYS_READY): ("TDH.SYS.KEY.CONFIG",),
    (SysState.SYSINIT_DONE, SysState.SYS_READY): ("TDH.SYS.UPDATE",),
    (SysState.SYS_READY, SysState.SYS_SHUTDOWN): ("TDH.SYS.SHUTDOWN",),
    (SysState.SYS_SHUTDOWN, SysState.SYS_READY): ("TDH.SYS.SHUTDOWN",),
    **{(state, SysState.SYSINIT_PENDING): ("TDH.SYS.DISABLE",) for state in SysState if state},
}
"""Which leaf may take the module from one state to another; SHUTDOWN goes back when another processor is inside."""


def _lifecycle(before: World, after: World, did: Did) -> str | None:
    """One step of one processor in the module: the state it leaves, and what was let through in which state."""
    if did.actor >= after.cpus:
        return None
    lp = lp_of(before, did.actor)
    task = before.task(did.actor)
    if not lp.inSEAM or lp.inP_SEAMLDR or lp.non_root or task is None or task.call is None:
        return None
    at = lp.program_state
    if not isinstance(at, At) or at.phase not in ("dispatch", "checks", "effect"):
        return None
    was, now = module_state(before.host.platform), module_state(after.host.platform)
    if was is None or now is None or (at.phase != "dispatch" and was == now):
        return None
    name = LEAVES[task.call.fn & 0xFFFF].name if task.call.fn & 0xFFFF in LEAVES else f"leaf {task.call.fn & 0xFFFF}"
    if at.phase == "dispatch":
        went_on = getattr(lp_of(after, did.actor).program_state, "phase", "")
        if was == SysState.SYS_SHUTDOWN and went_on == "checks" and name != "TDH.SYS.LP.SHUTDOWN":
            return f"{name} was let through on CPU {did.actor} in SYS_SHUTDOWN"
        return None
    states = set(SysState)
    if was not in states or now not in states or name not in LIFECYCLE.get((SysState(was), SysState(now)), ()):
        return f"{name} took the module from state {was} to {now}"
    if name == "TDH.SYS.UPDATE" and handoff_valid(after.host.platform):
        return "behind TDH.SYS.UPDATE the handoff data are still valid: they could be used a second time"
    return None


declare("module-lifecycle", "the module's state changes only as the leaf at work may change it, nothing is let through "
        "in SYS_SHUTDOWN, and handoff data are used once", "SYS.UPDATE.effect",
        "TDXM tdx_vmm_dispatcher.c, tdh_sys_update.c", step=_lifecycle)

__all__ = ["LIFECYCLE", "uploads"]
