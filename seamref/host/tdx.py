"""Linux's side of the TDX module outside updates: initialisation, CPU hotplug, kexec.

``tdx_enable`` brings a module up from nothing, as at boot; an update never repeats CONFIG, KEY.CONFIG or TDMR.INIT.
"""

from __future__ import annotations

from dataclasses import fields, replace

from seamref.arch.memory import Agent
from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import (
    CONFIG_DYNAMIC_PAMT,
    FEATURES0_NO_RBP_MOD,
    FEATURES0_QUOTE,
    TDX_INTERRUPTED_RESUMABLE,
    TDX_SUCCESS,
    TDX_SW_ERROR,
    TDX_SYS_BUSY,
    Args,
    Errno,
    Leaf,
    leaf_version,
)
from seamref.host.enable import tdx_cpu_enable
from seamref.host.image import Refusal
from seamref.host.kernel import PAGE, Host, has_tdx, vmx_get, vmx_put
from seamref.host.log import TDX_PREFIX
from seamref.host.metadata import EXT_FIELDS, dynamic_pamt, may_need_extensions, read_sysinfo, read_sysinfo_field
from seamref.host.records import NO_ARGS, ModuleState, Stub, Sysinfo, Task, Wrap, having
from seamref.host.records import Call as SeamCall
from seamref.host.seamcall import seamcall, seamcall_prerr, seamcall_prerr_ret
from seamref.host.tasks import Next, local, may_wait
from seamref.spec import CHOSEN, MEASURED, Check, CheckTable, implements

GIB = 1 << 30
TDMR_ALIGN = GIB


@implements("LNX.cpu_online", "a CPU that comes online takes a VMX reference and initialises itself for the module; "
            "an error fails the onlining", "LNX tdx.c tdx_online_cpu")
def cpu_online(host: Host, cpu: int) -> Errno:
    """LNX.cpu_online: -EBUSY while hotplug is held off (the real kernel waits)."""
    if host.state.hotplug_readers:
        return Errno.EBUSY
    host.set_cpu(cpu, online=True)
    ret = tdx_online_cpu(host, cpu)
    if ret is not Errno.OK:
        host.set_cpu(cpu, online=False)
    return ret


def tdx_online_cpu(host: Host, cpu: int) -> Errno:
    """The hotplug callback itself."""
    ret = vmx_get(host, cpu)
    if ret is not Errno.OK:
        return ret
    ret = tdx_cpu_enable(host, cpu)
    if ret is not Errno.OK:
        vmx_put(host, cpu)
    return ret


@implements("LNX.cpu_offline", "the last online CPU of a package stays while any TD KeyID is in use; others WBINVD if "
            "their caches may be incoherent, then drop VMX", "LNX tdx.c tdx_offline_cpu")
def cpu_offline(host: Host, cpu: int) -> Errno:
    """LNX.cpu_offline: -EBUSY for CPU 0, for the last of a package with TDs, and while hotplug is held off."""
    if host.state.hotplug_readers or cpu == 0:
        return Errno.EBUSY
    ret = tdx_offline_cpu(host, cpu)
    if ret is Errno.OK:
        host.set_cpu(cpu, online=False)
    return ret


def tdx_offline_cpu(host: Host, cpu: int) -> Errno:
    """The hotplug callback itself."""
    package = host.lp(cpu).package
    others = [n for n in host.online if n != cpu and host.lp(n).package == package]
    if not others and host.state.tds:
        host.log(log.LAST_OF_PACKAGE)
        return Errno.EBUSY
    flush_vcpus(host, cpu)
    _wbinvd(host, cpu)
    if host.cpu(cpu).vmx_refs:
        vmx_put(host, cpu)
    return Errno.OK


@implements("LNX.flush_vcpus", "before a CPU leaves VMX operation KVM takes the vCPUs of TDs off it (TDH.VP.FLUSH)",
            "LNX kvm tdx.c", CHOSEN)
def flush_vcpus(host: Host, cpu: int) -> None:
    """LNX.flush_vcpus: VMXOFF would clear a launch state that the module relies on; a vCPU elsewhere is left alone."""
    if not host.lp(cpu).vmx_on:
        return
    for _, tdvprs in host.state.tds:
        for tdvpr in tdvprs:
            seamcall(host, cpu, Leaf.TDH_VP_FLUSH, Args(rcx=tdvpr))


def _wbinvd(host: Host, cpu: int) -> bool:
    """WBINVD where SEAMCALLs may have left dirty lines of private KeyIDs."""
    dirty = host.cpu(cpu).cache_state_incoherent
    if dirty:
        host.set_cpu(cpu, cache_state_incoherent=False)
    return dirty


@implements("LNX.sys_disable", "kexec and shutdown: TDH.SYS.DISABLE repeated while it was interrupted or busy, then "
            "WBINVD and VMXOFF on every CPU", "LNX tdx.c, commit 5b25f249be32")
def kexec(host: Host, cpu: int = 0, *, attempts: int = 1000) -> int:
    """LNX.sys_disable: the last status; errors other than software-defined ones are printed."""
    rax = TDX_SYS_BUSY
    while rax in _AGAIN:
        if not attempts:
            raise SeamrefError("TDH.SYS.DISABLE asks to be called again for ever")
        attempts -= 1
        rax = seamcall(host, cpu, Leaf.TDH_SYS_DISABLE).rax
    _disabled(host, rax)
    leave_vmx(host)
    host.set(module=ModuleState())
    return rax


_AGAIN = (TDX_INTERRUPTED_RESUMABLE, TDX_SYS_BUSY)


def _disabled(host: Host, rax: int) -> None:
    """The line about a status that is neither success nor software-defined."""
    if rax != TDX_SUCCESS and rax & TDX_SW_ERROR != TDX_SW_ERROR:
        host.log(log.DISABLE_FAILED, status=rax)


def leave_vmx(host: Host, *, write_back: bool = True) -> None:
    """WBINVD where it is due, and VMXOFF, on every online CPU that lives."""
    for number in host.online:
        if host.cpu(number).dead:
            continue
        if write_back:
            _wbinvd(host, number)
        while host.cpu(number).vmx_refs:
            vmx_put(host, number)


# The same, in steps that others can act between.


@local("kexec.start")
def _kexec_start(host: Host, cpu: int, task: Task) -> Next:
    """Syscore shutdown, interrupts off."""
    return Next("syscore shutdown", _call_disable(task))


def _call_disable(task: Task) -> Task:
    return having(task, pc="kexec.answered", call=SeamCall(Leaf.TDH_SYS_DISABLE, wrap=Wrap.RAW))


@local("kexec.answered")
def _kexec_answered(host: Host, cpu: int, task: Task) -> Next:
    """LNX.sys_disable: again, or on to the other CPUs."""
    assert task.returned is not None
    rax = task.returned.rax
    if rax in _AGAIN:
        return Next("TDH.SYS.DISABLE is to be called again", having(task, pc="kexec.again"))
    _disabled(host, rax)
    said = "the module is disabled" if rax == TDX_SUCCESS else f"TDH.SYS.DISABLE: 0x{rax:X}"
    return Next(said, having(task, pc="kexec.leave"))


def _kexec_spins(host: Host, cpu: int, task: Task) -> str:
    """A call that would be answered as the one before it changes nothing: it is asked on a copy, and only waits."""
    if seamcall(host.fork(), cpu, Leaf.TDH_SYS_DISABLE).rax != TDX_SYS_BUSY:
        return ""
    return "calls TDH.SYS.DISABLE again and again: TDX_SYS_BUSY"


@may_wait("kexec.again", _kexec_spins)
def _kexec_again(host: Host, cpu: int, task: Task) -> Next:
    """Another attempt."""
    return Next("tries again", _call_disable(task))


def _others_inside(host: Host, cpu: int, task: Task) -> str:
    inside = [n for n in host.online if not host.cpu(n).dead and host.platform.peek_lp(host.cpu(n).apicid).inSEAM]
    return f"waits until CPUs {inside} are out of SEAM and take the interrupt that stops them" if inside else ""


@may_wait("kexec.leave", _others_inside)
def _kexec_leave(host: Host, cpu: int, task: Task) -> Next:
    """LNX.sys_disable: the other CPUs are stopped where they are; caches, VMXOFF, and what the kernel knew is gone."""
    leave_vmx(host)
    for number in host.online:
        if number != cpu:
            host.set_cpu(number, online=False, tasks=(), irqs_off=True)
    host.set(module=ModuleState())
    return Next("WBINVD and VMXOFF on every CPU; the others stop", having(task, pc=KEXEC_JUMP))


KEXEC_JUMP = "kexec.jump"
"""Where the old kernel ends: nothing of it goes on, and :func:`boot_again` is what comes next."""


@may_wait(KEXEC_JUMP, lambda host, cpu, task: "is in the next kernel")
def _kexec_jump(host: Host, cpu: int, task: Task) -> Next:
    """Never entered: see above."""
    raise SeamrefError("a kernel that kexec has left goes on")


@implements("LNX.kexec_boot", "the kernel that kexec starts knows nothing of the one before it, and brings the module "
            "up as at any boot", "LNX tdx.c tdx_enable", CHOSEN)
def boot_again(host: Host) -> Errno:
    """LNX.kexec_boot: a fresh record of the same version on the same machine, then ``tdx_enable``'s answer."""
    fresh = Host(host.platform, host.series, preempt_rt=host.state.preempt_rt, boot=host.state.boot).state
    host.set(**{held.name: getattr(fresh, held.name) for held in fields(fresh)})
    return tdx_enable(host)


@implements("LNX.suspend", "suspend drops every CPU's VMX reference, resume takes it again", "LNX tdx.c")
def suspend(host: Host) -> None:
    """LNX.suspend: VMXOFF everywhere; the module stays as it is."""
    for number in host.online:
        flush_vcpus(host, number)
        vmx_put(host, number)


def resume(host: Host) -> Errno:
    """VMXON everywhere; the first error."""
    for number in host.online:
        ret = vmx_get(host, number)
        if ret is not Errno.OK:
            return ret
    return Errno.OK


# --- boot -----------------------------------------------------------------------------------------------------

_ENABLE = "LNX tdx.c tdx_enable"

ENABLE: CheckTable[Host, Refusal] = CheckTable("tdx_enable", (
    Check("TDX_ENABLE.platform", "no TDX host platform", lambda h: not has_tdx(h),
          Refusal(Errno.ENODEV, log.NO_PLATFORM.text), _ENABLE, MEASURED),
    Check("TDX_ENABLE.xsave", "no XSAVE", lambda h: "xsave" in h.state.lacks,
          Refusal(Errno.EINVAL, log.NO_XSAVE.text), _ENABLE, MEASURED),
    Check("TDX_ENABLE.movdir64b", "no MOVDIR64B", lambda h: "movdir64b" in h.state.lacks,
          Refusal(Errno.EINVAL, log.NO_MOVDIR64B.text), _ENABLE, MEASURED),
    Check("TDX_ENABLE.selfsnoop", "no self-snoop", lambda h: "selfsnoop" in h.state.lacks,
          Refusal(Errno.ENODEV, log.NO_SELFSNOOP.text), _ENABLE, MEASURED),
), "What tdx_enable wants of the processor: errno and the line that says so.")


@implements("TDX_ENABLE", "the processor's features are asked before anything else", _ENABLE, MEASURED)
def check_enable(host: Host) -> Errno:
    """TDX_ENABLE: 0, or an errno behind its line."""
    row = ENABLE.decide(host)
    if row is None:
        return Errno.OK
    host.printk(TDX_PREFIX, row.result.message)
    return row.result.errno


def tdx_enable(host: Host) -> Errno:
    """``tdx_enable``: the checks, VMX and the module on every online CPU, metadata, TDMRs, keys, PAMTs."""
    ret = check_enable(host)
    if ret is not Errno.OK:
        return ret
    for cpu in host.online:
        ret = tdx_online_cpu(host, cpu)
        if ret is not Errno.OK:
            for other in host.online:
                if host.cpu(other).vmx_refs:
                    vmx_put(host, other)
            return ret
    ret = _init_module(host)
    if ret is not Errno.OK:
        host.log(log.INIT_FAILED, errno=int(ret))
        return ret
    host.set(module=replace(host.state.module, initialized=True, status="INITIALIZED"))
    host.log(log.INITIALIZED)
    return Errno.OK


def _init_module(host: Host) -> Errno:
    ret = read_metadata(host)
    if ret is not Errno.OK:
        return ret
    assert host.state.sysinfo is not None
    return _config(host, host.state.sysinfo)


@implements("LNX.no_rbp_mod", "a module without TDX_FEATURES0 bit 18 (NO_RBP_MOD) is refused: its TDs could change the "
            "kernel's frame pointer", "LNX tdx.c check_features", MEASURED)
def read_metadata(host: Host) -> Errno:
    """LNX.no_rbp_mod: all global metadata, then the one feature that Linux insists on."""
    ret = read_sysinfo(host)
    if ret is Errno.OK and host.state.sysinfo is not None \
            and not host.state.sysinfo.features0 & FEATURES0_NO_RBP_MOD:
        host.log(log.RBP)
        return Errno.EINVAL
    return ret


TDMR_BASE = 0x100000000
"""This kernel gives TDX one region: the GiB at 4 GiB; its PAMTs stand in the GiB behind it."""


@implements("LNX.tdmr", "TDX memory as 1 GiB aligned regions, PAMTs sized by the entry sizes, then CONFIG, one "
            "KEY.CONFIG for each package, TDMR.INIT until done", "LNX tdx.c init_tdx_module", CHOSEN)
def _config(host: Host, info: Sysinfo) -> Errno:
    """LNX.tdmr: one region of 1 GiB is enough here."""
    from seamref.tdxmodule.structures import TDMR_INFO

    pamt = TDMR_BASE + GIB
    fields: dict[str, int] = {"base": TDMR_BASE, "size": GIB}
    dynamic = dynamic_pamt(host, info.features0)
    sizes = reversed(info.pamt_entry_sizes)
    for name, entries, size in zip(("1g", "2m", "4k"), (1, 512, 512 * 512), sizes, strict=True):
        if dynamic and name == "4k":  # a bitmap in the place of entries
            length = -(-entries * info.pamt_page_bitmap_entry_bits // (8 * PAGE)) * PAGE
        else:
            length = -(-entries * size // PAGE) * PAGE
        fields[f"pamt_{name}_base"], fields[f"pamt_{name}_size"] = pamt, length
        pamt += length
    pamt_kb = (pamt - TDMR_BASE - GIB) // 1024
    page = host.alloc(PAGE)
    host.write(page, TDMR_INFO.encode(fields))
    array = host.alloc(PAGE)
    host.write(array, page.to_bytes(8, "little"))
    ret = _call_config(host, array, host.state.keyids[0], info)
    if ret is Errno.OK:
        ret = _config_keys(host)
    if ret is Errno.OK:
        ret = _init_tdmr(host)
    if ret is Errno.OK:
        ret = _init_extensions(host)
    if ret is Errno.OK:
        host.log(log.PAMT, kb=pamt_kb)
    host.free(array)
    host.free(page)
    return ret


@implements("POSTED.config", "R8 bit 16 of TDH.SYS.CONFIG asks for Dynamic PAMT; R9 holds add-on features, and then "
            "the leaf is called in version 1", "LNX tip x86/tdx; posted 2026-06-18, v2 02/17")
def _call_config(host: Host, array: int, keyid: int, info: Sysinfo) -> Errno:
    """POSTED.config: the merged kernel has neither and calls version 0."""
    r8 = keyid
    if dynamic_pamt(host, info.features0):
        host.log(log.DYNAMIC_PAMT)
        r8 |= CONFIG_DYNAMIC_PAMT
    addon = info.features0 & FEATURES0_QUOTE if host.series.extensions else 0
    host.set(addon_features=addon)
    leaf = leaf_version(Leaf.TDH_SYS_CONFIG, 1) if addon else Leaf.TDH_SYS_CONFIG
    return seamcall_prerr(host, 0, leaf, Args(rcx=array, rdx=1, r8=r8, r9=addon))


def _resumed(host: Host, leaf: Leaf, args: Args = NO_ARGS, stub: Stub = Stub.SEAMCALL) -> Errno:
    """A leaf that is called again while it was interrupted, with the block as it left it: 0 or -EFAULT."""
    returned = seamcall(host, 0, leaf, args, stub)
    while returned.rax == TDX_INTERRUPTED_RESUMABLE:
        returned = seamcall(host, 0, leaf, returned.args, stub)
    return Errno.OK if returned.rax == TDX_SUCCESS else Errno.EFAULT


LIST_ENTRIES = PAGE // 8
"""Page addresses in one page of an HPA list."""


@implements("POSTED.ext.boot", "at boot the extensions get the pages they ask for, which never come back, and then "
            "TDH.EXT.INIT; quoting that fails only warns", "LNX posted 2026-06-18, v2 04/17, 05/17 and 07/17")
def _init_extensions(host: Host) -> Errno:
    """POSTED.ext.boot."""
    if not may_need_extensions(host):
        return Errno.OK
    values: list[int] = []
    for field, keeps in EXT_FIELDS:
        ret, value = read_sysinfo_field(host, 0, field)
        if ret is not Errno.OK:
            return ret
        values.append(value & keeps)
    pages, required = values
    if not required:
        return Errno.OK
    ret = _add_extension_memory(host, pages)
    if ret is Errno.OK:
        ret = _resumed(host, Leaf.TDH_EXT_INIT)
    if ret is Errno.OK and host.state.addon_features & FEATURES0_QUOTE \
            and _resumed(host, Leaf.TDH_QUOTE_INIT) is not Errno.OK:
        host.warn(log.WARN_QUOTING, once=True)
    return ret


def _add_extension_memory(host: Host, pages: int) -> Errno:
    """TDH.EXT.MEM.ADD with lists of up to 512 pages; RCX: list address, first entry 0, last entry in bits 63:55."""
    if not pages:
        return Errno.OK
    listed, memory = host.alloc(PAGE), host.alloc(pages * PAGE)
    if not listed or not memory:
        return Errno.ENOMEM
    ret = Errno.OK
    for first in range(0, pages, LIST_ENTRIES):
        count = min(pages - first, LIST_ENTRIES)
        entries = b"".join((memory + (first + i) * PAGE).to_bytes(8, "little") for i in range(count))
        host.write(listed, entries)
        ret = _resumed(host, Leaf.TDH_EXT_MEM_ADD, Args(rcx=listed | count - 1 << 55), Stub.RET)
        if ret is not Errno.OK:
            host.warn(log.WARN_EXTENSIONS, errno=int(ret))
            break
    host.log(log.EXTENSIONS, kb=pages * PAGE // 1024)
    host.free(listed)
    return ret


@implements("POSTED.dpamt.get", "the first private page of a 2 MiB region costs two pages of PAMT, given by "
            "TDH.PHYMEM.PAMT.ADD; whether it is asked for follows from the features as read at boot",
            "LNX tip x86/tdx 01a43c55ae5f..e61c837817ac")
def pamt_get(host: Host, page: int, cpu: int = 0) -> Errno:
    """POSTED.dpamt.get: what KVM does before it gives the page at this physical address to a TD; -EIO when refused."""
    info = host.state.sysinfo
    if info is None or not dynamic_pamt(host, info.features0):
        return Errno.OK
    pair = host.alloc(2 * PAGE)
    if not pair:
        return Errno.ENOMEM
    region = page & ~((1 << 21) - 1)
    returned = seamcall(host, cpu, Leaf.TDH_PHYMEM_PAMT_ADD, Args(rcx=region | 1, rdx=pair, r8=pair + PAGE), Stub.RET)
    if returned.rax == TDX_SUCCESS:
        return Errno.OK
    host.free(pair)
    return Errno.EIO


def _config_keys(host: Host) -> Errno:
    """WBINVD on every CPU, then TDH.SYS.KEY.CONFIG on one CPU of each package, one after another."""
    done: set[int] = set()
    for cpu in host.online:
        package = host.lp(cpu).package
        if package not in done:
            done.add(package)
            ret = seamcall_prerr(host, cpu, Leaf.TDH_SYS_KEY_CONFIG)
            if ret is not Errno.OK:
                return ret
    return Errno.OK


def _init_tdmr(host: Host) -> Errno:
    """TDH.SYS.TDMR.INIT until RDX, the next address, reaches the end."""
    end = TDMR_BASE + GIB
    while True:
        ret, args = seamcall_prerr_ret(host, 0, Leaf.TDH_SYS_TDMR_INIT, Args(rcx=TDMR_BASE))
        if ret is not Errno.OK or args.rdx >= end:
            return ret


def kernel_bytes(host: Host, at: int, size: int) -> bytes:
    """Bytes of kernel memory, for pictures."""
    return host.platform.bytes_at(Agent.HOST, at, size)


def raw_tdh(host: Host, cpu: int, leaf: int, **registers: int) -> tuple[int, Args]:
    """KVM's way to the module: __seamcall_ret, status as it is."""
    returned = seamcall(host, cpu, leaf, Args(**registers), Stub.RET)
    return returned.rax, returned.args
