"""The page, the Markdown and suite.json of a suite."""

from __future__ import annotations

import json

from retfound_dist.evaluate.suite.suite_page import suite_markdown, suite_page, suite_tree
from tests.evaluate.suite.compared_sets import compared_sets

SETS = compared_sets(["none", "ours", "mae"], [[0.5, 0.9, 0.88], [0.7, 0.6, 0.9], [0.4, 0.8, None]])
LEFT_OUT = {"goals": "sets.goals.path=/data/goals does not exist"}
PATHS = {name: f"/data/{name}" for name in SETS}
LINKS = {name: f"{name}/report.html" for name in SETS}


def test_the_page_has_tables_ranks_pictures_links_and_what_is_missing() -> None:
    tree = suite_tree(SETS, LEFT_OUT, "the rows see different tokens")
    page = suite_page(tree, PATHS, LINKS)
    for text in (
        "Starting weights compared on 3 labelled sets", "AUPR on each set", "Balanced accuracy on each set", "mean rank",
        'href="s0/report.html"', "The set goals is left out: sets.goals.path=/data/goals does not exist.",
        "AUPR is undefined for some row on s2", "Pairs of rows by AUPR", "Mean ranks by AUPR", "critical difference",
        "The rows see different tokens.", "What is compared", "/data/s1", "made by retfound suite",
    ):  # fmt: skip
        assert text in page, text
    assert page.count("<svg") >= 2


def test_one_set_has_a_table_with_its_name_and_no_picture() -> None:
    one = {"s0": SETS["s0"]}
    page = suite_page(suite_tree(one, {}, ""), PATHS, LINKS)
    assert 'href="s0/report.html"' in page
    assert "Mean ranks by" not in page
    assert "Pairs of rows" not in page
    assert "Starting weights compared on 1 labelled set<" in page


def test_the_markdown_has_the_same_tables() -> None:
    text = suite_markdown(suite_tree(SETS, {}, ""))
    assert "| set | none | ours | mae |" in text
    assert "| s0 | 0.500 [0.400 to 0.600] | **0.900** [0.800 to 1.000] | 0.880 ≈ [0.780 to 0.980] |" in text
    assert "| pair | better | no clear difference | worse | p | p after Holm |" in text
    assert "| weights | architecture |" in text


def test_the_tree_is_plain_json() -> None:
    tree = suite_tree(SETS, LEFT_OUT, "")
    assert json.loads(json.dumps(tree)) == tree
    assert tree["ranks"][0]["sets"] == ["s0", "s1"]
