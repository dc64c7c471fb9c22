"""The command on a made-up set: what it writes, and that its files agree."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from retfound_dist.errors import CheckpointError, ConfigError, DataError, RetfoundError, WeightsError
from retfound_dist.evaluate.commands.evaluate import evaluate_command
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.io import storage
from tests.evaluate.inputs import CLASSES, TINY, checkpoint, class_folders, image_bytes, list_patients


def evaluate(tmp_path: Path, *overrides: str, out: str = "", force: bool = False) -> Path:
    """Run the command; gives the folder of its results."""
    config = tmp_path / "evaluate.toml"
    config.write_text(
        f'checkpoint = "none"\n[data]\npath = "{tmp_path / "set"}"\n[out]\nurl = "{tmp_path / "out"}"\n'
    )
    assert evaluate_command(str(config), [*TINY, *overrides], quiet=True, force=force) == 0
    return tmp_path / "out"


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An evaluation of a checkpoint with two seeds, patients known."""
    root = tmp_path_factory.mktemp("done")
    list_patients(class_folders(root / "set", each=20))
    url = checkpoint(root / "run", 7)
    return evaluate(root, f"checkpoint={url}", "seeds=[0, 1]")


def test_every_file_and_field_is_there(done: Path) -> None:
    names = {path.name for path in done.iterdir()}
    tables = {"metrics.json", "predictions.csv", "split.csv", "history.jsonl"}
    assert names == tables | {
        "seed_predictions.csv",
        "probe_test_predictions.csv",
        "report.html",
        "pictures.json",
        "features.npz",
        "val_predictions.csv",
        "classifier",
    }
    metrics = json.loads((done / "metrics.json").read_text())
    fields = {"legacy", "macro", "per_class", "ci95", "confusion", "classes", "seeds", "checkpoint"}
    assert fields | {"split", "patients", "skipped", "versions", "config"} <= metrics.keys()
    assert metrics["classes"] == list(CLASSES)
    assert metrics["checkpoint"]["step"] == 7
    assert metrics["checkpoint"]["samples"] == 56
    assert metrics["checkpoint"]["kind"] == "checkpoint"
    assert metrics["split"]["by"] == "patient"
    assert metrics["bootstrap"]["unit"] == "patient"
    assert metrics["patients"] == metrics["bootstrap"]["units"] == 6
    assert metrics["probe"].keys() == {"linear", "knn"}
    for probed in metrics["probe"].values():
        assert probed["macro"].keys() == metrics["macro"].keys()
        assert sum(map(sum, probed["confusion"])) == metrics["split"]["test"]


def test_what_was_passed_over_stands_in_terminal_metrics_and_page(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    root = class_folders(tmp_path / "set")
    (root / "LOST").mkdir()
    (root / "LOST" / "1.npy").write_bytes(b"x")
    (root / ".DS_Store").write_bytes(b"x")
    other = class_folders(tmp_path / "other", each=4, seed=900)
    (other / "x.tar").write_bytes(b"x")
    (tmp_path / "e.toml").write_text(
        f"checkpoint = 'none'\n[data]\npath = '{root}'\n[out]\nurl = '{tmp_path}/out'\n"
    )
    more = ["seeds=[0]", "finetune.epochs=1", "probe.enabled=false", f"external.path={other}"]
    assert evaluate_command(str(tmp_path / "e.toml"), [*TINY, *more]) == 0
    said = "".join(capsys.readouterr())
    metrics = json.loads((tmp_path / "out" / "metrics.json").read_text())
    page = (tmp_path / "out" / "report.html").read_text()
    assert metrics["notes"] == [
        "folders without a readable image: LOST (skipped 1, such as 1.npy)",
        "passed over: 1 file .npy, such as LOST/1.npy: not an image",
        "passed over: 1 hidden or of the operating system, such as .DS_Store",
    ]
    assert metrics["external"]["notes"] == ["passed over: 1 archive, such as x.tar: unpack it"]
    for note in metrics["notes"]:
        assert f"note: {note}" in said
        assert (note[1:] in page) == (".DS_Store" not in note)
    assert "1 archive, such as x.tar" in said
    assert "External set: passed over: 1 archive, such as x.tar: unpack it" in page


def test_metrics_are_those_of_predictions_csv(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    rows = list(csv.DictReader((done / "predictions.csv").open()))
    assert list(rows[0]) == ["key", "patient", "label", "predicted", *(f"p_{c}" for c in CLASSES)]
    labels = np.array([CLASSES.index(r["label"]) for r in rows])
    p = np.array([[float(r[f"p_{c}"]) for c in CLASSES] for r in rows])
    guess = p.argmax(1)
    assert [r["predicted"] for r in rows] == [CLASSES[g] for g in guess]
    binary = np.eye(3)[labels]
    assert metrics["macro"]["accuracy"] == pytest.approx((guess == labels).mean(), abs=1e-9)
    assert metrics["macro"]["auroc"] == pytest.approx(roc_auc_score(binary, p, average="macro"), abs=1e-9)
    aupr = average_precision_score(binary, p, average="macro")
    assert metrics["macro"]["aupr"] == pytest.approx(aupr, abs=1e-9)
    acc = np.mean([((guess == c) == (labels == c)).mean() for c in (1, 2)])
    assert metrics["legacy"]["acc"] == pytest.approx(acc, abs=1e-9)


def test_scores_lie_in_their_intervals_and_seeds_are_told_apart(done: Path) -> None:
    metrics = json.loads((done / "metrics.json").read_text())
    low, high = metrics["ci95"]["macro"]["accuracy"]
    assert low <= metrics["macro"]["accuracy"] <= high
    assert [row["seed"] for row in metrics["per_seed"]] == [0, 1]
    values = [row["macro"]["auroc"] for row in metrics["per_seed"]]
    assert metrics["over_seeds"]["macro"]["auroc"]["mean"] == pytest.approx(np.mean(values))
    assert metrics["over_seeds"]["macro"]["auroc"]["std"] == pytest.approx(np.std(values, ddof=1))


def test_each_seed_s_predictions_are_kept_and_the_intervals_are_over_them_too(done: Path) -> None:
    held = evaluation_files.read(str(done))
    assert held is not None
    assert held.seed_probabilities_SNC.shape == (2, len(held.keys), 3)
    np.testing.assert_allclose(held.seed_probabilities_SNC.mean(0), held.probabilities_NC, atol=2e-8)
    assert held.metrics["bootstrap"]["seeds"] == 2
    weights = bootstrap.resample(bootstrap.resampling_units(held.patients, held.keys)[1], 50, 0)
    drawn = bootstrap.scores_over_seeds(held.labels_N, held.seed_probabilities_SNC, weights)
    assert held.metrics["ci95"] == bootstrap.intervals(drawn)
    assert "test patients and of the 2 fine-tuning seeds" in (done / "report.html").read_text()


def test_history_has_a_line_for_each_seed_and_epoch(done: Path) -> None:
    rows = [json.loads(line) for line in (done / "history.jsonl").read_text().splitlines()]
    assert [(row["seed"], row["epoch"]) for row in rows] == [(0, 1), (0, 2), (1, 1), (1, 2)]


def test_split_csv_lists_every_image(done: Path) -> None:
    rows = list(csv.DictReader((done / "split.csv").open()))
    assert len(rows) == 60
    tested = {r["key"] for r in rows if r["part"] == "test"}
    assert tested == {r["key"] for r in csv.DictReader((done / "predictions.csv").open())}


def test_a_run_s_url_means_its_newest_checkpoint_and_results_go_to_any_url(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    checkpoint(tmp_path / "run", 3)
    checkpoint(tmp_path / "run", 12)
    out = "memory://evaluated/newest"
    evaluate(tmp_path, f"checkpoint={tmp_path / 'run'}", f"out.url={out}", "finetune.epochs=1")
    metrics = storage.read_json(f"{out}/metrics.json")
    assert metrics["checkpoint"]["step"] == 12
    assert metrics["config"]["checkpoint"] == str(tmp_path / "run")
    assert b"<html" in storage.read_bytes(f"{out}/report.html")


@pytest.mark.parametrize(
    ("overrides", "kind", "says"),
    [
        (["checkpoint=none", "data.path=/nowhere/at/all"], DataError, "does not exist"),
        (["checkpoint=/nowhere.pth"], WeightsError, "no weights at"),
        (["model.name=vit_tiny"], ConfigError, "not a known encoder"),
        (["model.image_size=30"], ConfigError, "not a multiple"),
        (["finetune.batch=0"], ConfigError, "greater than 0"),
        (["finetune.epoch=3"], ConfigError, r"finetune\.epoch: did you mean finetune\.epochs"),
    ],
)
def test_a_mistake_gets_one_line_and_leaves_nothing(
    tmp_path: Path, overrides: list[str], kind: type[RetfoundError], says: str
) -> None:
    class_folders(tmp_path / "set")
    with pytest.raises(kind, match=says) as caught:
        evaluate(tmp_path, *overrides)
    assert len(str(caught.value).splitlines()) == 1
    assert caught.value.exit_code == 2
    assert not (tmp_path / "out").exists()


def test_a_file_that_holds_no_weights_gets_one_line(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    (tmp_path / "w.pth").write_text("x")
    with pytest.raises(WeightsError, match="not a weights file"):
        evaluate(tmp_path, f"checkpoint={tmp_path / 'w.pth'}")


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    url = checkpoint(tmp_path / "run", 3)
    file = Path(url) / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="differs from its commit"):
        evaluate(tmp_path, f"checkpoint={url}")


def test_seeds_side_by_side_are_the_same_seeds(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    one = evaluate(tmp_path, "checkpoint=none", "seeds=[0, 1, 2]", "threads=1")
    alone = json.loads((one / "metrics.json").read_text())
    two = evaluate(tmp_path, "checkpoint=none", "seeds=[0, 1, 2]", "threads=2", "jobs=2", force=True)
    beside = json.loads((two / "metrics.json").read_text())
    assert [row["seed"] for row in beside["per_seed"]] == [0, 1, 2]
    for a, b in zip(alone["per_seed"], beside["per_seed"], strict=True):
        assert b["macro"]["aupr"] == pytest.approx(a["macro"]["aupr"], abs=1e-3)


def test_volumes_of_unknown_patients_are_split_and_drawn_whole_and_called_volumes(tmp_path: Path) -> None:
    for label, name in enumerate(CLASSES):
        for n in range(40):
            where = tmp_path / "set" / name / f"eye{n // 4}_slice{n % 4}.jpg"
            where.parent.mkdir(parents=True, exist_ok=True)
            where.write_bytes(image_bytes(label, n))
    out = evaluate(tmp_path, "probe.enabled=false")
    held = evaluation_files.read(str(out))
    assert held is not None
    assert (held.metrics["split"]["by"], held.metrics["split"]["known_by"]) == ("volume", {"volume": 120})
    assert (held.metrics["bootstrap"]["unit"], held.metrics["bootstrap"]["units"]) == ("volume", 6)
    assert len(held.units) == 24 == 4 * len(set(held.units))
    page = (out / "report.html").read_text()
    assert "split at random by volume (120 images, no patient is known)" in page
    assert "6 test volumes (not every patient is known; the intervals are too narrow" in page


def test_the_method_that_was_chosen_and_what_it_trained_are_in_metrics_and_page(tmp_path: Path) -> None:
    class_folders(tmp_path / "set")
    tried = 'finetune.try_recipes=[{method="lora", lora_rank=2}]'
    out = evaluate(tmp_path, "seeds=[0]", "finetune.epochs=1", "probe.enabled=false", tried)
    metrics = json.loads((out / "metrics.json").read_text())
    entry = metrics["finetune"]
    width = metrics["checkpoint"]["backbone"]["width"]
    head = 3 * width + 3 + 2 * width
    assert entry["method"] == "lora"
    assert entry["trained_parameters"] == head + 6 * 2 * (4 * width + 2 * width)
    share = 100 * entry["trained_parameters"] / entry["parameters"]
    page = (out / "report.html").read_text()
    assert f"({share:.3g} %)" in page
    assert "lora_rank 8" in page  # of the recipe that the tried one changes


def test_a_page_names_the_settings_of_adapters_only_where_they_matter(done: Path) -> None:
    page = (done / "report.html").read_text()
    assert "method full" in page
    assert "lora_rank" not in page


def test_a_layer_that_does_not_exist_is_refused_before_images_are_read(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"finetune\.lora_targets: 'query' is no layer of vit_demo_patch14"):
        # The set does not exist: reading it would be another error.
        evaluate(tmp_path, "finetune.method=lora", 'finetune.lora_targets=["query"]')


def test_an_evaluation_from_before_there_were_methods_is_used_again(done: Path, tmp_path: Path) -> None:
    shutil.copytree(done, tmp_path / "out")
    path = tmp_path / "out" / "metrics.json"
    tree = json.loads(path.read_text())
    del tree["finetune"]
    tree["config"]["finetune"] = {
        name: value
        for name, value in tree["config"]["finetune"].items()
        if name != "method" and not name.startswith("lora_")
    }
    path.write_text(json.dumps(tree))
    (tmp_path / "set").symlink_to(done.parent / "set")
    evaluate(tmp_path, f"checkpoint={tree['checkpoint']['url']}", "seeds=[0, 1]")
    assert "finetune" not in json.loads(path.read_text())
    with pytest.raises(ConfigError, match=r"finetune\.method is 'full' there and 'head' here"):
        evaluate(tmp_path, f"checkpoint={tree['checkpoint']['url']}", "seeds=[0, 1]", "finetune.method=head")
