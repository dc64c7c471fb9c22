"""The training speed of one device: the usual loop, then this project's optimizations, added one by one.

    make bench-train      (or: python -m benchmarks.train_speed [--model NAME] [--batch N] [--micro M] ...)

On a GPU it is the paper's step: ViT-L with a batch of 1,792. On a CPU it is ViT-B with 8. Every rung runs in
its own process, so that its memory can be measured. Each round runs all rungs in turn; the result is the
median of all steps. Every rung computes the same loss on the same images, which is checked.

Utilisation is the model's operations (forward and backward, a multiply-add as two, without recomputation)
over the rate of a large matrix product on the same device in the same process and precision. Memory is the
peak in a step: of the GPU's allocator, or of resident memory minus that of the process before it had a model.
A table of the slowest operators is written beside the results.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from benchmarks.report import Row, finish, median_of
from benchmarks.train_ladder import Rung, climb
from retfound_dist.config.schema import Model, PackConfig, PackOut, Phantom, Source

ROOT = Path(__file__).resolve().parent.parent
TOLERANCE = {"fp32": 1e-4, "autocast": 2e-2, "bf16": 2e-2}
"""Largest relative difference of a rung's first losses from those of the first rung."""


def arguments() -> argparse.Namespace:
    """The command line; the defaults depend on the device."""
    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="vit_large_patch16" if gpu else "vit_base_patch16")
    parser.add_argument("--batch", type=int, default=1792 if gpu else 8)
    parser.add_argument("--micro", type=int, default=128 if gpu else 8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steps", type=int, default=5 if gpu else 4)
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    parser.add_argument("--only", default="", help="only rungs whose label contains this, and the first")
    return parser.parse_args()


def shards(folder: str) -> str:
    """Pack a generated shard set, with the size of OCT scans."""
    from shards.pack import pack

    eyes = Phantom(patients=64, slices=16, height=496, width=512)
    config = PackConfig(source=Source(kind="phantom"), phantom=eyes, out=PackOut(url=f"{folder}/shards"))
    pack(config)
    return f"{folder}/shards"


def run_rung(rung: Rung, args: argparse.Namespace, folder: str, trace: str) -> dict[str, Any]:
    """Run one rung once; returns its results, or its fault."""
    spec = {
        "rung": asdict(rung),
        "model": asdict(Model(name=args.model)),
        "batch": args.batch,
        "micro": args.micro,
        "steps": args.steps,
        "warm_up": 2,
        "threads": args.threads,
        "workers": max(1, (os.cpu_count() or 1) - 1),
        "shards": f"{folder}/shards",
        "trace": trace,
    }
    spec_file, result_file = Path(folder, "spec.json"), Path(folder, "answer.json")
    spec_file.write_text(json.dumps(spec))
    result_file.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.train_rank", str(spec_file), str(result_file)]
    completed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    if not result_file.exists():
        reason = (completed.stderr.strip().splitlines() or ["no message"])[-1]
        return {"fault": "out of memory" if "out of memory" in completed.stderr else reason[:120]}
    result: dict[str, Any] = json.loads(result_file.read_text())
    return result


def check_losses(label: str, losses: list[float], first: list[float], bound: float) -> None:
    """AssertionError where a rung's losses are not those of the first rung."""
    off = max(abs(a - b) / b for a, b in zip(losses, first, strict=False))
    if not off < bound:
        raise AssertionError(f"{label}: losses {losses} are not those of the usual loop, {first}")


def rate(result: dict[str, Any], rung: Rung) -> float:
    """Operations per second of a matrix product in a rung's precision."""
    return float(result["rate"]["torch.float32" if rung.precision == "fp32" else "torch.bfloat16"])


def main() -> None:
    """Run all rungs and print the table."""
    args, console = arguments(), Console(stderr=True)
    gpu = torch.cuda.is_available()
    rungs = climb(gpu, args.micro)
    rungs = [rung for rung in rungs if rung is rungs[0] or args.only in rung.label]
    results: dict[str, list[dict[str, Any]]] = {rung.label: [] for rung in rungs}
    first: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        if any(rung.shards for rung in rungs):
            shards(folder)
        for number in range(args.rounds):
            for rung in rungs:
                last = number == args.rounds - 1 and rung.label == "ours, bf16, ZeRO 1"
                result = run_rung(rung, args, folder, f"{folder}/trace" if last else "")
                text = result.get("fault") or f"{statistics.median(result['seconds']):.3f} s a step"
                console.print(f"[dim]round {number + 1}: {rung.label}: {text}[/]", highlight=False)
                if "fault" not in result and not rung.shards:
                    first = first or result["losses"]
                    count = 3 if rung.precision == "fp32" else 1  # bf16 weights move in steps of their own
                    check_losses(rung.label, result["losses"][:count], first, TOLERANCE[rung.precision])
                results[rung.label].append(result)
        table = Path(folder, "trace")
        text = table.read_text() if table.exists() else ""
    if all("fault" in result for each in results.values() for result in each):
        sys.exit(f"no rung could be run: {results[rungs[0].label][0]['fault']}")
    path = report(rungs, results, args)
    if text:
        path.with_suffix(".operators.txt").write_text(text)


def report(rungs: list[Rung], results: dict[str, list[dict[str, Any]]], args: argparse.Namespace) -> Path:
    """Print the table and write the results."""
    rows, median, memory = [], {}, {}
    table = Table("", "images/s", "step, s", "utilisation", "memory, GB", "first steps, s")
    for rung in rungs:
        good = [result for result in results[rung.label] if "fault" not in result]
        if not good:
            table.add_row(rung.label, results[rung.label][0]["fault"])
            continue
        seconds = [each for result in good for each in result["seconds"]]
        speed = [args.batch / each for each in seconds]
        median[rung.label] = statistics.median(speed)
        memory[rung.label] = max(result["peak"] for result in good) / 1e9
        share = (
            median[rung.label] * good[0]["flops"] / statistics.median(rate(result, rung) for result in good)
        )
        rows += [
            median_of(rung.label, speed, "images/s", 2),
            median_of(f"{rung.label}: step", seconds, "s", 3),
            Row(f"{rung.label}: utilisation", round(share, 3), "of the matrix rate"),
            Row(f"{rung.label}: memory", round(memory[rung.label], 2), "GB"),
        ]
        table.add_row(
            rung.label,
            f"{median[rung.label]:,.2f}" if median[rung.label] < 100 else f"{median[rung.label]:,.0f}",
            f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})",
            f"{share:.0%}",
            f"{memory[rung.label]:.2f}",
            f"{max(result['first_s'] for result in good):.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(table)
    rates = [result["rate"] for each in results.values() for result in each if "fault" not in result]
    for kind in ("torch.float32", "torch.bfloat16") if rates else ():
        found_rates = [each[kind] / 1e12 for each in rates]
        rows.append(median_of(f"matrix product, {kind.removeprefix('torch.')}", found_rates, "TFLOP/s", 2))
    where = f" on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return finish(
        "train",
        f"{args.model}, {args.batch} images a step{where}, {args.rounds} rounds of {args.steps} steps",
        rows,
        ratios(median, memory),
        ("torch", "deepspeed", "timm"),
    )


def ratios(speed: dict[str, float], memory: dict[str, float]) -> dict[str, float]:
    """The compared rungs as ratios of medians; without rungs that did not run."""
    pairs = {
        "ours_vs_usual": ("ours, bf16, ZeRO 1", "usual loop"),
        "ours_fp32_vs_usual": ("ours, fp32, ZeRO 1", "usual loop"),
        "ours_vs_usual_autocast": ("ours, bf16, ZeRO 1", "usual loop in bf16 autocast"),
        "plain_fp32_vs_usual": ("+ torch.compile", "usual loop"),
        "plain_bf16_vs_usual": ("+ weights in bf16, plain loop", "usual loop"),
        "ours_vs_plain_bf16": ("ours, bf16, ZeRO 1", "+ weights in bf16, plain loop"),
        "ours_vs_deepspeed": ("ours, bf16, ZeRO 1", "DeepSpeed unpatched, bf16, ZeRO 1"),
        "ours_fp32_vs_deepspeed": ("ours, fp32, ZeRO 1", "DeepSpeed unpatched, fp32, ZeRO 1"),
        "deepspeed_fp32_vs_usual": ("DeepSpeed unpatched, fp32, ZeRO 1", "usual loop"),
        "shards_vs_synthetic": ("ours, fed from shards", "ours, bf16, ZeRO 1"),
    }
    result = {k: speed[a] / speed[b] for k, (a, b) in pairs.items() if a in speed and b in speed}
    for label, key in (("ours, bf16, ZeRO 1", "bf16"), ("ours, fp32, ZeRO 1", "fp32")):
        if label in memory and "usual loop" in memory:
            result[f"memory_{key}_vs_usual"] = memory[label] / memory["usual loop"]
    return {k: round(v, 3) for k, v in result.items() if math.isfinite(v)}


if __name__ == "__main__":
    main()
