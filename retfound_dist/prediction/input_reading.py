"""Reads and prepares images in worker processes, as the evaluation prepares its test part.

Shapes: H W pixels of an image, S the side of the network's input.
"""

from __future__ import annotations

import hashlib
from collections import deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from itertools import groupby

import numpy as np

from retfound_dist.errors import DataError
from retfound_dist.evaluate.data.set_layouts import name_with_source, read_shard
from retfound_dist.evaluate.pixels.gray_pixels import Pixels, decode_grey, resize_for_testing
from retfound_dist.formats import shard_set_files
from retfound_dist.formats.shard_set import Shard
from retfound_dist.images.channels import to_grey
from retfound_dist.images.decoding import check_sides
from retfound_dist.io import storage
from retfound_dist.prediction.input_images import Content, InputImage, ScanFacts, ScanPixels, ShardSample
from retfound_dist.records import json_reader
from shards.images.preparation import from_pixels
from shards.ordered_map import ordered_map

UNIT_IMAGES, UNIT_SLICES = 32, 256
"""Most images that a worker reads at a time: files, and slices of one device file."""
Readable = bytes | Callable[[], bytes | ScanPixels]
"""The bytes of an image file, or a function that returns them or pixels."""


@dataclass(frozen=True, slots=True)
class PreparedImage:
    """An image that was read, or why it cannot be read."""

    identity: str
    """Changes with the content."""
    pixels: Pixels | None
    """Grey (S, S). None: it cannot be read, or only its identity was asked for."""
    reason: str = ""


def read_images(
    images: Sequence[InputImage], workers: int, side: int, interpolation: str
) -> Generator[tuple[InputImage, PreparedImage]]:
    """Each image with its facts and its pixels (`side`, `side`), in order; few of them are in memory.

    With one worker this process reads. StorageError, ManifestError and RecordError for a shard that cannot be
    read. Any fault of an image becomes its reason.
    """
    units = list(_units(images))
    facts: deque[list[ScanFacts | None]] = deque()
    contents = _unit_contents(units, facts)
    prepare = partial(_prepare_unit, side=side, interpolation=interpolation)
    # Not `ordered_map` for one worker: it would limit the network to one thread.
    results = map(prepare, contents) if workers <= 1 else ordered_map(prepare, contents, workers, chunk=1)
    for unit, prepared in zip(units, results, strict=True):
        for image, known, result in zip(unit, facts.popleft(), prepared, strict=True):
            yield (image if known is None else replace(image, facts=known)), result


def read_identities(images: Sequence[InputImage], workers: int) -> list[str]:
    """What changes with the content of each image. Samples of shards are not read for it."""
    if images and isinstance(images[0].content, ShardSample):
        return [image.content.identity for image in images if isinstance(image.content, ShardSample)]
    return [prepared.identity for _, prepared in read_images(images, workers, 0, "")]


def _units(images: Sequence[InputImage]) -> Iterator[list[InputImage]]:
    """Consecutive images that one worker reads at a time."""
    for together, group in groupby(images, key=lambda image: image.together):
        members = list(group)
        most = UNIT_SLICES if together and not isinstance(members[0].content, ShardSample) else UNIT_IMAGES
        for begin in range(0, len(members), most):
            yield members[begin : begin + most]


def _unit_contents(
    units: Sequence[list[InputImage]], facts: deque[list[ScanFacts | None]]
) -> Iterator[list[tuple[str, Readable]]]:
    """(identity, content) of each image of each unit; to `facts` goes what only reading shows."""
    samples = [unit[0].content for unit in units if isinstance(unit[0].content, ShardSample)]
    shards = _shards_ahead({sample.shard: sample.url for sample in samples})
    shard, data = None, b""
    for unit in units:
        if isinstance(unit[0].content, ShardSample) and unit[0].content.shard != shard:
            data = b""  # so that at most two shards are in memory
            shard, data = next(shards)
        facts.append([_sample_facts(image.content, data) for image in unit])
        yield [_readable(image.content, data) for image in unit]


def _shards_ahead(urls: Mapping[Shard, str]) -> Iterator[tuple[Shard, bytes]]:
    """Whole shards, each read while the one before it is used; ManifestError for a changed one."""
    # Whole, because only then their sha256 can be checked. In this process, so that each is read once.
    with ThreadPoolExecutor(1) as pool:
        reading: tuple[Shard, Future[bytes]] | None = None
        for shard, url in [*urls.items(), (None, "")]:
            finished = (reading[0], reading[1].result()) if reading else None
            reading = (shard, pool.submit(read_shard, url, shard)) if shard else None
            if finished:
                yield finished


def _readable(content: Content, shard_data: bytes) -> tuple[str, Readable]:
    if not isinstance(content, ShardSample):
        return "", content
    entry = content.entry
    return content.identity, shard_data[entry.image_offset : entry.image_offset + entry.image_bytes]


def _sample_facts(sample: Content, shard_data: bytes) -> ScanFacts | None:
    """What KEY.json says of a sample; None where it is none. RecordError where it is damaged."""
    if not isinstance(sample, ShardSample):
        return None
    entry = sample.entry
    fields = json_reader.parse(
        shard_data[entry.json_offset : entry.json_offset + entry.json_bytes],
        shard_set_files.SampleFields,
        f"{entry.key}.json of {storage.join(sample.url, sample.shard.name)}",
        "pack the set again",
    )
    several = sample.several_sources
    patient, volume = (name_with_source(fields, name, several) for name in ("patient", "volume"))
    return ScanFacts(patient, fields.get("eye"), volume, fields.get("slice"))


def _prepare_unit(contents: list[tuple[str, Readable]], side: int, interpolation: str) -> list[PreparedImage]:
    return [_prepare(identity, content, side, interpolation) for identity, content in contents]


def _prepare(identity: str, content: Readable, side: int, interpolation: str) -> PreparedImage:
    """One image, or why it cannot be read. Runs in any process."""
    try:
        data = content if isinstance(content, bytes) else content()
        identity = identity or content_digest(data)
        if not side:
            return PreparedImage(identity, None)
        return PreparedImage(identity, resize_for_testing(grey_pixels(data), side, interpolation))
    except Exception as error:  # decoders raise any error on a hostile file
        reason = reason_of(error)
        return PreparedImage(identity or f"cannot be read: {reason}", None, reason)


def grey_pixels(data: bytes | ScanPixels) -> Pixels:
    """(H, W) of an image file's bytes, or of a slice of a device file; DataError where it cannot be used."""
    return decode_grey(data) if isinstance(data, bytes) else check_sides(to_grey(from_pixels(data)))


def content_digest(data: bytes | ScanPixels) -> str:
    """sha256 of a file's bytes, or of pixels and their shape."""
    if isinstance(data, bytes):
        return storage.bytes_info(data).sha256
    head = f"{data.dtype.str} {data.shape} ".encode()
    return hashlib.sha256(head + np.ascontiguousarray(data).tobytes()).hexdigest()


def reason_of(error: Exception) -> str:
    """Why an image cannot be read, in one line of plain text."""
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    # A message may repeat a file name, with bytes that are not UTF-8.
    lines = str(error).encode(errors="backslashreplace").decode().splitlines()
    text = lines[0][:200] if lines and lines[0] else type(error).__name__
    return text if isinstance(error, DataError) else f"cannot be read ({text})"
