"""Optional records of a run: TensorBoard's file, and torch's profiler over some steps."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import torch

from retfound_dist.io import storage
from retfound_dist.io.scratch import new_temporary_folder
from retfound_dist.runtime.optional_packages import requires_extra
from retfound_dist.train.ranks import upload_process
from retfound_dist.train.ranks.upload_process import UploadProcess

TENSORBOARD, PROFILES = "tensorboard", "profiles"


class TensorBoard:
    """Writes the logged numbers for TensorBoard: into the run's folder, or copied there at each save."""

    def __init__(self, run_url: str, uploads: UploadProcess, scratch: str, done: int = 0) -> None:
        """`done`: steps so far; TensorBoard hides later steps that an earlier start wrote."""
        with requires_extra("train.tensorboard=true", "tensorboard"):
            from torch.utils.tensorboard import SummaryWriter
        self._url, self._uploads = storage.join(run_url, TENSORBOARD), uploads
        # TensorBoard's writer only appends to local files. For a remote run it writes to scratch, and `save`
        # copies the file.
        self._local = storage.is_local(run_url)
        self._folder = storage.local_path(self._url) if self._local else os.path.join(scratch, TENSORBOARD)
        self._writer = SummaryWriter(self._folder, purge_step=done + 1)

    def write(self, row: Mapping[str, Any]) -> None:
        """Write the numbers of a logged step."""
        for name, value in row.items():
            if isinstance(value, (int, float)) and name not in ("step", "time"):
                self._writer.add_scalar(f"train/{name}", value, row["step"])

    def save(self) -> None:
        """Copy the file to the run's folder if that is remote."""
        self._writer.flush()
        if not self._local:
            self._uploads.submit(upload_process.copy_folder, self._folder, self._url)

    def close(self) -> None:
        """Save and close the file, after the last row."""
        self.save()
        self._writer.close()


class Profiler:
    """Traces the steps first to last of one rank, then writes the trace and the table of operators."""

    def __init__(self, run_url: str, rank: int, steps: tuple[int, int]) -> None:
        self._url, self._rank, (self._first, self._last) = run_url, rank, steps
        self._profile: torch.profiler.profile | None = None

    def before_step(self, step: int) -> None:
        """Called before a step (1 is the first); starts the profiler."""
        if self._profile is None and self._first <= step <= self._last:
            kinds = [torch.profiler.ProfilerActivity.CPU]
            if torch.cuda.is_available():
                kinds.append(torch.profiler.ProfilerActivity.CUDA)
            self._profile = torch.profiler.profile(activities=kinds)
            self._profile.start()

    def after_step(self, step: int) -> str:
        """Called after a step; after the last one, writes the trace and returns its URL."""
        if self._profile is None or step < self._last:
            return ""
        profile, self._profile, self._last = self._profile, None, 0
        profile.stop()
        name = f"steps_{self._first:08d}-{step:08d}_rank_{self._rank}"
        where = storage.join(self._url, PROFILES, name)
        with new_temporary_folder() as scratch:
            path = os.path.join(scratch, "trace.json.gz")
            profile.export_chrome_trace(path)
            storage.put_file(path, f"{where}.json.gz")
        order = "self_cuda_time_total" if torch.cuda.is_available() else "self_cpu_time_total"
        storage.write_text(f"{where}.txt", profile.key_averages().table(sort_by=order, row_limit=40))
        return f"{where}.json.gz"
