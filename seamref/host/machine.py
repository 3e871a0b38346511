"""A whole machine, from reset to a kernel whose user can update the TDX module.

BIOS and MCHECK, NP-SEAMLDR, P-SEAMLDR, the UEFI loader's cold installation, the kernel's own initialisation, the
tdx-host driver: each is the real thing on one platform; this file only puts them in order.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from functools import lru_cache
from typing import Any

from seamref import bootchain
from seamref.arch.msr import VMX_BASIC
from seamref.arch.platform import NO_SEAMRET_INVD_VMCS, VMX_MSRS, Platform, PlatformConfig, Topology
from seamref.errors import SeamrefError
from seamref.host import uefi, vmm
from seamref.host.abi import FIELD_MODULE_HV, Errno
from seamref.host.fw_upload import probe
from seamref.host.image import V1, V2, build
from seamref.host.kernel import Host
from seamref.host.metadata import read_sysinfo_field
from seamref.host.series import MERGED, Blob, Handoff, KernelSeries
from seamref.host.tdx import tdx_enable


def config(topology: Topology, *, keeps_vmcs: bool = True, **more: Any) -> PlatformConfig:
    """A part whose SEAMRET keeps the VMM's VMCS (IA32_VMX_BASIC[60] = 1), or one with the erratum."""
    msrs = dict(VMX_MSRS)
    if keeps_vmcs:
        msrs[VMX_BASIC] |= NO_SEAMRET_INVD_VMCS
    return PlatformConfig(topology=topology, vmx_msrs=msrs, **more)


@lru_cache(maxsize=64)
def _parts(name: str, **fields: Any) -> tuple[bytes, bytes]:
    from seamref import mint

    module = mint.module_image(name, **fields)
    return module, mint.sigstruct(module)


def blob(
    name: str = "1.5.16", *, version: int = V2, signed: Mapping[str, Any] | None = None, **fields: Any
) -> bytes:
    """An image file with a minted module: a named build, in format 1.0 or 2.0.

    ``fields`` override the module's build constants, ``signed`` fields of the sigstruct before it is signed.
    """
    from seamref import mint

    module, sigstruct = _parts(name, **fields)
    return build(mint.sigstruct(module, **signed) if signed else sigstruct, module, version)


def blob_for(series: KernelSeries, name: str = "1.5.16") -> bytes:
    """The same module in the format that a version of the series takes."""
    return blob(name, version=V2 if series.blob is Blob.V2 else V1)


def cold(
    cpus: int = 2, *, sockets: int = 1, module: str | bytes | None = "1.5.05", keeps_vmcs: bool = True, seed: int = 0
) -> Platform:
    """Reset, P-SEAMLDR, and the UEFI loader's installation of ``module``: a named build, a 1.0 file, or ``None``.

    No processor is in VMX operation.
    """
    return _cold(cpus, sockets, module, keeps_vmcs, seed).fork()


@lru_cache(maxsize=32)
def _cold(cpus: int, sockets: int, module: str | bytes | None, keeps_vmcs: bool, seed: int) -> Platform:
    made = config(Topology(sockets, cpus // sockets), keeps_vmcs=keeps_vmcs, seed=seed)
    platform = bootchain.boot(config=made, vmx=False)
    if module is not None:
        file = module if isinstance(module, bytes) else blob(module, version=V1)
        files = {"\\EFI\\TDX\\TDX-BLOB": file}
        done = uefi.run(platform, uefi.Firmware((files,)))
        if not done.installed:
            raise SeamrefError(f"cold installation: {'; '.join(done.printed)}")
    return platform


def machine(
    cpus: int = 2, *, sockets: int = 1, module: str | bytes = "1.5.05", series: KernelSeries = MERGED,
    keeps_vmcs: bool = True, preempt_rt: bool = False, seed: int = 0,
) -> Host:
    """A booted kernel with the module initialised and the tdx-host driver loaded: a fork of one made once."""
    return _machine(cpus, sockets, module, series, keeps_vmcs, preempt_rt, seed).fork()


@lru_cache(maxsize=64)
def _machine(
    cpus: int, sockets: int, module: str | bytes, series: KernelSeries, keeps_vmcs: bool, preempt_rt: bool, seed: int
) -> Host:
    """The versions differ in nothing that initialisation does but in whether it reads the handoff version."""
    host = _enabled(cpus, sockets, module, keeps_vmcs, seed).fork()
    host.set(series=series, preempt_rt=preempt_rt)
    if series.handoff is Handoff.CACHED or series.handoff is Handoff.CACHED_IF_SUPPORTED:
        ret, hv = read_sysinfo_field(host, 0, FIELD_MODULE_HV)
        assert ret is Errno.OK and host.state.sysinfo is not None
        host.set(sysinfo=replace(host.state.sysinfo, module_hv=hv))
    ret = probe(host)
    if ret is not Errno.OK:
        raise SeamrefError(f"tdx-host: {ret}")
    return host


@lru_cache(maxsize=16)
def _enabled(cpus: int, sockets: int, module: str | bytes, keeps_vmcs: bool, seed: int) -> Host:
    import seamref.tdxmodule.program  # noqa: F401  makes the module's images runnable

    host = Host(_cold(cpus, sockets, module, keeps_vmcs, seed).fork())
    ret = tdx_enable(host)
    if ret is not Errno.OK:
        raise SeamrefError(f"tdx_enable: {ret}; {host.state.dmesg[-1]}")
    return host


def add_tds(host: Host, count: int = 1, **more: Any) -> tuple[vmm.Td, ...]:
    """Build TDs that count, as KVM would by SEAMCALLs on CPU 0; more arguments as :func:`seamref.host.vmm.build_td`."""
    first = len(host.state.tds)
    made = tuple(vmm.build_td(host.platform, host.cpu(0).apicid, first + i, **more) for i in range(count))
    host.set(tds=(*host.state.tds, *((td.tdr, tuple(td.tdvprs)) for td in made)))
    return made


def count_of(host: Host, td: vmm.Td, cpu: int = 0) -> int | str:
    """Let a TD run to its next exit: how far it has counted, or what the module answered instead."""
    try:
        exited = vmm.run_td(host.platform, host.cpu(cpu).apicid, td)
    except vmm.Refused as refused:
        return str(refused.answer)
    return exited.count if exited.reason == 77 else str(exited.answer)
