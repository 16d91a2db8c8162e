"""Whole checkpoints: `save_pretrained` -> a run -> `from_pretrained`, with the same logits and greedy tokens."""

import json
import shutil
import struct

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from torch_pairs import LENGTH, K, N, S, V, answer_of, pair, pictures, texts, torch, transformers

import t2i_jax
from t2i_jax import cli, models, runs, sampling
from t2i_jax.convert import encoder_decoder
from t2i_jax.errors import UserError

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "red", "seven", *(f"word{i}" for i in range(V - 7))]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """`saved(size, tied=False)`: a folder that `save_pretrained` wrote; for reading only."""

    def save(size, *, tied=False):
        folder = tmp_path_factory.mktemp("saved")
        pair(size, tied=tied).save_pretrained(folder)
        (folder / "vocab.txt").write_text("\n".join(PIECES) + "\n")
        return folder

    return save


@pytest.fixture(scope="module")
def tiny(saved):
    return saved("tiny")


def logits(config, params):
    (text_ids, mask), (ids, _) = texts(), pictures()
    return jax.jit(models.build(config).apply)({"params": params}, text_ids, mask, ids)


def reference_logits(reference):
    return answer_of(reference, *texts(), pictures()[1]).logits.detach().numpy()


def reloaded(folder):
    """The torch model of a folder; nothing in the folder may be missing or left over."""
    model, report = transformers.EncoderDecoderModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    return model.eval()


@pytest.mark.parametrize(("size", "tied"), [("odd", False), ("unequal", True)])
def test_a_checkpoint_goes_in_and_out_again(saved, tmp_path, capsys, size, tied):
    theirs = reference_logits(pair(size, tied=tied))
    run, out = tmp_path / "run", tmp_path / "out"
    assert cli.main(["convert", "encoder-decoder", str(saved(size, tied=tied)), "--out", str(run)]) == 0
    config, (params, *_) = runs.read_config(run), runs.read_weights(run)
    ours = logits(config, params)
    assert ours.shape == (4, LENGTH, K)
    np.testing.assert_allclose(ours, theirs[..., :K], rtol=0, atol=2e-5)

    assert cli.main(["export", "--run", str(run), "--format", "transformers", "--out", str(out)]) == 0
    assert capsys.readouterr().out == f"{run}\n{out}\n"
    back = reference_logits(reloaded(out))
    np.testing.assert_array_equal(back[..., :K], theirs[..., :K])
    if tied:  # of which nothing was lost
        np.testing.assert_array_equal(back, theirs)
    assert not list(tmp_path.glob("*.partial"))

    # And in once more: the same parameters, and nothing that a config says got lost.
    again, arrays = encoder_decoder.load(out)
    assert again.to_dict() == config.to_dict()
    jax.tree.map(np.testing.assert_array_equal, arrays, params)


def test_load_is_a_function_of_a_folder(tiny):
    config, params = encoder_decoder.load(tiny)
    np.testing.assert_allclose(logits(config, params), reference_logits(pair("tiny"))[..., :K], rtol=0, atol=2e-5)
    shapes = jax.eval_shape(models.build(config).init, jax.random.key(0), *texts(), pictures()[1])["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(np.shape, shapes)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {np.dtype("float32")}
    parts = config.model.encoder, config.model.decoder
    assert [(part.dropout, part.attention_dropout) for part in parts] == [(0.1, 0.2), (0.3, 0.4)]


@pytest.mark.parametrize("old", [False, True], ids=["zip", "stream"])
def test_weights_that_torch_pickled(tiny, tmp_path, old):
    shutil.copy(tiny / "config.json", tmp_path)
    state = pair("tiny").state_dict()  # an OrderedDict with metadata, and buffers of whole numbers
    name = "encoder.encoder.layer.0.output.dense.weight"
    state[name] = state[name].T.contiguous().T  # columns first, as weights from TensorFlow lie
    torch.save(state, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=not old)
    config, params = encoder_decoder.load(tmp_path)
    expected = encoder_decoder.load(tiny)
    assert config.to_dict() == expected[0].to_dict()
    jax.tree.map(np.testing.assert_array_equal, params, expected[1])


@pytest.mark.parametrize("size", ["tiny", "odd", pytest.param("base", marks=pytest.mark.long)])
def test_greedy_tokens_are_torchs(size):
    reference = pair(size)
    text_ids, mask = texts(2)
    answer = reference.generate(
        torch.tensor(text_ids), attention_mask=torch.tensor(mask), max_new_tokens=N, do_sample=False,
        suppress_tokens=[K], eos_token_id=None, output_logits=True, return_dict_in_generate=True,
    )  # fmt: skip
    theirs = answer.sequences[:, 1:].numpy()
    top_two = torch.stack(answer.logits, 1)[..., :K].topk(2).values
    close = (top_two[..., 0] - top_two[..., 1]).numpy() < 1e-4
    assert theirs.shape == (2, N)
    assert all(len(np.unique(row)) >= 32 for row in theirs)

    config = encoder_decoder.config_of(reference.config.to_dict(), size)
    tensors = {name: parameter.detach().numpy() for name, parameter in reference.named_parameters()}
    params = encoder_decoder.convert(tensors, config.model, size)
    keys = jax.random.split(jax.random.key(0), 2)
    sampler = sampling.make(config.sampling).replace(temperature=0)
    ours = sampler.draw(models.build(config), params, (text_ids, mask, np.zeros(2, bool)), keys)
    for own, row, doubtful in zip(np.asarray(ours), theirs, close, strict=True):
        until = np.flatnonzero(doubtful)[0] if doubtful.any() else N
        assert until > 32
        np.testing.assert_array_equal(own[:until], row[:until])


def test_what_was_exported_draws_the_same_in_torch(tiny, tmp_path):
    config, params = encoder_decoder.load(tiny)
    encoder_decoder.save(tmp_path, config.model, params)
    text_ids, mask = texts(2)
    model = reloaded(tmp_path)
    assert model.generation_config.max_new_tokens == N
    model.generation_config.max_new_tokens = 9
    ids = model.generate(torch.tensor(text_ids), attention_mask=torch.tensor(mask), do_sample=False)
    expected = pair("tiny").generate(
        torch.tensor(text_ids), attention_mask=torch.tensor(mask), do_sample=False, max_new_tokens=9,
        suppress_tokens=[K], eos_token_id=None,
    )  # fmt: skip
    np.testing.assert_array_equal(ids, expected)
    assert ids.shape == (2, 10)
    assert (ids[:, 0] == K).all()
    assert ids[:, 1:].max() < K


# --- runs


def test_a_converted_run_with_a_tokenizer_draws_pictures(smoke_run, tmp_path, capsys):
    """A translator that was trained here, exported, converted and sampled: the same tokens as before."""
    out, run = tmp_path / "out", tmp_path / "run"
    assert (
        cli.main(["export", "--run", str(smoke_run.translator), "--format", "transformers", "--out", str(out)]) == 0
    )
    assert "null caption" in capsys.readouterr().err
    assert (out / "tokenizer.json").exists()
    tokenizer = ["--tokenizer-run", str(smoke_run.tokenizer)]
    assert cli.main(["convert", "encoder-decoder", str(out), "--out", str(run), *tokenizer]) == 0
    assert capsys.readouterr().err == ""
    first, second = t2i_jax.load(smoke_run.translator), t2i_jax.load(run)
    plain = {"temperature": 0, "guidance_scale": 1, "min_p": 0, "unguided_tokens": 0}
    np.testing.assert_array_equal(first(["a red seven"], **plain), second(["a red seven"], **plain))


def test_a_run_without_tokenizers_says_so(tiny, saved, tmp_path, capsys):
    assert cli.main(["convert", "encoder-decoder", str(tiny), "--out", str(tmp_path / "run")]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: without image tokenizer (--tokenizer-run) the run can be exported")
    assert said.count("\n") == 1
    assert (tmp_path / "run" / "text_tokenizer.json").exists()


# --- what does not fit


@pytest.fixture
def refusal(capsys, tmp_path):
    def call(*argv):
        before = set(tmp_path.iterdir())
        assert cli.main(list(map(str, argv))) == 2
        out, err = capsys.readouterr()
        assert out == ""
        assert err.startswith("t2i: ")
        assert err.count("\n") == 1
        assert len(err) < 600
        assert set(tmp_path.iterdir()) == before
        return err

    return call


@pytest.fixture
def changed(tiny, tmp_path):
    """A copy of the checkpoint, with some fields of its config.json changed, `half__field` inside a half."""

    def call(tensors=None, **fields):
        folder = shutil.copytree(tiny, tmp_path / "changed", dirs_exist_ok=True)
        config = json.loads((folder / "config.json").read_text())
        for name, value in fields.items():
            half, _, field = name.rpartition("__")
            (config[half] if half else config)[field] = value
        (folder / "config.json").write_text(json.dumps(config))
        if tensors:
            own = load_file(folder / "model.safetensors")
            tensors(own)
            save_file(own, folder / "model.safetensors")
        return folder

    return call


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model_type": "t5"}, "describes a t5, no encoder-decoder"),
        ({"encoder": None}, "does not describe its encoder and decoder"),
        ({"encoder__model_type": "roberta"}, "model_type roberta"),
        ({"encoder__hidden_act": "relu"}, "hidden_act relu"),
        ({"decoder__layer_norm_epsilon": 1e-6}, "layer_norm_epsilon 1e-06"),
        ({"decoder__scale_attn_by_inverse_layer_idx": True}, "scale_attn_by_inverse_layer_idx True"),
        ({"encoder__num_hidden_layers": 3}, "encoder.encoder.layer.2.attention.output.LayerNorm.bias is missing"),
        ({"encoder__num_hidden_layers": 1}, "encoder.encoder.layer.1.attention.output.LayerNorm.bias has no place"),
        ({"encoder__vocab_size": V + 1}, f"has shape ({V}, 32), not ({V + 1}, 32)"),
        ({"decoder__n_embd": 48}, "has shape (256, 32), not (256, 48)"),
        ({"decoder_start_token_id": 0}, "begins with id 0"),
    ],
)
def test_configs_that_do_not_fit(changed, refusal, tmp_path, fields, said):
    folder = changed(**fields)
    if "decoder_start_token_id" in fields:
        (folder / "generation_config.json").unlink()
    assert said in refusal("convert", "encoder-decoder", folder, "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda own: own.pop("decoder.transformer.h.1.crossattention.q_attn.bias"), "q_attn.bias is missing"),
        (lambda own: own.update(extra=np.zeros(3, np.float32)), "extra has no place"),
        (lambda own: own.pop("decoder.lm_head.weight"), "decoder.lm_head.weight is missing"),
    ],
)
def test_tensors_that_do_not_fit(changed, refusal, tmp_path, change, said):
    assert said in refusal("convert", "encoder-decoder", changed(change), "--out", tmp_path / "run")


def test_files_that_are_damaged_or_missing(changed, refusal, tmp_path):
    folder, run = changed(), tmp_path / "run"
    raw = (folder / "model.safetensors").read_bytes()
    for cut in (raw[: len(raw) // 2], raw[:20], b"", struct.pack("<Q", 2**60) + raw[8:]):
        (folder / "model.safetensors").write_bytes(cut)
        assert "is damaged, cut short" in refusal("convert", "encoder-decoder", folder, "--out", run)
    (folder / "model.safetensors").unlink()
    said = refusal("convert", "encoder-decoder", folder, "--out", run)
    assert "holds no model.safetensors or pytorch_model.bin or flax_model.msgpack" in said
    (folder / "model.safetensors").write_bytes(raw)
    for damaged in ("{", "[]", "\xff"):
        (folder / "generation_config.json").write_text(damaged)
        said = refusal("convert", "encoder-decoder", folder, "--out", run)
        assert "generation_config.json is damaged" in said
    (folder / "generation_config.json").unlink()
    (folder / "config.json").write_text("{")
    assert "config.json is damaged" in refusal("convert", "encoder-decoder", folder, "--out", run)
    (folder / "config.json").unlink()
    assert "holds no config.json" in refusal("convert", "encoder-decoder", folder, "--out", run)


def test_vocabularies_and_tokenizers_that_do_not_fit(changed, refusal, smoke_run, tmp_path):
    folder, run = changed(), tmp_path / "run"
    said = refusal("convert", "encoder-decoder", folder, "--out", run, "--tokenizer-run", smoke_run.tokenizer)
    assert f"of 64; the checkpoint writes up to {N} of {K}" in said
    said = refusal("convert", "encoder-decoder", folder, "--out", run, "--tokenizer-run", smoke_run.translator)
    assert "holds no image tokenizer" in said
    (folder / "vocab.txt").write_text("\n".join(PIECES[:-1]))
    said = refusal("convert", "encoder-decoder", folder, "--out", run)
    assert f"vocab.txt holds {V - 1} word pieces; the model reads {V}" in said


def test_what_export_refuses(smoke_run, refusal, tmp_path):
    format_ = ("--format", "transformers")
    said = refusal("export", "--run", smoke_run.tokenizer, *format_, "--out", tmp_path / "out")
    assert "holds no BERT and GPT-2 (patch_vqvae)" in said
    assert "is there already" in refusal("export", "--run", smoke_run.translator, *format_, "--out", tmp_path)
    assert "invalid choice" in refusal("export", "--run", smoke_run.translator, "--format", "x", "--out", "y")


def test_the_start_is_checked_of_a_name_on_the_hub_too(changed, monkeypatch):
    folder = changed()
    (folder / "generation_config.json").write_text(json.dumps({"decoder_start_token_id": 3}))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda _, filename: str(folder / filename))
    with pytest.raises(UserError, match=r"generation_config.json begins with id 3"):
        encoder_decoder.load("nobody/pair")


def test_load_raises_one_line(tmp_path):
    with pytest.raises(UserError, match="holds no model"):
        encoder_decoder.load(tmp_path)
    assert S < N  # texts are shorter than pictures, so that swapped lengths would show
