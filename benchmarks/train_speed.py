"""How fast one device trains: the usual loop, then this project's savings, one after the other.

    make bench-train      (or: python -m benchmarks.train_speed [--model NAME] [--batch N] [--micro M] ...)

On a GPU the paper's step: ViT-L at a batch of 1,792. On a CPU ViT-B at 8. Every rung runs in a process of its
own (so that its memory is its own), all rungs one after the other in each round, some rounds; the number is
the median of all steps. Every rung computes the same loss on the same images: that is checked here.

Utilisation is the model's operations (forward and backward, multiply-add as two, what is computed again left
out) over what a large matrix product reaches on the same device in the same process, in the precision the
rung multiplies in. Memory is the peak in a step: of the GPU's allocator, or of resident memory beyond what
the process held before it had a model. Beside the results lies a table of the operators that took most.
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
ALIKE = {"fp32": 1e-4, "autocast": 2e-2, "bf16": 2e-2}
"""How far a rung's first losses may be from the first rung's, over them."""


def arguments() -> argparse.Namespace:
    """What was asked for; defaults follow the device."""
    gpu = torch.cuda.is_available()
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--model", default="vit_large_patch16" if gpu else "vit_base_patch16")
    ask.add_argument("--batch", type=int, default=1792 if gpu else 8)
    ask.add_argument("--micro", type=int, default=128 if gpu else 8)
    ask.add_argument("--rounds", type=int, default=3)
    ask.add_argument("--steps", type=int, default=5 if gpu else 4)
    ask.add_argument("--threads", type=int, default=0, help="CPU threads; 0: all cores")
    ask.add_argument("--only", default="", help="rungs whose label holds this, and the first")
    return ask.parse_args()


def shards(folder: str) -> str:
    """A phantom's shard set, made here, of the size that OCT scans have."""
    from shards.pack import pack

    eyes = Phantom(patients=64, slices=16, height=496, width=512)
    config = PackConfig(source=Source(kind="phantom"), phantom=eyes, out=PackOut(url=f"{folder}/shards"))
    pack(config)
    return f"{folder}/shards"


def run_rung(rung: Rung, asked: argparse.Namespace, folder: str, trace: str) -> dict[str, Any]:
    """One rung, once; its own report, or why there is none."""
    spec = {
        "rung": asdict(rung),
        "model": asdict(Model(name=asked.model)),
        "batch": asked.batch,
        "micro": asked.micro,
        "steps": asked.steps,
        "warm_up": 2,
        "threads": asked.threads,
        "workers": max(1, (os.cpu_count() or 1) - 1),
        "shards": f"{folder}/shards",
        "trace": trace,
    }
    given, answer = Path(folder, "spec.json"), Path(folder, "answer.json")
    given.write_text(json.dumps(spec))
    answer.unlink(missing_ok=True)
    command = [sys.executable, "-m", "benchmarks.train_rank", str(given), str(answer)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env={**os.environ})
    if not answer.exists():
        reason = (done.stderr.strip().splitlines() or ["no word"])[-1]
        return {"fault": "out of memory" if "out of memory" in done.stderr else reason[:120]}
    found: dict[str, Any] = json.loads(answer.read_text())
    return found


def check_alike(label: str, losses: list[float], first: list[float], bound: float) -> None:
    """AssertionError unless a rung's losses are those of the first that ran."""
    off = max(abs(a - b) / b for a, b in zip(losses, first, strict=False))
    if not off < bound:
        raise AssertionError(f"{label}: losses {losses} are not those of the usual loop, {first}")


def rate(found: dict[str, Any], rung: Rung) -> float:
    """Operations a second of a matrix product in a rung's precision."""
    return float(found["rate"]["torch.float32" if rung.precision == "fp32" else "torch.bfloat16"])


def main() -> None:
    """Climb, and print the table."""
    asked, console = arguments(), Console(stderr=True)
    gpu = torch.cuda.is_available()
    rungs = climb(gpu, asked.micro)
    rungs = [rung for rung in rungs if rung is rungs[0] or asked.only in rung.label]
    held: dict[str, list[dict[str, Any]]] = {rung.label: [] for rung in rungs}
    first: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        if any(rung.shards for rung in rungs):
            shards(folder)
        for number in range(asked.rounds):
            for rung in rungs:
                last = number == asked.rounds - 1 and rung.label == "ours, bf16, ZeRO 1"
                found = run_rung(rung, asked, folder, f"{folder}/trace" if last else "")
                text = found.get("fault") or f"{statistics.median(found['seconds']):.3f} s a step"
                console.print(f"[dim]round {number + 1}: {rung.label}: {text}[/]", highlight=False)
                if "fault" not in found and not rung.shards:
                    first = first or found["losses"]
                    count = 3 if rung.precision == "fp32" else 1  # bf16 weights move in steps of their own
                    check_alike(rung.label, found["losses"][:count], first, ALIKE[rung.precision])
                held[rung.label].append(found)
        table = Path(folder, "trace")
        text = table.read_text() if table.exists() else ""
    if all("fault" in found for each in held.values() for found in each):
        sys.exit(f"no rung could be run: {held[rungs[0].label][0]['fault']}")
    path = report(rungs, held, asked)
    if text:
        path.with_suffix(".operators.txt").write_text(text)


def report(rungs: list[Rung], held: dict[str, list[dict[str, Any]]], asked: argparse.Namespace) -> Path:
    """The table for a person and the file for the record."""
    rows, median, memory = [], {}, {}
    shown = Table("", "images/s", "step, s", "utilisation", "memory, GB", "first steps, s")
    for rung in rungs:
        good = [found for found in held[rung.label] if "fault" not in found]
        if not good:
            shown.add_row(rung.label, held[rung.label][0]["fault"])
            continue
        seconds = [each for found in good for each in found["seconds"]]
        speed = [asked.batch / each for each in seconds]
        median[rung.label] = statistics.median(speed)
        memory[rung.label] = max(found["peak"] for found in good) / 1e9
        share = median[rung.label] * good[0]["flops"] / statistics.median(rate(found, rung) for found in good)
        rows += [
            median_of(rung.label, speed, "images/s", 2),
            median_of(f"{rung.label}: step", seconds, "s", 3),
            Row(f"{rung.label}: utilisation", round(share, 3), "of the matrix rate"),
            Row(f"{rung.label}: memory", round(memory[rung.label], 2), "GB"),
        ]
        shown.add_row(
            rung.label,
            f"{median[rung.label]:,.2f}" if median[rung.label] < 100 else f"{median[rung.label]:,.0f}",
            f"{statistics.median(seconds):.3f} ({min(seconds):.3f} to {max(seconds):.3f})",
            f"{share:.0%}",
            f"{memory[rung.label]:.2f}",
            f"{max(found['first_s'] for found in good):.0f}",
        )
    Console(width=None if sys.stdout.isatty() else 120).print(shown)
    rates = [found["rate"] for each in held.values() for found in each if "fault" not in found]
    for kind in ("torch.float32", "torch.bfloat16") if rates else ():
        found_rates = [each[kind] / 1e12 for each in rates]
        rows.append(median_of(f"matrix product, {kind.removeprefix('torch.')}", found_rates, "TFLOP/s", 2))
    where = f" on {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return finish(
        "train",
        f"{asked.model}, {asked.batch} images a step{where}, {asked.rounds} rounds of {asked.steps} steps",
        rows,
        ratios(median, memory),
        ("torch", "deepspeed", "timm"),
    )


def ratios(speed: dict[str, float], memory: dict[str, float]) -> dict[str, float]:
    """What is claimed, as ratios of medians; what did not run is left out."""
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
    found = {k: speed[a] / speed[b] for k, (a, b) in pairs.items() if a in speed and b in speed}
    for label, key in (("ours, bf16, ZeRO 1", "bf16"), ("ours, fp32, ZeRO 1", "fp32")):
        if label in memory and "usual loop" in memory:
            found[f"memory_{key}_vs_usual"] = memory[label] / memory["usual loop"]
    return {k: round(v, 3) for k, v in found.items() if math.isfinite(v)}


if __name__ == "__main__":
    main()
