"""`python -m seamref`: ask the specification from a shell."""

from __future__ import annotations

import sys

from seamref.cli import main

if __name__ == "__main__":
    sys.exit(main())
