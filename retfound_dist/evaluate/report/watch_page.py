"""The page of a watched run: how its checkpoints' probes went, with the fine-tuned ones' curves and pictures.

Drawn from watch.json and the evaluations beside it alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.evaluation_page import compared, nothing, render
from retfound_dist.evaluate.report.figures import Line, PointMarker
from retfound_dist.evaluate.report.score_tables import PROBES, probe_tables
from retfound_dist.evaluate.report.training_plots import COMPARED, Plot
from retfound_dist.evaluate.results.evaluation_files import Evaluation
from retfound_dist.evaluate.scores import wording

Watch = Mapping[str, Any]
"""watch.json: `run`, `start` (or None), `rows` of steps, `alarms`."""
START = "starting weights"
TUNED = "fine-tuned"
_ALARM = 7
"""Place of the red colour."""
_WHERE = "Probes are cross-validated on the train and val parts; the test part is seen by fine-tuning alone."


def watch_page(watch: Watch, tuned: Mapping[int, Evaluation]) -> str:
    """The page of a run with its probes and the evaluations of some steps; alarms in red at its top."""
    rows = {_name(step): tuned[step] for step in sorted(tuned)}
    first = next(iter(rows.values()), None)
    below = compared(rows) if rows else nothing()
    tables = [*probe_tables(_trees(watch), "Cross-validated on train and val."), *below["tables"]]
    return render(
        title=f"Checkpoints of {watch['run']}",
        subtitle=f"{len(watch['rows'])} checkpoints probed, {len(rows)} fine-tuned",
        alarms=[row["message"] for row in watch["alarms"]],
        summary=_summary(watch, first),
        **{**below, "lead": history_plots(watch), "tables": tables},
    )


def history_plots(watch: Watch) -> list[Plot]:
    """Scores over the run's steps with their intervals, beside those of the starting weights."""
    plots = []
    for metric in COMPARED:
        lines, legend = [], []
        for place, (kind, title) in enumerate({**PROBES, "finetuned": f"{TUNED} (test part)"}.items()):
            line = _line([(row["step"], row.get(kind)) for row in watch["rows"]], metric, place)
            if line:
                lines.append(line)
                legend.append((place, title))
                lines += _level(watch, kind, metric, line)
        if not lines:
            continue
        marks = _marks(watch, metric)
        svg = figures.curves(lines, "pretraining step", wording.LABELS[metric], marks, whole_x=True)
        label = wording.LABELS[metric]
        note = "Band: 95 % interval of each. Dashed: the starting weights." if watch["start"] else ""
        plots.append(Plot(f"{label[0].upper()}{label[1:]} over the run", Markup(svg), note, legend))
    return plots


def _line(points: Sequence[tuple[int, Any]], metric: str, place: int) -> Line | None:
    """A curve through the steps that have the score, with its band."""
    known = [
        (step, scores["macro"][metric], scores["ci95"]["macro"][metric]) for step, scores in points if scores
    ]
    known = [point for point in known if point[1] is not None]
    if not known:
        return None
    # A score without an interval gets a band of no height there.
    spans = [span or (value, value) for _, value, span in known]
    low, high = np.array(spans).T
    return Line([step for step, *_ in known], [value for _, value, _ in known], place, band=(low, high))


def _level(watch: Watch, kind: str, metric: str, beside: Line) -> list[Line]:
    """The starting weights' score as a level under a curve."""
    scores = (watch["start"] or {}).get(kind)
    if not scores or scores["macro"][metric] is None:
        return []
    ends = [0, max(beside.x)]
    return [Line(ends, [scores["macro"][metric]] * 2, beside.colour, dashed=True)]


def _marks(watch: Watch, metric: str) -> list[PointMarker]:
    """The first alarm of each kind on this score."""
    first: dict[str, PointMarker] = {}
    for row in watch["alarms"]:
        if row["metric"] == metric and row["value"] is not None:
            first.setdefault(row["kind"], PointMarker(row["step"], row["value"], "alarm", _ALARM))
    return list(first.values())


def _trees(watch: Watch) -> dict[str, Any]:
    """Each row as if it were a metrics.json with probes, the starting weights first."""
    start = {START: {"probe": watch["start"]}} if watch["start"] else {}
    return start | {_name(row["step"]): {"probe": row} for row in watch["rows"]}


def _summary(watch: Watch, first: Evaluation | None) -> list[str]:
    if not watch["rows"]:
        return ["No checkpoint was probed yet."]
    # The newest is not always the highest step: a run that went back has older checkpoints of later steps.
    last = next((row for row in watch["rows"] if row["step"] == watch.get("newest")), watch["rows"][-1])
    scores = f"The newest checkpoint, step {last['step']:,}: {_told(last)}."
    if watch["start"]:
        scores += f" The starting weights: {_told(watch['start'])}."
    overlap = wording.probe_overlap_warning(last.get("pretrained_on"))
    sentences = [scores, *_beside_start(watch, last), _WHERE, *([overlap] if overlap else [])]
    if not watch["alarms"]:
        sentences.append("No alarm was raised.")
    return [*sentences, wording.intervals(first.metrics)] if first else sentences


def _beside_start(watch: Watch, last: Mapping[str, Any]) -> list[str]:
    """By how much the newest checkpoint is above what the run began from, on the score that alarms judge."""
    gap = last.get("to_start")
    if not gap or gap["ci95"] is None:
        return []
    rule, (low, high) = watch["config"]["alarm"], gap["ci95"]
    sign = "+" if gap["difference"] > 0 else ""
    difference = f"{wording.LABELS[rule['metric']]} {sign}{wording.score(gap['difference'], gap['ci95'])}"
    real = "a real difference" if low > 0 or high < 0 else "not told apart on these images"
    return [f"Beside its starting weights ({PROBES[rule['method']].lower()}): {difference}: {real}."]


def _told(probe: Mapping[str, Any]) -> str:
    linear = probe["linear"]
    scores = (
        f"{wording.LABELS[name]} {wording.score(linear['macro'][name], linear['ci95']['macro'][name])}"
        for name in COMPARED
    )
    return f"linear probe {', '.join(scores)}"


def _name(step: int) -> str:
    return f"step {step:,}"
