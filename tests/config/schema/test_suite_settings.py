"""Settings of `retfound suite`."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from retfound_dist.config.loading import load
from retfound_dist.config.reference import keys_of
from retfound_dist.config.schema import SuiteConfig, SuiteOut, SuiteSet, suite_settings
from retfound_dist.errors import ConfigError
from tests import ROOT
from tests.config.schema.docstrings import without_docstring

PRESET = str(ROOT / "configs/suite_oct.toml")


def test_every_setting_has_a_docstring() -> None:
    assert without_docstring(suite_settings) == []


def test_a_suite_has_rows_and_sets() -> None:
    one = {"a": SuiteSet(path="p")}
    with pytest.raises(ValidationError, match="give at least one row"):
        SuiteConfig(weights={}, sets=one, out=SuiteOut(url="o"))
    with pytest.raises(ValidationError, match="give at least one set"):
        SuiteConfig(weights={"none": "none"}, sets={}, out=SuiteOut(url="o"))


def test_shares_of_cells_are_counted_from_one() -> None:
    assert load(SuiteConfig, PRESET, ["cells=8/8"])[0].cells == "8/8"
    for wrong in ("9/8", "0/8", "3", "1/0", "-1/2"):
        with pytest.raises(ConfigError, match="cells="):
            load(SuiteConfig, PRESET, [f"cells={wrong}"])


def test_settings_of_one_set_can_be_overridden_and_a_wrong_one_is_named() -> None:
    config, origins = load(SuiteConfig, PRESET, ["sets.octdl.path=5", "sets.mine.path=/data/mine"])
    assert config.sets["octdl"].path == "5"
    assert config.sets["mine"].fractions == (0.6, 0.2, 0.2)
    assert origins["sets.mine.path"] == "command line"
    with pytest.raises(ConfigError, match=r"unknown key sets\.octdl\.pathh: did you mean sets\.NAME\.path"):
        load(SuiteConfig, PRESET, ["sets.octdl.pathh=x"])


def test_the_keys_of_a_set_are_listed_with_their_meaning() -> None:
    keys = {key.name: key for key in keys_of(SuiteConfig)}
    assert keys["sets.NAME.path"].default == "required"
    assert "Shares of train, val and test" in keys["sets.NAME.fractions"].meaning
    assert "external set" in keys["sets.NAME.external.class_map"].meaning


def test_attention_needs_one_set_of_units() -> None:
    attention = ["finetune.pool=attention"]
    with pytest.raises(ConfigError, match=r"data\.unit"):
        load(SuiteConfig, PRESET, attention)
    config, _ = load(SuiteConfig, PRESET, [*attention, "sets.octdl.unit=eye"])
    assert config.sets["octdl"].unit == "eye"
