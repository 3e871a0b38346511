"""How fast the processor runs: import, SEAMCALL and back, forks, fingerprints."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

from bench import Bench

from seamref.arch import lab, software
from seamref.arch.exhaustive import seamcall_table
from seamref.arch.platform import Topology
from seamref.arch.revision import SILICON
from seamref.arch.seam import seamcall


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)


def benchmarks() -> Iterator[Bench]:
    """What issue after issue asks for first."""
    yield Bench("python -c pass", lambda: _python("pass"), repeat=5)
    yield Bench("import seamref", lambda: _python("import seamref"), against="python -c pass", repeat=5)
    yield Bench("import seamref.arch.seam (the whole processor)", lambda: _python("import seamref.arch.seam"),
                against="python -c pass", repeat=5)
    platform = lab.platform()
    platform.lp(0).rax = 1 << 63

    def refused() -> None:
        platform.lp(1).mov_ss_blocking = True
        for _ in range(2000):
            seamcall(platform, 1)

    def round_trips(rax: int) -> None:
        for _ in range(1000):
            software.call(platform, 0, rax=rax)

    yield Bench("SEAMCALL that a check refuses", refused, 2000, "SEAMCALL")
    yield Bench("SEAMCALL, program, SEAMRET: P-SEAMLDR", lambda: round_trips(1 << 63), 1000, "round trip",
                "SEAMCALL that a check refuses")
    yield Bench("SEAMCALL, program, SEAMRET: TDX module", lambda: round_trips(0), 1000, "round trip",
                "SEAMCALL that a check refuses")
    large = lab.platform(topology=Topology(8, 56))
    yield Bench("fork, 2 processors", lambda: [platform.fork() for _ in range(1000)], 1000, "fork")
    yield Bench("fork, 8 sockets, 448 processors", lambda: [large.fork() for _ in range(1000)], 1000, "fork",
                "fork, 2 processors")

    def forked_and_changed() -> None:
        for _ in range(1000):
            one = large.fork()
            one.lp(3).rax = 1

    yield Bench("fork of 448 processors, one of them changed", forked_and_changed, 1000, "fork",
                "fork, 8 sockets, 448 processors")
    yield Bench("fingerprint, 2 processors", lambda: [platform.fingerprint() for _ in range(200)], 200, "fingerprint")
    yield Bench("fingerprint, 448 processors", large.fingerprint, 1, "fingerprint", "fingerprint, 2 processors")
    yield Bench("exhaustive SEAMCALL table, 4096 states", lambda: seamcall_table(SILICON), 4096, "state")
