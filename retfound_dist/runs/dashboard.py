"""`retfound dashboard URL`: shows the runs below a URL as live pages; by default for this machine only.

    retfound dashboard s3://BUCKET/runs        http://127.0.0.1:8700

The server renders the pages, and a short script reloads them. Nothing is written. A request can only read
runs that the list shows.
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
from retfound_dist.runs.reconstructions import saved_pictures
from retfound_dist.runs.run_facts import RunFacts, read_run
from retfound_dist.runs.run_list import check_folder, fault_text, read_all
from retfound_dist.runs.run_page import compare_page, index_page, run_id, run_page
from retfound_dist.runs.run_search import Fault, find_runs

LOOPBACK = ("127.0.0.1", "localhost", "::1")
RELOAD_S = 5
"""Seconds after which a page reloads itself."""
# Names and settings come from other people's files. This policy keeps any markup that is not escaped from
# loading or sending anything.
HEADERS = {
    "Cache-Control": "no-store",
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; "
    "img-src data:; connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
}
T = TypeVar("T")


class TimedCache:
    """Keeps values for some seconds: many viewers read from the store no more often than one."""

    def __init__(self, seconds: float) -> None:
        self._seconds, self._lock = seconds, threading.Lock()
        self._values: dict[str, tuple[float, Any]] = {}

    def get(self, key: str, read: Callable[[], T]) -> T:
        """The value of a key, read again when it is too old."""
        # The lock is kept while reading: a second viewer waits for the first one's value and does not read
        # again.
        with self._lock:
            read_at, value = self._values.get(key, (0.0, None))
            if time.monotonic() - read_at > self._seconds or value is None:
                value = read()
                self._values[key] = (time.monotonic(), value)
            return value  # type: ignore[no-any-return]


def make_app(
    url: str, hosts: tuple[str, ...] = LOOPBACK, every_s: int = RELOAD_S, cache_s: float = RELOAD_S / 2
) -> Starlette:
    """The application; `hosts`: the host names it answers to (`*`: all), so that other sites cannot read it.

    Pages reload every `every_s` seconds (0: never). The store is read every `cache_s` seconds at most. Links
    that lead out of a local folder are never followed.
    """
    url = url.rstrip("/") or "/"
    cache = TimedCache(cache_s)

    def read(request: Request, place: int = 0) -> RunFacts:
        ids = request.query_params.getlist("id") or request.query_params.getlist("run")
        requested = ids[place]
        with storage.restrict_to_folder(url):
            # Only runs of the list: a request cannot name any other path.
            urls = cache.get("urls", lambda: {run_id(url, run_url): run_url for run_url in find_runs(url)})
            if requested not in urls:
                raise ConfigError(f"there is no run {requested!r} below {url}")
            return cache.get(urls[requested], lambda: read_run(urls[requested]))

    def read_list() -> tuple[list[RunFacts], list[Fault]]:
        with storage.restrict_to_folder(url):
            return cache.get("", lambda: read_all(url))

    def index(request: Request) -> Response:
        return HTMLResponse(mask(index_page(url, *read_list(), every_s)), headers=HEADERS)

    def run_details(request: Request) -> Response:
        if "id" not in request.query_params:
            return RedirectResponse("/")
        run = read(request)
        with storage.restrict_to_folder(url):
            return _page_response(lambda: run_page(run, saved_pictures(run), home="/", every_s=every_s), run)

    def compare(request: Request) -> Response:
        if len(request.query_params.getlist("run")) != 2:
            return PlainTextResponse("select exactly two runs to compare them", status_code=400)
        pair = read(request, 0), read(request, 1)
        return _page_response(lambda: compare_page(*pair, "/", every_s), *pair)

    def runs_json(request: Request) -> Response:
        runs, faults = read_list()
        # Masked, because configs of older versions may hold credentials in URLs.
        tree = {"runs": [run.list_values for run in runs], "faults": [str(fault) for fault in faults]}
        return JSONResponse(json.loads(mask(json.dumps(tree))), headers=HEADERS)

    return Starlette(
        routes=[
            Route("/", index),
            Route("/run", run_details),
            Route("/compare", compare),
            Route("/runs.json", runs_json),
        ],
        middleware=[Middleware(HostCheck, hosts=hosts)],
        exception_handlers={RetfoundError: _error_response},
    )


class HostCheck:
    """Answers only requests for the given host names."""

    def __init__(self, app: ASGIApp, hosts: tuple[str, ...]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer 400."""
        # Against DNS rebinding: another site may let its own name point to 127.0.0.1. The Host header then
        # has that name.
        if scope["type"] != "http" or "*" in self._hosts or _host_of(scope) in self._hosts:
            await self._app(scope, receive, send)
            return
        answer = PlainTextResponse(
            f"this dashboard only answers requests for {', '.join(self._hosts)}\n", status_code=400
        )
        await answer(scope, receive, send)


def _host_of(scope: Scope) -> str:
    """The host of a request (`127.0.0.1:8700`, `[::1]:8700`), without its port."""
    header = next((value for name, value in scope["headers"] if name == b"host"), b"")
    host = header.decode("latin-1").lower()
    return host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]


def _page_response(make: Callable[[], str], *runs: RunFacts) -> Response:
    """The page; a one-line error where the files of the runs hold something that no page can show."""
    try:
        return HTMLResponse(mask(make()), headers=HEADERS)
    except RetfoundError:
        raise
    except Exception as error:  # the files may hold anything, as in `read_each`
        names = " and ".join(run.url for run in runs)
        message = mask(plain(f"{names} cannot be shown: {fault_text(error)}"))
        return PlainTextResponse(f"{message}\n", status_code=502)


def _error_response(request: Request, error: Exception) -> Response:
    """An error of the request or of the store, in one line."""
    # ConfigError: the requested run does not exist. Others: the store behind this server failed.
    code = 404 if isinstance(error, ConfigError) else 502
    return PlainTextResponse(f"{mask(plain(error))}\n", status_code=code)


def dashboard_command(url: str, host: str, port: int, quiet: bool) -> int:
    """Serve until interrupted; StorageError where there is no folder at the URL."""
    check_folder(url)
    host = host.removeprefix("[").removesuffix("]")
    local = host in LOOPBACK
    # Other machines may know this one by any name, so the Host header is not checked then.
    app = make_app(url, LOOPBACK if local else ("*",))
    if not local and not quiet:
        print(
            f"warning: no password: everyone who can reach {address(host, port)} can read these runs",
            flush=True,
        )
    settings: dict[str, Any] = {"log_level": "warning", "access_log": False, "use_colors": False}
    server = AnnouncedServer(uvicorn.Config(app, host=host, port=port, **settings), quiet)
    server.run()
    if not server.started:
        raise ConfigError(
            f"cannot listen on {address(host, port)}: another program may use the port. Give another --port"
        )
    return 0


class AnnouncedServer(uvicorn.Server):
    """A server that prints its address once it listens; port 0 takes a free port."""

    def __init__(self, config: uvicorn.Config, quiet: bool) -> None:
        super().__init__(config)
        self._quiet = quiet

    async def startup(self, sockets: Any = None) -> None:
        """Listen and print the address; where the port is in use, stop without a traceback."""
        try:
            await super().startup(sockets)
        # uvicorn exits by itself where the port is in use. dashboard_command then reports it in one line.
        except SystemExit:
            self.should_exit = True
            return
        if self.started and not self._quiet:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            print(f"http://{address(host, port)}  (stop with Ctrl-C)", flush=True)


def address(host: str, port: int) -> str:
    """Host and port, as in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
