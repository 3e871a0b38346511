"""Names that people type: without regard to case, and with a guess where there is none."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from seamref.errors import SeamrefError


def guess(text: str, names: Iterable[str]) -> str:
    """The end of a complaint: names that are like this one, or "" ."""
    known = {name.lower(): name for name in names}
    near = get_close_matches(text.lower(), known, n=3, cutoff=0.6)
    near += [name for name in known if len(text) > 2 and text.lower() in name and name not in near][:3]
    return f"; did you mean {' or '.join(known[name] for name in near[:3])}?" if near else ""


def pick(text: str, names: Iterable[str], what: str) -> str:
    """The name that is meant; an error that lists them all when there is none."""
    known = list(names)
    if text in known:
        return text
    same = [name for name in known if name.lower() == text.lower()]
    if len(same) == 1:
        return same[0]
    raise SeamrefError(f"no {what} {text!r}" + (guess(text, known) or f"; there are {', '.join(known)}"))


def count(value: int | None, name: str, low: int, high: int) -> None:
    """Refuse a number out of its range, by the option's name."""
    if value is not None and not low <= value <= high:
        raise SeamrefError(f"{name}: {value}, must be {low} to {high}")
