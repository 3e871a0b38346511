"""`python -m seamref`: ask the specification from a shell."""

from __future__ import annotations

import sys
from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """The command line; interrupted while it is imported, it says so as later."""
    try:
        from seamref.cli import main as run

        return run(argv)
    except KeyboardInterrupt:
        print("seamref: interrupted", file=sys.stderr)
        return 130


if __name__ == "__main__":
    sys.exit(main())
