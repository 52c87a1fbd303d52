"""`npattn docs`: a built site, served on this machine alone: pages opened as files can only be read."""

from __future__ import annotations

import argparse
import functools
import http.server
import webbrowser
from pathlib import Path
from typing import Any

from npattn.commands.usage import UsageError

BUILT = "docs/_build/html"
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".wasm": "application/wasm", ".json": "application/json"}
"""What a browser has to be told to run a file; the system's own table may say otherwise."""


def add_parser(commands: Any) -> None:
    """Add the sub-command to the parser of `npattn`."""
    sub = commands.add_parser(
        "docs",
        help="open the documentation's site in the browser, to work in",
        description="Serve a built site on 127.0.0.1 and open it in the browser. Ctrl-C ends it.",
    )
    sub.add_argument("folder", nargs="?", default=BUILT, metavar="FOLDER", help=f"with the site ({BUILT})")
    sub.add_argument("--port", type=int, default=0, metavar="N", help="to serve on (any that is free)")
    sub.add_argument("--no-browser", action="store_true", help="only say the address")
    sub.set_defaults(run=run)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Files of a folder, with the types that a browser needs; what is asked for is not printed."""

    extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, **TYPES}

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


def server(folder: Path, port: int = 0) -> http.server.ThreadingHTTPServer:
    """A server of that folder on 127.0.0.1; its `server_port` is where. Raises OSError if the port is taken."""
    return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(Handler, directory=str(folder)))


def run(arguments: argparse.Namespace) -> int:
    """Serve until Ctrl-C. Returns 0."""
    folder = Path(arguments.folder)
    if not (folder / "index.html").is_file():
        raise UsageError(f"FOLDER: expected a built site, got {folder}, which has no index.html; sphinx-build makes it")
    if not 0 <= arguments.port <= 65535:
        raise UsageError(f"--port: expected a number from 0 to 65535, got {arguments.port}")
    with server(folder, arguments.port) as serving:
        address = f"http://127.0.0.1:{serving.server_port}/"
        print(f"{folder} at {address} (Ctrl-C ends it)", flush=True)
        if not arguments.no_browser:
            webbrowser.open(address)
        try:
            serving.serve_forever()
        except KeyboardInterrupt:
            print()
    return 0
