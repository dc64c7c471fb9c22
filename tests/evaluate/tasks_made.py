"""Evaluations of tasks for tests: run in seconds on bright and dark images, or made of drawn predictions."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from retfound_dist.evaluate.commands.evaluate import evaluate_command
from retfound_dist.evaluate.data.labelled_set import LabelledSet, SplitPart
from retfound_dist.evaluate.data.set_targets import SetTargets
from retfound_dist.evaluate.finetune.finetuning import FinetuneResult
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.task_results.task_evaluation import TaskEvaluation, seed_tables, target_tables
from retfound_dist.evaluate.tasks.label_thresholds import choose_thresholds
from retfound_dist.evaluate.tasks.task_bootstrap import resampled_scores, score_intervals
from retfound_dist.evaluate.tasks.task_facts import TaskFacts
from retfound_dist.evaluate.tasks.task_outputs import mean_predictions
from retfound_dist.evaluate.tasks.task_scores import score_once
from tests.evaluate.inputs import TINY, target_list

FACTS = {
    "multilabel": TaskFacts("multilabel", ("cyst", "fluid")),
    "regression": TaskFacts("regression", ("age",), mean=60.0, std=12.0),
    "ordinal": TaskFacts("ordinal", ("stage",), grades=("0", "1", "2")),
}
SETTINGS = {
    "multilabel": 'kind = "multilabel"\ntargets = ["cyst", "fluid"]',
    "regression": 'kind = "regression"\ntargets = ["age"]',
    "ordinal": 'kind = "ordinal"\ntargets = ["stage"]',
}


def answers(kind: str, seed: int, images: int) -> np.ndarray:
    """True answers (N, T); some labels are not known."""
    draw = np.random.default_rng([seed, images])
    if kind == "multilabel":
        truth = (draw.random((images, 2)) < [0.5, 0.3]).astype(float)
        truth[draw.random((images, 2)) < 0.1] = np.nan
        return truth
    if kind == "regression":
        return draw.normal(60, 12, (images, 1)).round(1)
    return draw.integers(0, 3, (images, 1)).astype(float)


def guesses(kind: str, truth_NT: np.ndarray, seeds: int, error: float, seed: int) -> np.ndarray:
    """Predictions (S, N, P) that are often right."""
    draw = np.random.default_rng([seed, 5])
    shape = (seeds, *truth_NT.shape)
    if kind == "multilabel":
        p_SNT: np.ndarray = np.clip(
            0.5 * np.nan_to_num(truth_NT)[None] + error * draw.random(shape), 0.01, 0.99
        ).round(8)
        return p_SNT
    if kind == "regression":
        return (truth_NT[None] + 20 * error * draw.normal(size=shape)).round(8)
    p_SNK = (
        draw.dirichlet(np.ones(3), (seeds, len(truth_NT))) * 4 * error + np.eye(3)[truth_NT[:, 0].astype(int)]
    )
    normalised: np.ndarray = (p_SNK / p_SNK.sum(-1, keepdims=True)).round(8)
    return normalised


def made_task(
    kind: str, seed: int = 0, images: int = 60, seeds: int = 2, error: float = 0.5
) -> TaskEvaluation:
    """An evaluation of drawn predictions; two with the same `images` have the same truth."""
    facts, truth_NT = FACTS[kind], answers(kind, 0, images)
    predictions_SNP = guesses(kind, truth_NT, seeds, error, seed)
    patients = tuple(f"p{i // 2}" for i in range(images))
    keys = tuple(f"{i:03d}.png" for i in range(images))
    _, units_N = bootstrap.resampling_units(patients, keys)
    weights_RN = bootstrap.resample(units_N, 40, 0)
    history: list[dict[str, Any]] = [
        {"seed": s, "epoch": e, "train_loss": 1 / e, "lr": 0.1, "val_loss": 1 / e, "val_auroc": None,
         "val_metric": "mae", "val_score": -1.0 / e, "val": {}}
        for s in range(seeds) for e in (1, 2)
    ]  # fmt: skip
    results = [FinetuneResult(s, history, 2, predictions_SNP[s]) for s in range(seeds)]
    mean_NP = mean_predictions(predictions_SNP)
    thresholds = choose_thresholds(facts.targets, truth_NT, mean_NP) if kind == "multilabel" else {}
    tree: dict[str, Any] = {
        "task": facts.to_json(),
        "unknown": dict.fromkeys(facts.targets, 3),
        "scores": score_once(facts, truth_NT, mean_NP),
        "ci95": score_intervals(resampled_scores(facts, truth_NT, predictions_SNP, weights_RN)),
        **target_tables(facts, truth_NT, mean_NP, thresholds),
        **({"thresholds": thresholds} if thresholds else {}),
        "bootstrap": {"unit": "patient", "units": images // 2, "resamples": 40, "seeds": seeds},
        "seeds": list(range(seeds)),
        **seed_tables(facts, truth_NT, results),
        "checkpoint": {
            "kind": "file" if seed else "none", "url": "weights.pth", "step": None, "samples": None,
            "sha256": str(seed), "part": "", "pretrained_on": {"how": "unknown", "of": {}},
        },
        "split": {
            "by": "patient", "known_by": {"patient": images}, "train": images, "val": images, "test": images,
            "patients": dict.fromkeys(("train", "val", "test"), images // 2),
        },
        "patients": images // 2,
        "skipped": [],
        "warnings": [],
        "notes": ["3 of 60 images have no value of 'age' and are left out"],
        "data": {"path": "a/list.csv", "fingerprint": "0", "columns": "list.csv: file <- 'file'"},
        "versions": {"python": "3"},
        "seconds": 1.0,
        "config": {"finetune": {"epochs": 2, "method": "full"}, "data": {}, "task": {"kind": kind}},
    }  # fmt: skip
    return TaskEvaluation(tree, keys, patients, truth_NT, predictions_SNP, history)


def made_set(kind: str, images: int = 60) -> LabelledSet:
    """A set without pixels: test is that of `made_task`, train and val are like it."""
    facts = FACTS[kind]
    parts = {}
    for place, name in enumerate(("test", "train", "val")):
        keys = tuple(f"{i:03d}.png" for i in range(place * images, (place + 1) * images))
        patients = tuple(f"p{place}-{i // 2}" for i in range(images))
        truth_NT = answers(kind, place, images)
        parts[name] = SplitPart(keys, np.zeros(images, np.int64), patients, (), targets_NT=truth_NT)
    targets = SetTargets(facts.kind, facts.targets, facts.grades, {}, {}, {})
    return LabelledSet("a/list.csv", ("s",), parts, "patient", (), (), (), "0", targets=targets)


def bright_list(root: Path, images: int = 40) -> Path:
    """A list of images whose brightness is their age, their stage and their labels."""
    shades = np.linspace(0, 2, images).round(3)
    rows = [
        {
            "shade": str(shade),
            "age": f"{40 + 20 * shade:.1f}",
            "stage": str(int(shade * 1.49)),
            "cyst": str(int(shade > 1)),
            "fluid": "" if i % 9 == 0 else str(int(shade > 1.3)),
        }
        for i, shade in enumerate(shades)
    ]
    return target_list(root, rows, patients=images)


def evaluated_task(root: Path, kind: str, *overrides: str, force: bool = False, quiet: bool = True) -> Path:
    """`retfound evaluate` of random weights on `root/set/list.csv`; gives the folder of its results."""
    config = root / f"{kind}.toml"
    config.write_text(
        f'checkpoint = "none"\n[task]\n{SETTINGS[kind]}\n[data]\npath = "{root / "set" / "list.csv"}"\n'
        f'[out]\nurl = "{root / kind}"\n'
    )
    assert evaluate_command(str(config), [*TINY, *overrides], quiet=quiet, force=force) == 0
    return root / kind
