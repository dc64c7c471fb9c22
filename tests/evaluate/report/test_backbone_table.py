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
    trained = {"method": "lora", "trained_parameters": 297_000, "parameters": 21_890_000}
    trees = {
        "ours": {"checkpoint": {"backbone": facts()}, "finetune": trained, "speed": speed},
        "clip": {"checkpoint": {"backbone": facts(mean=[0.48145466, 0.4578275, 0.40821073])}},
        "old": {"checkpoint": {"url": "made before"}},
    }
    (table,) = backbone_tables(trees)
    rows = {line["name"]: [cell["value"] for cell in line["cells"]] for line in table["lines"]}
    assert rows["ours"] == [
        "vit_small_patch16_dinov3", "224 px", "201", "21.6 M", "0.3 M (1.36 %)", "9.2", "ImageNet", "bicubic",
        "1,234.6", "61 s",
    ]  # fmt: skip
    assert rows["clip"][4:] == ["-", "9.2", "mean 0.481, 0.458, 0.408", "bicubic", "-", "-"]
    assert list(rows) == ["ours", "clip"]
    assert len(table["columns"]) == len(rows["ours"])
    assert backbone_tables({"old": trees["old"]}) == []


def test_trained_parameters_are_readable_from_a_head_to_a_whole_large_encoder() -> None:
    def cell(trained: int, parameters: int) -> str:
        finetune = {"method": "full", "trained_parameters": trained, "parameters": parameters}
        (table,) = backbone_tables({"": {"checkpoint": {"backbone": facts()}, "finetune": finetune}})
        return str(dict(zip(table["columns"], table["lines"][0]["cells"], strict=True))["trained"]["value"])

    assert cell(303_304_707, 303_304_707) == "303.3 M (100 %)"
    assert cell(3_843, 21_593_843) == "0.0038 M (0.0178 %)"
    assert cell(1_200_000, 88_000_000) == "1.2 M (1.36 %)"


def test_rows_that_see_different_numbers_of_tokens_are_named() -> None:
    assert token_warning({"a": facts(), "b": facts()}) == ""
    text = token_warning({"ours": facts(tokens=197), "dinov2": facts(tokens=1374, image_size=518)})
    assert "(ours 197, dinov2 1,374)" in text
    assert 'set sizes="same"' in text
    same_size = token_warning({"ours": facts(tokens=65), "convnext": facts(tokens=9)})
    assert same_size.endswith("their patches differ in size")
