"""Write a kit that others can hold their implementation against: vectors, tables and headers, with schemas and pages.

The same words give the same bytes, everywhere.  A folder that holds an earlier kit gets this one instead: files that
the earlier one had and this one has not are removed.  Files that are no kit's are left alone, and where one stands in
the place of a file of the kit, or somebody has changed one, nothing is written without --force.
"""

from __future__ import annotations

import argparse
from contextlib import suppress
from hashlib import sha256
from pathlib import Path, PurePosixPath

HELP = "a kit of vectors, tables and headers for other implementations"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    from seamref.commands._answer import add_json

    parser.add_argument("folder", metavar="DIR", nargs="?", help="where to; made where it is not there")
    parser.add_argument("--only", action="append", metavar="SET", default=[], help="only this set (may be repeated)")
    parser.add_argument("--small", action="store_true", help="of each set the tests that decide first: below 3 MB")
    parser.add_argument("--prefix", default="seamref", metavar="NAME", help="what C names begin with (seamref)")
    parser.add_argument("--list", action="store_true", help="what sets there are; nothing is written")
    parser.add_argument("--force", action="store_true", help="replace also files that are no kit's, or were changed")
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Write the kit, or list what it can have."""
    from seamref.commands._answer import Rows, print_json
    from seamref.commands._files import named, write_all
    from seamref.commands._names import pick
    from seamref.commands._progress import at
    from seamref.errors import SeamrefError

    if args.list:
        if args.folder or args.only or args.small or args.force:
            raise SeamrefError("--list says what sets there are: without DIR, --only, --small and --force")
        from seamref.commands._declared import export_sets

        rows = Rows(args, "export-sets", "sets")
        for name, title in export_sets().items():
            rows.add(f"{name:<24} {title}", set=name, title=title)
        return rows.end()
    if args.folder is None:
        raise SeamrefError("export needs a folder to write to, or --list")
    from seamref.export import kit

    names = [pick(name, kit.set_names(), "set") for name in args.only]
    folder = Path(args.folder)
    if folder.exists() and not folder.is_dir():
        raise SeamrefError(f"{named(folder)}: is no folder")
    files = kit.kit(names, small=args.small, prefix=args.prefix, progress=at)
    held = _held(folder, kit.MANIFEST)
    gone = [path for path in held if path not in files and _is(folder, path, held[path])]
    _refuse_links(folder, files)
    if not args.force:
        _refuse(folder, files, held)
    made = _make_folders(folder, files)
    try:
        write_all([(str(folder / path), data) for path, data in files.items()], force=True)
    except BaseException:
        for path in reversed(made):
            with suppress(OSError):
                path.rmdir()
        raise
    for name in gone:
        _remove(folder, name)
    size = sum(map(len, files.values()))
    if args.json:
        print_json("export", {"folder": args.folder, "size": "small" if args.small else "full", "bytes": size,
                              "files": len(files), "removed": sorted(gone)})
    else:
        print(f"{named(args.folder)}: {len(files)} files, {size} bytes" +
              (f"; {len(gone)} of an earlier kit removed" if gone else ""))
    return 0


def _held(folder: Path, manifest: str) -> dict[str, str]:
    """Path -> hash, as the kit that is there says; empty where none is."""
    from seamref.commands._files import named, read_text
    from seamref.errors import SeamrefError

    place = folder / manifest
    if not place.is_file():
        return {}
    found = {}
    for number, line in enumerate(read_text(place).splitlines(), 1):
        digest, gap, path = line.partition("  ")
        parts = PurePosixPath(path).parts
        if not gap or len(digest) != 64 or not parts or "\\" in path or any(part in ("..", "/") for part in parts):
            raise SeamrefError(f"{named(place)}: line {number} is no line of a kit's hashes")
        found[path] = digest
    return found


def _is(folder: Path, path: str, digest: str) -> bool:
    """Whether a file is there as the hash says, in real folders."""
    place = folder / path
    if any(part.is_symlink() for part in (place, *place.parents) if folder in part.parents):
        return False
    try:
        return sha256(place.read_bytes()).hexdigest() == digest
    except OSError:
        return False


def _refuse(folder: Path, files: dict[str, bytes], held: dict[str, str]) -> None:
    """Nothing of somebody else's is replaced: what stands in a place must be an earlier kit's, or this very file."""
    from seamref.commands._files import named
    from seamref.errors import SeamrefError

    for path, data in files.items():
        place = folder / path
        if not place.exists() and not place.is_symlink():
            continue
        ours = sha256(data).hexdigest()
        if path == _manifest_name() and held:
            continue
        if not any(_is(folder, path, digest) for digest in (held.get(path, ours), ours)):
            what = "was changed since it was exported" if path in held else "is no file of a kit"
            raise SeamrefError(f"{named(place)}: {what} (--force replaces it)")


def _refuse_links(folder: Path, files: dict[str, bytes]) -> None:
    """Nothing is written through a link in the kit's folder, not with --force either: it leads to somebody else's."""
    from seamref.commands._files import named
    from seamref.errors import SeamrefError

    for path in files:
        place = folder / path
        for part in (place, *place.parents):
            if part == folder:
                break
            if part.is_symlink():
                raise SeamrefError(f"{named(part)}: is a link, and nothing is written through it")


def _manifest_name() -> str:
    from seamref.export.kit import MANIFEST

    return MANIFEST


def _make_folders(folder: Path, files: dict[str, bytes]) -> list[Path]:
    """The folders that the files need; those that were made, the outer ones first."""
    from seamref.commands._files import named
    from seamref.errors import SeamrefError

    made: list[Path] = []
    for path in dict.fromkeys((folder / name).parent for name in files):
        for part in (*reversed(path.parents), path):
            try:
                part.mkdir()
                made.append(part)
            except FileExistsError:
                continue
            except OSError as error:
                raise SeamrefError(f"{named(part)}: {error.strerror or error}") from None
    return made


def _remove(folder: Path, name: str) -> None:
    """Remove a file of an earlier kit, and the folders that this leaves empty."""
    place = folder / name
    place.unlink()
    for part in place.parents:
        if part == folder:
            break
        with suppress(OSError):
            part.rmdir()
