import hashlib
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Data, PretrainConfig, Run, Train
from retfound_dist.errors import RunConflictError
from retfound_dist.formats import run_folder
from retfound_dist.formats.content_identity import INIT_WEIGHTS, SHARD_SET, describe_set
from retfound_dist.formats.shard_set import IndexFile, Manifest, Shard


def test_what_a_run_is_may_not_change_and_how_it_runs_may(tmp_path: Path) -> None:
    url, config = (
        str(tmp_path / "run"),
        {"train": {"steps": 4, "seed": 1, "zero_stage": 1}, "checkpoint": {"every_steps": 5}},
    )
    assert not run_folder.check_same_run(url, config)
    run_folder.write_config(url, config)
    assert run_folder.check_same_run(
        url, {"train": {"steps": 4, "seed": 1, "zero_stage": 2}, "checkpoint": {"every_steps": 9}}
    )
    with pytest.raises(RunConflictError, match=r"train\.seed was 1 and is now 2.*run\.url"):
        run_folder.check_same_run(
            url, {"train": {"steps": 4, "seed": 2, "zero_stage": 1}, "checkpoint": {"every_steps": 5}}
        )


def a_set(url: str, *contents: str, split: str | None = None) -> Manifest:
    """A manifest with a shard of ten samples for each content."""
    shards = tuple(
        Shard(f"{i}.tar", 10, 1, c, split, IndexFile(f"{i}.idx", 1, "")) for i, c in enumerate(contents)
    )
    return Manifest(url, 10 * len(shards), shards, {}, {}, ())


def a_run(manifest: Manifest, **data: Any) -> dict[str, Any]:
    """The config.json of a run on a shard set."""
    config = PretrainConfig(run=Run(url="r"), data=Data(shards=manifest.url, **data), train=Train(steps=4))
    return {**to_dict(config), SHARD_SET: describe_set(manifest)}


def test_a_run_s_data_are_known_by_content_not_by_url(tmp_path: Path) -> None:
    url, begun = str(tmp_path), a_set("a/set", "1", "2")
    run_folder.write_config(url, a_run(begun))
    for moved in ("a/set/", "s3://bucket/set", "/other/place"):
        assert run_folder.check_same_run(url, a_run(a_set(moved, "1", "2")), a_set(moved, "1", "2"))
    grown = a_set("a/set", "1", "2", "3")
    with pytest.raises(
        RunConflictError, match=r"a/set has grown .*data\.first_shards=2, or begin a new run at"
    ):
        run_folder.check_same_run(url, a_run(grown), grown)
    assert run_folder.check_same_run(url, a_run(grown.first_shards(2), first_shards=2), grown.first_shards(2))
    other = a_set("a/set", "1", "other")
    with pytest.raises(RunConflictError, match=r"a/set .* is not the set that the run began with"):
        run_folder.check_same_run(url, a_run(other), other)


def test_a_run_written_before_fingerprints_is_compared_by_url(tmp_path: Path) -> None:
    url, manifest = str(tmp_path), a_set("a/set", "1")
    tree = a_run(manifest)
    del tree[SHARD_SET]
    run_folder.write_config(url, tree)
    for same in ("a/set", "a/set/", f"{Path.cwd()}/a/set", f"file://{Path.cwd()}/a/set"):
        assert run_folder.check_same_run(url, a_run(a_set(same, "1")), a_set(same, "1"))
    with pytest.raises(RunConflictError, match=r"data\.shards was 'a/set' and is now 's3://b/set'"):
        run_folder.check_same_run(url, a_run(a_set("s3://b/set", "1")), a_set("s3://b/set", "1"))


def test_a_key_that_a_run_was_written_without_has_its_default(tmp_path: Path) -> None:
    url, manifest = str(tmp_path), a_set("a/set", "1")
    tree = a_run(manifest)
    del tree["data"]["held_out_images"], tree["data"]["flip"], tree["optim"]
    run_folder.write_config(url, tree)
    assert run_folder.check_same_run(url, a_run(manifest), manifest)
    with pytest.raises(RunConflictError, match=r"data\.flip was 0\.5 and is now 0\.25"):
        run_folder.check_same_run(url, a_run(manifest, flip=0.25), manifest)


def test_a_key_that_this_version_does_not_know_is_named_unless_it_only_says_how(tmp_path: Path) -> None:
    url, manifest = str(tmp_path), a_set("a/set", "1")
    tree = a_run(manifest)
    tree["checkpoint"]["of_the_future"] = 1
    run_folder.write_config(url, tree)
    assert run_folder.check_same_run(url, a_run(manifest), manifest)
    tree["optim"]["of_the_future"] = 1
    run_folder.write_config(url, tree)
    with pytest.raises(RunConflictError, match=r"does not know \(optim\.of_the_future\)"):
        run_folder.check_same_run(url, a_run(manifest), manifest)


def test_weights_that_a_run_began_from_are_known_by_content_not_by_path(tmp_path: Path) -> None:
    url, manifest = str(tmp_path / "run"), a_set("a/set", "1")

    def asked(init: Path | str) -> dict[str, Any]:
        tree = a_run(manifest)
        return {**tree, "model": {**tree["model"], "init": str(init)}}

    first = tmp_path / "a.pth"
    first.write_bytes(b"weights")
    run_folder.write_config(
        url, {**asked(first), INIT_WEIGHTS: {"sha256": hashlib.sha256(b"weights").hexdigest()}}
    )
    moved = first.rename(tmp_path / "moved.pth")
    assert run_folder.check_same_run(url, asked(moved), manifest)
    (tmp_path / "other.pth").write_bytes(b"weightz")
    for another in (tmp_path / "other.pth", tmp_path / "gone.pth", f"{moved}#teacher", "none"):
        with pytest.raises(RunConflictError, match=r"model\.init was '.*a\.pth' and is now"):
            run_folder.check_same_run(url, asked(another), manifest)


def test_a_part_by_another_name_is_the_same_where_it_is_the_same_shards(tmp_path: Path) -> None:
    url, manifest = str(tmp_path), a_set("a/set", "1")
    run_folder.write_config(url, a_run(manifest, split="all"))
    assert run_folder.check_same_run(url, a_run(manifest, split="auto"), manifest)
    parts = a_set("a/set", "1", split="val")
    run_folder.write_config(url, a_run(parts, split="all"))
    with pytest.raises(RunConflictError, match=r"data\.split was 'all' and is now 'train'"):
        run_folder.check_same_run(url, a_run(parts, split="train"), parts)


def a_step(step: int, loss: float) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    counts = {"step": step, "samples": 8 * step, "world_size": 1}
    rates = {"lr": 1e-3, "grad_norm": None, "images_per_s": 8.0, "data_wait_s": 0, "step_s": 1.0}
    return {**counts, "epoch": step / 10, "loss": loss, **rates}


@pytest.mark.parametrize("base", ["disk", "memory://runlog"])
def test_rows_survive_a_restart_and_a_step_done_again_counts_once(base: str, tmp_path: Path) -> None:
    url = str(tmp_path) if base == "disk" else base
    for step in (1, 2, 3):
        run_folder.append_rows(url, run_folder.METRICS, [a_step(step, step / 10)])
    run_folder.append_rows(url, run_folder.METRICS, [a_step(3, 9.0)])
    assert len(run_folder.read_rows(url, run_folder.METRICS)) == 4
    assert [row["loss"] for row in run_folder.read_metrics(url)] == [0.1, 0.2, 9.0]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    run_folder.append_rows(str(tmp_path), run_folder.METRICS, [a_step(1, 0.5)])
    with open(tmp_path / run_folder.METRICS, "a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in run_folder.read_metrics(str(tmp_path))] == [1]
    run_folder.append_rows(str(tmp_path), run_folder.METRICS, [a_step(2, 0.4)])
    assert [row["step"] for row in run_folder.read_metrics(str(tmp_path))] == [1, 2]


def test_a_run_that_logged_nothing_has_no_rows(tmp_path: Path) -> None:
    assert run_folder.read_metrics(str(tmp_path)) == []
