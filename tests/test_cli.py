"""A user's mistakes: one line that says what, where and what to do; exit 2; nothing half written."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from retfound_dist.cli import main
from tests import ROOT

PRETRAIN, PACK, EVALUATE = (f"configs/demo/{name}.toml" for name in ("pretrain", "pack", "evaluate"))


@pytest.fixture(autouse=True)
def _in_the_repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """Folders and files a user may name by mistake."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "junk" / "a").mkdir(parents=True)
    (tmp_path / "junk" / "a" / "note.jpg").write_text("hello")
    (tmp_path / "later").mkdir()
    (tmp_path / "later" / "manifest.json").write_text('{"format": 2}')
    (tmp_path / "broken.toml").write_text("a = ")
    (tmp_path / "weights.pth").write_text("x")
    for label in "AB":
        for number in range(8):
            path = tmp_path / ("one" if label == "A" else "two") / label / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.random.default_rng(number).integers(0, 256, (64, 64), dtype=np.uint8)).save(
                path
            )
    return tmp_path


MISTAKES = {
    "an empty folder": (["pack", PACK, "source.kind=folder", "source.path={}/empty", "out.url={}/o"], "empty"),
    "a folder of non-images": (["pack", PACK, "source.kind=folder", "source.path={}/junk", "out.url={}/o"], "note.jpg"),
    "no such folder": (["pack", PACK, "source.kind=folder", "source.path={}/none", "out.url={}/o"], "none"),
    "an unknown key": (["pretrain", PRETRAIN, "train.global_bach=8"], "did you mean train.global_batch?"),
    "a wrong type": (["pretrain", PRETRAIN, "train.global_batch=many"], "train.global_batch='many'"),
    "a batch of 0": (["pretrain", PRETRAIN, "train.global_batch=0"], "greater than 0"),
    "both lengths": (["pretrain", PRETRAIN, "train.epochs=3", "train.steps=3"], "exactly one"),
    "no such shards": (["pretrain", PRETRAIN, "data.shards={}/none", "run.url={}/r"], "there is nothing at"),
    "a later manifest": (["pretrain", PRETRAIN, "data.shards={}/later", "run.url={}/r"], "format 2"),
    "no such config": (["pretrain", "{}/none.toml"], "none.toml"),
    "a config that is not TOML": (["show", "{}/broken.toml"], "not TOML"),
    "an override without a value": (["show", PRETRAIN, "train.steps"], "key=value"),
    "no shard set to verify": (["verify", "{}/empty"], "is an empty folder, not a shard set"),
    "no checkpoint to export": (["export", "{}/weights.pth", "--format", "timm", "--out", "{}/o"], "not a weights file"),
    "a checkpoint that is not one": (
        ["evaluate", EVALUATE, "checkpoint={}/weights.pth", "data.path={}/one", "out.url={}/o"], "weights"
    ),
    "an empty labelled set": (["evaluate", EVALUATE, "checkpoint=none", "data.path={}/empty", "out.url={}/o"], "empty"),
    "one class": (["evaluate", EVALUATE, "checkpoint=none", "data.path={}/one", "out.url={}/o"], "class"),
    "a folder to reconstruct with": (["reconstruct", "{}/empty", "x.png", "--out", "{}/o"], "COMMIT.json"),
}  # fmt: skip


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_gets_one_line_and_exit_2(
    mistake: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command, said = MISTAKES[mistake]
    before = sorted(place.rglob("*"))
    assert main([part.format(place) for part in command] + ["--quiet"]) == 2
    error = capsys.readouterr().err
    assert len(error.splitlines()) == 1, error
    assert error.startswith("retfound: ")
    assert said in error
    assert sorted(place.rglob("*")) == before


def test_debug_shows_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["pretrain", "none.toml", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_show_names_where_each_value_came_from(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", PRETRAIN, "train.seed=3"]) == 0
    rows = {line.split()[0]: line for line in capsys.readouterr().out.splitlines()}
    assert rows["train.seed"].split()[1:] == ["3", "command", "line"]
    assert rows["train.global_batch"].endswith(PRETRAIN)
    assert rows["optim.weight_decay"].endswith("default")


@pytest.mark.parametrize("config", sorted(p for p in Path("configs").rglob("*.toml")), ids=str)
def test_every_preset_is_a_good_config(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", str(config), "--json"]) == 0


def test_the_papers_presets_hold_the_papers_numbers() -> None:
    from retfound_dist.config.loading import load
    from retfound_dist.config.schema import PretrainConfig

    oct_, cfp, seed = (
        load(PretrainConfig, f"configs/pretrain_{n}.toml")[0] for n in ("vitl_oct", "vitl_cfp", "seed")
    )
    assert (oct_.model.mask_ratio, cfp.model.mask_ratio) == (0.75, 0.85)
    for paper in (oct_, cfp):
        assert (paper.train.global_batch, paper.train.epochs, paper.optim.warmup_epochs) == (1792, 800, 15)
        assert (paper.optim.base_lr, paper.optim.betas, paper.optim.weight_decay) == (
            1.5e-4,
            (0.9, 0.95),
            0.05,
        )
    assert (seed.train.global_batch, seed.train.epochs) == (16, 50)


def test_interrupted_is_130(place: Path) -> None:
    code = (
        "import sys, retfound_dist.cli as cli\n"
        "def stop(args): raise KeyboardInterrupt\n"
        "cli.COMMANDS['verify'] = stop\n"
        "sys.exit(cli.main(['verify', 'x']))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 130


def test_overrides_may_stand_behind_options_but_nothing_else_may(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["show", PRETRAIN, "--json", "train.steps=7"]) == 0
    assert '"value": 7' in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["show", PRETRAIN, "--jsn"])
    with pytest.raises(SystemExit):
        main(["verify", "somewhere", "a=b"])
