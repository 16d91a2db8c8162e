import numpy as np
import pytest

from t2i_jax.pictures import GAP, INK, MARGIN, labelled_grid, picture_grid, plain_grid


def dark(pixels):
    """Where ink is: the captions' colour, on white paper."""
    return (np.abs(pixels.astype(int) - INK) <= 8).all(-1)


def test_picture_grid_reads_left_to_right_then_down():
    images = np.arange(1, 6, dtype=np.uint8)[:, None, None, None] * np.ones((5, 1, 1, 3), np.uint8)
    assert picture_grid(images, 3)[..., 0].tolist() == [[1, 2, 3], [4, 5, 0]]
    assert picture_grid(images[:2], 4, gap=1, paper=(9, 8, 7))[..., 0].tolist() == [[1, 9, 2]]


def test_labelled_grid_enlarges_by_a_whole_factor_and_writes_under_the_picture():
    image = np.random.default_rng(0).integers(60, 250, (32, 32, 3), np.uint8)
    grid = np.asarray(labelled_grid(image[None, None], ["one red seven"]))
    enlarged = image.repeat(3, 0).repeat(3, 1)
    assert np.array_equal(grid[MARGIN : MARGIN + 96, MARGIN : MARGIN + 96], enlarged)
    below = grid[MARGIN + 96 :]
    assert dark(below).sum() > 50
    blank = np.asarray(labelled_grid(image[None, None], [""]))
    assert not dark(blank[MARGIN + 96 :]).any()


def test_every_picture_is_in_the_grid_and_long_captions_grow_it():
    levels = np.arange(60, 74, dtype=np.uint8)
    images = np.broadcast_to(levels.reshape(7, 2, 1, 1, 1), (7, 2, 100, 120, 3)).copy()
    short = np.asarray(labelled_grid(images, ["a red seven"] * 7))
    long = np.asarray(labelled_grid(images, ["a red seven left of " * 4 + "x" * 90] * 7))
    for grid in (short, long):
        flat = grid.reshape(-1, 3)
        counts = [(flat == level).all(1).sum() for level in levels]
        assert min(counts) >= 100 * 120
        assert (grid[:, :MARGIN] == 255).all()  # nothing is cut off or runs over the edge
        assert (grid[:, -MARGIN:] == 255).all()
    assert long.shape[0] > short.shape[0]


def test_a_grid_has_as_many_columns_as_it_is_told():
    images = np.zeros((16, 1, 96, 96, 3), np.uint8)
    wide, square = (labelled_grid(images, ["a"] * 16, columns).size for columns in (None, 4))
    assert square[0] == MARGIN + 4 * (96 + MARGIN)
    assert square[0] < wide[0]


def test_captions_and_pictures_must_agree():
    with pytest.raises(ValueError, match="1 captions"):
        labelled_grid(np.zeros((2, 1, 4, 4, 3), np.uint8), ["only one"])


def test_grey_pictures_make_grids_of_three_equal_channels():
    grey = np.random.default_rng(0).integers(60, 250, (5, 28, 20, 1), np.uint8)
    colour = grey.repeat(3, -1)
    np.testing.assert_array_equal(picture_grid(grey, 3, gap=2), picture_grid(colour, 3, gap=2))
    labelled = (labelled_grid(images[None], ["a seven"]) for images in (grey, colour))
    np.testing.assert_array_equal(*map(np.asarray, labelled))


def test_plain_grid_holds_every_picture_enlarged():
    images = np.arange(60, 65, dtype=np.uint8)[:, None, None, None] * np.ones((5, 48, 32, 3), np.uint8)
    grid = np.asarray(plain_grid(images))
    assert grid.shape == (2 * 144 + GAP, 3 * 96 + 2 * GAP, 3)
    assert [(grid == level).all(-1).sum() for level in range(60, 65)] == [144 * 96] * 5
    with pytest.raises(ValueError, match="no picture"):
        plain_grid(images[:0])
