"""Which module may replace the running one on this CPU and this P-SEAMLDR: rules, and the published script's answer.

The rules are a table: what P-SEAMLDR would refuse, what Intel's mapping file does not support, what is pointless.
Intel's own script (``version_select_and_load.py``) decides by fewer; :func:`script_newest` is its algorithm, and
:data:`FLAWS` says where it errs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Any, NamedTuple

from seamref.errors import SeamrefError
from seamref.host.releases import RELEASES, Release, known_release
from seamref.spec import CHOSEN, MEASURED, STATED, Check, CheckTable, implements

STEPPING = 0xF


class Version(NamedTuple):
    """major.minor.update."""

    major: int
    minor: int
    update: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}.{self.update:02}"

    @property
    def line(self) -> tuple[int, int]:
        """(major, minor)."""
        return self.major, self.minor


def parse_version(text: str, what: str = "version") -> Version:
    """ "1.5.05", "1.5.5" or, as newer kernels print it, "1.5.05.0000"; anything else is an error that quotes it.

    The fourth part is a build that no rule looks at.
    """
    parts = text.strip().split(".")
    if len(parts) not in (3, 4) or not all(part.isascii() and part.isdigit() and len(part) <= 9 for part in parts):
        shown = text if len(text) <= 40 else text[:37] + "..."
        raise SeamrefError(f"{what}: {shown!r}, must be MAJOR.MINOR.UPDATE, three numbers (a fourth, the build, may "
                           f"follow)")
    return Version(*map(int, parts[:3]))


# --- the mapping file -----------------------------------------------------------------------------------


def parse_mapping(text: str, name: str = "mapping file") -> dict[str, Release]:
    """Releases as Intel's mapping_file.json lists them; what this book measured of them is kept.

    A missing or ill-formed key is an error that names entry and key.
    """
    import json

    try:
        held = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SeamrefError(f"{name}: not JSON ({error})") from None
    entries = held.get("tdx_module_releases") if isinstance(held, dict) else None
    if not isinstance(entries, list):
        raise SeamrefError(f"{name}: no list tdx_module_releases")
    found: dict[str, Release] = {}
    for index, entry in enumerate(entries):
        where = f"{name}: tdx_module_releases[{index}]"
        if not isinstance(entry, dict):
            raise SeamrefError(f"{where}: not an object")
        version = str(parse_version(_text(entry, "version", where), f"{where}.version"))
        if version in found:
            raise SeamrefError(f"{where}.version: {version} is listed twice")
        key = "min_module_version_for_td_preserving"
        least = parse_version(_text(entry, key, where), f"{where}.{key}")
        loaders = entry.get("min_seamldr_versions")
        if not isinstance(loaders, list) or not all(isinstance(loader, str) for loader in loaders):
            raise SeamrefError(f"{where}.min_seamldr_versions: {loaders!r}, must be a list of versions")
        for loader in loaders:
            parse_version(loader, f"{where}.min_seamldr_versions")
        features = _text(entry, "tdx_feature0", where)
        try:
            bits = int(features, 16)
        except ValueError:
            raise SeamrefError(f"{where}.tdx_feature0: {features!r}, must be a hexadecimal number") from None
        found[version] = replace(RELEASES.get(version, Release(version)), min_preserving=str(least),
                                 min_seamldr=tuple(loaders), features0=bits)
    return found


def _text(entry: Mapping[str, Any], key: str, where: str) -> str:
    value = entry.get(key)
    if not isinstance(value, str):
        raise SeamrefError(f"{where}.{key}: {value!r}, must be a string")
    return value


# --- the rules ------------------------------------------------------------------------------------------


class Objection(Enum):
    """Why a release is no candidate."""

    REFUSED = "P-SEAMLDR refuses it"
    UNSUPPORTED = "Intel does not support it"
    POINTLESS = "it changes nothing"


@dataclass(frozen=True, slots=True)
class Situation:
    """A platform: the running module (``None``: none, a cold load), P-SEAMLDR, CPUID.1:EAX of every package.

    ``remaining``: num_remaining_updates, ``None`` when not known.
    """

    running: Version | None
    seamldr: Version
    cpus: tuple[int, ...]
    remaining: int | None = None
    allow_debug: bool = False
    releases: tuple[Release, ...] = tuple(RELEASES.values())

    def release_of(self, version: Version | None) -> Release | None:
        """What is known of a version."""
        if version is None:
            return None
        listed = next((r for r in self.releases if parse_version(r.version) == version), None)
        return listed if listed is not None and listed.seamsvn else known_release(str(version)) or listed


@dataclass(frozen=True, slots=True)
class Option:
    """A release held against a situation; what the rules look at."""

    release: Release
    situation: Situation

    @property
    def version(self) -> Version:
        """Of the release."""
        return parse_version(self.release.version)

    @property
    def running(self) -> Release | None:
        """What is known of the running module."""
        return self.situation.release_of(self.situation.running)

    def is_update(self) -> bool:
        """Whether there is a module whose TDs are to survive."""
        return self.situation.running is not None

    def svns(self) -> tuple[tuple[int, int], tuple[int, int]] | None:
        """((major, minor) SVN of the release, the same of the running module), if both are known."""
        running = self.running
        if running is None or not running.seamsvn or not self.release.seamsvn:
            return None
        return divmod(self.release.seamsvn, 256), divmod(running.seamsvn, 256)

    def has_loader(self) -> bool:
        """Whether an entry of min_seamldr_versions admits the loader."""
        mine = self.situation.seamldr
        least = (parse_version(text) for text in self.release.min_seamldr)
        return any(v.line == mine.line and v.update <= mine.update for v in least)

    def missing_cpus(self) -> list[int]:
        """Packages whose CPUID.1:EAX, stepping aside, is not in the sigstruct."""
        listed = {cpu & ~STEPPING for cpu in self.release.cpuids}
        return [cpu for cpu in self.situation.cpus if cpu & ~STEPPING not in listed]


def _other_major_svn(c: Option) -> bool:
    svns = c.svns()
    return svns is not None and svns[0][0] != svns[1][0]


def _lower_minor_svn(c: Option) -> bool:
    svns = c.svns()
    return svns is not None and svns[0][0] == svns[1][0] and svns[0][1] < svns[1][1]


def _handoff(c: Option) -> bool:
    running = c.running
    if running is None or not running.measured or not c.release.measured:
        return False
    return not c.release.min_update_hv <= running.module_hv <= c.release.module_hv


PLAN: CheckTable[Option, Objection] = CheckTable("PLAN", (
    Check("PLAN.seamldr", "no entry of min_seamldr_versions has the loader's major.minor and at most its update",
          lambda c: not c.has_loader(), Objection.UNSUPPORTED, "BIN mapping_file.json"),
    Check("PLAN.reserved3", "reserved bytes of the sigstruct are not 0, which a 1.5 loader refuses (EBADSIG)",
          lambda c: c.situation.seamldr.line <= (1, 5) and c.release.reserved3.strip("0") != "", Objection.REFUSED,
          "PSL seamldr_install.c; BIN 11 releases", MEASURED),
    Check("PLAN.cpu", "a package's CPUID.1:EAX without stepping is not in the sigstruct (EUNSUPCPU)",
          lambda c: bool(c.release.cpuids) and bool(c.missing_cpus()), Objection.REFUSED, "PSL seamldr_install.c"),
    Check("PLAN.debug", "it is debug-signed and that was not asked for",
          lambda c: c.release.debug_signed and not c.situation.allow_debug, Objection.UNSUPPORTED,
          "BIN version_select_and_load.py"),
    Check("PLAN.remaining", "no update remains: SEAMDB is full until P-SEAMLDR loads afresh (EBADCALL)",
          lambda c: c.is_update() and c.situation.remaining == 0, Objection.REFUSED, "PSL seamldr_install.c"),
    Check("PLAN.major_svn", "another major SVN than the running module's: UPDATE refuses (EBADCALL)",
          lambda c: c.is_update() and _other_major_svn(c), Objection.REFUSED, "PSL seamldr_install.c"),
    Check("PLAN.minor_svn", "a lower minor SVN than the running module's: UPDATE refuses (EBADSIG)",
          lambda c: c.is_update() and _lower_minor_svn(c), Objection.REFUSED, "PSL seamldr_install.c"),
    Check("PLAN.handoff", "the running module's handoff version is outside what it reads (EBADHANDOFF)",
          lambda c: c.is_update() and _handoff(c), Objection.REFUSED, "PSL seamldr_install.c"),
    Check("PLAN.line", "another major.minor than the running module: TDs are not preserved",
          lambda c: c.situation.running is not None and c.version.line != c.situation.running.line,
          Objection.UNSUPPORTED, "BIN version_select_and_load.py", STATED),
    Check("PLAN.min_preserving", "the running module is older than min_module_version_for_td_preserving",
          lambda c: c.situation.running is not None and bool(c.release.min_preserving)
          and c.situation.running < parse_version(c.release.min_preserving), Objection.UNSUPPORTED,
          "BIN mapping_file.json"),
    Check("PLAN.downgrade", "older than the running module: Intel's script offers no way back",
          lambda c: c.situation.running is not None and c.version < c.situation.running, Objection.UNSUPPORTED,
          "BIN version_select_and_load.py"),
    Check("PLAN.same", "the running version: an update would only use up one of those that remain",
          lambda c: c.version == c.situation.running, Objection.POINTLESS, "SEAMREF errata", CHOSEN),
), "What speaks against a release; the first row that stops is the reason given, all are listed.")


@dataclass(frozen=True, slots=True)
class Candidate:
    """A release and every rule that speaks against it, the deciding one first; none: it may be installed."""

    release: Release
    against: tuple[Check[Option, Objection], ...]

    @property
    def good(self) -> bool:
        """Whether nothing speaks against it."""
        return not self.against


@implements("PLAN.newest", "of the releases that nothing speaks against, the newest", "SEAMREF errata", CHOSEN)
def plan(situation: Situation) -> list[Candidate]:
    """PLAN.newest: every release, newest first, with what speaks against it.  The first good one is the choice."""
    ordered = sorted(situation.releases, key=lambda r: parse_version(r.version), reverse=True)
    found = []
    for release in ordered:
        option = Option(release, situation)
        PLAN.decide(option)
        found.append(Candidate(release, tuple(PLAN.all_stopping(option))))
    return found


# --- the published script -------------------------------------------------------------------------------


@implements("SCRIPT.capable", "major.minor equal, update not lower than the running one's, min_preserving's update not "
            "above the running one's", "BIN version_select_and_load.py")
def script_capable(option: Option) -> bool:
    """SCRIPT.capable: ``is_td_preserving_capable``; the min's own major.minor is not looked at."""
    running = option.situation.running
    if running is None or (option.release.debug_signed and not option.situation.allow_debug):
        return False
    least = parse_version(option.release.min_preserving)
    return (option.version.line == running.line and option.version.update >= running.update
            and least.update <= running.update)


@implements("SCRIPT.compatible", "loader admitted by min_seamldr_versions, and the one CPU it runs on listed",
            "BIN version_select_and_load.py")
def script_compatible(option: Option) -> bool:
    """SCRIPT.compatible: ``is_compatible``; it looks at one CPU, here the first."""
    cpus = option.situation.cpus[:1]
    listed = {cpu & ~STEPPING for cpu in option.release.cpuids}
    return option.has_loader() and all(cpu & ~STEPPING in listed for cpu in cpus)


@implements("SCRIPT.newest", "the capable release with the highest update number, compatible or not",
            "BIN version_select_and_load.py")
def script_newest(situation: Situation) -> Release | None:
    """SCRIPT.newest: what the script calls the newest module."""
    capable = [r for r in situation.releases if r.min_preserving and script_capable(Option(r, situation))]
    return max(capable, key=lambda r: parse_version(r.version).update, default=None)


def script_installs(situation: Situation) -> Release | None:
    """What ``--update`` without a version goes on to write to the kernel: the newest, if it is compatible."""
    newest = script_newest(situation)
    return newest if newest is not None and script_compatible(Option(newest, situation)) else None


def best(situation: Situation) -> Release | None:
    """The newest release that nothing speaks against."""
    return next((c.release for c in plan(situation) if c.good), None)


def _newest_incompatible(s: Situation) -> bool:
    newest = script_newest(s)
    return newest is not None and not script_compatible(Option(newest, s)) and best(s) is not None


def _reinstalls(s: Situation) -> bool:
    newest = script_newest(s)
    return newest is not None and parse_version(newest.version) == s.running


def _older_possible(s: Situation) -> bool:
    return any({row.id for row in c.against} == {"PLAN.downgrade"} for c in plan(s))


def _other_package(s: Situation) -> bool:
    chosen = script_installs(s)
    return chosen is not None and bool(Option(chosen, s).missing_cpus())


def _handoff_ignored(s: Situation) -> bool:
    chosen = script_installs(s)
    return chosen is not None and _handoff(Option(chosen, s))


def _never(s: Situation) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Flaw:
    """Where the published script errs.  ``shows`` tells whether it changes the answer in a situation.

    ``always``: it does whatever the situation (paths, formats, exit codes).
    """

    number: int
    says: str
    consequence: str
    shows: Callable[[Situation], bool] = _never
    always: bool = False


FLAWS = (
    Flaw(1, "writes to the upload directory seamldr_upload; kernels since series v4 call it tdx_module",
         "the path is missing: exit 1", always=True),
    Flaw(2, "reads the P-SEAMLDR version at seamldr/version; the merged kernel has seamldr_version",
         "every module counts as incompatible", always=True),
    Flaw(3, "knows only files of format 1.0; the merged kernel takes only 2.0",
         "the write is refused: transferring:firmware-invalid", always=True),
    Flaw(4, "never reads num_remaining_updates", "with none left it fails after the old module is shut down",
         lambda s: s.remaining == 0 and script_installs(s) is not None),
    Flaw(5, "its newest is not filtered by CPU or P-SEAMLDR",
         "an incompatible newest: nothing is installed, though an older one would do", _newest_incompatible),
    Flaw(6, "compares update numbers with >=", "the running version is reinstalled, using up one update each time",
         _reinstalls),
    Flaw(7, "says that no newer module was found only when none qualifies",
         "the running one qualifies, so it never says so", _reinstalls),
    Flaw(8, "offers no way to an older module", "even where SVN and handoff versions allow it", _older_possible),
    Flaw(9, "reads module_hv, min_update_hv and no_downgrade of neither module",
         "an incompatible handoff is found only by P-SEAMLDR or TDH.SYS.UPDATE", _handoff_ignored),
    Flaw(10, "looks at the one CPU it happens to run on", "P-SEAMLDR looks at every package: EUNSUPCPU",
         _other_package),
    Flaw(11, "leaves the stepping out of the comparison", "so does P-SEAMLDR: no harm"),
    Flaw(12, "returns from its failure paths without an exit code", "callers see success"),
    Flaw(13, "checks no checksum, magic, hash or signature", "left to the kernel (which checks none) and P-SEAMLDR"),
    Flaw(14, "matches versions as strings", "--update 1.5.5 does not find 1.5.05"),
    Flaw(15, "its README calls a module incapable when its update is above the running one's; the code, when below",
         "and lists a label Incompatible that the code never prints"),
    Flaw(16, "does not ask whether a TD is being built or migrated", "its README says that this must be avoided"),
    Flaw(17, "walks directories recursively", "a nested directory named like a version counts too"),
    Flaw(18, "waits 10 s, while every CPU may sit in stop_machine", "a slow success can be reported as a time-out"),
)
"""In the order of the facts; 11 is listed as a flaw there and is none."""


def flaws_that_show(situation: Situation) -> list[Flaw]:
    """The flaws that matter in a situation: those that change the answer there, and those that always bite."""
    return [flaw for flaw in FLAWS if flaw.always or flaw.shows(situation)]


def what_is_known(version: Version | None, releases: Sequence[Release]) -> str:
    """One sentence on how much the rules know of the running module; "" when they know all they ask for."""
    if version is None:
        return ""
    held = known_release(str(version))
    listed = any(parse_version(r.version) == version for r in releases)
    if held is None:
        where = "only the mapping file names it" if listed else "no release of that version is known"
        return (f"nothing is known of the running {version} ({where}): its SVN and handoff fields are not known, so "
                f"rules "
                "on them are silent")
    if not held.measured:
        return (f"of the running {version} only the release notes are known: its SVN is "
                f"{held.seamsvn >> 8}.{held.seamsvn & 255}, its handoff fields are not known")
    return ""


def make_situation(running: str | None, seamldr: str, cpus: Iterable[int], *, remaining: int | None = None,
                   allow_debug: bool = False, releases: Sequence[Release] | None = None) -> Situation:
    """A situation from texts and numbers; ``releases`` defaults to the eleven published ones.

    ``running`` None or "none": no module runs, a cold load.
    """
    for cpu in (cpus := tuple(cpus)):
        if not 0 <= cpu < 1 << 32:
            raise SeamrefError(f"CPUID.1:EAX: {cpu:#x}, must have 32 bits" if cpu >= 0 else f"CPUID.1:EAX: {cpu}, is "
                               f"negative")
    if remaining is not None and not 0 <= remaining < 1 << 32:
        raise SeamrefError(f"num_remaining_updates: {remaining}, must have 32 bits")
    return Situation(
        None if running is None or running.strip().lower() == "none" else parse_version(running, "running module"),
        parse_version(seamldr, "P-SEAMLDR"),
        tuple(cpus), remaining, allow_debug, tuple(RELEASES.values()) if releases is None else tuple(releases),
    )
