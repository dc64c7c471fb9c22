"""What the page of predictions shows: counts, certainties and one card for each image, for each kind of task.

Shapes: S side, G patches along a side.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from retfound_dist.config.schema import MULTICLASS, NO_LABEL
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.pixels.image_encoding import encode_picture, overlay
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.tasks.task_facts import DECISIVE, MULTILABEL, ORDINAL, REGRESSION, SCORE_LABELS
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.prediction.drawing.prediction_page import (
    Bar,
    CountTable,
    PageImage,
    PageSummary,
    PageWords,
    certainty_bins,
    image_facts_line,
    number_bins,
)
from retfound_dist.prediction.prediction_columns import counts_of, predicted_labels
from retfound_dist.prediction.prediction_table import PredictionTable

MAX_BARS = 4
"""Classes or labels with a probability bar, the likeliest first; predicted labels and grades have all."""
_ENTROPY = (
    "Uncertainty is the entropy of the probabilities: 0 if one {0} has a probability of 1, and 1 if all {1} "
    "are equally likely."
)
_MAP = (
    " The picture beside the image shows the patches that raised the score of the predicted {0} (gradient "
    "times token, Grad-CAM). Yellow is the highest value of each picture. It does not prove why the "
    "classifier predicts this {0}."
)
_SPREAD = " The spread is the standard deviation of {0} over the networks of all seeds."
_WORDS = {
    MULTICLASS: PageWords(
        _ENTROPY.format("class", "classes"),
        _SPREAD.format("the predicted class's probability"),
        _MAP.format("class"),
    ),
    MULTILABEL: PageWords(
        "Uncertainty is the entropy of the least certain label: 0 if each label is sure, and 1 if one is as "
        "likely as not. Labels that are predicted have a coloured bar.",
        _SPREAD.format("the probability of the label that varies most"),
        _MAP.format("label") + " Without a predicted label it is that of the likeliest one.",
    ),
    REGRESSION: PageWords(
        "The least certain images are those that the networks of the seeds disagree on most.",
        _SPREAD.format("the number"),
        "",
    ),
    ORDINAL: PageWords(_ENTROPY.format("grade", "grades"), _SPREAD.format("the mean grade"), ""),
}
_CERTAINTY = "How certain the classifier is"
_CLASS_TITLES = {
    MULTICLASS: (
        (
            "Predicted classes",
            "The number of images for which a class has the highest probability.",
            "class",
        ),
        (_CERTAINTY, "The highest probability of each image.", "probability"),
    ),
    ORDINAL: (
        ("Predicted grades", "The predicted grade is the median of the probabilities.", "grade"),
        (_CERTAINTY, "The probability of the predicted grade of each image.", "probability"),
    ),
}
"""Title, note and first column of the two tables."""
_ONE_SEED_NUMBER = (
    "One network does not say how certain its number is. So the predictions that are furthest from the mean "
    "of the training images come first."
)


def page_summary(
    table: PredictionTable, facts: ClassifierFile, names: tuple[str, str], calibrated: bool
) -> PageSummary:
    """What the page says of all images. `names`: what the command was given as images and as classifier."""
    predictions = table.predictions
    return PageSummary(
        source=names[0],
        classifier=names[1],
        total=sum(1 for reason in predictions.reasons if not reason),
        tables=_count_tables(table),
        groups=_groups(table),
        skipped=[
            (key, reason) for key, reason in zip(predictions.keys, predictions.reasons, strict=True) if reason
        ],
        sentences=[*_score_sentences(facts), *_calibration_sentence(facts, calibrated)],
        words=_words(table),
    )


def page_image(table: PredictionTable, row: int, pixels: Pixels, maps: Mapping[int, Floats]) -> PageImage:
    """The card of one image. `maps`: the heat map (G, G) of some outputs, over the image (S, S)."""
    scan, spread = table.predictions.facts[row], float(table.seed_spread_N[row])
    return PageImage(
        key=table.predictions.keys[row],
        facts=image_facts_line(scan.patient, scan.eye, scan.volume, scan.slice),
        title=_title(table, row),
        groups=_groups_of(table, row),
        bars=_bars(table, row),
        uncertainty=None if table.kind == REGRESSION else float(table.uncertainty_N[row]),
        seed_spread=""
        if np.isnan(spread)
        else _plain(spread)
        if table.kind == REGRESSION
        else f"{spread:.2f}",
        picture=encode_picture(pixels),
        maps=[
            (f"evidence for {table.classes[output]}", encode_picture(overlay(pixels, heat_GG.tolist())))
            for output, heat_GG in maps.items()
        ],
    )


def _plain(value: float) -> str:
    return f"{value:.4g}".replace("-", "\u2212")


def _words(table: PredictionTable) -> PageWords:
    words = _WORDS[table.kind]
    if np.isfinite(table.seed_spread_N).any():
        return words
    return PageWords(_ONE_SEED_NUMBER if table.kind == REGRESSION else words.order, "", words.maps)


def _readable_rows(table: PredictionTable) -> list[int]:
    return [row for row, reason in enumerate(table.predictions.reasons) if not reason]


def _groups(table: PredictionTable) -> list[str]:
    """What cards can be chosen by."""
    if table.kind == REGRESSION:
        return []
    return [*table.classes, NO_LABEL] if table.kind == MULTILABEL else list(table.classes)


def _groups_of(table: PredictionTable, row: int) -> tuple[str, ...]:
    if table.kind == MULTILABEL:
        return tuple(table.classes[place] for place in predicted_labels(table, row)) or (NO_LABEL,)
    return () if table.kind == REGRESSION else (table.predicted[row],)


def _title(table: PredictionTable, row: int) -> str:
    if table.kind == REGRESSION:
        return f"{table.classes[0]} {_plain(float(table.predicted_NC[row, 0]))}"
    if table.kind == MULTILABEL:
        names = _groups_of(table, row)
        return "no label" if names == (NO_LABEL,) else ", ".join(names)
    if table.kind == ORDINAL:
        # The median need not be the likeliest grade, so its probability beside it would say little.
        return f"grade {table.predicted[row]}"
    place = table.classes.index(table.predicted[row])
    return f"{table.predicted[row]}, {table.predicted_NC[row, place]:.2f}"


def _bars(table: PredictionTable, row: int) -> list[Bar]:
    """The likeliest classes or labels first; all grades in their order."""
    if table.kind == REGRESSION:
        return []
    predicted = _groups_of(table, row)
    bars = [
        Bar(name, float(value), name in predicted)
        for name, value in zip(table.classes, table.predicted_NC[row], strict=True)
    ]
    if table.kind == ORDINAL:
        return bars
    ranked = sorted(bars, key=lambda bar: -bar.probability)
    return [bar for place, bar in enumerate(ranked) if place < MAX_BARS or bar.is_predicted]


def _count_tables(table: PredictionTable) -> list[CountTable]:
    rows = _readable_rows(table)
    if table.kind == REGRESSION:
        return _number_tables(table, rows)
    if table.kind == MULTILABEL:
        return _label_tables(table, rows)
    places = [table.classes.index(table.predicted[row]) for row in rows]
    certainties = [float(p) for p in table.predicted_NC[rows, places]]
    first, certain = _CLASS_TITLES[table.kind]
    counts = list(counts_of(table.classes, table.predicted).items())
    return [CountTable(*first, counts), CountTable(*certain, certainty_bins(certainties))]


def _label_tables(table: PredictionTable, rows: Sequence[int]) -> list[CountTable]:
    """Two tables of counts for labels: the images of each label, and the labels of an image."""
    groups = [_groups_of(table, row) for row in rows]
    counts = Counter(name for names in groups for name in names)
    sizes = Counter(0 if names == (NO_LABEL,) else len(names) for names in groups)
    reached = "The number of images whose probability of a label is at least its threshold."
    return [
        CountTable(
            "Predicted labels",
            f"{reached} An image may have several labels.",
            "label",
            [(name, counts[name]) for name in table.classes],
        ),
        CountTable(
            "Labels of an image",
            "How many labels an image has.",
            "labels",
            [(str(size), sizes[size]) for size in range(max(sizes, default=0) + 1)],
        ),
    ]


def _number_tables(table: PredictionTable, rows: Sequence[int]) -> list[CountTable]:
    name, numbers_N = table.classes[0], table.predicted_NC[rows, 0]
    tables = [
        CountTable(f"Predicted {name}", "The number of images in each range.", name, number_bins(numbers_N))
    ]
    spread_N = table.seed_spread_N[rows]
    if np.isfinite(spread_N).any():
        note = "The standard deviation of each image's number over the networks of all seeds."
        tables.append(CountTable("How much the networks differ", note, "spread", number_bins(spread_N)))
    return tables


def _score_sentences(facts: ClassifierFile) -> list[str]:
    """The main score of the evaluation that made the classifier, and a warning if it scored other units."""
    kind, unit, lines = str(facts.task["kind"]), facts.unit["kind"], []
    score = "auroc" if kind == MULTICLASS else DECISIVE[kind][0]
    value, span = facts.scores.get("macro", {}).get(score), facts.scores.get("ci95", {}).get(score)
    if value is not None:
        noun = "network" if kind in (REGRESSION, ORDINAL) else "classifier"
        name = "mean AUROC" if score == "auroc" else SCORE_LABELS[score]
        interval = f" (95 % interval {span[0]:.3f} to {span[1]:.3f})" if span else ""
        lines.append(
            f"On the {int(facts.data['split']['test']):,} test {unit}s of its evaluation, the {noun} has "
            f"a {name} of {value:.3f}{interval}. On images from another device or clinic, it may be worse."
        )
    if unit != IMAGE:
        lines.append(
            f"This page is of single images, but the evaluation has scored {unit}s, each by all of its "
            "images. Single images may be predicted worse."
        )
    return lines


def _calibration_sentence(facts: ClassifierFile, calibrated: bool) -> list[str]:
    """At most one sentence: whether the probabilities on the page are calibrated."""
    kind = facts.task["kind"]
    if kind == REGRESSION:
        return []
    temperature = float(facts.temperature["value"])
    if not calibrated or kind != MULTICLASS:
        return ["Probabilities are those of the network. They are not calibrated."]
    if temperature != 1:
        return [
            f"Probabilities are calibrated: the temperature {temperature:.2f} was fitted on the validation "
            f"{facts.unit['kind']}s of the evaluation."
        ]
    return []
