"""`step`, `memory`, `checkpoint` and `resume`: what the trial run shows."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from retfound_dist.doctor.check_result import CheckResult
from retfound_dist.doctor.checkup import Checkup
from retfound_dist.doctor.trial_run import Trial
from retfound_dist.estimate.gpu_memory import peak_memory
from retfound_dist.estimate.model_shapes import training_flops
from retfound_dist.plan.cluster import known_device
from retfound_dist.runtime.humanize import duration, size
from retfound_dist.train.engine.engine_choice import choose_zero_stage

FIRST_STEPS = 2
"""Steps that do not count for the speed: the first compiles and connects."""
MOST_DATA_WAIT = 0.05
"""Share of a step that may be waiting for images."""
MORE_MEMORY = 1.15
"""Measured memory of a GPU over the predicted. With more, the prediction cannot be trusted."""
FULL = 0.95
"""Share of a GPU's memory from which an allocation may fail in the middle of a run."""
SAME_LOSS = 1e-4
"""Largest relative difference of a loss after a resume: another order of additions, nothing else."""
LONG_STALL_S = 10.0
NAMES = ("step", "memory", "checkpoint", "resume")


def trial_checks(trial: Trial, checkup: Checkup, device_bytes: float) -> Iterator[CheckResult]:
    """The four checks. `device_bytes`: memory of a GPU; 0 on a CPU."""
    rows = _rows_without_stop(trial)
    if trial.fault or not rows:
        text = trial.fault or "the trial run has logged no step"
        what_to_do = "run the command of the run itself, with train.steps=2, and read what it prints"
        yield CheckResult("step", "failed", text, what_to_do=what_to_do)
        for name in NAMES[1:]:
            yield CheckResult(name, "skipped", "the trial run failed (see step)")
        return
    yield step_check(trial, rows, checkup)
    yield memory_check(trial, rows, checkup, device_bytes)
    yield checkpoint_check(trial.events)
    yield resume_check(trial)


def _rows_without_stop(trial: Trial) -> list[Mapping[str, Any]]:
    """The rows of the first process: steps rise until the second one repeats some."""
    rows: list[Mapping[str, Any]] = []
    for row in trial.rows:
        if rows and row["step"] <= rows[-1]["step"]:
            break
        rows.append(row)
    return rows


def images_per_s(rows: Sequence[Mapping[str, Any]]) -> float:
    """The median over the steps that count, of all ranks together."""
    return float(statistics.median(row["images_per_s"] for row in rows[FIRST_STEPS:] or rows))


def measured_rate_of(trial: Trial) -> float | None:
    """Images per second of all ranks; None where the trial failed."""
    rows = _rows_without_stop(trial)
    return images_per_s(rows) if rows and not trial.fault else None


def step_check(trial: Trial, rows: Sequence[Mapping[str, Any]], checkup: Checkup) -> CheckResult:
    """Speed, MFU and waiting for images, and whether the loss is a number."""
    rate, counted = images_per_s(rows), rows[FIRST_STEPS:] or rows
    seconds = statistics.median(row["step_s"] for row in counted)
    waiting = statistics.median(row["data_wait_s"] for row in counted) / max(1e-9, seconds)
    mfu = statistics.median(row["mfu"] for row in counted)
    text = f"{rate:,.1f} images/s, a step {duration(seconds)}, {mfu:.0%} of the measured matrix rate"
    names = [str(event.get("device", "")) for event in trial.events if event["event"] == "start"]
    device = known_device(names[0]) if names else None
    if device:
        reached = rate * training_flops(checkup.config.model) / checkup.group.world.size
        text += f", {reached / device.flops:.0%} of the datasheet's"
    text += f"; waits for images {waiting:.1%}"
    if not trial.size.is_whole_batch:
        batch = checkup.config.train.global_batch
        text += f" (batch {trial.size.global_batch:,} in place of {batch:,}, to fit into the time)"
    losses = [row["loss"] for row in rows]
    if any(loss is None or not math.isfinite(loss) for loss in losses):
        what_to_do = "lower optim.base_lr, or train in fp32; look at the check of numerics"
        return CheckResult("step", "failed", f"a loss is not finite; {text}", rate, "images/s", what_to_do)
    if waiting > MOST_DATA_WAIT:
        what_to_do = "give the loader more processes (data.workers) or a cache (data.cache_dir)"
        return CheckResult("step", "warning", text, rate, "images/s", what_to_do)
    return CheckResult("step", "ok", text, rate, "images/s")


def memory_check(
    trial: Trial, rows: Sequence[Mapping[str, Any]], checkup: Checkup, device_bytes: float
) -> CheckResult:
    """Peak memory against the prediction that `plan` and `train.micro_batch="auto"` use."""
    measured = max(float(row["memory_gb"]) for row in rows)
    if not checkup.on_gpu:
        text = f"{measured:.1f} GB a rank at the peak, of this process with its libraries"
        return CheckResult("memory", "ok", text, measured, "GB")
    train, micro = checkup.config.train, trial.size.micro_batch
    text = f"{measured:.1f} GB a GPU at the peak, of {device_bytes / 1e9:.0f} GB"
    if isinstance(micro, int):
        predicted = peak_memory(
            checkup.config.model,
            ranks=checkup.group.world.size,
            zero_stage=choose_zero_stage(train, checkup.group.world.size),
            micro_batch=micro,
            precision=train.precision,
            activation_checkpointing=train.activation_checkpointing,
            offload_optimizer=train.offload_optimizer,
            passes=-(-trial.size.global_batch // (micro * checkup.group.world.size)),
        )
        expected = (predicted.total - predicted.context) / 1e9  # PyTorch does not count the context
        text += f"; {expected:.1f} GB predicted"
        if measured > MORE_MEMORY * expected:
            what_to_do = "trust the measured number: choose train.micro_batch by it"
            return CheckResult("memory", "warning", text, measured, "GB", what_to_do)
    if measured * 1e9 > FULL * device_bytes:
        what_to_do = "lower train.micro_batch: the GPU is nearly full, and a run meets worse moments"
        return CheckResult("memory", "warning", text, measured, "GB", what_to_do)
    return CheckResult("memory", "ok", text, measured, "GB")


def checkpoint_check(events: Sequence[Mapping[str, Any]]) -> CheckResult:
    """How long the steps stand still for a save, and how long it takes until it is committed."""
    saves = [event for event in events if event["event"] == "checkpoint"]
    if not saves:
        return CheckResult(
            "checkpoint", "failed", "no checkpoint was committed", what_to_do="look at run.url"
        )
    stall, took = (max(float(save[key]) for save in saves) for key in ("stall_s", "took_s"))
    written = max(int(save["bytes_of_rank_0"]) for save in saves)
    text = (
        f"{len(saves)} saves; the steps stand still for {duration(stall)}, committed after {duration(took)}; "
        f"rank 0 writes {size(written)}"
    )
    if stall > LONG_STALL_S:
        what_to_do = "look at the checks of scratch and host_memory"
        return CheckResult("checkpoint", "warning", text, stall, "s", what_to_do)
    return CheckResult("checkpoint", "ok", text, stall, "s")


def resume_check(trial: Trial) -> CheckResult:
    """Whether the steps after the save have the same loss and the same batch when they are taken again."""
    first = {row["step"]: row for row in _rows_without_stop(trial)}
    again = [row for row in trial.rows[len(first) :] if row["step"] in first]
    if not again:
        return CheckResult("resume", "failed", "the run did not resume", what_to_do="look at the trial's log")
    batches = all(row["batch_digest"] == first[row["step"]]["batch_digest"] for row in again)
    gaps = [
        abs((row["loss"] or math.nan) - (first[row["step"]]["loss"] or math.nan)) / abs(row["loss"] or 1)
        for row in again
    ]
    text = f"{len(again)} steps taken again from the save; largest difference of the loss {max(gaps):.1e}"
    if not batches or not max(gaps) < SAME_LOSS:
        reason = text if batches else f"other batches; {text}"
        return CheckResult(
            "resume", "failed", reason, max(gaps), "relative", "do not train here: report this"
        )
    return CheckResult("resume", "ok", text, max(gaps), "relative")
