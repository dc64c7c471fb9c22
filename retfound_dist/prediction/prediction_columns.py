"""The columns of a prediction, for each kind of classifier.

multiclass   predicted, p_<CLASS>..., entropy, seed_spread
multilabel   predicted (labels joined by `;`), p_<LABEL>..., entropy, seed_spread
regression   predicted (the number), seed_spread
ordinal      predicted (the grade), expected (the mean grade, from 0), p_<GRADE>..., entropy, seed_spread

Predicted values, probabilities and the mean grade are those of the evaluation's predictions.csv.

Shapes: S seeds, N images, C classes, labels or grades.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.stats import entropy as scipy_entropy

from retfound_dist.config.schema import MULTICLASS, NO_LABEL
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.classifier.classifier import mean_of_seeds
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile, task_of
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.tasks.label_thresholds import joined_labels, threshold_notes, threshold_values
from retfound_dist.evaluate.tasks.task_facts import MULTILABEL, ORDINAL, REGRESSION, TaskFacts
from retfound_dist.evaluate.tasks.task_outputs import expected_grades, predicted_grades
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.prediction.prediction_run import ImagePredictions
from retfound_dist.prediction.prediction_table import Column, PredictionTable

MAX_MAPS = 4
"""Labels of one image that get a heat map, the likeliest ones."""
_NO_MAPS = {
    REGRESSION: "a map shows what raises a number, and nothing of what lowers it",
    ORDINAL: "each grade is made of several outputs of the network",
}


def check_task_options(facts: ClassifierFile, url: str, unit: str, heatmaps: str) -> None:
    """ConfigError for an option that does not fit what the classifier predicts.

    WeightsError where its task is not known or damaged.
    """
    if (task := task_of(facts, url)) is None:
        return
    if unit != IMAGE:
        raise ConfigError(
            f"--unit {unit}: {url} predicts {task.kind}, which is evaluated by image: leave --unit out"
        )
    if heatmaps and task.kind in _NO_MAPS:
        raise ConfigError(
            f"--heatmaps {heatmaps}: there are no heat maps of {task.kind}, because {_NO_MAPS[task.kind]}: "
            "leave --heatmaps out"
        )


def table_notes(facts: ClassifierFile) -> list[str]:
    """What a user must know about the column `predicted`."""
    task = task_of(facts, "the classifier")
    if task is None or task.kind != MULTILABEL:
        return []
    return threshold_notes(task.targets, facts.thresholds)


def prediction_table(
    predictions: ImagePredictions, facts: ClassifierFile, *, calibrated: bool
) -> PredictionTable:
    """The table of predictions. `calibrated`: classes at the classifier's temperature."""
    task = task_of(facts, "the classifier")
    if task is None:
        return _class_table(predictions, facts, calibrated=calibrated)
    make = {MULTILABEL: _label_table, REGRESSION: _number_table, ORDINAL: _grade_table}[task.kind]
    return make(predictions, facts, task)


def mapped_outputs(table: PredictionTable, row: int) -> list[int]:
    """The outputs of the network that a heat map is drawn of: the predicted class, or the predicted labels.

    At most `MAX_MAPS` labels, in their order; without a predicted label the likeliest one. None of a number
    and of grades.
    """
    if table.kind == MULTICLASS:
        return [table.classes.index(table.predicted[row])]
    if table.kind != MULTILABEL:
        return []
    places = predicted_labels(table, row)
    likeliest = sorted(places or range(len(table.classes)), key=lambda place: -table.predicted_NC[row, place])
    return sorted(likeliest[: MAX_MAPS if places else 1])


def predicted_labels(table: PredictionTable, row: int) -> list[int]:
    """The places of the labels that are predicted for an image."""
    return [int(place) for place in np.flatnonzero(table.predicted_NC[row] >= table.thresholds_T)]


def normalised_entropy(probabilities_NC: Floats) -> Floats:
    """(N,): Shannon's entropy divided by its largest value, log C. 0: sure; 1: all classes equally likely."""
    classes = probabilities_NC.shape[1]
    if classes < 2:
        return np.zeros(len(probabilities_NC))
    entropy_N: Floats = scipy_entropy(probabilities_NC, axis=1) / np.log(classes)
    return entropy_N


def label_entropy(probabilities_NT: Floats) -> Floats:
    """(N,): the entropy of the least certain label. 0: all are sure; 1: one is as likely as not."""
    both_NT2 = np.stack([probabilities_NT, 1 - probabilities_NT], axis=2)
    entropy_N: Floats = (scipy_entropy(both_NT2, axis=2) / np.log(2)).max(1)
    return entropy_N


def _class_table(
    predictions: ImagePredictions, facts: ClassifierFile, *, calibrated: bool
) -> PredictionTable:
    """The table for classes. The predicted class has the highest raw probability, calibrated or not."""
    raw_SNC = predictions.probabilities_SNC
    raw_NC = mean_of_seeds(facts, raw_SNC, calibrated=False)
    probabilities_NC = mean_of_seeds(facts, raw_SNC, calibrated=calibrated)
    # From the raw ones, as in predictions.csv: a temperature keeps their order, but rounding can make ties.
    places_N = np.nan_to_num(raw_NC, nan=-1.0).argmax(1)
    predicted = _readable(predictions, [facts.classes[place] for place in places_N.tolist()])
    # Of the predicted class's raw probability.
    spread_N = _spread(raw_SNC[:, np.arange(len(places_N)), places_N])
    entropy_N = normalised_entropy(probabilities_NC)
    columns: dict[str, Column] = {
        "predicted": predicted,
        **_probability_columns(facts.classes, probabilities_NC),
        "entropy": entropy_N,
        "seed_spread": spread_N,
    }
    return PredictionTable(
        predictions, MULTICLASS, tuple(facts.classes), predicted, probabilities_NC, entropy_N, spread_N,
        columns, facts.digits, _text_of(counts_of(facts.classes, predicted)),
    )  # fmt: skip


def _label_table(predictions: ImagePredictions, facts: ClassifierFile, task: TaskFacts) -> PredictionTable:
    """The table for labels: an image has each label whose probability reaches the label's threshold."""
    probabilities_NT = mean_of_seeds(facts, predictions.probabilities_SNC, calibrated=True)
    thresholds_T = threshold_values(task.targets, facts.thresholds)
    predicted = _readable(predictions, joined_labels(task.targets, thresholds_T, probabilities_NT))
    # Of the label whose probability varies most.
    spread_N = _spread(predictions.probabilities_SNC).max(1)
    entropy_N = label_entropy(probabilities_NT)
    columns: dict[str, Column] = {
        "predicted": predicted,
        **_probability_columns(task.targets, probabilities_NT),
        "entropy": entropy_N,
        "seed_spread": spread_N,
    }
    with_label_T = (probabilities_NT >= thresholds_T).sum(0).tolist()
    counts = dict(zip(task.targets, with_label_T, strict=True)) | {NO_LABEL: predicted.count(NO_LABEL)}
    return PredictionTable(
        predictions, MULTILABEL, task.targets, predicted, probabilities_NT, entropy_N, spread_N,
        columns, facts.digits, _text_of(counts), thresholds_T,
    )  # fmt: skip


def _number_table(predictions: ImagePredictions, facts: ClassifierFile, task: TaskFacts) -> PredictionTable:
    """The table for one number of an image."""
    numbers_N1 = mean_of_seeds(facts, predictions.probabilities_SNC, calibrated=True)
    numbers_N = numbers_N1[:, 0]
    spread_N = _spread(predictions.probabilities_SNC[:, :, 0])
    several = len(predictions.probabilities_SNC) > 1
    known_N = numbers_N[np.isfinite(numbers_N)]
    summary = task.targets[0]
    if len(known_N):
        summary += f" {known_N.min():.4g} to {known_N.max():.4g}, median {np.median(known_N):.4g}"
    return PredictionTable(
        predictions,
        REGRESSION,
        task.targets,
        _readable(predictions, [f"{value:.{facts.digits}f}" for value in numbers_N.tolist()]),
        numbers_N1,
        # One network says nothing of its certainty. Numbers far from those it learned are the most doubtful.
        spread_N if several else np.abs(numbers_N - task.mean),
        spread_N,
        {"predicted": numbers_N, "seed_spread": spread_N},
        facts.digits,
        summary,
    )


def _grade_table(predictions: ImagePredictions, facts: ClassifierFile, task: TaskFacts) -> PredictionTable:
    """The table for grades: the predicted grade, the mean grade, and the probability of each."""
    raw_SNK = predictions.probabilities_SNC
    probabilities_NK = mean_of_seeds(facts, raw_SNK, calibrated=True)
    predicted = _readable(
        predictions, [task.grades[place] for place in predicted_grades(probabilities_NK).tolist()]
    )
    # Of the mean grade.
    spread_N = _spread(np.stack([expected_grades(seed_NK) for seed_NK in raw_SNK]))
    entropy_N, counts = normalised_entropy(probabilities_NK), counts_of(task.grades, predicted)
    columns: dict[str, Column] = {
        "predicted": predicted,
        "expected": expected_grades(probabilities_NK),
        **_probability_columns(task.grades, probabilities_NK),
        "entropy": entropy_N,
        "seed_spread": spread_N,
    }
    return PredictionTable(
        predictions, ORDINAL, task.grades, predicted, probabilities_NK, entropy_N, spread_N,
        columns, facts.digits, _text_of(counts, "grade "),
    )  # fmt: skip


def _readable(predictions: ImagePredictions, texts: Sequence[str]) -> list[str]:
    """The texts; empty for images that cannot be read."""
    return ["" if reason else text for text, reason in zip(texts, predictions.reasons, strict=True)]


def _probability_columns(names: Sequence[str], probabilities_NC: Floats) -> dict[str, Floats]:
    return {f"p_{name}": probabilities_NC[:, place] for place, name in enumerate(names)}


def _spread(values_SN: Floats) -> Floats:
    """(N, ...): the standard deviation over seeds; NaN for one seed."""
    if len(values_SN) < 2:
        return np.full(values_SN.shape[1:], np.nan)
    spread_N: Floats = values_SN.std(0, ddof=1)
    return spread_N


def counts_of(names: Sequence[str], predicted: Sequence[str]) -> dict[str, int]:
    """How often each name was predicted."""
    counts = Counter(predicted)
    return {name: counts[name] for name in names}


def _text_of(counts: Mapping[str, int], before: str = "") -> str:
    """`CSR 12, MH 3`; with words before each name `grade 0: 12, grade 1: 3`."""
    return ", ".join(f"{before}{name}{':' if before else ''} {count:,}" for name, count in counts.items())
