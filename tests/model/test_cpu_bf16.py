import pytest
import torch
from torch import nn

from retfound_dist.config.schema import Model
from retfound_dist.model import cpu_bf16
from retfound_dist.model.cpu_bf16 import WideLinear, choose_cpu_operators, linear, widen_linears
from retfound_dist.model.mae import MaskedAutoencoder


def test_wide_product_is_the_fp32_product_rounded_once() -> None:
    x, w, b = (torch.randn(*shape).bfloat16() for shape in ((5, 64), (7, 64), (7,)))
    expected = nn.functional.linear(x.double(), w.double(), b.double())
    assert linear(x, w, b).dtype == torch.bfloat16
    torch.testing.assert_close(linear(x, w, b).double(), expected, rtol=2**-8, atol=1e-6)


def test_widening_keeps_names_and_values_and_fp32_results() -> None:
    model = nn.Sequential(nn.Linear(8, 4), nn.GELU(), nn.Linear(4, 2))
    names, x = list(model.state_dict()), torch.randn(3, 8)
    before = model(x)
    widen_linears(model)
    assert all(isinstance(m, WideLinear) for m in model if isinstance(m, nn.Linear))
    assert list(model.state_dict()) == names
    assert torch.equal(model(x), before)


@pytest.mark.parametrize(
    ("instructions", "precision", "wide", "flash"),
    [(True, "bf16", False, False), (True, "fp32", False, True), (False, "bf16", True, True)],
)
def test_what_is_fast_on_a_processor_is_chosen_and_computes_the_same(
    instructions: bool, precision: str, wide: bool, flash: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu_bf16, "has_bf16_instructions", lambda: instructions)
    config = Model(name="vit_demo_patch14", image_size=28, decoder_width=32, decoder_depth=1, decoder_heads=2)
    model = MaskedAutoencoder(config).eval()
    given = torch.randint(0, 256, (2, 1, 28, 28), dtype=torch.uint8), torch.rand(2, 4)
    before = model(*given)
    choose_cpu_operators(model, precision)  # type: ignore[arg-type]
    blocks = [*model.blocks, *model.decoder_blocks]
    assert {isinstance(block.attn.qkv, WideLinear) for block in blocks} == {wide}
    assert {block.attn.fused_attn for block in blocks} == {flash}
    torch.testing.assert_close(model(*given), before)
