"""Makes everything a loader is fed with: signed test modules, sigstructs, parameter pages, P-SEAMLDR images, ACMs.

Everything is deterministic: the same call makes the same bytes on every machine.  The keys are test keys.
"""

from __future__ import annotations

from seamref.mint import elf
from seamref.mint.keys import KEY, OTHER_KEY, TestKey
from seamref.mint.loader import acm, pseamldr_consts, pseamldr_image
from seamref.mint.module import module_image, params_page, place, sigstruct, sigstruct_fields

__all__ = [
    "KEY", "OTHER_KEY", "TestKey",
    "elf", "module_image", "sigstruct", "sigstruct_fields", "params_page", "place",
    "pseamldr_image", "pseamldr_consts", "acm",
]
