import pytest
import torch

from retfound_dist.config.schema import Model
from retfound_dist.model.flops import forward_flops, matrix_rate
from retfound_dist.model.mae import MaskedAutoencoder


@pytest.mark.skipif(torch.__version__ < "2.15", reason="an older torch counts no attention on CPUs")
def test_vit_large_costs_what_the_profiler_counts() -> None:
    from torch.utils.flop_counter import FlopCounterMode

    model = MaskedAutoencoder(
        Model(name="vit_demo_patch14", image_size=112, decoder_width=64, decoder_depth=2, decoder_heads=2)
    )
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(1, 1, 112, 112, dtype=torch.uint8), torch.rand(1, 64))
    assert abs(counter.get_total_flops() / forward_flops(model) - 1) < 0.02


def test_vit_large_costs_some_41_gflop_forward() -> None:
    with torch.device("meta"):
        assert 38e9 < forward_flops(MaskedAutoencoder(Model())) < 43e9


def test_matrix_rate_is_a_rate() -> None:
    assert matrix_rate(torch.device("cpu"), torch.float32, size=128) > 1e6
