"""Images per second from shards on one core: this project, the usual recipe, MosaicML Streaming, litData.

    make bench-stream          (or: python -m benchmarks.stream_throughput [--images FOLDER])

All read the same JPEGs from local disk, in turn, in one process. "Usual" is Pillow to RGB and torchvision's
RandomResizedCrop (bicubic), flip, ToTensor and Normalize in a DataLoader. "Fast" is this project's decoding
and augmentation in the other libraries' datasets. The other libraries need `pip install .[bench]`; a missing
one is named and left out.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import io
import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import transforms

from benchmarks.report import Row, finish, median_of
from retfound_dist.config.schema import PackConfig, PackImage, PackOut, Phantom, Source
from retfound_dist.formats.shard_set import Manifest, Shard, read_index
from retfound_dist.stream import open_stream
from retfound_dist.stream.augment import Augment, apply_augmentation, crop_box, draw_augmentation, resize
from retfound_dist.stream.batch_plan import sample_generator
from retfound_dist.stream.sample_reader import decode
from retfound_dist.stream.worker_processes import keep_freed_memory
from shards.pack import pack

BATCH = 64
AUGMENT = Augment((224, 224), 196, (0.2, 1.0), (3 / 4, 4 / 3), 0.5)
CROP = (AUGMENT.scale, AUGMENT.ratio)
PACKAGES = (
    *("torch", "torchvision", "numpy", "pillow", "simplejpeg"),
    *("webdataset", "mosaicml-streaming", "litdata"),
)
REFERENCE = transforms.Compose(
    [
        transforms.RandomResizedCrop(224, scale=(0.2, 1.0), interpolation=3),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
    ]
)
Batches = Iterator[Any]


def reference_transform(data: bytes) -> torch.Tensor:
    """JPEG to (3, 224, 224) fp32, as MAE's code base and most others do it."""
    image: torch.Tensor = REFERENCE(Image.open(io.BytesIO(data)).convert("RGB"))
    return image


def fast_transform(data: bytes) -> torch.Tensor:
    """JPEG to (1, 224, 224) uint8, as this project does it."""
    out, noise = np.empty((1, 224, 224), np.uint8), np.empty(196, np.float32)
    number, drawn = int.from_bytes(os.urandom(4)), []

    def needs(width: int, height: int) -> int:
        drawn.append(draw_augmentation(AUGMENT, 0, 0, number, width, height, noise))
        return drawn[0].top + drawn[0].height

    pixels = decode(data, True, needs)
    apply_augmentation(drawn[0], pixels, out)
    return torch.from_numpy(out)


def ours(manifest: Manifest, workers: int = 0) -> Batches:
    """This project's stream, endless."""
    with open_stream(manifest, BATCH, workers=workers) as stream:
        yield from stream


def with_webdataset(manifest: Manifest, make: Callable[[bytes], torch.Tensor]) -> Batches:
    """webdataset over the same tars."""
    import webdataset

    tars = [f"{manifest.url}/{shard.name}" for shard in manifest.shards]
    data = webdataset.WebDataset(tars, shardshuffle=len(tars)).shuffle(500)
    if make is reference_transform:  # as its documentation has it
        data = data.decode("pilrgb").to_tuple("jpg").map_tuple(REFERENCE)
    else:
        data = data.to_tuple("jpg").map_tuple(make)
    return forever(DataLoader(data, batch_size=BATCH))


def with_mosaic(images: list[bytes], folder: Path, make: Callable[[bytes], torch.Tensor]) -> Batches:
    """MosaicML Streaming over its own format."""
    from streaming import MDSWriter, StreamingDataset

    if not folder.exists():
        with MDSWriter(out=str(folder), columns={"jpg": "bytes"}) as writer:
            for data in images:
                writer.write({"jpg": data})

    class Images(StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: int) -> torch.Tensor:
            return make(super().__getitem__(index)["jpg"])

    data = Images(local=str(folder), shuffle=True, batch_size=BATCH)
    return forever(DataLoader(data, batch_size=BATCH))


def with_litdata(images: list[bytes], folder: Path, make: Callable[[bytes], torch.Tensor]) -> Batches:
    """litData over its own format."""
    import litdata

    if not folder.exists():
        with contextlib.redirect_stdout(io.StringIO()):
            litdata.optimize(
                fn=_itself, inputs=images, output_dir=str(folder), chunk_bytes="64MB", num_workers=1
            )

    class Images(litdata.StreamingDataset):  # type: ignore[misc]
        def __getitem__(self, index: Any) -> torch.Tensor:
            return make(super().__getitem__(index))

    return forever(DataLoader(Images(str(folder), shuffle=True), batch_size=BATCH))


def _itself(data: bytes) -> bytes:
    return data


def forever(loader: Any) -> Batches:
    """Epoch after epoch."""
    while True:
        yield from loader


def contestants(manifest: Manifest, images: list[bytes], folder: Path) -> dict[str, Batches]:
    """All installed readers."""
    makers: dict[str, Callable[[], Batches]] = {
        "ours": lambda: ours(manifest),
        "usual (webdataset)": lambda: with_webdataset(manifest, reference_transform),
        "webdataset, fast": lambda: with_webdataset(manifest, fast_transform),
        "MosaicML Streaming, usual": lambda: with_mosaic(images, folder / "mds", reference_transform),
        "MosaicML Streaming, fast": lambda: with_mosaic(images, folder / "mds", fast_transform),
        "litData, usual": lambda: with_litdata(images, folder / "lit", reference_transform),
        "litData, fast": lambda: with_litdata(images, folder / "lit", fast_transform),
    }
    runners = {}
    for name, make in makers.items():
        try:
            runners[name] = make()
            next(runners[name])  # opens files, warms caches
        except ImportError as error:
            print(f"{name} left out: {error}; pip install .[bench]")
            runners.pop(name, None)
    return runners


def race(runners: dict[str, Batches], rounds: int, batches: int) -> dict[str, list[float]]:
    """Images per second of each runner in each round; they take turns, beginning with another each time."""
    names = list(runners)
    speeds: dict[str, list[float]] = {name: [] for name in names}
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            begun = time.perf_counter()
            for _ in itertools.islice(runners[name], batches):
                pass
            speeds[name].append(batches * BATCH / (time.perf_counter() - begun))
    return speeds


def draw_box(number: int, pixels: Any) -> tuple[int, int, int, int]:
    """The crop of an image."""
    return crop_box(sample_generator(0, 3, 0, number), pixels.shape[1], pixels.shape[0], *CROP)


def stages(images: list[bytes]) -> Iterator[Row]:
    """Microseconds per image of each step, of this project and of the usual recipe."""
    sample = images[:200]
    pixels = [decode(data, grey=True) for data in sample]
    boxes = [draw_box(i, p) for i, p in enumerate(pixels)]
    cuts = [p[y : y + h, x : x + w] for p, (x, y, w, h) in zip(pixels, boxes, strict=True)]
    limited = [(data, y + h) for data, (_, y, _, h) in zip(sample, boxes, strict=True)]
    colours = [Image.open(io.BytesIO(data)).convert("RGB") for data in sample]
    crop, flip, tensor, normal = REFERENCE.transforms
    small = [crop(image) for image in colours]
    floats = [tensor(image) for image in small]
    steps: dict[str, tuple[list[Any], Callable[[Any], Any]]] = {
        "ours: sha256 of the bytes": (sample, lambda d: hashlib.sha256(d).hexdigest()),
        "ours: draw the crop": (pixels, lambda p: draw_box(1, p)),
        "ours: JPEG to grey, down to the crop's end": (
            limited,
            lambda pair: decode(pair[0], True, lambda width, height: pair[1]),
        ),
        "(JPEG to grey, whole)": (sample, lambda d: decode(d, grey=True)),
        "ours: resize the crop": (cuts, lambda c: resize(c, (224, 224))),
        "usual: JPEG to RGB": (sample, lambda d: Image.open(io.BytesIO(d)).convert("RGB")),
        "usual: RandomResizedCrop": (colours, crop),
        "usual: flip": (small, flip),
        "usual: ToTensor": (small, tensor),
        "usual: Normalize": (floats, normal),
    }
    for name, (inputs, step) in steps.items():
        times = []
        for _ in range(5):
            begun = time.perf_counter()
            for value in inputs:
                step(value)
            times.append((time.perf_counter() - begun) / len(inputs) * 1e6)
        yield median_of(name, times, "µs an image")


def alternate(manifest: Manifest, rounds: int) -> dict[str, list[float]]:
    """Images per second of one and of two loader processes, in turns, on all cores."""
    speeds: dict[str, list[float]] = {"ours, 1 worker": [], "ours, 2 workers": []}
    for _ in range(rounds):
        for workers, runners in enumerate(speeds.values(), 1):
            with open_stream(manifest, BATCH, workers=workers) as stream:
                batches = iter(stream)
                for _ in itertools.islice(batches, 8 * workers):
                    pass
                begun = time.perf_counter()
                for _ in itertools.islice(batches, 24 * workers):
                    pass
                runners.append(24 * workers * BATCH / (time.perf_counter() - begun))
    return speeds


def ratios(speeds: dict[str, list[float]]) -> dict[str, float]:
    """Medians of the rounds' ratios."""
    pairs = {
        "ours_vs_usual": ("ours", "usual (webdataset)"),
        "ours_vs_webdataset_fast": ("ours", "webdataset, fast"),
        "ours_vs_mosaic_usual": ("ours", "MosaicML Streaming, usual"),
        "ours_vs_mosaic_fast": ("ours", "MosaicML Streaming, fast"),
        "ours_vs_litdata_usual": ("ours", "litData, usual"),
        "ours_vs_litdata_fast": ("ours", "litData, fast"),
        "two_workers_vs_one": ("ours, 2 workers", "ours, 1 worker"),
    }
    return {
        name: round(statistics.median(a / b for a, b in zip(speeds[one], speeds[other], strict=True)), 2)
        for name, (one, other) in pairs.items()
        if one in speeds and other in speeds
    }


def packed(folder: Path, source: str, name: str, image: PackImage | None = None) -> Manifest:
    """A folder of images, or the phantom, as shards."""
    where = Source(path=source) if source else Source(kind="phantom")
    phantom = Phantom(patients=80, slices=8, height=496, width=512)
    out = PackOut(url=str(folder / name), shard_mb=16)
    return pack(PackConfig(source=where, phantom=phantom, out=out, image=image or PackImage()))


def as_png(images: list[bytes], folder: Path) -> Manifest:
    """The same pictures as PNG files in shards."""
    for number, data in enumerate(images[:300]):
        path = folder / "pictures" / "A" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.open(io.BytesIO(data)).save(path)
    return packed(folder, str(folder / "pictures"), "png", PackImage(format="png"))


def parse() -> argparse.Namespace:
    """The command line."""
    root = Path(__file__).resolve().parent.parent
    data = Path(os.environ.get("RETFOUND_TEST_DATA", root.parent / "shared" / "data"))
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument(
        "--images",
        default=str(data / "octdl") if (data / "octdl").is_dir() else "",
        help="folder of class folders; default: OCTDL, or the phantom",
    )
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=6, help="of 64 images, a turn")
    return parser.parse_args()


def main() -> None:
    """Pack, race, print."""
    args = parse()
    torch.set_num_threads(1)
    keep_freed_memory()
    cores = sorted(os.sched_getaffinity(0))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        manifest = packed(folder, args.images, "jpg")
        images = [image for shard in manifest.shards for image in shard_images(manifest, shard)]
        png = as_png(images, folder)
        os.sched_setaffinity(0, cores[:1])
        runners = contestants(manifest, images, folder) | {"ours, PNG": ours(png)}
        speeds = race(runners, args.rounds, args.batches)
        parts = list(stages(images))
        os.sched_setaffinity(0, cores)
        if len(cores) > 1:
            speeds |= alternate(manifest, args.rounds)
    rows = [median_of(name, values, "images/s") for name, values in speeds.items()]
    size = sum(map(len, images)) / len(images) / 1000
    source_name = Path(args.images).name if args.images else "phantom"
    source_name = f"{len(images):,} JPEGs of {size:.0f} kB ({source_name})"
    title = f"{source_name}, batches of {BATCH}; one core unless workers are named"
    finish("stream", title, rows + parts, ratios(speeds), PACKAGES)


def shard_images(manifest: Manifest, shard: Shard) -> Iterator[bytes]:
    """The image files of a shard."""
    data = Path(manifest.url, shard.name).read_bytes()
    for entry in read_index(manifest.url, shard):
        yield data[entry.image_offset : entry.image_offset + entry.image_bytes]


if __name__ == "__main__":
    main()
