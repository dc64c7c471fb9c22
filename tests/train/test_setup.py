"""A start that names something wrong: one line, exit 2, and no run that would refuse the corrected command."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from retfound_dist import storage
from retfound_dist.cli import main
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.schema import Model
from tests.stream.stream_inputs import make_set
from tests.train.launching import ROOT, SMALL, metrics, pretrain

CONFIG = str(ROOT / "configs/demo/pretrain.toml")
WRONG = {
    "model.init=typo.pth": "no weights at typo.pth",
    "model.init=SHARDS": "is a folder without",
    "model.init=OTHER": "does not fit this encoder",
    "model.init=TEXT": "not a weights file",
    "model.name=vit_larg": "model.name='vit_larg' is not an encoder",
    "model.image_size=30": "model.image_size=30 is not a multiple of the patch",
    "model.decoder_heads=5": "model.decoder_heads=5",
    "model.mask_ratio=0.9": "model.mask_ratio=0.9 keeps 0 of 4 patches",
    "data.shards=nowhere": "nowhere",
    "data.split=test": "test",
    "data.held_out=val": "is trained on with data.split",
    "train.epochs=2": "give exactly one of them",
    "train.global_batch=0": "train.global_batch=0",
    "train.micro_batch=0": "train.micro_batch",
    "train.zero_stage=4": "train.zero_stage",
    "optim.betas=[0.9, 1.5]": "optim.betas",
    "train.max_minuts=3": "max_minutes",
}
"""Settings, and what is said of each."""


DEMO = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("places")
    small = MaskedAutoencoder(Model(name="vit_small_patch16", image_size=32, decoder_depth=1))
    torch.save(small.state_dict(), root / "other.pth")
    (root / "text.pth").write_text("x")
    torch.save({"model": MaskedAutoencoder(DEMO).state_dict()}, root / "good.pth")
    names = {"OTHER": "other.pth", "TEXT": "text.pth", "GOOD": "good.pth"}
    return {"SHARDS": make_set(root).url, **{key: str(root / name) for key, name in names.items()}}


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a start in this process puts into the environment goes with the test."""
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "")
        monkeypatch.delenv(name)


@pytest.mark.parametrize("base", ["disk", "memory"])
@pytest.mark.parametrize("setting", WRONG, ids=[text.replace("/", "-") for text in WRONG])
def test_a_wrong_setting_is_one_line_and_leaves_no_run(
    setting: str,
    base: str,
    places: dict[str, str],
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    alone: None,
) -> None:
    run = str(tmp_path / "run") if base == "disk" else f"memory://runs/{tmp_path.name}"
    key, _, value = setting.partition("=")
    args = [f"run.url={run}", f"data.shards={places['SHARDS']}", *SMALL, "train.steps=2"]
    assert main(["pretrain", CONFIG, *args, f"{key}={places.get(value, value)}"]) == 2
    said = [line for line in capfd.readouterr().err.splitlines() if line.startswith("retfound:")]
    assert len(said) == 1
    assert WRONG[setting] in said[0]
    assert not storage.exists(run)


@pytest.mark.slow
def test_on_two_ranks_the_line_is_said_once_and_the_corrected_command_starts(
    places: dict[str, str], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    wrong = pretrain(2, run, places["SHARDS"], "train.steps=2", f"model.init={places['OTHER']}")
    assert wrong.returncode != 0
    (line,) = [line for line in wrong.stderr.splitlines() if line.startswith("retfound:")]
    assert "does not fit this encoder" in line
    assert "exitcode  : 2" in wrong.stderr
    assert not re.search(r'File ".*retfound_dist/', wrong.stderr)  # torchrun's own traceback alone
    assert not run.exists()
    good = pretrain(2, run, places["SHARDS"], "train.steps=2", f"model.init={places['GOOD']}")
    assert good.returncode == 0, good.stderr
    assert [row["step"] for row in metrics(run)] == [1, 2]


def test_a_run_that_is_there_is_left_as_it_was(
    places: dict[str, str], tmp_path: Path, capfd: pytest.CaptureFixture[str], alone: None
) -> None:
    run = tmp_path / "run"
    run.mkdir()
    (run / "notes.txt").write_text("mine")
    args = [f"run.url={run}", f"data.shards={places['SHARDS']}", *SMALL, "train.steps=2", "model.init=typo.pth"]
    assert main(["pretrain", CONFIG, *args]) == 2
    assert [path.name for path in run.iterdir()] == ["notes.txt"]
    assert "no weights at typo.pth" in capfd.readouterr().err
