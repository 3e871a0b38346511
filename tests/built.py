"""What a build of the book leaves behind."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class BuiltBook:
    """One build of the book with warnings as errors."""

    html: Path
    exit_status: int
    log: str
