"""A sign of life on standard error for whoever waits at a terminal: what runs, and for how long.

Nothing is printed within the first two seconds, nothing where standard error is no terminal, and the line is gone
before anything else is printed.
"""

from __future__ import annotations

import sys
import threading
import time
from typing import Any, TextIO

AFTER, EVERY = 2.0, 0.5
ERASE = "\r\x1b[K"


class Waiting:
    """While it is open, the seconds are counted on standard error; ``at`` says what is being done."""

    current: Waiting | None = None

    def __init__(self, what: str, err: TextIO | None = None) -> None:
        self.what, self.doing = what, ""
        self.err = err if err is not None else sys.stderr
        self.began = time.monotonic()
        self.shown = False
        self.lock = threading.RLock()
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._watch, name="progress", daemon=True)
        self.wrapped: list[tuple[str, Any]] = []

    def __enter__(self) -> Waiting:
        Waiting.current = self
        for name in ("stdout", "stderr"):
            stream = getattr(sys, name)
            if stream is not None and stream.isatty():
                self.wrapped.append((name, stream))
                setattr(sys, name, _Erasing(stream, self))
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()
        self.erase()
        for name, stream in self.wrapped:
            setattr(sys, name, stream)
        Waiting.current = None

    def erase(self) -> None:
        """Take the line away."""
        with self.lock:
            if self.shown:
                self.err.write(ERASE)
                self.err.flush()
                self.shown = False

    def _watch(self) -> None:
        wait = AFTER
        while not self.over.wait(wait):
            wait = EVERY
            with self.lock:
                doing = f": {self.doing}" if self.doing else ""
                self.err.write(f"{ERASE}{self.what}{doing}, {time.monotonic() - self.began:.0f} s")
                self.err.flush()
                self.shown = True


class _Erasing:
    """A terminal that takes the line of progress away before it prints."""

    def __init__(self, stream: Any, waiting: Waiting) -> None:
        self._stream, self._waiting = stream, waiting

    def write(self, text: str) -> int:
        """Write, with the line of progress gone."""
        with self._waiting.lock:
            self._waiting.erase()
            return int(self._stream.write(text))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def at(doing: str) -> None:
    """Say what is being done; nothing happens where nobody waits."""
    if Waiting.current is not None:
        Waiting.current.doing = doing
