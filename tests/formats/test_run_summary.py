"""A run's small summary says what its files say, whatever has been written since, or is not used."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from retfound_dist.formats import run_folder, run_summary
from retfound_dist.formats.checkpoint_folder import checkpoint_url
from retfound_dist.io import storage
from retfound_dist.runs.run_facts import LOCK, read_run, read_run_overview
from tests.runs.made_runs import BEGAN, make_run, row, write_checkpoint, write_probes, write_score


@pytest.fixture(params=["disk", "memory"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A run with a summary that was written at its end."""
    url = make_run(str(tmp_path / "run") if request.param == "disk" else f"memory://{uuid.uuid4().hex}")
    write_score(url, 50, 0.9)
    run_summary.refresh(url)
    return url


def add_rows(url: str) -> None:
    run_folder.append_rows(url, run_folder.METRICS, [row(step, 3, BEGAN + 9000, {}) for step in (105, 110)])


def add_to_a_torn_line(url: str) -> None:
    where = storage.join(url, run_folder.METRICS)
    storage.write_bytes(where, storage.read_bytes(where) + b'{"step": 999, "lo')
    assert read_run_overview(url).list_values["step"] == 100
    add_rows(url)


def go_back(url: str) -> None:
    """A step done again with another loss."""
    run_folder.append_rows(
        url, run_folder.METRICS, [row(100, 3, BEGAN + 9000, {}) | {"loss": 7.0, "loss_mean": 7.0}]
    )


def start_again(url: str) -> None:
    event = {
        "event": "start",
        "time": BEGAN + 9000,
        "began": BEGAN + 8990,
        "ready": BEGAN + 9000,
        "step": 100,
    }
    run_folder.append_rows(url, run_folder.EVENTS, [event | {"world_size": 2, "zero_stage": 1}])
    storage.write_json(storage.join(url, LOCK), {})


def evaluate_again(url: str) -> None:
    write_score(url, 50, 0.4)
    write_score(url, 100, 0.45)


def raise_an_alarm(url: str) -> None:
    write_probes(url, {50: 0.8, 100: 0.7}, alarm="step 100 is worse")


def save(url: str) -> None:
    write_checkpoint(url, 150, storage.read_json(storage.join(url, run_folder.CONFIG)))


def save_after_going_back(url: str) -> None:
    start_again(url)
    assert read_run(url).state == "finished"
    write_checkpoint(url, 70, storage.read_json(storage.join(url, run_folder.CONFIG)), generation=1)
    assert read_run(url).checkpoints == [50, 100, 70]
    assert read_run(url).state != "finished"  # it has yet to get there again
    assert read_run_overview(url).list_values["checkpoint"] == 70


def save_once_more_after_going_back(url: str) -> None:
    write_checkpoint(url, 50, storage.read_json(storage.join(url, run_folder.CONFIG)), generation=1)
    assert read_run_overview(url).list_values["checkpoint"] == 50


def begin_a_save(url: str) -> None:
    storage.write_bytes(storage.join(checkpoint_url(url, 200), "model.safetensors"), b"half")


def remove_a_checkpoint(url: str) -> None:
    storage.delete(checkpoint_url(url, 100))


def lengthen(url: str) -> None:
    tree = storage.read_json(storage.join(url, run_folder.CONFIG))
    storage.write_json(
        storage.join(url, run_folder.CONFIG), tree | {"train": tree["train"] | {"steps": 4000}}
    )


def replace_the_log(url: str) -> None:
    """By another one that is longer."""
    storage.delete(storage.join(url, run_folder.METRICS))
    run_folder.append_rows(url, run_folder.METRICS, [row(step, 1, BEGAN, {}) for step in range(1, 60)])


def shorten_the_log(url: str) -> None:
    storage.delete(storage.join(url, run_folder.METRICS))
    run_folder.append_rows(url, run_folder.METRICS, [row(5, 1, BEGAN, {})])


def lose_the_log(url: str) -> None:
    storage.delete(storage.join(url, run_folder.METRICS))


def damage_the_log(url: str) -> None:
    where = storage.join(url, run_folder.METRICS)
    storage.write_bytes(where, storage.read_bytes(where) + b'{"step": "five"}\n')


def damage_an_evaluation(url: str) -> None:
    storage.write_text(storage.join(url, "evaluations/step_00000050/metrics.json"), "[]")


def damage_the_summary(url: str) -> None:
    storage.write_text(storage.join(url, run_summary.SUMMARY), '{"format": 1, "config": [], "read')


def a_later_format(url: str) -> None:
    where = storage.join(url, run_summary.SUMMARY)
    storage.write_json(where, storage.read_json(where) | {"format": 2, "rows": []})


def nothing(url: str) -> None: ...


TRUSTED = [nothing, add_rows, add_to_a_torn_line, go_back, start_again, evaluate_again, raise_an_alarm, save,
           save_after_going_back, save_once_more_after_going_back, begin_a_save, remove_a_checkpoint, lengthen]  # fmt: skip
NOT_USED = [replace_the_log, shorten_the_log, lose_the_log, damage_the_log, damage_an_evaluation,
            damage_the_summary, a_later_format]  # fmt: skip


@pytest.mark.parametrize("change", [*TRUSTED, *NOT_USED])
def test_a_list_shows_what_the_whole_run_says(change: Callable[[str], None], run: str) -> None:
    change(run)
    whole, brief = read_run(run), read_run_overview(run)
    damaged = f"{storage.join(run, run_summary.SUMMARY)} is damaged: line 1: it is cut off; "
    assert brief.list_values == whole.list_values
    told = [text for text in brief.read_faults if text not in whole.read_faults]
    assert (brief.config, brief.read_faults) == (whole.config, [*whole.read_faults, *told])
    assert [text[: len(damaged)] for text in told] == ([damaged] if change is damage_the_summary else [])
    assert (run_summary.read(run) is not None) == (change in TRUSTED)
    run_summary.refresh(run)
    assert read_run_overview(run).list_values == whole.list_values


def test_an_old_run_is_read_whole_and_a_folder_of_another_program_gets_none(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "old"))
    assert run_summary.read(url) is None
    assert read_run_overview(url).list_values == read_run(url).list_values
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "config.json").write_text('{"architecture": "vit"}')
    run_summary.refresh(str(tmp_path / "other"))
    run_summary.refresh(str(tmp_path / "nowhere"))
    assert os.listdir(tmp_path / "other") == ["config.json"]
    assert not (tmp_path / "nowhere").exists()


def test_a_run_whose_log_has_damage_loses_its_summary(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    run_summary.refresh(url)
    damage_the_log(url)
    run_summary.refresh(url)
    assert not storage.exists(storage.join(url, run_summary.SUMMARY))
    assert read_run_overview(url).read_faults


def test_a_copied_run_is_read_by_its_summary(tmp_path: Path) -> None:
    url = make_run(str(tmp_path / "run"))
    run_summary.refresh(url)
    shutil.copytree(url, tmp_path / "copy", copy_function=shutil.copyfile)
    assert run_summary.read(str(tmp_path / "copy")) is not None
    assert read_run_overview(str(tmp_path / "copy")).list_values["loss"] == read_run(url).list_values["loss"]


def test_of_a_long_log_a_list_reads_only_what_was_added(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = make_run(str(tmp_path / "run"))
    run_folder.append_rows(url, run_folder.METRICS, [row(step, 2, BEGAN, {}) for step in range(101, 3000)])
    run_summary.refresh(url)
    asked: list[tuple[str, int]] = []
    bare_range, bare_whole = storage.read_range, storage.open_read

    def read_range(where: str, begin: int, end: int) -> bytes:
        asked.append((storage.name(where), end - begin))
        return bare_range(where, begin, end)

    def open_read(where: str) -> Any:
        asked.append((storage.name(where), 0))
        return bare_whole(where)

    monkeypatch.setattr(storage, "read_range", read_range)
    monkeypatch.setattr(storage, "open_read", open_read)
    assert read_run_overview(url).list_values["step"] == 2999
    assert asked == [("summary.json", 0)]
    asked.clear()
    added = row(3000, 2, BEGAN, {})
    run_folder.append_rows(url, run_folder.METRICS, [added])
    asked.clear()
    assert read_run_overview(url).list_values["step"] == 3000
    assert [name for name, _ in asked] == ["summary.json", "metrics.jsonl"]
    assert asked[1][1] < 3 * len(json.dumps(added))
