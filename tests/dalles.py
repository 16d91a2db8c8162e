"""The decoder-only model at a small, odd size, and a plain twin of it in numpy."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict, FrozenConfigDict

from t2i_jax.models.dalle import Model

K, V, S, H, W, D = 19, 31, 6, 3, 5, 24
N = H * W
KINDS = ("row", "column", "full", "conv")


def build(**changes):
    config = ConfigDict(
        {
            "codebook_size": K,
            "num_tokens": N,
            "grid": (H, W),
            "text_vocab_size": V,
            "text_len": S,
            "width": D,
            "heads": 3,
            "mlp_width": 40,
            "attention": KINDS,
            "kernel": 3,
        }
    )
    config.update(changes)
    return Model(**FrozenConfigDict(config))


def batch(size, seed=0):
    rng = np.random.default_rng(seed)
    mask = np.arange(S) < (2 + (np.arange(size) * 2 + seed) % (S - 1))[:, None]
    text_ids = np.where(mask, rng.integers(1, V, (size, S)), 0)
    return jnp.array(text_ids), jnp.array(mask), jnp.array(rng.integers(0, K, (size, N)))


@functools.cache
def model_and_params():
    """Weights far larger than at the start, so that every path matters to the logits."""
    model, rng = build(), np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), *batch(2))["params"]

    def weights(path, leaf):
        return jnp.array(0.17 * rng.normal(size=leaf.shape) + (path[-1].key == "scale"), leaf.dtype)

    return model, jax.tree_util.tree_map_with_path(weights, shapes)


@functools.cache
def forward():
    model, params = model_and_params()
    return functools.partial(jax.jit(functools.partial(model.apply, method=text_and_image)), {"params": params})


def text_and_image(model, *inputs):
    """Logits of both, [B, S - 1, V] and [B, L, K]."""
    text, image = model.states(*inputs)
    return model.text_logits(text), model.logits(image)


def plain_logits(params, text_ids, mask, inputs, null, seen=None):
    """The model again, in float64, one row after another, with every logit of both vocabularies.

    `seen` gets the attention of each row, [S + N, S + N], the mean of layers and heads.
    """
    params = jax.tree.map(lambda x: np.asarray(x, np.float64), params)

    def norm(x, p):
        x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) * p["scale"] + p["bias"]

    def dense(x, p):
        return x @ p["kernel"] + p["bias"]

    def visible(kind, i, j):  # written out again, by rows and columns of tokens
        if j > i:
            return False
        if j < S or j == i or kind == "full":
            return True
        # Position i predicts one token; position j was given the one before that which it predicts.
        (r, c), (q, d) = divmod(i - S, W), divmod(j - S - 1, W)
        if kind == "row":
            return q == r or (q == r - 1 and d >= c)
        if kind == "column":
            return c == d
        near = (r - q) * W + (c - d)  # what a 3 x 3 kernel that wraps around reaches
        return near in (1, W - 1, W, W + 1)

    def row(text, there, image):
        x = []
        for p in range(S):
            token = params["token_embed"]["embedding"][text[p]] if there[p] else params["pads"][p]
            x.append(token + params["text_embed"]["embedding"][p])
        for p, i in enumerate(image):
            places = params["row_embed"]["embedding"][p // W] + params["column_embed"]["embedding"][p % W]
            x.append(params["token_embed"]["embedding"][V + i] + places)
        x, looks = np.array(x), np.zeros((S + N, S + N))
        for number, kind in enumerate(KINDS):
            p = jax.tree.map(lambda array, number=number: array[number], params["decoder"]["layers"])
            q, k, v = (dense(norm(x, p["ln_attn"]), p["attn"][part]) for part in ("query", "key", "value"))
            out = np.zeros_like(x)
            for i in range(len(x)):
                keys = [j for j in range(len(x)) if visible(kind, i, j)]
                for head in range(3):
                    own = slice(head * D // 3, (head + 1) * D // 3)
                    scores = k[keys, own] @ q[i, own] / np.sqrt(D // 3)
                    weights = np.exp(scores - scores.max())
                    out[i, own] = weights / weights.sum() @ v[keys, own]
                    looks[i, keys] += weights / weights.sum() / 3 / len(KINDS)
            x = x + dense(out, p["attn"]["out"])
            up = dense(norm(x, p["ln_mlp"]), p["mlp"]["up"])
            up = up / 2 * (1 + np.tanh(np.sqrt(2 / np.pi) * (up + 0.044715 * up**3)))
            x = x + dense(up, p["mlp"]["down"])
        logits = norm(x, params["ln_f"]) @ params["head"]
        logits[:S, V:] = -np.inf
        logits[S:, :V] = -np.inf
        if seen is not None:
            seen.append(looks)
        return logits

    there = np.asarray(mask) & ~np.asarray(null)[:, None]
    return np.array([row(*rows) for rows in zip(np.asarray(text_ids), there, np.asarray(inputs), strict=True)])
