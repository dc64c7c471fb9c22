from __future__ import annotations

import json
from pathlib import Path

import pytest

from retfound_dist import storage
from retfound_dist.commit import evaluation_url
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.watch import done_steps, last_step, pending_steps, watch_command
from tests.evaluate.inputs import TINY, checkpoint, class_folders


def watch(root: Path, *overrides: str) -> int:
    config = root / "watch.toml"
    config.write_text(f'[run]\nurl = "{root / "run"}"\n[data]\npath = "{root / "set"}"\n')
    return watch_command(
        str(config), [*TINY, "finetune.epochs=1", "poll_seconds=0.01", *overrides], quiet=True
    )


def test_every_checkpoint_is_evaluated_once_and_the_last_step_ends_it(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    run = tmp_path / "run"
    checkpoint(run, 10)
    assert watch(tmp_path, "stop_after_minutes=0.0005") == 0
    assert done_steps(str(run)) == [10]
    first = Path(evaluation_url(str(run), 10)) / "metrics.json"
    stamp = first.stat().st_mtime_ns
    checkpoint(run, 20)
    assert pending_steps(str(run)) == [20]
    assert watch(tmp_path) == 0
    assert done_steps(str(run)) == [10, 20]
    assert first.stat().st_mtime_ns == stamp
    metrics = json.loads((Path(evaluation_url(str(run), 20)) / "metrics.json").read_text())
    assert metrics["checkpoint"]["step"] == 20


def test_an_uncommitted_checkpoint_is_not_seen(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 10)
    (Path(url) / "COMMIT.json").unlink()
    assert pending_steps(str(tmp_path / "run")) == []


def test_the_last_step_comes_from_steps_or_from_epochs(tmp_path: Path) -> None:
    run = str(tmp_path / "run")
    assert last_step(run) is None
    storage.write_json(f"{run}/config.json", {"train": {"steps": 40}, "data": {}})
    assert last_step(run) == 40
    shards = [
        {
            "name": "a",
            "samples": 25,
            "bytes": 1,
            "sha256": "",
            "index": {"name": "a", "bytes": 1, "sha256": ""},
        }
    ]
    manifest = {"format": 1, "samples": 25, "shards": shards, "sources": {}, "image": {}, "skipped": []}
    storage.write_json(f"{run}/shards/manifest.json", manifest)
    train = {"steps": 0, "epochs": 3.0, "global_batch": 10}
    data = {"shards": f"{run}/shards", "split": "all"}
    storage.write_json(f"{run}/config.json", {"train": train, "data": data})
    assert last_step(run) == 8


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    with pytest.raises(ConfigError, match="holds no run"):
        watch(tmp_path)
