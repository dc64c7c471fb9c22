"""A start that names something wrong: one line, exit 2, and no run that would refuse the corrected command."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from retfound_dist.config.schema import Model
from retfound_dist.model.mae import MaskedAutoencoder
from tests.stream.stream_inputs import make_set
from tests.train.launching import ROOT, SMALL, metrics, pretrain

CONFIG = str(ROOT / "configs/demo/pretrain.toml")
WRONG = {
    "model.init=typo.pth": "no weights at typo.pth",
    "model.init=SHARDS": "is a shard set, not a checkpoint or weights file",
    "model.init=OTHER": "does not fit this encoder",
    "model.init=TEXT": "not a weights file",
    "model.name=vit_larg": "model.name='vit_larg' is not a known encoder",
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


Refused = tuple[int, list[str], bool]
"""Exit code, lines, whether the run is there."""


@pytest.fixture(scope="module")
def refused(
    places: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> dict[tuple[str, str], Refused]:
    """What became of each wrong setting, with a run on a disk and in memory."""
    root = tmp_path_factory.mktemp("refused")
    cases = [(setting, base) for setting in WRONG for base in ("disk", "memory")]
    (root / "there").mkdir()
    (root / "there" / "notes.txt").write_text("mine")
    commands = []
    for number, (setting, base) in enumerate([*cases, ("model.init=typo.pth", "there")]):
        run = {"disk": f"{root}/{number}", "memory": f"memory://runs/{number}", "there": f"{root}/there"}[
            base
        ]
        key, _, value = setting.partition("=")
        wrong = f"{key}={places.get(value, value)}"
        args = [f"run.url={run}", f"data.shards={places['SHARDS']}", *SMALL, "train.steps=2", wrong]
        commands.append((["pretrain", CONFIG, *args], run))
    (root / "commands.json").write_text(json.dumps(commands))
    env = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE")}
    done = subprocess.run(
        [sys.executable, "-m", "tests.train.refused", str(root / "commands.json")],
        capture_output=True, text=True, env=env, cwd=ROOT, check=True, timeout=500,
    )  # fmt: skip
    assert [path.name for path in (root / "there").iterdir()] == ["notes.txt"]
    found = json.loads(done.stdout.splitlines()[-1])  # gloo of torch 2.10 prints lines of its own before
    return dict(zip([*cases, ("typo", "there")], found, strict=True))


@pytest.mark.parametrize("base", ["disk", "memory"])
@pytest.mark.parametrize("setting", WRONG, ids=[text.replace("/", "-") for text in WRONG])
def test_a_wrong_setting_is_one_line_and_leaves_no_run(
    setting: str, base: str, refused: dict[tuple[str, str], Refused]
) -> None:
    code, said, there = refused[setting, base]
    assert code == 2
    assert len(said) == 1
    assert WRONG[setting] in said[0]
    assert not there


def test_a_folder_that_is_there_is_left_as_it_was(refused: dict[tuple[str, str], Refused]) -> None:
    """The fixture looks at what it holds."""
    code, said, there = refused["typo", "there"]
    assert (code, len(said), there) == (2, 1, True)


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
