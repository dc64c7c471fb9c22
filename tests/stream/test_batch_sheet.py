"""`retfound batch`: what a step's batch holds."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.cli import main
from retfound_dist.stream import open_stream
from retfound_dist.stream.batch_sheet import CAPTION, GAP, THUMB
from tests.stream.stream_inputs import make_set


def write_config(folder: Path, shards: str) -> str:
    path = folder / "run.toml"
    path.write_text(
        f'[run]\nurl = "{folder}/run"\n[data]\nshards = "{shards}"\n'
        '[model]\nname = "vit_small_patch16"\nimage_size = 64\n'
        "[train]\nglobal_batch = 10\nsteps = 3\nseed = 4\n"
    )
    return str(path)


def test_the_printed_keys_and_digest_are_what_training_reads(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    manifest = make_set(tmp_path, count=40)
    assert main(["batch", write_config(tmp_path, manifest.url), "--step", "3"]) == 0
    head, *lines = capsys.readouterr().out.splitlines()
    with open_stream(manifest, 10, seed=4, workers=0, start_step=2) as stream:
        batch = next(iter(stream))
    assert f"{batch.digest:016x}" in head
    assert [line.split()[1] for line in lines] == batch.keys


def test_the_sheet_shows_each_image_in_its_slot(tmp_path: Path) -> None:
    manifest = make_set(tmp_path, count=40)
    out = tmp_path / "sheet.png"
    assert main(["batch", write_config(tmp_path, manifest.url), "--step", "1", "--out", str(out)]) == 0
    sheet = np.asarray(Image.open(out).convert("L"))
    with open_stream(manifest, 10, seed=4, image_size=64, workers=0) as stream:
        images = next(iter(stream)).images
    slot, columns = 6, 4
    left, top = GAP + slot % columns * (THUMB + GAP), GAP + slot // columns * (THUMB + CAPTION + GAP)
    expected = Image.fromarray(images[slot, 0].numpy()).resize((THUMB, THUMB), Image.Resampling.BILINEAR)
    assert np.array_equal(sheet[top : top + THUMB, left : left + THUMB], np.asarray(expected))


def test_step_0_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = make_set(tmp_path, count=20)
    assert main(["batch", write_config(tmp_path, manifest.url), "--step", "0"]) == 2
    assert "counted from 1" in capsys.readouterr().err
