"""The types of pictures.json, checked when it is read, so that a page can draw it."""

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


def _readable(text: str) -> str:
    try:
        # load() decodes the pixels. open() alone reads the header and lets a cut-off picture pass.
        Image.open(io.BytesIO(base64.b64decode(text, validate=True))).load()
    # Pillow reports broken files by several exceptions; SyntaxError is that of a broken PNG.
    except (binascii.Error, OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise ValueError("is no picture") from error
    return text


def _rectangular(heat: list[list[float]]) -> list[list[float]]:
    if len({len(row) for row in heat}) != 1 or not heat[0]:
        raise ValueError("is no map: its rows are of many lengths")
    return heat


Picture: TypeAlias = Annotated[str, AfterValidator(_readable)]
"""What `encoding.encode_picture` gave."""
Heat: TypeAlias = Annotated[list[list[float]], AfterValidator(_rectangular)]
"""What `encoding.round_heat_map` gave."""
Pair: TypeAlias = Annotated[list[float], Field(min_length=2, max_length=2)]


@_OPEN
class Mistake(TypedDict):
    """One of the worst."""

    key: str
    label: str
    predicted: str
    probabilities: dict[str, float]
    image: Picture
    rollout: Heat
    gradient: Heat


@_OPEN
class Mistakes(TypedDict):
    """Those of the first seed."""

    seed: int
    wrong: Count
    images: list[Mistake]


@_OPEN
class Directions(TypedDict):
    """Two directions of the frozen features."""

    points: list[Pair]
    explained: Pair


@_OPEN
class FilledIn(TypedDict):
    """What one checkpoint made of the images."""

    step: StepNumber | None
    reconstruction: list[str]
    difference: list[str]


def _together(tree: Reconstructions) -> Reconstructions:
    columns = [*tree["checkpoints"], tree]
    lengths = {len(column[name]) for column in columns for name in _LISTS if name in column}  # type: ignore[literal-required]
    # The page walks through these lists by index: a shorter one would end in an IndexError there.
    if len(lengths) != 1:
        raise ValueError("has lists of many lengths, of the same images")
    return tree


_LISTS = ("labels", "original", "masked", "reconstruction", "difference")


@_OPEN
class Reconstructions(TypedDict):
    """A few test images filled in, by several checkpoints."""

    labels: list[str]
    original: list[str]
    masked: list[str]
    checkpoints: Annotated[list[FilledIn], Field(min_length=1)]


@_OPEN
class PicturesFile(TypedDict):
    """pictures.json; what could not be had is None."""

    mistakes: NotRequired[Mistakes | None]
    features: NotRequired[Directions | None]
    reconstructions: NotRequired[Annotated[Reconstructions, AfterValidator(_together)] | None]
