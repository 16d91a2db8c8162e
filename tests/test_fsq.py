"""Finite scalar quantization: its levels, and parity with an independent implementation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.nn.fsq import FSQ, levels_of

PARITY = "comes with the extra `parity`"
D = 6


def normal(*shape, seed=0):
    return jnp.array(np.random.default_rng(seed).normal(size=shape), jnp.float32)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        (240, (8, 6, 5)),
        (512, (8, 8, 8)),
        (1000, (8, 5, 5, 5)),
        (1024, (8, 8, 4, 4)),
        (2048, (8, 8, 8, 4)),
        (4375, (7, 5, 5, 5, 5)),
        (15360, (8, 8, 8, 6, 5)),
        (7, (7,)),
    ],
)
def test_levels(size, levels):
    assert levels_of(size) == levels


@pytest.mark.parametrize("size", [2, 3, 11, 9, 22, 8 * 13])
def test_sizes_that_are_no_product_of_levels(size):
    with pytest.raises(ValueError, match=f"codebook_size {size} is no product of levels"):
        levels_of(size)


@pytest.mark.parametrize("size", [240, 1000, 512])
def test_fsq_equals_that_of_vector_quantize_pytorch(size):
    torch = pytest.importorskip("torch", reason=PARITY)
    theirs = pytest.importorskip("vector_quantize_pytorch", reason=PARITY)
    levels = levels_of(size)
    reference = theirs.FSQ(list(levels))
    quantizer, features = FSQ(size, D), 2 * normal(4, 50, D)
    variables = quantizer.init(jax.random.key(0), normal(1, 2, D))
    latents = np.asarray(features @ variables["params"]["down"]["kernel"] + variables["params"]["down"]["bias"])
    codes, ids = reference(torch.tensor(latents))
    ours = quantizer.apply(variables, features)
    np.testing.assert_array_equal(ours.ids, ids.numpy())
    up = variables["params"]["up"]
    np.testing.assert_allclose(ours.codes, codes.detach().numpy() @ up["kernel"] + up["bias"], atol=1e-5)
    everything = reference.indices_to_codes(torch.arange(size)[None])[0].detach().numpy()
    np.testing.assert_allclose(
        quantizer.apply(variables, method="codebook"), everything @ up["kernel"] + up["bias"], atol=1e-5
    )


def test_fsq_uses_every_code():
    quantizer = FSQ(240, 3)
    variables = quantizer.init(jax.random.key(0), normal(1, 2, 3))
    variables["params"]["down"]["kernel"] = 2 * jnp.eye(3)
    assert len(np.unique(quantizer.apply(variables, normal(1, 60_000, 3)).ids)) == 240
