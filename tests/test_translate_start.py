"""What a translator begins with: embeddings that are alike where the tokenizer's codes and positions are."""

import jax
import numpy as np

from t2i_jax import tasks
from t2i_jax.config import load_config

K, N, WIDTH = 30, 12, 512


def started(rows=16):
    rng = np.random.default_rng(0)
    codebook, positions = rng.normal(3, 2, (K, 6)), np.eye(4)[np.arange(N) % 4]
    params = {
        "head": {"kernel": np.zeros((WIDTH, K))},
        "gpt2": {
            "token_embed": {"embedding": jax.numpy.full((K + 1, WIDTH), 7.0)},
            "position_embed": {"embedding": jax.random.normal(jax.random.key(3), (rows, WIDTH)) / 10},
            "ln_f": {"scale": np.ones(3)},
        },
        "bert": "untouched",
    }
    task = tasks.make(load_config("translator:smoke"))
    return codebook, params, task.from_tokenizer(params, codebook, positions, jax.random.key(0))


def cosines(rows):
    rows = np.asarray(rows) / np.linalg.norm(rows, axis=1, keepdims=True)
    return rows @ rows.T


def test_codes_that_are_alike_begin_alike():
    codebook, _, params = started()
    table = params["gpt2"]["token_embed"]["embedding"]
    np.testing.assert_allclose(cosines(table[:K]), cosines(codebook - codebook.mean(0)), atol=0.2)
    assert (table[K] == 7).all()  # BOS has no code
    np.testing.assert_array_equal(params["head"]["kernel"], table[:K].T)


def test_positions_begin_as_what_is_written_there_and_what_was_just_read():
    """Features come in turns of 4: a position is like those 4 and 8 further on, and position 0 has read nothing."""
    _, before, params = started()
    table, fresh = (tree["gpt2"]["position_embed"]["embedding"] for tree in (params, before))
    alike = cosines(table[:N])
    assert alike[1, 5] > 0.99
    assert alike[3, 11] > 0.99
    assert 0.4 < alike[0, 4] < 0.9
    assert abs(alike[1, 2]) < 0.2
    np.testing.assert_allclose(table[:N].std(), fresh.std(), rtol=0.02)
    np.testing.assert_array_equal(table[N:], fresh[N:])


def test_the_rest_stays_as_it_was():
    _, before, params = started()
    assert params["bert"] == "untouched"
    assert params["gpt2"]["ln_f"] is before["gpt2"]["ln_f"]
