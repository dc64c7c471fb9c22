"""Pages of `docs/` that commands make."""

import pytest

from retfound_dist.config import generated_docs
from tests import ROOT


def test_pages_made_by_commands_are_as_the_code_says(monkeypatch: pytest.MonkeyPatch) -> None:
    """`python -m retfound_dist.config.generated_docs` makes them anew."""
    stale = [
        path.name
        for path, text in generated_docs.generated_pages()
        if not path.exists() or path.read_text() != text
    ]
    assert not stale, "run: make docs"


def test_a_page_that_was_changed_by_hand_is_noticed() -> None:
    page = (ROOT / "docs/plan.md").read_text()
    assert len(generated_docs.GENERATED_BLOCK.findall(page)) == 4
    assert generated_docs.with_current_output(page.replace("81,688 steps", "81,689 steps")) == page
