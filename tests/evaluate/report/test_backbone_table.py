from __future__ import annotations

from typing import Any

from retfound_dist.evaluate.report.backbone_table import backbone_tables, token_warning


def facts(**changes: Any) -> dict[str, Any]:
    return {
        "family": "vit_small_patch16_dinov3", "image_size": 224, "width": 384, "tokens": 201,
        "parameters": 21_590_000, "gflops": 9.24, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
        "interpolation": "bicubic", **changes,
    }  # fmt: skip


def test_each_row_shows_what_it_is_and_what_it_cost() -> None:
    speed = {"test_images_per_s": 1234.56, "finetune_s": 61.2}
    trees = {
        "ours": {"checkpoint": {"backbone": facts()}, "speed": speed},
        "clip": {"checkpoint": {"backbone": facts(mean=[0.48145466, 0.4578275, 0.40821073])}},
        "old": {"checkpoint": {"url": "made before"}},
    }
    (table,) = backbone_tables(trees)
    rows = {line["name"]: [cell["value"] for cell in line["cells"]] for line in table["lines"]}
    assert rows["ours"] == [
        "vit_small_patch16_dinov3", "224 px", "201", "21.6 M", "9.2", "ImageNet", "bicubic", "1,234.6", "61 s",
    ]  # fmt: skip
    assert rows["clip"][5:] == ["mean 0.481, 0.458, 0.408", "bicubic", "-", "-"]
    assert list(rows) == ["ours", "clip"]
    assert len(table["columns"]) == len(rows["ours"])
    assert backbone_tables({"old": trees["old"]}) == []


def test_rows_that_see_different_numbers_of_tokens_are_named() -> None:
    assert token_warning({"a": facts(), "b": facts()}) == ""
    text = token_warning({"ours": facts(tokens=197), "dinov2": facts(tokens=1374, image_size=518)})
    assert "(ours 197, dinov2 1,374)" in text
    assert 'set sizes="same"' in text
    same_size = token_warning({"ours": facts(tokens=65), "convnext": facts(tokens=9)})
    assert same_size.endswith("their patches differ in size")
