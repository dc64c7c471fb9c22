"""`retfound dashboard URL`: the runs below a URL as live pages, on this machine only unless asked.

    retfound dashboard s3://BUCKET/runs        http://127.0.0.1:8700

Pages are made on the server; a few lines of script fetch them again. Nothing is written, and only runs that
the list shows can be asked for.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from typing import Any, TypeVar

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from retfound_dist.errors import ConfigError, RetfoundError
from retfound_dist.files.untrusted_text import plain
from retfound_dist.io import storage
from retfound_dist.io.urls import mask
from retfound_dist.runs.reconstructions import kept_pictures
from retfound_dist.runs.run_list import (
    RunFacts,
    check_folder,
    fault_text,
    read_all,
    read_run,
    summary,
)
from retfound_dist.runs.run_page import compare_page, index_page, run_id, run_page
from retfound_dist.runs.run_search import Fault, find_runs

LOOPBACK = ("127.0.0.1", "localhost", "::1")
EVERY_S = 5
"""Seconds between two looks of a page."""
# Names and settings come from other people's files. Even markup that got through could load and send
# nothing.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}
T = TypeVar("T")


class TimedCache:
    """What was read a moment ago: many viewers ask the store no more often than one."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._held, self._lock = seconds, {}, threading.Lock()  # type: ignore[var-annotated]

    def get(self, key: str, read: Callable[[], T]) -> T:
        """The value of a key, read again when it is older than so many seconds."""
        # Held while reading: a second viewer waits for the first one's answer and does not ask the store
        # again.
        with self._lock:
            at, value = self._held.get(key, (0.0, None))
            if time.monotonic() - at > self._seconds or value is None:
                value = read()
                self._held[key] = (time.monotonic(), value)
            return value  # type: ignore[no-any-return]


def make_app(
    url: str, hosts: tuple[str, ...] = LOOPBACK, every_s: int = EVERY_S, kept_s: float = EVERY_S / 2
) -> Starlette:
    """The application; `hosts`: the names it answers to, so that no page elsewhere reaches it; `*`: all.

    Pages look again every `every_s` seconds (0: never), the store is asked every `kept_s` at most. Links that
    lead out of a local folder are not followed, whatever of a run is read.
    """
    url = url.rstrip("/") or "/"
    cache = TimedCache(kept_s)

    def read(request: Request, place: int = 0) -> RunFacts:
        names = request.query_params.getlist("id") or request.query_params.getlist("run")
        wanted = names[place]
        with storage.restrict_to_folder(url):
            # Only what the list shows: a request cannot name a path of its own.
            known = cache.get("urls", lambda: {run_id(url, run_url): run_url for run_url in find_runs(url)})
            if wanted not in known:
                raise ConfigError(f"no run {wanted!r} below {url}")
            return cache.get(known[wanted], lambda: read_run(known[wanted]))

    def everything() -> tuple[list[RunFacts], list[Fault]]:
        with storage.restrict_to_folder(url):
            return cache.get("", lambda: read_all(url))

    def index(request: Request) -> Response:
        return HTMLResponse(mask(index_page(url, *everything(), every_s)), headers=HEADERS)

    def one(request: Request) -> Response:
        if "id" not in request.query_params:
            return RedirectResponse("/")
        run = read(request)
        with storage.restrict_to_folder(url):
            return _shown(lambda: run_page(run, kept_pictures(run), home="/", every_s=every_s), run)

    def compare(request: Request) -> Response:
        if len(request.query_params.getlist("run")) != 2:
            return PlainTextResponse("tick two runs to compare them", status_code=400)
        both = read(request, 0), read(request, 1)
        return _shown(lambda: compare_page(*both, "/", every_s), *both)

    def listed(request: Request) -> Response:
        runs, faults = everything()
        # mask() below: configs of older versions may hold credentials in URLs.
        tree = {"runs": [summary(run) for run in runs], "faults": [str(fault) for fault in faults]}
        return JSONResponse(json.loads(mask(json.dumps(tree))), headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/run", one),
            Route("/compare", compare),
            Route("/runs.json", listed),
        ],
        middleware=[Middleware(HostCheck, hosts=hosts)],
        exception_handlers={RetfoundError: _explain},
    )


class HostCheck:
    """Answers requests for the given hosts alone: no page elsewhere reaches it by a name of its own."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        # Against DNS rebinding: a page elsewhere may let its own name point to 127.0.0.1. The Host header
        # shows it.
        if scope["type"] != "http" or "*" in self._hosts or _host_of(scope) in self._hosts:
            await self._app(scope, receive, send)
            return
        answer = PlainTextResponse(f"this dashboard answers to {', '.join(self._hosts)}\n", status_code=400)
        await answer(scope, receive, send)


def _host_of(scope: Scope) -> str:
    """The host a request asks for, without its port: `127.0.0.1:8700`, `[::1]:8700`."""
    header = next((value for name, value in scope["headers"] if name == b"host"), b"")
    host = header.decode("latin-1").lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _shown(make: Callable[[], str], *runs: RunFacts) -> Response:
    """The page; a line where the files of the runs hold what no page can show."""
    try:
        return HTMLResponse(mask(make()), headers=HEADERS)
    except RetfoundError:
        raise
    except Exception as error:  # as in `read_all`
        names = " and ".join(run.url for run in runs)
        message = mask(plain(f"{names} cannot be shown: {fault_text(error)}"))
        return PlainTextResponse(f"{message}\n", status_code=502)


def _explain(request: Request, error: Exception) -> Response:
    """What a person can mend, in a line."""
    # ConfigError: what was asked for is not there. Others: the store behind this server failed.
    code = 404 if isinstance(error, ConfigError) else 502
    return PlainTextResponse(f"{mask(plain(error))}\n", status_code=code)


def dashboard_command(url: str, host: str, port: int, quiet: bool) -> int:
    """Serve until interrupted; StorageError where there is no folder at the URL."""
    check_folder(url)
    host = host.removeprefix("[").removesuffix("]")
    local = host in LOOPBACK
    # Other machines may know this one by any name, so the Host header tells nothing then.
    app = make_app(url, LOOPBACK if local else ("*",))
    if not local and not quiet:
        where = address(host, port)
        print(f"anyone who reaches {where} can read these runs: there is no password", flush=True)
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "use_colors": False}
    server = Server(uvicorn.Config(app, host=host, port=port, **settings), quiet)
    server.run()
    if not server.started:
        where = address(host, port)
        raise ConfigError(f"cannot listen on {where}: is another dashboard there? Give another --port")
    return 0


class Server(uvicorn.Server):
    """Says where it is once it listens; port 0 takes a free one."""

    def __init__(self, config: uvicorn.Config, quiet: bool) -> None:
        super().__init__(config)
        self._quiet = quiet

    async def startup(self, sockets: Any = None) -> None:
        """Listen, and say so; with a port that is taken, leave without a traceback."""
        try:
            await super().startup(sockets)
        # uvicorn exits by itself where the port is taken. dashboard_command then says so in one line.
        except SystemExit:
            self.should_exit = True
            return
        if self.started and not self._quiet:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"http://{address(host, port)}  (Ctrl-C ends it)", flush=True)


def address(host: str, port: int) -> str:
    """Host and port as a URL has them."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
