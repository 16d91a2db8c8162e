"""BERT, GPT-2 with cross attention and the pair in torch, with inflated random weights, and what they are fed."""

import functools

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
transformers = pytest.importorskip("transformers", reason="transformers comes with the extra `parity`")

torch.set_num_threads(1)  # several wait for each other longer than such small products take

V, K, S, N = 31, 211, 9, 256  # word pieces, codes, text length, positions of the decoder
LENGTH = 7  # of the pictures under teacher forcing
LENGTHS = (9, 4, 1, 6)  # of the texts

# (width, heads, mlp_width, layers) of encoder and decoder.
SIZES = {
    "tiny": ((32, 4, 64, 2), (32, 4, 128, 2)),
    "odd": ((96, 6, 150, 3), (96, 6, 200, 5)),
    "unequal": ((48, 3, 100, 2), (64, 4, 96, 3)),
    "base": ((768, 12, 3072, 12), (768, 12, 3072, 12)),
}


@functools.cache
def pair(size, *, tied=False):
    """EncoderDecoderModel in evaluation mode. Its last id begins a picture."""
    (width, heads, mlp_width, layers), decoder = SIZES[size]
    encoder = transformers.BertConfig(
        vocab_size=V, hidden_size=width, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=mlp_width, max_position_embeddings=S + 3, hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.2,
    )  # fmt: skip
    width, heads, mlp_width, layers = decoder
    decoder = transformers.GPT2Config(
        vocab_size=K + 1, n_positions=N, n_embd=width, n_layer=layers, n_head=heads, n_inner=mlp_width,
        tie_word_embeddings=tied, bos_token_id=K, eos_token_id=None, resid_pdrop=0.3, embd_pdrop=0.3,
        attn_pdrop=0.4,
    )  # fmt: skip
    config = transformers.EncoderDecoderConfig.from_encoder_decoder_configs(encoder, decoder)
    config.tie_word_embeddings = tied
    config.decoder_start_token_id = config.pad_token_id = K
    return inflate(transformers.EncoderDecoderModel(config), seed=len(size), width=width, tied=tied)


def inflate(module, seed, width, tied):
    """Random weights far from initialisation, so that a wrong norm, gelu or bias shows in the logits."""
    generator = torch.Generator().manual_seed(seed)
    spread = min(0.15, 1.1 * width**-0.5)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            is_scale = name.endswith("weight") and parameter.ndim == 1
            # Large embeddings keep greedy decoding from repeating itself; a tied head would make logits as large.
            own = 3.0 if "wpe" in name or ("wte" in name and not tied) else spread
            parameter.copy_(1 + 0.3 * noise if is_scale else own * noise)
    return module.eval()


def arrays(module):
    return {name: parameter.detach().numpy() for name, parameter in module.named_parameters()}


def gradients(module):
    return {
        name: np.zeros(parameter.shape, np.float32) if parameter.grad is None else parameter.grad.numpy()
        for name, parameter in module.named_parameters()
    }


def texts(rows=4):
    """Ids and mask [B, S] of texts of different lengths; id 0, padding, gets no gradient in torch."""
    rng = np.random.default_rng(0)
    mask = np.arange(S) < np.array(LENGTHS[:rows])[:, None]
    return np.where(mask, rng.integers(1, V, (rows, S)), 0), mask


def pictures(rows=4):
    """Ids [B, L], and what the decoder reads: the last id, then all of them but one."""
    ids = np.random.default_rng(1).integers(0, K, (rows, LENGTH))
    return ids, np.pad(ids[:, :-1], ((0, 0), (1, 0)), constant_values=K)


def answer_of(reference, text_ids, mask, inputs):
    """What the reference says under teacher forcing: `logits` [B, L, K + 1], `encoder_last_hidden_state`."""
    return reference(
        input_ids=torch.tensor(text_ids), attention_mask=torch.tensor(mask), decoder_input_ids=torch.tensor(inputs)
    )


def assert_same_tree(ours, theirs):
    """Same parameters, and each gradient within 1e-4 of its own norm and 1e-6 of the global one."""
    import jax

    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    leaves = jax.tree_util.tree_leaves_with_path(theirs)
    whole = np.sqrt(sum(np.square(leaf, dtype=np.float64).sum() for _, leaf in leaves))
    for (path, leaf), mine in zip(leaves, jax.tree.leaves(ours), strict=True):
        assert mine.shape == leaf.shape, path
        limit = 1e-4 * np.linalg.norm(leaf) + 1e-6 * whole
        assert np.linalg.norm(mine - leaf) <= limit, jax.tree_util.keystr(path)
