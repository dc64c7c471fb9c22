from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from PIL import Image

from retfound_dist.errors import DataError, WeightsError
from retfound_dist.evaluate.pixels.gray_pixels import decode_grey, resize_for_testing
from retfound_dist.evaluate.probe.reconstruct import reconstruct, reconstruct_command
from retfound_dist.model.mae import MaskedAutoencoder
from tests.evaluate.inputs import MODEL, checkpoint, image_bytes


def test_a_png_has_a_row_for_each_image_and_four_panels(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 3)
    files = []
    for i in range(2):
        files.append(str(tmp_path / f"{i}.jpg"))
        Path(files[-1]).write_bytes(image_bytes(i, i))
    assert reconstruct_command(url, files, str(tmp_path / "f.png")) == 0
    with Image.open(tmp_path / "f.png") as picture:
        width, height = picture.size
    factor = width // (4 * 28 + 3 * 4)
    assert (width, height) == (factor * (4 * 28 + 3 * 4), factor * (2 * 28 + 4))


def test_kept_patches_are_the_original_s_and_removed_ones_are_grey_in_the_masked_panel() -> None:
    model = MaskedAutoencoder(MODEL).eval()
    image = resize_for_testing(decode_grey(image_bytes(1, 0)), 28)
    found = reconstruct(model, [image], seed=0)[0]
    removed = found.masked != found.original
    patches = removed.reshape(2, 14, 2, 14).any(axis=(1, 3))
    assert patches.sum() == 3  # 4 patches, mask ratio 0.75
    kept = ~np.kron(patches, np.ones((14, 14), bool))
    assert np.abs(found.reconstruction[kept].astype(int) - image[kept]).max() <= 1
    assert found.difference.max() > 1


def test_the_same_seed_masks_the_same_patches_for_every_checkpoint() -> None:
    image = resize_for_testing(decode_grey(image_bytes(1, 0)), 28)
    masks = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        masks.append(reconstruct(MaskedAutoencoder(MODEL).eval(), [image], seed=4)[0].masked)
    assert (masks[0] == masks[1]).all()


def test_weights_without_a_decoder_are_refused(tmp_path: Path) -> None:
    state = {k: v for k, v in MaskedAutoencoder(MODEL).state_dict().items() if "decoder" not in k}
    safetensors.torch.save_file(state, tmp_path / "encoder.safetensors")
    (tmp_path / "a.jpg").write_bytes(image_bytes(0, 0))
    with pytest.raises(WeightsError, match="without its decoder"):
        reconstruct_command(str(tmp_path / "encoder.safetensors"), [str(tmp_path / "a.jpg")], "f.png")


@pytest.mark.parametrize("content", [None, b"hi", image_bytes(0, 0)[:300]], ids=["missing", "text", "cut"])
def test_an_image_that_cannot_be_read_gets_one_line(tmp_path: Path, content: bytes | None) -> None:
    url = checkpoint(tmp_path / "run", 3)
    if content:
        (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=r"a\.jpg"):
        reconstruct_command(url, [str(tmp_path / "a.jpg")], str(tmp_path / "f.png"))
    assert not (tmp_path / "f.png").exists()
