"""Types of settings: what they take, and what they refuse."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from retfound_dist.config.schema import setting_types as types

GOOD: list[tuple[Any, Any]] = [
    (types.Positive, 1),
    (types.Count, 0),
    (types.Fraction, 0.0),
    (types.Fraction, 1.0),
    (types.NonNegative, 0.0),
    (types.Betas, (0.0, 0.999)),
    (types.Range, (0.5, 0.5)),
    (types.Shares, (0.2, 1.0)),
    (types.Steps, (0, 0)),
    (types.Seeds, (0,)),
]
BAD: list[tuple[Any, Any]] = [
    (types.Positive, 0),
    (types.Count, -1),
    (types.Fraction, 1.01),
    (types.PositiveFloat, 0.0),
    (types.NonNegative, -0.1),
    (types.Betas, (0.9, 1.0)),
    (types.Range, (2.0, 1.0)),
    (types.Range, (0.0, 1.0)),
    (types.Share, 0.0),
    (types.Shares, (0.5, 1.5)),
    (types.Steps, (5, 2)),
    (types.Seeds, ()),
]


@pytest.mark.parametrize(("kind", "value"), GOOD)
def test_values_within_the_limits_are_taken_as_they_are(kind: Any, value: Any) -> None:
    assert TypeAdapter(kind).validate_python(value) == value


@pytest.mark.parametrize(("kind", "value"), BAD)
def test_values_beyond_a_limit_are_refused(kind: Any, value: Any) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(kind).validate_python(value)


@dataclass(frozen=True, kw_only=True, config=types.STRICT)
class Section:
    """A section as the schema has them."""

    count: types.Count = 0


@pytest.mark.parametrize("values", [{"count": "3"}, {"count": 3.0}, {"count": True}, {"cuont": 3}])
def test_a_section_takes_no_other_types_and_no_unknown_keys(values: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        TypeAdapter(Section).validate_python(values)
