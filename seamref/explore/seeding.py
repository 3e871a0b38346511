"""How a bug is put into the machine and taken out again: what is changed is a value.

A :class:`Change` says where something stands and what stands there instead: a row that a check table loses, two rows in
the other order, a row that judges otherwise, a function, a handler of the kernel, an effect of a module's leaf, or a
constant.  Nothing in the machine knows of it; :func:`seeded` puts the changes in for the time of one exploration.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, TypeAlias, assert_never

from seamref.errors import SeamrefError
from seamref.host import tasks
from seamref.spec import TABLES, CheckTable
from seamref.tdxmodule.core import LEAVES

Make: TypeAlias = Callable[[Any], Any]
"""Gets what stands there, gives what is to stand there."""


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A row of a check table is left out."""

    table: str
    row: str

    def __str__(self) -> str:
        return f"row {self.row} is left out"


@dataclass(frozen=True, slots=True)
class Swapped:
    """Two rows of a check table change places."""

    table: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"rows {self.first} and {self.second} change places"


@dataclass(frozen=True, slots=True)
class Judged:
    """A row of a check table judges otherwise: ``make`` gets the predicate."""

    table: str
    row: str
    make: Make

    def __str__(self) -> str:
        return f"row {self.row} judges otherwise"


@dataclass(frozen=True, slots=True)
class Replaced:
    """A function or a constant: ``at`` is "module:name" or "module:Class.name" below ``seamref``."""

    at: str
    make: Make

    def __str__(self) -> str:
        return f"{self.at} is replaced"


@dataclass(frozen=True, slots=True)
class Handler:
    """What the kernel does at a program counter; with ``never_waits`` it does it without waiting for anybody."""

    pc: str
    make: Make
    never_waits: bool = False

    def __str__(self) -> str:
        return f"the kernel's step {self.pc} is replaced"


@dataclass(frozen=True, slots=True)
class Effect:
    """An effect of a leaf of the module, the last one by default."""

    leaf: int
    make: Make
    index: int = -1

    def __str__(self) -> str:
        return f"an effect of {LEAVES[self.leaf].name} is replaced"


Change: TypeAlias = "LeftOut | Swapped | Judged | Replaced | Handler | Effect"


def _table(name: str) -> CheckTable[Any, Any]:
    try:
        return TABLES[name]
    except KeyError:
        raise SeamrefError(f"no check table is called {name!r}") from None


def _index(table: CheckTable[Any, Any], row: str) -> int:
    for index, entry in enumerate(table._counted):
        if entry[0].id == row:
            return index
    raise SeamrefError(f"check table {table.name} has no row {row!r}")


@contextmanager
def _attribute(target: Any, name: str, value: Any) -> Iterator[None]:
    old = target.__dict__[name] if isinstance(target, type) else getattr(target, name)
    setattr(target, name, value)
    try:
        yield
    finally:
        setattr(target, name, old)


@contextmanager
def _item(table: dict[Any, Any], key: Any, value: Any) -> Iterator[None]:
    old = table[key]
    table[key] = value
    try:
        yield
    finally:
        table[key] = old


@contextmanager
def changed(change: Change) -> Iterator[None]:
    """One change is there while the block runs."""
    with ExitStack() as stack:
        match change:
            case LeftOut(table=name, row=row):
                table = _table(name)
                at = _index(table, row)
                stack.enter_context(_attribute(table, "_counted", table._counted[:at] + table._counted[at + 1 :]))
            case Swapped(table=name, first=first, second=second):
                table = _table(name)
                rows, one, two = list(table._counted), _index(table, first), _index(table, second)
                rows[one], rows[two] = rows[two], rows[one]
                stack.enter_context(_attribute(table, "_counted", tuple(rows)))
            case Judged(table=name, row=row, make=make):
                table = _table(name)
                rows, at = list(table._counted), _index(table, row)
                check, stops, count, applies = rows[at]
                rows[at] = check, make(stops), count, applies
                stack.enter_context(_attribute(table, "_counted", tuple(rows)))
            case Replaced(at=where, make=make):
                module, _, path = where.partition(":")
                target: Any = import_module(f"seamref.{module}")
                *outer, name = path.split(".")
                for step in outer:
                    target = getattr(target, step)
                stack.enter_context(_attribute(target, name, make(getattr(target, name))))
            case Handler(pc=pc, make=make, never_waits=never_waits):
                stack.enter_context(_item(tasks.HANDLERS, pc, make(tasks.HANDLERS[pc])))
                if never_waits:
                    stack.enter_context(_item(tasks._WAITS, pc, lambda host, cpu, task: ""))
            case Effect(leaf=number, make=make, index=index):
                leaf = LEAVES[number]
                effects = list(leaf.effects)
                effects[index] = make(effects[index])
                stack.enter_context(_item(LEAVES, number, replace(leaf, effects=tuple(effects))))
            case _ as never:
                assert_never(never)
        yield


@contextmanager
def seeded(*changes: Change) -> Iterator[None]:
    """Every change is there while the block runs, in this process; taken out again in the other order."""
    with ExitStack() as stack:
        for change in changes:
            stack.enter_context(changed(change))
        yield


__all__ = ["Change", "Effect", "Handler", "Judged", "LeftOut", "Replaced", "Swapped", "changed", "seeded"]
