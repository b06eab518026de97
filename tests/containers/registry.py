"""A registry that images can be fetched from: ``registry.py PORT FOLDER LOG``, with an OCI image layout at FOLDER/NAME.

The pull half of the OCI distribution specification (opencontainers/distribution-spec, 1.1, "Pull"), over plain HTTP.
Each path that is asked for becomes a line of the log. Says "listens" when it does.
"""

from __future__ import annotations

import json
import re
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

_PATH = re.compile(r"/v2/(?P<name>[a-z0-9/]+)/(?P<kind>manifests|blobs)/(?P<reference>[\w.:-]+)")


def find(folder: Path, path: str) -> tuple[str, bytes] | None:
    """The media type and content of a manifest or blob."""
    matched = _PATH.fullmatch(path)
    if matched is None:
        return ("application/json", b"{}") if path == "/v2/" else None
    layout = folder / matched["name"]
    if not layout.is_dir():
        return None
    entries = json.loads((layout / "index.json").read_text())["manifests"]
    kinds = {entry["digest"]: entry["mediaType"] for entry in entries}
    reference = matched["reference"] if ":" in matched["reference"] else entries[0]["digest"]
    blob = layout / "blobs" / reference.replace(":", "/")
    return (kinds.get(reference, "application/octet-stream"), blob.read_bytes()) if blob.is_file() else None


class Handler(BaseHTTPRequestHandler):
    """GET and HEAD."""

    folder: Path
    log: Path

    def do_GET(self) -> None:
        """Answer with what the layout has."""
        with self.log.open("a") as log:
            log.write(f"{self.command} {self.path}\n")
        found = find(self.folder, self.path)
        kind, content = found or ("application/json", b'{"errors": [{"code": "MANIFEST_UNKNOWN"}]}')
        self.send_response(200 if found else 404)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(content)

    do_HEAD = do_GET  # noqa: N815 - as the base class looks for it

    def log_message(self, *_: object) -> None:
        """Ours is enough."""


if __name__ == "__main__":
    Handler.folder, Handler.log = Path(sys.argv[2]), Path(sys.argv[3])
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler)
    print("listens", flush=True)
    server.serve_forever()
