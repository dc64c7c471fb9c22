"""A run knows its shard set by what it holds: the same set goes on anywhere, another one never."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import safetensors.torch

from retfound_dist.config.loading import load
from retfound_dist.config.schema import (
    EvalData,
    EvalModel,
    PackConfig,
    PackOut,
    PretrainConfig,
    Source,
)
from retfound_dist.errors import RunConflictError
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import INIT_WEIGHTS, SHARD_SET, describe_set
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.io.storage import file_info
from retfound_dist.train.old_run_data import check_old_run
from shards.append import append
from tests.shards.pack_inputs import write_image
from tests.stream.stream_inputs import make_set
from tests.train.launching import SMALL, expected_digests, metrics, pretrain

pytestmark = pytest.mark.slow
FP32 = ["train.precision=fp32", "train.steps=9", "checkpoint.every_steps=100"]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory: pytest.TempPathFactory) -> Manifest:
    return make_set(tmp_path_factory.mktemp("set"))


@pytest.fixture(scope="module")
def begun(manifest: Manifest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run stopped at step 2."""
    run = tmp_path_factory.mktemp("begun") / "run"
    done = pretrain(1, run, manifest.url, *FP32, "train.stop_at_step=2")
    assert done.returncode == 0, done.stderr
    return run


@pytest.fixture
def run(begun: Path, tmp_path: Path) -> Path:
    return shutil.copytree(begun, tmp_path / "run")


def grow(url: str, folder: Path) -> Manifest:
    for number in range(12):
        write_image(folder / "more" / f"{number}.png", 7000 + number)
    out = PackOut(url=url, shard_mb=0.02, workers=1)
    return append(PackConfig(source=Source(path=str(folder / "more")), out=out))


def digests(shards: str, steps: int, *overrides: str) -> list[str]:
    settings = [f"data.shards={shards}", "run.url=unused", *SMALL, *FP32, *overrides]
    config, _ = load(PretrainConfig, "configs/demo/pretrain.toml", settings)
    return expected_digests(config, shards, steps)


def test_config_and_commit_hold_the_fingerprint_of_the_set(begun: Path, manifest: Manifest) -> None:
    description = describe_set(manifest)
    assert json.loads((begun / "config.json").read_text())[SHARD_SET] == description
    assert (
        checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(begun), 2)).config[SHARD_SET]
        == description
    )


def test_a_run_goes_on_with_the_weights_it_began_from_wherever_they_lie(
    begun: Path, manifest: Manifest, tmp_path: Path
) -> None:
    first = tmp_path / "first.safetensors"
    shutil.copy(Path(checkpoint_folder.checkpoint_url(str(begun), 2)) / checkpoint_folder.WEIGHTS, first)
    run, settings = tmp_path / "run", [*FP32, "train.steps=2"]
    done = pretrain(1, run, manifest.url, *settings, "train.stop_at_step=1", f"model.init={first}")
    assert done.returncode == 0, done.stderr
    description = {"sha256": file_info(str(first)).sha256}
    assert json.loads((run / "config.json").read_text())[INIT_WEIGHTS] == description
    assert (
        checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(run), 1)).config[INIT_WEIGHTS]
        == description
    )
    moved = first.rename(tmp_path / "moved.safetensors")
    done = pretrain(1, run, manifest.url, *settings, f"model.init={moved}")
    assert done.returncode == 0, done.stderr
    assert (
        checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(str(run), 2)).config[INIT_WEIGHTS]
        == description
    )

    shutil.rmtree(run / "checkpoints")  # as a start that was killed before its first checkpoint leaves it
    moved.unlink()
    shutil.copy(Path(checkpoint_folder.checkpoint_url(str(begun), 2)) / checkpoint_folder.WEIGHTS, moved)
    moved.write_bytes(_with_other_bias(moved))
    done = pretrain(1, run, manifest.url, *settings, f"model.init={moved}")
    assert done.returncode == 2
    assert f"{moved} holds other weights than {run} began from" in done.stderr


def _with_other_bias(path: Path) -> bytes:
    state = safetensors.torch.load_file(path)
    state["norm.bias"] = state["norm.bias"] + 1
    return safetensors.torch.save(state)


def test_images_of_a_run_are_known_again_in_the_folder_they_were_packed_from(
    begun: Path, manifest: Manifest
) -> None:
    start = open_starting_weights(str(begun), EvalModel())
    labelled = EvalData(path=str(Path(manifest.url).parent / "images"))
    overlap = pretraining_overlap.count_overlap(start, load_labelled_set(labelled, start.image_size).parts)
    assert overlap["how"] == "digests of pixels and files"
    assert {part: overlap[part] for part in overlap["of"]} == overlap["of"]
    assert sum(overlap["of"].values()) == 50


def test_the_same_set_under_another_path_goes_on_with_the_same_batches(
    run: Path, manifest: Manifest, tmp_path: Path
) -> None:
    shutil.copytree(manifest.url, tmp_path / "elsewhere")
    again = pretrain(1, run, f"{tmp_path}/elsewhere/", *FP32, "train.stop_at_step=4", "data.split=auto")
    assert again.returncode == 0, again.stderr
    assert "resuming at step 2" in again.stderr
    assert [row["batch_digest"] for row in metrics(run)] == digests(manifest.url, 4)


def test_a_grown_set_is_refused_until_the_run_is_pinned_to_the_shards_it_began_with(
    run: Path, manifest: Manifest, tmp_path: Path
) -> None:
    url = str(shutil.copytree(manifest.url, tmp_path / "set"))
    grown, first = grow(url, tmp_path), len(manifest.shards)
    assert len(grown.shards) > first
    before = (run / "config.json").read_bytes()
    refused = pretrain(1, run, url, *FP32, "train.stop_at_step=4")
    assert refused.returncode == 2
    (line,) = [line for line in refused.stderr.splitlines() if line.startswith("retfound:")]
    assert "has grown since the run began" in line
    assert f"data.first_shards={first}" in line
    assert f"model.init={checkpoint_folder.checkpoint_url(str(run), 2)}" in line
    assert (run / "config.json").read_bytes() == before
    pinned = pretrain(1, run, url, *FP32, "train.stop_at_step=4", f"data.first_shards={first}")
    assert pinned.returncode == 0, pinned.stderr
    assert [row["batch_digest"] for row in metrics(run)] == digests(manifest.url, 4)
    assert digests(url, 4)[2:] != digests(manifest.url, 4)[2:]


def test_a_run_from_before_fingerprints_goes_on_and_a_set_that_grew_since_is_found_by_its_batches(
    run: Path, manifest: Manifest, tmp_path: Path
) -> None:
    url = str(shutil.copytree(manifest.url, tmp_path / "set"))
    for path in (
        run / "config.json",
        Path(checkpoint_folder.checkpoint_url(str(run), 2)) / checkpoint_folder.COMMIT,
    ):
        tree = json.loads(path.read_text())
        config = tree.get("config", tree)
        del config[SHARD_SET], config["data"]["first_shards"], config["data"]["held_out_images"]
        config["data"]["shards"] = url
        path.write_text(json.dumps(tree))
    again = pretrain(1, shutil.copytree(run, tmp_path / "again"), f"{url}/", *FP32, "train.stop_at_step=3")
    assert again.returncode == 0, again.stderr
    assert json.loads((tmp_path / "again" / "config.json").read_text())[SHARD_SET] == describe_set(manifest)
    assert [row["batch_digest"] for row in metrics(tmp_path / "again")] == digests(url, 3)
    settings = [f"data.shards={url}", f"run.url={run}", *SMALL, *FP32]
    config, _ = load(PretrainConfig, "configs/demo/pretrain.toml", settings)
    check_old_run(config, read_manifest(url))
    with pytest.raises(RunConflictError, match="step 2 was trained on other samples"):
        check_old_run(config, grow(url, tmp_path))
    check_old_run(config, read_manifest(url, len(manifest.shards)))
