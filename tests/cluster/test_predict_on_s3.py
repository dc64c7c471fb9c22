"""`retfound predict` with classifier, images and output on real S3 servers."""

from __future__ import annotations

from pathlib import Path

from retfound_dist.io import storage
from tests.cluster.real_s3 import S3
from tests.evaluate.inputs import shard_set
from tests.prediction.inputs import predict, small_evaluation


def test_on_s3_the_file_is_the_one_on_disk(s3: S3, tmp_path: Path) -> None:
    evaluation = small_evaluation(tmp_path, seeds="[0]")
    samples: list[dict[str, str | None]] = [
        {"key": f"k{n}", "label": "MH", "patient": f"p{n // 2}", "volume": f"v{n // 2}"} for n in range(12)
    ]
    shards = shard_set(tmp_path / "shards", samples)
    for folder, name in ((evaluation / "classifier", "classifier"), (shards, "shards")):
        for path in folder.iterdir():
            storage.put_file(str(path), storage.join(s3.url, name, path.name))
    assert predict(evaluation, shards, "--out", tmp_path / "disk.csv", "--quiet") == 0
    out = f"{s3.url}/results/p.csv"
    assert predict(f"{s3.url}/classifier", f"{s3.url}/shards", "--out", out, "--quiet") == 0
    assert storage.read_bytes(out) == (tmp_path / "disk.csv").read_bytes()
    assert storage.list_names(f"{s3.url}/results") == ["p.csv"]
    # Again: an own file on S3 is recognized and replaced.
    assert predict(f"{s3.url}/classifier", f"{s3.url}/shards", "--out", out, "--quiet") == 0
