"""The types of pictures.json. They are checked when it is read, so that a page can draw it."""

from __future__ import annotations

import base64
import binascii
import io
from typing import Annotated, NotRequired, TypeAlias

from PIL import Image
from pydantic import AfterValidator, ConfigDict, Field, with_config
from typing_extensions import TypedDict

from retfound_dist.formats.log_rows import StepNumber
from retfound_dist.records.json_reader import Count

_OPEN = with_config(ConfigDict(extra="allow"))
"""Keys of a later version stay in the tree."""


def _check_picture(text: str) -> str:
    """The same base64 text; ValueError if it is not a picture."""
    try:
        # load() decodes the pixels. open() reads only the header and accepts a truncated picture.
        Image.open(io.BytesIO(base64.b64decode(text, validate=True))).load()
    # Pillow has several exceptions for broken files; SyntaxError is for a broken PNG.
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("is not a picture") from error
    return text


def _rectangular(heat: list[list[float]]) -> list[list[float]]:
    if len({len(row) for row in heat}) != 1 or not heat[0]:
        raise ValueError("is not a map: its rows have different lengths")
    return heat


Picture: TypeAlias = Annotated[str, AfterValidator(_check_picture)]
"""A result of `image_encoding.encode_picture`."""
Heat: TypeAlias = Annotated[list[list[float]], AfterValidator(_rectangular)]
"""A result of `image_encoding.round_heat_map`."""
Pair: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2)]


@_OPEN
class Mistake(TypedDict):
    """One of the worst mistakes."""

    key: str
    label: str
    predicted: str
    probabilities: dict[str, float]
    image: Picture
    rollout: NotRequired[Heat]
    """Missing for a family without attention."""
    gradient: Heat


@_OPEN
class Mistakes(TypedDict):
    """The worst mistakes of the first seed."""

    seed: int
    wrong: Count
    images: list[Mistake]


@_OPEN
class Directions(TypedDict):
    """The frozen features in two directions."""

    points: list[Pair]
    explained: Pair


@_OPEN
class CheckpointImages(TypedDict):
    """The reconstructions of one checkpoint."""

    step: StepNumber | None
    reconstruction: list[str]
    difference: list[str]


def _equal_lengths(tree: Reconstructions) -> Reconstructions:
    columns = [*tree["checkpoints"], tree]
    lengths = {len(column[name]) for column in columns for name in _LISTS if name in column}  # type: ignore[literal-required]
    # The page reads these lists by index, so a shorter one would raise an IndexError there.
    if len(lengths) != 1:
        raise ValueError("has lists of different lengths for the same images")
    return tree


_LISTS = ("labels", "original", "masked", "reconstruction", "difference")


@_OPEN
class Reconstructions(TypedDict):
    """A few test images, reconstructed by several checkpoints."""

    labels: list[str]
    original: list[str]
    masked: list[str]
    checkpoints: Annotated[list[CheckpointImages], Field(min_length=1)]


@_OPEN
class PicturesFile(TypedDict):
    """pictures.json. None: the picture could not be made."""

    mistakes: NotRequired[Mistakes | None]
    features: NotRequired[Directions | None]
    reconstructions: NotRequired[Annotated[Reconstructions, AfterValidator(_equal_lengths)] | None]
