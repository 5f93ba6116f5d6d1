"""The nearest centre of each point, certainly."""

import torch
from jaxtyping import Float32, Float64, Int64
from torch import Tensor

from cgan_core.distances import half_square_tiles, wide_accumulation
from cgan_core.screen import Screen


@torch.no_grad()
def nearest(
    points: Float32[Tensor, "points dim"], centers: Float32[Tensor, "centers dim"]
) -> tuple[Float64[Tensor, " points"], Int64[Tensor, " points"]]:
    """Half the squared Euclidean distance |x - s|^2 / 2 of the nearest centre, and its row."""
    half_squares = torch.empty(len(points), dtype=torch.float64, device=points.device)
    rows = torch.empty(len(points), dtype=torch.int64, device=points.device)
    crowded = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    screen = Screen(centers)
    out = screen.buffer(min(screen.rows_per_tile, len(points)))
    with wide_accumulation(points.device):
        for start in range(0, len(points), screen.rows_per_tile):
            block = slice(start, start + screen.rows_per_tile)
            near = screen.near(points[block], screen.scores(points[block], out), 0.0)
            half_squares[block], found = near.half_squares.min(1)
            rows[block] = near.centers.gather(1, found[:, None])[:, 0]
            crowded[block] = near.crowded
        left = crowded.nonzero()[:, 0]
        for block, tile in half_square_tiles(points[left], centers):
            half_squares[left[block]], rows[left[block]] = tile.min(1)
    return half_squares, rows
