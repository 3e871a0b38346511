"""An executable specification of Intel TDX's SEAM loading chain.

The package is one machine: ``arch`` is what silicon does, ``firmware`` what runs before the OS, ``pseamldr`` the
persistent loader, ``tdxmodule`` the part of the TDX module that loading and updating touch, ``host`` what
untrusted software does, ``explore`` tries every interleaving of all of it.  Importing the package imports
nothing else; each room is imported when it is first named.

What is public is ``__all__``: those names keep their meaning as CHANGELOG.md says, and the book's page *Library*
describes each of them.  Everything else may move.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from seamref.arch.outcome import Done as Done
    from seamref.arch.outcome import Entered as Entered
    from seamref.arch.outcome import Fault as Fault
    from seamref.arch.outcome import Left as Left
    from seamref.arch.outcome import VmExit as VmExit
    from seamref.arch.outcome import VmFailInvalid as VmFailInvalid
    from seamref.arch.outcome import VmFailValid as VmFailValid
    from seamref.arch.platform import Platform as Platform
    from seamref.arch.platform import PlatformConfig as PlatformConfig
    from seamref.arch.platform import Topology as Topology
    from seamref.arch.revision import REVISIONS as REVISIONS
    from seamref.arch.revision import Revision as Revision
    from seamref.arch.revision import get_revision as get_revision
    from seamref.arch.seam import seamcall as seamcall
    from seamref.arch.seam import seamret as seamret
    from seamref.arch.seam import tdcall as tdcall
    from seamref.arch.seamops import seamops as seamops
    from seamref.bootchain import BootStopped as BootStopped
    from seamref.bootchain import boot as boot
    from seamref.bootchain import install as install
    from seamref.bootchain import read_info as read_info
    from seamref.bootchain import seamldr_call as seamldr_call
    from seamref.errors import LayoutError as LayoutError
    from seamref.errors import NotModelled as NotModelled
    from seamref.errors import SeamrefError as SeamrefError
    from seamref.errors import TopologyError as TopologyError
    from seamref.host.fw_upload import Terminal as Terminal
    from seamref.host.machine import machine as machine
    from seamref.host.script import Script as Script
    from seamref.host.script import parse_rules as parse_rules
    from seamref.spec import CLAUSES as CLAUSES
    from seamref.spec import TABLES as TABLES

PUBLIC: dict[str, str] = {
    "boot": "bootchain", "BootStopped": "bootchain", "Topology": "arch.platform", "PlatformConfig": "arch.platform",
    "Platform": "arch.platform", "Revision": "arch.revision", "REVISIONS": "arch.revision",
    "get_revision": "arch.revision",
    "seamcall": "arch.seam", "seamret": "arch.seam", "seamops": "arch.seamops", "tdcall": "arch.seam",
    "Fault": "arch.outcome", "VmExit": "arch.outcome", "VmFailInvalid": "arch.outcome", "VmFailValid": "arch.outcome",
    "Entered": "arch.outcome", "Left": "arch.outcome", "Done": "arch.outcome",
    "seamldr_call": "bootchain", "read_info": "bootchain", "install": "bootchain",
    "machine": "host.machine", "Terminal": "host.fw_upload", "Script": "host.script", "parse_rules": "host.script",
    "CLAUSES": "spec", "TABLES": "spec",
    "SeamrefError": "errors", "LayoutError": "errors", "TopologyError": "errors", "NotModelled": "errors",
}
"""Public name -> the module below this package that has it."""

__all__ = [
    "CLAUSES", "REVISIONS", "TABLES", "BootStopped", "Done", "Entered", "Fault", "LayoutError", "Left", "NotModelled",
    "Platform", "PlatformConfig", "Revision", "Script", "SeamrefError", "Terminal", "Topology", "TopologyError",
    "VmExit", "VmFailInvalid", "VmFailValid", "__version__", "boot", "get_revision", "install", "machine",
    "parse_rules", "read_info", "seamcall", "seamldr_call", "seamops", "seamret", "tdcall",
]


def __getattr__(name: str) -> Any:
    if name in PUBLIC:
        return getattr(import_module(f"seamref.{PUBLIC[name]}"), name)
    raise AttributeError(f"module 'seamref' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
