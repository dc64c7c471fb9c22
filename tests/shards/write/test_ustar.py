from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shards.write.ustar import BLOCK, NAME_BYTES, member, padded

NAMES = st.text("abcXYZ0189_-.", min_size=1, max_size=NAME_BYTES)


@given(NAMES, st.binary(max_size=2000))
def test_a_member_is_what_the_standard_library_writes(name: str, data: bytes) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        info = tarfile.TarInfo(name)
        info.size, info.mode = len(data), 0o444
        tar.addfile(info, io.BytesIO(data))
    made = member(name, data)
    assert made == buffer.getvalue()[: len(made)]
    assert len(made) == BLOCK + padded(len(data))


def test_a_name_that_has_no_room_in_a_plain_header_is_an_error() -> None:
    with pytest.raises(ValueError, match="longer than"):
        member("k" * 97 + ".jpg", b"x")
