"""A small server that answers like the Hugging Face hub, for its own client: list of files, files, refusals."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

COMMIT = "c" * 40


@dataclass
class Hub:
    """Repositories by name, and what was asked for."""

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    gated: set[str] = field(default_factory=set)
    asked: list[tuple[str, str]] = field(default_factory=list)
    """Path and Authorization header of each request."""


@contextmanager
def serving() -> Iterator[Hub]:
    """A hub on loopback."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(body=True)

        def do_HEAD(self) -> None:
            self._answer(body=False)

        def _answer(self, body: bool) -> None:
            hub.asked.append((self.path, self.headers.get("Authorization", "")))
            words = self.path.split("?")[0].strip("/").split("/")
            listing = words[:2] == ["api", "models"]
            if listing:
                words = words[2:]
            repository, rest = "/".join(words[:2]), words[2:]
            revision = rest[1] if len(rest) > 1 else "main"
            if repository not in hub.files:
                return self._refuse(404, "RepoNotFound")
            if repository in hub.gated and not self.headers.get("Authorization") and not listing:
                return self._refuse(403, "GatedRepo")
            if revision not in ("main", COMMIT):
                return self._refuse(404, "RevisionNotFound")
            files = hub.files[repository]
            if listing:
                tree = [{"type": "file", "path": n, "size": len(d), "oid": "0"} for n, d in files.items()]
                return self._send(json.dumps(tree).encode(), body)
            name = "/".join(rest[2:])
            if name not in files:
                return self._refuse(404, "EntryNotFound")
            return self._send(files[name], body)

        def _send(self, data: bytes, body: bool) -> None:
            self.send_response(200)
            self.send_header("Content-Length", str(len(data)))
            self.send_header("ETag", f'"{hashlib.sha256(data).hexdigest()}"')
            self.send_header("X-Repo-Commit", COMMIT)
            self.end_headers()
            if body:
                self.wfile.write(data)

        def _refuse(self, status: int, code: str) -> None:
            self.send_response(status)
            self.send_header("X-Error-Code", code)
            # The client remembers, for this commit, that there is no such file.
            self.send_header("X-Repo-Commit", COMMIT)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()


def use(hub: Hub, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Send the client to this hub, with an empty cache."""
    from huggingface_hub import constants

    # The client reads $HF_ENDPOINT and $HF_HOME when it is imported.
    monkeypatch.setattr(constants, "ENDPOINT", hub.url)
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
    )
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
    monkeypatch.delenv("HF_TOKEN", raising=False)
