"""BERT, GPT-2 with cross attention, and the pair against torch `transformers`, on inflated random weights.

Logits within 2e-5, the loss, and every gradient, at a tiny size, at odd ones and at that of the releases (the pair
alone, of which the states of its encoder are compared as well). The weights go through `t2i_jax.convert`.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from torch_pairs import K, S, V, answer_of, arrays, assert_same_tree, gradients, pair, pictures, texts, torch

from t2i_jax import models
from t2i_jax.convert import bert, encoder_decoder, gpt2, tables
from t2i_jax.models.bert import Bert
from t2i_jax.models.gpt2 import GPT2

# Compiling takes most of the time: half as long without what would make a long run fast.
jit = partial(
    jax.jit, compiler_options={"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
)


def config_of(size):
    return encoder_decoder.config_of(pair(size).config.to_dict(), size)


def cross_entropy(logits, ids):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1).mean()


@pytest.fixture(autouse=True)
def no_gradients(request):
    """References are shared: each test begins without gradients."""
    pair(request.getfixturevalue("size")).zero_grad()


@pytest.mark.parametrize("size", ["tiny", "odd"])
def test_bert_matches_torch(size):
    reference, sizes = pair(size).encoder, config_of(size).model.encoder
    ids, mask = texts()
    types = np.random.default_rng(2).integers(0, 2, ids.shape)
    weights = np.random.default_rng(3).normal(size=(*ids.shape, sizes.width)) * mask[..., None]

    states = reference(
        input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types)
    ).last_hidden_state
    (states * torch.tensor(weights, dtype=torch.float32)).sum().backward()

    model = Bert(vocab_size=V, **sizes)

    def params_of(tensors):
        letters = bert.letters({**sizes, "vocab_size": V})
        return tables.fill(tensors, bert.table(sizes.layers), letters, ignored=bert.IGNORED, origin=size)

    def loss_fn(params):
        states = model.apply({"params": params}, ids, mask, types)
        return (states * weights).sum(), states

    grads, ours = jit(jax.grad(loss_fn, has_aux=True))(params_of(arrays(reference)))
    np.testing.assert_allclose(ours[mask], states.detach().numpy()[mask], rtol=0, atol=2e-5)
    assert_same_tree(grads, params_of(gradients(reference)))


@pytest.mark.parametrize("size", ["tiny", "odd"])
def test_gpt2_matches_torch(size):
    reference, sizes = pair(size).decoder, config_of(size).model.decoder
    _, mask = texts()
    ids, inputs = pictures()
    memory = np.random.default_rng(4).normal(size=(*mask.shape, sizes.width)).astype(np.float32)

    logits = reference(
        input_ids=torch.tensor(inputs),
        encoder_hidden_states=torch.tensor(memory),
        encoder_attention_mask=torch.tensor(mask),
    ).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ids).flatten())
    loss.backward()

    model = GPT2(vocab_size=K + 1, **sizes)
    rows = gpt2.table(sizes.layers, theirs="transformer.") | {"head": tables.Row("D V", "lm_head.weight T")}

    def params_of(tensors):
        return tables.fill(tensors, rows, gpt2.letters({**sizes, "vocab_size": K + 1}), origin=size)

    def loss_fn(params):
        params = dict(params)
        head = params.pop("head")
        logits = model.apply({"params": params}, inputs, memory, mask)[0] @ head
        return cross_entropy(logits, ids), logits

    (value, ours), grads = jit(jax.value_and_grad(loss_fn, has_aux=True))(params_of(arrays(reference)))
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    assert_same_tree(grads, params_of(gradients(reference)))


@pytest.mark.parametrize("size", ["tiny", "odd", "unequal", pytest.param("base", marks=pytest.mark.long)])
def test_translator_matches_torch_encoder_decoder(size):
    reference, config = pair(size), config_of(size)
    rows = 2 if size == "base" else 4
    (text_ids, mask), (ids, inputs) = texts(rows), pictures(rows)

    # Their head knows the id that begins a picture, ours does not: the last logit is cut off on their side.
    theirs = answer_of(reference, text_ids, mask, inputs)
    logits, states = theirs.logits[..., :K], theirs.encoder_last_hidden_state
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ids).flatten())
    loss.backward()

    model = models.build(config)
    assert (model.codebook_size, model.text_len, model.text_vocab_size) == (K, S + 3, V)

    def loss_fn(params):
        logits, seen = model.apply({"params": params}, text_ids, mask, ids, capture_intermediates=is_encoder)
        return cross_entropy(logits, ids), (logits, seen["intermediates"]["bert"]["__call__"][0])

    def is_encoder(module, method):
        return module.name == "bert" and method == "__call__"

    params = encoder_decoder.convert(arrays(reference), config.model, size)
    (value, (ours, read)), grads = jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    np.testing.assert_allclose(read[mask], states.detach().numpy()[mask], rtol=0, atol=2e-5)
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    assert_same_tree(grads, encoder_decoder.convert(gradients(reference), config.model, size))
