"""Released weights that do not fit, are damaged, hostile or not there: one line each, and nothing is run."""

import msgpack
import numpy as np
import pytest
from released import BERT, BERT_JSON, GPT2_, GPT2_JSON, KINDS, D, bert_tensors, gpt2_tensors, write

from t2i_jax.convert import bert, gpt2, hub, weights
from t2i_jax.errors import UserError


def refusal(module, folder, sizes):
    with pytest.raises(UserError) as caught:
        module.load(folder, sizes, "config.model.part")
    message = str(caught.value)
    assert "\n" not in message
    assert len(message) < 500
    return message


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"layers": 2}, "layers 3, not 2; name other weights, or change config.model.part"),
        ({"width": 16, "mlp_width": 40}, "width 8, not 16, mlp_width 20, not 40"),
        ({"vocab_size": 44}, "vocab_size 43, not 44"),
        ({"heads": 4}, "heads 2, not 4"),
        ({"max_positions": 11}, "holds 10 positions; config.model.part.max_positions 11"),
    ],
)
def test_sizes_that_differ(tmp_path, change, said):
    assert said in refusal(bert, write(tmp_path / "bert", bert_tensors(), config=BERT_JSON), {**BERT, **change})


def test_another_architecture_is_named(tmp_path):
    berts = write(tmp_path / "bert", bert_tensors(), config=BERT_JSON)
    gpts = write(tmp_path / "gpt2", gpt2_tensors(), config=GPT2_JSON)
    assert "holds no GPT-2 (its tensors: embeddings.LayerNorm.bias" in refusal(gpt2, berts, GPT2_)
    assert "holds no BERT (its tensors: h.0." in refusal(bert, gpts, BERT)
    lookalike = write(tmp_path / "roberta", bert_tensors(), config={**BERT_JSON, "model_type": "roberta"})
    assert "has model_type roberta" in refusal(bert, lookalike, BERT)
    relu = write(tmp_path / "relu", gpt2_tensors(), config={**GPT2_JSON, "activation_function": "relu"})
    assert "has activation_function relu; this model computes with gelu_new" in refusal(gpt2, relu, GPT2_)


def test_without_a_config_the_number_of_heads_is_unknown(tmp_path):
    for module, tensors, sizes in ((bert, bert_tensors(), BERT), (gpt2, gpt2_tensors(), GPT2_)):
        folder = write(tmp_path / "weights", tensors)
        for source in (folder, folder / "model.safetensors"):
            assert f"folder {folder} holds no config.json; put the file there" in refusal(module, source, sizes)


@pytest.mark.parametrize("value", [None, "8", 0, 8.0, True])
def test_sizes_that_are_no_numbers(tmp_path, value):
    for module, tensors, config, sizes, fields in (
        (bert, bert_tensors(), BERT_JSON, BERT, ["hidden_size"]),
        (gpt2, gpt2_tensors(), GPT2_JSON, GPT2_, ["n_embd", *(["n_inner"] if value is not None else [])]),
    ):
        for field in fields:
            said = refusal(module, write(tmp_path / "weights", tensors, config={**config, field: value}), sizes)
            assert f"has {field} {value!r}, which is no whole number above 0" in said


def test_differences_are_listed(tmp_path):
    own = bert_tensors()
    for i in range(3):
        del own[f"encoder.layer.{i}.output.dense.bias"]
    own["encoder.extra.weight"] = np.zeros(2, np.float32)
    own["encoder.layer.0.attention.self.key.bias"] = np.zeros(D + 1, np.float32)
    said = refusal(bert, write(tmp_path / "bert", own, config=BERT_JSON), BERT)
    assert "encoder.layer.0.output.dense.bias is missing; encoder.layer.1.output.dense.bias is missing" in said
    assert "encoder.extra.weight has no place and 1 more" in said


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_cut_short(tmp_path, kind):
    folder = write(tmp_path / "bert", bert_tensors(), kind)
    path = weights.find(folder)
    raw = path.read_bytes()
    for cut in (raw[:-100], raw[: len(raw) // 3], b""):
        path.write_bytes(cut)
        assert str(path) in refusal(bert, folder, BERT)


class Hostile:
    def __reduce__(self):
        return exec, ("raise SystemExit('ran')",)


@pytest.mark.parametrize("kind", ["pytorch_model.bin", "flax_model.msgpack"])
def test_nothing_in_a_file_is_run(tmp_path, kind):
    import pickle

    raw = pickle.dumps({"a": Hostile()}, protocol=2)
    if kind == "flax_model.msgpack":
        raw = msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb([[1], "object", raw]))})
    (tmp_path / kind).write_bytes(raw)
    assert kind in refusal(bert, tmp_path, BERT)


@pytest.mark.parametrize(
    "value", [3, {"a": "text"}, {"a": {"kernel": [1, 2]}}, {}, [], {"a": msgpack.ExtType(2, b"x")}]
)
def test_msgpack_that_holds_no_arrays(tmp_path, value):
    (tmp_path / "flax_model.msgpack").write_bytes(msgpack.packb(value))
    refusal(bert, tmp_path, BERT)


def test_files_of_another_kind_or_none(tmp_path, monkeypatch):
    (tmp_path / "weights.txt").write_text("x")
    assert "is no file of weights; name one that ends in .safetensors" in refusal(
        bert, tmp_path / "weights.txt", BERT
    )
    assert "holds no model.safetensors or pytorch_model.bin or" in refusal(bert, tmp_path, BERT)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    monkeypatch.setattr(hub, "TIMEOUT", 1)
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    said = refusal(gpt2, "nobody/gpt2", GPT2_)
    assert "its model.safetensors could not be fetched (ConnectionError: no network)" in said
    assert "download https://huggingface.co/nobody/gpt2/resolve/main/model.safetensors" in said


def unreachable(*_, **__):
    raise ConnectionError("no network")
