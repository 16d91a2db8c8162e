"""Numbers that are not finite are found and named; data that say nothing do not make any."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from fakes import fake_batch

from t2i_jax import runs, tasks
from t2i_jax.errors import UserError
from t2i_jax.loop import setup
from t2i_jax.loop.metrics import Metrics, check_finite
from t2i_jax.loop.state import State
from t2i_jax.nn import codebooks


def test_the_first_step_that_is_not_finite_is_named(tmp_path, record_fault):
    hypothesis = pytest.importorskip("hypothesis")
    st = hypothesis.strategies
    numbers = st.floats(width=32)

    @hypothesis.given(st.lists(st.tuples(numbers, numbers), min_size=1, max_size=8))
    def check(rows):
        record_fault("losses that are not finite", "tried")
        bad = [k for k, row in enumerate(rows) if not all(map(math.isfinite, row))]
        metrics = Metrics(tmp_path, 0)
        for k, (loss, norm) in enumerate(rows):
            metrics.push(k, {"loss": np.float32(loss), "gradient_norm": np.float32(norm)})
        if not bad:
            metrics.flush(None)
            record_fault("losses that are not finite", "survived")
            return
        with pytest.raises(
            UserError, match=f" at step {bad[0]}; last good checkpoint: step 3; lower config.optim.lr"
        ):
            metrics.flush(3)
        record_fault("losses that are not finite", "refused")

    check()


@pytest.mark.parametrize("part", ["params", "opt_state", "variables", "ema_params"])
@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_state_that_is_not_finite_is_not_saved(part, value):
    trees = {name: {"a": jnp.ones(2)} for name in ("params", "opt_state", "variables", "ema_params")}
    state = State(step=jnp.int32(7), **trees)
    check_finite(state, None)
    broken = state.replace(**{part: {"a": jnp.array([0, value]), "count": jnp.int32(3)}})
    with pytest.raises(UserError, match="are not finite after step 7; no checkpoint yet; lower"):
        check_finite(broken, None)


def test_an_update_that_overflows_after_a_finite_loss_leaves_what_was_good(command, data_dir, tmp_path):
    argv = ["--config=patch_vqvae:smoke", f"--workdir={tmp_path}", f"--config.data.data_dir={data_dir}"]
    huge = ["--config.optim.lr=1e30", "--config.optim.weight_decay=1e30", "--config.optim.schedule=constant"]
    code, lines = command(*argv, *huge)
    assert code == 2
    assert "are not finite after step 1; no checkpoint yet; lower config.optim.lr" in lines[-1]
    assert not (tmp_path / runs.WEIGHTS).exists()
    assert runs.checkpoint_steps(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "changes"),
    [
        ("vqvae", {"codebook_size": 1}),
        ("patch_vqvae", {}),
        pytest.param("vae", {}, marks=pytest.mark.long),
        pytest.param("dvae", {}, marks=pytest.mark.long),
    ],
)
def test_pictures_that_are_all_alike_train(smoke_config, name, changes):
    config = smoke_config(name)
    config.model.update(changes)
    built = setup.Setup(tasks.make(config.lock()))
    state = built.init()
    for level in (0.0, 1.0):
        batch = jax.tree.map(lambda x: np.full_like(x, level), fake_batch(built.task, config.batch_size))  # noqa: B023
        state, metrics = built.step(state, batch)
        assert all(np.isfinite(value).all() for value in metrics.values()), metrics
    check_finite(state, None)


@pytest.mark.parametrize("count", [1, 4])
def test_kmeans_of_features_that_are_all_alike(count):
    codes, shares, _ = codebooks.kmeans(jnp.full((16, 3), 2.0), count, jax.random.key(0), 3)
    assert np.isfinite(codes).all()
    assert np.isfinite(shares).all()
    np.testing.assert_allclose(codes[np.argmax(shares)], 2.0)
