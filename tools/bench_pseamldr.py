"""P-SEAMLDR: INSTALL of a module of real size on 2 and on 448 processors, by phase, and the replay of vectors."""

from __future__ import annotations

import time
import tracemalloc
from collections.abc import Iterator
from functools import cache
from hashlib import sha384
from pathlib import Path

from bench import Bench, human

from seamref import mint
from seamref.arch.memory import Range
from seamref.arch.platform import Platform, Topology
from seamref.arch.trace import Event, Step
from seamref.pseamldr import lab, rsa
from seamref.pseamldr.api import COMPONENT, PAGE, Leaf, Status
from seamref.pseamldr.build import Build
from seamref.pseamldr.sigstruct import SEAM_SIGSTRUCT, signed_bytes

PAGES = 150
"""600 KiB, the size of a released module."""
SMALL, LARGE = Topology(1, 2), Topology(8, 56)
SEAMRR = Range(0x70000000, 0x10000000)
SIZES = {"num_stack_pages": 1, "num_tls_pages": 1, "num_keyhole_pages": 127, "num_global_data_pages": 21,
         "num_handoff_pages": 13}
"""Page counts of the released module 1.5.01."""


@cache
def module() -> tuple[bytes, bytes]:
    """Image and sigstruct."""
    image = mint.module_image(pages=PAGES)
    return image, mint.sigstruct(image, seam_major_svn=1, **SIZES)


def prepared(topology: Topology) -> Platform:
    """A platform with P-SEAMLDR and the module in the host's memory."""
    platform = lab.platform(topology=topology, seamrr=SEAMRR, build=Build(signer_key_hash=mint.KEY.key_hash))
    mint.place(platform, *module())
    return platform


def install(platform: Platform) -> Platform:
    """INSTALL on every processor, from SEAMCALL to SEAMRET."""
    rsa.power.cache_clear()
    answer = lab.install(platform, 0x10000000)
    assert isinstance(answer, lab.Returned) and answer.status is Status.SUCCESS, answer
    return platform


def phases(topology: Topology) -> dict[str, float]:
    """Seconds of each phase of one INSTALL session: the calls before the last, then the last one's steps."""
    platform = prepared(topology)
    found: dict[str, float] = {}
    last = time.perf_counter()

    def listen(event: Event) -> None:
        nonlocal last
        if isinstance(event, Step) and event.component == COMPONENT:
            now = time.perf_counter()
            name = event.name if event.name.startswith("INSTALL.") else "calls"
            found[name] = found.get(name, 0.0) + now - last
            last = now

    platform.listeners.append(listen)
    install(platform)
    return found


def memory(topology: Topology) -> tuple[int, int]:
    """(DRAM pages in use afterwards, peak bytes of Python objects while installing)."""
    platform = prepared(topology)
    tracemalloc.start()
    install(platform)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    return sum(1 for _ in platform.store_.pages()), peak


def hash_and_verify() -> bool:
    """What no loader can do without: SHA-384 of the image, and one RSA-3072 verification."""
    image, signed = module()
    rsa.power.cache_clear()
    sha384(image).digest()
    fields = SEAM_SIGSTRUCT.decode(signed)
    return rsa.verify(fields.modulus, fields.signature, signed_bytes(signed))


def benchmarks() -> Iterator[Bench | str]:
    """INSTALL against its unavoidable part, then single calls, then the recorded vectors."""
    alone = f"SHA-384 of {PAGES * PAGE >> 10} KiB and RSA-3072 alone"
    yield Bench(alone, hash_and_verify)
    for topology in (SMALL, LARGE):
        count = len(topology.x2apic_ids())
        bases = [prepared(topology) for _ in range(3)]
        yield Bench(f"INSTALL, {count} processors", lambda bases=bases: install(bases.pop()), against=alone)
        split = phases(topology)
        yield "  by phase: " + ", ".join(f"{name.removeprefix('INSTALL.')} {human(s)}" for name, s in split.items())
        pages, peak = memory(topology)
        yield f"  memory: {pages} DRAM pages ({pages * PAGE / 2**20:.1f} MiB) in use, {peak / 2**20:.1f} MiB of objects"
    platform = install(prepared(SMALL))
    yield Bench("SEAMLDR.INFO from SEAMCALL to SEAMRET",
                lambda: [lab.ask(platform, 0, Leaf.INFO, 0x20000) for _ in range(500)], 500, "call")
    from seamref.conformance.frame import replay_document
    from seamref.conformance.reading import read_document

    recorded = Path(__file__).resolve().parents[1] / "tests" / "conformance" / "vectors" / "pseamldr" / "sample.json.gz"
    document = read_document(recorded)
    yield Bench("replay of the recorded vectors", lambda: replay_document(document), len(document["cases"]), "case",
                repeat=1)
