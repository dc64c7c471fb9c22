"""A few patients a class in words, tables and plots."""

from __future__ import annotations

from typing import Any

from retfound_dist.evaluate.few_shots.shot_report import shots_plots, shots_sentences, shots_tables
from retfound_dist.evaluate.few_shots.shot_scores import ShotPlan

PLAN = ShotPlan("patient", (1, 4), {4: {"RAO": 3}}, (64,))


def entry(shots: int, draws: int = 5, ours: float | None = 0.6, real: bool = True) -> dict[str, Any]:
    """An entry of compare.json with `none` at 0.4 and `ours`, fine-tuned and by two probes."""

    def score(mean: float | None) -> dict[str, Any]:
        known = mean is not None
        return {
            "mean": mean,
            "std": 0.1 if known else None,
            "ci95": [mean - 0.1, mean + 0.2] if known else None,
        }

    methods = ("finetuned", "linear", "of_the_future")
    rows = {
        name: {
            method: {metric: score(mean) for metric in ("aupr", "balanced_accuracy")} for method in methods
        }
        for name, mean in (("none", 0.4), ("ours", ours))
    }
    lines = [
        {
            "method": method, "row": "ours", "none": "none", "metric": metric,
            "difference": None if ours is None else ours - 0.4,
            "ci95": None if ours is None else [0.1, 0.3], "real": real and ours is not None,
        }
        for method in methods
        for metric in ("aupr", "balanced_accuracy")
    ]  # fmt: skip
    train = [18, 25, 20, 18, 19][:draws]
    return {
        "shots": shots, "unit": "patient", "draws": draws, "train": train, "short_classes": {},
        "rows": rows, "against_none": lines,
    }  # fmt: skip


def test_sentences_name_patients_images_and_differences_and_say_that_val_is_complete() -> None:
    sentences = shots_sentences([entry(1, real=False), entry(2, real=False), entry(4)], PLAN)
    assert sentences[0].startswith(
        "With 4 patients a class (5 draws of 18 to 25 images), fine-tuned: "
        "“ours” is better than no pretraining: AUPR +0.200 [0.100, 0.300]"
    )
    assert sentences[1] == (
        "With 1 and 2 patients a class (5 draws each), fine-tuned: "
        "“ours” is not shown to be better or worse than no pretraining."
    )
    assert sentences[2] == (
        "With few patients a class, linear probe: “ours” is better than no pretraining in "
        "AUPR (with 4 patients a class) and balanced accuracy (with 4 patients a class)."
    )
    assert sentences[3].startswith("With few patients a class, of_the_future: ")
    assert "RAO has only 3 in train" in sentences[4]
    assert sentences[5].startswith("64 patients a class are left out")
    assert "means over 5 random draws of patients" in sentences[6]
    assert "Val stays complete, so the choice of the best epoch uses more labels" in sentences[6]
    assert shots_sentences([], ShotPlan()) == []


def test_a_probe_that_is_worse_or_unclear_is_called_so() -> None:
    worse = shots_sentences([entry(1, ours=0.2), entry(4, ours=0.2)], ShotPlan())
    assert (
        "linear probe: “ours” is worse than no pretraining in AUPR (with 1 and 4 patients a class) and "
        in worse[2]
    )
    unclear = shots_sentences([entry(1, real=False)], ShotPlan())
    assert unclear[0].startswith("With 1 patient a class (5 draws each)")
    assert unclear[1].endswith("linear probe: “ours” is not shown to be better or worse than no pretraining.")


def test_one_draw_is_not_called_a_mean() -> None:
    last = shots_sentences([entry(4, draws=1)], ShotPlan())[-1]
    assert "one random draw of patients, so intervals do not include the variation between draws" in last
    assert "means" not in last


def test_a_table_has_a_line_for_each_method_and_row_and_marks_what_is_more_than_chance() -> None:
    tables = shots_tables([entry(1, real=False), entry(4)])
    assert [table["title"] for table in tables] == [
        "Few patients a class: AUPR",
        "Few patients a class: balanced accuracy",
    ]
    assert tables[0]["columns"] == ["1 patient a class", "4 patients a class"]
    lines = {line["name"]: [cell["value"] for cell in line["cells"]] for line in tables[0]["lines"]}
    assert lines == {
        "none, fine-tuned": ["0.400", "0.400"],
        "ours, fine-tuned": ["0.600", "0.600 ↑"],
        "none, linear probe": ["0.400", "0.400"],
        "ours, linear probe": ["0.600", "0.600 ↑"],
        "none, of_the_future": ["0.400", "0.400"],
        "ours, of_the_future": ["0.600", "0.600 ↑"],
    }
    assert tables[0]["lines"][0]["cells"][0]["span"] == "0.300 to 0.600"
    worse = shots_tables([entry(4, ours=0.2)])[0]["lines"][1]["cells"][0]
    assert worse["value"] == "0.200 ↓"
    undefined = shots_tables([entry(4, ours=None)])[0]["lines"][1]["cells"][0]
    assert (undefined["value"], undefined["span"]) == ("-", "")
    assert shots_tables([]) == []


def test_there_is_a_plot_for_each_score_and_method_where_there_are_two_numbers() -> None:
    plots = shots_plots([entry(1), entry(4)])
    assert len(plots) == 2 * 3
    assert plots[0].title == "Few patients a class, fine-tuned: AUPR"
    assert plots[1].title == "Few patients a class, linear probe: AUPR"
    assert plots[0].legend == [(0, "none"), (1, "ours")]
    assert "Val stays complete" in plots[0].note
    # A probe has no epoch to choose.
    assert "Val stays complete" not in plots[1].note
    assert shots_plots([entry(4)]) == []
    # A row without scores has no line, and the other rows keep their colours.
    assert shots_plots([entry(1, ours=None), entry(4, ours=None)])[0].svg != plots[0].svg
