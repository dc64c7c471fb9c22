"""Rates by hand-made tables, by Bayes' rule, and their intervals where a rate is 0 or 1."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import beta

from retfound_dist.evaluate.clinical.predictive_values import (
    RATES,
    TwoByTwo,
    predictive_values,
    rate_entries,
    rate_interval,
)

UNITS = dict.fromkeys(RATES, 20)


def table(*columns: tuple[float, float, float, float]) -> TwoByTwo:
    """True positives, false positives, positives and negatives of each resample."""
    return TwoByTwo(*np.array(columns, dtype=float).T)


def test_rates_of_a_table_made_by_hand() -> None:
    entry = rate_entries(table((8, 5, 10, 95)), table((8, 5, 10, 95), (6, 5, 10, 95)), UNITS, "B", None)
    assert entry["sensitivity"] == 0.8
    assert entry["specificity"] == pytest.approx(90 / 95)
    assert entry["ppv"] == pytest.approx(8 / 13)
    assert entry["npv"] == pytest.approx(90 / 92)
    assert entry["ci95"]["sensitivity"] == pytest.approx([0.605, 0.795])
    assert entry["undefined"] == {}
    assert "at_prevalence" not in entry


def test_predictive_values_at_a_prevalence_are_those_of_a_population_with_it() -> None:
    """Of 10,000 people 200 are ill: 180 are found, and 490 healthy ones are called."""
    ppv, npv = predictive_values(np.array([0.9]), np.array([0.95]), 0.02)
    assert ppv[0] == pytest.approx(180 / (180 + 490))
    assert npv[0] == pytest.approx(9310 / (9310 + 20))


def test_at_the_prevalence_of_test_both_ways_give_the_same() -> None:
    once = table((8, 5, 10, 95))
    entry = rate_entries(once, once, UNITS, "B", 10 / 105)
    assert entry["at_prevalence"]["ppv"] == pytest.approx(entry["ppv"])
    assert entry["at_prevalence"]["npv"] == pytest.approx(entry["npv"])


def test_what_is_not_defined_is_none_and_has_a_reason() -> None:
    nobody = rate_entries(table((0, 0, 0, 9)), table((0, 0, 0, 9)), UNITS, "B", 0.1, "eye")
    assert nobody["sensitivity"] is nobody["ppv"] is None
    assert nobody["undefined"] == {
        "sensitivity": "no test eye of B",
        "ppv": "no test eye is called positive",
    }
    assert nobody["ci95"]["sensitivity"] is None
    assert nobody["at_prevalence"]["ppv"] is None
    assert set(nobody["at_prevalence"]["undefined"]) == {"ppv", "npv"}
    assert nobody["at_prevalence"]["undefined"]["ppv"].startswith("no eye, or every eye, is called positive")


def test_a_rate_of_one_has_the_exact_interval_of_its_patients() -> None:
    low, high = rate_interval(1.0, np.ones(50), 20) or (0, 0)
    assert high == 1
    assert low == pytest.approx(beta.ppf(0.025, 20, 1))
    assert rate_interval(0.0, np.zeros(50), 20) == pytest.approx([0, 1 - low])
    assert rate_interval(0.5, np.full(50, 0.5), 20) == [0.5, 0.5]
    assert rate_interval(None, np.full(50, np.nan), 20) is None


def test_a_perfect_specificity_gives_no_interval_of_the_ppv_at_a_prevalence() -> None:
    drawn = table((8, 0, 10, 95), (6, 0, 10, 95))
    entry = rate_entries(table((8, 0, 10, 95)), drawn, UNITS, "B", 0.02)
    assert entry["at_prevalence"]["ppv"] == 1
    assert entry["at_prevalence"]["ci95"]["ppv"] is None
    assert entry["at_prevalence"]["ci95"]["npv"] is not None
