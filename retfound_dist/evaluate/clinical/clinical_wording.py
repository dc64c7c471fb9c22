"""What a clinic asks, in sentences for the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from retfound_dist.evaluate.clinical.clinical_tables import EXACT, percent
from retfound_dist.evaluate.scores import wording
from retfound_dist.listing.unit_names import IMAGE

NOT_A_DEVICE = (
    "These numbers describe this test part. They are no approval for use on patients: check a threshold "
    "on images of the clinic that will use it."
)
GAPS = (
    "p is corrected for the number of all gaps on this page (Holm). Bold: larger than chance (corrected "
    "p below 0.05). AUPR also depends on how frequent the classes are in a group."
)


def explanations(unit: str = IMAGE) -> tuple[str, ...]:
    """What the tables and curves mean. `unit`: what is scored, as `unit_wording.unit_name` names it."""
    return (
        f"Positive for a class is each {unit} with a calibrated probability of at least the threshold. PPV "
        f"and NPV hold for the share of positive {unit}s in test, or for a stated prevalence. Test ROC: the "
        "other rate where the first one is fixed on test itself. No threshold was chosen before, so it is a "
        f"little too good. {EXACT}",
        f"Decision curves: net benefit in needed treatments for each {unit}, at the prevalence of test. A "
        "threshold probability of 10 % accepts nine unneeded treatments for a needed one. Bands: 95 % "
        "intervals.",
    )


def clinical_sentences(clinical: Mapping[str, Any]) -> list[str]:
    """What temperature scaling changed, and where acting by the classifier is useful.

    `clinical`: the part `clinical` of metrics.json. The usefulness is a sentence only where there is a single
    question (positive or not); of several questions the decision curves show it.
    """
    change, temperature = clinical["calibration"]["change"]["brier"], clinical["temperature"]
    if temperature == 1:
        lines = [
            "No temperature was fitted on val, so calibrated and uncalibrated probabilities are the same."
        ]
    else:
        effect = "more than chance" if change["real"] else "this may be chance"
        lines = [
            f"Temperature scaling (temperature {temperature:.3g}, fitted on val) changes the Brier score by "
            f"{wording.format_score(change['value'], change['ci95'])}: {effect}."
        ]
    if len(clinical["questions"]) == 1:
        lines += [
            f"{name} or not: {describe_usefulness(entry)}" for name, entry in clinical["questions"].items()
        ]
    return lines


def describe_usefulness(question: Mapping[str, Any]) -> str:
    """Where the classifier is clearly better than treating everybody, and than treating nobody.

    `question`: one entry of `clinical.questions` in metrics.json.
    """
    ranges = [
        percent(low) if low == high else f"{percent(low)} to {percent(high)}"
        for low, high in question["decision_curve"]["useful"]
    ]
    if not ranges:
        return (
            "at no threshold probability is the classifier clearly better than treating everybody and "
            "treating nobody."
        )
    return (
        "the classifier is clearly better than treating everybody and treating nobody at threshold "
        f"probabilities of {', '.join(ranges)}."
    )


def subgroup_sentences(subgroups: Mapping[str, Any]) -> list[str]:
    """Which gaps are larger than chance."""
    clear = [
        f"{wording.LABELS[score]} of {column} {name} ({wording.format_score(gap['value'], gap['ci95'])} "
        "against "
        f"{entry['reference']}, p {wording.format_p(gap['p_holm'])})"
        for column, entry in subgroups["columns"].items()
        for name, group in entry["groups"].items()
        for score, gap in (group["gap"] or {}).items()
        if gap["clear"]
    ]
    notes = [f"{note[0].upper()}{note[1:]}." for note in subgroups["notes"]]
    if clear:
        return [f"Larger than chance: {'; '.join(clear)}.", *notes]
    if not subgroups["comparisons"]:
        return ["No two groups of a column can be compared.", *notes]
    return [
        f"No gap is larger than chance, after correction for {subgroups['comparisons']} comparisons. "
        "Small groups "
        "have wide intervals: no clear gap does not mean that there is none.",
        *notes,
    ]
