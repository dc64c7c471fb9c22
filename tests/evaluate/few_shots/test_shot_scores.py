"""A few patients a class: intervals hold the variation of draws as well as of test patients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from retfound_dist.config.schema import EvalData
from retfound_dist.evaluate.data.set_loading import load_labelled_set
from retfound_dist.evaluate.few_shots.shot_scores import (
    ShotPlan,
    method_scores,
    plan_shots,
    resampled_means,
    shots_entries,
)
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap, metrics
from tests.evaluate.inputs import class_folders, list_patients

LABELS_N = np.random.default_rng(0).integers(0, 3, 90)
NAMES = tuple(str(i) for i in range(90))
PLAN = ShotPlan("patient", (2, 4))


def drawn(quality: float, seed: int, kind: str = "file", probes: Sequence[str] = ("linear",)) -> Evaluation:
    """One draw: a classifier that is right more often with a higher quality, and equal probes."""
    noise_NC = np.random.default_rng(seed).dirichlet(np.ones(3), 90)
    p_NC = quality * np.eye(3)[LABELS_N] + (1 - quality) * noise_NC
    scores = metrics.evaluate(LABELS_N, p_NC, "ABC")
    tree = {
        **scores,
        "checkpoint": {"kind": kind},
        "bootstrap": {"unit": "patient"},
        "split": {"train": 10 + seed},
        "probe": dict.fromkeys(probes, scores),
    }
    return Evaluation(tree, NAMES, NAMES, LABELS_N, p_NC, [], probe_probabilities=dict.fromkeys(probes, p_NC))


def width(draws: Sequence[Evaluation]) -> float:
    """Of the interval of the mean AUPR."""
    entry = shots_entries({2: {"ours": draws}}, PLAN, 400)[0]
    low, high = entry["rows"]["ours"]["finetuned"]["aupr"]["ci95"]
    return float(high - low)


def test_an_interval_is_wide_where_draws_disagree_and_as_wide_as_one_draw_s_where_they_agree() -> None:
    alike = [drawn(0.3, 7)] * 4
    one = bootstrap.scores(LABELS_N, alike[0].probabilities_NC, bootstrap.resample(np.arange(90), 400, 0))
    low, high = bootstrap.interval(one["macro"]["aupr"]) or (0, 0)
    # Names are sorted as text, so the units of the images are another order of the same numbers.
    assert width(alike) == pytest.approx(high - low, rel=0.25)
    disagreeing = [drawn(quality, 7) for quality in (0.0, 0.05, 0.6, 0.9)]
    assert width(disagreeing) > 2 * width(alike)


def test_means_are_those_of_the_draws_and_the_deviation_is_theirs() -> None:
    draws = [drawn(quality, seed) for seed, quality in enumerate((0.1, 0.2, 0.4))]
    entry = shots_entries({2: {"ours": draws}}, PLAN, 50)[0]
    values = [draw.metrics["macro"]["aupr"] for draw in draws]
    score = entry["rows"]["ours"]["finetuned"]["aupr"]
    assert score["mean"] == pytest.approx(np.mean(values))
    assert score["std"] == pytest.approx(np.std(values, ddof=1))
    assert score["ci95"][0] < score["mean"] < score["ci95"][1]
    assert entry["rows"]["ours"]["linear"]["aupr"] == score
    assert entry["train"] == [10, 11, 12]
    one = shots_entries({2: {"ours": draws[:1]}}, PLAN, 50)[0]["rows"]["ours"]["finetuned"]["aupr"]
    assert (one["mean"], one["std"]) == (values[0], None)


def test_a_resampled_mean_is_of_as_many_draws_on_the_same_patients_and_alike_for_all_rows() -> None:
    values_DR = np.array([[0.0, 1.0, 2.0] * 40, [10.0, 11.0, 12.0] * 40])
    means_R = resampled_means({"aupr": values_DR})["aupr"]
    # Of two draws: twice the first, one of each, or twice the second, at this resample of the patients.
    assert set(means_R - values_DR[0]) == {0.0, 5.0, 10.0}
    np.testing.assert_array_equal(resampled_means({"aupr": values_DR + 3})["aupr"], means_R + 3)


def test_rows_are_compared_with_none_by_pairs_for_each_method() -> None:
    # All rows do better with the first draw than with the second: only pairs show the difference.
    qualities = (0.35, 0.1, 0.2)
    rows = {
        "none": [drawn(quality, seed, "none", ("linear", "knn")) for seed, quality in enumerate(qualities)],
        "better": [
            drawn(quality + 0.05, seed, probes=("linear", "knn")) for seed, quality in enumerate(qualities)
        ],
        "same": [drawn(quality, seed, probes=("linear",)) for seed, quality in enumerate(qualities)],
    }
    entry = shots_entries({4: rows}, PLAN, 300)[0]
    lines = {(line["method"], line["row"], line["metric"]): line for line in entry["against_none"]}
    # Only "none" and "better" have the second probe, so it is not compared.
    assert {method for method, _, _ in lines} == {"finetuned", "linear"}
    for method in ("finetuned", "linear"):
        assert lines[method, "better", "aupr"]["real"]
        assert lines[method, "better", "aupr"]["difference"] > 0
        assert lines[method, "same", "aupr"] == {
            "method": method, "row": "same", "none": "none", "metric": "aupr",
            "difference": 0.0, "ci95": [0.0, 0.0], "real": False,
        }  # fmt: skip
    low, high = entry["rows"]["better"]["finetuned"]["aupr"]["ci95"]
    pair_low, pair_high = lines["finetuned", "better", "aupr"]["ci95"]
    assert pair_high - pair_low < (high - low) / 3


def test_a_score_that_one_draw_lacks_has_no_mean() -> None:
    draws = [drawn(0.2, seed) for seed in range(3)]
    draws[1].metrics["macro"]["precision"] = None
    entry = shots_entries({2: {"ours": draws}}, PLAN, 50)[0]
    assert entry["rows"]["ours"]["finetuned"]["precision"] == {"mean": None, "std": None, "ci95": None}


def test_scores_of_draws_are_those_of_each_draw() -> None:
    draws = [drawn(0.2, 0), drawn(0.5, 1)]
    weights_RN = bootstrap.resample(np.arange(90), 30, 0)
    values = method_scores(draws, "linear", weights_RN)["auroc"]
    for draw, values_R in zip(draws, values, strict=True):
        expected = bootstrap.scores(LABELS_N, draw.probabilities_NC, weights_RN)["macro"]["auroc"]
        np.testing.assert_array_equal(values_R, expected)


def test_a_class_with_fewer_patients_is_named_and_a_number_that_takes_all_of_train_is_left_out(
    tmp_path: Path,
) -> None:
    root = class_folders(tmp_path / "set", each=16)
    for number in range(10, 16):
        (root / "MH" / f"MH_{number}.jpg").unlink()
    list_patients(root)
    data = load_labelled_set(EvalData(path=str(root)), 28)
    plan = plan_shots(data, [8, 4, 2, 4, 1])
    few = plan.short_classes[4]["MH"]
    assert plan == ShotPlan("patient", (1, 2, 4), {4: {"MH": few}} | plan.short_classes, (8,))
    assert few < 4
    assert f"with 4 patients a class: MH has only {few} in train, and all of them are used in every draw" in (
        plan.notes
    )
    assert plan.notes[-1] == (
        "8 patients a class are left out: no class has more in train, so every draw would be the whole train part"
    )


def test_numbers_with_the_same_short_classes_share_a_note() -> None:
    plan = ShotPlan("volume", (1, 8, 16, 32), {8: {"RAO": 7}, 16: {"RAO": 7}, 32: {"RAO": 7, "RVO": 20}})
    first, second = plan.notes
    assert first.startswith("with 8 and 16 volumes a class: RAO has only 7 in train")
    assert second.startswith("with 32 volumes a class: RAO has only 7, RVO has only 20 in train")
