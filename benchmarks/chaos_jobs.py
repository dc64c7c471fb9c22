"""The jobs of `benchmarks.chaos`: their commands, their results, and the work they must not lose."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.storm_checks import damage
from retfound_dist.evaluate.probe.frozen_features import read_npz
from retfound_dist.evaluate.results import evaluation_files
from retfound_dist.formats import checkpoint_folder, run_folder
from retfound_dist.formats.shard_set import MANIFEST
from retfound_dist.io import finished_parts
from tests.train.launching import SMALL

SET, RUN, FEATURES, EVALUATION, PREDICTED = "set", "run", "features.npz", "evaluation", "predicted.csv"
STEPS, SAVE_EVERY, SIZE = 12, 3, 56
TOLERANCE = 1e-6
"""Relative difference that a loss, a feature or a score may have from the undisturbed one."""
SCORES = ("legacy", "macro", "per_class", "ci95", "confusion", "classes", "seeds")
PACK = [
    "configs/demo/pack.toml", "phantom.patients=40", "phantom.slices=2", "phantom.height=64",
    "phantom.width=64", "out.shard_mb=0.05", "out.workers=2",
]  # fmt: skip
PRETRAIN = [
    "configs/demo/pretrain.toml", *SMALL, f"model.image_size={SIZE}", "data.workers=1",
    "train.precision=fp32", "train.global_batch=32", "train.micro_batch=16", f"train.steps={STEPS}",
    f"checkpoint.every_steps={SAVE_EVERY}", "checkpoint.patience_s=60", "data.patience_s=60",
]  # fmt: skip
EVALUATE = [
    "configs/demo/evaluate.toml", "finetune.epochs=2", "seeds=[0,1]", "bootstrap=50", "threads=1",
    f"model.image_size={SIZE}",
]  # fmt: skip
Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One command. Its functions take the folder of its results, as files on this machine."""

    name: str
    arguments: Callable[[str, str, str], list[str]]
    """Its arguments, from the URL of the inputs, the URL of the results, and the folder of the cache."""
    result: Callable[[Path], Result]
    """What is compared with the undisturbed job; empty until the job is complete."""
    wrong_when_committed: Callable[[Path, Result], list[str]]
    """Lines about results that are committed but wrong."""
    committed_work: Callable[[Path, Result], dict[str, int]]
    """Work that is committed and right, as a number by name."""
    lost_work: Callable[[Mapping[str, int], Mapping[str, int], str], list[str]]
    """Lines about committed work that a start repeated, from the work before and after it and what it
    printed."""


def _pack(_: str, out: str, __: str) -> list[str]:
    return ["pack", *PACK, f"out.url={out}/{SET}"]


def _pretrain(inputs: str, out: str, cache: str) -> list[str]:
    places = [f"data.shards={inputs}/{SET}", f"run.url={out}/{RUN}", f"data.cache_dir={cache}"]
    return ["pretrain", *PRETRAIN, *places]


def _embed(inputs: str, out: str, _: str) -> list[str]:
    return ["embed", f"{inputs}/{RUN}", f"{inputs}/{SET}", "--out", f"{out}/{FEATURES}"]


def _evaluate(inputs: str, out: str, _: str) -> list[str]:
    places = [f"checkpoint={inputs}/{RUN}", f"data.path={inputs}/{SET}", f"out.url={out}/{EVALUATION}"]
    return ["evaluate", *EVALUATE, *places]


def _predict(inputs: str, out: str, _: str) -> list[str]:
    places = [f"{inputs}/{EVALUATION}/classifier", f"{inputs}/{SET}", "--out", f"{out}/{PREDICTED}"]
    return ["predict", *places, "--workers", "2"]


def _files(folder: Path) -> Result:
    """The digest of every file of a complete set."""
    if not (folder / SET / MANIFEST).exists():
        return {}
    return {path.name: _digest(path) for path in (folder / SET).iterdir() if path.is_file()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _steps(folder: Path) -> Result:
    """Batch digest and loss of each step of a complete run; a repeated step has two entries."""
    run = str(folder / RUN)
    if checkpoint_folder.list_steps(run)[-1:] != [STEPS]:
        return {}
    result: Result = {f"step {step}": "not logged" for step in range(1, STEPS + 1)}
    seen: dict[int, int] = {}
    for row in run_folder.read_rows(run, run_folder.METRICS):
        step = int(row["step"])
        seen[step] = seen.get(step, 0) + 1
        suffix = f", time {seen[step]}" if seen[step] > 1 else ""
        result[f"step {step}{suffix}"] = [row["batch_digest"], row["loss"]]
    return result


def _features(folder: Path) -> Result:
    """Keys and features of a complete file."""
    if not (folder / FEATURES).exists():
        return {}
    arrays = read_npz(str(folder / FEATURES))
    return {"keys": [str(key) for key in arrays["keys"]], "features": np.asarray(arrays["features"]).tolist()}


def _predicted(folder: Path) -> Result:
    """The digest of a complete table."""
    path = folder / PREDICTED
    return {PREDICTED: _digest(path)} if path.exists() else {}


def _scores(folder: Path) -> Result:
    """The numbers of an evaluation and its predictions."""
    where = folder / EVALUATION
    if not (where / evaluation_files.METRICS).exists():
        return {}
    tree = json.loads((where / evaluation_files.METRICS).read_text())
    return {name: tree[name] for name in SCORES} | {
        name: _digest(where / name)
        for name in (evaluation_files.PREDICTIONS, evaluation_files.SEED_PREDICTIONS, evaluation_files.SPLIT)
    }


def _wrong_checkpoints(folder: Path, _: Result) -> list[str]:
    run = str(folder / RUN)
    return [text for step in checkpoint_folder.list_steps(run) if (text := damage(run, step))]


def _wrong_when_committed(result: Callable[[Path], Result]) -> Callable[[Path, Result], list[str]]:
    """For results that are written at once: where there is a result, it must be right."""

    def wrong_when_committed(folder: Path, expected: Result) -> list[str]:
        current = readable(result, folder)
        return [f"committed but wrong: {line}" for line in differences(current, expected)] if current else []

    return wrong_when_committed


def readable(result: Callable[[Path], Result], folder: Path) -> Result:
    """A result, or the error that reading it raised."""
    try:
        return result(folder)
    except Exception as error:
        return {"unreadable": repr(error)[:300]}


def _shards(folder: Path, expected: Result) -> dict[str, int]:
    """Committed tars with the right content, and their times of writing."""
    where = folder / SET
    return {
        tar.name: tar.stat().st_mtime_ns
        for tar in sorted(where.glob("*.tar"))
        if tar.with_suffix(".idx").exists() and _digest(tar) == expected.get(tar.name)
    }


def _checkpoint(folder: Path, _: Result) -> dict[str, int]:
    """The newest undamaged checkpoint."""
    run = str(folder / RUN)
    return {
        RUN: max((step for step in checkpoint_folder.list_steps(run) if not damage(run, step)), default=0)
    }


def _nothing_committed(_: Path, __: Result) -> dict[str, int]:
    return {}


def _lost_shards(before: Mapping[str, int], after: Mapping[str, int], _: str) -> list[str]:
    lost = [name for name, written in before.items() if after.get(name) != written]
    return [f"{len(lost)} shards were committed and packed again: {', '.join(lost[:5])}"] if lost else []


def _lost_steps(before: Mapping[str, int], _: Mapping[str, int], stderr: str) -> list[str]:
    step = before.get(RUN, 0)
    result = re.search(r"resuming at step (\d+)", stderr)
    begun = STEPS if "nothing to do" in stderr else int(result[1]) if result else 0
    return [f"step {step} was committed, the next start went on at step {begun}"] if begun < step else []


def _parts(folder: Path, _: Result) -> dict[str, int]:
    """Finished parts of a prediction that can be read."""
    parts = sorted(Path(finished_parts.parts_url(str(folder / PREDICTED))).glob("*.npz"))
    return {part.name: part.stat().st_size for part in parts if "unreadable" not in readable(_part, part)}


def _part(path: Path) -> Result:
    return {name: len(values) for name, values in read_npz(str(path)).items()}


def _lost_parts(before: Mapping[str, int], _: Mapping[str, int], text: str) -> list[str]:
    # The job has fewer images than one part holds, so a part that is found again leaves nothing to predict.
    repeated = before and "all from finished parts" not in text
    return [f"{len(before)} parts were finished, and their images were predicted again"] if repeated else []


def _nothing_lost(_: Mapping[str, int], __: Mapping[str, int], ___: str) -> list[str]:
    return []


JOBS = {
    "pack": Job("pack", _pack, _files, _wrong_when_committed(_files), _shards, _lost_shards),
    "pretrain": Job("pretrain", _pretrain, _steps, _wrong_checkpoints, _checkpoint, _lost_steps),
    "embed": Job(
        "embed", _embed, _features, _wrong_when_committed(_features), _nothing_committed, _nothing_lost
    ),
    "evaluate": Job(
        "evaluate", _evaluate, _scores, _wrong_when_committed(_scores), _nothing_committed, _nothing_lost
    ),
    "predict": Job("predict", _predict, _predicted, _wrong_when_committed(_predicted), _parts, _lost_parts),
}


def differences(result: Result, expected: Result) -> list[str]:
    """Lines about each part that is missing, new, or different from the undisturbed result."""
    lines = []
    for name in sorted(result.keys() | expected.keys()):
        first_name = name.split(", time ")[0]  # a step that was done twice must be the same step twice
        if name not in result:
            lines.append(f"{name} is missing")
        elif first_name not in expected:
            lines.append(f"{name} is new")
        elif not nearly_equal(result[name], expected[first_name]):
            lines.append(f"{name} is {str(result[name])[:80]}, not {str(expected[first_name])[:80]}")
    return lines


def nearly_equal(first: Any, second: Any) -> bool:
    """Whether two values are equal, with a small tolerance for numbers."""
    if isinstance(first, float) and isinstance(second, float):
        return bool(np.isclose(first, second, rtol=TOLERANCE, atol=TOLERANCE, equal_nan=True))
    if isinstance(first, list) and isinstance(second, list):
        return len(first) == len(second) and all(map(nearly_equal, first, second))
    if isinstance(first, dict) and isinstance(second, dict):
        return first.keys() == second.keys() and all(nearly_equal(first[key], second[key]) for key in first)
    return bool(first == second)
