"""Compares the rows of a task: paired differences on the same resamples of patients and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.data.starting_weights import NONE
from retfound_dist.evaluate.scores import comparison_wording, row_pairs
from retfound_dist.evaluate.task_results import task_wording
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation
from retfound_dist.evaluate.tasks.task_bootstrap import resampled_scores
from retfound_dist.evaluate.tasks.task_facts import DECISIVE, SCORE_LABELS, SCORES


def task_comparison(rows: Mapping[str, TaskEvaluation], resamples: int) -> dict[str, Any]:
    """compare.json: scores of each row, paired differences to `none` and to the best row, and sentences."""
    first = next(iter(rows.values()))
    weights_RN = row_pairs.shared_resamples(rows, resamples)
    resampled = {
        name: resampled_scores(row.facts, row.targets_NT, row.predictions_SNP, weights_RN)
        for name, row in rows.items()
    }
    scores = {name: row.metrics["scores"] for name, row in rows.items()}
    none = next((name for name, row in rows.items() if row.metrics["checkpoint"]["kind"] == NONE), None)
    differences = row_pairs.all_differences(DECISIVE[first.facts.kind], scores, resampled, none)
    return {
        "task": first.metrics["task"],
        "rows": {name: _row_tree(row) for name, row in rows.items()},
        **differences.trees(),
        "ties": {
            metric: row_pairs.tied_rows(metric, scores, resampled) for metric in SCORES[first.facts.kind]
        },
        "sentences": [
            *task_wording.gain_sentences(differences.to_none),
            *_best_sentences(differences.best, rows, differences.to_best),
            *comparison_wording.describe_too_few_resamples(resamples, differences.comparisons),
        ],
        **{key: first.metrics[key] for key in ("bootstrap", "seeds", "split", "versions")},
    }


def _best_sentences(
    best: Mapping[str, str | None], rows: Mapping[str, TaskEvaluation], lines: Sequence[dict[str, Any]]
) -> list[str]:
    sentences = []
    for metric, name in best.items():
        if name is None:
            sentences.append(f"{SCORE_LABELS[metric]} is undefined for every row.")
            continue
        of_metric = [line for line in lines if line["metric"] == metric]
        sentences.append(task_wording.best_sentence(metric, name, rows[name].metrics, of_metric))
    return sentences


def _row_tree(row: TaskEvaluation) -> dict[str, Any]:
    names = ("checkpoint", "scores", "ci95", "per_target", "per_seed", "over_seeds", "seconds")
    return {
        name: row.metrics[name] for name in (*names, *row.metrics.keys() & {"probe", "finetune", "speed"})
    }
