"""Text of others in Markdown: words, and nothing that a reader's program obeys."""

import pytest
from markdown_it import MarkdownIt

from retfound_dist.files.untrusted_text import code, fence, markdown, plain

HOSTILE = (
    "<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "[click](http://evil.example)", "![p](https://evil.example/x.png)",
    "https://evil.example/x", "www.evil.example", "a@evil.example", "javascript:alert(1)", "# heading", "- item", "1. item",
    "> quote", "| cell | cell |", "`code`", "**bold**", "_slanted_", "~~gone~~", "a\n\n# heading", "<!-- hidden", "&lt;b&gt;",
    "[x]: http://evil.example", "$\\input{x}$", "---", "===", "<http://evil.example>", "AT&T", "\x1b[31mred", "back\\slash",
)  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_is_words_in_a_list_a_line_and_a_table(text: str) -> None:
    """Rendered by a real Markdown reader with tables, strikethrough, HTML and links found by themselves."""
    reader = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])
    for page in (
        f"- name: {markdown(text)}",
        f"- {markdown(text)}: x",
        f"| a | b |\n|---|---|\n| {markdown(text)} | c |",
        markdown(text),
    ):
        tokens = [inner for token in reader.parse(page) for inner in (token, *(token.children or []))]
        kinds = {token.type for token in tokens}
        assert not kinds & {
            "html_inline", "html_block", "link_open", "image", "heading_open", "code_inline", "strong_open", "em_open",
            "s_open", "blockquote_open", "hr", "fence", "ordered_list_open",
        }, (page, kinds)  # fmt: skip
        if page.startswith("| a"):
            assert sum(token.type == "td_open" for token in tokens) == 2
        shown = "".join(token.content for token in tokens if token.type in ("text", "text_special"))
        assert " ".join(plain(text).split()).strip() in shown.replace("\u200b", "")


def test_ordinary_names_read_as_they_are_written() -> None:
    for text in (
        "AMD",
        "(none)",
        "no_001",
        "diabetic retinopathy 3+",
        "im05.jpg",
        "50 % of 8",
        "1,527 images",
        "v1.2",
    ):
        assert markdown(text) == text


def test_code_cannot_be_ended_from_inside() -> None:
    assert "`" not in code("a`b``c")
    text = "x\n````\n<script>"
    assert fence(text) == "`````"
    assert fence("plain") == "```"
