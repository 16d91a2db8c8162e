"""Sampling without a run: the page's code as it is written, and what it says of it; jit, vmap and shard_map.

Run as a script on two devices.
"""

import contextlib
import re
import sys

import dalles
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import test_pixelcnn
import test_sampling
import test_transformer
from jax.sharding import PartitionSpec as P
from processes import REPO, finish, start

from t2i_jax.sampling.autoregressive import Autoregressive

PAGE = REPO / "docs" / "sampling.md"


@pytest.mark.slow
def test_the_page_and_every_transformation_on_two_devices(smoke_run, tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "quickstart").symlink_to(smoke_run.translator.parent)
    [(said, _)] = finish([start(__file__, "page", tmp_path, devices=2)])
    assert "100% of the tokens (4, 32, 32, 3)" in said
    assert said.splitlines()[-1] == "done"


@pytest.mark.long
def test_every_model_in_every_transformation_on_two_devices():
    [(said, _)] = finish([start(__file__, "models", devices=2)])
    assert said.splitlines()[-1] == "done"


def run_the_page() -> dict:
    """What the page's names stand for when its last block has run."""
    names = {}
    for block in re.findall(r"^```python\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL):
        exec(compile(block, str(PAGE), "exec"), names)
    return names


def check_what_it_says(names) -> None:
    assert names["ids"].shape == (4,)
    assert names["found"].words == ["a", "red", "seven"]
    assert names["found"].attention.shape == (4, 24, 3)
    assert len(names["each"].sharding.device_set) == jax.device_count() == 2
    for ids in (names["three"][1], names["each"]):
        np.testing.assert_array_equal(ids, names["once"])
    greedy, hot = names["three"][0], names["three"][2]
    assert (greedy == greedy[0]).all()
    assert len(np.unique(hot, axis=0)) == 4


def check_a_model(model, params, text_ids, text_mask, each=({"guidance_scale": 3.0},)) -> None:
    """Draws of a model, transformed, beside those of a plain call."""
    count = len(text_ids)
    keys, mesh = jax.random.split(jax.random.key(5), count), jax.sharding.Mesh(jax.devices(), ("data",))
    for settings in each:
        sampler = Autoregressive(**settings)

        def draw(params, text_ids, text_mask, keys, sampler=sampler):
            return sampler.draw(model, params, (text_ids, text_mask, jnp.zeros(len(keys), bool)), keys)

        rows = text_ids, text_mask, keys
        expected = np.asarray(draw(params, *rows))
        assert len(np.unique(expected, axis=0)) > 1
        pairs = [x.reshape(2, count // 2, *x.shape[1:]) for x in rows]
        split = jax.shard_map(draw, mesh=mesh, in_specs=(P(), *[P("data")] * 3), out_specs=P("data"))
        for found in (
            jax.jit(draw)(params, *rows),
            jax.jit(jax.vmap(draw, (None, 0, 0, 0)))(params, *pairs).reshape(expected.shape),
            jax.jit(split)(params, *rows),
        ):
            np.testing.assert_array_equal(found, expected)


def translator():
    model, params, *texts = test_sampling.translator()
    return model, params["params"], *(x[:4] for x in texts)


def check_all_models() -> None:
    texts = map(jnp.asarray, test_transformer.batch(4)[:2])
    for case in (
        translator(),
        (test_transformer.MODEL, test_transformer.params(), *texts),
        (*dalles.model_and_params(), *dalles.batch(4)[:2]),
        (*test_pixelcnn.small()[:2], *test_pixelcnn.texts(4)),
    ):
        check_a_model(*case, ({}, {"guidance_scale": 3.0}, {"window": 3, "temperature": 0.0}))


if __name__ == "__main__":
    if sys.argv[1] == "models":
        check_all_models()
    else:
        with contextlib.chdir(sys.argv[2]):
            check_what_it_says(run_the_page())
        check_a_model(*translator())
    print("done")
