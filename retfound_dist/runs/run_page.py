"""The HTML pages of runs: computes the plain values that the templates show."""

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
from retfound_dist.runs.config_differences import config_differences
from retfound_dist.runs.goodput import goodput
from retfound_dist.runs.reconstructions import Pictures
from retfound_dist.runs.run_facts import SCORE, RunFacts
from retfound_dist.runs.run_list import number_text
from retfound_dist.runs.run_search import Fault
from retfound_dist.runtime.humanize import duration, plural, size

SCORES = {"auroc": "AUROC", "aupr": "AUPR", "balanced_accuracy": "balanced accuracy", "f1": "F1"}
SHOWN_ANOMALIES = 30
"""Anomalies on a page: the newest ones."""
OVERFIT_RATIO = 1.02
"""The page warns when the held-out loss over its best value exceeds this."""


def run_page(
    run: RunFacts, pictures: Pictures | None = None, price: float = 0.0, home: str = "", every_s: int = 0
) -> str:
    """One run's page; `price`: of a GPU-hour; `home`, `every_s`: link and reload interval of a live page."""
    done, total = run.step, run.total_steps
    return _render(
        "run.html.j2",
        title=run.name,
        url=run.url,
        state=run.state,
        sentence=_progress_text(run),
        share=min(1.0, done / total) if total else None,
        alarms=[row["message"] for row in run.alarms],
        warnings=warnings(run),
        tiles=_tiles(run),
        charts=charts(run),
        pictures=pictures,
        scores=[_score_row(score.step, score.metrics) for score in run.scores],
        score_names=list(SCORES.values()),
        starts=_start_rows(run),
        anomalies=[_anomaly_row(anomaly) for anomaly in run.anomalies[-SHOWN_ANOMALIES:]],
        anomalies_left=max(0, len(run.anomalies) - SHOWN_ANOMALIES),
        cost=cost_table(run, price),
        versions=_version_table(run),
        config=[(key, json.dumps(value)) for key, value in flatten(run.config)],
        now=_date_text(run.read_at),
        home=home,
        every_s=every_s,
    )


def index_page(url: str, runs: Sequence[RunFacts], faults: Sequence[Fault], every_s: int) -> str:
    """The list of runs."""
    differences = config_differences({run.url: run.config for run in runs})
    return _render(
        "index.html.j2",
        title="Runs",
        url=url,
        faults=[str(fault) for fault in faults if not fault.is_run],
        damaged=[(run_id(url, fault.url) or fault.url, fault.reason) for fault in faults if fault.is_run],
        score=SCORE.upper(),
        runs=[_index_row(url, run, differences[run.url]) for run in runs],
        now=_date_text(max((run.read_at for run in runs), default=0.0)) if runs else "now",
        every_s=every_s,
    )


def compare_page(a: RunFacts, b: RunFacts, home: str = "", every_s: int = 0) -> str:
    """Two runs side by side."""
    rows = {
        "state": [a.state, b.state],
        "step": [f"{run.step:,}" + (f" of {run.total_steps:,}" if run.total_steps else "") for run in (a, b)],
        "loss": [number_text(run.list_values["loss"]) for run in (a, b)],
        "held-out loss": [number_text(run.list_values["held_out_loss"]) for run in (a, b)],
        f"best {SCORE.upper()}": [
            number_text(run.best_score.value()) if run.best_score else "-" for run in (a, b)
        ],
        "images/s": [number_text(run.list_values["images_per_s"], 0) for run in (a, b)],
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
    # The style is inlined: the page is one file that can be mailed or copied.
    style = Markup((resources.files("retfound_dist.runs") / "style.css").read_text())
    return (
        _load_templates().get_template(name).render(style=style, mark=output_files.mark("report"), **context)
    )


@cache
def _load_templates() -> Environment:
    loader = PackageLoader("retfound_dist.runs", ".")
    return Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def _progress_text(run: RunFacts) -> str:
    total = f" of {run.total_steps:,}" if run.total_steps else ""
    text = f"step {run.step:,}{total}"
    if run.state == "running" and run.total_steps and run.rows:
        text += f", {duration((run.total_steps - run.step) * run.rows[-1]['step_s'])} left"
    elif run.last_activity:
        text += f", last active {_date_text(run.last_activity)}"
    return text


def warnings(run: RunFacts) -> list[str]:
    """Sentences about what a person should look at."""
    sentences = [f"{text}." for text in run.read_faults]
    if run.state == "failed":
        sentences.append(
            "The last start ended unexpectedly. Its log shows the reason. Start the run again to continue it."
        )
    if run.state == "silent":
        sentences.append(
            f"The run has logged nothing for {duration(run.read_at - run.last_activity)}, "
            "although a process still holds its lock."
        )
    held_out = run.held_out_losses
    best = min(held_out, key=lambda pair: pair[1], default=None)
    if best and held_out[-1][1] > OVERFIT_RATIO * best[1]:
        sentences.append(
            f"The held-out loss rises: it is {held_out[-1][1]:.4f} at step {held_out[-1][0]:,}, and was "
            f"{best[1]:.4f} at step {best[0]:,}. The run over-fits, or its learning rate is too high."
        )
    recent = run.rows[-20:]
    wait = (
        sum(r["data_wait_s"] for r in recent) / max(1e-9, sum(r["step_s"] for r in recent)) if recent else 0
    )
    # The first steps always wait until the loader has started.
    if wait > 0.01 and len(run.rows) > 2:
        sentences.append(
            f"Ranks now wait for data {wait:.0%} of the time: raise data.workers, or put data.cache_dir on a "
            "faster disk."
        )
    skipped = int(run.rows[-1].get("skipped_steps", 0)) if run.rows else 0
    if skipped:
        sentences.append(
            f"{plural(skipped, 'step')} skipped because the loss or gradient was not finite: see Anomalies."
        )
    return sentences


def _tiles(run: RunFacts) -> list[tuple[str, str, str]]:
    """(name, value, note) of the numbers at the top of the page."""
    values, last = run.list_values, run.rows[-1] if run.rows else {}
    held_out, best = run.held_out_losses, run.best_score
    lowest = f"best {min(held_out, key=lambda p: p[1])[1]:.4f}" if held_out else "nothing held out"
    span = best.interval() if best else None
    interval = f"{span[0]:.3f} to {span[1]:.3f}" if span else "not evaluated"
    ranks = plural(int(last["world_size"]), "rank") if last else ""
    mfu = f"MFU {last['mfu']:.0%}, {ranks}" if last.get("mfu") is not None else ranks
    return [
        ("loss", number_text(values["loss"]), "on removed patches"),
        ("held-out loss", number_text(values["held_out_loss"]), lowest),
        (f"best {SCORE.upper()}", number_text(best.value(), 3) if best else "-", interval),
        ("images/s", number_text(values["images_per_s"], 0), mfu),
        ("last checkpoint", number_text(values["checkpoint"], 0), f"{len(run.checkpoints)} committed"),
        ("epoch", number_text(last.get("epoch"), 1), f"{last.get('samples', 0):,} images seen"),
    ]


def _score_row(step: int, metrics: Mapping[str, Any]) -> dict[str, Any]:
    cells = []
    for name in SCORES:
        value, span = metrics["macro"].get(name), metrics.get("ci95", {}).get("macro", {}).get(name)
        cells.append((number_text(value, 3), f"{span[0]:.3f} to {span[1]:.3f}" if span else ""))
    return {"step": f"{step:,}", "cells": cells, "data": metrics.get("data", {}).get("path", "")}


def _start_rows(run: RunFacts) -> list[dict[str, str]]:
    """A row for each start of the run: its steps, its ranks, and why it ended."""
    starts = [event for event in run.events if event["event"] == "start"]
    rows_of_starts = []
    for start, next_start in zip(starts, [*starts[1:], None], strict=False):
        limit = next_start["began"] if next_start else float("inf")
        steps = [r["step"] for r in run.all_rows if start["ready"] <= r.get("time", 0.0) < limit]
        end = next(
            (e for e in run.events if e["event"] == "end" and start["ready"] <= e["time"] < limit), None
        )
        no_end = run.state if next_start is None and run.state in ("running", "silent") else "unexpectedly"
        rows_of_starts.append(
            {
                "began": _date_text(start["began"]),
                "ranks": str(start["world_size"]),
                "stage": str(start["zero_stage"]),
                "first": f"{start['step']:,}",
                "last": f"{max(steps):,}" if steps else "-",
                "ready": duration(start["ready"] - start["began"]),
                "end": end["reason"] if end else no_end,
            }
        )
    return rows_of_starts


def _anomaly_row(anomaly: Mapping[str, Any]) -> dict[str, str]:
    loss = anomaly.get("loss")
    return {
        "step": f"{anomaly['step']:,}",
        "kind": {"skipped": "skipped: not finite", "spike": "sudden rise of the loss"}.get(
            anomaly["kind"], anomaly["kind"]
        ),
        "loss": "not finite" if loss is None else f"{loss:.4f}",
        "suspects": ", ".join(anomaly.get("suspects", [])[:3]),
    }


def gpu_hours(run: RunFacts) -> float:
    """Wall time of every start times its ranks, with or without progress."""
    return sum((band.end - band.begin) * band.ranks for band in time_bands(run))


def cost_table(run: RunFacts, price: float) -> list[tuple[str, str]]:
    """(name, value) of what the run cost and where its time went."""
    hours = gpu_hours(run)
    lines = [("GPU-hours (one GPU per rank)", f"{hours:,.4g}")]
    if price:
        lines.append(("Price", f"{hours * price:,.2f}, at {price:g} per GPU-hour"))
    try:
        time = goodput(run.events, run.all_rows)
    # An early version logged no starts: the page shows the rest of the table.
    except (TrainingError, KeyError):
        return lines
    if time.wall_s <= 0:
        return lines
    parts = {
        "Steps that count": time.useful_s,
        "Repeated steps": time.redo_s,
        "Starting up": time.restart_s + time.load_s,
        "Not running": time.down_s,
        "Checkpoints and other": time.rest_s,
    }
    lines.append(("Wall time since the first start", duration(time.wall_s)))
    lines += [
        (name, f"{duration(max(0.0, s))} ({max(0.0, s) / time.wall_s:.1%})") for name, s in parts.items()
    ]
    stalls = [float(e["stall_s"]) for e in run.events if e["event"] == "checkpoint"]
    if stalls:
        mean_stall = f"{sum(stalls) / len(stalls):.2f} s"
        lines.append(("Pause of training for a checkpoint", f"{mean_stall}, mean of {len(stalls)}"))
    if sizes := [e["bytes_of_rank_0"] for e in run.events if e["event"] == "checkpoint"]:
        lines.append(("Files of rank 0 in the last checkpoint", size(sizes[-1])))
    return lines


def _version_table(run: RunFacts) -> list[tuple[str, str]]:
    nothing: dict[str, Any] = {}
    start = next((e for e in reversed(run.events) if e["event"] == "start"), nothing)
    facts = [("Batch", str(start["cut"]))] if "cut" in start else []
    facts += [("Device", str(start["device"]))] if "device" in start else []
    return facts + [(name, version) for name, version in start.get("versions", {}).items()]


def _index_row(url: str, run: RunFacts, differences: Mapping[str, Any]) -> dict[str, str]:
    """The texts of a run's row on the index page.

    `url`: the folder of all runs; `differences`: the settings in which this run differs from others.
    """
    values, best = run.list_values, run.best_score
    return {
        "id": run_id(url, run.url),
        "name": run_id(url, run.url) or run.name,
        "state": values["state"],
        "alarms": plural(len(run.alarms), "alarm") if run.alarms else "",
        "step": f"{run.step:,}",
        "steps": f"of {run.total_steps:,}" if run.total_steps else "",
        "loss": number_text(values["loss"]),
        "held_out": number_text(values["held_out_loss"]),
        "speed": number_text(values["images_per_s"], 0),
        "checkpoint": number_text(values["checkpoint"], 0),
        "best": number_text(best.value(), 3) if best else "-",
        "best_at": f"step {best.step:,}" if best else "",
        "differences": ", ".join(f"{key}={json.dumps(value)}" for key, value in differences.items()) or "-",
    }


def run_id(root: str, url: str) -> str:
    """A run's path below the URL that is served; it identifies the run in links."""
    return url.removeprefix(root.rstrip("/")).strip("/")


def _date_text(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%d %b %Y %H:%M UTC")
