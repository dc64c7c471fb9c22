from __future__ import annotations

import pytest
import timm
import torch

from retfound_dist.model.weights.timm_families import architecture, trained_size


def state(name: str) -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return dict(timm.create_model(name, num_classes=0).state_dict())


@pytest.mark.parametrize(
    "name",
    [
        "vit_small_patch14_reg4_dinov2", "vit_base_patch14_reg4_dinov2", "vit_large_patch14_reg4_dinov2",
        "vit_small_patch16_dinov3", "vit_base_patch16_dinov3", "vit_large_patch16_dinov3",
    ],
)  # fmt: skip
def test_a_family_is_known_by_its_tensors_under_both_names(name: str) -> None:
    tensors = state(name)
    assert architecture(tensors) == name
    published = "storage_tokens" if "dinov3" in name else "register_tokens"
    tensors[published] = tensors.pop("reg_token")
    assert architecture(tensors) == name


@pytest.mark.parametrize(
    "name", ["vit_small_patch16_224", "vit_small_patch14_dinov2", "convnext_atto", "resnet18"]
)
def test_other_networks_are_not_taken_for_one_of_them(name: str) -> None:
    assert architecture(state(name)) == ""


@pytest.mark.parametrize(("positions", "size"), [(784, 392), (1369, 518), (1370, 518), (17, 56)])
def test_positions_say_the_size_that_a_file_was_trained_for(positions: int, size: int) -> None:
    patch = torch.zeros(8, 3, 14, 14)
    assert trained_size({"patch_embed.proj.weight": patch, "pos_embed": torch.zeros(1, positions, 8)}) == size
    assert trained_size({"patch_embed.proj.weight": patch}) is None
