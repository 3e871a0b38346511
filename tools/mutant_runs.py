"""The running half of tools/mutants.py: a room's tests against its mutants, in forked processes.

Started by tools/mutants.py in a copy of the tree, with ``job.json`` (tests, sources, where results go) and
``todo.json`` (mutants). A mutant is *killed* when a test fails, when it does not import, or when a test takes four
times its own processor time and some seconds more; *alive* when all tests of its line pass; *unreached* when no test
executes it.
"""

from __future__ import annotations

import ast
import contextlib
import ctypes
import functools
import gc
import hashlib
import importlib
import json
import os
import pickle
import resource
import signal
import sys
import time
from collections.abc import Callable, Iterator
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import Any, NoReturn

import pytest
from mutants import Mutant, difference, mutate

SPARE, TIMES = 2.0, 4
"""A test may use so many times its own processor time, and these seconds."""
MEMORY = 3 << 30
COLD = 8.0
"""Seconds of a file's tests after which caches are not emptied any more."""
LONG = 5.0
"""A test file of so many seconds is left for last."""
PATIENCE = 60.0
"""Seconds of processor time after which no further test is begun."""
OPTIONS = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "-p", "no:nbval", "-o", "addopts=",
           "--import-mode=importlib", "--no-header", "--no-summary"]


def used() -> float:
    """Seconds of processor time of this process."""
    return time.process_time()


def allow(seconds: float) -> None:
    """This process ends when it uses so much more."""
    limit = int(used() + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (limit, resource.getrlimit(resource.RLIMIT_CPU)[1]))


def forked(work: Callable[[], Any], wall: float) -> tuple[str, Any]:
    """Do it in a child: ("said", what it returned), or ("ended", why)."""
    read, write = os.pipe()
    parent = os.getpid()
    child = os.fork()
    if child == 0:
        os.setpgrp()
        die_with(parent)
        os.close(read)
        try:
            said = pickle.dumps(work())
        except BaseException as error:
            said = pickle.dumps(("broken", f"{type(error).__name__}: {error}"))
        with os.fdopen(write, "wb") as pipe:
            pipe.write(said)
        os._exit(0)
    os.close(write)
    signal.signal(signal.SIGALRM, lambda *_: os.killpg(child, signal.SIGKILL))
    signal.alarm(int(wall))
    with os.fdopen(read, "rb") as pipe:
        data = pipe.read()
    _, status = os.waitpid(child, 0)
    signal.alarm(0)
    return ("said", pickle.loads(data)) if data else ("ended", f"status {status:#x}")


def die_with(parent: int) -> None:
    """On Linux this process ends when its parent does, however that was ended."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def quiet() -> None:
    """Nothing that tests print reaches anyone, and a runaway number takes no more than MEMORY."""
    sink = os.open(os.devnull, os.O_RDWR)
    for standard in (0, 1, 2):
        os.dup2(sink, standard)
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


# --- code


def codes(code: CodeType) -> Iterator[CodeType]:
    """A code object and all within, always in the same order."""
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from codes(constant)


def place(code: CodeType) -> tuple[object, ...]:
    """Which code of a file: nothing else has its name and positions."""
    return code.co_qualname, code.co_firstlineno, tuple(code.co_positions())


def own(code: CodeType) -> tuple[object, ...]:
    """What a code object does, without what stands within it and where it stands."""
    return (code.co_code, code.co_exceptiontable, code.co_names, code.co_varnames, code.co_freevars, code.co_cellvars,
            code.co_flags, tuple((type(c), repr(c)) if not isinstance(c, CodeType) else () for c in code.co_consts))


class Live:
    """The functions of the changed files as they are in this process, and which of them import has called."""

    def __init__(self, folder: Path, files: list[str]) -> None:
        self.paths = {str(folder / file): file for file in files}
        self.called: set[tuple[object, ...]] = set()
        self.functions: dict[tuple[object, ...], list[FunctionType]] = {}

    def watch(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename in self.paths:
            self.called.add((frame.f_code.co_filename, *place(frame.f_code)))

    def gather(self) -> None:
        for thing in gc.get_objects():
            if isinstance(thing, FunctionType) and thing.__code__.co_filename in self.paths:
                self.functions.setdefault((thing.__code__.co_filename, *place(thing.__code__)), []).append(thing)

    def put(self, path: str, source: str, changed: str) -> bool:
        """Put the changed code into the functions; False: what changed acts (or acted) while modules are imported."""
        before, after = list(codes(compile(source, path, "exec"))), list(codes(compile(changed, path, "exec")))
        if len(before) != len(after):
            return False
        pairs = [(old, new) for old, new in zip(before, after, strict=True) if own(old) != own(new)]
        at = {id(code): index for index, code in enumerate(before)}
        parents = {id(c): code for code in before for c in code.co_consts if isinstance(c, CodeType)}
        for old, _ in pairs:
            outer = old
            while outer is not before[0]:
                if (path, *place(outer)) in self.called and outer.co_flags & 0x2:
                    return False
                if not outer.co_flags & 0x2:  # the body of a class
                    break
                outer = parents[id(outer)]
            if not old.co_flags & 0x2:
                return False
        done = False
        for old, _ in pairs:
            code: CodeType | None = old
            while code is not None and code.co_flags & 0x2:  # the function, and those around it that make it
                for function in self.functions.get((path, *place(code)), ()):
                    function.__code__ = after[at[id(code)]]
                    done = True
                code = parents.get(id(code))
        return done or not pairs


# --- one room


class Server:
    """A pytest plugin that runs mutants instead of tests, once everything has been collected."""

    def __init__(self, folder: Path, job: dict[str, Any], todo: list[Mutant], live: Live) -> None:
        self.folder, self.job, self.todo, self.live = folder, job, todo, live
        self.slow: list[Mutant] = []
        self.map: dict[str, dict[int, list[str]]] = {}
        self.took: dict[str, float] = {}
        self.killers: dict[str, list[str]] = {}
        """By function: the tests that killed its last mutants; they are run first."""
        self.caches: list[Any] = []
        """What is remembered between calls; frozen objects are not found later."""
        self.items: dict[str, pytest.Item] = {}
        self.sources = {file: (folder / file).read_text(encoding="utf-8") for file in job["sources"]}
        self.spans = {file: spans(text) for file, text in self.sources.items()}

    def pytest_runtestloop(self, session: pytest.Session) -> bool:
        sys.setprofile(None)
        if session.testsfailed:
            print("mutants: the tests cannot be collected", file=sys.stderr)
            return True
        chosen = [item for item in session.items if wanted(item.nodeid, self.job["tests"])]
        for item in chosen:
            unshrunk(item)
        self.items = {item.nodeid: item for item in chosen}
        self.live.gather()
        self.caches = [thing for thing in gc.get_objects() if isinstance(thing, functools._lru_cache_wrapper)
                       and str(thing.__module__).split(".")[0] not in ("typing", "_pytest", "hypothesis")]
        gc.collect()
        gc.freeze()
        profile = Path(self.job["kept"]).with_suffix(".profile")
        held: dict[str, Any] = pickle.loads(profile.read_bytes()) if profile.exists() else {}
        stamps = {file: fingerprint(self.folder, self.job, file) for file in map(file_of, self.items)}
        bad: list[str] = []
        for file, stamp in stamps.items():
            if held.get(file, ("",))[0] != stamp:
                how, said = forked(functools.partial(self.profile, file), 7200)
                if how != "said" or said[0] != "profile":
                    print(f"mutants: the tests themselves: {file}: {said}", file=sys.stderr)
                    return True
                held[file] = stamp, *said[1:]
                profile.write_bytes(pickle.dumps(held))
            _, lines, took, failed = held[file]
            self.took.update(took)
            bad += failed
            for source, names in lines.items():
                for line, found in names.items():
                    self.map.setdefault(source, {}).setdefault(line, []).extend(found)
        print(f"  {len(self.items)} tests, {sum(self.took.values()):.0f} s; without {len(bad)} that do not pass alone: "
              f"{', '.join(bad[:5])}", file=sys.stderr, flush=True)
        for mutant in self.todo:
            self.try_one(mutant)
        return True

    def profile(self, file: str) -> Any:
        """Which of a file's tests execute which lines, each on its own: no fixture or cache is shared with another.

        Where that would take too long, what was prepared for one test stays for those that follow.
        """
        import coverage
        from _pytest.runner import runtestprotocol

        quiet()
        measure = coverage.Coverage(data_file=None, config_file=False, include=list(self.live.paths))
        measure.start()
        took, bad = {}, []
        for name, item in self.items.items():
            if file_of(name) != file:
                continue
            for cache in self.caches if sum(took.values()) < COLD else ():
                cache.cache_clear()
            measure.switch_context(name)
            start = used()
            reports = runtestprotocol(item, nextitem=None, log=False)
            took[name] = used() - start
            if any(report.failed for report in reports):
                bad.append(name)
        measure.stop()
        data = measure.get_data()
        found = {file: {line: [c for c in contexts if c and c not in bad]
                        for line, contexts in data.contexts_by_lineno(path).items()}
                 for path, file in self.live.paths.items()}
        return "profile", found, {name: t for name, t in took.items() if name not in bad}, bad

    def tests_of(self, mutant: Mutant) -> list[str]:
        """The tests that execute a mutant's line, or another line of its statement; shortest first."""
        lines = self.map.get(mutant.file, {})
        first, last = self.spans[mutant.file](mutant.line, mutant.column)
        names = set(lines.get(mutant.line, ())) or {name for n in range(first, last + 1) for name in lines.get(n, ())}
        recent = self.killers.get(mutant.key.split("|")[0] + mutant.key.split("|")[1], [])
        return sorted(names, key=lambda name: (name not in recent, self.took[name], name))

    def try_one(self, mutant: Mutant) -> None:
        names = self.tests_of(mutant)
        source = self.sources[mutant.file]
        total = sum(self.took[name] for name in names)
        how, said = forked(lambda: self.attempt(mutant, source, names), 600 + 100 * total)
        if how == "said" and said[0] == "slow":
            self.slow.append(mutant)
            return
        if how == "said" and said[0] == "killed":
            recent = self.killers.setdefault(mutant.key.split("|")[0] + mutant.key.split("|")[1], [])
            recent[:] = [said[1], *(name for name in recent if name != said[1])][:4]
        keep(self.job["kept"], mutant, source, *(said if how == "said" else ("killed", f"ended: {said}")))

    def attempt(self, mutant: Mutant, source: str, names: list[str]) -> tuple[str, str]:
        from _pytest.runner import runtestprotocol

        quiet()
        try:
            changed = mutate(source, mutant)
            if not self.live.put(str(self.folder / mutant.file), source, changed):
                return "slow", ""
        except (SyntaxError, ValueError):
            return "slow", ""
        if not names:
            return "unreached", ""
        for name, after in zip(names, [*names[1:], None], strict=True):
            if used() > PATIENCE:
                return "alive", f"{names.index(name)} of {len(names)} tests"
            allow(TIMES * self.took[name] + SPARE)
            reports = runtestprotocol(self.items[name], nextitem=self.items[after] if after else None, log=False)
            if any(report.failed for report in reports):
                return "killed", name
        return "alive", f"{len(names)} tests"


def wanted(name: str, tests: list[str]) -> bool:
    """Whether a test is one of the room's: ``file::part of the name`` takes only some of a file."""
    return any(name.startswith(test.partition("::")[0]) and test.partition("::")[2] in name for test in tests)


def file_of(name: str) -> str:
    """The file of a test."""
    return name.partition("::")[0]


def fingerprint(folder: Path, job: dict[str, Any], file: str) -> str:
    """Of a test file and the changed files: with them changes which of its tests execute which lines.

    Where anything else changed, a test may be asked that does not execute a line any more, or one more would: a mutant
    may then live that should not, never the other way round.
    """
    found = hashlib.sha256(json.dumps(job["sources"]).encode())
    for name in (file, *job["sources"]):
        found.update((folder / name).read_bytes())
    return found.hexdigest()


def unshrunk(item: pytest.Item) -> None:
    """A property need only fail: hypothesis does not look for the smallest example."""
    import hypothesis

    function = getattr(item, "obj", None)
    settings = getattr(function, "_hypothesis_internal_use_settings", None)
    if settings is not None:
        phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
        holder = getattr(function, "__func__", function)
        holder._hypothesis_internal_use_settings = hypothesis.settings(
            settings, phases=phases, report_multiple_bugs=False, database=None)


def spans(source: str) -> Callable[[int, int], tuple[int, int]]:
    """For a place of a file, the lines of the lambda or simple statement (or head of a compound one) that holds it."""
    found: list[tuple[tuple[int, int], tuple[int, int]]] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.stmt | ast.Lambda):
            end = (node.end_lineno or node.lineno, node.end_col_offset or 0)
            body = getattr(node, "body", None)
            if isinstance(body, list) and body:
                end = (max(node.lineno, body[0].lineno - 1), 1 << 20)
            found.append(((node.lineno, node.col_offset), end))

    def look(line: int, column: int) -> tuple[int, int]:
        around = [span for span in found if span[0] <= (line, column) <= span[1]]
        if not around:
            return line, line
        first, last = max(around)
        return first[0], last[0]

    return look


def keep(path: str, mutant: Mutant, source: str, verdict: str, why: str) -> None:
    """One line of the results."""
    before, after = difference(source, mutate(source, mutant))
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    row = {"key": mutant.key, "file": mutant.file, "line": mutant.line, "before": before, "after": after,
           "verdict": verdict, "why": why,
           "processor": round(children.ru_utime + children.ru_stime, 1)}
    with open(path, "a", encoding="utf-8") as results:
        results.write(json.dumps(row) + "\n")


# --- what acts on import


class Order:
    """Runs a file's short tests first."""

    def __init__(self, took: dict[str, float]) -> None:
        self.took = took

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        items[:] = sorted((i for i in items if i.nodeid in self.took or not self.took),
                          key=lambda item: self.took.get(item.nodeid, 1e9))
        for item in items:
            unshrunk(item)

    def pytest_runtest_setup(self, item: pytest.Item) -> None:
        allow(TIMES * self.took.get(item.nodeid, 1.0) + SPARE)


def attempt_anew(
    folder: Path, mutant: Mutant, source: str, files: list[str], took: dict[str, float]
) -> tuple[str, str]:
    """Import everything with one file changed, and run test files until one fails."""
    quiet()
    changed, target = mutate(source, mutant), str(folder / mutant.file)
    read = SourceFileLoader.get_code

    def get_code(self: SourceFileLoader, name: str) -> CodeType | None:
        return compile(changed, target, "exec") if self.path == target else read(self, name)

    SourceFileLoader.get_code = get_code  # type: ignore[method-assign,assignment]
    rest = files[1:]
    long = [file for file in rest if sum(t for name, t in took.items() if name.startswith(f"{file}::")) > LONG]
    for some in filter(None, (files[:1], [file for file in rest if file not in long], long)):
        allow(60)
        code = pytest.main([*OPTIONS, "-x", *some], plugins=[Order(took)])
        if code not in (0, 5):
            return "killed", f"{some[0]}: {code!r}"
    return "alive", f"{len(files)} files"


def serve(folder: Path, job: dict[str, Any], todo: list[Mutant]) -> Any:
    """The warm process: profile, mutants within functions; the others are handed back."""
    live = Live(folder, job["sources"])
    server = Server(folder, job, todo, live)
    sys.setprofile(live.watch)
    pytest.main([*OPTIONS, "-s", *(test.partition("::")[0] for test in job["tests"])], plugins=[server])
    modules = [name for name in sys.modules if name.split(".")[0] not in ("seamref", "tests", "conftest", "__main__")
               and not str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder))]
    return [mutant.__dict__ for mutant in server.slow], server.map, server.took, modules


def main() -> NoReturn:
    """Both ways."""
    folder = Path.cwd()
    job = json.loads((folder / "job.json").read_text())
    todo = [Mutant(**row) for row in json.loads((folder / "todo.json").read_text())]
    how, said = forked(lambda: serve(folder, job, todo), 24 * 3600)
    if how != "said" or said[0] == "broken":
        sys.exit(f"mutants: {said}")
    slow, lines, took, modules = said
    if not took:
        sys.exit(2)
    for name in modules:
        try:
            importlib.import_module(name)
        except Exception:
            continue
    gc.freeze()
    cost: dict[str, float] = {}
    for name, seconds in took.items():
        file = file_of(name)
        cost[file] = cost.get(file, 0.0) + seconds
    print(f"  {len(slow)} mutants act on import", file=sys.stderr, flush=True)
    for row in slow:
        mutant = Mutant(**row)
        source = (folder / mutant.file).read_text(encoding="utf-8")
        hits: dict[str, int] = dict.fromkeys(cost, 0)
        for names in lines.get(mutant.file, {}).values():
            for name in names:
                hits[file_of(name)] += 1
        files = sorted(cost, key=lambda file: (cost[file] + 0.5) / (hits[file] + 0.1))
        how, said = forked(lambda m=mutant, s=source, f=files: attempt_anew(folder, m, s, f, took),  # type: ignore[misc]
                           600 + 100 * sum(cost.values()))
        keep(job["kept"], mutant, source, *(said if how == "said" else ("killed", f"ended: {said}")))
    sys.exit(0)


if __name__ == "__main__":
    main()
