"""Mutation testing with cosmic-ray: small changes of the code, and those that no test notices.

    python tools/mutants.py                       every module below, all mutants (hours)
    python tools/mutants.py manifest --sample 40  one module, every n-th mutant so that about forty are tried

The package and its tests are copied to a temporary folder first: the working tree is never changed.  A report, not a
test: it prints, for each module, how many mutants its tests killed and the difference of each survivor.
"""

from __future__ import annotations

import argparse
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
MODULES: dict[str, tuple[str, ...]] = {
    "seamref/arch/seam.py": ("tests/arch/test_seam.py", "tests/arch/test_vmx.py", "tests/arch/test_events.py"),
    "seamref/arch/memory.py": ("tests/arch/test_memory.py", "tests/arch/test_prmrr.py"),
    "seamref/pseamldr/install.py": ("tests/pseamldr",),
    "seamref/pseamldr/manifest.py": ("tests/pseamldr/test_rows.py", "tests/pseamldr/test_order.py",
                                     "tests/pseamldr/test_sigstruct.py", "tests/pseamldr/test_leaves.py"),
    "seamref/firmware/np_seamldr": ("tests/firmware/test_np_seamldr.py", "tests/firmware/test_np_measured.py"),
    "seamref/host/image.py": ("tests/host/test_image.py",),
    "seamref/tdxmodule/system": ("tests/tdxmodule/test_rows.py", "tests/tdxmodule/test_parts.py",
                                 "tests/tdxmodule/test_updates.py"),
}
"""What is changed, and the tests that must notice."""

CONFIG = """[cosmic-ray]
module-path = "{module}"
timeout = {timeout}
excluded-modules = []
test-command = "{python} -m pytest -x -q -p no:cacheprovider -p no:xdist -o addopts= {tests}"
[cosmic-ray.distributor]
name = "local"
"""


def place(module: str) -> str:
    """A module that has become a folder, or a folder that is still a file, is found under either name."""
    for name in (module, module.removesuffix(".py"), f"{module}.py"):
        if (ROOT / name).exists():
            return name
    raise SystemExit(f"{module}: is not there")


def cosmic_ray(folder: Path, *words: str) -> str:
    """Run the tool; what it prints."""
    done = subprocess.run([str(Path(sys.executable).with_name("cosmic-ray")), *words], cwd=folder, capture_output=True,
                          text=True, check=False)
    if done.returncode:
        raise SystemExit(f"cosmic-ray {' '.join(words)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout


def try_module(module: str, tests: tuple[str, ...], sample: int, timeout: float) -> tuple[int, int, list[str]]:
    """(mutants tried, killed, differences of the survivors) of one module."""
    with tempfile.TemporaryDirectory(prefix="mutants-") as held:
        folder = Path(held)
        for name in ("seamref", "tests", "tools", "book"):
            shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__", "*.ipynb"))
        for name in ("pyproject.toml", "conftest.py"):
            shutil.copy(ROOT / name, folder / name)
        present = [test for test in tests if (folder / test).exists()]
        (folder / "cr.toml").write_text(CONFIG.format(module=place(module), timeout=timeout, python=sys.executable,
                                                      tests=" ".join(present)))
        cosmic_ray(folder, "baseline", "cr.toml")
        cosmic_ray(folder, "init", "cr.toml", "cr.sqlite")
        with sqlite3.connect(folder / "cr.sqlite") as store:
            # Without @implements or @dataclass nothing acts differently: such mutants are equivalent, or do not import.
            specs = store.execute("select job_id, operator_name from mutation_specs order by rowid").fetchall()
            jobs = [job for job, operator in specs if operator != "core/RemoveDecorator"]
            keep = set(jobs[:: max(1, len(jobs) // sample)] if sample else jobs)
            for job in {job for job, _ in specs} - keep:
                store.execute("delete from mutation_specs where job_id = ?", (job,))
                store.execute("delete from work_items where job_id = ?", (job,))
        cosmic_ray(folder, "exec", "cr.toml", "cr.sqlite")
        with sqlite3.connect(folder / "cr.sqlite") as store:
            rows = store.execute("select test_outcome, diff from work_results").fetchall()
    alive = [diff for outcome, diff in rows if str(outcome).upper().endswith("SURVIVED")]
    return len(rows), len(rows) - len(alive), alive


def main() -> int:
    """Try the modules that were asked for."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("module", nargs="*", help="part of a module's name (default: all)")
    parser.add_argument("--sample", type=int, default=0, metavar="N", help="about this many mutants of each module")
    parser.add_argument("--timeout", type=float, default=120.0, metavar="S", help="seconds for the tests (120)")
    args = parser.parse_args()
    total = killed = 0
    for module, tests in MODULES.items():
        if args.module and not any(part in module for part in args.module):
            continue
        tried, dead, alive = try_module(module, tests, args.sample, args.timeout)
        total, killed = total + tried, killed + dead
        print(f"{module}: {dead} of {tried} mutants killed ({100 * dead / max(tried, 1):.1f} %)", flush=True)
        for diff in alive:
            print("".join(f"    {line}\n" for line in diff.splitlines() if line[:1] in "-+@"), flush=True)
    print(f"all: {killed} of {total} ({100 * killed / max(total, 1):.1f} %)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
