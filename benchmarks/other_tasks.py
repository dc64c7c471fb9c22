"""Labels, a number and grades on generated images whose answers are known: no pretraining beside pretraining.

    python -m benchmarks.other_tasks [--out runs/other_tasks] [--patients 400] [--steps 600] [--epochs 8]

The phantom of the demo is packed with its true values (`shards/sources/phantom/truth.py`), and the demo's
autoencoder is pretrained on its train part. Then `retfound compare` fine-tunes random and pretrained weights
for each task. Every stage is a command of this project. If it is stopped, the same command continues.

A run of some minutes shows what the tables look like. It cannot show how much pretraining helps on real
images: generated images are simple, the network is small, and there is one seed. With fewer patients and
steps than the defaults, both rows may only guess.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.report import Row, finish
from retfound_dist.evaluate.tasks.task_facts import SCORE_LABELS, SCORES
from retfound_dist.formats import checkpoint_folder

ROOT = Path(__file__).resolve().parent.parent
TASKS = {
    "kinds of lesions": (
        "multilabel",
        ("has_hole", "has_cysts", "has_bright_foci", "has_fluid", "has_deposits"),
    ),
    "number of lesions": ("regression", ("lesions",)),
    "severity": ("ordinal", ("severity",)),
}
"""Title of each task -> its kind and targets."""
LONG = {"regression", "ordinal"}
"""Kinds with three times as many epochs: after eight an order is learned or not by chance, after 24 it is."""


def run(*command: str) -> None:
    """A command of this project; stops where it fails."""
    print(f"== retfound {' '.join(command[:2])}", flush=True)
    subprocess.run([sys.executable, "-m", "retfound_dist", *command], cwd=ROOT, check=True)


def compare(out: Path, title: str, checkpoint: str, epochs: int) -> dict[str, Any]:
    """compare.json of one task."""
    kind, targets = TASKS[title]
    folder = out / kind
    epochs *= 3 if kind in LONG else 1
    run(
        "compare", "configs/demo/compare.toml", f'weights={{none="none", pretrained="{checkpoint}"}}',
        f"task.kind={kind}", f"task.targets={json.dumps(targets)}", f"data.path={out / 'shards'}",
        f"out.url={folder}", f"out.report={folder / 'report.html'}", f"finetune.epochs={epochs}",
        "finetune.label_smoothing=0.0", 'probe.kinds=["linear"]', "finetune.keep=false", "jobs=1",
        # A small crop would leave out lesions that the answer counts.
        "finetune.crop_scale=[0.8, 1.0]",
    )  # fmt: skip
    tree: dict[str, Any] = json.loads((folder / "compare.json").read_text())
    return tree


def task_rows(title: str, tree: dict[str, Any]) -> list[Row]:
    """One line for each score of each row, fine-tuned and probed."""
    kind = TASKS[title][0]
    rows = []
    for name, row in tree["rows"].items():
        for way, scored in (("fine-tuned", row), ("linear probe", row["probe"]["linear"])):
            for score in SCORES[kind]:
                span = scored["ci95"][score]
                text = f"{span[0]:.3f} to {span[1]:.3f}" if span else ""
                label = f"{title}, {name}, {way}: {SCORE_LABELS[score]}"
                value = scored["scores"][score]
                if value is None:
                    print(f"{label}: not defined, too few different answers in the test part")
                else:
                    rows.append(Row(label, round(value, 4), "", text))
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="runs/other_tasks", type=Path)
    parser.add_argument("--patients", default=400, type=int)
    parser.add_argument("--steps", default=600, type=int, help="of the pretraining")
    parser.add_argument(
        "--epochs", default=8, type=int, help="of labels; the number and grades have three times as many"
    )
    chosen = parser.parse_args()
    out = chosen.out.resolve()
    run("pack", "configs/demo/pack.toml", f"phantom.patients={chosen.patients}", f"out.url={out / 'shards'}")
    run(
        "pretrain", "configs/demo/pretrain.toml", f"data.shards={out / 'shards'}",
        f"run.url={out / 'pretrain'}", f"train.steps={chosen.steps}",
    )  # fmt: skip
    checkpoint = checkpoint_folder.resolve(str(out / "pretrain"))
    trees = {title: compare(out, title, checkpoint, chosen.epochs) for title in TASKS}
    rows = [row for title, tree in trees.items() for row in task_rows(title, tree)]
    gains = {
        f"{title}: {line['metric']}, pretrained minus none": round(line["difference"], 4)
        for title, tree in trees.items()
        for line in tree["against_none"]
        if line["difference"] is not None
    }
    finish(
        "other-tasks",
        "No pretraining beside pretraining, on generated images with known answers",
        rows,
        gains,
        ("torch", "timm", "scikit-learn"),
        columns=("test part", "unit", "95 % interval"),
    )
    for tree in trees.values():
        print("\n".join(tree["sentences"]))


if __name__ == "__main__":
    main()
