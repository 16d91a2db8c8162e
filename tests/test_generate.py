"""A trained run opened for use: captions -> pictures, pictures <-> tokens."""

import shutil
from dataclasses import asdict
from functools import partial

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

import t2i_jax
from t2i_jax import files, pipelines, runs, sampling
from t2i_jax.data import scenes
from t2i_jax.errors import UserError
from t2i_jax.pipelines import batches
from t2i_jax.random import stream
from t2i_jax.sampling.autoregressive import Autoregressive
from t2i_jax.sampling.decoding import decode

PROMPTS = [
    "a red seven",
    "a blue one",
    "two green threes",
    "a white four above a red two",
    "a red seven left of a blue three",
    "four cyan nines",
    "an orange six",
    "a purple zero and a yellow five",
]


@pytest.fixture(scope="module")
def pipe(smoke_run):
    return t2i_jax.load(str(smoke_run.translator))


@pytest.fixture(scope="module")
def tokenizer(smoke_run):
    return t2i_jax.load(smoke_run.tokenizer)


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    return np.stack([scenes.render(scenes.draw_scene(rng), "validation", rng) for _ in range(5)])


def refusal(function, *args, **options):
    with pytest.raises(UserError) as caught:
        function(*args, **options)
    message = str(caught.value)
    assert "\n" not in message
    return message


@pytest.fixture(scope="module")
def draw(pipe):
    """Tokens of prompts, each its picture number 0, at settings that leave a choice everywhere."""

    def call(prompts, seed=0, numbers=None, **changes):
        sampler = pipe.sampling.replace(temperature=1.0, unguided_tokens=0, guidance_scale=2.0)
        numbers = np.zeros(len(prompts), int) if numbers is None else numbers
        return pipe.draw_ids(prompts, numbers, seed, sampler.replace(**changes))

    return call


def test_load_opens_both_kinds(pipe, tokenizer, smoke_run):
    assert isinstance(pipe, pipelines.Translator)
    assert isinstance(tokenizer, pipelines.Tokenizer)
    assert pipe.step == tokenizer.step == 2
    assert pipe.digest == runs.read_weights(smoke_run.translator)[3]
    assert pipe.tokenizer.digest == tokenizer.digest == runs.read_weights(smoke_run.tokenizer)[3]
    assert pipe.sampling == sampling.make(pipe.config.sampling)


def test_a_moved_run_needs_nothing_else(smoke_run, tmp_path, pipe):
    moved = t2i_jax.load(shutil.copytree(smoke_run.translator, tmp_path / "elsewhere"))
    np.testing.assert_array_equal(moved(PROMPTS[:1], seed=3), pipe(PROMPTS[:1], seed=3))


def test_images_have_the_shape_that_was_asked_for(pipe):
    images = pipe(["a red seven"], num_images=8)
    assert images.dtype == np.uint8
    assert images.shape == (1, 8, 32, 32, 3)
    assert len(np.unique(images[0], axis=0)) > 2
    assert pipe(PROMPTS[:3]).shape == (3, 1, 32, 32, 3)


def test_pictures_are_those_of_the_tokens(pipe, tokenizer):
    ids = pipe.draw_ids(["a red seven"] * 2, np.arange(2), 5, pipe.sampling)
    expected = np.round(tokenizer.detokenize(ids) * 255)
    np.testing.assert_allclose(pipe(["a red seven"], num_images=2, seed=5)[0], expected, atol=1)


def test_tokens_depend_neither_on_batch_nor_on_place(draw, pipe):
    numbers = np.arange(8)  # so that rows differ, however little a run of two steps heeds its captions
    together = draw(PROMPTS, numbers=numbers)
    assert (together.shape, together.dtype) == ((8, pipe.tokenizer.num_tokens), np.int32)
    assert 0 <= together.min() <= together.max() < 64
    assert len({row.tobytes() for row in together}) == 8
    alone = np.concatenate([draw(PROMPTS[i : i + 1], numbers=numbers[i : i + 1]) for i in range(8)])
    np.testing.assert_array_equal(together, alone)
    threes = np.concatenate([draw(PROMPTS[i : i + 3], numbers=numbers[i : i + 3]) for i in (0, 3, 6)])
    np.testing.assert_array_equal(together, threes)
    order = np.random.default_rng(1).permutation(8)
    np.testing.assert_array_equal(draw([PROMPTS[i] for i in order], numbers=order), together[order])
    heeding = draw(PROMPTS, guidance_scale=500.0)
    assert len({row.tobytes() for row in heeding}) > 3  # numbers are equal here, captions make the difference
    np.testing.assert_array_equal(draw([PROMPTS[i] for i in order], guidance_scale=500.0), heeding[order])
    order = [0, 1, 1, 0, 2, 1, 1, 0, 1]  # each is read once, for its own images
    np.testing.assert_array_equal(draw([PROMPTS[i] for i in order], guidance_scale=500.0), heeding[order])


def test_more_than_one_batch_is_drawn_alike(draw, monkeypatch):
    together = draw(PROMPTS, numbers=np.arange(8))
    monkeypatch.setattr(batches, "BATCH", 4)
    np.testing.assert_array_equal(draw(PROMPTS, numbers=np.arange(8)), together)


def test_seed_and_number_change_tokens(draw):
    first = draw(PROMPTS[:1])
    np.testing.assert_array_equal(draw(PROMPTS[:1]), first)
    assert not np.array_equal(draw(PROMPTS[:1], seed=1), first)
    assert not np.array_equal(draw(PROMPTS[:1], numbers=np.ones(1, int)), first)


def test_settings_override_the_runs(pipe, draw):
    pipe = partial(pipe, unguided_tokens=0)
    greedy = pipe(PROMPTS[:2], num_images=2, temperature=0)
    np.testing.assert_array_equal(greedy[:, 0], greedy[:, 1])  # nothing is drawn
    np.testing.assert_array_equal(greedy, pipe(PROMPTS[:2], num_images=2, seed=9, temperature=0))
    for narrow in ({"top_k": 1}, {"top_p": 1e-6}, {"min_p": 1}):
        np.testing.assert_array_equal(greedy, pipe(PROMPTS[:2], num_images=2, seed=4, **narrow))
    wide = pipe(PROMPTS[:2], num_images=2)
    assert not np.array_equal(greedy, wide)
    numbers = np.arange(2)
    one, other = draw(PROMPTS[:1] * 2, numbers=numbers, temperature=0)
    np.testing.assert_array_equal(one, other)
    one, other = draw(PROMPTS[:1] * 2, numbers=numbers, temperature=0, unguided_tokens=4)
    assert not np.array_equal(one[:4], other[:4])
    assert not np.array_equal(draw(PROMPTS[:2], guidance_scale=200.0), draw(PROMPTS[:2]))


def test_settings_are_the_runs_unless_given(pipe):
    theirs = pipe(PROMPTS[:2], num_images=2)
    np.testing.assert_array_equal(pipe(PROMPTS[:2], num_images=2, **asdict(pipe.sampling)), theirs)


def test_guidance_1_is_no_guidance(pipe, draw):
    ids, mask, _ = pipe._reader.encode_prompts(PROMPTS)
    keys = jax.vmap(partial(jax.random.fold_in, stream(0, "sample")))(np.zeros(8, int))
    condition, valid = (ids, mask, np.zeros(8, bool)), pipe.tokenizer.valid_ids
    settings = asdict(Autoregressive())
    del settings["window"], settings["weight_bits"]
    sample = partial(decode, pipe._model, pipe._params, condition, keys, settings, valid)
    unguided = sample(guided=False).ids
    np.testing.assert_array_equal(sample(guided=True).ids, unguided)
    np.testing.assert_array_equal(draw(PROMPTS, guidance_scale=1.0), unguided)


def test_changing_a_setting_compiles_nothing(draw):
    draw(PROMPTS[:1])
    compiled = decode._cache_size()
    others = {"temperature": 0.3, "top_k": 5, "top_p": 0.5, "min_p": 0.2, "unguided_tokens": 4, "guidance_scale": 3}
    ends = {"temperature": 0, "min_p": 1, "unguided_tokens": 99}
    for name, value in [*others.items(), *ends.items()]:
        draw(PROMPTS[:1], seed=2, **{name: value})
    assert decode._cache_size() == compiled
    draw(PROMPTS[:2])
    draw(PROMPTS[:3])  # padded to 8
    compiled = decode._cache_size()
    draw(PROMPTS[:4])
    assert decode._cache_size() == compiled


@pytest.mark.parametrize(
    ("prompts", "options", "said"),
    [
        ("a red seven", {}, "give a list of strings"),
        ([], {}, "there is no prompt"),
        (["a red seven"], {"num_images": 0}, "num_images 0"),
        (["a red seven", ""], {}, "prompt 1 is empty"),
        (["a red seven", " \t"], {}, "prompt 1 is empty"),
        (["a red seven " * 4], {}, "seven' has 12 word pieces; this run reads at most 10"),
        (["a red seven"], {"temperature": -1}, "temperature -1"),
        (["a red seven"], {"temperature": float("nan")}, "temperature nan"),
        (["a red seven"], {"top_k": -1}, "top_k -1"),
        (["a red seven"], {"top_p": 0}, "top_p 0"),
        (["a red seven"], {"min_p": 1.5}, "min_p 1.5"),
        (["a red seven"], {"unguided_tokens": -1}, "unguided_tokens -1"),
        (["a red seven"], {"window": 25}, "window 25 is above the 24 tokens of a picture; give 1 (off) to 24"),
        (["a red seven"], {"guidance_scale": -0.5}, "guidance_scale -0.5"),
        (["a red seven"], {"seed": -1}, "seed -1 is out of range; give 0 to 4294967295"),
        (["a red seven"], {"seed": 2**32}, "seed 4294967296 is out of range; give 0 to 4294967295"),
        (["a red seven"], {"temprature": 1}, "no setting 'temprature'; did you mean 'temperature'?"),
    ],
)
def test_what_cannot_be_drawn_says_so(pipe, prompts, options, said):
    assert said in refusal(pipe, prompts, **options)


def test_guidance_on_a_null_caption_that_was_never_trained_is_refused(pipe, draw, monkeypatch):
    config = ConfigDict(pipe.config)
    config.data.caption_dropout = 0.0
    monkeypatch.setattr(pipe, "config", config)
    assert pipe.sampling.guidance_scale == 1.5  # of the config that it was trained with
    for attempt in (pipe, partial(pipe, guidance_scale=3), draw):
        assert "compares with the null caption, which is never trained here" in refusal(attempt, PROMPTS[:1])
    del config.data.caption_dropout  # as of converted weights
    assert "set guidance_scale to 1" in refusal(pipe, PROMPTS[:1])
    assert pipe(PROMPTS[:1], guidance_scale=1).shape == (1, 1, 32, 32, 3)


def test_every_id_is_valid_at_its_position(pipe, draw):
    valid = pipe.tokenizer.valid_ids
    assert valid.shape == (24, 64)
    ids = draw(PROMPTS * 8, numbers=np.arange(64), temperature=5.0)
    assert valid[np.arange(24), ids].all()


def test_unknown_words_are_named_once(pipe, capsys):
    pipe(["a red llama", "a blue llama"])
    assert capsys.readouterr().err.count("llama") == 1


def test_tokenize_reads_bytes_and_floats_alike(tokenizer, pictures):
    ids = tokenizer.tokenize(pictures)
    assert (ids.shape, ids.dtype) == ((5, tokenizer.num_tokens), np.int32)
    assert 0 <= ids.min() <= ids.max() < tokenizer.codebook_size == 64
    assert len(np.unique(ids)) > 5
    for dtype in (np.float32, np.float64):
        np.testing.assert_array_equal(tokenizer.tokenize(pictures.astype(dtype) / 255), ids)
    np.testing.assert_array_equal(tokenizer.tokenize(pictures[2:3])[0], ids[2])


def test_detokenize_gives_pixels(tokenizer, pictures):
    ids = tokenizer.tokenize(pictures)
    images = tokenizer.detokenize(ids)
    assert (images.shape, images.dtype) == ((5, 32, 32, 3), np.float32)
    assert 0 <= images.min() <= images.max() <= 1
    np.testing.assert_allclose(tokenizer.detokenize(ids[3:]), images[3:], atol=1e-5)
    assert np.abs(images[0] - images[1]).max() > 0.05


def test_an_empty_batch_is_an_empty_batch(tokenizer):
    ids = tokenizer.tokenize(np.zeros((0, 32, 32, 3), np.uint8))
    assert (ids.shape, ids.dtype) == ((0, tokenizer.num_tokens), np.int32)
    images = tokenizer.detokenize(ids)
    assert (images.shape, images.dtype) == ((0, 32, 32, 3), np.float32)


@pytest.mark.parametrize(
    ("images", "said"),
    [
        (np.zeros((32, 32, 3), np.uint8), "(32, 32, 3)"),
        (np.zeros((1, 16, 16, 3), np.uint8), "(1, 16, 16, 3)"),
        (np.zeros((1, 32, 32, 1), np.uint8), "(1, 32, 32, 1)"),
        (np.zeros((1, 32, 32, 3), np.int64), "int64"),
        (np.full((1, 32, 32, 3), 255.0), "from 255 to 255"),
        (np.full((1, 32, 32, 3), -0.1), "-0.1"),
        (np.full((1, 32, 32, 3), np.nan), "nan"),
    ],
)
def test_what_is_no_picture_is_refused(tokenizer, images, said):
    assert said in refusal(tokenizer.tokenize, images)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda ids: ids + 64, "the codebook holds 0 to 63"),
        (lambda ids: ids - 1, "the codebook holds 0 to 63"),
        (lambda ids: ids[:, 1:], "of this run have integers [B, "),
        (lambda ids: ids[0], "of this run have integers [B, "),
        (lambda ids: ids.astype(float), "float64"),
    ],
)
def test_what_are_no_ids_is_refused(tokenizer, change, said):
    assert said in refusal(tokenizer.detokenize, change(np.zeros((1, tokenizer.num_tokens), int)))


def test_folders_that_cannot_be_opened_say_why(smoke_run, tmp_path):
    assert "does not exist" in refusal(t2i_jax.load, tmp_path / "absent")
    assert "is no run folder" in refusal(t2i_jax.load, tmp_path)
    files.write_json(tmp_path / runs.CONFIG, files.read_json(smoke_run.tokenizer / runs.CONFIG) | {"task": "dream"})
    assert "task 'dream' is unknown" in refusal(t2i_jax.load, tmp_path)
    run = shutil.copytree(smoke_run.translator, tmp_path / "run")
    shutil.rmtree(run / "checkpoints")  # or its weights would stand in for the run's
    for name, said in [
        (f"parents/tokenizer/{runs.WEIGHTS}", "has no weights"),
        ("text_tokenizer.json", "text tokenizer"),
        (runs.WEIGHTS, "has no weights"),
    ]:
        content = (run / name).read_bytes()
        (run / name).unlink()
        assert said in refusal(t2i_jax.load, run)
        (run / name).write_bytes(content)
    assert t2i_jax.load(run).step == 2
