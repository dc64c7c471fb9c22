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
from retfound_dist.evaluate.pixels.gray_pixels import Pixels, decode_grey, resize_for_testing
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import output_files, storage
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.model.weights.weight_files import autoencoder_from, read_weights

PANELS = ("original", "masked", "reconstruction", "difference")
_MASKED_GREY = 96
"""Grey level of masked patches in the picture."""
_GAP_PIXELS = 4
_MIN_WIDTH = 896
"""A narrower picture is enlarged by a picture factor to about this width."""


@dataclass(frozen=True)
class Reconstruction:
    """The four panels of one image, (S, S) grey each."""

    original: Pixels
    masked: Pixels
    reconstruction: Pixels
    difference: Pixels
    """Absolute difference between reconstruction and original, in grey levels."""

    def panels(self) -> tuple[Pixels, ...]:
        """The panels in the order of `PANELS`."""
        return self.original, self.masked, self.reconstruction, self.difference


def reconstruct_command(
    checkpoint: str, images: Sequence[str], out: str, seed: int = 0, force: bool = False
) -> int:
    """Write one PNG with a row for each image; RetfoundError for anything that a user can fix."""
    output_files.check_may_write(out, "reconstruct", force)
    weights = read_weights(checkpoint_folder.resolve(checkpoint))
    model = autoencoder_from(weights)
    if weights.remark:
        print(weights.remark)
    pixels = [resize_for_testing(_read(path), model.config.size) for path in images]
    storage.write_bytes(
        out, encode_png(panel_sheet(reconstruct(model, pixels, seed)), output_files.mark("reconstruct"))
    )
    return 0


def reconstruct(model: MaskedAutoencoder, images: Sequence[Pixels], seed: int) -> list[Reconstruction]:
    """Mask images (H, W) with noise from `seed` and reconstruct them.

    The same seed masks the same patches for every checkpoint with the same grid.
    """
    patches, patch = model.patches, model.shape.patch
    # On the CPU, because a GPU gives other random numbers for the same seed.
    noise_NL = torch.rand(len(images), patches, generator=torch.Generator().manual_seed(seed))
    batch = torch.from_numpy(np.stack(images)[:, None])
    reconstructed_N3HW, mask_NL = model.reconstruct(batch, noise_NL)
    reconstructions = []
    for i, original in enumerate(images):
        masked_HW = np.kron(mask_NL[i].reshape(model.grid).numpy(), np.ones((patch, patch))) > 0
        grey = reconstructed_N3HW[i].float().mean(0).round().to(torch.uint8).numpy()
        # Signed, because a difference of uint8 wraps around below 0.
        difference = np.abs(grey.astype(int) - original).astype(np.uint8)
        masked = np.where(masked_HW, np.uint8(_MASKED_GREY), original)
        reconstructions.append(Reconstruction(original, masked, grey, difference))
    return reconstructions


def panel_sheet(rows: Sequence[Reconstruction]) -> NDArray[np.uint8]:
    """All panels as one picture, (H, W) grey with white gaps."""
    lines = [_join_with_gaps(row.panels(), axis=1) for row in rows]
    picture = _join_with_gaps(lines, axis=0)
    factor = max(1, round(_MIN_WIDTH / picture.shape[1]))
    return np.asarray(
        Image.fromarray(picture).resize(
            (picture.shape[1] * factor, picture.shape[0] * factor), Image.Resampling.NEAREST
        )
    )


def encode_png(pixels: NDArray[np.uint8], software: str = "") -> bytes:
    """The bytes of a PNG file. `software`: the program that is written into it as its maker."""
    buffer, text = io.BytesIO(), PngInfo()
    if software:
        text.add_text("Software", software)
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True, pnginfo=text)
    return buffer.getvalue()


def _join_with_gaps(panels: Sequence[NDArray[np.uint8]], axis: int) -> NDArray[np.uint8]:
    shape = list(panels[0].shape)
    shape[axis] = _GAP_PIXELS
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
