"""A frozen encoder: it runs once for each caption, no step computes it, and nothing else changes."""

import itertools
import shutil
from functools import cache

import jax
import numpy as np
import pytest
import test_train
from fakes import fake_batch
from flax.traverse_util import flatten_dict

from t2i_jax import runs, tasks
from t2i_jax.config import load_config
from t2i_jax.data import text_features
from t2i_jax.data.text import TextTokenizer
from t2i_jax.loop import parallel, setup, train
from t2i_jax.loop.flops import flops_of
from t2i_jax.loop.state import merge, split
from t2i_jax.models.translator import text_encoder
from t2i_jax.tasks import frozen_text

WIDTH, LAYERS = 48, 2  # of the encoder; the decoder's is 32


def freeze(config, **changes):
    """A small translator whose encoder is frozen; AdamW, as Muon has products of its own."""
    config.unlock()
    config.optim.muon, config.optim.lr_multipliers = 0.0, {"bert": 0.0} | changes
    config.model.encoder.update({"width": WIDTH, "layers": LAYERS, "heads": 4})
    return config.lock()


def made(encodes_once=True, **changes):
    """A task, which runs the encoder at each step where `encodes_once` is False."""
    task = tasks.make(freeze(load_config("translator:smoke"), **changes))
    task.encodes_once = encodes_once
    return task


def test_only_an_encoder_that_never_changes_runs_once():
    config = freeze(load_config("translator:smoke"))
    assert tasks.make(config).encodes_once
    fields = ("dropout", "attention_dropout")
    for field, value in itertools.product(fields, (0.1, 0.0)):
        config.model.encoder[field] = value
        assert tasks.make(config).encodes_once == (value == 0)
    for part, multiplier in (("bert", 0.1), ("encoder/layers/mlp", 1.0), ("gpt2", 0.0), ("word_embed", 0.0)):
        other = freeze(load_config("translator:smoke"), **{part: multiplier})
        assert tasks.make(other).encodes_once == (multiplier == 0)
    assert not tasks.make(load_config("translator:smoke")).encodes_once
    assert not tasks.make(load_config("translator:transformer")).encodes_once  # has no such encoder


def test_a_frozen_encoder_with_dropout_says_what_that_costs(capsys):
    for part in ({"bert": 0.0}, {"bert": 0.1}):
        config = freeze(load_config("translator:smoke"), **part)
        config.model.encoder.dropout = 0.1
        tasks.make(config).before_training({})
        assert ("--config.model.encoder.dropout=0" in capsys.readouterr().err) == (part["bert"] == 0)


@cache
def batches():
    """The set-up, its first state, and a batch with null rows, with features and without."""
    task = made()
    built = parallel.make(task)
    state, batch = built.init(), fake_batch(task, 8)
    encode = frozen_text._encoding(text_encoder(task.model), state.params["bert"])
    features = encode(batch["text_ids"], batch["text_mask"])
    batch["text_features"] = np.where(batch["text_mask"][..., None], features, 0)  # as they are looked up
    return built, state, {True: batch, False: {k: x for k, x in batch.items() if k != "text_features"}}


def assert_close(one, other, rtol):
    for (path, x), y in zip(jax.tree.leaves_with_path(one), jax.tree.leaves(other), strict=True):
        scale = max(np.abs(y).max(), 1e-3)
        np.testing.assert_allclose(x, y, rtol=0, atol=rtol * scale, err_msg=jax.tree_util.keystr(path))


@pytest.mark.slow
def test_loss_and_gradients_are_those_of_an_encoder_that_runs():
    built, state, by_kind = batches()
    phase = built.phases[0]
    trained, others = split(state.params, phase)

    def loss(trained, batch):
        rngs = {"dropout": jax.random.key(0)}
        return phase.loss_fn(merge(trained, others), {}, batch, step=0, rngs=rngs, train=True)[0]

    gradients = jax.jit(jax.value_and_grad(loss))
    (cached, cached_grads), (plain, grads) = (gradients(trained, by_kind[kind]) for kind in (True, False))
    assert float(cached) == pytest.approx(float(plain), rel=1e-6)
    assert "bert" not in grads
    assert np.abs(grads["enc_to_dec_proj"]["kernel"]).max() > 1e-4
    assert np.abs(grads["null_caption"]).max() > 1e-4
    assert_close(cached_grads, grads, 1e-6)


def without_key_biases(params):
    return {path: x for path, x in flatten_dict(params).items() if path[-2:] != ("key", "bias")}


@pytest.mark.slow
def test_three_steps_end_at_the_same_params():
    built, state, by_kind = batches()
    ends = {}
    for cached, batch in by_kind.items():
        moved = jax.tree.map(jax.numpy.copy, state)  # a step takes what it is given
        for _ in range(3):
            moved, _ = built.step(moved, batch)
        ends[cached] = moved.params
    # Softmax does not see what all keys share: gradients of their biases are rounding, of which Adam makes steps.
    seen = [without_key_biases(params) for params in (ends[True], ends[False])]
    assert_close(*seen, 1e-5)
    for x, y in zip(*(jax.tree.leaves(params["bert"]) for params in (ends[True], state.params)), strict=True):
        np.testing.assert_array_equal(x, y)
    moved = np.abs(ends[True]["head"]["kernel"] - state.params["head"]["kernel"]).max()
    assert moved > 1e-3


def traced(size=8, **options):
    return parallel.make(made(**options)).trace(size)


def forward_flops(size=8):
    """By hand: of each layer four projections, scores, their means of the values, and the two halves of the MLP."""
    config = freeze(load_config("translator:smoke"))
    length, mlp = config.data.text_len, config.model.encoder.mlp_width
    layer = 4 * WIDTH * WIDTH + 2 * length * WIDTH + 2 * WIDTH * mlp  # multiplications a word piece
    return 2 * size * length * LAYERS * layer


def test_arithmetic_of_a_step():
    """Cached: nothing of the encoder. Frozen: its forward pass. Trained: twice as much again, and more."""
    config = freeze(load_config("translator:smoke"))
    cached, frozen, trained = (
        flops_of(traced(**options).jaxpr)
        for options in ({}, {"encodes_once": False}, {"encodes_once": False, "bert": 1.0})
    )
    assert frozen - cached == forward_flops()
    back_to_the_encoder = 2 * 8 * config.data.text_len * config.model.decoder.width * WIDTH
    assert trained - frozen == 2 * forward_flops() + back_to_the_encoder
    assert cached == decoder_flops(8)


def decoder_flops(size):
    """Of a step that has the encoder's outputs, from shapes: forward, and backward to inputs and to weights."""
    config = freeze(load_config("translator:smoke"))
    tokens, length = config.model.num_tokens, config.data.text_len
    width, mlp, codes = config.model.decoder.width, config.model.decoder.mlp_width, config.model.codebook_size
    own = 4 * width**2 + 2 * tokens * width + 2 * width * mlp  # multiplications an image token
    across = 2 * width**2 + 2 * length * width  # queries, out, scores, means
    image = tokens * (config.model.decoder.layers * (own + across) + width * codes)
    memory = length * config.model.decoder.layers * 2 * width**2  # keys and values
    projection = length * WIDTH * width
    return 2 * size * (3 * (image + memory) + 2 * projection)  # nothing leads on from the projection


@pytest.mark.slow
def test_what_xla_compiles():
    """Names of its operations say which module they come from, and whether they are of a backward pass."""

    def names(**options):
        text = traced(**options).lower().compile().as_text()
        found = [line.partition('op_name="')[2].partition('"')[0] for line in text.splitlines()]
        own = [name for name in found if "/bert/" in name]
        return own, [name for name in own if "transpose(jvp(" in name]

    assert names() == ([], [])
    forward, backward = names(encodes_once=False)
    assert forward
    assert backward == []
    assert names(encodes_once=False, bert=1.0)[1]


@pytest.fixture
def count_rows(monkeypatch):
    """Numbers of captions that encoders were given, a list that grows."""
    counts, encoding = [], frozen_text._encoding

    def counting(*args):
        encode = encoding(*args)
        return lambda ids, masks: counts.append(len(ids)) or encode(ids, masks)

    monkeypatch.setattr(frozen_text, "_encoding", counting)
    return counts


class Words(TextTokenizer):
    """Numbers are their own ids."""

    def __init__(self):
        self.text_len = 4

    def encode(self, texts):
        ids = np.zeros((len(texts), 4), np.int32)
        for row, text in enumerate(texts):
            ids[row, : len(text.split())] = list(map(int, text.split()))
        return ids, ids > 0, []


def test_features_have_the_type_of_the_model(count_rows, tmp_path):
    model = made().model.copy(dtype="bfloat16")
    encoder = text_encoder(model)
    params = {"bert": encoder.init(jax.random.key(0), *Words().encode(["1"])[:2])["params"]}
    features = frozen_text.load(
        model, params, Words(), ["1 2", "3", "1 2"], digest="captions", run=tmp_path, folder=tmp_path / "tokens"
    )
    assert sum(count_rows) == features.count == 2
    ids, mask, _ = Words().encode(["1 2"])
    expected, found = encoder.apply({"params": params["bert"]}, ids, mask)[0], features(ids[0], mask[0])
    spec = frozen_text.spec(model, 1, 4)
    assert (found.dtype, (1, *found.shape)) == (spec.dtype, spec.shape) == ("bfloat16", (1, 4, WIDTH))
    np.testing.assert_allclose(found[:2].astype(float), expected[:2].astype(float), rtol=0.02, atol=0.02)


@pytest.fixture
def own_config(smoke_config, smoke_run, tmp_path):
    """Of four steps with a frozen encoder, on a copy of the shared tokenizer with its tokens."""
    config = freeze(smoke_config("translator"))
    config.unlock()
    config.parents.tokenizer.run = str(shutil.copytree(smoke_run.tokenizer, tmp_path / "tokenizer"))
    config.steps, config.checkpoint_every, config.eval_every, config.ema = 4, 2, 4, 0.9
    config.model.decoder.dropout, config.data.caption_dropout, config.data.code_noise = 0.1, 0.5, 0.3
    return config.lock()


@pytest.mark.slow
def test_a_run_caches_stops_and_ends_as_the_one_that_never_stopped(
    own_config, count_rows, tmp_path, monkeypatch, capsys
):
    given, step = [], setup.Setup.step

    def recorded(self, state, batch):
        given.append(batch)
        return step(self, state, batch)

    monkeypatch.setattr(setup.Setup, "step", recorded)
    train.train(own_config, tmp_path / "whole")
    folder = next((tmp_path / "tokenizer" / "tokens").glob("*/text_features"))
    cached = text_features.TextFeatures(folder)
    assert sum(count_rows) == cached.count
    task = tasks.make(own_config)
    splits = task.prepare(tmp_path / "whole", {"tokenizer": tasks.open_run(tmp_path / "tokenizer")}).splits
    texts = {caption for row in splits["train"] for caption in row["captions"]}
    assert cached.count == len(texts) < len(splits["train"])

    params = runs.read_weights(tmp_path / "whole")[0]
    encode = frozen_text._encoding(text_encoder(task.model), params["bert"])  # which has not changed
    assert len(given) == 4
    spec = {name: (x.shape, x.dtype) for name, x in task.batch_spec(own_config.batch_size).items()}
    for batch in given:
        assert {name: (x.shape, x.dtype) for name, x in batch.items()} == spec
        masks = batch["text_mask"]
        expected = encode(batch["text_ids"], masks)[masks]
        np.testing.assert_allclose(batch["text_features"][masks], expected, rtol=0, atol=2e-6)

    counts = len(count_rows)
    with monkeypatch.context() as patch:
        test_train.signal_in("push", 2, test_train.signal.SIGTERM, patch)
        with pytest.raises(SystemExit):
            train.train(own_config, tmp_path / "parts")
    train.train(own_config, tmp_path / "parts")
    assert "continuing from step 2" in capsys.readouterr().err
    assert len(count_rows) == counts  # computed once for all three
    test_train.assert_same_end(tmp_path / "whole", tmp_path / "parts")


@pytest.mark.slow
def test_what_makes_them_be_computed_again(own_config, count_rows, tmp_path, capsys):
    """Other weights, another encoder with the same ones, other captions; not the same ones again."""
    parents = {"tokenizer": tasks.open_run(tmp_path / "tokenizer")}

    def computed(seed, data="", **encoder):
        config = own_config.copy_and_resolve_references().unlock()
        config.seed = seed
        config.model.encoder.update(encoder)
        task = tasks.make(config)
        (tmp_path / "run").mkdir(exist_ok=True)
        task.prepare(tmp_path / "run", parents)
        task.captions += data
        del count_rows[:]
        capsys.readouterr()
        task.before_training(parallel.make(task).init().params)
        said = [line for line in capsys.readouterr().err.splitlines() if "are made of" in line]
        return sum(count_rows), [line.partition("are made of ")[2].split()[0] for line in said]

    count, said = computed(seed=0)
    assert count > 0
    assert said == []
    assert computed(seed=0) == (0, [])
    assert computed(seed=1) == (count, ["encoder"])
    assert computed(seed=1, heads=2) == (count, ["encoder"])
    assert computed(seed=1, heads=2, data="edited") == (count, ["captions"])
    assert computed(seed=1, heads=2, data="edited") == (0, [])
