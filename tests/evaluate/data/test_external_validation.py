"""Fine-tuned on one set, tested on another through a map of classes."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from retfound_dist.cli import main
from retfound_dist.config.loading import load
from retfound_dist.config.schema import EvalData, EvaluateConfig, External
from retfound_dist.errors import ConfigError, DataError
from retfound_dist.evaluate.data.external_validation import check_class_map, load_with_external, renormalise
from tests.evaluate.inputs import CLASSES, TINY, class_folders, image_bytes, write_listing

MAP = "external.class_map={NORMAL = 'healthy', CSR = ['fluid', 'leak']}"
LABELS = ("fluid", "hole", "leak", "healthy")


def two_sets(tmp_path: Path) -> Path:
    """Three classes to fine-tune on, four labels of other images (two for each patient); a config."""
    class_folders(tmp_path / "set", each=12)
    rows = []
    for shade, label in enumerate(LABELS):
        (tmp_path / "other" / label).mkdir(parents=True)
        for i in range(6):
            (tmp_path / "other" / label / f"{i}.jpg").write_bytes(
                image_bytes(min(shade, 2), 500 + 10 * shade + i)
            )
            rows.append({"file": f"{label}/{i}.jpg", "label": label, "patient": f"{label}{i // 2}"})
    write_listing(tmp_path / "other", rows)
    config = tmp_path / "c.toml"
    config.write_text(
        f'[data]\npath = "{tmp_path / "set"}"\n[external]\npath = "{tmp_path / "other"}"\n'
        f'[out]\nurl = "{tmp_path / "out"}"\n'
    )
    return config


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("external")
    config = two_sets(root)
    settings = [*TINY, MAP, "checkpoint=none", "seeds=[0, 1]", "probe.enabled=false"]
    assert main(["evaluate", str(config), *settings, "--quiet"]) == 0
    return root / "out"


def test_the_external_set_is_scored_from_its_own_predictions(done: Path) -> None:
    tree = json.loads((done / "metrics.json").read_text())["external"]
    rows = list(csv.DictReader((done / "external_predictions.csv").open()))
    assert list(rows[0]) == ["key", "patient", "label", "external_label", "predicted", "p_CSR", "p_NORMAL"]
    assert {(r["label"], r["external_label"]) for r in rows} == {
        ("CSR", "fluid"), ("CSR", "leak"), ("NORMAL", "healthy")}  # fmt: skip
    p = np.array([[float(r["p_CSR"]), float(r["p_NORMAL"])] for r in rows])
    assert p.sum(1) == pytest.approx(1, abs=1e-7)
    truth = np.array([r["label"] == "NORMAL" for r in rows])
    assert tree["images"] == len(rows) == 18
    assert tree["macro"]["auroc"] == pytest.approx(roc_auc_score(truth, p[:, 1]), abs=1e-6)
    assert tree["macro"]["accuracy"] == pytest.approx(np.mean([r["label"] == r["predicted"] for r in rows]))
    assert sum(map(sum, tree["confusion"])) == 18
    assert {"legacy", "macro", "per_class", "confusion", "ci95"} <= tree.keys()
    assert tree["bootstrap"] == {"unit": "patient", "units": 9, "resamples": 50}


def test_what_is_not_mapped_is_counted_named_and_on_the_page(done: Path) -> None:
    tree = json.loads((done / "metrics.json").read_text())["external"]
    assert tree["left_out"] == {"hole": 6}
    assert tree["dropped_classes"] == ["MH"]
    page = (done / "report.html").read_text()
    assert "6 images with unmapped labels are left out (hole 6)" in page
    assert "probabilities of MH are dropped and the rest is scaled to sum to 1" in page
    assert page.count("External test on ") == 2


def test_dropped_probabilities_are_given_to_the_rest_in_proportion() -> None:
    p = np.array([[0.2, 0.5, 0.3], [0.0, 1.0, 0.0]])
    assert renormalise(p, ("A", "B", "C"), ("A", "C")).tolist() == [[0.4, 0.6], [0.5, 0.5]]


def test_without_a_map_labels_of_the_same_name_are_tested() -> None:
    assert check_class_map({}, ("A", "B", "C"), ("B", "C", "D"), "x") == {"B": ("B",), "C": ("C",)}


@pytest.mark.parametrize(
    ("class_map", "says"),
    [
        ({"CSR": "fluid", "XYZ": "leak"}, r"names XYZ, but the model has no such class: .* CSR, MH, NORMAL"),
        (
            {"CSR": "fluid", "MH": "gone"},
            r"maps to gone, but external.path=x has no such label: .* fluid, leak",
        ),
        ({"CSR": "fluid", "MH": "fluid"}, "maps to fluid more than once: choose one"),
        ({"CSR": ["fluid", "leak"]}, "fewer than two of the classes"),
        ({}, "fewer than two of the classes"),
    ],
)
def test_a_map_that_does_not_fit_gets_one_line(class_map: dict[str, str | list[str]], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        check_class_map(class_map, CLASSES, ("fluid", "leak"), "x")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("external.class_map.MH=nothing", "nothing, but external.path="),
        ("external.class_map.GLAUCOMA=hole", "names GLAUCOMA, but the model has no such class"),
        ("external.path=nowhere", "external.path=nowhere does not exist"),
        ("external.path=", "external.class_map is given without external.path"),
    ],
)
def test_a_mistake_ends_before_anything_is_trained_or_written(
    tmp_path: Path, change: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    config = two_sets(tmp_path)
    assert main(["evaluate", str(config), *TINY, MAP, "checkpoint=none", change, "--quiet"]) == 2
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_an_external_image_that_was_trained_on_is_refused(tmp_path: Path) -> None:
    two_sets(tmp_path)
    for i in range(12):
        shutil.copy(tmp_path / "set" / "CSR" / f"CSR_{i}.jpg", tmp_path / "other" / "fluid" / f"{i}.jpg")
    external = External(path=str(tmp_path / "other"), class_map={"CSR": "fluid", "NORMAL": "healthy"})
    path = str(tmp_path / "set")
    with pytest.raises(
        DataError, match=r"external.path=.* images are also in the train or val part of .*, first fl"
    ):
        load_with_external(EvalData(path=path), external, 28)
    data = load_with_external(EvalData(path=path, allow_leak=True), external, 28)
    assert data.external
    assert data.external.leaked_images > 0


@pytest.mark.slow
def test_compare_tests_every_row_on_the_external_set(tmp_path: Path) -> None:
    config = two_sets(tmp_path)
    command = ["compare", str(config), *TINY, MAP, 'weights={a = "none", b = "none"}', "finetune.epochs=1"]
    command.append("probe.enabled=false")
    assert main([*command, "--quiet"]) == 0
    for row in ("a", "b"):
        assert json.loads((tmp_path / "out" / row / "metrics.json").read_text())["external"]["images"] == 18
    before = (tmp_path / "out" / "a" / "metrics.json").stat().st_mtime_ns
    assert main([*command, "--quiet"]) == 0
    assert (tmp_path / "out" / "a" / "metrics.json").stat().st_mtime_ns == before
    page = (tmp_path / "out" / "report.html").read_text()
    assert "a, external test" in page
    assert "b, external test" in page


def test_the_preset_fits_the_real_sets(test_data: Path) -> None:
    config, _ = load(EvaluateConfig, "configs/evaluate_octdl_on_kermany.toml")
    external = External(path=str(test_data / "kermany"), class_map=config.external.class_map)
    data = load_with_external(EvalData(path=str(test_data / "octdl")), external, 56)
    assert data.external
    assert list(data.external.class_map) == ["AMD", "DME", "NO"]
    assert len(data.external.part) == 46
    assert data.external.unmapped_counts == {}
