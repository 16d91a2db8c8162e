"""Code noise: the model is given ids of which some are another picture's, and is asked for the true ones."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax import tasks
from t2i_jax.config import load_config
from t2i_jax.tasks import tokens

IDS = np.random.default_rng(0).integers(0, 64, 24).astype(np.int32)
OTHERS = [{"ids": 64 * (1 + picture) + IDS} for picture in range(9)]  # no code is in two pictures


class Reader:
    """Reads every caption as one word."""

    def encode(self, captions):
        return np.ones((len(captions), 3), np.int32), np.ones((len(captions), 3), bool), []


def arrays_of(name, noise):
    config = load_config(f"{name}:smoke")
    config.data.code_noise = noise
    task = tasks.make(config)
    task.reader, task.others = Reader(), OTHERS
    rng = np.random.default_rng(1)
    rows = [task.transform({"ids": IDS, "captions": ["a red one"]}, rng) for _ in range(50)]
    assert rows[0].keys() == task.batch_spec(1).keys()
    return {key: np.stack([row[key] for row in rows]) for key in rows[0]}


@pytest.mark.parametrize("name", ["translator", "dalle"])
@pytest.mark.parametrize(("noise", "least", "most"), [(0.0, 0.0, 0.0), (0.3, 0.25, 0.35), (1.0, 1.0, 1.0)])
def test_a_fraction_of_the_given_ids_is_that_of_one_other_picture(name, noise, least, most):
    arrays = arrays_of(name, noise)
    np.testing.assert_array_equal(arrays["ids"], np.tile(IDS, (50, 1)))
    given = arrays["given_ids"]
    assert least <= np.mean(given != IDS) <= most
    pictures = [set((row // 64)[row != IDS]) for row in given]
    assert all(len(picture) <= 1 for picture in pictures)
    assert not noise or set.union(*pictures) == set(range(1, 10))  # each of the nine is drawn
    np.testing.assert_array_equal(given % 64, np.tile(IDS, (50, 1)))  # position by position


def test_whose_caption_is_dropped_does_not_depend_on_the_noise():
    np.testing.assert_array_equal(arrays_of("translator", 0.0)["null"], arrays_of("translator", 0.7)["null"])


def test_the_loss_gives_the_noisy_ids_and_asks_for_the_true_ones():
    class Model:
        """Believes what it is given, twice as likely as anything else."""

        codebook_size = 3

        def apply(self, variables, *inputs, method, **_):
            return getattr(self, method)(*inputs)

        def states(self, text_ids, text_mask, ids, null):
            return jax.nn.one_hot(ids, 3)

        def logits(self, states):
            return jnp.log(1.0 + states)

    batch = {"ids": jnp.array([[0, 1, 2]]), "given_ids": jnp.array([[0, 2, 2]]), "null": jnp.array([False])}
    batch |= {"text_ids": jnp.zeros((1, 2), int), "text_mask": jnp.ones((1, 2), bool)}
    rest = {"step": 0, "rngs": {}, "train": True}
    loss, (_, metrics) = tokens.loss_fn(Model(), {}, {}, batch, **rest)
    assert metrics["accuracy"] == pytest.approx(2 / 3)
    assert loss == pytest.approx(-(2 * np.log(2 / 4) + np.log(1 / 4)) / 3, rel=1e-6)
