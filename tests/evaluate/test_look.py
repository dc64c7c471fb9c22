"""The pages in headless Chromium: no complaint, no missing picture, nothing to scroll sideways on a phone."""

from __future__ import annotations

from pathlib import Path

import pytest

from retfound_dist.evaluate.report.evaluation_page import comparison_page, evaluation_page
from retfound_dist.evaluate.report.watch_page import watch_page
from tests.browser import assert_fits, look
from tests.evaluate.made import made_pictures, predictions, watch_tree

LARGEST = 5_000_000
"""Bytes that a mail server lets through and a phone opens at once."""


def page(kind: str) -> str:
    """An evaluation, a comparison of four, or a watched run with twenty checkpoints and an alarm."""
    rows = {"evaluation": 1, "comparison": 4, "watch": 20}[kind]
    many = {
        f"step_{1000 * i:08d}": predictions(
            i, images=345, patients=120, pictures=made_pictures(i, 345, side=224)
        )
        for i in range(rows)
    }
    if kind == "evaluation":
        return evaluation_page(many["step_00000000"])
    if kind == "comparison":
        return comparison_page(many, ["A sentence of the comparison."])
    return watch_page(watch_tree(20, alarms=True), {1000 * i: row for i, row in enumerate(many.values())})


@pytest.mark.cluster
@pytest.mark.parametrize("kind", ["evaluation", "comparison", "watch"])
def test_a_page_opens_on_a_phone_and_on_a_desk_without_complaint(tmp_path: Path, kind: str) -> None:
    file = tmp_path / "report.html"
    file.write_text(page(kind))
    assert ("14 rows have none" in file.read_text()) == (kind == "watch")
    assert file.stat().st_size < LARGEST
    assert_fits(file, tmp_path, images=5 * 4)


@pytest.mark.cluster
def test_the_browser_s_eye_sees_what_is_wrong(tmp_path: Path) -> None:
    """The test above can fail: a wide box, a broken picture and a script's error are noticed."""
    bad = '<p style="width: 600px">wide</p><img src="data:image/png;base64,AAAA"><script>nowhere()</script>'
    file = tmp_path / "report.html"
    file.write_text(page("evaluation").replace("<main>", f"<main>{bad}"))
    seen = look(file, tmp_path, width=390)
    assert seen.width > 390
    assert seen.outside
    assert seen.broken == 1
    assert "nowhere is not defined" in seen.console[0]
