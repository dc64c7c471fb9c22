"""Computes fixed 2-D sine-cosine positions, and resamples positions to another grid."""

from __future__ import annotations

import torch
from torch import Tensor


def sincos_positions(width: int, grid: tuple[int, int]) -> Tensor:
    """(1, 1 + L, width) in fp32: zeros for the class token, then the grid in reading order.

    As in MAE: the first half of the channels encodes the column, the second the row. Each half is
    sines, then cosines, at frequencies 1 / 10000^(2 i / (width / 2)). Source: MAE, appendix A.1;
    Vaswani et al. 2017.
    """
    # float64, rounded once at the end, as in MAE's numpy code.
    rows, columns = torch.meshgrid(
        torch.arange(grid[0], dtype=torch.float64), torch.arange(grid[1], dtype=torch.float64), indexing="ij"
    )
    table = torch.cat([_sincos(width // 2, columns.flatten()), _sincos(width // 2, rows.flatten())], dim=1)
    return torch.cat([table.new_zeros(1, width), table])[None].float()


def _sincos(width: int, positions: Tensor) -> Tensor:
    exponent = torch.arange(width // 2, dtype=torch.float64) / (width / 2)
    angles = positions[:, None] / (10000.0**exponent)[None]
    return torch.cat([angles.sin(), angles.cos()], dim=1)


def resample_positions(pos_embed: Tensor, source_grid: tuple[int, int], grid: tuple[int, int]) -> Tensor:
    """(1, P + L, D) from `source_grid` to another grid, bicubic; the positions of P class tokens stay."""
    if source_grid == grid:
        return pos_embed
    prefixes = pos_embed.shape[1] - source_grid[0] * source_grid[1]
    prefix, table = pos_embed[:, :prefixes], pos_embed[:, prefixes:]
    # Resampled, not computed again: positions of other models may have been trained.
    square = table.reshape(1, *source_grid, -1).permute(0, 3, 1, 2).float()
    resized = torch.nn.functional.interpolate(square, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([prefix, resized.permute(0, 2, 3, 1).flatten(1, 2).to(table.dtype)], dim=1)
