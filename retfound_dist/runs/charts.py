"""The figures of a run's page: curves over steps, with bands for the number of ranks, and steps over time."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from retfound_dist.runs.run_facts import RunFacts
from retfound_dist.runtime.humanize import plural
from retfound_dist.runtime.svg_plots import INK, MUTED, colour, new_figure, to_svg

POINTS = 600
"""Most points of a curve: the page of a long run stays small."""
TRAIN, HELD_OUT = 0, 1
PROBE_SCORES = {"auroc": "AUROC", "aupr": "AUPR", "balanced_accuracy": "balanced accuracy"}
_PROBE_TITLES = {"linear": "Linear probe", "attentive": "Attentive probe"}
_LOCK = threading.Lock()  # matplotlib's settings belong to the process, and the dashboard has threads


@dataclass(frozen=True)
class Chart:
    """A figure with its texts; `legend` pairs the number of a colour with a name."""

    title: str
    svg: Markup
    note: str = ""
    legend: Sequence[tuple[int, str]] = field(default=())


@dataclass(frozen=True)
class Band:
    """A part of the run with one number of ranks, from `begin` to `end` in steps or hours."""

    begin: float
    end: float
    ranks: int


Points = Sequence[tuple[float, float]]


def thin(points: Points, max_points: int = POINTS) -> Points:
    """At most `max_points` points: the mean of each group of neighbours, at the place of the group's last."""
    size = -(-len(points) // max_points)
    if size <= 1:
        return points
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return [(group[-1][0], sum(y for _, y in group) / len(group)) for group in groups]


def step_bands(run: RunFacts) -> list[Band]:
    """By step: the parts with the same number of ranks."""
    bands, begin = [], 0.0
    for ranks, rows in groupby(run.rows, key=lambda row: int(row["world_size"])):
        end = [row["step"] for row in rows][-1]
        bands.append(Band(begin, end, ranks))
        begin = end
    return bands


def time_bands(run: RunFacts) -> list[Band]:
    """In hours since the first start: each start of the run until its last row or event."""
    starts = sorted((e for e in run.events if e["event"] == "start"), key=lambda e: float(e["began"]))
    if not starts:
        return []
    zero, bands = float(starts[0]["began"]), []
    # All rows after the last start belong to it: its limit is infinite.
    for start, limit in zip(starts, [*(s["began"] for s in starts[1:]), float("inf")], strict=True):
        times = [row["time"] for row in (*run.all_rows, *run.events) if start["began"] <= row["time"] < limit]
        end = max(times, default=start["ready"])
        bands.append(Band((start["began"] - zero) / 3600, (end - zero) / 3600, int(start["world_size"])))
    return bands


def loss_chart(runs: Sequence[RunFacts]) -> Chart:
    """Training and held-out loss of one run, or of several in one figure."""
    several = len(runs) > 1
    with _LOCK:
        figure, axes = new_figure()
        legend: list[tuple[int, str]] = []
        for place, run in enumerate(runs):
            train, held_out = (2 * place, 2 * place + 1) if several else (TRAIN, HELD_OUT)
            name = f"{run.name}: " if several else ""
            _draw_line(axes, _column(run, "loss_mean", "loss"), train)
            legend.append((train, f"{name}training"))
            if run.held_out_losses:
                _draw_line(axes, run.held_out_losses, held_out, dots=True)
                legend.append((held_out, f"{name}held out"))
        if not several:
            _draw_bands(axes, step_bands(runs[0]))
            _mark_anomalies(axes, runs[0])
        note = (
            "Held out: patients that are not trained on. Their images are whole and training images are "
            "cropped, so compare only the trends of the two curves."
        )
        if not any(run.held_out_losses for run in runs):
            note = "No patients are held out, so this figure would not show over-fitting."
        return _chart("Reconstruction loss", axes, figure, "step", "loss on removed patches", note, legend)


def column_chart(
    runs: Sequence[RunFacts],
    title: str,
    label: str,
    note: str,
    value: Callable[[dict[str, Any]], float | None],
) -> Chart:
    """One column of the log over steps, of one run or of several."""
    several, lowest = len(runs) > 1, 0.0
    with _LOCK:
        figure, axes = new_figure()
        for place, run in enumerate(runs):
            points = [(row["step"], number) for row in run.rows if (number := value(row)) is not None]
            _draw_line(axes, points, 2 * place if several else TRAIN)
            # The axis begins at 0: one that begins at the lowest value makes small changes look large.
            lowest = min(lowest, *(y for _, y in points), 0.0)
        if not several:
            _draw_bands(axes, step_bands(runs[0]))
        axes.set_ylim(bottom=lowest)
        legend = [(2 * place, run.name) for place, run in enumerate(runs)] if several else []
        return _chart(title, axes, figure, "step", label, note, legend)


def progress_chart(run: RunFacts) -> Chart | None:
    """Steps over wall time, with a band for each start; None where there was no start."""
    bands = time_bands(run)
    if not bands:
        return None
    zero = min(float(e["began"]) for e in run.events if e["event"] == "start")
    scale, unit = (1.0, "hours") if bands[-1].end > 2 else (60.0, "minutes")
    points = [((row["time"] - zero) / 3600 * scale, row["step"]) for row in run.all_rows if "time" in row]
    with _LOCK:
        figure, axes = new_figure()
        scaled = [Band(b.begin * scale, b.end * scale, b.ranks) for b in bands]
        # One line for each start: a single line would cross the gaps in which nothing ran.
        for band in scaled:
            _draw_line(axes, [point for point in points if band.begin <= point[0] <= band.end], TRAIN)
        _draw_bands(axes, scaled)
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
        note = f"{plural(len(bands), 'start')}, one band for each. Nothing ran in the gaps."
        return _chart("Progress", axes, figure, f"{unit} since the first start", "step", note)


def score_chart(runs: Sequence[RunFacts]) -> Chart | None:
    """Macro AUROC and balanced accuracy of the evaluated checkpoints; None where none was evaluated."""
    names = {"auroc": "macro AUROC", "balanced_accuracy": "balanced accuracy"}
    if not any(run.scores for run in runs):
        return None
    with _LOCK:
        figure, axes = new_figure()
        legend = []
        pairs = [(run, name) for run in runs for name in names]
        for place, (run, name) in enumerate(pairs):
            scored = [s for s in run.scores if s.value(name) is not None]
            if not scored:
                continue
            for score in scored:
                if span := score.interval(name):
                    axes.plot([score.step, score.step], span, color=colour(place), alpha=0.45, linewidth=2.2)
            _draw_line(axes, [(s.step, s.value(name) or 0.0) for s in scored], place, dots=True)
            legend.append((place, names[name] if len(runs) == 1 else f"{run.name}: {names[name]}"))
        note = "Fine-tuned on a labelled set and scored on its test part. Bars: 95 % intervals."
        return _chart("Evaluations", axes, figure, "step of the checkpoint", "score", note, legend)


def probe_charts(runs: Sequence[RunFacts]) -> list[Chart | None]:
    """The linear and the attentive probes of `retfound watch`."""
    return [probe_chart(runs, kind) for kind in _PROBE_TITLES]


def probe_chart(runs: Sequence[RunFacts], kind: str = "linear") -> Chart | None:
    """The probes of one kind; of several runs only their AUROC. None where there are none."""
    shown = [run for run in runs if any(kind in row for row in run.watch_history.get("rows", ()))]
    if not shown:
        return None
    several = len(runs) > 1
    names = {"auroc": "AUROC"} if several else PROBE_SCORES
    with _LOCK:
        figure, axes = new_figure()
        legend = []
        for place, (run, name) in enumerate((run, name) for run in shown for name in names):
            _draw_probes(axes, run, kind, name, 2 * place if several else place)
            legend.append((2 * place, run.name) if several else (place, names[name]))
        note = (
            "Cross-validated on the parts train and val. Bars: 95 % intervals. Dotted: the starting weights."
        )
        label = "macro AUROC" if several else "macro score"
        return _chart(_PROBE_TITLES[kind], axes, figure, "step of the checkpoint", label, note, legend)


def _draw_probes(axes: Axes, run: RunFacts, kind: str, name: str, place: int) -> None:
    """One score of a run's probes with its intervals, and that score of the starting weights."""
    scored = [(row["step"], row[kind]) for row in run.watch_history["rows"] if kind in row]
    scored = [(step, tree) for step, tree in scored if tree["macro"].get(name) is not None]
    for step, tree in scored:
        if span := tree["ci95"]["macro"].get(name):
            axes.plot([step, step], span, color=colour(place), alpha=0.45, linewidth=2.2)
    _draw_line(axes, [(step, tree["macro"].get(name)) for step, tree in scored], place, dots=True)
    start = (run.watch_history.get("start") or {}).get(kind)
    if start and start["macro"].get(name) is not None:
        axes.axhline(start["macro"].get(name), color=colour(place), linestyle=(0, (2, 3)), linewidth=1)


def compared_charts(runs: Sequence[RunFacts]) -> list[Chart]:
    """The figures that show several runs together."""
    speed = column_chart(runs, "Speed", "images/s", "", lambda row: row["images_per_s"])
    figures = [loss_chart(runs), *probe_charts(runs), score_chart(runs), speed]
    return [chart for chart in figures if chart is not None]


def charts(run: RunFacts) -> list[Chart]:
    """All figures of one run's page; without those for which nothing was logged."""
    if not run.rows:
        return []
    figures: list[Chart | None] = [loss_chart([run]), *probe_charts([run]), score_chart([run])]
    figures.append(progress_chart(run))
    figures.append(column_chart([run], "Speed", "images/s", "", lambda row: row["images_per_s"]))
    wait = "Share of each step in which ranks wait for data. More than 1 % is too much."
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


def _draw_line(axes: Axes, points: Points, place: int, dots: bool = False) -> None:
    if not points:
        return
    x, y = zip(*thin(points), strict=True)
    marker = "o" if dots or len(points) == 1 else ""
    axes.plot(x, y, color=colour(place), marker=marker, markersize=4, solid_joinstyle="round")


def _draw_bands(axes: Axes, bands: Sequence[Band]) -> None:
    """Shaded bands with the number of ranks at their top; narrow bands have no label."""
    if not bands:
        return
    full_width = (bands[-1].end - bands[0].begin) or 1.0
    for place, band in enumerate(bands):
        axes.axvspan(band.begin, band.end, color=MUTED, alpha=0.14 if place % 2 == 0 else 0.05, linewidth=0)
        if (band.end - band.begin) / full_width > 0.12:
            middle = (band.begin + band.end) / 2
            axes.annotate(
                plural(band.ranks, "rank"), (middle, 1.0), xycoords=("data", "axes fraction"),
                xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7, color=INK,
            )  # fmt: skip


def _mark_anomalies(axes: Axes, run: RunFacts) -> None:
    """A mark at the bottom for each step with an anomaly."""
    steps = list(_anomaly_steps(run))
    if steps:
        axes.plot(steps, [0.02] * len(steps), "^", color=colour(7), markersize=5,
                  transform=axes.get_xaxis_transform(), clip_on=False)  # fmt: skip


def _anomaly_steps(run: RunFacts) -> Iterator[int]:
    # A damaged row may have any step. A step behind the last one would stretch the axis.
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
    """The finished figure as a chart of the page."""
    axes.margins(x=0.01, y=0.12)
    axes.set(xlabel=x_label, ylabel=y_label)
    return Chart(title, Markup(to_svg(figure)), note, tuple(legend))
