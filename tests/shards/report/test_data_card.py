from __future__ import annotations

from pathlib import Path

import pytest
from markdown_it import MarkdownIt

from shards.pack import pack
from shards.report.data_card import histogram_lines
from tests.shards.pack_inputs import pack_config, write_image


def test_the_card_says_what_is_in_the_set_and_what_was_kept_out(packed: Path) -> None:
    card = (packed / "DATACARD.md").read_text()
    assert card.startswith("# Data card: 12 B-scans")
    assert (
        "| images | folder | 12 | not known | not known | 3 | A 8, B 4 |" in card
    )  # of two equal ones B's comes first
    assert "| has the same pixels as a packed image | 1 |" in card
    assert "| is blank | 1 |" in card
    assert "| is not a JPEG | 1 |" in card
    assert "split.fractions=[0.6, 0.2, 0.2]" in card
    assert "- images: licence: the owner's. Citation: none known" in card


def test_force_replaces_card_and_pages(packed: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "other" / "1.png")
    pack(pack_config(tmp_path / "other", packed), force=True)
    assert not (packed / "dropped.jpg").exists()
    assert "# Data card: 1 B-scans" in (packed / "DATACARD.md").read_text()


def test_the_histogram_has_every_level_once() -> None:
    lines = histogram_lines([2] * 128 + [0] * 128)
    assert [line.split()[0] for line in lines[3:5]] == ["0-", "16-"]
    assert sum(float(line.split("%")[0].split()[-1]) for line in lines[3:-1]) == pytest.approx(100, abs=0.5)
    assert lines[3].endswith("#" * 40)
    assert not lines[-2].endswith("#")


HOSTILE_CLASSES = (
    "<script>alert(1)</script>", "[x](http://evil.example)", "a|b|c", "<img src=x onerror=alert(1)>", "_i_ **b** `c`",
    "\x1b]0;owned\x07", "\u202egpj",
)  # fmt: skip


def test_names_of_classes_files_and_sources_are_words_in_the_card(tmp_path: Path) -> None:
    """A real set with names that HTML, Markdown and terminals obey."""
    for seed, name in enumerate(HOSTILE_CLASSES):
        write_image(tmp_path / "in" / name.replace("/", "\u2215") / f"{seed}.png", seed)
    (tmp_path / "in" / "a|b|c" / "<b>broken<b> [y](mailto:evil).jpg").write_text("hi")
    (tmp_path / "in" / "a|b|c" / "![z](http:evil.example).npy").write_text("hi")
    config = pack_config(
        tmp_path / "in", tmp_path / "out", source={"name": "<i>evil</i>|`s`"}, image={"format": "png"}
    )
    pack(config)
    card = (tmp_path / "out" / "DATACARD.md").read_text()
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    tokens = [inner for token in reader.parse(card) for inner in (token, *(token.children or []))]
    assert not {token.type for token in tokens} & {"html_inline", "html_block"}
    assert {token.attrs["href"] for token in tokens if token.type == "link_open"} == {"quality.html"}
    assert {token.attrs["src"] for token in tokens if token.type == "image"} <= {
        "examples.jpg",
        "dropped.jpg",
    }
    rows = [line for line in card.splitlines() if line.startswith("| ") and "folder" in line]
    assert len(rows) == 1
    assert "alert(1)" in rows[0]
    assert all(letter.isprintable() for line in card.splitlines() for letter in line)
