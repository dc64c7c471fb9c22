from pathlib import Path

import pytest

from retfound_dist import runlog
from retfound_dist.errors import RunConflictError


def test_what_a_run_is_may_not_change_and_how_it_runs_may(tmp_path: Path) -> None:
    url, config = (
        str(tmp_path / "run"),
        {"train": {"seed": 1, "zero_stage": 1}, "checkpoint": {"every_steps": 5}},
    )
    assert not runlog.check_same_run(url, config)
    runlog.write_config(url, config)
    assert runlog.check_same_run(
        url, {"train": {"seed": 1, "zero_stage": 2}, "checkpoint": {"every_steps": 9}}
    )
    with pytest.raises(RunConflictError, match=r"train\.seed was 1 and is now 2.*run\.url"):
        runlog.check_same_run(url, {"train": {"seed": 2, "zero_stage": 1}, "checkpoint": {"every_steps": 5}})


@pytest.mark.parametrize("content", ["[]", "3", "{}", '{"architecture": "vit"}', '{"train": 5}'])
def test_a_folder_of_another_program_is_no_run_to_go_on_with(content: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(content)
    with pytest.raises(RunConflictError, match="is of another program: give this run"):
        runlog.check_same_run(str(tmp_path), {"train": {"seed": 1}})


@pytest.mark.parametrize("base", ["disk", "memory://runlog"])
def test_rows_survive_a_restart_and_a_step_done_again_counts_once(base: str, tmp_path: Path) -> None:
    url = str(tmp_path) if base == "disk" else base
    for step in (1, 2, 3):
        runlog.append_rows(url, runlog.METRICS, [{"step": step, "loss": step / 10}])
    runlog.append_rows(url, runlog.METRICS, [{"step": 3, "loss": 9.0}])
    assert len(runlog.read_rows(url, runlog.METRICS)) == 4
    assert [row["loss"] for row in runlog.read_metrics(url)] == [0.1, 0.2, 9.0]


def test_a_line_cut_short_by_a_kill_is_dropped(tmp_path: Path) -> None:
    runlog.append_rows(str(tmp_path), runlog.METRICS, [{"step": 1, "loss": 0.5}])
    with open(tmp_path / runlog.METRICS, "a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in runlog.read_metrics(str(tmp_path))] == [1]
    runlog.append_rows(str(tmp_path), runlog.METRICS, [{"step": 2, "loss": 0.4}])
    assert [row["step"] for row in runlog.read_metrics(str(tmp_path))] == [1, 2]


def test_a_run_that_logged_nothing_has_no_rows(tmp_path: Path) -> None:
    assert runlog.read_metrics(str(tmp_path)) == []
