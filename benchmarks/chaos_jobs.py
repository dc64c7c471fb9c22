"""The jobs of `benchmarks.chaos`: how each is started, what it leaves, and what must not be lost of that."""

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
from tests.train.launching import SMALL

SET, RUN, FEATURES, EVALUATION = "set", "run", "features.npz", "evaluation"
STEPS, EVERY, SIZE = 12, 3, 56
ALIKE = 1e-6
"""How far a loss, a feature or a score may be from the undisturbed one, over it."""
SCORES = ("legacy", "macro", "per_class", "ci95", "confusion", "classes", "seeds")
PACK = [
    "configs/demo/pack.toml", "phantom.patients=40", "phantom.slices=2", "phantom.height=64",
    "phantom.width=64", "out.shard_mb=0.05", "out.workers=2",
]  # fmt: skip
PRETRAIN = [
    "configs/demo/pretrain.toml", *SMALL, f"model.image_size={SIZE}", "data.workers=1",
    "train.precision=fp32", "train.global_batch=32", "train.micro_batch=16", f"train.steps={STEPS}",
    f"checkpoint.every_steps={EVERY}", "checkpoint.patience_s=60", "data.patience_s=60",
]  # fmt: skip
EVALUATE = [
    "configs/demo/evaluate.toml", "finetune.epochs=2", "seeds=[0,1]", "bootstrap=50", "threads=1",
    f"model.image_size={SIZE}",
]  # fmt: skip
Result = dict[str, Any]


@dataclass(frozen=True)
class Job:
    """One command; folders are what stands at its URL, as files on this machine."""

    name: str
    words: Callable[[str, str, str], list[str]]
    """Its words, from the URL of the inputs, that of the results, and the folder of the cache."""
    result: Callable[[Path], Result]
    """What is held against the undisturbed one; empty before the job says that it is done."""
    half: Callable[[Path, Result], list[str]]
    """What it says is committed, and is not right."""
    kept: Callable[[Path, Result], dict[str, int]]
    """Work that is committed and right: by name a number that may rise, and not change otherwise."""
    redone: Callable[[Mapping[str, int], Mapping[str, int], str], list[str]]
    """What another start did again of it, from `kept` before and after and what that start said."""


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


def _files(folder: Path) -> Result:
    """Every file of a finished set, by its content."""
    if not (folder / SET / MANIFEST).exists():
        return {}
    return {path.name: _digest(path) for path in (folder / SET).iterdir() if path.is_file()}


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _steps(folder: Path) -> Result:
    """Digest and loss of each step of a run that is at its end; a step done twice is there twice."""
    run = str(folder / RUN)
    if checkpoint_folder.list_steps(run)[-1:] != [STEPS]:
        return {}
    found: Result = {f"step {step}": "not logged" for step in range(1, STEPS + 1)}
    seen: dict[int, int] = {}
    for row in run_folder.read_rows(run, run_folder.METRICS):
        step = int(row["step"])
        seen[step] = seen.get(step, 0) + 1
        again = f", time {seen[step]}" if seen[step] > 1 else ""
        found[f"step {step}{again}"] = [row["batch_digest"], row["loss"]]
    return found


def _features(folder: Path) -> Result:
    """Keys and features."""
    if not (folder / FEATURES).exists():
        return {}
    arrays = read_npz(str(folder / FEATURES))
    return {"keys": [str(key) for key in arrays["keys"]], "features": np.asarray(arrays["features"]).tolist()}


def _scores(folder: Path) -> Result:
    """The numbers of an evaluation and its predictions."""
    where = folder / EVALUATION
    if not (where / evaluation_files.METRICS).exists():
        return {}
    tree = json.loads((where / evaluation_files.METRICS).read_text())
    return {name: tree[name] for name in SCORES} | {
        name: _digest(where / name)
        for name in (evaluation_files.PREDICTIONS, evaluation_files.OF_SEEDS, evaluation_files.SPLIT)
    }


def _half_run(folder: Path, _: Result) -> list[str]:
    run = str(folder / RUN)
    return [text for step in checkpoint_folder.list_steps(run) if (text := damage(run, step))]


def _half(result: Callable[[Path], Result]) -> Callable[[Path, Result], list[str]]:
    """For what is whole or not there: what stands as done must be right already."""

    def half(folder: Path, whole: Result) -> list[str]:
        found = readable(result, folder)
        return [f"stands as done: {line}" for line in differences(found, whole)] if found else []

    return half


def readable(result: Callable[[Path], Result], folder: Path) -> Result:
    """A result, or why what stands there cannot be read."""
    try:
        return result(folder)
    except Exception as error:
        return {"unreadable": repr(error)[:300]}


def _shards(folder: Path, whole: Result) -> dict[str, int]:
    """Tars that have their record and are right, with the time of their writing."""
    where = folder / SET
    return {
        tar.name: tar.stat().st_mtime_ns
        for tar in sorted(where.glob("*.tar"))
        if tar.with_suffix(".idx").exists() and _digest(tar) == whole.get(tar.name)
    }


def _checkpoint(folder: Path, _: Result) -> dict[str, int]:
    """The newest checkpoint that is right."""
    run = str(folder / RUN)
    return {
        RUN: max((step for step in checkpoint_folder.list_steps(run) if not damage(run, step)), default=0)
    }


def _nothing_kept(_: Path, __: Result) -> dict[str, int]:
    return {}


def _packed_again(before: Mapping[str, int], after: Mapping[str, int], _: str) -> list[str]:
    lost = [name for name, written in before.items() if after.get(name) != written]
    return [f"{len(lost)} shards were committed and packed again: {', '.join(lost[:5])}"] if lost else []


def _trained_again(before: Mapping[str, int], _: Mapping[str, int], said: str) -> list[str]:
    step = before.get(RUN, 0)
    found = re.search(r"resuming at step (\d+)", said)
    begun = STEPS if "nothing to do" in said else int(found[1]) if found else 0
    return [f"step {step} was committed, the next start went on at step {begun}"] if begun < step else []


def _none_again(_: Mapping[str, int], __: Mapping[str, int], ___: str) -> list[str]:
    return []


JOBS = {
    "pack": Job("pack", _pack, _files, _half(_files), _shards, _packed_again),
    "pretrain": Job("pretrain", _pretrain, _steps, _half_run, _checkpoint, _trained_again),
    "embed": Job("embed", _embed, _features, _half(_features), _nothing_kept, _none_again),
    "evaluate": Job("evaluate", _evaluate, _scores, _half(_scores), _nothing_kept, _none_again),
}


def differences(found: Result, whole: Result) -> list[str]:
    """Names of what is missing, more, or other than in the undisturbed result, with what it is."""
    lines = []
    for name in sorted(found.keys() | whole.keys()):
        usual = name.split(", time ")[0]  # a step that was done twice must be the same step twice
        if name not in found:
            lines.append(f"{name} is missing")
        elif usual not in whole:
            lines.append(f"{name} is new")
        elif not alike(found[name], whole[usual]):
            lines.append(f"{name} is {str(found[name])[:80]}, not {str(whole[usual])[:80]}")
    return lines


def alike(one: Any, other: Any) -> bool:
    """Whether two values are equal, numbers among them nearly."""
    if isinstance(one, float) and isinstance(other, float):
        return bool(np.isclose(one, other, rtol=ALIKE, atol=ALIKE, equal_nan=True))
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(alike, one, other))
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(alike(one[key], other[key]) for key in one)
    return bool(one == other)
