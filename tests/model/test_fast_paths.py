"""Every saving of the training benchmark computes what the usual loop computes."""

import pytest
import torch

from benchmarks.train_ladder import Climber, Rung, climb, rgb
from retfound_dist.config.schema import Model

CONFIG = Model(name="vit_demo_patch14", image_size=56, decoder_width=32, decoder_depth=1, decoder_heads=2)
RUNGS = [rung for rung in climb(False, 4) if rung.precision == "fp32" and not rung.compiled]


def losses_and_gradient(rung: Rung) -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(0)
    model = Climber(CONFIG).on(rung).train()
    draw = torch.Generator().manual_seed(1)
    images = torch.randint(0, 256, (4, 1, 56, 56), dtype=torch.uint8, generator=draw)
    losses = model(images if rung.grey else rgb(images), torch.rand(4, 16, generator=draw))
    losses.mean().backward()
    return losses.detach(), torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


@pytest.mark.parametrize("rung", RUNGS[1:], ids=lambda rung: rung.label)
def test_a_saving_changes_neither_loss_nor_gradient(rung: Rung) -> None:
    usual, ours = losses_and_gradient(RUNGS[0]), losses_and_gradient(rung)
    torch.testing.assert_close(ours[0], usual[0], rtol=1e-5, atol=1e-6)
    assert (ours[1] - usual[1]).norm() < 1e-5 * usual[1].norm()


def test_the_last_rung_is_this_projects_model() -> None:
    assert RUNGS[-1].removed_only
    assert RUNGS[-1].gather_first
    assert {rung.zero for rung in climb(False, 4)} == {None, 1}
    assert {rung.zero for rung in climb(True, 4)} == {None, 1}
    assert any(rung.shards for rung in climb(True, 4))
