"""What ranks decide together."""

import os
from pathlib import Path

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from retfound_dist.runtime.world import World
from retfound_dist.train.ranks.collectives import DelayedFlags, RankGroup


def test_alone_a_vote_is_known_at_the_next_step() -> None:
    flags = DelayedFlags(RankGroup(World(), torch.device("cpu")))
    assert flags.exchange([1, 0]) == [0, 0]
    assert flags.exchange([0, 3]) == [1, 0]
    assert flags.exchange([0, 0]) == [0, 3]
    flags.wait()


def one_rank(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=3)
    group = RankGroup(World(rank, 3, rank), torch.device("cpu"), dist.new_group(backend="gloo"))
    flags, sums = DelayedFlags(group), []
    for step in range(5):
        sums.append(flags.exchange([int(rank == 1 and step == 2), rank]))
        group.sum(torch.ones(1))  # what the step itself sends does not mix with it
    flags.wait()
    text = f"{sums} {group.gather(rank * 10)} {group.broadcast(rank + 5)}"
    Path(folder, str(rank)).write_text(text)
    dist.destroy_process_group()


def test_all_ranks_know_the_same_at_the_same_step(tmp_path: Path) -> None:
    mp.start_processes(one_rank, (str(tmp_path),), nprocs=3, start_method="spawn")
    expected = "[[0, 0], [0, 3], [0, 3], [1, 3], [0, 3]] [0, 10, 20] 5"
    assert [(tmp_path / str(rank)).read_text() for rank in range(3)] == [expected] * 3
    assert "RANK" not in os.environ
