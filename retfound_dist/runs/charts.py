"""The figures of a run's page: curves by step over bands of world sizes, and its course over time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from retfound_dist.runs.run_list import RunFacts
from retfound_dist.runtime.humanize import plural
from retfound_dist.runtime.svg_plots import INK, MUTED, colour, new_figure, to_svg

POINTS = 600
"""A curve is thinned to so many points: a page stays small however long the run."""
TRAIN, HELD_OUT = 0, 1
PROBED = {"auroc": "AUROC", "aupr": "AUPR", "balanced_accuracy": "balanced accuracy"}
_LOCK = threading.Lock()  # matplotlib's settings are the process's


@dataclass(frozen=True)
class Chart:
    """A figure with its words; `legend` pairs a colour's place with a name."""

    title: str
    svg: Markup
    note: str = ""
    legend: Sequence[tuple[int, str]] = field(default=())


@dataclass(frozen=True)
class Band:
    """A stretch of the run on one number of ranks."""

    begin: float
    end: float
    ranks: int


Points = Sequence[tuple[float, float]]


def thin(points: Points, most: int = POINTS) -> Points:
    """At most so many points: the mean of neighbours, which keeps the last one's place."""
    size = -(-len(points) // most)
    if size <= 1:
        return points
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def step_bands(run: RunFacts) -> list[Band]:
    """By step: where the number of ranks was the same."""
    bands, before = [], 0.0
    for ranks, rows in groupby(run.rows, key=lambda row: int(row["world_size"])):
        last = [row["step"] for row in rows][-1]
        bands.append(Band(before, last, ranks))
        before = last
    return bands


def time_bands(run: RunFacts) -> list[Band]:
    """By hours since the first start: each start of the run until its end or last sign of life."""
    starts = sorted((e for e in run.events if e["event"] == "start"), key=lambda e: float(e["began"]))
    if not starts:
        return []
    zero, bands = float(starts[0]["began"]), []
    # What follows the last start belongs to it: its end is infinite.
    for start, until in zip(starts, [*(s["began"] for s in starts[1:]), float("inf")], strict=True):
        times = [row["time"] for row in (*run.written, *run.events) if start["began"] <= row["time"] < until]
        end = max(times, default=start["ready"])
        bands.append(Band((start["began"] - zero) / 3600, (end - zero) / 3600, int(start["world_size"])))
    return bands


def loss_chart(runs: Sequence[RunFacts]) -> Chart:
    """Training and held-out loss of one run, or of several over each other."""
    several = len(runs) > 1
    with _LOCK:
        figure, axes = new_figure()
        legend: list[tuple[int, str]] = []
        for place, run in enumerate(runs):
            train, held_out = (2 * place, 2 * place + 1) if several else (TRAIN, HELD_OUT)
            name = f"{run.name}: " if several else ""
            _line(axes, _column(run, "loss_mean", "loss"), train)
            legend.append((train, f"{name}training"))
            if run.held_out:
                _line(axes, run.held_out, held_out, dots=True)
                legend.append((held_out, f"{name}held out"))
        if not several:
            _bands(axes, step_bands(runs[0]))
            _anomalies(axes, runs[0])
        note = "Held out: patients never trained on, whole images where training crops: the trends compare."
        if not any(run.held_out for run in runs):
            note = "No patients are held out: over-fitting would not show here."
        return _chart("Reconstruction loss", axes, figure, "step", "loss on removed patches", note, legend)


def column_chart(
    runs: Sequence[RunFacts],
    title: str,
    label: str,
    note: str,
    value: Callable[[dict[str, Any]], float | None],
) -> Chart:
    """One number of the log by step, of one run or of several."""
    several, lowest = len(runs) > 1, 0.0
    with _LOCK:
        figure, axes = new_figure()
        for place, run in enumerate(runs):
            points = [(row["step"], number) for row in run.rows if (number := value(row)) is not None]
            _line(axes, points, 2 * place if several else TRAIN)
            # The axis goes down to 0: one that begins at the lowest value makes small changes look large.
            lowest = min(lowest, *(y for _, y in points), 0.0)
        if not several:
            _bands(axes, step_bands(runs[0]))
        axes.set_ylim(bottom=lowest)
        legend = [(2 * place, run.name) for place, run in enumerate(runs)] if several else []
        return _chart(title, axes, figure, "step", label, note, legend)


def course_chart(run: RunFacts) -> Chart | None:
    """Steps over wall time, with a band for each start; None before the first."""
    bands = time_bands(run)
    if not bands:
        return None
    zero = min(float(e["began"]) for e in run.events if e["event"] == "start")
    scale, unit = (1.0, "hours") if bands[-1].end > 2 else (60.0, "minutes")
    points = [((row["time"] - zero) / 3600 * scale, row["step"]) for row in run.written if "time" in row]
    with _LOCK:
        figure, axes = new_figure()
        scaled = [Band(b.begin * scale, b.end * scale, b.ranks) for b in bands]
        # A line for each start: one line over all would cross the gaps, in which nothing ran.
        for band in scaled:
            _line(axes, [point for point in points if band.begin <= point[0] <= band.end], TRAIN)
        _bands(axes, scaled)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        note = f"{plural(len(bands), 'start')}; each band is one, on so many ranks. Gaps: nothing ran."
        return _chart("Course", axes, figure, f"{unit} since the first start", "step", note)


def score_chart(runs: Sequence[RunFacts]) -> Chart | None:
    """Macro AUROC and balanced accuracy of the evaluated checkpoints, with their intervals; None: none."""
    names = {"auroc": "macro AUROC", "balanced_accuracy": "balanced accuracy"}
    if not any(run.scores for run in runs):
        return None
    with _LOCK:
        figure, axes = new_figure()
        legend = []
        pairs = [(run, name) for run in runs for name in names]
        for place, (run, name) in enumerate(pairs):
            known = [s for s in run.scores if s.value(name) is not None]
            if not known:
                continue
            for score in known:
                if span := score.interval(name):
                    axes.plot([score.step, score.step], span, color=colour(place), alpha=0.45, linewidth=2.2)
            _line(axes, [(s.step, s.value(name) or 0.0) for s in known], place, dots=True)
            legend.append((place, names[name] if len(runs) == 1 else f"{run.name}: {names[name]}"))
        note = "Fine-tuned on the labelled set, its test part; bars: 95 % intervals."
        return _chart("Evaluations", axes, figure, "step of the checkpoint", "score", note, legend)


def probe_chart(runs: Sequence[RunFacts]) -> Chart | None:
    """The watch's linear probes with intervals, beside the starting weights'; AUROC alone of several runs."""
    shown = [run for run in runs if run.watch.get("rows")]
    if not shown:
        return None
    several = len(runs) > 1
    names = {"auroc": "AUROC"} if several else PROBED
    with _LOCK:
        figure, axes = new_figure()
        legend = []
        for place, (run, name) in enumerate((run, name) for run in shown for name in names):
            _probes(axes, run, name, 2 * place if several else place)
            legend.append((2 * place, run.name) if several else (place, names[name]))
        note = "Cross-validated on train and val; bars: 95 % intervals; dotted: the run's starting weights."
        label = "macro AUROC" if several else "macro score"
        return _chart("Linear probe", axes, figure, "step of the checkpoint", label, note, legend)


def _probes(axes: Axes, run: RunFacts, name: str, place: int) -> None:
    """One score of a run's probes, each with its interval, and of its starting weights."""
    known = [(row["step"], row["linear"]) for row in run.watch["rows"]]
    known = [(step, tree) for step, tree in known if tree["macro"].get(name) is not None]
    for step, tree in known:
        if span := tree["ci95"]["macro"].get(name):
            axes.plot([step, step], span, color=colour(place), alpha=0.45, linewidth=2.2)
    _line(axes, [(step, tree["macro"].get(name)) for step, tree in known], place, dots=True)
    start = (run.watch.get("start") or {}).get("linear")
    if start and start["macro"].get(name) is not None:
        axes.axhline(start["macro"].get(name), color=colour(place), linestyle=(0, (2, 3)), linewidth=1)


def compared_charts(runs: Sequence[RunFacts]) -> list[Chart]:
    """Figures of several runs over each other."""
    speed = column_chart(runs, "Speed", "images/s", "", lambda row: row["images_per_s"])
    figures = [loss_chart(runs), probe_chart(runs), score_chart(runs), speed]
    return [chart for chart in figures if chart is not None]


def charts(run: RunFacts) -> list[Chart]:
    """All figures of one run's page; none of what was not logged."""
    if not run.rows:
        return []
    figures: list[Chart | None] = [loss_chart([run]), probe_chart([run]), score_chart([run])]
    figures.append(course_chart(run))
    figures.append(column_chart([run], "Speed", "images/s", "", lambda row: row["images_per_s"]))
    wait = "Share of a step in which ranks wait for data; more than 1 % is too much."
    figures.append(
        column_chart(
            [run], "Data wait", "% of a step", wait, lambda row: 100 * row["data_wait_s"] / row["step_s"]
        )
    )
    figures.append(column_chart([run], "Learning rate", "rate", "", lambda row: row["lr"]))
    figures.append(column_chart([run], "Gradient", "norm", "", lambda row: row["grad_norm"]))
    return [chart for chart in figures if chart is not None]


def _column(run: RunFacts, *names: str) -> Points:
    rows = ((row["step"], next((row[n] for n in names if row.get(n) is not None), None)) for row in run.rows)
    return [(step, value) for step, value in rows if value is not None]


def _line(axes: Axes, points: Points, place: int, dots: bool = False) -> None:
    if not points:
        return
    x, y = zip(*thin(points), strict=True)
    marker = "o" if dots or len(points) == 1 else ""
    axes.plot(x, y, color=colour(place), marker=marker, markersize=4, solid_joinstyle="round")


def _bands(axes: Axes, bands: Sequence[Band]) -> None:
    """Shaded stretches with the number of ranks at their top; a label that would not fit is left out."""
    if not bands:
        return
    whole = (bands[-1].end - bands[0].begin) or 1.0
    for place, band in enumerate(bands):
        axes.axvspan(band.begin, band.end, color=MUTED, alpha=0.14 if place % 2 == 0 else 0.05, linewidth=0)
        if (band.end - band.begin) / whole > 0.12:
            middle = (band.begin + band.end) / 2
            axes.annotate(
                plural(band.ranks, "rank"), (middle, 1.0), xycoords=("data", "axes fraction"),
                xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7, color=INK,
            )  # fmt: skip


def _anomalies(axes: Axes, run: RunFacts) -> None:
    """A mark at the foot for each step that went wrong."""
    steps = list(_wrong_steps(run))
    if steps:
        axes.plot(steps, [0.02] * len(steps), "^", color=colour(7), markersize=5,
                  transform=axes.get_xaxis_transform(), clip_on=False)  # fmt: skip


def _wrong_steps(run: RunFacts) -> Iterator[int]:
    # A damaged line may name any step, and would stretch the axis over all curves.
    yield from sorted({int(anomaly["step"]) for anomaly in run.anomalies if anomaly["step"] <= run.step})


def _chart(
    title: str,
    axes: Axes,
    figure: Any,
    x_label: str,
    y_label: str,
    note: str,
    legend: Sequence[tuple[int, str]] = (),
) -> Chart:
    axes.margins(x=0.01, y=0.12)
    axes.set(xlabel=x_label, ylabel=y_label)
    return Chart(title, Markup(to_svg(figure)), note, tuple(legend))
