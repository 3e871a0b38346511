"""What a release needs beside the sources: addresses, and a check of what was built.

    python tools/release.py urls https://HOST/OWNER/REPOSITORY   write the addresses into pyproject.toml and README.md
    python tools/release.py check dist                           look at the wheel and the sdist in a folder
    python tools/release.py checksums dist                       SHA-256 of everything there, into SHA256SUMS

The repository itself names no address: where it is published is known to whoever publishes it.
"""

from __future__ import annotations

import hashlib
import re
import sys
import tarfile
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SECTION = "[project.scripts]"


def with_urls(pyproject: str, address: str) -> str:
    """pyproject.toml with a [project.urls] section before the scripts; one that is there is replaced."""
    bare = re.sub(r"\[project\.urls\]\n(?:.+\n)*\n", "", pyproject)
    lines = [f'{name} = "{address}{path}"' for name, path in (
        ("Homepage", ""), ("Source", ""), ("Issues", "/issues"), ("Changelog", "/blob/main/CHANGELOG.md"))]
    head, _, tail = bare.partition(SECTION)
    if not tail:
        raise SystemExit(f"pyproject.toml: no {SECTION}")
    return head + "[project.urls]\n" + "\n".join(lines) + f"\n\n{SECTION}{tail}"


def with_absolute_links(readme: str, address: str) -> str:
    """README.md with links and pictures that work outside the repository."""
    readme = re.sub(r"!\[([^\]]*)\]\((?!https?:)([^)]+)\)", rf"![\1]({address}/raw/main/\2)", readme)
    return re.sub(r"(?<!!)\[([^\]]*)\]\((?!https?:|#)([^)]+)\)", rf"[\1]({address}/blob/main/\2)", readme)


def urls(address: str) -> int:
    """Write the addresses."""
    address = address.rstrip("/")
    for name, change in (("pyproject.toml", with_urls), ("README.md", with_absolute_links)):
        path = ROOT / name
        path.write_text(change(path.read_text(encoding="utf-8"), address), encoding="utf-8")
    return 0


def check(folder: Path) -> int:
    """The wheel holds the package alone, typed, with its data; the sdist what its tests need."""
    wheels, sdists = sorted(folder.glob("*.whl")), sorted(folder.glob("*.tar.gz"))
    bad: list[str] = []
    if len(wheels) != 1 or len(sdists) != 1:
        raise SystemExit(f"{folder}: {len(wheels)} wheels and {len(sdists)} sdists, must be one of each")
    with zipfile.ZipFile(wheels[0]) as wheel:
        names = wheel.namelist()
        bad += [f"wheel: {name}" for name in names if not name.startswith(("seamref/", "seamref-"))]
        wanted = {path.relative_to(ROOT).as_posix() for path in (ROOT / "seamref").rglob("*")
                  if path.suffix in (".py", ".json", ".gz", ".typed")}
        bad += [f"wheel lacks {name}" for name in sorted(wanted - set(names))]
    with tarfile.open(sdists[0]) as sdist:
        inside = {name.partition("/")[2] for name in sdist.getnames()}
    bad += [f"sdist lacks {name}" for name in ("LICENSE", "README.md", "CHANGELOG.md", "pyproject.toml",
                                               "tests/conftest.py", "tests/cli/test_cli.py") if name not in inside]
    print("\n".join(bad) or f"{wheels[0].name}, {sdists[0].name}: complete")
    return 1 if bad else 0


def checksums(folder: Path) -> int:
    """SHA-256 of every file, as sha256sum -c takes it."""
    lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.name}" for path in sorted(folder.iterdir())
             if path.is_file() and path.name != "SHA256SUMS"]
    (folder / "SHA256SUMS").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return 0


def main(verb: str = "", what: str = "") -> int:
    """Do one of the three."""
    match verb:
        case "urls" if what.startswith("https://"):
            return urls(what)
        case "check" if what:
            return check(Path(what))
        case "checksums" if what:
            return checksums(Path(what))
    print(__doc__)
    return 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:3]))
