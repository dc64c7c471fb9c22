"""The model card that goes with exported weights."""

import json
from pathlib import Path

import pytest

from retfound_dist.cli import main
from retfound_dist.config.loading import to_dict
from retfound_dist.config.schema import Data, PretrainConfig, Run, Train
from retfound_dist.export.exported_files import card_url
from retfound_dist.runs.model_card import Card, render
from tests.evaluate.inputs import checkpoint
from tests.runs.made_runs import write_score
from tests.stream.stream_inputs import make_set


def test_every_export_has_a_card_with_data_recipe_scores_and_licence(tmp_path: Path) -> None:
    manifest = make_set(tmp_path)
    url = checkpoint(tmp_path / "run", 7)
    write_score(str(tmp_path / "run"), 7, 0.9)
    commit = Path(url) / "COMMIT.json"
    shards = PretrainConfig(run=Run(url="r"), data=Data(shards=manifest.url), train=Train(steps=1))
    tree = json.loads(commit.read_text())
    tree["config"] = to_dict(shards) | {"model": tree["config"]["model"]}
    commit.write_text(json.dumps(tree))
    for kind in ("mae", "timm", "safetensors", "hf"):
        out = str(tmp_path / f"weights_{kind}")
        assert main(["export", url, "--format", kind, "--out", out]) == 0
        card = Path(card_url(out, kind)).read_text()
        for text in (
            "| images | folder | 50 |", "vit_demo_patch14", "base 0.00015", "| AUROC | 0.900 | 0.850 to 0.950 |",
            "Trained from nothing", "step 7", "Limits", f"`{kind}`",
        ):  # fmt: skip
            assert text in card, text


@pytest.mark.parametrize(
    ("init", "licence"),
    [
        ("none", "none"),
        ("weights/mae_pretrain_vit_large.pth", "CC BY-NC 4.0"),
        ("s3://b/RETFound_oct_weights.pth", "CC BY-NC 4.0"),
        ("s3://b/runs/old/checkpoints/step_00000100", ""),
    ],
)
def test_the_starting_weights_licence_goes_along(init: str, licence: str) -> None:
    config = to_dict(PretrainConfig(run=Run(url="r"), data=Data(shards="s"), train=Train(steps=1)))
    config["model"]["init"] = init
    card = render(Card("w", "o", 1, "mae", config=config, data_fault="no such bucket"), encoder_only=True)
    if licence == "CC BY-NC 4.0":
        assert "Not for commercial use" in card
        assert "license: cc-by-nc-4.0" in card
    elif not licence:
        assert "find it out" in card
    assert "no such bucket" in card


def test_weights_that_came_without_a_config_say_that_nothing_is_known() -> None:
    card = render(
        Card("w", "o", 1, "mae", data_fault="the weights came without a config"), encoder_only=False
    )
    assert card.count("Not known") == 3
