"""The page of predictions: all counts, the least certain images first, and no text of others as HTML."""

from __future__ import annotations

import html
import json
from dataclasses import replace

import numpy as np
import pytest

from retfound_dist.evaluate.pixels.image_encoding import encode_picture
from retfound_dist.prediction.drawing.prediction_page import (
    Bar,
    CountTable,
    PageImage,
    PageSummary,
    PageWords,
    certainty_bins,
    image_facts_line,
    number_bins,
    prediction_page,
)

PICTURE = encode_picture(np.zeros((28, 28), np.uint8))
COUNTS = CountTable("Predicted classes", "A note.", "class", [("AMD", 3), ("DME", 0), ("NORMAL", 1)])
SUMMARY = PageSummary(
    source="scans/",
    classifier="EVALUATION/classifier",
    total=4,
    tables=[COUNTS],
    groups=("AMD", "DME", "NORMAL"),
    skipped=[("broken.jpg", "is cut off")],
    words=PageWords("Sorted.", " Spread.", " Maps."),
    sentences=["On the 40 test images."],
)
BARS = [Bar("AMD", 0.5, True), Bar("DME", 0.3, False)]
IMAGE = PageImage(
    "a.jpg", "patient 1, right eye", "AMD, 0.50", ("AMD",), BARS, 0.94, "0.10", PICTURE,
    [("evidence for AMD", PICTURE)],
)  # fmt: skip


def test_the_page_has_all_counts_and_one_card_for_each_image() -> None:
    page = prediction_page(SUMMARY, [IMAGE, replace(IMAGE, key="b.jpg", groups=("NORMAL",), maps=[])])
    for words in (
        "Predictions for 4 images", "On the 40 test images.", "not a medical device", "is cut off",
        "1 image cannot be read and has no prediction", "<th>AMD</th><td>3</td><td>75.0 %</td>",
        "<th>DME</th><td>0</td><td>0.0 %</td>", "evidence for AMD", "Uncertainty 0.94, spread 0.10",
        "Sorted. Spread. Maps.", 'value="NORMAL"', "The 2 least certain of 4 images",
    ):  # fmt: skip
        assert words in page, words
    assert 'value="DME"' not in page


def test_a_number_has_no_bars_no_choice_and_no_maps() -> None:
    image = replace(IMAGE, title="age 61.2", groups=(), bars=[], uncertainty=None, maps=[])
    page = prediction_page(replace(SUMMARY, groups=()), [image])
    assert '<p class="note">Spread 0.10</p>' in page
    for absent in ("fieldset>", 'class="bars"', "Maps.", "Uncertainty"):
        assert absent not in page, absent


def test_names_of_files_classes_and_reasons_are_text() -> None:
    bad = "'\"<script>alert(1)</script>"
    table = replace(COUNTS, rows=[(bad, 1)])
    summary = replace(SUMMARY, tables=[table], groups=(bad, "B"), skipped=[(bad, bad)])
    image = replace(IMAGE, key=bad, facts=bad, title=bad, groups=(bad,), bars=[Bar(bad, 0.1, True)])
    cards = [image, replace(image, groups=("B",))]
    page = prediction_page(replace(summary, source=bad, classifier=bad), cards)
    assert "<script>alert" not in page
    assert page.count("&lt;script&gt;alert") > 6
    groups = json.loads(html.unescape(page.split('data-groups="')[1].split('"')[0]))
    assert groups == [bad]


def test_ranges_without_a_possible_value_are_left_out() -> None:
    assert certainty_bins([0.34, 0.99, 1.0])[0] == ("0.3 to 0.4", 1)
    assert certainty_bins([0.34, 0.99, 1.0])[-1] == ("0.9 to 1.0", 2)
    assert sum(count for _, count in certainty_bins(np.linspace(0.2, 1, 50).tolist())) == 50


def test_ranges_of_numbers_have_round_limits_and_hold_every_number() -> None:
    bins = number_bins(np.array([-10.0, 0.0, 89.0]))
    assert (bins[0], bins[1], bins[-1]) == (("\u221210 to 0", 1), ("0 to 10", 1), ("80 to 90", 1))
    assert [name for name, _ in number_bins(np.array([56.52, 63.34]))][::7] == ["56 to 57", "63 to 64"]
    draw = np.random.default_rng(0)
    for scale in (1e-5, 0.3, 7.0, 1e6):
        numbers = draw.normal(3 * scale, scale, 50)
        bins = number_bins(numbers)
        assert len(bins) <= 11
        assert sum(count for _, count in bins) == 50
    assert number_bins(np.array([5.0, 5.0])) == [("5", 2)]
    assert number_bins(np.array([])) == []


@pytest.mark.parametrize(
    ("facts", "line"),
    [
        ((None, None, None, None), ""),
        (("P1", "L", None, None), "patient P1, left eye"),
        ((None, None, "V", 0), "volume V, slice 0"),
    ],
)
def test_only_known_facts_are_named(
    facts: tuple[str | None, str | None, str | None, int | None], line: str
) -> None:
    assert image_facts_line(*facts) == line
