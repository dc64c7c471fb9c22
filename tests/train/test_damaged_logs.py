"""A run whose logs are damaged goes on: what is bad is left out, said and kept as it is."""

from pathlib import Path

import pytest

from retfound_dist.formats import log_rows, run_folder
from tests.stream.stream_inputs import make_set
from tests.train.launching import pretrain

pytestmark = pytest.mark.slow
LOGS = (run_folder.METRICS, run_folder.EVENTS, run_folder.ANOMALIES)
BAD = (
    b"{broken\n",
    b"[]\n",
    b"null\n",
    b"{}\n",
    b'{"event": "start", "time": 1}\n',
    b'{"step": NaN}\n',
    b"\0\xff\n",
)


def test_bad_lines_in_all_logs_stop_no_resume(tmp_path: Path) -> None:
    shards, run = make_set(tmp_path / "set").url, tmp_path / "run"
    settings = ["train.precision=fp32", "train.steps=9", "train.log_every=1", "checkpoint.every_steps=100"]
    assert pretrain(1, run, shards, *settings, "train.stop_at_step=2").returncode == 0
    whole = {name: log_rows.read_log(str(run), name) for name in LOGS}
    assert [log.fault for log in whole.values()] == ["", "", ""]  # all that a run writes is of its kind
    assert len(whole[run_folder.METRICS].rows) == 2
    assert {"start", "checkpoint", "end"} <= {row["event"] for row in whole[run_folder.EVENTS].rows}
    before = {}
    for name in LOGS:
        good = (run / name).read_bytes() if (run / name).exists() else b""
        before[name] = BAD[0] + good + b"".join(BAD)
        (run / name).write_bytes(before[name] + b'{"cut off')
    done = pretrain(1, run, shards, *settings, "train.stop_at_step=4")
    assert done.returncode == 0, done.stderr
    for name in LOGS:
        assert f"lines of {run / name} cannot be read and are left out (the first is line 1: " in done.stderr
        assert done.stderr.count(f"{name} cannot be read") == 1
    for name in (run_folder.METRICS, run_folder.EVENTS):
        now = (run / name).read_bytes()
        assert now.startswith(before[name])
        assert b"cut off" not in now
    steps = [
        row["step"] for row in run_folder.each_step_once(log_rows.read_log(str(run), run_folder.METRICS).rows)
    ]
    assert steps == [1, 2, 3, 4]
