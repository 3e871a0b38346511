"""NP-SEAMLDR: the authenticated code that builds P-SEAMLDR's world and leaves.

An explicit step machine: every step is a function named for its clause, the list :data:`STEPS` is the order, and
:data:`TABLES` are the conditions that stop between them.  What a run knows is one frozen :class:`NpState`; everything
else is registers, MSRs and memory of the platform.  Another processor may act between any two steps.

All errors that are returned are returned in R9.  What goes wrong before the main flow is UD2: a TXT shutdown.

``state``    what is remembered, statuses, the module's constants        ``entry``    32-bit start, paging, prologue
``checks``   the conditions, in order                                    ``main``     up to the last check
``space``    the size formula                                            ``image``    wipe, copy, relocation
``mapping``  P-SEAMLDR's page tables                                     ``finish``   table, VMCS, SEAMEXTEND
``exit``     the way out                                                 ``program``  the steps in order
"""

from seamref.firmware.np_seamldr.checks import NP_COPY, NP_LOADED, NP_SAME_LP, TABLES
from seamref.firmware.np_seamldr.image import wipe
from seamref.firmware.np_seamldr.main import take_mutex
from seamref.firmware.np_seamldr.program import NP_SEAMLDR, STEPS, NpStep, advance, run, step_index
from seamref.firmware.np_seamldr.space import needed_size
from seamref.firmware.np_seamldr.state import Fatal, Np, NpState, NpStatus, Returned

__all__ = [
    "NP_COPY", "NP_LOADED", "NP_SAME_LP", "NP_SEAMLDR", "STEPS", "TABLES", "Fatal", "Np", "NpState", "NpStatus",
    "NpStep", "Returned", "advance", "needed_size", "run", "step_index", "take_mutex", "wipe",
]
