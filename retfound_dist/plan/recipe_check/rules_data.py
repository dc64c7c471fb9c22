"""Rules on the images and how they are read: mask ratio, pixels, padding, shards, cache. Pure."""

from __future__ import annotations

import math
from collections.abc import Iterator

from retfound_dist.config.schema import PretrainConfig
from retfound_dist.estimate.loader_processes import needed_processes
from retfound_dist.plan.recipe_check.findings import Facts, Finding, epochs
from retfound_dist.runtime.humanize import size
from retfound_dist.stream.prefetch import KEPT_STEPS

MASK_RATIOS = {"grey": 0.75, "colour": 0.85}
"""The presets' mask ratios: OCT is grey, colour fundus photographs are not."""
MANY_EPOCHS = 5
"""With fewer, a cache saves less of the store's traffic than it costs to set up."""
IMAGENET_MEAN, IMAGENET_STD = 0.449, 0.226
"""Of a grey pixel, on 0 to 1: the means of the values of the three channels."""


def check_mask_ratio(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a mask ratio that is unusual for the images' modality."""
    ratio = config.model.mask_ratio
    if not 0.5 <= ratio <= 0.9:
        yield Finding(
            "serious",
            "model.mask_ratio",
            f"{ratio:g} of the patches removed",
            "Below 0.5 the task is mere interpolation; above 0.9 too little of the image is visible",
            "MAE, figure 5",
            f"model.mask_ratio={MASK_RATIOS['grey']}",
        )
        return
    grey, colour = facts.image.get("grey", 0), facts.image.get("colour", 0)
    kind = "grey" if grey > colour else "colour"
    expected = sorted(MASK_RATIOS.values()) if not grey and not colour else [MASK_RATIOS[kind]]
    if all(abs(ratio - preset_ratio) > 0.026 for preset_ratio in expected):
        images = f"{kind} images" if grey or colour else "OCT (0.75) or colour fundus photographs (0.85)"
        yield Finding(
            "warning",
            "model.mask_ratio",
            f"{ratio:g} is not the preset's for {images}",
            "The ratio sets the difficulty of the task, and differs between modalities",
            "RETFound, methods; some articles about it swap the two",
            " or ".join(f"model.mask_ratio={preset_ratio:g}" for preset_ratio in expected),
        )


def check_image_statistics(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report pixel values that do not fit the normalisation of the input."""
    image = facts.image
    if not sum(image.get("histogram", ())) or not image.keys() >= {"mean", "std"}:
        return
    total = sum(image["histogram"])
    shift = (image["mean"] / 255 - IMAGENET_MEAN) / IMAGENET_STD
    spread = image["std"] / 255 / IMAGENET_STD
    ends = (image["histogram"][0] + image["histogram"][-1]) / total
    blank = spread < 0.15 or ends > 0.8
    if abs(shift) <= 1 and 0.5 <= spread <= 2 and not blank:
        return
    far = blank or abs(shift) > 1.9 or not 0.3 <= spread <= 2.5
    reason = "Inputs are normalised with ImageNet's mean and standard deviation, as RETFound's weights expect"
    if far:
        reason += "; such dark, bright or flat images come from a wrong window or wrong packing"
    yield Finding(
        "warning" if far else "note",
        "data.shards",
        f"pixels have mean {image['mean']:.0f} and standard deviation {image['std']:.0f} of 255, those of "
        f"ImageNet 115 and 58: the mean differs by {shift:+.1f} deviations, {ends:.0%} are black or white",
        reason,
        "the shards' histogram in manifest.json",
        "look at `retfound batch CONFIG --step 1 --out sheet.png`, then pack again" if far else "no change",
    )


def check_held_out(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a run without held-out patients, because over-fitting would not show."""
    if not facts.held_out and config.data.held_out != "none":
        yield Finding(
            "note",
            "data.held_out",
            "no patients are held out",
            "Only the loss on patients that are not trained on shows over-fitting early",
            "docs/reading_the_report.md",
            "pack with split.fractions=[0.98, 0.02, 0.0], then data.split='auto'",
        )


def check_padding(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a number of ranks that makes a large share of each step padding."""
    if facts.padding > 0.02:
        ranks, batch = facts.ranks, config.train.global_batch
        # A number of ranks that divides the batch leaves no padding.
        good = max((n for n in range(1, ranks + 1) if batch % n == 0), default=1)
        yield Finding(
            "serious" if facts.padding > 0.25 else "warning",
            "train.global_batch",
            f"{facts.padding:.1%} of the work of {ranks} ranks is padding",
            f"{batch:,} images do not divide evenly over {ranks} ranks in passes of {facts.micro_batch}",
            "the batch arithmetic of retfound_dist/stream/batch_plan.py",
            f"{good} ranks, or another train.micro_batch",
        )


def check_shard_count(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report fewer shards than readers."""
    # Without workers the training process reads the shards itself, so each rank has one reader at least.
    workers = needed_processes(config.model) if config.data.workers == "auto" else config.data.workers
    expected = max(1, facts.ranks) * max(1, workers)
    if facts.shards >= expected:
        return
    fewer = max(1, facts.shards // max(1, facts.ranks))
    yield Finding(
        "warning" if facts.remote else "note",
        "data.shards",
        f"{facts.shards} shards for {max(1, facts.ranks)} ranks x {workers} workers",
        "A reader that gives each worker its own shards would starve or hang; this reader does not"
        + (", but several nodes fetch each shard" if facts.remote else ""),
        "docs/stream.md; WebDataset: at least one shard a worker",
        f"pack again with a smaller out.shard_mb, or data.workers={fewer}",
    )


def windows_on_a_node(global_batch: int, window_samples: float) -> int:
    """The most windows whose shards a node keeps at a time (`stream.prefetch.Lookahead`)."""
    # The window of the step and the next one, and those of `KEPT_STEPS` steps before. One step more, because
    # the step itself may have begun in the window before.
    return 2 + math.ceil((KEPT_STEPS + 1) * global_batch / window_samples)


def check_cache_limit(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a cache limit that is too small for the windows of shards that a node keeps."""
    # A limit of 0 means as large as the disk allows.
    if not config.data.cache_gb or not facts.remote or not facts.largest_shard_bytes:
        return
    shard_gb = facts.largest_shard_bytes / 1e9
    window_gb, set_gb = min(config.data.window_shards, facts.shards) * shard_gb, facts.shards * shard_gb
    window_samples = config.data.window_shards * facts.samples / facts.shards
    windows = windows_on_a_node(config.train.global_batch, window_samples)
    needed_gb = min(windows * window_gb, set_gb)
    if config.data.cache_gb < needed_gb:
        below_one_window = config.data.cache_gb < window_gb
        if below_one_window:
            amount = f"one window ({window_gb:.2g} GB)"
        else:
            all_windows = "the whole set" if needed_gb == set_gb else f"{windows} windows"
            amount = f"{all_windows} ({needed_gb:.2g} GB)"
        yield Finding(
            "serious" if below_one_window else "warning",
            "data.cache_gb",
            f"{config.data.cache_gb:g} GB hold less than {amount}",
            "Samples that do not fit are read from the store one by one, every time",
            "docs/stream.md: the windows that a node keeps",
            f"data.cache_gb={needed_gb:.1f} or more, or a smaller data.window_shards",
        )


def check_repeated_reads(config: PretrainConfig, facts: Facts) -> Iterator[Finding]:
    """Report a set on a store that is read again in many epochs."""
    passes = epochs(config, facts)
    if config.data.cache_dir or not facts.remote or passes < MANY_EPOCHS:
        return
    set_bytes = facts.shards * facts.largest_shard_bytes
    of_size = f" of up to {size(set_bytes)}" if set_bytes else ""
    yield Finding(
        "warning",
        "data.cache_dir",
        f"none, and {passes:,.0f} epochs of a set{of_size} on a store",
        "Each node reads its share of the set again in every epoch. With a cache for the whole set it reads "
        "each shard once",
        "docs/stream.md: the cache",
        "data.cache_dir=FOLDER on a local disk of each node"
        + (f" with {size(set_bytes)} of room" if set_bytes else ""),
    )
