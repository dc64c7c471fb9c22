"""Rates of a threshold on test with their intervals: sensitivity, specificity, PPV and NPV.

PPV and NPV depend on how frequent the disease is. They are given as counted on test, and for a stated
prevalence p by Bayes' rule: PPV = sens p / (sens p + (1 - spec) (1 - p)), NPV = spec (1 - p) / (spec (1 -
p) + (1 - sens) p) (Altman and Bland, BMJ 309, 1994).

A rate of 0 or 1 is the same in every resample. It gets the exact interval of Clopper and Pearson instead,
with one trial for each patient.

Shapes: R resamples.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import binomtest

from retfound_dist.evaluate.scores import bootstrap
from retfound_dist.evaluate.scores.metrics import Floats
from retfound_dist.listing.unit_names import IMAGE

RATES = ("sensitivity", "specificity", "ppv", "npv")


@dataclass(frozen=True)
class TwoByTwo:
    """Counts of a two by two table in each of R resamples."""

    true_R: Floats
    """True positives."""
    false_R: Floats
    """False positives."""
    positives_R: Floats
    negatives_R: Floats

    def rates(self) -> dict[str, Floats]:
        """The rates in each resample (R,); NaN where one is not defined."""
        rejected_negative_R = self.negatives_R - self.false_R
        missed_R = self.positives_R - self.true_R
        return {
            "sensitivity": _ratio(self.true_R, self.positives_R),
            "specificity": _ratio(rejected_negative_R, self.negatives_R),
            "ppv": _ratio(self.true_R, self.true_R + self.false_R),
            "npv": _ratio(rejected_negative_R, rejected_negative_R + missed_R),
        }


def predictive_values(sensitivity: Floats, specificity: Floats, prevalence: float) -> tuple[Floats, Floats]:
    """PPV and NPV at a prevalence, of the shape of the rates; NaN where no image is called so."""
    # Shares of all images.
    true_positive, false_positive = sensitivity * prevalence, (1 - specificity) * (1 - prevalence)
    true_negative, false_negative = specificity * (1 - prevalence), (1 - sensitivity) * prevalence
    ppv = _ratio(true_positive, true_positive + false_positive)
    return ppv, _ratio(true_negative, true_negative + false_negative)


def rate_entries(
    once: TwoByTwo,
    resampled: TwoByTwo,
    units: Mapping[str, int],
    name: str,
    prevalence: float | None,
    unit: str = IMAGE,
) -> dict[str, Any]:
    """The rates of a threshold on test, for metrics.json.

    `once`: the counts of the test images (R = 1). `units`: for each rate, the patients that it is counted on.
    `name`: the question, for reasons. `prevalence`: the stated one. `unit`: what is scored.
    """
    values, drawn = once.rates(), resampled.rates()
    entries: dict[str, Any] = {rate: finite_or_none(values[rate][0]) for rate in RATES}
    entries["ci95"] = {rate: rate_interval(entries[rate], drawn[rate], units[rate]) for rate in RATES}
    reasons = {
        "sensitivity": f"no test {unit} of {name}",
        "specificity": f"every test {unit} is of {name}",
        "ppv": f"no test {unit} is called positive",
        "npv": f"every test {unit} is called positive",
    }
    entries["undefined"] = {rate: reasons[rate] for rate in RATES if entries[rate] is None}
    if prevalence is not None:
        entries["at_prevalence"] = _at_prevalence(values, drawn, prevalence, unit)
    return entries


def _at_prevalence(
    values: Mapping[str, Floats], drawn: Mapping[str, Floats], prevalence: float, unit: str
) -> dict[str, Any]:
    """PPV and NPV at a stated prevalence, with intervals."""
    once = predictive_values(values["sensitivity"], values["specificity"], prevalence)
    resampled = predictive_values(drawn["sensitivity"], drawn["specificity"], prevalence)
    entry: dict[str, Any] = {"prevalence": prevalence, "ci95": {}, "undefined": {}}
    for rate, value_1, values_R in zip(("ppv", "npv"), once, resampled, strict=True):
        entry[rate] = finite_or_none(value_1[0])
        span = bootstrap.interval(values_R) if entry[rate] is not None else None
        # A rate of exactly 0 or 1 on test says little of it: an interval without width would hide this.
        entry["ci95"][rate] = span if span and span[1] > span[0] else None
        if entry[rate] is None:
            entry["undefined"][rate] = f"no {unit}, or every {unit}, is called positive or known on test"
    return entry


def rate_interval(value: float | None, values_R: Floats, units: int) -> bootstrap.Interval:
    """The 95 % interval of a rate; exact where the rate is 0 or 1 in all resamples, with a trial for each
    unit."""
    if value is None or not units:
        return None
    span = bootstrap.interval(values_R)
    if span and span[0] == span[1] and value in (0.0, 1.0):
        exact = binomtest(units if value else 0, units).proportion_ci(method="exact")
        return [float(exact.low), float(exact.high)]
    return span


def finite_or_none(value: Any) -> float | None:
    """A number for JSON; None for NaN."""
    return float(value) if np.isfinite(value) else None


def _ratio(above: Floats, below: Floats) -> Floats:
    """above / below, NaN where below is 0."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio: Floats = np.where(below == 0, np.nan, above / below)
    return ratio
