"""A stand-in for the Hugging Face hub on loopback: creating a model, uploading and downloading.

It answers the requests that `huggingface_hub` sends for small files, which go base64-encoded into
the commit, and for large ones (git LFS), which are stored by a PUT of their own.
"""

from __future__ import annotations

import base64
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Hub:
    """The models of the hub, and the failure it is to answer with."""

    def __init__(self) -> None:
        self.models: dict[str, dict[str, bytes]] = {}
        self.blobs: dict[str, bytes] = {}
        self.fails_with: int | None = None
        self.address = ""

    @contextmanager
    def running(self) -> Iterator[Hub]:
        """Serve on a free port of loopback."""
        hub = self

        class Handler(_Handler):
            """Handles a request to this hub."""

            models = hub

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.address = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    models: Hub

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""

    def do_POST(self) -> None:
        body = self._body()
        path = urlsplit(self.path).path
        if self.models.fails_with:
            self._answer({"error": "refused by the stub"}, self.models.fails_with)
        elif path == "/api/repos/create":
            asked = json.loads(body)
            name = "/".join(filter(None, (asked.get("organization"), asked["name"])))
            self.models.models.setdefault(name, {})
            self._answer({"url": f"{self.models.address}/{name}"})
        elif path.endswith("/preupload/main"):
            files = json.loads(body)["files"]
            modes = [
                {
                    "path": file["path"],
                    "uploadMode": "lfs" if file["path"].endswith(".safetensors") else "regular",
                    "shouldIgnore": False,
                }
                for file in files
            ]
            self._answer({"files": modes})
        elif path.endswith("/info/lfs/objects/batch"):
            objects = [
                asked | {"actions": {"upload": {"href": f"{self.models.address}/{asked['oid']}"}}}
                for asked in json.loads(body)["objects"]
            ]
            self._answer({"transfer": "basic", "objects": objects})
        elif "/commit/main" in path:
            name = path.removeprefix("/api/models/").removesuffix("/commit/main")
            self._commit(name, body)
        else:
            self._answer({}, 200 if path == "/api/validate-yaml" else 404)

    def _commit(self, name: str, body: bytes) -> None:
        files = self.models.models[name]
        for line in body.splitlines():
            operation = json.loads(line)
            value = operation["value"]
            if operation["key"] == "file":
                files[value["path"]] = base64.b64decode(value["content"])
            elif operation["key"] == "lfsFile":
                files[value["path"]] = self.models.blobs[value["oid"]]
        self._answer(
            {"commitUrl": f"{self.models.address}/{name}/commit/{COMMIT}", "commitOid": COMMIT}
        )

    def do_PUT(self) -> None:
        content = self._body()
        self.models.blobs[hashlib.sha256(content).hexdigest()] = content
        self._answer({})

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = urlsplit(self.path).path
        for name, files in self.models.models.items():
            if path.startswith(f"/api/models/{name}"):
                listed = [{"rfilename": file} for file in files]
                tree = [
                    {"type": "file", "path": file, "size": len(content), "oid": "0" * 40}
                    for file, content in files.items()
                ]
                facts = {"id": name, "modelId": name, "sha": COMMIT, "siblings": listed}
                self._answer(tree if "/tree/" in path else facts)
                return
            for file, content in files.items():
                if path == f"/{name}/resolve/{COMMIT}/{file}":
                    self._send(content, 200, hashlib.sha256(content).hexdigest())
                    return
        self._answer({"error": "there is no such thing"}, 404)

    def _body(self) -> bytes:
        if "chunked" in self.headers.get("Transfer-Encoding", ""):
            parts = []
            while size := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(size))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)
        return self.rfile.read(int(self.headers.get("Content-Length", 0)))

    def _answer(self, value: object, code: int = 200) -> None:
        self._send(json.dumps(value).encode(), code)

    def _send(self, content: bytes, code: int, tag: str = "") -> None:
        self.send_response(code)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Type", "application/json")
        self.send_header("X-Repo-Commit", COMMIT)
        if tag:
            self.send_header("ETag", f'"{tag}"')
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)
