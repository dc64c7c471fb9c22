"""Images that a checkpoint was pretrained on are counted by part, and said."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.cli import main
from retfound_dist.config.loading import build
from retfound_dist.config.schema import EvalData, EvalModel, PackConfig
from retfound_dist.evaluate.data import pretraining_overlap
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.content_identity import SHARD_SET, describe_set
from retfound_dist.formats.shard_set import Manifest
from retfound_dist.io import storage
from retfound_dist.model.weights.export import export
from retfound_dist.model.weights.weight_files import read_weights
from shards.append import append
from shards.pack import pack
from tests.evaluate.inputs import CLASSES, TINY, checkpoint, class_folders, image_bytes, octid_folders


def pack_folder(source: Path, url: Path, add: bool = False, **image: Any) -> Manifest:
    tree = {
        "source": {"kind": "folder", "path": str(source)},
        "image": image,
        "out": {"url": str(url), "shard_mb": 0.02, "workers": 1},
    }
    return (append if add else pack)(build(PackConfig, tree, "test"))


def trained(url: str, manifest: Manifest | None, split: str = "all", init: str = "none", **data: Any) -> str:
    """The checkpoint at a URL as if its run had trained on that set."""
    held = checkpoint_folder.read_commit(url)
    config = {**held.config, "model": {**held.config["model"], "init": init}}
    if manifest:
        config["data"] = {"shards": manifest.url, "split": split, **data}
        config[SHARD_SET] = describe_set(manifest)
    checkpoint_folder.write_commit(dataclasses.replace(held, config=config))
    return url


def count(weights: str, labelled: Path | str) -> dict[str, Any]:
    start = open_starting_weights(weights, EvalModel(name="vit_demo_patch14", image_size=28))
    return pretraining_overlap.count_overlap(start, load_labelled_set(EvalData(path=str(labelled)), 28).parts)


@pytest.fixture
def octid(tmp_path: Path) -> Path:
    """4 images of each of 3 classes in each of 3 parts."""
    return octid_folders(tmp_path / "octid")


@pytest.mark.parametrize("image", [{"quality": 80}, {"format": "png", "max_height": 32}], ids=str)
@pytest.mark.parametrize(
    ("split", "seen"), [("all", (12, 12, 12)), ("train", (12, 0, 0)), ("test", (0, 0, 12))]
)
def test_images_of_each_part_are_counted_in_the_raw_folder_and_in_the_shard_set(
    octid: Path, tmp_path: Path, image: dict[str, Any], split: str, seen: tuple[int, ...]
) -> None:
    manifest = pack_folder(octid, tmp_path / "set", **image)
    url = trained(checkpoint(tmp_path / "run", 3), manifest, split)
    expected = {
        **dict(zip(("train", "val", "test"), seen, strict=True)),
        "of": {"train": 12, "val": 12, "test": 12},
        "how": "digests of pixels and files",
    }
    assert count(url, octid) == expected
    assert count(url, manifest.url) == expected


def test_pngs_that_were_packed_as_jpegs_are_found_both_ways(tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        for i in range(12):
            path = tmp_path / "png" / name / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(image_bytes(label, i, "PNG"))
    manifest = pack_folder(tmp_path / "png", tmp_path / "jpegs", format="jpg", quality=95)
    lossless = pack_folder(tmp_path / "png", tmp_path / "lossless", format="png")
    url = trained(checkpoint(tmp_path / "run", 3), manifest)
    whole = {"train": 21, "val": 6, "test": 9}
    for labelled in (tmp_path / "png", manifest.url, lossless.url):
        found = count(url, labelled)
        assert sum(found[part] for part in whole) == sum(found["of"].values()) == 36, labelled


def test_other_images_are_not_found(tmp_path: Path, octid: Path) -> None:
    url = trained(checkpoint(tmp_path / "run", 3), pack_folder(octid, tmp_path / "set"))
    found = count(url, class_folders(tmp_path / "other", seed=5000))
    assert [found[part] for part in ("train", "val", "test")] == [0, 0, 0]


def test_exported_files_of_a_run_know_it_too(tmp_path: Path, octid: Path) -> None:
    url = trained(checkpoint(tmp_path / "run", 3), pack_folder(octid, tmp_path / "set"))
    for kind, name in (("safetensors", "w.safetensors"), ("mae", "w.pth")):
        export(read_weights(url), kind, str(tmp_path / name))
        assert count(str(tmp_path / name), octid)["test"] == 12, kind


def test_images_of_the_run_that_it_began_from_count(tmp_path: Path, octid: Path) -> None:
    first = trained(checkpoint(tmp_path / "first", 3), pack_folder(octid, tmp_path / "set"))
    other = pack_folder(class_folders(tmp_path / "other", seed=5000), tmp_path / "others")
    for init in (first, str(tmp_path / "first")):
        assert (
            count(trained(checkpoint(tmp_path / init[-4:] / "run", 3), other, init=init), octid)["test"] == 12
        )
    lost = count(trained(checkpoint(tmp_path / "lost", 3), other, init="gone/mae.pth"), octid)
    assert lost["test"] == 0
    assert lost["how"].endswith("the run started from gone/mae.pth, whose training images are not known")


def test_a_set_that_grew_counts_as_it_was_when_the_run_began(tmp_path: Path, octid: Path) -> None:
    labelled = class_folders(tmp_path / "labelled", seed=5000)
    manifest = pack_folder(octid, tmp_path / "set")
    url = trained(checkpoint(tmp_path / "run", 3), manifest)
    grown = pack_folder(labelled, tmp_path / "set", add=True)
    assert grown.samples == 66
    assert sum(count(url, labelled)[part] for part in ("train", "val", "test")) == 0
    assert count(url, octid)["test"] == 12
    again = trained(checkpoint(tmp_path / "again", 3), grown)
    assert sum(count(again, labelled)[part] for part in ("train", "val", "test")) == 30


def test_what_cannot_be_known_says_why_and_no_count(tmp_path: Path, octid: Path) -> None:
    manifest = pack_folder(octid, tmp_path / "set")
    url = checkpoint(tmp_path / "run", 3)
    assert count("none", octid)["how"] == "no pretraining"
    assert count("none", octid)["test"] == 0
    bare = count(url, octid)
    assert (bare["train"], bare["test"]) == (None, None)
    assert bare["how"] == "unknown: the weights have no config of a run"
    trained(url, manifest)
    shutil.move(manifest.url, tmp_path / "away")
    assert count(url, octid)["how"] == f"unknown: the shard set of the run cannot be read at {manifest.url}"
    pack_folder(class_folders(tmp_path / "other", seed=7), tmp_path / "set")
    assert "is no longer the shard set that the run was trained on" in count(url, octid)["how"]


def test_evaluate_warns_in_the_terminal_in_metrics_json_and_on_the_page(
    tmp_path: Path, octid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = trained(checkpoint(tmp_path / "run", 3), pack_folder(octid, tmp_path / "set"))
    given = ["finetune.epochs=1", "probe.enabled=false", f"data.path={octid}", f"out.url={tmp_path / 'out'}"]
    outside = ["external.path=" + str(octid), "--allow-leak"]
    command = ["evaluate", "configs/demo/evaluate.toml", f"checkpoint={url}", *TINY, *given, *outside]
    assert main(command) == 0
    said = capsys.readouterr().out.replace("\n", " ")
    told = "these weights were pretrained on images of this set (12 of 12 test, 12 of 12 val, 12 of 12 train)"
    assert f"warning: {told}" in said
    assert "the weights were pretrained on 36 of its 36 images" in said
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    assert metrics["checkpoint"]["pretrained_on"]["test"] == 12
    assert metrics["external"]["pretrained_on"]["of"] == {"test": 36}
    page = (tmp_path / "out" / "report.html").read_text()
    assert "<li>T" + told[1:] in page
    assert "Seen in pretraining" in page


def test_compare_warns_of_each_row_and_a_row_that_is_read_back_still_does(
    tmp_path: Path, octid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = pack_folder(octid, tmp_path / "set")
    seen = trained(checkpoint(tmp_path / "run", 3), manifest)
    honest = trained(checkpoint(tmp_path / "honest", 3, seed=1), manifest, "train")
    config = tmp_path / "compare.toml"
    config.write_text(
        f'[weights]\nseen = "{seen}"\nhonest = "{honest}"\n[data]\npath = "{octid}"\n[out]\nurl = "{tmp_path}/out"\n'
    )
    command = ["compare", str(config), *TINY, "finetune.epochs=1", "probe.enabled=false"]
    for _ in range(2):
        assert main(command) == 0
        said = capsys.readouterr().out
        assert said.count("warning: ") == 1
    assert "seen: these weights were pretrained on images of this set (12 of 12 test" in said.replace(
        "\n", " "
    )
    rows = storage.read_json(f"{tmp_path}/out/compare.json")["rows"]
    assert rows["seen"]["checkpoint"]["pretrained_on"]["test"] == 12
    assert rows["honest"]["checkpoint"]["pretrained_on"] == {
        "train": 12, "val": 0, "test": 0, "of": {"train": 12, "val": 12, "test": 12},
        "how": "digests of pixels and files",
    }  # fmt: skip
    page = (tmp_path / "out" / "report.html").read_text()
    assert "“seen”: these weights were pretrained on" in page
    assert "“honest”: these weights" not in page


def test_watch_says_on_how_many_probed_images_the_run_pretrains(
    tmp_path: Path, octid: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained(checkpoint(tmp_path / "run", 20), pack_folder(octid, tmp_path / "set"), "train")
    config = tmp_path / "watch.toml"
    config.write_text(f'finetune_every = 0\n[run]\nurl = "{tmp_path}/run"\n[data]\npath = "{octid}"\n')
    assert main(["watch", str(config), *TINY, "poll_seconds=0.01", "stop_after_minutes=0.0005"]) == 0
    told = "The run pretrains on images that are probed here (12 of 12 train, 0 of 12 val)"
    assert told in capsys.readouterr().out.replace("\n", " ")
    assert told in (tmp_path / "run" / "evaluations" / "report.html").read_text()
    row = storage.read_json(f"{tmp_path}/run/evaluations/watch.json")["rows"][0]
    assert row["pretrained_on"]["train"] == 12
