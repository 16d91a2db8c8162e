"""Where a tokenizer's tokens stand: grids, coarse to fine, and what follows from them."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from t2i_jax.ranges import sides


class Grid(NamedTuple):
    """One grid of tokens that share a codebook.

    Attributes:
      name: of the codebook.
      height, width: h and w, in token positions, row by row.
      residual_depth: tokens at a position, side by side, each refining the ones before it.
      first_id: the codebook's first id among all ids.
      size: ids of the codebook.
    """

    name: str
    height: int
    width: int
    residual_depth: int
    first_id: int
    size: int

    @property
    def num_tokens(self) -> int:
        """Tokens of this grid in an image."""
        return self.height * self.width * self.residual_depth


def positions(image_size: int | Sequence[int], pixels: int) -> tuple[int, int]:
    """Rows and columns of a grid of which each position stands for `pixels` pixels a side.

    Args:
      image_size: of the picture, its side or height and width.
      pixels: above 0.

    Raises:
      ValueError: they do not divide a side.
    """
    height, width = sides(image_size)
    if height % pixels or width % pixels:
        raise ValueError(
            f"image_size {image_size} is not divisible by {pixels}; give multiples of {pixels} as"
            " config.data.image_size"
        )
    return height // pixels, width // pixels


def num_tokens(layout: Sequence[Grid]) -> int:
    """N, tokens an image."""
    return sum(grid.num_tokens for grid in layout)


def codebook_size(layout: Sequence[Grid]) -> int:
    """K, ids of all codebooks."""
    return max(grid.first_id + grid.size for grid in layout)


def valid_ids(layout: Sequence[Grid]) -> Bool[np.ndarray, "N K"]:
    """Which ids may stand at each position: those of its grid's codebook."""
    ids = np.arange(codebook_size(layout))
    rows = [(grid.first_id <= ids) & (ids < grid.first_id + grid.size) for grid in layout]
    return np.repeat(rows, [grid.num_tokens for grid in layout], axis=0)


def cells(layout: Sequence[Grid], height: int, width: int) -> list[tuple[int, int, int, int]]:
    """Where each of N tokens stands in `height` x `width` pixels: y0, x0, y1, x1 (the last two outside)."""
    return [
        (
            height * row // grid.height,
            width * column // grid.width,
            height * (row + 1) // grid.height,
            width * (column + 1) // grid.width,
        )
        for grid in layout
        for row in range(grid.height)
        for column in range(grid.width)
        for _ in range(grid.residual_depth)
    ]


def position_features(layout: Sequence[Grid]) -> Float[np.ndarray, "N F"]:
    """Where each token stands; rows that are alike stand for positions near each other.

    Of one grid without depth: its row and its column, one-hot. Of more: the positions of the finest grid that it
    covers, as a vector of length 1, and its grid, one-hot.

    Raises:
      ValueError: a grid whose positions do not divide those of the finest.
    """
    if len(layout) == 1 and layout[0].residual_depth == 1:
        height, width = layout[0].height, layout[0].width
        rows, columns = np.divmod(np.arange(height * width), width)
        return np.concatenate([np.eye(height)[rows], np.eye(width)[columns]], 1)
    height, width = max((grid.height, grid.width) for grid in layout)
    covered = []
    for grid in layout:
        if height % grid.height or width % grid.width:
            raise ValueError(
                f"grid {grid.name} of {grid.height} x {grid.width} does not divide {height} x {width};"
                " change either"
            )
        down, right = height // grid.height, width // grid.width
        rows = np.kron(np.eye(grid.height), np.ones((1, down)))
        columns = np.kron(np.eye(grid.width), np.ones((1, right)))
        area = np.kron(rows, columns) / np.sqrt(down * right)
        covered.append(area.repeat(grid.residual_depth, axis=0))
    kinds = np.eye(len(layout)).repeat([grid.num_tokens for grid in layout], axis=0)
    return np.concatenate([np.concatenate(covered), kinds], axis=1)
