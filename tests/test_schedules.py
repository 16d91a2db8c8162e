"""Schedules, against numbers worked out by hand."""

import jax
import numpy as np
import pytest

from t2i_jax import schedules


@pytest.mark.parametrize(("step", "value"), [(0, 0), (1, 1.65), (2, 3.3), (4, 6.6), (5, 6.6), (10**7, 6.6)])
def test_linear(step, value):
    assert float(schedules.linear(step, 0.0, 6.6, 4)) == pytest.approx(value)


@pytest.mark.parametrize(
    ("step", "value"),
    [(0, 1), (2, 0.0625 + 0.9375 * 0.75), (3, 0.53125), (6, 0.0625), (7, 0.0625), (10**7, 0.0625)],
)
def test_cosine(step, value):
    """At a third of the way the cosine of 60 degrees is 1/2, its share 3/4."""
    assert float(schedules.cosine(step, 1.0, 1 / 16, 6)) == pytest.approx(value)


def test_steps_may_be_traced():
    steps = np.arange(5, dtype=np.int32)
    values = jax.jit(jax.vmap(lambda step: schedules.linear(step, 1.0, 3.0, 4)))(steps)
    np.testing.assert_allclose(values, [1, 1.5, 2, 2.5, 3])
