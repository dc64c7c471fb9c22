"""What is the same and what is not, on real S3 servers."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.config.loading import load
from retfound_dist.config.schema import EvalModel, PretrainConfig
from retfound_dist.evaluate.commands.compare import compare_command
from retfound_dist.evaluate.data import starting_weights
from retfound_dist.formats.content_identity import IdentityCache
from retfound_dist.io import storage
from retfound_dist.model.backbones import opening
from tests.cluster.real_s3 import S3, use, with_new_bucket
from tests.evaluate.commands.test_compare import (
    check_rows,
    rows_of_two_files_at_one_url,
    save_weights,
)
from tests.evaluate.inputs import TINY, class_folders
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, expected_digests, metrics, pretrain


def test_the_store_s_mark_of_a_file_changes_with_its_content(s3: S3) -> None:
    url = storage.join(s3.url, "w.pth")
    storage.write_bytes(url, b"aaaa")
    first = storage.version_mark(url)
    assert first
    assert storage.version_mark(url) == first
    storage.write_bytes(url, b"bbbb")
    assert storage.version_mark(url) not in ("", first)


def test_another_file_of_the_same_size_at_a_url_is_another_row_and_a_known_one_needs_no_download(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class_folders(tmp_path / "set", shade=8)
    url = storage.join(s3.url, "weights.pth")
    check_rows(rows_of_two_files_at_one_url(tmp_path, url))
    reads: list[str] = []
    real = opening.read_tensor_file
    monkeypatch.setattr(opening, "read_tensor_file", lambda where: reads.append(where) or real(where))
    assert compare_command(str(tmp_path / "compare.toml"), [*TINY, "finetune.epochs=1"], quiet=True) == 0
    assert reads == []
    memory = IdentityCache(str(tmp_path / "out" / "weights.json"))
    known = starting_weights.open_starting_weights(url, EvalModel(), memory).identity
    save_weights(url, 2)
    assert starting_weights.open_starting_weights(url, EvalModel(), memory).identity != known
    assert reads == [url]


def test_a_run_goes_on_with_its_set_copied_to_s3(
    ceph_server: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    s3 = with_new_bucket(ceph_server)
    use(s3, monkeypatch)
    manifest, run = make_set(tmp_path), tmp_path / "run"
    settings = ["train.precision=fp32", "train.steps=9", "checkpoint.every_steps=100"]
    assert pretrain(1, run, manifest.url, *settings, "train.stop_at_step=2").returncode == 0
    for path in Path(manifest.url).iterdir():
        storage.put_file(str(path), storage.join(s3.url, "copied", path.name))
    again = pretrain(1, run, f"{s3.url}/copied", *settings, "train.stop_at_step=4")
    assert again.returncode == 0, again.stderr
    assert "resuming at step 2" in again.stderr
    given = [f"data.shards={manifest.url}", f"run.url={run}", *SMALL, *settings]
    config, _ = load(PretrainConfig, "configs/demo/pretrain.toml", given)
    assert [row["batch_digest"] for row in metrics(run)] == expected_digests(config, manifest.url, 4)
