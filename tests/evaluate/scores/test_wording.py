from __future__ import annotations

from typing import Any

import pytest

from retfound_dist.evaluate.scores import wording
from retfound_dist.files.skipped_files import HIDDEN_FILES


def metrics(**changes: Any) -> dict[str, Any]:
    """A metrics.json of a good classifier of four classes, fine-tuned once."""
    return {
        "macro": {"auroc": 0.912, "aupr": 0.7, "balanced_accuracy": 0.651, "undefined": {}},
        "legacy": {"undefined": {}},
        "ci95": {
            "macro": {"auroc": [0.88, 0.94], "aupr": [0.6, 0.8], "balanced_accuracy": [0.55, 0.74]},
        },
        "classes": ["A", "B", "C", "D"],
        "checkpoint": {"kind": "none", "url": "none", "step": None, "samples": None},
        "split": {"test": 200, "val": 50, "per_class": {"test": {"A": 50, "B": 50, "C": 50, "D": 50}}},
        "patients": 80,
        "bootstrap": {"unit": "patient", "units": 80, "resamples": 1000},
        "seeds": [0],
        "warnings": [],
        "skipped": [],
        **changes,
    }


@pytest.mark.parametrize(
    ("value", "digits", "text"),
    [
        (0.81249, 3, "0.812"),
        (-0.05, 2, "−0.05"),
        (-0.0004, 3, "0.000"),
        (1.0, 1, "1.0"),
    ],
)
def test_a_number_has_a_real_minus_sign_and_no_minus_zero(value: float, digits: int, text: str) -> None:
    assert wording.format_number(value, digits) == text


def test_a_score_has_its_interval_and_an_undefined_one_is_a_dash() -> None:
    assert wording.format_score(0.812, [0.77, -0.0001]) == "0.812 [0.770, 0.000]"
    assert wording.format_score(0.5, None, 1) == "0.5"
    assert wording.format_score(None, [0.1, 0.2]) == "-"


@pytest.mark.parametrize(
    ("checkpoint", "text"),
    [
        ({"kind": "none", "url": "none", "step": None}, "random weights (no pretraining)"),
        (
            {"kind": "file", "url": "a.pth", "step": None, "part": "teacher"},
            "the weights file a.pth (teacher)",
        ),
        (
            {"kind": "checkpoint", "url": "r/checkpoints/step_5", "step": 5000, "samples": 8960000},
            "the checkpoint r/checkpoints/step_5 (step 5,000, 8,960,000 images seen)",
        ),
    ],
)
def test_a_start_is_named_by_what_it_is(checkpoint: dict[str, Any], text: str) -> None:
    assert wording.describe_start(checkpoint) == text


def test_a_summary_says_the_scores_on_how_many_images_of_how_many_patients() -> None:
    first, chance, _ = wording.summary(metrics())
    assert "AUROC 0.912 [0.880, 0.940]" in first
    assert "(means over 4 classes) on 200 test images of 80 patients, which were not used" in first
    assert chance == "Guessing gives a balanced accuracy of 0.25 and an AUROC of 0.50."
    first, *_ = wording.summary(metrics(patients=None))
    assert "on 200 test images, which" in first


def test_an_interval_that_reaches_chance_is_called_guessing() -> None:
    spans = {"auroc": [0.5, 0.9], "aupr": [0.3, 0.8], "balanced_accuracy": [0.25, 0.8]}
    _, chance, _ = wording.summary(metrics(ci95={"macro": spans}))
    assert chance.endswith("this result may be due to guessing.")


def test_intervals_say_what_was_drawn_and_that_one_seed_leaves_something_out() -> None:
    text = wording.describe_intervals(metrics())
    assert "95 % intervals from 1,000 bootstrap resamples of the 80 test patients." in text
    assert "only one seed was run" in text
    by_volume = wording.describe_intervals(metrics(bootstrap={"unit": "volume", "units": 9, "resamples": 50}))
    assert "9 test volumes (not every patient is known" in by_volume


def test_several_seeds_are_said_with_the_spread_of_one_and_by_row() -> None:
    over = {"macro": {"auroc": {"mean": 0.8, "std": 0.0123}}}
    drawn = {"unit": "patient", "units": 80, "resamples": 1000, "seeds": 3}
    several = metrics(seeds=[0, 1, 2], over_seeds=over, bootstrap=drawn)
    text = wording.describe_intervals(several)
    assert "80 test patients and of the 3 fine-tuning seeds." in text
    assert "A single seed has a mean AUROC of 0.800 with a standard deviation of 0.012." in text
    assert "A single seed of “ours” has a mean AUROC of 0.800" in wording.describe_intervals(several, "ours")
    over["macro"]["auroc"] = {"mean": None, "std": None}  # type: ignore[dict-item]
    assert wording.describe_intervals(several).endswith("of 3 fine-tuning seeds.")


def test_a_good_evaluation_has_no_warnings_and_a_doubtful_one_has_each() -> None:
    assert wording.warnings(metrics()) == []
    doubtful = metrics(
        split={"test": 30, "val": 0, "per_class": {"test": {"A": 20, "B": 9, "C": 1, "D": 10}}},
        bootstrap={"unit": "volume", "units": 29, "resamples": 100},
        skipped=[{"key": f"{n}.jpg", "reason": "cut"} for n in range(7)],
        notes=[f"3 {HIDDEN_FILES}", "2 links lead nowhere"],
        external={"notes": ["1 archive"]},
        warnings=["as it was told"],
    )
    assert wording.warnings(doubtful) == [
        "as it was told",
        "7 images were left out (0.jpg: cut; 1.jpg: cut; 2.jpg: cut; 3.jpg: cut; 4.jpg: cut)",
        "2 links lead nowhere",
        "external set: 1 archive",
        "the test part has only 29 volumes, so the intervals are rough",
        "there is no validation part, so the last epoch was kept",
        "fewer than 10 test images of B, C: scores of these classes are unreliable",
    ]


def test_a_split_is_said_by_who_made_it_and_how_far_patients_are_known() -> None:
    assert wording.describe_split("given", {"patient": 9}) == "given by the set"
    assert wording.describe_split("file", {"patient": 6, "image": 2}) == (
        "given by the split file (data.split_file); the patient of 2 of 8 images is not known"
    )
    assert wording.describe_split("patient", {"patient": 8}) == "at random by patient (8 images)"
    assert wording.describe_split("volume", {}) == "at random by volume", "an evaluation of an older version"


def test_images_seen_in_pretraining_are_warned_of_where_they_are_tested_or_chosen_by() -> None:
    of = {"train": 70, "val": 10, "test": 2000}
    seen = {"of": of, "train": 70, "val": 0, "test": 1500, "how": "digests"}
    assert "(1,500 of 2,000 test, 0 of 10 val, 70 of 70 train)" in wording.pretrained_warning(seen)
    assert (
        wording.pretrained_note(seen) == "70 of 70 train, 0 of 10 val, 1,500 of 2,000 test images (digests)"
    )
    assert wording.pretrained_warning({**seen, "test": 0}) == ""
    assert wording.pretrained_warning(None) == ""
    none = {"of": of, "train": 0, "val": 0, "test": 0, "how": "no pretraining"}
    assert wording.pretrained_note(none) == "no image of this set (no pretraining)"
    unknown = {"of": of, "train": None, "val": None, "test": None, "how": "unknown: no config"}
    assert wording.pretrained_note(unknown).endswith("images of this set is unknown: no config")
    assert wording.probe_overlap_warning(unknown) == ""
    assert "(1,500 of 2,000 test)" in wording.probe_overlap_warning({"of": {"test": 2000}, "test": 1500})
    assert wording.external_overlap_warning({"of": {"test": 8}, "test": 3}) == (
        "the weights were pretrained on 3 of its 8 images"
    )


def test_the_recipe_that_val_chose_comes_first() -> None:
    tried = [
        {"recipe": {}, "val_auroc": None},
        {"recipe": {"base_lr": 0.01, "crop_scale": [0.2, 1.0]}, "val_auroc": 0.8},
    ]
    assert wording.describe_tuning(tried[1]["recipe"], tried) == (  # type: ignore[arg-type]
        "base_lr=0.01 crop_scale=[0.2, 1.0] (val AUROC 0.800); also tried: the recipe unchanged (val AUROC -)"
    )
    assert wording.describe_tuning({}, tried[:1]) == "the recipe unchanged (val AUROC -)"


def test_why_scores_are_undefined_is_said_once_each_and_f1_only_where_it_stands_alone() -> None:
    assert wording.undefined_warning(metrics()) == ""
    never, no_f1 = "class B is never predicted", "class B is never predicted correctly"
    both = metrics(
        macro={"undefined": {"precision": never}}, legacy={"undefined": {"precision": never, "f1": no_f1}}
    )
    assert wording.undefined_warning(both) == f"some scores are undefined (shown as -): {never}"
    alone = metrics(legacy={"undefined": {"f1": no_f1}})
    assert wording.undefined_warning(alone).endswith(no_f1)


def test_an_external_test_says_its_map_and_what_does_not_count() -> None:
    tree = {
        "images": 18,
        "patients": 9,
        "class_map": {"CSR": ["fluid", "leak"], "NORMAL": ["healthy"]},
        "left_out": {"hole": 6, "scar": 1},
        "dropped_classes": ["MH"],
        "skipped": [],
        "warnings": [],
    }
    assert wording.describe_external(tree) == (
        "18 images of 9 patients from another set, none used for fine-tuning; "
        "class of the model = its labels: CSR = fluid + leak, NORMAL = healthy; "
        "7 images with unmapped labels are left out (hole 6, scar 1); "
        "probabilities of MH are dropped and the rest is scaled to sum to 1."
    )
    eyes = wording.describe_external({**tree, "unit": "eye", "of_images": 54})
    assert eyes.startswith("18 eyes (54 images) of 9 patients from another set, ")


def test_p_is_short() -> None:
    assert [wording.format_p(p) for p in (0.0004, 0.0123, 0.25, 1.0)] == [
        "below 0.001",
        "0.0123",
        "0.25",
        "1.00",
    ]
