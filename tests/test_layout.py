"""Layouts of tokens: what follows from a tokenizer's grids, by hand."""

import numpy as np
import pytest

from t2i_jax.models import dvae, patch_vqvae, vqvae
from t2i_jax.nn import layout
from t2i_jax.nn.layout import Grid

COARSE_TO_FINE = (Grid("top", 1, 2, 1, 0, 3), Grid("bottom", 2, 4, 2, 3, 4))


def test_counts_by_hand():
    assert layout.num_tokens(COARSE_TO_FINE) == 2 + 16
    assert layout.codebook_size(COARSE_TO_FINE) == 7


def test_valid_ids_are_those_of_the_grid():
    valid = layout.valid_ids(COARSE_TO_FINE)
    assert valid.shape == (18, 7)
    assert valid[:2].tolist() == [[True] * 3 + [False] * 4] * 2
    assert valid[2:].tolist() == [[False] * 3 + [True] * 4] * 16


def test_features_of_one_grid_are_rows_and_columns():
    features = layout.position_features((Grid("code", 4, 4, 1, 0, 9),))
    alike = (features @ features.T)[5].reshape(4, 4)  # row 1, column 1
    np.testing.assert_array_equal(alike, [[0, 1, 0, 0], [1, 2, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0]])


def test_features_of_several_grids_are_what_their_tokens_cover():
    """16 pixels, blocks of 8, patches of 4, depth 2: 4 hues, 4 gains, 16 x 2 shapes."""
    model = patch_vqvae.Model(codebook_size=36, image_size=16, hues=7, gains=5, block=8, patch=4, residual_depth=2)
    features = layout.position_features(model.layout)
    assert len(features) == model.num_tokens == 40
    alike = features[:, :16] @ features[:, :16].T
    np.testing.assert_allclose(np.diag(alike), 1)
    np.testing.assert_allclose(alike[:4, 4:8], np.eye(4))  # a block's hue and its gains
    shapes = alike[1, 8:].reshape(4, 4, 2)  # the block at the top right, and all patches
    np.testing.assert_allclose(shapes[:2, 2:], 0.5)
    assert shapes.sum() == pytest.approx(0.5 * 8)
    kinds = features[:, 16:]
    assert kinds.sum(0).tolist() == [4, 4, 32]
    assert (kinds.sum(1) == 1).all()


def test_grids_that_do_not_fit_each_other():
    with pytest.raises(ValueError, match="grid top of 2 x 2 does not divide 3 x 3"):
        layout.position_features((Grid("top", 2, 2, 1, 0, 3), Grid("bottom", 3, 3, 1, 3, 4)))


@pytest.mark.parametrize(
    ("model", "counts", "size"),
    [
        (patch_vqvae.Model(codebook_size=2048, image_size=32), {"hue": 4, "gain": 4, "shape": 16}, 2048),
        (vqvae.Model(codebook_size=512, image_size=32), {"code": 64}, 512),
        (dvae.Model(), {"code": 1024}, 8192),
    ],
)
def test_every_tokenizer_has_a_layout(model, counts, size):
    assert {grid.name: grid.num_tokens for grid in model.layout} == counts
    assert layout.num_tokens(model.layout) == model.num_tokens
    assert layout.codebook_size(model.layout) == model.codebook_size == size
    valid = layout.valid_ids(model.layout)
    assert valid.shape == (model.num_tokens, size)
    assert valid.any(0).all()  # every id may stand somewhere
    assert valid.any(1).all()
