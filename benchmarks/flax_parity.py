"""BERT, GPT-2 with cross attention and the pair against the last Flax models of transformers: a table in Markdown.

No part of the suite: these models left transformers in 5.0, so they need an environment of their own, which has no
torch. Made, and used, by

    python -m venv ../flaxenv
    ../flaxenv/bin/pip install "transformers==4.57.6" "jax==0.10.2" "flax==0.12.8" -e .
    ../flaxenv/bin/python benchmarks/flax_parity.py --base

The reference is a `FlaxEncoderDecoderModel` with random weights, large as in the suite's parity with torch. What
its `save_pretrained` wrote (`flax_model.msgpack`, `config.json`) is read by `t2i_jax.convert.encoder_decoder.load`,
and so is its gradient. In the table are the largest differences over a batch of texts of different lengths: of
BERT's states at real tokens, of GPT-2's logits over a random memory, of the pair's logits; of its loss, relative;
and of its gradients, each parameter's norm of the difference as a part of what is allowed, 1e-4 of its own norm and
1e-6 of the global one. The exit status is 1 if any is above its limit.
"""

import argparse
import sys
import tempfile

import jax
import jax.numpy as jnp
import numpy as np
import transformers

from t2i_jax import models
from t2i_jax.convert import encoder_decoder
from t2i_jax.models.bert import Bert
from t2i_jax.models.gpt2 import GPT2

V, K, S, N = 31, 211, 9, 256  # word pieces, codes, text length, positions of the decoder
LENGTH = 7  # of the pictures under teacher forcing
LENGTHS = (9, 4, 1, 6)  # of the texts

# (width, heads, mlp_width, layers) of encoder and decoder.
SIZES = {
    "tiny": ((32, 4, 64, 2), (32, 4, 128, 2)),
    "odd": ((96, 6, 150, 3), (96, 6, 200, 5)),
    "base": ((768, 12, 3072, 12), (768, 12, 3072, 12)),
}
LIMITS = {
    "BERT's states": 2e-5,
    "GPT-2's logits": 2e-5,
    "the pair's logits": 2e-5,
    "loss, relative": 1e-5,
    "gradients, of what is allowed": 1.0,
}


def reference_of(size):
    """FlaxEncoderDecoderModel. Its last id begins a picture."""
    (width, heads, mlp_width, layers), decoder = SIZES[size]
    encoder = transformers.BertConfig(
        vocab_size=V, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=mlp_width, max_position_embeddings=S + 3,
    )  # fmt: skip
    width, heads, mlp_width, layers = decoder
    decoder = transformers.GPT2Config(
        vocab_size=K + 1, n_positions=N, n_embd=width, n_layer=layers, n_head=heads, n_inner=mlp_width,
        tie_word_embeddings=False, bos_token_id=K, eos_token_id=None,
    )  # fmt: skip
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.tie_word_embeddings = False
    config.decoder_start_token_id = config.pad_token_id = K
    reference = transformers.FlaxEncoderDecoderModel(config)
    reference.params = inflated(reference.params, len(size), width)
    return reference


def inflated(params, seed, width):
    """Random weights far from initialisation, so that a wrong norm, gelu or bias shows in the logits."""
    rng, spread = np.random.default_rng(seed), min(0.15, 1.1 * width**-0.5)

    def draw(path, leaf):
        noise = rng.standard_normal(leaf.shape, np.float32)
        if path[-1].key == "scale":
            return 1 + 0.3 * noise
        return (3.0 if path[-2].key in ("wte", "wpe") else spread) * noise

    return jax.tree_util.tree_map_with_path(draw, params)


def as_ours(reference, params):
    """A run's config, and our params (or gradients) from theirs, through the files that both can handle."""
    with tempfile.TemporaryDirectory() as folder:
        reference.save_pretrained(folder, params=params)
        return encoder_decoder.load(folder)


def cross_entropy(logits, ids):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1).mean()


def compare(size):
    """The largest differences, in the order of LIMITS."""
    reference = reference_of(size)
    rng, lengths = np.random.default_rng(0), np.array(LENGTHS[: 2 if size == "base" else None])
    mask = np.arange(S) < lengths[:, None]
    text_ids = np.where(mask, rng.integers(1, V, mask.shape), 0)
    ids = rng.integers(0, K, (len(mask), LENGTH))
    inputs = np.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=K)

    config, params = as_ours(reference, reference.params)
    model, sizes = models.build(config), config.model
    memory = rng.standard_normal((*mask.shape, sizes.decoder.width), np.float32)

    # Their head knows the id that begins a picture, ours does not: the last logit is cut off on their side.
    def their_loss(params):
        answer = reference(text_ids, mask.astype(int), inputs, np.ones_like(inputs), params=params)
        logits = answer.logits[..., :K]
        return cross_entropy(logits, ids), (logits, answer.encoder_last_hidden_state)

    def our_loss(params):
        logits = model.apply({"params": params}, text_ids, mask, ids)
        return cross_entropy(logits, ids), logits

    differentiate = jax.jit(jax.value_and_grad(their_loss, has_aux=True))
    (their_value, (their_logits, their_states)), their_grads = differentiate(reference.params)
    (value, logits), grads = jax.jit(jax.value_and_grad(our_loss, has_aux=True))(params)
    states = Bert(vocab_size=V, **sizes.encoder).apply({"params": params["bert"]}, text_ids, mask)

    half = transformers.FlaxGPT2LMHeadModel(reference.config.decoder, _do_init=False)
    their_read = half(
        inputs, encoder_hidden_states=memory, encoder_attention_mask=mask.astype(int),
        params=reference.params["decoder"],
    ).logits[..., :K]  # fmt: skip
    read = GPT2(vocab_size=K + 1, **sizes.decoder).apply({"params": params["gpt2"]}, inputs, memory, mask)[0]
    read = read @ params["head"]["kernel"]

    return [
        np.abs(states - their_states)[mask].max(),
        np.abs(read - their_read).max(),
        np.abs(logits - their_logits).max(),
        np.abs(value / their_value - 1),
        part_of_allowed(grads, as_ours(reference, their_grads)[1]),
    ]


def part_of_allowed(ours, theirs):
    """The largest difference of gradients, divided by 1e-4 of the parameter's norm and 1e-6 of the global one."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    assert jax.tree.map(np.shape, ours) == jax.tree.map(np.shape, theirs)
    norms = np.array([np.linalg.norm(leaf) for leaf in jax.tree.leaves(theirs)])
    apart = [np.linalg.norm(leaf) for leaf in jax.tree.leaves(jax.tree.map(np.subtract, ours, theirs))]
    return np.max(apart / (1e-4 * norms + 1e-6 * np.linalg.norm(norms)))


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--base", action="store_true", help="at the size of BERT-base and GPT-2 too")
    sizes = list(SIZES) if parser.parse_args().base else ["tiny", "odd"]
    print(f"transformers {transformers.__version__}, jax {jax.__version__}, {jax.default_backend()}\n")
    print(f"| size | {' | '.join(LIMITS)} |\n|---|{'---|' * len(LIMITS)}")
    missed = False
    for size in sizes:
        found = compare(size)
        print(f"| {size} | {' | '.join(f'{value:.1e}' for value in found)} |", flush=True)
        # Asked this way round, for a NaN is a miss as well.
        missed |= not all(value <= limit for value, limit in zip(found, LIMITS.values(), strict=True))
    print(f"| limit | {' | '.join(f'{limit:g}' for limit in LIMITS.values())} |")
    sys.exit(missed)


if __name__ == "__main__":
    main()
