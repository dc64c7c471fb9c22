"""How a run scales: compares measured ranks with the model of `plan/forecast.py`, then prints predictions.

    make bench-scaling         (or: python -m benchmarks.scaling)

Measured: the trainer's own step at ZeRO 1, 2 and 3 on one rank, on two, and on all GPUs (a small ViT on a CPU
with gloo; a ViT-L on GPUs with NCCL), in interleaved rounds; and, with gloo, the bytes that each rank sends.
The model takes the speed of a rank from one rank, and the speed of the link from a single collective. Its
predictions for more ranks are compared with the measurement: by the median, and by the fastest steps, which
other processes hardly affect. Predicted: the paper's preset on 1 to 256 GPUs, and its goodput with failures.
All datasheet numbers and assumptions are printed.
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
"""How many step times become one number. Other processes hardly affect the fastest."""


def measure(ranks: int, steps: int) -> dict[str, Any]:
    """The results of one start of `benchmarks.scaling_rank`."""
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    if not torch.cuda.is_available():
        env["OMP_NUM_THREADS"] = "1"
    with tempfile.TemporaryDirectory() as scratch:
        out = Path(scratch) / "found.json"
        start = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(ranks)]
        command = [sys.executable, *start, "-m", "benchmarks.scaling_rank", str(out), str(steps)]
        completed = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env=env, check=False)
        if not out.exists():
            sys.exit(f"{' '.join(command)} failed:\n{completed.stderr[-4000:]}")
        measured: dict[str, Any] = json.loads(out.read_text())
        return measured


def rounds_of(max_ranks: int, rounds: int, steps: int) -> dict[int, dict[str, Any]]:
    """Results of 1, 2 and `max_ranks` ranks, measured in turns, with the steps of all rounds."""
    counts = [n for n in sorted({1, 2, max_ranks}) if n <= max_ranks]
    merged: dict[int, dict[str, Any]] = {}
    for _ in range(rounds):
        for n in counts:
            measured = measure(n, steps)
            if n not in merged:
                merged[n] = measured
                continue
            for stage, kinds in measured["stages"].items():
                for kind, values in kinds.items():
                    merged[n]["stages"][stage][kind] += values
            for name, link in measured["links"].items():
                merged[n]["links"][name]["seconds"] += link["seconds"]
    return merged


def calibrated(measured: dict[int, dict[str, Any]], ranks: int, stage: int, pick: Pick) -> Machine:
    """This machine, with the speed of a rank from one rank and the speed of the link from a collective."""
    single_rank, link = measured[1], measured[ranks]["links"]
    kinds = single_rank["stages"][str(stage)]
    update, step_s = pick(kinds["update"]), pick(kinds["seconds"])
    copied = single_rank["accumulation"] * PASS_BYTES[stage] + STEP_BYTES[stage]
    passes = step_s - update * (1 + copied / UPDATE_BYTES)
    reduce, scatter = link["all_reduce"], link["reduce_scatter"]
    all_reduces = single_rank["bytes_counted"] and scatter["sent_per_byte"] > 0.75 * reduce["sent_per_byte"]
    seconds = pick((scatter if stage == 3 else reduce)["seconds"])
    sent = (1 if stage == 3 and not all_reduces else 2) * (ranks - 1) / ranks * PAYLOAD * 4
    return Machine(
        flops=single_rank["accumulation"] * single_rank["micro"] * single_rank["flops_per_image"] / passes,
        memory_rate=UPDATE_BYTES * single_rank["parameters"] / update,
        devices_per_node=ranks,
        inside_rate=sent / seconds,
        outside_rate=sent / seconds,
        scatter_by_all_reduce=all_reduces,
    )


def predicted(measured: dict[int, dict[str, Any]], ranks: int, stage: int, pick: Pick) -> StepTime:
    """The model's prediction for so many ranks on this machine."""
    these_ranks = measured[ranks]
    work = Work(
        these_ranks["parameters"],
        these_ranks["flops_per_image"],
        these_ranks["global_batch"],
        these_ranks["small_parameters"],
    )
    shape = Shape(ranks, these_ranks["micro"], these_ranks["accumulation"], stage)
    return forecast(work, shape, calibrated(measured, ranks, stage, pick))


def compared(measured: dict[int, dict[str, Any]]) -> tuple[list[Row], dict[str, float]]:
    """Measured and predicted values, one block for each number of ranks."""
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for ranks, these_ranks in measured.items():
        name = f"{ranks} rank{'s' * (ranks > 1)}"
        for stage in STAGES:
            label, kinds = f"{name}, ZeRO {stage}", these_ranks["stages"][str(stage)]
            rows.append(median_of(f"{label}: step", kinds["seconds"], "s", 3))
            if ranks == 1:
                continue
            key = f"zero{stage}_{ranks}_ranks"
            for pick_name, pick in PICKS.items():
                prediction = predicted(measured, ranks, stage, pick)
                rows.append(
                    Row(
                        f"{label}: {pick_name} step, predicted",
                        round(prediction.step_s, 3),
                        "s",
                        parts(prediction),
                    )
                )
                ratios[f"{pick_name}_predicted_vs_measured_{key}"] = round(
                    prediction.step_s / pick(kinds["seconds"]), 3
                )
            if these_ranks["bytes_counted"]:
                rows.append(median_of(f"{label}: sent", [b / 1e6 for b in kinds["sent"]], "MB", 2))
                rows.append(Row(f"{label}: sent, predicted", round(prediction.sent_bytes / 1e6, 2), "MB"))
                share = prediction.sent_bytes / statistics.median(kinds["sent"])
                ratios[f"sent_predicted_vs_measured_{key}"] = round(share, 4)
        for call, link in these_ranks["links"].items():
            row = median_of(f"{name}: {call} of 64 MB", link["seconds"], "s", 3)
            counted = (
                f"; {link['sent_per_byte']:.3f} bytes sent for one" if these_ranks["bytes_counted"] else ""
            )
            rows.append(Row(row.label, row.value, row.unit, row.spread + counted))
    return rows, ratios


def parts(step: StepTime) -> str:
    """The parts of a predicted step's time."""
    own = step.update_s + step.copying_s
    return f"passes {step.compute_s:.3f}, memory {own:.3f}, sending {step.exposed_s:.3f}"


def main() -> None:
    """Measure, compare, predict, print."""
    args = parse()
    measured = rounds_of(args.ranks, args.rounds, args.steps)
    rows, ratios = compared(measured)
    console = Console(width=None if sys.stdout.isatty() else 110, highlight=False)
    for part in predictions():
        console.print(part)
    single_rank = measured[1]
    size = f"{single_rank['model']}, {single_rank['parameters'] / 1e6:.1f} M parameters"
    size += f", {single_rank['global_batch']} images a step"
    title = f"Measured: {size}, passes of {single_rank['micro']}; {args.rounds} rounds of {args.steps} steps"
    finish("scaling", title, rows, ratios, ("torch", "deepspeed"))


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--ranks", type=int, default=torch.cuda.device_count() or 2, help="most ranks")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=3, help="steps of each stage a round")
    return parser.parse_args()


if __name__ == "__main__":
    main()
