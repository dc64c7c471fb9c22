from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from shards.images.scan import MAX_KEY, printable, safe_key, unique_keys

NAMES = st.text(st.characters(exclude_characters="\0", exclude_categories=()), min_size=1, max_size=120)


def test_a_key_has_no_dots_slashes_or_spaces() -> None:
    assert safe_key("AMD/amd 1.2 (left)") == "AMD_amd_1_2_left"


def test_paths_that_would_share_a_key_each_get_their_own() -> None:
    keys = unique_keys(["NO/a.b.jpg", "NO/a_b.jpg", "NO/c.jpg"])
    assert keys[2] == "NO_c"
    assert len(set(keys)) == 3
    assert all(re.fullmatch(r"NO_a_b-[0-9a-f]{8}", key) for key in keys[:2])


def test_a_key_does_not_depend_on_the_order_of_the_paths() -> None:
    paths = ["x.jpg", "x.png", "y/z.png", "y_z.png"]
    forth = dict(zip(paths, unique_keys(paths), strict=True))
    back = dict(zip(paths[::-1], unique_keys(paths[::-1]), strict=True))
    assert forth == back


@given(st.lists(NAMES, unique=True, max_size=20))
def test_any_names_give_safe_and_distinct_keys(names: list[str]) -> None:
    paths = [name.encode(errors="ignore").decode() + f"/{i}.jpg" for i, name in enumerate(names)]
    keys = unique_keys(paths)
    assert len(set(keys)) == len(paths)
    assert all(re.fullmatch(rf"[A-Za-z0-9_-]{{1,{MAX_KEY}}}", key) for key in keys)


def test_a_name_of_any_bytes_is_printed_on_one_line() -> None:
    assert printable("a\nb\x1b[31m\udcff.jpg").isprintable()
