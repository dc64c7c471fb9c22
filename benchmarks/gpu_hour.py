"""The first hour on GPUs: every measurement that needs one, in pieces that go on where they were stopped.

    make bench-gpu             (or: python -m benchmarks.gpu_hour [--out runs/gpu_hour] [--small] [--one])

    shards       generated B-scans of the size of real ones, packed
    doctor       `retfound doctor` with the paper's preset, on all GPUs of this host
    train        `make bench-train`: ViT-L at a batch of 1,792, the optimizations one by one
    loader       `make bench-stream`: images per second from shards
    checkpoint   `make bench-checkpoint`: how long a save stops the training
    help         `make bench-pretraining` with its preset for GPUs, where its images are

Each piece is one command of this repository, and is ended after 9.5 minutes. What is finished is noted in
OUT/pieces.json, so the same command goes on with the next piece; `--one` runs one piece and ends. It needs no
network. `--small` tries all pieces on a CPU, with small models. Each piece records its own results; this one
records how long the pieces took.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.report import Row, finish
from tests import ROOT

PIECE_S = 570.0
"""Seconds of a piece: machines are lent for ten minutes at a time."""
STOP_S = 20.0
"""Seconds that a piece has to end after Ctrl-C."""
PIECES_FILE = "pieces.json"


@dataclass(frozen=True)
class Piece:
    """One command."""

    name: str
    command: Sequence[str]
    ok: Sequence[int] = (0,)
    """Exit codes with which it is finished: the doctor's 1 is a result."""


def pieces(out: Path, small: bool, images: Path | None) -> list[Piece]:
    """All pieces in order. `images`: the folder of OCTDL; None: `help` is left out."""
    python = [sys.executable, "-m"]
    shards, gpus = out / "shards", torch.cuda.device_count()
    size = (
        ["phantom.patients=20"]
        if small
        else ["phantom.patients=1000", "phantom.height=496", "phantom.width=512"]
    )
    config = "configs/demo/pretrain.toml" if small else "configs/pretrain_vitl_oct.toml"
    launcher = (
        ["torch.distributed.run", "--standalone", "--nproc-per-node", str(gpus), "-m"] if gpus > 1 else []
    )
    pack = ["retfound_dist", "pack", "configs/demo/pack.toml"]
    doctor = [*python, *launcher, "retfound_dist", "doctor", config]
    train = ["--model", "vit_demo_patch14", "--batch", "8", "--rounds", "1", "--steps", "2"] if small else []
    loader = ["--rounds", "1", "--batches", "2"] if small else []
    found = [
        Piece("shards", [*python, *pack, f"out.url={shards}", *size]),
        Piece(
            "doctor",
            [
                *doctor, f"data.shards={shards}", f"run.url={out / 'run'}", f"--html={out / 'doctor.html'}",
                *(["--minutes=0.2"] if small else []),
            ],
            ok=(0, 1),
        ),
        Piece("train", [*python, "benchmarks.train_speed", *train]),
        Piece("loader", [*python, "benchmarks.stream_throughput", *loader]),
        Piece("checkpoint", [*python, "benchmarks.checkpoint_stall"]),
    ]  # fmt: skip
    if images:
        preset = "cpu" if small else "gpu"
        command = ["benchmarks.does_pretraining_help", f"--preset={preset}", f"--images={images}"]
        found.append(Piece("help", [*python, *command, f"--out={out / 'help'}"]))
    return found


def run_piece(piece: Piece, longest_s: float) -> dict[str, Any]:
    """Run a piece to its end or its time; gives its entry of pieces.json."""
    print(f"== {piece.name}: {' '.join(piece.command[1:])}", flush=True)
    began = time.monotonic()
    # A group of its own, to reach the processes that it starts.
    process = subprocess.Popen(piece.command, cwd=ROOT, start_new_session=True)
    try:
        code: int | None = process.wait(longest_s)
    except BaseException as error:
        end_group(process)
        if not isinstance(error, subprocess.TimeoutExpired):
            raise
        code = None
    status = "unfinished" if code is None else "finished" if code in piece.ok else "failed"
    return {"status": status, "exit": code, "seconds": round(time.monotonic() - began, 1)}


def end_group(process: subprocess.Popen[bytes]) -> None:
    """End a process and all that it has started: first by Ctrl-C, so that it can save."""
    for number in (signal.SIGINT, signal.SIGKILL):
        try:
            os.killpg(process.pid, number)
        except ProcessLookupError:
            return
        try:
            process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            continue


def run_all(every: Sequence[Piece], out: Path, *, one: bool, longest_s: float = PIECE_S) -> dict[str, Any]:
    """Run the pieces that are not finished; with `one` only the next of them. Gives all entries."""
    out.mkdir(parents=True, exist_ok=True)
    file = out / PIECES_FILE
    entries: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    for piece in every:
        if entries.get(piece.name, {}).get("status") == "finished":
            continue
        entries[piece.name] = run_piece(piece, longest_s)
        draft = file.with_suffix(".draft")
        draft.write_text(json.dumps(entries, indent=1))
        draft.replace(file)
        if one:
            break
    return entries


def rows_of(every: Sequence[Piece], entries: Mapping[str, Any]) -> list[Row]:
    """A line for each piece."""
    missing = {"status": "not begun", "seconds": 0.0}
    return [
        Row(piece.name, entry["seconds"], "s", entry["status"])
        for piece in every
        for entry in [entries.get(piece.name, missing)]
    ]


def main() -> None:
    """Run the pieces and record them; exit 1 where one is not finished."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("runs/gpu_hour"))
    parser.add_argument("--small", action="store_true", help="small models on a CPU, to try the pieces")
    parser.add_argument("--one", action="store_true", help="run the next piece, and end")
    chosen = parser.parse_args()
    images = Path(os.environ.get("RETFOUND_TEST_DATA", ROOT.parent / "shared" / "data")) / "octdl"
    # On a CPU it takes an hour, which is not a trial.
    with_help = images.is_dir() and not chosen.small
    if not with_help:
        print(f"help is left out: {'--small' if chosen.small else f'there are no images in {images}'}")
    every = pieces(chosen.out.resolve(), chosen.small, images if with_help else None)
    entries = run_all(every, chosen.out, one=chosen.one)
    finish("gpu-hour", "the first hour on GPUs", rows_of(every, entries), {}, ("torch", "deepspeed"))
    if any(entries.get(piece.name, {}).get("status") != "finished" for piece in every):
        sys.exit("not everything is finished: the same command goes on")


if __name__ == "__main__":
    main()
