"""`--heatmaps` and `--html`: pictures of images that are predicted already, in a second pass over the images.

Shapes: N images, C classes, S side, G patches along a side.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from retfound_dist.errors import ConfigError
from retfound_dist.evaluate.classifier.classifier import Classifier
from retfound_dist.evaluate.pixels.gray_pixels import Pixels
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.io import output_files, storage
from retfound_dist.prediction.drawing.heat_map_files import (
    BATCH,
    gradient_maps,
    picture_name,
    png_bytes,
    side_by_side,
    stale_pictures,
)
from retfound_dist.prediction.drawing.prediction_page import PageImage, prediction_page
from retfound_dist.prediction.input_images import InputImage
from retfound_dist.prediction.input_reading import read_images
from retfound_dist.prediction.page_content import page_image, page_summary
from retfound_dist.prediction.prediction_columns import mapped_outputs
from retfound_dist.prediction.prediction_run import prediction_identity
from retfound_dist.prediction.prediction_table import COMMAND, PredictionTable

PAGE_IMAGES = 200
"""Images of a page. It holds two pictures of each, some 15 kB together."""
Pictured = tuple[int, Pixels, dict[int, Floats]]
"""Row, (S, S) pixels, and the heat map (G, G) of some outputs of the network."""
Report = Callable[[int, int], None]
"""Called with the number of pictures done and of all pictures."""


@dataclass(frozen=True, kw_only=True)
class PictureOptions:
    """Where pictures are written; empty: nowhere."""

    heatmaps: str = ""
    """Folder of the heat maps."""
    html: str = ""
    """File of the page."""
    page_images: int = PAGE_IMAGES


def check_picture_options(options: PictureOptions, force: bool) -> None:
    """ConfigError where a picture could not be written, before hours of work."""
    if options.html:
        if not options.html.endswith((".html", ".htm")):
            raise ConfigError(f"--html {options.html}: give a name that ends in .html")
        output_files.check_may_write(options.html, COMMAND, force, "--html")
    if options.page_images < 1:
        raise ConfigError(f"--html-images {options.page_images}: give 1 or more")
    folder = options.heatmaps
    if folder and storage.exists(folder) and not storage.is_folder(folder):
        raise ConfigError(f"--heatmaps {folder} is a file: give a folder")


def write_heat_maps(
    classifier: Classifier,
    table: PredictionTable,
    images: Sequence[InputImage],
    folder: str,
    workers: int,
    on_progress: Report,
) -> int:
    """Write a PNG of each readable image that has none in the folder. Returns how many were written.

    Pictures of the same images by another classifier, of another class or of other content are deleted.
    """
    present = set(storage.list_names(folder))
    names = _picture_names(classifier, table)
    rows = [row for row, name in names.items() if name not in present]
    written = 0
    for row, pixels, maps in _pictures(classifier, table, images, rows, workers):
        picture = png_bytes(side_by_side(pixels, maps.values()))
        storage.write_bytes(storage.join(folder, names[row]), picture)
        written += 1
        on_progress(written, len(rows))
    for name in stale_pictures(present, table.predictions.keys, set(names.values())):
        storage.delete(storage.join(folder, name))
    return written


def _picture_names(classifier: Classifier, table: PredictionTable) -> dict[int, str]:
    """The name of each readable image's picture, by its row."""
    predictions, drawn_by = table.predictions, prediction_identity(classifier.facts)
    return {
        row: picture_name(predictions.keys[row], (drawn_by, predicted, predictions.identities[row]))
        for row, predicted in enumerate(table.predicted)
        if predicted
    }


def write_page(
    classifier: Classifier,
    table: PredictionTable,
    images: Sequence[InputImage],
    options: PictureOptions,
    names: tuple[str, str],
    calibrated: bool,
    workers: int,
    on_progress: Report,
) -> int:
    """Write the page of the least certain images. Returns how many it shows.

    `names`: what the command was given as images and as classifier.
    """
    rows = least_certain(table, options.page_images)
    shown: dict[int, PageImage] = {}
    # In the order of the listing: images of one shard are read together.
    for row, pixels, maps in _pictures(classifier, table, images, sorted(rows), workers):
        shown[row] = page_image(table, row, pixels, maps)
        on_progress(len(shown), len(rows))
    summary = page_summary(table, classifier.facts, names, calibrated)
    storage.write_text(options.html, prediction_page(summary, [shown[row] for row in rows if row in shown]))
    return len(shown)


def least_certain(table: PredictionTable, most: int) -> list[int]:
    """Rows of the readable images that are least certain, the worst first; equal ones in their order."""
    ordered = np.argsort(-np.nan_to_num(table.uncertainty_N, nan=-1.0), kind="stable")
    return [int(row) for row in ordered if table.predicted[int(row)]][:most]


def _pictures(
    classifier: Classifier,
    table: PredictionTable,
    images: Sequence[InputImage],
    rows: Sequence[int],
    workers: int,
) -> Iterator[Pictured]:
    """The pictures of these rows, in their order."""
    interpolation = classifier.backbone.preparation.interpolation
    chosen_images = [images[row] for row in rows]
    waiting: list[tuple[int, Pixels]] = []
    # Closed in any case, because that ends the workers.
    with closing(read_images(chosen_images, workers, classifier.image_size, interpolation)) as results:
        for row, (_, prepared) in zip(rows, results, strict=True):
            # It was readable before: its file has changed meanwhile, and its row gets no picture.
            if prepared.pixels is not None:
                waiting.append((row, prepared.pixels))
            if len(waiting) == BATCH:
                yield from _with_maps(classifier, table, waiting)
                waiting = []
    yield from _with_maps(classifier, table, waiting)


def _with_maps(
    classifier: Classifier, table: PredictionTable, waiting: Sequence[tuple[int, Pixels]]
) -> Iterator[Pictured]:
    outputs = [mapped_outputs(table, row) for row, _ in waiting]
    images = [pixels for (_, pixels), mapped in zip(waiting, outputs, strict=True) for _ in mapped]
    maps = gradient_maps(classifier, images, [output for mapped in outputs for output in mapped])
    for (row, pixels), mapped in zip(waiting, outputs, strict=True):
        yield row, pixels, {output: next(maps) for output in mapped}
