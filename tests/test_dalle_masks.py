"""Which tokens each kind of attention may read in a grid, by enumeration, and what it does read, by gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from dalles import KINDS, D, H, N, S, W, batch, build

from t2i_jax.models.dalle import attention_mask, image_mask, paper_attention


def picture(rows):
    return np.array([[sign != "." for sign in row] for row in rows.split()]).reshape(-1)


@pytest.mark.parametrize(
    ("kind", "at", "seen"),
    [
        ("full", 12, "xxxxx xxxxx xx... ....."),
        ("row", 12, "..... ..xxx xx... ....."),  # the token straight above is the furthest
        ("row", 15, "..... ..... xxxxx ....."),
        ("row", 3, "xxx.. ..... ..... ....."),
        ("column", 12, "..x.. ..x.. .x... ....."),  # those straight above, and the one just written
        ("column", 15, "x.... x.... x...x ....."),
        ("conv", 12, "..... .xxx. .x... ....."),
        ("conv", 15, "..... ....x xx..x ....."),  # wraps around the left edge
        ("conv", 14, "..... ...xx x..x. ....."),  # and the right one
        ("conv", 0, "..... ..... ..... ....."),
    ],
)
def test_which_tokens_are_read_to_predict_one_of_a_4_by_5_grid(kind, at, seen):
    assert tokens_read(kind, (4, 5), 3, at).tolist() == picture(seen).tolist()


def tokens_read(kind, grid, kernel, at):
    """By token, whether it is read where token `at` is predicted: token m is the input of position m + 1."""
    return np.append(image_mask(kind, grid, kernel)[at, 1:], False)


def test_a_larger_kernel():
    seen = picture("xxxxx.. xxxxx.. xx..... .......")
    assert tokens_read("conv", (4, 7), 5, 16).tolist() == seen.tolist()
    np.testing.assert_array_equal(image_mask("conv", (4, 7), 1), np.eye(28, dtype=bool))


@pytest.mark.parametrize("kind", KINDS)
def test_the_whole_sequence_is_causal_and_pictures_read_all_text(kind):
    mask = attention_mask(kind, S, (H, W), 3)
    assert not np.triu(mask, 1).any()
    assert mask.diagonal().all()
    assert mask[S:, :S].all()
    np.testing.assert_array_equal(mask[:S, :S], np.tril(np.ones((S, S))))
    np.testing.assert_array_equal(mask[S:, S:], image_mask(kind, (H, W), 3))


def test_layers_are_ordered_as_in_the_paper():
    """Column where (i - 2) mod 4 = 0, counting from 1; conv in the last; row otherwise."""
    kinds = paper_attention(64)
    assert kinds[:4] == ("row", "column", "row", "row")
    assert [i for i, kind in enumerate(kinds, 1) if kind == "column"] == list(range(2, 64, 4))
    assert [i for i, kind in enumerate(kinds, 1) if kind == "conv"] == [64]
    assert paper_attention(1) == ("conv",)


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_gradients_flow_where_the_mask_allows_and_nowhere_else(kind):
    """Of one layer: every position's output, by what every position takes in."""
    model = build(attention=(kind,))
    params = model.init(jax.random.key(0), *batch(1))["params"]
    rng = np.random.default_rng(0)
    x = jnp.array(rng.normal(size=(S + N, D)), jnp.float32)
    mask = jnp.array(attention_mask(kind, S, (H, W), 3)[None, None])

    def states(x):
        out, _ = model.apply({"params": params}, x[None], method=lambda model, x: model.decoder(x, mask))
        return jnp.sin(out[0]).sum(-1)

    influence = jnp.abs(jax.jit(jax.jacobian(states))(x)).sum(-1)
    seen = np.array(mask[0, 0])
    assert (influence[seen] > 1e-4).all()
    assert (influence[~seen] == 0).all()
