"""`retfound reconstruct`: original | masked | reconstruction | difference, for any image files.

Shapes: N images, S side, L patches.
"""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from retfound_dist.errors import DataError, StorageError
from retfound_dist.evaluate.data.gray_pixels import Pixels, decode_grey, for_testing
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import output_files, storage
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import autoencoder_from, read_weights

PANELS = ("original", "masked", "reconstruction", "difference")
_REMOVED = 96
"""Grey level of a removed patch in the picture."""
_GAP = 4
_SMALLEST = 896
"""A narrower picture is enlarged by a whole factor until it is this wide."""


@dataclass(frozen=True)
class Reconstruction:
    """The four panels of one image, (S, S) grey each."""

    original: Pixels
    masked: Pixels
    reconstruction: Pixels
    difference: Pixels
    """Absolute difference of reconstruction and original, in grey levels."""

    def panels(self) -> tuple[Pixels, ...]:
        """In the order of `PANELS`."""
        return self.original, self.masked, self.reconstruction, self.difference


def reconstruct_command(
    checkpoint: str, images: Sequence[str], out: str, seed: int = 0, force: bool = False
) -> int:
    """Write one PNG with a row for each image; raises RetfoundError for anything a user can fix."""
    output_files.check_free(out, "reconstruct", force)
    weights = read_weights(checkpoint_folder.resolve(checkpoint))
    model = autoencoder_from(weights)
    if weights.remark:
        print(weights.remark)
    pixels = [for_testing(_read(path), model.config.size) for path in images]
    storage.write_bytes(out, png(sheet(reconstruct(model, pixels, seed)), output_files.mark("reconstruct")))
    return 0


def reconstruct(model: MaskedAutoencoder, images: Sequence[Pixels], seed: int) -> list[Reconstruction]:
    """Mask images (H, W) by noise drawn from `seed` and fill them in.

    The same seed masks the same patches for every checkpoint with the same grid.
    """
    patches, patch = model.patches, model.shape.patch
    # Drawn on the CPU, because a GPU's generator gives other numbers for the same seed.
    noise_NL = torch.rand(len(images), patches, generator=torch.Generator().manual_seed(seed))
    batch = torch.from_numpy(np.stack(images)[:, None])
    filled_N3HW, mask_NL = model.reconstruct(batch, noise_NL)
    reconstructions = []
    for i, original in enumerate(images):
        removed = np.kron(mask_NL[i].reshape(model.grid).numpy(), np.ones((patch, patch))) > 0
        grey = filled_N3HW[i].float().mean(0).round().to(torch.uint8).numpy()
        # Signed first: a difference of uint8 wraps around below 0.
        gap = np.abs(grey.astype(int) - original).astype(np.uint8)
        masked = np.where(removed, np.uint8(_REMOVED), original)
        reconstructions.append(Reconstruction(original, masked, grey, gap))
    return reconstructions


def sheet(rows: Sequence[Reconstruction]) -> NDArray[np.uint8]:
    """All panels as one picture, (H, W) grey with white gaps."""
    lines = [_beside(row.panels(), axis=1) for row in rows]
    whole = _beside(lines, axis=0)
    factor = max(1, round(_SMALLEST / whole.shape[1]))
    return np.asarray(
        Image.fromarray(whole).resize(
            (whole.shape[1] * factor, whole.shape[0] * factor), Image.Resampling.NEAREST
        )
    )


def png(pixels: NDArray[np.uint8], software: str = "") -> bytes:
    """A PNG file's bytes; `software`: the program that the file names as its maker."""
    buffer, text = io.BytesIO(), PngInfo()
    if software:
        text.add_text("Software", software)
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True, pnginfo=text)
    return buffer.getvalue()


def _beside(panels: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    shape = list(panels[0].shape)
    shape[axis] = _GAP
    gap = np.full(shape, 255, np.uint8)
    parts = [panels[0]]
    for panel in panels[1:]:
        parts += [gap, panel]
    return np.concatenate(parts, axis=axis)


def _read(path: str) -> Pixels:
    try:
        return decode_grey(storage.read_bytes(path))
    except StorageError as error:
        raise DataError(str(error)) from error
    except ValueError as error:
        raise DataError(f"{path} cannot be reconstructed: {error}") from error
