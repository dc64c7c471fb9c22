"""`loader`: does the loader give images as fast as the step takes them?"""

from __future__ import annotations

import time

from retfound_dist.doctor.check_result import CheckResult, first_fault, measure_on_ranks, values_of
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.estimate.model_shapes import token_counts
from retfound_dist.runtime.humanize import plural
from retfound_dist.stream.loader import open_stream

LOADER_SHARE = 0.04
"""Share of the doctor's time in which images are loaded, after the first batch."""
ROOM = 1.2
"""The loader should be this many times as fast as the step: images differ, and stores have slow moments."""


def loader_check(checkup: Checkup, needed: float | None) -> CheckResult:
    """Images/s of all ranks at once. `needed`: what a rank's step takes; None where that is not known."""
    measured = measure_on_ranks(checkup.group, lambda: loaded_images_per_s(checkup))
    what_to_do = "look at the line of this rank, and at the checks of the store"
    if fault := first_fault("loader", measured, what_to_do):
        return fault
    rates = values_of(measured)
    lowest = min(rates)
    workers = checkup.workers
    text = f"{lowest:,.0f} images/s a rank (the slowest of {len(rates)}), {plural(workers, 'loader process')}"
    if needed is None:
        return CheckResult("loader", "ok", f"{text}; the step's rate is not known", lowest, "images/s")
    text += f"; the step takes {needed:,.0f}"
    if lowest < ROOM * needed:
        workers_needed = max(workers + 1, round(ROOM * needed / lowest * max(1, workers)))
        what_to_do = (
            f"set data.workers={workers_needed} if the host has the cores; otherwise the GPUs wait for images"
        )
        status = "failed" if lowest < needed else "warning"
        return CheckResult("loader", status, text, lowest, "images/s", what_to_do)  # type: ignore[arg-type]
    return CheckResult("loader", "ok", text, lowest, "images/s")


def loaded_images_per_s(checkup: Checkup) -> float:
    """This rank's images per second, with the loader of the run: its shards, workers, cache and crops."""
    config, world = checkup.config, checkup.group.world
    counts, share = token_counts(config.model), -(-config.train.global_batch // world.size)
    micro = share if config.train.micro_batch == "auto" else config.train.micro_batch
    with open_stream(
        checkup.manifest,
        config.train.global_batch,
        micro_batch=micro,
        image_size=config.model.size,
        patches=counts.patches,
        seed=config.train.seed,
        world=world,
        data=config.data,
    ) as stream:
        batches = iter(stream)
        next(batches)  # until here the loader starts
        images, began, longest = 0, time.perf_counter(), checkup.seconds(LOADER_SHARE)
        while (seconds := time.perf_counter() - began) < longest:
            images += len(next(batches).keys)
    return images / seconds
