"""`retfound batch`: shows the global batch of a step, its keys and its images as the model gets them."""

from __future__ import annotations

import io
import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from PIL.PngImagePlugin import PngInfo

from retfound_dist.config.loading import load
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.errors import ConfigError
from retfound_dist.formats.shard_set import Manifest, read_manifest
from retfound_dist.io import output_files, storage
from retfound_dist.runtime.world import World
from retfound_dist.stream.loader import MicroBatch, open_stream

THUMB, CAPTION, GAP = 112, 14, 4
"""Side of a thumbnail, height of its caption, and distance to the next one, in pixels."""
_PAPER, _INK = (255, 255, 255), (40, 40, 40)


def read_step(config: PretrainConfig, manifest: Manifest, step: int) -> MicroBatch:
    """The whole global batch of a step, counted from 1 as in metrics.jsonl."""
    if step < 1:
        raise ConfigError(f"--step {step}: steps are counted from 1, as in metrics.jsonl")
    with open_stream(
        manifest,
        config.train.global_batch,
        image_size=config.model.image_size,
        seed=config.train.seed,
        # One rank, even within a job of several: the sheet shows the batch of all ranks.
        world=World(),
        start_step=step - 1,
        stop_step=step,
        # No loader processes: there is only one micro-batch.
        data=replace(config.data, workers=0),
    ) as stream:
        return next(iter(stream))


def describe(batch: MicroBatch) -> Iterator[str]:
    """Lines to print: the step and its digest, then slot and key of each sample."""
    yield f"step {batch.step + 1}: {len(batch.keys)} samples, batch_digest {batch.digest:016x}"
    for fault in batch.faults:
        yield f"replaced: {fault}"
    for slot, key in enumerate(batch.keys):
        yield f"{slot:6d}  {key}"


def contact_sheet(images_NCSS: NDArray[np.uint8], keys: Sequence[str]) -> Image.Image:
    """One picture of the images with their keys, line by line in the order of slots.

    `images_NCSS`: N images of C channels (1 or 3) and side S, as uint8.
    """
    columns = max(1, math.ceil(math.sqrt(len(keys))))
    width, height = THUMB + GAP, THUMB + CAPTION + GAP
    sheet = Image.new("RGB", (columns * width + GAP, math.ceil(len(keys) / columns) * height + GAP), _PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=10)
    for slot, (image, key) in enumerate(zip(images_NCSS, keys, strict=True)):
        left, top = GAP + slot % columns * width, GAP + slot // columns * height
        # Pillow takes grey as (H, W) and colour as (H, W, C).
        picture = Image.fromarray(image[0] if len(image) == 1 else image.transpose(1, 2, 0))
        sheet.paste(picture.resize((THUMB, THUMB), Image.Resampling.BILINEAR), (left, top))
        draw.text((left, top + THUMB + 1), _fit(f"{slot} {key}", font), fill=_INK, font=font)
    return sheet


def write_sheet(batch: MicroBatch, out: str) -> None:
    """Write the contact sheet of a batch as a PNG to `out`, a path or URL."""
    # By this mark a later call knows that the file is its own and may be overwritten.
    metadata = PngInfo()
    metadata.add_text("Software", output_files.mark("batch"))
    # Padding has images but no keys, and is last.
    images_NCSS = batch.images.numpy()[: len(batch.keys)]
    buffer = io.BytesIO()
    contact_sheet(images_NCSS, batch.keys).save(buffer, "PNG", pnginfo=metadata)
    storage.write_bytes(out, buffer.getvalue())


def batch_command(
    config_path: str, overrides: Sequence[str], step: int, out: str, force: bool = False
) -> int:
    """`retfound batch`: print the keys of a step's batch, and draw it to `out` if that is given."""
    config, _ = load(PretrainConfig, config_path, overrides)
    if out:
        # Before anything is read: fail at once if the file must not be overwritten.
        output_files.check_may_write(out, "batch", force)
    batch = read_step(config, read_manifest(config.data.shards, config.data.first_shards), step)
    for line in describe(batch):
        print(line)
    if out:
        write_sheet(batch, out)
        print(f"contact sheet: {out}")
    return 0


def _fit(text: str, font: ImageFont.ImageFont | ImageFont.FreeTypeFont) -> str:
    """The text, shortened in the middle to the width of a thumbnail."""
    if font.getlength(text) <= THUMB:
        return text
    for letters in range(len(text) - 1, 2, -1):
        head, tail = (letters + 1) // 2, letters // 2
        short = f"{text[:head]}…{text[len(text) - tail :]}"
        if font.getlength(short) <= THUMB:
            return short
    return text[:3]
