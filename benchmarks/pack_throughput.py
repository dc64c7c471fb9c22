"""How near packing comes to its bare work on one core: decode + encode + write of the same images.

    python -m benchmarks.pack_throughput /data/octdl

Both run side by side in rounds, in turn; the ratio is bare seconds / pack seconds of each round. Two
cases: JPEGs stored as they came, and the same scaled down (decoded, scaled, encoded again).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.report import machine
from retfound_dist.schema import PackConfig, PackImage, PackOut, Source
from shards import jpeg
from shards.images import decode, encode, scale_down
from shards.pack import pack

ROUNDS = 3


def main() -> None:
    """Print one line a case: images, images/s of both, median ratio and its spread."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("images", help="a folder of class folders of grey JPEGs")
    folder = parser.parse_args().images
    files = sorted(Path(folder).glob("*/*.jpg"))
    print(f"{len(files):,} images, one process, {ROUNDS} rounds, {machine()}")
    cases = {"stored as they came": PackImage(), "scaled to 192 rows": PackImage(max_height=192)}
    for case, image in cases.items():
        rounds = [(bare(files, image), packed(folder, image)) for _ in range(ROUNDS)]
        ratios = [a / b for a, b in rounds]
        rates = [len(files) / statistics.median(column) for column in zip(*rounds, strict=True)]
        print(
            f"{case}: bare {rates[0]:.0f}/s, pack {rates[1]:.0f}/s, ratio {statistics.median(ratios):.2f} "
            f"({min(ratios):.2f} to {max(ratios):.2f})"
        )


def bare(files: list[Path], image: PackImage) -> float:
    """Seconds to read, decode, encode (or strip) and write the images, and nothing else."""
    with tempfile.TemporaryDirectory() as folder, open(Path(folder) / "out", "wb") as out:
        start = time.perf_counter()
        for file in files:
            data = file.read_bytes()
            pixels = decode(data)
            if image.max_height:
                out.write(encode(scale_down(pixels, image.max_height), image))
            else:
                out.write(jpeg.without_metadata(data))
        return time.perf_counter() - start


def packed(folder: str, image: PackImage) -> float:
    """Seconds of a whole pack by one worker: plan, shards, index, manifest, card."""
    with tempfile.TemporaryDirectory() as target:
        out = PackOut(url=f"{target}/set", workers=1)
        start = time.perf_counter()
        pack(PackConfig(source=Source(path=folder), image=image, out=out))
        return time.perf_counter() - start


if __name__ == "__main__":
    main()
