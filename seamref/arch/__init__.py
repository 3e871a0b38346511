"""What silicon does: memory and its access rules, MSRs, VMX state, the SEAM instructions, the platform.

Nothing here imports a loader.  Software in SEAM is something the platform *runs* (:mod:`seamref.arch.software`),
not something the processor knows.
"""
