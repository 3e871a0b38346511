"""How much of P_SEAMLDR_RANGE the layout needs."""

from __future__ import annotations

from seamref.firmware.np_seamldr.state import CORE, MASK64, PAGE, SHADOW_STACK, VMCS_AREA, Np
from seamref.pseamldr.memory_constants import table_pages
from seamref.spec import MEASURED, implements


@implements("NP_SEAMLDR.size_formula",
            "code + data stack + 4K + 8K + 4K + data + paging; the module region counts as if "
            "mapped by 4 KiB pages", CORE, MEASURED)
def needed_size(np: Np) -> int:
    """NP_SEAMLDR.size_formula: bytes of P_SEAMLDR_RANGE that the layout needs."""
    c = np.consts
    stack = int(c.CDataStackSize) + SHADOW_STACK & MASK64
    module = np.state.size - np.range.size & MASK64
    regions = (c.CDataRgnSize, c.CCodeRgnSize, stack, c.CKeyholeRgnSize, c.CKeyholeEditRgnSize, PAGE, module)
    paging = PAGE * (sum(table_pages(int(r)) for r in regions) + 1)
    return int(c.CCodeRgnSize) + stack + VMCS_AREA + PAGE + int(c.CDataRgnSize) + paging & MASK64


def is_too_small(np: Np) -> bool:
    return np.range.size < needed_size(np)
