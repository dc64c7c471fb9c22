"""Does pretraining help? On real OCT images, patients kept apart; and what it looks like when it does not.

    python -m benchmarks.does_pretraining_help [--preset cpu|gpu] [--out runs/does_pretraining_help]

OCTDL is packed and split by patient; a masked autoencoder is pretrained on its train part; then `none` and
the pretrained weights are probed and fine-tuned on all labels and on a tenth of them, three seeds each: with
all labels by the recipe that suits `none` (`benchmarks.finetuning_recipes`), with a tenth by that or by the
one that suits pretrained weights, as each one's val part chooses. The test part is looked at once, at the
end. Then the failure: pretraining goes on from the good checkpoint at batch 16 with rates of 1e-3 and 5e-3,
and `retfound watch` says what it thinks of all three runs.

Every stage is one of this project's commands; ended anywhere, the same line goes on. An hour on two cores.
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
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.formats import checkpoint_folder, run_folder

ROOT = Path(__file__).resolve().parent.parent
PRESETS = Path(__file__).parent / "presets"
SCORES = ("auroc", "aupr", "balanced_accuracy")
SHARES = {1.0: "compare_100.toml", 0.1: "compare_10.toml"}
"""Share of the labels -> recipe of the preset, or recipes to choose from; the same for both rows."""
BAD_BATCH, BAD_EPOCHS = 16, 8
BAD_RATES = (1e-3, 5e-3)
"""What DESIGN's small group reports, taken as absolute rates; at batch 16 the paper's is 9.4e-6."""


@dataclass(frozen=True)
class Stage:
    """Where and with what everything runs."""

    preset: Path
    out: Path
    images: Path
    ranks: int
    threads: int

    def run(self, *command: str, ok: tuple[int, ...] = (0,)) -> int:
        """One command of this project, its words passed on; its exit code, one of `ok`."""
        env = {**os.environ, "OMP_NUM_THREADS": str(self.threads)}
        began, used = time.monotonic(), processor_s()
        done = subprocess.run([sys.executable, "-m", *command], cwd=ROOT, env=env)
        took = f"{time.monotonic() - began:.0f} s, {processor_s() - used:.0f} s of processor time"
        print(f"[{took}] {' '.join(command[:3])}", flush=True)
        if done.returncode not in ok:
            raise SystemExit(f"{' '.join(command)} left with {done.returncode}: mend that and start again")
        return done.returncode

    def pretrain(self, *overrides: str) -> None:
        """A pretraining run on all ranks."""
        launch = ("torch.distributed.run", "--standalone", f"--nproc-per-node={self.ranks}")
        config = str(self.preset / "pretrain.toml")
        given = (config, f"data.shards={self.out}/shards", *overrides)
        self.run(*launch, "-m", "retfound_dist", "pretrain", *given)

    def last(self, run: str) -> str:
        """The newest checkpoint of a run."""
        return checkpoint_folder.resolve(str(self.out / run))


def processor_s() -> float:
    """Processor time of all commands so far, of all their processes."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def arguments() -> Stage:
    """What was asked for."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--preset", choices=("cpu", "gpu"), default="cpu")
    ask.add_argument("--out", type=Path, default=ROOT / "runs" / "does_pretraining_help")
    ask.add_argument("--images", type=Path)
    ask.add_argument("--ranks", type=int, default=0, help="0: two on CPUs, one on a GPU")
    asked = ask.parse_args()
    data = os.environ.get("RETFOUND_TEST_DATA") or ROOT.parent / "shared" / "data"
    images = asked.images or Path(data) / "octdl"
    if not images.is_dir():
        ask.error(f"{images} is not there: give OCTDL's folder with --images")
    ranks = asked.ranks or (2 if asked.preset == "cpu" else 1)
    threads = max(1, len(os.sched_getaffinity(0)) // ranks) if asked.preset == "cpu" else 1
    return Stage(PRESETS / asked.preset, asked.out.absolute(), images, ranks, threads)


def prepare(stage: Stage) -> None:
    """Pack, pretrain, compare at both shares."""
    if not (stage.out / "shards" / "manifest.json").exists():
        source = ("source.kind=octdl", f"source.path={stage.images}", "split.fractions=[0.6,0.15,0.25]")
        packing = ("pack", "configs/pack_folder.toml", *source, f"out.url={stage.out}/shards")
        stage.run("retfound_dist", *packing)
    stage.pretrain(f"run.url={stage.out}/pretrain")
    for share, config in SHARES.items():
        stage.run(
            *("retfound_dist", "compare", str(stage.preset / config)),
            *(f"weights.pretrained={stage.last('pretrain')}", f"data.path={stage.out}/shards"),
            f"out.url={stage.out}/labels_{share:g}",
        )


def fail(stage: Stage) -> None:
    """The bad runs, from the good checkpoint."""
    good = stage.last("pretrain")
    for rate in BAD_RATES:
        stage.pretrain(
            *(f"run.url={stage.out}/bad_{rate:g}", f"model.init={good}", f"train.epochs={BAD_EPOCHS}"),
            *(f"train.global_batch={BAD_BATCH}", f"train.micro_batch={BAD_BATCH // stage.ranks}"),
            *(f"optim.base_lr={rate * 256 / BAD_BATCH}", "optim.warmup_epochs=0", "train.log_every=50"),
            *("checkpoint.every_steps=230", "train.compile=false"),
        )


def watch(stage: Stage, run: str) -> list[dict[str, Any]]:
    """The alarms of a run; watch itself must leave with 1 where there are any and with 0 where not."""
    code = stage.run(
        *("retfound_dist", "watch", "configs/watch_octid.toml", f"run.url={stage.out}/{run}"),
        *(f"data.path={stage.out}/shards", "data.workers=0", "finetune_every=0", "poll_seconds=1"),
        ok=(0, 1),
    )
    alarms = run_folder.read_rows(str(stage.out / run), "alarms.jsonl")
    if bool(alarms) != bool(code):
        raise AssertionError(f"watch left with {code} but alarms.jsonl of {run} holds {len(alarms)} lines")
    return alarms


def evaluation(stage: Stage, share: float, name: str) -> Evaluation:
    """A row of a comparison."""
    found = evaluation_files.read(str(stage.out / f"labels_{share:g}" / name))
    assert found is not None, (share, name)
    return found


def rows_of(found: dict[tuple[float, str], Evaluation]) -> list[Row]:
    """Every score with its interval."""
    rows = []
    for (share, name), row in found.items():
        trees = {"fine-tuned": row.metrics, **row.metrics["probe"]}
        for method, tree in trees.items():
            for score in SCORES:
                low, high = tree["ci95"]["macro"][score]
                label = f"{name}, {100 * share:g} % of labels, {method}: {score}"
                rows.append(Row(label, round(tree["macro"][score], 3), "", f"{low:.3f} to {high:.3f}"))
    return rows


def gap(one: Evaluation, other: Evaluation, score: str) -> tuple[float, list[float]]:
    """Difference of two fine-tunings and its paired 95 % interval, over patients and seeds."""
    assert one.keys == other.keys
    _, units = bootstrap.resampling_units(one.patients, one.keys)
    weights = bootstrap.resample(units, one.metrics["bootstrap"]["resamples"], 0)
    a, b = (
        bootstrap.scores_over_seeds(r.labels_N, r.seed_probabilities_SNC, weights)["macro"][score]
        for r in (one, other)
    )
    span = bootstrap.interval(a - b)
    return one.metrics["macro"][score] - other.metrics["macro"][score], span or [float("nan")] * 2


def claims(found: dict[tuple[float, str], Evaluation]) -> tuple[list[Row], dict[str, float]]:
    """Pretrained less `none`, at both shares and with a tenth of the labels against all of them."""
    rows, ratios = [], {}
    for title, one, other in (
        ("pretrained - none, all labels", 1.0, 1.0),
        ("pretrained - none, a tenth", 0.1, 0.1),
        ("pretrained with a tenth - none with all", 0.1, 1.0),
    ):
        for score in SCORES:
            value, (low, high) = gap(found[one, "pretrained"], found[other, "none"], score)
            rows.append(Row(f"{title}: {score}", round(value, 3), "", f"{low:.3f} to {high:.3f}"))
            ratios[f"{title}: {score}".replace(" ", "_")] = round(value, 3)
    return rows, ratios


def main() -> None:
    """All stages, one table."""
    stage = arguments()
    prepare(stage)
    fail(stage)
    raised = {run: watch(stage, run) for run in ("pretrain", *(f"bad_{rate:g}" for rate in BAD_RATES))}
    found = {(s, n): evaluation(stage, s, n) for s in SHARES for n in ("none", "pretrained")}
    gaps, ratios = claims(found)
    alarms = [Row(f"alarms in run {run}", len(lines), "", _first(lines)) for run, lines in raised.items()]
    tested = next(iter(found.values())).metrics["split"]["test"]
    finish(
        "does-pretraining-help",
        f"OCTDL, {tested} test images, preset {stage.preset.name}",
        [*rows_of(found), *gaps, *alarms],
        ratios,
        ("torch", "deepspeed", "timm", "scikit-learn"),
        columns=("value", "unit", "95 % interval"),
    )
    (stage.out / "alarms.json").write_text(json.dumps(raised, indent=1))


def _first(lines: list[dict[str, Any]]) -> str:
    if not lines:
        return "none"
    first = lines[0]
    low, high = first["ci95"]
    return f"first at step {first['step']}: {first['kind']}, {first['metric']} {low:.3f} to {high:.3f}"


if __name__ == "__main__":
    main()
