"""A run's logs: every line is written in order, nobody waits for it, and a fault is told."""

from pathlib import Path

import pytest

from retfound_dist.formats import run_folder, run_summary
from retfound_dist.io import storage
from retfound_dist.train.logs import run_logger
from retfound_dist.train.logs.run_logger import RunLogger
from retfound_dist.train.ranks.upload_process import UploadProcess
from tests.runs.made_runs import make_run, row


def test_the_logger_waits_for_nothing_and_loses_nothing(tmp_path: Path) -> None:
    uploads = UploadProcess(str(tmp_path))
    logger = RunLogger(str(tmp_path), uploads, 1.0)
    logger.write("metrics.jsonl", {"step": 1})
    logger.event("start", step=0)
    logger.write("metrics.jsonl", {"step": 2})
    assert logger.close() == ""
    assert [row["step"] for row in run_folder.read_metrics(str(tmp_path))] == [1, 2]
    assert [row["event"] for row in run_folder.read_rows(str(tmp_path), run_folder.EVENTS)] == ["start"]
    uploads.finish()


def test_a_run_leaves_a_summary_of_what_it_wrote(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"), last=50, ended=False)
    uploads = UploadProcess(url)
    logger = RunLogger(url, uploads, 1.0)
    logger.write("metrics.jsonl", row(55, 2, 1.8e9, {}))
    logger.event("end", step=55, reason="stopped")
    assert logger.close() == ""
    uploads.finish()
    summary = run_summary.read(url)
    assert summary is not None
    assert (summary.rows[-1]["step"], summary.events[-1]["reason"], summary.checkpoints) == (
        55,
        "stopped",
        [50],
    )
    tree = storage.read_json(f"{url}/{run_summary.SUMMARY}")
    assert tree["rows"][-1]["step"] == 55


def test_a_logger_that_cannot_write_says_so_until_it_is_heard(tmp_path: Path) -> None:
    (tmp_path / "run").write_text("a file where the folder should be")
    uploads = UploadProcess(str(tmp_path))
    logger = RunLogger(str(tmp_path / "run"), uploads, 0.0)
    logger.write("metrics.jsonl", {"step": 1})
    assert "metrics.jsonl" in logger.close()
    assert "metrics.jsonl" in logger.fault()
    uploads.finish()


def test_rows_for_an_object_store_wait_for_a_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """The store of `memory://` lives in the upload process, so the process itself is asked what is there."""
    monkeypatch.setattr(run_logger, "FLUSH_S", 1e9)
    url = "memory://logger/run"
    uploads = UploadProcess(url)
    logger = RunLogger(url, uploads, 1.0)
    for step in (1, 2):
        logger.write("metrics.jsonl", {"step": step})
    assert uploads.submit(run_folder.read_rows, url, "metrics.jsonl").result() == []
    logger.flush()
    rows = uploads.submit(run_folder.read_rows, url, "metrics.jsonl").result()
    assert rows == [{"step": 1}, {"step": 2}]
    assert logger.close() == ""
    uploads.finish()
