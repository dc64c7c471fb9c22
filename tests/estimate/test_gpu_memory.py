"""Memory predicted from shapes, held against what PyTorch keeps."""

import pytest
import torch

from retfound_dist.config.schema import Model
from retfound_dist.estimate.gpu_memory import activation_bytes, largest_micro_batch, peak_memory, state_bytes
from retfound_dist.model.mae import MaskedAutoencoder

SMALL = Model(name="vit_demo_patch14", image_size=112, decoder_width=96, decoder_depth=2, decoder_heads=3)


@pytest.mark.parametrize("recompute", [False, True])
def test_activations_are_those_that_pytorch_keeps(recompute: bool) -> None:
    """Without checkpointing; with it, PyTorch's count leaves out the one block that is computed again."""
    model = MaskedAutoencoder(SMALL, recompute)
    one, two = (kept_bytes(model, n) for n in (1, 2))
    predicted = activation_bytes(SMALL, "fp32", recompute)
    if recompute:
        assert two - one < predicted < 4 * (two - one)
    else:
        assert predicted == pytest.approx(two - one, rel=0.1)


def kept_bytes(model: MaskedAutoencoder, count: int) -> int:
    """Bytes that a forward pass of so many images keeps for the backward pass, weights left out."""
    own = {parameter.untyped_storage().data_ptr() for parameter in model.parameters()}
    kept: dict[int, int] = {}

    def keep(value: torch.Tensor) -> torch.Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return value

    def keep_input(_: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        keep(inputs[0])  # all that is kept of a block that is computed again

    blocks = [m for parent in model.modules() if isinstance(parent, torch.nn.ModuleList) for m in parent]
    for block in blocks:
        block.register_forward_pre_hook(keep_input)
    images = torch.zeros(count, 1, *model.config.size, dtype=torch.uint8)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda value: value):
        loss = model(images, torch.rand(count, model.patches)).sum()
    del loss
    return sum(kept.values())


def test_state_of_zero_is_the_papers() -> None:
    """16 bytes a parameter, but gradients in fp32, of which stages 1, 2 and 3 share more and more."""
    assert sum(state_bytes(1, 1, 1, "bf16")) == 2 + 4 + 12
    shared = [sum(state_bytes(1, 4, stage, "bf16")) for stage in (1, 2, 3)]
    assert shared == [2 + 4 + 3, 2 + 1 + 3, 0.5 + 1 + 3]


def test_more_ranks_and_higher_stages_never_take_more() -> None:
    for stage in (1, 2, 3):
        found = [
            peak_memory(Model(), ranks=n, zero_stage=stage, micro_batch=64).total for n in (2, 3, 5, 224)
        ]
        assert found == sorted(found, reverse=True)


def test_the_largest_micro_batch_fits_and_one_more_does_not() -> None:
    most = largest_micro_batch(Model(), 24e9, ranks=1, zero_stage=1)
    one, more = (
        peak_memory(Model(), ranks=1, zero_stage=1, micro_batch=n, passes=2).total for n in (most, most + 1)
    )
    assert one <= 24e9 < more


def test_recomputing_holds_more() -> None:
    plain, again = (
        largest_micro_batch(Model(), 40e9, ranks=1, zero_stage=1, activation_checkpointing=each)
        for each in (False, True)
    )
    assert again > 2 * plain


def test_a_state_that_memory_does_not_hold_leaves_no_image() -> None:
    assert largest_micro_batch(Model(name="vit_huge_patch14"), 8e9, ranks=1, zero_stage=1) == 0
