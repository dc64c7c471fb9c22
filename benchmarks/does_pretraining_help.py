"""Does pretraining help? On real OCT images, split by patient; and what a failed pretraining looks like.

    python -m benchmarks.does_pretraining_help [--preset cpu|gpu] [--out runs/does_pretraining_help]

OCTDL is packed and split by patient, and a masked autoencoder is pretrained on its train part. Then `none`
and the pretrained weights are probed and fine-tuned, on all labels and on a tenth of them, with three seeds
each. With all labels the recipe is the best one for `none` (`benchmarks.finetuning_recipes`). With a tenth,
the val part chooses between that recipe and the best one for pretrained weights. The test part is used once,
at the end. Then two bad runs continue from the good checkpoint at batch 16 with rates of 1e-3 and 5e-3, and
`retfound watch` checks all three runs.

Every stage is a command of this project. If it is stopped, the same command continues. An hour on two cores.
Needs OCTDL: $RETFOUND_TEST_DATA/octdl, or --images FOLDER.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.report import Row, finish
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.formats import checkpoint_folder, run_folder

ROOT = Path(__file__).resolve().parent.parent
PRESETS = Path(__file__).parent / "presets"
SCORES = ("auroc", "aupr", "balanced_accuracy")
SHARES = {1.0: "compare_100.toml", 0.1: "compare_10.toml"}
"""Share of the labels and its recipe, or the recipes to choose from; the same for both rows."""
BAD_BATCH, BAD_EPOCHS = 16, 8
BAD_RATES = (1e-3, 5e-3)
"""Absolute rates that a small group reported; at batch 16 the paper's is 9.4e-6."""


@dataclass(frozen=True)
class Setup:
    """Folders, ranks and threads of all stages."""

    preset: Path
    out: Path
    images: Path
    ranks: int
    threads: int

    def run(self, *command: str, ok: tuple[int, ...] = (0,)) -> int:
        """Run a command of this project and return its exit code, which must be one of `ok`."""
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        began, used = time.monotonic(), processor_s()
        completed = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=env)
        duration_text = f"{time.monotonic() - began:.0f} s, {processor_s() - used:.0f} s of processor time"
        print(f"[{duration_text}] {' '.join(command[:3])}", flush=True)
        if completed.returncode not in ok:
            raise SystemExit(
                f"{' '.join(command)} exited with {completed.returncode}: correct the cause and start again"
            )
        return completed.returncode

    def pretrain(self, *overrides: str) -> None:
        """A pretraining run on all ranks."""
        launch = ("torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}")
        config = str(self.preset / "pretrain.toml")
        run_arguments = (config, f"data.shards={self.out}/shards", *overrides)
        self.run(*launch, "-m", "retfound_dist", "pretrain", *run_arguments)

    def last(self, run: str) -> str:
        """The newest checkpoint of a run."""
        return checkpoint_folder.resolve(str(self.out / run))


def processor_s() -> float:
    """Processor time of all processes of all commands so far."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def arguments() -> Setup:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "does_pretraining_help")
    parser.add_argument("--images", type=Path)
    parser.add_argument("--ranks", type=int, default=0, help="0: two on CPUs, one on a GPU")
    args = parser.parse_args()
    data = os.environ.get("RETFOUND_TEST_DATA") or ROOT.parent / "shared" / "data"
    images = args.images or Path(data) / "octdl"
    if not images.is_dir():
        parser.error(f"{images} is not a folder: give OCTDL's folder with --images")
    ranks = args.ranks or (2 if args.preset == "cpu" else 1)
    threads = max(1, len(os.sched_getaffinity(0)) // ranks) if args.preset == "cpu" else 1
    return Setup(PRESETS / args.preset, args.out.absolute(), images, ranks, threads)


def prepare(setup: Setup) -> None:
    """Pack, pretrain, compare at both shares."""
    if not (setup.out / "shards" / "manifest.json").exists():
        source = ("source.kind=octdl", f"source.path={setup.images}", "split.fractions=[0.6,0.15,0.25]")
        packing = ("pack", "configs/pack_folder.toml", *source, f"out.url={setup.out}/shards")
        setup.run("retfound_dist", *packing)
    setup.pretrain(f"run.url={setup.out}/pretrain")
    for share, config in SHARES.items():
        setup.run(
            *("retfound_dist", "compare", str(setup.preset / config)),
            *(f"weights.pretrained={setup.last('pretrain')}", f"data.path={setup.out}/shards"),
            f"out.url={setup.out}/labels_{share:g}",
        )


def make_bad_runs(setup: Setup) -> None:
    """The bad runs, from the good checkpoint."""
    good = setup.last("pretrain")
    for rate in BAD_RATES:
        setup.pretrain(
            *(f"run.url={setup.out}/bad_{rate:g}", f"model.init={good}", f"train.epochs={BAD_EPOCHS}"),
            *(f"train.global_batch={BAD_BATCH}", f"train.micro_batch={BAD_BATCH // setup.ranks}"),
            *(f"optim.base_lr={rate * 256 / BAD_BATCH}", "optim.warmup_epochs=0", "train.log_every=50"),
            *("checkpoint.every_steps=230", "train.compile=false"),
        )


def watch(setup: Setup, run: str) -> list[dict[str, Any]]:
    """The alarms of a run; `retfound watch` must exit with 1 where there are any, else with 0."""
    code = setup.run(
        *("retfound_dist", "watch", "configs/watch_octid.toml", f"run.url={setup.out}/{run}"),
        *(f"data.path={setup.out}/shards", "data.workers=0", "finetune_every=0", "poll_seconds=1"),
        ok=(0, 1),
    )
    alarms = run_folder.read_rows(str(setup.out / run), "alarms.jsonl")
    if bool(alarms) != bool(code):
        raise AssertionError(f"watch exited with {code}, but alarms.jsonl of {run} has {len(alarms)} lines")
    return alarms


def evaluation(setup: Setup, share: float, name: str) -> Evaluation:
    """A row of a comparison."""
    result = evaluation_files.read(str(setup.out / f"labels_{share:g}" / name))
    assert result is not None, (share, name)
    return result


def rows_of(evaluations: dict[tuple[float, str], Evaluation]) -> list[Row]:
    """Every score with its interval."""
    rows = []
    for (share, name), row in evaluations.items():
        trees = {"fine-tuned": row.metrics, **row.metrics["probe"]}
        for method, tree in trees.items():
            for score in SCORES:
                low, high = tree["ci95"]["macro"][score]
                label = f"{name}, {100 * share:g} % of labels, {method}: {score}"
                rows.append(Row(label, round(tree["macro"][score], 3), "", f"{low:.3f} to {high:.3f}"))
    return rows


def gap(first: Evaluation, second: Evaluation, score: str) -> tuple[float, list[float]]:
    """Difference of two fine-tunings and its paired 95 % interval, over patients and seeds."""
    assert first.keys == second.keys
    _, units = bootstrap.resampling_units(first.patients, first.keys)
    weights = bootstrap.resample(units, first.metrics["bootstrap"]["resamples"], 0)
    a, b = (
        bootstrap.scores_over_seeds(r.labels_N, r.seed_probabilities_SNC, weights)["macro"][score]
        for r in (first, second)
    )
    span = bootstrap.interval(a - b)
    return first.metrics["macro"][score] - second.metrics["macro"][score], span or [float("nan")] * 2


def differences_from_none(
    evaluations: dict[tuple[float, str], Evaluation],
) -> tuple[list[Row], dict[str, float]]:
    """Scores of pretrained minus `none`: at both shares, and a tenth of the labels minus all."""
    rows, ratios = [], {}
    for title, first, second in (
        ("pretrained - none, all labels", 1.0, 1.0),
        ("pretrained - none, a tenth", 0.1, 0.1),
        ("pretrained with a tenth - none with all", 0.1, 1.0),
    ):
        for score in SCORES:
            value, (low, high) = gap(evaluations[first, "pretrained"], evaluations[second, "none"], score)
            rows.append(Row(f"{title}: {score}", round(value, 3), "", f"{low:.3f} to {high:.3f}"))
            ratios[f"{title}: {score}".replace(" ", "_")] = round(value, 3)
    return rows, ratios


def main() -> None:
    """All stages, one table."""
    setup = arguments()
    prepare(setup)
    make_bad_runs(setup)
    raised = {run: watch(setup, run) for run in ("pretrain", *(f"bad_{rate:g}" for rate in BAD_RATES))}
    evaluations = {(s, n): evaluation(setup, s, n) for s in SHARES for n in ("none", "pretrained")}
    gaps, ratios = differences_from_none(evaluations)
    alarms = [Row(f"alarms in run {run}", len(lines), "", _first(lines)) for run, lines in raised.items()]
    tested = next(iter(evaluations.values())).metrics["split"]["test"]
    finish(
        "does-pretraining-help",
        f"OCTDL, {tested} test images, preset {setup.preset.name}",
        [*rows_of(evaluations), *gaps, *alarms],
        ratios,
        ("torch", "deepspeed", "timm", "scikit-learn"),
        columns=("value", "unit", "95 % interval"),
    )
    (setup.out / "alarms.json").write_text(json.dumps(raised, indent=1))


def _first(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return "none"
    first = lines[0]
    low, high = first["ci95"]
    return f"first at step {first['step']}: {first['kind']}, {first['metric']} {low:.3f} to {high:.3f}"


if __name__ == "__main__":
    main()
