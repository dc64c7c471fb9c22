"""Which fine-tuning recipe is best for which starting weights? Chosen by the val part alone.

    python -m benchmarks.finetuning_recipes SHARDS [--weights none|CHECKPOINT] [--share 1.0]

Every recipe of the menu is run with the first seed, and the best ones by val AUPR with all seeds. The test
part is not used. `benchmarks.does_pretraining_help` takes its recipes from here. SHARDS is the set that it
packs, runs/does_pretraining_help/shards. Trials run in parallel, one core each, and are written to --out as
they end. If it is stopped, the same command continues. An hour on two cores with all labels, half of that
with a tenth.
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
from retfound_dist.evaluate.data.label_subset import load_label_subset
from retfound_dist.evaluate.data.starting_weights import open_starting_weights
from retfound_dist.evaluate.finetune.finetuning import finetune

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
"""The settings that differ from BASE; `epochs` is a factor."""
SCORES = ("aupr", "balanced_accuracy", "auroc")


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("shards", type=Path)
    parser.add_argument("--weights", default="none")
    parser.add_argument("--share", type=float, choices=tuple(EPOCHS), default=1.0)
    parser.add_argument("--precision", choices=("bf16", "fp32"), default="bf16")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument(
        "--best", type=int, default=3, help="number of recipes that are run with the other seeds"
    )
    parser.add_argument("--only", nargs="+", choices=tuple(MENU), default=tuple(MENU), metavar="RECIPE")
    parser.add_argument("--out", type=Path, default=Path("runs/finetuning_recipes"))
    args = parser.parse_args()
    if not (args.shards / "manifest.json").is_file():
        parser.error(f"{args.shards} is not a shard set: `make bench-pretraining` packs it")
    try:
        args.start = open_starting_weights(args.weights, MODEL)
    except RetfoundError as error:
        parser.error(str(error))
    return args


def recipe_of(name: str, args: argparse.Namespace) -> Finetune:
    """A recipe of the menu."""
    change = dict(MENU[name])
    epochs = EPOCHS[args.share] * change.pop("epochs", 1)
    return replace(BASE, epochs=epochs, precision=args.precision, **change)


def trial_identity(args: argparse.Namespace, name: str) -> str:
    """A digest of everything but the seed that a trial's scores depend on."""
    recipe = json.dumps(asdict(recipe_of(name, args)), sort_keys=True)
    images = (args.shards / "manifest.json").read_bytes()
    identity = f"{args.start.identity} {args.share} {recipe}".encode()
    return hashlib.sha256(identity + images).hexdigest()


def trial(shards: str, weights: str, share: float, recipe: Finetune, seed: int) -> dict[str, float]:
    """Val scores of one fine-tuning, at the epoch that val chooses; the val part stands in for test."""
    torch.set_num_threads(1)
    start = open_starting_weights(weights, MODEL)
    data = load_label_subset(EvalData(path=shards, label_share=share, workers=0), start.image_size)
    data.parts["test"] = data.parts["val"]
    model = start.backbone.build(len(data.classes), recipe.drop_path, seed)
    result = finetune(model, start.backbone, data, recipe, seed, 0)
    scores = result.history[result.chosen_epoch - 1]["val"]
    return {"epoch": result.chosen_epoch, **{score: scores[score] for score in SCORES}}


def run(
    args: argparse.Namespace, requested: Sequence[tuple[str, int]]
) -> dict[tuple[str, int], dict[str, Any]]:
    """The val scores by (recipe, seed); trials that were saved before are not run again."""
    trials_file = args.out / "trials.jsonl"
    trials_file.parent.mkdir(parents=True, exist_ok=True)
    lines = (
        [json.loads(line) for line in trials_file.read_text().splitlines()] if trials_file.exists() else []
    )
    identities = {name: trial_identity(args, name) for name, _ in requested}
    trials = {
        (row["recipe"], row["seed"]): row for row in lines if row["of"] == identities.get(row["recipe"])
    }
    cores = len(os.sched_getaffinity(0))
    with ProcessPoolExecutor(cores, multiprocessing.get_context("spawn")) as pool:
        trial_inputs = str(args.shards), args.weights, args.share
        todo = {
            pool.submit(trial, *trial_inputs, recipe_of(name, args), seed): (name, seed)
            for name, seed in requested
            if (name, seed) not in trials
        }
        for completed in as_completed(todo):
            name, seed = todo[completed]
            row = {"recipe": name, "seed": seed, **completed.result(), "of": identities[name]}
            trials[name, seed] = row
            with trials_file.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(f"{name}, seed {seed}: " + ", ".join(f"{s} {row[s]:.3f}" for s in SCORES), flush=True)
    return {key: trials[key] for key in requested}


def main() -> None:
    """The menu with one seed, the best with all; one table."""
    args = arguments()
    trials = run(args, [(name, 0) for name in args.only])
    best_names = sorted(args.only, key=lambda name: -trials[name, 0]["aupr"])[: args.best]
    trials |= run(args, [(name, seed) for seed in range(1, args.seeds) for name in best_names])
    rows = []
    for name in args.only:
        own = [row for (recipe, _), row in trials.items() if recipe == name]
        for score in SCORES:
            values = [row[score] for row in own]
            spread = f"{min(values):.3f} to {max(values):.3f}" if len(values) > 1 else ""
            of = f"{len(values)} seeds" if len(values) > 1 else "1 seed"
            rows.append(Row(f"{name}: {score}", round(statistics.mean(values), 3), of, spread))
    start = "none" if args.start.kind == "none" else "pretrained"
    finish(
        f"finetuning-recipes-{start}-{args.share:g}-{args.precision}",
        f"val scores of {start} weights, {100 * args.share:g} % of labels, {args.precision}",
        rows,
        {},
        ("torch", "timm", "scikit-learn"),
        columns=("mean", "of", "range"),
    )


if __name__ == "__main__":
    main()
