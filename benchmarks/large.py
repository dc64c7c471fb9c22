"""Time and memory of large inputs: 1.6 million images in a list, 10,000 runs, 500,000 predictions.

    make bench-large           (or: python -m benchmarks.large [--share 0.1])

All inputs are generated, in a temporary folder. Each row is measured three times, each time in its own
process: CPU and wall seconds after the imports, and highest resident memory minus that of the imports. The
table has the medians, and the ranges of the CPU seconds. `--share` makes all inputs smaller.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any

from benchmarks.report import Row, finish

ROWS, RUNS, PREDICTIONS, CLASSES, IMAGES, RESAMPLES = 1_600_000, 10_000, 500_000, 50, 100_000, 1000
FEW_CLASSES, STEPS = 5, 100
ROUNDS = 3
LIMITS = {
    "runs": {"cpu_s": 3},
    "page": {"cpu_s": 3, "mb": 500},
    "bootstrap": {"cpu_s": 60, "mb": 2000},
}
"""The limits of each task: CPU seconds are those of an otherwise idle machine."""
Work = Callable[[], None]


def read_list(folder: Path, rows: int) -> Work:
    """A CSV of so many images with seven columns."""
    from retfound_dist.listing.image_lists import read_listing

    path = folder / "list.csv"
    with path.open("w") as file:
        file.write("file,label,patient,eye,volume,slice,split\n")
        for n in range(rows):
            patient, volume = n // 500, n // 50
            eye, part = ("OD", "OS")[volume % 2], ("train", "val", "test")[patient % 3]
            file.write(
                f"scans/{patient % 97:03d}/P{patient:05d}/V{volume:06d}/bscan_{n:07d}.png,"
                f"{'ABCD'[patient % 4]},P{patient:05d},{eye},V{volume:06d},{n % 50},{part}\n"
            )

    def work() -> None:
        assert len(read_listing(str(path)).rows) == rows

    return work


def list_runs(folder: Path, count: int) -> Work:
    """So many finished runs with summaries: 100 logged steps, two checkpoints, two evaluations each."""
    from retfound_dist.formats import run_summary
    from retfound_dist.runs.run_list import runs_command

    first = make_run(folder / "first", seed=0)
    for n in range(count):
        where = folder / "runs" / f"{n // 100:03d}" / f"run{n:05d}"
        copy_run(first, where, seed=n % 7)
        run_summary.refresh(str(where))

    def work() -> None:
        with open(os.devnull, "w") as nothing, redirect_stdout(nothing):
            runs_command(str(folder / "runs"), as_json=False)

    return work


def make_run(where: Path, seed: int) -> Path:
    """A run's folder, made without training."""
    from retfound_dist.config.loading import load, to_dict
    from retfound_dist.config.schema import PretrainConfig
    from retfound_dist.formats import checkpoint_folder
    from retfound_dist.io import storage

    url = str(where)
    overrides = [f"run.url={url}", f"train.steps={STEPS}", "train.epochs=0", f"train.seed={seed}"]
    tree = to_dict(load(PretrainConfig, "configs/demo/pretrain.toml", overrides)[0])
    storage.write_json(f"{url}/config.json", tree)
    step: dict[str, Any] = {
        "epoch": 1.0, "samples": 64, "loss": 0.5, "loss_mean": 0.5, "lr": 1e-4, "grad_norm": 1.0,
        "step_s": 10.0, "images_per_s": 6.4, "data_wait_s": 0.01, "world_size": 2, "time": 1.79e9,
    }  # fmt: skip
    rows = [step | {"step": n, "held_out_loss": 0.6 if n % 50 == 0 else None} for n in range(1, STEPS + 1)]
    start = {"event": "start", "time": 1.79e9, "began": 1.79e9, "ready": 1.79e9, "step": 0, "world_size": 2}
    end = {"event": "end", "time": 1.79e9 + 1000, "step": STEPS, "reason": "finished"}
    for name, lines in (("metrics", rows), ("events", [start | {"zero_stage": 1}, end])):
        storage.write_text(f"{url}/{name}.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    for saved in (STEPS // 2, STEPS):
        where_saved = checkpoint_folder.checkpoint_url(url, saved)
        checkpoint_folder.write_commit(
            checkpoint_folder.Commit(
                url=where_saved, step=saved, samples=64 * saved, world_size=2, zero_stage=1, precision="bf16",
                batch_digest="0" * 16, time="", config=tree, files={},
            )
        )  # fmt: skip
        storage.write_json(
            f"{checkpoint_folder.evaluation_url(url, saved)}/metrics.json", {"macro": {"auroc": 0.9}}
        )
    return where


def copy_run(first: Path, where: Path, seed: int) -> None:
    """Copy a run, with another seed."""
    for path in first.rglob("*"):
        if path.is_file():
            target = where / path.relative_to(first)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(path.read_text().replace('"seed": 0', f'"seed": {seed}'))


def draw_page(folder: Path, images: int) -> Work:
    """Read an evaluation of so many predictions and five classes, and draw its page."""
    from retfound_dist.evaluate.report.evaluation_page import evaluation_page
    from retfound_dist.evaluate.results import evaluation_files, evaluation_tables

    evaluation = made_evaluation(images, FEW_CLASSES)
    (folder / "history.jsonl").write_text("".join(json.dumps(row) + "\n" for row in evaluation.history))
    (folder / "metrics.json").write_text(json.dumps(evaluation.metrics))
    with (folder / "predictions.csv").open("w") as file:
        file.write(evaluation_tables.predictions_csv(evaluation))

    def work() -> None:
        stored = evaluation_files.read(str(folder))
        assert stored is not None
        assert "</html>" in evaluation_page(stored)

    return work


def resample(folder: Path, images: int) -> Work:
    """Score 50 classes in 1,000 resamples of patients, and draw the page."""
    from retfound_dist.evaluate.report.evaluation_page import evaluation_page
    from retfound_dist.evaluate.scores import bootstrap

    evaluation = made_evaluation(images, CLASSES)

    def work() -> None:
        _, units_N = bootstrap.resampling_units(evaluation.patients, evaluation.keys)
        weights_RN = bootstrap.resample(units_N, RESAMPLES, 0)
        spans = bootstrap.intervals(
            bootstrap.scores_over_seeds(evaluation.labels_N, evaluation.seed_probabilities_SNC, weights_RN)
        )
        evaluation.metrics["ci95"] = spans
        assert "</html>" in evaluation_page(evaluation)

    return work


def made_evaluation(images: int, classes: int) -> Any:
    """An evaluation of drawn predictions: four images a patient, a classifier that is often right."""
    import numpy as np

    from retfound_dist.evaluate.results.evaluation import Evaluation
    from retfound_dist.evaluate.scores import metrics
    from retfound_dist.evaluate.scores.metrics import DIGITS

    draw, names = np.random.default_rng(0), [f"class{c:02d}" for c in range(classes)]
    labels_N = draw.integers(0, classes, images)
    p_NC = np.exp(draw.normal(size=(images, classes)) + 2 * np.eye(classes)[labels_N])
    p_NC = (p_NC / p_NC.sum(1, keepdims=True)).round(DIGITS)
    scored, parts = metrics.evaluate(labels_N, p_NC, names), ("train", "val", "test")
    spans = {
        kind: {name: [0.1, 0.9] for name in group}
        for kind, group in (("legacy", metrics.LEGACY), ("macro", metrics.MACRO))
    }
    counts = dict.fromkeys(parts, images)
    split = {"by": "patient", **counts, "patients": counts, "per_class": {"test": dict.fromkeys(names, 1)}}
    start = {"kind": "none", "url": "none", "step": None, "samples": None, "sha256": "none"}
    tree = {
        **scored, "ci95": spans, "classes": names, "seeds": [0], "checkpoint": start, "split": split,
        "bootstrap": {"unit": "patient", "units": images // 4, "resamples": RESAMPLES},
        "patients": images // 4,
        "per_seed": [{"seed": 0, "epoch": 1, "legacy": scored["legacy"], "macro": scored["macro"]}],
        "over_seeds": {"macro": {"auroc": {"mean": 0.9, "std": None}}}, "skipped": [], "warnings": [],
        "data": {"path": "made", "fingerprint": "0"}, "versions": {}, "seconds": 1.0,
        "config": {"finetune": {"epochs": 1}, "data": {}},
    }  # fmt: skip
    history = [{"seed": 0, "epoch": 1, "train_loss": 1.0, "lr": 0.1, "val_loss": 1.0, "val_auroc": 0.9}]
    keys = tuple(f"scans/{n:07d}.png" for n in range(images))
    return Evaluation(tree, keys, tuple(f"p{n // 4}" for n in range(images)), labels_N, p_NC, history)


TASKS: dict[str, tuple[str, Callable[[Path, int], Work], int]] = {
    "list": ("{:,} rows of a list", read_list, ROWS),
    "runs": ("retfound runs over {:,} runs", list_runs, RUNS),
    "page": ("page of {:,} predictions, read and drawn", draw_page, PREDICTIONS),
    "bootstrap": (f"bootstrap and page, {CLASSES} classes x {{:,}}", resample, IMAGES),
}


def peak_mb() -> float:
    """Highest resident memory so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def measure(task: str, count: int, folder: str) -> None:
    """Prepare once, then do the task in child processes, so that preparing is not measured; prints JSON."""
    work = TASKS[task][1](Path(folder), count)
    for _ in range(ROUNDS):
        child = os.fork()
        if not child:
            _measure_once(work)
            os._exit(0)
        if code := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            sys.exit(code)


def _measure_once(work: Work) -> None:
    """Do the work, and print a line of JSON."""
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")  # the highest resident memory counts from here
    before, cpu, wall = status_mb("VmRSS"), time.process_time(), time.perf_counter()
    work()
    used = {"cpu_s": time.process_time() - cpu, "wall_s": time.perf_counter() - wall}
    print(json.dumps(used | {"mb": status_mb("VmHWM") - before, "held_mb": before}), flush=True)


def status_mb(name: str) -> float:
    """A value of /proc/self/status, in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(float(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))


def rows_of(task: str, rounds: Sequence[dict[str, float]], count: int) -> Iterator[Row]:
    """Two rows of the results."""
    label, measured = TASKS[task][0].format(count), medians(rounds)
    cpu_s = [each["cpu_s"] for each in rounds]
    beside = f"{min(cpu_s):.1f} to {max(cpu_s):.1f}; {measured['wall_s']:.1f} s on the clock"
    yield Row(label, round(measured["cpu_s"], 1), "CPU s", beside)
    baseline = f"beside {measured['held_mb']:.0f} MB of imports and input"
    yield Row("memory of it", round(measured["mb"]), "MB", baseline)


def medians(rounds: Sequence[dict[str, float]]) -> dict[str, float]:
    """The median of each measured value."""
    return {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--only", choices=tuple(TASKS), action="append")
    parser.add_argument("--do", choices=tuple(TASKS), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.do:
        measure(args.do, args.count, args.folder)
        return
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for task in args.only or TASKS:
        count = round(TASKS[task][2] * args.share)
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "benchmarks.large", "--do", task, "--count", str(count)]
            command += ["--folder", folder]
            completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rounds = [json.loads(line) for line in completed.stdout.splitlines()]
        rows += rows_of(task, rounds, count)
        measured = medians(rounds)
        for name, limit in LIMITS.get(task, {}).items():
            ratios[f"{task}_{name}_of_{limit}"] = round(measured[name] / limit, 3)
    title, columns = "what grows with the amount", ("value", "unit", "beside it")
    finish("large", title, rows, ratios, ("numpy", "scipy", "scikit-learn", "matplotlib"), columns=columns)


if __name__ == "__main__":
    main()
