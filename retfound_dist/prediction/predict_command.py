"""`retfound predict`: what new images show, by a classifier that an evaluation has kept.

retfound predict EVALUATION/classifier IMAGES --out predictions.csv
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

from torch import nn

from retfound_dist.config.schema import MULTICLASS
from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.classifier import classifier_file
from retfound_dist.evaluate.classifier.classifier import Classifier, load_classifier
from retfound_dist.evaluate.classifier.classifier_file import ClassifierFile
from retfound_dist.evaluate.classifier.unit_classifier import unit_note
from retfound_dist.evaluate.finetune.finetuning import best_device
from retfound_dist.files.folder_walk import Links
from retfound_dist.listing.unit_names import IMAGE
from retfound_dist.prediction.input_images import InputImage, label_notes, part_of_images
from retfound_dist.prediction.input_sources import list_inputs
from retfound_dist.prediction.prediction_columns import check_task_options, prediction_table, table_notes
from retfound_dist.prediction.prediction_parts import PartFolder
from retfound_dist.prediction.prediction_pictures import (
    PictureOptions,
    check_picture_options,
    write_heat_maps,
    write_page,
)
from retfound_dist.prediction.prediction_run import (
    Budget,
    ImagePredictions,
    predict_images,
    prediction_identity,
)
from retfound_dist.prediction.prediction_table import PredictionTable, check_may_write, write_table
from retfound_dist.prediction.unit_rows import check_unit, predict_units
from retfound_dist.runtime.humanize import plural
from retfound_dist.runtime.progress import ProgressDisplay, rate_text
from shards.ordered_map import available_cores

MAX_WORKERS = 16
"""Workers on a GPU machine, unless --workers gives another number."""
ATTENTION = "attention"
"""`pool` of a classifier with an attention head."""
MAX_SHOWN = 10
"""Unreadable images that are printed."""


@dataclass(frozen=True, kw_only=True)
class PredictOptions:
    """Options of the command."""

    classifier: str
    images: Sequence[str] = field(default=())
    out: str = ""
    calibrated: bool = True
    workers: int = 0
    """0: chosen for this machine."""
    unit: str = IMAGE
    """What a row is: an image, or the volume, eye or patient of images."""
    shard: str = ""
    """`I/N`; empty: all images."""
    bad_sample_budget: int = 10
    links: Links = "inside"
    pictures: PictureOptions = field(default_factory=PictureOptions)
    force: bool = False
    quiet: bool = False


def predict_command(options: PredictOptions) -> int:
    """Run `retfound predict`; RetfoundError for anything that a user can fix."""
    check_may_write(options.out, options.force)
    check_picture_options(options.pictures, options.force)
    check_unit(options.unit, options.shard)
    index, count = _parse_shard(options.shard)
    workers = _worker_count(options.workers)
    url = classifier_file.resolve(options.classifier)
    facts = classifier_file.read(url)
    check_task_options(facts, url, options.unit, options.pictures.heatmaps)
    # Weights of several seeds can be gigabytes, so they are read once, and only where they are needed.
    load = cache(lambda: load_classifier(url).to(best_device()))
    has_pools = facts.unit["kind"] != IMAGE and facts.unit["pool"] == ATTENTION
    with_features = options.unit != IMAGE and has_pools
    parts = PartFolder(options.out, prediction_identity(facts, with_features=with_features))
    with ProgressDisplay(options.quiet) as show:
        show.begin("listing the images", "files")  # thousands of device files take minutes
        listing = list_inputs(options.images, options.links, show.advance)
        images = part_of_images(listing.images, index, count)
        names = facts.classes if facts.task["kind"] == MULTICLASS else listing.labels
        notes = [*listing.notes, *label_notes(listing, names), _unit_note(facts, options.unit)]
        for note in filter(None, [*notes, *table_notes(facts)]):
            show.say(f"note: {note}")
        show.begin("predicting", "images", done_before=None)
        started = time.monotonic()
        predictions = predict_images(
            load,
            facts,
            images,
            parts,
            budget=Budget(options.bad_sample_budget, ", ".join(options.images[:2])),
            workers=workers,
            on_progress=show.advance,
            with_features=with_features,
        )
        rate = predictions.computed / max(1e-9, time.monotonic() - started)
        table = prediction_table(predictions, facts, calibrated=options.calibrated)
        if options.unit == IMAGE:
            write_table(table, options.out)
        else:
            _write_units(load().pools if has_pools else (), predictions, facts, options, show)
        name = options.out if options.unit == IMAGE else "images"
        for line in _summary(table, name, rate):
            show.say(line)
        if options.pictures.heatmaps or options.pictures.html:
            _write_pictures(load(), table, images, options, workers, show)
        # Last, so that a command that was killed while it drew does not predict again.
        parts.delete()
    return 0


def _unit_note(facts: ClassifierFile, unit: str) -> str:
    """What to do where rows are of something else than the evaluation scored; else empty."""
    if not (note := unit_note(facts, unit)):
        return ""
    scored = facts.unit["kind"]
    return f"{note} (predict with --unit {scored}, or evaluate with data.unit={unit})"


def _write_units(
    pools: Iterable[nn.Module],
    predictions: ImagePredictions,
    facts: ClassifierFile,
    options: PredictOptions,
    show: ProgressDisplay,
) -> None:
    """The table of units in place of images."""
    units = predict_units(predictions, facts, options.unit, list(pools))
    table = prediction_table(units.predictions, facts, calibrated=options.calibrated)
    unit_columns = {"images": units.images, "deciding": units.deciding}
    write_table(replace(table, unit_columns=unit_columns), options.out)
    for note in units.notes:
        show.say(f"note: {note}")
    show.say(f"{options.out}: {plural(len(table.predicted), options.unit)} ({table.summary})")


def _write_pictures(
    classifier: Classifier,
    table: PredictionTable,
    images: Sequence[InputImage],
    options: PredictOptions,
    workers: int,
    show: ProgressDisplay,
) -> None:
    """The heat maps and the page that were asked for."""
    pictures = options.pictures
    if pictures.heatmaps:
        show.begin("drawing heat maps", "images")
        count = write_heat_maps(classifier, table, images, pictures.heatmaps, workers, show.advance)
        show.say(f"{pictures.heatmaps}: {plural(count, 'new heat map')}")
    if pictures.html:
        show.begin("drawing the page", "images")
        names = (", ".join(options.images), options.classifier)
        shown = write_page(
            classifier, table, images, pictures, names, options.calibrated, workers, show.advance
        )
        show.say(f"{pictures.html}: the {shown:,} least certain images")


def _summary(table: PredictionTable, name: str, rate: float) -> list[str]:
    """Lines on what was predicted. `name`: what the last line is about."""
    predictions = table.predictions
    faults = [
        f"{key}: {reason}"
        for key, reason in zip(predictions.keys, predictions.reasons, strict=True)
        if reason
    ]
    lines = [f"cannot be read: {fault}" for fault in faults[:MAX_SHOWN]]
    lines += [f"and {len(faults) - MAX_SHOWN:,} more"] if len(faults) > MAX_SHOWN else []
    speed = f", {rate_text(rate, 'images')}" if predictions.computed else ", all from finished parts"
    return [
        *lines,
        f"{name}: {len(predictions.keys):,} images, {len(faults):,} cannot be read{speed} ({table.summary})",
    ]


def _parse_shard(text: str) -> tuple[int, int]:
    """(I, N) of `I/N`, from 1; (1, 1) for all images."""
    if not text:
        return 1, 1
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    index, count = (int(match[1]), int(match[2])) if match else (0, 0)
    if not 1 <= index <= count:
        raise ConfigError(
            f"--shard {text}: give I/N with I from 1 to N, such as 2/8 for the second of 8 parts"
        )
    return index, count


def _worker_count(asked: int) -> int:
    if asked < 0:
        raise ConfigError(f"--workers {asked}: give 1 or more, or leave it out")
    if asked:
        return asked
    # On a CPU the network takes all cores, and nearly all of the time.
    return min(MAX_WORKERS, available_cores()) if best_device().type == "cuda" else 1
