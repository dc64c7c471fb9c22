"""A card says what a stranger must know before the classifier is used, and no path."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.export.classifier_card import (
    CardFacts,
    licence_text,
    make_classifier_card,
    preparation_text,
)
from tests.evaluate.tasks_made import FACTS
from tests.export.inputs import CLASSES, make_classifier


def card(folder: Path, kind: str = "onnx", **fields: object) -> str:
    kept = classifier_file.read(make_classifier(folder / "kept", **fields))  # type: ignore[arg-type]
    arguments = {} if kind in ("onnx", "torchscript") else {"architecture": "vit_tiny", "num_classes": 3}
    return make_classifier_card(CardFacts("oct.onnx", kind, kept, (0, 1), "vit_demo_patch14", arguments))


def test_it_says_use_classes_data_scores_input_licence_and_how_to_load(tmp_path: Path) -> None:
    text = card(tmp_path)
    for words in (
        "not a medical device", "do not use it for diagnosis", "| 2 | NORMAL |", "shorter side has 32 pixels",
        'onnxruntime.InferenceSession("oct.onnx")', "temperature 0.7, fitted on the 40 images of val",
        "| train | 1,054 | 27 | 18 | 18 | 18 |", "| val | 40 | not known |", "| AUROC | 0.900 | 0.850 to 0.950 |",
        "| F1 | 0.600 | not known |", "RETFound_oct_weights.pth", "CC BY-NC 4.0, not for commercial use",
        "license: cc-by-nc-4.0", "divided by patient", "`0123abcd`", "seeds 0, 1",
    ):  # fmt: skip
        assert words in text, words
    assert "dr_weber" not in text
    assert "Thresholds" not in text
    assert text.endswith("\n")


@pytest.mark.parametrize(
    ("kind", "words"),
    [("torchscript", "torch.jit.load"), ("timm", "timm.create_model('vit_tiny', num_classes=3)"),
     ("hf", 'timm.create_model("local-dir:oct.onnx", pretrained=True)')],
)  # fmt: skip
def test_each_format_has_its_own_lines(kind: str, words: str, tmp_path: Path) -> None:
    text = card(tmp_path, kind)
    assert words in text
    if kind != "torchscript":
        assert "logits of one network, seed 0 of 2" in text


def test_thresholds_and_what_is_not_known_are_shown(tmp_path: Path) -> None:
    text = card(
        tmp_path,
        thresholds={"MH": {"youden": 0.31234567}, "rule": "highest"},
        temperature={"value": 1.0, "images": 3, "reason": "val has only 3 images"},
        data={},
        scores={"macro": {}, "ci95": {}},
    )
    for words in ("| MH, youden | 0.3123 |", "| rule | highest |", "not fitted: val has only 3 images",
                  "| test | not known | not known | not known |", "\nNot known.\n"):  # fmt: skip
        assert words in text, words


def test_thresholds_that_a_classifier_keeps_have_a_row_for_each_rate(tmp_path: Path) -> None:
    points = [
        {"target": {"rate": "specificity", "level": 0.95}, "threshold": 0.41234, "reason": None, "val": {}},
        {"target": {"rate": "sensitivity", "level": 0.9}, "threshold": None, "reason": "too few", "val": {}},
    ]
    text = card(tmp_path, thresholds={"MH": {"classes": ["MH"], "points": points}})
    assert "| MH, specificity 95 % | 0.4123 |\n| MH, sensitivity 90 % | none: too few |" in text


def test_a_classifier_of_eyes_is_described_as_one(tmp_path: Path) -> None:
    split = {
        **{"by": "patient", "unit": "eye", "train": 30, "val": 10, "test": 12},
        "images": {"train": 300, "val": 100, "test": 120},
        "patients": {"train": 15, "val": 5, "test": 6},
        "per_class": {"test": dict.fromkeys(CLASSES, 4)},
    }
    text = card(tmp_path, unit={"kind": "eye", "pool": "mean"}, data={"split": split}, thresholds={"MH": 0.5})
    for words in (
        "| part | eyes | images | patients | CSR | MH | NORMAL |", "| test | 12 | 120 | 6 | 4 | 4 | 4 |",
        "It predicts single images, but it was scored on eyes:", "fitted on the 40 eyes of val",
        "for calibrated probabilities of eyes.", "On the eyes of the test part, mean over 2 seeds",
    ):  # fmt: skip
        assert words in text, words
    of_patients = card(tmp_path / "b", unit={"kind": "patient", "pool": "mean"}, data={"split": split})
    assert "| part | patients | images | CSR |" in of_patients
    assert "| test | 12 | 120 | 4 | 4 | 4 |" in of_patients


@pytest.mark.parametrize(
    ("kind", "graph", "network"),
    [
        ("multilabel", ("with 2 labels of yes or no", "## Labels", "| 1 | fluid |", "| cyst | 0.31 |",
                        "not calibrated", "| AUROC | 0.812 | 0.700 to 0.900 |", "means over all labels"),
         ("`sigmoid` makes a probability of each",)),
        ("regression", ("predicts a number of retinal OCT B-scans: age", "(numbers,) = session.run",
                        "| mean absolute error | 4.250 |", "image-regression"),
         ("the number is 60.0 + 12.0 * output",)),
        ("ordinal", ("by stage, with 3 grades", "| 2 | 2 |", "sum to 1", "| quadratic kappa | 0.500 |"),
         ("| 1 | above 1 |", "to be above grade k")),
    ],
)  # fmt: skip
def test_other_tasks_say_what_their_outputs_are(
    kind: str, graph: tuple[str, ...], network: tuple[str, ...], tmp_path: Path
) -> None:
    scores = {"auroc": 0.812, "mae": 4.25, "quadratic_kappa": 0.5, "rmse": None}
    fields = {
        "task": FACTS[kind],
        "scores": {"macro": scores, "ci95": {"auroc": [0.7, 0.9]}},
        "thresholds": {"cyst": {"threshold": 0.31, "reason": None}} if kind == "multilabel" else {},
    }
    text = card(tmp_path, **fields)
    for words in graph:
        assert words in text, words
    assert "| train | 1,054 | 27 |\n" in text
    other = card(tmp_path / "timm", "timm", **fields)
    for words in (*network, "those of one network, seed 0 of 2"):
        assert words in other, words
    for shown in (text, other):
        assert "temperature" not in shown
        assert "classes" not in shown.replace("num_classes", "")


def test_licences_of_each_kind_of_starting_weights() -> None:
    assert "no terms of starting weights" in licence_text({"url": "none", "licence": "none"})
    assert "not known: find out" in licence_text({"url": "/home/x/w.pth", "licence": ""})
    assert "/home/x" not in licence_text({"url": "/home/x/w.pth", "licence": ""})
    assert "hf:owner/repo" in licence_text({"url": "hf:owner/repo"})
    assert licence_text({"owner": "X's", "licence": "MIT"}) == "MIT: trained from X's published weights"


def test_the_rule_of_resizing_is_that_of_the_evaluation() -> None:
    assert "shorter side has 256 pixels; the centre of 224 x 224" in preparation_text(224, "bicubic")
