"""Serve the rendered book on this machine, for this machine only.  Usage: ``python tools/serve.py [PORT [FOLDER]]``.

Any static web server will do.  This one adds what makes the live cells better: headers that isolate the pages, so
that a running cell can be interrupted without losing the session, and leave to keep what is named after its content.
"""

from __future__ import annotations

import functools
import sys
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
FOREVER = "/_static/live/"
ISOLATED = {"Cross-Origin-Opener-Policy": "same-origin", "Cross-Origin-Embedder-Policy": "require-corp"}


class Book(SimpleHTTPRequestHandler):
    """Files of a folder, quietly."""

    # Not what the machine's own table says: a browser runs a module only under its right name.
    extensions_map = SimpleHTTPRequestHandler.extensions_map | {
        ".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".svg": "image/svg+xml",
    }
    protocol_version = "HTTP/1.1"

    answer = 0

    def send_response(self, code: int, message: str | None = None) -> None:
        """Remember the status: only what is there may be kept."""
        self.answer = code
        super().send_response(code, message)

    def end_headers(self) -> None:
        """Add the headers."""
        for name, value in ISOLATED.items():
            self.send_header(name, value)
        kept = self.answer in (200, 304) and self.path.startswith(FOREVER)
        self.send_header("Cache-Control", "max-age=31536000, immutable" if kept else "no-cache")
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing of what is well."""

    def log_error(self, format: str, *args: object) -> None:
        """Say what is not there, and where."""
        print(f"{self.path}: {format % args}", file=sys.stderr)


def server(folder: Path, port: int = 0) -> ThreadingHTTPServer:
    """A server of a folder on 127.0.0.1; port 0 is any that is free."""
    return ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Book, directory=str(folder)))


def main(arguments: list[str]) -> int:
    """Serve until interrupted."""
    port = arguments[0] if arguments else "8000"
    folder = Path(arguments[1]) if len(arguments) > 1 else ROOT / "_build" / "html"
    if not port.isdigit() or int(port) > 65535:
        print(f"serve: a port is a number up to 65535, not {port!r}", file=sys.stderr)
        return 2
    if not (folder / "index.html").is_file():
        print(f"serve: no book in {folder}; say make book", file=sys.stderr)
        return 1
    try:
        held = server(folder, int(port))
    except OSError as error:
        print(f"serve: port {port}: {error.strerror}; say make serve PORT=...", file=sys.stderr)
        return 1
    print(f"The book is at http://127.0.0.1:{held.server_port}/ until you press Ctrl-C.", flush=True)
    try:
        held.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        held.server_close()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
