"""Sentences on the scores of a task, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.scores import wording
from retfound_dist.evaluate.scores.comparison_wording import Difference
from retfound_dist.evaluate.scores.metrics import LOWER_IS_BETTER
from retfound_dist.evaluate.scores.multiple_comparisons import ALPHA
from retfound_dist.evaluate.tasks.task_facts import (
    DECISIVE,
    MULTILABEL,
    REGRESSION,
    SCORE_LABELS,
    TaskFacts,
)
from retfound_dist.runtime.humanize import duration

_FEW_IMAGES = 10
"""Scores of a label or a grade with fewer test images are called unreliable."""


def score_text(metrics: Mapping[str, Any], name: str) -> str:
    """`AUROC 0.812 [0.770, 0.851]`."""
    return f"{SCORE_LABELS[name]} {wording.format_score(metrics['scores'][name], metrics['ci95'][name])}"


def task_headline(metrics: Mapping[str, Any], facts: TaskFacts) -> str:
    """The most important scores on one line."""
    size = f"{metrics['split']['test']} images, {duration(metrics['seconds'], whole=True)}"
    return f"test ({size}): {', '.join(score_text(metrics, name) for name in DECISIVE[facts.kind])}"


def describe_task(facts: TaskFacts) -> str:
    """What is predicted, as a phrase."""
    if facts.kind == MULTILABEL:
        return f"{len(facts.targets)} labels of yes or no: {', '.join(facts.targets)}"
    if facts.kind == REGRESSION:
        return f"the number {facts.targets[0]}"
    return f"the grade {facts.targets[0]}: {', '.join(facts.grades)}"


def summary_sentences(metrics: Mapping[str, Any], facts: TaskFacts) -> list[str]:
    """One evaluation in a few sentences."""
    test = f"{metrics['split']['test']} test images" + (
        f" of {metrics['patients']} patients" if metrics["patients"] else ""
    )
    scores = " and ".join(score_text(metrics, name) for name in DECISIVE[facts.kind])
    return [
        f"The network was fine-tuned from {wording.describe_start(metrics['checkpoint'])}. It predicts "
        f"{describe_task(facts)}. It reaches {scores} on {test}, which were not used for fine-tuning.",
        _compare_with_constant(metrics, facts),
        describe_task_intervals(metrics),
    ]


def _compare_with_constant(metrics: Mapping[str, Any], facts: TaskFacts) -> str:
    """What a prediction without looking at the image would score."""
    if facts.kind == MULTILABEL:
        return "Guessing gives an AUROC of 0.50, and an AUPR equal to the share of images with the label."
    if facts.kind == REGRESSION:
        median_error = metrics["per_target"][facts.targets[0]]["mae_of_median"]
        span = metrics["ci95"]["mae"]
        text = (
            "Always answering the median gives a mean absolute error of "
            f"{wording.format_number(median_error)}"
        )
        if span and span[1] >= median_error:
            return f"{text}: this result may be no better."
        return f"{text} and a concordance of 0.50."
    span = metrics["ci95"]["quadratic_kappa"]
    if span and span[0] <= 0:
        return "Guessing gives a quadratic kappa of 0: this result may be due to guessing."
    return "Guessing gives a quadratic kappa of 0."


def describe_task_intervals(metrics: Mapping[str, Any]) -> str:
    """What the intervals include."""
    text = wording.describe_resamples(metrics)
    if len(metrics["seeds"]) == 1:
        return text
    return f"{text} Scores are computed from the mean of the seeds' predictions."


def task_warnings(metrics: Mapping[str, Any], facts: TaskFacts) -> list[str]:
    """Everything that makes the scores less reliable."""
    sentences = [*wording.set_warnings(metrics), *metrics["notes"], *wording.part_warnings(metrics)]
    if facts.kind != REGRESSION and (few := _few_images(metrics, facts)):
        names = ", ".join(few)
        sentences.append(f"fewer than {_FEW_IMAGES} test images of {names}: their scores are unreliable")
    undefined = [SCORE_LABELS[name] for name, value in metrics["scores"].items() if value is None]
    if undefined:
        sentences.append(
            f"not defined on these test images, and shown as -: {', '.join(undefined)} "
            "(a label or a grade has too few different answers)"
        )
    return sentences


def _few_images(metrics: Mapping[str, Any], facts: TaskFacts) -> list[str]:
    """The labels that few test images have, or the grades of few test images."""
    counted = "with_label" if facts.kind == MULTILABEL else "images"
    return [name for name, row in metrics["per_target"].items() if row[counted] < _FEW_IMAGES]


def describe_unused(facts: TaskFacts, label_smoothing: float) -> list[str]:
    """Notes on settings that this task does not use."""
    notes = []
    if label_smoothing:
        notes.append(
            f"the setting finetune.label_smoothing={label_smoothing:g} is not used: it is for classes, not "
            f"for task.kind={facts.kind}"
        )
    return notes


def gain_sentences(lines: Sequence[Difference]) -> list[str]:
    """For each row, whether it is better or worse than random weights.

    `lines`: each row minus the row of random weights (`row_pairs.differences_to_none`).
    """
    lines_by_row: dict[str, list[Difference]] = {}
    for line in lines:
        lines_by_row.setdefault(line["row"], []).append(line)
    return [_gain_sentence(name, row_lines) for name, row_lines in lines_by_row.items()]


def _gain_sentence(name: str, lines: Sequence[Difference]) -> str:
    """The sentence about one row. `lines`: its difference from random weights in each score."""
    clear = [line for line in lines if line["real"]]
    gaps = " and ".join(
        _named_difference_text(line) for line in clear or lines if line["difference"] is not None
    )
    if not clear:
        tail = f" (difference: {gaps})" if gaps else ""
        return f"“{name}” is not shown to be better or worse than no pretraining{tail}."
    is_better = {is_improvement(line) for line in clear}
    verdict = "better" if is_better == {True} else "worse"
    if len(is_better) > 1:
        return f"“{name}” is better than no pretraining in one score and worse in another: {gaps}."
    rest = [SCORE_LABELS[line["metric"]] for line in lines if not line["real"]]
    tail = f"; no clear difference in {' and '.join(rest)}" if rest else ""
    return f"“{name}” is {verdict} than no pretraining: {gaps}{tail}."


def best_sentence(metric: str, name: str, metrics: Mapping[str, Any], lines: Sequence[Difference]) -> str:
    """The best row on one score, and the rows that it is and is not clearly ahead of.

    `metric`: the score's key. `name`, `metrics`: the best row and its metrics.json. `lines`: the best row
    minus each other row (`row_pairs.differences_to_best`).
    """
    label = SCORE_LABELS[metric]
    best_score = wording.format_score(metrics["scores"][metric], metrics["ci95"][metric])
    scored_lines = [line for line in lines if line["difference"] is not None]
    if scored_lines and len(scored_lines) == len(lines) and not any(line["difference"] for line in lines):
        return f"All rows have the same {label}, {best_score}."
    sentences = [f"“{name}” has the best {label}, {best_score}."]
    if clear := [f"“{line['other']}” by {_lead_text(line)}" for line in scored_lines if line["real"]]:
        sentences.append(f"It is clearly ahead of {', '.join(clear)}.")
    if near := [f"“{line['other']}” ({_difference_text(line)})" for line in scored_lines if not line["real"]]:
        sentences.append(f"No clear difference on these test images from {', '.join(near)}.")
    sentences += [
        f"“{line['other']}” cannot be compared: its {label} is undefined."
        for line in lines
        if line["difference"] is None
    ]
    return " ".join(sentences)


def _lead_text(line: Difference) -> str:
    """`+0.031 [0.010, 0.052]`: how much better a row is, also where a lower score is better."""
    if line["metric"] not in LOWER_IS_BETTER:
        return _difference_text(line)
    low, high = line["ci95"]
    return _difference_text({**line, "difference": -line["difference"], "ci95": [-high, -low]})


def is_improvement(line: Difference) -> bool:
    """Whether a difference, which is defined, is in the direction that is better for its score."""
    return bool((line["difference"] < 0) == (line["metric"] in LOWER_IS_BETTER))


def _named_difference_text(line: Difference) -> str:
    """`AUROC +0.031 [0.010, 0.052]`: the score and a difference in it, which is defined."""
    return f"{SCORE_LABELS[line['metric']]} {_difference_text(line)}"


def _difference_text(line: Difference) -> str:
    """`+0.031 [0.010, 0.052] (also after correction for 3 comparisons)` of a difference that is defined.

    The interval is that of one comparison. The clause says whether a clear difference is still one after
    Holm's correction.
    """
    sign = "+" if line["difference"] > 0 else ""
    text = f"{sign}{wording.format_score(line['difference'], line['ci95'])}"
    count, p_holm = line.get("comparisons", 1), line.get("p_holm")
    if line["real"] and count > 1 and p_holm is not None:
        text += f" ({'also' if p_holm < ALPHA else 'but not'} after correction for {count} comparisons)"
    return text
