"""What each break of a boot stops, and what each attack of "BIOS" or "OS" gains."""

from __future__ import annotations

from dataclasses import dataclass

from seamref.arch.platform import Topology
from seamref.bootchain import BREAKS, BootResult, make_boot, run_boot
from seamref.bootchain.attacks import ATTACKS, Attack, Attempt

NOTHING = "nothing"


@dataclass(frozen=True, slots=True)
class Broken:
    """A boot with one thing broken (or nothing): its name, what is wrong, how the boot went."""

    name: str
    says: str
    result: BootResult

    @property
    def where(self) -> str:
        """The step at which the chain stopped; "" where it did not."""
        last = self.result.records[-1]
        return last.step.name if last.stopped else ""


def break_one(name: str, topology: Topology | None = None) -> Broken:
    """Boot with one thing broken, named as in ``BREAKS``; with "nothing", nothing is."""
    says = "" if name == NOTHING else BREAKS[name].says
    return Broken(name, says, run_boot(make_boot(topology or Topology(2, 2)), breaks=[] if name == NOTHING else [name]))


def every_break(topology: Topology | None = None) -> list[Broken]:
    """Every break by itself, in the order of ``BREAKS``."""
    return [break_one(name, topology) for name in BREAKS]


def attempts(by: str = "all") -> list[tuple[Attack, Attempt]]:
    """What "BIOS" or "OS" (any case), or everybody, can try; each executed."""
    return [(attack, attack.run()) for attack in ATTACKS if by.lower() in ("all", attack.by.lower())]
