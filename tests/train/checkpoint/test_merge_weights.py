"""All weights, put together from the ranks' parts. Of real engines: test_deepspeed_engine.py."""

from pathlib import Path

import pytest
import safetensors.torch
import torch

from retfound_dist.errors import CheckpointError, StorageError
from retfound_dist.formats import checkpoint_folder
from retfound_dist.io import storage
from retfound_dist.train.checkpoint.merge_weights import (
    group_shapes,
    merge,
    part_name,
    rank_weights,
    write_merged_weights,
)

SHAPES = [{"a": (3, 4), "b": (5,)}, {"c": (2, 3)}]
NAMES = {name: shape for group in SHAPES for name, shape in group.items()}


def weights() -> dict[str, torch.Tensor]:
    draw = torch.Generator().manual_seed(0)
    return {name: torch.randn(shape, generator=draw) for name, shape in NAMES.items()}


def end_to_end(ranks: int) -> list[dict[str, torch.Tensor]]:
    """As stages 1 and 2 hold them: each group flat, padded, cut."""
    parts: list[dict[str, torch.Tensor]] = [{} for _ in range(ranks)]
    for number, group in enumerate(SHAPES):
        flat = torch.cat([weights()[name].flatten() for name in group])
        flat = torch.cat([flat, torch.zeros(-len(flat) % (2 * ranks))])
        for rank, piece in enumerate(flat.chunk(ranks)):
            parts[rank][str(number)] = piece
    return parts


def tensor_by_tensor(ranks: int) -> list[dict[str, torch.Tensor]]:
    """As stage 3 holds them: each tensor flat, padded, cut."""
    pieces: list[list[torch.Tensor]] = [[] for _ in range(ranks)]
    for value in weights().values():
        flat = torch.cat([value.flatten(), torch.zeros(-value.numel() % ranks)])
        for rank, piece in enumerate(flat.chunk(ranks)):
            pieces[rank].append(piece)
    return [{"all": torch.cat(each)} for each in pieces]


@pytest.mark.parametrize("ranks", [1, 2, 3, 7])
@pytest.mark.parametrize("hold", [end_to_end, tensor_by_tensor])
def test_parts_make_the_weights_again(ranks: int, hold: object) -> None:
    found = merge(hold(ranks), SHAPES)  # type: ignore[operator]
    assert list(found) == list(NAMES)
    assert all(torch.equal(found[name], value) for name, value in weights().items())


@pytest.mark.parametrize("hold", [end_to_end, tensor_by_tensor])
def test_parts_of_another_model_are_an_error(hold: object) -> None:
    with pytest.raises(CheckpointError, match="numbers"):
        merge(hold(2), [{**SHAPES[0], "more": (100, 100)}, SHAPES[1]])  # type: ignore[operator]


def test_a_snapshot_gives_this_ranks_part_and_the_names() -> None:
    state = {
        "model_states.pt": {"param_shapes": [{"a": torch.Size((3, 4))}], "module": {}},
        "optim_states.pt": {"optimizer_state_dict": {"single_partition_of_fp32_groups": [torch.arange(6.0)]}},
    }
    assert group_shapes(state) == [{"a": (3, 4)}]
    assert torch.equal(rank_weights(state)["0"], torch.arange(6.0))


def test_the_file_is_made_at_the_checkpoints_url_and_a_rotten_part_is_refused(tmp_path: Path) -> None:
    url, infos = "memory://weights/checkpoint", []
    for rank, part in enumerate(end_to_end(2)):
        safetensors.torch.save_file(part, tmp_path / "p")
        storage.put_file(
            str(tmp_path / "p"), storage.join(url, checkpoint_folder.name_with_mark(part_name(rank), "a1"))
        )
        infos.append(storage.file_info(str(tmp_path / "p")))
    fixed = tmp_path / "fixed"
    safetensors.torch.save_file({"pos_embed": torch.ones(4)}, fixed)
    written = write_merged_weights(url, "a1", infos, SHAPES, str(fixed), str(tmp_path))
    storage.get_file(storage.join(url, checkpoint_folder.WEIGHTS), str(tmp_path / "model"))
    assert written == {checkpoint_folder.WEIGHTS: storage.file_info(str(tmp_path / "model"))}
    found = safetensors.torch.load_file(tmp_path / "model")
    assert set(found) == {*NAMES, "pos_embed"}
    assert all(torch.equal(found[name], value) for name, value in weights().items())
    storage.write_bytes(storage.join(url, checkpoint_folder.name_with_mark(part_name(1), "a1")), b"rotten")
    with pytest.raises(StorageError, match="rank 1"):
        write_merged_weights(url, "a1", infos, SHAPES, str(fixed), str(tmp_path))
