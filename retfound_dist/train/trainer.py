"""The loop: step, vote, say, save. Nothing in it waits for the device but a logged step."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from retfound_dist.errors import RunConflictError, StorageError
from retfound_dist.estimate.save_time import Grace, SaveTime, warnings
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
from retfound_dist.train.train_step import take_step


@dataclass
class RankZeroState:
    """What rank 0 alone has."""

    journal: RunLogger
    lock: RunLock
    board: TensorBoard | None = None
    graces: Sequence[Grace] = ()
    """How long those who may stop this run wait for a save."""
    weighed: bool = False
    """Whether they were held against a save of this start."""

    def warn_of(self, need: SaveTime, grace_s: float) -> list[str]:
        """What to warn of once a save of this start was measured."""
        if self.weighed:
            return []
        self.weighed = True
        return warnings(self.graces, need, grace_s)

    def fault(self) -> str:
        """Why the run cannot go on; empty when it can."""
        return self.lock.check() or self.journal.fault()


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
    desk: RankZeroState | None
    """Of rank 0."""
    useful_s: float = 0.0
    """Time of the steps before this start, each once; `began` is when the run first did."""
    began: float = field(default_factory=time.time)
    held_out: HeldOut | None = None

    def __post_init__(self) -> None:
        config = self.job.config
        self._account = SampleFaults(config.data.bad_sample_budget)
        self._clock = Clock()
        self._records: list[StepRecord] = []
        self._votes = DelayedFlags(self.group)
        self._profiler = Profiler(config.run.url, self.group.world.rank, config.train.profile_steps)
        kind = torch.float32
        if config.train.precision == "bf16" and (self.group.device.type == "cuda" or has_bf16_instructions()):
            kind = torch.bfloat16
        self._peak_flops = matrix_rate(self.group.device, kind) * self.group.world.size
        self._flops = training_flops(self.model)

    def state(self) -> dict[str, Any]:
        """What the run remembers besides its weights; it is saved with each checkpoint."""
        return {"recent_losses": self.anomalies.state(), "bad_samples": self._account.state()}

    def recall(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave; checkpoints of earlier versions have nothing of it."""
        self.anomalies.recall(state.get("recent_losses", ()))
        self._account.recall(state.get("bad_samples", ()))

    def run(self, stream: Stream, start: int) -> int:
        """Steps from `start` on; gives the last one done, which is committed."""
        job, config, done = self.job, self.job.config, start
        batches = iter(stream)
        self.watchdog.step(start)
        self._clock = Clock()
        while done < job.last:
            self._profiler.before(done + 1)
            self._records.append(
                take_step(self.engine, batches, job, self.group, self._clock, self._account, done)
            )
            done += 1
            self.watchdog.step(done)
            if self.desk and done == start + 1:
                ask_for_another_start()  # who is killed cannot ask
            if trace := self._profiler.after(done):
                self.display.warn(f"rank {self.group.world.rank}: trace of the profiler: {trace}")
            leaving = self._vote() or done == job.last
            saving = leaving or done % config.checkpoint.every_steps == 0
            if not (saving or done % config.train.log_every == 0 or done == start + 1):
                continue
            digest = self._log(done, saving)
            if saving:
                self._save(Position(done, done * job.cut.global_batch, digest))
            if leaving:
                break
        self._votes.end()
        self.saver.finish_save()
        self.watchdog.end()
        self.asked.ignore()
        if not (self.asked.out_of_time and done < job.last):
            want_no_other_start()
        return done

    def _vote(self) -> bool:
        """What all ranks know of the step before: a save that is complete, a fault; gives whether to stop."""
        complete, failed = self.saver.flags()
        why = self.desk.fault() if self.desk else ""
        stop, parts, faults = self._votes.cast([int(self.asked.asked), complete, int(failed or bool(why))])
        if faults:
            self._votes.end()
            self.saver.check()
            why = next(text for text in [*self.group.gather(why), "a fault that has passed"] if text)
            raise (RunConflictError if self.desk and self.desk.lock.check() else StorageError)(why)
        if parts == self.group.world.size:
            self.saver.seal()
        return stop > 0

    def _log(self, done: int, saving: bool) -> str:
        """A line of metrics.jsonl; here the ranks and the device are waited for. Gives the batch's digest."""
        job, batch, last = self.job, self.job.cut.global_batch, self._records[-1]
        spread, steps = self._spread(), self._clock.steps
        reckoned = self.anomalies.reckon(self._records, self.group)
        rates = self._clock.rates(batch)
        self.useful_s += steps * rates["step_s"]
        finite = [loss for loss in reckoned.losses if math.isfinite(loss)]
        row = {
            "step": done,
            "epoch": done * batch / job.plan.samples,
            "samples": done * batch,
            "loss": reckoned.losses[-1] if math.isfinite(reckoned.losses[-1]) else None,
            "loss_mean": statistics.fmean(finite) if finite else None,
            "lr": job.lr(done - 1),
            "grad_norm": reckoned.grad_norm,
            **rates,
            "mfu": rates["images_per_s"] * self._flops / self._peak_flops,
            "memory_gb": memory_gb(),
            **spread,
            "world_size": self.group.world.size,
            "batch_digest": _sum_digest(self.group, last.digest),
            "skipped_steps": self.anomalies.skipped,
            "spikes": sum(found["kind"] == "spike" for found in reckoned.anomalies),
            **self._account.settle(self.group, self.display),
            "time": time.time(),
            "goodput": self.useful_s / max(1e-9, time.time() - self.began),
        }
        if saving and self.held_out:
            row["held_out_loss"] = self._score(done, self.held_out)
        if self.desk and self.saver.took_s:
            need = SaveTime(rates["step_s"] + self.saver.took_s, "as measured")
            for line in self.desk.warn_of(need, job.config.train.grace_s):
                self.display.warn(line)
        self._records = []
        self.display.show(row, self.saver.last_good)
        for found in reckoned.anomalies:
            self._tell(found)
        if self.desk:
            self.desk.journal.write(run_folder.METRICS, row)
            if self.desk.board:
                self.desk.board.write(row)
        self.anomalies.check()
        return str(row["batch_digest"])

    def _score(self, done: int, held_out: HeldOut) -> float | None:
        """The held-out loss; None, as JSON has it, where it is not finite."""
        loss = held_out.score(self.engine, self.model, self.group)
        self.display.say(f"step {done}: loss {loss:.4f} on {held_out.count} held-out images")
        return loss if math.isfinite(loss) else None

    def _spread(self) -> dict[str, Any]:
        """How long ranks work by themselves in a step, and who is slowest: a straggler shows here."""
        world = self.group.world
        own = torch.zeros(world.size, dtype=torch.float64, device=self.group.device)
        own[world.rank] = self._clock.own()
        each = self.group.sum(own).tolist()
        middle = statistics.median(each)
        return {"rank_s": [min(each), middle, max(each)], "slowest_rank": each.index(max(each))}

    def _tell(self, found: dict[str, Any]) -> None:
        """One anomaly, to the person and the log."""
        if self.group.world.is_main:
            what = (
                f"step {found['step']} skipped: loss or gradient not finite ({self.anomalies.skipped} so far)"
                if found["kind"] == "skipped"
                else f"the loss leapt to {found['loss']:.4f} at step {found['step']}"
            )
            suspects = f", from {', '.join(found['suspects'][:3])}" if found["suspects"] else ""
            self.display.warn(f"{what}{suspects}: see anomalies.jsonl")
        if self.desk:
            self.desk.journal.write(run_folder.ANOMALIES, {**found, "time": time.time()})

    def _save(self, at: Position) -> None:
        self.saver.save(self.engine, at, self.state())
        self.watchdog.step(at.step)
        if self.desk and self.desk.board:
            self.desk.board.save()
        self._clock = Clock()


def _sum_digest(group: RankGroup, part: int) -> str:
    """The global batch's digest from each rank's: a sum modulo 2^64 (int64 addition wraps)."""
    part %= 2**64
    signed = part - 2**64 if part >= 2**63 else part
    total = group.sum(torch.tensor(signed, dtype=torch.int64, device=group.device)).item()
    return f"{int(total) % 2**64:016x}"
