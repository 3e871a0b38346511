"""What untrusted software does with SEAM: Linux's calls, its update of the module, the UEFI loader, images.

Everything here runs on the same :class:`seamref.arch.platform.Platform` as the loaders and the module; nothing in here
is trusted by them.
"""
