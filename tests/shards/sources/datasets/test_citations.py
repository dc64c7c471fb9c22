"""Licences and citations: every published kind has its own, and the user's own data none."""

from __future__ import annotations

import re

from shards.people.name_policy import CHECKED_KINDS, DEVICE_KINDS
from shards.sources.adapters import ADAPTERS
from shards.sources.datasets.citations import CITATIONS

OF_THE_USER = {*CHECKED_KINDS, *DEVICE_KINDS, "topcon"}
"""Kinds of source that hold a group's own data: nobody has published them."""


def test_every_published_kind_of_source_has_a_citation_and_no_other_kind_has_one() -> None:
    assert CITATIONS.keys() == (ADAPTERS.keys() | {"phantom"}) - OF_THE_USER


def test_a_citation_names_authors_and_year_on_one_line() -> None:
    for kind in CITATIONS.keys() - {"phantom"}:
        licence, citation = CITATIONS[kind]
        assert licence
        assert re.match(r"\w+ [A-Z]{1,3}\b", citation), citation
        assert re.search(r"\b20\d\d\b", citation), citation
        assert "\n" not in licence + citation
