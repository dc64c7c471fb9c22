"""How many images a core gives a step: fine-tuning's augmentation beside pretraining's.

    python -m benchmarks.augmentation [--rounds 9]

Both make 224 x 224 pixels of generated B-scans of 496 x 512. Pretraining decodes a JPEG, crops and flips.
Fine-tuning has decoded images, and crops, flips and applies RandAugment as RETFound's recipe says. There
is one thread, the clock counts this process's CPU time, and both take turns.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable

import numpy as np
import torch

from benchmarks.report import finish, median_of
from retfound_dist.config.schema import Data, Finetune, Phantom
from retfound_dist.evaluate.finetune.training_batches import AugmentedImages
from retfound_dist.images import jpeg
from retfound_dist.stream.augment import Augment, apply_augmentation, draw_augmentation
from shards.sources.phantom.generated import list_generated

COUNT, SIDE, PATCHES, QUALITY = 48, 224, 196, 90


def rate(make: Callable[[int], object], first: int) -> float:
    """Images per CPU second. `make`: of an image's number."""
    began = time.process_time()
    for number in range(first, first + COUNT):
        make(number)
    return COUNT / (time.process_time() - began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", default=9, type=int)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    config = Phantom(patients=COUNT, volumes=1, slices=1, height=496, width=512)
    pixels = [np.asarray(scan.read()) for scan in list_generated(config)]
    files = [jpeg.encode(image, QUALITY) for image in pixels]
    data = Data(shards="")
    augment = Augment((SIDE, SIDE), PATCHES, data.crop_scale, data.crop_ratio, data.flip)
    noise, out = np.empty(PATCHES, np.float32), np.empty((1, SIDE, SIDE), np.uint8)
    trained = AugmentedImages(pixels, [0] * COUNT, Finetune(), SIDE, 0, "bicubic")  # type: ignore[arg-type]

    def pretraining_image(number: int) -> None:
        image = jpeg.decode(files[number % COUNT], "GRAY")[..., 0]
        height, width = image.shape
        apply_augmentation(draw_augmentation(augment, 0, 0, number, width, height, noise), image, out)

    def finetuning_image(number: int) -> None:
        trained[number // COUNT, number % COUNT]

    finetuning_image(0)
    rates = [
        (rate(pretraining_image, COUNT * turn), rate(finetuning_image, COUNT * turn))
        for turn in range(chosen.rounds)
    ]
    pretraining, finetuning = zip(*rates, strict=True)
    ratios = [one / other for one, other in rates]
    finish(
        "augmentation",
        "Images of 224 x 224 pixels that one core gives a step",
        [
            median_of("pretraining: decode, crop, flip", pretraining, "images/s"),
            median_of("fine-tuning: crop, flip, RandAugment", finetuning, "images/s"),
            median_of("pretraining / fine-tuning, in each round", ratios, "", 2),
        ],
        {},
        ("torch", "timm", "torchvision", "pillow"),
    )


if __name__ == "__main__":
    main()
