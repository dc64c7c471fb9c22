"""Evaluations for tests of pages: run in seconds, or made of drawn predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from retfound_dist.evaluate.commands.evaluate import evaluate_command
from retfound_dist.evaluate.pixels.image_encoding import encode_picture
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap, metrics
from tests.evaluate.inputs import CLASSES, TINY


def evaluated(root: Path, checkpoint: str, *overrides: str, force: bool = False) -> Path:
    """`retfound evaluate` of a checkpoint on `root/set`; gives the folder of its results."""
    config = root / "evaluate.toml"
    config.write_text(
        f'checkpoint = "{checkpoint}"\n[data]\npath = "{root / "set"}"\n[out]\nurl = "{root / "out"}"\n'
    )
    assert evaluate_command(str(config), [*TINY, *overrides], quiet=True, force=force) == 0
    return root / "out"


def predictions(
    seed: int,
    images: int = 90,
    patients: int = 30,
    copies: int = 1,
    absent: Sequence[int] = (),
    pictures: dict[str, Any] | None = None,
) -> Evaluation:
    """An evaluation of three classes by a classifier that is often right; some classes may have no image."""
    draw = np.random.default_rng(seed)
    held = [c for c in range(3) if c not in absent]
    labels_N = np.array([held[i % len(held)] for i in range(images)], dtype=np.int64)
    p_NC = draw.dirichlet(np.ones(3), images) + 0.8 * np.eye(3)[labels_N] * draw.random((images, 1))
    p_NC /= p_NC.sum(1, keepdims=True)
    owner = [f"p{i % patients}" for i in range(images)]
    labels_N, p_NC = np.repeat(labels_N, copies), np.repeat(p_NC, copies, axis=0)
    owners = tuple(np.repeat(owner, copies).tolist())
    keys = tuple(f"{i}.jpg" for i in range(len(labels_N)))
    scored = metrics.evaluate(labels_N, p_NC, CLASSES)
    _, units_N = bootstrap.resampling_units(owners, keys)
    spans = bootstrap.intervals(bootstrap.scores(labels_N, p_NC, bootstrap.resample(units_N, 50, 0)))
    counts = {c: int((labels_N == i).sum()) for i, c in enumerate(CLASSES)}
    tree = {
        **scored,
        "ci95": spans,
        "classes": list(CLASSES),
        "bootstrap": {"unit": "patient", "units": patients, "resamples": 50},
        "seeds": [0],
        "per_seed": [{"seed": 0, "epoch": 2, "legacy": scored["legacy"], "macro": scored["macro"]}],
        "over_seeds": {"macro": {"auroc": {"mean": 0.9, "std": None}}},
        "checkpoint": {"kind": "none", "url": "none", "step": None, "samples": None, "sha256": "none"},
        "split": {
            "by": "patient",
            **{part: len(labels_N) for part in ("train", "val", "test")},
            "patients": dict.fromkeys(("train", "val", "test"), patients),
            "per_class": {"test": counts},
        },
        "patients": patients,
        "skipped": [],
        "warnings": [],
        "data": {"path": "a/set", "fingerprint": "0"},
        "versions": {"python": "3"},
        "seconds": 1.0,
        "config": {"finetune": {"epochs": 2}, "data": {}},
    }
    history = [
        {"seed": 0, "epoch": e, "train_loss": 1 / e, "lr": 0.1, "val_loss": 1 / e, "val_auroc": 1 - 0.5 / e}
        for e in (1, 2)
    ]
    return Evaluation(tree, keys, owners, labels_N, p_NC, history, pictures or {})


def made_pictures(seed: int, images: int = 90, mistakes: int = 6, side: int = 56) -> dict[str, Any]:
    """A pictures.json of speckle as smooth as a B-scan's."""
    draw = np.random.default_rng(seed)

    def drawn() -> str:
        speckle = gaussian_filter(draw.normal(size=(side, side)), 1.2) * 120 + 90
        return encode_picture(speckle.clip(0, 255).astype(np.uint8))

    wrong = [
        {
            "key": f"NORMAL/a_rather_long_name_of_a_file_{i}.jpg",
            "label": "NORMAL",
            "predicted": "MH",
            "probabilities": {"CSR": 0.1, "MH": 0.7, "NORMAL": 0.2},
            "image": drawn(),
            "rollout": draw.random((14, 14)).round(4).tolist(),
            "gradient": draw.random((14, 14)).round(4).tolist(),
        }
        for i in range(mistakes)
    ]
    column = {
        "step": 5 + seed,
        "reconstruction": [drawn() for _ in range(5)],
        "difference": [drawn() for _ in range(5)],
    }
    return {
        "mistakes": {"seed": 0, "wrong": 9, "images": wrong},
        "features": {"points": draw.normal(size=(images, 2)).round(4).tolist(), "explained": [0.3, 0.1]},
        "reconstructions": {
            "keys": [str(i) for i in range(5)],
            "labels": [*CLASSES, *CLASSES][:5],
            "image_size": side,
            "patch": 14,
            "original": [encode_picture(np.full((side, side), 90, np.uint8))] * 5,
            "masked": [encode_picture(np.full((side, side), 96, np.uint8))] * 5,
            "checkpoints": [column],
        },
    }


def watch_tree(steps: int, alarms: bool = False) -> dict[str, Any]:
    """A watch.json of a run whose probes get better and then, in its last third, worse."""

    def scored(level: float) -> dict[str, Any]:
        scores = {name: round(level, 3) for name in metrics.MACRO}
        return {
            "macro": {**scores, "undefined": {}},
            "ci95": {"macro": {name: [value - 0.05, value + 0.05] for name, value in scores.items()}},
        }

    levels = [0.5 + 0.3 * np.sin(np.pi * (i + 1) / steps) for i in range(steps)]
    rows = [
        {
            "step": 1000 * (i + 1),
            "samples": 64000 * (i + 1),
            "linear": scored(level),
            "knn": scored(level - 0.1),
            "finetuned": scored(level + 0.1) if i % 3 == 2 else None,
        }
        for i, level in enumerate(levels)
    ]
    raised = {
        "step": 1000 * steps,
        "kind": "falling",
        "method": "linear",
        "metric": "aupr",
        "value": levels[-1],
        "message": f"step {1000 * steps:,} is worse than the best before it: linear probe, AUPR \u22120.300",
    }
    start = {"linear": scored(0.45), "knn": scored(0.4)}
    return {
        "run": "s3://bucket/runs/vitl",
        "start": start,
        "rows": rows,
        "alarms": [raised] if alarms else [],
    }
