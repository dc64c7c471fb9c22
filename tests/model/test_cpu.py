import torch
from torch import nn

from retfound_dist.model.cpu import WideLinear, linear, widen_linears


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
