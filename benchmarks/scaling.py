"""How a run would scale: two ranks held against the model of `plan/forecast.py`, then its numbers.

    make bench-scaling         (or: python -m benchmarks.scaling)

Measured: the trainer's own step at ZeRO 1, 2 and 3 on one rank, two, and as many as there are GPUs (a small
ViT on a CPU, gloo; a ViT-L on GPUs, NCCL), in interleaved rounds; and, over gloo, the bytes each rank sends.
The model learns the speed of a rank from one rank and the speed of the link from a bare collective; what it
then says of more ranks is held against the measurement: medians, and the fastest steps, which other
processes hardly touch. Predicted: the paper's preset on 1 to 256 GPUs, and what failures leave of it.
Datasheet numbers and what is assumed are printed.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.report import Row, finish, median_of
from benchmarks.scaling_paper import predictions
from benchmarks.scaling_rank import PAYLOAD, STAGES
from retfound_dist.plan.forecast import (
    PASS_BYTES,
    STEP_BYTES,
    UPDATE_BYTES,
    Machine,
    Shape,
    StepTime,
    Work,
    forecast,
)

ROOT = Path(__file__).resolve().parent.parent
Pick = Callable[[Sequence[float]], float]
PICKS: dict[str, Pick] = {"median": statistics.median, "fastest": min}
"""How steps become one number; what else runs on the machine hardly touches the fastest."""


def measure(ranks: int, steps: int) -> dict[str, Any]:
    """What one start of `benchmarks.scaling_rank` found."""
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if not torch.cuda.is_available():
        env["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "found.json"
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [sys.executable, *start, "-m", "benchmarks.scaling_rank", str(out), str(steps)]
        done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
        if not out.exists():
            sys.exit(f"{' '.join(command)} failed:\n{done.stderr[-4000:]}")
        found: dict[str, Any] = json.loads(out.read_text())
        return found


def rounds_of(most: int, rounds: int, steps: int) -> dict[int, dict[str, Any]]:
    """What 1, 2 and `most` ranks measured, in turns; the steps of all rounds together."""
    counts = [n for n in sorted({1, 2, most}) if n <= most]
    merged: dict[int, dict[str, Any]] = {}
    for _ in range(rounds):
        for n in counts:
            found = measure(n, steps)
            if n not in merged:
                merged[n] = found
                continue
            for stage, kinds in found["stages"].items():
                for kind, values in kinds.items():
                    merged[n]["stages"][stage][kind] += values
            for name, link in found["links"].items():
                merged[n]["links"][name]["seconds"] += link["seconds"]
    return merged


def calibrated(found: dict[int, dict[str, Any]], ranks: int, stage: int, pick: Pick) -> Machine:
    """This machine: the speed of a rank from one rank, that of the link from the bare collective."""
    one, link = found[1], found[ranks]["links"]
    kinds = one["stages"][str(stage)]
    update, whole = pick(kinds["update"]), pick(kinds["seconds"])
    copied = one["accumulation"] * PASS_BYTES[stage] + STEP_BYTES[stage]
    passes = whole - update * (1 + copied / UPDATE_BYTES)
    reduce, scatter = link["all_reduce"], link["reduce_scatter"]
    all_reduces = one["bytes_counted"] and scatter["sent_per_byte"] > 0.75 * reduce["sent_per_byte"]
    seconds = pick((scatter if stage == 3 else reduce)["seconds"])
    sent = (1 if stage == 3 and not all_reduces else 2) * (ranks - 1) / ranks * PAYLOAD * 4
    return Machine(
        flops=one["accumulation"] * one["micro"] * one["flops_per_image"] / passes,
        memory_rate=UPDATE_BYTES * one["parameters"] / update,
        devices_per_node=ranks,
        inside_rate=sent / seconds,
        outside_rate=sent / seconds,
        scatter_by_all_reduce=all_reduces,
    )


def predicted(found: dict[int, dict[str, Any]], ranks: int, stage: int, pick: Pick) -> StepTime:
    """What the model says of so many ranks here."""
    here = found[ranks]
    work = Work(here["parameters"], here["flops_per_image"], here["global_batch"], here["small_parameters"])
    shape = Shape(ranks, here["micro"], here["accumulation"], stage)
    return forecast(work, shape, calibrated(found, ranks, stage, pick))


def compared(found: dict[int, dict[str, Any]]) -> tuple[list[Row], dict[str, float]]:
    """Measured beside predicted, one block for each number of ranks."""
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for ranks, here in found.items():
        name = f"{ranks} rank{'s' * (ranks > 1)}"
        for stage in STAGES:
            label, kinds = f"{name}, ZeRO {stage}", here["stages"][str(stage)]
            rows.append(median_of(f"{label}: step", kinds["seconds"], "s", 3))
            if ranks == 1:
                continue
            key = f"zero{stage}_{ranks}_ranks"
            for how, pick in PICKS.items():
                said = predicted(found, ranks, stage, pick)
                rows.append(Row(f"{label}: {how} step, predicted", round(said.step_s, 3), "s", parts(said)))
                ratios[f"{how}_predicted_vs_measured_{key}"] = round(said.step_s / pick(kinds["seconds"]), 3)
            if here["bytes_counted"]:
                rows.append(median_of(f"{label}: sent", [b / 1e6 for b in kinds["sent"]], "MB", 2))
                rows.append(Row(f"{label}: sent, predicted", round(said.sent_bytes / 1e6, 2), "MB"))
                share = said.sent_bytes / statistics.median(kinds["sent"])
                ratios[f"sent_predicted_vs_measured_{key}"] = round(share, 4)
        for call, link in here["links"].items():
            row = median_of(f"{name}: {call} of 64 MB", link["seconds"], "s", 3)
            counted = f"; {link['sent_per_byte']:.3f} bytes sent for one" if here["bytes_counted"] else ""
            rows.append(Row(row.label, row.value, row.unit, row.spread + counted))
    return rows, ratios


def parts(step: StepTime) -> str:
    """Where a predicted step's time goes."""
    own = step.update_s + step.copying_s
    return f"passes {step.compute_s:.3f}, memory {own:.3f}, sending {step.exposed_s:.3f}"


def main() -> None:
    """Measure, compare, predict, print."""
    args = parse()
    found = rounds_of(args.ranks, args.rounds, args.steps)
    rows, ratios = compared(found)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    for part in predictions():
        console.print(part)
    one = found[1]
    size = f"{one['model']}, {one['parameters'] / 1e6:.1f} M parameters, {one['global_batch']} images a step"
    title = f"Measured: {size}, passes of {one['micro']}; {args.rounds} rounds of {args.steps} steps"
    finish("scaling", title, rows, ratios, ("torch", "deepspeed"))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count() or 2, help="at most so many")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="steps of each stage a round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
