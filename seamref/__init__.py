"""An executable specification of Intel TDX's SEAM loading chain.

The package is one machine: ``arch`` is what silicon does, ``firmware`` what runs before the OS, ``pseamldr`` the
persistent loader, ``tdxmodule`` the part of the TDX module that loading and updating touch, ``host`` what
untrusted software does, ``explore`` tries every interleaving of all of it.  Importing the package imports
nothing else; each room is imported when it is first named.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.2.0"

if TYPE_CHECKING:
    from seamref.bootchain import boot as boot

__all__ = ["__version__", "boot"]


def __getattr__(name: str) -> Any:
    if name == "boot":
        from seamref.bootchain import boot

        return boot
    raise AttributeError(f"module 'seamref' has no attribute {name!r}")
