#!/usr/bin/env python3
"""Are the public sources still where the rendered book says?  ``make linkcheck``; on demand, since it asks other hosts.

    python tools/linkcheck.py [--html FOLDER] [--offline] [--only PATTERN] [--json FILE]

Every address of another host in the pages that ``make book`` left in ``_build/html`` is looked at twice.  First its
form: https, a host, no blank, no comma or bracket that belongs to the sentence around it, one spelling for one place.
Then, unless ``--offline``, the place itself is asked: one host after the other, one question at a time, a pause in
between.  (Sphinx's own builder ``linkcheck`` does not know the links that are made from declared sources while a page
is written.)

An answer is one of these, and no other is taken for a good one:

    ok         the place answers; a fragment is not looked for
    moved      it answers from another address, for good: write that one
    gone       404 or 410
    refused    the host does not answer programs (401, 403, 405, 429, 999): look with a browser
    no answer  nobody knows: no such host, no connection, a time-out, a fault of the server

Exit codes: 0 all ok, moved or refused; 1 a form that is wrong, or a place that is gone; 2 bad arguments, no rendered
book; 3 some place gave no answer.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import urldefrag, urljoin, urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

ROOT = Path(__file__).resolve().parents[1]
HTML = ROOT / "_build" / "html"
LINK = re.compile(r'<a\b[^>]*\bhref="(https?:[^"]*)"', re.IGNORECASE)
GONE, SHY = {404, 410}, {401, 403, 405, 429, 999}
TIMEOUT_S, PAUSE_S = 20, 1.0
AGENT = "seamref-linkcheck (checks the sources of a book)"


@dataclass(frozen=True, slots=True)
class Answer:
    """What a place said: ``kind`` as in this module's first lines, ``detail`` for people."""

    kind: str
    detail: str = ""


def links(html: Path) -> dict[str, list[str]]:
    """Address -> the pages that lead to it."""
    found: dict[str, list[str]] = {}
    for page in sorted(html.rglob("*.html")):
        name = page.relative_to(html).as_posix()
        if name.startswith(("_static/", "_sources/")):
            continue
        for address in sorted({unescape(one) for one in LINK.findall(page.read_text(encoding="utf-8"))}):
            found.setdefault(address, []).append(name)
    return found


def form(address: str) -> str:
    """What is wrong with the form of one address; empty where nothing is."""
    parts = urlsplit(address)
    if parts.scheme != "https":
        return "not https"
    if not parts.hostname or "." not in parts.hostname:
        return "no host"
    if re.search(r"[\s<>\"\\^`{|}]", address):
        return "a character that must be escaped"
    if re.search(r"[.,;:!?]$", address) or (address.endswith(")") and "(" not in address):
        return "ends with a mark of the sentence around it"
    if "//" in parts.path:
        return "an empty step in its path"
    if parts.hostname == "github.com" and "/blob/HEAD/" in parts.path:
        return "a file at no tag and no commit"
    return ""


def spellings(addresses: Sequence[str]) -> list[tuple[str, ...]]:
    """Addresses of one place that are written in several ways: a slash at the end, capitals in the host."""
    same: dict[str, list[str]] = {}
    for address in addresses:
        parts = urlsplit(address)
        key = parts._replace(scheme="https", netloc=parts.netloc.lower(), path=parts.path.rstrip("/")).geturl()
        same.setdefault(key, []).append(address)
    return [tuple(held) for held in same.values() if len(held) > 1]


class _Stay(HTTPRedirectHandler):
    """A redirection is an answer, not a way."""

    def redirect_request(self, *args: object, **kwargs: object) -> None:
        return None


def ask(address: str, timeout: float = TIMEOUT_S) -> Answer:
    """Ask one place.  A host that refuses HEAD is asked with GET; a temporary redirection is followed, up to five."""
    opener, place, for_good = build_opener(_Stay), urldefrag(address).url, True
    for _ in range(6):
        status, where = 0, ""
        for method in ("HEAD", "GET"):
            try:
                with opener.open(Request(place, method=method, headers={"User-Agent": AGENT}), timeout=timeout) as held:
                    status = held.status
            except HTTPError as problem:
                status, where = problem.code, problem.headers.get("Location") or ""
                problem.close()
            except (URLError, OSError, ValueError) as problem:
                return Answer("no answer", str(getattr(problem, "reason", problem)))
            if status < 400:
                break
        if status in GONE:
            return Answer("gone", f"{status}")
        if status in SHY:
            return Answer("refused", f"{status}")
        if status >= 400:
            return Answer("no answer", f"{status}")
        if status < 300:
            moved = place != urldefrag(address).url and for_good
            return Answer("moved", place) if moved else Answer("ok")
        for_good = for_good and status in (301, 308)
        place = urldefrag(urljoin(place, where)).url
    return Answer("no answer", "redirected without end")


def check(found: Mapping[str, Sequence[str]], asking: Callable[[str], Answer] | None,
          pause: float = PAUSE_S) -> dict[str, Answer]:
    """Each address with its answer: ``form`` where its form is wrong, ``not asked`` where nobody was asked."""
    made: dict[str, Answer] = {}
    last: dict[str, float] = {}
    for address in sorted(found):
        wrong = form(address)
        if wrong or asking is None:
            made[address] = Answer("form", wrong) if wrong else Answer("not asked")
            continue
        host = urlsplit(address).hostname or ""
        time.sleep(max(0.0, last.get(host, 0.0) + pause - time.monotonic()))
        made[address] = asking(address)
        last[host] = time.monotonic()
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Look at every external link, and say which need somebody."""
    parser = argparse.ArgumentParser(description="The external links of the rendered book.")
    parser.add_argument("--html", type=Path, default=HTML, help="the rendered book (default: _build/html)")
    parser.add_argument("--offline", action="store_true", help="look at the form only, ask nobody")
    parser.add_argument("--only", default="", metavar="PATTERN", help="only addresses in which this pattern is found")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every address, its answer and its pages")
    args = parser.parse_args(argv)
    if not (args.html / "index.html").is_file():
        print(f"linkcheck: {args.html} holds no rendered book: make book", file=sys.stderr)
        return 2
    try:
        found = {address: pages for address, pages in links(args.html).items() if re.search(args.only, address)}
    except re.error as problem:
        print(f"linkcheck: --only {args.only!r} is no pattern: {problem}", file=sys.stderr)
        return 2
    answers = check(found, None if args.offline else ask)
    twice = spellings(sorted(found))
    for address, answer in answers.items():
        if answer.kind not in ("ok", "not asked"):
            pages = found[address]
            more = f" and {len(pages) - 1} more" if len(pages) > 1 else ""
            print(f"{answer.kind}: {address} ({answer.detail}), in {pages[0]}{more}")
    for held in twice:
        print(f"form: one place, {len(held)} spellings: {', '.join(held)}")
    counts = Counter(answer.kind for answer in answers.values())
    hosts = len({urlsplit(address).hostname for address in found})
    print(f"{len(found)} addresses on {hosts} hosts: " + ", ".join(f"{n} {kind}" for kind, n in sorted(counts.items())))
    if args.json is not None:
        args.json.write_text(json.dumps(
            {address: {"answer": answer.kind, "detail": answer.detail, "pages": list(found[address])}
             for address, answer in answers.items()}, indent=1) + "\n", encoding="utf-8")
    if twice or counts["form"] or counts["gone"]:
        return 1
    return 3 if counts["no answer"] else 0


if __name__ == "__main__":
    raise SystemExit(main())
