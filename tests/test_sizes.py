"""Sizes that follow from data, a tokenizer or released weights are set in one place."""

import pytest
import released

from t2i_jax.config import fill_sizes, load_config
from t2i_jax.errors import UserError
from t2i_jax.models.bert import Bert
from t2i_jax.models.gpt2 import GPT2

SMOKE = "translator:smoke"


def load(name, **fields):
    return load_config(name, [f"--config.{field.replace('__', '.')}={value}" for field, value in fields.items()])


@pytest.fixture
def sources(tmp_path):
    """Folders of a BERT and a GPT-2 as `save_pretrained` writes them."""
    config = released.BERT_JSON | {"max_position_embeddings": 16}
    bert = released.write(tmp_path / "bert", released.bert_tensors(), config=config)
    return bert, released.write(tmp_path / "gpt2", released.gpt2_tensors(), config=released.GPT2_JSON)


@pytest.mark.parametrize("name", ["translator:smoke", "prior:smoke"])
def test_the_texts_length_alone_is_enough(name):
    config = load(name, data__text_len=16)
    assert config.model.text_len == config.model.encoder.max_positions == 16


@pytest.mark.parametrize("name", ["translator:transformer", "dalle:smoke"])
def test_a_model_without_an_encoder_of_its_own_follows_too(name):
    assert load(name, data__text_len=16).model.text_len == 16


def test_the_tokenizers_codebook_alone_is_enough():
    assert load(SMOKE, parents__tokenizer__config__model__codebook_size=512).model.codebook_size == 512


def test_the_size_of_the_pictures_alone_is_enough():
    config = load(SMOKE, data__image_size=64)
    assert config.parents.tokenizer.config.model.image_size == 64
    assert config.model.num_tokens == config.model.decoder.positions == 16 + 16 + 64
    assert load("vae:smoke", data__channels=1).model.channels == 1


@pytest.mark.parametrize(
    ("name", "count", "grid"),
    [
        ("prior:smoke", 24, (6, 4)),  # three grids, in rows as long as the finest has
        ("prior:mnist", 49, (7, 7)),
        ("prior:cifar10", 64, (8, 8)),
        ("dalle:digits", 64, (8, 8)),
    ],
)
def test_grids(name, count, grid):
    model = load(name).model
    assert (model.num_tokens, model.grid) == (count, grid)


def test_released_weights_of_the_encoder_alone_are_enough(sources):
    config = load(SMOKE, encoder_weights=sources[0])
    fields = {**config.model.encoder, "vocab_size": config.model.text_vocab_size}
    expected = released.BERT | {"max_positions": config.data.text_len}  # of the file's positions the first are kept
    assert {name: fields[name] for name in expected} == expected
    assert config.model.encoder.dropout == 0.0  # which is no size
    assert config.model.decoder.to_dict() == load(SMOKE).model.decoder.to_dict()
    Bert(**fields)


def test_released_weights_of_the_decoder_alone_are_enough(sources):
    config = load(SMOKE, decoder_weights=sources[1])
    expected = released.GPT2_ | {"positions": config.model.num_tokens}  # interpolated
    del expected["vocab_size"]  # of words, which it does not write here
    assert {name: config.model.decoder[name] for name in expected} == expected
    assert config.model.text_vocab_size == load(SMOKE).model.text_vocab_size
    GPT2(vocab_size=3, **config.model.decoder)


def test_a_file_of_weights_has_its_config_beside_it(sources):
    assert load(SMOKE, encoder_weights=sources[0] / "model.safetensors").model.encoder.width == released.D


def test_weights_that_would_have_to_be_fetched_leave_sizes_as_the_config_has_them(monkeypatch):
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    assert load(SMOKE, encoder_weights="nobody/bert").model.encoder.width == 32
    model = load("translator:coco").model
    assert (model.encoder.width, model.encoder.layers, model.text_vocab_size) == (768, 12, 30_522)


def test_sizes_of_a_name_are_fetched_where_that_is_asked_for(sources, monkeypatch):
    option = ["--config.encoder_weights=nobody/bert"]

    def width(fetch):
        return load_config(SMOKE, option, fetch=fetch).model.encoder.width

    def unreachable(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *_: None)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", lambda *_, **__: None)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda _, name: str(sources[0] / name))
    assert (width(fetch=True), width(fetch=False)) == (released.D, 32)
    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", unreachable)
    assert width(fetch=True) == 32  # the weights cannot be had either, which is said where they are read


def test_a_text_is_no_longer_than_a_releases_positions(sources):
    source = sources[0]
    config = load(SMOKE, encoder_weights=source, data__text_len=16)
    assert (config.model.encoder.max_positions, config.model.text_len) == (16, 16)
    with pytest.raises(UserError) as caught:
        load(SMOKE, encoder_weights=source, data__text_len=17)
    assert str(caught.value) == (
        f"config.data.text_len is 17, but config.encoder_weights ({source}/config.json) reads texts of at most 16"
        " word pieces; lower the first"
    )


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"model__text_len": 16}, "config.model.text_len is 16, but 12 follows from config.data.text_len 12"),
        (
            {"model__codebook_size": 32},
            "config.model.codebook_size is 32, but 64 follows from config.parents.tokenizer",
        ),
        (
            {"model__num_tokens": 16},
            "config.model.num_tokens is 16, but 24 follows from config.parents.tokenizer",
        ),
        ({"model__encoder__max_positions": 6}, "config.model.encoder.max_positions is 6, but 12 follows from"),
        (
            {"parents__tokenizer__config__model__image_size": 64},
            "config.parents.tokenizer.config.model.image_size is 64, but 32 follows from config.parents.tokenizer",
        ),
    ],
)
def test_a_value_that_contradicts_names_both(fields, said):
    with pytest.raises(UserError) as caught:
        load(SMOKE, **fields)
    assert str(caught.value).startswith(said)


def test_a_value_that_contradicts_released_weights_names_both(sources):
    source = sources[0]
    for field, value in (("model__encoder__heads", 4), ("model__text_vocab_size", 44)):
        with pytest.raises(UserError, match=rf"is {value}, but .* follows from config.encoder_weights \({source}"):
            load(SMOKE, encoder_weights=source, **{field: value})


def test_what_agrees_may_be_said_and_positions_may_be_more():
    config = load(SMOKE, model__num_tokens=24, model__decoder__positions=30, model__encoder__max_positions=20)
    assert (config.model.decoder.positions, config.model.encoder.max_positions) == (30, 20)


def test_a_config_file_that_contradicts_is_refused_too():
    config = load(SMOKE)
    config.model.num_tokens = 30
    with pytest.raises(UserError, match=r"config.model.num_tokens is 30, but 24 follows"):
        fill_sizes(config)


def test_filling_again_changes_nothing():
    config = load(SMOKE)
    assert fill_sizes(config).to_json() == load(SMOKE).to_json()


def test_weights_that_cannot_be_are_one_line(sources, tmp_path):
    way_out = "or train from scratch: config.encoder_weights=''"
    for source, said in (
        (sources[1], "has model_type gpt2; this model computes with bert: name others"),
        (tmp_path, f"folder {tmp_path} holds no config.json"),
        ("no such/na me/at all", "is neither a folder here nor the name of a model"),
    ):
        with pytest.raises(UserError) as caught:
            load(SMOKE, encoder_weights=source)
        assert said in str(caught.value)
        assert str(caught.value).endswith(way_out)
