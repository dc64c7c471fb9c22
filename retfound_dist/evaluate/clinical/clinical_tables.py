"""What a clinic asks, as tables of a page: operating points, Brier scores, subgroups.

Names of classes, columns and groups come from lists of other people: the template escapes them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from retfound_dist.evaluate.clinical.brier_score import TERMS
from retfound_dist.evaluate.clinical.subgroup_scores import SCORES
from retfound_dist.evaluate.scores import wording

Cell = dict[str, Any]
EXACT = "A rate of 0 or 1 has the exact interval of its patients (Clopper and Pearson)."
_RATES = ("sensitivity", "specificity", "ppv", "npv")
_TERM_TITLES = {
    "reliability": "reliability (lower is better)",
    "resolution": "resolution (higher is better)",
    "uncertainty": "uncertainty (of the set)",
    "within_bins": "within bins",
}


def percent(share: float) -> str:
    """`2.5 %`."""
    return f"{100 * share:.4g} %"


def number_cell(value: float | None, span: Sequence[float] | None = None, reason: str | None = "") -> Cell:
    """A number with its interval, or a dash with the reason why there is none."""
    interval = f"{wording.format_number(span[0])} to {wording.format_number(span[1])}" if span else ""
    text = "-" if value is None else wording.format_number(value)
    return text_cell(text) | {"span": interval if value is not None else "", "reason": reason or ""}


def text_cell(text: str, reason: str | None = "") -> Cell:
    """A cell with text only."""
    return {"value": text, "span": "", "reason": reason or "", "best": False, "tied": False}


def target_text(target: Mapping[str, Any]) -> str:
    """`specificity 95 %`."""
    return f"{target['rate']} {percent(target['level'])}"


def point_tables(clinical: Mapping[str, Any], noun: str = "images") -> list[dict[str, Any]]:
    """One table for each target with a line for each question; one table of all targets for one question.

    `noun`: what is scored, as `unit_wording.unit_noun` names it.
    """
    questions = clinical["questions"]
    if len(questions) == 1:
        ((name, question),) = questions.items()
        points = question["operating_points"]
        lines = {f"{target_text(p['target'])} on val": (question, p) for p in points}
        title = f"{name} or not: thresholds chosen on val, applied to test"
        return [_point_table(title, "threshold for", lines, noun)] if points else []
    tables = []
    first: Mapping[str, Any] = next(iter(questions.values()), {"operating_points": []})
    for place, point in enumerate(first["operating_points"]):
        lines = {name: (q, q["operating_points"][place]) for name, q in questions.items()}
        title = f"Thresholds for a {target_text(point['target'])} on val, applied to test"
        tables.append(_point_table(title, "class", lines, noun))
    return tables


def _point_table(
    title: str, first: str, lines: Mapping[str, tuple[Mapping[str, Any], Mapping[str, Any]]], noun: str
) -> dict[str, Any]:
    """`lines`: name -> its question and operating point."""
    prevalences = {
        name: point["test"]["at_prevalence"]["prevalence"]
        for name, (_, point) in lines.items()
        if point["test"] and "at_prevalence" in point["test"]
    }
    stated = sorted(set(prevalences.values()))
    columns = [noun, "threshold", "sensitivity", "specificity", "PPV", "NPV"]
    if stated:
        where = f" at {percent(stated[0])}" if len(stated) == 1 else " at its prevalence"
        columns += [f"PPV{where}", f"NPV{where}"]
    read = {rate for _, point in lines.values() for rate in _RATES[:2] if rate in point["test_roc"]}
    columns.append(f"{read.pop() if len(read) == 1 else 'other rate'}, test ROC")
    note = ""
    if len(stated) > 1:
        note += "Prevalence: " + ", ".join(f"{n} {percent(p)}" for n, p in prevalences.items()) + "."
    if reasons := dict.fromkeys(p["reason"] for _, p in lines.values() if p["reason"]):
        note += f" No threshold: {'; '.join(reasons)}."
    return {
        "title": title,
        "note": note.strip(),
        "first": first,
        "columns": columns,
        "lines": [
            {"name": name, "cells": _point_cells(question, point, bool(stated))}
            for name, (question, point) in lines.items()
        ],
    }


def _point_cells(question: Mapping[str, Any], point: Mapping[str, Any], stated: bool) -> list[Cell]:
    """The cells of a row of the table of operating points.

    `stated`: whether the table has PPV and NPV at a stated prevalence.
    """
    test, reason = point["test"], point["reason"]
    cells = [text_cell(f"{question['positives']:,}"), number_cell(point["threshold"], reason=reason)]
    if test is None:
        cells += [text_cell("-", reason) for _ in range(len(_RATES) + 2 * stated)]
    else:
        cells += [number_cell(test[r], test["ci95"][r], test["undefined"].get(r)) for r in _RATES]
        at_prevalence = test.get("at_prevalence")
        if stated:
            cells += [
                number_cell(at_prevalence[r], at_prevalence["ci95"][r], at_prevalence["undefined"].get(r))
                if at_prevalence
                else text_cell("-", "no prevalence of this class is stated")
                for r in ("ppv", "npv")
            ]
    reading = point["test_roc"]
    rate = next(name for name in _RATES[:2] if name in reading)
    return [*cells, number_cell(reading[rate], reading["ci95"], reading["reason"])]


def brier_tables(calibration: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The score over all classes before and after scaling, and that of each class after it."""
    parts = {"uncalibrated": "before scaling", "calibrated": "after scaling"}
    lines = [
        {
            "name": name,
            "cells": [*_brier_cells(calibration[part]["brier"]), _score_cell(calibration[part]["ece"])],
        }
        for part, name in parts.items()
    ]
    change = calibration["change"]
    empty = [text_cell("") for _ in TERMS]
    lines.append(
        {"name": "change", "cells": [_score_cell(change["brier"]), *empty, _score_cell(change["ece"])]}
    )
    own = calibration["calibrated"]["brier"]["per_class"]
    columns = ["Brier score", *(_TERM_TITLES[term] for term in TERMS)]
    return [
        {
            "title": "Brier score and calibration error, before and after temperature scaling",
            "note": "Brier score: squared error of the probabilities, summed over classes; 0 is perfect. "
            "It is reliability \u2212 resolution + uncertainty + within bins (Murphy), with "
            f"{calibration['bins']} equal bins of the probability.",
            "first": "probabilities",
            "columns": [*columns, "calibration error"],
            "lines": lines,
        },
        {
            "title": "Brier score of each class against the rest, after temperature scaling",
            "note": "Always guessing the share of the class gives the uncertainty as score.",
            "first": "class",
            "columns": columns,
            "lines": [{"name": name, "cells": _brier_cells(entry)} for name, entry in own.items()],
        },
    ]


def _brier_cells(entry: Mapping[str, Any]) -> list[Cell]:
    return [_score_cell(entry), *(number_cell(entry[term]) for term in TERMS)]


def _score_cell(entry: Mapping[str, Any]) -> Cell:
    return number_cell(entry["value"], entry["ci95"])


def subgroup_tables(subgroups: Mapping[str, Any], noun: str = "images") -> list[dict[str, Any]]:
    """One table for each column, a line for each group. `noun`: as for `point_tables`."""
    gaps = [f"gap, {wording.LABELS[name]}" for name in SCORES]
    # Where patients are scored, they are counted already.
    counts = list(dict.fromkeys([noun, "patients"]))
    columns = [*counts, *(wording.LABELS[name] for name in SCORES), *gaps]
    return [
        {
            "title": f"By {name}",
            "note": _group_note(column, noun),
            "first": name,
            "columns": columns,
            "lines": [
                {"name": group, "cells": _group_cells(entry)[2 - len(counts) :]}
                for group, entry in column["groups"].items()
            ],
        }
        for name, column in subgroups["columns"].items()
    ]


def _group_note(column: Mapping[str, Any], noun: str) -> str:
    """The group that others are compared with, and why groups have no scores."""
    reasons = {
        group: entry["reason"] or "; ".join(dict.fromkeys(entry["undefined"].values()))
        for group, entry in column["groups"].items()
    }
    undefined = [f"{group}: {reason}" for group, reason in reasons.items() if reason]
    dashes = f" Undefined (shown as -): {'; '.join(undefined)}." if undefined else ""
    if column["reference"] is None:
        return f"None of the test {noun} has a known value, so there are no gaps.{dashes}"
    return f"Gaps are differences from the largest group, {column['reference']}.{dashes}"


def _group_cells(group: Mapping[str, Any]) -> list[Cell]:
    patients = "-" if group["patients"] is None else f"{group['patients']:,}"
    cells = [
        text_cell(f"{group['images']:,}"),
        text_cell(patients, "" if group["patients"] is not None else "not every patient is known"),
    ]
    for name in SCORES:
        reason = group["reason"] or group["undefined"].get(name)
        cells.append(number_cell(group["scores"][name], group["ci95"][name], reason))
    return cells + [_gap_cell((group["gap"] or {}).get(name)) for name in SCORES]


def _gap_cell(gap: Mapping[str, Any] | None) -> Cell:
    """The difference, its interval and corrected p; empty for the group that the others are compared with."""
    if gap is None:
        return text_cell("")
    cell = number_cell(gap["value"], gap["ci95"], gap["reason"])
    if gap["p_holm"] is not None:
        cell["span"] += f"; p {wording.format_p(gap['p_holm'])}"
    return cell | {"best": gap["clear"]}


def compared_table(metrics: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For a comparison: the sensitivity of every row at its thresholds for the highest specificity.

    Empty where a row has no clinical scores, or where rows have other questions.
    """
    trees = {row: tree["clinical"]["questions"] for row, tree in metrics.items() if "clinical" in tree}
    first: Mapping[str, Any] = next(iter(trees.values()), {})
    if len(trees) < len(metrics) or not first or any(list(tree) != list(first) for tree in trees.values()):
        return []
    targets = [point["target"] for point in next(iter(first.values()))["operating_points"]]
    fixed = [target for target in targets if target["rate"] == "specificity"]
    if not fixed:
        return []
    place = targets.index(max(fixed, key=lambda target: target["level"]))

    def cell(question: Mapping[str, Any]) -> Cell:
        point = question["operating_points"][place]
        test = point["test"]
        if test is None:
            return text_cell("-", point["reason"])
        reason = test["undefined"].get("sensitivity")
        return number_cell(test["sensitivity"], test["ci95"]["sensitivity"], reason)

    level = percent(targets[place]["level"])
    return [
        {
            "title": f"Sensitivity for each class at a specificity of {level}",
            "note": f"On the test part, at the thresholds that had a specificity of at least {level} on val. "
            f"The pages of the rows have the specificity on test. {EXACT}",
            "columns": list(first),
            "lines": [
                {"name": row, "cells": [cell(question) for question in tree.values()]}
                for row, tree in trees.items()
            ],
        }
    ]
