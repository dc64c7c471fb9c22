"""Types that settings share: numbers with limits, pairs in order."""

from typing import Annotated

from pydantic import AfterValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _check_rising(pair: tuple[float, float]) -> tuple[float, float]:
    if pair[0] > pair[1]:
        # Not a ValueError: `loading` prints those without the key, as whole sentences of their own.
        raise PydanticCustomError("falls", "should rise: give the smaller number first")
    return pair


# Strict: without it "3" and 3.0 would pass as an integer, and a misspelt key would be dropped in silence.
STRICT = ConfigDict(extra="forbid", strict=True, use_attribute_docstrings=True)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
PositiveFloat = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Betas = tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]]
Range = Annotated[tuple[PositiveFloat, PositiveFloat], AfterValidator(_check_rising)]
"""Smallest and largest value, both above 0."""
Share = Annotated[float, Field(gt=0, le=1)]
Shares = Annotated[tuple[Share, Share], AfterValidator(_check_rising)]
"""Smallest and largest share of a whole."""
Steps = Annotated[tuple[Count, Count], AfterValidator(_check_rising)]
"""First and last step."""
Parts = tuple[float, float, float]
Seeds = Annotated[tuple[int, ...], Field(min_length=1)]
