"""Another implementation as a running program: one JSON request a line to it, one answer a line from it, never trusted.

Whatever it does, asking it ends: in an answer, or in a :class:`Trouble` that names what happened.  Time for an answer,
length of a line and what is kept of its standard error are bounded.  Threads move the bytes, so that a program that
writes without reading, or reads nothing, cannot hold anybody up, and so that it works where pipes cannot be polled.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum
from typing import IO, TYPE_CHECKING, Any

from seamref.conformance.reading import FormatError, parse_document, shown
from seamref.errors import SeamrefError

if TYPE_CHECKING:
    import subprocess

LINE_LIMIT = 1 << 20
"""Bytes of one answer."""
TAIL = 2048
"""Bytes of standard error that are kept: the last ones."""
GRACE_S = 5.0
"""Seconds in which a program that closed its output must have ended."""


class Kind(Enum):
    """What a consumer can do wrong, apart from answering otherwise."""

    HANGS = "no answer in time"
    DIED = "died"
    CLOSED = "closed its output"
    ORDER = "answers out of order"
    NOT_JSON = "not JSON"
    NOT_AN_ANSWER = "not an answer"
    TOO_MUCH = "too much output"
    NO_END = "does not end"


@dataclass(frozen=True, slots=True)
class Trouble:
    """What happened instead of an answer; ``stderr`` is the end of what the program complained."""

    kind: Kind
    detail: str
    stderr: str = ""

    def __str__(self) -> str:
        said = f"; its standard error ends: {self.stderr}" if self.stderr else ""
        return f"{self.kind.value}: {self.detail}{said}"


@dataclass(frozen=True, slots=True)
class Answered:
    """An answer of the form: the fields of the output that were said, or the reason why there are none."""

    output: Mapping[str, Any]
    skipped: str = ""


class Consumer:
    """A program under test.  :meth:`ask` asks it one thing; after a Trouble it must be started again.

    ``command``  the program and its arguments; no shell is involved
    ``timeout``  seconds for one answer, the start included, and for the end behind the end of input
    ``limit``    bytes of one line
    """

    def __init__(self, command: Sequence[str], *, timeout: float = 10.0, limit: int = LINE_LIMIT) -> None:
        self.command, self.timeout, self.limit = list(command), timeout, limit
        self.process: subprocess.Popen[bytes] | None = None
        self._left = b""

    def start(self) -> None:
        """Start the program; a command that cannot be started is an error that names it."""
        try:
            import subprocess
        except ImportError:  # a browser's Python
            raise SeamrefError(f"cannot start {shown(self.command[0])}: there are no processes here") from None
        try:
            self.process = subprocess.Popen(
                self.command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, bufsize=0,
                start_new_session=hasattr(os, "setsid"),
            )
        except (OSError, ValueError) as error:
            said = getattr(error, "strerror", None) or str(error)
            raise SeamrefError(f"cannot start {shown(self.command[0])}: {said}") from None
        self._left = b""
        self._out: queue.Queue[bytes | None] = queue.Queue(maxsize=16)
        self._in: queue.Queue[bytes | None] = queue.Queue()
        self._tail = b""
        assert self.process.stdin and self.process.stdout and self.process.stderr
        for work in (self._read_out, self._read_err, self._write):
            threading.Thread(target=work, args=(self.process,), daemon=True).start()

    # --- threads

    def _read_out(self, process: subprocess.Popen[bytes]) -> None:
        out, into = process.stdout, self._out
        for part in _parts(out):
            into.put(part)
        into.put(None)

    def _read_err(self, process: subprocess.Popen[bytes]) -> None:
        for part in _parts(process.stderr):
            self._tail = (self._tail + part)[-TAIL:]

    def _write(self, process: subprocess.Popen[bytes]) -> None:
        pipe, lines = process.stdin, self._in
        assert pipe is not None
        with suppress(OSError, ValueError):
            while (line := lines.get()) is not None:
                rest = memoryview(line)
                while rest:
                    rest = rest[pipe.write(rest):]
        with suppress(OSError, ValueError):
            pipe.close()

    # --- asking

    def ask(self, id: str, request: Mapping[str, Any]) -> Answered | Trouble:
        """Send one request, and wait for the line that answers it."""
        if self._unasked():
            return self._trouble(Kind.TOO_MUCH, "a second line before the next request")
        self._in.put(json.dumps(request, ensure_ascii=True, separators=(",", ":")).encode() + b"\n")
        line = self._line(time.monotonic() + self.timeout)
        return line if isinstance(line, Trouble) else self._judge(id, line)

    def _unasked(self) -> bool:
        """Whether something was written that nobody asked for."""
        with suppress(queue.Empty):
            while (part := self._out.get_nowait()) is not None:
                self._left += part
                if len(self._left) > self.limit:
                    break
            else:
                self._out.put(None)
        return bool(self._left.strip())

    def _line(self, until: float) -> bytes | Trouble:
        data = self._left
        while b"\n" not in data:
            if len(data) > self.limit:
                return self._trouble(Kind.TOO_MUCH, f"a line of more than {self.limit} bytes")
            try:
                part = self._out.get(timeout=max(0.0, until - time.monotonic()))
            except queue.Empty:
                kept = f"; {len(data)} bytes without an end of line" if data else ""
                return self._trouble(Kind.HANGS, f"none within {self.timeout:g} s{kept}")
            if part is None:
                return self._gone()
            data += part
        line, _, self._left = data.partition(b"\n")
        if len(line) > self.limit:
            return self._trouble(Kind.TOO_MUCH, f"a line of more than {self.limit} bytes")
        return line

    def _gone(self) -> Trouble:
        from subprocess import TimeoutExpired

        assert self.process is not None
        with suppress(TimeoutExpired):
            self.process.wait(GRACE_S)
            return self._trouble(Kind.DIED, ended_in_words(self.process.returncode))
        return self._trouble(Kind.CLOSED, "and runs on")

    def _judge(self, id: str, line: bytes) -> Answered | Trouble:
        said = shown(line.decode("utf-8", "backslashreplace"))
        if not line.strip().startswith(b"{"):
            return self._trouble(Kind.NOT_JSON, f"{said}, must be one JSON object a line")
        try:
            answer = parse_document(line)
        except FormatError as error:
            return self._trouble(Kind.NOT_JSON, f"{said}: {error.problem}")
        unknown = sorted(set(answer) - {"id", "output", "skip"})
        if unknown:
            return self._trouble(Kind.NOT_AN_ANSWER, f"a field {shown(unknown[0])}; there are id, output and skip")
        if answer.get("id") != id:
            return self._trouble(Kind.ORDER, f"{shown(answer.get('id'))} where {id} was asked")
        output, skip = answer.get("output"), answer.get("skip")
        if isinstance(skip, str) and skip and output is None:
            return Answered({}, skip)
        if skip is not None:
            return self._trouble(Kind.NOT_AN_ANSWER, "skip must be a reason in words, and stands without output")
        if not isinstance(output, dict) or not output:
            return self._trouble(Kind.NOT_AN_ANSWER, f"output is {shown(output)}, must be an object with fields")
        return Answered(output)

    def _trouble(self, kind: Kind, detail: str) -> Trouble:
        """Name it; the program is of no use any more."""
        self.kill()
        tail = self._tail.decode("utf-8", "backslashreplace").strip()
        return Trouble(kind, detail, shown(tail[-200:], 250) if tail else "")

    # --- the end

    def finish(self) -> Trouble | None:
        """Say that nothing more comes, and see that the program ends well."""
        from subprocess import TimeoutExpired

        if self.process is None:
            return None
        if self._unasked():
            return self._trouble(Kind.TOO_MUCH, "a line behind the last answer")
        self._in.put(None)
        try:
            code = self.process.wait(self.timeout)
        except TimeoutExpired:
            return self._trouble(Kind.NO_END, f"not within {self.timeout:g} s behind the end of its input")
        self._close()
        return self._trouble(Kind.DIED, f"{ended_in_words(code)} behind the end of its input") if code else None

    def kill(self) -> None:
        """End the program and what it started, at once."""
        from subprocess import TimeoutExpired

        process = self.process
        if process is None:
            return
        if process.poll() is None:
            with suppress(OSError):
                if hasattr(os, "killpg"):
                    os.killpg(process.pid, signal.SIGKILL)
                else:
                    process.kill()
            with suppress(TimeoutExpired):
                process.wait(GRACE_S)
        self._in.put(None)
        self._close()

    def _close(self) -> None:
        """Let the reading thread out of a full queue; the pipes are closed by their threads."""
        with suppress(queue.Empty):
            while self._out.get_nowait() is not None:
                pass
        self.process = None


def _parts(pipe: IO[bytes] | None) -> Any:
    """What comes through a pipe, in pieces; ends where the pipe does."""
    assert pipe is not None
    with pipe, suppress(OSError, ValueError):
        while part := pipe.read(1 << 16):
            yield part


def ended_in_words(code: int) -> str:
    """An exit status as a shell's user knows it."""
    if code >= 0:
        return f"exit status {code}"
    with suppress(ValueError):
        return f"signal {-code} ({signal.Signals(-code).name})"
    return f"signal {-code}"
