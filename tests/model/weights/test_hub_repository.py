"""Repositories of the hub by its own client, from a server on loopback."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import pytest

from retfound_dist.errors import WeightsError
from retfound_dist.model.weights.hub_repository import fetch
from retfound_dist.model.weights.model_sources import HubSource
from tests.model.weights.hub_server import Hub, serving, use

TOKEN = "hf_secret_token"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with serving() as server:
        use(server, tmp_path / "cache", monkeypatch)
        yield server


@pytest.fixture(autouse=True)
def fetched_anew() -> None:
    fetch.cache_clear()


def source(repository: str = "who/what", revision: str = "", file: str = "") -> HubSource:
    return HubSource(repository, revision, file)


def test_the_only_weights_file_is_fetched_with_its_config_and_is_found_again_without_network(
    hub: Hub,
) -> None:
    hub.files["who/what"] = {
        "README.md": b"text",
        "w.pth": b"weights",
        "config.json": b'{"model_type": "vit"}',
    }
    fetched = fetch(source())
    assert (fetched.name, Path(fetched.path).read_bytes()) == ("w.pth", b"weights")
    assert fetched.config == {"model_type": "vit"}
    del hub.files["who/what"]
    fetch.cache_clear()
    assert fetch(source(file="w.pth")).path == fetched.path


def test_a_file_of_a_repository_without_a_config_is_found_again_without_network(hub: Hub) -> None:
    hub.files["who/what"] = {"w.pth": b"weights"}
    fetched = fetch(source(file="w.pth"))
    assert fetched.config == {}
    del hub.files["who/what"]
    fetch.cache_clear()
    assert fetch(source(file="w.pth")) == fetched


def test_of_several_files_one_must_be_named_and_all_are_listed(hub: Hub) -> None:
    hub.files["who/what"] = {"a.pth": b"a", "sub/b.safetensors": b"b", "README.md": b""}
    with pytest.raises(
        WeightsError,
        match=r"holds 2 weights files: name one, such as hf:who/what/a\.pth; they are a\.pth, sub/b\.safetensors",
    ):
        fetch(source())
    assert Path(fetch(source(file="sub/b.safetensors")).path).read_bytes() == b"b"
    with pytest.raises(WeightsError, match=r"who/what on the hub has no file c\.pth: check the name"):
        fetch(source(file="c.pth"))


def test_timm_s_repositories_hold_two_formats_and_safetensors_is_taken(hub: Hub) -> None:
    hub.files["timm/x"] = {
        "model.safetensors": b"s",
        "pytorch_model.bin": b"p",
        "config.json": b'{"architecture": "resnet18", "pretrained_cfg": {"mean": [0.1, 0.2, 0.3]}}',
    }
    fetched = fetch(source("timm/x"))
    assert fetched.name == "model.safetensors"
    assert fetched.config["architecture"] == "resnet18"


def test_a_gated_repository_says_what_to_do_and_takes_the_token_without_showing_it(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.files["who/what"] = {"w.pth": b"weights"}
    hub.gated.add("who/what")
    with pytest.raises(
        WeightsError, match="who/what on the hub is gated: accept its terms on its page, then set HF_TOKEN"
    ):
        fetch(source(file="w.pth"))
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    assert Path(fetch(source(file="w.pth")).path).read_bytes() == b"weights"
    assert any(TOKEN in header for _, header in hub.asked)
    with pytest.raises(WeightsError) as refused:
        fetch(source("who/else", file="w.pth"))
    assert TOKEN not in str(refused.value)


def test_names_that_do_not_exist_are_told_apart(hub: Hub) -> None:
    hub.files["who/what"] = {"w.pth": b"weights"}
    with pytest.raises(WeightsError, match="there is no who/else on the hub, or it is private"):
        fetch(source("who/else"))
    with pytest.raises(WeightsError, match="who/what on the hub has no revision v9: check the name after @"):
        fetch(source(revision="v9"))


def test_a_repository_without_weights_is_refused(hub: Hub) -> None:
    hub.files["who/what"] = {"README.md": b"text"}
    with pytest.raises(WeightsError, match=r"holds no weights file: README\.md"):
        fetch(source())


def test_without_network_one_line_says_where_to_put_the_file(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub import constants
    from huggingface_hub.utils import _http

    # The client's own tries, without the minute that it waits between them.
    waits: list[float] = []
    monkeypatch.setattr(_http, "time", SimpleNamespace(sleep=waits.append, time=time.time))
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr(
        constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/resolve/{revision}/{filename}"
    )
    with pytest.raises(
        WeightsError, match=r"is not in the cache .* and cannot be fetched \(\w+\): fetch it on a machine"
    ):
        fetch(source(file="w.pth"))
    assert len(waits) > 1
