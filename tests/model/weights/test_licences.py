"""Whose weights are, and under which licence."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from retfound_dist.model.weights.licences import licence_of, original_weights
from tests.evaluate.inputs import checkpoint


@pytest.mark.parametrize(
    ("name", "licence"),
    [
        ("none", "none"),
        ("weights/mae_pretrain_vit_large.pth", "CC BY-NC 4.0"),
        ("s3://b/RETFound_oct_weights.pth", "CC BY-NC 4.0"),
        ("s3://b/runs/old/checkpoints/step_00000100", ""),
    ],
)
def test_the_licence_follows_from_the_name(name: str, licence: str) -> None:
    assert licence_of(name)[1] == licence


def test_a_chain_of_warm_starts_is_followed_to_where_it_began(tmp_path: Path) -> None:
    url = checkpoint(tmp_path / "run", 7)
    commit = Path(url) / "COMMIT.json"
    tree = json.loads(commit.read_text())
    tree["config"]["model"]["init"] = "mae_pretrain_vit_large.pth"
    commit.write_text(json.dumps(tree))
    assert original_weights(url) == "mae_pretrain_vit_large.pth"
