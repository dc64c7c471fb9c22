from pathlib import Path

import pytest
import torch

from retfound_dist import commit, storage
from retfound_dist.errors import SaveError
from retfound_dist.schema import Checkpoint
from retfound_dist.train import checkpoint, restore
from retfound_dist.train.group import Group
from retfound_dist.train.resume import choose
from retfound_dist.world import World
from tests.test_commit import make


def test_pruning_keeps_the_newest_states_and_every_mth_and_all_weights(tmp_path: Path) -> None:
    run = str(tmp_path)
    for step in (10, 20, 30, 40, 50):
        make(run, step)
    checkpoint.prune(run, Checkpoint(keep_last=2, keep_every_steps=20), 50)
    assert commit.list_steps(run) == [10, 20, 30, 40, 50]
    kept = [s for s in (10, 20, 30, 40, 50) if commit.read_commit(commit.checkpoint_url(run, s)).files]
    assert kept == [20, 40, 50]
    assert not storage.exists(storage.join(commit.checkpoint_url(run, 10), "state/part"))
    checkpoint.prune(run, Checkpoint(keep_last=2, keep_every_steps=20), 50)
    assert commit.list_steps(run) == [10, 20, 30, 40, 50]


def test_what_could_not_be_removed_once_is_removed_the_next_time(tmp_path: Path) -> None:
    run, keep = str(tmp_path), Checkpoint(keep_last=1, keep_every_steps=20)
    for step in (10, 20, 30):
        make(run, step)
        storage.write_text(storage.join(commit.checkpoint_url(run, step), "parts/0"), "x")
    checkpoint.prune(run, keep, 30)
    storage.write_text(storage.join(commit.checkpoint_url(run, 10), "state/part"), "x")
    checkpoint.prune(run, keep, 30)
    names = [storage.list_names(commit.checkpoint_url(run, step)) for step in (10, 20, 30)]
    assert names == [["COMMIT.json"], ["COMMIT.json", "state"], ["COMMIT.json", "state"]]


@pytest.mark.parametrize("keep_last", [1, 2])
def test_pruning_never_takes_the_only_good_one_for_damaged_ones_that_were_passed_over(
    tmp_path: Path, keep_last: int
) -> None:
    run, said = str(tmp_path), list[str]()
    for step in (10, 20, 30):
        make(run, step)
    for step in (20, 30):
        storage.write_bytes(storage.join(commit.checkpoint_url(run, step), "state/part"), b"abX")
    make(run, 12)  # resumed at 10, asked to stop at 12
    checkpoint.prune(run, Checkpoint(keep_last=keep_last), 12)
    found = choose(run, "auto", said.append, 0).held
    assert found is not None
    assert found.step == 12
    assert [text.split(":")[0] for text in said] == [
        f"passing over the checkpoint of step {step}" for step in (30, 20)
    ]
    assert storage.exists(storage.join(commit.checkpoint_url(run, 10), "state/part")) == (keep_last == 2)


def test_only_the_same_ranks_and_stage_load_without_conversion(tmp_path: Path) -> None:
    held = make(str(tmp_path), 1)
    assert not restore.needs_conversion(held, 2, 1)
    assert restore.needs_conversion(held, 3, 1)
    assert restore.needs_conversion(held, 2, 2)


@pytest.mark.parametrize(("last_good", "said"), [(0, "there is none yet"), (7, "the last good one is of step 7")])
def test_a_save_that_failed_on_another_rank_has_failed_on_this_one_too(tmp_path: Path, last_good: int, said: str) -> None:
    class Two(Group):
        def gather(self, value: object) -> list[object]:
            return [value, "no space left"]

    saver = checkpoint.Saver(
        Two(World(0, 2, 0, 2), torch.device("cpu")), None, None, str(tmp_path), Checkpoint(), {}, str(tmp_path), {}, last_good,
    )  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(SaveError, match=rf"could not be saved, {said}: rank 1: no space left"):
        saver.check()
    assert saver.flags() == (0, 0)
    saver.close()


def test_a_state_that_is_kept_every_so_often_is_counted_by_steps_and_not_by_checkpoints(tmp_path: Path) -> None:
    run = str(tmp_path)
    for step in (3, 6, 8, 9, 12, 13):
        make(run, step)
    checkpoint.prune(run, Checkpoint(keep_last=1, keep_every_steps=4), 12)
    kept = [s for s in (3, 6, 8, 9, 12, 13) if commit.read_commit(commit.checkpoint_url(run, s)).files]
    assert kept == [8, 12, 13]  # 13 lies beyond the newest: it is left alone
