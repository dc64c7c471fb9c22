"""The page: one file, no network, words that say no more than the numbers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.evaluate import wording
from retfound_dist.evaluate.evaluate import evaluate_command
from retfound_dist.evaluate.plots import read_losses
from tests.evaluate.inputs import TINY, checkpoint, class_folders


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The report of an evaluated checkpoint."""
    root = tmp_path_factory.mktemp("report")
    class_folders(root / "set")
    config = root / "evaluate.toml"
    url = checkpoint(root / "run", 7)
    config.write_text(
        f'checkpoint = "{url}"\n[data]\npath = "{root / "set"}"\n[out]\nurl = "{root / "out"}"\n'
    )
    assert evaluate_command(str(config), TINY, quiet=True) == 0
    return root / "out" / "report.html"


class Links(HTMLParser):
    """Collects every src and href, and checks that tags are closed."""

    void = frozenset({"meta", "img", "br", "link", "input"})

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in self.void:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]


def test_the_page_is_self_contained(page: Path) -> None:
    text = page.read_text()
    links = Links()
    links.feed(text)
    assert not links.open
    assert links.links
    assert all(link.startswith(("data:", "#")) for link in links.links)
    assert not re.search(r"@import|url\(\s*['\"]?https?:|<script|<link", text)


def test_the_page_serves_light_and_dark_and_phones(page: Path) -> None:
    text = page.read_text()
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    drawn = "".join(re.findall(r"<svg.*?</svg>", text, re.S))
    assert "var(--c1)" in drawn
    assert not re.search(r"#0000[ab]\d", text)
    assert not re.search(r"(?:fill|stroke): #[0-9a-f]{6}", drawn)


def test_every_section_is_there(page: Path) -> None:
    text = page.read_text()
    for title in (
        "Scores on the test part",
        "Pretraining: loss",
        "Fine-tuning: loss",
        "ROC, each class",
        "Precision and recall",
        "Reconstructions",
        "Confusion matrix",
        "step 7, 56 images seen",
    ):
        assert title in text, title
    assert text.count("data:image/png;base64,") == 4 * 5


@pytest.mark.cluster
@pytest.mark.parametrize("width", [1200, 420])
def test_the_page_opens_in_a_browser(page: Path, tmp_path: Path, width: int) -> None:
    browser = shutil.which("chromium") or shutil.which("chromium-browser")
    if browser is None:
        if os.environ.get("CI"):
            pytest.fail("chromium is not installed: see .ci/install-system-packages")
        pytest.skip("needs chromium (Debian package chromium)")
    shot = tmp_path / "page.png"
    done = subprocess.run(
        [
            browser,
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-background-networking",
            "--enable-logging=stderr",
            f"--window-size={width},2000",
            f"--screenshot={shot}",
            page.as_uri(),
        ],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert shot.stat().st_size > 20_000
    assert "CONSOLE" not in done.stderr


def metrics(**changes: Any) -> dict[str, Any]:
    """A metrics.json of a good classifier."""
    macro = {"auroc": 0.9, "aupr": 0.8, "balanced_accuracy": 0.7, "undefined": {}}
    spans = {"auroc": [0.85, 0.95], "aupr": [0.7, 0.9], "balanced_accuracy": [0.6, 0.8]}
    return {
        "macro": macro,
        "legacy": {"undefined": {}},
        "ci95": {"macro": spans},
        "classes": ["A", "B"],
        "checkpoint": {"kind": "none", "url": "none", "step": None, "samples": None},
        "split": {"test": 100, "val": 10, "per_class": {"test": {"A": 50, "B": 50}}},
        "patients": 40,
        "bootstrap": {"unit": "patient", "units": 40, "resamples": 1000},
        "seeds": [0],
        "warnings": [],
        "skipped": [],
        **changes,
    }


def test_the_summary_has_scores_with_intervals_and_what_they_leave_out() -> None:
    text = " ".join(wording.summary(metrics()))
    assert "AUROC 0.900 [0.850, 0.950]" in text
    assert "100 test images of 40 patients" in text
    assert "only one was run" in text
    assert "cannot be told from guessing" not in text


def test_the_summary_says_when_a_result_may_be_guessing() -> None:
    spans = {"auroc": [0.4, 0.95], "aupr": [0.4, 0.9], "balanced_accuracy": [0.45, 0.8]}
    assert "cannot be told from guessing" in " ".join(wording.summary(metrics(ci95={"macro": spans})))


def test_few_patients_small_classes_and_skipped_images_are_warned_of() -> None:
    split = {"test": 30, "val": 0, "per_class": {"test": {"A": 26, "B": 4}}}
    few = {"unit": "patient", "units": 12, "resamples": 100}
    skipped = [{"key": "a.jpg", "reason": "cut"}]
    said = " ".join(wording.warnings(metrics(split=split, bootstrap=few, skipped=skipped)))
    for text in ("12 patients only", "fewer than 10 test images of B", "a.jpg: cut", "no validation part"):
        assert text in said


def test_losses_are_read_past_broken_lines_and_the_last_line_of_a_step_counts(tmp_path: Path) -> None:
    lines = ['{"step": 1, "loss": 3.0}', '{"step": 2, "loss": 2.0}', '{"step": 2, "loss": 1.5}', '{"st']
    (tmp_path / "metrics.jsonl").write_text("\n".join(lines))
    assert read_losses(str(tmp_path)) == ([1, 2], [3.0, 1.5])
    assert read_losses(str(tmp_path / "none")) == ([], [])
