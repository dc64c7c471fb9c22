"""The memory of packing: plan and manifest of 1.6 million images, and pixels, which must not accumulate.

    python -m benchmarks.pack_memory [--rows 1600000] [--images 400]

Rows: a list of so many files (names like OCT2017's, 3,200 patients) is processed as by `retfound pack`: keys,
plan, records of shards, duplicates, near duplicates, manifest. Only the images are replaced by ten bytes.
Pixels: 1000x1000 images, a quarter of them and all of them, are packed by one process. Each measurement is
the highest resident memory of its own process.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Row, finish
from retfound_dist.config.schema import PackConfig, PackOut, Source, Split
from retfound_dist.io import storage
from shards.pack import pack
from shards.planning.pack_plan import make_plan
from shards.sources.folders.folder import scans_of_files
from shards.write.manifest import make_manifest
from shards.write.packed_sample import PackedSample
from shards.write.shard_writer import ShardWriter

PATIENTS, ROWS_A_SHARD, SIDE = 3_200, 10_000, 1_000
LIMIT = 1e9
"""The limit for 1.6 million rows, in bytes."""


def names(count: int) -> Iterator[tuple[str, int | None]]:
    """(file, bytes) of a listing."""
    for number in range(count):
        label = ("CNV", "DME", "DRUSEN", "NORMAL")[number % 4]
        name = f"{label}-{1_000_000 + number % PATIENTS}-{number // PATIENTS}.jpeg"
        yield f"scans/{label}/{name}", 60_000 + number


def digest(place: int, kind: int) -> int:
    """64 bits that are unique to a scan."""
    return (4 * place + kind) * 0x9E3779B97F4A7C15 % 2**64


def plan_rows(count: int, folder: str) -> None:
    """Plan and manifest of so many rows, as `retfound pack` makes them."""
    out = PackOut(url=f"{folder}/set", shard_mb=10 * ROWS_A_SHARD / 1e6)
    config = PackConfig(out=out, split=Split(fractions=(0.8, 0.1, 0.1)))
    plan = make_plan(scans_of_files("/data", "/data", names(count), name="many"), config)
    histogram, rng = np.ones(256, np.uint32), np.random.default_rng(0)
    with ShardWriter(config.out, plan, folder, ()) as writer:
        for place, scan in enumerate(plan.scans):
            writer.add_result(
                place,
                PackedSample(
                    scan.key, "jpg", b"0123456789", 10, "0" * 16, 0, (None, None, None), 496, 512, True, True,
                    None, histogram, digest=digest(place, 1),
                    source_digests=(digest(place, 2), digest(place, 3)), difference_hash=rng.bytes(32),
                ),
            )  # fmt: skip
        writer.commit(count)
    tree = make_manifest(plan, config, writer.shards, writer.skipped)
    storage.write_json(f"{folder}/manifest.json", tree)
    assert tree["samples"] == count


def pack_pixels(count: int, folder: str) -> None:
    """Pack the large images that `draw_images` made."""
    out = PackOut(url=f"{folder}/set{count}", workers=1, shard_mb=16)
    assert pack(PackConfig(source=Source(path=f"{folder}/images{count}"), out=out)).samples == count


def draw_images(count: int, folder: str) -> None:
    """Images of noise, SIDE pixels each way."""
    (Path(folder) / f"images{count}").mkdir()
    rng = np.random.default_rng(count)
    for number in range(count):
        pixels = rng.integers(0, 60, (SIDE, SIDE), dtype=np.uint8)
        Image.fromarray(pixels).save(f"{folder}/images{count}/{number}.bmp")


def peak_memory(task: str, count: int, folder: str) -> dict[str, float]:
    """Highest resident bytes and seconds of a process that does the task."""
    command = [sys.executable, "-m", "benchmarks.pack_memory", "--do", task]
    command += ["--count", str(count), "--folder", folder]
    completed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    measured: dict[str, float] = json.loads(completed.stdout.splitlines()[-1])
    return measured


def main() -> None:
    """Measure and record."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rows", type=int, default=1_600_000)
    parser.add_argument("--images", type=int, default=400)
    parser.add_argument("--do", choices=("rows", "pixels"), help=argparse.SUPPRESS)
    parser.add_argument("--count", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.images < 4:
        parser.error("--images: at least 4, for a quarter of them is packed as well")
    if args.do:
        start = time.perf_counter()
        {"rows": plan_rows, "pixels": pack_pixels}[args.do](args.count, args.folder)
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        print(json.dumps({"bytes": used, "seconds": time.perf_counter() - start}))
        return
    with tempfile.TemporaryDirectory() as folder:
        rows = peak_memory("rows", args.rows, folder)
        counts = (args.images // 4, args.images)
        for count in counts:
            draw_images(count, folder)
        quarter, all_images = (peak_memory("pixels", count, folder) for count in counts)

    def row(label: str, measured: dict[str, float]) -> Row:
        return Row(label, round(measured["bytes"] / 1e6, 1), "MB", f"{measured['seconds']:.0f} s")

    table = [
        row(f"{args.rows:,} rows of plan and manifest", rows),
        Row("a row", round(rows["bytes"] / args.rows), "bytes", "with the interpreter's own"),
        row(f"{counts[0]:,} images of {SIDE}x{SIDE}", quarter),
        row(f"{counts[1]:,} of them", all_images),
    ]
    ratios = {
        "share_of_1_gb": rows["bytes"] / LIMIT,
        "four_times_vs_once": all_images["bytes"] / quarter["bytes"],
    }
    ratios = {name: round(value, 3) for name, value in ratios.items()}
    title, columns = "highest resident memory of retfound pack", ("value", "unit", "took")
    finish("pack-memory", title, table, ratios, ("numpy", "pillow"), columns=columns)


if __name__ == "__main__":
    main()
