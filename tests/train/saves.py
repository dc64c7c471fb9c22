"""Saves of a step without a training run: by what a keeper's process does, whole or killed on the way.

    python -m tests.train.saves RUN VALUE KILL_AT [SCRATCH]

saves step 8 with weights of VALUE and dies by kill -9 before the write to RUN number KILL_AT (0: never).
"""

from __future__ import annotations

import os
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

import safetensors.torch
import torch

from retfound_dist.config.schema import Checkpoint
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.train.checkpoint.finalize import CheckpointToFinalize, finalize_checkpoint
from retfound_dist.train.checkpoint.merge_weights import part_name
from retfound_dist.train.ranks import upload_process

STEP = 8
RANKS = 2
_WRITES = ("os.rename", "os.remove", "os.rmdir", "os.mkdir", "os.truncate", "os.link")
_S3_WRITES = ("put_object", "delete_object", "delete_objects", "complete_multipart_upload", "copy_object")


def save(run: str, value: float, scratch: str, step: int = STEP, keep: Checkpoint | None = None) -> Commit:
    """Save a step: its state and its weights hold the value."""
    mark, url, files, parts = (
        checkpoint_folder.new_mark(),
        checkpoint_folder.checkpoint_url(run, step),
        {},
        [],
    )
    for rank in range(RANKS):
        with tempfile.TemporaryDirectory(dir=scratch) as folder:
            (Path(folder) / "state").mkdir()
            (Path(folder) / f"state/rank_{rank}.pt").write_bytes(f"{value}".encode() * 1000)
            part = Path(folder) / part_name(rank)
            part.parent.mkdir()
            safetensors.torch.save_file({"0": torch.full((4,), value)}, part)
            found = upload_process.upload(folder, url, 5.0, mark)
            parts.append(found.pop(checkpoint_folder.name_with_mark(part_name(rank), mark)))
            files |= found
    fixed = str(Path(scratch) / "fixed")
    safetensors.torch.save_file({"fixed": torch.full((2,), value)}, fixed)
    held = Commit(
        url=url, step=step, samples=80, world_size=RANKS, zero_stage=1, precision="fp32", batch_digest="0",
        time="2026-01-01T00:00:00+00:00", config={}, files=files,
    )  # fmt: skip
    settings = keep or Checkpoint(keep_last=9, patience_s=10.0)
    finalize_checkpoint(CheckpointToFinalize(run, held, mark, parts, [{"w": (8,)}], fixed, scratch, settings))
    return checkpoint_folder.read_commit(url)


def value_of(held: Commit, scratch: Path) -> float:
    """The one value of all files of a checkpoint, each checked against the commit; fails where there are two."""
    found = set()
    for name in held.files:
        checkpoint_folder.fetch(held, name, str(scratch / "file"))
        if name == held.weights:
            found |= {float(v) for t in safetensors.torch.load_file(scratch / "file").values() for v in t}
        else:
            text = (scratch / "file").read_text()
            found.add(float(text[: len(text) // 1000]))
    assert len(found) == 1, f"two saves in one commit: {found}"
    return found.pop()


def die_before(number: int, run: str) -> None:
    """Have this process killed before its write number `number` to a run on a disk or on S3."""
    left = [number]

    def count() -> None:
        left[0] -= 1
        if left[0] == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hook(event: str, args: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(args[2], int) and args[2] & (os.O_WRONLY | os.O_RDWR):
            if str(args[0]).startswith(run):
                count()
        elif event in _WRITES and str(args[0]).startswith(run):
            count()

    if not run.startswith("s3://"):
        sys.addaudithook(hook)
        return
    import s3fs

    usual = s3fs.S3FileSystem._call_s3

    async def call(self: Any, method: str, *args: Any, **kwargs: Any) -> Any:
        if method in _S3_WRITES:
            count()
        return await usual(self, method, *args, **kwargs)

    s3fs.S3FileSystem._call_s3 = call


def main() -> None:
    """As a command."""
    run, value, number = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
    with tempfile.TemporaryDirectory() as scratch:
        if number:
            die_before(number, run)
        save(run, value, scratch)


if __name__ == "__main__":
    main()
