"""One gated layer against torch convolutions whose full kernels are multiplied by masks, on random weights."""

import jax.numpy as jnp
import numpy as np
import pytest

from t2i_jax.models.pixelcnn import GatedLayer

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
functional = torch.nn.functional

D, GRID = 6, (5, 7)


def masks(kernel, first):
    """Of the vertical and the horizontal stack: 1 where the position may be seen from the middle."""
    middle = kernel // 2
    vertical, horizontal = torch.zeros(kernel, kernel), torch.zeros(1, kernel)
    for i in range(kernel):
        vertical[i] = i < middle or (i == middle and not first)
        horizontal[0, i] = i < middle or (i == middle and not first)
    return vertical, horizontal


def reference(tensors, vertical, horizontal, condition, kernel, first):
    """Figure 2 of van den Oord et al. 2016, channels first."""
    mask_v, mask_h = masks(kernel, first)
    side = kernel // 2

    def pointwise(name, x, bias=None):
        return functional.conv2d(x, tensors[name][:, :, None, None], bias)

    def gate(x):
        return torch.tanh(x[:, :D]) * torch.sigmoid(x[:, D:])

    above = functional.conv2d(vertical, tensors["v"] * mask_v, tensors["v_bias"], padding=side)
    left = functional.conv2d(horizontal, tensors["h"] * mask_h, tensors["h_bias"], padding=(0, side))
    left = left + pointwise("down", above) + pointwise("h_cond", condition)
    above = above + pointwise("v_cond", condition)
    out = pointwise("out", gate(left), tensors["out_bias"])
    return gate(above), out if first else horizontal + out


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("first", [True, False])
def test_a_gated_layer_is_the_masked_convolutions(kernel, first):
    rng = np.random.default_rng(kernel + first)

    def random(*shape):
        return rng.normal(size=shape).astype(np.float32)

    arrays = {
        "v": random(2 * D, D, kernel, kernel) / kernel,
        "v_bias": random(2 * D),
        "h": random(2 * D, D, 1, kernel) / kernel,
        "h_bias": random(2 * D),
        "down": random(2 * D, 2 * D) / 3,
        "v_cond": random(2 * D, D) / 3,
        "h_cond": random(2 * D, D) / 3,
        "out": random(D, D),
        "out_bias": random(D),
    }
    seen = kernel // 2 + (not first)

    def taps(kernel):  # rows, columns and inputs side by side
        return kernel.transpose(2, 3, 1, 0).reshape(-1, 2 * D)

    params = {
        "vertical": {"kernel": taps(arrays["v"][:, :, :seen]), "bias": arrays["v_bias"]},
        "horizontal": {"kernel": taps(arrays["h"][:, :, :, :seen]), "bias": arrays["h_bias"]},
        "down": {"kernel": arrays["down"].T},
        "vertical_condition": {"kernel": arrays["v_cond"].T},
        "horizontal_condition": {"kernel": arrays["h_cond"].T},
        "out": {"kernel": arrays["out"].T, "bias": arrays["out_bias"]},
    }
    vertical, horizontal, condition = (random(2, *GRID, D) for _ in range(3))
    ours = GatedLayer(D, kernel, first).apply(
        {"params": params}, *map(jnp.asarray, (vertical, horizontal, condition))
    )
    tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
    channels_first = (torch.from_numpy(x.transpose(0, 3, 1, 2)) for x in (vertical, horizontal, condition))
    theirs = reference(tensors, *channels_first, kernel, first)
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(one, other.numpy().transpose(0, 2, 3, 1), rtol=1e-5, atol=2e-5)
