"""A translator that starts from released weights: what is loaded, what starts anew, and what it refuses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import released

import t2i_jax
from t2i_jax import models, tasks
from t2i_jax.convert import gpt2
from t2i_jax.data import text
from t2i_jax.models.gpt2 import GPT2
from t2i_jax.tasks import pretrained

WORDS = ["a", "red", "seven", "blue", "one", "##s", "two", "green", "three"]
PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *WORDS, *(f"[unused{i}]" for i in range(released.V - 13))]


@pytest.fixture
def sources(tmp_path):
    """Folders of a small BERT with its vocabulary and of a small GPT-2."""
    bert = {f"bert.{name}": array / 1e4 for name, array in released.bert_tensors().items()}
    bert = released.write(tmp_path / "bert", bert, config=released.BERT_JSON)
    (bert / "vocab.txt").write_text("\n".join(PIECES) + "\n")
    tensors = {name: array / 1e4 for name, array in released.gpt2_tensors().items()}
    return bert, released.write(tmp_path / "gpt2", tensors, config=released.GPT2_JSON)


@pytest.fixture
def config(smoke_config, sources):
    """The smoke run's, with these weights and their sizes; the encoder reads 6 positions of the file's 10."""
    config = smoke_config("translator")
    shape = {"width": released.D, "layers": released.LAYERS, "heads": 2, "mlp_width": released.M}
    config.model.encoder.update({**shape, "max_positions": 6})
    config.model.decoder.update(shape)
    config.model.text_vocab_size, config.model.text_len, config.data.text_len = released.V, 6, 6
    config.encoder_weights, config.decoder_weights = map(str, sources)
    config.shown_captions = ("two sevens",)  # not cut by 6 positions
    return config


@pytest.mark.parametrize("which", ["both", "encoder", "decoder"])
def test_a_run_starts_from_released_weights(config, tmp_path, capsys, which):
    for half in ("encoder", "decoder"):
        if which not in (half, "both"):
            config[f"{half}_weights"] = ""
    folder, task = tmp_path / "run", tasks.make(config)
    folder.mkdir()
    task.check(folder)
    data = task.prepare(folder, {"tokenizer": t2i_jax.load(config.parents.tokenizer.run)})
    example = data.transform(data.splits["train"][0], np.random.default_rng(0))
    example = {name: np.asarray(value)[None] for name, value in example.items()}
    fresh = jax.jit(task.init)(jax.random.key(1), example)["params"]
    capsys.readouterr()
    params, _ = task.warm_start(fresh, {}, jax.random.key(2))
    said = capsys.readouterr().err
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, fresh)

    bert, decoder = released.bert_tensors(), released.gpt2_tensors()
    embedding = params["bert"]["position_embed"]["embedding"]
    expected = bert["embeddings.position_embeddings.weight"][:6] / 1e4
    assert np.allclose(embedding, expected) == (which != "decoder")
    layers = params["gpt2"]["decoder"]["layers"]
    assert np.allclose(layers["mlp"]["up"]["kernel"][1], decoder["h.1.mlp.c_fc.weight"] / 1e4) == (
        which != "encoder"
    )
    positions = np.asarray(params["gpt2"]["position_embed"]["embedding"])  # not those of the tokenizer's places
    assert np.allclose(positions[[0, -1]], decoder["wpe.weight"][[0, -1]] / 1e4) == (which != "encoder")
    assert (not np.any(layers["cross_attn"]["out"]["kernel"])) == (which != "encoder")
    np.testing.assert_array_equal(
        layers["cross_attn"]["key"]["kernel"], fresh["gpt2"]["decoder"]["layers"]["cross_attn"]["key"]["kernel"]
    )
    # The tokenizer's codes still give the token table and the head.
    np.testing.assert_array_equal(params["head"]["kernel"], params["gpt2"]["token_embed"]["embedding"][:-1].T)
    assert np.any(params["head"]["kernel"] != fresh["head"]["kernel"])
    new = {"both": "cross attention, gpt2/token_embed, head, null_caption", "encoder": "gpt2, head, null_caption"}
    assert said.strip().endswith(f"starting anew: {new.get(which, 'bert, ' + new['both'])}")

    reader = text.CaptionReader(folder / "text_tokenizer.json", 6)
    ids, mask, _ = reader.encode_prompts(["a red SEVEN"])
    if which == "decoder":
        assert "[unused0]" not in (folder / "text_tokenizer.json").read_text()
    else:
        np.testing.assert_array_equal(ids[0], [2, 4, 5, 6, 3, 0])
        assert mask.sum() == 5


@pytest.mark.slow
def test_the_decoder_computes_at_first_what_it_was_released_to(tmp_path):
    torch = pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
    transformers = pytest.importorskip("transformers", reason="transformers comes with the extra `parity`")
    size = {"width": 48, "layers": 2, "heads": 4, "mlp_width": 192, "positions": 11}
    torch.manual_seed(0)
    reference = transformers.GPT2Model(
        transformers.GPT2Config(vocab_size=50, n_positions=11, n_embd=48, n_layer=2, n_head=4)
    ).eval()
    with torch.no_grad():
        for parameter in reference.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape))
    reference.save_pretrained(tmp_path)
    model = models.translator.Model(7, 11, 5, 6, {"width": 32, "layers": 1, "heads": 2, "mlp_width": 8}, size)
    text_ids, mask, ids = np.ones((2, 6), int), np.ones((2, 6), bool), np.arange(22).reshape(2, 11) % 8
    fresh = jax.jit(model.init)(jax.random.key(0), text_ids, mask, ids)["params"]
    params = pretrained.put({"gpt2": gpt2.load(tmp_path, size, "")}, fresh)
    table = params["gpt2"]["token_embed"]["embedding"]
    np.testing.assert_array_equal(table, fresh["gpt2"]["token_embed"]["embedding"])
    theirs = reference(inputs_embeds=torch.tensor(np.asarray(table)[ids])).last_hidden_state.detach().numpy()
    memory = jax.random.normal(jax.random.key(1), (2, 6, 48))
    ours = GPT2(vocab_size=8, **size).apply({"params": params["gpt2"]}, ids, memory, mask)[0]
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-5)

    # And cross attention can learn: its output gets a gradient.
    def loss_fn(params):
        return (model.apply({"params": params}, text_ids, mask, ids) ** 2).sum()

    grads = jax.jit(jax.grad(loss_fn))(params)["gpt2"]["decoder"]["layers"]["cross_attn"]
    assert jnp.abs(grads["out"]["kernel"]).max() > 0


# --- what does not fit, by the command


@pytest.fixture
def refusal(command, data_dir, smoke_run, tmp_path, sources):
    def call(*changes):
        options = {"data.text_len": 6, "data.data_dir": data_dir, "parents.tokenizer.run": smoke_run.tokenizer}
        options |= {"encoder_weights": sources[0], "decoder_weights": sources[1]} | dict(changes)
        argv = [f"--config.{name}={value}" for name, value in options.items()]
        code, lines = command(
            "--config=configs/translator.py:smoke", f"--workdir={tmp_path / 'run'}", *argv, "--accept_config_change"
        )
        assert code == 2
        said = [line for line in lines if line.startswith("train.py:")]
        assert said == lines[-1:]
        assert not any("Traceback" in line for line in lines)
        return said[0]

    return call


def test_weights_that_do_not_fit_are_one_line_each(refusal, sources, monkeypatch):
    bert, decoder = sources
    way_out = "or train from scratch: config.encoder_weights=''"
    said = refusal(("encoder_weights", decoder))
    assert "has model_type gpt2; this model computes with bert: name others" in said
    assert said.endswith(way_out)
    assert "has model_type bert; this model computes with gpt2: name others" in refusal(("decoder_weights", bert))
    assert (
        f"config.model.encoder.layers is 2, but 3 follows from config.encoder_weights ({bert}/config.json)"
        in refusal(("model.encoder.layers", 2))
    )
    assert "config.model.text_vocab_size is 44, but 43 follows" in refusal(("model.text_vocab_size", 44))

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert "nobody/bert is no folder here, and its model.safetensors could not" in refusal(
        ("encoder_weights", "nobody/bert")
    )

    vocabulary = bert / "vocab.txt"
    vocabulary.write_text("\n".join(PIECES[:-1]))
    assert f"vocabulary {vocabulary} holds 42 word pieces; the model reads 43" in refusal()
    vocabulary.unlink()
    assert f"folder {bert} holds no tokenizer.json or vocab.txt" in refusal()
    raw = (bert / "model.safetensors").read_bytes()
    (bert / "model.safetensors").write_bytes(raw[:-7])
    assert "is damaged, cut short or no safetensors file" in refusal()
