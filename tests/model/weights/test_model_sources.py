from __future__ import annotations

import pytest

from retfound_dist.errors import WeightsError
from retfound_dist.model.weights.model_sources import HubSource, TimmSource, parse


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("timm:convnext_base", TimmSource("convnext_base", "")),
        (
            "timm:vit_base_patch16_224.mae@s3://b/a@b/w.pth",
            TimmSource("vit_base_patch16_224.mae", "s3://b/a@b/w.pth"),
        ),
        ("hf:YukunZhou/RETFound_mae_natureOCT", HubSource("YukunZhou/RETFound_mae_natureOCT", "", "")),
        ("hf:a/b@v1.0", HubSource("a/b", "v1.0", "")),
        ("hf:a/b@main/weights/w.pth", HubSource("a/b", "main", "weights/w.pth")),
        ("hf:a/b/w@2.pth", HubSource("a/b", "", "w@2.pth")),
    ],
)
def test_a_name_is_taken_apart(text: str, expected: TimmSource | HubSource) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text", ["none", "runs/one", "s3://bucket/w.pth", "vit_base_patch16_224.mae", "timm/w.pth"]
)
def test_paths_and_urls_are_no_names(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text", ["timm:", "timm:@w.pth", "timm:vit_base@", "hf:", "hf:repo", "hf:a/b@", "hf:a/b/"]
)
def test_a_name_that_is_cut_is_refused_with_its_forms(text: str) -> None:
    with pytest.raises(WeightsError, match=r"is not complete: give (timm|hf):"):
        parse(text)
