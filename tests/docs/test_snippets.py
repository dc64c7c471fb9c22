"""What pages show in Python to load weights gives what `retfound embed` gives."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from PIL import Image

from retfound_dist.cli import main
from tests.docs.pages import DOCS, ROOT
from tests.evaluate.inputs import checkpoint

FILES = {"local-dir:folder": "hf", "timm.pth": "timm", "mae.pth": "mae", "mae.safetensors": "safetensors"}
"""What a snippet reads, and the format that it is exported in."""
SMALL = '"vit_tiny_patch16_224", img_size=28, patch_size=14, embed_dim=192, depth=6, num_heads=3'
LOADS = re.compile(r"create_model|torch\.load|load_file|load_state_dict|read_weights")


def snippets() -> Iterator[tuple[str, str]]:
    """Every Python block of a page that loads weights, with the page's name."""
    for page in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(DOCS.glob("*.md"))):
        for block in re.findall(r"^```python\n(.*?)^```", page.read_text(), re.M | re.S):
            if LOADS.search(block):
                yield page.name, block


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint in every format under the names of the pages, an image, and its embedding."""
    root = tmp_path_factory.mktemp("work")
    held = checkpoint(root / "run", 3)
    (root / "images").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (60, 90), dtype=np.uint8)
    Image.fromarray(pixels).save(root / "images/scan.png")
    Image.fromarray(pixels).save(root / "scan.png")
    for name, kind in FILES.items():
        out = str(root / name.removeprefix("local-dir:"))
        assert main(["export", held, "--format", kind, "--out", out]) == 0
    assert main(["embed", held, str(root / "images"), "--out", str(root / "features.npz")]) == 0
    return root


def test_the_pages_show_each_format_that_there_is() -> None:
    shown = "".join(block for _, block in snippets())
    assert all(f'"{name}"' in shown for name in FILES)


@pytest.mark.parametrize(("page", "block"), list(snippets()))
def test_a_snippet_that_loads_weights_gives_what_embed_gives(
    page: str, block: str, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(work)
    told: dict[str, Any] = {}
    exec(block.replace('"vit_large_patch16_224"', SMALL), told)
    expected = np.load("features.npz")["features"]
    if "features" in told:
        np.testing.assert_allclose(told["features"], expected, rtol=1e-4, atol=1e-5)
    folder = timm.create_model("local-dir:folder", pretrained=True)
    transform = timm.data.create_transform(**timm.data.resolve_data_config({}, model=folder))
    image = transform(Image.open("scan.png").convert("L").convert("RGB"))[None]
    with torch.no_grad():
        np.testing.assert_allclose(told["model"](image), expected, rtol=1e-4, atol=1e-5)


def test_each_line_of_the_export_table_parses(work: Path) -> None:
    lines = re.findall(r"^retfound export CHECKPOINT --format (\w+)", (DOCS / "model.md").read_text(), re.M)
    assert sorted(lines) == sorted(FILES.values())
