"""Run folders with the files that a run writes, made without training."""

from __future__ import annotations

from typing import Any

from retfound_dist.config.loading import load, to_dict
from retfound_dist.config.schema import PretrainConfig
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.io import storage
from tests import ROOT

BEGAN = 1_790_000_000.0


def make_run(url: str, *overrides: str, last: int = 100, parts: tuple[int, ...] = (2, 3), **how: Any) -> str:
    """A run of 100 steps of 10 s, logged each 5, saved each 50: one start for each number of ranks."""
    given = ["run.url=" + url, "train.steps=100", "train.log_every=5", "train.epochs=0", *overrides]
    config, _ = load(PretrainConfig, str(ROOT / "configs/demo/pretrain.toml"), given)
    tree = to_dict(config)
    run_folder.write_config(url, tree)
    share, began = last // len(parts), how.get("began", BEGAN)
    for place, ranks in enumerate(parts):
        first, end = place * share, last if place == len(parts) - 1 else (place + 1) * share
        at = began + first * 10 + 300 * place
        start = {"event": "start", "time": at + 20, "began": at, "ready": at + 20, "load_s": 5.0, "step": first,
                 "world_size": ranks, "zero_stage": 1, "cut": f"64 = {ranks} ranks", "device": "NVIDIA H100",
                 "versions": {"torch": "2.15.0"}}  # fmt: skip
        run_folder.append_rows(url, run_folder.EVENTS, [start])
        rows = [row(step, ranks, at + 20 + (step - first) * 10, how) for step in range(first + 5, end + 1, 5)]
        run_folder.append_rows(url, run_folder.METRICS, rows)
    for step in range(50, last + 1, 50):
        write_checkpoint(url, step, tree)
    if how.get("ended", True):
        reason = "finished" if last == 100 else "stopped"
        run_folder.append_rows(
            url,
            run_folder.EVENTS,
            [{"event": "end", "time": rows[-1]["time"] + 1, "step": last, "reason": reason}],
        )
    return url


def row(step: int, ranks: int, time: float, how: dict[str, Any]) -> dict[str, Any]:
    """A line of metrics.jsonl."""
    found = {
        "step": step, "epoch": step / 10, "samples": 64 * step, "loss": 1 / step, "loss_mean": 1 / step, "lr": 1e-4,
        "grad_norm": 1.0, "images_per_s": 6.4, "data_wait_s": 0.01, "step_s": 10.0, "mfu": 0.4, "memory_gb": 1.0,
        "world_size": ranks, "batch_digest": "0", "skipped_steps": 0, "time": time,
    }  # fmt: skip
    if step % 50 == 0:
        found["held_out_loss"] = how.get("held_out", {}).get(step, 2 / step)
    return found


def write_checkpoint(url: str, step: int, tree: dict[str, Any], generation: int = 0) -> None:
    """A commit without files."""
    where = checkpoint_folder.checkpoint_url(url, step)
    checkpoint_folder.write_commit(
        Commit(url=where, step=step, samples=64 * step, world_size=2, zero_stage=1, precision="bf16",
               batch_digest="0", time="", config=tree, files={}, generation=generation)
    )  # fmt: skip


def write_probes(url: str, aurocs: dict[int, float], alarm: str = "") -> None:
    """What `retfound watch` leaves of some checkpoints, as far as it is read here."""

    def tree(auroc: float) -> dict[str, Any]:
        scores = {"auroc": auroc, "aupr": auroc - 0.2, "balanced_accuracy": None}
        spans = {k: v and [v - 0.03, v + 0.03] for k, v in scores.items()}
        return {"linear": {"macro": scores, "ci95": {"macro": spans}}}

    rows = [{"step": step, **tree(auroc)} for step, auroc in aurocs.items()]
    storage.write_json(storage.join(url, run_folder.WATCH), {"start": tree(0.7), "rows": rows})
    if alarm:
        run_folder.append_rows(url, run_folder.ALARMS, [{"step": max(aurocs), "message": alarm}])


def write_score(url: str, step: int, auroc: float) -> None:
    """An evaluation's metrics.json, as far as it is read here."""
    scores = {"auroc": auroc, "aupr": auroc - 0.1, "balanced_accuracy": auroc - 0.2, "f1": None}
    spans = {name: [value - 0.05, value + 0.05] for name, value in scores.items() if value is not None}
    tree = {"macro": scores, "ci95": {"macro": spans}, "data": {"path": "OCTID"}}
    storage.write_json(storage.join(checkpoint_folder.evaluation_url(url, step), "metrics.json"), tree)
