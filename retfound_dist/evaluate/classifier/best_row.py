"""Which rows of a comparison keep their classifiers: the best one on val, or all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import numpy as np

from retfound_dist.config.schema import CompareConfig
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.io import storage

_UNKNOWN = float("-inf")
# `compare --force` replaces only rows with other settings.
_REMEDY = "delete the row's folder, and the next comparison makes it with one"


class ComparedRow(Protocol):
    """An evaluation, of classes or of another task."""

    @property
    def metrics(self) -> dict[str, Any]:
        """metrics.json."""

    @property
    def history(self) -> list[dict[str, Any]]:
        """The rows of history.jsonl."""


def best_row(order: Sequence[str], rows: Mapping[str, ComparedRow]) -> str:
    """The row with the best score on val, as a mean over seeds; the first in `order` among equals.

    Not on test: the reported scores of a row that was chosen by them would be too good.
    """
    return max((name for name in order if name in rows), key=lambda name: _val_score(rows[name]))


def _val_score(row: ComparedRow) -> float:
    """Mean over seeds of the score on val of the chosen epochs, or of their attention heads; lower than all
    scores where one is not defined."""
    # `val_auroc` of classes; of other tasks `val_score`, which is larger where it is better.
    scores = {
        (line["seed"], line["epoch"]): line.get("val_score", line.get("val_auroc")) for line in row.history
    }
    values = [
        kept["attention"]["val_auroc"] if "attention" in kept else scores.get((kept["seed"], kept["epoch"]))
        for kept in row.metrics["per_seed"]
    ]
    defined = [value for value in values if value is not None]
    return float(np.mean(defined)) if defined and len(defined) == len(values) else _UNKNOWN


def keep_best_classifier(config: CompareConfig, rows: Mapping[str, ComparedRow]) -> None:
    """Delete the classifiers of all rows but the best one, unless the comparison keeps all or none.

    Nothing is deleted where the best row is not known or has no classifier: weights cost hours to make again.
    """
    if config.finetune.keep is not True or _why_all_are_kept(config, rows):
        return
    for name in rows.keys() - {best_row(list(config.weights), rows)}:
        classifier_file.delete(classifier_file.classifier_url(storage.join(config.out.url, name)))


def _why_all_are_kept(config: CompareConfig, rows: Mapping[str, ComparedRow]) -> str:
    """The reason why the best row cannot be the only one with a classifier; empty where it can."""
    unknown = [name for name in config.weights if name in rows and _val_score(rows[name]) == _UNKNOWN]
    if unknown and len(rows) > 1:
        return f"the score on val is not known for {', '.join(unknown)}"
    best = best_row(list(config.weights), rows)
    if not classifier_file.has_classifier(storage.join(config.out.url, best)):
        return f"{best}, which is best on val, has no classifier/; {_REMEDY}"
    return ""


def classifier_lines(config: CompareConfig, rows: Mapping[str, ComparedRow]) -> list[str]:
    """What a comparison says of the classifiers that it has kept; nothing where it keeps none."""
    if config.finetune.keep is False:
        return []
    urls = {name: storage.join(config.out.url, name) for name in config.weights if name in rows}
    kept = [name for name, url in urls.items() if classifier_file.has_classifier(url)]
    if config.finetune.keep == "all":
        missing = [name for name in urls if name not in kept]
        return [f"note: {', '.join(missing)}: no classifier/; {_REMEDY}"] if missing else []
    if reason := _why_all_are_kept(config, rows):
        return [f"note: {reason}. Classifiers are kept of: {', '.join(kept) or 'no row'}"]
    best = urls[best_row(list(config.weights), rows)]
    return [f"classifier of the row that is best on val: {classifier_file.classifier_url(best)}"]
