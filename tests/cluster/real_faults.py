"""A proxy before a real S3 server that makes its answers go wrong (infra/chaos_proxy.py)."""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tests.cluster.real_parts import INFRA, wait_until
from tests.cluster.real_s3 import S3, answers, free_ports


@dataclass(frozen=True)
class Chaos:
    """A server as it is seen through the proxy."""

    s3: S3
    control: str

    def set(self, **settings: Any) -> dict[str, Any]:
        """Set what goes wrong; gives what has happened so far."""
        data = json.dumps(settings).encode()
        with urllib.request.urlopen(self.control, data=data, timeout=10) as answer:
            found: dict[str, Any] = json.loads(answer.read())
        return found

    def faults(self) -> int:
        """Answers that went wrong so far."""
        return sum(self.set()["faults"].values())


@contextmanager
def chaos(server: S3) -> Iterator[Chaos]:
    """The server behind a proxy that does nothing yet."""
    upstream = int(server.endpoint.rsplit(":", 1)[1])
    first = free_ports(2)
    process = subprocess.Popen(
        [sys.executable, str(INFRA / "chaos_proxy.py"), str(first), str(upstream), str(first + 1)],
        stdin=subprocess.DEVNULL,
    )
    try:
        for port in (first, first + 1):
            wait_until(partial(answers, port), 20, "the proxy answers")
        assert process.poll() is None, "the proxy's ports were taken meanwhile"
        seen = replace(server, endpoint=f"http://127.0.0.1:{first}")
        yield Chaos(seen, f"http://127.0.0.1:{first + 1}/")
    finally:
        process.terminate()
        process.wait(10)
