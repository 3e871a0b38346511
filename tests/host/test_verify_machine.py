"""verify against the machine: INSTALL on a booted platform gives the same RAX, RDX and survival of the old module."""

from __future__ import annotations

from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import seamref
from seamref import mint
from seamref.arch.memory import Agent
from seamref.arch.outcome import Left, Shutdown
from seamref.arch.platform import Platform
from seamref.bootchain import seamldr_call
from seamref.host.verify import Target, verify
from seamref.pseamldr.api import Leaf, Scenario, Status

IMAGE = mint.module_image()
BROKEN = mint.module_image(relocations=[mint.elf.Relocation(0, 0, info=7)])


@lru_cache
def booted(module: bool) -> Platform:
    return seamref.boot(lps=2, module=module)


def target_of(platform: Platform, update: bool) -> Target:
    seamrr, held = platform.seamrr(), platform.p_seamldr_range
    assert seamrr is not None
    assert held is not None
    return Target(
        sockets=1, lps=2, fms=platform.config.fms, seamrr_base=seamrr.base, seamrr_size=seamrr.size,
        p_seamldr_range_size=held.size, signer_key_hash=mint.KEY.key_hash,
        running_svn=(platform.SEAMEXTEND[9], platform.SEAMEXTEND[8]) if platform.SEAM_READY else None,
        scenario=Scenario.UPDATE if update else Scenario.LOAD,
    )


def installed(platform: Platform, image: bytes, sigstruct: bytes, scenario: int) -> tuple[int, int, bool]:
    """(RAX, RDX, whether a module is ready afterwards) of the last processor's INSTALL."""
    at = mint.place(platform, image, sigstruct, scenario=scenario, at=0x2000_0000)
    for lp in platform.lps:
        called = seamldr_call(platform, lp, Leaf.INSTALL, at)
        assert isinstance(called.run, Left), called
    return platform.lp(platform.lps[-1]).rax, platform.lp(platform.lps[-1]).rdx, platform.SEAM_READY


CASES: dict[str, tuple[bytes, dict[str, Any]]] = {
    "good": (IMAGE, {}),
    "newer": (IMAGE, {"seamsvn": 0x0109}),
    "header": (IMAGE, {"header_length": 0xE0}),
    "reserved3": (IMAGE, {"reserved3": 1 << 8}),
    "signer": (IMAGE, {"key": mint.OTHER_KEY}),
    "debug": (IMAGE, {"module_type": 1 << 31}),
    "lower SVN": (IMAGE, {"seamsvn": 0x0103}),
    "other major SVN": (IMAGE, {"seamsvn": 0x0305}),
    "other CPU": (IMAGE, {"cpuid_table": [0xA06D0]}),
    "no CPU": (IMAGE, {"cpuid_table": []}),
    "signature": (IMAGE, {"resign": False, "date": 5}),
    "too big": (IMAGE, {"num_global_data_pages": 40000}),
    "hash": (IMAGE, {"seamhash": bytes(48)}),
    "relocation": (BROKEN, {}),
    "wrapper": (IMAGE, {"fault_wrapper_offset": 0x7F00}),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("running", [False, True], ids=["nothing runs", "a module runs"])
def test_LOAD_on_the_machine_answers_as_verify_says(name: str, running: bool) -> None:
    image, fields = CASES[name]
    platform = booted(running).fork()
    sigstruct = mint.sigstruct(image, **fields)
    said = verify(sigstruct, image, target_of(platform, update=False))
    rax, rdx, ready = installed(platform, image, sigstruct, Scenario.LOAD)
    assert (rax, rdx) == (said.status, said.rdx)
    assert ready == (said.accepted or (running and said.rdx == 0))


@pytest.mark.parametrize("name", [name for name in CASES if name not in ("good", "newer", "hash", "relocation")])
def test_UPDATE_on_the_machine_answers_as_verify_says(name: str) -> None:
    """Refusals before the handoff is looked at: the running module has not been shut down here."""
    image, fields = CASES[name]
    platform = booted(True).fork()
    sigstruct = mint.sigstruct(image, **fields)
    said = verify(sigstruct, image, target_of(platform, update=True))
    rax, rdx, ready = installed(platform, image, sigstruct, Scenario.UPDATE)
    assert (rax, rdx, ready) == (said.status, said.rdx, True)


def test_UPDATE_without_a_module_is_refused_by_both() -> None:
    platform = booted(False).fork()
    said = verify(mint.sigstruct(IMAGE), IMAGE, replace(target_of(platform, update=True)))
    assert installed(platform, IMAGE, mint.sigstruct(IMAGE), Scenario.UPDATE) == (said.status, said.rdx, False)


# --- any bytes from the host

PATCHES = st.lists(st.tuples(st.integers(0, 4095), st.binary(min_size=1, max_size=16)), max_size=3)


def patched(data: bytes, patches: list[tuple[int, bytes]]) -> bytes:
    held = bytearray(data)
    for at, patch in patches:
        at %= len(held)
        held[at : at + len(patch)] = patch[: len(held) - at]
    return bytes(held)


@lru_cache
def small() -> Platform:
    return seamref.boot(lps=1, module=True)


@settings(max_examples=60, deadline=None)
@given(PATCHES, PATCHES, PATCHES, st.booleans(), st.booleans())
def test_any_params_sigstruct_and_image_get_a_status(
    params: list[tuple[int, bytes]], sigstruct: list[tuple[int, bytes]], image: list[tuple[int, bytes]],
    signed_again: bool, update: bool,
) -> None:
    """``signed_again``: the changed image is hashed and signed, so that the loader gets as far as relocating it."""
    platform = small().fork()
    data = patched(mint.module_image(pages=2), image)
    card = mint.sigstruct(data if signed_again else mint.module_image(pages=2))
    at = mint.place(platform, data, patched(card, sigstruct), scenario=int(update))
    page = platform.load(Agent.HOST, at, 4096)
    assert isinstance(page, bytes)
    platform.store(Agent.HOST, at, patched(page, params))
    called = seamldr_call(platform, 0, Leaf.INSTALL, at)
    assert isinstance(called.run, Left | Shutdown)
    if isinstance(called.run, Left):
        assert called.rax in set(Status)
        assert platform.lp(0).rdx in (0, 1)
        assert (platform.lp(0).rdx == 0) == platform.SEAM_READY
