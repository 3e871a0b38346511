"""``seamldr_install_module``: from a file's bytes to the stop_machine update, and what is left afterwards.

The image checks are those of :mod:`seamref.host.image`, in the version's own order; everything else that the merged
kernel does not look at (signature, hash, remaining updates, offline CPUs) is found out by P-SEAMLDR after the old
module was shut down.
"""

from __future__ import annotations

from dataclasses import dataclass

from seamref.errors import SeamrefError
from seamref.host import log
from seamref.host.abi import Errno
from seamref.host.image import ImageRefused, ImageTaken, check_image
from seamref.host.kernel import PAGE, Host
from seamref.host.log import SEAMLDR_PREFIX
from seamref.host.seamldr import seamldr_get_info
from seamref.host.tasks import Stuck
from seamref.host.update import Finish, Schedule, begin, finish, in_order, steps
from seamref.spec import CHOSEN, implements


@dataclass(frozen=True, slots=True)
class Prepared:
    """What P-SEAMLDR will be given: the parameter page, and the pages to free afterwards."""

    params: int
    pages: tuple[int, ...]


@implements("INSTALL_MODULE.params", "the pages of the uploaded file are named to P-SEAMLDR where they lie",
            "LNX seamldr.c")
def build_params(host: Host, data: bytes, taken: ImageTaken, length: int | None = None) -> Prepared:
    """INSTALL_MODULE.params: put the file into kernel memory and list its pages by physical address."""
    params = host.alloc(PAGE)
    at = host.alloc(len(data) if length is None else length)
    if not params or not at:
        raise SeamrefError(f"the kernel's memory cannot hold a file of {len(data)} bytes")
    host.write(at, data)
    host.write(params, taken.params(lambda offset: at + offset))
    return Prepared(params, (params, at))


def release(host: Host, prepared: Prepared) -> None:
    """Free the parameter page and the buffers."""
    for page in prepared.pages:
        host.free(page)


@implements("INSTALL_MODULE.gate", "v2-v4 refuse while a CPU is offline (-EBUSY) or no update remains (-ENOSPC); "
            "later versions leave both to user space", "LNX v2-v4 seamldr.c")
def check_gate(host: Host) -> Errno:
    """INSTALL_MODULE.gate: -EIO when SEAMLDR.INFO itself failed."""
    series = host.series
    if series.checks_remaining:
        _, info = seamldr_get_info(host)
        if info is None:
            return Errno.EIO
        if info.num_remaining_updates == 0:
            return Errno.ENOSPC
    if series.refuses_offline and len(host.online) != len(host.state.cpus):
        host.log(log.OFFLINE)
        return Errno.EBUSY
    return Errno.OK


def prepare(host: Host, data: bytes, *, no_memory: bool = False, length: int | None = None) -> Prepared | Errno:
    """Everything before stop_machine: the gate, the image checks, the parameter page.

    ``no_memory``: the allocation of that page fails; ``length``: bytes of the file, when ``data`` are only its first
    and zeros follow.
    """
    gate = check_gate(host)
    if gate is not Errno.OK:
        return gate
    checked = check_image(data, host.series.image_rules, no_memory=no_memory, length=length)
    if isinstance(checked, ImageRefused):
        if checked.message:
            host.printk(SEAMLDR_PREFIX, checked.message)
        return checked.errno
    return build_params(host, data, checked, length)


@implements("INSTALL_MODULE", "validate, hold hotplug off, stop_machine with the worker on every online CPU, free",
            "LNX seamldr.c", CHOSEN)
def seamldr_install_module(
    host: Host, data: bytes, schedule: Schedule = in_order, *, no_memory: bool = False
) -> Errno | Finish:
    """INSTALL_MODULE: 0 or an errno; :attr:`Finish.HUNG` when a processor died in SEAM and nobody ever returns."""
    prepared = prepare(host, data, no_memory=no_memory)
    if isinstance(prepared, Errno):
        return prepared
    begin(host, prepared.params)
    try:
        for _ in steps(host, schedule):
            pass
    except Stuck:
        return Finish.HUNG
    ret = finish(host)
    release(host, prepared)
    return ret
