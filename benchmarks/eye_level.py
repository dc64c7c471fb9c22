"""Eyes, not slices: the central slice, the mean of logits and attention, where few slices show the lesion.

    python -m benchmarks.eye_level [--out runs/eye_level]

A small network learns the five classes of the phantom from single B-scans, as from a set like OCTID. Then
its features are kept, and it meets volumes of other people: nine B-scans an eye, the lesion in two of them at
a random place, one label an eye. One evaluation predicts each test eye in three ways, which are compared on
the same resamples of patients. Every stage is a command of this project. If it is stopped, the same command
continues. Ten minutes on two cores.
"""

from __future__ import annotations

import argparse
import csv
import os
import subprocess
import sys
from pathlib import Path

import numpy as np

from benchmarks.report import Row, finish
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap, metrics
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.evaluate.units.slice_pooling import mean_of_logits
from retfound_dist.listing.unit_names import NamedImage, index_units

ROOT = Path(__file__).resolve().parent.parent
NETWORK = "timm:test_resnet"
SLICES, LESION_SLICES, RESAMPLES = 9, 2, 2000
IMAGES = ("source.kind=phantom", "phantom.height=128", "phantom.width=160", "image.format=png")
SINGLE = ("phantom.patients=300", "phantom.volumes=2", "phantom.slices=1", "phantom.seed=1",
          "split.fractions=[0.8, 0.1, 0.1]")  # fmt: skip
VOLUMES = (
    "phantom.patients=100", f"phantom.slices={SLICES}", f"phantom.lesion_slices={LESION_SLICES}",
    "phantom.seed=2", "split.fractions=[0.45, 0.15, 0.4]",
)  # fmt: skip
COMMON = (
    "probe.enabled=false", "data.workers=0", "finetune.batch=16", "finetune.warmup_epochs=1",
    "finetune.layer_decay=1.0", "finetune.drop_path=0.0", "finetune.randaugment=''",
    "finetune.random_erasing=0.0", "finetune.crop_scale=[0.7, 1.0]", "finetune.label_smoothing=0.0",
    "finetune.base_lr=0.05", "model.image_size=64",
)  # fmt: skip
LEARN = ("checkpoint=none", f"model.name={NETWORK}", "finetune.epochs=10")
EYES = (
    "data.unit=eye", "finetune.pool=attention", "finetune.method=head", "finetune.epochs=4",
)  # fmt: skip


def run(*command: str) -> None:
    """A command of this project, which must succeed."""
    env = {**os.environ, "OMP_NUM_THREADS": str(len(os.sched_getaffinity(0)))}
    subprocess.run([sys.executable, "-m", "retfound_dist", *command], cwd=ROOT, env=env, check=True)


def evaluate_eyes(out: Path) -> Evaluation:
    """Pack both sets, learn from single B-scans, evaluate on volumes."""
    for name, scans in (("single", SINGLE), ("volumes", VOLUMES)):
        if not (out / name / "manifest.json").exists():
            run("pack", "configs/demo/pack.toml", *IMAGES, *scans, f"out.url={out / name}")
    config, learned = "configs/evaluate_octid.toml", out / "learned"
    run("evaluate", config, f"data.path={out / 'single'}", f"out.url={learned}", *COMMON, *LEARN)
    (weights,) = (learned / "classifier").glob("seed_0-*.safetensors")
    start = f"checkpoint={NETWORK}@{weights}"
    run("evaluate", config, f"data.path={out / 'volumes'}", f"out.url={out / 'eyes'}", *COMMON, *EYES, start)
    evaluation = evaluation_files.read(str(out / "eyes"))
    assert evaluation is not None
    return evaluation


def predict_eyes(evaluation: Evaluation, slices_file: Path) -> dict[str, Floats]:
    """Way -> probabilities (U, C) of the test eyes, all by the same fine-tuned network."""
    with slices_file.open() as file:
        rows = list(csv.DictReader(file))
    images_NC = np.array([[float(row[f"p_{name}"]) for name in evaluation.classes] for row in rows])
    # Keys of slices end in their places, so the middle one of an eye is its central B-scan.
    index = index_units([NamedImage(row["key"], row["eye"]) for row in rows], "patient")
    assert index.names == evaluation.keys
    central_U = np.array([images[len(images) // 2] for images in index.images_of_units])
    return {
        "central slice": images_NC[central_U],
        "mean of logits": mean_of_logits(images_NC, index),
        "attention": evaluation.probabilities_NC,
    }


def table(evaluation: Evaluation, ways: dict[str, Floats]) -> tuple[list[Row], dict[str, float]]:
    """AUROC of each way, and paired differences, with 95 % intervals over patients."""
    _, units_U = bootstrap.resampling_units(evaluation.patients, evaluation.keys)
    weights_RU = bootstrap.resample(units_U, RESAMPLES, 0)
    drawn = {
        way: bootstrap.scores(evaluation.labels_N, p_UC, weights_RU)["macro"]["auroc"]
        for way, p_UC in ways.items()
    }
    value = {
        way: metrics.evaluate(evaluation.labels_N, p_UC, evaluation.classes)["macro"]["auroc"]
        for way, p_UC in ways.items()
    }
    rows = [Row(way, round(value[way], 3), "AUROC", _span(drawn[way])) for way in ways]
    ratios = {}
    for one, other in (
        ("mean of logits", "central slice"),
        ("attention", "central slice"),
        ("attention", "mean of logits"),
    ):
        difference = round(value[one] - value[other], 3)
        rows.append(Row(f"{one} - {other}", difference, "AUROC", _span(drawn[one] - drawn[other])))
        ratios[f"{one}_minus_{other}".replace(" ", "_")] = difference
    return rows, ratios


def _span(values_R: Floats) -> str:
    low, high = bootstrap.interval(values_R) or [float("nan")] * 2
    return f"{low:.3f} to {high:.3f}"


def main() -> None:
    """All stages, one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "eye_level")
    out = parser.parse_args().out.absolute()
    evaluation = evaluate_eyes(out)
    rows, ratios = table(evaluation, predict_eyes(evaluation, out / "eyes" / evaluation_files.SLICES))
    finish(
        "eye-level",
        f"{len(evaluation.keys)} test eyes, {SLICES} B-scans each, the lesion in {LESION_SLICES}",
        rows,
        ratios,
        ("torch", "timm", "scikit-learn"),
        columns=("value", "unit", "95 % interval"),
    )


if __name__ == "__main__":
    main()
