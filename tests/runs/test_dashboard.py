"""`retfound dashboard`: live pages of many runs, for this machine."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.testclient import TestClient

from retfound_dist.formats import run_folder
from retfound_dist.runs.dashboard import make_app
from tests.runs.made_runs import BEGAN, ROOT, make_run, row, write_probes, write_score


@pytest.fixture
def runs(tmp_path: Path) -> str:
    write_score(make_run(str(tmp_path / "one")), 100, 0.91)
    make_run(str(tmp_path / "deep" / "two"), "optim.base_lr=0.01", last=60)
    return str(tmp_path)


@pytest.fixture
def browser(runs: str) -> TestClient:
    return TestClient(make_app(runs, every_s=0, cache_s=0), base_url="http://127.0.0.1")


def test_the_list_links_to_each_run(browser: TestClient) -> None:
    page = browser.get("/").text
    assert "optim.base_lr=0.01" in page
    for link in re.findall(r'href="(run\?id=[^"]+)"', page):
        found = browser.get(f"/{link}")
        assert found.status_code == 200
        assert "Reconstruction loss" in found.text
    assert len(browser.get("/runs.json").json()["runs"]) == 2


def test_the_list_tells_alarms(browser: TestClient, runs: str) -> None:
    assert "1 alarm<" not in browser.get("/").text
    write_probes(f"{runs}/one", {50: 0.82, 100: 0.6}, "step 100 is worse than its own starting weights")
    assert "1 alarm<" in browser.get("/").text


def test_two_runs_are_compared_by_losses_speed_and_what_was_probed(browser: TestClient, runs: str) -> None:
    assert "Linear probe" not in browser.get("/compare?run=one&run=deep/two").text
    write_probes(f"{runs}/one", {50: 0.82, 100: 0.6}, "fell")
    page = browser.get("/compare?run=one&run=deep/two").text
    assert all(
        f"<h3>{title}</h3>" in page
        for title in ("Reconstruction loss", "Linear probe", "Evaluations", "Speed")
    )


def test_two_runs_are_compared(browser: TestClient) -> None:
    page = browser.get("/compare?run=one&run=deep/two").text
    for text in ("one: held out", "two: training", "optim.base_lr", "0.004", "0.01"):
        assert text in page
    assert browser.get("/compare?run=one").status_code == 400


def test_only_runs_of_the_list_can_be_asked_for(
    browser: TestClient, runs: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    outside = make_run(str(tmp_path_factory.mktemp("outside") / "run"))
    for wanted in (outside, os.path.relpath(outside, runs), "/etc", "one/../../etc", ""):
        assert browser.get("/run", params={"id": wanted}).status_code == 404


def test_it_answers_on_the_loopback_of_ipv6_to_its_own_name_alone(runs: str) -> None:
    """A real request over ::1, with the brackets that a browser writes."""
    command = [sys.executable, "-m", "retfound_dist", "dashboard", runs, "--host", "::1", "--port", "0"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT
    ) as process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            found = re.match(r"http://\[::1\]:(\d+)  ", said)
            assert found is not None, said
            answer = urllib.request.urlopen(f"http://[::1]:{found[1]}/", timeout=20)
            assert "Runs" in answer.read().decode()
            evil = urllib.request.Request(f"http://[::1]:{found[1]}/", headers={"Host": "evil.example"})
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(evil, timeout=20)
        finally:
            process.kill()


def test_links_out_of_its_folder_are_not_followed_whatever_they_stand_for(tmp_path: Path) -> None:
    served, outside = tmp_path / "served", tmp_path / "outside"
    make_run(str(served / "own"))
    make_run(str(outside / "secret"), "optim.base_lr=0.0123")
    (served / "linked").symlink_to(outside / "secret")
    make_run(str(served / "half"))
    (served / "half" / "metrics.jsonl").unlink()
    (served / "half" / "metrics.jsonl").symlink_to(outside / "secret" / "metrics.jsonl")
    browser = TestClient(make_app(str(served), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    found = browser.get("/runs.json").json()
    runs = {Path(run["url"]).name: run for run in found["runs"]}
    assert sorted(runs) == ["half", "own"]
    assert runs["half"]["loss"] is None  # its log is left out
    assert sum("leads out of" in fault for fault in found["faults"]) == 1
    assert "0.0123" not in browser.get("/").text
    assert browser.get("/run", params={"id": "linked"}).status_code == 404
    assert "metrics.jsonl cannot be read: " in browser.get("/run", params={"id": "half"}).text
    assert "leads out of" in browser.get("/run", params={"id": "half"}).text


def test_links_in_a_circle_show_each_run_once(tmp_path: Path) -> None:
    make_run(str(tmp_path / "a" / "one"))
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "self").symlink_to(tmp_path / "a")
    (tmp_path / "again").symlink_to(tmp_path / "a" / "one")
    browser = TestClient(make_app(str(tmp_path), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    found = browser.get("/runs.json").json()
    assert len(found["runs"]) == 1
    assert found["faults"] == []


def test_a_secret_of_a_run_s_config_is_on_no_page(tmp_path: Path) -> None:
    """Written by a version that did not mask."""
    url = make_run(str(tmp_path / "one"))
    config = Path(url) / "config.json"
    tree = json.loads(config.read_text())
    tree["data"]["shards"] = "s3://AKIAIOSFODNN7EXAMPLE:wJalrXUtnFEMI/K7MDENG@bucket/oct"
    config.write_text(json.dumps(tree))
    make_run(str(tmp_path / "two"))
    browser = TestClient(make_app(str(tmp_path), every_s=0, cache_s=0), base_url="http://127.0.0.1")
    for page in ("/", "/run?id=one", "/compare?run=one&run=two", "/runs.json"):
        text = browser.get(page).text
        assert "K7MDENG" not in text
        assert "AKIAIOSFODNN7EXAMPLE" not in text


def test_it_answers_to_no_other_name(runs: str) -> None:
    stranger = TestClient(make_app(runs), base_url="http://evil.example")
    assert stranger.get("/").status_code == 400


def test_pages_fetch_nothing_from_elsewhere(browser: TestClient) -> None:
    found = browser.get("/")
    assert "default-src 'none'" in found.headers["content-security-policy"]
    assert "http://" not in found.text.replace("http://www.w3.org", "")


def test_a_page_shows_what_was_logged_since(browser: TestClient, runs: str) -> None:
    assert "step 60 of 100" in browser.get("/run?id=deep/two").text
    run_folder.append_rows(f"{runs}/deep/two", run_folder.METRICS, [row(65, 3, BEGAN + 5000, {})])
    assert "step 65 of 100" in browser.get("/run?id=deep/two").text


@pytest.fixture
def served(runs: str) -> Iterator[tuple[str, subprocess.Popen[str]]]:
    """The command itself, on a free port."""
    with subprocess.Popen(
        [sys.executable, "-m", "retfound_dist", "dashboard", runs, "--port", "0"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    ) as process:  # fmt: skip
        assert process.stdout is not None
        found = re.match(r"(http://\S+)", process.stdout.readline())
        assert found is not None
        yield found[1], process
        process.kill()


def test_the_command_listens_on_this_machine_alone_and_ends_on_interrupt(
    served: tuple[str, subprocess.Popen[str]],
) -> None:
    url, process = served
    assert url.startswith("http://127.0.0.1:")
    assert "Runs" in urllib.request.urlopen(url, timeout=20).read().decode()
    port = int(url.rsplit(":", 1)[1])
    listening = Path("/proc/net/tcp").read_text() + Path("/proc/net/tcp6").read_text()
    places = [
        line.split()[1] for line in listening.splitlines() if f":{port:04X} " in line and " 0A " in line
    ]
    assert places == [f"0100007F:{port:04X}"]
    os.kill(process.pid, signal.SIGINT)
    assert process.wait(20) in (0, 130)


@pytest.mark.cluster
def test_a_browser_sees_the_page_change_by_itself(runs: str) -> None:
    """A step is logged as soon as the browser has the page."""
    browser = shutil.which("chromium")
    assert browser, "chromium is not installed: .ci/install-system-packages"
    app, asked = make_app(runs, every_s=1, cache_s=0), []

    async def logs_on(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        if scope["type"] == "http" and scope["path"] == "/run":
            asked.append(scope["path"])
            if len(asked) == 1:
                run_folder.append_rows(f"{runs}/deep/two", run_folder.METRICS, [row(65, 3, BEGAN + 5000, {})])

    server = uvicorn.Server(uvicorn.Config(logs_on, port=0, log_level="error"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        thread.join(0.05)
    port = server.servers[0].sockets[0].getsockname()[1]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--dump-dom", "--virtual-time-budget=8000",
               f"--user-data-dir={runs}/profile", f"http://127.0.0.1:{port}/run?id=deep/two"]  # fmt: skip
    done = subprocess.run(command, capture_output=True, text=True, timeout=90)
    server.should_exit = True
    thread.join(10)
    assert len(asked) > 1
    assert "step 65 of 100" in done.stdout
