"""Which checkpoint a start goes on from: what is bad is passed over, what only cannot be read ends the start."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest

from retfound_dist.errors import CheckpointError, FormatError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.formats.checkpoint_folder import Commit
from retfound_dist.io import storage, verified_files
from retfound_dist.train.checkpoint.resume import (
    LaunchJob,
    ResumePoint,
    choose_checkpoint,
    is_finished,
    read_job,
)
from tests.formats.test_checkpoint_folder import make

NONE = [
    "[]",
    "null",
    "",
    "{",
    '{"format": 1}',
    '{"format": 1, "step": "3"}',
    "[" * 100_000,
    "\x00\x01",
    '"text"',
]
"""Files that are no commit."""


def state_of(run: str, step: int) -> str:
    return storage.join(checkpoint_folder.checkpoint_url(run, step), "state/part")


def damage(run: str, step: int) -> None:
    storage.write_bytes(state_of(run, step), b"abX")


def make_as(run: str, step: int, choice: ResumePoint) -> Commit:
    """A checkpoint as a start saves it that went on from a choice."""
    commit = replace(make(run, step), generation=choice.generation, chosen=choice.chosen)
    checkpoint_folder.write_commit(commit)
    return commit


def step_of(choice: ResumePoint) -> int:
    return choice.commit.step if choice.commit else 0


def test_the_newest_whole_checkpoint_is_found_and_others_are_named(tmp_path: Path) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (1, 2, 3):
        make(run, step)
    damage(run, 3)
    storage.delete(state_of(run, 2))
    assert step_of(choose_checkpoint(run, "auto", messages.append, 0)) == 1
    assert "skipping the checkpoint of step 3" in messages[0]
    assert "differs from its commit: its sha256 is" in messages[0]
    assert "skipping the checkpoint of step 2" in messages[1]
    assert "it does not exist" in messages[1]
    assert len(messages) == 2


def test_nothing_to_resume_is_no_error(tmp_path: Path) -> None:
    assert choose_checkpoint(str(tmp_path), "auto", print, 0) == ResumePoint()
    assert choose_checkpoint(str(tmp_path), "none", print, 0) == ResumePoint(chosen="none")


def test_a_byte_that_flips_on_the_way_passes_over_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, messages, wrong, read = str(tmp_path), list[str](), [2], verified_files.read_info
    for step in (1, 2):
        make(run, step)

    def flip(url: str) -> storage.FileInfo:
        wrong[0] -= 1
        return storage.bytes_info(b"abX") if wrong[0] >= 0 else read(url)

    monkeypatch.setattr(verified_files, "read_info", flip)
    assert (step_of(choose_checkpoint(run, "auto", messages.append, 0)), messages) == (2, [])


def test_a_store_that_does_not_answer_is_asked_again_and_no_good_checkpoint_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, messages, left, read = "memory://does-not-answer", list[str](), [2], storage.open_read
    for step in (1, 2):
        make(run, step)

    def busy(url: str):  # type: ignore[no-untyped-def]
        left[0] -= 1
        if left[0] >= 0:
            with storage.storage_errors(url, "read"):
                raise ConnectionResetError("the store is restarted")
        return read(url)

    monkeypatch.setattr(storage, "open_read", busy)
    assert (step_of(choose_checkpoint(run, "auto", messages.append, 60)), messages) == (2, [])
    left[0] = 1000
    with pytest.raises(
        StorageError, match=r"cannot be read: .*restarted.*tried for 1 s.*no checkpoint is skipped"
    ):
        choose_checkpoint(run, "auto", messages.append, 1)
    left[0] = 0
    storage.delete(state_of(run, 2))
    assert (step_of(choose_checkpoint(run, "auto", messages.append, 60)), len(messages)) == (1, 1)


def test_a_disk_that_cannot_be_read_ends_the_start_and_says_nothing_of_the_checkpoint(tmp_path: Path) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (1, 2):
        make(run, step)
    os.unlink(state_of(run, 2))
    os.symlink("/proc/self/mem", state_of(run, 2))  # EIO by a real read
    with pytest.raises(StorageError, match=r"step 2 cannot be read: .*input/output error.*run.resume=STEP"):
        choose_checkpoint(run, "auto", messages.append, 0.2)
    assert messages == []
    assert step_of(choose_checkpoint(run, 1, messages.append, 0.2)) == 1


def test_short_memory_ends_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(str(tmp_path), 1)

    def short(url: str) -> storage.FileInfo:
        raise MemoryError

    monkeypatch.setattr(verified_files, "read_info", short)
    with pytest.raises(StorageError, match="too little free memory"):
        choose_checkpoint(str(tmp_path), "auto", print, 0)


def test_where_no_checkpoint_can_be_used_the_start_ends_and_says_what_to_do(tmp_path: Path) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (4, 8):
        make(run, step)
        damage(run, step)
    with pytest.raises(CheckpointError, match=r"none can be used \(step 8: .*; step 4: .*run.resume=none"):
        choose_checkpoint(run, "auto", messages.append, 0)
    for step in (4, 8):
        checkpoint_folder.write_commit(replace(make(run, step), files={}))
    with pytest.raises(CheckpointError, match=r"none can be used \(step 8: it holds weights only"):
        choose_checkpoint(run, "auto", messages.append, 0)
    assert choose_checkpoint(run, "none", messages.append, 0).commit is None
    assert messages[-1].startswith(
        "resuming from the beginning (run.resume=none); newer checkpoints are skipped: 2 steps"
    )


@pytest.mark.parametrize("content", NONE, ids=range(len(NONE)))
def test_a_commit_that_is_none_is_passed_over_by_name_and_is_no_end_of_the_run(
    content: str, tmp_path: Path
) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (1, 2):
        make(run, step)
    where = Path(checkpoint_folder.checkpoint_url(run, 2)) / checkpoint_folder.COMMIT
    where.write_text(content)
    assert not is_finished(run, 2)
    assert step_of(choose_checkpoint(run, "auto", messages.append, 0)) == 1
    assert len(messages) == 1
    assert "skipping the checkpoint of step 2: " in messages[0]
    assert str(where) in messages[0]
    where.unlink()
    assert step_of(choose_checkpoint(run, "auto", messages.append, 0)) == 1
    assert len(messages) == 1  # a save that was never committed is nothing to speak of


def test_a_commit_of_a_later_format_ends_the_start(tmp_path: Path) -> None:
    for step in (1, 2):
        make(str(tmp_path), step)
    where = storage.join(checkpoint_folder.checkpoint_url(str(tmp_path), 2), checkpoint_folder.COMMIT)
    storage.write_json(where, {**storage.read_json(where), "format": 2})
    with pytest.raises(FormatError, match="has format 2"):
        choose_checkpoint(str(tmp_path), "auto", print, 0)


@pytest.mark.parametrize("name", ["../../../evil", "/etc/hostname", "state/../../x", "state//x", ""])
def test_a_commit_that_names_files_elsewhere_is_no_checkpoint(name: str, tmp_path: Path) -> None:
    commit = make(str(tmp_path), 1)
    checkpoint_folder.write_commit(replace(commit, files={name: storage.bytes_info(b"abc")}))
    with pytest.raises(CheckpointError, match="do not use it"):
        checkpoint_folder.read_commit(commit.url)


def test_a_run_is_finished_where_its_last_step_has_weights_to_show(tmp_path: Path) -> None:
    run = str(tmp_path)
    commit = make(run, 8)
    assert not is_finished(run, 8)  # it holds no weights
    weights = storage.join(commit.url, checkpoint_folder.WEIGHTS)
    storage.write_bytes(weights, b"weights")
    checkpoint_folder.write_commit(
        replace(commit, files={**commit.files, checkpoint_folder.WEIGHTS: storage.bytes_info(b"weights")})
    )
    assert is_finished(run, 8)
    assert is_finished(run, 8, 8)
    assert not is_finished(run, 8, "none")
    assert not is_finished(run, 8, 4)
    assert not is_finished(run, 9)
    storage.write_bytes(weights, b"weig")
    assert not is_finished(run, 8)
    storage.delete(weights)
    assert not is_finished(run, 8)


def test_a_step_is_gone_on_from_where_it_is_asked_for_and_can_be_used(tmp_path: Path) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (2, 4, 6, 8):
        make(run, step)
    damage(run, 6)
    checkpoint_folder.write_commit(replace(make(run, 2), files={}))
    assert step_of(choose_checkpoint(run, 4, messages.append, 0)) == 4
    assert messages == ["resuming from step 4 (run.resume=4); newer checkpoints are skipped: 2 steps, 6, 8"]
    for step, why in ((6, "its sha256 is"), (2, "weights only"), (5, "there is none")):
        with pytest.raises(
            CheckpointError, match=rf"run.resume={step}: .*{why}.*with a training state are of"
        ):
            choose_checkpoint(run, step, messages.append, 0)


def test_what_was_passed_over_once_does_not_come_back_when_the_run_is_started_again(tmp_path: Path) -> None:
    run = str(tmp_path)
    for step in (2, 4, 8):
        make(run, step)
    resume_point = choose_checkpoint(run, 4, print, 0)
    make_as(run, 5, resume_point)
    assert step_of(choose_checkpoint(run, "auto", print, 0)) == 5
    again = choose_checkpoint(run, "auto", print, 0)
    make_as(run, 6, again)
    assert step_of(choose_checkpoint(run, "auto", print, 0)) == 6
    beginning = choose_checkpoint(run, "none", print, 0)
    make_as(run, 2, beginning)
    assert step_of(choose_checkpoint(run, "auto", print, 0)) == 2
    assert not is_finished(run, 8)  # that was another line


def test_a_checkpoint_that_was_bad_once_is_not_read_again_at_every_start(tmp_path: Path) -> None:
    run, messages = str(tmp_path), list[str]()
    for step in (2, 4):
        make(run, step)
    damage(run, 4)
    make_as(run, 3, choose_checkpoint(run, "auto", messages.append, 0))
    assert len(messages) == 1
    assert (step_of(choose_checkpoint(run, "auto", messages.append, 0)), len(messages)) == (3, 1)


@pytest.mark.parametrize(("resume", "first"), [(4, 4), ("none", 0)])
def test_a_restart_of_a_job_goes_on_from_what_the_job_has_saved_though_it_is_told_the_same(
    resume: int, first: int, tmp_path: Path
) -> None:
    run, queued = str(tmp_path), {"SLURM_JOB_ID": "7", "SLURM_RESTART_COUNT": "1"}
    for step in (2, 4, 8):
        make(run, step)
    begun = choose_checkpoint(run, resume, print, 0, read_job({"SLURM_JOB_ID": "7"}, 0))
    assert step_of(begun) == first
    assert (
        step_of(choose_checkpoint(run, resume, print, 0, read_job(queued, 0))) == first
    )  # it had saved nothing
    make_as(run, 5, begun)
    assert step_of(choose_checkpoint(run, resume, print, 0, read_job(queued, 0))) == 5
    assert (
        step_of(choose_checkpoint(run, resume, print, 0, read_job({**queued, "SLURM_JOB_ID": "8"}, 0)))
        == first
    )
    assert step_of(choose_checkpoint(run, resume, print, 0, read_job({"SLURM_JOB_ID": "7"}, 0))) == first
    assert step_of(choose_checkpoint(run, 2, print, 0, read_job(queued, 0))) == 2


def test_ranks_that_one_torchrun_starts_again_are_of_one_job() -> None:
    mine = read_job({}, os.getpid())
    assert mine == read_job({}, os.getpid())
    assert mine.already_resumed(4, mine.resume_record(4))
    assert not mine.already_resumed(5, mine.resume_record(4))
    assert not mine.already_resumed("none", mine.resume_record(4))
    assert not read_job({}, os.getppid()).already_resumed(4, mine.resume_record(4))
    assert read_job({}, 0) == read_job({"SLURM_RESTART_COUNT": "0"}, 0) == LaunchJob()
    assert mine.resume_record("auto") == ""


def test_commits_of_earlier_versions_are_read(tmp_path: Path) -> None:
    commit = make(str(tmp_path), 3)
    where = Path(commit.url) / checkpoint_folder.COMMIT
    tree = json.loads(where.read_text())
    assert tree.pop("generation") == 0
    assert tree.pop("chosen") == ""
    where.write_text(json.dumps(tree))
    assert choose_checkpoint(str(tmp_path), "auto", print, 0).commit == commit
