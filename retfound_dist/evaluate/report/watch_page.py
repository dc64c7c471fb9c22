"""The page of a watched run: probes of its checkpoints, curves and pictures of the fine-tuned ones.

It is drawn from watch.json and the evaluations beside it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from markupsafe import Markup

from retfound_dist.evaluate.report import figures
from retfound_dist.evaluate.report.evaluation_page import comparison_context, empty_context, render
from retfound_dist.evaluate.report.figures import Line, PointMarker
from retfound_dist.evaluate.report.score_tables import PROBE_TITLES, probe_tables
from retfound_dist.evaluate.report.training_plots import PLOTTED_SCORES, Plot
from retfound_dist.evaluate.results.evaluation import Evaluation
from retfound_dist.evaluate.scores import probe_wording, wording

Watch = Mapping[str, Any]
"""watch.json: `run`, `start` (or None), `rows` of steps, `alarms`."""
START = "starting weights"
FINETUNED = "fine-tuned"
_ALARM_COLOUR = 7
"""Index of the red colour."""
_PARTS_NOTE = (
    "Probes are cross-validated on the train and val parts. Only fine-tuned checkpoints use the test part."
)


def watch_page(watch: Watch, finetuned: Mapping[int, Evaluation]) -> str:
    """The page of a run, with its probes and the evaluations of some steps. Alarms are in red at the top."""
    rows = {_step_name(step): finetuned[step] for step in sorted(finetuned)}
    first = next(iter(rows.values()), None)
    context = comparison_context(rows) if rows else empty_context()
    tables = [*probe_tables(_probe_trees(watch), "Cross-validated on train and val."), *context["tables"]]
    return render(
        title=f"Checkpoints of {watch['run']}",
        subtitle=f"{len(watch['rows'])} checkpoints probed, {len(rows)} fine-tuned",
        alarms=[row["message"] for row in watch["alarms"]],
        summary=_summary_sentences(watch, first),
        **{**context, "lead": history_plots(watch), "tables": tables},
    )


def history_plots(watch: Watch) -> list[Plot]:
    """Scores over the steps of the run with their intervals, and those of the starting weights."""
    plots = []
    for metric in PLOTTED_SCORES:
        lines, legend = [], []
        for colour_index, (kind, title) in enumerate(
            {**PROBE_TITLES, "finetuned": f"{FINETUNED} (test part)"}.items()
        ):
            line = _line([(row["step"], row.get(kind)) for row in watch["rows"]], metric, colour_index)
            if line:
                lines.append(line)
                legend.append((colour_index, title))
                lines += _start_level(watch, kind, metric, line)
        if not lines:
            continue
        marks = _marks(watch, metric)
        svg = figures.line_chart(lines, "pretraining step", wording.LABELS[metric], marks, integer_x=True)
        label = wording.LABELS[metric]
        note = "Band: 95 % interval. Dashed lines: the starting weights." if watch["start"] else ""
        plots.append(Plot(f"{label[0].upper()}{label[1:]} over the run", Markup(svg), note, legend))
    return plots


def _line(points: Sequence[tuple[int, Any]], metric: str, colour_index: int) -> Line | None:
    """A curve through the steps that have the score, with its band."""
    defined = [
        (step, scores["macro"][metric], scores["ci95"]["macro"][metric]) for step, scores in points if scores
    ]
    defined = [point for point in defined if point[1] is not None]
    if not defined:
        return None
    # A score without an interval gets a band of no height there.
    spans = [span or (value, value) for _, value, span in defined]
    low, high = np.array(spans).T
    return Line(
        [step for step, *_ in defined], [value for _, value, _ in defined], colour_index, band=(low, high)
    )


def _start_level(watch: Watch, kind: str, metric: str, curve: Line) -> list[Line]:
    """The score of the starting weights as a horizontal line in the colour of a curve."""
    scores = (watch["start"] or {}).get(kind)
    if not scores or scores["macro"][metric] is None:
        return []
    ends = [0, max(curve.x)]
    return [Line(ends, [scores["macro"][metric]] * 2, curve.colour, dashed=True)]


def _marks(watch: Watch, metric: str) -> list[PointMarker]:
    """The first alarm of each kind on this score."""
    first: dict[str, PointMarker] = {}
    for row in watch["alarms"]:
        if row["metric"] == metric and row["value"] is not None:
            first.setdefault(row["kind"], PointMarker(row["step"], row["value"], "alarm", _ALARM_COLOUR))
    return list(first.values())


def _probe_trees(watch: Watch) -> dict[str, Any]:
    """Each row in the form of a metrics.json with probes, the starting weights first."""
    start = {START: {"probe": watch["start"]}} if watch["start"] else {}
    return start | {_step_name(row["step"]): {"probe": row} for row in watch["rows"]}


def _summary_sentences(watch: Watch, first: Evaluation | None) -> list[str]:
    """Sentences on the newest checkpoint and the starting weights."""
    if not watch["rows"]:
        return ["No checkpoint has been probed yet."]
    # Not always the highest step: a run that went back has older checkpoints of later steps.
    last = next((row for row in watch["rows"] if row["step"] == watch.get("newest")), watch["rows"][-1])
    scores = f"The newest checkpoint, step {last['step']:,}: {_describe_probe(last)}."
    if watch["start"]:
        scores += f" The starting weights: {_describe_probe(watch['start'])}."
    overlap = wording.probe_overlap_warning(last.get("pretrained_on"))
    sentences = [scores, *_compared_with_start(watch, last), *probe_wording.attentive_gain(last), _PARTS_NOTE]
    sentences += [overlap] if overlap else []
    if not watch["alarms"]:
        sentences.append("No alarm was raised.")
    return [*sentences, wording.describe_intervals(first.metrics)] if first else sentences


def _compared_with_start(watch: Watch, last: Mapping[str, Any]) -> list[str]:
    """A sentence on the newest checkpoint and the starting weights, by the score of the alarms."""
    gap = last.get("to_start")
    if not gap or gap["ci95"] is None:
        return []
    rule, (low, high) = watch["config"]["alarm"], gap["ci95"]
    sign = "+" if gap["difference"] > 0 else ""
    difference = (
        f"{wording.LABELS[rule['metric']]} {sign}{wording.format_score(gap['difference'], gap['ci95'])}"
    )
    verdict = "a clear difference" if low > 0 or high < 0 else "no clear difference on these images"
    method = PROBE_TITLES[rule["method"]].lower()
    return [f"Compared with the starting weights ({method}): {difference}: {verdict}."]


def _describe_probe(probe: Mapping[str, Any]) -> str:
    kind = next(kind for kind in PROBE_TITLES if kind in probe)
    macro, spans = probe[kind]["macro"], probe[kind]["ci95"]["macro"]
    scores = (
        f"{wording.LABELS[name]} {wording.format_score(macro[name], spans[name])}" for name in PLOTTED_SCORES
    )
    return f"{probe_wording.PROBES[kind]} {', '.join(scores)}"


def _step_name(step: int) -> str:
    return f"step {step:,}"
