"""BERT, GPT-2 with cross attention, and the pair against torch `transformers`, on inflated random weights."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax.core import FrozenDict
from flax.traverse_util import unflatten_dict

from t2i_jax.models.bert import Bert
from t2i_jax.models.gpt2 import GPT2
from t2i_jax.models.translator import Model, shift_right

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
transformers = pytest.importorskip("transformers", reason="transformers comes with the extra `parity`")

V, K, S, N = 31, 19, 9, 7
LENGTHS = (9, 4, 1, 6)

# (width, heads, mlp_width, layers) of encoder and decoder.
SIZES = {
    "tiny": ((32, 4, 64, 2), (32, 4, 64, 2)),
    "odd": ((96, 6, 150, 3), (96, 6, 200, 5)),
    "unequal": ((48, 3, 100, 2), (64, 4, 96, 3)),
}

# Ours -> theirs: several sources are joined along their last axis, "T" transposes torch's Linear (out, in).
BERT = {
    "word_embed.embedding": ["embeddings.word_embeddings.weight"],
    "position_embed.embedding": ["embeddings.position_embeddings.weight"],
    "type_embed.embedding": ["embeddings.token_type_embeddings.weight"],
    "ln_embed.scale": ["embeddings.LayerNorm.weight"],
    "ln_embed.bias": ["embeddings.LayerNorm.bias"],
}
BERT_LAYER = {
    "attn.qkv.kernel": [f"attention.self.{part}.weight T" for part in ("query", "key", "value")],
    "attn.qkv.bias": [f"attention.self.{part}.bias" for part in ("query", "key", "value")],
    "attn.out.kernel": ["attention.output.dense.weight T"],
    "attn.out.bias": ["attention.output.dense.bias"],
    "ln_attn.scale": ["attention.output.LayerNorm.weight"],
    "ln_attn.bias": ["attention.output.LayerNorm.bias"],
    "mlp.up.kernel": ["intermediate.dense.weight T"],
    "mlp.up.bias": ["intermediate.dense.bias"],
    "mlp.down.kernel": ["output.dense.weight T"],
    "mlp.down.bias": ["output.dense.bias"],
    "ln_mlp.scale": ["output.LayerNorm.weight"],
    "ln_mlp.bias": ["output.LayerNorm.bias"],
}
GPT2_TOP = {
    "token_embed.embedding": ["wte.weight"],
    "position_embed.embedding": ["wpe.weight"],
    "ln_f.scale": ["ln_f.weight"],
    "ln_f.bias": ["ln_f.bias"],
}
GPT2_DENSE = {
    "attn.qkv": "attn.c_attn",
    "attn.out": "attn.c_proj",
    "cross_attn.q": "crossattention.q_attn",
    "cross_attn.kv": "crossattention.c_attn",
    "cross_attn.out": "crossattention.c_proj",
    "mlp.up": "mlp.c_fc",
    "mlp.down": "mlp.c_proj",
}
GPT2_NORMS = {name: name for name in ("ln_1", "ln_cross_attn", "ln_2")}
GPT2_BLOCK = (
    {f"{ours}.kernel": [f"{theirs}.weight"] for ours, theirs in GPT2_DENSE.items()}
    | {f"{ours}.scale": [f"{theirs}.weight"] for ours, theirs in GPT2_NORMS.items()}
    | {f"{ours}.bias": [f"{theirs}.bias"] for ours, theirs in (GPT2_DENSE | GPT2_NORMS).items()}
)


def bert_table(layers, ours="", theirs=""):
    return table(BERT, BERT_LAYER, "encoder.layer", layers, ours, theirs)


def gpt2_table(layers, ours="", theirs="transformer."):
    return table(GPT2_TOP, GPT2_BLOCK, "h", layers, ours, theirs)


def table(top, layer, name, layers, ours, theirs):
    rows = {ours + key: [theirs + source for source in sources] for key, sources in top.items()}
    for i in range(layers):
        for key, sources in layer.items():
            rows[f"{ours}blocks_{i}.{key}"] = [f"{theirs}{name}.{i}.{source}" for source in sources]
    return rows


def convert(tensors, rows):
    """Arrays of torch's names -> a params tree; every tensor must be used."""
    left, flat = dict(tensors), {}
    for key, sources in rows.items():
        parts = []
        for source in sources:
            name, _, transposed = source.partition(" ")
            part = left.pop(name)
            parts.append(part.T if transposed else part)
        flat[tuple(key.split("."))] = np.concatenate(parts, axis=-1)
    assert not left, f"not in the table: {sorted(left)}"
    return unflatten_dict(flat)


def inflate(module, seed):
    """Random weights far from initialisation, so that a wrong norm, gelu or bias shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = name.endswith("weight") and parameter.ndim == 1
            parameter.copy_(1 + 0.3 * noise if is_scale else 0.15 * noise)
    return module.eval()


def arrays(module):
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def gradients(module):
    return {
        name: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in module.named_parameters()
    }


def torch_bert(size):
    width, heads, mlp_width, layers = size
    config = transformers.BertConfig(
        vocab_size=V, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=mlp_width, max_position_embeddings=S + 3,
    )  # fmt: skip
    return transformers.BertModel(config, add_pooling_layer=False)


def torch_gpt2(size):
    width, heads, mlp_width, layers = size
    config = transformers.GPT2Config(
        vocab_size=K + 1, n_positions=N + 2, n_embd=width, n_layer=layers, n_head=heads, n_inner=mlp_width,
        add_cross_attention=True, is_decoder=True, tie_word_embeddings=False, bos_token_id=K,
        eos_token_id=None,
    )  # fmt: skip
    return transformers.GPT2LMHeadModel(config)


def fields(size, **more):
    return FrozenDict(zip(("width", "heads", "mlp_width", "layers"), size, strict=True), **more)


def texts():
    rng = np.random.default_rng(0)
    mask = np.arange(S) < np.array(LENGTHS)[:, None]
    # Id 0 is padding: torch gives its row of the table no gradient.
    return np.where(mask, rng.integers(1, V, (len(LENGTHS), S)), 0), mask


def pictures():
    return np.random.default_rng(1).integers(0, K, (len(LENGTHS), N))


def cross_entropy(logits, ids):
    return -jnp.take_along_axis(jax.nn.log_softmax(logits), ids[..., None], axis=-1).mean()


def assert_same_tree(ours, theirs):
    """Same parameters, and each gradient within 1e-4 of its own norm and 1e-6 of the global one."""
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    leaves = jax.tree_util.tree_leaves_with_path(theirs)
    whole = np.sqrt(sum(np.square(leaf).sum() for _, leaf in leaves))
    for (path, leaf), mine in zip(leaves, jax.tree.leaves(ours), strict=True):
        assert mine.shape == leaf.shape, path
        limit = 1e-4 * np.linalg.norm(leaf) + 1e-6 * whole
        assert np.linalg.norm(mine - leaf) <= limit, jax.tree_util.keystr(path)


@pytest.mark.parametrize("size", ["tiny"])
def test_bert_matches_torch(size):
    size = SIZES[size][0]
    reference = inflate(torch_bert(size), seed=0)
    ids, mask = texts()
    types = np.random.default_rng(2).integers(0, 2, ids.shape)
    weights = np.random.default_rng(3).normal(size=(*ids.shape, size[0])) * mask[..., None]

    states = reference(
        input_ids=torch.tensor(ids), attention_mask=torch.tensor(mask), token_type_ids=torch.tensor(types)
    ).last_hidden_state
    (states * torch.tensor(weights, dtype=torch.float32)).sum().backward()

    model = Bert(vocab_size=V, max_positions=S + 3, **fields(size))
    rows = bert_table(size[3])

    def loss_fn(params):
        states = model.apply({"params": params}, ids, mask, types)
        return (states * weights).sum(), states

    grads, ours = jax.jit(jax.grad(loss_fn, has_aux=True))(convert(arrays(reference), rows))
    np.testing.assert_allclose(ours[mask], states.detach().numpy()[mask], rtol=0, atol=2e-5)
    assert_same_tree(grads, convert(gradients(reference), rows))


@pytest.mark.parametrize("size", ["tiny"])
def test_gpt2_matches_torch(size):
    size = SIZES[size][1]
    reference = inflate(torch_gpt2(size), seed=1)
    _, mask = texts()
    ids = pictures()
    inputs = np.asarray(shift_right(jnp.asarray(ids), K))
    memory = np.random.default_rng(4).normal(size=(*mask.shape, size[0])).astype(np.float32)

    logits = reference(
        input_ids=torch.tensor(inputs),
        encoder_hidden_states=torch.tensor(memory),
        encoder_attention_mask=torch.tensor(mask),
    ).logits
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ids).flatten())
    loss.backward()

    model = GPT2(vocab_size=K + 1, positions=N + 2, **fields(size))
    rows = gpt2_table(size[3]) | {"head": ["lm_head.weight T"]}
    params = convert(arrays(reference), rows)

    def loss_fn(params):
        params = dict(params)
        head = params.pop("head")
        logits = model.apply({"params": params}, inputs, memory, mask) @ head
        return cross_entropy(logits, ids), logits

    (value, ours), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(params)
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    assert_same_tree(grads, convert(gradients(reference), rows))


@pytest.mark.parametrize("size", ["odd", "unequal"])
def test_translator_matches_torch_encoder_decoder(size):
    encoder, decoder = SIZES[size]
    pair = transformers.EncoderDecoderModel(encoder=torch_bert(encoder), decoder=torch_gpt2(decoder))
    reference = inflate(pair, seed=2)
    text_ids, mask = texts()
    ids = pictures()
    inputs = np.asarray(shift_right(jnp.asarray(ids), K))

    # Their head knows BOS, ours does not: the last logit is cut off on their side.
    logits = reference(
        input_ids=torch.tensor(text_ids),
        attention_mask=torch.tensor(mask),
        decoder_input_ids=torch.tensor(inputs),
    ).logits[..., :K]
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(ids).flatten())
    loss.backward()

    rows = bert_table(encoder[3], "bert.", "encoder.") | gpt2_table(decoder[3], "gpt2.", "decoder.transformer.")
    rows["head.kernel"] = ["decoder.lm_head.weight T"]
    if encoder[0] != decoder[0]:
        rows["enc_to_dec_proj.kernel"] = ["enc_to_dec_proj.weight T"]
        rows["enc_to_dec_proj.bias"] = ["enc_to_dec_proj.bias"]

    def ours_of(tensors):
        params = convert(tensors, rows)
        params["head"]["kernel"] = params["head"]["kernel"][:, :K]
        return params | {"null_caption": np.zeros((1, decoder[0]), np.float32)}

    model = Model(K, N, V, S, fields(encoder, max_positions=S + 3), fields(decoder, positions=N + 2))

    def loss_fn(params):
        logits = model.apply({"params": params}, text_ids, mask, inputs)
        return cross_entropy(logits, ids), logits

    (value, ours), grads = jax.jit(jax.value_and_grad(loss_fn, has_aux=True))(ours_of(arrays(reference)))
    np.testing.assert_allclose(ours, logits.detach().numpy(), rtol=0, atol=2e-5)
    np.testing.assert_allclose(value, loss.item(), rtol=1e-5)
    assert_same_tree(grads, ours_of(gradients(reference)))
