import math

import torch

from retfound_dist.model.positions import resample_positions, sincos_positions


def test_positions_follow_the_formula() -> None:
    table = sincos_positions(8, (2, 3))[0]
    assert table.shape == (7, 8)
    assert torch.equal(table[0], torch.zeros(8))
    row, column = 1, 2
    expected = [math.sin(column), math.sin(column / 100), math.cos(column), math.cos(column / 100)]
    expected += [math.sin(row), math.sin(row / 100), math.cos(row), math.cos(row / 100)]
    torch.testing.assert_close(table[1 + row * 3 + column], torch.tensor(expected))


def test_resampling_keeps_the_class_token_and_the_same_grid_is_untouched() -> None:
    table = torch.randn(1, 17, 8)
    assert resample_positions(table, (4, 4), (4, 4)) is table
    larger = resample_positions(table, (4, 4), (6, 8))
    assert larger.shape == (1, 49, 8)
    assert torch.equal(larger[:, 0], table[:, 0])
