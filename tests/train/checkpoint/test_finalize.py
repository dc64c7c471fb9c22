"""The end of a save: the old checkpoint with its old files or the new one with its new; what goes, what stays."""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest

from retfound_dist.config.schema import Checkpoint
from retfound_dist.errors import CheckpointError, RunConflictError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage, verified_files
from retfound_dist.train.checkpoint.finalize import CheckpointToFinalize, prune
from retfound_dist.train.checkpoint.resume import choose_checkpoint
from tests.formats.test_checkpoint_folder import make, make_later
from tests.train import saves
from tests.train.saves import STEP, save, value_of


def names_below(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def killed_save(run: str, number: int, value: float) -> bool:
    """A save in a process of its own, killed before that write; whether it was."""
    child = os.fork()
    if not child:
        try:
            with tempfile.TemporaryDirectory() as scratch:
                saves.die_before(number, run)
                save(run, value, scratch)
        finally:
            os._exit(0)
    return os.WIFSIGNALED(status := os.waitpid(child, 0)[1]) and os.WTERMSIG(status) == signal.SIGKILL


def storm(run_of: Callable[[int], str], scratch: Path) -> list[float]:
    """Killed before each write of a save over a commit in turn: what readers found after each; 1 old, 2 new."""
    found, number = list[float](), 0
    while True:
        number += 1
        run = run_of(number)
        killed = killed_save(run, number, 2.0)
        url = checkpoint_folder.checkpoint_url(run, STEP)
        assert checkpoint_folder.list_steps(run) == [STEP]
        found.append(value_of(checkpoint_folder.read_commit(url), scratch))
        save(run, 3.0, str(scratch))  # the next start saves the step once more
        assert value_of(checkpoint_folder.read_commit(url), scratch) == 3.0
        assert set(storage.list_names(url)) == {checkpoint_folder.COMMIT} | {
            name.partition("/")[0] for name in checkpoint_folder.read_commit(url).files
        }
        if not killed:
            return found


@pytest.mark.slow
def test_killed_before_any_write_of_a_save_over_a_commit_the_checkpoint_is_the_old_one_or_the_new_one(
    tmp_path: Path,
) -> None:
    save(str(tmp_path / "first"), 1.0, str(tmp_path))

    def run_of(number: int) -> str:
        shutil.copytree(tmp_path / "first", tmp_path / f"run{number}")
        return str(tmp_path / f"run{number}")

    found = storm(run_of, tmp_path)
    assert len(found) > 20
    assert found == sorted(found)
    assert (found[0], found[-1]) == (1.0, 2.0)


def test_a_step_that_is_saved_once_has_its_weights_at_their_usual_name(tmp_path: Path) -> None:
    commit = save(str(tmp_path), 1.0, str(tmp_path))
    assert commit.weights == checkpoint_folder.WEIGHTS
    assert names_below(Path(commit.url)) == {checkpoint_folder.COMMIT, *commit.files}
    assert sorted(commit.state.values()) == ["state/rank_0.pt", "state/rank_1.pt"]


def test_a_save_beside_another_that_is_under_way_touches_none_of_its_files(tmp_path: Path) -> None:
    """A start that was stopped in mid-upload wakes up when another has saved the step: its files are its own."""
    run, url = str(tmp_path / "run"), checkpoint_folder.checkpoint_url(str(tmp_path / "run"), STEP)
    sleeping = storage.join(url, checkpoint_folder.name_with_mark("state/rank_0.pt", "0a0a0a0a"))
    storage.write_bytes(sleeping, b"half of a save")
    commit = save(run, 1.0, str(tmp_path))
    assert commit.weights != checkpoint_folder.WEIGHTS
    storage.write_bytes(
        storage.join(url, checkpoint_folder.WEIGHTS), b"what the sleeper puts at the usual name"
    )
    assert value_of(checkpoint_folder.read_commit(url), tmp_path) == 1.0


def test_who_has_lost_the_lock_commits_nothing_over_the_one_who_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = str(tmp_path / "run")
    commit = save(run, 1.0, str(tmp_path))
    storage.write_json(storage.join(run, "LOCK.json"), {"id": "another"})
    monkeypatch.setattr(
        saves, "CheckpointToFinalize", lambda *args: CheckpointToFinalize(*args, lock_id="mine")
    )
    with pytest.raises(RunConflictError, match="run by another start: step 8 is not saved"):
        save(run, 2.0, str(tmp_path))
    assert checkpoint_folder.read_commit(commit.url) == commit
    storage.write_json(storage.join(run, "LOCK.json"), {"id": "mine"})
    assert value_of(save(run, 2.0, str(tmp_path)), tmp_path) == 2.0


def test_a_reader_of_the_old_commit_is_told_that_the_step_was_saved_again_or_reads_the_new(
    tmp_path: Path,
) -> None:
    run = str(tmp_path / "run")
    old = save(run, 1.0, str(tmp_path))
    new = save(run, 2.0, str(tmp_path))
    with pytest.raises(CheckpointError, match="was saved again while it was read: start the command again"):
        checkpoint_folder.fetch(old, old.weights, str(tmp_path / "copy"))
    assert checkpoint_folder.fetch_weights(new.url, str(tmp_path / "copy")) == new
    assert storage.file_info(str(tmp_path / "copy")) == new.files[new.weights]


def test_a_damaged_commit_in_between_ends_no_save_and_nothing_of_a_stranger_is_removed(
    tmp_path: Path,
) -> None:
    run = str(tmp_path / "run")
    for step in (2, 4, 6):
        save(run, 1.0, str(tmp_path), step)
    where = Path(checkpoint_folder.checkpoint_url(run, 4)) / checkpoint_folder.COMMIT
    where.write_text("[]")
    (where.parent / "notes.txt").write_text("a person's")
    (where.parent.parent / "step_00000002/notes.txt").write_text("a person's")
    save(run, 1.0, str(tmp_path), 8, Checkpoint(keep_last=1, patience_s=0))
    steps_with_state = [
        step
        for step in (2, 6, 8)
        if checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, step)).state
    ]
    assert steps_with_state == [8]
    for step in (2, 4):
        assert (Path(checkpoint_folder.checkpoint_url(run, step)) / "notes.txt").exists()
    assert any(name.startswith("state") for name in os.listdir(where.parent))
    commit = checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, 2))
    assert [
        verified_files.difference_from(storage.join(commit.url, name), info)
        for name, info in commit.files.items()
    ] == [""]


def test_pruning_keeps_the_newest_states_and_every_mth_and_all_weights(tmp_path: Path) -> None:
    run = str(tmp_path)
    for step in (10, 20, 30, 40, 50):
        make(run, step)
    prune(run, Checkpoint(keep_last=2, keep_every_steps=20), 50)
    assert checkpoint_folder.list_steps(run) == [10, 20, 30, 40, 50]
    steps_with_state = [
        s
        for s in (10, 20, 30, 40, 50)
        if checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, s)).files
    ]
    assert steps_with_state == [20, 40, 50]
    assert not storage.exists(storage.join(checkpoint_folder.checkpoint_url(run, 10), "state/part"))
    prune(run, Checkpoint(keep_last=2, keep_every_steps=20), 50)
    assert checkpoint_folder.list_steps(run) == [10, 20, 30, 40, 50]


def test_what_could_not_be_removed_once_is_removed_the_next_time(tmp_path: Path) -> None:
    run, keep = str(tmp_path), Checkpoint(keep_last=1, keep_every_steps=20)
    for step in (10, 20, 30):
        make(run, step)
        storage.write_text(storage.join(checkpoint_folder.checkpoint_url(run, step), "parts/0"), "x")
    prune(run, keep, 30)
    storage.write_text(storage.join(checkpoint_folder.checkpoint_url(run, 10), "state/part"), "x")
    prune(run, keep, 30)
    names = [storage.list_names(checkpoint_folder.checkpoint_url(run, step)) for step in (10, 20, 30)]
    assert names == [["COMMIT.json"], ["COMMIT.json", "state"], ["COMMIT.json", "state"]]


@pytest.mark.parametrize("keep_last", [1, 2])
def test_pruning_never_takes_the_only_good_one_for_damaged_ones_that_were_passed_over(
    tmp_path: Path, keep_last: int
) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (10, 20, 30):
        make(run, step)
    for step in (20, 30):
        storage.write_bytes(storage.join(checkpoint_folder.checkpoint_url(run, step), "state/part"), b"abX")
    make(run, 12)  # resumed at 10, asked to stop at 12
    prune(run, Checkpoint(keep_last=keep_last), 12)
    found = choose_checkpoint(run, "auto", messages.append, 0).commit
    assert found is not None
    assert found.step == 12
    assert [text.split(":")[0] for text in messages] == [
        f"skipping the checkpoint of step {step}" for step in (30, 20)
    ]
    assert storage.exists(storage.join(checkpoint_folder.checkpoint_url(run, 10), "state/part")) == (
        keep_last == 2
    )


def test_in_a_run_that_went_back_states_are_kept_of_what_was_saved_since(tmp_path: Path) -> None:
    run = str(tmp_path)
    for step in (10, 20, 30):
        make(run, step)
    for step in (12, 14, 24):  # back to step 10
        make_later(run, step, 1)
    prune(run, Checkpoint(keep_last=2), 24)
    steps_with_state = [
        s
        for s in (10, 12, 14, 20, 24, 30)
        if checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, s)).files
    ]
    assert steps_with_state == [14, 24, 30]  # 20 is nearer to 24 by its step alone


def test_a_state_that_is_kept_every_so_often_is_counted_by_steps_and_not_by_checkpoints(
    tmp_path: Path,
) -> None:
    run = str(tmp_path)
    for step in (3, 6, 8, 9, 12, 13):
        make(run, step)
    prune(run, Checkpoint(keep_last=1, keep_every_steps=4), 12)
    steps_with_state = [
        s
        for s in (3, 6, 8, 9, 12, 13)
        if checkpoint_folder.read_commit(checkpoint_folder.checkpoint_url(run, s)).files
    ]
    assert steps_with_state == [8, 12, 13]  # 13 lies beyond the newest: it is left alone
