"""Settings of `retfound evaluate`, `compare` and `watch`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from retfound_dist.config.schema import (
    CompareConfig,
    CompareOut,
    EvalData,
    EvalOut,
    EvaluateConfig,
    External,
    Finetune,
    evaluate_settings,
)
from tests.config.schema.docstrings import without_docstring


def test_every_setting_has_a_docstring() -> None:
    assert without_docstring(evaluate_settings) == []


def test_a_set_without_a_split_is_split_6_2_2() -> None:
    assert EvalData(path="p").fractions == (0.6, 0.2, 0.2)


def test_a_map_of_classes_needs_the_set_it_is_for() -> None:
    with pytest.raises(ValidationError, match=r"external\.class_map is given without external\.path"):
        External(class_map={"AMD": "drusen"})
    assert External(path="p", class_map={"AMD": ("drusen", "cnv")}).class_map == {"AMD": ("drusen", "cnv")}


def test_a_comparison_has_rows() -> None:
    with pytest.raises(ValidationError, match="give at least one row"):
        CompareConfig(weights={}, data=EvalData(path="p"), out=CompareOut(url="o"))


def test_attention_needs_units_whose_images_it_can_pool() -> None:
    attention = Finetune(pool="attention")
    with pytest.raises(ValidationError, match=r"data\.unit"):
        EvaluateConfig(checkpoint="none", data=EvalData(path="x"), out=EvalOut(url="o"), finetune=attention)
    tried = Finetune(try_recipes=({"pool": "attention"},))
    with pytest.raises(ValidationError, match=r"data\.unit"):
        EvaluateConfig(checkpoint="none", data=EvalData(path="x"), out=EvalOut(url="o"), finetune=tried)
    eyes = EvalData(path="x", unit="eye")
    config = EvaluateConfig(checkpoint="none", data=eyes, out=EvalOut(url="o"), finetune=attention)
    assert config.finetune.pool == "attention"
