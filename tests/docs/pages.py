"""Runs the commands of a page as a reader would, with the presets made small.

In front of `retfound`, `torchrun` and `sbatch` stands a script that adds a small model and few steps to what the
page says; all else is as it is written.
"""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from retfound_dist.model.weights.export import export
from retfound_dist.model.weights.weight_files import read_weights
from tests import ROOT, preloaded
from tests.evaluate.inputs import TINY, checkpoint, class_folders

DOCS = ROOT / "docs"
MODEL = [
    "model.name=vit_demo_patch14", "model.image_size=28", "model.decoder_width=32", "model.decoder_depth=1",
    "model.decoder_heads=2",
]  # fmt: skip
PRETRAIN = [
    *MODEL, "data.workers=0", "train.epochs=0", "train.steps=4", "train.global_batch=8", "train.micro_batch=4",
    "train.log_every=1", "train.threads=1", "checkpoint.every_steps=2", "data.held_out_images=4",
    "train.device=cpu",  # the nodes of the tests give out GPUs that do not exist
]  # fmt: skip
SMALL = {
    "pretrain": PRETRAIN,
    "doctor": [*PRETRAIN, "--minutes=0.2"],
    "batch": ["train.global_batch=4"],
    "evaluate": TINY,
    "compare": [*TINY, "threads=1"],
    "suite": [*(text for text in TINY if not text.startswith("data.")), "threads=1"],
    "watch": [*TINY, "finetune.epochs=1"],
}


def blocks(page: Path) -> list[str]:
    """The page's `sh` blocks, in order."""
    return re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.M | re.S)


def run_page(
    name: str, folder: Path, env: Mapping[str, str], launcher: tuple[str, ...] = (), where: Path | None = None
) -> str:
    """Run a page's blocks as one script in a clone; gives what was printed, or fails with it."""
    shims = folder / "shims"
    shims.mkdir()
    for program in ("retfound", "torchrun", "sbatch"):
        write_shim(shims / program)
    script, log = folder / "page.sh", folder / "page.log"
    script.write_text("set -euxo pipefail\n" + "\n".join(blocks(DOCS / name)))
    with log.open("w") as file, subprocess.Popen(
        [*launcher, "bash", str(script)], cwd=where or make_clone(folder, env), env=environment(shims) | dict(env),
        stdout=file, stderr=subprocess.STDOUT, start_new_session=True,
    ) as process:  # fmt: skip
        try:
            code = process.wait(300)
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise AssertionError(f"{name} did not end: {log.read_text()[-4000:]}") from None
    assert code == 0, f"{name}: {log.read_text()[-4000:]}"
    return log.read_text()


def make_clone(folder: Path, env: Mapping[str, str]) -> Path:
    """A folder with what pages name in a clone, and the weights that a reader has put there."""
    clone = folder / "clone"
    clone.mkdir()
    for name in ("configs", "launch", "docs"):
        (clone / name).symlink_to(ROOT / name)
    if "WEIGHTS" in env:
        (clone / "mae_pretrain_vit_large.pth").symlink_to(env["WEIGHTS"])
    return clone


def environment(shims: Path) -> dict[str, str]:
    """A shell with the environment activated, and this clone's code."""
    kept = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "OUT", "RUN", "RUNS")}
    path = f"{shims}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    return kept | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}


def write_shim(path: Path) -> None:
    """A program's small version."""
    cases = "\n".join(
        f'    {command}) set -- "$@" {" ".join(map(repr, more))} ;;' for command, more in SMALL.items()
    )
    python = sys.executable
    real = {
        "retfound": f'case "$1" in\n{cases}\nesac\nexec {shlex.join(preloaded.retfound())} "$@"',
        "torchrun": 'args=()\nwhile [ "$1" != -m ]; do\n  [ "$1" != 8 ] || { shift; set -- 1 "$@"; }\n'
        '  args+=("$1"); shift\ndone\n'
        f'exec {python} -m torch.distributed.run --standalone "${{args[@]}}" "$@" {" ".join(PRETRAIN)}',
        "sbatch": f'exec "$REAL_SBATCH" --wait "${{@/#--nodes=2/--nodes=1}}" {" ".join(PRETRAIN)}',
    }[path.name]
    path.write_text(f"#!/usr/bin/env bash\n{real}\n")
    path.chmod(0o755)


def make_run_and_sets(folder: Path) -> dict[str, str]:
    """A run that has ended, and two small sets with the classes of OCTDL and OCT2017."""
    checkpoint(folder / "run", 20, steps=20)
    class_folders(folder / "octdl", each=12, classes=("AMD", "DME", "NO", "RVO"))
    class_folders(folder / "kermany", each=5, classes=("CNV", "DME", "DRUSEN", "NORMAL"), seed=1000)
    names = {"RUN": "run", "OCTDL": "octdl", "KERMANY": "kermany"}
    return {variable: str(folder / name) for variable, name in names.items()}


def make_inputs(folder: Path) -> dict[str, str]:
    """Images, a labelled set and weights as a reader may have them; as the variables that pages ask for."""
    class_folders(folder / "images", each=14)
    weights = read_weights(checkpoint(folder / "theirs", 7))
    export(weights, "mae", str(folder / "weights.pth"))
    return {
        "IMAGES": str(folder / "images"),
        "LABELLED": str(folder / "images"),
        "WEIGHTS": str(folder / "weights.pth"),
    }
