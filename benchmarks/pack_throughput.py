"""Compares packing with its bare work on one core, and two workers with one.

    python -m benchmarks.pack_throughput IMAGES [--workers] [--rounds 3]

IMAGES is a folder of class folders of grey JPEGs (such as OCTDL). They are used as they are and mirrored, so
that the start-up time counts less, as in a real set. One process on one core packs them in three ways, in
turn with the bare work on the same files:

    as they came    JPEGs kept as they are: bare is read, decode once (to check it), write
    from PNG        read, decode, encode as JPEG, write
    scaled          JPEGs scaled to 192 rows: read, decode, scale, encode, write

The bare work does nothing else: no hash, no check, no tar, no index, no manifest, no data card. The ratio is
bare seconds / pack seconds of each round, in processor time, so that other processes of the machine count
little. Waiting for the disk is left out on both sides.

With --workers: "from PNG" with two workers and with one, on all cores, in wall-clock time, from eight
variants of each image (mirrored, upside down, halves exchanged), because starting two processes takes a
second.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks.report import Row, finish, median_of
from retfound_dist.config.schema import PackConfig, PackImage, PackOut, Source
from retfound_dist.images import jpeg
from shards.images.preparation import decode, encode, scale_down
from shards.pack import pack

PACKAGES = ("numpy", "pillow", "simplejpeg", "xxhash")
SCALED = PackImage(max_height=192)
clock = time.process_time


def main() -> None:
    """Print and record images/s of both, median ratio and its spread, for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", help="a folder of class folders of grey JPEGs")
    parser.add_argument("--workers", action="store_true", help="two workers beside one, and nothing else")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    files = sorted(Path(args.images).glob("*/*.jpg"))
    with tempfile.TemporaryDirectory() as folder:
        if args.workers:
            speed_up(files, Path(folder) / "png", args.rounds)
        else:
            beside_bare(files, Path(folder), args.rounds)


def beside_bare(files: Sequence[Path], folder: Path, rounds: int) -> None:
    """On one core: packing and its bare work."""
    jpegs, pngs = folder / "jpg", folder / "png"
    draw(files, jpegs, pngs)
    rows: list[Row] = []
    ratios: dict[str, float] = {}
    for case, source, image in (
        ("as they came", jpegs, PackImage()),
        ("from PNG", pngs, PackImage()),
        ("scaled", jpegs, SCALED),
    ):
        case_rows, ratio = compare(case, source, image, rounds)
        rows += case_rows
        ratios[f"{case.replace(' ', '_')}_bare_vs_pack"] = ratio
    title = f"retfound pack beside its bare work: {2 * len(files):,} images, {rounds} rounds"
    finish("pack", title, rows, ratios, PACKAGES)


def compare(case: str, source: Path, image: PackImage, rounds: int) -> tuple[list[Row], float]:
    """The bare work and packing in turn, on one core."""
    files = sorted(source.iterdir())
    with one_core():
        seconds = [(bare_work(files, image), packed(source, image, 1)) for _ in range(rounds)]
    ratios = [one / other for one, other in seconds]
    rates = [[len(files) / value for value in column] for column in zip(*seconds, strict=True)]
    rows = [
        median_of(f"{case}: bare", rates[0], "images/s"),
        median_of(f"{case}: retfound pack", rates[1], "images/s"),
        median_of(f"{case}: bare / pack", ratios, "", 2),
    ]
    return rows, round(statistics.median(ratios), 3)


def speed_up(files: Sequence[Path], source: Path, rounds: int) -> None:
    """On all cores: one worker and two, in turn."""
    draw(files, None, source, ways=8)
    count = 8 * len(files)
    seconds = [tuple(by_the_wall(source, workers) for workers in (1, 2)) for _ in range(rounds)]
    ratios = [one / two for one, two in seconds]
    rows = [
        median_of("one worker", [count / one for one, _ in seconds], "images/s"),
        median_of("two workers", [count / two for _, two in seconds], "images/s"),
        median_of("two workers / one", ratios, "", 2),
    ]
    title = f"retfound pack from PNG, by the clock: {count:,} images, {rounds} rounds"
    ratio = {"two_workers_vs_one": round(statistics.median(ratios), 3)}
    finish("pack-workers", title, rows, ratio, PACKAGES)


def by_the_wall(source: Path, workers: int) -> float:
    """Wall-clock seconds of a pack."""
    start = time.perf_counter()
    packed(source, PackImage(), workers)
    return time.perf_counter() - start


def bare_work(files: Sequence[Path], image: PackImage) -> float:
    """Seconds to read, decode, encode (where it is encoded) and write the images, and nothing else."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "out", "wb") as out:
        start = clock()
        for file in files:
            data = file.read_bytes()
            pixels = decode(data)
            keep = not image.max_height and jpeg.is_jpeg(data)
            out.write(data if keep else encode(scale_down(pixels, image.max_height), image))
        return clock() - start


def packed(source: Path, image: PackImage, workers: int) -> float:
    """Seconds of a whole pack: plan, shards, index, manifest, card."""
    with tempfile.TemporaryDirectory() as target:
        out = PackOut(url=f"{target}/set", workers=workers)
        start = clock()
        pack(PackConfig(source=Source(path=str(source)), image=image, out=out))
        return clock() - start


@contextmanager
def one_core() -> Iterator[None]:
    """Run this process on one core."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores)})
    yield
    os.sched_setaffinity(0, cores)


def draw(files: Sequence[Path], jpegs: Path | None, pngs: Path, ways: int = 2) -> None:
    """Write each image and its turned copies, as JPEG and as PNG."""
    for folder in (jpegs, pngs):
        if folder:
            folder.mkdir()
    for number, file in enumerate(files):
        data = file.read_bytes()
        pixels = decode(data)
        turned = [pixels, pixels[:, ::-1], pixels[::-1], pixels[::-1, ::-1]]
        turned += [np.roll(one, one.shape[1] // 2, axis=1) for one in turned]
        for way, one in enumerate(turned[:ways]):
            name, copied = f"{number:05d}_{way}", np.ascontiguousarray(one)
            Image.fromarray(copied).save(pngs / f"{name}.png", compress_level=1)
            if jpegs:
                (jpegs / f"{name}.jpg").write_bytes(data if way == 0 else jpeg.encode(copied, 90))


if __name__ == "__main__":
    main()
