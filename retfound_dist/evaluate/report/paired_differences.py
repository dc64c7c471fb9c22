"""Paired differences between rows, on the same bootstrap resamples of patients and seeds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.evaluate.data.starting_weights import NONE
from retfound_dist.evaluate.report.score_tables import SCORE_NAMES
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap, comparison_wording, row_pairs, wording

DECISIVE_SCORES = ("aupr", "balanced_accuracy")
"""Macro scores for comparing rows; both give rare classes the same weight as common ones."""


def comparison(rows: Mapping[str, Evaluation], resamples: int) -> dict[str, Any]:
    """compare.json: scores of each row, paired differences to `none` and to the best row, and sentences."""
    first = next(iter(rows.values()))
    weights_RN = row_pairs.shared_resamples(rows, resamples)
    all_resampled = {
        name: bootstrap.scores_over_seeds(row.labels_N, row.seed_probabilities_SNC, weights_RN)
        for name, row in rows.items()
    }
    resampled = {name: groups["macro"] for name, groups in all_resampled.items()}
    none = next((name for name, row in rows.items() if row.metrics["checkpoint"]["kind"] == NONE), None)
    differences = row_pairs.all_differences(DECISIVE_SCORES, _scores(rows, "macro"), resampled, none)
    return {
        "rows": {name: _row(row) for name, row in rows.items()},
        **differences.trees(),
        "ties": ties(rows, all_resampled),
        "sentences": [
            *_sentences_about_none(differences.to_none),
            *_sentences_about_best(differences.best, rows, differences.to_best),
            *comparison_wording.describe_too_few_resamples(resamples, differences.comparisons),
        ],
        **{key: first.metrics[key] for key in ("bootstrap", "classes", "seeds", "split", "versions")},
    }


def ties(
    rows: Mapping[str, Evaluation], resampled: Mapping[str, bootstrap.ResampledScores]
) -> dict[str, dict[str, list[str]]]:
    """For each score of both definitions, the rows without a clear difference from the best row."""
    return {
        kind: {
            metric: row_pairs.tied_rows(
                metric, _scores(rows, kind), {name: groups[kind] for name, groups in resampled.items()}
            )
            for metric in names
        }
        for kind, names in SCORE_NAMES.items()
    }


def _scores(rows: Mapping[str, Evaluation], kind: str) -> row_pairs.RowScores:
    return {name: row.metrics[kind] for name, row in rows.items()}


def _sentences_about_none(lines: list[dict[str, Any]]) -> list[str]:
    names = dict.fromkeys(line["row"] for line in lines)
    return comparison_wording.describe_gains(
        {name: [line for line in lines if line["row"] == name] for name in names}
    )


def _sentences_about_best(
    best: Mapping[str, str | None], rows: Mapping[str, Evaluation], lines: list[dict[str, Any]]
) -> list[str]:
    """A sentence for each metric: the best row and its differences. `best`: metric -> name of that row."""
    sentences = []
    for metric, name in best.items():
        if name is None:
            sentences.append(f"{wording.LABELS[metric]} is undefined for every row.")
            continue
        tree = rows[name].metrics
        score = wording.format_score(tree["macro"][metric], tree["ci95"]["macro"][metric])
        differences = [line for line in lines if line["metric"] == metric]
        sentences.append(comparison_wording.describe_best(name, metric, score, differences))
    return sentences


def _row(row: Evaluation) -> dict[str, Any]:
    names = ("checkpoint", "legacy", "macro", "ci95", "per_seed", "over_seeds", "seconds")
    return {
        name: row.metrics[name] for name in (*names, *row.metrics.keys() & {"probe", "finetune", "speed"})
    }
