from pathlib import Path

import pytest
import torch

from retfound_dist.config.schema import Checkpoint
from retfound_dist.errors import SaveError
from retfound_dist.runtime.world import World
from retfound_dist.train.checkpoint import checkpoint_saver, restore
from retfound_dist.train.ranks.collectives import RankGroup
from tests.formats.test_checkpoint_folder import make


def test_only_the_same_ranks_and_stage_load_without_conversion(tmp_path: Path) -> None:
    commit = make(str(tmp_path), 1)
    assert not restore.needs_conversion(commit, 2, 1)
    assert restore.needs_conversion(commit, 3, 1)
    assert restore.needs_conversion(commit, 2, 2)


@pytest.mark.parametrize(
    ("last_committed", "said"), [(0, "there is none yet"), (7, "the last good one is of step 7")]
)
def test_a_save_that_failed_on_another_rank_has_failed_on_this_one_too(
    tmp_path: Path, last_committed: int, said: str
) -> None:
    class Two(RankGroup):
        def gather(self, value: object) -> list[object]:
            return [value, "no space left"]

    saver = checkpoint_saver.Saver(
        Two(World(0, 2, 0, 2), torch.device("cpu")), None, None, str(tmp_path), Checkpoint(), {}, str(tmp_path), {}, last_committed,
    )  # type: ignore[arg-type]  # fmt: skip
    with pytest.raises(SaveError, match=rf"could not be saved, {said}: rank 1: no space left"):
        saver.raise_if_failed()
    assert saver.flags() == (0, 0)
    saver.close()
