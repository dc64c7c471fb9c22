"""Which fine-tuning recipe suits which start? One menu for `none` and for pretrained weights, by val alone.

    python -m benchmarks.finetuning_recipes SHARDS [--weights none|CHECKPOINT] [--share 1.0]

Every recipe of the menu is tried with the first seed, the best ones by val AUPR with all of them; nothing is
predicted of the test part. What `benchmarks.does_pretraining_help` fine-tunes with comes from here. SHARDS is
the set that it packs, runs/does_pretraining_help/shards. Trials run side by side, one core each, and are kept
in --out as they end: ended anywhere, the same line goes on. An hour on two cores with all labels, half of
that with a tenth.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import multiprocessing
import os
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Row, finish
from retfound_dist.config.schema import EvalData, EvalModel, Finetune
from retfound_dist.errors import RetfoundError
from retfound_dist.evaluate.data.label_subset import load_label_share
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.finetune.finetuning import finetune, make_classifier

MODEL = EvalModel(name="vit_demo_patch14", image_size=112)
BASE = Finetune(
    batch=16,
    base_lr=5e-3,
    warmup_epochs=3,
    layer_decay=0.75,
    drop_path=0.0,
    randaugment="",
    random_erasing=0.0,
    crop_scale=(0.4, 1.0),
)
EPOCHS = {1.0: 24, 0.1: 60}
HARD: dict[str, Any] = {"crop_scale": (0.2, 1.0), "drop_path": 0.1}
MENU: dict[str, dict[str, Any]] = {
    "base": {},
    "rate 1.5e-3": {"base_lr": 1.5e-3},
    "no layer decay, rate 1.5e-3": {"base_lr": 1.5e-3, "layer_decay": 1.0},
    "hard crops": HARD,
    "hard crops, layer decay 0.65, rate 1e-2, no smoothing": {
        **HARD,
        "base_lr": 1e-2,
        "layer_decay": 0.65,
        "label_smoothing": 0.0,
    },
    "no smoothing": {"label_smoothing": 0.0},
    "crops of 0.7 to 1": {"crop_scale": (0.7, 1.0)},
    "twice the epochs": {"epochs": 2},
    "hard crops, no layer decay, rate 1.5e-3": {**HARD, "base_lr": 1.5e-3, "layer_decay": 1.0},
    "no layer decay": {"layer_decay": 1.0},
    "rate 2e-2": {"base_lr": 2e-2},
    "no smoothing, twice the epochs": {"label_smoothing": 0.0, "epochs": 2},
    "no smoothing, four times the epochs": {"label_smoothing": 0.0, "epochs": 4},
    "no smoothing, crops of 0.7 to 1": {"label_smoothing": 0.0, "crop_scale": (0.7, 1.0)},
    "no smoothing, rate 1e-2": {"label_smoothing": 0.0, "base_lr": 1e-2},
    "mixup and cutmix, rate 1e-2": {"base_lr": 1e-2, "mixup": 0.8, "cutmix": 1.0},
}
"""What differs from BASE; `epochs` is a factor."""
SCORES = ("aupr", "balanced_accuracy", "auroc")


def arguments() -> argparse.Namespace:
    """What was asked for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("shards", type=Path)
    ask.add_argument("--weights", default="none")
    ask.add_argument("--share", type=float, choices=tuple(EPOCHS), default=1.0)
    ask.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    ask.add_argument("--seeds", type=int, default=3)
    ask.add_argument("--best", type=int, default=3, help="recipes that go on to the other seeds")
    ask.add_argument("--only", nargs="+", choices=tuple(MENU), default=tuple(MENU), metavar="RECIPE")
    ask.add_argument("--out", type=Path, default=Path("runs/finetuning_recipes"))
    asked = ask.parse_args()
    if not (asked.shards / "manifest.json").is_file():
        ask.error(f"{asked.shards} is no shard set: `make bench-pretraining` packs the one that is meant")
    try:
        asked.start = open_starting_weights(asked.weights, MODEL)
    except RetfoundError as error:
        ask.error(str(error))
    return asked


def recipe_of(name: str, asked: argparse.Namespace) -> Finetune:
    """A recipe of the menu."""
    change = dict(MENU[name])
    epochs = EPOCHS[asked.share] * change.pop("epochs", 1)
    return replace(BASE, epochs=epochs, precision=asked.precision, **change)


def about_trial(asked: argparse.Namespace, name: str) -> str:
    """What a trial's scores follow from, but for the seed: weights, images, share of the labels, settings."""
    recipe = json.dumps(asdict(recipe_of(name, asked)), sort_keys=True)
    images = (asked.shards / "manifest.json").read_bytes()
    told = f"{asked.start.identity} {asked.share} {recipe}".encode()
    return hashlib.sha256(told + images).hexdigest()


def trial(shards: str, weights: str, share: float, recipe: Finetune, seed: int) -> dict[str, float]:
    """Val scores of one fine-tuning, at the epoch that val chooses; the val part stands in for test."""
    torch.set_num_threads(1)
    data = load_label_share(EvalData(path=shards, label_share=share, workers=0), MODEL.image_size)
    data.parts["test"] = data.parts["val"]
    start = open_starting_weights(weights, MODEL)
    side, classes = start.image_size, len(data.classes)
    model = make_classifier(start.weights, start.shape, side, classes, recipe.drop_path, seed)
    result = finetune(model, data, side, recipe, seed, 0)
    scores = result.history[result.chosen_epoch - 1]["val"]
    return {"epoch": result.chosen_epoch, **{score: scores[score] for score in SCORES}}


def run(
    asked: argparse.Namespace, wanted: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, Any]]:
    """(recipe, seed) -> its val scores; those kept from before, of the same trial, are not run again."""
    kept = asked.out / "trials.jsonl"
    kept.parent.mkdir(parents=True, exist_ok=True)
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    about = {name: about_trial(asked, name) for name, _ in wanted}
    found = {(row["recipe"], row["seed"]): row for row in lines if row["of"] == about.get(row["recipe"])}
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        given = str(asked.shards), asked.weights, asked.share
        todo = {
            pool.submit(trial, *given, recipe_of(name, asked), seed): (name, seed)
            for name, seed in wanted
            if (name, seed) not in found
        }
        for done in as_completed(todo):
            name, seed = todo[done]
            row = {"recipe": name, "seed": seed, **done.result(), "of": about[name]}
            found[name, seed] = row
            with kept.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name}, seed {seed}: " + ", ".join(f"{s} {row[s]:.3f}" for s in SCORES), flush=True)
    return {key: found[key] for key in wanted}


def main() -> None:
    """The menu with one seed, the best with all; one table."""
    asked = arguments()
    found = run(asked, [(name, 0) for name in asked.only])
    ahead = sorted(asked.only, key=lambda name: -found[name, 0]["aupr"])[: asked.best]
    found |= run(asked, [(name, seed) for seed in range(1, asked.seeds) for name in ahead])
    rows = []
    for name in asked.only:
        own = [row for (recipe, _), row in found.items() if recipe == name]
        for score in SCORES:
            values = [row[score] for row in own]
            spread = f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
            of = f"{len(values)} seeds" if len(values) > 1 else "1 seed"
            rows.append(Row(f"{name}: {score}", round(statistics.mean(values), 3), of, spread))
    start = "none" if asked.start.kind == "none" else "pretrained"
    finish(
        f"finetuning-recipes-{start}-{asked.share:g}-{asked.precision}",
        f"val scores of {start} weights, {100 * asked.share:g} % of labels, {asked.precision}",
        rows,
        {},
        ("torch", "timm", "scikit-learn"),
        columns=("mean", "of", "range"),
    )


if __name__ == "__main__":
    main()
