"""The training loop: step, exchange flags, log, save.

Read `Trainer.run` first. `train_step.py` has the step itself, `checkpoint/checkpoint_saver.py` the save. Only
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
from retfound_dist.runtime.progress import ProgressDisplay
from retfound_dist.stream.loader import Stream
from retfound_dist.train.checkpoint.checkpoint_saver import Position, Saver
from retfound_dist.train.engine.training_engine import TrainingEngine
from retfound_dist.train.health.anomalies import Anomalies, StepRecord
from retfound_dist.train.health.run_lock import RunLock
from retfound_dist.train.health.sample_faults import SampleFaults
from retfound_dist.train.held_out_loss import HeldOut
from retfound_dist.train.logs.profiling import Profiler, TensorBoard
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.logs.telemetry import Clock, memory_gb, show_step
from retfound_dist.train.ranks.collectives import DelayedFlags, RankGroup
from retfound_dist.train.ranks.preemption import StopRequest
from retfound_dist.train.ranks.watchdog import Watchdog, cancel_restart, request_restart, restart_after_stop
from retfound_dist.train.schedule import RunSchedule
from retfound_dist.train.train_step import train_step


@dataclass
class RankZeroState:
    """The lock and the logs of the run, which only rank 0 has."""

    logger: RunLogger
    lock: RunLock
    board: TensorBoard | None = None
    graces: Sequence[Grace] = ()
    """How long Slurm, torchrun and others let a stopped run save."""
    graces_checked: bool = False
    """Whether they were compared with the duration of a save."""

    def grace_warnings(self, save_time: SaveTime, grace_s: float) -> list[str]:
        """Warnings if a save takes longer than it may; only once in each start."""
        if self.graces_checked:
            return []
        self.graces_checked = True
        return grace_warnings(self.graces, save_time, grace_s)

    def fault(self) -> str:
        """Why the run cannot continue; empty if it can."""
        return self.lock.lost_reason() or self.logger.fault()


@dataclass
class Trainer:
    """One start of a run on one rank."""

    schedule: RunSchedule
    group: RankGroup
    engine: TrainingEngine
    model: MaskedAutoencoder
    display: ProgressDisplay
    saver: Saver
    anomalies: Anomalies
    stop_request: StopRequest
    watchdog: Watchdog
    rank_zero: RankZeroState | None
    """None on every other rank."""
    useful_s: float = 0.0
    """Seconds of the steps of earlier starts, each step counted once."""
    began: float = field(default_factory=time.time)
    """Unix time of the run's first start."""
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        config = self.schedule.config
        self._sample_faults = SampleFaults(config.data.bad_sample_budget)
        self._clock = Clock()
        self._records: list[StepRecord] = []
        self._flags = DelayedFlags(self.group)
        self._profiler = Profiler(config.run.url, self.group.world.rank, config.train.profile_steps)
        # MFU relates to the device's rate in the precision that really multiplies: a CPU without bf16
        # instructions multiplies in fp32 (`model/cpu_bf16.py`).
        dtype = torch.float32
        if config.train.precision == "bf16" and (self.group.device.type == "cuda" or has_bf16_instructions()):
            dtype = torch.bfloat16
        self._peak_flops = matrix_rate(self.group.device, dtype) * self.group.world.size
        self._image_flops = training_flops(self.model)

    def state(self) -> dict[str, Any]:
        """The state besides the weights that is saved with each checkpoint."""
        return {"recent_losses": self.anomalies.state(), "bad_samples": self._sample_faults.state()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Restore what `state` returned."""
        # Checkpoints of earlier versions have neither key.
        self.anomalies.load_state(state.get("recent_losses", ()))
        self._sample_faults.load_state(state.get("bad_samples", ()))

    def run(self, stream: Stream, start: int) -> int:
        """Train from the step after `start`; returns the last step done, which is committed."""
        schedule, config, done = self.schedule, self.schedule.config, start
        micro_batches = iter(stream)
        self.watchdog.step_done(start)
        self._clock = Clock()
        while done < schedule.last_step:
            self._profiler.before_step(done + 1)
            self._records.append(
                train_step(
                    self.engine, micro_batches, schedule, self.group, self._clock, self._sample_faults, done
                )
            )
            done += 1
            self.watchdog.step_done(done)
            if self.rank_zero and done == start + 1:
                # Now, not when something fails: a killed process can no longer request it. Only after a step:
                # a start that always fails must not be repeated for ever.
                request_restart()
            if trace := self._profiler.after_step(done):
                self.display.warn(f"rank {self.group.world.rank}: trace of the profiler: {trace}")
            leaving = self._exchange_flags() or done == schedule.last_step
            saving = leaving or done % config.checkpoint.every_steps == 0
            if not (saving or done % config.train.log_every == 0 or done == start + 1):
                continue
            # Before the save: it records the batch's digest and the losses up to this step.
            digest = self._log_step(done, saving)
            if saving:
                self._save_checkpoint(Position(done, done * schedule.layout.global_batch, digest))
            if leaving:
                break
        self._flags.wait()  # the last exchange is still pending: the process group must not end before it
        self.saver.finish_save()
        self.watchdog.stop()
        self.stop_request.ignore_signals()
        # After `train.max_minutes` the run is not over: the job has to be queued again.
        goes_on = self.stop_request.out_of_time or restart_after_stop()
        if not (goes_on and done < schedule.last_step):
            cancel_restart()
        return done

    def _exchange_flags(self) -> bool:
        """Act on the flags of all ranks after the step before; returns whether to stop.

        All ranks act at the same step, because each of these actions calls collectives.
        """
        part_written, save_failed = self.saver.flags()
        fault = self.rank_zero.fault() if self.rank_zero else ""
        stop, parts, faults = self._flags.exchange(
            [int(self.stop_request.requested), part_written, int(save_failed or bool(fault))]
        )
        if faults:
            self._flags.wait()
            self.saver.raise_if_failed()
            # The flag is one step old. The message is gone if the store works again.
            fault = next(
                text for text in [*self.group.gather(fault), "a temporary fault of the store"] if text
            )
            has_lost_lock = self.rank_zero and self.rank_zero.lock.lost_reason()
            raise (RunConflictError if has_lost_lock else StorageError)(fault)
        if parts == self.group.world.size:
            self.saver.start_commit()
        return stop > 0

    def _log_step(self, done: int, saving: bool) -> str:
        """Write a row of metrics.jsonl; returns the batch's digest. Waits for the ranks and the device."""
        schedule, batch, last = self.schedule, self.schedule.layout.global_batch, self._records[-1]
        # Before `rates`, which resets the clock.
        rank_times, steps = self._rank_times(), self._clock.steps
        summary = self.anomalies.summarize(self._records, self.group)
        # After `summarize`, which waits for the device: before it, the time of the steps would be too short.
        rates = self._clock.rates(batch)
        self.useful_s += steps * rates["step_s"]
        finite_losses = [loss for loss in summary.losses if math.isfinite(loss)]
        row = {
            "step": done,
            "epoch": done * batch / schedule.plan.samples,
            "samples": done * batch,
            "loss": summary.losses[-1] if math.isfinite(summary.losses[-1]) else None,
            "loss_mean": statistics.fmean(finite_losses) if finite_losses else None,
            "lr": schedule.lr(done - 1),
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
        if self.rank_zero and self.saver.save_duration_s:
            measured = SaveTime(rates["step_s"] + self.saver.save_duration_s, "as measured")
            for line in self.rank_zero.grace_warnings(measured, schedule.config.train.grace_s):
                self.display.warn(line)
        self._records = []
        show_step(self.display, row, self.schedule.steps, self.saver.last_committed)
        for anomaly in summary.anomalies:
            self._report_anomaly(anomaly)
        if self.rank_zero:
            self.rank_zero.logger.write(run_folder.METRICS, row)
            if self.rank_zero.board:
                self.rank_zero.board.write(row)
        self.anomalies.check()  # last, so that the rows which explain its error are written before
        return str(row["batch_digest"])

    def _held_out_loss(self, done: int, held_out: HeldOut) -> float | None:
        """The held-out loss; None if it is not finite, because JSON has no such numbers."""
        loss = held_out.score(self.engine, self.model, self.group)
        self.display.say(f"step {done}: loss {loss:.4f} on {held_out.count} held-out images")
        return loss if math.isfinite(loss) else None

    def _rank_times(self) -> dict[str, Any]:
        """Seconds a step of the ranks' own work (lowest, median, highest), and the slowest rank.

        Only this shows a slow rank: in the backward pass all ranks wait for it and take the same time.
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
        """Show and log one anomaly."""
        if self.group.world.is_main:
            step = anomaly["step"]
            text = (
                f"step {step} skipped: loss or gradient not finite ({self.anomalies.skipped} so far)"
                if anomaly["kind"] == "skipped"
                else f"the loss jumped to {anomaly['loss']:.4f} at step {step}"
            )
            suspects = f", from {', '.join(anomaly['suspects'][:3])}" if anomaly["suspects"] else ""
            self.display.warn(f"{text}{suspects}: see anomalies.jsonl")
        if self.rank_zero:
            self.rank_zero.logger.write(run_folder.ANOMALIES, {**anomaly, "time": time.time()})

    def _save_checkpoint(self, position: Position) -> None:
        self.saver.save(self.engine, position, self.state())
        # Waiting for the commit of the save before may have taken long: the next step's time begins here.
        self.watchdog.step_done(position.step)
        if self.rank_zero and self.rank_zero.board:
            self.rank_zero.board.save()
        # The time of a save does not count as a step's: not in images per second, nor in goodput.
        self._clock = Clock()


def _sum_digest(group: RankGroup, rank_digest: int) -> str:
    """The digest of the global batch: the sum of all ranks' digests modulo 2^64."""
    rank_digest %= 2**64
    # torch cannot sum uint64 over ranks. int64 has the same bits, and its addition wraps.
    signed = rank_digest - 2**64 if rank_digest >= 2**63 else rank_digest
    total = group.sum(torch.tensor(signed, dtype=torch.int64, device=group.device)).item()
    return f"{int(total) % 2**64:016x}"
