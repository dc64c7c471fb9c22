"""Settings of `retfound pack`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from retfound_dist.config.schema import PackConfig, PackImage, PackOut, Source, Split, pack_settings
from tests.config.schema.docstrings import without_docstring

OUT = PackOut(url="here")


def test_every_setting_has_a_docstring() -> None:
    assert without_docstring(pack_settings) == []


@pytest.mark.parametrize(
    "fractions", [(0.6, 0.2, 0.2), (1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (1 / 3, 1 / 3, 1 / 3)]
)
def test_shares_sum_to_one_or_are_all_zero(fractions: tuple[float, float, float]) -> None:
    assert Split(fractions=fractions).fractions == fractions


@pytest.mark.parametrize("fractions", [(0.6, 0.6, 0.2), (1.2, -0.2, 0.0), (0.5, 0.0, 0.0), (-0.5, 0.5, 0.0)])
def test_other_shares_are_refused(fractions: tuple[float, float, float]) -> None:
    with pytest.raises(ValidationError, match="must be three shares that sum to 1, or all 0"):
        Split(fractions=fractions)


def test_one_source_or_several_are_given_and_not_both() -> None:
    one, two = Source(path="a"), Source(path="b")
    assert PackConfig(out=OUT, source=one).all_sources == (one,)
    assert PackConfig(out=OUT, sources=(one, two)).all_sources == (one, two)
    with pytest.raises(ValidationError, match="remove one of them"):
        PackConfig(out=OUT, source=one, sources=(two,))


@pytest.mark.parametrize("quality", [0, 101])
def test_jpeg_quality_is_1_to_100(quality: int) -> None:
    with pytest.raises(ValidationError, match="quality"):
        PackImage(quality=quality)
