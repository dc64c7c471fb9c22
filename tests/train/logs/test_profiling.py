"""TensorBoard's file over several starts of a run."""

from pathlib import Path

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from retfound_dist.train.logs.profiling import TensorBoard
from retfound_dist.train.ranks.upload_process import UploadProcess


def test_steps_that_a_resumed_run_does_again_stand_once(tmp_path: Path) -> None:
    uploads = UploadProcess(str(tmp_path))
    for done, last, loss in ((0, 5, 1.0), (3, 4, 2.0)):
        board = TensorBoard(str(tmp_path), uploads, str(tmp_path / "scratch"), done)
        for step in range(done + 1, last + 1):
            board.write({"step": step, "loss": loss})
        board.close()
    uploads.finish()
    read = EventAccumulator(str(tmp_path / "tensorboard"))
    read.Reload()
    assert [(e.step, e.value) for e in read.Scalars("train/loss")] == [(1, 1), (2, 1), (3, 1), (4, 2)]
