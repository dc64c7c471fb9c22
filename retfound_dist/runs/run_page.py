"""Pages of runs: a template and a context of plain values, computed here from what a run's folder says."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from importlib import resources
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from retfound_dist.config.loading import differences, flatten
from retfound_dist.errors import TrainingError
from retfound_dist.io import output_files
from retfound_dist.runs.charts import charts, compared_charts, time_bands
from retfound_dist.runs.goodput import goodput
from retfound_dist.runs.reconstructions import Pictures
from retfound_dist.runs.run_list import SCORE, RunFacts, config_differences, summary
from retfound_dist.runs.run_search import Fault
from retfound_dist.runtime.humanize import duration, plural, size

SCORES = {"auroc": "AUROC", "aupr": "AUPR", "balanced_accuracy": "balanced accuracy", "f1": "F1"}
ANOMALIES = 30
"""Shown on a page, the newest."""
OVERFITS = 1.02
"""The held-out loss over its best so far, from which the page says that it rises."""


def run_page(
    run: RunFacts, pictures: Pictures | None = None, price: float = 0.0, home: str = "", every_s: int = 0
) -> str:
    """One run's page; `price` of a GPU-hour; `home` and `every_s` for the live one."""
    done, total = run.step, run.steps
    return _render(
        "run.html.j2",
        title=run.name,
        url=run.url,
        state=run.state,
        sentence=_sentence(run),
        share=min(1.0, done / total) if total else None,
        alarms=[row["message"] for row in run.alarms],
        warnings=warnings(run),
        tiles=_tiles(run),
        charts=charts(run),
        pictures=pictures,
        scores=[_score_row(score.step, score.metrics) for score in run.scores],
        score_names=list(SCORES.values()),
        starts=_starts(run),
        anomalies=[_anomaly(anomaly) for anomaly in run.anomalies[-ANOMALIES:]],
        anomalies_left=max(0, len(run.anomalies) - ANOMALIES),
        cost=cost(run, price),
        versions=_versions(run),
        config=[(key, json.dumps(value)) for key, value in flatten(run.config)],
        now=_clock(run.now),
        home=home,
        every_s=every_s,
    )


def index_page(url: str, runs: Sequence[RunFacts], faults: Sequence[Fault], every_s: int) -> str:
    """The list of runs; a run's `id` is its URL below the one that is served."""
    differ = config_differences({run.url: run.config for run in runs})
    return _render(
        "index.html.j2",
        title="Runs",
        url=url,
        faults=[str(fault) for fault in faults if not fault.is_run],
        damaged=[(run_id(url, fault.url) or fault.url, fault.why) for fault in faults if fault.is_run],
        score=SCORE.upper(),
        runs=[_index_row(url, run, differ[run.url]) for run in runs],
        now=_clock(max((run.now for run in runs), default=0.0)) if runs else "now",
        every_s=every_s,
    )


def compare_page(a: RunFacts, b: RunFacts, home: str = "", every_s: int = 0) -> str:
    """Two runs side by side."""
    rows = {
        "state": [a.state, b.state],
        "step": [f"{run.step:,}" + (f" of {run.steps:,}" if run.steps else "") for run in (a, b)],
        "loss": [_number(summary(run)["loss"]) for run in (a, b)],
        "held-out loss": [_number(summary(run)["held_out_loss"]) for run in (a, b)],
        f"best {SCORE.upper()}": [_number(run.best.value()) if run.best else "-" for run in (a, b)],
        "images/s": [_number(summary(run)["images_per_s"], 0) for run in (a, b)],
        "GPU-hours": [f"{gpu_hours(run):,.4g}" for run in (a, b)],
    }
    changed = [d for d in differences(a.config, b.config) if d[0] != "run.url"]
    return _render(
        "compare.html.j2",
        title=f"{a.name} and {b.name}",
        names=[a.name, b.name],
        charts=compared_charts([a, b]),
        rows=list(rows.items()),
        differences=[(key, json.dumps(old), json.dumps(new)) for key, old, new in changed],
        home=home,
        every_s=every_s,
    )


def _render(name: str, **context: Any) -> str:
    # Inlined: the page is one file that can be mailed or copied.
    style = Markup((resources.files("retfound_dist.runs") / "style.css").read_text())
    return _templates().get_template(name).render(style=style, mark=output_files.mark("report"), **context)


@cache
def _templates() -> Environment:
    loader = PackageLoader("retfound_dist.runs", ".")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _sentence(run: RunFacts) -> str:
    total = f" of {run.steps:,}" if run.steps else ""
    text = f"step {run.step:,}{total}"
    if run.state == "running" and run.steps and run.rows:
        text += f", {duration((run.steps - run.step) * run.rows[-1]['step_s'])} left"
    elif run.seen:
        text += f", last heard of {_clock(run.seen)}"
    return text


def warnings(run: RunFacts) -> list[str]:
    """What a person should look at, in sentences."""
    sentences = [f"{text}." for text in run.left_out]
    if run.state == "failed":
        sentences.append(
            "The last start ended without a word: its log says why. Start the run again to go on."
        )
    if run.state == "silent":
        sentences.append(
            f"Nothing was heard of it for {duration(run.now - run.seen)}, though it has the run's lock."
        )
    held_out = run.held_out
    best = min(held_out, key=lambda pair: pair[1], default=None)
    if best and held_out[-1][1] > OVERFITS * best[1]:
        sentences.append(
            f"The held-out loss rises: {held_out[-1][1]:.4f} at step {held_out[-1][0]:,}, "
            f"at its best {best[1]:.4f} at step {best[0]:,}. The run over-fits, or its rate is too high."
        )
    recent = run.rows[-20:]
    wait = (
        sum(r["data_wait_s"] for r in recent) / max(1e-9, sum(r["step_s"] for r in recent)) if recent else 0
    )
    # The first steps wait for the loader to start, whatever its pace.
    if wait > 0.01 and len(run.rows) > 2:
        sentences.append(
            f"Ranks wait for data {wait:.0%} of the time of late: more data.workers, or a nearer cache."
        )
    skipped = int(run.rows[-1].get("skipped_steps", 0)) if run.rows else 0
    if skipped:
        sentences.append(
            f"{plural(skipped, 'step')} skipped, for loss or gradient was not finite: see Anomalies."
        )
    return sentences


def _tiles(run: RunFacts) -> list[tuple[str, str, str]]:
    """(name, value, note) of the numbers to see first."""
    summarized, last = summary(run), run.rows[-1] if run.rows else {}
    held_out, best = run.held_out, run.best
    lowest = f"best {min(held_out, key=lambda p: p[1])[1]:.4f}" if held_out else "nothing held out"
    span = best.interval() if best else None
    interval = f"{span[0]:.3f} to {span[1]:.3f}" if span else "not evaluated"
    ranks = plural(int(last["world_size"]), "rank") if last else ""
    mfu = f"MFU {last['mfu']:.0%}, {ranks}" if last.get("mfu") is not None else ranks
    return [
        ("loss", _number(summarized["loss"]), "on removed patches"),
        ("held-out loss", _number(summarized["held_out_loss"]), lowest),
        (f"best {SCORE.upper()}", _number(best.value(), 3) if best else "-", interval),
        ("images/s", _number(summarized["images_per_s"], 0), mfu),
        ("last checkpoint", _number(summarized["checkpoint"], 0), f"{len(run.checkpoints)} committed"),
        ("epoch", _number(last.get("epoch"), 1), f"{last.get('samples', 0):,} images seen"),
    ]


def _score_row(step: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    cells = []
    for name in SCORES:
        value, span = metrics["macro"].get(name), metrics.get("ci95", {}).get("macro", {}).get(name)
        cells.append((_number(value, 3), f"{span[0]:.3f} to {span[1]:.3f}" if span else ""))
    return {"step": f"{step:,}", "cells": cells, "data": metrics.get("data", {}).get("path", "")}


def _starts(run: RunFacts) -> list[dict[str, str]]:
    starts = [event for event in run.events if event["event"] == "start"]
    rows_of_starts = []
    for start, following in zip(starts, [*starts[1:], None], strict=False):
        until = following["began"] if following else float("inf")
        rows = [r["step"] for r in run.written if start["ready"] <= r.get("time", 0.0) < until]
        end = next(
            (e for e in run.events if e["event"] == "end" and start["ready"] <= e["time"] < until), None
        )
        open_end = run.state if following is None and run.state in ("running", "silent") else "without a word"
        rows_of_starts.append(
            {
                "began": _clock(start["began"]),
                "ranks": str(start["world_size"]),
                "stage": str(start["zero_stage"]),
                "first": f"{start['step']:,}",
                "last": f"{max(rows):,}" if rows else "-",
                "ready": duration(start["ready"] - start["began"]),
                "end": end["reason"] if end else open_end,
            }
        )
    return rows_of_starts


def _anomaly(anomaly: Mapping[str, Any]) -> dict[str, str]:
    loss = anomaly.get("loss")
    return {
        "step": f"{anomaly['step']:,}",
        "kind": {"skipped": "skipped: not finite", "spike": "the loss leapt"}.get(
            anomaly["kind"], anomaly["kind"]
        ),
        "loss": "not finite" if loss is None else f"{loss:.4f}",
        "suspects": ", ".join(anomaly.get("suspects", [])[:3]),
    }


def gpu_hours(run: RunFacts) -> float:
    """Wall time of every start times its ranks, whatever these did in it."""
    return sum((band.end - band.begin) * band.ranks for band in time_bands(run))


def cost(run: RunFacts, price: float) -> list[tuple[str, str]]:
    """Where the time went."""
    hours = gpu_hours(run)
    lines = [("GPU-hours (a rank counts as one)", f"{hours:,.4g}")]
    if price:
        lines.append(("Price", f"{hours * price:,.2f} at {price:g} a GPU-hour"))
    try:
        time = goodput(run.events, run.written)
    # A run of an early version logged no starts: the rest of the table is shown without them.
    except (TrainingError, KeyError):
        return lines
    if time.wall_s <= 0:
        return lines
    parts = {
        "Steps that count": time.useful_s,
        "Done again": time.redo_s,
        "Starting": time.restart_s + time.load_s,
        "Nothing ran": time.down_s,
        "Checkpoints and the rest": time.rest_s,
    }
    lines.append(("Wall time since the first start", duration(time.wall_s)))
    lines += [
        (name, f"{duration(max(0.0, s))} ({max(0.0, s) / time.wall_s:.1%})") for name, s in parts.items()
    ]
    stalls = [float(e["stall_s"]) for e in run.events if e["event"] == "checkpoint"]
    if stalls:
        mean_stall = f"{sum(stalls) / len(stalls):.2f} s"
        lines.append(("A checkpoint stopped training for", f"{mean_stall} in the mean of {len(stalls)}"))
    if sizes := [e["bytes_of_rank_0"] for e in run.events if e["event"] == "checkpoint"]:
        lines.append(("Files of rank 0 in a checkpoint", size(sizes[-1])))
    return lines


def _versions(run: RunFacts) -> list[tuple[str, str]]:
    nothing: dict[str, Any] = {}
    start = next((e for e in reversed(run.events) if e["event"] == "start"), nothing)
    facts = [("Batch", str(start["cut"]))] if "cut" in start else []
    facts += [("Device", str(start["device"]))] if "device" in start else []
    return facts + [(name, version) for name, version in start.get("versions", {}).items()]


def _index_row(url: str, run: RunFacts, differ: Mapping[str, Any]) -> dict[str, str]:
    summarized, best = summary(run), run.best
    return {
        "id": run_id(url, run.url),
        "name": run_id(url, run.url) or run.name,
        "state": summarized["state"],
        "alarms": plural(len(run.alarms), "alarm") if run.alarms else "",
        "step": f"{run.step:,}",
        "steps": f"of {run.steps:,}" if run.steps else "",
        "loss": _number(summarized["loss"]),
        "held_out": _number(summarized["held_out_loss"]),
        "speed": _number(summarized["images_per_s"], 0),
        "checkpoint": _number(summarized["checkpoint"], 0),
        "best": _number(best.value(), 3) if best else "-",
        "best_at": f"step {best.step:,}" if best else "",
        "differences": ", ".join(f"{key}={json.dumps(value)}" for key, value in differ.items()) or "-",
    }


def run_id(root: str, url: str) -> str:
    """A run's URL below the one that is served."""
    return url.removeprefix(root.rstrip("/")).strip("/")


def _number(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:,.{digits}f}"


def _clock(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y %H:%M UTC")
