"""A manifest with a wrong count trains nothing: every rank leaves with the one line of rank 0."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.io import storage
from tests.stream.stream_inputs import make_set
from tests.train.launching import pretrain

pytestmark = pytest.mark.slow


def test_two_ranks_refuse_a_wrong_count_together_and_leave_no_run(tmp_path: Path) -> None:
    manifest = make_set(tmp_path)
    where = f"{manifest.url}/manifest.json"
    tree = storage.read_json(where)
    tree["shards"][-1]["samples"] -= 1
    tree["samples"] -= 1
    storage.write_json(where, tree)
    ended = pretrain(2, tmp_path / "run", manifest.url, "train.steps=2")
    assert ended.returncode != 0
    error_lines = [line for line in ended.stderr.splitlines() if line.startswith("retfound: ")]
    assert len(error_lines) == 1, ended.stderr[-3000:]
    true = manifest.shards[-1].samples
    assert (
        f"has {true} samples, but the manifest has {true - 1} for {manifest.shards[-1].name}"
        in error_lines[0]
    )
    assert ended.stderr.count("exitcode  : 2") == 2
    assert not (tmp_path / "run").exists()
