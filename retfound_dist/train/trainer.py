"""The training loop: step, exchange flags, log, save.

Read `Trainer.run` first; `train_step.py` has the step itself, `checkpoint/checkpoint_saver.py` the save. Only
logged steps and saves wait for the device.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from retfound_dist.errors import RunConflictError, StorageError
from retfound_dist.estimate.save_time import Grace, SaveTime, grace_warnings
from retfound_dist.formats import run_folder
from retfound_dist.model.cpu_bf16 import has_bf16_instructions
from retfound_dist.model.flops import matrix_rate, training_flops
from retfound_dist.model.mae import MaskedAutoencoder
from retfound_dist.stream.loader import Stream
from retfound_dist.train.checkpoint.checkpoint_saver import Position, Saver
from retfound_dist.train.health.anomalies import Anomalies, StepRecord
from retfound_dist.train.health.run_lock import RunLock
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.held_out_loss import HeldOut
from retfound_dist.train.logs.profiling import Profiler, TensorBoard
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.logs.telemetry import Clock, TrainingDisplay, memory_gb
from retfound_dist.train.ranks.collectives import DelayedFlags, RankGroup
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.watchdog import Watchdog, ask_for_another_start, want_no_other_start
from retfound_dist.train.schedule import RunSchedule
from retfound_dist.train.train_step import train_step


@dataclass
class RankZeroState:
    """The run's lock and logs, which only rank 0 has."""

    logger: RunLogger
    lock: RunLock
    board: TensorBoard | None = None
    graces: Sequence[Grace] = ()
    """How long those who may stop this run wait for a save."""
    graces_checked: bool = False
    """Whether they were compared with a save of this start."""

    def grace_warnings(self, need: SaveTime, grace_s: float) -> list[str]:
        """Warnings where a save needs longer than it may take; only once a start."""
        if self.graces_checked:
            return []
        self.graces_checked = True
        return grace_warnings(self.graces, need, grace_s)

    def fault(self) -> str:
        """Why the run cannot go on; empty when it can."""
        return self.lock.check() or self.logger.fault()


@dataclass
class Trainer:
    """One start of a run on one rank."""

    job: RunSchedule
    group: RankGroup
    engine: Any
    model: MaskedAutoencoder
    display: TrainingDisplay
    saver: Saver
    anomalies: Anomalies
    asked: StopRequest
    watchdog: Watchdog
    rank_zero: RankZeroState | None
    """None on every other rank."""
    useful_s: float = 0.0
    """Seconds of the steps before this start, each step counted once."""
    began: float = field(default_factory=time.time)
    """Unix time at which the run first began."""
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        config = self.job.config
        self._sample_faults = SampleFaults(config.data.bad_sample_budget)
        self._clock = Clock()
        self._records: list[StepRecord] = []
        self._flags = DelayedFlags(self.group)
        self._profiler = Profiler(config.run.url, self.group.world.rank, config.train.profile_steps)
        # MFU compares with what this device does in the precision that really multiplies: a CPU without bf16
        # instructions multiplies in fp32 (`model/cpu_bf16.py`).
        dtype = torch.float32
        if config.train.precision == "bf16" and (self.group.device.type == "cuda" or has_bf16_instructions()):
            dtype = torch.bfloat16
        self._peak_flops = matrix_rate(self.group.device, dtype) * self.group.world.size
        self._image_flops = training_flops(self.model)

    def state(self) -> dict[str, Any]:
        """What the run remembers besides its weights; it is saved with each checkpoint."""
        return {"recent_losses": self.anomalies.state(), "bad_samples": self._sample_faults.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave."""
        # Checkpoints of earlier versions hold neither key.
        self.anomalies.load_state(state.get("recent_losses", ()))
        self._sample_faults.load_state(state.get("bad_samples", ()))

    def run(self, stream: Stream, start: int) -> int:
        """Take the steps after `start`; gives the last one done, which is committed."""
        job, config, done = self.job, self.job.config, start
        batches = iter(stream)
        self.watchdog.step(start)
        self._clock = Clock()
        while done < job.last:
            self._profiler.before(done + 1)
            self._records.append(
                train_step(self.engine, batches, job, self.group, self._clock, self._sample_faults, done)
            )
            done += 1
            self.watchdog.step(done)
            if self.rank_zero and done == start + 1:
                # Now, not when something fails: a process that is killed cannot ask any more. Only after a
                # step, so that a start which always fails is not repeated for ever.
                ask_for_another_start()
            if trace := self._profiler.after(done):
                self.display.warn(f"rank {self.group.world.rank}: trace of the profiler: {trace}")
            leaving = self._exchange_flags() or done == job.last
            saving = leaving or done % config.checkpoint.every_steps == 0
            if not (saving or done % config.train.log_every == 0 or done == start + 1):
                continue
            # Before the save: its commit names the batch's digest, and its state the losses up to this step.
            digest = self._log_step(done, saving)
            if saving:
                self._save(Position(done, done * job.cut.global_batch, digest))
            if leaving:
                break
        self._flags.wait()  # the last exchange is under way still: the process group must not end within it
        self.saver.finish_save()
        self.watchdog.end()
        self.asked.ignore()
        # `train.max_minutes` is a time limit, not the end of the run: the job is to be queued again.
        if not (self.asked.out_of_time and done < job.last):
            want_no_other_start()
        return done

    def _exchange_flags(self) -> bool:
        """Act on what all ranks flagged after the step before; gives whether to stop.

        Ranks act at the same step, because each of these actions holds collectives.
        """
        part_written, save_failed = self.saver.flags()
        fault = self.rank_zero.fault() if self.rank_zero else ""
        stop, parts, faults = self._flags.exchange(
            [int(self.asked.asked), part_written, int(save_failed or bool(fault))]
        )
        if faults:
            self._flags.wait()
            self.saver.check()
            # The flag is a step old. A store that answers again has cleared the text of it meanwhile.
            fault = next(text for text in [*self.group.gather(fault), "a fault that has passed"] if text)
            raise (RunConflictError if self.rank_zero and self.rank_zero.lock.check() else StorageError)(
                fault
            )
        if parts == self.group.world.size:
            self.saver.start_commit()
        return stop > 0

    def _log_step(self, done: int, saving: bool) -> str:
        """Write a line of metrics.jsonl; gives the batch's digest. Waits for the ranks and the device."""
        job, batch, last = self.job, self.job.cut.global_batch, self._records[-1]
        # First of all, for the clock's sums begin anew in `rates`.
        rank_times, steps = self._rank_times(), self._clock.steps
        summary = self.anomalies.summarize(self._records, self.group)
        # After `summarize`, which waits for the device: before it the steps would seem to take no time.
        rates = self._clock.rates(batch)
        self.useful_s += steps * rates["step_s"]
        finite_losses = [loss for loss in summary.losses if math.isfinite(loss)]
        row = {
            "step": done,
            "epoch": done * batch / job.plan.samples,
            "samples": done * batch,
            "loss": summary.losses[-1] if math.isfinite(summary.losses[-1]) else None,
            "loss_mean": statistics.fmean(finite_losses) if finite_losses else None,
            "lr": job.lr(done - 1),
            "grad_norm": summary.grad_norm,
            **rates,
            "mfu": rates["images_per_s"] * self._image_flops / self._peak_flops,
            "memory_gb": memory_gb(),
            **rank_times,
            "world_size": self.group.world.size,
            "batch_digest": _sum_digest(self.group, last.digest),
            "skipped_steps": self.anomalies.skipped,
            "spikes": sum(anomaly["kind"] == "spike" for anomaly in summary.anomalies),
            **self._sample_faults.report(self.group, self.display),
            "time": time.time(),
            "goodput": self.useful_s / max(1e-9, time.time() - self.began),
        }
        if saving and self.held_out:
            row["held_out_loss"] = self._held_out_loss(done, self.held_out)
        if self.rank_zero and self.saver.took_s:
            need = SaveTime(rates["step_s"] + self.saver.took_s, "as measured")
            for line in self.rank_zero.grace_warnings(need, job.config.train.grace_s):
                self.display.warn(line)
        self._records = []
        self.display.show(row, self.saver.last_good)
        for anomaly in summary.anomalies:
            self._report_anomaly(anomaly)
        if self.rank_zero:
            self.rank_zero.logger.write(run_folder.METRICS, row)
            if self.rank_zero.board:
                self.rank_zero.board.write(row)
        self.anomalies.check()  # last: the lines that explain its error are written by now
        return str(row["batch_digest"])

    def _held_out_loss(self, done: int, held_out: HeldOut) -> float | None:
        """The held-out loss; None, as JSON has it, where it is not finite."""
        loss = held_out.score(self.engine, self.model, self.group)
        self.display.say(f"step {done}: loss {loss:.4f} on {held_out.count} held-out images")
        return loss if math.isfinite(loss) else None

    def _rank_times(self) -> dict[str, Any]:
        """Least, median and most seconds a step of the ranks' own work, and the slowest rank.

        A slow rank shows only here: in the backward pass all ranks wait for it and take the same time.
        """
        world = self.group.world
        rank_s = torch.zeros(world.size, dtype=torch.float64, device=self.group.device)
        rank_s[world.rank] = self._clock.rank_s()
        seconds = self.group.sum(rank_s).tolist()
        return {
            "rank_s": [min(seconds), statistics.median(seconds), max(seconds)],
            "slowest_rank": seconds.index(max(seconds)),
        }

    def _report_anomaly(self, anomaly: dict[str, Any]) -> None:
        """Tell the person of one anomaly, and log it."""
        if self.group.world.is_main:
            step = anomaly["step"]
            text = (
                f"step {step} skipped: loss or gradient not finite ({self.anomalies.skipped} so far)"
                if anomaly["kind"] == "skipped"
                else f"the loss leapt to {anomaly['loss']:.4f} at step {step}"
            )
            suspects = f", from {', '.join(anomaly['suspects'][:3])}" if anomaly["suspects"] else ""
            self.display.warn(f"{text}{suspects}: see anomalies.jsonl")
        if self.rank_zero:
            self.rank_zero.logger.write(run_folder.ANOMALIES, {**anomaly, "time": time.time()})

    def _save(self, at: Position) -> None:
        self.saver.save(self.engine, at, self.state())
        # The save before may have taken long to commit: the time for the next step counts from here.
        self.watchdog.step(at.step)
        if self.rank_zero and self.rank_zero.board:
            self.rank_zero.board.save()
        # A save is no part of a step's time: images a second and goodput shall not show it.
        self._clock = Clock()


def _sum_digest(group: RankGroup, part: int) -> str:
    """The global batch's digest from each rank's part: a sum modulo 2^64."""
    part %= 2**64
    # torch adds no uint64 over ranks. int64 has the same bits, and its addition wraps.
    signed = part - 2**64 if part >= 2**63 else part
    total = group.sum(torch.tensor(signed, dtype=torch.int64, device=group.device)).item()
    return f"{int(total) % 2**64:016x}"
